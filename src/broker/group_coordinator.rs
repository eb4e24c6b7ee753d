//! All groups of the cluster, and when the clock has to look at which.
//!
//! # Invariants
//! - For each group with a deadline there is a scheduled look no later than it.
//! - There are no more groups than the limit, and they take no more memory than theirs;
//!   those without members go first, the one unused for longest.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Instant;

use kafka_protocol::ResponseError;

use super::group::{ClassicGroup, GroupLimits};

/// The groups by name, and their deadlines.
#[derive(Debug)]
pub(super) struct GroupCoordinator {
    by_name: HashMap<String, ClassicGroup>,
    deadlines: BinaryHeap<Reverse<(Instant, String)>>,
    limits: GroupLimits,
    groups_max: usize,
    /// What they take, and may take.
    bytes: usize,
    bytes_max: usize,
}

impl GroupCoordinator {
    /// No groups yet.
    pub(super) fn new(limits: GroupLimits, groups_max: usize, bytes_max: usize) -> Self {
        Self {
            by_name: HashMap::new(),
            deadlines: BinaryHeap::new(),
            limits,
            groups_max,
            bytes: 0,
            bytes_max,
        }
    }

    /// A group that exists.
    pub(super) fn get(&self, name: &str) -> Option<&ClassicGroup> {
        self.by_name.get(name)
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &ClassicGroup)> {
        self.by_name.iter().map(|(name, group)| (&**name, group))
    }

    /// Changes a group that exists. `true`: its deadline is now the next of all.
    pub(super) fn with<T>(
        &mut self,
        name: &str,
        act: impl FnOnce(&mut ClassicGroup) -> T,
    ) -> Option<(T, bool)> {
        let group = self.by_name.get_mut(name)?;
        self.bytes -= group.bytes();
        let result = act(group);
        self.bytes += group.bytes();
        Some((result, self.schedule(name)))
    }

    /// Makes sure that a group exists.
    pub(super) fn create(&mut self, name: &str, now: Instant) -> Result<(), ResponseError> {
        if self.by_name.contains_key(name) {
            return Ok(());
        }
        let group = ClassicGroup::new(self.limits, now);
        let bytes = group.bytes() + name.len();
        let full = self.by_name.len() >= self.groups_max;
        if full && !self.forget_oldest(name) || !self.make_room(name, bytes) {
            return Err(ResponseError::CoordinatorNotAvailable);
        }
        self.bytes += bytes;
        self.by_name.insert(name.to_owned(), group);
        Ok(())
    }

    /// Whether so many bytes may be added to a group, at the cost of unused ones.
    pub(super) fn make_room(&mut self, name: &str, bytes: usize) -> bool {
        if bytes > self.bytes_max {
            return false;
        }
        while self.bytes + bytes > self.bytes_max {
            if !self.forget_oldest(name) {
                return false;
            }
        }
        true
    }

    /// Forgets the group without members that was unused for longest, but not that one.
    fn forget_oldest(&mut self, but: &str) -> bool {
        let others = self.by_name.iter().filter(|(name, _)| *name != but);
        let unused = others.filter(|(_, group)| group.is_empty());
        let oldest = unused.min_by_key(|(_, group)| group.last_used);
        let oldest = oldest.map(|(name, _)| name.clone());
        oldest.is_some_and(|name| self.remove(&name))
    }

    fn remove(&mut self, name: &str) -> bool {
        match self.by_name.remove(name) {
            Some(group) => {
                self.bytes -= group.bytes() + name.len();
                true
            }
            None => false,
        }
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
        self.remove(name);
        Ok(())
    }

    /// Forgets what was committed for a topic.
    pub(super) fn forget_topic(&mut self, topic: &str) {
        for group in self.by_name.values_mut() {
            self.bytes -= group.bytes();
            group.forget_topic(topic);
            self.bytes += group.bytes();
        }
    }

    /// Handles every deadline that has passed (sessions, rebalances); returns the next one.
    pub(super) fn tick(&mut self, now: Instant) -> Option<Instant> {
        while let Some(Reverse((at, _))) = self.deadlines.peek()
            && *at <= now
        {
            let Some(Reverse((at, name))) = self.deadlines.pop() else {
                break;
            };
            let Some(group) = self.by_name.get_mut(&name) else {
                continue;
            };
            if group.scheduled == Some(at) {
                group.scheduled = None;
                self.bytes -= group.bytes();
                group.tick(now);
                self.bytes += group.bytes();
                self.schedule(&name);
            }
        }
        self.deadlines.peek().map(|Reverse((at, _))| *at)
    }

    /// Schedules a look if there is none early enough; whether it is the very next one.
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
            .deadlines
            .peek()
            .is_none_or(|Reverse((at, _))| deadline < *at);
        self.deadlines.push(Reverse((deadline, name.to_owned())));
        if self.deadlines.len() > 2 * self.by_name.len() + DEADLINES_MIN {
            let groups = self.by_name.iter();
            let deadlines =
                groups.filter_map(|(name, group)| Some((group.scheduled?, name.clone())));
            self.deadlines = deadlines.map(Reverse).collect();
        }
        next
    }
}

/// Deadlines of groups that are gone are kept up to so many.
const DEADLINES_MIN: usize = 64;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use kafka_protocol::protocol::StrBytes;
    use tokio::sync::oneshot::{self, Receiver};

    use super::super::group::{JoinRequest, JoinResult, OffsetAndMetadata};
    use super::*;

    fn groups(bytes_max: usize) -> (GroupCoordinator, Instant) {
        let limits = GroupLimits {
            initial_delay: Duration::ZERO,
            session_min: Duration::ZERO,
            session_max: Duration::MAX,
            members_max: 10_000,
        };
        (
            GroupCoordinator::new(limits, 1_000, bytes_max),
            Instant::now(),
        )
    }

    fn commit(groups: &mut GroupCoordinator, name: &str, partition: i32, metadata: usize) {
        let committed = OffsetAndMetadata {
            number: 0,
            offset: 1,
            leader_epoch: -1,
            metadata: StrBytes::from_string("m".repeat(metadata)),
        };
        let key = (StrBytes::from_static_str("t"), partition);
        groups.with(name, |group| group.commit(key, committed));
    }

    fn join(
        groups: &mut GroupCoordinator,
        name: &str,
        metadata: usize,
        now: Instant,
    ) -> Receiver<JoinResult> {
        let (reply, answer) = oneshot::channel();
        let consumer = || StrBytes::from_static_str("consumer");
        let join = JoinRequest {
            member_id: StrBytes::new(),
            instance_id: None,
            client_id: consumer(),
            host: String::new(),
            session: Duration::from_secs(10),
            rebalance: Duration::from_secs(10),
            protocol_type: consumer(),
            protocols: vec![(consumer(), Bytes::from(vec![0; metadata]))],
            requires_member_id: false,
            can_skip_assignment: false,
            nonce: 7,
            reply,
        };
        groups.with(name, |group| group.join(join, now));
        answer
    }

    /// What it would be if it were counted anew.
    fn counted(groups: &GroupCoordinator) -> usize {
        let groups = groups.by_name.iter();
        groups.map(|(name, group)| name.len() + group.bytes()).sum()
    }

    #[test]
    fn whatever_happens_to_groups_is_counted() {
        let (mut groups, now) = groups(1 << 20);
        for name in ["a", "b"] {
            groups.create(name, now).unwrap();
            let before = groups.bytes;
            commit(&mut groups, name, 0, 1_000);
            assert!(groups.bytes >= before + 1_000);
            commit(&mut groups, name, 0, 10);
            commit(&mut groups, name, 1, 10);
            assert!(groups.bytes < before + 1_000);
        }
        let before = groups.bytes;
        let joined = join(&mut groups, "a", 5_000, now).try_recv().unwrap();
        assert!(groups.bytes >= before + 5_000);
        groups.with("a", |group| group.leave(&joined.member_id, None, now));
        assert_eq!(groups.bytes, before);
        join(&mut groups, "a", 5_000, now);
        groups.tick(now + Duration::from_secs(60));
        assert_eq!(groups.bytes, before);
        groups.forget_topic("t");
        assert_eq!(groups.bytes, counted(&groups));
        groups.delete("a").unwrap();
        assert_eq!(groups.bytes, counted(&groups));
        groups.delete("b").unwrap();
        assert_eq!(groups.bytes, 0);
    }

    #[test]
    fn unused_groups_make_room_the_oldest_first_and_used_ones_do_not() {
        let (mut groups, now) = groups(20_000);
        for (age, name) in (0..).zip(["used", "old", "new"]) {
            let then = now + Duration::from_secs(age);
            groups.create(name, then).unwrap();
            commit(&mut groups, name, 0, 4_000);
        }
        join(&mut groups, "used", 100, now);
        assert!(groups.make_room("new", 8_000));
        let left = |groups: &GroupCoordinator| {
            ["used", "old", "new"].map(|name| groups.get(name).is_some())
        };
        assert_eq!(left(&groups), [true, false, true]);
        assert!(!groups.make_room("new", 14_000));
        assert!(!groups.make_room("used", 1 << 30));
        assert_eq!(left(&groups), [true, false, true]);
    }

    #[test]
    fn groups_that_come_and_go_leave_no_alarms_behind() {
        let (mut groups, now) = groups(1 << 20);
        for n in 0..1_000 {
            groups.create("g", now).unwrap();
            let joined = join(&mut groups, "g", n, now).try_recv().unwrap();
            groups.with("g", |group| group.leave(&joined.member_id, None, now));
            groups.delete("g").unwrap();
        }
        assert!(groups.deadlines.len() <= 2 + DEADLINES_MIN);
    }
}
