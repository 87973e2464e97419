//! The join listener's own certificate: issued by the server's CA, for names
//! from configuration only, replaced long before it ends.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use berth_domain::timestamp::Timestamp;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_util::sync::CancellationToken;

use crate::listener::{Credentials, ServerTls};
use crate::ports::Clock;
use crate::signer::local::LocalSigner;

/// How long a serving certificate is good.
const VALIDITY: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long before its end it is replaced.
const AHEAD: Duration = Duration::from_secs(10 * 24 * 3600);

/// Between two looks at its age.
const LOOK: Duration = Duration::from_secs(3600);

/// The listener's certificate and how it is renewed.
pub(super) struct Serving {
    signer: Arc<LocalSigner>,
    names: Vec<String>,
    tls: Arc<ServerTls>,
    not_after: Mutex<Timestamp>,
}

impl Serving {
    pub(super) fn new(signer: Arc<LocalSigner>, names: Vec<String>, now: Timestamp) -> anyhow::Result<Self> {
        let (credentials, not_after) = issue(&signer, &names, now)?;
        let tls = ServerTls::new(credentials).context("taking the serving certificate into use")?;
        Ok(Self { signer, names, tls: Arc::new(tls), not_after: Mutex::new(not_after) })
    }

    pub(super) fn tls(&self) -> Arc<ServerTls> {
        Arc::clone(&self.tls)
    }

    fn replace(&self, now: Timestamp) -> anyhow::Result<()> {
        let (credentials, not_after) = issue(&self.signer, &self.names, now)?;
        self.tls.reload(credentials).context("taking the serving certificate into use")?;
        *self.not_after.lock().unwrap_or_else(PoisonError::into_inner) = not_after;
        Ok(())
    }

    fn is_due(&self, now: Timestamp) -> bool {
        self.not_after.lock().unwrap_or_else(PoisonError::into_inner).before(AHEAD) <= now
    }
}

/// Replaces the certificate when it is due. Runs until `end`.
pub(super) async fn keep_fresh(serving: Arc<Serving>, clock: Arc<dyn Clock>, end: CancellationToken) {
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        if !serving.is_due(clock.now()) {
            continue;
        }
        if let Err(error) = serving.replace(clock.now()) {
            tracing::warn!(error = format!("{error:#}"), "the serving certificate was not replaced");
        }
    }
}

fn issue(signer: &LocalSigner, names: &[String], now: Timestamp) -> anyhow::Result<(Credentials, Timestamp)> {
    let issued = signer.issue_server(names, VALIDITY, now).context("issuing the serving certificate")?;
    let mut chain = issued.chain;
    // The CA goes along, so that a pin can be compared before anything is said.
    chain.push(signer.ca_der().clone());
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(issued.key.to_vec()));
    let credentials = Credentials { chain, key, client_roots: vec![signer.ca_der().clone()] };
    Ok((credentials, issued.not_after))
}
