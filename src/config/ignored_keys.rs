//! Keys without effect: one line for each reason, however many sources give them.

use std::collections::BTreeMap;

use super::keys::KEY_PREFIX;
use super::provenance::ValueSource;

/// The keys that are ignored, with their sources, by what they have in common.
#[derive(Default)]
pub(super) struct IgnoredKeys(BTreeMap<(String, String), Vec<String>>);

impl IgnoredKeys {
    /// Adds a key; those of one `group` with the same reason share a line.
    pub(super) fn add(&mut self, group: &str, reason: &str, key: &str, from: &ValueSource) {
        let entry = self.0.entry((group.to_owned(), reason.to_owned()));
        let key = format!("{KEY_PREFIX}{key} (from {from})");
        entry.or_default().push(key);
    }

    /// A line for each group and reason.
    pub(super) fn into_notices(self) -> impl Iterator<Item = String> {
        self.0.into_iter().map(|((_, reason), keys)| {
            let verb = if keys.len() == 1 { "is" } else { "are" };
            format!("{} {verb} ignored: {reason}", keys.join(", "))
        })
    }
}
