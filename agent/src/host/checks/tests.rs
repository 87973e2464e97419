use berth_domain::diagnosis::Code;
use berth_domain::facts::{
    Arch, Cgroup, CgroupVersion, Clock, Cpu, Directory, Holder, Identity, Kubelet, Leftover, ListeningPort,
    Memory, ModuleState, Owner, Privileges, Runtime, RuntimeState, Swap, app_specific_id,
};

use super::*;

/// A machine with which nothing is wrong.
fn fit() -> HostFacts {
    let directory = |path: &str| Directory {
        path: path.to_owned(),
        total_bytes: 100 << 30,
        available_bytes: 50 << 30,
        total_inodes: 1 << 20,
        available_inodes: 1 << 19,
        ..Directory::default()
    };
    let program = |name: &str| (name.to_owned(), Some(format!("/usr/sbin/{name}")));
    HostFacts {
        arch: Some(Arch::Amd64),
        cpu: Cpu { threads: Some(8), ..Cpu::default() },
        memory: Memory { total_bytes: Some(16 << 30), available_bytes: None },
        identity: Identity {
            hostname: Some("rack1-n7".to_owned()),
            machine_id: app_specific_id("0123456789abcdef0123456789abcdef"),
            ..Identity::default()
        },
        privileges: Privileges { uid: Some(0), capabilities: Some(0x1ff_ffff_ffff) },
        clock: Clock { synchronised: Some(true), service: Some("chronyd".to_owned()), ..Clock::default() },
        cgroup: Cgroup {
            version: Some(CgroupVersion::V2),
            controllers: vec!["cpu".to_owned(), "memory".to_owned()],
        },
        modules: BTreeMap::from([
            ("overlay".to_owned(), ModuleState::Loaded),
            ("br_netfilter".to_owned(), ModuleState::Available),
        ]),
        sysctls: BTreeMap::from([
            ("net.ipv4.ip_forward".to_owned(), "1".to_owned()),
            ("net.bridge.bridge-nf-call-iptables".to_owned(), "1".to_owned()),
        ]),
        runtimes: vec![Runtime {
            name: "containerd".to_owned(),
            socket: "/run/containerd/containerd.sock".to_owned(),
            version: Some("v2.1.4".to_owned()),
            state: RuntimeState::Answers,
            problem: None,
        }],
        kubelet: Some(Kubelet {
            path: "/usr/bin/kubelet".to_owned(),
            arch: Some(Arch::Amd64),
            version: Some("v1.36.1".to_owned()),
        }),
        directories: vec![directory("/var/lib/kubelet"), directory("/var/lib/containerd")],
        tools: BTreeMap::from([program("mount"), program("conntrack"), program("nft")]),
        ..HostFacts::default()
    }
}

/// A machine with which everything is wrong.
fn unfit() -> HostFacts {
    HostFacts {
        identity: Identity { hostname: Some("Rack1_N7".to_owned()), ..Identity::default() },
        privileges: Privileges { uid: Some(1000), capabilities: Some(0) },
        memory: Memory { total_bytes: Some(256 << 20), available_bytes: None },
        swaps: vec![Swap { name: "/dev/sda2".to_owned(), size_bytes: 1 << 30 }],
        clock: Clock::default(),
        cgroup: Cgroup { version: Some(CgroupVersion::Hybrid), controllers: Vec::new() },
        modules: BTreeMap::from([
            ("overlay".to_owned(), ModuleState::Absent),
            ("br_netfilter".to_owned(), ModuleState::Absent),
        ]),
        sysctls: BTreeMap::from([("net.ipv4.ip_forward".to_owned(), "0".to_owned())]),
        runtimes: Vec::new(),
        kubelet: Some(Kubelet {
            path: "/usr/bin/kubelet".to_owned(),
            arch: Some(Arch::Arm64),
            version: None,
        }),
        directories: vec![Directory {
            path: "/var/lib/kubelet".to_owned(),
            total_bytes: 1 << 30,
            available_bytes: 700 << 20,
            ..Directory::default()
        }],
        ports: vec![ListeningPort { port: 10250, holder: Some(Holder { pid: 42, name: "k3s".to_owned() }) }],
        tools: BTreeMap::from([("mount".to_owned(), None)]),
        leftovers: vec![
            Leftover { owner: Owner::Kubeadm, path: "/etc/kubernetes/kubelet.conf".to_owned() },
            Leftover { owner: Owner::K3s, path: "/var/lib/rancher/k3s/agent".to_owned() },
        ],
        ..fit()
    }
}

fn result(id: CheckId, facts: &HostFacts, policy: &CheckPolicy) -> CheckResult {
    check(id, facts, policy).unwrap_or_else(|| panic!("no fact tells of {id}"))
}

fn outcome(id: CheckId, facts: &HostFacts, policy: &CheckPolicy) -> Outcome {
    result(id, facts, policy).outcome
}

fn diagnosis(id: CheckId, facts: &HostFacts) -> Diagnosis {
    result(id, facts, &CheckPolicy::default()).diagnosis.unwrap_or_else(|| panic!("{id} has nothing to say"))
}

#[test]
fn nothing_is_wrong_with_a_fit_machine() {
    for result in run(&fit(), &CheckPolicy::default()) {
        assert_eq!(result.outcome, Outcome::Ok, "{}: {:?}", result.id, result.told);
    }
}

#[test]
fn a_machine_that_tells_nothing_fails_by_its_name_alone() {
    let results = run(&HostFacts::default(), &CheckPolicy::default());
    let failed: Vec<CheckId> =
        results.iter().filter(|result| result.outcome == Outcome::Failed).map(|result| result.id).collect();
    assert_eq!(failed, [CheckId::Hostname]);
}

#[test]
fn a_bad_host_name_comes_with_the_nearest_legal_one() {
    for (name, suggestion) in [
        ("localhost", "node-"),
        ("localhost.localdomain", "node-"),
        ("Rack1-N7", "rack1-n7"),
        ("rack1_n7", "rack1-n7"),
        ("-x-", "x"),
        ("(none)", "none"),
        ("---", "node-"),
        (&"x".repeat(300), "x"),
    ] {
        let facts =
            HostFacts { identity: Identity { hostname: Some(name.to_owned()), ..fit().identity }, ..fit() };
        let why = diagnosis(CheckId::Hostname, &facts);
        assert_eq!((why.code(), why.value("hostname")), (Code::HostnameInvalid, Some(name)));
        let suggested = why.value("suggestion").expect("a suggestion");
        assert!(suggested.starts_with(suggestion), "{name}: {suggested}");
        assert!(suggested.parse::<berth_domain::name::NodeName>().is_ok(), "{suggested}");
        let policy = CheckPolicy { node_name: Some("good".to_owned()), ..CheckPolicy::default() };
        assert_eq!(outcome(CheckId::Hostname, &facts, &policy), Outcome::Ok, "another name was asked for");
    }
}

#[test]
fn too_little_space_says_how_much_is_wanted_and_found() {
    let why = diagnosis(CheckId::DiskSpace, &unfit());
    assert_eq!(why.code(), Code::DiskSpaceTooLow);
    assert_eq!(
        (why.value("path"), why.value("found"), why.value("wanted")),
        (Some("/var/lib/kubelet"), Some("700Mi"), Some("1Gi"))
    );
    let policy = CheckPolicy { min_free_bytes: 700 << 20, ..CheckPolicy::default() };
    assert_eq!(outcome(CheckId::DiskSpace, &unfit(), &policy), Outcome::Ok);

    let mut facts = fit();
    facts.directories[1].available_inodes = 0;
    assert_eq!(diagnosis(CheckId::DiskSpace, &facts).value("found"), Some("0 inodes"));
    facts.directories[1].total_inodes = 0;
    assert_eq!(
        outcome(CheckId::DiskSpace, &facts, &CheckPolicy::default()),
        Outcome::Ok,
        "btrfs counts no inodes"
    );
}

#[test]
fn leftovers_say_whose_they_are_and_how_to_be_rid_of_them() {
    let why = diagnosis(CheckId::Leftovers, &unfit());
    assert_eq!(why.code(), Code::LeftoversFound);
    assert_eq!(why.value("owner"), Some("kubeadm and k3s"));
    assert_eq!(why.value("paths"), Some("/etc/kubernetes/kubelet.conf, /var/lib/rancher/k3s/agent"));
    assert!(why.mend().contains("kubeadm reset") && why.mend().contains("=Leftovers"), "{}", why.mend());
}

#[test]
fn what_the_agent_wrote_itself_is_no_leftover() {
    let facts = unfit();
    let own = |paths: &[&str]| CheckPolicy {
        own: paths.iter().map(|path| (*path).to_owned()).collect(),
        ..CheckPolicy::default()
    };
    let both = own(&["/etc/kubernetes/kubelet.conf", "/var/lib/rancher"]);
    assert_eq!(outcome(CheckId::Leftovers, &facts, &both), Outcome::Ok);
    let look_alike = own(&["/etc/kube", "/var/lib/rancher/k3"]);
    assert_eq!(outcome(CheckId::Leftovers, &facts, &look_alike), Outcome::Failed);
}

#[test]
fn privileges_are_asked_for_on_the_running_system_alone() {
    let why = diagnosis(CheckId::IsPrivilegedUser, &unfit());
    assert_eq!((why.code(), why.value("uid")), (Code::NotPrivileged, Some("1000")));
    let mut facts = fit();
    facts.privileges.capabilities = Some(0x1ff_ffff_ffff & !(1 << 12));
    assert_eq!(diagnosis(CheckId::IsPrivilegedUser, &facts).value("missing"), Some("CAP_NET_ADMIN"));
    let below = CheckPolicy { live: false, ..CheckPolicy::default() };
    assert!(run(&unfit(), &below).iter().all(|result| result.id != CheckId::IsPrivilegedUser));
}

#[test]
fn below_a_directory_only_what_a_join_stumbles_over_is_fatal() {
    let below = CheckPolicy { live: false, ..CheckPolicy::default() };
    let failed: Vec<CheckId> = run(&unfit(), &below)
        .into_iter()
        .filter(|result| result.outcome == Outcome::Failed)
        .map(|result| result.id)
        .collect();
    assert_eq!(failed, [CheckId::Hostname, CheckId::DiskSpace, CheckId::Leftovers]);
}

#[test]
fn an_ignored_failure_is_a_warning_and_stays_visible() {
    let policy =
        CheckPolicy { ignore: ignored("swap, LEFTOVERS").expect("two checks"), ..CheckPolicy::default() };
    let swap = result(CheckId::Swap, &unfit(), &policy);
    assert_eq!((swap.outcome, swap.ignored), (Outcome::Warning, false), "the profile decides");
    assert_eq!(swap.diagnosis.map(|why| why.code()), Some(Code::SwapOn));
    let leftovers = result(CheckId::Leftovers, &unfit(), &policy);
    assert_eq!((leftovers.outcome, leftovers.ignored), (Outcome::Warning, true));
    assert_eq!(outcome(CheckId::DiskSpace, &unfit(), &policy), Outcome::Failed);
    assert_eq!(ignored("all").map(|ids| ids.len()), Ok(CheckId::ALL.len()));
    assert!(ignored("Swap,Sawp").is_err());
}

#[test]
fn the_first_failure_is_the_reason() {
    let results = run(&unfit(), &CheckPolicy::default());
    assert_eq!(first_failure(&results).map(Diagnosis::code), Some(Code::HostnameInvalid));
    assert_eq!(first_failure(&run(&fit(), &CheckPolicy::default())), None);
}

#[test]
fn a_runtime_that_does_not_speak_cri_is_told_from_none() {
    let in_state =
        |state| HostFacts { runtimes: vec![Runtime { state, ..fit().runtimes.remove(0) }], ..fit() };
    let told =
        |facts: &HostFacts| result(CheckId::Cri, facts, &CheckPolicy::default()).told.unwrap_or_default();
    assert!(told(&in_state(RuntimeState::CriDisabled)).contains("CRI plugin switched off"));
    let mut failed = in_state(RuntimeState::CriDisabled);
    failed.runtimes[0].problem = Some("no such runtime".to_owned());
    let found = result(CheckId::Cri, &failed, &CheckPolicy::default());
    assert_eq!(found.diagnosis.map(|why| why.code()), Some(Code::CriFailed));
    assert_eq!(found.outcome, Outcome::Warning, "the profile decides whether it matters");
    assert!(told(&in_state(RuntimeState::Silent)).contains("/run/containerd/containerd.sock"));
    assert!(told(&unfit()).contains("/run/crio/crio.sock"), "every known socket is named");
}

#[test]
fn each_check_is_told_once_by_facts_or_by_programs() {
    let mut told: Vec<CheckId> =
        run(&fit(), &CheckPolicy::default()).into_iter().map(|result| result.id).collect();
    told.push(firewall(&Firewall::default()).id);
    told.sort_unstable();
    assert_eq!(told, CheckId::ALL);
}

#[test]
fn ids_are_unique_and_read_as_they_are_written() {
    let ids: BTreeSet<&str> = CheckId::ALL.iter().map(|id| id.as_str()).collect();
    assert_eq!(ids.len(), CheckId::ALL.len());
    for id in CheckId::ALL {
        assert_eq!(id.to_string().to_lowercase().parse(), Ok(id));
    }
}

fn golden(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../../../tests/golden");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

fn plain(results: &[CheckResult], style: Style) -> String {
    anstream::adapter::strip_str(&render(results, style)).to_string()
}

#[test]
fn the_checklist_reads_as_it_did() {
    let policy = CheckPolicy { ignore: BTreeSet::from([CheckId::Swap]), ..CheckPolicy::default() };
    let results = run(&unfit(), &policy);
    golden("check-unfit-text", &plain(&results, Style::default()));
    golden("check-unfit-json", &serde_json::to_string_pretty(&report(&results)).expect("JSON"));
    let results = run(&fit(), &CheckPolicy::default());
    golden("check-fit-text-ascii", &plain(&results, Style { ascii: true, short: false }));
    assert!(report(&results).success);
}

#[test]
fn without_utf_8_the_checklist_is_ascii() {
    assert!(plain(&run(&unfit(), &CheckPolicy::default()), Style { ascii: true, short: false }).is_ascii());
}
