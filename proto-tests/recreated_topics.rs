//! A topic that is deleted and created again between two commits of a socket that reads it: the
//! next socket of the group is delivered every record of the new one.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use kafka_client::TopicPartition;
use memory_broker::{ApiKey, BrokerConfig, KafkaRelease, MemoryBroker};
use serde_json::{Value, json};
use tokio::task::block_in_place;

use crate::group_faults::{GroupFixture, quick};
use crate::support::kafka::{Kafka, unique};
use crate::support::proxy::Proxy;
use crate::support::reader::Process;
use crate::support::until;
use crate::support::ws_client::WsClient;

/// How the socket's last commit comes about.
#[derive(Clone, Copy, Debug)]
enum LastCommit {
    /// `autoCommit=true`, when the client closes.
    Automatic,
    /// `autoCommit=false`, and the client commits.
    ByClient,
    /// `autoCommit=true`, when the server closes the socket for its topic is gone.
    ClosedByServer,
}

const LAST_COMMITS: [LastCommit; 3] = [
    LastCommit::Automatic,
    LastCommit::ByClient,
    LastCommit::ClosedByServer,
];

impl LastCommit {
    fn path(self, topic: &str) -> String {
        let auto_commit = !matches!(self, Self::ByClient);
        format!("/socket/out?topic={topic}&clientId={topic}&autoCommit={auto_commit}")
    }

    /// Ends the socket, after its topic was created again.
    async fn end(self, mut socket: WsClient, last: &Value) {
        match self {
            Self::Automatic => socket.close().await,
            Self::ByClient => {
                let id = last["wsProxyMessageId"].as_str().unwrap();
                let commit = json!({"wsProxyMessageId": id});
                socket.send(commit.to_string()).await;
                socket.close().await;
            }
            Self::ClosedByServer => {
                let (code, reason) = socket.closed().await;
                assert_eq!(code, 1008, "{reason}");
            }
        }
    }
}

/// Reads 5 records, has the topic created again with 8, and expects all of these in the next socket.
async fn check(
    what: &str,
    proxy: &Proxy,
    topic: &str,
    how: LastCommit,
    recreate: impl AsyncFnOnce(),
) {
    let mut socket = proxy.connect(&how.path(topic)).await;
    let records = socket.records(5).await;
    recreate().await;
    how.end(socket, &records[4]).await;
    let mut next = proxy.connect(&how.path(topic)).await;
    let records = next.records(8).await;
    let offsets: Vec<_> = records.iter().map(|r| r["offset"].as_i64()).collect();
    let all: Vec<_> = (0..8).map(Some).collect();
    assert_eq!(offsets, all, "{what}, {how:?}");
    next.close().await;
}

/// Deletes `t`. Where topics have no ids, the server has asked for it again and again since.
async fn delete_topic(broker: &MemoryBroker, release: KafkaRelease) {
    let asked = broker.requests(ApiKey::Metadata);
    assert!(broker.delete_topic("t"));
    if release == KafkaRelease::V2_1 {
        let seen = || broker.requests(ApiKey::Metadata) >= asked + 6;
        until("the deletion is seen", seen).await;
    }
}

#[tokio::test]
async fn every_record_of_a_recreated_topic_is_delivered_to_the_next_socket() {
    for release in [KafkaRelease::V2_1, KafkaRelease::V2_8, KafkaRelease::V4] {
        for how in LAST_COMMITS {
            let config = BrokerConfig {
                versions: release.versions(),
                ..BrokerConfig::default()
            };
            let proxy = Proxy::with_broker(config, |_| {}).await;
            let produce = async |count| {
                // One that does not know the former topic.
                let process = Process::new(&proxy.broker.bootstrap(), quick());
                let tp = TopicPartition::new("t", 0);
                GroupFixture::produce_by(&process, &tp, count).await;
            };
            proxy.topic("t", 1);
            produce(5).await;
            let recreate = async || {
                delete_topic(&proxy.broker, release).await;
                proxy.topic("t", 1);
                produce(8).await;
            };
            check(&format!("{release:?}"), &proxy, "t", how, recreate).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_record_of_a_topic_that_a_real_cluster_recreated_is_delivered_to_the_next_socket() {
    let kafka = block_in_place(|| Kafka::shared("4.4", 1));
    let proxy = Proxy::with(|config| {
        let bootstrap = kafka.bootstrap().split(',').map(str::to_owned);
        config.client.bootstrap_servers = bootstrap.collect();
    });
    let proxy = proxy.await;
    for how in LAST_COMMITS {
        let topic = unique("recreated");
        block_in_place(|| kafka.create_topic(&topic, 1, 1));
        block_in_place(|| kafka.kcat(&["-P", "-t", &topic], b"a\nb\nc\nd\ne\n"));
        // It begins when it is told to: the commit comes a second after the records.
        let command = kafka.java_command("Topics.java", &["recreate", &topic]);
        let mut java = { command }
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(java.stdout.take().unwrap()).lines();
        let ready = block_in_place(|| lines.next()).unwrap().unwrap();
        assert_eq!(ready, "ready");
        let recreate = async || {
            block_in_place(|| {
                java.stdin.take().unwrap().write_all(b"\n").unwrap();
                assert!(java.wait().unwrap().success());
                kafka.kcat(&["-P", "-t", &topic], b"0\n1\n2\n3\n4\n5\n6\n7\n");
            });
        };
        check("4.4", &proxy, &topic, how, recreate).await;
    }
}
