//! Follows the lines of the heads that a connection receives, without parsing them: how long the
//! present one is, and whether all lines end as they must. Sans-I/O.
//!
//! ```text
//! head CRLF CRLF ─▶ head CRLF CRLF ─▶ … ─▶ head with a body, or an upgrade ─▶ anything
//! ```
//!
//! Such a head is the last one of its connection, which is closed after the answer unless it is
//! upgraded: what follows it is not looked at.

use http::header::{CONTENT_LENGTH, HeaderName, TRANSFER_ENCODING, UPGRADE};

/// A head with one of these fields is the last one of its connection: a body may follow it, or the
/// messages of a socket.
pub(crate) const LAST_HEAD_FIELDS: [HeaderName; 3] = [CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE];

/// As much of a line as tells whether it is one of [`LAST_HEAD_FIELDS`], with its colon.
const LINE_START_MAX: usize = 18;

/// The present head.
#[derive(Debug, Default)]
pub(super) struct HeadScanner {
    line_start: [u8; LINE_START_MAX],
    line_len: usize,
    previous: u8,
    /// Bytes of the head, with those of the line.
    head_len: usize,
    /// Of the longest head so far.
    longest: usize,
    /// Whether a line of it has ended.
    has_lines: bool,
    is_last: bool,
    has_ended: bool,
    has_bare_line_feed: bool,
}

impl HeadScanner {
    /// Takes bytes as they arrive.
    pub(super) fn scan(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.has_ended {
                break;
            }
            self.head_len += 1;
            self.longest = self.longest.max(self.head_len);
            if *byte == b'\n' {
                self.end_line();
            } else {
                if let Some(slot) = self.line_start.get_mut(self.line_len) {
                    *slot = byte.to_ascii_lowercase();
                }
                self.line_len += 1;
            }
            self.previous = *byte;
        }
    }

    fn end_line(&mut self) {
        self.has_bare_line_feed |= self.previous != b'\r';
        let len = self.line_len - usize::from(self.line_len > 0 && self.previous == b'\r');
        let start = &self.line_start[..len.min(LINE_START_MAX)];
        let is_field = |name: &HeaderName| {
            let rest = start.strip_prefix(name.as_str().as_bytes());
            rest.is_some_and(|rest| rest.starts_with(b":"))
        };
        self.is_last |= LAST_HEAD_FIELDS.iter().any(is_field);
        self.line_len = 0;
        if len > 0 {
            self.has_lines = true;
            return;
        }
        // Empty lines in front of a head do not count (RFC 9112, section 2.2).
        self.has_ended = self.has_lines && self.is_last;
        self.has_lines = false;
        self.head_len = 0;
    }

    /// Bytes of the longest head so far, if only a part of it has come.
    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    /// Whether a line of a head ended with a line feed alone.
    pub(super) fn has_bare_line_feed(&self) -> bool {
        self.has_bare_line_feed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scanned(text: &str) -> HeadScanner {
        // However the bytes are cut.
        let mut scanner = HeadScanner::default();
        for byte in text.as_bytes().chunks(1) {
            scanner.scan(byte);
        }
        let mut at_once = HeadScanner::default();
        at_once.scan(text.as_bytes());
        assert_eq!(at_once.has_bare_line_feed, scanner.has_bare_line_feed);
        assert_eq!(at_once.longest, scanner.longest);
        scanner
    }

    #[test]
    fn a_line_that_ends_with_a_line_feed_alone_is_noticed_in_any_head() {
        for text in [
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\n",
            "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ] {
            assert!(scanned(text).has_bare_line_feed(), "{text:?}");
        }
        let good = "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2);
        assert!(!scanned(&good).has_bare_line_feed());
    }

    #[test]
    fn what_follows_a_head_with_a_body_or_an_upgrade_is_no_head() {
        for field in [
            "Content-LENGTH: 4",
            "transfer-encoding:chunked",
            "Upgrade: x",
        ] {
            let text = format!("POST / HTTP/1.1\r\n{field}\r\n\r\na\nb\n");
            assert!(!scanned(&text).has_bare_line_feed(), "{field}");
        }
        let text = "GET / HTTP/1.1\r\nUpgraded: x\r\n\r\na\nb\n";
        assert!(scanned(text).has_bare_line_feed());
    }

    #[test]
    fn the_length_is_that_of_the_longest_head() {
        assert_eq!(scanned("GET / HTTP/1.1\r\nA").longest(), 17);
        let two = "GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nA: b\r\n\r\nGET";
        assert_eq!(scanned(two).longest(), 24);
    }
}
