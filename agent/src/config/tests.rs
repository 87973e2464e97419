use std::error::Error as _;

use super::*;

fn file(text: &str) -> Result<AgentConfiguration, FileError> {
    AgentConfiguration::parse(text, Path::new("agent.yaml"))
}

const HEAD: &str = "apiVersion: config.berth.dev/v1alpha1\nkind: AgentConfiguration\n";

#[test]
fn each_source_overrules_the_one_behind_it() {
    let parsed = file(&format!("{HEAD}server: file:1\npool: gpu\nnodeName: from-file\n")).expect("legal");
    let given = Given {
        server: Some(("flag:1".parse().expect("legal"), Origin::Flag("ENDPOINT".to_owned()))),
        node_name: Some(("from-env".to_owned(), Origin::Environment("BERTH_AGENT_NODE_NAME".to_owned()))),
        ..Given::default()
    };
    let settings = Settings::resolve(given, Some(("agent.yaml".into(), parsed)), &Defaults::COMMAND);
    assert_eq!(settings.server.value.map(|server| server.to_string()), Some("flag:1".to_owned()));
    assert_eq!(settings.server.origin, Origin::Flag("ENDPOINT".to_owned()));
    assert_eq!(settings.node_name.value.as_deref(), Some("from-env"));
    assert_eq!(settings.pool.origin, Origin::File("agent.yaml".into()));
    assert_eq!(settings.timeout, Setting { value: Some(JOIN_TIMEOUT), origin: Origin::Default });
}

#[test]
fn the_service_waits_without_end_unless_told_otherwise() {
    let settings = Settings::resolve(Given::default(), None, &Defaults::SERVICE);
    assert_eq!(settings.timeout.value, None);
    let parsed = file(&format!("{HEAD}timeout: 90s\n")).expect("legal");
    let settings = Settings::resolve(Given::default(), Some(("f".into(), parsed)), &Defaults::SERVICE);
    assert_eq!(settings.timeout.value, Some(Duration::from_secs(90)));
}

#[test]
fn an_unknown_field_is_refused_with_its_path_and_line() {
    let refused = file(&format!("{HEAD}server: a:1\nnodename: n1\n")).expect_err("nodename is no field");
    assert!(refused.to_string().starts_with("agent.yaml:4:1: nodename is not understood"), "{refused}");
    let cause = refused.source().expect("it is kept").to_string();
    assert!(cause.contains("nodename") && cause.contains("nodeName"), "{cause}");
}

#[test]
fn a_value_outside_its_grammar_is_refused_where_it_stands() {
    for (line, wanted) in [
        ("server: http://a:1", "without http://"),
        ("caPins: [sha256:00]", "64 hexadecimal digits"),
        ("pool: Big_Pool", "'B'"),
        ("ignorePreflightErrors: [Swop]", "Swop"),
        ("timeout: soon", "90s, 10m or 1h"),
        ("logFormat: xml", "xml"),
    ] {
        let refused = file(&format!("{HEAD}{line}\n")).expect_err(line);
        assert!(refused.to_string().starts_with("agent.yaml:3:"), "{refused}");
        let cause = refused.source().expect("it is kept").to_string();
        assert!(cause.contains(wanted), "{line}: {cause}");
    }
}

#[test]
fn a_file_of_another_kind_or_version_is_refused() {
    for text in [
        "apiVersion: config.berth.dev/v1alpha1\nkind: ServerConfiguration\n",
        "apiVersion: config.berth.dev/v9\nkind: AgentConfiguration\n",
        "kind: AgentConfiguration\n",
        "server: a:1\n",
    ] {
        assert!(file(text).is_err(), "{text}");
    }
}

#[test]
fn the_printed_defaults_are_a_file_that_changes_nothing() {
    let printed = file(PRINT_DEFAULTS).expect("what is printed can be read");
    let of_file = Settings::resolve(Given::default(), Some(("f".into(), printed)), &Defaults::COMMAND);
    let of_nothing = Settings::resolve(Given::default(), None, &Defaults::COMMAND);
    let values =
        |settings| rows(&settings).into_iter().map(|row| (row.setting, row.value)).collect::<Vec<_>>();
    let names: Vec<_> = rows(&of_nothing).iter().map(|row| row.setting).collect();
    for name in names {
        assert!(PRINT_DEFAULTS.contains(&format!("\n{name}:")), "{name} is missing");
    }
    assert_eq!(values(of_file), values(of_nothing));
}

#[test]
fn a_missing_file_is_an_error_only_where_it_was_asked_for() {
    let missing = Path::new("/nonexistent/agent.yaml");
    assert!(matches!(read(Some(missing)), Err(FileError::Read { .. })));
}
