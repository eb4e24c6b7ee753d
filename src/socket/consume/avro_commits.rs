//! The commits of a consuming socket with `socketPayload=avro`, by the schemas that they were
//! written with.

use std::sync::Arc;

use crate::avro_schemas::AvroSchemas;
use crate::codec::avro::commit;
use crate::codec::avro::framing::{AvroFraming, NO_HEADER, split_confluent};
use crate::codec::avro::writer_schema::WrittenCommit;
use crate::codec::commit::{CommitMessage, CommitRejection};
use crate::codec::socket_error::{EchoedId, SocketErrorCode};

/// Reads the commits of one socket.
#[derive(Debug, Default)]
pub(in crate::socket) struct AvroCommits {
    /// Whether an id stands in front of them.
    registered: bool,
    schemas: AvroSchemas,
    /// The schema of the last one with a schema that is fit.
    last: Option<(u32, Arc<WrittenCommit>)>,
}

/// What a message is.
pub(super) enum CommitRead<'a> {
    /// A commit, or none.
    Commit(Result<CommitMessage<'a>, CommitRejection<'a>>),
    /// To be read again when the schema with that id was learnt.
    UnknownSchema(u32),
}

impl AvroCommits {
    /// Nothing is read yet.
    pub(in crate::socket) fn new(framing: AvroFraming, schemas: AvroSchemas) -> Self {
        Self {
            registered: framing != AvroFraming::Plain,
            schemas,
            last: None,
        }
    }

    /// Reads a message.
    pub(super) fn read<'a>(&self, message: &'a [u8]) -> CommitRead<'a> {
        if !self.registered {
            return CommitRead::Commit(commit::read(message));
        }
        let Some((id, datum)) = split_confluent(message) else {
            let rejection = rejected(SocketErrorCode::InvalidRecord, NO_HEADER.to_owned());
            return CommitRead::Commit(Err(rejection));
        };
        match &self.last {
            Some((last, schema)) if *last == id => CommitRead::Commit(schema.read(datum)),
            _ => CommitRead::UnknownSchema(id),
        }
    }

    /// Looks up the schema with that id.
    pub(super) async fn learn(&mut self, id: u32) -> Result<(), CommitRejection<'static>> {
        match self.schemas.commit(id).await {
            Ok(schema) => {
                self.last = Some((id, schema));
                Ok(())
            }
            Err(error) => Err(rejected(error.code(), error.to_string())),
        }
    }
}

#[cold]
fn rejected(code: SocketErrorCode, message: String) -> CommitRejection<'static> {
    CommitRejection {
        code,
        message: message.into(),
        echoed_id: EchoedId::None,
    }
}
