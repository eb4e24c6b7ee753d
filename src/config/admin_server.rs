//! `server.admin.*`: a server for operators, at a port of its own.

use std::net::IpAddr;

pub(super) const BIND_INTERFACE: &str = "server.admin.bind-interface";
pub(super) const PORT: &str = "server.admin.port";

/// `server.admin.*`
#[derive(Clone, Debug)]
pub struct AdminServerConfig {
    /// Whether there is one.
    pub enabled: bool,
    /// The address to listen on; unset: that of the server.
    pub bind_interface: Option<IpAddr>,
    /// The port to listen on; 0 takes a free one.
    pub port: u16,
}

impl Default for AdminServerConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            bind_interface: None,
            port: 9078,
        }
    }
}
