//! An agent's spans over its own line: kept by the agent in a bounded buffer until
//! there is a server to send them to, and handed on by the server to its collector as
//! the agent's. Only names that Berth itself gives come through.

mod keep;
mod pass;
pub(crate) mod words;

pub use keep::{Kept, MOST_KEPT};
pub use pass::Passed;
