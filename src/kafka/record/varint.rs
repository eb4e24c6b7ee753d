//! Zigzag varints, as magic 2 records use them (Java's `ByteUtils`; Protocol Buffers'
//! `sint32`, `sint64`).

/// Bytes that `value` takes.
#[inline]
pub(super) fn size_of_varint(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Bytes at the start of a record, gathered on the stack so that the batch grows once.
pub(super) struct VarintBuffer {
    bytes: [u8; Self::MAX],
    len: usize,
}

impl VarintBuffer {
    /// A record's length, attributes, two deltas and a key length, at their longest.
    const MAX: usize = 5 + 1 + 10 + 5 + 5;

    #[inline]
    pub(super) fn new() -> Self {
        Self {
            bytes: [0; Self::MAX],
            len: 0,
        }
    }

    #[inline]
    pub(super) fn byte(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    #[inline]
    pub(super) fn varint(&mut self, value: i64) {
        let mut rest = zigzag(value);
        while rest >= 0x80 {
            self.byte(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.byte(rest as u8);
    }

    #[inline]
    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Appends `value` to `out`.
#[inline]
pub(super) fn write_varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Reads from the front of bytes that anyone may have written.
#[derive(Clone, Copy)]
pub(super) struct ByteReader<'a> {
    rest: &'a [u8],
}

impl<'a> ByteReader<'a> {
    #[inline]
    pub(super) fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    #[inline]
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub(super) fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    #[inline]
    pub(super) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*taken)
    }

    /// At most five bytes.
    #[inline]
    pub(super) fn varint(&mut self) -> Option<i32> {
        let first = self.byte()?;
        let mut value = u32::from(first & 0x7f);
        if first >= 0x80 {
            let mut shift = 7;
            loop {
                let byte = self.byte()?;
                value |= u32::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    break;
                }
                shift += 7;
                if shift > 28 {
                    return None;
                }
            }
        }
        Some((value >> 1) as i32 ^ -((value & 1) as i32))
    }

    /// At most ten bytes.
    #[inline]
    pub(super) fn varlong(&mut self) -> Option<i64> {
        let first = self.byte()?;
        let mut value = u64::from(first & 0x7f);
        if first >= 0x80 {
            let mut shift = 7;
            loop {
                let byte = self.byte()?;
                value |= u64::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    break;
                }
                shift += 7;
                if shift > 63 {
                    return None;
                }
            }
        }
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// A length and as many bytes; a length of -1 is null.
    #[inline]
    pub(super) fn nullable(&mut self) -> Option<Option<&'a [u8]>> {
        match self.varint()? {
            -1 => Some(None),
            len => Some(Some(self.take(usize::try_from(len).ok()?)?)),
        }
    }
}

#[inline]
fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_varlong_reads_back_in_as_many_bytes_as_computed(value: i64, shift in 0..64) {
            let value = value >> shift;
            let mut out = Vec::new();
            write_varint(&mut out, value);
            prop_assert_eq!(out.len(), size_of_varint(value));
            let mut buffer = VarintBuffer::new();
            buffer.varint(value);
            prop_assert_eq!(buffer.as_slice(), &out[..]);
            let mut reader = ByteReader::new(&out);
            prop_assert_eq!(reader.varlong(), Some(value));
            prop_assert!(reader.rest().is_empty());
            if let Ok(small) = i32::try_from(value) {
                prop_assert_eq!(ByteReader::new(&out).varint(), Some(small));
            }
        }
    }

    #[test]
    fn the_extremes_take_five_and_ten_bytes() {
        for (value, bytes) in [
            (0, 1),
            (-1, 1),
            (63, 1),
            (64, 2),
            (i64::from(i32::MIN), 5),
            (i64::MAX, 10),
            (i64::MIN, 10),
        ] {
            let mut out = Vec::new();
            write_varint(&mut out, value);
            assert_eq!(out.len(), bytes);
            assert_eq!(ByteReader::new(&out).varlong(), Some(value));
        }
    }

    #[test]
    fn a_varint_that_does_not_end_is_refused() {
        assert_eq!(ByteReader::new(&[0x80; 20]).varint(), None);
        assert_eq!(ByteReader::new(&[0x80; 20]).varlong(), None);
        assert_eq!(ByteReader::new(&[0x80; 3]).varint(), None);
        assert_eq!(ByteReader::new(&[]).varlong(), None);
    }
}
