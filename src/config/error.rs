//! What is wrong with the settings, one line each.

use super::keys::KEY_PREFIX;
use super::provenance::ValueSource;

/// One thing that is wrong with the settings, in one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A value that its key does not accept.
    #[error("{KEY_PREFIX}{key} (from {from}): {shown} is not accepted; accepted: {accepted}")]
    InvalidValue {
        /// The key.
        key: String,
        /// Where the value came from.
        from: ValueSource,
        /// The value in quotes, or `***`.
        shown: String,
        /// What would be accepted.
        accepted: String,
    },
    /// A value that names a file which does not give it.
    #[error("{KEY_PREFIX}{key} (from {from}): {fault}")]
    NoValueInFile {
        /// The key.
        key: String,
        /// Where the value came from.
        from: ValueSource,
        /// Which file, and what is wrong with it.
        fault: String,
    },
    /// A key that is in no table.
    #[error("{KEY_PREFIX}{key} (from {from}): no such key{hint}")]
    UnknownKey {
        /// The key.
        key: String,
        /// Where it came from.
        from: ValueSource,
        /// `; did you mean …?`
        hint: String,
    },
    /// A key of the file that begins as those of the proxy do, and is none.
    #[error("{key} (from {from}): no such key; those of the proxy begin with {KEY_PREFIX}")]
    OutsidePrefix {
        /// The whole key.
        key: String,
        /// Where it came from.
        from: ValueSource,
    },
    /// A config file that cannot be read, does not parse or does not resolve, with its place.
    #[error("{0}")]
    File(String),
    /// A key that a later version will have.
    #[error("{KEY_PREFIX}{key} (from {from}): not supported yet; remove it")]
    UnsupportedKey {
        /// The key.
        key: String,
        /// Where it came from.
        from: ValueSource,
    },
    /// An argument or variable that is not UTF-8.
    #[error("{0} is not UTF-8 text")]
    NotUtf8(String),
    /// Arguments that the command line does not have.
    #[error("{0}; see --help")]
    Usage(String),
    /// A `-D` argument without a key or without `=`. Of the argument only a known key is shown: the
    /// rest may be a secret.
    #[error("-D {0}: accepted: -D key=value")]
    MalformedDefine(String),
    /// Neither `--dev` nor the brokers of a cluster.
    #[error(
        "no brokers: give --bootstrap-hosts HOST:PORT,… for a cluster, or --dev for a built-in broker"
    )]
    NoBrokers,
    /// Both `--dev` and the brokers of a cluster.
    #[error(
        "{KEY_PREFIX}kafka-client.bootstrap-hosts (from {0}): --dev brings its own broker; give one of the two"
    )]
    BrokersBesideDev(ValueSource),
    /// Values that contradict each other.
    #[error("{0}")]
    Conflict(String),
}
