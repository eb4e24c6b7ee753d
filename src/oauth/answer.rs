//! What a token endpoint answers (RFC 6749, section 5).

use http::StatusCode;
use secret::Secret;
use serde::Deserialize;

use crate::token::is_token;

/// Of what an endpoint says about an error, at most so many characters are kept.
const SAID_CHARS_MAX: usize = 200;

/// A token as an endpoint gives it.
#[derive(Debug, PartialEq)]
pub(crate) struct AnswerToken {
    pub(crate) text: Secret,
    /// In seconds.
    pub(crate) expires_in: Option<f64>,
}

/// Why there is none in an answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct EndpointRefusal {
    /// Goes on after the endpoint's name.
    pub(crate) said: String,
    pub(crate) setting: FaultySetting,
}

/// What is to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultySetting {
    Url,
    Credentials,
    Scope,
}

#[derive(Deserialize)]
struct TokenBody {
    access_token: Option<SecretText>,
    /// OpenID Connect; Java's client takes it, too.
    id_token: Option<SecretText>,
    expires_in: Option<serde_json::Value>,
}

/// `errorCode` and `errorSummary` are some providers' own.
#[derive(Default, Deserialize)]
struct FaultBody {
    #[serde(alias = "errorCode")]
    error: Option<String>,
    #[serde(alias = "errorSummary")]
    error_description: Option<String>,
}

/// Reads an answer.
pub(crate) fn read_answer(status: StatusCode, body: &[u8]) -> Result<AnswerToken, EndpointRefusal> {
    if !status.is_success() {
        return Err(refusal(status, body));
    }
    let fault = |said: String| EndpointRefusal {
        said,
        setting: FaultySetting::Url,
    };
    let body: TokenBody = serde_json::from_slice(body)
        .map_err(|_| fault(format!("answers {status} with what is no JSON of one")))?;
    let text = body.access_token.or(body.id_token);
    let text = text.ok_or_else(|| fault(format!("answers {status} without an access_token")))?;
    if !is_token(text.0.reveal()) {
        return Err(fault(
            "answers with an access_token that is none".to_owned(),
        ));
    }
    // Some providers write it as a text.
    let expires_in = body.expires_in.and_then(|value| match value {
        serde_json::Value::String(text) => text.parse().ok(),
        value => value.as_f64(),
    });
    Ok(AnswerToken {
        text: text.0,
        expires_in,
    })
}

fn refusal(status: StatusCode, body: &[u8]) -> EndpointRefusal {
    let body: FaultBody = serde_json::from_slice(body).unwrap_or_default();
    let error = body.error.as_deref().unwrap_or_default();
    let setting = match (error, status) {
        ("invalid_client" | "unauthorized_client" | "invalid_grant", _) => {
            FaultySetting::Credentials
        }
        ("invalid_scope", _) => FaultySetting::Scope,
        (_, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => FaultySetting::Credentials,
        _ => FaultySetting::Url,
    };
    let said = [error, body.error_description.as_deref().unwrap_or_default()];
    let said: Vec<&str> = said.into_iter().filter(|text| !text.is_empty()).collect();
    let said = said.join(": ");
    let shown = said.chars().map(|c| if c.is_control() { ' ' } else { c });
    let shown: String = shown.take(SAID_CHARS_MAX).collect();
    EndpointRefusal {
        said: match shown.is_empty() {
            true => format!("answers {status}"),
            false => format!("refuses ({status}): {shown}"),
        },
        setting,
    }
}

/// A text that is a secret from the first moment.
struct SecretText(Secret);

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Secret::new(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: u16, body: &str) -> Result<AnswerToken, (String, FaultySetting)> {
        let status = StatusCode::from_u16(status).expect("a status");
        read_answer(status, body.as_bytes()).map_err(|fault| (fault.said, fault.setting))
    }

    #[test]
    fn a_token_comes_with_the_seconds_that_it_is_good_for() {
        for (body, token, expires_in) in [
            (
                r#"{"access_token":"a.b.c","expires_in":60,"x":[]}"#,
                "a.b.c",
                Some(60.0),
            ),
            (r#"{"access_token":"a","expires_in":"60"}"#, "a", Some(60.0)),
            (r#"{"id_token":"b","expires_in":null}"#, "b", None),
        ] {
            let expected = AnswerToken {
                text: Secret::new(token),
                expires_in,
            };
            assert_eq!(read(200, body), Ok(expected), "{body}");
        }
    }

    #[test]
    fn what_is_wrong_with_an_answer_is_said_and_where_to_look() {
        use FaultySetting::{Credentials, Scope, Url};
        for (status, body, said, setting) in [
            (
                200,
                "<html>",
                "answers 200 OK with what is no JSON of one",
                Url,
            ),
            (200, "{}", "answers 200 OK without an access_token", Url),
            (
                200,
                r#"{"access_token":"a b"}"#,
                "answers with an access_token that is none",
                Url,
            ),
            (
                401,
                r#"{"error":"invalid_client","error_description":"Bad\ncredentials"}"#,
                "refuses (401 Unauthorized): invalid_client: Bad credentials",
                Credentials,
            ),
            (
                400,
                r#"{"error":"invalid_scope"}"#,
                "refuses (400 Bad Request): invalid_scope",
                Scope,
            ),
            (
                400,
                r#"{"errorCode":"E1","errorSummary":"No"}"#,
                "refuses (400 Bad Request): E1: No",
                Url,
            ),
            (401, "no", "answers 401 Unauthorized", Credentials),
            (404, "", "answers 404 Not Found", Url),
            (302, "", "answers 302 Found", Url),
        ] {
            assert_eq!(
                read(status, body),
                Err((said.to_owned(), setting)),
                "{body}"
            );
        }
        let long = format!(r#"{{"error":"{}"}}"#, "x".repeat(10_000));
        assert!(read(500, &long).expect_err("a fault").0.len() < 300);
    }
}
