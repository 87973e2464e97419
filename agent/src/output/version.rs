//! `version`.

use std::io;

use berth_domain::conversation::PROTOCOL_VERSION;
use serde_json::json;

use super::{say, say_pretty};
use crate::cli::{Form, VERSION};

/// Says which program this is and what it speaks.
///
/// # Errors
/// Standard output cannot be written.
pub fn version(form: Form) -> io::Result<()> {
    let arch = std::env::consts::ARCH;
    match form {
        Form::Text => say(&format!("berth-agent {VERSION} (protocol {PROTOCOL_VERSION}, {arch})\n")),
        Form::Json => say_pretty(&json!({
            "program": "berth-agent",
            "version": VERSION,
            "protocolVersions": [PROTOCOL_VERSION],
            "arch": arch,
        })),
    }
}
