//! Keys of the proxy, by their whole name.

use std::time::Duration;

use super::{ConfigKey, KeyHandling, LaterKey, Setting, assign};
use crate::config::client_limits::{BATCH_SIZE_MAX, LimitedClients};
use crate::config::ssl::secret;
use crate::config::transactions;
use crate::config::value;
use crate::config::{
    AllowedOrigins, LogFormat, SessionConfig, TopicGlobs, TrustedProxies, log_level,
};

/// Every key but the Kafka client properties. Settings are in the order of the help text.
#[rustfmt::skip] // A row is a line where it can be.
pub(crate) const PROXY_KEYS: &[ConfigKey] = &[
    // The cluster.
    setting("kafka-client.bootstrap-hosts", &["WSPROXY_KAFKA_BOOTSTRAP_HOSTS", "WSPROXY_KAFKA_BOOTSTRAP_URLS"], Setting {
        default: None,
        placeholder: "HOST:PORT,…",
        help: "Brokers to ask first; required unless --dev is given",
        set: |c, text| assign(&mut c.client.bootstrap_servers, value::hosts(text)),
    }).replaced_by_dev(),
    setting("kafka-client.schema-registry.url", &["WSPROXY_SCHEMA_REGISTRY_URL"], Setting {
        default: None,
        placeholder: "URL,…",
        help: "Schema registries (Confluent's API), each tried when the one before does not answer; for socketPayload=avro",
        set: |c, text| assign(&mut c.schema_registry.urls, value::registry_urls(text)),
    }).also(&["kafka-client.schema-registry-url"]),
    setting("kafka-client.schema-registry.auto-register-schemas", &["WSPROXY_SCHEMA_AUTO_REGISTER"], Setting {
        default: Some("true"),
        placeholder: "BOOLEAN",
        help: "Whether the schemas of our own messages are registered; otherwise they have to be there",
        set: |c, text| assign(&mut c.schema_registry.auto_register_schemas, value::boolean(text)),
    }).also(&["kafka-client.auto-register-schemas"]),
    setting("kafka-client.schema-registry.properties.schema.registry.basic.auth.credentials.source", &["WSPROXY_SCHEMA_BASIC_AUTH_CREDS_SRC"], Setting {
        default: Some("USER_INFO"),
        placeholder: "SOURCE",
        help: "USER_INFO (the setting, else the URL) or URL: where the registry's user and password are",
        set: |c, text| assign(&mut c.schema_registry.credentials_source, value::credentials_source(text)),
    }),
    setting("kafka-client.schema-registry.properties.schema.registry.basic.auth.user.info", &["WSPROXY_SCHEMA_BASIC_AUTH_USER_INFO"], Setting {
        default: None,
        placeholder: "USER:PASSWORD",
        help: "User and password for the schema registry",
        set: |c, text| assign(&mut c.schema_registry.user_info, value::user_info(text).map(Some)),
    }).secret(),
    unsupported("kafka-client.schema-registry.*", &[]).secret(),
    setting("kafka-client.metrics-enabled", &["WSPROXY_CONFLUENT_METRICS_ENABLED", "WSPROXY_CONFLUENT_MONITORING_ENABLED"], Setting {
        default: Some("false"),
        placeholder: "BOOLEAN",
        help: "Whether the metrics are sent to a topic every 15 s, as OTLP; kafka-client.confluent-metrics.properties.* are the Kafka client properties for that, and those of kafka-client.properties where one is not given",
        set: |c, text| assign(&mut c.metrics_reporter.enabled, value::boolean(text)),
    }).also(&["kafka-client.monitoring-enabled"]),
    setting("kafka-client.confluent-metrics.bootstrap-hosts", &["WSPROXY_KAFKA_METRICS_BOOTSTRAP_HOSTS", "WSPROXY_KAFKA_MONITORING_BOOTSTRAP_HOSTS"], Setting {
        default: None,
        placeholder: "HOST:PORT,…",
        help: "Brokers that the metrics are sent to; without it those of kafka-client",
        set: |c, text| assign(&mut c.metrics_reporter.bootstrap_servers, value::hosts(text).map(Some)),
    }),
    setting("kafka-client.confluent-metrics.properties.interceptor.topic", &["WSPROXY_KAFKA_MONITORING_INTERCEPTOR_TOPIC", "WSPROXY_KAFKA_METRICS_INTERCEPTOR_TOPIC"], Setting {
        default: Some("_confluent-metrics"),
        placeholder: "TOPIC",
        help: "Topic that the metrics are sent to; created when it is absent",
        set: |c, text| assign(&mut c.metrics_reporter.topic, value::non_empty(text)),
    }),

    setting("dev.broker-port", &["WSPROXY_DEV_BROKER_PORT"], Setting {
        default: Some("19092"),
        placeholder: "PORT",
        help: "With --dev: TCP port of the built-in broker on 127.0.0.1; 0 takes a free one",
        set: |c, text| assign(&mut c.dev_broker.port, value::number(text, 0..=65_535)),
    }),

    // The server.
    setting("server.port", &["WSPROXY_PORT"], Setting {
        default: Some("8078"),
        placeholder: "PORT",
        help: "TCP port to listen on; 0 takes a free one and logs it",
        set: |c, text| assign(&mut c.server.port, value::number(text, 0..=65_535)),
    }),
    setting("server.bind-interface", &["WSPROXY_BIND_INTERFACE"], Setting {
        default: Some("0.0.0.0"),
        placeholder: "ADDRESS",
        help: "Address to listen on; with --dev 127.0.0.1 unless it is given",
        set: |c, text| assign(&mut c.server.bind_interface, value::interface(text)),
    }).by_default_in_dev("127.0.0.1"),
    setting("server.server-id", &["WSPROXY_SERVER_ID"], Setting {
        default: Some("node-1"),
        placeholder: "NAME",
        help: "Name of this node, different for each node of a deployment",
        set: |c, text| assign(&mut c.server.server_id, value::non_empty(text)),
    }),
    setting("server.shutdown-grace", &["WSPROXY_SHUTDOWN_GRACE"], Setting {
        default: Some("20 seconds"),
        placeholder: "DURATION",
        help: "How long a stop may take to answer, commit and close",
        set: |c, text| assign(&mut c.server.shutdown_grace, value::duration(text)),
    }),
    setting("server.drain-delay", &["WSPROXY_DRAIN_DELAY"], Setting {
        default: Some("0 seconds"),
        placeholder: "DURATION",
        help: "How long the server goes on serving after SIGTERM, with /ready at 503; server.shutdown-grace begins then",
        set: |c, text| assign(&mut c.server.drain_delay, value::duration(text)),
    }),
    setting("server.drain-spread", &["WSPROXY_DRAIN_SPREAD"], Setting {
        default: Some("2 seconds"),
        placeholder: "DURATION",
        help: "Over what time a stop closes the sockets, evenly; at most half of server.shutdown-grace",
        set: |c, text| assign(&mut c.server.drain_spread, value::duration(text)),
    }),
    setting("server.broker-resolution-timeout", &["WSPROXY_BROKER_RESOLUTION_TIMEOUT"], Setting {
        default: Some("30 seconds"),
        placeholder: "DURATION",
        help: "How long the names of the bootstrap hosts are looked up at start, before those without an address are named in the log",
        set: |c, text| assign(&mut c.server.broker_resolution.timeout, value::positive_duration(text)),
    }),
    setting("server.broker-resolution-retries", &["WSPROXY_BROKER_RESOLUTION_RETRIES"], Setting {
        default: Some("25"),
        placeholder: "COUNT",
        help: "How often such a look-up is tried again; the clients go on trying in any case",
        set: |c, text| assign(&mut c.server.broker_resolution.retries, value::number(text, 0..=1_000_000)),
    }),
    setting("server.broker-resolution-retry-interval", &["WSPROXY_BROKER_RESOLUTION_RETRY_INTERVAL"], Setting {
        default: Some("1 second"),
        placeholder: "DURATION",
        help: "How long to wait before that",
        set: |c, text| assign(&mut c.server.broker_resolution.retry_interval, value::positive_duration(text)),
    }),
    setting("server.trusted-proxies", &["WSPROXY_TRUSTED_PROXIES"], Setting {
        default: Some("none"),
        placeholder: "ADDRESS,…",
        help: "Reverse proxies whose X-Forwarded-For is believed, such as 10.0.0.0/8; for the log",
        set: |c, text| assign(&mut c.server.trusted_proxies, TrustedProxies::parse(text)),
    }),
    setting("server.expose-broker-addresses", &["WSPROXY_EXPOSE_BROKER_ADDRESSES"], Setting {
        default: None,
        placeholder: "BOOLEAN",
        help: "Whether /ready and 503 tell clients which broker does not answer; without it, only with --dev",
        set: |c, text| assign(&mut c.server.expose_broker_addresses, value::boolean(text).map(Some)),
    }),
    setting("server.console-enabled", &["WSPROXY_CONSOLE_ENABLED"], Setting {
        default: Some("false"),
        placeholder: "BOOLEAN",
        help: "Whether GET / is the console, a page to produce and consume on; with --dev it is unless this is given",
        set: |c, text| assign(&mut c.server.console_enabled, value::boolean(text)),
    }).by_default_in_dev("true"),
    setting("server.limits.connections-max", &["WSPROXY_LIMITS_CONNECTIONS_MAX"], Setting {
        default: Some("0"),
        placeholder: "COUNT",
        help: "Connections of clients on this node; 0 takes what the limit of descriptors allows",
        set: |c, text| assign(&mut c.server.limits.connections_max, value::number(text, 0..=i64::from(u32::MAX))),
    }),
    setting("server.limits.header-bytes-max", &["WSPROXY_LIMITS_HEADER_BYTES_MAX"], Setting {
        default: Some("32 KiB"),
        placeholder: "SIZE",
        help: "Longest head of a request; a longer one is answered with 431",
        set: |c, text| assign(&mut c.server.limits.header_bytes_max, value::size_within(text, 8 << 10..=1 << 20)),
    }),
    setting("server.limits.header-timeout", &["WSPROXY_LIMITS_HEADER_TIMEOUT"], Setting {
        default: Some("10 seconds"),
        placeholder: "DURATION",
        help: "How long a client may take to send the head of a request",
        set: |c, text| assign(&mut c.server.limits.header_timeout, value::positive_duration(text)),
    }),
    setting("server.limits.metrics-topics-max", &["WSPROXY_LIMITS_METRICS_TOPICS_MAX"], Setting {
        default: Some("100"),
        placeholder: "COUNT",
        help: "Topics that have series of their own in the metrics; those that are used later share the series of topic (other)",
        set: |c, text| assign(&mut c.server.limits.metrics_topics_max, value::number(text, 0..=100_000)),
    }),
    setting("server.limits.handshake-timeout", &["WSPROXY_LIMITS_HANDSHAKE_TIMEOUT"], Setting {
        default: Some("10 seconds"),
        placeholder: "DURATION",
        help: "How long a client may take for the handshake of TLS",
        set: |c, text| assign(&mut c.server.limits.handshake_timeout, value::positive_duration(text)),
    }),
    setting("server.ssl.enabled", &["WSPROXY_SSL_ENABLED"], Setting {
        default: None,
        placeholder: "BOOLEAN",
        help: "Whether clients can use TLS; without it they can where server.ssl.port is set",
        set: |c, text| assign(&mut c.server.ssl.enabled, value::boolean(text).map(Some)),
    }),
    setting("server.ssl.ssl-only", &["WSPROXY_SSL_ONLY"], Setting {
        default: Some("false"),
        placeholder: "BOOLEAN",
        help: "Whether clients can use nothing but TLS: server.port is closed then",
        set: |c, text| assign(&mut c.server.ssl.only, value::boolean(text)),
    }),
    setting("server.ssl.port", &["WSPROXY_SSL_PORT"], Setting {
        default: None,
        placeholder: "PORT",
        help: "TCP port to listen on with TLS; 0 takes a free one and logs it",
        set: |c, text| assign(&mut c.server.ssl.port, value::number(text, 0..=65_535).map(Some)),
    }),
    setting("server.ssl.bind-interface", &["WSPROXY_SSL_BIND_INTERFACE"], Setting {
        default: Some("0.0.0.0"),
        placeholder: "ADDRESS",
        help: "Address to listen on with TLS; with --dev 127.0.0.1 unless it is given",
        set: |c, text| assign(&mut c.server.ssl.bind_interface, value::interface(text)),
    }).by_default_in_dev("127.0.0.1"),
    setting("server.ssl.keystore-location", &["WSPROXY_SSL_KEYSTORE_LOCATION"], Setting {
        default: None,
        placeholder: "FILE",
        help: "Certificate, those that lead to a root, and key of the server, in one file: PEM, PKCS12 or JKS; read again when it has changed, and on SIGHUP",
        set: |c, text| assign(&mut c.server.ssl.key_store, Ok(text.into())),
    }),
    setting("server.ssl.keystore-password", &["WSPROXY_SSL_KEYSTORE_PASS"], Setting {
        default: None,
        placeholder: "TEXT",
        help: "Password of the key store",
        set: |c, text| assign(&mut c.server.ssl.key_store_password, Ok(secret(text))),
    }).secret(),
    setting("server.ssl.client-ca-location", &["WSPROXY_SSL_CLIENT_CA_LOCATION"], Setting {
        default: None,
        placeholder: "FILE",
        help: "Certificate authorities of clients, as PEM; given, clients must present a certificate of theirs",
        set: |c, text| assign(&mut c.server.ssl.client_ca, value::file(text).map(Some)),
    }),
    setting("server.healthcheck-cert", &["WSPROXY_HEALTHCHECK_CERT"], Setting {
        default: None,
        placeholder: "FILE",
        help: "What the command healthcheck presents where clients must have a certificate: certificate and key as PEM",
        set: |c, text| assign(&mut c.server.healthcheck_cert, value::file(text).map(Some)),
    }),
    setting("server.websocket.ping-interval", &["WSPROXY_WS_PING_INTERVAL"], Setting {
        default: Some("20 seconds"),
        placeholder: "DURATION",
        help: "Idle sockets are pinged this often, and dropped after two silent intervals",
        set: |c, text| assign(&mut c.server.websocket.ping_interval, value::positive_duration(text)),
    }),
    setting("server.websocket.max-message-size", &["WSPROXY_WS_MAX_MESSAGE_SIZE"], Setting {
        default: Some("1 MiB"),
        placeholder: "SIZE",
        help: "Largest message a client may send",
        set: |c, text| assign(&mut c.server.websocket.max_message_size, value::size_within(text, 125..=1 << 30)),
    }),
    setting("server.websocket.send-buffer", &["WSPROXY_WS_SEND_BUFFER"], Setting {
        default: Some("256 KiB"),
        placeholder: "SIZE",
        help: "Bytes of answers that may wait for one client that does not read",
        set: |c, text| assign(&mut c.server.websocket.send_buffer, value::size_within(text, 4096..=1 << 30)),
    }),
    setting("server.websocket.max-connections", &["WSPROXY_WS_MAX_CONNECTIONS"], Setting {
        default: Some("0"),
        placeholder: "COUNT",
        help: "Open WebSockets on this node; 0 sets no limit",
        set: |c, text| assign(&mut c.server.websocket.max_connections, value::number(text, 0..=i64::from(u32::MAX))),
    }),
    setting("server.websocket.allowed-origins", &["WSPROXY_WS_ALLOWED_ORIGINS"], Setting {
        default: Some("*"),
        placeholder: "ORIGIN,…",
        help: "Origins whose pages may use this server, such as https://app.example.org; * is any, with --dev only loopback and null unless it is given",
        set: |c, text| assign(&mut c.server.websocket.origins, AllowedOrigins::parse(text)),
    }).by_default_in_dev("loopback,null"),
    setting("server.websocket.compression", &["WSPROXY_WS_COMPRESSION"], Setting {
        default: Some("true"),
        placeholder: "BOOLEAN",
        help: "Whether messages are compressed (permessage-deflate) where a client offers it",
        set: |c, text| assign(&mut c.server.websocket.compression, value::boolean(text)),
    }),
    setting("server.topics.produce-allowed", &["WSPROXY_TOPICS_PRODUCE_ALLOWED"], Setting {
        default: None,
        placeholder: "GLOB,…",
        help: "Topics that clients may write to, such as orders.*; without it all but those that begin with __",
        set: |c, text| assign(&mut c.server.topics.produce_allowed, TopicGlobs::parse(text)),
    }),
    setting("server.topics.consume-allowed", &["WSPROXY_TOPICS_CONSUME_ALLOWED"], Setting {
        default: None,
        placeholder: "GLOB,…",
        help: "Topics that clients may read; without it all but those that begin with __",
        set: |c, text| assign(&mut c.server.topics.consume_allowed, TopicGlobs::parse(text)),
    }),
    setting("server.transactional-id-prefix", &["WSPROXY_TRANSACTIONAL_ID_PREFIX"], Setting {
        default: Some("wsproxy-"),
        placeholder: "TEXT",
        help: "What the transactional ids begin with, for the ACLs of the brokers; the same on all nodes",
        set: |c, text| assign(&mut c.transactions.id_prefix, transactions::id_prefix(text)),
    }),
    setting("server.limits.authentications-max", &["WSPROXY_LIMITS_AUTHENTICATIONS_MAX"], Setting {
        default: Some("100"),
        placeholder: "COUNT",
        help: "Kafka users whose credentials are verified at once; the others wait for 5 seconds, then get 503",
        set: |c, text| assign(&mut c.server.limits.authentications_max, value::number(text, 1..=1_000_000)),
    }),
    setting("server.limits.principals-max", &["WSPROXY_LIMITS_PRINCIPALS_MAX"], Setting {
        default: Some("1000"),
        placeholder: "COUNT",
        help: "Kafka users with sockets under their own credentials, on this node; one more gets 503",
        set: |c, text| assign(&mut c.server.limits.principals_max, value::number(text, 1..=1_000_000)),
    }),
    setting("server.secure-health-check-endpoint", &["WSPROXY_SECURE_HEALTHCHECK_ENDPOINT"], Setting {
        default: Some("true"),
        placeholder: "BOOLEAN",
        help: "Whether /healthcheck, /ready and /metrics ask for credentials as other paths do",
        set: |c, text| assign(&mut c.server.secure_health_check_endpoint, value::boolean(text)),
    }),
    setting("server.basic-auth.enabled", &["WSPROXY_BASIC_AUTH_ENABLED"], Setting {
        default: None,
        placeholder: "BOOLEAN",
        help: "Whether clients are asked for user and password (Authorization: Basic)",
        set: |c, text| assign(&mut c.server.basic_auth.enabled, value::boolean(text).map(Some)),
    }),
    setting("server.basic-auth.realm", &["WSPROXY_BASIC_AUTH_REALM"], Setting {
        default: None,
        placeholder: "TEXT",
        help: "What clients are told that user and password are for; without it kafka-websocket-proxy",
        set: |c, text| assign(&mut c.server.basic_auth.realm, value::header_text(text).map(Some)),
    }),
    setting("server.basic-auth.username", &["WSPROXY_BASIC_AUTH_USERNAME"], Setting {
        default: None,
        placeholder: "TEXT",
        help: "The user",
        set: |c, text| assign(&mut c.server.basic_auth.username, Ok(secret(text))),
    }).secret(),
    setting("server.basic-auth.password", &["WSPROXY_BASIC_AUTH_PASSWORD"], Setting {
        default: None,
        placeholder: "TEXT",
        help: "The password",
        set: |c, text| assign(&mut c.server.basic_auth.password, Ok(secret(text))),
    }).secret(),
    setting("server.openid-connect.enabled", &["WSPROXY_OPENID_ENABLED"], Setting {
        default: None,
        placeholder: "BOOLEAN",
        help: "Whether clients are asked for a token of an OpenID provider (Authorization: Bearer)",
        set: |c, text| assign(&mut c.server.openid_connect.enabled, value::boolean(text).map(Some)),
    }),
    setting("server.openid-connect.realm", &["WSPROXY_OPENID_REALM"], Setting {
        default: None,
        placeholder: "TEXT",
        help: "What clients are told that the token is for; without it kafka-websocket-proxy",
        set: |c, text| assign(&mut c.server.openid_connect.realm, value::header_text(text).map(unless_empty)),
    }),
    setting("server.openid-connect.well-known-url", &["WSPROXY_OPENID_WELLKNOWN"], Setting {
        default: None,
        placeholder: "URL",
        help: "Where the provider describes itself, such as https://idp.example/.well-known/openid-configuration",
        set: |c, text| assign(&mut c.server.openid_connect.well_known_url, value::well_known_url(text).map(Some)),
    }),
    setting("server.openid-connect.audience", &["WSPROXY_OPENID_AUDIENCE"], Setting {
        default: None,
        placeholder: "TEXT",
        help: "What tokens must be for (aud)",
        set: |c, text| assign(&mut c.server.openid_connect.audience, value::non_empty(text).map(Some)),
    }),
    setting("server.openid-connect.allow-detailed-logging", &["WSPROXY_OPENID_ALLOW_DETAILED_LOGGING"], Setting {
        default: Some("false"),
        placeholder: "BOOLEAN",
        help: "Whether the log says why a token was refused; its client learns it in any case",
        set: |c, text| assign(&mut c.server.openid_connect.allow_detailed_logging, value::boolean(text)),
    }),
    setting("server.openid-connect.revalidation-interval", &["WSPROXY_OPENID_REVALIDATION_INTERVAL"], Setting {
        default: Some("10 minutes"),
        placeholder: "DURATION",
        help: "How often the provider's keys are fetched again; sockets whose key is not among them are closed",
        set: |c, text| assign(&mut c.server.openid_connect.revalidation_interval, value::duration_from(text, Duration::from_secs(1))),
    }),
    setting("server.openid-connect.revalidation-errors-limit", &["WSPROXY_OPENID_REVALIDATION_ERRORS_LIMIT"], Setting {
        default: Some("-1"),
        placeholder: "COUNT",
        help: "How many of these fetches fail in a row before the keys are not trusted any more, and their sockets are closed; -1: any number",
        set: |c, text| assign(&mut c.server.openid_connect.revalidation_errors_limit, value::limit(text)),
    }),
    setting("server.openid-connect.truststore-location", &["WSPROXY_OPENID_TRUSTSTORE_LOCATION"], Setting {
        default: None,
        placeholder: "FILE",
        help: "Certificate authorities of the provider (PEM, PKCS #12 or JKS); without it those of the system, or else those that browsers trust",
        set: |c, text| assign(&mut c.server.openid_connect.truststore_location, value::file(text).map(Some)),
    }),
    setting("server.openid-connect.truststore-password", &["WSPROXY_OPENID_TRUSTSTORE_PASS"], Setting {
        default: None,
        placeholder: "TEXT",
        help: "Password of that trust store",
        set: |c, text| assign(&mut c.server.openid_connect.truststore_password, Ok(secret(text))),
    }).secret(),
    setting("server.openid-connect.kafka-oauthbearer", &["WSPROXY_OPENID_KAFKA_OAUTHBEARER"], Setting {
        default: Some("false"),
        placeholder: "BOOLEAN",
        help: "Whether a client's token is presented to the brokers (OAUTHBEARER), so that its socket has the rights of that user",
        set: |c, text| assign(&mut c.server.openid_connect.kafka_oauthbearer, value::boolean(text)),
    }),
    setting("server.openid-connect.custom-jwt.kafka-token-auth-only", &["WSPROXY_JWT_KAFKA_TOKEN_AUTH_ONLY"], Setting {
        default: Some("false"),
        placeholder: "BOOLEAN",
        help: "Whether a socket is refused whose token has no Kafka credentials",
        set: |c, text| assign(&mut c.server.openid_connect.custom_jwt.kafka_token_auth_only, value::boolean(text)),
    }),
    setting("server.openid-connect.custom-jwt.jwt-kafka-username-key", &["WSPROXY_JWT_KAFKA_USERNAME_KEY"], Setting {
        default: None,
        placeholder: "CLAIM",
        help: "Claim of the token that has the Kafka user",
        set: |c, text| assign(&mut c.server.openid_connect.custom_jwt.username_claim, Ok(unless_empty(text.to_owned()))),
    }),
    setting("server.openid-connect.custom-jwt.jwt-kafka-password-key", &["WSPROXY_JWT_KAFKA_PASSWORD_KEY"], Setting {
        default: None,
        placeholder: "CLAIM",
        help: "Claim of the token that has the Kafka password",
        set: |c, text| assign(&mut c.server.openid_connect.custom_jwt.password_claim, Ok(unless_empty(text.to_owned()))),
    }),
    setting("server.admin.enabled", &["WSPROXY_ADMIN_ENDPOINT_ENABLED"], Setting {
        default: Some("false"),
        placeholder: "BOOLEAN",
        help: "Whether there is the admin server, at which operators see and change consumer groups, and see and close sockets; by TLS if clients of the server can use that",
        set: |c, text| assign(&mut c.server.admin.enabled, value::boolean(text)),
    }),
    setting("server.admin.bind-interface", &["WSPROXY_ADMIN_BIND_INTERFACE"], Setting {
        default: None,
        placeholder: "ADDRESS",
        help: "Address that it listens on; without it that of the server",
        set: |c, text| assign(&mut c.server.admin.bind_interface, value::interface(text).map(Some)),
    }),
    setting("server.admin.port", &["WSPROXY_ADMIN_PORT"], Setting {
        default: Some("9078"),
        placeholder: "PORT",
        help: "TCP port that it listens on; 0 takes a free one and logs it",
        set: |c, text| assign(&mut c.server.admin.port, value::number(text, 0..=65_535)),
    }),

    // Who is connected, over all nodes.
    setting("session-handler.session-state-topic-name", &["WSPROXY_SESSION_STATE_TOPIC"], Setting {
        default: Some("_wsproxy.session.state"),
        placeholder: "TOPIC",
        help: "Topic in which the nodes of a deployment keep who is connected; no client may use it",
        set: |c, text| assign(&mut c.sessions.topic.name, value::non_empty(text)),
    })
        .also(&["session-handler.topic-name"]),
    setting("session-handler.session-state-replication-factor", &["WSPROXY_SESSION_STATE_REPLICATION_FACTOR"], Setting {
        default: Some("3"),
        placeholder: "COUNT",
        help: "Replicas it is created with; fewer, with a warning, where there are fewer brokers",
        set: |c, text| assign(&mut c.sessions.topic.replication_factor, value::number(text, 1..=i64::from(i16::MAX))),
    })
        .also(&["session-handler.topic-replication-factor"]),
    setting("session-handler.session-state-retention", &["WSPROXY_SESSION_STATE_RETENTION"], Setting {
        default: Some("30 days"),
        placeholder: "DURATION",
        help: "How long a record stays in it; those of open sockets are written again before",
        set: |c, text| assign(&mut c.sessions.topic.retention, value::duration_from(text, Duration::from_secs(1))),
    })
        .also(&["session-handler.topic-retention"]),
    setting("session-handler.topic-init-timeout", &["WSPROXY_SESSION_STATE_TOPIC_INIT_TIMEOUT"], Setting {
        default: Some("30 seconds"),
        placeholder: "DURATION",
        help: "How long one try to find or create it may take",
        set: |c, text| assign(&mut c.sessions.topic.init_timeout, value::positive_duration(text)),
    }),
    setting("session-handler.topic-init-retries", &["WSPROXY_SESSION_STATE_TOPIC_INIT_RETRIES"], Setting {
        default: Some("25"),
        placeholder: "COUNT",
        help: "Tries before they become rarer; the proxy goes on without an end",
        set: |c, text| assign(&mut c.sessions.topic.init_retries, value::number(text, 0..=1_000_000)),
    }),
    setting("session-handler.topic-init-retry-interval", &["WSPROXY_SESSION_STATE_TOPIC_INIT_RETRY_INTERVAL"], Setting {
        default: Some("1 second"),
        placeholder: "DURATION",
        help: "From one try to the next",
        set: |c, text| assign(&mut c.sessions.topic.init_retry_interval, value::positive_duration(text)),
    }),
    setting("session-handler.lease-duration", &["WSPROXY_SESSION_LEASE_DURATION"], Setting {
        default: Some("15 seconds"),
        placeholder: "DURATION",
        help: "How long a node that is not heard of keeps its sockets' places; renewed at a third of it",
        set: |c, text| assign(&mut c.sessions.lease_duration, value::duration_within(text, SessionConfig::LEASE_DURATIONS)),
    }),

    // Commits that clients ask for.
    setting("commit-handler.max-stack-size", &["WSPROXY_CH_MAX_STACK_SIZE"], Setting {
        default: Some("100"),
        placeholder: "COUNT",
        help: "Uncommitted records remembered per partition of a socket with autoCommit=false",
        set: |c, text| assign(&mut c.commits.max_stack_size, value::number(text, 1..=1_000_000)),
    }),
    setting("commit-handler.auto-commit-enabled", &["WSPROXY_CH_AUTOCOMMIT_ENABLED"], Setting {
        default: Some("false"),
        placeholder: "BOOLEAN",
        help: "Whether what a client with autoCommit=false does not commit is committed for it in the end",
        set: |c, text| assign(&mut c.commits.auto_commit_enabled, value::boolean(text)),
    }),
    setting("commit-handler.auto-commit-interval", &["WSPROXY_CH_AUTOCOMMIT_INTERVAL"], Setting {
        default: Some("1 second"),
        placeholder: "DURATION",
        help: "How often uncommitted records are looked through for old ones, which are then committed",
        set: |c, text| assign(&mut c.commits.auto_commit_interval, value::positive_duration(text)),
    }),
    setting("commit-handler.auto-commit-max-age", &["WSPROXY_CH_AUTOCOMMIT_MAX_AGE"], Setting {
        default: Some("20 seconds"),
        placeholder: "DURATION",
        help: "How long after its delivery an uncommitted record is old",
        set: |c, text| assign(&mut c.commits.auto_commit_max_age, value::duration(text)),
    }),

    // Limits that change while the proxy runs.
    setting("dynamic-config-handler.enabled", &["WSPROXY_DYNAMIC_CONFIG_HANDLER_ENABLED"], Setting {
        default: Some("false"),
        placeholder: "BOOLEAN",
        help: "Whether limits of single clients and groups can be changed while the proxy runs, at the admin server",
        set: |c, text| assign(&mut c.dynamic_limits.enabled, value::boolean(text)),
    }),
    setting("dynamic-config-handler.topic-name", &["WSPROXY_DYNAMIC_CONFIG_TOPIC_NAME"], Setting {
        default: Some("_wsproxy.dynamic.configs"),
        placeholder: "TOPIC",
        help: "Topic in which the nodes of a deployment keep them; no client may use it",
        set: |c, text| assign(&mut c.dynamic_limits.topic.name, value::non_empty(text)),
    }),
    setting("dynamic-config-handler.topic-replication-factor", &["WSPROXY_DYNAMIC_CONFIG_REPLICATION_FACTOR"], Setting {
        default: Some("3"),
        placeholder: "COUNT",
        help: "Replicas it is created with; fewer, with a warning, where there are fewer brokers",
        set: |c, text| assign(&mut c.dynamic_limits.topic.replication_factor, value::number(text, 1..=i64::from(i16::MAX))),
    }),
    setting("dynamic-config-handler.topic-retention", &["WSPROXY_DYNAMIC_CONFIG_RETENTION"], Setting {
        default: Some("0"),
        placeholder: "DURATION",
        help: "How long an entry stays in it; 0: for ever",
        set: |c, text| assign(&mut c.dynamic_limits.topic.retention, value::duration(text)),
    }),
    setting("dynamic-config-handler.topic-init-timeout", &["WSPROXY_DYNAMIC_CONFIG_TOPIC_INIT_TIMEOUT"], Setting {
        default: Some("30 seconds"),
        placeholder: "DURATION",
        help: "How long one try to find or create it may take",
        set: |c, text| assign(&mut c.dynamic_limits.topic.init_timeout, value::positive_duration(text)),
    }),
    setting("dynamic-config-handler.topic-init-retries", &["WSPROXY_DYNAMIC_CONFIG_TOPIC_INIT_RETRIES"], Setting {
        default: Some("25"),
        placeholder: "COUNT",
        help: "Tries before they become rarer; the proxy goes on without an end",
        set: |c, text| assign(&mut c.dynamic_limits.topic.init_retries, value::number(text, 0..=1_000_000)),
    }),
    setting("dynamic-config-handler.topic-init-retry-interval", &["WSPROXY_DYNAMIC_CONFIG_TOPIC_RETRY_INTERVAL"], Setting {
        default: Some("1 second"),
        placeholder: "DURATION",
        help: "From one try to the next",
        set: |c, text| assign(&mut c.dynamic_limits.topic.init_retry_interval, value::positive_duration(text)),
    }),

    // Producing.
    setting("producer.delivery-timeout-ms", &["WSPROXY_KAFKA_PRODUCER_DELIVER_TIMEOUT_MS"], Setting {
        default: Some("120000"),
        placeholder: "MILLISECONDS",
        help: "How long a record may take to be acknowledged",
        set: |c, text| assign(&mut c.producer.delivery_timeout, value::millis(text)),
    }),
    setting("producer.compression-type", &["WSPROXY_KAFKA_PRODUCER_COMPRESSION_TYPE"], Setting {
        default: Some("none"),
        placeholder: "CODEC",
        help: "none, gzip, snappy, lz4 or zstd",
        set: |c, text| assign(&mut c.producer.compression, value::compression(text)),
    }),
    setting("producer.sessions-enabled", &["WSPROXY_PRODUCER_SESSIONS_ENABLED"], Setting {
        default: Some("false"),
        placeholder: "BOOLEAN",
        help: "Whether sockets of /socket/in have to have clientId and instanceId, of which each pair is connected once, over all nodes",
        set: |c, text| assign(&mut c.producer_sessions, value::boolean(text)),
    }),
    setting("producer.exactly-once-enabled", &["WSPROXY_PRODUCER_EXACTLY_ONCE_ENABLED"], Setting {
        default: Some("false"),
        placeholder: "BOOLEAN",
        help: "Whether clients may write in transactions: /socket/in?transactional=true&clientId=…",
        set: |c, text| assign(&mut c.transactions.enabled, value::boolean(text)),
    }),
    setting("producer.limits.default-messages-per-second", &["WSPROXY_PRODUCER_RATELIMIT_DEFAULT_MESSAGES_PER_SEC"], Setting {
        default: Some("0"),
        placeholder: "COUNT",
        help: "Records that a clientId may write in a second, over its sockets of this node; its sockets are read more slowly; 0 sets no limit",
        set: |c, text| assign(&mut c.producer_limits.default_messages_per_second, value::number(text, 0..=u32::MAX.into())),
    }),
    setting("producer.limits.default-max-connections-per-client", &["WSPROXY_PRODUCER_DEFAULT_MAX_CLIENT_CONNECTIONS"], Setting {
        default: Some("0"),
        placeholder: "COUNT",
        help: "Sockets of a clientId, over all nodes; one more is refused (429); 0 sets no limit",
        set: |c, text| assign(&mut c.producer_limits.default_max_connections, value::number(text, 0..=u32::MAX.into())),
    }),
    setting("producer.limits.client-specific-limits", &[], Setting {
        default: Some("[]"),
        placeholder: "LIST",
        help: "Limits of single clients, such as [{ producer-id = sensors, messages-per-second = 500, max-connections = 10 }]; what an entry lacks is as for all",
        set: |c, text| assign(&mut c.producer_limits.specific, LimitedClients::Producers.parse(text)),
    }),

    // Consuming.
    setting("consumer.record-bytes-max", &["WSPROXY_CONSUMER_RECORD_BYTES_MAX"], Setting {
        default: Some("64 MiB"),
        placeholder: "SIZE",
        help: "A larger record is reported as unreadable in its place",
        set: |c, text| assign(&mut c.consumer.record_bytes_max, value::size_within(text, 1024..=1 << 30)),
    }),
    setting("consumer.limits.default-messages-per-second", &["WSPROXY_CONSUMER_RATELIMIT_DEFAULT_MESSAGES_PER_SEC"], Setting {
        default: Some("0"),
        placeholder: "COUNT",
        help: "Records that a groupId may read in a second, over its sockets of this node; 0 sets no limit",
        set: |c, text| assign(&mut c.consumer_limits.default_messages_per_second, value::number(text, 0..=u32::MAX.into())),
    }),
    setting("consumer.limits.default-max-connections-per-client", &["WSPROXY_CONSUMER_DEFAULT_MAX_CLIENT_CONNECTIONS"], Setting {
        default: Some("0"),
        placeholder: "COUNT",
        help: "Sockets of a groupId, over all nodes, beside the number of partitions; one more is refused (429); 0 sets no limit",
        set: |c, text| assign(&mut c.consumer_limits.default_max_connections, value::number(text, 0..=u32::MAX.into())),
    }),
    setting("consumer.limits.default-batch-size", &["WSPROXY_CONSUMER_DEFAULT_BATCH_SIZE", "WSPROXY_DEFAULT_BATCH_SIZE"], Setting {
        default: Some("0"),
        placeholder: "COUNT",
        help: "batchSize of JSON sockets that name none; 0: single records",
        set: |c, text| assign(&mut c.consumer_limits.default_batch_size, value::number(text, 0..=BATCH_SIZE_MAX.into())),
    }),
    setting("consumer.limits.client-specific-limits", &[], Setting {
        default: Some("[]"),
        placeholder: "LIST",
        help: "Limits of single groups, such as [{ group-id = reports, messages-per-second = 500, max-connections = 2, batch-size = 100 }]; what an entry lacks is as for all",
        set: |c, text| assign(&mut c.consumer_limits.specific, LimitedClients::Groups.parse(text)),
    }),

    // The log.
    setting("log.level", &["WSPROXY_LOG_LEVEL"], Setting {
        default: Some("info"),
        placeholder: "LEVEL",
        help: "error, warn, info, debug, trace, off, or filters such as info,kafka_client=debug",
        set: |c, text| assign(&mut c.log.level, log_level::parse(text)),
    }),
    setting("log.format", &["WSPROXY_LOG_FORMAT"], Setting {
        default: Some("text"),
        placeholder: "FORMAT",
        help: "text or json",
        set: |c, text| assign(&mut c.log.format, LogFormat::parse(text)),
    }),
];

/// An empty text is none.
fn unless_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

const fn setting(
    name: &'static str,
    variables: &'static [&'static str],
    setting: Setting,
) -> ConfigKey {
    ConfigKey::new(name, variables, KeyHandling::Setting(setting))
}

const fn unsupported(name: &'static str, variables: &'static [&'static str]) -> ConfigKey {
    ConfigKey::new(
        name,
        variables,
        KeyHandling::Unsupported(LaterKey::UNDESCRIBED),
    )
}
