//! What `--dev` prints once it listens: commands to paste, for people who see it for the first time.

use std::fmt;
use std::net::SocketAddr;

/// The commands, for these addresses.
#[derive(Clone, Debug)]
pub struct FirstSteps {
    /// Where the proxy listens in the clear.
    pub plain: Option<SocketAddr>,
    /// Where it speaks TLS.
    pub tls: Option<SocketAddr>,
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
        let (broker, memory) = (&self.broker, self.memory >> 20);
        write!(
            f,
            "\
kafka-websocket-proxy {version}, with a built-in broker on {broker}

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

fn host(address: SocketAddr) -> String {
    match address.ip().is_unspecified() {
        true => format!("localhost:{}", address.port()),
        false => address.to_string(),
    }
}

const RECORD: &str = r#"{"key":{"value":"k"},"value":{"value":"hello"}}"#;
