use kafka_protocol::error::ResponseError as E;

use super::super::error::{ConsumerError, PositionError};
use super::leaving::LEAVE_TIMEOUT;
use super::*;
use crate::TopicPartition;
use crate::error::{BrokerAddress, RequestError};

fn partitions(list: &[i32]) -> Vec<TopicPartition> {
    list.iter().map(|p| TopicPartition::new("t", *p)).collect()
}

/// Partitions with the number of their assignment.
fn assigned(list: &[(i32, u64)]) -> Vec<PartitionAssignment> {
    let assignment = |&(partition, number): &(i32, u64)| PartitionAssignment {
        tp: TopicPartition::new("t", partition),
        number,
    };
    list.iter().map(assignment).collect()
}

fn code(error: E) -> GroupError {
    GroupError::Code(error)
}

fn lost_connection() -> GroupError {
    GroupError::Request(RequestError::Disconnected {
        broker: BrokerAddress {
            id: BrokerId(1),
            address: "b:1".into(),
        },
        sent: true,
        reason: "reset".into(),
    })
}

/// A member and its clock.
struct MembershipHarness {
    member: Membership,
    now: Instant,
    /// Whether a connection for JoinGroup is still to come, rather than ready at once.
    in_line: bool,
}

const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(3);
const SESSION_TIMEOUT: Duration = Duration::from_secs(45);
const REVOCATION_TIMEOUT: Duration = Duration::from_secs(5);

impl MembershipHarness {
    fn new(instance: Option<&str>) -> Self {
        let now = Instant::now();
        let config = GroupRebalanceConfig {
            group_id: "g".into(),
            group_instance_id: instance.map(Into::into),
            topics: vec!["t".into()],
            rack: None,
            assignors: vec![AssignorName::CooperativeSticky, AssignorName::Range],
            session_timeout: SESSION_TIMEOUT,
            rebalance_timeout: HEARTBEAT_INTERVAL * 100,
            heartbeat_interval: HEARTBEAT_INTERVAL,
            revocation_timeout: REVOCATION_TIMEOUT,
            retry_backoff: Duration::from_millis(100),
            retry_backoff_max: Duration::from_secs(1),
        };
        let member = Membership::new(config, now);
        Self {
            member,
            now,
            in_line: false,
        }
    }

    fn handle(&mut self, event: MembershipEvent) -> Vec<MembershipAction> {
        let actions = self.member.handle(event, self.now);
        self.after_line(actions)
    }

    /// With what follows when the connection for JoinGroup is ready.
    fn after_line(&mut self, mut actions: Vec<MembershipAction>) -> Vec<MembershipAction> {
        let acquire = MembershipAction::AcquireJoinConnection;
        if !self.in_line
            && let Some(at) = actions.iter().position(|action| *action == acquire)
        {
            actions.splice(at..=at, self.connection_ready());
        }
        actions
    }

    fn connection_ready(&mut self) -> Vec<MembershipAction> {
        let broker = self.member.coordinator().expect("a coordinator");
        let ready = MembershipEvent::JoinConnectionReady(broker, Ok(()));
        self.member.handle(ready, self.now)
    }

    /// In line for JoinGroup because the group rebalances.
    fn in_line(protocol: &str, list: &[i32]) -> Self {
        let mut harness = Self::stable(protocol, list);
        harness.in_line = true;
        let actions = harness.heartbeat(Err(code(E::RebalanceInProgress)));
        assert_eq!(actions, [MembershipAction::AcquireJoinConnection]);
        harness
    }

    /// Goes on to the next deadline.
    fn wait(&mut self) -> Vec<MembershipAction> {
        let deadline = self.member.deadline().expect("something is due");
        assert!(deadline >= self.now, "time goes on");
        self.now = deadline;
        let actions = self.member.poll(self.now);
        self.after_line(actions)
    }

    fn coordinator_found(&mut self) -> Vec<MembershipAction> {
        self.handle(MembershipEvent::FindCoordinatorResponse(Ok(BrokerId(1))))
    }

    fn join_as(&mut self, protocol: &str, generation: i32) -> Vec<MembershipAction> {
        self.handle(MembershipEvent::JoinGroupResponse(Ok(
            JoinGroupResult::Joined {
                member_id: "m-1".to_owned(),
                generation,
                protocol: protocol.to_owned(),
                leader_input: None,
            },
        )))
    }

    fn assign(&mut self, list: &[i32]) -> Vec<MembershipAction> {
        self.handle(MembershipEvent::SyncGroupResponse(Ok(partitions(list))))
    }

    fn initialize(&mut self, list: &[(i32, u64)]) {
        let actions = self.handle(MembershipEvent::PositionsInitialized(assigned(list)));
        assert_eq!(actions, []);
    }

    fn is_handed_over(&self, partition: i32, number: u64) -> bool {
        let assignment = &assigned(&[(partition, number)])[0];
        self.member.is_handed_over(assignment)
    }

    /// Stable with these partitions, whose assignments are numbered from 1 on, in generation 1.
    fn stable(protocol: &str, list: &[i32]) -> Self {
        let mut harness = Self::new(None);
        assert_eq!(
            harness.member.poll(harness.now),
            [MembershipAction::FindCoordinator]
        );
        assert_eq!(harness.coordinator_found(), [MembershipAction::JoinGroup]);
        assert_eq!(harness.join_as(protocol, 1), [MembershipAction::SyncGroup]);
        let numbered: Vec<_> = list.iter().copied().zip(1..).collect();
        assert_eq!(
            harness.assign(list),
            [MembershipAction::InitializePositions(assigned(&numbered))]
        );
        harness.initialize(&numbered);
        harness
    }

    fn owned(&self) -> Vec<TopicPartition> {
        let assignor = AssignorName::CooperativeSticky;
        self.member.subscription(assignor).owned
    }

    fn heartbeat(&mut self, result: Result<(), GroupError>) -> Vec<MembershipAction> {
        assert_eq!(self.wait(), [MembershipAction::Heartbeat]);
        let now = Generation {
            generation_id: self.member.generation(),
            member_id: self.member.member_id().to_owned(),
        };
        self.handle(MembershipEvent::HeartbeatResponse(now, result))
    }
}

/// Of the member `m-1`, which [`MembershipHarness::stable`] makes.
fn generation(generation_id: i32) -> Generation {
    let member_id = "m-1".to_owned();
    Generation {
        generation_id,
        member_id,
    }
}

const COOPERATIVE: &str = "cooperative-sticky";

#[test]
fn a_member_sends_a_heartbeat_soon_when_another_in_this_process_joins_or_leaves() {
    let mut harness = MembershipHarness::stable(COOPERATIVE, &[0]);
    let at = harness.now;
    assert_eq!(harness.handle(MembershipEvent::LocalMembersChanged), []);
    assert_eq!(harness.wait(), [MembershipAction::Heartbeat]);
    assert!(harness.now - at < Duration::from_millis(100));
    // It reported no rebalance: the usual interval again.
    harness.handle(MembershipEvent::HeartbeatResponse(generation(1), Ok(())));
    assert_eq!(harness.wait(), [MembershipAction::Heartbeat]);
    assert!(harness.now - at > HEARTBEAT_INTERVAL);
}

#[test]
fn a_new_member_joins_again_with_the_member_id_that_the_broker_gave_it() {
    let mut harness = MembershipHarness::new(None);
    harness.member.poll(harness.now);
    assert_eq!(harness.coordinator_found(), [MembershipAction::JoinGroup]);
    let id_required =
        MembershipEvent::JoinGroupResponse(Ok(JoinGroupResult::MemberIdRequired("m-1".to_owned())));
    assert_eq!(harness.handle(id_required), [MembershipAction::JoinGroup]);
    assert_eq!(harness.member.member_id(), "m-1");
}

#[test]
fn heartbeats_start_before_the_positions_are_known() {
    let mut harness = MembershipHarness::new(None);
    harness.member.poll(harness.now);
    harness.coordinator_found();
    harness.join_as(COOPERATIVE, 1);
    harness.assign(&[0]);
    assert_eq!(harness.wait(), [MembershipAction::Heartbeat]);
    let session_ends = harness.now - HEARTBEAT_INTERVAL + SESSION_TIMEOUT;
    assert_eq!(
        harness.member.deadline(),
        Some(session_ends),
        "one heartbeat at a time"
    );
    let at = harness.now;
    assert_eq!(
        harness.handle(MembershipEvent::HeartbeatResponse(generation(1), Ok(()))),
        []
    );
    assert_eq!(harness.wait(), [MembershipAction::Heartbeat]);
    assert_eq!(harness.now - at, HEARTBEAT_INTERVAL);
}

#[test]
fn a_cooperative_member_keeps_reading_while_it_rejoins() {
    let mut harness = MembershipHarness::stable(COOPERATIVE, &[0, 1]);
    let rebalance = Err(code(E::RebalanceInProgress));
    assert_eq!(harness.heartbeat(rebalance), [MembershipAction::JoinGroup]);
    assert_eq!(harness.owned(), partitions(&[0, 1]));
    assert!(
        harness.member.can_commit(),
        "of the generation that still counts"
    );
    assert_eq!(
        harness.join_as(COOPERATIVE, 2),
        [MembershipAction::SyncGroup]
    );
    assert!(!harness.member.can_commit());
    let new = harness.assign(&[0, 1, 2]);
    assert_eq!(
        new,
        [MembershipAction::InitializePositions(assigned(&[(2, 3)]))]
    );
}

#[test]
fn a_cooperative_member_releases_what_moves_and_then_rejoins() {
    let mut harness = MembershipHarness::stable(COOPERATIVE, &[0, 1, 2]);
    harness.heartbeat(Err(code(E::RebalanceInProgress)));
    harness.join_as(COOPERATIVE, 2);
    let actions = harness.assign(&[0, 3]);
    let revoke = MembershipAction::Revoke(1, assigned(&[(1, 2), (2, 3)]));
    let initialize = MembershipAction::InitializePositions(assigned(&[(3, 4)]));
    assert_eq!(actions, [revoke, initialize]);
    assert_eq!(harness.owned(), partitions(&[0, 3]));
    assert!(harness.member.can_commit() && harness.is_handed_over(1, 2));
    assert_eq!(
        harness.handle(MembershipEvent::RevocationComplete(0)),
        [],
        "of an older revocation"
    );
    assert_eq!(
        harness.handle(MembershipEvent::RevocationComplete(1)),
        [MembershipAction::JoinGroup]
    );
    assert!(!harness.is_handed_over(1, 2));
    assert!(harness.is_handed_over(0, 1));
}

#[test]
fn an_eager_member_releases_everything_before_it_rejoins() {
    let mut harness = MembershipHarness::stable("range", &[0, 1]);
    let actions = harness.heartbeat(Err(code(E::RebalanceInProgress)));
    assert_eq!(
        actions,
        [MembershipAction::Revoke(1, assigned(&[(0, 1), (1, 2)]))]
    );
    assert!(harness.member.can_commit());
    assert_eq!(
        harness.handle(MembershipEvent::RevocationComplete(1)),
        [MembershipAction::JoinGroup]
    );
    assert_eq!(harness.owned(), []);
    assert!(!harness.member.can_commit());
    harness.join_as("range", 2);
    // The same partitions again: their positions have to be looked up again.
    let actions = harness.assign(&[0, 1]);
    assert_eq!(
        actions,
        [MembershipAction::InitializePositions(assigned(&[
            (0, 3),
            (1, 4)
        ]))]
    );
}

#[test]
fn a_consumer_that_does_not_release_partitions_loses_them() {
    let mut harness = MembershipHarness::stable("range", &[0]);
    harness.heartbeat(Err(code(E::RebalanceInProgress)));
    let until = harness.now + REVOCATION_TIMEOUT;
    // Heartbeats go on, and the rebalance that they report is known already.
    let rebalance = || Err(code(E::RebalanceInProgress));
    assert_eq!(harness.heartbeat(rebalance()), []);
    let lost = MembershipAction::Lose(assigned(&[(0, 1)]));
    assert_eq!(harness.wait(), [lost, MembershipAction::JoinGroup]);
    assert_eq!(harness.now, until);
    assert_eq!(
        harness.handle(MembershipEvent::RevocationComplete(1)),
        [],
        "too late"
    );
}

#[test]
fn a_group_that_falls_back_to_eager_takes_what_it_assigned_elsewhere() {
    let mut harness = MembershipHarness::stable(COOPERATIVE, &[0, 1]);
    harness.heartbeat(Err(code(E::RebalanceInProgress)));
    harness.join_as("range", 2);
    let actions = harness.assign(&[1, 2]);
    let lost = MembershipAction::Lose(assigned(&[(0, 1)]));
    assert_eq!(
        actions,
        [
            lost,
            MembershipAction::InitializePositions(assigned(&[(2, 3)]))
        ]
    );
}

#[test]
fn an_unknown_member_loses_everything_and_starts_over() {
    for protocol in [COOPERATIVE, "range"] {
        let mut harness = MembershipHarness::stable(protocol, &[0]);
        let actions = harness.heartbeat(Err(code(E::UnknownMemberId)));
        assert_eq!(
            actions,
            [
                MembershipAction::Lose(assigned(&[(0, 1)])),
                MembershipAction::JoinGroup
            ]
        );
        assert_eq!(
            (harness.member.member_id(), harness.member.generation()),
            ("", -1)
        );
        assert_eq!(harness.owned(), []);
    }
}

#[test]
fn a_member_of_an_old_generation_keeps_its_member_id() {
    let mut harness = MembershipHarness::stable(COOPERATIVE, &[0]);
    let actions = harness.heartbeat(Err(code(E::IllegalGeneration)));
    assert_eq!(
        actions,
        [
            MembershipAction::Lose(assigned(&[(0, 1)])),
            MembershipAction::JoinGroup
        ]
    );
    assert_eq!(
        (harness.member.member_id(), harness.member.generation()),
        ("m-1", -1)
    );
}

#[test]
fn an_error_of_an_older_generation_is_ignored() {
    let mut harness = MembershipHarness::stable(COOPERATIVE, &[0]);
    let failed = MembershipEvent::CommitFailed(generation(0), code(E::IllegalGeneration));
    assert_eq!(harness.handle(failed), []);
    // Nor while JoinGroup is in flight.
    harness.heartbeat(Err(code(E::RebalanceInProgress)));
    let failed = MembershipEvent::CommitFailed(generation(1), code(E::IllegalGeneration));
    assert_eq!(harness.handle(failed), []);
}

#[test]
fn what_a_former_self_asked_says_nothing_of_the_member_in_its_place() {
    for error in [
        E::UnknownMemberId,
        E::FencedInstanceId,
        E::IllegalGeneration,
    ] {
        let mut harness = MembershipHarness::stable(COOPERATIVE, &[0]);
        let of_former_self = Generation {
            generation_id: 1,
            member_id: "m-0".into(),
        };
        let failed = MembershipEvent::CommitFailed(of_former_self.clone(), code(error));
        assert_eq!(harness.handle(failed), []);
        let response = MembershipEvent::HeartbeatResponse(of_former_self, Err(code(error)));
        assert_eq!(harness.handle(response), []);
        assert_eq!(harness.owned(), partitions(&[0]));
    }
}

#[test]
fn a_failed_commit_starts_the_rejoin_as_well() {
    let mut harness = MembershipHarness::stable(COOPERATIVE, &[0]);
    let failed = MembershipEvent::CommitFailed(generation(1), code(E::RebalanceInProgress));
    assert_eq!(harness.handle(failed), [MembershipAction::JoinGroup]);
    let mut harness = MembershipHarness::stable(COOPERATIVE, &[0]);
    let failed = MembershipEvent::CommitFailed(generation(1), code(E::UnknownMemberId));
    let lost = MembershipAction::Lose(assigned(&[(0, 1)]));
    assert_eq!(harness.handle(failed), [lost, MembershipAction::JoinGroup]);
}

#[test]
fn a_coordinator_that_moves_costs_no_partitions() {
    for failure in [
        code(E::NotCoordinator),
        code(E::CoordinatorNotAvailable),
        lost_connection(),
    ] {
        let mut harness = MembershipHarness::stable(COOPERATIVE, &[0]);
        assert_eq!(
            harness.heartbeat(Err(failure)),
            [MembershipAction::FindCoordinator]
        );
        assert!(!harness.member.can_commit());
        assert_eq!(harness.coordinator_found(), []);
        assert_eq!(harness.wait(), [MembershipAction::Heartbeat]);
        assert_eq!(harness.owned(), partitions(&[0]));
    }
}

#[test]
fn heartbeats_go_on_while_the_coordinator_is_looked_up_for_a_failed_commit() {
    let mut harness = MembershipHarness::stable(COOPERATIVE, &[0]);
    let failed = MembershipEvent::CommitFailed(generation(1), lost_connection());
    assert_eq!(harness.handle(failed), [MembershipAction::FindCoordinator]);
    assert!(!harness.member.can_commit());
    // The lookup is not answered.
    for _ in 0..10 {
        assert_eq!(harness.heartbeat(Ok(())), []);
        assert_eq!(harness.member.heartbeat_coordinator(), Some(BrokerId(1)));
    }
    // Until a heartbeat fails too.
    assert_eq!(harness.heartbeat(Err(code(E::NotCoordinator))), []);
    assert_eq!(harness.member.heartbeat_coordinator(), None);
    assert_eq!(harness.coordinator_found(), []);
    assert_eq!(harness.wait(), [MembershipAction::Heartbeat]);
}

#[test]
fn a_member_that_waits_in_line_to_rejoin_sends_heartbeats_and_commits() {
    let mut harness = MembershipHarness::in_line(COOPERATIVE, &[0]);
    for _ in 0..10 {
        let rebalance = Err(code(E::RebalanceInProgress));
        assert_eq!(harness.heartbeat(rebalance), []);
        assert!(harness.member.can_commit());
        assert_eq!(harness.owned(), partitions(&[0]));
    }
    assert_eq!(harness.connection_ready(), [MembershipAction::JoinGroup]);
    assert_eq!(harness.member.deadline(), None, "JoinGroup keeps it alive");
}

#[test]
fn a_member_that_the_group_forgets_keeps_its_place_in_line() {
    let mut harness = MembershipHarness::in_line(COOPERATIVE, &[0]);
    let lost = MembershipAction::Lose(assigned(&[(0, 1)]));
    let forgotten = Err(code(E::UnknownMemberId));
    assert_eq!(harness.heartbeat(forgotten), [lost]);
    assert_eq!(harness.member.member_id(), "");
    assert_eq!(harness.member.deadline(), None);
    assert_eq!(harness.connection_ready(), [MembershipAction::JoinGroup]);
}

#[test]
fn a_place_in_line_is_kept_while_the_coordinator_is_looked_up() {
    let mut harness = MembershipHarness::in_line(COOPERATIVE, &[0]);
    let failed = MembershipEvent::CommitFailed(generation(1), lost_connection());
    assert_eq!(harness.handle(failed), [MembershipAction::FindCoordinator]);
    let ready = MembershipEvent::JoinConnectionReady(BrokerId(1), Ok(()));
    assert_eq!(harness.handle(ready), []);
    assert_eq!(harness.coordinator_found(), [MembershipAction::JoinGroup]);
}

#[test]
fn a_place_in_line_is_given_up_when_the_coordinator_moves_or_the_member_leaves() {
    let mut harness = MembershipHarness::in_line(COOPERATIVE, &[0]);
    let moved = Err(code(E::NotCoordinator));
    assert_eq!(
        harness.heartbeat(moved),
        [MembershipAction::FindCoordinator]
    );
    let actions = harness.handle(MembershipEvent::FindCoordinatorResponse(Ok(BrokerId(2))));
    let again = [
        MembershipAction::CancelRebalance,
        MembershipAction::AcquireJoinConnection,
    ];
    assert_eq!(actions, again);
    let old = MembershipEvent::JoinConnectionReady(BrokerId(1), Ok(()));
    assert_eq!(harness.handle(old), []);
    assert_eq!(
        harness.handle(MembershipEvent::LeaveRequested),
        [
            MembershipAction::CancelRebalance,
            MembershipAction::LeaveGroup
        ]
    );
}

#[test]
fn a_member_whose_cluster_is_replaced_loses_everything_and_joins_as_a_new_one() {
    for protocol in ["range", "cooperative-sticky"] {
        let mut harness = MembershipHarness::stable(protocol, &[0, 1]);
        let former = generation(1);
        assert_eq!(
            harness.handle(MembershipEvent::ClusterReplaced),
            [
                MembershipAction::Lose(assigned(&[(0, 1), (1, 2)])),
                MembershipAction::FindCoordinator
            ]
        );
        assert_eq!(harness.member.member_id(), "");
        assert_eq!(harness.member.generation(), -1);
        assert!(!harness.member.can_commit());
        // What the old cluster says of its member changes nothing.
        let answer = MembershipEvent::HeartbeatResponse(former, Err(code(E::FencedInstanceId)));
        assert_eq!(harness.handle(answer), []);
        let found = harness.coordinator_found();
        let joins = [MembershipAction::JoinGroup];
        assert!(found == joins || harness.wait() == joins);
    }
    // In the middle of a join, and in line for one.
    let mut harness = MembershipHarness::in_line("cooperative-sticky", &[0]);
    let actions = harness.handle(MembershipEvent::ClusterReplaced);
    assert!(actions.contains(&MembershipAction::CancelRebalance));
    // Of one that leaves nothing is left to do.
    let mut harness = MembershipHarness::stable("range", &[0]);
    harness.handle(MembershipEvent::LeaveRequested);
    let actions = harness.handle(MembershipEvent::ClusterReplaced);
    assert!(actions.contains(&MembershipAction::Close));
}

#[test]
fn a_session_that_may_be_over_loses_its_partitions_when_the_broker_may_end_it() {
    for in_line in [false, true] {
        let mut harness = if in_line {
            MembershipHarness::in_line(COOPERATIVE, &[0])
        } else {
            MembershipHarness::stable(COOPERATIVE, &[0])
        };
        assert_eq!(harness.wait(), [MembershipAction::Heartbeat]);
        let sent_at = harness.now;
        // The answer comes late: the broker counts from when it had the request.
        harness.now += HEARTBEAT_INTERVAL * 3;
        harness.handle(MembershipEvent::HeartbeatResponse(generation(1), Ok(())));
        assert_eq!(harness.wait(), [MembershipAction::Heartbeat]);
        let mut actions = harness.wait();
        assert_eq!(harness.now, sent_at + SESSION_TIMEOUT);
        assert_eq!(
            actions.remove(0),
            MembershipAction::Lose(assigned(&[(0, 1)]))
        );
        let join = [MembershipAction::JoinGroup];
        assert_eq!(actions, if in_line { &[][..] } else { &join[..] });
        assert_eq!(harness.member.generation(), -1);
        assert!(!harness.member.can_commit());
        // The answer that comes after all changes nothing.
        assert_eq!(
            harness.handle(MembershipEvent::HeartbeatResponse(generation(1), Ok(()))),
            []
        );
    }
}

#[test]
fn an_answer_that_refuses_the_member_does_not_prolong_its_session() {
    let mut harness = MembershipHarness::stable(COOPERATIVE, &[0]);
    let start = harness.now;
    let loading = || Err(code(E::CoordinatorLoadInProgress));
    while harness.now < start + SESSION_TIMEOUT - HEARTBEAT_INTERVAL {
        assert_eq!(harness.heartbeat(loading()), []);
    }
    let actions = harness.wait();
    assert_eq!(harness.now, start + SESSION_TIMEOUT);
    assert!(
        actions.contains(&MembershipAction::Lose(assigned(&[(0, 1)]))),
        "{actions:?}"
    );
}

#[test]
fn a_coordinator_lookup_that_fails_backs_off() {
    let mut harness = MembershipHarness::new(None);
    harness.member.poll(harness.now);
    let mut waits = Vec::new();
    for _ in 0..6 {
        let failed =
            MembershipEvent::FindCoordinatorResponse(Err(code(E::CoordinatorNotAvailable)));
        assert_eq!(harness.handle(failed), []);
        let before = harness.now;
        assert_eq!(harness.wait(), [MembershipAction::FindCoordinator]);
        waits.push(harness.now - before);
    }
    assert!(waits[0] < Duration::from_millis(200), "{waits:?}");
    assert!(waits[5] > Duration::from_millis(700), "{waits:?}");
    assert_eq!(harness.coordinator_found(), [MembershipAction::JoinGroup]);
}

#[test]
fn a_join_that_fails_is_repeated_at_once_and_then_backs_off() {
    let mut harness = MembershipHarness::new(None);
    harness.member.poll(harness.now);
    harness.coordinator_found();
    let failed = |harness: &mut MembershipHarness| {
        harness.handle(MembershipEvent::JoinGroupResponse(Err(code(
            E::CoordinatorLoadInProgress,
        ))))
    };
    assert_eq!(failed(&mut harness), [MembershipAction::JoinGroup]);
    assert_eq!(failed(&mut harness), []);
    let before = harness.now;
    assert_eq!(harness.wait(), [MembershipAction::JoinGroup]);
    assert!(harness.now > before);
}

#[test]
fn a_join_whose_connection_was_lost_looks_up_the_coordinator_first() {
    let mut harness = MembershipHarness::new(None);
    harness.member.poll(harness.now);
    harness.coordinator_found();
    let failed = MembershipEvent::JoinGroupResponse(Err(lost_connection()));
    assert_eq!(harness.handle(failed), [MembershipAction::FindCoordinator]);
    assert_eq!(harness.coordinator_found(), [MembershipAction::JoinGroup]);
}

#[test]
fn a_sync_during_the_next_rebalance_joins_that_one() {
    let mut harness = MembershipHarness::stable(COOPERATIVE, &[0]);
    harness.heartbeat(Err(code(E::RebalanceInProgress)));
    harness.join_as(COOPERATIVE, 2);
    let failed = MembershipEvent::SyncGroupResponse(Err(code(E::RebalanceInProgress)));
    assert_eq!(harness.handle(failed), [MembershipAction::JoinGroup]);
    assert_eq!(harness.owned(), partitions(&[0]));
    harness.join_as(COOPERATIVE, 3);
    let failed = MembershipEvent::SyncGroupResponse(Err(code(E::UnknownMemberId)));
    assert_eq!(
        harness.handle(failed)[0],
        MembershipAction::Lose(assigned(&[(0, 1)]))
    );
}

#[test]
fn a_fatal_error_ends_the_membership() {
    let refusals = [
        (E::FencedInstanceId, "taken over"),
        (E::GroupAuthorizationFailed, "not authorized"),
        (E::InconsistentGroupProtocol, "refuses"),
        (E::GroupMaxSizeReached, "refuses"),
        (E::InvalidSessionTimeout, "refuses"),
        (E::InvalidGroupId, "refuses"),
    ];
    for (error, text) in refusals {
        let mut harness = MembershipHarness::new(Some("i"));
        harness.member.poll(harness.now);
        harness.coordinator_found();
        let actions = harness.handle(MembershipEvent::JoinGroupResponse(Err(code(error))));
        let [
            MembershipAction::FailConsumer(reason),
            MembershipAction::CancelRebalance,
            MembershipAction::Close,
        ] = &actions[..]
        else {
            panic!("{error}: {actions:?}");
        };
        assert!(reason.to_string().contains(text), "{reason}");
        assert!(harness.member.is_closed());
        assert_eq!(harness.member.deadline(), None);
        assert_eq!(harness.coordinator_found(), []);
    }
    let mut harness = MembershipHarness::stable(COOPERATIVE, &[0]);
    let actions = harness.heartbeat(Err(code(E::FencedInstanceId)));
    assert!(matches!(
        actions[..],
        [
            MembershipAction::FailConsumer(ConsumerError::Fenced { .. }),
            MembershipAction::Close
        ]
    ));
}

#[test]
fn a_member_whose_consumer_fails_leaves_its_group() {
    let mut harness = MembershipHarness::stable(COOPERATIVE, &[0]);
    let actions = harness.heartbeat(Err(code(E::GroupAuthorizationFailed)));
    assert!(
        matches!(
            actions[..],
            [
                MembershipAction::FailConsumer(ConsumerError::GroupNotAuthorized { .. }),
                MembershipAction::LeaveGroup
            ]
        ),
        "{actions:?}"
    );
    assert!(!harness.member.can_commit());
    let left = harness.handle(MembershipEvent::LeaveGroupResponse(Ok(())));
    assert_eq!(left.last(), Some(&MembershipAction::Close));

    // In bounded time, if nobody answers.
    let mut harness = MembershipHarness::stable(COOPERATIVE, &[0]);
    harness.heartbeat(Err(code(E::GroupAuthorizationFailed)));
    let start = harness.now;
    assert_eq!(harness.wait().last(), Some(&MembershipAction::Close));
    assert_eq!(harness.now - start, LEAVE_TIMEOUT);

    // Between JoinGroup and SyncGroup, too.
    let mut harness = MembershipHarness::new(Some("i"));
    harness.member.poll(harness.now);
    harness.coordinator_found();
    harness.join_as(COOPERATIVE, 1);
    let refused = MembershipEvent::SyncGroupResponse(Err(code(E::InconsistentGroupProtocol)));
    let actions = harness.handle(refused);
    assert_eq!(actions.last(), Some(&MembershipAction::LeaveGroup));
}

#[test]
fn a_protocol_that_was_not_offered_ends_the_membership() {
    let mut harness = MembershipHarness::new(None);
    harness.member.poll(harness.now);
    harness.coordinator_found();
    let actions = harness.join_as("sticky", 1);
    assert!(
        matches!(
            actions[..],
            [
                MembershipAction::FailConsumer(_),
                MembershipAction::CancelRebalance,
                MembershipAction::LeaveGroup
            ]
        ),
        "{actions:?}"
    );
}

#[test]
fn positions_that_cannot_be_looked_up_reset_the_generation() {
    let mut harness = MembershipHarness::stable(COOPERATIVE, &[0]);
    harness.heartbeat(Err(code(E::RebalanceInProgress)));
    harness.join_as(COOPERATIVE, 2);
    harness.assign(&[0, 1]);
    let failed = MembershipEvent::PositionsFailed(assigned(&[(1, 2)]), PositionError::RejoinNeeded);
    let actions = harness.handle(failed);
    assert_eq!(
        actions,
        [
            MembershipAction::Lose(assigned(&[(0, 1)])),
            MembershipAction::JoinGroup
        ]
    );
    assert_eq!(harness.member.generation(), -1);
    assert_eq!(
        harness.handle(MembershipEvent::PositionsInitialized(assigned(&[(1, 2)]))),
        []
    );
    assert!(!harness.is_handed_over(1, 2));
}

#[test]
fn positions_survive_a_rebalance_that_leaves_their_partitions() {
    let mut harness = MembershipHarness::new(None);
    harness.member.poll(harness.now);
    harness.coordinator_found();
    harness.join_as(COOPERATIVE, 1);
    harness.assign(&[0, 1]);
    harness.heartbeat(Err(code(E::RebalanceInProgress)));
    harness.join_as(COOPERATIVE, 2);
    // 0 and 1 are still being looked up; 1 is revoked before it was handed over: rejoin at once.
    assert_eq!(harness.assign(&[0]), [MembershipAction::JoinGroup]);
    harness.initialize(&[(0, 1), (1, 2)]);
    assert!(harness.is_handed_over(0, 1));
    assert!(!harness.is_handed_over(1, 2));
}

/// A member whose partition 0 was assigned (1), revoked before its position was known, and
/// assigned again (2).
fn assigned_again() -> MembershipHarness {
    let mut harness = MembershipHarness::new(None);
    harness.member.poll(harness.now);
    harness.coordinator_found();
    harness.join_as(COOPERATIVE, 1);
    assert_eq!(
        harness.assign(&[0]),
        [MembershipAction::InitializePositions(assigned(&[(0, 1)]))]
    );
    harness.heartbeat(Err(code(E::RebalanceInProgress)));
    harness.join_as(COOPERATIVE, 2);
    assert_eq!(harness.assign(&[]), [MembershipAction::JoinGroup]);
    harness.join_as(COOPERATIVE, 3);
    assert_eq!(
        harness.assign(&[0]),
        [MembershipAction::InitializePositions(assigned(&[(0, 2)]))]
    );
    harness
}

#[test]
fn a_position_that_was_asked_for_a_former_assignment_is_not_taken_for_the_next() {
    let mut harness = assigned_again();
    harness.initialize(&[(0, 1)]);
    assert!(!harness.is_handed_over(0, 1) && !harness.is_handed_over(0, 2));
    let still_needed = &assigned(&[(0, 2)])[0];
    assert!(harness.member.is_initializing(still_needed));
    harness.initialize(&[(0, 2)]);
    assert!(harness.is_handed_over(0, 2) && !harness.is_handed_over(0, 1));
    // In the other order.
    harness.initialize(&[(0, 1)]);
    assert!(harness.is_handed_over(0, 2) && !harness.is_handed_over(0, 1));
}

#[test]
fn a_failure_that_concerns_a_former_assignment_does_not_end_the_next() {
    let fatal = PositionError::Fatal(ConsumerError::NoCommittedOffset {
        group: "g".into(),
        tp: TopicPartition::new("t", 0),
    });
    for error in [fatal, PositionError::RejoinNeeded] {
        let mut harness = assigned_again();
        let failed = MembershipEvent::PositionsFailed(assigned(&[(0, 1)]), error);
        assert_eq!(harness.handle(failed), []);
        harness.initialize(&[(0, 2)]);
        assert!(harness.is_handed_over(0, 2));
    }
}

#[test]
fn an_offset_stored_under_a_revoked_assignment_may_not_be_committed_under_the_next() {
    let mut harness = MembershipHarness::stable(COOPERATIVE, &[0, 1]);
    harness.heartbeat(Err(code(E::RebalanceInProgress)));
    harness.join_as(COOPERATIVE, 2);
    let revoke = MembershipAction::Revoke(1, assigned(&[(1, 2)]));
    assert_eq!(harness.assign(&[0]), [revoke]);
    assert!(harness.is_handed_over(1, 2), "its last offset is committed");
    harness.handle(MembershipEvent::RevocationComplete(1));
    harness.join_as(COOPERATIVE, 3);
    harness.assign(&[0, 1]);
    harness.initialize(&[(1, 3)]);
    assert!(harness.is_handed_over(1, 3) && harness.is_handed_over(0, 1));
    assert!(!harness.is_handed_over(1, 2));
    // Nor does the former revocation end the next assignment.
    assert_eq!(harness.handle(MembershipEvent::RevocationComplete(1)), []);
    assert!(harness.is_handed_over(1, 3));
}

#[test]
fn partitions_without_a_starting_offset_end_the_consumer() {
    let mut harness = MembershipHarness::stable(COOPERATIVE, &[0]);
    let error = ConsumerError::NoCommittedOffset {
        group: "g".into(),
        tp: TopicPartition::new("t", 0),
    };
    let failed =
        MembershipEvent::PositionsFailed(assigned(&[(0, 1)]), PositionError::Fatal(error.clone()));
    let actions = harness.handle(failed);
    assert_eq!(actions, [MembershipAction::FailConsumer(error)]);
    assert!(harness.member.can_commit(), "what was read of others");
    assert_eq!(
        harness.handle(MembershipEvent::LeaveRequested),
        [MembershipAction::LeaveGroup]
    );
}

#[test]
fn a_leader_whose_topics_changed_rejoins() {
    let mut harness = MembershipHarness::stable(COOPERATIVE, &[0]);
    assert_eq!(
        harness.handle(MembershipEvent::TopicsChanged),
        [MembershipAction::JoinGroup]
    );
    // A change in the middle of a rebalance is acted upon after it.
    harness.join_as(COOPERATIVE, 2);
    assert_eq!(harness.handle(MembershipEvent::TopicsChanged), []);
    assert_eq!(harness.assign(&[0]), [MembershipAction::JoinGroup]);
}

#[test]
fn partitions_of_topics_without_a_subscription_are_ignored() {
    let mut harness = MembershipHarness::new(None);
    harness.member.poll(harness.now);
    harness.coordinator_found();
    harness.join_as(COOPERATIVE, 1);
    let synced = MembershipEvent::SyncGroupResponse(Ok(vec![TopicPartition::new("other", 0)]));
    assert_eq!(harness.handle(synced), []);
}

#[test]
fn a_member_leaves_under_its_member_id() {
    let mut harness = MembershipHarness::stable(COOPERATIVE, &[0]);
    assert_eq!(
        harness.handle(MembershipEvent::LeaveRequested),
        [MembershipAction::LeaveGroup]
    );
    assert_eq!(harness.handle(MembershipEvent::LeaveRequested), []);
    let actions = harness.handle(MembershipEvent::LeaveGroupResponse(Ok(())));
    assert_eq!(
        actions,
        [MembershipAction::CancelRebalance, MembershipAction::Close]
    );
}

#[test]
fn a_member_that_leaves_before_it_has_a_member_id_leaves_under_the_new_one() {
    let mut harness = MembershipHarness::new(None);
    harness.member.poll(harness.now);
    harness.coordinator_found();
    assert_eq!(harness.handle(MembershipEvent::LeaveRequested), []);
    let id_required =
        MembershipEvent::JoinGroupResponse(Ok(JoinGroupResult::MemberIdRequired("m-9".to_owned())));
    assert_eq!(harness.handle(id_required), [MembershipAction::LeaveGroup]);
    assert_eq!(harness.member.member_id(), "m-9");
}

#[test]
fn a_static_member_never_leaves_by_its_instance_alone() {
    let mut harness = MembershipHarness::new(Some("i"));
    harness.member.poll(harness.now);
    harness.coordinator_found();
    // Another member may have the instance id by the time of LeaveGroup.
    assert_eq!(harness.handle(MembershipEvent::LeaveRequested), []);
    assert_eq!(
        harness.join_as(COOPERATIVE, 1),
        [MembershipAction::LeaveGroup]
    );
    assert_eq!(harness.member.member_id(), "m-1");

    // One whose JoinGroup is not answered in time leaves nothing.
    let mut harness = MembershipHarness::new(Some("i"));
    harness.member.poll(harness.now);
    harness.coordinator_found();
    assert_eq!(harness.handle(MembershipEvent::LeaveRequested), []);
    let closed = [MembershipAction::CancelRebalance, MembershipAction::Close];
    assert_eq!(harness.wait(), closed);
}

#[test]
fn a_leave_group_that_overtakes_the_join_is_repeated_once() {
    let mut harness = MembershipHarness::stable(COOPERATIVE, &[0]);
    harness.heartbeat(Err(code(E::RebalanceInProgress)));
    assert_eq!(
        harness.handle(MembershipEvent::LeaveRequested),
        [MembershipAction::LeaveGroup]
    );
    let unknown = || MembershipEvent::LeaveGroupResponse(Err(code(E::UnknownMemberId)));
    assert_eq!(harness.handle(unknown()), []);
    assert_eq!(harness.wait(), [MembershipAction::LeaveGroup]);
    let actions = harness.handle(unknown());
    assert_eq!(
        actions,
        [MembershipAction::CancelRebalance, MembershipAction::Close]
    );
}

#[test]
fn a_member_that_leaves_while_no_coordinator_is_known_waits() {
    let mut harness = MembershipHarness::stable(COOPERATIVE, &[0]);
    harness.handle(MembershipEvent::LeaveRequested);
    let start = harness.now;
    let failed = MembershipEvent::LeaveGroupResponse(Err(code(E::NotCoordinator)));
    assert_eq!(harness.handle(failed), [MembershipAction::FindCoordinator]);
    // The lookup is not answered.
    let closed = [MembershipAction::CancelRebalance, MembershipAction::Close];
    assert_eq!(harness.wait(), closed);
    assert_eq!(harness.now - start, LEAVE_TIMEOUT);
}

#[test]
fn a_member_without_a_member_id_leaves_nothing() {
    let mut harness = MembershipHarness::new(None);
    harness.member.poll(harness.now);
    assert_eq!(
        harness.handle(MembershipEvent::LeaveRequested),
        [MembershipAction::CancelRebalance, MembershipAction::Close]
    );
}

#[test]
fn leaving_is_bounded_in_time() {
    let mut harness = MembershipHarness::stable(COOPERATIVE, &[0]);
    harness.handle(MembershipEvent::LeaveRequested);
    let start = harness.now;
    loop {
        let actions = harness.handle(MembershipEvent::LeaveGroupResponse(Err(code(
            E::NotCoordinator,
        ))));
        assert_eq!(actions, [MembershipAction::FindCoordinator]);
        harness.handle(MembershipEvent::FindCoordinatorResponse(Ok(BrokerId(2))));
        let actions = harness.wait();
        if actions.contains(&MembershipAction::Close) {
            break;
        }
        assert_eq!(actions, [MembershipAction::LeaveGroup]);
    }
    assert!(harness.now - start <= LEAVE_TIMEOUT);
}
