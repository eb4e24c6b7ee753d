//! The task of one partition: finds the leader, does the reads that its readers ask for,
//! and puts right what goes wrong.
//!
//! ```text
//!          ┌──────────── work ─────────────┐
//!          ▼                               │
//!  leader? ─▶ position checked? ─▶ read ─▶ feed ─▶ readers
//!     ▲                              │
//!     └─ wait, refresh metadata ◀────┴ refused, lost, unreadable
//! ```
//!
//! # Invariants
//! - Nothing is asked while the pause after a failure lasts, except when the leader
//!   changes meanwhile.
//! - An error reaches readers only when waiting cannot mend it.
//! - When nobody has read here for a while, the partition is forgotten.

mod reading;

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use kafka_protocol::error::ResponseError;
use tokio::time::{Instant, sleep_until, timeout_at};
use uuid::Uuid;

use self::reading::Reading;
use super::Shared;
use super::budget::BudgetPermit;
use super::chunk::Chunk;
use super::error::FetchError;
use super::feed::{News, Outcome, Spec, What};
use super::partition::{Partition, notify};
use super::request::Fetched;
use super::tail::Tails;
use crate::backoff::ExponentialBackoff;
use crate::lock::lock;
use crate::metadata::{LeaderAndEpoch, MetadataError};

/// Serves `partition` until nobody reads there or the cluster stops.
pub(super) async fn run(shared: Arc<Shared>, partition: Arc<Partition>) {
    let stop = shared.cluster.stop().clone();
    let config = shared.cluster.config();
    let task = Task {
        backoff: ExponentialBackoff::new(config.retry_backoff, config.retry_backoff_max),
        partition: Arc::clone(&partition),
        shared: Arc::clone(&shared),
        home: None,
        topic_id: None,
        unknown_since: None,
        unreadable: None,
        alone: false,
        paused_until: None,
        next_poll: Instant::now(),
        next_round: Instant::now() + LOOK_AROUND,
        left: None,
        reads: FuturesUnordered::new(),
    };
    if stop.run_until_cancelled(task.run()).await.is_none() {
        let wake = lock(&partition.feed).close(FetchError::Stopped);
        notify(wake);
    }
}

struct Task {
    shared: Arc<Shared>,
    partition: Arc<Partition>,
    backoff: ExponentialBackoff,
    /// Where the partition is led.
    home: Option<LeaderAndEpoch>,
    /// Of the topic when it was first seen: another id is another topic.
    topic_id: Option<Uuid>,
    /// Since when the cluster does not know the topic.
    unknown_since: Option<Instant>,
    /// An offset that could not be read, and how often in a row.
    unreadable: Option<(i64, u32)>,
    /// The next read goes alone.
    alone: bool,
    paused_until: Option<Instant>,
    next_poll: Instant,
    /// When to look whether the task is needed.
    next_round: Instant,
    /// The leader that was no use: any other one ends the pause.
    left: Option<LeaderAndEpoch>,
    reads: FuturesUnordered<BoxedRead>,
}

type BoxedRead = std::pin::Pin<Box<dyn Future<Output = (Spec, Step)> + Send>>;

/// What came of a read, for the task.
#[derive(Debug)]
enum Step {
    /// For the readers.
    Fetched {
        fetched: Fetched,
        permit: Option<BudgetPermit>,
        under: i32,
    },
    Failed(FetchError),
    NotNow,
    /// To be tried again after a pause.
    Retry(Trouble),
}

/// What stood in the way.
#[derive(Debug)]
enum Trouble {
    Code(i16),
    Other(String),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => match ResponseError::try_from_code(*code) {
                Some(error) => write!(f, "{error:?}"),
                None => write!(f, "error {code}"),
            },
            Self::Other(reason) => f.write_str(reason),
        }
    }
}

impl Task {
    async fn run(mut self) {
        let mut changed = self.shared.cluster.metadata().subscribe();
        loop {
            self.heed_leader();
            if self.paused_until.is_none() && self.has_work() {
                if self.home.is_none() {
                    self.find_home().await;
                }
                self.start_reads();
            }
            let until = self.next_look();
            tokio::select! {
                Some((spec, step)) = self.reads.next(), if !self.reads.is_empty() => {
                    self.finish(spec, step);
                }
                () = self.partition.work.notified() => {}
                _ = changed.changed(), if self.paused_until.is_some() => self.heed_news(),
                () = sleep_until(until) => {
                    if self.look_around(Instant::now()) {
                        return;
                    }
                }
            }
            if lock(&self.partition.feed).is_closed() {
                return;
            }
        }
    }

    fn has_work(&self) -> bool {
        let feed = lock(&self.partition.feed);
        feed.wants_poll() || (self.reads.len() < READS && feed.wants_read())
    }

    /// Takes news of the leader that others brought.
    fn heed_leader(&mut self) {
        if self.home.is_some() && self.known_leader() != self.home {
            self.home = None;
        }
    }

    /// Ends a pause when another leader is known than the one that was no use.
    fn heed_news(&mut self) {
        let leader = self.known_leader();
        if leader.is_some() && leader != self.left {
            self.paused_until = None;
        }
    }

    fn known_leader(&self) -> Option<LeaderAndEpoch> {
        self.shared
            .cluster
            .metadata()
            .current_leader(&self.partition.tp)
    }

    async fn find_home(&mut self) {
        let metadata = self.shared.cluster.metadata();
        let tp = &self.partition.tp;
        // Readers come and go meanwhile; whoever is left is served afterwards.
        let deadline = Instant::now() + FIND;
        let found = timeout_at(deadline, metadata.topic(&tp.topic)).await;
        let topic = match found {
            Ok(Ok(topic)) => topic,
            Ok(Err(MetadataError::UnknownTopic { .. } | MetadataError::Invalid { .. })) => {
                return self.topic_is_unknown();
            }
            Ok(Err(MetadataError::NotAuthorized { topic })) => {
                return self.fail_all(&FetchError::NotAuthorized { topic });
            }
            Ok(Err(error)) => return self.pause(&Trouble::Other(error.to_string()), false),
            Err(_) => return self.pause(&Trouble::Other("no metadata".into()), false),
        };
        if *self.topic_id.get_or_insert(topic.id) != topic.id {
            return self.topic_is_gone();
        }
        if tp.partition as usize >= topic.partitions.len() {
            return self.topic_is_unknown();
        }
        self.unknown_since = None;
        match topic.leader(tp.partition) {
            Some(leader) => {
                self.home = Some(leader);
                lock(&self.partition.feed).leader_is(leader.epoch);
            }
            None => self.pause(
                &Trouble::Code(ResponseError::LeaderNotAvailable.code()),
                true,
            ),
        }
    }

    /// A broker that has just started may not know it yet.
    fn topic_is_unknown(&mut self) {
        let since = *self.unknown_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= UNKNOWN {
            self.topic_is_gone();
        } else {
            self.pause(
                &Trouble::Code(ResponseError::UnknownTopicOrPartition.code()),
                true,
            );
        }
    }

    fn topic_is_gone(&mut self) {
        self.shared.forget(&self.partition);
        let topic = Arc::clone(&self.partition.tp.topic);
        tracing::info!(%topic, "the topic is gone");
        notify(lock(&self.partition.feed).close(FetchError::UnknownTopic { topic }));
    }

    fn fail_all(&mut self, error: &FetchError) {
        let wake = lock(&self.partition.feed).fail_reads(error, Instant::now());
        notify(wake);
        self.home = None;
        // Those who ask again at once do not make us ask at once.
        self.paused_until = Some(Instant::now() + self.backoff.after_failure());
    }

    fn start_reads(&mut self) {
        let Some(leader) = self.home else { return };
        let now = Instant::now();
        let mut feed = lock(&self.partition.feed);
        let mut specs = Vec::new();
        let mut joins = false;
        if feed.wants_poll() {
            joins = feed.want_tail();
            if now >= self.next_poll {
                specs.extend(feed.start_poll());
                self.next_poll = now + POLL_EVERY;
            }
        }
        while self.reads.len() + specs.len() < READS {
            match feed.start_read() {
                Some(spec) => specs.push(spec),
                None => break,
            }
        }
        drop(feed);
        if joins {
            self.shared_join(leader);
        }
        for spec in specs {
            let alone = self.alone && !matches!(spec.what, What::Ahead(_));
            let read = Reading {
                shared: Arc::clone(&self.shared),
                partition: Arc::clone(&self.partition),
                leader,
                topic_id: self.topic_id.unwrap_or_default(),
                alone,
            };
            self.reads.push(Box::pin(async move {
                let step = read.run(spec).await;
                (spec, step)
            }));
        }
    }

    fn shared_join(&self, leader: LeaderAndEpoch) {
        let id = self.topic_id.unwrap_or_default();
        Tails::join(
            &self.shared,
            leader.broker,
            &self.partition,
            id,
            leader.epoch,
        );
    }

    fn finish(&mut self, spec: Spec, step: Step) {
        let outcome = match step {
            Step::NotNow => Outcome::Again,
            Step::Failed(error @ FetchError::NotAuthorized { .. }) => {
                self.deliver(spec, Outcome::Again, None);
                return self.fail_all(&error);
            }
            Step::Failed(error) => Outcome::Failed(error),
            Step::Retry(trouble) => {
                self.pause(&trouble, true);
                Outcome::Again
            }
            Step::Fetched {
                fetched,
                permit,
                under,
            } => return self.take(spec, fetched, permit, under),
        };
        self.deliver(spec, outcome, None);
    }

    fn take(&mut self, spec: Spec, fetched: Fetched, permit: Option<BudgetPermit>, under: i32) {
        let end = fetched.end;
        if fetched.records.is_empty() {
            if spec.offset < end {
                // Others in the request had used up its bytes, perhaps for a batch larger
                // than our part.
                let was_alone = std::mem::replace(&mut self.alone, true);
                if was_alone {
                    self.pause(&Trouble::Other("nothing at that offset".into()), true);
                }
                return self.deliver(spec, Outcome::Again, None);
            }
            self.succeeded();
            return self.deliver(spec, Outcome::AtEnd { end, under }, None);
        }
        let first = spec.offset;
        let unpacked = self
            .partition
            .unpack(fetched, first, under, self.shared.unpack_max);
        let unpacked = match unpacked {
            Ok(unpacked) => unpacked,
            Err(error) => return self.unreadable(spec, error.to_string()),
        };
        self.succeeded();
        let (next, epoch) = (unpacked.next(), unpacked.epoch());
        let chunk = match (spec.what, permit) {
            (What::Poll(_), _) => self.shared.room_in_ring(&self.partition, unpacked),
            (_, Some(permit)) => Some(self.partition.chunk(unpacked, permit)),
            (_, None) => None,
        };
        match chunk {
            Some(chunk) => {
                let chunk = Arc::new(chunk);
                if let What::Poll(_) = spec.what {
                    // There may be more.
                    self.next_poll = Instant::now();
                }
                let outcome = Outcome::Chunk {
                    chunk: Arc::clone(&chunk),
                    end,
                };
                self.deliver(spec, outcome, Some(&chunk));
            }
            None => self.deliver(
                spec,
                Outcome::NoRoom {
                    next,
                    epoch,
                    end,
                    under,
                },
                None,
            ),
        }
    }

    fn deliver(&self, spec: Spec, outcome: Outcome<Chunk>, chunk: Option<&Arc<Chunk>>) {
        let news: News = lock(&self.partition.feed).finish(spec, outcome, Instant::now());
        self.partition.publish(news, chunk);
    }

    /// Bytes that cannot be read may have been damaged under way: worth some more tries.
    fn unreadable(&mut self, spec: Spec, reason: String) {
        let times = match self.unreadable {
            Some((offset, times)) if offset == spec.offset => times + 1,
            _ => 1,
        };
        self.unreadable = Some((spec.offset, times));
        let outcome = if times < TRIES {
            self.alone = true;
            self.pause(&Trouble::Other(reason), false);
            Outcome::Again
        } else {
            self.unreadable = None;
            tracing::warn!(
                partition = %self.partition.tp,
                offset = spec.offset,
                reason,
                "records cannot be read"
            );
            Outcome::Failed(FetchError::Corrupt {
                tp: self.partition.tp.clone(),
                offset: spec.offset,
                reason,
            })
        };
        self.deliver(spec, outcome, None);
    }

    fn succeeded(&mut self) {
        self.backoff.succeeded();
        self.unreadable = None;
        self.alone = false;
    }

    fn pause(&mut self, trouble: &Trouble, refresh: bool) {
        let tp = &self.partition.tp;
        if refresh {
            // Looked up again: the same leader may lead another topic of that name.
            self.left = self.home.take().or(self.left);
            self.shared
                .cluster
                .metadata()
                .request_update_for_topic(&tp.topic);
        }
        let now = Instant::now();
        // Several reads that were under way fail for one reason.
        if self.paused_until.is_none_or(|until| until <= now) {
            let wait = self.backoff.after_failure();
            tracing::debug!(partition = %tp, %trouble, ?wait, "fetching waits");
            self.paused_until = Some(now + wait);
        }
    }

    /// When to look again although nothing happens.
    fn next_look(&self) -> Instant {
        let next = match self.paused_until {
            Some(until) => until,
            None if lock(&self.partition.feed).wants_poll() => self.next_poll,
            None => self.next_round,
        };
        next.min(self.next_round)
    }

    /// Ends a pause that is over, tidies up. `true`: nobody needs this task any more.
    fn look_around(&mut self, now: Instant) -> bool {
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
        }
        if now < self.next_round {
            return false;
        }
        self.next_round = now + LOOK_AROUND;
        lock(&self.partition.feed).tidy(now);
        self.shared.forget_if_idle(&self.partition, now)
    }
}

/// Reads of one partition that may be under way at once.
const READS: usize = 4;
/// How often the end of a ring is polled until the tail reads it.
const POLL_EVERY: Duration = Duration::from_millis(20);
/// How long metadata may keep a task from everything else.
const FIND: Duration = Duration::from_secs(10);
/// How long a topic must be unknown to be gone: brokers that start know little.
const UNKNOWN: Duration = Duration::from_secs(3);
/// Attempts at an offset whose bytes cannot be read.
const TRIES: u32 = 4;
/// How often a task that has nothing to do looks whether it is needed.
const LOOK_AROUND: Duration = Duration::from_secs(5);
