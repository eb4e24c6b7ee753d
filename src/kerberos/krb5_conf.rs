//! `krb5.conf`, as MIT and Java read it:
//!
//! ```text
//! [libdefaults]
//!     default_realm = EXAMPLE.COM
//! [realms]
//!     EXAMPLE.COM = {
//!         kdc = kdc-1.example.com
//!         kdc = kdc-2.example.com:88
//!     }
//! [domain_realm]
//!     .example.com = EXAMPLE.COM
//! include /etc/krb5.d/more      includedir /etc/krb5.conf.d
//! ```
//!
//! Only what follows from the file is known: realms and KDCs are not looked up in DNS.

use std::path::Path;
use std::time::Duration;

use crate::crypto::EncryptionType;

/// What the file, or files, say: each value with the names that lead to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Krb5Conf {
    values: Vec<(Vec<String>, String)>,
}

/// Where a KDC listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct KdcAddress {
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// Of a KDC that says none.
const PORT: u16 = 88;
/// How long a KDC may take, if nothing is said.
const TIMEOUT: Duration = Duration::from_secs(10);
/// More is no time-out.
const TIMEOUT_MAX: Duration = Duration::from_secs(120);

impl Krb5Conf {
    /// The realm of names that say none.
    pub(crate) fn default_realm(&self) -> Option<&str> {
        self.value(&["libdefaults", "default_realm"])
    }

    /// The realm that a host's services are in: of `[domain_realm]`, or the default one.
    pub(crate) fn realm_of(&self, host: &str) -> Option<&str> {
        let of_domain = |name: &str| self.value(&["domain_realm", name]);
        let of_parents = || {
            let dots = host.match_indices('.');
            dots.into_iter().find_map(|(at, _)| of_domain(&host[at..]))
        };
        of_domain(host).or_else(of_parents).or(self.default_realm())
    }

    /// The KDCs of a realm, in order.
    ///
    /// # Errors
    /// That there is none that can be used.
    pub(crate) fn kdcs(&self, realm: &str) -> Result<Vec<KdcAddress>, String> {
        let given = self.all(&["realms", realm, "kdc"]);
        let kdcs: Vec<_> = given
            .iter()
            .filter_map(|text| KdcAddress::parse(text))
            .collect();
        match (kdcs.is_empty(), given.first()) {
            (false, _) => Ok(kdcs),
            (true, Some(given)) => Err(format!(
                "of the realm {realm} no kdc is a host, or host:port, that is reached by TCP: {given:?}"
            )),
            (true, None) => Err(format!(
                "[realms] has no kdc of {realm}, and KDCs are not looked up in DNS"
            )),
        }
    }

    /// How long a KDC may take to answer: `kdc_timeout`, in milliseconds, or seconds as in `10s`.
    pub(crate) fn kdc_timeout(&self) -> Duration {
        let given = self.value(&["libdefaults", "kdc_timeout"]);
        let parsed = given.and_then(|text| match text.strip_suffix(['s', 'S']) {
            Some(seconds) => seconds.trim().parse().ok().map(Duration::from_secs),
            None => text.parse().ok().map(Duration::from_millis),
        });
        let timeout = parsed.filter(|timeout| !timeout.is_zero());
        timeout.unwrap_or(TIMEOUT).min(TIMEOUT_MAX)
    }

    /// The types for `default_tkt_enctypes` or `default_tgs_enctypes`, of which
    /// `permitted_enctypes` leaves some.
    ///
    /// # Errors
    /// That these are none that we have.
    pub(crate) fn permitted(&self, name: &str) -> Result<Vec<EncryptionType>, String> {
        let mut kinds = EncryptionType::ALL.to_vec();
        for name in ["permitted_enctypes", name] {
            let Some(text) = self.value(&["libdefaults", name]) else {
                continue;
            };
            let named = encryption_types(text);
            kinds.retain(|kind| named.contains(kind));
            if kinds.is_empty() {
                return Err(format!(
                    "{name} = {text:?} leaves no encryption type that is supported: those of AES are"
                ));
            }
        }
        Ok(kinds)
    }

    /// The first value of that name.
    fn value(&self, path: &[&str]) -> Option<&str> {
        self.all(path).first().copied()
    }

    fn all(&self, path: &[&str]) -> Vec<&str> {
        let of_path = self.values.iter().filter(|(at, _)| at == path);
        of_path.map(|(_, value)| value.as_str()).collect()
    }

    /// Adds what a text says; `include` reads what it includes.
    ///
    /// # Errors
    /// The number of the line that is wrong, and why.
    pub(crate) fn add(&mut self, text: &str, include: &mut Include<'_>) -> Result<(), String> {
        let mut path: Vec<String> = Vec::new();
        for (n, line) in text.lines().enumerate() {
            let at = |fault: &str| format!("line {}: {fault}", n + 1);
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            let mut words = line.split_whitespace();
            match (words.next(), words.next(), words.next()) {
                (Some("include"), Some(file), None) => {
                    include(self, Path::new(file), IncludeKind::File)?;
                    continue;
                }
                (Some("includedir"), Some(folder), None) => {
                    include(self, Path::new(folder), IncludeKind::Folder)?;
                    continue;
                }
                // A plug-in of MIT's library.
                (Some("module"), Some(_), None) => continue,
                _ => {}
            }
            if let Some(section) = line.strip_prefix('[') {
                let (name, _) = section.split_once(']').ok_or_else(|| at("] is missing"))?;
                path = vec![name.trim().to_owned()];
            } else if line.trim_end_matches('*') == "}" {
                match path.len() {
                    0 | 1 => return Err(at("nothing is open that } closes")),
                    _ => path.pop(),
                };
            } else {
                let (name, value) = line.split_once('=').ok_or_else(|| at("= is missing"))?;
                if path.is_empty() {
                    return Err(at("it stands before any [section]"));
                }
                let name = name.trim().trim_end_matches('*').to_owned();
                match value.trim() {
                    "{" if path.len() < DEPTH_MAX => path.push(name),
                    "{" => return Err(at("too many { are open")),
                    value => {
                        let path = path.iter().cloned().chain([name]).collect();
                        self.values.push((path, unquoted(value)));
                    }
                }
            }
        }
        match path.len() {
            0 | 1 => Ok(()),
            _ => Err(format!("the }} of {} is missing", path.join(", "))),
        }
    }
}

pub(crate) type Include<'a> =
    dyn FnMut(&mut Krb5Conf, &Path, IncludeKind) -> Result<(), String> + 'a;

/// What is included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IncludeKind {
    File,
    /// All files in it that look like ones of krb5.conf.
    Folder,
}

/// What anybody writes has two.
const DEPTH_MAX: usize = 8;

fn unquoted(value: &str) -> String {
    let inner = value
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'));
    match inner {
        Some(text) => text.replace("\\\"", "\"").replace("\\\\", "\\"),
        None => value.to_owned(),
    }
}

/// Names, separated by white space or commas; `-` takes one away again, and `DEFAULT` is all.
fn encryption_types(text: &str) -> Vec<EncryptionType> {
    let names = text.split(|c: char| c == ',' || c.is_whitespace());
    let mut kinds = Vec::new();
    for name in names.filter(|name| !name.is_empty()) {
        let without = name.strip_prefix('-');
        let name = without.unwrap_or(name).trim_start_matches('+');
        let named = match name.eq_ignore_ascii_case("default") {
            true => EncryptionType::ALL.to_vec(),
            false => EncryptionType::of_name(name),
        };
        kinds.retain(|kind| !named.contains(kind));
        if without.is_none() {
            kinds.extend(named);
        }
    }
    kinds
}

impl KdcAddress {
    /// `host`, `host:port`, `[address]:port`, with `tcp/` before it or without; `None` of one that
    /// is reached by other means.
    fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix("tcp/").unwrap_or(text);
        if text.contains('/') {
            return None;
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']')?;
                (host, port.strip_prefix(':'))
            }
            // An address of IPv6 without brackets has more than one colon.
            None => match text.rsplit_once(':') {
                Some((host, port)) if !host.contains(':') => (host, Some(port)),
                _ => (text, None),
            },
        };
        let port = port.map_or(Some(PORT), |port| port.parse().ok())?;
        (!host.is_empty()).then(|| Self {
            host: host.to_owned(),
            port,
        })
    }
}

#[cfg(test)]
mod tests;
