//! The shelf with real archives, and its port's rules.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use berth_domain::bundle::{Manifest, Signed, Wanted};
use berth_domain::diagnosis::Code;
use berth_domain::facts::Arch;
use berth_domain::identity::Digest;
use berth_domain::name::{NodeName, PoolName};
use berth_domain::phase::Phase;
use berth_domain::timestamp::Timestamp;
use berth_server::bundle::BundleLimits;
use berth_server::bundle::create::{Asked, create};
use berth_server::bundle::shelf::{Authorities, BundleSettings, Shelf};
use berth_server::ports::{PortError, Software as _};
use berth_server::signer::bundle::BundleKey;
use berth_server::signer::local::LocalSigner;
use tempfile::TempDir;

use crate::{AMD64, ARM64, elf};

struct World {
    directory: TempDir,
    ca: LocalSigner,
}

fn world() -> World {
    let directory = tempfile::tempdir().expect("a directory");
    let now = Timestamp::from_millis(1_790_000_000_000);
    let ca = LocalSigner::open_or_create(&directory.path().join("pki"), "test", now).expect("a CA");
    World { directory, ca }
}

impl World {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Makes a bundle with one kubelet.
    fn bundle(&self, name: &str, machine: u16, content: &[u8]) -> Signed {
        let from = self.path("from");
        fs::create_dir_all(&from).expect("a directory");
        fs::write(from.join("kubelet"), elf(machine, content)).expect("a file");
        let key = BundleKey::open_or_create(&self.path("pki"), Some(&self.ca)).expect("a key");
        let asked = Asked { directories: vec![from], ..Asked::default() };
        create(&asked, &self.path(name), |manifest| key.sign(manifest)).expect("made")
    }

    fn authorities(&self) -> Authorities {
        let (_, parsed) = x509_parser::parse_x509_certificate(self.ca.ca_der()).expect("a certificate");
        let keys = vec![parsed.public_key().raw.to_vec()];
        Arc::new(move || keys.clone())
    }

    fn shelf(&self, name: &str) -> Shelf {
        Shelf::of(
            BundleSettings { path: Some(self.path(name)), ..BundleSettings::default() },
            self.authorities(),
        )
    }
}

fn pool(name: &str) -> PoolName {
    name.parse().expect("a name")
}

fn node() -> NodeName {
    "n1".parse().expect("a name")
}

fn code(refused: PortError) -> Code {
    refused.into_diagnosis(Phase::Configuration, Timestamp::from_millis(0)).code()
}

fn blob(signed: &Signed) -> (Digest, u64) {
    let manifest = Manifest::parse(&signed.manifest).expect("a manifest");
    manifest.entries.first().map(|entry| (entry.sha256, entry.size)).expect("a kubelet")
}

async fn taken(shelf: &Shelf, wanted: &Wanted) -> Vec<Vec<u8>> {
    let mut transfer = shelf.open(&node(), wanted).await.expect("opened");
    let mut chunks = Vec::new();
    while let Some(chunk) = transfer.next().await.expect("readable") {
        chunks.push(chunk);
    }
    chunks
}

#[tokio::test]
async fn a_blob_comes_in_chunks_from_any_byte_on() {
    let world = world();
    let content: Vec<u8> = (0..150_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let signed = world.bundle("node.bundle", AMD64, &content);
    let shelf = world.shelf("node.bundle");
    let (blob, size) = blob(&signed);
    let whole = elf(AMD64, &content);
    for (offset, chunks) in [(0, 3), (1, 3), (65_536, 2), (size - 1, 1), (size, 0), (u64::MAX, 0)] {
        let got = taken(&shelf, &Wanted { bundle: signed.digest(), blob, offset }).await;
        assert_eq!(got.len(), chunks, "from {offset}");
        assert!(got.iter().all(|chunk| (1..=BundleLimits::CHUNK).contains(&chunk.len())));
        let from = usize::try_from(offset.min(size)).expect("small");
        assert_eq!(got.concat(), whole.get(from..).unwrap_or_default(), "from {offset}");
    }
    for (bundle, blob) in [(Digest::of(b"another"), blob), (signed.digest(), Digest::of(b"another"))] {
        let refused =
            shelf.open(&node(), &Wanted { bundle, blob, offset: 0 }).await.map(drop).expect_err("not held");
        assert_eq!(code(refused), Code::BundleMissing);
    }
}

#[tokio::test]
async fn pools_and_architectures_get_their_own() {
    let world = world();
    let usual = world.bundle("usual.bundle", AMD64, b"usual");
    let gpu = world.bundle("gpu.bundle", ARM64, b"gpu");
    let settings = BundleSettings {
        path: Some(world.path("usual.bundle")),
        pools: [(pool("gpu"), Some(world.path("gpu.bundle"))), (pool("own"), None)].into(),
        ..BundleSettings::default()
    };
    let shelf = Shelf::of(settings, world.authorities());
    let belonging = |name: &str, of| shelf.belonging(&pool(name), of).map_err(code);
    assert_eq!(belonging("default", Arch::Amd64), Ok(Some(usual.digest())));
    assert_eq!(belonging("gpu", Arch::Arm64), Ok(Some(gpu.digest())));
    assert_eq!(belonging("own", Arch::Amd64), Ok(None), "it brings its own software");
    let refused = shelf.belonging(&pool("gpu"), Arch::Amd64).expect_err("none for it");
    let why = refused.into_diagnosis(Phase::Configuration, Timestamp::from_millis(0));
    assert_eq!(why.code(), Code::BundleMissing);
    assert_eq!(
        why.cause(),
        "the server has no bundle of node software for this machine: it has one for arm64, and the machine needs one for amd64"
    );
    assert!(why.mend().contains("bundle of the pool gpu"), "{}", why.mend());
    let nothing = Shelf::of(BundleSettings::default(), world.authorities());
    assert!(matches!(nothing.belonging(&pool("default"), Arch::Amd64), Ok(None)));
}

#[tokio::test]
async fn a_changed_bundle_is_read_again_and_the_one_before_is_held_a_while() {
    let world = world();
    let first = world.bundle("node.bundle", AMD64, b"first");
    let shelf = world.shelf("node.bundle");
    let now = || shelf.belonging(&pool("default"), Arch::Amd64).map_err(code);
    assert_eq!(now(), Ok(Some(first.digest())));
    let second = world.bundle("node.bundle", AMD64, b"second");
    assert_eq!(now(), Ok(Some(first.digest())), "not looked at yet");
    shelf.look();
    assert_eq!(now(), Ok(Some(second.digest())));
    // A node in the middle of the first one gets the rest of it.
    let (blob_of_first, _) = blob(&first);
    let rest = taken(&shelf, &Wanted { bundle: first.digest(), blob: blob_of_first, offset: 20 }).await;
    assert_eq!(rest.concat(), b"first");
    fs::write(world.path("node.bundle"), b"half").expect("written");
    shelf.look();
    assert_eq!(now(), Err(Code::BundleDamaged));
    assert!(shelf.described(second.digest()).is_ok(), "nodes may be in the middle of it");
    fs::remove_file(world.path("node.bundle")).expect("there");
    shelf.look();
    assert_eq!(now(), Err(Code::BundleDamaged));
    let third = world.bundle("node.bundle", AMD64, b"third");
    shelf.look();
    assert_eq!(now(), Ok(Some(third.digest())), "mended");
}

#[tokio::test]
async fn another_clusters_bundle_belongs_to_nobody() {
    let (own, other) = (world(), world());
    let foreign = other.bundle("node.bundle", AMD64, b"foreign");
    let settings = BundleSettings { path: Some(other.path("node.bundle")), ..BundleSettings::default() };
    let shelf = Shelf::of(settings, own.authorities());
    let refused = shelf.belonging(&pool("default"), Arch::Amd64).expect_err("not signed here");
    let why = refused.into_diagnosis(Phase::Configuration, Timestamp::from_millis(0));
    assert_eq!(why.code(), Code::BundleDamaged);
    assert!(why.cause().contains("its key is endorsed by the CA"), "{}", why.cause());
    assert!(shelf.described(foreign.digest()).is_err());
}
