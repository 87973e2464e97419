//! Cleaning up: what ended long ago and what nobody needs. One replica at a time
//! does it, the one that holds the Lease.

use std::sync::Arc;
use std::time::Duration;

use berth_domain::timestamp::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::api::{Api, ObjectMeta, PostParams};

use super::calls::{CallError, Failure};
use super::objects::{JoinToken, NodeJoin};
use super::shared::Shared;
use super::told::micros;
use crate::cluster::verbs::joins::{FINISHED_KEPT, MOST_FINISHED, is_finished, is_proven};
use crate::cluster::verbs::tokens;
use crate::kubernetes::part;
use crate::ports::chain;

/// The Lease's name.
const LEASE: &str = "berth-cleaner";

/// Cleans up now and then until the backend stops.
pub(super) async fn clean(shared: Arc<Shared>) {
    loop {
        let every = shared.settings.clean_every;
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = tokio::time::sleep(every / 2 + part(every / 2)) => {}
        }
        if shared.readiness().is_err() {
            continue;
        }
        let now = shared.clock.now();
        match shared.hold_lease(now).await {
            Ok(true) => {
                if let Err(error) = shared.clean_once(now).await {
                    tracing::warn!(error = %chain(&error), "what ended could not be cleaned up; it is tried again");
                }
            }
            Ok(false) => {}
            Err(error @ CallError::Denied(_)) => {
                tracing::warn!(error = %chain(&error), "the Lease {LEASE} may not be held: nothing is cleaned up");
            }
            Err(error) => tracing::debug!(error = %chain(&error), "the Lease {LEASE} could not be asked for"),
        }
    }
}

impl Shared {
    /// Removes, a bounded number at a time: finished joins by age and number,
    /// tokens that ended long ago, loose objects of joins that are bound or
    /// forgotten. And brings statuses up that whoever wrote their specs did not.
    pub(super) async fn clean_once(&self, now: Timestamp) -> Result<(), CallError> {
        let (superfluous, finished, behind, over) = {
            let view = self.view();
            let mut finished = view.find(|record| {
                is_proven(record) && is_finished(record) && view.named_object(record.id).is_none()
            });
            finished.sort_by_key(|record| std::cmp::Reverse(record.updated));
            let before = now.before(FINISHED_KEPT);
            let old = finished.iter().enumerate();
            let finished: Vec<_> = old
                .filter(|(place, record)| *place >= MOST_FINISHED || record.updated < before)
                .map(|(_, record)| record.id)
                .take(MOST_AT_ONCE)
                .collect();
            let behind: Vec<_> = view
                .find(|_| true)
                .into_iter()
                .map(|record| record.id)
                .filter(|id| view.is_behind(*id) || view.has_both(*id))
                .take(MOST_AT_ONCE)
                .collect();
            let over = view.tokens().into_iter().filter(|token| tokens::is_long_over(token, now)).collect();
            (view.superfluous(), finished, behind, over)
        };
        for id in behind {
            self.flush(id).await?;
        }
        for object in superfluous.into_iter().take(MOST_AT_ONCE) {
            self.remove(&object).await?;
        }
        for id in finished {
            let object = self.view().loose_object(id);
            match object {
                Some(object) => self.remove(&object).await?,
                None => self.view().forget(id),
            }
        }
        self.drop_tokens(over).await;
        self.judge_tokens(now).await?;
        self.tell();
        Ok(())
    }

    /// Says of tokens whether they are usable, where their status says otherwise.
    async fn judge_tokens(&self, now: Timestamp) -> Result<(), CallError> {
        let all = self.view().token_objects();
        let changed = all.iter().filter_map(|object| object.judged(now)).take(MOST_AT_ONCE);
        for object in changed {
            self.write_status(&object).await?;
        }
        Ok(())
    }

    /// Writes what is good to know and decides nothing: others may be first.
    pub(super) async fn write_status(&self, object: &JoinToken) -> Result<(), CallError> {
        match self.calls.replace_status(object).await {
            Ok(object) => {
                self.view().take_token(object);
                Ok(())
            }
            Err(Failure::Conflict | Failure::Missing) => Ok(()),
            Err(Failure::Error(error)) => Err(error),
        }
    }

    async fn remove(&self, object: &NodeJoin) -> Result<(), CallError> {
        if self.delete(object).await? {
            let name = object.metadata.name.clone().unwrap_or_default();
            self.view().drop_join(&name, object.metadata.uid.as_ref(), self.clock.now());
        }
        Ok(())
    }

    /// Takes or renews the Lease; says whether it is ours for this round.
    pub(super) async fn hold_lease(&self, now: Timestamp) -> Result<bool, CallError> {
        let (api, how): (Api<Lease>, _) = (self.calls.in_namespace(), PostParams::default());
        let spec = LeaseSpec {
            holder_identity: Some(self.settings.replica.clone()),
            lease_duration_seconds: i32::try_from(
                self.settings.clean_every.as_secs().saturating_mul(3).max(1),
            )
            .ok(),
            renew_time: Some(micros(now)),
            ..LeaseSpec::default()
        };
        let written = match self.calls.asked(|| api.get(LEASE)).await {
            Ok(mut lease) => {
                if !self.may_take(&lease, now) {
                    return Ok(false);
                }
                lease.spec = Some(spec);
                self.calls.asked(|| api.replace(LEASE, &how, &lease)).await
            }
            Err(Failure::Missing) => {
                let metadata = ObjectMeta { name: Some(LEASE.to_owned()), ..ObjectMeta::default() };
                let lease = Lease { metadata, spec: Some(spec) };
                self.calls.asked(|| api.create(&how, &lease)).await
            }
            Err(failure) => Err(failure),
        };
        match written {
            Ok(_) => Ok(true),
            Err(Failure::Conflict | Failure::Missing) => Ok(false),
            Err(Failure::Error(error)) => Err(error),
        }
    }

    fn may_take(&self, lease: &Lease, now: Timestamp) -> bool {
        let Some(spec) = &lease.spec else { return true };
        let lasts = Duration::from_secs(u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0));
        let renewed = spec.renew_time.as_ref().map(|time| Timestamp::from_millis(time.0.as_millisecond()));
        let is_ours = spec.holder_identity.as_deref() == Some(self.settings.replica.as_str());
        is_ours || renewed.is_none_or(|renewed| now.since(renewed) > lasts)
    }
}

const MOST_AT_ONCE: usize = 256;
