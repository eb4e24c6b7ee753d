use super::*;
use crate::session::place_claim::{InstanceSharing, MemberKey, SocketRole};

const A: NodeIncarnation = NodeIncarnation(0xa);
const B: NodeIncarnation = NodeIncarnation(0xb);

fn id(node: NodeIncarnation, number: u64) -> PlaceId {
    PlaceId { node, number }
}

fn claim(client: &str, topics: Arc<[(Arc<str>, usize)]>) -> Arc<PlaceClaim> {
    let role = SocketRole::Member {
        group_id: "g".into(),
        client_id: client.into(),
    };
    PlaceClaim {
        role,
        principal: None,
        topics,
        since: 1,
        max_connections: 0,
        is_late: false,
    }
    .into()
}

fn full(place: PlaceId, sockets: usize, partitions: usize) -> SessionEvent {
    let limit = PlaceLimit::Partitions(partitions);
    let full = FullGroup { sockets, limit };
    SessionEvent::Full { place, full }
}

fn g() -> PlaceGroup {
    PlaceGroup::Consumers("g".into())
}

/// A state, and records in the order of its log.
struct TestLog {
    state: SessionState,
    now: Instant,
}

impl TestLog {
    fn new() -> Self {
        let (state, now) = (SessionState::default(), Instant::now());
        let mut log = Self { state, now };
        log.renew(A, 1);
        log.renew(B, 1);
        log
    }

    fn append(&mut self, record: SessionRecord) -> Vec<SessionEvent> {
        self.state.apply(record, self.now)
    }

    fn renew(&mut self, node: NodeIncarnation, sequence: u64) {
        let lease = NodeLease::new("n".into(), sequence, Duration::from_secs(15));
        self.append(SessionRecord::Lease { node, lease });
    }

    fn claim(&mut self, id: PlaceId, client: &str, topics: &[(&str, usize)]) -> SessionEvent {
        let topics = topics.iter().map(|(name, n)| (Arc::from(*name), *n));
        let claim = claim(client, topics.collect());
        self.append(SessionRecord::Place { id, claim }).remove(0)
    }

    fn release(&mut self, id: PlaceId) -> Vec<SessionEvent> {
        self.append(SessionRecord::Released { id })
    }
}

#[test]
fn the_claim_that_comes_first_has_the_last_place_and_the_next_one_is_never_admitted() {
    let mut log = TestLog::new();
    let (first, second) = (id(A, 1), id(B, 1));
    assert_eq!(
        log.claim(first, "a", &[("t", 1)]),
        SessionEvent::Admitted(first)
    );
    let full = full(second, 1, 1);
    assert_eq!(log.claim(second, "b", &[("t", 1)]), full);
    // It does not come back.
    assert_eq!(log.release(first), [SessionEvent::Released(first)]);
    assert_eq!(log.release(second), [SessionEvent::Released(second)]);
    assert!(log.state.has_no_places());
}

#[test]
fn topics_of_all_sockets_of_a_group_count_together_while_they_are_read() {
    let mut log = TestLog::new();
    let full = |event| matches!(event, SessionEvent::Full { .. });
    log.claim(id(A, 1), "a", &[("t", 1)]);
    assert!(full(log.claim(id(A, 2), "b", &[("t", 1)])));
    log.release(id(A, 2));
    log.claim(id(A, 3), "b", &[("u", 2)]);
    log.claim(id(A, 4), "c", &[("u", 2)]);
    assert!(full(log.claim(id(A, 5), "d", &[("u", 2)])));
    log.release(id(A, 5));
    // A partition was added.
    let d = log.claim(id(A, 6), "d", &[("u", 3)]);
    assert_eq!(d, SessionEvent::Admitted(id(A, 6)));
    let group = log.state.group(&g()).unwrap();
    assert_eq!((group.sockets(), group.partitions_with(&[])), (4, 4));
    for number in [3, 4, 6] {
        log.release(id(A, number));
    }
    assert_eq!(log.state.group(&g()).unwrap().partitions_with(&[]), 1);
    assert!(full(log.claim(id(A, 7), "e", &[("t", 1)])));
    log.release(id(A, 7));
    log.release(id(A, 1));
    assert!(log.state.has_no_places());
}

#[test]
fn a_claim_for_a_client_that_has_a_place_waits_for_it_and_counts_once() {
    let mut log = TestLog::new();
    let (old, new, third) = (id(A, 1), id(B, 1), id(B, 2));
    let topics = [("t", 2)];
    log.claim(old, "a", &topics);
    let behind = |place, holder| SessionEvent::Behind { place, holder };
    assert_eq!(log.claim(new, "a", &topics), behind(new, old));
    assert_eq!(log.claim(third, "a", &topics), behind(third, old));
    let b = id(A, 2);
    assert_eq!(log.claim(b, "b", &topics), SessionEvent::Admitted(b));
    assert_eq!(
        log.release(old),
        [
            SessionEvent::Released(old),
            SessionEvent::Admitted(new),
            behind(third, new)
        ]
    );
    let refused = log.append(SessionRecord::Refused { id: third });
    assert_eq!(refused, [SessionEvent::Refused(third)]);
    assert_eq!(
        log.state
            .group(&g())
            .unwrap()
            .holder(&MemberKey::Client("a".into())),
        Some(new)
    );
}

#[test]
fn a_claim_that_waited_and_no_longer_fits_is_refused() {
    let mut log = TestLog::new();
    let (old, new, b) = (id(A, 1), id(B, 1), id(A, 2));
    log.claim(b, "b", &[("u", 1)]);
    log.claim(old, "a", &[("t", 1)]);
    log.claim(new, "a", &[("u", 1)]);
    let full = full(new, 1, 1);
    assert_eq!(log.release(old), [SessionEvent::Released(old), full]);
    log.release(b);
    log.release(new);
    assert!(log.state.has_no_places());
}

#[test]
fn a_node_that_is_found_dead_has_nothing_any_more_whatever_it_writes() {
    let mut log = TestLog::new();
    log.claim(id(A, 1), "a", &[("t", 1)]);
    let new = id(B, 1);
    log.claim(new, "a", &[("t", 1)]);
    let gone = SessionEvent::NodeGone {
        node: A,
        found_by: Some(B),
        places: vec![1],
    };
    let expired = SessionRecord::Expired { node: A, by: B };
    assert_eq!(log.append(expired), [gone, SessionEvent::Admitted(new)]);
    // What it wrote before it could know.
    let late = SessionRecord::Place {
        id: id(A, 2),
        claim: claim("late", [("t".into(), 9)].into()),
    };
    assert_eq!(log.append(late), []);
    log.renew(A, 3);
    assert_eq!(log.state.nodes().count(), 1);
}

#[test]
fn no_place_is_safe_beside_claims_that_may_be_places_for_other_readers() {
    let mut log = TestLog::new();
    let any = claim("a", [("t".into(), 2)].into());
    let safe = |log: &TestLog| log.state.group(&g()).unwrap().is_safe(&any);
    // What made the second claim late for those that read it then is compacted.
    log.claim(id(A, 1), "a", &[("t", 2)]);
    log.claim(id(A, 2), "b", &[("t", 2)]);
    assert!(safe(&log));
    log.claim(id(B, 1), "c", &[("t", 2)]);
    log.release(id(A, 2));
    assert!(safe(&log), "there is room for both");
    let admitted = log.claim(id(B, 2), "d", &[("t", 2)]);
    assert_eq!(admitted, SessionEvent::Admitted(id(B, 2)));
    assert!(!safe(&log));
    // Its node has not withdrawn it, so it has a place.
    log.state.adopt_contested(log.now + Duration::from_secs(1));
    assert_eq!(log.state.group(&g()).unwrap().sockets(), 3);
    log.release(id(B, 1));
    assert!(safe(&log));
}

#[test]
fn a_node_that_leaves_takes_its_places_with_it() {
    let mut log = TestLog::new();
    log.claim(id(A, 1), "a", &[("t", 1)]);
    log.claim(id(A, 2), "b", &[("u", 1)]);
    log.append(SessionRecord::Left { node: A });
    assert!(log.state.has_no_places());
    assert_eq!(log.append(SessionRecord::Left { node: A }), []);
}

#[test]
fn a_lease_counts_from_when_it_is_read() {
    let mut log = TestLog::new();
    let default = Duration::from_secs(1);
    let begun = log.now;
    log.now += Duration::from_secs(10);
    log.renew(A, 2);
    let lapsed = |log: &TestLog, s| {
        let at = begun + Duration::from_secs(s);
        log.state.lapsed(default, at).collect::<Vec<_>>()
    };
    assert_eq!(lapsed(&log, 14), []);
    assert_eq!(lapsed(&log, 15), [B]);
    assert_eq!(lapsed(&log, 25).len(), 2);
    log.now = begun + Duration::from_secs(25);
    log.state.renew_all(log.now);
    assert_eq!(lapsed(&log, 39), []);
}

#[test]
fn a_place_that_is_written_again_keeps_its_turn() {
    let mut log = TestLog::new();
    let (old, new) = (id(A, 1), id(B, 1));
    log.claim(old, "a", &[("t", 1)]);
    log.claim(new, "a", &[("t", 1)]);
    let claim = claim("a", [("t".into(), 1)].into());
    assert_eq!(log.append(SessionRecord::Place { id: old, claim }), []);
    assert_eq!(
        log.state
            .group(&g())
            .unwrap()
            .holder(&MemberKey::Client("a".into())),
        Some(old)
    );
}

fn producer(instance: &str, sharing: InstanceSharing, since: u64) -> PlaceClaim {
    let role = SocketRole::Producer {
        client_id: Some("p".into()),
        instance_id: Some(instance.into()),
        sharing,
    };
    PlaceClaim {
        role,
        principal: None,
        topics: [("t".into(), 1)].into(),
        since,
        max_connections: 0,
        is_late: false,
    }
}

fn place(id: PlaceId, claim: PlaceClaim) -> SessionRecord {
    let claim = claim.into();
    SessionRecord::Place { id, claim }
}

#[test]
fn a_producing_client_has_as_many_sockets_as_each_of_them_says_whatever_their_instances() {
    let mut log = TestLog::new();
    let limited = |instance: &str, max_connections| PlaceClaim {
        max_connections,
        ..producer(instance, InstanceSharing::Any, 1)
    };
    for (number, instance) in [(1, "i"), (2, "i")] {
        let id = id(A, number);
        let events = log.append(place(id, limited(instance, 2)));
        assert_eq!(events, [SessionEvent::Admitted(id)]);
    }
    let refused = id(B, 1);
    let full = SessionEvent::Full {
        place: refused,
        full: FullGroup {
            sockets: 2,
            limit: PlaceLimit::Connections(2),
        },
    };
    assert_eq!(log.append(place(refused, limited("j", 2))), [full]);
    log.release(refused);
    // Without a limit, or under another one, or another user's.
    let more = [
        limited("j", 0),
        limited("j", 4),
        PlaceClaim {
            principal: Some("alice".into()),
            ..limited("i", 1)
        },
    ];
    for (number, claim) in (2..).zip(more) {
        let id = id(B, number);
        let events = log.append(place(id, claim));
        assert_eq!(events, [SessionEvent::Admitted(id)]);
    }
    // Lowered, it closes nothing, and admits nobody until there is room.
    let refused = id(B, 9);
    let events = log.append(place(refused, limited("j", 4)));
    assert!(
        matches!(events[..], [SessionEvent::Full { .. }]),
        "{events:?}"
    );
}

#[test]
fn an_exclusive_instance_waits_for_the_one_that_is_there_and_others_do_not() {
    let mut log = TestLog::new();
    let (first, second, other) = (id(A, 1), id(B, 1), id(B, 2));
    let exclusive = |instance: &str| producer(instance, InstanceSharing::Exclusive, 1);
    log.append(place(first, exclusive("i")));
    let behind = SessionEvent::Behind {
        place: second,
        holder: first,
    };
    assert_eq!(log.append(place(second, exclusive("i"))), [behind]);
    let events = log.append(place(other, exclusive("j")));
    assert_eq!(events, [SessionEvent::Admitted(other)]);
    assert_eq!(log.release(first)[1], SessionEvent::Admitted(second));
}

#[test]
fn the_newest_transactional_socket_of_an_instance_fences_the_one_before_it() {
    let mut log = TestLog::new();
    let fencing = |since| producer("i", InstanceSharing::Fencing, since);
    let (first, second) = (id(A, 1), id(B, 1));
    log.append(place(first, fencing(9)));
    // Clocks differ: the log's order counts.
    let fences = [SessionEvent::Admitted(second), SessionEvent::Fenced(first)];
    assert_eq!(log.append(place(second, fencing(8))), fences);
    assert_eq!(log.state.places_of(A).count(), 0);
    // Its own end takes nothing from the other.
    assert_eq!(log.release(first), [SessionEvent::Released(first)]);
    assert_eq!(log.state.places_of(B).count(), 1);
}

#[test]
fn a_transactional_socket_that_is_written_late_fences_none_that_is_younger() {
    let mut log = TestLog::new();
    let late = |since| PlaceClaim {
        is_late: true,
        ..producer("i", InstanceSharing::Fencing, since)
    };
    let (young, old, youngest) = (id(A, 1), id(B, 1), id(B, 2));
    log.append(place(young, producer("i", InstanceSharing::Fencing, 5)));
    assert_eq!(log.append(place(old, late(4))), [SessionEvent::Fenced(old)]);
    let fences = [
        SessionEvent::Admitted(youngest),
        SessionEvent::Fenced(young),
    ];
    assert_eq!(log.append(place(youngest, late(6))), fences);
    for place in [old, young, youngest] {
        log.release(place);
    }
    assert!(log.state.has_no_places());
}
