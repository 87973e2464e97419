//! The join listener on real sockets: one regression test for each of its bounds,
//! with the deadlines shortened so that no test waits long.
#![expect(clippy::expect_used, reason = "a test that cannot go on should say where")]

mod pki;
mod world;
mod client;
mod frames;

mod tls;
mod lanes;
mod proxy;
mod deadlines;
mod caps;
mod http2;
mod drain;
