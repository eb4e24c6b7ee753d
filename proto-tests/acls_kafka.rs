//! The ACLs that README.md names: enough for the proxy and its users on a real Apache Kafka that
//! allows nothing else, and what is said where one is missing.
//!
//! The proxy runs as dave. Each test has topics and groups of its own, so that nothing but its own
//! ACLs allows anything there.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::task::block_in_place;

use crate::secure_kafka::{ProxyProperties, cluster, sasl_plaintext};
use crate::support::kafka::{Kafka, unique};
use crate::support::program::{LogLines, Program};
use crate::support::until_asked;
use crate::support::ws_client::{UpgradeRefused, WsClient};

const README: &str = include_str!("../README.md");

/// What the README says that somebody needs on something.
fn operations(who: &str, resource: &str) -> Vec<&'static str> {
    let begin = format!("| {who} | ");
    let row = README.lines().find_map(|line| line.strip_prefix(&begin));
    let mut clauses = row.expect(who).split(';');
    let clause = clauses.find(|clause| clause.contains(resource));
    let words = clause
        .expect(resource)
        .split(|c: char| !c.is_ascii_uppercase() && c != '_');
    let operations: Vec<_> = words.filter(|word| word.len() > 3).collect();
    assert!(!operations.is_empty(), "{who}, {resource}");
    operations
}

/// An ACL: the kind of a resource, its name, and the operation on it.
type Acl<'a> = [&'a str; 3];

fn on<'a>(kind: &'a str, name: &'a str, operations: &[&'a str]) -> Vec<Acl<'a>> {
    let acl = |operation: &&'a str| [kind, name, *operation];
    operations.iter().map(acl).collect()
}

/// A proxy of dave's, and its cluster.
struct AclScene {
    kafka: Arc<Kafka>,
    dave: ProxyProperties,
}

impl AclScene {
    fn new() -> Self {
        let (kafka, at) = cluster();
        let dave = sasl_plaintext(&at).authenticated_as("dave", "SCRAM-SHA-256", "dave-secret");
        Self { kafka, dave }
    }

    fn topic(&self, stem: &str) -> String {
        let topic = unique(stem);
        block_in_place(|| self.kafka.create_topic(&topic, 1, 1));
        topic
    }

    fn allow(&self, user: &str, acls: &[Acl<'_>]) {
        let user = format!("User:{user}");
        let args = [&["allow", &user][..], &acls.concat()].concat();
        block_in_place(|| self.kafka.java("Acls.java", &args));
    }
}

async fn open(proxy: &Program, path: &str, user: Option<&str>) -> Result<WsClient, UpgradeRefused> {
    let credentials = user.map(|user| STANDARD.encode(format!("{user}:{user}-secret")));
    let header = credentials.as_deref().map(|text| ("x-kafka-auth", text));
    WsClient::connect_with(&proxy.address(), path, header).await
}

/// Again until the brokers have heard of the ACLs.
async fn let_in(proxy: &Program, path: &str, user: Option<&str>) -> WsClient {
    let mut socket = None;
    until_asked(path, async || {
        socket = open(proxy, path, user).await.ok();
        socket.is_some()
    })
    .await;
    socket.unwrap()
}

/// Again until a socket is refused so.
async fn refused(proxy: &Program, path: &str, user: Option<&str>, message: &str) {
    until_asked(message, async || match open(proxy, path, user).await {
        Ok(_) => false,
        Err(refused) => refused.status == 403 && refused.message() == message,
    })
    .await;
}

/// A record goes in and comes out by sockets of that user, or without credentials.
async fn passes(proxy: &Program, topic: &str, group: &str, user: Option<&str>) {
    let mut producer = let_in(proxy, &format!("/socket/in?topic={topic}"), user).await;
    let value = unique("v");
    let ack = producer
        .ask(json!({"value": {"value": value}}).to_string())
        .await;
    assert!(ack["offset"].is_u64(), "{ack}");
    let path = format!("/socket/out?topic={topic}&clientId=c&groupId={group}");
    let mut consumer = let_in(proxy, &path, user).await;
    let mut record = Value::Null;
    while record["value"]["value"] != value {
        record = consumer.next().await;
    }
    consumer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_acls_of_the_readme_are_all_that_the_proxy_and_its_users_need() {
    let scene = AclScene::new();
    let (sessions, reports) = (unique("sessions"), unique("reports"));
    let [bobs, own] = ["bobs", "own"].map(|stem| scene.topic(stem));
    let [bobs_group, own_group] = ["g", "g"].map(unique);
    let on_topic = [
        operations("a user who produces", "the topic"),
        operations("a user who consumes", "the topic"),
    ]
    .concat();
    let on_group = operations("a user who consumes", "the group");
    let user =
        |topic, group| [on("topic", topic, &on_topic), on("group", group, &on_group)].concat();
    let of_sessions = on(
        "topic",
        &sessions,
        &operations("the proxy", "the session topic"),
    );
    let who = "its [reporter of metrics](#watch-it)";
    let of_reports = on(
        "topic",
        &reports,
        &operations(who, "the topic of the metrics"),
    );
    scene.allow("dave", &[of_sessions, of_reports].concat());
    scene.allow("bob", &user(&bobs, &bobs_group));

    let reports_to =
        format!("kafka-client.confluent-metrics.properties.interceptor.topic={reports}");
    let reporting = ["--metrics-enabled", "true", "-D", &reports_to];
    let (proxy, log) = scene.dave.start_in(&sessions, &reporting);
    proxy.ready().await;
    passes(&proxy, &bobs, &bobs_group, Some("bob")).await;
    let (status, brokers) = proxy.get("/kafka/cluster/info").await;
    assert_eq!(status, 200, "{brokers}");
    log.first_with("the topic of the metrics was created").await;
    let first = [
        "-C",
        "-t",
        &reports,
        "-o",
        "beginning",
        "-c",
        "1",
        "-f",
        "%k",
    ];
    let key = block_in_place(|| scene.kafka.kcat(&first, b""));
    assert_eq!(key, b"node-1");

    // Without credentials, a socket has the proxy's rights.
    let expected = format!("parameter topic: not authorized for topic {own}");
    for path in [
        format!("/socket/in?topic={own}"),
        format!("/socket/out?topic={own}&clientId=c&groupId={own_group}"),
    ] {
        refused(&proxy, &path, None, &expected).await;
    }
    scene.allow("dave", &user(&own, &own_group));
    passes(&proxy, &own, &own_group, None).await;
    for missing in ["not authorized to", "cannot be", "is not available"] {
        let lines = log.with(missing);
        assert_eq!(lines, Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_may_assign_the_partitions_of_topics_that_it_may_describe() {
    let scene = AclScene::new();
    let sessions = unique("sessions");
    let [bobs, alices] = ["bobs", "alices"].map(|stem| scene.topic(stem));
    let group = unique("g");
    let of_sessions = on(
        "topic",
        &sessions,
        &operations("the proxy", "the session topic"),
    );
    let described = [&bobs, &alices].map(|topic| ["topic", topic, "DESCRIBE"]);
    scene.allow("dave", &[&of_sessions[..], &described].concat());
    let bobs_acls = [
        ["topic", &bobs, "READ"],
        ["topic", &bobs, "WRITE"],
        ["group", &group, "READ"],
    ];
    scene.allow("bob", &bobs_acls);
    let (proxy, _log) = scene.dave.start_in(&sessions, &[]);
    proxy.ready().await;
    // Bob is the leader, and does not see the topic of the other member.
    let path = |topic: &str, client| {
        format!("/socket/out?topic={topic}&clientId={client}&groupId={group}")
    };
    let mut bob = let_in(&proxy, &path(&bobs, "b"), Some("bob")).await;
    let mut alice = let_in(&proxy, &path(&alices, "a"), Some("alice")).await;
    for (topic, user, reader) in [(&bobs, "bob", &mut bob), (&alices, "alice", &mut alice)] {
        let mut producer = let_in(&proxy, &format!("/socket/in?topic={topic}"), Some(user)).await;
        producer
            .ask(json!({"value": {"value": user}}).to_string())
            .await;
        let record = reader.next().await;
        assert_eq!(
            (&record["topic"], &record["value"]["value"]),
            (&json!(topic), &json!(user))
        );
    }
}

/// Waits until `/ready` says that, and the log.
async fn is_said(proxy: &Program, log: &LogLines, said: &str, what: &str) {
    until_asked(said, async || {
        let (status, reasons) = proxy.get("/ready").await;
        status == 503 && reasons.contains(said) && reasons.contains(what)
    })
    .await;
    let lines = log.with(said);
    assert!(
        lines.iter().any(|line| line.contains("WARN")),
        "{said}: {lines:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_proxy_may_not_do_is_said_until_an_acl_allows_it() {
    let scene = AclScene::new();
    for (allowed, missing, said) in [
        (
            &[][..],
            &["READ", "WRITE", "CREATE"][..],
            "not authorized for topic",
        ),
        (
            &["READ", "WRITE"],
            &["CREATE"],
            "not authorized to CREATE topic",
        ),
        (
            &["WRITE", "CREATE"],
            &["READ"],
            "not authorized to read topic",
        ),
        (
            &["READ", "CREATE"],
            &["WRITE"],
            "not authorized to write to topic",
        ),
    ] {
        let sessions = unique("sessions");
        if !allowed.is_empty() {
            scene.allow("dave", &on("topic", &sessions, allowed));
        }
        let detailed = ["-D", "server.expose-broker-addresses=true"];
        let (proxy, log) = scene.dave.start_in(&sessions, &detailed);
        let said = format!("{said} {sessions}");
        is_said(&proxy, &log, &said, "session topic").await;
        scene.allow("dave", &on("topic", &sessions, missing));
        proxy.ready().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_without_credentials_is_told_what_the_proxy_may_not_do() {
    let scene = AclScene::new();
    let (sessions, reports) = (unique("sessions"), unique("reports"));
    let (topic, group) = (scene.topic("own"), unique("g"));
    let of_sessions = on(
        "topic",
        &sessions,
        &operations("the proxy", "the session topic"),
    );
    let may_read = [["topic", topic.as_str(), "READ"]];
    scene.allow("dave", &[&of_sessions[..], &may_read].concat());
    let reports_to =
        format!("kafka-client.confluent-metrics.properties.interceptor.topic={reports}");
    let reporting = ["--metrics-enabled", "true", "-D", &reports_to];
    let (proxy, log) = scene.dave.start_in(&sessions, &reporting);
    proxy.ready().await;

    let mut socket = let_in(&proxy, &format!("/socket/in?topic={topic}"), None).await;
    let answer = socket.ask(r#"{"value":{"value":"v"}}"#).await;
    let expected = format!("not authorized to write to topic {topic}");
    let error = json!({"code": "not_authorized", "message": expected});
    assert_eq!(answer["error"], error);
    let line = log.first_with(&expected).await;
    assert!(
        line.contains("WARN") && line.contains("principal=the proxy"),
        "{line}"
    );

    let path = format!("/socket/out?topic={topic}&clientId=c&groupId={group}");
    let mut socket = let_in(&proxy, &path, None).await;
    let expected = format!("not authorized to use group {group}");
    assert_eq!(socket.closed().await, (1008, expected.clone()));
    let line = log.first_with(&format!("reason=1008 {expected}")).await;
    assert!(line.contains("socket closed"), "{line}");

    // And nobody is disturbed by the reporter's lack.
    let line = log
        .first_with("the metrics cannot be sent to their topic")
        .await;
    assert!(
        line.contains(&format!("not authorized for topic {reports}")),
        "{line}"
    );
    assert_eq!(proxy.get("/ready").await.0, 200);
}
