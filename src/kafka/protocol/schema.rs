//! Whether a message is what it says, before anything is allocated for it.
//!
//! The decoder takes an array's count at its word and reserves that many elements: a
//! count of 2³¹ in a frame of 20 bytes ends the process. So a message is first walked,
//! field by field, without keeping anything; only one that is all there is decoded: a
//! response that we get, or a request to the in-memory broker.
//!
//! ```text
//! frame ─▶ walk (counts, lengths against the bytes that are there) ─▶ decode
//! ```
//!
//! # Invariants
//! - What passes makes the decoder reserve no more elements than there are, and at most
//!   so many: [`ITEMS_MAX`], of a request [`requests::ITEMS_MAX`].
//! - Bytes after the body are not our business: newer brokers may know more.

#[rustfmt::skip]
pub(crate) mod requests;
#[rustfmt::skip]
pub(crate) mod responses;
#[cfg(test)]
mod tests;

use bytes::{Buf, Bytes};

use self::Kind::{Blob, Group, List, Maybe, Skip, Text};

/// Elements and tagged fields in one response, all arrays together. A cluster has at most
/// some hundred thousand partitions.
const ITEMS_MAX: usize = 1 << 19;

/// How one message is laid out.
#[derive(Debug)]
pub struct Shape {
    /// The first version with compact lengths and tagged fields (KIP-482).
    pub(crate) flexible_since: i16,
    pub(crate) body: Kind,
}

/// One value.
#[derive(Debug)]
pub(crate) enum Kind {
    /// So many bytes.
    Skip(usize),
    /// A string, which may be null.
    Text,
    /// Bytes, which may be null.
    Blob,
    /// An array, which may be null.
    List(&'static Kind),
    /// Fields in order, and those that carry a tag.
    Group(&'static [(Range, Kind)], &'static [(u32, Kind)]),
    /// A group after a byte that says whether it is there.
    Maybe(&'static Kind),
}

/// The versions that have a field: from, to.
type Range = (i16, i16);

/// Every version.
const ALL: Range = (0, i16::MAX);
/// Of [`Shape::flexible_since`].
const NEVER: i16 = i16::MAX;

const fn since(version: i16) -> Range {
    (version, i16::MAX)
}

const fn until(version: i16) -> Range {
    (0, version)
}

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ShapeError {
    #[error("it ends {missing} bytes early")]
    Short { missing: usize },
    #[error("a length of {0}")]
    Length(i64),
    #[error("more items than are taken")]
    Items,
    #[error("tagged field {tag} of {size} bytes has {read}")]
    Tag { tag: u32, size: usize, read: usize },
    #[error("an API of unknown shape")]
    Unknown,
}

/// Checks the body of a response.
pub(crate) fn check(shape: &Shape, version: i16, body: &[u8]) -> Result<(), ShapeError> {
    walk(shape, version, body).map(|_| ())
}

/// Steps over the tagged fields of a response header of version 1, which nobody defines.
pub(crate) fn skip_tagged_fields(frame: &mut Bytes) -> Result<(), ShapeError> {
    let mut walk = Walk::new(0, true, frame);
    walk.tagged(&[])?;
    let read = frame.len() - walk.rest.len();
    frame.advance(read);
    Ok(())
}

/// Returns what follows the body.
fn walk<'a>(shape: &Shape, version: i16, body: &'a [u8]) -> Result<&'a [u8], ShapeError> {
    let mut walk = Walk::new(version, version >= shape.flexible_since, body);
    walk.value(&shape.body)?;
    Ok(walk.rest)
}

struct Walk<'a> {
    version: i16,
    flexible: bool,
    rest: &'a [u8],
    /// That may still come.
    items: usize,
    /// Whether the elements of an array of plain numbers are items.
    numbers_count: bool,
}

impl<'a> Walk<'a> {
    fn new(version: i16, flexible: bool, rest: &'a [u8]) -> Self {
        Self {
            version,
            flexible,
            rest,
            items: ITEMS_MAX,
            numbers_count: false,
        }
    }

    fn value(&mut self, kind: &Kind) -> Result<(), ShapeError> {
        match kind {
            Skip(bytes) => self.take(*bytes).map(|_| ()),
            Text => {
                let length = if self.flexible {
                    self.compact_length()?
                } else {
                    length(i64::from(i16::from_be_bytes(self.array()?)))?
                };
                self.take(length.unwrap_or(0)).map(|_| ())
            }
            Blob => {
                let length = self.length()?;
                self.take(length.unwrap_or(0)).map(|_| ())
            }
            List(element) => {
                let count = self.length()?.unwrap_or(0);
                self.list(element, count)
            }
            Group(fields, tags) => {
                for ((from, to), kind) in *fields {
                    if (*from..=*to).contains(&self.version) {
                        self.value(kind)?;
                    }
                }
                if self.flexible {
                    self.tagged(tags)
                } else {
                    Ok(())
                }
            }
            Maybe(group) => match self.array()? {
                [1] => self.value(group),
                [_] => Ok(()),
            },
        }
    }

    fn list(&mut self, element: &Kind, count: usize) -> Result<(), ShapeError> {
        if let Skip(size) = element {
            // As large on the wire as in memory.
            self.take(count.saturating_mul(*size))?;
            return match self.numbers_count {
                true => self.spend(count),
                false => Ok(()),
            };
        }
        self.spend(count)?;
        for _ in 0..count {
            self.value(element)?;
        }
        Ok(())
    }

    fn tagged(&mut self, tags: &[(u32, Kind)]) -> Result<(), ShapeError> {
        let count = self.varint()? as usize;
        self.spend(count)?;
        for _ in 0..count {
            let tag = self.varint()?;
            let size = self.varint()? as usize;
            let before = self.rest;
            let field = self.take(size)?;
            let Some((_, kind)) = tags.iter().find(|(known, _)| *known == tag) else {
                continue;
            };
            // The decoder reads a field it knows without looking at its size.
            self.rest = field;
            self.value(kind)?;
            let read = size - self.rest.len();
            if read != size {
                return Err(ShapeError::Tag { tag, size, read });
            }
            self.rest = &before[size..];
        }
        Ok(())
    }

    fn spend(&mut self, items: usize) -> Result<(), ShapeError> {
        self.items = self.items.checked_sub(items).ok_or(ShapeError::Items)?;
        Ok(())
    }

    fn length(&mut self) -> Result<Option<usize>, ShapeError> {
        if self.flexible {
            self.compact_length()
        } else {
            length(i64::from(i32::from_be_bytes(self.array()?)))
        }
    }

    /// One more than it means; 0 means null.
    fn compact_length(&mut self) -> Result<Option<usize>, ShapeError> {
        length(i64::from(self.varint()?) - 1)
    }

    /// As the decoder reads it: five bytes at most, whatever the fifth says.
    fn varint(&mut self) -> Result<u32, ShapeError> {
        let mut value = 0;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        Ok(value)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ShapeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8], ShapeError> {
        match self.rest.split_at_checked(bytes) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(ShapeError::Short {
                missing: bytes - self.rest.len(),
            }),
        }
    }
}

/// -1 means null.
fn length(length: i64) -> Result<Option<usize>, ShapeError> {
    match length {
        -1 => Ok(None),
        length => usize::try_from(length)
            .map(Some)
            .map_err(|_| ShapeError::Length(length)),
    }
}
