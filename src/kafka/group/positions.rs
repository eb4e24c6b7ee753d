//! The position from which a consumer reads a partition.
//!
//! ```text
//! committed offset? ──yes──▶ there, with its leader epoch
//!     │ no: auto.offset.reset
//!     ├─▶ latest:   the log's end, which is then committed
//!     ├─▶ earliest: the log's start
//!     └─▶ none:     the consumer ends
//! ```
//!
//! The log's end moves. Were it not committed, then a partition that is reassigned before
//! its first record is acknowledged would be read on from a later end, and what was written
//! in between by no member. So it is committed as soon as it is looked up, also with
//! `autoCommit=false`: it acknowledges no record, it says where the group begins. The
//! log's start needs no such commit: a member that finds nothing committed begins there again.
//!
//! Requests are retried until there is a response: the caller drops the future when the
//! positions are not needed any more.

use futures_util::future::try_join_all;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::OffsetFetchRequest;

use super::coordinator_handle::CoordinatorHandle;
use super::error::{ConsumerError, GroupError, GroupErrorAction, PositionError};
use super::partition_assignment::PartitionAssignment;
use super::requests;
use crate::backoff::ExponentialBackoff;
use crate::fetcher::{FetchError, FetchPosition, OffsetSpec};
use crate::{ConnectionPurpose, IsolationLevel, TopicPartition};

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

/// Attempts of OffsetFetch when its error is not known to pass.
const ATTEMPTS: u32 = 10;

/// The position from which to read one partition.
#[derive(Debug)]
pub(crate) struct InitialPosition {
    pub(crate) assignment: PartitionAssignment,
    pub(crate) position: FetchPosition,
    /// To be committed, so that other members begin there too.
    pub(crate) commit: bool,
}

/// Looks up the positions of partitions that a consumer is to read, as Java's
/// `updateFetchPositions`.
#[derive(Clone, Debug)]
pub(crate) struct PositionInitializer {
    handle: CoordinatorHandle,
    reset: OffsetResetStrategy,
    isolation: IsolationLevel,
}

impl PositionInitializer {
    pub(crate) fn new(
        handle: CoordinatorHandle,
        reset: OffsetResetStrategy,
        isolation: IsolationLevel,
    ) -> Self {
        Self {
            handle,
            reset,
            isolation,
        }
    }

    /// Where to start in each of `partitions`: the committed offset, or by the reset strategy.
    pub(crate) async fn initialize(
        self,
        assignments: Vec<PartitionAssignment>,
    ) -> Result<Vec<InitialPosition>, PositionError> {
        let mut found = Vec::with_capacity(assignments.len());
        let mut uncommitted = Vec::new();
        let partitions: Vec<_> = assignments.iter().map(|a| a.tp.clone()).collect();
        let committed = self.committed(&partitions).await?;
        for (assignment, (_, committed)) in assignments.into_iter().zip(committed) {
            match committed {
                Some(position) => found.push(InitialPosition {
                    assignment,
                    position,
                    commit: false,
                }),
                None => uncommitted.push(assignment),
            }
        }
        let commit = self.reset == OffsetResetStrategy::Latest;
        let reset = self.reset(uncommitted).await?;
        let reset = reset.into_iter();
        found.extend(reset.map(|(assignment, position)| InitialPosition {
            assignment,
            position,
            commit,
        }));
        Ok(found)
    }

    /// Where the reset strategy starts in each of `partitions`.
    pub(crate) async fn reset(
        self,
        assignments: Vec<PartitionAssignment>,
    ) -> Result<Vec<(PartitionAssignment, FetchPosition)>, PositionError> {
        let spec = match (self.reset, assignments.first()) {
            (_, None) => return Ok(Vec::new()),
            (OffsetResetStrategy::Earliest, _) => OffsetSpec::Earliest,
            (OffsetResetStrategy::Latest, _) => OffsetSpec::Latest,
            (OffsetResetStrategy::None, Some(PartitionAssignment { tp, .. })) => {
                return Err(PositionError::Fatal(ConsumerError::NoCommittedOffset {
                    group: self.handle.group_id.clone(),
                    tp: tp.clone(),
                }));
            }
        };
        let list_offset = |assignment| self.list_offset(assignment, spec);
        try_join_all(assignments.into_iter().map(list_offset)).await
    }

    async fn list_offset(
        &self,
        assignment: PartitionAssignment,
        spec: OffsetSpec,
    ) -> Result<(PartitionAssignment, FetchPosition), PositionError> {
        let fetcher = &self.handle.fetcher;
        let tp = &assignment.tp;
        loop {
            match fetcher.list_offset(tp, spec, self.isolation).await {
                Ok(position) => return Ok((assignment, position)),
                Err(FetchError::Unavailable { reason, .. }) => {
                    tracing::debug!(%tp, reason, "the log's offsets are not available yet");
                }
                Err(error) => return Err(PositionError::Fatal(error.into())),
            }
        }
    }

    /// The committed offset of each partition, if there is one.
    async fn committed(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<(TopicPartition, Option<FetchPosition>)>, PositionError> {
        let config = self.handle.cluster.config();
        let group = || self.handle.group_id.clone();
        let mut backoff = ExponentialBackoff::new(config.retry_backoff, config.retry_backoff_max);
        loop {
            let error = match self.fetch_committed(partitions).await {
                Ok(positions) => return Ok(positions),
                Err(error) => error,
            };
            tracing::debug!(group = %group(), ?error, "fetching committed offsets");
            match error.action() {
                GroupErrorAction::FindCoordinator => {}
                GroupErrorAction::Retry => {
                    let known_to_pass = matches!(
                        error,
                        GroupError::Code(
                            ResponseError::UnstableOffsetCommit
                                | ResponseError::CoordinatorLoadInProgress
                        )
                    );
                    if !known_to_pass && backoff.failures() >= ATTEMPTS {
                        return Err(PositionError::RejoinNeeded);
                    }
                }
                GroupErrorAction::FailNotAuthorized => {
                    let group = group();
                    return Err(ConsumerError::GroupNotAuthorized { group }.into());
                }
                GroupErrorAction::Stop => return Err(ConsumerError::Stopped.into()),
                GroupErrorAction::Fail => {
                    return Err(error.into_consumer_error(group()).into());
                }
                GroupErrorAction::FailFenced
                | GroupErrorAction::Rejoin
                | GroupErrorAction::ResetMemberId
                | GroupErrorAction::ResetGeneration => return Err(PositionError::RejoinNeeded),
            }
            tokio::time::sleep(backoff.after_failure()).await;
        }
    }

    async fn fetch_committed(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<(TopicPartition, Option<FetchPosition>)>, GroupError> {
        let handle = &self.handle;
        let coordinator = handle.coordinator().await?;
        let require_stable = self.isolation == IsolationLevel::ReadCommitted;
        let build =
            |version| requests::offset_fetch(version, &handle.group_id, partitions, require_stable);
        let timeout = handle.cluster.config().request_timeout;
        let result = handle
            .call::<OffsetFetchRequest>(coordinator, ConnectionPurpose::Coordinator, build, timeout)
            .await;
        let result = result.and_then(|response| requests::committed_offsets(response, partitions));
        let result = result.and_then(|committed| {
            let settle = |(tp, offset): requests::CommittedPosition| match offset {
                Ok(position) => Ok((tp, position)),
                // Nothing can have been committed there.
                Err(GroupError::Code(ResponseError::UnknownTopicOrPartition)) => Ok((tp, None)),
                Err(error) => Err(error),
            };
            committed.into_iter().map(settle).collect()
        });
        if let Err(error) = &result {
            handle.check_coordinator(coordinator, error);
        }
        result
    }
}
