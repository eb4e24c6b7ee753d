//! Keys and what is done with them: RFC 3961 and RFC 3962 (`aes…-cts-hmac-sha1-96`), RFC 8009
//! (`aes…-cts-hmac-sha256-128`, `…-sha384-192`).
//!
//! ```text
//! base key ─ usage ─▶ Ke  encrypts     sha1: AES-CTS(Ke, c │ text) │ HMAC(Ki, c │ text)
//!                     Ki  checks it    sha2: C = AES-CTS(Ke, c │ text), C │ HMAC(Ki, 0… │ C)
//!                     Kc  checks what is not encrypted            c: 16 random bytes
//! ```
//!
//! AES and the hashes are those of RustCrypto; this is how Kerberos puts them together.

mod n_fold;

use aes::cipher::BlockCipherEncrypt;
use aes::{Aes128, Aes256};
use cts::{CbcCs3, Decrypt, Encrypt, KeyIvInit};
use hmac::{Hmac, KeyInit, Mac};
use secret::SecretBytes;
use sha1::Sha1;
use sha2::{Sha256, Sha384};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use self::n_fold::n_fold;
use crate::random::random_bytes;

/// The blocks of AES, and what is random at the beginning of everything encrypted.
const BLOCK: usize = 16;

/// A type of encryption that we have, by its number in Kerberos.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
pub(crate) enum EncryptionType {
    Aes128Sha1 = 17,
    Aes256Sha1 = 18,
    Aes128Sha256 = 19,
    Aes256Sha384 = 20,
}

/// What a key is used for (RFC 4120, section 7.5.1; RFC 4121, section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum KeyUsage {
    AsReqTimestamp = 1,
    /// Of the examples of RFC 8009.
    #[cfg(test)]
    Example = 2,
    AsRep = 3,
    TgsReqChecksum = 6,
    TgsReqAuthenticator = 7,
    TgsRep = 8,
    ApReqAuthenticator = 11,
    ApRep = 12,
    AcceptorWrap = 22,
    InitiatorWrap = 24,
}

/// What is encrypted or checked does not go with the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IntegrityFault;

impl EncryptionType {
    /// All, the preferred one first, as MIT has them.
    pub(crate) const ALL: [Self; 4] = [
        Self::Aes256Sha1,
        Self::Aes128Sha1,
        Self::Aes256Sha384,
        Self::Aes128Sha256,
    ];

    pub(crate) fn of_number(number: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }

    /// By its name in krb5.conf; `aes` alone names several.
    pub(crate) fn of_name(name: &str) -> Vec<Self> {
        let name = name.to_ascii_lowercase();
        let of_name = |kind: &Self| {
            let (long, short, hash) = match kind {
                Self::Aes128Sha1 => ("aes128-cts-hmac-sha1-96", "aes128-cts", "aes128-sha1"),
                Self::Aes256Sha1 => ("aes256-cts-hmac-sha1-96", "aes256-cts", "aes256-sha1"),
                Self::Aes128Sha256 => ("aes128-cts-hmac-sha256-128", "", "aes128-sha2"),
                Self::Aes256Sha384 => ("aes256-cts-hmac-sha384-192", "", "aes256-sha2"),
            };
            name == "aes" || [long, short, hash].contains(&name.as_str())
        };
        Self::ALL.into_iter().filter(of_name).collect()
    }

    pub(crate) fn number(self) -> i32 {
        self as i32
    }

    pub(crate) fn key_len(self) -> usize {
        match self {
            Self::Aes128Sha1 | Self::Aes128Sha256 => 16,
            Self::Aes256Sha1 | Self::Aes256Sha384 => 32,
        }
    }

    /// The length of what checks.
    fn mac_len(self) -> usize {
        match self {
            Self::Aes128Sha1 | Self::Aes256Sha1 => 12,
            Self::Aes128Sha256 => 16,
            Self::Aes256Sha384 => 24,
        }
    }

    /// The type of checksum that goes with it.
    pub(crate) fn checksum_type(self) -> i32 {
        match self {
            Self::Aes128Sha1 => 15,
            Self::Aes256Sha1 => 16,
            Self::Aes128Sha256 => 19,
            Self::Aes256Sha384 => 20,
        }
    }
}

/// A key, of the length of its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KerberosKey {
    kind: EncryptionType,
    bytes: SecretBytes,
}

impl KerberosKey {
    /// `None` of a length that is not the type's.
    pub(crate) fn new(kind: EncryptionType, bytes: SecretBytes) -> Option<Self> {
        let fits = bytes.reveal().len() == kind.key_len();
        fits.then_some(Self { kind, bytes })
    }

    pub(crate) fn random(kind: EncryptionType) -> Self {
        let mut bytes = random_bytes::<32>().to_vec();
        bytes.truncate(kind.key_len());
        let bytes = SecretBytes::new(bytes);
        Self { kind, bytes }
    }

    pub(crate) fn kind(&self) -> EncryptionType {
        self.kind
    }

    pub(crate) fn reveal(&self) -> &[u8] {
        self.bytes.reveal()
    }

    pub(crate) fn encrypt(&self, usage: KeyUsage, text: &[u8]) -> Vec<u8> {
        self.encrypt_with(usage, text, random_bytes())
    }

    fn encrypt_with(&self, usage: KeyUsage, text: &[u8], confounder: [u8; BLOCK]) -> Vec<u8> {
        let ki = self.derive(usage, DerivedKey::Integrity);
        // With room for the checksum: what is moved is not wiped.
        let mut data = Vec::with_capacity(BLOCK + text.len() + self.kind.mac_len());
        data.extend_from_slice(&confounder);
        data.extend_from_slice(text);
        let of_text = self.checks_text().then(|| self.mac(&ki, &[&data]));
        self.encrypt_blocks(&self.derive(usage, DerivedKey::Encryption), &mut data);
        let mac = of_text.unwrap_or_else(|| self.mac(&ki, &[&[0; BLOCK], &data]));
        data.extend_from_slice(&mac);
        data
    }

    /// # Errors
    /// That it is not encrypted with this key, or for another use, or is damaged.
    pub(crate) fn decrypt(
        &self,
        usage: KeyUsage,
        data: &[u8],
    ) -> Result<SecretBytes, IntegrityFault> {
        let len = data.len().checked_sub(self.kind.mac_len());
        let len = len.filter(|len| *len >= BLOCK).ok_or(IntegrityFault)?;
        let (data, mac) = data.split_at(len);
        let ki = self.derive(usage, DerivedKey::Integrity);
        if !self.checks_text() {
            self.verify(&ki, &[&[0; BLOCK], data], mac)?;
        }
        let mut text = Zeroizing::new(data.to_vec());
        self.decrypt_blocks(&self.derive(usage, DerivedKey::Encryption), &mut text);
        if self.checks_text() {
            self.verify(&ki, &[&text], mac)?;
        }
        Ok(SecretBytes::new(&text[BLOCK..]))
    }

    /// The checksum of `parts`, one after the other.
    pub(crate) fn checksum(&self, usage: KeyUsage, parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
        self.mac(&self.derive(usage, DerivedKey::Checksum), parts)
    }

    /// # Errors
    /// That `checksum` is not that of `parts`.
    pub(crate) fn verify_checksum(
        &self,
        usage: KeyUsage,
        parts: &[&[u8]],
        checksum: &[u8],
    ) -> Result<(), IntegrityFault> {
        let kc = self.derive(usage, DerivedKey::Checksum);
        self.verify(&kc, parts, checksum)
    }

    /// Whether the text is checked, rather than what it is encrypted to.
    fn checks_text(&self) -> bool {
        matches!(
            self.kind,
            EncryptionType::Aes128Sha1 | EncryptionType::Aes256Sha1
        )
    }

    fn derive(&self, usage: KeyUsage, derived: DerivedKey) -> Zeroizing<Vec<u8>> {
        let mut label = [0; 5];
        label[..4].copy_from_slice(&(usage as u32).to_be_bytes());
        label[4] = derived as u8;
        let base = self.bytes.reveal();
        if self.checks_text() {
            return derive_by_aes(base, n_fold(&label));
        }
        let len = match derived {
            DerivedKey::Encryption => self.kind.key_len(),
            DerivedKey::Integrity | DerivedKey::Checksum => self.kind.mac_len(),
        };
        let bits = u32::try_from(len * 8)
            .expect("a key is short")
            .to_be_bytes();
        let parts: [&[u8]; 4] = [&1_u32.to_be_bytes(), &label, &[0], &bits];
        let mut key = match self.kind {
            EncryptionType::Aes128Sha256 => hmac::<Hmac<Sha256>>(base, &parts),
            _ => hmac::<Hmac<Sha384>>(base, &parts),
        };
        key.truncate(len);
        key
    }

    fn mac(&self, key: &[u8], parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
        let mut mac = match self.kind {
            EncryptionType::Aes128Sha1 | EncryptionType::Aes256Sha1 => {
                hmac::<Hmac<Sha1>>(key, parts)
            }
            EncryptionType::Aes128Sha256 => hmac::<Hmac<Sha256>>(key, parts),
            EncryptionType::Aes256Sha384 => hmac::<Hmac<Sha384>>(key, parts),
        };
        mac.truncate(self.kind.mac_len());
        mac
    }

    /// In constant time.
    fn verify(&self, key: &[u8], parts: &[&[u8]], mac: &[u8]) -> Result<(), IntegrityFault> {
        let expected = self.mac(key, parts);
        match bool::from(expected.ct_eq(mac)) {
            true => Ok(()),
            false => Err(IntegrityFault),
        }
    }

    /// At least a block, with an IV of zeros.
    fn encrypt_blocks(&self, key: &[u8], data: &mut [u8]) {
        let encrypted = match self.kind.key_len() {
            16 => cipher::<CbcCs3<Aes128>>(key).encrypt(data),
            _ => cipher::<CbcCs3<Aes256>>(key).encrypt(data),
        };
        encrypted.expect("there is a block");
    }

    /// As [`encrypt_blocks`](Self::encrypt_blocks).
    fn decrypt_blocks(&self, key: &[u8], data: &mut [u8]) {
        let decrypted = match self.kind.key_len() {
            16 => cipher::<CbcCs3<Aes128>>(key).decrypt(data),
            _ => cipher::<CbcCs3<Aes256>>(key).decrypt(data),
        };
        decrypted.expect("there is a block");
    }
}

/// What a key is derived for, by the last byte of its label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum DerivedKey {
    Encryption = 0xAA,
    Integrity = 0x55,
    Checksum = 0x99,
}

fn cipher<C: KeyIvInit>(key: &[u8]) -> C {
    C::new_from_slices(key, &[0; BLOCK]).expect("the lengths are those of AES")
}

/// `DR` of RFC 3961: blocks that are encrypted again and again, as many as a key has.
fn derive_by_aes(base: &[u8], constant: [u8; BLOCK]) -> Zeroizing<Vec<u8>> {
    fn blocks<C: BlockCipherEncrypt + KeyInit>(base: &[u8], key: &mut [u8], first: [u8; BLOCK]) {
        let cipher = C::new_from_slice(base).expect("the length is that of AES");
        let mut block = Zeroizing::new(first);
        for part in key.chunks_exact_mut(BLOCK) {
            let whole = (&mut block[..])
                .try_into()
                .expect("the length is that of AES");
            cipher.encrypt_block(whole);
            part.copy_from_slice(&block[..]);
        }
    }
    let mut key = Zeroizing::new(vec![0; base.len()]);
    match base.len() {
        16 => blocks::<Aes128>(base, &mut key, constant),
        _ => blocks::<Aes256>(base, &mut key, constant),
    }
    key
}

fn hmac<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("any length is taken");
    for part in parts {
        mac.update(part);
    }
    Zeroizing::new(mac.finalize().into_bytes().to_vec())
}

#[cfg(test)]
mod tests;
