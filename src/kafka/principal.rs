//! Who connections run as.
//!
//! Everything that is shared inside the client layer (connections, metadata, producers,
//! fetched records) is shared among equals only: see [`crate::principal_clients`].

use std::fmt;
use std::sync::Arc;

/// Who a connection is authenticated as.
///
/// Never prints more than a name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Principal {
    /// The proxy itself, with the credentials of its configuration (or none).
    #[default]
    Proxy,
    /// A user of the cluster, by name.
    User(Arc<str>),
}

impl Principal {
    /// The user's name; none of the proxy itself.
    pub fn user(&self) -> Option<&Arc<str>> {
        match self {
            Self::Proxy => None,
            Self::User(name) => Some(name),
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proxy => f.write_str("the proxy"),
            Self::User(name) => f.write_str(name),
        }
    }
}
