//! The places of one consumer group: as many as its topics have partitions together.
//!
//! ```text
//! client a: place ◀─ claim ◀─ claim     the first one has the place, the others wait for it
//! client b: place
//! contested: claims that did not fit
//! ```

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::time::Instant;

use crate::session::record::PlaceId;

/// The sockets of a consumer group, over all nodes.
#[derive(Debug, Default)]
pub(in crate::session) struct GroupPlaces {
    /// By client (`PlaceClaim::client`); the first place of each is admitted.
    clients: HashMap<Arc<str>, VecDeque<QueuedPlace>>,
    /// The topics of all places that are admitted.
    topics: HashMap<Arc<str>, GroupTopic>,
    /// The partitions of these topics together.
    partitions: usize,
    /// Claims that did not fit, with their clients.
    contested: Vec<(Arc<str>, QueuedPlace)>,
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
    /// With their partition counts.
    topics: Arc<[(Arc<str>, usize)]>,
    /// When it was read.
    since: Instant,
}

impl QueuedPlace {
    pub(super) fn new(id: PlaceId, topics: Arc<[(Arc<str>, usize)]>, now: Instant) -> Self {
        Self {
            id,
            topics,
            since: now,
        }
    }
}

/// What becomes of a claim.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PlaceOutcome {
    Admitted,
    /// That place of the same client came before.
    Behind(PlaceId),
    /// It is contested.
    Full {
        sockets: usize,
        partitions: usize,
    },
}

/// What follows from the removal of a place.
#[derive(Debug, Default)]
pub(super) struct RemovedPlace {
    /// The claim that has the place now.
    pub(super) admitted: Option<PlaceId>,
    /// The claims behind that.
    pub(super) behind: Vec<PlaceId>,
    /// Claims that waited for it and are contested now, with the sockets and partitions of the group.
    pub(super) refused: Vec<(PlaceId, usize, usize)>,
}

impl GroupPlaces {
    /// How many sockets it has.
    pub(in crate::session) fn sockets(&self) -> usize {
        self.clients.len()
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

    /// Who has the place of that client.
    pub(in crate::session) fn holder(&self, client: &str) -> Option<PlaceId> {
        Some(self.clients.get(client)?.front()?.id)
    }

    /// The claims that wait for the place of that client.
    pub(in crate::session) fn behind(&self, client: &str) -> impl Iterator<Item = PlaceId> {
        let queue = self.clients.get(client);
        let behind = queue.into_iter().flat_map(|queue| queue.iter().skip(1));
        behind.map(|place| place.id)
    }

    /// Whether all places and the contested claims fit together: then whoever has a place has it
    /// whatever other readers of the log think.
    pub(in crate::session) fn is_safe(&self) -> bool {
        let mut more: Vec<_> = self.contested.iter().map(|(client, _)| client).collect();
        more.sort_unstable();
        more.dedup();
        more.retain(|client| !self.clients.contains_key(*client));
        self.sockets() + more.len() <= self.partitions
    }

    pub(super) fn is_empty(&self) -> bool {
        self.clients.is_empty() && self.contested.is_empty()
    }

    /// Takes contested claims that are as old for places; whether there are others.
    pub(super) fn adopt_contested(&mut self, since_before: Instant) -> bool {
        let contested = std::mem::take(&mut self.contested);
        for (client, place) in contested {
            if place.since >= since_before {
                self.contested.push((client, place));
                continue;
            }
            if !self.clients.contains_key(&client) {
                self.add_topics(&Arc::clone(&place.topics));
            }
            self.clients.entry(client).or_default().push_back(place);
        }
        !self.contested.is_empty()
    }

    /// The next claim of the log.
    pub(super) fn push(&mut self, client: &Arc<str>, place: QueuedPlace) -> PlaceOutcome {
        if let Some(queue) = self.clients.get_mut(client) {
            let holder = queue.front().map(|holder| holder.id);
            queue.push_back(place);
            return PlaceOutcome::Behind(holder.expect("a queue is not empty"));
        }
        let (sockets, partitions) = (self.sockets(), self.partitions_with(&place.topics));
        if sockets >= partitions {
            self.contested.push((Arc::clone(client), place));
            return PlaceOutcome::Full {
                sockets,
                partitions,
            };
        }
        self.add_topics(&place.topics);
        self.clients
            .insert(Arc::clone(client), VecDeque::from([place]));
        PlaceOutcome::Admitted
    }

    /// Removes a place or a claim. The first claim that waited for the place gets it.
    pub(super) fn remove(&mut self, client: &Arc<str>, id: PlaceId) -> RemovedPlace {
        let mut removed = RemovedPlace::default();
        let contested = self.contested.len();
        self.contested.retain(|(_, place)| place.id != id);
        if self.contested.len() < contested {
            return removed;
        }
        let Some(mut queue) = self.clients.remove(client) else {
            return removed;
        };
        let is_first = queue.front().is_some_and(|first| first.id == id);
        if !is_first {
            queue.retain(|place| place.id != id);
            self.clients.insert(Arc::clone(client), queue);
            return removed;
        }
        if let Some(first) = queue.pop_front() {
            self.remove_topics(&first.topics);
        }
        while let Some(next) = queue.front() {
            let (sockets, partitions) = (self.sockets(), self.partitions_with(&next.topics));
            if sockets < partitions {
                removed.admitted = Some(next.id);
                removed.behind = queue.iter().skip(1).map(|place| place.id).collect();
                let topics = Arc::clone(&next.topics);
                self.add_topics(&topics);
                self.clients.insert(Arc::clone(client), queue);
                return removed;
            }
            removed.refused.push((next.id, sockets, partitions));
            if let Some(next) = queue.pop_front() {
                self.contested.push((Arc::clone(client), next));
            }
        }
        removed
    }

    fn add_topics(&mut self, topics: &[(Arc<str>, usize)]) {
        self.partitions = self.partitions_with(topics);
        for (topic, partitions) in topics {
            let known = self.topics.entry(Arc::clone(topic)).or_insert(GroupTopic {
                partitions: 0,
                sockets: 0,
            });
            known.partitions = known.partitions.max(*partitions);
            known.sockets += 1;
        }
    }

    fn remove_topics(&mut self, topics: &[(Arc<str>, usize)]) {
        for (topic, _) in topics {
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
    use crate::session::record::NodeIncarnation;

    fn id(number: u64) -> PlaceId {
        PlaceId {
            node: NodeIncarnation(1),
            number,
        }
    }

    /// Counted anew, a socket of a group of many topics would cost what all of them do.
    #[test]
    fn the_partitions_of_a_group_are_kept_and_not_counted_for_each_socket() {
        let mut group = GroupPlaces::default();
        let push = |group: &mut GroupPlaces, number, client: &str, topic: &str| {
            let topics = [(Arc::from(topic), 1)];
            let place = QueuedPlace::new(id(number), topics.into(), Instant::now());
            let outcome = group.push(&client.into(), place);
            assert_eq!(outcome, PlaceOutcome::Admitted);
        };
        push(&mut group, 1, "a", "t");
        group.partitions = 7;
        push(&mut group, 2, "b", "u");
        assert_eq!(group.partitions, 8);
        group.remove(&"b".into(), id(2));
        assert_eq!(group.partitions, 7);
    }

    /// Counted twice, its partitions would be places for more sockets than they can serve.
    #[test]
    fn a_socket_that_knows_fewer_partitions_of_a_topic_changes_nothing_of_the_groups_count() {
        let mut group = GroupPlaces::default();
        let mut push = |number, client: &str, partitions| {
            let topics = [(Arc::from("t"), partitions)];
            let place = QueuedPlace::new(id(number), topics.into(), Instant::now());
            group.push(&client.into(), place)
        };
        assert_eq!(push(1, "a", 2), PlaceOutcome::Admitted);
        assert_eq!(push(2, "b", 1), PlaceOutcome::Admitted);
        let full = PlaceOutcome::Full {
            sockets: 2,
            partitions: 2,
        };
        assert_eq!(push(3, "c", 2), full);
    }
}
