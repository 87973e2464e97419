//! One run of the agent's join, attempt by attempt: which way leads in, the
//! phases in their order, and what is said when a line must be given up.

use std::pin::Pin;
use std::time::Duration;

use berth_domain::conversation::{EnrollFromAgent, JoinFromAgent};
use berth_domain::diagnosis::{Code, Diagnosis, Retry};
use berth_domain::identity::{Digest, SpkiHash};
use berth_domain::phase::Phase;
use berth_domain::token::JoinToken;
use berth_telemetry::names::attribute;
use berth_telemetry::phase::{Coded, Outcome, watched};
use tokio::time::sleep_until;
use tracing::Span;

use super::authentication::{self, Claim};
use super::authorization::{self, Authorized, Keeping, Keys, Wish};
use super::book::{Book, Trace};
use super::initialization::{self, Prepared};
use super::progress::{Observer, Teller};
use super::registration::Registered;
use super::{JoinWorld, Ready, configuration, record_identity, registration};
use crate::ports::server::{Enrollment, Joining, LineError, Member};
use crate::ports::{Credential, Standing, Supplier};

/// How long the server may take to hear why the agent gives up.
const FAREWELL: Duration = Duration::from_millis(500);

/// One run: its world, and what it tells.
pub(super) struct Run<'a> {
    pub(super) world: &'a JoinWorld<'a>,
    pub(super) teller: Teller<'a>,
    pub(super) book: Book<'a>,
    trace_id: Option<String>,
    span: Span,
}

/// Why an attempt ended.
pub(super) enum Halt {
    /// Something stands in the way; perhaps not for ever.
    Cause(Diagnosis),
    /// The join's time is over, or the process was told to stop.
    Stopped(Diagnosis),
}

/// What ended a run from outside.
pub(super) enum Stop {
    /// Its deadline, or the first wait where none is wanted.
    Deadline,
    /// The process was told to stop.
    Interrupted,
}

/// The way in.
enum Way {
    Resume(Credential),
    Enroll(JoinToken),
}

/// A diagnosis that a phase ends with: one that mends itself is a wait, not a
/// failure.
struct Cause(Diagnosis);

impl Coded for Cause {
    fn code(&self) -> Code {
        self.0.code()
    }

    fn outcome(&self) -> Outcome {
        outcome(&self.0)
    }
}

/// How an attempt that met this is to be counted.
pub(super) fn outcome(why: &Diagnosis) -> Outcome {
    match why.when_to_retry() {
        Retry::After(_) => Outcome::Waiting,
        Retry::Never => why.outcome(),
    }
}

impl<'a> Run<'a> {
    pub(super) fn new(
        world: &'a JoinWorld<'a>,
        observer: &'a dyn Observer,
        trace: Trace,
        span: Span,
    ) -> Self {
        let teller = Teller::new(observer, world.clock);
        let trace_id = trace.id.clone();
        let book = Book::new(world.journal, world.clock, trace);
        Self { world, teller, book, trace_id, span }
    }

    /// The same with its trace ended: what comes is no part of it.
    pub(super) fn closed(mut self) -> Self {
        self.span = Span::none();
        self
    }

    /// One attempt, from wherever the machine stands.
    pub(super) async fn attempt(&self) -> Result<Ready, Halt> {
        let (authorized, member, resumed) = match self.way().map_err(Halt::Cause)? {
            Way::Resume(credential) => {
                let (authorized, member) = self.resume(credential).await?;
                (authorized, member, true)
            }
            Way::Enroll(token) => {
                let (authorized, member) = self.enroll(&token).await?;
                (authorized, member, false)
            }
        };
        let registered = self.complete(authorized, &*member).await?;
        Ok(Ready::new(&registered, resumed, self.trace_id.clone()))
    }

    /// A certificate that is good, else a token.
    fn way(&self) -> Result<Way, Diagnosis> {
        let world = self.world;
        let held = world.vault.credential().map_err(|error| error.into_diagnosis(Phase::Authorization))?;
        let Some(held) = held else { return world.token.token().map(Way::Enroll) };
        match authorization::check_life(&held.current, world.clock.now()) {
            Ok(()) => Ok(Way::Resume(held.current)),
            // With a new token the machine may come back; without, the certificate is the cause.
            Err(expired) => match world.token.token() {
                Ok(token) => Ok(Way::Enroll(token)),
                Err(why) if why.code() == Code::TokenMissing => Err(expired),
                Err(why) => Err(why),
            },
        }
    }

    /// Connection 1.
    async fn enroll(&self, token: &JoinToken) -> Result<(Authorized, Box<dyn Member>), Halt> {
        // Pins that a person gave overrule the token's: they may be newer.
        let given = &self.world.wishes.pins;
        let pins: Vec<SpkiHash> =
            if given.is_empty() { token.pin.into_iter().collect() } else { given.clone() };
        if pins.is_empty() {
            self.teller.unpinned();
        }
        let preparing = self.phase(Phase::Initialization, async {
            let prepared = self.prepare().await?;
            self.book.reached(Standing::Preparing, Phase::Initialization)?;
            Ok((prepared, self.world.server.call(&pins).await?))
        });
        let (prepared, stranger) = self.unless_stopped(preparing).await?;
        let opening = async {
            let opened = stranger.enroll().await;
            opened.map_err(|error| error.into_diagnosis(Phase::Initialization, "it opened the conversation"))
        };
        let mut line = self.unless_stopped(opening).await?;
        let ended = self.unless_stopped(self.phases_of_enroll(&mut *line, prepared, token, &pins)).await;
        if let Err(halt) = &ended {
            let farewell = EnrollFromAgent::GivingUp(halt.why().clone());
            give_up(line.say(farewell).await, async || line.hear(FAREWELL).await.map(drop)).await;
        }
        ended
    }

    async fn phases_of_enroll(
        &self,
        line: &mut dyn Enrollment,
        prepared: Prepared,
        token: &JoinToken,
        pins: &[SpkiHash],
    ) -> Result<(Authorized, Box<dyn Member>), Diagnosis> {
        let world = self.world;
        let name = world.wishes.node_name.clone().or_else(|| prepared.facts().identity.hostname.clone());
        let keys = self.keys(name.as_deref())?;
        let claim = Claim {
            token,
            pins,
            key: keys.node.spki_hash(),
            certificate_request: Digest::of(&keys.request),
            agent_version: &world.wishes.agent_version,
        };
        let authenticating = authentication::run(line, prepared, &claim, world.clock, &self.teller);
        let authenticated = self.phase(Phase::Authentication, authenticating).await?;
        self.span.record(attribute::CLUSTER_UID, authenticated.cluster_id());
        let wish = Wish { name: name.as_deref().unwrap_or_default(), pool: world.wishes.pool.as_ref() };
        let keeping = Keeping { vault: world.vault, book: &self.book, token: world.token };
        let authorizing = async {
            let authorized =
                authorization::run(line, authenticated, &keys, &wish, &keeping, world.clock, &self.teller)
                    .await?;
            self.enter(authorized).await
        };
        self.phase(Phase::Authorization, authorizing).await
    }

    /// The second door.
    async fn resume(&self, credential: Credential) -> Result<(Authorized, Box<dyn Member>), Halt> {
        let prepared = self.unless_stopped(self.phase(Phase::Initialization, self.prepare())).await?;
        let entering = self.phase(Phase::Authorization, async {
            self.forget_token_of_a_crash()?;
            let authorized = authorization::resume(prepared, credential, self.world.clock.now())?;
            self.enter(authorized).await
        });
        self.unless_stopped(entering).await
    }

    async fn enter(&self, authorized: Authorized) -> Result<(Authorized, Box<dyn Member>), Diagnosis> {
        let credential = authorized.credential();
        record_identity(&self.span, credential.node(), credential.join());
        let member = authorization::enter(self.world.server, &authorized).await?;
        Ok((authorized, member))
    }

    /// Connection 2.
    async fn complete(&self, authorized: Authorized, member: &dyn Member) -> Result<Registered, Halt> {
        let opening = async {
            let opened = member.join().await;
            opened.map_err(|error| error.into_diagnosis(Phase::Configuration, "it opened the conversation"))
        };
        let mut line = self.unless_stopped(opening).await?;
        let ended =
            self.unless_stopped(self.phases_of_complete(&mut *line, member.supplier(), authorized)).await;
        if let Err(halt) = &ended {
            let farewell = JoinFromAgent::GivingUp(halt.why().clone());
            give_up(line.say(farewell).await, async || line.hear(FAREWELL).await.map(drop)).await;
        }
        ended
    }

    async fn phases_of_complete(
        &self,
        line: &mut dyn Joining,
        supplier: &dyn Supplier,
        authorized: Authorized,
    ) -> Result<Registered, Diagnosis> {
        let world = self.world;
        let version = &world.wishes.agent_version;
        let machine = configuration::Machine {
            host: world.host,
            checks: world.checks,
            depot: world.depot,
            supplier,
            clock: world.clock,
        };
        let configuring = configuration::run(line, authorized, version, &machine, &self.book, &self.teller);
        let configured = self.phase(Phase::Configuration, configuring).await?;
        let machine = registration::Machine {
            host: world.host,
            checks: world.checks,
            services: world.services,
            clock: world.clock,
        };
        let registering = registration::run(line, configured, &machine, &self.book, &self.teller);
        self.phase(Phase::Registration, registering).await
    }

    async fn prepare(&self) -> Result<Prepared, Diagnosis> {
        let world = self.world;
        initialization::run(world.host, world.checks, world.clock, &self.teller).await
    }

    /// The keys, and a request for the name that the node will have most likely.
    fn keys(&self, name: Option<&str>) -> Result<Keys, Diagnosis> {
        let vault = self.world.vault;
        let failed = |error: crate::ports::VaultError| error.into_diagnosis(Phase::Authentication);
        let machine = vault.machine_key().map_err(failed)?;
        let node = vault.proposed_key().map_err(failed)?;
        let name = name.and_then(|name| name.parse().ok());
        let request = node.certificate_request(name.as_ref()).map_err(|error| failed(error.into()))?;
        Ok(Keys { machine, node, request })
    }

    /// The run before may have been killed between keeping its certificate and
    /// forgetting its token. Later than that, a token is not this join's.
    fn forget_token_of_a_crash(&self) -> Result<(), Diagnosis> {
        match self.book.standing()? {
            Standing::Fresh | Standing::Preparing | Standing::Enrolled { .. } => self.world.token.forget(),
            Standing::Configured { .. }
            | Standing::Registered { .. }
            | Standing::Ready { .. }
            | Standing::Left => Ok(()),
        }
    }

    /// Runs a phase in its span. Its state lives on the heap: five phases within
    /// each other would be more than a small stack takes.
    fn phase<'f, T: 'f>(
        &'f self,
        phase: Phase,
        work: impl Future<Output = Result<T, Diagnosis>> + 'f,
    ) -> Pin<Box<dyn Future<Output = Result<T, Diagnosis>> + 'f>> {
        Box::pin(async move {
            self.teller.phase(phase);
            let caused = async { work.await.map_err(Cause) };
            watched(phase, caused, |finished| self.teller.finished(finished)).await.map_err(|Cause(why)| why)
        })
    }

    async fn unless_stopped<T>(&self, work: impl Future<Output = Result<T, Diagnosis>>) -> Result<T, Halt> {
        tokio::select! {
            biased;
            done = work => done.map_err(Halt::Cause),
            stop = self.stopped() => Err(Halt::Stopped(self.why_stopped(stop))),
        }
    }

    /// Ends when the join has to.
    pub(super) async fn stopped(&self) -> Stop {
        let patience = self.world.patience;
        let deadline = async {
            match patience.deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let first_wait = async {
            if !patience.no_wait {
                std::future::pending::<()>().await;
            }
            self.teller.waits().await;
        };
        let mut stop = self.world.stop.clone();
        let told = async {
            // Who could tell is gone: nobody will.
            if stop.wait_for(|stop| *stop).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            () = told => Stop::Interrupted,
            () = deadline => Stop::Deadline,
            () = first_wait => Stop::Deadline,
        }
    }

    /// The reason to tell: what was waited for when time was over.
    pub(super) fn why_stopped(&self, stop: Stop) -> Diagnosis {
        let stands = self.teller.stands();
        match (stop, stands.waiting_for) {
            (Stop::Interrupted, _) => {
                Diagnosis::new(Code::Interrupted, stands.phase).with("step", stands.phase)
            }
            (Stop::Deadline, Some(why)) => why,
            (Stop::Deadline, None) => Diagnosis::new(Code::AgentLost, stands.phase)
                .with("step", format!("it was in its {} and the time for the join was over", stands.phase)),
        }
    }
}

impl Halt {
    const fn why(&self) -> &Diagnosis {
        match self {
            Self::Cause(why) | Self::Stopped(why) => why,
        }
    }
}

/// Says why, and lets the server hear it before the line is dropped.
async fn give_up(said: Result<(), LineError>, ended: impl AsyncFnOnce() -> Result<(), LineError>) {
    if said.is_ok() {
        // Whatever comes, or nothing: the join is over on this line.
        let _ = ended().await;
    }
}
