//! What a browser is sent of the console, and the topics that it lists.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kafka_client::BrokerId;
use serde_json::{Value, json};
use tokio::task::block_in_place;

use crate::secure_kafka::{cluster, sasl_plaintext};
use crate::support::http::{self, HttpAnswer};
use crate::support::kafka::unique;
use crate::support::program::Program;
use crate::support::proxy::Proxy;
use crate::support::until_asked;
use kafka_websocket_proxy::config::Config;
use memory_broker::ApiKey;

fn enabled(config: &mut Config) {
    config.server.console_enabled = true;
}

async fn get(proxy: &Proxy, path: &str, headers: &[&str]) -> HttpAnswer {
    http::ask(&proxy.address, "GET", path, headers).await
}

/// What `GET /console/topics` answers, once it is 200.
fn listed(answer: &HttpAnswer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    serde_json::from_str(&answer.body).unwrap()
}

/// The paths of what the page's index refers to, and what that imports.
async fn referred(proxy: &Proxy) -> Vec<String> {
    let mut paths = vec!["/".to_owned()];
    let mut at = 0;
    while at < paths.len() {
        let path = paths[at].clone();
        let text = get(proxy, &path, &[]).await.body;
        let folder = if path == "/" { "console/" } else { "./" };
        let texts = text.split(['"', '\'']);
        let names = texts.filter_map(|text| text.strip_prefix(folder));
        let files = names.filter(|name| name.rsplit_once('.').is_some());
        for path in files.map(|name| format!("/console/{name}")) {
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
        at += 1;
    }
    paths
}

#[tokio::test]
async fn nothing_of_it_is_there_unless_it_is_enabled() {
    let (with, without) = (Proxy::with(enabled).await, Proxy::start().await);
    let mut paths = referred(&with).await;
    assert!(paths.contains(&"/console/main.js".to_owned()), "{paths:?}");
    paths.push("/console/topics".to_owned());
    for path in &paths {
        for method in ["GET", "HEAD"] {
            let answer = http::ask(&with.address, method, path, &[]).await;
            assert_eq!(answer.status, 200, "{path}");
        }
        for method in ["GET", "HEAD", "OPTIONS", "POST"] {
            let answer = http::ask(&without.address, method, path, &[]).await;
            assert_eq!(answer.status, 404, "{method} {path}");
        }
    }
    for (proxy, is_named) in [(&with, true), (&without, false)] {
        let message = get(proxy, "/console/nothing", &[]).await.message();
        assert_eq!(message.contains(" /, "), is_named, "{message}");
        assert_eq!(message.contains("/console"), is_named, "{message}");
    }
    with.stopped().await;
    without.stopped().await;
}

#[tokio::test]
async fn a_browser_is_sent_each_file_once_and_may_do_nothing_with_it_but_show_and_run_it() {
    let proxy = Proxy::with(enabled).await;
    for path in &referred(&proxy).await {
        let answer = get(&proxy, path, &[]).await;
        let content_type = answer.header("content-type").unwrap();
        let expected = match path.rsplit_once('.').map(|(_, extension)| extension) {
            None => "text/html",
            Some("css") => "text/css",
            Some("js") => "text/javascript",
            Some("svg") => "image/svg+xml",
            other => panic!("{other:?}"),
        };
        assert_eq!(content_type, format!("{expected}; charset=utf-8"));
        let policy = format!(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
             connect-src 'self' ws://{0} wss://{0}; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'",
            proxy.address
        );
        for (name, expected) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-cache"),
            ("vary", "accept-encoding"),
            ("content-security-policy", &*policy),
        ] {
            assert_eq!(answer.header(name), Some(expected), "{path}");
        }
        let length = answer.header("content-length").unwrap();
        assert_eq!(length, answer.body.len().to_string());

        let known = format!("If-None-Match: {}", answer.header("etag").unwrap());
        let again = get(&proxy, path, &[&known]).await;
        assert_eq!((again.status, &*again.body), (304, ""), "{path}");
        assert_eq!(again.header("etag"), answer.header("etag"));

        let gzip = ["Accept-Encoding: gzip, deflate, br"];
        let gzipped = http::ask(&proxy.address, "HEAD", path, &gzip).await;
        assert_eq!(gzipped.status, 200);
        if answer.body.len() > 1_000 {
            assert_eq!(gzipped.header("content-encoding"), Some("gzip"), "{path}");
            assert_ne!(gzipped.header("etag"), answer.header("etag"), "{path}");
        }
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn the_topics_are_listed_by_name_without_those_that_no_socket_may_read() {
    let proxy = Proxy::with(enabled).await;
    proxy.ready().await;
    for (name, partitions) in [
        ("b", 2),
        ("a", 3),
        ("A.b", 1),
        ("__consumer_offsets", 1),
        ("_confluent-metrics", 1),
    ] {
        proxy.topic(name, partitions);
    }
    let all = listed(&get(&proxy, "/console/topics", &[]).await);
    let topic = |name: &str, partitions| json!({"name": name, "partitions": partitions});
    let expected = [topic("A.b", 1), topic("a", 3), topic("b", 2)];
    assert_eq!(all, json!({"topics": expected, "more": false}));
    let some = listed(&get(&proxy, "/console/topics?contains=B&limit=1", &[]).await);
    assert_eq!(some, json!({"topics": expected[..1], "more": true}));
    for (query, parameter) in [("limit=0", "limit"), ("contain=a", "contain")] {
        let answer = get(&proxy, &format!("/console/topics?{query}"), &[]).await;
        assert_eq!(answer.status, 400);
        let expected = format!("parameter {parameter}: ");
        assert!(answer.message().starts_with(&expected));
    }
    // The cluster has no SASL, so that nobody can be another user.
    let credentials = format!("X-Kafka-Auth: {}", STANDARD.encode("bob:secret"));
    let answer = get(&proxy, "/console/topics", &[&credentials]).await;
    assert_eq!(answer.status, 400, "{}", answer.body);
    let answer = get(&proxy, "/console/topics", &["X-Kafka-Auth: ?"]).await;
    assert_eq!(answer.status, 401, "{}", answer.body);
    let challenge = answer.header("www-authenticate");
    assert_eq!(challenge, None, "a browser would ask its user by itself");
    proxy.stopped().await;
}

#[tokio::test]
async fn topics_that_no_glob_lets_clients_read_are_not_listed() {
    let globs = r#"server.topics.consume-allowed=["a?", "c"]"#;
    let program = Program::start(&["--dev", "-D", globs]);
    for topic in ["a1", "a11", "b1", "c"] {
        let path = format!("/socket/in?topic={topic}");
        program.connect(&path).await.close().await;
    }
    let answer = http::ask(&program.address(), "GET", "/console/topics", &[]).await;
    let all = listed(&answer);
    let names = all["topics"].as_array().unwrap().iter();
    let names: Vec<_> = names.map(|topic| &topic["name"]).collect();
    assert_eq!(names, ["a1", "c"]);
}

#[tokio::test]
async fn many_who_ask_at_once_ask_the_brokers_once() {
    let proxy = Proxy::with(enabled).await;
    proxy.ready().await;
    for n in 0..100 {
        proxy.topic(&format!("t{n}"), 1);
    }
    let before = proxy.broker.requests(ApiKey::Metadata);
    let asked = (0..50).map(|_| get(&proxy, "/console/topics?limit=1000", &[]));
    for answer in futures_util::future::join_all(asked).await {
        assert_eq!(listed(&answer)["topics"].as_array().unwrap().len(), 100);
    }
    let requests = proxy.broker.requests(ApiKey::Metadata) - before;
    assert!(requests < 10, "{requests} requests");
    proxy.stopped().await;
}

#[tokio::test]
async fn without_brokers_the_topics_are_503_and_listed_again_when_they_are_back() {
    let proxy = Proxy::with(enabled).await;
    proxy.ready().await;
    proxy.topic("t", 1);
    assert!(proxy.broker.stop_node(BrokerId(1)).await);
    until_asked("503", async || {
        let answer = get(&proxy, "/console/topics", &[]).await;
        if answer.status == 200 {
            return false;
        }
        assert_eq!(answer.status, 503, "{}", answer.body);
        assert_eq!(answer.header("retry-after"), Some("5"));
        assert!(answer.message().contains("no broker can be reached"));
        true
    })
    .await;
    // The page itself needs none.
    assert_eq!(get(&proxy, "/", &[]).await.status, 200);
    proxy.broker.start_node(BrokerId(1)).await.unwrap();
    until_asked("the topics", async || {
        let answer = get(&proxy, "/console/topics", &[]).await;
        answer.status == 200 && listed(&answer)["topics"][0]["name"] == "t"
    })
    .await;
    proxy.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_listed_the_topics_that_it_may_read_and_no_others() {
    let (kafka, at) = cluster();
    let stem = unique("listed");
    let names = ["mine", "described", "written", "hidden"].map(|end| format!("{stem}-{end}"));
    let [mine, described, written, hidden] = &names;
    block_in_place(|| {
        names.iter().for_each(|name| kafka.create_topic(name, 2, 1));
        let rights = [
            ["topic", mine, "read"],
            ["topic", described, "describe"],
            ["topic", written, "write"],
        ];
        let args = [&["allow", "User:bob"][..], rights.as_flattened()].concat();
        kafka.java("Acls.java", &args);
    });
    let connecting = sasl_plaintext(&at).authenticated_by("PLAIN", "alice-secret");
    let (proxy, log) = connecting.start_with(&["--console-enabled", "true"]);
    proxy.ready().await;
    let path = format!("/console/topics?contains={stem}");
    let ask = async |credentials: Option<&str>| {
        let credentials =
            credentials.map(|text| format!("Authorization: Basic {}", STANDARD.encode(text)));
        let headers: Vec<_> = credentials.iter().map(String::as_str).collect();
        http::ask(&proxy.address(), "GET", &path, &headers).await
    };
    let topics = |names: &[&String]| {
        let topics = names
            .iter()
            .map(|name| json!({"name": name, "partitions": 2}));
        json!({"topics": topics.collect::<Vec<_>>(), "more": false})
    };
    for (credentials, expected) in [
        (Some("bob:bob-secret"), topics(&[mine])),
        (None, topics(&[described, hidden, mine, written])),
        (
            Some("alice:alice-secret"),
            topics(&[described, hidden, mine, written]),
        ),
    ] {
        until_asked("the brokers know who may do what", async || {
            let answer = ask(credentials).await;
            answer.status == 200 && listed(&answer) == expected
        })
        .await;
    }
    let refused = ask(Some("bob:wrong-secret")).await;
    assert_eq!(refused.status, 401, "{}", refused.body);
    assert!(refused.message().contains("header Authorization: Basic"));
    assert!(log.with("-secret").is_empty());
}
