//! Randomness for waits, so that a thousand agents that lost one server do not
//! come back in step (SECURITY R35). Rules take the random number as an argument.

use std::time::Duration;

use aws_lc_rs::rand;

/// A number from 0 to 1, evenly spread. Without randomness, the middle: a wait
/// may be guessed, it must not fail.
#[must_use]
pub fn random() -> f64 {
    let mut bytes = [0; 4];
    match rand::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 0.5,
    }
}

/// A part of `whole`: all of it where `random` is 1.
#[must_use]
pub fn part(whole: Duration, random: f64) -> Duration {
    whole.mul_f64(random.clamp(0.0, 1.0))
}

/// Exponential back-off with full jitter: from `first` in the first try after a
/// failure, doubled with each, to `most`.
#[must_use]
pub fn backoff(first: Duration, most: Duration, failures: u32, random: f64) -> Duration {
    let doubled = first.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)));
    let ceiling = doubled.min(most);
    let floor = first.min(most).mul_f64(0.5);
    floor + part(ceiling.saturating_sub(floor), random)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_secs(1);
    const MOST: Duration = Duration::from_secs(30);

    #[test]
    fn a_back_off_doubles_to_its_ceiling_and_never_vanishes() {
        assert_eq!(backoff(FIRST, MOST, 1, 1.0), Duration::from_secs(1));
        assert_eq!(backoff(FIRST, MOST, 3, 1.0), Duration::from_secs(4));
        assert_eq!(backoff(FIRST, MOST, u32::MAX, 1.0), MOST);
        assert_eq!(backoff(FIRST, MOST, 9, 0.0), Duration::from_millis(500));
    }

    #[test]
    fn randomness_is_spread_between_its_ends() {
        let drawn: Vec<f64> = (0..256).map(|_| random()).collect();
        assert!(drawn.iter().all(|number| (0.0..=1.0).contains(number)));
        assert!(drawn.iter().any(|number| *number < 0.25) && drawn.iter().any(|number| *number > 0.75));
    }
}
