//! One partition's fetch, from the validation of its position to what its response means.

use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use runtime::mutex::lock;
use uuid::Uuid;

use super::super::budget::BudgetPermit;
use super::super::catch_up::{CatchUpFetch, CatchUpFetchResult};
use super::super::error::{FetchError, RetryReason};
use super::super::fetch_state::FetchSpec;
use super::super::offset_fetcher::OffsetSpec;
use super::super::request::FetchPartitionData;
use super::super::shared_partition::{
    DECODING, DecodeLimits, DecodedFetch, SharedPartition, UnreadableFetch,
};
use super::super::truncation::{PositionValidation, validate_position};
use super::super::{FetchPosition, FetcherShared};
use crate::IsolationLevel;
use crate::error::RequestError;
use crate::metadata::LeaderAndEpoch;

/// One fetch of a partition from one leader, as the partition's task runs it: validated, queued
/// with [`CatchUpFetcher`](super::super::CatchUpFetcher), decoded.
pub(super) struct PartitionFetch {
    pub(super) shared: Arc<FetcherShared>,
    pub(super) partition: Arc<SharedPartition>,
    pub(super) leader: LeaderAndEpoch,
    pub(super) topic_id: Uuid,
    pub(super) exclusive: bool,
    /// Whether a batch that cannot be read is reported in place of its records.
    pub(super) report_unreadable: bool,
}

/// What came of a [`PartitionFetch`], for the partition's task.
#[derive(Debug)]
pub(super) enum PartitionFetchResult {
    Fetched {
        decoded: DecodedFetch,
        permit: Option<BudgetPermit>,
        readable_end: i64,
    },
    /// No records.
    Empty {
        readable_end: i64,
        serving_epoch: i32,
    },
    /// The bytes cannot be read.
    Unreadable(String),
    /// Only the cursors can decide how to go on.
    Failed(FetchError),
    NotSent,
    /// The response was larger than `receive.message.max.bytes`, perhaps because of another
    /// partition.
    SharedResponseTooLarge,
    /// The metadata names another leader by now.
    LeaderReplaced,
    /// To be tried again after a pause.
    Retry(RetryReason),
}

impl PartitionFetch {
    pub(super) async fn run(&self, spec: FetchSpec) -> PartitionFetchResult {
        if let Some(epoch) = spec.validate_epoch
            && let Some(failure) = self.validate(spec.offset, epoch).await
        {
            return failure;
        }
        let fetch = CatchUpFetch {
            partition: Arc::clone(&self.partition),
            spec,
            topic_id: self.topic_id,
            leader_epoch: self.leader.epoch,
            exclusive: self.exclusive,
        };
        match self.shared.catch_up.fetch(self.leader, fetch).await {
            CatchUpFetchResult::Fetched(fetched, permit) => {
                self.interpret(spec, fetched, permit).await
            }
            CatchUpFetchResult::NotSent => PartitionFetchResult::NotSent,
            CatchUpFetchResult::Missing(code) => {
                PartitionFetchResult::Retry(RetryReason::Code(code))
            }
            CatchUpFetchResult::Failed(error @ RequestError::ResponseTooLarge { .. }) => {
                match self.exclusive {
                    true => PartitionFetchResult::Unreadable(error.to_string()),
                    false => PartitionFetchResult::SharedResponseTooLarge,
                }
            }
            CatchUpFetchResult::Failed(error) => {
                PartitionFetchResult::Retry(RetryReason::Other(error.to_string().into()))
            }
        }
    }

    /// Completes when the metadata names another leader, another epoch of it, or is about another
    /// topic of that name.
    pub(super) async fn leader_replaced(&self) {
        let metadata = self.shared.cluster.metadata();
        let mut changed = metadata.subscribe();
        loop {
            let (tp, topic) = (&self.partition.tp, self.partition.topic());
            let leader = metadata.current_leader(tp);
            if leader.is_some_and(|leader| leader != self.leader)
                || metadata.is_replaced(&tp.topic, topic)
            {
                return;
            }
            if changed.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    async fn interpret(
        &self,
        spec: FetchSpec,
        fetched: FetchPartitionData,
        permit: Option<BudgetPermit>,
    ) -> PartitionFetchResult {
        if let Some(to) = fetched.diverging_epoch {
            return self.truncated(spec.offset, to);
        }
        match ResponseError::try_from_code(fetched.error) {
            None if fetched.error == 0 && fetched.records.is_empty() => {
                PartitionFetchResult::Empty {
                    readable_end: fetched.readable_end,
                    serving_epoch: self.leader.epoch,
                }
            }
            None if fetched.error == 0 => self.decode(spec, fetched, permit).await,
            Some(ResponseError::OffsetOutOfRange) => {
                // Its room may serve others meanwhile.
                drop(permit);
                self.out_of_range(spec).await
            }
            Some(ResponseError::TopicAuthorizationFailed) => self.not_authorized(),
            _ => PartitionFetchResult::Retry(RetryReason::Code(fetched.error)),
        }
    }

    /// Decodes what was fetched, within the room that was acquired for it. A batch that is
    /// larger is read in parts, on a thread where that holds up nobody.
    async fn decode(
        &self,
        spec: FetchSpec,
        fetched: FetchPartitionData,
        permit: Option<BudgetPermit>,
    ) -> PartitionFetchResult {
        let readable_end = fetched.readable_end;
        let mut limits = DecodeLimits {
            report_unreadable: self.report_unreadable,
            ..self.shared.tail_decode_limits()
        };
        if let Some(permit) = &permit {
            limits.bytes_allowed = self.partition.size_estimator.decoded_share(permit.bytes());
        }
        let (offset, epoch) = (spec.offset, self.leader.epoch);
        let whole = || {
            let limits = DecodeLimits {
                report_unreadable: false,
                ..limits
            };
            self.partition
                .decode(fetched.clone(), offset, epoch, limits)
        };
        let bytes = fetched.records.len();
        let whole = match self.partition.has_partial_batch(offset) {
            true => None,
            false => Some(DECODING.run(bytes, whole).await),
        };
        let is_final = |whole: &Result<_, UnreadableFetch>| match whole {
            Ok(_) => true,
            Err(error) => !error.is_too_large() && !self.report_unreadable,
        };
        let decoded = match whole {
            Some(whole) if is_final(&whole) => Ok(whole),
            _ => {
                limits.read_parts = true;
                let partition = Arc::clone(&self.partition);
                let pool = Arc::clone(&self.shared.budget.catch_up);
                let decode = move || partition.decode_parts(fetched, offset, epoch, limits, &pool);
                tokio::task::spawn_blocking(decode).await
            }
        };
        match decoded {
            Ok(Ok(decoded)) => PartitionFetchResult::Fetched {
                decoded,
                permit,
                readable_end,
            },
            Ok(Err(error)) => PartitionFetchResult::Unreadable(error.to_string()),
            Err(_) => PartitionFetchResult::Retry(RetryReason::Other("decoding ended".into())),
        }
    }

    /// Compares the position with the leader's log. `None`: it is valid.
    async fn validate(&self, offset: i64, leader_epoch: i32) -> Option<PartitionFetchResult> {
        let cluster = &self.shared.cluster;
        let position = FetchPosition {
            offset,
            leader_epoch,
        };
        let timeout = cluster.config().request_timeout;
        let tp = &self.partition.tp;
        match validate_position(cluster, self.leader, tp, position, timeout).await {
            Ok(PositionValidation::Valid) => None,
            Ok(PositionValidation::Truncated(to)) => Some(self.truncated(offset, to)),
            Ok(PositionValidation::Error(code)) => {
                let authorization = ResponseError::TopicAuthorizationFailed.code();
                Some(if code == authorization {
                    self.not_authorized()
                } else {
                    PartitionFetchResult::Retry(RetryReason::Code(code))
                })
            }
            Err(error) => Some(PartitionFetchResult::Retry(RetryReason::Other(
                error.to_string().into(),
            ))),
        }
    }

    fn truncated(&self, offset: i64, to: FetchPosition) -> PartitionFetchResult {
        let tp = self.partition.tp.clone();
        tracing::warn!(partition = %tp, offset, to = to.offset, "the log was truncated");
        PartitionFetchResult::Failed(FetchError::Truncated { tp, offset, to })
    }

    fn not_authorized(&self) -> PartitionFetchResult {
        let topic = Arc::clone(&self.partition.tp.topic);
        PartitionFetchResult::Failed(FetchError::NotAuthorized { topic })
    }

    /// The response may come from a former leader: an offset is out of range only if it lies
    /// outside of what the current leader says its log spans.
    async fn out_of_range(&self, spec: FetchSpec) -> PartitionFetchResult {
        let tp = &self.partition.tp;
        let list_offset = |spec| {
            let isolation = IsolationLevel::ReadUncommitted;
            self.shared.offsets.list_offset(tp, spec, isolation)
        };
        let (earliest, latest) = (
            list_offset(OffsetSpec::Earliest),
            list_offset(OffsetSpec::Latest),
        );
        let (start, end) = match tokio::join!(earliest, latest) {
            (Ok(start), Ok(end)) => (start.offset, end.offset),
            (Err(error), _) | (_, Err(error)) => {
                return match error {
                    FetchError::NotAuthorized { .. } => PartitionFetchResult::Failed(error),
                    error => {
                        PartitionFetchResult::Retry(RetryReason::Other(error.to_string().into()))
                    }
                };
            }
        };
        let offset = spec.offset;
        if (start..=end).contains(&offset) {
            return PartitionFetchResult::Retry(ResponseError::OffsetOutOfRange.into());
        }
        // Beyond the end because the log was truncated, or because the offset was wrong?
        if offset > end
            && let Some(epoch) = self.position_epoch(spec)
            && let Some(failure @ PartitionFetchResult::Failed(_)) =
                self.validate(offset, epoch).await
        {
            return failure;
        }
        PartitionFetchResult::Failed(FetchError::OutOfRange {
            tp: tp.clone(),
            offset,
            start,
            end,
        })
    }

    fn position_epoch(&self, spec: FetchSpec) -> Option<i32> {
        let epoch = lock(&self.partition.fetch_state).position_epoch(spec);
        (epoch >= 0).then_some(epoch)
    }
}
