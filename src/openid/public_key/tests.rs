use super::*;
use crate::compact_jws::CompactJws;
use crate::json_web_key::{JsonWebKey, read_key_set};
use crate::signer::SigningKey;

fn key(jwk: &str) -> PublicKey {
    let mut keys = read_key_set(format!(r#"{{"keys":[{jwk}]}}"#).as_bytes()).expect(jwk);
    let key: JsonWebKey = keys.pop().expect("it can be read");
    key.public_key().expect("it can be used")
}

/// Whether the key verifies the token, and nothing that differs from it in a bit.
fn verifies(key: &PublicKey, token: &str) -> bool {
    let jws = CompactJws::parse(token).expect(token);
    let verifies = key.verifies(jws.algorithm, &jws.signed);
    if verifies {
        for at in [0, jws.signed.text.len() / 2, jws.signed.text.len() - 1] {
            let mut text = jws.signed.text.to_vec();
            text[at] ^= 1;
            let signature = jws.signed.signature.clone();
            let signed = SignedText {
                text: &text,
                signature,
            };
            assert!(!key.verifies(jws.algorithm, &signed), "another text");
        }
        for at in 0..jws.signed.signature.len() {
            let mut signature = jws.signed.signature.clone();
            signature[at] ^= 1 << (at % 8);
            let text = jws.signed.text;
            let signed = SignedText { text, signature };
            assert!(!key.verifies(jws.algorithm, &signed), "another signature");
        }
    }
    verifies
}

/// RFC 7515, appendices A.2 and A.3; RFC 8037, appendix A.4.
#[test]
fn the_examples_of_the_rfcs_verify() {
    const JOE: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    for (jwk, head, payload, signature) in [
        (
            r#"{"kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB"}"#,
            "eyJhbGciOiJSUzI1NiJ9",
            JOE,
            "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
        ),
        (
            r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#,
            "eyJhbGciOiJFUzI1NiJ9",
            JOE,
            "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        ),
        (
            r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
            "eyJhbGciOiJFZERTQSJ9",
            "RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
        ),
    ] {
        assert!(
            verifies(&key(jwk), &format!("{head}.{payload}.{signature}")),
            "{jwk}"
        );
    }
}

/// Signed by OpenSSL 3: a line each of a public key and a token.
#[test]
fn what_openssl_has_signed_verifies_with_its_key_only() {
    let signed = include_str!("openssl.txt").lines();
    let signed: Vec<_> = signed
        .map(|line| line.split_once('\t').expect(line))
        .collect();
    let mut algorithms = Vec::new();
    for (jwk, token) in &signed {
        let key = key(jwk);
        assert!(verifies(&key, token), "{token}");
        for (_, other) in signed.iter().filter(|(other, _)| other != jwk) {
            assert!(!verifies(&key, other), "{other}");
        }
        algorithms.push(CompactJws::parse(token).expect("a token").algorithm);
    }
    for algorithm in JwsAlgorithm::ALL {
        assert!(algorithms.contains(&algorithm), "{algorithm:?}");
    }
}

#[test]
fn a_key_verifies_by_no_algorithm_but_that_of_the_signature() {
    let rsa = SigningKey::generate(JwsAlgorithm::Rs256);
    for signs in JwsAlgorithm::ALL {
        let own = SigningKey::generate;
        let other = match signs {
            JwsAlgorithm::Es256 | JwsAlgorithm::Es384 | JwsAlgorithm::EdDsa => Some(own(signs)),
            _ => None,
        };
        let signer = other.as_ref().unwrap_or(&rsa);
        let key = key(&signer.public_jwk(""));
        let text = b"text";
        let signature = signer.sign(signs, text);
        for says in JwsAlgorithm::ALL {
            let signed = SignedText {
                text,
                signature: signature.clone(),
            };
            let expected = says == signs;
            assert_eq!(
                key.verifies(says, &signed),
                expected,
                "{signs:?} as {says:?}"
            );
            assert!(!expected || key.is_for(says));
        }
    }
}

#[test]
fn a_signature_has_the_length_that_it_must_have() {
    for algorithm in [
        JwsAlgorithm::Es256,
        JwsAlgorithm::Es384,
        JwsAlgorithm::EdDsa,
        JwsAlgorithm::Rs256,
        JwsAlgorithm::Ps512,
    ] {
        let signer = SigningKey::generate(algorithm);
        let key = key(&signer.public_jwk(""));
        let good = signer.sign(algorithm, b"text");
        let is_good = |signature: Vec<u8>| {
            let text = b"text";
            key.verifies(algorithm, &SignedText { text, signature })
        };
        assert!(is_good(good.clone()));
        let half = good.len() / 2;
        let padded = [&[0], &good[..half], &[0], &good[half..]].concat();
        for signature in [
            vec![],
            vec![0; good.len()],
            vec![0xff; good.len()],
            good[1..].to_vec(),
            good[..good.len() - 1].to_vec(),
            [&good[..], &[0]].concat(),
            [&[0], &good[..]].concat(),
            padded,
            good.repeat(2),
            vec![0; 1 << 14],
        ] {
            assert!(
                !is_good(signature.clone()),
                "{algorithm:?} {}",
                signature.len()
            );
        }
    }
}

/// As X.509 and TLS have them.
#[test]
fn a_signature_in_der_is_none() {
    let signer = SigningKey::generate(JwsAlgorithm::Es256);
    let SigningKey::P256(private) = &signer else {
        unreachable!()
    };
    let mut buffer = [0; 128];
    let signature = private.sign_asn1::<Sha256>(&[b"text"], &mut buffer);
    let signature = signature.expect("it is long enough").to_vec();
    let text = b"text";
    let key = key(&signer.public_jwk(""));
    assert!(!key.verifies(JwsAlgorithm::Es256, &SignedText { text, signature }));
}
