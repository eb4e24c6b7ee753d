//! The task that asks the cluster.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use tokio::time::{Instant, sleep_until};

use super::snapshot::{Fault, Snapshot, TopicAnswer};
use super::{Interest, Metadata, Wanted};
use crate::kafka::backoff::Backoff;
use crate::kafka::cluster::Cluster;
use crate::kafka::error::RequestError;
use crate::kafka::lock::lock;

/// A topic that nobody looked at for so long is not asked for any more
/// (`metadata.max.idle.ms`).
const UNUSED: Duration = Duration::from_secs(5 * 60);

/// `REBOOTSTRAP_REQUIRED` (KIP-1102).
const REBOOTSTRAP_REQUIRED: i16 = 129;

/// Keeps `cluster`'s metadata fresh until it is stopped.
pub(crate) async fn run(cluster: Cluster) {
    let stop = cluster.stop().clone();
    let metadata = cluster.metadata().clone();
    let refresher = Refresher {
        backoff: Backoff::new(
            cluster.config().retry_backoff,
            cluster.config().retry_backoff_max,
        ),
        cluster,
        metadata,
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = refresher.run() => {}
    }
}

struct Refresher {
    cluster: Cluster,
    metadata: Metadata,
    backoff: Backoff,
}

impl Refresher {
    async fn run(mut self) {
        loop {
            let (round, topics) = self.begin();
            let pause = match self.ask(topics).await {
                Ok(answer) => {
                    self.backoff.succeeded();
                    self.succeeded(round, &answer);
                    // However many ask, and however often.
                    self.cluster.config().retry_backoff
                }
                Err(error) => {
                    self.failed(round, &error);
                    self.backoff.after_failure()
                }
            };
            let now = Instant::now();
            sleep_until(now + pause).await;
            self.wait_for_a_reason(now + self.cluster.config().metadata_max_age)
                .await;
        }
    }

    /// Opens a round: everybody who asked until now is answered by it.
    fn begin(&self) -> (u64, Vec<Arc<str>>) {
        let mut wanted = lock(&self.metadata.inner.wanted);
        wanted.asked = false;
        wanted.rounds += 1;
        (wanted.rounds, wanted.topics.keys().cloned().collect())
    }

    async fn ask(&self, topics: Vec<Arc<str>>) -> Result<MetadataResponse, RequestError> {
        let build = |_version| question(&topics);
        let timeout = self.cluster.config().request_timeout;
        let (_, answer) = self.cluster.call_any(build, timeout).await?;
        if answer.error_code == REBOOTSTRAP_REQUIRED {
            tracing::info!("the cluster asks its clients to bootstrap again");
            let (_, answer) = self.cluster.call_bootstrap(build, timeout).await?;
            return Ok(answer);
        }
        Ok(answer)
    }

    fn succeeded(&self, round: u64, answer: &MetadataResponse) {
        let inner = &self.metadata.inner;
        let mut known = 0;
        inner.snapshot.send_modify(|snapshot| {
            let (mut next, told) = snapshot.after(answer);
            let mut wanted = lock(&inner.wanted);
            settle(&mut wanted, &mut next, &told, round, Instant::now());
            known = next.brokers.len();
            *snapshot = Arc::new(next);
        });
        *lock(&inner.health) = if known > 0 {
            Ok(())
        } else {
            Err("the cluster has no brokers yet".into())
        };
        inner
            .progress
            .send_modify(|progress| progress.succeeded = round);
    }

    fn failed(&self, round: u64, error: &RequestError) {
        tracing::warn!(%error, "no metadata");
        let inner = &self.metadata.inner;
        *lock(&inner.health) = Err(error.to_string().into());
        lock(&inner.wanted).asked = true;
        inner
            .progress
            .send_modify(|progress| progress.failed = round);
    }

    async fn wait_for_a_reason(&self, age: Instant) {
        loop {
            let woken = self.metadata.inner.wake.notified();
            if lock(&self.metadata.inner.wanted).asked {
                return;
            }
            tokio::select! {
                () = sleep_until(age) => return,
                () = woken => {}
            }
        }
    }
}

fn question(topics: &[Arc<str>]) -> MetadataRequest {
    let topics = topics
        .iter()
        .map(|name| {
            let name = TopicName(StrBytes::from_string(name.to_string()));
            MetadataRequestTopic::default().with_name(Some(name))
        })
        .collect();
    MetadataRequest::default()
        .with_topics(Some(topics))
        .with_allow_auto_topic_creation(false)
}

/// Notes what an answer says of each topic, and forgets those that are gone or unused.
fn settle(
    wanted: &mut Wanted,
    next: &mut Snapshot,
    told: &[TopicAnswer],
    round: u64,
    now: Instant,
) {
    for (name, verdict) in told {
        let Some(interest) = wanted.topics.get_mut(name) else {
            continue;
        };
        interest.fault = match *verdict {
            Ok(_) => None,
            Err(fault) => Some(match interest.fault {
                Some((before, _, times)) if before == fault => (fault, round, times + 1),
                _ => (fault, round, 1),
            }),
        };
        let Some((fault, _, times)) = interest.fault else {
            continue;
        };
        match fault {
            // A broker that is behind may not know a topic yet: ask once more.
            Fault::Unknown if times == 1 => wanted.asked = true,
            Fault::Unknown | Fault::NotAuthorized | Fault::Invalid => {
                next.topics.remove(name);
                if interest.waiting == 0 {
                    wanted.topics.remove(name);
                }
            }
            Fault::Passing => wanted.asked = true,
        }
    }
    expire(&mut wanted.topics, next, now);
}

fn expire(topics: &mut HashMap<Arc<str>, Interest>, next: &mut Snapshot, now: Instant) {
    topics.retain(|name, interest| {
        if let Some(topic) = next.topics.get(name) {
            // The snapshot's own handle is one.
            if topic.used.swap(false, Ordering::Relaxed) || Arc::strong_count(topic) > 1 {
                interest.last_used = now;
            }
        }
        let keep = interest.waiting > 0 || now < interest.last_used + UNUSED;
        if !keep {
            next.topics.remove(name);
        }
        keep
    });
}
