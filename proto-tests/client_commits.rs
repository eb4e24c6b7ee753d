//! Commits by clients (`autoCommit=false`), and what is committed for clients that do not.

use std::time::Duration;

use kafka_client::TopicPartition;
use serde_json::{Value, json};

use crate::support::proxy::Proxy;
use crate::support::until;
use crate::support::ws_client::WsClient;

const PATH: &str = "/socket/out?topic=t&groupId=g&autoCommit=false&clientId=";

fn committed(proxy: &Proxy, partition: i32) -> Option<i64> {
    proxy
        .broker
        .committed("g", &TopicPartition::new("t", partition))
}

fn commit_of(record: &Value) -> String {
    let id = record["wsProxyMessageId"].as_str().expect("an id");
    json!({ "wsProxyMessageId": id }).to_string()
}

fn assert_unknown(answer: &Value, record: &Value) {
    assert_eq!(answer["error"]["code"], "unknown_message_id", "{answer}");
    assert_eq!(answer["wsProxyMessageId"], record["wsProxyMessageId"]);
}

async fn commit_and_wait(proxy: &Proxy, socket: &mut WsClient, record: &Value) {
    socket.send(commit_of(record)).await;
    let partition = record["partition"].as_i64().unwrap() as i32;
    let next = record["offset"].as_i64().unwrap() + 1;
    let is_committed = || committed(proxy, partition) == Some(next);
    until("it is committed", is_committed).await;
}

#[tokio::test]
async fn a_commit_covers_its_own_partition_only_and_the_older_records_of_it() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 2);
    proxy.produce(2, 5).await;
    let mut socket = proxy.connect(&format!("{PATH}a")).await;
    let records = socket.records(10).await;
    let of = |partition, offset| {
        let is_it = |r: &&Value| r["partition"] == partition && r["offset"] == offset;
        records.iter().find(is_it).expect("it was delivered")
    };
    commit_and_wait(&proxy, &mut socket, of(0, 3)).await;
    assert_eq!(committed(&proxy, 1), None);
    for older in 0..=3 {
        let answer = socket.ask(commit_of(of(0, older))).await;
        assert_unknown(&answer, of(0, older));
    }
    commit_and_wait(&proxy, &mut socket, of(1, 0)).await;
    commit_and_wait(&proxy, &mut socket, of(0, 4)).await;
    commit_and_wait(&proxy, &mut socket, of(1, 4)).await;
    proxy.stopped().await;
}

#[tokio::test]
async fn a_full_stack_holds_up_no_delivery_and_what_it_has_dropped_can_be_committed() {
    let proxy = Proxy::with(|config| config.commits.max_stack_size = 2).await;
    proxy.topic("t", 1);
    proxy.produce(1, 1_000).await;
    let path = format!("{PATH}a");
    let mut socket = proxy.connect(&path).await;
    let records = socket.records(1_000).await;
    for step in [0, 100, 900, 998] {
        commit_and_wait(&proxy, &mut socket, &records[step]).await;
    }
    socket.close().await;
    // Redelivered from the last commit.
    let mut socket = proxy.connect(&format!("{path}&batchSize=7")).await;
    assert_eq!(socket.records(1).await[0]["offset"], 999);
    proxy.stopped().await;
}

#[tokio::test]
async fn what_a_client_never_commits_is_committed_once_it_is_old_enough() {
    let proxy = Proxy::with(|config| {
        config.commits.auto_commit_enabled = true;
        config.commits.auto_commit_interval = Duration::from_millis(1);
        config.commits.auto_commit_max_age = Duration::from_millis(1);
    })
    .await;
    proxy.topic("t", 2);
    proxy.produce(2, 5).await;
    let mut socket = proxy.connect(&format!("{PATH}a")).await;
    let records = socket.records(10).await;
    let all = || committed(&proxy, 0) == Some(5) && committed(&proxy, 1) == Some(5);
    until("all is committed", all).await;
    let answer = socket.ask(commit_of(&records[3])).await;
    assert_unknown(&answer, &records[3]);
    proxy.produce(1, 1).await;
    socket.records(1).await;
    until("the next is, too", || committed(&proxy, 0) == Some(6)).await;
    proxy.stopped().await;
}

#[tokio::test]
async fn what_is_not_old_enough_is_not_committed_by_a_close_either() {
    let proxy = Proxy::with(|config| {
        config.commits.auto_commit_enabled = true;
        config.commits.auto_commit_interval = Duration::from_millis(1);
        config.commits.auto_commit_max_age = Duration::from_secs(3600);
    })
    .await;
    proxy.topic("t", 1);
    proxy.produce(1, 5).await;
    let path = format!("{PATH}a");
    let mut socket = proxy.connect(&path).await;
    let records = socket.records(5).await;
    commit_and_wait(&proxy, &mut socket, &records[1]).await;
    socket.close().await;
    let mut socket = proxy.connect(&path).await;
    assert_eq!(socket.records(1).await[0]["offset"], 2);
    assert_eq!(committed(&proxy, 0), Some(2));
    proxy.stopped().await;
}

#[tokio::test]
async fn a_commit_for_a_partition_that_has_moved_is_answered_and_its_records_come_to_the_new_owner()
{
    let proxy = Proxy::start().await;
    proxy.topic("t", 2);
    proxy.produce(2, 3).await;
    let mut first = proxy.connect(&format!("{PATH}a")).await;
    let records = first.records(6).await;
    for partition in 0..2 {
        let of_it = |r: &&Value| r["partition"] == partition;
        let record = records.iter().find(of_it).expect("one of each");
        commit_and_wait(&proxy, &mut first, record).await;
    }
    let mut second = proxy.connect(&format!("{PATH}b")).await;
    let again = second.records(2).await;
    let moved = again[0]["partition"].as_i64().expect("a partition");
    assert_eq!(again[0]["offset"], 1, "what was not committed");
    let (late, own): (Vec<_>, Vec<_>) = records
        .iter()
        .filter(|r| r["offset"] == 2)
        .partition(|r| r["partition"] == moved);
    let answer = first.ask(commit_of(late[0])).await;
    assert_unknown(&answer, late[0]);
    commit_and_wait(&proxy, &mut first, own[0]).await;
    assert_eq!(committed(&proxy, moved as i32), Some(1));
    commit_and_wait(&proxy, &mut second, &again[1]).await;
    proxy.stopped().await;
}
