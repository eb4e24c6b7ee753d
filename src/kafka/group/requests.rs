//! The group APIs' requests and answers, in each version's form, as our own types.
//!
//! A field that a version does not have is left at its default; kafka-protocol refuses
//! to encode anything else.

use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    GroupId, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest,
    OffsetFetchResponse, SyncGroupRequest, SyncGroupResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::assign::GroupMember;
use super::error::Failure;
use super::membership::{Joined, Lead, Membership};
use super::protocol::{self, PROTOCOL_TYPE};
use crate::TopicPartition;
use crate::fetcher::FetchPosition;

/// Who speaks, in every request of a member.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) group: Arc<str>,
    pub(crate) instance: Option<Arc<str>>,
    pub(crate) id: String,
    pub(crate) generation: i32,
}

impl Identity {
    pub(crate) fn of(member: &Membership) -> Self {
        Self {
            group: Arc::clone(&member.config().group_id),
            instance: member.config().group_instance_id.clone(),
            id: member.id().to_owned(),
            generation: member.generation(),
        }
    }

    fn group(&self) -> GroupId {
        GroupId(text(&self.group))
    }

    /// Static members exist from that version of the request on.
    fn instance(&self, has: bool) -> Option<StrBytes> {
        self.instance.as_deref().filter(|_| has).map(text)
    }
}

/// JoinGroup with a subscription per assignor, as of version 5; before that, without the
/// instance.
pub(crate) fn join(member: &Membership) -> JoinGroupRequest {
    let identity = Identity::of(member);
    let offer = |assignor: &crate::config::AssignorName| {
        let subscription = member.subscription(*assignor);
        JoinGroupRequestProtocol::default()
            .with_name(StrBytes::from_static_str(assignor.as_str()))
            .with_metadata(protocol::encode_subscription(&subscription))
    };
    JoinGroupRequest::default()
        .with_group_id(identity.group())
        .with_session_timeout_ms(millis(member.config().session_timeout))
        .with_rebalance_timeout_ms(millis(member.config().rebalance_timeout))
        .with_member_id(text(&identity.id))
        .with_group_instance_id(identity.instance(true))
        .with_protocol_type(StrBytes::from_static_str(PROTOCOL_TYPE))
        .with_protocols(member.config().assignors.iter().map(offer).collect())
}

const MEMBER_ID_REQUIRED: i16 = 79;

/// What JoinGroup's answer says.
pub(crate) fn joined(answer: JoinGroupResponse) -> Result<Joined, Failure> {
    let id = answer.member_id.to_string();
    if answer.error_code == MEMBER_ID_REQUIRED {
        return Ok(Joined::IdRequired(id));
    }
    if let Some(failure) = Failure::of(answer.error_code) {
        return Err(failure);
    }
    let lead = if answer.leader == answer.member_id {
        let mut members = Vec::with_capacity(answer.members.len());
        for member in &answer.members {
            members.push(GroupMember {
                id: member.member_id.to_string(),
                instance: member.group_instance_id.as_ref().map(|i| i.to_string()),
                subscription: protocol::decode_subscription(&member.metadata)
                    .map_err(|_| Failure::Malformed)?,
            });
        }
        Some(Lead {
            members,
            skip: answer.skip_assignment,
        })
    } else {
        None
    };
    Ok(Joined::Member {
        id,
        generation: answer.generation_id,
        protocol: answer
            .protocol_name
            .map_or_else(String::new, |name| name.to_string()),
        lead,
    })
}

/// SyncGroup; `assignments` is the leader's.
pub(crate) fn sync(
    version: i16,
    identity: &Identity,
    protocol: &'static str,
    assignments: &[(String, Vec<TopicPartition>)],
) -> SyncGroupRequest {
    let assignment = |(id, partitions): &(String, Vec<TopicPartition>)| {
        SyncGroupRequestAssignment::default()
            .with_member_id(text(id))
            .with_assignment(protocol::encode_assignment(partitions))
    };
    let named = version >= 5;
    SyncGroupRequest::default()
        .with_group_id(identity.group())
        .with_generation_id(identity.generation)
        .with_member_id(text(&identity.id))
        .with_group_instance_id(identity.instance(version >= 3))
        .with_protocol_type(named.then(|| StrBytes::from_static_str(PROTOCOL_TYPE)))
        .with_protocol_name(named.then(|| StrBytes::from_static_str(protocol)))
        .with_assignments(assignments.iter().map(assignment).collect())
}

/// What SyncGroup's answer assigns.
pub(crate) fn synced(answer: &SyncGroupResponse) -> Result<Vec<TopicPartition>, Failure> {
    match Failure::of(answer.error_code) {
        Some(failure) => Err(failure),
        // A leader that knows nothing of us may leave us out.
        None if answer.assignment.is_empty() => Ok(Vec::new()),
        None => protocol::decode_assignment(&answer.assignment).map_err(|_| Failure::Malformed),
    }
}

/// Heartbeat.
pub(crate) fn heartbeat(version: i16, identity: &Identity) -> HeartbeatRequest {
    HeartbeatRequest::default()
        .with_group_id(identity.group())
        .with_generation_id(identity.generation)
        .with_member_id(text(&identity.id))
        .with_group_instance_id(identity.instance(version >= 3))
}

/// LeaveGroup. A static member is only let go by a request that names its instance.
pub(crate) fn leave(version: i16, identity: &Identity) -> LeaveGroupRequest {
    let request = LeaveGroupRequest::default().with_group_id(identity.group());
    if version < 3 {
        return request.with_member_id(text(&identity.id));
    }
    let reason = StrBytes::from_static_str("the consumer was closed");
    let member = MemberIdentity::default()
        .with_member_id(text(&identity.id))
        .with_group_instance_id(identity.instance(true))
        .with_reason((version >= 5).then_some(reason));
    request.with_members(vec![member])
}

/// What LeaveGroup's answer says.
pub(crate) fn left(answer: &LeaveGroupResponse) -> Result<(), Failure> {
    let member = answer.members.first().map_or(0, |member| member.error_code);
    let code = if answer.error_code == 0 {
        member
    } else {
        answer.error_code
    };
    Failure::of(code).map_or(Ok(()), Err)
}

/// OffsetCommit of a member.
pub(crate) fn commit(
    version: i16,
    identity: &Identity,
    offsets: &[(TopicPartition, FetchPosition)],
) -> OffsetCommitRequest {
    let mut topics: Vec<OffsetCommitRequestTopic> = Vec::new();
    for (tp, next) in offsets {
        let epoch = if version >= 6 { next.leader_epoch } else { -1 };
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(tp.partition)
            .with_committed_offset(next.offset)
            .with_committed_leader_epoch(epoch)
            .with_committed_metadata(Some(StrBytes::from_static_str("")));
        match topics.last_mut() {
            Some(topic) if *topic.name.0 == *tp.topic => topic.partitions.push(partition),
            _ => topics.push(
                OffsetCommitRequestTopic::default()
                    .with_name(TopicName(text(&tp.topic)))
                    .with_partitions(vec![partition]),
            ),
        }
    }
    OffsetCommitRequest::default()
        .with_group_id(identity.group())
        .with_generation_id_or_member_epoch(identity.generation)
        .with_member_id(text(&identity.id))
        .with_group_instance_id(identity.instance(version >= 7))
        .with_topics(topics)
}

/// The error code of each partition that was to be committed, of those in the answer.
pub(crate) fn committed(
    answer: &OffsetCommitResponse,
    offsets: &[(TopicPartition, FetchPosition)],
) -> Vec<(TopicPartition, i16)> {
    let mut codes = Vec::with_capacity(offsets.len());
    for topic in &answer.topics {
        for partition in &topic.partitions {
            let named = offsets.iter().find(|(tp, _)| {
                tp.partition == partition.partition_index && *tp.topic == *topic.name.0
            });
            codes.extend(named.map(|(tp, _)| (tp.clone(), partition.error_code)));
        }
    }
    codes
}

/// OffsetFetch of one group; `partitions` sorted.
pub(crate) fn fetch(
    version: i16,
    group: &str,
    partitions: &[TopicPartition],
    stable: bool,
) -> OffsetFetchRequest {
    let mut topics: Vec<(&str, Vec<i32>)> = Vec::new();
    for tp in partitions {
        match topics.last_mut() {
            Some((topic, list)) if **topic == *tp.topic => list.push(tp.partition),
            _ => topics.push((&tp.topic, vec![tp.partition])),
        }
    }
    let request = OffsetFetchRequest::default().with_require_stable(stable && version >= 7);
    if version >= 8 {
        let topic = |(name, list): (&str, Vec<i32>)| {
            OffsetFetchRequestTopics::default()
                .with_name(TopicName(text(name)))
                .with_partition_indexes(list)
        };
        let topics = topics.into_iter().map(topic).collect();
        let group = OffsetFetchRequestGroup::default()
            .with_group_id(GroupId(text(group)))
            .with_topics(Some(topics));
        return request.with_groups(vec![group]);
    }
    let topic = |(name, list): (&str, Vec<i32>)| {
        OffsetFetchRequestTopic::default()
            .with_name(TopicName(text(name)))
            .with_partition_indexes(list)
    };
    request
        .with_group_id(GroupId(text(group)))
        .with_topics(Some(topics.into_iter().map(topic).collect()))
}

/// What one partition's committed offset is: none, or why it cannot be told.
pub(crate) type Fetched = (TopicPartition, Result<Option<FetchPosition>, Failure>);

/// What OffsetFetch's answer says of each of `partitions`; one that it leaves out failed.
pub(crate) fn fetched(
    answer: OffsetFetchResponse,
    partitions: &[TopicPartition],
) -> Result<Vec<Fetched>, Failure> {
    let mut code = answer.error_code;
    let mut told: Vec<(String, i32, i64, i32, i16)> = Vec::new();
    for topic in answer.topics {
        let name = topic.name.0.to_string();
        told.extend(topic.partitions.iter().map(|p| {
            let (offset, epoch) = (p.committed_offset, p.committed_leader_epoch);
            (name.clone(), p.partition_index, offset, epoch, p.error_code)
        }));
    }
    if let Some(group) = answer.groups.into_iter().next() {
        code = group.error_code;
        for topic in group.topics {
            let name = topic.name.0.to_string();
            told.extend(topic.partitions.iter().map(|p| {
                let (offset, epoch) = (p.committed_offset, p.committed_leader_epoch);
                (name.clone(), p.partition_index, offset, epoch, p.error_code)
            }));
        }
    }
    if let Some(failure) = Failure::of(code) {
        return Err(failure);
    }
    let find = |tp: &TopicPartition| {
        let told = told
            .iter()
            .find(|(name, partition, ..)| *partition == tp.partition && **name == *tp.topic);
        match told {
            None => Err(Failure::Malformed),
            Some(&(.., offset, leader_epoch, code)) => match Failure::of(code) {
                Some(failure) => Err(failure),
                None if offset < 0 => Ok(None),
                None => Ok(Some(FetchPosition {
                    offset,
                    leader_epoch,
                })),
            },
        }
    };
    Ok(partitions.iter().map(|tp| (tp.clone(), find(tp))).collect())
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
    use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
    use kafka_protocol::protocol::Encodable;
    use tokio::time::Instant;

    use super::*;
    use crate::config::AssignorName;
    use crate::group::membership::GroupRebalanceConfig;
    use crate::protocol::versions::Api;

    fn identity() -> Identity {
        Identity {
            group: "g".into(),
            instance: Some("i".into()),
            id: "m".to_owned(),
            generation: 3,
        }
    }

    fn offsets() -> Vec<(TopicPartition, FetchPosition)> {
        let at = |offset| FetchPosition {
            offset,
            leader_epoch: 5,
        };
        let tp = TopicPartition::new;
        vec![
            (tp("a", 0), at(1)),
            (tp("a", 2), at(2)),
            (tp("b", 0), at(3)),
        ]
    }

    fn encodes<A: Api + Encodable>(build: impl Fn(i16) -> A) {
        for version in A::OLDEST_VERSION..=A::LATEST_VERSION {
            let request = build(version);
            let result = request.encode(&mut BytesMut::new(), version);
            assert!(result.is_ok(), "{} {version}: {result:?}", A::NAME);
        }
    }

    #[test]
    fn every_request_can_be_written_in_every_version() {
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
        let dealt = vec![("m".to_owned(), vec![TopicPartition::new("t", 0)])];
        let partitions = [TopicPartition::new("a", 0), TopicPartition::new("b", 1)];
        encodes(|version| {
            let mut request = join(&member);
            request.group_instance_id = request.group_instance_id.filter(|_| version >= 5);
            request
        });
        encodes(|version| sync(version, &identity(), "range", &dealt));
        encodes(|version| heartbeat(version, &identity()));
        encodes(|version| leave(version, &identity()));
        encodes(|version| commit(version, &identity(), &offsets()));
        encodes(|version| fetch(version, "g", &partitions, true));
    }

    #[test]
    fn offsets_are_grouped_by_topic_and_carry_the_epoch() {
        let request = commit(9, &identity(), &offsets());
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
    fn only_the_leader_is_told_who_the_members_are() {
        let member = |metadata: &[u8]| {
            JoinGroupResponseMember::default()
                .with_member_id(text("m"))
                .with_metadata(metadata.to_vec().into())
        };
        let answer = |leader, metadata| {
            JoinGroupResponse::default()
                .with_leader(text(leader))
                .with_member_id(text("m"))
                .with_generation_id(4)
                .with_protocol_name(Some(text("range")))
                .with_members(vec![member(metadata)])
        };
        let good = [0, 0, 0, 0, 0, 1, 0, 1, b't', 0xff, 0xff, 0xff, 0xff];
        let Ok(Joined::Member { lead, .. }) = joined(answer("m", &good)) else {
            panic!("a member");
        };
        assert_eq!(&*lead.unwrap().members[0].subscription.topics[0], "t");
        let Ok(Joined::Member { lead, .. }) = joined(answer("other", &good)) else {
            panic!("a member");
        };
        assert!(lead.is_none());
        assert!(matches!(joined(answer("m", &[0])), Err(Failure::Malformed)));
    }

    #[test]
    fn a_partition_that_an_answer_leaves_out_is_not_taken_for_uncommitted() {
        let partitions = [TopicPartition::new("t", 0)];
        let told = fetched(OffsetFetchResponse::default(), &partitions).unwrap();
        assert!(matches!(told[0].1, Err(Failure::Malformed)));
    }
}
