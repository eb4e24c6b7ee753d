//! Consumer groups as the admin server tells and changes them, in front of the in-memory broker.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use kafka_client::admin::groups::{GroupAdmin, GroupOffset};
use kafka_client::config::ClientConfig;
use kafka_client::{BrokerId, Cluster, Principal, TopicPartition};
use memory_broker::{ApiKey, BrokerConfig, FaultAction, FaultRule, KafkaRelease, MemoryBroker};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::support::http::{HttpAnswer, ask, send};
use crate::support::proxy::Proxy;
use crate::support::ws_client::WsClient;
use crate::support::{until, until_asked};

const GROUP: &str = "/admin/consumer-group/g";

async fn proxy_on(broker: BrokerConfig) -> Proxy {
    let broker = BrokerConfig {
        initial_rebalance_delay: Duration::ZERO,
        ..broker
    };
    Proxy::with_broker(broker, |config| config.server.admin.enabled = true).await
}

async fn at_admin(proxy: &Proxy, method: &str, path: &str) -> HttpAnswer {
    ask(&proxy.admin_address, method, path, &[]).await
}

/// What a GET of it answers, which must be 200.
async fn get_json(proxy: &Proxy, path: &str) -> Value {
    let answer = at_admin(proxy, "GET", path).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    serde_json::from_str(&answer.body).unwrap()
}

async fn put(proxy: &Proxy, path: &str, body: &Value) -> HttpAnswer {
    send(&proxy.admin_address, "PUT", path, &[], &body.to_string()).await
}

/// A member of group `g` that has committed two of the five records of each of two partitions.
async fn reader_that_committed(proxy: &Proxy) -> WsClient {
    proxy.topic("t", 2);
    proxy.produce(2, 5).await;
    let path = "/socket/out?topic=t&groupId=g&clientId=c&autoCommit=false";
    let mut reader = proxy.connect(path).await;
    let records = reader.records(10).await;
    for partition in 0..2 {
        let is_second = |r: &&Value| r["partition"] == partition && r["offset"] == 1;
        let id = &records.iter().find(is_second).unwrap()["wsProxyMessageId"];
        reader
            .send(json!({"wsProxyMessageId": id}).to_string())
            .await;
        let tp = TopicPartition::new("t", partition);
        until("a commit", || proxy.broker.committed("g", &tp) == Some(2)).await;
    }
    reader
}

fn offset(partition: i32, offset: i64, metadata: &str) -> Value {
    json!({
        "topic": "t", "partition": partition, "offset": offset, "metadata": metadata,
        "logEndOffset": 5, "lag": 5 - offset,
    })
}

/// Waits until the group has no members.
async fn until_left(proxy: &Proxy) {
    until_asked("left", async || {
        get_json(proxy, &format!("{GROUP}/describe")).await["state"] == "EMPTY"
    })
    .await;
}

#[tokio::test]
async fn a_group_is_told_with_its_members_and_its_offsets_with_their_lag() {
    let proxy = proxy_on(BrokerConfig::default()).await;
    let reader = reader_that_committed(&proxy).await;
    let listed = get_json(&proxy, "/admin/consumer-group/all").await;
    assert_eq!(listed[0]["groupId"], "g");
    assert_eq!(listed[0]["isSimple"], false);
    assert_eq!(listed[0]["state"], "STABLE");
    assert_eq!(listed[0]["members"].as_array().unwrap().len(), 1);
    let described = get_json(&proxy, &format!("{GROUP}/describe")).await;
    assert_eq!(described["state"], "STABLE");
    assert!(!described["partitionAssignor"].as_str().unwrap().is_empty());
    let member = &described["members"][0];
    assert_eq!(member["instanceId"], "c");
    assert_eq!(member["host"], "127.0.0.1");
    let all = json!([{"topic": "t", "partition": 0}, {"topic": "t", "partition": 1}]);
    assert_eq!(member["partitions"], all);
    let offsets = get_json(&proxy, &format!("{GROUP}/offsets")).await;
    assert_eq!(offsets, json!([offset(0, 2, ""), offset(1, 2, "")]));
    reader.close().await;
    proxy.stopped().await;
}

#[tokio::test]
async fn offsets_are_set_and_forgotten_once_the_members_have_left() {
    let proxy = proxy_on(BrokerConfig::default()).await;
    let reader = reader_that_committed(&proxy).await;
    let (offsets, alter) = (
        format!("{GROUP}/offsets"),
        format!("{GROUP}/offsets/alter/t"),
    );
    let new = json!([
        {"topic": "t", "partition": 1, "offset": 5, "metadata": "to the end", "lag": 77},
        {"topic": "t", "partition": 0, "offset": 0},
    ]);
    assert_eq!(put(&proxy, &alter, &new).await.status, 412);
    assert_eq!(at_admin(&proxy, "DELETE", &offsets).await.status, 412);
    reader.close().await;
    until_left(&proxy).await;
    let answer = put(&proxy, &alter, &new).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let expected = json!([offset(0, 0, ""), offset(1, 5, "to the end")]);
    let answer: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(answer, expected);
    assert_eq!(get_json(&proxy, &offsets).await, expected);
    // The group goes on from there.
    let path = "/socket/out?topic=t&groupId=g&clientId=c&autoCommit=false";
    let mut reader = proxy.connect(path).await;
    let records = reader.records(5).await;
    assert!(records.iter().all(|r| r["partition"] == 0), "{records:?}");
    reader.close().await;
    until_left(&proxy).await;
    let answer = at_admin(&proxy, "DELETE", &offsets).await;
    assert_eq!((answer.status, &*answer.body), (200, "[]"));
    assert_eq!(get_json(&proxy, &offsets).await, json!([]));
    proxy.stopped().await;
}

#[tokio::test]
async fn a_wrong_offset_is_named_and_nothing_is_changed() {
    let proxy = proxy_on(BrokerConfig::default()).await;
    reader_that_committed(&proxy).await.close().await;
    until_left(&proxy).await;
    let alter = format!("{GROUP}/offsets/alter/t");
    let good = json!({"topic": "t", "partition": 0, "offset": 1});
    let long = "m".repeat(5_000);
    for (wrong, said) in [
        (
            json!({"topic": "t", "partition": 1, "offset": 6}),
            "entry 2",
        ),
        (
            json!({"topic": "t", "partition": 2, "offset": 0}),
            "entry 2",
        ),
        (
            json!({"topic": "u", "partition": 1, "offset": 0}),
            "entry 2",
        ),
        (
            json!({"topic": "t", "partition": 1, "offset": 0, "metadata": long}),
            "t-1",
        ),
    ] {
        let answer = put(&proxy, &alter, &json!([good, wrong])).await;
        assert_eq!(answer.status, 400, "{}", answer.body);
        assert!(answer.message().contains(said), "{}", answer.body);
        let offsets = get_json(&proxy, &format!("{GROUP}/offsets")).await;
        assert_eq!(offsets, json!([offset(0, 2, ""), offset(1, 2, "")]));
    }
    let unknown = format!("{GROUP}/offsets/alter/unknown");
    let of_unknown = json!([{"topic": "unknown", "partition": 0, "offset": 0}]);
    assert_eq!(put(&proxy, &unknown, &of_unknown).await.status, 404);
    proxy.stopped().await;
}

#[tokio::test]
async fn a_group_that_there_is_not_is_not_found() {
    for release in [KafkaRelease::V2_1, KafkaRelease::V3_9, KafkaRelease::V4] {
        let proxy = proxy_on(BrokerConfig {
            versions: release.versions(),
            ..BrokerConfig::default()
        })
        .await;
        proxy.topic("t", 1);
        for (method, path) in [
            ("GET", "describe"),
            ("GET", "offsets"),
            ("DELETE", "offsets"),
        ] {
            let answer = at_admin(&proxy, method, &format!("{GROUP}/{path}")).await;
            assert_eq!(answer.status, 404, "{release:?} {method} {path}");
            assert!(answer.message().contains("\"g\""));
        }
        let new = json!([{"topic": "t", "partition": 0, "offset": 0}]);
        let answer = put(&proxy, &format!("{GROUP}/offsets/alter/t"), &new).await;
        assert_eq!(answer.status, 404);
        assert_eq!(
            get_json(&proxy, "/admin/consumer-group/all").await,
            json!([])
        );
        proxy.stopped().await;
    }
}

/// Asks the proxy's broker, as another program.
fn group_admin(broker: &MemoryBroker) -> (GroupAdmin, CancellationToken) {
    let stop = CancellationToken::new();
    let config = ClientConfig {
        bootstrap_servers: broker.bootstrap().split(',').map(str::to_owned).collect(),
        ..ClientConfig::default()
    };
    let tasks = TaskTracker::new();
    let cluster = Cluster::new(config, Principal::Proxy, tasks, stop.clone());
    (GroupAdmin::new(cluster), stop)
}

/// Groups without members that have committed something.
async fn simple_groups(admin: &GroupAdmin, names: impl Iterator<Item = String>) {
    let names: Vec<_> = names.collect();
    let committed = [GroupOffset {
        tp: TopicPartition::new("t", 0),
        offset: 0,
        metadata: "".into(),
    }];
    for names in names.chunks(50) {
        let commit = async |name: &String| {
            let group: Arc<str> = name.as_str().into();
            admin.alter_offsets(&group, &committed).await.unwrap();
        };
        join_all(names.iter().map(commit)).await;
    }
}

#[tokio::test]
async fn ids_of_any_characters_are_reached_by_what_they_are_encoded_as() {
    let proxy = proxy_on(BrokerConfig::default()).await;
    proxy.topic("t", 1);
    let (admin, stop) = group_admin(&proxy.broker);
    let names = ["a/b", "ü%?#", "..", "all", "{\"x\"}"];
    simple_groups(&admin, names.iter().map(|name| (*name).to_owned())).await;
    for (name, encoded) in [
        ("a/b", "a%2Fb"),
        ("ü%?#", "%C3%BC%25%3F%23"),
        ("..", ".."),
        ("all", "all"),
        ("{\"x\"}", "%7B%22x%22%7D"),
    ] {
        let path = format!("/admin/consumer-group/{encoded}/describe");
        let described = get_json(&proxy, &path).await;
        assert_eq!(described["groupId"], name);
        assert_eq!(described["isSimple"], true);
        assert_eq!(described["members"], json!([]));
    }
    stop.cancel();
    proxy.stopped().await;
}

#[tokio::test]
async fn empty_and_internal_groups_are_listed_as_the_parameters_say() {
    let proxy = proxy_on(BrokerConfig::default()).await;
    let reader = reader_that_committed(&proxy).await;
    let (admin, stop) = group_admin(&proxy.broker);
    let names = ["__internal", "empty"].map(str::to_owned);
    simple_groups(&admin, names.into_iter()).await;
    let listed = async |query: &str| {
        let all = get_json(&proxy, &format!("/admin/consumer-group/all{query}")).await;
        let groups = all.as_array().unwrap().iter();
        let mut names: Vec<_> = groups
            .map(|group| group["groupId"].as_str().unwrap().to_owned())
            .collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!(listed("").await, "empty g");
    assert_eq!(listed("?activeOnly=true").await, "g");
    assert_eq!(listed("?includeInternals=true").await, "__internal empty g");
    assert_eq!(listed("?activeOnly=true&includeInternals=true").await, "g");
    let path = "/admin/consumer-group/all?activeOnly=1";
    assert_eq!(at_admin(&proxy, "GET", path).await.status, 400);
    stop.cancel();
    reader.close().await;
    proxy.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_groups_are_listed_whole_while_their_coordinators_move() {
    const GROUPS: usize = 3_000;
    let proxy = proxy_on(BrokerConfig {
        nodes: 3,
        ..BrokerConfig::default()
    })
    .await;
    proxy.topic("t", 1);
    let (admin, stop) = group_admin(&proxy.broker);
    simple_groups(&admin, (0..GROUPS).map(|n| format!("g{n}"))).await;
    // What was listed at one broker is another's when it is described.
    let moved = FaultRule::on(ApiKey::DescribeGroups, FaultAction::Error(16));
    proxy.broker.faults().add(moved.times(5));
    let loads = FaultRule::on(ApiKey::ListGroups, FaultAction::Error(14));
    proxy.broker.faults().add(loads.times(2));
    for n in 0..GROUPS / 10 {
        let node = BrokerId(n as i32 % 3 + 1);
        proxy.broker.move_coordinator(&format!("g{n}"), node);
    }
    let all = get_json(&proxy, "/admin/consumer-group/all").await;
    let mut names: Vec<_> = all
        .as_array()
        .unwrap()
        .iter()
        .map(|group| group["groupId"].as_str().unwrap())
        .collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), GROUPS);
    stop.cancel();
    proxy.stopped().await;
}

#[tokio::test]
async fn a_broker_that_describes_no_group_holds_up_no_socket() {
    let broker = BrokerConfig {
        initial_rebalance_delay: Duration::ZERO,
        ..BrokerConfig::default()
    };
    let proxy = Proxy::with_broker(broker, |config| {
        config.server.admin.enabled = true;
        config.admin.request_timeout = Some(Duration::from_millis(500));
    })
    .await;
    let mut reader = reader_that_committed(&proxy).await;
    for api in [ApiKey::DescribeGroups, ApiKey::ListGroups] {
        let silent = FaultRule::on(api, FaultAction::Silence).always();
        proxy.broker.faults().add(silent);
    }
    let all = "/admin/consumer-group/all";
    let (listed, described, ()) = tokio::join!(
        at_admin(&proxy, "GET", all),
        async { at_admin(&proxy, "GET", &format!("{GROUP}/describe")).await },
        async {
            proxy.produce(2, 50).await;
            reader.records(100).await;
        }
    );
    assert_eq!((listed.status, described.status), (503, 503));
    // Nor an administrator, once it answers again.
    proxy.broker.faults().clear();
    until_asked("an answer", async || {
        at_admin(&proxy, "GET", all).await.status == 200
    })
    .await;
    proxy.stopped().await;
}

#[tokio::test]
async fn offsets_of_a_topic_that_is_gone_are_no_fault() {
    let proxy = proxy_on(BrokerConfig::default()).await;
    proxy.topic("t", 1);
    proxy.topic("other", 1);
    let (admin, stop) = group_admin(&proxy.broker);
    simple_groups(&admin, std::iter::once("g".to_owned())).await;
    assert!(proxy.broker.delete_topic("t"));
    assert_eq!(
        get_json(&proxy, &format!("{GROUP}/offsets")).await,
        json!([])
    );
    let new = json!([{"topic": "t", "partition": 0, "offset": 0}]);
    let alter = format!("{GROUP}/offsets/alter/t");
    assert_eq!(put(&proxy, &alter, &new).await.status, 404);
    stop.cancel();
    proxy.stopped().await;
}
