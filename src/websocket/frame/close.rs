//! Status codes, and the payload of a close frame (RFC 6455, sections 5.5.1 and 7.4).

use std::fmt;

use super::CONTROL_PAYLOAD_MAX;

/// Why a connection ends: a status code of section 7.4, or of IANA's registry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// The peer broke RFC 6455.
    pub(crate) const PROTOCOL_ERROR: CloseCode = CloseCode(1002);
    /// Text where bytes were due, or the other way round.
    pub const UNSUPPORTED_DATA: CloseCode = CloseCode(1003);
    /// Stands for a close frame without a status code; never in a frame itself.
    pub const NO_STATUS_RECEIVED: CloseCode = CloseCode(1005);
    /// A text message, or a close reason, that is not UTF-8.
    pub(crate) const INVALID_FRAME_PAYLOAD_DATA: CloseCode = CloseCode(1007);
    /// A rule of the server, named in the reason.
    pub const POLICY_VIOLATION: CloseCode = CloseCode(1008);
    /// A message over the limit.
    pub const MESSAGE_TOO_BIG: CloseCode = CloseCode(1009);
    /// A fault of the server.
    pub const INTERNAL_ERROR: CloseCode = CloseCode(1011);
    /// The server stops; the client may reconnect.
    pub const SERVICE_RESTART: CloseCode = CloseCode(1012);
    /// The server cannot serve this client now.
    pub const TRY_AGAIN_LATER: CloseCode = CloseCode(1013);

    /// Whether a peer may put it into a close frame: the registered ones except those
    /// that only describe a missing frame (1005, 1006, 1015), and 3000 to 4999.
    pub(crate) fn may_be_sent(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CloseCode({})", self.0)
    }
}

/// The payload of a close frame that has a status code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseFrame {
    /// The status code.
    pub code: CloseCode,
    /// For people; empty when there is none. At most 123 bytes.
    pub reason: Box<str>,
}

impl CloseFrame {
    /// A code, and a reason cut to what a close frame carries.
    pub fn new(code: CloseCode, reason: &str) -> Self {
        Self {
            code,
            reason: fitting(reason).into(),
        }
    }
}

/// What of a reason fits into a close frame after the status code: cut before the
/// character that does not.
pub(super) fn fitting(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(CONTROL_PAYLOAD_MAX - 2)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_registered_and_private_codes_may_be_sent() {
        for code in [
            1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999,
            4000, 4999,
        ] {
            assert!(CloseCode(code).may_be_sent(), "{code}");
        }
        for code in [
            0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535,
        ] {
            assert!(!CloseCode(code).may_be_sent(), "{code}");
        }
    }
}
