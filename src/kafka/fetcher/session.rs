//! A fetch session (KIP-227): the broker remembers what we fetch, so that a request
//! names only what changed.
//!
//! ```text
//!  (0, 0) full ──▶ id given ──▶ (id, 1) changes ──▶ (id, 2) changes ──▶ …
//!    ▲                │ id 0: its cache is full; full again next time
//!    └── (id, 0) full, in place of the old one ◀── error, lost connection, other key
//! ```
//!
//! # Invariants
//! - One request is in flight at a time: `plan`, then `answered` or `failed`, in turn.
//! - After `answered`, what we believe the broker remembers is what the planned request
//!   said; after any doubt the next request is full.
//! - A session names topics by id or by name, never both: a change starts another one.
//! - Pure.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use crate::TopicPartition;

/// What is asked of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) tp: TopicPartition,
    /// Nil when the cluster gives topics no ids.
    pub(super) topic_id: Uuid,
    pub(super) offset: i64,
    pub(super) leader_epoch: i32,
    pub(super) max_bytes: i32,
}

/// How topics are named in a request, and whether it can carry a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Naming {
    /// Fetch v4–6: by name, without sessions.
    Sessionless,
    /// Fetch v7–12.
    Names,
    /// Fetch v13 and later.
    Ids,
}

/// One request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) session_id: i32,
    pub(super) session_epoch: i32,
    pub(super) fetch: Vec<Wanted>,
    pub(super) forget: Vec<(TopicPartition, Uuid)>,
}

/// What an answer to a request means for the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Its partitions may be read.
    Fine,
    /// The broker does not know the session: ask again, the next request is full.
    Again,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Session {
    id: i32,
    epoch: i32,
    naming: Naming,
    remembered: HashMap<TopicPartition, Wanted>,
    /// Applied to `remembered` when the answer comes.
    planned: Option<Planned>,
    /// Where full requests begin, so that each partition comes first in its turn.
    turn: usize,
}

#[derive(Debug)]
struct Planned {
    full: bool,
    fetch: Vec<Wanted>,
    forget: Vec<TopicPartition>,
}

impl Session {
    pub(super) fn new() -> Self {
        Self {
            id: 0,
            epoch: 0,
            naming: Naming::Sessionless,
            remembered: HashMap::new(),
            planned: None,
            turn: 0,
        }
    }

    /// The next request for `wanted`, each partition at most once.
    pub(super) fn plan(&mut self, wanted: Vec<Wanted>, naming: Naming) -> Plan {
        if naming != self.naming {
            self.naming = naming;
            self.epoch = 0;
        }
        if self.planned.take().is_some() {
            self.epoch = 0;
        }
        let full = self.epoch == 0 || naming == Naming::Sessionless;
        let (fetch, forget) = if full {
            (self.rotated(wanted), Vec::new())
        } else {
            self.changes(wanted)
        };
        self.planned = Some(Planned {
            full,
            fetch: fetch.clone(),
            forget: forget.iter().map(|(tp, _)| tp.clone()).collect(),
        });
        let (session_id, session_epoch) = match naming {
            Naming::Sessionless => (0, -1),
            _ => (self.id, self.epoch),
        };
        Plan {
            session_id,
            session_epoch,
            fetch,
            forget,
        }
    }

    /// Takes the answer's error code and session id.
    pub(super) fn answered(&mut self, error: i16, session_id: i32) -> Verdict {
        let planned = self.planned.take();
        if error != 0 {
            // Unknown to the broker: it has nothing that could be replaced.
            if error == SESSION_ID_NOT_FOUND {
                self.id = 0;
            }
            self.epoch = 0;
            return Verdict::Again;
        }
        let Some(planned) = planned else {
            return Verdict::Fine;
        };
        if planned.full {
            self.remembered.clear();
        }
        for tp in planned.forget {
            self.remembered.remove(&tp);
        }
        for wanted in planned.fetch {
            self.remembered.insert(wanted.tp.clone(), wanted);
        }
        if planned.full {
            self.id = session_id;
            self.epoch = i32::from(session_id != 0 && self.naming != Naming::Sessionless);
        } else {
            self.epoch = self.epoch.checked_add(1).unwrap_or(1);
        }
        Verdict::Fine
    }

    /// No answer came: whether the broker took the request is unknown.
    pub(super) fn failed(&mut self) {
        self.planned = None;
        self.epoch = 0;
    }

    fn rotated(&mut self, mut wanted: Vec<Wanted>) -> Vec<Wanted> {
        if !wanted.is_empty() {
            let by = self.turn % wanted.len();
            wanted.rotate_left(by);
            self.turn = self.turn.wrapping_add(1);
        }
        wanted
    }

    fn changes(&self, wanted: Vec<Wanted>) -> (Vec<Wanted>, Vec<(TopicPartition, Uuid)>) {
        let mut forget: Vec<_> = {
            let kept: HashSet<&TopicPartition> = wanted.iter().map(|wanted| &wanted.tp).collect();
            self.remembered
                .values()
                .filter(|known| !kept.contains(&known.tp))
                .map(|known| (known.tp.clone(), known.topic_id))
                .collect()
        };
        let fetch = wanted
            .into_iter()
            .filter(|wanted| match self.remembered.get(&wanted.tp) {
                Some(known) => {
                    if known.topic_id != wanted.topic_id {
                        forget.push((known.tp.clone(), known.topic_id));
                    }
                    known != wanted
                }
                None => true,
            })
            .collect();
        (fetch, forget)
    }
}

const SESSION_ID_NOT_FOUND: i16 = 70;

#[cfg(test)]
mod tests {
    use super::*;

    fn want(partition: i32, offset: i64) -> Wanted {
        Wanted {
            tp: TopicPartition::new("t", partition),
            topic_id: Uuid::from_u128(7),
            offset,
            leader_epoch: 3,
            max_bytes: 100,
        }
    }

    fn offsets(plan: &Plan) -> Vec<(i32, i64)> {
        plan.fetch
            .iter()
            .map(|w| (w.tp.partition, w.offset))
            .collect()
    }

    fn ids(plan: &Plan) -> (i32, i32) {
        (plan.session_id, plan.session_epoch)
    }

    fn established() -> Session {
        let mut session = Session::new();
        session.plan(vec![want(0, 0), want(1, 0)], Naming::Ids);
        assert_eq!(session.answered(0, 42), Verdict::Fine);
        session
    }

    #[test]
    fn after_the_first_request_only_changes_are_named() {
        let mut session = Session::new();
        let plan = session.plan(vec![want(0, 0), want(1, 0)], Naming::Ids);
        assert_eq!((ids(&plan), plan.fetch.len()), ((0, 0), 2));
        session.answered(0, 42);
        let plan = session.plan(vec![want(0, 5), want(1, 0)], Naming::Ids);
        assert_eq!((ids(&plan), offsets(&plan)), ((42, 1), vec![(0, 5)]));
        session.answered(0, 42);
        let plan = session.plan(vec![want(0, 5), want(1, 0)], Naming::Ids);
        assert_eq!((ids(&plan), offsets(&plan)), ((42, 2), vec![]));
        assert!(plan.forget.is_empty());
    }

    #[test]
    fn partitions_that_left_are_forgotten_once() {
        let mut session = established();
        let plan = session.plan(vec![want(1, 0)], Naming::Ids);
        assert_eq!(
            plan.forget,
            [(TopicPartition::new("t", 0), Uuid::from_u128(7))]
        );
        session.answered(0, 42);
        assert!(
            session
                .plan(vec![want(1, 0)], Naming::Ids)
                .forget
                .is_empty()
        );
    }

    #[test]
    fn a_topic_of_another_id_is_forgotten_and_named_anew() {
        let mut session = established();
        let mut reborn = want(0, 0);
        reborn.topic_id = Uuid::from_u128(8);
        let plan = session.plan(vec![reborn.clone(), want(1, 0)], Naming::Ids);
        assert_eq!(plan.fetch, [reborn]);
        assert_eq!(
            plan.forget,
            [(TopicPartition::new("t", 0), Uuid::from_u128(7))]
        );
    }

    #[test]
    fn an_evicted_session_starts_anew() {
        let mut session = established();
        session.plan(vec![want(0, 1), want(1, 0)], Naming::Ids);
        assert_eq!(session.answered(70, 0), Verdict::Again);
        let plan = session.plan(vec![want(0, 1), want(1, 0)], Naming::Ids);
        assert_eq!((ids(&plan), plan.fetch.len()), ((0, 0), 2));
    }

    #[test]
    fn a_wrong_epoch_or_a_lost_connection_replaces_the_session() {
        for lose in [
            |session: &mut Session| {
                assert_eq!(session.answered(71, 0), Verdict::Again);
            },
            Session::failed,
        ] {
            let mut session = established();
            session.plan(vec![want(0, 1), want(1, 0)], Naming::Ids);
            lose(&mut session);
            let plan = session.plan(vec![want(0, 1), want(1, 0)], Naming::Ids);
            assert_eq!((ids(&plan), plan.fetch.len()), ((42, 0), 2));
        }
    }

    #[test]
    fn a_full_session_cache_means_full_requests_in_rotating_order() {
        let mut session = Session::new();
        let mut firsts = Vec::new();
        for _ in 0..4 {
            let plan = session.plan(vec![want(0, 0), want(1, 0)], Naming::Ids);
            assert_eq!((ids(&plan), plan.fetch.len()), ((0, 0), 2));
            firsts.push(plan.fetch[0].tp.partition);
            session.answered(0, 0);
        }
        assert_eq!(firsts, [0, 1, 0, 1]);
    }

    #[test]
    fn a_topic_without_an_id_moves_the_session_to_names() {
        let mut session = established();
        let plan = session.plan(vec![want(0, 0), want(1, 0)], Naming::Names);
        assert_eq!((ids(&plan), plan.fetch.len()), ((42, 0), 2));
    }

    #[test]
    fn old_brokers_get_no_session_at_all() {
        let mut session = Session::new();
        for _ in 0..2 {
            let plan = session.plan(vec![want(0, 0)], Naming::Sessionless);
            assert_eq!((ids(&plan), plan.fetch.len()), ((0, -1), 1));
            session.answered(0, 0);
        }
    }

    #[test]
    fn a_request_whose_caller_went_away_counts_as_failed() {
        let mut session = established();
        session.plan(vec![want(0, 1), want(1, 0)], Naming::Ids);
        let plan = session.plan(vec![want(0, 1), want(1, 0)], Naming::Ids);
        assert_eq!((ids(&plan), plan.fetch.len()), ((42, 0), 2));
    }

    #[test]
    fn the_epoch_wraps_to_one() {
        let mut session = established();
        session.epoch = i32::MAX;
        session.plan(vec![want(0, 1), want(1, 0)], Naming::Ids);
        session.answered(0, 42);
        assert_eq!(session.epoch, 1);
    }
}
