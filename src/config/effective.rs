//! The values that hold, each with its source, as `check-config` prints them.

use std::fmt;

use super::given::GivenValues;
use super::keys::{self, CLIENT_PROPERTIES, ClientSection, ConfigKey, KEY_PREFIX, PROXY_KEYS};
use super::provenance::ValueSource;

/// A key and the value that holds for it. `Display` is a line of HOCON.
#[derive(Clone, Debug)]
pub struct EffectiveValue {
    key: String,
    /// The value in HOCON, or `***`.
    shown: String,
    /// `None`: the default.
    from: Option<ValueSource>,
}

impl fmt::Display for EffectiveValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, shown, from } = self;
        match from {
            Some(from) => write!(f, "{KEY_PREFIX}{key} = {shown} # {from}"),
            None => write!(f, "{KEY_PREFIX}{key} = {shown} # default"),
        }
    }
}

/// Every key that has a value: those of the proxy in the order of the table, then the properties
/// of the Kafka clients, then what else was given.
pub(super) fn values(given: &GivenValues, dev: bool) -> Vec<EffectiveValue> {
    let of_row = |row: &ConfigKey, key: String, default: Option<&str>| {
        let Some(value) = given.values.get(&key) else {
            return Some(EffectiveValue {
                key,
                shown: in_hocon(default?),
                from: None,
            });
        };
        let hidden = row.secret || value.is_from_file || value.text.reveal().contains('@');
        Some(EffectiveValue {
            key,
            shown: match hidden {
                true => "\"***\"".to_owned(),
                false => in_hocon(value.text.reveal()),
            },
            from: Some(value.source.clone()),
        })
    };
    let settings = PROXY_KEYS.iter().filter_map(|row| {
        let default = match dev {
            true => row.dev_default.or(row.setting()?.default),
            false => row.setting()?.default,
        };
        of_row(row, row.name.to_owned(), default)
    });
    let common = CLIENT_PROPERTIES.iter().filter_map(|row| {
        let default = row.property()?.1;
        of_row(
            row,
            ClientSection::AllClients.key_of(row.name),
            Some(default),
        )
    });
    let mut values: Vec<_> = settings.chain(common).collect();
    let others = given
        .values
        .keys()
        .filter(|key| values.iter().all(|value| value.key != **key));
    let others: Vec<_> = others
        .filter_map(|key| of_row(keys::find(key)?, key.clone(), None))
        .collect();
    values.extend(others);
    values
}

/// A value as a HOCON file has it: in quotes where it needs them.
pub(super) fn in_hocon(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == ' ';
    let is_bare = text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(is_plain)
        && !text.ends_with(' ');
    match is_bare {
        true => text.to_owned(),
        false => format!("{text:?}"),
    }
}
