//! Labels and taints that a token or the policy puts on a Node.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::name::NodeName;

/// The most labels or taints of one token or node.
pub const MOST_LABELS: usize = 64;

/// The key of [`Taint::joining`].
pub const JOINING_TAINT: &str = "berth.dev/joining";

/// The text is not a label or taint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotALabel {
    /// No `=` in a label.
    #[error("{0:?} has no '='; write KEY=VALUE")]
    NoEquals(String),
    /// The key's prefix or name breaks Kubernetes' rules.
    #[error(
        "the key {0:?} is not [DNS-prefix/]name with a name of at most 63 letters, digits, '-', '_' or '.'"
    )]
    Key(String),
    /// The value breaks Kubernetes' rules.
    #[error(
        "the value {0:?} is not at most 63 letters, digits, '-', '_' or '.', beginning and ending with a letter or digit"
    )]
    Value(String),
    /// The effect is none of three.
    #[error("the effect {0:?} is none of NoSchedule, PreferNoSchedule, NoExecute")]
    Effect(String),
    /// No effect in a taint.
    #[error("{0:?} has no effect; write KEY[=VALUE]:EFFECT")]
    NoEffect(String),
}

/// A label's key: `[prefix/]name` (Kubernetes "qualified name").
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabelKey(String);

/// A label's value: empty, or at most 63 characters.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabelValue(String);

/// Labels by key.
pub type Labels = BTreeMap<LabelKey, LabelValue>;

/// What a taint does to pods that do not tolerate it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TaintEffect {
    /// No new pods.
    NoSchedule,
    /// Rather no new pods.
    PreferNoSchedule,
    /// No pods at all.
    NoExecute,
}

/// A taint: `KEY[=VALUE]:EFFECT`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Taint {
    /// The key.
    pub key: LabelKey,
    /// The value, often empty.
    pub value: LabelValue,
    /// The effect.
    pub effect: TaintEffect,
}

impl LabelKey {
    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl LabelValue {
    /// The value as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LabelKey {
    type Err = NotALabel;

    fn from_str(text: &str) -> Result<Self, NotALabel> {
        let wrong = || NotALabel::Key(shown(text));
        let name = match text.split_once('/') {
            Some((prefix, name)) => {
                // A prefix has the grammar of a node name.
                prefix.parse::<NodeName>().map_err(|_| wrong())?;
                name
            }
            None => text,
        };
        if !is_label_text(name) {
            return Err(wrong());
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for LabelValue {
    type Err = NotALabel;

    fn from_str(text: &str) -> Result<Self, NotALabel> {
        if text.is_empty() || is_label_text(text) {
            return Ok(Self(text.to_owned()));
        }
        Err(NotALabel::Value(shown(text)))
    }
}

/// Parses `KEY=VALUE`.
///
/// # Errors
/// Says which part breaks which rule.
pub fn parse_label(text: &str) -> Result<(LabelKey, LabelValue), NotALabel> {
    let (key, value) = text.split_once('=').ok_or_else(|| NotALabel::NoEquals(shown(text)))?;
    Ok((key.parse()?, value.parse()?))
}

impl FromStr for TaintEffect {
    type Err = NotALabel;

    fn from_str(text: &str) -> Result<Self, NotALabel> {
        match text {
            "NoSchedule" => Ok(Self::NoSchedule),
            "PreferNoSchedule" => Ok(Self::PreferNoSchedule),
            "NoExecute" => Ok(Self::NoExecute),
            other => Err(NotALabel::Effect(shown(other))),
        }
    }
}

impl TaintEffect {
    /// The effect's Kubernetes name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoSchedule => "NoSchedule",
            Self::PreferNoSchedule => "PreferNoSchedule",
            Self::NoExecute => "NoExecute",
        }
    }
}

impl Taint {
    /// With this a Node registers where an API server judges its readiness: it
    /// keeps pods away until the join is done, and is taken away then.
    #[must_use]
    pub fn joining() -> Self {
        Self {
            key: LabelKey(JOINING_TAINT.to_owned()),
            value: LabelValue::default(),
            effect: TaintEffect::NoSchedule,
        }
    }
}

impl FromStr for Taint {
    type Err = NotALabel;

    fn from_str(text: &str) -> Result<Self, NotALabel> {
        let (pair, effect) = text.rsplit_once(':').ok_or_else(|| NotALabel::NoEffect(shown(text)))?;
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        Ok(Self { key: key.parse()?, value: value.parse()?, effect: effect.parse()? })
    }
}

impl fmt::Display for LabelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for LabelValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for Taint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let equals = if self.value.0.is_empty() { "" } else { "=" };
        write!(f, "{}{equals}{}:{}", self.key, self.value, self.effect.as_str())
    }
}

fn is_label_text(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && edge(text.chars().next())
        && edge(text.chars().next_back())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

macro_rules! serde_as_text {
    ($($name:ident),+) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
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

serde_as_text!(LabelKey, LabelValue, Taint);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_follow_kubernetes_grammar() {
        for good in ["a=b", "node-role.kubernetes.io/worker=", "x.y/z_1=v.1-2_3"] {
            assert!(parse_label(good).is_ok(), "{good}");
        }
        for bad in ["a", "=b", "-a=b", "a=b ", "A/b/c=d", "UPPER.com/x=y", "a=-b"] {
            assert!(parse_label(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_taint_prints_as_it_is_written() {
        for text in ["dedicated=gpu:NoSchedule", "x:NoExecute"] {
            let taint: Taint = text.parse().expect("a legal taint");
            assert_eq!(taint.to_string(), text);
        }
        assert_eq!("x:Never".parse::<Taint>(), Err(NotALabel::Effect("Never".to_owned())));
        assert!("x=y".parse::<Taint>().is_err());
    }
}
