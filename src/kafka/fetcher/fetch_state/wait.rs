//! What cursors wait for: the tail, or a fetch.

use std::sync::Arc;

use super::super::error::FetchError;
use super::super::tail_cache::OffsetRange;
use super::{CursorState, CursorWait, CursorWaiter, PartitionFetchState, PendingFetch, TailState};
use runtime::wake::WakeSignal;

impl<C: OffsetRange> PartitionFetchState<C> {
    /// Enters the cursor; says whether the task has to have the end fetched.
    pub(super) fn wait_at_end(&mut self, cursor: &mut CursorState, wake: &Arc<WakeSignal>) -> bool {
        self.tail_cache_used = true;
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
        self.tail != TailState::Fetched
    }

    /// Enters the cursor; says whether the task has a fetch to start.
    pub(super) fn wait_for_fetch(
        &mut self,
        cursor: &mut CursorState,
        wake: &Arc<WakeSignal>,
    ) -> bool {
        self.stop_waiting(cursor);
        let at = (cursor.offset, cursor.leader_epoch, cursor.validated_epoch);
        let index = self
            .pending_fetches
            .iter()
            .position(|fetch| (fetch.offset, fetch.leader_epoch, fetch.validated_epoch) == at);
        let index = index.unwrap_or_else(|| {
            let id = self.next_id();
            self.pending_fetches.push(PendingFetch {
                id,
                offset: cursor.offset,
                leader_epoch: cursor.leader_epoch,
                validated_epoch: cursor.validated_epoch,
                waiters: Vec::new(),
                ahead: false,
                in_flight: false,
            });
            self.pending_fetches.len() - 1
        });
        let fetch = &mut self.pending_fetches[index];
        cursor.wait = CursorWait::Fetch { id: fetch.id };
        fetch.waiters.push(CursorWaiter {
            cursor: cursor.id,
            wake: wake.clone(),
        });
        !fetch.in_flight
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
            CursorWait::Fetch { id } => {
                match self.pending_fetches.iter_mut().find(|fetch| fetch.id == id) {
                    Some(fetch) => remove(&mut fetch.waiters),
                    None => {
                        self.claim_result(id);
                    }
                }
            }
        }
        cursor.wait = CursorWait::None;
    }

    /// The validated epoch and the error of a finished fetch, for one of its cursors.
    pub(super) fn claim_result(&mut self, id: u64) -> Option<(i32, Option<FetchError>)> {
        let index = self
            .fetch_results
            .iter()
            .position(|result| result.id == id)?;
        let result = &mut self.fetch_results[index];
        result.unclaimed -= 1;
        if result.unclaimed > 0 {
            return Some((result.validated_epoch, result.error.clone()));
        }
        let result = self.fetch_results.swap_remove(index);
        Some((result.validated_epoch, result.error))
    }
}
