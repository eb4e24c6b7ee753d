//! What goes wrong when, drawn from a seed. Pure: the same seed gives the same schedule.

use std::time::Duration;

use memory_broker::ApiKey;

use super::scene::{ChaosScene, NODES, PRODUCERS, TOPICS};
use crate::support::random::XorShift;

/// Everything that happens, in the order of time, before the faults end.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ChaosSchedule {
    pub(super) seed: u64,
    /// When the faults end, counted from the start.
    pub(super) length: Duration,
    pub(super) events: Vec<(Duration, ChaosEvent)>,
}

/// One thing that happens.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ChaosEvent {
    /// Requests go wrong.
    Fault(PlannedFault),
    /// A node ends: its connections are cut, its partitions and groups move.
    StopNode(i32),
    /// The node that ended comes back.
    StartNode(i32),
    /// A node answers nothing, and its connections stay open (SIGSTOP), for so long.
    HangNode(i32, Duration),
    /// What a node leads and coordinates moves to the others.
    FailOver(i32),
    /// The node that hung goes on where it was (SIGCONT).
    ResumeNode(i32),
    /// A partition, by its topic's index and its own, is led by that node.
    MoveLeader(usize, i32, i32),
    /// A group, by its index, is coordinated by that node.
    MoveCoordinator(usize, i32),
    /// A consuming client, by its index, connects.
    Connect(usize),
    /// It goes.
    Disconnect(usize, Parting),
    /// It stops reading for so long.
    Stall(usize, Duration),
    /// A producing client, by its index, goes and comes back.
    ReconnectProducer(usize, Parting),
}

/// How a client ends its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parting {
    /// With a close frame, reading on until the server has closed.
    Close,
    /// Without a word.
    Vanish,
}

/// Some requests of one API go wrong.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PlannedFault {
    pub(super) api: ApiKey,
    /// On that node only.
    pub(super) node: Option<i32>,
    pub(super) action: PlannedAction,
    /// So many requests at most; `usize::MAX` for all within `lasting`.
    pub(super) times: usize,
    /// Requests that arrive later are not affected.
    pub(super) lasting: Duration,
}

/// How a request goes wrong; as `FaultAction`s of the same names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PlannedAction {
    Delay(Duration),
    Error(i16),
    ErrorAfter(i16),
    CloseBefore,
    CloseAfter,
    Silence,
    SilenceAfter,
    Throttle(i32),
}

/// The APIs that go wrong; the codes that brokers answer without having done it; the codes
/// that may come although it was done. All are passing states of a healthy cluster.
const APIS: &[(ApiKey, &[i16], &[i16])] = &[
    (ApiKey::OffsetCommit, &[3, 7, 14, 15, 16, 22, 25, 27], &[7]),
    (ApiKey::JoinGroup, &[14, 15, 16, 25, 27], &[16]),
    (ApiKey::SyncGroup, &[14, 15, 16, 22, 25, 27], &[16]),
    (ApiKey::Heartbeat, &[14, 15, 16, 22, 25, 27], &[]),
    (ApiKey::LeaveGroup, &[14, 15, 16], &[16]),
    (ApiKey::FindCoordinator, &[14, 15], &[]),
    (ApiKey::OffsetFetch, &[14, 15, 16, 88], &[]),
    (ApiKey::Fetch, &[5, 6, 9, 56, 70, 71, 74, 75], &[]),
    (ApiKey::Produce, &[6, 7, 19, 56], &[6, 7, 20]),
    (ApiKey::Metadata, &[5], &[]),
    (ApiKey::ListOffsets, &[5, 6, 56, 74, 78], &[]),
    (ApiKey::OffsetForLeaderEpoch, &[6, 74], &[]),
    (ApiKey::InitProducerId, &[14, 15], &[]),
    (ApiKey::ApiVersions, &[], &[]),
];

/// The longest that one request is delayed.
const DELAY_MAX: Duration = Duration::from_secs(5);
/// Pauses between events.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(800));
/// Nothing happens before: the first clients are connecting.
const QUIET: Duration = Duration::from_secs(1);

impl ChaosSchedule {
    /// Draws what happens within `length`.
    pub(super) fn generate(seed: u64, length: Duration, scene: &ChaosScene) -> Self {
        let mut draft = ScheduleDraft {
            random: XorShift::new(seed),
            scene,
            length,
            events: Vec::new(),
            node_is_away_until: Duration::ZERO,
        };
        let mut now = QUIET;
        while now < length {
            draft.draw(now);
            now += draft.random.between(PAUSE.0, PAUSE.1);
        }
        let mut events = draft.events;
        // Stable: what was drawn first at one instant happens first.
        events.sort_by_key(|(at, _)| *at);
        Self {
            seed,
            length,
            events,
        }
    }
}

struct ScheduleDraft<'a> {
    random: XorShift,
    scene: &'a ChaosScene,
    length: Duration,
    events: Vec<(Duration, ChaosEvent)>,
    /// One node at a time is stopped or hangs.
    node_is_away_until: Duration,
}

impl ScheduleDraft<'_> {
    fn draw(&mut self, now: Duration) {
        match self.random.below(100) {
            0..50 => self.fault(now),
            50..54 => self.slow_api(now),
            54..58 => self.node_goes_away(now),
            58..68 => self.leader_moves(now),
            68..74 => self.coordinator_moves(now),
            74..90 => self.consumer_comes_or_goes(now),
            90..95 => self.consumer_stalls(now),
            _ => self.producer_reconnects(now),
        }
    }

    fn fault(&mut self, now: Duration) {
        let (api, codes, codes_after) = *self.random.pick(APIS);
        let action = match self.random.below(9) {
            0..3 => {
                let delay = self.random.between(Duration::from_millis(100), DELAY_MAX);
                PlannedAction::Delay(delay)
            }
            3..5 if !codes.is_empty() => PlannedAction::Error(*self.random.pick(codes)),
            5 if !codes_after.is_empty() => {
                PlannedAction::ErrorAfter(*self.random.pick(codes_after))
            }
            3..6 => PlannedAction::CloseBefore,
            6 => PlannedAction::CloseAfter,
            7 => match self.random.below(2) {
                0 => PlannedAction::Silence,
                _ => PlannedAction::SilenceAfter,
            },
            _ => PlannedAction::Throttle(1 + self.random.below(1_000) as i32),
        };
        let times = match action {
            // Each costs its connection a request timeout.
            PlannedAction::Silence | PlannedAction::SilenceAfter => 1,
            _ => 1 + self.random.below(6),
        };
        let fault = PlannedFault {
            api,
            node: (self.random.below(2) == 0).then(|| self.random.node()),
            action,
            times,
            lasting: Duration::from_secs(5),
        };
        self.add(now, ChaosEvent::Fault(fault));
    }

    /// Every request of an API is delayed for many seconds.
    fn slow_api(&mut self, now: Duration) {
        let (api, ..) = *self.random.pick(APIS);
        let delay = self.random.between(Duration::from_millis(50), DELAY_MAX);
        let lasting = self
            .random
            .between(Duration::from_secs(3), Duration::from_secs(15));
        let fault = PlannedFault {
            api,
            node: Some(self.random.node()),
            action: PlannedAction::Delay(delay),
            times: usize::MAX,
            lasting,
        };
        self.add(now, ChaosEvent::Fault(fault));
    }

    fn node_goes_away(&mut self, now: Duration) {
        let node = self.random.node();
        let away = self
            .random
            .between(Duration::from_secs(1), Duration::from_secs(8));
        let failing_over = self
            .random
            .between(Duration::from_millis(300), Duration::from_secs(3));
        let hangs = self.random.below(2) == 0;
        let back = now + away;
        if now < self.node_is_away_until || back >= self.length {
            return;
        }
        self.node_is_away_until = back;
        if hangs {
            self.add(now, ChaosEvent::HangNode(node, away));
            self.add(now + failing_over.min(away), ChaosEvent::FailOver(node));
            self.add(back, ChaosEvent::ResumeNode(node));
        } else {
            self.add(now, ChaosEvent::StopNode(node));
            self.add(back, ChaosEvent::StartNode(node));
        }
    }

    fn leader_moves(&mut self, now: Duration) {
        let topic = self.random.below(TOPICS.len());
        let partition = self.random.below(TOPICS[topic].1 as usize) as i32;
        let node = self.random.node();
        self.add(now, ChaosEvent::MoveLeader(topic, partition, node));
    }

    fn coordinator_moves(&mut self, now: Duration) {
        let group = self.random.below(self.scene.groups.len());
        let node = self.random.node();
        self.add(now, ChaosEvent::MoveCoordinator(group, node));
    }

    fn consumer_comes_or_goes(&mut self, now: Duration) {
        let client = self.random.below(self.scene.clients.len());
        let parting = self.random.parting();
        let comes = self.random.below(2) == 0;
        let away = self
            .random
            .between(Duration::from_millis(1), Duration::from_secs(3));
        let alone = self.scene.clients[client].is_alone;
        if comes && !alone {
            return self.add(now, ChaosEvent::Connect(client));
        }
        self.add(now, ChaosEvent::Disconnect(client, parting));
        if alone && now + away < self.length {
            self.add(now + away, ChaosEvent::Connect(client));
        }
    }

    fn consumer_stalls(&mut self, now: Duration) {
        let client = self.random.below(self.scene.clients.len());
        let pause = self
            .random
            .between(Duration::from_millis(100), Duration::from_secs(8));
        self.add(now, ChaosEvent::Stall(client, pause));
    }

    fn producer_reconnects(&mut self, now: Duration) {
        let producer = self.random.below(PRODUCERS);
        let parting = self.random.parting();
        self.add(now, ChaosEvent::ReconnectProducer(producer, parting));
    }

    fn add(&mut self, at: Duration, event: ChaosEvent) {
        self.events.push((at, event));
    }
}

impl XorShift {
    fn node(&mut self) -> i32 {
        1 + self.below(NODES) as i32
    }

    fn parting(&mut self) -> Parting {
        match self.below(2) {
            0 => Parting::Close,
            _ => Parting::Vanish,
        }
    }
}

#[test]
fn a_schedule_follows_from_its_seed_and_ends_in_time() {
    let minute = Duration::from_secs(60);
    let scene = ChaosScene::new();
    let generate = |seed| ChaosSchedule::generate(seed, minute, &scene);
    let first = generate(1);
    assert_eq!(first, generate(1));
    assert_ne!(first.events, generate(2).events);
    assert!(first.events.is_sorted_by_key(|(at, _)| *at));
    assert!(first.events.iter().all(|(at, _)| *at < minute));
}
