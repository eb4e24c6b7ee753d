//! One connection's requests as they arrive.
//!
//! ```text
//! length ─▶ within the limit? ─▶ large? ─▶ wait for its part of the memory ─▶ the rest
//! ```
//!
//! # Invariants
//! - Large requests of all connections together take at most
//!   [`BrokerConfig::requests_memory`](super::BrokerConfig::requests_memory). A client
//!   that was granted its part must send the rest in time.
//! - A large request's buffer goes with it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::connection_end::ConnectionEnd;

/// The memory that large requests share.
#[derive(Debug)]
pub(super) struct RequestMemory {
    free: Arc<Semaphore>,
    bytes: u32,
}

impl RequestMemory {
    /// So many bytes for all large requests together.
    pub(super) fn new(bytes: usize) -> Self {
        let bytes = u32::try_from(bytes.min(Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
        Self {
            free: Arc::new(Semaphore::new(bytes as usize)),
            bytes,
        }
    }

    /// Waits for that many bytes; a request larger than the limit gets all of it.
    async fn take(&self, bytes: usize) -> Option<RequestMemoryPermit> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.bytes);
        let taken = Arc::clone(&self.free).acquire_many_owned(bytes).await;
        taken.ok().map(RequestMemoryPermit)
    }
}

/// A part of the request memory, until it is dropped.
#[derive(Debug)]
pub(super) struct RequestMemoryPermit(
    #[expect(dead_code, reason = "is held, not looked at")] OwnedSemaphorePermit,
);

/// Cuts what a client sends into requests.
#[derive(Debug)]
pub(super) struct RequestReader {
    buffer: BytesMut,
    limit: usize,
}

impl RequestReader {
    /// Reads requests of up to `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            buffer: BytesMut::with_capacity(READ_AHEAD),
            limit,
        }
    }

    /// The next one without its length, and what it takes of the request memory.
    pub(super) async fn next(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        memory: &RequestMemory,
    ) -> Result<(Bytes, Option<RequestMemoryPermit>), ConnectionEnd> {
        self.fill(stream, 4).await?;
        let length = i32::from_be_bytes(*self.buffer.first_chunk().unwrap_or(&[0xff; 4]));
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > self.limit {
            return Err(ConnectionEnd::Protocol(
                "a request beyond the size limit".into(),
            ));
        }
        if length <= LARGE {
            self.fill(stream, 4 + length).await?;
            self.buffer.advance(4);
            return Ok((self.buffer.split_to(length).freeze(), None));
        }
        let taken = memory.take(length).await;
        timeout(LARGE_TIME, self.fill(stream, 4 + length))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let rest = BytesMut::from(&self.buffer[4 + length..]);
        let mut frame = std::mem::replace(&mut self.buffer, rest);
        frame.truncate(4 + length);
        frame.advance(4);
        Ok((frame.freeze(), taken))
    }

    async fn fill(&mut self, stream: &mut (impl AsyncRead + Unpin), size: usize) -> io::Result<()> {
        while self.buffer.len() < size {
            // The buffer grows as bytes arrive: a client that only announces a large request takes
            // no memory for it.
            let missing = size - self.buffer.len();
            self.buffer.reserve(missing.clamp(READ_AHEAD, LARGE));
            if stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }
}

/// Requests beyond this size are large, in bytes.
const LARGE: usize = 1 << 20;
/// How long a large request may take to arrive.
const LARGE_TIME: Duration = Duration::from_secs(30);
/// What is asked of the socket at least.
const READ_AHEAD: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    fn request(length: usize) -> Vec<u8> {
        let mut request = (length as i32).to_be_bytes().to_vec();
        request.resize(4 + length, 7);
        request
    }

    #[tokio::test]
    async fn requests_of_any_size_are_cut_where_they_end() {
        let sizes = [8, 5_000, LARGE, LARGE + 1, 9, 3 * LARGE, 0, 10];
        let sent: Vec<u8> = sizes.iter().flat_map(|&size| request(size)).collect();
        let mut sent = &sent[..];
        let memory = RequestMemory::new(LARGE);
        let mut requests = RequestReader::new(4 * LARGE);
        for size in sizes {
            let (frame, taken) = requests.next(&mut sent, &memory).await.unwrap();
            assert_eq!(frame.len(), size);
            assert!(frame.iter().all(|&byte| byte == 7));
            assert_eq!(taken.is_some(), size > LARGE);
            // The buffer of a large one goes with it.
            assert!(size <= LARGE || frame.is_unique());
        }
        let end = requests.next(&mut sent, &memory).await;
        assert!(matches!(end, Err(ConnectionEnd::Io(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn large_requests_wait_for_one_another_and_small_ones_do_not() {
        let memory = RequestMemory::new(3 * LARGE);
        let (mut stalling, mut stream) = duplex(4 * LARGE);
        stalling
            .write_all(&request(2 * LARGE)[..100])
            .await
            .unwrap();
        let mut slow = RequestReader::new(4 * LARGE);
        let mut slow = pin!(slow.next(&mut stream, &memory));
        assert!(timeout(LARGE_TIME / 2, &mut slow).await.is_err());

        let large = request(2 * LARGE);
        let (mut large, mut other) = (&large[..], RequestReader::new(4 * LARGE));
        let mut waiting = pin!(other.next(&mut large, &memory));
        assert!(timeout(LARGE_TIME / 4, &mut waiting).await.is_err());
        let mut small = &request(100)[..];
        let mut client = RequestReader::new(4 * LARGE);
        assert!(client.next(&mut small, &memory).await.is_ok());

        // Who stalls is given up, and the next one has its turn.
        assert!(matches!(slow.await, Err(ConnectionEnd::Io(_))));
        let (frame, _) = waiting.await.unwrap();
        assert_eq!(frame.len(), 2 * LARGE);
    }
}
