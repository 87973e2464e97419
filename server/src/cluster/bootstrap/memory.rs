//! Secrets in memory: a working double, which counts how often it is asked.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use berth_domain::token::TokenId;

use super::secret::BootstrapSecret;
use super::source::Secrets;
use crate::cluster::faulty::Injected;
use crate::ports::{Answer, PortError};

/// The Secrets of bootstrap tokens, by the token's id.
#[derive(Default)]
pub struct MemorySecrets {
    secrets: Mutex<BTreeMap<TokenId, BootstrapSecret>>,
    asked: AtomicUsize,
    away: AtomicBool,
}

impl MemorySecrets {
    /// Puts a Secret there, or in another's place.
    pub fn put(&self, id: &TokenId, secret: BootstrapSecret) {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), secret);
    }

    /// Takes it away.
    pub fn delete(&self, id: &TokenId) {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// From now on it cannot be reached, or can.
    pub fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::Relaxed);
    }

    /// How often it was asked.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Secrets for MemorySecrets {
    async fn secret(&self, id: &TokenId) -> Answer<Option<BootstrapSecret>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        // A call takes time: whoever asks meanwhile must not ask again.
        tokio::task::yield_now().await;
        if self.away.load(Ordering::Relaxed) {
            let operation = "read a bootstrap token's Secret";
            return Err(PortError::Unavailable {
                operation,
                cause: Box::new(Injected),
                lasting: Duration::ZERO,
            });
        }
        Ok(self.secrets.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned())
    }
}
