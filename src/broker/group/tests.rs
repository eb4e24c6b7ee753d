//! The group machine against a clock that the tests turn.

use bytes::Bytes;
use tokio::sync::oneshot::Receiver;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

struct Clock(ClassicGroup, Instant);

impl Clock {
    fn new() -> Self {
        Self::with_delay(Duration::ZERO)
    }

    fn with_delay(initial_delay: Duration) -> Self {
        let limits = GroupLimits {
            initial_delay,
            session_min: SECOND,
            session_max: 60 * SECOND,
            members_max: 4,
        };
        let now = Instant::now();
        Self(ClassicGroup::new(limits, now), now)
    }

    /// Time passes as the broker's clock would let it: deadline by deadline.
    fn pass(&mut self, time: Duration) {
        let until = self.1 + time;
        while let Some(next) = self.0.next_deadline()
            && next <= until
        {
            self.1 = next;
            self.0.tick(next);
        }
        self.1 = until;
    }

    fn join(&mut self, member: TestMember) -> Receiver<JoinResult> {
        let (reply, answer) = oneshot::channel();
        let join = JoinRequest {
            member_id: id(member.id),
            instance_id: member.instance.map(StrBytes::from_static_str),
            client_id: StrBytes::from_static_str("client"),
            host: String::new(),
            session: member.session,
            rebalance: 30 * SECOND,
            protocol_type: StrBytes::from_static_str("consumer"),
            protocols: member
                .protocols
                .iter()
                .map(|&name| {
                    (
                        StrBytes::from_static_str(name),
                        Bytes::from(member.metadata),
                    )
                })
                .collect(),
            requires_member_id: member.requires_member_id,
            can_skip_assignment: member.can_skip_assignment,
            nonce: 7,
            reply,
        };
        self.0.join(join, self.1);
        answer
    }

    /// Joins a group of which nobody else has to rejoin.
    fn joined(&mut self, member: TestMember) -> JoinResult {
        self.join(member).try_recv().expect("joined at once")
    }

    fn sync(
        &mut self,
        member: &JoinResult,
        assignments: &[(&JoinResult, &'static str)],
    ) -> SyncReceiver {
        let (reply, answer) = oneshot::channel();
        let assignments = assignments.iter();
        let sync = SyncRequest {
            member_id: member.member_id.clone(),
            instance_id: None,
            generation: member.generation,
            protocol_type: member.protocol_type.clone(),
            protocol: member.protocol.clone(),
            assignments: assignments
                .map(|(to, what)| (to.member_id.clone(), Bytes::from(*what)))
                .collect(),
            reply,
        };
        self.0.sync(sync, self.1);
        answer
    }

    fn heartbeat(&mut self, member: &JoinResult) -> Result<(), ResponseError> {
        let (id, generation) = (&member.member_id, member.generation);
        self.0.heartbeat(id, None, generation, self.1)
    }

    /// Two members, stable; the first leads.
    fn two() -> (Self, JoinResult, JoinResult) {
        let mut clock = Self::new();
        let first = clock.joined(TestMember::default());
        clock.sync(&first, &[(&first, "all")]);
        let mut second = clock.join(TestMember::default());
        let mut first = clock.join(TestMember::again(&first));
        let first = first.try_recv().unwrap();
        let second = second.try_recv().unwrap();
        let mut waiting = clock.sync(&second, &[]);
        let mut led = clock.sync(&first, &[(&first, "one"), (&second, "two")]);
        assert_eq!(led.try_recv().unwrap().unwrap().assignment, "one");
        assert_eq!(waiting.try_recv().unwrap().unwrap().assignment, "two");
        assert_eq!(clock.0.state(), "Stable");
        (clock, first, second)
    }
}

type SyncReceiver = Receiver<Result<SyncResult, ResponseError>>;

#[derive(Clone)]
struct TestMember {
    id: String,
    instance: Option<&'static str>,
    protocols: &'static [&'static str],
    metadata: &'static str,
    requires_member_id: bool,
    can_skip_assignment: bool,
    session: Duration,
}

impl Default for TestMember {
    fn default() -> Self {
        Self {
            id: String::new(),
            instance: None,
            protocols: &["range"],
            metadata: "topics",
            requires_member_id: false,
            can_skip_assignment: false,
            session: 10 * SECOND,
        }
    }
}

impl TestMember {
    fn again(joined: &JoinResult) -> Self {
        Self {
            id: joined.member_id.to_string(),
            ..Self::default()
        }
    }

    fn of_instance(instance: &'static str) -> Self {
        Self {
            instance: Some(instance),
            ..Self::default()
        }
    }
}

fn id(id: String) -> StrBytes {
    StrBytes::from_string(id)
}

#[test]
fn the_first_member_leads_and_learns_who_is_there() {
    let mut clock = Clock::new();
    let joined = clock.joined(TestMember::default());
    assert_eq!((joined.error, joined.generation), (None, 1));
    assert_eq!(joined.leader, joined.member_id);
    assert_eq!(joined.members.len(), 1);
    assert_eq!(joined.members[0].metadata, "topics");
    assert_eq!(clock.0.state(), "CompletingRebalance");
    let synced = clock.sync(&joined, &[(&joined, "all")]).try_recv().unwrap();
    assert_eq!(synced.unwrap().assignment, "all");
    assert_eq!(clock.heartbeat(&joined), Ok(()));
}

#[test]
fn a_dynamic_member_joins_in_two_steps() {
    let mut clock = Clock::new();
    let step = TestMember {
        requires_member_id: true,
        ..TestMember::default()
    };
    let refused = clock.joined(step.clone());
    assert_eq!(refused.error, Some(ResponseError::MemberIdRequired));
    assert!(!refused.member_id.is_empty());
    let joined = clock.joined(TestMember {
        id: refused.member_id.to_string(),
        ..step.clone()
    });
    assert_eq!((joined.error, joined.generation), (None, 1));
    assert_eq!(joined.member_id, refused.member_id);

    let late = clock.joined(step.clone());
    clock.0.leave(&joined.member_id, None, clock.1).unwrap();
    clock.pass(11 * SECOND);
    let late = clock.joined(TestMember {
        id: late.member_id.to_string(),
        ..step
    });
    assert_eq!(late.error, Some(ResponseError::UnknownMemberId));
}

#[test]
fn a_newcomer_has_the_others_rejoin() {
    let (mut clock, first, second) = Clock::two();
    assert_eq!((first.generation, second.generation), (2, 2));
    assert_eq!(first.members.len(), 2);
    assert_eq!(second.members.len(), 0);
    let mut third = clock.join(TestMember::default());
    let rebalance = Err(ResponseError::RebalanceInProgress);
    assert_eq!(clock.heartbeat(&first), rebalance);
    let mut first = clock.join(TestMember::again(&first));
    assert!(third.try_recv().is_err(), "the second has not rejoined");
    let mut second = clock.join(TestMember::again(&second));
    for joined in [&mut first, &mut second, &mut third] {
        assert_eq!(joined.try_recv().unwrap().generation, 3);
    }
}

#[test]
fn who_does_not_rejoin_in_time_is_out() {
    let (mut clock, first, second) = Clock::two();
    let mut third = clock.join(TestMember::default());
    let mut first = clock.join(TestMember::again(&first));
    for _ in 0..4 {
        clock.pass(7 * SECOND);
        assert_eq!(
            clock.heartbeat(&second),
            Err(ResponseError::RebalanceInProgress)
        );
    }
    clock.pass(3 * SECOND);
    assert_eq!(first.try_recv().unwrap().members.len(), 2);
    third.try_recv().unwrap();
    assert_eq!(
        clock.heartbeat(&second),
        Err(ResponseError::UnknownMemberId)
    );
}

#[test]
fn the_history_tells_who_had_what_who_went_and_the_longest_gap_between_heartbeats() {
    let (mut clock, first, second) = Clock::two();
    clock.pass(3 * SECOND);
    clock.heartbeat(&first).unwrap();
    clock.pass(7 * SECOND);
    let history = clock.0.history();
    let last = history.assignments.last().unwrap();
    let given: Vec<_> = last.members.iter().map(|m| &m.assignment[..]).collect();
    assert_eq!((last.generation, given), (2, vec![&b"one"[..], b"two"]));
    let gone = &history.departures[..];
    assert_eq!(gone.len(), 1);
    assert_eq!(*gone[0].member_id, *second.member_id);
    assert_eq!(gone[0].cause, DepartureCause::SessionExpired);
    // The second was never heard again in its 10 s.
    assert_eq!(history.heartbeat_gap_max(clock.1), 10 * SECOND);
}

#[test]
fn a_silent_member_expires_and_a_parked_one_does_not() {
    let (mut clock, first, second) = Clock::two();
    clock.pass(6 * SECOND);
    clock.heartbeat(&first).unwrap();
    clock.pass(5 * SECOND);
    assert_eq!(
        clock.heartbeat(&second),
        Err(ResponseError::UnknownMemberId)
    );
    let mut first = clock.join(TestMember::again(&first));
    let first = first.try_recv().unwrap();
    assert_eq!((first.generation, first.members.len()), (3, 1));
    // parked behind a second member that heartbeats but does not rejoin
    clock.sync(&first, &[]);
    let mut second = clock.join(TestMember::default());
    let mut first = clock.join(TestMember::again(&first));
    let (first, second) = (first.try_recv().unwrap(), second.try_recv().unwrap());
    let mut parked = clock.sync(&second, &[]);
    for _ in 0..4 {
        clock.pass(6 * SECOND);
        clock.heartbeat(&first).unwrap();
    }
    assert!(parked.try_recv().is_err());
    assert_eq!(clock.0.members().len(), 2);
}

#[test]
fn who_does_not_sync_in_time_is_out() {
    let (mut clock, first, second) = Clock::two();
    clock.0.leave(&second.member_id, None, clock.1).unwrap();
    let first = clock.joined(TestMember::again(&first));
    let mut second = clock.join(TestMember::default());
    let mut first = clock.join(TestMember::again(&first));
    let (first, second) = (first.try_recv().unwrap(), second.try_recv().unwrap());
    clock.sync(&first, &[]);
    for _ in 0..5 {
        clock.pass(6 * SECOND);
        let _ = (clock.heartbeat(&first), clock.heartbeat(&second));
    }
    assert_eq!(
        clock.heartbeat(&second),
        Err(ResponseError::UnknownMemberId)
    );
    assert_eq!(
        clock.heartbeat(&first),
        Err(ResponseError::RebalanceInProgress)
    );
}

#[test]
fn a_follower_that_changes_nothing_disturbs_nobody() {
    let (mut clock, first, second) = Clock::two();
    let again = clock.joined(TestMember::again(&second));
    assert_eq!(again.generation, 2);
    assert_eq!(clock.heartbeat(&first), Ok(()));
    let _parked = clock.join(TestMember {
        metadata: "other topics",
        ..TestMember::again(&second)
    });
    assert_eq!(
        clock.heartbeat(&first),
        Err(ResponseError::RebalanceInProgress)
    );
}

#[test]
fn the_leader_leaves_and_another_takes_over() {
    let (mut clock, first, second) = Clock::two();
    clock.0.leave(&first.member_id, None, clock.1).unwrap();
    assert_eq!(
        clock.heartbeat(&second),
        Err(ResponseError::RebalanceInProgress)
    );
    let second = clock.joined(TestMember::again(&second));
    assert_eq!(second.leader, second.member_id);
    assert_eq!(second.members.len(), 1);
    clock.0.leave(&second.member_id, None, clock.1).unwrap();
    assert_eq!((clock.0.state(), clock.0.generation()), ("Empty", 4));
    assert!(clock.0.is_empty() && clock.0.next_deadline().is_none());
}

#[test]
fn old_generations_and_strangers_are_refused() {
    let (mut clock, first, second) = Clock::two();
    let old = JoinResult {
        generation: 1,
        ..first.clone()
    };
    assert_eq!(clock.heartbeat(&old), Err(ResponseError::IllegalGeneration));
    let synced = clock.sync(&old, &[]).try_recv().unwrap();
    assert_eq!(synced, Err(ResponseError::IllegalGeneration));
    let stranger = JoinResult {
        member_id: id("nobody".into()),
        ..first.clone()
    };
    assert_eq!(
        clock.heartbeat(&stranger),
        Err(ResponseError::UnknownMemberId)
    );
    let other = JoinResult {
        protocol: Some(id("sticky".into())),
        ..second
    };
    let synced = clock.sync(&other, &[]).try_recv().unwrap();
    assert_eq!(synced, Err(ResponseError::InconsistentGroupProtocol));
    let now = clock.1;
    let mut commit = |id: &StrBytes, generation| clock.0.check_commit(id, None, generation, now);
    assert_eq!(commit(&first.member_id, 2), Ok(()));
    assert_eq!(
        commit(&first.member_id, 1),
        Err(ResponseError::IllegalGeneration)
    );
    assert_eq!(
        commit(&StrBytes::new(), -1),
        Err(ResponseError::UnknownMemberId)
    );
}

#[test]
fn a_commit_is_taken_while_preparing_but_not_while_completing() {
    let (mut clock, first, _) = Clock::two();
    let mut third = clock.join(TestMember::default());
    let commit = |clock: &mut Clock, j: &JoinResult| {
        clock
            .0
            .check_commit(&j.member_id, None, j.generation, clock.1)
    };
    assert_eq!(commit(&mut clock, &first), Ok(()));
    clock.pass(10 * SECOND);
    let third = third.try_recv().unwrap();
    assert_eq!(
        commit(&mut clock, &third),
        Err(ResponseError::RebalanceInProgress)
    );
}

#[test]
fn the_protocol_is_one_that_all_know() {
    let mut clock = Clock::new();
    let first = clock.joined(TestMember {
        protocols: &["sticky", "range"],
        ..TestMember::default()
    });
    assert_eq!(first.protocol.as_deref(), Some("sticky"));
    let refused = clock.joined(TestMember {
        protocols: &["roundrobin"],
        ..TestMember::default()
    });
    let inconsistent = Some(ResponseError::InconsistentGroupProtocol);
    assert_eq!(refused.error, inconsistent);
    let mut second = clock.join(TestMember::default());
    let mut first = clock.join(TestMember {
        protocols: &["sticky", "range"],
        ..TestMember::again(&first)
    });
    for joined in [&mut first, &mut second] {
        assert_eq!(
            joined.try_recv().unwrap().protocol.as_deref(),
            Some("range")
        );
    }
}

#[test]
fn the_first_rebalance_waits_for_more_members() {
    let mut clock = Clock::with_delay(3 * SECOND);
    let mut first = clock.join(TestMember::default());
    clock.pass(2 * SECOND);
    let mut second = clock.join(TestMember::default());
    clock.pass(SECOND);
    assert!(first.try_recv().is_err(), "more came, so it waits again");
    clock.pass(3 * SECOND);
    assert_eq!(first.try_recv().unwrap().members.len(), 2);
    assert_eq!(second.try_recv().unwrap().generation, 1);
}

#[test]
fn limits_are_kept() {
    let mut clock = Clock::new();
    let short = clock.joined(TestMember {
        session: SECOND / 2,
        ..TestMember::default()
    });
    assert_eq!(short.error, Some(ResponseError::InvalidSessionTimeout));
    for _ in 0..4 {
        drop(clock.join(TestMember::default()));
    }
    let fifth = clock.joined(TestMember::default());
    assert_eq!(fifth.error, Some(ResponseError::GroupMaxSizeReached));
}

#[test]
fn a_restarted_static_member_takes_its_place_without_a_rebalance() {
    for can_skip_assignment in [false, true] {
        let mut clock = Clock::new();
        let member = TestMember {
            can_skip_assignment,
            ..TestMember::of_instance("a")
        };
        let first = clock.joined(member.clone());
        clock.sync_as("a", &first, "all");
        let again = clock.joined(member);
        assert_eq!((again.error, again.generation), (None, 1));
        assert_ne!(again.member_id, first.member_id);
        assert_eq!(again.skip_assignment, can_skip_assignment);
        assert_eq!(again.leader == again.member_id, can_skip_assignment);
        let fenced = clock.heartbeat_as("a", &first);
        assert_eq!(fenced, Err(ResponseError::FencedInstanceId));
        assert_eq!(clock.heartbeat_as("a", &again), Ok(()));
        assert_eq!(clock.sync_as("a", &again, ""), "all");
    }
}

#[test]
fn a_parked_static_member_is_fenced_by_its_successor() {
    let mut clock = Clock::with_delay(3 * SECOND);
    let mut first = clock.join(TestMember::of_instance("a"));
    let mut second = clock.join(TestMember::of_instance("a"));
    let fenced = first.try_recv().unwrap();
    assert_eq!(fenced.error, Some(ResponseError::FencedInstanceId));
    clock.pass(6 * SECOND);
    assert_eq!(second.try_recv().unwrap().error, None);
    assert_eq!(clock.0.members().len(), 1);
}

#[test]
fn a_static_member_that_is_away_stays_until_its_session_ends() {
    let mut clock = Clock::new();
    let first = clock.joined(TestMember {
        session: 50 * SECOND,
        ..TestMember::of_instance("a")
    });
    clock.sync_as("a", &first, "all");
    let mut second = clock.join(TestMember::of_instance("b"));
    clock.pass(31 * SECOND);
    let second = second.try_recv().unwrap();
    assert_eq!(second.members.len(), 2);
    assert_eq!(second.leader, second.member_id);
    let named = StrBytes::from_static_str("a");
    let left = clock.0.leave(&StrBytes::new(), Some(&named), clock.1);
    assert_eq!(left, Ok(()));
    assert_eq!(clock.0.members().len(), 1);
}

#[test]
fn whoever_is_parked_is_sent_to_the_new_coordinator() {
    let (mut clock, first, second) = Clock::two();
    let mut third = clock.join(TestMember::default());
    clock.0.resign(clock.1);
    let sent = third.try_recv().unwrap();
    assert_eq!(sent.error, Some(ResponseError::NotCoordinator));
    let _ = (
        clock.join(TestMember::again(&first)),
        clock.join(TestMember::again(&second)),
    );
    clock.pass(10 * SECOND);
    assert_eq!(clock.0.generation(), 3);
}

impl Clock {
    fn sync_as(
        &mut self,
        instance: &'static str,
        member: &JoinResult,
        what: &'static str,
    ) -> Bytes {
        let (reply, mut answer) = oneshot::channel();
        let sync = SyncRequest {
            member_id: member.member_id.clone(),
            instance_id: Some(StrBytes::from_static_str(instance)),
            generation: member.generation,
            protocol_type: None,
            protocol: None,
            assignments: vec![(member.member_id.clone(), Bytes::from(what))],
            reply,
        };
        self.0.sync(sync, self.1);
        answer.try_recv().unwrap().unwrap().assignment
    }

    fn heartbeat_as(
        &mut self,
        name: &'static str,
        member: &JoinResult,
    ) -> Result<(), ResponseError> {
        let instance = StrBytes::from_static_str(name);
        let (id, generation) = (&member.member_id, member.generation);
        self.0.heartbeat(id, Some(&instance), generation, self.1)
    }
}
