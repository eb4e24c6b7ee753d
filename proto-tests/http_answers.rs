//! What plain HTTP requests are answered: by browsers' and load balancers' methods too.

use serde_json::Value;

use crate::support::http::{self, HttpAnswer};
use crate::support::proxy::Proxy;
use kafka_websocket_proxy::config::AllowedOrigins;
use memory_broker::BrokerConfig;

const PAGE: &str = "Origin: https://good.example";
const PREFLIGHT: &str = "Access-Control-Request-Method: GET\n\
                         Access-Control-Request-Headers: authorization, x-kafka-auth, x-any";

/// Sends a request with these lines of headers.
async fn ask(proxy: &Proxy, method: &str, path: &str, headers: &[&str]) -> HttpAnswer {
    http::ask(&proxy.address, method, path, headers).await
}

/// The paths that a 404 lists.
async fn listed_paths(proxy: &Proxy) -> Vec<String> {
    let answer = ask(proxy, "GET", "/nowhere", &[]).await;
    assert_eq!(answer.status, 404);
    let message = answer.message();
    let paths = message.split([' ', ',']).filter(|w| w.starts_with('/'));
    paths.map(str::to_owned).collect()
}

#[tokio::test]
async fn a_404_lists_the_paths_and_each_of_them_answers_get_head_and_options() {
    let proxy = Proxy::with(|config| config.server.console_enabled = true).await;
    let paths = listed_paths(&proxy).await;
    for known in [
        "/socket/in",
        "/socket/out",
        "/healthcheck",
        "/ready",
        "/metrics",
        "/kafka/cluster/info",
    ] {
        assert!(paths.iter().any(|path| path == known), "{paths:?}");
    }
    for path in &paths {
        for method in ["GET", "HEAD"] {
            let answer = ask(&proxy, method, path, &[]).await;
            assert!(![404, 405].contains(&answer.status), "{method} {path}");
        }
        let options = ask(&proxy, "OPTIONS", path, &[]).await;
        assert_eq!((options.status, &*options.body), (204, ""), "{path}");
        assert_eq!(options.header("allow"), Some("GET, HEAD, OPTIONS"));
        assert_eq!(options.header("content-length"), None, "RFC 9110, 8.6");
        for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE", "PURGE"] {
            let answer = ask(&proxy, method, path, &[]).await;
            assert_eq!(answer.status, 405, "{method} {path}");
            assert_eq!(answer.header("allow"), options.header("allow"));
            assert!(answer.message().contains("GET"), "{}", answer.message());
        }
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn what_is_at_no_path_is_404_whatever_the_method_and_the_server_as_a_whole_has_options() {
    let proxy = Proxy::start().await;
    for method in ["GET", "HEAD", "OPTIONS", "POST", "DELETE"] {
        for path in ["/", "/nowhere", "/ready/x", "/Ready", "/socket"] {
            let answer = ask(&proxy, method, path, &[]).await;
            assert_eq!(answer.status, 404, "{method} {path}");
        }
    }
    let answer = ask(&proxy, "OPTIONS", "*", &[]).await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("allow"), Some("GET, HEAD, OPTIONS"));
    proxy.stopped().await;
}

#[tokio::test]
async fn a_preflight_of_an_allowed_page_is_granted_on_every_path() {
    let some = AllowedOrigins::parse("https://good.example").unwrap();
    for (origins, granted, vary) in [
        (some, "https://good.example", Some("origin")),
        (AllowedOrigins::Any, "*", None),
    ] {
        let proxy = Proxy::with(|config| config.server.websocket.origins = origins).await;
        for path in ["/ready", "/nowhere", "/socket/in?topic=t"] {
            let answer = ask(&proxy, "OPTIONS", path, &[PAGE, PREFLIGHT]).await;
            assert_eq!((answer.status, &*answer.body), (204, ""), "{path}");
            let header = |name: &str| answer.header(name).unwrap_or_default();
            assert_eq!(header("access-control-allow-origin"), granted);
            assert!(header("access-control-allow-methods").contains("GET"));
            // `*` covers every name but Authorization (Fetch, section 3.3.3).
            let headers = header("access-control-allow-headers");
            assert_eq!(headers, "*, Authorization");
            assert_eq!(answer.header("vary"), vary);
        }
        proxy.stopped().await;
    }
}

#[tokio::test]
async fn a_preflight_of_another_page_is_refused_and_grants_nothing() {
    let origins = AllowedOrigins::parse("https://good.example").unwrap();
    let proxy = Proxy::with(|config| config.server.websocket.origins = origins).await;
    for path in ["/ready", "/nowhere", "/socket/in?topic=t"] {
        let page = "Origin: https://bad.example";
        let answer = ask(&proxy, "OPTIONS", path, &[page, PREFLIGHT]).await;
        assert_eq!(answer.status, 403, "{path}");
        let granted = |(name, _): &(String, String)| name.starts_with("access-control-");
        assert!(!answer.headers.iter().any(granted), "{:?}", answer.headers);
        assert_eq!(answer.header("vary"), Some("origin"));
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn a_page_may_read_errors_as_well() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    for (method, path, status) in [
        ("GET", "/nowhere", 404),
        ("POST", "/ready", 405),
        ("GET", "/socket/in?topic=t", 426),
        ("OPTIONS", "/ready", 204),
    ] {
        let answer = ask(&proxy, method, path, &[PAGE]).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn a_plain_request_for_a_socket_is_told_to_upgrade_and_to_what() {
    let proxy = Proxy::start().await;
    for path in ["/socket/in?topic=t", "/socket/out", "/socket/in"] {
        let answer = ask(&proxy, "GET", path, &[]).await;
        assert_eq!(answer.status, 426, "{path}");
        // RFC 9110, section 15.5.22, and RFC 6455, section 4.4.
        assert_eq!(answer.header("upgrade"), Some("websocket"));
        assert_eq!(answer.header("sec-websocket-version"), Some("13"));
        let connection = answer.header("connection").unwrap_or_default();
        assert!(connection.to_lowercase().contains("upgrade"));
        assert!(answer.message().contains("WebSocket"));
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn the_brokers_are_listed_as_they_are_now() {
    let brokers = BrokerConfig {
        nodes: 3,
        ..BrokerConfig::default()
    };
    let proxy = Proxy::with_broker(brokers, |_| {}).await;
    let answer = ask(&proxy, "GET", "/kafka/cluster/info", &[]).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let listed: Vec<Value> = serde_json::from_str(&answer.body).unwrap();
    for (id, broker) in (1..=3).zip(&listed) {
        let node = kafka_client::BrokerId(id);
        let address = proxy.broker.address(node).unwrap();
        let fields = broker.as_object().expect("an object");
        assert_eq!(broker["id"], id);
        assert_eq!(broker["host"], "127.0.0.1");
        assert_eq!(broker["port"], address.port());
        assert!(
            fields
                .keys()
                .all(|key| ["id", "host", "port", "rack"].contains(&&**key))
        );
    }
    assert_eq!(listed.len(), 3);
    let moved = "127.0.0.1:9".parse().unwrap();
    proxy.broker.advertise(kafka_client::BrokerId(3), moved);
    let answer = ask(&proxy, "GET", "/kafka/cluster/info", &[]).await;
    let listed: Vec<Value> = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(listed[2]["port"], 9, "the next request sees it");
    proxy.stopped().await;
}

/// Asserts the headers that tell a browser to take an answer for no more than it is.
fn assert_secured(answer: &HttpAnswer, what: &str) {
    for (name, expected) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        (
            "content-security-policy",
            "default-src 'none'; frame-ancestors 'none'",
        ),
    ] {
        assert_eq!(answer.header(name), Some(expected), "{what}");
    }
    let kept = match what.contains("/schemas/") && answer.status == 200 {
        true => "max-age=3600",
        false => "no-store",
    };
    assert_eq!(answer.header("cache-control"), Some(kept), "{what}");
    // Where there is a port without TLS, a browser may use that.
    assert_eq!(answer.header("strict-transport-security"), None, "{what}");
}

#[tokio::test]
async fn every_answer_has_the_headers_that_keep_a_browser_from_more_than_reading_it() {
    let proxy = Proxy::with(|config| {
        let allowed = AllowedOrigins::parse("https://good.example").unwrap();
        config.server.websocket.origins = allowed;
    })
    .await;
    let mut paths = listed_paths(&proxy).await;
    paths.extend(["/nowhere", "/", "/socket/in?topic=t&valTyp=json"].map(str::to_owned));
    for path in &paths {
        for method in ["GET", "HEAD", "OPTIONS", "POST"] {
            for headers in [
                &[][..],
                &[PAGE],
                &["Origin: https://evil.example"],
                &[PAGE, "Access-Control-Request-Method: GET"],
            ] {
                let answer = ask(&proxy, method, path, headers).await;
                assert_secured(&answer, &format!("{method} {path} {headers:?}"));
            }
        }
    }
    // What hyper answers by itself, and what is refused by its head.
    let long = format!("X: {}", "x".repeat(40_000));
    for (header, status) in [("no header", 400), (&*long, 431), ("Host: b", 400)] {
        let answer = ask(&proxy, "GET", "/ready", &[header]).await;
        assert_eq!(answer.status, status);
        assert_secured(&answer, &header[..9.min(header.len())]);
    }
    proxy.stopped().await;
}
