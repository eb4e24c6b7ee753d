//! What the clients of a cluster count, for whoever reports it (Java's `metric.reporters`).
//!
//! ```text
//! connection ─▶ RequestMetrics, ConnectionMetrics ─┐
//! producer ───▶ ProduceMetrics ────────────────────┼─▶ ClientMetrics, read now and then
//! fetcher ────▶ FetchMetrics ──────────────────────┤
//! group ──────▶ GroupMetrics ──────────────────────┘
//! ```
//!
//! Each is counted per request, batch or chunk, never per record.

mod requests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use runtime::counters::{Counter, Gauge, Histogram};

pub use self::requests::RequestMetrics;

/// Where clients count. Clones share it, and so do the clients whose configurations are clones of
/// one another.
#[derive(Clone, Default)]
pub struct ClientMetrics {
    /// What brokers were asked.
    pub requests: Arc<RequestMetrics>,
    /// Connections to brokers.
    pub connections: Arc<ConnectionMetrics>,
    /// What was written.
    pub produce: Arc<ProduceMetrics>,
    /// What was read.
    pub fetch: Arc<FetchMetrics>,
    /// Members of consumer groups.
    pub groups: Arc<GroupMetrics>,
}

impl ClientMetrics {
    /// For clients whose requests and connections count here, and whose records do not.
    pub fn without_records(&self) -> Self {
        Self {
            requests: Arc::clone(&self.requests),
            connections: Arc::clone(&self.connections),
            ..Self::default()
        }
    }
}

impl fmt::Debug for ClientMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientMetrics").finish_non_exhaustive()
    }
}

/// Connections that were opened, authenticated where that is asked for or not yet.
#[derive(Debug, Default)]
pub struct ConnectionMetrics {
    by_purpose: [PurposeMetrics; PURPOSES.len()],
    /// SASL exchanges that a broker took.
    pub authentications: Counter,
    /// Those among them that took place because a session was about to end (KIP-368).
    pub reauthentications: Counter,
    /// SASL exchanges that were refused, or cannot succeed.
    pub authentication_failures: Counter,
}

#[derive(Debug, Default)]
struct PurposeMetrics {
    open: Gauge,
    opened: Counter,
}

/// What connections are for.
const PURPOSES: [&str; 9] = [
    "control",
    "produce",
    "tail",
    "catch_up",
    "heartbeat",
    "coordinator",
    "commit",
    "leave_group",
    JOIN,
];

/// JoinGroup and SyncGroup, over connections of one member each.
pub(crate) const JOIN: &str = "join";

impl ConnectionMetrics {
    /// Each purpose, with the connections for it that are open now and all that ever were.
    pub fn by_purpose(&self) -> impl Iterator<Item = (&'static str, u64, u64)> + '_ {
        let each = PURPOSES.into_iter().zip(&self.by_purpose);
        each.map(|(purpose, counted)| (purpose, counted.open.get(), counted.opened.get()))
    }

    fn of(&self, purpose: &'static str) -> &PurposeMetrics {
        let known = PURPOSES.iter().position(|name| *name == purpose);
        &self.by_purpose[known.unwrap_or(0)]
    }
}

/// Counts one connection as open, until it is dropped.
#[derive(Debug)]
pub(crate) struct CountedConnection {
    metrics: Arc<ConnectionMetrics>,
    purpose: &'static str,
}

impl CountedConnection {
    pub(crate) fn new(metrics: &Arc<ConnectionMetrics>, purpose: &'static str) -> Self {
        let counted = metrics.of(purpose);
        counted.opened.increment();
        counted.open.add(1);
        Self {
            metrics: Arc::clone(metrics),
            purpose,
        }
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        self.metrics.of(self.purpose).open.add(-1);
    }
}

/// What producers count.
#[derive(Debug, Default)]
pub struct ProduceMetrics {
    /// From when a record was given to the producer until the broker has it, for each record that
    /// was appended: as long as it took for the first record of its batch.
    pub latency: Histogram,
}

/// What fetchers count.
#[derive(Debug, Default)]
pub struct FetchMetrics {
    /// Records that brokers sent.
    pub records: Counter,
    /// Bytes of the batches that they came in, compressed as they were.
    pub bytes: Counter,
    /// Chunks that cursors took from a tail cache.
    pub tail_chunks: Counter,
    /// Chunks that cursors took from a fetch of their own.
    pub catch_up_chunks: Counter,
    /// Ranges of offsets that were reported as unreadable.
    pub unreadable: Counter,
}

/// What members of consumer groups count.
#[derive(Debug, Default)]
pub struct GroupMetrics {
    members: [Gauge; MEMBER_STATES.len()],
    /// Rebalances that members have completed.
    pub rebalances: Counter,
    /// From when a commit was due until it was answered.
    pub commit_latency: Histogram,
}

/// As Java's `MemberState`.
pub(crate) const MEMBER_STATES: [&str; 7] = [
    "unjoined",
    "preparing_rebalance",
    "completing_rebalance",
    "stable",
    "revoking",
    "leaving",
    "closed",
];

impl GroupMetrics {
    /// Each state that a member may be in, but the last, with how many are.
    pub fn members(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let each = MEMBER_STATES.into_iter().zip(&self.members);
        let each = each.filter(|(state, _)| *state != "closed");
        each.map(|(state, members)| (state, members.get()))
    }

    /// A commit was answered.
    pub(crate) fn committed(&self, took: Duration) {
        self.commit_latency.observe(took, 1);
    }
}

/// Counts one member in the state that it is in, until it is dropped.
#[derive(Debug)]
pub(crate) struct CountedMember {
    metrics: Arc<GroupMetrics>,
    state: usize,
}

impl CountedMember {
    /// `state` is one of the [`MEMBER_STATES`].
    pub(crate) fn new(metrics: Arc<GroupMetrics>, state: usize) -> Self {
        metrics.members[state].add(1);
        Self { metrics, state }
    }

    /// The member is in that state.
    pub(crate) fn is_in(&mut self, state: usize) {
        if state == self.state {
            return;
        }
        let completing = MEMBER_STATES[self.state] == "completing_rebalance";
        if completing && ["stable", "revoking"].contains(&MEMBER_STATES[state]) {
            self.metrics.rebalances.increment();
        }
        self.metrics.members[self.state].add(-1);
        self.metrics.members[state].add(1);
        self.state = state;
    }
}

impl Drop for CountedMember {
    fn drop(&mut self) {
        self.metrics.members[self.state].add(-1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_counts_in_one_state_and_in_none_when_it_is_gone() {
        let metrics = Arc::new(GroupMetrics::default());
        let members = |state| metrics.members().find(|(name, _)| *name == state);
        let mut member = CountedMember::new(Arc::clone(&metrics), 0);
        assert_eq!(members("unjoined"), Some(("unjoined", 1)));
        member.is_in(2);
        member.is_in(3);
        member.is_in(3);
        assert_eq!(metrics.rebalances.get(), 1);
        assert_eq!(members("unjoined"), Some(("unjoined", 0)));
        assert_eq!(members("stable"), Some(("stable", 1)));
        drop(member);
        assert_eq!(metrics.members().map(|(_, count)| count).sum::<u64>(), 0);
    }

    #[test]
    fn a_connection_counts_as_open_until_it_is_dropped_and_as_opened_for_ever() {
        let metrics = Arc::new(ConnectionMetrics::default());
        let of = |purpose| {
            let mut each = metrics.by_purpose();
            each.find(|(name, _, _)| *name == purpose)
        };
        let connection = CountedConnection::new(&metrics, "tail");
        assert_eq!(of("tail"), Some(("tail", 1, 1)));
        drop(connection);
        assert_eq!(of("tail"), Some(("tail", 0, 1)));
        assert_eq!(of(JOIN), Some((JOIN, 0, 0)));
    }
}
