//! One read, from the check of its position to what its answer means.

use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use uuid::Uuid;

use super::super::budget::BudgetPermit;
use super::super::catchup::{Ask, Read};
use super::super::error::FetchError;
use super::super::feed::Spec;
use super::super::offsets::OffsetSpec;
use super::super::partition::Partition;
use super::super::request::Fetched;
use super::super::{FetchPosition, Shared, truncation};
use super::{Step, Trouble};
use crate::IsolationLevel;
use crate::lock::lock;
use crate::metadata::LeaderAndEpoch;

/// One read, from the check of its position on.
pub(super) struct Reading {
    pub(super) shared: Arc<Shared>,
    pub(super) partition: Arc<Partition>,
    pub(super) leader: LeaderAndEpoch,
    pub(super) topic_id: Uuid,
    pub(super) alone: bool,
}

impl Reading {
    pub(super) async fn run(&self, spec: Spec) -> Step {
        if let Some(epoch) = spec.check
            && let Some(step) = self.check(spec.offset, epoch).await
        {
            return step;
        }
        let ask = Ask {
            partition: Arc::clone(&self.partition),
            spec,
            topic_id: self.topic_id,
            leader_epoch: self.leader.epoch,
            alone: self.alone,
        };
        match self.shared.catch_up.read(self.leader, ask).await {
            Read::Fetched(fetched, permit) => self.judge(spec, fetched, permit).await,
            Read::NotNow => Step::NotNow,
            Read::Refused(code) => Step::Retry(Trouble::Code(code)),
            Read::Failed(error) => Step::Retry(Trouble::Other(error.to_string())),
        }
    }

    async fn judge(&self, spec: Spec, fetched: Fetched, permit: Option<BudgetPermit>) -> Step {
        if let Some((leader_epoch, offset)) = fetched.diverging {
            return self.truncated(
                spec.offset,
                FetchPosition {
                    offset,
                    leader_epoch,
                },
            );
        }
        let under = self.leader.epoch;
        match ResponseError::try_from_code(fetched.error) {
            None if fetched.error == 0 => Step::Fetched {
                fetched,
                permit,
                under,
            },
            Some(ResponseError::OffsetOutOfRange) => {
                // Its room may serve others meanwhile.
                drop(permit);
                self.out_of_range(spec).await
            }
            Some(ResponseError::TopicAuthorizationFailed) => {
                Step::Failed(FetchError::NotAuthorized {
                    topic: Arc::clone(&self.partition.tp.topic),
                })
            }
            _ => Step::Retry(Trouble::Code(fetched.error)),
        }
    }

    /// Compares the position with the leader's log. `None`: it is good.
    async fn check(&self, offset: i64, leader_epoch: i32) -> Option<Step> {
        let cluster = &self.shared.cluster;
        let position = FetchPosition {
            offset,
            leader_epoch,
        };
        let timeout = cluster.config().request_timeout;
        let tp = &self.partition.tp;
        match truncation::check(cluster, self.leader, tp, position, timeout).await {
            Ok(truncation::Verdict::Same) => None,
            Ok(truncation::Verdict::Truncated(to)) => Some(self.truncated(offset, to)),
            Ok(truncation::Verdict::Refused(code)) => {
                let authorization = ResponseError::TopicAuthorizationFailed.code();
                Some(if code == authorization {
                    Step::Failed(FetchError::NotAuthorized {
                        topic: Arc::clone(&tp.topic),
                    })
                } else {
                    Step::Retry(Trouble::Code(code))
                })
            }
            Err(error) => Some(Step::Retry(Trouble::Other(error.to_string()))),
        }
    }

    fn truncated(&self, offset: i64, to: FetchPosition) -> Step {
        let tp = self.partition.tp.clone();
        tracing::warn!(partition = %tp, offset, to = to.offset, "the log was truncated");
        Step::Failed(FetchError::Truncated { tp, offset, to })
    }

    /// The answer may come from a leader that is none any more: only an offset that lies
    /// outside of what the leader itself calls its log is out of range.
    async fn out_of_range(&self, spec: Spec) -> Step {
        let tp = &self.partition.tp;
        let find = |at| {
            self.shared
                .offsets
                .find(tp, at, IsolationLevel::ReadUncommitted)
        };
        let (start, end) = match tokio::join!(find(OffsetSpec::Earliest), find(OffsetSpec::Latest))
        {
            (Ok(start), Ok(end)) => (start.offset, end.offset),
            (Err(error), _) | (_, Err(error)) => {
                return match error {
                    FetchError::NotAuthorized { .. } => Step::Failed(error),
                    error => Step::Retry(Trouble::Other(error.to_string())),
                };
            }
        };
        let offset = spec.offset;
        if (start..=end).contains(&offset) {
            return Step::Retry(Trouble::Code(ResponseError::OffsetOutOfRange.code()));
        }
        // Beyond the end by a lost tail of the log, not by a wrong offset?
        if offset > end
            && let Some(epoch) = self.epoch_of(spec)
            && let Some(step @ Step::Failed(_)) = self.check(offset, epoch).await
        {
            return step;
        }
        Step::Failed(FetchError::OutOfRange {
            tp: tp.clone(),
            offset,
            start,
            end,
        })
    }

    fn epoch_of(&self, spec: Spec) -> Option<i32> {
        let epoch = lock(&self.partition.feed).epoch_of(spec);
        (epoch >= 0).then_some(epoch)
    }
}
