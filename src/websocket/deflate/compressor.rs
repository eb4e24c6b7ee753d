//! Compressing: with a state of some 300 KiB, which is costly to make, and so is used again.

use flate2::{Compress, Compression, FlushCompress};

use super::inflater::compressed_bytes_max;
use super::spare::Spare;

/// Fixed codes and short searches. Of a record of a kilobyte the next level saves a fifth more, and
/// takes twice as long.
const LEVEL: Compression = Compression::new(1);

/// The end of what a flush writes (section 7.2.1): not sent, and appended to what is received.
pub(super) const FLUSH_END: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];

/// What is kept with a state of the memory for compressed messages.
const KEPT_BYTES_MAX: usize = 64 << 10;

static COMPRESSORS: Spare<CompressorState> = Spare::new();

/// Compresses messages; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Compressor(Option<CompressorState>);

#[derive(Debug)]
struct CompressorState {
    window_bits: u8,
    deflate: Compress,
    compressed: Vec<u8>,
}

impl Compressor {
    /// With a window of so many bits, 9 to 15.
    pub(super) fn with_window(window_bits: u8) -> Self {
        let kept = COMPRESSORS.take(|state| state.window_bits == window_bits);
        Self(Some(kept.unwrap_or_else(|| CompressorState {
            window_bits,
            deflate: Compress::new_with_window_bits(LEVEL, false, window_bits),
            compressed: Vec::new(),
        })))
    }

    /// The message compressed, without [`FLUSH_END`]; `None` if that is not shorter.
    pub(crate) fn compress(&mut self, message: &[u8]) -> Option<&[u8]> {
        if !self.0.as_mut()?.compress(message) {
            // Not one to be used again.
            self.0 = None;
        }
        let payload = self.0.as_ref()?.compressed.strip_suffix(&FLUSH_END)?;
        (payload.len() < message.len()).then_some(payload)
    }
}

impl CompressorState {
    /// Compresses the message; whether it is whole, of which there is no doubt: zlib-rs must not be
    /// reset while it has output pending, so there is room for the worst that may come of it.
    fn compress(&mut self, message: &[u8]) -> bool {
        self.deflate.reset();
        self.compressed.clear();
        let room = compressed_bytes_max(message.len());
        self.compressed.reserve_exact(room);
        let sync = FlushCompress::Sync;
        let flushed = self
            .deflate
            .compress_vec(message, &mut self.compressed, sync);
        let has_room = self.compressed.len() < self.compressed.capacity();
        flushed.is_ok() && has_room && self.deflate.total_in() == message.len() as u64
    }
}

impl Drop for Compressor {
    fn drop(&mut self) {
        if let Some(mut state) = self.0.take() {
            if state.compressed.capacity() > KEPT_BYTES_MAX {
                state.compressed = Vec::new();
            }
            COMPRESSORS.give_back(state);
        }
    }
}
