use std::sync::Arc;

use super::*;
use crate::host::units::MemoryUnits;
use crate::plan::{CONTAINERD, KUBELET};

fn services() -> (tempfile::TempDir, MemoryUnits, NodeServices) {
    let root = tempfile::tempdir().expect("a directory");
    let units = MemoryUnits::default();
    let services = NodeServices::of(root.path(), Arc::new(units.clone())).expect("a root").as_if_live();
    (root, units, services)
}

fn plan(reads: &[u8]) -> Plan {
    let reads = berth_domain::identity::Digest::of(reads);
    let unit = |name| Live::Unit { name, reads };
    Plan { steps: Vec::new(), live: vec![unit(CONTAINERD), unit(KUBELET)] }
}

fn expected(root: &tempfile::TempDir) -> Expected {
    Expected { socket: root.path().join("no.sock").display().to_string(), ..Expected::default() }
}

#[tokio::test]
async fn units_are_started_once_and_again_when_their_files_have_changed() {
    let (root, units, services) = services();
    services.start(&plan(b"one"), &expected(&root)).await.expect("both start");
    services.start(&plan(b"one"), &expected(&root)).await.expect("both run");
    assert_eq!(units.told(), ["start containerd.service", "start kubelet.service"]);
    services.start(&plan(b"two"), &expected(&root)).await.expect("both start anew");
    assert_eq!(units.told().len(), 4);
    units.stop(KUBELET).await.expect("somebody else stops it");
    services.start(&plan(b"two"), &expected(&root)).await.expect("it starts");
    assert_eq!(units.told().last().map(String::as_str), Some("start kubelet.service"));
}

#[tokio::test]
async fn a_start_that_was_cut_off_is_done_again() {
    let (root, units, services) = services();
    services.start(&plan(b"one"), &expected(&root)).await.expect("both start");
    let mut record = services.record.load().expect("a record");
    record.unit(KUBELET, || false).reads = None;
    services.record.save(&record).expect("writable");
    services.start(&plan(b"one"), &expected(&root)).await.expect("it starts");
    assert_eq!(units.told().len(), 3);
}

#[tokio::test]
async fn a_cause_is_told_once_it_has_lasted() {
    let (root, units, services) = services();
    units.fail(KUBELET, true);
    services.start(&plan(b"one"), &expected(&root)).await.expect("started, though it ends again");
    assert_eq!(services.failing().await, [], "it has just come up");
    tokio::time::sleep(SETTLED + STEP).await;
    let codes: Vec<Code> = services.failing().await.iter().map(Diagnosis::code).collect();
    assert_eq!(codes, [Code::KubeletFailing, Code::RuntimeMissing]);
}

#[tokio::test]
async fn another_process_goes_on_watching_what_the_one_before_has_started() {
    let (root, units, services) = services();
    services.start(&plan(b"one"), &expected(&root)).await.expect("both start");
    let later = NodeServices::of(root.path(), Arc::new(units.clone())).expect("a root").as_if_live();
    let _young = later.failing().await;
    tokio::time::sleep(SETTLED + STEP).await;
    let codes: Vec<Code> = later.failing().await.iter().map(Diagnosis::code).collect();
    assert_eq!(codes, [Code::RuntimeMissing], "nothing answers on that socket");
}

#[tokio::test]
async fn below_another_root_nothing_is_started() {
    let root = tempfile::tempdir().expect("a directory");
    let units = MemoryUnits::default();
    let services = NodeServices::of(root.path(), Arc::new(units.clone())).expect("a root");
    services.start(&plan(b"one"), &expected(&root)).await.expect("nothing to do");
    assert_eq!(services.failing().await, []);
    assert_eq!(services.end().await.expect("nothing to do"), Default::default());
    assert!(units.told().is_empty(), "{:?}", units.told());
}

#[tokio::test]
async fn what_ran_before_runs_again_in_the_end() {
    let (root, units, services) = services();
    units.start(KUBELET).await.expect("somebody else starts it");
    services.start(&plan(b"one"), &expected(&root)).await.expect("both start");
    services.restore().await.expect("both are told");
    assert_eq!(units.told().last().map(String::as_str), Some("start kubelet.service"));
    assert_eq!(services.record.load().expect("none"), Default::default());
}
