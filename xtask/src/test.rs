//! `cargo xtask test`: what is needed, then every gate, cheap ones first, then a
//! count that a script can read.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use berth_kubernetes::{BORROWED, Program};
use clap::{Args, ValueEnum};

use crate::cluster;
use crate::compose;
use crate::process::{build, command, succeed, workspace};
use crate::tools;

#[derive(Args)]
pub(crate) struct Options {
    /// Leave out the gates whose tools must be fetched (deny, buf).
    #[arg(long)]
    fast: bool,
    /// Run these gates only.
    #[arg(long, value_name = "NAME")]
    only: Vec<Gate>,
    /// Tests that ask nothing special of a cluster use this one.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// `true` where nobody watches: what is missing is installed, or fails the run.
    #[arg(long, env = "CI", default_value = "", hide = true)]
    ci: String,
}

impl Options {
    fn unattended(&self) -> bool {
        ["true", "1"].contains(&self.ci.as_str())
    }
}

/// What must hold before a change lands, in the order in which it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Gate {
    /// The programs that tests and gates start are installed.
    Prerequisites,
    /// The sources are formatted.
    Fmt,
    /// No lint has anything to say.
    Clippy,
    /// The programs of a control plane are built, once.
    Kubernetes,
    /// What the tests of the console's page look through is there: axe-core.
    Browser,
    /// What the images of docker-compose.yml are made of is built, once.
    Compose,
    /// What bare machines stand on, and what makes nodes of them, is there, once.
    Machines,
    /// Unit, integration and documentation tests.
    Tests,
    /// Every public word of the domain and the wire is explained.
    Doc,
    /// Licences, banned crates and sources of the dependency tree.
    Deny,
    /// The wire keeps to the rules, and v1 to what it was.
    Buf,
}

/// How many passed and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u32,
    failed: u32,
}

/// True if all passed. A gate without tests of its own counts as one.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let started = Instant::now();
    let mut total = Tally::default();
    let mut report = Vec::new();
    for gate in Gate::value_variants() {
        let asked = options.only.is_empty() || options.only.contains(gate);
        let left_out = options.fast && [Gate::Deny, Gate::Buf].contains(gate);
        if !asked || left_out {
            continue;
        }
        println!("\n── {} ──", gate.name());
        let began = Instant::now();
        let tally = gate.run(options).unwrap_or_else(|error| {
            println!("{error:#}");
            Tally { passed: 0, failed: 1 }
        });
        total.passed = total.passed.saturating_add(tally.passed);
        total.failed = total.failed.saturating_add(tally.failed);
        report.push((gate, tally, began.elapsed()));
    }
    println!();
    for (gate, tally, took) in &report {
        let Tally { passed, failed } = tally;
        let verdict = if *failed == 0 { "ok" } else { "FAILED" };
        println!(
            "{:<14} {verdict:<7} {passed:>5} passed {failed:>4} failed {:>7}",
            format!("{gate:?}"),
            seconds(*took)
        );
    }
    println!("in {}\n", seconds(started.elapsed()));
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(total.failed == 0 && total.passed > 0)
}

impl Gate {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    fn run(self, options: &Options) -> Result<Tally> {
        match self {
            Self::Prerequisites => tools::prerequisites(options.unattended())?,
            Self::Fmt => succeed(command("cargo").args(["fmt", "--all", "--check", "--", "-l"]))
                .context("the files above are not formatted; to mend: cargo fmt --all")?,
            Self::Clippy => {
                let arguments =
                    ["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"];
                succeed(command("cargo").args(arguments))?;
            }
            Self::Kubernetes => {
                if !tools::kubernetes_can_be_had() && !options.unattended() {
                    println!("LEFT OUT, as Go is missing: tests that need a cluster will not run");
                    return Ok(Tally::default());
                }
                cluster::programs(&Program::USUAL)?;
            }
            Self::Browser => {
                if !tools::axe(options.unattended())? {
                    return Ok(Tally::default());
                }
            }
            Self::Compose => {
                if !tools::kubernetes_can_be_had() && !options.unattended() {
                    println!("LEFT OUT, as Go is missing: tests of the compose stack will not run");
                    return Ok(Tally::default());
                }
                compose::programs()?;
            }
            Self::Machines => {
                if !tools::machines_can_stand() && !options.unattended() {
                    println!("LEFT OUT, as this host lacks something: tests on bare machines will not run");
                    return Ok(Tally::default());
                }
                cluster::programs(&[Program::Kubelet])?;
                let missing = berth_machine::missing();
                if !missing.is_empty() {
                    bail!("a bare machine needs\n  {}", missing.join("\n  "));
                }
                let say = &mut |line: &str| println!("{line}");
                berth_machine::Ground::lay(say)?;
                berth_machine::flannel(say)?;
                let missing = berth_machine::missing_for_virtual();
                if missing.is_empty() {
                    berth_machine::Ground::lay_for_virtual(say)?;
                } else if options.unattended() {
                    bail!("a virtual machine needs\n  {}", missing.join("\n  "));
                } else {
                    println!("LEFT OUT, tests on virtual machines, which need\n  {}", missing.join("\n  "));
                }
            }
            Self::Tests => return tests(options.kubeconfig.as_deref()),
            Self::Doc => {
                let arguments = ["doc", "--locked", "--no-deps", "-p", "berth-domain", "-p", "berth-proto"];
                succeed(command("cargo").args(arguments).env("RUSTDOCFLAGS", "-D warnings -D missing_docs"))?;
            }
            Self::Deny => {
                let arguments = ["check", "--allow", "unused-wrapper", "bans", "licenses", "sources"];
                succeed(command(tools::cargo_deny()?).args(arguments))?;
            }
            Self::Buf => {
                let Some(buf) = tools::buf(options.unattended())? else {
                    return Ok(Tally::default());
                };
                let wire = workspace().join("proto");
                succeed(command(&buf).arg("lint").current_dir(&wire))?;
                succeed(
                    command(&buf).args(["breaking", "--against", "golden/berth.binpb"]).current_dir(&wire),
                )?;
            }
        }
        Ok(Tally { passed: 1, failed: 0 })
    }
}

/// Builds the programs that tests start as processes, as users get them, then
/// runs every test.
fn tests(kubeconfig: Option<&Path>) -> Result<Tally> {
    build(&["berth-server", "berth-agent"], &[])?;
    let mut cargo = command("cargo");
    if let Some(kubeconfig) = kubeconfig {
        let absolute = std::path::absolute(kubeconfig).context("finding the kubeconfig for tests")?;
        cargo.env(BORROWED, absolute);
    }
    let mut cargo = cargo
        .args(["test", "--locked", "--workspace", "--no-fail-fast"])
        .stdout(Stdio::piped())
        .spawn()
        .context("starting cargo test")?;
    let output = cargo.stdout.take().context("cargo test has no output")?;
    let mut tally = Tally::default();
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("reading the output of cargo test")?;
        let line = String::from_utf8_lossy(&line);
        writeln!(std::io::stdout(), "{line}").context("passing on the output of cargo test")?;
        if let Some(part) = libtest_result(&line) {
            tally.passed = tally.passed.saturating_add(part.passed);
            tally.failed = tally.failed.saturating_add(part.failed);
        }
    }
    let ended = cargo.wait().context("waiting for cargo test")?;
    if !ended.success() && tally.failed == 0 {
        println!("cargo test did not run to its end: {ended}");
        tally.failed = 1;
    }
    if tally.passed == 0 && tally.failed == 0 {
        bail!("cargo test ran no test");
    }
    Ok(tally)
}

/// What a line such as `test result: ok. 3 passed; 0 failed; …` counts.
fn libtest_result(line: &str) -> Option<Tally> {
    let (_, counts) = line.trim().strip_prefix("test result: ")?.split_once(". ")?;
    let count = |word: &str| counts.split("; ").find_map(|part| part.strip_suffix(word)?.trim().parse().ok());
    Some(Tally { passed: count("passed")?, failed: count("failed")? })
}

/// A time as a person reads it: `4.2 s`, `3 min 12 s`.
pub(crate) fn seconds(took: Duration) -> String {
    match took.as_secs() {
        ..60 => format!("{:.1} s", took.as_secs_f64()),
        whole => format!("{} min {} s", whole / 60, whole % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_of_libtest_are_read() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.14s";
        assert_eq!(libtest_result(line), Some(Tally { passed: 12, failed: 3 }));
        let line =
            "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 2 filtered out; finished in 0.00s";
        assert_eq!(libtest_result(line), Some(Tally { passed: 0, failed: 0 }));
    }

    #[test]
    fn other_lines_count_nothing() {
        for line in [
            "",
            "running 3 tests",
            "test result: ok",
            "the test result: ok. 1 passed; 0 failed",
            "test result: ok. many passed; 0 failed",
        ] {
            assert_eq!(libtest_result(line), None, "{line:?}");
        }
    }

    #[test]
    fn times_read_as_people_say_them() {
        assert_eq!(seconds(Duration::from_millis(4_240)), "4.2 s");
        assert_eq!(seconds(Duration::from_secs(192)), "3 min 12 s");
    }
}
