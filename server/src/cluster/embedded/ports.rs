//! The ports as the embedded store serves them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use berth_domain::diagnosis::Diagnosis;
use berth_domain::identity::SpkiHash;
use berth_domain::join::{Entry, Event, JoinId, JoinRecord, Origin};
use berth_domain::name::NodeName;
use berth_domain::node::{Binding, CertificateTerms, NodeRecord};
use berth_domain::timestamp::Timestamp;
use berth_domain::token::{Claim, TokenId, TokenRecord, Use};
use tokio::sync::watch;

use super::{Embedded, joins as kept, read};
use crate::cluster::Sweep;
use crate::cluster::ledger::Problem;
use crate::cluster::verbs::{joins, nodes, tokens};
use crate::ports::{Answer, Joins, NodeCounts, NodeView, Nodes, Observation, Release, Tokens};

#[async_trait]
impl Tokens for Embedded {
    async fn mint(&self, token: TokenRecord) -> Answer<()> {
        self.writer.run("mint a token", move |ledger| tokens::mint(ledger, &token)).await
    }

    async fn find(&self, id: &TokenId) -> Answer<Option<Arc<TokenRecord>>> {
        if let Some(token) = self.recent.tokens.find(id) {
            return Ok(Some(token));
        }
        let id = id.clone();
        let token = self.readers.ask("find a token", move |store| read::token(store, &id)).await?;
        Ok(token.map(Arc::new))
    }

    async fn redeem(&self, claim: &Claim, origin: &Origin, now: Timestamp) -> Answer<Use> {
        let (claim, origin) = (claim.clone(), origin.clone());
        self.writer.run("redeem a token", move |ledger| tokens::redeem(ledger, &claim, &origin, now)).await
    }

    async fn revoke(&self, id: &TokenId, by: &str, now: Timestamp) -> Answer<bool> {
        let (id, by) = (id.clone(), by.to_owned());
        self.writer.run("revoke a token", move |ledger| Ok(tokens::revoke(ledger, &id, &by, now)?)).await
    }

    async fn tokens(&self, now: Timestamp) -> Answer<Vec<TokenRecord>> {
        let all = self.readers.ask("list tokens", read::tokens).await?;
        let (over, kept): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|token| tokens::is_long_over(token, now));
        if !over.is_empty() {
            let ids: Vec<TokenId> = over.into_iter().map(|token| token.id).collect();
            self.writer.run("drop old tokens", move |ledger| Ok(tokens::forget(ledger, &ids, now)?)).await?;
        }
        Ok(kept)
    }
}

#[async_trait]
impl Joins for Embedded {
    async fn record(
        &self,
        join: JoinId,
        node: Option<&NodeName>,
        event: Event,
        now: Timestamp,
    ) -> Answer<()> {
        let node = node.cloned();
        let verb = move |ledger: &mut dyn crate::cluster::ledger::Ledger| {
            Ok(joins::record(ledger, join, node.as_ref(), event.clone(), now)?)
        };
        self.writer.run("record an event", verb).await
    }

    async fn join(&self, id: JoinId) -> Answer<Option<JoinRecord>> {
        self.readers.ask("read a join", move |store| Ok(kept::one(store, id)?.map(|kept| kept.record))).await
    }

    async fn joins(&self, most: usize) -> Answer<Vec<JoinRecord>> {
        self.readers.ask("list joins", move |store| kept::newest(store, most)).await
    }

    async fn entries(&self, join: Option<JoinId>, after: i64, most: usize) -> Answer<Vec<Entry>> {
        self.readers.ask("read entries", move |store| read::entries(store, join, after, most)).await
    }

    fn changes(&self) -> watch::Receiver<i64> {
        self.changes.clone()
    }

    async fn endings(&self, after: i64, most: usize) -> Answer<(i64, Vec<Entry>)> {
        self.readers.ask("look for bans", move |store| read::endings(store, after, most)).await
    }
}

#[async_trait]
impl Nodes for Embedded {
    async fn bind(&self, binding: &Binding, now: Timestamp) -> Answer<NodeRecord> {
        let binding = binding.clone();
        self.writer.run("bind a name", move |ledger| nodes::bind(ledger, &binding, now)).await
    }

    async fn admit(&self, name: &NodeName, key: SpkiHash, now: Timestamp) -> Answer<NodeRecord> {
        // Nearly every caller comes with the key in use, soon after the writer saw its node.
        if let Some(node) = self.recent.nodes.find(name)
            && node.key == key
        {
            self.heard.note(name, now);
            return Ok(NodeRecord { last_seen: node.last_seen.max(now), ..NodeRecord::clone(&node) });
        }
        let (asked, heard) = (name.clone(), self.heard.clone());
        let judged = self
            .readers
            .ask_at_hand("admit a node", move |store| {
                let (node, ban) = read::node_at_the_door(store, &heard, &asked)?.unzip();
                Ok(nodes::admitted(&asked, node, ban.flatten().as_ref(), key))
            })
            .await?;
        let node = match judged {
            Ok((node, false)) => node,
            Ok((_, true)) => {
                let name = name.clone();
                self.writer.run("admit a node", move |ledger| nodes::admit(ledger, &name, key)).await?
            }
            Err(why) => return Err(Diagnosis::into(why)),
        };
        self.heard.note(name, now);
        Ok(NodeRecord { last_seen: node.last_seen.max(now), ..node })
    }

    async fn observe(&self, name: &NodeName, what: Observation, now: Timestamp) -> Answer<()> {
        if matches!(what, Observation::Heard) {
            self.heard.note(name, now);
            return Ok(());
        }
        let name = name.clone();
        self.writer
            .run("note what a node does", move |ledger| nodes::observe(ledger, &name, what.clone(), now))
            .await
    }

    async fn release(&self, name: &NodeName, how: Release, now: Timestamp) -> Answer<bool> {
        let name = name.clone();
        self.writer
            .run("release a node", move |ledger| Ok(nodes::release(ledger, &name, how.clone(), now)?))
            .await
    }

    async fn nodes(&self, name: Option<&NodeName>) -> Answer<Vec<NodeView>> {
        let (name, heard) = (name.cloned(), self.heard.clone());
        self.readers.ask("read nodes", move |store| read::views(store, &heard, name.as_ref())).await
    }

    async fn count(&self) -> Answer<NodeCounts> {
        self.readers.ask("count nodes", |store| Ok(read::counts(store)?)).await
    }

    async fn certificates(&self) -> Answer<Vec<CertificateTerms>> {
        self.readers.ask("look at certificates", read::certificates).await
    }
}

#[async_trait]
impl Sweep for Embedded {
    async fn sweep(&self, grace: Duration, now: Timestamp) -> Answer<usize> {
        let heard = self.heard.clone();
        let names = self
            .readers
            .ask("look for silent nodes", move |store| read::overdue(store, &heard, grace, now))
            .await?;
        let mut silent = 0_usize;
        for some in names.chunks(SWEPT_AT_ONCE) {
            let some = some.to_vec();
            let marked = self.writer.run("mark silent nodes", move |ledger| {
                let marked = some.iter().map(|name| nodes::sweep(ledger, name, grace, now));
                let marked = marked.collect::<Result<Vec<bool>, _>>().map_err(Problem::Store)?;
                Ok(marked.into_iter().filter(|was_silent| *was_silent).count())
            });
            silent = silent.saturating_add(marked.await?);
        }
        Ok(silent)
    }
}

/// A region that goes dark must not keep everyone else's writes waiting.
const SWEPT_AT_ONCE: usize = 128;
