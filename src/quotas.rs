//! What clients may do: how many records one may write, and a group read, in a second, over all
//! its sockets of this node (client quotas, as Kafka calls them), and how many sockets it may have.
//!
//! ```text
//! /socket/in:  a message is read ─▶ reserve its records ─▶ wait for their turn ─▶ producer
//! /socket/out: a frame is due ─▶ reserve some records ─▶ wait for their turn ─▶ send as many
//! a dynamic entry ─▶ look-up ─▶ the bucket is full, of another size ─▶ its sockets wake
//! ```
//!
//! # Invariants
//! - A socket waits for those of the same client of the same user, in the order in which they
//!   reserved, and for nobody else. Nothing is dropped or refused.
//! - Each waits for its own turn: none is woken for that of another.
//! - When a limit changes, what was reserved under the former one is void, and whoever waits for
//!   its turn reserves another. What no limit holds for costs a message the load of an atomic.
//! - A client that comes back finds the bucket as it left it, until that is full again. The debts
//!   of `DEBTS_MAX` clients without a socket are kept; beyond them the
//!   one that ends first goes.

mod client_bucket;
mod client_buckets;
mod delivery_quota;
mod limits;
mod record_quota;
mod token_bucket;

use std::sync::{Arc, Mutex, MutexGuard};

use runtime::mutex::lock;
use runtime::wake::WakeSignal;
use tokio::time::Instant;

use self::client_buckets::{ClientBuckets, QuotaKey};
pub(crate) use self::delivery_quota::DeliveryQuota;
use self::limits::LayeredLimits;
pub(crate) use self::record_quota::{RecordQuota, ReservedRecords};
use crate::config::{ClientLimit, Config, LimitedClients};

/// The quotas of all clients. Cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) struct ClientQuotas(Arc<QuotasShared>);

#[derive(Debug)]
struct QuotasShared {
    /// Whether limits change while sockets are open.
    is_dynamic: bool,
    /// Locked before the buckets where both are.
    limits: Mutex<QuotaLimits>,
    buckets: Arc<Mutex<ClientBuckets>>,
}

#[derive(Debug)]
struct QuotaLimits {
    producing: LayeredLimits,
    consuming: LayeredLimits,
}

/// Whose entry one is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LimitedId {
    pub(crate) clients: LimitedClients,
    /// The client id or group id.
    pub(crate) id: Arc<str>,
}

impl ClientQuotas {
    pub(crate) fn new(config: &Config) -> Self {
        Self(Arc::new(QuotasShared {
            is_dynamic: config.dynamic_limits.enabled,
            limits: Mutex::new(QuotaLimits {
                producing: LayeredLimits::new(config.producer_limits.clone()),
                consuming: LayeredLimits::new(config.consumer_limits.clone()),
            }),
            buckets: Arc::default(),
        }))
    }

    /// The quota of a producing socket, which is woken when that has changed; `None`: it never has
    /// one. One without a `clientId` is a client of its own, which the default limits.
    pub(crate) fn of_client(
        &self,
        user: Option<&Arc<str>>,
        client_id: Option<&str>,
        wake: &Arc<WakeSignal>,
    ) -> Option<RecordQuota> {
        // Locked until it has joined: no change comes between.
        let limits = self.limits();
        let per_second = limits.producing.messages_per_second(client_id);
        match client_id {
            Some(id) => self.shared(QuotaKey::Client(user.cloned(), id.into()), per_second, wake),
            // The defaults do not change.
            None => (per_second > 0).then(|| RecordQuota::of_one_socket(per_second)),
        }
    }

    /// The quota of a consuming socket, which is woken when that has changed; `None`: it never has
    /// one.
    pub(crate) fn of_group(
        &self,
        user: Option<&Arc<str>>,
        group_id: &str,
        wake: &Arc<WakeSignal>,
    ) -> Option<DeliveryQuota> {
        // Locked until it has joined: no change comes between.
        let limits = self.limits();
        let per_second = limits.consuming.messages_per_second(Some(group_id));
        let key = QuotaKey::Group(user.cloned(), group_id.into());
        self.shared(key, per_second, wake).map(DeliveryQuota::new)
    }

    /// The `batchSize` of a consuming socket that names none.
    pub(crate) fn batch_size(&self, group_id: &str) -> Option<u32> {
        let batch_size = self.limits().consuming.batch_size(group_id);
        (batch_size > 0).then_some(batch_size)
    }

    /// How many producing sockets a client may have, over all nodes; 0: any number.
    pub(crate) fn max_connections_of_client(&self, client_id: Option<&str>) -> u32 {
        self.limits().producing.max_connections(client_id)
    }

    /// How many sockets a group may have, over all nodes; 0: any number.
    pub(crate) fn max_connections_of_group(&self, group_id: &str) -> u32 {
        self.limits().consuming.max_connections(Some(group_id))
    }

    /// From now on these clients have those dynamic entries, or none. Their open sockets follow.
    pub(crate) fn set_dynamic<'e>(
        &self,
        entries: impl IntoIterator<Item = (&'e LimitedId, Option<ClientLimit>)>,
    ) {
        let mut limits = self.limits();
        for (LimitedId { clients, id }, entry) in entries {
            match clients {
                LimitedClients::Producers => limits.producing.set_dynamic(id, entry),
                LimitedClients::Groups => limits.consuming.set_dynamic(id, entry),
            }
        }
        // Still under the lock: whoever joins meanwhile would have looked up the former limit.
        let per_second = |key: &QuotaKey| match key {
            QuotaKey::Client(_, id) => limits.producing.messages_per_second(Some(id)),
            QuotaKey::Group(_, id) => limits.consuming.messages_per_second(Some(id)),
        };
        lock(&self.0.buckets).follow(per_second, Instant::now());
    }

    fn shared(
        &self,
        key: QuotaKey,
        per_second: u32,
        wake: &Arc<WakeSignal>,
    ) -> Option<RecordQuota> {
        let may_be_limited = per_second > 0 || self.0.is_dynamic;
        may_be_limited.then(|| RecordQuota::join(&self.0.buckets, key, per_second, wake))
    }

    fn limits(&self) -> MutexGuard<'_, QuotaLimits> {
        lock(&self.0.limits)
    }
}

#[cfg(test)]
mod tests;
