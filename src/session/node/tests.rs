use super::listed::LIST_AFTER;
use super::writes::OVERDUE_AFTER;
use super::*;
use crate::session::place_claim::{InstanceSharing, MemberKey, PlaceClaim, PlaceGroup, SocketRole};
use crate::session::state::{FullGroup, PlaceLimit};

const LEASE: Duration = Duration::from_secs(15);

/// A log, and what one node has of it.
struct OneNode {
    node: SessionNode,
    log: Vec<SessionRecord>,
    now: Instant,
    /// What it did but writing, and telling of freed places.
    done: Vec<NodeEffect>,
    /// How often it told of one.
    freed: usize,
}

impl OneNode {
    /// A member.
    fn new() -> Self {
        let now = Instant::now();
        let settings = NodeSettings {
            server_id: "node-1".into(),
            lease_duration: LEASE,
            retention: Duration::from_secs(30 * 24 * 3_600),
        };
        let mut one = Self {
            node: SessionNode::new(settings, 0xa, now),
            log: Vec::new(),
            now,
            done: Vec::new(),
            freed: 0,
        };
        one.load();
        one
    }

    fn load(&mut self) {
        self.node.begin_load(0);
        for (offset, record) in self.log.clone().into_iter().enumerate() {
            self.node.read(offset as i64, Some(record), self.now);
        }
        self.node.loaded(self.now);
        self.settle();
    }

    /// What is to be written.
    fn written(&mut self) -> Vec<SessionRecord> {
        let mut written = Vec::new();
        for effect in self.node.take_effects() {
            match effect {
                NodeEffect::Write(record) => written.push(record),
                NodeEffect::PlaceFreed => self.freed += 1,
                other => self.done.push(other),
            }
        }
        written
    }

    /// Acknowledges what is written, until there is no more; what that was.
    fn settle(&mut self) -> Vec<SessionRecord> {
        let mut all = Vec::new();
        loop {
            let written = self.written();
            if written.is_empty() {
                return all;
            }
            for record in written {
                let offset = self.log.len() as i64;
                self.log.push(record.clone());
                self.node.acked(record.clone(), offset, self.now);
                all.push(record);
            }
        }
    }

    /// A record of another node, which is read.
    fn other(&mut self, record: SessionRecord) {
        let offset = self.log.len() as i64;
        self.log.push(record.clone());
        self.node.read(offset, Some(record), self.now);
    }

    fn other_lives(&mut self, node: u64, server_id: &str, sequence: u64) {
        let lease = NodeLease::new(server_id.into(), sequence, LEASE);
        let node = NodeIncarnation(node);
        self.other(SessionRecord::Lease { node, lease });
    }

    fn advance(&mut self, duration: Duration) -> Vec<SessionRecord> {
        self.now += duration;
        self.node.tick(self.now);
        self.settle()
    }

    fn claim(&mut self, client: &str) -> u64 {
        let number = self.node.claim(claim(client), self.now).unwrap();
        self.settle();
        number
    }

    fn take_done(&mut self) -> Vec<NodeEffect> {
        std::mem::take(&mut self.done)
    }
}

/// For a group of one partition.
fn claim(client: &str) -> Arc<PlaceClaim> {
    member_claim("g", client)
}

fn member_claim(group: &str, client: &str) -> Arc<PlaceClaim> {
    let role = SocketRole::Member {
        group_id: group.into(),
        client_id: client.into(),
    };
    socket_claim(role)
}

fn producer_claim(client: &str) -> Arc<PlaceClaim> {
    let role = SocketRole::Producer {
        client_id: Some(client.into()),
        instance_id: None,
        sharing: InstanceSharing::Any,
    };
    socket_claim(role)
}

fn socket_claim(role: SocketRole) -> Arc<PlaceClaim> {
    PlaceClaim {
        role,
        principal: None,
        topics: [("t".into(), 1)].into(),
        since: 1,
        max_connections: 0,
        is_late: false,
    }
    .into()
}

fn consumers(group: &str) -> PlaceGroup {
    PlaceGroup::Consumers(group.into())
}

fn client(id: &str) -> MemberKey {
    MemberKey::Client(id.into())
}

/// A group of one partition.
const FULL: FullGroup = FullGroup {
    sockets: 1,
    limit: PlaceLimit::Partitions(1),
};

fn other_place(number: u64) -> PlaceId {
    PlaceId {
        node: NodeIncarnation(0xb),
        number,
    }
}

fn decided(number: u64, outcome: ClaimOutcome) -> NodeEffect {
    NodeEffect::Decided { number, outcome }
}

#[test]
fn a_claim_is_granted_by_its_acknowledgement_when_nothing_came_between() {
    let mut one = OneNode::new();
    let number = one.node.claim(claim("a"), one.now).unwrap();
    assert_eq!(one.settle().len(), 1);
    assert_eq!(one.take_done(), [decided(number, ClaimOutcome::Granted)]);
    // What is read later is what was applied.
    let record = one.log.last().cloned();
    one.node.read(one.log.len() as i64 - 1, record, one.now);
    assert_eq!(one.take_done(), []);
}

#[test]
fn a_claim_that_another_came_before_is_decided_by_what_is_read() {
    let mut one = OneNode::new();
    let number = one.node.claim(claim("a"), one.now).unwrap();
    let mine = one.written().remove(0);
    let first = SessionRecord::Place {
        id: other_place(1),
        claim: claim("b"),
    };
    let offset = one.log.len() as i64;
    one.node.acked(mine.clone(), offset + 1, one.now);
    assert_eq!(one.written(), [], "nobody knows what stands before it");
    one.log.extend([first.clone(), mine.clone()]);
    one.node.read(offset, Some(first), one.now);
    one.node.read(offset + 1, Some(mine), one.now);
    let released = one.settle();
    assert!(matches!(released[..], [SessionRecord::Released { .. }]));
    assert_eq!(one.take_done(), [decided(number, ClaimOutcome::Full(FULL))]);
    // Who is late to a full group costs the log nothing.
    let refused = one.node.claim(claim("c"), one.now);
    assert!(matches!(refused, Err(ClaimRefusal::Full { .. })));
    assert_eq!(one.settle(), []);
}

#[test]
fn who_is_refused_beside_other_nodes_is_told_when_a_place_is_freed() {
    let mut one = OneNode::new();
    let number = one.claim("a");
    let full = |may_be_freed| {
        Err(ClaimRefusal::Full {
            full: FULL,
            may_be_freed,
        })
    };
    assert_eq!(one.node.claim(claim("b"), one.now), full(false));
    one.node.release(number, one.now);
    one.settle();
    assert_eq!(one.freed, 1);
    one.other_lives(0xb, "node-2", 1);
    let id = other_place(1);
    let claimed = claim("c");
    one.other(SessionRecord::Place { id, claim: claimed });
    assert_eq!(one.node.claim(claim("b"), one.now), full(true));
    one.other(SessionRecord::Released { id });
    one.settle();
    assert_eq!(one.freed, 2);
    one.claim("b");
}

#[test]
fn another_nodes_claim_for_a_client_that_answers_is_refused() {
    let mut one = OneNode::new();
    let number = one.claim("a");
    one.take_done();
    one.other(SessionRecord::Place {
        id: other_place(1),
        claim: claim("a"),
    });
    one.settle();
    assert_eq!(one.take_done(), [NodeEffect::Probe(number)]);
    one.node.client_answered(number, one.now);
    let id = other_place(1);
    assert_eq!(one.settle(), [SessionRecord::Refused { id }]);
    assert_eq!(one.advance(PROBE_TIMEOUT), []);
    assert_eq!(one.take_done(), [], "it is not evicted");
}

#[test]
fn another_nodes_claim_for_a_client_that_is_silent_gets_its_place() {
    let mut one = OneNode::new();
    let number = one.claim("a");
    one.take_done();
    one.other(SessionRecord::Place {
        id: other_place(1),
        claim: claim("a"),
    });
    let released = one.advance(PROBE_TIMEOUT);
    assert!(matches!(released[..], [SessionRecord::Released { .. }]));
    let evicted = [NodeEffect::Probe(number), NodeEffect::Evict(number)];
    assert_eq!(one.take_done(), evicted);
    let group = one.node.state.group(&consumers("g")).unwrap();
    assert_eq!(group.holder(&client("a")), Some(other_place(1)));
    // The socket's own end releases nothing of the other's.
    one.node.release(number, one.now);
    assert_eq!(one.settle(), []);
}

#[test]
fn a_claim_behind_a_node_that_says_nothing_ends_in_time() {
    let mut one = OneNode::new();
    one.other_lives(0xb, "node-2", 1);
    one.other(SessionRecord::Place {
        id: other_place(1),
        claim: claim("a"),
    });
    let number = one.claim("a");
    one.advance(Duration::from_millis(4_999));
    assert_eq!(one.take_done(), []);
    let id = one.node.own_id(number);
    let released = one.advance(Duration::from_millis(1));
    assert!(released.contains(&SessionRecord::Released { id }));
    let silent = decided(number, ClaimOutcome::HolderSilent);
    assert_eq!(one.take_done(), [silent]);
}

#[test]
fn the_places_of_a_node_that_is_not_heard_of_are_free_after_its_lease() {
    let mut one = OneNode::new();
    one.other_lives(0xb, "node-2", 7);
    one.other(SessionRecord::Place {
        id: other_place(1),
        claim: claim("a"),
    });
    for _ in 0..14 {
        one.advance(Duration::from_secs(1));
    }
    assert!(one.node.state.group(&consumers("g")).is_some());
    let written = one.advance(Duration::from_secs(1));
    let (node, id) = (NodeIncarnation(0xb), other_place(1));
    let by = one.node.incarnation;
    for record in [
        SessionRecord::Expired { node, by },
        SessionRecord::Released { id },
        SessionRecord::Left { node },
    ] {
        assert!(written.contains(&record), "{record:?}");
    }
    assert!(one.node.state.has_no_places());
}

#[test]
fn after_an_outage_of_the_log_every_node_has_its_lease_again() {
    let mut one = OneNode::new();
    one.other_lives(0xb, "node-2", 7);
    // Nothing can be written or read.
    one.now += LEASE * 4;
    one.node.tick(one.now);
    let written = one.settle();
    assert_eq!(written.len(), 1, "its own renewal: {written:?}");
    assert_eq!(one.advance(LEASE / 3 - Duration::from_millis(1)), []);
}

#[test]
fn a_node_clears_what_it_left_under_its_server_id_and_nothing_else() {
    let mut one = OneNode::new();
    one.claim("a");
    one.other_lives(0xb, "node-2", 1);
    let log = one.log;
    let mut again = OneNode::new();
    again.log = log;
    again.node = SessionNode::new(again.node.settings.clone(), 0xc, again.now);
    again.load();
    assert!(again.node.state.has_no_places());
    assert_eq!(again.node.state.nodes().count(), 2);
    again.claim("a");
    assert!(!again.node.has_duplicate_server_id());
}

#[test]
fn two_nodes_that_live_under_one_server_id_are_noticed_until_one_has_left() {
    let mut one = OneNode::new();
    one.other_lives(0xb, "node-2", 1);
    one.other_lives(0xd, "node-1", 1);
    one.other_lives(0xd, "node-1", 2);
    one.settle();
    assert_eq!(one.take_done(), [NodeEffect::DuplicateServerId]);
    assert!(one.node.has_duplicate_server_id());
    let node = NodeIncarnation(0xd);
    one.other(SessionRecord::Left { node });
    assert!(!one.node.has_duplicate_server_id());
}

#[test]
fn a_node_that_was_found_dead_claims_its_places_again_and_loses_what_others_have() {
    let mut one = OneNode::new();
    let a = one.claim("a");
    let b = one.node.claim(member_claim("h", "b"), one.now).unwrap();
    one.settle();
    one.take_done();
    let node = one.node.incarnation;
    let by = NodeIncarnation(0xb);
    one.other_lives(0xb, "node-2", 1);
    one.other(SessionRecord::Expired { node, by });
    // Another client has the only place of its group by now.
    let rejoined = one.written();
    one.other(SessionRecord::Place {
        id: other_place(1),
        claim: claim("c"),
    });
    for record in rejoined {
        let offset = one.log.len() as i64;
        one.log.push(record.clone());
        one.node.acked(record, offset, one.now);
    }
    one.settle();
    let lost = NodeEffect::Lost {
        number: a,
        loss: PlaceLoss::Full,
    };
    assert_eq!(one.take_done(), [NodeEffect::Rejoined, lost]);
    assert_ne!(one.node.incarnation, node);
    let holder = one
        .node
        .state
        .group(&consumers("h"))
        .unwrap()
        .holder(&client("b"))
        .unwrap();
    assert_eq!(holder, one.node.own_id(b));
    assert!(one.node.is_member());
}

#[test]
fn a_log_that_is_read_anew_gets_all_places_again() {
    let mut one = OneNode::new();
    let number = one.claim("a");
    one.take_done();
    // The topic was deleted, and created again.
    one.log.clear();
    one.load();
    let group = one.node.state.group(&consumers("g")).unwrap();
    assert_eq!(group.holder(&client("a")), Some(one.node.own_id(number)));
    assert_eq!(one.take_done(), []);
}

#[test]
fn what_cannot_be_written_is_told_and_what_was_released_meanwhile_is_written_later() {
    let mut one = OneNode::new();
    let number = one.claim("a");
    one.node.release(number, one.now);
    let released = one.written().remove(0);
    one.node.failed(released.clone(), "no leader", one.now);
    let trouble = one.node.trouble(one.now).unwrap();
    assert_eq!(
        (trouble.what, &*trouble.detail),
        ("it cannot be written", "no leader")
    );
    let refused = one.node.claim(claim("b"), one.now);
    assert_eq!(refused, Err(ClaimRefusal::Trouble(trouble)));
    assert_eq!(one.advance(RETRY_INTERVAL), [released]);
    assert_eq!(one.node.trouble(one.now), None);
    assert!(one.node.state.has_no_places());
}

#[test]
fn a_claim_that_the_log_does_not_answer_ends_in_time_and_the_next_at_once() {
    let mut one = OneNode::new();
    let number = one.node.claim(claim("a"), one.now).unwrap();
    assert_eq!(one.written().len(), 1);
    one.now += OVERDUE_AFTER;
    let refused = one.node.claim(claim("b"), one.now);
    assert!(matches!(refused, Err(ClaimRefusal::Trouble(_))));
    one.now += CLAIM_TIMEOUT;
    one.node.tick(one.now);
    let released = one.written();
    assert!(matches!(released[0], SessionRecord::Released { .. }));
    let undecided = decided(number, ClaimOutcome::Undecided);
    assert_eq!(one.take_done(), [undecided]);
}

#[test]
fn places_are_written_again_before_half_of_the_retention() {
    let mut one = OneNode::new();
    let number = one.claim("a");
    let id = one.node.own_id(number);
    let half = one.node.settings.retention / 2;
    let mut written = Vec::new();
    let begun = one.now;
    while one.now < begun + half {
        written.extend(one.advance(Duration::from_secs(12 * 3_600)));
    }
    let place = SessionRecord::Place {
        id,
        claim: claim("a"),
    };
    assert!(written.contains(&place));
}

#[test]
fn a_node_that_leaves_releases_all_in_one_record_and_ends_what_is_undecided() {
    let mut one = OneNode::new();
    one.claim("a");
    one.take_done();
    let pending = one.node.claim(member_claim("h", "b"), one.now).unwrap();
    one.node.leave(one.now);
    assert!(!one.node.has_written_all());
    let node = one.node.incarnation;
    assert_eq!(one.settle().last(), Some(&SessionRecord::Left { node }));
    let undecided = decided(pending, ClaimOutcome::Undecided);
    assert_eq!(one.take_done(), [undecided]);
    assert!(one.node.has_written_all());
    assert!(one.node.state.has_no_places());
    let late = one.node.claim(claim("c"), one.now);
    assert_eq!(late, Err(ClaimRefusal::NotLoaded));
}

#[test]
fn a_socket_that_is_not_counted_is_written_when_it_has_been_open_for_a_while() {
    let mut one = OneNode::new();
    let stays = one.node.list(producer_claim("a"), one.now);
    let goes = one.node.list(producer_claim("b"), one.now);
    assert_eq!(one.advance(LIST_AFTER - Duration::from_millis(1)), []);
    one.node.release(goes, one.now);
    let id = one.node.own_id(stays);
    let claim = producer_claim("a");
    let place = SessionRecord::Place { id, claim };
    assert_eq!(one.advance(Duration::from_millis(1)), [place]);
    one.node.release(stays, one.now);
    assert_eq!(one.settle(), [SessionRecord::Released { id }]);
    assert_eq!(one.take_done(), []);
    assert!(one.node.state.has_no_places());
}

#[test]
fn sockets_that_come_and_go_while_the_log_does_not_answer_leave_nothing_to_be_written() {
    let mut one = OneNode::new();
    let number = one.claim("a");
    one.node.release(number, one.now);
    let released = one.written().remove(0);
    one.node.failed(released.clone(), "no leader", one.now);
    let stays = one.node.list(producer_claim("stays"), one.now);
    for _ in 0..100 {
        let number = one.node.list(producer_claim("p"), one.now);
        one.now += LIST_AFTER / 10;
        one.node.tick(one.now);
        one.node.release(number, one.now);
        for record in one.written() {
            one.node.failed(record, "no leader", one.now);
        }
    }
    one.now += RETRY_INTERVAL;
    one.node.tick(one.now);
    // A lease besides.
    let again = one.settle();
    let is_lease = |r: &&SessionRecord| matches!(r, SessionRecord::Lease { .. });
    let again: Vec<_> = again.iter().filter(|r| !is_lease(r)).collect();
    assert_eq!(again, [&released]);
    let id = one.node.own_id(stays);
    let claim = producer_claim("stays");
    let listed = one.advance(LIST_AFTER);
    assert!(
        listed.contains(&SessionRecord::Place { id, claim }),
        "{listed:?}"
    );
}

#[test]
fn a_socket_of_another_node_is_closed_by_a_request_and_listed_until_it_is() {
    let mut one = OneNode::new();
    one.other_lives(0xb, "node-2", 1);
    let id = other_place(1);
    let claim = producer_claim("a");
    one.other(SessionRecord::Place { id, claim });
    let own = one.claim("b");
    one.take_done();
    let listed = |one: &OneNode| {
        let sockets = one.node.sockets();
        let names = sockets.map(|(node, _, claim)| (node, claim.client_id().unwrap().clone()));
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    };
    let both = [("node-1", "b"), ("node-2", "a")].map(|(n, c)| (n.into(), c.into()));
    assert_eq!(listed(&one), both);
    one.node.evict(id, one.now).unwrap();
    assert_eq!(one.settle(), [SessionRecord::EvictionRequested { id }]);
    assert!(one.node.is_had(id));
    one.other(SessionRecord::Released { id });
    assert!(!one.node.is_had(id));
    one.node.end_eviction(id, one.now);
    assert_eq!(one.settle(), [SessionRecord::EvictionEnded { id }]);
    assert_eq!(listed(&one), both[..1]);
    // One of its own needs no log.
    let id = one.node.own_id(own);
    one.node.evict(id, one.now).unwrap();
    assert_eq!(one.settle(), []);
    assert_eq!(one.take_done(), [NodeEffect::Close(own)]);
}

#[test]
fn a_request_to_close_a_socket_is_followed_whatever_incarnation_it_is_by() {
    let mut one = OneNode::new();
    let number = one.claim("a");
    let id = one.node.own_id(number);
    let (node, by) = (one.node.incarnation, NodeIncarnation(0xb));
    one.take_done();
    one.other(SessionRecord::Expired { node, by });
    // Whoever asks has not read that.
    one.other(SessionRecord::EvictionRequested { id });
    one.settle();
    let closed = NodeEffect::Close(number);
    assert_eq!(one.take_done(), [NodeEffect::Rejoined, closed]);
    one.node.release(number, one.now);
    one.other(SessionRecord::EvictionRequested { id });
    assert_eq!(one.take_done(), [], "it is closed");
}

/// It was cut off when its lease was written first, and compaction has dropped that since.
#[test]
fn a_node_that_reads_of_its_end_before_any_lease_of_its_own_takes_a_new_incarnation() {
    let mut one = OneNode::new();
    one.load();
    let node = one.node.incarnation;
    one.log.clear();
    one.node.begin_load(0);
    one.node.loaded(one.now);
    one.written();
    let by = NodeIncarnation(0xb);
    let node_now = one.node.incarnation;
    assert_ne!(node_now, node);
    one.other(SessionRecord::Expired { node: node_now, by });
    assert_eq!(one.settle().len(), 2, "that it has left, and a lease");
    assert_ne!(one.node.incarnation, node_now);
    assert!(one.node.is_member());
}

#[test]
fn a_fencing_socket_closes_the_one_before_it_at_once_and_once_only_by_its_turn_in_the_log() {
    let mut one = OneNode::new();
    let fencing = |since| {
        let role = SocketRole::Producer {
            client_id: Some("p".into()),
            instance_id: None,
            sharing: InstanceSharing::Fencing,
        };
        let claim = PlaceClaim {
            since,
            ..(*socket_claim(role)).clone()
        };
        Arc::new(claim)
    };
    let (first, is_written) = one.node.claim_fencing(fencing(1), one.now);
    assert!(is_written);
    one.settle();
    let (second, _) = one.node.claim_fencing(fencing(2), one.now);
    one.settle();
    let fenced = |number| NodeEffect::Lost {
        number,
        loss: PlaceLoss::Fenced,
    };
    assert_eq!(
        one.take_done(),
        [
            decided(first, ClaimOutcome::Granted),
            fenced(first),
            decided(second, ClaimOutcome::Granted)
        ]
    );
    // Found dead, it claims again, and has nothing of the one that has come since at another node.
    one.other_lives(0xb, "node-2", 1);
    let (id, node, by) = (other_place(1), one.node.incarnation, NodeIncarnation(0xb));
    one.other(SessionRecord::Expired { node, by });
    one.other(SessionRecord::Place {
        id,
        claim: fencing(3),
    });
    one.settle();
    assert_eq!(one.take_done(), [NodeEffect::Rejoined, fenced(second)]);
    let left: Vec<_> = one.node.sockets().map(|(_, id, _)| id).collect();
    assert_eq!(left, [id]);
}
