//! The join listener's own certificate: issued by the server's own CA for names
//! from configuration only and replaced long before it ends, or read from files and
//! again whenever they change. The CAs that may vouch for nodes go with it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use berth_domain::identity::SpkiHash;
use berth_domain::timestamp::Timestamp;
use berth_telemetry::metrics::{Certificate, Metrics};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::settings::ServingFiles;
use crate::listener::{Credentials, ServerTls};
use crate::ports::{Clock, Signer};
use crate::signer::local::LocalSigner;
use crate::trust::Bundles;
use crate::watched::{Stamps, look_until, read};

/// How long a serving certificate is good.
const VALIDITY: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long before its end it is replaced.
const AHEAD: Duration = Duration::from_secs(10 * 24 * 3600);

/// Where the certificate comes from.
pub(super) enum Source {
    /// The server's own CA issues it.
    Own(Arc<LocalSigner>),
    /// Others keep it.
    Files(ServingFiles),
}

/// The listener's certificate and how it is renewed.
pub(super) struct Serving {
    source: Source,
    names: Vec<String>,
    signer: Arc<dyn Signer>,
    bundles: Arc<Bundles>,
    tls: Arc<ServerTls>,
    pin: watch::Sender<SpkiHash>,
    served: Mutex<Served>,
}

/// What is in force, and what it was made from.
struct Served {
    not_after: Timestamp,
    stamps: Stamps,
    /// Whose certificates are believed.
    roots: Arc<str>,
    /// The last files were no good, and this was told.
    is_bad: bool,
}

/// A certificate that can be served with.
struct Loaded {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    not_after: Timestamp,
    /// What machines trust, PEM.
    ca: Arc<str>,
    /// What tokens pin.
    pin: SpkiHash,
}

impl Serving {
    pub(super) fn new(
        source: Source,
        names: Vec<String>,
        signer: Arc<dyn Signer>,
        bundles: Arc<Bundles>,
        now: Timestamp,
    ) -> anyhow::Result<Self> {
        let (stamps, roots) = (source.stamps(), signer.ca_bundle());
        let loaded = source.load(&names, now)?;
        let served = Served { not_after: loaded.not_after, stamps, roots, is_bad: false };
        bundles.serve_by(Arc::clone(&loaded.ca));
        let pin = watch::Sender::new(loaded.pin);
        let tls = ServerTls::new(credentials(loaded, &served.roots)).context(TAKING)?;
        Ok(Self { source, names, signer, bundles, tls: Arc::new(tls), pin, served: Mutex::new(served) })
    }

    pub(super) fn tls(&self) -> Arc<ServerTls> {
        Arc::clone(&self.tls)
    }

    /// What tokens pin, whenever it changes.
    pub(super) fn pin(&self) -> watch::Receiver<SpkiHash> {
        self.pin.subscribe()
    }

    /// Says when the listener's certificate ends, and the last of the nodes' CAs: older
    /// ones stay in the bundle while they are replaced.
    pub(super) fn tell(&self, metrics: &Metrics) {
        let served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        metrics.certificate_expires(Certificate::Serving, served.not_after.into());
        let roots = CertificateDer::pem_slice_iter(served.roots.as_bytes()).flatten();
        let ends = roots.filter_map(|der| Some(parse(&der).ok()?.validity().not_after.timestamp()));
        if let Some(last) = ends.max() {
            let last = Timestamp::from_millis(last.saturating_mul(1000));
            metrics.certificate_expires(Certificate::Ca, last.into());
        }
    }

    /// Takes what has changed into use; what is no good is told once, and the last
    /// good certificate stays.
    pub(super) fn look(&self, now: Timestamp) {
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        let (stamps, roots) = (self.source.stamps(), self.signer.ca_bundle());
        let is_new = stamps != served.stamps;
        let is_due = matches!(self.source, Source::Own(_)) && served.not_after.before(AHEAD) <= now;
        if !is_new && !is_due && !served.is_bad && roots == served.roots {
            return;
        }
        match self.replace(&roots, now) {
            Ok(not_after) => {
                tracing::info!(%not_after, "the serving certificate was taken into use");
                *served = Served { not_after, stamps, roots, is_bad: false };
            }
            Err(error) => {
                if is_new || !served.is_bad {
                    let error = format!("{error:#}");
                    tracing::warn!(error, "the last serving certificate stays in use");
                }
                (served.stamps, served.is_bad) = (stamps, true);
            }
        }
    }

    fn replace(&self, roots: &str, now: Timestamp) -> anyhow::Result<Timestamp> {
        let loaded = self.source.load(&self.names, now)?;
        let (not_after, ca, pin) = (loaded.not_after, Arc::clone(&loaded.ca), loaded.pin);
        self.tls.reload(credentials(loaded, roots)).context(TAKING)?;
        self.bundles.serve_by(ca);
        self.pin.send_if_modified(|before| std::mem::replace(before, pin) != pin);
        Ok(not_after)
    }
}

/// Looks for changes until `end`.
pub(super) async fn keep_fresh(serving: Arc<Serving>, clock: Arc<dyn Clock>, end: CancellationToken) {
    look_until(end, move || serving.look(clock.now())).await;
}

impl Source {
    fn stamps(&self) -> Stamps {
        match self {
            Self::Own(_) => Stamps::default(),
            Self::Files(files) => Stamps::of(&[&files.certificate, &files.key, &files.ca]),
        }
    }

    fn load(&self, names: &[String], now: Timestamp) -> anyhow::Result<Loaded> {
        match self {
            Self::Own(ca) => issue(ca, names, now),
            Self::Files(files) => from_files(files, names, now),
        }
    }
}

fn credentials(loaded: Loaded, roots: &str) -> Credentials {
    let client_roots = CertificateDer::pem_slice_iter(roots.as_bytes()).flatten().collect();
    Credentials { chain: loaded.chain, key: loaded.key, client_roots }
}

fn issue(ca: &LocalSigner, names: &[String], now: Timestamp) -> anyhow::Result<Loaded> {
    let issued = ca.issue_server(names, VALIDITY, now).context("issuing the serving certificate")?;
    let mut chain = issued.chain;
    // The CA goes along, so that a pin can be compared before anything is said.
    chain.push(ca.ca_der().clone());
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(issued.key.to_vec()));
    Ok(Loaded { chain, key, not_after: issued.not_after, ca: ca.ca_bundle(), pin: ca.ca_pin() })
}

fn from_files(files: &ServingFiles, names: &[String], now: Timestamp) -> anyhow::Result<Loaded> {
    let place = files.certificate.display();
    let text = read(&files.certificate).context("serving.certificate")?;
    let mut chain = CertificateDer::pem_slice_iter(text.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .with_context(|| format!("serving.certificate: {place} is not PEM"))?;
    let secret = read(&files.key).context("serving.key")?;
    let key = PrivateKeyDer::from_pem_slice(secret.as_bytes())
        .with_context(|| format!("serving.key: {} has no private key in PEM", files.key.display()))?;
    let bundle = read(&files.ca).context("serving.ca")?;

    let parsed: Vec<X509Certificate<'_>> =
        chain.iter().map(|der| parse(der)).collect::<anyhow::Result<_>>()?;
    let (Some(leaf), Some(last)) = (parsed.first(), parsed.last()) else {
        bail!("serving.certificate: {place} has no certificate");
    };
    let moment = |seconds: i64| Timestamp::from_millis(seconds.saturating_mul(1000));
    let not_after = moment(leaf.validity().not_after.timestamp());
    ensure!(now < not_after, "serving.certificate: {place} ended at {not_after}; put a newer one there");
    let cas: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(bundle.as_bytes()).flatten().collect();
    let signed_by = |ca: &X509Certificate<'_>| {
        ca.is_ca() && last.issuer() == ca.subject() && last.verify_signature(Some(ca.public_key())).is_ok()
    };
    let top = cas.iter().find_map(|der| {
        let ca = parse(der).ok()?;
        let is_itself = ca.is_ca() && ca.public_key().raw == last.public_key().raw;
        (is_itself || signed_by(&ca)).then(|| (der.clone(), SpkiHash::of(ca.public_key().raw), is_itself))
    });
    let Some((top, pin, is_in_chain)) = top else {
        bail!(
            "serving.certificate: {place} does not chain to a CA of {}; give the chain with its intermediates, or that CA",
            files.ca.display()
        );
    };
    let names = uncovered(leaf, names);
    if !names.is_empty() {
        tracing::warn!(
            names = names.join(", "),
            "machines cannot reach the server by names that the serving certificate lacks"
        );
    }
    drop(parsed);
    if !is_in_chain {
        chain.push(top);
    }
    Ok(Loaded { chain, key, not_after, ca: crate::trust::union(&[&bundle]).into(), pin })
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> anyhow::Result<X509Certificate<'a>> {
    let (_, parsed) = X509Certificate::from_der(der).context("a certificate of the serving chain is none")?;
    Ok(parsed)
}

/// The names that the certificate is not good for; loopback is for tests.
fn uncovered(leaf: &X509Certificate<'_>, names: &[String]) -> Vec<String> {
    use x509_parser::extensions::GeneralName;
    let alternatives = leaf.subject_alternative_name().ok().flatten();
    let found: Vec<&GeneralName<'_>> =
        alternatives.iter().flat_map(|extension| &extension.value.general_names).collect();
    let covers = |name: &str| {
        found.iter().any(|found| match (found, name.parse::<std::net::IpAddr>()) {
            (GeneralName::IPAddress(octets), Ok(std::net::IpAddr::V4(ip))) => *octets == ip.octets(),
            (GeneralName::IPAddress(octets), Ok(std::net::IpAddr::V6(ip))) => *octets == ip.octets(),
            (GeneralName::DNSName(pattern), Err(_)) => {
                pattern.eq_ignore_ascii_case(name)
                    || pattern.strip_prefix('*').zip(name.find('.')).is_some_and(|(suffix, dot)| {
                        name.get(dot..).is_some_and(|rest| rest.eq_ignore_ascii_case(suffix))
                    })
            }
            _ => false,
        })
    };
    let loopback = ["localhost", "127.0.0.1", "::1"];
    names.iter().filter(|name| !loopback.contains(&name.as_str()) && !covers(name)).cloned().collect()
}

const TAKING: &str = "taking the serving certificate into use";

#[cfg(test)]
mod tests;
