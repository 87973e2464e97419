//! The agent: what runs on the machine that joins. `app` wires it; `join`
//! drives the five phases, which see `ports` only; `host`, `line`, `vault`,
//! `journal` and `clock` are what the ports stand for.

pub mod app;
pub mod attendance;
pub mod bundle;
pub mod certificate;
pub mod cli;
pub mod config;
pub mod credential;
mod files;
pub mod host;
pub mod jitter;
pub mod join;
pub mod journal;
pub mod line;
pub mod output;
pub mod plan;
pub mod ports;
pub mod renewal;
pub mod token_source;
pub mod vault;
