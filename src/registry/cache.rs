//! What was looked up: known values, failures for a while, and requests under way.
//!
//! ```text
//! get(key) ─┬ known ──────────────────────────▶ value
//!           ├ failed less than a second ago ──▶ the same error
//!           ├ under way ──▶ waits with the others
//!           └ else ───────▶ fetch, which all who come meanwhile wait for
//! ```
//!
//! # Invariants
//! - At most `entries_max` keys are kept: failures go first, then what was used longest ago.
//! - A request goes on while somebody waits for it, and ends with the last who does.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Mutex;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use runtime::mutex::lock;
use tokio::time::Instant;

use crate::error::SchemaRegistryError;

/// How long a failure stands.
const FAILURE_STANDS: Duration = Duration::from_secs(1);

type Fetch<V> = BoxFuture<'static, Result<V, SchemaRegistryError>>;

/// Values by their keys.
#[derive(Debug)]
pub(crate) struct LookupCache<K, V> {
    state: Mutex<KnownLookups<K, V>>,
    entries_max: usize,
}

#[derive(Debug)]
struct KnownLookups<K, V> {
    entries: HashMap<K, CacheEntry<V>>,
    /// Counts uses.
    uses: u64,
}

#[derive(Debug)]
enum CacheEntry<V> {
    Known {
        value: V,
        used: u64,
    },
    Failed {
        error: SchemaRegistryError,
        until: Instant,
    },
    UnderWay(WeakShared<Fetch<V>>),
}

impl<K: Clone + Eq + Hash, V: Clone> LookupCache<K, V> {
    /// Nothing is known.
    pub(crate) fn new(entries_max: usize) -> Self {
        Self {
            state: Mutex::new(KnownLookups {
                entries: HashMap::new(),
                uses: 0,
            }),
            entries_max,
        }
    }

    /// The value of `key`, which `fetch` fetches if it is not known.
    pub(crate) async fn get(
        &self,
        key: K,
        fetch: impl FnOnce() -> Fetch<V>,
    ) -> Result<V, SchemaRegistryError> {
        let waiting = {
            let mut state = lock(&self.state);
            match state.find(&key, Instant::now()) {
                Some(Ok(result)) => return result,
                Some(Err(under_way)) => under_way,
                None => {
                    let fetching = fetch().shared();
                    state.make_room(self.entries_max);
                    if let Some(weak) = fetching.downgrade() {
                        state.insert(key.clone(), CacheEntry::UnderWay(weak), self.entries_max);
                    }
                    fetching
                }
            }
        };
        let result = waiting.await;
        lock(&self.state).note(key, &result, self.entries_max);
        result
    }
}

impl<K: Clone + Eq + Hash, V: Clone> KnownLookups<K, V> {
    /// What there is: a result, or a request to wait for.
    #[expect(clippy::type_complexity, reason = "it is taken apart at once")]
    fn find(
        &mut self,
        key: &K,
        now: Instant,
    ) -> Option<Result<Result<V, SchemaRegistryError>, Shared<Fetch<V>>>> {
        self.uses += 1;
        match self.entries.get_mut(key)? {
            CacheEntry::Known { value, used } => {
                *used = self.uses;
                Some(Ok(Ok(value.clone())))
            }
            CacheEntry::Failed { error, until } => (now < *until).then(|| Ok(Err(error.clone()))),
            CacheEntry::UnderWay(weak) => weak.upgrade().map(Err),
        }
    }

    /// Everyone who waited notes the same.
    fn note(&mut self, key: K, result: &Result<V, SchemaRegistryError>, entries_max: usize) {
        let entry = match result {
            Ok(value) => CacheEntry::Known {
                value: value.clone(),
                used: self.uses,
            },
            // By who was first: the others do not prolong it.
            Err(_) if matches!(self.entries.get(&key), Some(CacheEntry::Failed { .. })) => return,
            Err(error) => CacheEntry::Failed {
                error: error.clone(),
                until: Instant::now() + FAILURE_STANDS,
            },
        };
        self.insert(key, entry, entries_max);
    }

    fn insert(&mut self, key: K, entry: CacheEntry<V>, entries_max: usize) {
        if self.entries.len() < entries_max || self.entries.contains_key(&key) {
            self.entries.insert(key, entry);
        }
    }

    /// Forgets one entry if there are too many; requests under way stay.
    fn make_room(&mut self, entries_max: usize) {
        if self.entries.len() < entries_max {
            return;
        }
        let rank = |entry: &CacheEntry<V>| match entry {
            CacheEntry::UnderWay(weak) if weak.upgrade().is_some() => None,
            CacheEntry::UnderWay(_) | CacheEntry::Failed { .. } => Some(0),
            CacheEntry::Known { used, .. } => Some(*used),
        };
        let ranked = self.entries.iter().filter_map(|(k, e)| Some((rank(e)?, k)));
        let least = ranked.min_by_key(|(rank, _)| *rank);
        if let Some(key) = least.map(|(_, key)| key.clone()) {
            self.entries.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;

    /// Gives 10 times the key, after it was told to, or fails on odd ones.
    struct Source {
        asked: Arc<AtomicUsize>,
        go: Arc<Notify>,
    }

    impl Source {
        fn new() -> Self {
            Self {
                asked: Arc::default(),
                go: Arc::default(),
            }
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::Relaxed)
        }

        fn fetch(&self, key: u32, waits: bool) -> Fetch<u32> {
            let go = Arc::clone(&self.go);
            self.asked.fetch_add(1, Ordering::Relaxed);
            async move {
                if waits {
                    go.notified().await;
                }
                match key % 2 {
                    0 => Ok(key * 10),
                    _ => Err(SchemaRegistryError::UnknownId { id: key }),
                }
            }
            .boxed()
        }
    }

    #[tokio::test]
    async fn those_who_ask_for_the_same_at_once_share_one_request() {
        let (cache, source) = (LookupCache::new(10), Source::new());
        let get = || cache.get(2, || source.fetch(2, true));
        let (mut first, mut second) = (Box::pin(get()), Box::pin(get()));
        assert!(first.as_mut().now_or_never().is_none());
        assert!(second.as_mut().now_or_never().is_none());
        // Who asked first may leave.
        drop(first);
        source.go.notify_one();
        assert_eq!(second.await, Ok(20));
        assert_eq!(get().await, Ok(20));
        assert_eq!(source.asked(), 1);
    }

    #[tokio::test]
    async fn a_request_that_nobody_waits_for_any_more_is_made_again() {
        let (cache, source) = (LookupCache::new(10), Source::new());
        let waiting = Box::pin(cache.get(2, || source.fetch(2, true)));
        assert!(waiting.now_or_never().is_none());
        assert_eq!(cache.get(2, || source.fetch(2, false)).await, Ok(20));
        assert_eq!(source.asked(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_stands_for_a_while() {
        let (cache, source) = (LookupCache::new(10), Source::new());
        let get = || cache.get(1, || source.fetch(1, false));
        let failed = Err(SchemaRegistryError::UnknownId { id: 1 });
        assert_eq!(get().await, failed);
        assert_eq!(get().await, failed);
        assert_eq!(source.asked(), 1);
        tokio::time::advance(FAILURE_STANDS).await;
        assert_eq!(get().await, failed);
        assert_eq!(source.asked(), 2);
    }

    #[tokio::test]
    async fn what_was_used_longest_ago_is_forgotten_after_failures() {
        let (cache, source) = (LookupCache::new(3), Source::new());
        let get = |key| cache.get(key, move || source_fetch(key));
        fn source_fetch(key: u32) -> Fetch<u32> {
            Source::new().fetch(key, false)
        }
        for key in [2, 4, 1, 2, 6] {
            let _ = get(key).await;
        }
        let known = |cache: &LookupCache<u32, u32>| {
            let mut keys: Vec<_> = lock(&cache.state).entries.keys().copied().collect();
            keys.sort_unstable();
            keys
        };
        assert_eq!(known(&cache), [2, 4, 6], "the failure went");
        let _ = get(8).await;
        assert_eq!(known(&cache), [2, 6, 8], "4 was used longest ago");
        drop(source);
    }
}
