//! PLAIN (RFC 4616).

use secret::Secret;

use super::credentials::Credentials;

/// The whole of what the client says. Java's client leaves the authorization identity empty, too.
pub(super) fn initial_response(credentials: &Credentials) -> Secret {
    let Credentials { username, password } = credentials;
    Secret::new(format!("\0{username}\0{}", password.reveal()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_a_password_stand_behind_an_empty_identity() {
        let credentials = Credentials {
            username: "alice".to_owned(),
            password: Secret::new("pa,ss=wörd"),
        };
        assert_eq!(
            initial_response(&credentials).reveal(),
            "\0alice\0pa,ss=wörd"
        );
    }
}
