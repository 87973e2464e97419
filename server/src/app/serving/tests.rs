use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _,
};

use super::*;
use crate::ports::Trust as _;

fn now() -> Timestamp {
    Timestamp::from_millis(1_790_000_000_000)
}

/// A CA, and a serving pair of it.
struct Pki {
    ca: String,
    pin: SpkiHash,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let ca = params.self_signed(&key).expect("a certificate").pem();
        let pin = SpkiHash::of(&key.subject_public_key_info());
        Self { ca, pin, issuer: Issuer::new(params, key) }
    }

    fn pair(&self, ends: Timestamp) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["berth.example".to_owned()]).expect("a name");
        params.not_after = std::time::SystemTime::from(ends).into();
        (params.signed_by(&key, &self.issuer).expect("a certificate").pem(), key.serialize_pem())
    }
}

/// Files as a mounted Secret has them: links to links, swapped as one.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn new() -> (Self, ServingFiles) {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        let files = ServingFiles { certificate: at("tls.crt"), key: at("tls.key"), ca: at("ca.crt") };
        for path in [&files.certificate, &files.key, &files.ca] {
            let name = path.file_name().expect("a name");
            std::os::unix::fs::symlink(Path::new("..data").join(name), path).expect("a link");
        }
        (Self(directory), files)
    }

    fn swap(&self, version: &str, certificate: &str, key: &str, ca: &str) {
        let at = |name: &str| self.0.path().join(name);
        std::fs::create_dir(at(version)).expect("a directory");
        for (name, text) in [("tls.crt", certificate), ("tls.key", key), ("ca.crt", ca)] {
            std::fs::write(at(version).join(name), text).expect("writable");
        }
        std::os::unix::fs::symlink(version, at("..tmp")).expect("a link");
        std::fs::rename(at("..tmp"), at("..data")).expect("swapped");
    }
}

fn signer() -> (tempfile::TempDir, Arc<LocalSigner>) {
    let directory = tempfile::tempdir().expect("a directory");
    let signer = LocalSigner::open_or_create(&directory.path().join("ca"), "c", now()).expect("a CA");
    (directory, Arc::new(signer))
}

fn serving(source: Source, signer: &Arc<LocalSigner>) -> anyhow::Result<(Serving, Arc<Bundles>)> {
    let signer: Arc<dyn Signer> = Arc::<LocalSigner>::clone(signer);
    let bundles = Arc::new(Bundles::of(Arc::clone(&signer)));
    let names = vec!["berth.example".to_owned()];
    Ok((Serving::new(source, names, signer, Arc::clone(&bundles), now())?, bundles))
}

#[test]
fn a_swapped_secret_is_served_and_a_bad_one_is_not() {
    let (_directory, signer) = signer();
    let (first, second) = (Pki::new("first"), Pki::new("second"));
    let (mounted, files) = Mounted::new();
    let ends = now().after(Duration::from_secs(3600));
    let (certificate, key) = first.pair(ends);
    mounted.swap("v1", &certificate, &key, &first.ca);
    let (serving, bundles) = serving(Source::Files(files), &signer).expect("it serves");
    assert_eq!(*serving.pin().borrow(), first.pin);
    let trusts = |ca: &str| bundles.line().contains(ca.lines().nth(1).expect("PEM"));
    assert!(trusts(&first.ca) && bundles.line().contains(signer.ca_bundle().lines().nth(1).expect("PEM")));
    assert_eq!(bundles.cluster(), signer.ca_bundle(), "kubelets do not trust the serving CA");

    let (other, other_key) = second.pair(ends);
    let (over, over_key) = second.pair(now());
    let bad = [
        ("another's key", other.as_str(), key.as_str(), second.ca.as_str()),
        ("another's CA", &other, &other_key, &first.ca),
        ("it is over", &over, &over_key, &second.ca),
        ("nothing", "", "", ""),
        ("no PEM", "x", "y", "z"),
    ];
    for (version, (what, certificate, key, ca)) in bad.into_iter().enumerate() {
        mounted.swap(&format!("bad{version}"), certificate, key, ca);
        serving.look(now());
        assert_eq!(*serving.pin().borrow(), first.pin, "{what}");
        assert!(trusts(&first.ca) && !trusts(&second.ca), "{what}");
    }
    mounted.swap("v2", &other, &other_key, &second.ca);
    serving.look(now());
    assert_eq!(*serving.pin().borrow(), second.pin);
    assert!(trusts(&second.ca) && !trusts(&first.ca));
}

#[test]
fn what_is_wrong_at_the_start_is_told_with_its_field() {
    let (_directory, signer) = signer();
    let (first, second) = (Pki::new("first"), Pki::new("second"));
    let ends = now().after(Duration::from_secs(3600));
    let (certificate, key) = first.pair(ends);
    for (version, (certificate, key, ca, word)) in [
        (certificate.as_str(), key.as_str(), second.ca.as_str(), "does not chain to a CA of"),
        ("", &key, &first.ca, "serving.certificate: "),
        (&certificate, "", &first.ca, "serving.key: "),
        (&first.pair(now()).0, &key, &first.ca, "ended at"),
    ]
    .into_iter()
    .enumerate()
    {
        let (mounted, files) = Mounted::new();
        mounted.swap(&version.to_string(), certificate, key, ca);
        let error = serving(Source::Files(files), &signer).err().expect("it cannot be served");
        assert!(format!("{error:#}").contains(word), "{error:#}");
    }
}

#[test]
fn the_servers_own_certificate_is_replaced_long_before_it_ends() {
    let (_directory, signer) = signer();
    let (serving, bundles) = serving(Source::Own(Arc::clone(&signer)), &signer).expect("it serves");
    assert_eq!((*serving.pin().borrow(), bundles.line()), (signer.ca_pin(), signer.ca_bundle()));
    let ends = || serving.served.lock().expect("one thread").not_after;
    let first = ends();
    serving.look(first.before(AHEAD).before(Duration::from_secs(1)));
    assert_eq!(ends(), first);
    serving.look(first.before(AHEAD));
    assert!(ends() > first);
}
