//! The sink without `batchSize`: each record is a text frame, written from the chunk that it
//! is encoded in, without a copy.
//!
//! Under TLS what was written is encrypted, and counts as delivered when the kernel has the whole
//! TLS record that it is in.

use std::io;

use super::chunk::OutgoingChunk;
use super::delivery_listener::DeliveryListener;
use super::encoded_frames::RecordFrame;
use crate::socket::session::SocketSession;
use kafka_client::consumer::TopicPartition;

/// What one call has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SentRecords {
    /// How many records it began to send: a record counts for the rate when it is begun.
    pub(super) begun: usize,
    /// Whether the kernel did not take all.
    pub(super) blocked: bool,
}

/// The records that are on their way to the kernel.
#[derive(Debug, Default)]
pub(super) struct SingleFrameSink {
    /// Records of one partition that were taken and encrypted, of which the kernel may not have
    /// all. Nothing is sent after them before it does.
    in_flight: Option<(TopicPartition, Vec<RecordFrame>)>,
}

impl SingleFrameSink {
    /// Writes frames of the chunk, of which `permits` may be begun. Nothing may be in flight.
    ///
    /// A frame that is partly sent is completed first; while the session has frames of its own
    /// to send, nothing but that.
    pub(super) fn send(
        &mut self,
        chunk: &mut OutgoingChunk,
        permits: usize,
        session: &mut SocketSession,
        listener: &mut impl DeliveryListener,
    ) -> io::Result<SentRecords> {
        let begun = chunk.begun();
        let end = match chunk.is_inside_frame() && !session.out.is_empty() {
            true => begun,
            false => begun.saturating_add(permits),
        };
        let bytes = chunk.bytes_before(end);
        let wanted = bytes.len();
        let taken = session.write(bytes)?;
        let in_flight = session.in_flight();
        self.note_taken(chunk, taken, in_flight, listener);
        Ok(SentRecords {
            begun: chunk.begun() - begun,
            blocked: taken < wanted || in_flight > 0,
        })
    }

    /// `taken` bytes were taken, of which the kernel may not have the last `in_flight`.
    fn note_taken(
        &mut self,
        chunk: &mut OutgoingChunk,
        taken: usize,
        in_flight: usize,
        listener: &mut impl DeliveryListener,
    ) {
        let completed = chunk.sent(taken);
        if !chunk.is_assigned {
            return;
        }
        let frames = &chunk.frames()[completed];
        let delivered = match in_flight {
            0 => frames.len(),
            _ => {
                let gone = chunk.sent_to() - in_flight;
                frames.partition_point(|frame| frame.end <= gone)
            }
        };
        let (delivered, waiting) = frames.split_at(delivered);
        listener.delivered(chunk.tp(), delivered);
        if !waiting.is_empty() {
            self.in_flight = Some((chunk.tp().clone(), waiting.to_vec()));
        }
    }

    /// The kernel has all that was in flight: reports it.
    pub(super) fn take_delivered(&mut self, listener: &mut impl DeliveryListener) {
        if let Some((tp, frames)) = self.in_flight.take() {
            listener.delivered(&tp, &frames);
        }
    }

    /// What is in flight of these partitions is not reported as delivered.
    pub(super) fn remove_partitions(&mut self, partitions: &[TopicPartition]) {
        self.in_flight.take_if(|(tp, _)| partitions.contains(tp));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::consume::chunk::tests::chunk;
    use kafka_client::consumer::FetchPosition;

    #[derive(Default)]
    struct ReportedOffsets(Vec<i64>);

    impl DeliveryListener for ReportedOffsets {
        fn delivered(&mut self, _: &TopicPartition, frames: &[RecordFrame]) {
            self.0.extend(frames.iter().map(|frame| frame.offset));
        }

        fn advance_to(&mut self, _: &TopicPartition, end: FetchPosition) {
            self.0.push(end.offset);
        }
    }

    #[test]
    fn a_record_is_delivered_when_the_kernel_has_all_that_was_encrypted_with_it() {
        let (mut sink, mut listener) = (SingleFrameSink::default(), ReportedOffsets::default());
        // Of six bytes each.
        let mut chunk = chunk(&["aaaa", "bbbb", "cccc", "dddd"]);
        sink.note_taken(&mut chunk, 20, 8, &mut listener);
        assert_eq!(listener.0, [10, 11]);
        assert!(chunk.is_inside_frame());
        sink.take_delivered(&mut listener);
        assert_eq!(listener.0, [10, 11, 12]);
        sink.take_delivered(&mut listener);
        sink.note_taken(&mut chunk, 4, 0, &mut listener);
        assert_eq!(listener.0, [10, 11, 12, 13]);
    }

    #[test]
    fn what_is_revoked_while_it_is_in_flight_is_not_reported() {
        let (mut sink, mut listener) = (SingleFrameSink::default(), ReportedOffsets::default());
        sink.note_taken(&mut chunk(&["aaaa"]), 6, 6, &mut listener);
        sink.remove_partitions(&[TopicPartition::new("t", 1)]);
        assert!(sink.in_flight.is_some(), "another partition");
        sink.remove_partitions(&[TopicPartition::new("t", 0)]);
        sink.take_delivered(&mut listener);
        assert_eq!(listener.0, [0; 0]);
    }
}
