//! The manifests themselves: they render, the API server takes them, its admission
//! lets their Pods in, and docs/kubernetes.md says of the rights what they say.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::world::{manifests, text, world};

#[test]
fn every_overlay_is_taken_by_the_api_server() {
    let Some(world) = world() else { return };
    let scratch = tempfile::tempdir().expect("a directory");
    let copied = scratch.path().join("kubernetes");
    copy(&manifests("."), &copied);
    let components: Vec<String> = names(&manifests("components"));
    assert!(components.len() > 3, "{components:?}");
    let mut rendered: Vec<_> =
        names(&manifests("overlays")).iter().map(|name| copied.join("overlays").join(name)).collect();
    for component in components {
        let overlay = copied.join(format!("with-{component}"));
        let kustomization = format!("resources: [../base]\ncomponents: [../components/{component}]\n");
        fs::create_dir(&overlay).expect("a directory");
        fs::write(overlay.join("kustomization.yaml"), kustomization).expect("a file");
        rendered.push(overlay);
    }
    for overlay in rendered {
        let overlay = overlay.to_str().expect("a path");
        let said = world.cluster.kubectl(&[
            "apply",
            "--dry-run=server",
            "--server-side",
            "--force-conflicts",
            "-k",
            overlay,
        ]);
        said.unwrap_or_else(|error| panic!("{overlay}: {error:#}"));
    }
}

#[test]
fn the_policies_know_the_fields_that_they_speak_of() {
    let Some(world) = world() else { return };
    let path = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
    let checked = || -> Vec<(String, String)> {
        let list = world.cluster.api().get(path).expect("the API server answers");
        let items = list.pointer("/items").and_then(|items| items.as_array()).cloned().unwrap_or_default();
        let berths = items.iter().filter(|policy| text(policy, "/metadata/name").starts_with("berth-"));
        let status =
            |policy: &serde_json::Value| policy.pointer("/status/typeChecking").map(ToString::to_string);
        berths.filter_map(|policy| Some((text(policy, "/metadata/name"), status(policy)?))).collect()
    };
    // kube-controller-manager checks them some moments after they are made.
    let all = || if checked().len() == 7 { 200 } else { 0 };
    assert_eq!(world.until_status(200, all), 200, "checked so far: {:?}", checked());
    for (name, found) in checked() {
        assert_eq!(found, "{}", "{name} has warnings");
    }
}

#[test]
fn the_pods_are_admitted_where_the_namespace_is_restricted() {
    let Some(world) = world() else { return };
    let count = || {
        let path = "/api/v1/namespaces/berth-system/pods?labelSelector=app.kubernetes.io/name%3Dberth-server";
        let pods = world.cluster.api().get(path).expect("the API server answers");
        pods.pointer("/items").and_then(|items| items.as_array()).map_or(0, Vec::len)
    };
    let three = || if count() == 3 { 200 } else { 0 };
    assert_eq!(world.until_status(200, three), 200, "{} of 3 Pods were made", count());
}

#[test]
fn the_image_is_that_of_this_version() {
    let base = fs::read_to_string(manifests("base/kustomization.yaml")).expect("the base is there");
    assert!(base.contains(&format!("newTag: {}\n", env!("CARGO_PKG_VERSION"))), "{base}");
}

/// `UPDATE_GOLDEN=1` writes the table anew.
#[test]
fn the_documentation_tells_the_rights_as_they_are() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/kubernetes.md");
    let old = fs::read_to_string(&page).expect("the page is there");
    let (before, rest) = old.split_once(BEGIN).expect("the table begins somewhere");
    let (_, after) = rest.split_once(END).expect("the table ends somewhere");
    let new = format!("{before}{BEGIN}\n{}{END}{after}", table());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&page, new).expect("the page is written");
        return;
    }
    assert!(
        old == new,
        "docs/kubernetes.md tells other rights; to mend: UPDATE_GOLDEN=1, and read the difference"
    );
}

/// All rules as a table, in the order of the files.
fn table() -> String {
    let mut table = String::new();
    for file in ["base/cluster-role.yaml", "base/roles.yaml", "components/bootstrap-tokens/role.yaml"] {
        let source = fs::read_to_string(manifests(file)).expect("the manifest is there");
        for document in source.split("\n---\n").filter(|document| document.contains("\nrules:\n")) {
            let namespace = document.lines().find_map(|line| line.strip_prefix("  namespace: "));
            let whose = match namespace {
                Some(namespace) => format!("In the namespace `{namespace}`"),
                None => "In the whole cluster".to_owned(),
            };
            writeln!(table, "\n{whose} (`{file}`):\n\n| may | why |\n|---|---|").expect("a string");
            for (rule, reason) in rules(document) {
                writeln!(table, "| {} | {reason} |", shown(rule)).expect("a string");
            }
        }
    }
    table + "\n"
}

/// Each rule with the comment right before it.
fn rules(document: &str) -> Vec<(&str, &str)> {
    let (_, rules) = document.split_once("\nrules:\n").expect("it has rules");
    let lines: Vec<&str> = rules.lines().collect();
    let rules: Vec<(&str, &str)> = lines
        .chunks(2)
        .map(|pair| match pair {
            [reason, rule] => {
                let reason = reason.strip_prefix("# ").unwrap_or_else(|| panic!("{rule} has no reason"));
                (rule.strip_prefix("- ").unwrap_or_else(|| panic!("not a rule on one line: {rule}")), reason)
            }
            other => panic!("a reason and a rule were to stand here: {other:?}"),
        })
        .collect();
    assert!(!rules.is_empty(), "{document}");
    rules
}

/// `get, list` `nodes`, with the group and the names where there are any.
fn shown(rule: &str) -> String {
    let list = |field: &str| -> String {
        let start = rule.split_once(&format!("{field}: [")).map(|(_, rest)| rest);
        let list = start.and_then(|rest| rest.split_once(']')).map_or("", |(list, _)| list);
        list.replace('"', "")
    };
    let (group, names) = (list("apiGroups"), list("resourceNames"));
    let mut shown = format!("{} `{}`", list("verbs"), list("resources"));
    if !group.is_empty() {
        write!(shown, " of {group}").expect("a string");
    }
    if !names.is_empty() {
        write!(shown, ", only `{names}`").expect("a string");
    }
    shown
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("the directory is there");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a directory");
    for name in names(from) {
        let (from, to) = (from.join(&name), to.join(&name));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(&from, &to).expect("a copy");
        }
    }
}

const BEGIN: &str = "<!-- rights: written by the test of the manifests -->";
const END: &str = "<!-- end of rights -->";
