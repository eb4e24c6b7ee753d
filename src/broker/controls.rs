//! What tests do to a cluster and read of it; not part of the product.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use kafka_client::record::header::BatchHeader;
use kafka_client::{BrokerId, TopicPartition};
use kafka_protocol::messages::ApiKey;

use super::MemoryBroker;
use super::cluster_state::PartitionState;
use super::context;
use super::faults::FaultRules;
use super::group::{ClassicGroup, GroupHistory};
use super::listener::{self, NodeListener};
use super::transaction::{ProducerEpoch, TransactionMetadata, TransactionResult};

/// A group as tests see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDescription {
    /// `Empty`, `PreparingRebalance`, `CompletingRebalance` or `Stable`.
    pub state: &'static str,
    /// Rises with every rebalance.
    pub generation: i32,
    /// Ids of the members in the order of joining.
    pub members: Vec<String>,
}

impl MemoryBroker {
    /// Where a node listens, or would if it were running.
    pub fn address(&self, node: BrokerId) -> Option<SocketAddr> {
        self.addresses.get(&node.0).copied()
    }

    /// Stops one node: its connections are cut, its partitions move to other replicas, its
    /// groups to other coordinators. False if it was not running.
    pub async fn stop_node(&self, id: BrokerId) -> bool {
        let node = self.running().remove(&id.0);
        let Some(node) = node else {
            return false;
        };
        self.shared.lock().take_offline(id.0);
        self.shared.deadline_moved.notify_one();
        node.stop().await;
        true
    }

    /// Starts a node that was stopped, at the address that it had.
    ///
    /// # Errors
    /// `NotFound` if there is no node of that id; the system's, when its address cannot be
    /// listened on.
    pub async fn start_node(&self, id: BrokerId) -> io::Result<()> {
        let address = self.addresses.get(&id.0).ok_or(io::ErrorKind::NotFound)?;
        if self.running().contains_key(&id.0) {
            return Ok(());
        }
        let listener = listener::listen(*address).await?;
        self.shared.lock().restart(id.0);
        self.shared.deadline_moved.notify_one();
        let node = NodeListener::start(Arc::clone(&self.shared), id.0, listener);
        self.running().insert(id.0, node);
        Ok(())
    }

    /// Advertises `address` for a node in metadata, where a relay may listen.
    pub fn advertise(&self, id: BrokerId, address: SocketAddr) {
        self.shared.lock().state.advertise(id.0, address);
    }

    /// Creates a topic; false if it exists or that is not possible.
    pub fn create_topic(&self, name: &str, partitions: i32) -> bool {
        let mut cluster = self.shared.lock();
        cluster
            .state
            .create_topic(name, Some(partitions), None)
            .is_ok()
    }

    /// Adds partitions to a topic until it has `count`; false if that is not possible.
    pub fn add_partitions(&self, name: &str, count: i32) -> bool {
        self.shared.lock().state.grow_topic(name, count).is_ok()
    }

    /// Deletes a topic; false if there is none of that name. A topic created again has
    /// another id.
    pub fn delete_topic(&self, name: &str) -> bool {
        self.shared.lock().delete_topic(name).is_ok()
    }

    /// Makes `node` the leader of a partition, in a new epoch. False without the partition.
    pub fn move_leader(&self, tp: &TopicPartition, node: BrokerId) -> bool {
        let mut cluster = self.shared.lock();
        cluster.state.move_leader(&tp.topic, tp.partition, node.0)
    }

    /// The leader of a partition and its epoch.
    pub fn leader(&self, tp: &TopicPartition) -> Option<(Option<BrokerId>, i32)> {
        let cluster = self.shared.lock();
        let partition = cluster.state.partition(&tp.topic, tp.partition)?;
        Some((partition.leader.map(BrokerId), partition.epoch))
    }

    /// Removes records from `offset` on, as when an unclean leader lacks them.
    pub fn truncate(&self, tp: &TopicPartition, offset: i64) {
        let mut cluster = self.shared.lock();
        let truncate = |partition: &mut PartitionState, _| partition.log.truncate(offset);
        cluster.state.change_log(&tp.topic, tp.partition, truncate);
    }

    /// Removes records below `offset`, as retention does.
    pub fn delete_before(&self, tp: &TopicPartition, offset: i64) {
        let mut cluster = self.shared.lock();
        let delete = |partition: &mut PartitionState, _| partition.log.delete_before(offset);
        cluster.state.change_log(&tp.topic, tp.partition, delete);
    }

    /// Appends a batch of magic 2 unchecked, but for its header; returns its base offset.
    /// A base offset beyond the end of the log is kept, which leaves a gap. None if there
    /// is no such partition or the header is not one.
    pub fn append(&self, tp: &TopicPartition, batch: &[u8]) -> Option<i64> {
        let header = BatchHeader::parse(batch).ok()?;
        let mut cluster = self.shared.lock();
        let append = |partition: &mut PartitionState, serial| {
            let epoch = partition.epoch;
            partition.log.append_raw(batch, &header, epoch, serial)
        };
        cluster.state.change_log(&tp.topic, tp.partition, append)
    }

    /// Ends a transaction in one partition with a marker, as its coordinator would. A
    /// transaction begins with a batch whose attributes say so; until its end nothing from
    /// there on is stable, and once aborted it is in the list that fetches bring.
    pub fn end_transaction(
        &self,
        tp: &TopicPartition,
        producer_id: i64,
        producer_epoch: i16,
        commit: bool,
    ) {
        let producer = ProducerEpoch {
            id: producer_id,
            epoch: producer_epoch,
        };
        let result = match commit {
            true => TransactionResult::Commit,
            false => TransactionResult::Abort,
        };
        let mut cluster = self.shared.lock();
        let (topic, partition) = (&tp.topic, tp.partition);
        cluster
            .state
            .end_transaction(topic, partition, producer, result, context::now_ms());
    }

    /// First offset and end of a partition's log.
    pub fn offsets(&self, tp: &TopicPartition) -> Option<(i64, i64)> {
        let cluster = self.shared.lock();
        let partition = cluster.state.partition(&tp.topic, tp.partition)?;
        Some((partition.log.start(), partition.log.end()))
    }

    /// All batches of a partition, as a consumer would get them.
    pub fn batches(&self, tp: &TopicPartition) -> bytes::Bytes {
        let cluster = self.shared.lock();
        match cluster.state.partition(&tp.topic, tp.partition) {
            Some(partition) => partition.log.read(0, i64::MAX, usize::MAX, true, false),
            None => bytes::Bytes::new(),
        }
    }

    /// Has `node` coordinate that group or transaction, while it is online.
    pub fn move_coordinator(&self, key: &str, node: BrokerId) {
        self.shared.lock().move_coordinator(key, node.0);
        self.shared.deadline_moved.notify_one();
    }

    /// The node that coordinates that group or transaction.
    pub fn coordinator(&self, key: &str) -> Option<BrokerId> {
        let cluster = self.shared.lock();
        cluster.state.coordinator(key).map(|node| BrokerId(node.id))
    }

    /// The state of a transactional id's last transaction, as ListTransactions names it; `None`
    /// for an id that no producer had.
    pub fn transaction_state(&self, transactional_id: &str) -> Option<&'static str> {
        let cluster = self.shared.lock();
        let transaction = cluster.transactions.get(transactional_id)?;
        Some(transaction.phase().name())
    }

    /// Gives the producer of a transactional id that epoch, as if it had ended so many
    /// transactions; false for an id that no producer had.
    pub fn set_producer_epoch(&self, transactional_id: &str, epoch: i16) -> bool {
        let mut cluster = self.shared.lock();
        let set = |transaction: &mut TransactionMetadata| {
            transaction.set_epoch(epoch);
            Ok(())
        };
        let now = Instant::now();
        cluster
            .transactions
            .with(transactional_id, now, set)
            .is_ok()
    }

    /// A group as it is now.
    pub fn group(&self, name: &str) -> Option<GroupDescription> {
        let cluster = self.shared.lock();
        let group = cluster.groups.get(name)?;
        Some(GroupDescription {
            state: group.state(),
            generation: group.generation(),
            members: group.members().iter().map(|m| m.id.to_string()).collect(),
        })
    }

    /// Removes a member from its group as if its session had expired; false if it is not in it.
    pub fn expire_member(&self, group: &str, member_id: &str) -> bool {
        let expire = |group: &mut ClassicGroup| group.expire(member_id, Instant::now());
        let expired = self.shared.lock().groups.with(group, expire);
        self.shared.deadline_moved.notify_one();
        expired.is_some_and(|(expired, _)| expired)
    }

    /// What became of a group's members since the group was created.
    pub fn group_history(&self, name: &str) -> Option<GroupHistory> {
        let cluster = self.shared.lock();
        Some(cluster.groups.get(name)?.history().clone())
    }

    /// The offset that a group committed in a partition.
    pub fn committed(&self, group: &str, tp: &TopicPartition) -> Option<i64> {
        let cluster = self.shared.lock();
        let offsets = &cluster.groups.get(group)?.offsets;
        let mut found = offsets.iter();
        let found = found.find(|((topic, p), _)| **topic == *tp.topic && *p == tp.partition);
        found.map(|(_, committed)| committed.offset)
    }

    /// The scripted faults.
    pub fn faults(&self) -> &FaultRules {
        &self.shared.faults
    }

    /// Requests of `api` since the start, over all nodes.
    pub fn requests(&self, api: ApiKey) -> u64 {
        self.shared.counters.requests(api)
    }

    /// Connections that are open now, over all nodes.
    pub fn connections(&self) -> usize {
        self.shared.counters.open()
    }

    /// Fetch sessions that are open on a node.
    ///
    /// # Panics
    /// If there is no node of that id.
    pub fn fetch_sessions(&self, id: BrokerId) -> usize {
        self.shared.lock().sessions(id.0).len()
    }

    /// Forgets the fetch sessions of a node, as if others had evicted them.
    ///
    /// # Panics
    /// If there is no node of that id.
    pub fn evict_fetch_sessions(&self, id: BrokerId) {
        self.shared.lock().sessions(id.0).clear();
    }

    /// Bytes that the record batches take of the memory limit.
    pub fn memory_used(&self) -> usize {
        self.shared.lock().state.bytes()
    }
}
