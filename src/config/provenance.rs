//! Where every value came from, for errors that show only when values meet each other or the
//! system.

use std::collections::BTreeMap;
use std::fmt;

use super::file::FilePlace;
use super::keys::{ClientSection, KEY_PREFIX};

/// Where a value came from, weakest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueSource {
    /// The config file, or one that it includes.
    File(FilePlace),
    /// An environment variable, by name.
    Variable(String),
    /// A flag, as it was written.
    Flag(String),
    /// A `-D` argument, by its key.
    Define(String),
}

impl ValueSource {
    /// Whether it is an argument of the program.
    pub(super) fn is_argument(&self) -> bool {
        matches!(self, ValueSource::Flag(_) | ValueSource::Define(_))
    }

    /// A value of a higher rank overrides one of a lower rank.
    pub(super) fn rank(&self) -> u8 {
        match self {
            ValueSource::File(_) => 0,
            ValueSource::Variable(_) => 1,
            ValueSource::Flag(_) | ValueSource::Define(_) => 2,
        }
    }
}

impl fmt::Display for ValueSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ValueSource::File(place) => write!(f, "{place}"),
            ValueSource::Variable(name) => write!(f, "variable {name}"),
            ValueSource::Flag(name) => f.write_str(name),
            ValueSource::Define(key) => write!(f, "-D {key}"),
        }
    }
}

/// A key and where its value came from, if from anywhere but its default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyProvenance {
    /// The key, without `kafka.ws.proxy.`.
    pub key: String,
    /// `None`: the default.
    pub from: Option<ValueSource>,
}

impl KeyProvenance {
    /// Whether its value comes from a stronger source.
    pub(super) fn outranks(&self, other: &ValueSource) -> bool {
        self.rank() > Some(other.rank())
    }

    fn rank(&self) -> Option<u8> {
        self.from.as_ref().map(ValueSource::rank)
    }
}

impl fmt::Display for KeyProvenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.from {
            Some(from) => write!(f, "{KEY_PREFIX}{} (from {from})", self.key),
            None => write!(f, "{KEY_PREFIX}{} (from its default)", self.key),
        }
    }
}

/// The source of every key that was given.
#[derive(Clone, Debug, Default)]
pub struct Provenance(BTreeMap<String, ValueSource>);

impl Provenance {
    pub(super) fn new(given: impl Iterator<Item = (String, ValueSource)>) -> Self {
        Self(given.collect())
    }

    /// Where the value of `key` came from.
    pub(super) fn of_key(&self, key: &str) -> KeyProvenance {
        KeyProvenance {
            key: key.to_owned(),
            from: self.0.get(key).cloned(),
        }
    }

    /// Where the value of a Kafka client property came from: its section, else the section of
    /// all clients, else the proxy's own key for the same thing, which comes first where its
    /// source is stronger.
    pub(super) fn of_property(
        &self,
        section: ClientSection,
        name: &str,
        own_key: Option<&str>,
    ) -> KeyProvenance {
        let shared = ClientSection::AllClients.key_of(name);
        let mut keys = vec![section.key_of(name), shared.clone()];
        keys.retain(|key| self.0.contains_key(key));
        let of_property = self.of_key(keys.first().unwrap_or(&shared));
        match own_key.map(|key| self.of_key(key)) {
            Some(own) if own.rank() > of_property.rank() => own,
            _ => of_property,
        }
    }
}
