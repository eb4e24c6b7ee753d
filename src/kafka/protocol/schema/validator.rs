//! Steps over a message, field by field, and keeps nothing.

use bytes::{Buf, Bytes};
use kafka_protocol::messages::ApiKey;

use super::requests::{REQUEST_HEADER, request_schema};
use super::{FieldSchema, FieldType, MessageSchema};

/// Elements and tagged fields in one response, all arrays together. A cluster has at most
/// some hundred thousand partitions.
const RESPONSE_ITEMS_MAX: usize = 1 << 19;
/// Elements and tagged fields in one request, all arrays together: some times the
/// partitions that the in-memory broker has.
pub(super) const REQUEST_ITEMS_MAX: usize = 1 << 16;

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SchemaError {
    #[error("it ends {missing} bytes early")]
    TooShort { missing: usize },
    #[error("a length of {0}")]
    InvalidLength(i64),
    #[error("more items than are taken")]
    TooManyItems,
    #[error("tagged field {tag} of {size} bytes has {read}")]
    TaggedFieldSize { tag: u32, size: usize, read: usize },
    #[error("an API whose schema is not known")]
    UnknownApi,
}

/// Validates the body of a response.
pub(crate) fn validate_response(
    schema: &MessageSchema,
    version: i16,
    body: &[u8],
) -> Result<(), SchemaError> {
    after_body(schema, version, body).map(|_| ())
}

/// Where records stand in a body, in bytes from its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordsPlace {
    /// Their length.
    pub(crate) length_at: usize,
    /// Their first byte.
    pub(crate) records_at: usize,
}

/// The records within which a body of a response ends that is not all there. `None`: it does not
/// end within records.
pub(crate) fn cut_records(
    schema: &MessageSchema,
    version: i16,
    body: &[u8],
) -> Option<RecordsPlace> {
    let flexible = schema.flexible_versions.contains(version);
    let mut validator = MessageValidator::new(version, flexible, body);
    let ended = validator.fields(schema.fields);
    let (before_length, before_records) = validator.last_records?;
    let is_cut = matches!(ended, Err(SchemaError::TooShort { .. }))
        && validator.rest.len() == before_records;
    is_cut.then(|| RecordsPlace {
        length_at: body.len() - before_length,
        records_at: body.len() - before_records,
    })
}

/// Validates a whole request, without its length but with its header. Of a request all
/// elements count as items, plain numbers too: the answer to a number of four bytes may
/// take a hundred.
pub(crate) fn validate_request(api: ApiKey, version: i16, frame: &[u8]) -> Result<(), SchemaError> {
    let schema = request_schema(api).ok_or(SchemaError::UnknownApi)?;
    let header_version = api.request_header_version(version);
    // The client id is never compact.
    let mut validator = MessageValidator::new(header_version, false, frame);
    validator.items_left = REQUEST_ITEMS_MAX;
    validator.numbers_are_items = true;
    validator.fields(REQUEST_HEADER)?;
    if header_version > 1 {
        validator.tagged_fields(&[])?;
    }
    validator.version = version;
    validator.flexible = schema.flexible_versions.contains(version);
    validator.fields(schema.fields)
}

/// Steps over the tagged fields of a response header of version 1, of which none is
/// defined.
pub(crate) fn skip_tagged_fields(frame: &mut Bytes) -> Result<(), SchemaError> {
    let mut validator = MessageValidator::new(0, true, frame);
    validator.tagged_fields(&[])?;
    let read = frame.len() - validator.rest.len();
    frame.advance(read);
    Ok(())
}

/// Returns what follows the body.
pub(super) fn after_body<'a>(
    schema: &MessageSchema,
    version: i16,
    body: &'a [u8],
) -> Result<&'a [u8], SchemaError> {
    let flexible = schema.flexible_versions.contains(version);
    let mut validator = MessageValidator::new(version, flexible, body);
    validator.fields(schema.fields)?;
    Ok(validator.rest)
}

struct MessageValidator<'a> {
    version: i16,
    flexible: bool,
    rest: &'a [u8],
    /// How many may still come.
    items_left: usize,
    /// Whether the elements of an array of plain numbers are items.
    numbers_are_items: bool,
    /// What was left to read at the length of the last records, and at their first byte.
    last_records: Option<(usize, usize)>,
}

impl<'a> MessageValidator<'a> {
    fn new(version: i16, flexible: bool, rest: &'a [u8]) -> Self {
        Self {
            version,
            flexible,
            rest,
            items_left: RESPONSE_ITEMS_MAX,
            numbers_are_items: false,
            last_records: None,
        }
    }

    fn fields(&mut self, fields: &[FieldSchema]) -> Result<(), SchemaError> {
        // Neighbours of fixed size are skipped together.
        let mut fixed = 0;
        for field in fields {
            if !field.untagged_versions.contains(self.version) {
                continue;
            }
            match field.fixed_size {
                0 => {
                    self.skip(std::mem::take(&mut fixed))?;
                    self.value(&field.field_type)?;
                }
                size => fixed += usize::from(size),
            }
        }
        self.skip(fixed)?;
        if self.flexible {
            self.tagged_fields(fields)?;
        }
        Ok(())
    }

    fn value(&mut self, field_type: &FieldType) -> Result<(), SchemaError> {
        match field_type {
            FieldType::Bool
            | FieldType::Int8
            | FieldType::Int16
            | FieldType::Int32
            | FieldType::Int64
            | FieldType::Uuid => self.skip(usize::from(field_type.fixed_size())),
            FieldType::String => {
                let length = if self.flexible {
                    self.compact_length()?
                } else {
                    length(i64::from(i16::from_be_bytes(self.bytes()?)))?
                };
                self.skip(length.unwrap_or(0))
            }
            FieldType::Bytes => {
                let length = self.length()?;
                self.skip(length.unwrap_or(0))
            }
            FieldType::Records => {
                let length_left = self.rest.len();
                let length = self.length()?;
                self.last_records = Some((length_left, self.rest.len()));
                self.skip(length.unwrap_or(0))
            }
            FieldType::Array(element) => {
                let count = self.length()?.unwrap_or(0);
                self.array(element, count)
            }
            FieldType::Struct(fields) => self.fields(fields),
        }
    }

    fn array(&mut self, element: &FieldType, count: usize) -> Result<(), SchemaError> {
        let size = usize::from(element.fixed_size());
        if size > 0 {
            // As large on the wire as in memory.
            self.skip(count.saturating_mul(size))?;
            return match self.numbers_are_items {
                true => self.count_items(count),
                false => Ok(()),
            };
        }
        self.count_items(count)?;
        for _ in 0..count {
            self.value(element)?;
        }
        Ok(())
    }

    /// The tagged fields of a struct of these fields, known and unknown.
    fn tagged_fields(&mut self, fields: &[FieldSchema]) -> Result<(), SchemaError> {
        let count = self.varint()? as usize;
        self.count_items(count)?;
        for _ in 0..count {
            let tag = self.varint()?;
            let size = self.varint()? as usize;
            let field = self.take(size)?;
            let known = |field: &&FieldSchema| {
                field.tag == Some(tag) && field.versions.contains(self.version)
            };
            let Some(known) = fields.iter().find(known) else {
                continue;
            };
            // The decoder reads a field it knows without looking at its size.
            let after = std::mem::replace(&mut self.rest, field);
            self.value(&known.field_type)?;
            let read = size - self.rest.len();
            if read != size {
                return Err(SchemaError::TaggedFieldSize { tag, size, read });
            }
            self.rest = after;
        }
        Ok(())
    }

    fn count_items(&mut self, items: usize) -> Result<(), SchemaError> {
        let left = self.items_left.checked_sub(items);
        self.items_left = left.ok_or(SchemaError::TooManyItems)?;
        Ok(())
    }

    fn length(&mut self) -> Result<Option<usize>, SchemaError> {
        if self.flexible {
            self.compact_length()
        } else {
            length(i64::from(i32::from_be_bytes(self.bytes()?)))
        }
    }

    /// One more than it means; 0 means null.
    fn compact_length(&mut self) -> Result<Option<usize>, SchemaError> {
        length(i64::from(self.varint()?) - 1)
    }

    /// As the decoder reads it: five bytes at most, whatever the fifth says.
    fn varint(&mut self) -> Result<u32, SchemaError> {
        let mut value = 0;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.bytes()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        Ok(value)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], SchemaError> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    fn skip(&mut self, bytes: usize) -> Result<(), SchemaError> {
        self.take(bytes).map(|_| ())
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8], SchemaError> {
        match self.rest.split_at_checked(bytes) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(SchemaError::TooShort {
                missing: bytes - self.rest.len(),
            }),
        }
    }
}

/// -1 means null.
fn length(length: i64) -> Result<Option<usize>, SchemaError> {
    match length {
        -1 => Ok(None),
        length => usize::try_from(length)
            .map(Some)
            .map_err(|_| SchemaError::InvalidLength(length)),
    }
}
