//! How far what ends by itself has come: the pure rules by which a server counts tokens
//! and nodes' certificates that somebody should look after.

use std::time::Duration;

use crate::node::CertificateTerms;
use crate::timestamp::Timestamp;
use crate::token::TokenRecord;

/// The longest time before a token's end that counts as near it; of a short-lived token
/// it is a tenth of its life.
pub const TOKEN_NEAR_ITS_END: Duration = Duration::from_secs(3600);

/// How far certificates are dated back for machines whose clocks are behind: no part of
/// the life that is shared out.
const BACKDATED: Duration = Duration::from_secs(300);

/// The part of a certificate's life after which nobody renews it any more: agents begin
/// at two thirds, and repeat what failed.
const RENEWED_BY: f64 = 5.0 / 6.0;

/// How a token stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenTerm {
    /// It has uses left, and time.
    Usable,
    /// Machines have joined with it, it has uses left, and it is near its end
    /// ([`TOKEN_NEAR_ITS_END`]): the next machine may come too late.
    Ending,
    /// All its uses are reserved.
    Spent,
    /// Its time is over.
    Expired,
    /// A person took it back.
    Revoked,
}

impl TokenTerm {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Usable, Self::Ending, Self::Spent, Self::Expired, Self::Revoked];

    /// How the token stands now.
    #[must_use]
    pub fn of(token: &TokenRecord, now: Timestamp) -> Self {
        let uses = usize::try_from(token.binding.uses).unwrap_or(usize::MAX);
        let near = (token.expires.since(token.created) / 10).min(TOKEN_NEAR_ITS_END);
        if token.revoked.is_some() {
            Self::Revoked
        } else if now >= token.expires {
            Self::Expired
        } else if token.used.len() >= uses {
            Self::Spent
        } else if !token.used.is_empty() && token.expires.since(now) <= near {
            Self::Ending
        } else {
            Self::Usable
        }
    }

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Usable => "usable",
            Self::Ending => "ending",
            Self::Spent => "spent",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

/// How a node's newest certificate stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CertificateTerm {
    /// It is good, and will be renewed in time.
    Good,
    /// Five sixths of its life are over, and it was not renewed.
    Late,
    /// It is good no more.
    Ended,
}

impl CertificateTerm {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Good, Self::Late, Self::Ended];

    /// How the certificate stands now.
    #[must_use]
    pub fn of(certificate: &CertificateTerms, now: Timestamp) -> Self {
        let begins = certificate.not_before.after(BACKDATED).min(certificate.not_after);
        let life = certificate.not_after.since(begins);
        if now >= certificate.not_after {
            Self::Ended
        } else if now >= begins.after(life.mul_f64(RENEWED_BY)) {
            Self::Late
        } else {
            Self::Good
        }
    }

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Late => "late",
            Self::Ended => "ended",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::SpkiHash;
    use crate::join::JoinId;
    use crate::proof::Verifier;
    use crate::token::{JoinToken, MINT_ENTROPY, Revocation, TokenBinding, Use};

    const HOUR: Duration = Duration::from_secs(3600);

    fn made() -> Timestamp {
        Timestamp::from_millis(1_790_000_000_000)
    }

    fn token(life: Duration, used: usize) -> TokenRecord {
        let token = JoinToken::mint(&zeroize::Zeroizing::new([1; MINT_ENTROPY]), SpkiHash::of(b"ca"));
        let key = SpkiHash::of(b"key");
        let reserved = Use { key, join: JoinId::of(&token.id, key), at: made() };
        TokenRecord {
            id: token.id.clone(),
            verifier: Verifier::of(&token),
            binding: TokenBinding { uses: 2, ..TokenBinding::default() },
            description: String::new(),
            created: made(),
            created_by: "test".to_owned(),
            expires: made().after(life),
            revoked: None,
            used: vec![reserved; used],
        }
    }

    #[test]
    fn a_token_is_ending_only_while_machines_come_with_it() {
        let day = 24 * HOUR;
        let soon = made().after(day - HOUR / 2);
        assert_eq!(TokenTerm::of(&token(day, 1), soon), TokenTerm::Ending);
        assert_eq!(TokenTerm::of(&token(day, 0), soon), TokenTerm::Usable, "nobody uses it");
        assert_eq!(TokenTerm::of(&token(day, 2), soon), TokenTerm::Spent, "nobody can");
        assert_eq!(TokenTerm::of(&token(day, 1), made().after(day - 2 * HOUR)), TokenTerm::Usable);
        assert_eq!(TokenTerm::of(&token(day, 1), made().after(day)), TokenTerm::Expired);
        let by = Revocation { at: made(), by: "test".to_owned() };
        let revoked = TokenRecord { revoked: Some(by), ..token(day, 1) };
        assert_eq!(TokenTerm::of(&revoked, soon), TokenTerm::Revoked);
    }

    #[test]
    fn a_short_lived_token_is_near_its_end_in_the_last_tenth() {
        let short = token(HOUR / 2, 1);
        assert_eq!(TokenTerm::of(&short, made().after(Duration::from_secs(1_600))), TokenTerm::Usable);
        assert_eq!(TokenTerm::of(&short, made().after(Duration::from_secs(1_700))), TokenTerm::Ending);
    }

    #[test]
    fn a_certificate_is_late_once_renewing_should_be_over() {
        let terms = |life| CertificateTerms {
            serial: None,
            not_before: made().before(BACKDATED),
            not_after: made().after(life),
        };
        let short = terms(Duration::from_secs(12));
        assert_eq!(CertificateTerm::of(&short, made()), CertificateTerm::Good);
        let terms = terms(6 * HOUR);
        assert_eq!(CertificateTerm::of(&terms, made().after(HOUR.mul_f64(4.9))), CertificateTerm::Good);
        assert_eq!(CertificateTerm::of(&terms, made().after(HOUR.mul_f64(5.1))), CertificateTerm::Late);
        assert_eq!(CertificateTerm::of(&terms, made().after(6 * HOUR)), CertificateTerm::Ended);
    }
}
