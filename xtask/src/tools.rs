//! Programs that the gates and tests need and that are not built here: which,
//! where they come from, and at which version.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use berth_kubernetes::{Programs, go_suffices};

use crate::process::{command, succeed, workspace};

/// A program that is asked for its version to see whether it is there.
struct Program {
    /// How it is called.
    call: &'static [&'static str],
    /// Whether what is there suffices.
    there: fn(&[&str]) -> bool,
    /// What needs it.
    wanted_by: &'static str,
    install: Install,
}

enum Install {
    /// Packages of Debian and its kin.
    Apt(&'static str),
    /// A component of the Rust toolchain.
    Rustup(&'static str),
}

const PROGRAMS: &[Program] = &[
    Program {
        call: &["cargo", "fmt", "--version"],
        there: runs,
        wanted_by: "the gate fmt",
        install: Install::Rustup("rustfmt"),
    },
    Program {
        call: &["cargo", "clippy", "--version"],
        there: runs,
        wanted_by: "the gate clippy",
        install: Install::Rustup("clippy"),
    },
    Program {
        call: &["cc", "--version"],
        there: runs,
        wanted_by: "SQLite and aws-lc",
        install: Install::Apt("gcc"),
    },
    Program {
        call: &["npm", "--version"],
        there: runs,
        wanted_by: "the gates buf and browser",
        install: Install::Apt("npm"),
    },
    Program {
        call: &["go", "version"],
        there: |_| kubernetes_can_be_had(),
        wanted_by: "the gate kubernetes, in version 1.26 or later",
        install: Install::Apt("golang"),
    },
    Program {
        call: &["mmdebstrap", "--version"],
        there: runs,
        wanted_by: "the root of bare machines",
        install: Install::Apt("mmdebstrap"),
    },
    Program {
        call: &["ip", "-Version"],
        there: runs,
        wanted_by: "the network of bare machines",
        install: Install::Apt("iproute2"),
    },
    Program {
        call: &["qemu-system-x86_64", "--version"],
        there: |call| runs(call) && runs(&["qemu-img", "--version"]),
        wanted_by: "virtual machines",
        install: Install::Apt("qemu-system-x86 qemu-utils"),
    },
    Program {
        call: &["swtpm", "--version"],
        there: runs,
        wanted_by: "the TPM of virtual machines",
        install: Install::Apt("swtpm"),
    },
    Program {
        call: &["ssh", "-V"],
        there: runs,
        wanted_by: "the way into virtual machines",
        install: Install::Apt("openssh-client"),
    },
    Program {
        call: &["faketime", "--version"],
        there: runs,
        wanted_by: "tests of clocks that are wrong",
        install: Install::Apt("faketime"),
    },
    Program {
        call: &["systemd-analyze", "--version"],
        there: runs,
        wanted_by: "tests of the units that are shipped and written",
        install: Install::Apt("systemd"),
    },
    Program {
        call: &["haproxy", "-v"],
        there: runs,
        wanted_by: "tests of replicas behind a balancer",
        install: Install::Apt("haproxy"),
    },
    Program {
        call: &["/usr/sbin/nginx", "-v"],
        there: |call| runs(call) && Path::new("/usr/lib/nginx/modules/ngx_stream_module.so").exists(),
        wanted_by: "tests of replicas behind nginx",
        install: Install::Apt("nginx-core libnginx-mod-stream"),
    },
    Program {
        call: &["/usr/sbin/dockerd", "--version"],
        there: runs,
        wanted_by: "the test of docker-compose.yml",
        install: Install::Apt("docker.io iptables"),
    },
    Program {
        call: &["docker-compose", "version"],
        there: |call| runs(call) || runs(&["docker", "compose", "version"]),
        wanted_by: "the test of docker-compose.yml",
        install: Install::Apt("docker-compose"),
    },
    Program {
        call: &["chromedriver", "--version"],
        there: |call| runs(call) && Path::new("/usr/bin/chromium").exists(),
        wanted_by: "tests of pages",
        install: Install::Apt("chromium chromium-driver"),
    },
    Program {
        call: &["python3", "-m", "pip", "--version"],
        there: runs,
        wanted_by: "tests of replicas behind Envoy, which a package of Python's brings",
        install: Install::Apt("python3-pip"),
    },
];

/// Says what is missing and how to get it. Where nobody watches, gets it.
///
/// # Errors
/// Something is missing, nobody watches, and it could not be installed.
pub(crate) fn prerequisites(unattended: bool) -> Result<()> {
    let missing: Vec<&Program> = PROGRAMS.iter().filter(|program| !program.present()).collect();
    if missing.is_empty() {
        println!("all {} programs are there", PROGRAMS.len());
        return Ok(());
    }
    if unattended {
        for program in &missing {
            install(&program.install)?;
            if !program.present() {
                let Program { call, wanted_by, .. } = program;
                bail!("`{}` does not suffice for {wanted_by}, even now that it is installed", call.join(" "));
            }
        }
        return Ok(());
    }
    println!("MISSING on this machine; what needs it will fail or be left out:");
    for Program { call, wanted_by, install, .. } in missing {
        println!("  `{}`, for {wanted_by}; to mend: {}", call.join(" "), advice(install));
    }
    Ok(())
}

impl Program {
    fn present(&self) -> bool {
        (self.there)(self.call)
    }
}

/// True if bare machines lack nothing here, but perhaps a kubelet that can be built.
pub(crate) fn machines_can_stand() -> bool {
    let kubelet = |what: &String| what.starts_with("a kubelet") && go_suffices().is_ok();
    berth_machine::missing().iter().all(kubelet)
}

/// True if a cluster's programs are there already, or Go is to build them.
pub(crate) fn kubernetes_can_be_had() -> bool {
    let there = Programs::of_this_machine();
    there.is_ok_and(|programs| programs.missing(&berth_kubernetes::Program::USUAL).is_empty())
        || go_suffices().is_ok()
}

fn runs(call: &[&str]) -> bool {
    let Some((program, arguments)) = call.split_first() else { return false };
    let quiet = command(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    quiet.is_ok_and(|ended| ended.success())
}

fn advice(install: &Install) -> String {
    match install {
        Install::Apt(package) => format!("apt-get install {package}"),
        Install::Rustup(component) => format!("rustup component add {component}"),
    }
}

fn install(install: &Install) -> Result<()> {
    match install {
        Install::Apt(package) => {
            let mut apt = command("apt-get");
            apt.env("DEBIAN_FRONTEND", "noninteractive");
            apt.args(["install", "--yes", "--no-install-recommends"]).args(package.split(' '));
            if succeed(&mut apt).is_err() {
                succeed(command("apt-get").arg("update"))?;
                succeed(&mut apt)?;
            }
            Ok(())
        }
        Install::Rustup(component) => succeed(command("rustup").args(["component", "add", component])),
    }
}

/// cargo-deny at the pinned version, built once into the target directory.
pub(crate) fn cargo_deny() -> Result<PathBuf> {
    let root = workspace().join("target/tools").join(format!("cargo-deny-{CARGO_DENY}"));
    let program = root.join("bin/cargo-deny");
    if !program.exists() {
        println!("building cargo-deny {CARGO_DENY}, once: some minutes");
        let version = format!("={CARGO_DENY}");
        let arguments =
            ["install", "cargo-deny", "--quiet", "--locked", "--debug", "--version", &version, "--root"];
        succeed(command("cargo").args(arguments).arg(&root))?;
    }
    Ok(program)
}

/// buf at the version in `xtask/tools/package-lock.json`. Nothing where npm is
/// missing and somebody watches.
pub(crate) fn buf(unattended: bool) -> Result<Option<PathBuf>> {
    let Some(modules) = npm("the wire is not checked", unattended)? else { return Ok(None) };
    let package = match std::env::consts::ARCH {
        "x86_64" => "buf-linux-x64",
        "aarch64" => "buf-linux-aarch64",
        other => bail!("xtask/tools/package.json names no buf for {other}"),
    };
    Ok(Some(modules.join("@bufbuild").join(package).join("bin/buf")))
}

/// axe-core, likewise, where the tests of the console look for it. False where npm
/// is missing and somebody watches.
pub(crate) fn axe(unattended: bool) -> Result<bool> {
    let modules = npm("the tests of the console's page will fail", unattended)?;
    Ok(modules.is_some())
}

/// The packages of `xtask/tools/package-lock.json`; without npm, what that leads to.
fn npm(without: &str, unattended: bool) -> Result<Option<PathBuf>> {
    let home = workspace().join("target/tools/npm");
    if !runs(&["npm", "--version"]) {
        if unattended {
            bail!("npm is missing, so {without}; to mend: apt-get install npm");
        }
        println!("LEFT OUT, as npm is missing: {without}; to mend: apt-get install npm");
        return Ok(None);
    }
    std::fs::create_dir_all(&home).with_context(|| format!("making {}", home.display()))?;
    for file in ["package.json", "package-lock.json"] {
        let from = workspace().join("xtask/tools").join(file);
        std::fs::copy(&from, home.join(file)).with_context(|| format!("copying {}", from.display()))?;
    }
    let arguments =
        ["ci", "--silent", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", "--prefix"];
    succeed(command("npm").args(arguments).arg(&home))?;
    Ok(Some(home.join("node_modules")))
}

const CARGO_DENY: &str = "0.20.2";
