//! `server.openid-connect.kafka-oauthbearer`: each socket under the user of its token, against a real
//! Apache Kafka that verifies the tokens itself and has ACLs.
//!
//! The proxy runs as alice, by SCRAM. Bob and carol have tokens, and may do what an ACL of the test says.

use std::time::{Duration, SystemTime};

use super::*;
use crate::support::openid_provider::{AUDIENCE, BROKERS_KEY, FakeOpenIdProvider, seconds};
use crate::support::program::{LogLines, Program};
use crate::support::ws_client::{UpgradeRefused, WsClient, let_in};

/// A proxy that presents tokens to the brokers, and the provider of those.
struct TokenScene<'k> {
    kafka: &'k Kafka,
    provider: FakeOpenIdProvider,
    proxy: Program,
    log: LogLines,
}

impl<'k> TokenScene<'k> {
    async fn start(kafka: &'k Kafka, more: &[&str]) -> Self {
        let presenting = ["--openid-connect-kafka-oauthbearer", "true"];
        Self::start_with(kafka, &[&presenting, more].concat()).await
    }

    async fn start_with(kafka: &'k Kafka, more: &[&str]) -> Self {
        let at = kafka.secure();
        let provider = FakeOpenIdProvider::start_for_brokers().await;
        let connecting =
            trusting(sasl_ssl(at), at, "ca.pem").authenticated_by("SCRAM-SHA-256", "alice-secret");
        let url = provider.url();
        let asking = [
            "--openid-connect-enabled",
            "--openid-connect-well-known-url",
            &url,
            "--openid-connect-audience",
            AUDIENCE,
            "--secure-health-check-endpoint",
            "false",
        ];
        let (proxy, log) = connecting.start_with(&[&asking, more].concat());
        proxy.ready().await;
        Self {
            kafka,
            provider,
            proxy,
            log,
        }
    }

    fn topic(&self) -> String {
        let topic = unique("tokens");
        block_in_place(|| self.kafka.create_topic(&topic, 1, 1));
        topic
    }

    fn allow(&self, user: &str, rights: &[[&str; 3]]) {
        let user = format!("User:{user}");
        let args = [&["allow", &user][..], &rights.concat()].concat();
        block_in_place(|| self.kafka.java("Acls.java", &args));
    }

    /// One that the brokers accept, good for so many seconds, which has those claims, too.
    fn token(&self, user: &str, lifetime: u64, more: Value) -> String {
        let now = seconds();
        let mut claims = json!({
            "sub": user, "aud": [AUDIENCE, "kafka"], "iat": now, "exp": now + lifetime,
            "jti": unique("jti"),
        });
        let more = more.as_object().unwrap().clone();
        claims.as_object_mut().unwrap().extend(more);
        self.provider.token_with(BROKERS_KEY, claims)
    }

    async fn open(&self, path: &str, token: &str) -> Result<WsClient, UpgradeRefused> {
        let bearer = format!("Bearer {token}");
        let header = Some(("authorization", bearer.as_str()));
        WsClient::connect_with(&self.proxy.address(), path, header).await
    }

    /// Again until the brokers have heard of the user's rights.
    async fn let_in(&self, path: &str, token: &str) -> WsClient {
        let mut socket = None;
        until_asked(path, async || {
            socket = self.open(path, token).await.ok();
            socket.is_some()
        })
        .await;
        socket.unwrap()
    }

    async fn refused(&self, path: &str, token: &str) -> UpgradeRefused {
        let mut refused = None;
        until_asked("the brokers say who it is", async || {
            refused = self.open(path, token).await.err();
            refused.as_ref().expect("it is refused").status != 503
        })
        .await;
        refused.unwrap()
    }

    async fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.proxy.get("/metrics").await;
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.expect(name).trim().parse().unwrap()
    }
}

fn renew(token: &str) -> String {
    json!({"command": "authenticate", "token": token}).to_string()
}

fn text(value: impl Into<Value>) -> String {
    json!({"value": {"value": value.into()}}).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_has_the_rights_of_the_user_of_its_token_and_of_nobody_else() {
    let (kafka, _at) = cluster();
    let scene = TokenScene::start(&kafka, &[]).await;
    let (topic, group) = (scene.topic(), unique("g"));
    let produce = format!("/socket/in?topic={topic}");
    let consume = format!("/socket/out?topic={topic}&clientId=c&groupId={group}");
    scene.allow("bob", &[["topic", &topic, "write"]]);
    scene.allow(
        "carol",
        &[["topic", &topic, "read"], ["group", &group, "read"]],
    );
    let token = |user: &str| scene.token(user, 3600, json!({}));
    let mut writer = scene.let_in(&produce, &token("bob")).await;
    let mut reader = scene.let_in(&consume, &token("carol")).await;
    assert_eq!(writer.ask(text("v")).await["offset"], 0);
    assert_eq!(reader.next().await["value"]["value"], "v");
    for (path, user, said) in [
        (&consume, "bob", "not authorized to read topic"),
        (&produce, "carol", "not authorized to write to topic"),
        (&produce, "mallory", "not authorized for topic"),
    ] {
        let refused = scene.refused(path, &token(user)).await;
        let expected = format!("parameter topic: {said} {topic}");
        assert_eq!((refused.status, refused.message()), (403, expected));
    }

    // Good for the proxy, but not for the brokers, who look for themselves; bob's other token helps
    // nobody to his client.
    let not_theirs = scene.token("bob", 3600, json!({"aud": AUDIENCE}));
    let nobodys = scene.token("bob", 3600, json!({"sub": null}));
    for (token, said, challenge) in [
        (
            &not_theirs,
            "token: the brokers refuse it",
            "Bearer realm=\"Kafka\", error=\"invalid_token\", \
             error_description=\"token: the brokers refuse it\"",
        ),
        (
            &nobodys,
            "token: it has no sub, by which the brokers could know a user",
            "Bearer realm=\"Kafka\"",
        ),
    ] {
        let refused = scene.refused(&produce, token).await;
        assert_eq!((refused.status, &*refused.message()), (401, said));
        assert_eq!(refused.headers["www-authenticate"], challenge);
    }
    let answer = writer.ask(renew(&not_theirs)).await;
    let error = json!({"code": "not_authorized", "message": "the brokers refuse the token"});
    assert_eq!(answer, json!({"command": "authenticate", "error": error}));
    assert_eq!(writer.ask(text("w")).await["offset"], 1);
    let answer = writer.ask(renew(&token("bob"))).await;
    assert!(answer["expiresAt"].is_u64(), "{answer}");
    assert_eq!(writer.ask(text("x")).await["offset"], 2);
    let line = scene.log.first_with("principal=bob").await;
    assert!(line.contains("socket opened"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tokens_of_a_user_have_one_client_however_many_there_are() {
    let (kafka, _at) = cluster();
    let scene = TokenScene::start(&kafka, &["--limits-principals-max", "1"]).await;
    let topic = scene.topic();
    let produce = format!("/socket/in?topic={topic}");
    for user in ["bob", "carol"] {
        scene.allow(user, &[["topic", &topic, "write"]]);
    }
    let token = |user: &str, lifetime| scene.token(user, lifetime, json!({}));
    let mut sockets = vec![scene.let_in(&produce, &token("bob", 3600)).await];
    for lifetime in [7200, 1800] {
        sockets.push(scene.open(&produce, &token("bob", lifetime)).await.unwrap());
    }
    let carol = token("carol", 3600);
    let refused = scene.open(&produce, &carol).await.err().unwrap();
    assert_eq!(refused.status, 503);
    assert!(refused.message().contains("(server.limits.principals-max)"));
    for mut socket in sockets {
        assert!(socket.ask(text("v")).await["offset"].is_u64());
        socket.close().await;
    }
    let_in(async || scene.open(&produce, &carol).await).await;
}

/// How long each of the tokens is good.
const LIFETIME: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread")]
async fn records_flow_beyond_the_life_of_tokens_that_are_renewed_on_open_sockets() {
    let kafka = block_in_place(|| Kafka::start_secure(&["connections.max.reauth.ms=5000"], true));
    let scene = TokenScene::start(&kafka, &[]).await;
    let (topic, group) = (scene.topic(), unique("g"));
    let produce = format!("/socket/in?topic={topic}&valType=json");
    let consume = format!("/socket/out?topic={topic}&clientId=c&groupId={group}&valType=json");
    scene.allow(
        "bob",
        &[["topic", &topic, "all"], ["group", &group, "read"]],
    );
    let token = || scene.token("bob", LIFETIME.as_secs(), json!({}));
    let mut writer = scene.let_in(&produce, &token()).await;
    let mut reader = scene.let_in(&consume, &token()).await;
    let begin = SystemTime::now();
    let (mut count, mut due) = (0, begin + LIFETIME / 2);
    while SystemTime::now() < begin + LIFETIME * 3 {
        if SystemTime::now() >= due {
            for socket in [&mut writer, &mut reader] {
                let answer = socket.ask(renew(&token())).await;
                assert!(answer["expiresAt"].is_u64(), "{answer}");
            }
            due += LIFETIME / 2;
        }
        assert_eq!(writer.ask(text(count)).await["offset"], count);
        let record = reader.next().await;
        assert_eq!(record["offset"], count);
        assert_eq!(record["value"]["value"], count);
        count += 1;
    }
    assert!(scene.metric("wsproxy_kafka_reauthentications_total ").await >= 6.0);
    for lost in [
        "was lost",
        "not authenticated any more",
        "sockets are closed",
    ] {
        assert_eq!(scene.log.with(lost), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_whose_token_is_not_renewed_ends_with_it_and_asks_the_brokers_nothing_more() {
    let (kafka, _at) = cluster();
    let scene = TokenScene::start(&kafka, &[]).await;
    let (topic, group) = (scene.topic(), unique("g"));
    let consume = format!("/socket/out?topic={topic}&clientId=c&groupId={group}");
    scene.allow(
        "bob",
        &[["topic", &topic, "read"], ["group", &group, "read"]],
    );
    // The brokers learn of the rights.
    let known = scene
        .let_in(&consume, &scene.token("bob", 3600, json!({})))
        .await;
    known.close().await;
    let short = scene.token("bob", LIFETIME.as_secs(), json!({"azp": "another client"}));
    let mut reader = scene.let_in(&consume, &short).await;
    let expired = (1008, "authentication expired".to_owned());
    assert_eq!(reader.closed().await, expired);
    // Once for each of the few connections whose session ended, not for each try to go on.
    let failed = "wsproxy_kafka_authentications_total{result=\"failed\"} ";
    assert!(scene.metric(failed).await <= 10.0);
    let refused = scene.open(&consume, &short).await.err().unwrap();
    assert_eq!(
        (refused.status, refused.message().as_str()),
        (401, "the token has expired")
    );
    scene
        .let_in(&consume, &scene.token("bob", 3600, json!({})))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_of_a_token_are_the_user_and_password_that_brokers_are_shown() {
    let (kafka, _at) = cluster();
    let claims = [
        "--openid-connect-custom-jwt-jwt-kafka-username-key",
        "kafka.user",
        "--openid-connect-custom-jwt-jwt-kafka-password-key",
        "kafka.pass",
        "--openid-connect-custom-jwt-kafka-token-auth-only",
        "true",
    ];
    let scene = TokenScene::start_with(&kafka, &claims).await;
    let topic = scene.topic();
    let produce = format!("/socket/in?topic={topic}");
    scene.allow("bob", &[["topic", &topic, "write"]]);
    let token = |password: &str| {
        let claims = json!({"kafka.user": "bob", "kafka.pass": password});
        scene.token("whoever", 3600, claims)
    };
    let mut writer = scene.let_in(&produce, &token("bob-secret")).await;
    assert_eq!(writer.ask(text("v")).await["offset"], 0);
    let without = scene.token("bob", 3600, json!({}));
    for (token, said) in [
        (
            token("wrong-secret"),
            "token: the brokers refuse the credentials",
        ),
        (
            without,
            "this server takes Kafka credentials from a token only, and there are none in it",
        ),
    ] {
        let refused = scene.refused(&produce, &token).await;
        assert_eq!((refused.status, &*refused.message()), (401, said));
    }
    // Another token with the same claims goes on with the socket, as the same Kafka user.
    let answer = writer.ask(renew(&token("bob-secret"))).await;
    assert!(answer["expiresAt"].is_u64(), "{answer}");
    assert_eq!(writer.ask(text("w")).await["offset"], 1);
    assert!(!scene.log.with("principal=bob").is_empty());
}
