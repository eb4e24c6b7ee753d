//! `server.openid-connect.*` with a real provider, and with a page in a real browser: login, the keys'
//! rotation, an outage, and what becomes of open sockets.

use serde_json::{Value, json};

use crate::support::chromium::Chromium;
use crate::support::oauth2_server::OAuth2Server;
use crate::support::oauth2_server::SigningAlgorithm::{Es256, Rs256};
use crate::support::proxy::Proxy;
use crate::support::until_asked;
use crate::support::ws_client::{UpgradeRefused, WsClient};

const IN: &str = "/socket/in?topic=t";
const OUT: &str = "/socket/out?topic=t&clientId=c";
const RECORD: &str = r#"{"value":{"value":"x"}}"#;
const HOUR: u64 = 3600;

async fn proxy(server: &OAuth2Server) -> Proxy {
    let proxy = Proxy::with(|config| server.asked_by(config)).await;
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

async fn status(proxy: &Proxy, token: &str) -> Option<u16> {
    let refused = open(proxy, IN, token).await.err();
    refused.map(|refused| refused.status)
}

async fn expires(mut socket: WsClient) {
    let expired = (1008, "authentication expired".to_owned());
    assert_eq!(socket.closed().await, expired);
}

#[tokio::test]
async fn whoever_has_a_token_of_the_provider_is_let_in_and_its_outage_keeps_none_of_them_out() {
    let mut server = OAuth2Server::start(Rs256, HOUR).await;
    let before = proxy(&server).await;
    let token = server.token().await;
    let mut socket = opened(&before, IN, &token).await;
    assert_eq!(socket.ask(RECORD).await["offset"], 0);
    let elsewhere = server.token_for("elsewhere").await;
    assert_eq!(status(&before, &elsewhere).await, Some(401));
    let next = server.token().await;

    server.stop();
    let during = proxy(&server).await;
    // Who knows its keys needs nobody, and who does not says so.
    assert_eq!(status(&before, &next).await, None);
    assert_eq!(status(&during, &next).await, Some(503));
    assert_eq!(socket.ask(RECORD).await["offset"], 1);
    server.run(Rs256).await;
    let token = server.token().await;
    until_asked("it is asked again", async || {
        status(&during, &token).await.is_none()
    })
    .await;
}

#[tokio::test]
async fn other_keys_under_the_old_name_are_taken_and_end_what_was_signed_before() {
    let mut server = OAuth2Server::start(Rs256, HOUR).await;
    let proxy = proxy(&server).await;
    let old = server.token().await;
    let (writer, reader) = (
        opened(&proxy, IN, &old).await,
        opened(&proxy, OUT, &old).await,
    );
    server.run(Es256).await;
    let new = server.token().await;
    until_asked("the new key is known", async || {
        status(&proxy, &new).await.is_none()
    })
    .await;
    expires(writer).await;
    expires(reader).await;
    assert_eq!(status(&proxy, &old).await, Some(401));
}

#[tokio::test]
async fn an_open_socket_goes_on_with_renewed_tokens_and_ends_without() {
    let server = OAuth2Server::start(Es256, 5).await;
    let proxy = proxy(&server).await;
    let alone = opened(&proxy, OUT, &server.token().await).await;
    let mut renewed = opened(&proxy, IN, &server.token().await).await;
    let ended = tokio::spawn(expires(alone));
    let mut count = 0;
    while !ended.is_finished() {
        let renewal = json!({"command": "authenticate", "token": server.token().await});
        let answer = renewed.ask(renewal.to_string()).await;
        assert!(answer["expiresAt"].is_u64(), "{answer}");
        assert_eq!(renewed.ask(RECORD).await["offset"], count);
        count += 1;
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    ended.await.unwrap();
    assert_eq!(renewed.ask(RECORD).await["offset"], count);
}

/// What a page is answered: to a record, if it may write one, and the record, if it may read it.
async fn of_a_page(chromium: &Chromium, proxy: &Proxy, token: &str) -> [Value; 2] {
    let page = chromium.blank().await;
    let script = format!(
        r#"(async () => {{
            const socket = (path) =>
                new WebSocket("ws://{address}" + path, ["kafka-websocket-proxy", "bearer.{token}"]);
            const first = (socket, open) => new Promise((resolve) => {{
                socket.onopen = open;
                socket.onmessage = ({{ data }}) => resolve([socket.protocol, JSON.parse(data)]);
                socket.onclose = ({{ code }}) => resolve(code);
            }});
            const writer = socket("{IN}");
            const written = await first(writer, () => writer.send('{RECORD}'));
            return [written, await first(socket("{OUT}"))];
        }})()"#,
        address = proxy.address,
    );
    let answers = page.evaluate(&script).await;
    let answers: Vec<Value> = serde_json::from_value(answers).unwrap();
    answers.try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_comes_with_its_token_in_a_sub_protocol() {
    let server = OAuth2Server::start(Rs256, HOUR).await;
    let proxy = proxy(&server).await;
    let chromium = Chromium::start(&[]).await;
    let token = server.token().await;
    let [written, read] = of_a_page(&chromium, &proxy, &token).await;
    for answer in [&written, &read] {
        assert_eq!(answer[0], "kafka-websocket-proxy", "{answer}");
        assert_eq!(answer[1]["topic"], "t", "{answer}");
    }
    assert_eq!(written[1]["offset"], 0);
    assert_eq!(read[1]["value"]["value"], "x");
    // Somebody else has signed it, with the same name for the key.
    let forger = OAuth2Server::start(Es256, HOUR).await;
    let forged = forger.token().await;
    let (claims, signature) = (
        token.rsplit_once('.').unwrap().0,
        forged.rsplit_once('.').unwrap().1,
    );
    for forged in [forged.clone(), format!("{claims}.{signature}")] {
        let answers = of_a_page(&chromium, &proxy, &forged).await;
        assert_eq!(answers, [json!(1006), json!(1006)]);
    }
}
