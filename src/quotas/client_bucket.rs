//! The bucket that the sockets of a client share, and its limit, which may change meanwhile.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use runtime::mutex::lock;
use tokio::time::Instant;

use super::token_bucket::TokenBucket;

/// Records per second, and the change since which that holds: a turn that was reserved under one
/// limit is void under the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QuotaLimit {
    /// 0: no limit.
    pub(super) per_second: u32,
    change: u32,
}

impl QuotaLimit {
    fn from_bits(bits: u64) -> Self {
        Self {
            per_second: bits as u32,
            change: (bits >> 32) as u32,
        }
    }

    fn to_bits(self) -> u64 {
        u64::from(self.change) << 32 | u64::from(self.per_second)
    }
}

/// What the sockets of a client share.
#[derive(Debug)]
pub(super) struct ClientBucket {
    /// The limit. Set under the lock, and looked at without it: for each message.
    limit: AtomicU64,
    tokens: Mutex<TokenBucket>,
}

impl ClientBucket {
    /// A full bucket.
    pub(super) fn new(per_second: u32, now: Instant) -> Self {
        Self {
            limit: AtomicU64::new(per_second.into()),
            tokens: Mutex::new(TokenBucket::new(per_second, now)),
        }
    }

    #[inline]
    pub(super) fn limit(&self) -> QuotaLimit {
        QuotaLimit::from_bits(self.limit.load(Ordering::Acquire))
    }

    /// From now on there is that limit, and the bucket is full. Whoever waits for a turn is to be
    /// woken then.
    pub(super) fn change(&self, per_second: u32, now: Instant) {
        let mut tokens = lock(&self.tokens);
        *tokens = TokenBucket::new(per_second, now);
        let change = self.limit().change.wrapping_add(1);
        let limit = QuotaLimit { per_second, change };
        self.limit.store(limit.to_bits(), Ordering::Release);
    }

    /// Reserves the turn of so many records: when it is, under which limit.
    pub(super) fn reserve(&self, records: usize, now: Instant) -> (Instant, QuotaLimit) {
        let mut tokens = lock(&self.tokens);
        let limit = self.limit();
        match limit.per_second {
            0 => (now, limit),
            _ => (tokens.reserve(records, now), limit),
        }
    }

    /// Takes back what was reserved under that limit and is not used.
    pub(super) fn give_back(&self, records: usize, limit: QuotaLimit) {
        let mut tokens = lock(&self.tokens);
        if limit == self.limit() && limit.per_second > 0 {
            tokens.give_back(records);
        }
    }

    pub(super) fn full_at(&self) -> Instant {
        lock(&self.tokens).full_at()
    }
}
