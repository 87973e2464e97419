//! Tokens as last committed, in memory: a token of ten thousand uses must not be
//! read with all its uses whenever one of its machines joins.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_domain::token::{TokenId, TokenRecord};

/// Committed tokens that the writer touched lately. It serves `find` only:
/// whoever redeems is judged by the store itself. Another process's change is
/// seen here as soon as it is noticed.
#[derive(Default)]
pub(super) struct Recent(Mutex<HashMap<TokenId, Arc<TokenRecord>>>);

impl Recent {
    /// The token, if it was touched lately.
    pub(super) fn find(&self, id: &TokenId) -> Option<Arc<TokenRecord>> {
        self.tokens().get(id).cloned()
    }

    /// Takes a token as it was committed.
    pub(super) fn publish(&self, id: &TokenId, token: Option<Arc<TokenRecord>>) {
        let mut tokens = self.tokens();
        match token {
            Some(token) => {
                if tokens.len() >= MOST_TOKENS {
                    tokens.clear();
                }
                tokens.insert(id.clone(), token);
            }
            None => {
                tokens.remove(id);
            }
        }
    }

    /// Forgets all: another process has written.
    pub(super) fn clear(&self) {
        self.tokens().clear();
    }

    fn tokens(&self) -> MutexGuard<'_, HashMap<TokenId, Arc<TokenRecord>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The most tokens kept, here and by the writer.
pub(super) const MOST_TOKENS: usize = 512;
