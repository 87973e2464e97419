//! What the ports are asked to do here: the words in which a failure says it, and the
//! phase of a join in which it is asked.

use berth_domain::phase::Phase;

/// What a port is asked to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operation {
    /// As the end of "the store could not …".
    pub(super) words: &'static str,
    /// In which phase of a join it is asked.
    pub(super) phase: Phase,
}

const fn asked_in(phase: Phase, words: &'static str) -> Operation {
    Operation { words, phase }
}

pub(super) const MINT: Operation = asked_in(Phase::Authentication, "mint a token");
pub(super) const FIND: Operation = asked_in(Phase::Authentication, "find a token");
pub(super) const REDEEM: Operation = asked_in(Phase::Authentication, "redeem a token");
pub(super) const REVOKE: Operation = asked_in(Phase::Authentication, "revoke a token");
pub(super) const LIST_TOKENS: Operation = asked_in(Phase::Authentication, "list tokens");

pub(super) const RECORD: Operation = asked_in(Phase::Authorization, "record an event");
pub(super) const READ_JOIN: Operation = asked_in(Phase::Authorization, "read a join");
pub(super) const LIST_JOINS: Operation = asked_in(Phase::Authorization, "list joins");
pub(super) const READ_EVENTS: Operation = asked_in(Phase::Authorization, "read events");

pub(super) const BIND: Operation = asked_in(Phase::Authorization, "bind a name");
pub(super) const ADMIT: Operation = asked_in(Phase::Authorization, "admit a node");
pub(super) const RELEASE: Operation = asked_in(Phase::Authorization, "release a node");
pub(super) const LIST_NODES: Operation = asked_in(Phase::Authorization, "list nodes");
pub(super) const OBSERVE: Operation = asked_in(Phase::Registration, "note what a node does");
