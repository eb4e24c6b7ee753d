//! The places of a node's sockets, by number and by client.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use tokio::time::Instant;

use crate::session::place_claim::{MemberKey, PlaceClaim, PlaceGroup, PlaceMember};

/// A place of a socket of this node.
#[derive(Debug)]
pub(super) struct OwnPlace {
    pub(super) claim: Arc<PlaceClaim>,
    /// Until when the caller waits for the decision; `None`: it was granted.
    pub(super) decide_by: Option<Instant>,
    /// Whether the claim is behind another place of its client.
    pub(super) waiting: bool,
    /// Whether it was granted to this incarnation.
    #[cfg(test)]
    pub(super) granted: bool,
    /// Until when the client may answer a ping.
    pub(super) probed_until: Option<Instant>,
    /// When it was last written, or since when it is to be.
    pub(super) written_at: Instant,
}

impl OwnPlace {
    /// From now on its claim says that it is late, if that counts.
    pub(super) fn set_late(&mut self) {
        if self.claim.is_fencing() && !self.claim.is_late {
            Arc::make_mut(&mut self.claim).is_late = true;
        }
    }
}

/// The places of a node's sockets.
#[derive(Debug, Default)]
pub(super) struct OwnPlaces {
    pub(super) by_number: HashMap<u64, OwnPlace>,
    /// Those of members that there may be one of only.
    sole: HashMap<PlaceGroup, HashMap<MemberKey, u64>>,
    /// Those that something is due for.
    pub(super) unsettled: HashSet<u64>,
    /// Those that nobody waits for and that are not written yet, in the order they came in.
    pub(super) unwritten: BTreeSet<u64>,
    /// Those that are admitted, but not safe yet.
    pub(super) uncertain: HashSet<u64>,
    /// Places that are released, and stand in the state until that is read.
    pub(super) releasing: HashMap<u64, PlaceGroup>,
    /// How many there ever were.
    claimed: u64,
}

impl OwnPlaces {
    pub(super) fn has_unsettled(&self) -> bool {
        !self.unsettled.is_empty()
    }

    pub(super) fn set_waiting(&mut self, number: u64) {
        if let Some(place) = self.by_number.get_mut(&number) {
            place.waiting = true;
        }
    }

    pub(super) fn released(&mut self, number: u64) {
        self.releasing.remove(&number);
    }

    pub(super) fn forget_releases(&mut self) {
        self.releasing.clear();
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        self.by_number.contains_key(&number)
    }

    /// Who has, or claims, the place of a member that there may be one of only.
    pub(super) fn holder(&self, PlaceMember { group, key }: &PlaceMember) -> Option<u64> {
        self.sole.get(group)?.get(key).copied()
    }

    /// How many of the group's places are released and still in the state.
    pub(super) fn releasing_in(&self, group: &PlaceGroup) -> usize {
        self.releasing
            .values()
            .filter(|name| *name == group)
            .count()
    }

    /// One more, which is waited for or is to be written when there is time.
    pub(super) fn insert(&mut self, place: OwnPlace) -> u64 {
        self.claimed += 1;
        let number = self.claimed;
        if let Some(PlaceMember { group, key }) = place.claim.sole_member() {
            self.sole.entry(group).or_default().insert(key, number);
        }
        match place.decide_by {
            Some(_) => self.unsettled.insert(number),
            None => self.unwritten.insert(number),
        };
        self.by_number.insert(number, place);
        number
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<OwnPlace> {
        let place = self.by_number.remove(&number)?;
        self.unsettled.remove(&number);
        self.uncertain.remove(&number);
        if let Some(PlaceMember { group, key }) = place.claim.sole_member()
            && let Some(members) = self.sole.get_mut(&group)
            && members.get(&key) == Some(&number)
        {
            members.remove(&key);
            if members.is_empty() {
                self.sole.remove(&group);
            }
        }
        Some(place)
    }

    pub(super) fn numbers(&self) -> Vec<u64> {
        let mut numbers: Vec<_> = self.by_number.keys().copied().collect();
        numbers.sort_unstable();
        numbers
    }
}
