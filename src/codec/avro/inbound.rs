//! `AvroProducerRecord`: what a client of `/socket/in` sends.
//!
//! ```text
//! datum ─▶ key, value, headers, tombstone as Kafka has them, and the messageId: slices of the datum
//!    └──▶ RecordRejection: invalid_record, why and at which byte
//! ```
//!
//! # Invariants
//! - A length or a count in a datum is never believed: what is allocated is bounded by its bytes.
//! - All of a datum is read, or it is no record.
//!
//! # Decisions
//! - Key and value are the client's own bytes: it has serialized them.
//! - A plain datum may end before any of the fields that were added to the original's schema.
//! - A `messageId` is kept encoded, as it came.

use super::wire::{DatumReader, DatumResult};
use crate::codec::inbound::{InboundRecord, RecordRejection};
use crate::codec::socket_error::SocketErrorCode;
use kafka_client::record::NewHeader;

/// The fields, as far as they are read.
#[derive(Debug, Default)]
pub(super) struct ProducerRecordDatum<'a> {
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: &'a [u8],
    pub(super) headers: Vec<NewHeader<'a>>,
    /// With its length in front.
    pub(super) message_id: Option<&'a [u8]>,
    pub(super) tombstone: bool,
}

/// Reads a plain datum, which is whole.
pub(crate) fn read(datum: &[u8]) -> Result<InboundRecord<'_>, RecordRejection<'_>> {
    ProducerRecordDatum::default().finish(datum, |record, reader| {
        record.read_original(reader)?;
        record.read_added(reader)
    })
}

impl<'a> ProducerRecordDatum<'a> {
    /// What `read` has read, if it has read all.
    pub(super) fn finish(
        mut self,
        datum: &'a [u8],
        read: impl FnOnce(&mut Self, &mut DatumReader<'a>) -> DatumResult<()>,
    ) -> Result<InboundRecord<'a>, RecordRejection<'a>> {
        let mut reader = DatumReader::new(datum);
        let complete = read(&mut self, &mut reader).and_then(|()| reader.expect_end());
        if let Err(error) = complete {
            return Err(invalid(
                format!("no AvroProducerRecord: {error}"),
                self.message_id,
            ));
        }
        if self.tombstone && !self.value.is_empty() {
            let message = "a tombstone has an empty value".to_owned();
            return Err(invalid(message, self.message_id));
        }
        Ok(InboundRecord {
            key: self.key,
            value: (!self.tombstone).then_some(self.value),
            timestamp: None,
            partition: None,
            message_id: self.message_id,
            headers: self.headers,
        })
    }

    fn read_original(&mut self, reader: &mut DatumReader<'a>) -> DatumResult<()> {
        if reader.is_some()? {
            self.key = Some(reader.bytes()?);
        }
        self.value = reader.bytes()?;
        Ok(())
    }

    fn read_added(&mut self, reader: &mut DatumReader<'a>) -> DatumResult<()> {
        if reader.is_at_end() {
            return Ok(());
        }
        if reader.is_some()? {
            read_headers(reader, &mut self.headers)?;
        }
        if reader.is_at_end() {
            return Ok(());
        }
        if reader.is_some()? {
            self.message_id = Some(encoded_string(reader)?);
        }
        if reader.is_at_end() {
            return Ok(());
        }
        self.tombstone = reader.boolean()?;
        Ok(())
    }
}

fn read_headers<'a>(
    reader: &mut DatumReader<'a>,
    headers: &mut Vec<NewHeader<'a>>,
) -> DatumResult<()> {
    loop {
        let count = match reader.block()? {
            0 => return Ok(()),
            count => count,
        };
        reserve(headers, count, reader);
        for _ in 0..count {
            headers.push(NewHeader {
                key: reader.string()?,
                value: match reader.is_some()? {
                    true => Some(reader.bytes()?),
                    false => None,
                },
            });
        }
    }
}

/// Room for what a block claims to have, as far as its bytes can hold it.
pub(super) fn reserve(headers: &mut Vec<NewHeader<'_>>, count: u64, reader: &DatumReader<'_>) {
    let possible = (reader.left() / HEADER_BYTES_MIN).min(HEADERS_RESERVED_MAX);
    headers.reserve(usize::try_from(count).map_or(possible, |count| count.min(possible)));
}

/// A `string` with its length in front.
pub(super) fn encoded_string<'a>(reader: &mut DatumReader<'a>) -> DatumResult<&'a [u8]> {
    let start = reader.at();
    reader.string()?;
    Ok(reader.since(start))
}

/// The text of what [`encoded_string`] has read.
pub(crate) fn string_content(encoded: &[u8]) -> &str {
    DatumReader::new(encoded)
        .string()
        .expect("it was read as a string before")
}

/// A header of an empty name and no value.
const HEADER_BYTES_MIN: usize = 2;
/// Further ones make the list grow.
const HEADERS_RESERVED_MAX: usize = 64;

#[cold]
pub(super) fn invalid(message: String, message_id: Option<&[u8]>) -> RecordRejection<'_> {
    RecordRejection {
        code: SocketErrorCode::InvalidRecord,
        message: message.into(),
        message_id,
    }
}
