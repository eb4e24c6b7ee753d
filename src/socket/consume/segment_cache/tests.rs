//! Over chunks that a fetcher has read from the in-memory broker, since these count in its
//! budget.

use std::time::Duration;

use flate2::{Decompress, FlushDecompress};
use kafka_client::config::{ClientConfig, CompressionType, ConsumerConfig};
use kafka_client::consumer::{FetchPosition, IsolationLevel, PartitionRecords};
use kafka_client::fetcher::{FetchBudget, Fetcher};
use kafka_client::record::{NewRecord, RecordBatchBuilder};
use kafka_client::{Cluster, Principal, TopicPartition};
use memory_broker::{BrokerConfig, MemoryBroker};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use websocket::deflate::PermessageDeflate;

use super::super::chunk::OutgoingChunk;
use super::super::frame_encoding::SEGMENTS_MAX;
use super::super::segment_buffer::SEGMENT_BYTES;
use super::*;
use crate::codec::{Format, FrameFormat, RecordFormats};

const STRINGS: FrameEncoding = plain(RecordFormats {
    key: None,
    value: Format::String,
});

const fn plain(formats: RecordFormats) -> FrameEncoding {
    FrameEncoding {
        format: FrameFormat::Json(formats),
        deflate: None,
    }
}

/// One chunk, and what it is counted in.
struct Scene {
    _broker: MemoryBroker,
    cluster: Cluster,
    budget: FetchBudget,
    chunk: Arc<Chunk>,
    wake: Arc<WakeSignal>,
}

impl Scene {
    /// A chunk of one batch with these values.
    async fn new(fetch_memory: usize, values: &[Vec<u8>]) -> Self {
        let broker = MemoryBroker::start(BrokerConfig::default()).await.unwrap();
        assert!(broker.create_topic("t", 1));
        let tp = TopicPartition::new("t", 0);
        let mut builder = RecordBatchBuilder::new(1024);
        for value in values {
            builder.append(&NewRecord {
                key: None,
                value: Some(value),
                headers: &[],
                timestamp: 7,
            });
        }
        let mut batch = builder.build(CompressionType::None);
        batch.set_producer_state(-1, -1, -1);
        assert_eq!(broker.append(&tp, &batch.bytes()), Some(0));
        let config = ClientConfig {
            bootstrap_servers: vec![broker.bootstrap()],
            ..ClientConfig::default()
        };
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let cluster = Cluster::new(config, Principal::Proxy, tasks, stop);
        let budget = FetchBudget::new(fetch_memory);
        let config = ConsumerConfig {
            fetch_memory,
            max_partition_fetch_bytes: 16 << 20,
            ..ConsumerConfig::default()
        };
        let fetcher = Fetcher::new(cluster.clone(), config, budget.clone());
        let wake = Arc::new(WakeSignal::default());
        let start = FetchPosition {
            offset: 0,
            leader_epoch: -1,
        };
        let isolation = IsolationLevel::ReadUncommitted;
        let mut cursor = fetcher.cursor(tp, start, isolation, Arc::clone(&wake));
        let chunk = loop {
            match cursor.try_next().unwrap() {
                Some(PartitionRecords { chunk, .. }) => break chunk,
                None => timeout(Duration::from_secs(120), wake.notified())
                    .await
                    .expect("the batch is read"),
            }
        };
        assert_eq!(chunk.next_offset, values.len() as i64, "one chunk");
        drop(cursor);
        Self {
            _broker: broker,
            cluster,
            budget,
            chunk,
            wake: Arc::default(),
        }
    }

    fn segment(&self, format: FrameEncoding, start: SegmentStart) -> Option<HeldSegment> {
        let cache = self.chunk.derived::<SegmentCache>();
        cache.segment(&self.chunk, format, start, &self.wake)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.cluster.stop().cancel();
    }
}

/// All segments from `start` on, one after the other; what `see` is shown.
fn walk(
    scene: &Scene,
    format: FrameEncoding,
    start: i64,
    mut see: impl FnMut(&HeldSegment),
) -> Vec<i64> {
    let mut offsets = Vec::new();
    let mut next = Some(SegmentStart::at(start));
    while let Some(start) = next {
        let segment = scene.segment(format, start).expect("memory");
        see(&segment);
        let from = segment.index_at_or_after(start.offset);
        offsets.extend(segment.frames[from..].iter().map(|frame| frame.offset));
        next = segment.next;
    }
    offsets
}

#[tokio::test]
async fn every_record_is_in_one_segment_and_none_is_larger_than_its_bound_but_for_one_record() {
    let mut values: Vec<Vec<u8>> = (0..3000).map(|i| vec![b'a'; i % 700]).collect();
    // Larger than a segment; and twice as large in JSON as is estimated.
    values[1234] = vec![b'x'; 2 << 20];
    values[1240..1300].fill(vec![b'"'; 20_000]);
    let scene = Scene::new(64 << 20, &values).await;
    let (mut sizes, mut alone) = (Vec::new(), 0);
    let offsets = walk(&scene, STRINGS, 0, |segment| {
        assert!(segment.bytes.len() <= SEGMENT_BYTES || segment.frames.len() == 1);
        alone += usize::from(segment.bytes.len() > SEGMENT_BYTES);
        sizes.push(segment.bytes.len());
        for (index, frame) in segment.frames.iter().enumerate() {
            let json: serde_json::Value = serde_json::from_slice(segment.payload(index)).unwrap();
            assert_eq!(json["offset"], frame.offset);
            let value = json["value"]["value"].as_str().unwrap();
            assert_eq!(value.as_bytes(), values[frame.offset as usize]);
        }
    });
    assert_eq!(offsets, (0..3000).collect::<Vec<_>>());
    assert_eq!(alone, 1);
    let full = sizes.iter().filter(|size| **size > SEGMENT_BYTES / 2);
    assert!(full.count() * 2 > sizes.len(), "they are filled: {sizes:?}");
}

/// The encoding of those who offered `permessage-deflate`.
fn compressed() -> FrameEncoding {
    let mut request = http::HeaderMap::new();
    let offer = http::HeaderValue::from_static("permessage-deflate");
    request.insert("sec-websocket-extensions", offer);
    let negotiated = PermessageDeflate::negotiate(&request);
    FrameEncoding {
        deflate: negotiated.map(|(deflate, _)| deflate),
        ..STRINGS
    }
}

fn inflated(payload: &[u8]) -> Vec<u8> {
    let payload = [payload, b"\x00\x00\xff\xff"].concat();
    let mut message = Vec::with_capacity(4 << 20);
    let mut inflate = Decompress::new(false);
    let inflated = inflate.decompress_vec(&payload, &mut message, FlushDecompress::None);
    inflated.unwrap();
    message
}

#[tokio::test]
async fn records_are_compressed_once_for_all_who_offered_it_and_plain_for_others() {
    let mut values: Vec<Vec<u8>> = (0..3000).map(|i| vec![b'a'; i % 700]).collect();
    values[1234] = vec![b'x'; 2 << 20];
    let scene = Scene::new(64 << 20, &values).await;
    let mut plain = Vec::new();
    walk(&scene, STRINGS, 0, |segment| {
        let payloads = (0..segment.frames.len()).map(|index| segment.payload(index).to_vec());
        plain.extend(payloads);
    });
    let (mut seen, mut index, mut sizes) = (Vec::new(), 0, (0, 0));
    let offsets = walk(&scene, compressed(), 0, |segment| {
        let is_alone = segment.frames.len() == 1;
        assert!(segment.plain_bytes <= 64 << 10 || is_alone);
        sizes.0 += segment.bytes.len();
        sizes.1 += segment.plain_bytes;
        for at in 0..segment.frames.len() {
            let is_compressed = segment.bytes[segment.start_of(at)] & 0x40 != 0;
            assert_eq!(is_compressed, plain[index].len() >= 256, "{index}");
            let payload = segment.payload(at);
            match is_compressed {
                true => assert_eq!(inflated(payload), plain[index]),
                false => assert_eq!(payload, plain[index]),
            }
            index += 1;
        }
        seen.push(segment.bytes.as_ptr());
    });
    assert_eq!(offsets, (0..3000).collect::<Vec<_>>());
    assert!(sizes.0 < sizes.1 / 3, "{sizes:?}");
    let mut again = Vec::new();
    walk(&scene, compressed(), 0, |s| again.push(s.bytes.as_ptr()));
    assert_eq!(again, seen);
}

#[tokio::test]
async fn a_client_that_stopped_within_a_compressed_frame_gets_its_rest() {
    let mut random = 1_u32;
    let mut digit = || {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        b"0123456789abcdef"[(random >> 28) as usize]
    };
    let values = [(0..2 << 20).map(|_| digit()).collect::<Vec<u8>>()];
    let scene = Scene::new(64 << 20, &values).await;
    let first = scene.segment(compressed(), SegmentStart::at(0)).unwrap();
    let before = first.bytes.to_vec();
    assert!(before.len() > 1 << 20 && before[0] & 0x40 != 0);
    drop(first);
    // What others do with the compressors meanwhile changes nothing.
    let cache = scene.chunk.derived::<SegmentCache>();
    walk(&scene, STRINGS, 0, |_| {});
    while lock(&cache.state).drop_oldest_unused() {}
    let again = scene.segment(compressed(), SegmentStart::at(0)).unwrap();
    assert!(again.bytes[..] == before[..], "the same bytes");
}

#[tokio::test]
async fn whatever_formats_ask_what_is_encoded_stays_within_the_fetch_memory() {
    let values = vec![vec![b'7'; 1000]; 4000];
    // The reads get half of it: the chunk, the reserve for its frames, and 3 MB.
    let fetch_memory = 2 * (11 << 20);
    let scene = Scene::new(fetch_memory, &values).await;
    let mut pairs = Vec::new();
    for value in [
        Format::String,
        Format::Json,
        Format::ByteArray,
        Format::Avro,
    ] {
        for key in [None, Some(Format::String), Some(Format::Int)] {
            pairs.push(plain(RecordFormats { key, value }));
        }
    }
    let mut next: Vec<_> = pairs.iter().map(|_| Some(SegmentStart::at(0))).collect();
    let (mut bytes, mut most) = (0, 0);
    while next.iter().any(Option::is_some) {
        // All hold a segment at the same time.
        let mut held = Vec::new();
        for (formats, next) in pairs.iter().zip(&mut next) {
            if let Some(start) = *next {
                let segment = scene.segment(*formats, start).expect("memory");
                bytes += segment.bytes.len();
                *next = segment.next;
                held.push(segment);
                most = most.max(scene.budget.used());
            }
        }
    }
    assert!(bytes > 4 * fetch_memory / 2, "{bytes} were encoded");
    assert!(most <= fetch_memory / 2, "{most} were held");
}

#[tokio::test]
async fn a_segment_is_encoded_once_for_all_and_the_newest_are_kept() {
    let values = vec![vec![b'7'; 1000]; 8000];
    let scene = Scene::new(64 << 20, &values).await;
    let mut first = Vec::new();
    walk(&scene, STRINGS, 0, |segment| {
        first.push(segment.bytes.as_ptr())
    });
    assert!(first.len() > SEGMENTS_MAX + 4);
    let cache = scene.chunk.derived::<SegmentCache>();
    let mut kept = Vec::new();
    for segment in &lock(&cache.state).of(STRINGS).segments {
        kept.push(segment.bytes.as_ptr());
    }
    assert_eq!(kept, first[first.len() - SEGMENTS_MAX..]);
    // One that is kept is what another socket gets.
    let start = lock(&cache.state).of(STRINGS).segments[3].first_offset;
    let again = scene.segment(STRINGS, SegmentStart::at(start + 1)).unwrap();
    assert_eq!(again.bytes.as_ptr(), kept[3]);
}

#[tokio::test]
async fn sockets_that_began_at_different_offsets_share_what_they_get_to() {
    let values = vec![vec![b'7'; 1000]; 2000];
    let scene = Scene::new(64 << 20, &values).await;
    let mut ahead = Vec::new();
    let offsets = walk(&scene, STRINGS, 300, |s| ahead.push(s.bytes.as_ptr()));
    assert_eq!(offsets, (300..2000).collect::<Vec<_>>());
    let mut seen = Vec::new();
    let offsets = walk(&scene, STRINGS, 0, |s| seen.push(s.bytes.as_ptr()));
    assert_eq!(offsets, (0..2000).collect::<Vec<_>>());
    assert!(seen.ends_with(&ahead), "{seen:?} {ahead:?}");
}

#[tokio::test]
async fn a_socket_waits_for_memory_until_another_lets_go_of_its_segment() {
    let values = vec![vec![b'7'; 1000]; 2000];
    let scene = Scene::new(2 * (4 << 20), &values).await;
    let (mut held, mut next) = (Vec::new(), Some(SegmentStart::at(0)));
    let waiting = loop {
        let start = next.expect("the memory is not enough for all");
        let Some(segment) = scene.segment(STRINGS, start) else {
            break start;
        };
        next = segment.next;
        held.push(segment);
    };
    assert!(scene.budget.used() <= 4 << 20);
    assert!(held.len() > 1);
    assert!(!scene.wake.take());
    let cache = scene.chunk.derived::<SegmentCache>();
    assert!(cache.memory_awaited_since().is_some());
    drop(held.remove(0));
    assert!(scene.wake.take(), "it is worth asking again");
    assert_eq!(cache.memory_awaited_since(), None);
    assert!(scene.segment(STRINGS, waiting).is_some());
    // Without any other, one is always had, however large.
    held.clear();
    drop(scene.segment(STRINGS, waiting));
}

#[tokio::test]
async fn what_nobody_writes_from_makes_room() {
    let values = vec![vec![b'7'; 1000]; 2000];
    let scene = Scene::new(2 * (5 << 20), &values).await;
    for value in [Format::String, Format::ByteArray, Format::Json] {
        let format = plain(RecordFormats { key: None, value });
        assert_eq!(walk(&scene, format, 0, |_| {}).len(), 2000);
    }
    assert!(scene.budget.used() <= 5 << 20, "{}", scene.budget.used());
}

#[tokio::test]
async fn a_record_larger_than_all_memory_is_encoded_alone() {
    let scene = Scene::new(2 * (3 << 20), &[vec![b'"'; 1 << 20], b"x".to_vec()]).await;
    assert_eq!(walk(&scene, STRINGS, 0, |_| {}), [0, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_that_ask_at_once_get_one_segment_and_none_is_left_waiting() {
    let values = vec![vec![b'x'; 3 << 20]; 2];
    let scene = Arc::new(Scene::new(64 << 20, &values).await);
    let ask = |_| {
        let (scene, wake) = (Arc::clone(&scene), Arc::new(WakeSignal::default()));
        tokio::spawn(async move {
            let cache = scene.chunk.derived::<SegmentCache>();
            let start = SegmentStart::at(1);
            loop {
                match cache.segment(&scene.chunk, STRINGS, start, &wake) {
                    Some(segment) => break segment.bytes.as_ptr() as usize,
                    None => wake.notified().await,
                }
            }
        })
    };
    let asking: Vec<_> = (0..50).map(ask).collect();
    let mut got = Vec::new();
    for asking in asking {
        let asked = timeout(Duration::from_secs(120), asking).await;
        got.push(asked.expect("woken").unwrap());
    }
    assert!(got.windows(2).all(|pair| pair[0] == pair[1]));
}

#[tokio::test]
async fn many_that_stop_within_a_large_frame_keep_neither_its_bytes_nor_its_chunk() {
    let values = [vec![b'x'; 5 << 20], b"next".to_vec()];
    let scene = Scene::new(64 << 20, &values).await;
    let stop = |sent: usize| {
        let records = PartitionRecords {
            chunk: Arc::clone(&scene.chunk),
            from_offset: 0,
        };
        let mut outgoing = OutgoingChunk::new(records, STRINGS, Instant::now());
        assert!(outgoing.load_segment(&scene.wake));
        assert_eq!(outgoing.sent(sent), 0..0);
        let position = outgoing.release(0).unwrap();
        assert_eq!(position.offset, 1, "what follows is read again later");
        outgoing
    };
    let stopped: Vec<_> = (1..30).map(|n| stop(n * 100_000)).collect();
    for outgoing in &stopped {
        assert!(outgoing.awaits_reread() && outgoing.is_inside_frame() && !outgoing.is_sent());
        assert!(outgoing.bytes_before(usize::MAX).is_empty());
    }
    assert_eq!(Arc::strong_count(&scene.chunk), 1);
    // A short rest is kept.
    let nearly_sent = stop(5 << 20);
    assert!(!nearly_sent.awaits_reread());
    assert!((1..1000).contains(&nearly_sent.rest_of_frame().len()));
}
