//! The buckets of all clients that have sockets here, and of those that had some lately.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use runtime::wake::WakeSignal;
use tokio::time::Instant;

use super::client_bucket::ClientBucket;

/// Buckets that are kept of clients without a socket.
pub(super) const DEBTS_MAX: usize = 10_000;

/// Who has a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum QuotaKey {
    /// The clients of one user that have that `clientId` on `/socket/in`.
    Client(Option<Arc<str>>, Box<str>),
    /// The members of one user of that `groupId`.
    Group(Option<Arc<str>>, Box<str>),
}

#[derive(Debug, Default)]
pub(super) struct ClientBuckets {
    by_key: HashMap<QuotaKey, BucketEntry>,
    /// Those without a socket, by when they are full.
    debts: BTreeSet<(Instant, QuotaKey)>,
    /// How many sockets there ever were.
    joined: u64,
}

#[derive(Debug)]
struct BucketEntry {
    bucket: Arc<ClientBucket>,
    /// What wakes its sockets, by the number of each.
    sockets: HashMap<u64, Arc<WakeSignal>>,
}

impl ClientBuckets {
    /// Counts one more socket of that client; with its number.
    pub(super) fn join(
        &mut self,
        key: &QuotaKey,
        per_second: u32,
        wake: &Arc<WakeSignal>,
        now: Instant,
    ) -> (Arc<ClientBucket>, u64) {
        self.forget_debts(now);
        let client = self.by_key.entry(key.clone());
        let client = client.or_insert_with(|| BucketEntry {
            bucket: Arc::new(ClientBucket::new(per_second, now)),
            sockets: HashMap::new(),
        });
        if client.sockets.is_empty() {
            self.debts.remove(&(client.bucket.full_at(), key.clone()));
        }
        let number = self.joined;
        self.joined += 1;
        client.sockets.insert(number, Arc::clone(wake));
        (Arc::clone(&client.bucket), number)
    }

    /// Counts one socket less; a bucket that is not full is kept.
    pub(super) fn leave(&mut self, key: &QuotaKey, number: u64, now: Instant) {
        let Some(client) = self.by_key.get_mut(key) else {
            return;
        };
        client.sockets.remove(&number);
        if client.sockets.is_empty() {
            self.debts.insert((client.bucket.full_at(), key.clone()));
        }
        self.forget_debts(now);
    }

    /// Has every client follow its limit as it is now, and wakes the sockets of those for whom it
    /// is another: one may wait for a turn.
    pub(super) fn follow(&mut self, per_second: impl Fn(&QuotaKey) -> u32, now: Instant) {
        let debts = &mut self.debts;
        self.by_key.retain(|key, client| {
            let per_second = per_second(key);
            if per_second == client.bucket.limit().per_second {
                return true;
            }
            if client.sockets.is_empty() {
                debts.remove(&(client.bucket.full_at(), key.clone()));
                return false;
            }
            client.bucket.change(per_second, now);
            client.sockets.values().for_each(|wake| wake.notify());
            true
        });
    }

    fn forget_debts(&mut self, now: Instant) {
        while let Some((full_at, _)) = self.debts.first()
            && (*full_at <= now || self.debts.len() > DEBTS_MAX)
        {
            if let Some((_, key)) = self.debts.pop_first() {
                self.by_key.remove(&key);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn keys(&self) -> Vec<&QuotaKey> {
        assert!(self.debts.len() <= self.by_key.len());
        self.by_key.keys().collect()
    }
}
