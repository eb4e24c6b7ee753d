//! PEM (RFC 7468), read as Java's Kafka client reads it: the text may stand in one line, with
//! spaces for line ends, and around and between the blocks there may be anything.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::error::StoreFault;

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

/// One block of a text.
pub(crate) struct PemBlock<'a> {
    /// What stands behind `BEGIN`.
    pub(crate) label: &'a str,
    /// Whether headers say that its content is encrypted (RFC 1421), as old keys of OpenSSL are.
    pub(crate) is_encrypted: bool,
    pub(crate) der: Zeroizing<Vec<u8>>,
}

/// Whether the bytes have such a block.
pub(crate) fn is_pem(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| text.contains(BEGIN))
}

/// The blocks of a text, in order.
///
/// # Errors
/// What is wrong with the first that cannot be read.
pub(crate) fn blocks(text: &str) -> Result<Vec<PemBlock<'_>>, StoreFault> {
    let mut blocks = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once(BEGIN) {
        let (label, after) = after
            .split_once(DASHES)
            .ok_or_else(|| StoreFault::Malformed("the line of a BEGIN is cut off".to_owned()))?;
        let (body, after) = after
            .split_once(END)
            .ok_or_else(|| StoreFault::Malformed(format!("BEGIN {label} has no END")))?;
        blocks.push(block(label, body)?);
        rest = after;
    }
    Ok(blocks)
}

fn block<'a>(label: &'a str, body: &str) -> Result<PemBlock<'a>, StoreFault> {
    let has_headers = body.contains(':');
    if has_headers {
        return Ok(PemBlock {
            label,
            is_encrypted: body.contains("ENCRYPTED"),
            der: Zeroizing::default(),
        });
    }
    let mut base64 = Zeroizing::new(String::with_capacity(body.len()));
    base64.extend(body.split_ascii_whitespace());
    let der = STANDARD
        .decode(base64.as_bytes())
        .map_err(|_| StoreFault::Malformed(format!("what BEGIN {label} begins is no base64")))?;
    Ok(PemBlock {
        label,
        is_encrypted: false,
        der: Zeroizing::new(der),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, Vec<u8>)> {
        let blocks = blocks(text).expect("it can be read");
        let owned = blocks.iter().map(|b| (b.label.to_owned(), b.der.to_vec()));
        owned.collect()
    }

    #[test]
    fn blocks_are_read_from_several_lines_and_from_one() {
        let lines = "a comment\n-----BEGIN CERTIFICATE-----\nAAEC\nAwQF\n-----END CERTIFICATE-----\n\
                     -----BEGIN PRIVATE KEY-----\r\nBg==\r\n-----END PRIVATE KEY-----\r\n";
        let expected = vec![
            ("CERTIFICATE".to_owned(), vec![0, 1, 2, 3, 4, 5]),
            ("PRIVATE KEY".to_owned(), vec![6]),
        ];
        assert_eq!(read(lines), expected);
        assert_eq!(read(&lines.replace(['\r', '\n'], " ")), expected);
        assert_eq!(read("nothing"), []);
    }

    #[test]
    fn a_block_that_cannot_be_read_is_named() {
        for (text, fault) in [
            (
                "-----BEGIN CERTIFICATE-----\nAAEC",
                "BEGIN CERTIFICATE has no END",
            ),
            (
                "-----BEGIN X-----\n!\n-----END X-----",
                "what BEGIN X begins is no base64",
            ),
            ("-----BEGIN X", "the line of a BEGIN is cut off"),
        ] {
            let error = blocks(text).err().expect("it cannot be read");
            assert_eq!(error, StoreFault::Malformed(fault.to_owned()));
        }
    }

    #[test]
    fn a_key_that_openssl_has_encrypted_by_headers_is_known_as_such() {
        let text = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\
                    DEK-Info: AES-128-CBC,00\n\nAAEC\n-----END RSA PRIVATE KEY-----\n";
        assert!(blocks(text).expect("it can be read")[0].is_encrypted);
    }
}
