//! All groups of the cluster, and when the clock has to look at which.
//!
//! # Invariants
//! - For each group with a deadline there is an alarm no later than it.
//! - There are no more groups than the limit; those without members go first, the one
//!   unused for longest.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Instant;

use kafka_protocol::ResponseError;

use super::group::{Group, Limits};

/// Groups by name.
#[derive(Debug)]
pub(super) struct Groups {
    by_name: HashMap<String, Group>,
    alarms: BinaryHeap<Reverse<(Instant, String)>>,
    limits: Limits,
    groups_max: usize,
}

impl Groups {
    /// No groups yet.
    pub(super) fn new(limits: Limits, groups_max: usize) -> Self {
        Self {
            by_name: HashMap::new(),
            alarms: BinaryHeap::new(),
            limits,
            groups_max,
        }
    }

    /// A group that exists.
    pub(super) fn get(&self, name: &str) -> Option<&Group> {
        self.by_name.get(name)
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Group)> {
        self.by_name.iter().map(|(name, group)| (&**name, group))
    }

    /// Does something with a group that exists. `true`: the clock must be told.
    pub(super) fn with<T>(
        &mut self,
        name: &str,
        act: impl FnOnce(&mut Group) -> T,
    ) -> Option<(T, bool)> {
        let result = act(self.by_name.get_mut(name)?);
        Some((result, self.schedule(name)))
    }

    /// Makes sure that a group exists.
    pub(super) fn create(&mut self, name: &str, now: Instant) -> Result<(), ResponseError> {
        if self.by_name.contains_key(name) {
            return Ok(());
        }
        if self.by_name.len() >= self.groups_max {
            let unused = self.by_name.iter().filter(|(_, group)| group.is_empty());
            let oldest = unused.min_by_key(|(_, group)| group.last_used);
            let oldest = oldest.map(|(name, _)| name.clone());
            let oldest = oldest.ok_or(ResponseError::CoordinatorNotAvailable)?;
            self.by_name.remove(&oldest);
        }
        let group = Group::new(self.limits, now);
        self.by_name.insert(name.to_owned(), group);
        Ok(())
    }

    /// Deletes a group that has no members.
    pub(super) fn delete(&mut self, name: &str) -> Result<(), ResponseError> {
        let group = self
            .by_name
            .get(name)
            .ok_or(ResponseError::GroupIdNotFound)?;
        if !group.is_empty() {
            return Err(ResponseError::NonEmptyGroup);
        }
        self.by_name.remove(name);
        Ok(())
    }

    /// Forgets what was committed for a topic.
    pub(super) fn forget_topic(&mut self, topic: &str) {
        for group in self.by_name.values_mut() {
            group.offsets.retain(|(name, _), _| &**name != topic);
        }
    }

    /// Lets every group do what time demands; returns when that is to happen next.
    pub(super) fn tick(&mut self, now: Instant) -> Option<Instant> {
        while let Some(Reverse((at, _))) = self.alarms.peek()
            && *at <= now
        {
            let Some(Reverse((at, name))) = self.alarms.pop() else {
                break;
            };
            let Some(group) = self.by_name.get_mut(&name) else {
                continue;
            };
            if group.scheduled == Some(at) {
                group.scheduled = None;
                group.tick(now);
                self.schedule(&name);
            }
        }
        self.alarms.peek().map(|Reverse((at, _))| *at)
    }

    /// Sets an alarm if there is none early enough; whether it is the very next one.
    fn schedule(&mut self, name: &str) -> bool {
        let Some(group) = self.by_name.get_mut(name) else {
            return false;
        };
        let Some(deadline) = group.next_deadline() else {
            return false;
        };
        if group.scheduled.is_some_and(|at| at <= deadline) {
            return false;
        }
        group.scheduled = Some(deadline);
        let next = self
            .alarms
            .peek()
            .is_none_or(|Reverse((at, _))| deadline < *at);
        self.alarms.push(Reverse((deadline, name.to_owned())));
        next
    }
}
