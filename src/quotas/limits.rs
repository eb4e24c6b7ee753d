//! Which limits a client has: those of the most specific entry, and where that says nothing, the
//! defaults.

use std::collections::HashMap;

use crate::config::{ClientLimit, ClientLimitsConfig};

/// The limits of the clients of one direction.
#[derive(Debug)]
pub(super) struct LayeredLimits {
    /// The defaults, and the entries of the settings.
    fixed: ClientLimitsConfig,
    /// The entries that come before those of the settings, by client id or group id.
    dynamic: HashMap<Box<str>, ClientLimit>,
}

impl LayeredLimits {
    pub(super) fn new(fixed: ClientLimitsConfig) -> Self {
        Self {
            fixed,
            dynamic: HashMap::new(),
        }
    }

    /// Of a client with that id, or of one without; 0 sets no limit, here and below.
    pub(super) fn messages_per_second(&self, id: Option<&str>) -> u32 {
        let specific = self.entry(id).messages_per_second;
        specific.unwrap_or(self.fixed.default_messages_per_second)
    }

    /// Of a client with that id, or of one without.
    pub(super) fn max_connections(&self, id: Option<&str>) -> u32 {
        let specific = self.entry(id).max_connections;
        specific.unwrap_or(self.fixed.default_max_connections)
    }

    /// Of a group.
    pub(super) fn batch_size(&self, id: &str) -> u32 {
        let specific = self.entry(Some(id)).batch_size;
        specific.unwrap_or(self.fixed.default_batch_size)
    }

    /// From now on a client has that dynamic entry, or none.
    pub(super) fn set_dynamic(&mut self, id: &str, entry: Option<ClientLimit>) {
        match entry {
            Some(entry) => self.dynamic.insert(id.into(), entry),
            None => self.dynamic.remove(id),
        };
    }

    fn entry(&self, id: Option<&str>) -> ClientLimit {
        let entry = id.and_then(|id| self.dynamic.get(id).or_else(|| self.fixed.specific.get(id)));
        entry.copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_entry_counts_and_what_it_lacks_is_the_default() {
        let limit = |messages_per_second, batch_size| ClientLimit {
            messages_per_second,
            max_connections: None,
            batch_size,
        };
        let specific = [("a".to_owned(), limit(Some(10), Some(20)))];
        let mut limits = LayeredLimits::new(ClientLimitsConfig {
            default_messages_per_second: 1,
            default_max_connections: 2,
            default_batch_size: 3,
            specific: specific.into(),
        });
        let of = |limits: &LayeredLimits, id| {
            let records = limits.messages_per_second(Some(id));
            let connections = limits.max_connections(Some(id));
            (records, connections, limits.batch_size(id))
        };
        assert_eq!(of(&limits, "a"), (10, 2, 20));
        assert_eq!(of(&limits, "b"), (1, 2, 3));
        assert_eq!(limits.messages_per_second(None), 1);
        limits.set_dynamic("a", Some(limit(None, Some(0))));
        limits.set_dynamic("b", Some(limit(Some(7), None)));
        assert_eq!(
            of(&limits, "a"),
            (1, 2, 0),
            "the entry of the settings is not asked"
        );
        assert_eq!(of(&limits, "b"), (7, 2, 3));
        limits.set_dynamic("a", None);
        assert_eq!(of(&limits, "a"), (10, 2, 20));
    }
}
