//! The query parameters of the two endpoints, typed.
//!
//! Unknown names are ignored, since proxies and clients add their own, but not one that is a near
//! miss of a known one; an invalid value of a known name is refused, by name and with what is
//! allowed.

#[cfg(test)]
mod fuzz;

use std::collections::HashSet;
use std::str::FromStr;

use crate::codec::{Format, RecordFormats};
use crate::near_miss;
use kafka_client::IsolationLevel;
use kafka_client::consumer::OffsetResetStrategy;

/// The parameters of `/socket/in`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProduceParams {
    /// `topic`
    pub(crate) topic: String,
    /// `socketPayload`
    pub(crate) payload: SocketPayload,
    /// `keyType`, `valType`
    pub(crate) formats: RecordFormats,
    /// `clientId`
    pub(crate) client_id: Option<String>,
    /// `instanceId`
    pub(crate) instance_id: Option<String>,
    /// `transactional`: each message in one transaction. There is a `clientId` then.
    pub(crate) transactional: bool,
}

impl ProduceParams {
    /// Whether it is said which client it is, and which instance of it, as
    /// `producer.sessions-enabled` demands.
    pub(crate) fn check_names_instance(&self) -> Result<(), ParamError> {
        let names = [
            ("clientId", &self.client_id),
            ("instanceId", &self.instance_id),
        ];
        match names.into_iter().find(|(_, value)| value.is_none()) {
            None => Ok(()),
            Some((name, _)) => Err(ParamError::Missing {
                name,
                allowed: NAME,
            }),
        }
    }
}

/// The parameters of `/socket/out`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConsumeParams {
    /// `clientId`
    pub(crate) client_id: String,
    /// `groupId`, or `<clientId>-group`.
    pub(crate) group_id: String,
    /// `topic`, without repetitions.
    pub(crate) topics: Vec<String>,
    /// `socketPayload`
    pub(crate) payload: SocketPayload,
    /// `keyType`, `valType`
    pub(crate) formats: RecordFormats,
    /// `offsetResetStrategy`
    pub(crate) offset_reset_strategy: OffsetResetStrategy,
    /// `isolationLevel`
    pub(crate) isolation_level: IsolationLevel,
    /// `rate`, records per second.
    pub(crate) rate: Option<u32>,
    /// `batchSize`, records per frame; 0 sends them one by one, outside of an array.
    pub(crate) batch_size: Option<u32>,
    /// `autoCommit`
    pub(crate) auto_commit: bool,
}

/// What messages are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SocketPayload {
    /// JSON, in text frames.
    #[default]
    Json,
    /// Avro, in binary frames.
    Avro,
}

/// A parameter that is missing or wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ParamError {
    /// A parameter without a default is absent.
    #[error("parameter {name} is missing: {allowed}")]
    Missing {
        /// The parameter's name.
        name: &'static str,
        /// What is allowed.
        allowed: &'static str,
    },
    /// The value is not allowed.
    #[error("parameter {name}: {value:?} is not allowed; allowed: {allowed}")]
    Invalid {
        /// The parameter's name.
        name: &'static str,
        /// The value, cut.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
    /// No such parameter, and one that differs in its case or in a letter.
    #[error("parameter {} is not known; did you mean {known}?", .name.escape_debug())]
    NearMiss {
        /// The name, as it was given.
        name: String,
        /// The parameter's name.
        known: &'static str,
    },
    /// It occurs twice.
    #[error("parameter {name} is given twice; allowed: once")]
    Duplicate {
        /// The parameter's name.
        name: &'static str,
    },
    /// Messages in Avro are single records.
    #[error("parameter batchSize: not with socketPayload=avro, which has no arrays; leave it out")]
    ArraysOfAvro,
    /// Whose transactions they are must be known.
    #[error("parameter clientId is missing: with transactional=true it must be {NAME}")]
    TransactionalWithoutClient,
    /// Only producers write in transactions.
    #[error("parameter transactional: on /socket/out it is isolationLevel=read_committed")]
    TransactionalConsumer,
}

/// A request's query, parsed.
#[derive(Clone, Debug, Default)]
pub(crate) struct QueryParams(Vec<(String, String)>);

impl QueryParams {
    /// Parses a raw query: `a=b&c=d`, percent-encoded.
    pub(crate) fn parse(raw: &str) -> Self {
        Self(
            form_urlencoded::parse(raw.as_bytes())
                .into_owned()
                .collect(),
        )
    }

    /// `errors=close`: whether a refused upgrade is answered by 101 and a close frame, for
    /// browsers, which cannot read the body of a failed upgrade.
    pub(crate) fn errors_close(&self) -> bool {
        self.0
            .iter()
            .any(|(name, value)| name == "errors" && value == "close")
    }

    /// The parameters of `/socket/in`.
    pub(crate) fn produce_params(&self) -> Result<ProduceParams, ParamError> {
        self.refuse_near_misses(PRODUCE_NAMES)?;
        let payload = self.check_common()?;
        let transactional = self.optional("transactional", "true, false", boolean)?;
        let params = ProduceParams {
            topic: self.required("topic", TOPIC, topic)?,
            payload,
            formats: self.formats()?,
            client_id: self.optional("clientId", NAME, name)?,
            instance_id: self.optional("instanceId", NAME, name)?,
            transactional: transactional.unwrap_or(false),
        };
        if params.transactional && params.client_id.is_none() {
            return Err(ParamError::TransactionalWithoutClient);
        }
        Ok(params)
    }

    /// The parameters of `/socket/out`.
    pub(crate) fn consume_params(&self) -> Result<ConsumeParams, ParamError> {
        self.refuse_near_misses(CONSUME_NAMES)?;
        let payload = self.check_common()?;
        if self.optional("transactional", "false", boolean)? == Some(true) {
            return Err(ParamError::TransactionalConsumer);
        }
        let client_id = self.required("clientId", NAME, name)?;
        let group_id = self
            .optional("groupId", NAME, name)?
            .unwrap_or_else(|| format!("{client_id}-group"));
        let batch_size = self.optional("batchSize", COUNT, count)?;
        let batch_size = batch_size.map(|records| records.unwrap_or(0));
        if payload == SocketPayload::Avro && batch_size.is_some_and(|records| records > 0) {
            return Err(ParamError::ArraysOfAvro);
        }
        Ok(ConsumeParams {
            client_id,
            group_id,
            topics: self.required("topic", TOPICS, topics)?,
            payload,
            formats: self.formats()?,
            offset_reset_strategy: self
                .optional(
                    "offsetResetStrategy",
                    "earliest, latest, none",
                    offset_reset_strategy,
                )?
                .unwrap_or(OffsetResetStrategy::Earliest),
            isolation_level: self
                .optional(
                    "isolationLevel",
                    "read_uncommitted, read_committed",
                    isolation_level,
                )?
                .unwrap_or(IsolationLevel::ReadUncommitted),
            rate: self.optional("rate", COUNT, count)?.flatten(),
            batch_size,
            auto_commit: self
                .optional("autoCommit", "true, false", boolean)?
                .unwrap_or(true),
        })
    }

    /// First of all: a parameter that is missing may be one that is misspelt.
    fn refuse_near_misses(&self, known: &[&'static str]) -> Result<(), ParamError> {
        let unknown = self.0.iter().filter(|(n, _)| !known.contains(&n.as_str()));
        for (name, _) in unknown {
            if let Some(known) = near_miss::find(name.as_bytes(), known) {
                let name = name.clone();
                return Err(ParamError::NearMiss { name, known });
            }
        }
        Ok(())
    }

    /// What both endpoints have, of which the payload is given.
    fn check_common(&self) -> Result<SocketPayload, ParamError> {
        self.optional("errors", "http, close", |v| {
            matches!(v, "http" | "close").then_some(())
        })?;
        let payload = self.optional("socketPayload", "json, avro", payload)?;
        Ok(payload.unwrap_or_default())
    }

    fn formats(&self) -> Result<RecordFormats, ParamError> {
        let format = |v: &str| Format::from_str(v).ok();
        Ok(RecordFormats {
            key: self.optional("keyType", FORMATS, format)?,
            value: self
                .optional("valType", FORMATS, format)?
                .unwrap_or(Format::String),
        })
    }

    fn required<T>(
        &self,
        name: &'static str,
        allowed: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, ParamError> {
        self.optional(name, allowed, read)?
            .ok_or(ParamError::Missing { name, allowed })
    }

    fn optional<T>(
        &self,
        name: &'static str,
        allowed: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ParamError> {
        let mut values = self
            .0
            .iter()
            .filter(|(n, _)| n == name)
            .map(|(_, v)| v.as_str());
        let Some(value) = values.next() else {
            return Ok(None);
        };
        if values.next().is_some() {
            return Err(ParamError::Duplicate { name });
        }
        match read(value) {
            Some(value) => Ok(Some(value)),
            None => Err(ParamError::Invalid {
                name,
                value: value.chars().take(60).collect(),
                allowed,
            }),
        }
    }
}

/// The `group.instance.id` of a client: that of one without Kafka credentials of its own is its
/// name where Kafka allows that as one, else a stable substitute.
///
/// Who has the instance id of a member takes its place in the group. So that of a user's client is
/// made of both names, and no client can be called so that it has another's.
pub(crate) fn group_instance_id(user: Option<&str>, client_id: &str) -> String {
    match user {
        None if topic(client_id).is_some() && !is_substitute(client_id) => client_id.to_owned(),
        None => format!("{CLIENT_PREFIX}{}", hex_digest(&[client_id])),
        // A name has no control characters.
        Some(user) => format!("{USER_PREFIX}{}", hex_digest(&[user, "\0", client_id])),
    }
}

const CLIENT_PREFIX: &str = "client-";
const USER_PREFIX: &str = "user-";

/// Whether a client that is called so could have the instance id of one that is not.
fn is_substitute(client_id: &str) -> bool {
    let prefixes = [CLIENT_PREFIX, USER_PREFIX];
    let digest = prefixes
        .iter()
        .find_map(|prefix| client_id.strip_prefix(prefix));
    digest.is_some_and(|digest| digest.len() == 40)
}

fn hex_digest(parts: &[&str]) -> String {
    use sha1::Digest;
    let mut hash = sha1::Sha1::new();
    parts.iter().for_each(|part| hash.update(part));
    let digest = hash.finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Topics of one socket.
const TOPICS_MAX: usize = 1000;
/// The parameters of `/socket/in`.
const PRODUCE_NAMES: &[&str] = &[
    "topic",
    "keyType",
    "valType",
    "clientId",
    "instanceId",
    "socketPayload",
    "transactional",
    "errors",
];
/// The parameters of `/socket/out`.
const CONSUME_NAMES: &[&str] = &[
    "topic",
    "clientId",
    "groupId",
    "keyType",
    "valType",
    "socketPayload",
    "offsetResetStrategy",
    "isolationLevel",
    "rate",
    "batchSize",
    "autoCommit",
    "errors",
];

const TOPIC: &str = "a topic's name, 1 to 249 letters, digits, dots, dashes or underscores";
const TOPICS: &str = "one topic's name or a comma list of at most 1000 of them";
const NAME: &str = "1 to 200 characters, none of them a control character";
const COUNT: &str = "a whole number, 1 to 1000000; 0 for none";
const FORMATS: &str = "json, string, avro, protobuf, bytearray, int, short, long, float, double";

fn topic(text: &str) -> Option<String> {
    let legal_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let legal = (1..=249).contains(&text.len())
        && !matches!(text, "." | "..")
        && text.chars().all(legal_char);
    legal.then(|| text.to_owned())
}

fn topics(text: &str) -> Option<Vec<String>> {
    let parts = || text.split(',').map(str::trim);
    // Before anything is done for each of them.
    if parts().nth(TOPICS_MAX).is_some() {
        return None;
    }
    let mut known = HashSet::new();
    let new = parts().filter(|part| known.insert(*part));
    new.map(topic).collect()
}

fn name(text: &str) -> Option<String> {
    let legal = (1..=200).contains(&text.chars().count())
        && !text.contains(|c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER)
        && !text.trim().is_empty();
    legal.then(|| text.to_owned())
}

fn payload(text: &str) -> Option<SocketPayload> {
    Some(match text.to_ascii_lowercase().as_str() {
        "json" => SocketPayload::Json,
        "avro" => SocketPayload::Avro,
        _ => return None,
    })
}

fn offset_reset_strategy(text: &str) -> Option<OffsetResetStrategy> {
    Some(match text.to_ascii_lowercase().as_str() {
        "earliest" => OffsetResetStrategy::Earliest,
        "latest" => OffsetResetStrategy::Latest,
        "none" => OffsetResetStrategy::None,
        _ => return None,
    })
}

fn isolation_level(text: &str) -> Option<IsolationLevel> {
    Some(match text.to_ascii_lowercase().as_str() {
        "read_uncommitted" => IsolationLevel::ReadUncommitted,
        "read_committed" => IsolationLevel::ReadCommitted,
        _ => return None,
    })
}

/// `Some(None)` for 0: no limit.
fn count(text: &str) -> Option<Option<u32>> {
    match text.parse::<u32>() {
        Ok(0) => Some(None),
        Ok(n @ 1..=1_000_000) => Some(Some(n)),
        _ => None,
    }
}

fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_the_contract() {
        let out = QueryParams::parse("topic=a,b,a&clientId=me")
            .consume_params()
            .unwrap();
        assert_eq!(out.group_id, "me-group");
        assert_eq!(out.topics, ["a", "b"]);
        assert_eq!(
            out.formats,
            RecordFormats {
                key: None,
                value: Format::String
            }
        );
        assert_eq!(out.offset_reset_strategy, OffsetResetStrategy::Earliest);
        assert!(out.auto_commit);
        assert_eq!((out.rate, out.batch_size), (None, None));
    }

    #[test]
    fn values_are_percent_decoded_and_mostly_in_any_case() {
        let query = "topic=t&clientId=a%20b&offsetResetStrategy=LATEST&autoCommit=False&rate=0";
        let out = QueryParams::parse(query).consume_params().unwrap();
        assert_eq!(out.client_id, "a b");
        assert_eq!(out.offset_reset_strategy, OffsetResetStrategy::Latest);
        assert!(!out.auto_commit);
        assert_eq!(out.rate, None);
    }

    #[test]
    fn a_wrong_value_is_refused_by_name_with_what_is_allowed() {
        for (query, part) in [
            ("clientId=a", "topic"),
            ("topic=t", "clientId"),
            ("topic=a b&clientId=a", "topic"),
            ("topic=t,&clientId=a", "topic"),
            ("topic=t&clientId=", "clientId"),
            ("topic=t&clientId=a&clientId=b", "twice"),
            ("topic=t&clientId=a&valType=xml", "json, string"),
            ("topic=t&clientId=a&keyType=", "keyType"),
            (
                "topic=t&clientId=a&offsetResetStrategy=middle",
                "earliest, latest, none",
            ),
            ("topic=t&clientId=a&isolationLevel=x", "read_committed"),
            ("topic=t&clientId=a&rate=-1", "rate"),
            ("topic=t&clientId=a&batchSize=many", "batchSize"),
            ("topic=t&clientId=a&autoCommit=yes", "true, false"),
            ("topic=t&clientId=a&socketPayload=xml", "json, avro"),
            (
                "topic=t&clientId=a&socketPayload=avro&batchSize=2",
                "parameter batchSize: not with socketPayload=avro",
            ),
            ("topic=t&clientId=a&errors=later", "errors"),
        ] {
            let error = QueryParams::parse(query)
                .consume_params()
                .unwrap_err()
                .to_string();
            assert!(error.contains(part), "{query}: {error}");
        }
    }

    #[test]
    fn transactions_are_a_known_clients() {
        let produce = |query| QueryParams::parse(query).produce_params();
        let params = produce("topic=t&transactional=true&clientId=c&instanceId=i").unwrap();
        assert!(params.transactional);
        assert_eq!(params.client_id.as_deref(), Some("c"));
        assert_eq!(params.instance_id.as_deref(), Some("i"));
        assert!(
            !produce("topic=t&transactional=false")
                .unwrap()
                .transactional
        );
        assert!(!produce("topic=t&clientId=c").unwrap().transactional);
        let error = produce("topic=t&transactional=true&instanceId=i").unwrap_err();
        assert_eq!(error, ParamError::TransactionalWithoutClient);
        assert!(error.to_string().contains("clientId"), "{error}");
        let query = QueryParams::parse("topic=t&clientId=c&transactional=true");
        let error = query.consume_params().unwrap_err();
        assert_eq!(error, ParamError::TransactionalConsumer);
        let error = produce("topic=t&transactional=maybe").unwrap_err();
        assert!(error.to_string().contains("true, false"), "{error}");
    }

    #[test]
    fn a_socket_reads_at_most_1000_topics() {
        let query = |count| {
            let names: Vec<_> = (0..count).map(|i| format!("t{i}")).collect();
            format!("clientId=a&topic={}", names.join(","))
        };
        let topics = |count| QueryParams::parse(&query(count)).consume_params();
        assert_eq!(topics(1000).unwrap().topics.len(), 1000);
        let error = topics(1001).unwrap_err().to_string();
        assert!(error.contains("at most 1000"), "{error}");
    }

    #[test]
    fn names_that_are_not_known_are_ignored() {
        assert!(
            QueryParams::parse("topic=t&utm_source=x&utm_source=y")
                .produce_params()
                .is_ok()
        );
    }

    #[test]
    fn a_near_miss_of_a_known_name_is_refused_with_the_one_that_was_meant() {
        for (query, name, known) in [
            ("topic=t&clientId=a&valtype=json", "valtype", "valType"),
            ("topic=t&clientId=a&groupID=g", "groupID", "groupId"),
            ("topic=t&clientID=a", "clientID", "clientId"),
            ("topics=t&clientId=a", "topics", "topic"),
            ("topic=t&clientId=a&Topic=t", "Topic", "topic"),
            (
                "topic=t&clientId=a&autoComit=false",
                "autoComit",
                "autoCommit",
            ),
            ("topic=t&clientId=a&key%54ype%20=int", "keyType ", "keyType"),
        ] {
            let error = QueryParams::parse(query).consume_params().unwrap_err();
            let name = name.to_owned();
            assert_eq!(error, ParamError::NearMiss { name, known }, "{query}");
        }
        let error = QueryParams::parse("topic=t&valtype=json").produce_params();
        let message = error.unwrap_err().to_string();
        let expected = "parameter valtype is not known; did you mean valType?";
        assert_eq!(message, expected);
    }

    #[test]
    fn every_name_that_is_known_is_read() {
        for (endpoint, names) in [("in", PRODUCE_NAMES), ("out", CONSUME_NAMES)] {
            for name in names {
                let others = ["topic", "clientId"].iter().filter(|other| *other != name);
                let others: String = others.map(|other| format!("{other}=a&")).collect();
                let query = QueryParams::parse(&format!("{others}{name}=x&{name}=x"));
                let error = match endpoint {
                    "in" => query.produce_params().unwrap_err(),
                    _ => query.consume_params().unwrap_err(),
                };
                assert_eq!(error, ParamError::Duplicate { name }, "{endpoint}");
            }
        }
    }

    #[test]
    fn an_instance_id_is_the_client_id_where_kafka_allows_it() {
        let instance_id = |client_id| group_instance_id(None, client_id);
        assert_eq!(instance_id("sensor-1.a_B"), "sensor-1.a_B");
        let odd = instance_id("a b/ü");
        assert!(topic(&odd).is_some());
        // Another version of the proxy must take the place of the member by the same id.
        assert_eq!(odd, "client-d103516d31165a1ffeda9f8f045b95cf266ec082");
        assert_ne!(odd, instance_id("a b/u"));
    }

    #[test]
    fn no_client_has_the_instance_id_of_another_users_client() {
        let alice = group_instance_id(Some("alice"), "c");
        assert!(topic(&alice).is_some());
        assert_eq!(alice, group_instance_id(Some("alice"), "c"));
        let odd = group_instance_id(None, "a b/ü");
        for (user, client_id) in [
            (None, "c"),
            (Some("bob"), "c"),
            (Some("alicec"), ""),
            (Some("a"), "licec"),
            // Who calls itself as another's instance id does not get it.
            (None, &alice),
            (Some("alice"), &alice),
            (None, &odd),
        ] {
            let other = group_instance_id(user, client_id);
            assert!(other != alice && other != odd, "{user:?} {client_id}");
        }
    }
}
