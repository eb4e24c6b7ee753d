//! How much a socket's task does before the other tasks of its worker get a turn: nothing
//! interrupts it, and one message may hold hundreds of thousands of records.

use tokio::task::yield_now;

/// Records, messages and the like, of which each takes about a microsecond.
pub(super) const STEPS_PER_TURN: u32 = 256;
/// What a read takes, whatever it brings.
const STEPS_PER_READ: u32 = 16;
/// So many bytes take a step: a read may bring frames that are no messages, such as empty
/// fragments, of six bytes each, and a record may be long.
const BYTES_PER_STEP: usize = 512;
/// As many as take a turn.
pub(super) const BYTES_PER_TURN: usize = STEPS_PER_TURN as usize * BYTES_PER_STEP;

/// The steps of a read of so many bytes.
pub(super) fn steps_of_read(bytes: usize) -> u32 {
    STEPS_PER_READ + steps_of_bytes(bytes)
}

/// The steps of a record that was so many bytes of its message.
pub(super) fn steps_of_record(bytes: usize) -> u32 {
    1 + steps_of_bytes(bytes)
}

fn steps_of_bytes(bytes: usize) -> u32 {
    (bytes / BYTES_PER_STEP).min(STEPS_PER_TURN as usize) as u32
}

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

    #[test]
    fn what_full_reads_may_bring_is_taken_a_few_reads_at_a_time() {
        let mut turn = TaskTurn::default();
        let full = steps_of_read(64 << 10);
        let reads = (0..).find(|_| turn.spend(full).now_or_never().is_none());
        // Some 20,000 empty fragments, of six bytes each.
        assert_eq!(reads, Some(1));
        assert!(
            steps_of_read(100) < STEPS_PER_TURN / 10,
            "a message of an honest client"
        );
        assert!(steps_of_read(usize::MAX) >= STEPS_PER_TURN);
    }
}
