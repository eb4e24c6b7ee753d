//! The acks that a producing client has not been sent, in the order of its records.
//!
//! ```text
//! record ─▶ DeliveryFuture ─┐                         ┌─▶ frame
//! record ─▶ error ──────────┤                         ├─▶ frame
//! command ─▶ answer ────────┼▶ queue ─ front is ready ┼─▶ frame
//! array of records ─────────┘                         └─▶ one message per array, in fragments if long
//! ```
//!
//! Only the future at the front is polled. Those of one batch resolve together, so one
//! wake-up acks the whole batch into one buffer, for one write.
//!
//! # Invariants
//! - Acks leave in the order in which their records came.
//! - The queue is bounded in records and in bytes: the socket checks
//!   [`PendingAcks::has_room`] before it adds.
//! - Of the message of a transactional socket no ack leaves before it is known whether the message
//!   is written at all.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::{Buf, BufMut, BytesMut};

use crate::codec::ack;
use crate::codec::avro;
use crate::codec::avro::framing::AvroFraming;
use crate::codec::socket_error::{self, EchoedId, SocketErrorCode};
use crate::metrics::sockets::SocketMetrics;
use crate::metrics::topics::TopicCounters;
use crate::socket::commands::CommandAnswer;
use crate::socket::compression;
use kafka_client::producer::{DeliveryFuture, FrameDelivery, ProduceError, RecordMetadata};
use websocket::deflate::PermessageDeflate;
use websocket::frame::{self, Opcode};

/// Records of one socket that may be pending.
const PENDING_RECORDS_MAX: usize = 10_000;
/// From this size on an array's acks leave before it is complete: the acks of a short message
/// can be many times its length.
const FRAGMENT_BYTES: usize = 64 << 10;
/// What an entry takes beside its record.
const ENTRY_BYTES: usize = 64;

/// The queue of one socket.
#[derive(Debug)]
pub(super) struct PendingAcks {
    topic: Arc<str>,
    /// Of the acks of datums.
    framing: AvroFraming,
    queue: VecDeque<PendingAck>,
    /// The `messageId`s of the queue, one after another.
    message_ids: BytesMut,
    bytes: usize,
    bytes_max: usize,
    counted: CountedAcks,
    /// How many at the end of the queue are of the message that is being read, in a transaction.
    unsent: usize,
    /// The array under way, as far as it is not in a frame.
    array: BytesMut,
    /// Whether a part of it is in a frame.
    array_begun: bool,
}

/// What became of a message, or of a record of it.
#[derive(Debug)]
pub(super) enum AckState {
    /// It went to the producer; the future resolves to its ack.
    Sent(DeliveryFuture),
    /// It is of a message that is not sent before it is read to its end.
    Unsent,
    /// It went to the transactional producer; the future resolves when its message is committed.
    InTransaction(FrameDelivery),
    /// It was rejected.
    Rejected(Box<(SocketErrorCode, String)>),
    /// It was a command instead.
    Answered(Box<CommandAnswer>),
}

/// Where in its message a record stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MessagePosition {
    /// Alone, not in an array.
    Single,
    /// In an array: whether first, whether last.
    ArrayElement { first: bool, last: bool },
    /// Alone, in Avro.
    Datum,
}

#[derive(Debug)]
struct PendingAck {
    state: AckState,
    position: MessagePosition,
    /// Length of the `messageId`, as it came encoded; 0 without one.
    id_len: u32,
    /// What it counts for in the bound of bytes.
    bytes: u32,
}

/// What of a queue is in the metrics.
#[derive(Debug)]
struct CountedAcks {
    metrics: Arc<SocketMetrics>,
    topic: Arc<TopicCounters>,
    /// How many acks are counted as pending.
    pending: usize,
}

impl CountedAcks {
    fn new(topic: &Arc<str>, metrics: Arc<SocketMetrics>) -> Self {
        Self {
            topic: metrics.topics.counters(topic),
            metrics,
            pending: 0,
        }
    }

    /// So many records, of so many bytes, were produced, and so many acks are pending.
    fn note(&mut self, records: u64, bytes: u64, pending: usize) {
        if records > 0 {
            self.topic.produced_records.add(records);
            self.topic.produced_bytes.add(bytes);
        }
        if pending != self.pending {
            let difference = pending as i64 - self.pending as i64;
            self.metrics.pending_acks.add(difference);
            self.pending = pending;
        }
    }
}

impl Drop for CountedAcks {
    fn drop(&mut self) {
        self.note(0, 0, 0);
    }
}

impl PendingAcks {
    /// An empty queue; `bytes_max` bounds the bytes of records pending.
    pub(super) fn new(
        topic: Arc<str>,
        metrics: Arc<SocketMetrics>,
        framing: AvroFraming,
        bytes_max: usize,
    ) -> Self {
        Self {
            counted: CountedAcks::new(&topic, metrics),
            topic,
            framing,
            queue: VecDeque::new(),
            message_ids: BytesMut::new(),
            bytes: 0,
            bytes_max,
            unsent: 0,
            array: BytesMut::new(),
            array_begun: false,
        }
    }

    /// Whether every record was acked.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether one more record may be taken.
    pub(super) fn has_room(&self) -> bool {
        self.queue.len() < PENDING_RECORDS_MAX && self.bytes < self.bytes_max
    }

    /// Appends the answer to a command.
    pub(super) fn push_answer(&mut self, answer: CommandAnswer) {
        let size = answer.text().len();
        let state = AckState::Answered(Box::new(answer));
        self.push(state, MessagePosition::Single, None, size);
    }

    /// Appends the ack of a record of `size` bytes.
    pub(super) fn push(
        &mut self,
        state: AckState,
        position: MessagePosition,
        message_id: Option<&[u8]>,
        size: usize,
    ) {
        let id = message_id.unwrap_or_default();
        self.message_ids.put_slice(id);
        let bytes = (size + id.len() + ENTRY_BYTES).min(u32::MAX as usize);
        self.bytes += bytes;
        self.queue.push_back(PendingAck {
            state,
            position,
            id_len: id.len() as u32,
            bytes: bytes as u32,
        });
    }

    /// Appends the ack of a record of a message that is written as a whole, or not at all.
    pub(super) fn push_unsent(
        &mut self,
        state: AckState,
        position: MessagePosition,
        message_id: Option<&[u8]>,
        size: usize,
    ) {
        self.unsent += 1;
        self.push(state, position, message_id, size);
    }

    /// The message of the records that were pushed unsent was sent.
    pub(super) fn end_sent(&mut self, deliveries: impl IntoIterator<Item = FrameDelivery>) {
        let unsent = std::mem::take(&mut self.unsent);
        let first = self.queue.len() - unsent;
        for (pending, delivery) in self.queue.range_mut(first..).zip(deliveries) {
            pending.state = AckState::InTransaction(delivery);
        }
    }

    /// The message of the records that were pushed unsent is not written, for that reason.
    pub(super) fn end_aborted(&mut self, reason: &str) {
        let unsent = std::mem::take(&mut self.unsent);
        let first = self.queue.len() - unsent;
        for pending in self.queue.range_mut(first..) {
            if matches!(pending.state, AckState::Unsent) {
                let error = (SocketErrorCode::Aborted, reason.to_owned());
                pending.state = AckState::Rejected(Box::new(error));
            }
        }
    }

    /// Writes every ack that is ready, until `out` holds `out_max` bytes; compressed by `deflate`.
    pub(super) fn write_ready(
        &mut self,
        out: &mut BytesMut,
        out_max: usize,
        deflate: Option<PermessageDeflate>,
    ) {
        let (records, bytes) = self.write_results(out, out_max, deflate);
        self.counted.note(records, bytes, self.queue.len());
    }

    /// Of how many records that were produced it wrote the acks, and the bytes of these records.
    fn write_results(
        &mut self,
        out: &mut BytesMut,
        out_max: usize,
        deflate: Option<PermessageDeflate>,
    ) -> (u64, u64) {
        let mut produced = (0, 0);
        while out.len() < out_max && self.queue.len() > self.unsent {
            let Some(front) = self.queue.front() else {
                break;
            };
            let result = match &front.state {
                AckState::Sent(delivery) => delivery.try_result().map(ack_result),
                AckState::InTransaction(delivery) => delivery.try_result().map(ack_result),
                AckState::Unsent => None,
                AckState::Rejected(error) => Some(Err((error.0, error.1.clone()))),
                AckState::Answered(answer) => {
                    compression::write_message(out, Opcode::Text, answer.text(), deflate);
                    self.bytes -= front.bytes as usize;
                    self.queue.pop_front();
                    continue;
                }
            };
            let Some(result) = result else {
                break;
            };
            let (position, id_len, bytes) = (front.position, front.id_len as usize, front.bytes);
            match &result {
                Ok(_) => {
                    produced.0 += 1;
                    produced.1 += u64::from(bytes) - (id_len + ENTRY_BYTES) as u64;
                }
                Err((code, _)) => self.counted.metrics.record_failed(*code),
            }
            self.write_ack(out, deflate, result, position, id_len);
            self.message_ids.advance(id_len);
            self.bytes -= bytes as usize;
            self.queue.pop_front();
        }
        produced
    }

    /// Until the oldest ack is ready. Pends while the queue is empty.
    pub(super) async fn ready(&mut self) {
        if self.queue.len() <= self.unsent {
            return poll_fn(|_| Poll::<()>::Pending).await;
        }
        match self.queue.front_mut().map(|pending| &mut pending.state) {
            Some(AckState::Sent(delivery)) => {
                poll_fn(|cx| Pin::new(&mut *delivery).poll(cx).map(|_| ())).await;
            }
            Some(AckState::InTransaction(delivery)) => {
                poll_fn(|cx| Pin::new(&mut *delivery).poll(cx).map(|_| ())).await;
            }
            _ => {}
        }
    }

    /// Frees memory, if the queue is empty.
    pub(super) fn shrink(&mut self) {
        if self.is_empty() {
            self.queue = VecDeque::new();
            self.message_ids = BytesMut::new();
            if self.array.is_empty() {
                self.array = BytesMut::new();
            }
        }
    }

    fn write_ack(
        &mut self,
        out: &mut BytesMut,
        deflate: Option<PermessageDeflate>,
        result: AckResult,
        position: MessagePosition,
        id_len: usize,
    ) {
        let id = &self.message_ids[..id_len];
        let id = (!id.is_empty()).then_some(id);
        match position {
            MessagePosition::Single => {
                let start = frame::begin_frame(out);
                write_result(out, &self.topic, result, EchoedId::message_id(id));
                compression::end_message(out, start, Opcode::Text, deflate);
            }
            MessagePosition::Datum => {
                let start = frame::begin_frame(out);
                let opcode = write_datum_result(out, &self.topic, self.framing, result, id);
                compression::end_message(out, start, opcode, deflate);
            }
            MessagePosition::ArrayElement { first, last } => {
                self.array.put_u8(if first { b'[' } else { b',' });
                write_result(
                    &mut self.array,
                    &self.topic,
                    result,
                    EchoedId::message_id(id),
                );
                if last {
                    self.array.put_u8(b']');
                }
                if last && !self.array_begun {
                    compression::write_message(out, Opcode::Text, &self.array, deflate);
                    self.array.clear();
                } else if last || self.array.len() >= FRAGMENT_BYTES {
                    frame::write_text_fragment(out, &self.array, !self.array_begun, last);
                    self.array_begun = !last;
                    self.array.clear();
                }
            }
        }
    }
}

/// What is in the log, or why it is not.
type AckResult = Result<RecordMetadata, (SocketErrorCode, String)>;

fn ack_result(delivered: Result<RecordMetadata, ProduceError>) -> AckResult {
    delivered.map_err(|error| (error_code(&error), error.to_string()))
}

fn write_result(out: &mut BytesMut, topic: &str, result: AckResult, id: EchoedId<'_>) {
    match result {
        Ok(metadata) => {
            let RecordMetadata {
                partition,
                offset,
                timestamp,
                ..
            } = metadata;
            ack::write_ack(out, topic, partition, offset, timestamp, id);
        }
        Err((code, message)) => socket_error::write_error(out, code, message, id),
    }
}

/// An ack in Avro, or an error, which is text. The `messageId` is encoded.
fn write_datum_result(
    out: &mut BytesMut,
    topic: &str,
    framing: AvroFraming,
    result: AckResult,
    message_id: Option<&[u8]>,
) -> Opcode {
    match result {
        Ok(RecordMetadata {
            partition,
            offset,
            timestamp,
            ..
        }) => {
            let place = (partition, offset, timestamp);
            avro::ack::write_ack(out, framing, topic, place, message_id);
            Opcode::Binary
        }
        Err((code, message)) => {
            let id = message_id.map(avro::inbound::string_content);
            let id = id.map_or(EchoedId::None, EchoedId::PlainMessageId);
            socket_error::write_error(out, code, message, id);
            Opcode::Text
        }
    }
}

/// The ack's code for a record that was not produced.
pub(super) fn error_code(error: &ProduceError) -> SocketErrorCode {
    match error {
        ProduceError::TooLarge { .. } => SocketErrorCode::TooLarge,
        ProduceError::NotAuthorized { .. } => SocketErrorCode::NotAuthorized,
        ProduceError::TimedOut { .. } | ProduceError::BufferExhausted => SocketErrorCode::TimedOut,
        ProduceError::UnknownOutcome { .. } => SocketErrorCode::UnknownOutcome,
        ProduceError::InvalidPartition { .. } => SocketErrorCode::InvalidRecord,
        ProduceError::Aborted { .. } | ProduceError::Fenced { .. } => SocketErrorCode::Aborted,
        ProduceError::UnknownTopic { .. }
        | ProduceError::Rejected { .. }
        | ProduceError::Stopped => SocketErrorCode::BrokerError,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::command;
    use crate::socket::commands::{self, CommandStep};

    fn rejected(text: &str) -> AckState {
        AckState::Rejected(Box::new((SocketErrorCode::InvalidRecord, text.to_owned())))
    }

    fn metrics() -> Arc<SocketMetrics> {
        Arc::new(SocketMetrics::new(1))
    }

    fn pending_acks() -> PendingAcks {
        PendingAcks::new("t".into(), metrics(), AvroFraming::Plain, 1 << 20)
    }

    #[test]
    fn acks_leave_in_order_with_their_message_ids() {
        let mut acks = pending_acks();
        acks.push(rejected("a"), MessagePosition::Single, Some(b"\"1\""), 10);
        acks.push(rejected("b"), MessagePosition::Single, None, 10);
        let mut out = BytesMut::new();
        acks.write_ready(&mut out, 1 << 20, None);
        let text = String::from_utf8_lossy(&out).into_owned();
        let first = text.find(r#""message":"a"},"messageId":"1"}"#).unwrap();
        assert!(first < text.find(r#""message":"b"}}"#).unwrap());
        assert!(acks.is_empty());
        assert_eq!(acks.bytes, 0);
    }

    #[test]
    fn a_commands_answer_stands_in_the_order_of_the_acks_and_counts_for_no_record() {
        let mut acks = pending_acks();
        acks.push(rejected("a"), MessagePosition::Single, Some(b"\"1\""), 10);
        let command = command::parse(br#"{"command":"x"}"#).unwrap();
        let CommandStep::Answer(answer) = commands::begin(&command) else {
            panic!("there is no such command");
        };
        acks.push_answer(answer);
        acks.push(rejected("b"), MessagePosition::Single, Some(b"\"2\""), 10);
        let mut out = BytesMut::new();
        assert_eq!(acks.write_results(&mut out, 1 << 20, None), (0, 0));
        let text = String::from_utf8_lossy(&out).into_owned();
        let places = ["\"1\"", r#"{"command":"x","#, "\"2\""].map(|part| text.find(part).unwrap());
        assert!(places.is_sorted(), "{text}");
        assert!(acks.is_empty());
        assert_eq!(acks.bytes, 0);
    }

    #[test]
    fn no_ack_of_a_message_in_a_transaction_leaves_before_the_message_is_read() {
        let mut acks = pending_acks();
        let written = |acks: &mut PendingAcks| {
            let mut out = BytesMut::new();
            acks.write_ready(&mut out, 1 << 20, None);
            String::from_utf8_lossy(&out).into_owned()
        };
        acks.push(rejected("before"), MessagePosition::Single, None, 10);
        for (n, state) in [rejected("bad"), AckState::Unsent].into_iter().enumerate() {
            let position = MessagePosition::ArrayElement {
                first: n == 0,
                last: n == 1,
            };
            acks.push_unsent(state, position, None, 10);
        }
        let text = written(&mut acks);
        assert!(text.contains("before") && !text.contains("bad"), "{text}");
        assert!(!acks.is_empty());
        acks.end_aborted("another");
        let text = written(&mut acks);
        let places = [
            r#""code":"invalid_record","message":"bad""#,
            r#""code":"aborted","message":"another""#,
        ];
        let places = places.map(|part| text.find(part).unwrap());
        assert!(places.is_sorted(), "{text}");
        assert!(acks.is_empty());
        assert_eq!(acks.bytes, 0);
    }

    #[test]
    fn an_array_is_acked_by_one_array() {
        let mut acks = pending_acks();
        for i in 0..3 {
            let position = MessagePosition::ArrayElement {
                first: i == 0,
                last: i == 2,
            };
            acks.push(rejected("x"), position, None, 10);
        }
        let mut out = BytesMut::new();
        acks.write_ready(&mut out, 1 << 20, None);
        let payload: Vec<serde_json::Value> = serde_json::from_slice(&out[4..]).unwrap();
        assert_eq!(payload.len(), 3);
    }

    #[test]
    fn the_acks_of_a_long_array_leave_in_fragments() {
        let mut acks = pending_acks();
        let long = "x".repeat(FRAGMENT_BYTES / 2);
        for i in 0..5 {
            let position = MessagePosition::ArrayElement {
                first: i == 0,
                last: i == 4,
            };
            acks.push(rejected(&long), position, None, 10);
        }
        let (mut message, mut opcodes) = (Vec::new(), Vec::new());
        while !acks.is_empty() {
            let mut out = BytesMut::new();
            acks.write_ready(&mut out, 1, None);
            assert!(out.len() < 2 * FRAGMENT_BYTES, "what is held is bounded");
            opcodes.push(out[0]);
            let header = match out[1] {
                127 => 10,
                126 => 4,
                _ => 2,
            };
            message.extend_from_slice(&out[header..]);
        }
        // Text without FIN, a continuation without it, a continuation with it.
        assert_eq!(opcodes, [0x01, 0x00, 0x80]);
        let answers: Vec<serde_json::Value> = serde_json::from_slice(&message).unwrap();
        assert_eq!(answers.len(), 5);
    }

    #[test]
    fn a_full_write_buffer_holds_acks_back_and_the_bound_holds_records_back() {
        let mut acks = PendingAcks::new("t".into(), metrics(), AvroFraming::Plain, 200);
        while acks.has_room() {
            acks.push(rejected("x"), MessagePosition::Single, None, 36);
        }
        assert_eq!(acks.queue.len(), 2);
        let mut out = BytesMut::new();
        acks.write_ready(&mut out, 1, None);
        assert_eq!(acks.queue.len(), 1);
        assert!(acks.has_room());
    }
}
