//! Batches of all codecs and magics: as they are written, damaged, and in parts.

use fuzzing::{FuzzInput, fuzz, within};
use kafka_protocol::records::{Compression, RecordBatchDecoder};

use super::*;

/// Bytes that a batch may take decompressed, of the damaged ones.
const ROOM: usize = 1 << 16;
/// What a codec takes beside that.
const CODEC: usize = 1 << 20;

/// What Java's clients wrote in magic 0 and 1, which we only read.
const LEGACY: [&[u8]; 8] = [
    include_bytes!("../../../../proto-tests/golden/records/magic0-none.bin"),
    include_bytes!("../../../../proto-tests/golden/records/magic0-gzip.bin"),
    include_bytes!("../../../../proto-tests/golden/records/magic0-snappy.bin"),
    include_bytes!("../../../../proto-tests/golden/records/magic0-lz4.bin"),
    include_bytes!("../../../../proto-tests/golden/records/magic1-none.bin"),
    include_bytes!("../../../../proto-tests/golden/records/magic1-gzip-append-time.bin"),
    include_bytes!("../../../../proto-tests/golden/records/magic1-snappy-compacted.bin"),
    include_bytes!("../../../../proto-tests/golden/records/magic1-lz4.bin"),
];

#[test]
fn fuzz_record_batches() {
    fuzz("record_batches", |input| {
        let base_offset = input.up_to_bits(40) as i64;
        let records = any_records(input, base_offset);
        let codec = *input.pick(&CODECS);
        let batch = stored(&write(&records, codec), base_offset);
        // It adds timestamps without a thought for their range.
        if records
            .iter()
            .all(|record| record.timestamp.unsigned_abs() < 1 << 62)
        {
            let theirs = by_kafka_protocol(batch.clone());
            assert!(theirs == records, "{codec:?}: {records:?}");
        }
        let decoded = decode(batch.clone(), &from(0)).unwrap();
        assert!(owned(&decoded) == records, "{codec:?}: {records:?}");
        let room = input.up_to_bits(12);
        assert!(
            in_parts(&batch, room) == records,
            "{codec:?} in {room} bytes: {records:?}"
        );
    });
}

#[test]
fn fuzz_damaged_batches() {
    fuzz("damaged_batches", |input| {
        let mut bytes = if input.one_in(4) {
            input.pick::<&[u8]>(&LEGACY).to_vec()
        } else {
            let batch = write(&any_records(input, 0), *input.pick(&CODECS));
            concat(&[stored(&batch, 0), stored(&batch, 30)]).to_vec()
        };
        input.damage(&mut bytes);
        // Most with a checksum that fits, some with a length, or nothing would get further.
        if bytes.len() > header::RECORD_BATCH_OVERHEAD && bytes[header::MAGIC_OFFSET] == 2 {
            if input.one_in(3) {
                let length = (bytes.len() - header::LOG_OVERHEAD) as i32;
                bytes[8..12].copy_from_slice(&length.to_be_bytes());
            }
            let size = i32::from_be_bytes(bytes[8..12].try_into().unwrap());
            let size = usize::try_from(size).unwrap_or(0) + header::LOG_OVERHEAD;
            if !input.one_in(4) && (header::RECORD_BATCH_OVERHEAD..=bytes.len()).contains(&size) {
                header::write_crc(&mut bytes[..size]);
            }
        }
        let options = any_options(input);
        let bytes = Bytes::from(bytes);
        let bytes_max = CODEC + 4 * ROOM + 8 * bytes.len();
        let decoded = within(bytes_max, "records", || decode(bytes.clone(), &options));
        if let Ok(decoded) = decoded {
            check_sane(&decoded);
        }
        let _ = BatchHeader::parse(&bytes).map(|header| header.verify(&bytes));
    });
}

fn any_options(input: &mut FuzzInput) -> DecodeOptions {
    let aborted = |input: &mut FuzzInput| AbortedTransaction {
        producer_id: input.integer(),
        first_offset: input.integer(),
    };
    let some = |input: &mut FuzzInput| (0..input.below(4)).map(|_| aborted(input)).collect();
    DecodeOptions {
        fetch_offset: *input.pick(&[0, 1, 29, 30, 31, 60, i64::MAX]),
        aborted_transactions: input.one_in(2).then(|| some(input)),
        max_decompressed_bytes: input.below(ROOM),
        record_bytes_max: if input.one_in(2) {
            input.below(ROOM)
        } else {
            ROOM
        },
        read_parts: input.one_in(2),
        report_unreadable: input.one_in(2),
        backing_bytes: input.up_to_bits(20),
        cut: input.one_in(4).then(|| CutRecords {
            batch_bytes_max: input.up_to_bits(12),
            readable_end: input.integer(),
        }),
    }
}

fn any_records(input: &mut FuzzInput, base_offset: i64) -> Vec<Owned> {
    let count = 1 + input.below(12) as i64;
    let field = |input: &mut FuzzInput| {
        let len = input.up_to_bits(11);
        (!input.one_in(5)).then(|| input.bytes(len))
    };
    let headers = |input: &mut FuzzInput| {
        // kafka-protocol keeps them in a map: no key twice.
        let keys = (0..input.below(4)).map(|n| format!("{n}{}", input.text(5)));
        let keys: Vec<_> = keys.collect();
        keys.into_iter().map(|key| (key, field(input))).collect()
    };
    (base_offset..base_offset + count)
        .map(|offset| Owned {
            offset,
            timestamp: input.integer(),
            pair: (field(input), field(input)),
            headers: headers(input),
        })
        .collect()
}

/// What a decoder that is not ours reads.
fn by_kafka_protocol(mut batch: Bytes) -> Vec<Owned> {
    let decompress = |bytes: &mut Bytes, compression: Compression| {
        let codec = match compression {
            Compression::None => CompressionType::None,
            Compression::Gzip => CompressionType::Gzip,
            Compression::Snappy => CompressionType::Snappy,
            Compression::Lz4 => CompressionType::Lz4,
            Compression::Zstd => CompressionType::Zstd,
        };
        let decompressed = compression::decompress(codec, bytes, usize::MAX);
        Ok(Bytes::from(decompressed.unwrap()))
    };
    let decoded = RecordBatchDecoder::decode_with_custom_compression(&mut batch, Some(decompress));
    let records = decoded.unwrap().records.into_iter();
    let owned = |bytes: Option<Bytes>| bytes.map(|bytes| bytes.to_vec());
    records
        .map(|record| Owned {
            offset: record.offset,
            timestamp: record.timestamp,
            pair: (owned(record.key), owned(record.value)),
            headers: record
                .headers
                .into_iter()
                .map(|(key, value)| (key.to_string(), owned(value)))
                .collect(),
        })
        .collect()
}

/// What is read of a batch for which there is only so much room.
fn in_parts(batch: &Bytes, room: usize) -> Vec<Owned> {
    let mut records = Vec::new();
    let mut partial = None;
    let mut fetch_offset = 0;
    let end = BatchHeader::parse(batch).unwrap().last_offset() + 1;
    while fetch_offset < end {
        let options = DecodeOptions {
            max_decompressed_bytes: room,
            read_parts: true,
            ..from(fetch_offset)
        };
        let decoded = decode_parts(batch.clone(), &options, &mut partial).unwrap();
        records.extend(owned(&decoded));
        let next = decoded.next_offset.unwrap();
        assert!(next > fetch_offset, "it does not get on");
        fetch_offset = next;
    }
    records
}
