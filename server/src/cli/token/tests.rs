use berth_domain::identity::SpkiHash;
use berth_domain::token::MINT_ENTROPY;

use serde_json::Value;

use super::*;
use crate::cli::golden::{golden, now, plain};

fn token() -> JoinToken {
    JoinToken::mint(&Zeroizing::new([7; MINT_ENTROPY]), SpkiHash::of(b"ca"))
}

fn made(endpoint: &str) -> Handover {
    handover(v1::CreateTokenResponse {
        token: token().to_text().to_string(),
        record: Some(record()),
        endpoint: endpoint.to_owned(),
    })
}

fn record() -> v1::Token {
    v1::Token {
        id: token().id.to_string(),
        binding: Some(v1::TokenBinding {
            names: "rack1-*".to_owned(),
            pool: "gpu".to_owned(),
            uses: 20,
            networks: vec!["10.0.0.0/8".to_owned()],
            labels: [("rack".to_owned(), "r1".to_owned())].into(),
            taints: vec!["dedicated=gpu:NoSchedule".to_owned()],
            approval: false,
        }),
        description: "the new rack".to_owned(),
        created_unix_ms: now().before(Duration::from_secs(180)).millis(),
        created_by: "alice".to_owned(),
        expires_unix_ms: now().after(Duration::from_secs(7_200)).millis(),
        revoked_unix_ms: None,
        revoked_by: String::new(),
        used_by: vec!["j-aaaaaaaaaaaaaaaa".to_owned()],
    }
}

#[test]
fn a_token_is_handed_over_in_every_shape() {
    let made = made("berth.example.com:7443");
    for (name, shape) in [
        ("token-create-text", Shape::Text),
        ("token-create-json", Shape::Json),
        ("token-create-cloud-init", Shape::CloudInit),
        ("token-create-ignition", Shape::Ignition),
        ("token-create-ansible", Shape::Ansible),
        ("token-create-join-command", Shape::JoinCommand),
    ] {
        golden(name, &made.shown(shape));
    }
}

#[test]
fn the_line_to_paste_is_one_line_and_shows_the_secret_to_no_process() {
    let line = join_command(&token(), "h:7443");
    let (builtin, process) = line.split_once(" | ").expect("a pipe");
    assert_eq!(builtin, format!("printf %s '{}'", *token().to_text()));
    assert!(!process.contains("berth1.") && !line.contains('\n'), "{}", *line);
}

#[test]
fn yaml_reads_the_endpoint_and_the_token_as_they_are() {
    let made = made("[2001:db8::1]:7443");
    let documents: [(Shape, &[&str]); 2] = [
        (Shape::CloudInit, &["write_files", "0", "content"]),
        (Shape::Ansible, &["0", "tasks", "0", "ansible.builtin.command", "stdin"]),
    ];
    for (shape, path) in documents {
        let document: Value = serde_saphyr::from_str(&made.shown(shape)).expect("it is YAML");
        let found = document.pointer(&format!("/{}", path.join("/"))).and_then(Value::as_str);
        assert_eq!(found, Some(token().to_text().as_str()), "{shape:?}");
    }
    let document: Value = serde_saphyr::from_str(&made.shown(Shape::CloudInit)).expect("it is YAML");
    let agent = document.pointer("/write_files/1/content").and_then(Value::as_str).expect("a file");
    let agent: Value = serde_saphyr::from_str(agent).expect("it is YAML, too");
    assert_eq!(agent["server"], "[2001:db8::1]:7443");
}

#[test]
fn the_list_shows_what_a_token_is_good_for() {
    let expired = v1::Token { expires_unix_ms: now().millis(), ..record() };
    let revoked = v1::Token {
        revoked_unix_ms: Some(now().millis()),
        revoked_by: "bob".to_owned(),
        description: String::new(),
        ..record()
    };
    let tokens = [record(), expired, revoked];
    golden("token-list-text", &plain(&TOKENS.table(&tokens, false, true, now())));
    golden("token-list-wide", &plain(&TOKENS.table(&tokens, true, true, now())));
    golden("token-list-json", &format!("{:#}", forms::token(&tokens[2])));
}
