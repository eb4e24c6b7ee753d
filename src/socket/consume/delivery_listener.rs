//! What the ways of sending report to.

use super::encoded_frames::RecordFrame;
use kafka_client::consumer::{FetchPosition, TopicPartition};

/// Is told what the kernel has taken whole.
pub(super) trait DeliveryListener {
    /// These records of `tp`, in order.
    fn delivered(&mut self, tp: &TopicPartition, frames: &[RecordFrame]);
    /// Everything of `tp` before `end` is delivered, or is not to be delivered.
    fn advance_to(&mut self, tp: &TopicPartition, end: FetchPosition);
}
