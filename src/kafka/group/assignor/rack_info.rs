//! Which members are in a rack of which partition's replicas (KIP-881).
//!
//! ```text
//! member    m1: a    m2: b    m3: ?
//! partition  0: {a, b}    1: {b}    2: {}        m1 matches 0, and mismatches 1 and 2
//! ```
//!
//! Java's assignors are rack-aware under one condition: some member's rack holds replicas,
//! and not every partition is in every rack that holds any.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// The racks that hold one partition's replicas, as far as they are known.
pub(crate) type RackSet = BTreeSet<Arc<str>>;

/// A rack, numbered in the order in which they appear.
type RackNumber = usize;

/// The racks of some members and some partitions, both by their index.
pub(super) struct RackInfo {
    members: Vec<Option<RackNumber>>,
    partitions: Vec<Vec<RackNumber>>,
    /// How many of the members are in each rack.
    members_in_rack: Vec<usize>,
    use_rack_strategy: bool,
}

impl RackInfo {
    pub(super) fn new<'a>(
        members: impl Iterator<Item = Option<&'a str>>,
        partitions: impl Iterator<Item = &'a RackSet>,
    ) -> Self {
        let mut known: HashMap<&str, RackNumber> = HashMap::new();
        let mut number = |name: &'a str| {
            let next = known.len();
            *known.entry(name).or_insert(next)
        };
        let members: Vec<_> = members.map(|rack| rack.map(&mut number)).collect();
        let partitions: Vec<Vec<RackNumber>> = partitions
            .map(|racks| racks.iter().map(|rack| number(rack)).collect())
            .collect();
        let mut members_in_rack = vec![0; known.len()];
        for &rack in members.iter().flatten() {
            members_in_rack[rack] += 1;
        }
        let holding: BTreeSet<RackNumber> = partitions.iter().flatten().copied().collect();
        let use_rack_strategy = holding.iter().any(|&rack| members_in_rack[rack] > 0)
            && partitions.iter().any(|racks| racks.len() < holding.len());
        Self {
            members,
            partitions,
            members_in_rack,
            use_rack_strategy,
        }
    }

    /// Whether the assignment takes racks into account at all.
    pub(super) fn use_rack_strategy(&self) -> bool {
        self.use_rack_strategy
    }

    /// Whether any member's subscription names its rack.
    pub(super) fn any_member_has_rack(&self) -> bool {
        self.members.iter().any(Option::is_some)
    }

    /// Whether the member's rack is known and holds a replica.
    pub(super) fn racks_match(&self, member: usize, partition: usize) -> bool {
        self.members[member].is_some_and(|rack| self.partitions[partition].contains(&rack))
    }

    /// Whether the member's rack is known and holds no replica.
    pub(super) fn racks_mismatch(&self, member: usize, partition: usize) -> bool {
        self.members[member].is_some() && !self.racks_match(member, partition)
    }

    /// How many members are in a rack of the partition's replicas.
    pub(super) fn matching_members(&self, partition: usize) -> usize {
        self.partitions[partition]
            .iter()
            .map(|&rack| self.members_in_rack[rack])
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn racks(members: &[&str], partitions: &[&str]) -> RackInfo {
        let sets: Vec<RackSet> = partitions
            .iter()
            .map(|p| p.split_terminator(',').map(Arc::from).collect())
            .collect();
        let members = members
            .iter()
            .map(|rack| Some(*rack).filter(|r| !r.is_empty()));
        RackInfo::new(members, sets.iter())
    }

    #[test]
    fn racks_are_used_when_a_member_matches_some_partitions_only() {
        assert!(racks(&["a"], &["a,b", "b"]).use_rack_strategy());
        assert!(racks(&["a", ""], &["a", ""]).use_rack_strategy());
        assert!(racks(&["a", "c"], &["a,b", "b"]).use_rack_strategy());
    }

    #[test]
    fn racks_are_not_used_when_no_choice_is_better() {
        assert!(
            !racks(&["", ""], &["a,b", "b"]).use_rack_strategy(),
            "no member's is known"
        );
        assert!(
            !racks(&["a"], &["", ""]).use_rack_strategy(),
            "no replica's is known"
        );
        assert!(
            !racks(&["c"], &["a,b", "b"]).use_rack_strategy(),
            "they do not meet"
        );
        assert!(
            !racks(&["a", "b"], &["a,b", "b,a"]).use_rack_strategy(),
            "all is everywhere"
        );
        assert!(!racks(&["a", "b"], &[]).use_rack_strategy());
    }

    #[test]
    fn a_member_without_a_rack_neither_matches_nor_mismatches() {
        let racks = racks(&["a", "", "c", "a"], &["a,b", "b", ""]);
        let matches = |member| [0, 1, 2].map(|p| racks.racks_match(member, p));
        let mismatches = |member| [0, 1, 2].map(|p| racks.racks_mismatch(member, p));
        assert_eq!(
            (matches(0), mismatches(0)),
            ([true, false, false], [false, true, true])
        );
        assert_eq!((matches(1), mismatches(1)), ([false; 3], [false; 3]));
        assert_eq!((matches(2), mismatches(2)), ([false; 3], [true; 3]));
        assert_eq!([0, 1, 2].map(|p| racks.matching_members(p)), [2, 0, 0]);
    }
}
