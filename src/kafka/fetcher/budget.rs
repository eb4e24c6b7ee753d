//! Bytes of fetched records in memory, counted and bounded.
//!
//! ```text
//!              ┌ ring pool ──── tail chunks: taken at once, oldest evicted to make room
//! fetch_memory ┤
//!              └ catch-up pool ─ acquired before the read, in the order asked
//! ```
//!
//! The two halves are separate so that neither can starve the other. A permit counts
//! until the last holder of its chunk lets go, wherever the chunk is kept by then.
//!
//! # Invariants
//! - `acquire` grants in the order asked, and never beyond the limit.
//! - `charge` never waits. It may exceed the limit; what is kept only for whoever may
//!   come (rings, shelves) is then given up, oldest first.
//! - Nothing of another lock is taken under the pool's own.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

/// The memory that all fetchers of a process share.
#[derive(Clone, Debug)]
pub struct Budget {
    pub(super) ring: Arc<Pool>,
    pub(super) catch_up: Arc<Pool>,
}

impl Budget {
    /// A budget of `bytes` in all.
    pub fn new(bytes: usize) -> Self {
        Self {
            ring: Pool::new(bytes / 2),
            catch_up: Pool::new(bytes - bytes / 2),
        }
    }

    /// Bytes counted now.
    pub fn used(&self) -> usize {
        self.ring.used() + self.catch_up.used()
    }

    /// The most that is granted: see the invariants for what may exceed it, briefly.
    pub fn limit(&self) -> usize {
        self.ring.limit + self.catch_up.limit
    }
}

/// Keeps chunks for readers that may come, and can be asked to give one up.
pub(super) trait Keeper: Send + Sync {
    /// Gives up what it keeps under `seq`. `false`: a reader is about to take it, ask
    /// again later.
    fn give_up(&self, seq: u64, now: Instant) -> bool;
}

/// One half of the budget.
#[derive(Debug)]
pub(super) struct Pool {
    limit: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    used: usize,
    waiting: VecDeque<Waiting>,
    kept: VecDeque<Kept>,
}

struct Waiting {
    bytes: usize,
    grant: oneshot::Sender<Permit>,
}

/// A chunk that could be given up, in the order they came.
struct Kept {
    keeper: Weak<dyn Keeper>,
    seq: u64,
    /// Dead once the chunk is gone anyhow.
    chunk: Weak<AtomicUsize>,
}

impl Pool {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            state: Mutex::default(),
        })
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    pub(super) fn used(&self) -> usize {
        self.lock().used
    }

    /// Waits until `bytes` (at most the limit) are free and nobody has waited longer.
    /// Cancel-safe: a caller that goes away leaves its place.
    pub(super) async fn acquire(self: &Arc<Self>, bytes: usize) -> Permit {
        let bytes = bytes.min(self.limit);
        if let Some(permit) = self.try_acquire(bytes) {
            return permit;
        }
        let (grant, mut granted) = oneshot::channel();
        self.lock().waiting.push_back(Waiting { bytes, grant });
        loop {
            self.relieve(Instant::now());
            match tokio::time::timeout(RELIEVE_EVERY, &mut granted).await {
                Ok(Ok(permit)) => return permit,
                // The sender lives in our own queue until it grants.
                Ok(Err(_)) => unreachable!("a waiting place is only removed by its grant"),
                Err(_) => {}
            }
        }
    }

    /// Takes `bytes` if they are free and nobody waits for any.
    pub(super) fn try_acquire(self: &Arc<Self>, bytes: usize) -> Option<Permit> {
        let bytes = bytes.min(self.limit);
        let mut state = self.lock();
        if !state.waiting.is_empty() || state.used + bytes > self.limit {
            return None;
        }
        state.used += bytes;
        Some(Permit::new(self.clone(), bytes))
    }

    /// Counts `bytes` whether there is room or not.
    pub(super) fn charge(self: &Arc<Self>, bytes: usize) -> Permit {
        self.lock().used += bytes;
        Permit::new(self.clone(), bytes)
    }

    /// Notes that `keeper` keeps the chunk of `permit` only for whoever may come.
    pub(super) fn keep(&self, keeper: Weak<dyn Keeper>, seq: u64, permit: &Permit) {
        let mut state = self.lock();
        while state.kept.front().is_some_and(Kept::is_gone) {
            state.kept.pop_front();
        }
        if state.kept.len() >= 64 && state.kept.len() == state.kept.capacity() {
            state.kept.retain(|kept| !kept.is_gone());
        }
        state.kept.push_back(Kept {
            keeper,
            seq,
            chunk: Arc::downgrade(&permit.bytes),
        });
    }

    /// Gives up kept chunks, oldest first, until the pool is within its limit and has
    /// room for the one that waits longest, or nothing more can be given up.
    pub(super) fn relieve(self: &Arc<Self>, now: Instant) {
        let mut refused = Vec::new();
        loop {
            let kept = {
                let mut state = self.lock();
                let wanted = state.waiting.front().map_or(0, |waiting| waiting.bytes);
                if state.used + wanted <= self.limit {
                    break;
                }
                match state.kept.pop_front() {
                    Some(kept) => kept,
                    None => break,
                }
            };
            if kept.is_gone() {
                continue;
            }
            if let Some(keeper) = kept.keeper.upgrade()
                && !keeper.give_up(kept.seq, now)
            {
                refused.push(kept);
            }
        }
        if !refused.is_empty() {
            let mut state = self.lock();
            for kept in refused.into_iter().rev() {
                state.kept.push_front(kept);
            }
        }
        self.grant();
    }

    fn release(self: &Arc<Self>, bytes: usize) {
        self.lock().used -= bytes;
        self.grant();
    }

    fn grant(self: &Arc<Self>) {
        loop {
            let (grant, permit) = {
                let mut state = self.lock();
                match state.waiting.front() {
                    Some(first) if state.used + first.bytes <= self.limit => {}
                    _ => return,
                }
                let Some(first) = state.waiting.pop_front() else {
                    return;
                };
                state.used += first.bytes;
                (first.grant, Permit::new(self.clone(), first.bytes))
            };
            // To one that went away the send fails, and the permit returns its bytes.
            drop(grant.send(permit));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn is_gone(&self) -> bool {
        self.chunk.strong_count() == 0
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("used", &self.used)
            .field("waiting", &self.waiting.len())
            .field("kept", &self.kept.len())
            .finish()
    }
}

/// Bytes taken from a pool; dropping it returns them.
#[derive(Debug)]
pub(super) struct Permit {
    pool: Arc<Pool>,
    bytes: Arc<AtomicUsize>,
}

impl Permit {
    fn new(pool: Arc<Pool>, bytes: usize) -> Self {
        Self {
            pool,
            bytes: Arc::new(AtomicUsize::new(bytes)),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Makes it `bytes`: the rest returns at once; what is more is charged.
    pub(super) fn resize(&self, bytes: usize) {
        let had = self.bytes.swap(bytes, Ordering::Relaxed);
        if bytes < had {
            self.pool.release(had - bytes);
        } else if bytes > had {
            self.pool.lock().used += bytes - had;
        }
    }

    /// Charges `bytes` more, and asks the pool to make room if that was too much.
    pub(super) fn grow(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.pool.lock().used += bytes;
        self.pool.relieve(Instant::now());
    }

    pub(super) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.pool.release(self.bytes());
    }
}

/// How often one that waits asks again for chunks that readers were about to take.
const RELIEVE_EVERY: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    struct Shelf(Mutex<Vec<(u64, Permit)>>, bool);

    impl Keeper for Shelf {
        fn give_up(&self, seq: u64, _: Instant) -> bool {
            if self.1 {
                self.0.lock().unwrap().retain(|(kept, _)| *kept != seq);
            }
            self.1
        }
    }

    fn shelf(pool: &Arc<Pool>, willing: bool, sizes: &[usize]) -> Arc<Shelf> {
        let shelf = Arc::new(Shelf(Mutex::default(), willing));
        let weak: Weak<dyn Keeper> = Arc::<Shelf>::downgrade(&shelf);
        for (seq, size) in sizes.iter().enumerate() {
            let permit = pool.charge(*size);
            pool.keep(weak.clone(), seq as u64, &permit);
            shelf.0.lock().unwrap().push((seq as u64, permit));
        }
        shelf
    }

    #[tokio::test]
    async fn bytes_are_granted_in_the_order_asked() {
        let pool = Pool::new(100);
        let held = pool.acquire(80).await;
        let mut large = pin!(pool.acquire(90));
        let mut small = pin!(pool.acquire(10));
        assert!(poll(large.as_mut()).is_pending());
        assert!(
            poll(small.as_mut()).is_pending(),
            "20 are free, but another came first"
        );
        assert!(pool.try_acquire(1).is_none());
        held.resize(10);
        let Poll::Ready(first) = poll(large.as_mut()) else {
            panic!("90 are free");
        };
        assert!(poll(small.as_mut()).is_pending());
        drop(first);
        assert!(poll(small.as_mut()).is_ready());
    }

    #[tokio::test]
    async fn one_that_goes_away_leaves_its_place_and_its_bytes() {
        let pool = Pool::new(100);
        let held = pool.acquire(100).await;
        {
            let mut gone = pin!(pool.acquire(50));
            assert!(poll(gone.as_mut()).is_pending());
        }
        let mut next = pin!(pool.acquire(100));
        assert!(poll(next.as_mut()).is_pending());
        drop(held);
        let Poll::Ready(permit) = poll(next.as_mut()) else {
            panic!("100 are free");
        };
        assert_eq!((permit.bytes(), pool.used()), (100, 100));
    }

    #[tokio::test]
    async fn a_granted_permit_that_nobody_takes_returns() {
        let pool = Pool::new(10);
        let held = pool.acquire(10).await;
        {
            let mut gone = pin!(pool.acquire(10));
            assert!(poll(gone.as_mut()).is_pending());
            drop(held);
            assert_eq!(pool.used(), 10);
        }
        assert_eq!(pool.used(), 0);
    }

    #[tokio::test]
    async fn what_is_kept_for_nobody_in_particular_gives_way_oldest_first() {
        let pool = Pool::new(100);
        let shelf = shelf(&pool, true, &[40, 40, 20]);
        let _permit = pool.acquire(50).await;
        let kept: Vec<u64> = shelf
            .0
            .lock()
            .unwrap()
            .iter()
            .map(|(seq, _)| *seq)
            .collect();
        assert_eq!(kept, [2]);
        assert_eq!(pool.used(), 70);
    }

    #[tokio::test]
    async fn what_a_reader_is_about_to_take_stays() {
        let pool = Pool::new(100);
        let shelf = shelf(&pool, false, &[60, 40]);
        let mut waiting = pin!(pool.acquire(50));
        assert!(poll(waiting.as_mut()).is_pending());
        assert_eq!(shelf.0.lock().unwrap().len(), 2);
        shelf.0.lock().unwrap().clear();
        assert!(poll(waiting.as_mut()).is_ready());
    }

    #[test]
    fn growth_is_charged_and_paid_for_by_what_is_kept() {
        let pool = Pool::new(100);
        let shelf = shelf(&pool, true, &[40, 40]);
        let held = pool.charge(20);
        held.grow(30);
        assert_eq!(pool.used(), 90);
        assert_eq!(shelf.0.lock().unwrap().len(), 1);
    }

    #[test]
    fn notes_of_chunks_that_are_gone_do_not_pile_up() {
        let pool = Pool::new(1000);
        let shelf = shelf(&pool, true, &[1]);
        let weak: Weak<dyn Keeper> = Arc::<Shelf>::downgrade(&shelf);
        for seq in 0..10_000 {
            let permit = pool.charge(1);
            pool.keep(weak.clone(), seq, &permit);
        }
        assert!(pool.lock().kept.len() <= 256);
    }

    #[tokio::test]
    async fn more_than_the_limit_is_granted_alone() {
        let pool = Pool::new(100);
        let permit = pool.acquire(1000).await;
        assert_eq!(permit.bytes(), 100);
    }
}
