//! Where a partition's log begins and ends.
//!
//! Many sockets ask at the same moment, after a rebalance or a restart: questions to one
//! broker that come while one is under way are asked together in the next.
//!
//! ```text
//! find() ─▶ by (broker, isolation): waiting ─▶ one ListOffsets at a time ─▶ answers
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{BrokerId as NodeId, ListOffsetsRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};

use super::FetchPosition;
use super::error::FetchError;
use crate::backoff::ExponentialBackoff;
use crate::lock::lock;
use crate::metadata::{LeaderAndEpoch, MetadataError};
use crate::{BrokerId, Cluster, ConnectionPurpose, IsolationLevel, TopicPartition};

/// An end of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OffsetSpec {
    /// The first record that is still there.
    Earliest,
    /// Behind the last record that may be read.
    Latest,
}

/// Asks where a partition's log begins or ends, on its own. Sockets ask through
/// [`Fetcher::list_offset`](super::Fetcher::list_offset), which gathers their questions.
///
/// # Errors
/// [`FetchError::UnknownTopic`], [`FetchError::NotAuthorized`], [`FetchError::Stopped`],
/// and [`FetchError::Unavailable`] after `request.timeout.ms`.
pub async fn list_offset(
    cluster: &Cluster,
    tp: &TopicPartition,
    at: OffsetSpec,
    isolation: IsolationLevel,
) -> Result<FetchPosition, FetchError> {
    Offsets::new(cluster.clone()).find(tp, at, isolation).await
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Offsets {
    cluster: Cluster,
    desks: Arc<Mutex<Desks>>,
}

type Desks = HashMap<(BrokerId, IsolationLevel), Vec<Question>>;

#[derive(Debug)]
struct Question {
    tp: TopicPartition,
    at: OffsetSpec,
    leader_epoch: i32,
    answer: oneshot::Sender<Answer>,
}

/// A position, or why there is none yet.
type Answer = Result<FetchPosition, Refusal>;

#[derive(Clone, Debug)]
enum Refusal {
    Code(i16),
    Other(Arc<str>),
}

impl Offsets {
    pub(super) fn new(cluster: Cluster) -> Self {
        Self {
            cluster,
            desks: Arc::default(),
        }
    }

    /// Asks until there is an answer or `request.timeout.ms` have passed.
    pub(super) async fn find(
        &self,
        tp: &TopicPartition,
        at: OffsetSpec,
        isolation: IsolationLevel,
    ) -> Result<FetchPosition, FetchError> {
        let config = self.cluster.config();
        let deadline = Instant::now() + config.request_timeout;
        let mut backoff = ExponentialBackoff::new(config.retry_backoff, config.retry_backoff_max);
        let mut last = Refusal::Other("no leader".into());
        let attempts = async {
            loop {
                match self.attempt(tp, at, isolation).await {
                    Ok(found) => return found,
                    Err(refusal) => last = refusal,
                }
                self.cluster.metadata().request_update_for_topic(&tp.topic);
                sleep(backoff.after_failure()).await;
            }
        };
        let found = tokio::select! {
            () = self.cluster.stop().cancelled() => return Err(FetchError::Stopped),
            found = timeout_at(deadline, attempts) => found,
        };
        found.unwrap_or_else(|_| {
            Err(FetchError::Unavailable {
                tp: tp.clone(),
                reason: last.to_string(),
            })
        })
    }

    async fn attempt(
        &self,
        tp: &TopicPartition,
        at: OffsetSpec,
        isolation: IsolationLevel,
    ) -> Result<Result<FetchPosition, FetchError>, Refusal> {
        let topic = || Arc::clone(&tp.topic);
        match self.cluster.metadata().topic(&tp.topic).await {
            Ok(known) if known.partitions.get(tp.partition as usize).is_none() => {
                return Err(Refusal::Code(ResponseError::UnknownTopicOrPartition.code()));
            }
            Ok(_) => {}
            Err(MetadataError::UnknownTopic { .. } | MetadataError::Invalid { .. }) => {
                return Ok(Err(FetchError::UnknownTopic { topic: topic() }));
            }
            Err(MetadataError::NotAuthorized { .. }) => {
                return Ok(Err(FetchError::NotAuthorized { topic: topic() }));
            }
            Err(error) => return Err(Refusal::Other(error.to_string().into())),
        }
        let Some(leader) = self.cluster.metadata().current_leader(tp) else {
            return Err(Refusal::Code(ResponseError::LeaderNotAvailable.code()));
        };
        match self.ask(leader, tp, at, isolation).await {
            Ok(position) => Ok(Ok(position)),
            Err(Refusal::Code(code)) if is(code, ResponseError::TopicAuthorizationFailed) => {
                Ok(Err(FetchError::NotAuthorized { topic: topic() }))
            }
            Err(refusal) => Err(refusal),
        }
    }

    async fn ask(
        &self,
        leader: LeaderAndEpoch,
        tp: &TopicPartition,
        at: OffsetSpec,
        isolation: IsolationLevel,
    ) -> Answer {
        let (answer, answered) = oneshot::channel();
        let question = Question {
            tp: tp.clone(),
            at,
            leader_epoch: leader.epoch,
            answer,
        };
        let desk = (leader.broker, isolation);
        let open = match lock(&self.desks).entry(desk) {
            std::collections::hash_map::Entry::Occupied(mut waiting) => {
                waiting.get_mut().push(question);
                false
            }
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(vec![question]);
                true
            }
        };
        if open {
            let this = self.clone();
            self.cluster.tasks().spawn(async move {
                let stop = this.cluster.stop().clone();
                stop.run_until_cancelled(this.serve(desk)).await;
            });
        }
        let lost = Refusal::Other("the client is stopping".into());
        answered.await.unwrap_or(Err(lost))
    }

    /// Asks what waits at a desk until nothing does.
    async fn serve(&self, desk: (BrokerId, IsolationLevel)) {
        loop {
            let questions = {
                let mut desks = lock(&self.desks);
                match desks.get_mut(&desk) {
                    Some(waiting) if !waiting.is_empty() => std::mem::take(waiting),
                    _ => {
                        desks.remove(&desk);
                        return;
                    }
                }
            };
            // A partition may stand in a request once: the two ends are two requests.
            let (earliest, latest): (Vec<_>, Vec<_>) = questions
                .into_iter()
                .partition(|question| question.at == OffsetSpec::Earliest);
            for (at, questions) in [
                (OffsetSpec::Earliest, earliest),
                (OffsetSpec::Latest, latest),
            ] {
                if !questions.is_empty() {
                    self.request(desk, at, questions).await;
                }
            }
        }
    }

    async fn request(
        &self,
        (broker, isolation): (BrokerId, IsolationLevel),
        at: OffsetSpec,
        asked: Vec<Question>,
    ) {
        let build = |version| request(version, at, isolation, &asked);
        let timeout = self.cluster.config().request_timeout;
        let response = self
            .cluster
            .call(broker, ConnectionPurpose::Control, build, timeout)
            .await;
        let mut answers = HashMap::new();
        let missing = match response {
            Ok((_, response)) => {
                for topic in &response.topics {
                    for partition in &topic.partitions {
                        let answer = match partition.error_code {
                            0 => Ok(FetchPosition {
                                offset: partition.offset,
                                leader_epoch: partition.leader_epoch,
                            }),
                            code => Err(Refusal::Code(code)),
                        };
                        let key = (topic.name.as_str().to_owned(), partition.partition_index);
                        answers.insert(key, answer);
                    }
                }
                Refusal::Other("the broker left it out".into())
            }
            Err(error) => Refusal::Other(error.to_string().into()),
        };
        for question in asked {
            let key = (question.tp.topic.to_string(), question.tp.partition);
            let answer = answers.get(&key).cloned();
            // Who asked may be gone.
            let _ = question
                .answer
                .send(answer.unwrap_or_else(|| Err(missing.clone())));
        }
    }
}

fn request(
    version: i16,
    at: OffsetSpec,
    isolation: IsolationLevel,
    asked: &[Question],
) -> ListOffsetsRequest {
    let timestamp = match at {
        OffsetSpec::Earliest => -2,
        OffsetSpec::Latest => -1,
    };
    let mut topics: HashMap<&str, HashMap<i32, i32>> = HashMap::new();
    for question in asked {
        topics
            .entry(&question.tp.topic)
            .or_default()
            .insert(question.tp.partition, question.leader_epoch);
    }
    let topics = topics.into_iter().map(|(name, partitions)| {
        let partitions = partitions.into_iter().map(|(index, epoch)| {
            ListOffsetsPartition::default()
                .with_partition_index(index)
                .with_current_leader_epoch(epoch)
                .with_timestamp(timestamp)
        });
        ListOffsetsTopic::default()
            .with_name(TopicName(StrBytes::from_string(name.to_owned())))
            .with_partitions(partitions.collect())
    });
    let request = ListOffsetsRequest::default()
        .with_replica_id(NodeId(-1))
        .with_topics(topics.collect());
    if version >= 2 && isolation == IsolationLevel::ReadCommitted {
        request.with_isolation_level(1)
    } else {
        request
    }
}

fn is(code: i16, error: ResponseError) -> bool {
    code == error.code()
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => match ResponseError::try_from_code(*code) {
                Some(error) => write!(f, "{error:?}"),
                None => write!(f, "error {code}"),
            },
            Self::Other(reason) => f.write_str(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::protocol::Encodable;

    use super::*;

    #[test]
    fn every_version_can_carry_the_question() {
        for version in 1..=10 {
            let question = |partition| Question {
                tp: TopicPartition::new("t", partition),
                at: OffsetSpec::Latest,
                leader_epoch: 4,
                answer: oneshot::channel().0,
            };
            let asked = [question(0), question(1), question(1)];
            let request = request(
                version,
                OffsetSpec::Latest,
                IsolationLevel::ReadCommitted,
                &asked,
            );
            assert_eq!(request.topics[0].partitions.len(), 2);
            let mut bytes = bytes::BytesMut::new();
            request.encode(&mut bytes, version).unwrap();
        }
    }
}
