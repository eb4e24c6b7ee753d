//! The topics that a user may read, which the brokers are asked for once in a while, however many
//! ask and however many topics there are.
//!
//! ```text
//! request ─┬─ answered, or being asked for ─▶ waits for the same answer
//!          └─ neither ─▶ a task: turn ─▶ brokers ─▶ answer ─▶ forgotten after a while
//! ```
//!
//! # Invariants
//! - One request for the topics is in flight for each user, and [`TURNS`] for all.
//! - What is kept is gone seconds later, whoever goes away meanwhile.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use runtime::mutex::lock;
use runtime::panic_policy;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use crate::config::{Config, TopicsConfig};
use crate::topic_access;
use kafka_client::admin::{self, TopicListing};
use kafka_client::metadata::AclOperation;
use kafka_client::principal_clients::{ClientLease, ClientNumber};

/// How long an answer is given to those who ask.
const KEPT_FOR: Duration = Duration::from_secs(2);
/// How long it is said that the brokers did not answer, before they are asked again.
const FAULT_KEPT_FOR: Duration = Duration::from_millis(500);
/// How long the brokers may take, with the wait for a turn.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Answers of brokers that are awaited, and unpacked, at once: each is as large as the cluster.
const TURNS: usize = 2;

/// A topic that a user may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ReadableTopic {
    pub(super) name: Box<str>,
    pub(super) partitions: usize,
}

/// Sorted by name, or the reason why the brokers did not say.
pub(super) type ReadableTopicsResult = Result<Arc<[ReadableTopic]>, Arc<str>>;

/// Those of all users. Cloning is cheap.
#[derive(Clone)]
pub(super) struct ReadableTopics(Arc<ReadableTopicsShared>);

struct ReadableTopicsShared {
    /// By the number of the user's client; none: the proxy's own.
    by_client: Mutex<HashMap<Option<ClientNumber>, Answer>>,
    turns: Semaphore,
    allowed: TopicsConfig,
    state_topics: [String; 2],
    metrics_topic: String,
}

/// `None` until the brokers have answered.
type Answer = watch::Receiver<Option<ReadableTopicsResult>>;

impl fmt::Debug for ReadableTopics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "topics of {} users", lock(&self.0.by_client).len())
    }
}

impl ReadableTopics {
    pub(super) fn new(config: &Config) -> Self {
        Self(Arc::new(ReadableTopicsShared {
            by_client: Mutex::default(),
            turns: Semaphore::new(TURNS),
            allowed: config.server.topics.clone(),
            state_topics: config.state_topics().map(str::to_owned),
            metrics_topic: config.metrics_reporter.topic.clone(),
        }))
    }

    /// The topics that the client's user may read, as they were two seconds ago at most. Cancel-safe.
    pub(super) async fn of(&self, client: ClientLease) -> ReadableTopicsResult {
        let mut answer = self.answer(client);
        match answer.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(result)) => result.clone(),
            _ => Err("the Kafka client is stopping".into()),
        }
    }

    /// The answer that is there, or under way.
    fn answer(&self, client: ClientLease) -> Answer {
        let number = client.number();
        let mut by_client = lock(&self.0.by_client);
        if let Some(answer) = by_client.get(&number) {
            return answer.clone();
        }
        let (sender, answer) = watch::channel(None);
        by_client.insert(number, answer.clone());
        let entry = AnswerEntry {
            topics: self.clone(),
            number,
        };
        let (tasks, stop) = (client.cluster().tasks(), client.cluster().stop());
        let task = entry.ask_and_keep(client.clone(), sender);
        let task = stop.clone().run_until_cancelled_owned(task);
        tasks.spawn(panic_policy::contain_panics(task));
        answer
    }
}

/// What is in the table as long as this lives.
struct AnswerEntry {
    topics: ReadableTopics,
    number: Option<ClientNumber>,
}

impl AnswerEntry {
    async fn ask_and_keep(
        self,
        client: ClientLease,
        sender: watch::Sender<Option<ReadableTopicsResult>>,
    ) {
        let shared = &self.topics.0;
        let asked = timeout(ANSWER_TIMEOUT, shared.ask(&client)).await;
        // The client is kept no longer than it works.
        drop(client);
        let result = asked.unwrap_or_else(|_| Err("no broker answers in time".into()));
        let kept_for = match result {
            Ok(_) => KEPT_FOR,
            Err(_) => FAULT_KEPT_FOR,
        };
        sender.send_replace(Some(result));
        sleep(kept_for).await;
    }
}

impl Drop for AnswerEntry {
    fn drop(&mut self) {
        lock(&self.topics.0.by_client).remove(&self.number);
    }
}

impl ReadableTopicsShared {
    async fn ask(&self, client: &ClientLease) -> ReadableTopicsResult {
        let _turn = self.turns.acquire().await;
        match admin::list_topics(client.cluster()).await {
            Ok(topics) => Ok(self.readable(topics).into()),
            Err(error) => Err(error.to_string().into()),
        }
    }

    /// Those that a socket of the user would be let in to, without what the proxies write themselves.
    fn readable(&self, mut topics: Vec<TopicListing>) -> Vec<ReadableTopic> {
        topics.retain(|topic| {
            let name: &str = &topic.name;
            let (read, allowed) = (AclOperation::Read, &self.allowed);
            topic.authorized_operations.may(read)
                && topic_access::check_topics([name], read, allowed, &self.state_topics).is_ok()
                && name != self.metrics_topic
        });
        topics.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let readable = topics.into_iter().map(|topic| ReadableTopic {
            name: topic.name,
            partitions: topic.partitions,
        });
        readable.collect()
    }
}
