//! How much of `buffer.memory` a partition may hold, and who waits until it may hold more.
//!
//! ```text
//!  buffer.memory  [ partition 0 ][ 1 ][ 2 ][ 3 ]······· free ·······
//!                 └ stalled: half at most ┘     └ each of the others: a quarter of what is free
//! ```
//!
//! # Invariants
//! - A partition takes more only while it holds no more than a quarter of what is free then:
//!   one that does not drain leaves four fifths to the others, four of them together leave
//!   half. One that drains needs no more: it has five batches in flight at most.
//! - Stalled partitions take no more once they hold half of `buffer.memory` together.
//! - A partition that holds nothing takes a record whenever there is memory for it, also after
//!   it stalled: so it is found out that it can be written to again.
//! - A caller whose partition has used up its share waits for that partition, and holds no
//!   memory; callers that write to other partitions do not wait for it.
//! - Callers that wait for one partition are served in the order in which they came: one that
//!   comes later, and need not wait, leaves what the first of them needs.
//!
//! ```text
//!  caller ─▶ caller ─▶ caller ─▶ [ the first: PartitionMemoryTurn ] ─▶ append
//!            PartitionMemoryWaiters            waits for `freed`
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::super::error::ProduceError;
use super::{AccumulatorEffects, RecordAccumulator};

/// Why a record was not appended.
#[derive(Debug)]
pub(in super::super) enum RecordAppendError {
    /// It never will be.
    Refused(ProduceError),
    /// Its partition's share of memory is used up: to be tried again when it is the caller's
    /// turn among these waiters.
    PartitionMemoryExhausted(Arc<PartitionMemoryWaiters>),
}

impl From<ProduceError> for RecordAppendError {
    fn from(error: ProduceError) -> Self {
        Self::Refused(error)
    }
}

/// What a record needs, and what there is.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct RecordMemory<'a> {
    /// Bytes that were taken for the record.
    pub(in super::super) taken: usize,
    /// Bytes of `buffer.memory` that are left.
    pub(in super::super) free: usize,
    /// The caller's turn, if it has waited.
    pub(in super::super) turn: Option<&'a PartitionMemoryTurn>,
    /// Since when the caller waits, if it does: its record's delivery timeout begins then.
    pub(in super::super) since: Option<Instant>,
}

/// The callers that wait for one partition's share of memory, as those in `waiters` of Java's
/// `BufferPool` do for the whole of it. Each holds an `Arc` of it as long as it waits.
#[derive(Debug)]
pub(in super::super) struct PartitionMemoryWaiters {
    /// Its one permit is the first one's.
    first: Semaphore,
    /// Notifies the first one that the partition may hold less than before.
    freed: Notify,
    /// Bytes that the first one needs, once it was refused.
    needed: AtomicUsize,
}

/// The turn of the caller that has waited longest; dropped, it goes to the next.
#[derive(Debug)]
pub(in super::super) struct PartitionMemoryTurn(Arc<PartitionMemoryWaiters>);

impl PartitionMemoryWaiters {
    fn new() -> Self {
        Self {
            first: Semaphore::new(1),
            freed: Notify::new(),
            needed: AtomicUsize::new(0),
        }
    }

    /// Has the first caller try again.
    pub(in super::super) fn notify_freed(&self) {
        self.freed.notify_one();
    }

    /// Until it is worth trying again; `turn` is that of the attempt that was refused.
    /// Cancel-safe: a caller that goes away is no longer queued.
    pub(in super::super) async fn wait(
        self: Arc<Self>,
        turn: Option<PartitionMemoryTurn>,
    ) -> PartitionMemoryTurn {
        match turn {
            Some(turn) if turn.is_of(&self) => {
                self.freed.notified().await;
                turn
            }
            elsewhere => {
                drop(elsewhere);
                let first = self.first.acquire().await;
                first.expect("it is never closed").forget();
                PartitionMemoryTurn(self)
            }
        }
    }
}

impl PartitionMemoryTurn {
    fn is_of(&self, waiters: &Arc<PartitionMemoryWaiters>) -> bool {
        Arc::ptr_eq(&self.0, waiters)
    }
}

impl Drop for PartitionMemoryTurn {
    fn drop(&mut self) {
        self.0.needed.store(0, Ordering::Relaxed);
        self.0.first.add_permits(1);
    }
}

impl RecordAccumulator {
    /// Whether the slot's partition may take the record.
    #[inline]
    pub(super) fn memory_allows(&self, slot: usize, memory: RecordMemory<'_>) -> bool {
        let slot = &self.slots[slot];
        let held = slot.queue.memory();
        let needed_by_first = match &slot.memory_waiters {
            Some(waiters) if memory.turn.is_none() => waiters.needed.load(Ordering::Relaxed),
            _ => 0,
        };
        let wanted = memory.taken + needed_by_first;
        let half = self.limits.buffer_memory / 2;
        (held == 0 && needed_by_first == 0)
            || (held + wanted <= memory.free / 4
                && (!slot.is_stalled || self.stalled_memory + wanted <= half))
    }

    /// The partitions of a topic whose share does not allow the record.
    pub(super) fn partitions_without_memory(
        &self,
        topic_index: usize,
        memory: RecordMemory<'_>,
    ) -> Vec<i32> {
        let slots = (0..).zip(&self.topics[topic_index].slots);
        let full = slots.filter(|(_, slot)| slot.is_some_and(|s| !self.memory_allows(s, memory)));
        full.map(|(partition, _)| partition).collect()
    }

    /// What to wait for where the share does not allow the record.
    pub(super) fn wait_for_partition_memory(
        &mut self,
        index: usize,
        memory: RecordMemory<'_>,
        now: Instant,
        effects: &mut AccumulatorEffects,
    ) -> RecordAppendError {
        let slot = &mut self.slots[index];
        let waiters = slot
            .memory_waiters
            .get_or_insert_with(|| Arc::new(PartitionMemoryWaiters::new()));
        let waiters = Arc::clone(waiters);
        if memory.turn.is_some_and(|turn| turn.is_of(&waiters)) {
            waiters.needed.store(memory.taken, Ordering::Relaxed);
        }
        // What lingers for more records would wait in vain.
        if slot.queue.make_ready() {
            self.reschedule(index, now, effects);
        }
        RecordAppendError::PartitionMemoryExhausted(waiters)
    }

    /// Counts what was appended to the slot's partition, if that is stalled.
    #[inline]
    pub(super) fn count_stalled(&mut self, index: usize, memory: usize) {
        let slot = &mut self.slots[index];
        if slot.is_stalled {
            slot.stalled_memory += memory;
            self.stalled_memory += memory;
        }
    }

    /// Notes whether the slot's partition is stalled, and has the first caller that waits for
    /// its share try again.
    pub(super) fn update_partition_memory(
        &mut self,
        index: usize,
        now: Instant,
        effects: &mut AccumulatorEffects,
    ) {
        let slot = &mut self.slots[index];
        slot.is_stalled = slot.queue.is_stalled(now);
        let stalled_memory = match slot.is_stalled {
            true => slot.queue.memory(),
            false => 0,
        };
        self.stalled_memory -= std::mem::replace(&mut slot.stalled_memory, stalled_memory);
        self.stalled_memory += stalled_memory;
        match &slot.memory_waiters {
            // Another `Arc` than the slot's own is that of a caller.
            Some(waiters) if Arc::strong_count(waiters) > 1 => {
                effects.memory_waiters_to_wake.push(Arc::clone(waiters));
            }
            _ => slot.memory_waiters = None,
        }
    }
}
