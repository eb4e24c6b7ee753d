//! A text, or bytes, that never print: passwords, tokens, JAAS lines, keys.
//!
//! # Invariants
//! - `Debug` and `Display` show `***`, whatever holds the secret.
//! - It leaves only through `reveal`, so its readers can be found by name.
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

/// Bytes that show as `***`.
#[derive(Clone, Default)]
pub struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    /// Takes `bytes` out of sight.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Zeroizing::new(bytes.into()))
    }

    /// The bytes themselves, for the one place that needs them.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl From<Secret> for SecretBytes {
    fn from(mut text: Secret) -> Self {
        Self::new(std::mem::take(&mut *text.0))
    }
}

/// In constant time, but for their lengths.
impl PartialEq for SecretBytes {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for SecretBytes {}

impl fmt::Debug for SecretBytes {
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

    #[test]
    fn secret_bytes_print_as_stars_and_are_those_of_the_text() {
        let bytes = SecretBytes::from(Secret::new("hunter2"));
        assert_eq!(format!("{bytes:?}"), "***");
        assert_eq!(bytes.reveal(), b"hunter2");
        assert_eq!(bytes, SecretBytes::new(*b"hunter2"));
        assert_ne!(bytes, SecretBytes::new(*b"hunter3"));
    }
}
