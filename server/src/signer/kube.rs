//! The cluster's own signer: a request becomes a CertificateSigningRequest of
//! `kubernetes.io/kube-apiserver-client-kubelet`, approved here and signed by
//! kube-controller-manager. Its name follows from node and key, so that a repeated
//! request finds its first (I8). All that wait share one watch.

mod authority;
mod lease;
mod request;
mod watching;

use std::sync::Arc;
use std::time::Duration;

use ::kube::Api;
use ::kube::Client;
use ::kube::api::PostParams;
use async_trait::async_trait;
use berth_domain::diagnosis::{Code, Diagnosis, Retry};
use berth_domain::phase::Phase;
use berth_domain::timestamp::Timestamp;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

pub use authority::{Authority, NoAuthority};
pub use request::{LONGEST_SKEW, SHORTEST_LIFETIME};

use self::lease::Controller;
use self::request::{Found, Verdict, Wanted};
use self::watching::{Answers, Watching};
use crate::join::authorization::Authorized;
use crate::kubernetes::{Failure, part, within};
use crate::outage::Outage;
use crate::ports::{Answer, Clock, Hold, PortError, SignedCertificate, Signer, Takes};

/// How long a certificate usually takes, at most; then the machine hears why it waits.
const USUAL: Duration = Duration::from_secs(4);

/// Between two words to a machine that waits.
const REMINDER: Duration = Duration::from_secs(15);

/// How long one attempt waits: less than [`LONGEST_SKEW`], or what is signed at
/// last would outlive what was authorized at first.
const PATIENCE: Duration = Duration::from_secs(120);

/// How many requests of one node and key there may be, and how often an approval is
/// tried that somebody's change got in the way of.
const ATTEMPTS: u32 = 5;

/// The signer.
pub struct KubeSigner {
    requests: Api<CertificateSigningRequest>,
    client: Client,
    clock: Arc<dyn Clock>,
    account: OnceCell<String>,
    authority: Authority,
    watching: Watching,
    controller: Controller,
    outage: Outage,
}

impl KubeSigner {
    /// A signer that watches once [`KubeSigner::run`] does.
    #[must_use]
    pub fn new(client: Client, authority: Authority, clock: Arc<dyn Clock>) -> Self {
        Self {
            requests: Api::all(client.clone()),
            controller: Controller::new(client.clone()),
            client,
            clock,
            account: OnceCell::new(),
            authority,
            watching: Watching::default(),
            outage: Outage::default(),
        }
    }

    /// Watches the requests and the CA until `end`.
    pub async fn run(&self, end: CancellationToken) {
        tokio::select! {
            () = end.cancelled() => {}
            () = self.watching.run(&self.requests) => {}
            () = self.authority.keep_fresh() => {}
        }
    }

    /// The request in the cluster: made now, or found as it was made before.
    async fn submitted(
        &self,
        authorized: &Authorized,
        now: Timestamp,
    ) -> Answer<(Wanted, Answers, CertificateSigningRequest)> {
        for attempt in 1..=ATTEMPTS {
            let wanted = Wanted::new(authorized, attempt, now);
            // Listened to before it is there: no answer is missed.
            let answers = self.watching.listen(&wanted.name);
            let made = within(self.requests.create(&PostParams::default(), &wanted.object())).await;
            let request = match made {
                Ok(request) => {
                    self.outage.succeeded();
                    if let Some(account) = request::account(&request) {
                        // Set already, most likely.
                        let _ = self.account.set(account);
                    }
                    request
                }
                Err(Failure::AlreadyExists) => {
                    let found = self.found(&wanted.name).await?;
                    match wanted.judge(&found, self.account().await?, now) {
                        Found::Ours => found,
                        Found::Over => continue,
                        Found::Foreign { how } => return Err(foreign(&wanted.name, &how).into()),
                    }
                }
                Err(failure) => self.told("submit a certificate request", Err(failure))?,
            };
            return Ok((wanted, answers, request));
        }
        let error = "its earlier requests for this key all ended, and the cluster keeps them for an hour";
        Err(unavailable(error).retry(Retry::After(Duration::from_secs(60))).into())
    }

    /// An answer of the API server, or since when there is none.
    fn told<T>(&self, operation: &'static str, answer: Result<T, Failure>) -> Answer<T> {
        match answer {
            Ok(answer) => {
                self.outage.succeeded();
                Ok(answer)
            }
            // It is back, and has not read its rights yet.
            Err(failure @ Failure::Forbidden(_)) if self.outage.is_recent() => {
                let lasting = self.outage.lasting().unwrap_or_default();
                Err(PortError::Unavailable { operation, cause: Box::new(failure), lasting })
            }
            Err(failure) => {
                let is_away = matches!(failure, Failure::Unreachable { .. });
                let lasting = if is_away { self.outage.failed() } else { Duration::ZERO };
                Err(failure.into_port(operation, Phase::Authorization, lasting))
            }
        }
    }

    async fn found(&self, name: &str) -> Answer<CertificateSigningRequest> {
        self.told("read its certificate request", within(self.requests.get(name)).await)
    }

    /// Who this process is to the API server.
    async fn account(&self) -> Answer<&str> {
        let ask = async {
            let reviews: Api<SelfSubjectReview> = Api::all(self.client.clone());
            let review = within(reviews.create(&PostParams::default(), &SelfSubjectReview::default())).await;
            let said = self.told("ask the API server who it is", review)?;
            let user = said.status.and_then(|status| status.user_info).and_then(|user| user.username);
            Ok::<_, PortError>(user.unwrap_or_default())
        };
        self.account.get_or_try_init(|| ask).await.map(String::as_str)
    }

    /// Approves exactly this request, and no other that has come to its name.
    async fn approved(
        &self,
        wanted: &Wanted,
        mut request: CertificateSigningRequest,
        now: Timestamp,
    ) -> Answer<CertificateSigningRequest> {
        for _ in 0..ATTEMPTS {
            if request::verdict(&request) != Verdict::Submitted {
                return Ok(request);
            }
            let approval = wanted.approval(request);
            let said = within(self.requests.replace_subresource(
                "approval",
                &wanted.name,
                &PostParams::default(),
                &approval,
            ))
            .await;
            match said {
                Ok(approved) => return Ok(approved),
                // Somebody has touched it: what it is now is looked at again.
                Err(Failure::Conflict) => {}
                Err(failure) => return self.told("approve a certificate request", Err(failure)),
            }
            request = self.found(&wanted.name).await?;
            match wanted.judge(&request, self.account().await?, now) {
                Found::Ours => {}
                Found::Over => return Err(unavailable("its request ended meanwhile").into()),
                Found::Foreign { how } => return Err(foreign(&wanted.name, &how).into()),
            }
        }
        Err(unavailable("its request is changed by somebody again and again").into())
    }

    /// Waits for the certificate on the watch that all share.
    async fn certificate(
        &self,
        authorized: &Authorized,
        mut request: CertificateSigningRequest,
        mut answers: Answers,
        hold: &Hold,
    ) -> Answer<SignedCertificate> {
        let began = Instant::now();
        let deadline = began + jittered(PATIENCE);
        let mut next_word = began + jittered(USUAL);
        loop {
            let since = match request::verdict(&request) {
                Verdict::Issued { chain } => return Ok(SignedCertificate { chain }),
                Verdict::Denied { by, message } => {
                    let name = request.metadata.name.unwrap_or_default();
                    return Err(Diagnosis::new(Code::ApprovalDenied, Phase::Authorization)
                        .with("join", authorized.join())
                        .with_private("by", by)
                        .with_private(
                            "reason",
                            format!("the CertificateSigningRequest {name} is denied: {message}"),
                        )
                        .into());
                }
                Verdict::Failed { message } => {
                    let name = request.metadata.name.unwrap_or_default();
                    return Err(unavailable(&format!("the signer refuses the request {name}: {message}"))
                        .with("remedy", format!("kubectl delete certificatesigningrequest {name}"))
                        .into());
                }
                Verdict::Approved { since } => since.unwrap_or_else(|| self.clock.now()),
                Verdict::Submitted => self.clock.now(),
            };
            tokio::select! {
                biased;
                answer = answers.next() => request = self.told("watch its certificate requests", answer)?,
                () = sleep_until(deadline) => return Err(self.stuck(&request, since).await.into()),
                () = sleep_until(next_word) => {
                    hold.send_replace(Some(self.stuck(&request, since).await));
                    next_word = Instant::now() + jittered(REMINDER);
                }
            }
        }
    }

    /// Approved, and nothing signs it (row 38): who ought to.
    async fn stuck(&self, request: &CertificateSigningRequest, since: Timestamp) -> Diagnosis {
        let controller = self.controller.look(self.clock.now()).await;
        Diagnosis::new(Code::SignerUnavailable, Phase::Authorization)
            .with("csr", request.metadata.name.as_deref().unwrap_or_default())
            .with("since", since)
            .with("holder", &controller.stands)
            .with("remedy", controller.remedy)
    }
}

#[async_trait]
impl Signer for KubeSigner {
    async fn sign(&self, authorized: &Authorized, hold: &Hold) -> Answer<SignedCertificate> {
        let now = self.clock.now();
        let (wanted, answers, request) = self.submitted(authorized, now).await?;
        let request = self.approved(&wanted, request, now).await?;
        self.certificate(authorized, request, answers, hold).await
    }

    fn takes(&self) -> Takes {
        Takes::Request
    }

    fn ca_bundle(&self) -> Arc<str> {
        self.authority.bundle()
    }
}

fn unavailable(error: &str) -> Diagnosis {
    Diagnosis::new(Code::SignerUnavailable, Phase::Authorization).with("error", error)
}

fn foreign(name: &str, how: &str) -> Diagnosis {
    unavailable(&format!("there is a CertificateSigningRequest {name} that is not the server's: {how}"))
        .with("remedy", format!("kubectl delete certificatesigningrequest {name}"))
}

/// Up to half as long again, so that joins that wait together do not ask together.
fn jittered(wait: Duration) -> Duration {
    wait + part(wait / 2)
}
