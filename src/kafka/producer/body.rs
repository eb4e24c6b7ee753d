//! What a batch holds: a builder while records come, bytes afterwards.

use crate::config::CompressionType;
use crate::record::{RecordBatch, RecordBatchBuilder};

use super::queue::Payload;

/// The records of a batch.
#[derive(Debug)]
pub(super) enum Body {
    /// Takes records.
    Open(RecordBatchBuilder),
    /// Encoded, and compressed if that is wanted.
    Sealed(RecordBatch),
}

impl Body {
    /// Encodes it if that has not happened yet. Not to be done under a lock.
    pub(super) fn sealed(self, compression: CompressionType) -> RecordBatch {
        match self {
            Self::Open(builder) => builder.build(compression),
            Self::Sealed(batch) => batch,
        }
    }
}

impl Payload for Body {
    fn count(&self) -> u32 {
        match self {
            Self::Open(builder) => builder.count(),
            Self::Sealed(batch) => batch.count(),
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Open(builder) => builder.bytes(),
            Self::Sealed(batch) => batch.uncompressed_size(),
        }
    }

    fn keep(&self, wanted: &dyn Fn(u32) -> bool) -> Option<Self> {
        match self {
            // Only what was sent is ever divided, and that is sealed.
            Self::Open(_) => None,
            Self::Sealed(batch) => batch.retain(wanted).map(Self::Sealed),
        }
    }
}
