//! Kafka client properties under their Java names.
//!
//! They are accepted under `kafka-client.properties` for all clients, and under
//! `producer.`, `consumer.` and `admin-client.kafka-client-properties` for one of them. A
//! property that Java knows and that has no meaning here is reported as ignored; one whose
//! silent absence would be dangerous (security, weaker acknowledgements) is refused.

use std::time::Duration;

use super::ignored;
use super::value::{self, Checked};
use kafka_client::config::{
    AssignorName, ClientConfig, Compression, ConsumerConfig, ProducerConfig,
};

/// What a property does.
#[derive(Clone, Copy)]
pub enum Effect {
    /// Sets something every client of the cluster shares.
    Client(fn(&mut ClientConfig, &str) -> Checked<()>),
    /// Sets something that is kept with what all share, and that only consumers use.
    Consumers(fn(&mut ClientConfig, &str) -> Checked<()>),
    /// Sets something of the producer.
    Producer(fn(&mut ProducerConfig, &str) -> Checked<()>),
    /// Sets something of consumers.
    Consumer(fn(&mut ConsumerConfig, &str) -> Checked<()>),
    /// Checks that the value is the only one served.
    Only(fn(&str) -> Checked<()>),
    /// Nothing: says why.
    Ignored(&'static str),
    /// Not served in this version.
    NotYet,
}

/// One Java property.
pub struct Property {
    /// Its Java name.
    pub name: &'static str,
    /// The ends of its environment variables, after `WSPROXY_KAFKA_`.
    pub variables: &'static [&'static str],
    /// What it does.
    pub effect: Effect,
}

use Effect::{Client, Consumer, Consumers, Ignored, NotYet, Only, Producer};

const NO_TLS: &str = "security.protocol is PLAINTEXT";
const BY_TIME: &str = "retries end by time, see delivery.timeout.ms";

macro_rules! property {
    ($name:literal, [$($variable:literal),*], $effect:expr) => {
        Property { name: $name, variables: &[$($variable),*], effect: $effect }
    };
}

/// Every property that is known by name.
pub const PROPERTIES: &[Property] = &[
    // Connections and metadata.
    property!(
        "client.id",
        [],
        Client(|c, t| set(&mut c.client_id, Ok(t.to_owned())))
    ),
    property!(
        "client.rack",
        [],
        Consumers(|c, t| set(&mut c.rack, Ok(t.to_owned())))
    ),
    property!(
        "request.timeout.ms",
        ["CLIENT_REQUEST_TIMEOUT_MS"],
        Client(|c, t| set(&mut c.request_timeout, at_least_1ms(t)))
    ),
    property!(
        "retry.backoff.ms",
        ["CLIENT_RETRY_BACKOFF_MS"],
        Client(|c, t| set(&mut c.retry_backoff, value::millis(t)))
    ),
    property!(
        "retry.backoff.max.ms",
        [],
        Client(|c, t| set(&mut c.retry_backoff_max, value::millis(t)))
    ),
    property!(
        "reconnect.backoff.ms",
        [],
        Client(|c, t| set(&mut c.reconnect_backoff, value::millis(t)))
    ),
    property!(
        "reconnect.backoff.max.ms",
        [],
        Client(|c, t| set(&mut c.reconnect_backoff_max, value::millis(t)))
    ),
    property!(
        "socket.connection.setup.timeout.ms",
        [],
        Client(|c, t| set(&mut c.connect_timeout, at_least_1ms(t)))
    ),
    property!(
        "connections.max.idle.ms",
        [],
        Client(|c, t| set(&mut c.connections_max_idle, at_least_1ms(t)))
    ),
    property!(
        "metadata.max.age.ms",
        [],
        Client(|c, t| set(&mut c.metadata_max_age, at_least_1ms(t)))
    ),
    // Producing.
    property!("acks", [], Only(|t| only(t, &["all", "-1"]))),
    property!("enable.idempotence", [], Only(|t| only(t, &["true"]))),
    property!(
        "linger.ms",
        [],
        Producer(|c, t| set(&mut c.linger, value::millis(t)))
    ),
    property!(
        "batch.size",
        [],
        Producer(|c, t| set(&mut c.batch_size, count(t, 1, 1 << 30)))
    ),
    property!(
        "buffer.memory",
        [],
        Producer(|c, t| set(&mut c.buffer_memory, count(t, 1 << 16, 1 << 40)))
    ),
    property!(
        "max.request.size",
        [],
        Producer(|c, t| set(&mut c.max_request_size, count(t, 1024, 1 << 30)))
    ),
    property!(
        "delivery.timeout.ms",
        [],
        Producer(|c, t| set(&mut c.delivery_timeout, at_least_1ms(t)))
    ),
    property!(
        "compression.type",
        [],
        Producer(|c, t| set(&mut c.compression, compression(t)))
    ),
    property!(
        "max.in.flight.requests.per.connection",
        [],
        Producer(|c, t| set(&mut c.max_in_flight, count(t, 1, 5)))
    ),
    // Consuming.
    property!(
        "fetch.min.bytes",
        [],
        Consumer(|c, t| set(&mut c.fetch_min_bytes, int32(t, 1)))
    ),
    property!(
        "fetch.max.bytes",
        [],
        Consumer(|c, t| set(&mut c.fetch_max_bytes, int32(t, 1024)))
    ),
    property!(
        "max.partition.fetch.bytes",
        [],
        Consumer(|c, t| set(&mut c.max_partition_fetch_bytes, int32(t, 1)))
    ),
    property!(
        "fetch.max.wait.ms",
        [],
        Consumer(|c, t| set(&mut c.fetch_max_wait, value::millis(t)))
    ),
    property!(
        "session.timeout.ms",
        [],
        Consumer(|c, t| set(&mut c.session_timeout, at_least_1ms(t)))
    ),
    property!(
        "heartbeat.interval.ms",
        [],
        Consumer(|c, t| set(&mut c.heartbeat_interval, at_least_1ms(t)))
    ),
    property!(
        "max.poll.interval.ms",
        [],
        Consumer(|c, t| set(&mut c.max_poll_interval, at_least_1ms(t)))
    ),
    property!(
        "partition.assignment.strategy",
        [],
        Consumer(|c, t| set(&mut c.assignors, assignors(t)))
    ),
    property!("group.protocol", [], Only(|t| only(t, &["classic"]))),
    // Java's, without a meaning here, but with a variable.
    property!("retries", ["CLIENT_NUM_RETRIES"], Ignored(BY_TIME)),
    // Security.
    property!(
        "security.protocol",
        ["SECURITY_PROTOCOL"],
        Only(|t| match t {
            "PLAINTEXT" => Ok(()),
            _ =>
                Err("PLAINTEXT; SSL, SASL_PLAINTEXT and SASL_SSL are not supported yet".to_owned()),
        })
    ),
    property!("sasl.mechanism", ["SASL_MECHANISM"], NotYet),
    property!("sasl.jaas.config", ["SASL_JAAS_CFG"], NotYet),
    property!(
        "sasl.kerberos.service.name",
        ["SASL_KERBEROS_SERVICE_NAME"],
        NotYet
    ),
    property!("ssl.key.password", ["SSL_KEY_PASS"], Ignored(NO_TLS)),
    property!(
        "ssl.endpoint.identification.algorithm",
        ["SASL_ENDPOINT_ID_ALOGO", "SASL_ENDPOINT_ID_ALGO"],
        Ignored(NO_TLS)
    ),
    property!(
        "ssl.truststore.location",
        ["SSL_TRUSTSTORE_LOCATION"],
        Ignored(NO_TLS)
    ),
    property!(
        "ssl.truststore.password",
        ["SSL_TRUSTSTORE_PASS"],
        Ignored(NO_TLS)
    ),
    property!(
        "ssl.truststore.type",
        ["SSL_TRUSTSTORE_TYPE"],
        Ignored(NO_TLS)
    ),
    property!(
        "ssl.keystore.location",
        ["SSL_KEYSTORE_LOCATION"],
        Ignored(NO_TLS)
    ),
    property!(
        "ssl.keystore.password",
        ["SSL_KEYSTORE_PASS"],
        Ignored(NO_TLS)
    ),
    property!(
        "ssl.provider",
        ["SSL_PROVIDER"],
        Ignored("there is one TLS implementation")
    ),
    property!("ssl.cipher.suites", ["SSL_CIPHER_SUITES"], Ignored(NO_TLS)),
    property!(
        "ssl.enabled.protocols",
        ["SSL_ENABLED_PROTOCOLS"],
        Ignored(NO_TLS)
    ),
];

/// Variables of one client only: section, end of the variable, property.
pub const SECTION_VARIABLES: &[(Section, &str, &str)] = &[
    (
        Section::Consumer,
        "CONSUMER_REQUEST_TIMEOUT_MS",
        "request.timeout.ms",
    ),
    (Section::Consumer, "CONSUMER_NUM_RETRIES", "retries"),
    (
        Section::Consumer,
        "CONSUMER_RETRY_BACKOFF_MS",
        "retry.backoff.ms",
    ),
    (
        Section::Producer,
        "PRODUCER_REQUEST_TIMEOUT_MS",
        "request.timeout.ms",
    ),
    (Section::Producer, "PRODUCER_NUM_RETRIES", "retries"),
    (
        Section::Producer,
        "PRODUCER_RETRY_BACKOFF_MS",
        "retry.backoff.ms",
    ),
    (
        Section::Producer,
        "PRODUCER_MAX_IN_FLIGHT_REQ",
        "max.in.flight.requests.per.connection",
    ),
];

/// Which clients a property was set for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// All of them.
    All,
    /// The producer.
    Producer,
    /// Consumers.
    Consumer,
    /// Administration.
    Admin,
}

impl Section {
    /// All sections; a later one overrides an earlier one.
    pub const EACH: [Section; 4] = [
        Section::All,
        Section::Producer,
        Section::Consumer,
        Section::Admin,
    ];

    /// The key in front of the property, with its dot.
    pub fn prefix(self) -> &'static str {
        match self {
            Section::All => "kafka-client.properties.",
            Section::Producer => "producer.kafka-client-properties.",
            Section::Consumer => "consumer.kafka-client-properties.",
            Section::Admin => "admin-client.kafka-client-properties.",
        }
    }

    /// Why a known property set here does nothing, if so.
    pub fn pointless(self, effect: &Effect) -> Option<&'static str> {
        match (self, effect) {
            (_, Effect::Ignored(why)) => Some(why),
            (Section::All, _) | (_, Effect::Only(_) | Effect::NotYet) => None,
            (Section::Producer, Effect::Producer(_)) => None,
            (Section::Consumer, Effect::Consumer(_) | Effect::Consumers(_)) => None,
            (_, Effect::Client(_)) => {
                Some("the clients share their connections: set it under kafka-client.properties")
            }
            _ => Some("this client has no such property"),
        }
    }
}

/// What the property of that name does; `None` when Java has none of that name.
pub fn find(name: &str) -> Option<Effect> {
    let known = PROPERTIES.iter().find(|property| property.name == name);
    known
        .map(|property| property.effect)
        .or_else(|| ignored::reason(name).map(Ignored))
}

/// Every name that [`find`] knows.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    let properties = PROPERTIES.iter().map(|property| property.name);
    properties.chain(ignored::names())
}

/// Whether the property's name belongs to security settings that are not served yet.
pub fn is_security(name: &str) -> bool {
    name.starts_with("sasl.")
}

/// A codec's name.
pub fn compression(text: &str) -> Checked<Compression> {
    Ok(match text.to_ascii_lowercase().as_str() {
        "none" => Compression::None,
        "gzip" => Compression::Gzip,
        "snappy" => Compression::Snappy,
        "lz4" => Compression::Lz4,
        "zstd" => Compression::Zstd,
        _ => return Err("none, gzip, snappy, lz4 or zstd".to_owned()),
    })
}

fn set<T>(place: &mut T, read: Checked<T>) -> Checked<()> {
    *place = read?;
    Ok(())
}

fn only(text: &str, accepted: &[&str]) -> Checked<()> {
    match accepted.contains(&text.trim()) {
        true => Ok(()),
        false => Err(format!(
            "{}; nothing else is supported",
            accepted.join(" or ")
        )),
    }
}

fn count(text: &str, min: i64, max: i64) -> Checked<usize> {
    Ok(value::number(text, min..=max)? as usize)
}

fn int32(text: &str, min: i64) -> Checked<i32> {
    Ok(value::number(text, min..=i64::from(i32::MAX))? as i32)
}

fn at_least_1ms(text: &str) -> Checked<Duration> {
    let range = 1..=i64::from(i32::MAX);
    Ok(Duration::from_millis(value::number(text, range)? as u64))
}

fn assignors(text: &str) -> Checked<Vec<AssignorName>> {
    let accepted = "range, cooperative-sticky, or the names of their Java classes";
    let named = |name: String| match name.rsplit('.').next() {
        Some("range" | "RangeAssignor") => Ok(AssignorName::Range),
        Some("cooperative-sticky" | "CooperativeStickyAssignor") => {
            Ok(AssignorName::CooperativeSticky)
        }
        _ => Err(accepted.to_owned()),
    };
    let names: Vec<_> = value::list(text)
        .into_iter()
        .map(named)
        .collect::<Checked<_>>()?;
    match names.is_empty() {
        true => Err(accepted.to_owned()),
        false => Ok(names),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignors_are_named_shortly_or_by_java_class() {
        let both = "org.apache.kafka.clients.consumer.RangeAssignor, cooperative-sticky";
        assert_eq!(
            assignors(both),
            Ok(vec![AssignorName::Range, AssignorName::CooperativeSticky])
        );
        assert!(assignors("round-robin").is_err());
        assert!(assignors("").is_err());
    }

    #[test]
    fn names_and_variables_are_unique() {
        let mut names: Vec<_> = names().collect();
        let mut variables: Vec<_> = PROPERTIES.iter().flat_map(|p| p.variables).collect();
        let (n, v) = (names.len(), variables.len());
        names.sort();
        names.dedup();
        variables.sort();
        variables.dedup();
        assert_eq!((names.len(), variables.len()), (n, v));
    }

    #[test]
    fn every_property_of_the_java_clients_is_known() {
        let listed = include_str!("properties-of-java.txt").lines();
        let names: Vec<_> = listed.filter(|line| !line.starts_with('#')).collect();
        assert!(names.len() > 140, "{}", names.len());
        for name in names {
            assert!(find(name).is_some() || is_security(name), "{name}");
        }
    }
}
