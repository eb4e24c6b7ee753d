//! JKS, the format of Java's `sun.security.provider.JavaKeyStore`.
//!
//! ```text
//! magic 0xFEEDFEED · version 1 or 2 · count · entries · SHA-1 of password, "Mighty Aphrodite", all
//! entry: 1 = key          alias · time · encrypted key · chain
//!        2 = certificate  alias · time · certificate
//! ```
//!
//! Keys are encrypted as `sun.security.provider.KeyProtector` does: XOR with a chain of SHA-1.

use sha1::{Digest, Sha1};
use zeroize::Zeroizing;

use crate::error::StoreFault;

pub(crate) const MAGIC: [u8; 4] = [0xFE, 0xED, 0xFE, 0xED];
/// That of JCEKS, which is laid out alike and encrypted otherwise.
pub(crate) const JCEKS_MAGIC: [u8; 4] = [0xCE, 0xCE, 0xCE, 0xCE];

const DIGEST_LEN: usize = 20;
/// Stands between the password and the content in the digest of a store.
const WHITENER: &[u8] = b"Mighty Aphrodite";
/// The DER of KeyProtector's object identifier, 1.3.6.1.4.1.42.2.17.1.1.
const KEY_PROTECTOR: &[u8] = &[
    0x06, 0x0A, 0x2B, 0x06, 0x01, 0x04, 0x01, 0x2A, 0x02, 0x11, 0x01, 0x01,
];

/// What a store has.
#[derive(Default)]
pub(crate) struct JavaKeyStore {
    pub(crate) keys: Vec<ProtectedKey>,
    /// Those that are trusted, in DER.
    pub(crate) certificates: Vec<Vec<u8>>,
}

/// A key, encrypted, and the chain of its certificate.
pub(crate) struct ProtectedKey {
    encrypted: Vec<u8>,
    /// In DER, that of the key first.
    pub(crate) chain: Vec<Vec<u8>>,
}

/// Reads a store. Without a password nothing is checked, as Java does for trust stores.
pub(crate) fn read(bytes: &[u8], password: Option<&str>) -> Result<JavaKeyStore, StoreFault> {
    let Some(content) = bytes.len().checked_sub(DIGEST_LEN) else {
        return Err(cut_off());
    };
    let (content, digest) = bytes.split_at(content);
    let store = read_entries(content);
    if let Some(password) = password {
        let expected = Sha1::new()
            .chain_update(utf16(password))
            .chain_update(WHITENER)
            .chain_update(content)
            .finalize();
        // Java too cannot tell a wrong password from a damaged file.
        if expected.as_slice() != digest {
            return Err(StoreFault::WrongPassword);
        }
    }
    store
}

fn read_entries(content: &[u8]) -> Result<JavaKeyStore, StoreFault> {
    let mut input = Input(content);
    input.take(MAGIC.len())?;
    let version = input.int()?;
    if !(1..=2).contains(&version) {
        return Err(StoreFault::Malformed(format!(
            "JKS has no version {version}"
        )));
    }
    let mut store = JavaKeyStore::default();
    for _ in 0..input.int()? {
        let tag = input.int()?;
        let _alias = input.text()?;
        let _created_at = input.take(8)?;
        match tag {
            1 => {
                let encrypted = input.bytes()?.to_vec();
                let mut chain = Vec::new();
                for _ in 0..input.int()? {
                    chain.push(input.certificate(version)?);
                }
                store.keys.push(ProtectedKey { encrypted, chain });
            }
            2 => store.certificates.push(input.certificate(version)?),
            _ => return Err(StoreFault::Malformed(format!("JKS has no entry {tag}"))),
        }
    }
    Ok(store)
}

impl ProtectedKey {
    /// The key in PKCS#8.
    pub(crate) fn decrypt(&self, password: &str) -> Result<Zeroizing<Vec<u8>>, StoreFault> {
        // EncryptedPrivateKeyInfo (RFC 5208): the algorithm, and an OCTET STRING at the end.
        let mut whole = Input(Input(&self.encrypted).der(0x30)?);
        let algorithm = whole.der(0x30)?;
        if !algorithm.starts_with(KEY_PROTECTOR) {
            return Err(StoreFault::OldKeyEncryption);
        }
        let protected = whole.der(0x04)?;
        let Some(length) = protected.len().checked_sub(2 * DIGEST_LEN) else {
            return Err(cut_off());
        };
        let (salt, rest) = protected.split_at(DIGEST_LEN);
        let (encrypted, check) = rest.split_at(length);
        let password = utf16(password);
        let mut key = Zeroizing::new(encrypted.to_vec());
        let mut block: [u8; DIGEST_LEN] = salt.try_into().expect("split there");
        for chunk in key.chunks_mut(DIGEST_LEN) {
            let digest = Sha1::new().chain_update(&password).chain_update(block);
            block = digest.finalize().into();
            for (byte, mask) in chunk.iter_mut().zip(block) {
                *byte ^= mask;
            }
        }
        let digest = Sha1::new().chain_update(&password).chain_update(&key);
        match digest.finalize().as_slice() == check {
            true => Ok(key),
            false => Err(StoreFault::WrongKeyPassword),
        }
    }
}

/// As Java digests a password: each `char` in two bytes.
fn utf16(password: &str) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(password.encode_utf16().flat_map(u16::to_be_bytes).collect())
}

fn cut_off() -> StoreFault {
    StoreFault::Malformed("it is cut off".to_owned())
}

/// Big-endian, as Java's `DataInputStream` has it.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], StoreFault> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(cut_off)?;
        self.0 = rest;
        Ok(taken)
    }

    fn int(&mut self) -> Result<u32, StoreFault> {
        let bytes = self.take(4)?;
        Ok(u32::from_be_bytes(bytes.try_into().expect("four")))
    }

    fn bytes(&mut self) -> Result<&'a [u8], StoreFault> {
        let length = self.int()?;
        self.take(length as usize)
    }

    fn text(&mut self) -> Result<&'a [u8], StoreFault> {
        let bytes = self.take(2)?;
        self.take(u16::from_be_bytes(bytes.try_into().expect("two")).into())
    }

    fn certificate(&mut self, version: u32) -> Result<Vec<u8>, StoreFault> {
        if version == 2 {
            self.text()?;
        }
        Ok(self.bytes()?.to_vec())
    }

    /// The content of a DER element with that tag.
    fn der(&mut self, tag: u8) -> Result<&'a [u8], StoreFault> {
        let head = self.take(2)?;
        if head[0] != tag {
            return Err(StoreFault::Malformed("its key is not in DER".to_owned()));
        }
        let length = match head[1] {
            short @ 0..0x80 => usize::from(short),
            long => {
                let bytes = self.take(usize::from(long & 0x7F).min(4))?;
                bytes
                    .iter()
                    .fold(0, |length, byte| length << 8 | usize::from(*byte))
            }
        };
        self.take(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn der(tag: u8, content: &[&[u8]]) -> Vec<u8> {
        let content = content.concat();
        let length = u8::try_from(content.len()).expect("short");
        [&[tag, length], &content[..]].concat()
    }

    /// What `KeyProtector` would make of nothing, with that object identifier.
    fn protected(object_identifier: &[u8]) -> ProtectedKey {
        let algorithm = der(0x30, &[object_identifier, &[0x05, 0x00]]);
        let check = Sha1::new().chain_update(utf16("keypass")).finalize();
        let octets = der(0x04, &[&[0; DIGEST_LEN], check.as_slice()]);
        ProtectedKey {
            encrypted: der(0x30, &[&algorithm, &octets]),
            chain: Vec::new(),
        }
    }

    #[test]
    fn a_key_is_decrypted_only_if_java_has_encrypted_it_as_it_does_in_jks() {
        assert_eq!(
            protected(KEY_PROTECTOR).decrypt("keypass").as_deref(),
            Ok(&vec![])
        );
        // PBEWithMD5AndDES, of JCE's first versions.
        let other = &[
            0x06, 0x0A, 0x2B, 0x06, 0x01, 0x04, 0x01, 0x2A, 0x02, 0x13, 0x01, 0x01,
        ];
        let error = protected(other).decrypt("keypass").unwrap_err();
        assert_eq!(error, StoreFault::OldKeyEncryption);
    }
}
