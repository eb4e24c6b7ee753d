//! Signs tokens, for tests.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use graviola::hashing::{Sha256, Sha384};
use graviola::signing::ecdsa::{self, P256, P384};
use graviola::signing::eddsa::Ed25519SigningKey;
use graviola::signing::rsa;

use crate::algorithm::JwsAlgorithm;

/// A private key.
pub(crate) enum SigningKey {
    Rsa(Box<rsa::SigningKey>),
    P256(ecdsa::SigningKey<P256>),
    P384(ecdsa::SigningKey<P384>),
    Ed25519(Ed25519SigningKey),
}

impl SigningKey {
    /// A new one for that algorithm.
    pub(crate) fn generate(algorithm: JwsAlgorithm) -> Self {
        match algorithm {
            JwsAlgorithm::Es256 => Self::P256(ecdsa::SigningKey::generate().expect("random")),
            JwsAlgorithm::Es384 => Self::P384(ecdsa::SigningKey::generate().expect("random")),
            JwsAlgorithm::EdDsa => Self::Ed25519(Ed25519SigningKey::generate().expect("random")),
            _ => {
                let key = rsa::SigningKey::generate(rsa::KeySize::Rsa2048);
                Self::Rsa(Box::new(key.expect("random")))
            }
        }
    }

    /// As a provider publishes it; `more` begins with a comma.
    pub(crate) fn public_jwk(&self, more: &str) -> String {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let members = match self {
            Self::Rsa(key) => {
                let mut buffer = [0; 1024];
                let der = key.public_key();
                let der = der.to_pkcs1_der(&mut buffer).expect("it is long enough");
                // SEQUENCE { INTEGER of 257 bytes, the first of which is 0, INTEGER }
                let (modulus, exponent) = (&der[9..9 + 256], &der[9 + 256 + 2..]);
                let (n, e) = (encode(modulus), encode(exponent));
                format!(r#""kty":"RSA","n":"{n}","e":"{e}""#)
            }
            Self::P256(key) => elliptic("P-256", &point(key)),
            Self::P384(key) => elliptic("P-384", &point(key)),
            Self::Ed25519(key) => {
                let x = encode(&key.public_key().as_bytes());
                format!(r#""kty":"OKP","crv":"Ed25519","x":"{x}""#)
            }
        };
        format!("{{{members}{more}}}")
    }

    /// A token with those claims; `more` of its header begins with a comma.
    pub(crate) fn token(&self, algorithm: JwsAlgorithm, more: &str, claims: &str) -> String {
        let header = format!(r#"{{"alg":"{}"{more}}}"#, algorithm.name());
        let [header, claims] = [&*header, claims].map(|part| URL_SAFE_NO_PAD.encode(part));
        let text = format!("{header}.{claims}");
        let signature = self.sign(algorithm, text.as_bytes());
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    pub(crate) fn sign(&self, algorithm: JwsAlgorithm, text: &[u8]) -> Vec<u8> {
        use JwsAlgorithm as Algorithm;
        let mut out = [0; 512];
        let signature = match (self, algorithm) {
            (Self::Rsa(key), Algorithm::Rs256) => key.sign_pkcs1_sha256(&mut out, text),
            (Self::Rsa(key), Algorithm::Rs384) => key.sign_pkcs1_sha384(&mut out, text),
            (Self::Rsa(key), Algorithm::Rs512) => key.sign_pkcs1_sha512(&mut out, text),
            (Self::Rsa(key), Algorithm::Ps256) => key.sign_pss_sha256(&mut out, text),
            (Self::Rsa(key), Algorithm::Ps384) => key.sign_pss_sha384(&mut out, text),
            (Self::Rsa(key), Algorithm::Ps512) => key.sign_pss_sha512(&mut out, text),
            (Self::P256(key), Algorithm::Es256) => key.sign::<Sha256>(&[text], &mut out),
            (Self::P384(key), Algorithm::Es384) => key.sign::<Sha384>(&[text], &mut out),
            (Self::Ed25519(key), Algorithm::EdDsa) => return key.sign(text).to_vec(),
            _ => panic!("the key is not for {algorithm:?}"),
        };
        signature.expect("it is long enough").to_vec()
    }
}

fn point<C: ecdsa::Curve>(key: &ecdsa::SigningKey<C>) -> Vec<u8> {
    // SubjectPublicKeyInfo ends with the point, uncompressed.
    let mut buffer = [0; 256];
    let der = key.to_spki_der(&mut buffer).expect("it is long enough");
    let at = der.windows(2).position(|bytes| bytes == [0, 4]);
    der[at.expect("no unused bits, and a point") + 2..].to_vec()
}

fn elliptic(curve: &str, point: &[u8]) -> String {
    let (x, y) = point.split_at(point.len() / 2);
    let [x, y] = [x, y].map(|coordinate| URL_SAFE_NO_PAD.encode(coordinate));
    format!(r#""kty":"EC","crv":"{curve}","x":"{x}","y":"{y}""#)
}
