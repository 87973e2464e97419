//! A backend that fails on demand: slow, out of reach, or doing what it was
//! asked and losing the answer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use berth_domain::identity::SpkiHash;
use berth_domain::join::{Entry, Event, JoinId, JoinRecord, Origin};
use berth_domain::name::NodeName;
use berth_domain::node::{Binding, NodeRecord};
use berth_domain::timestamp::Timestamp;
use berth_domain::token::{Claim, TokenId, TokenRecord, Use};
use tokio::sync::watch;

use crate::ports::{Answer, Joins, NodeView, Nodes, Observation, PortError, Release, Tokens};

/// A verb that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is the port's verb of the same name")]
pub enum Verb {
    Mint,
    Find,
    Redeem,
    Revoke,
    Tokens,
    Record,
    Join,
    Joins,
    Entries,
    Bind,
    Admit,
    Observe,
    Release,
    Nodes,
}

/// How it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is done, but only after this time.
    Delay(Duration),
    /// It is not done.
    Unavailable,
    /// It is done, and the answer says that it is not.
    AnswerLost,
}

/// The cause that a [`Fault`] shows.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a test said so")]
pub struct Injected;

/// A port with faults on chosen verbs.
pub struct Faulty<T> {
    inner: T,
    faults: Mutex<BTreeMap<Verb, Fault>>,
}

impl<T> Faulty<T> {
    /// No fault yet.
    pub const fn new(inner: T) -> Self {
        Self { inner, faults: Mutex::new(BTreeMap::new()) }
    }

    /// What fails.
    pub const fn inner(&self) -> &T {
        &self.inner
    }

    /// From now on the verb fails so.
    pub fn break_verb(&self, verb: Verb, fault: Fault) {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).insert(verb, fault);
    }

    /// From now on it works again.
    pub fn mend_verb(&self, verb: Verb) {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).remove(&verb);
    }

    async fn through<A>(&self, verb: Verb, done: impl Future<Output = Answer<A>>) -> Answer<A> {
        let fault = self.faults.lock().unwrap_or_else(PoisonError::into_inner).get(&verb).copied();
        let lost = || PortError::Unavailable {
            operation: "be reached",
            cause: Box::new(Injected),
            lasting: Duration::ZERO,
        };
        match fault {
            None => done.await,
            Some(Fault::Delay(by)) => {
                tokio::time::sleep(by).await;
                done.await
            }
            Some(Fault::Unavailable) => Err(lost()),
            Some(Fault::AnswerLost) => {
                done.await?;
                Err(lost())
            }
        }
    }
}

#[async_trait]
impl<T: Tokens> Tokens for Faulty<T> {
    async fn mint(&self, token: TokenRecord) -> Answer<()> {
        self.through(Verb::Mint, self.inner.mint(token)).await
    }

    async fn find(&self, id: &TokenId) -> Answer<Option<Arc<TokenRecord>>> {
        self.through(Verb::Find, self.inner.find(id)).await
    }

    async fn redeem(&self, claim: &Claim, origin: &Origin, now: Timestamp) -> Answer<Use> {
        self.through(Verb::Redeem, self.inner.redeem(claim, origin, now)).await
    }

    async fn revoke(&self, id: &TokenId, by: &str, now: Timestamp) -> Answer<bool> {
        self.through(Verb::Revoke, self.inner.revoke(id, by, now)).await
    }

    async fn tokens(&self, now: Timestamp) -> Answer<Vec<TokenRecord>> {
        self.through(Verb::Tokens, self.inner.tokens(now)).await
    }
}

#[async_trait]
impl<T: Joins> Joins for Faulty<T> {
    async fn record(
        &self,
        join: JoinId,
        node: Option<&NodeName>,
        event: Event,
        now: Timestamp,
    ) -> Answer<()> {
        self.through(Verb::Record, self.inner.record(join, node, event, now)).await
    }

    async fn join(&self, id: JoinId) -> Answer<Option<JoinRecord>> {
        self.through(Verb::Join, self.inner.join(id)).await
    }

    async fn joins(&self, most: usize) -> Answer<Vec<JoinRecord>> {
        self.through(Verb::Joins, self.inner.joins(most)).await
    }

    async fn entries(&self, join: Option<JoinId>, after: i64, most: usize) -> Answer<Vec<Entry>> {
        self.through(Verb::Entries, self.inner.entries(join, after, most)).await
    }

    fn changes(&self) -> watch::Receiver<i64> {
        self.inner.changes()
    }
}

#[async_trait]
impl<T: Nodes> Nodes for Faulty<T> {
    async fn bind(&self, binding: &Binding, now: Timestamp) -> Answer<NodeRecord> {
        self.through(Verb::Bind, self.inner.bind(binding, now)).await
    }

    async fn admit(&self, name: &NodeName, key: SpkiHash, now: Timestamp) -> Answer<NodeRecord> {
        self.through(Verb::Admit, self.inner.admit(name, key, now)).await
    }

    async fn observe(&self, name: &NodeName, what: Observation, now: Timestamp) -> Answer<()> {
        self.through(Verb::Observe, self.inner.observe(name, what, now)).await
    }

    async fn release(&self, name: &NodeName, how: Release, now: Timestamp) -> Answer<bool> {
        self.through(Verb::Release, self.inner.release(name, how, now)).await
    }

    async fn nodes(&self, name: Option<&NodeName>) -> Answer<Vec<NodeView>> {
        self.through(Verb::Nodes, self.inner.nodes(name)).await
    }
}
