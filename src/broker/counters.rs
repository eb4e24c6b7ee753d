//! Requests by API and open connections, counted for tests; not part of the product.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use kafka_protocol::messages::ApiKey;

/// Counts since the start.
#[derive(Debug)]
pub(super) struct BrokerCounters {
    requests: [AtomicU64; APIS],
    open: AtomicUsize,
}

impl Default for BrokerCounters {
    fn default() -> Self {
        Self {
            requests: std::array::from_fn(|_| AtomicU64::new(0)),
            open: AtomicUsize::new(0),
        }
    }
}

impl BrokerCounters {
    /// A request arrived.
    pub(super) fn request(&self, api: ApiKey) {
        if let Some(counter) = self.requests.get(api as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a connection until the guard is dropped.
    pub(super) fn connected(&self) -> OpenConnectionCount<'_> {
        self.open.fetch_add(1, Ordering::Relaxed);
        OpenConnectionCount(self)
    }

    /// Requests of that API.
    pub(super) fn requests(&self, api: ApiKey) -> u64 {
        self.requests
            .get(api as usize)
            .map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// Connections now.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

/// One open connection.
#[derive(Debug)]
pub(super) struct OpenConnectionCount<'a>(&'a BrokerCounters);

impl Drop for OpenConnectionCount<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One more than the largest API key.
const APIS: usize = 128;
