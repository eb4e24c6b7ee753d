//! The answers that hyper writes by itself, to a request that it cannot read: they have no body,
//! so one is added, and what every answer of this server has.
//!
//! ```text
//! HTTP/1.1 400 Bad Request CRLF … content-length: 0 CRLF … CRLF
//!                                 └──────────────┘ type, headers, length ─▶ … CRLF body
//! ```

use http::StatusCode;

/// The line of an answer without a body, which one of an answer of our own never is: that has a
/// header of [`OURS`] too.
const NO_BODY: &str = "content-length: 0\r\n";
/// One of the headers that every answer of this server has.
const OURS: &str = "x-content-type-options: nosniff\r\n";

/// An answer of hyper's own among the bytes that it writes. It is the last one of its connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal<'a> {
    /// Where it begins.
    pub(super) at: usize,
    pub(super) status: StatusCode,
    head: &'a str,
}

impl<'a> Refusal<'a> {
    /// Finds it at the end of `bytes`, which hyper writes at once.
    pub(super) fn at_end_of(bytes: &'a [u8]) -> Option<Self> {
        if !bytes.ends_with(b"\r\n\r\n") {
            return None;
        }
        let at = bytes.windows(7).rposition(|start| start == b"HTTP/1.")?;
        let head = std::str::from_utf8(&bytes[at..]).ok()?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let is_hypers = head.contains(NO_BODY) && !head.contains(OURS);
        (is_hypers && StatusCode::is_client_error(&status)).then_some(Self { at, status, head })
    }

    /// The answer to send in its place, with lines of headers, and a body in JSON.
    pub(super) fn completed(&self, headers: &str, body: &str) -> Vec<u8> {
        let lines = format!(
            "content-type: application/json\r\n{headers}content-length: {}\r\n",
            body.len()
        );
        (self.head.replacen(NO_BODY, &lines, 1) + body).into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYPERS: &str =
        "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\ndate: x\r\n\r\n";

    #[test]
    fn an_answer_of_hypers_gets_a_body_and_the_headers_of_every_answer() {
        let refusal = Refusal::at_end_of(HYPERS.as_bytes()).unwrap();
        let answer = refusal.completed(&format!("{OURS}a: b\r\n"), "{400}");
        assert_eq!(
            String::from_utf8(answer).unwrap(),
            "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: application/json\r\n\
             x-content-type-options: nosniff\r\na: b\r\ncontent-length: 5\r\ndate: x\r\n\r\n{400}"
        );
    }

    #[test]
    fn it_is_found_behind_other_answers() {
        let before = "HTTP/1.1 404 Not Found\r\ncontent-length: 12\r\n\r\n{HTTP/1.1 4}";
        let both = format!("{before}{HYPERS}");
        let refusal = Refusal::at_end_of(both.as_bytes()).unwrap();
        assert_eq!((refusal.at, refusal.head), (before.len(), HYPERS));
    }

    #[test]
    fn other_answers_are_none() {
        for answer in [
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\nx-content-type-options: nosniff\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}",
            "{}",
            "",
        ] {
            assert_eq!(Refusal::at_end_of(answer.as_bytes()), None, "{answer}");
        }
    }
}
