//! Keytab files in MIT's format, `0x0502`:
//!
//! ```text
//! 05 02 │ size, entry │ size, entry │ …                        below zero: so much is unused
//!         entry: count │ realm │ components │ name type │ time │ version │ key │ version again
//! ```
//!
//! Numbers are big-endian; texts and keys have their lengths, of two bytes, before them.

use secret::SecretBytes;

use crate::crypto::{EncryptionType, KerberosKey};
use crate::principal::KerberosPrincipal;

/// What a keytab holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keytab {
    entries: Vec<KeytabEntry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct KeytabEntry {
    principal: KerberosPrincipal,
    /// `kvno`
    version: u32,
    /// The number of the type, which may be one that we lack.
    kind: i32,
    key: SecretBytes,
}

/// Of the names in a keytab, so many are told.
const NAMES_MAX: usize = 5;

impl Keytab {
    /// Reads a file's content.
    ///
    /// # Errors
    /// What is wrong with it, in words that follow the file's name.
    pub(crate) fn parse(content: &[u8]) -> Result<Self, String> {
        let mut fields = match content {
            [5, 2, rest @ ..] => KeytabFields(rest),
            [5, 1, ..] => {
                return Err("is a keytab of the old format 0x0501; write it anew".to_owned());
            }
            _ => return Err("is no keytab".to_owned()),
        };
        let mut entries = Vec::new();
        while !fields.0.is_empty() {
            let entry = fields.next_entry();
            entries.extend(entry.ok_or_else(|| "is a damaged keytab".to_owned())?);
        }
        Ok(Self { entries })
    }

    /// The newest keys of that principal, the preferred one first.
    ///
    /// # Errors
    /// That there is none, in words that follow the file's name.
    pub(crate) fn keys_of(
        &self,
        principal: &KerberosPrincipal,
    ) -> Result<Vec<KerberosKey>, String> {
        let own = || self.entries.iter().filter(|e| e.principal == *principal);
        let Some(newest) = own().map(|entry| entry.version).max() else {
            return Err(format!(
                "has no key of {principal}, but of {}",
                self.names()
            ));
        };
        let newest = || own().filter(|entry| entry.version == newest);
        let of_kind = |kind: EncryptionType| {
            let entry = newest().find(|entry| entry.kind == kind.number())?;
            KerberosKey::new(kind, entry.key.clone())
        };
        let keys: Vec<_> = EncryptionType::ALL
            .into_iter()
            .filter_map(of_kind)
            .collect();
        if keys.is_empty() {
            let kinds: Vec<_> = newest().map(|entry| entry.kind.to_string()).collect();
            return Err(format!(
                "has keys of {principal} only of the encryption types {}, which are not supported; \
                 those of AES are (17 to 20)",
                kinds.join(", ")
            ));
        }
        Ok(keys)
    }

    /// Whose keys it has.
    fn names(&self) -> String {
        let mut names: Vec<_> = self
            .entries
            .iter()
            .map(|e| e.principal.to_string())
            .collect();
        names.sort();
        names.dedup();
        if names.is_empty() {
            return "nobody".to_owned();
        }
        if names.len() > NAMES_MAX {
            names.truncate(NAMES_MAX);
            names.push("…".to_owned());
        }
        names.join(", ")
    }
}

/// What is left to read.
struct KeytabFields<'a>(&'a [u8]);

impl<'a> KeytabFields<'a> {
    /// One entry, or what is unused; `None` if it is damaged.
    fn next_entry(&mut self) -> Option<Option<KeytabEntry>> {
        let size = i32::from_be_bytes(self.array()?);
        let bytes = self.take(usize::try_from(size.unsigned_abs()).ok()?)?;
        match size {
            // Nothing follows the last entry.
            0 => {
                self.0 = &[];
                Some(None)
            }
            ..0 => Some(None),
            _ => Some(Some(KeytabFields(bytes).entry()?)),
        }
    }

    fn entry(mut self) -> Option<KeytabEntry> {
        let count = u16::from_be_bytes(self.array()?);
        let realm = self.text()?;
        let components = (0..count).map(|_| self.text()).collect::<Option<_>>()?;
        let (_name_type, _time) = (self.array::<4>()?, self.array::<4>()?);
        let [short_version] = self.array()?;
        let kind = i16::from_be_bytes(self.array()?);
        let key = SecretBytes::new(self.sized()?);
        // Of eight bits once; what is nothing is padding.
        let version = self.array().map(u32::from_be_bytes);
        let version = version.filter(|version| *version != 0);
        Some(KeytabEntry {
            principal: KerberosPrincipal { components, realm },
            version: version.unwrap_or_else(|| short_version.into()),
            kind: kind.into(),
            key,
        })
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn sized(&mut self) -> Option<&'a [u8]> {
        let len = u16::from_be_bytes(self.array()?);
        self.take(len.into())
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.sized()?.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests;
