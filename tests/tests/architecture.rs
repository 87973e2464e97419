//! Reads the sources and holds the house to its plan: who may import whom, how
//! long a file may be, and that no lint is silenced. ARCHITECTURE.md says why.

#![expect(clippy::expect_used, reason = "a source that cannot be read fails the test")]

use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn the_sources_keep_to_the_plan() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above this crate");
    let sources = sources_below(root);
    assert!(sources.len() > 50, "only {} sources found below {}", sources.len(), root.display());
    let findings: Vec<String> = sources
        .iter()
        .flat_map(|file| {
            let source = fs::read_to_string(file).expect("sources are readable UTF-8");
            let place = file.strip_prefix(root).expect("found below the root").display().to_string();
            breaches(&place, &source)
        })
        .collect();
    assert!(findings.is_empty(), "{} breaches:\n{}", findings.len(), findings.join("\n"));
}

#[test]
fn a_breach_of_each_kind_is_found() {
    for (place, source, breach) in [
        ("server/src/join/authentication.rs", "use tonic::Status;", "tonic::Status"),
        ("server/src/join.rs", "fn f() -> berth_proto::join::v1::Hello {}", "berth_proto::join::v1::Hello"),
        ("agent/src/join/registration.rs", "use crate::{line::Line, ports};", "crate::line::Line"),
        ("server/src/policy.rs", "use super::rpc;", "crate::rpc"),
        ("agent/src/renewal.rs", "let x = rustls\n    ::version();", "rustls::version"),
        ("server/src/join.rs", "use berth_program::tls::unproved;", "berth_program::tls::unproved"),
        ("server/src/cluster/embedded.rs", "use super::super::signer::local;", "crate::signer::local"),
        ("agent/src/main.rs", "berth_server::run();", "berth_server::run"),
        ("telemetry/src/names.rs", "use berth_proto::join;", "berth_proto::join"),
        ("domain/src/token.rs", "use std::{fmt, fs::{self, File}, net::TcpStream};", "std::net::TcpStream"),
        ("domain/src/join/mod.rs", "", "mod.rs"),
        ("xtask/src/main.rs", "#![allow(dead_code)]", "allow"),
        ("proto/src/enroll.rs", "    #[allow(missing_docs)]", "allow"),
        ("agent/src/app.rs", &"\n".repeat(401), "401 lines"),
        ("server/tests/signer.rs", &"\n".repeat(401), "401 lines"),
    ] {
        let found = breaches(place, source);
        assert!(found.iter().any(|finding| finding.contains(breach)), "{place}: {source:?} gave {found:?}");
    }
}

#[test]
fn what_the_plan_permits_is_left_alone() {
    for (place, source) in [
        ("server/src/join/authentication.rs", "//! Unlike tonic::Status.\nuse crate::ports::Tokens;"),
        ("server/src/rpc/service.rs", "use tonic::Status;\nuse crate::join::authentication;"),
        ("server/src/listener/tls.rs", "use super::limits::Limits;"),
        ("proto/src/lib.rs", "    #[allow(missing_docs)]\n    pub mod v1 {"),
        ("domain/src/token.rs", "use std::{fmt, net::{IpAddr, Ipv4Addr}};\nlet fs = 1;"),
        ("domain/src/token.rs", "#[cfg(test)]\nmod tests {\n    use std::fs;\n}"),
        ("agent/src/app.rs", &format!("{}#[cfg(test)]\nmod tests;\n{}", "\n".repeat(400), "\n".repeat(400))),
    ] {
        assert_eq!(breaches(place, source), Vec::<String>::new(), "{place}: {source:?}");
    }
}

/// What the file at `place`, counted from the workspace's root, does that the
/// plan forbids.
fn breaches(place: &str, source: &str) -> Vec<String> {
    let mut found = Vec::new();
    if place.ends_with("/mod.rs") {
        found.push(format!("{place}: mod.rs files are not used; name the file after its module"));
    }
    let silenced = |line: &str| line.starts_with("#[allow(") || line.starts_with("#![allow(");
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let generated = |at: usize| place.starts_with("proto/src/") && lines.get(at + 1) == Some(&"pub mod v1 {");
    if lines.iter().enumerate().any(|(at, line)| silenced(line) && !generated(at)) {
        found.push(format!("{place}: allow silences a lint for good; use #[expect(lint, reason = ...)]"));
    }
    let code = before_tests(source);
    let lines = code.lines().count();
    if lines > LONGEST {
        found.push(format!("{place}: {lines} lines before its tests, {LONGEST} at most"));
    }
    let Some((krate, module)) = place.split_once("/src/") else { return found };
    let module: Vec<&str> =
        module.trim_end_matches(".rs").split('/').filter(|name| !["lib", "main"].contains(name)).collect();
    let top = module.first().copied().unwrap_or_default();
    for path in paths(&code).iter().map(|path| absolute(path, krate, &module)) {
        let within = |prefix: &str| path == prefix || path.starts_with(&format!("{prefix}::"));
        if forbidden(krate, top).iter().any(|prefix| within(prefix))
            && !VALUES.iter().any(|value| within(value))
        {
            found.push(format!("{place}: may not name {path}"));
        }
    }
    found
}

/// Prefixes of paths that the module `top` of a crate may not name.
fn forbidden(krate: &str, top: &str) -> Vec<String> {
    let mut never: Vec<String> = match krate {
        "domain" => ["tokio", "tonic", "prost", "tracing", "std::fs", "std::net", "std::process", "std::env"]
            .as_slice(),
        "proto" => &["berth_agent", "berth_server"],
        "telemetry" => &["berth_proto", "berth_agent", "berth_server"],
        "agent" => &["berth_server"],
        "server" => &["berth_agent"],
        _ => &[],
    }
    .iter()
    .map(ToString::to_string)
    .collect();
    let program = ["agent", "server"].contains(&krate);
    if program && DECIDING.contains(&top) {
        never.extend(["berth_proto", "berth_program::tls", "tonic", "kube", "rustls"].map(String::from));
        never.extend(ADAPTERS.iter().chain(DRIVERS).map(|name| format!("crate::{name}")));
    }
    if program && ADAPTERS.contains(&top) {
        never.extend(ADAPTERS.iter().filter(|name| **name != top).map(|name| format!("crate::{name}")));
    }
    never
}

/// The source up to its unit tests, which come last.
fn before_tests(source: &str) -> String {
    let lines: Vec<&str> = source.lines().collect();
    let tests = lines
        .windows(2)
        .position(|pair| pair == ["#[cfg(test)]", "mod tests;"] || pair == ["#[cfg(test)]", "mod tests {"]);
    lines.get(..tests.unwrap_or(lines.len())).expect("a position within the lines").join("\n") + "\n"
}

/// Every path in the code, `use` groups spread out: `a::{b, c::d}` names `a::b`
/// and `a::c::d`. Comments name nothing.
fn paths(code: &str) -> Vec<String> {
    let code: String = code
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default().trim())
        .collect::<Vec<_>>()
        .join(" ");
    let code = code.replace(" ::", "::").replace(":: ", "::").replace("{ ", "{");
    let mut found = Vec::new();
    let mut groups: Vec<String> = Vec::new();
    let mut path = String::new();
    for c in code.chars() {
        match c {
            ':' => path.push(c),
            c if c.is_alphanumeric() || c == '_' => {
                if path.is_empty() || (path.ends_with(':') && !path.ends_with("::")) {
                    path = groups.last().cloned().unwrap_or_default();
                }
                path.push(c);
            }
            '{' if path.ends_with("::") => groups.push(std::mem::take(&mut path)),
            _ => {
                found.push(std::mem::take(&mut path));
                if c == '}' {
                    groups.pop();
                }
            }
        }
    }
    found.push(path);
    found.retain(|path| path.trim_matches(':').contains("::"));
    found
}

/// A path as it reads from the crate's root.
fn absolute(path: &str, krate: &str, module: &[&str]) -> String {
    let own = format!("berth_{krate}");
    let names: Vec<&str> = path.trim_matches(':').split("::").collect();
    let up = names.iter().take_while(|name| ["self", "super"].contains(name));
    let (relative, above) = up.fold((0, 0), |(all, up), name| (all + 1, up + usize::from(*name == "super")));
    let rest = names.iter().copied().skip(relative);
    if relative > 0 {
        let here = module.iter().copied().take(module.len().saturating_sub(above));
        return std::iter::once("crate").chain(here).chain(rest).collect::<Vec<_>>().join("::");
    }
    rest.map(|name| if name == own { "crate" } else { name }).collect::<Vec<_>>().join("::")
}

fn sources_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder is readable") {
        let path = entry.expect("the entry is readable").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && !name.starts_with('.') && !["target", "node_modules"].contains(&name) {
            found.extend(sources_below(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// Lines of a file before its tests.
const LONGEST: usize = 400;
/// Modules that decide: they see ports and words only.
const DECIDING: &[&str] = &["join", "plan", "policy", "renewal"];
/// Modules that reach the world, each through its own library.
const ADAPTERS: &[&str] = &[
    "host", "line", "vault", "journal", "tunnel", "cluster", "signer", "registry", "profiles", "rpc",
    "bundle",
];
/// Modules that put the others together.
const DRIVERS: &[&str] = &["app", "config", "admin", "console", "listener", "health"];
/// Values that live beside effects in std.
const VALUES: &[&str] = &[
    "std::net::IpAddr",
    "std::net::Ipv4Addr",
    "std::net::Ipv6Addr",
    "std::net::SocketAddr",
    "std::net::AddrParseError",
];
