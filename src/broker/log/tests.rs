use super::super::batch::tests::{PLAIN, batch_of};
use super::super::producer_state::SequenceCheck;
use super::*;
use kafka_client::config::CompressionType;
use kafka_client::record::{NewRecord, RecordBatchBuilder};

/// Appends batches of as many records; their records' times are their offsets × 10
/// plus their place in the batch.
fn log(counts: &[i32]) -> PartitionLog {
    let mut log = PartitionLog::new(10);
    log.begin_epoch(0);
    for (serial, &count) in counts.iter().enumerate() {
        put(&mut log, count, PLAIN, serial as u64);
    }
    log
}

fn put(log: &mut PartitionLog, count: i32, producer: (i64, i16, i32), serial: u64) -> i64 {
    let bytes = batch_of(count, log.end() * 10, producer);
    let header = BatchHeader::parse(&bytes).unwrap();
    log.append(&bytes, &header, 0, None, serial)
}

fn producer(id: i64) -> ProducerEpoch {
    ProducerEpoch { id, epoch: 0 }
}

fn bases(mut bytes: &[u8]) -> Vec<i64> {
    let mut bases = Vec::new();
    while let Ok(header) = BatchHeader::parse(bytes) {
        let Some(rest) = bytes.get(header.size()..) else {
            break;
        };
        bases.push(header.base_offset);
        bytes = rest;
    }
    bases
}

#[test]
fn producers_are_forgotten_with_their_batches() {
    let mut log = PartitionLog::new(1_000);
    for n in 0..200 {
        put(&mut log, 1, (n, 0, 0), n as u64);
        log.delete_before(n - 9);
        assert!(log.producers.len() <= 2 * log.len() + PRODUCERS_MIN + 1);
    }
    // Who is still read is still known.
    let known = |log: &PartitionLog, n| {
        let header = BatchHeader::parse(&batch_of(1, 0, (n, 0, 0))).unwrap();
        log.producers.check(&header) != Ok(SequenceCheck::Append)
    };
    assert!((190..200).all(|n| known(&log, n)));
    assert!(!known(&log, 0));
}

#[test]
fn so_many_transactions_are_open_and_no_more() {
    let mut log = log(&[]);
    let batch = |n| {
        let bytes = batch_of(1, 0, (n, 0, 0));
        let mut header = BatchHeader::parse(&bytes).unwrap();
        header.attributes = header.attributes.with_transactional(true);
        (bytes, header)
    };
    for n in 0..OPEN_MAX as i64 {
        let (bytes, header) = batch(n);
        assert!(log.admits(&header));
        log.append(&bytes, &header, 0, None, n as u64);
    }
    assert!(!log.admits(&batch(-2).1));
    assert!(log.admits(&batch(7).1));
    log.end_transaction(producer(3), TransactionResult::Commit, 0, 0, 0);
    assert!(log.admits(&batch(-2).1));
}

#[test]
fn a_read_begins_with_the_batch_that_holds_the_offset() {
    let log = log(&[2, 3, 4]);
    assert_eq!(log.end(), 9);
    let all = log.read(0, i64::MAX, usize::MAX, true, false);
    assert_eq!(bases(&all), [0, 2, 5]);
    assert_eq!(
        bases(&log.read(4, i64::MAX, usize::MAX, true, false)),
        [2, 5]
    );
    assert_eq!(bases(&log.read(0, 5, usize::MAX, true, false)), [0, 2]);
    assert!(log.read(9, i64::MAX, usize::MAX, true, false).is_empty());
}

#[test]
fn the_first_batch_is_returned_over_the_limit_and_the_last_is_cut_at_it() {
    let log = log(&[2, 3, 4]);
    let all = log.read(0, i64::MAX, usize::MAX, true, false).len();
    assert_eq!(bases(&log.read(2, i64::MAX, 1, true, true)), [2]);
    assert!(log.read(2, i64::MAX, 1, false, false).is_empty());
    assert_eq!(log.read(2, i64::MAX, 1, false, true).len(), 1);
    assert_eq!(log.read(0, i64::MAX, all - 1, false, true).len(), all - 1);
    let whole = log.read(0, i64::MAX, all - 1, false, false);
    assert_eq!(bases(&whole), [0, 2]);
}

#[test]
fn a_record_is_found_by_its_time() {
    let log = log(&[2, 3, 4]);
    let found = |time| {
        log.at_time(time, i64::MAX, &mut 0)
            .map(|f| (f.offset, f.timestamp))
    };
    assert_eq!(found(-5), Some((0, 0)));
    assert_eq!(found(1), Some((1, 1)));
    assert_eq!(found(2), Some((2, 20)));
    assert_eq!(found(51), Some((6, 51)));
    assert_eq!(found(54), None);
    let latest = log.latest_time(&mut 0).unwrap();
    assert_eq!((latest.offset, latest.timestamp), (8, 53));
}

#[test]
fn a_compressed_record_is_found_by_its_time_too() {
    let mut log = log(&[2]);
    let mut builder = RecordBatchBuilder::new(1 << 10);
    for timestamp in [100, 200, 300] {
        builder.append(&NewRecord {
            key: None,
            value: Some(b"value"),
            headers: &[],
            timestamp,
        });
    }
    let mut batch = builder.build(CompressionType::Gzip);
    batch.set_producer_state(-1, -1, -1);
    let bytes = batch.bytes();
    let header = BatchHeader::parse(&bytes).unwrap();
    log.append(&bytes, &header, 0, None, 1);
    let mut unpack = 1_000;
    let found = log.at_time(150, i64::MAX, &mut unpack).unwrap();
    assert_eq!((found.offset, found.timestamp), (3, 200));
    assert_eq!(log.latest_time(&mut unpack).unwrap().offset, 4);
    assert!((800..980).contains(&unpack), "{unpack} left");
    // What may not be decompressed is found by its batch.
    for mut little in [0, 10] {
        let found = log.at_time(150, i64::MAX, &mut little).unwrap();
        assert_eq!((found.offset, little), (2, 0));
    }
}

#[test]
fn truncation_removes_the_tail_and_the_epochs_that_began_in_it() {
    let mut log = log(&[2, 3]);
    log.begin_epoch(1);
    put(&mut log, 4, PLAIN, 9);
    assert_eq!(log.end_of_epoch(0), Some((0, 5)));
    assert_eq!(log.end_of_epoch(1), Some((1, 9)));
    assert_eq!(log.end_of_epoch(-1), Some((-1, 0)));
    assert_eq!(log.end_of_epoch(2), None);
    log.truncate(2);
    assert_eq!((log.end(), log.len()), (2, 1));
    assert_eq!(log.epochs, [(0, 0)]);
    log.begin_epoch(2);
    assert_eq!(log.end_of_epoch(1), Some((0, 2)));
    assert_eq!((log.epoch_at(1), log.epoch_at(2)), (0, 2));
}

#[test]
fn the_start_moves_up_and_the_bytes_are_given_back() {
    let mut log = log(&[2, 3, 4]);
    let full = log.bytes();
    assert!(!log.drop_oldest(1));
    assert!(log.drop_oldest(0));
    assert!(log.bytes() < full);
    assert_eq!(log.start(), 2);
    log.delete_before(3);
    assert_eq!((log.start(), log.len()), (3, 2));
    log.delete_before(100);
    assert_eq!(
        (log.start(), log.end(), log.len(), log.bytes()),
        (9, 9, 0, 0)
    );
}

#[test]
fn an_open_transaction_holds_the_last_stable_offset() {
    let mut log = log(&[2]);
    let bytes = batch_of(3, 0, (7, 0, 0));
    let mut bytes = bytes.to_vec();
    let mut header = BatchHeader::parse(&bytes).unwrap();
    header.attributes = header.attributes.with_transactional(true);
    header.write(&mut bytes);
    header::write_crc(&mut bytes);
    log.append(&bytes, &header, 0, None, 5);
    put(&mut log, 1, PLAIN, 6);
    assert_eq!((log.last_stable(), log.end()), (2, 6));
    log.end_transaction(producer(7), TransactionResult::Abort, 99, 0, 7);
    assert_eq!((log.last_stable(), log.end()), (7, 7));
    let aborted = AbortedTxn {
        producer_id: 7,
        first: 2,
        marker: 6,
    };
    assert_eq!(log.aborted(3, 4), [aborted]);
    assert_eq!(log.aborted(0, 2), []);
    let marker = log.read(6, i64::MAX, usize::MAX, true, false);
    let header = BatchHeader::parse(&marker).unwrap();
    header.verify(&marker).unwrap();
    assert!(header.attributes.is_control_batch());
}
