//! Tokens that somebody has made up, or changed.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use graviola::hashing::{Sha256, hmac::Hmac};
use proptest::prelude::*;

use super::*;

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A token with a header and claims as they stand there, signed by ES256.
fn signed(harness: &ProviderHarness, header: &str, claims: &str) -> String {
    let text = format!("{}.{}", encode(header), encode(claims));
    let signature = harness.key.sign(JwsAlgorithm::Es256, text.as_bytes());
    format!("{text}.{}", encode(signature))
}

const HEADER: &str = r#"{"alg":"ES256","kid":"a"}"#;

#[tokio::test]
async fn claims_are_checked_whoever_has_signed_them() {
    let harness = ProviderHarness::start(|_| {}).await;
    let good = harness.claims("");
    assert!(
        harness
            .verify(&signed(&harness, HEADER, &good))
            .await
            .is_ok()
    );
    let issuer = format!(r#""iss":"{}""#, harness.fake.issuer());
    let exp = now() + 3600;
    let with = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        good.replace(from, to)
    };
    let expires = format!(r#""exp":{exp}"#);
    for (claims, expected) in [
        (
            with(&issuer, r#""iss":"https://evil.example""#),
            JwtFault::Issuer,
        ),
        (with(&issuer, r#""x":1"#), JwtFault::Issuer),
        (with(&issuer, r#""iss":null"#), JwtFault::Issuer),
        (with(r#"["x","proxy"]"#, r#""proxy2""#), JwtFault::Audience),
        (with(r#"["x","proxy"]"#, "[]"), JwtFault::Audience),
        (with(r#""aud":["x","proxy"],"#, ""), JwtFault::Audience),
        (with(&expires, r#""exp":1"#), JwtFault::Expired),
        (
            with(&expires, &format!(r#""exp":{}"#, now() - 30)),
            JwtFault::Expired,
        ),
        (with(&expires, r#""x":1"#), JwtFault::NoExpiry),
        (
            with(&expires, &format!(r#""exp":"{exp}""#)),
            JwtFault::Claims,
        ),
        (
            with(&expires, &format!(r#"{expires},"nbf":{exp}"#)),
            JwtFault::NotYetValid,
        ),
        (
            with(&expires, &format!(r#"{expires},"exp":1"#)),
            JwtFault::Claims,
        ),
        (
            with(&expires, &format!(r#"{expires},"sub":"you""#)),
            JwtFault::Claims,
        ),
        ("{}".to_owned(), JwtFault::NoExpiry),
        ("[]".to_owned(), JwtFault::Claims),
        (String::new(), JwtFault::Claims),
    ] {
        let token = signed(&harness, HEADER, &claims);
        assert_eq!(harness.fault(&token).await, expected, "{claims}");
    }
    let leeway = with(
        &expires,
        &format!(r#""exp":{},"nbf":{}"#, now() - 20, now() + 20),
    );
    assert!(
        harness
            .verify(&signed(&harness, HEADER, &leeway))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn headers_decide_nothing_that_the_provider_does_not_say() {
    let harness = ProviderHarness::start(|_| {}).await;
    let claims = harness.claims("");
    let own = SigningKey::generate(JwsAlgorithm::Es256);
    let jwk = own.public_jwk("");
    for (header, expected) in [
        (r#"{"alg":"none"}"#, JwtFault::Algorithm),
        (r#"{"alg":"None","kid":"a"}"#, JwtFault::Algorithm),
        (r#"{"alg":"HS256","kid":"a"}"#, JwtFault::Algorithm),
        (r#"{"alg":"ES384","kid":"a"}"#, JwtFault::UnfitKey),
        (r#"{"alg":"RS256","kid":"a"}"#, JwtFault::UnfitKey),
        (r#"{"alg":"PS512","kid":"a"}"#, JwtFault::UnfitKey),
        (r#"{"alg":"EdDSA","kid":"a"}"#, JwtFault::UnfitKey),
        (r#"{"alg":"ES256","kid":"A"}"#, JwtFault::UnknownKey),
        (r#"{"alg":"ES256","kid":"../a"}"#, JwtFault::UnknownKey),
        (
            r#"{"alg":"ES256","kid":"a' OR '1'='1"}"#,
            JwtFault::UnknownKey,
        ),
        (r#"{"alg":"ES384"}"#, JwtFault::NoKeyId),
        (
            r#"{"alg":"ES256","kid":"a","crit":["x"],"x":1}"#,
            JwtFault::Critical,
        ),
        (r#"{"kid":"a"}"#, JwtFault::Header),
    ] {
        let token = signed(&harness, header, &claims);
        assert_eq!(harness.fault(&token).await, expected, "{header}");
    }
    // A key that is brought along.
    for member in ["jwk", "kid\":\"a\",\"jwk"] {
        let header = format!(r#"{{"alg":"ES256","{member}":{jwk}}}"#);
        let text = format!("{}.{}", encode(header), encode(&claims));
        let signature = own.sign(JwsAlgorithm::Es256, text.as_bytes());
        let token = format!("{text}.{}", encode(signature));
        assert_eq!(harness.fault(&token).await, JwtFault::Signature, "{member}");
    }
}

#[tokio::test]
async fn the_public_key_is_no_secret_to_sign_with() {
    let harness = ProviderHarness::start(|_| {}).await;
    let claims = harness.claims("");
    let jwk = harness.key.public_jwk(r#","kid":"a""#);
    for secret in [jwk.as_bytes(), b"", b"secret"] {
        for algorithm in ["HS256", "ES256", "RS256", "none"] {
            let header = format!(r#"{{"alg":"{algorithm}","kid":"a"}}"#);
            let text = format!("{}.{}", encode(header), encode(&claims));
            let mut hmac = Hmac::<Sha256>::new(secret);
            hmac.update(text.as_bytes());
            let token = format!("{text}.{}", encode(hmac.finish()));
            harness.fault(&token).await;
        }
    }
}

#[tokio::test]
async fn a_token_that_was_changed_or_cut_is_refused() {
    let harness = ProviderHarness::start(|_| {}).await;
    let token = harness.token("a");
    assert!(harness.verify(&token).await.is_ok());
    for end in 0..token.len() {
        harness.fault(&token[..end]).await;
    }
    let parts: Vec<_> = token.split('.').collect();
    let other = harness.claims(r#","x":1"#);
    let other = signed(&harness, HEADER, &other);
    let others: Vec<_> = other.split('.').collect();
    for mixed in [
        format!("{}.{}.{}", parts[0], others[1], parts[2]),
        format!("{}.{}.{}", parts[0], parts[1], others[2]),
    ] {
        assert_eq!(harness.fault(&mixed).await, JwtFault::Signature);
    }
    for text in [
        format!("{}.{}.", parts[0], parts[1]),
        format!("{}..{}", parts[0], parts[2]),
        format!(".{}.{}", parts[1], parts[2]),
        format!("{token}."),
        format!("{token}.{}", parts[2]),
        format!("Bearer {token}"),
        format!("{token} "),
        "x".repeat(1 << 20),
        "..".to_owned(),
    ] {
        harness.fault(&text).await;
    }
}

#[tokio::test]
async fn a_key_that_is_for_something_else_verifies_nothing() {
    for members in [
        r#","kid":"a","use":"enc""#,
        r#","kid":"a","alg":"ECDH-ES""#,
        r#","kid":"a","key_ops":["deriveKey"]"#,
    ] {
        let harness = ProviderHarness::start(|_| {}).await;
        harness.fake.publish(&[harness.key.public_jwk(members)]);
        assert_eq!(harness.fault(&harness.token("a")).await, JwtFault::UnfitKey);
        let without = harness
            .key
            .token(JwsAlgorithm::Es256, "", &harness.claims(""));
        assert_eq!(harness.fault(&without).await, JwtFault::NoKeyId);
    }
}

proptest! {
    /// Nor does any text make it panic.
    #[test]
    fn no_text_is_a_token(header in ".*", claims in ".*", rest in ".*", text in "[A-Za-z0-9_.=-]*") {
        let made = format!("{}.{}.{}", encode(&header), encode(&claims), encode(&rest));
        for token in [&made, &rest, &text] {
            if let Ok(jws) = CompactJws::parse(token) {
                let _ = TokenClaims::parse(jws.payload.reveal(), &[]);
            }
        }
        let _ = TokenClaims::parse(claims.as_bytes(), &[]);
    }
}

/// What a reason shows stands in `error_description` (RFC 6750, section 3).
#[test]
fn every_fault_can_be_said_in_a_challenge() {
    use JwtFault as Fault;
    for fault in [
        Fault::TooLong,
        Fault::NotCompact,
        Fault::Header,
        Fault::Critical,
        Fault::Algorithm,
        Fault::Claims,
        Fault::NoExpiry,
        Fault::Expired,
        Fault::NotYetValid,
        Fault::Audience,
        Fault::Issuer,
        Fault::UnknownKey,
        Fault::NoKeyId,
        Fault::UnfitKey,
        Fault::UnusableKey,
        Fault::Signature,
    ] {
        let text = fault.to_string();
        let legal = |c: char| matches!(c, ' '..='~') && !['"', '\\'].contains(&c);
        assert!(text.chars().all(legal), "{text}");
    }
}
