//! One join on the server's side: the driver that sequences the five phases and
//! the lines they speak over. It decides nothing. Connection 1 ([`enroll`]) and
//! connection 2 ([`complete`]) may end at different servers: nothing is
//! remembered between them but what the ports keep.

pub mod initialization;
pub mod authentication;
pub mod authorization;
pub mod configuration;
pub mod registration;

use std::net::IpAddr;
use std::time::Instant;

use async_trait::async_trait;
use berth_domain::conversation::{
    EnrollFromAgent, EnrollFromServer, Hello, Issued, JoinFromAgent, JoinFromServer, OutOfOrder,
};
use berth_domain::diagnosis::{Code, Diagnosis, Retry};
use berth_domain::identity::Digest;
use berth_domain::join::{Event, JoinId, Origin};
use berth_domain::name::NodeName;
use berth_domain::phase::Phase;
use berth_domain::proof::ChannelBinding;
use berth_telemetry::metrics::Metrics;
use berth_telemetry::phase::{Coded, Finished, Outcome, watched};
use berth_telemetry::propagation::trace_id;

use self::authorization::Member;
use self::initialization::Heard;
use crate::policy::Policy;
use crate::ports::{Clock, Cluster, PortError, Profiles, Registry, Signer, Software, Trust};

/// All that a join can touch.
pub struct World<'a> {
    /// What the server keeps.
    pub cluster: &'a dyn Cluster,
    /// The profiles of nodes.
    pub profiles: &'a dyn Profiles,
    /// The software of nodes.
    pub software: &'a dyn Software,
    /// The cluster's own Nodes.
    pub registry: &'a dyn Registry,
    /// What issues certificates.
    pub signer: &'a dyn Signer,
    /// Whom machines are told to trust.
    pub trust: &'a dyn Trust,
    /// What time it is.
    pub clock: &'a dyn Clock,
    /// The operator's rules.
    pub policy: &'a Policy,
    /// How many joins may be under way.
    pub admission: &'a initialization::Admission,
    /// What the server says of itself.
    pub cluster_id: &'a str,
    /// Makes answers for unknown tokens that look like those for known ones.
    pub decoys: &'a authentication::Decoys,
    /// What is counted.
    pub metrics: &'a Metrics,
}

/// Connection 1, as the phases speak over it. What is heard and said goes into
/// the transcript as it stood on the wire.
#[async_trait]
pub trait EnrollLine: Send {
    /// The agent's next message, within the step's deadline.
    async fn hear(&mut self) -> Result<EnrollFromAgent, Ending>;

    /// Says something to the agent.
    async fn say(&mut self, said: EnrollFromServer) -> Result<(), Ending>;

    /// The transcript so far.
    fn transcript(&self) -> Digest;

    /// This end's view of the channel.
    fn channel(&self) -> &ChannelBinding;

    /// The agent's address and trace, for limits and the record.
    fn caller(&self) -> Caller;

    /// The agent has proved itself: it no longer counts among the strangers.
    fn proved(&self);
}

/// Connection 2's first stream, as the phases speak over it.
#[async_trait]
pub trait JoinLine: Send {
    /// The agent's next message, within the step's deadline; may be dropped and
    /// asked again without loss.
    async fn hear(&mut self) -> Result<JoinFromAgent, Ending>;

    /// Says something to the agent.
    async fn say(&mut self, said: JoinFromServer) -> Result<(), Ending>;

    /// Where the line comes from, as this server's listener sees it.
    fn from(&self) -> IpAddr;
}

/// Who calls, for limits and the record: never for identity.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The agent's address.
    pub address: IpAddr,
    /// The trace it is part of.
    pub trace_id: Option<String>,
}

/// How a conversation ended before its goal.
#[derive(Debug)]
pub enum Ending {
    /// The server says no, or not now.
    Refused(Box<Diagnosis>),
    /// The agent stopped and said why.
    GaveUp(Box<Diagnosis>),
    /// The line was lost.
    Gone,
}

impl Ending {
    fn from_port(error: PortError, phase: Phase, clock: &dyn Clock) -> Self {
        Self::Refused(Box::new(error.into_diagnosis(phase, clock.now())))
    }

    fn out_of_order(wrong: OutOfOrder, phase: Phase) -> Self {
        Self::Refused(Box::new(wrong.into_diagnosis(phase)))
    }
}

impl From<Diagnosis> for Ending {
    fn from(why: Diagnosis) -> Self {
        Self::Refused(Box::new(why))
    }
}

impl Coded for Ending {
    fn code(&self) -> Code {
        match self {
            Self::Refused(why) | Self::GaveUp(why) => why.code(),
            Self::Gone => Code::AgentLost,
        }
    }

    fn outcome(&self) -> Outcome {
        match self {
            Self::Refused(why) if why.when_to_retry() != Retry::Never => Outcome::Waiting,
            Self::Refused(why) => why.outcome(),
            Self::GaveUp(_) => Outcome::Cancelled,
            Self::Gone => Outcome::Failed,
        }
    }
}

/// Connection 1: initialization, authentication, authorization.
///
/// # Errors
/// How it ended before a certificate was issued; recorded by then.
pub async fn enroll(world: &World<'_>, line: &mut dyn EnrollLine) -> Result<Issued, Ending> {
    let began = Instant::now();
    let mut heard = None;
    let ended = phases_of_enroll(world, line, &mut heard).await;
    if let (Err(ending), Some(Heard { hello, .. })) = (&ended, &heard) {
        let origin = origin_of(hello, &line.caller());
        let join = JoinId::of(&hello.token, hello.key);
        record_ending(world, join, None, Some(origin), ending).await;
        let trace = line.caller().trace_id;
        world.metrics.join_finished(ending.outcome(), Some(ending.code()), began.elapsed(), trace.as_deref());
    }
    ended
}

async fn phases_of_enroll(
    world: &World<'_>,
    line: &mut dyn EnrollLine,
    heard: &mut Option<Heard>,
) -> Result<Issued, Ending> {
    let admitted =
        counted(world, Phase::Initialization, initialization::run(line, world.admission, heard, world.clock))
            .await?;
    let authenticated = counted(
        world,
        Phase::Authentication,
        authentication::run(line, admitted, world.cluster, world, world.clock),
    )
    .await?;
    // The record tells of it now.
    if let Some(heard) = heard {
        heard.turn = None;
    }
    counted(world, Phase::Authorization, authorization::run(line, authenticated, world)).await
}

/// Connection 2: configuration and registration, until the Node is Ready.
///
/// # Errors
/// How it ended before that; recorded by then.
pub async fn complete(world: &World<'_>, line: &mut dyn JoinLine, member: &Member) -> Result<(), Ending> {
    let began = Instant::now();
    let ended = async {
        let configured =
            counted(world, Phase::Configuration, configuration::run(line, member, world)).await?;
        counted(world, Phase::Registration, registration::run(line, configured, world)).await
    }
    .await;
    let (outcome, code) = match &ended {
        Ok(()) => (Outcome::Ok, None),
        Err(ending) => {
            let node = &member.node().identity.name;
            record_ending(world, member.node().join, Some(node), None, ending).await;
            (ending.outcome(), Some(ending.code()))
        }
    };
    let trace = trace_id(&tracing::Span::current());
    world.metrics.join_finished(outcome, code, began.elapsed(), trace.as_deref());
    ended
}

/// Runs a phase in its span; the join counts as within it meanwhile.
async fn counted<T>(
    world: &World<'_>,
    phase: Phase,
    work: impl Future<Output = Result<T, Ending>>,
) -> Result<T, Ending> {
    let _within = world.metrics.in_flight(phase);
    watched(phase, work, |Finished { phase, outcome, elapsed, trace_id, .. }| {
        world.metrics.phase_finished(*phase, *outcome, *elapsed, trace_id.as_deref());
    })
    .await
}

fn origin_of(hello: &Hello, caller: &Caller) -> Origin {
    Origin {
        token: hello.token.clone(),
        source: caller.address.to_string(),
        agent_version: hello.agent_version.clone(),
        trace_id: caller.trace_id.clone(),
    }
}

async fn record_ending(
    world: &World<'_>,
    join: JoinId,
    node: Option<&NodeName>,
    origin: Option<Origin>,
    ending: &Ending,
) {
    let event = match ending {
        Ending::Refused(why) if why.when_to_retry() != Retry::Never => {
            Event::Waiting { why: (**why).clone() }
        }
        Ending::Refused(why) => Event::Refused { origin, why: (**why).clone() },
        Ending::GaveUp(why) => Event::GaveUp { why: (**why).clone() },
        Ending::Gone => {
            let Ok(Some(record)) = world.cluster.join(join).await else { return };
            let why = Diagnosis::new(Code::AgentLost, record.phase)
                .with("step", format!("the join was in its {}", record.phase));
            Event::Waiting { why }
        }
    };
    if let Err(error) = world.cluster.record(join, node, event, world.clock.now()).await {
        let why = error.into_diagnosis(Phase::Registration, world.clock.now());
        tracing::warn!(join = %join, %why, "the end of a join was not recorded");
    }
}
