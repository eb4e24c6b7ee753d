//! Who connections run as.
//!
//! Everything that is shared inside the client layer (connections, metadata, producers,
//! fetched records) is shared among equals only: it is keyed by the cluster and by this.

use std::fmt;

/// Who a connection is authenticated as.
///
/// Never prints more than a name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Principal {
    /// The proxy itself, with the credentials of its configuration (or none).
    #[default]
    Proxy,
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proxy => f.write_str("the proxy"),
        }
    }
}
