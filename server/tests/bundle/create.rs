//! Bundles from files as operators have them, read back as servers read them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use berth_domain::bundle::{Bundle, Manifest, Place, Signed};
use berth_domain::facts::Arch;
use berth_domain::identity::Digest;
use berth_domain::timestamp::Timestamp;
use berth_server::bundle::archive::Archive;
use berth_server::bundle::create::{Asked, create};
use berth_server::signer::bundle::BundleKey;
use berth_server::signer::local::LocalSigner;
use tempfile::TempDir;

use crate::{AMD64, elf};

fn now() -> Timestamp {
    Timestamp::from_millis(1_790_000_000_000)
}

fn put(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().expect("below a directory")).expect("directories");
    fs::write(path, bytes).expect("a file");
}

/// An OCI layout with one image for one architecture.
fn layout(at: &Path, name: &str, architecture: &str) {
    let blob = |content: String| {
        let digest = Digest::of(content.as_bytes());
        put(&at.join(format!("blobs/sha256/{digest}")), content.as_bytes());
        digest
    };
    let config = blob(format!(r#"{{"architecture":"{architecture}","os":"linux"}}"#));
    let manifest = blob(format!(r#"{{"schemaVersion":2,"config":{{"digest":"sha256:{config}"}}}}"#));
    put(&at.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#);
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"digest":"sha256:{manifest}","annotations":{{"io.containerd.image.name":"{name}"}}}}]}}"#
    );
    put(&at.join("index.json"), index.as_bytes());
}

/// What a person has unpacked somewhere.
fn software(at: &Path) {
    put(&at.join("kubelet"), &elf(AMD64, b"kubelet"));
    put(&at.join("bin/runc"), &elf(AMD64, b"runc"));
    put(&at.join("cni/bridge"), &elf(AMD64, b"bridge"));
    put(&at.join("cni/my-plugin"), &elf(AMD64, b"mine"));
    put(&at.join("cni/LICENSE"), b"Apache License");
    put(&at.join("units/containerd.service"), b"[Service]\nExecStart=/usr/local/bin/containerd\n");
    layout(&at.join("images/pause"), "registry.k8s.io/pause:3.10", "amd64");
}

struct Keys {
    directory: TempDir,
    ca: LocalSigner,
}

fn keys() -> Keys {
    let directory = tempfile::tempdir().expect("a directory");
    let ca = LocalSigner::open_or_create(&directory.path().join("pki"), "test", now()).expect("a CA");
    Keys { directory, ca }
}

impl Keys {
    fn key(&self) -> BundleKey {
        BundleKey::open_or_create(&self.directory.path().join("pki"), Some(&self.ca)).expect("a key")
    }

    fn authorities(&self) -> Vec<Vec<u8>> {
        let (_, parsed) = x509_parser::parse_x509_certificate(self.ca.ca_der()).expect("a certificate");
        vec![parsed.public_key().raw.to_vec()]
    }
}

fn from(directory: &Path) -> Asked {
    Asked { directories: vec![directory.to_owned()], ..Asked::default() }
}

fn create_at(keys: &Keys, asked: &Asked, to: &Path) -> Signed {
    let key = keys.key();
    create(asked, to, |manifest| key.sign(manifest)).expect("made")
}

#[test]
fn a_directory_becomes_a_bundle_that_says_what_is_in_it() {
    let (keys, work) = (keys(), tempfile::tempdir().expect("a directory"));
    software(&work.path().join("in"));
    let to = work.path().join("node.bundle");
    let asked = Asked {
        versions: [("kubelet".to_owned(), "v1.36.1".to_owned())].into(),
        licenses: [("my-plugin".to_owned(), "MIT".to_owned())].into(),
        ..from(&work.path().join("in"))
    };
    create_at(&keys, &asked, &to);
    let archive = Archive::open(&to).expect("it was just made");
    let bundle = Bundle::verified(archive.signed(), &keys.authorities()).expect("the cluster's own");
    archive.verify(bundle.manifest()).expect("whole");
    let told: Vec<_> = bundle
        .manifest()
        .entries
        .iter()
        .map(|entry| (entry.place, entry.name.as_str(), entry.architecture, entry.license.as_deref()))
        .collect();
    let amd64 = Some(Arch::Amd64);
    assert_eq!(
        told,
        [
            (Place::Program, "kubelet", amd64, Some("Apache-2.0")),
            (Place::Program, "runc", amd64, Some("Apache-2.0")),
            (Place::Cni, "bridge", amd64, Some("Apache-2.0")),
            (Place::Cni, "my-plugin", amd64, Some("MIT")),
            (Place::Unit, "containerd.service", None, None),
            (Place::Image, "pause.tar", amd64, None),
        ]
    );
    let entries = &bundle.manifest().entries;
    assert_eq!(entries.first().and_then(|kubelet| kubelet.version.as_deref()), Some("v1.36.1"));
    assert_eq!(entries.last().expect("the image").references, ["registry.k8s.io/pause:3.10"]);
    // The image is what containerd imports: an archive that has the layout.
    let image = entries.last().expect("the image");
    let tar = archive.read(image.sha256, 0, usize::MAX).expect("readable");
    let mut tar = tar::Archive::new(tar.as_slice());
    let names: Vec<String> = tar
        .entries()
        .expect("a tar")
        .map(|entry| entry.expect("an entry").path().expect("a path").display().to_string())
        .collect();
    assert!(
        names.contains(&"oci-layout".to_owned()) && names.contains(&"index.json".to_owned()),
        "{names:?}"
    );
}

#[test]
fn the_same_files_give_the_same_bytes() {
    let (keys, work) = (keys(), tempfile::tempdir().expect("a directory"));
    for place in ["a", "b/deeper"] {
        software(&work.path().join(place));
    }
    // Another hour, another order, another umask.
    let later = fs::File::open(work.path().join("b/deeper/kubelet")).expect("there");
    later.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("set");
    let made = |place: &str, to: &str| {
        create_at(&keys, &from(&work.path().join(place)), &work.path().join(to));
        fs::read(work.path().join(to)).expect("made")
    };
    let first = made("a", "1.bundle");
    assert_eq!(first, made("b/deeper", "2.bundle"));
    assert_eq!(first, made("a", "1.bundle"), "in its own place");
    assert_eq!(fs::read_dir(work.path()).expect("there").count(), 4, "no drafts are left");
}

#[test]
fn an_image_is_the_same_as_layout_and_as_tar_and_may_be_dockers() {
    let (keys, work) = (keys(), tempfile::tempdir().expect("a directory"));
    layout(&work.path().join("pause"), "registry.k8s.io/pause:3.10", "arm64");
    let saved = work.path().join("saved.tar");
    let mut tar = tar::Builder::new(fs::File::create(&saved).expect("a file"));
    for (name, text) in [
        ("config.json", r#"{"architecture":"amd64"}"#),
        (
            "manifest.json",
            r#"[{"Config":"config.json","RepoTags":["busybox:1","busybox:latest"],"Layers":[]}]"#,
        ),
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        tar.append_data(&mut header, name, text.as_bytes()).expect("added");
    }
    tar.finish().expect("finished");
    let to = work.path().join("node.bundle");
    let images = |paths: &[PathBuf]| Asked {
        files: paths.iter().map(|path| (Place::Image, path.clone())).collect(),
        ..Asked::default()
    };
    let signed = create_at(&keys, &images(&[work.path().join("pause"), saved]), &to);
    let manifest = Manifest::parse(&signed.manifest).expect("a manifest");
    let told: Vec<_> = manifest
        .entries
        .iter()
        .map(|entry| (entry.name.as_str(), entry.architecture, entry.references.join(",")))
        .collect();
    assert_eq!(
        told,
        [
            ("pause.tar", Some(Arch::Arm64), "registry.k8s.io/pause:3.10".to_owned()),
            ("saved.tar", Some(Arch::Amd64), "busybox:1,busybox:latest".to_owned()),
        ]
    );
    // The layout as somebody else's tar says the same of itself.
    let archive = Archive::open(&to).expect("made");
    let pause = manifest.entries.first().expect("pause");
    let tar = work.path().join("pause-again.tar");
    fs::write(&tar, archive.read(pause.sha256, 0, usize::MAX).expect("readable")).expect("written");
    let again = create_at(&keys, &images(&[tar]), &work.path().join("again.bundle"));
    let again = Manifest::parse(&again.manifest).expect("a manifest");
    let again = again.entries.first().expect("pause");
    assert_eq!((again.sha256, &again.references), (pause.sha256, &pause.references));
}

#[test]
fn what_cannot_go_in_is_named_with_its_mend() {
    let (keys, work) = (keys(), tempfile::tempdir().expect("a directory"));
    let at = |name: &str| work.path().join(name);
    put(&at("script/install"), b"#!/bin/sh\n");
    put(&at("program"), b"no ELF");
    put(&at("image.tar"), b"");
    put(&at("good/kubelet"), &elf(AMD64, b""));
    put(&at("alien/kubelet"), &elf(8, b"MIPS"));
    put(&at("twice/a/runc"), &elf(AMD64, b"1"));
    put(&at("twice/b/runc"), &elf(AMD64, b"2"));
    layout(&at("linked"), "x", "amd64");
    symlink("/etc/passwd", at("linked/blobs/sha256/passwd")).expect("a link");
    let file = |place, name: &str| Asked { files: vec![(place, at(name))], ..Asked::default() };
    let nobody = Asked { versions: [("runc".to_owned(), "1".to_owned())].into(), ..from(&at("good")) };
    for (asked, said) in [
        (from(&at("script")), "is no program, unit or image that is known: name it with --program"),
        (from(&at("alien")), "is no program, unit or image that is known"),
        (file(Place::Program, "program"), "is no ELF program"),
        (file(Place::Image, "image.tar"), "reading"),
        (file(Place::Image, "linked"), "reading"),
        (from(&at("nowhere")), "reading"),
        (from(&at("twice")), "program/runc is listed twice"),
        (nobody, "--set-version names \"runc\""),
        (Asked::default(), "nothing was given"),
    ] {
        let (to, key) = (at("x.bundle"), keys.key());
        let refused = create(&asked, &to, |manifest| key.sign(manifest)).expect_err(said).to_string();
        assert!(refused.contains(said), "{refused}");
        assert!(!to.exists() && !at(".x.bundle.berth-new").exists());
    }
}

#[test]
fn damage_of_every_kind_is_found() {
    let (keys, work) = (keys(), tempfile::tempdir().expect("a directory"));
    software(&work.path().join("in"));
    let to = work.path().join("node.bundle");
    create_at(&keys, &from(&work.path().join("in")), &to);
    let good = fs::read(&to).expect("made");
    let holds = |bytes: &[u8]| {
        fs::write(&to, bytes).expect("written");
        let open = || -> Result<(), Box<dyn std::error::Error>> {
            let archive = Archive::open(&to)?;
            let bundle = Bundle::verified(archive.signed(), &keys.authorities())?;
            Ok(archive.verify(bundle.manifest())?)
        };
        open().is_ok()
    };
    assert!(holds(&good));
    // The last byte of a needle, or the one behind it.
    let needles: [(&[u8], usize); 4] =
        [(b"kubelet", 0), (b"\"format\"", 0), (b"\"endorsement\": \"", 1), (b"\"signature\": \"", 1)];
    for (needle, behind) in needles {
        let places: Vec<usize> = good
            .windows(needle.len())
            .enumerate()
            .filter(|(_, is)| *is == needle)
            .map(|(at, _)| at)
            .collect();
        assert!(!places.is_empty(), "{}", String::from_utf8_lossy(needle));
        for at in places {
            let mut bad = good.clone();
            if let Some(byte) = bad.get_mut(at + needle.len() - 1 + behind) {
                *byte ^= 1;
            }
            assert!(!holds(&bad), "a flipped bit in {}", String::from_utf8_lossy(needle));
        }
    }
    for cut in [0, 100, 512, good.len() / 2] {
        assert!(!holds(good.get(..cut).expect("shorter")), "cut at {cut}");
    }
}

#[test]
fn an_unpacked_bundle_is_the_same_bundle() {
    let (keys, work) = (keys(), tempfile::tempdir().expect("a directory"));
    software(&work.path().join("in"));
    let to = work.path().join("node.bundle");
    let signed = create_at(&keys, &from(&work.path().join("in")), &to);
    let unpacked = work.path().join("unpacked");
    tar::Archive::new(fs::File::open(&to).expect("made")).unpack(&unpacked).expect("a tar");
    let archive = Archive::open(&unpacked).expect("a bundle");
    assert_eq!(*archive.signed(), signed);
    let bundle = Bundle::verified(archive.signed(), &keys.authorities()).expect("the cluster's own");
    archive.verify(bundle.manifest()).expect("whole");
}

#[test]
fn the_bundle_key_is_endorsed_once_and_again_by_a_new_ca() {
    let work = tempfile::tempdir().expect("a directory");
    let pki = work.path().join("pki");
    let open = |ca: Option<&LocalSigner>| BundleKey::open_or_create(&pki, ca);
    assert!(open(None).err().is_some_and(|error| error.to_string().contains("--ca-key")));
    let first = keys();
    let signed = open(Some(&first.ca)).expect("endorsed").sign(b"{}").expect("signed");
    assert_eq!(
        open(None).expect("endorsed before").sign(b"{}").expect("signed"),
        signed,
        "the same each time"
    );
    let second = keys();
    let anew = open(Some(&second.ca)).expect("endorsed anew").sign(b"{}").expect("signed");
    assert_eq!(anew.key, signed.key);
    assert_eq!(anew.authority, second.ca.ca_pin());
    let mode = fs::metadata(pki.join("bundle.key")).expect("there").permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o600);
}
