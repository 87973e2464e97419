//! Connection 2: the words of configuration, registration, attendance and renewal.

use std::time::Duration;

use berth_domain::conversation::{
    AttendFromAgent, AttendFromServer, JoinFromAgent, JoinFromServer, LARGEST_CA_BUNDLE, LONGEST_WORD,
    Renewed,
};
use berth_domain::diagnosis::Diagnosis;
use berth_domain::facts::Arch;
use berth_domain::identity::{Digest, NodeIdentity};
use berth_domain::labels::{Labels, MOST_LABELS};
use berth_domain::profile::{LONGEST_KUBELET_CONFIGURATION, MOST_ENDPOINTS, Profile};
use berth_domain::timestamp::Timestamp;

use crate::bounds::{Field, Malformed};
use crate::enroll::{chain_from_wire, millis};
use crate::facts::{facts_from_wire, facts_to_wire};
use crate::join::v1;
use crate::pods::{network_from_wire, network_to_wire, routes_from_wire, routes_to_wire};
use crate::refusal::{diagnosis_from_wire, diagnosis_to_wire};

/// The most failing checks of one report.
const MOST_FAILING: usize = 16;

/// The longest URL of an API server, in bytes.
const LONGEST_ENDPOINT: usize = 512;

/// What the agent says, for the wire.
#[must_use]
pub fn join_to_server(said: &JoinFromAgent) -> v1::JoinRequest {
    use v1::join_request::Message;
    let message = match said {
        JoinFromAgent::ProfileRequest { agent_version, architecture } => {
            Message::ProfileRequest(v1::ProfileRequest {
                agent_version: agent_version.clone(),
                architecture: architecture.map(|arch| arch.to_string()).unwrap_or_default(),
            })
        }
        JoinFromAgent::Configured { profile } => {
            Message::Configured(v1::Configured { profile_sha256: profile.0.to_vec() })
        }
        JoinFromAgent::Registration(facts) => {
            Message::Registration(v1::Registration { facts: Some(facts_to_wire(facts)) })
        }
        JoinFromAgent::Health(failing) => Message::Health(health_to_wire(failing)),
        JoinFromAgent::GivingUp(why) => {
            Message::GivingUp(v1::GivingUp { diagnosis: Some(diagnosis_to_wire(why)) })
        }
    };
    v1::JoinRequest { message: Some(message) }
}

/// What an agent said.
///
/// # Errors
/// The field that breaks its bounds.
pub fn join_from_agent(wire: v1::JoinRequest) -> Result<JoinFromAgent, Malformed> {
    use v1::join_request::Message;
    Ok(match Field("JoinRequest", "message").there(wire.message)? {
        Message::ProfileRequest(request) => JoinFromAgent::ProfileRequest {
            agent_version: Field("ProfileRequest", "agent_version")
                .text(request.agent_version, LONGEST_WORD)?,
            architecture: architecture_from_wire(request.architecture)?,
        },
        Message::Configured(configured) => JoinFromAgent::Configured {
            profile: Digest(Field("Configured", "profile_sha256").array(&configured.profile_sha256)?),
        },
        Message::Registration(registration) => {
            let facts = Field("Registration", "facts").there(registration.facts)?;
            JoinFromAgent::Registration(Box::new(facts_from_wire(facts)?))
        }
        Message::Health(health) => JoinFromAgent::Health(health_from_wire(health)?),
        Message::GivingUp(why) => JoinFromAgent::GivingUp(diagnosis_from_wire(
            Field("GivingUp", "diagnosis").there(why.diagnosis)?,
        )?),
    })
}

/// What the server says, for the wire.
#[must_use]
pub fn join_to_agent(said: &JoinFromServer) -> v1::JoinResponse {
    use v1::join_response::Message;
    let message = match said {
        JoinFromServer::Profile(profile) => Message::Profile(profile_to_wire(profile)),
        JoinFromServer::ConfigurationRecorded => Message::ConfigurationRecorded(v1::ConfigurationRecorded {}),
        JoinFromServer::Registered => Message::Registered(v1::Registered {}),
        JoinFromServer::Waiting(why) => {
            Message::Waiting(v1::Waiting { diagnosis: Some(diagnosis_to_wire(why)) })
        }
        JoinFromServer::PodRoutes(routes) => Message::PodRoutes(routes_to_wire(routes)),
        JoinFromServer::Ready { since } => Message::Ready(v1::Ready { since_unix_ms: since.millis() }),
    };
    v1::JoinResponse { message: Some(message) }
}

/// What a server said.
///
/// # Errors
/// The field that breaks its bounds.
pub fn join_from_server(wire: v1::JoinResponse) -> Result<JoinFromServer, Malformed> {
    use v1::join_response::Message;
    Ok(match Field("JoinResponse", "message").there(wire.message)? {
        Message::Profile(profile) => JoinFromServer::Profile(Box::new(profile_from_wire(profile)?)),
        Message::ConfigurationRecorded(v1::ConfigurationRecorded {}) => JoinFromServer::ConfigurationRecorded,
        Message::Registered(v1::Registered {}) => JoinFromServer::Registered,
        Message::Waiting(why) => {
            JoinFromServer::Waiting(diagnosis_from_wire(Field("Waiting", "diagnosis").there(why.diagnosis)?)?)
        }
        Message::PodRoutes(routes) => JoinFromServer::PodRoutes(routes_from_wire(&routes)?),
        Message::Ready(ready) => JoinFromServer::Ready { since: Timestamp::from_millis(ready.since_unix_ms) },
    })
}

/// What an attending agent says, for the wire.
#[must_use]
pub fn attend_to_server(said: &AttendFromAgent) -> v1::AttendRequest {
    use v1::attend_request::Message;
    let message = match said {
        AttendFromAgent::Heartbeat => Message::Heartbeat(v1::Heartbeat {}),
        AttendFromAgent::Health(failing) => Message::Health(health_to_wire(failing)),
    };
    v1::AttendRequest { message: Some(message) }
}

/// What an attending agent said.
///
/// # Errors
/// The field that breaks its bounds.
pub fn attend_from_agent(wire: v1::AttendRequest) -> Result<AttendFromAgent, Malformed> {
    use v1::attend_request::Message;
    Ok(match Field("AttendRequest", "message").there(wire.message)? {
        Message::Heartbeat(v1::Heartbeat {}) => AttendFromAgent::Heartbeat,
        Message::Health(health) => AttendFromAgent::Health(health_from_wire(health)?),
    })
}

/// What the server says to an attending agent, for the wire.
#[must_use]
pub fn attend_to_agent(said: &AttendFromServer) -> v1::AttendResponse {
    use v1::attend_response::Message;
    let message = match said {
        AttendFromServer::Terms { heartbeat_interval, server_time } => Message::Terms(v1::Terms {
            heartbeat_interval_ms: millis(*heartbeat_interval),
            server_time_unix_ms: server_time.millis(),
        }),
        AttendFromServer::RenewNow => Message::RenewNow(v1::RenewNow {}),
        AttendFromServer::Draining { return_within } => {
            Message::Draining(v1::Draining { return_within_ms: millis(*return_within) })
        }
        AttendFromServer::PodRoutes(routes) => Message::PodRoutes(routes_to_wire(routes)),
    };
    v1::AttendResponse { message: Some(message) }
}

/// What a server said to an attending agent. Intervals are brought into their
/// bounds: a server cannot make its agents spin or sleep for ever.
///
/// # Errors
/// The field that breaks its bounds.
pub fn attend_from_server(wire: v1::AttendResponse) -> Result<AttendFromServer, Malformed> {
    use v1::attend_response::Message;
    Ok(match Field("AttendResponse", "message").there(wire.message)? {
        Message::Terms(terms) => AttendFromServer::Terms {
            heartbeat_interval: Duration::from_millis(terms.heartbeat_interval_ms.clamp(1_000, 60_000)),
            server_time: Timestamp::from_millis(terms.server_time_unix_ms),
        },
        Message::RenewNow(v1::RenewNow {}) => AttendFromServer::RenewNow,
        Message::Draining(draining) => AttendFromServer::Draining {
            return_within: Duration::from_millis(draining.return_within_ms.min(60_000)),
        },
        Message::PodRoutes(routes) => AttendFromServer::PodRoutes(routes_from_wire(&routes)?),
    })
}

/// A renewal's answer, for the wire.
#[must_use]
pub fn renewed_to_wire(renewed: Renewed) -> v1::RenewResponse {
    v1::RenewResponse { chain: renewed.chain, ca_bundle: renewed.ca_bundle.into_bytes() }
}

/// A renewal's answer.
///
/// # Errors
/// The field that breaks its bounds.
pub fn renewed_from_wire(wire: v1::RenewResponse) -> Result<Renewed, Malformed> {
    Ok(Renewed {
        chain: chain_from_wire(Field("RenewResponse", "chain"), wire.chain)?,
        ca_bundle: Field("RenewResponse", "ca_bundle").utf8(wire.ca_bundle, LARGEST_CA_BUNDLE)?,
    })
}

fn profile_to_wire(profile: &Profile) -> v1::Profile {
    v1::Profile {
        cluster_id: profile.cluster_id.clone(),
        cluster_name: profile.cluster_name.clone(),
        node_name: profile.node.name.to_string(),
        pool: profile.node.pool.to_string(),
        api_endpoints: profile.api_endpoints.clone(),
        ca_bundle: profile.ca_bundle.clone().into_bytes(),
        kubelet_configuration: serde_json::to_string(&profile.kubelet).unwrap_or_else(|_| "{}".to_owned()),
        labels: profile.labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
        taints: profile.taints.iter().map(ToString::to_string).collect(),
        pod_network: network_to_wire(profile.network).into(),
        bundle_sha256: profile.bundle.map(|bundle| bundle.0.to_vec()).unwrap_or_default(),
        kubernetes_version: profile.kubernetes_version.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

/// One that is not known here is as good as none: no bundle can be for it.
fn architecture_from_wire(word: String) -> Result<Option<Arch>, Malformed> {
    let word = Field("ProfileRequest", "architecture").text(word, LONGEST_WORD)?;
    Ok(Arch::ALL.into_iter().find(|arch| arch.as_str() == word))
}

fn profile_from_wire(wire: v1::Profile) -> Result<Profile, Malformed> {
    let field = |name| Field("Profile", name);
    field("api_endpoints").count(wire.api_endpoints.len(), MOST_ENDPOINTS)?;
    for endpoint in &wire.api_endpoints {
        field("api_endpoints").count(endpoint.len(), LONGEST_ENDPOINT)?;
    }
    field("labels").count(wire.labels.len(), MOST_LABELS)?;
    field("taints").count(wire.taints.len(), MOST_LABELS)?;
    let kubelet = wire.kubelet_configuration;
    field("kubelet_configuration").count(kubelet.len(), LONGEST_KUBELET_CONFIGURATION)?;
    let mut labels = Labels::new();
    for (key, value) in &wire.labels {
        labels.insert(field("labels").parse(key)?, field("labels").parse(value)?);
    }
    Ok(Profile {
        cluster_id: field("cluster_id").text(wire.cluster_id, LONGEST_WORD)?,
        cluster_name: field("cluster_name").text(wire.cluster_name, LONGEST_WORD)?,
        node: NodeIdentity {
            name: field("node_name").parse(&wire.node_name)?,
            pool: field("pool").parse(&wire.pool)?,
        },
        api_endpoints: wire.api_endpoints,
        ca_bundle: field("ca_bundle").utf8(wire.ca_bundle, LARGEST_CA_BUNDLE)?,
        kubelet: serde_json::from_str(&kubelet)
            .map_err(|cause| field("kubelet_configuration").invalid(cause))?,
        labels,
        taints: wire.taints.iter().map(|taint| field("taints").parse(taint)).collect::<Result<_, _>>()?,
        network: network_from_wire(wire.pod_network),
        kubernetes_version: match wire.kubernetes_version.as_str() {
            "" => None,
            version => Some(field("kubernetes_version").parse(version)?),
        },
        bundle: match wire.bundle_sha256.as_slice() {
            [] => None,
            digest => Some(Digest(field("bundle_sha256").array(digest)?)),
        },
    })
}

fn health_to_wire(failing: &[Diagnosis]) -> v1::Health {
    v1::Health { failing: failing.iter().take(MOST_FAILING).map(diagnosis_to_wire).collect() }
}

fn health_from_wire(wire: v1::Health) -> Result<Vec<Diagnosis>, Malformed> {
    Field("Health", "failing").count(wire.failing.len(), MOST_FAILING)?;
    wire.failing.into_iter().map(diagnosis_from_wire).collect()
}
