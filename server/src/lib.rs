//! berth-server: stands in front of a cluster and brings machines to their berths.

pub mod join;
pub mod policy;
pub mod ports;

pub mod admin;
pub mod app;
pub mod attendance;
pub mod bundle;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod console;
pub mod health;
pub mod kubernetes;
pub mod listener;
pub mod profiles;
pub mod queue;
pub mod registry;
pub mod relay;
pub mod rpc;
pub mod signer;
pub mod trust;
mod forms;
mod outage;
mod signatures;
pub mod watched;
