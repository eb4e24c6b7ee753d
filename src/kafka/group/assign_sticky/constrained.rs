//! The quick algorithm, for members that all want the same topics.
//!
//! With `total` partitions, each member gets `total / members` or one more. First everyone
//! keeps what it owns up to its share, then what is left goes round.
//!
//! When racks matter, only what is near is kept, and what is left goes round twice: first
//! each partition to a member near it, those that few members are near first.

use std::collections::{HashMap, HashSet, VecDeque};

use super::super::racks::Racks;
use super::{Claims, Id, Layout, Who};

/// What each member gets, and which of it another member has to give up first.
pub(super) fn assign(
    layout: &Layout,
    claims: &Claims,
    racks: Option<&Racks>,
) -> (Vec<Vec<Id>>, HashMap<Id, Who>) {
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
    building.keep_owned(layout, racks);
    let kept: HashSet<Id> = building.assignment.iter().flatten().copied().collect();
    let mut rest: Vec<Id> = (0..layout.total).filter(|id| !kept.contains(id)).collect();
    if let Some(racks) = racks {
        rest.sort_by_key(|&id| racks.members_near(id));
        building.go_round_near(&mut rest, racks);
    }
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
    /// Owned beyond the share or far away, by the owner.
    given_up: HashMap<Id, Who>,
    /// Members below their share.
    below: Vec<Who>,
    /// Members that may still get one more than the share.
    at_low: VecDeque<Who>,
    moving: HashMap<Id, Who>,
}

impl Building<'_> {
    fn keep_owned(&mut self, layout: &Layout, racks: Option<&Racks>) {
        for &who in &self.claims.order {
            let far = |id: &Id| racks.is_some_and(|racks| racks.far(who, *id));
            let (far, mut owned): (Vec<Id>, Vec<Id>) =
                self.claims.owned[who].iter().partition(|id| far(id));
            self.given_up.extend(far.into_iter().map(|id| (id, who)));
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

    /// Gives what it can to members near it: the next one below its share, or else the first
    /// at its share that may get one more.
    fn go_round_near(&mut self, rest: &mut Vec<Id>, racks: &Racks) {
        let mut next = 0;
        rest.retain(|&id| {
            let Some(who) = self.next_near(&mut next, id, racks) else {
                return true;
            };
            self.give(id, who);
            false
        });
    }

    fn next_near(&mut self, next: &mut usize, id: Id, racks: &Racks) -> Option<Who> {
        let near = |who: &Who| racks.near(*who, id);
        let (before, after) = self.below.split_at(*next);
        let place = after.iter().chain(before).position(near);
        if let Some(place) = place.map(|ahead| (*next + ahead) % self.below.len()) {
            let who = self.below[place];
            *next = place + 1;
            if self.assignment[who].len() + 1 >= self.low {
                *next = place;
                self.below.remove(place);
                if self.high > self.low && self.longer < self.longer_wanted {
                    self.at_low.push_back(who);
                }
            }
            *next %= self.below.len().max(1);
            return Some(who);
        }
        let who = self.at_low.remove(self.at_low.iter().position(near)?);
        self.longer += 1;
        if self.longer == self.longer_wanted {
            self.at_low.clear();
        }
        who
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
