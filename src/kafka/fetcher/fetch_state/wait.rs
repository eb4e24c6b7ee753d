//! What cursors wait for: the tail, or a read.

use std::sync::Arc;

use super::super::error::FetchError;
use super::super::ring::OffsetRange;
use super::{
    CursorState, CursorWait, CursorWaiter, PartitionFetchState, PendingRead, TailMembership,
};
use runtime::wake::WakeSignal;

impl<C: OffsetRange> PartitionFetchState<C> {
    /// Enters the cursor; says whether the task has to see to the end being read.
    pub(super) fn wait_at_end(&mut self, cursor: &mut CursorState, wake: &Arc<WakeSignal>) -> bool {
        self.ring_used = true;
        let wait = CursorWait::AtEnd {
            end_wakeups: self.end_wakeups,
        };
        if cursor.wait != wait {
            cursor.wait = wait;
            self.waiting_at_end.push(CursorWaiter {
                cursor: cursor.id,
                wake: wake.clone(),
            });
        }
        self.tail != TailMembership::Joined
    }

    /// Enters the cursor; says whether the task has a read to start.
    pub(super) fn wait_for_read(
        &mut self,
        cursor: &mut CursorState,
        wake: &Arc<WakeSignal>,
    ) -> bool {
        self.stop_waiting(cursor);
        let at = (cursor.offset, cursor.leader_epoch, cursor.validated_epoch);
        let index = self
            .pending_reads
            .iter()
            .position(|read| (read.offset, read.leader_epoch, read.validated_epoch) == at);
        let index = index.unwrap_or_else(|| {
            let id = self.next_id();
            self.pending_reads.push(PendingRead {
                id,
                offset: cursor.offset,
                leader_epoch: cursor.leader_epoch,
                validated_epoch: cursor.validated_epoch,
                waiters: Vec::new(),
                ahead: false,
                in_flight: false,
            });
            self.pending_reads.len() - 1
        });
        let read = &mut self.pending_reads[index];
        cursor.wait = CursorWait::Read { id: read.id };
        read.waiters.push(CursorWaiter {
            cursor: cursor.id,
            wake: wake.clone(),
        });
        !read.in_flight
    }

    pub(super) fn stop_waiting(&mut self, cursor: &mut CursorState) {
        let remove = |waiters: &mut Vec<CursorWaiter>| {
            if let Some(index) = waiters.iter().position(|waiter| waiter.cursor == cursor.id) {
                waiters.swap_remove(index);
            }
        };
        match cursor.wait {
            CursorWait::None => {}
            CursorWait::AtEnd { end_wakeups } if end_wakeups == self.end_wakeups => {
                remove(&mut self.waiting_at_end);
            }
            CursorWait::AtEnd { .. } => {}
            CursorWait::Read { id } => {
                match self.pending_reads.iter_mut().find(|read| read.id == id) {
                    Some(read) => remove(&mut read.waiters),
                    None => {
                        self.claim_result(id);
                    }
                }
            }
        }
        cursor.wait = CursorWait::None;
    }

    /// The validated epoch and the error of a finished read, for one of its cursors.
    pub(super) fn claim_result(&mut self, id: u64) -> Option<(i32, Option<FetchError>)> {
        let index = self
            .read_results
            .iter()
            .position(|result| result.id == id)?;
        let result = &mut self.read_results[index];
        result.unclaimed -= 1;
        if result.unclaimed > 0 {
            return Some((result.validated_epoch, result.error.clone()));
        }
        let result = self.read_results.swap_remove(index);
        Some((result.validated_epoch, result.error))
    }
}
