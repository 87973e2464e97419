//! Every bound of the console, in one place.

use std::time::Duration;

/// Connections answered at one time; more wait in the kernel's queue. A browser has
/// six at most.
pub(super) const CONNECTIONS: usize = 128;

/// Time for TLS.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(10);

/// Time for a request's header, and between two requests.
pub(super) const REQUEST: Duration = Duration::from_secs(10);

/// Time for a request's body.
pub(super) const BODY: Duration = Duration::from_secs(10);

/// Age at which a connection is cut; a page that watches goes on where it was.
pub(super) const CONNECTION: Duration = Duration::from_secs(15 * 60);

/// Bytes of a request's header.
pub(super) const HEADER_BYTES: usize = 16 * 1024;

/// Bytes of a request's body: a token with all of its bindings has about 20 KiB.
pub(super) const BODY_BYTES: usize = 64 * 1024;

/// How long a loop that cannot accept rests.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Sessions at one time; a new one takes the place of the one that was idle longest.
pub(super) const SESSIONS: usize = 64;

/// How long a session may be idle. A page that watches is not.
pub(super) const SESSION_IDLE: Duration = Duration::from_secs(3_600);

/// How long a session lasts in any case: a working day.
pub(super) const SESSION_AGE: Duration = Duration::from_secs(12 * 3_600);

/// Operators in the token file.
pub(super) const OPERATORS: usize = 256;

/// Characters of an operator's token: what the first start makes has 160 bits in 32
/// characters, and nobody should choose less.
pub(super) const TOKEN_CHARACTERS: std::ops::RangeInclusive<usize> = 32..=256;

/// Joins of one event of a watch, so that a page never works on more at one time.
pub(super) const JOINS_OF_AN_EVENT: usize = 250;

/// Events that wait for a page that reads slowly.
pub(super) const WAITING_EVENTS: usize = 8;

/// How long a page may read nothing before its watch ends.
pub(super) const UNREAD: Duration = Duration::from_secs(30);

/// How often a watch that has nothing to say says so, and looks whether its session
/// still stands.
pub(super) const STILL_THERE: Duration = Duration::from_secs(10);

/// Other servers that are asked how they are.
pub(crate) const SERVERS: usize = 32;

/// Time for another server's answer, and how many bytes of it are read.
pub(super) const PEER: Duration = Duration::from_secs(3);
pub(super) const PEER_BYTES: usize = 16 * 1024;
