//! Files by which a client finds a cluster and says who it is.

use std::fmt::Display;
use std::path::Path;

use anyhow::Result;
use data_encoding::BASE64;
use serde_json::json;

use crate::pki::{Identity, keep};

/// How a user says who it is.
#[derive(Clone, Copy)]
pub(crate) enum Credentials<'a> {
    Certificate(&'a Identity),
    Token(&'a str),
}

/// Writes a kubeconfig that holds all it needs. JSON is YAML.
pub(crate) fn write(
    path: &Path,
    server: impl Display,
    ca: &str,
    user: &str,
    credentials: Credentials<'_>,
) -> Result<()> {
    let data = |pem: &str| BASE64.encode(pem.as_bytes());
    let credentials = match credentials {
        Credentials::Certificate(identity) => json!({
            "client-certificate-data": data(&identity.certificate),
            "client-key-data": data(&identity.key),
        }),
        Credentials::Token(token) => json!({ "token": token }),
    };
    let content = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": NAME, "cluster": {
            "server": format!("https://{server}"),
            "certificate-authority-data": data(ca),
        }}],
        "users": [{"name": user, "user": credentials}],
        "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": user}}],
        "current-context": NAME,
    });
    keep(path, &format!("{content:#}\n"))
}

/// Cluster and context in every file.
pub(crate) const NAME: &str = "berth";
