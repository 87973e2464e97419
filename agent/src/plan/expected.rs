//! What a node's programs are expected to reach once they run.

use berth_domain::facts::HostFacts;
use berth_domain::profile::Profile;

use super::kubelet::runtime_socket;
use super::runtime::pause_image;
use super::{CONTAINERD, Installed, Plan, SOCKET};

/// What is looked at while a node's programs run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The runtime's socket.
    pub socket: String,
    /// The image that every pod begins with, where Berth has set the runtime up.
    pub pause_image: Option<String>,
    /// The API server that the kubelet speaks to: `https://host:port`.
    pub api: Option<String>,
}

impl Default for Expected {
    fn default() -> Self {
        Self { socket: SOCKET.to_owned(), pause_image: None, api: None }
    }
}

/// What is to be expected of a node of this profile once `plan` stands.
#[must_use]
pub fn expected(profile: &Profile, facts: &HostFacts, installed: &Installed, plan: &Plan) -> Expected {
    let runs_own = plan.units().any(|unit| unit.name() == CONTAINERD);
    Expected {
        socket: runtime_socket(profile, facts),
        pause_image: runs_own.then(|| pause_image(installed).to_owned()),
        api: profile.api_endpoints.first().cloned(),
    }
}
