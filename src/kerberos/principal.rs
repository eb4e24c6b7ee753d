//! Names of Kerberos (RFC 1964, section 2.1.1): `primary/instance@REALM`.

use std::fmt;
use std::iter::once;

/// Who somebody is to a KDC.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct KerberosPrincipal {
    /// What stands before the realm, at its slashes.
    pub(crate) components: Vec<String>,
    pub(crate) realm: String,
}

impl KerberosPrincipal {
    /// Reads a name; without a realm it is one of `default_realm`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str, default_realm: Option<&str>) -> Result<Self, String> {
        let mut parts = vec![String::new()];
        let mut has_realm = false;
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            let part = parts.last_mut().expect("there is one from the start");
            match c {
                '\\' => part.extend(chars.next()),
                '@' if has_realm => return Err(format!("{text:?} has more than one realm")),
                '@' => {
                    has_realm = true;
                    parts.push(String::new());
                }
                '/' if !has_realm => parts.push(String::new()),
                c => part.push(c),
            }
        }
        let realm = match has_realm {
            true => parts.pop(),
            false => default_realm.map(str::to_owned),
        };
        let realm = realm.ok_or_else(|| {
            format!("{text:?} has no realm, as in user@REALM, and krb5.conf has no default_realm")
        })?;
        match realm.is_empty() || parts.iter().any(String::is_empty) {
            true => Err(format!("{text:?} is no name, as in user@REALM")),
            false => Ok(Self {
                components: parts,
                realm,
            }),
        }
    }

    /// A service on a host.
    pub(crate) fn of_service(service: &str, host: &str, realm: &str) -> Self {
        Self {
            components: vec![service.to_owned(), host.to_owned()],
            realm: realm.to_owned(),
        }
    }

    /// The service of `realm` that gives tickets for the services of `of`.
    pub(crate) fn of_ticket_granting(of: &str, realm: &str) -> Self {
        Self::of_service(TICKET_GRANTING, of, realm)
    }

    /// Whose services it gives tickets for, if it gives any.
    pub(crate) fn grants_tickets_of(&self) -> Option<&str> {
        match self.components.as_slice() {
            [service, realm] if service == TICKET_GRANTING => Some(realm),
            _ => None,
        }
    }
}

const TICKET_GRANTING: &str = "krbtgt";

impl fmt::Display for KerberosPrincipal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separators = once("").chain(std::iter::repeat("/"));
        for (separator, component) in separators.zip(&self.components) {
            write!(f, "{separator}")?;
            for c in component.chars() {
                match c {
                    '@' | '/' | '\\' => write!(f, "\\{c}")?,
                    // What a KDC says may be anything.
                    c if c.is_control() => write!(f, "{}", c.escape_default())?,
                    c => write!(f, "{c}")?,
                }
            }
        }
        write!(f, "@{}", self.realm.escape_debug())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_components_and_a_realm_of_its_own_or_the_default_one() {
        for (text, components, realm) in [
            ("alice@TEST", &["alice"][..], "TEST"),
            ("kafka/b-1.example@TEST", &["kafka", "b-1.example"], "TEST"),
            ("alice", &["alice"], "DEFAULT"),
            (r"a\@b\/c\\d@TEST", &[r"a@b/c\d"], "TEST"),
        ] {
            let name = KerberosPrincipal::parse(text, Some("DEFAULT")).expect(text);
            assert_eq!(name.components, components);
            assert_eq!(name.realm, realm);
            let whole = match text.contains('@') {
                true => text.to_owned(),
                false => format!("{text}@DEFAULT"),
            };
            assert_eq!(name.to_string(), whole);
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in ["", "@TEST", "alice@", "a//b@TEST", "a@b@c", "alice/@TEST"] {
            let fault = KerberosPrincipal::parse(text, Some("DEFAULT")).expect_err(text);
            assert!(fault.contains(text), "{fault}");
        }
        let fault = KerberosPrincipal::parse("alice", None).expect_err("no realm");
        assert!(fault.contains("default_realm"), "{fault}");
    }
}
