use std::time::Duration;

use berth_domain::diagnosis::{Code, Diagnosis, Exit};
use berth_domain::identity::{NodeIdentity, SpkiHash};
use berth_domain::join::JoinId;
use berth_domain::phase::Phase;
use berth_domain::timestamp::Timestamp;
use berth_telemetry::Outcome;
use serde::Serialize;

use super::*;
use crate::config::{Defaults, Given, Origin, Settings, rows};
use crate::ports::{Left, Undone};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

fn golden(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(format!("cli-{name}"), text));
}

fn golden_json(name: &str, value: &impl Serialize) {
    golden(name, &serde_json::to_string_pretty(value).expect("plain data"));
}

/// As it is read where there are no colours.
fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

fn now() -> Timestamp {
    "2026-11-23T19:00:00Z".parse().expect("a moment")
}

fn spent() -> Diagnosis {
    Diagnosis::new(Code::TokenSpent, Phase::Authentication).with("token", "aaaaaaaaaa").with("uses", 1)
}

fn pending() -> Diagnosis {
    Diagnosis::new(Code::ApprovalPending, Phase::Authorization)
        .with("join", "j-aaaaaaaaaaaaaaaa")
        .with("since", "2026-11-23T18:59:00Z")
}

fn node() -> NodeIdentity {
    NodeIdentity { name: "rack1-n7".parse().expect("a name"), pool: "default".parse().expect("a pool") }
}

fn joined_now() -> Joined {
    Joined {
        node: node(),
        join: JoinId::of(&"aaaaaaaaaa".parse().expect("a token id"), SpkiHash::of(b"key")),
        server: "berth.example.com:7443".to_owned(),
        expires: now().after(Duration::from_secs(6 * 3600)),
        already: false,
        elapsed: Duration::from_millis(184),
        trace_id: Some(TRACE.to_owned()),
    }
}

fn attending() -> Status {
    Status {
        state: State::Joined,
        agent_pid: Some(4711),
        phase: None,
        node: Some("rack1-n7".to_owned()),
        pool: Some("default".to_owned()),
        join: Some("j-aaaaaaaaaaaaaaaa".to_owned()),
        server: Some("berth.example.com:7443".to_owned()),
        expires: Some(now().after(Duration::from_secs(6 * 3600))),
        why: None,
        trace_id: Some(TRACE.to_owned()),
        now: now(),
    }
}

fn fresh() -> Status {
    Status {
        state: State::NotJoined,
        agent_pid: None,
        phase: None,
        node: None,
        pool: None,
        join: None,
        server: None,
        expires: None,
        why: None,
        trace_id: None,
        now: now(),
    }
}

#[test]
fn a_refusal_says_what_proves_it_and_what_mends_it() {
    golden("refusal-text", &plain(&refusal(&spent(), Some(TRACE))));
    golden_json("refusal-json", &ResultView::ended(&spent(), Some(TRACE)));
}

#[test]
fn a_join_is_told_line_by_line() {
    let lines = [
        line(Phase::Initialization, Outcome::Ok, Duration::from_millis(12)),
        line(Phase::Authentication, Outcome::Ok, Duration::from_millis(31)),
        wait(&pending()),
        line(Phase::Authorization, Outcome::Ok, Duration::from_millis(2149)),
        line(Phase::Configuration, Outcome::Failed, Duration::from_secs(90)),
    ];
    golden("progress-text", &plain(&lines.concat()));
    let steps = [
        Step::PhaseBegan { phase: "initialization" },
        Step::Waiting { diagnosis: (&pending()).into() },
        Step::PhaseEnded { phase: "initialization", outcome: "ok", elapsed_millis: 12 },
    ];
    golden_json("progress-json", &steps);
}

#[test]
fn a_join_that_ends_well_says_who_the_node_is() {
    let again = Joined { already: true, ..joined_now() };
    golden("joined-text", &plain(&(joined(&joined_now()) + &joined(&again))));
    golden_json("joined-json", &ResultView::from(&joined_now()));
}

#[test]
fn the_status_tells_how_the_machine_stands() {
    let waiting = Status {
        state: State::Joining,
        phase: Some(Phase::Authorization),
        expires: None,
        why: Some(pending()),
        ..attending()
    };
    let all = [&attending(), &waiting, &fresh()].map(status).join("\n");
    golden("status-text", &plain(&all));
    golden_json("status-json", &[&attending(), &waiting, &fresh()].map(StatusView::from));
}

#[test]
fn a_reset_says_what_it_left_and_why() {
    let undone = Undone {
        restored: vec!["/etc/sysctl.d/90-berth.conf".into()],
        removed: vec!["/etc/kubernetes/kubelet.conf".into()],
        stopped: vec!["kubelet.service".to_owned()],
        left: vec![Left { path: "/etc/kubernetes".into(), why: "it holds files that are not Berth's" }],
    };
    let did = ResetView::of(&undone, Some("rack1-n7".to_owned()), false);
    let would = ResetView { dry_run: true, node: None, ..did.clone() };
    let nothing = ResetView::of(&Undone::default(), None, false);
    golden("reset-text", &plain(&[&did, &would, &nothing].map(reset).join("\n")));
    golden_json("reset-json", &did);
}

#[test]
fn the_exit_status_of_status_is_the_node_s_health() {
    assert_eq!(attending().exit(), None);
    assert_eq!(fresh().exit(), Some(Exit::Other));
    assert_eq!(Status { state: State::Expired, ..attending() }.exit(), Some(Exit::Refused));
    assert_eq!(Status { why: Some(pending()), ..attending() }.exit(), Some(Exit::Unreachable));
}

#[test]
fn the_settings_in_force_say_where_they_come_from() {
    let given = Given {
        server: Some(("h:7443".parse().expect("legal"), Origin::Flag("ENDPOINT".to_owned()))),
        node_name: Some(("n1".to_owned(), Origin::Environment("BERTH_AGENT_NODE_NAME".to_owned()))),
        ..Given::default()
    };
    let file = "apiVersion: config.berth.dev/v1alpha1\nkind: AgentConfiguration\npool: gpu\n";
    let path = std::path::PathBuf::from("/etc/berth/agent.yaml");
    let file = crate::config::AgentConfiguration::parse(file, &path).expect("legal");
    let rows = rows(&Settings::resolve(given, Some((path, file)), &Defaults::COMMAND));
    golden("config-text", &settings(&rows));
    golden_json("config-json", &rows);
}

#[test]
fn a_text_of_a_peer_cannot_draw_on_the_terminal() {
    let why = Diagnosis::new(Code::Unexplained, Phase::Registration).with("evidence", "a\u{1b}[31mb\nc");
    let text = plain(&refusal(&why, None));
    assert!(!text.contains('\u{1b}') && text.contains("a\u{fffd}[31mb\u{fffd}c"), "{text}");
}
