//! The content of JSON strings: scanned, unescaped and escaped.

use bytes::{BufMut, BytesMut};

use super::LoneSurrogate;

/// How many bytes from the front on stand for themselves in a string: up to the first
/// quote, backslash or control character.
#[inline]
pub(super) fn plain_prefix(text: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 0xFF;
    const HIGHS: u64 = ONES << 7;
    // Marks, in its high bit, each byte below `limit`; bytes after the first marked one
    // may be marked wrongly, which does not matter here.
    let below = |word: u64, limit: u8| word.wrapping_sub(ONES * u64::from(limit)) & !word & HIGHS;
    let (words, rest) = text.as_chunks::<8>();
    for (i, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let marks = below(word, b' ')
            | below(word ^ (ONES * u64::from(b'"')), 1)
            | below(word ^ (ONES * u64::from(b'\\')), 1);
        if marks != 0 {
            return i * 8 + marks.trailing_zeros() as usize / 8;
        }
    }
    let special = |byte: &u8| matches!(byte, 0..=0x1F | b'"' | b'\\');
    words.len() * 8 + rest.iter().position(special).unwrap_or(rest.len())
}

/// Appends what a valid string's text stands for.
pub(super) fn unescape(mut text: &[u8], out: &mut Vec<u8>) -> Result<(), LoneSurrogate> {
    loop {
        let plain = plain_prefix(text);
        out.extend_from_slice(&text[..plain]);
        let Some((escape, rest)) = text[plain..].split_at_checked(2) else {
            return Ok(());
        };
        text = rest;
        out.push(match escape[1] {
            b'b' => 0x08,
            b'f' => 0x0C,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let character = unicode_escape(&mut text)?;
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            itself => itself,
        });
    }
}

/// Takes what follows a `\u`: four digits, and the second half where they are a first.
fn unicode_escape(text: &mut &[u8]) -> Result<char, LoneSurrogate> {
    let mut unit = take_hex(text);
    if (0xD800..0xDC00).contains(&unit) {
        let mut rest = text.strip_prefix(b"\\u").ok_or(LoneSurrogate)?;
        let second = take_hex(&mut rest);
        if !(0xDC00..0xE000).contains(&second) {
            return Err(LoneSurrogate);
        }
        *text = rest;
        unit = 0x10000 + ((unit - 0xD800) << 10) + (second - 0xDC00);
    }
    char::from_u32(unit).ok_or(LoneSurrogate)
}

/// Takes four hexadecimal digits, which the scanner has seen.
fn take_hex(text: &mut &[u8]) -> u32 {
    let (digits, rest) = text.split_at(4);
    *text = rest;
    digits.iter().fold(0, |unit, digit| {
        unit << 4 | char::from(*digit).to_digit(16).expect("scanned as a digit")
    })
}

/// Writes `text`, which must be UTF-8, as a JSON string with its quotes.
#[inline]
pub(crate) fn write_string(out: &mut BytesMut, text: &[u8]) {
    out.reserve(text.len() + 2);
    out.put_u8(b'"');
    write_escaped(out, text);
    out.put_u8(b'"');
}

/// Writes the content of a JSON string, without its quotes.
#[inline]
pub(crate) fn write_escaped(out: &mut BytesMut, mut text: &[u8]) {
    loop {
        let plain = plain_prefix(text);
        out.extend_from_slice(&text[..plain]);
        let Some((byte, rest)) = text[plain..].split_first() else {
            return;
        };
        text = rest;
        match byte {
            b'"' => out.put_slice(b"\\\""),
            b'\\' => out.put_slice(b"\\\\"),
            b'\n' => out.put_slice(b"\\n"),
            b'\r' => out.put_slice(b"\\r"),
            b'\t' => out.put_slice(b"\\t"),
            0x08 => out.put_slice(b"\\b"),
            0x0C => out.put_slice(b"\\f"),
            control => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.put_slice(b"\\u00");
                out.put_u8(HEX[usize::from(control >> 4)]);
                out.put_u8(HEX[usize::from(control & 0xF)]);
            }
        }
    }
}

/// Escapes what is formatted into it, as the content of a JSON string.
#[derive(Debug)]
pub(crate) struct EscapingWriter<'a>(pub(crate) &'a mut BytesMut);

impl std::fmt::Write for EscapingWriter<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        write_escaped(self.0, text.as_bytes());
        Ok(())
    }
}
