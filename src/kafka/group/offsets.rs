//! Where a consumer starts in a partition.
//!
//! ```text
//! committed? ──yes──▶ there, with its leader epoch
//!     │ no
//!     ├─▶ latest:   the log's end, which is then committed
//!     ├─▶ earliest: the log's start
//!     └─▶ none:     the consumer ends
//! ```
//!
//! The log's end moves. Were it not committed, then a partition that changes hands before
//! its first record is acknowledged would be read on from a later end, and what was written
//! in between by nobody. So it is committed as soon as it is found, also with
//! `autoCommit=false`: it acknowledges no record, it says where the group begins. The
//! log's start needs no such note: whoever finds nothing committed begins there again.
//!
//! Retried until there is an answer: whoever asks drops the question when it does not
//! matter any more.

use futures_util::future::try_join_all;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::OffsetFetchRequest;

use super::CoordinatorHandle;
use super::error::{ConsumerError, Failure, Verdict};
use super::requests;
use crate::backoff::ExponentialBackoff;
use crate::fetcher::{FetchError, FetchPosition, OffsetSpec};
use crate::{IsolationLevel, TopicPartition};

/// `auto.offset.reset`: where to start without a usable committed offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OffsetResetStrategy {
    /// At the first record that is there.
    #[default]
    Earliest,
    /// After the last record that is there.
    Latest,
    /// Nowhere: the consumer ends.
    None,
}

/// OffsetFetch is tried so often when the broker gives no reason to go on trying.
const ATTEMPTS: u32 = 10;

/// Why there are no positions: for good, or the membership has to start over.
pub(crate) type Hopeless = Option<ConsumerError>;
type Found = Vec<(TopicPartition, FetchPosition)>;

/// Where to start in one partition.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) tp: TopicPartition,
    pub(crate) position: FetchPosition,
    /// To be committed, so that others begin there too.
    pub(crate) commit: bool,
}

/// Where to start in each of `partitions`.
pub(crate) async fn start(
    handle: CoordinatorHandle,
    partitions: Vec<TopicPartition>,
    reset: OffsetResetStrategy,
    isolation: IsolationLevel,
) -> Result<Vec<Start>, Hopeless> {
    let mut found = Vec::with_capacity(partitions.len());
    let mut fresh = Vec::new();
    for (tp, committed) in committed(&handle, &partitions, isolation).await? {
        match committed {
            Some(position) => found.push(Start {
                tp,
                position,
                commit: false,
            }),
            None => fresh.push(tp),
        }
    }
    let fresh = by_policy(handle, fresh, reset, isolation).await?;
    found.extend(fresh.into_iter().map(|(tp, position)| Start {
        tp,
        position,
        commit: reset == OffsetResetStrategy::Latest,
    }));
    Ok(found)
}

/// Where the reset policy says to start.
pub(crate) async fn by_policy(
    handle: CoordinatorHandle,
    partitions: Vec<TopicPartition>,
    reset: OffsetResetStrategy,
    isolation: IsolationLevel,
) -> Result<Found, Hopeless> {
    let at = match (reset, partitions.first()) {
        (_, None) => return Ok(Vec::new()),
        (OffsetResetStrategy::Earliest, _) => OffsetSpec::Earliest,
        (OffsetResetStrategy::Latest, _) => OffsetSpec::Latest,
        (OffsetResetStrategy::None, Some(tp)) => {
            return Err(Some(ConsumerError::NoCommittedOffset {
                group: handle.group.clone(),
                tp: tp.clone(),
            }));
        }
    };
    let look_up = |tp| log_end(handle.clone(), tp, at, isolation);
    try_join_all(partitions.into_iter().map(look_up)).await
}

async fn log_end(
    handle: CoordinatorHandle,
    tp: TopicPartition,
    at: OffsetSpec,
    isolation: IsolationLevel,
) -> Result<(TopicPartition, FetchPosition), Hopeless> {
    loop {
        match handle.fetcher.list_offset(&tp, at, isolation).await {
            Ok(position) => return Ok((tp, position)),
            Err(FetchError::Unavailable { reason, .. }) => {
                tracing::debug!(%tp, reason, "the log's offsets are not to be had yet");
            }
            Err(error) => return Err(Some(error.into())),
        }
    }
}

async fn committed(
    handle: &CoordinatorHandle,
    partitions: &[TopicPartition],
    isolation: IsolationLevel,
) -> Result<Vec<(TopicPartition, Option<FetchPosition>)>, Hopeless> {
    let config = handle.cluster.config();
    let mut backoff = ExponentialBackoff::new(config.retry_backoff, config.retry_backoff_max);
    loop {
        let failure = match ask(handle, partitions, isolation).await {
            Ok(positions) => return Ok(positions),
            Err(failure) => failure,
        };
        tracing::debug!(group = %handle.group, ?failure, "fetching committed offsets");
        match failure.verdict() {
            Verdict::FindCoordinator => {}
            Verdict::Retry => {
                let known_to_pass = matches!(
                    failure,
                    Failure::Code(
                        ResponseError::UnstableOffsetCommit
                            | ResponseError::CoordinatorLoadInProgress
                    )
                );
                if !known_to_pass && backoff.failures() >= ATTEMPTS {
                    return Err(None);
                }
            }
            Verdict::NotAuthorized => {
                let group = handle.group.clone();
                return Err(Some(ConsumerError::GroupNotAuthorized { group }));
            }
            Verdict::Stopped => return Err(Some(ConsumerError::Stopped)),
            Verdict::Refused => {
                return Err(Some(ConsumerError::Refused {
                    group: handle.group.clone(),
                    reason: failure.text(),
                }));
            }
            Verdict::Fenced | Verdict::Rejoin | Verdict::UnknownMember | Verdict::OldGeneration => {
                return Err(None);
            }
        }
        tokio::time::sleep(backoff.after_failure()).await;
    }
}

async fn ask(
    handle: &CoordinatorHandle,
    partitions: &[TopicPartition],
    isolation: IsolationLevel,
) -> Result<Vec<(TopicPartition, Option<FetchPosition>)>, Failure> {
    let coordinator = handle.coordinator().await?;
    let stable = isolation == IsolationLevel::ReadCommitted;
    let build = |version| requests::fetch(version, &handle.group, partitions, stable);
    let timeout = handle.cluster.config().request_timeout;
    let result = handle
        .call::<OffsetFetchRequest>(coordinator, build, timeout)
        .await;
    let answer = result.and_then(|answer| requests::fetched(answer, partitions));
    let answer = answer.and_then(|told| {
        let settle = |(tp, told): requests::Fetched| match told {
            Ok(position) => Ok((tp, position)),
            // Nothing can have been committed there.
            Err(Failure::Code(ResponseError::UnknownTopicOrPartition)) => Ok((tp, None)),
            Err(failure) => Err(failure),
        };
        told.into_iter().map(settle).collect()
    });
    if let Err(failure) = &answer {
        handle.heed(coordinator, failure);
    }
    answer
}

impl From<FetchError> for ConsumerError {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::NotAuthorized { topic } => Self::TopicNotAuthorized { topic },
            FetchError::UnknownTopic { topic } => Self::UnknownTopic { topic },
            FetchError::Corrupt { tp, offset, reason } => Self::Corrupt {
                tp,
                offset,
                reason: reason.into(),
            },
            FetchError::OutOfRange { tp, .. }
            | FetchError::Truncated { tp, .. }
            | FetchError::Unavailable { tp, .. } => Self::Corrupt {
                tp,
                offset: -1,
                reason: "its offsets are not to be had".into(),
            },
            FetchError::Stopped => Self::Stopped,
        }
    }
}
