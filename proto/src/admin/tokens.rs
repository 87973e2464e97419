//! What an operator asks of a new token.

use std::time::Duration;

use berth_domain::labels::{Labels, MOST_LABELS, Taint};
use berth_domain::name::{NamePattern, PoolName};
use berth_domain::token::{MOST_NETWORKS, MOST_USES, Network, TokenBinding};

use super::{InvalidRequest, v1, words_fit};

/// How long a token lives unless it is told otherwise.
pub const DEFAULT_TTL: Duration = Duration::from_secs(15 * 60);

/// The shortest life of a token.
pub const SHORTEST_TTL: Duration = Duration::from_secs(1);

/// The longest life of a token: what is not used within a month is forgotten somewhere.
pub const LONGEST_TTL: Duration = Duration::from_secs(30 * 24 * 3600);

/// A token that an operator asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewToken {
    /// What it is bound to.
    pub binding: TokenBinding,
    /// How long it lives, [`SHORTEST_TTL`] to [`LONGEST_TTL`].
    pub ttl: Duration,
    /// A person's words about it.
    pub description: String,
}

/// What an operator asked for.
///
/// # Errors
/// Names every field that breaks its bounds.
pub fn new_token_from_wire(wire: v1::CreateTokenRequest) -> Result<NewToken, InvalidRequest> {
    let mut invalid = InvalidRequest::default();
    let ttl = match wire.ttl_ms {
        0 => DEFAULT_TTL,
        millis => Duration::from_millis(millis),
    };
    if !(SHORTEST_TTL..=LONGEST_TTL).contains(&ttl) {
        invalid.note("ttl_ms", "a token lives 1 second to 30 days; 0 stands for 15 minutes");
    }
    let description = invalid.take("description", words_fit(wire.description));
    let binding = binding_from_wire(wire.binding.unwrap_or_default(), &mut invalid);
    let asked = binding.zip(description).map(|(binding, description)| NewToken { binding, ttl, description });
    invalid.finish(asked)
}

fn binding_from_wire(wire: v1::TokenBinding, invalid: &mut InvalidRequest) -> Option<TokenBinding> {
    let names = match wire.names.as_str() {
        "" => Some(NamePattern::any()),
        pattern => invalid.parse("binding.names", pattern),
    };
    let pool = match wire.pool.as_str() {
        "" => Some(PoolName::default()),
        pool => invalid.parse("binding.pool", pool),
    };
    let uses = wire.uses.max(1);
    if uses > MOST_USES {
        invalid.note("binding.uses", format!("a token has 1 to {MOST_USES} uses, not {uses}"));
    }
    let mut networks: Vec<Network> = Vec::new();
    if invalid.counts("binding.networks", wire.networks.len(), MOST_NETWORKS) {
        for (place, network) in wire.networks.iter().enumerate() {
            networks.extend(invalid.parse::<Network>(format!("binding.networks[{place}]"), network));
        }
    }
    let mut labels = Labels::new();
    if invalid.counts("binding.labels", wire.labels.len(), MOST_LABELS) {
        for (key, value) in &wire.labels {
            let field = || format!("binding.labels[{key:?}]");
            labels.extend(invalid.parse(field(), key).zip(invalid.parse(field(), value)));
        }
    }
    let mut taints: Vec<Taint> = Vec::new();
    if invalid.counts("binding.taints", wire.taints.len(), MOST_LABELS) {
        for (place, taint) in wire.taints.iter().enumerate() {
            taints.extend(invalid.parse::<Taint>(format!("binding.taints[{place}]"), taint));
        }
    }
    let (names, pool) = names.zip(pool)?;
    Some(TokenBinding { names, pool, uses, networks, labels, taints, approval: wire.approval })
}

impl InvalidRequest {
    /// Whether a list is within its bound.
    fn counts(&mut self, field: &str, found: usize, most: usize) -> bool {
        if found > most {
            self.note(field, format!("it has {found} entries and may have {most}"));
        }
        found <= most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_says_nothing_is_one_use_of_any_name_for_a_quarter_of_an_hour() {
        let asked = new_token_from_wire(v1::CreateTokenRequest::default()).expect("all have defaults");
        assert_eq!((asked.binding, asked.ttl), (TokenBinding::default(), DEFAULT_TTL));
    }

    #[test]
    fn all_wrong_fields_are_named_at_once() {
        let binding = v1::TokenBinding {
            names: "Rack 1".to_owned(),
            uses: MOST_USES + 1,
            networks: vec!["10.0.0.0/8".to_owned(), "10.1.2.3/8".to_owned()],
            labels: [("a b".to_owned(), String::new())].into(),
            taints: vec!["x:Never".to_owned()],
            ..v1::TokenBinding::default()
        };
        let description = "a\nb".to_owned();
        let request = v1::CreateTokenRequest { binding: Some(binding), ttl_ms: 1, description };
        let refused = new_token_from_wire(request).expect_err("nothing in it is right");
        let mut fields: Vec<&str> = refused.violations().iter().map(|it| it.field.as_str()).collect();
        fields.sort_unstable();
        assert_eq!(
            fields,
            [
                "binding.labels[\"a b\"]",
                "binding.names",
                "binding.networks[1]",
                "binding.taints[0]",
                "binding.uses",
                "description",
                "ttl_ms"
            ]
        );
    }

    #[test]
    fn a_list_beyond_its_bound_is_not_read_at_all() {
        let networks = vec!["nonsense".to_owned(); MOST_NETWORKS + 1];
        let binding = v1::TokenBinding { networks, ..v1::TokenBinding::default() };
        let request = v1::CreateTokenRequest { binding: Some(binding), ..v1::CreateTokenRequest::default() };
        let refused = new_token_from_wire(request).expect_err("too many");
        assert_eq!(refused.violations().len(), 1);
    }
}
