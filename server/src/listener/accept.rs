//! The accept loop: takes connections off the kernel's queue, keeps within the
//! total, pauses when the kernel is short of descriptors or memory (a loop without
//! a pause burns a core, for the refused connection stays in the queue), and
//! waits for its connections when the server drains.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use berth_telemetry::metrics::Decision;
use rustix::io::Errno;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};

use super::ServeError;
use super::connection::{self, Arrival, Front};
use super::observer::ConnectionOutcome;

/// Serves until the front drains and its last connection has ended. A connection
/// ends by itself in the time that the limits give it.
pub(super) async fn run(
    front: Arc<Front>,
    listener: TcpListener,
    connections: usize,
) -> Result<(), ServeError> {
    let places = Arc::new(Semaphore::new(connections));
    let mut tasks = JoinSet::new();
    let mut count: u64 = 0;
    let mut failures: u32 = 0;
    let end = loop {
        let accepted = tokio::select! {
            () = front.drain.cancelled() => break Ok(()),
            Some(ended) = tasks.join_next() => {
                report_panic(ended);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                failures = 0;
                count = count.saturating_add(1);
                admit(&front, &places, &mut tasks, stream, address, count);
            }
            Err(error) => {
                front.observe(ConnectionOutcome::AcceptError, None);
                match Refusal::of(&error) {
                    Refusal::Peer => {}
                    Refusal::Shortage => {
                        let limits = &front.limits;
                        let pause = pause(failures, limits.accept_pause, limits.accept_pause_max);
                        failures = failures.saturating_add(1);
                        tracing::warn!(error = %error, ?pause, "short of descriptors or memory: accepting pauses");
                        tokio::select! {
                            () = tokio::time::sleep(jittered(pause, PAUSE_JITTER_PERCENT)) => {}
                            () = front.drain.cancelled() => {}
                        }
                    }
                    Refusal::Listener => break Err(ServeError::Accept(error)),
                }
            }
        }
    };
    drop(listener);
    front.drain.cancel();
    while let Some(ended) = tasks.join_next().await {
        report_panic(ended);
    }
    end
}

fn report_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(error = %error, "a connection's task panicked");
    }
}

fn admit(
    front: &Arc<Front>,
    places: &Arc<Semaphore>,
    tasks: &mut JoinSet<()>,
    stream: TcpStream,
    address: SocketAddr,
    id: u64,
) {
    let Ok(place) = Arc::clone(places).try_acquire_owned() else {
        front.of_all.decided(Decision::Refused);
        front.observe(ConnectionOutcome::TotalLimit, Some(address));
        return;
    };
    front.of_all.decided(Decision::Passed);
    let arrival =
        Arrival { id, address: SocketAddr::new(address.ip().to_canonical(), address.port()), stream, place };
    tasks.spawn(connection::run(Arc::clone(front), arrival));
}

/// Whose fault it is that `accept` failed: see accept(2), "Errors".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// This connection broke before we took it, or a firewall forbids it; the next
    /// may be fine.
    Peer,
    /// The process or the machine has no descriptor or no memory left; the
    /// connection waits on in the queue.
    Shortage,
    /// The listening socket itself is of no use any more.
    Listener,
}

impl Refusal {
    fn of(error: &io::Error) -> Self {
        match Errno::from_io_error(error) {
            Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => Self::Shortage,
            Some(Errno::BADF | Errno::FAULT | Errno::INVAL | Errno::NOTSOCK) => Self::Listener,
            Some(_) | None => Self::Peer,
        }
    }
}

/// The pause after so many refusals in a row: doubles up to the longest.
fn pause(failures: u32, first: Duration, longest: Duration) -> Duration {
    let factor = 1_u32.checked_shl(failures).unwrap_or(u32::MAX);
    first.saturating_mul(factor).min(longest)
}

/// The duration, longer or shorter by up to so many percent of it.
pub(super) fn jittered(duration: Duration, percent: u32) -> Duration {
    // A fresh hasher is seeded from the system: good enough to spread connections.
    let dice = RandomState::new().hash_one(()) % 2001;
    let spread = duration.saturating_mul(percent) / 100;
    let offset = spread.saturating_mul(u32::try_from(dice).unwrap_or(1000)) / 1000;
    duration.saturating_add(offset).saturating_sub(spread)
}

const PAUSE_JITTER_PERCENT: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_never_overflow() {
        let pauses = [0, 1, 2, 6, 7, 31, 32, u32::MAX]
            .map(|failures| pause(failures, Duration::from_millis(10), Duration::from_secs(1)));
        assert_eq!(pauses.map(|pause| pause.as_millis()), [10, 20, 40, 640, 1000, 1000, 1000, 1000]);
    }

    #[test]
    fn only_a_shortage_pauses_and_only_a_dead_listener_ends_the_loop() {
        let of = |errno: Errno| Refusal::of(&io::Error::from(errno));
        assert_eq!(of(Errno::MFILE), Refusal::Shortage);
        assert_eq!(of(Errno::NFILE), Refusal::Shortage);
        assert_eq!(of(Errno::NOBUFS), Refusal::Shortage);
        assert_eq!(of(Errno::NOMEM), Refusal::Shortage);
        assert_eq!(of(Errno::CONNABORTED), Refusal::Peer);
        assert_eq!(of(Errno::PROTO), Refusal::Peer);
        assert_eq!(of(Errno::PERM), Refusal::Peer);
        assert_eq!(of(Errno::BADF), Refusal::Listener);
    }

    #[test]
    fn jitter_stays_within_its_percent_and_moves() {
        let hour = Duration::from_secs(3600);
        let ages: Vec<_> = (0..100).map(|_| jittered(hour, 10)).collect();
        let (low, high) = (Duration::from_secs(3240), Duration::from_secs(3960));
        assert!(ages.iter().all(|age| (low..=high).contains(age)), "{ages:?}");
        assert!(ages.iter().any(|age| *age != hour));
    }
}
