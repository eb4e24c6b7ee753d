use kafka_protocol::error::ResponseError as E;

use super::leaving::LEAVE_LIMIT;
use super::*;
use crate::error::{BrokerAddress, RequestError};

fn partitions(list: &[i32]) -> Vec<TopicPartition> {
    list.iter().map(|p| TopicPartition::new("t", *p)).collect()
}

fn code(error: E) -> Failure {
    Failure::Code(error)
}

fn lost_connection() -> Failure {
    Failure::Request(RequestError::Disconnected {
        broker: BrokerAddress {
            id: BrokerId(1),
            address: "b:1".into(),
        },
        sent: true,
        reason: "reset".into(),
    })
}

/// A member, a clock, and what it did last.
struct Life {
    member: Membership,
    now: Instant,
}

const BEAT: Duration = Duration::from_secs(3);
const DRAIN: Duration = Duration::from_secs(5);

impl Life {
    fn new(instance: Option<&str>) -> Self {
        let now = Instant::now();
        let config = GroupRebalanceConfig {
            group_id: "g".into(),
            group_instance_id: instance.map(Into::into),
            topics: vec!["t".into()],
            rack: None,
            assignors: vec![AssignorName::CooperativeSticky, AssignorName::Range],
            session_timeout: BEAT * 15,
            rebalance_timeout: BEAT * 100,
            heartbeat_interval: BEAT,
            revocation_timeout: DRAIN,
            retry_backoff: Duration::from_millis(100),
            retry_backoff_max: Duration::from_secs(1),
        };
        let member = Membership::new(config, now);
        Self { member, now }
    }

    fn on(&mut self, event: Event) -> Vec<Action> {
        self.member.on(event, self.now)
    }

    /// Goes on to the next deadline.
    fn wait(&mut self) -> Vec<Action> {
        let deadline = self.member.deadline().expect("something is due");
        assert!(deadline >= self.now, "time goes on");
        self.now = deadline;
        self.member.advance(self.now)
    }

    fn found(&mut self) -> Vec<Action> {
        self.on(Event::Coordinator(Ok(BrokerId(1))))
    }

    fn join_as(&mut self, protocol: &str, generation: i32) -> Vec<Action> {
        self.on(Event::Joined(Ok(Joined::Member {
            id: "m-1".to_owned(),
            generation,
            protocol: protocol.to_owned(),
            lead: None,
        })))
    }

    fn assign(&mut self, list: &[i32]) -> Vec<Action> {
        self.on(Event::Synced(Ok(partitions(list))))
    }

    fn position(&mut self, list: &[i32]) {
        let ownership = self.member.ownership;
        let actions = self.on(Event::Positioned(ownership, Ok(partitions(list))));
        assert_eq!(actions, []);
    }

    /// Stable with these partitions, in generation 1.
    fn stable(protocol: &str, list: &[i32]) -> Self {
        let mut life = Self::new(None);
        assert_eq!(life.member.advance(life.now), [Action::FindCoordinator]);
        assert_eq!(life.found(), [Action::Join]);
        assert_eq!(life.join_as(protocol, 1), [Action::Sync]);
        assert_eq!(life.assign(list), [Action::Position(0, partitions(list))]);
        life.position(list);
        life
    }

    fn owned(&self) -> Vec<TopicPartition> {
        let assignor = AssignorName::CooperativeSticky;
        self.member.subscription(assignor).owned
    }

    fn beat(&mut self, result: Result<(), Failure>) -> Vec<Action> {
        assert_eq!(self.wait(), [Action::Heartbeat]);
        self.on(Event::Heard(self.member.generation(), result))
    }
}

const COOPERATIVE: &str = "cooperative-sticky";

#[test]
fn a_member_asks_soon_when_another_beside_it_stirs_the_group() {
    let mut life = Life::stable(COOPERATIVE, &[0]);
    let at = life.now;
    assert_eq!(life.on(Event::Stirred), []);
    assert_eq!(life.wait(), [Action::Heartbeat]);
    assert!(life.now - at < Duration::from_millis(100));
    // Nothing was new: the usual interval again.
    life.on(Event::Heard(1, Ok(())));
    assert_eq!(life.wait(), [Action::Heartbeat]);
    assert!(life.now - at > BEAT);
}

#[test]
fn the_broker_names_a_new_member_and_is_asked_again() {
    let mut life = Life::new(None);
    life.member.advance(life.now);
    assert_eq!(life.found(), [Action::Join]);
    let named = Event::Joined(Ok(Joined::IdRequired("m-1".to_owned())));
    assert_eq!(life.on(named), [Action::Join]);
    assert_eq!(life.member.id(), "m-1");
}

#[test]
fn heartbeats_start_before_the_positions_are_known() {
    let mut life = Life::new(None);
    life.member.advance(life.now);
    life.found();
    life.join_as(COOPERATIVE, 1);
    life.assign(&[0]);
    assert_eq!(life.wait(), [Action::Heartbeat]);
    assert_eq!(life.member.deadline(), None, "one heartbeat at a time");
    let at = life.now;
    assert_eq!(life.on(Event::Heard(1, Ok(()))), []);
    assert_eq!(life.wait(), [Action::Heartbeat]);
    assert_eq!(life.now - at, BEAT);
}

#[test]
fn a_cooperative_member_keeps_reading_while_it_rejoins() {
    let mut life = Life::stable(COOPERATIVE, &[0, 1]);
    let rebalance = Err(code(E::RebalanceInProgress));
    assert_eq!(life.beat(rebalance), [Action::Join]);
    assert_eq!(life.owned(), partitions(&[0, 1]));
    assert!(
        life.member.may_commit(),
        "of the generation that still counts"
    );
    assert_eq!(life.join_as(COOPERATIVE, 2), [Action::Sync]);
    assert!(!life.member.may_commit());
    let new = life.assign(&[0, 1, 2]);
    assert_eq!(new, [Action::Position(0, partitions(&[2]))]);
}

#[test]
fn a_cooperative_member_lets_go_of_what_moves_and_then_rejoins() {
    let mut life = Life::stable(COOPERATIVE, &[0, 1, 2]);
    life.beat(Err(code(E::RebalanceInProgress)));
    life.join_as(COOPERATIVE, 2);
    let actions = life.assign(&[0, 3]);
    let revoke = Action::Revoke(1, partitions(&[1, 2]));
    let position = Action::Position(0, partitions(&[3]));
    assert_eq!(actions, [revoke, position]);
    assert_eq!(life.owned(), partitions(&[0, 3]));
    assert!(life.member.may_commit() && life.member.may_commit_of(&partitions(&[1])[0]));
    assert_eq!(life.on(Event::Released(0)), [], "of an older revocation");
    assert_eq!(life.on(Event::Released(1)), [Action::Join]);
    assert!(!life.member.may_commit_of(&partitions(&[1])[0]));
    assert!(life.member.may_commit_of(&partitions(&[0])[0]));
}

#[test]
fn an_eager_member_lets_go_of_everything_before_it_rejoins() {
    let mut life = Life::stable("range", &[0, 1]);
    let actions = life.beat(Err(code(E::RebalanceInProgress)));
    assert_eq!(actions, [Action::Revoke(1, partitions(&[0, 1]))]);
    assert!(life.member.may_commit());
    assert_eq!(life.on(Event::Released(1)), [Action::Join]);
    assert_eq!(life.owned(), []);
    assert!(!life.member.may_commit());
    life.join_as("range", 2);
    // The same partitions again: their positions have to be looked up again.
    let actions = life.assign(&[0, 1]);
    assert_eq!(actions, [Action::Position(1, partitions(&[0, 1]))]);
}

#[test]
fn a_reader_that_does_not_let_go_loses_its_partitions() {
    let mut life = Life::stable("range", &[0]);
    life.beat(Err(code(E::RebalanceInProgress)));
    let until = life.now + DRAIN;
    // Heartbeats go on, and what they say is known already.
    let rebalance = || Err(code(E::RebalanceInProgress));
    assert_eq!(life.beat(rebalance()), []);
    let lost = Action::Lose(partitions(&[0]));
    assert_eq!(life.wait(), [lost, Action::Join]);
    assert_eq!(life.now, until);
    assert_eq!(life.on(Event::Released(1)), [], "too late");
}

#[test]
fn a_group_that_falls_back_to_eager_takes_what_it_dealt_elsewhere() {
    let mut life = Life::stable(COOPERATIVE, &[0, 1]);
    life.beat(Err(code(E::RebalanceInProgress)));
    life.join_as("range", 2);
    let actions = life.assign(&[1, 2]);
    let lost = Action::Lose(partitions(&[0]));
    assert_eq!(actions, [lost, Action::Position(0, partitions(&[2]))]);
}

#[test]
fn an_unknown_member_loses_everything_and_starts_over() {
    for protocol in [COOPERATIVE, "range"] {
        let mut life = Life::stable(protocol, &[0]);
        let actions = life.beat(Err(code(E::UnknownMemberId)));
        assert_eq!(actions, [Action::Lose(partitions(&[0])), Action::Join]);
        assert_eq!((life.member.id(), life.member.generation()), ("", -1));
        assert_eq!(life.owned(), []);
    }
}

#[test]
fn a_member_of_an_old_generation_keeps_its_name() {
    let mut life = Life::stable(COOPERATIVE, &[0]);
    let actions = life.beat(Err(code(E::IllegalGeneration)));
    assert_eq!(actions, [Action::Lose(partitions(&[0])), Action::Join]);
    assert_eq!((life.member.id(), life.member.generation()), ("m-1", -1));
}

#[test]
fn what_was_said_of_an_older_generation_is_not_heeded() {
    let mut life = Life::stable(COOPERATIVE, &[0]);
    let refused = Event::CommitRefused(0, code(E::IllegalGeneration));
    assert_eq!(life.on(refused), []);
    // Nor while a new one is being made.
    life.beat(Err(code(E::RebalanceInProgress)));
    let refused = Event::CommitRefused(1, code(E::IllegalGeneration));
    assert_eq!(life.on(refused), []);
}

#[test]
fn a_commit_learns_of_a_rebalance_as_well() {
    let mut life = Life::stable(COOPERATIVE, &[0]);
    let refused = Event::CommitRefused(1, code(E::RebalanceInProgress));
    assert_eq!(life.on(refused), [Action::Join]);
    let mut life = Life::stable(COOPERATIVE, &[0]);
    let refused = Event::CommitRefused(1, code(E::UnknownMemberId));
    let lost = Action::Lose(partitions(&[0]));
    assert_eq!(life.on(refused), [lost, Action::Join]);
}

#[test]
fn a_coordinator_that_moves_disturbs_nobody() {
    for failure in [
        code(E::NotCoordinator),
        code(E::CoordinatorNotAvailable),
        lost_connection(),
    ] {
        let mut life = Life::stable(COOPERATIVE, &[0]);
        assert_eq!(life.beat(Err(failure)), [Action::FindCoordinator]);
        assert!(!life.member.may_commit());
        assert_eq!(life.found(), []);
        assert_eq!(life.wait(), [Action::Heartbeat]);
        assert_eq!(life.owned(), partitions(&[0]));
    }
}

#[test]
fn a_search_that_fails_goes_on_more_slowly() {
    let mut life = Life::new(None);
    life.member.advance(life.now);
    let mut waits = Vec::new();
    for _ in 0..6 {
        let failed = Event::Coordinator(Err(code(E::CoordinatorNotAvailable)));
        assert_eq!(life.on(failed), []);
        let before = life.now;
        assert_eq!(life.wait(), [Action::FindCoordinator]);
        waits.push(life.now - before);
    }
    assert!(waits[0] < Duration::from_millis(200), "{waits:?}");
    assert!(waits[5] > Duration::from_millis(700), "{waits:?}");
    assert_eq!(life.found(), [Action::Join]);
}

#[test]
fn a_join_that_fails_is_repeated_at_once_and_then_more_slowly() {
    let mut life = Life::new(None);
    life.member.advance(life.now);
    life.found();
    let failed = |life: &mut Life| life.on(Event::Joined(Err(code(E::CoordinatorLoadInProgress))));
    assert_eq!(failed(&mut life), [Action::Join]);
    assert_eq!(failed(&mut life), []);
    let before = life.now;
    assert_eq!(life.wait(), [Action::Join]);
    assert!(life.now > before);
}

#[test]
fn a_lost_join_asks_for_the_coordinator_first() {
    let mut life = Life::new(None);
    life.member.advance(life.now);
    life.found();
    let failed = Event::Joined(Err(lost_connection()));
    assert_eq!(life.on(failed), [Action::FindCoordinator]);
    assert_eq!(life.found(), [Action::Join]);
}

#[test]
fn a_sync_during_the_next_rebalance_joins_that_one() {
    let mut life = Life::stable(COOPERATIVE, &[0]);
    life.beat(Err(code(E::RebalanceInProgress)));
    life.join_as(COOPERATIVE, 2);
    let failed = Event::Synced(Err(code(E::RebalanceInProgress)));
    assert_eq!(life.on(failed), [Action::Join]);
    assert_eq!(life.owned(), partitions(&[0]));
    life.join_as(COOPERATIVE, 3);
    let failed = Event::Synced(Err(code(E::UnknownMemberId)));
    assert_eq!(life.on(failed)[0], Action::Lose(partitions(&[0])));
}

#[test]
fn a_member_that_is_refused_ends() {
    let refusals = [
        (E::FencedInstanceId, "taken over"),
        (E::GroupAuthorizationFailed, "not authorized"),
        (E::InconsistentGroupProtocol, "refuses"),
        (E::GroupMaxSizeReached, "refuses"),
        (E::InvalidSessionTimeout, "refuses"),
        (E::InvalidGroupId, "refuses"),
    ];
    for (error, text) in refusals {
        let mut life = Life::new(Some("i"));
        life.member.advance(life.now);
        life.found();
        let actions = life.on(Event::Joined(Err(code(error))));
        let [Action::Abandon, Action::Close(Some(reason))] = &actions[..] else {
            panic!("{error}: {actions:?}");
        };
        assert!(reason.to_string().contains(text), "{reason}");
        assert!(life.member.is_closed());
        assert_eq!(life.member.deadline(), None);
        assert_eq!(life.found(), []);
    }
    let mut life = Life::stable(COOPERATIVE, &[0]);
    let actions = life.beat(Err(code(E::FencedInstanceId)));
    assert!(matches!(
        actions[..],
        [Action::Close(Some(ConsumerError::Fenced { .. }))]
    ));
}

#[test]
fn a_protocol_that_was_not_offered_is_the_end() {
    let mut life = Life::new(None);
    life.member.advance(life.now);
    life.found();
    let actions = life.join_as("sticky", 1);
    assert!(
        matches!(actions[..], [Action::Abandon, Action::Close(Some(_))]),
        "{actions:?}"
    );
}

#[test]
fn positions_that_cannot_be_had_start_the_session_over() {
    let mut life = Life::stable(COOPERATIVE, &[0]);
    life.beat(Err(code(E::RebalanceInProgress)));
    life.join_as(COOPERATIVE, 2);
    life.assign(&[0, 1]);
    let actions = life.on(Event::Positioned(0, Err(None)));
    assert_eq!(actions, [Action::Lose(partitions(&[0])), Action::Join]);
    assert_eq!(life.member.generation(), -1);
    assert_eq!(life.on(Event::Positioned(0, Ok(partitions(&[1])))), []);
    assert!(!life.member.may_commit_of(&partitions(&[1])[0]));
}

#[test]
fn positions_survive_a_rebalance_that_leaves_their_partitions() {
    let mut life = Life::new(None);
    life.member.advance(life.now);
    life.found();
    life.join_as(COOPERATIVE, 1);
    life.assign(&[0, 1]);
    life.beat(Err(code(E::RebalanceInProgress)));
    life.join_as(COOPERATIVE, 2);
    // 0 and 1 are still being looked up; 1 goes, which its owner never had: rejoin at once.
    assert_eq!(life.assign(&[0]), [Action::Join]);
    life.position(&[0, 1]);
    assert!(life.member.may_commit_of(&partitions(&[0])[0]));
    assert!(!life.member.may_commit_of(&partitions(&[1])[0]));
}

#[test]
fn partitions_without_a_start_end_the_consumer() {
    let mut life = Life::stable(COOPERATIVE, &[0]);
    let error = ConsumerError::NoCommittedOffset {
        group: "g".into(),
        tp: TopicPartition::new("t", 0),
    };
    let actions = life.on(Event::Positioned(0, Err(Some(error.clone()))));
    assert_eq!(actions, [Action::Close(Some(error))]);
}

#[test]
fn a_leader_whose_topics_changed_asks_for_a_new_round() {
    let mut life = Life::stable(COOPERATIVE, &[0]);
    assert_eq!(life.on(Event::TopicsChanged), [Action::Join]);
    // What changes in the middle of a round is seen after it.
    life.join_as(COOPERATIVE, 2);
    assert_eq!(life.on(Event::TopicsChanged), []);
    assert_eq!(life.assign(&[0]), [Action::Join]);
}

#[test]
fn partitions_of_topics_that_were_not_asked_for_are_left_alone() {
    let mut life = Life::new(None);
    life.member.advance(life.now);
    life.found();
    life.join_as(COOPERATIVE, 1);
    let synced = Event::Synced(Ok(vec![TopicPartition::new("other", 0)]));
    assert_eq!(life.on(synced), []);
}

#[test]
fn a_member_leaves_under_its_name() {
    let mut life = Life::stable(COOPERATIVE, &[0]);
    assert_eq!(life.on(Event::Leave), [Action::Leave]);
    assert_eq!(life.on(Event::Leave), []);
    let actions = life.on(Event::Left(Ok(())));
    assert_eq!(actions, [Action::Abandon, Action::Close(None)]);
}

#[test]
fn a_socket_that_closes_before_it_has_a_name_leaves_with_the_new_one() {
    let mut life = Life::new(None);
    life.member.advance(life.now);
    life.found();
    assert_eq!(life.on(Event::Leave), []);
    let named = Event::Joined(Ok(Joined::IdRequired("m-9".to_owned())));
    assert_eq!(life.on(named), [Action::Leave]);
    assert_eq!(life.member.id(), "m-9");
}

#[test]
fn a_static_member_leaves_by_its_instance_even_when_that_overtakes_its_join() {
    let mut life = Life::new(Some("i"));
    life.member.advance(life.now);
    life.found();
    assert_eq!(life.on(Event::Leave), [Action::Leave]);
    assert_eq!(life.on(Event::Left(Err(code(E::UnknownMemberId)))), []);
    assert_eq!(life.wait(), [Action::Leave]);
    let actions = life.on(Event::Left(Err(code(E::UnknownMemberId))));
    assert_eq!(actions, [Action::Abandon, Action::Close(None)]);
}

#[test]
fn a_member_that_nobody_knows_leaves_nothing() {
    let mut life = Life::new(None);
    life.member.advance(life.now);
    assert_eq!(
        life.on(Event::Leave),
        [Action::Abandon, Action::Close(None)]
    );
}

#[test]
fn leaving_has_an_end() {
    let mut life = Life::stable(COOPERATIVE, &[0]);
    life.on(Event::Leave);
    let start = life.now;
    loop {
        let actions = life.on(Event::Left(Err(code(E::NotCoordinator))));
        assert_eq!(actions, [Action::FindCoordinator]);
        life.on(Event::Coordinator(Ok(BrokerId(2))));
        let actions = life.wait();
        if actions.contains(&Action::Close(None)) {
            break;
        }
        assert_eq!(actions, [Action::Leave]);
    }
    assert!(life.now - start <= LEAVE_LIMIT);
}
