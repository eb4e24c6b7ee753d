//! A text that never prints: passwords, tokens, JAAS lines.
//!
//! # Invariants
//! - `Debug` and `Display` show `***`, whatever holds the secret.
//! - The text leaves only through [`Secret::reveal`], so its readers can be found by name.
//! - Its memory is wiped when it is dropped, and comparing two takes as long wherever they differ.

use std::fmt;
use std::hash::{Hash, Hasher};

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A text that shows as `***`.
#[derive(Clone, Default)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes `text` out of sight.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself, for the one place that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

/// In constant time, but for their lengths.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Eq for Secret {}

/// For maps whose hasher is keyed, as that of the standard library is.
impl Hash for Secret {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_prints_as_stars_and_reveals_on_demand() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?}"), "*** ***");
        assert_eq!(secret.reveal(), "hunter2");
    }

    #[test]
    fn secrets_are_equal_when_their_texts_are() {
        assert_eq!(Secret::new("hunter2"), Secret::new("hunter2"));
        assert_ne!(Secret::new("hunter2"), Secret::new("hunter3"));
        assert_ne!(Secret::new("hunter2"), Secret::new("hunter"));
    }
}
