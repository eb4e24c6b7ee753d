//! Whether the principal may be a member of a group, asked before it joins.
//!
//! A heartbeat of a member that there is not needs the same right as JoinGroup (READ), is answered at
//! once by brokers of any version, and changes nothing. DescribeGroups would say it as well
//! (KIP-430), with all members and their assignments: a group of a thousand would send a thousand
//! members to each of a thousand that join.

use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::HeartbeatRequest;
use tokio::time::sleep;

use super::coordinator_handle::CoordinatorHandle;
use super::error::{ConsumerError, GroupError, GroupErrorAction};
use super::requests::{self, ConsumerGroupMetadata};
use crate::ConnectionPurpose;
use crate::backoff::ExponentialBackoff;

/// Asks until there is an answer. Cancel-safe.
///
/// # Errors
/// [`ConsumerError::GroupNotAuthorized`], and what would end a consumer of the group.
pub(crate) async fn check(handle: CoordinatorHandle) -> Result<(), ConsumerError> {
    let config = handle.cluster.config();
    let mut backoff = ExponentialBackoff::new(config.retry_backoff, config.retry_backoff_max);
    loop {
        let Err(error) = ask(&handle).await else {
            return Ok(());
        };
        let group = Arc::clone(&handle.group_id);
        tracing::debug!(%group, ?error, "asking for the right to join");
        match error.action() {
            GroupErrorAction::FailNotAuthorized => {
                return Err(ConsumerError::GroupNotAuthorized { group });
            }
            GroupErrorAction::Stop => return Err(ConsumerError::Stopped),
            GroupErrorAction::Fail => return Err(error.into_consumer_error(group)),
            _ => sleep(backoff.after_failure()).await,
        }
    }
}

async fn ask(handle: &CoordinatorHandle) -> Result<(), GroupError> {
    let coordinator = handle.coordinator().await?;
    let member = ConsumerGroupMetadata::without_member(&handle.group_id);
    let build = |version| requests::heartbeat(version, &member);
    let timeout = handle.cluster.config().request_timeout;
    let purpose = ConnectionPurpose::Heartbeat;
    let answered = handle
        .call::<HeartbeatRequest>(coordinator, purpose, build, timeout)
        .await;
    let answered = answered
        .and_then(|response| GroupError::from_code(response.error_code).map_or(Ok(()), Err));
    if let Err(error) = &answered {
        handle.check_coordinator(coordinator, error);
    }
    match answered {
        // That it is no member says the coordinator to those who may ask.
        Err(GroupError::Code(code)) if is_of_the_group(code) => Ok(()),
        answered => answered,
    }
}

/// Whether a heartbeat was refused for what the group is, which only those are told who may join.
fn is_of_the_group(code: ResponseError) -> bool {
    !matches!(
        code,
        ResponseError::GroupAuthorizationFailed
            | ResponseError::NotCoordinator
            | ResponseError::CoordinatorNotAvailable
            | ResponseError::CoordinatorLoadInProgress
            | ResponseError::InvalidGroupId
    )
}
