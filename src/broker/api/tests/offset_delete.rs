//! OffsetDelete, as Kafka answers it.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};

use super::*;

/// A member of group `g`, with that metadata.
async fn join(context: &RequestContext, protocol_type: &'static str, metadata: &'static [u8]) {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(Bytes::from_static(metadata));
    let request = JoinGroupRequest::default()
        .with_group_id(GroupId(text("g")))
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(10_000)
        .with_protocol_type(text(protocol_type))
        .with_protocols(vec![protocol]);
    let joined = answer(context, 3, request.into()).await;
    let Some(ResponseKind::JoinGroup(joined)) = joined else {
        panic!("not joined");
    };
    assert_eq!(joined.error_code, 0);
}

/// The codes of the group, and of partitions 0 and 7 of `t`.
async fn delete(context: &RequestContext) -> (i16, Vec<i16>) {
    let partition = |index| OffsetDeleteRequestPartition::default().with_partition_index(index);
    let topic = OffsetDeleteRequestTopic::default()
        .with_name(topic())
        .with_partitions(vec![partition(0), partition(7)]);
    let request = OffsetDeleteRequest::default()
        .with_group_id(GroupId(text("g")))
        .with_topics(vec![topic]);
    let Some(ResponseKind::OffsetDelete(response)) = answer(context, 0, request.into()).await
    else {
        panic!("not answered");
    };
    let topics = response.topics.iter();
    let codes = topics.flat_map(|topic| topic.partitions.iter().map(|p| p.error_code));
    (response.error_code, codes.collect())
}

/// A cluster with topic `t`, for which group `g` has committed an offset.
async fn with_committed() -> RequestContext {
    let context = context();
    {
        let mut cluster = context.shared.lock();
        cluster.state.create_topic("t", Some(2), None).unwrap();
    }
    let partition = OffsetCommitRequestPartition::default().with_committed_offset(5);
    let topic = OffsetCommitRequestTopic::default()
        .with_name(topic())
        .with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(text("g")))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic]);
    answer(&context, 7, request.into()).await;
    context
}

fn committed(context: &RequestContext) -> bool {
    let cluster = context.shared.lock();
    let group = cluster.groups.get("g").unwrap();
    group.offsets.contains_key(&(text("t"), 0))
}

#[tokio::test]
async fn offsets_of_a_group_without_members_are_forgotten_and_a_partition_that_is_not_there_is_said()
 {
    let context = with_committed().await;
    assert!(committed(&context));
    let unknown = ResponseError::UnknownTopicOrPartition.code();
    assert_eq!(delete(&context).await, (0, vec![0, unknown]));
    assert!(!committed(&context));
}

#[tokio::test]
async fn offsets_of_a_topic_that_a_member_subscribes_to_stay() {
    let context = with_committed().await;
    join(&context, "consumer", b"\0\0\0\0\0\x01\0\x01t").await;
    let subscribed = ResponseError::GroupSubscribedToTopic.code();
    assert_eq!(delete(&context).await.1[0], subscribed);
    assert!(committed(&context));
}

#[tokio::test]
async fn offsets_of_a_topic_that_no_member_subscribes_to_are_forgotten() {
    let context = with_committed().await;
    join(&context, "consumer", b"\0\0\0\0\0\x01\0\x01u").await;
    assert_eq!(delete(&context).await.1[0], 0);
    assert!(!committed(&context));
}

#[tokio::test]
async fn other_members_than_consumers_keep_all_and_an_unknown_group_is_said() {
    let context = with_committed().await;
    join(&context, "connect", b"").await;
    let not_empty = ResponseError::NonEmptyGroup.code();
    assert_eq!(delete(&context).await, (not_empty, vec![]));
    let unknown = ResponseError::GroupIdNotFound.code();
    assert_eq!(delete(&super::context()).await, (unknown, vec![]));
}
