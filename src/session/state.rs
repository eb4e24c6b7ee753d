//! What the session topic says, record by record: which nodes live, and who has which place.
//!
//! ```text
//! records in the order of the log ─▶ apply() ─┬▶ nodes     incarnation → lease
//!                                             ├▶ groups    group → places, in the order of the log
//!                                             └▶ SessionEvents
//! ```
//!
//! Time decides nothing here: that a node is taken to be dead is a record as well.
//!
//! # What readers agree on
//! Readers of the whole log come to the same state. One that reads it after compaction may think
//! that a claim was in time which was not, or the other way round: what stood before it is gone.
//! So every claim is kept until its node withdraws it or is gone, those that do not fit too
//! (contested), and a claim is safe ([`GroupPlaces::is_safe`]) only if it fits beside all of them.
//! No compaction removes a claim that is held.
//!
//! # Invariants
//! - A claim that does not fit when it comes has no place: its node withdraws it.
//! - A claim for a client that has a place waits behind it, and gets the place when it is freed.
//! - Nothing of a node that has left, or was found dead, counts, whatever comes of it later.

mod group_places;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

pub(super) use self::group_places::{FullGroup, GroupPlaces, PlaceLimit};
use self::group_places::{PlaceOutcome, QueuedPlace, RemovedPlace};
use super::place_claim::{PlaceClaim, PlaceGroup, PlaceMember};
use super::place_id::{NodeIncarnation, PlaceId};
use super::record::{NodeLease, SessionRecord};

/// How many nodes that are gone are remembered. Their last records come soon after their end.
const GONE_NODES_MAX: usize = 1_024;

/// The state of the log up to an offset.
#[derive(Debug, Default)]
pub(super) struct SessionState {
    nodes: HashMap<NodeIncarnation, NodeEntry>,
    groups: HashMap<PlaceGroup, GroupPlaces>,
    /// The groups that have, or had, claims that do not fit.
    contested_groups: HashSet<PlaceGroup>,
    gone: GoneNodes,
}

/// A node that has not left.
#[derive(Debug)]
pub(super) struct NodeEntry {
    /// `None`: it has places, and its lease has not been read.
    pub(super) lease: Option<NodeLease>,
    /// When we read of it last; not when it wrote that.
    renewed_at: Instant,
    /// Its places and claims, by number.
    places: HashMap<u64, Arc<PlaceClaim>>,
}

impl NodeEntry {
    /// What the node is called.
    pub(super) fn server_id(&self, node: NodeIncarnation) -> Arc<str> {
        match &self.lease {
            Some(lease) => Arc::clone(&lease.server_id),
            // Compaction may drop a lease before the places.
            None => node.to_string().into(),
        }
    }

    /// When its lease is over, as far as we have heard.
    fn lapses_at(&self, default: Duration) -> Instant {
        self.renewed_at + self.lease.as_ref().map_or(default, NodeLease::duration)
    }
}

/// What a record has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SessionEvent {
    /// The claim has its place.
    Admitted(PlaceId),
    /// The member that claims has a place, which `holder` holds.
    Behind { place: PlaceId, holder: PlaceId },
    /// The group has no place left.
    Full { place: PlaceId, full: FullGroup },
    /// A younger socket of its instance has the place.
    Fenced(PlaceId),
    /// The claim is refused: the client that has the place is alive.
    Refused(PlaceId),
    /// The place, or the claim, is no more.
    Released(PlaceId),
    /// The socket of the place is to be closed.
    EvictionRequested(PlaceId),
    /// A lease was renewed, or is new.
    Renewed(NodeIncarnation),
    /// The node is gone with its places, which are those.
    NodeGone {
        node: NodeIncarnation,
        /// Who found it dead; `None` if it has left.
        found_by: Option<NodeIncarnation>,
        places: Vec<u64>,
    },
}

impl SessionState {
    /// Applies the next record of the log.
    pub(super) fn apply(&mut self, record: SessionRecord, now: Instant) -> Vec<SessionEvent> {
        match record {
            SessionRecord::Lease { node, lease } => {
                let Some(entry) = self.entry(node, now) else {
                    return Vec::new();
                };
                entry.renewed_at = now;
                entry.lease = Some(lease);
                vec![SessionEvent::Renewed(node)]
            }
            SessionRecord::Expired { node, by } => self.remove_node(node, Some(by)),
            SessionRecord::Left { node } => self.remove_node(node, None),
            SessionRecord::Place { id, claim } => self.place(id, claim, now),
            SessionRecord::Refused { id } => self.remove(id, SessionEvent::Refused(id)),
            SessionRecord::Released { id } => self.remove(id, SessionEvent::Released(id)),
            SessionRecord::EvictionRequested { id } => vec![SessionEvent::EvictionRequested(id)],
            SessionRecord::EvictionEnded { .. } => Vec::new(),
        }
    }

    /// The places of a group, if it has any.
    pub(super) fn group(&self, group: &PlaceGroup) -> Option<&GroupPlaces> {
        self.groups.get(group)
    }

    /// The nodes that have not left.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (NodeIncarnation, &NodeEntry)> {
        self.nodes.iter().map(|(node, entry)| (*node, entry))
    }

    /// Whether that place, or claim, is there.
    pub(super) fn contains(&self, id: PlaceId) -> bool {
        let node = self.nodes.get(&id.node);
        node.is_some_and(|node| node.places.contains_key(&id.number))
    }

    /// The places of a node that are had, with what they are for.
    pub(super) fn places_of(
        &self,
        node: NodeIncarnation,
    ) -> impl Iterator<Item = (PlaceId, &Arc<PlaceClaim>)> {
        let places = self.nodes.get(&node).into_iter();
        let places = places.flat_map(|node| &node.places);
        let places = places.map(move |(&number, claim)| (PlaceId { node, number }, claim));
        places.filter(|(id, claim)| {
            claim.member(*id).is_none_or(|PlaceMember { group, key }| {
                let group = self.groups.get(&group);
                group.and_then(|group| group.holder(&key)) == Some(*id)
            })
        })
    }

    /// The nodes whose lease is over by now.
    pub(super) fn lapsed(
        &self,
        default: Duration,
        now: Instant,
    ) -> impl Iterator<Item = NodeIncarnation> {
        let nodes = self.nodes();
        let lapsed = nodes.filter(move |(_, entry)| now >= entry.lapses_at(default));
        lapsed.map(|(node, _)| node)
    }

    /// Takes claims that did not fit for places, if they are not withdrawn for so long: their
    /// nodes know better.
    pub(super) fn adopt_contested(&mut self, since_before: Instant) {
        for name in std::mem::take(&mut self.contested_groups) {
            let Some(group) = self.groups.get_mut(&name) else {
                continue;
            };
            if group.adopt_contested(since_before) {
                self.contested_groups.insert(name);
            }
        }
    }

    /// Begins the leases of all nodes anew: they could not be heard of.
    pub(super) fn renew_all(&mut self, now: Instant) {
        self.nodes
            .values_mut()
            .for_each(|node| node.renewed_at = now);
    }

    /// Whether nothing is left of any socket.
    #[cfg(test)]
    pub(super) fn has_no_places(&self) -> bool {
        self.groups.is_empty() && self.nodes.values().all(|node| node.places.is_empty())
    }

    /// The node's entry, which is made; `None` for one that is gone.
    fn entry(&mut self, node: NodeIncarnation, now: Instant) -> Option<&mut NodeEntry> {
        if self.gone.contains(node) {
            return None;
        }
        Some(self.nodes.entry(node).or_insert_with(|| NodeEntry {
            lease: None,
            renewed_at: now,
            places: HashMap::new(),
        }))
    }

    fn place(&mut self, id: PlaceId, claim: Arc<PlaceClaim>, now: Instant) -> Vec<SessionEvent> {
        let known = self.entry(id.node, now);
        // Written again, so that it is kept; or of a node that is gone.
        if known.is_none_or(|node| node.places.contains_key(&id.number)) {
            return Vec::new();
        }
        let events = match claim.member(id) {
            None => vec![SessionEvent::Admitted(id)],
            Some(member) => self.push(member, id, Arc::clone(&claim), now),
        };
        if let Some(node) = self.nodes.get_mut(&id.node) {
            node.places.insert(id.number, claim);
        }
        events
    }

    fn push(
        &mut self,
        PlaceMember { group, key }: PlaceMember,
        id: PlaceId,
        claim: Arc<PlaceClaim>,
        now: Instant,
    ) -> Vec<SessionEvent> {
        let place = QueuedPlace::new(id, claim, now);
        let places = self.groups.entry(group.clone()).or_default();
        match places.push(key, place) {
            PlaceOutcome::Admitted => vec![SessionEvent::Admitted(id)],
            PlaceOutcome::Behind(holder) => vec![SessionEvent::Behind { place: id, holder }],
            PlaceOutcome::Fences { fenced, behind } => {
                let mut events = vec![SessionEvent::Admitted(id), SessionEvent::Fenced(fenced)];
                let behind = behind.into_iter();
                events.extend(behind.map(|place| SessionEvent::Behind { place, holder: id }));
                events
            }
            PlaceOutcome::Fenced => vec![SessionEvent::Fenced(id)],
            PlaceOutcome::Full(full) => {
                self.contested_groups.insert(group);
                vec![SessionEvent::Full { place: id, full }]
            }
        }
    }

    /// Removes a place or a claim, if it is there.
    fn remove(&mut self, id: PlaceId, event: SessionEvent) -> Vec<SessionEvent> {
        let node = self.nodes.get_mut(&id.node);
        let Some(claim) = node.and_then(|node| node.places.remove(&id.number)) else {
            return Vec::new();
        };
        let mut events = vec![event];
        self.remove_from_group(&claim, id, &mut events);
        events
    }

    fn remove_from_group(
        &mut self,
        claim: &PlaceClaim,
        id: PlaceId,
        events: &mut Vec<SessionEvent>,
    ) {
        let Some(PlaceMember { group: name, key }) = claim.member(id) else {
            return;
        };
        let Some(group) = self.groups.get_mut(&name) else {
            return;
        };
        let RemovedPlace {
            admitted,
            behind,
            refused,
        } = group.remove(key, id);
        if group.is_empty() {
            self.groups.remove(&name);
        }
        for (place, full) in refused {
            self.contested_groups.insert(name.clone());
            events.push(SessionEvent::Full { place, full });
        }
        if let Some(holder) = admitted {
            events.push(SessionEvent::Admitted(holder));
            let behind = behind.into_iter();
            events.extend(behind.map(|place| SessionEvent::Behind { place, holder }));
        }
    }

    fn remove_node(
        &mut self,
        node: NodeIncarnation,
        found_by: Option<NodeIncarnation>,
    ) -> Vec<SessionEvent> {
        let was_known = self.gone.insert(node);
        let Some(entry) = self.nodes.remove(&node) else {
            // The node itself may read that before any of its leases, which compaction may have
            // dropped since.
            let is_news = found_by.is_some() && !was_known;
            return match is_news {
                true => vec![SessionEvent::NodeGone {
                    node,
                    found_by,
                    places: Vec::new(),
                }],
                false => Vec::new(),
            };
        };
        let mut places: Vec<_> = entry.places.keys().copied().collect();
        places.sort_unstable();
        let mut events = vec![SessionEvent::NodeGone {
            node,
            found_by,
            places: places.clone(),
        }];
        for number in places {
            let id = PlaceId { node, number };
            self.remove_from_group(&entry.places[&number], id, &mut events);
        }
        events
    }
}

/// The nodes that have left or were found dead, the last ones.
#[derive(Debug, Default)]
struct GoneNodes {
    known: HashSet<NodeIncarnation>,
    order: VecDeque<NodeIncarnation>,
}

impl GoneNodes {
    fn contains(&self, node: NodeIncarnation) -> bool {
        self.known.contains(&node)
    }

    /// Whether it was known before.
    fn insert(&mut self, node: NodeIncarnation) -> bool {
        if !self.known.insert(node) {
            return true;
        }
        self.order.push_back(node);
        if self.order.len() > GONE_NODES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        false
    }
}

#[cfg(test)]
mod tests;
