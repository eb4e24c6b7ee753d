//! Which cluster the connections lead to.
//!
//! Whoever listens at a broker's address may be of another cluster than the one that the metadata
//! describes: the cluster was set up anew (`docker compose down -v && up`), or an address is wrong.
//! A producer id, a member id or an offset of one cluster says something else to the other, and no
//! response shows it: a batch is "a duplicate", an offset is in range. So the question comes first.
//!
//! # Invariants
//! - A connection to a broker of the metadata is handed out only after the broker has named the
//!   cluster's id, which is the metadata's: see `cluster_check`.
//! - When the metadata is of another cluster, every connection that was begun before ends. No
//!   response of the old cluster arrives any more.

use std::sync::{Arc, Mutex};

use runtime::mutex::lock;
use tokio_util::sync::CancellationToken;

/// The cluster that the metadata describes, for all connections of a pool.
#[derive(Debug)]
pub(crate) struct CurrentCluster {
    stop: CancellationToken,
    /// What connections that begin now belong to.
    current: Mutex<ConnectionCluster>,
}

/// What a connection belongs to.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionCluster {
    /// `None` if the cluster has named none.
    pub(crate) id: Option<Arc<str>>,
    /// Ends the connection: stopped, or another cluster took this one's place.
    pub(crate) ended: CancellationToken,
}

impl CurrentCluster {
    pub(crate) fn new(stop: &CancellationToken) -> Self {
        Self {
            stop: stop.clone(),
            current: Mutex::new(ConnectionCluster {
                id: None,
                ended: stop.child_token(),
            }),
        }
    }

    /// What a connection that begins now belongs to.
    pub(crate) fn current(&self) -> ConnectionCluster {
        lock(&self.current).clone()
    }

    /// The metadata is of the cluster with that id from now on. Ends the connections to another.
    pub(crate) fn follow(&self, id: Option<&Arc<str>>) {
        let mut current = lock(&self.current);
        if current.id.as_ref() == id || id.is_none() {
            return;
        }
        let is_first = current.id.is_none();
        current.id = id.cloned();
        if !is_first {
            self.renew(&mut current);
        }
    }

    /// Ends all connections.
    pub(crate) fn end_connections(&self) {
        self.renew(&mut lock(&self.current));
    }

    fn renew(&self, current: &mut ConnectionCluster) {
        let next = self.stop.child_token();
        std::mem::replace(&mut current.ended, next).cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_end_when_another_cluster_takes_the_place_of_theirs() {
        let stop = CancellationToken::new();
        let cluster = CurrentCluster::new(&stop);
        let (old, new): (Arc<str>, Arc<str>) = ("old".into(), "new".into());
        cluster.follow(None);
        cluster.follow(Some(&old));
        let begun = cluster.current();
        assert_eq!(begun.id.as_ref(), Some(&old));
        cluster.follow(Some(&old));
        cluster.follow(None);
        assert!(!begun.ended.is_cancelled());
        cluster.follow(Some(&new));
        assert!(begun.ended.is_cancelled());
        let begun = cluster.current();
        assert_eq!(begun.id.as_ref(), Some(&new));
        assert!(!begun.ended.is_cancelled());
        stop.cancel();
        assert!(begun.ended.is_cancelled());
    }
}
