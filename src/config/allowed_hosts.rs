//! The hosts that a request may be for, by its `Host`.

use std::net::{IpAddr, Ipv6Addr};

use super::value;

/// A set of hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum AllowedHosts {
    /// Every host: this server may have names that it does not know.
    #[default]
    Any,
    /// The names and addresses of the loopback interface.
    Loopback,
}

impl AllowedHosts {
    /// Whether a request with that `Host` (or authority, `host[:port]`) is served.
    pub(crate) fn contains(self, authority: &str) -> bool {
        match self {
            AllowedHosts::Any => true,
            AllowedHosts::Loopback => is_loopback(value::split_port(authority).0),
        }
    }
}

/// Whether that is a loopback address (one of IPv6 in brackets), or a name that is never anything
/// else (RFC 6761, section 6.3).
pub(super) fn is_loopback(host: &str) -> bool {
    let address = match value::in_brackets(host) {
        Some(address) => address.parse::<Ipv6Addr>().map(IpAddr::V6),
        None => host.parse::<IpAddr>(),
    };
    if let Ok(address) = address {
        return address.to_canonical().is_loopback();
    }
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_hosts_are_the_names_and_addresses_of_this_host_with_any_port() {
        for host in [
            "localhost",
            "LOCALHOST:8078",
            "localhost.:80",
            "app.localhost:3000",
            "127.0.0.1",
            "127.0.0.1:8078",
            "127.1.2.3:1",
            "[::1]",
            "[::1]:8078",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert!(AllowedHosts::Loopback.contains(host), "{host}");
            assert!(AllowedHosts::Any.contains(host), "{host}");
        }
        for host in [
            "",
            ":8078",
            "evil.example",
            "evil.example:8078",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "notlocalhost",
            "10.0.0.1:8078",
            "0.0.0.0:8078",
            "[::]:8078",
            "[::2]",
            "localhost:8078:1",
        ] {
            assert!(!AllowedHosts::Loopback.contains(host), "{host}");
            assert!(AllowedHosts::Any.contains(host), "{host}");
        }
    }
}
