//! The assignments of partitions to one member, told apart by number.
//!
//! A partition can be revoked or lost and assigned again while something about its last
//! assignment is still on its way: a committed offset that was asked for, a reset, an offset to
//! commit. The name of the partition does not tell which assignment it is about; the number does.

use crate::TopicPartition;

/// One assignment of a partition to this member.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PartitionAssignment {
    pub(crate) tp: TopicPartition,
    /// Counts the member's assignments: a partition that is assigned again has another number.
    pub(crate) number: u64,
}

/// Assignments in order, of each partition one at a time. Costs next to nothing when it is
/// small, as [`PartitionSet`](super::partition_set::PartitionSet).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AssignmentSet {
    assignments: Vec<PartitionAssignment>,
    removals: u64,
}

impl AssignmentSet {
    /// Whether it is this very assignment.
    pub(crate) fn contains(&self, assignment: &PartitionAssignment) -> bool {
        self.get(&assignment.tp) == Some(assignment)
    }

    /// The assignment of that partition.
    pub(crate) fn get(&self, tp: &TopicPartition) -> Option<&PartitionAssignment> {
        let at = self.position(tp).ok()?;
        self.assignments.get(at)
    }

    /// Changes whenever an assignment is taken out or replaced.
    pub(crate) fn removals(&self) -> u64 {
        self.removals
    }

    /// Replaces the assignment of the same partition.
    pub(crate) fn insert(&mut self, assignment: PartitionAssignment) {
        match self.position(&assignment.tp) {
            Ok(at) => {
                self.assignments[at] = assignment;
                self.removals += 1;
            }
            Err(at) => {
                self.assignments.reserve_exact(1);
                self.assignments.insert(at, assignment);
            }
        }
    }

    /// Takes this very assignment out; false if it was not there.
    pub(crate) fn remove(&mut self, assignment: &PartitionAssignment) -> bool {
        let found = self.contains(assignment);
        if found {
            self.assignments.retain(|other| other != assignment);
            self.removals += 1;
            if self.assignments.is_empty() {
                self.clear();
            }
        }
        found
    }

    pub(crate) fn retain(&mut self, keep: impl FnMut(&PartitionAssignment) -> bool) {
        let before = self.assignments.len();
        self.assignments.retain(keep);
        self.removals += (before - self.assignments.len()) as u64;
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &PartitionAssignment> {
        self.assignments.iter()
    }

    pub(crate) fn to_vec(&self) -> Vec<PartitionAssignment> {
        self.assignments.clone()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.assignments.is_empty()
    }

    /// Gives its memory back as well.
    pub(crate) fn clear(&mut self) {
        self.removals += self.assignments.len() as u64;
        self.assignments = Vec::new();
    }

    fn position(&self, tp: &TopicPartition) -> Result<usize, usize> {
        self.assignments
            .binary_search_by(|assignment| assignment.tp.cmp(tp))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assignment(partition: i32, number: u64) -> PartitionAssignment {
        let tp = TopicPartition::new("t", partition);
        PartitionAssignment { tp, number }
    }

    #[test]
    fn it_tells_the_assignments_of_one_partition_apart() {
        let mut set = AssignmentSet::default();
        for partition in [2, 0, 1] {
            set.insert(assignment(partition, 7));
        }
        assert!(set.contains(&assignment(1, 7)) && !set.contains(&assignment(1, 6)));
        assert!(!set.remove(&assignment(1, 6)));
        set.insert(assignment(1, 8));
        assert_eq!(
            set.to_vec(),
            [assignment(0, 7), assignment(1, 8), assignment(2, 7)]
        );
        assert!(!set.remove(&assignment(1, 7)));
        assert!(set.remove(&assignment(1, 8)));
        assert_eq!(set.get(&TopicPartition::new("t", 1)), None);
    }

    #[test]
    fn every_end_of_an_assignment_is_counted() {
        let mut set = AssignmentSet::default();
        for partition in 0..5 {
            set.insert(assignment(partition, 1));
        }
        assert!(!set.remove(&assignment(0, 2)));
        set.retain(|_| true);
        assert_eq!(set.removals(), 0);
        assert!(set.remove(&assignment(0, 1)));
        assert_eq!(set.removals(), 1);
        set.insert(assignment(1, 2));
        assert_eq!(set.removals(), 2, "replaced");
        set.retain(|assignment| assignment.number == 1);
        assert_eq!(set.removals(), 3);
        set.clear();
        set.clear();
        assert_eq!(set.removals(), 6);
    }
}
