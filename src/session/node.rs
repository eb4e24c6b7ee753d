//! One node's part in the sessions: its lease, its sockets' places, and what it owes the others.
//!
//! ```text
//! callers: claim, release ─┐                        ┌─▶ Write(record)        to the log
//! log: read, acked, failed ┼─▶ SessionNode + SessionState ┼─▶ Decided, Lost        to a socket
//! clock: tick ─────────────┘                        └─▶ Probe, Evict         to a socket
//! ```
//!
//! Without I/O: what happens comes in with the time it happens at, and what is to be done goes out
//! as [`NodeEffect`]s.
//!
//! # How a place is had
//! 1. The claim is written, and read back in the order of the log: the state says whether it is
//!    admitted, behind the same client's place, or too late. An acknowledged write that nothing
//!    of another node precedes is applied at once, without the read. Beside a claim that is about
//!    to be withdrawn, it may have to wait for that.
//! 2. Behind another place: the node of that place reads the claim, pings its client, and either
//!    refuses the claim (the client is alive) or releases the place. The place of a node whose
//!    lease is over is released by whoever notices.
//! 3. A node that does neither, though its lease is not over, is waited for until
//!    [`CLAIM_TIMEOUT`]; then the client is told to try again.
//!
//! # How places are lost
//! A node that others found dead, since it could not renew its lease for longer than that lasts,
//! reads so in the log: it takes a new incarnation and claims all its places again. The sockets
//! whose place somebody else has by then are closed. So it is after the topic was lost, or is
//! another one.
//!
//! # Invariants
//! - A place is granted only by the state at the claim's own place in the log.
//! - Every claim ends: it is granted, refused, or given up, and then released in the log.
//! - What is not counted is written when it has been open for a while, and as long as the log does
//!   not take it, not at all: it grows with the sockets that are open, and not with those that were.
//! - Sockets that are open wait for nothing here.

mod claims;
mod effect;
mod fencing;
mod listed;
mod own_places;
mod writes;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

pub(super) use self::effect::{ClaimOutcome, ClaimRefusal, NodeEffect, PlaceLoss};
use self::own_places::OwnPlaces;
use self::writes::LogWrites;
pub(super) use self::writes::{CLAIM_TIMEOUT, PROBE_TIMEOUT};
use super::place_id::{NodeIncarnation, PlaceId};
use super::record::{NodeLease, SessionRecord};
use super::state::{SessionEvent, SessionState};
use crate::state_log::LogTrouble;

/// From one try to the next to write what could not be written.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// What a node is configured with.
#[derive(Clone, Debug)]
pub(super) struct NodeSettings {
    pub(super) server_id: Arc<str>,
    /// How long the node's lease lasts; it is renewed at a third of that.
    pub(super) lease_duration: Duration,
    /// What is older than that may be gone from the log, so that places are written again before
    /// half of it.
    pub(super) retention: Duration,
}

/// How far the node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NodePhase {
    /// It reads the log, and writes nothing.
    Loading,
    /// Its lease is being written.
    Joining,
    /// It has a lease.
    Member,
    /// It has left, or is about to.
    Left,
}

/// One node's part in the sessions.
#[derive(Debug)]
pub(super) struct SessionNode {
    settings: NodeSettings,
    state: SessionState,
    phase: NodePhase,
    incarnation: NodeIncarnation,
    /// The incarnations of this process that are over.
    former: HashSet<NodeIncarnation>,
    /// What the records of the log are read up to.
    next_offset: i64,
    places: OwnPlaces,
    writes: LogWrites,
    lease: OwnLease,
    /// When a node was last said to be dead.
    expiries: HashMap<NodeIncarnation, Instant>,
    rewrite_at: Instant,
    duplicate_server_id: bool,
    effects: Vec<NodeEffect>,
}

/// The node's own lease.
#[derive(Debug)]
struct OwnLease {
    sequence: u64,
    renew_at: Instant,
    in_flight: bool,
    /// When its last renewal was read.
    applied_at: Option<Instant>,
}

impl SessionNode {
    /// A node that has read nothing. `incarnation` is random.
    pub(super) fn new(settings: NodeSettings, incarnation: u64, now: Instant) -> Self {
        Self {
            rewrite_at: now + settings.retention / 8,
            settings,
            state: SessionState::default(),
            phase: NodePhase::Loading,
            incarnation: NodeIncarnation(incarnation),
            former: HashSet::new(),
            next_offset: 0,
            places: OwnPlaces::default(),
            writes: LogWrites::default(),
            lease: OwnLease {
                sequence: 0,
                renew_at: now,
                in_flight: false,
                applied_at: None,
            },
            expiries: HashMap::new(),
            duplicate_server_id: false,
            effects: Vec::new(),
        }
    }

    /// What is to be done since the last call.
    pub(super) fn take_effects(&mut self) -> Vec<NodeEffect> {
        std::mem::take(&mut self.effects)
    }

    /// Whether it knows the sessions and has a lease.
    pub(super) fn is_member(&self) -> bool {
        self.phase == NodePhase::Member
    }

    /// Whether another node that lives has the same server id.
    pub(super) fn has_duplicate_server_id(&self) -> bool {
        self.duplicate_server_id
    }

    /// Forgets what was read: the log is read from its start, which is that offset. What was
    /// written and not acknowledged may not be reported any more.
    pub(super) fn begin_load(&mut self, start: i64) {
        if self.phase == NodePhase::Left {
            return;
        }
        if self.phase != NodePhase::Loading {
            self.former.insert(self.incarnation);
            self.incarnation = self.next_incarnation();
        }
        self.phase = NodePhase::Loading;
        self.state = SessionState::default();
        self.next_offset = start;
        self.writes = LogWrites::default();
        self.places.forget_releases();
        self.expiries.clear();
    }

    /// All of the log that there was is read: clears what former incarnations left, and claims.
    pub(super) fn loaded(&mut self, now: Instant) {
        if self.phase != NodePhase::Loading {
            return;
        }
        let is_first = self.former.is_empty();
        let own = self.state.nodes().filter(|(node, entry)| {
            let lease = entry.lease.as_ref();
            let same_name = lease.is_some_and(|l| l.server_id == self.settings.server_id);
            self.former.contains(node) || (is_first && same_name)
        });
        let mut own: Vec<_> = own.map(|(node, _)| node).collect();
        own.sort_unstable();
        for node in own {
            self.write_expired(node, now);
        }
        self.join(now);
    }

    /// The next record that was read, `None` if it is not understood.
    pub(super) fn read(&mut self, offset: i64, record: Option<SessionRecord>, now: Instant) {
        // It may have been applied when it was acknowledged.
        if offset < self.next_offset {
            return;
        }
        self.next_offset = offset + 1;
        if let Some(record) = record {
            self.apply(record, now);
        }
        self.writes.read_up_to(self.next_offset);
    }

    /// All up to that offset is read, also where there is no record.
    pub(super) fn read_up_to(&mut self, next_offset: i64) {
        self.next_offset = self.next_offset.max(next_offset);
        self.writes.read_up_to(self.next_offset);
    }

    /// The oldest write that is not acknowledged has that offset; negative if the broker does
    /// not know it any more.
    pub(super) fn acked(&mut self, record: SessionRecord, offset: i64, now: Instant) {
        self.writes.acked(offset, self.next_offset, now);
        self.note_lease_over(&record);
        if offset == self.next_offset {
            self.read(offset, Some(record), now);
        }
    }

    /// The oldest write that is not acknowledged failed. It may be in the log all the same.
    pub(super) fn failed(&mut self, record: SessionRecord, reason: &str, now: Instant) {
        self.writes.failed(reason);
        if self.note_lease_over(&record) {
            self.lease.renew_at = now + RETRY_INTERVAL;
            return;
        }
        let again = match record {
            SessionRecord::Place { id, .. } if id.node == self.incarnation => {
                self.claim_failed(id.number, now)
            }
            SessionRecord::Released { .. }
            | SessionRecord::Refused { .. }
            | SessionRecord::EvictionEnded { .. }
            | SessionRecord::Left { .. } => Some(record),
            _ => None,
        };
        if let Some(record) = again {
            self.writes.retry(record, now + RETRY_INTERVAL);
        }
    }

    /// Whether a lease that is being written was that one; it is no longer.
    fn note_lease_over(&mut self, record: &SessionRecord) -> bool {
        let own = matches!(record, SessionRecord::Lease { node, .. } if *node == self.incarnation);
        if own {
            self.lease.in_flight = false;
        }
        own
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, now: Instant) {
        self.state.adopt_contested(now - CLAIM_TIMEOUT * 2);
        self.settle_uncertain(now);
        self.tick_claims(now);
        if matches!(self.phase, NodePhase::Loading | NodePhase::Left) {
            return;
        }
        if now >= self.lease.renew_at && !self.lease.in_flight {
            self.renew(now);
        }
        for record in self.writes.take_due(now) {
            // The socket of a place may have closed since, or the place be another one's by now.
            let is_over = match &record {
                SessionRecord::Place { id, .. } => {
                    let number = self.own(*id);
                    !number.is_some_and(|number| self.places.contains(number))
                }
                _ => false,
            };
            if !is_over {
                self.write(record, now);
            }
        }
        self.write_listed(now);
        if self.is_in_touch(now) {
            self.find_dead_nodes(now);
        }
        if now >= self.rewrite_at {
            self.rewrite_at = now + self.settings.retention / 8;
            self.rewrite_old_places(now);
        }
    }

    /// When [`tick`](Self::tick) has something to do, at the latest.
    pub(super) fn next_tick_at(&self, now: Instant) -> Instant {
        let pause = match self.places.has_unsettled() {
            true => Duration::from_millis(50),
            false => (self.settings.lease_duration / 6).min(Duration::from_millis(500)),
        };
        now + pause
    }

    /// Leaves: writes that it has no places any more.
    pub(super) fn leave(&mut self, now: Instant) {
        let has_joined = matches!(self.phase, NodePhase::Joining | NodePhase::Member);
        self.phase = NodePhase::Left;
        if has_joined {
            for record in self.writes.take_all() {
                self.write(record, now);
            }
            let node = self.incarnation;
            self.write(SessionRecord::Left { node }, now);
        }
        self.give_up_claims();
    }

    /// Whether nothing that was written waits for its answer.
    pub(super) fn has_written_all(&self) -> bool {
        self.writes.is_idle()
    }

    /// Why no claim can be decided now, for operators.
    pub(super) fn trouble(&self, now: Instant) -> Option<LogTrouble> {
        self.writes.trouble(now)
    }

    fn apply(&mut self, record: SessionRecord, now: Instant) {
        if let SessionRecord::Released { id } = record
            && let Some(number) = self.own(id)
        {
            self.places.released(number);
        }
        for event in self.state.apply(record, now) {
            self.handle(event, now);
        }
    }

    fn handle(&mut self, event: SessionEvent, now: Instant) {
        if let SessionEvent::EvictionRequested(place) = event {
            // Also while the log is read again: who asks waits for the socket's end.
            return self.eviction_requested(place);
        }
        if self.phase == NodePhase::Loading {
            return;
        }
        match event {
            SessionEvent::EvictionRequested(_) => {}
            SessionEvent::Admitted(place) => {
                if let Some(number) = self.own(place) {
                    self.admitted(number, now);
                }
            }
            SessionEvent::Behind { place, holder } => {
                if let Some(number) = self.own(place) {
                    self.places.set_waiting(number);
                }
                if let Some(number) = self.own(holder) {
                    self.challenge(number, now);
                }
            }
            SessionEvent::Full { place, full } => {
                self.reject(place, ClaimOutcome::Full(full), PlaceLoss::Full, now);
            }
            SessionEvent::Fenced(place) => {
                if let Some(number) = self.own(place) {
                    self.fence(number, now);
                }
            }
            SessionEvent::Refused(place) => {
                self.reject(place, ClaimOutcome::Duplicate, PlaceLoss::Superseded, now);
            }
            // There may be room for what was admitted beside it.
            SessionEvent::Released(_) => {
                self.effects.push(NodeEffect::PlaceFreed);
                self.settle_uncertain(now);
            }
            SessionEvent::Renewed(node) if node == self.incarnation => self.renewed(now),
            SessionEvent::Renewed(node) => self.note_server_id_of(node),
            SessionEvent::NodeGone {
                node,
                found_by,
                places,
            } => {
                self.effects.push(NodeEffect::PlaceFreed);
                self.node_gone(node, found_by, &places, now);
            }
        }
    }

    /// The number of a place of ours.
    fn own(&self, place: PlaceId) -> Option<u64> {
        (place.node == self.incarnation).then_some(place.number)
    }

    fn node_gone(
        &mut self,
        node: NodeIncarnation,
        found_by: Option<NodeIncarnation>,
        places: &[u64],
        now: Instant,
    ) {
        self.expiries.remove(&node);
        self.look_for_duplicate_server_id();
        if node == self.incarnation {
            if self.phase != NodePhase::Left {
                self.effects.push(NodeEffect::Rejoined);
                self.former.insert(node);
                // Whoever found it dead clears up as well, but not what was on its way then.
                let places = &self.places.numbers();
                self.clear_up(node, places, now);
                self.incarnation = self.next_incarnation();
                self.places.forget_releases();
                self.join(now);
            }
        } else if found_by == Some(self.incarnation) {
            self.clear_up(node, places, now);
        }
    }

    /// Has compaction drop all that is left of a node.
    fn clear_up(&mut self, node: NodeIncarnation, places: &[u64], now: Instant) {
        for &number in places {
            let id = PlaceId { node, number };
            self.write(SessionRecord::Released { id }, now);
        }
        self.write(SessionRecord::Left { node }, now);
    }

    /// Writes the lease of a new incarnation, and claims all places for it.
    fn join(&mut self, now: Instant) {
        self.phase = NodePhase::Joining;
        self.lease.sequence = 0;
        self.lease.applied_at = None;
        self.renew(now);
        self.claim_all(now);
    }

    fn renew(&mut self, now: Instant) {
        self.lease.sequence += 1;
        self.lease.in_flight = true;
        self.lease.renew_at = now + self.settings.lease_duration / 3;
        let lease = NodeLease::new(
            Arc::clone(&self.settings.server_id),
            self.lease.sequence,
            self.settings.lease_duration,
        );
        let node = self.incarnation;
        self.write(SessionRecord::Lease { node, lease }, now);
    }

    /// The own lease was read.
    fn renewed(&mut self, now: Instant) {
        if !self.is_in_touch(now) {
            // The others could not write either, or could not be read.
            self.state.renew_all(now);
        }
        self.lease.applied_at = Some(now);
        if self.phase == NodePhase::Joining {
            self.phase = NodePhase::Member;
        }
    }

    /// Whether renewals come through, so that those of others would be read.
    fn is_in_touch(&self, now: Instant) -> bool {
        let within = self.settings.lease_duration / 2;
        let applied_at = self.lease.applied_at;
        applied_at.is_some_and(|applied_at| now < applied_at + within)
    }

    fn find_dead_nodes(&mut self, now: Instant) {
        let lapsed = self.state.lapsed(self.settings.lease_duration, now);
        let lapsed = lapsed.filter(|node| {
            let said_at = self.expiries.get(node);
            let said = said_at.is_some_and(|at| now < *at + self.settings.lease_duration / 3);
            *node != self.incarnation && !said
        });
        let mut lapsed: Vec<_> = lapsed.collect();
        lapsed.sort_unstable();
        for node in lapsed {
            self.write_expired(node, now);
        }
    }

    fn write_expired(&mut self, node: NodeIncarnation, now: Instant) {
        self.expiries.insert(node, now);
        let by = self.incarnation;
        self.write(SessionRecord::Expired { node, by }, now);
    }

    /// A lease that is renewed after we have joined is that of a node that lives.
    fn note_server_id_of(&mut self, node: NodeIncarnation) {
        if self.phase == NodePhase::Member && self.has_our_server_id(node) {
            if !self.duplicate_server_id {
                self.effects.push(NodeEffect::DuplicateServerId);
            }
            self.duplicate_server_id = true;
        }
    }

    fn look_for_duplicate_server_id(&mut self) {
        let nodes = self.state.nodes().map(|(node, _)| node);
        let any = nodes.into_iter().any(|node| self.has_our_server_id(node));
        self.duplicate_server_id &= any;
    }

    fn has_our_server_id(&self, node: NodeIncarnation) -> bool {
        let mut nodes = self.state.nodes();
        let entry = nodes.find(|(known, _)| *known == node);
        let lease = entry.and_then(|(_, entry)| entry.lease.as_ref());
        node != self.incarnation && lease.is_some_and(|l| l.server_id == self.settings.server_id)
    }

    fn write(&mut self, record: SessionRecord, now: Instant) {
        self.writes.begun(now);
        self.effects.push(NodeEffect::Write(record));
    }

    /// Different from all of this process, and from those of others but for chance.
    fn next_incarnation(&self) -> NodeIncarnation {
        let NodeIncarnation(number) = self.incarnation;
        NodeIncarnation(
            number
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1),
        )
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
