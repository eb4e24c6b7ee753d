//! How many records a client may write, and a group read, in a second, over all its sockets of
//! this node: client quotas, as Kafka calls them.
//!
//! ```text
//! /socket/in:  a message is read ─▶ reserve its records ─▶ wait for their turn ─▶ producer
//! /socket/out: a frame is due ─▶ reserve some records ─▶ wait for their turn ─▶ send as many
//! ```
//!
//! # Invariants
//! - A socket waits for those of the same client of the same user, in the order in which they
//!   reserved, and for nobody else. Nothing is dropped or refused.
//! - Each waits for its own turn: none is woken for that of another.
//! - A client that comes back finds the bucket as it left it, until that is full again. The debts
//!   of [`DEBTS_MAX`] clients without a socket are kept; beyond them the one that ends first goes.

mod token_bucket;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use runtime::mutex::lock;
use tokio::time::Instant;

use crate::config::{ClientLimitsConfig, Config};
use token_bucket::TokenBucket;

/// Buckets that are kept of clients without a socket.
const DEBTS_MAX: usize = 10_000;
/// Of a second's records, which part a consuming socket reserves at once.
const TURNS_PER_SECOND: u32 = 10;

/// The quotas of all clients. Cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) struct ClientQuotas(Arc<QuotasShared>);

#[derive(Debug)]
struct QuotasShared {
    producing: ClientLimitsConfig,
    consuming: ClientLimitsConfig,
    buckets: Mutex<ClientBuckets>,
}

/// Who has a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum QuotaKey {
    /// The clients of one user that have that `clientId` on `/socket/in`.
    Client(Option<Arc<str>>, Box<str>),
    /// The members of one user of that `groupId`.
    Group(Option<Arc<str>>, Box<str>),
}

#[derive(Debug, Default)]
struct ClientBuckets {
    by_key: HashMap<QuotaKey, ClientBucket>,
    /// Those without a socket, by when they are full.
    debts: BTreeSet<(Instant, QuotaKey)>,
}

#[derive(Debug)]
struct ClientBucket {
    bucket: Arc<Mutex<TokenBucket>>,
    sockets: usize,
}

impl ClientQuotas {
    pub(crate) fn new(config: &Config) -> Self {
        Self(Arc::new(QuotasShared {
            producing: config.producer_limits.clone(),
            consuming: config.consumer_limits.clone(),
            buckets: Mutex::default(),
        }))
    }

    /// The quota of a producing socket; `None`: it has none. One without a `clientId` is a client
    /// of its own, which the default limits.
    pub(crate) fn of_client(
        &self,
        user: Option<&Arc<str>>,
        client_id: Option<&str>,
    ) -> Option<RecordQuota> {
        let per_second = self.0.producing.messages_per_second(client_id);
        match client_id {
            Some(id) => self.shared(QuotaKey::Client(user.cloned(), id.into()), per_second),
            None => (per_second > 0).then(|| RecordQuota {
                bucket: Arc::new(Mutex::new(TokenBucket::new(per_second, Instant::now()))),
                registered: None,
            }),
        }
    }

    /// The quota of a consuming socket; `None`: it has none.
    pub(crate) fn of_group(
        &self,
        user: Option<&Arc<str>>,
        group_id: &str,
    ) -> Option<DeliveryQuota> {
        let per_second = self.0.consuming.messages_per_second(Some(group_id));
        let quota = self.shared(QuotaKey::Group(user.cloned(), group_id.into()), per_second)?;
        Some(DeliveryQuota::new(quota))
    }

    /// The `batchSize` of a consuming socket that names none.
    pub(crate) fn batch_size(&self, group_id: &str) -> Option<u32> {
        let batch_size = self.0.consuming.batch_size(group_id);
        (batch_size > 0).then_some(batch_size)
    }

    /// How many producing sockets a client may have, over all nodes; 0: any number.
    #[cfg_attr(not(test), expect(dead_code, reason = "not enforced yet"))]
    pub(crate) fn max_connections_of_client(&self, client_id: Option<&str>) -> u32 {
        self.0.producing.max_connections(client_id)
    }

    /// How many sockets a group may have, over all nodes; 0: any number.
    #[cfg_attr(not(test), expect(dead_code, reason = "not enforced yet"))]
    pub(crate) fn max_connections_of_group(&self, group_id: &str) -> u32 {
        self.0.consuming.max_connections(Some(group_id))
    }

    fn shared(&self, key: QuotaKey, per_second: u32) -> Option<RecordQuota> {
        if per_second == 0 {
            return None;
        }
        let now = Instant::now();
        let mut buckets = lock(&self.0.buckets);
        buckets.forget_debts(now);
        Some(RecordQuota {
            bucket: buckets.join(&key, per_second, now),
            registered: Some((self.clone(), key)),
        })
    }
}

impl ClientBuckets {
    /// Counts one more socket of that client.
    fn join(&mut self, key: &QuotaKey, per_second: u32, now: Instant) -> Arc<Mutex<TokenBucket>> {
        let client = self.by_key.entry(key.clone());
        let client = client.or_insert_with(|| ClientBucket {
            bucket: Arc::new(Mutex::new(TokenBucket::new(per_second, now))),
            sockets: 0,
        });
        if client.sockets == 0 {
            let full_at = lock(&client.bucket).full_at();
            self.debts.remove(&(full_at, key.clone()));
        }
        client.sockets += 1;
        Arc::clone(&client.bucket)
    }

    /// Counts one socket less; a bucket that is not full is kept.
    fn leave(&mut self, key: &QuotaKey, now: Instant) {
        let Some(client) = self.by_key.get_mut(key) else {
            return;
        };
        client.sockets -= 1;
        if client.sockets == 0 {
            let full_at = lock(&client.bucket).full_at();
            self.debts.insert((full_at, key.clone()));
        }
        self.forget_debts(now);
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
}

/// What a socket shares with the others of its client.
#[derive(Debug)]
pub(crate) struct RecordQuota {
    bucket: Arc<Mutex<TokenBucket>>,
    /// Where it is counted; `None`: it is one socket's own.
    registered: Option<(ClientQuotas, QuotaKey)>,
}

impl RecordQuota {
    /// Reserves the turn of so many records, behind those that are reserved.
    pub(crate) fn reserve(&self, records: usize) -> ReservedRecords<'_> {
        ReservedRecords {
            at: lock(&self.bucket).reserve(records, Instant::now()),
            quota: self,
            records,
        }
    }

    /// What was taken were no records.
    pub(crate) fn give_back(&self, records: usize) {
        lock(&self.bucket).give_back(records);
    }
}

impl Drop for RecordQuota {
    fn drop(&mut self) {
        if let Some((quotas, key)) = &self.registered {
            lock(&quotas.0.buckets).leave(key, Instant::now());
        }
    }
}

/// Records that wait for their turn; given back when dropped before they are taken.
#[derive(Debug)]
pub(crate) struct ReservedRecords<'q> {
    quota: &'q RecordQuota,
    records: usize,
    at: Instant,
}

impl ReservedRecords<'_> {
    /// When they may be taken.
    pub(crate) fn at(&self) -> Instant {
        self.at
    }

    /// They are taken.
    pub(crate) fn take(mut self) {
        self.records = 0;
    }
}

impl Drop for ReservedRecords<'_> {
    fn drop(&mut self) {
        if self.records > 0 {
            self.quota.give_back(self.records);
        }
    }
}

/// The quota of a consuming socket, with what is reserved for it: some records at a time, so that
/// a high rate does not mean a timer per record.
#[derive(Debug)]
pub(crate) struct DeliveryQuota {
    quota: RecordQuota,
    /// Reserved at once.
    turn: usize,
    permits: usize,
    /// When these may be used.
    from: Instant,
}

impl DeliveryQuota {
    fn new(quota: RecordQuota) -> Self {
        let per_second = lock(&quota.bucket).per_second();
        Self {
            quota,
            turn: (per_second / TURNS_PER_SECOND).max(1) as usize,
            permits: 0,
            from: Instant::now(),
        }
    }

    /// How many records may be sent now. If there are none, the next turn is reserved: to be asked
    /// when there is a record.
    pub(crate) fn available(&mut self, now: Instant) -> usize {
        if self.permits == 0 {
            self.permits = self.turn;
            self.from = lock(&self.quota.bucket).reserve(self.turn, now);
        }
        match now >= self.from {
            true => self.permits,
            false => 0,
        }
    }

    /// `records` of these were sent.
    pub(crate) fn consume(&mut self, records: usize) {
        self.permits = self.permits.saturating_sub(records);
    }

    /// When what is reserved may be sent.
    pub(crate) fn next_permit_at(&self) -> Instant {
        self.from
    }

    /// There is nothing to send: others may have what is reserved.
    pub(crate) fn give_back(&mut self) {
        let permits = std::mem::take(&mut self.permits);
        if permits > 0 {
            self.quota.give_back(permits);
        }
    }
}

impl Drop for DeliveryQuota {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests;
