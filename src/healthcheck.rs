//! `healthcheck`: asks a running instance whether it lives. An image without anything else has no
//! other program that could.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use secret::Secret;
use tls::{StoreFile, TlsError};

use crate::config::ServerConfig;

/// How long the answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The head of an answer is within this.
const ANSWER_BYTES_MAX: usize = 4096;

/// Where an instance is asked.
#[derive(Clone, Debug)]
pub struct HealthPort {
    address: SocketAddr,
    /// Whatever the instance presents: it is asked on its own host, for nothing that is secret.
    tls: Option<Arc<ClientConfig>>,
    /// The value of `Authorization`, where clients must have one.
    authorization: Option<Secret>,
    /// Whether clients must have a token, which there is none of here: who asks for one is well.
    asks_for_token: bool,
}

impl HealthPort {
    /// In the clear, where it listens on that interface and port.
    pub fn plain(interface: IpAddr, port: u16) -> Self {
        Self {
            address: SocketAddr::new(reachable(interface), port),
            tls: None,
            authorization: None,
            asks_for_token: false,
        }
    }

    /// By TLS, with that certificate.
    ///
    /// # Errors
    /// Why there is no TLS with that certificate.
    pub fn tls(
        interface: IpAddr,
        port: u16,
        key_store: Option<StoreFile>,
    ) -> Result<Self, TlsError> {
        Ok(Self {
            tls: Some(tls::trusting_anybody(key_store)?),
            ..Self::plain(interface, port)
        })
    }
}

impl HealthPort {
    /// With user and password, where clients must have them.
    #[must_use]
    pub fn authorized_by(self, server: &ServerConfig) -> Self {
        let basic_auth = &server.basic_auth;
        let given = |secret: &Option<Secret>| secret.clone().unwrap_or_default();
        let [username, password] = [&basic_auth.username, &basic_auth.password].map(given);
        let pair = Secret::new(format!("{}:{}", username.reveal(), password.reveal()));
        let value = || Secret::new(format!("Basic {}", STANDARD.encode(pair.reveal())));
        Self {
            authorization: basic_auth.is_enabled().then(value),
            asks_for_token: server.openid_connect.is_enabled() && !basic_auth.is_enabled(),
            ..self
        }
    }
}

/// Asks the instance that listens there.
///
/// # Errors
/// Why it is not known to be well, in one line.
pub fn ask(port: &HealthPort) -> Result<(), String> {
    let address = port.address;
    let scheme = match port.tls {
        None => "http",
        Some(_) => "https",
    };
    match status_of(port) {
        Ok(Some(200)) => Ok(()),
        Ok(Some(401)) if port.asks_for_token => Ok(()),
        Ok(Some(status)) => Err(format!("{scheme}://{address}/healthcheck answers {status}")),
        Ok(None) => Err(format!("what listens on {address} does not speak HTTP")),
        Err(error) => Err(format!(
            "{scheme}://{address}/healthcheck does not answer: {error}"
        )),
    }
}

/// An address under which a listener on `interface` is reached from its own host.
fn reachable(interface: IpAddr) -> IpAddr {
    match interface {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        other => other,
    }
}

/// The status of the answer; `None` when it is no HTTP.
fn status_of(port: &HealthPort) -> io::Result<Option<u16>> {
    let deadline = Instant::now() + TIMEOUT;
    let tcp = TcpStream::connect_timeout(&port.address, TIMEOUT)?;
    tcp.set_write_timeout(Some(TIMEOUT))?;
    let stream = DeadlineStream { tcp, deadline };
    let Some(config) = &port.tls else {
        return ask_on(stream, port);
    };
    let name = ServerName::IpAddress(port.address.ip().into());
    let connection = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
    ask_on(StreamOwned::new(connection, stream), port)
}

fn ask_on(mut stream: impl Read + Write, port: &HealthPort) -> io::Result<Option<u16>> {
    let address = port.address;
    write!(stream, "GET /healthcheck HTTP/1.1\r\nHost: {address}\r\n")?;
    if let Some(authorization) = &port.authorization {
        write!(stream, "Authorization: {}\r\n", authorization.reveal())?;
    }
    write!(stream, "Connection: close\r\n\r\n")?;
    stream.flush()?;
    let mut answer = Vec::new();
    let mut buffer = [0; 512];
    while !answer.contains(&b'\n') && answer.len() < ANSWER_BYTES_MAX {
        match stream.read(&mut buffer)? {
            0 => break,
            read => answer.extend_from_slice(&buffer[..read]),
        }
    }
    Ok(status_in(&answer))
}

/// A connection on which nothing is waited for longer than that.
struct DeadlineStream {
    tcp: TcpStream,
    deadline: Instant,
}

impl Read for DeadlineStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.tcp.set_read_timeout(Some(left))?;
        self.tcp.read(buffer)
    }
}

impl Write for DeadlineStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tcp.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.tcp.flush()
    }
}

/// The status in the first line of an answer.
fn status_in(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\n').next()?;
    let line = str::from_utf8(line).ok()?.strip_prefix("HTTP/1.")?;
    line.split(' ').nth(1)?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_that_of_the_first_line() {
        for (answer, status) in [
            ("HTTP/1.1 200 OK\r\n\r\n", Some(200)),
            ("HTTP/1.0 503\r\n", Some(503)),
            ("HTTP/1.1 \r\n", None),
            ("SSH-2.0-x\r\n", None),
            ("", None),
        ] {
            assert_eq!(status_in(answer.as_bytes()), status, "{answer}");
        }
    }

    #[test]
    fn a_listener_on_every_interface_is_asked_on_loopback() {
        for (interface, asked) in [
            ("0.0.0.0", "127.0.0.1"),
            ("::", "::1"),
            ("10.0.0.1", "10.0.0.1"),
        ] {
            let interface: IpAddr = interface.parse().unwrap();
            assert_eq!(reachable(interface).to_string(), asked);
        }
    }
}
