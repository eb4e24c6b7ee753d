//! One group that holds two consumers of ours, one of Java's and one of librdkafka's.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use kafka_client::config::{AssignorName, ConsumerConfig};
use tokio::sync::watch;

use crate::support::kafka::{Kafka, unique};
use crate::support::reader::{Process, Reader, subscription};
use crate::support::{PATIENCE, until};

const PARTITIONS: i32 = 12;

/// What a member of another client has printed: the partitions it owns, the values it read.
#[derive(Clone, Debug, Default)]
struct ForeignOutput {
    owned: BTreeSet<i32>,
    values: Vec<String>,
}

/// A member that runs as a process of its own.
struct ForeignMember {
    child: Child,
    output: Arc<watch::Sender<ForeignOutput>>,
    seen: watch::Receiver<ForeignOutput>,
    listeners: Vec<std::thread::JoinHandle<()>>,
}

impl ForeignMember {
    fn start(mut command: Command, parse: fn(&mut ForeignOutput, &str)) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (output, seen) = watch::channel(ForeignOutput::default());
        let output = Arc::new(output);
        let listen = |pipe: Box<dyn Read + Send>| {
            let output = Arc::clone(&output);
            std::thread::spawn(move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    output.send_modify(|output| parse(output, &line));
                }
            })
        };
        let listeners = vec![
            listen(Box::new(child.stdout.take().unwrap())),
            listen(Box::new(child.stderr.take().unwrap())),
        ];
        Self {
            child,
            output,
            seen,
            listeners,
        }
    }

    fn owned(&self) -> BTreeSet<i32> {
        self.seen.borrow().owned.clone()
    }

    /// Waits until it has left in order, and returns the values that it read.
    async fn stop(mut self) -> Vec<String> {
        drop(self.child.stdin.take());
        let end = tokio::task::spawn_blocking(move || {
            for listener in self.listeners.drain(..) {
                listener.join().unwrap();
            }
            self.child.wait().unwrap();
            self.output.borrow().values.clone()
        });
        tokio::time::timeout(PATIENCE, end).await.unwrap().unwrap()
    }
}

fn java(kafka: &Kafka, group: &str, topic: &str, strategies: &str) -> ForeignMember {
    let command = kafka.java_command("Member.java", &[group, topic, strategies]);
    ForeignMember::start(command, |output, line| match line.split_once(' ') {
        Some(("+", partition)) => output.owned.extend(partition.parse::<i32>()),
        Some(("-", partition)) => output.owned.retain(|p| p.to_string() != partition),
        Some(("=", rest)) => output
            .values
            .push(rest.split_once(' ').unwrap().1.to_owned()),
        _ => {}
    })
}

/// kcat prints its partitions as `% Group g rebalanced (memberid m): assigned: t [0], t [1]`,
/// or `% Group g rebalanced: incremental assignment of 2 partition(s) (memberid m): t [0], t [1]`.
fn librdkafka(kafka: &Kafka, group: &str, topic: &str, strategies: &str) -> ForeignMember {
    let mut command = Command::new("kcat");
    command.args(["-b", kafka.bootstrap(), "-u", "-f", "= %s\n", "-G", group]);
    for setting in [
        &format!("partition.assignment.strategy={strategies}"),
        "auto.offset.reset=earliest",
        "heartbeat.interval.ms=500",
        "auto.commit.interval.ms=200",
    ] {
        command.args(["-X", setting]);
    }
    command.arg(topic);
    ForeignMember::start(command, |output, line| {
        if let Some(value) = line.strip_prefix("= ") {
            return output.values.push(value.to_owned());
        }
        let Some((head, list)) = line
            .split_once("): ")
            .filter(|_| line.contains("rebalanced"))
        else {
            return;
        };
        let named = list.split('[').skip(1);
        let partitions = named.filter_map(|text| text.split(']').next()?.parse::<i32>().ok());
        if head.contains("assignment") || list.starts_with("assigned") {
            output.owned.extend(partitions);
        } else {
            let gone: BTreeSet<i32> = partitions.collect();
            output.owned.retain(|partition| !gone.contains(partition));
        }
    })
}

/// Writes numbered values to every partition in turn.
fn produce(kafka: &Kafka, topic: &str, numbers: std::ops::Range<usize>) {
    for partition in 0..PARTITIONS {
        let mine = numbers
            .clone()
            .filter(|n| n % PARTITIONS as usize == partition as usize);
        let lines: String = mine.map(|n| format!("v{n}\n")).collect();
        kafka.kcat(
            &["-P", "-t", topic, "-p", &partition.to_string()],
            lines.as_bytes(),
        );
    }
}

/// Waits until every partition has exactly one owner and no member has more than its share.
async fn shared_out(what: &str, ours: &[&Reader], others: &[&ForeignMember]) {
    let members = ours.len() + others.len();
    let is_shared_out = || {
        let number = |reader: &&Reader| reader.owned().iter().map(|tp| tp.partition).collect();
        let mut owned: Vec<BTreeSet<i32>> = ours.iter().map(number).collect();
        owned.extend(others.iter().map(|other| other.owned()));
        let all: BTreeSet<i32> = owned.iter().flatten().copied().collect();
        let sum: usize = owned.iter().map(BTreeSet::len).sum();
        let fair = owned
            .iter()
            .all(|own| own.len() == PARTITIONS as usize / members);
        fair && all.len() == sum
    };
    until(what, is_shared_out).await;
}

async fn read_of(values: usize, ours: &[&Reader], others: &[&ForeignMember]) {
    let by_ours = || ours.iter().map(|reader| reader.seen.borrow().count());
    let by_others = || others.iter().map(|other| other.seen.borrow().values.len());
    until(&format!("{values} values are read"), || {
        by_ours().chain(by_others()).sum::<usize>() >= values
    })
    .await;
}

async fn a_mixed_group(assignors: Vec<AssignorName>, java_strategies: &str, rdkafka: &str) {
    let kafka = Kafka::shared("4.4", 1);
    let (topic, group) = (unique("mixed"), unique("group"));
    kafka.create_topic(&topic, PARTITIONS, 1);
    produce(&kafka, &topic, 0..600);
    let process = Process::new(
        kafka.bootstrap(),
        ConsumerConfig {
            assignors,
            heartbeat_interval: Duration::from_millis(500),
            ..ConsumerConfig::default()
        },
    );
    let a = process.reader(subscription(&group, &[&topic]));
    let j = java(&kafka, &group, &topic, java_strategies);
    shared_out("with Java", &[&a], &[&j]).await;
    let k = librdkafka(&kafka, &group, &topic, rdkafka);
    shared_out("with librdkafka", &[&a], &[&j, &k]).await;
    let b = process.reader(subscription(&group, &[&topic]));
    shared_out("all four", &[&a, &b], &[&j, &k]).await;
    produce(&kafka, &topic, 600..1200);
    read_of(1200, &[&a, &b], &[&j, &k]).await;

    // Our first member was the leader from the start; it leaves first.
    let mut values: BTreeMap<String, usize> = BTreeMap::new();
    let mut count = |list: &mut dyn Iterator<Item = String>| {
        list.for_each(|value| *values.entry(value).or_default() += 1);
    };
    let read = |reader: Reader| async {
        let seen = reader.close().await;
        seen.values
            .into_values()
            .flatten()
            .map(|(_, value)| value)
            .collect::<Vec<_>>()
    };
    count(&mut read(a).await.into_iter());
    shared_out("without our leader", &[&b], &[&j, &k]).await;
    count(&mut j.stop().await.into_iter());
    shared_out("without Java", &[&b], &[&k]).await;
    let pid = k.child.id().to_string();
    assert!(Command::new("kill").arg(&pid).status().unwrap().success());
    count(&mut k.stop().await.into_iter());
    shared_out("alone", &[&b], &[]).await;
    produce(&kafka, &topic, 1200..1800);
    let mut b = b;
    b.until("the last", |seen| {
        seen.values.values().flatten().any(|(_, v)| v == "v1799")
    })
    .await;
    b.until("all of the last", |seen| {
        let have: BTreeSet<_> = seen.values.values().flatten().map(|(_, v)| v).collect();
        (1200..1800).all(|n| have.contains(&format!("v{n}")))
    })
    .await;
    count(&mut read(b).await.into_iter());
    let twice = values.values().filter(|times| **times > 1).count();
    assert_eq!(values.len(), 1800, "every record was read");
    assert_eq!(twice, 0, "who lets go of a partition has committed it");
    let offsets = kafka.java("Groups.java", &["offsets", &group, &topic]);
    let expected: String = (0..PARTITIONS).map(|p| format!("{p} 150\n")).collect();
    assert_eq!(offsets, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn java_librdkafka_and_our_members_share_a_cooperative_group() {
    let assignors = vec![AssignorName::CooperativeSticky, AssignorName::Range];
    a_mixed_group(assignors, "CooperativeStickyAssignor", "cooperative-sticky").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn java_librdkafka_and_our_members_share_an_eager_group() {
    let assignors = vec![AssignorName::CooperativeSticky, AssignorName::Range];
    let java = "RangeAssignor,CooperativeStickyAssignor";
    a_mixed_group(assignors, java, "range,roundrobin").await;
}
