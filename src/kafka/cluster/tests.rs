//! A cluster against scripted brokers.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::FutureExt;
use futures_util::future::join_all;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::{
    ApiKey, HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, MetadataRequest,
};
use runtime::mutex::lock;
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::*;
use crate::fake::{self, FakeBroker, FakeResponse, ReceivedRequest};
use crate::metadata::{LeaderAndEpoch, MetadataError};
use crate::topic::TopicPartition;

/// Beyond what anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn config(bootstrap: &[SocketAddr]) -> ClientConfig {
    ClientConfig {
        bootstrap_servers: bootstrap.iter().map(SocketAddr::to_string).collect(),
        request_timeout: Duration::from_secs(10),
        ..ClientConfig::default()
    }
}

fn cluster(bootstrap: &[SocketAddr]) -> Cluster {
    start(config(bootstrap))
}

fn start(config: ClientConfig) -> Cluster {
    Cluster::new(
        config,
        Principal::Proxy,
        TaskTracker::new(),
        CancellationToken::new(),
    )
}

/// What the fake brokers say of the cluster, which a test may change as it goes.
#[derive(Clone, Default)]
struct FakeCluster {
    brokers: Arc<Mutex<Vec<(i32, SocketAddr)>>>,
    topics: Arc<Mutex<Vec<MetadataResponseTopic>>>,
}

impl FakeCluster {
    fn respond(&self, request: &ReceivedRequest) -> FakeResponse {
        match request.key {
            3 => {
                let known = lock(&self.topics).clone();
                let topic = |name: &String| {
                    let is_it =
                        |t: &&MetadataResponseTopic| t.name.as_ref().is_some_and(|n| **n == **name);
                    let known = known.iter().find(is_it).cloned();
                    known.unwrap_or_else(|| fake::topic_error(name, 3))
                };
                let topics = fake::requested_topics(request).iter().map(topic).collect();
                let answer = fake::metadata_response(&lock(&self.brokers), topics);
                fake::response::<MetadataRequest>(request, &answer)
            }
            12 => fake::response::<HeartbeatRequest>(request, &HeartbeatResponse::default()),
            // A JoinGroup parks.
            11 => FakeResponse::Silence,
            _ => FakeResponse::Close,
        }
    }

    async fn start_broker(&self, id: i32) -> FakeBroker {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        self.start_broker_at(id, listener)
    }

    fn start_broker_at(&self, id: i32, listener: TcpListener) -> FakeBroker {
        let fake_cluster = self.clone();
        let broker = FakeBroker::serve(listener, move |request| match request.key {
            18 => fake::api_versions(request),
            _ => fake_cluster.respond(request),
        });
        let mut brokers = lock(&self.brokers);
        brokers.retain(|(other, _)| *other != id);
        brokers.push((id, broker.address));
        broker
    }

    fn set_topics(&self, topics: Vec<MetadataResponseTopic>) {
        *lock(&self.topics) = topics;
    }
}

async fn heartbeat(cluster: &Cluster, broker: i32) -> Result<(), RequestError> {
    let build = |_| HeartbeatRequest::default();
    let purpose = ConnectionPurpose::Heartbeat;
    cluster
        .call(BrokerId(broker), purpose, build, PATIENCE)
        .await
        .map(|_| ())
}

/// Waits for a snapshot that is as it should be.
async fn until(cluster: &Cluster, holds: impl Fn(&crate::metadata::ClusterSnapshot) -> bool) {
    let mut changed = cluster.metadata().subscribe();
    let wait = changed.wait_for(|snapshot| holds(snapshot));
    timeout(PATIENCE, wait).await.expect("in time").unwrap();
}

async fn until_ready(cluster: &Cluster) {
    let ready = async {
        while cluster.metadata().last_update_error().is_some() {
            let _ = cluster.metadata().refresh().await;
        }
    };
    timeout(PATIENCE, ready).await.expect("in time");
}

#[tokio::test]
async fn a_topic_is_found_from_the_bootstrap_address_and_its_leader_reached() {
    let fake_cluster = FakeCluster::default();
    let broker = fake_cluster.start_broker(7).await;
    fake_cluster.set_topics(vec![fake::topic_metadata("t", 1, &[(7, 1)])]);
    let cluster = cluster(&[broker.address]);
    let topic = cluster.metadata().topic("t").await.unwrap();
    assert_eq!(topic.leader(0).unwrap().broker, BrokerId(7));
    assert_eq!(cluster.metadata().last_update_error(), None);
    heartbeat(&cluster, 7).await.unwrap();
    assert_eq!(broker.received_of(ApiKey::Heartbeat).len(), 1);
    cluster.stop().cancel();
    cluster.tasks().close();
    timeout(PATIENCE, cluster.tasks().wait())
        .await
        .expect("tasks end");
    assert_eq!(cluster.connections(), 0);
}

#[tokio::test]
async fn an_unknown_topic_is_an_error_after_two_fresh_answers() {
    let fake_cluster = FakeCluster::default();
    let broker = fake_cluster.start_broker(7).await;
    let cluster = cluster(&[broker.address]);
    until_ready(&cluster).await;
    let before = broker.received_of(ApiKey::Metadata).len();
    let error = cluster.metadata().topic("nope").await.unwrap_err();
    let topic: Arc<str> = "nope".into();
    assert_eq!(error, MetadataError::UnknownTopic { topic });
    let asked = broker.received_of(ApiKey::Metadata);
    let about = asked[before..]
        .iter()
        .filter(|request| fake::requested_topics(request).contains(&"nope".to_owned()));
    assert!(about.count() >= 2);
    // And it is not asked for any more, but found when it comes to be.
    fake_cluster.set_topics(vec![fake::topic_metadata("nope", 1, &[(7, 0)])]);
    cluster.metadata().topic("nope").await.unwrap();
}

#[tokio::test]
async fn a_topic_that_only_one_broker_knows_yet_is_found() {
    let fake_cluster = FakeCluster::default();
    let broker = fake_cluster.start_broker(7).await;
    let ahead = {
        let fake_cluster = fake_cluster.clone();
        FakeBroker::start(move |request| {
            fake_cluster.set_topics(vec![fake::topic_metadata("new", 1, &[(7, 0)])]);
            fake_cluster.respond(request)
        })
        .await
    };
    *lock(&fake_cluster.brokers) = vec![(7, ahead.address)];
    let cluster = cluster(&[broker.address]);
    cluster.metadata().topic("new").await.unwrap();
}

#[tokio::test]
async fn topic_errors_are_reported_as_what_they_are() {
    let fake_cluster = FakeCluster::default();
    let broker = fake_cluster.start_broker(7).await;
    fake_cluster.set_topics(vec![
        fake::topic_error("secret", 29),
        fake::topic_error("b@d", 17),
    ]);
    let cluster = cluster(&[broker.address]);
    let secret = cluster.metadata().topic("secret").await.unwrap_err();
    assert!(matches!(secret, MetadataError::NotAuthorized { .. }));
    let bad = cluster.metadata().topic("b@d").await.unwrap_err();
    assert!(matches!(bad, MetadataError::Invalid { .. }));
}

#[tokio::test]
async fn many_who_ask_at_once_share_a_request() {
    let fake_cluster = FakeCluster::default();
    let broker = fake_cluster.start_broker(7).await;
    fake_cluster.set_topics(vec![
        fake::topic_metadata("t", 1, &[(7, 1)]),
        fake::topic_metadata("u", 2, &[(7, 1)]),
    ]);
    let cluster = cluster(&[broker.address]);
    let metadata = cluster.metadata();
    let names = ["t", "u"];
    let all = join_all((0..200).map(|i| metadata.topic(names[i % 2]))).await;
    assert!(all.iter().all(Result::is_ok));
    for _ in 0..200 {
        metadata.request_update_for_topic("t");
    }
    metadata.refresh().await.unwrap();
    let requests = broker.received_of(ApiKey::Metadata).len();
    assert!(requests <= 5, "{requests}");
}

#[tokio::test]
async fn a_broker_that_hangs_holds_up_no_request_that_another_can_answer() {
    let fake_cluster = FakeCluster::default();
    let answers = fake_cluster.start_broker(7).await;
    let hangs = FakeBroker::start(|_| FakeResponse::Silence).await;
    fake_cluster.set_topics(vec![
        fake::topic_metadata("t", 1, &[(7, 1)]),
        fake::topic_metadata("u", 2, &[(7, 1)]),
    ]);
    // Longer than the test may take.
    let cluster = start(ClientConfig {
        request_timeout: PATIENCE * 9,
        ..config(&[answers.address])
    });
    // The bootstrap address answers; of the brokers that it names the first one hangs.
    lock(&fake_cluster.brokers).insert(0, (8, hangs.address));
    let ask = async {
        while hangs.received_of(ApiKey::Metadata).is_empty() {
            let asked = ["t".into(), "u".into()];
            let found = cluster
                .metadata()
                .topics_refreshed_after(&asked, Instant::now())
                .await;
            assert!(found.iter().all(Result::is_ok));
        }
    };
    timeout(PATIENCE, ask).await.expect("the other one answers");
}

#[tokio::test]
async fn brokers_that_are_absent_at_start_are_found_when_they_come() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let cluster = cluster(&[address]);
    assert!(cluster.metadata().last_update_error().is_some());
    assert!(cluster.metadata().refresh().await.is_err());
    let reason = cluster.metadata().last_update_error().unwrap();
    assert!(reason.contains("cannot be reached"), "{reason}");
    // Somebody waits while it comes.
    let waiting = {
        let cluster = cluster.clone();
        tokio::spawn(async move { cluster.metadata().topic("t").await })
    };
    let fake_cluster = FakeCluster::default();
    fake_cluster.set_topics(vec![fake::topic_metadata("t", 1, &[(7, 1)])]);
    let _broker = fake_cluster.start_broker_at(7, TcpListener::bind(address).await.unwrap());
    waiting.await.unwrap().unwrap();
    assert_eq!(cluster.metadata().last_update_error(), None);
}

/// Waits until it is known whether the cluster answers, without asking it for anything.
async fn until_known(cluster: &Cluster, answers: bool) {
    let known = async {
        while cluster.metadata().last_update_error().is_none() != answers {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, known).await.expect("it is noticed");
}

#[tokio::test]
async fn an_idle_cluster_is_known_to_have_gone_and_to_be_back_without_being_asked_for_anything() {
    let fake_cluster = FakeCluster::default();
    let broker = fake_cluster.start_broker(7).await;
    let address = broker.address;
    let cluster = cluster(&[address]);
    until_ready(&cluster).await;
    assert!(cluster.metadata().outage().now_or_never().is_none());
    drop(broker);
    until_known(&cluster, false).await;
    assert!(cluster.metadata().outage().now_or_never().is_some());
    let _broker = fake_cluster.start_broker_at(7, TcpListener::bind(address).await.unwrap());
    until_known(&cluster, true).await;
    assert!(cluster.metadata().outage().now_or_never().is_none());
}

#[tokio::test]
async fn an_idle_cluster_that_hangs_is_suspected_while_a_request_is_under_way() {
    let fake_cluster = FakeCluster::default();
    let hangs = Arc::new(AtomicBool::new(false));
    let broker = FakeBroker::start({
        let (fake_cluster, hangs) = (fake_cluster.clone(), Arc::clone(&hangs));
        move |request| match request.key {
            _ if hangs.load(Ordering::Relaxed) => FakeResponse::Silence,
            18 => fake::api_versions(request),
            _ => fake_cluster.respond(request),
        }
    })
    .await;
    *lock(&fake_cluster.brokers) = vec![(7, broker.address)];
    let cluster = start(ClientConfig {
        // Longer than the test may take.
        connect_timeout: PATIENCE * 9,
        ..config(&[broker.address])
    });
    until_ready(&cluster).await;
    hangs.store(true, Ordering::Relaxed);
    until_known(&cluster, false).await;
    assert!(cluster.metadata().outage().now_or_never().is_some());
}

#[tokio::test]
async fn a_cluster_that_has_never_answered_may_be_starting() {
    let cluster = cluster(&[]);
    assert!(cluster.metadata().refresh().await.is_err());
    assert!(cluster.metadata().last_update_error().is_some());
    assert!(cluster.metadata().outage().now_or_never().is_none());
}

#[tokio::test]
async fn a_topic_cannot_be_had_while_nobody_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = ClientConfig {
        request_timeout: Duration::from_millis(300),
        ..config(&[listener.local_addr().unwrap()])
    };
    drop(listener);
    let error = start(config).metadata().topic("t").await.unwrap_err();
    assert!(
        matches!(error, MetadataError::Unavailable { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn every_bootstrap_address_is_tried() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = listener.local_addr().unwrap();
    drop(listener);
    let fake_cluster = FakeCluster::default();
    let broker = fake_cluster.start_broker(7).await;
    let cluster = cluster(&[gone, broker.address]);
    until_ready(&cluster).await;
    heartbeat(&cluster, 7).await.unwrap();
}

#[tokio::test]
async fn a_bootstrap_address_that_hangs_does_not_hold_up_the_start() {
    let fake_cluster = FakeCluster::default();
    // As a broker that was stopped: it takes connections, and says nothing on them.
    let hangs = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let broker = fake_cluster.start_broker(7).await;
    let cluster = start(ClientConfig {
        // Longer than the test may take.
        connect_timeout: PATIENCE * 9,
        ..config(&[hangs.local_addr().unwrap(), broker.address])
    });
    until_ready(&cluster).await;
    let build = |_version| {
        let request = MetadataRequest::default().with_topics(Some(Vec::new()));
        request.with_allow_auto_topic_creation(false)
    };
    let answer = timeout(PATIENCE, cluster.call_any(build, PATIENCE));
    answer.await.expect("in time").unwrap();
}

#[tokio::test]
async fn a_stop_in_the_middle_of_an_update_is_no_warning() {
    let warnings = fake::Warnings::collect();
    let fake_cluster = FakeCluster::default();
    let broker = {
        let fake_cluster = fake_cluster.clone();
        FakeBroker::start(move |request| {
            let asks_for_topics = request.key == 3 && !fake::requested_topics(request).is_empty();
            match asks_for_topics {
                true => FakeResponse::Silence,
                false => fake_cluster.respond(request),
            }
        })
        .await
    };
    *lock(&fake_cluster.brokers) = vec![(7, broker.address)];
    let cluster = cluster(&[broker.address]);
    until_ready(&cluster).await;
    let before = broker.received_of(ApiKey::Metadata).len();
    let search = {
        let cluster = cluster.clone();
        tokio::spawn(async move { cluster.metadata().topic("t").await })
    };
    while broker.received_of(ApiKey::Metadata).len() == before {
        tokio::task::yield_now().await;
    }
    cluster.stop().cancel();
    cluster.tasks().close();
    let ended = timeout(PATIENCE, cluster.tasks().wait()).await;
    ended.expect("tasks end");
    search.abort();
    assert_eq!(warnings.count_of(""), 0);
}

#[tokio::test]
async fn a_call_that_is_repeated_takes_no_longer_than_its_timeout() {
    let fake_cluster = FakeCluster::default();
    let (throttled, silent) = (AtomicBool::new(false), AtomicBool::new(false));
    let (throttled, silent) = (Arc::new(throttled), Arc::new(silent));
    let broker = {
        let (fake_cluster, throttled, silent) = (
            fake_cluster.clone(),
            Arc::clone(&throttled),
            Arc::clone(&silent),
        );
        FakeBroker::start(move |request| match request.key {
            12 if silent.load(Ordering::SeqCst) => FakeResponse::Silence,
            12 => {
                throttled.store(true, Ordering::SeqCst);
                // Nothing is written for longer than the test may take.
                let answer = HeartbeatResponse::default().with_throttle_time_ms(i32::MAX);
                fake::response::<HeartbeatRequest>(request, &answer)
            }
            _ => fake_cluster.respond(request),
        })
        .await
    };
    *lock(&fake_cluster.brokers) = vec![(7, broker.address)];
    let cluster = cluster(&[broker.address]);
    until_ready(&cluster).await;
    heartbeat(&cluster, 7).await.unwrap();
    assert!(throttled.load(Ordering::SeqCst));
    silent.store(true, Ordering::SeqCst);
    let id = BrokerId(7);
    let purpose = ConnectionPurpose::Heartbeat;
    let connection = cluster.connection(id, purpose).await.unwrap();
    let given = Duration::from_secs(2);
    let call = cluster.call(id, purpose, |_| HeartbeatRequest::default(), given);
    let lose = async {
        while connection.in_flight() == 0 {
            tokio::task::yield_now().await;
        }
        // A part of its time has passed.
        let queued_at = Instant::now();
        while queued_at.elapsed() < given / 8 {
            tokio::task::yield_now().await;
        }
        connection.close("for the test");
    };
    let (result, ()) = tokio::join!(call, lose);
    let error = result.unwrap_err();
    assert!(
        matches!(error, RequestError::TimedOut { after, .. } if after <= given - given / 8),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_cluster_that_moved_away_is_found_through_the_bootstrap_addresses_again() {
    let fake_cluster = FakeCluster::default();
    let entry = fake_cluster.start_broker(1).await;
    let first = fake_cluster.start_broker(7).await;
    *lock(&fake_cluster.brokers) = vec![(7, first.address)];
    let cluster = cluster(&[entry.address]);
    until_ready(&cluster).await;
    heartbeat(&cluster, 7).await.unwrap();
    // Every broker that is known goes; the entry knows the new one.
    let second = fake_cluster.start_broker(8).await;
    *lock(&fake_cluster.brokers) = vec![(8, second.address)];
    drop(first);
    until(&cluster, |snapshot| snapshot.broker(BrokerId(8)).is_some()).await;
    assert!(heartbeat(&cluster, 7).await.is_err());
    heartbeat(&cluster, 8).await.unwrap();
}

#[tokio::test]
async fn metadata_is_requested_at_once_when_a_broker_is_lost() {
    let fake_cluster = FakeCluster::default();
    let stays = fake_cluster.start_broker(1).await;
    let goes = fake_cluster.start_broker(2).await;
    fake_cluster.set_topics(vec![fake::topic_metadata("t", 1, &[(2, 1)])]);
    let cluster = cluster(&[stays.address]);
    cluster.metadata().topic("t").await.unwrap();
    heartbeat(&cluster, 2).await.unwrap();
    fake_cluster.set_topics(vec![fake::topic_metadata("t", 1, &[(1, 2)])]);
    drop(goes);
    let tp = TopicPartition::new("t", 0);
    until(&cluster, |s| {
        s.topic("t").unwrap().leader(0).unwrap().epoch == 2
    })
    .await;
    assert_eq!(
        cluster.metadata().current_leader(&tp).unwrap().broker,
        BrokerId(1)
    );
}

#[tokio::test]
async fn a_newer_leader_from_another_response_is_taken_at_once() {
    let fake_cluster = FakeCluster::default();
    let broker = fake_cluster.start_broker(1).await;
    let other = fake_cluster.start_broker(2).await;
    *lock(&fake_cluster.brokers) = vec![(1, broker.address)];
    fake_cluster.set_topics(vec![fake::topic_metadata("t", 1, &[(1, 1)])]);
    let cluster = cluster(&[broker.address]);
    cluster.metadata().topic("t").await.unwrap();
    let tp = TopicPartition::new("t", 0);
    let leader = LeaderAndEpoch {
        broker: BrokerId(2),
        epoch: 2,
    };
    let endpoint = crate::metadata::BrokerNode {
        id: BrokerId(2),
        host: "127.0.0.1".into(),
        port: other.address.port(),
        rack: None,
    };
    cluster.metadata().update_partition_leadership(
        &tp,
        uuid::Uuid::from_u128(1),
        leader,
        Some(endpoint),
    );
    assert_eq!(cluster.metadata().current_leader(&tp), Some(leader));
    heartbeat(&cluster, 2).await.unwrap();
}

#[tokio::test]
async fn a_call_survives_a_connection_that_was_closed_in_between() {
    let fake_cluster = FakeCluster::default();
    let broker = fake_cluster.start_broker(7).await;
    let cluster = cluster(&[broker.address]);
    until_ready(&cluster).await;
    for _ in 0..3 {
        heartbeat(&cluster, 7).await.unwrap();
        let purpose = ConnectionPurpose::Heartbeat;
        let connection = cluster.connection(BrokerId(7), purpose).await.unwrap();
        connection.close("for the test");
    }
    assert_eq!(broker.received_of(ApiKey::Heartbeat).len(), 3);
}

#[tokio::test]
async fn a_broker_that_nobody_knows_is_unreachable() {
    let fake_cluster = FakeCluster::default();
    let broker = fake_cluster.start_broker(7).await;
    let cluster = cluster(&[broker.address]);
    until_ready(&cluster).await;
    let error = heartbeat(&cluster, 99).await.unwrap_err();
    assert!(matches!(error, RequestError::Unreachable { .. }), "{error}");
}

/// Sends a JoinGroup that parks.
async fn park(
    exclusive: &JoinConnection,
) -> crate::net::connection::ResponseFuture<JoinGroupRequest> {
    let request = JoinGroupRequest::default();
    exclusive.send(5, &request, PATIENCE).await.unwrap()
}

#[tokio::test]
async fn exclusive_connections_are_reused_unless_a_request_is_parked_on_them() {
    let fake_cluster = FakeCluster::default();
    let broker = fake_cluster.start_broker(7).await;
    let cluster = cluster(&[broker.address]);
    until_ready(&cluster).await;
    let before = cluster.connections();
    for _ in 0..20 {
        let one = cluster.join_connection(BrokerId(7), "g").await.unwrap();
        let beat = one.call(|_| HeartbeatRequest::default(), PATIENCE);
        beat.await.unwrap();
    }
    assert_eq!(cluster.connections(), before + 1);

    let parked = cluster.join_connection(BrokerId(7), "g").await.unwrap();
    let _reply = park(&parked).await;
    let connection = (*parked).clone();
    drop(parked);
    timeout(PATIENCE, connection.closed())
        .await
        .expect("it is closed");
    let next = cluster.join_connection(BrokerId(7), "g").await.unwrap();
    assert!(!next.is_closed());
}

#[tokio::test]
async fn a_thousand_groups_share_exclusive_connections() {
    let fake_cluster = FakeCluster::default();
    let broker = fake_cluster.start_broker(7).await;
    let cluster = cluster(&[broker.address]);
    until_ready(&cluster).await;
    let join = |i: i32| {
        let cluster = &cluster;
        async move {
            let group = format!("g{i}");
            let one = cluster.join_connection(BrokerId(7), &group).await.unwrap();
            let beat = one.call(|_| HeartbeatRequest::default(), PATIENCE);
            beat.await.unwrap();
            cluster.connections()
        }
    };
    let open = join_all((0..1000).map(join)).await;
    // How many depends on how fast the broker answers: see `join_limiter`.
    assert!(open.into_iter().max().unwrap() < 500);
    assert_eq!(broker.received_of(ApiKey::Heartbeat).len(), 1000);
}

#[tokio::test]
async fn all_members_of_a_group_may_park_at_once() {
    let fake_cluster = FakeCluster::default();
    let broker = fake_cluster.start_broker(7).await;
    let cluster = cluster(&[broker.address]);
    until_ready(&cluster).await;
    let enter = || cluster.join_connection(BrokerId(7), "g");
    let all = timeout(PATIENCE, join_all((0..30).map(|_| enter()))).await;
    let mut parked = Vec::new();
    for exclusive in all.expect("nobody waits for another") {
        let exclusive = exclusive.unwrap();
        let reply = park(&exclusive).await;
        parked.push((exclusive, reply));
    }
    assert!((30..=32).contains(&cluster.connections()));
}

/// Compiles only if tasks may be moved between threads while they wait for these.
#[allow(dead_code)]
fn everything_may_be_awaited_in_a_task(cluster: &Cluster, connection: &Connection) {
    fn assert_send(_: impl Send) {}
    assert_send(cluster.metadata().topic("t"));
    assert_send(cluster.metadata().refresh());
    assert_send(cluster.connection(BrokerId(1), ConnectionPurpose::Control));
    assert_send(cluster.join_connection(BrokerId(1), "g"));
    assert_send(cluster.call_any(|_| MetadataRequest::default(), PATIENCE));
    assert_send(heartbeat(cluster, 1));
    assert_send(connection.send(4, &HeartbeatRequest::default(), PATIENCE));
    assert_send(connection.closed());
    assert_send(crate::admin::create_topic(cluster, "t", 1, 1));
}

#[tokio::test(start_paused = true)]
async fn asking_for_an_unlisted_broker_in_a_loop_does_not_spin() {
    let cluster = cluster(&[]);
    let started = Instant::now();
    for _ in 0..10 {
        let error = cluster
            .connection(BrokerId(5), ConnectionPurpose::Control)
            .await;
        assert!(matches!(error, Err(RequestError::Unreachable { .. })));
    }
    assert!(started.elapsed() >= cluster.config().reconnect_backoff * 10);
    cluster.stop().cancel();
}
