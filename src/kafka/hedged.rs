//! Asking one after another until one answers, without waiting for those that are slow.
//!
//! ```text
//! first ──── slow ────────────────▶ cancelled
//!   └─ next_after ─▶ second ── fails
//!                       └─ at once ─▶ third ──▶ answers
//! ```

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::sleep;

/// Tries `candidates` in order: the next one when one before has failed, or `next_after` later if
/// it has not answered. Returns the first success, or the first failure that `is_final`; what is
/// under way then is cancelled. When all have failed, the last failure; `None` without candidates.
/// Cancel-safe if the attempts are.
pub(crate) async fn first_success<C, T, E, F: Future<Output = Result<T, E>>>(
    candidates: impl IntoIterator<Item = C>,
    next_after: Duration,
    attempt: impl Fn(C) -> F,
    is_final: impl Fn(&E) -> bool,
) -> Option<Result<T, E>> {
    let mut candidates = candidates.into_iter().fuse();
    let mut attempts = FuturesUnordered::new();
    attempts.extend(candidates.next().map(&attempt));
    let mut last_failure = None;
    while !attempts.is_empty() {
        tokio::select! {
            Some(result) = attempts.next() => match result {
                Err(failure) if !is_final(&failure) => {
                    last_failure = Some(Err(failure));
                    attempts.extend(candidates.next().map(&attempt));
                }
                result => return Some(result),
            },
            () = sleep(next_after) => attempts.extend(candidates.next().map(&attempt)),
        }
    }
    last_failure
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn one_that_hangs_does_not_hold_up_the_next() {
        let attempt = async |id: u32| match id {
            0 => pending().await,
            _ => Ok::<_, ()>(id),
        };
        let found = first_success([0, 1, 2], Duration::from_millis(500), attempt, |_| false);
        assert_eq!(found.await, Some(Ok(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_fails_is_followed_at_once_also_while_another_hangs() {
        let asked = AtomicUsize::new(0);
        let attempt = async |id: u32| {
            asked.fetch_add(1, Ordering::Relaxed);
            match id {
                0 => pending().await,
                1 | 2 => Err(id),
                _ => Ok(id),
            }
        };
        let began = tokio::time::Instant::now();
        let after = Duration::from_millis(500);
        let found = first_success(0..9, after, attempt, |_| false).await;
        assert_eq!(found, Some(Ok(3)));
        assert_eq!(began.elapsed(), after, "of a paused clock");
        assert_eq!(asked.load(Ordering::Relaxed), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_failure_counts_and_a_final_one_ends_it() {
        let attempt = async |id: u32| Err::<(), _>(id);
        let all = first_success(0..3, LONG, attempt, |_| false).await;
        assert_eq!(all, Some(Err(2)));
        let until_final = first_success(0..3, LONG, attempt, |id| *id == 1).await;
        assert_eq!(until_final, Some(Err(1)));
        assert_eq!(first_success(0..0, LONG, attempt, |_| false).await, None);
    }
}
