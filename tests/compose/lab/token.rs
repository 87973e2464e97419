//! A token for the machines: an object that a replica of berth-server mints.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use berth_kubernetes::NAMESPACE;
use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::seed::asked;

/// Creates a JoinToken and keeps what is minted for it in a file of its owner's.
pub(crate) fn mint(kubeconfig: &Path, into: &Path) -> Result<()> {
    let object = json!({
        "apiVersion": "berth.dev/v1alpha1",
        "kind": "JoinToken",
        "metadata": { "generateName": "machines-", "namespace": NAMESPACE },
        "spec": { "uses": 1000, "ttl": "24h" },
    });
    let manifest = into.with_extension("json");
    fs::write(&manifest, object.to_string()).context("writing the JoinToken")?;
    let manifest_path = manifest.display().to_string();
    let created = asked(kubeconfig, &["create", "--output=json", "--filename", &manifest_path]);
    fs::remove_file(&manifest).context("removing the JoinToken's manifest")?;
    let created: Value = serde_json::from_str(&created?).context("reading the JoinToken")?;
    let name = created.pointer("/metadata/name").and_then(Value::as_str).context("it has no name")?;
    let secret = format!("{name}-join-token");
    let began = Instant::now();
    loop {
        let found = asked(
            kubeconfig,
            &["--namespace", NAMESPACE, "get", "secret", &secret, "--ignore-not-found", "--output=json"],
        )?;
        if let Some(token) = token_of(&found) {
            keep(into, &token)?;
            println!("the token of {name} is there, good for 1,000 machines and 24 hours");
            return Ok(());
        }
        if began.elapsed() > MINTED_WITHIN {
            bail!(
                "no berth-server has minted {name} within {MINTED_WITHIN:?}: docker compose logs berth-server"
            );
        }
        thread::sleep(POLL);
    }
}

fn token_of(secret: &str) -> Option<Vec<u8>> {
    let secret: Value = serde_json::from_str(secret).ok()?;
    BASE64.decode(secret.pointer("/data/token")?.as_str()?.as_bytes()).ok()
}

/// Beside its place first: a machine never reads half of it.
fn keep(path: &Path, token: &[u8]) -> Result<()> {
    let unfinished = path.with_extension("new");
    let file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&unfinished);
    file.and_then(|mut file| file.write_all(token))
        .and_then(|()| fs::rename(&unfinished, path))
        .with_context(|| format!("writing {}", path.display()))
}

const MINTED_WITHIN: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(200);
