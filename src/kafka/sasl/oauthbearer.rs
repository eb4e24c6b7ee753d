//! OAUTHBEARER (RFC 7628, KIP-255, KIP-342).
//!
//! A broker refuses a token with a challenge of JSON and error code 0; only the byte `\x01` in
//! return makes it end the exchange.

use secret::Secret;

use super::credentials::BearerToken;
use super::error::SaslError;

/// What the client says to a refusal (RFC 7628, section 3.2.3).
const END: &str = "\x01";

/// One exchange.
pub(crate) struct OAuthBearerClient {
    token: BearerToken,
    /// What the broker said.
    refusal: Option<String>,
}

impl OAuthBearerClient {
    pub(super) fn new(token: BearerToken) -> Self {
        Self {
            token,
            refusal: None,
        }
    }

    pub(super) fn initial_response(&self) -> Secret {
        let mut text = format!("n,,\x01auth=Bearer {}", self.token.token.reveal());
        for (name, value) in self.token.extensions.iter() {
            text.push_str(&format!("\x01{name}={value}"));
        }
        text.push_str("\x01\x01");
        Secret::new(text)
    }

    pub(super) fn respond(&mut self, challenge: &[u8]) -> Result<Option<Secret>, SaslError> {
        if let Some(refusal) = &self.refusal {
            return Err(SaslError::Refused(refusal.clone()));
        }
        if challenge.is_empty() {
            return Ok(None);
        }
        let refusal = String::from_utf8_lossy(challenge);
        self.refusal = Some(format!("the token is refused: {refusal}"));
        Ok(Some(Secret::new(END)))
    }

    /// What the broker is told.
    pub(super) fn token(&self) -> &BearerToken {
        &self.token
    }

    /// What the broker said about the token, if it has refused it.
    pub(super) fn refusal(&self) -> Option<&str> {
        self.refusal.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client() -> OAuthBearerClient {
        OAuthBearerClient::new(BearerToken {
            token: Secret::new("a.b.c"),
            extensions: [("logicalCluster".to_owned(), "lkc-1".to_owned())].into(),
        })
    }

    #[test]
    fn the_token_and_its_extensions_are_sent_at_once() {
        let mut client = client();
        assert_eq!(
            client.initial_response().reveal(),
            "n,,\x01auth=Bearer a.b.c\x01logicalCluster=lkc-1\x01\x01"
        );
        assert_eq!(client.respond(b""), Ok(None));
    }

    #[test]
    fn a_refusal_is_ended_by_one_byte_and_kept_in_the_brokers_words() {
        let mut client = client();
        let challenge = br#"{"status":"invalid_token"}"#;
        assert_eq!(client.respond(challenge), Ok(Some(Secret::new("\x01"))));
        let refusal = client.refusal().expect("it was refused").to_owned();
        assert!(refusal.contains("invalid_token"), "{refusal}");
        assert!(client.respond(b"").is_err());
    }
}
