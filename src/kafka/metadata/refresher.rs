//! The task that asks the cluster.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use tokio::time::{Instant, sleep_until};

use super::snapshot::{ClusterSnapshot, Fault, TopicMetadata, Verdict};
use super::{Metadata, Wanted};
use crate::backoff::ExponentialBackoff;
use crate::cluster::Cluster;
use crate::error::RequestError;
use crate::lock::lock;

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
        backoff: ExponentialBackoff::new(
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
    backoff: ExponentialBackoff,
}

impl Refresher {
    async fn run(mut self) {
        loop {
            let (round, topics) = self.begin();
            let pause = match self.ask(topics).await {
                Ok(answer) => {
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
        // A broker that hangs must not keep the news of others from us for that long.
        let timeout = self.cluster.config().request_timeout / 3;
        let (_, answer) = self.cluster.call_any(build, timeout).await?;
        if answer.error_code == REBOOTSTRAP_REQUIRED {
            tracing::info!("the cluster asks its clients to bootstrap again");
            let (_, answer) = self.cluster.call_bootstrap(build, timeout).await?;
            return Ok(answer);
        }
        Ok(answer)
    }

    fn succeeded(&mut self, round: u64, answer: &MetadataResponse) {
        if self.backoff.failures() > 0 {
            tracing::info!("the cluster answers again");
            self.backoff.succeeded();
        }
        let inner = &self.metadata.inner;
        let mut known = 0;
        inner.snapshot.send_if_modified(|snapshot| {
            let (mut next, told) = snapshot.merge_with(answer);
            let mut wanted = lock(&inner.wanted);
            settle(&mut wanted, &told, &mut next, round);
            expire(&mut wanted, snapshot, &mut next, Instant::now());
            known = next.brokers.len();
            let news = next.differs_from(snapshot);
            if news {
                *snapshot = Arc::new(next);
            }
            news
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
        if self.backoff.failures() == 0 {
            tracing::warn!(%error, "the cluster does not answer; trying on");
        } else {
            tracing::debug!(%error, "the cluster does not answer");
        }
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
                // Its partitions may have moved.
                () = self.cluster.lost() => return,
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

/// Notes what an answer says of each topic, and forgets those that are gone.
fn settle(wanted: &mut Wanted, told: &[Verdict], next: &mut ClusterSnapshot, round: u64) {
    for (name, verdict) in told {
        let Some(interest) = wanted.topics.get_mut(name) else {
            continue;
        };
        let Err(fault) = *verdict else {
            interest.fault = None;
            continue;
        };
        let times = match interest.fault {
            Some((before, _, times)) if before == fault => times + 1,
            _ => 1,
        };
        interest.fault = Some((fault, round, times));
        match fault {
            // A broker that is behind may not know a topic yet: ask once more.
            Fault::Unknown if times == 1 => wanted.asked = true,
            // Those who wait ask by themselves.
            Fault::Passing => {}
            Fault::Unknown | Fault::NotAuthorized | Fault::Invalid => {
                next.topics.remove(name);
                if interest.waiting == 0 {
                    wanted.topics.remove(name);
                }
            }
        }
    }
}

/// Forgets topics that nobody uses any more.
fn expire(wanted: &mut Wanted, before: &ClusterSnapshot, next: &mut ClusterSnapshot, now: Instant) {
    wanted.topics.retain(|name, interest| {
        let topic = next.topics.get(name);
        if topic.is_some_and(|topic| in_use(topic, before.topics.get(name))) {
            interest.last_used = now;
        }
        let keep = interest.waiting > 0 || now < interest.last_used + UNUSED;
        if !keep {
            next.topics.remove(name);
        }
        keep
    });
}

/// Whether somebody looked at a topic since the last time, or holds on to it.
fn in_use(topic: &Arc<TopicMetadata>, before: Option<&Arc<TopicMetadata>>) -> bool {
    // One handle in each snapshot; one flag for each description, the same or not.
    let (handles, descriptions) = match before {
        Some(before) if Arc::ptr_eq(before, topic) => (2, 1),
        Some(_) => (1, 2),
        None => (1, 1),
    };
    let held =
        |before: &Arc<TopicMetadata>| !Arc::ptr_eq(before, topic) && Arc::strong_count(before) > 1;
    topic.used.swap(false, Ordering::Relaxed)
        || Arc::strong_count(topic) > handles
        || Arc::strong_count(&topic.used) > descriptions
        || before.is_some_and(held)
}

#[cfg(test)]
mod tests {
    use super::super::Interest;
    use super::*;
    use crate::fake::{metadata_response, topic_metadata};

    fn knowing_t() -> (Wanted, ClusterSnapshot) {
        let answer = metadata_response(&[], vec![topic_metadata("t", 1, &[(1, 1)])]);
        let (snapshot, _) = ClusterSnapshot::default().merge_with(&answer);
        let mut wanted = Wanted::default();
        wanted.topics.insert("t".into(), Interest::new());
        (wanted, snapshot)
    }

    /// Whether `t` is still asked for after a round at that time.
    fn survives(wanted: &mut Wanted, before: &ClusterSnapshot, now: Instant) -> bool {
        let mut next = before.clone();
        expire(wanted, before, &mut next, now);
        assert_eq!(wanted.topics.contains_key("t"), next.topic("t").is_some());
        next.topic("t").is_some()
    }

    #[test]
    fn a_topic_that_nobody_uses_is_forgotten() {
        let (mut wanted, snapshot) = knowing_t();
        let start = Instant::now();
        // It was used when it was made.
        assert!(survives(&mut wanted, &snapshot, start));
        assert!(survives(&mut wanted, &snapshot, start + UNUSED / 2));
        assert!(!survives(&mut wanted, &snapshot, start + UNUSED));
    }

    #[test]
    fn a_topic_that_somebody_looks_at_holds_or_waits_for_stays() {
        let start = Instant::now();
        let (mut wanted, snapshot) = knowing_t();
        assert!(survives(&mut wanted, &snapshot, start));
        snapshot.topic("t").unwrap().touch();
        assert!(survives(&mut wanted, &snapshot, start + UNUSED));

        let held = Arc::clone(snapshot.topic("t").unwrap());
        assert!(survives(&mut wanted, &snapshot, start + 2 * UNUSED));
        assert!(survives(&mut wanted, &snapshot, start + 3 * UNUSED));
        drop(held);
        assert!(!survives(&mut wanted, &snapshot, start + 4 * UNUSED));

        let (mut wanted, snapshot) = knowing_t();
        snapshot
            .topic("t")
            .unwrap()
            .used
            .store(false, Ordering::Relaxed);
        wanted.topics.get_mut("t").unwrap().waiting = 1;
        assert!(survives(&mut wanted, &snapshot, start + 2 * UNUSED));
    }

    #[test]
    fn an_old_description_that_somebody_holds_keeps_the_topic_too() {
        let (mut wanted, snapshot) = knowing_t();
        let held = Arc::clone(snapshot.topic("t").unwrap());
        let start = Instant::now();
        let (next, _) = snapshot.merge_with(&metadata_response(
            &[],
            vec![topic_metadata("t", 1, &[(2, 2)])],
        ));
        drop(snapshot);
        assert!(survives(&mut wanted, &next, start));
        assert!(survives(&mut wanted, &next, start + UNUSED));
        drop(held);
        assert!(!survives(&mut wanted, &next, start + 2 * UNUSED));
    }

    #[test]
    fn unknown_counts_the_second_time() {
        let (mut wanted, mut snapshot) = knowing_t();
        let told: &[Verdict] = &[("t".into(), Err(Fault::Unknown))];
        settle(&mut wanted, told, &mut snapshot, 1);
        assert!(snapshot.topic("t").is_some());
        assert!(wanted.asked, "it is confirmed at once");
        settle(&mut wanted, told, &mut snapshot, 2);
        assert!(snapshot.topic("t").is_none());
        assert!(wanted.topics.is_empty());
    }

    #[test]
    fn a_doubt_that_is_not_confirmed_is_forgotten() {
        let (mut wanted, mut snapshot) = knowing_t();
        settle(
            &mut wanted,
            &[("t".into(), Err(Fault::Unknown))],
            &mut snapshot,
            1,
        );
        settle(&mut wanted, &[("t".into(), Ok(()))], &mut snapshot, 2);
        settle(
            &mut wanted,
            &[("t".into(), Err(Fault::Unknown))],
            &mut snapshot,
            3,
        );
        assert!(snapshot.topic("t").is_some());
    }
}
