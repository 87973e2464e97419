//! The one line that a fresh server prints, so that trying it needs no manual.

use std::time::Duration;

use anyhow::Context as _;
use berth_domain::identity::SpkiHash;
use berth_domain::proof::Verifier;
use berth_domain::timestamp::Timestamp;
use berth_domain::token::{JoinToken, MINT_ENTROPY, TokenBinding, TokenRecord};
use zeroize::Zeroizing;

use crate::ports::Tokens;

/// How long the first token lives.
const FIRST_TOKEN: Duration = Duration::from_secs(15 * 60);

/// The line to paste, with a fresh token of one use; `None` where tokens were
/// made before: their operator knows how.
pub(super) async fn join_command(
    tokens: &dyn Tokens,
    pin: SpkiHash,
    endpoint: &str,
    now: Timestamp,
) -> anyhow::Result<Option<Zeroizing<String>>> {
    if !tokens.tokens(now).await.context("looking for tokens")?.is_empty() {
        return Ok(None);
    }
    let mut entropy = Zeroizing::new([0; MINT_ENTROPY]);
    aws_lc_rs::rand::fill(&mut *entropy).context("asking the system for randomness")?;
    let token = JoinToken::mint(&entropy, pin);
    let record = TokenRecord {
        id: token.id.clone(),
        verifier: Verifier::of(&token),
        binding: TokenBinding::default(),
        description: "made at the first start".to_owned(),
        created: now,
        created_by: "berth-server".to_owned(),
        expires: now.after(FIRST_TOKEN),
        revoked: None,
        used: Vec::new(),
    };
    tokens.mint(record).await.context("keeping the first token")?;
    Ok(Some(crate::cli::token::join_command(&token, endpoint)))
}
