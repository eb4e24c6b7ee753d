//! What was seen of a run: all that the oracle judges by. Times count from the start.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use kafka_client::TopicPartition;
use kafka_protocol::messages::ConsumerProtocolAssignment;
use kafka_protocol::protocol::Decodable;
use memory_broker::{GenerationAssignment, GroupHistory, MemberDeparture};
#[cfg(test)]
use {
    bytes::BytesMut,
    kafka_protocol::messages::{TopicName, consumer_protocol_assignment},
    kafka_protocol::protocol::{Encodable, StrBytes},
    memory_broker::{DepartureCause, MemberAssignment},
};

/// One run, from its first record to its last.
#[derive(Clone, Debug, Default)]
pub(super) struct ChaosHistory {
    /// `session.timeout.ms` of the groups.
    pub(super) session_timeout: Duration,
    pub(super) sent: Vec<SentRecord>,
    /// What is in each partition in the end, by offset.
    pub(super) logs: BTreeMap<TopicPartition, BTreeMap<i64, LoggedRecord>>,
    /// In the order in which they were received.
    pub(super) deliveries: Vec<DeliveredRecord>,
    pub(super) groups: BTreeMap<String, GroupRun>,
    /// Connections that the server ended, of clients that had not asked for it.
    pub(super) closes: Vec<ServerClose>,
    /// How often the server refused to open a socket, by status and message. It may while
    /// brokers are away.
    pub(super) refusals: BTreeMap<String, usize>,
}

/// The number of a producing connection, and of a record on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RecordId {
    pub(super) connection: u32,
    pub(super) sequence: u32,
}

/// A record that was written to a producing socket.
#[derive(Clone, Debug)]
pub(super) struct SentRecord {
    pub(super) id: RecordId,
    pub(super) topic: String,
    pub(super) result: SendResult,
}

/// What its client learned of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SendResult {
    /// Written; the offset is -1 when the broker recognised a duplicate and knew no more.
    Acknowledged { partition: i32, offset: i64 },
    /// Certainly not written.
    Failed(String),
    /// `unknown_outcome`, or the connection ended before the answer.
    Unknown,
    /// The connection is open, and no answer came until the end.
    Unanswered,
}

/// A record in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LoggedRecord {
    pub(super) id: RecordId,
    /// When its client sent it.
    pub(super) sent_at: Duration,
}

/// A record that a consuming client received.
#[derive(Clone, Debug)]
pub(super) struct DeliveredRecord {
    pub(super) group: String,
    pub(super) client: String,
    pub(super) tp: TopicPartition,
    pub(super) offset: i64,
    pub(super) id: RecordId,
    pub(super) at: Duration,
}

/// A group, as the broker saw it.
#[derive(Clone, Debug, Default)]
pub(super) struct GroupRun {
    /// Every partition of its topics, with what it committed.
    pub(super) committed: BTreeMap<TopicPartition, Option<i64>>,
    pub(super) ownerships: Vec<Ownership>,
    /// Members that the coordinator removed since it heard nothing of them.
    pub(super) expired: usize,
    pub(super) heartbeat_gap_max: Duration,
}

/// A partition was a client's, by its coordinator's book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ownership {
    pub(super) client: String,
    pub(super) tp: TopicPartition,
    /// When it was assigned.
    pub(super) from: Duration,
    /// When the client left the group, was removed, or the partition was another's or nobody's.
    pub(super) to: Option<Duration>,
}

/// A connection that the server ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerClose {
    pub(super) client: String,
    pub(super) at: Duration,
    /// Code and reason of its close frame, or how the connection ended without one.
    pub(super) reason: String,
}

/// Who owned what when, from a coordinator's history. Clients are known by their
/// `group.instance.id`.
pub(super) fn ownerships(history: &GroupHistory, start: Instant) -> Vec<Ownership> {
    let mut book = OwnershipBook::default();
    let mut departures = history.departures.iter().peekable();
    for generation in &history.assignments {
        while let Some(gone) = departures.next_if(|gone| gone.at <= generation.at) {
            book.departed(gone, start);
        }
        book.assigned(generation, start);
    }
    for gone in departures {
        book.departed(gone, start);
    }
    book.all
}

#[derive(Default)]
struct OwnershipBook {
    all: Vec<Ownership>,
    /// Index into `all` of each partition's present owner.
    open: HashMap<TopicPartition, usize>,
}

impl OwnershipBook {
    fn assigned(&mut self, generation: &GenerationAssignment, start: Instant) {
        let at = generation.at.saturating_duration_since(start);
        let mut owners: BTreeMap<TopicPartition, &str> = BTreeMap::new();
        for member in &generation.members {
            let client = member.instance_id.as_deref().unwrap_or_default();
            let partitions = assigned_partitions(&member.assignment).into_iter();
            owners.extend(partitions.map(|tp| (tp, client)));
        }
        self.end(at, |owned| owners.get(&owned.tp) != Some(&&*owned.client));
        for (tp, client) in owners {
            self.open.entry(tp.clone()).or_insert_with(|| {
                self.all.push(Ownership {
                    client: client.to_owned(),
                    tp,
                    from: at,
                    to: None,
                });
                self.all.len() - 1
            });
        }
    }

    fn departed(&mut self, gone: &MemberDeparture, start: Instant) {
        let at = gone.at.saturating_duration_since(start);
        let client = gone.instance_id.as_deref().unwrap_or_default();
        self.end(at, |owned| owned.client == client);
    }

    fn end(&mut self, at: Duration, ends: impl Fn(&Ownership) -> bool) {
        let Self { all, open } = self;
        open.retain(|_, index| {
            let owned = &mut all[*index];
            let ends = ends(owned);
            if ends {
                owned.to = Some(at);
            }
            !ends
        });
    }
}

/// The partitions in a member's assignment, as Kafka's clients write it.
fn assigned_partitions(assignment: &Bytes) -> Vec<TopicPartition> {
    let mut bytes = assignment.clone();
    if bytes.len() < 2 {
        return Vec::new();
    }
    let version = bytes.get_i16().clamp(0, 3);
    let assignment = ConsumerProtocolAssignment::decode(&mut bytes, version).unwrap();
    let topics = assignment.assigned_partitions.into_iter();
    let partitions = topics.flat_map(|topic| {
        let name = topic.topic.to_string();
        let partitions = topic.partitions.into_iter();
        partitions.map(move |partition| TopicPartition::new(name.as_str(), partition))
    });
    partitions.collect()
}

#[test]
fn a_partition_is_its_members_until_another_has_it_or_the_member_goes() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let member = |client: &str, partitions: &[i32]| {
        let partitions = partitions.to_vec();
        let topic = consumer_protocol_assignment::TopicPartition::default()
            .with_topic(TopicName(StrBytes::from_static_str("t")))
            .with_partitions(partitions);
        let mut bytes = BytesMut::from(&[0, 1][..]);
        let assignment = ConsumerProtocolAssignment::default();
        let assignment = assignment.with_assigned_partitions(vec![topic]);
        assignment.encode(&mut bytes, 1).unwrap();
        MemberAssignment {
            member_id: format!("{client}-id"),
            instance_id: Some(client.to_owned()),
            assignment: bytes.freeze(),
        }
    };
    let generation = |seconds, members: Vec<MemberAssignment>| GenerationAssignment {
        at: at(seconds),
        generation: seconds as i32,
        members,
    };
    let mut history = GroupHistory::default();
    history.assignments = vec![
        generation(1, vec![member("a", &[0, 1])]),
        generation(2, vec![member("a", &[0]), member("b", &[])]),
        generation(3, vec![member("a", &[0]), member("b", &[1])]),
    ];
    history.departures = vec![MemberDeparture {
        at: at(4),
        member_id: "a-id".to_owned(),
        instance_id: Some("a".to_owned()),
        cause: DepartureCause::Left,
    }];
    let owned = |client: &str, partition, from, to: Option<u64>| Ownership {
        client: client.to_owned(),
        tp: TopicPartition::new("t", partition),
        from: Duration::from_secs(from),
        to: to.map(Duration::from_secs),
    };
    assert_eq!(
        ownerships(&history, start),
        [
            owned("a", 0, 1, Some(4)),
            owned("a", 1, 1, Some(2)),
            owned("b", 1, 3, None),
        ]
    );
}
