//! The settings of the client, with the names of Java's client.
//!
//! Each field is documented with the property it comes from. Values are checked where they are
//! parsed; here they are taken as given. Defaults are Java's (4.x), but for
//! - `linger.ms`, 0 instead of 5: batches fill while requests are in flight;
//! - `session.timeout.ms`, 15 s instead of 45 s: partitions of a client that dies move sooner;
//! - `partition.assignment.strategy`, which prefers `CooperativeStickyAssignor`.
//!
//! `receive.message.max.bytes` is librdkafka's; `fetch_memory` and `record_bytes_max` are our own.

use std::fmt;
use std::time::Duration;

use crate::metrics::ClientMetrics;
use crate::security::SecurityConfig;

/// Shared by producers, consumers and administration of one cluster.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// `bootstrap.servers`: `host:port` of the brokers to ask first.
    pub bootstrap_servers: Vec<String>,
    /// `security.protocol`, `ssl.*` and `sasl.*`
    pub security: SecurityConfig,
    /// `client.id`: the name that brokers use in logs and quotas.
    pub client_id: String,
    /// `client.rack`: empty when unknown.
    pub rack: String,
    /// `request.timeout.ms`
    pub request_timeout: Duration,
    /// `retry.backoff.ms`: the first wait before a failed request is sent again.
    pub retry_backoff: Duration,
    /// `retry.backoff.max.ms`
    pub retry_backoff_max: Duration,
    /// `reconnect.backoff.ms`
    pub reconnect_backoff: Duration,
    /// `reconnect.backoff.max.ms`
    pub reconnect_backoff_max: Duration,
    /// `socket.connection.setup.timeout.ms`
    pub connect_timeout: Duration,
    /// `connections.max.idle.ms`
    pub connections_max_idle: Duration,
    /// `metadata.max.age.ms`
    pub metadata_max_age: Duration,
    /// `receive.message.max.bytes` (librdkafka's): bytes of the largest response that is accepted,
    /// 8 or more. A larger one fails its request and ends
    /// the connection; fetches ask for half of it at most, and a single batch that is larger is
    /// reported as unreadable.
    pub receive_message_max_bytes: usize,
    /// Where the clients count (`metric.reporters`).
    pub metrics: ClientMetrics,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            bootstrap_servers: Vec::new(),
            security: SecurityConfig::default(),
            client_id: "kafka-websocket-proxy".to_owned(),
            rack: String::new(),
            request_timeout: Duration::from_secs(30),
            retry_backoff: Duration::from_millis(100),
            retry_backoff_max: Duration::from_secs(1),
            reconnect_backoff: Duration::from_millis(50),
            reconnect_backoff_max: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(10),
            connections_max_idle: Duration::from_secs(9 * 60),
            metadata_max_age: Duration::from_secs(5 * 60),
            receive_message_max_bytes: 100 << 20,
            metrics: ClientMetrics::default(),
        }
    }
}

/// What one kind of client has instead of what [`ClientConfig`] says for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestOverrides {
    /// `request.timeout.ms`
    pub request_timeout: Option<Duration>,
    /// `retry.backoff.ms`
    pub retry_backoff: Option<Duration>,
    /// `retry.backoff.max.ms`
    pub retry_backoff_max: Option<Duration>,
}

/// How record batches are compressed (`compression.type`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CompressionType {
    /// Not compressed.
    #[default]
    None,
    /// RFC 1952.
    Gzip,
    /// Snappy blocks in Xerial's framing, as the Java client writes them.
    Snappy,
    /// The LZ4 frame format.
    Lz4,
    /// RFC 8878.
    Zstd,
}

/// As `compression.type` has it.
impl fmt::Display for CompressionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CompressionType::None => "none",
            CompressionType::Gzip => "gzip",
            CompressionType::Snappy => "snappy",
            CompressionType::Lz4 => "lz4",
            CompressionType::Zstd => "zstd",
        })
    }
}

/// The idempotent producer.
#[derive(Clone, Debug)]
pub struct ProducerConfig {
    /// `linger.ms`. 0 still batches: records gather while requests are in flight.
    pub linger: Duration,
    /// `batch.size`, bytes before compression.
    pub batch_size: usize,
    /// `buffer.memory`, bytes of records not yet answered.
    pub buffer_memory: usize,
    /// `max.request.size`, bytes of one record and of one request.
    pub max_request_size: usize,
    /// `delivery.timeout.ms`
    pub delivery_timeout: Duration,
    /// `compression.type`
    pub compression: CompressionType,
    /// `max.in.flight.requests.per.connection`, 1 to 5.
    pub max_in_flight: usize,
    /// What its requests have of their own.
    pub requests: RequestOverrides,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            linger: Duration::ZERO,
            batch_size: 16 << 10,
            buffer_memory: 32 << 20,
            max_request_size: 1 << 20,
            delivery_timeout: Duration::from_secs(120),
            compression: CompressionType::None,
            max_in_flight: 5,
            requests: RequestOverrides::default(),
        }
    }
}

/// Fetching and group membership.
#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    /// `fetch.min.bytes`, 0 or more: how much a broker gathers before it answers a fetch at the
    /// end of the log, within `fetch.max.wait.ms`.
    pub fetch_min_bytes: i32,
    /// `fetch.max.bytes`, 1 or more: bytes of records in one fetch response, but for a first
    /// batch that is larger.
    pub fetch_max_bytes: i32,
    /// `max.partition.fetch.bytes`, 1 or more: bytes of records of one partition in one fetch
    /// response, but for a first batch that is larger.
    pub max_partition_fetch_bytes: i32,
    /// `fetch.max.wait.ms`: how long a broker holds a fetch at the end of the log.
    pub fetch_max_wait: Duration,
    /// Bytes of fetched records held in memory, over all consumers of a client.
    pub fetch_memory: usize,
    /// Bytes that one record may take; a larger one is reported as unreadable.
    pub record_bytes_max: usize,
    /// `session.timeout.ms`
    pub session_timeout: Duration,
    /// `heartbeat.interval.ms`
    pub heartbeat_interval: Duration,
    /// `max.poll.interval.ms`: how long a consumer may leave records unread.
    pub max_poll_interval: Duration,
    /// `partition.assignment.strategy`, in order of preference.
    pub assignors: Vec<AssignorName>,
    /// What their requests have of their own.
    pub requests: RequestOverrides,
}

/// A `partition.assignment.strategy` that this client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AssignorName {
    /// `org.apache.kafka.clients.consumer.RangeAssignor`
    Range,
    /// `org.apache.kafka.clients.consumer.CooperativeStickyAssignor`
    CooperativeSticky,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            fetch_min_bytes: 1,
            fetch_max_bytes: 50 << 20,
            max_partition_fetch_bytes: 1 << 20,
            fetch_max_wait: Duration::from_millis(500),
            fetch_memory: 64 << 20,
            record_bytes_max: 64 << 20,
            session_timeout: Duration::from_secs(15),
            heartbeat_interval: Duration::from_secs(3),
            max_poll_interval: Duration::from_secs(300),
            assignors: vec![AssignorName::CooperativeSticky, AssignorName::Range],
            requests: RequestOverrides::default(),
        }
    }
}
