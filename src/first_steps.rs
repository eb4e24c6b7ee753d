//! What `--dev` prints once it listens: commands to paste, for people who see it for the first time.

use std::fmt;
use std::net::SocketAddr;

/// The commands, for these addresses.
#[derive(Clone, Debug)]
pub struct FirstSteps {
    /// Where the proxy listens.
    pub address: SocketAddr,
    /// Where the built-in broker listens, `host:port`.
    pub broker: String,
    /// Bytes of records that the broker keeps.
    pub memory: usize,
}

impl fmt::Display for FirstSteps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = match self.address.ip().is_unspecified() {
            true => format!("localhost:{}", self.address.port()),
            false => self.address.to_string(),
        };
        let (broker, memory) = (&self.broker, self.memory >> 20);
        write!(
            f,
            "\
kafka-websocket-proxy {version}, with a built-in broker on {broker}

Read the topic t, with what you have:
  wscat -c 'ws://{host}/socket/out?topic=t&clientId=wscat'
  websocat 'ws://{host}/socket/out?topic=t&clientId=websocat'
  kcat -b {broker} -C -t t

Write to it, in another terminal:
  wscat -c 'ws://{host}/socket/in?topic=t'
  websocat 'ws://{host}/socket/in?topic=t'
and paste a record there, in one line:
  {RECORD}
or
  echo hello | kcat -b {broker} -P -t t

Is it well? http://{host}/ready
Topics are made on first use. Data is in memory ({memory} MiB at most, then the oldest records
go) and gone on exit. Ctrl-C stops it.
",
            version = env!("CARGO_PKG_VERSION"),
        )
    }
}

const RECORD: &str = r#"{"key":{"value":"k"},"value":{"value":"hello"}}"#;
