//! Which lines come, when many of one kind do.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Lets a line of each kind pass in an interval, and counts the others.
#[derive(Debug)]
pub(super) struct RepeatLimit<K> {
    interval: Duration,
    kinds: HashMap<K, Repetition>,
}

/// What came of one kind.
#[derive(Debug)]
struct Repetition {
    /// When a line of it passed last.
    passed_at: Instant,
    /// Lines since.
    held_back: u64,
}

impl<K: Eq + Hash> RepeatLimit<K> {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            kinds: HashMap::new(),
        }
    }

    /// Whether a line of `kind` passes: how many of its kind were held back before it. `None`:
    /// it is held back as well.
    pub(super) fn admit(&mut self, kind: K, now: Instant) -> Option<u64> {
        let Some(known) = self.kinds.get_mut(&kind) else {
            let first = Repetition {
                passed_at: now,
                held_back: 0,
            };
            self.kinds.insert(kind, first);
            return Some(0);
        };
        if now.saturating_duration_since(known.passed_at) < self.interval {
            known.held_back += 1;
            return None;
        }
        known.passed_at = now;
        Some(std::mem::take(&mut known.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_of_line_passes_once_in_an_interval_and_the_next_one_carries_the_count() {
        let seconds = Duration::from_secs;
        let mut limit = RepeatLimit::new(seconds(5));
        let begin = Instant::now();
        assert_eq!(limit.admit("a", begin), Some(0));
        assert_eq!(limit.admit("a", begin + seconds(1)), None);
        assert_eq!(
            limit.admit("b", begin + seconds(1)),
            Some(0),
            "another kind"
        );
        assert_eq!(limit.admit("a", begin + seconds(4)), None);
        assert_eq!(limit.admit("a", begin + seconds(5)), Some(2));
        assert_eq!(limit.admit("a", begin + seconds(9)), None);
        assert_eq!(limit.admit("a", begin + seconds(60)), Some(1));
        assert_eq!(limit.admit("b", begin + seconds(60)), Some(0));
    }
}
