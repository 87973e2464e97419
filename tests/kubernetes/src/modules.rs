//! Builds the programs from `modules/go.mod`, which pins every module by
//! version and hash: once for each version, into the cache.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use serde_json::Value;

use crate::process::command;
use crate::programs::{Program, Programs, cache};

/// The version of Kubernetes that is pinned, such as `v1.36.3`.
#[must_use]
pub fn version() -> &'static str {
    let required = |line: &'static str| line.trim().strip_prefix("k8s.io/kubernetes ");
    let rest = PINNED.lines().find_map(required).unwrap_or_default();
    rest.split(' ').next().unwrap_or_default()
}

/// Builds those of `wanted` that this machine does not have; `say` gets a line
/// about each.
///
/// # Errors
/// Go is missing or too old, or a program does not build.
pub fn build(wanted: &[Program], say: &mut dyn FnMut(&str)) -> Result<Programs> {
    let programs = Programs::of_this_machine()?;
    if programs.missing(wanted).is_empty() {
        return Ok(programs);
    }
    let folder = cache()?;
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    // A second build waits here, and then finds the work done.
    let lock = File::create(folder.join(".lock")).context("making the lock of the programs' cache")?;
    lock.lock().context("waiting for another build of the same programs")?;
    let missing = programs.missing(wanted);
    go_suffices()?;
    if !missing.is_empty() {
        say(&format!(
            "building {} programs of Kubernetes {}, once: 10 to 25 minutes",
            missing.len(),
            version()
        ));
    }
    for program in missing {
        let took = build_one(program, &folder)?;
        say(&format!("{:<24} built in {} s", program.name(), took.as_secs()));
    }
    Ok(programs)
}

/// Whether this machine's Go can build them. Go 1.21 and later fetch a newer Go by themselves where that is allowed, so
/// the answer is asked for where `go.mod` lies.
///
/// # Errors
/// It does not; says how to mend that.
pub fn go_suffices() -> Result<()> {
    let asked = command("go").args(["env", "GOVERSION"]).current_dir(MODULES).output();
    let found = match asked {
        Ok(said) if said.status.success() => String::from_utf8_lossy(&said.stdout).trim().to_owned(),
        Ok(said) => String::from_utf8_lossy(&said.stderr).trim().to_owned(),
        Err(_) => "no go at all".to_owned(),
    };
    if is_new_enough(&found) {
        return Ok(());
    }
    bail!(
        "Kubernetes {} needs Go 1.{OLDEST_GO} or later to build, and this machine has {found}; \
         to mend: apt-get install golang where the package is that new, or the archive of go.dev/dl; \
         or set {} to a directory that has the programs",
        version(),
        crate::programs::ASSETS
    )
}

/// The folder of a pinned module's source, fetched if it is not there.
///
/// # Errors
/// Go is missing, or the module cannot be had.
pub fn module_folder(module: &str) -> Result<PathBuf> {
    module_folder_in(Path::new(MODULES), module)
}

/// The same of a module that the `go.mod` in another folder pins.
///
/// # Errors
/// As [`module_folder`].
pub fn module_folder_in(modules: &Path, module: &str) -> Result<PathBuf> {
    let mut go = command("go");
    go.args(["mod", "download", "-json", module]).current_dir(modules).env("GOWORK", "off");
    let said = go.output().context("starting go mod download")?;
    if !said.status.success() {
        bail!("go mod download {module} failed: {}", String::from_utf8_lossy(&said.stderr));
    }
    let said: Value = serde_json::from_slice(&said.stdout).context("reading what go mod download says")?;
    let folder = said.get("Dir").and_then(Value::as_str);
    Ok(PathBuf::from(folder.with_context(|| format!("go mod download names no folder for {module}"))?))
}

/// The name of the cache's directory: a changed `go.mod` is another release.
pub(crate) fn release() -> String {
    let hash = HEXLOWER.encode(digest(&SHA256, PINNED.as_bytes()).as_ref());
    format!("{}-{}", version(), hash.get(..12).unwrap_or(&hash))
}

fn build_one(program: Program, folder: &Path) -> Result<Duration> {
    go_build(Path::new(MODULES), &package(program), &linker_flags(), &folder.join(program.name()))
}

/// Builds a main package of the pinned modules in a folder, static, and says how
/// long that took. Built beside its place and renamed: a half-written program is
/// never found.
///
/// # Errors
/// Go is missing, or it does not build.
pub fn go_build(modules: &Path, package: &str, linker_flags: &str, program: &Path) -> Result<Duration> {
    let began = Instant::now();
    let unfinished = program.with_extension("new");
    let mut go = command("go");
    go.current_dir(modules).env("CGO_ENABLED", "0").env("GOWORK", "off");
    go.args(["build", "-mod=readonly", "-buildvcs=false", "-trimpath", "-ldflags", linker_flags, "-o"]);
    let ended = go.arg(&unfinished).arg(package).status().context("starting go build")?;
    if !ended.success() {
        bail!("go build of {package} ended with {ended}; what it said is above");
    }
    fs::rename(&unfinished, program).with_context(|| format!("putting {} into place", program.display()))?;
    Ok(began.elapsed())
}

/// A program's main package.
fn package(program: Program) -> String {
    match program {
        Program::Etcd => "go.etcd.io/etcd/server/v3".to_owned(),
        Program::ApiServer
        | Program::ControllerManager
        | Program::Scheduler
        | Program::Kubectl
        | Program::Kubemark
        | Program::Kubeadm
        | Program::Kubelet => format!("k8s.io/kubernetes/cmd/{}", program.name()),
    }
}

/// Without these a program says that it is v0.0.0, and kubeadm refuses it.
fn linker_flags() -> String {
    let (major, rest) = version().trim_start_matches('v').split_once('.').unwrap_or_default();
    let minor = rest.split('.').next().unwrap_or_default();
    let mut flags = "-s -w".to_owned();
    for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
        let version = version();
        for (name, value) in
            [("gitVersion", version), ("gitMajor", major), ("gitMinor", minor), ("gitTreeState", "clean")]
        {
            flags.push_str(&format!(" -X {package}.{name}={value}"));
        }
    }
    flags
}

/// True for `go1.26.3` and later.
fn is_new_enough(version: &str) -> bool {
    let minor = version.strip_prefix("go1.").and_then(|rest| rest.split(['.', 'r', 'b', ' ', '-']).next());
    minor.and_then(|minor| minor.parse::<u32>().ok()).is_some_and(|minor| minor >= OLDEST_GO)
}

const MODULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/modules");
const PINNED: &str = include_str!("../modules/go.mod");
const OLDEST_GO: u32 = 26;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_one_in_go_mod() {
        assert!(version().starts_with("v1."), "{}", version());
        assert!(release().starts_with(version()), "{}", release());
        assert!(
            linker_flags().contains(&format!(" -X k8s.io/component-base/version.gitVersion={}", version()))
        );
    }

    #[test]
    fn a_go_that_is_too_old_is_told_from_one_that_suffices() {
        for new in ["go1.26.0", "go1.26.8", "go1.27rc1", "go1.30", "go1.26.3-X:nodwarf5"] {
            assert!(is_new_enough(new), "{new}");
        }
        for old in ["go1.24.4", "go1.9", "", "no go at all", "go: go.mod requires go >= 1.26.0"] {
            assert!(!is_new_enough(old), "{old}");
        }
    }
}
