//! `AvroConsumerRecord`: one fetched record, as a client of `/socket/out` is sent it.
//!
//! ```text
//! framing │ wsProxyMessageId │ topic, partition │ offset, timestamp, key, value, headers, tombstone
//!             └─ id_prefix, offset, timestamp
//! ```
//!
//! What all records of a partition have in common is made once, with the writer.
//!
//! # Invariants
//! - Every record is written: key and value pass as they are, whatever their bytes are.
//!
//! # Decisions
//! - In a header's name, which Kafka has as text, what is not UTF-8 is replaced by U+FFFD.
//! - Of records that cannot be delivered a text frame tells, as with JSON.

use bytes::{BufMut, BytesMut};

use super::framing::{AvroFraming, CONFLUENT_HEADER_LEN};
use super::wire::{END_OF_ARRAY, NULL_BRANCH, SOME_BRANCH, put_bytes, put_long};
use crate::codec::format::{Format, RecordFormats, write_integer};
use crate::codec::outbound::{OutboundRecord, RecordEncoder, RecordWriter};
use kafka_client::record::UnreadableRecords;

/// Writes the records of one partition.
#[derive(Clone, Debug)]
pub(crate) struct AvroRecordWriter<'a> {
    topic: &'a str,
    partition: i32,
    /// What stands in front of the id.
    framing: BytesMut,
    /// The id up to the offset in it.
    id_prefix: BytesMut,
    /// Between the id and the offset.
    topic_partition: BytesMut,
}

/// What a record has beside its key, its value and what all of its partition have.
const REST_ESTIMATE: usize = 100;

impl<'a> AvroRecordWriter<'a> {
    /// A writer for a partition.
    pub(crate) fn new(topic: &'a str, partition: i32, framing: AvroFraming) -> Self {
        let mut id_prefix = BytesMut::from(topic.as_bytes());
        id_prefix.put_u8(b'-');
        write_integer(&mut id_prefix, partition);
        id_prefix.put_u8(b'-');
        let mut topic_partition = BytesMut::new();
        put_bytes(&mut topic_partition, topic.as_bytes());
        put_long(&mut topic_partition, partition.into());
        Self {
            topic,
            partition,
            framing: framing.header(&mut [0; CONFLUENT_HEADER_LEN]).into(),
            id_prefix,
            topic_partition,
        }
    }

    /// The length of what each record has.
    fn common_len(&self) -> usize {
        self.framing.len() + self.id_prefix.len() + self.topic_partition.len()
    }
}

impl RecordEncoder for AvroRecordWriter<'_> {
    const IS_TEXT: bool = false;

    fn write<'r, H>(&self, out: &mut BytesMut, record: OutboundRecord<'r, H>)
    where
        H: IntoIterator<Item = (&'r [u8], Option<&'r [u8]>), IntoIter: ExactSizeIterator>,
    {
        let mut offset = itoa::Buffer::new();
        let offset = offset.format(record.offset).as_bytes();
        let mut timestamp = itoa::Buffer::new();
        let timestamp = timestamp.format(record.timestamp).as_bytes();
        out.reserve(self.estimated_size(&record));
        out.put_slice(&self.framing);
        let id_len = self.id_prefix.len() + offset.len() + b"-".len() + timestamp.len();
        put_long(out, id_len as i64);
        out.put_slice(&self.id_prefix);
        out.put_slice(offset);
        out.put_u8(b'-');
        out.put_slice(timestamp);
        out.put_slice(&self.topic_partition);
        put_long(out, record.offset);
        put_long(out, record.timestamp);
        put_optional_bytes(out, record.key);
        put_bytes(out, record.value.unwrap_or_default());
        put_headers(out, record.headers);
        out.put_u8(record.value.is_none().into());
    }

    fn write_unreadable(&self, out: &mut BytesMut, records: &UnreadableRecords) {
        let formats = RecordFormats {
            key: None,
            value: Format::String,
        };
        RecordWriter::new(self.topic, self.partition, formats).write_unreadable(out, records);
    }

    fn estimated_size<H>(&self, record: &OutboundRecord<'_, H>) -> usize {
        let len = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
        self.common_len() + len(record.key) + len(record.value) + REST_ESTIMATE
    }

    fn estimated_total(&self, records: usize, bytes: usize) -> usize {
        bytes + records * (self.common_len() + REST_ESTIMATE)
    }
}

fn put_optional_bytes(out: &mut BytesMut, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            out.put_u8(SOME_BRANCH);
            put_bytes(out, bytes);
        }
        None => out.put_u8(NULL_BRANCH),
    }
}

fn put_headers<'r>(
    out: &mut BytesMut,
    headers: impl IntoIterator<Item = (&'r [u8], Option<&'r [u8]>), IntoIter: ExactSizeIterator>,
) {
    let headers = headers.into_iter();
    if headers.len() == 0 {
        return out.put_u8(NULL_BRANCH);
    }
    out.put_u8(SOME_BRANCH);
    put_long(out, headers.len() as i64);
    for (key, value) in headers {
        put_bytes(out, String::from_utf8_lossy(key).as_bytes());
        put_optional_bytes(out, value);
    }
    out.put_u8(END_OF_ARRAY);
}
