//! How long a token is good, as it says itself (`exp`, RFC 7519) or as the endpoint says.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

/// Of a token of which nobody says it.
const ASSUMED: Duration = Duration::from_secs(300);

#[derive(Deserialize)]
struct Claims {
    exp: Option<f64>,
}

/// How long a token is good from `now` on; `expires_in` is what its endpoint says. The endpoint
/// gives no token that has expired: if it looks so, our clock is wrong.
pub(crate) fn of_answer(token: &str, expires_in: Option<f64>, now: SystemTime) -> Duration {
    let said = expires_in.and_then(seconds);
    let own = expiry(token).map(|at| at.duration_since(now).unwrap_or_default());
    let own = own.filter(|left| !left.is_zero());
    match (said, own) {
        (Some(said), Some(own)) => said.min(own),
        (said, own) => said.or(own).unwrap_or(ASSUMED),
    }
}

/// How long a token that lies around is good from `now` on; nothing, if it has expired.
pub(crate) fn of_stored(token: &str, now: SystemTime) -> Duration {
    match expiry(token) {
        Some(at) => at.duration_since(now).unwrap_or_default(),
        None => ASSUMED,
    }
}

/// When it expires, if it is a token that says so.
fn expiry(token: &str) -> Option<SystemTime> {
    let payload = token.split('.').nth(1)?;
    let payload = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    let claims: Claims = serde_json::from_slice(&payload).ok()?;
    UNIX_EPOCH.checked_add(seconds(claims.exp?)?)
}

fn seconds(number: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(number).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(claims: &str) -> String {
        format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn the_earlier_end_holds_and_a_clock_that_is_wrong_is_not_believed() {
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        let of = |claims: &str, expires_in| of_answer(&token(claims), expires_in, now).as_secs();
        assert_eq!(of(r#"{"exp":1060}"#, None), 60);
        assert_eq!(of(r#"{"exp":1060.5,"sub":"a"}"#, Some(30.0)), 30);
        assert_eq!(of(r#"{"exp":1060}"#, Some(90.0)), 60);
        assert_eq!(of(r#"{"exp":900}"#, Some(90.0)), 90);
        assert_eq!(of("{}", None), 300);
        assert_eq!(of(r#"{"exp":"x"}"#, Some(-1.0)), 300);
        assert_eq!(of(r#"{"exp":1e300}"#, Some(f64::NAN)), 300);
        assert_eq!(of_answer("opaque", Some(7.0), now).as_secs(), 7);
    }

    #[test]
    fn a_stored_token_may_have_expired() {
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        assert_eq!(of_stored(&token(r#"{"exp":1060}"#), now).as_secs(), 60);
        assert_eq!(of_stored(&token(r#"{"exp":900}"#), now), Duration::ZERO);
        assert_eq!(of_stored("opaque", now).as_secs(), 300);
    }
}
