//! `server.basic-auth.*`: user and password that clients of the proxy must have (RFC 7617).

use secret::Secret;

const REALM: &str = "server.basic-auth.realm";
const USERNAME: &str = "server.basic-auth.username";
const PASSWORD: &str = "server.basic-auth.password";

/// `server.basic-auth.*`
#[derive(Clone, Debug, Default)]
pub struct BasicAuthConfig {
    /// Whether clients are asked for user and password.
    pub enabled: Option<bool>,
    /// What clients are told that they are for.
    pub realm: Option<String>,
    /// The user.
    pub username: Option<Secret>,
    /// The password.
    pub password: Option<Secret>,
}

impl BasicAuthConfig {
    /// Whether clients are asked for user and password.
    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled == Some(true)
    }

    /// The keys of which something is said.
    fn given(&self) -> impl Iterator<Item = &'static str> {
        let given = [
            (REALM, self.realm.is_some()),
            (USERNAME, self.username.is_some()),
            (PASSWORD, self.password.is_some()),
        ];
        given.into_iter().filter(|(_, is)| *is).map(|(key, _)| key)
    }

    /// The keys that have no effect, since it is said to be off.
    pub(super) fn ignored(&self) -> Vec<&'static str> {
        match self.enabled {
            Some(false) => self.given().collect(),
            _ => Vec::new(),
        }
    }

    /// The key that keeps it from working, and why. Whoever gives a password means to be protected
    /// by it.
    pub(super) fn fault(&self) -> Option<(&'static str, &'static str)> {
        match self.enabled {
            Some(true) => {}
            Some(false) => return None,
            None => {
                let without = "server.basic-auth.enabled is not set, so it would have no effect";
                return self.given().last().map(|key| (key, without));
            }
        }
        let credentials = [(USERNAME, &self.username), (PASSWORD, &self.password)];
        credentials.into_iter().find_map(|(key, secret)| {
            let text = secret.as_ref().map_or("", Secret::reveal);
            let fault = if text.is_empty() {
                "server.basic-auth.enabled needs it"
            } else if text.contains(char::is_control) {
                "it has a control character, which no client may send (RFC 7617)"
            } else if key == USERNAME && text.contains(':') {
                "a user with a colon cannot be told from the password (RFC 7617)"
            } else {
                return None;
            };
            Some((key, fault))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault_of(enabled: Option<bool>, username: &str, password: &str) -> Option<&'static str> {
        let config = BasicAuthConfig {
            enabled,
            username: Some(Secret::new(username)),
            password: Some(Secret::new(password)),
            realm: None,
        };
        config.fault().map(|(key, _)| key)
    }

    #[test]
    fn it_needs_a_user_and_a_password_that_clients_can_send() {
        assert_eq!(fault_of(Some(true), "alice", "pa:ss wörd"), None);
        for username in ["", "a:b", "a\0"] {
            assert_eq!(fault_of(Some(true), username, "secret"), Some(USERNAME));
        }
        for password in ["", "a\nb"] {
            assert_eq!(fault_of(Some(true), "alice", password), Some(PASSWORD));
        }
    }

    #[test]
    fn a_password_without_effect_is_a_fault_unless_it_is_said_to_have_none() {
        assert_eq!(fault_of(None, "alice", "secret"), Some(PASSWORD));
        assert_eq!(fault_of(Some(false), "alice", ""), None);
        assert_eq!(BasicAuthConfig::default().fault(), None);
    }
}
