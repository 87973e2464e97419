//! The ports as Kubernetes serves them.

use std::sync::Arc;

use async_trait::async_trait;
use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::identity::SpkiHash;
use berth_domain::join::{Entry, Event, JoinId, JoinRecord, Origin};
use berth_domain::name::NodeName;
use berth_domain::node::{Binding, NodeRecord};
use berth_domain::phase::Phase;
use berth_domain::timestamp::Timestamp;
use berth_domain::token::{Claim, TokenId, TokenRecord, Use};
use tokio::sync::watch;

use super::Kube;
use super::calls::{CallError, Failure};
use super::objects::{JoinToken, MOST_USES};
use super::operations::{
    ADMIT, BIND, FIND, LIST_JOINS, LIST_NODES, LIST_TOKENS, MINT, OBSERVE, READ_EVENTS, READ_JOIN, RECORD,
    REDEEM, RELEASE, REVOKE,
};
use crate::cluster::verbs::tokens;
use crate::ports::{Answer, Joins, NodeView, Nodes, Observation, Release, Tokens};

#[async_trait]
impl Tokens for Kube {
    async fn mint(&self, token: TokenRecord) -> Answer<()> {
        self.shared.check_ready(MINT)?;
        if token.binding.uses > MOST_USES {
            return Err(too_many_uses(&token).into());
        }
        let rejected = || {
            Diagnosis::new(Code::TokenRejected, Phase::Authentication)
                .with("token", &token.id)
                .with_private("reason", "a token of this id exists already")
        };
        match self.shared.calls.create(&JoinToken::minted(&token)).await {
            Ok(object) => {
                self.shared.view().take_token(object);
                self.shared.tell();
                self.shared.show_later(&token.id);
                Ok(())
            }
            Err(Failure::Error(error)) => Err(self.shared.calls.unavailable(MINT, error)),
            Err(Failure::Missing) => Err(self.shared.calls.unavailable(MINT, no_namespace())),
            // An answer may have been lost: then it is ours, and as it should be.
            Err(Failure::Conflict) => match self.shared.calls.get::<JoinToken>(token.id.as_str()).await {
                Ok(object) => {
                    let is_ours = object.record().as_ref() == Some(&token);
                    self.shared.view().take_token(object);
                    if is_ours { Ok(()) } else { Err(rejected().into()) }
                }
                Err(Failure::Missing | Failure::Conflict) => Err(rejected().into()),
                Err(Failure::Error(error)) => Err(self.shared.calls.unavailable(MINT, error)),
            },
        }
    }

    async fn find(&self, id: &TokenId) -> Answer<Option<Arc<TokenRecord>>> {
        self.shared.check_ready(FIND)?;
        let looked = self.shared.look_for_token(id).await;
        looked.map_err(|error| self.shared.calls.unavailable(FIND, error))?;
        Ok(self.shared.view().token(id).map(Arc::new))
    }

    async fn redeem(&self, claim: &Claim, origin: &Origin, now: Timestamp) -> Answer<Use> {
        self.shared.check_ready(REDEEM)?;
        self.shared.redeem(claim, origin, now).await
    }

    async fn revoke(&self, id: &TokenId, by: &str, now: Timestamp) -> Answer<bool> {
        self.shared.check_ready(REVOKE)?;
        self.shared.revoke(id, by, now).await
    }

    async fn tokens(&self, now: Timestamp) -> Answer<Vec<TokenRecord>> {
        self.shared.check_ready(LIST_TOKENS)?;
        let mut all = self.shared.view().tokens();
        let (over, mut kept): (Vec<_>, Vec<_>) =
            all.drain(..).partition(|token| tokens::is_long_over(token, now));
        self.shared.drop_tokens(over).await;
        kept.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        Ok(kept)
    }
}

#[async_trait]
impl Joins for Kube {
    async fn record(
        &self,
        join: JoinId,
        node: Option<&NodeName>,
        event: Event,
        now: Timestamp,
    ) -> Answer<()> {
        self.shared.check_ready(RECORD)?;
        self.shared.record(join, node, event, now).await
    }

    async fn join(&self, id: JoinId) -> Answer<Option<JoinRecord>> {
        self.shared.check_ready(READ_JOIN)?;
        Ok(self.shared.view().join(id).cloned())
    }

    async fn joins(&self, most: usize) -> Answer<Vec<JoinRecord>> {
        self.shared.check_ready(LIST_JOINS)?;
        Ok(self.shared.view().joins(most))
    }

    async fn entries(&self, join: Option<JoinId>, after: i64, most: usize) -> Answer<Vec<Entry>> {
        self.shared.check_ready(READ_EVENTS)?;
        Ok(self.shared.view().entries(join, after, most))
    }

    fn changes(&self) -> watch::Receiver<i64> {
        self.shared.changes.subscribe()
    }
}

#[async_trait]
impl Nodes for Kube {
    async fn bind(&self, binding: &Binding, now: Timestamp) -> Answer<NodeRecord> {
        self.shared.check_ready(BIND)?;
        Box::pin(self.shared.bind(binding, now)).await
    }

    async fn admit(&self, name: &NodeName, key: SpkiHash, now: Timestamp) -> Answer<NodeRecord> {
        self.shared.check_ready(ADMIT)?;
        self.shared.admit(name, key, now).await
    }

    async fn observe(&self, name: &NodeName, what: Observation, now: Timestamp) -> Answer<()> {
        self.shared.check_ready(OBSERVE)?;
        if matches!(what, Observation::Heard) {
            self.shared.view().heard(name, now);
            return Ok(());
        }
        self.shared.observe(name, what, now).await
    }

    async fn release(&self, name: &NodeName, how: Release, now: Timestamp) -> Answer<bool> {
        self.shared.check_ready(RELEASE)?;
        match how {
            Release::Left | Release::Forgotten { .. } => self.shared.free(name, &how, now).await,
            Release::Banned { .. } | Release::Unbanned { .. } => self.shared.judge(name, how, now).await,
        }
    }

    async fn nodes(&self, name: Option<&NodeName>) -> Answer<Vec<NodeView>> {
        self.shared.check_ready(LIST_NODES)?;
        Ok(self.shared.view().nodes(name))
    }
}

fn too_many_uses(token: &TokenRecord) -> Diagnosis {
    let reason = format!("a token may have at most {MOST_USES} uses where Kubernetes keeps it; mint several");
    Diagnosis::new(Code::TokenRejected, Phase::Authentication)
        .with("token", &token.id)
        .with_private("reason", reason)
}

fn no_namespace() -> CallError {
    CallError::NotInstalled
}
