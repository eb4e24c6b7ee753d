//! Messages of `/socket/in`: one record, or an array of them.
//!
//! ```text
//! {"headers":[{"key":"h","value":"v"}], "key":{"value":"k","format":"string"},
//!  "value":{"value":"v","format":"string"}, "messageId":"a", "partition":0, "timestamp":1}
//!
//!  message ─▶ begin, check_some ─── not JSON ─▶ one rejection for the message
//!              │
//!              ▼ next_record()                one per record, in order
//!            RecordFields: slices of the message ─▶ InboundRecord: Kafka's bytes, borrowed from
//!                    │                            the message or from the scratch buffer
//!                    ├─▶ RecordRejection: code, message, the messageId where it could be read
//!                    └─▶ none: the message is a command, which command() reads
//! ```
//!
//! # Invariants
//! - Either a message is JSON from end to end, or none of its records is handed out.
//! - An invalid record does not affect the others of its message.
//! - The memory needed beside the message is that of one record.
//!
//! # Decisions
//! - `null` in an optional field is as if the field were not there.
//! - A field `topic` must be that of the socket: records that are read from one topic and sent to
//!   another have to say so.
//! - A field that is a near miss of a known one makes the record invalid: what it says would be
//!   lost. Other unknown fields are ignored.
//! - A known field that occurs twice makes the record invalid: which of the two was meant
//!   cannot be known.
//! - `messageId` is a string. It is kept as the text it came as, and not unescaped.
//! - `timestamp` is not negative, as for Kafka's own producers.
//! - A header value's `format` may say `string` or `bytearray`.
//! - What has no `value` and a string `command` is a command. A record pays nothing for that: it is
//!   looked for only where there is no record.

mod field;
mod fields;
mod headers;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::VecDeque;

use super::command::{self, CommandMessage};
use super::format::RecordFormats;
use super::json::{JsonError, JsonScanner, RawJson};
use super::socket_error::SocketErrorCode;
use field::EXAMPLE;
use fields::RecordFields;
use headers::EncodedHeader;
use kafka_client::record::NewHeader;

/// Of so many bytes a record may take half a millisecond.
pub(crate) const LONG_RECORD_BYTES: usize = 64 << 10;

/// One record, ready for the producer.
#[derive(Debug)]
pub(crate) struct InboundRecord<'a> {
    /// The key's bytes; `None` without a key.
    pub(crate) key: Option<&'a [u8]>,
    /// The value's bytes; `None` is a tombstone.
    pub(crate) value: Option<&'a [u8]>,
    /// Milliseconds since 1970; `None` when the client leaves it to us.
    pub(crate) timestamp: Option<i64>,
    /// `None` when the client leaves it to the partitioner.
    pub(crate) partition: Option<i32>,
    /// To be sent back with the answer: a JSON string's text with its quotes.
    pub(crate) message_id: Option<&'a [u8]>,
    /// The headers, in order.
    pub(crate) headers: Vec<NewHeader<'a>>,
}

/// A record that cannot be produced, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecordRejection<'a> {
    /// `invalid_json`, `invalid_record` or `invalid_format`.
    pub(crate) code: SocketErrorCode,
    /// For people.
    pub(crate) message: Cow<'static, str>,
    /// A JSON string's text with its quotes, where it could be read.
    pub(crate) message_id: Option<&'a [u8]>,
}

/// The records of one message.
#[derive(Debug)]
pub(crate) struct ProduceMessage<'f> {
    formats: RecordFormats,
    scanner: JsonScanner<'f>,
    scratch: &'f mut Vec<u8>,
    /// Of one record at a time.
    headers: Vec<EncodedHeader<'f>>,
    state: ProduceMessageState,
    is_array: bool,
    len: usize,
    /// Where the long elements of the array begin: their brackets or commas.
    long_elements: VecDeque<usize>,
    /// Reads an array ahead, while it is checked.
    ahead: JsonScanner<'f>,
}

#[derive(Debug)]
enum ProduceMessageState {
    Single,
    /// `first`: no element was taken yet.
    Elements {
        first: bool,
    },
    Malformed(JsonError),
    /// The array is not yet known to be JSON to its end.
    Checking,
    Done,
    /// It was no record.
    Command,
}

impl<'f> ProduceMessage<'f> {
    /// Reads a message, which must be UTF-8. `scratch` holds what cannot be borrowed from
    /// the message, one record at a time; it may be kept for the next one.
    ///
    /// [`check_some`](Self::check_some) comes next, until it has checked everything.
    pub(crate) fn begin(
        formats: RecordFormats,
        message: &'f [u8],
        scratch: &'f mut Vec<u8>,
    ) -> ProduceMessage<'f> {
        debug_assert!(std::str::from_utf8(message).is_ok());
        let mut scanner = JsonScanner::new(message);
        let (state, len) = match scanner.peek() {
            Some(b'[') => match scanner.begin_array() {
                Ok(()) => (ProduceMessageState::Checking, 0),
                Err(error) => (ProduceMessageState::Malformed(error), 1),
            },
            _ => (ProduceMessageState::Single, 1),
        };
        ProduceMessage {
            formats,
            ahead: scanner.clone(),
            scanner,
            scratch,
            headers: Vec::new(),
            is_array: false,
            long_elements: VecDeque::new(),
            state,
            len,
        }
    }

    /// As [`begin`](Self::begin), and checks the whole message.
    #[cfg(test)]
    pub(crate) fn new(
        formats: RecordFormats,
        message: &'f [u8],
        scratch: &'f mut Vec<u8>,
    ) -> ProduceMessage<'f> {
        let mut message = Self::begin(formats, message, scratch);
        assert!(message.check_some(usize::MAX, usize::MAX));
        message
    }

    /// Validates an array before any of it is handed out, at most so many elements of it, and no
    /// further one after so many bytes; whether it has seen all of the message.
    pub(crate) fn check_some(&mut self, elements_max: usize, bytes_max: usize) -> bool {
        if self.is_checked() {
            return true;
        }
        let end = self.ahead.position().saturating_add(bytes_max);
        for _ in 0..elements_max {
            if self.ahead.position() >= end {
                return false;
            }
            match self.check_element() {
                Ok(true) => self.len += 1,
                Ok(false) => {
                    self.is_array = true;
                    self.state = ProduceMessageState::Elements { first: true };
                    return true;
                }
                // What is not JSON is no array either, whatever it begins with.
                Err(error) => {
                    self.len = 1;
                    self.state = ProduceMessageState::Malformed(error);
                    return true;
                }
            }
        }
        false
    }

    /// Whether [`check_some`](Self::check_some) has nothing to do.
    pub(crate) fn is_checked(&self) -> bool {
        !matches!(self.state, ProduceMessageState::Checking)
    }

    /// Whether there is one more element.
    fn check_element(&mut self) -> Result<bool, JsonError> {
        let from = self.ahead.position();
        if self.ahead.next_element(self.len == 0)? {
            self.ahead.value()?;
            if self.ahead.position() - from >= LONG_RECORD_BYTES {
                self.long_elements.push_back(from);
            }
            return Ok(true);
        }
        self.ahead.expect_end()?;
        Ok(false)
    }

    /// How many of the message's bytes have been handed out.
    pub(crate) fn position(&self) -> usize {
        self.scanner.position()
    }

    /// Whether the next record has [`LONG_RECORD_BYTES`] or more, so that
    /// [`next_record`](Self::next_record) takes long.
    pub(crate) fn next_is_long(&self) -> bool {
        match self.state {
            ProduceMessageState::Single => self.scanner.text().len() >= LONG_RECORD_BYTES,
            ProduceMessageState::Elements { .. } => {
                self.long_elements.front() == Some(&self.scanner.position())
            }
            _ => false,
        }
    }

    /// Whether it is an array, which is acked by an array.
    pub(crate) fn is_array(&self) -> bool {
        self.is_array
    }

    /// How many records, good or bad, the message has: how often `next_record` gives one.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether it is an empty array.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The command that the message is, where [`next_record`](Self::next_record) gave nothing because
    /// of that.
    pub(crate) fn command(&self) -> Option<CommandMessage<'f>> {
        match self.state {
            ProduceMessageState::Command => command::parse(self.scanner.text()),
            _ => None,
        }
    }

    /// The next record, which is for `topic`; it borrows from the message until the one after it
    /// is read.
    pub(crate) fn next_record(
        &mut self,
        topic: &str,
    ) -> Option<Result<InboundRecord<'_>, RecordRejection<'f>>> {
        let mut fields = RecordFields::default();
        match std::mem::replace(&mut self.state, ProduceMessageState::Done) {
            // Nothing is handed out of what has not been checked.
            ProduceMessageState::Done
            | ProduceMessageState::Checking
            | ProduceMessageState::Command => return None,
            ProduceMessageState::Malformed(error) => return Some(Err(not_json(error))),
            ProduceMessageState::Single => {
                let read = fields.read(&mut self.scanner, topic);
                if let Err(error) = read.and_then(|()| self.scanner.expect_end()) {
                    return Some(Err(not_json(error)));
                }
            }
            ProduceMessageState::Elements { first } => {
                if self.long_elements.front() == Some(&self.scanner.position()) {
                    self.long_elements.pop_front();
                }
                if !self.scanner.next_element(first).expect(COUNTED) {
                    return None;
                }
                self.state = ProduceMessageState::Elements { first: false };
                fields.read(&mut self.scanner, topic).expect(COUNTED);
            }
        }
        self.scratch.clear();
        self.headers.clear();
        match fields.encode(self.formats, self.scratch, &mut self.headers) {
            Ok(encoded) => Some(Ok(InboundRecord {
                key: encoded.key.map(|key| key.bytes(self.scratch)),
                value: encoded.value.map(|value| value.bytes(self.scratch)),
                headers: headers::borrow(&self.headers, self.scratch),
                timestamp: fields.timestamp,
                partition: fields.partition,
                message_id: fields.message_id.map(RawJson::text),
            })),
            Err(_) if !self.is_array && fields.is_command() => {
                self.state = ProduceMessageState::Command;
                self.len = 0;
                None
            }
            Err(error) => Some(Err(RecordRejection {
                code: error.code,
                // Not for each of an array: it is many times as long as what may be wrong there.
                message: match self.is_array || !fields.is_no_record() {
                    true => error.message,
                    false => format!("{}; {EXAMPLE}", error.message).into(),
                },
                message_id: fields.message_id.map(RawJson::text),
            })),
        }
    }
}

#[cold]
fn not_json(error: JsonError) -> RecordRejection<'static> {
    RecordRejection {
        code: SocketErrorCode::InvalidJson,
        message: format!("not JSON: {error}; {EXAMPLE}").into(),
        message_id: None,
    }
}

const COUNTED: &str = "the array was found to be JSON when its elements were counted";
