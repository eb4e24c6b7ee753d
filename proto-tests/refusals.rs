//! What is refused, how, and before the upgrade.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::PATIENCE;
use crate::support::program::Program;
use crate::support::proxy::Proxy;
use kafka_websocket_proxy::config::AllowedOrigins;
use memory_broker::{ApiKey, BrokerConfig, FaultAction, FaultRule};

/// Sends a request as it is and reads the response to its end.
async fn raw(proxy: &Proxy, request: &str) -> String {
    let mut stream = TcpStream::connect(&proxy.address).await.unwrap();
    let request = request.replace('\n', "\r\n") + "\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    let read = stream.read_to_string(&mut response);
    timeout(PATIENCE, read).await.unwrap().unwrap();
    response
}

async fn get(proxy: &Proxy, path: &str, headers: &str) -> String {
    raw(
        proxy,
        &format!("GET {path} HTTP/1.1\nHost: a\nConnection: close{headers}"),
    )
    .await
}

const UPGRADE: &str = "\nConnection: upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";

#[tokio::test]
async fn wrong_parameters_are_refused_by_name_with_400() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    for (path, part) in [
        ("/socket/in", "topic"),
        ("/socket/in?topic=absent", "absent"),
        ("/socket/in?topic=t&valType=xml", "valType"),
        ("/socket/in?topic=t&socketPayload=xml", "socketPayload"),
        ("/socket/in?topic=t&transactional=true", "transactional"),
        ("/socket/out?topic=t", "clientId"),
        ("/socket/out?topic=t,absent&clientId=a", "absent"),
        ("/socket/out?topic=t&clientId=a&batchSize=x", "batchSize"),
        (
            "/socket/out?topic=t&clientId=a&socketPayload=avro&batchSize=2",
            "batchSize",
        ),
    ] {
        let refused = proxy.open(path).await.err().expect(path);
        assert_eq!(refused.status, 400, "{path}");
        assert!(
            refused.message().contains(part),
            "{path}: {}",
            refused.message()
        );
        assert_eq!(refused.headers["content-type"], "application/json");
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn internal_topics_and_the_proxys_own_are_forbidden_to_readers_and_writers() {
    let proxy = Proxy::start().await;
    for topic in [
        "__consumer_offsets",
        "__transaction_state",
        "_wsproxy.session.state",
        "_wsproxy.dynamic.configs",
    ] {
        proxy.topic(topic, 1);
        for path in [
            format!("/socket/in?topic={topic}"),
            format!("/socket/out?topic={topic}&clientId=a"),
            format!("/socket/out?topic=t,{topic}&clientId=a"),
        ] {
            let refused = proxy.open(&path).await.err().expect(&path);
            assert_eq!(refused.status, 403, "{path}");
            let message = refused.message();
            let why = message.contains("internal") || message.contains("the proxy's own");
            assert!(message.contains(topic) && why, "{path}: {message}");
        }
    }
    proxy.topic("_other", 1);
    drop(proxy.connect("/socket/in?topic=_other").await);
    proxy.stopped().await;
}

#[tokio::test]
async fn a_topic_that_no_glob_allows_is_forbidden_before_its_existence_is_looked_at() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("application.conf");
    let globs = "kafka.ws.proxy.server.topics { produce-allowed = [\"orders.*\", events]\n\
                 consume-allowed = \"*, __consumer_offsets, _wsproxy.*\" }";
    std::fs::write(&file, globs).unwrap();
    let program = Program::start(&["--dev", "--config", file.to_str().unwrap()]);
    for (path, status) in [
        ("/socket/in?topic=orders.eu", None),
        ("/socket/in?topic=events", None),
        ("/socket/in?topic=orders", Some(403)),
        ("/socket/in?topic=Events", Some(403)),
        ("/socket/in?topic=__consumer_offsets", Some(403)),
        ("/socket/out?topic=Events&clientId=a", None),
        (
            "/socket/out?topic=events,__transaction_state&clientId=a",
            Some(403),
        ),
        (
            "/socket/out?topic=_wsproxy.session.state&clientId=a",
            Some(403),
        ),
    ] {
        match status {
            None => drop(program.connect(path).await),
            Some(status) => assert_eq!(program.refused(path).await.status, status, "{path}"),
        }
    }
    let refused = program.refused("/socket/in?topic=absent").await.message();
    let expected = "parameter topic: absent is none of the topics that sockets may write to \
                    (server.topics.produce-allowed)";
    assert_eq!(refused, expected);
}

#[tokio::test]
async fn errors_close_accepts_and_closes_with_4000_and_the_status() {
    let proxy = Proxy::start().await;
    let mut socket = proxy.connect("/socket/in?topic=absent&errors=close").await;
    let (code, reason) = socket.closed().await;
    assert_eq!(code, 4400);
    assert!(reason.contains("absent"), "{reason}");
    proxy.stopped().await;
}

#[tokio::test]
async fn plain_requests_get_json_with_their_status() {
    let proxy = Proxy::start().await;
    for (request, status) in [
        ("GET /nowhere HTTP/1.1\nHost: a\nConnection: close", "404"),
        ("GET /socket HTTP/1.1\nHost: a\nConnection: close", "404"),
        ("POST /ready HTTP/1.1\nHost: a\nConnection: close", "405"),
        (
            "DELETE /socket/in?topic=t HTTP/1.1\nHost: a\nConnection: close",
            "405",
        ),
        (
            "GET /socket/in?topic=t HTTP/1.1\nHost: a\nConnection: close",
            "426",
        ),
    ] {
        let response = raw(&proxy, request).await;
        assert!(
            response.starts_with(&format!("HTTP/1.1 {status}")),
            "{response}"
        );
        assert!(
            response.contains("content-type: application/json"),
            "{response}"
        );
        assert!(response.contains(r#"{"message":""#), "{response}");
    }
    let old = UPGRADE.replace("13", "8");
    let response = get(&proxy, "/socket/in?topic=t", &old).await;
    assert!(response.starts_with("HTTP/1.1 426"), "{response}");
    assert!(response.contains("sec-websocket-version: 13"), "{response}");
    let keyless = UPGRADE.replace("Key: dGh", "Key: ");
    let response = get(&proxy, "/socket/in?topic=t", &keyless).await;
    assert!(response.starts_with("HTTP/1.1 400"), "{response}");
    proxy.stopped().await;
}

#[tokio::test]
async fn head_is_answered_as_get_without_the_body() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let head_of = |response: &str| {
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        let lines = head.lines().filter(|line| !line.starts_with("date:"));
        (lines.collect::<Vec<_>>().join("\n"), body.len())
    };
    until_ready_says(&proxy, "200").await;
    for path in [
        "/kafka/cluster/info",
        "/ready",
        "/healthcheck",
        "/schemas/avro/producer/commit",
        "/nowhere",
        "/socket/in?topic=t",
    ] {
        let (expected, length) = head_of(&get(&proxy, path, "").await);
        assert!(length > 0);
        let request = format!("HEAD {path} HTTP/1.1\nHost: a\nConnection: close");
        let (head, length) = head_of(&raw(&proxy, &request).await);
        assert_eq!((head, length), (expected, 0), "{path}");
    }
    let upgrade = format!("HEAD /socket/in?topic=t HTTP/1.1\nHost: a\nConnection: close{UPGRADE}");
    let response = raw(&proxy, &upgrade).await;
    assert!(response.starts_with("HTTP/1.1 426"), "{response}");
    proxy.stopped().await;
}

#[tokio::test]
async fn a_method_that_is_not_allowed_is_answered_with_those_that_are() {
    let proxy = Proxy::start().await;
    for path in [
        "/ready",
        "/kafka/cluster/info",
        "/schemas/avro/producer/record",
        "/socket/in?topic=t",
    ] {
        let request = format!("POST {path} HTTP/1.1\nHost: a\nConnection: close");
        let response = raw(&proxy, &request).await;
        assert!(response.starts_with("HTTP/1.1 405"), "{response}");
        assert!(
            response.contains("\r\nallow: GET, HEAD, OPTIONS\r\n"),
            "{response}"
        );
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn health_readiness_and_brokers_are_answered() {
    let proxy = Proxy::start().await;
    assert!(
        get(&proxy, "/healthcheck", "")
            .await
            .contains(r#"{"response":"I'm healthy"}"#)
    );
    let info = get(&proxy, "/kafka/cluster/info", "").await;
    assert!(
        info.contains(r#"[{"id":1,"host":"127.0.0.1","port":"#),
        "{info}"
    );
    until_ready_says(&proxy, "200").await;
    proxy.stopped().await;
}

#[tokio::test]
async fn without_brokers_it_answers_503_with_the_reason_and_connects_when_they_come() {
    let proxy = Proxy::start().await;
    let node = kafka_client::BrokerId(1);
    proxy.topic("t", 1);
    assert!(proxy.broker.stop_node(node).await);
    let unready = until_ready_says(&proxy, "503").await;
    assert!(unready.contains("reasons"), "{unready}");
    let info = get(&proxy, "/kafka/cluster/info", "").await;
    assert!(info.starts_with("HTTP/1.1 503"), "{info}");
    let refused = proxy.open("/socket/in?topic=fresh").await.err().unwrap();
    assert_eq!(refused.status, 503);
    assert!(refused.headers.contains_key("retry-after"));
    proxy.broker.start_node(node).await.unwrap();
    until_ready_says(&proxy, "200").await;
    let mut socket = proxy.connect("/socket/in?topic=t").await;
    assert_eq!(socket.ask(r#"{"value":{"value":"x"}}"#).await["offset"], 0);
    proxy.stopped().await;
}

/// Waits until `/ready` has that status; nothing else is asked.
async fn until_ready_says(proxy: &Proxy, status: &str) -> String {
    let said = async {
        loop {
            let ready = get(proxy, "/ready", "").await;
            if ready.starts_with(&format!("HTTP/1.1 {status}")) {
                break ready;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, said).await.expect("/ready does not know")
}

#[tokio::test]
async fn an_idle_proxy_knows_of_an_outage_and_refuses_sockets_without_waiting_until_it_is_over() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    until_ready_says(&proxy, "200").await;
    let hang = FaultRule::on(ApiKey::Metadata, FaultAction::Silence);
    proxy.broker.faults().add(hang.always());
    until_ready_says(&proxy, "503").await;
    // If each of them waited for the brokers, it would take minutes.
    let refused = async {
        for i in 0..50 {
            for path in [
                "/socket/in?topic=t".to_owned(),
                format!("/socket/out?topic=t&clientId=a{i}"),
            ] {
                let refused = proxy.open(&path).await.err().expect(&path);
                assert_eq!(refused.status, 503);
                assert!(refused.headers.contains_key("retry-after"));
            }
        }
    };
    timeout(PATIENCE, refused).await.expect("they wait");
    proxy.broker.faults().clear();
    until_ready_says(&proxy, "200").await;
    let mut socket = proxy.connect("/socket/in?topic=t").await;
    assert_eq!(socket.ask(r#"{"value":{"value":"x"}}"#).await["offset"], 0);
    proxy.stopped().await;
}

#[tokio::test]
async fn one_lost_broker_of_several_is_no_outage() {
    let brokers = BrokerConfig {
        nodes: 3,
        ..BrokerConfig::default()
    };
    let proxy = Proxy::with_broker(brokers, |_| {}).await;
    proxy.topic("t", 3);
    until_ready_says(&proxy, "200").await;
    assert!(proxy.broker.stop_node(kafka_client::BrokerId(1)).await);
    for _ in 0..20 {
        drop(proxy.connect("/socket/in?topic=t").await);
        assert!(get(&proxy, "/ready", "").await.starts_with("HTTP/1.1 200"));
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn brokers_are_named_only_to_those_who_may_know_them() {
    for expose in [false, true] {
        let proxy = Proxy::with(|config| {
            config.server.expose_broker_addresses = expose.then_some(true);
        })
        .await;
        proxy.topic("t", 1);
        until_ready_says(&proxy, "200").await;
        let bootstrap = proxy.broker.bootstrap();
        assert!(proxy.broker.stop_node(kafka_client::BrokerId(1)).await);
        let unready = until_ready_says(&proxy, "503").await;
        let info = get(&proxy, "/kafka/cluster/info", "").await;
        assert!(info.starts_with("HTTP/1.1 503"), "{info}");
        let refused = proxy.open("/socket/in?topic=t").await.err().unwrap();
        assert_eq!(refused.status, 503);
        for answer in [unready, info, refused.body] {
            assert!(answer.contains("broker"), "{answer}");
            assert_eq!(answer.contains(&bootstrap), expose, "{answer}");
        }
        proxy.stopped().await;
    }
}

#[tokio::test]
async fn an_origin_that_is_not_allowed_is_refused_and_an_allowed_one_may_read() {
    let origins = AllowedOrigins::parse("https://GOOD.example:443, null").unwrap();
    let proxy = Proxy::with(|config| config.server.websocket.origins = origins).await;
    proxy.topic("t", 1);
    let bad = "\nOrigin: https://bad.example";
    let good = "\nOrigin: https://good.example";
    let refused = get(&proxy, "/socket/in?topic=t", &format!("{bad}{UPGRADE}")).await;
    assert!(refused.starts_with("HTTP/1.1 403"), "{refused}");
    let answer = get(&proxy, "/healthcheck", good).await;
    assert!(
        answer.contains("access-control-allow-origin: https://good.example\r\n"),
        "{answer}"
    );
    let answer = get(&proxy, "/healthcheck", "\nOrigin: null").await;
    assert!(
        answer.contains("access-control-allow-origin: null\r\n"),
        "{answer}"
    );
    let without = get(&proxy, "/healthcheck", "").await;
    assert!(!without.contains("access-control"), "{without}");
    proxy.stopped().await;
}

#[tokio::test]
async fn a_request_with_several_origins_is_refused_whichever_are_allowed() {
    let origins = AllowedOrigins::parse("https://good.example").unwrap();
    for origins in [origins, AllowedOrigins::Any] {
        let proxy = Proxy::with(|config| config.server.websocket.origins = origins).await;
        proxy.topic("t", 1);
        let several = "\nOrigin: https://good.example\nOrigin: https://bad.example";
        for path in ["/healthcheck", "/socket/in?topic=t"] {
            let refused = get(&proxy, path, &format!("{several}{UPGRADE}")).await;
            assert!(refused.starts_with("HTTP/1.1 403"), "{path}: {refused}");
        }
        proxy.stopped().await;
    }
}

#[tokio::test]
async fn every_answer_varies_by_origin_when_only_some_are_allowed() {
    let origins = AllowedOrigins::parse("https://good.example").unwrap();
    let proxy = Proxy::with(|config| config.server.websocket.origins = origins).await;
    for origin in [
        "",
        "\nOrigin: https://good.example",
        "\nOrigin: https://bad.example",
    ] {
        for path in ["/healthcheck", "/nowhere"] {
            let answer = get(&proxy, path, origin).await;
            assert!(answer.contains("\r\nvary: origin\r\n"), "{answer}");
        }
    }
    proxy.stopped().await;

    let proxy = Proxy::start().await;
    let answer = get(&proxy, "/healthcheck", "\nOrigin: https://a.example").await;
    assert!(!answer.contains("vary:"), "{answer}");
    proxy.stopped().await;
}

#[tokio::test]
async fn the_limit_of_connections_is_429() {
    let proxy = Proxy::with(|config| config.server.websocket.max_connections = 1).await;
    proxy.topic("t", 1);
    let first = proxy.connect("/socket/in?topic=t").await;
    let refused = proxy.open("/socket/in?topic=t").await.err().unwrap();
    assert_eq!(refused.status, 429);
    assert!(refused.headers.contains_key("retry-after"));
    first.close().await;
    let slot_is_free = async {
        while proxy.open("/socket/in?topic=t").await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, slot_is_free).await.unwrap();
    proxy.stopped().await;
}

#[tokio::test]
async fn a_group_has_no_more_sockets_than_partitions() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 2);
    let path = |c: &str| format!("/socket/out?topic=t&groupId=g&clientId={c}");
    let _a = proxy.connect(&path("a")).await;
    let _b = proxy.connect(&path("b")).await;
    let refused = proxy.open(&path("c")).await.err().unwrap();
    assert_eq!(refused.status, 400);
    assert!(
        refused.message().contains("groupId"),
        "{}",
        refused.message()
    );
    proxy.stopped().await;
}

#[tokio::test]
async fn a_client_id_that_is_connected_is_refused_while_it_answers() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 2);
    let path = "/socket/out?topic=t&clientId=a";
    let mut first = proxy.connect(path).await;
    // Its client answers pings only while it reads.
    let reading = tokio::spawn(async move {
        let _ = first.next_message().await;
    });
    let refused = proxy.open(path).await.err().unwrap();
    assert_eq!(refused.status, 400);
    assert!(
        refused.message().contains("clientId"),
        "{}",
        refused.message()
    );
    reading.abort();
    proxy.stopped().await;
}

#[tokio::test]
async fn a_client_that_is_silent_is_evicted_when_its_id_comes_again() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 2);
    let path = "/socket/out?topic=t&clientId=a";
    let mut silent = proxy.connect(path).await;
    let mut second = proxy.connect(path).await;
    let (code, reason) = silent.closed().await;
    assert_eq!(code, 1008, "{reason}");
    // And not only fenced by the other one, once that has joined.
    assert!(reason.contains("evicted"), "{reason}");
    let mut producer = proxy.connect("/socket/in?topic=t").await;
    producer.ask(r#"{"value":{"value":"x"}}"#).await;
    assert_eq!(second.next().await["value"]["value"], "x");
    proxy.stopped().await;
}

#[tokio::test]
async fn an_origin_that_is_not_allowed_is_refused_by_a_close_frame_with_errors_close() {
    let origins = AllowedOrigins::parse("https://good.example").unwrap();
    let proxy = Proxy::with(|config| config.server.websocket.origins = origins).await;
    let path = "/socket/in?topic=t&errors=close";
    let mut socket = proxy
        .open_with(path, ("origin", "https://bad.example"))
        .await
        .expect("the upgrade is accepted");
    let (code, reason) = socket.closed().await;
    assert_eq!(code, 4403);
    assert!(reason.contains("Origin"), "{reason}");
    proxy.stopped().await;
}

#[tokio::test]
async fn credentials_for_a_cluster_without_users_are_refused_and_never_ignored() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let offered = "kafka-websocket-proxy, kafka-auth.dXNlcjpwYXNz";
    for (header, place) in [
        (
            ("authorization", "Basic dXNlcjpwYXNz"),
            "header Authorization: Basic",
        ),
        (("x-kafka-auth", "dXNlcjpwYXNz"), "header X-Kafka-Auth"),
        (
            ("sec-websocket-protocol", offered),
            "sub-protocol kafka-auth",
        ),
    ] {
        let refused = proxy.open_with("/socket/in?topic=t", header).await;
        let Err(refused) = refused else {
            panic!("{header:?} was ignored");
        };
        assert_eq!(refused.status, 400);
        let expected = format!(
            "{place}: the cluster is used without SASL, so there are no users; leave it out"
        );
        assert_eq!(refused.message(), expected);
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn credentials_that_cannot_be_read_are_refused_without_a_word_of_them() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    for path in ["/socket/in?topic=t", "/socket/out?topic=t&clientId=a"] {
        let header = ("x-kafka-auth", "hunter2");
        let refused = proxy.open_with(path, header).await.err().expect(path);
        assert_eq!(refused.status, 401);
        let challenge = &refused.headers["www-authenticate"];
        assert_eq!(challenge, r#"X-Kafka-Auth realm="Kafka""#);
        assert!(!refused.body.contains("hunter2"), "{}", refused.body);
        let alone = ("sec-websocket-protocol", "kafka-auth.dXNlcjpwYXNz");
        let refused = proxy.open_with(path, alone).await.err().expect(path);
        assert_eq!(refused.status, 400);
        let message = refused.message();
        assert!(message.contains("offer kafka-websocket-proxy"), "{message}");
    }
    proxy.stopped().await;
}

/// The client sees to it that the answer names what it has offered.
#[tokio::test]
async fn a_sub_protocol_that_is_offered_is_taken_up() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let offered = ("sec-websocket-protocol", "chat, kafka-websocket-proxy");
    let opened = proxy.open_with("/socket/in?topic=t", offered).await;
    let mut socket = opened.expect("a 101");
    let ack = socket.ask(r#"{"value":{"value":"x"}}"#).await;
    assert_eq!(ack["offset"], 0);
    proxy.stopped().await;
}

#[tokio::test]
async fn a_client_whose_socket_is_closing_is_no_duplicate() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    const PATH: &str = "/socket/out?topic=t&clientId=a&groupId=g";
    // It has something to commit, so that it is closing for a while.
    let mut old = proxy.connect(PATH).await;
    let mut producing = proxy.connect("/socket/in?topic=t").await;
    producing.ask(r#"{"value":{"value":"x"}}"#).await;
    assert_eq!(old.next().await["offset"], 0);
    let mut old = old.into_tcp();
    let new = proxy.connect(PATH);
    let close = async {
        // The second connection has come: the first client is probed by a ping.
        let mut ping = [0; 2];
        old.read_exact(&mut ping).await.unwrap();
        assert_eq!(ping, [0x89, 0]);
        old.write_all(&[0x88, 0x80, 0, 0, 0, 0]).await.unwrap();
    };
    let (_new, ()) = timeout(PATIENCE, async { tokio::join!(new, close) })
        .await
        .unwrap();
    proxy.stopped().await;
}

#[tokio::test]
async fn a_client_that_comes_back_at_once_gets_nothing_that_its_close_committed() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    const PATH: &str = "/socket/out?topic=t&clientId=a&groupId=g";
    let mut producing = proxy.connect("/socket/in?topic=t").await;
    // Slow enough for the second connection to join first, if it were admitted.
    const COORDINATOR_LOAD_IN_PROGRESS: i16 = 14;
    let again = FaultAction::Error(COORDINATOR_LOAD_IN_PROGRESS);
    let slow = FaultRule::on(ApiKey::OffsetCommit, again).times(3);
    proxy.broker.faults().add(slow);
    for value in ["v0", "v1"] {
        let mut socket = proxy.connect(PATH).await;
        producing
            .ask(format!(r#"{{"value":{{"value":"{value}"}}}}"#))
            .await;
        assert_eq!(socket.next().await["value"]["value"], value);
        socket.abandon_with_a_close_frame().await;
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn a_consumer_that_its_group_refuses_is_closed_with_1008_and_what_to_do() {
    for (code, part) in [
        (23, "use another group id"),
        (24, "use another group id"),
        (26, "session.timeout.ms"),
        (81, "group.max.size"),
    ] {
        let proxy = Proxy::start().await;
        assert!(proxy.broker.create_topic("t", 1));
        let refusal = FaultRule::on(ApiKey::JoinGroup, FaultAction::Error(code));
        proxy.broker.faults().add(refusal.always());
        let mut socket = proxy.connect("/socket/out?topic=t&clientId=c").await;
        let (close_code, reason) = socket.closed().await;
        assert_eq!(close_code, 1008, "{code}: {reason}");
        assert!(reason.contains(part), "{code}: {reason}");
    }
}
