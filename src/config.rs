//! What the program was told: flag, then environment variable, then config file, then default.
//!
//! ```text
//! flags and -D ─┐
//! environment ──┼─▶ layered: key → (value, source) ─▶ keys and properties ─▶ Config
//! (config file)─┘                                                 └─▶ every fault at once
//! ```
//!
//! # Invariants
//! - One table of keys drives flags, variables, defaults and help: see [`keys`].
//! - All faults are found before any is reported; each is one line that names the key, where
//!   the value came from and what is accepted. Values of secrets are never shown.
//! - A key that is not known is refused, with the nearest known one; so is one of a later
//!   version, see [`later`].

mod fault;
mod ignored;
pub mod keys;
pub mod later;
mod layers;
mod nearest;
mod origin;
mod origins;
pub mod properties;
pub mod value;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

pub use fault::{Fault, Source, Told};
pub use layers::{Given, Loaded, load};
pub use origin::Origin;
pub use origins::Origins;

use kafka_client::config::{ClientConfig, ConsumerConfig, ProducerConfig};

/// Everything the program can be told.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Whether the in-memory broker is served instead of a cluster (`--dev`).
    pub dev: bool,
    /// `server.*`
    pub server: ServerConfig,
    /// `commit-handler.*`
    pub commits: CommitConfig,
    /// What all Kafka clients share.
    pub client: ClientConfig,
    /// The producer.
    pub producer: ProducerConfig,
    /// Consumers.
    pub consumer: ConsumerConfig,
    /// Logs.
    pub log: LogConfig,
}

/// `server.*`
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// This node's name.
    pub server_id: String,
    /// The address to listen on.
    pub bind_interface: IpAddr,
    /// The port to listen on; 0 takes a free one.
    pub port: u16,
    /// How long a stop may take.
    pub shutdown_grace: Duration,
    /// `server.websocket.*`
    pub websocket: WebSocketConfig,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            server_id: "node-1".to_owned(),
            bind_interface: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            port: 8078,
            shutdown_grace: Duration::from_secs(20),
            websocket: WebSocketConfig::default(),
        }
    }
}

/// `server.websocket.*`
#[derive(Clone, Debug)]
pub struct WebSocketConfig {
    /// Idle sockets are pinged this often.
    pub ping_interval: Duration,
    /// Largest message a client may send, bytes.
    pub max_message_size: usize,
    /// Bytes that may wait for a client that does not read.
    pub send_buffer: usize,
    /// Open sockets on this node; 0 sets no limit.
    pub max_connections: usize,
    /// Whose pages may use this server.
    pub origins: Origins,
}

impl Default for WebSocketConfig {
    fn default() -> Self {
        Self {
            ping_interval: Duration::from_secs(20),
            max_message_size: 1 << 20,
            send_buffer: 256 << 10,
            max_connections: 0,
            origins: Origins::Any,
        }
    }
}

/// `commit-handler.*`
#[derive(Clone, Debug)]
pub struct CommitConfig {
    /// Uncommitted records remembered per partition of a socket.
    pub max_stack_size: usize,
}

impl Default for CommitConfig {
    fn default() -> Self {
        Self {
            max_stack_size: 100,
        }
    }
}

/// Where and how to log.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// A level, or filters per module.
    pub level: String,
    /// For people or for machines.
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::Text,
        }
    }
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}
