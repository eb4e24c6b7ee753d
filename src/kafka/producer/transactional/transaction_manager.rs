//! As whom a transactional producer writes, and what the next transaction needs before it (Java's
//! `TransactionManager`).
//!
//! ```text
//!                    transaction.version 2            up to 1
//! partitions         added by Produce 12+             AddPartitionsToTxn, Produce up to 11
//! after a commit     EndTxn's epoch, sequences 0      the same epoch, sequences go on
//! after an abort     EndTxn's epoch, sequences 0      InitProducerId: the next epoch (KIP-360)
//! ```
//!
//! Pure.

use std::collections::HashMap;

use super::super::producer_id::ProducerIdAndEpoch;
use crate::topic::TopicPartition;

/// Which transactions the cluster has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TransactionProtocol {
    /// `transaction.version` 0 or 1, or none: KIP-98.
    V1,
    /// `transaction.version` 2: KIP-890.
    V2,
}

/// What InitProducerId gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InitializedProducer {
    pub(super) producer_id: ProducerIdAndEpoch,
    pub(super) protocol: TransactionProtocol,
    /// The coordinator can raise the epoch of a producer that names itself (KIP-360), which a
    /// zombie cannot. Brokers before 2.5 cannot tell the two.
    pub(super) can_bump_epoch: bool,
}

/// The producer between and in its transactions.
#[derive(Debug)]
pub(super) struct TransactionManager {
    current: InitializedProducer,
    /// Up to `transaction.version` 1: the next sequence, where it is not 0.
    sequences: HashMap<TopicPartition, i32>,
    /// Requests that may have opened a transaction.
    opening_requests: u32,
}

impl TransactionManager {
    pub(super) fn new(initialized: InitializedProducer) -> Self {
        Self {
            current: initialized,
            sequences: HashMap::new(),
            opening_requests: 0,
        }
    }

    pub(super) fn current(&self) -> InitializedProducer {
        self.current
    }

    /// The sequence of the next batch for a partition.
    pub(super) fn sequence_of(&self, partition: &TopicPartition) -> i32 {
        self.sequences.get(partition).copied().unwrap_or(0)
    }

    /// A request is sent that may open a transaction.
    pub(super) fn request_sent(&mut self) {
        self.opening_requests += 1;
    }

    /// One of them has certainly opened none.
    pub(super) fn request_had_no_effect(&mut self) {
        self.opening_requests = self.opening_requests.saturating_sub(1);
    }

    /// The coordinator may have a transaction open.
    pub(super) fn is_maybe_open(&self) -> bool {
        self.opening_requests > 0
    }

    /// A transaction was committed, and EndTxn named the next producer id and epoch, if it did.
    pub(super) fn committed<'a>(
        &mut self,
        next: Option<ProducerIdAndEpoch>,
        sequences: impl Iterator<Item = (&'a TopicPartition, i32)>,
    ) {
        self.opening_requests = 0;
        match next {
            Some(next) => self.set_producer_id(next),
            None => {
                let sequences = sequences.map(|(partition, next)| (partition.clone(), next));
                self.sequences.extend(sequences);
            }
        }
    }

    /// A transaction was aborted, and EndTxn named the next producer id and epoch, if it did.
    /// Returns whether InitProducerId has to name them: sequences that were sent cannot be used
    /// again under this epoch.
    pub(super) fn aborted(&mut self, next: Option<ProducerIdAndEpoch>) -> bool {
        self.opening_requests = 0;
        match next {
            Some(next) => self.set_producer_id(next),
            None => return true,
        }
        false
    }

    /// InitProducerId has named another epoch.
    pub(super) fn initialized(&mut self, initialized: InitializedProducer) {
        self.current = initialized;
        self.sequences.clear();
        self.opening_requests = 0;
    }

    fn set_producer_id(&mut self, next: ProducerIdAndEpoch) {
        self.current.producer_id = next;
        self.sequences.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn producer(epoch: i16) -> ProducerIdAndEpoch {
        ProducerIdAndEpoch { id: 5, epoch }
    }

    fn manager(protocol: TransactionProtocol) -> (TransactionManager, TopicPartition) {
        let initialized = InitializedProducer {
            producer_id: producer(0),
            protocol,
            can_bump_epoch: true,
        };
        let manager = TransactionManager::new(initialized);
        (manager, TopicPartition::new("t", 0))
    }

    #[test]
    fn sequences_go_on_after_a_commit_under_the_same_epoch() {
        let (mut manager, partition) = manager(TransactionProtocol::V1);
        manager.request_sent();
        manager.committed(None, [(&partition, 3)].into_iter());
        assert_eq!(manager.sequence_of(&partition), 3);
        assert_eq!(manager.current().producer_id, producer(0));
        assert!(!manager.is_maybe_open());
        // After an abort the brokers may have sequences that this one does not know of.
        assert!(manager.aborted(None));
        let initialized = InitializedProducer {
            producer_id: producer(1),
            ..manager.current()
        };
        manager.initialized(initialized);
        assert_eq!(manager.sequence_of(&partition), 0);
    }

    #[test]
    fn sequences_begin_anew_under_the_epoch_that_an_end_brings() {
        let (mut manager, partition) = manager(TransactionProtocol::V2);
        manager.committed(Some(producer(1)), [(&partition, 3)].into_iter());
        assert_eq!(manager.sequence_of(&partition), 0);
        assert_eq!(manager.current().producer_id, producer(1));
        assert!(!manager.aborted(Some(producer(2))));
        assert_eq!(manager.current().producer_id, producer(2));
    }

    #[test]
    fn there_is_something_to_abort_unless_every_request_had_certainly_no_effect() {
        let (mut manager, _) = manager(TransactionProtocol::V2);
        assert!(!manager.is_maybe_open());
        manager.request_sent();
        manager.request_sent();
        manager.request_had_no_effect();
        assert!(manager.is_maybe_open());
        manager.request_had_no_effect();
        assert!(!manager.is_maybe_open());
    }
}
