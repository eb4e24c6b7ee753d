//! What a producer sends: exactly one record batch of magic 2, checked as Kafka checks
//! it (`LogValidator`), then stamped with what only the broker knows.
//!
//! Offset and leader epoch lie in front of the checksummed part, so stamping them costs
//! no new checksum; the append time lies within it and does.

use bytes::{Bytes, BytesMut};
use kafka_protocol::ResponseError;

use kafka_client::config::CompressionType;
use kafka_client::record::header::{self, BatchHeader};

/// A refused batch: the code and what to tell the producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AppendError {
    pub(super) error: ResponseError,
    pub(super) message: &'static str,
}

impl AppendError {
    pub(super) fn new(error: ResponseError, message: &'static str) -> Self {
        Self { error, message }
    }
}

/// Checks the records of one partition of a Produce request.
pub(super) fn check(bytes: &Bytes, max_bytes: usize) -> Result<BatchHeader, AppendError> {
    use ResponseError::{CorruptMessage, InvalidRecord, MessageTooLarge};
    let refuse = |error, message| Err(AppendError::new(error, message));
    if bytes.is_empty() {
        return refuse(InvalidRecord, "there must be a record batch");
    }
    if bytes
        .get(header::MAGIC_OFFSET)
        .is_some_and(|&magic| magic != 2)
    {
        return refuse(InvalidRecord, "only record batches of magic 2 are taken");
    }
    let Ok(header) = BatchHeader::parse(bytes) else {
        return refuse(CorruptMessage, "the batch header is not valid");
    };
    if header.size() < bytes.len() {
        return refuse(InvalidRecord, "there must be exactly one record batch");
    }
    if header.verify(bytes).is_err() {
        return refuse(CorruptMessage, "the checksum does not match");
    }
    if bytes.len() > max_bytes {
        return refuse(
            MessageTooLarge,
            "the batch is larger than max.message.bytes",
        );
    }
    if header.attributes.is_control_batch() {
        return refuse(InvalidRecord, "clients do not write control batches");
    }
    let Ok(compression) = header.attributes.compression() else {
        return refuse(CorruptMessage, "the compression type is unknown");
    };
    if header.record_count == 0
        || i64::from(header.record_count) != header.last_offset_delta as i64 + 1
    {
        return refuse(
            InvalidRecord,
            "the record count and the last offset delta differ",
        );
    }
    if header.producer_id >= 0 && header.base_sequence < 0 {
        return refuse(InvalidRecord, "an idempotent batch needs a sequence number");
    }
    if header.attributes.is_transactional() && header.producer_id < 0 {
        return refuse(InvalidRecord, "a transactional batch needs a producer id");
    }
    // Compressed records are left to the consumers' own checks.
    if compression == CompressionType::None
        && !records_are_valid(&bytes[header::RECORD_BATCH_OVERHEAD..], &header)
    {
        return refuse(InvalidRecord, "a record does not fit its batch");
    }
    Ok(header)
}

/// Copies the batch (so that it does not keep the request alive) as the log keeps it.
pub(super) fn stamp(
    bytes: &[u8],
    base_offset: i64,
    leader_epoch: i32,
    append_time: Option<i64>,
) -> Bytes {
    let mut batch = BytesMut::from(bytes);
    batch[0..8].copy_from_slice(&base_offset.to_be_bytes());
    batch[12..16].copy_from_slice(&leader_epoch.to_be_bytes());
    if let Some(now) = append_time {
        let at = header::ATTRIBUTES_OFFSET;
        let attributes = i16::from_be_bytes([batch[at], batch[at + 1]]) | LOG_APPEND_TIME;
        batch[at..at + 2].copy_from_slice(&attributes.to_be_bytes());
        batch[35..43].copy_from_slice(&now.to_be_bytes());
        header::write_crc(&mut batch);
    }
    batch.freeze()
}

const LOG_APPEND_TIME: i16 = 0x08;

/// One record's place in time: offset delta and timestamp.
pub(super) type RecordTime = (i32, i64);

/// The offset delta and timestamp of each record of an uncompressed batch, up to the
/// first that is not well-formed.
pub(super) fn times<'a>(
    mut records: &'a [u8],
    header: &BatchHeader,
) -> impl Iterator<Item = RecordTime> + use<'a> {
    let base = header.base_timestamp;
    let fixed = header
        .attributes
        .is_log_append_time()
        .then_some(header.max_timestamp);
    std::iter::from_fn(move || {
        let length = usize::try_from(varint(&mut records)?).ok()?;
        let (record, rest) = records.split_at_checked(length)?;
        records = rest;
        let mut record = record.get(1..)?;
        let timestamp = fixed.unwrap_or(base.wrapping_add(varint(&mut record)?));
        let delta = i32::try_from(varint(&mut record)?).ok()?;
        Some((delta, timestamp))
    })
}

/// Every record lies within the batch and is numbered from 0 without a gap.
fn records_are_valid(mut records: &[u8], header: &BatchHeader) -> bool {
    (0..header.record_count).all(|n| record(&mut records, n).is_some()) && records.is_empty()
}

fn record(records: &mut &[u8], number: i32) -> Option<()> {
    let length = usize::try_from(varint(records)?).ok()?;
    let (mut record, rest) = records.split_at_checked(length)?;
    *records = rest;
    record = record.get(1..)?;
    varint(&mut record)?;
    if varint(&mut record)? != i64::from(number) {
        return None;
    }
    skip(&mut record, true)?;
    skip(&mut record, true)?;
    for _ in 0..usize::try_from(varint(&mut record)?).ok()? {
        skip(&mut record, false)?;
        skip(&mut record, true)?;
    }
    record.is_empty().then_some(())
}

fn skip(record: &mut &[u8], nullable: bool) -> Option<()> {
    let length = match varint(record)? {
        -1 if nullable => 0,
        length => usize::try_from(length).ok()?,
    };
    *record = record.get(length..)?;
    Some(())
}

/// Reads a zigzag varint of up to 64 bits.
fn varint(bytes: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use kafka_client::record::header::BatchAttributes;

    /// A sound batch of as many records, one millisecond apart from `time` on.
    pub(crate) fn batch_of(
        count: i32,
        time: i64,
        (pid, epoch, sequence): (i64, i16, i32),
    ) -> Bytes {
        let zigzag = |n: i64| ((n << 1) ^ (n >> 63)) as u64;
        let put = |out: &mut Vec<u8>, n: i64| {
            let mut n = zigzag(n);
            while n >= 0x80 {
                out.push(n as u8 | 0x80);
                n >>= 7;
            }
            out.push(n as u8);
        };
        let mut bytes = vec![0; header::RECORD_BATCH_OVERHEAD];
        for n in 0..count {
            let mut record = vec![0];
            put(&mut record, n.into());
            put(&mut record, n.into());
            put(&mut record, -1);
            put(&mut record, 5);
            record.extend_from_slice(b"value");
            put(&mut record, 1);
            put(&mut record, 1);
            record.push(b'h');
            put(&mut record, -1);
            put(&mut bytes, record.len() as i64);
            bytes.extend_from_slice(&record);
        }
        let header = BatchHeader {
            base_offset: 0,
            length: (bytes.len() - header::LOG_OVERHEAD) as i32,
            leader_epoch: -1,
            crc: 0,
            attributes: BatchAttributes::new(CompressionType::None),
            last_offset_delta: count - 1,
            base_timestamp: time,
            max_timestamp: time + i64::from(count) - 1,
            producer_id: pid,
            producer_epoch: epoch,
            base_sequence: sequence,
            record_count: count,
        };
        header.write(&mut bytes);
        header::write_crc(&mut bytes);
        bytes.into()
    }

    pub(crate) const PLAIN: (i64, i16, i32) = (-1, -1, -1);

    fn changed(change: impl FnOnce(&mut BatchHeader, &mut Vec<u8>)) -> Bytes {
        let mut bytes = batch_of(3, 0, PLAIN).to_vec();
        let mut header = BatchHeader::parse(&bytes).unwrap();
        change(&mut header, &mut bytes);
        header.write(&mut bytes);
        header::write_crc(&mut bytes);
        bytes.into()
    }

    fn refusal(bytes: Bytes) -> ResponseError {
        check(&bytes, 1 << 20).unwrap_err().error
    }

    #[test]
    fn a_sound_batch_is_taken_and_stamped_without_harm() {
        let bytes = batch_of(3, 1_000, PLAIN);
        check(&bytes, bytes.len()).unwrap();
        let stored = stamp(&bytes, 77, 4, None);
        let header = BatchHeader::parse(&stored).unwrap();
        header.verify(&stored).unwrap();
        assert_eq!((header.base_offset, header.leader_epoch), (77, 4));
        assert_eq!(header.max_timestamp, 1_002);

        let stored = stamp(&bytes, 77, 4, Some(5_000));
        let header = BatchHeader::parse(&stored).unwrap();
        header.verify(&stored).unwrap();
        assert!(header.attributes.is_log_append_time());
        let times: Vec<_> = times(&stored[header::RECORD_BATCH_OVERHEAD..], &header).collect();
        assert_eq!(times, [(0, 5_000), (1, 5_000), (2, 5_000)]);
    }

    #[test]
    fn what_kafka_refuses_is_refused_with_its_code() {
        use ResponseError::{CorruptMessage, InvalidRecord, MessageTooLarge};
        let good = batch_of(3, 0, PLAIN);
        assert_eq!(refusal(Bytes::new()), InvalidRecord);
        assert_eq!(refusal(good.slice(..40)), CorruptMessage);
        assert_eq!(refusal(good.slice(..good.len() - 1)), CorruptMessage);
        assert_eq!(check(&good, 60).unwrap_err().error, MessageTooLarge);
        assert_eq!(
            refusal([&good[..], &good[..]].concat().into()),
            InvalidRecord
        );
        let mut flipped = good.to_vec();
        flipped[70] ^= 1;
        assert_eq!(refusal(flipped.into()), CorruptMessage);
        let mut old = good.to_vec();
        old[header::MAGIC_OFFSET] = 1;
        assert_eq!(refusal(old.into()), InvalidRecord);
        for change in [
            |h: &mut BatchHeader, _: &mut Vec<u8>| h.record_count = 2,
            |h: &mut BatchHeader, _: &mut Vec<u8>| h.last_offset_delta = 3,
            |h: &mut BatchHeader, _: &mut Vec<u8>| (h.record_count, h.last_offset_delta) = (2, 1),
            |h: &mut BatchHeader, _: &mut Vec<u8>| (h.record_count, h.last_offset_delta) = (4, 3),
            |h: &mut BatchHeader, _: &mut Vec<u8>| h.attributes = h.attributes.with_control(true),
            |h: &mut BatchHeader, _: &mut Vec<u8>| h.producer_id = 5,
            |_: &mut BatchHeader, b: &mut Vec<u8>| b[header::RECORD_BATCH_OVERHEAD + 3] = 4,
        ] {
            assert_eq!(refusal(changed(change)), InvalidRecord);
        }
    }
}
