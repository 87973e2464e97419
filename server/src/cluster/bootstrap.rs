//! kubeadm's own bootstrap tokens, laid over a backend: what a Secret in
//! kube-system says decides, and the backend counts the uses.
//!
//! Berth writes nothing in kube-system. The first use of such a token makes a
//! token of the same id in the backend, its shadow: it holds the uses and the
//! word of an operator who revokes it, and a verifier that nobody can satisfy, so
//! that a shadow alone lets nobody in. Uses and networks are settled with it: later
//! annotations can make them fewer, not more.

#[cfg(any(test, feature = "doubles"))]
pub mod memory;
mod reads;
mod secret;
mod source;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::identity::SpkiHash;
use berth_domain::join::{Entry, Event, JoinId, JoinRecord, Origin};
use berth_domain::name::NodeName;
use berth_domain::node::{Binding, NodeRecord};
use berth_domain::proof::Verifier;
use berth_domain::timestamp::Timestamp;
use berth_domain::token::{Claim, TokenId, TokenRecord, Use};
use tokio::sync::watch;
use zeroize::Zeroizing;

pub use secret::{BootstrapSecret, MAKER, TYPE, Unfit};
pub use source::{ApiSecrets, Secrets};

use super::Sweep;
use crate::ports::{Answer, Cluster, Joins, NodeView, Nodes, Observation, PortError, Release, Tokens};
use reads::{Found, Reads};
use secret::{Known, refused};

/// The most uses of a bootstrap token, and those of one that says nothing: what
/// the backend of a cluster keeps of one token.
pub const MOST_USES: u32 = 1_000;

/// A backend that takes bootstrap tokens, too.
pub struct BootstrapTokens<C: ?Sized> {
    reads: Reads,
    nobody: Zeroizing<[u8; 32]>,
    inner: Arc<C>,
}

impl<C: Cluster + ?Sized> BootstrapTokens<C> {
    /// Lays the tokens of these Secrets over a backend. `nobody` is fresh
    /// randomness, from which no key is ever told: shadows' verifiers.
    #[must_use]
    pub fn over(inner: Arc<C>, secrets: Arc<dyn Secrets>, nobody: Zeroizing<[u8; 32]>) -> Self {
        Self { reads: Reads::new(secrets, MOST_USES), nobody, inner }
    }

    /// The token of a Secret that is there, unless there is none.
    async fn known(&self, id: &TokenId) -> Answer<Option<Arc<Known>>> {
        match self.reads.find(id).await? {
            Found::Nothing => Ok(None),
            Found::Token(known) => Ok(Some(known)),
            Found::Unusable(words) => {
                Err(refused(Code::TokenRejected, id).with_private("reason", words).into())
            }
        }
    }

    /// Makes the shadow; another replica may be faster.
    async fn make_shadow(&self, known: &Known) -> Answer<()> {
        let record = known.record();
        let id = record.id.clone();
        let verifier = Verifier::decoy(&id, &self.nobody);
        match self.inner.mint(TokenRecord { verifier, ..record }).await {
            Err(PortError::Refused(why)) => match self.inner.find(&id).await? {
                Some(_) => Ok(()),
                None => Err(PortError::Refused(why)),
            },
            minted => minted,
        }
    }
}

#[async_trait]
impl<C: Cluster + ?Sized> Tokens for BootstrapTokens<C> {
    async fn mint(&self, token: TokenRecord) -> Answer<()> {
        if token.id.is_bootstrap() {
            let reason = "bootstrap tokens are made by kubeadm token create";
            return Err(refused(Code::TokenRejected, &token.id).with_private("reason", reason).into());
        }
        self.inner.mint(token).await
    }

    async fn find(&self, id: &TokenId) -> Answer<Option<Arc<TokenRecord>>> {
        if !id.is_bootstrap() {
            return self.inner.find(id).await;
        }
        let shadow = self.inner.find(id).await?;
        let Some(known) = self.known(id).await? else { return Ok(None) };
        Ok(Some(Arc::new(with_uses(known.record(), shadow))))
    }

    async fn redeem(&self, claim: &Claim, origin: &Origin, now: Timestamp) -> Answer<Use> {
        if !claim.token.is_bootstrap() {
            return self.inner.redeem(claim, origin, now).await;
        }
        let Some(known) = self.known(&claim.token).await? else { return Err(gone(&claim.token).into()) };
        known.check(now)?;
        let shadow = self.inner.find(&claim.token).await?;
        let is_new = shadow.is_none();
        // The annotations may have been tightened since the shadow was made.
        with_uses(known.record(), shadow).redeem(claim, now)?;
        if is_new {
            self.make_shadow(&known).await?;
        }
        self.inner.redeem(claim, origin, now).await
    }

    async fn revoke(&self, id: &TokenId, by: &str, now: Timestamp) -> Answer<bool> {
        if id.is_bootstrap() && self.inner.find(id).await?.is_none() {
            let Some(known) = self.known(id).await? else { return Ok(false) };
            self.make_shadow(&known).await?;
        }
        self.inner.revoke(id, by, now).await
    }

    async fn tokens(&self, now: Timestamp) -> Answer<Vec<TokenRecord>> {
        self.inner.tokens(now).await
    }
}

/// The record with what was done with the token so far.
fn with_uses(record: TokenRecord, shadow: Option<Arc<TokenRecord>>) -> TokenRecord {
    match shadow {
        Some(shadow) => TokenRecord { revoked: shadow.revoked.clone(), used: shadow.used.clone(), ..record },
        None => record,
    }
}

#[async_trait]
impl<C: Cluster + Sweep + ?Sized> Sweep for BootstrapTokens<C> {
    async fn sweep(&self, grace: Duration, now: Timestamp) -> Answer<usize> {
        self.inner.sweep(grace, now).await
    }
}

fn gone(id: &TokenId) -> Diagnosis {
    let reason = format!("there is no Secret kube-system/bootstrap-token-{id} any more");
    refused(Code::TokenRejected, id).with_private("reason", reason)
}

#[async_trait]
impl<C: Cluster + ?Sized> Joins for BootstrapTokens<C> {
    async fn record(
        &self,
        join: JoinId,
        node: Option<&NodeName>,
        event: Event,
        now: Timestamp,
    ) -> Answer<()> {
        self.inner.record(join, node, event, now).await
    }

    async fn join(&self, id: JoinId) -> Answer<Option<JoinRecord>> {
        self.inner.join(id).await
    }

    async fn joins(&self, most: usize) -> Answer<Vec<JoinRecord>> {
        self.inner.joins(most).await
    }

    async fn entries(&self, join: Option<JoinId>, after: i64, most: usize) -> Answer<Vec<Entry>> {
        self.inner.entries(join, after, most).await
    }

    fn changes(&self) -> watch::Receiver<i64> {
        self.inner.changes()
    }
}

#[async_trait]
impl<C: Cluster + ?Sized> Nodes for BootstrapTokens<C> {
    async fn bind(&self, binding: &Binding, now: Timestamp) -> Answer<NodeRecord> {
        self.inner.bind(binding, now).await
    }

    async fn admit(&self, name: &NodeName, key: SpkiHash, now: Timestamp) -> Answer<NodeRecord> {
        self.inner.admit(name, key, now).await
    }

    async fn observe(&self, name: &NodeName, what: Observation, now: Timestamp) -> Answer<()> {
        self.inner.observe(name, what, now).await
    }

    async fn release(&self, name: &NodeName, how: Release, now: Timestamp) -> Answer<bool> {
        self.inner.release(name, how, now).await
    }

    async fn nodes(&self, name: Option<&NodeName>) -> Answer<Vec<NodeView>> {
        self.inner.nodes(name).await
    }
}

#[cfg(test)]
mod tests;
