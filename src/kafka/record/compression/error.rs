//! Why a codec gave nothing.

use std::io;

use crate::config::CompressionType;

/// Why a buffer cannot be decompressed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::record) enum DecompressError {
    /// There is more than the caller wants to hold.
    #[error("more than {limit} bytes")]
    TooLarge {
        /// The caller's limit, in bytes.
        limit: usize,
    },
    /// Not what the codec writes.
    #[error("{0}")]
    Malformed(String),
}

impl DecompressError {
    pub(super) fn malformed(what: impl ToString) -> Self {
        Self::Malformed(what.to_string())
    }
}

impl From<DecompressError> for io::Error {
    fn from(error: DecompressError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// Why a buffer was not compressed: the codec panicked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {codec} encoder panicked: {panic}")]
pub(in crate::record) struct CompressError {
    pub(super) codec: CompressionType,
    pub(super) panic: String,
}
