//! Frames of `/socket/in`: one record, or an array of them.
//!
//! ```text
//! {"headers":[{"key":"h","value":"v"}], "key":{"value":"k","format":"string"},
//!  "value":{"value":"v","format":"string"}, "messageId":"a", "partition":0, "timestamp":1}
//!
//!  frame ─▶ Frame::new ── not JSON ─▶ one refusal for the frame
//!              │
//!              ▼ next()                       per record, in order
//!            Fields: slices of the frame ─▶ InboundRecord: Kafka's bytes, borrowed from
//!                    │                      the frame or from the scratch buffer
//!                    └─▶ Refusal: code, message, the messageId where it could be read
//! ```
//!
//! # Invariants
//! - Either a frame is JSON from end to end, or none of its records is given out.
//! - A bad record spoils nothing but itself.
//! - What the memory needed beside the frame is depends on one record at a time.
//!
//! # Decisions
//! - `null` in an optional field is as if the field were not there.
//! - A known field that occurs twice makes the record invalid: which of the two was meant
//!   cannot be known. Unknown fields may occur as they like.
//! - `messageId` is a string. It is kept as the text it came as, and not unescaped.
//! - `timestamp` is not negative, as for Kafka's own producers.
//! - A header value's `format` may say `string` or `bytearray`.

mod fields;
mod headers;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use super::answer::Code;
use super::format::Types;
use super::json::{Malformed, Raw, Scanner};
use fields::Fields;
use headers::EncodedHeader;
use kafka_client::record::NewHeader;

/// One record, ready for the producer.
#[derive(Debug)]
pub struct InboundRecord<'a> {
    /// The key's bytes; `None` without a key.
    pub key: Option<&'a [u8]>,
    /// The value's bytes; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Milliseconds since 1970; `None` when the client leaves it to us.
    pub timestamp: Option<i64>,
    /// `None` when the client leaves it to the partitioner.
    pub partition: Option<i32>,
    /// To be sent back with the answer: a JSON string's text with its quotes.
    pub message_id: Option<&'a [u8]>,
    /// The headers, in order.
    pub headers: Vec<NewHeader<'a>>,
}

/// A record that cannot be produced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal<'a> {
    /// `invalid_json`, `invalid_record` or `invalid_format`.
    pub code: Code,
    /// For people.
    pub message: Cow<'static, str>,
    /// A JSON string's text with its quotes, where it could be read.
    pub message_id: Option<&'a [u8]>,
}

/// The records of one frame.
#[derive(Debug)]
pub struct Frame<'f> {
    types: Types,
    scanner: Scanner<'f>,
    scratch: &'f mut Vec<u8>,
    /// Of one record at a time.
    headers: Vec<EncodedHeader<'f>>,
    state: State,
    is_array: bool,
    len: usize,
}

#[derive(Debug)]
enum State {
    Single,
    /// `first`: no element was taken yet.
    Elements {
        first: bool,
    },
    Malformed(Malformed),
    Done,
}

impl<'f> Frame<'f> {
    /// Looks at a frame, which must be UTF-8. `scratch` holds what cannot be borrowed from
    /// the frame, one record at a time; it may be kept for the next frame.
    pub fn new(types: Types, frame: &'f [u8], scratch: &'f mut Vec<u8>) -> Frame<'f> {
        debug_assert!(std::str::from_utf8(frame).is_ok());
        let mut scanner = Scanner::new(frame);
        let (state, len) = match scanner.peek() {
            Some(b'[') => count(&mut scanner).map_or_else(
                |malformed| (State::Malformed(malformed), 1),
                |len| (State::Elements { first: true }, len),
            ),
            _ => (State::Single, 1),
        };
        Frame {
            types,
            scanner,
            scratch,
            headers: Vec::new(),
            // What is not JSON is no array either, whatever it begins with.
            is_array: matches!(state, State::Elements { .. }),
            state,
            len,
        }
    }

    /// Whether the answer is an array too.
    pub fn is_array(&self) -> bool {
        self.is_array
    }

    /// How many records, good or bad, the frame has: how often `next` gives one.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it is an empty array.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The next record, to be done with before the one after it.
    #[expect(
        clippy::should_implement_trait,
        reason = "what it gives borrows from it"
    )]
    pub fn next(&mut self) -> Option<Result<InboundRecord<'_>, Refusal<'f>>> {
        let mut fields = Fields::default();
        match std::mem::replace(&mut self.state, State::Done) {
            State::Done => return None,
            State::Malformed(malformed) => return Some(Err(not_json(malformed))),
            State::Single => {
                let read = fields.read(&mut self.scanner);
                if let Err(malformed) = read.and_then(|()| self.scanner.end()) {
                    return Some(Err(not_json(malformed)));
                }
            }
            State::Elements { first } => {
                if !self.scanner.next_element(first).expect(COUNTED) {
                    return None;
                }
                self.state = State::Elements { first: false };
                fields.read(&mut self.scanner).expect(COUNTED);
            }
        }
        self.scratch.clear();
        self.headers.clear();
        match fields.encode(self.types, self.scratch, &mut self.headers) {
            Ok(encoded) => Some(Ok(InboundRecord {
                key: encoded.key.map(|key| key.bytes(self.scratch)),
                value: encoded.value.map(|value| value.bytes(self.scratch)),
                headers: headers::borrow(&self.headers, self.scratch),
                timestamp: fields.timestamp,
                partition: fields.partition,
                message_id: fields.message_id.map(Raw::text),
            })),
            Err(fault) => Some(Err(Refusal {
                code: fault.code,
                message: fault.message,
                message_id: fields.message_id.map(Raw::text),
            })),
        }
    }
}

#[cold]
fn not_json(malformed: Malformed) -> Refusal<'static> {
    Refusal {
        code: Code::InvalidJson,
        message: format!("not JSON: {malformed}").into(),
        message_id: None,
    }
}

const COUNTED: &str = "the array was found to be JSON when its elements were counted";

/// Validates the whole array before any of it is given out, and goes back behind its
/// bracket; says how many elements it has.
fn count(scanner: &mut Scanner<'_>) -> Result<usize, Malformed> {
    scanner.begin_array()?;
    let mut ahead = scanner.clone();
    let mut len = 0;
    while ahead.next_element(len == 0)? {
        ahead.value()?;
        len += 1;
    }
    ahead.end()?;
    Ok(len)
}
