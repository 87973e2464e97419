//! The words of Berth: pure types and rules that both programs share.
//!
//! Nothing here is asynchronous, opens a file or a socket, or asks what time
//! it is: `now` is always an argument. A value that exists is valid; text is
//! parsed once, at the edge.
#![warn(missing_docs)]

pub mod bundle;
pub mod conversation;
pub mod diagnosis;
pub mod facts;
pub mod identity;
pub mod join;
pub mod labels;
pub mod name;
pub mod node;
pub mod phase;
pub mod pods;
pub mod profile;
pub mod proof;
pub mod quantity;
pub mod span;
pub mod term;
pub mod timestamp;
pub mod token;
pub mod trace;
pub mod version;
