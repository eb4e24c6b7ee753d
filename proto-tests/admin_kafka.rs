//! Groups that Java and librdkafka have made at a real broker, as the admin server tells and changes
//! them, and as Java's `Admin` sees them then.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tokio::task::block_in_place;

use crate::support::http::{ask, send};
use crate::support::kafka::{Kafka, unique};
use crate::support::program::Program;
use crate::support::until_asked;

/// A proxy in front of it, and where its admin server is.
async fn proxy(kafka: &Kafka) -> (Program, String) {
    let (bootstrap, topic) = (kafka.bootstrap(), unique("_sessions"));
    let args = [
        "--bootstrap-hosts",
        bootstrap,
        "--admin-enabled",
        "true",
        "--admin-port",
        "0",
        "--session-handler-session-state-topic-name",
        &topic,
    ];
    let (program, log) = Program::start_logged(&args, &[]);
    program.ready().await;
    let admin = log.admin_address().await;
    (program, admin)
}

async fn get_json(address: &str, path: &str) -> Value {
    let answer = ask(address, "GET", path, &[]).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    serde_json::from_str(&answer.body).unwrap()
}

/// A member of a group, in a program of its own, until it is dropped.
struct Member(Child);

impl Member {
    /// Returns when it has read that many records.
    fn start(mut command: Command, records: usize) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let read = output.lines().map_while(Result::ok);
        let read = read.filter(|line| line.starts_with("= ")).take(records);
        assert_eq!(read.count(), records);
        Self(child)
    }

    /// Has it leave: Java's program ends with its input, kcat at a signal.
    fn leave(mut self, kind: &str) {
        drop(self.0.stdin.take());
        if kind == "librdkafka" {
            let pid = self.0.id().to_string();
            assert!(Command::new("kill").arg(pid).status().unwrap().success());
        }
        self.0.wait().unwrap();
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn java(kafka: &Kafka, group: &str, topic: &str, strategies: &str) -> Member {
    let command = kafka.java_command("Member.java", &[group, topic, strategies]);
    Member::start(command, 10)
}

fn librdkafka(kafka: &Kafka, group: &str, topic: &str) -> Member {
    let mut command = Command::new("kcat");
    let bootstrap = kafka.bootstrap();
    command.args(["-q", "-b", bootstrap, "-u", "-f", "= %s\n", "-G", group]);
    for setting in [
        "client.id=librdkafka",
        "auto.offset.reset=earliest",
        "auto.commit.interval.ms=100",
    ] {
        command.args(["-X", setting]);
    }
    command.arg(topic);
    Member::start(command, 10)
}

/// What Java's `Admin` says of them, as `PARTITION OFFSET` lines.
fn offsets_by_java(kafka: &Kafka, group: &str, topic: &str) -> String {
    block_in_place(|| kafka.java("Groups.java", &["offsets", group, topic]))
}

fn offset_lines(offsets: &Value) -> String {
    let line = |o: &Value| format!("{} {}\n", o["partition"], o["offset"]);
    offsets.as_array().unwrap().iter().map(line).collect()
}

async fn a_group_of(kind: &str, client_id: &str) {
    let kafka = block_in_place(|| Kafka::shared("4.4", 3));
    let (topic, group) = (unique("admin"), unique(&format!("group/{kind}")));
    block_in_place(|| {
        kafka.create_topic(&topic, 2, 3);
        for partition in ["0", "1"] {
            let records = "a\nb\nc\nd\ne\n".as_bytes();
            kafka.kcat(&["-P", "-t", &topic, "-p", partition], records);
        }
    });
    let (_program, admin) = proxy(&kafka).await;
    let member = block_in_place(|| match kind {
        "librdkafka" => librdkafka(&kafka, &group, &topic),
        "classic" => java(&kafka, &group, &topic, "CooperativeStickyAssignor"),
        kind => java(&kafka, &group, &topic, kind),
    });
    let path = format!("/admin/consumer-group/{}", group.replace('/', "%2F"));
    // Each has read all, and commits it.
    let (describe, offsets) = (format!("{path}/describe"), format!("{path}/offsets"));
    until_asked("all is committed", async || {
        let all = get_json(&admin, &offsets).await;
        offset_lines(&all) == "0 5\n1 5\n" && all[0]["lag"] == 0
    })
    .await;
    assert_eq!(offsets_by_java(&kafka, &group, &topic), "0 5\n1 5\n");
    let described = get_json(&admin, &describe).await;
    assert_eq!(described["state"], "STABLE", "{described}");
    let members = described["members"].as_array().unwrap();
    let [member_shown] = &members[..] else {
        panic!("{described}");
    };
    assert_eq!(member_shown["clientId"], client_id);
    let partition = |n| json!({"topic": topic, "partition": n});
    assert_eq!(
        member_shown["partitions"],
        json!([partition(0), partition(1)])
    );
    let seen = block_in_place(|| kafka.java("Groups.java", &["members", &group]));
    assert!(seen.trim().ends_with(&format!("{client_id} 2")), "{seen}");
    let all = get_json(&admin, "/admin/consumer-group/all?activeOnly=true").await;
    let is_it = |listed: &&Value| listed["groupId"] == *group;
    let listed = all.as_array().unwrap().iter().find(is_it).unwrap();
    assert_eq!(listed["members"], json!([client_id]));

    let alter = format!("{offsets}/alter/{topic}");
    let new = json!([{"topic": topic, "partition": 1, "offset": 2, "metadata": "back"}]);
    let new = new.to_string();
    let refused = send(&admin, "PUT", &alter, &[], &new).await;
    assert_eq!(refused.status, 412, "{}", refused.body);
    let refused = ask(&admin, "DELETE", &offsets, &[]).await;
    assert_eq!(refused.status, 412, "{}", refused.body);
    block_in_place(|| member.leave(kind));
    until_asked("it has left", async || {
        get_json(&admin, &describe).await["state"] == "EMPTY"
    })
    .await;
    let answer = send(&admin, "PUT", &alter, &[], &new).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let answer: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(answer[1]["metadata"], "back");
    assert_eq!(answer[1]["lag"], 3);
    assert_eq!(offsets_by_java(&kafka, &group, &topic), "0 5\n1 2\n");
    let answer = ask(&admin, "DELETE", &offsets, &[]).await;
    assert_eq!((answer.status, &*answer.body), (200, "[]"));
    assert_eq!(offsets_by_java(&kafka, &group, &topic), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_of_javas_classic_consumers_is_told_and_changed() {
    a_group_of("classic", "java").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_of_the_new_protocol_is_told_and_changed() {
    a_group_of("kip-848", "java").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_of_librdkafkas_consumers_is_told_and_changed() {
    a_group_of("librdkafka", "librdkafka").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_a_real_cluster_does_not_have_is_not_found() {
    let kafka = block_in_place(|| Kafka::shared("4.4", 3));
    let (_program, admin) = proxy(&kafka).await;
    for (method, path) in [
        ("GET", "describe"),
        ("GET", "offsets"),
        ("DELETE", "offsets"),
    ] {
        let path = format!("/admin/consumer-group/nobody/{path}");
        assert_eq!(ask(&admin, method, &path, &[]).await.status, 404, "{path}");
    }
}
