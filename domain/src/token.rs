//! Tokens: the one printable word that a person pastes on a machine.
//!
//! `berth1.ID.SECRET.PIN.CHECK`, each part lower-case base32 without padding:
//! 10 characters of id, 32 of secret (160 bits), 52 of pin (SHA-256 of the CA's
//! public key), 6 of checksum. The grammar is closed: `[a-z0-9.]`. kubeadm's
//! bootstrap tokens are the second form (`bootstrap`).

mod binding;
mod bootstrap;

pub use binding::{
    Claim, MOST_NETWORKS, MOST_USES, Network, NotANetwork, Revocation, TokenBinding, TokenRecord, Use,
};

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use data_encoding::{Encoding, Specification};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::identity::{SpkiHash, sha256};

/// Bytes of a token's secret: 160 bits.
pub const SECRET_BYTES: usize = 20;

/// Bytes of randomness that [`JoinToken::mint`] wants: 7 for the id, 20 for the secret.
pub const MINT_ENTROPY: usize = 27;

/// The longest text that is looked at as a token, in bytes. A token has 110, a
/// bootstrap token 23.
pub const LONGEST_TOKEN: usize = 256;

const VERSION: &str = "berth1";
const ID_CHARACTERS: usize = 10;
const CHECK_CHARACTERS: usize = 6;

/// The public part of a token: names it in lists and logs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(String);

/// The secret part. It has no Debug and no Display, and is wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct TokenSecret(Secret);

#[derive(Clone, Zeroize, ZeroizeOnDrop)]
enum Secret {
    Own([u8; SECRET_BYTES]),
    Bootstrap([u8; bootstrap::SECRET_CHARACTERS]),
}

/// A whole token, secret included. It has no Debug and no Display.
#[derive(Clone)]
pub struct JoinToken {
    /// Which token it is.
    pub id: TokenId,
    /// What proves it.
    pub secret: TokenSecret,
    /// The CA that the machine may trust; a bootstrap token has none.
    pub pin: Option<SpkiHash>,
}

/// The text is no token as it was printed. It says what is wrong and never
/// repeats the text: that may be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAToken {
    /// Nothing, or far too much.
    #[error("it has {0} characters, not 110")]
    Length(usize),
    /// Something other than `berth1.` in front, and no bootstrap token either.
    #[error("it does not begin with berth1.")]
    Version,
    /// Two parts, and not those of a bootstrap token.
    #[error("it has two parts, and a bootstrap token's have 6 and 16 characters of a-z and 0-9")]
    Bootstrap,
    /// A secret that stands in a manual.
    #[error("its secret is a sample from a manual, which everybody knows")]
    Sample,
    /// A secret that no generator made.
    #[error("its secret was made up by a person and can be guessed")]
    MadeUp,
    /// Not five parts.
    #[error("it has {0} parts between dots, not 5")]
    Parts(usize),
    /// A part with a character outside base32, or of another length.
    #[error("its {0} is not of the form that was printed")]
    Part(&'static str),
    /// All in place, but mistyped somewhere.
    #[error("its checksum does not match: a character is wrong")]
    Checksum,
}

impl JoinToken {
    /// A fresh token from randomness.
    #[must_use]
    pub fn mint(entropy: &Zeroizing<[u8; MINT_ENTROPY]>, pin: SpkiHash) -> Self {
        let (id, secret) = entropy.split_at(MINT_ENTROPY - SECRET_BYTES);
        let mut id = base32().encode(id);
        id.truncate(ID_CHARACTERS);
        let mut bytes = [0; SECRET_BYTES];
        bytes.copy_from_slice(secret);
        Self { id: TokenId(id), secret: TokenSecret(Secret::Own(bytes)), pin: Some(pin) }
    }

    /// A bootstrap token from its two parts, as a Secret keeps them.
    ///
    /// # Errors
    /// They are not of kubeadm's form, or the secret can be guessed.
    pub fn of_bootstrap(id: &str, secret: &str) -> Result<Self, NotAToken> {
        if !bootstrap::is_id(id) || !bootstrap::is_secret(secret) {
            return Err(NotAToken::Bootstrap);
        }
        let bytes = Zeroizing::new(secret.as_bytes().try_into().map_err(|_| NotAToken::Bootstrap)?);
        bootstrap::check(&bytes)?;
        Ok(Self { id: TokenId(id.to_owned()), secret: TokenSecret(Secret::Bootstrap(*bytes)), pin: None })
    }

    /// The one printable word. It is wiped when dropped.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        // Sized once: a string that grows leaves copies of the secret behind.
        let mut text = Zeroizing::new(String::with_capacity(LONGEST_TOKEN));
        let secret = match &self.secret.0 {
            Secret::Own(bytes) => Zeroizing::new(base32().encode(bytes)),
            Secret::Bootstrap(bytes) => {
                text.push_str(&self.id.0);
                text.push('.');
                bytes.iter().for_each(|byte| text.push(char::from(*byte)));
                return text;
            }
        };
        let pin = self.pin.map(|pin| base32().encode(&pin.0)).unwrap_or_default();
        for part in [VERSION, ".", &self.id.0, ".", &secret, ".", &pin] {
            text.push_str(part);
        }
        let check = checksum(&text);
        text.push('.');
        text.push_str(&check);
        text
    }
}

impl FromStr for JoinToken {
    type Err = NotAToken;

    fn from_str(text: &str) -> Result<Self, NotAToken> {
        let text = text.trim();
        if text.is_empty() || text.len() > LONGEST_TOKEN {
            return Err(NotAToken::Length(text.chars().count()));
        }
        // First: an id may be `berth1`, and its token has two parts all the same.
        if let Some((id, secret)) = bootstrap::parts(text) {
            return Self::of_bootstrap(id, secret);
        }
        if !text.starts_with("berth1.") {
            return Err(if bootstrap::is_meant(text) { NotAToken::Bootstrap } else { NotAToken::Version });
        }
        let mut parts = text.split('.');
        let (Some(_), Some(id), Some(secret), Some(pin), Some(check), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(NotAToken::Parts(text.split('.').count()));
        };
        let signed = text.len().saturating_sub(check.len() + 1);
        if check.len() != CHECK_CHARACTERS || checksum(text.get(..signed).unwrap_or_default()) != check {
            return Err(NotAToken::Checksum);
        }
        let id = id.parse().map_err(|_| NotAToken::Part("id"))?;
        let bytes =
            Zeroizing::new(base32().decode(secret.as_bytes()).map_err(|_| NotAToken::Part("secret"))?);
        let bytes = Zeroizing::new(bytes.as_slice().try_into().map_err(|_| NotAToken::Part("secret"))?);
        let secret = TokenSecret(Secret::Own(*bytes));
        let pin = base32().decode(pin.as_bytes()).map_err(|_| NotAToken::Part("pin"))?;
        let pin = SpkiHash::from_slice(&pin).map_err(|_| NotAToken::Part("pin"))?;
        Ok(Self { id, secret, pin: Some(pin) })
    }
}

impl TokenSecret {
    /// The bytes, for key derivation only.
    pub(crate) const fn bytes(&self) -> &[u8] {
        match &self.0 {
            Secret::Own(bytes) => bytes,
            Secret::Bootstrap(bytes) => bytes,
        }
    }
}

impl TokenId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it names a bootstrap token of kubeadm's form.
    #[must_use]
    pub const fn is_bootstrap(&self) -> bool {
        self.0.len() == bootstrap::ID_CHARACTERS
    }
}

/// The text is no token id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token id has 10 characters of a-z and 2-7, or kubeadm's 6 of a-z and 0-9")]
pub struct NotATokenId;

impl FromStr for TokenId {
    type Err = NotATokenId;

    fn from_str(text: &str) -> Result<Self, NotATokenId> {
        let own = text.len() == ID_CHARACTERS && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'2'..=b'7'));
        if own || bootstrap::is_id(text) { Ok(Self(text.to_owned())) } else { Err(NotATokenId) }
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for TokenId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TokenId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The first characters of SHA-256: it finds slips of the hand, nothing else.
fn checksum(text: &str) -> String {
    let mut check = base32().encode(&sha256(text.as_bytes()));
    check.truncate(CHECK_CHARACTERS);
    check
}

/// RFC 4648 base32 in lower case, without padding.
pub(crate) fn base32() -> &'static Encoding {
    static LOWER: LazyLock<Encoding> = LazyLock::new(|| {
        let mut specification = Specification::new();
        specification.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
        // The alphabet is a constant of the right length, so this cannot fail.
        specification.encoding().unwrap_or(data_encoding::BASE32_NOPAD)
    });
    &LOWER
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token() -> JoinToken {
        JoinToken::mint(&Zeroizing::new([7; MINT_ENTROPY]), SpkiHash::of(b"ca"))
    }

    #[test]
    fn a_token_reads_as_it_was_printed() {
        let text = token().to_text();
        assert_eq!(text.len(), 110);
        let read: JoinToken = text.parse().expect("it was just printed");
        assert_eq!(read.id, token().id);
        assert_eq!(read.secret.bytes(), token().secret.bytes());
        assert_eq!(read.pin, token().pin);
    }

    proptest! {
        #[test]
        fn every_slip_of_the_hand_is_found(at in 7_usize..110, to in "[a-z2-7]") {
            let text = token().to_text();
            prop_assume!(text.get(at..=at) != Some(to.as_str()));
            let mut slipped = text.to_string();
            slipped.replace_range(at..=at, &to);
            prop_assert!(slipped.parse::<JoinToken>().is_err());
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,300}") {
            let _ = text.parse::<JoinToken>();
            let _ = format!("berth1.{text}").parse::<JoinToken>();
        }
    }

    #[test]
    fn a_refused_text_is_not_repeated() {
        let text = token().to_text();
        let secret = text.get(18..50).expect("it is ASCII");
        let slipped = text.replace('.', "-");
        for (refused, wanted) in [
            (text.get(..109).expect("it is ASCII"), NotAToken::Checksum),
            (text.get(..100).expect("it is ASCII"), NotAToken::Parts(4)),
            (text.get(1..).expect("it is ASCII"), NotAToken::Version),
            (slipped.as_str(), NotAToken::Version),
        ] {
            let problem = refused.parse::<JoinToken>().err().expect("it is not whole");
            assert_eq!(problem, wanted);
            for shown in [problem.to_string(), format!("{problem:?}")] {
                assert!(
                    !secret
                        .as_bytes()
                        .windows(4)
                        .any(|part| shown.as_bytes().windows(4).any(|seen| seen == part))
                );
            }
        }
    }
}
