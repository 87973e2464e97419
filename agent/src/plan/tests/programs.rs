//! Runtime and kubelet as they are set up and run.

use super::*;

#[test]
fn the_runtime_s_plan_is_as_agreed() {
    golden("plan-runtime", &listed(&runtime(&bare(), &installed()), &the_credential()));
}

#[test]
fn a_runtime_that_answers_is_its_owner_s() {
    assert_eq!(runtime(&facts(), &installed()), Plan::default());
    let own = Installed { own_configuration: true, ..installed() };
    assert_ne!(runtime(&facts(), &own), Plan::default(), "what answers is Berth's own");
    let elsewhere = Installed { live: false, ..installed() };
    assert_ne!(runtime(&facts(), &elsewhere), Plan::default(), "it answers on another system");
    let none = Installed { binaries: Binaries::default(), ..installed() };
    assert_eq!(runtime(&bare(), &none), Plan::default());
}

#[test]
fn the_runtime_is_set_as_the_machine_needs() {
    let text = |facts: &HostFacts, installed: &Installed| {
        let plan = runtime(facts, installed);
        let of = |step: &Step| match step {
            Step::File { path, content, .. } if path.ends_with("config.toml") => {
                Some(String::from_utf8_lossy(content.bytes()).into_owned())
            }
            Step::Directory { .. }
            | Step::File { .. }
            | Step::Symlink { .. }
            | Step::Retire { .. }
            | Step::Install { .. } => None,
        };
        plan.steps.iter().find_map(of).expect("a configuration")
    };
    let mut facts = bare();
    assert!(text(&facts, &installed()).contains("SystemdCgroup = true"));
    assert!(text(&facts, &installed()).contains("restrict_oom_score_adj = false"));
    facts.cgroup.version = Some(berth_domain::facts::CgroupVersion::Hybrid);
    facts.privileges.capabilities = Some(!(1 << 24));
    assert!(text(&facts, &installed()).contains("SystemdCgroup = false"));
    assert!(text(&facts, &installed()).contains("restrict_oom_score_adj = true"));
    let elsewhere = Binaries { cni_dir: Some("/usr/lib/cni".into()), ..installed().binaries };
    let installed = Installed { binaries: elsewhere, ..installed() };
    assert!(text(&facts, &installed).contains("bin_dirs = ['/usr/lib/cni']"));
}

#[test]
fn a_unit_that_somebody_else_brings_is_enabled_and_not_replaced() {
    let unit = |enabled| Unit { fragment: Some("/usr/lib/systemd/system/kubelet.service".into()), enabled };
    let steps = |enabled| {
        let installed = Installed { kubelet: unit(enabled), ..installed() };
        node(&profile(), &the_credential(), &facts(), &installed).expect("a plan").steps
    };
    let link = Step::Symlink {
        path: "/etc/systemd/system/multi-user.target.wants/kubelet.service".into(),
        target: "/usr/lib/systemd/system/kubelet.service".into(),
    };
    let is_unit = |step: &Step| step.path().ends_with("system/kubelet.service");
    assert!(steps(false).contains(&link) && !steps(false).iter().any(is_unit));
    assert!(!steps(true).contains(&link) && !steps(true).iter().any(is_unit));
    assert!(steps(true).iter().any(|step| step.path().ends_with("kubelet.service.d/20-berth.conf")));
}

#[test]
fn a_kubelet_is_started_anew_for_what_it_reads_once() {
    let reads = |profile: &Profile, credential: &Credential| {
        node(profile, credential, &facts(), &installed()).expect("a plan").live
    };
    let one = the_credential();
    assert_eq!(reads(&profile(), &one), reads(&profile(), &the_credential()), "a certificate is read again");
    let mut other = profile();
    other.kubelet.insert("maxPods".to_owned(), json!(111));
    assert_ne!(reads(&profile(), &one), reads(&other, &one));
    let elsewhere = Profile { api_endpoints: vec!["https://10.0.0.12:6443".to_owned()], ..profile() };
    assert_ne!(reads(&profile(), &one), reads(&elsewhere, &one));
}
