//! `join` and `run`: the join until Ready, and the attendance after it.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::phase::Phase;
use tokio::sync::watch;

use super::agent::{Agent, patience};
use super::interrupt::Interrupt;
use super::lock::{Lock, LockError};
use super::service::Service;
use super::watch::{CrashPoint, Watch};
use super::{Context, Failure, failure, standing, token};
use crate::attendance::{self, Told};
use crate::cli::{self, Form, JoinOptions};
use crate::join::{self, Ready};
use crate::output::{self, Joined, Progress, ResultView};
use crate::ports::{Clock as _, Standing, Vault as _};
use crate::token_source::GivenToken;

/// How long the last spans may take to leave over the line.
const LAST_SPANS: Duration = Duration::from_secs(1);

/// Joins, and ends; with `--attend` it stays as [`run`] does.
pub(super) async fn join(with: &Context<'_>, asked: &cli::Join) -> Result<ExitCode, Failure> {
    let progress = match asked.output {
        Form::Json => Progress::json(),
        Form::Text if with.quiet => Progress::quiet(),
        Form::Text => Progress::people(output::is_interactive()),
    };
    let ended = async {
        let agent = Agent::new(with)?;
        let lock = match Lock::take(with.root) {
            Err(held @ LockError::Held { .. }) => {
                return already(&agent)?.ok_or(Failure::Lock(held)).map(Ended::Joined);
            }
            taken => taken?,
        };
        let session = Session::begin(with, &agent, &asked.options, progress)?;
        let joined = session.join().await;
        if joined.is_err() || !asked.attend {
            // The result waits for no spans, where it is good.
            if let Ok(joined) = &joined {
                say(asked.output, joined)?;
            }
            agent.line.last_spans(LAST_SPANS).await;
            if joined.is_ok() && !asked.no_service {
                drop(lock);
                standing::enlist(with, &agent).await;
            }
            return joined.map(|_said| Ended::Said);
        }
        say(asked.output, &joined?)?;
        let ended = session.stay().await.map(|()| Ended::Said);
        drop(lock);
        ended
    };
    match (Box::pin(ended).await, asked.output) {
        (Ok(Ended::Joined(joined)), form) => say(form, &joined).map(|()| ExitCode::SUCCESS),
        (Ok(Ended::Said), _) => Ok(ExitCode::SUCCESS),
        (Err(Failure::Diagnosed { why, trace_id }), Form::Json) => {
            output::say_json(&ResultView::ended(&why, trace_id.as_deref())).map_err(Failure::Output)?;
            Ok(failure::code(why.code().exit()))
        }
        (Err(error), _) => Err(error),
    }
}

/// What the system service runs: joins if need be, then attends and renews.
pub(super) async fn run(with: &Context<'_>, asked: &cli::Run) -> Result<ExitCode, Failure> {
    let agent = Agent::new(with)?;
    let _lock = Lock::take(with.root)?;
    let session = Session::begin(with, &agent, &asked.options, Progress::quiet())?;
    if !matches!(agent.standing()?, Standing::Ready { .. }) {
        session.join().await?;
    }
    let ended = session.stay().await;
    agent.line.last_spans(LAST_SPANS).await;
    ended.map(|()| ExitCode::SUCCESS)
}

enum Ended {
    Joined(Joined),
    Said,
}

/// One process that joins, and perhaps stays.
struct Session<'a> {
    with: &'a Context<'a>,
    agent: &'a Agent,
    token: GivenToken,
    watch: Watch,
    service: Service,
    stop: watch::Receiver<bool>,
}

impl<'a> Session<'a> {
    fn begin(
        with: &'a Context<'a>,
        agent: &'a Agent,
        options: &JoinOptions,
        progress: Progress,
    ) -> Result<Self, Failure> {
        let crash_at = options.crash_at.as_deref();
        let crash_at = crash_at
            .map(|name| CrashPoint::named(name).ok_or(Failure::CrashPoint { given: name.to_owned() }));
        let token = token::of(with, options)?;
        agent.server.save(with.root).map_err(Failure::State)?;
        let service = Service::of_this_process();
        let mut interrupt = Interrupt::listen().map_err(Failure::Runtime)?;
        let (stopping, stop) = watch::channel(false);
        tokio::spawn(async move {
            interrupt.told().await;
            service.stopping();
            stopping.send_replace(true);
            // Who still waits must find the sender there.
            stopping.closed().await;
        });
        tokio::spawn(service.keep_alive());
        Ok(Self {
            with,
            agent,
            token,
            watch: Watch::new(progress, service, crash_at.transpose()?),
            service,
            stop,
        })
    }

    async fn join(&self) -> Result<Joined, Failure> {
        let was_ready = matches!(self.agent.standing()?, Standing::Ready { .. });
        let began = Instant::now();
        let patience = patience(&self.with.settings);
        let world = self.agent.join_world(&self.token, patience, self.stop.clone());
        let ended = Box::pin(join::join(&world, &self.watch)).await;
        self.watch.close();
        match ended {
            Ok(Ready { node, join, expires, resumed, clock_offset, trace_id, .. }) => {
                if let Some(offset) = clock_offset {
                    output::tell(&output::warning(&output::clock(offset)));
                }
                let server = self.agent.server.server.to_string();
                let already = resumed && was_ready;
                Ok(Joined { node, join, server, expires, already, elapsed: began.elapsed(), trace_id })
            }
            Err(why) => Err(Failure::Diagnosed { why: Box::new(why), trace_id: self.watch.trace_id() }),
        }
    }

    /// Attends until told to stop; where attendance ends because the machine
    /// must join again, it does, if it can.
    async fn stay(&self) -> Result<(), Failure> {
        loop {
            let tell = |told: &Told| self.service.told(told);
            let why = attendance::attend(&self.agent.attend_world(&tell, self.stop.clone())).await;
            if why.code() == Code::Interrupted {
                return Ok(());
            }
            if why.code() != Code::CertificateExpired {
                return Err(Failure::diagnosed(why));
            }
            tracing::warn!(%why, "the machine has to join again");
            self.join().await?;
        }
    }
}

/// The join that another process of this agent holds at Ready.
fn already(agent: &Agent) -> Result<Option<Joined>, Failure> {
    let Standing::Ready { node, join, .. } = agent.standing()? else { return Ok(None) };
    let diagnosed = |why: Diagnosis| Failure::diagnosed(why);
    let held =
        agent.vault.credential().map_err(|error| diagnosed(error.into_diagnosis(Phase::Authorization)))?;
    let expires = held.map(|held| held.current.not_after()).filter(|expires| *expires > agent.clock.now());
    let server = agent.server.server.to_string();
    Ok(expires.map(|expires| Joined {
        node,
        join,
        server,
        expires,
        already: true,
        elapsed: Duration::ZERO,
        trace_id: None,
    }))
}

fn say(form: Form, joined: &Joined) -> Result<(), Failure> {
    match form {
        Form::Text => output::say(&output::joined(joined)),
        Form::Json => output::say_json(&ResultView::from(joined)),
    }
    .map_err(Failure::Output)
}
