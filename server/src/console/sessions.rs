//! Sessions: what a browser gets for an operator's token. They live in this process
//! only, are kept as digests, and end when they are idle, old, or their token is
//! gone from the file.

use std::sync::{Mutex, PoisonError};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use berth_domain::identity::sha256;
use berth_domain::timestamp::Timestamp;
use data_encoding::BASE64URL_NOPAD;
use zeroize::Zeroizing;

use super::identity::by_token;
use super::keys::{KeyDigest, Keys};
use super::limits;
use crate::admin::Operator;

/// What names a session: 256 random bits. Wiped when dropped; never shown.
#[derive(Clone)]
pub(super) struct Secret(Zeroizing<[u8; 32]>);

impl Secret {
    fn random() -> Option<Self> {
        let mut bits = Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(&mut *bits).ok()?;
        Some(Self(bits))
    }

    /// As the browser sends it.
    pub(super) fn of_text(text: &str) -> Option<Self> {
        let bits = Zeroizing::new(BASE64URL_NOPAD.decode(text.as_bytes()).ok()?);
        Some(Self(Zeroizing::new(bits.as_slice().try_into().ok()?)))
    }

    /// For the browser.
    pub(super) fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(BASE64URL_NOPAD.encode(&*self.0))
    }

    fn digest(&self) -> [u8; 32] {
        sha256(&*self.0)
    }
}

struct Session {
    digest: [u8; 32],
    name: String,
    key: KeyDigest,
    began: Timestamp,
    used: Timestamp,
}

impl Session {
    fn stands(&self, now: Timestamp) -> bool {
        now < self.began.after(limits::SESSION_AGE) && now < self.used.after(limits::SESSION_IDLE)
    }
}

/// The sessions of this process.
#[derive(Default)]
pub(super) struct Sessions(Mutex<Vec<Session>>);

impl Sessions {
    /// A session for whoever knows this token, and the operator's name; `None` if
    /// the token is nobody's.
    pub(super) fn begin(&self, token: &str, keys: &Keys, now: Timestamp) -> Option<(Secret, Operator)> {
        let (name, key) = keys.whose(token)?;
        let secret = Secret::random()?;
        let operator = by_token(&name);
        let session = Session { digest: secret.digest(), name, key, began: now, used: now };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|session| session.stands(now));
        if all.len() >= limits::SESSIONS
            && let Some((idle, _)) = all.iter().enumerate().min_by_key(|(_, session)| session.used)
        {
            all.swap_remove(idle);
        }
        all.push(session);
        Some((secret, operator))
    }

    /// Whose session this is, if it still stands. Counts as use.
    pub(super) fn operator(&self, secret: &Secret, keys: &Keys, now: Timestamp) -> Option<Operator> {
        let digest = secret.digest();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|session| session.stands(now));
        let mut found = None;
        for session in all.iter_mut() {
            if verify_slices_are_equal(&session.digest, &digest).is_ok() {
                found = Some(session);
            }
        }
        let session = found?;
        if !keys.still_has(&session.name, &session.key) {
            session.began = Timestamp::from_millis(0);
            return None;
        }
        session.used = now;
        Some(by_token(&session.name))
    }

    /// Ends it.
    pub(super) fn end(&self, secret: &Secret) {
        let digest = secret.digest();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|session| verify_slices_are_equal(&session.digest, &digest).is_err());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_790_000_000_000).after(Duration::from_secs(seconds))
    }

    fn keys(directory: &tempfile::TempDir, lines: &str) -> Keys {
        let path = directory.path().join("console.tokens");
        std::fs::write(&path, lines).expect("a file");
        Keys::open(&path).expect("operators")
    }

    const ALICE: &str = "aliceaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const BOB: &str = "bobbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    #[test]
    fn a_session_ends_when_it_is_idle_or_old_or_was_ended() {
        let directory = tempfile::tempdir().expect("a directory");
        let keys = keys(&directory, &format!("alice {ALICE}\n"));
        let sessions = Sessions::default();
        assert!(sessions.begin(BOB, &keys, at(0)).is_none());
        let (secret, operator) = sessions.begin(ALICE, &keys, at(0)).expect("alice");
        assert_eq!(operator.as_str(), "console:alice");
        assert!(sessions.operator(&secret, &keys, at(3_599)).is_some());
        assert!(sessions.operator(&secret, &keys, at(3_599 + 3_600)).is_none(), "idle for an hour");

        let (secret, _) = sessions.begin(ALICE, &keys, at(0)).expect("alice");
        for half_hour in 1..24 {
            assert!(sessions.operator(&secret, &keys, at(half_hour * 1_800)).is_some());
        }
        assert!(sessions.operator(&secret, &keys, at(24 * 1_800)).is_none(), "twelve hours are over");

        let (secret, _) = sessions.begin(ALICE, &keys, at(0)).expect("alice");
        sessions.end(&secret);
        assert!(sessions.operator(&secret, &keys, at(1)).is_none());
    }

    #[test]
    fn there_are_never_more_than_the_table_says() {
        let directory = tempfile::tempdir().expect("a directory");
        let keys = keys(&directory, &format!("alice {ALICE}\n"));
        let sessions = Sessions::default();
        let (first, _) = sessions.begin(ALICE, &keys, at(0)).expect("alice");
        for second in 1..=limits::SESSIONS {
            sessions.begin(ALICE, &keys, at(second as u64)).expect("alice");
        }
        assert!(sessions.operator(&first, &keys, at(100)).is_none(), "idle longest, it made room");
        assert_eq!(sessions.0.lock().expect("nobody panicked").len(), limits::SESSIONS);
    }

    #[test]
    fn a_token_that_is_taken_from_the_file_takes_its_sessions_along() {
        let directory = tempfile::tempdir().expect("a directory");
        let keys = keys(&directory, &format!("alice {ALICE}\nbob {BOB}\n"));
        let sessions = Sessions::default();
        let (alice, _) = sessions.begin(ALICE, &keys, at(0)).expect("alice");
        let (bob, _) = sessions.begin(BOB, &keys, at(0)).expect("bob");
        std::fs::write(directory.path().join("console.tokens"), format!("bob {BOB}\n")).expect("a file");
        assert!(sessions.operator(&alice, &keys, at(1)).is_none());
        assert!(sessions.operator(&bob, &keys, at(1)).is_some());
    }
}
