//! What is known of a cluster, and how an answer changes it. Pure.
//!
//! # Invariants
//! - A partition's leader never goes back to an older epoch, whichever broker answered,
//!   unless the topic was deleted and made again (its id changed).
//! - What an answer does not mention stays as it is.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::MetadataResponse;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use uuid::Uuid;

use crate::kafka::topic::BrokerId;

/// A cluster at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The brokers that are alive, as far as the last one asked knew.
    pub brokers: Vec<Broker>,
    /// Who decides about topics.
    pub controller: Option<BrokerId>,
    /// The cluster's own name for itself.
    pub cluster_id: Option<Arc<str>>,
    /// The topics in use.
    pub topics: HashMap<Arc<str>, Arc<Topic>>,
}

/// One broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// Its id.
    pub id: BrokerId,
    /// Its advertised name or address.
    pub host: Arc<str>,
    /// Its advertised port.
    pub port: u16,
    /// `broker.rack`
    pub rack: Option<Arc<str>>,
}

/// One topic.
#[derive(Debug)]
pub struct Topic {
    /// Its name.
    pub name: Arc<str>,
    /// Its id; nil from brokers before 2.8. A topic that was deleted and made again has
    /// another.
    pub id: Uuid,
    /// By partition number.
    pub partitions: Vec<Partition>,
    /// Whether somebody looked at it since the last refresh.
    pub(super) used: Arc<AtomicBool>,
}

/// One partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Who serves it; `None` while an election is under way.
    pub leader: Option<BrokerId>,
    /// Counts its leaders; -1 when unknown.
    pub epoch: i32,
}

/// Who leads a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leader {
    /// The leader.
    pub broker: BrokerId,
    /// Counts the partition's leaders; -1 when unknown.
    pub epoch: i32,
}

/// What a broker says against a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Unknown,
    NotAuthorized,
    Invalid,
    /// Nothing to rely on: ask again.
    Passing,
}

/// What one answer says about one topic.
pub(super) type TopicAnswer = (Arc<str>, Result<Arc<Topic>, Fault>);

impl Snapshot {
    /// The broker with that id.
    pub fn broker(&self, id: BrokerId) -> Option<&Broker> {
        self.brokers.iter().find(|broker| broker.id == id)
    }

    /// The topic, if it is known.
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(name)
    }

    /// This knowledge with an answer's laid over it, and what it says of each topic.
    /// Topics stay when an answer is against them: whoever calls decides when to forget.
    pub(super) fn after(&self, answer: &MetadataResponse) -> (Self, Vec<TopicAnswer>) {
        let mut next = self.clone();
        let brokers: Vec<Broker> = answer.brokers.iter().filter_map(broker).collect();
        // A broker that has just started knows nobody.
        if !brokers.is_empty() {
            next.brokers = brokers;
            next.controller = known(answer.controller_id.0);
        }
        if let Some(id) = &answer.cluster_id {
            next.cluster_id = Some(id.as_str().into());
        }
        let mut told = Vec::with_capacity(answer.topics.len());
        for topic in &answer.topics {
            let Some(name) = &topic.name else { continue };
            let old = self.topics.get(name.as_str());
            let name: Arc<str> =
                old.map_or_else(|| name.as_str().into(), |old| Arc::clone(&old.name));
            let verdict = match fault(topic.error_code) {
                Some(fault) => Err(fault),
                None => {
                    let merged = Arc::new(merge(old, &name, topic));
                    next.topics.insert(Arc::clone(&name), Arc::clone(&merged));
                    Ok(merged)
                }
            };
            told.push((name, verdict));
        }
        (next, told)
    }

    /// This knowledge with a newer leader of one partition, if it is newer (KIP-951).
    pub(super) fn with_leader(
        &self,
        topic: &str,
        partition: i32,
        leader: Leader,
        endpoint: Option<Broker>,
    ) -> Option<Self> {
        let old = self.topics.get(topic)?;
        let at = usize::try_from(partition).ok()?;
        if leader.broker.0 < 0 || leader.epoch <= old.partitions.get(at)?.epoch {
            return None;
        }
        let mut partitions = old.partitions.clone();
        partitions[at] = Partition {
            leader: Some(leader.broker),
            epoch: leader.epoch,
        };
        let mut next = self.clone();
        next.topics.insert(
            Arc::clone(&old.name),
            Arc::new(Topic {
                name: Arc::clone(&old.name),
                id: old.id,
                partitions,
                used: Arc::clone(&old.used),
            }),
        );
        if let Some(endpoint) = endpoint {
            match next
                .brokers
                .iter_mut()
                .find(|known| known.id == endpoint.id)
            {
                Some(known) => *known = endpoint,
                None => next.brokers.push(endpoint),
            }
        }
        Some(next)
    }
}

impl Topic {
    /// The leader of a partition, if it has one.
    pub fn leader(&self, partition: i32) -> Option<Leader> {
        let partition = self.partitions.get(usize::try_from(partition).ok()?)?;
        Some(Leader {
            broker: partition.leader?,
            epoch: partition.epoch,
        })
    }

    pub(super) fn touch(&self) {
        // Mostly it is set already: reading it does not take the cache line from others.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }
}

fn known(id: i32) -> Option<BrokerId> {
    (id >= 0).then_some(BrokerId(id))
}

fn broker(
    broker: &kafka_protocol::messages::metadata_response::MetadataResponseBroker,
) -> Option<Broker> {
    Some(Broker {
        id: known(broker.node_id.0)?,
        host: broker.host.as_str().into(),
        port: u16::try_from(broker.port).ok()?,
        rack: broker.rack.as_ref().map(|rack| rack.as_str().into()),
    })
}

fn fault(code: i16) -> Option<Fault> {
    let error = ResponseError::try_from_code(code)?;
    Some(match error {
        ResponseError::UnknownTopicOrPartition => Fault::Unknown,
        ResponseError::TopicAuthorizationFailed => Fault::NotAuthorized,
        ResponseError::InvalidTopicException => Fault::Invalid,
        _ => Fault::Passing,
    })
}

const UNSEEN: Partition = Partition {
    leader: None,
    epoch: -1,
};

fn merge(old: Option<&Arc<Topic>>, name: &Arc<str>, answer: &MetadataResponseTopic) -> Topic {
    // Numbers beyond the count are noise; gaps are partitions without a leader.
    let mut partitions = vec![UNSEEN; answer.partitions.len()];
    for partition in &answer.partitions {
        let at = usize::try_from(partition.partition_index).ok();
        if let Some(slot) = at.and_then(|at| partitions.get_mut(at)) {
            *slot = Partition {
                leader: known(partition.leader_id.0),
                epoch: partition.leader_epoch,
            };
        }
    }
    let Some(old) = old else {
        return Topic {
            name: Arc::clone(name),
            id: answer.topic_id,
            partitions,
            used: Arc::new(AtomicBool::new(true)),
        };
    };
    let ids_are_known = !old.id.is_nil() && !answer.topic_id.is_nil();
    let recreated = ids_are_known && old.id != answer.topic_id;
    if !recreated {
        for (new, old) in partitions.iter_mut().zip(&old.partitions) {
            if new.epoch >= 0 && new.epoch < old.epoch {
                *new = *old;
            }
        }
        // Partitions are added, never taken away: whoever names fewer is behind.
        if ids_are_known && partitions.len() < old.partitions.len() {
            partitions.extend_from_slice(&old.partitions[partitions.len()..]);
        }
    }
    Topic {
        name: Arc::clone(name),
        id: if answer.topic_id.is_nil() {
            old.id
        } else {
            answer.topic_id
        },
        partitions,
        used: Arc::clone(&old.used),
    }
}
