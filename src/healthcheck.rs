//! `healthcheck`: asks a running instance whether it lives. An image without anything else has no
//! other program that could.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long the answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The head of an answer is within this.
const ANSWER_BYTES_MAX: usize = 4096;

/// Asks the instance that listens on that address.
///
/// # Errors
/// Why it is not known to be well, in one line.
pub fn ask(bind_interface: IpAddr, port: u16) -> Result<(), String> {
    let address = SocketAddr::new(reachable(bind_interface), port);
    match status_of(address) {
        Ok(Some(200)) => Ok(()),
        Ok(Some(status)) => Err(format!("http://{address}/healthcheck answers {status}")),
        Ok(None) => Err(format!("what listens on {address} does not speak HTTP")),
        Err(error) => Err(format!(
            "http://{address}/healthcheck does not answer: {error}"
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
fn status_of(address: SocketAddr) -> io::Result<Option<u16>> {
    let deadline = Instant::now() + TIMEOUT;
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(
        stream,
        "GET /healthcheck HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    let mut buffer = [0; 512];
    while !answer.contains(&b'\n') && answer.len() < ANSWER_BYTES_MAX {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer)? {
            0 => break,
            read => answer.extend_from_slice(&buffer[..read]),
        }
    }
    Ok(status_in(&answer))
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
