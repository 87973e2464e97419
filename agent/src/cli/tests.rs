use super::*;
use berth_program::shell::{completion, man};

use crate::config::Origin;

fn parsed(line: &str) -> Result<Invocation, Unusable> {
    parse(line.split_whitespace().map(OsString::from))
}

#[test]
fn the_command_line_is_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn a_flag_is_known_by_its_name() {
    let pin = format!("sha256:{}", "ab".repeat(32));
    let invocation = parsed(&format!(
        "berth-agent join h:1 --node-name n1 --ca-pin {pin},{pin} --otlp-endpoint http://c:4317"
    ))
    .expect("legal");
    let given = given(&invocation);
    assert_eq!(given.server.map(|(_, origin)| origin), Some(Origin::Flag("ENDPOINT".to_owned())));
    assert_eq!(given.node_name, Some(("n1".to_owned(), Origin::Flag("--node-name".to_owned()))));
    assert_eq!(
        given.ca_pins.map(|(pins, origin)| (pins.len(), origin)),
        Some((2, Origin::Flag("--ca-pin".to_owned())))
    );
    assert_eq!(given.otlp_endpoint.map(|(url, _)| url), Some("http://c:4317".to_owned()));
    assert_eq!(given.timeout, None);
    assert_eq!(given.no_wait, None);
}

#[test]
fn a_flag_for_all_commands_stands_on_either_side() {
    for line in ["berth-agent --log-level debug check", "berth-agent check --log-level debug"] {
        let given = given(&parsed(line).expect("legal"));
        assert_eq!(
            given.log_level,
            Some(("debug".to_owned(), Origin::Flag("--log-level".to_owned()))),
            "{line}"
        );
    }
}

#[test]
fn checks_to_be_ignored_are_known_before_anything_is_done() {
    let invocation = parsed("berth-agent check --ignore-preflight-errors swap,Port-10250").expect("legal");
    assert_eq!(given(&invocation).ignore.map(|(ids, _)| ids.len()), Some(2));
    assert!(parsed("berth-agent check --ignore-preflight-errors Swop").is_err());
}

#[test]
fn help_is_no_fault_and_anything_unknown_is() {
    assert!(parsed("berth-agent --help").expect_err("help").was_asked_for());
    assert!(parsed("berth-agent --version").expect_err("version").was_asked_for());
    for wrong in
        ["berth-agent", "berth-agent jion", "berth-agent join h", "berth-agent join h:1 --timeout soon"]
    {
        assert!(!parsed(wrong).expect_err(wrong).was_asked_for(), "{wrong}");
    }
}

#[test]
fn every_shell_gets_its_completions() {
    use clap_complete::Shell;
    for shell in [Shell::Bash, Shell::Elvish, Shell::Fish, Shell::PowerShell, Shell::Zsh] {
        let script = String::from_utf8(completion(shell, Cli::command())).expect("text");
        assert!(script.contains("print-defaults") && script.contains("token-file"), "{shell}");
    }
}

#[test]
fn the_manual_names_every_command_and_every_exit_status() {
    let page = String::from_utf8(man(Cli::command()).expect("written to memory")).expect("text");
    for command in ["join", "run", "check", "plan", "reset", "leave", "status", "completion", "version"] {
        assert!(
            page.contains(&format!(".SH \"BERTH-AGENT {}\"", command.to_uppercase())),
            "{command}\n{page}"
        );
    }
    assert!(page.contains(".SH \"BERTH-AGENT CONFIG CHECK\""));
    assert!(page.contains("interrupted; starting again goes on"));
    assert_eq!(page.matches("OpenTelemetry").count(), 0, "hidden flags stay hidden");
}
