//! The partitions of one tail, and what its requests ask of them.
//!
//! ```text
//! add(), remove…() ─▶ TailPartitions ─┬▶ changes ─▶ TailTargets::update() ─▶ fetch session
//!    next offset of a partition moves ┘   (taken between two requests)
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use runtime::mutex::lock;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::super::fetch_session::{FetchSessionHandler, FetchTarget};
use super::super::shared_partition::SharedPartition;
use super::super::tail_changes::TailChanges;
use crate::metadata::{ClusterSnapshot, LeaderAndEpoch};
use crate::{BrokerId, Metadata, TopicPartition};

/// The partitions that one tail fetches.
#[derive(Debug, Default)]
pub(super) struct TailPartitions {
    entries: Mutex<TailEntries>,
    pub(super) added: Notify,
    pub(super) changes: Arc<TailChanges>,
}

#[derive(Debug, Default)]
struct TailEntries {
    by_partition: HashMap<TopicPartition, TailPartition>,
    /// The number of the one that was added last.
    newest: u64,
}

/// A partition that a tail fetches, as led in one epoch.
#[derive(Clone, Debug)]
pub(super) struct TailPartition {
    pub(super) partition: Arc<SharedPartition>,
    pub(super) leader_epoch: i32,
    /// Counts up: a partition may be removed and added again.
    number: u64,
}

/// What the next request asks of a partition.
#[derive(Clone, Debug)]
pub(super) struct TailTarget {
    pub(super) entry: TailPartition,
    pub(super) tail_cache_number: u64,
    pub(super) fetch_offset: i64,
}

impl TailPartitions {
    pub(super) fn add(&self, partition: &Arc<SharedPartition>, leader_epoch: i32) -> TailPartition {
        let entry = {
            let mut entries = lock(&self.entries);
            entries.newest += 1;
            let entry = TailPartition {
                partition: Arc::clone(partition),
                leader_epoch,
                number: entries.newest,
            };
            let tp = partition.tp.clone();
            entries.by_partition.insert(tp, entry.clone());
            entry
        };
        partition.set_tail_changes(&self.changes);
        self.changes.add(&partition.tp);
        self.added.notify_one();
        entry
    }

    pub(super) fn is_empty(&self) -> bool {
        lock(&self.entries).by_partition.is_empty()
    }

    pub(super) fn contains(&self, entry: &TailPartition) -> bool {
        lock(&self.entries)
            .by_partition
            .get(&entry.partition.tp)
            .is_some_and(|now| now.number == entry.number)
    }

    pub(super) fn remove(&self, entry: &TailPartition) {
        let tp = &entry.partition.tp;
        let mut entries = lock(&self.entries);
        match entries.by_partition.get(tp) {
            Some(now) if now.number == entry.number => {
                entries.by_partition.remove(tp);
            }
            // Another partition of that name was added since: the topic was recreated.
            Some(now) if !Arc::ptr_eq(&now.partition, &entry.partition) => {}
            // It was removed, and may be fetched elsewhere or under another epoch by now.
            _ => return,
        }
        drop(entries);
        self.removed(entry);
    }

    pub(super) fn remove_all(&self) {
        self.drain().iter().for_each(|entry| self.removed(entry));
    }

    /// Removes all until each has been fetched by a request of its own.
    pub(super) fn bar_all(&self) {
        for entry in self.drain() {
            self.changes.add(&entry.partition.tp);
            if lock(&entry.partition.fetch_state).tail_barred() {
                entry.partition.work.notify_one();
            }
        }
    }

    fn drain(&self) -> Vec<TailPartition> {
        let mut entries = lock(&self.entries);
        let drained = entries.by_partition.drain().map(|(_, entry)| entry);
        drained.collect()
    }

    /// Removes those that `broker` no longer leads, or in another epoch, or whose name is another
    /// topic's, as the metadata says.
    pub(super) fn remove_moved(&self, broker: BrokerId, metadata: &Metadata) {
        let mut moved = Vec::new();
        lock(&self.entries).by_partition.retain(|_, entry| {
            let stays = !entry.has_moved(broker, metadata);
            if !stays {
                moved.push(entry.clone());
            }
            stays
        });
        for entry in moved {
            tracing::debug!(partition = %entry.partition.tp, %broker, "removed from a former leader's tail");
            self.removed(&entry);
        }
    }

    /// Removes partitions that move while a request is in flight. Completes when none is left
    /// of those that it names: the ones up to number `newest`.
    pub(super) async fn all_moved(
        self: Arc<Self>,
        broker: BrokerId,
        metadata: &Metadata,
        mut changed: watch::Receiver<Arc<ClusterSnapshot>>,
        newest: u64,
    ) {
        loop {
            if changed.changed().await.is_err() {
                return std::future::pending().await;
            }
            self.remove_moved(broker, metadata);
            let entries = lock(&self.entries);
            if !entries.by_partition.values().any(|e| e.number <= newest) {
                return;
            }
        }
    }

    /// What is to be fetched of a partition; one that `broker` does not lead, or that no longer
    /// wants the tail, is removed.
    fn target(
        &self,
        tp: &TopicPartition,
        broker: BrokerId,
        metadata: &Metadata,
    ) -> Option<TailTarget> {
        let entry = lock(&self.entries).by_partition.get(tp).cloned()?;
        if entry.has_moved(broker, metadata) {
            self.remove(&entry);
            return None;
        }
        let mut entries = lock(&self.entries);
        let position = lock(&entry.partition.fetch_state).tail_target();
        match position {
            Some((tail_cache_number, fetch_offset)) => Some(TailTarget {
                entry,
                tail_cache_number,
                fetch_offset,
            }),
            None => {
                let is_it = |now: &TailPartition| now.number == entry.number;
                if entries.by_partition.get(tp).is_some_and(is_it) {
                    entries.by_partition.remove(tp);
                }
                None
            }
        }
    }

    /// Has the partitions that no cursor uses any more fetched no longer. Looks at all of them.
    fn drop_idle(&self, now: Instant) {
        for entry in lock(&self.entries).by_partition.values() {
            let mut fetch_state = lock(&entry.partition.fetch_state);
            if fetch_state.tail_is_idle(now) {
                fetch_state.drop_tail_cache();
                self.changes.add(&entry.partition.tp);
            }
        }
    }

    fn removed(&self, entry: &TailPartition) {
        self.changes.add(&entry.partition.tp);
        if lock(&entry.partition.fetch_state).tail_removed() {
            entry.partition.work.notify_one();
        }
    }
}

impl TailPartition {
    fn has_moved(&self, broker: BrokerId, metadata: &Metadata) -> bool {
        let tp = &self.partition.tp;
        let leader = metadata.current_leader(tp);
        leader.is_some_and(|leader| self.is_superseded(broker, leader))
            || metadata.is_replaced(&tp.topic, self.partition.topic())
    }

    fn is_superseded(&self, broker: BrokerId, leader: LeaderAndEpoch) -> bool {
        leader.broker != broker || leader.epoch > self.leader_epoch
    }
}

/// What the requests of one tail ask for; kept from one to the next.
#[derive(Debug)]
pub(super) struct TailTargets {
    broker: BrokerId,
    tail: Arc<TailPartitions>,
    targets: HashMap<TopicPartition, TailTarget>,
    pub(super) session: FetchSessionHandler,
    partition_max_bytes: i32,
    next_idle_check: Instant,
    newest: u64,
}

impl TailTargets {
    pub(super) fn new(
        broker: BrokerId,
        tail: Arc<TailPartitions>,
        partition_max_bytes: i32,
    ) -> Self {
        Self {
            broker,
            tail,
            targets: HashMap::new(),
            session: FetchSessionHandler::new(),
            partition_max_bytes,
            next_idle_check: Instant::now() + IDLE_CHECK_INTERVAL,
            newest: 0,
        }
    }

    /// Follows what has changed since the last request. Returns how many partitions it looked at
    /// for that, apart from the check for idle ones.
    pub(super) fn update(&mut self, metadata: &Metadata, now: Instant) -> usize {
        if now >= self.next_idle_check {
            self.next_idle_check = now + IDLE_CHECK_INTERVAL;
            self.tail.drop_idle(now);
        }
        let changed = self.tail.changes.take();
        let count = changed.len();
        for tp in changed {
            match self.tail.target(&tp, self.broker, metadata) {
                Some(target) => {
                    self.newest = self.newest.max(target.entry.number);
                    self.session.set_target(FetchTarget {
                        tp: tp.clone(),
                        topic_id: target.entry.partition.topic().id,
                        fetch_offset: target.fetch_offset,
                        current_leader_epoch: target.entry.leader_epoch,
                        max_bytes: self.partition_max_bytes,
                    });
                    self.targets.insert(tp, target);
                }
                None => {
                    self.session.remove_target(&tp);
                    self.targets.remove(&tp);
                }
            }
        }
        count
    }

    pub(super) fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    /// The number of the newest partition that there is a target for.
    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    pub(super) fn get(&self, tp: &TopicPartition) -> Option<&TailTarget> {
        self.targets.get(tp)
    }

    /// A request names these from now on.
    pub(super) fn mark_fetched(&self, sent: &[FetchTarget]) {
        let entries = lock(&self.tail.entries);
        for target in sent.iter().filter_map(|sent| self.targets.get(&sent.tp)) {
            let entry = &target.entry;
            if entries
                .by_partition
                .get(&entry.partition.tp)
                .is_some_and(|now| now.number == entry.number)
            {
                lock(&entry.partition.fetch_state).mark_tail_fetched();
            }
        }
    }
}

/// How often all partitions are looked at for those that no cursor uses any more.
const IDLE_CHECK_INTERVAL: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::metadata_response::{
        MetadataResponsePartition, MetadataResponseTopic,
    };
    use kafka_protocol::messages::{BrokerId as NodeId, MetadataResponse, TopicName};
    use kafka_protocol::protocol::StrBytes;
    use runtime::wake::WakeSignal;

    use super::super::super::fetch_session::{FetchNaming, FetchRequestData};
    use super::super::super::fetch_state::{FetchOutcome, TAIL_MAX_IDLE};
    use super::*;
    use crate::IsolationLevel;

    fn shared_partition(topic: &str) -> Arc<SharedPartition> {
        let tp = TopicPartition::new(topic, 0);
        SharedPartition::new(tp, IsolationLevel::ReadUncommitted, Arc::default())
    }

    #[test]
    fn removing_a_partition_keeps_a_newer_one_of_the_same_name() {
        let tail = TailPartitions::default();
        let old = tail.add(&shared_partition("t"), 0);
        let new = tail.add(&shared_partition("t"), 0);
        tail.remove(&old);
        assert!(tail.contains(&new));
        tail.remove(&new);
        assert!(tail.is_empty());
    }

    /// What `broker` leads in `epoch`, as a metadata response says it.
    fn led_by(broker: i32, epoch: i32) -> MetadataResponse {
        let partition = MetadataResponsePartition::default()
            .with_leader_id(NodeId(broker))
            .with_leader_epoch(epoch);
        let topic = MetadataResponseTopic::default()
            .with_name(Some(TopicName(StrBytes::from_static_str("t"))))
            .with_partitions(vec![partition]);
        MetadataResponse::default().with_topics(vec![topic])
    }

    fn learn(metadata: &Metadata, broker: i32, epoch: i32) {
        let update = metadata.begin_update(true);
        metadata.complete_update(&update, &led_by(broker, epoch));
    }

    #[test]
    fn a_partition_is_removed_from_a_leader_that_the_metadata_no_longer_names() {
        let metadata = Metadata::new(Duration::from_secs(1));
        let partition = shared_partition("t");
        let tail = TailPartitions::default();
        let stays_with = |broker, epoch| {
            learn(&metadata, broker, epoch);
            tail.remove_moved(BrokerId(1), &metadata);
            !tail.is_empty()
        };
        tail.add(&partition, 3);
        assert!(stays_with(1, 3));
        assert!(!stays_with(1, 4), "another epoch of the same broker");
        tail.add(&partition, 4);
        assert!(!stays_with(2, 5), "deposed");
    }

    #[test]
    fn a_late_removal_keeps_the_partition_that_was_added_since() {
        let partition = shared_partition("t");
        let tail = TailPartitions::default();
        let old = tail.add(&partition, 4);
        let new = tail.add(&partition, 5);
        tail.remove(&old);
        assert!(tail.contains(&new));
    }

    /// A partition whose cursor waits at its end, offset 10, for the tail.
    fn waiting(topic: &str) -> Arc<SharedPartition> {
        let partition = shared_partition(topic);
        let now = Instant::now();
        let mut state = lock(&partition.fetch_state);
        let mut cursor = state.add_cursor(10, -1);
        let wake = Arc::new(WakeSignal::default());
        state.next_chunk(&mut cursor, &wake);
        let fetch = state.start_fetch().unwrap();
        let at_end = FetchOutcome::AtEnd {
            readable_end: 10,
            serving_epoch: 0,
        };
        state.finish(fetch, at_end, now);
        state.next_chunk(&mut cursor, &wake);
        assert!(state.request_tail());
        drop(state);
        partition
    }

    struct TestTail {
        metadata: Metadata,
        tail: Arc<TailPartitions>,
        targets: TailTargets,
        partitions: Vec<Arc<SharedPartition>>,
    }

    impl TestTail {
        fn new(count: usize) -> Self {
            let tail = Arc::new(TailPartitions::default());
            let partitions: Vec<_> = (0..count).map(|i| waiting(&format!("t{i}"))).collect();
            for partition in &partitions {
                tail.add(partition, 0);
            }
            Self {
                metadata: Metadata::new(Duration::from_secs(1)),
                targets: TailTargets::new(BrokerId(1), Arc::clone(&tail), 100),
                tail,
                partitions,
            }
        }

        /// One poll: how many partitions were looked at for it, and its request.
        fn poll(&mut self, now: Instant) -> (usize, FetchRequestData) {
            let looked_at = self.targets.update(&self.metadata, now);
            let request = self.targets.session.next_request(FetchNaming::TopicNames);
            self.targets.mark_fetched(&request.to_send);
            self.targets.session.handle_response(0, 7);
            (looked_at, request)
        }
    }

    #[test]
    fn a_poll_looks_only_at_the_partitions_that_have_changed() {
        let mut test = TestTail::new(2500);
        let now = Instant::now();
        let (looked_at, request) = test.poll(now);
        assert_eq!((looked_at, request.to_send.len()), (2500, 2500));
        for _ in 0..3 {
            let (looked_at, request) = test.poll(now);
            assert_eq!((looked_at, request.to_send.len()), (0, 0));
        }
        // One partition's end moves on, one is removed, one is added.
        let moved = &test.partitions[7];
        let update = lock(&moved.fetch_state).tail_skip(1, 10, 20, (0, 0));
        test.tail.changes.add(&moved.tp);
        moved.publish(update, None);
        let removed = test
            .targets
            .get(&test.partitions[8].tp)
            .unwrap()
            .entry
            .clone();
        test.tail.remove(&removed);
        test.tail.add(&waiting("new"), 0);
        let (looked_at, request) = test.poll(now);
        assert_eq!(looked_at, 3);
        let mut sent: Vec<_> = request
            .to_send
            .iter()
            .map(|target| (&*target.tp.topic, target.fetch_offset))
            .collect();
        sent.sort_unstable();
        assert_eq!(sent, [("new", 10), ("t7", 20)]);
        assert_eq!(
            request.to_forget,
            [(removed.partition.tp.clone(), uuid::Uuid::nil())]
        );
        assert_eq!(test.poll(now).0, 0);
    }

    #[test]
    fn what_a_partitions_task_changes_is_fetched_from_there_by_the_next_poll() {
        let mut test = TestTail::new(2);
        let now = Instant::now();
        let partition = Arc::clone(&test.partitions[0]);
        // Not fetched by the tail yet: a handover fetch is in flight.
        let handover = lock(&partition.fetch_state).start_handover_fetch().unwrap();
        test.poll(now);
        let no_room = FetchOutcome::NoRoom {
            next_offset: 15,
            last_epoch: 0,
            readable_end: 15,
            serving_epoch: 0,
        };
        let update = lock(&partition.fetch_state).finish(handover, no_room, now);
        partition.publish(update, None);
        let (looked_at, request) = test.poll(now);
        assert_eq!((looked_at, request.to_send[0].fetch_offset), (1, 15));
        // The partition is closed, whatever its tail waits for.
        partition.close(super::super::super::FetchError::Stopped);
        let (looked_at, request) = test.poll(now);
        assert_eq!((looked_at, request.to_forget.len()), (1, 1));
        assert!(test.targets.get(&partition.tp).is_none());
    }

    #[test]
    fn partitions_that_no_cursor_uses_are_fetched_no_longer() {
        let mut test = TestTail::new(2);
        let now = Instant::now();
        test.poll(now);
        // The cursor of one is served, and asks no more.
        let served = &test.partitions[0];
        let update = lock(&served.fetch_state).tail_skip(1, 10, 20, (0, 0));
        served.publish(update, None);
        test.poll(now + IDLE_CHECK_INTERVAL);
        let idle = now + IDLE_CHECK_INTERVAL + TAIL_MAX_IDLE;
        let (_, request) = test.poll(idle);
        assert_eq!(request.to_forget.len(), 1);
        assert_eq!(request.to_forget[0].0, test.partitions[0].tp);
    }
}
