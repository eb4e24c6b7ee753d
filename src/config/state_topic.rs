//! The topics in which the nodes of a deployment keep what they share: `session-handler.*` and
//! `dynamic-config-handler.*`.

use std::ops::RangeInclusive;
use std::time::Duration;

/// The keys of dynamic limits.
pub(super) const DYNAMIC_PREFIX: &str = "dynamic-config-handler.";
/// Whether there are any.
pub(super) const DYNAMIC_SWITCH: &str = "dynamic-config-handler.enabled";
/// What has no effect without them; its name first.
pub(super) const DYNAMIC_TOPIC_KEYS: [&str; 6] = [
    "dynamic-config-handler.topic-name",
    "dynamic-config-handler.topic-replication-factor",
    "dynamic-config-handler.topic-retention",
    "dynamic-config-handler.topic-init-timeout",
    "dynamic-config-handler.topic-init-retries",
    "dynamic-config-handler.topic-init-retry-interval",
];

/// A topic of one partition that is compacted.
#[derive(Clone, Debug)]
pub struct StateTopicConfig {
    /// `topic-name`
    pub name: String,
    /// How many replicas it is created with.
    pub replication_factor: i16,
    /// How old a record may get in it: `retention.ms`; zero: as old as it likes.
    pub retention: Duration,
    /// How long one try to find or create it may take.
    pub init_timeout: Duration,
    /// How many tries are made before they become rarer.
    pub init_retries: u32,
    /// From one try to the next.
    pub init_retry_interval: Duration,
}

impl StateTopicConfig {
    fn new(name: &str, retention: Duration) -> Self {
        Self {
            name: name.to_owned(),
            replication_factor: 3,
            retention,
            init_timeout: Duration::from_secs(30),
            init_retries: 25,
            init_retry_interval: Duration::from_secs(1),
        }
    }
}

/// `session-handler.*`
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Who is connected. Places that are held are written again before they are too old.
    pub topic: StateTopicConfig,
    /// How long the others wait for a node that is not heard of.
    pub lease_duration: Duration,
}

impl SessionConfig {
    /// What a lease may last: other nodes believe no longer one.
    pub(crate) const LEASE_DURATIONS: RangeInclusive<Duration> =
        Duration::from_secs(1)..=Duration::from_secs(600);
}

impl Default for SessionConfig {
    fn default() -> Self {
        let retention = Duration::from_secs(30 * 24 * 3_600);
        Self {
            topic: StateTopicConfig::new("_wsproxy.session.state", retention),
            lease_duration: Duration::from_secs(15),
        }
    }
}

/// `dynamic-config-handler.*`
#[derive(Clone, Debug)]
pub struct DynamicLimitsConfig {
    /// Whether limits can be changed while the proxy runs.
    pub enabled: bool,
    /// The entries.
    pub topic: StateTopicConfig,
}

impl Default for DynamicLimitsConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            topic: StateTopicConfig::new("_wsproxy.dynamic.configs", Duration::ZERO),
        }
    }
}
