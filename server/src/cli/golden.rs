//! What the golden tests of the commands share.

use berth_domain::timestamp::Timestamp;

/// Compares with tests/golden/NAME.snap; `cargo insta review` takes a change over.
pub(super) fn golden(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(format!("cli-{name}"), text));
}

/// As it is read where there are no colours.
pub(super) fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

/// The moment at which the goldens were printed.
pub(super) fn now() -> Timestamp {
    "2026-11-23T19:00:00Z".parse().expect("a moment")
}
