//! How an in-memory broker behaves: addresses, limits, defaults of new topics.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use kafka_protocol::messages::ApiKey;

use super::versions::{AdvertisedVersions, KafkaRelease};

/// The settings of one in-memory cluster. The default is a single node on a free
/// loopback port that speaks as the newest Kafka does.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// The address that every node listens on and is known by.
    pub host: IpAddr,
    /// The first node's port; the others take the ports after it. 0: any free ports.
    pub port: u16,
    /// How many nodes; their ids are 1, 2, ….
    pub nodes: usize,
    /// The id of the cluster, as in `meta.properties`.
    pub cluster_id: String,
    /// Which APIs in which versions the nodes speak.
    pub versions: AdvertisedVersions,
    /// The finalized level of the feature `transaction.version`, where `versions` has what it needs:
    /// 1, or 2 for transactions of KIP-890.
    pub transaction_version: i16,
    /// How long after the end of a transaction its markers are written; until then the next one
    /// gets CONCURRENT_TRANSACTIONS. A real cluster takes some milliseconds.
    pub transaction_marker_delay: Duration,
    /// Bytes that transactional ids and their open transactions take. When they are spent, unused
    /// ids are forgotten.
    pub transactions_memory: usize,
    /// `auto.create.topics.enable`: applies to metadata requests that allow it.
    pub auto_create_topics: bool,
    /// `num.partitions` of topics that are created without a number.
    pub default_partitions: i32,
    /// `default.replication.factor`, cut to the number of nodes.
    pub default_replication: i16,
    /// Bytes of record batches kept, over all partitions. When they are spent, the
    /// oldest batches are dropped, whatever partition they are in, and the start of
    /// that partition's log moves up.
    pub memory: usize,
    /// How many partitions there may be, over all topics.
    pub partitions_max: usize,
    /// How many consumer groups are remembered. When there is one more, the group without
    /// members that was unused for longest is forgotten with its offsets.
    pub groups_max: usize,
    /// Bytes of offsets, members and assignments kept, over all groups. When they are spent,
    /// groups without members are forgotten, too; then joins and commits are refused.
    pub groups_memory: usize,
    /// How many members a group may have (`group.max.size`).
    pub group_members_max: usize,
    /// `message.max.bytes`: the largest record batch.
    pub message_max_bytes: usize,
    /// `socket.request.max.bytes`: the largest request.
    pub request_max_bytes: usize,
    /// `queued.max.request.bytes`: what requests of more than 1 MiB take together; the
    /// others wait.
    pub requests_memory: usize,
    /// `log.message.timestamp.type=LogAppendTime`: the broker's clock replaces the
    /// producer's.
    pub log_append_time: bool,
    /// Kafka ends a fetch response exactly at its byte limit, within a batch if need be.
    /// Without this only whole batches are returned.
    pub partial_batches: bool,
    /// `max.incremental.fetch.session.cache.slots`, of each node.
    pub fetch_session_slots: usize,
    /// How many partitions all sessions of a node remember. Beyond that fetches are full.
    pub fetch_session_partitions_max: usize,
    /// A session that was used less than this ago is not evicted for another one.
    pub fetch_session_min_idle: Duration,
    /// `group.initial.rebalance.delay.ms`. Kafka's default is 3 s.
    pub initial_rebalance_delay: Duration,
    /// How long an offset commit takes until it is replicated: the offset can be fetched, and its
    /// answer comes, that much later, and so does every request behind it on its connection. Some
    /// 5 to 10 ms in a real cluster.
    pub offset_commit_delay: Duration,
    /// `group.min.session.timeout.ms`. Kafka's default is 6 s.
    pub session_timeout_min: Duration,
    /// `group.max.session.timeout.ms`
    pub session_timeout_max: Duration,
    /// `producer.id.expiration.ms` is not kept; this many producers are remembered per
    /// partition, the last ones used.
    pub producers_max: usize,
}

impl BrokerConfig {
    /// The finalized level of `transaction.version`; `None` for releases that know no such feature.
    pub(super) fn finalized_transaction_version(&self) -> Option<i16> {
        let (_, newest) = self.versions.range(ApiKey::EndTxn)?;
        (newest >= END_TXN_BUMPS_EPOCH).then_some(self.transaction_version)
    }
}

/// The first version of EndTxn that raises the producer's epoch (KIP-890).
pub(super) const END_TXN_BUMPS_EPOCH: i16 = 5;

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 0,
            nodes: 1,
            cluster_id: "in-memory-kafka-broker".to_owned(),
            versions: KafkaRelease::V4.versions(),
            transaction_version: 2,
            transaction_marker_delay: Duration::ZERO,
            transactions_memory: 16 << 20,
            auto_create_topics: true,
            default_partitions: 1,
            default_replication: 3,
            memory: 256 << 20,
            partitions_max: 10_000,
            groups_max: 10_000,
            groups_memory: 64 << 20,
            group_members_max: 10_000,
            message_max_bytes: (1 << 20) + 12,
            request_max_bytes: 100 << 20,
            requests_memory: 256 << 20,
            log_append_time: false,
            partial_batches: true,
            fetch_session_slots: 1_000,
            fetch_session_partitions_max: 100_000,
            fetch_session_min_idle: Duration::from_secs(120),
            initial_rebalance_delay: Duration::from_secs(3),
            offset_commit_delay: Duration::ZERO,
            session_timeout_min: Duration::from_millis(10),
            session_timeout_max: Duration::from_secs(30 * 60),
            producers_max: 10_000,
        }
    }
}
