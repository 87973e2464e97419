//! The file of the current and the former credential.

use std::io;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use berth_domain::identity::NodeIdentity;
use berth_domain::join::JoinId;

use super::invalid;
use crate::credential::{Credential, Issue, NodeKey};
use crate::ports::Held;

/// The file's bytes.
pub(super) fn written(held: &Held) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = File {
        version: VERSION,
        current: Written::of(&held.current),
        former: held.former.as_ref().map(Written::of),
    };
    // All of the room at once: a buffer that grows leaves copies of the keys behind.
    let mut length = Length(0);
    serde_json::to_writer(&mut length, &file)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(length.0));
    serde_json::to_writer(&mut *bytes, &file)?;
    Ok(bytes)
}

/// Reads the file's bytes.
pub(super) fn read(bytes: &[u8]) -> io::Result<Held> {
    let file: File = serde_json::from_slice(bytes)?;
    if file.version != VERSION {
        return Err(invalid("it is of a version that this agent does not know"));
    }
    Ok(Held {
        current: file.current.credential()?,
        former: file.former.map(Written::credential).transpose()?,
    })
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    version: u32,
    current: Written,
    former: Option<Written>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    key: Secret,
    chain: Vec<String>,
    ca_bundle: String,
    node: NodeIdentity,
    join: JoinId,
}

/// Base64 of a private key, wiped when dropped.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(transparent)]
struct Secret(String);

impl Written {
    fn of(credential: &Credential) -> Self {
        let issue = credential.issue();
        Self {
            key: Secret(BASE64.encode(credential.key())),
            chain: issue.chain.iter().map(|der| BASE64.encode(der)).collect(),
            ca_bundle: issue.ca_bundle.clone(),
            node: issue.node.clone(),
            join: issue.join,
        }
    }

    fn credential(self) -> io::Result<Credential> {
        let decode = |text: &str| BASE64.decode(text.as_bytes()).map_err(|_| invalid("a part is no base64"));
        let pkcs8 = Zeroizing::new(decode(&self.key.0)?);
        let key = NodeKey::from_pkcs8(&pkcs8).map_err(io::Error::other)?;
        let chain = self.chain.iter().map(|der| decode(der)).collect::<io::Result<_>>()?;
        let issue = Issue { chain, ca_bundle: self.ca_bundle, node: self.node, join: self.join };
        Credential::new(&key, issue).map_err(io::Error::other)
    }
}

/// Counts what is written.
struct Length(usize);

impl io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.saturating_add(bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const VERSION: u32 = 1;
