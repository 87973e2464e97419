//! Names: of nodes, of pools, and the patterns that allow them. One grammar,
//! checked once, in the type (SECURITY R11).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest node name, in bytes (RFC 1123 subdomain, Kubernetes).
pub const LONGEST_NODE_NAME: usize = 253;

/// The longest label of a DNS name, in bytes.
pub const LONGEST_DNS_LABEL: usize = 63;

/// The text is not a name of the kind that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAName {
    /// Nothing there.
    #[error("it is empty")]
    Empty,
    /// More bytes than allowed.
    #[error("it has {found} bytes and may have {most}")]
    TooLong {
        /// Bytes found.
        found: usize,
        /// Bytes allowed.
        most: usize,
    },
    /// A character outside the grammar.
    #[error("it contains {0:?}; only a-z, 0-9, '-' and '.' may stand there")]
    Character(char),
    /// A label is empty, or begins or ends with a hyphen.
    #[error("the part {0:?} must begin and end with a letter or digit")]
    Label(String),
    /// The name of every machine, hence of none.
    #[error("`localhost` names every machine")]
    Localhost,
}

/// A node name: a lower-case DNS-1123 subdomain, at most 253 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(String);

impl NodeName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The nearest legal name to a text, if anything of it can stay.
    #[must_use]
    pub fn nearest(text: &str) -> Option<Self> {
        let lower: String = text
            .chars()
            .map(|c| c.to_ascii_lowercase())
            .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' { c } else { '-' })
            .take(LONGEST_NODE_NAME)
            .collect();
        let labels: Vec<&str> = lower
            .split('.')
            .map(|label| label.trim_matches('-'))
            .map(|label| label.get(..LONGEST_DNS_LABEL).unwrap_or(label).trim_matches('-'))
            .filter(|label| !label.is_empty())
            .collect();
        labels.join(".").parse().ok()
    }
}

impl FromStr for NodeName {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        check_subdomain(text)?;
        if text == "localhost" || text.starts_with("localhost.") {
            return Err(NotAName::Localhost);
        }
        Ok(Self(text.to_owned()))
    }
}

/// A pool of nodes: one DNS-1123 label, at most 63 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolName(String);

impl PoolName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for PoolName {
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl FromStr for PoolName {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        check_length(text, LONGEST_DNS_LABEL)?;
        check_label(text)?;
        Ok(Self(text.to_owned()))
    }
}

/// Which node names are allowed: a node name in which each `*` stands for any
/// run of characters, dots included.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NamePattern(String);

impl NamePattern {
    /// The pattern that allows every name.
    #[must_use]
    pub fn any() -> Self {
        Self("*".to_owned())
    }

    /// The pattern as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The one name that the pattern allows, where it has no star.
    #[must_use]
    pub fn exact(&self) -> Option<NodeName> {
        self.0.parse().ok()
    }

    /// Whether the pattern allows the name. Linear in the name's length times
    /// the number of stars.
    #[must_use]
    pub fn allows(&self, name: &NodeName) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = name.as_str().strip_prefix(first) else { return false };
        let Some(last) = parts.next_back() else { return rest.is_empty() };
        for part in parts {
            let Some((_, after)) = rest.split_once(part) else { return false };
            rest = after;
        }
        rest.ends_with(last)
    }
}

impl FromStr for NamePattern {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        check_length(text, LONGEST_NODE_NAME)?;
        // With a letter in each star's place the text must be a name.
        check_subdomain(&text.replace('*', "x"))?;
        Ok(Self(text.to_owned()))
    }
}

fn check_length(text: &str, most: usize) -> Result<(), NotAName> {
    if text.is_empty() {
        return Err(NotAName::Empty);
    }
    if text.len() > most {
        return Err(NotAName::TooLong { found: text.len(), most });
    }
    Ok(())
}

fn check_subdomain(text: &str) -> Result<(), NotAName> {
    check_length(text, LONGEST_NODE_NAME)?;
    text.split('.').try_for_each(check_label)
}

fn check_label(label: &str) -> Result<(), NotAName> {
    if let Some(wrong) = label.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
        return Err(NotAName::Character(wrong));
    }
    if label.is_empty() || label.starts_with('-') || label.ends_with('-') {
        return Err(NotAName::Label(label.to_owned()));
    }
    if label.len() > LONGEST_DNS_LABEL {
        return Err(NotAName::TooLong { found: label.len(), most: LONGEST_DNS_LABEL });
    }
    Ok(())
}

macro_rules! text_of {
    ($($name:ident),+) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = String::deserialize(from)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}

text_of!(NodeName, PoolName, NamePattern);

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NodeName {
        text.parse().expect("a legal name")
    }

    #[test]
    fn names_follow_rfc_1123_and_nothing_else() {
        for good in ["a", "n1", "rack1-n7.example.com", "0", &"a".repeat(63)] {
            assert_eq!(name(good).as_str(), good);
        }
        for bad in
            ["", "-a", "a-", "A", "a..b", ".a", "a.", "a_b", "ä", "localhost", "localhost.localdomain", "a b"]
        {
            assert!(bad.parse::<NodeName>().is_err(), "{bad:?}");
        }
        assert!("a".repeat(64).parse::<NodeName>().is_err());
        assert!(["abc"; 64].join(".").parse::<NodeName>().is_err(), "255 bytes are too many");
    }

    #[test]
    fn the_nearest_name_is_legal_and_keeps_what_it_can() {
        assert_eq!(NodeName::nearest("Rack_1.Example.COM."), Some(name("rack-1.example.com")));
        assert_eq!(NodeName::nearest("___"), None);
        assert_eq!(NodeName::nearest("localhost"), None);
    }

    #[test]
    fn a_star_stands_for_any_run_and_the_rest_is_literal() {
        let pattern: NamePattern = "rack1-*.example.com".parse().expect("a legal pattern");
        assert!(pattern.allows(&name("rack1-n7.example.com")));
        assert!(!pattern.allows(&name("rack2-n7.example.com")));
        assert!(!pattern.allows(&name("rack1-n7.example.com.evil")));
        assert!(NamePattern::any().allows(&name("x")));
        let twice: NamePattern = "a*b*c".parse().expect("a legal pattern");
        assert!(twice.allows(&name("a1b2c")) && !twice.allows(&name("acb")));
        let overlap: NamePattern = "ab*ba".parse().expect("a legal pattern");
        assert!(!overlap.allows(&name("aba")), "a character is matched once");
    }

    #[test]
    fn a_pattern_without_a_star_is_one_name() {
        let pattern: NamePattern = "n1".parse().expect("a legal pattern");
        assert_eq!(pattern.exact(), Some(name("n1")));
        assert!(pattern.allows(&name("n1")) && !pattern.allows(&name("n11")));
        assert_eq!(NamePattern::any().exact(), None);
    }
}
