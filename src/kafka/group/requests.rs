//! The group APIs' requests and responses, in each version's form, as our own types.
//!
//! A field that a version does not have is left at its default; kafka-protocol refuses
//! to encode anything else.

mod offsets;

use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    GroupId, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;

pub(crate) use self::offsets::{
    CommittedPosition, commit_error_codes, committed_offsets, offset_commit, offset_fetch,
};
use super::assignor::GroupMember;
use super::consumer_protocol::{self, PROTOCOL_TYPE};
use super::error::GroupError;
use super::membership::{Generation, JoinGroupResult, LeaderInput, Membership};
use crate::TopicPartition;

/// What names a member in each of its requests, as Java's `ConsumerGroupMetadata`.
#[derive(Clone, Debug)]
pub(crate) struct ConsumerGroupMetadata {
    group_id: Arc<str>,
    group_instance_id: Option<Arc<str>>,
    member_id: String,
    generation: i32,
}

impl ConsumerGroupMetadata {
    pub(crate) fn of(member: &Membership) -> Self {
        Self {
            group_id: Arc::clone(&member.config().group_id),
            group_instance_id: member.config().group_instance_id.clone(),
            member_id: member.member_id().to_owned(),
            generation: member.generation(),
        }
    }

    /// For a commit from outside of the group protocol.
    pub(crate) fn without_member(group_id: &Arc<str>) -> Self {
        Self {
            group_id: Arc::clone(group_id),
            group_instance_id: None,
            member_id: String::new(),
            generation: -1,
        }
    }

    pub(crate) fn into_generation(self) -> Generation {
        Generation {
            generation_id: self.generation,
            member_id: self.member_id,
        }
    }

    fn group_id(&self) -> GroupId {
        GroupId(text(&self.group_id))
    }

    /// `None` also if the request's version has no static members.
    fn group_instance_id(&self, supported: bool) -> Option<StrBytes> {
        self.group_instance_id
            .as_deref()
            .filter(|_| supported)
            .map(text)
    }
}

/// JoinGroup with a subscription per assignor, as of version 5; before that, the caller removes
/// the group instance id.
pub(crate) fn join_group(member: &Membership) -> JoinGroupRequest {
    let metadata = ConsumerGroupMetadata::of(member);
    let offer = |assignor: &crate::config::AssignorName| {
        let subscription = member.subscription(*assignor);
        JoinGroupRequestProtocol::default()
            .with_name(StrBytes::from_static_str(assignor.as_str()))
            .with_metadata(consumer_protocol::encode_subscription(&subscription))
    };
    JoinGroupRequest::default()
        .with_group_id(metadata.group_id())
        .with_session_timeout_ms(millis(member.config().session_timeout))
        .with_rebalance_timeout_ms(millis(member.config().rebalance_timeout))
        .with_member_id(text(&metadata.member_id))
        .with_group_instance_id(metadata.group_instance_id(true))
        .with_protocol_type(StrBytes::from_static_str(PROTOCOL_TYPE))
        .with_protocols(member.config().assignors.iter().map(offer).collect())
}

const MEMBER_ID_REQUIRED: i16 = 79;

/// What the JoinGroup response says.
pub(crate) fn join_group_result(
    response: JoinGroupResponse,
) -> Result<JoinGroupResult, GroupError> {
    let member_id = response.member_id.to_string();
    if response.error_code == MEMBER_ID_REQUIRED {
        return Ok(JoinGroupResult::MemberIdRequired(member_id));
    }
    if let Some(error) = GroupError::from_code(response.error_code) {
        return Err(error);
    }
    let leader_input = if response.leader == response.member_id {
        let mut members = Vec::with_capacity(response.members.len());
        for member in &response.members {
            members.push(GroupMember {
                member_id: member.member_id.to_string(),
                group_instance_id: member.group_instance_id.as_ref().map(|i| i.to_string()),
                subscription: consumer_protocol::decode_subscription(&member.metadata)
                    .map_err(|_| GroupError::MalformedResponse)?,
            });
        }
        Some(LeaderInput {
            members,
            skip_assignment: response.skip_assignment,
        })
    } else {
        None
    };
    Ok(JoinGroupResult::Joined {
        member_id,
        generation: response.generation_id,
        protocol: response
            .protocol_name
            .map_or_else(String::new, |name| name.to_string()),
        leader_input,
    })
}

/// SyncGroup; `assignments` is the leader's.
pub(crate) fn sync_group(
    version: i16,
    metadata: &ConsumerGroupMetadata,
    protocol: &'static str,
    assignments: &[(String, Vec<TopicPartition>)],
) -> SyncGroupRequest {
    let assignment = |(id, partitions): &(String, Vec<TopicPartition>)| {
        SyncGroupRequestAssignment::default()
            .with_member_id(text(id))
            .with_assignment(consumer_protocol::encode_assignment(partitions))
    };
    let has_protocol = version >= 5;
    SyncGroupRequest::default()
        .with_group_id(metadata.group_id())
        .with_generation_id(metadata.generation)
        .with_member_id(text(&metadata.member_id))
        .with_group_instance_id(metadata.group_instance_id(version >= 3))
        .with_protocol_type(has_protocol.then(|| StrBytes::from_static_str(PROTOCOL_TYPE)))
        .with_protocol_name(has_protocol.then(|| StrBytes::from_static_str(protocol)))
        .with_assignments(assignments.iter().map(assignment).collect())
}

/// What the SyncGroup response assigns.
pub(crate) fn sync_group_assignment(
    response: &SyncGroupResponse,
) -> Result<Vec<TopicPartition>, GroupError> {
    match GroupError::from_code(response.error_code) {
        Some(error) => Err(error),
        // A leader that does not know this member may leave it out.
        None if response.assignment.is_empty() => Ok(Vec::new()),
        None => consumer_protocol::decode_assignment(&response.assignment)
            .map_err(|_| GroupError::MalformedResponse),
    }
}

/// Heartbeat.
pub(crate) fn heartbeat(version: i16, metadata: &ConsumerGroupMetadata) -> HeartbeatRequest {
    HeartbeatRequest::default()
        .with_group_id(metadata.group_id())
        .with_generation_id(metadata.generation)
        .with_member_id(text(&metadata.member_id))
        .with_group_instance_id(metadata.group_instance_id(version >= 3))
}

/// LeaveGroup. A static member is removed only by a request with its group instance id.
pub(crate) fn leave_group(version: i16, metadata: &ConsumerGroupMetadata) -> LeaveGroupRequest {
    let request = LeaveGroupRequest::default().with_group_id(metadata.group_id());
    if version < 3 {
        return request.with_member_id(text(&metadata.member_id));
    }
    let reason = StrBytes::from_static_str("the consumer was closed");
    let member = MemberIdentity::default()
        .with_member_id(text(&metadata.member_id))
        .with_group_instance_id(metadata.group_instance_id(true))
        .with_reason((version >= 5).then_some(reason));
    request.with_members(vec![member])
}

/// What the LeaveGroup response says.
pub(crate) fn leave_group_result(response: &LeaveGroupResponse) -> Result<(), GroupError> {
    let member = response
        .members
        .first()
        .map_or(0, |member| member.error_code);
    let code = if response.error_code == 0 {
        member
    } else {
        response.error_code
    };
    GroupError::from_code(code).map_or(Ok(()), Err)
}

pub(super) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::messages::OffsetFetchResponse;
    use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
    use kafka_protocol::protocol::Encodable;
    use tokio::time::Instant;
    use uuid::Uuid;

    use super::*;
    use crate::config::AssignorName;
    use crate::fetcher::FetchPosition;
    use crate::group::membership::GroupRebalanceConfig;
    use crate::group::partition_assignment::PartitionAssignment;
    use crate::group::topic_identity::OffsetToCommit;
    use crate::protocol::versions::Api;

    fn metadata() -> ConsumerGroupMetadata {
        ConsumerGroupMetadata {
            group_id: "g".into(),
            group_instance_id: Some("i".into()),
            member_id: "m".to_owned(),
            generation: 3,
        }
    }

    fn offsets() -> Vec<OffsetToCommit> {
        let at = |topic: &str, partition, offset| OffsetToCommit {
            assignment: PartitionAssignment {
                tp: TopicPartition::new(topic, partition),
                number: 1,
            },
            next: FetchPosition {
                offset,
                leader_epoch: 5,
            },
            topic: crate::TopicIdentity {
                id: Uuid::from_u128(1),
                incarnation: 1,
            },
            is_unconfirmed: false,
        };
        vec![at("a", 0, 1), at("a", 2, 2), at("b", 0, 3)]
    }

    fn encodes<A: Api + Encodable>(build: impl Fn(i16) -> A) {
        for version in A::OLDEST_VERSION..=A::LATEST_VERSION {
            let request = build(version);
            let by_hand = request.encode_by_hand(version);
            let result = by_hand.map_or_else(
                || {
                    let encoded = request.encode(&mut BytesMut::new(), version);
                    encoded.map_err(|error| error.to_string())
                },
                |body| body.map(|_| ()),
            );
            assert!(result.is_ok(), "{} {version}: {result:?}", A::NAME);
        }
    }

    #[test]
    fn every_request_can_be_encoded_in_every_version() {
        let config = GroupRebalanceConfig {
            group_id: "g".into(),
            group_instance_id: Some("i".into()),
            topics: vec!["t".into()],
            rack: Some("r".to_owned()),
            assignors: vec![AssignorName::CooperativeSticky, AssignorName::Range],
            session_timeout: Duration::from_secs(45),
            rebalance_timeout: Duration::from_secs(300),
            heartbeat_interval: Duration::from_secs(3),
            revocation_timeout: Duration::from_secs(5),
            retry_backoff: Duration::from_millis(1),
            retry_backoff_max: Duration::from_millis(1),
        };
        let member = Membership::new(config, Instant::now());
        let assignments = vec![("m".to_owned(), vec![TopicPartition::new("t", 0)])];
        let partition = |topic: &str| (TopicPartition::new(topic, 0), Uuid::from_u128(1));
        let partitions = [partition("a"), partition("b")];
        encodes(|version| {
            let mut request = join_group(&member);
            request.group_instance_id = request.group_instance_id.filter(|_| version >= 5);
            request
        });
        encodes(|version| sync_group(version, &metadata(), "range", &assignments));
        encodes(|version| heartbeat(version, &metadata()));
        encodes(|version| leave_group(version, &metadata()));
        encodes(|version| offset_commit(version, &metadata(), &offsets()));
        encodes(|version| offset_fetch(version, "g", &partitions, true));
    }

    #[test]
    fn offsets_are_grouped_by_topic_and_carry_the_epoch() {
        let request = offset_commit(9, &metadata(), &offsets());
        let topics: Vec<_> = request
            .topics
            .iter()
            .map(|t| (t.name.0.to_string(), t.partitions.len()))
            .collect();
        assert_eq!(topics, [("a".to_owned(), 2), ("b".to_owned(), 1)]);
        let epochs = request.topics.iter().flat_map(|t| &t.partitions);
        assert!(epochs.into_iter().all(|p| p.committed_leader_epoch == 5));
    }

    #[test]
    fn only_the_leader_is_given_the_members() {
        let member = |metadata: &[u8]| {
            JoinGroupResponseMember::default()
                .with_member_id(text("m"))
                .with_metadata(metadata.to_vec().into())
        };
        let response = |leader, metadata| {
            JoinGroupResponse::default()
                .with_leader(text(leader))
                .with_member_id(text("m"))
                .with_generation_id(4)
                .with_protocol_name(Some(text("range")))
                .with_members(vec![member(metadata)])
        };
        let good = [0, 0, 0, 0, 0, 1, 0, 1, b't', 0xff, 0xff, 0xff, 0xff];
        let Ok(JoinGroupResult::Joined { leader_input, .. }) =
            join_group_result(response("m", &good))
        else {
            panic!("a member");
        };
        assert_eq!(
            &*leader_input.unwrap().members[0].subscription.topics[0],
            "t"
        );
        let Ok(JoinGroupResult::Joined { leader_input, .. }) =
            join_group_result(response("other", &good))
        else {
            panic!("a member");
        };
        assert!(leader_input.is_none());
        assert!(matches!(
            join_group_result(response("m", &[0])),
            Err(GroupError::MalformedResponse)
        ));
    }

    #[test]
    fn a_partition_that_an_answer_leaves_out_is_not_taken_for_uncommitted() {
        let partitions = [(TopicPartition::new("t", 0), Uuid::from_u128(1))];
        let committed = committed_offsets(OffsetFetchResponse::default(), &partitions).unwrap();
        assert!(matches!(committed[0].1, Err(GroupError::MalformedResponse)));
    }
}
