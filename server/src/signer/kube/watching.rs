//! One watch over the requests for our signer, and those who wait for one of them. It
//! keeps no object: what nobody waits for is passed over.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::Api;
use kube::runtime::watcher::{self, Event};
use tokio::sync::watch;
use tokio::time::Instant;

use super::request::{SIGNER, Verdict, verdict};
use crate::kubernetes::Failure;
use crate::kubernetes::watch::{Listener, listen};

type Waiters = Arc<Mutex<HashMap<String, Vec<watch::Sender<Option<CertificateSigningRequest>>>>>>;

/// The watch.
pub(super) struct Watching {
    waiters: Waiters,
    /// What keeps the watch from being made, where a person must mend it.
    trouble: watch::Sender<Option<Failure>>,
}

/// What becomes of one request.
pub(super) struct Answers {
    name: String,
    waiters: Waiters,
    answer: watch::Receiver<Option<CertificateSigningRequest>>,
    trouble: watch::Receiver<Option<Failure>>,
}

impl Default for Watching {
    fn default() -> Self {
        Self { waiters: Arc::default(), trouble: watch::Sender::new(None) }
    }
}

impl Watching {
    /// Watches for ever; a watch that ends begins again, with a growing pause.
    pub(super) async fn run(&self, requests: &Api<CertificateSigningRequest>) {
        let config = watcher::Config::default().fields(&format!("spec.signerName={SIGNER}"));
        listen(requests.clone(), config, &mut Hearing { watching: self, barred_since: None }).await;
    }

    /// Begins to listen for one request.
    pub(super) fn listen(&self, name: &str) -> Answers {
        let (sender, answer) = watch::channel(None);
        lock(&self.waiters).entry(name.to_owned()).or_default().push(sender);
        Answers {
            name: name.to_owned(),
            waiters: Arc::clone(&self.waiters),
            answer,
            trouble: self.trouble.subscribe(),
        }
    }

    fn tell(&self, request: CertificateSigningRequest) {
        let waiters = lock(&self.waiters);
        let Some(of_name) = request.metadata.name.as_ref().and_then(|name| waiters.get(name)) else { return };
        // Its own creation and approval are known to who waits.
        if matches!(verdict(&request), Verdict::Submitted | Verdict::Approved { .. }) {
            return;
        }
        for waiter in of_name {
            waiter.send_replace(Some(request.clone()));
        }
    }
}

/// The one who listens, for all that wait.
struct Hearing<'a> {
    watching: &'a Watching,
    barred_since: Option<Instant>,
}

impl Listener<CertificateSigningRequest> for Hearing<'_> {
    fn told(&mut self, event: Event<CertificateSigningRequest>) {
        if let Event::Apply(request) | Event::InitApply(request) = event {
            self.watching.tell(request);
        }
    }

    fn stands(&mut self) {
        self.barred_since = None;
        self.watching.trouble.send_if_modified(|trouble| trouble.take().is_some());
    }

    fn failed(&mut self, why: Failure) {
        tracing::debug!(%why, "the watch over certificate requests begins again");
        let is_final = matches!(why, Failure::Forbidden(_) | Failure::Unauthorized { .. });
        self.barred_since = is_final.then(|| self.barred_since.unwrap_or_else(Instant::now));
        let lasts = self.barred_since.is_some_and(|since| since.elapsed() >= READS_ITS_RIGHTS);
        if lasts && self.watching.trouble.borrow().as_ref() != Some(&why) {
            tracing::warn!(error = %why, "certificate requests may not be watched");
        }
        self.watching.trouble.send_replace(lasts.then_some(why));
    }
}

impl Answers {
    /// The request once it was decided.
    ///
    /// # Errors
    /// Nothing can be watched until a person has mended it.
    pub(super) async fn next(&mut self) -> Result<CertificateSigningRequest, Failure> {
        loop {
            if let Some(answer) = self.answer.borrow_and_update().clone() {
                return Ok(answer);
            }
            if let Some(failure) = self.trouble.borrow_and_update().clone() {
                return Err(failure);
            }
            tokio::select! {
                changed = self.answer.changed() => if changed.is_err() { std::future::pending::<()>().await },
                changed = self.trouble.changed() => if changed.is_err() { std::future::pending::<()>().await },
            }
        }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        // A receiver that is dropped: its sender, and those of others that have gone.
        let (_, nobody) = watch::channel(None);
        drop(std::mem::replace(&mut self.answer, nobody));
        let mut waiters = lock(&self.waiters);
        if let Some(of_name) = waiters.get_mut(&self.name) {
            of_name.retain(|sender| !sender.is_closed());
            if of_name.is_empty() {
                waiters.remove(&self.name);
            }
        }
    }
}

fn lock(
    waiters: &Mutex<HashMap<String, Vec<watch::Sender<Option<CertificateSigningRequest>>>>>,
) -> MutexGuard<'_, HashMap<String, Vec<watch::Sender<Option<CertificateSigningRequest>>>>> {
    waiters.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An API server that starts answers before it has read who may do what.
const READS_ITS_RIGHTS: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::super::request;
    use super::*;

    #[tokio::test]
    async fn an_answer_that_comes_before_it_is_waited_for_is_not_missed_and_nothing_is_kept() {
        let watching = Watching::default();
        let mut answers = watching.listen("berth-x");
        let twin = watching.listen("berth-x");
        watching.tell(request::tests_denied("berth-y"));
        watching.tell(request::tests_denied("berth-x"));
        let told = answers.next().await.expect("an answer");
        assert_eq!(told.metadata.name.as_deref(), Some("berth-x"));
        drop(answers);
        assert_eq!(lock(&watching.waiters).len(), 1, "its twin waits on");
        drop(twin);
        assert!(lock(&watching.waiters).is_empty());
    }

    #[tokio::test]
    async fn who_waits_hears_that_nothing_may_be_watched() {
        let watching = Watching::default();
        let mut answers = watching.listen("berth-x");
        watching.trouble.send_replace(Some(Failure::Unauthorized { message: "who?".to_owned() }));
        assert!(matches!(answers.next().await, Err(Failure::Unauthorized { .. })));
    }
}
