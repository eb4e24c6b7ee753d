//! One run: brokers, proxy and clients, and everything that the schedule has happen to them.
//!
//! ```text
//! ChaosSchedule ─▶ faults, nodes, leaders, clients … ─▶ faults end ─▶ last records ─▶ all read
//!                                                                          │        or deadline
//!                                         ChaosHistory ◀───────────────────┘
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_client::record::{DecodeOptions, decode};
use kafka_client::{BrokerId, TopicPartition};
use memory_broker::{ApiKey, BrokerConfig, DepartureCause, FaultAction, FaultRule, MemoryBroker};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::clients::{ClientCommand, ConsumingClient, ProducingClient};
use super::history::{ChaosHistory, GroupRun, LoggedRecord, ownerships};
use super::recorder::{Recorder, parse_value};
use super::scene::{ChaosScene, NODES, PRODUCERS, TOPICS, partitions};
use super::schedule::{ChaosEvent, ChaosSchedule, PlannedAction, PlannedFault};
use crate::support::proxy::Proxy;
use crate::support::random::XorShift;
use crate::support::until_asked;

/// `session.timeout.ms` and `heartbeat.interval.ms`: the shortest session that brokers allow
/// by default, so that many run out within a minute.
const SESSION_TIMEOUT: Duration = Duration::from_secs(6);
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(2);
/// `max.poll.interval.ms`: how long a join may be parked. A join that got lost is found out
/// after that, and all is to be read within [`CATCH_UP_TIMEOUT`].
const MAX_POLL_INTERVAL: Duration = Duration::from_secs(30);
/// What a commit takes where nothing is wrong: its replication.
const COMMIT_DELAY: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(10));
/// How long after the last fault everything may take to be answered and read.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(120);
/// Commands that a client has not heeded yet.
const COMMANDS_MAX: usize = 1_000;

/// Has `schedule` happen, and returns what was seen and how long it took to catch up.
pub(super) async fn run(schedule: &ChaosSchedule, scene: &ChaosScene) -> (ChaosHistory, Duration) {
    let mut driver = ChaosDriver::start(schedule.seed, scene).await;
    for (at, event) in &schedule.events {
        sleep_until((driver.recorder.start + *at).into()).await;
        driver.apply(event).await;
    }
    sleep_until((driver.recorder.start + schedule.length).into()).await;
    driver.end_faults().await;
    let ended = Instant::now();
    let deadline = ended + CATCH_UP_TIMEOUT;
    driver.connect_regular_clients().await;
    driver.producers.finish(deadline).await;
    driver.all_read(deadline).await;
    let caught_up = ended.elapsed();
    // What is under way is committed before the clients are gone.
    let closing = Instant::now() + CATCH_UP_TIMEOUT;
    driver.consumers.finish(closing).await;
    (driver.into_history().await, caught_up)
}

struct ChaosDriver<'a> {
    scene: &'a ChaosScene,
    proxy: Proxy,
    recorder: Arc<Recorder>,
    producers: RunningClients,
    consumers: RunningClients,
    hanging: CancellationToken,
}

impl<'a> ChaosDriver<'a> {
    async fn start(seed: u64, scene: &'a ChaosScene) -> Self {
        let broker = BrokerConfig {
            nodes: NODES,
            session_timeout_min: SESSION_TIMEOUT,
            ..BrokerConfig::default()
        };
        let proxy = Proxy::with_broker(broker, |config| {
            config.consumer.session_timeout = SESSION_TIMEOUT;
            config.consumer.heartbeat_interval = HEARTBEAT_INTERVAL;
            config.consumer.max_poll_interval = MAX_POLL_INTERVAL;
        })
        .await;
        for (topic, partitions) in TOPICS {
            proxy.topic(topic, *partitions);
        }
        delay_commits(&proxy.broker);
        let recorder = Arc::new(Recorder::new(Instant::now()));
        let (mut producers, mut consumers) = (RunningClients::default(), RunningClients::default());
        for n in 0..PRODUCERS {
            let commands = producers.command_channel();
            let client = ProducingClient {
                name: format!("producer-{n}"),
                topic: TOPICS[n % TOPICS.len()].0,
                address: proxy.address.clone(),
                recorder: Arc::clone(&recorder),
                random: XorShift::new(seed.wrapping_add(1 + n as u64)),
                commands,
            };
            producers.tasks.spawn(client.run());
        }
        for client in &scene.clients {
            let commands = consumers.command_channel();
            let client = ConsumingClient {
                scene: client.clone(),
                group: scene.groups[client.group].clone(),
                address: proxy.address.clone(),
                recorder: Arc::clone(&recorder),
                commands,
            };
            consumers.tasks.spawn(client.run());
        }
        let driver = Self {
            scene,
            proxy,
            recorder,
            producers,
            consumers,
            hanging: CancellationToken::new(),
        };
        driver.connect_regular_clients().await;
        driver
    }

    async fn connect_regular_clients(&self) {
        for (n, client) in self.scene.clients.iter().enumerate() {
            if client.is_regular {
                self.consumers.send(n, ClientCommand::Connect).await;
            }
        }
    }

    async fn apply(&mut self, event: &ChaosEvent) {
        let broker = &self.proxy.broker;
        let at = self.recorder.start.elapsed();
        tracing::info!(?at, ?event, "chaos");
        match event {
            ChaosEvent::Fault(fault) => broker.faults().add_first(rule(fault)),
            ChaosEvent::StopNode(node) => {
                broker.stop_node(BrokerId(*node)).await;
            }
            ChaosEvent::StartNode(node) => start_node(broker, *node).await,
            ChaosEvent::HangNode(node, away) => {
                self.hanging = CancellationToken::new();
                let hang = FaultAction::HoldBefore(self.hanging.clone());
                let hang = FaultRule::any(hang).at(*node).always();
                broker
                    .faults()
                    .add_first(hang.until(Instant::now() + *away));
            }
            ChaosEvent::FailOver(node) => self.fail_over(*node),
            ChaosEvent::ResumeNode(_) => self.hanging.cancel(),
            ChaosEvent::MoveLeader(topic, partition, node) => {
                let tp = TopicPartition::new(TOPICS[*topic].0, *partition);
                broker.move_leader(&tp, BrokerId(*node));
            }
            ChaosEvent::MoveCoordinator(group, node) => {
                let group = &self.scene.groups[*group].name;
                broker.move_coordinator(group, BrokerId(*node));
            }
            ChaosEvent::Connect(client) => {
                self.consumers.send(*client, ClientCommand::Connect).await;
            }
            ChaosEvent::Disconnect(client, parting) => {
                let command = ClientCommand::Disconnect(*parting);
                self.consumers.send(*client, command).await;
            }
            ChaosEvent::Stall(client, pause) => {
                let command = ClientCommand::Stall(*pause);
                self.consumers.send(*client, command).await;
            }
            ChaosEvent::ReconnectProducer(producer, parting) => {
                let command = ClientCommand::Disconnect(*parting);
                self.producers.send(*producer, command).await;
            }
        }
    }

    /// As the controller does with a node that is not heard: others take over.
    fn fail_over(&self, node: i32) {
        let broker = &self.proxy.broker;
        let heir = BrokerId(node % NODES as i32 + 1);
        for tp in all_partitions() {
            if broker
                .leader(&tp)
                .is_some_and(|(leader, _)| leader == Some(BrokerId(node)))
            {
                broker.move_leader(&tp, heir);
            }
        }
        for group in &self.scene.groups {
            if broker.coordinator(&group.name) == Some(BrokerId(node)) {
                broker.move_coordinator(&group.name, heir);
            }
        }
    }

    async fn end_faults(&self) {
        let broker = &self.proxy.broker;
        broker.faults().clear();
        delay_commits(broker);
        self.hanging.cancel();
        for node in 1..=NODES as i32 {
            start_node(broker, node).await;
        }
        // A partition that was moved to a node that was away has no leader.
        for tp in all_partitions() {
            if broker
                .leader(&tp)
                .is_some_and(|(leader, _)| leader.is_none())
            {
                broker.move_leader(&tp, BrokerId(1));
            }
        }
    }

    /// Waits until each group has received every record, or for the deadline.
    async fn all_read(&self, deadline: Instant) {
        loop {
            let delivered = self.recorder.delivered.notified();
            let lags = |group: &super::scene::GroupScene, tp: &TopicPartition| {
                let (_, end) = self.proxy.broker.offsets(tp).unwrap();
                self.recorder.received_offsets(&group.name, tp) < end as usize
            };
            let mut groups = self.scene.groups.iter();
            let any_lags =
                groups.any(|group| partitions_of(group.topics).any(|tp| lags(group, &tp)));
            if !any_lags || timeout_at(deadline.into(), delivered).await.is_err() {
                return;
            }
        }
    }

    async fn into_history(self) -> ChaosHistory {
        let broker = &self.proxy.broker;
        let mut history = self.recorder.history();
        history.session_timeout = SESSION_TIMEOUT;
        history.logs = all_partitions()
            .map(|tp| (tp.clone(), log(broker, &tp)))
            .collect();
        for group in &self.scene.groups {
            let name = &group.name;
            let past = broker.group_history(name).unwrap_or_default();
            let committed = partitions_of(group.topics);
            let committed = committed.map(|tp| (tp.clone(), broker.committed(name, &tp)));
            let mut departures = past.departures.iter();
            let run = GroupRun {
                committed: committed.collect(),
                ownerships: ownerships(&past, self.recorder.start),
                heartbeat_gap_max: past.heartbeat_gap_max(Instant::now()),
                expired: departures
                    .by_ref()
                    .filter(|gone| gone.cause == DepartureCause::SessionExpired)
                    .count(),
            };
            history.groups.insert(name.clone(), run);
        }
        self.proxy.stopped().await;
        history
    }
}

/// Client tasks and the channels of their commands.
#[derive(Default)]
struct RunningClients {
    commands: Vec<mpsc::Sender<ClientCommand>>,
    tasks: JoinSet<()>,
}

impl RunningClients {
    fn command_channel(&mut self) -> mpsc::Receiver<ClientCommand> {
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        self.commands.push(commands);
        receiver
    }

    async fn send(&self, client: usize, command: ClientCommand) {
        self.commands[client].send(command).await.unwrap();
    }

    /// Has all clients finish; those that have not by the deadline are abandoned.
    async fn finish(&mut self, deadline: Instant) {
        self.commands.clear();
        while let Ok(Some(finished)) = timeout_at(deadline.into(), self.tasks.join_next()).await {
            finished.unwrap();
        }
        self.tasks.abort_all();
    }
}

/// The last rule of all: it applies where no other does.
fn delay_commits(broker: &MemoryBroker) {
    let delay = FaultAction::DelayBetween(COMMIT_DELAY.0, COMMIT_DELAY.1);
    let rule = FaultRule::on(ApiKey::OffsetCommit, delay).always();
    broker.faults().add(rule);
}

/// Starts a node, if it does not run. Its port may be another process's for a moment.
async fn start_node(broker: &MemoryBroker, node: i32) {
    let starts = async || broker.start_node(BrokerId(node)).await.is_ok();
    until_asked("a node's port is free", starts).await;
}

fn rule(fault: &PlannedFault) -> FaultRule {
    let action = match fault.action {
        PlannedAction::Delay(delay) => FaultAction::Delay(delay),
        PlannedAction::Error(code) => FaultAction::Error(code),
        PlannedAction::ErrorAfter(code) => FaultAction::ErrorAfter(code),
        PlannedAction::CloseBefore => FaultAction::CloseBefore,
        PlannedAction::CloseAfter => FaultAction::CloseAfter,
        PlannedAction::Silence => FaultAction::Silence,
        PlannedAction::SilenceAfter => FaultAction::SilenceAfter,
        PlannedAction::Throttle(ms) => FaultAction::Throttle(ms),
    };
    let rule = FaultRule::on(fault.api, action).times(fault.times);
    let rule = rule.until(Instant::now() + fault.lasting);
    match fault.node {
        Some(node) => rule.at(node),
        None => rule,
    }
}

fn all_partitions() -> impl Iterator<Item = TopicPartition> {
    let topics = TOPICS.iter();
    topics.flat_map(|(topic, count)| (0..*count).map(|p| TopicPartition::new(*topic, p)))
}

fn partitions_of(topics: &'static [&'static str]) -> impl Iterator<Item = TopicPartition> {
    let of_topic = |topic: &&'static str| {
        let topic = *topic;
        (0..partitions(topic)).map(move |p| TopicPartition::new(topic, p))
    };
    topics.iter().flat_map(of_topic)
}

fn log(
    broker: &MemoryBroker,
    tp: &TopicPartition,
) -> std::collections::BTreeMap<i64, LoggedRecord> {
    let everything = DecodeOptions {
        max_decompressed_bytes: 64 << 20,
        ..DecodeOptions::from_offset(0)
    };
    let decoded = decode(broker.batches(tp), &everything).unwrap();
    let record = |value: Option<&[u8]>| parse_value(std::str::from_utf8(value.unwrap()).unwrap());
    decoded
        .records()
        .map(|r| (r.offset, record(r.value)))
        .collect()
}
