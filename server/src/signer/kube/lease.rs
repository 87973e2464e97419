//! How kube-controller-manager stands, by its lease: looked at when something is
//! stuck, once for all that wait.

use std::time::Duration;

use berth_domain::timestamp::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::{Api, Client};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::kubernetes::{Failure, within};

/// Where kube-controller-manager elects its leader, and under which name.
const NAMESPACE: &str = "kube-system";
const NAME: &str = "kube-controller-manager";

/// How long a look is good.
const FRESH: Duration = Duration::from_secs(3);

/// Its own default (`--leader-elect-lease-duration`).
const USUAL_SECONDS: i32 = 15;

/// The look at kube-controller-manager.
pub(super) struct Controller {
    leases: Api<Lease>,
    last: Mutex<Option<(Instant, Seen)>>,
}

/// How it stands, and what helps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) stands: String,
    pub(super) remedy: &'static str,
}

impl Controller {
    pub(super) fn new(client: Client) -> Self {
        Self { leases: Api::namespaced(client, NAMESPACE), last: Mutex::new(None) }
    }

    /// One call for all that ask at the same time.
    pub(super) async fn look(&self, now: Timestamp) -> Seen {
        let mut last = self.last.lock().await;
        if let Some((at, seen)) = &*last
            && at.elapsed() < FRESH
        {
            return seen.clone();
        }
        let seen = match within(self.leases.get(NAME)).await {
            Ok(lease) => of_lease(&lease.spec.unwrap_or_default(), now),
            Err(Failure::NotFound { .. }) => Seen {
                stands: "kube-controller-manager has no lease in kube-system: it does not run".to_owned(),
                remedy: START,
            },
            Err(failure) => {
                Seen { stands: format!("its lease in kube-system cannot be read: {failure}"), remedy: EITHER }
            }
        };
        *last = Some((Instant::now(), seen.clone()));
        seen
    }
}

fn of_lease(lease: &LeaseSpec, now: Timestamp) -> Seen {
    let holder = lease.holder_identity.as_deref().unwrap_or("nobody");
    let lasts = lease.lease_duration_seconds.unwrap_or(USUAL_SECONDS);
    let renewed = lease.renew_time.as_ref().map(|at| Timestamp::from_millis(at.0.as_millisecond()));
    let Some(renewed) = renewed else {
        return Seen {
            stands: format!("kube-controller-manager's lease is held by {holder} and was never renewed"),
            remedy: START,
        };
    };
    let lasts = Duration::from_secs(u64::try_from(lasts).unwrap_or(0));
    if now.since(renewed) > lasts {
        return Seen {
            stands: format!(
                "kube-controller-manager does not run: its lease was held by {holder} and last renewed at {renewed}"
            ),
            remedy: START,
        };
    }
    Seen {
        stands: format!(
            "kube-controller-manager runs, with the lease held by {holder} and renewed at {renewed}, and does not sign"
        ),
        remedy: SIGN,
    }
}

const START: &str =
    "start kube-controller-manager (kubectl -n kube-system get lease kube-controller-manager)";
const SIGN: &str = "let kube-controller-manager sign: its controller csrsigning on, and --cluster-signing-cert-file and --cluster-signing-key-file set";
const EITHER: &str = "see that kube-controller-manager runs and signs (kubectl -n kube-system get lease kube-controller-manager)";

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
    use k8s_openapi::jiff;

    use super::*;

    #[test]
    fn a_lease_tells_whether_its_holder_lives() {
        let now = Timestamp::from_millis(1_790_000_000_000);
        let renewed = |ago: i64| LeaseSpec {
            holder_identity: Some("cp-1_abc".to_owned()),
            lease_duration_seconds: Some(15),
            renew_time: Some(MicroTime(
                jiff::Timestamp::from_millisecond(now.millis() - ago * 1000).expect("a time"),
            )),
            ..LeaseSpec::default()
        };
        assert_eq!(of_lease(&renewed(3), now).remedy, SIGN);
        let dead = of_lease(&renewed(60), now);
        assert_eq!(dead.remedy, START);
        assert!(
            dead.stands.contains("cp-1_abc") && dead.stands.contains("last renewed at"),
            "{}",
            dead.stands
        );
        assert_eq!(of_lease(&LeaseSpec::default(), now).remedy, START);
    }
}
