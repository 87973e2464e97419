//! Nodes that attend: who is on the line, how each is told that the server
//! stops, and how a ban cuts its line at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::join::{Entry, Event};
use berth_domain::name::NodeName;
use berth_domain::node::NodeRecord;
use berth_domain::phase::Phase;
use berth_domain::timestamp::Timestamp;
use berth_telemetry::metrics::Metrics;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cluster::Sweep;
use crate::join::registration::in_the_way;
use crate::ports::{Clock, Cluster, Observation, PortError, Registry};

/// The terms of attendance.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Between heartbeats.
    pub heartbeat_interval: Duration,
    /// How long a node may be silent before it is NotReady.
    pub grace: Duration,
}

/// How many entries are read at one time.
const ENTRIES_AT_ONCE: usize = 256;

/// Between a change of the record and the look at it.
const NEXT_LOOK: Duration = Duration::from_millis(20);

/// Between two looks at who is overdue, at least and at most.
const SHORTEST_SWEEP: Duration = Duration::from_millis(100);
const LONGEST_SWEEP: Duration = Duration::from_secs(5);

/// Lines of nodes that are open at this server.
#[derive(Default)]
pub struct Lines {
    open: Mutex<BTreeMap<NodeName, Vec<watch::Sender<Option<Diagnosis>>>>>,
}

/// One open line; closed when dropped.
pub struct OpenLine {
    /// Why the line must end at once, when it must.
    pub ended: watch::Receiver<Option<Diagnosis>>,
}

impl Lines {
    /// Notes an open line of a node.
    pub fn open(&self, name: &NodeName) -> OpenLine {
        let (sender, ended) = watch::channel(None);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = open.entry(name.clone()).or_default();
        lines.retain(|line| !line.is_closed());
        lines.push(sender);
        OpenLine { ended }
    }

    fn end(&self, name: &NodeName, why: &Diagnosis) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for line in open.remove(name).unwrap_or_default() {
            line.send_replace(Some(why.clone()));
        }
    }

    fn forget_closed(&self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, lines| {
            lines.retain(|line| !line.is_closed());
            !lines.is_empty()
        });
    }
}

/// Cuts lines as the record says so, wherever it was said: a ban at one server
/// ends the line at another. Counts bans as they are heard. Runs until `stop`.
pub async fn cut_lines(
    lines: Arc<Lines>,
    cluster: Arc<dyn Cluster>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    let mut changes = cluster.changes();
    let mut seen = *changes.borrow_and_update();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
        }
        // A storm of joins changes the record a hundred times a second.
        tokio::time::sleep(NEXT_LOOK).await;
        changes.borrow_and_update();
        while let Ok((to, endings)) = cluster.endings(seen, ENTRIES_AT_ONCE).await {
            for entry in &endings {
                if matches!(entry.event, Event::Banned { .. }) {
                    metrics.banned();
                }
                if let (Some(name), Some(why)) = (&entry.node, why_it_ends(entry)) {
                    lines.end(name, &why);
                }
            }
            if to <= seen {
                break;
            }
            seen = to;
        }
    }
}

fn why_it_ends(entry: &Entry) -> Option<Diagnosis> {
    let name = entry.node.as_ref()?;
    match &entry.event {
        Event::Banned { by, reason } => Some(
            Diagnosis::new(Code::MachineBanned, Phase::Registration)
                .with("name", name)
                .with_private("by", by)
                .with_private("since", entry.at)
                .with_private("reason", reason),
        ),
        Event::Forgotten { .. } => Some(
            Diagnosis::new(Code::CertificateRejected, Phase::Registration)
                .with("problem", format!("the name {name} was released by an operator")),
        ),
        Event::Redeemed { .. }
        | Event::Waiting { .. }
        | Event::Refused { .. }
        | Event::GaveUp { .. }
        | Event::Approved { .. }
        | Event::Denied { .. }
        | Event::Authorized { .. }
        | Event::Issued { .. }
        | Event::Configured { .. }
        | Event::Registered
        | Event::Ready
        | Event::NotReady { .. }
        | Event::Unbanned { .. }
        | Event::Left => None,
    }
}

/// Declares nodes NotReady that were not heard for longer than the grace, by
/// this server's clock. Begins one grace after the server's start, so that
/// agents can come back to it first. Runs until `stop`.
pub async fn sweep(
    lines: Arc<Lines>,
    store: Arc<dyn Sweep>,
    clock: Arc<dyn Clock>,
    terms: Terms,
    stop: CancellationToken,
) {
    let every = (terms.grace / 4).clamp(SHORTEST_SWEEP, LONGEST_SWEEP);
    let mut pause = terms.grace;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = every;
        lines.forget_closed();
        if let Err(error) = store.sweep(terms.grace, clock.now()).await {
            let why = error.into_diagnosis(Phase::Registration, clock.now());
            tracing::warn!(%why, "nodes that are no longer heard could not be looked for");
        }
    }
}

/// Notes how an attending node stands: by its own checks, and in the cluster's eyes.
///
/// # Errors
/// The store or the cluster is away.
pub async fn note_standing(
    cluster: &dyn Cluster,
    registry: &dyn Registry,
    node: &NodeRecord,
    failing: &[Diagnosis],
    now: Timestamp,
) -> Result<(), PortError> {
    let observed = match in_the_way(registry, node, failing, None, now).await? {
        None => Observation::Ready,
        Some(why) => Observation::NotReady { why },
    };
    cluster.observe(&node.identity.name, observed, now).await
}
