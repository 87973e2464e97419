//! The least that an object for each node costs a cluster: the smallest NodeJoin is
//! made, and its status written once, over one connection for all, as a server's.

use anyhow::Result;
use data_encoding::Specification;
use serde_json::json;

use crate::plain::{Client, Line, text, whole};

/// Makes the object of machine `number`, and writes its status.
pub(crate) async fn two_writes(client: &Client, mut line: Line, number: usize) -> Result<()> {
    let id = join_id(number)?;
    let spec = json!({ "joinID": id, "started": MOMENT });
    let object = json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "NodeJoin",
        "metadata": { "name": id }, "spec": spec,
    });
    let path = format!("{NODE_JOINS}?{UNWARNED}");
    let made = whole(client.ask(&mut line, "POST", &path, object.to_string()).await?).await?;
    let object = json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "NodeJoin", "spec": spec,
        "metadata": { "name": id, "resourceVersion": text(&made, "/metadata/resourceVersion")? },
        "status": { "joinID": id, "phase": "authentication", "state": "Running", "updated": MOMENT },
    });
    let path = format!("{NODE_JOINS}/{id}/status?{UNWARNED}");
    whole(client.ask(&mut line, "PUT", &path, object.to_string()).await?).await?;
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
