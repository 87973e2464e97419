//! What a machine may become: pure rules over the token's binding, the
//! machine's wish and the operator's policy.

use std::time::Duration;

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::identity::NodeIdentity;
use berth_domain::labels::{Labels, Taint};
use berth_domain::name::{NamePattern, NodeName, PoolName};
use berth_domain::node::CertificateTerms;
use berth_domain::phase::Phase;
use berth_domain::timestamp::Timestamp;
use berth_domain::token::TokenRecord;

/// How far a certificate's beginning lies before its making, so that a node
/// whose clock is a little behind may use it (SECURITY R30).
const BACKDATED: Duration = Duration::from_secs(300);

/// How far it may lie before where a signer outside chooses it: a request that is
/// repeated within the hour for which Kubernetes keeps it gets its first
/// certificate, which was back-dated too.
const CHOSEN_BEFORE: Duration = Duration::from_secs(2 * 3600);

/// Bytes of a serial number: 128 bits, the first of them zero to keep it positive.
pub const SERIAL_BYTES: usize = 16;

/// The operator's rules.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Names that any node may have.
    pub names: NamePattern,
    /// How long a certificate is good.
    pub certificate_lifetime: Duration,
    /// How many certificates one name may get in an hour.
    pub certificates_per_name_and_hour: u32,
    /// Whether every join waits for a person.
    pub approval: bool,
}

/// What a pool adds to its nodes.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    /// Labels.
    pub labels: Labels,
    /// Taints.
    pub taints: Vec<Taint>,
    /// Whether a person must approve each join into it.
    pub approval: bool,
}

/// What was granted to a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Name and pool.
    pub identity: NodeIdentity,
    /// Labels of pool and token; the token's win.
    pub labels: Labels,
    /// Taints of pool and token.
    pub taints: Vec<Taint>,
    /// Whether a person must approve.
    pub approval: bool,
}

impl Policy {
    /// Decides what a machine becomes that joins by this token, into the token's
    /// pool.
    ///
    /// # Errors
    /// The name is none, the token is bound elsewhere, or the policy does not
    /// allow the name.
    pub fn decide(
        &self,
        token: &TokenRecord,
        wanted_name: &str,
        wanted_pool: Option<&PoolName>,
        pool: Pool,
    ) -> Result<Grant, Diagnosis> {
        let binding = &token.binding;
        let name = self.name(token, wanted_name)?;
        if let Some(wanted) = wanted_pool.filter(|wanted| **wanted != binding.pool) {
            return Err(bound_elsewhere(token, "pool", binding.pool.as_str(), wanted.as_str()));
        }
        let mut labels = pool.labels;
        labels.extend(binding.labels.clone());
        let mut taints = pool.taints;
        taints.extend(binding.taints.iter().cloned());
        taints.sort();
        taints.dedup();
        Ok(Grant {
            identity: NodeIdentity { name, pool: binding.pool.clone() },
            labels,
            taints,
            approval: self.approval || pool.approval || binding.approval,
        })
    }

    /// The terms of a certificate made now.
    #[must_use]
    pub fn terms(&self, serial: [u8; SERIAL_BYTES], now: Timestamp) -> CertificateTerms {
        let mut serial = serial;
        // RFC 5280 4.1.2.2: positive, and with its first bits set so that its
        // length is always the same.
        if let Some(first) = serial.first_mut() {
            *first = (*first & 0x3f) | 0x40;
        }
        // X.509 counts seconds: what is recorded is what the certificate says.
        let whole = Timestamp::from_millis(now.seconds().saturating_mul(1000));
        CertificateTerms {
            serial: Some(data_encoding::HEXLOWER.encode(&serial)),
            not_before: whole.before(BACKDATED),
            not_after: whole.after(self.certificate_lifetime),
        }
    }

    /// The terms within which a signer outside chooses serial and dates.
    #[must_use]
    pub fn outer_terms(&self, now: Timestamp) -> CertificateTerms {
        let whole = Timestamp::from_millis(now.seconds().saturating_mul(1000));
        CertificateTerms {
            serial: None,
            not_before: whole.before(CHOSEN_BEFORE),
            not_after: whole.after(self.certificate_lifetime),
        }
    }

    fn name(&self, token: &TokenRecord, wanted: &str) -> Result<NodeName, Diagnosis> {
        let names = &token.binding.names;
        if let Some(only) = names.exact().filter(|_| wanted.is_empty()) {
            return Ok(only);
        }
        let name: NodeName = wanted.parse().map_err(|problem| {
            let suggestion =
                NodeName::nearest(wanted).map_or_else(|| "NAME".to_owned(), |name| name.to_string());
            Diagnosis::new(Code::HostnameInvalid, Phase::Authorization)
                .with("hostname", wanted)
                .with("problem", problem)
                .with("suggestion", suggestion)
        })?;
        if !names.allows(&name) {
            return Err(bound_elsewhere(token, "name", names.as_str(), name.as_str()));
        }
        if !self.names.allows(&name) {
            return Err(Diagnosis::new(Code::NameNotAllowed, Phase::Authorization)
                .with("name", &name)
                .with("pattern", &self.names));
        }
        Ok(name)
    }
}

fn bound_elsewhere(token: &TokenRecord, binding: &'static str, wanted: &str, found: &str) -> Diagnosis {
    Diagnosis::new(Code::TokenBoundElsewhere, Phase::Authorization)
        .with("token", &token.id)
        .with("binding", binding)
        .with("wanted", wanted)
        .with("found", found)
}

#[cfg(test)]
mod tests {
    use berth_domain::identity::SpkiHash;
    use berth_domain::proof::Verifier;
    use berth_domain::token::{JoinToken, MINT_ENTROPY, TokenBinding};
    use zeroize::Zeroizing;

    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_millis(1_790_000_000_999)
    }

    fn policy(names: &str) -> Policy {
        Policy {
            names: names.parse().expect("a pattern"),
            certificate_lifetime: Duration::from_secs(3600),
            certificates_per_name_and_hour: 10,
            approval: false,
        }
    }

    fn token(names: &str) -> TokenRecord {
        let token = JoinToken::mint(&Zeroizing::new([1; MINT_ENTROPY]), SpkiHash::of(b"ca"));
        TokenRecord {
            id: token.id.clone(),
            verifier: Verifier::of(&token),
            binding: TokenBinding { names: names.parse().expect("a pattern"), ..TokenBinding::default() },
            description: String::new(),
            created: now(),
            created_by: "test".to_owned(),
            expires: Timestamp::LAST,
            revoked: None,
            used: Vec::new(),
        }
    }

    #[test]
    fn the_token_binds_the_name_before_the_policy_does() {
        let refused = policy("*")
            .decide(&token("rack1-*"), "rack2-n1", None, Pool::default())
            .expect_err("bound elsewhere");
        assert_eq!(refused.code(), Code::TokenBoundElsewhere);
        assert_eq!((refused.value("wanted"), refused.value("found")), (Some("rack1-*"), Some("rack2-n1")));
        let refused = policy("rack2-*")
            .decide(&token("*"), "rack1-n1", None, Pool::default())
            .expect_err("not allowed");
        assert_eq!(refused.code(), Code::NameNotAllowed);
    }

    #[test]
    fn a_machine_without_a_wish_gets_the_one_name_of_its_token() {
        let grant = policy("*").decide(&token("n7"), "", None, Pool::default()).expect("one name");
        assert_eq!(grant.identity.name.as_str(), "n7");
        let refused = policy("*").decide(&token("*"), "", None, Pool::default()).expect_err("no name at all");
        assert_eq!(refused.code(), Code::HostnameInvalid);
    }

    #[test]
    fn a_pool_is_the_tokens_to_give() {
        let wanted = "gpu".parse().expect("a pool");
        let refused =
            policy("*").decide(&token("*"), "n1", Some(&wanted), Pool::default()).expect_err("another pool");
        assert_eq!((refused.code(), refused.value("binding")), (Code::TokenBoundElsewhere, Some("pool")));
    }

    #[test]
    fn a_serial_is_positive_and_of_one_length() {
        for byte in [0x00, 0x7f, 0x80, 0xff] {
            let terms = policy("*").terms([byte; SERIAL_BYTES], now());
            let serial = terms.serial.expect("a serial number");
            assert_eq!(serial.len(), 2 * SERIAL_BYTES);
            assert!(("40"..="7f").contains(&&serial[..2]), "{serial}");
        }
    }

    #[test]
    fn a_certificate_lasts_as_long_as_policy_says_and_begins_a_little_before() {
        let terms = policy("*").terms([0; SERIAL_BYTES], now());
        assert_eq!(terms.not_after.millis(), 1_790_003_600_000);
        assert_eq!(terms.not_before.millis(), 1_789_999_700_000);
    }
}
