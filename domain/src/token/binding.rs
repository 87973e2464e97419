//! What a token is bound to, what the store keeps of it, and the one rule by
//! which it is redeemed. Every store runs this rule inside its own transaction.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::TokenId;
use crate::diagnosis::{Code, Diagnosis};
use crate::identity::SpkiHash;
use crate::join::JoinId;
use crate::labels::{Labels, Taint};
use crate::name::{NamePattern, PoolName};
use crate::phase::Phase;
use crate::proof::Verifier;
use crate::timestamp::Timestamp;

/// The most uses one token may have.
pub const MOST_USES: u32 = 10_000;

/// The most networks one token may be bound to.
pub const MOST_NETWORKS: usize = 32;

/// A network that joins may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "IpNet", into = "IpNet")]
pub struct Network(IpNet);

impl Network {
    /// Whether the address is in it. An IPv4 address inside IPv6 counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The text is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a network is written as 10.0.0.0/8 or 2001:db8::/32, without host bits")]
pub struct NotANetwork;

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        text.parse::<IpNet>().map_err(|_| NotANetwork)?.try_into()
    }
}

impl TryFrom<IpNet> for Network {
    type Error = NotANetwork;

    fn try_from(net: IpNet) -> Result<Self, NotANetwork> {
        if net.trunc() == net { Ok(Self(net)) } else { Err(NotANetwork) }
    }
}

impl From<Network> for IpNet {
    fn from(network: Network) -> Self {
        network.0
    }
}

/// What a machine that joins by a token may become.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenBinding {
    /// The names it may take.
    pub names: NamePattern,
    /// The pool it will be in.
    pub pool: PoolName,
    /// How many keys may use it, 1 to [`MOST_USES`].
    pub uses: u32,
    /// Where joins may come from; empty means anywhere. At most [`MOST_NETWORKS`].
    pub networks: Vec<Network>,
    /// Labels that the Node gets.
    pub labels: Labels,
    /// Taints that the Node gets.
    pub taints: Vec<Taint>,
    /// Whether a person must approve each join.
    pub approval: bool,
}

impl Default for TokenBinding {
    fn default() -> Self {
        Self {
            names: NamePattern::any(),
            pool: PoolName::default(),
            uses: 1,
            networks: Vec::new(),
            labels: Labels::new(),
            taints: Vec::new(),
            approval: false,
        }
    }
}

/// One key's reservation of one use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Use {
    /// The key.
    pub key: SpkiHash,
    /// The join that it made.
    pub join: JoinId,
    /// When.
    pub at: Timestamp,
}

/// Who took a token back, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Revocation {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub by: String,
}

/// What the store keeps of a token: verifiers, never the secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenRecord {
    /// Which token.
    pub id: TokenId,
    /// What checks its proof and makes the server's.
    pub verifier: Verifier,
    /// What it is good for.
    pub binding: TokenBinding,
    /// A person's words about it, at most 256 bytes.
    pub description: String,
    /// When it was made.
    pub created: Timestamp,
    /// Who made it.
    pub created_by: String,
    /// When it ends, by the server's clock.
    pub expires: Timestamp,
    /// Who took it back.
    pub revoked: Option<Revocation>,
    /// The keys that reserved it, at most `binding.uses`.
    pub used: Vec<Use>,
}

/// A key's wish to use a token, after its proof was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Which token.
    pub token: TokenId,
    /// The agent's key.
    pub key: SpkiHash,
    /// Where it comes from: serves limits and this binding, never identity.
    pub source: IpAddr,
}

impl TokenRecord {
    /// All of it but for its uses, of which there may be ten thousand.
    #[must_use]
    pub fn without_uses(&self) -> Self {
        Self {
            id: self.id.clone(),
            verifier: self.verifier.clone(),
            binding: self.binding.clone(),
            description: self.description.clone(),
            created: self.created,
            created_by: self.created_by.clone(),
            expires: self.expires,
            revoked: self.revoked.clone(),
            used: Vec::new(),
        }
    }

    /// Reserves a use for the claim's key. The same key may ask any number of
    /// times while the token lives and gets the same answer.
    ///
    /// # Errors
    /// A diagnosis: revoked, expired, from a foreign network, or spent.
    pub fn redeem(&mut self, claim: &Claim, now: Timestamp) -> Result<Use, Diagnosis> {
        let refuse = |code| Diagnosis::new(code, Phase::Authentication).with("token", &self.id);
        if let Some(revoked) = &self.revoked {
            let reason = format!("revoked at {} by {}", revoked.at, revoked.by);
            return Err(refuse(Code::TokenRejected).with_private("reason", reason));
        }
        if now >= self.expires {
            return Err(refuse(Code::TokenExpired).with("expired", self.expires).with("now", now));
        }
        let networks = &self.binding.networks;
        if !networks.is_empty() && !networks.iter().any(|network| network.contains(claim.source)) {
            let wanted: Vec<String> = networks.iter().map(ToString::to_string).collect();
            return Err(refuse(Code::TokenBoundElsewhere)
                .with("binding", "network")
                .with("wanted", wanted.join(", "))
                .with("found", claim.source));
        }
        if let Some(earlier) = self.used.iter().find(|earlier| earlier.key == claim.key) {
            return Ok(earlier.clone());
        }
        if self.used.len() >= usize::try_from(self.binding.uses).unwrap_or(usize::MAX) {
            let joins: Vec<String> =
                self.used.iter().take(8).map(|earlier| earlier.join.to_string()).collect();
            return Err(refuse(Code::TokenSpent)
                .with("uses", self.binding.uses)
                .with_private("usedBy", joins.join(", ")));
        }
        let first = Use { key: claim.key, join: JoinId::of(&self.id, claim.key), at: now };
        self.used.push(first.clone());
        Ok(first)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::proof::Verifier;
    use crate::token::{JoinToken, MINT_ENTROPY};

    fn record(binding: TokenBinding) -> TokenRecord {
        let token = JoinToken::mint(&zeroize::Zeroizing::new([1; MINT_ENTROPY]), SpkiHash::of(b"ca"));
        TokenRecord {
            id: token.id.clone(),
            verifier: Verifier::of(&token),
            binding,
            description: String::new(),
            created: now(),
            created_by: "test".to_owned(),
            expires: now().after(Duration::from_secs(60)),
            revoked: None,
            used: Vec::new(),
        }
    }

    fn now() -> Timestamp {
        Timestamp::from_millis(1_790_000_000_000)
    }

    fn claim(record: &TokenRecord, key: &[u8], source: &str) -> Claim {
        Claim {
            token: record.id.clone(),
            key: SpkiHash::of(key),
            source: source.parse().expect("an address"),
        }
    }

    #[test]
    fn the_same_key_may_repeat_and_another_may_not() {
        let mut token = record(TokenBinding::default());
        let first = token.redeem(&claim(&token, b"a", "127.0.0.1"), now()).expect("a fresh token");
        let later = now().after(Duration::from_secs(5));
        assert_eq!(token.redeem(&claim(&token, b"a", "127.0.0.1"), later), Ok(first));
        let other = token.redeem(&claim(&token, b"b", "127.0.0.1"), later).expect_err("one use only");
        assert_eq!(other.code(), Code::TokenSpent);
        assert_eq!(token.used.len(), 1);
    }

    #[test]
    fn a_token_ends_at_its_moment_even_for_the_key_that_used_it() {
        let mut token = record(TokenBinding::default());
        token.redeem(&claim(&token, b"a", "127.0.0.1"), now()).expect("a fresh token");
        let refused = token.redeem(&claim(&token, b"a", "127.0.0.1"), token.expires).expect_err("it is over");
        assert_eq!(refused.code(), Code::TokenExpired);
    }

    #[test]
    fn a_token_bound_to_a_network_is_good_there_only() {
        let networks = vec!["10.0.0.0/8".parse().expect("a network")];
        let mut token = record(TokenBinding { networks, ..TokenBinding::default() });
        let refused = token.redeem(&claim(&token, b"a", "192.0.2.1"), now()).expect_err("from elsewhere");
        assert_eq!((refused.code(), refused.value("found")), (Code::TokenBoundElsewhere, Some("192.0.2.1")));
        assert!(token.redeem(&claim(&token, b"a", "::ffff:10.1.2.3"), now()).is_ok());
    }

    #[test]
    fn who_revoked_a_token_is_for_operators_only() {
        let mut token = record(TokenBinding::default());
        token.revoked = Some(Revocation { at: now(), by: "alice".to_owned() });
        let refused = token.redeem(&claim(&token, b"a", "127.0.0.1"), now()).expect_err("it is revoked");
        assert!(refused.cause().contains("alice"));
        assert!(!refused.told().cause().contains("alice"));
    }

    #[test]
    fn a_network_with_host_bits_is_a_slip() {
        assert_eq!("10.1.2.3/8".parse::<Network>(), Err(NotANetwork));
        let read = serde_json::from_str::<Network>("\"10.1.2.3/8\"").expect_err("read or typed");
        assert!(read.to_string().contains("without host bits"), "{read}");
        let network: Network = serde_json::from_str("\"10.0.0.0/8\"").expect("a network");
        assert_eq!(serde_json::to_string(&network).expect("a text"), "\"10.0.0.0/8\"");
    }
}
