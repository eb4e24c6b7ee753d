//! JSON without a document (RFC 8259): a scanner that validates and slices, and strings.
//!
//! ```text
//!  {"key": {"value": "a\nb"}, …        JsonScanner::begin_object, next_name, value …
//!                    └─────┘ RawJson   text as it stands, type by its first byte,
//!                                      string_content() ─▶ borrowed, or unescaped
//! ```
//!
//! The scanner takes and refuses exactly what serde_json does (a test holds one against
//! the other), except that nesting ends at [`DEPTH_MAX`]; it never recurses. Its input
//! must be UTF-8: the frame decoder validates frames, `outbound` validates records.

mod string;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

pub(crate) use string::{EscapingWriter, write_escaped, write_string};
use string::{plain_prefix, unescape};

/// How deep arrays and objects may be nested. Readers that recurse stop there too, or
/// crash further down.
pub(crate) const DEPTH_MAX: usize = 1024;

/// The text is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{expected} expected at byte {at}")]
pub(crate) struct JsonError {
    /// Where, counted from 0.
    pub(crate) at: usize,
    /// What should have been there.
    pub(crate) expected: &'static str,
}

/// The type of a JSON value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JsonType {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool,
    /// A number.
    Number,
    /// A string.
    String,
    /// An array.
    Array,
    /// An object.
    Object,
}

/// A valid JSON value as the text it came as, without white space around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RawJson<'a> {
    text: &'a [u8],
    /// Of a string: whether a backslash is in it.
    escaped: bool,
}

/// A string escapes half of a surrogate pair without the other: no Unicode text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("half of a surrogate pair is no character")]
pub(crate) struct LoneSurrogate;

/// A string's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StringContent<'a> {
    /// As it stands in the text.
    Borrowed(&'a [u8]),
    /// Appended to the buffer that was given.
    Appended,
}

impl<'a> RawJson<'a> {
    /// The text.
    #[inline]
    pub(crate) fn text(self) -> &'a [u8] {
        self.text
    }

    /// The type of the value, which its first byte tells.
    #[inline]
    pub(crate) fn json_type(self) -> JsonType {
        match self.text[0] {
            b'n' => JsonType::Null,
            b't' | b'f' => JsonType::Bool,
            b'"' => JsonType::String,
            b'[' => JsonType::Array,
            b'{' => JsonType::Object,
            _ => JsonType::Number,
        }
    }

    /// A string's content as UTF-8. Where the text has no escapes it is a slice of it.
    ///
    /// # Panics
    /// When it is no string.
    #[inline]
    pub(crate) fn string_content(
        self,
        buffer: &mut Vec<u8>,
    ) -> Result<StringContent<'a>, LoneSurrogate> {
        assert_eq!(
            self.json_type(),
            JsonType::String,
            "only strings have a content"
        );
        let inner = &self.text[1..self.text.len() - 1];
        if !self.escaped {
            return Ok(StringContent::Borrowed(inner));
        }
        unescape(inner, buffer)?;
        Ok(StringContent::Appended)
    }

    /// A name or another short string to compare with; where it is no string, or no
    /// Unicode, the text itself, which with its quotes equals no name.
    #[inline]
    pub(crate) fn name(self) -> Cow<'a, [u8]> {
        match self.text {
            [b'"', inner @ .., b'"'] if !self.escaped => Cow::Borrowed(inner),
            text => Cow::Owned(self.unescaped_name().unwrap_or_else(|| text.to_vec())),
        }
    }

    #[cold]
    fn unescaped_name(self) -> Option<Vec<u8>> {
        let mut name = Vec::new();
        (self.json_type() == JsonType::String && self.string_content(&mut name).is_ok())
            .then_some(name)
    }
}

/// Reads one text from front to end.
#[derive(Clone, Debug)]
pub(crate) struct JsonScanner<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> JsonScanner<'a> {
    /// A scanner at the beginning of `text`, which must be UTF-8.
    pub(crate) fn new(text: &'a [u8]) -> JsonScanner<'a> {
        JsonScanner { text, at: 0 }
    }

    /// How many bytes have been taken.
    #[inline]
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// The whole text.
    #[inline]
    pub(crate) fn text(&self) -> &'a [u8] {
        self.text
    }

    /// The first byte of what comes next, if anything does.
    #[inline]
    pub(crate) fn peek(&mut self) -> Option<u8> {
        while let Some(&byte) = self.text.get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
            self.at += 1;
        }
        None
    }

    /// Nothing but white space may follow.
    pub(crate) fn expect_end(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.expected("the end")),
        }
    }

    /// Takes the next value, whatever it is.
    #[inline]
    pub(crate) fn value(&mut self) -> Result<RawJson<'a>, JsonError> {
        let Some(first) = self.peek() else {
            return Err(self.expected("a value"));
        };
        let from = self.at;
        let escaped = match first {
            b'"' => self.skip_string()?,
            b'{' | b'[' => {
                self.skip_nested()?;
                false
            }
            _ => {
                self.skip_plain(first)?;
                false
            }
        };
        Ok(RawJson {
            text: &self.text[from..self.at],
            escaped,
        })
    }

    /// Takes the brace of an object; [`JsonScanner::next_name`] goes on.
    #[inline]
    pub(crate) fn begin_object(&mut self) -> Result<(), JsonError> {
        self.take_byte(b'{', "an object")
    }

    /// Takes the next member's name and colon, its value is to be taken next; `None` when
    /// it took the object's end. `first` says that no member was taken before.
    #[inline]
    pub(crate) fn next_name(&mut self, first: bool) -> Result<Option<RawJson<'a>>, JsonError> {
        if !self.has_next(b'}', first, "a comma or the object's end")? {
            return Ok(None);
        }
        self.member_name().map(Some)
    }

    /// Takes the bracket of an array; [`JsonScanner::next_element`] goes on.
    #[inline]
    pub(crate) fn begin_array(&mut self) -> Result<(), JsonError> {
        self.take_byte(b'[', "an array")
    }

    /// Whether there is a further element, which is to be taken next; false when it took
    /// the array's end. `first` says that no element was taken before.
    #[inline]
    pub(crate) fn next_element(&mut self, first: bool) -> Result<bool, JsonError> {
        self.has_next(b']', first, "a comma or the array's end")
    }

    #[inline]
    fn has_next(
        &mut self,
        end: u8,
        first: bool,
        expected: &'static str,
    ) -> Result<bool, JsonError> {
        match self.peek() {
            Some(byte) if byte == end => {
                self.at += 1;
                Ok(false)
            }
            Some(b',') if !first => {
                self.at += 1;
                Ok(true)
            }
            Some(_) if first => Ok(true),
            _ => Err(self.expected(expected)),
        }
    }

    #[inline]
    fn member_name(&mut self) -> Result<RawJson<'a>, JsonError> {
        if self.peek() != Some(b'"') {
            return Err(self.expected("a name in quotes"));
        }
        let from = self.at;
        let escaped = self.skip_string()?;
        let text = &self.text[from..self.at];
        self.take_byte(b':', "a colon")?;
        Ok(RawJson { text, escaped })
    }

    #[inline]
    fn take_byte(&mut self, byte: u8, expected: &'static str) -> Result<(), JsonError> {
        if self.peek() != Some(byte) {
            return Err(self.expected(expected));
        }
        self.at += 1;
        Ok(())
    }

    /// Skips an array or object with all that is in it.
    fn skip_nested(&mut self) -> Result<(), JsonError> {
        let mut open = OpenBrackets::default();
        loop {
            // A value is due.
            let mut first = false;
            match self.peek() {
                Some(b'"') => {
                    self.skip_string()?;
                }
                Some(byte @ (b'{' | b'[')) => {
                    if !open.push(byte == b'{') {
                        return Err(self.expected("less nesting"));
                    }
                    self.at += 1;
                    first = true;
                }
                Some(byte) => self.skip_plain(byte)?,
                None => return Err(self.expected("a value")),
            }
            // A value is done, or a container has just begun.
            loop {
                let more = match open.is_object() {
                    true => self.next_name(first)?.is_some(),
                    false => self.next_element(first)?,
                };
                if more {
                    break;
                }
                first = false;
                if open.pop() {
                    return Ok(());
                }
            }
        }
    }

    #[inline]
    fn skip_plain(&mut self, first: u8) -> Result<(), JsonError> {
        match first {
            b'n' => self.skip_word(b"null"),
            b't' => self.skip_word(b"true"),
            b'f' => self.skip_word(b"false"),
            b'-' | b'0'..=b'9' => self.skip_number(),
            _ => Err(self.expected("a value")),
        }
    }

    fn skip_word(&mut self, word: &'static [u8]) -> Result<(), JsonError> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.expected("a value"));
        }
        self.at += word.len();
        Ok(())
    }

    fn skip_number(&mut self) -> Result<(), JsonError> {
        if self.current_byte() == Some(b'-') {
            self.at += 1;
        }
        match self.current_byte() {
            Some(b'0') => self.at += 1,
            _ => self.skip_digits()?,
        }
        if self.current_byte() == Some(b'.') {
            self.at += 1;
            self.skip_digits()?;
        }
        if let Some(b'e' | b'E') = self.current_byte() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.current_byte() {
                self.at += 1;
            }
            self.skip_digits()?;
        }
        // `01` and `1x` end here, and are refused by whatever must follow a value.
        Ok(())
    }

    fn skip_digits(&mut self) -> Result<(), JsonError> {
        let from = self.at;
        while let Some(b'0'..=b'9') = self.current_byte() {
            self.at += 1;
        }
        if self.at == from {
            return Err(self.expected("a digit"));
        }
        Ok(())
    }

    /// Skips a string that begins here; returns whether it has escapes.
    #[inline]
    fn skip_string(&mut self) -> Result<bool, JsonError> {
        self.at += 1;
        let mut escaped = false;
        loop {
            self.at += plain_prefix(&self.text[self.at..]);
            match self.current_byte() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(escaped);
                }
                Some(b'\\') => {
                    escaped = true;
                    self.skip_escape()?;
                }
                Some(_) => return Err(self.expected("an escape instead of a control character")),
                None => return Err(self.expected("a closing quote")),
            }
        }
    }

    #[inline(never)]
    fn skip_escape(&mut self) -> Result<(), JsonError> {
        self.at += 1;
        match self.current_byte() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                self.at += 1;
                for _ in 0..4 {
                    if !self
                        .current_byte()
                        .is_some_and(|byte| byte.is_ascii_hexdigit())
                    {
                        return Err(self.expected("a hexadecimal digit"));
                    }
                    self.at += 1;
                }
            }
            _ => return Err(self.expected("an escaped character")),
        }
        Ok(())
    }

    #[inline]
    fn current_byte(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    #[cold]
    fn expected(&self, expected: &'static str) -> JsonError {
        JsonError {
            at: self.at,
            expected,
        }
    }
}

/// Whether `text` is one JSON value, with white space around it or not.
pub(crate) fn validate(text: &[u8]) -> Result<(), JsonError> {
    let mut scanner = JsonScanner::new(text);
    scanner.value()?;
    scanner.expect_end()
}

/// The brackets that are open: one bit each, set for an object.
#[derive(Default)]
struct OpenBrackets {
    objects: [u64; DEPTH_MAX / 64],
    depth: usize,
}

impl OpenBrackets {
    /// False when there is no room.
    fn push(&mut self, object: bool) -> bool {
        if self.depth == DEPTH_MAX {
            return false;
        }
        let (word, bit) = (self.depth / 64, self.depth % 64);
        self.objects[word] = self.objects[word] & !(1 << bit) | (u64::from(object) << bit);
        self.depth += 1;
        true
    }

    /// Closes the innermost; true when none is open any more.
    fn pop(&mut self) -> bool {
        self.depth -= 1;
        self.depth == 0
    }

    fn is_object(&self) -> bool {
        let innermost = self.depth - 1;
        self.objects[innermost / 64] >> (innermost % 64) & 1 == 1
    }
}
