//! The ports' verbs, written once for every backend with transactions: each is
//! a rule of the domain between reading and writing a ledger.

pub(super) mod joins;
pub(super) mod nodes;
pub(super) mod tokens;
