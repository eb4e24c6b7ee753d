//! Shared fetching against the in-memory broker: what each cursor sees, and what the
//! broker is asked for it.

use std::sync::Arc;
use std::time::Duration;

use kafka_client::config::{ClientConfig, CompressionType, ConsumerConfig};
use kafka_client::fetcher::{
    Chunk, Cursor, FetchBudget, FetchError, FetchPosition, Fetcher, OffsetSpec, PartitionRecords,
};
use kafka_client::record::{NewRecord, RecordBatchBuilder};
use kafka_client::{BrokerId, Cluster, IsolationLevel, Principal, TopicPartition};
use memory_broker::{ApiKey, BrokerConfig, FaultAction, FaultRule, KafkaRelease, MemoryBroker};
use runtime::wake::WakeSignal;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::support::kafka::{Kafka, unique};
use crate::support::{PATIENCE, until};

struct FetchFixture {
    broker: MemoryBroker,
    cluster: Cluster,
    fetcher: Fetcher,
    tp: TopicPartition,
}

impl FetchFixture {
    async fn new() -> Self {
        Self::with(BrokerConfig::default(), ConsumerConfig::default()).await
    }

    async fn with(broker: BrokerConfig, consumer: ConsumerConfig) -> Self {
        let broker = MemoryBroker::start(broker).await.unwrap();
        assert!(broker.create_topic("t", 3));
        let cluster = cluster(&broker.bootstrap());
        let fetcher = fetcher(&cluster, consumer);
        Self {
            broker,
            cluster,
            fetcher,
            tp: TopicPartition::new("t", 0),
        }
    }

    /// Appends a batch of `count` records whose values are their own offsets.
    fn append(&self, count: i64, size: usize, compression: CompressionType) {
        append(&self.broker, &self.tp, count, size, compression);
    }

    fn reader(&self, offset: i64) -> CheckedCursor {
        self.reader_at(&self.tp, offset, -1)
    }

    fn reader_at(&self, tp: &TopicPartition, offset: i64, leader_epoch: i32) -> CheckedCursor {
        let position = FetchPosition {
            offset,
            leader_epoch,
        };
        CheckedCursor::new(&self.fetcher, tp, position)
    }

    fn fetches(&self) -> u64 {
        self.broker.requests(ApiKey::Fetch)
    }

    async fn stop(self) {
        self.cluster.stop().cancel();
        self.cluster.tasks().close();
        timeout(PATIENCE, self.cluster.tasks().wait())
            .await
            .unwrap();
    }
}

fn append(
    broker: &MemoryBroker,
    tp: &TopicPartition,
    count: i64,
    size: usize,
    compression: CompressionType,
) {
    let (_, end) = broker.offsets(tp).unwrap();
    let mut builder = RecordBatchBuilder::new(1024);
    for offset in end..end + count {
        // A format's width ends at 65,535.
        let digits = offset.to_string();
        let value = "0".repeat(size.saturating_sub(digits.len())) + &digits;
        builder.append(&NewRecord {
            key: None,
            value: Some(value.as_bytes()),
            headers: &[],
            timestamp: offset,
        });
    }
    let mut batch = builder.build(compression);
    batch.set_producer_state(-1, -1, -1);
    assert_eq!(broker.append(tp, &batch.bytes()), Some(end));
}

fn cluster(bootstrap: &str) -> Cluster {
    let config = ClientConfig {
        bootstrap_servers: bootstrap.split(',').map(str::to_owned).collect(),
        ..ClientConfig::default()
    };
    Cluster::new(
        config,
        Principal::Proxy,
        TaskTracker::new(),
        CancellationToken::new(),
    )
}

fn fetcher(cluster: &Cluster, config: ConsumerConfig) -> Fetcher {
    let budget = FetchBudget::new(config.fetch_memory);
    Fetcher::new(cluster.clone(), config, budget)
}

/// A cursor that checks that every offset comes once.
struct CheckedCursor {
    cursor: Cursor,
    wake: Arc<WakeSignal>,
    seen: i64,
}

impl CheckedCursor {
    fn new(fetcher: &Fetcher, tp: &TopicPartition, position: FetchPosition) -> Self {
        let wake = Arc::new(WakeSignal::default());
        let isolation = IsolationLevel::ReadUncommitted;
        Self {
            cursor: fetcher.cursor(tp.clone(), position, isolation, Arc::clone(&wake)),
            wake,
            seen: position.offset,
        }
    }

    async fn records(&mut self) -> Result<PartitionRecords, FetchError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(records) = self.cursor.try_next()? {
                return Ok(records);
            }
            tokio::time::timeout_at(deadline, self.wake.notified())
                .await
                .unwrap_or_else(|_| panic!("no records at {:?}", self.cursor));
        }
    }

    /// Takes one chunk; returns it.
    async fn take(&mut self) -> Arc<Chunk> {
        let records = self.records().await.unwrap();
        for record in records.records() {
            let value: i64 = std::str::from_utf8(record.value.unwrap())
                .unwrap()
                .parse()
                .unwrap();
            assert_eq!(record.offset, self.seen, "each offset once, in order");
            assert_eq!(value, record.offset);
            self.seen += 1;
        }
        assert_eq!(self.cursor.position().offset, self.seen);
        records.chunk
    }

    async fn read_to(&mut self, end: i64) {
        while self.seen < end {
            self.take().await;
        }
        assert_eq!(self.seen, end);
    }

    /// Takes one chunk, in which these offsets cannot be read.
    async fn misses(&mut self, from: i64, last: i64) {
        let records = self.records().await.unwrap();
        let unreadable = &records.chunk.decoded.unreadable;
        let ranges: Vec<_> = unreadable
            .iter()
            .map(|range| (range.from_offset, range.last_offset))
            .collect();
        assert_eq!(ranges, [(from, last)], "{unreadable:?}");
        assert_eq!(records.records().count(), 0);
        self.seen = last + 1;
    }

    async fn fails(&mut self) -> FetchError {
        match self.records().await {
            Err(error) => error,
            Ok(records) => panic!("expected an error, got {}..", records.from_offset),
        }
    }

    /// Waits at the end of the log until the tail is at work.
    async fn settle(&mut self, fixture: &FetchFixture) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(self.cursor.try_next().unwrap().is_none());
            if fixture.fetcher.tails() > 0 {
                return;
            }
            assert!(Instant::now() < deadline, "no tail for {:?}", self.cursor);
            let moment = Duration::from_millis(5);
            let _ = timeout(moment, self.wake.notified()).await;
        }
    }
}

#[tokio::test]
async fn a_log_is_read_from_its_start_and_followed_at_its_end() {
    for release in [
        KafkaRelease::V2_1,
        KafkaRelease::V2_8,
        KafkaRelease::V3_9,
        KafkaRelease::V4,
    ] {
        let config = BrokerConfig {
            versions: release.versions(),
            ..BrokerConfig::default()
        };
        let fixture = FetchFixture::with(config, ConsumerConfig::default()).await;
        for compression in [
            CompressionType::None,
            CompressionType::Gzip,
            CompressionType::Snappy,
            CompressionType::Lz4,
        ] {
            fixture.append(100, 50, compression);
        }
        let mut reader = fixture.reader(0);
        reader.read_to(400).await;
        for end in 401..430 {
            fixture.append(1, 50, CompressionType::None);
            reader.read_to(end).await;
        }
        fixture.stop().await;
    }
}

#[tokio::test]
async fn a_lagging_cursor_joins_the_tail_without_a_gap_or_a_repeat() {
    let fixture = Arc::new(
        FetchFixture::with(
            BrokerConfig::default(),
            ConsumerConfig {
                max_partition_fetch_bytes: 20_000,
                fetch_memory: 2 << 20,
                ..ConsumerConfig::default()
            },
        )
        .await,
    );
    for _ in 0..200 {
        fixture.append(20, 100, CompressionType::None);
    }
    let end = 4000 + 400 * 3;
    let producer = {
        let fixture = Arc::clone(&fixture);
        tokio::spawn(async move {
            for _ in 0..400 {
                fixture.append(3, 100, CompressionType::None);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
    };
    let mut readers = Vec::new();
    for start in [0, 0, 1, 1777, 3999, 4000] {
        let mut reader = fixture.reader(start);
        readers.push(tokio::spawn(async move { reader.read_to(end).await }));
    }
    for reader in readers {
        timeout(PATIENCE, reader).await.unwrap().unwrap();
    }
    producer.await.unwrap();
    Arc::into_inner(fixture).unwrap().stop().await;
}

#[tokio::test]
async fn a_cursor_that_lags_beyond_the_tail_cache_has_fetches_of_its_own() {
    let config = ConsumerConfig {
        fetch_memory: 400_000,
        max_partition_fetch_bytes: 20_000,
        ..ConsumerConfig::default()
    };
    let fixture = FetchFixture::with(BrokerConfig::default(), config).await;
    let mut quick = fixture.reader(0);
    let mut slow = fixture.reader(0);
    quick.settle(&fixture).await;
    slow.settle(&fixture).await;
    for round in 1..=100 {
        fixture.append(50, 200, CompressionType::None);
        quick.read_to(round * 50).await;
        assert!(fixture.fetcher.budget().used() <= 400_000 + 20_000);
    }
    slow.read_to(5000).await;
    fixture.append(1, 200, CompressionType::None);
    slow.read_to(5001).await;
    fixture.stop().await;
}

#[tokio::test]
async fn a_thousand_cursors_on_one_partition_share_one_stream() {
    let fixture = FetchFixture::new().await;
    let mut readers: Vec<CheckedCursor> = (0..1000).map(|_| fixture.reader(0)).collect();
    for reader in &mut readers {
        reader.settle(&fixture).await;
    }
    let before = fixture.fetches();
    for round in 1..=20 {
        fixture.append(1, 100, CompressionType::None);
        let mut chunks = Vec::new();
        for reader in &mut readers {
            chunks.push(reader.take().await);
            assert_eq!(reader.seen, round);
        }
        assert!(chunks.iter().all(|chunk| Arc::ptr_eq(chunk, &chunks[0])));
    }
    let fetches = fixture.fetches() - before;
    assert!(fetches <= 20 * 3, "{fetches} fetches for 20 records");
    // Metadata, the tail, and at most two catch-up connections.
    assert!(fixture.cluster.connections() <= 4);
    fixture.stop().await;
}

#[tokio::test]
async fn a_thousand_cursors_from_the_start_share_their_fetches() {
    let config = ConsumerConfig {
        max_partition_fetch_bytes: 3_000,
        ..ConsumerConfig::default()
    };
    let fixture = FetchFixture::with(BrokerConfig::default(), config).await;
    for _ in 0..50 {
        fixture.append(10, 60, CompressionType::None);
    }
    let mut readers: Vec<CheckedCursor> = (0..1000).map(|_| fixture.reader(0)).collect();
    for reader in &mut readers {
        assert!(reader.cursor.try_next().unwrap().is_none());
    }
    let reads = readers.into_iter().map(|mut reader| async move {
        reader.read_to(500).await;
    });
    timeout(PATIENCE, futures_util::future::join_all(reads))
        .await
        .unwrap();
    let fetches = fixture.fetches();
    assert!(fetches < 200, "{fetches} fetches for about 12 chunks");
    fixture.stop().await;
}

#[tokio::test]
async fn a_partition_that_is_added_during_a_long_poll_does_not_wait_for_its_end() {
    let config = ConsumerConfig {
        // Longer than this test waits for anything.
        fetch_max_wait: Duration::from_secs(600),
        ..ConsumerConfig::default()
    };
    let fixture = FetchFixture::with(BrokerConfig::default(), config).await;
    let mut first = fixture.reader(0);
    first.settle(&fixture).await;
    let other = TopicPartition::new("t", 1);
    let mut second = fixture.reader_at(&other, 0, -1);
    assert!(second.cursor.try_next().unwrap().is_none());
    for end in 1..=20 {
        append(&fixture.broker, &other, 1, 10, CompressionType::None);
        second.read_to(end).await;
    }
    fixture.stop().await;
}

#[tokio::test]
async fn a_lost_fetch_session_or_none_at_all_changes_nothing() {
    for slots in [1000, 0] {
        let config = BrokerConfig {
            fetch_session_slots: slots,
            ..BrokerConfig::default()
        };
        let fixture = FetchFixture::with(config, ConsumerConfig::default()).await;
        let mut reader = fixture.reader(0);
        reader.settle(&fixture).await;
        for end in 1..=50 {
            fixture.append(1, 10, CompressionType::None);
            if end % 10 == 0 {
                fixture.broker.evict_fetch_sessions(BrokerId(1));
            }
            reader.read_to(end).await;
        }
        fixture.stop().await;
    }
}

#[tokio::test]
async fn a_fetch_session_names_only_what_changed() {
    let fixture = FetchFixture::new().await;
    let mut reader = fixture.reader(0);
    reader.settle(&fixture).await;
    fixture.append(1, 10, CompressionType::None);
    reader.read_to(1).await;
    assert_eq!(fixture.broker.fetch_sessions(BrokerId(1)), 1);
    fixture.stop().await;
}

fn three_nodes() -> BrokerConfig {
    BrokerConfig {
        nodes: 3,
        ..BrokerConfig::default()
    }
}

#[tokio::test]
async fn cursors_follow_a_leader_that_moves() {
    let fixture = FetchFixture::with(three_nodes(), ConsumerConfig::default()).await;
    let mut at_end = fixture.reader(0);
    let mut lagging = fixture.reader(0);
    at_end.settle(&fixture).await;
    for round in 0..9 {
        fixture.append(10, 50, CompressionType::None);
        let node = BrokerId(1 + round as i32 % 3);
        assert!(fixture.broker.move_leader(&fixture.tp, node));
        fixture.append(10, 50, CompressionType::None);
        at_end.read_to((round + 1) * 20).await;
        if round % 3 == 0 {
            lagging.take().await;
        }
    }
    lagging.read_to(180).await;
    fixture.stop().await;
}

/// A cluster of three whose brokers may hang for longer than the test waits.
async fn patient_scene() -> FetchFixture {
    let mut fixture = FetchFixture::with(three_nodes(), ConsumerConfig::default()).await;
    let config = ClientConfig {
        bootstrap_servers: vec![
            fixture
                .broker
                .bootstrap()
                .split(',')
                .next_back()
                .unwrap()
                .into(),
        ],
        request_timeout: PATIENCE * 10,
        ..ClientConfig::default()
    };
    fixture.cluster.stop().cancel();
    fixture.cluster = Cluster::new(
        config,
        Principal::Proxy,
        TaskTracker::new(),
        CancellationToken::new(),
    );
    fixture.fetcher = fetcher(&fixture.cluster, ConsumerConfig::default());
    assert!(fixture.broker.move_leader(&fixture.tp, BrokerId(1)));
    fixture
}

/// The next Fetch request at node 1 is never answered.
fn fetch_hangs(fixture: &FetchFixture) {
    let rule = FaultRule::on(ApiKey::Fetch, FaultAction::Silence).at(1);
    fixture.broker.faults().add(rule);
}

#[tokio::test]
async fn a_tail_whose_broker_hangs_is_left_when_the_metadata_names_another_leader() {
    let fixture = patient_scene().await;
    let mut reader = fixture.reader(0);
    reader.settle(&fixture).await;
    fixture.append(1, 10, CompressionType::None);
    reader.read_to(1).await;
    until("the tail reads at node 1", || {
        fixture.broker.fetch_sessions(BrokerId(1)) == 1
    })
    .await;
    assert!(reader.cursor.try_next().unwrap().is_none());
    fetch_hangs(&fixture);
    until("a fetch hangs", || fixture.broker.faults().left() == 0).await;
    assert!(fixture.broker.move_leader(&fixture.tp, BrokerId(2)));
    fixture.append(1, 10, CompressionType::None);
    // Its metadata is older: it is refreshed because the answer is overdue.
    reader.read_to(2).await;
    fixture.stop().await;
}

#[tokio::test]
async fn an_offset_lookup_whose_broker_hangs_is_abandoned_when_another_broker_leads() {
    let fixture = patient_scene().await;
    fixture.append(10, 10, CompressionType::None);
    let hangs = FaultRule::on(ApiKey::ListOffsets, FaultAction::Silence).at(1);
    fixture.broker.faults().add(hangs);
    let (fetcher, isolation) = (&fixture.fetcher, IsolationLevel::ReadUncommitted);
    // The first stays with the broker that hangs; the others wait behind it, and go elsewhere.
    assert!(fixture.broker.create_topic("stays", 1));
    let stays = TopicPartition::new("stays", 0);
    assert!(fixture.broker.move_leader(&stays, BrokerId(1)));
    let hung = fetcher.list_offset(&stays, OffsetSpec::Latest, isolation);
    let moved = async {
        until("a lookup hangs", || fixture.broker.faults().left() == 0).await;
        let start = fetcher.list_offset(&fixture.tp, OffsetSpec::Earliest, isolation);
        let end = fetcher.list_offset(&fixture.tp, OffsetSpec::Latest, isolation);
        let moved = async {
            assert!(fixture.broker.move_leader(&fixture.tp, BrokerId(2)));
        };
        let (start, end, ()) = tokio::join!(start, end, moved);
        (start.unwrap().offset, end.unwrap().offset)
    };
    let found = timeout(PATIENCE, async {
        tokio::select! {
            _ = hung => panic!("its broker hangs"),
            found = moved => found,
        }
    });
    assert_eq!(found.await.unwrap(), (0, 10));
    fixture.stop().await;
}

#[tokio::test]
async fn a_fetch_whose_broker_hangs_is_abandoned_when_the_metadata_names_another_leader() {
    let fixture = patient_scene().await;
    fixture.append(10, 10, CompressionType::None);
    fetch_hangs(&fixture);
    let mut reader = fixture.reader(0);
    assert!(reader.cursor.try_next().unwrap().is_none());
    until("a fetch hangs", || fixture.broker.faults().left() == 0).await;
    assert!(fixture.broker.move_leader(&fixture.tp, BrokerId(2)));
    fixture.cluster.metadata().refresh().await.unwrap();
    reader.read_to(10).await;
    fixture.stop().await;
}

#[tokio::test]
async fn cursors_outlive_brokers_that_stop_and_start() {
    let fixture = FetchFixture::with(three_nodes(), ConsumerConfig::default()).await;
    let mut reader = fixture.reader(0);
    reader.settle(&fixture).await;
    let mut end = 0;
    for node in [1, 2, 3] {
        assert!(fixture.broker.stop_node(BrokerId(node)).await);
        fixture.append(10, 50, CompressionType::None);
        end += 10;
        reader.read_to(end).await;
        fixture.broker.start_node(BrokerId(node)).await.unwrap();
        fixture.append(10, 50, CompressionType::None);
        end += 10;
        reader.read_to(end).await;
    }
    fixture.stop().await;
}

#[tokio::test]
async fn fetch_errors_are_repaired_inside() {
    for action in [
        FaultAction::CloseBefore,
        FaultAction::CloseAfter,
        FaultAction::Truncated(20),
        FaultAction::WrongCorrelationId,
        FaultAction::Delay(Duration::from_millis(50)),
        FaultAction::Error(1),   // OFFSET_OUT_OF_RANGE, although it is not
        FaultAction::Error(2),   // CORRUPT_MESSAGE
        FaultAction::Error(3),   // UNKNOWN_TOPIC_OR_PARTITION
        FaultAction::Error(6),   // NOT_LEADER_OR_FOLLOWER
        FaultAction::Error(56),  // KAFKA_STORAGE_ERROR
        FaultAction::Error(70),  // FETCH_SESSION_ID_NOT_FOUND
        FaultAction::Error(71),  // INVALID_FETCH_SESSION_EPOCH
        FaultAction::Error(74),  // FENCED_LEADER_EPOCH
        FaultAction::Error(75),  // UNKNOWN_LEADER_EPOCH
        FaultAction::Error(78),  // OFFSET_NOT_AVAILABLE
        FaultAction::Error(-1),  // UNKNOWN_SERVER_ERROR
        FaultAction::Error(100), // UNKNOWN_TOPIC_ID
        FaultAction::Error(106), // FETCH_SESSION_TOPIC_ID_ERROR
        FaultAction::Error(9999),
    ] {
        let config = ConsumerConfig {
            fetch_max_wait: Duration::from_millis(50),
            ..ConsumerConfig::default()
        };
        let fixture = FetchFixture::with(BrokerConfig::default(), config).await;
        fixture.append(10, 10, CompressionType::None);
        fixture
            .broker
            .faults()
            .add(FaultRule::on(ApiKey::Fetch, action.clone()).times(2));
        let mut reader = fixture.reader(0);
        reader.read_to(10).await;
        reader.settle(&fixture).await;
        fixture
            .broker
            .faults()
            .add(FaultRule::on(ApiKey::Fetch, action).times(3));
        for end in 11..=30 {
            fixture.append(1, 10, CompressionType::None);
            reader.read_to(end).await;
        }
        fixture.stop().await;
    }
}

#[tokio::test]
async fn a_position_outside_the_log_is_an_error_with_the_logs_bounds() {
    let fixture = FetchFixture::new().await;
    fixture.append(10, 10, CompressionType::None);
    fixture.append(10, 10, CompressionType::None);
    fixture.broker.delete_before(&fixture.tp, 10);
    for offset in [0, 9, 21, 1000] {
        let mut reader = fixture.reader(offset);
        let expected = FetchError::OutOfRange {
            tp: fixture.tp.clone(),
            offset,
            start: 10,
            end: 20,
        };
        assert_eq!(reader.fails().await, expected);
        // It stays where it is until it seeks.
        assert_eq!(reader.cursor.position().offset, offset);
        reader.cursor.seek(FetchPosition {
            offset: 10,
            leader_epoch: -1,
        });
        reader.seen = 10;
        reader.read_to(20).await;
    }
    fixture.stop().await;
}

#[tokio::test]
async fn retention_that_overtakes_a_cursor_is_an_out_of_range_error() {
    let config = ConsumerConfig {
        max_partition_fetch_bytes: 1000,
        ..ConsumerConfig::default()
    };
    let fixture = FetchFixture::with(BrokerConfig::default(), config).await;
    for _ in 0..100 {
        fixture.append(10, 100, CompressionType::None);
    }
    let mut reader = fixture.reader(0);
    reader.read_to(10).await;
    fixture.broker.delete_before(&fixture.tp, 900);
    let error = loop {
        // One chunk may have been read ahead.
        match reader.records().await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(
        error,
        FetchError::OutOfRange {
            start: 900,
            end: 1000,
            ..
        }
    ));
    fixture.stop().await;
}

#[tokio::test]
async fn truncation_is_reported_to_cursors_that_had_read_further() {
    let fixture = FetchFixture::with(three_nodes(), ConsumerConfig::default()).await;
    for _ in 0..3 {
        fixture.append(10, 10, CompressionType::None);
    }
    let mut at_end = fixture.reader(0);
    let mut behind = fixture.reader(0);
    at_end.read_to(30).await;
    at_end.settle(&fixture).await;
    let epoch = at_end.cursor.position().leader_epoch;
    assert!(epoch >= 0);
    // An unclean election: the new leader lacks the last records, and appends others.
    fixture.broker.truncate(&fixture.tp, 20);
    let (leader, _) = fixture.broker.leader(&fixture.tp).unwrap();
    let next = BrokerId(1 + leader.unwrap().0 % 3);
    assert!(fixture.broker.move_leader(&fixture.tp, next));
    for _ in 0..3 {
        fixture.append(10, 10, CompressionType::None);
    }
    let to = FetchPosition {
        offset: 20,
        leader_epoch: epoch,
    };
    let expected = |offset| FetchError::Truncated {
        tp: fixture.tp.clone(),
        offset,
        to,
    };
    assert_eq!(at_end.fails().await, expected(30));
    // A position that was committed before, of a new cursor.
    let mut resumed = fixture.reader_at(&fixture.tp, 25, epoch);
    assert_eq!(resumed.fails().await, expected(25));
    for reader in [&mut at_end, &mut resumed] {
        reader.cursor.seek(to);
        reader.seen = 20;
        reader.read_to(50).await;
    }
    behind.read_to(50).await;
    fixture.stop().await;
}

#[tokio::test]
async fn a_position_beyond_the_end_of_a_truncated_log_is_truncation() {
    let fixture = FetchFixture::new().await;
    fixture.append(10, 10, CompressionType::None);
    fixture.append(10, 10, CompressionType::None);
    let mut reader = fixture.reader(0);
    reader.read_to(20).await;
    let position = reader.cursor.position();
    drop(reader);
    fixture.broker.truncate(&fixture.tp, 10);
    let mut reader = fixture.reader_at(&fixture.tp, 20, position.leader_epoch);
    let error = reader.fails().await;
    assert!(
        matches!(&error, FetchError::Truncated { to, .. } if to.offset == 10),
        "{error:?}"
    );
    fixture.stop().await;
}

#[tokio::test]
async fn a_topic_that_is_deleted_or_recreated_ends_its_cursors() {
    let fixture = FetchFixture::new().await;
    fixture.append(10, 10, CompressionType::None);
    let mut at_end = fixture.reader(0);
    at_end.read_to(10).await;
    at_end.settle(&fixture).await;
    assert!(fixture.broker.delete_topic("t"));
    let gone = FetchError::UnknownTopic { topic: "t".into() };
    assert_eq!(at_end.fails().await, gone);
    assert!(fixture.broker.create_topic("t", 1));
    fixture.append(5, 10, CompressionType::None);
    let mut fresh = fixture.reader(0);
    fresh.read_to(5).await;
    fresh.settle(&fixture).await;
    assert!(fixture.broker.delete_topic("t"));
    assert!(fixture.broker.create_topic("t", 1));
    assert_eq!(fresh.fails().await, gone);
    assert_eq!(at_end.fails().await, gone);
    fixture.stop().await;
}

#[tokio::test]
async fn batches_beyond_every_limit_are_read_nevertheless() {
    let config = ConsumerConfig {
        max_partition_fetch_bytes: 1000,
        fetch_max_bytes: 3000,
        fetch_memory: 40_000,
        ..ConsumerConfig::default()
    };
    let fixture = FetchFixture::with(BrokerConfig::default(), config).await;
    let mut readers = Vec::new();
    for partition in 0..3 {
        let tp = TopicPartition::new("t", partition);
        for size in [10, 60_000, 10, 50_000] {
            append(&fixture.broker, &tp, 2, size, CompressionType::None);
        }
        readers.push(fixture.reader_at(&tp, 0, -1));
    }
    let reads = readers.iter_mut().map(|reader| reader.read_to(8));
    futures_util::future::join_all(reads).await;
    for reader in &mut readers {
        let tp = reader.cursor.tp().clone();
        for end in [10, 12] {
            append(&fixture.broker, &tp, 2, 60_000, CompressionType::None);
            reader.read_to(end).await;
        }
    }
    fixture.stop().await;
}

#[tokio::test]
async fn a_batch_that_cannot_be_read_is_reported_in_its_place_and_reading_goes_on() {
    let fixture = FetchFixture::new().await;
    fixture.append(10, 10, CompressionType::None);
    let batch = fixture.broker.batches(&fixture.tp);
    let mut damaged = batch.to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    fixture.broker.append(&fixture.tp, &damaged).unwrap();
    fixture.append(5, 10, CompressionType::None);
    for _ in 0..2 {
        let mut reader = fixture.reader(0);
        reader.read_to(10).await;
        let records = reader.records().await.unwrap();
        let unreadable = &records.chunk.decoded.unreadable;
        assert_eq!(unreadable.len(), 1, "{unreadable:?}");
        assert_eq!(
            (unreadable[0].from_offset, unreadable[0].last_offset),
            (10, 19)
        );
        reader.seen = 20;
        let offsets = records.records().map(|record| record.offset);
        reader.seen += offsets.count() as i64;
        reader.read_to(25).await;
        fixture.append(1, 10, CompressionType::None);
        reader.read_to(26).await;
        fixture.broker.truncate(&fixture.tp, 25);
    }
    assert_eq!(fixture.fetcher.unreadable_count(), 1, "counted once");
    fixture.stop().await;
}

#[tokio::test]
async fn a_batch_is_read_however_large_it_is_when_unpacked() {
    let config = ConsumerConfig {
        fetch_memory: 8 << 20,
        ..ConsumerConfig::default()
    };
    let fixture = FetchFixture::with(BrokerConfig::default(), config.clone()).await;
    for codec in [
        CompressionType::Zstd,
        CompressionType::Gzip,
        CompressionType::Lz4,
    ] {
        fixture.append(24, 500_000, codec);
    }
    let mut readers = [fixture.reader(0), fixture.reader(0)];
    for reader in &mut readers {
        while reader.seen < 72 {
            let chunk = reader.take().await;
            assert!(
                chunk.decoded.bytes <= config.fetch_memory,
                "{}",
                chunk.decoded.bytes
            );
            let used = fixture.fetcher.budget().used();
            assert!(used <= 2 * config.fetch_memory, "{used}");
        }
        assert_eq!(reader.seen, 72);
    }
    // At the end of the log, too.
    readers[0].settle(&fixture).await;
    fixture.append(24, 500_000, CompressionType::Zstd);
    for reader in &mut readers {
        reader.read_to(96).await;
    }
    fixture.stop().await;
}

#[tokio::test]
async fn memory_is_acquired_before_records_are_unpacked() {
    let memory = 8 << 20;
    let config = ConsumerConfig {
        fetch_memory: memory,
        ..ConsumerConfig::default()
    };
    let fixture = FetchFixture::with(BrokerConfig::default(), config).await;
    assert!(fixture.broker.create_topic("zeros", 20));
    let mut readers = Vec::new();
    for partition in 0..20 {
        let tp = TopicPartition::new("zeros", partition);
        append(&fixture.broker, &tp, 40, 100_000, CompressionType::Zstd);
        readers.push(fixture.reader_at(&tp, 0, -1));
    }
    // Each holds its chunk until all have got what there is room for.
    let mut held = Vec::new();
    while readers.iter().any(|reader| reader.seen < 40) {
        for reader in &mut readers {
            if let Some(records) = reader.cursor.try_next().unwrap() {
                reader.seen = reader.cursor.position().offset;
                held.push(records);
            }
            let used = fixture.fetcher.budget().used();
            assert!(
                used <= memory + (1 << 20),
                "{used} with {} held",
                held.len()
            );
        }
        if timeout(Duration::from_millis(20), readers[0].wake.notified())
            .await
            .is_err()
        {
            held.clear();
        }
    }
    drop(held);
    fixture.stop().await;
}

#[tokio::test]
async fn memory_is_bounded_whatever_cursors_hold() {
    let memory = 1 << 20;
    let config = ConsumerConfig {
        fetch_memory: memory,
        max_partition_fetch_bytes: 100_000,
        ..ConsumerConfig::default()
    };
    let fixture = FetchFixture::with(BrokerConfig::default(), config).await;
    for _ in 0..300 {
        fixture.append(100, 100, CompressionType::None);
    }
    let budget = fixture.fetcher.budget().clone();
    let response = 100_000;
    // Each at an offset of its own, each holding its chunk.
    let mut readers: Vec<CheckedCursor> = (0..300).map(|n| fixture.reader(n * 100)).collect();
    let mut held = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    let mut got = vec![false; readers.len()];
    // Until there is no memory for more: the next read waits for what is held. Three chunks take the
    // half that is for catch-up where the first two have memory for what is derived of them.
    let mut exhausted = false;
    while held.len() < 3 || !exhausted {
        assert!(Instant::now() < deadline, "{} held", held.len());
        exhausted = budget.awaited_since().is_some();
        for (reader, got) in readers.iter_mut().zip(&mut got) {
            if !*got && let Some(records) = reader.cursor.try_next().unwrap() {
                let bytes = records.chunk.decoded.bytes;
                held.push((records.chunk.try_acquire_derived(bytes), records));
                *got = true;
            }
        }
        assert!(budget.used() <= memory + response, "{} used", budget.used());
        tokio::task::yield_now().await;
    }
    assert!(held.len() < 300, "{} held", held.len());
    // Dropped, and all others read on.
    let mut left = got.iter().filter(|got| !**got).count();
    held.clear();
    let deadline = Instant::now() + PATIENCE;
    while left > 0 {
        assert!(Instant::now() < deadline, "{left} wait for room");
        for (reader, got) in readers.iter_mut().zip(&mut got) {
            if !*got && reader.cursor.try_next().unwrap().is_some() {
                *got = true;
                left -= 1;
            }
        }
        assert!(budget.used() <= memory + response, "{} used", budget.used());
        tokio::task::yield_now().await;
    }
    drop(readers);
    fixture.stop().await;
}

#[tokio::test]
async fn whoever_waits_for_memory_holds_up_no_cursor_at_the_end_of_another_partition() {
    let config = ConsumerConfig {
        fetch_memory: 1 << 20,
        max_partition_fetch_bytes: 100_000,
        ..ConsumerConfig::default()
    };
    let fixture = FetchFixture::with(three_nodes(), config).await;
    assert!(fixture.broker.move_leader(&fixture.tp, BrokerId(1)));
    let other = TopicPartition::new("t", 1);
    assert!(fixture.broker.move_leader(&other, BrokerId(2)));
    append(&fixture.broker, &other, 1, 10, CompressionType::None);
    let mut at_end = fixture.reader_at(&other, 0, -1);
    at_end.read_to(1).await;
    at_end.settle(&fixture).await;
    for _ in 0..300 {
        fixture.append(100, 100, CompressionType::None);
    }
    // Each at an offset of its own, each holding its chunk, until the next waits for memory.
    let mut lagging: Vec<CheckedCursor> = (0..300).map(|n| fixture.reader(n * 100)).collect();
    let mut held = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    let mut exhausted = false;
    while held.len() <= 3 || !exhausted {
        assert!(Instant::now() < deadline, "{} held", held.len());
        exhausted = fixture.fetcher.budget().awaited_since().is_some();
        lagging.retain_mut(|reader| {
            let records = reader.cursor.try_next().unwrap();
            let served = records.is_some();
            held.extend(records);
            !served
        });
        tokio::task::yield_now().await;
    }
    assert!(!lagging.is_empty(), "{} held", held.len());
    // Its position is validated and fetched from at the broker where the others wait for memory.
    assert!(fixture.broker.move_leader(&other, BrokerId(1)));
    append(&fixture.broker, &other, 1, 10, CompressionType::None);
    at_end.read_to(2).await;
    drop((held, lagging));
    fixture.stop().await;
}

#[tokio::test]
async fn a_batch_that_is_too_large_to_be_received_is_reported_in_its_place_and_concerns_no_other() {
    let mut fixture = FetchFixture::new().await;
    fixture.cluster.stop().cancel();
    fixture.cluster = Cluster::new(
        ClientConfig {
            bootstrap_servers: vec![fixture.broker.bootstrap()],
            receive_message_max_bytes: 200_000,
            ..ClientConfig::default()
        },
        Principal::Proxy,
        TaskTracker::new(),
        CancellationToken::new(),
    );
    fixture.fetcher = fetcher(&fixture.cluster, ConsumerConfig::default());
    let others = [1, 2].map(|partition| TopicPartition::new("t", partition));
    let mut readers = others.clone().map(|tp| fixture.reader_at(&tp, 0, -1));
    let mut reader = fixture.reader(0);
    for reader in readers.iter_mut().chain([&mut reader]) {
        reader.settle(&fixture).await;
    }
    // Several batches that are larger together are asked for in parts.
    for _ in 0..8 {
        fixture.append(1, 50_000, CompressionType::None);
    }
    reader.read_to(8).await;
    // One that is larger alone cannot be.
    fixture.append(3, 100_000, CompressionType::None);
    fixture.append(1, 10, CompressionType::None);
    for end in 1..=5 {
        for (tp, reader) in others.iter().zip(&mut readers) {
            append(&fixture.broker, tp, 1, 10, CompressionType::None);
            reader.read_to(end).await;
        }
    }
    reader.misses(8, 10).await;
    reader.read_to(12).await;
    // Whoever comes later is told too.
    let mut late = fixture.reader(0);
    late.read_to(8).await;
    late.misses(8, 10).await;
    late.read_to(12).await;
    assert_eq!(fixture.fetcher.unreadable_count(), 1, "counted once");
    // The others are where they were: at the tail.
    for (tp, reader) in others.iter().zip(&mut readers) {
        append(&fixture.broker, tp, 1, 10, CompressionType::None);
        reader.read_to(6).await;
    }
    fixture.stop().await;
}

#[tokio::test]
async fn an_open_transaction_holds_back_only_read_committed_cursors() {
    let wait = Duration::from_millis(100);
    let config = ConsumerConfig {
        fetch_max_wait: wait,
        ..ConsumerConfig::default()
    };
    let fixture = FetchFixture::with(BrokerConfig::default(), config).await;
    fixture.append(10, 10, CompressionType::None);
    let mut builder = RecordBatchBuilder::new(100);
    builder.append(&NewRecord {
        key: None,
        value: Some(b"10"),
        headers: &[],
        timestamp: 0,
    });
    let mut batch = builder.build(CompressionType::None);
    batch.set_transactional(true);
    batch.set_producer_state(7, 0, 0);
    fixture.broker.append(&fixture.tp, &batch.bytes()).unwrap();
    let mut uncommitted = fixture.reader(0);
    uncommitted.read_to(11).await;
    let wake = Arc::new(WakeSignal::default());
    let position = FetchPosition {
        offset: 0,
        leader_epoch: -1,
    };
    let mut committed = CheckedCursor {
        cursor: fixture.fetcher.cursor(
            fixture.tp.clone(),
            position,
            IsolationLevel::ReadCommitted,
            Arc::clone(&wake),
        ),
        wake,
        seen: 0,
    };
    committed.read_to(10).await;
    committed.settle(&fixture).await;
    // It waits, it does not spin: of six fetches one of the two cursors at the end sends
    // three or more, each after the other was answered.
    let (before, begin) = (fixture.fetches(), Instant::now());
    until("it asks again", || fixture.fetches() >= before + 6).await;
    assert!(begin.elapsed() >= 2 * wait, "{:?}", begin.elapsed());
    assert!(committed.cursor.try_next().unwrap().is_none());
    // Aborted: 10 and its marker at 11 are skipped at read_committed.
    fixture.broker.end_transaction(&fixture.tp, 7, 0, false);
    fixture.append(3, 10, CompressionType::None);
    let records = committed.records().await.unwrap();
    let offsets: Vec<i64> = records.records().map(|record| record.offset).collect();
    assert_eq!(offsets, [12, 13, 14]);
    assert_eq!(committed.cursor.position().offset, 15);
    fixture.stop().await;
}

#[tokio::test]
async fn many_offset_lookups_are_sent_together() {
    let fixture = FetchFixture::with(three_nodes(), ConsumerConfig::default()).await;
    fixture.append(10, 10, CompressionType::None);
    fixture.broker.delete_before(&fixture.tp, 3);
    fixture
        .broker
        .faults()
        .add(FaultRule::on(ApiKey::ListOffsets, FaultAction::Error(6)).times(2));
    let ask = |at| {
        let (fetcher, tp) = (fixture.fetcher.clone(), fixture.tp.clone());
        async move {
            let found = fetcher.list_offset(&tp, at, IsolationLevel::ReadCommitted);
            found.await.unwrap().offset
        }
    };
    let earliest = futures_util::future::join_all((0..500).map(|_| ask(OffsetSpec::Earliest)));
    let latest = futures_util::future::join_all((0..500).map(|_| ask(OffsetSpec::Latest)));
    let (earliest, latest) = tokio::join!(earliest, latest);
    assert!(earliest.iter().all(|offset| *offset == 3));
    assert!(latest.iter().all(|offset| *offset == 10));
    let asked = fixture.broker.requests(ApiKey::ListOffsets);
    assert!(asked < 60, "{asked} requests");
    let unknown = TopicPartition::new("nowhere", 0);
    let isolation = IsolationLevel::ReadUncommitted;
    let answer = fixture
        .fetcher
        .list_offset(&unknown, OffsetSpec::Latest, isolation);
    assert_eq!(
        answer.await,
        Err(FetchError::UnknownTopic {
            topic: "nowhere".into()
        })
    );
    fixture.stop().await;
}

#[tokio::test]
async fn when_the_client_stops_every_cursor_fails() {
    let fixture = FetchFixture::new().await;
    let mut reader = fixture.reader(0);
    reader.settle(&fixture).await;
    fixture.cluster.stop().cancel();
    assert_eq!(reader.fails().await, FetchError::Stopped);
    let mut late = fixture.reader(0);
    assert_eq!(late.fails().await, FetchError::Stopped);
    fixture.stop().await;
}

/// What librdkafka writes to real brokers, in every codec, is read from the start by some
/// cursors and followed by others while it is being written.
#[tokio::test(flavor = "multi_thread")]
async fn real_brokers_are_read_from_the_start_and_at_the_end() {
    for version in ["4.4", "3.9", "2.8"] {
        let topic = unique("fetch");
        let kafka = {
            let topic = topic.clone();
            let start = move || {
                let kafka = Kafka::shared(version, 1);
                kafka.create_topic(&topic, 1, 1);
                kafka
            };
            tokio::task::spawn_blocking(start).await.unwrap()
        };
        let cluster = cluster(kafka.bootstrap());
        let config = ConsumerConfig {
            max_partition_fetch_bytes: 10_000,
            ..ConsumerConfig::default()
        };
        let fetcher = fetcher(&cluster, config);
        let tp = TopicPartition::new(topic.as_str(), 0);
        let codecs = ["none", "gzip", "snappy", "lz4", "zstd"];
        let (each, total) = (2000, 10_000);
        let follow = |fetcher: &Fetcher, position| {
            let mut reader = CheckedCursor::new(fetcher, &tp, position);
            tokio::spawn(async move { reader.read_to(total).await })
        };
        let start = FetchPosition {
            offset: 0,
            leader_epoch: -1,
        };
        let mut readers = vec![follow(&fetcher, start)];
        for (n, codec) in (0..).zip(codecs) {
            let lines: String = (n * each..(n + 1) * each)
                .map(|offset| format!("{offset:050}\n"))
                .collect();
            let (kafka, topic) = (Arc::clone(&kafka), topic.clone());
            let write = move || {
                let args = ["-P", "-t", &topic, "-z", codec, "-X", "batch.size=5000"];
                kafka.kcat(&args, lines.as_bytes())
            };
            tokio::task::spawn_blocking(write).await.unwrap();
            let end = fetcher.list_offset(&tp, OffsetSpec::Latest, IsolationLevel::ReadUncommitted);
            readers.push(follow(&fetcher, start));
            readers.push(follow(&fetcher, end.await.unwrap()));
        }
        for reader in readers {
            timeout(PATIENCE, reader).await.unwrap().unwrap();
        }
        let beyond = FetchPosition {
            offset: 20_000,
            leader_epoch: -1,
        };
        let error = CheckedCursor::new(&fetcher, &tp, beyond).fails().await;
        assert!(
            matches!(
                error,
                FetchError::OutOfRange {
                    start: 0,
                    end: 10_000,
                    ..
                }
            ),
            "{error:?}"
        );
        cluster.stop().cancel();
        cluster.tasks().close();
        timeout(PATIENCE, cluster.tasks().wait()).await.unwrap();
    }
}
