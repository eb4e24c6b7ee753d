//! Each socket under its own user, against a real Apache Kafka with ACLs: who is refused, and that no
//! user comes by what is another's.
//!
//! The proxy runs as alice, who may do everything. Bob may do what an ACL of the test says.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use futures_util::future::join_all;
use serde_json::json;
use tokio::task::block_in_place;

use crate::secure_kafka::{cluster, sasl_plaintext};
use crate::support::kafka::{Kafka, unique};
use crate::support::program::{LogLines, Program};
use crate::support::until_asked;
use crate::support::ws_client::{UpgradeRefused, WsClient, let_in};

/// A proxy of alice's, and what a test does to its cluster.
struct UserScene<'k> {
    kafka: &'k Kafka,
    proxy: Program,
    log: LogLines,
}

impl<'k> UserScene<'k> {
    async fn start(kafka: &'k Kafka, mechanism: &str, more: &[&str]) -> Self {
        let at = kafka.secure();
        let connecting = sasl_plaintext(at).authenticated_by(mechanism, "alice-secret");
        // A socket that the test does not read for long is not taken for dead.
        let patient = ["--websocket-ping-interval", "10m"];
        let (proxy, log) = connecting.start_with(&[&patient, more].concat());
        proxy.ready().await;
        Self { kafka, proxy, log }
    }

    fn topic(&self, stem: &str) -> String {
        let topic = unique(stem);
        block_in_place(|| self.kafka.create_topic(&topic, 1, 1));
        topic
    }

    fn allow_bob(&self, rights: &[[&str; 3]]) {
        self.change_bobs_rights("allow", rights);
    }

    fn forbid_bob(&self, rights: &[[&str; 3]]) {
        self.change_bobs_rights("forget", rights);
    }

    fn change_bobs_rights(&self, change: &str, rights: &[[&str; 3]]) {
        let args = [&[change, "User:bob"][..], &rights.concat()].concat();
        block_in_place(|| self.kafka.java("Acls.java", &args));
    }

    async fn open(
        &self,
        path: &str,
        user: &str,
        password: &str,
    ) -> Result<WsClient, UpgradeRefused> {
        let credentials = STANDARD.encode(format!("{user}:{password}"));
        self.open_with(path, ("x-kafka-auth", &credentials)).await
    }

    async fn open_with(
        &self,
        path: &str,
        header: (&'static str, &str),
    ) -> Result<WsClient, UpgradeRefused> {
        WsClient::connect_with(&self.proxy.address(), path, Some(header)).await
    }

    /// Again while the brokers do not say in time who it is (503).
    async fn open_when_verified(
        &self,
        path: &str,
        user: &str,
        password: &str,
    ) -> Result<WsClient, UpgradeRefused> {
        let mut opened = None;
        until_asked("the brokers say who it is", async || {
            let answer = self.open(path, user, password).await;
            let is_settled = !answer.as_ref().is_err_and(|refused| refused.status == 503);
            opened = Some(answer);
            is_settled
        })
        .await;
        opened.unwrap()
    }

    async fn connect(&self, path: &str, user: &str) -> WsClient {
        let password = format!("{user}-secret");
        let opened = self.open_when_verified(path, user, &password).await;
        opened.unwrap_or_else(|refused| panic!("{user} {path}: {refused:?}"))
    }

    /// Waits until the brokers have heard of bob's new rights.
    async fn bob_let_in(&self, path: &str) -> WsClient {
        let mut socket = None;
        until_asked("the brokers know what bob may do", async || {
            socket = self.open(path, "bob", "bob-secret").await.ok();
            socket.is_some()
        })
        .await;
        socket.unwrap()
    }

    async fn refused(&self, path: &str, user: &str, password: &str) -> (u16, String) {
        match self.open_when_verified(path, user, password).await {
            Ok(_) => panic!("{user} {path} was accepted"),
            Err(refused) => (refused.status, refused.message()),
        }
    }

    /// Waits until bob is answered so.
    async fn bob_refused(&self, path: &str, status: u16, message: &str) {
        until_asked(message, async || {
            match self.open(path, "bob", "bob-secret").await {
                Ok(_) => false,
                Err(refused) => refused.status == status && refused.message() == message,
            }
        })
        .await;
    }
}

fn text(value: &str) -> String {
    json!({"value": {"value": value}}).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_refused_with_what_is_missing_and_no_secret_is_logged() {
    let (kafka, _at) = cluster();
    for mechanism in ["PLAIN", "SCRAM-SHA-256"] {
        let scene = UserScene::start(&kafka, mechanism, &[]).await;
        let (topic, group) = (scene.topic("refusals"), unique("g"));
        let produce = format!("/socket/in?topic={topic}");
        let consume = format!("/socket/out?topic={topic}&clientId=c&groupId={group}");
        for (user, password) in [
            ("bob", "wrong-secret"),
            ("carol", "bob-secret"),
            ("bob", ""),
        ] {
            for path in [&produce, &consume] {
                let expected = "header X-Kafka-Auth: the brokers refuse the credentials";
                let refused = scene.refused(path, user, password).await;
                assert_eq!(refused, (401, expected.to_owned()));
            }
        }
        let line = scene
            .log
            .first_with("the brokers refuse the credentials")
            .await;
        assert!(
            line.contains("socket refused") && line.contains("status=401"),
            "{line}"
        );
        // Whether it exists or not is told to nobody who may not know.
        for name in [topic.as_str(), "there-is-none"] {
            for path in [
                format!("/socket/in?topic={name}"),
                format!("/socket/out?topic={name}&clientId=c&groupId={group}"),
            ] {
                let expected = format!("parameter topic: not authorized for topic {name}");
                let refused = scene.refused(&path, "bob", "bob-secret").await;
                assert!(refused == (403, expected), "{path}: {refused:?}");
                let mut closing = scene.connect(&format!("{path}&errors=close"), "bob").await;
                assert_eq!(closing.closed().await.0, 4403);
            }
        }
        let (read, write) = (["topic", &topic, "read"], ["topic", &topic, "write"]);
        scene.allow_bob(&[write]);
        let expected = format!("parameter topic: not authorized to read topic {topic}");
        scene.bob_refused(&consume, 403, &expected).await;
        scene.allow_bob(&[read]);
        scene.forbid_bob(&[write]);
        let expected = format!("parameter topic: not authorized to write to topic {topic}");
        scene.bob_refused(&produce, 403, &expected).await;
        let expected = format!("parameter groupId: not authorized to read as group {group}");
        scene.bob_refused(&consume, 403, &expected).await;
        scene.allow_bob(&[write, ["group", &group, "read"]]);
        scene.bob_let_in(&produce).await;
        scene.bob_let_in(&consume).await;
        assert!(
            scene.log.with("principal=bob").len() >= 2,
            "who has a socket is logged"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_taken_from_either_header_and_from_a_sub_protocol() {
    let (kafka, _at) = cluster();
    let scene = UserScene::start(&kafka, "PLAIN", &[]).await;
    let topic = scene.topic("places");
    let path = format!("/socket/in?topic={topic}");
    let [alice, bob] = ["alice:alice-secret", "bob:bob-secret"];
    let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
    let offer = |text: &str| {
        let credentials = URL_SAFE_NO_PAD.encode(text);
        format!("kafka-auth.{credentials}, kafka-websocket-proxy")
    };
    for (name, with_alice, with_bob) in [
        ("authorization", basic(alice), basic(bob)),
        ("sec-websocket-protocol", offer(alice), offer(bob)),
    ] {
        let mut socket = scene
            .open_with(&path, (name, &with_alice))
            .await
            .expect(name);
        assert!(socket.ask(text("v")).await["offset"].is_u64());
        let refused = scene.open_with(&path, (name, &with_bob)).await.err();
        assert_eq!(refused.map(|refused| refused.status), Some(403), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_guesses_are_refused_beside_the_one_who_knows_the_password() {
    let (kafka, _at) = cluster();
    let limit = ["--limits-authentications-max", "4"];
    let scene = UserScene::start(&kafka, "PLAIN", &limit).await;
    let topic = scene.topic("guesses");
    let path = format!("/socket/in?topic={topic}");
    let guesses = join_all((0..12).map(async |guess| {
        let guess = format!("guess-{guess}");
        scene.refused(&path, "alice", &guess).await.0
    }));
    let knows = async {
        let mut socket = scene.connect(&path, "alice").await;
        socket.ask(text("v")).await
    };
    let (guesses, ack) = tokio::join!(guesses, knows);
    assert_eq!(guesses, [401; 12]);
    assert_eq!(ack["offset"], 0);
    let (status, reasons) = scene.proxy.get("/ready").await;
    assert_eq!(
        status, 200,
        "what others guess is not the proxy's fault: {reasons}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_does_not_come_by_what_another_reads_nor_close_anothers_socket() {
    let (kafka, _at) = cluster();
    let scene = UserScene::start(&kafka, "PLAIN", &[]).await;
    let (secret, open, group) = (scene.topic("secret"), scene.topic("open"), unique("g"));
    scene.allow_bob(&[["topic", &open, "read"], ["group", &group, "read"]]);
    let path = |topic: &str| format!("/socket/out?topic={topic}&clientId=c&groupId={group}");
    let mut producer = scene
        .connect(&format!("/socket/in?topic={secret}"), "alice")
        .await;
    producer.ask(text("first")).await;
    // What alice reads is in memory: fetched from the start, and then by the tail.
    let mut alice = scene.connect(&path(&secret), "alice").await;
    assert_eq!(alice.next().await["value"]["value"], "first");
    producer.ask(text("second")).await;
    assert_eq!(alice.next().await["value"]["value"], "second");

    // The same topic, group and client id.
    let expected = format!("parameter topic: not authorized for topic {secret}");
    scene.bob_refused(&path(&secret), 403, &expected).await;
    let both = format!("{open},{secret}");
    scene.bob_refused(&path(&both), 403, &expected).await;
    // The same group and client id, for what he may read: he is no duplicate of hers.
    let mut bob = scene.bob_let_in(&path(&open)).await;
    let mut to_bob = scene
        .connect(&format!("/socket/in?topic={open}"), "alice")
        .await;
    to_bob.ask(text("for bob")).await;
    let record = bob.next().await;
    assert_eq!(
        (&record["topic"], &record["value"]["value"]),
        (&json!(open), &json!("for bob"))
    );
    producer.ask(text("third")).await;
    assert_eq!(
        alice.next().await["value"]["value"],
        "third",
        "and she reads on"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_user_does_can_neither_be_committed_by_another_nor_be_read_in_the_metrics() {
    let (kafka, _at) = cluster();
    let scene = UserScene::start(&kafka, "PLAIN", &[]).await;
    let (topic, group) = (scene.topic("shared"), unique("private-group"));
    scene.allow_bob(&[["topic", &topic, "read"], ["group", &group, "read"]]);
    let of_group = format!("/socket/out?topic={topic}&groupId={group}&autoCommit=false");
    let mut producer = scene
        .connect(&format!("/socket/in?topic={topic}"), "alice")
        .await;
    producer.ask(text("private-value")).await;
    let path = format!("{of_group}&clientId=private-client");
    let mut alice = scene.connect(&path, "alice").await;
    let id = alice.next().await["wsProxyMessageId"].clone();
    alice.close().await;
    // Bob may read it, too; by a socket to which it was not delivered he commits nothing.
    let mut bob = scene.bob_let_in(&format!("{of_group}&clientId=b")).await;
    assert_eq!(
        bob.next().await["wsProxyMessageId"],
        id,
        "alice has committed nothing"
    );
    bob.close().await;
    let empty = scene.topic("empty");
    scene.allow_bob(&[["topic", &empty, "read"]]);
    let path = format!("/socket/out?topic={empty}&groupId={group}&autoCommit=false&clientId=b");
    let mut bob = scene.bob_let_in(&path).await;
    let answer = bob.ask(json!({"wsProxyMessageId": id}).to_string()).await;
    assert_eq!(answer["error"]["code"], "unknown_message_id");

    let (_, metrics) = scene.proxy.get("/metrics").await;
    assert!(
        metrics.contains(&topic),
        "a topic has its series: {metrics}"
    );
    for private in ["private-", "alice", "bob"] {
        assert!(!metrics.contains(private), "{private}: {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_who_may_not_see_the_others_topics_assigns_them_all_the_same() {
    let (kafka, _at) = cluster();
    let scene = UserScene::start(&kafka, "PLAIN", &[]).await;
    let (secret, open, group) = (scene.topic("unseen"), scene.topic("seen"), unique("g"));
    scene.allow_bob(&[["topic", &open, "read"], ["group", &group, "read"]]);
    let path = |topic: &str| format!("/socket/out?topic={topic}&clientId=c&groupId={group}");
    // The first member is the leader.
    let mut bob = scene.bob_let_in(&path(&open)).await;
    let mut to_bob = scene
        .connect(&format!("/socket/in?topic={open}"), "alice")
        .await;
    to_bob.ask(text("for bob")).await;
    assert_eq!(bob.next().await["topic"], open);
    let mut alice = scene.connect(&path(&secret), "alice").await;
    let mut to_alice = scene
        .connect(&format!("/socket/in?topic={secret}"), "alice")
        .await;
    to_alice.ask(text("for alice")).await;
    let record = alice.next().await;
    assert_eq!(
        (&record["topic"], &record["value"]["value"]),
        (&json!(secret), &json!("for alice"))
    );
    to_bob.ask(text("and only that")).await;
    assert_eq!(bob.next().await["value"]["value"], "and only that");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_lost_ends_a_reader_and_refuses_a_writers_records() {
    let (kafka, _at) = cluster();
    let scene = UserScene::start(&kafka, "PLAIN", &[]).await;
    let (topic, group) = (scene.topic("lost"), unique("g"));
    let (read, write) = (["topic", &topic, "read"], ["topic", &topic, "write"]);
    let of_group = ["group", group.as_str(), "read"];
    scene.allow_bob(&[read, write, of_group]);
    let path = format!("/socket/out?topic={topic}&clientId=c&groupId={group}");
    let mut writer = scene.bob_let_in(&format!("/socket/in?topic={topic}")).await;
    let mut reader = scene.bob_let_in(&path).await;
    writer.ask(text("v")).await;
    assert_eq!(reader.next().await["value"]["value"], "v");
    scene.forbid_bob(&[read]);
    let expected = format!("not authorized to read topic {topic}");
    assert_eq!(reader.closed().await, (1008, expected));
    // Though what he may not read is in memory, for one who may.
    let of_alice = format!("/socket/out?topic={topic}&clientId=a");
    let mut alice = scene.connect(&of_alice, "alice").await;
    assert_eq!(alice.next().await["value"]["value"], "v");
    let expected = format!("parameter topic: not authorized to read topic {topic}");
    scene.bob_refused(&path, 403, &expected).await;

    scene.allow_bob(&[read]);
    let mut reader = scene.bob_let_in(&path).await;
    writer.ask(text("w")).await;
    assert_eq!(reader.next().await["value"]["value"], "w");
    scene.forbid_bob(&[of_group]);
    let expected = format!("not authorized to use group {group}");
    assert_eq!(reader.closed().await, (1008, expected));

    scene.forbid_bob(&[write]);
    until_asked("the writer's records are refused", async || {
        writer.ask(text("x")).await["error"]["code"] == "not_authorized"
    })
    .await;
    scene.allow_bob(&[write]);
    until_asked("and its socket is open", async || {
        writer.ask(text("y")).await["offset"].is_u64()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_whose_credentials_are_withdrawn_loses_his_sockets_and_no_others_do() {
    let kafka = block_in_place(|| Kafka::start_secure(&["connections.max.reauth.ms=2000"], true));
    let scene = UserScene::start(&kafka, "SCRAM-SHA-256", &[]).await;
    let topic = scene.topic("withdrawn");
    scene.allow_bob(&[
        ["topic", &topic, "read"],
        ["topic", &topic, "write"],
        ["group", "*", "read"],
    ]);
    let produce = format!("/socket/in?topic={topic}");
    let path = |client: &str| format!("/socket/out?topic={topic}&clientId={client}");
    let mut writer = scene.bob_let_in(&produce).await;
    let mut reader = scene.bob_let_in(&path("bobs")).await;
    let mut alice = scene.connect(&path("alices"), "alice").await;
    let mut alices = scene.connect(&produce, "alice").await;
    writer.ask(text("v")).await;
    assert_eq!(reader.next().await["value"]["value"], "v");
    block_in_place(|| kafka.java("Users.java", &["forget", "bob"]));
    let expected = "the brokers do not accept this socket's Kafka credentials any more";
    assert_eq!(reader.closed().await, (1008, expected.to_owned()));
    assert_eq!(writer.closed().await, (1008, expected.to_owned()));
    assert_eq!(scene.refused(&produce, "bob", "bob-secret").await.0, 401);
    alices.ask(text("w")).await;
    let read = alice.records(2).await;
    assert_eq!(read[1]["value"]["value"], "w");
    assert_eq!(scene.proxy.get("/ready").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_has_as_many_users_as_its_limit_says() {
    let (kafka, _at) = cluster();
    let scene = UserScene::start(&kafka, "PLAIN", &["--limits-principals-max", "1"]).await;
    let topic = scene.topic("many");
    let produce = format!("/socket/in?topic={topic}");
    scene.allow_bob(&[["topic", &topic, "write"]]);
    let alice = scene.connect(&produce, "alice").await;
    let refused = scene
        .open(&produce, "bob", "bob-secret")
        .await
        .err()
        .unwrap();
    assert_eq!(refused.status, 503);
    assert_eq!(refused.headers["retry-after"], "5");
    assert!(refused.message().contains("(server.limits.principals-max)"));
    alice.close().await;
    let_in(async || scene.open(&produce, "bob", "bob-secret").await).await;
}
