//! The least that a node costs a cluster whose server keeps an object for each: the
//! smallest NodeJoin is made; with the cluster's signer, a request for a certificate is
//! made and approved besides. And what it costs to write the object's status later. Over
//! one connection for all, as a server's, and nobody watches.

use anyhow::{Context as _, Result};
use berth_domain::identity::NodeIdentity;
use berth_domain::name::PoolName;
use data_encoding::Specification;
use rcgen::KeyPair;
use serde_json::json;

use crate::machine::request_of;
use crate::plain::{Client, Line, REQUESTS, encoded, text, whole};

/// What is done for a machine besides its object.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Besides {
    Nothing,
    /// The object's status is written once.
    Status,
    /// A request for a certificate is made and approved.
    Request,
}

/// Makes the object of machine `number`, and what goes with it.
pub(crate) async fn write(client: &Client, mut line: Line, number: usize, besides: Besides) -> Result<()> {
    if besides == Besides::Request {
        request(client, line.clone(), number).await?;
    }
    let id = join_id(number)?;
    let object = json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "NodeJoin",
        "metadata": { "name": id }, "spec": { "joinID": id, "started": MOMENT },
    });
    let path = format!("{NODE_JOINS}?{UNWARNED}");
    let made = whole(client.ask(&mut line, "POST", &path, object.to_string()).await?).await?;
    if besides == Besides::Status {
        let object = json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "NodeJoin",
            "metadata": { "name": id, "resourceVersion": text(&made, "/metadata/resourceVersion")? },
            "status": { "joinID": id, "phase": "authentication", "state": "Running", "updated": MOMENT },
        });
        let path = format!("{NODE_JOINS}/{id}/status?{UNWARNED}");
        whole(client.ask(&mut line, "PUT", &path, object.to_string()).await?).await?;
    }
    Ok(())
}

/// Makes a request for machine `number`, named as Berth's are, and approves it.
async fn request(client: &Client, mut line: Line, number: usize) -> Result<()> {
    let name = format!("floor-{number}").parse().context("a node's name")?;
    let key = KeyPair::generate().context("a key")?;
    let request = request_of(&NodeIdentity { name, pool: PoolName::default() }, &key)?;
    let object = json!({
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": { "name": format!("berth-floor-{number}") },
        "spec": {
            "request": encoded(&request),
            "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
            "usages": ["digital signature", "client auth"],
            "expirationSeconds": 3600,
        },
    });
    let path = format!("{REQUESTS}?{UNWARNED}");
    let mut made = whole(client.ask(&mut line, "POST", &path, object.to_string()).await?).await?;
    let approved = json!({ "type": "Approved", "status": "True", "reason": "Floor", "message": "" });
    let fields = made.as_object_mut().context("no object came")?;
    fields.insert("status".to_owned(), json!({ "conditions": [approved] }));
    let path = format!("{REQUESTS}/{}/approval?{UNWARNED}", text(&made, "/metadata/name")?);
    whole(client.ask(&mut line, "PUT", &path, made.to_string()).await?).await?;
    Ok(())
}

/// One that no join has: ids come from digests.
fn join_id(number: usize) -> Result<String> {
    let mut digits = Specification::new();
    digits.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    let number = u128::try_from(number)?.to_be_bytes();
    let [.., a, b, c, d, e, f, g, h, i, j] = number;
    Ok(format!("j-{}", digits.encoding()?.encode(&[a, b, c, d, e, f, g, h, i, j])))
}

const NODE_JOINS: &str = "/apis/berth.dev/v1alpha1/nodejoins";
/// As the server asks.
const UNWARNED: &str = "fieldValidation=Ignore";
const MOMENT: &str = "2026-11-23T19:00:00.000Z";
