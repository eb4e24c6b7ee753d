//! Sessions with brokers that are renewed (KIP-368) while 5,000 records a second go both ways.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::oauthbearer::{HOUR, credentials, validating};
use super::*;
use crate::support::program::Program;
use crate::support::random::from_environment;
use crate::support::token_endpoint::{CLIENT_SECRET, FakeProvider};
use crate::support::ws_client::WsClient;

/// Producing sockets, each with a partition of its own.
const PRODUCERS: u64 = 5;
/// A frame of so many records every 10 ms from each of them: 5,000 records a second.
const FRAME_RECORDS: u64 = 10;
const FRAME_INTERVAL: Duration = Duration::from_millis(10);

/// When the load ends.
#[derive(Clone, Copy, Debug)]
enum LoadEnd {
    /// When so many sessions have been renewed.
    Renewals(f64),
    /// After so long.
    Elapsed(Duration),
}

/// What a load came to.
#[derive(Debug)]
struct LoadFigures {
    records: u64,
    seconds: f64,
    renewals: f64,
    /// From a frame to its answer.
    latency_max: Duration,
}

/// How many sessions the proxy has renewed.
async fn renewals(proxy: &Program) -> f64 {
    let (status, text) = proxy.get("/metrics").await;
    assert_eq!(status, 200);
    let name = "wsproxy_kafka_reauthentications_total ";
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.expect("it is counted").parse().unwrap()
}

/// Writes numbers from 0 into a partition, a frame at every tick whatever is not yet answered, until
/// it is told to stop; how many, and the longest wait for an answer.
async fn produce(
    mut socket: WsClient,
    partition: u64,
    stop: watch::Receiver<bool>,
) -> (u64, Duration) {
    let mut ticks = interval(FRAME_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (mut sent, mut answered) = (0, 0);
    let mut unanswered = VecDeque::new();
    let mut latency_max = Duration::ZERO;
    while !*stop.borrow() || !unanswered.is_empty() {
        tokio::select! {
            _ = ticks.tick(), if !*stop.borrow() => {
                let record = |n| json!({"partition": partition, "value": {"value": n}});
                let frame: Vec<_> = (sent..sent + FRAME_RECORDS).map(record).collect();
                socket.send(Value::Array(frame).to_string()).await;
                unanswered.push_back(Instant::now());
                sent += FRAME_RECORDS;
            }
            answers = socket.next(), if !unanswered.is_empty() => {
                for answer in answers.as_array().unwrap() {
                    assert_eq!(answer["offset"], answered, "{answer}");
                    assert_eq!(answer["partition"], partition, "{answer}");
                    answered += 1;
                }
                let sent_at = unanswered.pop_front().unwrap();
                latency_max = latency_max.max(sent_at.elapsed());
            }
        }
    }
    (sent, latency_max)
}

/// Reads every partition from its start, until it is told how many records each has.
async fn consume(mut socket: WsClient, mut totals: watch::Receiver<Option<Vec<u64>>>) {
    let mut next = vec![0; usize::try_from(PRODUCERS).unwrap()];
    loop {
        let done = |totals: &Option<Vec<u64>>| totals.as_ref() == Some(&next);
        if done(&totals.borrow_and_update()) {
            return;
        }
        let frame = tokio::select! {
            frame = socket.next() => frame,
            _ = totals.changed() => continue,
        };
        for record in frame.as_array().unwrap() {
            let partition = usize::try_from(record["partition"].as_u64().unwrap()).unwrap();
            let expected = next[partition];
            assert_eq!(record["offset"], expected, "{record}");
            assert_eq!(record["value"]["value"], expected, "{record}");
            next[partition] += 1;
        }
    }
}

/// Puts load on a proxy whose sessions are renewed meanwhile: every record is answered and delivered
/// once and in order, and in the log once and in order.
async fn is_whole(kafka: &Kafka, connecting: &ProxyProperties, end: LoadEnd) -> LoadFigures {
    let topic = unique("renewed");
    let partitions = i32::try_from(PRODUCERS).unwrap();
    block_in_place(|| kafka.create_topic(&topic, partitions, 1));
    let (proxy, log) = connecting.start();
    proxy.ready().await;
    let (stop, stopped) = watch::channel(false);
    let (tell, totals) = watch::channel(None);
    let client = unique("c");
    let path = format!("/socket/out?topic={topic}&valType=json&batchSize=500&clientId={client}");
    let consumer = tokio::spawn(consume(proxy.connect(&path).await, totals));
    let mut producers = Vec::new();
    for partition in 0..PRODUCERS {
        let path = format!("/socket/in?topic={topic}&valType=json");
        let socket = proxy.connect(&path).await;
        producers.push(tokio::spawn(produce(socket, partition, stopped.clone())));
    }
    let (begin, before) = (Instant::now(), renewals(&proxy).await);
    match end {
        LoadEnd::Renewals(least) => {
            until_asked("sessions are renewed", async || {
                renewals(&proxy).await >= before + least
            })
            .await;
        }
        LoadEnd::Elapsed(length) => tokio::time::sleep(length).await,
    }
    let (seconds, renewed) = (
        begin.elapsed().as_secs_f64(),
        renewals(&proxy).await - before,
    );
    stop.send_replace(true);
    let (mut sent, mut latency_max) = (Vec::new(), Duration::ZERO);
    for producer in producers {
        let (records, latency) = producer.await.unwrap();
        sent.push(records);
        latency_max = latency_max.max(latency);
    }
    tell.send_replace(Some(sent.clone()));
    consumer.await.unwrap();
    for lost in ["was lost", "not authenticated any more"] {
        assert_eq!(log.with(lost), Vec::<String>::new());
    }
    is_in_the_log(kafka, &topic, &sent);
    LoadFigures {
        records: sent.iter().sum(),
        seconds,
        renewals: renewed,
        latency_max,
    }
}

/// As librdkafka reads it, by the listener without SASL.
fn is_in_the_log(kafka: &Kafka, topic: &str, sent: &[u64]) {
    for (partition, sent) in sent.iter().enumerate() {
        let partition = partition.to_string();
        let args = [
            "-C",
            "-t",
            topic,
            "-p",
            &partition,
            "-o",
            "beginning",
            "-e",
            "-f",
            "%o %s\n",
        ];
        let log = block_in_place(|| kafka.kcat(&args, b""));
        let log = String::from_utf8(log).unwrap();
        let expected: String = (0..*sent).map(|n| format!("{n} {n}\n")).collect();
        assert!(log == expected, "partition {partition} of {topic} differs");
    }
}

fn by_scram(kafka: &Kafka) -> ProxyProperties {
    sasl_plaintext(kafka.secure()).authenticated_by("SCRAM-SHA-256", "alice-secret")
}

fn by_tokens_of(kafka: &Kafka, provider: &FakeProvider) -> ProxyProperties {
    let connecting = validating(kafka.secure()).with_tokens(&credentials(CLIENT_SECRET));
    connecting.of_endpoint(provider.url())
}

/// More than there are connections: each is renewed, and most are twice.
const RENEWALS: f64 = 12.0;

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_renewed_under_load_without_a_record_lost_or_repeated() {
    let kafka = block_in_place(|| Kafka::start_secure(&["connections.max.reauth.ms=3000"], true));
    is_whole(&kafka, &by_scram(&kafka), LoadEnd::Renewals(RENEWALS)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn short_tokens_are_renewed_under_load_without_a_record_lost_or_repeated() {
    let (kafka, _at) = cluster();
    let provider = FakeProvider::start(Duration::from_secs(10)).await;
    let connecting = by_tokens_of(&kafka, &provider);
    is_whole(&kafka, &connecting, LoadEnd::Renewals(RENEWALS)).await;
    assert!(provider.given() > 1);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute for each mechanism: scripts/renewals"]
async fn a_minute_of_renewals_every_5_s_loses_and_repeats_nothing() {
    let length = from_environment("RENEWALS_SECONDS").unwrap_or(60);
    let end = LoadEnd::Elapsed(Duration::from_secs(length));
    let kafka = block_in_place(|| Kafka::start_secure(&["connections.max.reauth.ms=5000"], true));
    let provider = FakeProvider::start(HOUR).await;
    for (mechanism, connecting) in [
        ("SCRAM-SHA-256", by_scram(&kafka)),
        ("OAUTHBEARER", by_tokens_of(&kafka, &provider)),
    ] {
        let figures = is_whole(&kafka, &connecting, end).await;
        println!(
            "{mechanism}: {} records in {:.0} s, {:.0} a second, {:.0} sessions renewed, \
             {} ms from a frame to its answer at most; none lost, repeated or out of order",
            figures.records,
            figures.seconds,
            figures.records as f64 / figures.seconds,
            figures.renewals,
            figures.latency_max.as_millis(),
        );
        assert!(figures.renewals >= 2.0 * (length / 5) as f64, "{figures:?}");
    }
}
