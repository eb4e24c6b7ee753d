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
mod list;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use super::answer::Code;
use super::format::Types;
use super::json::{Malformed, Raw, Scanner};
use crate::kafka::record::NewHeader;
use fields::{Fault, Fields};
use list::List;

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
    headers: List<NewHeader<'a>>,
}

impl<'a> InboundRecord<'a> {
    /// The headers, in order.
    pub fn headers(&self) -> &[NewHeader<'a>] {
        self.headers.as_slice()
    }
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
    state: State,
    is_array: bool,
    len: usize,
}

#[derive(Debug)]
enum State {
    Malformed(Malformed),
    Single,
    /// Whether an element was taken.
    Elements {
        first: bool,
    },
    Done,
}

impl<'f> Frame<'f> {
    /// Looks at a frame, which must be UTF-8. `scratch` holds what cannot be borrowed from
    /// the frame, one record at a time; it may be kept for the next frame.
    pub fn new(types: Types, frame: &'f [u8], scratch: &'f mut Vec<u8>) -> Frame<'f> {
        debug_assert!(std::str::from_utf8(frame).is_ok());
        let mut scanner = Scanner::new(frame);
        let is_array = scanner.peek() == Some(b'[');
        let (state, len) = match count(scanner.clone(), is_array) {
            Err(malformed) => (State::Malformed(malformed), 1),
            Ok(len) if is_array => {
                scanner.begin_array().expect("counted as an array");
                (State::Elements { first: true }, len)
            }
            Ok(len) => (State::Single, len),
        };
        // A frame that is not JSON is no array either, whatever it begins with.
        let is_array = is_array && !matches!(state, State::Malformed(_));
        Frame {
            types,
            scanner,
            scratch,
            state,
            is_array,
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
        match &mut self.state {
            State::Done => return None,
            State::Malformed(malformed) => {
                let refusal = Refusal {
                    code: Code::InvalidJson,
                    message: format!("not JSON: {malformed}").into(),
                    message_id: None,
                };
                self.state = State::Done;
                return Some(Err(refusal));
            }
            State::Single => self.state = State::Done,
            State::Elements { first } => {
                let more = self.scanner.next_element(*first).expect(COUNTED);
                *first = false;
                if !more {
                    self.state = State::Done;
                    return None;
                }
            }
        }
        self.scratch.clear();
        let mut fields = Fields::default();
        let shape = fields.read(&mut self.scanner).expect(COUNTED);
        let encoded = shape.and_then(|()| fields.encode(self.types, self.scratch));
        Some(match encoded {
            Ok(encoded) => Ok(encoded.borrow(&fields, self.scratch)),
            Err(Fault { code, message }) => Err(Refusal {
                code,
                message,
                message_id: fields.message_id.map(Raw::text),
            }),
        })
    }
}

const COUNTED: &str = "the frame was found to be JSON when its records were counted";

/// Validates the whole frame; says how many records it has.
fn count(mut scanner: Scanner<'_>, is_array: bool) -> Result<usize, Malformed> {
    let mut len = 0;
    if is_array {
        scanner.begin_array()?;
        while scanner.next_element(len == 0)? {
            scanner.value()?;
            len += 1;
        }
    } else {
        scanner.value()?;
        len = 1;
    }
    scanner.end()?;
    Ok(len)
}
