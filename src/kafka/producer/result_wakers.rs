//! Who waits for a result that several futures share.

use std::sync::Mutex;
use std::task::Waker;

use runtime::mutex::lock;

/// The wakers of the futures that wait for one result.
#[derive(Debug, Default)]
pub(super) struct ResultWakers {
    registered: Mutex<RegisteredWakers>,
}

#[derive(Debug, Default)]
struct RegisteredWakers {
    /// Counts how often `wakers` was emptied.
    round: u32,
    wakers: Vec<Waker>,
}

/// Where a future left its waker, so that polling again replaces it.
#[derive(Clone, Copy, Debug)]
pub(super) struct WakerSlot {
    round: u32,
    index: u32,
}

impl ResultWakers {
    /// Leaves a waker, in the place of the one that was left in `slot` and is not woken yet.
    pub(super) fn register(&self, slot: Option<WakerSlot>, waker: &Waker) -> WakerSlot {
        let mut registered = lock(&self.registered);
        let round = registered.round;
        match slot {
            Some(slot) if slot.round == round => {
                registered.wakers[slot.index as usize].clone_from(waker);
                slot
            }
            _ => {
                registered.wakers.push(waker.clone());
                WakerSlot {
                    round,
                    index: registered.wakers.len() as u32 - 1,
                }
            }
        }
    }

    /// Wakes them all, and forgets them.
    pub(super) fn wake_all(&self) {
        let wakers = {
            let mut registered = lock(&self.registered);
            registered.round = registered.round.wrapping_add(1);
            std::mem::take(&mut registered.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        lock(&self.registered).wakers.len()
    }
}
