//! One join on the agent's side: the driver that sequences the five phases,
//! waits where a wait helps, and goes on where an earlier run stopped. It
//! decides nothing else. Phases see ports and the evidence of the phase before.

pub mod initialization;
pub mod authentication;
pub mod authorization;
pub mod configuration;
pub mod registration;

pub(crate) mod book;
pub mod network;
mod progress;
mod run;

pub use authentication::ClockOffset;
pub use initialization::Checks;
pub use progress::{Nobody, Observer, POINTS, Progress};

use std::time::Duration;

use berth_domain::diagnosis::{Diagnosis, Retry};
use berth_domain::identity::{NodeIdentity, SpkiHash};
use berth_domain::join::JoinId;
use berth_domain::name::PoolName;
use berth_domain::timestamp::Timestamp;
use berth_domain::token::JoinToken;
use berth_telemetry::names::attribute;
use berth_telemetry::phase::{Outcome, finish, join_span};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::Instrument as _;

use self::book::Trace;
use self::run::{Halt, Run};
use crate::jitter;
use crate::ports::server::Server;
use crate::ports::{Clock, Depot, Host, Journal, Services, Vault};

/// An offset of the clocks that is worth telling (SECURITY R30).
const WORTH_TELLING: Duration = Duration::from_secs(30);

/// The most that jitter and back-off add to a wait.
const LONGEST_SPREAD: Duration = Duration::from_secs(10);

/// All that a join can touch.
pub struct JoinWorld<'a> {
    /// The server.
    pub server: &'a dyn Server,
    /// The machine.
    pub host: &'a dyn Host,
    /// Where software is kept until it stands.
    pub depot: &'a dyn Depot,
    /// What is asked of the machine.
    pub checks: &'a dyn Checks,
    /// The programs that make it a node.
    pub services: &'a dyn Services,
    /// Keys and credentials.
    pub vault: &'a dyn Vault,
    /// What is known after a crash.
    pub journal: &'a dyn Journal,
    /// What time it is.
    pub clock: &'a dyn Clock,
    /// Where the token comes from.
    pub token: &'a dyn TokenSource,
    /// What the machine would like.
    pub wishes: &'a Wishes,
    /// How long the join may wait.
    pub patience: Patience,
    /// Becomes true when the process is told to stop.
    pub stop: watch::Receiver<bool>,
}

/// What the machine would like; policy decides.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// CAs that the server may have, beside the one in the token.
    pub pins: Vec<SpkiHash>,
    /// The node name, in place of the host's.
    pub node_name: Option<String>,
    /// The pool.
    pub pool: Option<PoolName>,
    /// The agent's version.
    pub agent_version: String,
}

/// How long a join may wait.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patience {
    /// When the join ends, whatever it waits for; `None` waits without end.
    pub deadline: Option<Instant>,
    /// The first reason to wait ends the join.
    pub no_wait: bool,
}

/// Where the token comes from.
pub trait TokenSource: Send + Sync {
    /// The token.
    ///
    /// # Errors
    /// `TOKEN_MISSING`, `TOKEN_MALFORMED`.
    fn token(&self) -> Result<JoinToken, Diagnosis>;

    /// Removes and wipes the token where it lies: it has been used.
    ///
    /// # Errors
    /// It cannot be removed.
    fn forget(&self) -> Result<(), Diagnosis>;
}

/// A join that ended at Ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Who the node is.
    pub node: NodeIdentity,
    /// Which join made it so.
    pub join: JoinId,
    /// Since when it is Ready, by the server's clock.
    pub since: Timestamp,
    /// Until when its certificate is good.
    pub expires: Timestamp,
    /// Whether it had its certificate before this run.
    pub resumed: bool,
    /// How this machine's clock stands to the server's, where that is more than
    /// 30 seconds.
    pub clock_offset: Option<ClockOffset>,
    /// The trace that shows it.
    pub trace_id: Option<String>,
}

/// Joins: from whatever an earlier run has left to a Node that is Ready. Waits
/// where waiting helps, and goes on by itself.
///
/// # Errors
/// Why the join ended before that: something must change first, its time is
/// over, or the process was told to stop.
pub async fn join(world: &JoinWorld<'_>, observer: &dyn Observer) -> Result<Ready, Diagnosis> {
    let mut last = None;
    let mut repeated = 0;
    let mut number = 1;
    loop {
        let (run, ended) = attempt(world, observer, number).await;
        let (why, after) = match ended {
            Ok(ready) => return Ok(ready),
            Err(Halt::Stopped(why)) => return Err(why),
            Err(Halt::Cause(why)) => match why.when_to_retry() {
                Retry::After(after) => (why, after),
                Retry::Never => return Err(why),
            },
        };
        number += 1;
        repeated = if last == Some(why.code()) { repeated + 1 } else { 0 };
        last = Some(why.code());
        run.teller.waiting(&why);
        if world.patience.no_wait {
            return Err(why);
        }
        tokio::select! {
            () = tokio::time::sleep(pause(after, repeated, jitter::random())) => {}
            stop = run.stopped() => {
                let why = run.why_stopped(stop);
                run.book.stopped(&why);
                return Err(why);
            }
        }
    }
}

/// One attempt, which is a trace of its own with a link to the one before.
async fn attempt<'a>(
    world: &'a JoinWorld<'a>,
    observer: &'a dyn Observer,
    number: u32,
) -> (Run<'a>, Result<Ready, Halt>) {
    let span = join_span(number);
    let trace = Trace::of(&span);
    observer.began(trace.id.as_deref());
    let run = Run::new(world, observer, trace, span.clone());
    run.book.link(&span);
    let ended = run.attempt().instrument(span.clone()).await;
    match &ended {
        Ok(ready) => {
            finish(&span, Outcome::Ok, None);
            span.in_scope(
                || tracing::info!(since = %ready.since, resumed = ready.resumed, "the node is Ready"),
            );
        }
        Err(Halt::Cause(why) | Halt::Stopped(why)) => {
            run.book.stopped(why);
            finish(&span, run::outcome(why), Some(why.code()));
            span.in_scope(|| tracing::info!(cause = %why.cause(), "the join ended"));
        }
    }
    (run.closed(), ended)
}

/// How long to wait: at least as long as was asked for, and spread the more the
/// oftener the same cause is met (SECURITY R35).
fn pause(after: Duration, repeated: u32, random: f64) -> Duration {
    let spread = after.saturating_mul(2_u32.saturating_pow(repeated)).min(LONGEST_SPREAD);
    after.saturating_add(jitter::part(spread, random))
}

impl Ready {
    fn new(registered: &registration::Registered, resumed: bool, trace_id: Option<String>) -> Self {
        let authorized = registered.configured().authorized();
        let credential = authorized.credential();
        Self {
            node: credential.node().clone(),
            join: credential.join(),
            since: registered.since(),
            expires: credential.not_after(),
            resumed,
            clock_offset: authorized.offset().filter(|offset| offset.by > WORTH_TELLING),
            trace_id,
        }
    }
}

/// Records who the node is on the trace's root.
fn record_identity(span: &tracing::Span, node: &NodeIdentity, join: JoinId) {
    span.record(attribute::NODE_NAME, node.name.as_str());
    span.record(attribute::JOIN_ID, join.to_string());
}

#[cfg(test)]
pub(crate) mod tests;
