//! Where a request came from: the peer of its connection, or, when that is a reverse proxy that
//! is trusted, the client that the proxy names.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;

use crate::config::TrustedProxies;

/// The header in which every reverse proxy adds whom it was called by, at the end.
const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// The address a request came from, as an extension of the request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerAddress(pub(crate) SocketAddr);

/// The address of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClientAddress {
    peer: SocketAddr,
    /// Whom trusted proxies name.
    forwarded_for: Option<IpAddr>,
}

impl ClientAddress {
    /// The last address of `X-Forwarded-For` that is not itself a trusted proxy's, if the peer is
    /// one: what stands before it was written by strangers.
    pub(super) fn new(peer: SocketAddr, headers: &HeaderMap, trusted: &TrustedProxies) -> Self {
        let mut address = Self {
            peer,
            forwarded_for: None,
        };
        if !trusted.contains(peer.ip()) {
            return address;
        }
        let values = headers.get_all(X_FORWARDED_FOR).iter().rev();
        // By the byte: a proxy adds its client behind whatever that has sent.
        let parts = values.flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
        for part in parts {
            let text = std::str::from_utf8(part).unwrap_or_default();
            let Some(named) = address_in(text.trim()) else {
                break;
            };
            address.forwarded_for = Some(named);
            if !trusted.contains(named) {
                break;
            }
        }
        address
    }
}

/// An address, with or without a port.
fn address_in(text: &str) -> Option<IpAddr> {
    let in_brackets = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let address = in_brackets.unwrap_or(text).parse().ok();
    address.or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.forwarded_for {
            Some(client) => write!(f, "{client} via {}", self.peer),
            None => write!(f, "{}", self.peer),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn client(peer: &str, forwarded: &[&str], trusted: &str) -> String {
        let forwarded: Vec<_> = forwarded.iter().map(|value| value.as_bytes()).collect();
        client_by_bytes(peer, &forwarded, trusted)
    }

    fn client_by_bytes(peer: &str, forwarded: &[&[u8]], trusted: &str) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            let value = HeaderValue::from_bytes(value).unwrap();
            headers.append(X_FORWARDED_FOR, value);
        }
        let trusted = TrustedProxies::parse(trusted).unwrap();
        ClientAddress::new(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn a_stranger_cannot_name_another_client() {
        assert_eq!(client("192.0.2.1:5", &["10.0.0.1"], "none"), "192.0.2.1:5");
        assert_eq!(
            client("192.0.2.1:5", &["10.0.0.1"], "10.0.0.0/8"),
            "192.0.2.1:5"
        );
    }

    #[test]
    fn a_trusted_proxy_names_its_client_and_what_stands_before_counts_for_nothing() {
        for (forwarded, expected) in [
            (&["198.51.100.7"][..], "198.51.100.7 via 10.0.0.1:5"),
            (&["1.1.1.1, 198.51.100.7"], "198.51.100.7 via 10.0.0.1:5"),
            (
                &["1.1.1.1", "198.51.100.7:99,10.0.0.9"],
                "198.51.100.7 via 10.0.0.1:5",
            ),
            (&["[2001:db8::1]:99"], "2001:db8::1 via 10.0.0.1:5"),
            (&["[2001:db8::1]"], "2001:db8::1 via 10.0.0.1:5"),
            (&["unknown"], "10.0.0.1:5"),
            (&["1.1.1.1, unknown, 10.0.0.9"], "10.0.0.9 via 10.0.0.1:5"),
            (&[], "10.0.0.1:5"),
        ] {
            let shown = client("10.0.0.1:5", forwarded, "10.0.0.0/8");
            assert_eq!(shown, expected, "{forwarded:?}");
        }
    }

    #[test]
    fn what_is_no_text_hides_no_client_and_makes_no_other_one_believed() {
        for (forwarded, expected) in [
            (
                &[&b"1.1.1.1"[..], b"\xff, 198.51.100.7"][..],
                "198.51.100.7 via 10.0.0.1:5",
            ),
            (
                &[b"1.1.1.1", b"\xff", b"10.0.0.9"],
                "10.0.0.9 via 10.0.0.1:5",
            ),
            (&[b"1.1.1.1", b"\xff"], "10.0.0.1:5"),
        ] {
            let shown = client_by_bytes("10.0.0.1:5", forwarded, "10.0.0.0/8");
            assert_eq!(shown, expected, "{forwarded:?}");
        }
    }

    #[test]
    fn an_ipv4_address_in_the_dress_of_ipv6_is_the_same_address() {
        let shown = client("[::ffff:10.0.0.1]:5", &["198.51.100.7"], "10.0.0.0/8");
        assert!(shown.starts_with("198.51.100.7 via "), "{shown}");
    }
}
