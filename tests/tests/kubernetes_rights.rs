//! Each right of the server's account is needed: taken away alone, whoever needs
//! it says so, with the verb, the resource and the rule to add: a join at its
//! agent, an operator's command in its answer, work that nobody waits for in the
//! server's log. A rule that is in no row here is a rule too many.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of a test stop it where its world is not as it must be"
)]

use std::net::SocketAddr;
use std::time::Duration;

use berth_kubernetes::{Component, Deed, NAMESPACE, Scope};
use berth_tests::{Agent, KubernetesWorld, Running, eventually, leaving_right, own_address};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);

/// The server cleans up once a minute at most.
const A_ROUND: Duration = Duration::from_secs(70);

const SCOPES: [Scope<'static>; 5] =
    [None, Some(NAMESPACE), Some("default"), Some("kube-system"), Some("kube-public")];

/// Who says that a right is missing.
enum Teller {
    /// A join, at its agent.
    Agent(Running),
    /// A process that starts.
    Start(Running),
    /// An operator's command.
    Operator(String),
    /// The server's log, from this byte on.
    Log(usize),
}

#[test]
fn each_right_that_is_taken_away_is_named_by_whoever_needs_it() {
    let Some(mut world) = KubernetesWorld::start(1, &json!({})) else { return };
    let base = world.machine("base");
    let token = world.token(&[]);
    let joined = world.join(&base, &token, &[]);
    assert_eq!(joined.ended.code, Some(0), "{}", joined.ended.all());
    let mut silent = Vec::new();
    for scope in SCOPES {
        let all = world.cluster.rules(scope).expect("rules");
        for (place, rule) in all.iter().enumerate() {
            // `machine.rs` takes away what is needed where a node with pods leaves.
            if is_of_cleaning(rule) || is_of_serving(rule) || leaving_right(rule).is_some() {
                continue;
            }
            let mut rest = all.clone();
            rest.remove(place);
            without(&world, scope, rule, &rest);
            let name = format!("m{}-{place}", scope.unwrap_or("cluster"));
            let said = provoke(&mut world, &name, rule);
            if !is_named(&world, said, rule) {
                silent.push(format!("{scope:?}: {rule}"));
            }
            with(&world, scope, rule, &all);
        }
    }
    assert!(silent.is_empty(), "nobody names these when they are gone: {silent:#?}");
}

#[test]
fn the_cleaner_names_the_rights_that_it_lacks() {
    let Some(world) = KubernetesWorld::start(1, &json!({})) else { return };
    let scope = Some(NAMESPACE);
    let all = world.cluster.rules(scope).expect("rules");
    let leases: Vec<&Value> = all.iter().filter(|rule| rule["resources"] == json!(["leases"])).collect();
    assert_eq!(leases.len(), 2, "one to make it, one to hold it: {leases:#?}");
    for rule in leases {
        let rest: Vec<Value> = all.iter().filter(|other| *other != rule).cloned().collect();
        without(&world, scope, rule, &rest);
        let from = log(&world).len();
        eventually("the cleaner's word", A_ROUND, || names(log(&world).get(from..)?, rule).then_some(()));
        with(&world, scope, rule, &all);
    }
}

/// What cleaning alone needs: its rounds are a minute apart, and a test of its own
/// waits for them. Tokens are deleted a week after their end: no test waits so long.
fn is_of_cleaning(rule: &Value) -> bool {
    let is = |resource: &str| rule["resources"] == json!([resource]);
    (is("leases") && rule["resourceNames"] != json!(["kube-controller-manager"]))
        || (is("jointokens") && rule["verbs"] == json!(["delete"]))
}

/// What is needed where a kubelet has an address of its own: `machine.rs` takes it away.
fn is_of_serving(rule: &Value) -> bool {
    rule["resourceNames"] == json!(["kubernetes.io/kubelet-serving"])
}

/// Does what needs this rule.
fn provoke(world: &mut KubernetesWorld, name: &str, rule: &Value) -> Teller {
    let from = log(world).len();
    let named = rule["resourceNames"][0].as_str().unwrap_or_default();
    match (resource(rule), verb(rule), named) {
        (_, "list" | "get", "") | ("namespaces", ..) => Teller::Start(start(world, name)),
        ("configmaps", _, "extension-apiserver-authentication") | ("nodes", "create", _) => {
            let _waits = join(world, name, &[], false);
            let told = || names(log(world).get(from..)?, rule).then_some(());
            // While a machine waits for its kubelet.
            eventually(&format!("a word on {rule}"), PATIENCE, told);
            Teller::Log(from)
        }
        ("nodejoins", "update", _) => {
            let _waits = join(world, name, &["--approval"], false);
            let id = eventually("a join that waits", PATIENCE, || {
                let listed = world.servers[0].admin_json(&["joins", "list"]);
                let joins = listed["joins"].as_array().cloned().unwrap_or_default();
                let join = joins.into_iter().find(|join| join["diagnosis"]["code"] == "APPROVAL_PENDING")?;
                // Its object is there: then the word changes it.
                let id = join["id"].as_str()?.to_owned();
                world.get(&format!("/apis/berth.dev/v1alpha1/nodejoins/{id}")).map(|_| id)
            });
            operator(world, &["joins", "approve", &id])
        }
        ("nodejoins", "delete", _) => operator(world, &["nodes", "forget", "base"]),
        ("machinebans", "create", _) => operator(world, &["nodes", "ban", "base", "--reason", "a test"]),
        ("machinebans", "delete", _) => {
            let banned = world.servers[0].admin(&["nodes", "ban", "base", "--reason", "a test"]);
            assert_eq!(banned.code, Some(0), "{}", banned.all());
            operator(world, &["nodes", "unban", "base"])
        }
        ("jointokens", "create", _) => operator(world, &["token", "create"]),
        ("nodeprofiles/status", ..) => {
            let profile = json!({
                "apiVersion": "berth.dev/v1alpha1", "kind": "NodeProfile",
                "metadata": { "name": "gpu" }, "spec": { "labels": { "rack": "r1" } },
            });
            world.cluster.apply(&profile.to_string()).expect("it is taken");
            Teller::Log(from)
        }
        ("secrets", "create", _) => {
            let token = json!({
                "apiVersion": "berth.dev/v1alpha1", "kind": "JoinToken",
                "metadata": { "name": "applied", "namespace": NAMESPACE }, "spec": { "ttl": "1h" },
            });
            world.cluster.apply(&token.to_string()).expect("it is taken");
            Teller::Log(from)
        }
        ("events", ..) => {
            let _joins = join(world, name, &[], true);
            world.cluster.wait_for_node(name, PATIENCE).expect("its kubelet runs");
            eventually("a Joined Event", PATIENCE, || names(log(world).get(from..)?, rule).then_some(()));
            Teller::Log(from)
        }
        ("leases", _, "kube-controller-manager") => {
            world.cluster.kill(Component::ControllerManager).expect("it runs");
            let waits = join(world, name, &[], false);
            eventually("a word on the lease", PATIENCE, || {
                names(&plain(&waits.stdout()), rule).then_some(())
            });
            world.cluster.start_again(Component::ControllerManager).expect("it starts");
            Teller::Agent(waits)
        }
        ("configmaps", ..) => {
            // What it has read is good for half a minute: it shall read it now.
            let _killed = world.servers[0].kill();
            world.servers[0].start_again();
            Teller::Agent(join(world, name, &[], false))
        }
        ("nodes", "patch", _) | ("nodejoins/status", ..) => Teller::Agent(join(world, name, &[], true)),
        ("nodejoins" | "certificatesigningrequests" | "certificatesigningrequests/approval", ..)
        | ("signers" | "jointokens/status", ..) => Teller::Agent(join(world, name, &[], false)),
        other => panic!("what needs {other:?}? {rule}"),
    }
}

fn operator(world: &KubernetesWorld, arguments: &[&str]) -> Teller {
    Teller::Operator(world.servers[0].admin(arguments).all())
}

fn is_named(world: &KubernetesWorld, teller: Teller, rule: &Value) -> bool {
    let until = std::time::Instant::now() + PATIENCE;
    let said = || match &teller {
        Teller::Agent(agent) => plain(&agent.stdout()),
        Teller::Start(server) => format!("{}{}", server.stdout(), server.stderr()),
        Teller::Operator(said) => plain(said),
        Teller::Log(from) => log(world).get(*from..).unwrap_or_default().to_owned(),
    };
    while !names(&said(), rule) {
        if std::time::Instant::now() > until || matches!(teller, Teller::Operator(_)) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    true
}

/// Whether the rule is told as it is to be added.
fn names(said: &str, rule: &Value) -> bool {
    let verbs = rule["verbs"].as_array().cloned().unwrap_or_default();
    let (group, resource) = (rule["apiGroups"][0].as_str().unwrap_or_default(), resource(rule));
    verbs.iter().filter_map(Value::as_str).any(|verb| {
        said.contains(&format!(
            "- {{apiGroups: [\"{group}\"], resources: [\"{resource}\"], verbs: [\"{verb}\"]"
        ))
    })
}

/// JSON as it reads.
fn plain(text: &str) -> String {
    text.replace("\\\"", "\"")
}

fn log(world: &KubernetesWorld) -> String {
    world.servers[0].process().stderr()
}

/// A join that is under way, with a kubelet as soon as it can have one, or without.
fn join(world: &mut KubernetesWorld, name: &str, flags: &[&str], kubelet: bool) -> Running {
    let token = world.token(flags);
    let machine: Agent = world.machine(name);
    let mut running = machine.start_join(world.balancer.endpoint(), &token, &[]);
    if kubelet {
        world.start_kubelet(&machine, &mut running);
    }
    running
}

/// One more replica, which may never be ready.
fn start(world: &KubernetesWorld, name: &str) -> Running {
    let address = own_address();
    let folder = world.machine(name);
    let listen = |port| SocketAddr::from((address, port)).to_string();
    let configuration = json!({
        "apiVersion": "config.berth.dev/v1alpha1",
        "kind": "ServerConfiguration",
        "dataDir": folder.root(),
        "joinListen": listen(18443),
        "advertise": listen(18443),
        "healthListen": listen(18480),
        "adminSocket": folder.path("admin.sock"),
        "backend": "kubernetes",
        "kubernetes": {
            "kubeconfig": world.cluster.account().expect("a kubeconfig of the account"),
            "namespace": NAMESPACE,
        },
    });
    let file = folder.path("server.yaml");
    std::fs::write(&file, configuration.to_string()).expect("a configuration file");
    Running::start("berth-server", |command| {
        command.arg("run").arg("--config").arg(file);
    })
}

/// Takes a rule away, and waits until the API server heeds that.
fn without(world: &KubernetesWorld, scope: Scope<'_>, rule: &Value, rest: &[Value]) {
    world.cluster.set_rules(scope, rest).expect("it is taken");
    heeded(world, scope, rule, false);
}

/// Gives all back.
fn with(world: &KubernetesWorld, scope: Scope<'_>, rule: &Value, all: &[Value]) {
    world.cluster.set_rules(scope, all).expect("it is taken");
    heeded(world, scope, rule, true);
}

fn heeded(world: &KubernetesWorld, scope: Scope<'_>, rule: &Value, allowed: bool) {
    let deed = Deed {
        namespace: scope,
        verb: rule["verbs"].as_array().and_then(|verbs| verbs.last()?.as_str()).unwrap_or_default(),
        group: rule["apiGroups"][0].as_str().unwrap_or_default(),
        resource: resource(rule),
        name: rule["resourceNames"][0].as_str().unwrap_or_default(),
    };
    eventually(&format!("{deed:?} that is {allowed}"), PATIENCE, || {
        (world.cluster.account_may(&deed).expect("an answer") == allowed).then_some(())
    });
}

fn resource(rule: &Value) -> &str {
    rule["resources"][0].as_str().unwrap_or_default()
}

fn verb(rule: &Value) -> &str {
    rule["verbs"][0].as_str().unwrap_or_default()
}
