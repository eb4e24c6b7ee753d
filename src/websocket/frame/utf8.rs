//! UTF-8 that arrives in pieces.

/// Validates a text piece by piece; a character may lie across any border.
///
/// A piece is refused at its first octet that no continuation could make valid.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Utf8 {
    /// The beginning of a character whose rest has not come.
    open: [u8; 4],
    open_len: usize,
}

/// The text cannot become UTF-8 any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Invalid;

impl Utf8 {
    /// Takes the next piece.
    pub(super) fn feed(&mut self, mut piece: &[u8]) -> Result<(), Invalid> {
        while self.open_len > 0 {
            let Some((&byte, rest)) = piece.split_first() else {
                return Ok(());
            };
            piece = rest;
            self.open[self.open_len] = byte;
            self.open_len += 1;
            match std::str::from_utf8(&self.open[..self.open_len]) {
                Ok(_) => self.open_len = 0,
                Err(error) if error.error_len().is_some() => return Err(Invalid),
                Err(_) => {}
            }
        }
        let Err(error) = std::str::from_utf8(piece) else {
            return Ok(());
        };
        if error.error_len().is_some() {
            return Err(Invalid);
        }
        let open = &piece[error.valid_up_to()..];
        self.open[..open.len()].copy_from_slice(open);
        self.open_len = open.len();
        Ok(())
    }

    /// Whether the text may end here: no character is half done.
    pub(super) fn is_whole(&self) -> bool {
        self.open_len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// How many bytes are accepted when they come one at a time, and whether they may end.
    fn accepted(text: &[u8]) -> (usize, bool) {
        let mut utf8 = Utf8::default();
        for (i, byte) in text.iter().enumerate() {
            if utf8.feed(&[*byte]).is_err() {
                return (i, false);
            }
        }
        (text.len(), utf8.is_whole())
    }

    #[test]
    fn a_text_is_refused_at_the_octet_that_breaks_it() {
        // Kuhn's stress test, as Autobahn's cases 6.5 to 6.23 use it.
        for (text, at) in [
            (
                &b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited"[..],
                12,
            ),
            (b"\x80", 0),
            (b"\xbf", 0),
            (b"\xfe", 0),
            (b"\xff", 0),
            (b"\xc0\xaf", 0),
            (b"\xc1\xbf", 0),
            (b"\xe0\x80\xaf", 1),
            (b"\xe0\x9f\xbf", 1),
            (b"\xf0\x80\x80\xaf", 1),
            (b"\xf0\x8f\xbf\xbf", 1),
            (b"\xf4\x90\x80\x80", 1),
            (b"\xf5\x80\x80\x80", 0),
            (b"\xf8\x88\x80\x80\x80", 0),
            (b"\xfc\x84\x80\x80\x80\x80", 0),
            (b"\xed\xa0\x80", 1),
            (b"\xed\xbf\xbf", 1),
            (b"\xe2\x28\xa1", 1),
            (b"\xe2\x82\x28", 2),
            (b"ab\xc3(", 3),
        ] {
            assert_eq!(accepted(text), (at, false), "{text:02x?}");
        }
        for text in [
            "",
            "κόσμε",
            "\u{0}",
            "\u{d7ff}\u{e000}\u{fffd}\u{ffff}\u{10ffff}",
            "€😀é",
        ] {
            assert_eq!(accepted(text.as_bytes()), (text.len(), true), "{text:?}");
        }
        for text in [&b"\xce"[..], b"\xe1\xbd", b"\xf0\x9f\x98"] {
            assert_eq!(accepted(text), (text.len(), false), "half a character");
        }
    }

    proptest! {
        #[test]
        fn any_cut_of_any_bytes_agrees_with_the_whole(
            text in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..40),
                any::<String>().prop_map(String::into_bytes),
            ],
            cut in 0usize..60,
        ) {
            let (a, b) = text.split_at(cut.min(text.len()));
            let mut utf8 = Utf8::default();
            let valid = utf8.feed(a).is_ok() && utf8.feed(b).is_ok() && utf8.is_whole();
            prop_assert_eq!(valid, std::str::from_utf8(&text).is_ok());
        }
    }
}
