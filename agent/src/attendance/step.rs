//! What an attending agent does next: a pure function of its state, what
//! happened, and the time.

use std::time::Duration;

use berth_domain::conversation::{AttendFromAgent, AttendFromServer};
use berth_domain::diagnosis::{Code, Diagnosis, Retry};
use berth_domain::timestamp::Timestamp;

use crate::certificate::Validity;
use crate::{jitter, renewal};

/// Back-off of the way back to a server, at least and at most.
const RETURN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Between two looks at the node's own checks.
const CHECKS: Duration = Duration::from_secs(8);

/// Between heartbeats until the server has said how often.
const FIRST_INTERVAL: Duration = Duration::from_secs(10);

/// How long a sleep may be: the wall clock may be set, or the machine suspended.
const LONGEST_SLEEP: Duration = Duration::from_secs(15);

/// The time, by both of a machine's clocks, and a random number from 0 to 1.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Since the attendance began; it never jumps.
    pub uptime: Duration,
    /// The wall clock.
    pub wall: Timestamp,
    /// For jitter.
    pub random: f64,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Time went on.
    Tick,
    /// A line stands.
    Connected,
    /// The server said something.
    Heard(AttendFromServer),
    /// The line was lost or refused, and why.
    Lost(Diagnosis),
    /// The node's own checks were looked at: what does not hold.
    Checked(Vec<Diagnosis>),
    /// A new certificate is kept; the line must begin again with it.
    Renewed(Validity),
    /// There is no new certificate yet.
    NotRenewed(Diagnosis),
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Make a line.
    Connect,
    /// Say something over the line that stands.
    Say(AttendFromAgent),
    /// Look at the node's own checks.
    Check,
    /// Renew the certificate over the line that stands.
    Renew,
    /// Give up the line that stands: another will follow.
    HangUp,
    /// Sleep until this uptime, unless something happens.
    Sleep(Duration),
    /// It is over.
    End(Diagnosis),
}

/// How the attendance stands.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    line: Line,
    losses: u32,
    renewal: Renewal,
    told: Option<Vec<Diagnosis>>,
}

#[derive(Clone, Debug, PartialEq)]
enum Line {
    Down { again: Duration },
    Connecting,
    Up { interval: Duration, heartbeat: Duration, check: Duration },
}

#[derive(Clone, Debug, PartialEq)]
struct Renewal {
    certificate: Validity,
    due: Timestamp,
    failures: u32,
    under_way: bool,
}

impl State {
    /// A node that holds this certificate and has no line yet.
    #[must_use]
    pub fn new(certificate: Validity, now: Now) -> Self {
        Self {
            line: Line::Down { again: now.uptime },
            losses: 0,
            renewal: Renewal::of(certificate, now),
            told: None,
        }
    }

    /// Whether a line stands.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        matches!(self.line, Line::Up { .. })
    }

    fn up(&mut self, interval: Duration, now: Now) {
        self.line = Line::Up { interval, heartbeat: now.uptime, check: now.uptime };
    }

    fn down(&mut self, after: Duration, now: Now) {
        self.line = Line::Down { again: now.uptime.saturating_add(after) };
        self.renewal.under_way = false;
        // Whoever answers next knows nothing of what was told before.
        self.told = None;
    }
}

impl Renewal {
    fn of(certificate: Validity, now: Now) -> Self {
        Self { certificate, due: renewal::due(certificate, now.random), failures: 0, under_way: false }
    }
}

/// Takes what happened and says what to do next.
#[must_use]
pub fn step(mut state: State, event: Event, now: Now) -> (State, Action) {
    match event {
        Event::Tick => {}
        Event::Connected => {
            state.losses = 0;
            state.up(FIRST_INTERVAL, now);
        }
        Event::Heard(AttendFromServer::Terms { heartbeat_interval, .. }) => {
            if let Line::Up { interval, heartbeat, .. } = &mut state.line {
                *interval = heartbeat_interval;
                *heartbeat = (*heartbeat).min(now.uptime.saturating_add(heartbeat_interval));
            }
        }
        // Where pods are is no matter of what is said next.
        Event::Heard(AttendFromServer::PodRoutes(_)) => {}
        Event::Heard(AttendFromServer::RenewNow) => state.renewal.due = now.wall,
        Event::Heard(AttendFromServer::Draining { return_within }) => {
            state.down(jitter::part(return_within, now.random), now);
            return (state, Action::HangUp);
        }
        Event::Lost(why) => {
            if let Some(end) = ends(&why) {
                return (state, Action::End(end));
            }
            state.losses = state.losses.saturating_add(1);
            let asked = match why.when_to_retry() {
                Retry::After(after) if why.code() != Code::AgentLost => after.min(RETURN.1),
                Retry::After(_) | Retry::Never => Duration::ZERO,
            };
            state.down(asked.max(jitter::backoff(RETURN.0, RETURN.1, state.losses, now.random)), now);
            return (state, Action::HangUp);
        }
        Event::Checked(failing) => {
            if state.told.as_ref() != Some(&failing) {
                state.told = Some(failing.clone());
                return (state, Action::Say(AttendFromAgent::Health(failing)));
            }
        }
        Event::Renewed(certificate) => {
            state.renewal = Renewal::of(certificate, now);
            state.down(Duration::ZERO, now);
            return (state, Action::HangUp);
        }
        Event::NotRenewed(why) => {
            if let Some(end) = ends(&why) {
                return (state, Action::End(end));
            }
            let failures = state.renewal.failures.saturating_add(1);
            state.renewal.failures = failures;
            state.renewal.under_way = false;
            state.renewal.due =
                renewal::again(now.wall, state.renewal.certificate, failures, &why, now.random);
        }
    }
    next(state, now)
}

/// What is due, or how long nothing is.
fn next(mut state: State, now: Now) -> (State, Action) {
    let renewal_due = state.renewal.due <= now.wall && !state.renewal.under_way;
    match &mut state.line {
        Line::Down { again } if *again <= now.uptime => {
            state.line = Line::Connecting;
            (state, Action::Connect)
        }
        Line::Down { again } => {
            let until = (*again).min(now.uptime.saturating_add(LONGEST_SLEEP));
            (state, Action::Sleep(until))
        }
        Line::Connecting => (state, Action::Sleep(now.uptime.saturating_add(LONGEST_SLEEP))),
        Line::Up { .. } if renewal_due => {
            state.renewal.under_way = true;
            (state, Action::Renew)
        }
        Line::Up { interval, heartbeat, .. } if *heartbeat <= now.uptime => {
            // Up to a tenth early, never late: the server counts from the last.
            let early = jitter::part(*interval / 10, now.random);
            *heartbeat = now.uptime.saturating_add(interval.saturating_sub(early));
            (state, Action::Say(AttendFromAgent::Heartbeat))
        }
        Line::Up { check, .. } if *check <= now.uptime => {
            *check = now.uptime.saturating_add(CHECKS);
            (state, Action::Check)
        }
        Line::Up { heartbeat, check, .. } => {
            let until = (*heartbeat).min(*check).min(now.uptime.saturating_add(LONGEST_SLEEP));
            let renewal = now.uptime.saturating_add(state.renewal.due.since(now.wall));
            let until = if state.renewal.under_way { until } else { until.min(renewal) };
            (state, Action::Sleep(until))
        }
    }
}

/// A final answer is not asked for again.
fn ends(why: &Diagnosis) -> Option<Diagnosis> {
    (why.when_to_retry() == Retry::Never).then(|| why.clone())
}

#[cfg(test)]
mod tests;
