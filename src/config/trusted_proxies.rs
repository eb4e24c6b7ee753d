//! The reverse proxies whose `X-Forwarded-For` is believed (`server.trusted-proxies`).

use std::net::IpAddr;

use ipnet::IpNet;

use super::value::{self, ParsedValue};

/// A set of addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Reads `none`, or a comma list of addresses and networks such as `10.0.0.0/8`.
    pub fn parse(text: &str) -> ParsedValue<Self> {
        if text.trim() == "none" {
            return Ok(Self::default());
        }
        let network = |text: &String| {
            let network = text.parse::<IpNet>().ok();
            network.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
        };
        let networks: Option<Vec<_>> = value::list(text).iter().map(network).collect();
        match networks {
            Some(networks) if !networks.is_empty() => Ok(Self(networks)),
            _ => {
                Err("none, or a comma list of addresses and networks such as 10.0.0.0/8".to_owned())
            }
        }
    }

    /// Whether that is the address of one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_addresses_and_networks() {
        let trusted = TrustedProxies::parse("127.0.0.1, 10.0.0.0/8,2001:db8::/32").unwrap();
        for (address, is_trusted) in [
            ("127.0.0.1", true),
            ("127.0.0.2", false),
            ("10.255.0.1", true),
            ("::ffff:10.0.0.1", true),
            ("2001:db8:1::1", true),
            ("2001:db9::1", false),
        ] {
            assert_eq!(
                trusted.contains(address.parse().unwrap()),
                is_trusted,
                "{address}"
            );
        }
        assert_eq!(TrustedProxies::parse("none"), Ok(TrustedProxies::default()));
        for text in ["", "10.0.0.0/33", "proxy.example.org", "10.0.0.1;10.0.0.2"] {
            TrustedProxies::parse(text).expect_err(text);
        }
    }
}
