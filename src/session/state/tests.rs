use super::*;
use crate::session::place_claim::SocketRole;

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
    }
    .into()
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
    let full = SessionEvent::Full {
        place: second,
        sockets: 1,
        partitions: 1,
    };
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
    let group = log.state.group("g").unwrap();
    assert_eq!((group.sockets(), group.partitions_with(&[])), (4, 4));
    for number in [3, 4, 6] {
        log.release(id(A, number));
    }
    assert_eq!(log.state.group("g").unwrap().partitions_with(&[]), 1);
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
    assert_eq!(log.state.group("g").unwrap().holder("a"), Some(new));
}

#[test]
fn a_claim_that_waited_and_no_longer_fits_is_refused() {
    let mut log = TestLog::new();
    let (old, new, b) = (id(A, 1), id(B, 1), id(A, 2));
    log.claim(b, "b", &[("u", 1)]);
    log.claim(old, "a", &[("t", 1)]);
    log.claim(new, "a", &[("u", 1)]);
    let full = SessionEvent::Full {
        place: new,
        sockets: 1,
        partitions: 1,
    };
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
    let safe = |log: &TestLog| log.state.group("g").unwrap().is_safe();
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
    assert_eq!(log.state.group("g").unwrap().sockets(), 3);
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
    assert_eq!(log.state.group("g").unwrap().holder("a"), Some(old));
}
