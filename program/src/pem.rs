//! PEM, as both programs write it. rustls-pki-types reads it and writes none; what the
//! crate pem writes leaves copies of a key behind.

use data_encoding::BASE64;
use zeroize::Zeroizing;

/// The label of a certificate (RFC 7468, section 5).
pub const CERTIFICATE: &str = "CERTIFICATE";

/// The label of a certificate request (RFC 7468, section 7).
pub const CERTIFICATE_REQUEST: &str = "CERTIFICATE REQUEST";

/// The label of a private key in PKCS #8 (RFC 7468, section 10).
pub const PRIVATE_KEY: &str = "PRIVATE KEY";

/// DER as PEM under a label: lines of [`LINE`] characters (RFC 7468, section 2). Wiped
/// when dropped, as it may be a key.
#[must_use]
pub fn encode(label: &str, der: &[u8]) -> Zeroizing<String> {
    let encoded = Zeroizing::new(BASE64.encode(der));
    // All of the room at once: a text that grows leaves copies of a key behind.
    let room = encoded.len() + encoded.len() / LINE + 2 * label.len() + AROUND;
    let mut text = Zeroizing::new(String::with_capacity(room));
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at_checked(LINE).unwrap_or((rest, ""));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

/// In characters.
const LINE: usize = 64;

/// Room for all but the label and what it stands around, in bytes: two lines' dashes and
/// words, and the end of the last line of base64.
const AROUND: usize = 33;

#[cfg(test)]
mod tests {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject as _;

    use super::*;

    #[test]
    fn it_is_what_others_read_in_lines_of_64_characters() {
        for length in [1, 47, 48, 49, 96, 100, 1_000] {
            let der = vec![7; length];
            let text = encode(CERTIFICATE, &der);
            let read = CertificateDer::from_pem_slice(text.as_bytes()).expect("PEM");
            assert_eq!(read.as_ref(), der);
            let lines: Vec<&str> = text.lines().collect();
            let (first, full) = (lines.first(), lines.len() - 3);
            assert_eq!(first, Some(&"-----BEGIN CERTIFICATE-----"));
            assert!(lines.iter().skip(1).take(full).all(|line| line.len() == LINE), "{length}: {lines:?}");
            assert!(lines.iter().all(|line| line.len() <= LINE), "{length}: {lines:?}");
            assert!(text.ends_with("\n-----END CERTIFICATE-----\n"));
        }
    }

    #[test]
    fn a_key_s_text_never_grows() {
        for length in 0..200 {
            let text = encode(PRIVATE_KEY, &vec![7; length]);
            let room = BASE64.encode_len(length) + BASE64.encode_len(length) / LINE;
            assert!(text.len() <= room + 2 * PRIVATE_KEY.len() + AROUND, "{length} bytes: {}", text.len());
        }
    }
}
