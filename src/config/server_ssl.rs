//! `server.ssl.*`: whether clients can use TLS, and what with.
//!
//! A setting that would have no effect refuses the start: whoever gives one means to be protected
//! by it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use secret::Secret;
use tls::{ServerTls, ServerTlsConfig, ServerTlsError, StoreFile};

use super::keys::KEY_PREFIX;

const ENABLED: &str = "server.ssl.enabled";
const ONLY: &str = "server.ssl.ssl-only";
const PORT: &str = "server.ssl.port";
const KEY_STORE: &str = "server.ssl.keystore-location";
const KEY_STORE_PASSWORD: &str = "server.ssl.keystore-password";
const CLIENT_CA: &str = "server.ssl.client-ca-location";

/// `server.ssl.*`
#[derive(Clone, Debug)]
pub struct SslConfig {
    /// Whether clients can use TLS; unset: if there is a port for it.
    pub enabled: Option<bool>,
    /// Whether they can use nothing else.
    pub only: bool,
    /// The address to listen on.
    pub bind_interface: IpAddr,
    /// The port to listen on; 0 takes a free one.
    pub port: Option<u16>,
    /// Certificate and key of the server; empty: unset.
    pub key_store: PathBuf,
    /// What opens them.
    pub key_store_password: Option<Secret>,
    /// Who vouches for clients, which must present a certificate then.
    pub client_ca: Option<PathBuf>,
}

impl Default for SslConfig {
    fn default() -> Self {
        Self {
            enabled: None,
            only: false,
            bind_interface: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            port: None,
            key_store: PathBuf::new(),
            key_store_password: None,
            client_ca: None,
        }
    }
}

/// A key that keeps the rest from working, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SslFault {
    pub(super) key: &'static str,
    pub(super) fault: String,
}

fn fault(key: &'static str, fault: impl ToString) -> SslFault {
    SslFault {
        key,
        fault: fault.to_string(),
    }
}

/// The key that is behind a fault of TLS towards clients, with its prefix.
pub(crate) fn key_of_tls_fault(error: &ServerTlsError) -> String {
    format!("{KEY_PREFIX}{}", key_of(error))
}

fn key_of(error: &ServerTlsError) -> &'static str {
    match error {
        ServerTlsError::Processor(_) => PORT,
        ServerTlsError::KeyStore(_) => KEY_STORE,
        ServerTlsError::ClientCa(_) => CLIENT_CA,
    }
}

impl SslConfig {
    /// Whether clients can use TLS.
    pub(super) fn is_enabled(&self) -> bool {
        self.enabled.unwrap_or(self.port.is_some())
    }

    /// The keys of which something is said.
    fn given(&self) -> impl Iterator<Item = &'static str> {
        let given = [
            (PORT, self.port.is_some()),
            (KEY_STORE, !self.key_store.as_os_str().is_empty()),
            (KEY_STORE_PASSWORD, self.key_store_password.is_some()),
            (CLIENT_CA, self.client_ca.is_some()),
            (ONLY, self.only),
        ];
        given.into_iter().filter(|(_, is)| *is).map(|(key, _)| key)
    }

    /// The keys that have no effect, since TLS is said to be off.
    pub(super) fn ignored(&self) -> Vec<&'static str> {
        match self.enabled {
            Some(false) => self.given().collect(),
            _ => Vec::new(),
        }
    }

    fn tls_config(&self) -> ServerTlsConfig {
        ServerTlsConfig {
            key_store: StoreFile {
                location: self.key_store.clone(),
                password: self.key_store_password.clone(),
            },
            client_ca: self.client_ca.clone(),
        }
    }

    /// Reads the stores; `None` without TLS. In the clear the server would listen on `plain`.
    ///
    /// # Errors
    /// The first key that cannot be followed.
    pub(super) fn resolve(&self, plain: SocketAddr) -> Result<Option<Arc<ServerTls>>, SslFault> {
        match self.enabled {
            Some(false) if self.only => {
                let contradiction =
                    format!("{KEY_PREFIX}{ENABLED} is false: there would be no TLS");
                return Err(fault(ONLY, contradiction));
            }
            Some(false) => return Ok(None),
            None if self.port.is_none() => {
                let without = format!("{KEY_PREFIX}{PORT} is not set, so it would have no effect");
                return match self.given().last() {
                    Some(key) => Err(fault(key, without)),
                    None => Ok(None),
                };
            }
            _ => {}
        }
        let Some(port) = self.port else {
            return Err(fault(PORT, "it is needed, since TLS is enabled"));
        };
        if self.key_store.as_os_str().is_empty() {
            let what = "it is needed for TLS: a file with the server's certificate and key \
                        (PEM, PKCS12 or JKS)";
            return Err(fault(KEY_STORE, what));
        }
        let by_tls = SocketAddr::new(self.bind_interface, port);
        if !self.only && overlap(plain, by_tls) {
            let taken =
                format!("{port} is {KEY_PREFIX}server.port too: TLS needs a port of its own");
            return Err(fault(PORT, taken));
        }
        match ServerTls::new(self.tls_config()) {
            Ok(tls) => Ok(Some(Arc::new(tls))),
            Err(error) => Err(fault(key_of(&error), error)),
        }
    }
}

/// Whether not both can be listened on; 0 takes a free port.
pub(super) fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let is_same_interface = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    is_same_interface && a.port() == b.port() && a.port() != 0
}
