//! What a socket shares with the others of its client, and a turn that it has reserved.

use std::sync::{Arc, Mutex};

use runtime::mutex::lock;
use runtime::wake::WakeSignal;
use tokio::time::Instant;

use super::client_bucket::{ClientBucket, QuotaLimit};
use super::client_buckets::{ClientBuckets, QuotaKey};

/// A socket's part in its client's quota, whatever that is from time to time.
#[derive(Debug)]
pub(crate) struct RecordQuota {
    pub(super) bucket: Arc<ClientBucket>,
    /// Where it is counted; `None`: it is one socket's own.
    registered: Option<CountedSocket>,
}

#[derive(Debug)]
struct CountedSocket {
    buckets: Arc<Mutex<ClientBuckets>>,
    key: QuotaKey,
    number: u64,
}

impl RecordQuota {
    /// Of a socket that shares it with nobody.
    pub(super) fn of_one_socket(per_second: u32) -> Self {
        Self {
            bucket: Arc::new(ClientBucket::new(per_second, Instant::now())),
            registered: None,
        }
    }

    /// Of one more socket of that client, which is woken when the limit has changed.
    pub(super) fn join(
        buckets: &Arc<Mutex<ClientBuckets>>,
        key: QuotaKey,
        per_second: u32,
        wake: &Arc<WakeSignal>,
    ) -> Self {
        let (bucket, number) = lock(buckets).join(&key, per_second, wake, Instant::now());
        let buckets = Arc::clone(buckets);
        Self {
            bucket,
            registered: Some(CountedSocket {
                buckets,
                key,
                number,
            }),
        }
    }

    /// Whether there is a limit now.
    #[inline]
    pub(crate) fn is_limited(&self) -> bool {
        self.bucket.limit().per_second > 0
    }

    /// Reserves the turn of so many records, behind those that are reserved.
    pub(crate) fn reserve(&self, records: usize) -> ReservedRecords<'_> {
        let (at, limit) = self.bucket.reserve(records, Instant::now());
        ReservedRecords {
            quota: self,
            records,
            at,
            limit,
        }
    }

    /// What was taken were no records.
    pub(crate) fn give_back(&self, records: usize) {
        self.bucket.give_back(records, self.bucket.limit());
    }
}

impl Drop for RecordQuota {
    fn drop(&mut self) {
        if let Some(socket) = &self.registered {
            lock(&socket.buckets).leave(&socket.key, socket.number, Instant::now());
        }
    }
}

/// Records that wait for their turn; given back when dropped before they are taken.
#[derive(Debug)]
pub(crate) struct ReservedRecords<'q> {
    quota: &'q RecordQuota,
    records: usize,
    at: Instant,
    limit: QuotaLimit,
}

impl ReservedRecords<'_> {
    /// When they may be taken.
    pub(crate) fn at(&self) -> Instant {
        self.at
    }

    /// Whether the limit has changed since: another turn is to be reserved.
    pub(crate) fn is_void(&self) -> bool {
        self.quota.bucket.limit() != self.limit
    }

    /// They are taken.
    pub(crate) fn take(mut self) {
        self.records = 0;
    }
}

impl Drop for ReservedRecords<'_> {
    fn drop(&mut self) {
        if self.records > 0 {
            self.quota.bucket.give_back(self.records, self.limit);
        }
    }
}
