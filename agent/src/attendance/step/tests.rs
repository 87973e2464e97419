use berth_domain::phase::Phase;

use super::*;

const LIFE: Duration = Duration::from_secs(3600);
const INTERVAL: Duration = Duration::from_secs(4);

fn wall() -> Timestamp {
    Timestamp::from_millis(1_790_000_000_000)
}

fn at(seconds: u64) -> Now {
    let uptime = Duration::from_secs(seconds);
    Now { uptime, wall: wall().after(uptime), random: 0.5 }
}

fn fresh() -> Validity {
    Validity { not_before: wall().before(Duration::from_secs(300)), not_after: wall().after(LIFE) }
}

fn terms() -> Event {
    Event::Heard(AttendFromServer::Terms { heartbeat_interval: INTERVAL, server_time: wall() })
}

fn lost() -> Event {
    Event::Lost(Diagnosis::new(Code::AgentLost, Phase::Registration))
}

/// Attends since second 0, and has said its first words.
fn attending() -> State {
    let (state, action) = step(State::new(fresh(), at(0)), Event::Tick, at(0));
    assert_eq!(action, Action::Connect);
    let (state, action) = step(state, Event::Connected, at(0));
    assert_eq!(action, Action::Say(AttendFromAgent::Heartbeat), "the agent speaks first");
    let (state, action) = step(state, terms(), at(0));
    assert_eq!(action, Action::Check);
    let (state, action) = step(state, Event::Checked(Vec::new()), at(0));
    assert_eq!(action, Action::Say(AttendFromAgent::Health(Vec::new())));
    state
}

fn sleeps_until(action: &Action) -> Duration {
    let Action::Sleep(until) = action else { panic!("{action:?} is no sleep") };
    *until
}

#[test]
fn heartbeats_come_before_the_interval_is_over() {
    let (state, action) = step(attending(), Event::Tick, at(0));
    let until = sleeps_until(&action);
    assert!(until <= INTERVAL && until >= INTERVAL.mul_f64(0.9), "{until:?}");
    let (_, action) = step(state, Event::Tick, at(4));
    assert_eq!(action, Action::Say(AttendFromAgent::Heartbeat));
}

#[test]
fn health_is_told_when_it_changes_and_to_each_server_anew() {
    let (state, _) = step(attending(), Event::Checked(Vec::new()), at(1));
    let failing = vec![Diagnosis::new(Code::DiskSpaceTooLow, Phase::Registration)];
    let (state, action) = step(state, Event::Checked(failing.clone()), at(2));
    assert_eq!(action, Action::Say(AttendFromAgent::Health(failing.clone())));
    let (state, action) = step(state, Event::Checked(failing.clone()), at(3));
    assert!(!matches!(action, Action::Say(AttendFromAgent::Health(_))), "it was told: {action:?}");
    let (state, _) = step(state, lost(), at(3));
    let (state, _) = step(state, Event::Connected, at(10));
    let (_, action) = step(state, Event::Checked(failing.clone()), at(10));
    assert_eq!(action, Action::Say(AttendFromAgent::Health(failing)));
}

#[test]
fn a_lost_line_is_made_again_after_a_growing_pause() {
    let (mut state, action) = step(attending(), lost(), at(10));
    assert_eq!(action, Action::HangUp);
    let mut pauses = Vec::new();
    let mut second = 10;
    for _ in 0..8 {
        let (waiting, action) = step(state, Event::Tick, at(second));
        let until = sleeps_until(&action);
        pauses.push(until.saturating_sub(Duration::from_secs(second)));
        second += 40;
        let (connecting, action) = step(waiting, Event::Tick, at(second));
        assert_eq!(action, Action::Connect);
        (state, _) = step(connecting, lost(), at(second));
    }
    assert!(pauses.is_sorted() && pauses[0] < Duration::from_secs(2), "{pauses:?}");
    assert!(pauses.iter().all(|pause| *pause <= Duration::from_secs(30)));
}

#[test]
fn a_final_answer_ends_the_attendance() {
    for code in [Code::MachineBanned, Code::CertificateSuperseded, Code::CertificateExpired] {
        let why = Diagnosis::new(code, Phase::Registration);
        let (_, action) = step(attending(), Event::Lost(why.clone()), at(1));
        assert_eq!(action, Action::End(why));
    }
}

#[test]
fn a_draining_server_is_left_within_the_time_it_tells() {
    let within = Duration::from_secs(8);
    let draining = Event::Heard(AttendFromServer::Draining { return_within: within });
    let (state, action) = step(attending(), draining, at(1));
    assert_eq!(action, Action::HangUp);
    let (_, action) = step(state, Event::Tick, at(1));
    assert_eq!(sleeps_until(&action), Duration::from_secs(5), "half of it, by the middle of randomness");
}

#[test]
fn a_renewal_is_due_at_two_thirds_and_the_line_begins_again_with_it() {
    let (state, action) = step(attending(), Event::Tick, at(2400));
    assert_eq!(action, Action::Renew);
    let (state, action) = step(state, Event::Tick, at(2400));
    assert_ne!(action, Action::Renew, "one at a time");
    let renewed =
        Validity { not_before: fresh().not_before.after(LIFE), not_after: fresh().not_after.after(LIFE) };
    let (state, action) = step(state, Event::Renewed(renewed), at(2401));
    assert_eq!(action, Action::HangUp);
    let (state, action) = step(state, Event::Tick, at(2401));
    assert_eq!(action, Action::Connect, "at once");
    let (state, _) = step(state, Event::Connected, at(2401));
    let (_, action) = step(state, Event::Tick, at(2402));
    assert_ne!(action, Action::Renew);
}

#[test]
fn the_server_may_ask_for_a_renewal_at_any_time() {
    let (_, action) = step(attending(), Event::Heard(AttendFromServer::RenewNow), at(1));
    assert_eq!(action, Action::Renew);
}

#[test]
fn a_renewal_that_failed_is_tried_again_while_the_node_attends() {
    let (state, _) = step(attending(), Event::Heard(AttendFromServer::RenewNow), at(1));
    let why = Diagnosis::new(Code::SignerUnavailable, Phase::Authorization);
    let (state, action) = step(state, Event::NotRenewed(why), at(1));
    assert!(state.is_up() && action != Action::Renew);
    let (_, action) = step(state, Event::Tick, at(60));
    assert_eq!(action, Action::Renew);
}
