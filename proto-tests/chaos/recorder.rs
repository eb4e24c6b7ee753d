//! Where the clients of a run note what they see.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use kafka_client::TopicPartition;
use serde_json::Value;
use tokio::sync::Notify;

use super::history::{
    ChaosHistory, DeliveredRecord, LoggedRecord, RecordId, SendResult, SentRecord, ServerClose,
};

/// Shared by all clients of a run.
#[derive(Debug)]
pub(super) struct Recorder {
    pub(super) start: Instant,
    /// Notified after each delivery.
    pub(super) delivered: Notify,
    seen: Mutex<SeenSoFar>,
}

#[derive(Debug, Default)]
struct SeenSoFar {
    history: ChaosHistory,
    connections: u32,
    /// Distinct offsets by group and partition.
    offsets: HashMap<(String, TopicPartition), BTreeSet<i64>>,
}

impl Recorder {
    pub(super) fn new(start: Instant) -> Self {
        Self {
            start,
            delivered: Notify::new(),
            seen: Mutex::default(),
        }
    }

    /// The number of a new producing connection.
    pub(super) fn next_connection(&self) -> u32 {
        let mut seen = self.seen();
        seen.connections += 1;
        seen.connections
    }

    /// A record is about to be written to a producing socket. Returns its value, and the
    /// place for [`answered`](Self::answered).
    pub(super) fn sending(&self, id: RecordId, topic: &str) -> (String, usize) {
        let sent_at = self.start.elapsed();
        let mut seen = self.seen();
        seen.history.sent.push(SentRecord {
            id,
            topic: topic.to_owned(),
            result: SendResult::Unanswered,
        });
        (value_of(id, sent_at), seen.history.sent.len() - 1)
    }

    pub(super) fn answered(&self, place: usize, result: SendResult) {
        self.seen().history.sent[place].result = result;
    }

    /// A consuming client received that record.
    pub(super) fn received(&self, group: &str, client: &str, record: &Value) {
        let topic = record["topic"].as_str().unwrap();
        let tp = TopicPartition::new(topic, record["partition"].as_i64().unwrap() as i32);
        let offset = record["offset"].as_i64().unwrap();
        let value = record["value"]["value"].as_str();
        let id = parse_value(value.unwrap()).id;
        let at = self.start.elapsed();
        let mut seen = self.seen();
        let key = (group.to_owned(), tp.clone());
        seen.offsets.entry(key).or_default().insert(offset);
        seen.history.deliveries.push(DeliveredRecord {
            group: group.to_owned(),
            client: client.to_owned(),
            tp,
            offset,
            id,
            at,
        });
        drop(seen);
        self.delivered.notify_waiters();
    }

    /// The server refused to open a socket.
    pub(super) fn refused(&self, why: String) {
        *self.seen().history.refusals.entry(why).or_default() += 1;
    }

    /// The server ended a client's connection.
    pub(super) fn closed_by_server(&self, client: &str, reason: String) {
        let at = self.start.elapsed();
        let client = client.to_owned();
        let close = ServerClose { client, at, reason };
        self.seen().history.closes.push(close);
    }

    /// How many distinct offsets of a partition a group has received.
    pub(super) fn received_offsets(&self, group: &str, tp: &TopicPartition) -> usize {
        let key = (group.to_owned(), tp.clone());
        self.seen().offsets.get(&key).map_or(0, BTreeSet::len)
    }

    pub(super) fn history(&self) -> ChaosHistory {
        self.seen().history.clone()
    }

    fn seen(&self) -> MutexGuard<'_, SeenSoFar> {
        self.seen.lock().unwrap()
    }
}

/// The value of a record says which one it is and when it was sent.
fn value_of(id: RecordId, sent_at: Duration) -> String {
    let RecordId {
        connection,
        sequence,
    } = id;
    format!("{connection}/{sequence}/{}", sent_at.as_millis())
}

/// What the value of a record says.
pub(super) fn parse_value(value: &str) -> LoggedRecord {
    let mut parts = value.split('/').map(|part| part.parse::<u64>().unwrap());
    let mut next = || parts.next().unwrap();
    LoggedRecord {
        id: RecordId {
            connection: next() as u32,
            sequence: next() as u32,
        },
        sent_at: Duration::from_millis(next()),
    }
}
