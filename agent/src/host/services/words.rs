//! A program's last words, from the journal, and the setting that they blame.

use std::time::Duration;

use berth_domain::diagnosis::printable;

use crate::host::program;

/// How long journalctl may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the unit's program said last that tells why it ended. Blocks.
pub(super) fn of(unit: &str) -> Option<String> {
    let by_unit = format!("_SYSTEMD_UNIT={unit}");
    let arguments = ["--lines", "60", "--output", "cat", "--quiet", "--no-pager", by_unit.as_str()];
    last(&program::run("journalctl", &arguments, PATIENCE).ok()?)
}

/// The last line that tells of an error, or else the last line. Of a line in the form
/// of klog or logfmt, only what the error says.
fn last(text: &str) -> Option<String> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let line = lines.clone().rfind(|line| is_error(line)).or_else(|| lines.next_back())?;
    Some(printable(&error(line).unwrap_or_else(|| line.to_owned())))
}

/// klog's errors begin with E or F and the date; logfmt's have a level.
fn is_error(line: &str) -> bool {
    let mut bytes = line.bytes();
    let is_klog =
        matches!(bytes.next(), Some(b'E' | b'F')) && bytes.next().is_some_and(|b| b.is_ascii_digit());
    is_klog
        || ["level=fatal", "level=error"].iter().any(|level| line.contains(level))
        || line.starts_with("Error:")
}

/// What stands in `err="..."`, `error="..."` or `msg="..."`.
fn error(line: &str) -> Option<String> {
    ["err=\"", "error=\"", "msg=\""].iter().find_map(|key| {
        let (_, from) = line.split_once(key)?;
        let mut said = String::new();
        let mut escaped = false;
        for c in from.chars() {
            match c {
                '"' if !escaped => return Some(said),
                '\\' if !escaped => escaped = true,
                c => {
                    // A line break within an error reads as a space.
                    said.push(if escaped && c == 'n' { ' ' } else { c });
                    escaped = false;
                }
            }
        }
        None
    })
}

/// The kubelet's setting that its words blame, as a field of its configuration.
pub(super) fn setting(said: &str) -> Option<String> {
    let word = |after: &str| {
        let (_, from) = said.split_once(after)?;
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '[' | ']');
        let word: String = from.trim_start_matches(['"', '\\']).chars().take_while(|c| is_part(*c)).collect();
        Some(word.trim_matches('.').to_owned()).filter(|word| word.len() > 1)
    };
    let named = [("swap", "failSwapOn"), ("cgroup v1", "failCgroupV1")];
    let by_cause = || {
        let blamed = |(cause, _): &(&str, &str)| said.contains(cause);
        named.into_iter().find(blamed).map(|(_, setting)| setting.to_owned())
    };
    ["invalid configuration: ", "unknown field ", "unrecognized feature gate: "]
        .iter()
        .find_map(|after| word(after))
        .or_else(|| word("unknown flag: ").map(|flag| format!("the flag {flag}")))
        .or_else(by_cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_is_told_without_its_dress() {
        let journal = "I1126 00:01:02.000000 1 server.go:530] \"Kubelet version\" kubeletVersion=\"v1.36.3\"\n\
             E1126 00:01:02.100000 1 run.go:72] \"command failed\" err=\"failed to validate kubelet configuration, error: invalid configuration: maxPods (--max-pods) -1 must be greater than or equal to 0, path: &TypeMeta{\\\"x\\\"}\"\n\
             I1126 00:01:02.200000 1 bye\n";
        let said = last(journal).expect("an error");
        assert!(said.starts_with("failed to validate kubelet configuration"), "{said}");
        assert!(said.ends_with("&TypeMeta{\"x\"}"), "{said}");
        assert_eq!(setting(&said).as_deref(), Some("maxPods"));
        let containerd = "time=\"2026\" level=fatal msg=\"failed to load TOML\"\n";
        assert_eq!(last(containerd).as_deref(), Some("failed to load TOML"));
        assert_eq!(last("containerd: expected newline\n\n").as_deref(), Some("containerd: expected newline"));
        assert_eq!(last(" \n"), None);
    }

    #[test]
    fn a_setting_is_named_only_where_the_words_name_it() {
        for (said, blamed) in [
            ("strict decoding error: unknown field \"maxPodz\"", Some("maxPodz")),
            ("unrecognized feature gate: Nope", Some("Nope")),
            ("failed to parse kubelet flag: unknown flag: --nope", Some("the flag --nope")),
            ("running with swap on is not supported, please disable swap", Some("failSwapOn")),
            ("kubelet is configured to not run on a host using cgroup v1", Some("failCgroupV1")),
            ("connection refused", None),
        ] {
            assert_eq!(setting(said).as_deref(), blamed, "{said}");
        }
    }

    #[test]
    fn words_cannot_steer_a_terminal() {
        let said = last("E1126 x err=\"\u{1b}[2J boom\"").expect("an error");
        assert!(!said.contains('\u{1b}'), "{said:?}");
    }
}
