//! Who is near what: members and replicas in the same rack (KIP-881).
//!
//! ```text
//! member    m1: a    m2: b    m3: ?
//! partition  0: {a, b}    1: {b}    2: {}        m1 reads 0 from its own rack, 1 from afar
//! ```
//!
//! Java's assignors look at racks under one condition: some member's rack holds replicas,
//! and not every partition is in every rack that holds any.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// The racks that hold one partition's replicas, as far as they are known.
pub(crate) type RackSet = BTreeSet<Arc<str>>;

/// A rack, by the order in which they were met.
type Rack = usize;

/// The racks of some members and some partitions, both by their place.
pub(super) struct Racks {
    members: Vec<Option<Rack>>,
    partitions: Vec<Vec<Rack>>,
    /// How many of the members are in each rack.
    crowd: Vec<usize>,
    matter: bool,
}

impl Racks {
    pub(super) fn new<'a>(
        members: impl Iterator<Item = Option<&'a str>>,
        partitions: impl Iterator<Item = &'a RackSet>,
    ) -> Self {
        let mut known: HashMap<&str, Rack> = HashMap::new();
        let mut number = |name: &'a str| {
            let next = known.len();
            *known.entry(name).or_insert(next)
        };
        let members: Vec<_> = members.map(|rack| rack.map(&mut number)).collect();
        let partitions: Vec<Vec<Rack>> = partitions
            .map(|racks| racks.iter().map(|rack| number(rack)).collect())
            .collect();
        let mut crowd = vec![0; known.len()];
        members.iter().flatten().for_each(|&rack| crowd[rack] += 1);
        let holding: BTreeSet<Rack> = partitions.iter().flatten().copied().collect();
        let matter = holding.iter().any(|&rack| crowd[rack] > 0)
            && partitions.iter().any(|racks| racks.len() < holding.len());
        Self {
            members,
            partitions,
            crowd,
            matter,
        }
    }

    /// Whether to look at racks at all.
    pub(super) fn matter(&self) -> bool {
        self.matter
    }

    /// Whether any member says where it is.
    pub(super) fn are_told(&self) -> bool {
        self.members.iter().any(Option::is_some)
    }

    /// Whether the member's rack is known and holds a replica.
    pub(super) fn near(&self, member: usize, partition: usize) -> bool {
        self.members[member].is_some_and(|rack| self.partitions[partition].contains(&rack))
    }

    /// Whether the member's rack is known and holds none.
    pub(super) fn far(&self, member: usize, partition: usize) -> bool {
        self.members[member].is_some() && !self.near(member, partition)
    }

    /// How many members are near the partition.
    pub(super) fn members_near(&self, partition: usize) -> usize {
        self.partitions[partition]
            .iter()
            .map(|&rack| self.crowd[rack])
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn racks(members: &[&str], partitions: &[&str]) -> Racks {
        let sets: Vec<RackSet> = partitions
            .iter()
            .map(|p| p.split_terminator(',').map(Arc::from).collect())
            .collect();
        let members = members
            .iter()
            .map(|rack| Some(*rack).filter(|r| !r.is_empty()));
        Racks::new(members, sets.iter())
    }

    #[test]
    fn racks_matter_when_a_member_is_near_some_partitions_only() {
        assert!(racks(&["a"], &["a,b", "b"]).matter());
        assert!(racks(&["a", ""], &["a", ""]).matter());
        assert!(racks(&["a", "c"], &["a,b", "b"]).matter());
    }

    #[test]
    fn racks_do_not_matter_when_no_choice_is_better() {
        assert!(
            !racks(&["", ""], &["a,b", "b"]).matter(),
            "no member's is known"
        );
        assert!(!racks(&["a"], &["", ""]).matter(), "no replica's is known");
        assert!(!racks(&["c"], &["a,b", "b"]).matter(), "they do not meet");
        assert!(
            !racks(&["a", "b"], &["a,b", "b,a"]).matter(),
            "all is everywhere"
        );
        assert!(!racks(&["a", "b"], &[]).matter());
    }

    #[test]
    fn a_member_without_a_rack_is_neither_near_nor_far() {
        let racks = racks(&["a", "", "c", "a"], &["a,b", "b", ""]);
        let near = |member| [0, 1, 2].map(|p| racks.near(member, p));
        let far = |member| [0, 1, 2].map(|p| racks.far(member, p));
        assert_eq!(
            (near(0), far(0)),
            ([true, false, false], [false, true, true])
        );
        assert_eq!((near(1), far(1)), ([false; 3], [false; 3]));
        assert_eq!((near(2), far(2)), ([false; 3], [true; 3]));
        assert_eq!([0, 1, 2].map(|p| racks.members_near(p)), [2, 0, 0]);
    }
}
