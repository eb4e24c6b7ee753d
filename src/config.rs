//! The settings: flag, then environment variable, then config file, then default.
//!
//! ```text
//! flags and -D ─┐
//! environment ──┼─▶ given: key → (value, source) ─▶ loader: settings and properties ─▶ Config
//! file ─────────┘                                      └─▶ every error at once
//! ```
//!
//! # Invariants
//! - One table of keys drives flags, variables, defaults and help: `config/keys`.
//! - All errors are found before any is reported; each is one line that names the key, where
//!   the value came from and what is accepted. Values of secrets are never shown.
//! - A key that is not known is refused, with the nearest known one; so is one of a later
//!   version.

mod admin_server;
mod allowed_hosts;
mod allowed_origins;
mod basic_auth;
mod bind_error;
mod client_limits;
mod conflicts;
mod effective;
mod error;
pub(crate) mod file;
mod file_values;
mod given;
mod ignored_keys;
mod jaas;
mod java_properties;
mod kerberos;
pub(crate) mod keys;
mod loader;
mod log_level;
mod metrics_reporter;
mod oauthbearer;
mod openid_connect;
mod provenance;
mod reference;
mod security;
mod security_fault;
mod server_ssl;
mod ssl;
mod state_topic;
mod topic_globs;
mod transactions;
mod trusted_proxies;
mod value;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use admin_server::AdminServerConfig;
pub(crate) use allowed_hosts::AllowedHosts;
pub use allowed_origins::{AllowedOrigins, WebOrigin};
pub use basic_auth::BasicAuthConfig;
pub use bind_error::BindError;
pub(crate) use client_limits::{BATCH_SIZE_MAX, LimitedClients};
pub use client_limits::{ClientLimit, ClientLimitsConfig};
pub use effective::EffectiveValue;
pub use error::ConfigError;
pub use file::FilePlace;
pub use given::{ConfigSources, FlagValue};
pub use loader::{ConfigFailure, LoadedConfig, failure, load};
pub use metrics_reporter::MetricsReporterConfig;
pub use openid_connect::{CustomJwtConfig, OpenIdConnectConfig};
pub use provenance::{KeyProvenance, Provenance, ValueSource};
pub use reference::reference_conf;
pub use server_ssl::SslConfig;
pub(crate) use server_ssl::key_of_tls_fault;
pub use state_topic::{DynamicLimitsConfig, SessionConfig, StateTopicConfig};
pub(crate) use topic_globs::INTERNAL_PREFIX;
pub use topic_globs::TopicGlobs;
pub use transactions::TransactionsConfig;
pub use trusted_proxies::TrustedProxies;

use tracing_subscriber::filter::{LevelFilter, Targets};

use kafka_client::config::{ClientConfig, ConsumerConfig, ProducerConfig, RequestOverrides};
use schema_registry::SchemaRegistryConfig;
use security::SecurityProperties;
use tls::ServerTls;
use value::ParsedValue;

/// Every setting of the program.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Whether the in-memory broker is served instead of a cluster (`--dev`).
    pub dev: bool,
    /// `dev.*`
    pub dev_broker: DevBrokerConfig,
    /// `server.*`
    pub server: ServerConfig,
    /// `session-handler.*`
    pub sessions: SessionConfig,
    /// `dynamic-config-handler.*`
    pub dynamic_limits: DynamicLimitsConfig,
    /// `commit-handler.*`
    pub commits: CommitConfig,
    /// What all Kafka clients share.
    pub client: ClientConfig,
    /// What `client.security` comes from.
    pub(crate) security: SecurityProperties,
    /// The producer.
    pub producer: ProducerConfig,
    /// Consumers.
    pub consumer: ConsumerConfig,
    /// `producer.sessions-enabled`
    pub producer_sessions: bool,
    /// `producer.limits.*`
    pub producer_limits: ClientLimitsConfig,
    /// `consumer.limits.*`
    pub consumer_limits: ClientLimitsConfig,
    /// `producer.exactly-once-enabled`, and how.
    pub transactions: TransactionsConfig,
    /// `kafka-client.schema-registry.*`
    pub schema_registry: SchemaRegistryConfig,
    /// What the requests of the admin client have of their own.
    pub admin: RequestOverrides,
    /// `kafka-client.metrics-enabled` and `kafka-client.confluent-metrics.*`
    pub metrics_reporter: MetricsReporterConfig,
    /// Logs.
    pub log: LogConfig,
}

impl Config {
    /// What holds with `--dev` unless it is set: programs and pages of this host get in, and no
    /// others.
    fn dev() -> Self {
        let mut config = Self {
            dev: true,
            ..Self::default()
        };
        config.server.bind_interface = IpAddr::V4(Ipv4Addr::LOCALHOST);
        config.server.ssl.bind_interface = IpAddr::V4(Ipv4Addr::LOCALHOST);
        config.server.websocket.origins = AllowedOrigins::loopback();
        config.server.console_enabled = true;
        config
    }

    /// The topics in which the nodes of a deployment keep what they share.
    pub(crate) fn state_topics(&self) -> [&str; 2] {
        [&self.sessions.topic.name, &self.dynamic_limits.topic.name]
    }

    /// The hosts that a request may be for. A page of the web that had its own name resolve to
    /// this host (DNS rebinding) would be of the same origin as what listens here, so it may read
    /// answers without a word about its origin.
    pub(crate) fn allowed_hosts(&self) -> AllowedHosts {
        let server = &self.server;
        let is_closed = self.dev && server.websocket.origins != AllowedOrigins::Any;
        match is_closed && server.is_for_loopback_only() {
            true => AllowedHosts::Loopback,
            false => AllowedHosts::Any,
        }
    }
}

/// `dev.*`: the in-memory broker of `--dev`.
#[derive(Clone, Debug)]
pub struct DevBrokerConfig {
    /// Its port on the loopback interface; 0 takes a free one.
    pub port: u16,
}

impl Default for DevBrokerConfig {
    fn default() -> Self {
        Self { port: 19_092 }
    }
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
    /// How long the server goes on serving when it is asked to stop, with `/ready` at 503.
    pub drain_delay: Duration,
    /// Over what time a stop closes the sockets, evenly; at most half the grace.
    pub drain_spread: Duration,
    /// `server.broker-resolution-*`
    pub broker_resolution: BrokerResolutionConfig,
    /// Reverse proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: TrustedProxies,
    /// Whether reasons that clients are given name brokers; unset: only with `--dev`.
    pub expose_broker_addresses: Option<bool>,
    /// Whether there is the console, a page to try the endpoints on.
    pub console_enabled: bool,
    /// `server.limits.*`
    pub limits: LimitsConfig,
    /// `server.ssl.*`
    pub ssl: SslConfig,
    /// What `ssl` comes to: what clients are served with by TLS, if they can use it.
    pub tls: Option<Arc<ServerTls>>,
    /// What `healthcheck` presents where clients must have a certificate.
    pub healthcheck_cert: Option<PathBuf>,
    /// `server.websocket.*`
    pub websocket: WebSocketConfig,
    /// `server.admin.*`
    pub admin: AdminServerConfig,
    /// `server.basic-auth.*`
    pub basic_auth: BasicAuthConfig,
    /// `server.openid-connect.*`
    pub openid_connect: OpenIdConnectConfig,
    /// Whether `/healthcheck`, `/ready` and `/metrics` ask for credentials as other paths do.
    pub secure_health_check_endpoint: bool,
    /// `server.topics.*`
    pub topics: TopicsConfig,
}

/// `server.topics.*`
#[derive(Clone, Debug, Default)]
pub struct TopicsConfig {
    /// Topics that clients may write to.
    pub produce_allowed: TopicGlobs,
    /// Topics that they may read.
    pub consume_allowed: TopicGlobs,
}

impl ServerConfig {
    /// How many sockets there may be, and the key that says so; `None`: any number.
    pub(crate) fn sockets_max(&self) -> Option<(usize, &'static str)> {
        let limits = [
            (
                self.websocket.max_connections,
                "server.websocket.max-connections",
            ),
            (self.limits.connections_max, "server.limits.connections-max"),
        ];
        limits.into_iter().filter(|(max, _)| *max > 0).min()
    }

    /// Where the admin server listens, if there is one: where clients of the server come in, unless
    /// something else is said.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        let of_server = match self.ssl.only {
            true => self.ssl.bind_interface,
            false => self.bind_interface,
        };
        let interface = self.admin.bind_interface.unwrap_or(of_server);
        let address = SocketAddr::new(interface, self.admin.port);
        self.admin.enabled.then_some(address)
    }

    /// Whether nobody but this host reaches it.
    fn is_for_loopback_only(&self) -> bool {
        let plain = self.ssl.only || self.bind_interface.is_loopback();
        let admin = self.admin_address();
        plain
            && (!self.ssl.is_enabled() || self.ssl.bind_interface.is_loopback())
            && admin.is_none_or(|admin| admin.ip().is_loopback())
    }

    /// Whether a client must authenticate.
    pub fn asks_for_credentials(&self) -> bool {
        self.basic_auth.is_enabled() || self.openid_connect.is_enabled()
    }
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            server_id: "node-1".to_owned(),
            bind_interface: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            port: 8078,
            shutdown_grace: Duration::from_secs(20),
            drain_delay: Duration::ZERO,
            drain_spread: Duration::from_secs(2),
            broker_resolution: BrokerResolutionConfig::default(),
            trusted_proxies: TrustedProxies::default(),
            expose_broker_addresses: None,
            console_enabled: false,
            limits: LimitsConfig::default(),
            ssl: SslConfig::default(),
            tls: None,
            healthcheck_cert: None,
            websocket: WebSocketConfig::default(),
            admin: AdminServerConfig::default(),
            basic_auth: BasicAuthConfig::default(),
            openid_connect: OpenIdConnectConfig::default(),
            secure_health_check_endpoint: true,
            topics: TopicsConfig::default(),
        }
    }
}

/// `server.broker-resolution-*`: looking up the names of the bootstrap hosts at start.
#[derive(Clone, Debug)]
pub struct BrokerResolutionConfig {
    /// How long it may take in all.
    pub timeout: Duration,
    /// How often it is tried again.
    pub retries: u32,
    /// How long to wait before that.
    pub retry_interval: Duration,
}

impl Default for BrokerResolutionConfig {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            retries: 25,
            retry_interval: Duration::from_secs(1),
        }
    }
}

/// `server.limits.*`
#[derive(Clone, Debug)]
pub struct LimitsConfig {
    /// Connections of clients on this node, with and without a socket. 0: in the program, what the
    /// descriptors allow.
    pub connections_max: usize,
    /// Length of a request's head, bytes.
    pub header_bytes_max: usize,
    /// How long a client may take to send a request's head.
    pub header_timeout: Duration,
    /// Topics that have series of their own in the metrics.
    pub metrics_topics_max: usize,
    /// Kafka users with credentials of their own who may have sockets open.
    pub principals_max: usize,
    /// Authentications of such users that may be under way at once.
    pub authentications_max: usize,
    /// How long a client may take for the handshake of TLS.
    pub handshake_timeout: Duration,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            connections_max: 0,
            header_bytes_max: 32 << 10,
            header_timeout: Duration::from_secs(10),
            metrics_topics_max: 100,
            principals_max: 1_000,
            authentications_max: 100,
            handshake_timeout: Duration::from_secs(10),
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
    /// Whether messages are compressed (`permessage-deflate`) where a client offers it.
    pub compression: bool,
    /// Origins whose pages may use this server.
    pub origins: AllowedOrigins,
}

impl Default for WebSocketConfig {
    fn default() -> Self {
        Self {
            ping_interval: Duration::from_secs(20),
            max_message_size: 1 << 20,
            send_buffer: 256 << 10,
            max_connections: 0,
            compression: true,
            origins: AllowedOrigins::Any,
        }
    }
}

/// `commit-handler.*`
#[derive(Clone, Debug)]
pub struct CommitConfig {
    /// Uncommitted records remembered per partition of a socket.
    pub max_stack_size: usize,
    /// Whether what a client with `autoCommit=false` does not commit is committed for it.
    pub auto_commit_enabled: bool,
    /// How often.
    pub auto_commit_interval: Duration,
    /// What was delivered longer ago than that.
    pub auto_commit_max_age: Duration,
}

impl Default for CommitConfig {
    fn default() -> Self {
        Self {
            max_stack_size: 100,
            auto_commit_enabled: false,
            auto_commit_interval: Duration::from_secs(1),
            auto_commit_max_age: Duration::from_secs(20),
        }
    }
}

/// Where and how to log.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// The least level that is logged, of every module.
    pub level: Targets,
    /// For people or for machines.
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            level: Targets::new().with_default(LevelFilter::INFO),
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

impl LogFormat {
    fn parse(text: &str) -> ParsedValue<Self> {
        match text.to_ascii_lowercase().as_str() {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err("text or json".to_owned()),
        }
    }
}
