//! The schemas of Kafka's messages, and whether a message is all there before anything is
//! allocated for it.
//!
//! The decoder takes an array's count at its word and reserves that many elements: a
//! count of 2³¹ in a frame of 20 bytes ends the process. So a message is first validated
//! against its schema, field by field, without keeping anything; only one that is all
//! there is decoded: a response that we get, or a request to the in-memory broker.
//!
//! ```text
//! frame ─▶ validate (counts, lengths against the bytes that are there) ─▶ decode
//! ```
//!
//! The tables in `requests` and `responses` say what Apache Kafka's own definitions
//! say (`common/message/*.json` in the `kafka-clients` jar), in the same order and with the
//! same names, types and versions. A test compares them with those files.
//!
//! # Invariants
//! - What passes makes the decoder reserve no more elements than there are, and at most so
//!   many: 2¹⁹ of a response, 2¹⁶ of a request.
//! - Bytes after the body are ignored: newer brokers may know more fields.
//! - Null passes wherever there can be a null in any version; the decoder refuses the others.

#[rustfmt::skip]
pub mod requests;
#[rustfmt::skip]
pub(crate) mod responses;
#[cfg(test)]
mod tests;
mod validator;

pub(crate) use validator::{
    RecordsPlace, cut_records, skip_tagged_fields, validate_request, validate_response,
};

/// The schema of one request or response, in all versions.
#[derive(Debug)]
pub struct MessageSchema {
    /// As Kafka calls it, for example `FetchResponse`.
    pub name: &'static str,
    /// The versions with compact lengths and tagged fields (KIP-482).
    pub flexible_versions: VersionRange,
    /// In the order in which they are written.
    pub fields: &'static [FieldSchema],
}

/// A message's table row: the name, the flexible versions as in [`VersionRange::parse`],
/// and the fields.
const fn message(
    name: &'static str,
    flexible_versions: &str,
    fields: &'static [FieldSchema],
) -> MessageSchema {
    MessageSchema {
        name,
        flexible_versions: VersionRange::parse(flexible_versions),
        fields,
    }
}

/// One field of a message or struct.
#[derive(Debug)]
pub struct FieldSchema {
    /// As Kafka calls it, for example `HighWatermark`.
    pub name: &'static str,
    /// What it holds.
    pub field_type: FieldType,
    /// The versions that have it.
    pub versions: VersionRange,
    /// The versions in which it may be null.
    pub nullable_versions: VersionRange,
    /// The tag that it has in all of its versions: it follows the fields without one, or is
    /// left out.
    pub tag: Option<u32>,
    /// The versions in which it stands among the fields without a tag, looked up once per
    /// field of every message.
    untagged_versions: VersionRange,
    /// As [`FieldType::fixed_size`].
    fixed_size: u8,
}

/// A field that is never null and has no tag, with its versions as in
/// [`VersionRange::parse`].
const fn field(name: &'static str, versions: &str, field_type: FieldType) -> FieldSchema {
    let versions = VersionRange::parse(versions);
    FieldSchema {
        name,
        field_type,
        versions,
        nullable_versions: VersionRange::NONE,
        tag: None,
        untagged_versions: versions,
        fixed_size: field_type.fixed_size(),
    }
}

impl FieldSchema {
    /// The same, which may be null in these versions.
    const fn nullable(mut self, versions: &str) -> Self {
        // The byte before a struct that may be null is not skipped yet.
        assert!(self.fixed_size == 0 && !matches!(self.field_type, FieldType::Struct(_)));
        self.nullable_versions = VersionRange::parse(versions);
        self
    }

    /// The same, with this tag.
    const fn tagged(mut self, tag: u32) -> Self {
        self.tag = Some(tag);
        self.untagged_versions = VersionRange::NONE;
        self
    }
}

/// What a field holds, as Kafka calls it.
#[derive(Clone, Copy, Debug)]
pub enum FieldType {
    /// One byte, 0 or 1.
    Bool,
    /// One byte.
    Int8,
    /// Two bytes, the most significant first, as in all numbers.
    Int16,
    /// Four bytes.
    Int32,
    /// Eight bytes.
    Int64,
    /// 16 bytes.
    Uuid,
    /// A length of two bytes or compact, and UTF-8.
    String,
    /// A length of four bytes or compact, and so many bytes.
    Bytes,
    /// Record batches, written as [`FieldType::Bytes`].
    Records,
    /// A count of four bytes or compact, and so many elements.
    Array(&'static FieldType),
    /// Fields in order, and in flexible versions those with a tag.
    Struct(&'static [FieldSchema]),
}

impl FieldType {
    /// In bytes; 0 of a type whose values differ in size.
    const fn fixed_size(&self) -> u8 {
        match self {
            Self::Bool | Self::Int8 => 1,
            Self::Int16 => 2,
            Self::Int32 => 4,
            Self::Int64 => 8,
            Self::Uuid => 16,
            Self::String | Self::Bytes | Self::Records | Self::Array(_) | Self::Struct(_) => 0,
        }
    }
}

/// Versions, from the lowest to the highest of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionRange {
    /// The oldest of them.
    pub lowest: i16,
    /// The newest of them; [`i16::MAX`] where Kafka's definition is open.
    pub highest: i16,
}

impl VersionRange {
    /// No version.
    pub const NONE: Self = Self {
        lowest: 1,
        highest: 0,
    };

    /// As Kafka's definitions write it: `3`, `3-7`, or `3+`.
    ///
    /// # Panics
    ///
    /// If it is written differently; in a table that is an error of the compiler.
    pub const fn parse(text: &str) -> Self {
        let text = text.as_bytes();
        if matches!(text, b"none") {
            return Self::NONE;
        }
        let (lowest, at) = Self::parse_number(text, 0);
        let (highest, end) = match text.len() - at {
            0 => (lowest, at),
            _ if text[at] == b'-' => Self::parse_number(text, at + 1),
            _ => {
                assert!(text[at] == b'+', "`3`, `3-7` or `3+`");
                (i16::MAX, at + 1)
            }
        };
        assert!(end == text.len(), "`3`, `3-7` or `3+`");
        Self { lowest, highest }
    }

    /// The number that begins there, and where it ends.
    const fn parse_number(text: &[u8], from: usize) -> (i16, usize) {
        let (mut number, mut at) = (0, from);
        while at < text.len() && text[at].is_ascii_digit() {
            number = 10 * number + (text[at] - b'0') as i16;
            at += 1;
        }
        assert!(at > from, "`3`, `3-7` or `3+`");
        (number, at)
    }

    /// Whether that version is one of them.
    pub const fn contains(self, version: i16) -> bool {
        self.lowest <= version && version <= self.highest
    }
}
