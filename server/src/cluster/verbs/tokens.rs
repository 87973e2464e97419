//! Minting, redeeming and revoking tokens.

use std::time::Duration;

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::join::{Event, Origin};
use berth_domain::phase::Phase;
use berth_domain::timestamp::Timestamp;
use berth_domain::token::{Claim, Revocation, TokenId, TokenRecord, Use};

use super::joins;
use crate::cluster::ledger::{Ledger, Problem, Stored, TokenLedger};

/// Keeps a new token.
pub(in crate::cluster) fn mint(ledger: &mut dyn TokenLedger, token: &TokenRecord) -> Result<(), Problem> {
    if ledger.token(&token.id)?.is_some() {
        return Err(rejected(&token.id, "a token of this id exists already").into());
    }
    Ok(ledger.keep_token(token)?)
}

/// Reserves a use for a key, and records it when it is the key's first time.
pub(in crate::cluster) fn redeem(
    ledger: &mut dyn Ledger,
    claim: &Claim,
    origin: &Origin,
    now: Timestamp,
) -> Result<Use, Problem> {
    let Some(token) = ledger.open_token(&claim.token)? else {
        return Err(rejected(&claim.token, "there is no such token").into());
    };
    let uses = token.used.len();
    let granted = token.redeem(claim, now)?;
    if token.used.len() > uses {
        ledger.keep_use(&claim.token)?;
        let event = Event::Redeemed { origin: origin.clone(), key: claim.key };
        joins::record(ledger, granted.join, None, event, now)?;
    }
    Ok(granted)
}

/// Takes a token back; a second time changes nothing.
pub(in crate::cluster) fn revoke(
    ledger: &mut dyn TokenLedger,
    id: &TokenId,
    by: &str,
    now: Timestamp,
) -> Stored<bool> {
    let Some(mut token) = ledger.token(id)? else {
        return Ok(false);
    };
    if token.revoked.is_none() {
        token.revoked = Some(Revocation { at: now, by: by.to_owned() });
        ledger.keep_token(&token)?;
    }
    Ok(true)
}

/// Drops tokens that ended long ago.
pub(in crate::cluster) fn forget(
    ledger: &mut dyn TokenLedger,
    ids: &[TokenId],
    now: Timestamp,
) -> Stored<()> {
    for id in ids {
        if ledger.token(id)?.is_some_and(|token| is_long_over(&token, now)) {
            ledger.drop_token(id)?;
        }
    }
    Ok(())
}

/// Whether a token ended so long ago that lists leave it out.
pub(in crate::cluster) fn is_long_over(token: &TokenRecord, now: Timestamp) -> bool {
    let ended = token.revoked.as_ref().map_or(token.expires, |revoked| revoked.at.min(token.expires));
    now.since(ended) > KEPT_AFTER_THE_END
}

fn rejected(id: &TokenId, reason: &str) -> Diagnosis {
    Diagnosis::new(Code::TokenRejected, Phase::Authentication)
        .with("token", id)
        .with_private("reason", reason)
}

const KEPT_AFTER_THE_END: Duration = Duration::from_secs(7 * 24 * 3600);
