//! Where a partition's log begins and ends (ListOffsets).
//!
//! Many consumers ask at the same moment, after a rebalance or a restart: lookups at one broker
//! that come while a request is in flight are sent together in the next.
//!
//! ```text
//! list_offset() ─▶ pending lookups ─▶ one ListOffsets at a time ─▶ results
//!                  by (broker, isolation level)
//! ```

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex};

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{BrokerId as NodeId, ListOffsetsRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use runtime::mutex::lock;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};

use super::FetchPosition;
use super::error::{FetchError, RetryReason};
use super::request::await_requesting_metadata;
use super::truncation::{self, EndOfEpoch};
use crate::backoff::ExponentialBackoff;
use crate::metadata::{ClusterSnapshot, LeaderAndEpoch, Metadata, MetadataError, OVERDUE_AFTER};
use crate::{BrokerId, Cluster, ConnectionPurpose, IsolationLevel, TopicPartition};

/// An end of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OffsetSpec {
    /// The log start offset.
    Earliest,
    /// The high watermark or the last stable offset, by isolation level.
    Latest,
    /// Where the log ended while the partition had no leader, in that leader epoch: before the
    /// first record of a later leader, however much of them there is by now. Found by
    /// OffsetForLeaderEpoch; where that is not to be had (brokers before 2.3), as `Latest`.
    EndOfLeaderlessEpoch(i32),
}

/// The offset lookups of a cluster, batched by broker and isolation level.
#[derive(Clone, Debug)]
pub(super) struct OffsetFetcher {
    cluster: Cluster,
    pending_lookups: Arc<Mutex<PendingLookups>>,
}

/// An entry exists while a task sends the lookups of its key.
type PendingLookups = HashMap<(BrokerId, IsolationLevel), Vec<OffsetLookup>>;

#[derive(Debug)]
struct OffsetLookup {
    tp: TopicPartition,
    /// [`EARLIEST_TIMESTAMP`] or [`LATEST_TIMESTAMP`].
    timestamp: i64,
    leader_epoch: i32,
    result: oneshot::Sender<OffsetLookupResult>,
}

type OffsetLookupResult = Result<FetchPosition, RetryReason>;

impl OffsetFetcher {
    pub(super) fn new(cluster: Cluster) -> Self {
        Self {
            cluster,
            pending_lookups: Arc::default(),
        }
    }

    /// Asks until there is an answer or `request.timeout.ms` have passed.
    pub(super) async fn list_offset(
        &self,
        tp: &TopicPartition,
        spec: OffsetSpec,
        isolation: IsolationLevel,
    ) -> Result<FetchPosition, FetchError> {
        let config = self.cluster.config();
        let deadline = Instant::now() + config.request_timeout;
        let mut backoff = ExponentialBackoff::new(config.retry_backoff, config.retry_backoff_max);
        let mut last_reason = RetryReason::Other("no leader".into());
        let attempts = async {
            loop {
                match self.attempt(tp, spec, isolation).await {
                    Ok(found) => return found,
                    Err(reason) => last_reason = reason,
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
                reason: last_reason.to_string(),
            })
        })
    }

    async fn attempt(
        &self,
        tp: &TopicPartition,
        spec: OffsetSpec,
        isolation: IsolationLevel,
    ) -> Result<Result<FetchPosition, FetchError>, RetryReason> {
        let topic = || Arc::clone(&tp.topic);
        match self.cluster.metadata().topic(&tp.topic).await {
            Ok(known) if known.partitions.get(tp.partition as usize).is_none() => {
                return Err(ResponseError::UnknownTopicOrPartition.into());
            }
            Ok(_) => {}
            Err(MetadataError::UnknownTopic { .. } | MetadataError::Invalid { .. }) => {
                return Ok(Err(FetchError::UnknownTopic { topic: topic() }));
            }
            Err(MetadataError::NotAuthorized { .. }) => {
                return Ok(Err(FetchError::NotAuthorized { topic: topic() }));
            }
            Err(error) => return Err(RetryReason::Other(error.to_string().into())),
        }
        let Some(leader) = self.cluster.metadata().current_leader(tp) else {
            return Err(ResponseError::LeaderNotAvailable.into());
        };
        let found = match spec {
            OffsetSpec::Earliest => {
                self.look_up(leader, tp, EARLIEST_TIMESTAMP, isolation)
                    .await
            }
            OffsetSpec::Latest => self.look_up(leader, tp, LATEST_TIMESTAMP, isolation).await,
            OffsetSpec::EndOfLeaderlessEpoch(epoch) => {
                self.end_of_leaderless_epoch(leader, tp, epoch, isolation)
                    .await
            }
        };
        match found {
            Ok(position) => Ok(Ok(position)),
            Err(RetryReason::Code(code))
                if code == ResponseError::TopicAuthorizationFailed.code() =>
            {
                Ok(Err(FetchError::NotAuthorized { topic: topic() }))
            }
            Err(reason) => Err(reason),
        }
    }

    async fn end_of_leaderless_epoch(
        &self,
        leader: LeaderAndEpoch,
        tp: &TopicPartition,
        leaderless: i32,
        isolation: IsolationLevel,
    ) -> Result<FetchPosition, RetryReason> {
        let Some(epoch) = epoch_to_ask_for(leaderless, leader.epoch) else {
            return self
                .look_up(leader, tp, EARLIEST_TIMESTAMP, isolation)
                .await;
        };
        let (cluster, metadata) = (&self.cluster, self.cluster.metadata());
        let timeout = cluster.config().request_timeout;
        let call = truncation::end_of_epoch(cluster, leader, tp, epoch, timeout);
        let response = tokio::select! {
            biased;
            response = await_requesting_metadata(metadata, OVERDUE_AFTER, call) => response,
            () = leadership_moved(metadata, tp, leader.broker) => {
                return Err(ResponseError::NotLeaderOrFollower.into());
            }
        };
        match response {
            Ok(EndOfEpoch::At(position)) => Ok(position),
            Ok(EndOfEpoch::Unknown) => self.look_up(leader, tp, LATEST_TIMESTAMP, isolation).await,
            Ok(EndOfEpoch::Error(code)) => Err(RetryReason::Code(code)),
            Err(error) => Err(RetryReason::Other(error.to_string().into())),
        }
    }

    async fn look_up(
        &self,
        leader: LeaderAndEpoch,
        tp: &TopicPartition,
        timestamp: i64,
        isolation: IsolationLevel,
    ) -> Result<FetchPosition, RetryReason> {
        let (result, response) = oneshot::channel();
        let lookup = OffsetLookup {
            tp: tp.clone(),
            timestamp,
            leader_epoch: leader.epoch,
            result,
        };
        let key = (leader.broker, isolation);
        let start_task = match lock(&self.pending_lookups).entry(key) {
            Entry::Occupied(mut pending) => {
                pending.get_mut().push(lookup);
                false
            }
            Entry::Vacant(entry) => {
                entry.insert(vec![lookup]);
                true
            }
        };
        if start_task {
            let this = self.clone();
            self.cluster.tasks().spawn(async move {
                let stop = this.cluster.stop().clone();
                stop.run_until_cancelled(this.send_lookups(key)).await;
            });
        }
        let stopped = RetryReason::Other("the client is stopping".into());
        tokio::select! {
            biased;
            result = response => result.unwrap_or(Err(stopped)),
            () = leadership_moved(self.cluster.metadata(), tp, leader.broker) => {
                Err(ResponseError::NotLeaderOrFollower.into())
            }
        }
    }

    /// Sends the pending lookups of `key` until there are none.
    async fn send_lookups(&self, key: (BrokerId, IsolationLevel)) {
        loop {
            let lookups = {
                let mut pending_lookups = lock(&self.pending_lookups);
                match pending_lookups.get_mut(&key) {
                    Some(pending) if !pending.is_empty() => std::mem::take(pending),
                    _ => {
                        pending_lookups.remove(&key);
                        return;
                    }
                }
            };
            // A partition may stand in a request once: the two ends are two requests.
            let (earliest, latest): (Vec<_>, Vec<_>) = lookups
                .into_iter()
                .partition(|lookup| lookup.timestamp == EARLIEST_TIMESTAMP);
            tokio::join!(
                self.send(key, EARLIEST_TIMESTAMP, earliest),
                self.send(key, LATEST_TIMESTAMP, latest),
            );
        }
    }

    async fn send(
        &self,
        (broker, isolation): (BrokerId, IsolationLevel),
        timestamp: i64,
        mut lookups: Vec<OffsetLookup>,
    ) {
        lookups.retain(|lookup| !lookup.result.is_closed());
        if lookups.is_empty() {
            return;
        }
        let topics = topics_of(timestamp, &lookups);
        let build = |version| build_request(version, isolation, topics);
        let timeout = self.cluster.config().request_timeout;
        let metadata = self.cluster.metadata();
        let response = self
            .cluster
            .call(broker, ConnectionPurpose::Control, build, timeout);
        let response = await_requesting_metadata(metadata, OVERDUE_AFTER, response);
        let response = tokio::select! {
            response = response => response,
            () = all_abandoned(&mut lookups) => return,
        };
        let mut results = HashMap::new();
        let missing = match response {
            Ok((_, response)) => {
                for topic in &response.topics {
                    for partition in &topic.partitions {
                        let result = match partition.error_code {
                            0 => Ok(FetchPosition {
                                offset: partition.offset,
                                leader_epoch: partition.leader_epoch,
                            }),
                            code => Err(RetryReason::Code(code)),
                        };
                        let key = (topic.name.as_str().to_owned(), partition.partition_index);
                        results.insert(key, result);
                    }
                }
                RetryReason::Other("the broker left it out".into())
            }
            Err(error) => RetryReason::Other(error.to_string().into()),
        };
        for lookup in lookups {
            let key = (lookup.tp.topic.to_string(), lookup.tp.partition);
            let result = results.get(&key).cloned();
            // The caller may be gone.
            let _ = lookup
                .result
                .send(result.unwrap_or_else(|| Err(missing.clone())));
        }
    }
}

/// Of which epoch the end is asked for. A leader of a later epoch began where the log ended
/// without a leader. One of the same epoch was there all the time, and the broker that knew of no
/// leader lagged: then all of that epoch may have been written since. `None`: all of the log.
fn epoch_to_ask_for(leaderless: i32, leader_epoch: i32) -> Option<i32> {
    let before = if leader_epoch > leaderless {
        leaderless
    } else {
        leader_epoch - 1
    };
    (before >= 0).then_some(before)
}

/// Completes when the metadata names another leader of the partition: a broker that hangs keeps
/// no lookup that another one can answer, sent or not.
async fn leadership_moved(metadata: &Metadata, tp: &TopicPartition, from: BrokerId) {
    let mut snapshots = metadata.subscribe();
    let has_moved = |snapshot: &Arc<ClusterSnapshot>| snapshot.has_other_leader(tp, from);
    if snapshots.wait_for(has_moved).await.is_err() {
        std::future::pending().await
    }
}

/// Completes when nobody waits for these lookups any more.
async fn all_abandoned(lookups: &mut [OffsetLookup]) {
    for lookup in lookups {
        lookup.result.closed().await;
    }
}

fn topics_of(timestamp: i64, lookups: &[OffsetLookup]) -> Vec<ListOffsetsTopic> {
    let mut topics: HashMap<&str, HashMap<i32, i32>> = HashMap::new();
    for lookup in lookups {
        topics
            .entry(&lookup.tp.topic)
            .or_default()
            .insert(lookup.tp.partition, lookup.leader_epoch);
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
    topics.collect()
}

fn build_request(
    version: i16,
    isolation: IsolationLevel,
    topics: Vec<ListOffsetsTopic>,
) -> ListOffsetsRequest {
    let request = ListOffsetsRequest::default()
        .with_replica_id(NodeId(-1))
        .with_topics(topics);
    if version >= 2 && isolation == IsolationLevel::ReadCommitted {
        request.with_isolation_level(1)
    } else {
        request
    }
}

const LATEST_TIMESTAMP: i64 = -1;
const EARLIEST_TIMESTAMP: i64 = -2;

#[cfg(test)]
mod tests {
    use kafka_protocol::protocol::Encodable;

    use super::*;

    #[test]
    fn every_version_can_carry_a_lookup() {
        for version in 1..=10 {
            let lookup = |partition| OffsetLookup {
                tp: TopicPartition::new("t", partition),
                timestamp: LATEST_TIMESTAMP,
                leader_epoch: 4,
                result: oneshot::channel().0,
            };
            let lookups = [lookup(0), lookup(1), lookup(1)];
            let isolation = IsolationLevel::ReadCommitted;
            let topics = topics_of(LATEST_TIMESTAMP, &lookups);
            let request = build_request(version, isolation, topics);
            assert_eq!(request.topics[0].partitions.len(), 2);
            let mut bytes = bytes::BytesMut::new();
            request.encode(&mut bytes, version).unwrap();
        }
    }
    #[test]
    fn what_a_leader_may_have_written_after_a_partition_had_none_is_not_left_out() {
        // Elected since.
        assert_eq!(epoch_to_ask_for(4, 5), Some(4));
        assert_eq!(epoch_to_ask_for(4, 9), Some(4));
        // It led the partition all the time.
        assert_eq!(epoch_to_ask_for(4, 4), Some(3));
        assert_eq!(epoch_to_ask_for(0, 0), None);
        // Brokers that give no epochs.
        assert_eq!(epoch_to_ask_for(4, -1), None);
    }
}
