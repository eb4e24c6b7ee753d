//! Keys of the configuration page that this version does not serve, with their variables.
//!
//! They are refused by name, whichever way they are given: ignoring a setting such as TLS
//! would be worse than not starting.

/// One key that a later version will have.
pub struct Later {
    /// The key, dotted, without `kafka.ws.proxy.`.
    pub name: &'static str,
    /// Environment variables that set it.
    pub variables: &'static [&'static str],
}

const fn later(name: &'static str, variables: &'static [&'static str]) -> Later {
    Later { name, variables }
}

/// Every such key, in the order of the configuration page.
pub const LATER: &[Later] = &[
    later("server.ssl.enabled", &["WSPROXY_SSL_ENABLED"]),
    later("server.ssl.ssl-only", &["WSPROXY_SSL_ONLY"]),
    later("server.ssl.bind-interface", &["WSPROXY_SSL_BIND_INTERFACE"]),
    later("server.ssl.port", &["WSPROXY_SSL_PORT"]),
    later(
        "server.ssl.keystore-location",
        &["WSPROXY_SSL_KEYSTORE_LOCATION"],
    ),
    later(
        "server.ssl.keystore-password",
        &["WSPROXY_SSL_KEYSTORE_PASS"],
    ),
    later(
        "server.ssl.client-ca-location",
        &["WSPROXY_SSL_CLIENT_CA_LOCATION"],
    ),
    later(
        "server.secure-health-check-endpoint",
        &["WSPROXY_SECURE_HEALTHCHECK_ENDPOINT"],
    ),
    later("server.basic-auth.enabled", &["WSPROXY_BASIC_AUTH_ENABLED"]),
    later("server.basic-auth.realm", &["WSPROXY_BASIC_AUTH_REALM"]),
    later(
        "server.basic-auth.username",
        &["WSPROXY_BASIC_AUTH_USERNAME"],
    ),
    later(
        "server.basic-auth.password",
        &["WSPROXY_BASIC_AUTH_PASSWORD"],
    ),
    later("server.openid-connect.enabled", &["WSPROXY_OPENID_ENABLED"]),
    later("server.openid-connect.realm", &["WSPROXY_OPENID_REALM"]),
    later(
        "server.openid-connect.well-known-url",
        &["WSPROXY_OPENID_WELLKNOWN"],
    ),
    later(
        "server.openid-connect.audience",
        &["WSPROXY_OPENID_AUDIENCE"],
    ),
    later(
        "server.openid-connect.allow-detailed-logging",
        &["WSPROXY_OPENID_ALLOW_DETAILED_LOGGING"],
    ),
    later(
        "server.openid-connect.revalidation-interval",
        &["WSPROXY_OPENID_REVALIDATION_INTERVAL"],
    ),
    later(
        "server.openid-connect.revalidation-errors-limit",
        &["WSPROXY_OPENID_REVALIDATION_ERRORS_LIMIT"],
    ),
    later(
        "server.openid-connect.custom-jwt.kafka-token-auth-only",
        &["WSPROXY_JWT_KAFKA_TOKEN_AUTH_ONLY"],
    ),
    later(
        "server.openid-connect.custom-jwt.jwt-kafka-username-key",
        &["WSPROXY_JWT_KAFKA_USERNAME_KEY"],
    ),
    later(
        "server.openid-connect.custom-jwt.jwt-kafka-password-key",
        &["WSPROXY_JWT_KAFKA_PASSWORD_KEY"],
    ),
    later("server.admin.enabled", &["WSPROXY_ADMIN_ENDPOINT_ENABLED"]),
    later(
        "server.admin.bind-interface",
        &["WSPROXY_ADMIN_BIND_INTERFACE"],
    ),
    later("server.admin.port", &["WSPROXY_ADMIN_PORT"]),
    later(
        "server.broker-resolution-timeout",
        &["WSPROXY_BROKER_RESOLUTION_TIMEOUT"],
    ),
    later(
        "server.broker-resolution-retries",
        &["WSPROXY_BROKER_RESOLUTION_RETRIES"],
    ),
    later(
        "server.broker-resolution-retry-interval",
        &["WSPROXY_BROKER_RESOLUTION_RETRY_INTERVAL"],
    ),
    later("server.console-enabled", &["WSPROXY_CONSOLE_ENABLED"]),
    later(
        "session-handler.session-state-topic-name",
        &["WSPROXY_SESSION_STATE_TOPIC"],
    ),
    later("session-handler.topic-name", &[]),
    later(
        "session-handler.session-state-replication-factor",
        &["WSPROXY_SESSION_STATE_REPLICATION_FACTOR"],
    ),
    later("session-handler.topic-replication-factor", &[]),
    later(
        "session-handler.session-state-retention",
        &["WSPROXY_SESSION_STATE_RETENTION"],
    ),
    later("session-handler.topic-retention", &[]),
    later(
        "session-handler.topic-init-timeout",
        &["WSPROXY_SESSION_STATE_TOPIC_INIT_TIMEOUT"],
    ),
    later(
        "session-handler.topic-init-retries",
        &["WSPROXY_SESSION_STATE_TOPIC_INIT_RETRIES"],
    ),
    later(
        "session-handler.topic-init-retry-interval",
        &["WSPROXY_SESSION_STATE_TOPIC_INIT_RETRY_INTERVAL"],
    ),
    later(
        "session-handler.lease-duration",
        &["WSPROXY_SESSION_LEASE_DURATION"],
    ),
    later(
        "commit-handler.auto-commit-enabled",
        &["WSPROXY_CH_AUTOCOMMIT_ENABLED"],
    ),
    later(
        "commit-handler.auto-commit-interval",
        &["WSPROXY_CH_AUTOCOMMIT_INTERVAL"],
    ),
    later(
        "commit-handler.auto-commit-max-age",
        &["WSPROXY_CH_AUTOCOMMIT_MAX_AGE"],
    ),
    later(
        "dynamic-config-handler.enabled",
        &["WSPROXY_DYNAMIC_CONFIG_HANDLER_ENABLED"],
    ),
    later(
        "dynamic-config-handler.topic-name",
        &["WSPROXY_DYNAMIC_CONFIG_TOPIC_NAME"],
    ),
    later(
        "dynamic-config-handler.topic-replication-factor",
        &["WSPROXY_DYNAMIC_CONFIG_REPLICATION_FACTOR"],
    ),
    later(
        "dynamic-config-handler.topic-retention",
        &["WSPROXY_DYNAMIC_CONFIG_RETENTION"],
    ),
    later(
        "dynamic-config-handler.topic-init-timeout",
        &["WSPROXY_DYNAMIC_CONFIG_TOPIC_INIT_TIMEOUT"],
    ),
    later(
        "dynamic-config-handler.topic-init-retries",
        &["WSPROXY_DYNAMIC_CONFIG_TOPIC_INIT_RETRIES"],
    ),
    later(
        "dynamic-config-handler.topic-init-retry-interval",
        &["WSPROXY_DYNAMIC_CONFIG_TOPIC_RETRY_INTERVAL"],
    ),
    later(
        "kafka-client.schema-registry.url",
        &["WSPROXY_SCHEMA_REGISTRY_URL"],
    ),
    later(
        "kafka-client.schema-registry.auto-register-schemas",
        &["WSPROXY_SCHEMA_AUTO_REGISTER"],
    ),
    later("kafka-client.auto-register-schemas", &[]),
    later(
        "kafka-client.schema-registry.properties.schema.registry.basic.auth.credentials.source",
        &["WSPROXY_SCHEMA_BASIC_AUTH_CREDS_SRC"],
    ),
    later(
        "kafka-client.schema-registry.properties.schema.registry.basic.auth.user.info",
        &["WSPROXY_SCHEMA_BASIC_AUTH_USER_INFO"],
    ),
    later(
        "kafka-client.metrics-enabled",
        &[
            "WSPROXY_CONFLUENT_METRICS_ENABLED",
            "WSPROXY_CONFLUENT_MONITORING_ENABLED",
        ],
    ),
    later("kafka-client.monitoring-enabled", &[]),
    later(
        "kafka-client.confluent-metrics.bootstrap-hosts",
        &[
            "WSPROXY_KAFKA_METRICS_BOOTSTRAP_HOSTS",
            "WSPROXY_KAFKA_MONITORING_BOOTSTRAP_HOSTS",
        ],
    ),
    later("kafka-client.confluent-monitoring.bootstrap-hosts", &[]),
    later(
        "kafka-client.confluent-metrics.properties.interceptor.topic",
        &[
            "WSPROXY_KAFKA_MONITORING_INTERCEPTOR_TOPIC",
            "WSPROXY_KAFKA_METRICS_INTERCEPTOR_TOPIC",
        ],
    ),
    later(
        "producer.sessions-enabled",
        &["WSPROXY_PRODUCER_SESSIONS_ENABLED"],
    ),
    later(
        "producer.exactly-once-enabled",
        &["WSPROXY_PRODUCER_EXACTLY_ONCE_ENABLED"],
    ),
    later(
        "producer.limits.default-messages-per-second",
        &["WSPROXY_PRODUCER_RATELIMIT_DEFAULT_MESSAGES_PER_SEC"],
    ),
    later(
        "producer.limits.default-max-connections-per-client",
        &["WSPROXY_PRODUCER_DEFAULT_MAX_CLIENT_CONNECTIONS"],
    ),
    later("producer.limits.client-specific-limits", &[]),
    later(
        "consumer.limits.default-messages-per-second",
        &["WSPROXY_CONSUMER_RATELIMIT_DEFAULT_MESSAGES_PER_SEC"],
    ),
    later(
        "consumer.limits.default-max-connections-per-client",
        &["WSPROXY_CONSUMER_DEFAULT_MAX_CLIENT_CONNECTIONS"],
    ),
    later(
        "consumer.limits.default-batch-size",
        &[
            "WSPROXY_CONSUMER_DEFAULT_BATCH_SIZE",
            "WSPROXY_DEFAULT_BATCH_SIZE",
        ],
    ),
    later("consumer.limits.client-specific-limits", &[]),
];

/// What begins a key of which the whole is not served, whatever follows.
const SECTIONS: &[&str] = &[
    "server.ssl",
    "server.basic-auth",
    "server.openid-connect",
    "server.admin",
    "session-handler",
    "dynamic-config-handler",
    "kafka-client.schema-registry",
    // The older spelling of kafka-client.schema-registry.url: the same flag.
    "kafka-client.schema-registry-url",
    "kafka-client.confluent-metrics",
    "kafka-client.confluent-monitoring",
    "producer.limits",
    "consumer.limits",
];

/// Whether `name` is a key that a later version will have.
pub fn is_later(name: &str) -> bool {
    let names = LATER.iter().map(|later| later.name);
    names.chain(SECTIONS.iter().copied()).any(|later| {
        name.strip_prefix(later)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

/// The key that `variable` will set in a later version.
pub(super) fn key_of_variable(variable: &str) -> Option<&'static str> {
    let listed = |later: &&Later| later.variables.contains(&variable);
    LATER.iter().find(listed).map(|later| later.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::KEYS;

    #[test]
    fn keys_of_later_versions_are_known_by_prefix() {
        assert!(is_later("server.ssl.port"));
        assert!(is_later("session-handler.lease-duration"));
        assert!(is_later("server.openid-connect"));
        assert!(!is_later("server.sslx"));
        assert!(!is_later("server.port"));
    }

    #[test]
    fn what_is_served_is_not_in_the_table_and_nothing_is_twice() {
        for key in KEYS {
            assert!(!is_later(key.name), "{}", key.name);
        }
        let served = KEYS.iter().flat_map(|key| key.variables);
        let mut variables: Vec<_> = LATER
            .iter()
            .flat_map(|l| l.variables)
            .chain(served)
            .collect();
        let count = variables.len();
        variables.sort();
        variables.dedup();
        assert_eq!(variables.len(), count);
    }
}
