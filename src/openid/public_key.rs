//! What a signature is verified with.

use std::fmt;

use graviola::hashing::{Sha256, Sha384};
use graviola::signing::ecdsa::{self, P256, P384};
use graviola::signing::{eddsa::Ed25519VerifyingKey, rsa};

use crate::algorithm::JwsAlgorithm;
use crate::compact_jws::SignedText;
use crate::rsa_der::rsa_public_key;

/// A key of a kind that can be used here. It verifies by the algorithms of its kind only.
pub(crate) enum PublicKey {
    Rsa(Box<rsa::VerifyingKey>),
    P256(Box<ecdsa::VerifyingKey<P256>>),
    P384(Box<ecdsa::VerifyingKey<P384>>),
    Ed25519(Ed25519VerifyingKey),
}

impl PublicKey {
    /// One of 2048 to 8192 bits; the numbers are big-endian.
    pub(crate) fn rsa(modulus: &[u8], exponent: &[u8]) -> Option<Self> {
        let der = rsa_public_key(modulus, exponent);
        let key = rsa::VerifyingKey::from_pkcs1_der(&der).ok()?;
        Some(Self::Rsa(Box::new(key)))
    }

    /// One of the curve of that name, if its point is on it.
    pub(crate) fn elliptic(curve: &str, x: &[u8], y: &[u8]) -> Option<Self> {
        match curve {
            "P-256" => {
                let key = ecdsa::VerifyingKey::from_x962_uncompressed(&point::<32>(x, y)?);
                key.ok().map(|key| Self::P256(Box::new(key)))
            }
            "P-384" => {
                let key = ecdsa::VerifyingKey::from_x962_uncompressed(&point::<48>(x, y)?);
                key.ok().map(|key| Self::P384(Box::new(key)))
            }
            _ => None,
        }
    }

    /// One of the curve of that name (RFC 8037).
    pub(crate) fn edwards(curve: &str, x: &[u8]) -> Option<Self> {
        match curve {
            "Ed25519" => Ed25519VerifyingKey::from_bytes(x).ok().map(Self::Ed25519),
            _ => None,
        }
    }

    /// Whether signatures by that algorithm are of its kind.
    pub(crate) fn is_for(&self, algorithm: JwsAlgorithm) -> bool {
        use JwsAlgorithm as Algorithm;
        match algorithm {
            Algorithm::Rs256 | Algorithm::Rs384 | Algorithm::Rs512 => matches!(self, Self::Rsa(_)),
            Algorithm::Ps256 | Algorithm::Ps384 | Algorithm::Ps512 => matches!(self, Self::Rsa(_)),
            Algorithm::Es256 => matches!(self, Self::P256(_)),
            Algorithm::Es384 => matches!(self, Self::P384(_)),
            Algorithm::EdDsa => matches!(self, Self::Ed25519(_)),
        }
    }

    /// Whether the text was signed with the key by that algorithm.
    pub(crate) fn verifies(&self, algorithm: JwsAlgorithm, signed: &SignedText<'_>) -> bool {
        use JwsAlgorithm as Algorithm;
        let (text, signature) = (signed.text, &*signed.signature);
        let verified = match (self, algorithm) {
            (Self::Rsa(key), Algorithm::Rs256) => key.verify_pkcs1_sha256(signature, text),
            (Self::Rsa(key), Algorithm::Rs384) => key.verify_pkcs1_sha384(signature, text),
            (Self::Rsa(key), Algorithm::Rs512) => key.verify_pkcs1_sha512(signature, text),
            (Self::Rsa(key), Algorithm::Ps256) => key.verify_pss_sha256(signature, text),
            (Self::Rsa(key), Algorithm::Ps384) => key.verify_pss_sha384(signature, text),
            (Self::Rsa(key), Algorithm::Ps512) => key.verify_pss_sha512(signature, text),
            (Self::P256(key), Algorithm::Es256) => key.verify::<Sha256>(&[text], signature),
            (Self::P384(key), Algorithm::Es384) => key.verify::<Sha384>(&[text], signature),
            (Self::Ed25519(key), Algorithm::EdDsa) => key.verify(signature, text),
            _ => return false,
        };
        verified.is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rsa(_) => "RSA",
            Self::P256(_) => "P-256",
            Self::P384(_) => "P-384",
            Self::Ed25519(_) => "Ed25519",
        })
    }
}

/// A point, uncompressed (SEC 1, section 2.3.3). Zeros at the front of a coordinate may be left out,
/// as some providers do.
fn point<const LENGTH: usize>(x: &[u8], y: &[u8]) -> Option<Vec<u8>> {
    let mut point = vec![4];
    for coordinate in [x, y] {
        let missing = LENGTH.checked_sub(coordinate.len())?;
        point.resize(point.len() + missing, 0);
        point.extend_from_slice(coordinate);
    }
    Some(point)
}

#[cfg(test)]
mod tests;
