//! UTF-8 that arrives in pieces.

/// Validates a text piece by piece; a character may lie across any border.
///
/// A piece is refused at its first octet that no continuation could make valid.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Utf8Validator {
    /// The beginning of a character whose rest has not come.
    partial: [u8; 4],
    partial_len: usize,
}

/// The text cannot become UTF-8 any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InvalidUtf8;

impl Utf8Validator {
    /// Checks the next piece.
    pub(super) fn validate(&mut self, mut piece: &[u8]) -> Result<(), InvalidUtf8> {
        while self.partial_len > 0 {
            let Some((&byte, rest)) = piece.split_first() else {
                return Ok(());
            };
            piece = rest;
            self.partial[self.partial_len] = byte;
            self.partial_len += 1;
            match std::str::from_utf8(&self.partial[..self.partial_len]) {
                Ok(_) => self.partial_len = 0,
                Err(error) if error.error_len().is_some() => return Err(InvalidUtf8),
                Err(_) => {}
            }
        }
        let Err(error) = std::str::from_utf8(piece) else {
            return Ok(());
        };
        if error.error_len().is_some() {
            return Err(InvalidUtf8);
        }
        let partial = &piece[error.valid_up_to()..];
        self.partial[..partial.len()].copy_from_slice(partial);
        self.partial_len = partial.len();
        Ok(())
    }

    /// Whether the text may end here: no character is incomplete.
    pub(super) fn is_complete(&self) -> bool {
        self.partial_len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// How many bytes are accepted when they come one at a time, and whether they may end.
    fn accepted(text: &[u8]) -> (usize, bool) {
        let mut validator = Utf8Validator::default();
        for (i, byte) in text.iter().enumerate() {
            if validator.validate(&[*byte]).is_err() {
                return (i, false);
            }
        }
        (text.len(), validator.is_complete())
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
            let mut validator = Utf8Validator::default();
            let valid = validator.validate(a).is_ok() && validator.validate(b).is_ok() && validator.is_complete();
            prop_assert_eq!(valid, std::str::from_utf8(&text).is_ok());
        }
    }
}
