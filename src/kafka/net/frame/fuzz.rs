//! Streams of frames, whole or damaged, in whatever pieces they arrive.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use fuzzing::{fuzz, within};
use tokio::io::ReadBuf;

use super::*;

const LIMIT: usize = 1 << 16;

/// Gives one piece at each read.
struct PiecewiseStream<'a>(std::vec::IntoIter<&'a [u8]>, &'a [u8]);

impl AsyncRead for PiecewiseStream<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.1.is_empty() {
            match self.0.next() {
                Some(piece) => self.1 = piece,
                None => break,
            }
        }
        let (taken, rest) = self.1.split_at(self.1.len().min(buffer.remaining()));
        buffer.put_slice(taken);
        self.1 = rest;
        Poll::Ready(Ok(()))
    }
}

#[test]
fn fuzz_kafka_frames() {
    fuzz("kafka_frames", |input| {
        let mut frames = Vec::new();
        let mut stream = Vec::new();
        for _ in 0..input.below(5) {
            let len = RESPONSE_SIZE_MIN + input.up_to_bits(15);
            let frame = input.bytes(len);
            stream.extend_from_slice(&(len as i32).to_be_bytes());
            stream.extend_from_slice(&frame);
            frames.push(frame);
        }
        let damaged = input.one_in(2);
        if damaged {
            input.damage(&mut stream);
        }
        let (whole, end) = read_all(vec![&stream], &stream);
        let pieces = input.cut(&stream, 20);
        assert!(read_all(pieces, &stream) == (whole.clone(), end.clone()));
        if !damaged {
            assert!((whole, end) == (frames, None));
        }
    });
}

/// The frames, and what ends them.
fn read_all(pieces: Vec<&[u8]>, stream: &[u8]) -> (Vec<Vec<u8>>, Option<String>) {
    let source = PiecewiseStream(pieces.into_iter(), b"");
    let mut reader = FrameReader::new(source, LIMIT);
    let mut frames = Vec::new();
    loop {
        // The buffer grows by what the length says, up to a limit, or by what is there.
        let bytes_max = 2 * LIMIT + READ_AHEAD + 4 * stream.len();
        let next = within(bytes_max, "a frame", || reader.next().now_or_never());
        match next.expect("there is always something to read") {
            Ok(Some(frame)) => frames.push(frame.to_vec()),
            Ok(None) => return (frames, None),
            Err(error) => return (frames, Some(error.to_string())),
        }
    }
}
