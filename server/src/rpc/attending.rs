//! The standing call of a node: what it says of itself, and what it is told, until one
//! of both ends it.

use std::net::IpAddr;
use std::time::Duration;

use berth_domain::conversation::{AttendFromAgent, AttendFromServer};
use berth_domain::diagnosis::Diagnosis;
use berth_domain::phase::Phase;
use berth_proto::join::v1;
use berth_proto::{attend_from_agent, attend_to_agent};
use tokio_stream::StreamExt as _;
use tonic::Streaming;

use super::line::{Answers, malformed};
use super::service::Joins;
use crate::attendance::note_standing;
use crate::join::Ending;
use crate::join::authorization::Member;
use crate::join::registration::Routes;
use crate::ports::Observation;

/// Over which time agents spread their return when the server stops.
const RETURN_WITHIN: Duration = Duration::from_secs(5);

/// How many heartbeats may fail to come before the server gives up the line.
const MISSED_HEARTBEATS: u32 = 3;

impl Joins {
    /// Hears a member and tells it what is new, until one of both ends it.
    pub(super) async fn attend_until_told(
        &self,
        member: &Member,
        from: IpAddr,
        mut requests: Streaming<v1::AttendRequest>,
        answers: &Answers<v1::AttendResponse>,
    ) -> Result<(), Ending> {
        let node = member.node();
        let mut open = self.lines.open(&node.identity.name);
        let mut changes = self.registry.watch(&node.identity.name);
        // What of its checks does not hold, once it has said so.
        let mut failing = None;
        let network = self.profiles.network(&node.identity.pool);
        let mut routes = Routes::of(self.registry.as_ref(), &node.identity.name, network);
        let terms = AttendFromServer::Terms {
            heartbeat_interval: self.terms.heartbeat_interval,
            server_time: self.clock.now(),
        };
        answers.say(Ok(attend_to_agent(&terms))).await?;
        let patience = self.terms.heartbeat_interval.saturating_mul(MISSED_HEARTBEATS);
        let mut silent = tokio::time::Instant::now() + patience;
        loop {
            if let Some(news) = routes.news() {
                let told = AttendFromServer::PodRoutes(news);
                answers.say(Ok(attend_to_agent(&told))).await?;
            }
            let heard = tokio::select! {
                changed = open.ended.changed() => {
                    let why = open.ended.borrow_and_update().clone();
                    match (changed, why) {
                        (Ok(()), Some(why)) => return Err(why.into()),
                        (Ok(()), None) => continue,
                        (Err(_), _) => return Err(Ending::Gone),
                    }
                }
                () = self.tracked.draining.cancelled() => {
                    let draining = AttendFromServer::Draining { return_within: RETURN_WITHIN };
                    answers.say(Ok(attend_to_agent(&draining))).await?;
                    return Ok(());
                }
                // The registry outlives every line: the watch does not close.
                _ = changes.changed() => {
                    self.vouch(member, from).await?;
                    self.note_standing(member, failing.as_deref()).await?;
                    continue;
                }
                () = routes.changed() => continue,
                () = tokio::time::sleep_until(silent) => return Err(Ending::Gone),
                heard = requests.next() => heard,
            };
            silent = tokio::time::Instant::now() + patience;
            let Some(Ok(request)) = heard else { return Err(Ending::Gone) };
            match attend_from_agent(request).map_err(|bad| malformed(bad, Phase::Registration))? {
                AttendFromAgent::Heartbeat => {
                    self.vouch(member, from).await?;
                    let now = self.clock.now();
                    let heard = self.cluster.observe(&node.identity.name, Observation::Heard, now).await;
                    heard.map_err(|error| error.into_diagnosis(Phase::Registration, now))?;
                }
                AttendFromAgent::Health(said) => {
                    self.note_standing(member, Some(&said)).await?;
                    failing = Some(said);
                }
            }
        }
    }

    /// A kubelet that attends asks for a new serving certificate when the old one ends.
    async fn vouch(&self, member: &Member, from: IpAddr) -> Result<(), Ending> {
        let now = self.clock.now();
        let vouched = self.registry.vouch(member.node(), from, now).await;
        vouched.map_err(|error| error.into_diagnosis(Phase::Registration, now).into())
    }

    /// Nothing is noted of a node whose agent has not spoken of its checks yet.
    async fn note_standing(&self, member: &Member, failing: Option<&[Diagnosis]>) -> Result<(), Ending> {
        let Some(failing) = failing else { return Ok(()) };
        let now = self.clock.now();
        let noted =
            note_standing(self.cluster.as_ref(), self.registry.as_ref(), member.node(), failing, now).await;
        noted.map_err(|error| error.into_diagnosis(Phase::Registration, now).into())
    }
}
