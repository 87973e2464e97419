//! What a bootstrap token's Secret says: kubeadm's rules, in the order in which
//! Kubernetes checks them (k/k plugin/pkg/auth/authenticator/token/bootstrap),
//! and what annotations bind the token to. Pure; the token's secret ends here.

use std::collections::BTreeMap;
use std::time::Duration;

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::phase::Phase;
use berth_domain::proof::Verifier;
use berth_domain::timestamp::Timestamp;
use berth_domain::token::{JoinToken, MOST_NETWORKS, NotAToken, TokenBinding, TokenId, TokenRecord};
use zeroize::Zeroizing;

/// The type of such Secrets.
pub const TYPE: &str = "bootstrap.kubernetes.io/token";

/// Who made a token that Berth did not make.
pub const MAKER: &str = "kubeadm";

/// The prefix of annotations that bind a token.
const OURS: &str = "berth.dev/";

/// The longest description that is kept, in bytes.
const LONGEST_DESCRIPTION: usize = 256;

/// A Secret, as far as it matters here. It has no Debug: it holds the token.
#[derive(Clone, Default)]
pub struct BootstrapSecret {
    /// Its type.
    pub kind: String,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// When it was made.
    pub created: Timestamp,
    /// Its keys.
    pub data: BTreeMap<String, Zeroizing<Vec<u8>>>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

/// Why Kubernetes, or Berth, does not take a token whose Secret is there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It goes.
    #[error("it is being deleted")]
    Deleting,
    /// It is another kind of Secret.
    #[error("its type is {0:?}, not {TYPE}")]
    Type(String),
    /// There is no secret, or one that must not be used.
    #[error("its token-secret cannot be used: {0}")]
    Secret(NotAToken),
    /// It is named after another token.
    #[error("its token-id is not the one in its name")]
    Id,
    /// It is for something else.
    #[error("its usage-bootstrap-authentication is not exactly \"true\"")]
    Usage,
    /// A group that no such token may have.
    #[error("its auth-extra-groups has {0:?}, which is not system:bootstrappers:…")]
    Group(String),
    /// An annotation of Berth's that cannot be.
    #[error("its annotation {key} is not understood: {problem}")]
    Annotation {
        /// Which.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// When a token ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expiry {
    Never,
    At(Timestamp),
    /// Kubernetes takes what it cannot read for expired.
    Unreadable,
}

/// A token as its Secret describes it, without the token's secret.
#[derive(Clone, Debug)]
pub(super) struct Known {
    id: TokenId,
    verifier: Verifier,
    created: Timestamp,
    description: String,
    named_right: bool,
    expiry: Expiry,
    may_authenticate: bool,
    foreign_group: Option<String>,
    binding: Result<TokenBinding, Unfit>,
}

/// Reads a Secret up to the comparison of secrets, which is the agent's proof.
/// The rest is checked once the proof holds, by [`Known::check`].
pub(super) fn read(id: &TokenId, secret: &BootstrapSecret, most_uses: u32) -> Result<Known, Unfit> {
    if secret.deleting {
        return Err(Unfit::Deleting);
    }
    if secret.kind != TYPE {
        return Err(Unfit::Type(secret.kind.clone()));
    }
    let said = |key| secret.said(key).unwrap_or_default();
    let token = JoinToken::of_bootstrap(id.as_str(), said("token-secret")).map_err(Unfit::Secret)?;
    Ok(Known {
        id: token.id.clone(),
        verifier: Verifier::of(&token),
        created: secret.created,
        description: description(said("description")),
        named_right: said("token-id") == id.as_str(),
        expiry: secret.said_or_unreadable("expiration").map_or(Expiry::Unreadable, expiry),
        may_authenticate: said("usage-bootstrap-authentication") == "true",
        foreign_group: foreign_group(secret.said_or_unreadable("auth-extra-groups")),
        binding: binding(&secret.annotations, most_uses),
    })
}

impl Known {
    /// The rest of the checks, in Kubernetes' order; Berth's own come last.
    pub(super) fn check(&self, now: Timestamp) -> Result<(), Diagnosis> {
        if !self.named_right {
            return Err(rejected(&self.id, &Unfit::Id));
        }
        match self.expiry {
            Expiry::Never => {}
            Expiry::At(end) if now < end => {}
            Expiry::At(end) => return Err(expired(&self.id, now).with("expired", end)),
            Expiry::Unreadable => {
                return Err(expired(&self.id, now).with("expired", "a time that cannot be read"));
            }
        }
        if !self.may_authenticate {
            return Err(rejected(&self.id, &Unfit::Usage));
        }
        if let Some(group) = &self.foreign_group {
            return Err(rejected(&self.id, &Unfit::Group(group.clone())));
        }
        self.binding.as_ref().map(|_| ()).map_err(|unfit| rejected(&self.id, unfit))
    }

    /// The token's record, with nothing used. What makes it unfit is told once the
    /// proof holds; until then it must look like any other.
    pub(super) fn record(&self) -> TokenRecord {
        TokenRecord {
            id: self.id.clone(),
            verifier: self.verifier.clone(),
            binding: self.binding.clone().unwrap_or_default(),
            description: self.description.clone(),
            created: self.created,
            created_by: MAKER.to_owned(),
            expires: match self.expiry {
                Expiry::Never => Timestamp::LAST,
                Expiry::At(end) => end,
                Expiry::Unreadable => Timestamp::default(),
            },
            revoked: None,
            used: Vec::new(),
        }
    }
}

impl BootstrapSecret {
    /// The text of a key; `None` where it is not text.
    fn said_or_unreadable(&self, key: &str) -> Option<&str> {
        self.data.get(key).map_or(Some(""), |bytes| std::str::from_utf8(bytes).ok())
    }

    fn said(&self, key: &str) -> Option<&str> {
        self.said_or_unreadable(key)
    }
}

/// Its Secret is there and does not do. Why is for operators only.
fn rejected(id: &TokenId, unfit: &Unfit) -> Diagnosis {
    refused(Code::TokenRejected, id)
        .with_private("reason", format!("the Secret kube-system/bootstrap-token-{id} is there, but {unfit}"))
}

fn expired(id: &TokenId, now: Timestamp) -> Diagnosis {
    refused(Code::TokenExpired, id).with("now", now)
}

pub(super) fn refused(code: Code, id: &TokenId) -> Diagnosis {
    Diagnosis::new(code, Phase::Authentication).with("token", id)
}

fn expiry(text: &str) -> Expiry {
    if text.is_empty() {
        return Expiry::Never;
    }
    moment(text).map_or(Expiry::Unreadable, Expiry::At)
}

/// RFC 3339 with any offset. kubeadm writes `Z`; what people write, Kubernetes
/// reads too.
fn moment(text: &str) -> Option<Timestamp> {
    if text.ends_with('Z') {
        return text.parse().ok();
    }
    let (local, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let number =
        |digits: &str| digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<u64>().ok())?;
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    let local: Timestamp = format!("{local}Z").parse().ok()?;
    let by = Duration::from_secs((hours * 60 + minutes) * 60);
    match offset.chars().next() {
        Some('+') => Some(local.before(by)),
        Some('-') => Some(local.after(by)),
        _ => None,
    }
}

/// The first group that is not `\Asystem:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]\z`.
/// One such group makes the whole token void.
fn foreign_group(groups: Option<&str>) -> Option<String> {
    let Some(groups) = groups else { return Some("bytes that are no text".to_owned()) };
    if groups.is_empty() {
        return None;
    }
    let legal = |group: &str| {
        let name = group.strip_prefix("system:bootstrappers:").unwrap_or_default();
        let last = name.bytes().next_back();
        name.len() <= 256
            && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b':' | b'-'))
            && last.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    groups.split(',').find(|group| !legal(group)).map(|group| group.chars().take(80).collect())
}

/// What the annotations bind the token to. One that is not understood makes the
/// token void: who wrote it meant to bind it.
fn binding(annotations: &BTreeMap<String, String>, most_uses: u32) -> Result<TokenBinding, Unfit> {
    let mut binding = TokenBinding { uses: most_uses, ..TokenBinding::default() };
    for (key, text) in annotations {
        let Some(name) = key.strip_prefix(OURS) else { continue };
        let wrong = |problem: String| Unfit::Annotation { key: key.clone(), problem };
        match name {
            "names" => binding.names = text.parse().map_err(|e| wrong(format!("{e}")))?,
            "pool" => binding.pool = text.parse().map_err(|e| wrong(format!("{e}")))?,
            "uses" => {
                let uses = text.parse().ok().filter(|uses| (1..=most_uses).contains(uses));
                binding.uses = uses.ok_or_else(|| wrong(format!("it must be 1 to {most_uses}")))?;
            }
            "networks" => {
                let networks: Result<Vec<_>, _> = text.split(',').map(|net| net.trim().parse()).collect();
                binding.networks = networks.map_err(|e| wrong(format!("{e}")))?;
                if binding.networks.len() > MOST_NETWORKS {
                    return Err(wrong(format!("it has more than {MOST_NETWORKS} networks")));
                }
            }
            "approval" => {
                binding.approval = text.parse().map_err(|_| wrong("it must be true or false".to_owned()))?;
            }
            _ => {
                let known = "berth.dev/names, pool, uses, networks and approval";
                return Err(wrong(format!("there are {known}")));
            }
        }
    }
    Ok(binding)
}

fn description(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars().filter(|character| !character.is_control()) {
        if out.len() + character.len_utf8() > LONGEST_DESCRIPTION {
            break;
        }
        out.push(character);
    }
    out
}

#[cfg(test)]
pub(super) mod tests;
