//! What `--dev` prints once it listens, for people who see it for the first time: a page to open, and
//! commands to paste.

use std::fmt;
use std::net::SocketAddr;

/// The commands, for these addresses.
#[derive(Clone, Debug)]
pub struct FirstSteps {
    /// Where the proxy listens in the clear.
    pub plain: Option<SocketAddr>,
    /// Where it speaks TLS.
    pub tls: Option<SocketAddr>,
    /// Whether there is the console.
    pub console: bool,
    /// Where the built-in broker listens, `host:port`.
    pub broker: String,
    /// Bytes of records that the broker keeps.
    pub memory: usize,
}

impl fmt::Display for FirstSteps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (suffix, host, also) = match (self.plain, self.tls) {
            (Some(plain), tls) => ("", host(plain), tls.map(host)),
            (None, Some(tls)) => ("s", host(tls), None),
            (None, None) => return Ok(()),
        };
        let also = also.map_or_else(String::new, |host| {
            format!("\nBy TLS: wss://{host}/socket/… and https://{host}/…")
        });
        let console = console_url(self.plain, self.tls).filter(|_| self.console);
        let console = console.map_or_else(String::new, |url| {
            format!("Open {url} and see it work.\n\n")
        });
        let (broker, memory) = (&self.broker, self.memory >> 20);
        write!(
            f,
            "\
{console}kafka-websocket-proxy {version}, with a built-in broker on {broker}

Read the topic t, with what you have:
  wscat -c 'ws{suffix}://{host}/socket/out?topic=t&clientId=wscat'
  websocat 'ws{suffix}://{host}/socket/out?topic=t&clientId=websocat'
  kcat -b {broker} -C -t t

Write to it, in another terminal:
  wscat -c 'ws{suffix}://{host}/socket/in?topic=t'
  websocat 'ws{suffix}://{host}/socket/in?topic=t'
and paste a record there, in one line:
  {RECORD}
or
  echo hello | kcat -b {broker} -P -t t

Is it well? http{suffix}://{host}/ready{also}
Topics are made on first use. Data is in memory ({memory} MiB at most, then the oldest records
go) and gone on exit. Ctrl-C stops it.
",
            version = env!("CARGO_PKG_VERSION"),
        )
    }
}

/// The URL of the console, on a server that listens there: in the clear where it can be.
pub fn console_url(plain: Option<SocketAddr>, tls: Option<SocketAddr>) -> Option<String> {
    let plain = plain.map(|address| format!("http://{}/", host(address)));
    plain.or_else(|| tls.map(|address| format!("https://{}/", host(address))))
}

fn host(address: SocketAddr) -> String {
    match address.ip().is_unspecified() {
        true => format!("localhost:{}", address.port()),
        false => address.to_string(),
    }
}

const RECORD: &str = r#"{"key":{"value":"k"},"value":{"value":"hello"}}"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_of_the_page_comes_first_and_is_one_that_works_on_this_host() {
        let steps = |plain: Option<&str>, tls: Option<&str>, console| {
            let address = |text: &str| text.parse().unwrap();
            let steps = FirstSteps {
                plain: plain.map(address),
                tls: tls.map(address),
                console,
                broker: "127.0.0.1:19092".to_owned(),
                memory: 256 << 20,
            };
            let first = steps.to_string().lines().next().map(str::to_owned);
            first.unwrap()
        };
        let (loopback, any, v6) = ("127.0.0.1:80", "0.0.0.0:80", "[::1]:443");
        for (plain, tls, url) in [
            (Some(loopback), None, "http://127.0.0.1:80/"),
            (Some(any), Some(v6), "http://localhost:80/"),
            (None, Some(v6), "https://[::1]:443/"),
        ] {
            let first = steps(plain, tls, true);
            assert_eq!(first, format!("Open {url} and see it work."));
            let first = steps(plain, tls, false);
            assert!(first.starts_with("kafka-websocket-proxy "), "{first}");
        }
    }
}
