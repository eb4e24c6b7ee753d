//! Inflating what a client sent: anything at all, of which anything may come.

use flate2::{Decompress, FlushDecompress, Status};

use super::spare::Spare;

static INFLATERS: Spare<Decompress> = Spare::new();

/// Why there is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InflateError {
    /// It is over the limit.
    TooLong,
    /// It is not what the format says, or not all of it.
    Invalid,
}

/// The end of a flush, which is not sent, and an empty final block. A message that ends where a flush ends, as it has to,
/// ends with that: so one that is cut off is found.
const MESSAGE_END: [u8; 9] = [0x00, 0x00, 0xFF, 0xFF, 0x01, 0x00, 0x00, 0xFF, 0xFF];

/// The memory for a message to begin with, at most.
const FIRST_BYTES_MAX: usize = 64 << 10;

/// How long a message may be, compressed, if at most `bytes_max` are to come of it: the worst that
/// compressors make of what cannot be compressed (zlib's `deflateBound`).
pub(crate) fn compressed_bytes_max(bytes_max: usize) -> usize {
    let codes = bytes_max / 8 + bytes_max / 64;
    bytes_max.saturating_add(codes).saturating_add(64)
}

/// The message of a payload; at most `bytes_max` of it.
pub(crate) fn inflate(payload: &[u8], bytes_max: usize) -> Result<Vec<u8>, InflateError> {
    let mut inflater = INFLATERS
        .take(|_| true)
        .unwrap_or_else(|| Decompress::new(false));
    inflater.reset(false);
    let inflated = inflate_by(&mut inflater, payload, bytes_max);
    INFLATERS.give_back(inflater);
    inflated
}

fn inflate_by(
    inflater: &mut Decompress,
    payload: &[u8],
    bytes_max: usize,
) -> Result<Vec<u8>, InflateError> {
    let first = payload.len().saturating_mul(4).min(FIRST_BYTES_MAX);
    let mut message = Vec::with_capacity(first.min(bytes_max) + 1);
    // An empty message is a byte (section 7.2.3.6), but some send none.
    let (mut left, mut at_end) = (payload, payload.is_empty());
    if at_end {
        return Ok(message);
    }
    loop {
        let before = (inflater.total_in(), message.len());
        let status = inflater
            .decompress_vec(left, &mut message, FlushDecompress::None)
            .map_err(|_| InflateError::Invalid)?;
        if message.len() > bytes_max {
            return Err(InflateError::TooLong);
        }
        left = &left[(inflater.total_in() - before.0) as usize..];
        let is_full = message.len() == message.capacity();
        match status {
            Status::StreamEnd if left.is_empty() => return Ok(message),
            Status::StreamEnd if at_end => return Err(InflateError::Invalid),
            // After a final block there may be another (section 7.2.3.4), which knows nothing of
            // the one before.
            Status::StreamEnd => inflater.reset(false),
            _ if is_full => {
                let room = message
                    .len()
                    .max(FIRST_BYTES_MAX)
                    .min(bytes_max + 1 - message.len());
                message.reserve_exact(room);
            }
            _ if !left.is_empty() && (inflater.total_in(), message.len()) != before => {}
            _ if at_end => return Err(InflateError::Invalid),
            _ if left.is_empty() => (left, at_end) = (&MESSAGE_END, true),
            _ => return Err(InflateError::Invalid),
        }
    }
}
