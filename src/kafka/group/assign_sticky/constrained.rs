//! The quick algorithm, for members that all want the same topics.
//!
//! With `total` partitions, each member gets `total / members` or one more. First everyone
//! keeps what it owns up to its share, then what is left goes round.

use std::collections::{HashMap, HashSet, VecDeque};

use super::{Claims, Id, Layout, Who};

/// What each member gets, and which of it another member has to give up first.
pub(super) fn assign(layout: &Layout, claims: &Claims) -> (Vec<Vec<Id>>, HashMap<Id, Who>) {
    let members = claims.owned.len();
    let mut building = Building {
        claims,
        low: layout.total / members,
        high: layout.total.div_ceil(members),
        longer_wanted: layout.total % members,
        longer: 0,
        assignment: vec![Vec::new(); members],
        given_up: HashMap::new(),
        below: Vec::new(),
        at_low: VecDeque::new(),
        moving: HashMap::new(),
    };
    building.keep_owned(layout);
    let kept: HashSet<Id> = building.assignment.iter().flatten().copied().collect();
    let rest = (0..layout.total).filter(|id| !kept.contains(id)).collect();
    building.go_round(rest);
    (building.assignment, building.moving)
}

struct Building<'a> {
    claims: &'a Claims,
    /// The share of most members, and of those that get one more.
    low: usize,
    high: usize,
    /// How many members should get one more, and how many do.
    longer_wanted: usize,
    longer: usize,
    assignment: Vec<Vec<Id>>,
    /// Owned beyond the share, by the owner.
    given_up: HashMap<Id, Who>,
    /// Members below their share.
    below: Vec<Who>,
    /// Members that may still get one more than the share.
    at_low: VecDeque<Who>,
    moving: HashMap<Id, Who>,
}

impl Building<'_> {
    fn keep_owned(&mut self, layout: &Layout) {
        for &who in &self.claims.order {
            let mut owned = self.claims.owned[who].clone();
            owned.sort_by_key(|&id| (layout.partition_of(id), id));
            owned.retain(|id| !self.claims.disputed.contains(id));
            let keep = if owned.len() < self.low {
                self.below.push(who);
                owned.len()
            } else if owned.len() >= self.high && self.longer < self.longer_wanted {
                self.longer += 1;
                if self.longer == self.longer_wanted {
                    self.at_low.clear();
                }
                self.high
            } else {
                if self.longer < self.longer_wanted {
                    self.at_low.push_back(who);
                }
                self.low
            };
            let beyond = owned.split_off(keep);
            self.given_up.extend(beyond.into_iter().map(|id| (id, who)));
            self.assignment[who] = owned;
        }
        let rank = &self.claims.rank;
        self.below.sort_by_key(|&who| rank[who]);
        self.at_low.make_contiguous().sort_by_key(|&who| rank[who]);
    }

    /// One to each member below its share, again and again; then one to each at its share.
    fn go_round(&mut self, rest: Vec<Id>) {
        let mut next = 0;
        for id in rest {
            let who = if self.below.is_empty() {
                let who = self.at_low.pop_front();
                who.expect("the shares add up to all partitions")
            } else {
                next %= self.below.len();
                self.below[next]
            };
            self.give(id, who);
            let has = self.assignment[who].len();
            if self.below.get(next) == Some(&who) {
                if has == self.low {
                    self.below.remove(next);
                    self.at_low.push_back(who);
                } else {
                    next += 1;
                }
            }
            if has == self.high && has != self.low {
                self.longer += 1;
            }
        }
    }

    fn give(&mut self, id: Id, who: Who) {
        self.assignment[who].push(id);
        let leaves_another = self.given_up.get(&id).is_some_and(|owner| *owner != who);
        if leaves_another || self.claims.disputed.contains(&id) {
            self.moving.insert(id, who);
        }
    }
}
