//! The records of a batch: a builder while it is open, encoded bytes afterwards.

use runtime::long_work::LongWork;

use crate::config::CompressionType;
use crate::record::{RecordBatch, RecordBatchBuilder};

use super::partition_queue::QueuedRecords;

/// Compressing so much takes about a millisecond.
pub(super) static COMPRESSION: LongWork = LongWork::from_bytes(16 << 10);

/// The records of a batch.
#[derive(Debug)]
pub(super) enum BatchRecords {
    /// Records can be appended.
    Open(RecordBatchBuilder),
    /// Encoded, and compressed if that is wanted.
    Built(RecordBatch),
}

impl BatchRecords {
    /// Encodes and compresses them if that has not happened yet. Takes its time: not to be
    /// called under a lock.
    pub(super) fn build(self, compression: CompressionType) -> RecordBatch {
        match self {
            Self::Open(builder) => builder.build(compression),
            Self::Built(batch) => batch,
        }
    }
}

impl QueuedRecords for BatchRecords {
    fn count(&self) -> u32 {
        match self {
            Self::Open(builder) => builder.count(),
            Self::Built(batch) => batch.count(),
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Open(builder) => builder.bytes(),
            Self::Built(batch) => batch.uncompressed_size(),
        }
    }

    fn retain(&self, wanted: &dyn Fn(u32) -> bool) -> Option<Self> {
        match self {
            // Only a batch that was sent is ever split, and that is built.
            Self::Open(_) => None,
            Self::Built(batch) => batch.retain(wanted).map(Self::Built),
        }
    }
}
