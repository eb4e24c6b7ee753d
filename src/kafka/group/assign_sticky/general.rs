//! The thorough algorithm, for members that want different topics.
//!
//! 1. Everyone keeps what it owns and still wants.
//! 2. Each free partition goes to the member with the fewest that wants it.
//!    When racks matter, partitions are first offered to members that are not far from them,
//!    and what a member is far from it does not keep.
//! 3. Partitions move from members with more to members with fewer while that helps,
//!    free ones first; if the result is no better in the end, the moves are undone.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::super::assign::GroupMember;
use super::super::java::JavaSet;
use super::super::racks::Racks;
use super::{Claims, Id, Layout, Who, generation};

/// What each member gets, moves included.
pub(super) fn assign(
    members: &[GroupMember],
    layout: &Layout,
    claims: &Claims,
    racks: Option<&Racks>,
) -> Vec<Vec<Id>> {
    let mut building = Building::new(members, layout, claims);
    let revoking = building.drop_unwanted(racks);
    let previous = previous_owners(members, layout, claims);
    building.balance(&previous, revoking, racks);
    building.assignment
}

/// Owners of an older generation than the newest: a partition prefers to go back to them.
fn previous_owners(
    members: &[GroupMember],
    layout: &Layout,
    claims: &Claims,
) -> HashMap<Id, (Who, i32)> {
    let mut previous: HashMap<Id, (Who, i32)> = HashMap::new();
    for &who in &claims.order {
        let generation = match generation(&members[who]) {
            Some(generation) if generation < claims.newest => generation,
            None if claims.newest > -1 => -1,
            _ => continue,
        };
        let owned = &members[who].subscription.owned;
        for id in owned.iter().filter_map(|tp| layout.id(tp)) {
            let known = previous.entry(id).or_insert((who, generation));
            if generation > known.1 {
                *known = (who, generation);
            }
        }
    }
    previous
}

struct Building<'a> {
    layout: &'a Layout,
    rank: &'a [usize],
    /// Who wants which topic, both ways; topics by their place in the layout.
    wanting: Vec<Vec<Who>>,
    wants: Vec<HashSet<usize>>,
    assignment: Vec<Vec<Id>>,
    owner: Vec<Option<Who>>,
    /// Members that may give or take, those with the fewest partitions first.
    by_load: BTreeSet<(usize, usize, Who)>,
    /// Every partition, those of the least wanted topics first.
    all: Vec<Id>,
    movements: Movements,
}

impl<'a> Building<'a> {
    fn new(members: &[GroupMember], layout: &'a Layout, claims: &'a Claims) -> Self {
        let mut wanting = vec![Vec::new(); layout.topics.len()];
        let mut wants = vec![HashSet::new(); members.len()];
        for &who in &claims.order {
            let topics = members[who].subscription.topics.iter();
            for topic in topics.filter_map(|topic| layout.topic(topic)) {
                if wants[who].insert(topic) {
                    wanting[topic].push(who);
                }
            }
        }
        let mut owner = vec![None; layout.total];
        for (who, owned) in claims.owned.iter().enumerate() {
            for &id in owned {
                owner[id] = Some(who);
            }
        }
        let mut topics: Vec<usize> = (0..layout.topics.len()).collect();
        topics.sort_by_key(|&topic| wanting[topic].len());
        let ids = |topic: usize| {
            let topic = &layout.topics[topic];
            topic.first..topic.first + topic.count
        };
        Self {
            layout,
            rank: &claims.rank,
            all: topics.into_iter().flat_map(ids).collect(),
            wanting,
            wants,
            assignment: claims.owned.clone(),
            owner,
            by_load: BTreeSet::new(),
            movements: Movements::default(),
        }
    }

    /// Takes from each member what it no longer wants or is far from; true if there was any.
    fn drop_unwanted(&mut self, racks: Option<&Racks>) -> bool {
        let mut dropped = false;
        for (who, assigned) in self.assignment.iter_mut().enumerate() {
            let before = assigned.len();
            assigned.retain(|&id| {
                let far = racks.is_some_and(|racks| racks.far(who, id));
                !far && self.wants[who].contains(&self.layout.topic_of(id))
            });
            dropped |= assigned.len() < before;
        }
        dropped
    }

    fn balance(
        &mut self,
        previous: &HashMap<Id, (Who, i32)>,
        revoking: bool,
        racks: Option<&Racks>,
    ) {
        self.by_load = (0..self.assignment.len())
            .map(|who| self.load(who))
            .collect();
        let initial = self.assignment.iter().all(Vec::is_empty);
        let kept: HashSet<Id> = self.assignment.iter().flatten().copied().collect();
        let mut free: Vec<Id> = self.all.clone();
        free.retain(|id| !kept.contains(id));
        let mut left = free.clone();
        if let Some(racks) = racks {
            left.retain(|&id| !self.give_to_least_loaded(id, |who| !racks.far(who, id)));
        }
        for id in left {
            self.give_to_least_loaded(id, |_| true);
        }

        let movable =
            |building: &Self, id: &Id| building.wanting[building.layout.topic_of(*id)].len() >= 2;
        free.retain(|id| movable(self, id));
        let mut all = std::mem::take(&mut self.all);
        all.retain(|id| movable(self, id));
        for who in 0..self.assignment.len() {
            if !self.can_take_part(who) {
                self.by_load.remove(&self.load(who));
            }
        }

        let before = self.assignment.clone();
        let score_before = self.score();
        if !revoking {
            self.reassign(&free, previous);
        }
        let moved = self.reassign(&all, previous);
        if !initial && moved && self.score() >= score_before {
            self.assignment = before;
        }
    }

    fn load(&self, who: Who) -> (usize, usize, Who) {
        (self.assignment[who].len(), self.rank[who], who)
    }

    /// False if nobody who `fits` wants it.
    fn give_to_least_loaded(&mut self, id: Id, fits: impl Fn(Who) -> bool) -> bool {
        let topic = self.layout.topic_of(id);
        let mut candidates = self.by_load.iter().map(|(_, _, who)| *who);
        let taker = candidates.find(|&who| self.wants[who].contains(&topic) && fits(who));
        let Some(who) = taker else { return false };
        self.by_load.remove(&self.load(who));
        self.assignment[who].push(id);
        self.owner[id] = Some(who);
        self.by_load.insert(self.load(who));
        true
    }

    /// How many partitions a member could have at most.
    fn most(&self, who: Who) -> usize {
        let topics = self.wants[who].iter();
        topics.map(|&topic| self.layout.topics[topic].count).sum()
    }

    fn can_take_part(&self, who: Who) -> bool {
        let assigned = &self.assignment[who];
        let contested = |id: &Id| self.wanting[self.layout.topic_of(*id)].len() >= 2;
        assigned.len() < self.most(who) || assigned.iter().any(contested)
    }

    /// The sum of all pairs' differences, among members that take part.
    fn score(&self) -> usize {
        let loads: Vec<usize> = self
            .by_load
            .iter()
            .map(|(_, _, who)| self.assignment[*who].len())
            .collect();
        let pairs = loads.iter().enumerate();
        pairs
            .map(|(i, a)| loads[i + 1..].iter().map(|b| a.abs_diff(*b)).sum::<usize>())
            .sum()
    }

    fn reassign(&mut self, ids: &[Id], previous: &HashMap<Id, (Who, i32)>) -> bool {
        let mut any = false;
        loop {
            let mut moved = false;
            for &id in ids {
                if self.is_balanced() {
                    break;
                }
                let Some(owner) = self.owner[id] else {
                    continue;
                };
                let load = self.assignment[owner].len();
                let lighter = |who: Who| load > self.assignment[who].len() + 1;
                let back_to = previous.get(&id).map(|(who, _)| *who);
                if let Some(who) = back_to.filter(|&who| lighter(who)) {
                    self.reassign_to(id, who);
                    moved = true;
                    continue;
                }
                let topic = self.layout.topic_of(id);
                if self.wanting[topic].iter().any(|&who| lighter(who)) {
                    let mut lightest = self.by_load.iter().map(|(_, _, who)| *who);
                    let who = lightest.find(|&who| self.wants[who].contains(&topic));
                    self.reassign_to(id, who.expect("the owner wants the topic"));
                    moved = true;
                }
            }
            if !moved {
                return any;
            }
            any = true;
        }
    }

    fn is_balanced(&self) -> bool {
        let (Some(first), Some(last)) = (self.by_load.first(), self.by_load.last()) else {
            return true;
        };
        if first.0 + 1 >= last.0 {
            return true;
        }
        self.by_load.iter().all(|&(load, _, who)| {
            load == self.most(who)
                || !self.wants[who]
                    .iter()
                    .any(|&topic| self.could_take_from(topic, who, load))
        })
    }

    /// Whether a partition of `topic` would be better off with `who`.
    fn could_take_from(&self, topic: usize, who: Who, load: usize) -> bool {
        let topic = &self.layout.topics[topic];
        let owners = self.owner[topic.first..topic.first + topic.count]
            .iter()
            .flatten();
        owners
            .filter(|owner| **owner != who)
            .any(|&owner| load + 1 < self.assignment[owner].len())
    }

    fn reassign_to(&mut self, id: Id, to: Who) {
        let from = self.owner[id].expect("only owned partitions move");
        let topic = self.layout.topic_of(id);
        let id = self.movements.instead_of(topic, id, from, to);
        let from = self.owner[id].expect("a partition that moved has an owner");
        self.by_load.remove(&self.load(from));
        self.by_load.remove(&self.load(to));
        self.movements
            .moved(topic, id, self.layout.java_hash(id), from, to);
        self.assignment[from].retain(|kept| *kept != id);
        self.assignment[to].push(id);
        self.owner[id] = Some(to);
        self.by_load.insert(self.load(to));
        self.by_load.insert(self.load(from));
    }
}

/// What moved from whom to whom, so that two members do not swap partitions of one topic.
#[derive(Default)]
struct Movements {
    by_topic: HashMap<(usize, Who, Who), JavaSet<Id>>,
    by_partition: HashMap<Id, (Who, Who)>,
}

impl Movements {
    /// A partition of the topic that came the other way is sent back instead.
    fn instead_of(&self, topic: usize, id: Id, from: Who, to: Who) -> Id {
        let from = self
            .by_partition
            .get(&id)
            .map_or(from, |(source, _)| *source);
        let back = self.by_topic.get(&(topic, to, from));
        back.and_then(|ids| ids.iter().next())
            .copied()
            .unwrap_or(id)
    }

    fn moved(&mut self, topic: usize, id: Id, hash: i32, from: Who, to: Who) {
        let mut source = from;
        if let Some((first, last)) = self.by_partition.remove(&id) {
            if let Some(ids) = self.by_topic.get_mut(&(topic, first, last)) {
                ids.remove(hash, &id);
                if ids.is_empty() {
                    self.by_topic.remove(&(topic, first, last));
                }
            }
            if first == to {
                return;
            }
            source = first;
        }
        self.by_partition.insert(id, (source, to));
        let ids = self.by_topic.entry((topic, source, to));
        ids.or_insert_with(JavaSet::new).insert(hash, id);
    }
}
