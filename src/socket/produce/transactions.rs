//! The messages of a transactional socket: each is written in one transaction, as a whole or not at
//! all.
//!
//! ```text
//! record ─▶ frame ─ end of the message ─┬ no record has a fault ─▶ TransactionalProducer
//!             │                         └ one has ───────────────▶ nothing: the others are aborted
//!             └▶ PendingAcks (unsent) ──────── one future per record ◀──────────┘
//! ```
//!
//! What comes while a transaction is under way is written by the next one: the producer does that.

use std::sync::Arc;

use kafka_client::metadata::TopicMetadata;
use kafka_client::producer::{TransactionError, TransactionFrame, TransactionalProducer};
use kafka_client::record::NewRecord;
use websocket::frame::{CloseCode, CloseFrame};

use super::pending_acks::PendingAcks;
use crate::socket::close::CloseReason;

/// What the records of a message are answered of which another has a fault.
const ANOTHER_IS_FAULTY: &str = "not written: another record of the message has a fault";
/// What they are answered whose message was not read to its end.
pub(super) const NOT_WHOLE: &str = "not written: the socket closed within the message";

/// The transactions of one socket.
#[derive(Debug)]
pub(in crate::socket) struct SocketTransactions {
    producer: TransactionalProducer,
    /// The message that is being read.
    frame: TransactionFrame,
    /// Whether a record of it has a fault.
    is_faulty: bool,
}

impl SocketTransactions {
    pub(in crate::socket) fn new(producer: TransactionalProducer) -> Self {
        Self {
            producer,
            frame: TransactionFrame::default(),
            is_faulty: false,
        }
    }

    /// Adds a record to the message that is being read.
    pub(super) fn add(
        &mut self,
        topic: &Arc<TopicMetadata>,
        partition: Option<i32>,
        record: &NewRecord<'_>,
    ) {
        // The others of the message are only answered.
        if !self.is_faulty {
            self.frame.push(topic, partition, record);
        }
    }

    /// A record of the message that is being read cannot be written.
    pub(super) fn add_fault(&mut self) {
        self.is_faulty = true;
        self.frame = TransactionFrame::default();
    }

    /// The message is read: its records are written, or none of them.
    pub(super) fn end_message(&mut self, acks: &mut PendingAcks) {
        let frame = std::mem::take(&mut self.frame);
        match std::mem::take(&mut self.is_faulty) {
            true => acks.end_aborted(ANOTHER_IS_FAULTY),
            false if frame.is_empty() => {}
            false => acks.end_sent(self.producer.send(frame)),
        }
    }

    /// Until nothing can be written any more. Cancel-safe.
    pub(super) async fn failed(&self) -> CloseReason {
        let error = self.producer.failed().await;
        let code = match &error {
            TransactionError::Fenced { .. } => return CloseReason::fenced(),
            TransactionError::NotAuthorized { .. } => CloseCode::POLICY_VIOLATION,
            _ => CloseCode::INTERNAL_ERROR,
        };
        CloseReason::Fail(CloseFrame::new(
            code,
            "its transactions have failed (see the log)",
        ))
    }

    /// The socket closes for that reason: what was sent is committed, or aborted. Every record of it
    /// has its result then.
    pub(super) async fn end(self, reason: &CloseReason) {
        match commits(reason) {
            true => self.producer.close().await,
            false => self.producer.abort().await,
        }
    }
}

/// Whether a socket that ends so has sent all that it wanted to: RFC 6455 (section 7.1.4) calls it
/// closed cleanly, and a server that stops commits what it has accepted.
fn commits(reason: &CloseReason) -> bool {
    matches!(
        reason,
        CloseReason::PeerClosed(_) | CloseReason::ServerStopping { .. }
    )
}
