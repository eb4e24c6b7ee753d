//! What single clients may do: `producer.limits.*` and `consumer.limits.*`.

use std::collections::{BTreeMap, HashMap};

use hocon::HoconValue;
use hocon::parser;
use hocon::resolver::{self, InternalResolveOptions};

use super::value::ParsedValue;

/// As the parameter `batchSize` has it.
pub(crate) const BATCH_SIZE_MAX: u32 = 1_000_000;

/// The limits of all clients of one direction. 0 sets no limit.
#[derive(Clone, Debug, Default)]
pub struct ClientLimitsConfig {
    /// `default-messages-per-second`
    pub default_messages_per_second: u32,
    /// `default-max-connections-per-client`
    pub default_max_connections: u32,
    /// `default-batch-size`
    pub default_batch_size: u32,
    /// `client-specific-limits`, by client id or group id.
    pub specific: BTreeMap<String, ClientLimit>,
}

/// What an entry has; `None` where it says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientLimit {
    /// Records per second.
    pub messages_per_second: Option<u32>,
    /// Sockets, over all nodes.
    pub max_connections: Option<u32>,
    /// Records of an array.
    pub batch_size: Option<u32>,
}

/// Which clients limits are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum LimitedClients {
    /// Those of `/socket/in`, by client id.
    Producers,
    /// Those of `/socket/out`, by group id.
    Groups,
}

impl LimitedClients {
    /// What the field is called that has the id.
    pub(crate) fn id(self) -> &'static str {
        match self {
            Self::Producers => "producer-id",
            Self::Groups => "group-id",
        }
    }

    fn allowed(self) -> String {
        match self {
            Self::Producers => {
                "a list of { producer-id = …, messages-per-second = 0 to 4294967295, \
                 max-connections = 0 to 4294967295 }"
                    .to_owned()
            }
            Self::Groups => "a list of { group-id = …, messages-per-second = 0 to 4294967295, \
                             max-connections = 0 to 4294967295, batch-size = 0 to 1000000 }"
                .to_owned(),
        }
    }

    /// The entries of a list, as HOCON or JSON has it.
    pub(super) fn parse(self, text: &str) -> ParsedValue<BTreeMap<String, ClientLimit>> {
        let items = match text.trim() {
            "" => Vec::new(),
            text => list(text).ok_or_else(|| self.allowed())?,
        };
        let mut entries = BTreeMap::new();
        for item in items {
            let (id, limit) = self.entry(&item)?;
            if entries.insert(id.clone(), limit).is_some() {
                let name = self.id();
                return Err(format!("each {name} once; {id:?} is there twice"));
            }
        }
        Ok(entries)
    }

    fn entry(self, item: &HoconValue) -> ParsedValue<(String, ClientLimit)> {
        let fields = item.as_object().ok_or_else(|| self.allowed())?;
        let (mut id, mut limit) = (None, ClientLimit::default());
        for (name, value) in fields {
            match (name.as_str(), self) {
                (name, _) if name == self.id() => id = text(value),
                ("messages-per-second", _) => {
                    limit.messages_per_second = Some(count(value, name, u32::MAX)?);
                }
                ("batch-size", Self::Groups) => {
                    limit.batch_size = Some(count(value, name, BATCH_SIZE_MAX)?);
                }
                ("max-connections", _) => {
                    limit.max_connections = Some(count(value, name, u32::MAX)?);
                }
                (unknown, _) => {
                    return Err(format!("{}; {unknown:?} is none of these", self.allowed()));
                }
            }
        }
        match id.filter(|id| !id.is_empty()) {
            Some(id) => Ok((id, limit)),
            None => Err(format!("a {} in each entry", self.id())),
        }
    }
}

/// The items of a list in HOCON, or in JSON, which is HOCON.
fn list(text: &str) -> Option<Vec<HoconValue>> {
    let tokens = hocon::tokenize(&format!("list = {text}\n")).ok()?;
    let tree = parser::parse_tokens(&tokens).ok()?;
    let resolved = resolver::resolve(tree, &InternalResolveOptions::new(HashMap::new())).ok()?;
    match resolved.as_object()?.get("list")? {
        HoconValue::Array(items) => Some(items.clone()),
        _ => None,
    }
}

fn text(value: &HoconValue) -> Option<String> {
    match value {
        HoconValue::Scalar(scalar) if !value.is_null() => Some(scalar.raw.clone()),
        _ => None,
    }
}

fn count(value: &HoconValue, name: &str, max: u32) -> ParsedValue<u32> {
    let count = text(value).and_then(|text| text.parse().ok());
    let count = count.filter(|count| *count <= max);
    count.ok_or_else(|| format!("{name} = 0 to {max}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(messages_per_second: Option<u32>, batch_size: Option<u32>) -> ClientLimit {
        ClientLimit {
            messages_per_second,
            batch_size,
            ..ClientLimit::default()
        }
    }

    #[test]
    fn entries_are_a_list_in_hocon_or_in_json() {
        let connections = ClientLimit {
            max_connections: Some(2),
            ..ClientLimit::default()
        };
        let expected: BTreeMap<_, _> = [
            ("a,{b".to_owned(), limit(Some(5), None)),
            ("7".to_owned(), limit(None, Some(100))),
            ("c".to_owned(), connections),
        ]
        .into();
        for text in [
            r#"[{group-id = "a,{b", messages-per-second = 5}, {group-id = 7, batch-size = 100},
                {group-id = c, max-connections = 2}]"#,
            r#"[{"group-id":"a,{b","messages-per-second":5},{"group-id":"7","batch-size":"100"},
                {"group-id":"c","max-connections":2}]"#,
        ] {
            let entries = LimitedClients::Groups.parse(text).unwrap();
            assert_eq!(entries, expected, "{text}");
        }
        for text in ["", "[]", " [ ] "] {
            assert_eq!(LimitedClients::Producers.parse(text), Ok(BTreeMap::new()));
        }
    }

    #[test]
    fn what_is_no_entry_is_refused_by_what_is_wrong() {
        for (text, fault) in [
            ("5", "a list of { producer-id"),
            ("[5]", "a list of { producer-id"),
            ("[{messages-per-second = 5}]", "a producer-id in each entry"),
            (
                "[{producer-id = a, messages-per-second = -1}]",
                "messages-per-second = 0 to",
            ),
            (
                "[{producer-id = a, batch-size = 1}]",
                "\"batch-size\" is none of these",
            ),
            ("[{group-id = a}]", "\"group-id\" is none of these"),
            (
                "[{producer-id = a}, {producer-id = a}]",
                "\"a\" is there twice",
            ),
            (
                "[{producer-id = a, max-connections = many}]",
                "max-connections = 0 to",
            ),
        ] {
            let error = LimitedClients::Producers.parse(text).unwrap_err();
            assert!(error.contains(fault), "{text}: {error}");
        }
    }
}
