//! Conversions between the codec's types and ours.

use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::protocol::StrBytes;

/// A string as the protocol has it.
pub(super) fn text(value: impl ToString) -> StrBytes {
    StrBytes::from_string(value.to_string())
}

/// A copy, to be kept for longer than a request: a slice of a frame keeps all of it alive.
pub(super) fn owned(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// Milliseconds of a request; negative ones are none.
pub(super) fn millis(ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

/// The error code of a result, 0 for none.
pub(super) fn error_code(result: Result<(), ResponseError>) -> i16 {
    result.err().map_or(0, |error| error.code())
}
