//! Kafka client properties under their Java names.
//!
//! They are accepted under `kafka-client.properties` for all clients, and under
//! `producer.`, `consumer.` and `admin-client.kafka-client-properties` for one of them.
//!
//! # Invariants
//! - Every property of the Java clients has a row, so that a file that they read works here.
//! - One whose silent absence would be dangerous (security, weaker acknowledgements) is
//!   checked or refused, never ignored.

use ClientSection::{AllClients, Consumer, Producer};

use tls::{CipherSuites, ProtocolVersions};

use super::{ClientSection, ConfigKey, KeyHandling, LaterKey, PropertySetting, SetValue, assign};
use crate::config::jaas::JaasEntry;
use crate::config::oauthbearer::{JwtRetriever, token_url};
use crate::config::security::{SaslMechanism, SecurityProtocol};
use crate::config::ssl::{secret, skips_host_name};
use crate::config::transactions;
use crate::config::value::{
    ParsedValue, assignors, boolean, compression, fraction, millis, number, one_of,
    positive_millis, seconds,
};

/// Every property that is known by name.
#[rustfmt::skip] // A row is a line where it can be.
pub(crate) const CLIENT_PROPERTIES: &[ConfigKey] = &[
    // Connections and metadata.
    property(AllClients, "client.id", "kafka-websocket-proxy", "Name that brokers use in logs and quotas", |c, text| assign(&mut c.client.client_id, Ok(text.to_owned()))),
    // Kept with what all share, but only consumers use it.
    property(Consumer, "client.rack", "", "Rack of this node: partitions are assigned by it", |c, text| assign(&mut c.client.rack, Ok(text.to_owned()))),
    property(AllClients, "request.timeout.ms", "30000", "How long a request may take", |c, text| assign(&mut c.client.request_timeout, positive_millis(text)))
        .or_of_one_client(|requests, text| assign(&mut requests.request_timeout, positive_millis(text).map(Some)))
        .set_by(&[
            "WSPROXY_KAFKA_CLIENT_REQUEST_TIMEOUT_MS",
            "WSPROXY_KAFKA_CONSUMER_REQUEST_TIMEOUT_MS",
            "WSPROXY_KAFKA_PRODUCER_REQUEST_TIMEOUT_MS",
        ]),
    property(AllClients, "retry.backoff.ms", "100", "First wait before a failed request is sent again", |c, text| assign(&mut c.client.retry_backoff, millis(text)))
        .or_of_one_client(|requests, text| assign(&mut requests.retry_backoff, millis(text).map(Some)))
        .set_by(&[
            "WSPROXY_KAFKA_CLIENT_RETRY_BACKOFF_MS",
            "WSPROXY_KAFKA_CONSUMER_RETRY_BACKOFF_MS",
            "WSPROXY_KAFKA_PRODUCER_RETRY_BACKOFF_MS",
        ]),
    property(AllClients, "retry.backoff.max.ms", "1000", "Longest wait before a failed request is sent again", |c, text| assign(&mut c.client.retry_backoff_max, millis(text)))
        .or_of_one_client(|requests, text| assign(&mut requests.retry_backoff_max, millis(text).map(Some))),
    property(AllClients, "reconnect.backoff.ms", "50", "First wait before a broker is connected to again", |c, text| assign(&mut c.client.reconnect_backoff, millis(text))),
    property(AllClients, "reconnect.backoff.max.ms", "1000", "Longest wait before a broker is connected to again", |c, text| assign(&mut c.client.reconnect_backoff_max, millis(text))),
    property(AllClients, "socket.connection.setup.timeout.ms", "10000", "How long a connection to a broker may take to stand", |c, text| assign(&mut c.client.connect_timeout, positive_millis(text))),
    property(AllClients, "connections.max.idle.ms", "540000", "A connection that is not used for so long is closed", |c, text| assign(&mut c.client.connections_max_idle, positive_millis(text))),
    property(AllClients, "metadata.max.age.ms", "300000", "How old what is known of the cluster may be", |c, text| assign(&mut c.client.metadata_max_age, positive_millis(text))),
    ignored("retries", RETRIES_END_BY_TIME)
        .set_by(&[
            "WSPROXY_KAFKA_CLIENT_NUM_RETRIES",
            "WSPROXY_KAFKA_CONSUMER_NUM_RETRIES",
            "WSPROXY_KAFKA_PRODUCER_NUM_RETRIES",
        ]),
    ignored("bootstrap.servers", SET_BOOTSTRAP_HOSTS),
    ignored("bootstrap.controllers", SET_BOOTSTRAP_HOSTS),
    ignored("bootstrap.resolve.timeout.ms", DECIDED_BY_PROXY),
    ignored("client.dns.lookup", "every resolved address is tried"),
    ignored("default.api.timeout.ms", DECIDED_BY_PROXY),
    ignored("socket.connection.setup.timeout.max.ms", DECIDED_BY_PROXY),
    ignored("metadata.max.idle.ms", DECIDED_BY_PROXY),
    ignored("metadata.cluster.check.enable", DECIDED_BY_PROXY),
    ignored("metadata.recovery.strategy", DECIDED_BY_PROXY),
    ignored("metadata.recovery.rebootstrap.trigger.ms", DECIDED_BY_PROXY),
    ignored("allow.auto.create.topics", "topics are never created on a look"),
    ignored("exclude.internal.topics", "topics are taken by name, never by pattern"),
    ignored("receive.buffer.bytes", LEFT_TO_KERNEL),
    ignored("send.buffer.bytes", LEFT_TO_KERNEL),

    // Producing.
    checked("acks", |text| one_of(text, &["all", "-1"])),
    checked("enable.idempotence", |text| one_of(text, &["true"])),
    property(Producer, "linger.ms", "0", "How long a batch waits for more records while nothing else holds it up", |c, text| assign(&mut c.producer.linger, millis(text))),
    property(Producer, "batch.size", "16384", "Bytes of a batch before compression", |c, text| assign(&mut c.producer.batch_size, number(text, 1..=1 << 30))),
    property(Producer, "buffer.memory", "33554432", "Bytes of records not yet answered", |c, text| assign(&mut c.producer.buffer_memory, number(text, 1 << 16..=1 << 40))),
    property(Producer, "max.request.size", "1048576", "Bytes of one record, and of one request", |c, text| assign(&mut c.producer.max_request_size, number(text, 1024..=1 << 30))),
    property(Producer, "delivery.timeout.ms", "120000", "How long a record may take to be acknowledged", |c, text| assign(&mut c.producer.delivery_timeout, positive_millis(text)))
        .same_as("producer.delivery-timeout-ms"),
    property(Producer, "compression.type", "none", "none, gzip, snappy, lz4 or zstd", |c, text| assign(&mut c.producer.compression, compression(text)))
        .same_as("producer.compression-type"),
    property(Producer, "max.in.flight.requests.per.connection", "5", "Requests under way to one broker, 1 to 5", |c, text| assign(&mut c.producer.max_in_flight, number(text, 1..=5)))
        .set_by(&["WSPROXY_KAFKA_PRODUCER_MAX_IN_FLIGHT_REQ"]),
    ignored("key.serializer", EACH_SOCKET),
    ignored("value.serializer", EACH_SOCKET),
    ignored("max.block.ms", DECIDED_BY_PROXY),
    ignored("buffer.memory.allocation.strategy", DECIDED_BY_PROXY),
    ignored("partitioner.class", PARTITIONER),
    ignored("partitioner.ignore.keys", PARTITIONER),
    ignored("partitioner.adaptive.partitioning.enable", PARTITIONER),
    ignored("partitioner.availability.timeout.ms", PARTITIONER),
    ignored("partitioner.rack.aware", PARTITIONER),
    ignored("compression.gzip.level", COMPRESSION_LEVEL),
    ignored("compression.lz4.level", COMPRESSION_LEVEL),
    ignored("compression.zstd.level", COMPRESSION_LEVEL),
    ignored("transactional.id", "made of each client's, see server.transactional-id-prefix"),
    property(Producer, "transaction.timeout.ms", "15000", "After which time the brokers abort a transaction whose client is gone", |c, text| assign(&mut c.transactions.timeout, transactions::timeout(text))),
    ignored("transaction.two.phase.commit.enable", ONE_PHASE),
    ignored("internal.auto.downgrade.txn.commit", ONE_PHASE),

    // Consuming.
    property(Consumer, "fetch.min.bytes", "1", "Bytes that a broker gathers before it answers, within fetch.max.wait.ms", |c, text| assign(&mut c.consumer.fetch_min_bytes, number(text, 1..=INT_MAX))),
    property(Consumer, "fetch.max.bytes", "52428800", "Bytes of records in one answer", |c, text| assign(&mut c.consumer.fetch_max_bytes, number(text, 1024..=INT_MAX))),
    property(Consumer, "max.partition.fetch.bytes", "1048576", "Bytes of records of one partition in one answer", |c, text| assign(&mut c.consumer.max_partition_fetch_bytes, number(text, 1..=INT_MAX))),
    property(Consumer, "fetch.max.wait.ms", "500", "How long a broker holds a fetch at the end of the log", |c, text| assign(&mut c.consumer.fetch_max_wait, millis(text))),
    property(Consumer, "session.timeout.ms", "15000", "How long a member of a group may be silent", |c, text| assign(&mut c.consumer.session_timeout, positive_millis(text))),
    property(Consumer, "heartbeat.interval.ms", "3000", "How often a member shows that it lives", |c, text| assign(&mut c.consumer.heartbeat_interval, positive_millis(text))),
    property(Consumer, "max.poll.interval.ms", "300000", "How long a client may leave records unread", |c, text| assign(&mut c.consumer.max_poll_interval, positive_millis(text))),
    property(Consumer, "partition.assignment.strategy", "cooperative-sticky,range", "Assignors, in the order of preference", |c, text| assign(&mut c.consumer.assignors, assignors(text))),
    checked("group.protocol", |text| one_of(text, &["classic"])),
    ignored("group.remote.assignor", "group.protocol is classic"),
    ignored("group.id", EACH_SOCKET),
    ignored("group.instance.id", EACH_SOCKET),
    ignored("enable.auto.commit", EACH_SOCKET),
    ignored("auto.offset.reset", EACH_SOCKET),
    ignored("key.deserializer", EACH_SOCKET),
    ignored("value.deserializer", EACH_SOCKET),
    ignored("isolation.level", "every socket says it in isolationLevel, and reads uncommitted records otherwise"),
    ignored("auto.commit.interval.ms", "commits are made once a second"),
    ignored("check.crcs", "checksums are always checked"),
    ignored("max.poll.records", DECIDED_BY_PROXY),
    ignored("rebalance.timeout.ms", DECIDED_BY_PROXY),
    ignored("internal.leave.group.on.close", DECIDED_BY_PROXY),
    ignored("internal.throw.on.fetch.stable.offset.unsupported", DECIDED_BY_PROXY),
    ignored("share.acknowledgement.mode", NO_SHARE_GROUPS),
    ignored("share.acquire.mode", NO_SHARE_GROUPS),

    // Classes and metrics.
    ignored("interceptor.classes", NO_JAVA_CLASSES),
    ignored("metric.reporters", NO_JAVA_CLASSES),
    ignored("auto.include.jmx.reporter", NO_JAVA_CLASSES),
    ignored("config.providers", NO_JAVA_CLASSES),
    // What a provider is configured with has names of its own choice.
    ignored("config.providers.*", NO_JAVA_CLASSES).secret(),
    ignored("security.providers", NO_JAVA_CLASSES),
    ignored("ssl.engine.factory.class", NO_JAVA_CLASSES),
    ignored("principal.builder.class", NO_JAVA_CLASSES),
    ignored("metrics.num.samples", DECIDED_BY_PROXY),
    ignored("metrics.recording.level", DECIDED_BY_PROXY),
    ignored("metrics.sample.window.ms", DECIDED_BY_PROXY),
    ignored("enable.metrics.push", "metrics are not pushed to brokers"),

    // Security.
    property(AllClients, "security.protocol", "PLAINTEXT", "PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL: how brokers are connected to", |c, text| assign(&mut c.security.protocol, SecurityProtocol::parse(text)))
        .set_by(&["WSPROXY_KAFKA_SECURITY_PROTOCOL"]),
    property(AllClients, "sasl.mechanism", "GSSAPI", "GSSAPI (Kerberos), PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER: how the proxy is authenticated", |c, text| assign(&mut c.security.mechanism, SaslMechanism::parse(text)))
        .set_by(&["WSPROXY_KAFKA_SASL_MECHANISM"]),
    property(AllClients, "sasl.jaas.config", "", "Login module and credentials, as Java's clients have them", |c, text| assign(&mut c.security.jaas, JaasEntry::parse_setting(text)))
        .secret().set_by(&["WSPROXY_KAFKA_SASL_JAAS_CFG"]),
    property(AllClients, "sasl.kerberos.service.name", "", "What the brokers' principals begin with, for GSSAPI; or serviceName in the JAAS line", |c, text| assign(&mut c.security.kerberos.service_name, Ok(text.to_owned())))
        .set_by(&["WSPROXY_KAFKA_SASL_KERBEROS_SERVICE_NAME"]),
    property(AllClients, "sasl.kerberos.ticket.renew.window.factor", "0.8", "Part of its life after which a Kerberos ticket is renewed, 0 to 1", |c, text| assign(&mut c.security.kerberos.renewal.factor, fraction(text, 0.0..=1.0))),
    property(AllClients, "sasl.kerberos.ticket.renew.jitter", "0.05", "Part of its life that this is later at random, 0 to 1", |c, text| assign(&mut c.security.kerberos.renewal.jitter, fraction(text, 0.0..=1.0))),
    property(AllClients, "sasl.kerberos.min.time.before.relogin", "60000", "How long a login to Kerberos is kept at least", |c, text| assign(&mut c.security.kerberos.renewal.min_period, millis(text))),
    ignored("sasl.kerberos.kinit.cmd", "the proxy logs in itself, with the keytab"),
    ignored("sasl.kerberos.principal.to.local.rules", OF_BROKERS),
    ignored("sasl.login.callback.handler.class", NO_JAVA_CLASSES),
    ignored("sasl.login.class", NO_JAVA_CLASSES),
    ignored("sasl.client.callback.handler.class", NO_JAVA_CLASSES),
    property(AllClients, "sasl.oauthbearer.token.endpoint.url", "", "Where tokens for OAUTHBEARER are asked for, or file:///… with one; without it they are unsecured", |c, text| assign(&mut c.security.oauthbearer.token_url, token_url(text))),
    property(AllClients, "sasl.oauthbearer.client.credentials.client.id", "", "Who the proxy is to the token endpoint; or clientId in the JAAS line", |c, text| assign(&mut c.security.oauthbearer.client_id, Ok(text.to_owned()))),
    property(AllClients, "sasl.oauthbearer.client.credentials.client.secret", "", "Its secret; or clientSecret in the JAAS line", |c, text| assign(&mut c.security.oauthbearer.client_secret, Ok(secret(text)))).secret(),
    property(AllClients, "sasl.oauthbearer.scope", "", "Scope that a token is asked for; or scope in the JAAS line", |c, text| assign(&mut c.security.oauthbearer.scope, Ok(text.to_owned()))),
    property(AllClients, "sasl.oauthbearer.header.urlencode", "false", "Whether id and secret are URL-encoded in the header, as RFC 6749 has it", |c, text| assign(&mut c.security.oauthbearer.urlencode, boolean(text))),
    property(AllClients, "sasl.oauthbearer.jwt.retriever.class", "org.apache.kafka.common.security.oauthbearer.DefaultJwtRetriever", "How tokens are asked for, by the name of Java's class; JwtBearerJwtRetriever gives the assertion as the grant", |c, text| assign(&mut c.security.oauthbearer.retriever, JwtRetriever::parse(text))),
    property(AllClients, "sasl.oauthbearer.assertion.file", "", "File with an assertion that is shown instead of a secret", |c, text| assign(&mut c.security.oauthbearer.assertion_file, Ok(text.to_owned()))),
    ignored("sasl.oauthbearer.jwt.validator.class", TOKENS_UNREAD),
    ignored("sasl.oauthbearer.scope.claim.name", TOKENS_UNREAD),
    ignored("sasl.oauthbearer.sub.claim.name", TOKENS_UNREAD),
    ignored("sasl.oauthbearer.allow.unverified.audience", OF_BROKERS),
    ignored("sasl.oauthbearer.allow.unverified.issuer", OF_BROKERS),
    ignored("sasl.oauthbearer.clock.skew.seconds", OF_BROKERS),
    ignored("sasl.oauthbearer.expected.audience", OF_BROKERS),
    ignored("sasl.oauthbearer.expected.issuer", OF_BROKERS),
    ignored("sasl.oauthbearer.jwks.endpoint.refresh.ms", OF_BROKERS),
    ignored("sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms", OF_BROKERS),
    ignored("sasl.oauthbearer.jwks.endpoint.retry.backoff.ms", OF_BROKERS),
    ignored("sasl.oauthbearer.jwks.endpoint.url", OF_BROKERS),
    property(AllClients, "sasl.login.connect.timeout.ms", "10000", "How long a connection to the token endpoint may take to stand", |c, text| assign(&mut c.security.oauthbearer.connect_timeout, positive_millis(text))),
    property(AllClients, "sasl.login.read.timeout.ms", "10000", "How long the token endpoint may take to answer", |c, text| assign(&mut c.security.oauthbearer.read_timeout, positive_millis(text))),
    property(AllClients, "sasl.login.retry.backoff.ms", "100", "First wait before a token is asked for again", |c, text| assign(&mut c.security.oauthbearer.refresh.backoff, millis(text))),
    property(AllClients, "sasl.login.retry.backoff.max.ms", "10000", "Longest wait before a token is asked for again", |c, text| assign(&mut c.security.oauthbearer.refresh.backoff_max, millis(text))),
    property(AllClients, "sasl.login.refresh.window.factor", "0.8", "Part of its life after which a token is renewed, 0.5 to 1", |c, text| assign(&mut c.security.oauthbearer.refresh.window.factor, fraction(text, 0.5..=1.0))),
    property(AllClients, "sasl.login.refresh.window.jitter", "0.05", "Part of its life that this is later at random, 0 to 0.25", |c, text| assign(&mut c.security.oauthbearer.refresh.window.jitter, fraction(text, 0.0..=0.25))),
    property(AllClients, "sasl.login.refresh.min.period.seconds", "60", "How long a token is kept at least, 0 to 900", |c, text| assign(&mut c.security.oauthbearer.refresh.window.min_period, seconds(text, 0..=900))),
    property(AllClients, "sasl.login.refresh.buffer.seconds", "300", "How long before its end a token is renewed at the latest, 0 to 3600", |c, text| assign(&mut c.security.oauthbearer.refresh.window.buffer, seconds(text, 0..=3600))),
    unsupported("sasl.*").secret(),
    property(AllClients, "ssl.key.password", "", "Password of the private key, where it is not that of the store", |c, text| assign(&mut c.security.ssl.key_password, Ok(secret(text))))
        .secret().set_by(&["WSPROXY_KAFKA_SSL_KEY_PASS"]),
    property(AllClients, "ssl.endpoint.identification.algorithm", "https", "https, or nothing: then a broker's certificate may have any name", |c, text| assign(&mut c.security.ssl.skips_host_name, skips_host_name(text)))
        .set_by(&["WSPROXY_KAFKA_SASL_ENDPOINT_ID_ALOGO", "WSPROXY_KAFKA_SASL_ENDPOINT_ID_ALGO"]),
    property(AllClients, "ssl.truststore.location", "", "Certificate authorities of brokers in PEM, PKCS12 or JKS; without it those of the system", |c, text| assign(&mut c.security.ssl.truststore_location, Ok(text.to_owned())))
        .set_by(&["WSPROXY_KAFKA_SSL_TRUSTSTORE_LOCATION"]),
    property(AllClients, "ssl.truststore.password", "", "Password of the trust store", |c, text| assign(&mut c.security.ssl.truststore_password, Ok(secret(text))))
        .secret().set_by(&["WSPROXY_KAFKA_SSL_TRUSTSTORE_PASS"])
        .also(&["ssl.truststore.truststore.password"]),
    property(AllClients, "ssl.truststore.certificates", "", "The same authorities as PEM text", |c, text| assign(&mut c.security.ssl.truststore_certificates, Ok(text.to_owned()))),
    ignored("ssl.truststore.type", KNOWN_BY_CONTENT).set_by(&["WSPROXY_KAFKA_SSL_TRUSTSTORE_TYPE"]),
    property(AllClients, "ssl.keystore.location", "", "Certificate and private key of the proxy in PEM, PKCS12 or JKS", |c, text| assign(&mut c.security.ssl.keystore_location, Ok(text.to_owned())))
        .set_by(&["WSPROXY_KAFKA_SSL_KEYSTORE_LOCATION"]),
    property(AllClients, "ssl.keystore.password", "", "Password of the key store", |c, text| assign(&mut c.security.ssl.keystore_password, Ok(secret(text))))
        .secret().set_by(&["WSPROXY_KAFKA_SSL_KEYSTORE_PASS"]),
    property(AllClients, "ssl.keystore.key", "", "The private key as PEM text", |c, text| assign(&mut c.security.ssl.keystore_key, Ok(secret(text)))).secret(),
    property(AllClients, "ssl.keystore.certificate.chain", "", "Its certificate and those that lead to a root, as PEM text", |c, text| assign(&mut c.security.ssl.keystore_certificate_chain, Ok(text.to_owned()))),
    ignored("ssl.keystore.type", KNOWN_BY_CONTENT),
    ignored("ssl.provider", "there is one TLS implementation").set_by(&["WSPROXY_KAFKA_SSL_PROVIDER"]),
    property(AllClients, "ssl.cipher.suites", "", "Cipher suites that are offered, by Java's names; without it all", |c, text| assign(&mut c.security.ssl.cipher_suites, CipherSuites::parse(text)))
        .set_by(&["WSPROXY_KAFKA_SSL_CIPHER_SUITES"]),
    property(AllClients, "ssl.enabled.protocols", "TLSv1.2,TLSv1.3", "Versions of TLS that are spoken", |c, text| assign(&mut c.security.ssl.protocols, ProtocolVersions::parse(text)))
        .set_by(&["WSPROXY_KAFKA_SSL_ENABLED_PROTOCOLS"]),
    ignored("ssl.protocol", "ssl.enabled.protocols decides"),
    ignored("ssl.keymanager.algorithm", NO_JAVA_CLASSES),
    ignored("ssl.trustmanager.algorithm", NO_JAVA_CLASSES),
    ignored("ssl.secure.random.implementation", NO_JAVA_CLASSES),
    ignored("ssl.client.auth", OF_BROKERS),
];

/// Java's `Integer.MAX_VALUE`.
const INT_MAX: i64 = i32::MAX as i64;

// Why a property has no effect, where the reason is that of several.
const COMPRESSION_LEVEL: &str = "each codec has one level here";
const DECIDED_BY_PROXY: &str = "decided by the proxy";
const EACH_SOCKET: &str = "every socket brings its own";
const KNOWN_BY_CONTENT: &str = "stores are known by their content";
const LEFT_TO_KERNEL: &str = "left to the kernel";
const NO_JAVA_CLASSES: &str = "there are no Java classes here";
const NO_SHARE_GROUPS: &str = "there are no share groups here";
const OF_BROKERS: &str = "it is a setting of brokers";
const ONE_PHASE: &str = "the proxy itself commits what it has written";
const PARTITIONER: &str = "murmur2 for keys, sticky without, as Java's default";
const RETRIES_END_BY_TIME: &str = "retries end by time, see delivery.timeout.ms";
const SET_BOOTSTRAP_HOSTS: &str = "set kafka-client.bootstrap-hosts";
const TOKENS_UNREAD: &str = "tokens are checked by the brokers";

const fn row(name: &'static str, handling: KeyHandling) -> ConfigKey {
    ConfigKey::new(name, &[], handling)
}

/// A property of those clients, with its default and one line about it.
const fn property(
    clients: ClientSection,
    name: &'static str,
    default: &'static str,
    help: &'static str,
    set: SetValue,
) -> ConfigKey {
    let property = PropertySetting {
        clients,
        of_one_client: None,
        default,
        help,
        own_key: None,
        set,
    };
    row(name, KeyHandling::Property(property))
}

const fn checked(name: &'static str, check: fn(&str) -> ParsedValue<()>) -> ConfigKey {
    row(name, KeyHandling::Checked(check))
}

const fn unsupported(name: &'static str) -> ConfigKey {
    row(name, KeyHandling::Unsupported(LaterKey::UNDESCRIBED))
}

const fn ignored(name: &'static str, reason: &'static str) -> ConfigKey {
    row(name, KeyHandling::Ignored(reason))
}

impl ConfigKey {
    /// Names the variables; those with PRODUCER or CONSUMER in their name set the property in
    /// the section of that client.
    const fn set_by(mut self, variables: &'static [&'static str]) -> Self {
        self.variables = variables;
        self
    }
}
