//! `server.openid-connect.*`: who may connect with a token of an OpenID provider, and for how long.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use kafka_websocket_proxy::config::Config;
use secret::Secret;
use serde_json::json;

use crate::support::http::ask;
use crate::support::openid_provider::{
    AUDIENCE, FIRST_KEY, FakeOpenIdProvider, SECOND_KEY, seconds,
};
use crate::support::program::Program;
use crate::support::proxy::Proxy;
use crate::support::until_asked;
use crate::support::ws_client::{UpgradeRefused, WsClient};

const IN: &str = "/socket/in?topic=t";
const OUT: &str = "/socket/out?topic=t&clientId=c";
const RECORD: &str = r#"{"value":{"value":"x"}}"#;
const OFFERED: &str = "sec-websocket-protocol";
const EXPIRED: (u16, &str) = (1008, "authentication expired");

async fn proxy(provider: &FakeOpenIdProvider, change: impl FnOnce(&mut Config)) -> Proxy {
    let proxy = Proxy::with(|config| {
        provider.asked_by(config);
        change(config);
    })
    .await;
    proxy.topic("t", 1);
    proxy
}

async fn open(proxy: &Proxy, path: &str, token: &str) -> Result<WsClient, UpgradeRefused> {
    let bearer = format!("Bearer {token}");
    proxy.open_with(path, ("authorization", &bearer)).await
}

async fn opened(proxy: &Proxy, path: &str, token: &str) -> WsClient {
    match open(proxy, path, token).await {
        Ok(socket) => socket,
        Err(refused) => panic!("{refused:?}"),
    }
}

async fn refused(proxy: &Proxy, token: &str) -> UpgradeRefused {
    let refused = open(proxy, IN, token).await;
    refused.err().expect("it is refused")
}

async fn closed(mut socket: WsClient) -> (u16, String) {
    socket.closed().await
}

#[tokio::test]
async fn every_path_asks_for_a_token_and_says_what_is_wrong_with_one() {
    let provider = FakeOpenIdProvider::start().await;
    let proxy = proxy(&provider, |_| {}).await;
    let bearer = |token: &str| format!("Authorization: Bearer {token}");
    let good = bearer(&provider.token(FIRST_KEY));
    for (path, status) in [
        ("/healthcheck", 200),
        ("/metrics", 200),
        ("/kafka/cluster/info", 200),
        ("/nothing", 404),
    ] {
        let refused = ask(&proxy.address, "GET", path, &[]).await;
        assert_eq!(refused.status, 401, "{path}");
        let challenge = refused.header("www-authenticate");
        assert_eq!(challenge, Some("Bearer realm=\"edge\""), "{path}");
        until_asked("served", async || {
            ask(&proxy.address, "GET", path, &[&good]).await.status == status
        })
        .await;
    }
    let expired = provider.token_with(FIRST_KEY, json!({"exp": seconds() - 31}));
    let others = provider.token_with(FIRST_KEY, json!({"aud": "account"}));
    for (token, said) in [
        (&*expired, "the token has expired"),
        (&others, "the token is for another audience (aud)"),
        (
            "eyJhbGciOiJub25lIn0.e30.",
            "the token's alg is none of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA",
        ),
    ] {
        let refused = ask(&proxy.address, "GET", "/metrics", &[&bearer(token)]).await;
        assert_eq!((refused.status, &*refused.message()), (401, said));
        let challenge =
            format!("Bearer realm=\"edge\", error=\"invalid_token\", error_description=\"{said}\"");
        assert_eq!(refused.header("www-authenticate"), Some(&*challenge));
    }
    let twice = [&*good, &*good];
    let refused = ask(&proxy.address, "GET", "/metrics", &twice).await;
    assert_eq!(refused.status, 401);
}

#[tokio::test]
async fn a_socket_opens_with_a_token_in_a_header_or_in_a_sub_protocol() {
    let provider = FakeOpenIdProvider::start().await;
    let proxy = proxy(&provider, |_| {}).await;
    let token = provider.token(FIRST_KEY);
    let offered = format!("kafka-websocket-proxy, bearer.{token}");
    let mut socket = opened(&proxy, IN, &token).await;
    assert_eq!(socket.ask(RECORD).await["topic"], "t");
    let mut socket = proxy.open_with(OUT, (OFFERED, &offered)).await.unwrap();
    assert_eq!(socket.next().await["topic"], "t");
    let wrong = format!("{offered}x");
    let alone = format!("bearer.{token}");
    for (value, status) in [
        (&*wrong, 401),
        (&alone, 400),
        (&format!("{offered}, bearer.{token}"), 401),
        ("kafka-websocket-proxy, bearer.", 401),
        ("kafka-websocket-proxy", 401),
    ] {
        let refused = proxy.open_with(IN, (OFFERED, value)).await.err();
        assert_eq!(refused.expect("refused").status, status);
    }
    let path = format!("{IN}&errors=close");
    let refused = proxy.open_with(&path, (OFFERED, &wrong)).await.unwrap();
    let said = "the token's signature is wrong";
    let (code, reason) = closed(refused).await;
    assert!(
        code == 4401 && (reason == said || reason.contains("base64url")),
        "{code} {reason}"
    );
}

#[tokio::test]
async fn with_both_methods_either_suffices() {
    let provider = FakeOpenIdProvider::start().await;
    let proxy = proxy(&provider, |config| {
        let basic = &mut config.server.basic_auth;
        basic.enabled = Some(true);
        basic.username = Some(Secret::new("edge"));
        basic.password = Some(Secret::new("hunter2"));
    })
    .await;
    let token = provider.token(FIRST_KEY);
    assert!(open(&proxy, IN, &token).await.is_ok());
    let [right, wrong] = ["edge:hunter2", "edge:hunter3"].map(|pair| STANDARD.encode(pair));
    for (basic, status) in [(right, None), (wrong, Some(401))] {
        let basic = format!("Basic {basic}");
        let opened = proxy.open_with(IN, ("authorization", &basic)).await;
        assert_eq!(opened.err().map(|refused| refused.status), status);
    }
    let refused = proxy.open(IN).await.err().unwrap();
    let challenges = refused.headers.get_all("www-authenticate").iter();
    let challenges: Vec<_> = challenges.map(|value| value.to_str().unwrap()).collect();
    let expected = [
        "Basic realm=\"kafka-websocket-proxy\"",
        "Bearer realm=\"edge\"",
    ];
    assert_eq!(challenges, expected);
    let encoded = URL_SAFE_NO_PAD.encode("edge:hunter3");
    let both = format!("kafka-websocket-proxy, basic.{encoded}, bearer.{token}");
    assert!(proxy.open_with(IN, (OFFERED, &both)).await.is_ok());
}

#[tokio::test]
async fn a_provider_that_cannot_be_asked_keeps_nobody_out_whose_key_is_known() {
    let provider = FakeOpenIdProvider::start().await;
    provider.answer_with(500);
    let proxy = proxy(&provider, |c| c.server.secure_health_check_endpoint = false).await;
    // Neither the start nor this waits for it.
    proxy.ready().await;
    let token = provider.token(FIRST_KEY);
    let unknown = refused(&proxy, &token).await;
    assert_eq!(unknown.status, 503);
    assert!(unknown.headers.contains_key("retry-after"));
    let expired = provider.token_with(FIRST_KEY, json!({"exp": 1}));
    assert_eq!(refused(&proxy, &expired).await.status, 401);
    provider.answer_with(200);
    until_asked("it is asked again", async || {
        open(&proxy, IN, &token).await.is_ok()
    })
    .await;
    provider.answer_with(500);
    assert!(open(&proxy, IN, &token).await.is_ok());
    let other = provider.token(SECOND_KEY);
    assert_eq!(refused(&proxy, &other).await.status, 503);
    assert!(open(&proxy, IN, &token).await.is_ok());
}

#[tokio::test]
async fn a_new_key_is_taken_at_once_and_one_that_is_withdrawn_closes_its_sockets() {
    let provider = FakeOpenIdProvider::start().await;
    let proxy = proxy(&provider, |_| {}).await;
    let old = opened(&proxy, IN, &provider.token(FIRST_KEY)).await;
    let old_reader = opened(&proxy, OUT, &provider.token(FIRST_KEY)).await;
    provider.publish(&[SECOND_KEY]);
    let asked = provider.asked();
    let mut new = opened(&proxy, IN, &provider.token(SECOND_KEY)).await;
    assert_eq!(provider.asked(), asked + 1);
    for socket in [old, old_reader] {
        let (code, reason) = closed(socket).await;
        assert_eq!((code, &*reason), EXPIRED);
    }
    assert_eq!(new.ask(RECORD).await["offset"], 0);
    let gone = refused(&proxy, &provider.token(FIRST_KEY)).await;
    assert_eq!(gone.status, 401);
    assert!(gone.message().contains("(kid)"), "{gone:?}");
}

#[tokio::test]
async fn keys_are_fetched_again_every_interval_and_errors_have_a_limit() {
    let provider = FakeOpenIdProvider::start().await;
    let interval = Duration::from_millis(100);
    let proxy = proxy(&provider, |config| {
        let openid = &mut config.server.openid_connect;
        openid.revalidation_interval = interval;
        openid.revalidation_errors_limit = Some(2);
    })
    .await;
    let token = provider.token(FIRST_KEY);
    let (first, second) = (provider.token(FIRST_KEY), provider.token(SECOND_KEY));
    let socket = opened(&proxy, IN, &first).await;
    provider.publish(&[SECOND_KEY]);
    let (code, reason) = closed(socket).await;
    assert_eq!((code, &*reason), EXPIRED);
    let socket = opened(&proxy, IN, &second).await;
    provider.answer_with(404);
    let (code, reason) = closed(socket).await;
    assert_eq!((code, &*reason), EXPIRED);
    // Whoever comes back with the same token finds the door as closed.
    assert_eq!(refused(&proxy, &token).await.status, 503);
}

#[tokio::test]
async fn a_socket_that_waits_for_its_limit_ends_with_its_token_all_the_same() {
    let provider = FakeOpenIdProvider::start().await;
    let proxy = proxy(&provider, |config| {
        config.producer_limits.default_messages_per_second = 1;
    })
    .await;
    let soon = provider.token_with(FIRST_KEY, json!({"exp": seconds() - 20}));
    let mut writer = opened(&proxy, IN, &soon).await;
    let record: serde_json::Value = serde_json::from_str(RECORD).unwrap();
    let acks = writer.ask(json!(vec![record; 1_000]).to_string()).await;
    assert_eq!(acks[999]["offset"], 999);
    // Its turn is in a quarter of an hour.
    writer.send(RECORD).await;
    let (code, reason) = closed(writer).await;
    assert_eq!((code, &*reason), EXPIRED);
}

#[tokio::test]
async fn subjects_that_call_their_clients_alike_fence_only_their_own() {
    let provider = FakeOpenIdProvider::start().await;
    let proxy = proxy(&provider, |config| config.transactions.enabled = true).await;
    let path = "/socket/in?topic=t&clientId=c&transactional=true";
    let [alice, bob] =
        ["alice", "bob"].map(|sub| provider.token_with(FIRST_KEY, json!({"sub": sub})));
    let former = opened(&proxy, path, &alice).await;
    let mut of_bob = opened(&proxy, path, &bob).await;
    let mut newer = opened(&proxy, path, &alice).await;
    assert_eq!(closed(former).await, (1008, "fenced".to_owned()));
    for socket in [&mut of_bob, &mut newer] {
        assert!(socket.ask(RECORD).await["offset"].is_i64());
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn an_open_socket_ends_half_a_minute_after_its_token() {
    let provider = FakeOpenIdProvider::start().await;
    let proxy = proxy(&provider, |_| {}).await;
    let soon = || provider.token_with(FIRST_KEY, json!({"exp": seconds() - 20}));
    let mut writer = opened(&proxy, IN, &soon()).await;
    let mut reader = opened(&proxy, OUT, &soon()).await;
    let mut stays = opened(&proxy, IN, &provider.token(FIRST_KEY)).await;
    assert_eq!(writer.ask(RECORD).await["offset"], 0);
    assert_eq!(reader.next().await["offset"], 0);
    for socket in [writer, reader] {
        let (code, reason) = closed(socket).await;
        assert_eq!((code, &*reason), EXPIRED);
    }
    assert_eq!(stays.ask(RECORD).await["offset"], 1);
}

#[tokio::test]
async fn a_token_is_renewed_on_an_open_socket_by_one_of_the_same_subject() {
    let provider = FakeOpenIdProvider::start().await;
    let proxy = proxy(&provider, |_| {}).await;
    let soon = || provider.token_with(FIRST_KEY, json!({"exp": seconds() - 20}));
    let (in_avro, expires) = ("/socket/in?topic=t&socketPayload=avro", seconds() + 1800);
    let next = provider.token_with(FIRST_KEY, json!({"exp": expires}));
    let renew = |token: &str| json!({"command": "authenticate", "token": token}).to_string();
    let mut left_alone = opened(&proxy, IN, &soon()).await;
    let mut renewed = Vec::new();
    for path in [IN, OUT, in_avro] {
        let mut socket = opened(&proxy, path, &soon()).await;
        let anonymous = provider.token_with(FIRST_KEY, json!({"sub": null}));
        for (token, said) in [
            (
                provider.token_with(FIRST_KEY, json!({"sub": "bob"})),
                "the token is of another subject (sub)",
            ),
            (anonymous, "the token is of another subject (sub)"),
            (
                provider.token_with(FIRST_KEY, json!({"exp": 1})),
                "the token has expired",
            ),
            (
                "x".to_owned(),
                "the token is not what a signed JWT is: three parts of base64url with dots between them",
            ),
        ] {
            let answer = socket.ask(renew(&token)).await;
            let error = json!({"code": "not_authorized", "message": said});
            assert_eq!(answer, json!({"command": "authenticate", "error": error}));
        }
        let answer = socket.ask(renew(&next)).await;
        let expected = json!({"command": "authenticate", "expiresAt": expires * 1000});
        assert_eq!(answer, expected);
        renewed.push(socket);
    }
    let (code, reason) = left_alone.closed().await;
    assert_eq!((code, &*reason), EXPIRED);
    for socket in &mut renewed {
        let answer = socket.ask(r#"{"command":"x"}"#).await;
        assert_eq!(answer["error"]["code"], "unknown_command");
    }
    // What they are here by now is another key than at first.
    provider.publish(&[FIRST_KEY, SECOND_KEY]);
    let other = provider.token(SECOND_KEY);
    for socket in &mut renewed {
        let answer = socket.ask(renew(&other)).await;
        assert!(answer["expiresAt"].is_u64(), "{answer}");
    }
}

#[tokio::test]
async fn claims_of_a_token_are_kafka_credentials_and_come_before_all_others() {
    let provider = FakeOpenIdProvider::start().await;
    let claims = |only| {
        move |config: &mut Config| {
            let jwt = &mut config.server.openid_connect.custom_jwt;
            jwt.kafka_token_auth_only = only;
            jwt.username_claim = Some("kafka.user".to_owned());
            jwt.password_claim = Some("kafka.pass".to_owned());
        }
    };
    // The embedded broker has no SASL: whatever credentials come first are refused with 400.
    let both = json!({"kafka.user": "alice", "kafka.pass": "hunter2"});
    let both = provider.token_with(FIRST_KEY, both);
    let one = provider.token_with(FIRST_KEY, json!({"kafka.user": "alice"}));
    let none = provider.token(FIRST_KEY);
    for (only, token, expected) in [
        (false, &both, Some((400, "token: "))),
        (false, &one, Some((401, "token: it must have both"))),
        (false, &none, None),
        (true, &both, Some((400, "token: "))),
        (
            true,
            &none,
            Some((401, "this server takes Kafka credentials from a token only")),
        ),
    ] {
        let proxy = proxy(&provider, claims(only)).await;
        let opened = open(&proxy, IN, token).await.err();
        let refused = opened.map(|refused| (refused.status, refused.message()));
        match (refused, expected) {
            (None, None) => {}
            (Some((status, message)), Some((code, begins))) => {
                assert_eq!(status, code, "{message}");
                assert!(message.starts_with(begins), "{message}");
            }
            (refused, _) => panic!("{refused:?}"),
        }
    }
    let proxy = proxy(&provider, claims(true)).await;
    let offered = format!(
        "kafka-websocket-proxy, bearer.{none}, kafka-auth.{}",
        URL_SAFE_NO_PAD.encode("alice:hunter2")
    );
    let refused = proxy
        .open_with(IN, (OFFERED, &offered))
        .await
        .err()
        .unwrap();
    assert_eq!(refused.status, 401);
}

#[tokio::test]
async fn the_program_trusts_its_store_and_keeps_tokens_to_itself() {
    let provider = FakeOpenIdProvider::start_tls().await;
    let url = provider.url();
    let ca = concat!(env!("CARGO_MANIFEST_DIR"), "/proto-tests/golden/tls/ca.pem");
    let settings = [
        "--openid-connect-enabled",
        "--openid-connect-well-known-url",
        &url,
        "--openid-connect-audience",
        AUDIENCE,
    ];
    let trusting = ["--openid-connect-truststore-location", ca];
    let detailed = ["--openid-connect-allow-detailed-logging"];
    let wrong = provider.token_with(FIRST_KEY, json!({"aud": "x"}));
    for (more, status) in [
        (&[][..], 503),
        (&trusting, 200),
        (&[trusting, [detailed[0], "true"]].concat(), 200),
    ] {
        let arguments = [&["--dev", "--log-level", "debug"][..], &settings, more].concat();
        let (program, log) = Program::start_logged(&arguments, &[]);
        let address = program.address();
        let bearer = format!("Authorization: Bearer {}", provider.token(FIRST_KEY));
        let answer = ask(&address, "GET", "/metrics", &[&bearer]).await;
        assert_eq!(answer.status, status, "{}", answer.body);
        if status == 503 {
            log.first_with("(server.openid-connect.truststore-location)")
                .await;
        }
        let bearer = format!("Authorization: Bearer {wrong}");
        assert_eq!(
            ask(&address, "GET", "/metrics", &[&bearer]).await.status,
            401
        );
        // What is asked for needs no token to be well.
        let port = address.rsplit_once(':').unwrap().1;
        let arguments = [&["--port", port], &settings[..], more, &["healthcheck"]].concat();
        let asked = std::process::Command::new(env!("CARGO_BIN_EXE_kafka-websocket-proxy"))
            .args(&arguments)
            .output()
            .unwrap();
        assert!(asked.status.success(), "{asked:?}");
        let reasons = log.with("a token is refused");
        let is_detailed = more.contains(&detailed[0]);
        assert_eq!(reasons.len(), usize::from(is_detailed), "{reasons:?}");
        assert!(!is_detailed || reasons[0].contains("another audience"));
    }
}
