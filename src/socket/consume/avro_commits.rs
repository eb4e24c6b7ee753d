//! The commits of a consuming socket with `socketPayload=avro`, by the schemas that they were
//! written with.
//!
//! ```text
//! plain        datum ─▶ ours, as far as its fields go
//! registered   id, datum ─┬ the id of the last commit ─▶ its schema
//!                         └ another one ─▶ look_up: it waits, and what comes behind it, too
//! ```
//!
//! The socket goes on meanwhile: records, rebalances, pings and signals wait for no registry.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::avro_schemas::{AvroSchemaError, AvroSchemas};
use crate::codec::avro::commit;
use crate::codec::avro::framing::{AvroFraming, NO_HEADER, split_confluent};
use crate::codec::avro::writer_schema::WrittenCommit;
use crate::codec::commit::{CommitMessage, CommitRejection};
use crate::codec::socket_error::{EchoedId, SocketErrorCode};

/// Messages that wait for a schema, at most; no more is taken from the client then.
const WAITING_MAX: usize = 64;
/// Their bytes, at most, but for the last one's.
const WAITING_BYTES_MAX: usize = 64 << 10;

/// Reads the commits of one socket.
#[derive(Debug, Default)]
pub(in crate::socket) struct AvroCommits {
    /// Whether an id stands in front of them.
    registered: bool,
    schemas: AvroSchemas,
    /// The schema of the last one with a schema that is fit.
    last: Option<(u32, Arc<WrittenCommit>)>,
    /// Boxed: an open socket seldom has any.
    waiting: Option<Box<WaitingCommits>>,
}

/// Messages behind one whose schema is being looked up.
struct WaitingCommits {
    id: u32,
    schema: BoxFuture<'static, Result<Arc<WrittenCommit>, AvroSchemaError>>,
    /// In the order in which they came.
    messages: VecDeque<Bytes>,
    bytes: usize,
}

impl std::fmt::Debug for WaitingCommits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (id, messages) = (self.id, self.messages.len());
        write!(f, "WaitingCommits {{ id: {id}, messages: {messages} }}")
    }
}

/// What a message is.
pub(super) enum CommitRead<'a> {
    /// A commit, or none.
    Commit(Result<CommitMessage<'a>, CommitRejection<'a>>),
    /// To be read again when the schema with that id was looked up.
    UnknownSchema(u32),
}

/// What has come of a look-up.
pub(super) struct SchemaLookUp {
    /// Why the first of the messages cannot be read, if it cannot.
    pub(super) rejection: Option<CommitRejection<'static>>,
    /// What has waited for it.
    pub(super) messages: VecDeque<Bytes>,
}

impl AvroCommits {
    /// Nothing is read yet.
    pub(in crate::socket) fn new(framing: AvroFraming, schemas: AvroSchemas) -> Self {
        Self {
            registered: framing != AvroFraming::Plain,
            schemas,
            last: None,
            waiting: None,
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

    /// Whether a message waits for its schema.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// Whether another message could wait.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.as_ref().is_none_or(|waiting| {
            waiting.messages.len() < WAITING_MAX && waiting.bytes < WAITING_BYTES_MAX
        })
    }

    /// Begins to look up the schema with that id, which `message` is of.
    pub(super) fn look_up(&mut self, id: u32, message: Bytes) {
        let schemas = self.schemas.clone();
        let mut waiting = WaitingCommits {
            id,
            schema: async move { schemas.commit(id).await }.boxed(),
            messages: VecDeque::new(),
            bytes: 0,
        };
        waiting.push(message);
        self.waiting = Some(Box::new(waiting));
    }

    /// Has a message wait behind the others; it is given back if there are none.
    pub(super) fn wait(&mut self, message: Bytes) -> Option<Bytes> {
        let Some(waiting) = &mut self.waiting else {
            return Some(message);
        };
        waiting.push(message);
        None
    }

    /// Until the look-up has ended. Cancel-safe. Pends while there is none.
    pub(super) async fn looked_up(&mut self) -> SchemaLookUp {
        let Some(waiting) = &mut self.waiting else {
            return std::future::pending().await;
        };
        let (id, schema) = (waiting.id, (&mut waiting.schema).await);
        let waiting = self.waiting.take();
        let rejection = match schema {
            Ok(schema) => {
                self.last = Some((id, schema));
                None
            }
            Err(error) => Some(rejected(error.code(), error.to_string())),
        };
        SchemaLookUp {
            rejection,
            messages: waiting.map(|waiting| waiting.messages).unwrap_or_default(),
        }
    }
}

impl WaitingCommits {
    fn push(&mut self, message: Bytes) {
        self.bytes += message.len();
        self.messages.push_back(message);
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
