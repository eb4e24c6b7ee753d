//! The places of one group: of a consumer group, as many as its topics have partitions together; of
//! a producing client, as many as each of its sockets says that there may be.
//!
//! ```text
//! member a: place ◀─ claim ◀─ claim     the first one has the place, the others wait for it
//! member b: place
//! contested: claims that did not fit
//! ```
//!
//! A claim that fences takes the place of its member at once. Written late, it does so only if its
//! socket is the younger one: it may have been fenced before anybody read of it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::time::Instant;

use crate::session::place_claim::{MemberKey, PlaceClaim, SocketRole};
use crate::session::place_id::PlaceId;

/// The sockets of a group, over all nodes.
#[derive(Debug, Default)]
pub(in crate::session) struct GroupPlaces {
    /// The first place of each is admitted.
    members: HashMap<MemberKey, VecDeque<QueuedPlace>>,
    /// Of a consumer group, the topics of all places that are admitted.
    topics: HashMap<Arc<str>, GroupTopic>,
    /// The partitions of these topics together.
    partitions: usize,
    /// Claims that did not fit.
    contested: Vec<(MemberKey, QueuedPlace)>,
}

/// A topic that sockets of a group read.
#[derive(Debug)]
struct GroupTopic {
    /// As far as any socket knew when it came.
    partitions: usize,
    sockets: usize,
}

/// A place, or a claim that waits for one.
#[derive(Debug)]
pub(super) struct QueuedPlace {
    id: PlaceId,
    claim: Arc<PlaceClaim>,
    /// When it was read.
    since: Instant,
}

impl QueuedPlace {
    pub(super) fn new(id: PlaceId, claim: Arc<PlaceClaim>, now: Instant) -> Self {
        let since = now;
        Self { id, claim, since }
    }
}

/// How many sockets a group has, and what does not allow one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::session) struct FullGroup {
    pub(in crate::session) sockets: usize,
    pub(in crate::session) limit: PlaceLimit,
}

/// What limits the sockets of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::session) enum PlaceLimit {
    /// The partitions of a consumer group's topics.
    Partitions(usize),
    /// `max-connections`
    Connections(usize),
}

/// What becomes of a claim.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PlaceOutcome {
    Admitted,
    /// That place of the same member came before.
    Behind(PlaceId),
    /// It has the place that `fenced` had; `behind` wait for it.
    Fences {
        fenced: PlaceId,
        behind: Vec<PlaceId>,
    },
    /// A younger socket has the place.
    Fenced,
    /// It is contested.
    Full(FullGroup),
}

/// What follows from the removal of a place.
#[derive(Debug, Default)]
pub(super) struct RemovedPlace {
    /// The claim that has the place now.
    pub(super) admitted: Option<PlaceId>,
    /// The claims behind that.
    pub(super) behind: Vec<PlaceId>,
    /// Claims that waited for it and are contested now.
    pub(super) refused: Vec<(PlaceId, FullGroup)>,
}

impl PlaceLimit {
    fn places(self) -> usize {
        match self {
            Self::Partitions(places) | Self::Connections(places) => places,
        }
    }
}

impl GroupPlaces {
    /// How many sockets it has.
    pub(in crate::session) fn sockets(&self) -> usize {
        self.members.len()
    }

    /// The partitions of the group's topics and of these, each topic once: in the time that these
    /// take, however many the group has.
    pub(in crate::session) fn partitions_with(&self, topics: &[(Arc<str>, usize)]) -> usize {
        let more = topics.iter().map(|(topic, partitions)| {
            let known = self.topics.get(topic).map_or(0, |known| known.partitions);
            partitions.saturating_sub(known)
        });
        self.partitions + more.sum::<usize>()
    }

    /// Why there is no room for one more; `None`: there is.
    pub(in crate::session) fn full_for(&self, claim: &PlaceClaim) -> Option<FullGroup> {
        let sockets = self.sockets();
        let limits = self.limits_of(claim).into_iter().flatten();
        let mut reached = limits.filter(|limit| sockets >= limit.places());
        reached.next().map(|limit| FullGroup { sockets, limit })
    }

    fn limits_of(&self, claim: &PlaceClaim) -> [Option<PlaceLimit>; 2] {
        let partitions = match claim.role {
            SocketRole::Member { .. } => Some(self.partitions_with(&claim.topics)),
            SocketRole::Producer { .. } => None,
        };
        let max_connections = (claim.max_connections > 0).then_some(claim.max_connections as usize);
        [
            partitions.map(PlaceLimit::Partitions),
            max_connections.map(PlaceLimit::Connections),
        ]
    }

    /// Who has the place of that member.
    pub(in crate::session) fn holder(&self, key: &MemberKey) -> Option<PlaceId> {
        Some(self.members.get(key)?.front()?.id)
    }

    /// The claims that wait for the place of that member.
    pub(in crate::session) fn behind(&self, key: &MemberKey) -> impl Iterator<Item = PlaceId> {
        let queue = self.members.get(key);
        let behind = queue.into_iter().flat_map(|queue| queue.iter().skip(1));
        behind.map(|place| place.id)
    }

    /// Whether all places and the contested claims fit together, as far as that claim says: then,
    /// if it has a place, it has it whatever other readers of the log think.
    pub(in crate::session) fn is_safe(&self, claim: &PlaceClaim) -> bool {
        let mut more: Vec<_> = self.contested.iter().map(|(key, _)| key).collect();
        more.sort_unstable();
        more.dedup();
        more.retain(|key| !self.members.contains_key(*key));
        let places = self.sockets() + more.len();
        let mut limits = self.limits_of(claim).into_iter().flatten();
        limits.all(|limit| places <= limit.places())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.contested.is_empty()
    }

    /// Takes contested claims that are as old for places; whether there are others.
    pub(super) fn adopt_contested(&mut self, since_before: Instant) -> bool {
        let contested = std::mem::take(&mut self.contested);
        for (key, place) in contested {
            if place.since >= since_before {
                self.contested.push((key, place));
                continue;
            }
            if !self.members.contains_key(&key) {
                self.add_topics(&place.claim);
            }
            self.members.entry(key).or_default().push_back(place);
        }
        !self.contested.is_empty()
    }

    /// The next claim of the log.
    pub(super) fn push(&mut self, key: MemberKey, place: QueuedPlace) -> PlaceOutcome {
        if let Some(queue) = self.members.get_mut(&key) {
            let holder = queue.front_mut().expect("a queue is not empty");
            if !place.claim.is_fencing() {
                let holder = holder.id;
                queue.push_back(place);
                return PlaceOutcome::Behind(holder);
            }
            if place.claim.is_late && holder.claim.since >= place.claim.since {
                return PlaceOutcome::Fenced;
            }
            let fenced = std::mem::replace(holder, place).id;
            let behind = queue.iter().skip(1).map(|place| place.id).collect();
            return PlaceOutcome::Fences { fenced, behind };
        }
        if let Some(full) = self.full_for(&place.claim) {
            self.contested.push((key, place));
            return PlaceOutcome::Full(full);
        }
        self.add_topics(&place.claim);
        self.members.insert(key, VecDeque::from([place]));
        PlaceOutcome::Admitted
    }

    /// Removes a place or a claim. The first claim that waited for the place gets it.
    pub(super) fn remove(&mut self, key: MemberKey, id: PlaceId) -> RemovedPlace {
        let mut removed = RemovedPlace::default();
        let contested = self.contested.len();
        self.contested.retain(|(_, place)| place.id != id);
        if self.contested.len() < contested {
            return removed;
        }
        let Some(mut queue) = self.members.remove(&key) else {
            return removed;
        };
        let is_first = queue.front().is_some_and(|first| first.id == id);
        if !is_first {
            queue.retain(|place| place.id != id);
            self.members.insert(key, queue);
            return removed;
        }
        if let Some(first) = queue.pop_front() {
            self.remove_topics(&first.claim);
        }
        while let Some(next) = queue.front() {
            let Some(full) = self.full_for(&next.claim) else {
                removed.admitted = Some(next.id);
                removed.behind = queue.iter().skip(1).map(|place| place.id).collect();
                let claim = Arc::clone(&next.claim);
                self.add_topics(&claim);
                self.members.insert(key, queue);
                return removed;
            };
            removed.refused.push((next.id, full));
            if let Some(next) = queue.pop_front() {
                self.contested.push((key.clone(), next));
            }
        }
        removed
    }

    fn add_topics(&mut self, claim: &PlaceClaim) {
        if !matches!(claim.role, SocketRole::Member { .. }) {
            return;
        }
        self.partitions = self.partitions_with(&claim.topics);
        for (topic, partitions) in &*claim.topics {
            let known = self.topics.entry(Arc::clone(topic)).or_insert(GroupTopic {
                partitions: 0,
                sockets: 0,
            });
            known.partitions = known.partitions.max(*partitions);
            known.sockets += 1;
        }
    }

    fn remove_topics(&mut self, claim: &PlaceClaim) {
        for (topic, _) in &*claim.topics {
            let Some(known) = self.topics.get_mut(topic) else {
                continue;
            };
            known.sockets -= 1;
            if known.sockets == 0 {
                self.partitions -= known.partitions;
                self.topics.remove(topic);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::place_id::NodeIncarnation;

    fn id(number: u64) -> PlaceId {
        PlaceId {
            node: NodeIncarnation(1),
            number,
        }
    }

    fn push(
        group: &mut GroupPlaces,
        number: u64,
        client: &str,
        (topic, partitions): (&str, usize),
    ) -> PlaceOutcome {
        let role = SocketRole::Member {
            group_id: "g".into(),
            client_id: client.into(),
        };
        let claim = PlaceClaim::new(role, None, &[(topic.into(), partitions)], 0);
        let place = QueuedPlace::new(id(number), claim.into(), Instant::now());
        group.push(MemberKey::Client(client.into()), place)
    }

    /// Counted anew, a socket of a group of many topics would cost what all of them do.
    #[test]
    fn the_partitions_of_a_group_are_kept_and_not_counted_for_each_socket() {
        let mut group = GroupPlaces::default();
        let admitted = PlaceOutcome::Admitted;
        assert_eq!(push(&mut group, 1, "a", ("t", 1)), admitted);
        group.partitions = 7;
        assert_eq!(push(&mut group, 2, "b", ("u", 1)), admitted);
        assert_eq!(group.partitions, 8);
        group.remove(MemberKey::Client("b".into()), id(2));
        assert_eq!(group.partitions, 7);
    }

    /// Counted twice, its partitions would be places for more sockets than they can serve.
    #[test]
    fn a_socket_that_knows_fewer_partitions_of_a_topic_changes_nothing_of_the_groups_count() {
        let mut group = GroupPlaces::default();
        let mut push =
            |number, client, partitions| push(&mut group, number, client, ("t", partitions));
        assert_eq!(push(1, "a", 2), PlaceOutcome::Admitted);
        assert_eq!(push(2, "b", 1), PlaceOutcome::Admitted);
        let full = PlaceOutcome::Full(FullGroup {
            sockets: 2,
            limit: PlaceLimit::Partitions(2),
        });
        assert_eq!(push(3, "c", 2), full);
    }
}
