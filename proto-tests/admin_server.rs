//! The admin server as a server: what is at its port, and what is not.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kafka_client::BrokerId;
use kafka_websocket_proxy::config::AllowedOrigins;
use secret::Secret;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::http::{HttpAnswer, ask, send};
use crate::support::proxy::Proxy;
use crate::support::tls;
use crate::support::until_asked;

async fn with_admin() -> Proxy {
    Proxy::with(|config| config.server.admin.enabled = true).await
}

async fn at_admin(proxy: &Proxy, method: &str, path: &str) -> HttpAnswer {
    ask(&proxy.admin_address, method, path, &[]).await
}

#[tokio::test]
async fn nothing_of_the_sockets_is_at_the_admin_port_and_nothing_of_admin_at_the_others() {
    let proxy = with_admin().await;
    proxy.ready().await;
    for path in ["/", "/socket/in?topic=t", "/ready", "/metrics", "/admin"] {
        let answer = at_admin(&proxy, "GET", path).await;
        assert_eq!(answer.status, 404, "{path}");
        let message = answer.message();
        assert!(message.contains("/admin/consumer-group/all"), "{message}");
        assert!(!message.contains("/socket"), "{message}");
    }
    for path in ["/admin/kafka/info", "/admin/consumer-group/all"] {
        assert_eq!(at_admin(&proxy, "GET", path).await.status, 200, "{path}");
        let answer = ask(&proxy.address, "GET", path, &[]).await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(!answer.message().contains("/admin"));
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn a_method_that_a_path_does_not_answer_is_refused_with_those_that_it_does() {
    let proxy = with_admin().await;
    for (method, path, allowed) in [
        ("POST", "/admin/kafka/info", "GET, HEAD, OPTIONS"),
        ("DELETE", "/admin/consumer-group/all", "GET, HEAD, OPTIONS"),
        (
            "PUT",
            "/admin/consumer-group/g/offsets",
            "GET, HEAD, DELETE, OPTIONS",
        ),
        (
            "GET",
            "/admin/consumer-group/g/offsets/alter/t",
            "PUT, OPTIONS",
        ),
    ] {
        let answer = at_admin(&proxy, method, path).await;
        assert_eq!(answer.status, 405, "{method} {path}");
        assert_eq!(answer.header("allow"), Some(allowed));
        let options = at_admin(&proxy, "OPTIONS", path).await;
        assert_eq!(options.status, 204);
        assert_eq!(options.header("allow"), Some(allowed));
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn answers_of_the_admin_server_have_the_security_headers_and_pages_of_others_are_refused() {
    let origins = AllowedOrigins::parse("https://console.example").unwrap();
    let proxy = Proxy::with(|config| {
        config.server.admin.enabled = true;
        config.server.websocket.origins = origins;
    })
    .await;
    let path = "/admin/kafka/info";
    let answer = at_admin(&proxy, "GET", path).await;
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    for path in [path, "/socket/in"] {
        let headers = ["Origin: https://evil.example"];
        let answer = ask(&proxy.admin_address, "GET", path, &headers).await;
        assert_eq!(answer.status, 403, "{path}");
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused_and_the_server_goes_on() {
    let proxy = with_admin().await;
    let path = "/admin/consumer-group/g/offsets/alter/t";
    let body = " ".repeat((4 << 20) + 1);
    let answer = send(&proxy.admin_address, "PUT", path, &[], &body).await;
    assert_eq!(answer.status, 413);
    let answer = at_admin(&proxy, "GET", "/admin/kafka/info").await;
    assert_eq!(answer.status, 200);
    proxy.stopped().await;
}

#[tokio::test]
async fn where_clients_can_use_tls_the_admin_server_speaks_nothing_else() {
    let proxy = Proxy::with(|config| {
        config.server.admin.enabled = true;
        config.server.tls = Some(tls::server_tls(false));
    })
    .await;
    let config = tls::client(None);
    let mut stream = tls::connect(&proxy.admin_address, &config).await.unwrap();
    let request = "GET /admin/consumer-group/all HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    proxy.stopped().await;
}

#[tokio::test]
async fn without_a_broker_the_admin_server_says_so_and_stops_in_time() {
    let proxy = Proxy::with(|config| {
        config.server.admin.enabled = true;
        config.admin.request_timeout = Some(Duration::from_millis(300));
    })
    .await;
    proxy.ready().await;
    let path = "/admin/consumer-group/all";
    assert_eq!(at_admin(&proxy, "GET", path).await.status, 200);
    proxy.broker.stop_node(BrokerId(1)).await;
    until_asked("503", async || {
        let answer = at_admin(&proxy, "GET", path).await;
        answer.status == 503 && answer.header("retry-after").is_some()
    })
    .await;
    let info = at_admin(&proxy, "GET", "/admin/kafka/info").await;
    assert_eq!(info.status, 503);
    let body: Value = serde_json::from_str(&info.body).unwrap();
    assert!(body["message"].is_string());
    proxy.stopped().await;
}

#[tokio::test]
async fn the_admin_server_asks_for_the_servers_user_and_password_on_every_path() {
    let proxy = Proxy::with(|config| {
        config.server.admin.enabled = true;
        let basic_auth = &mut config.server.basic_auth;
        basic_auth.enabled = Some(true);
        basic_auth.username = Some(Secret::new("ops"));
        basic_auth.password = Some(Secret::new("p4ssw0rd of ops"));
    })
    .await;
    let encoded = STANDARD.encode("ops:p4ssw0rd of ops");
    let authorized = format!("Authorization: Basic {encoded}");
    for (path, status) in [
        ("/admin/consumer-group/all", 200),
        ("/admin/nothing", 404),
        ("/socket/in", 404),
    ] {
        let refused = at_admin(&proxy, "GET", path).await;
        assert_eq!(refused.status, 401, "{path}");
        assert!(refused.header("www-authenticate").is_some());
        let answer = ask(&proxy.admin_address, "GET", path, &[&authorized]).await;
        assert_eq!(answer.status, status, "{path}");
    }
    proxy.stopped().await;
}
