//! The tails: one long poll per broker and isolation for everybody near the end.
//!
//! ```text
//! partition ─ join ─▶ members ─▶ plan ─▶ long poll ─▶ decode once ─▶ ring ─▶ wake all
//!                        ▲                   │
//!                        └── next offsets ◀──┘   a partition with a fault leaves, and
//!                                                its own task finds out what is wrong
//! ```
//!
//! # Invariants
//! - One request is in flight; the session (KIP-227) names only what changed.
//! - It never waits for a reader or for memory: what finds no room in the ring is
//!   skipped, and read again by those who want it.
//! - Locks are taken in one order: tails, members, a partition's feed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::FetchRequest;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::Shared;
use super::partition::Partition;
use super::request::{self, Fetched, Terms};
use super::session::{Session, Verdict, Wanted};
use crate::lock::lock;
use crate::{BrokerId, ConnectionPurpose, IsolationLevel, RequestError, TopicPartition};

/// All tails of a fetcher.
#[derive(Debug, Default)]
pub(super) struct Tails {
    tails: Mutex<HashMap<(BrokerId, IsolationLevel), Arc<Tail>>>,
}

#[derive(Debug, Default)]
struct Tail {
    members: Mutex<HashMap<TopicPartition, Member>>,
    joined: Notify,
}

/// A partition that a tail reads.
#[derive(Clone, Debug)]
struct Member {
    partition: Arc<Partition>,
    topic_id: Uuid,
    leader_epoch: i32,
}

/// What a request asked of a member.
#[derive(Clone, Debug)]
struct Sent {
    member: Member,
    ring: u64,
    offset: i64,
}

impl Tails {
    /// Has `partition` read by the tail at `broker`, from the next request on. Not to be
    /// called under the lock of its feed.
    pub(super) fn join(
        shared: &Arc<Shared>,
        broker: BrokerId,
        partition: &Arc<Partition>,
        topic_id: Uuid,
        leader_epoch: i32,
    ) {
        let key = (broker, partition.isolation);
        let member = Member {
            partition: Arc::clone(partition),
            topic_id,
            leader_epoch,
        };
        let mut tails = lock(&shared.tails.tails);
        let tail = tails.entry(key).or_insert_with(|| {
            let tail = Arc::new(Tail::default());
            let run = Runner {
                shared: Arc::downgrade(shared),
                key,
                tail: Arc::clone(&tail),
                session: Session::new(),
            };
            let stop = shared.cluster.stop().clone();
            shared.cluster.tasks().spawn(async move {
                stop.run_until_cancelled(run.run()).await;
            });
            tail
        });
        lock(&tail.members).insert(partition.tp.clone(), member);
        tail.joined.notify_one();
    }

    /// Tails at work.
    pub(super) fn count(&self) -> usize {
        lock(&self.tails).len()
    }
}

struct Runner {
    shared: Weak<Shared>,
    key: (BrokerId, IsolationLevel),
    tail: Arc<Tail>,
    session: Session,
}

impl Runner {
    async fn run(mut self) {
        while let Some(shared) = self.shared.upgrade() {
            let sent = self.members();
            if sent.is_empty() {
                drop(shared);
                if self.rest().await {
                    continue;
                }
                return;
            }
            if let Err(error) = self.poll(&shared, sent).await {
                tracing::debug!(broker = %self.key.0, %error, "the tail was interrupted");
                self.session.failed();
                self.disband();
            }
        }
    }

    /// Waits for a member. `false`: there is none, and this tail is no more.
    async fn rest(&self) -> bool {
        loop {
            if timeout(REST, self.tail.joined.notified()).await.is_ok() {
                return true;
            }
            let Some(shared) = self.shared.upgrade() else {
                return false;
            };
            let mut tails = lock(&shared.tails.tails);
            if lock(&self.tail.members).is_empty() {
                tails.remove(&self.key);
                return false;
            }
        }
    }

    /// What is to be read now; those who left are let go.
    fn members(&self) -> Vec<Sent> {
        let now = Instant::now();
        let mut sent = Vec::new();
        lock(&self.tail.members).retain(|_, member| {
            let mut feed = lock(&member.partition.feed);
            if feed.tail_is_idle(now) {
                feed.drop_ring();
            }
            let wants = feed.tail_wants();
            if let Some((ring, offset)) = wants {
                sent.push(Sent {
                    member: member.clone(),
                    ring,
                    offset,
                });
            }
            wants.is_some()
        });
        sent
    }

    async fn poll(&mut self, shared: &Arc<Shared>, sent: Vec<Sent>) -> Result<(), RequestError> {
        let (broker, isolation) = self.key;
        let connection = shared
            .cluster
            .connection(broker, ConnectionPurpose::Tail(isolation))
            .await?;
        let ids = sent.iter().all(|sent| !sent.member.topic_id.is_nil());
        let version = request::version(&connection, ids)?;
        let config = &shared.config;
        let most = shared.budget.ring.limit() / 4;
        let max_bytes = bounded(most).min(config.fetch_max_bytes).max(1);
        let wanted = sent.iter().map(|sent| Wanted {
            tp: sent.member.partition.tp.clone(),
            topic_id: sent.member.topic_id,
            offset: sent.offset,
            leader_epoch: sent.member.leader_epoch,
            max_bytes: config.max_partition_fetch_bytes.min(max_bytes),
        });
        let plan = self
            .session
            .plan(wanted.collect(), request::naming(version));
        let terms = Terms {
            max_wait_ms: i32::try_from(config.fetch_max_wait.as_millis()).unwrap_or(i32::MAX),
            min_bytes: config.fetch_min_bytes,
            max_bytes,
            isolation,
        };
        let fetch: FetchRequest = request::build(version, terms, &plan);
        let time = shared.cluster.config().request_timeout + config.fetch_max_wait;
        let reply = connection.send(version, &fetch, time).await?;
        for sent in &sent {
            lock(&sent.member.partition.feed).tail_joined();
        }
        let response = reply.await?;
        if self
            .session
            .answered(response.error_code, response.session_id)
            == Verdict::Again
        {
            tracing::debug!(
                %broker,
                error = response.error_code,
                "the fetch session is no more: starting another"
            );
            return self.pace(response.error_code).await;
        }
        let names: HashMap<Uuid, Arc<str>> = sent
            .iter()
            .map(|sent| {
                (
                    sent.member.topic_id,
                    Arc::clone(&sent.member.partition.tp.topic),
                )
            })
            .collect();
        let metadata = shared.cluster.metadata();
        let mut answers = request::take(version, isolation, response, &names, metadata);
        for sent in sent {
            if let Some(fetched) = answers.remove(&sent.member.partition.tp) {
                self.take(shared, sent, fetched);
            }
        }
        Ok(())
    }

    /// An error that is not about the session may come again at once.
    async fn pace(&self, error: i16) -> Result<(), RequestError> {
        let about_session = [
            ResponseError::FetchSessionIdNotFound,
            ResponseError::InvalidFetchSessionEpoch,
            ResponseError::FetchSessionTopicIdError,
        ];
        if !about_session.iter().any(|known| known.code() == error) {
            tokio::time::sleep(PACE).await;
        }
        Ok(())
    }

    fn take(&self, shared: &Arc<Shared>, sent: Sent, fetched: Fetched) {
        let partition = &sent.member.partition;
        if fetched.error != 0 || fetched.diverging.is_some() {
            tracing::debug!(
                partition = %partition.tp,
                error = fetched.error,
                "left the tail"
            );
            self.leave(&sent.member);
            return;
        }
        if fetched.records.is_empty() {
            return;
        }
        let end = fetched.end;
        let wire = fetched.records.len();
        let unpacked = partition.unpack(
            fetched,
            sent.offset,
            sent.member.leader_epoch,
            shared.unpack_max,
        );
        let unpacked = match unpacked {
            Ok(unpacked) => unpacked,
            Err(reason) => {
                tracing::debug!(partition = %partition.tp, wire, %reason, "left the tail");
                self.leave(&sent.member);
                return;
            }
        };
        let (ring, first, next) = (sent.ring, sent.offset, unpacked.next());
        let epoch = unpacked.epoch();
        if !lock(&partition.feed).tail_accepts(ring, first, next) {
            return;
        }
        match shared.room_in_ring(partition, unpacked) {
            Some(chunk) => {
                let chunk = Arc::new(chunk);
                let news = lock(&partition.feed).tail_push(ring, Arc::clone(&chunk), end);
                partition.publish(news, Some(&chunk));
            }
            None => {
                let news = lock(&partition.feed).tail_skip(ring, first, next, epoch);
                partition.publish(news, None);
            }
        }
    }

    fn leave(&self, member: &Member) {
        let mut members = lock(&self.tail.members);
        let tp = &member.partition.tp;
        // Another partition of that name may have joined since: the topic is new.
        if members
            .get(tp)
            .is_some_and(|now| Arc::ptr_eq(&now.partition, &member.partition))
        {
            members.remove(tp);
        }
        drop(members);
        if lock(&member.partition.feed).tail_left() {
            member.partition.work.notify_one();
        }
    }

    fn disband(&self) {
        let members: Vec<Member> = lock(&self.tail.members).drain().map(|(_, m)| m).collect();
        for member in members {
            if lock(&member.partition.feed).tail_left() {
                member.partition.work.notify_one();
            }
        }
    }
}

fn bounded(bytes: usize) -> i32 {
    i32::try_from(bytes).unwrap_or(i32::MAX)
}

/// How long a tail without members stays.
const REST: Duration = Duration::from_secs(10);
/// The least time between two requests that a broker refused as a whole.
const PACE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_that_leaves_takes_no_other_of_its_name_along() {
        let tp = TopicPartition::new("t", 0);
        let member = || Member {
            partition: Partition::new(tp.clone(), IsolationLevel::ReadUncommitted),
            topic_id: Uuid::nil(),
            leader_epoch: 0,
        };
        let (old, new) = (member(), member());
        let runner = Runner {
            shared: Weak::new(),
            key: (BrokerId(1), IsolationLevel::ReadUncommitted),
            tail: Arc::default(),
            session: Session::new(),
        };
        lock(&runner.tail.members).insert(tp.clone(), new.clone());
        runner.leave(&old);
        assert!(lock(&runner.tail.members).contains_key(&tp));
        runner.leave(&new);
        assert!(lock(&runner.tail.members).is_empty());
    }
}
