pub(crate) mod authority;
pub(crate) mod server;
mod standing;
mod software;
pub(crate) mod world;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use berth_domain::conversation::{EnrollFromServer, Issued};
use berth_domain::diagnosis::Code;
use berth_domain::phase::Phase;
use berth_domain::pods::PodRoutes;

use self::authority::Authority;
use self::server::{Wrong, node};
use self::world::World;
use super::*;
use crate::ports::{JournalEntry, Standing};

const ENROLLED: &str = "call,Hello,ClientProof,CertificateRequest";
const COMPLETED: &str = "enter,ProfileRequest,Configured,Registration,Health";

/// Nothing of what an unproved or wrong server said is left.
fn nothing_is_kept(world: &World) -> bool {
    let no_credential = world.vault.credential().is_ok_and(|held| held.is_none());
    no_credential && !world.token.is_empty() && !world.host.has("/etc/kubernetes/pki/ca.crt")
}

#[tokio::test(start_paused = true)]
async fn a_machine_with_a_token_ends_at_ready() {
    let world = World::new();
    let ready = world.join().await.expect("a join");
    assert_eq!((ready.node, ready.resumed, ready.clock_offset), (node(), false, None));
    assert_eq!(world.heard(), format!("{ENROLLED},{COMPLETED}"));
    assert_eq!(*world.watched.points.lock().expect("unpoisoned"), POINTS);
    assert!(world.token.is_empty(), "it was used");
    assert!(world.host.has("/var/lib/kubelet/config.yaml"));
    let journal = world.journal.load().expect("memory").entry;
    assert!(matches!(journal.standing, Standing::Ready { .. }), "{journal:?}");
    let phases: Vec<Phase> =
        world.watched.progress.lock().expect("unpoisoned").iter().map(|p| p.phase).collect();
    assert_eq!(phases, Phase::ALL);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_know_the_token_is_not_believed() {
    let world = World::new();
    world.server.script().ignorant = true;
    let why = world.join().await.expect_err("it proved nothing");
    assert_eq!((why.code(), why.phase()), (Code::ProtocolViolation, Phase::Authentication));
    assert!(nothing_is_kept(&world));
    assert_eq!(world.heard(), "call,Hello,ClientProof,GivingUp,PROTOCOL_VIOLATION");
}

#[tokio::test(start_paused = true)]
async fn a_proved_bundle_must_hold_a_pinned_ca() {
    let mut world = World::new();
    let other = Arc::new(Authority::new("other"));
    let right = std::mem::replace(&mut world.server.ca, Arc::clone(&other));
    world.patience.no_wait = true;
    let why = world.join().await.expect_err("another CA");
    assert_eq!(why.code(), Code::PinMismatch);
    assert_eq!(why.value("wanted"), Some(right.pin.to_pin().as_str()));
    assert_eq!(why.value("found"), Some(other.pin.to_pin().as_str()));
    assert!(nothing_is_kept(&world));
    world.wishes.pins = vec![other.pin];
    world.join().await.expect("it is pinned now");
}

#[tokio::test(start_paused = true)]
async fn a_bootstrap_token_joins_with_a_pin_and_without() {
    let other = Authority::new("other").pin;
    for (pins, unpinned) in [(0, true), (1, false), (2, false)] {
        let mut world = World::with_token("u7k2pw.x91mqz40bhc8ydre");
        world.wishes.pins = [other, world.server.ca.pin].into_iter().rev().take(pins).collect();
        world.join().await.expect("a join");
        let told = world.watched.points.lock().expect("unpoisoned").contains(&"unpinned");
        assert_eq!(told, unpinned, "{pins} pins");
        assert!(world.token.is_empty(), "it was used");
    }
    let mut world = World::with_token("u7k2pw.x91mqz40bhc8ydre");
    world.wishes.pins = vec![other];
    world.patience.no_wait = true;
    let why = world.join().await.expect_err("another CA");
    assert_eq!(why.code(), Code::PinMismatch);
    assert!(nothing_is_kept(&world));
}

#[tokio::test(start_paused = true)]
async fn without_a_pin_the_proof_still_decides() {
    let world = World::with_token("u7k2pw.x91mqz40bhc8ydre");
    world.server.script().ignorant = true;
    let why = world.join().await.expect_err("it proved nothing");
    assert_eq!((why.code(), why.phase()), (Code::ProtocolViolation, Phase::Authentication));
    assert!(nothing_is_kept(&world));
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_was_not_asked_for_is_not_kept() {
    for wrong in [Wrong::Key, Wrong::Name, Wrong::Authority, Wrong::Time] {
        let world = World::new();
        world.server.script().wrong = Some(wrong);
        let why = world.join().await.expect_err("a wrong certificate");
        assert_eq!(why.code(), Code::CertificateRejected, "{wrong:?}");
        assert!(nothing_is_kept(&world), "{wrong:?}");
        assert!(world.heard().ends_with("GivingUp,CERTIFICATE_REJECTED"), "{}", world.heard());
    }
}

#[tokio::test(start_paused = true)]
async fn a_queue_and_an_approval_are_waited_for() {
    let world = World::new();
    world.server.script().queued = 3;
    world.server.script().waiting = 2;
    world.join().await.expect("it goes on by itself");
    assert_eq!(world.watched.waits(), [Code::ServerBusy, Code::ApprovalPending]);
}

#[tokio::test(start_paused = true)]
async fn a_server_may_ask_once_for_the_subject_that_its_signer_needs() {
    let world = World::new();
    world.server.script().subjects = 1;
    world.join().await.expect("it asks again");
    assert!(
        world.heard().contains("ClientProof,CertificateRequest,CertificateRequest,enter"),
        "{}",
        world.heard()
    );

    let world = World::new();
    world.server.script().subjects = 2;
    let why = world.join().await.expect_err("once is enough");
    assert_eq!((why.code(), why.value("found")), (Code::ProtocolViolation, Some("SubjectWanted")));
    assert!(nothing_is_kept(&world));

    let world = World::new();
    world.server.script().instead = Some(EnrollFromServer::SubjectWanted(node()));
    let why = world.join().await.expect_err("before its proof");
    assert_eq!((why.code(), why.value("expected")), (Code::ProtocolViolation, Some("Challenge")));
}

#[tokio::test(start_paused = true)]
async fn a_word_out_of_order_ends_the_join() {
    let world = World::new();
    let join = JoinId::of(&world.server.token.id, world.server.ca.pin);
    world.server.script().instead =
        Some(EnrollFromServer::Issued(Issued { chain: Vec::new(), node: node(), join }));
    let why = world.join().await.expect_err("Issued comes last");
    assert_eq!(
        (why.code(), why.value("expected"), why.value("found")),
        (Code::ProtocolViolation, Some("Challenge"), Some("Issued"))
    );
    assert!(nothing_is_kept(&world));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_the_servers_own_words_and_final() {
    let world = World::new();
    let refusal = Diagnosis::new(Code::TokenSpent, Phase::Authentication).with("uses", 1);
    world.server.script().refuses = Some(refusal.clone());
    assert_eq!(world.join().await, Err(refusal.clone()));
    assert_eq!(world.journal.load().expect("memory").entry.diagnosis, Some(refusal));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_cannot_be_reached_is_tried_again() {
    let world = World::new();
    world.server.script().unreachable = 4;
    let began = Instant::now();
    world.join().await.expect("it came back");
    let waited = began.elapsed();
    assert!(waited >= Duration::from_secs(8) && waited < Duration::from_secs(60), "{waited:?}");
    assert_eq!(world.watched.waits(), [Code::ConnectionFailed]);
    assert_eq!(world.journal.load().expect("memory").entry.diagnosis, None, "it went on since");
}

#[tokio::test(start_paused = true)]
async fn a_join_ends_at_its_deadline_with_what_it_waited_for() {
    let mut world = World::new();
    world.server.script().waiting = u32::MAX;
    world.patience.deadline = Some(Instant::now() + Duration::from_secs(30));
    let began = Instant::now();
    let why = world.join().await.expect_err("nobody approves");
    assert_eq!(why.code(), Code::ApprovalPending);
    assert!(began.elapsed() < Duration::from_secs(32), "{:?}", began.elapsed());
    assert!(world.heard().ends_with("GivingUp,APPROVAL_PENDING"), "{}", world.heard());
}

#[tokio::test(start_paused = true)]
async fn who_does_not_want_to_wait_hears_the_first_reason() {
    for waiting in [true, false] {
        let mut world = World::new();
        world.patience.no_wait = true;
        world.server.script().waiting = if waiting { u32::MAX } else { 0 };
        world.server.script().unreachable = u32::from(!waiting);
        let began = Instant::now();
        let why = world.join().await.expect_err("no wait");
        assert_eq!(why.code(), if waiting { Code::ApprovalPending } else { Code::ConnectionFailed });
        assert!(began.elapsed() < Duration::from_secs(1));
    }
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_join_says_so_to_the_server() {
    let world = World::new();
    world.server.script().waiting = u32::MAX;
    let interrupt = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        world.stop.send_replace(true);
    };
    let (why, ()) = tokio::join!(world.join(), interrupt);
    assert_eq!(why.expect_err("interrupted").code(), Code::Interrupted);
    assert!(world.heard().ends_with("GivingUp,INTERRUPTED"), "{}", world.heard());
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_off_is_waited_for_after_the_proof() {
    let world = World::new();
    let right = Duration::from_secs(7200);
    world.server.script().ahead = right;
    let mend = async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        let now = world.clock().now();
        world.clock().set(now.after(right));
    };
    let (ready, ()) = tokio::join!(world.join(), mend);
    ready.expect("it goes on by itself");
    assert_eq!(world.watched.waits(), [Code::ClockWrong]);
    let progress = world.watched.progress.lock().expect("unpoisoned");
    let why = progress.iter().find_map(|stands| stands.waiting_for.clone()).expect("it waited");
    assert_eq!(why.value("offset"), Some("2h"));
    assert!(world.heard().contains("GivingUp,CLOCK_WRONG"), "operators see it: {}", world.heard());
}

#[tokio::test(start_paused = true)]
async fn a_small_offset_is_told_and_stops_nobody() {
    let world = World::new();
    world.server.script().ahead = Duration::from_secs(90);
    let offset = world.join().await.expect("a join").clock_offset.expect("more than 30 s");
    assert_eq!(offset, ClockOffset { by: Duration::from_secs(90), behind: true });
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_told_to_the_server_and_waited_for() {
    let world = World::new();
    world.host.full_for.store(3, Ordering::Relaxed);
    world.join().await.expect("it goes on by itself");
    assert_eq!(world.watched.waits(), [Code::FileNotWritten]);
    assert!(world.heard().contains("ProfileRequest,Health,Configured"), "told once: {}", world.heard());
}

#[tokio::test(start_paused = true)]
async fn an_unfit_host_and_failing_checks_are_waited_for() {
    let world = World::new();
    world.checks.unfit_for.store(2, Ordering::Relaxed);
    world.checks.unhealthy_for.store(3, Ordering::Relaxed);
    world.join().await.expect("it goes on by itself");
    assert_eq!(world.watched.waits(), [Code::SwapOn, Code::DiskSpaceTooLow]);
}

#[tokio::test(start_paused = true)]
async fn a_join_killed_at_any_point_goes_on_and_spends_no_second_key() {
    for point in POINTS {
        let world = World::new();
        world.crash(point).await;
        let ready = world.join().await.unwrap_or_else(|why| panic!("{point}: {why}"));
        assert!(world.token.is_empty(), "{point}: the token is forgotten");
        let keys = world.heard().matches("CertificateRequest").count();
        let kept_before = POINTS.iter().position(|p| *p == point) > Some(2);
        assert_eq!(
            (keys, ready.resumed),
            if kept_before { (1, true) } else { (1 + usize::from(point == "before-credential"), false) },
            "{point}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_machine_goes_on_from_every_entry_of_its_journal() {
    let world = World::new();
    let first = world.join().await.expect("a join");
    let (node, join, profile) = (first.node.clone(), first.join, berth_domain::identity::Digest::of(b"p"));
    for standing in [
        Standing::Fresh,
        Standing::Preparing,
        Standing::Enrolled { node: node.clone(), join },
        Standing::Configured { node: node.clone(), join, profile },
        Standing::Registered { node: node.clone(), join, profile },
        Standing::Ready { node, join, profile, since: first.since },
    ] {
        let entry = JournalEntry { standing: standing.clone(), ..JournalEntry::default() };
        world.journal.save(&entry).expect("memory");
        world.server.script().heard.clear();
        let again = world.join().await.expect("no token is needed");
        assert!(again.resumed && again.join == join, "{standing:?}");
        assert_eq!(world.heard(), COMPLETED, "{standing:?}");
    }
    world.journal.damage(b"{");
    world.join().await.expect("all may be done twice");
}

#[tokio::test(start_paused = true)]
async fn an_expired_certificate_needs_a_new_token() {
    let world = World::new();
    world.join().await.expect("a join");
    world.clock().advance(Duration::from_secs(4000));
    let why = world.join().await.expect_err("it is over");
    assert_eq!((why.code(), why.value("name")), (Code::CertificateExpired, Some("n1")));
    world.server.script().ahead = Duration::from_secs(4000);
    *world.token.0.lock().expect("unpoisoned") = Some(world.server.token.clone());
    assert!(!world.join().await.expect("a new certificate").resumed);
}

#[test]
fn a_wait_is_as_long_as_asked_and_spreads_when_repeated() {
    let after = Duration::from_secs(2);
    assert_eq!(pause(after, 0, 0.0), after);
    assert_eq!(pause(after, 0, 1.0), Duration::from_secs(4));
    assert_eq!(pause(after, 30, 1.0), Duration::from_secs(12));
    assert_eq!(pause(Duration::from_secs(60), 0, 1.0), Duration::from_secs(70));
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_does_not_fit_its_profile_says_so_and_waits() {
    let world = World::new();
    world.checks.misfit_for.store(2, Ordering::Relaxed);
    world.join().await.expect("it goes on once it fits");
    assert_eq!(world.watched.waits(), [Code::ToolMissing]);
    let heard = "enter,ProfileRequest,Health,Configured,Registration,Health";
    assert_eq!(world.heard(), format!("{ENROLLED},{heard}"), "once, and before anything is written");
}

#[tokio::test(start_paused = true)]
async fn the_node_s_programs_are_started_as_often_as_it_takes() {
    let world = World::new();
    world.services.unstarted_for.store(2, Ordering::Relaxed);
    world.join().await.expect("it goes on once they run");
    assert_eq!(*world.services.started.lock().expect("unpoisoned"), ["kubelet.service"]);
    assert_eq!(world.watched.waits(), [Code::ServiceManagerFailed]);
    assert!(world.heard().ends_with("Registration,Health,Health"), "{}", world.heard());
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_with_a_program_is_told_while_it_lasts() {
    let world = World::new();
    world.checks.unhealthy_for.store(1, Ordering::Relaxed);
    world.services.unwell_for.store(2, Ordering::Relaxed);
    world.join().await.expect("it goes on once it is well");
    let waits = [Code::DiskSpaceTooLow, Code::KubeletFailing, Code::DiskSpaceTooLow];
    assert_eq!(world.watched.waits(), waits, "the programs come first, and are not told for longer");
}

#[tokio::test(start_paused = true)]
async fn the_network_of_pods_is_laid_where_the_server_says_they_are() {
    let world = World::new();
    let routes = PodRoutes { own: vec!["10.244.1.0/24".parse().expect("a range")], others: Vec::new() };
    world.server.script().pods = Some(routes.clone());
    world.services.unrouted_for.store(2, Ordering::Relaxed);
    world.join().await.expect("it goes on once it is laid");
    assert_eq!(*world.services.routes.lock().expect("unpoisoned"), Some(routes));
    assert!(world.host.has("/etc/cni/net.d/10-berth.conflist"));
    assert_eq!(world.watched.waits(), [Code::PodRoutesNotLaid]);
}
