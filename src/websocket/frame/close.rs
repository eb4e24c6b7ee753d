//! Close codes, and what a close frame says.

use std::fmt;

/// Why a connection ends (RFC 6455, section 7.4, and IANA's registry).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// Done as intended.
    pub const NORMAL: CloseCode = CloseCode(1000);
    /// The endpoint goes away.
    pub const GOING_AWAY: CloseCode = CloseCode(1001);
    /// The peer broke RFC 6455.
    pub const PROTOCOL_ERROR: CloseCode = CloseCode(1002);
    /// Text where bytes were due, or the other way round.
    pub const UNSUPPORTED: CloseCode = CloseCode(1003);
    /// A text message, or a close reason, that is not UTF-8.
    pub const INVALID_PAYLOAD: CloseCode = CloseCode(1007);
    /// A rule of ours, named in the reason.
    pub const POLICY: CloseCode = CloseCode(1008);
    /// A message over the limit.
    pub const TOO_BIG: CloseCode = CloseCode(1009);
    /// Our fault.
    pub const INTERNAL: CloseCode = CloseCode(1011);
    /// The server stops; come back.
    pub const SERVICE_RESTART: CloseCode = CloseCode(1012);
    /// The server cannot serve this client now.
    pub const TRY_AGAIN_LATER: CloseCode = CloseCode(1013);

    /// Whether a peer may put it into a close frame: the registered ones except those
    /// that only describe a missing frame (1005, 1006, 1015), and 3000 to 4999.
    pub fn may_be_sent(self) -> bool {
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

/// What a close frame with a code says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// Why.
    pub code: CloseCode,
    /// For people; empty when nothing was said. At most 123 bytes.
    pub reason: Box<str>,
}

impl Close {
    /// A code, and a reason cut to what a close frame carries.
    pub fn new(code: CloseCode, reason: &str) -> Self {
        let end = reason.floor_char_boundary(123);
        Self {
            code,
            reason: reason[..end].into(),
        }
    }
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
