//! kubeadm's bootstrap tokens, `[a-z0-9]{6}.[a-z0-9]{16}`: a second printable
//! form of a join token (k/k cluster-bootstrap/token/api). It has 82.7 bits where
//! a generator made it, no checksum and no pin. What people make up by hand, or
//! copy from a manual, is refused: a man in the middle could guess it.

use super::NotAToken;

/// Characters of a bootstrap token's id.
pub(super) const ID_CHARACTERS: usize = 6;

/// Characters of a bootstrap token's secret; their ASCII is what is proved.
pub(super) const SECRET_CHARACTERS: usize = 16;

/// Fewer different characters than a generator ever gives: one secret in 140
/// million has five.
const FEWEST_DIFFERENT: usize = 6;

/// The most steps between neighbours of the alphabet, of 15 in all: a generator
/// gives one or two.
const MOST_NEIGHBOURS: usize = 9;

/// Secrets that stand in manuals, with whatever id: kubeadm's default
/// configuration, its API's reference, and Kubernetes' pages on bootstrap tokens.
const SAMPLES: [&[u8]; 7] = [
    b"0123456789abcdef",
    b"f395accd246ae52d",
    b"kq4gihvszzgn1p0r",
    b"9r9hcjoqgajrj4gi",
    b"d09sbcov8ph2amjw",
    b"c0izixklcxtmnze7",
    b"3f89s0fje9f38fhf",
];

/// The id and the secret of a text that is exactly of the form, if it is.
pub(super) fn parts(text: &str) -> Option<(&str, &str)> {
    let (id, secret) = text.split_once('.')?;
    (is_id(id) && is_secret(secret)).then_some((id, secret))
}

/// Whether a text was meant as a bootstrap token: two parts, as no other form has.
pub(super) fn is_meant(text: &str) -> bool {
    text.matches('.').count() == 1
}

/// Whether a text is the id of a bootstrap token.
pub(super) fn is_id(text: &str) -> bool {
    is_word(text, ID_CHARACTERS)
}

/// Whether a text is the secret of a bootstrap token.
pub(super) fn is_secret(text: &str) -> bool {
    is_word(text, SECRET_CHARACTERS)
}

/// Refuses a secret that everybody knows or that a person made up (SECURITY R17).
pub(super) fn check(secret: &[u8; SECRET_CHARACTERS]) -> Result<(), NotAToken> {
    if SAMPLES.contains(&secret.as_slice()) {
        return Err(NotAToken::Sample);
    }
    if is_made_up(secret) { Err(NotAToken::MadeUp) } else { Ok(()) }
}

fn is_made_up(secret: &[u8; SECRET_CHARACTERS]) -> bool {
    let different = (0..=u8::MAX).filter(|byte| secret.contains(byte)).count();
    let steps = secret.iter().zip(secret.iter().skip(1));
    let neighbours = steps.filter(|(a, b)| place(**a).abs_diff(place(**b)) <= 1).count();
    let repeats = |period: usize| secret.iter().zip(secret.iter().skip(period)).all(|(a, b)| a == b);
    different < FEWEST_DIFFERENT || neighbours > MOST_NEIGHBOURS || (1..=SECRET_CHARACTERS / 2).any(repeats)
}

/// A character's place in `0-9a-z`.
const fn place(character: u8) -> u8 {
    if character.is_ascii_digit() { character - b'0' } else { character.saturating_sub(b'a') + 10 }
}

fn is_word(text: &str, characters: usize) -> bool {
    text.len() == characters && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::token::JoinToken;

    fn refused(text: &str) -> NotAToken {
        text.parse::<JoinToken>().err().unwrap_or_else(|| panic!("{text} is taken"))
    }

    #[test]
    fn a_bootstrap_token_is_a_token_without_a_pin() {
        let token: JoinToken = " u7k2pw.x91mqz40bhc8ydre\n".parse().expect("as kubeadm prints it");
        assert_eq!((token.id.as_str(), token.pin), ("u7k2pw", None));
        assert!(token.id.is_bootstrap());
        assert_eq!(token.secret.bytes(), b"x91mqz40bhc8ydre");
        assert_eq!(token.to_text().as_str(), "u7k2pw.x91mqz40bhc8ydre");
    }

    #[test]
    fn an_id_may_be_the_other_form_s_first_word() {
        let token: JoinToken = "berth1.x91mqz40bhc8ydre".parse().expect("the form decides, not the word");
        assert_eq!(token.id.as_str(), "berth1");
    }

    #[test]
    fn nothing_beside_the_form_is_taken() {
        for text in [
            "u7k2p.x91mqz40bhc8ydre",
            "u7k2pww.x91mqz40bhc8ydre",
            "u7k2pw.x91mqz40bhc8ydr",
            "u7k2pw.x91mqz40bhc8ydree",
            "U7K2PW.X91MQZ40BHC8YDRE",
            "u7k2pw.x91mqz40bhc8ydr-",
            "u7k2pw. x91mqz40bhc8ydre",
            "u7k2pw.x91mqz40bhc8ydré",
        ] {
            assert_eq!(refused(text), NotAToken::Bootstrap, "{text}");
        }
        assert_eq!(refused("u7k2pwx91mqz40bhc8ydre"), NotAToken::Version);
        assert_eq!(refused("u7k2pw.x91mqz40.bhc8ydre"), NotAToken::Version);
    }

    #[test]
    fn samples_and_made_up_secrets_are_refused_with_any_id() {
        for id in ["abcdef", "07401b", "u7k2pw"] {
            for sample in SAMPLES {
                let text = format!("{id}.{}", std::str::from_utf8(sample).expect("ASCII"));
                assert_eq!(refused(&text), NotAToken::Sample);
            }
        }
        for made_up in [
            "aaaaaaaaaaaaaaaa",
            "aabbccddeeaabbcc",
            "1234567890123456",
            "abcdefghijklmnop",
            "zyxwvutsrqponmlk",
            "passwordpassword",
            "0000000000000001",
        ] {
            assert_eq!(refused(&format!("u7k2pw.{made_up}")), NotAToken::MadeUp, "{made_up}");
        }
    }

    #[test]
    fn a_refusal_does_not_repeat_the_text() {
        for text in ["u7k2pw.passwordpassword", "u7k2pw.0123456789abcdef", "u7k2pw.hunter2hunter2"] {
            let problem = refused(text);
            let shown = format!("{problem} {problem:?}");
            assert!(
                !shown.contains("passw") && !shown.contains("0123") && !shown.contains("hunter"),
                "{shown}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_a_generator_makes_is_taken(id in "[a-z0-9]{6}", secret in "[a-z0-9]{16}") {
            let text = format!("{id}.{secret}");
            prop_assert!(text.parse::<JoinToken>().is_ok_and(|token| token.to_text().as_str() == text));
        }
    }
}
