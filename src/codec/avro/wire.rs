//! Avro's binary encoding, as far as the wrapper messages need it.
//!
//! ```text
//! int, long       zigzag, then 7 bits a byte, the lowest first
//! bytes, string   length (long), then that many bytes
//! union           the branch's number (long), then the value
//! array           blocks: count (long; negative: a byte count follows), items; 0 ends it
//! ```

use bytes::{BufMut, BytesMut};

/// A datum that is not of its schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} at byte {at}")]
pub(crate) struct DatumError {
    reason: &'static str,
    at: usize,
}

/// What is read as.
pub(super) type DatumResult<T> = Result<T, DatumError>;

/// Reads one datum, from its beginning to its end.
#[derive(Clone, Debug)]
pub(super) struct DatumReader<'a> {
    datum: &'a [u8],
    at: usize,
}

impl<'a> DatumReader<'a> {
    /// Nothing is read yet.
    pub(super) fn new(datum: &'a [u8]) -> Self {
        Self { datum, at: 0 }
    }

    /// Whether all of it is read.
    pub(super) fn is_at_end(&self) -> bool {
        self.at == self.datum.len()
    }

    /// Where it stands, for [`since`](Self::since).
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The bytes read since it stood there.
    pub(super) fn since(&self, at: usize) -> &'a [u8] {
        &self.datum[at..self.at]
    }

    /// How many bytes are left.
    pub(super) fn left(&self) -> usize {
        self.datum.len() - self.at
    }

    /// A fault at the place where it stands.
    #[cold]
    pub(super) fn fault(&self, reason: &'static str) -> DatumError {
        DatumError {
            reason,
            at: self.at,
        }
    }

    /// A `long`.
    pub(super) fn long(&mut self) -> DatumResult<i64> {
        let mut value = 0_u64;
        for (index, byte) in self.datum[self.at..].iter().enumerate() {
            // The tenth byte has the one bit that is left.
            if index == LONG_BYTES_MAX - 1 && *byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                self.at += index + 1;
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        match self.left() < LONG_BYTES_MAX {
            true => Err(self.fault("it ends within a number")),
            false => Err(self.fault("a number has too many bytes")),
        }
    }

    /// `bytes`.
    pub(super) fn bytes(&mut self) -> DatumResult<&'a [u8]> {
        let start = self.clone();
        let length = self.long()?;
        let length = usize::try_from(length).map_err(|_| start.fault("a length is negative"))?;
        if length > self.left() {
            return Err(start.fault("a length goes beyond the end"));
        }
        self.skip(length)
    }

    /// A `string`.
    pub(super) fn string(&mut self) -> DatumResult<&'a str> {
        let start = self.clone();
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map_err(|_| start.fault("a string is not UTF-8"))
    }

    /// A `boolean`.
    pub(super) fn boolean(&mut self) -> DatumResult<bool> {
        match self.datum.get(self.at) {
            Some(byte @ (0 | 1)) => {
                self.at += 1;
                Ok(*byte == 1)
            }
            Some(_) => Err(self.fault("a boolean is neither 0 nor 1")),
            None => Err(self.fault("it ends before a boolean")),
        }
    }

    /// The number of a union's branch, of which there are so many.
    pub(super) fn branch(&mut self, count: usize) -> DatumResult<usize> {
        let start = self.clone();
        let branch = usize::try_from(self.long()?).ok();
        branch
            .filter(|branch| *branch < count)
            .ok_or_else(|| start.fault("a union has no such branch"))
    }

    /// Whether the second branch of a union of `null` and something follows.
    pub(super) fn is_some(&mut self) -> DatumResult<bool> {
        Ok(self.branch(2)? == 1)
    }

    /// How many items the next block of an array or a map has; 0 after the last.
    pub(super) fn block(&mut self) -> DatumResult<u64> {
        let count = self.long()?;
        if count < 0 {
            // For those who skip; the items tell their end themselves.
            self.long()?;
        }
        Ok(count.unsigned_abs())
    }

    /// So many bytes.
    pub(super) fn skip(&mut self, count: usize) -> DatumResult<&'a [u8]> {
        if count > self.left() {
            return Err(self.fault("it ends too early"));
        }
        let start = self.at;
        self.at += count;
        Ok(&self.datum[start..self.at])
    }

    /// Nothing may follow.
    pub(super) fn expect_end(&self) -> DatumResult<()> {
        match self.is_at_end() {
            true => Ok(()),
            false => Err(self.fault("the record has ended, and bytes follow")),
        }
    }
}

/// Appends an `int` or a `long`.
#[inline]
pub(super) fn put_long(out: &mut BytesMut, value: i64) {
    let mut encoded = [0; LONG_BYTES_MAX];
    let len = encode_long(&mut encoded, value);
    out.put_slice(&encoded[..len]);
}

/// Appends `bytes` or a `string`.
#[inline]
pub(super) fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    put_long(out, bytes.len() as i64);
    out.put_slice(bytes);
}

/// The first branch of a union, which is `null` here.
pub(super) const NULL_BRANCH: u8 = 0;
/// The second branch of a union.
pub(super) const SOME_BRANCH: u8 = 2;
/// The end of an array.
pub(super) const END_OF_ARRAY: u8 = 0;

/// The length of the longest number.
const LONG_BYTES_MAX: usize = 10;

#[inline]
fn encode_long(encoded: &mut [u8; LONG_BYTES_MAX], value: i64) -> usize {
    let mut zigzag = (value << 1 ^ value >> 63) as u64;
    let mut len = 0;
    while zigzag >= 0x80 {
        encoded[len] = zigzag as u8 | 0x80;
        zigzag >>= 7;
        len += 1;
    }
    encoded[len] = zigzag as u8;
    len + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn long(bytes: &[u8]) -> DatumResult<i64> {
        DatumReader::new(bytes).long()
    }

    #[test]
    fn numbers_are_zigzag_and_little_endian() {
        for (bytes, value) in [
            (&[0][..], 0),
            (&[1], -1),
            (&[2], 1),
            (&[0x7f], -64),
            (&[0x80, 1], 64),
            (&[0x80, 0], 0),
            (
                &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
                i64::MIN,
            ),
        ] {
            assert_eq!(long(bytes), Ok(value));
        }
        for bytes in [&[][..], &[0x80], &[0xff; 9]] {
            let fault = long(bytes).unwrap_err().to_string();
            assert_eq!(fault, "it ends within a number at byte 0");
        }
        for bytes in [
            &[0xff; 10][..],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
        ] {
            let fault = long(bytes).unwrap_err().to_string();
            assert_eq!(fault, "a number has too many bytes at byte 0");
        }
    }

    #[test]
    fn a_length_is_never_believed() {
        for (bytes, fault) in [
            (&[4, b'a'][..], "a length goes beyond the end at byte 0"),
            (&[1], "a length is negative at byte 0"),
            (
                &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
                "a length goes beyond the end at byte 0",
            ),
        ] {
            let error = DatumReader::new(bytes).bytes().unwrap_err();
            assert_eq!(error.to_string(), fault);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(number: i64, bytes: Vec<u8>) {
            let mut out = BytesMut::new();
            put_long(&mut out, number);
            put_bytes(&mut out, &bytes);
            let mut reader = DatumReader::new(&out);
            prop_assert_eq!(reader.long(), Ok(number));
            prop_assert_eq!(reader.bytes(), Ok(&bytes[..]));
            prop_assert_eq!(reader.expect_end(), Ok(()));
        }
    }
}
