//! What the nodes of one in-memory cluster share: topics, partitions, leaders, memory.
//!
//! ```text
//! ClusterState ─┬─ topics ── partitions ── leader, epoch, log, parked fetches
//!               ├─ nodes ─── address, online?
//!               └─ arrivals ── every batch in order of arrival: the oldest goes when memory is spent
//! ```
//!
//! One lock guards it all (see `context.rs`); nothing here waits.
//!
//! # Invariants
//! - The batches' bytes stay within the limit, but for the newest batch alone.
//! - A partition's leader is online, or there is none.
//! - Whoever waits for a partition is woken by an append to it and by a change of its
//!   leader, start or existence.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use kafka_protocol::ResponseError;
use tokio::sync::Notify;
use uuid::Uuid;

use kafka_client::record::header::BatchHeader;

use super::config::BrokerConfig;
use super::log::PartitionLog;
use super::transaction::{ProducerEpoch, TransactionResult};

/// The cluster's data.
#[derive(Debug)]
pub(super) struct ClusterState {
    pub(super) config: Arc<BrokerConfig>,
    topics: BTreeMap<String, TopicState>,
    names: HashMap<Uuid, String>,
    nodes: Vec<NodeRegistration>,
    arrivals: VecDeque<BatchArrival>,
    bytes: usize,
    serial: u64,
    coordinators: HashMap<String, i32>,
    producer_ids: i64,
    id_seed: u64,
}

/// One simulated broker.
#[derive(Clone, Copy, Debug)]
pub(super) struct NodeRegistration {
    pub(super) id: i32,
    /// The advertised address.
    pub(super) address: SocketAddr,
    pub(super) online: bool,
}

/// A topic and its settings.
#[derive(Debug)]
pub(super) struct TopicState {
    pub(super) id: Uuid,
    pub(super) max_message_bytes: usize,
    pub(super) log_append_time: bool,
    /// `cleanup.policy`; told, and without effect.
    pub(super) cleanup_policy: Box<str>,
    pub(super) partitions: Vec<PartitionState>,
}

/// One partition, its log, and who waits for more of it.
#[derive(Debug)]
pub(super) struct PartitionState {
    /// None while no replica is online.
    pub(super) leader: Option<i32>,
    pub(super) epoch: i32,
    pub(super) replicas: Vec<i32>,
    pub(super) log: PartitionLog,
    waiters: Vec<Weak<Notify>>,
}

/// A batch's place in the order of arrival.
#[derive(Debug)]
struct BatchArrival {
    topic: Uuid,
    partition: usize,
    serial: u64,
}

impl ClusterState {
    /// No topics yet; the nodes are online.
    pub(super) fn new(config: Arc<BrokerConfig>, addresses: &[SocketAddr], id_seed: u64) -> Self {
        let nodes = (1..)
            .zip(addresses)
            .map(|(id, &address)| NodeRegistration {
                id,
                address,
                online: true,
            })
            .collect();
        Self {
            config,
            topics: BTreeMap::new(),
            names: HashMap::new(),
            nodes,
            arrivals: VecDeque::new(),
            bytes: 0,
            serial: 0,
            coordinators: HashMap::new(),
            producer_ids: 0,
            id_seed,
        }
    }

    /// The nodes that answer.
    pub(super) fn online(&self) -> impl Iterator<Item = &NodeRegistration> {
        self.nodes.iter().filter(|node| node.online)
    }

    /// The node with that id, if it is online.
    pub(super) fn node(&self, id: i32) -> Option<&NodeRegistration> {
        self.online().find(|node| node.id == id)
    }

    /// The node that answers for the cluster: the first online.
    pub(super) fn controller(&self) -> i32 {
        self.online().next().map_or(-1, |node| node.id)
    }

    /// The node that coordinates the group or transaction of that name.
    pub(super) fn coordinator(&self, key: &str) -> Option<&NodeRegistration> {
        if let Some(&id) = self.coordinators.get(key)
            && let Some(node) = self.node(id)
        {
            return Some(node);
        }
        let hash = crc32c::crc32c(key.as_bytes()) as usize % self.nodes.len();
        let from_there = self.nodes.iter().cycle().skip(hash);
        from_there.take(self.nodes.len()).find(|node| node.online)
    }

    /// All topics by name.
    pub(super) fn topics(&self) -> impl Iterator<Item = (&str, &TopicState)> {
        self.topics.iter().map(|(name, topic)| (&**name, topic))
    }

    /// The topic of that name.
    pub(super) fn topic(&self, name: &str) -> Option<&TopicState> {
        self.topics.get(name)
    }

    /// The name of the topic with that id.
    pub(super) fn name_of(&self, id: Uuid) -> Option<&str> {
        self.names.get(&id).map(String::as_str)
    }

    /// One partition.
    pub(super) fn partition(&self, topic: &str, index: i32) -> Option<&PartitionState> {
        let topic = self.topics.get(topic)?;
        topic.partitions.get(usize::try_from(index).ok()?)
    }

    /// One partition, to be changed.
    pub(super) fn partition_mut(&mut self, topic: &str, index: i32) -> Option<&mut PartitionState> {
        let topic = self.topics.get_mut(topic)?;
        topic.partitions.get_mut(usize::try_from(index).ok()?)
    }

    /// One partition on the node that leads it.
    pub(super) fn led_by(
        &mut self,
        node: i32,
        topic: &str,
        index: i32,
    ) -> Result<&mut PartitionState, ResponseError> {
        match self.partition_mut(topic, index) {
            None => Err(ResponseError::UnknownTopicOrPartition),
            Some(partition) if partition.leader != Some(node) => {
                Err(ResponseError::NotLeaderOrFollower)
            }
            Some(partition) => Ok(partition),
        }
    }

    /// How many partitions and replicas a new topic would have.
    pub(super) fn check_topic(
        &self,
        name: &str,
        partitions: Option<i32>,
        replication: Option<i16>,
    ) -> Result<(usize, usize), ResponseError> {
        check_name(name)?;
        if self.topics.contains_key(name) {
            return Err(ResponseError::TopicAlreadyExists);
        }
        let partitions = self.check_partitions(partitions)?;
        Ok((partitions, self.check_replication(replication)?))
    }

    /// Creates a topic; its partitions' leaders go round the nodes.
    pub(super) fn create_topic(
        &mut self,
        name: &str,
        partitions: Option<i32>,
        replication: Option<i16>,
    ) -> Result<&mut TopicState, ResponseError> {
        let (partitions, replication) = self.check_topic(name, partitions, replication)?;
        let id = self.new_id();
        let mut topic = TopicState {
            id,
            max_message_bytes: self.config.message_max_bytes,
            log_append_time: self.config.log_append_time,
            cleanup_policy: "delete".into(),
            partitions: Vec::with_capacity(partitions),
        };
        let first = self.topics.len();
        for index in 0..partitions {
            topic
                .partitions
                .push(self.new_partition(first + index, replication));
        }
        self.names.insert(id, name.to_owned());
        Ok(self.topics.entry(name.to_owned()).or_insert(topic))
    }

    /// Adds partitions until there are `count`.
    pub(super) fn grow_topic(&mut self, name: &str, count: i32) -> Result<(), ResponseError> {
        let topic = self.topics.get(name);
        let topic = topic.ok_or(ResponseError::UnknownTopicOrPartition)?;
        let now = topic.partitions.len();
        let more = usize::try_from(count).unwrap_or(0).saturating_sub(now);
        if more == 0 {
            return Err(ResponseError::InvalidPartitions);
        }
        self.check_partitions(i32::try_from(more).ok())?;
        let replication = topic.partitions.first().map_or(1, |p| p.replicas.len());
        let mut added: Vec<_> = (now..now + more)
            .map(|index| self.new_partition(index, replication))
            .collect();
        if let Some(topic) = self.topics.get_mut(name) {
            topic.partitions.append(&mut added);
        }
        Ok(())
    }

    /// Deletes a topic with its records.
    pub(super) fn delete_topic(&mut self, name: &str) -> Result<(), ResponseError> {
        let topic = self.topics.remove(name);
        let mut topic = topic.ok_or(ResponseError::UnknownTopicOrPartition)?;
        self.names.remove(&topic.id);
        for partition in &mut topic.partitions {
            self.bytes -= partition.log.bytes();
            partition.wake();
        }
        Ok(())
    }

    /// Changes a partition's log, and accounts for it.
    ///
    /// `change` gets the serial number that a batch appended by it is to have.
    pub(super) fn change_log<T>(
        &mut self,
        topic: &str,
        index: i32,
        change: impl FnOnce(&mut PartitionState, u64) -> T,
    ) -> Option<T> {
        let at = usize::try_from(index).ok()?;
        let topic = self.topics.get_mut(topic)?;
        let partition = topic.partitions.get_mut(at)?;
        let (bytes, batches, end) = (
            partition.log.bytes(),
            partition.log.len(),
            partition.log.end(),
        );
        let result = change(partition, self.serial);
        self.bytes = self.bytes - bytes + partition.log.bytes();
        if partition.log.len() > batches && partition.log.end() > end {
            self.arrivals.push_back(BatchArrival {
                topic: topic.id,
                partition: at,
                serial: self.serial,
            });
            self.serial += 1;
        }
        partition.wake();
        self.make_room();
        Some(result)
    }

    /// Appends a batch that was checked.
    pub(super) fn append(
        &mut self,
        topic: &str,
        index: i32,
        bytes: &[u8],
        header: &BatchHeader,
        append_time: Option<i64>,
    ) -> Option<i64> {
        self.change_log(topic, index, |partition, serial| {
            let epoch = partition.epoch;
            partition
                .log
                .append(bytes, header, epoch, append_time, serial)
        })
    }

    /// Writes the marker that ends a producer's transaction in one partition.
    pub(super) fn end_transaction(
        &mut self,
        topic: &str,
        index: i32,
        producer: ProducerEpoch,
        result: TransactionResult,
        now_ms: i64,
    ) {
        self.change_log(topic, index, |partition, serial| {
            let epoch = partition.epoch;
            let log = &mut partition.log;
            log.end_transaction(producer, result, now_ms, epoch, serial);
        });
    }

    /// A new producer id.
    pub(super) fn new_producer_id(&mut self) -> i64 {
        self.producer_ids += 1;
        self.producer_ids
    }

    fn make_room(&mut self) {
        while self.bytes > self.config.memory && self.arrivals.len() > 1 {
            let Some(age) = self.arrivals.pop_front() else {
                break;
            };
            let Some(name) = self.names.get(&age.topic) else {
                continue;
            };
            let topic = self.topics.get_mut(name);
            let Some(partition) = topic.and_then(|t| t.partitions.get_mut(age.partition)) else {
                continue;
            };
            let before = partition.log.bytes();
            if partition.log.drop_oldest(age.serial) {
                self.bytes = self.bytes - before + partition.log.bytes();
                partition.wake();
            }
        }
        self.sweep_arrivals();
    }

    /// Batches that went by deletion or truncation leave their arrivals behind; they are swept
    /// when they outnumber the batches that exist.
    fn sweep_arrivals(&mut self) {
        if self.arrivals.len() < self.bytes / 64 + 1024 {
            return;
        }
        let Self {
            arrivals,
            names,
            topics,
            ..
        } = self;
        arrivals.retain(|age| {
            let topic = names.get(&age.topic).and_then(|name| topics.get(name));
            let partition = topic.and_then(|topic| topic.partitions.get(age.partition));
            partition.is_some_and(|partition| partition.log.may_hold(age.serial))
        });
    }

    fn new_partition(&self, turn: usize, replication: usize) -> PartitionState {
        let nodes = self.nodes.len();
        let replicas: Vec<i32> = (0..replication)
            .map(|n| self.nodes[(turn + n) % nodes].id)
            .collect();
        let mut partition = PartitionState {
            leader: None,
            epoch: -1,
            log: PartitionLog::new(self.config.producers_max),
            waiters: Vec::new(),
            replicas,
        };
        let online = |id: &&i32| self.node(**id).is_some();
        let leader = partition.replicas.iter().find(online).copied();
        partition.elect(leader);
        partition
    }

    fn check_partitions(&self, partitions: Option<i32>) -> Result<usize, ResponseError> {
        let wanted = partitions.unwrap_or(self.config.default_partitions);
        let wanted = usize::try_from(wanted).unwrap_or(0);
        if wanted == 0 {
            return Err(ResponseError::InvalidPartitions);
        }
        let now: usize = self.topics.values().map(|t| t.partitions.len()).sum();
        if now + wanted > self.config.partitions_max {
            return Err(ResponseError::PolicyViolation);
        }
        Ok(wanted)
    }

    fn check_replication(&self, replication: Option<i16>) -> Result<usize, ResponseError> {
        match replication {
            None => Ok((self.config.default_replication.max(1) as usize).min(self.nodes.len())),
            Some(n) => match usize::try_from(n) {
                Ok(n @ 1..) if n <= self.nodes.len() => Ok(n),
                _ => Err(ResponseError::InvalidReplicationFactor),
            },
        }
    }

    /// A pseudo-random number.
    pub(super) fn nonce(&mut self) -> u64 {
        self.id_seed = self
            .id_seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.id_seed
    }

    /// An id that no topic of this process had before.
    fn new_id(&mut self) -> Uuid {
        let nonce = u128::from(self.nonce());
        self.serial += 1;
        let bytes = (nonce << 64 | u128::from(self.serial)).to_be_bytes();
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }
}

// What tests do and see.
#[cfg(any(test, feature = "faults"))]
impl ClusterState {
    /// Has `node` coordinate that group or transaction, while it is online.
    pub(super) fn move_coordinator(&mut self, key: &str, node: i32) {
        self.coordinators.insert(key.to_owned(), node);
    }

    /// Makes `node` the leader, with a new epoch.
    pub(super) fn move_leader(&mut self, topic: &str, index: i32, node: i32) -> bool {
        let online = self.node(node).is_some();
        let Some(partition) = self.partition_mut(topic, index) else {
            return false;
        };
        if !partition.replicas.contains(&node) {
            partition.replicas.push(node);
        }
        partition.elect(online.then_some(node));
        true
    }

    /// A node comes or goes: partitions that it led move on, those that had no leader
    /// return.
    pub(super) fn set_online(&mut self, id: i32, online: bool) {
        for node in &mut self.nodes {
            if node.id == id {
                node.online = online;
            }
        }
        let alive: Vec<i32> = self.online().map(|node| node.id).collect();
        for topic in self.topics.values_mut() {
            for partition in &mut topic.partitions {
                if partition
                    .leader
                    .is_some_and(|leader| alive.contains(&leader))
                {
                    continue;
                }
                let next = partition.replicas.iter().find(|id| alive.contains(id));
                let next = next.copied();
                if next != partition.leader {
                    partition.elect(next);
                }
            }
        }
    }

    /// Advertises `address` for a node in metadata.
    pub(super) fn advertise(&mut self, id: i32, address: SocketAddr) {
        for node in &mut self.nodes {
            if node.id == id {
                node.address = address;
            }
        }
    }

    /// Bytes of all logs.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl PartitionState {
    /// Compares the leader epoch that a client knows with the current one (KIP-320);
    /// -1 is not compared.
    pub(super) fn check_leader_epoch(&self, known: i32) -> Result<(), ResponseError> {
        match known {
            -1 => Ok(()),
            known if known < self.epoch => Err(ResponseError::FencedLeaderEpoch),
            known if known > self.epoch => Err(ResponseError::UnknownLeaderEpoch),
            _ => Ok(()),
        }
    }

    /// A change of leadership begins a new epoch.
    fn elect(&mut self, leader: Option<i32>) {
        self.leader = leader;
        self.epoch += 1;
        self.log.begin_epoch(self.epoch);
        self.wake();
    }

    /// Has `waiter` notified by the next change.
    pub(super) fn wait(&mut self, waiter: &Arc<Notify>) {
        if self.waiters.len() == self.waiters.capacity() {
            self.waiters.retain(|known| known.strong_count() > 0);
        }
        self.waiters.push(Arc::downgrade(waiter));
    }

    fn wake(&mut self) {
        for waiter in self.waiters.drain(..) {
            if let Some(waiter) = waiter.upgrade() {
                waiter.notify_one();
            }
        }
    }
}

/// The longest name of a topic, in bytes.
pub(super) const NAME_MAX: usize = 249;

/// Kafka's rule for topic names.
fn check_name(name: &str) -> Result<(), ResponseError> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty()
        || name.len() > NAME_MAX
        || matches!(name, "." | "..")
        || !name.chars().all(legal)
    {
        return Err(ResponseError::InvalidTopicException);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::batch::tests::{PLAIN, batch_of};
    use super::*;

    fn state(nodes: usize, change: impl FnOnce(&mut BrokerConfig)) -> ClusterState {
        let mut config = BrokerConfig::default();
        change(&mut config);
        let addresses = vec![SocketAddr::from(([127, 0, 0, 1], 9092)); nodes];
        ClusterState::new(Arc::new(config), &addresses, 1)
    }

    fn append(state: &mut ClusterState, topic: &str, index: i32) -> i64 {
        let bytes = batch_of(100, 0, PLAIN);
        let header = BatchHeader::parse(&bytes).unwrap();
        state.append(topic, index, &bytes, &header, None).unwrap()
    }

    fn log<'a>(state: &'a ClusterState, topic: &str, index: i32) -> &'a PartitionLog {
        &state.partition(topic, index).unwrap().log
    }

    #[test]
    fn the_oldest_batches_go_when_memory_is_spent_whatever_their_partition() {
        let mut state = state(1, |config| config.memory = 10_000);
        state.create_topic("quiet", Some(1), None).unwrap();
        state.create_topic("busy", Some(2), None).unwrap();
        append(&mut state, "quiet", 0);
        for n in 0..100 {
            append(&mut state, "busy", n % 2);
            assert!(state.bytes() <= 10_000);
        }
        let quiet = log(&state, "quiet", 0);
        assert_eq!((quiet.start(), quiet.end()), (100, 100));
        for index in 0..2 {
            let busy = log(&state, "busy", index);
            assert_eq!(busy.end(), 5_000);
            assert!(busy.start() > 4_000 && busy.start() < 5_000);
        }
        state.delete_topic("busy").unwrap();
        assert_eq!(state.bytes(), 0);
    }

    #[test]
    fn a_batch_larger_than_the_memory_is_kept_alone() {
        let mut state = state(1, |config| config.memory = 10);
        state.create_topic("t", Some(1), None).unwrap();
        append(&mut state, "t", 0);
        append(&mut state, "t", 0);
        assert_eq!(log(&state, "t", 0).len(), 1);
        assert_eq!(log(&state, "t", 0).start(), 100);
    }

    #[test]
    fn truncating_again_and_again_leaves_nothing_behind() {
        let mut state = state(1, |_| ());
        state.create_topic("t", Some(1), None).unwrap();
        for _ in 0..5_000 {
            append(&mut state, "t", 0);
            state.change_log("t", 0, |partition, _| partition.log.truncate(0));
        }
        assert_eq!(state.bytes(), 0);
        assert!(state.arrivals.len() <= 1024);
    }

    #[test]
    fn leaders_move_with_a_new_epoch_when_a_node_goes() {
        let mut state = state(2, |_| ());
        state.create_topic("both", Some(2), Some(2)).unwrap();
        state.create_topic("one", Some(2), Some(1)).unwrap();
        let leader = |state: &ClusterState, topic, index| {
            let partition = state.partition(topic, index).unwrap();
            (partition.leader, partition.epoch)
        };
        assert_eq!(leader(&state, "both", 0), (Some(1), 0));
        assert_eq!(leader(&state, "both", 1), (Some(2), 0));
        assert_eq!(leader(&state, "one", 0), (Some(2), 0));
        state.set_online(2, false);
        assert_eq!(leader(&state, "both", 0), (Some(1), 0));
        assert_eq!(leader(&state, "both", 1), (Some(1), 1));
        assert_eq!(leader(&state, "one", 0), (None, 1));
        state.set_online(2, true);
        assert_eq!(leader(&state, "both", 1), (Some(1), 1));
        assert_eq!(leader(&state, "one", 0), (Some(2), 2));
        assert!(state.move_leader("both", 1, 2));
        assert_eq!(leader(&state, "both", 1), (Some(2), 2));
    }

    #[test]
    fn names_and_numbers_out_of_range_are_refused() {
        let mut state = state(1, |config| config.partitions_max = 5);
        let mut create = |name: &str, partitions, replication| {
            state
                .create_topic(name, partitions, replication)
                .err()
                .map_or(0, |error| error.code())
        };
        assert_eq!(create("a", Some(3), Some(1)), 0);
        assert_eq!(create("a", Some(3), Some(1)), 36);
        assert_eq!(create("b/c", None, None), 17);
        assert_eq!(create("..", None, None), 17);
        assert_eq!(create("b", Some(0), None), 37);
        assert_eq!(create("b", None, Some(2)), 38);
        assert_eq!(create("b", Some(3), None), 44);
        assert_eq!(create("b", Some(2), None), 0);
    }

    #[test]
    fn waiters_that_gave_up_are_not_kept() {
        let mut state = state(1, |_| ());
        state.create_topic("t", Some(1), None).unwrap();
        let partition = state.partition_mut("t", 0).unwrap();
        for _ in 0..10_000 {
            partition.wait(&Arc::new(Notify::new()));
        }
        assert!(partition.waiters.len() < 100);
    }
}
