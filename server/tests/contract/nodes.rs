//! What every `Nodes` promises.

use std::sync::Arc;

use berth_domain::diagnosis::Code;
use berth_domain::identity::Digest;
use berth_domain::join::{Entry, Event, State};
use berth_domain::node::{Binding, CertificateTerms, QUOTA_PERIOD, Readiness};
use berth_server::ports::{Observation, Release};
use tokio::task::JoinSet;

use crate::Backend;
use crate::fixtures::{
    all_entries, binding, events_of, facts, join, key, later, name, not_ready, now, refusal, renewal,
    the_node,
};

pub(crate) async fn a_name_goes_to_the_first_of_two_machines(cluster: Arc<dyn Backend>) {
    for (node, first, second) in [("n1", "a", "b"), ("n2", "b", "a")] {
        let bound =
            cluster.bind(&binding(node, first, &format!("{first}-{node}")), now()).await.expect("free");
        let refused =
            refusal(cluster.bind(&binding(node, second, &format!("{second}-{node}")), later(1)).await);
        assert_eq!((refused.code(), refused.value("name")), (Code::NodeNameTaken, Some(node)));
        assert_eq!(the_node(&*cluster, node).await.record, bound, "nothing changed");
    }
    assert_eq!(all_entries(&*cluster).await.len(), 2, "a refused name leaves no entry");
}

pub(crate) async fn one_name_under_a_race_has_one_machine(cluster: Arc<dyn Backend>) {
    let mut racers = JoinSet::new();
    for racer in 0..32 {
        let (cluster, who) = (Arc::clone(&cluster), format!("m{racer}"));
        racers.spawn(async move {
            cluster.bind(&binding("n1", &who, &who), now()).await.ok().map(|node| node.machine)
        });
    }
    let winners: Vec<_> = racers.join_all().await.into_iter().flatten().collect();
    assert_eq!(winners, [the_node(&*cluster, "n1").await.record.machine]);
}

pub(crate) async fn a_machine_reclaims_its_name_with_a_new_key(cluster: Arc<dyn Backend>) {
    cluster.bind(&binding("n1", "m", "old"), now()).await.expect("a free name");
    let again = cluster.bind(&binding("n1", "m", "new"), later(60)).await.expect("its own name");
    assert_eq!((again.key, again.join), (key("new"), join("new")));
    let superseded = refusal(cluster.admit(&name("n1"), key("old"), later(61)).await);
    assert_eq!(superseded.code(), Code::CertificateSuperseded);
    assert!(cluster.admit(&name("n1"), key("new"), later(61)).await.is_ok());
    let before = cluster.join(join("old")).await.expect("an answer").expect("it is kept");
    assert_eq!(before.state, State::Ended, "its name went to a newer join of the same machine");
}

pub(crate) async fn a_renewed_key_takes_over_when_it_is_first_used(cluster: Arc<dyn Backend>) {
    let first = binding("n1", "m", "old");
    cluster.bind(&first, now()).await.expect("a free name");
    cluster.bind(&renewal("n1", "m", "new", &first), later(60)).await.expect("a renewal");
    let still =
        cluster.admit(&name("n1"), key("old"), later(61)).await.expect("good until the new one is used");
    assert_eq!((still.key, still.next_key), (key("old"), Some(key("new"))));
    let taken = cluster.admit(&name("n1"), key("new"), later(62)).await.expect("the renewed key");
    assert_eq!((taken.key, taken.next_key, taken.last_seen), (key("new"), None, later(62)));
    assert_eq!(the_node(&*cluster, "n1").await.record, taken);
    let refused = refusal(cluster.admit(&name("n1"), key("old"), later(63)).await);
    assert_eq!(refused.code(), Code::CertificateSuperseded);
    let refused = refusal(cluster.admit(&name("n1"), key("never"), later(63)).await);
    assert_eq!(refused.code(), Code::CertificateSuperseded);
}

pub(crate) async fn certificates_are_counted_against_the_quota(cluster: Arc<dyn Backend>) {
    let wanted = Binding { quota: 2, ..binding("n1", "m", "k") };
    for _ in 0..2 {
        cluster.bind(&wanted, now()).await.expect("within the quota");
    }
    assert_eq!(refusal(cluster.bind(&wanted, later(1)).await).code(), Code::QuotaReached);
    cluster.bind(&wanted, now().after(QUOTA_PERIOD)).await.expect("the hour is over");
}

pub(crate) async fn each_certificate_has_one_earlier_event(cluster: Arc<dyn Backend>) {
    let mut issued = Vec::new();
    for number in 0..8 {
        let wanted = binding(&format!("n{number}"), &format!("m{number}"), &format!("k{number}"));
        cluster.bind(&wanted, now()).await.expect("a free name");
        let renewed = renewal(&format!("n{number}"), &format!("m{number}"), &format!("r{number}"), &wanted);
        cluster.bind(&renewed, later(5)).await.expect("a renewal");
        issued.extend([(wanted.certificate.serial, false), (renewed.certificate.serial, true)]);
        refusal(cluster.bind(&binding(&format!("n{number}"), "stranger", "x"), later(6)).await);
    }
    let serials = |entry: Entry| {
        let Event::Authorized { serial, renewal, .. } = entry.event else {
            panic!("{entry:?} was not caused");
        };
        (serial, renewal)
    };
    assert_eq!(all_entries(&*cluster).await.into_iter().map(serials).collect::<Vec<_>>(), issued);
}

pub(crate) async fn what_a_signer_has_chosen_is_kept(cluster: Arc<dyn Backend>) {
    let mut wanted = binding("n1", "m", "k");
    wanted.certificate.serial = None;
    let bound = cluster.bind(&wanted, now()).await.expect("a free name");
    assert_eq!(bound.certificate.serial, None, "nobody knows it yet");
    let chosen = CertificateTerms {
        serial: Some("8b01".to_owned()),
        not_before: wanted.certificate.not_before,
        not_after: wanted.certificate.not_after,
    };
    let issued = Observation::Issued {
        serial: "8b01".to_owned(),
        not_before: chosen.not_before,
        not_after: chosen.not_after,
    };
    cluster.observe(&name("n1"), issued, later(1)).await.expect("observed");
    assert_eq!(the_node(&*cluster, "n1").await.record.certificate, chosen);
    let events = all_entries(&*cluster).await;
    let [Event::Authorized { serial: None, .. }, Event::Issued { serial, .. }] =
        [&events[0].event, &events[1].event]
    else {
        panic!("{events:?}");
    };
    assert_eq!((serial.as_str(), events.len()), ("8b01", 2));
}

pub(crate) async fn a_ban_refuses_name_and_key_until_it_is_lifted(cluster: Arc<dyn Backend>) {
    cluster.bind(&binding("n1", "m", "k"), now()).await.expect("a free name");
    let ban = Release::Banned { by: "alice".to_owned(), reason: "stolen".to_owned() };
    assert!(cluster.release(&name("n1"), ban, later(1)).await.expect("an answer"));
    let banned = the_node(&*cluster, "n1").await.ban.expect("it is banned");
    assert_eq!((banned.by.as_str(), banned.reason.as_str(), banned.at), ("alice", "stolen", later(1)));
    let refused = refusal(cluster.admit(&name("n1"), key("k"), later(2)).await);
    assert_eq!(refused.code(), Code::MachineBanned);
    for node in ["n1", "n2"] {
        assert_eq!(
            refusal(cluster.bind(&binding(node, "m", "k2"), later(2)).await).code(),
            Code::MachineBanned
        );
    }
    let refused = refusal(cluster.bind(&binding("n1", "other", "k3"), later(2)).await);
    assert_eq!(refused.code(), Code::NodeNameTaken, "its name stays bound");

    let lift = Release::Unbanned { by: "bob".to_owned() };
    assert!(cluster.release(&name("n1"), lift.clone(), later(3)).await.expect("an answer"));
    assert!(
        !cluster.release(&name("n1"), lift, later(4)).await.expect("an answer"),
        "there is none any more"
    );
    cluster.admit(&name("n1"), key("k"), later(5)).await.expect("it may come back");
    assert_eq!(events_of(&*cluster, join("k")).await, ["Authorized", "Banned", "Unbanned"]);
}

pub(crate) async fn a_ban_outlives_its_name(cluster: Arc<dyn Backend>) {
    cluster.bind(&binding("n1", "m", "k"), now()).await.expect("a free name");
    let ban = Release::Banned { by: "alice".to_owned(), reason: "stolen".to_owned() };
    assert!(cluster.release(&name("n1"), ban, now()).await.expect("an answer"));
    let forget = Release::Forgotten { by: "alice".to_owned() };
    assert!(cluster.release(&name("n1"), forget, later(1)).await.expect("an answer"));
    assert_eq!(refusal(cluster.bind(&binding("n2", "m", "k2"), later(2)).await).code(), Code::MachineBanned);
    cluster.bind(&binding("n1", "other", "k3"), later(3)).await.expect("the name is free");
    assert!(the_node(&*cluster, "n1").await.ban.is_none(), "the new machine is not banned");
    let lift = Release::Unbanned { by: "alice".to_owned() };
    assert!(cluster.release(&name("n1"), lift, later(4)).await.expect("an answer"));
    cluster.bind(&binding("n2", "m", "k2"), later(5)).await.expect("the ban is lifted");
    assert_eq!(events_of(&*cluster, join("k")).await.last(), Some(&"Unbanned"));
}

pub(crate) async fn a_second_ban_changes_nothing(cluster: Arc<dyn Backend>) {
    cluster.bind(&binding("n1", "m", "k"), now()).await.expect("a free name");
    for (by, at) in [("alice", 1), ("bob", 2)] {
        let ban = Release::Banned { by: by.to_owned(), reason: "stolen".to_owned() };
        assert!(cluster.release(&name("n1"), ban, later(at)).await.expect("an answer"));
    }
    assert_eq!(the_node(&*cluster, "n1").await.ban.map(|ban| ban.by), Some("alice".to_owned()));
    assert_eq!(events_of(&*cluster, join("k")).await, ["Authorized", "Banned"]);
}

pub(crate) async fn an_unknown_node_is_refused(cluster: Arc<dyn Backend>) {
    let refused = refusal(cluster.admit(&name("n1"), key("k"), now()).await);
    assert_eq!(refused.code(), Code::CertificateRejected);
    let refused = refusal(cluster.observe(&name("n1"), Observation::Ready, now()).await);
    assert_eq!(refused.code(), Code::CertificateRejected);
    for how in [Release::Left, Release::Unbanned { by: "alice".to_owned() }] {
        assert!(!cluster.release(&name("n1"), how, now()).await.expect("an answer"));
    }
    assert!(cluster.nodes(Some(&name("n1"))).await.expect("an answer").is_empty());
    assert_eq!(all_entries(&*cluster).await, []);
}

pub(crate) async fn leaving_frees_the_name(cluster: Arc<dyn Backend>) {
    cluster.bind(&binding("n1", "m", "k"), now()).await.expect("a free name");
    assert!(cluster.release(&name("n1"), Release::Left, later(1)).await.expect("an answer"));
    assert_eq!(events_of(&*cluster, join("k")).await, ["Authorized", "Left"]);
    assert_eq!(
        refusal(cluster.admit(&name("n1"), key("k"), later(2)).await).code(),
        Code::CertificateRejected
    );
    cluster.bind(&binding("n1", "other", "k2"), later(3)).await.expect("the name is free");
}

pub(crate) async fn an_operator_frees_a_name(cluster: Arc<dyn Backend>) {
    cluster.bind(&binding("n1", "m", "k"), now()).await.expect("a free name");
    cluster.observe(&name("n1"), Observation::Registered { facts: facts() }, now()).await.expect("observed");
    let forget = Release::Forgotten { by: "alice".to_owned() };
    assert!(cluster.release(&name("n1"), forget.clone(), later(1)).await.expect("an answer"));
    assert!(!cluster.release(&name("n1"), forget, later(2)).await.expect("an answer"));
    assert_eq!(events_of(&*cluster, join("k")).await, ["Authorized", "Registered", "Forgotten"]);
    cluster.bind(&binding("n1", "other", "k2"), later(3)).await.expect("the name is free");
    assert!(the_node(&*cluster, "n1").await.facts.is_none(), "another machine's facts are not its own");
}

pub(crate) async fn a_node_goes_from_bound_to_ready(cluster: Arc<dyn Backend>) {
    let bound = cluster.bind(&binding("n1", "m", "k"), now()).await.expect("a free name");
    assert_eq!(bound.readiness, Readiness::Bound);
    let profile = Digest::of(b"profile");
    cluster.observe(&name("n1"), Observation::Configured { profile }, later(1)).await.expect("observed");
    cluster
        .observe(&name("n1"), Observation::Registered { facts: facts() }, later(2))
        .await
        .expect("observed");
    let registered = the_node(&*cluster, "n1").await;
    assert_eq!(registered.record.readiness, Readiness::Registered);
    assert_eq!(registered.facts, Some(facts()));
    cluster.observe(&name("n1"), Observation::Ready, later(3)).await.expect("observed");
    let ready = the_node(&*cluster, "n1").await.record;
    assert_eq!((ready.readiness, ready.last_seen), (Readiness::Ready, later(3)));
    assert_eq!(events_of(&*cluster, join("k")).await, ["Authorized", "Configured", "Registered", "Ready"]);
}

pub(crate) async fn readiness_is_recorded_when_it_changes(cluster: Arc<dyn Backend>) {
    cluster.bind(&binding("n1", "m", "k"), now()).await.expect("a free name");
    let not = |code| Observation::NotReady { why: not_ready(code) };
    let observed = [
        Observation::Ready,
        Observation::Ready,
        not(Code::NodeNotReady),
        not(Code::NodeNotReady),
        not(Code::RuntimeMissing),
        Observation::Ready,
        Observation::Ready,
    ];
    for (second, what) in (1..).zip(observed) {
        cluster.observe(&name("n1"), what, later(second)).await.expect("observed");
    }
    let events = events_of(&*cluster, join("k")).await;
    assert_eq!(events, ["Authorized", "Ready", "NotReady", "NotReady", "Ready"]);
    let record = cluster.join(join("k")).await.expect("an answer").expect("it is known");
    assert_eq!(record.state.as_str(), "Ready");
}

pub(crate) async fn a_heard_node_is_seen_at_once(cluster: Arc<dyn Backend>) {
    cluster.bind(&binding("n1", "m", "k"), now()).await.expect("a free name");
    cluster.observe(&name("n1"), Observation::Heard, later(10)).await.expect("observed");
    cluster.observe(&name("n1"), Observation::Heard, later(5)).await.expect("observed");
    assert_eq!(the_node(&*cluster, "n1").await.record.last_seen, later(10), "never back in time");
    cluster.observe(&name("never-bound"), Observation::Heard, later(10)).await.expect("nothing to note");
    let taken = refusal(cluster.bind(&binding("n1", "other", "k2"), later(11)).await);
    assert_eq!(taken.value("lastSeen"), Some(later(10).to_string().as_str()));
    assert_eq!(events_of(&*cluster, join("k")).await, ["Authorized"]);
}

pub(crate) async fn nodes_are_listed_by_name(cluster: Arc<dyn Backend>) {
    for node in ["n3", "n1", "n2"] {
        cluster.bind(&binding(node, node, node), now()).await.expect("a free name");
    }
    cluster.observe(&name("n2"), Observation::Registered { facts: facts() }, now()).await.expect("observed");
    let ban = Release::Banned { by: "alice".to_owned(), reason: "stolen".to_owned() };
    cluster.release(&name("n3"), ban, now()).await.expect("an answer");
    let all = cluster.nodes(None).await.expect("an answer");
    let shown: Vec<_> = all
        .iter()
        .map(|view| (view.record.identity.name.as_str(), view.facts.is_some(), view.ban.is_some()))
        .collect();
    assert_eq!(shown, [("n1", false, false), ("n2", true, false), ("n3", false, true)]);
}
