use berth_domain::diagnosis::Code;
use berth_domain::phase::Phase;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn now() -> Timestamp {
    Timestamp::from_millis(1_790_000_000_000)
}

fn issued(life: Duration) -> Validity {
    Validity { not_before: now().before(BACKDATED), not_after: now().after(life) }
}

#[test]
fn a_certificate_is_renewed_at_two_thirds_of_its_life_give_or_take() {
    let early = due(issued(HOUR), 0.0).since(now()).as_secs();
    let late = due(issued(HOUR), 1.0).since(now()).as_secs();
    assert_eq!((early, late), (2220, 2580), "2400 s less and more 180 s");
}

#[test]
fn back_dating_is_no_part_of_a_short_life() {
    let life = Duration::from_secs(12);
    let due = due(issued(life), 0.5);
    assert!(due > now() && due < now().after(life), "{due}");
}

#[test]
fn a_life_that_is_over_is_due_at_once() {
    let over = Validity { not_before: now(), not_after: now().after(Duration::from_secs(60)) };
    assert!(due(over, 1.0) <= over.not_after);
}

#[test]
fn a_failed_renewal_is_tried_several_times_before_the_end() {
    let why = Diagnosis::new(Code::StoreUnavailable, Phase::Authorization);
    let certificate = issued(Duration::from_secs(100));
    let mut at = now().after(Duration::from_secs(66));
    let mut attempts = 0;
    while at < certificate.not_after {
        attempts += 1;
        at = again(at, certificate, attempts, &why, 1.0);
    }
    assert!((4..40).contains(&attempts), "{attempts} attempts");
}

#[test]
fn a_server_that_names_a_time_is_not_asked_before() {
    let why = Diagnosis::new(Code::SignerUnavailable, Phase::Authorization)
        .retry(Retry::After(Duration::from_secs(60)));
    let pause = again(now(), issued(HOUR), 1, &why, 0.0).since(now());
    assert_eq!(pause, Duration::from_secs(60));
}
