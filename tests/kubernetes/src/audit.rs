//! The API server's audit log, read as it grows.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::Value;

/// A place in the audit log.
pub struct AuditLog {
    path: PathBuf,
    read: u64,
}

impl AuditLog {
    pub(crate) fn from_now(path: PathBuf) -> Result<Self> {
        let read = std::fs::metadata(&path).with_context(|| format!("looking at {}", path.display()))?.len();
        Ok(Self { path, read })
    }

    /// The events since the last call: `audit.k8s.io/v1`, level Metadata. The API
    /// server writes an event before it ends its answer.
    ///
    /// # Errors
    /// The log cannot be read, or a whole line of it is no JSON.
    pub fn events(&mut self) -> Result<Vec<Value>> {
        let reading = || format!("reading {}", self.path.display());
        let mut file = File::open(&self.path).with_context(reading)?;
        file.seek(SeekFrom::Start(self.read)).with_context(reading)?;
        let mut text = String::new();
        file.read_to_string(&mut text).with_context(reading)?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let lines = text.get(..whole).unwrap_or_default().lines();
        let events: Result<Vec<Value>, _> = lines.map(serde_json::from_str).collect();
        let events = events.with_context(reading)?;
        self.read += u64::try_from(whole).context("counting bytes")?;
        Ok(events)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_is_read_once_and_only_when_it_is_whole() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        writeln!(file, "{}", json!({"before": true})).expect("a line");
        let mut log = AuditLog::from_now(file.path().to_owned()).expect("the log is there");
        write!(file, "{}\n{{\"n\":", json!({"n": 1})).expect("a line and a half");
        assert_eq!(log.events().expect("a line"), [json!({"n": 1})]);
        assert!(log.events().expect("half a line").is_empty());
        writeln!(file, "2}}").expect("the other half");
        assert_eq!(log.events().expect("a line"), [json!({"n": 2})]);
    }
}
