//! A fetch session (KIP-227), the client's side: the broker remembers what is fetched, so
//! that a request names only what changed.
//!
//! ```text
//!  (0, 0) full ──▶ id given ──▶ (id, 1) changes ──▶ (id, 2) changes ──▶ …
//!    ▲                │ id 0: its cache is full; full again next time
//!    └── (id, 0) full, in place of the old one ◀── error, lost connection, other key
//! ```
//!
//! # Invariants
//! - One request is in flight at a time: `next_request`, then `handle_response` or
//!   `handle_error`, in turn.
//! - After `handle_response`, `session_partitions` is what the broker remembers; whenever that is
//!   not certain the next request is full.
//! - A request that is not full costs what has changed, however many partitions there are.
//! - A session names topics by id or by name, never both: a change starts another session.
//! - Sans-I/O.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use uuid::Uuid;

use crate::TopicPartition;

/// What is asked of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FetchTarget {
    pub(super) tp: TopicPartition,
    /// Nil when the cluster gives topics no ids.
    pub(super) topic_id: Uuid,
    pub(super) fetch_offset: i64,
    pub(super) current_leader_epoch: i32,
    pub(super) max_bytes: i32,
}

/// How topics are named in a request, and whether it can carry a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FetchNaming {
    /// Fetch v4–6: by name, without sessions.
    Sessionless,
    /// Fetch v7–12.
    TopicNames,
    /// Fetch v13 and later.
    TopicIds,
}

/// One request, as far as the session decides it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FetchRequestData {
    pub(super) session_id: i32,
    pub(super) session_epoch: i32,
    pub(super) to_send: Vec<FetchTarget>,
    pub(super) to_forget: Vec<(TopicPartition, Uuid)>,
}

/// What a response means for the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FetchSessionResult {
    /// Its partitions may be read.
    Valid,
    /// The broker does not know the session: fetch again, the next request is full.
    Restart,
}

/// Decides what each request of one fetch session names.
#[derive(Debug)]
pub(super) struct FetchSessionHandler {
    id: i32,
    epoch: i32,
    naming: FetchNaming,
    /// What is to be fetched.
    targets: HashMap<TopicPartition, FetchTarget>,
    /// Partitions whose target may differ from what the broker remembers.
    changed: HashSet<TopicPartition>,
    /// The topics of `targets`, and how many partitions of each.
    topics: HashMap<Uuid, SessionTopic>,
    session_partitions: HashMap<TopicPartition, FetchTarget>,
    /// Applied to `session_partitions` when the response comes.
    in_flight: Option<InFlightFetch>,
    /// Where full requests begin, so that each partition comes first in its turn.
    rotation: usize,
}

/// A topic with partitions in a session.
#[derive(Debug)]
struct SessionTopic {
    name: Arc<str>,
    partitions: usize,
}

#[derive(Debug)]
struct InFlightFetch {
    full: bool,
    to_send: Vec<FetchTarget>,
    to_forget: Vec<TopicPartition>,
}

impl FetchSessionHandler {
    pub(super) fn new() -> Self {
        Self {
            id: 0,
            epoch: 0,
            naming: FetchNaming::Sessionless,
            targets: HashMap::new(),
            changed: HashSet::new(),
            topics: HashMap::new(),
            session_partitions: HashMap::new(),
            in_flight: None,
            rotation: 0,
        }
    }

    /// Fetches `target` from the next request on, in place of the partition's former one.
    pub(super) fn set_target(&mut self, target: FetchTarget) {
        let topic = self.topics.entry(target.topic_id);
        let topic = topic.or_insert_with(|| SessionTopic {
            name: Arc::clone(&target.tp.topic),
            partitions: 0,
        });
        topic.partitions += 1;
        self.changed.insert(target.tp.clone());
        let former = self.targets.insert(target.tp.clone(), target);
        self.topic_unused(former);
    }

    /// Fetches the partition no more.
    pub(super) fn remove_target(&mut self, tp: &TopicPartition) {
        let former = self.targets.remove(tp);
        if former.is_some() {
            self.changed.insert(tp.clone());
        }
        self.topic_unused(former);
    }

    fn topic_unused(&mut self, former: Option<FetchTarget>) {
        if let Some(former) = former
            && let Some(topic) = self.topics.get_mut(&former.topic_id)
        {
            topic.partitions -= 1;
            if topic.partitions == 0 {
                self.topics.remove(&former.topic_id);
            }
        }
    }

    /// Whether all topics can be named by their ids.
    pub(super) fn has_all_topic_ids(&self) -> bool {
        !self.topics.contains_key(&Uuid::nil())
    }

    /// The name of the topic of that id.
    pub(super) fn topic_name(&self, id: &Uuid) -> Option<Arc<str>> {
        self.topics.get(id).map(|topic| Arc::clone(&topic.name))
    }

    /// The next request.
    pub(super) fn next_request(&mut self, naming: FetchNaming) -> FetchRequestData {
        if naming != self.naming {
            self.naming = naming;
            self.epoch = 0;
        }
        if self.in_flight.take().is_some() {
            self.epoch = 0;
        }
        let full = self.epoch == 0 || naming == FetchNaming::Sessionless;
        let changed = std::mem::take(&mut self.changed);
        let (to_send, to_forget) = if full {
            (self.all_in_turn(), Vec::new())
        } else {
            self.changes(changed)
        };
        self.in_flight = Some(InFlightFetch {
            full,
            to_send: to_send.clone(),
            to_forget: to_forget.iter().map(|(tp, _)| tp.clone()).collect(),
        });
        let (session_id, session_epoch) = match naming {
            FetchNaming::Sessionless => (0, -1),
            _ => (self.id, self.epoch),
        };
        FetchRequestData {
            session_id,
            session_epoch,
            to_send,
            to_forget,
        }
    }

    /// Takes the response's error code and session id.
    pub(super) fn handle_response(&mut self, error: i16, session_id: i32) -> FetchSessionResult {
        let in_flight = self.in_flight.take();
        if error != 0 {
            // Unknown to the broker: it has nothing that could be replaced.
            if error == FETCH_SESSION_ID_NOT_FOUND {
                self.id = 0;
            }
            self.epoch = 0;
            return FetchSessionResult::Restart;
        }
        let Some(request) = in_flight else {
            return FetchSessionResult::Valid;
        };
        if request.full {
            self.session_partitions.clear();
        }
        for tp in request.to_forget {
            self.session_partitions.remove(&tp);
        }
        for target in request.to_send {
            self.session_partitions.insert(target.tp.clone(), target);
        }
        if request.full {
            self.id = session_id;
            self.epoch = i32::from(session_id != 0 && self.naming != FetchNaming::Sessionless);
        } else {
            self.epoch = self.epoch.checked_add(1).unwrap_or(1);
        }
        FetchSessionResult::Valid
    }

    /// No response came: whether the broker took the request is unknown.
    pub(super) fn handle_error(&mut self) {
        self.in_flight = None;
        self.epoch = 0;
    }

    /// All targets, beginning with another one each time.
    fn all_in_turn(&mut self) -> Vec<FetchTarget> {
        let mut targets: Vec<FetchTarget> = self.targets.values().cloned().collect();
        if !targets.is_empty() {
            let by = self.rotation % targets.len();
            targets.rotate_left(by);
            self.rotation = self.rotation.wrapping_add(1);
        }
        targets
    }

    /// How the targets of these partitions differ from what the broker remembers.
    fn changes(
        &self,
        changed: HashSet<TopicPartition>,
    ) -> (Vec<FetchTarget>, Vec<(TopicPartition, Uuid)>) {
        let (mut to_send, mut to_forget) = (Vec::new(), Vec::new());
        for tp in changed {
            let target = self.targets.get(&tp);
            let known = self.session_partitions.get(&tp);
            if let Some(known) = known
                && target.is_none_or(|target| target.topic_id != known.topic_id)
            {
                to_forget.push((tp, known.topic_id));
            }
            to_send.extend(target.filter(|&target| known != Some(target)).cloned());
        }
        (to_send, to_forget)
    }
}

const FETCH_SESSION_ID_NOT_FOUND: i16 = 70;

#[cfg(test)]
mod tests {
    use super::*;

    fn target(partition: i32, offset: i64) -> FetchTarget {
        FetchTarget {
            tp: TopicPartition::new("t", partition),
            topic_id: Uuid::from_u128(7),
            fetch_offset: offset,
            current_leader_epoch: 3,
            max_bytes: 100,
        }
    }

    fn offsets(request: &FetchRequestData) -> Vec<(i32, i64)> {
        request
            .to_send
            .iter()
            .map(|target| (target.tp.partition, target.fetch_offset))
            .collect()
    }

    fn ids(request: &FetchRequestData) -> (i32, i32) {
        (request.session_id, request.session_epoch)
    }

    /// The next request, for these targets alone.
    fn next(
        session: &mut FetchSessionHandler,
        targets: Vec<FetchTarget>,
        naming: FetchNaming,
    ) -> FetchRequestData {
        let former: Vec<_> = session.targets.keys().cloned().collect();
        for tp in former {
            if !targets.iter().any(|target| target.tp == tp) {
                session.remove_target(&tp);
            }
        }
        for target in targets {
            session.set_target(target);
        }
        session.next_request(naming)
    }

    fn established() -> FetchSessionHandler {
        let mut session = FetchSessionHandler::new();
        next(
            &mut session,
            vec![target(0, 0), target(1, 0)],
            FetchNaming::TopicIds,
        );
        assert_eq!(session.handle_response(0, 42), FetchSessionResult::Valid);
        session
    }

    #[test]
    fn after_the_first_request_only_changes_are_named() {
        let mut session = FetchSessionHandler::new();
        let request = next(
            &mut session,
            vec![target(0, 0), target(1, 0)],
            FetchNaming::TopicIds,
        );
        assert_eq!((ids(&request), request.to_send.len()), ((0, 0), 2));
        session.handle_response(0, 42);
        let request = next(
            &mut session,
            vec![target(0, 5), target(1, 0)],
            FetchNaming::TopicIds,
        );
        assert_eq!((ids(&request), offsets(&request)), ((42, 1), vec![(0, 5)]));
        session.handle_response(0, 42);
        let request = next(
            &mut session,
            vec![target(0, 5), target(1, 0)],
            FetchNaming::TopicIds,
        );
        assert_eq!((ids(&request), offsets(&request)), ((42, 2), vec![]));
        assert!(request.to_forget.is_empty());
    }

    #[test]
    fn partitions_that_are_no_longer_fetched_are_forgotten_once() {
        let mut session = established();
        let request = next(&mut session, vec![target(1, 0)], FetchNaming::TopicIds);
        assert_eq!(
            request.to_forget,
            [(TopicPartition::new("t", 0), Uuid::from_u128(7))]
        );
        session.handle_response(0, 42);
        assert!(
            next(&mut session, vec![target(1, 0)], FetchNaming::TopicIds)
                .to_forget
                .is_empty()
        );
    }

    #[test]
    fn a_recreated_topic_is_forgotten_under_its_old_id_and_sent_anew() {
        let mut session = established();
        let mut recreated = target(0, 0);
        recreated.topic_id = Uuid::from_u128(8);
        let request = next(
            &mut session,
            vec![recreated.clone(), target(1, 0)],
            FetchNaming::TopicIds,
        );
        assert_eq!(request.to_send, [recreated]);
        assert_eq!(
            request.to_forget,
            [(TopicPartition::new("t", 0), Uuid::from_u128(7))]
        );
    }

    #[test]
    fn an_evicted_session_is_replaced_by_a_new_one() {
        let mut session = established();
        next(
            &mut session,
            vec![target(0, 1), target(1, 0)],
            FetchNaming::TopicIds,
        );
        assert_eq!(session.handle_response(70, 0), FetchSessionResult::Restart);
        let request = next(
            &mut session,
            vec![target(0, 1), target(1, 0)],
            FetchNaming::TopicIds,
        );
        assert_eq!((ids(&request), request.to_send.len()), ((0, 0), 2));
    }

    #[test]
    fn a_wrong_epoch_or_a_lost_connection_replaces_the_session() {
        for lose in [
            |session: &mut FetchSessionHandler| {
                assert_eq!(session.handle_response(71, 0), FetchSessionResult::Restart);
            },
            FetchSessionHandler::handle_error,
        ] {
            let mut session = established();
            next(
                &mut session,
                vec![target(0, 1), target(1, 0)],
                FetchNaming::TopicIds,
            );
            lose(&mut session);
            let request = next(
                &mut session,
                vec![target(0, 1), target(1, 0)],
                FetchNaming::TopicIds,
            );
            assert_eq!((ids(&request), request.to_send.len()), ((42, 0), 2));
        }
    }

    #[test]
    fn a_full_session_cache_means_full_requests_in_rotating_order() {
        let mut session = FetchSessionHandler::new();
        let mut firsts = Vec::new();
        for _ in 0..4 {
            let request = next(
                &mut session,
                vec![target(0, 0), target(1, 0)],
                FetchNaming::TopicIds,
            );
            assert_eq!((ids(&request), request.to_send.len()), ((0, 0), 2));
            firsts.push(request.to_send[0].tp.partition);
            session.handle_response(0, 0);
        }
        assert_eq!(firsts[..2], firsts[2..]);
        assert_ne!(firsts[0], firsts[1]);
    }

    #[test]
    fn a_topic_without_an_id_restarts_the_session_with_names() {
        let mut session = established();
        let request = next(
            &mut session,
            vec![target(0, 0), target(1, 0)],
            FetchNaming::TopicNames,
        );
        assert_eq!((ids(&request), request.to_send.len()), ((42, 0), 2));
    }

    #[test]
    fn old_brokers_get_sessionless_requests() {
        let mut session = FetchSessionHandler::new();
        for _ in 0..2 {
            let request = next(&mut session, vec![target(0, 0)], FetchNaming::Sessionless);
            assert_eq!((ids(&request), request.to_send.len()), ((0, -1), 1));
            session.handle_response(0, 0);
        }
    }

    #[test]
    fn a_request_whose_response_never_came_counts_as_failed() {
        let mut session = established();
        next(
            &mut session,
            vec![target(0, 1), target(1, 0)],
            FetchNaming::TopicIds,
        );
        let request = next(
            &mut session,
            vec![target(0, 1), target(1, 0)],
            FetchNaming::TopicIds,
        );
        assert_eq!((ids(&request), request.to_send.len()), ((42, 0), 2));
    }

    #[test]
    fn the_epoch_wraps_to_one() {
        let mut session = established();
        session.epoch = i32::MAX;
        next(
            &mut session,
            vec![target(0, 1), target(1, 0)],
            FetchNaming::TopicIds,
        );
        session.handle_response(0, 42);
        assert_eq!(session.epoch, 1);
    }
}
