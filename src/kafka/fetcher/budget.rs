//! Bytes of fetched records in memory, counted and bounded.
//!
//! ```text
//!              ┌ tail pool ──── chunks of the tail caches: charged at once, oldest evicted
//! fetch_memory ┤
//!              └ catch-up pool ─ acquired before the fetch is sent, in the order asked
//! ```
//!
//! The two halves are separate so that neither can starve the other. A permit counts
//! until the last holder of its chunk drops it, wherever the chunk is cached by then.
//!
//! # Invariants
//! - `acquire` grants in the order asked, and never beyond the limit.
//! - `charge` never waits. It may exceed the limit; chunks that are only cached (in tail caches
//!   and among completed fetches) are then evicted, oldest first.
//! - No other lock is taken under the pool's own.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use runtime::mutex::lock;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// The memory of the fetchers of all principals (`fetch_memory`), in two pools.
#[derive(Clone, Debug)]
pub struct FetchBudget {
    pub(super) tail: Arc<BudgetPool>,
    pub(super) catch_up: Arc<BudgetPool>,
}

impl FetchBudget {
    /// A budget of `bytes` in all.
    pub fn new(bytes: usize) -> Self {
        Self {
            tail: BudgetPool::new(bytes / 2),
            catch_up: BudgetPool::new(bytes - bytes / 2),
        }
    }

    /// Bytes counted now.
    pub fn used(&self) -> usize {
        self.tail.used() + self.catch_up.used()
    }

    /// Its pools: what each is called, the bytes counted now, and how many there may be.
    pub fn pools(&self) -> [(&'static str, usize, usize); 2] {
        [("tail", &self.tail), ("catch_up", &self.catch_up)]
            .map(|(name, pool)| (name, pool.used(), pool.limit()))
    }

    /// Since when others wait for memory that readers hold: a catch-up fetch for its room, or the
    /// tail for that of a chunk which it had to skip. What is held without need should be let go.
    pub fn awaited_since(&self) -> Option<Instant> {
        let waits = self
            .catch_up
            .lock()
            .waiting
            .front()
            .map(|first| first.since);
        [waits, self.tail.short_since()].into_iter().flatten().min()
    }
}

/// Caches chunks for cursors that may come for them, and can evict one on request.
pub(super) trait ChunkCache: Send + Sync {
    /// Evicts the chunk cached under `seq`. `false`: a cursor is about to take it, ask
    /// again later.
    fn evict(&self, seq: u64, now: Instant) -> bool;
}

/// One half of the budget.
#[derive(Debug)]
pub(super) struct BudgetPool {
    limit: usize,
    state: Mutex<BudgetPoolState>,
}

#[derive(Default)]
struct BudgetPoolState {
    used: usize,
    /// Since when no room could be made for what was charged.
    overcharged_since: Option<Instant>,
    waiting: VecDeque<BudgetWaiter>,
    evictable: VecDeque<EvictionCandidate>,
}

struct BudgetWaiter {
    bytes: usize,
    since: Instant,
    grant: oneshot::Sender<BudgetPermit>,
}

/// A cached chunk that could be evicted; the oldest comes first.
struct EvictionCandidate {
    cache: Weak<dyn ChunkCache>,
    seq: u64,
    /// Dangling once the chunk was dropped.
    chunk: Weak<AtomicUsize>,
}

impl BudgetPool {
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

    /// Waits until `bytes` (at most the limit) are free and every earlier waiter is served.
    /// Cancel-safe: dropping the future gives up its place in the queue.
    pub(super) async fn acquire(self: &Arc<Self>, bytes: usize) -> BudgetPermit {
        let bytes = bytes.min(self.limit);
        if let Some(permit) = self.try_acquire(bytes) {
            return permit;
        }
        // Dropped after the receiver, by which the pool knows the waiter that went away.
        let _leave = LeaveQueueOnDrop(self);
        let (grant, mut granted) = oneshot::channel();
        self.lock().waiting.push_back(BudgetWaiter {
            bytes,
            since: Instant::now(),
            grant,
        });
        loop {
            self.evict_to_limit(Instant::now());
            match tokio::time::timeout(EVICTION_INTERVAL, &mut granted).await {
                Ok(Ok(permit)) => return permit,
                // The sender lives in our own queue until it grants.
                Ok(Err(_)) => unreachable!("a waiter is only removed by its grant"),
                Err(_) => {}
            }
        }
    }

    /// Takes `bytes` if they are free and no other waits.
    pub(super) fn try_acquire(self: &Arc<Self>, bytes: usize) -> Option<BudgetPermit> {
        let bytes = bytes.min(self.limit);
        self.take(bytes)
            .then(|| BudgetPermit::new(self.clone(), bytes))
    }

    fn take(&self, bytes: usize) -> bool {
        let mut state = self.lock();
        let free = state.waiting.is_empty() && state.used + bytes <= self.limit;
        if free {
            state.used += bytes;
        }
        free
    }

    /// Counts `bytes` whether there is room or not.
    pub(super) fn charge(self: &Arc<Self>, bytes: usize) -> BudgetPermit {
        self.lock().used += bytes;
        BudgetPermit::new(self.clone(), bytes)
    }

    /// Makes room for what was charged. `false`: there is none, for readers hold too much.
    pub(super) fn fit_charged(self: &Arc<Self>, now: Instant) -> bool {
        self.evict_to_limit(now);
        let mut state = self.lock();
        let fits = state.used <= self.limit;
        state.overcharged_since = match fits {
            true => None,
            false => state.overcharged_since.or(Some(now)),
        };
        fits
    }

    /// Since when there was no room for what was charged last, if there is little by now.
    fn short_since(&self) -> Option<Instant> {
        let state = self.lock();
        let is_short = state.used > self.limit / 2;
        state.overcharged_since.filter(|_| is_short)
    }

    /// Notes that the chunk of `permit` is only cached, in `cache` under `seq`, and may be
    /// evicted.
    pub(super) fn add_evictable(
        &self,
        cache: Weak<dyn ChunkCache>,
        seq: u64,
        permit: &BudgetPermit,
    ) {
        let mut state = self.lock();
        while state
            .evictable
            .front()
            .is_some_and(EvictionCandidate::is_gone)
        {
            state.evictable.pop_front();
        }
        if state.evictable.len() >= 64 && state.evictable.len() == state.evictable.capacity() {
            state.evictable.retain(|candidate| !candidate.is_gone());
        }
        state.evictable.push_back(EvictionCandidate {
            cache,
            seq,
            chunk: Arc::downgrade(&permit.bytes),
        });
    }

    /// Evicts cached chunks, oldest first, until the pool is within its limit and has room
    /// for the oldest waiter, or nothing more can be evicted.
    pub(super) fn evict_to_limit(self: &Arc<Self>, now: Instant) {
        self.evict_for(0, now);
    }

    /// As [`evict_to_limit`](Self::evict_to_limit), and until `bytes` are free.
    fn evict_for(self: &Arc<Self>, bytes: usize, now: Instant) {
        let mut refused = Vec::new();
        loop {
            let candidate = {
                let mut state = self.lock();
                let needed = state.waiting.front().map_or(bytes, |waiting| waiting.bytes);
                if state.used + needed <= self.limit {
                    break;
                }
                match state.evictable.pop_front() {
                    Some(candidate) => candidate,
                    None => break,
                }
            };
            if candidate.is_gone() {
                continue;
            }
            if let Some(cache) = candidate.cache.upgrade()
                && !cache.evict(candidate.seq, now)
            {
                refused.push(candidate);
            }
        }
        if !refused.is_empty() {
            let mut state = self.lock();
            for candidate in refused.into_iter().rev() {
                state.evictable.push_front(candidate);
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
                (first.grant, BudgetPermit::new(self.clone(), first.bytes))
            };
            // If the waiter was cancelled the send fails, and the permit returns its bytes.
            drop(grant.send(permit));
        }
    }

    fn lock(&self) -> MutexGuard<'_, BudgetPoolState> {
        lock(&self.state)
    }
}

/// Takes whoever does not wait any more out of the queue, and serves those behind him.
struct LeaveQueueOnDrop<'a>(&'a Arc<BudgetPool>);

impl Drop for LeaveQueueOnDrop<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        let before = state.waiting.len();
        state.waiting.retain(|waiter| !waiter.grant.is_closed());
        let has_left = state.waiting.len() < before;
        drop(state);
        if has_left {
            self.0.grant();
        }
    }
}

impl EvictionCandidate {
    fn is_gone(&self) -> bool {
        self.chunk.strong_count() == 0
    }
}

impl std::fmt::Debug for BudgetPoolState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BudgetPoolState")
            .field("used", &self.used)
            .field("waiting", &self.waiting.len())
            .field("evictable", &self.evictable.len())
            .finish()
    }
}

/// Bytes taken from a pool; dropping it returns them.
#[derive(Debug)]
pub(super) struct BudgetPermit {
    pool: Arc<BudgetPool>,
    bytes: Arc<AtomicUsize>,
}

impl BudgetPermit {
    fn new(pool: Arc<BudgetPool>, bytes: usize) -> Self {
        Self {
            pool,
            bytes: Arc::new(AtomicUsize::new(bytes)),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Sets its size to `bytes`: what it loses returns at once, what it gains is charged.
    pub(super) fn resize(&self, bytes: usize) {
        let had = self.bytes.swap(bytes, Ordering::Relaxed);
        if bytes < had {
            self.pool.release(had - bytes);
        } else if bytes > had {
            self.pool.lock().used += bytes - had;
        }
    }

    /// Takes `bytes` more if they are free and no other waits; asks the pool to make room.
    pub(super) fn try_grow(&self, bytes: usize) -> bool {
        let grown = self.pool.take(bytes) || {
            self.pool.evict_for(bytes, Instant::now());
            self.pool.take(bytes)
        };
        if grown {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        grown
    }

    /// Counts `bytes` more whether there is room or not, and asks the pool to make it.
    pub(super) fn charge(&self, bytes: usize) {
        if bytes > 0 {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
            self.pool.lock().used += bytes;
            self.pool.evict_to_limit(Instant::now());
        }
    }

    /// Returns `bytes` of it.
    pub(super) fn shrink(&self, bytes: usize) {
        if bytes > 0 {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.pool.release(bytes);
        }
    }

    pub(super) fn pool(&self) -> &Arc<BudgetPool> {
        &self.pool
    }
}

impl Drop for BudgetPermit {
    fn drop(&mut self) {
        self.pool.release(self.bytes());
    }
}

/// How often a waiter tries again to evict chunks that cursors were about to take.
const EVICTION_INTERVAL: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    struct FakeCache(Mutex<Vec<(u64, BudgetPermit)>>, bool);

    impl ChunkCache for FakeCache {
        fn evict(&self, seq: u64, _: Instant) -> bool {
            if self.1 {
                self.0.lock().unwrap().retain(|(kept, _)| *kept != seq);
            }
            self.1
        }
    }

    fn fake_cache(pool: &Arc<BudgetPool>, evicts: bool, sizes: &[usize]) -> Arc<FakeCache> {
        let cache = Arc::new(FakeCache(Mutex::default(), evicts));
        let weak: Weak<dyn ChunkCache> = Arc::<FakeCache>::downgrade(&cache);
        for (seq, size) in sizes.iter().enumerate() {
            let permit = pool.charge(*size);
            pool.add_evictable(weak.clone(), seq as u64, &permit);
            cache.0.lock().unwrap().push((seq as u64, permit));
        }
        cache
    }

    #[tokio::test]
    async fn bytes_are_granted_in_the_order_asked() {
        let pool = BudgetPool::new(100);
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
    async fn a_cancelled_acquire_leaves_its_place_and_its_bytes() {
        let pool = BudgetPool::new(100);
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

    #[tokio::test(start_paused = true)]
    async fn memory_is_awaited_since_the_oldest_waiter_asked() {
        let budget = FetchBudget::new(200);
        let start = Instant::now();
        let held = budget.catch_up.acquire(100).await;
        assert_eq!(budget.awaited_since(), None);
        let mut first = pin!(budget.catch_up.acquire(10));
        assert!(poll(first.as_mut()).is_pending());
        tokio::time::advance(Duration::from_millis(10)).await;
        let mut second = pin!(budget.catch_up.acquire(10));
        assert!(poll(second.as_mut()).is_pending());
        assert_eq!(budget.awaited_since(), Some(start));
        drop(held);
        assert_eq!(budget.awaited_since(), None);
    }

    #[tokio::test]
    async fn whoever_stops_waiting_holds_up_nobody_behind_him() {
        let pool = BudgetPool::new(100);
        let held = pool.acquire(80).await;
        let mut large = Box::pin(pool.acquire(90));
        assert!(poll(large.as_mut()).is_pending());
        let mut small = pin!(pool.acquire(10));
        assert!(poll(small.as_mut()).is_pending());
        drop(large);
        let Poll::Ready(permit) = poll(small.as_mut()) else {
            panic!("20 are free");
        };
        assert_eq!((permit.bytes(), pool.used()), (10, 90));
        assert!(pool.try_acquire(10).is_some());
        drop(held);
    }

    #[tokio::test]
    async fn a_granted_permit_that_nobody_takes_is_returned() {
        let pool = BudgetPool::new(10);
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
    async fn cached_chunks_are_evicted_oldest_first_to_make_room() {
        let pool = BudgetPool::new(100);
        let cache = fake_cache(&pool, true, &[40, 40, 20]);
        let _permit = pool.acquire(50).await;
        let kept: Vec<u64> = cache
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
    async fn a_chunk_that_a_cursor_is_about_to_take_is_not_evicted() {
        let pool = BudgetPool::new(100);
        let cache = fake_cache(&pool, false, &[60, 40]);
        let mut waiting = pin!(pool.acquire(50));
        assert!(poll(waiting.as_mut()).is_pending());
        assert_eq!(cache.0.lock().unwrap().len(), 2);
        cache.0.lock().unwrap().clear();
        assert!(poll(waiting.as_mut()).is_ready());
    }

    #[test]
    fn growth_evicts_cached_chunks() {
        let pool = BudgetPool::new(100);
        let cache = fake_cache(&pool, true, &[40, 40]);
        let held = pool.charge(20);
        assert!(held.try_grow(30));
        assert_eq!(pool.used(), 90);
        held.charge(0);
        assert_eq!(pool.used(), 90);
        assert_eq!(cache.0.lock().unwrap().len(), 1);
    }

    #[test]
    fn memory_of_the_tail_is_awaited_while_readers_hold_too_much_of_it() {
        let budget = FetchBudget::new(200);
        let is_awaited = || budget.awaited_since().is_some();
        let since = Instant::now();
        let held = [budget.tail.charge(40), budget.tail.charge(40)];
        assert!(budget.tail.fit_charged(since) && !is_awaited());
        // No room can be made for these chunks: they are skipped.
        for after in [0, 10] {
            let skipped = budget.tail.charge(40);
            let now = since + Duration::from_millis(after);
            assert!(!budget.tail.fit_charged(now));
            drop(skipped);
        }
        // The next one may find no room either.
        assert_eq!(budget.awaited_since(), Some(since));
        let [first, second] = held;
        drop(first);
        assert!(!is_awaited(), "half of it is free");
        let first = budget.tail.charge(40);
        assert!(budget.tail.fit_charged(since) && !is_awaited());
        drop((first, second));
    }

    #[test]
    fn candidates_whose_chunks_were_dropped_do_not_pile_up() {
        let pool = BudgetPool::new(1000);
        let cache = fake_cache(&pool, true, &[1]);
        let weak: Weak<dyn ChunkCache> = Arc::<FakeCache>::downgrade(&cache);
        for seq in 0..10_000 {
            let permit = pool.charge(1);
            pool.add_evictable(weak.clone(), seq, &permit);
        }
        assert!(pool.lock().evictable.len() <= 256);
    }

    #[tokio::test]
    async fn a_request_above_the_limit_is_granted_the_limit() {
        let pool = BudgetPool::new(100);
        let permit = pool.acquire(1000).await;
        assert_eq!(permit.bytes(), 100);
    }
}
