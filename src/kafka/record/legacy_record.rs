//! Messages of magic 0 and 1 (Java's `LegacyRecord`), which brokers before 0.11 stored and
//! which their topics still hold.
//!
//! ```text
//! offset i64 │ length i32 │ CRC-32 u32 │ magic i8 │ attributes i8 │ [timestamp i64]
//! │ key length i32 │ key │ value length i32 │ value
//! ```
//!
//! The timestamp came with magic 1. A compressed message wraps others in its value:
//!
//! ```text
//! wrapper at offset 17 ─▶ magic 0: 15 16 17      the inner offsets are the log's
//!                         magic 1:  0  1  2      they count up to the wrapper's (KIP-31)
//! ```
//!
//! # Invariants
//! - As for batches: all is checked once, then iterated without failure.

use super::error::RecordError;
use super::header::LOG_OVERHEAD;
use super::varint::ByteReader;
use crate::config::CompressionType;

/// The shortest length field: a magic 0 message with null key and value.
pub(super) const LENGTH_MIN: usize = 4 + 1 + 1 + 4 + 4;

const COMPRESSION: u8 = 0x07;
const LOG_APPEND_TIME: u8 = 0x08;
const NO_TIMESTAMP: i64 = -1;

/// One message, perhaps a wrapper of others.
pub(super) struct LegacyRecord<'a> {
    /// As written: relative in a wrapper of magic 1.
    pub(super) offset: i64,
    pub(super) magic: u8,
    attributes: u8,
    pub(super) timestamp: i64,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    /// Bytes of the message, from its offset to the end of its value.
    pub(super) size: usize,
}

impl LegacyRecord<'_> {
    pub(super) fn compression(&self) -> Result<CompressionType, RecordError> {
        match self.attributes & COMPRESSION {
            0 => Ok(CompressionType::None),
            1 => Ok(CompressionType::Gzip),
            2 => Ok(CompressionType::Snappy),
            3 => Ok(CompressionType::Lz4),
            id => Err(RecordError::UnknownCompression {
                base_offset: self.offset,
                id,
            }),
        }
    }

    /// Whether it is of that magic, and wraps no others.
    pub(super) fn is_plain(&self, magic: u8) -> bool {
        self.magic == magic && self.attributes & COMPRESSION == 0
    }

    /// The time that the broker gave to all messages of this wrapper.
    pub(super) fn append_time(&self) -> Option<i64> {
        (self.magic > 0 && self.attributes & LOG_APPEND_TIME != 0).then_some(self.timestamp)
    }

    /// Where in the message the wrapped ones are.
    pub(super) fn compressed_range(&self) -> Result<std::ops::Range<usize>, RecordError> {
        let value = self
            .value
            .ok_or_else(|| malformed(self.offset, "a wrapper of nothing"))?;
        Ok(self.size - value.len()..self.size)
    }
}

/// Reads the next message, without its checksum; `None` if it does not fit its length
/// or the bytes.
#[inline]
pub(super) fn read_record<'a>(messages: &mut ByteReader<'a>) -> Option<LegacyRecord<'a>> {
    let offset = i64::from_be_bytes(messages.array()?);
    let length = usize::try_from(i32::from_be_bytes(messages.array()?)).ok()?;
    let mut body = ByteReader::new(messages.take(length)?);
    let [_, _, _, _, magic, attributes] = body.array()?;
    let timestamp = match magic {
        0 => NO_TIMESTAMP,
        1 => i64::from_be_bytes(body.array()?),
        _ => return None,
    };
    let key = nullable(&mut body)?;
    let value = nullable(&mut body)?;
    body.rest().is_empty().then_some(LegacyRecord {
        offset,
        magic,
        attributes,
        timestamp,
        key,
        value,
        size: LOG_OVERHEAD + length,
    })
}

#[inline]
fn nullable<'a>(body: &mut ByteReader<'a>) -> Option<Option<&'a [u8]>> {
    match i32::from_be_bytes(body.array()?) {
        -1 => Some(None),
        length => Some(Some(body.take(usize::try_from(length).ok()?)?)),
    }
}

/// Reads the message at the front of `bytes`, which hold all of it.
pub(super) fn first_record(bytes: &[u8]) -> Result<LegacyRecord<'_>, RecordError> {
    read_record(&mut ByteReader::new(bytes)).ok_or_else(|| {
        malformed(
            first_offset(bytes),
            "a message does not fit its length, or is of no known magic",
        )
    })
}

/// Verifies the checksum of `message`, which lies at the front of `bytes`.
pub(super) fn verify_checksum(message: &LegacyRecord<'_>, bytes: &[u8]) -> Result<(), RecordError> {
    let base_offset = message.offset;
    let (head, covered) = bytes[LOG_OVERHEAD..message.size]
        .split_first_chunk()
        .ok_or_else(|| malformed(base_offset, "a message without a checksum"))?;
    let stored = u32::from_be_bytes(*head);
    let mut crc = flate2::Crc::new();
    crc.update(covered);
    let computed = crc.sum();
    if computed != stored {
        return Err(RecordError::Checksum {
            base_offset,
            stored,
            computed,
        });
    }
    // The next offset must exist too.
    if base_offset == i64::MAX {
        return Err(malformed(base_offset, "offsets beyond the largest"));
    }
    Ok(())
}

/// Messages without compression that follow each other.
pub(super) struct PlainRecords {
    /// Bytes of messages before those that are wanted.
    pub(super) skip: usize,
    /// Bytes of all.
    pub(super) size: usize,
    pub(super) last_offset: i64,
    /// How many are wanted.
    pub(super) count: u32,
}

/// Reads the plain messages from the front of `bytes`, which begin with a good one, up
/// to anything else: a wrapper, a batch, an incomplete message, damage.
pub(super) fn plain_records(bytes: &[u8], from: i64) -> Result<PlainRecords, RecordError> {
    let mut plain = PlainRecords {
        skip: 0,
        size: 0,
        last_offset: -1,
        count: 0,
    };
    while let Some(message) = read_record(&mut ByteReader::new(&bytes[plain.size..]))
        && message.attributes & COMPRESSION == 0
        && message.offset > plain.last_offset
    {
        match verify_checksum(&message, &bytes[plain.size..]) {
            Err(error) if plain.size == 0 => return Err(error),
            // A damaged message ends the run; the next read begins with the error.
            Err(_) => break,
            Ok(()) => {}
        }
        plain.size += message.size;
        plain.last_offset = message.offset;
        if message.offset < from {
            plain.skip = plain.size;
        } else {
            plain.count += 1;
        }
    }
    if plain.size == 0 {
        return Err(malformed(first_offset(bytes), "offsets that do not rise"));
    }
    Ok(plain)
}

/// What a wrapper holds.
pub(super) struct InnerRecords {
    /// What to add to the inner offsets.
    pub(super) base_offset: i64,
    /// Offset of the first message in the log.
    pub(super) first_offset: i64,
    /// How many messages are wanted.
    pub(super) count: u32,
}

/// Checks the messages that were wrapped at `wrapper_offset`. Their own checksums add
/// nothing: the wrapper's covered them.
pub(super) fn inner_records(
    messages: &[u8],
    wrapper_magic: u8,
    wrapper_offset: i64,
    from: i64,
) -> Result<InnerRecords, RecordError> {
    let malformed = |what| malformed(wrapper_offset, what);
    let mut first = None;
    let last = for_each_offset(messages, wrapper_magic, |offset| {
        first.get_or_insert(offset);
    })
    .map_err(malformed)?;
    let base_offset = match wrapper_magic {
        0 => 0,
        _ => wrapper_offset - last,
    };
    if base_offset < 0 || base_offset + last > wrapper_offset {
        return Err(malformed("a wrapper's offset is not its last message's"));
    }
    let mut count = 0;
    for_each_offset(messages, wrapper_magic, |offset| {
        count += u32::from(base_offset + offset >= from);
    })
    .map_err(malformed)?;
    Ok(InnerRecords {
        base_offset,
        first_offset: base_offset + first.unwrap_or(last),
        count,
    })
}

/// Calls `found` with each inner offset, and returns the last.
fn for_each_offset(
    messages: &[u8],
    magic: u8,
    mut found: impl FnMut(i64),
) -> Result<i64, &'static str> {
    let mut reader = ByteReader::new(messages);
    let mut last = -1;
    while !reader.rest().is_empty() {
        let message =
            read_record(&mut reader).ok_or("a wrapped message does not fit its length")?;
        if message.magic != magic || message.attributes & COMPRESSION != 0 {
            return Err("a wrapped message of another kind than its wrapper");
        }
        if message.offset <= last {
            return Err("wrapped offsets that do not rise");
        }
        last = message.offset;
        found(last);
    }
    if last < 0 {
        return Err("a wrapper of nothing");
    }
    Ok(last)
}

fn first_offset(bytes: &[u8]) -> i64 {
    bytes
        .first_chunk()
        .map_or(-1, |&raw| i64::from_be_bytes(raw))
}

fn malformed(base_offset: i64, what: &'static str) -> RecordError {
    RecordError::Malformed { base_offset, what }
}
