//! DescribeGroups and ConsumerGroupDescribe: a group's state and members.
//!
//! A broker describes a group by the request of its type and answers the other one that there is no
//! such group. Which type it is may change between two requests: a group whose last member has left
//! takes the type of the next one.

use std::sync::Arc;

use kafka_protocol::messages::consumer_group_describe_response;
use kafka_protocol::messages::describe_groups_response;
use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, DescribeGroupsRequest,
    DescribeGroupsResponse, GroupId,
};
use kafka_protocol::protocol::StrBytes;

use super::error::{GroupAdminError, GroupAttemptError};
use super::state::GroupState;
use crate::TopicPartition;
use crate::group::{PROTOCOL_TYPE, decode_assignment};

/// A group with its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerGroupDescription {
    /// The group's id.
    pub group_id: Arc<str>,
    /// Whether it never had members: its clients only commit.
    pub is_simple: bool,
    /// What it is about.
    pub state: GroupState,
    /// Who assigns its partitions; empty while nobody does.
    pub partition_assignor: Box<str>,
    /// Who reads its partitions.
    pub members: Vec<MemberDescription>,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberDescription {
    /// The `client.id` of its client.
    pub client_id: Box<str>,
    /// The address that it connects from.
    pub host: Box<str>,
    /// The `group.instance.id` of a static member.
    pub instance_id: Option<Box<str>>,
    /// What it reads, in order.
    pub partitions: Vec<TopicPartition>,
}

/// How much of a group is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DescriptionDetail {
    /// Without what the members read.
    Members,
    /// All.
    Partitions,
}

/// DescribeGroups.
pub(super) fn classic_request(groups: &[Arc<str>]) -> DescribeGroupsRequest {
    DescribeGroupsRequest::default().with_groups(groups.iter().map(group_id).collect())
}

/// ConsumerGroupDescribe.
pub(super) fn consumer_request(groups: &[Arc<str>]) -> ConsumerGroupDescribeRequest {
    ConsumerGroupDescribeRequest::default().with_group_ids(groups.iter().map(group_id).collect())
}

/// What a broker says of each group that it was asked for.
pub(super) type DescribedGroups = Vec<(
    Arc<str>,
    Result<ConsumerGroupDescription, GroupAttemptError>,
)>;

pub(super) fn classic_groups(
    response: DescribeGroupsResponse,
    detail: DescriptionDetail,
) -> DescribedGroups {
    let groups = response.groups.into_iter().map(|group| {
        let id: Arc<str> = group.group_id.as_str().into();
        let described = classic_group(&id, &group, detail);
        (id, described)
    });
    groups.collect()
}

fn classic_group(
    id: &Arc<str>,
    group: &describe_groups_response::DescribedGroup,
    detail: DescriptionDetail,
) -> Result<ConsumerGroupDescription, GroupAttemptError> {
    if let Some(error) = GroupAttemptError::from_code(group.error_code, id) {
        return Err(error);
    }
    let state = state(&group.group_state)?;
    let of_consumers = matches!(&*group.protocol_type, PROTOCOL_TYPE | "");
    // Brokers before 4.0 call a group dead that they do not know.
    if state == GroupState::Dead || !of_consumers {
        return Err(not_found(id));
    }
    let members = group.members.iter().map(|member| MemberDescription {
        client_id: member.client_id.as_str().into(),
        host: host(&member.client_host),
        instance_id: member.group_instance_id.as_deref().map(Box::from),
        partitions: match detail {
            DescriptionDetail::Members => Vec::new(),
            // What is none is another program's.
            DescriptionDetail::Partitions if member.member_assignment.is_empty() => Vec::new(),
            DescriptionDetail::Partitions => {
                sorted(decode_assignment(&member.member_assignment).unwrap_or_default())
            }
        },
    });
    Ok(ConsumerGroupDescription {
        group_id: Arc::clone(id),
        is_simple: group.protocol_type.is_empty(),
        state,
        partition_assignor: group.protocol_data.as_str().into(),
        members: members.collect(),
    })
}

pub(super) fn consumer_groups(
    response: ConsumerGroupDescribeResponse,
    detail: DescriptionDetail,
) -> DescribedGroups {
    let groups = response.groups.into_iter().map(|group| {
        let id: Arc<str> = group.group_id.as_str().into();
        let described = consumer_group(&id, &group, detail);
        (id, described)
    });
    groups.collect()
}

fn consumer_group(
    id: &Arc<str>,
    group: &consumer_group_describe_response::DescribedGroup,
    detail: DescriptionDetail,
) -> Result<ConsumerGroupDescription, GroupAttemptError> {
    if let Some(error) = GroupAttemptError::from_code(group.error_code, id) {
        return Err(error);
    }
    let state = state(&group.group_state)?;
    if state == GroupState::Dead {
        return Err(not_found(id));
    }
    let members = group.members.iter().map(|member| MemberDescription {
        client_id: member.client_id.as_str().into(),
        host: host(&member.client_host),
        instance_id: member.instance_id.as_deref().map(Box::from),
        partitions: match detail {
            DescriptionDetail::Members => Vec::new(),
            DescriptionDetail::Partitions => partitions(&member.assignment),
        },
    });
    Ok(ConsumerGroupDescription {
        group_id: Arc::clone(id),
        is_simple: false,
        state,
        partition_assignor: group.assignor_name.as_str().into(),
        members: members.collect(),
    })
}

fn partitions(assignment: &consumer_group_describe_response::Assignment) -> Vec<TopicPartition> {
    let topics = assignment.topic_partitions.iter().flat_map(|topic| {
        let name: Arc<str> = topic.topic_name.as_str().into();
        let of_topic = move |&partition: &i32| TopicPartition {
            topic: Arc::clone(&name),
            partition,
        };
        topic.partitions.iter().map(of_topic)
    });
    sorted(topics.collect())
}

fn sorted(mut partitions: Vec<TopicPartition>) -> Vec<TopicPartition> {
    partitions.sort_unstable();
    partitions
}

fn state(name: &str) -> Result<GroupState, GroupAttemptError> {
    let unknown = || GroupAttemptError::Retriable(format!("a group is {name:?}").into());
    GroupState::parse(name).ok_or_else(unknown)
}

fn not_found(id: &Arc<str>) -> GroupAttemptError {
    let group = Arc::clone(id);
    GroupAttemptError::Final(GroupAdminError::NotFound { group })
}

/// Java's brokers put a slash before an address without a name.
fn host(client_host: &str) -> Box<str> {
    client_host.strip_prefix('/').unwrap_or(client_host).into()
}

fn group_id(id: &Arc<str>) -> GroupId {
    GroupId(StrBytes::from_string(id.to_string()))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kafka_protocol::error::ResponseError;
    use kafka_protocol::messages::TopicName;

    use super::*;

    fn text(text: &'static str) -> StrBytes {
        StrBytes::from_static_str(text)
    }

    fn classic(state: &'static str, protocol: &'static str) -> DescribeGroupsResponse {
        let member = describe_groups_response::DescribedGroupMember::default()
            .with_client_id(text("c"))
            .with_client_host(text("/10.0.0.1"))
            .with_group_instance_id(Some(text("i")))
            // Version 0, one topic "t" with partitions 2 and 0, no user data.
            .with_member_assignment(Bytes::from_static(
                b"\0\0\0\0\0\x01\0\x01t\0\0\0\x02\0\0\0\x02\0\0\0\0\xff\xff\xff\xff",
            ));
        let group = describe_groups_response::DescribedGroup::default()
            .with_group_id(GroupId(text("g")))
            .with_group_state(text(state))
            .with_protocol_type(text(protocol))
            .with_protocol_data(text("range"))
            .with_members(vec![member]);
        DescribeGroupsResponse::default().with_groups(vec![group])
    }

    fn only(groups: DescribedGroups) -> Result<ConsumerGroupDescription, GroupAttemptError> {
        groups.into_iter().next().unwrap().1
    }

    fn member() -> MemberDescription {
        MemberDescription {
            client_id: "c".into(),
            host: "10.0.0.1".into(),
            instance_id: Some("i".into()),
            partitions: [0, 2].map(|n| TopicPartition::new("t", n)).to_vec(),
        }
    }

    #[test]
    fn both_kinds_of_groups_are_described_alike() {
        let from_classic = only(classic_groups(
            classic("Stable", "consumer"),
            DescriptionDetail::Partitions,
        ));
        let topic = consumer_group_describe_response::TopicPartitions::default()
            .with_topic_name(TopicName(text("t")))
            .with_partitions(vec![2, 0]);
        let assignment = consumer_group_describe_response::Assignment::default()
            .with_topic_partitions(vec![topic]);
        let of_kip_848 = consumer_group_describe_response::Member::default()
            .with_client_id(text("c"))
            .with_client_host(text("/10.0.0.1"))
            .with_instance_id(Some(text("i")))
            .with_assignment(assignment);
        let group = consumer_group_describe_response::DescribedGroup::default()
            .with_group_id(GroupId(text("g")))
            .with_group_state(text("Stable"))
            .with_assignor_name(text("range"))
            .with_members(vec![of_kip_848]);
        let response = ConsumerGroupDescribeResponse::default().with_groups(vec![group]);
        let from_consumer = only(consumer_groups(response, DescriptionDetail::Partitions));
        let expected = ConsumerGroupDescription {
            group_id: "g".into(),
            is_simple: false,
            state: GroupState::Stable,
            partition_assignor: "range".into(),
            members: vec![member()],
        };
        assert_eq!(from_classic.unwrap(), expected);
        assert_eq!(from_consumer.unwrap(), expected);
    }

    #[test]
    fn a_list_of_members_decodes_no_assignment() {
        let described = only(classic_groups(
            classic("Stable", "consumer"),
            DescriptionDetail::Members,
        ));
        assert!(described.unwrap().members[0].partitions.is_empty());
    }

    #[test]
    fn a_dead_group_an_unknown_one_and_one_of_another_program_are_not_found() {
        let mut unknown = classic("Dead", "");
        unknown.groups[0].error_code = ResponseError::GroupIdNotFound.code();
        for response in [classic("Dead", ""), unknown, classic("Stable", "connect")] {
            let described = only(classic_groups(response, DescriptionDetail::Members));
            assert!(
                matches!(
                    &described,
                    Err(GroupAttemptError::Final(GroupAdminError::NotFound { .. }))
                ),
                "{described:?}"
            );
        }
    }
}
