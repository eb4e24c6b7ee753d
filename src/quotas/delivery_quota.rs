//! The quota of a consuming socket, with what is reserved for it.

use tokio::time::Instant;

use super::client_bucket::QuotaLimit;
use super::record_quota::RecordQuota;

/// Of a second's records, which part a consuming socket reserves at once.
const TURNS_PER_SECOND: u32 = 10;

/// The quota of a consuming socket, with what is reserved for it: some records at a time, so that
/// a high rate does not mean a timer per record.
#[derive(Debug)]
pub(crate) struct DeliveryQuota {
    quota: RecordQuota,
    /// Under which the permits are reserved.
    limit: QuotaLimit,
    permits: usize,
    /// When these may be used.
    from: Instant,
}

impl DeliveryQuota {
    pub(super) fn new(quota: RecordQuota) -> Self {
        Self {
            limit: quota.bucket.limit(),
            quota,
            permits: 0,
            from: Instant::now(),
        }
    }

    /// How many records may be sent now. If there are none, the next turn is reserved: to be asked
    /// when there is a record.
    pub(crate) fn available(&mut self, now: Instant) -> usize {
        let bucket = &self.quota.bucket;
        if bucket.limit() != self.limit {
            // What is reserved is void.
            self.limit = bucket.limit();
            self.permits = 0;
        }
        if self.limit.per_second == 0 {
            return usize::MAX;
        }
        if self.permits == 0 {
            self.permits = (self.limit.per_second / TURNS_PER_SECOND).max(1) as usize;
            (self.from, self.limit) = bucket.reserve(self.permits, now);
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
            self.quota.bucket.give_back(permits, self.limit);
        }
    }
}

impl Drop for DeliveryQuota {
    fn drop(&mut self) {
        self.give_back();
    }
}
