//! The contract of `Units`, kept by the double and by the adapter before a systemd
//! that speaks D-Bus as the real one does. The real one is asked in the machine's
//! tests.

mod systemd;

use std::time::Duration;

use berth_agent::host::units::{MemoryUnits, Systemd, Units};

use self::systemd::FakeSystemd;

/// A service manager, and somebody else's hands on it.
trait World {
    fn units(&self) -> &dyn Units;
    /// Lets a unit end whenever it is started, or no more.
    fn fail(&self, unit: &str, fails: bool);
}

const UNIT: &str = "kubelet.service";

async fn keeps_the_contract(world: &dyn World) {
    let units = world.units();
    assert!(!units.look(UNIT).await.expect("it can be asked").is_running(), "nobody has started it");
    units.stop(UNIT).await.expect("it is stopped already");

    units.start(UNIT).await.expect("it starts");
    let state = units.look(UNIT).await.expect("it can be asked");
    assert!(state.is_running() && !state.has_failed(), "{state:?}");

    // A change between a look and the wait for one is not missed.
    units.stop(UNIT).await.expect("it stops");
    soon(units.changed()).await;
    assert!(!units.look(UNIT).await.expect("it can be asked").is_running());

    world.fail(UNIT, true);
    units.start(UNIT).await.expect("the manager has done it, and the unit has ended");
    let state = units.look(UNIT).await.expect("it can be asked");
    assert!(state.has_failed(), "{state:?}");
    assert_eq!(state.end(), "exit status 1");

    world.fail(UNIT, false);
    units.reload().await.expect("it reads its units");
    units.start(UNIT).await.expect("it starts");
    soon(units.changed()).await;
    assert!(units.look(UNIT).await.expect("it can be asked").is_running());
}

async fn soon(changed: impl Future<Output = ()>) {
    tokio::time::timeout(Duration::from_secs(10), changed).await.expect("it is told of a change");
}

#[tokio::test]
async fn the_double_keeps_the_contract() {
    keeps_the_contract(&MemoryUnits::default()).await;
}

#[tokio::test]
async fn systemd_keeps_the_contract() {
    let fake = FakeSystemd::start();
    let units = Systemd::behind(fake.socket());
    keeps_the_contract(&Behind { fake, units }).await;
}

#[tokio::test]
async fn a_systemd_that_was_restarted_is_reached_again() {
    let mut fake = FakeSystemd::start();
    let units = Systemd::behind(fake.socket());
    units.start(UNIT).await.expect("it starts");
    fake.hang_up().await;
    let mut answers = false;
    // The line that was lost may be noticed by the first word over it.
    for _ in 0..2 {
        answers |= units.look(UNIT).await.is_ok();
    }
    assert!(answers, "the line is made anew");
}

struct Behind {
    fake: FakeSystemd,
    units: Systemd,
}

impl World for Behind {
    fn units(&self) -> &dyn Units {
        &self.units
    }

    fn fail(&self, unit: &str, fails: bool) {
        self.fake.fail(unit, fails);
    }
}

impl World for MemoryUnits {
    fn units(&self) -> &dyn Units {
        self
    }

    fn fail(&self, unit: &str, fails: bool) {
        Self::fail(self, unit, fails);
    }
}
