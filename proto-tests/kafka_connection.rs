//! Our connections and metadata against real Apache Kafka: every API in every version that
//! both ends speak, and a cluster whose brokers die and return.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_client::config::{ClientConfig, CompressionType};
use kafka_client::metadata::{AclOperation, MetadataError};
use kafka_client::protocol::versions::Api;
use kafka_client::record::{NewRecord, RecordBatchBuilder};
use kafka_client::{
    BrokerId, Cluster, Connection, ConnectionPurpose, Principal, TopicPartition, admin,
};
use kafka_protocol::messages::{
    ApiVersionsRequest, CreateTopicsRequest, FetchRequest, FindCoordinatorRequest, GroupId,
    HeartbeatRequest, InitProducerIdRequest, JoinGroupRequest, LeaveGroupRequest,
    ListOffsetsRequest, MetadataRequest, OffsetCommitRequest, OffsetFetchRequest,
    OffsetForLeaderEpochRequest, ProduceRequest, SyncGroupRequest, TopicName,
    create_topics_request, fetch_request, join_group_request, leave_group_request,
    list_offsets_request, metadata_request, offset_commit_request, offset_fetch_request,
    offset_for_leader_epoch_request, produce_request, sync_group_request,
};
use kafka_protocol::protocol::StrBytes;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::support::kafka::{Kafka, unique};
use crate::support::{PATIENCE, until_asked};

fn cluster(kafka: &Kafka) -> Cluster {
    let config = ClientConfig {
        bootstrap_servers: kafka.bootstrap().split(',').map(str::to_owned).collect(),
        ..ClientConfig::default()
    };
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    Cluster::new(config, Principal::Proxy, tasks, stop)
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// One connection, one topic of one partition, one group: what the requests are about.
struct RequestFixture {
    connection: Connection,
    topic: String,
    topic_id: Uuid,
    group: GroupId,
}

impl RequestFixture {
    async fn new(kafka: &Kafka) -> Self {
        let cluster = cluster(kafka);
        let name = unique("versions");
        admin::create_topic(&cluster, &name, 1, 1).await.unwrap();
        let topic = loop {
            match cluster.metadata().topic(&name).await {
                Ok(topic) if topic.leader(0).is_some() => break topic,
                Ok(_) => cluster.metadata().refresh().await.unwrap(),
                Err(MetadataError::UnknownTopic { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        };
        let leader = topic.leader(0).unwrap();
        assert!(leader.epoch >= 0);
        assert!(!topic.id.is_nil());
        let connection = cluster.connection(leader.broker, ConnectionPurpose::Control);
        Self {
            connection: connection.await.unwrap(),
            topic_id: topic.id,
            group: GroupId(text(&name)),
            topic: name,
        }
    }

    fn name(&self) -> TopicName {
        TopicName(text(&self.topic))
    }

    /// Sends one request in each version that both ends speak, and returns the error code
    /// that each answer carries.
    async fn ask<A: Api>(
        &self,
        build: impl Fn(i16) -> A,
        code: impl Fn(&A::Response) -> i16,
    ) -> BTreeMap<i16, i16> {
        let mut codes = BTreeMap::new();
        for version in self.connection.versions::<A>().unwrap() {
            let request = build(version);
            let reply = self.connection.send(version, &request, PATIENCE).await;
            let reply = reply.unwrap_or_else(|error| panic!("{} {version}: {error}", A::NAME));
            let response = timeout(PATIENCE, reply).await.expect("in time");
            let response =
                response.unwrap_or_else(|error| panic!("{} {version}: {error}", A::NAME));
            codes.insert(version, code(&response));
        }
        codes
    }
}

impl RequestFixture {
    /// As [`RequestFixture::ask`], again while what stands behind the answer is still being made:
    /// COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR.
    async fn ask_when_ready<A: Api>(
        &self,
        build: impl Fn(i16) -> A,
        code: impl Fn(&A::Response) -> i16,
    ) -> BTreeMap<i16, i16> {
        let begin = Instant::now();
        loop {
            let codes = self.ask(&build, &code).await;
            let ready = !codes.values().any(|code| [14, 15, 16].contains(code));
            if ready || begin.elapsed() > PATIENCE {
                return codes;
            }
            // Another program: only asking tells when it is ready.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn all_are(expected: i16, codes: BTreeMap<i16, i16>, what: &str) {
    assert!(!codes.is_empty(), "{what}");
    assert!(
        codes.values().all(|code| *code == expected),
        "{what}: {codes:?}"
    );
}

/// Every API that we send, in every version.
async fn every_version_is_understood(kafka: &Kafka) {
    let fixture = RequestFixture::new(kafka).await;
    versions_and_metadata(&fixture).await;
    let written = records(&fixture).await;
    leader_epochs(&fixture, written).await;
    producer_id_and_topics(&fixture).await;
    committed_offsets(&fixture).await;
    memberships(&fixture).await;
    assert!(!fixture.connection.is_closed());
}

async fn versions_and_metadata(fixture: &RequestFixture) {
    let codes = fixture.ask(
        |version| match version {
            3.. => ApiVersionsRequest::default()
                .with_client_software_name(text("us"))
                .with_client_software_version(text("1")),
            _ => ApiVersionsRequest::default(),
        },
        |response| response.error_code,
    );
    all_are(0, codes.await, "ApiVersions");

    let codes = fixture.ask(
        |_| {
            let topic =
                metadata_request::MetadataRequestTopic::default().with_name(Some(fixture.name()));
            MetadataRequest::default()
                .with_topics(Some(vec![topic]))
                .with_allow_auto_topic_creation(false)
        },
        |response| response.topics[0].error_code + response.topics[0].partitions[0].error_code,
    );
    all_are(0, codes.await, "Metadata");
}

/// Writes and reads; how many records were written.
async fn records(fixture: &RequestFixture) -> i64 {
    let codes = fixture.ask(
        |version| {
            let mut batch = RecordBatchBuilder::new(1024);
            batch.append(&NewRecord {
                key: None,
                value: Some(b"v"),
                headers: &[],
                timestamp: 1,
            });
            let mut batch = batch.build(CompressionType::None);
            batch.set_producer_state(-1, -1, -1);
            let partition =
                produce_request::PartitionProduceData::default().with_records(Some(batch.bytes()));
            let topic =
                produce_request::TopicProduceData::default().with_partition_data(vec![partition]);
            let topic = match version {
                13.. => topic.with_topic_id(fixture.topic_id),
                _ => topic.with_name(fixture.name()),
            };
            ProduceRequest::default()
                .with_transactional_id(None)
                .with_acks(-1)
                .with_timeout_ms(10_000)
                .with_topic_data(vec![topic])
        },
        |response| response.responses[0].partition_responses[0].error_code,
    );
    let codes = codes.await;
    let written = codes.len() as i64;
    all_are(0, codes, "Produce");

    let codes = fixture.ask(
        |_| {
            let partition =
                list_offsets_request::ListOffsetsPartition::default().with_timestamp(-1);
            let topic = list_offsets_request::ListOffsetsTopic::default()
                .with_name(fixture.name())
                .with_partitions(vec![partition]);
            ListOffsetsRequest::default()
                .with_replica_id((-1).into())
                .with_topics(vec![topic])
        },
        |response| {
            let partition = &response.topics[0].partitions[0];
            assert_eq!(partition.offset, written);
            partition.error_code
        },
    );
    all_are(0, codes.await, "ListOffsets");

    let codes = fixture.ask(
        |version| {
            let partition =
                fetch_request::FetchPartition::default().with_partition_max_bytes(1 << 20);
            let topic = fetch_request::FetchTopic::default().with_partitions(vec![partition]);
            let topic = match version {
                13.. => topic.with_topic_id(fixture.topic_id),
                _ => topic.with_topic(fixture.name()),
            };
            let request = FetchRequest::default()
                .with_max_wait_ms(10)
                .with_min_bytes(1)
                .with_max_bytes(1 << 20)
                .with_session_epoch(-1)
                .with_topics(vec![topic]);
            if version < 15 {
                request.with_replica_id((-1).into())
            } else {
                request
            }
        },
        |response| {
            let partition = &response.responses[0].partitions[0];
            assert_eq!(partition.high_watermark, written);
            assert!(partition.records.as_ref().unwrap().len() > 61);
            partition.error_code
        },
    );
    all_are(0, codes.await, "Fetch");
    written
}

async fn leader_epochs(fixture: &RequestFixture, written: i64) {
    let codes = fixture.ask(
        |version| {
            let partition = offset_for_leader_epoch_request::OffsetForLeaderPartition::default();
            let topic = offset_for_leader_epoch_request::OffsetForLeaderTopic::default()
                .with_topic(fixture.name())
                .with_partitions(vec![partition]);
            let request = OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
            if version >= 3 {
                request.with_replica_id((-1).into())
            } else {
                request
            }
        },
        |response| {
            assert_eq!(response.topics[0].partitions[0].end_offset, written);
            response.topics[0].partitions[0].error_code
        },
    );
    all_are(0, codes.await, "OffsetForLeaderEpoch");
}

async fn producer_id_and_topics(fixture: &RequestFixture) {
    let codes = fixture.ask_when_ready(
        |_| {
            InitProducerIdRequest::default()
                .with_transactional_id(None)
                .with_transaction_timeout_ms(i32::MAX)
        },
        |response| {
            assert_eq!(response.error_code == 0, response.producer_id.0 >= 0);
            response.error_code
        },
    );
    all_are(0, codes.await, "InitProducerId");

    let codes = fixture.ask(
        |_| {
            let topic = create_topics_request::CreatableTopic::default()
                .with_name(fixture.name())
                .with_num_partitions(1)
                .with_replication_factor(1);
            CreateTopicsRequest::default()
                .with_topics(vec![topic])
                .with_timeout_ms(10_000)
        },
        |response| response.topics[0].error_code,
    );
    all_are(36, codes.await, "CreateTopics: TOPIC_ALREADY_EXISTS");
}

async fn committed_offsets(fixture: &RequestFixture) {
    // The first use of a coordinator makes its topic.
    let codes = fixture.ask_when_ready(
        |version| match version {
            4.. => FindCoordinatorRequest::default()
                .with_coordinator_keys(vec![fixture.group.0.clone()]),
            _ => FindCoordinatorRequest::default().with_key(fixture.group.0.clone()),
        },
        |response| match response.coordinators.first() {
            Some(coordinator) => coordinator.error_code,
            None => response.error_code,
        },
    );
    all_are(0, codes.await, "FindCoordinator");

    let commit = |_| {
        let partition = offset_commit_request::OffsetCommitRequestPartition::default()
            .with_committed_offset(1)
            .with_committed_metadata(Some(text("")));
        let topic = offset_commit_request::OffsetCommitRequestTopic::default()
            .with_name(fixture.name())
            .with_topic_id(fixture.topic_id)
            .with_partitions(vec![partition]);
        OffsetCommitRequest::default()
            .with_group_id(fixture.group.clone())
            .with_generation_id_or_member_epoch(-1)
            .with_topics(vec![topic])
    };
    let code = |response: &<OffsetCommitRequest as kafka_protocol::protocol::Request>::Response| {
        response.topics[0].partitions[0].error_code
    };
    let codes = fixture.ask_when_ready(commit, code).await;
    all_are(0, codes, "OffsetCommit");

    let codes = fixture.ask(
        |version| match version {
            8.. => {
                let topic = offset_fetch_request::OffsetFetchRequestTopics::default()
                    .with_name(fixture.name())
                    .with_topic_id(fixture.topic_id)
                    .with_partition_indexes(vec![0]);
                let group = offset_fetch_request::OffsetFetchRequestGroup::default()
                    .with_group_id(fixture.group.clone())
                    .with_member_id(None)
                    .with_topics(Some(vec![topic]));
                OffsetFetchRequest::default().with_groups(vec![group])
            }
            _ => {
                let topic = offset_fetch_request::OffsetFetchRequestTopic::default()
                    .with_name(fixture.name())
                    .with_partition_indexes(vec![0]);
                OffsetFetchRequest::default()
                    .with_group_id(fixture.group.clone())
                    .with_topics(Some(vec![topic]))
            }
        },
        |response| match response.groups.first() {
            Some(group) => {
                assert_eq!(group.topics[0].partitions[0].committed_offset, 1);
                group.error_code
            }
            None => {
                assert_eq!(response.topics[0].partitions[0].committed_offset, 1);
                response.error_code
            }
        },
    );
    all_are(0, codes.await, "OffsetFetch");
}

async fn memberships(fixture: &RequestFixture) {
    // A member id first, from version 4 on; then it is a member that nobody knows.
    let codes = fixture.ask(
        |_| {
            let protocol =
                join_group_request::JoinGroupRequestProtocol::default().with_name(text("range"));
            JoinGroupRequest::default()
                .with_group_id(fixture.group.clone())
                .with_session_timeout_ms(6000)
                .with_rebalance_timeout_ms(6000)
                .with_member_id(text("stranger"))
                .with_protocol_type(text("consumer"))
                .with_protocols(vec![protocol])
        },
        |response| response.error_code,
    );
    all_are(25, codes.await, "JoinGroup: UNKNOWN_MEMBER_ID");

    let codes = fixture.ask(
        |_| {
            let assignment = sync_group_request::SyncGroupRequestAssignment::default();
            SyncGroupRequest::default()
                .with_group_id(fixture.group.clone())
                .with_member_id(text("stranger"))
                .with_assignments(vec![assignment])
                .with_protocol_type(None)
        },
        |response| response.error_code,
    );
    let codes = codes.await;
    // INCONSISTENT_GROUP_PROTOCOL comes first where the protocol is to be named.
    assert!(
        codes.values().all(|code| [25, 23].contains(code)),
        "{codes:?}"
    );

    let codes = fixture.ask(
        |_| {
            HeartbeatRequest::default()
                .with_group_id(fixture.group.clone())
                .with_member_id(text("stranger"))
        },
        |response| response.error_code,
    );
    all_are(25, codes.await, "Heartbeat: UNKNOWN_MEMBER_ID");

    let codes = fixture.ask(
        |version| {
            let request = LeaveGroupRequest::default().with_group_id(fixture.group.clone());
            match version {
                3.. => {
                    let member = leave_group_request::MemberIdentity::default()
                        .with_member_id(text("stranger"));
                    request.with_members(vec![member])
                }
                _ => request.with_member_id(text("stranger")),
            }
        },
        |response| match response.members.first() {
            Some(member) => member.error_code,
            None => response.error_code,
        },
    );
    all_are(25, codes.await, "LeaveGroup: UNKNOWN_MEMBER_ID");
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_4_4_understands_every_version_that_we_speak() {
    every_version_is_understood(&Kafka::shared("4.4", 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_3_9_understands_every_version_that_we_speak() {
    every_version_is_understood(&Kafka::shared("3.9", 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_2_8_understands_every_version_that_we_speak() {
    every_version_is_understood(&Kafka::shared("2.8", 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_deleted_and_created_again_is_another() {
    let kafka = Kafka::shared("4.4", 1);
    let cluster = cluster(&kafka);
    let name = unique("again");
    kafka.create_topic(&name, 3, 1);
    let first = cluster.metadata().topic(&name).await.unwrap();
    kafka.java("Topics.java", &["delete", &name]);
    let mut changed = cluster.metadata().subscribe();
    kafka.create_topic(&name, 1, 1);
    cluster.metadata().request_update_for_topic(&name);
    let second = changed.wait_for(|snapshot| {
        snapshot
            .topic(&name)
            .is_some_and(|topic| topic.id != first.id)
    });
    let second = timeout(PATIENCE, second).await.expect("in time").unwrap();
    assert_eq!(second.topic(&name).unwrap().partitions.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leaders_are_known_again_soon_after_a_broker_was_killed() {
    let kafka = Kafka::start("4.4", 3, &[]);
    let cluster = cluster(&kafka);
    let name = unique("moves");
    kafka.create_topic(&name, 6, 3);
    let topic = cluster.metadata().topic(&name).await.unwrap();
    let tp = TopicPartition::new(&*name, 0);
    let before = cluster.metadata().current_leader(&tp).unwrap();
    for broker in 1..=3 {
        cluster
            .connection(BrokerId(broker), ConnectionPurpose::Control)
            .await
            .unwrap();
    }
    let victim = u8::try_from(before.broker.0).unwrap();
    let killed = Instant::now();
    kafka.kill(victim);
    let mut changed = cluster.metadata().subscribe();
    let moved = async {
        loop {
            let now = cluster.metadata().current_leader(&tp);
            if now.is_some_and(|now| now.epoch > before.epoch && now.broker != before.broker) {
                return;
            }
            cluster.metadata().request_update_for_topic(&name);
            let _ = timeout(Duration::from_millis(500), changed.changed()).await;
        }
    };
    timeout(PATIENCE, moved)
        .await
        .expect("a new leader in time");
    println!(
        "a new leader was known {:?} after the kill",
        killed.elapsed()
    );
    assert!(
        cluster
            .connection(before.broker, ConnectionPurpose::Control)
            .await
            .is_err()
    );
    assert_eq!(cluster.metadata().last_update_error(), None);
    assert_eq!(topic.id, cluster.metadata().topic(&name).await.unwrap().id);

    kafka.start_broker(victim);
    let back = async {
        while cluster
            .connection(before.broker, ConnectionPurpose::Control)
            .await
            .is_err()
        {
            let _ = cluster.metadata().refresh().await;
        }
    };
    timeout(PATIENCE, back)
        .await
        .expect("the broker is reached again");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_topics_are_listed_by_old_and_new_brokers_and_none_is_kept_up_to_date_for_it() {
    for version in ["2.8", "4.4"] {
        let kafka = tokio::task::block_in_place(|| Kafka::shared(version, 1));
        let cluster = cluster(&kafka);
        let name = unique("listing");
        admin::create_topic(&cluster, &name, 3, 1).await.unwrap();
        let listed = until_listed(&cluster, &name).await;
        assert_eq!(listed.partitions, 3);
        assert!(listed.authorized_operations.may(AclOperation::Read));
        cluster.metadata().refresh().await.unwrap();
        let snapshot = cluster.metadata().snapshot();
        assert!(snapshot.topic(&name).is_none(), "{version}");
        cluster.stop().cancel();
    }
}

/// The topic, as soon as the broker that is asked knows of it.
async fn until_listed(cluster: &Cluster, name: &str) -> admin::TopicListing {
    let mut found = None;
    until_asked("it is listed", async || {
        let topics = admin::list_topics(cluster).await.unwrap();
        assert!(topics.iter().all(|topic| !topic.name.starts_with("__")));
        found = topics.into_iter().find(|topic| &*topic.name == name);
        found.is_some()
    })
    .await;
    found.unwrap()
}
