//! What no request can make the broker spend.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;

use super::super::fetch::ANSWERS_MAX;
use super::*;

fn with_topic(config: BrokerConfig) -> RequestContext {
    let address = SocketAddr::from(([127, 0, 0, 1], 9092));
    let config = BrokerConfig {
        // No clock ends it here.
        initial_rebalance_delay: Duration::ZERO,
        ..config
    };
    let context = RequestContext {
        shared: ClusterContext::new(config, &[address]),
        ..context()
    };
    let mut cluster = context.shared.lock();
    cluster.state.create_topic("t", Some(2), None).unwrap();
    drop(cluster);
    context
}

/// The frame of a request.
fn frame(api: ApiKey, version: i16, request: &RequestKind) -> Bytes {
    let mut bytes = BytesMut::new();
    RequestHeader::default()
        .encode(&mut bytes, api.request_header_version(version))
        .unwrap();
    bytes.extend_from_slice(&body_of(request, version));
    bytes.freeze()
}

async fn ask(
    context: &RequestContext,
    api: ApiKey,
    version: i16,
    request: RequestKind,
) -> ResponseKind {
    let frame = frame(api, version, &request);
    let (_, request) = net::decode_request(api, version, &mut frame.clone()).unwrap();
    let response = answer(context, version, request).await.unwrap();
    // Of the request nothing is left. (The response has parts of it, and is sent.)
    let mut bytes = BytesMut::new();
    response.encode(&mut bytes, version).unwrap();
    drop(response);
    assert!(frame.is_unique(), "{api:?} v{version} keeps the request");
    ResponseKind::decode(api, &mut bytes.freeze(), version).unwrap()
}

#[tokio::test]
async fn nothing_that_is_kept_keeps_the_request() {
    for (api, version) in served() {
        let context = with_topic(BrokerConfig::default());
        let id = context.shared.lock().state.topic("t").unwrap().id;
        ask(&context, api, version, request(api, version, id)).await;
    }
}

#[tokio::test]
async fn nor_do_assignments() {
    let context = with_topic(BrokerConfig::default());
    let join = request(ApiKey::JoinGroup, 3, Uuid::nil());
    let ResponseKind::JoinGroup(joined) = ask(&context, ApiKey::JoinGroup, 3, join).await else {
        panic!("not joined");
    };
    let assignment = SyncGroupRequestAssignment::default()
        .with_member_id(joined.member_id.clone())
        .with_assignment(Bytes::from(vec![7; 10_000]));
    let sync = SyncGroupRequest::default()
        .with_group_id(GroupId(text("g")))
        .with_generation_id(joined.generation_id)
        .with_member_id(joined.member_id)
        .with_assignments(vec![assignment]);
    let answer = ask(&context, ApiKey::SyncGroup, 3, sync.into()).await;
    let ResponseKind::SyncGroup(synced) = answer else {
        panic!("not synced");
    };
    assert_eq!(synced.assignment.len(), 10_000);
}

#[tokio::test]
async fn what_is_asked_for_again_and_again_is_answered_once() {
    fn again<T: Clone>(list: &mut Vec<T>) {
        let once = list.clone();
        for _ in 0..9 {
            list.extend_from_slice(&once);
        }
    }
    for (api, version) in [
        (ApiKey::Metadata, 12),
        (ApiKey::DescribeGroups, 5),
        (ApiKey::OffsetFetch, 8),
        (ApiKey::Fetch, 11),
    ] {
        let context = with_topic(BrokerConfig::default());
        let once = request(api, version, Uuid::nil());
        let mut tenfold = once.clone();
        match &mut tenfold {
            RequestKind::Metadata(r) => again(r.topics.as_mut().unwrap()),
            RequestKind::DescribeGroups(r) => again(&mut r.groups),
            RequestKind::OffsetFetch(r) => again(&mut r.groups),
            RequestKind::Fetch(r) => again(&mut r.topics),
            other => panic!("{other:?}"),
        }
        let tenfold = ask(&context, api, version, tenfold).await;
        let once = ask(&with_topic(BrokerConfig::default()), api, version, once).await;
        let size = |response: &ResponseKind| {
            let mut bytes = BytesMut::new();
            response.encode(&mut bytes, version).unwrap();
            bytes.len()
        };
        assert_eq!(size(&tenfold), size(&once), "{api:?}");
    }
}

#[tokio::test]
async fn an_offset_is_looked_for_once_in_a_request() {
    let context = with_topic(BrokerConfig::default());
    let mut list = request(ApiKey::ListOffsets, 5, Uuid::nil());
    let RequestKind::ListOffsets(twice) = &mut list else {
        panic!("no such request");
    };
    let first = twice.topics[0].clone();
    twice.topics.push(first);
    let ResponseKind::ListOffsets(listed) = ask(&context, ApiKey::ListOffsets, 5, list).await
    else {
        panic!("not listed");
    };
    let code = |topic: usize| listed.topics[topic].partitions[0].error_code;
    assert_eq!(
        [code(0), code(1)],
        [0, ResponseError::InvalidRequest.code()]
    );
}

#[tokio::test]
async fn fetches_bring_no_more_than_a_batch_while_many_answers_are_under_way() {
    let context = with_topic(BrokerConfig::default());
    for _ in 0..3 {
        let produce = request(ApiKey::Produce, 9, Uuid::nil());
        ask(&context, ApiKey::Produce, 9, produce).await;
    }
    let fetched = async || {
        let fetch = request(ApiKey::Fetch, 6, Uuid::nil());
        let ResponseKind::Fetch(fetched) = ask(&context, ApiKey::Fetch, 6, fetch).await else {
            panic!("not fetched");
        };
        let records = fetched.responses[0].partitions[0].records.as_ref();
        records.map_or(0, Bytes::len)
    };
    let batch = batch_of(2, 5, PLAIN).len();
    assert_eq!(fetched().await, 3 * batch);
    let under_way = context.shared.response_memory.take(ANSWERS_MAX);
    assert_eq!(fetched().await, batch);
    drop(under_way);
    assert_eq!(fetched().await, 3 * batch);
}

#[tokio::test]
async fn joins_and_commits_beyond_the_memory_of_groups_are_refused() {
    let context = with_topic(BrokerConfig {
        groups_memory: 3_000,
        ..BrokerConfig::default()
    });
    for (size, join_code, commit_code) in [
        (100, 0, 0),
        (
            3_000,
            ResponseError::GroupMaxSizeReached.code(),
            ResponseError::InvalidCommitOffsetSize.code(),
        ),
    ] {
        let RequestKind::OffsetCommit(mut commit) = request(ApiKey::OffsetCommit, 5, Uuid::nil())
        else {
            panic!("no commit");
        };
        commit.group_id = GroupId(text("h"));
        let metadata = StrBytes::from_string("m".repeat(size));
        commit.topics[0].partitions[0].committed_metadata = Some(metadata);
        match ask(&context, ApiKey::OffsetCommit, 5, commit.into()).await {
            ResponseKind::OffsetCommit(r) => {
                assert_eq!(r.topics[0].partitions[0].error_code, commit_code);
            }
            other => panic!("{other:?}"),
        }
        let RequestKind::JoinGroup(mut join) = request(ApiKey::JoinGroup, 3, Uuid::nil()) else {
            panic!("no join");
        };
        join.protocols[0].metadata = Bytes::from(vec![0; size]);
        // Of its own: nobody waits for the other one.
        join.group_id = GroupId(StrBytes::from_string(format!("g{size}")));
        match ask(&context, ApiKey::JoinGroup, 3, join.into()).await {
            ResponseKind::JoinGroup(r) => assert_eq!(r.error_code, join_code),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_topic_that_is_only_validated_is_never_made() {
    let context = with_topic(BrokerConfig::default());
    let RequestKind::CreateTopics(mut create) = request(ApiKey::CreateTopics, 7, Uuid::nil())
    else {
        panic!("no such request");
    };
    create.topics[0].num_partitions = 9_000;
    let again = create.topics[0].clone();
    create.topics.resize(1_000, again);
    let create = create.with_validate_only(true).into();
    let ResponseKind::CreateTopics(created) = ask(&context, ApiKey::CreateTopics, 7, create).await
    else {
        panic!("not validated");
    };
    let found = |topic: &create_topics_response::CreatableTopicResult| {
        (topic.error_code, topic.num_partitions, topic.topic_id)
    };
    assert!(
        created
            .topics
            .iter()
            .all(|topic| found(topic) == (0, 9_000, Uuid::nil()))
    );
    let cluster = context.shared.lock();
    assert!(cluster.state.topic("other").is_none());
}
