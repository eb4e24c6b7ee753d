//! GSSAPI (RFC 4752) without a security layer, as brokers have it (`sasl.qop=auth`):
//!
//! ```text
//! the context's first token   ─▶
//!                             ◀─ its second: the broker is who we think
//! nothing                     ─▶
//!                             ◀─ wrapped: the layers that are offered
//! wrapped: none, and as       ─▶
//! nobody else
//!                             ◀─ nothing
//! ```

use secret::SecretBytes;

use super::credentials::{GssContext, GssFault};
use super::error::SaslError;

const MECHANISM: &str = "GSSAPI";
/// The bit of an offer for no layer.
const NO_LAYER: u8 = 1;

/// One exchange.
pub(crate) struct GssapiClient {
    context: Box<dyn GssContext>,
    due: GssapiStep,
}

/// What the broker says next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GssapiStep {
    Token,
    Offer,
    Nothing,
}

impl GssapiClient {
    pub(super) fn new(context: Box<dyn GssContext>) -> Self {
        Self {
            context,
            due: GssapiStep::Token,
        }
    }

    pub(super) fn initial_response(&self) -> SecretBytes {
        self.context.first_token()
    }

    pub(super) fn respond(&mut self, challenge: &[u8]) -> Result<Option<SecretBytes>, SaslError> {
        let (answer, next) = match self.due {
            GssapiStep::Token => {
                self.context.establish(challenge)?;
                (Some(SecretBytes::default()), GssapiStep::Offer)
            }
            GssapiStep::Offer => {
                let offer = self.context.unwrap(challenge)?;
                match offer.as_slice() {
                    // Behind the layers stands how much may be wrapped.
                    [layers, _, _, _] if layers & NO_LAYER != 0 => {}
                    [_, _, _, _] => {
                        return Err(unexpected(
                            "it demands a security layer, which is not supported (sasl.qop)",
                        ));
                    }
                    _ => return Err(unexpected("its offer of layers cannot be read")),
                }
                // Nothing may be wrapped any more, and there is no authorization identity.
                let choice = self.context.wrap(&[NO_LAYER, 0, 0, 0])?;
                (Some(choice), GssapiStep::Nothing)
            }
            GssapiStep::Nothing if challenge.is_empty() => (None, GssapiStep::Nothing),
            GssapiStep::Nothing => return Err(unexpected("it says more than is due")),
        };
        self.due = next;
        Ok(answer)
    }

    /// What the broker is shown.
    pub(super) fn context(&self) -> &dyn GssContext {
        &*self.context
    }
}

fn unexpected(reason: &'static str) -> SaslError {
    SaslError::UnexpectedChallenge {
        mechanism: MECHANISM,
        reason,
    }
}

impl From<GssFault> for SaslError {
    fn from(fault: GssFault) -> Self {
        match fault {
            GssFault::Refused(words) => Self::Refused(words),
            GssFault::Unexpected(reason) => unexpected(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whose tokens are `1`, `2`, and messages with `w` before them.
    #[derive(Debug)]
    struct FakeContext;

    impl GssContext for FakeContext {
        fn first_token(&self) -> SecretBytes {
            SecretBytes::new(*b"1")
        }

        fn establish(&mut self, token: &[u8]) -> Result<(), GssFault> {
            match token {
                b"2" => Ok(()),
                _ => Err(GssFault::Unexpected("it is another token")),
            }
        }

        fn unwrap(&mut self, message: &[u8]) -> Result<Vec<u8>, GssFault> {
            let text = message.strip_prefix(b"w");
            text.map(<[u8]>::to_vec)
                .ok_or(GssFault::Unexpected("it is not wrapped"))
        }

        fn wrap(&mut self, text: &[u8]) -> Result<SecretBytes, GssFault> {
            Ok(SecretBytes::new([b"w", text].concat()))
        }

        fn refused(&self) {}
    }

    fn established() -> GssapiClient {
        let mut client = GssapiClient::new(Box::new(FakeContext));
        assert_eq!(client.initial_response().reveal(), b"1");
        let answer = client.respond(b"2").expect("it is established");
        assert_eq!(answer, Some(SecretBytes::default()));
        client
    }

    #[test]
    fn no_layer_is_chosen_of_those_that_are_offered() {
        for offer in [b"w\x01\0\0\0", b"w\x07\0\xff\xff"] {
            let mut client = established();
            let answer = client.respond(offer).expect("an offer").expect("a choice");
            assert_eq!(answer.reveal(), b"w\x01\0\0\0");
            assert_eq!(client.respond(b""), Ok(None));
        }
    }

    #[test]
    fn what_is_not_due_ends_the_exchange() {
        let fault = |client: &mut GssapiClient, challenge: &[u8]| {
            let answer = client.respond(challenge);
            answer.expect_err("it is not due").to_string()
        };
        let mut begun = GssapiClient::new(Box::new(FakeContext));
        assert!(fault(&mut begun, b"3").ends_with("GSSAPI: it is another token"));
        let layers = fault(&mut established(), b"w\x06\0\0\0");
        assert!(layers.contains("security layer"), "{layers}");
        for offer in [&b"w\x01"[..], b"w\x01\0\0\0\0", b"w", b"\x01\0\0\0"] {
            fault(&mut established(), offer);
        }
        let mut client = established();
        client.respond(b"w\x01\0\0\0").expect("an offer");
        fault(&mut client, b"w\x01\0\0\0");
    }
}
