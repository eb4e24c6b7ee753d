//! Membership: JoinGroup, SyncGroup, Heartbeat, LeaveGroup; and ListGroups, DescribeGroups,
//! DeleteGroups.

use std::collections::HashSet;
use std::time::Instant;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, ListGroupsRequest, ListGroupsResponse, SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;
use tokio::sync::oneshot;

use super::super::context::RequestContext;
use super::super::group::{ClassicGroup, JoinRequest, JoinResult, SyncRequest, SyncResult};
use super::super::wire::{error_code, millis, owned, text};

/// Joins; waits until the rebalance is over.
pub(super) async fn join_group(
    context: &RequestContext,
    version: i16,
    request: JoinGroupRequest,
) -> JoinGroupResponse {
    let member_id = owned(&request.member_id);
    let joined = match begin_join(context, version, request) {
        Ok(reply) => reply.await.unwrap_or_else(|_| {
            JoinResult::failed(ResponseError::CoordinatorNotAvailable, member_id.clone())
        }),
        Err(error) => JoinResult::failed(error, member_id),
    };
    let members = joined.members.into_iter().map(|member| {
        let response = JoinGroupResponseMember::default()
            .with_member_id(member.id)
            .with_metadata(member.metadata);
        if version >= 5 {
            response.with_group_instance_id(member.instance_id)
        } else {
            response
        }
    });
    // Null only from version 7 on.
    let no_protocol = (version < 7).then(StrBytes::new);
    JoinGroupResponse::default()
        .with_error_code(joined.error.map_or(0, |error| error.code()))
        .with_generation_id(joined.generation)
        .with_protocol_type(joined.protocol_type)
        .with_protocol_name(joined.protocol.or(no_protocol))
        .with_leader(joined.leader)
        .with_skip_assignment(version >= 9 && joined.skip_assignment)
        .with_member_id(joined.member_id)
        .with_members(members.collect())
}

fn begin_join(
    context: &RequestContext,
    version: i16,
    request: JoinGroupRequest,
) -> Result<oneshot::Receiver<JoinResult>, ResponseError> {
    let now = Instant::now();
    let (reply, answer) = oneshot::channel();
    let session = millis(request.session_timeout_ms);
    let mut cluster = context.shared.lock();
    context.check_coordinator(&cluster, &request.group_id)?;
    // A member that has an id knows that the group exists.
    if request.member_id.is_empty() {
        cluster.groups.create(&request.group_id, now)?;
    }
    let join = JoinRequest {
        member_id: owned(&request.member_id),
        instance_id: request.group_instance_id.as_deref().map(owned),
        client_id: context.client_id.clone(),
        host: format!("/{}", context.host.ip()),
        session,
        rebalance: if version >= 1 {
            millis(request.rebalance_timeout_ms)
        } else {
            session
        },
        protocol_type: owned(&request.protocol_type),
        protocols: request
            .protocols
            .iter()
            .map(|protocol| {
                let metadata = Bytes::copy_from_slice(&protocol.metadata);
                (owned(&protocol.name), metadata)
            })
            .collect(),
        requires_member_id: version >= 4,
        can_skip_assignment: version >= 9,
        nonce: cluster.state.nonce(),
        reply,
    };
    if !cluster.groups.make_room(&request.group_id, join.bytes()) {
        return Err(ResponseError::GroupMaxSizeReached);
    }
    context.with_group(&mut cluster, &request.group_id, |group| {
        group.join(join, now);
    })?;
    Ok(answer)
}

/// Gives or gets assignments; waits until the leader has given them.
pub(super) async fn sync_group(
    context: &RequestContext,
    version: i16,
    request: SyncGroupRequest,
) -> SyncGroupResponse {
    let synced = match begin_sync(context, request) {
        Ok(reply) => reply
            .await
            .unwrap_or(Err(ResponseError::CoordinatorNotAvailable)),
        Err(error) => Err(error),
    };
    match synced {
        Err(error) => SyncGroupResponse::default().with_error_code(error.code()),
        Ok(synced) => {
            let response = SyncGroupResponse::default().with_assignment(synced.assignment);
            if version >= 5 {
                response
                    .with_protocol_type(synced.protocol_type)
                    .with_protocol_name(synced.protocol)
            } else {
                response
            }
        }
    }
}

fn begin_sync(
    context: &RequestContext,
    request: SyncGroupRequest,
) -> Result<oneshot::Receiver<Result<SyncResult, ResponseError>>, ResponseError> {
    let (reply, answer) = oneshot::channel();
    let sync = SyncRequest {
        member_id: owned(&request.member_id),
        instance_id: request.group_instance_id,
        generation: request.generation_id,
        protocol_type: request.protocol_type,
        protocol: request.protocol_name,
        assignments: request
            .assignments
            .into_iter()
            .map(|given| {
                let assignment = Bytes::copy_from_slice(&given.assignment);
                (given.member_id, assignment)
            })
            .collect(),
        reply,
    };
    let mut cluster = context.shared.lock();
    context.check_coordinator(&cluster, &request.group_id)?;
    if !cluster.groups.make_room(&request.group_id, sync.bytes()) {
        // As Kafka says when the log of offsets does not take them.
        return Err(ResponseError::UnknownServerError);
    }
    context.with_group(&mut cluster, &request.group_id, |group| {
        group.sync(sync, Instant::now());
    })?;
    Ok(answer)
}

/// Renews a member's session.
pub(super) fn heartbeat(context: &RequestContext, request: HeartbeatRequest) -> HeartbeatResponse {
    let mut cluster = context.shared.lock();
    let result = context
        .check_coordinator(&cluster, &request.group_id)
        .and_then(|()| {
            context.with_group(&mut cluster, &request.group_id, |group| {
                group.heartbeat(
                    &request.member_id,
                    request.group_instance_id.as_ref(),
                    request.generation_id,
                    Instant::now(),
                )
            })?
        });
    HeartbeatResponse::default().with_error_code(error_code(result))
}

/// Leaves; from version 3 on for several members at once.
pub(super) fn leave_group(
    context: &RequestContext,
    version: i16,
    request: LeaveGroupRequest,
) -> LeaveGroupResponse {
    let mut cluster = context.shared.lock();
    let group_id = request.group_id;
    if let Err(error) = context.check_coordinator(&cluster, &group_id) {
        return LeaveGroupResponse::default().with_error_code(error.code());
    }
    let mut leave = |member_id: &StrBytes, instance_id: Option<&StrBytes>| {
        context
            .with_group(&mut cluster, &group_id, |group| {
                group.leave(member_id, instance_id, Instant::now())
            })
            .and_then(|result| result)
    };
    if version < 3 {
        let result = leave(&request.member_id, None);
        return LeaveGroupResponse::default().with_error_code(error_code(result));
    }
    let members = request.members.into_iter().map(|member| {
        let result = leave(&member.member_id, member.group_instance_id.as_ref());
        MemberResponse::default()
            .with_member_id(member.member_id)
            .with_group_instance_id(member.group_instance_id)
            .with_error_code(error_code(result))
    });
    let members = members.collect();
    LeaveGroupResponse::default().with_members(members)
}

/// Groups that this node coordinates.
pub(super) fn list_groups(
    context: &RequestContext,
    version: i16,
    request: &ListGroupsRequest,
) -> ListGroupsResponse {
    let cluster = context.shared.lock();
    let filter = &request.states_filter;
    let types = &request.types_filter;
    let is_classic = |kind: &StrBytes| kind.eq_ignore_ascii_case("Classic");
    let wants_classic = types.is_empty() || types.iter().any(is_classic);
    let listed = cluster
        .groups
        .iter()
        .filter(|(name, _)| wants_classic && context.check_coordinator(&cluster, name).is_ok())
        .filter(|(_, group)| {
            let is = |state: &StrBytes| state.eq_ignore_ascii_case(group.state());
            filter.is_empty() || filter.iter().any(is)
        });
    let groups = listed.map(|(name, group)| {
        let response = ListedGroup::default()
            .with_group_id(text(name).into())
            .with_protocol_type(group.protocol_type());
        let response = if version >= 4 {
            response.with_group_state(text(group.state()))
        } else {
            response
        };
        if version >= 5 {
            response.with_group_type(StrBytes::from_static_str("Classic"))
        } else {
            response
        }
    });
    ListGroupsResponse::default().with_groups(groups.collect())
}

/// Members, their assignments and states. A group is described once, however often it is named.
pub(super) fn describe_groups(
    context: &RequestContext,
    version: i16,
    request: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    let cluster = context.shared.lock();
    let mut seen = HashSet::new();
    let groups = request.groups.into_iter();
    let groups = groups.filter(|id| seen.insert(id.clone())).map(|id| {
        let described = match context.check_coordinator(&cluster, &id) {
            Err(error) => DescribedGroup::default().with_error_code(error.code()),
            Ok(()) => match cluster.groups.get(&id) {
                Some(group) => describe(version, group),
                None if version >= 6 => DescribedGroup::default()
                    .with_error_code(ResponseError::GroupIdNotFound.code())
                    .with_group_state(StrBytes::from_static_str("Dead")),
                None => {
                    DescribedGroup::default().with_group_state(StrBytes::from_static_str("Dead"))
                }
            },
        };
        described.with_group_id(id)
    });
    DescribeGroupsResponse::default().with_groups(groups.collect())
}

fn describe(version: i16, group: &ClassicGroup) -> DescribedGroup {
    let protocol = group.protocol();
    let members = group.members().iter().map(|member| {
        let response = DescribedGroupMember::default()
            .with_member_id(member.id.clone())
            .with_client_id(member.client_id.clone())
            .with_client_host(text(&member.host))
            .with_member_metadata(member.metadata(&protocol).unwrap_or_default())
            .with_member_assignment(member.assignment.clone());
        if version >= 4 {
            response.with_group_instance_id(member.instance_id.clone())
        } else {
            response
        }
    });
    DescribedGroup::default()
        .with_group_state(text(group.state()))
        .with_protocol_type(group.protocol_type())
        .with_members(members.collect())
        .with_protocol_data(protocol)
}

/// Deletes groups without members, with their offsets.
pub(super) fn delete_groups(
    context: &RequestContext,
    request: DeleteGroupsRequest,
) -> DeleteGroupsResponse {
    let mut cluster = context.shared.lock();
    let results = request.groups_names.into_iter().map(|id| {
        let result = context.check_coordinator(&cluster, &id);
        let result = result.and_then(|()| cluster.groups.delete(&id));
        DeletableGroupResult::default()
            .with_group_id(id)
            .with_error_code(error_code(result))
    });
    let results = results.collect();
    DeleteGroupsResponse::default().with_results(results)
}
