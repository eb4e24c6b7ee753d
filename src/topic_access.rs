//! Which topics no client may read or write, whatever Kafka would let the proxy do.

/// What Kafka's own topics begin with: `__consumer_offsets`, `__transaction_state`, ….
const INTERNAL_PREFIX: &str = "__";

/// The topics in which the proxies of a deployment keep what they share, by default.
const PROXY_TOPICS: [&str; 2] = ["_wsproxy.session.state", "_wsproxy.dynamic.configs"];

/// A topic that is none of the clients'.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReservedTopic {
    /// Kafka keeps its state in it: a reader that commits would feed itself for ever.
    #[error(
        "parameter topic: {topic} is an internal topic (its name begins with __), \
         which no socket may read or write"
    )]
    Internal {
        /// The topic's name.
        topic: String,
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
}

/// Looks whether any of these topics is none of the clients'. `session_topic` is what the session
/// topic is called here.
///
/// # Errors
/// The first one that is.
pub(crate) fn check_topics<'a>(
    topics: impl IntoIterator<Item = &'a str>,
    session_topic: &str,
) -> Result<(), ReservedTopic> {
    for name in topics {
        let topic = || name.to_owned();
        if name.starts_with(INTERNAL_PREFIX) {
            return Err(ReservedTopic::Internal { topic: topic() });
        }
        if name == session_topic || PROXY_TOPICS.contains(&name) {
            return Err(ReservedTopic::OfTheProxy { topic: topic() });
        }
    }
    Ok(())
}
