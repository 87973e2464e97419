use super::*;

fn parsed(line: &str) -> Result<ArgMatches, clap::Error> {
    Cli::command().try_get_matches_from(line.split_whitespace())
}

#[test]
fn the_command_line_is_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn what_cannot_be_is_refused_before_any_server_is_asked() {
    for line in [
        "berth-server token create --uses 0",
        "berth-server token create --name Rack1",
        "berth-server token create --label rack",
        "berth-server token create --taint dedicated=gpu",
        "berth-server token create --network 10.1.2.3/8",
        "berth-server token create --ttl soon",
        "berth-server token create --print-join-command -o json",
        "berth-server token revoke berth1.secret",
        "berth-server nodes show Rack_1",
        "berth-server joins list --most 0",
    ] {
        assert!(parsed(line).is_err(), "{line}");
    }
}

#[test]
fn a_refused_value_says_how_it_is_written() {
    let said = parsed("berth-server token create --taint dedicated=gpu").expect_err("no effect").to_string();
    assert!(said.contains("KEY[=VALUE]:EFFECT"), "{said}");
}

#[test]
fn every_shell_gets_its_completions() {
    use clap_complete::Shell;
    for shell in [Shell::Bash, Shell::Elvish, Shell::Fish, Shell::PowerShell, Shell::Zsh] {
        let script = String::from_utf8(shell::completion(shell, Cli::command())).expect("text");
        assert!(script.contains("print-join-command") && script.contains("explain"), "{shell}");
    }
}

#[test]
fn the_manual_names_every_command_and_every_exit_status() {
    let page = String::from_utf8(shell::man(Cli::command()).expect("written to memory")).expect("text");
    for command in ["RUN", "TOKEN CREATE", "JOINS EXPLAIN", "NODES BAN", "CONFIG CHECK", "VERSION"] {
        assert!(page.contains(&format!(".SH \"BERTH-SERVER {command}\"")), "{command}\n{page}");
    }
    assert!(page.contains("no server answers"));
}
