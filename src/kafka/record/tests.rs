//! Writer against reader, and the reader against anything.

mod fuzz;

use bytes::{Bytes, BytesMut};

use super::*;
use crate::config::CompressionType;

const CODECS: [CompressionType; 5] = [
    CompressionType::None,
    CompressionType::Gzip,
    CompressionType::Snappy,
    CompressionType::Lz4,
    CompressionType::Zstd,
];

type Pair = (Option<Vec<u8>>, Option<Vec<u8>>);

#[derive(Clone, Debug, PartialEq)]
struct Owned {
    offset: i64,
    timestamp: i64,
    pair: Pair,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

fn own(record: Record<'_>) -> Owned {
    Owned {
        offset: record.offset,
        timestamp: record.timestamp,
        pair: (
            record.key.map(<[u8]>::to_vec),
            record.value.map(<[u8]>::to_vec),
        ),
        headers: record
            .headers
            .iter()
            .map(|(key, value)| {
                (
                    String::from_utf8_lossy(key).into_owned(),
                    value.map(<[u8]>::to_vec),
                )
            })
            .collect(),
    }
}

fn owned(decoded: &DecodedRecords) -> Vec<Owned> {
    decoded.records().map(own).collect()
}

fn write(records: &[Owned], compression: CompressionType) -> RecordBatch {
    let mut builder = RecordBatchBuilder::new(64);
    for (index, record) in records.iter().enumerate() {
        let headers: Vec<NewHeader<'_>> = record
            .headers
            .iter()
            .map(|(key, value)| NewHeader {
                key,
                value: value.as_deref(),
            })
            .collect();
        let new = NewRecord {
            key: record.pair.0.as_deref(),
            value: record.pair.1.as_deref(),
            headers: &headers,
            timestamp: record.timestamp,
        };
        let before = builder.bytes();
        let size = builder.size_of(&new);
        assert_eq!(builder.append(&new), index as u32);
        assert_eq!(
            builder.bytes(),
            before + size,
            "the size was computed before"
        );
        if index == 0 {
            assert_eq!(batch_size_of(&new), builder.bytes());
        }
    }
    let mut batch = builder.build(compression);
    batch.set_producer_state(9, 1, 100);
    batch
}

/// The batch as a broker stores it, from `base_offset`.
fn stored(batch: &RecordBatch, base_offset: i64) -> Bytes {
    let mut bytes = BytesMut::from(&batch.bytes()[..]);
    let mut header = *batch.header();
    header.base_offset = base_offset;
    header.write(&mut bytes);
    bytes.freeze()
}

/// The batch with a header that `change` has changed, and a checksum that fits.
fn altered(batch: &RecordBatch, change: impl FnOnce(&mut BatchHeader)) -> Bytes {
    let mut bytes = BytesMut::from(&batch.bytes()[..]);
    let mut header = *batch.header();
    change(&mut header);
    header.write(&mut bytes);
    header::write_crc(&mut bytes);
    bytes.freeze()
}

fn from(from: i64) -> DecodeOptions {
    DecodeOptions {
        max_decompressed_bytes: 1 << 20,
        read_parts: false,
        ..DecodeOptions::from_offset(from)
    }
}

fn numbered(count: i64) -> Vec<Owned> {
    (0..count)
        .map(|n| Owned {
            offset: n,
            timestamp: 1_700_000_000_000 + n,
            pair: (
                Some(format!("k{n}").into()),
                Some(format!("value {n}").into()),
            ),
            headers: vec![("h".to_owned(), None)],
        })
        .collect()
}

fn concat(parts: &[Bytes]) -> Bytes {
    parts.concat().into()
}

#[test]
fn rejected_records_are_left_out_and_the_others_keep_their_order() {
    let records = numbered(5);
    let batch = write(&records, CompressionType::Zstd);
    let mut kept = batch.retain(|index| index != 0 && index != 3).unwrap();
    kept.set_producer_state(9, 1, 100);
    let decoded = decode(kept.bytes(), &from(0)).unwrap();
    let values: Vec<_> = decoded.records().map(|r| own(r).pair).collect();
    assert_eq!(
        values,
        [1, 2, 4].map(|n: usize| records[n].pair.clone()).to_vec()
    );
    assert!(batch.retain(|_| false).is_none());
}

#[test]
fn setting_the_producer_state_changes_no_batch_that_is_being_sent() {
    let mut batch = write(&numbered(3), CompressionType::None);
    let sent = batch.bytes();
    let copy = sent.to_vec();
    batch.set_producer_state(10, 2, 0);
    assert_eq!(sent, copy);
    let header = BatchHeader::parse(&batch.bytes()).unwrap();
    assert_eq!(
        (
            header.producer_id,
            header.producer_epoch,
            header.base_sequence
        ),
        (10, 2, 0)
    );
    header.verify(&batch.bytes()).unwrap();
}

#[test]
fn reading_starts_at_the_fetch_offset() {
    let batch = write(&numbered(10), CompressionType::None);
    let bytes = concat(&[stored(&batch, 0), stored(&batch, 10), stored(&batch, 20)]);
    let decoded = decode(bytes, &from(13)).unwrap();
    let offsets: Vec<i64> = decoded.records().map(|r| r.offset).collect();
    assert_eq!(offsets, (13..30).collect::<Vec<_>>());
    assert_eq!(decoded.count(), 17);
    assert_eq!(decoded.next_offset, Some(30));
    let later: Vec<i64> = decoded.records_from(25).map(|r| r.offset).collect();
    assert_eq!(later, (25..30).collect::<Vec<_>>());
    assert_eq!(decoded.records_from(0).count(), 17);
}

#[test]
fn records_go_on_from_any_mark_as_if_they_had_not_stopped() {
    let batches: Vec<Bytes> = [0, 4, 8]
        .map(|base| stored(&write(&numbered(4), CompressionType::None), base))
        .into();
    let decoded = decode(concat(&batches), &from(2)).unwrap();
    let all: Vec<i64> = decoded.records().map(|record| record.offset).collect();
    assert_eq!(all, (2..12).collect::<Vec<_>>());
    let mut records = decoded.records();
    for read in 0..=all.len() {
        let rest = decoded
            .records_at(records.mark())
            .map(|record| record.offset);
        assert_eq!(rest.collect::<Vec<_>>(), all[read..]);
        records.next();
    }
}

#[test]
fn an_incomplete_last_batch_is_left_for_the_next_fetch() {
    let batch = write(&numbered(4), CompressionType::Lz4);
    let bytes = concat(&[stored(&batch, 0), stored(&batch, 4)]);
    let one = stored(&batch, 0).len();
    for cut in 0..bytes.len() {
        let decoded = decode(bytes.slice(..cut), &from(0)).unwrap();
        let (next, count) = match cut {
            cut if cut < one => (None, 0),
            _ => (Some(4), 4),
        };
        assert_eq!((decoded.next_offset, decoded.count()), (next, count));
    }
}

#[test]
fn a_broken_batch_is_an_error_only_when_it_comes_first() {
    let batch = write(&numbered(4), CompressionType::None);
    let mut broken = stored(&batch, 4).to_vec();
    *broken.last_mut().unwrap() ^= 1;
    let bytes = concat(&[stored(&batch, 0), broken.into()]);
    let decoded = decode(bytes.clone(), &from(0)).unwrap();
    assert_eq!((decoded.next_offset, decoded.count()), (Some(4), 4));
    assert!(matches!(
        decode(bytes, &from(4)),
        Err(RecordError::Checksum { base_offset: 4, .. })
    ));
}

#[test]
fn a_batch_that_was_compacted_away_still_moves_the_position() {
    let batch = write(&numbered(1), CompressionType::None);
    let mut empty = altered(&batch, |h| {
        h.base_offset = 5;
        h.last_offset_delta = 6;
        h.record_count = 0;
        h.length = 49;
    })
    .to_vec();
    empty.truncate(header::RECORD_BATCH_OVERHEAD);
    header::write_crc(&mut empty);
    let decoded = decode(empty.into(), &from(5)).unwrap();
    assert_eq!((decoded.next_offset, decoded.count()), (Some(12), 0));
    assert!(decoded.is_empty());
}

#[test]
fn a_compacted_tail_counts_from_the_offset_that_was_written() {
    let batch = write(&numbered(3), CompressionType::None);
    let bytes = altered(&batch, |h| h.last_offset_delta = 40);
    let decoded = decode(bytes, &from(0)).unwrap();
    assert_eq!((decoded.next_offset, decoded.count()), (Some(41), 3));
}

#[test]
fn log_append_time_is_the_batch_s_for_every_record() {
    let batch = write(&numbered(3), CompressionType::Gzip);
    let bytes = altered(&batch, |h| {
        h.attributes.0 |= 0x08;
        h.max_timestamp = 77;
    });
    let decoded = decode(bytes, &from(0)).unwrap();
    assert!(decoded.records().all(|r| r.timestamp == 77));
}

/// A control batch of `producer` at `offset`: 0 aborts, 1 commits.
fn marker(producer: i64, offset: i64, kind: u8) -> Bytes {
    let record = Owned {
        offset: 0,
        timestamp: 0,
        pair: (Some(vec![0, 0, 0, kind]), Some(vec![0; 6])),
        headers: Vec::new(),
    };
    altered(&write(&[record], CompressionType::None), |h| {
        h.base_offset = offset;
        h.producer_id = producer;
        h.attributes = h.attributes.with_control(true).with_transactional(true);
    })
}

fn transactional(producer: i64, offset: i64) -> Bytes {
    altered(&write(&numbered(2), CompressionType::None), |h| {
        h.base_offset = offset;
        h.producer_id = producer;
        h.attributes = h.attributes.with_transactional(true);
    })
}

#[test]
fn read_committed_leaves_out_what_was_aborted_and_nothing_else() {
    let bytes = concat(&[
        transactional(1, 0),                                    // aborted
        transactional(2, 2),                                    // committed
        marker(1, 4, 0),                                        //
        transactional(1, 5),                                    // committed by the marker at 9
        stored(&write(&numbered(2), CompressionType::None), 7), // not transactional
        marker(1, 9, 1),                                        //
        transactional(1, 10),                                   // aborted
        marker(2, 12, 1),                                       //
        marker(1, 13, 0),                                       //
    ]);
    let aborted = |producer_id, first_offset| AbortedTransaction {
        producer_id,
        first_offset,
    };
    let want = DecodeOptions {
        aborted_transactions: Some(vec![aborted(1, 10), aborted(1, 0)]),
        ..from(0)
    };
    let decoded = decode(bytes.clone(), &want).unwrap();
    let offsets: Vec<i64> = decoded.records().map(|r| r.offset).collect();
    assert_eq!(offsets, [2, 3, 5, 6, 7, 8]);
    assert_eq!(decoded.next_offset, Some(14));
    // Uncommitted readers see all but the markers.
    let decoded = decode(bytes, &from(0)).unwrap();
    let offsets: Vec<i64> = decoded.records().map(|r| r.offset).collect();
    assert_eq!(offsets, [0, 1, 2, 3, 5, 6, 7, 8, 10, 11]);
}

#[test]
fn nothing_but_markers_still_moves_the_position() {
    let decoded = decode(marker(1, 5, 1), &from(5)).unwrap();
    assert_eq!((decoded.next_offset, decoded.count()), (Some(6), 0));
}

#[test]
fn decompression_stays_within_the_limit_and_still_gets_on() {
    let records: Vec<Owned> = numbered(20)
        .into_iter()
        .map(|mut record| {
            record.pair.1 = Some(vec![0; 1000]);
            record
        })
        .collect();
    for codec in &CODECS[1..] {
        let batch = write(&records, *codec);
        let bytes = concat(&[stored(&batch, 0), stored(&batch, 20), stored(&batch, 40)]);
        let limited = |from, limit| DecodeOptions {
            max_decompressed_bytes: limit,
            ..self::from(from)
        };
        let decoded = decode(bytes.clone(), &limited(0, 50_000)).unwrap();
        assert_eq!(decoded.next_offset, Some(40));
        assert!(decoded.bytes <= 50_000);
        let decoded = decode(bytes.clone(), &limited(40, 50_000)).unwrap();
        assert_eq!(decoded.next_offset, Some(60));
        assert_eq!(
            decode(bytes, &limited(0, 10_000)).unwrap_err(),
            RecordError::TooLarge {
                base_offset: 0,
                limit: 10_000
            }
        );
    }
}

/// 20 records of 1,000 bytes in a batch at offset 5.
fn large_batch(codec: CompressionType) -> Bytes {
    let records: Vec<Owned> = numbered(20)
        .into_iter()
        .map(|mut record| {
            record.pair.1 = Some(vec![record.offset as u8; 1000]);
            record
        })
        .collect();
    stored(&write(&records, codec), 5)
}

#[test]
fn a_batch_larger_than_the_room_is_read_in_parts_that_end_between_records() {
    for codec in &CODECS[1..] {
        let bytes = large_batch(*codec);
        let whole = owned(&decode(bytes.clone(), &from(5)).unwrap());
        let (mut seen, mut next, mut parts) = (Vec::new(), 5, 0);
        while next < 25 {
            let options = DecodeOptions {
                max_decompressed_bytes: 4_500,
                read_parts: true,
                ..self::from(next)
            };
            let part = decode(bytes.clone(), &options).unwrap();
            assert!(part.bytes <= 4_500, "{codec:?}");
            assert_eq!(part.count(), part.records().count());
            seen.extend(owned(&part));
            next = part.next_offset.unwrap();
            parts += 1;
        }
        assert_eq!(seen, whole, "{codec:?}");
        assert_eq!((next, parts), (25, 5), "{codec:?}");
    }
}

#[test]
fn a_batch_that_is_read_in_parts_one_after_another_is_decompressed_once() {
    for codec in &CODECS[1..] {
        let bytes = large_batch(*codec);
        let whole = owned(&decode(bytes.clone(), &from(5)).unwrap());
        let (mut seen, mut next, mut partial) = (Vec::new(), 5, None);
        while next < 25 {
            let options = DecodeOptions {
                max_decompressed_bytes: 4_500,
                read_parts: true,
                ..self::from(next)
            };
            let part = decode_parts(bytes.clone(), &options, &mut partial).unwrap();
            seen.extend(owned(&part));
            next = part.next_offset.unwrap();
            if let Some(partial) = &partial {
                assert!(partial.continues_at(next) && !partial.continues_at(next - 1));
                let read = partial.bytes_read();
                assert_eq!(read, part.bytes as u64, "{codec:?}: nothing is read again");
            }
        }
        assert_eq!(seen, whole, "{codec:?}");
        assert!(partial.is_none(), "{codec:?}: nothing is left");

        // From another offset, or of another batch, it is read from its start.
        let options = |from| DecodeOptions {
            max_decompressed_bytes: 4_500,
            read_parts: true,
            ..self::from(from)
        };
        decode_parts(bytes.clone(), &options(5), &mut partial).unwrap();
        let again = decode_parts(bytes.clone(), &options(6), &mut partial).unwrap();
        assert_eq!(owned(&again)[0], whole[1]);
        let other = stored(&write(&numbered(20), *codec), 5);
        let other = decode_parts(other, &options(12), &mut partial).unwrap();
        assert_eq!(owned(&other)[0].pair, numbered(20)[7].pair);
    }
}

#[test]
fn a_record_over_the_limit_is_reported_in_its_place_and_its_neighbours_are_read() {
    let mut records = numbered(3);
    records[1].pair.1 = Some(vec![7; 50_000]);
    for codec in CODECS {
        let bytes = stored(&write(&records, codec), 0);
        let options = DecodeOptions {
            max_decompressed_bytes: 10_000,
            record_bytes_max: 20_000,
            read_parts: true,
            ..self::from(0)
        };
        let decoded = decode(bytes, &options).unwrap();
        let offsets: Vec<i64> = decoded.records().map(|r| r.offset).collect();
        assert_eq!(offsets, [0, 2], "{codec:?}");
        assert_eq!(decoded.next_offset, Some(3));
        let [range] = &decoded.unreadable[..] else {
            panic!("{codec:?}: {:?}", decoded.unreadable);
        };
        assert_eq!((range.from_offset, range.last_offset), (1, 1));
        assert!(
            range.reason.contains("over the limit of 20000"),
            "{}",
            range.reason
        );
    }
}

#[test]
fn a_batch_that_cannot_be_read_is_reported_with_its_offsets_and_reading_goes_on() {
    let batch = write(&numbered(3), CompressionType::Gzip);
    let mut damaged = stored(&batch, 3).to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let mut wrong_length = damaged.clone();
    wrong_length[23..27].copy_from_slice(&1_000_000_i32.to_be_bytes()); // last offset delta
    for (broken, followed) in [(&damaged, true), (&damaged, false), (&wrong_length, true)] {
        let broken = Bytes::from(broken.clone());
        let bytes = match followed {
            true => concat(&[broken, stored(&batch, 6)]),
            false => broken,
        };
        assert!(decode(bytes.clone(), &from(4)).is_err());
        let options = DecodeOptions {
            report_unreadable: true,
            ..self::from(4)
        };
        let decoded = decode(bytes, &options).unwrap();
        assert_eq!(decoded.next_offset, Some(if followed { 9 } else { 6 }));
        assert_eq!(decoded.count(), if followed { 3 } else { 0 });
        let [range] = &decoded.unreadable[..] else {
            panic!("{:?}", decoded.unreadable);
        };
        assert_eq!((range.from_offset, range.last_offset), (4, 5));
        assert!(range.reason.contains("damaged"), "{}", range.reason);
    }
}

#[test]
fn a_batch_too_large_to_be_received_is_reported_by_its_header_alone() {
    let batch = write(&numbered(3), CompressionType::None);
    let size = batch.bytes().len();
    let decode = |bytes: Bytes, from: i64, batch_bytes_max: usize| {
        let options = DecodeOptions {
            cut: Some(CutRecords {
                batch_bytes_max,
                readable_end: 1_000,
            }),
            aborted_transactions: Some(vec![AbortedTransaction {
                producer_id: 9,
                first_offset: 0,
            }]),
            ..self::from(from)
        };
        let decoded = decode(bytes, &options).unwrap();
        let ranges: Vec<_> = decoded
            .unreadable
            .iter()
            .map(|range| (range.from_offset, range.last_offset))
            .collect();
        (ranges, decoded.next_offset)
    };
    let header_of = |bytes: Bytes| bytes.slice(..header::RECORD_BATCH_OVERHEAD + 1);
    let cut = header_of(stored(&batch, 5));
    // From its first offset, from within it, and after a gap that compaction has left.
    assert_eq!(decode(cut.clone(), 5, size - 1), (vec![(5, 7)], Some(8)));
    assert_eq!(decode(cut.clone(), 6, size - 1), (vec![(6, 7)], Some(8)));
    assert_eq!(decode(cut.clone(), 2, size - 1), (vec![(5, 7)], Some(8)));
    assert_eq!(
        decode(cut.clone(), 5, size),
        (vec![], None),
        "it is cut only"
    );
    let behind = concat(&[stored(&batch, 2), cut]);
    assert_eq!(decode(behind, 2, size - 1), (vec![], Some(5)));
    // What it says is not believed where it cannot be.
    for damaged in [
        altered(&batch, |header| header.last_offset_delta = 1),
        altered(&batch, |header| header.last_offset_delta = 1_000),
    ] {
        assert_eq!(decode(header_of(damaged), 0, 70), (vec![(0, 0)], Some(1)));
    }
    let aborted = altered(&batch, |header| {
        header.attributes = header.attributes.with_transactional(true);
    });
    assert_eq!(decode(header_of(aborted), 0, size - 1), (vec![], Some(3)));
    let mut old = BytesMut::from(&stored(&batch, 7)[..40]);
    old[header::MAGIC_OFFSET] = 1;
    assert_eq!(decode(old.into(), 5, size - 1), (vec![(7, 7)], Some(8)));
}

#[test]
fn a_last_offset_that_nothing_confirms_is_not_believed() {
    let batch = write(&numbered(3), CompressionType::None);
    let mut damaged = stored(&batch, 3).to_vec();
    damaged[23..27].copy_from_slice(&1_000_000_i32.to_be_bytes());
    let options = DecodeOptions {
        report_unreadable: true,
        ..self::from(3)
    };
    let decoded = decode(damaged.into(), &options).unwrap();
    assert_eq!(decoded.next_offset, Some(4));
}

#[test]
fn the_offset_of_a_damaged_message_is_believed_only_if_its_successor_rises_over_it() {
    let message: &[u8] = include_bytes!("../../../proto-tests/golden/records/magic1-none.bin");
    let size =
        header::LOG_OVERHEAD + i32::from_be_bytes(message[8..12].try_into().unwrap()) as usize;
    let at = |offset: i64, damage: u8| {
        let mut bytes = message[..size].to_vec();
        bytes[..8].copy_from_slice(&offset.to_be_bytes());
        bytes[header::CRC_OFFSET] ^= damage;
        Bytes::from(bytes)
    };
    let options = DecodeOptions {
        report_unreadable: true,
        ..self::from(3)
    };
    for (bytes, next) in [
        (at(i64::MAX, 1), 4),
        (at(1 << 40, 1), 4),
        (at(-1, 1), 4),
        (concat(&[at(1 << 40, 1), at(6, 0)]), 7),
        (concat(&[at(5, 1), at(6, 0)]), 7),
        (concat(&[at(5, 1), at(6, 1)]), 6),
    ] {
        let decoded = decode(bytes, &options).unwrap();
        assert_eq!(decoded.next_offset, Some(next), "{:?}", decoded.unreadable);
    }
}

#[test]
fn nothing_is_read_at_the_largest_offset_which_has_no_next() {
    for report_unreadable in [false, true] {
        let options = DecodeOptions {
            report_unreadable,
            ..self::from(i64::MAX)
        };
        let decoded = decode(Bytes::from_static(b"whatever"), &options);
        assert!(
            matches!(decoded, Err(RecordError::Malformed { .. })),
            "{decoded:?}"
        );
    }
}

#[test]
fn offsets_that_do_not_rise_are_refused() {
    let batch = write(&numbered(3), CompressionType::None);
    let repeated = concat(&[stored(&batch, 5), stored(&batch, 7)]);
    assert_eq!(
        decode(repeated.clone(), &from(0)).unwrap().next_offset,
        Some(8)
    );
    assert!(decode(repeated, &from(8)).is_err());
    let beyond = altered(&batch, |h| h.last_offset_delta = 1);
    assert!(matches!(
        decode(beyond, &from(0)),
        Err(RecordError::Malformed { base_offset: 0, .. })
    ));
}

#[test]
fn counts_that_the_bytes_do_not_hold_are_refused() {
    for codec in CODECS {
        let batch = write(&numbered(3), codec);
        for count in [1, 2, 4, 1_000_000, i32::MAX] {
            let bytes = altered(&batch, |h| h.record_count = count);
            assert!(
                matches!(
                    decode(bytes, &from(0)),
                    Err(RecordError::Malformed { base_offset: 0, .. })
                ),
                "{codec:?} {count}"
            );
        }
    }
}

/// A header count of 2^31 - 1, with a fitting checksum and record length.
#[test]
fn a_header_count_allocates_nothing_and_is_refused() {
    let mut record = numbered(1).remove(0);
    record.headers.clear();
    record.pair = (None, None);
    let batch = write(&[record], CompressionType::None);
    let mut bytes = batch.bytes().to_vec();
    // The last byte is the header count, 0; the record's length is the first.
    assert_eq!(bytes.pop(), Some(0));
    bytes.extend_from_slice(&[0xfe, 0xff, 0xff, 0xff, 0x0f]);
    bytes[header::RECORD_BATCH_OVERHEAD] += 8;
    let mut header = *batch.header();
    header.length += 4;
    header.write(&mut bytes);
    header::write_crc(&mut bytes);
    assert_eq!(
        decode(bytes.into(), &from(0)).unwrap_err(),
        RecordError::Malformed {
            base_offset: 0,
            what: "headers do not fit their record"
        }
    );
}

#[test]
fn the_position_after_an_unreadable_batch_has_its_leader_epoch() {
    let report = |bytes: Bytes| {
        let options = DecodeOptions {
            report_unreadable: true,
            ..from(0)
        };
        let decoded = decode(bytes, &options).unwrap();
        assert_eq!(decoded.unreadable.len(), 1);
        (decoded.next_offset, decoded.leader_epoch)
    };
    let with_epoch = |leader_epoch| {
        let batch = write(&numbered(3), CompressionType::None);
        let mut bytes = altered(&batch, |header| header.leader_epoch = leader_epoch).to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        Bytes::from(bytes)
    };
    assert_eq!(report(with_epoch(7)), (Some(3), 7));
    assert_eq!(report(with_epoch(-9)), (Some(3), -1), "no epoch");
    // Nothing says where it ends.
    let mut cut = with_epoch(7).to_vec();
    cut.truncate(40);
    assert_eq!(report(cut.into()).1, -1);
}

/// Damage that the checksum does not see, because it was computed anew.
#[test]
fn every_flipped_bit_is_refused_or_read_within_the_limit() {
    for codec in CODECS {
        let batch = write(&numbered(6), codec);
        let clean = batch.bytes();
        for at in 0..clean.len() {
            for bit in 0..8 {
                let mut bytes = clean.to_vec();
                bytes[at] ^= 1 << bit;
                // As it is: only offset and leader epoch may change.
                if let Ok(decoded) = decode(bytes.clone().into(), &from(0)) {
                    assert!(at < 16 || decoded.next_offset.is_none(), "{codec:?} {at}");
                }
                header::write_crc(&mut bytes);
                if let Ok(decoded) = decode(bytes.into(), &from(0)) {
                    check_sane(&decoded);
                }
            }
        }
    }
}

fn check_sane(decoded: &DecodedRecords) {
    let mut previous = -1;
    let mut count = 0;
    for record in decoded.records() {
        assert!(record.offset > previous);
        assert!(Some(record.offset) < decoded.next_offset);
        assert_eq!(record.headers.iter().count(), record.headers.iter().len());
        previous = record.offset;
        count += 1;
    }
    assert_eq!(count, decoded.count());
    for batch in &decoded.batches {
        assert!(batch.records.len() <= 1 << 20);
    }
}
