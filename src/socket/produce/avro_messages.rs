//! The messages of a producing socket with `socketPayload=avro`, by the schemas that they were
//! written with.
//!
//! ```text
//! plain        datum ─▶ ours, as far as its fields go
//! registered   id, datum ─┬ the id of the last message ─▶ its schema
//!                         └ another one ─▶ UnknownSchema: to be looked up, then read again
//! ```

use std::sync::Arc;

use crate::avro_schemas::{AvroSchemaError, AvroSchemas};
use crate::codec::avro::framing::{AvroFraming, NO_HEADER, split_confluent};
use crate::codec::avro::inbound;
use crate::codec::avro::writer_schema::WrittenProducerRecord;
use crate::codec::inbound::{InboundRecord, RecordRejection};
use crate::codec::socket_error::SocketErrorCode;

/// Reads the messages of one socket.
#[derive(Debug)]
pub(in crate::socket) struct AvroMessages {
    pub(super) framing: AvroFraming,
    pub(super) schemas: AvroSchemas,
    /// The schema of the last message with a schema that is fit.
    last: Option<(u32, Arc<WrittenProducerRecord>)>,
}

/// What a message is.
pub(super) enum MessageRead<'a> {
    /// A record, or none.
    Record(Result<InboundRecord<'a>, RecordRejection<'a>>),
    /// To be read again when the schema with that id was looked up.
    UnknownSchema(u32),
}

impl AvroMessages {
    /// Nothing is read yet; acks are framed like that.
    pub(in crate::socket) fn new(framing: AvroFraming, schemas: AvroSchemas) -> Self {
        Self {
            framing,
            schemas,
            last: None,
        }
    }

    /// Reads a message.
    pub(super) fn read<'a>(&self, message: &'a [u8]) -> MessageRead<'a> {
        if self.framing == AvroFraming::Plain {
            return MessageRead::Record(inbound::read(message));
        }
        let Some((id, datum)) = split_confluent(message) else {
            return MessageRead::Record(Err(rejected(SocketErrorCode::InvalidRecord, NO_HEADER)));
        };
        match &self.last {
            Some((last, schema)) if *last == id => MessageRead::Record(schema.read(datum)),
            _ => MessageRead::UnknownSchema(id),
        }
    }

    /// The schema with that id was looked up.
    pub(super) fn learn(
        &mut self,
        id: u32,
        schema: Result<Arc<WrittenProducerRecord>, AvroSchemaError>,
    ) -> Result<(), RecordRejection<'static>> {
        match schema {
            Ok(schema) => {
                self.last = Some((id, schema));
                Ok(())
            }
            Err(error) => Err(rejected(error.code(), error.to_string())),
        }
    }
}

#[cold]
fn rejected(
    code: SocketErrorCode,
    message: impl Into<std::borrow::Cow<'static, str>>,
) -> RecordRejection<'static> {
    RecordRejection {
        code,
        message: message.into(),
        message_id: None,
    }
}
