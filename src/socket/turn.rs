//! How much a socket's task does before the other tasks of its worker get a turn: nothing
//! interrupts it, and one message may hold hundreds of thousands of records.

use tokio::task::yield_now;

/// Records, messages and the like, of which each takes about a microsecond.
pub(super) const STEPS_PER_TURN: u32 = 256;
/// What a read of as much as there is room for takes.
pub(super) const STEPS_PER_READ: u32 = 16;

/// What the task has done in its turn.
#[derive(Debug, Default)]
pub(super) struct TaskTurn {
    steps: u32,
}

impl TaskTurn {
    /// Notes so many steps, and lets others have their turn when it is theirs.
    pub(super) async fn spend(&mut self, steps: u32) {
        self.steps += steps;
        if self.steps >= STEPS_PER_TURN {
            self.steps = 0;
            yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn others_get_a_turn_after_a_bounded_number_of_steps() {
        let mut turn = TaskTurn::default();
        for _ in 0..3 {
            for _ in 1..STEPS_PER_TURN {
                assert!(turn.spend(1).now_or_never().is_some());
            }
            assert!(turn.spend(1).now_or_never().is_none());
        }
        assert!(turn.spend(STEPS_PER_TURN).now_or_never().is_none());
    }
}
