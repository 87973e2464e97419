use std::sync::Mutex;
use std::time::Duration;

use super::*;
use crate::join::tests::world::World;

/// Attends for so long, and says how it ended and what it told.
async fn attend_for(world: &World, time: Duration) -> (Diagnosis, Vec<Told>) {
    let told = Mutex::new(Vec::new());
    let tell = |what: &Told| told.lock().expect("unpoisoned").push(what.clone());
    let attending = AttendWorld {
        server: &world.server,
        host: &world.host,
        checks: &world.checks,
        services: &world.services,
        vault: &world.vault,
        journal: &world.journal,
        clock: world.clock(),
        tell: &tell,
        stop: world.stop.subscribe(),
    };
    let stop = async {
        tokio::time::sleep(time).await;
        world.stop.send_replace(true);
    };
    let why = tokio::select! {
        why = attend(&attending) => why,
        () = async { stop.await; std::future::pending().await } => unreachable!("it never ends"),
    };
    drop(attending);
    let told = told.lock().expect("unpoisoned").clone();
    (why, told)
}

async fn joined() -> World {
    let world = World::new();
    world.join().await.expect("a join");
    world.server.script().heard.clear();
    world
}

fn terms(world: &World, seconds: u64) {
    let now = world.server.began;
    world.server.script().tells.push_back(Ok(AttendFromServer::Terms {
        heartbeat_interval: Duration::from_secs(seconds),
        server_time: now,
    }));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_attends_is_heard_at_every_interval() {
    let world = joined().await;
    terms(&world, 2);
    let (why, told) = attend_for(&world, Duration::from_secs(20)).await;
    assert_eq!((why.code(), told), (Code::Interrupted, vec![Told::Attending]));
    let beats = world.heard().matches("Heartbeat").count();
    assert!((10..=12).contains(&beats), "{beats} in 20 s");
    assert_eq!(world.heard().matches("Health").count(), 1, "nothing changed");
}

#[tokio::test(start_paused = true)]
async fn a_renewal_begins_the_line_again_and_forgets_the_former_certificate() {
    let world = joined().await;
    let before = world.vault.credential().expect("memory").expect("joined").current.digest();
    terms(&world, 10);
    world.server.script().tells.push_back(Ok(AttendFromServer::RenewNow));
    let (why, told) = attend_for(&world, Duration::from_secs(5)).await;
    assert_eq!(why.code(), Code::Interrupted);
    assert!(matches!(told.as_slice(), [Told::Attending, Told::Renewed { .. }, Told::Attending]), "{told:?}");
    let held = world.vault.credential().expect("memory").expect("renewed");
    assert!(held.current.digest() != before && held.former.is_none());
    assert!(world.heard().contains("renew,enter,attend"), "{}", world.heard());
    assert!(world.host.has("/var/lib/kubelet/pki/kubelet-client-current.pem"));
}

#[tokio::test(start_paused = true)]
async fn a_banned_machine_stops_and_keeps_the_reason() {
    let world = joined().await;
    let ban = Diagnosis::new(Code::MachineBanned, Phase::Registration).with("name", "n1");
    world.server.script().tells.push_back(Err(ban.clone()));
    let (why, _) = attend_for(&world, Duration::from_secs(60)).await;
    assert_eq!(why, ban);
    assert_eq!(world.journal.load().expect("memory").entry.diagnosis, Some(ban));
}

#[tokio::test(start_paused = true)]
async fn a_draining_server_is_left_and_another_found() {
    let world = joined().await;
    let draining = AttendFromServer::Draining { return_within: Duration::from_secs(3) };
    world.server.script().tells.push_back(Ok(draining));
    let (why, _) = attend_for(&world, Duration::from_secs(10)).await;
    assert_eq!(why.code(), Code::Interrupted);
    assert_eq!(world.heard().matches("attend").count(), 2, "{}", world.heard());
}

#[tokio::test(start_paused = true)]
async fn checks_that_fail_while_attending_are_told() {
    let world = joined().await;
    terms(&world, 10);
    world.checks.unhealthy_for.store(1, std::sync::atomic::Ordering::Relaxed);
    attend_for(&world, Duration::from_secs(30)).await;
    assert_eq!(world.heard().matches("Health").count(), 2, "once failing, once mended: {}", world.heard());
}
