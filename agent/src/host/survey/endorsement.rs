//! The endorsement key of a TPM 2.0, by which the machine can be told from all others
//! whatever is on its disk. Asked for over the kernel's resource manager with one or two
//! commands; nothing is kept in the TPM. TPM 2.0 Library, part 3 (ReadPublic,
//! CreatePrimary), part 2 (structures).

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use berth_domain::facts::Tpm;
use data_encoding::HEXLOWER;
use tokio::sync::watch;
use tokio::time::timeout;

use super::Roots;

/// How long a survey waits. A discrete TPM that has to make the key anew takes ten
/// seconds and more; a later survey of the same process has the answer.
const DEADLINE: Duration = Duration::from_secs(1);

/// The most bytes of an answer: more than a public area of RSA 2048 with all that
/// `CreatePrimary` says beside it.
const LONGEST_ANSWER: usize = 4096;

/// Empty until the TPM was asked, then what it said.
type Told = watch::Receiver<Option<Option<String>>>;

/// This machine's; a machine's TPM does not change while it runs.
static TOLD: OnceLock<Told> = OnceLock::new();

/// `sha256:` and the hash of the key's SubjectPublicKeyInfo; nothing where there is no
/// such TPM, it may not be asked, or is not done in time.
pub(super) async fn key(roots: &Roots, tpm: Option<&Tpm>) -> Option<String> {
    let tpm = tpm.filter(|tpm| tpm.version == Some(2) && roots.is_machine())?;
    let device = Path::new("/dev").join(tpm.name.replacen("tpm", "tpmrm", 1));
    let mut told = TOLD.get_or_init(|| ask(device)).clone();
    let told = timeout(DEADLINE, told.wait_for(Option::is_some)).await.ok()?.ok()?;
    told.clone().flatten()
}

/// On a thread of its own, for whose end neither a survey nor the program's end waits.
fn ask(device: PathBuf) -> Told {
    let (tell, told) = watch::channel(None);
    thread::spawn(move || {
        let spki = key_of(|command| exchange(&device, command));
        let hash = spki.map(|spki| HEXLOWER.encode(digest(&SHA256, &spki).as_ref()));
        // The program may be about to end.
        let _unheard = tell.send(Some(hash.map(|hash| format!("sha256:{hash}"))));
    });
    told
}

/// The answer to a command, one each opening: the resource manager then forgets what a
/// command has made.
fn exchange(device: &Path, command: &[u8]) -> Option<Vec<u8>> {
    let mut device = File::options().read(true).write(true).open(device).ok()?;
    device.write_all(command).ok()?;
    let mut answer = vec![0; LONGEST_ANSWER];
    let length = device.read(&mut answer).ok()?;
    answer.truncate(length);
    Some(answer)
}

/// The key's SubjectPublicKeyInfo: of the one that the machine's maker or owner has
/// kept in the TPM, which is read in no time, else of the one that it makes anew, the
/// same each time.
fn key_of(exchange: impl Fn(&[u8]) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
    let kept = exchange(&read_public()).and_then(|answer| {
        let mut answer = Answer::of(&answer, NO_SESSIONS)?;
        spki(answer.sized()?)
    });
    kept.or_else(|| {
        let answer = exchange(&create_primary())?;
        let mut answer = Answer::of(&answer, SESSIONS)?;
        let (_handle, _parameters) = (answer.u32()?, answer.u32()?);
        spki(answer.sized()?)
    })
}

fn read_public() -> Vec<u8> {
    command(NO_SESSIONS, READ_PUBLIC, &KEPT.to_be_bytes())
}

/// From the endorsement seed, with an empty password, by the template L-1.
fn create_primary() -> Vec<u8> {
    let mut body = ENDORSEMENT.to_be_bytes().to_vec();
    // The authorization: its length, then a password session, no nonce, no attributes,
    // no password.
    body.extend(9_u32.to_be_bytes());
    body.extend(PASSWORD.to_be_bytes());
    body.extend([0; 5]);
    // The sensitive part: its length, then no password of the new key and no data.
    body.extend([0, 4, 0, 0, 0, 0]);
    let template = template();
    body.extend(u16::try_from(template.len()).unwrap_or_default().to_be_bytes());
    body.extend(template);
    // Nothing from outside, and no registers that creation is bound to.
    body.extend([0; 6]);
    command(SESSIONS, CREATE_PRIMARY, &body)
}

/// Default EK template L-1: RSA 2048 (TCG EK Credential Profile 2.6, B.3.3).
fn template() -> Vec<u8> {
    let mut template = [RSA, NAME_BY_SHA256].map(u16::to_be_bytes).concat();
    template.extend(ATTRIBUTES.to_be_bytes());
    template.extend([0, 32]);
    template.extend(POLICY);
    template.extend(AES_128_CFB_NO_SCHEME_2048.map(u16::to_be_bytes).concat());
    // The usual exponent, and as many zeros as the modulus will have bytes.
    template.extend([0; 4]);
    template.extend([1, 0]);
    template.extend([0; MODULUS]);
    template
}

fn command(tag: u16, code: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + HEADER).unwrap_or_default();
    [&tag.to_be_bytes()[..], &length.to_be_bytes(), &code.to_be_bytes(), body].concat()
}

/// A public area as SubjectPublicKeyInfo, if it is of an RSA 2048 key that only
/// decrypts what is meant for this TPM: else it is no endorsement key.
fn spki(public: &[u8]) -> Option<Vec<u8>> {
    let mut public = Answer(public);
    let (kind, _name, attributes) = (public.u16()?, public.u16()?, public.u32()?);
    let _policy = public.sized()?;
    let mut parameters = [0; 5];
    for parameter in &mut parameters {
        *parameter = public.u16()?;
    }
    let exponent = public.u32()?;
    let modulus = public.sized()?;
    let is_usual = kind == RSA
        && attributes & RESTRICTED_DECRYPTION == RESTRICTED_DECRYPTION
        && parameters == AES_128_CFB_NO_SCHEME_2048
        && [0, 65_537].contains(&exponent)
        && modulus.len() == MODULUS
        && modulus.first().is_some_and(|first| first & 0x80 != 0);
    is_usual.then(|| [SPKI_BEFORE, modulus, SPKI_BEHIND].concat())
}

/// What is left to read of an answer.
struct Answer<'a>(&'a [u8]);

impl<'a> Answer<'a> {
    /// The body of an answer that says success.
    fn of(answer: &'a [u8], tag: u16) -> Option<Self> {
        let mut rest = Self(answer);
        let is_whole = rest.u16()? == tag && usize::try_from(rest.u32()?) == Ok(answer.len());
        (is_whole && rest.u32()? == 0).then_some(rest)
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    /// A structure behind its length (`TPM2B`).
    fn sized(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(length.into())
    }
}

const NO_SESSIONS: u16 = 0x8001;
const SESSIONS: u16 = 0x8002;
const HEADER: usize = 10;
const READ_PUBLIC: u32 = 0x0173;
const CREATE_PRIMARY: u32 = 0x0131;
/// Where an RSA endorsement key is kept (TCG TPM v2.0 Provisioning Guidance, 7.8).
const KEPT: u32 = 0x8101_0001;
/// The hierarchy of the endorsement seed, `TPM_RH_ENDORSEMENT`.
const ENDORSEMENT: u32 = 0x4000_000B;
/// A session that is a password, `TPM_RS_PW`.
const PASSWORD: u32 = 0x4000_0009;
const RSA: u16 = 0x0001;
const NAME_BY_SHA256: u16 = 0x000B;
/// fixedTPM, fixedParent, sensitiveDataOrigin, adminWithPolicy, restricted, decrypt.
const ATTRIBUTES: u32 = 0x0003_00B2;
/// fixedTPM, restricted, decrypt.
const RESTRICTED_DECRYPTION: u32 = 0x0003_0002;
/// `PolicySecret(TPM_RH_ENDORSEMENT)`.
const POLICY: [u8; 32] = [
    0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xB3, 0xF8, 0x1A, 0x90, 0xCC, 0x8D, 0x46, 0xA5, 0xD7, 0x24, 0xFD,
    0x52, 0xD7, 0x6E, 0x06, 0x52, 0x0B, 0x64, 0xF2, 0xA1, 0xDA, 0x1B, 0x33, 0x14, 0x69, 0xAA,
];
/// The symmetric cipher, its bits and mode; no scheme; bits of the key.
const AES_128_CFB_NO_SCHEME_2048: [u16; 5] = [0x0006, 128, 0x0043, 0x0010, 2048];
/// Bytes of an RSA 2048 modulus.
const MODULUS: usize = 256;
/// SubjectPublicKeyInfo of rsaEncryption around a modulus whose first bit is set and the
/// exponent 65537 (RFC 3279, 2.3.1).
const SPKI_BEFORE: &[u8] = &[
    0x30, 0x82, 0x01, 0x22, 0x30, 0x0D, 0x06, 0x09, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x01,
    0x05, 0x00, 0x03, 0x82, 0x01, 0x0F, 0x00, 0x30, 0x82, 0x01, 0x0A, 0x02, 0x82, 0x01, 0x01, 0x00,
];
const SPKI_BEHIND: &[u8] = &[0x02, 0x03, 0x01, 0x00, 0x01];

#[cfg(test)]
mod tests {
    use x509_parser::prelude::FromDer as _;
    use x509_parser::public_key::PublicKey;
    use x509_parser::x509::SubjectPublicKeyInfo;

    use super::*;

    /// A public area like that of a TPM: the template with a modulus in it.
    fn public(modulus: [u8; MODULUS]) -> Vec<u8> {
        let mut public = template();
        public.truncate(public.len() - MODULUS);
        public.extend(modulus);
        public
    }

    fn sized(content: &[u8]) -> Vec<u8> {
        [&u16::try_from(content.len()).expect("short").to_be_bytes()[..], content].concat()
    }

    fn answer(tag: u16, code: u32, body: &[u8]) -> Vec<u8> {
        command(tag, code, body)
    }

    fn code(command: &[u8]) -> u32 {
        u32::from_be_bytes(command[6..10].try_into().expect("four bytes"))
    }

    #[test]
    fn a_key_that_is_kept_is_read_and_its_form_is_what_others_read() {
        let modulus = [0xC5; MODULUS];
        let spki = key_of(|command| {
            assert_eq!(code(command), READ_PUBLIC, "nothing is made where one is kept");
            Some(answer(NO_SESSIONS, 0, &sized(&public(modulus))))
        });
        let spki = spki.expect("a key");
        let (rest, parsed) = SubjectPublicKeyInfo::from_der(&spki).expect("DER");
        assert!(rest.is_empty());
        let Ok(PublicKey::RSA(key)) = parsed.parsed() else { panic!("no RSA key") };
        let unsigned = key.modulus.strip_prefix(&[0]).unwrap_or(key.modulus);
        assert_eq!((unsigned, key.try_exponent().expect("an exponent")), (&modulus[..], 65_537));
    }

    #[test]
    fn where_none_is_kept_the_tpm_makes_it_anew() {
        const NO_SUCH_HANDLE: u32 = 0x18B;
        let spki = key_of(|command| {
            if code(command) == READ_PUBLIC {
                return Some(answer(NO_SESSIONS, NO_SUCH_HANDLE, &[]));
            }
            assert_eq!((code(command), command.len()), (CREATE_PRIMARY, 10 + 4 + 4 + 9 + 6 + 2 + 314 + 6));
            let body =
                [&[0x80, 0, 0, 0, 0, 0, 1, 90][..], &sized(&public([0x99; MODULUS])), &[0; 20]].concat();
            Some(answer(SESSIONS, 0, &body))
        });
        assert!(spki.is_some());
    }

    #[test]
    fn an_odd_answer_is_no_key() {
        let whole = answer(NO_SESSIONS, 0, &sized(&public([0xC5; MODULUS])));
        for length in 0..whole.len() {
            assert_eq!(key_of(|_| Some(whole[..length].to_vec())), None, "{length} bytes");
        }
        assert_eq!(key_of(|_| None), None);
        let mut signs = public([0xC5; MODULUS]);
        signs[5] = 0x05;
        assert_eq!(spki(&signs), None, "a key that is not restricted to decryption");
    }
}
