//! The program as it is called: streams, exit statuses, and a server that runs.

#![expect(clippy::expect_used, reason = "a test that panics has failed, as it should")]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

#[expect(clippy::disallowed_methods, reason = "the tests' one place that starts processes")]
fn command(arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_berth-server"));
    command.args(arguments).env_clear().envs(environment.iter().copied()).stdin(Stdio::null());
    command
}

fn server(arguments: &[&str]) -> Output {
    server_with(arguments, &[])
}

fn server_with(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    command(arguments, environment).output().expect("the program starts")
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| unreachable!("{error}: {}", err(output)))
}

fn file(directory: &Path, text: &str) -> PathBuf {
    let path = directory.join("server.yaml");
    let head = "apiVersion: config.berth.dev/v1alpha1\nkind: ServerConfiguration\n";
    std::fs::write(&path, format!("{head}{text}")).expect("writable");
    path
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

#[test]
fn a_wrong_command_line_ends_with_3() {
    for arguments in [
        &[][..],
        &["tokn"],
        &["token", "create", "--uses", "0"],
        &["run", "--join-listen", "everywhere"],
        &["run", "--config", "/nonexistent/server.yaml"],
        &["config", "check", "--log-level", "=="],
        &["config", "check", "--joins-in-flight", "0"],
    ] {
        let output = server(arguments);
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {}", err(&output));
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn help_version_completions_and_the_manual_are_results() {
    for arguments in [
        &["--help"][..],
        &["--version"],
        &["token", "create", "--help"],
        &["completion", "bash"],
        &["man"],
        &["version"],
    ] {
        let output = server(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", err(&output));
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{arguments:?}");
    }
    assert_eq!(json(&server(&["version", "-o", "json"]))["program"], "berth-server");
}

#[test]
fn without_a_server_the_exit_status_is_6_and_the_mend_is_said() {
    let directory = directory();
    let socket = directory.path().join("admin.sock");
    let output = server(&["joins", "list", "--admin-socket", socket.to_str().expect("text")]);
    assert_eq!(output.status.code(), Some(6));
    assert!(output.stdout.is_empty());
    assert!(err(&output).contains("berth-server run"), "{}", err(&output));
}

#[test]
fn the_settings_are_told_with_their_origins() {
    let directory = directory();
    let path = file(
        directory.path(),
        "advertise: file:1\nlimits: { queue: 9 }\npolicy: { certificateLifetime: 1h }\n",
    );
    let config = path.to_str().expect("text");
    let environment = [
        ("BERTH_SERVER_ADVERTISE", "env:1"),
        ("BERTH_SERVER_QUEUE", "8"),
        ("BERTH_SERVER_API_ENDPOINTS", "https://a:6443,https://b:6443"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317"),
    ];
    let arguments = ["config", "check", "--config", config, "--advertise", "flag:1", "-o", "json"];
    let report = json(&server_with(&arguments, &environment));
    let settings = report["settings"].as_array().expect("a list");
    let row = |name: &str| {
        let row = settings.iter().find(|row| row["setting"] == name).expect("listed");
        (row["value"].as_str().expect("text").to_owned(), row["from"].as_str().expect("text").to_owned())
    };
    let pair = |value: &str, from: String| (value.to_owned(), from);
    assert_eq!(row("advertise"), pair("flag:1", "flag --advertise".to_owned()));
    assert_eq!(row("limits.queue"), pair("8", "environment BERTH_SERVER_QUEUE".to_owned()));
    assert_eq!(row("policy.certificateLifetime"), pair("1h", format!("file {config}")));
    let endpoints = "https://a:6443, https://b:6443";
    assert_eq!(
        row("cluster.apiEndpoints"),
        pair(endpoints, "environment BERTH_SERVER_API_ENDPOINTS".to_owned())
    );
    let collector = "environment OTEL_EXPORTER_OTLP_ENDPOINT".to_owned();
    assert_eq!(row("telemetry.otlpEndpoint"), pair("http://c:4317", collector));
    assert_eq!(row("attendance.gracePeriod"), pair("40s", "default".to_owned()));
}

#[test]
fn what_is_wrong_with_the_file_is_told_with_its_place() {
    let directory = directory();
    let path = file(directory.path(), "policy:\n  certificateLifetme: 1h\n");
    let output = server(&["config", "check", "--config", path.to_str().expect("text")]);
    assert_eq!(output.status.code(), Some(3));
    assert!(err(&output).contains("server.yaml:4:3: policy"), "{}", err(&output));

    let path = file(directory.path(), "limits: { joinsInFlight: 0 }\nadvertise: nowhere\n");
    let output = server(&["config", "check", "--config", path.to_str().expect("text")]);
    assert_eq!(output.status.code(), Some(3));
    let told = err(&output);
    assert!(told.contains("advertise") && told.contains("limits.joinsInFlight"), "{told}");
}

#[test]
fn the_printed_defaults_are_accepted() {
    let directory = directory();
    let path = directory.path().join("server.yaml");
    std::fs::write(&path, server(&["config", "print-defaults"]).stdout).expect("writable");
    let output = server(&["config", "check", "--config", path.to_str().expect("text")]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
}

/// A server that runs until it is dropped.
struct Running {
    child: Child,
    directory: tempfile::TempDir,
    line: String,
}

impl Running {
    fn start() -> Self {
        Self::healthy_at("127.0.0.1:0")
    }

    fn healthy_at(health: &str) -> Self {
        let directory = directory();
        let data = directory.path().join("data");
        let data = data.to_str().expect("text");
        let listen = ["run", "--data-dir", data, "--join-listen", "127.0.0.1:0", "--health-listen", health];
        let mut child =
            command(&listen, &[]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let line = stdout.lines().map_while(Result::ok).find(|line| line.contains("berth-agent join"));
        Self { child, directory, line: line.expect("it prints the line to paste") }
    }

    fn ask(&self, arguments: &[&str]) -> Output {
        let data = self.directory.path().join("data");
        let all = [arguments, &["--data-dir", data.to_str().expect("text")]].concat();
        server(&all)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already: then there is nothing to end.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[test]
fn tokens_of_a_server_that_runs_are_made_listed_and_revoked() {
    let running = Running::start();
    assert!(
        running.line.contains("printf %s 'berth1.") && running.line.contains("--token-file -"),
        "{}",
        running.line
    );

    let made = running.ask(&["token", "create", "--name", "n1", "--label", "rack=r1", "-o", "json"]);
    assert_eq!(made.status.code(), Some(0), "{}", err(&made));
    let made = json(&made);
    let (token, id) = (made["token"].as_str().expect("a token"), made["id"].as_str().expect("an id"));
    assert!(made["joinCommand"].as_str().expect("a line").contains(token));

    let line = running.ask(&["token", "create", "--print-join-command"]);
    assert_eq!(out(&line).lines().count(), 1, "{}", out(&line));

    let listed = running.ask(&["token", "list", "-o", "json"]);
    assert!(!out(&listed).contains(token), "a list has no secrets");
    assert_eq!(json(&listed)["tokens"].as_array().map(Vec::len), Some(3), "with the one of the first start");
    let names = out(&running.ask(&["token", "list", "-o", "name"]));
    assert!(names.lines().any(|line| line == format!("token/{id}")), "{names}");
    let table = out(&running.ask(&["token", "list", "--no-headers"]));
    assert!(table.lines().count() == 3 && !table.contains("EXPIRES"), "{table}");
    let yaml: serde_json::Value =
        serde_saphyr::from_str(&out(&running.ask(&["token", "list", "-o", "yaml"]))).expect("it is YAML");
    assert_eq!(yaml, json(&listed));

    assert_eq!(running.ask(&["token", "revoke", id]).status.code(), Some(0));
    let unknown = running.ask(&["token", "revoke", "aaaaaaaaaa"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(err(&unknown).contains("token list"), "{}", err(&unknown));
    let long = running.ask(&["token", "create", "--ttl", "40d"]);
    assert_eq!(long.status.code(), Some(3));
    assert!(err(&long).contains("ttl"), "{}", err(&long));
    assert_eq!(running.ask(&["nodes", "show", "n1"]).status.code(), Some(1));
    assert_eq!(
        json(&running.ask(&["joins", "list", "-o", "json"]))["joins"].as_array().map(Vec::len),
        Some(0)
    );
}

#[test]
fn the_program_asks_after_its_own_health() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
    let address = port.expect("a free port").to_string();
    let ask = ["health", "--health-listen", &address];
    let nobody = server(&ask);
    assert_eq!(nobody.status.code(), Some(6), "{}", err(&nobody));
    assert!(err(&nobody).contains("berth-server run"), "{}", err(&nobody));

    let _running = Running::healthy_at(&address);
    for probe in ["ready", "live", "startup"] {
        let well = server(&[&ask[..], &["--probe", probe]].concat());
        assert_eq!(well.status.code(), Some(0), "{}", err(&well));
        assert!(out(&well).contains("check passed"), "{}", out(&well));
    }
}
