//! The node's software on its way to the machine, with every part in memory.

use berth_domain::diagnosis::Code;
use berth_domain::identity::Digest;

use super::authority::Authority;
use super::world::World;
use crate::plan::{Step, cached};
use crate::ports::{Depot as _, Stage};

/// Three chunks and a bit.
fn program() -> Vec<u8> {
    (0..200_000_u32).flat_map(u32::to_le_bytes).take(200_000).collect()
}

/// A world whose profile names a bundle of this program, which the supplier has.
fn world(program: &[u8], handed_out: Vec<u8>) -> World {
    let world = World::new();
    let signed = world.server.ca.bundle(program);
    world.server.script().bundle = Some(signed.digest());
    world.server.supplier.hold(signed, [(Digest::of(program), handed_out)]);
    world
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_is_fetched_and_put_in_its_place_before_the_nodes_files() {
    let program = program();
    let world = world(&program, program.clone());
    world.join().await.expect("joined");
    let applied = world.host.applied.lock().expect("unpoisoned").clone();
    let place = |path: &str| {
        applied.iter().position(|plan| plan.steps.iter().any(|step| step.path().to_str() == Some(path)))
    };
    assert!(place("/usr/local/bin/kubelet") < place("/var/lib/kubelet/config.yaml"));
    let digest = Digest::of(&program);
    let installed = applied.iter().flat_map(|plan| &plan.steps).any(|step| {
        matches!(step, Step::Install { mode: 0o755, from, digest: of, .. } if *from == cached(digest) && *of == digest)
    });
    assert!(installed);
    assert_eq!(world.server.supplier.sent(), 200_000);
    assert!(world.depot.blob(digest).is_none(), "what stands is not kept twice");
}

#[tokio::test(start_paused = true)]
async fn what_stands_already_is_not_fetched() {
    let program = program();
    let world = world(&program, program.clone());
    world.join().await.expect("joined");
    let sent = world.server.supplier.sent();
    world.join().await.expect("joined again");
    assert_eq!(world.server.supplier.sent(), sent);
}

#[tokio::test(start_paused = true)]
async fn a_transfer_that_is_cut_off_goes_on_where_it_was() {
    let program = program();
    let world = world(&program, program.clone());
    world.server.supplier.cut_after(Some(2));
    world.join().await.expect("each attempt brings two chunks more");
    assert_eq!(world.server.supplier.sent(), 200_000, "no byte was sent twice");
}

#[tokio::test(start_paused = true)]
async fn what_was_damaged_on_this_machines_disk_is_fetched_anew_once() {
    let program = program();
    let world = world(&program, program.clone());
    let digest = Digest::of(&program);
    let Ok(Stage::Part(mut draft)) = world.depot.draft(digest, 200_000) else { panic!("it is not here") };
    draft.add(&[7; 1_000]).expect("room");
    world.join().await.expect("joined");
    assert_eq!(world.server.supplier.sent(), 199_000 + 200_000);
}

#[tokio::test(start_paused = true)]
async fn a_flipped_byte_is_refused_and_nothing_is_put_anywhere() {
    let program = program();
    let mut flipped = program.clone();
    flipped[150_000] ^= 1;
    let mut world = world(&program, flipped);
    world.patience.no_wait = true;
    let why = world.join().await.expect_err("refused");
    assert_eq!(why.code(), Code::BundleDamaged, "{}", why.cause());
    assert!(!world.host.has("/usr/local/bin/kubelet") && !world.host.has("/var/lib/kubelet/config.yaml"));
}

#[tokio::test(start_paused = true)]
async fn a_bundle_that_another_ca_has_endorsed_is_refused_before_a_byte_of_it() {
    let mut world = World::new();
    let signed = Authority::new("another").bundle(b"program");
    world.server.script().bundle = Some(signed.digest());
    world.server.supplier.hold(signed, [(Digest::of(b"program"), b"program".to_vec())]);
    world.patience.no_wait = true;
    let why = world.join().await.expect_err("refused");
    assert_eq!(why.code(), Code::BundleDamaged);
    assert!(why.cause().contains("its key is endorsed by the CA"), "{}", why.cause());
    assert_eq!(world.server.supplier.sent(), 0);
}

#[tokio::test(start_paused = true)]
async fn no_byte_is_fetched_that_has_no_room_and_room_mends_it() {
    let program = program();
    let mut world = world(&program, program.clone());
    world.depot.leave_room(Some(1 << 20));
    world.patience.no_wait = true;
    let why = world.join().await.expect_err("no room");
    assert_eq!(why.code(), Code::DiskSpaceTooLow);
    assert_eq!((why.value("found"), world.server.supplier.sent()), (Some("1 MiB"), 0));
    world.depot.leave_room(None);
    world.patience.no_wait = false;
    world.join().await.expect("joined");
}
