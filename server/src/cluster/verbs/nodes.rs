//! Binding and freeing names, admitting keys, and what is observed of nodes.

use std::time::Duration;

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::identity::SpkiHash;
use berth_domain::join::Event;
use berth_domain::name::NodeName;
use berth_domain::node::{Ban, Binding, CertificateTerms, NodeRecord, Readiness};
use berth_domain::phase::Phase;
use berth_domain::timestamp::Timestamp;

use super::joins;
use crate::cluster::ledger::{Ledger, NodeLedger, Problem, Stored};
use crate::ports::{Observation, Release};

/// Binds a name and records the authorization with it (I3, I11).
pub(in crate::cluster) fn bind(
    ledger: &mut dyn Ledger,
    wanted: &Binding,
    now: Timestamp,
) -> Result<NodeRecord, Problem> {
    let existing = ledger.node(&wanted.identity.name)?;
    let before = existing.as_ref().map(|node| node.join).filter(|before| *before != wanted.join);
    let ban = ledger.ban(wanted.machine)?;
    let node = NodeRecord::bind(existing, ban.as_ref(), wanted, now)?;
    ledger.keep_node(node.clone())?;
    if let Some(before) = before {
        joins::end(ledger, before, now)?;
    }
    let event = Event::Authorized {
        machine: wanted.machine,
        key: wanted.key,
        serial: wanted.certificate.serial.clone(),
        not_before: wanted.certificate.not_before,
        not_after: wanted.certificate.not_after,
        renewal: wanted.renewal,
    };
    joins::record(ledger, wanted.join, Some(&wanted.identity.name), event, now)?;
    Ok(node)
}

/// Takes a verified caller's key.
pub(in crate::cluster) fn admit(
    ledger: &mut dyn NodeLedger,
    name: &NodeName,
    key: SpkiHash,
) -> Result<NodeRecord, Problem> {
    let node = ledger.node(name)?;
    let ban = match &node {
        Some(node) => ledger.ban(node.machine)?,
        None => None,
    };
    let (node, changed) = admitted(name, node, ban.as_ref(), key)?;
    if changed {
        ledger.keep_node(node.clone())?;
    }
    Ok(node)
}

/// The rule of [`admit`]: the node after it, and whether it changed.
pub(in crate::cluster) fn admitted(
    name: &NodeName,
    node: Option<NodeRecord>,
    ban: Option<&Ban>,
    key: SpkiHash,
) -> Result<(NodeRecord, bool), Diagnosis> {
    let mut node = node.ok_or_else(|| unknown(name))?;
    if let Some(ban) = ban {
        return Err(ban.diagnosis(Phase::Authorization));
    }
    let changed = node.admit(key)?;
    Ok((node, changed))
}

/// Notes what was observed of a node.
pub(in crate::cluster) fn observe(
    ledger: &mut dyn Ledger,
    name: &NodeName,
    what: Observation,
    now: Timestamp,
) -> Result<(), Problem> {
    let mut node = ledger.node(name)?.ok_or_else(|| unknown(name))?;
    let event = match what {
        Observation::Issued { serial, not_before, not_after } => {
            node.certificate = CertificateTerms { serial: Some(serial.clone()), not_before, not_after };
            Some(Event::Issued { serial, not_before, not_after })
        }
        Observation::Configured { profile } => {
            // Nothing else of the node changes, so its record stays as it is.
            ledger.note_heard(name, now);
            return Ok(joins::record(ledger, node.join, Some(name), Event::Configured { profile }, now)?);
        }
        Observation::Registered { facts } => {
            ledger.keep_facts(name, &facts)?;
            node.readiness = Readiness::Registered;
            Some(Event::Registered)
        }
        Observation::Ready => {
            let was_ready = matches!(node.readiness, Readiness::Ready);
            node.readiness = Readiness::Ready;
            (!was_ready).then_some(Event::Ready)
        }
        Observation::NotReady { why } => return Ok(not_ready(ledger, node, why, now)?),
        Observation::Heard => None,
    };
    // Only an agent reports these, so it was heard.
    node.last_seen = node.last_seen.max(now);
    let join = node.join;
    ledger.keep_node(node)?;
    if let Some(event) = event {
        joins::record(ledger, join, Some(name), event, now)?;
    }
    Ok(())
}

/// Frees a name, or bans its machine.
pub(in crate::cluster) fn release(
    ledger: &mut dyn Ledger,
    name: &NodeName,
    how: Release,
    now: Timestamp,
) -> Stored<bool> {
    match how {
        Release::Left => free(ledger, name, Event::Left, now),
        Release::Forgotten { by } => free(ledger, name, Event::Forgotten { by }, now),
        Release::Banned { by, reason } => ban(ledger, name, by, reason, now),
        Release::Unbanned { by } => unban(ledger, name, by, now),
    }
}

/// Marks a node as not Ready if it is still overdue; says whether it was.
pub(in crate::cluster) fn sweep(
    ledger: &mut dyn Ledger,
    name: &NodeName,
    grace: Duration,
    now: Timestamp,
) -> Stored<bool> {
    let Some(node) = ledger.node(name)?.filter(|node| node.is_overdue(grace, now)) else {
        return Ok(false);
    };
    let why = node.unheard();
    not_ready(ledger, node, why, now)?;
    Ok(true)
}

fn not_ready(ledger: &mut dyn Ledger, mut node: NodeRecord, why: Diagnosis, now: Timestamp) -> Stored<()> {
    let is_news = match &node.readiness {
        Readiness::NotReady { why: before } => before.code() != why.code(),
        Readiness::Bound | Readiness::Registered | Readiness::Ready => true,
    };
    let after = Readiness::NotReady { why: why.clone() };
    if node.readiness == after {
        return Ok(());
    }
    node.readiness = after;
    let (join, name) = (node.join, node.identity.name.clone());
    ledger.keep_node(node)?;
    if is_news {
        joins::record(ledger, join, Some(&name), Event::NotReady { why }, now)?;
    }
    Ok(())
}

fn free(ledger: &mut dyn Ledger, name: &NodeName, event: Event, now: Timestamp) -> Stored<bool> {
    let Some(node) = ledger.node(name)? else {
        return Ok(false);
    };
    ledger.drop_node(name)?;
    joins::record(ledger, node.join, Some(name), event, now)?;
    Ok(true)
}

/// A machine that is banned already keeps its first ban: who and why stay true.
fn ban(ledger: &mut dyn Ledger, name: &NodeName, by: String, reason: String, now: Timestamp) -> Stored<bool> {
    let Some(node) = ledger.node(name)? else {
        return Ok(false);
    };
    if ledger.ban(node.machine)?.is_none() {
        let ban = Ban {
            machine: node.machine,
            name: name.clone(),
            by: by.clone(),
            reason: reason.clone(),
            at: now,
        };
        ledger.keep_ban(&ban, node.join)?;
        joins::record(ledger, node.join, Some(name), Event::Banned { by, reason }, now)?;
    }
    Ok(true)
}

/// The name's present machine comes first; else the machine that last had it,
/// for its name may have been freed since.
fn unban(ledger: &mut dyn Ledger, name: &NodeName, by: String, now: Timestamp) -> Stored<bool> {
    let present = match ledger.node(name)? {
        Some(node) => ledger.ban(node.machine)?.map(|ban| (ban, node.join)),
        None => None,
    };
    let found = match present {
        Some(found) => Some(found),
        None => ledger.ban_by_name(name)?,
    };
    let Some((ban, join)) = found else {
        return Ok(false);
    };
    ledger.drop_ban(ban.machine)?;
    joins::record(ledger, join, Some(name), Event::Unbanned { by }, now)?;
    Ok(true)
}

fn unknown(name: &NodeName) -> Diagnosis {
    Diagnosis::new(Code::CertificateRejected, Phase::Authorization)
        .with("name", name)
        .with("problem", "its node is not known here")
}
