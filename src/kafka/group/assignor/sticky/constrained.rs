//! The quick algorithm, for members with equal subscriptions (Java's
//! `ConstrainedAssignmentBuilder`).
//!
//! With `total` partitions, each member gets `total / members` (the minimum quota) or one more.
//! First every member keeps what it owns up to its quota, then the unassigned partitions are
//! assigned round-robin.
//!
//! With the rack strategy, a member keeps only what its rack does not mismatch, and there are two
//! round-robins: in the first, each partition goes to a member with a matching rack, partitions
//! with the fewest such members first.

use std::collections::{HashMap, HashSet, VecDeque};

use super::super::rack_info::RackInfo;
use super::{MemberIndex, OwnedPartitions, PartitionIndex, PartitionNumber};

/// What each member gets, and which of it another member has to revoke first.
pub(super) fn assign(
    index: &PartitionIndex,
    owned: &OwnedPartitions,
    racks: Option<&RackInfo>,
) -> (
    Vec<Vec<PartitionNumber>>,
    HashMap<PartitionNumber, MemberIndex>,
) {
    let members = owned.by_member.len();
    let mut builder = ConstrainedAssignmentBuilder {
        owned,
        min_quota: index.total / members,
        max_quota: index.total.div_ceil(members),
        expected_over_min_quota: index.total % members,
        current_over_min_quota: 0,
        assignment: vec![Vec::new(); members],
        maybe_revoked: HashMap::new(),
        under_min_quota: Vec::new(),
        at_min_quota: VecDeque::new(),
        transferring: HashMap::new(),
    };
    builder.assign_owned(index, racks);
    let kept: HashSet<PartitionNumber> = builder.assignment.iter().flatten().copied().collect();
    let mut unassigned: Vec<PartitionNumber> =
        (0..index.total).filter(|id| !kept.contains(id)).collect();
    if let Some(racks) = racks {
        unassigned.sort_by_key(|&id| racks.matching_members(id));
        builder.assign_rack_matching(&mut unassigned, racks);
    }
    builder.assign_round_robin(unassigned);
    (builder.assignment, builder.transferring)
}

struct ConstrainedAssignmentBuilder<'a> {
    owned: &'a OwnedPartitions,
    /// How many partitions most members get, and those that get one more.
    min_quota: usize,
    max_quota: usize,
    /// How many members should get more than the minimum, and how many do.
    expected_over_min_quota: usize,
    current_over_min_quota: usize,
    assignment: Vec<Vec<PartitionNumber>>,
    /// Owned beyond the quota or mismatched by the owner's rack, with the owner.
    maybe_revoked: HashMap<PartitionNumber, MemberIndex>,
    /// Unfilled members with less than the minimum.
    under_min_quota: Vec<MemberIndex>,
    /// Unfilled members with exactly the minimum, which may still get one more.
    at_min_quota: VecDeque<MemberIndex>,
    /// Partitions whose ownership is transferred, with the new owner.
    transferring: HashMap<PartitionNumber, MemberIndex>,
}

impl ConstrainedAssignmentBuilder<'_> {
    fn assign_owned(&mut self, index: &PartitionIndex, racks: Option<&RackInfo>) {
        for &member in &self.owned.map_order {
            let mismatched =
                |id: &PartitionNumber| racks.is_some_and(|racks| racks.racks_mismatch(member, *id));
            let (mismatched, mut owned): (Vec<PartitionNumber>, Vec<PartitionNumber>) =
                self.owned.by_member[member]
                    .iter()
                    .partition(|id| mismatched(id));
            self.maybe_revoked
                .extend(mismatched.into_iter().map(|id| (id, member)));
            owned.sort_by_key(|&id| (index.partition_of(id), id));
            owned.retain(|id| !self.owned.with_multiple_owners.contains(id));
            let keep = if owned.len() < self.min_quota {
                self.under_min_quota.push(member);
                owned.len()
            } else if owned.len() >= self.max_quota
                && self.current_over_min_quota < self.expected_over_min_quota
            {
                self.current_over_min_quota += 1;
                if self.current_over_min_quota == self.expected_over_min_quota {
                    self.at_min_quota.clear();
                }
                self.max_quota
            } else {
                if self.current_over_min_quota < self.expected_over_min_quota {
                    self.at_min_quota.push_back(member);
                }
                self.min_quota
            };
            let beyond_quota = owned.split_off(keep);
            self.maybe_revoked
                .extend(beyond_quota.into_iter().map(|id| (id, member)));
            self.assignment[member] = owned;
        }
        let rank = &self.owned.rank;
        self.under_min_quota.sort_by_key(|&member| rank[member]);
        self.at_min_quota
            .make_contiguous()
            .sort_by_key(|&member| rank[member]);
    }

    /// Assigns what it can to members with a matching rack: the next one under the minimum quota,
    /// or else the first at the minimum that may get one more.
    fn assign_rack_matching(&mut self, unassigned: &mut Vec<PartitionNumber>, racks: &RackInfo) {
        let mut next = 0;
        unassigned.retain(|&id| {
            let Some(member) = self.next_rack_matching_member(&mut next, id, racks) else {
                return true;
            };
            self.assign_partition(id, member);
            false
        });
    }

    fn next_rack_matching_member(
        &mut self,
        next: &mut usize,
        id: PartitionNumber,
        racks: &RackInfo,
    ) -> Option<MemberIndex> {
        let matches = |member: &MemberIndex| racks.racks_match(*member, id);
        let (before, after) = self.under_min_quota.split_at(*next);
        let place = after.iter().chain(before).position(matches);
        if let Some(place) = place.map(|ahead| (*next + ahead) % self.under_min_quota.len()) {
            let member = self.under_min_quota[place];
            *next = place + 1;
            if self.assignment[member].len() + 1 >= self.min_quota {
                *next = place;
                self.under_min_quota.remove(place);
                if self.max_quota > self.min_quota
                    && self.current_over_min_quota < self.expected_over_min_quota
                {
                    self.at_min_quota.push_back(member);
                }
            }
            *next %= self.under_min_quota.len().max(1);
            return Some(member);
        }
        let place = self.at_min_quota.iter().position(matches)?;
        let member = self.at_min_quota.remove(place);
        self.current_over_min_quota += 1;
        if self.current_over_min_quota == self.expected_over_min_quota {
            self.at_min_quota.clear();
        }
        member
    }

    /// One to each member under the minimum quota, again and again; then one to each at it.
    fn assign_round_robin(&mut self, unassigned: Vec<PartitionNumber>) {
        let mut next = 0;
        for id in unassigned {
            let member = if self.under_min_quota.is_empty() {
                let member = self.at_min_quota.pop_front();
                member.expect("the quotas add up to all partitions")
            } else {
                next %= self.under_min_quota.len();
                self.under_min_quota[next]
            };
            self.assign_partition(id, member);
            let assigned = self.assignment[member].len();
            if self.under_min_quota.get(next) == Some(&member) {
                if assigned == self.min_quota {
                    self.under_min_quota.remove(next);
                    self.at_min_quota.push_back(member);
                } else {
                    next += 1;
                }
            }
            if assigned == self.max_quota && assigned != self.min_quota {
                self.current_over_min_quota += 1;
            }
        }
    }

    fn assign_partition(&mut self, id: PartitionNumber, member: MemberIndex) {
        self.assignment[member].push(id);
        let owner = self.maybe_revoked.get(&id);
        let revoked_from_another = owner.is_some_and(|owner| *owner != member);
        if revoked_from_another || self.owned.with_multiple_owners.contains(&id) {
            self.transferring.insert(id, member);
        }
    }
}
