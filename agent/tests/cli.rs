//! The program as it is called: streams, exit statuses, and what it leaves
//! behind.

#![expect(clippy::expect_used, reason = "the helpers of a test stop it where its world is not as it must be")]

use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

fn agent(arguments: &[&str]) -> Output {
    agent_with(arguments, &[])
}

#[expect(clippy::disallowed_methods, reason = "the tests' one place that starts processes")]
fn agent_with(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_berth-agent"))
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .output()
        .expect("the program starts")
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

fn root() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

fn path(root: &tempfile::TempDir) -> &str {
    root.path().to_str().expect("text")
}

fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory).expect("it is there").next().is_none()
}

#[test]
fn a_wrong_command_line_ends_with_3() {
    for arguments in [
        &["jion"][..],
        &[],
        &["join", "no-port"],
        &["check", "--ignore-preflight-errors", "Swop"],
        &["check", "--root", "/nonexistent"],
        &["check", "--log-level", "=="],
        &["join"],
    ] {
        let output = agent(arguments);
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {}", err(&output));
        assert!(output.stdout.is_empty(), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn help_and_version_are_results() {
    for arguments in [&["--help"][..], &["--version"], &["join", "--help"], &["version"]] {
        let output = agent(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{arguments:?}");
    }
    let version = json(&agent(&["version", "-o", "json"]));
    assert_eq!(version["program"], "berth-agent");
    assert_eq!(version["protocolVersions"][0], 1);
}

#[test]
fn a_check_of_a_directory_reports_and_changes_nothing() {
    let root = root();
    let output = agent(&["check", "--root", path(&root), "--node-name", "n1", "-o", "json"]);
    let report = json(&output);
    assert_eq!(report["success"], output.status.success(), "{}", err(&output));
    assert!(report["categories"].as_array().is_some_and(|groups| !groups.is_empty()));
    assert!(is_empty(root.path()));
}

#[test]
fn a_name_that_cannot_be_one_fails_the_check_with_2() {
    let root = root();
    let output = agent(&["check", "--root", path(&root), "--node-name", "Rack1_N7"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(out(&output).contains("rack1-n7"), "the nearest legal name is the mend: {}", out(&output));
    let short = agent(&["check", "--root", path(&root), "--node-name", "Rack1_N7", "-o", "short"]);
    assert!(out(&short).contains("rack1-n7") && out(&short).len() < out(&output).len());
}

#[test]
fn the_settings_are_told_with_their_origins() {
    let root = root();
    let file = root.path().join("agent.yaml");
    let text = "apiVersion: config.berth.dev/v1alpha1\nkind: AgentConfiguration\nserver: file:1\npool: gpu\n";
    std::fs::write(&file, text).expect("writable");
    let config = file.to_str().expect("text");
    let output = agent_with(
        &["config", "check", "--config", config, "--server", "flag:1", "-o", "json"],
        &[
            ("BERTH_AGENT_SERVER", "env:1"),
            ("BERTH_AGENT_NODE_NAME", "n1"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317"),
        ],
    );
    let report = json(&output);
    let settings = report["settings"].as_array().expect("a list").clone();
    let row = |name: &str| settings.iter().find(|row| row["setting"] == name).cloned().expect("listed");
    assert_eq!((&row("server")["value"], &row("server")["source"]), (&"flag:1".into(), &"flag".into()));
    assert_eq!(row("nodeName")["from"], "BERTH_AGENT_NODE_NAME");
    assert_eq!(row("otlpEndpoint")["from"], "OTEL_EXPORTER_OTLP_ENDPOINT");
    assert_eq!((&row("pool")["value"], &row("pool")["from"]), (&"gpu".into(), &config.into()));
    assert_eq!(row("timeout")["source"], "default");
}

#[test]
fn an_unknown_field_ends_with_3_and_its_place() {
    let root = root();
    let file = root.path().join("agent.yaml");
    std::fs::write(&file, "apiVersion: config.berth.dev/v1alpha1\nkind: AgentConfiguration\nservr: h:1\n")
        .expect("writable");
    let output = agent(&["config", "check", "--config", file.to_str().expect("text")]);
    assert_eq!(output.status.code(), Some(3));
    assert!(err(&output).contains("agent.yaml:3:1"), "{}", err(&output));
    assert!(err(&output).contains("servr"), "{}", err(&output));
}

#[test]
fn the_printed_defaults_are_accepted() {
    let root = root();
    let file = root.path().join("agent.yaml");
    std::fs::write(&file, agent(&["config", "print-defaults"]).stdout).expect("writable");
    let output = agent(&["config", "check", "--config", file.to_str().expect("text")]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
}

#[test]
fn completions_and_the_manual_are_printed() {
    for shell in ["bash", "zsh", "fish"] {
        let output = agent(&["completion", shell]);
        assert!(output.status.success() && out(&output).contains("berth-agent"), "{shell}");
    }
    let page = agent(&["man"]);
    assert!(page.status.success() && out(&page).contains(".TH"));
}

#[test]
fn a_plan_for_a_directory_is_shown_and_not_carried_out() {
    let root = root();
    let diff = agent(&["plan", "--root", path(&root)]);
    assert!(diff.status.success(), "{}", err(&diff));
    assert!(out(&diff).contains("+++ b/etc/sysctl.d/90-berth.conf"), "{}", out(&diff));
    assert!(!out(&diff).contains('\u{1b}'), "no colours into a pipe");
    let report = json(&agent(&["plan", "--root", path(&root), "-o", "json"]));
    let changes = report["changes"].as_array().expect("a list");
    assert!(changes.iter().any(|change| change["action"] == "create" && change["kind"] == "file"));
    assert!(is_empty(root.path()));
}

#[test]
fn a_machine_that_never_joined_says_so() {
    let root = root();
    let output = agent(&["status", "--root", path(&root), "-o", "json"]);
    assert_eq!(output.status.code(), Some(1), "{}", err(&output));
    let status = json(&output);
    assert_eq!((&status["state"], &status["healthy"]), (&"notJoined".into(), &false.into()));
    assert!(is_empty(root.path()));
}

#[test]
fn there_is_nothing_to_reset_or_to_leave_on_a_fresh_machine() {
    let root = root();
    for arguments in [&["reset"][..], &["reset", "--dry-run"], &["leave"]] {
        let output = agent(&[arguments, &["--root", path(&root)]].concat());
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", err(&output));
        assert!(out(&output).starts_with("nothing to "), "{}", out(&output));
        assert!(is_empty(root.path()), "{arguments:?}");
    }
}

#[test]
fn a_join_without_a_token_ends_with_its_code_as_json_too() {
    let root = root();
    let join = ["join", "127.0.0.1:1", "--root", path(&root), "--node-name", "n1", "--no-wait"];
    let output = agent(&[&join[..], &["-o", "json"]].concat());
    assert_eq!(output.status.code(), Some(3), "{}", err(&output));
    let last = out(&output).lines().last().map(ToOwned::to_owned).expect("a result");
    let result: serde_json::Value = serde_json::from_str(&last).expect("JSON lines");
    assert_eq!((&result["type"], &result["exitCode"]), (&"result".into(), &3.into()));
    assert_eq!(result["diagnosis"]["code"], "TOKEN_MISSING");
    assert_eq!(result["traceId"].as_str().map(str::len), Some(32));

    let output = agent(&join);
    assert!(err(&output).contains("TOKEN_MISSING") && err(&output).contains("mend:"), "{}", err(&output));
    let status = json(&agent(&["status", "--root", path(&root), "-o", "json"]));
    assert_eq!(status["diagnosis"]["code"], "TOKEN_MISSING");
    assert_eq!(status["server"], "127.0.0.1:1");
}

#[test]
fn a_token_on_the_command_line_works_with_a_warning_and_is_not_repeated() {
    let root = root();
    let slip = "berth1.aaaaaaaaaa.secretsecretsecretsecretsecretse.x.y";
    let output = agent(&[
        "join",
        "127.0.0.1:1",
        "--root",
        path(&root),
        "--node-name",
        "n1",
        "--no-wait",
        "--token",
        slip,
    ]);
    assert_eq!(output.status.code(), Some(4), "{}", err(&output));
    assert!(err(&output).contains("warning: the token stands on the command line"), "{}", err(&output));
    assert!(err(&output).contains("TOKEN_MALFORMED"), "{}", err(&output));
    assert!(!(err(&output) + &out(&output)).contains("secretsecret"));
}

#[test]
fn a_check_says_that_no_ca_is_pinned_where_the_token_has_no_pin() {
    let root = root();
    let token = root.path().join("bootstrap-token");
    std::fs::write(&token, "u7k2pw.x91mqz40bhc8ydre\n").expect("writable");
    const KIND: &str = "apiVersion: config.berth.dev/v1alpha1\nkind: AgentConfiguration\n";
    let file = root.path().join("agent.yaml");
    let check = |pins: &str| {
        let settings = format!("{}tokenFile: {}\n{pins}", KIND, token.display());
        std::fs::write(&file, settings).expect("writable");
        let output = agent(&["check", "--root", path(&root), "--config", file.to_str().expect("text")]);
        (out(&output), err(&output))
    };
    let (out, err) = check("");
    assert_eq!(err.lines().filter(|line| line.contains("no CA is pinned")).count(), 1, "{err}");
    assert!(!(out + &err).contains("x91mqz40"));
    let (_, err) = check(&format!("caPins: [\"sha256:{}\"]\n", "ab".repeat(32)));
    assert!(!err.contains("pinned"), "{err}");
    assert!(token.exists(), "a check uses nothing up");
}

#[test]
fn a_token_is_taken_from_one_place_only() {
    let root = root();
    let output = agent(&[
        "join",
        "127.0.0.1:1",
        "--root",
        path(&root),
        "--token",
        "x",
        "--token-file",
        "/nonexistent",
    ]);
    assert_eq!(output.status.code(), Some(3));
    assert!(err(&output).contains("--token-file, --token-fd and --token"), "{}", err(&output));
}

#[test]
fn an_interrupted_join_ends_with_8_and_can_be_reset_without_a_trace() {
    let root = root();
    let token = root.path().join("token");
    std::fs::write(&token, well_formed_token()).expect("writable");
    let directory = root.path().join("machine");
    std::fs::create_dir(&directory).expect("writable");
    let machine = directory.to_str().expect("text");
    let mut join = spawn(&[
        "join",
        "127.0.0.1:1",
        "--root",
        machine,
        "--node-name",
        "n1",
        "--token-file",
        token.to_str().expect("text"),
    ]);
    let mut said = BufReader::new(join.stderr.take().expect("piped"));
    let mut line = String::new();
    while !line.contains("CONNECTION_FAILED") {
        line.clear();
        assert_ne!(said.read_line(&mut line).expect("text"), 0, "it ended before it waited");
    }
    let pid = rustix::process::Pid::from_raw(i32::try_from(join.id()).expect("a pid")).expect("not 0");
    let status = json(&agent(&["status", "--root", machine, "-o", "json"]));
    assert_eq!(status["agentPid"], join.id());
    let second = agent(&["join", "127.0.0.1:1", "--root", machine]);
    assert_eq!(second.status.code(), Some(1));
    assert!(err(&second).contains(&format!("(pid {})", join.id())), "{}", err(&second));

    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    assert_eq!(join.wait().expect("it ends").code(), Some(8));
    assert!(token.exists(), "a token that was not used is not lost");

    let would = json(&agent(&["reset", "--root", machine, "--dry-run", "-o", "json"]));
    assert!(!is_empty(&directory));
    let did = json(&agent(&["reset", "--root", machine, "-o", "json"]));
    assert_eq!(would["removed"], did["removed"]);
    assert!(would["removed"].as_array().is_some_and(|removed| !removed.is_empty()));
    let left: Vec<_> = files_below(&directory);
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn the_service_manager_is_told_what_the_join_waits_for() {
    let root = root();
    let token = root.path().join("token");
    std::fs::write(&token, well_formed_token()).expect("writable");
    let socket = root.path().join("notify");
    let manager = UnixDatagram::bind(&socket).expect("a socket");
    manager.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let output = agent_with(
        &["run", "--server", "127.0.0.1:1", "--root", path(&root), "--node-name", "n1", "--no-wait"],
        &[
            ("NOTIFY_SOCKET", socket.to_str().expect("text")),
            ("BERTH_AGENT_TOKEN_FILE", token.to_str().expect("text")),
        ],
    );
    assert_eq!(output.status.code(), Some(6), "{}", err(&output));
    let mut told = String::new();
    let mut buffer = [0; 4096];
    while !told.contains("waits for CONNECTION_FAILED") {
        let length = manager.recv(&mut buffer).expect("a word before the time is over");
        told += &String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
    }
    assert!(told.contains("STATUS=Joining: initialization"), "{told}");
    assert!(!told.contains("READY=1"), "{told}");
}

#[expect(clippy::disallowed_methods, reason = "the tests' other place that starts processes")]
fn spawn(arguments: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_berth-agent"));
    command.args(arguments).env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().expect("the program starts")
}

/// Regular files and links below a directory.
fn files_below(directory: &Path) -> Vec<PathBuf> {
    let entries =
        std::fs::read_dir(directory).expect("it is there").map(|entry| entry.expect("readable").path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

fn well_formed_token() -> String {
    use berth_domain::identity::SpkiHash;
    use berth_domain::token::{JoinToken, MINT_ENTROPY};
    let token = JoinToken::mint(&zeroize::Zeroizing::new([7; MINT_ENTROPY]), SpkiHash::of(b"ca"));
    token.to_text().to_string()
}
