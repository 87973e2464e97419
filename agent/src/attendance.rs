//! Attendance: after the join the node holds a standing line, says that it
//! lives and what of its checks does not hold, renews its certificate, and comes
//! back when the line is lost. What to do next, [`step`] decides; here it is done.

pub mod step;

use std::pin::Pin;
use std::sync::Arc;

use berth_domain::conversation::AttendFromServer;
use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::facts::HostFacts;
use berth_domain::phase::Phase;
use berth_domain::timestamp::Timestamp;
use berth_telemetry::effect::{Effect, effect_span, performed};
use berth_telemetry::names::attribute;
use berth_telemetry::phase::{Coded as _, Outcome, finish};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{Instrument as _, Span};

use self::step::{Action, Event, Now, State, step};
use crate::certificate::Validity;
use crate::join::Checks;
use crate::join::authorization::check_life;
use crate::join::book::{Book, Trace};
use crate::join::network::PodNetwork;
use crate::ports::server::{Attending, LineError, Member, Server};
use crate::ports::{Clock, Credential, Discard, Held, Host, Journal, Services, Vault};
use crate::{jitter, plan, renewal};

/// All that attendance can touch.
pub struct AttendWorld<'a> {
    /// The server.
    pub server: &'a dyn Server,
    /// The machine.
    pub host: &'a dyn Host,
    /// What is asked of the machine.
    pub checks: &'a dyn Checks,
    /// The programs that make it a node.
    pub services: &'a dyn Services,
    /// Keys and credentials.
    pub vault: &'a dyn Vault,
    /// What is known after a crash.
    pub journal: &'a dyn Journal,
    /// What time it is.
    pub clock: &'a dyn Clock,
    /// Who is told how it stands.
    pub tell: &'a (dyn Fn(&Told) + Send + Sync),
    /// Becomes true when the process is told to stop.
    pub stop: watch::Receiver<bool>,
}

/// How the attendance stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// A line stands.
    Attending,
    /// There is none, and why; the agent comes back by itself.
    Away(Diagnosis),
    /// The certificate was renewed.
    Renewed {
        /// Until when the new one is good.
        not_after: Timestamp,
    },
}

/// Attends, until something must change first or the process is told to stop.
///
/// It always ends with its reason; `INTERRUPTED` is the good one.
pub async fn attend(world: &AttendWorld<'_>) -> Diagnosis {
    let held = match held(world) {
        Ok(held) => held,
        Err(why) => return why,
    };
    Attendance {
        world,
        book: Book::new(world.journal, world.clock, Trace::default()),
        held,
        began: Instant::now(),
        line: None,
        renewing: None,
        heard: None,
        files: None,
        network: PodNetwork::new(world.host, world.services, world.clock),
    }
    .run()
    .await
}

fn held(world: &AttendWorld<'_>) -> Result<Held, Diagnosis> {
    let held = world.vault.credential().map_err(|error| error.into_diagnosis(Phase::Authorization))?;
    held.ok_or_else(|| Diagnosis::new(Code::TokenMissing, Phase::Authorization))
}

type Renewing<'a> = Pin<Box<dyn Future<Output = Result<Held, Diagnosis>> + Send + 'a>>;

struct Attendance<'a> {
    world: &'a AttendWorld<'a>,
    book: Book<'a>,
    held: Held,
    began: Instant,
    line: Option<Standing>,
    renewing: Option<Renewing<'a>>,
    /// The line before has told of something that is worth keeping.
    heard: Option<Diagnosis>,
    /// What keeps the certificate's files from being written.
    files: Option<Diagnosis>,
    network: PodNetwork<'a>,
}

/// A line that stands, and the span that tells of it.
struct Standing {
    member: Arc<dyn Member>,
    talk: Box<dyn Attending>,
    span: Span,
}

impl<'a> Attendance<'a> {
    async fn run(mut self) -> Diagnosis {
        let mut state = State::new(validity(&self.held.current), self.now());
        let mut event = Event::Tick;
        loop {
            let action;
            (state, action) = step(state, event, self.now());
            event = match action {
                Action::Connect => match self.unless_stopped_connect().await {
                    Ok(event) => event,
                    Err(why) => return why,
                },
                Action::Say(said) => match &mut self.line {
                    Some(line) => match line.talk.say(said).await {
                        Ok(()) => Event::Tick,
                        Err(error) => self.lost(error),
                    },
                    None => Event::Tick,
                },
                Action::Check => Event::Checked(self.check().await),
                Action::Renew => {
                    self.begin_renewal();
                    Event::Tick
                }
                Action::HangUp => {
                    self.hang_up();
                    Event::Tick
                }
                Action::Sleep(until) => match self.wait(until).await {
                    Ok(event) => event,
                    Err(why) => return why,
                },
                Action::End(why) => {
                    self.heard = Some(why.clone());
                    self.hang_up();
                    self.book.stopped(&why);
                    return why;
                }
            };
        }
    }

    fn now(&self) -> Now {
        Now { uptime: self.began.elapsed(), wall: self.world.clock.now(), random: jitter::random() }
    }

    async fn unless_stopped_connect(&mut self) -> Result<Event, Diagnosis> {
        let mut stop = self.world.stop.clone();
        tokio::select! {
            biased;
            why = told_to_stop(&mut stop) => Err(why),
            connected = self.connect() => Ok(match connected {
                Ok(()) => Event::Connected,
                Err(why) => {
                    self.away(&why);
                    Event::Lost(why)
                }
            }),
        }
    }

    /// Makes a line with the current certificate; once that was used, the one
    /// before is forgotten.
    async fn connect(&mut self) -> Result<(), Diagnosis> {
        let current = &self.held.current;
        check_life(current, self.world.clock.now())?;
        let span = effect_span(Effect::Attendance);
        span.record(attribute::NODE_NAME, current.node().name.as_str());
        let opening = async {
            let member: Arc<dyn Member> = Arc::from(self.world.server.enter(current).await?);
            let opened = member.attend().await;
            let talk =
                opened.map_err(|error| error.into_diagnosis(Phase::Registration, "it began to attend"))?;
            Ok((member, talk))
        };
        let (member, talk) = opening.instrument(span.clone()).await.inspect_err(|why: &Diagnosis| {
            finish(&span, why.outcome(), Some(why.code()));
        })?;
        self.line = Some(Standing { member, talk, span });
        self.heard = None;
        if self.held.former.is_some() {
            match self.world.vault.discard(Discard::Former) {
                Ok(()) => self.held.former = None,
                Err(error) => tracing::warn!(%error, "the former certificate was not removed"),
            }
        }
        self.write_files();
        self.book.going_on();
        (self.world.tell)(&Told::Attending);
        Ok(())
    }

    /// Sleeps, unless the server, a renewal or the process is first.
    async fn wait(&mut self, until: std::time::Duration) -> Result<Event, Diagnosis> {
        let until = self.began + until;
        let mut stop = self.world.stop.clone();
        let happened = {
            let heard = async {
                match &mut self.line {
                    Some(line) => line.talk.hear().await,
                    None => std::future::pending().await,
                }
            };
            let renewed = async {
                match &mut self.renewing {
                    Some(renewing) => renewing.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                why = told_to_stop(&mut stop) => return Err(why),
                renewed = renewed => Happened::Renewed(Box::new(renewed)),
                heard = heard => Happened::Heard(heard),
                () = sleep_until(until) => Happened::Nothing,
            }
        };
        Ok(match happened {
            Happened::Nothing => Event::Tick,
            Happened::Heard(Ok(AttendFromServer::PodRoutes(routes))) => {
                self.network.told(routes).await;
                Event::Tick
            }
            Happened::Heard(Ok(said)) => Event::Heard(said),
            Happened::Heard(Err(error)) => self.lost(error),
            Happened::Renewed(ended) => self.renewed(*ended),
        })
    }

    fn lost(&mut self, error: LineError) -> Event {
        let why = error.into_diagnosis(Phase::Registration, "it attended");
        self.away(&why);
        Event::Lost(why)
    }

    fn away(&mut self, why: &Diagnosis) {
        if self.heard.as_ref() != Some(why) {
            self.book.stopped(why);
            (self.world.tell)(&Told::Away(why.clone()));
        }
        self.heard = Some(why.clone());
    }

    fn begin_renewal(&mut self) {
        let (world, Some(line)) = (self.world, &self.line) else { return };
        let member = Arc::clone(&line.member);
        let (node, join) = (self.held.current.node().clone(), self.held.current.join());
        let work = async move {
            let renewing = renewal::renew(&*member, world.vault, &node, join, world.clock);
            performed(Effect::Renewal, renewing).await
        };
        self.renewing = Some(Box::pin(work.instrument(line.span.clone())));
    }

    fn renewed(&mut self, ended: Result<Held, Diagnosis>) -> Event {
        self.renewing = None;
        match ended {
            Ok(held) => {
                self.held = held;
                self.write_files();
                let certificate = validity(&self.held.current);
                (self.world.tell)(&Told::Renewed { not_after: certificate.not_after });
                Event::Renewed(certificate)
            }
            Err(why) => {
                tracing::warn!(%why, "the certificate was not renewed");
                Event::NotRenewed(why)
            }
        }
    }

    /// The kubelet's view of the certificate. What stands already is not touched.
    fn write_files(&mut self) {
        let plan = plan::certificate(&self.held.current, self.held.former.as_ref());
        let applied = self.world.host.apply(&plan, self.world.clock.now());
        self.files = applied.err().map(|error| error.into_diagnosis(Phase::Registration));
    }

    async fn check(&mut self) -> Vec<Diagnosis> {
        if self.files.is_some() {
            self.write_files();
        }
        let facts: HostFacts = self.world.host.survey().await;
        let programs = self.world.services.failing().await;
        let network = self.network.problem().await;
        self.files
            .iter()
            .cloned()
            .chain(network)
            .chain(programs)
            .chain(self.world.checks.health(&facts))
            .collect()
    }

    /// Ends the line, and its span with the reason.
    fn hang_up(&mut self) {
        self.renewing = None;
        if let Some(line) = self.line.take() {
            match &self.heard {
                Some(why) => finish(&line.span, why.outcome(), Some(why.code())),
                None => finish(&line.span, Outcome::Ok, None),
            }
        }
    }
}

impl Drop for Attendance<'_> {
    fn drop(&mut self) {
        self.hang_up();
    }
}

enum Happened {
    Nothing,
    Heard(Result<AttendFromServer, LineError>),
    Renewed(Box<Result<Held, Diagnosis>>),
}

async fn told_to_stop(stop: &mut watch::Receiver<bool>) -> Diagnosis {
    if stop.wait_for(|stop| *stop).await.is_err() {
        // Who could tell is gone: nobody will.
        std::future::pending::<()>().await;
    }
    Diagnosis::new(Code::Interrupted, Phase::Registration).with("step", "attendance")
}

fn validity(credential: &Credential) -> Validity {
    Validity { not_before: credential.not_before(), not_after: credential.not_after() }
}

#[cfg(test)]
mod tests;
