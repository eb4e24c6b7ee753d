//! What can be wrong with a batch.
//!
//! The errors name the batch by its base offset; the caller knows topic and partition.

use crate::config::CompressionType;

/// A batch that cannot be read.
///
/// None of these is retriable in itself: the same bytes fail the same way. Bytes that
/// were damaged under way (and not on disk) may be better on the next fetch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The bytes end within a header.
    #[error("{available} bytes are too few for the batch at offset {base_offset}")]
    Short {
        /// Base offset of the batch, -1 if even that is missing.
        base_offset: i64,
        /// How many bytes there are.
        available: usize,
    },
    /// A batch format newer than this client.
    #[error("the batch at offset {base_offset} has the unknown magic {magic}")]
    UnknownMagic {
        /// Base offset of the batch.
        base_offset: i64,
        /// The magic byte.
        magic: i8,
    },
    /// A compression type that does not exist, or not in that magic.
    #[error("the batch at offset {base_offset} has the unknown compression type {id}")]
    UnknownCompression {
        /// Base offset of the batch.
        base_offset: i64,
        /// The attribute's value.
        id: u8,
    },
    /// The bytes are not those that were written.
    #[error(
        "the batch at offset {base_offset} is damaged: checksum {computed:#010x} instead of {stored:#010x}"
    )]
    Checksum {
        /// Base offset of the batch.
        base_offset: i64,
        /// The checksum in the header.
        stored: u32,
        /// The checksum of the bytes.
        computed: u32,
    },
    /// A field contradicts another, or the format.
    #[error("the batch at offset {base_offset} is malformed: {what}")]
    Malformed {
        /// Base offset of the batch.
        base_offset: i64,
        /// The contradiction.
        what: &'static str,
    },
    /// The compressed records cannot be decompressed.
    #[error("the batch at offset {base_offset} cannot be decompressed ({codec}): {reason}")]
    Decompression {
        /// Base offset of the batch.
        base_offset: i64,
        /// How it claims to be compressed.
        codec: CompressionType,
        /// The decompressor's message.
        reason: String,
    },
    /// The records are larger than this client is willing to hold.
    #[error("the batch at offset {base_offset} decompresses to more than {limit} bytes")]
    TooLarge {
        /// Base offset of the batch.
        base_offset: i64,
        /// The limit, in bytes.
        limit: usize,
    },
}
