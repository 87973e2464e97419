//! Initialization: hears Hello, checks that both sides have a protocol and a
//! channel in common, and gives the join its place in the queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use berth_domain::conversation::{EnrollFromAgent, EnrollFromServer, Hello, Mechanism, PROTOCOL_VERSION};
use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::join::JoinId;
use berth_domain::phase::Phase;
use berth_telemetry::metrics::{Decision, LimiterMeter, QueueMeter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Ending, EnrollLine, origin_of};
use crate::ports::Clock;
use crate::queue::{Queue, Queued, Turn};

/// How long a join stays in the queue: less than strangers may take for their
/// proof (`listener/limits`). Then it is told to come back.
const PATIENCE: Duration = Duration::from_secs(8);

/// Between two words on the place in the queue.
const NEXT_WORD: Duration = Duration::from_secs(2);

/// Evidence that the join may be worked on. Holds its place until dropped.
pub struct Admitted {
    hello: Hello,
    place: OwnedSemaphorePermit,
}

impl Admitted {
    /// What the agent said first, and its place.
    pub(super) fn into_parts(self) -> (Hello, OwnedSemaphorePermit) {
        (self.hello, self.place)
    }
}

/// What is known of a join from its first word on.
pub(super) struct Heard {
    /// That word.
    pub(super) hello: Hello,
    /// Its place in the queue, if it had to wait; kept until the record tells of it, so
    /// that nobody loses sight of it.
    pub(super) turn: Option<Turn>,
}

/// How many joins are worked on at one time, first come, first served.
pub struct Admission {
    places: Arc<Semaphore>,
    waiting: AtomicU64,
    longest_queue: u64,
    queue: Arc<Queue>,
    meter: QueueMeter,
    limiter: LimiterMeter,
}

impl Admission {
    /// At most `at_once` joins under way and `longest_queue` waiting.
    #[must_use]
    pub fn new(at_once: usize, longest_queue: u64) -> Self {
        Self {
            places: Arc::new(Semaphore::new(at_once.min(Semaphore::MAX_PERMITS))),
            waiting: AtomicU64::new(0),
            longest_queue,
            queue: Arc::default(),
            meter: QueueMeter::default(),
            limiter: LimiterMeter::default(),
        }
    }

    /// The same, counted.
    #[must_use]
    pub fn metered(self, meter: QueueMeter, limiter: LimiterMeter) -> Self {
        Self { meter, limiter, ..self }
    }

    /// Those who wait, for operators.
    #[must_use]
    pub fn queue(&self) -> Arc<Queue> {
        Arc::clone(&self.queue)
    }

    async fn enter(
        &self,
        line: &mut dyn EnrollLine,
        heard: &mut Heard,
        clock: &dyn Clock,
    ) -> Result<OwnedSemaphorePermit, Ending> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            self.limiter.decided(Decision::Passed);
            return Ok(place);
        }
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _leaves = Waiter(&self.waiting);
        if before >= self.longest_queue {
            self.limiter.decided(Decision::Refused);
            return Err(busy(before).into());
        }
        let _metered = self.meter.enter();
        heard.turn = Some(self.queue.enter(Queued {
            join: JoinId::of(&heard.hello.token, heard.hello.key),
            origin: origin_of(&heard.hello, &line.caller()),
            since: clock.now(),
        }));
        let turn = Arc::clone(&self.places).acquire_owned();
        tokio::pin!(turn);
        let began = tokio::time::Instant::now();
        while began.elapsed() < PATIENCE {
            let position =
                u32::try_from(before.min(self.waiting.load(Ordering::Relaxed))).unwrap_or(u32::MAX);
            line.say(EnrollFromServer::Queued { position, next_word: NEXT_WORD }).await?;
            match tokio::time::timeout(NEXT_WORD, &mut turn).await {
                Ok(Ok(place)) => {
                    self.limiter.decided(Decision::Waited);
                    return Ok(place);
                }
                Ok(Err(_closed)) => return Err(busy(before).into()),
                Err(_elapsed) => {}
            }
        }
        self.limiter.decided(Decision::Refused);
        Err(busy(before).into())
    }
}

struct Waiter<'a>(&'a AtomicU64);

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn busy(position: u64) -> Diagnosis {
    Diagnosis::new(Code::ServerBusy, Phase::Initialization).with("position", position)
}

/// Hears Hello and admits it. `known` is set as soon as Hello is there, so that
/// a refusal after it can be recorded.
pub(super) async fn run(
    line: &mut dyn EnrollLine,
    admission: &Admission,
    known: &mut Option<Heard>,
    clock: &dyn Clock,
) -> Result<Admitted, Ending> {
    let hello = match line.hear().await? {
        EnrollFromAgent::Hello(hello) => hello,
        EnrollFromAgent::GivingUp(why) => return Err(Ending::GaveUp(Box::new(why))),
        other @ (EnrollFromAgent::ClientProof(_) | EnrollFromAgent::CertificateRequest(_)) => {
            return Err(Ending::out_of_order(other.instead_of("Hello"), Phase::Initialization));
        }
    };
    let heard = known.insert(Heard { hello: hello.clone(), turn: None });
    check_version(&hello)?;
    if hello.exporter != line.channel().fingerprint() {
        return Err(Diagnosis::new(Code::TlsTerminated, Phase::Initialization).into());
    }
    let place = admission.enter(line, heard, clock).await?;
    Ok(Admitted { hello, place })
}

fn check_version(hello: &Hello) -> Result<(), Diagnosis> {
    if hello.protocol_version == PROTOCOL_VERSION && hello.mechanisms.contains(&Mechanism::Njp1Ed25519) {
        return Ok(());
    }
    Err(Diagnosis::new(Code::VersionUnsupported, Phase::Initialization)
        .with("found", format!("berth.join.v{}", hello.protocol_version))
        .with("wanted", format!("berth.join.v{PROTOCOL_VERSION} with njp/1")))
}
