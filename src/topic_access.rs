//! Which topics clients may read or write, whatever Kafka would let the proxy do.

use crate::config::{INTERNAL_PREFIX, TopicsConfig};
use kafka_client::metadata::AclOperation;

/// The topics in which the proxies of a deployment keep what they share, by default.
const PROXY_TOPICS: [&str; 2] = ["_wsproxy.session.state", "_wsproxy.dynamic.configs"];

/// A topic that clients may not use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReservedTopic {
    /// Kafka keeps its state in it: a reader that commits would feed itself for ever.
    #[error(
        "parameter topic: {topic} is an internal topic (its name begins with __), which sockets may \
         {verb} only where {key} says so"
    )]
    Internal {
        /// The topic's name.
        topic: String,
        /// What the client would do with it.
        verb: &'static str,
        /// The key that could allow it.
        key: &'static str,
    },
    /// The proxies keep their state in it.
    #[error(
        "parameter topic: {topic} is a topic of the proxy's own, \
         which no socket may read or write"
    )]
    OfTheProxy {
        /// The topic's name.
        topic: String,
    },
    /// None of the globs is for it.
    #[error("parameter topic: {topic} is none of the topics that sockets may {verb} ({key})")]
    NotAllowed {
        /// The topic's name.
        topic: String,
        /// What the client would do with it.
        verb: &'static str,
        /// The key that does not allow it.
        key: &'static str,
    },
}

/// Looks whether clients may do that with all of these topics, which need not exist. `proxy_topics`
/// are what the proxies keep their state in here.
///
/// # Errors
/// The first one with which they may not.
pub(crate) fn check_topics<'a>(
    topics: impl IntoIterator<Item = &'a str>,
    operation: AclOperation,
    allowed: &TopicsConfig,
    proxy_topics: &[impl AsRef<str>],
) -> Result<(), ReservedTopic> {
    let (globs, verb, key) = match operation {
        AclOperation::Read => (
            &allowed.consume_allowed,
            "read",
            "server.topics.consume-allowed",
        ),
        AclOperation::Write => (
            &allowed.produce_allowed,
            "write to",
            "server.topics.produce-allowed",
        ),
    };
    for name in topics {
        let topic = || name.to_owned();
        let is_own = |own: &str| own == name;
        if PROXY_TOPICS.into_iter().any(is_own) || proxy_topics.iter().any(|t| is_own(t.as_ref())) {
            return Err(ReservedTopic::OfTheProxy { topic: topic() });
        }
        if globs.allow(name) {
            continue;
        }
        let topic = topic();
        return Err(match name.starts_with(INTERNAL_PREFIX) {
            true => ReservedTopic::Internal { topic, verb, key },
            false => ReservedTopic::NotAllowed { topic, verb, key },
        });
    }
    Ok(())
}
