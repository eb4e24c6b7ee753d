//! What a producing client is still owed, in the order of its records.
//!
//! ```text
//! record ─▶ ticket ─┐                        ┌─▶ frame
//! record ─▶ fault  ─┼▶ queue ─ front settled ┼─▶ frame
//! array of records ─┘                        └─▶ one message per array, in fragments if long
//! ```
//!
//! Only the ticket at the front is waited for. Tickets of one batch settle together, so
//! one wake-up answers the whole batch into one buffer, for one write.
//!
//! # Invariants
//! - Answers leave in the order in which their records came.
//! - The queue is bounded in records and in bytes by whoever asks [`Answers::has_room`]
//!   before adding.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::{Buf, BufMut, BytesMut};

use crate::codec::ack::{self, EchoedId, SocketErrorCode};
use kafka_client::producer::{DeliveryFuture, ProduceError, RecordMetadata};
use websocket::frame::{self, Opcode};

/// Records of one socket that may be unanswered.
const RECORDS_MAX: usize = 10_000;
/// From this size on an array's answers leave before it is complete: a short frame can ask
/// for answers of many times its length.
const FRAGMENT_BYTES: usize = 64 << 10;
/// What an entry costs beside its record.
const ENTRY_BYTES: usize = 64;

/// The queue of one socket.
#[derive(Debug)]
pub(super) struct Answers {
    topic: Arc<str>,
    owed: VecDeque<Owed>,
    /// The `messageId`s of what is owed, one after another.
    ids: BytesMut,
    bytes: usize,
    bytes_max: usize,
    /// The array under way, as far as it is not in a frame.
    array: BytesMut,
    /// Whether a part of it is in a frame.
    array_begun: bool,
}

/// What became of a record, or will.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is with the producer.
    Sent(DeliveryFuture),
    /// It is refused.
    Refused(Box<(SocketErrorCode, String)>),
}

/// Where in its frame a record stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Position {
    /// Alone, not in an array.
    Alone,
    /// In an array: whether first, whether last.
    Element { first: bool, last: bool },
}

#[derive(Debug)]
struct Owed {
    outcome: Outcome,
    position: Position,
    /// Length of the `messageId`; 0 without one.
    id: u32,
    cost: u32,
}

impl Answers {
    /// Nothing owed yet; `bytes_max` bounds the bytes of records unanswered.
    pub(super) fn new(topic: Arc<str>, bytes_max: usize) -> Self {
        Self {
            topic,
            owed: VecDeque::new(),
            ids: BytesMut::new(),
            bytes: 0,
            bytes_max,
            array: BytesMut::new(),
            array_begun: false,
        }
    }

    /// Whether nothing is owed.
    pub(super) fn is_empty(&self) -> bool {
        self.owed.is_empty()
    }

    /// Whether one more record may be taken.
    pub(super) fn has_room(&self) -> bool {
        self.owed.len() < RECORDS_MAX && self.bytes < self.bytes_max
    }

    /// Owes an answer; `size` is the record's, in bytes.
    pub(super) fn push(
        &mut self,
        outcome: Outcome,
        position: Position,
        message_id: Option<&[u8]>,
        size: usize,
    ) {
        let id = message_id.unwrap_or_default();
        self.ids.put_slice(id);
        let cost = (size + id.len() + ENTRY_BYTES).min(u32::MAX as usize);
        self.bytes += cost;
        self.owed.push_back(Owed {
            outcome,
            position,
            id: id.len() as u32,
            cost: cost as u32,
        });
    }

    /// Writes every answer that can be given now, until `out` holds `out_max` bytes.
    pub(super) fn drain(&mut self, out: &mut BytesMut, out_max: usize) {
        while out.len() < out_max {
            let Some(front) = self.owed.front() else {
                return;
            };
            let settled = match &front.outcome {
                Outcome::Sent(ticket) => match ticket.poll_now() {
                    None => return,
                    Some(Ok(ack)) => Ok(ack),
                    Some(Err(error)) => Err((code(&error), error.to_string())),
                },
                Outcome::Refused(refused) => Err((refused.0, refused.1.clone())),
            };
            let (position, id, cost) = (front.position, front.id as usize, front.cost);
            self.write(out, settled, position, id);
            self.ids.advance(id);
            self.bytes -= cost as usize;
            self.owed.pop_front();
        }
    }

    /// Until the oldest answer can be given. Pends while nothing is owed.
    pub(super) async fn settled(&mut self) {
        let front = self.owed.front_mut().map(|owed| &mut owed.outcome);
        if let Some(Outcome::Sent(ticket)) = front {
            poll_fn(|cx| Pin::new(&mut *ticket).poll(cx).map(|_| ())).await;
        } else if front.is_none() {
            poll_fn(|_| Poll::<()>::Pending).await;
        }
    }

    /// Gives memory back after a busy time. For when nothing is owed.
    pub(super) fn shrink(&mut self) {
        if self.is_empty() {
            self.owed = VecDeque::new();
            self.ids = BytesMut::new();
            if self.array.is_empty() {
                self.array = BytesMut::new();
            }
        }
    }

    fn write(
        &mut self,
        out: &mut BytesMut,
        settled: Result<RecordMetadata, (SocketErrorCode, String)>,
        position: Position,
        id: usize,
    ) {
        let id = &self.ids[..id];
        let echo = EchoedId::message_id((!id.is_empty()).then_some(id));
        match position {
            Position::Alone => {
                let mark = frame::begin_frame(out);
                write_one(out, &self.topic, settled, echo);
                frame::end_frame(out, mark, Opcode::Text);
            }
            Position::Element { first, last } => {
                self.array.put_u8(if first { b'[' } else { b',' });
                write_one(&mut self.array, &self.topic, settled, echo);
                if last {
                    self.array.put_u8(b']');
                }
                if last || self.array.len() >= FRAGMENT_BYTES {
                    frame::write_text_fragment(out, &self.array, !self.array_begun, last);
                    self.array_begun = !last;
                    self.array.clear();
                }
            }
        }
    }
}

fn write_one(
    out: &mut BytesMut,
    topic: &str,
    settled: Result<RecordMetadata, (SocketErrorCode, String)>,
    echo: EchoedId<'_>,
) {
    match settled {
        Ok(ack) => ack::write_ack(out, topic, ack.partition, ack.offset, ack.timestamp, echo),
        Err((code, message)) => ack::write_error(out, code, message, echo),
    }
}

/// The answer's code for a record that was not acknowledged.
pub(super) fn code(error: &ProduceError) -> SocketErrorCode {
    match error {
        ProduceError::TooLarge { .. } => SocketErrorCode::TooLarge,
        ProduceError::NotAuthorized { .. } => SocketErrorCode::NotAuthorized,
        ProduceError::TimedOut { .. } => SocketErrorCode::TimedOut,
        ProduceError::UnknownOutcome { .. } => SocketErrorCode::UnknownOutcome,
        ProduceError::InvalidPartition { .. } => SocketErrorCode::InvalidRecord,
        ProduceError::UnknownTopic { .. }
        | ProduceError::Rejected { .. }
        | ProduceError::Stopped => SocketErrorCode::BrokerError,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> Outcome {
        Outcome::Refused(Box::new((SocketErrorCode::InvalidRecord, text.to_owned())))
    }

    fn answers() -> Answers {
        Answers::new("t".into(), 1 << 20)
    }

    #[test]
    fn answers_leave_in_order_with_their_message_ids() {
        let mut answers = answers();
        answers.push(refused("a"), Position::Alone, Some(b"\"1\""), 10);
        answers.push(refused("b"), Position::Alone, None, 10);
        let mut out = BytesMut::new();
        answers.drain(&mut out, 1 << 20);
        let text = String::from_utf8_lossy(&out).into_owned();
        let first = text.find(r#""message":"a"},"messageId":"1"}"#).unwrap();
        assert!(first < text.find(r#""message":"b"}}"#).unwrap());
        assert!(answers.is_empty());
        assert_eq!(answers.bytes, 0);
    }

    #[test]
    fn an_array_is_answered_by_one_array() {
        let mut answers = answers();
        for i in 0..3 {
            let position = Position::Element {
                first: i == 0,
                last: i == 2,
            };
            answers.push(refused("x"), position, None, 10);
        }
        let mut out = BytesMut::new();
        answers.drain(&mut out, 1 << 20);
        let payload: Vec<serde_json::Value> = serde_json::from_slice(&out[4..]).unwrap();
        assert_eq!(payload.len(), 3);
    }

    #[test]
    fn a_long_array_leaves_in_fragments_as_it_settles() {
        let mut answers = answers();
        let long = "x".repeat(FRAGMENT_BYTES / 2);
        for i in 0..5 {
            let position = Position::Element {
                first: i == 0,
                last: i == 4,
            };
            answers.push(refused(&long), position, None, 10);
        }
        let (mut message, mut opcodes) = (Vec::new(), Vec::new());
        while !answers.is_empty() {
            let mut out = BytesMut::new();
            answers.drain(&mut out, 1);
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
    fn a_full_out_buffer_holds_answers_back_and_the_bound_holds_records_back() {
        let mut answers = Answers::new("t".into(), 200);
        while answers.has_room() {
            answers.push(refused("x"), Position::Alone, None, 36);
        }
        assert_eq!(answers.owed.len(), 2);
        let mut out = BytesMut::new();
        answers.drain(&mut out, 1);
        assert_eq!(answers.owed.len(), 1);
        assert!(answers.has_room());
    }
}
