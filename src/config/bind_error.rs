//! An address that the system does not let us listen on.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use super::provenance::{KeyProvenance, Provenance};

/// Not a [`ConfigError`](super::ConfigError): the same settings may do when the program is
/// started again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: cannot listen on {address}: {reason}; choose another with {flag}")]
pub struct BindError {
    /// The key that would have to change, with its source.
    key: KeyProvenance,
    address: SocketAddr,
    /// What the system said.
    reason: String,
    /// How to change the key.
    flag: &'static str,
}

impl BindError {
    /// As [`BindError::new`], for the built-in broker.
    pub fn of_dev_broker(provenance: &Provenance, port: u16, error: &io::Error) -> Self {
        Self {
            key: provenance.of_key("dev.broker-port"),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            reason: error.to_string(),
            flag: "--dev-broker-port (0 takes a free one)",
        }
    }

    /// The error of a failed `bind`, with the key that it is about.
    pub fn new(provenance: &Provenance, address: SocketAddr, error: &io::Error) -> Self {
        let interface = ("server.bind-interface", "--bind-interface");
        let port = ("server.port", "--port (0 takes a free one)");
        Self::of_one(provenance, address, error, interface, port)
    }

    /// As [`BindError::new`], for the port that speaks TLS.
    pub fn of_tls(provenance: &Provenance, address: SocketAddr, error: &io::Error) -> Self {
        let interface = ("server.ssl.bind-interface", "--ssl-bind-interface");
        let port = ("server.ssl.port", "--ssl-port (0 takes a free one)");
        Self::of_one(provenance, address, error, interface, port)
    }

    /// As [`BindError::new`], for the port of the admin server.
    pub fn of_admin(provenance: &Provenance, address: SocketAddr, error: &io::Error) -> Self {
        let interface = ("server.admin.bind-interface", "--admin-bind-interface");
        let port = ("server.admin.port", "--admin-port (0 takes a free one)");
        Self::of_one(provenance, address, error, interface, port)
    }

    fn of_one(
        provenance: &Provenance,
        address: SocketAddr,
        error: &io::Error,
        interface: (&str, &'static str),
        port: (&str, &'static str),
    ) -> Self {
        let (key, flag) = match error.kind() {
            io::ErrorKind::AddrNotAvailable => interface,
            _ => port,
        };
        Self {
            key: provenance.of_key(key),
            address,
            reason: error.to_string(),
            flag,
        }
    }
}
