//! The sockets of all nodes as the admin server lists and closes them.

use kafka_websocket_proxy::config::Config;
use memory_broker::{ApiKey, FaultAction, FaultRule};
use serde_json::{Value, json};

use crate::support::http::{HttpAnswer, ask};
use crate::support::program::Program;
use crate::support::proxy::Proxy;
use crate::support::until_asked;
use crate::support::ws_client::let_in;

const SESSIONS: &str = "/admin/sessions";
/// TOPIC_AUTHORIZATION_FAILED
const NOT_AUTHORIZED: i16 = 29;

fn with_admin(config: &mut Config) {
    config.server.admin.enabled = true;
}

async fn at_admin(address: &str, method: &str, path: &str) -> HttpAnswer {
    ask(address, method, path, &[]).await
}

/// What is listed, without the times.
async fn listed(address: &str) -> Vec<Value> {
    listed_if_loaded(address)
        .await
        .expect("the sessions are loaded")
}

/// The same; `None` from a node that has just started.
async fn listed_if_loaded(address: &str) -> Option<Vec<Value>> {
    let answer = at_admin(address, "GET", SESSIONS).await;
    if answer.status == 503 {
        return None;
    }
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    Some(untimed(&answer.body))
}

fn untimed(body: &str) -> Vec<Value> {
    let mut sockets: Vec<Value> = serde_json::from_str(body).unwrap();
    for socket in &mut sockets {
        let since = socket.as_object_mut().unwrap().remove("since").unwrap();
        // Of this century, in milliseconds.
        assert!(since.as_u64().unwrap() > 1_700_000_000_000, "{since}");
    }
    sockets
}

async fn until_listed(address: &str, expected: &[Value]) {
    until_asked("they are listed", async || {
        listed_if_loaded(address)
            .await
            .is_some_and(|listed| listed == expected)
    })
    .await;
}

async fn until_so_many_are_listed(address: &str, count: usize) {
    until_asked("so many are listed", async || {
        listed_if_loaded(address)
            .await
            .is_some_and(|listed| listed.len() == count)
    })
    .await;
}

fn member(node: &str, group: &str, client: &str) -> Value {
    json!({"node": node, "endpoint": "out", "clientId": client, "groupId": group, "topics": ["t"]})
}

fn out(group: &str, client: &str) -> String {
    format!("/socket/out?topic=t&groupId={group}&clientId={client}")
}

#[tokio::test]
async fn every_socket_of_every_node_is_listed_while_it_is_open() {
    let proxy = Proxy::with(with_admin).await;
    proxy.topic("t", 2);
    let second = proxy.second(with_admin).await;
    proxy.ready().await;
    assert_eq!(listed(&proxy.admin_address).await, Vec::<Value>::new());
    let reader = proxy.connect(&out("g", "a")).await;
    let nameless = proxy.connect("/socket/in?topic=t").await;
    let path = "/socket/in?topic=t&clientId=p&instanceId=1";
    let writer = second.connect(path).await;
    let reader_there = second.connect(&out("g", "b")).await;
    let expected = [
        member("node-1", "g", "a"),
        json!({"node": "node-1", "endpoint": "in", "clientId": null, "topics": ["t"]}),
        json!({"node": "node-2", "endpoint": "in", "clientId": "p", "instanceId": "1", "topics": ["t"]}),
        member("node-2", "g", "b"),
    ];
    for address in [&proxy.admin_address, &second.admin_address] {
        until_listed(address, &expected).await;
    }
    nameless.close().await;
    reader_there.close().await;
    until_listed(
        &second.admin_address,
        &[expected[0].clone(), expected[2].clone()],
    )
    .await;
    writer.close().await;
    reader.close().await;
    until_listed(&second.admin_address, &[]).await;
    second.stopped().await;
    proxy.stopped().await;
}

#[tokio::test]
async fn a_list_of_many_sockets_is_one_array() {
    let proxy = Proxy::with(with_admin).await;
    proxy.topic("t", 1);
    proxy.ready().await;
    let mut sockets = Vec::new();
    for n in 0..300 {
        sockets.push(
            proxy
                .connect(&format!("/socket/in?topic=t&clientId=c{n}"))
                .await,
        );
    }
    let listed = listed(&proxy.admin_address).await;
    let ids: Vec<_> = listed
        .iter()
        .map(|s| s["clientId"].as_str().unwrap())
        .collect();
    let mut expected: Vec<_> = (0..300).map(|n| format!("c{n}")).collect();
    expected.sort();
    let mut sorted = ids.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, expected);
    drop(sockets);
    proxy.stopped().await;
}

#[tokio::test]
async fn a_socket_of_another_node_is_closed_and_the_answer_says_which() {
    let proxy = Proxy::with(with_admin).await;
    proxy.topic("t", 2);
    // Its own admin server is not needed for that.
    let second = proxy.second(|_| {}).await;
    let mut reader = second.connect(&out("g", "a")).await;
    let other = second.connect(&out("g", "b")).await;
    let closed = at_admin(&proxy.admin_address, "DELETE", "/admin/sessions/g/a");
    let closing = reader.closed();
    let (answer, closed) = tokio::join!(closed, closing);
    assert_eq!(closed, (1008, "closed by an administrator".to_owned()));
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(untimed(&answer.body), [member("node-2", "g", "a")]);
    // It may come back, also at the node that has it closed.
    let again = proxy.connect(&out("g", "a")).await;
    let gone = at_admin(&proxy.admin_address, "DELETE", "/admin/sessions/h/a").await;
    assert_eq!(gone.status, 404);
    assert!(gone.message().contains("no such socket"));
    other.close().await;
    again.close().await;
    second.stopped().await;
    proxy.stopped().await;
}

#[tokio::test]
async fn the_producing_sockets_of_a_client_are_closed_all_or_those_of_an_instance() {
    let proxy = Proxy::with(with_admin).await;
    proxy.topic("t", 1);
    let second = proxy.second(with_admin).await;
    let path = |instance: &str| format!("/socket/in?topic=t&clientId=p%2F1&instanceId={instance}");
    let mut at_first = proxy.connect(&path("a")).await;
    let mut at_second = second.connect(&path("a")).await;
    let mut other_instance = second.connect(&path("b")).await;
    let other_client = second
        .connect("/socket/in?topic=t&clientId=q&instanceId=a")
        .await;
    for address in [&proxy.admin_address, &second.admin_address] {
        until_so_many_are_listed(address, 4).await;
    }
    let path = "/admin/sessions/producer/p%2F1/a";
    let (answer, first, second_) = tokio::join!(
        at_admin(&proxy.admin_address, "DELETE", path),
        at_first.closed(),
        at_second.closed()
    );
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(untimed(&answer.body).len(), 2);
    let closed = (1008, "closed by an administrator".to_owned());
    assert_eq!([first, second_], [closed.clone(), closed.clone()]);
    let path = "/admin/sessions/producer/p%2F1";
    let (answer, ended) = tokio::join!(
        at_admin(&second.admin_address, "DELETE", path),
        other_instance.closed()
    );
    assert_eq!((answer.status, ended), (200, closed));
    let left = listed(&second.admin_address).await;
    assert_eq!(left.len(), 1);
    assert_eq!(left[0]["clientId"], "q");
    other_client.close().await;
    second.stopped().await;
    proxy.stopped().await;
}

#[tokio::test]
async fn while_the_log_is_in_trouble_the_own_sockets_are_closed_and_those_of_others_are_not() {
    let proxy = Proxy::with(with_admin).await;
    proxy.topic("t", 1);
    let second = proxy.second(|_| {}).await;
    let mut own = proxy.connect("/socket/in?topic=t&clientId=own").await;
    let other = second.connect("/socket/in?topic=t&clientId=other").await;
    until_so_many_are_listed(&proxy.admin_address, 2).await;
    let rule = FaultRule::on(ApiKey::Produce, FaultAction::Error(NOT_AUTHORIZED)).always();
    proxy.broker.faults().add(rule);
    let (answer, closed) = tokio::join!(
        at_admin(
            &proxy.admin_address,
            "DELETE",
            "/admin/sessions/producer/own"
        ),
        own.closed()
    );
    assert_eq!((answer.status, closed.0), (200, 1008), "{}", answer.body);
    let path = "/admin/sessions/producer/other";
    until_asked("503", async || {
        let answer = at_admin(&proxy.admin_address, "DELETE", path).await;
        answer.status == 503 && answer.message().contains("it cannot be written")
    })
    .await;
    // Those that come are listed all the same, and nobody waits for that.
    let late = proxy.connect("/socket/in?topic=t&clientId=late").await;
    let sockets = listed(&proxy.admin_address).await;
    assert!(
        sockets.iter().any(|s| s["clientId"] == "late"),
        "{sockets:?}"
    );
    proxy.broker.faults().clear();
    let third = proxy
        .second(|config| {
            with_admin(config);
            config.server.server_id = "node-3".to_owned();
        })
        .await;
    let producer = |node: &str, client: &str| json!({"node": node, "endpoint": "in", "clientId": client, "topics": ["t"]});
    let open = [producer("node-1", "late"), producer("node-2", "other")];
    until_listed(&third.admin_address, &open).await;
    late.close().await;
    other.close().await;
    third.stopped().await;
    second.stopped().await;
    proxy.stopped().await;
}

#[tokio::test]
async fn the_sockets_of_a_killed_node_are_listed_until_its_lease_is_over() {
    let proxy = Proxy::with(with_admin).await;
    proxy.topic("t", 1);
    let lease = ["--session-handler-lease-duration", "3s"];
    let node = ["--server-id", "killed"];
    let killed = Program::for_cluster(&proxy.broker.bootstrap(), &[node, lease].concat());
    killed.ready().await;
    let _socket = killed.connect("/socket/in?topic=t&clientId=p").await;
    until_so_many_are_listed(&proxy.admin_address, 1).await;
    killed.signal("KILL");
    // That is waited for as long as for a socket that closes.
    let answer = at_admin(&proxy.admin_address, "DELETE", "/admin/sessions/producer/p").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(untimed(&answer.body)[0]["node"], "killed");
    assert_eq!(listed(&proxy.admin_address).await, Vec::<Value>::new());
    proxy.stopped().await;
}

#[tokio::test]
async fn a_node_that_does_not_close_a_socket_in_time_is_named() {
    let proxy = Proxy::with(with_admin).await;
    proxy.topic("t", 1);
    let lease = ["--session-handler-lease-duration", "10 minutes"];
    let node = ["--server-id", "killed"];
    let killed = Program::for_cluster(&proxy.broker.bootstrap(), &[node, lease].concat());
    killed.ready().await;
    let _socket = killed.connect(&out("g", "a")).await;
    until_so_many_are_listed(&proxy.admin_address, 1).await;
    killed.signal("KILL");
    let answer = at_admin(&proxy.admin_address, "DELETE", "/admin/sessions/g/a").await;
    assert_eq!(answer.status, 503);
    assert!(answer.message().contains("at killed"), "{}", answer.body);
    proxy.stopped().await;
}

#[tokio::test]
async fn before_the_sessions_are_known_the_list_is_refused() {
    let proxy = Proxy::with(with_admin).await;
    assert!(proxy.broker.stop_node(kafka_client::BrokerId(1)).await);
    let second = proxy.second(with_admin).await;
    for (method, path) in [("GET", SESSIONS), ("DELETE", "/admin/sessions/g/a")] {
        let answer = at_admin(&second.admin_address, method, path).await;
        assert_eq!(answer.status, 503, "{method} {path}");
        assert!(answer.header("retry-after").is_some());
    }
    let started = proxy.broker.start_node(kafka_client::BrokerId(1)).await;
    started.unwrap();
    proxy.topic("t", 1);
    let socket = let_in(async || second.open(&out("g", "a")).await).await;
    until_listed(&second.admin_address, &[member("node-2", "g", "a")]).await;
    socket.close().await;
    second.stopped().await;
    proxy.stopped().await;
}
