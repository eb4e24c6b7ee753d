//! Record batches against Kafka's own client, in both directions.
//!
//! ```text
//! java/RecordBatches.java write ──▶ golden/records/*.bin, and *.txt: what Java reads from it
//!                                        │ our reader sees the same
//! our writer ──▶ *.bin ──▶ java/RecordBatches.java describe sees what we meant
//! ```
//!
//! A description has a line for each magic 2 batch and for each record; values are
//! hexadecimal, or length and checksum where they are long.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use bytes::{Bytes, BytesMut};
use kafka_client::config::CompressionType;
use kafka_client::record::{
    AbortedTransaction, BatchHeader, DecodeOptions, DecodedRecords, NewHeader, NewRecord,
    RecordBatch, RecordBatchBuilder, RecordError, decode,
};

use crate::support::kafka::root;

const CODECS: [(CompressionType, &str); 5] = [
    (CompressionType::None, "none"),
    (CompressionType::Gzip, "gzip"),
    (CompressionType::Snappy, "snappy"),
    (CompressionType::Lz4, "lz4"),
    (CompressionType::Zstd, "zstd"),
];

#[test]
fn what_java_wrote_reads_as_java_reads_it() {
    let mut seen = 0;
    for file in std::fs::read_dir(golden()).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "bin") {
            continue;
        }
        let bytes = Bytes::from(std::fs::read(&path).unwrap());
        let expected = std::fs::read_to_string(path.with_extension("txt")).unwrap();
        let decoded = decode(bytes.clone(), &all()).unwrap();
        let name = path.file_name().unwrap().display();
        assert_eq!(records(&decoded), lines(&expected, "record "), "{name}");
        assert_eq!(batches(&bytes), lines(&expected, "batch "), "{name}");
        seen += 1;
    }
    assert!(seen >= 32, "only {seen} fixtures");
}

#[test]
fn uncompressed_batches_are_java_s_byte_for_byte() {
    let mut batch = samples(CompressionType::None);
    batch.set_producer_state(-1, -1, -1);
    assert_eq!(batch.bytes(), fixture("unstamped"));
    batch.set_producer_state(1 << 33, 7, 1234);
    assert_eq!(stored(&batch), fixture("none"));
}

#[test]
fn java_reads_what_we_write() {
    let folder = tempfile::tempdir().unwrap();
    let mut expected = String::new();
    let mut put = |name: &str, bytes: &Bytes, description: &str| {
        std::fs::write(folder.path().join(name), bytes).unwrap();
        write!(expected, "file {name}\n{description}").unwrap();
    };
    let wanted = std::fs::read_to_string(golden().join("none.txt")).unwrap();
    for (codec, name) in CODECS {
        let mut batch = samples(codec);
        batch.set_producer_state(1 << 33, 7, 1234);
        let wanted = wanted.replace("codec=none", &format!("codec={name}"));
        put(&format!("0-{codec:?}.bin"), &stored(&batch), &wanted);
    }
    for (codec, _) in CODECS {
        // From one small record to many blocks of each codec.
        for (index, count) in [1, 7, 300, 4000].into_iter().enumerate() {
            let mut batch = random(codec, count);
            batch.set_producer_state(5, 0, 0);
            let bytes = batch.bytes();
            let mut wanted = batches(&bytes);
            wanted.extend(records(&decode(bytes.clone(), &all()).unwrap()));
            let name = format!("1-{codec:?}-{index}.bin");
            put(&name, &bytes, &(wanted.join("\n") + "\n"));
        }
    }
    let mut command = java();
    command.arg("describe").arg(folder.path());
    let out = command.output().expect("java must be installed");
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let seen = String::from_utf8(out.stdout).unwrap();
    let mut files: Vec<&str> = expected.split("file ").collect();
    files.sort_unstable();
    for (seen, wanted) in seen.split("file ").zip(&files) {
        assert_eq!(seen.lines().next(), wanted.lines().next());
        assert!(seen == *wanted, "{}", seen.lines().next().unwrap());
    }
    assert_eq!(seen.split("file ").count(), files.len());
}

#[test]
fn java_s_transactions_read_committed() {
    let aborted = |producer_id, first_offset| AbortedTransaction {
        producer_id,
        first_offset,
    };
    let want = DecodeOptions {
        aborted_transactions: Some(vec![aborted(1, 10), aborted(1, 0)]),
        ..all()
    };
    let decoded = decode(fixture("transactions"), &want).unwrap();
    let offsets: Vec<i64> = decoded.records().map(|record| record.offset).collect();
    assert_eq!(offsets, [2, 3, 5, 6, 7, 8]);
    assert_eq!(decoded.next_offset, Some(14));
}

#[test]
fn what_the_log_cleaner_left_still_moves_the_position() {
    // An empty batch ends it, then a marker.
    let compacted = fixture("compacted");
    for (from, offsets) in [(0, &[1, 2, 4, 11, 15][..]), (12, &[15]), (18, &[])] {
        let decoded = decode(
            compacted.clone(),
            &DecodeOptions {
                fetch_offset: from,
                ..all()
            },
        )
        .unwrap();
        let seen: Vec<i64> = decoded.records().map(|record| record.offset).collect();
        assert_eq!(seen, offsets);
        assert_eq!(decoded.next_offset, Some(21));
    }
    // A wrapper whose tail is gone keeps the offset of its last message.
    for name in ["magic0-gzip-compacted", "magic1-lz4-compacted"] {
        let decoded = decode(fixture(name), &all()).unwrap();
        assert_eq!(decoded.next_offset, Some(13), "{name}");
    }
}

#[test]
fn a_mixed_log_can_be_read_from_every_offset() {
    let mixed = fixture("mixed");
    let whole: Vec<i64> = decode(mixed.clone(), &all())
        .unwrap()
        .records()
        .map(|record| record.offset)
        .collect();
    for from in 0..60 {
        let decoded = decode(
            mixed.clone(),
            &DecodeOptions {
                fetch_offset: from,
                ..all()
            },
        )
        .unwrap();
        let seen: Vec<i64> = decoded.records().map(|record| record.offset).collect();
        let wanted: Vec<i64> = whole.iter().copied().filter(|o| *o >= from).collect();
        assert_eq!(seen, wanted, "from {from}");
        assert_eq!(decoded.count(), wanted.len());
    }
}

#[test]
fn every_cut_and_every_flipped_bit_of_java_s_batches_is_survived() {
    for name in [
        "none",
        "gzip",
        "snappy",
        "lz4",
        "zstd",
        "magic0-none",
        "magic1-none",
        "magic0-gzip",
        "magic0-lz4",
        "magic1-snappy",
        "compacted",
        "transactions",
    ] {
        let clean = fixture(name);
        for cut in 0..clean.len() {
            sane(decode(clean.slice(..cut), &all()), clean.len());
        }
        for at in 0..clean.len() {
            for bit in 0..8 {
                let mut bytes = BytesMut::from(&clean[..]);
                bytes[at] ^= 1 << bit;
                sane(decode(bytes.freeze(), &all()), clean.len());
            }
        }
    }
}

fn sane(decoded: Result<DecodedRecords, RecordError>, size: usize) {
    let Ok(decoded) = decoded else { return };
    let mut previous = -1;
    for record in decoded.records() {
        assert!(record.offset > previous && Some(record.offset) < decoded.next_offset);
        previous = record.offset;
    }
    assert!(decoded.bytes <= size * 8);
}

/// The records that `RecordBatches.java` writes.
fn samples(codec: CompressionType) -> RecordBatch {
    const T: i64 = 1_700_000_000_000;
    const DAY: i64 = 24 * 60 * 60 * 1000;
    let header = |key, value: Option<&'static str>| NewHeader {
        key,
        value: value.map(str::as_bytes),
    };
    let headers = [
        header("a", Some("1")),
        header("a", Some("2")),
        header("null", None),
        header("", Some("")),
        header("\u{fc}\u{4e16}\u{1f600}", Some("non-ASCII")),
    ];
    let long = "0123456789".repeat(30);
    let mut builder = RecordBatchBuilder::new(1 << 10);
    let mut append = |timestamp, key: Option<&str>, value: Option<&str>, headers: &[NewHeader]| {
        builder.append(&NewRecord {
            key: key.map(str::as_bytes),
            value: value.map(str::as_bytes),
            headers,
            timestamp,
        });
    };
    append(T, Some("key"), Some("value"), &[]);
    append(T, None, Some("no key"), &[]);
    append(T + 1, Some("tombstone"), None, &[]);
    append(T + 2, None, None, &[]);
    append(T + 3, Some(""), Some(""), &[]);
    append(T + 4, Some("headers"), Some("v"), &headers);
    let late = "more than 2^31 ms after the first";
    append(T + 25 * DAY, Some("late"), Some(late), &[]);
    append(T - 30 * DAY, Some("early"), Some("before the first"), &[]);
    append(T, Some("long"), Some(&long), &[]);
    builder.build(codec)
}

/// Records of every length, half of which compress.
fn random(codec: CompressionType, count: u32) -> RecordBatch {
    let mut seed = count;
    let mut next = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        seed >> 8
    };
    let mut builder = RecordBatchBuilder::new(1 << 10);
    for _ in 0..count {
        let length = next() as usize % 400;
        let value: Vec<u8> = match next() % 2 {
            0 => (0..length).map(|_| next() as u8).collect(),
            _ => b"{\"name\":\"again\"}".repeat(length / 16),
        };
        builder.append(&NewRecord {
            key: Some(&next().to_be_bytes()),
            value: Some(&value),
            headers: &[],
            timestamp: i64::from(next()),
        });
    }
    builder.build(codec)
}

/// The batch as a broker stores it, at the offset and epoch of the fixtures.
fn stored(batch: &RecordBatch) -> Bytes {
    let mut bytes = BytesMut::from(&batch.bytes()[..]);
    let header = BatchHeader {
        base_offset: 40,
        leader_epoch: 5,
        ..*batch.header()
    };
    header.write(&mut bytes);
    bytes.freeze()
}

fn records(decoded: &DecodedRecords) -> Vec<String> {
    let describe = |record: kafka_client::record::Record<'_>| {
        let mut line = format!(
            "record {} {} {} {}",
            record.offset,
            record.timestamp,
            text(record.key),
            text(record.value)
        );
        for (key, value) in record.headers {
            write!(line, " {}={}", text(Some(key)), text(value)).unwrap();
        }
        line
    };
    decoded.records().map(describe).collect()
}

fn batches(bytes: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut rest = bytes;
    while rest.len() > 16 {
        let length = i32::from_be_bytes(*rest[8..].first_chunk().unwrap());
        let (batch, after) = rest.split_at(12 + length as usize);
        if batch[16] == 2 {
            let header = BatchHeader::parse(batch).unwrap();
            header.verify(batch).unwrap();
            lines.push(describe(&header));
        }
        rest = after;
    }
    lines
}

fn describe(header: &BatchHeader) -> String {
    let codec = header.attributes.compression().unwrap();
    let (_, codec) = CODECS.iter().find(|(known, _)| *known == codec).unwrap();
    let flag = |set: bool, name: &'static str| if set { name } else { "" };
    format!(
        "batch {}..{} epoch={} count={} codec={codec} type={} max={} producer={}/{}/{}{}{}",
        header.base_offset,
        header.last_offset(),
        header.leader_epoch,
        header.record_count,
        if header.attributes.is_log_append_time() {
            "append"
        } else {
            "create"
        },
        header.max_timestamp,
        header.producer_id,
        header.producer_epoch,
        header.base_sequence,
        flag(header.attributes.is_transactional(), " transactional"),
        flag(header.attributes.is_control_batch(), " control"),
    )
}

fn text(bytes: Option<&[u8]>) -> String {
    match bytes {
        None => "null".to_owned(),
        Some(long) if long.len() > 64 => format!("{}:{:08x}", long.len(), crc32c::crc32c(long)),
        Some(short) => short.iter().fold("x".to_owned(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        }),
    }
}

fn lines(description: &str, kind: &str) -> Vec<String> {
    let wanted = description.lines().filter(|line| line.starts_with(kind));
    wanted.map(str::to_owned).collect()
}

fn all() -> DecodeOptions {
    DecodeOptions {
        max_decompressed_bytes: 16 << 20,
        ..DecodeOptions::from_offset(0)
    }
}

fn fixture(name: &str) -> Bytes {
    let path = golden().join(name).with_extension("bin");
    std::fs::read(path).unwrap().into()
}

fn golden() -> PathBuf {
    root().join("proto-tests/golden/records")
}

/// `RecordBatches.java`, with the newest client that could still write every magic.
fn java() -> Command {
    let mut jars = Command::new(root().join("scripts/kafka"));
    let jars = jars.args(["jars", "3.9"]).output().unwrap();
    assert!(jars.status.success(), "scripts/kafka jars 3.9 failed");
    let jars = String::from_utf8(jars.stdout).unwrap();
    let mut java = Command::new("java");
    java.arg("-cp")
        .arg(format!("{}/*", jars.trim()))
        .arg(root().join("proto-tests/java/RecordBatches.java"));
    java
}
