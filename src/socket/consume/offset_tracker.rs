//! Which offsets a consuming socket commits, and when.
//!
//! ```text
//! autoCommit=true:   delivered ─▶ stored ─▶ committed once a second
//! autoCommit=false:  delivered ─▶ UncommittedRecords ─┬─ the client's commit ─▶ committed
//!                                                     └─ AgeRule, if enabled ─▶ committed
//! ```

use tokio::time::{Duration, Instant};

use super::delivery_listener::DeliveryListener;
use super::encoded_frames::RecordFrame;
use super::uncommitted::UncommittedRecords;
use crate::codec::commit::{CommitMessage, CommitRejection};
use crate::codec::socket_error::{EchoedId, SocketErrorCode};
use crate::config::CommitConfig;
use kafka_client::consumer::{Consumer, FetchPosition, TopicPartition};

/// How often stored offsets are committed.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);

/// What of one socket's deliveries is to be committed.
#[derive(Debug)]
pub(super) struct OffsetTracker {
    /// With `autoCommit=false`.
    uncommitted: Option<UncommittedRecords>,
    age_rule: Option<AgeRule>,
    /// When what is stored, or has been uncommitted for long, is to be committed.
    next_commit_at: Option<Instant>,
    records_delivered: u64,
}

/// `commit-handler.auto-commit-*`: with `autoCommit=false`, what is committed although the client
/// does not.
#[derive(Clone, Copy, Debug)]
struct AgeRule {
    interval: Duration,
    max_age: Duration,
}

impl AgeRule {
    /// When to look for what is old enough, since one was delivered then and nothing before it.
    fn first_commit_at(&self, delivered_at: Instant) -> Instant {
        delivered_at + self.max_age.max(self.interval)
    }

    /// When to look again, after `now`.
    fn next_commit_at(&self, now: Instant, oldest_delivered_at: Instant) -> Instant {
        (oldest_delivered_at + self.max_age).max(now + self.interval)
    }

    /// What was delivered then, or before, is old enough.
    fn delivered_until(&self, now: Instant) -> Option<Instant> {
        now.checked_sub(self.max_age)
    }
}

impl OffsetTracker {
    /// `auto_commit` is the parameter.
    pub(super) fn new(auto_commit: bool, config: &CommitConfig) -> Self {
        let uncommitted = (!auto_commit).then(|| UncommittedRecords::new(config.max_stack_size));
        let age_rule = config.auto_commit_enabled && !auto_commit;
        Self {
            uncommitted,
            age_rule: age_rule.then_some(AgeRule {
                interval: config.auto_commit_interval,
                max_age: config.auto_commit_max_age,
            }),
            next_commit_at: None,
            records_delivered: 0,
        }
    }

    /// Records that the kernel has taken whole.
    pub(super) fn records_delivered(&self) -> u64 {
        self.records_delivered
    }

    /// When to call [`commit_if_due`](Self::commit_if_due).
    pub(super) fn next_commit_at(&self) -> Option<Instant> {
        self.next_commit_at
    }

    /// Commits what is stored, or has been uncommitted for long, if it is time to.
    pub(super) fn commit_if_due(&mut self, consumer: &mut Consumer, now: Instant) {
        if self.next_commit_at.is_none_or(|at| at > now) {
            return;
        }
        self.next_commit_at = None;
        let (Some(uncommitted), Some(rule)) = (&mut self.uncommitted, self.age_rule) else {
            consumer.request_commit();
            return;
        };
        if let Some(until) = rule.delivered_until(now) {
            uncommitted.commit_delivered_until(until, |tp, next| consumer.commit_offset(tp, next));
        }
        let oldest = uncommitted.oldest_delivered_at();
        self.next_commit_at = oldest.map(|at| rule.next_commit_at(now, at));
    }

    /// What the sink reports to.
    pub(super) fn listener<'a>(
        &'a mut self,
        consumer: &'a mut Consumer,
        now: Instant,
    ) -> DeliveredOffsets<'a> {
        DeliveredOffsets {
            tracker: self,
            consumer,
            now,
        }
    }

    /// Handles a client's commit, as far as it could be read.
    pub(super) fn handle_commit<'a>(
        &mut self,
        consumer: &mut Consumer,
        commit: Result<CommitMessage<'a>, CommitRejection<'a>>,
    ) -> Result<(), CommitRejection<'a>> {
        let rejection = match (&mut self.uncommitted, commit) {
            (None, Ok(CommitMessage { echoed_id, .. })) => auto_commit_enabled(echoed_id),
            (None, Err(rejection)) if rejection.code == SocketErrorCode::UnknownMessageId => {
                auto_commit_enabled(rejection.echoed_id)
            }
            (_, Err(rejection)) => rejection,
            (Some(uncommitted), Ok(commit)) => {
                let id = &commit.id;
                let known = uncommitted.find(&id.topic, id.partition, id.offset, id.timestamp);
                if let Some((tp, next)) = known
                    && consumer.commit_offset(&tp, next)
                {
                    uncommitted.forget_before(&tp, next.offset);
                    return Ok(());
                }
                CommitRejection {
                    code: SocketErrorCode::UnknownMessageId,
                    message: "not delivered here since its partition was assigned, or committed \
                              already"
                        .into(),
                    echoed_id: commit.echoed_id,
                }
            }
        };
        Err(rejection)
    }

    /// These partitions are not assigned to the socket any more.
    pub(super) fn remove_partitions(&mut self, partitions: &[TopicPartition]) {
        if let Some(uncommitted) = &mut self.uncommitted {
            uncommitted.remove_partitions(partitions);
        }
    }
}

/// Notes what was delivered at `now`.
pub(super) struct DeliveredOffsets<'a> {
    tracker: &'a mut OffsetTracker,
    consumer: &'a mut Consumer,
    now: Instant,
}

impl DeliveredOffsets<'_> {
    fn store(&mut self, tp: &TopicPartition, next: FetchPosition) {
        self.consumer.store_offset(tp, next);
        let next_commit_at = &mut self.tracker.next_commit_at;
        next_commit_at.get_or_insert(self.now + COMMIT_INTERVAL);
    }
}

impl DeliveryListener for DeliveredOffsets<'_> {
    fn delivered(&mut self, tp: &TopicPartition, frames: &[RecordFrame]) {
        self.tracker.records_delivered += frames.len() as u64;
        match (&mut self.tracker.uncommitted, frames.last()) {
            (Some(uncommitted), _) => {
                uncommitted.delivered(tp, frames, self.now);
                if let Some(rule) = self.tracker.age_rule {
                    let next_commit_at = &mut self.tracker.next_commit_at;
                    next_commit_at.get_or_insert_with(|| rule.first_commit_at(self.now));
                }
            }
            (None, Some(last)) => self.store(tp, last.next_position()),
            (None, None) => {}
        }
    }

    fn advance_to(&mut self, tp: &TopicPartition, end: FetchPosition) {
        if self.tracker.uncommitted.is_none() {
            self.store(tp, end);
        }
    }
}

fn auto_commit_enabled(echoed_id: EchoedId<'_>) -> CommitRejection<'_> {
    CommitRejection {
        code: SocketErrorCode::AutoCommitEnabled,
        message: "this socket commits by itself (autoCommit=true)".into(),
        echoed_id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_rule_looks_once_per_interval_and_when_something_may_be_old_enough() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let rule = |interval, max_age| AgeRule {
            interval: Duration::from_secs(interval),
            max_age: Duration::from_secs(max_age),
        };
        assert_eq!(rule(1, 20).first_commit_at(at(5)), at(25));
        assert_eq!(rule(1, 20).delivered_until(at(25)), Some(at(5)));
        assert_eq!(rule(1, 20).next_commit_at(at(25), at(10)), at(30));
        let overdue = rule(1, 20).next_commit_at(at(25), at(5));
        assert_eq!(overdue, at(26), "what could not be committed");
        assert_eq!(rule(10, 0).first_commit_at(at(5)), at(15));
        assert_eq!(rule(10, 0).next_commit_at(at(15), at(12)), at(25));
    }

    #[test]
    fn sockets_that_commit_by_themselves_have_no_age_rule() {
        let config = CommitConfig {
            auto_commit_enabled: true,
            ..CommitConfig::default()
        };
        assert!(OffsetTracker::new(true, &config).age_rule.is_none());
        assert!(OffsetTracker::new(false, &config).age_rule.is_some());
        let config = CommitConfig::default();
        assert!(OffsetTracker::new(false, &config).age_rule.is_none());
    }
}
