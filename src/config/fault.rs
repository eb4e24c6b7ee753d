//! What is wrong with the settings, one line each, and where each setting came from.

use std::fmt;
use std::net::SocketAddr;

/// What every key begins with; it may be left out.
pub(super) const ROOT: &str = "kafka.ws.proxy.";

/// One thing that is wrong with the settings, in one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A value that its key does not accept.
    #[error("{ROOT}{key} (from {from}): {shown} is not accepted; accepted: {accepted}")]
    Value {
        /// The key.
        key: String,
        /// Who said so.
        from: Source,
        /// The value in quotes, or `***`.
        shown: String,
        /// What would be accepted.
        accepted: String,
    },
    /// A key nobody knows.
    #[error("{ROOT}{key} (from {from}): no such key{hint}")]
    UnknownKey {
        /// The key.
        key: String,
        /// Who said so.
        from: Source,
        /// `; did you mean …?`
        hint: String,
    },
    /// A key of a later version.
    #[error("{ROOT}{key} (from {from}): not supported yet; remove it")]
    NotYet {
        /// The key.
        key: String,
        /// Who said so.
        from: Source,
    },
    /// A flag or command of a later version that sets no key.
    #[error("{0}: not supported yet; remove it")]
    NotYetAsked(String),
    /// An argument or variable that no text can be read from.
    #[error("{0} is not UTF-8 text")]
    NotText(String),
    /// Arguments that make no sense.
    #[error("{0}; see --help")]
    Misuse(String),
    /// A `-D` argument without `=`.
    #[error("-D {0}: accepted: -D key=value")]
    Define(String),
    /// Neither a broker of our own nor brokers to talk to.
    #[error(
        "no brokers: give --bootstrap-hosts HOST:PORT,… for a cluster, or --dev for a built-in broker"
    )]
    NoBrokers,
    /// Both.
    #[error(
        "{ROOT}kafka-client.bootstrap-hosts (from {0}): --dev brings its own broker; give one of the two"
    )]
    TwoBrokers(Source),
    /// Values that cannot all be.
    #[error("{0}")]
    Conflict(String),
    /// An address that the system does not give.
    #[error("{key}: cannot listen on {address}: {reason}; choose another with {flag}")]
    Listen {
        /// The key that would have to change, with its source.
        key: Told,
        /// Where we wanted to listen.
        address: SocketAddr,
        /// What the system said.
        reason: String,
        /// How to change it.
        flag: &'static str,
    },
}

/// A key and where its value came from, if from anywhere but its default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The key, without `kafka.ws.proxy.`.
    pub key: String,
    /// Who said so.
    pub from: Option<Source>,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.from {
            Some(from) => write!(f, "{ROOT}{} (from {from})", self.key),
            None => write!(f, "{ROOT}{} (from its default)", self.key),
        }
    }
}

/// Where a value came from, weakest first.
///
/// The config file has its place between the default and the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// An environment variable, by name.
    Variable(String),
    /// A flag, as it was written.
    Flag(String),
}

impl Source {
    pub(super) fn rank(&self) -> u8 {
        match self {
            Source::Variable(_) => 1,
            Source::Flag(_) => 2,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Variable(name) => write!(f, "variable {name}"),
            Source::Flag(name) => f.write_str(name),
        }
    }
}
