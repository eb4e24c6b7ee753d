//! Many interleavings of several nodes on one log, with faults: writes that are lost or whose
//! outcome is not learnt, nodes that die, restart, are cut off or read slowly, leases that run
//! out, and compaction.
//!
//! Beside the nodes, all records ever say which claims are live: not withdrawn, and of a node that
//! is not gone. What the nodes grant of these must fit, whoever granted it.

use std::collections::{BTreeMap, HashSet, VecDeque};

use super::*;
use crate::session::place_claim::{InstanceSharing, PlaceClaim, SocketRole};

const LEASE: Duration = Duration::from_secs(15);
const NODES: usize = 3;
/// Places of each group.
const GROUPS: [usize; 3] = [1, 2, 3];
const CLIENTS: u64 = 5;
/// Places of the producing client that has a limit.
const PRODUCERS_MAX: u32 = 2;
/// Instances of the producing clients of which each may be connected once.
const INSTANCES: u64 = 2;
const STEPS: usize = 1_500;
const SEEDS: u64 = 50;
/// How old what is compacted is at least.
const COMPACTION_LAG: Duration = Duration::from_secs(20);
/// How old tombstones get (`delete.retention.ms`): no node reads as slowly.
const TOMBSTONES_KEPT: Duration = Duration::from_secs(120);

/// xorshift64*
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn millis(&mut self, max: u64) -> Duration {
        Duration::from_millis(self.below(max) + 1)
    }
}

/// Names the seed of a run that fails.
struct SeedOnPanic(u64);

impl Drop for SeedOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the seed is {}", self.0);
        }
    }
}

struct Appended {
    record: SessionRecord,
    at: Instant,
    compacted: bool,
}

/// A socket as its node has it.
struct Socket {
    kind: SocketKind,
    is_open: bool,
    /// Whether its client answers pings.
    answers: bool,
}

/// With which others it is counted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum SocketKind {
    /// With none.
    Listed,
    /// Of that group, or client, the one that is called so.
    Counted(Arc<str>, Arc<str>),
    /// A transactional one of that instance.
    Fencing(Arc<str>),
}

struct SimulatedNode {
    node: SessionNode,
    runs: bool,
    /// Nothing of it reaches the log, or of the log it, until then.
    cut_off_until: Instant,
    outbox: VecDeque<SessionRecord>,
    /// What was sent, and its offset if it was appended and is acknowledged.
    sent: VecDeque<(SessionRecord, Option<i64>)>,
    sockets: BTreeMap<u64, Socket>,
    probed: Vec<u64>,
    /// Sockets that are to be closed.
    closing: Vec<u64>,
}

struct SessionSimulation {
    random: Random,
    begun: Instant,
    now: Instant,
    /// Sockets of the producing client that has a limit.
    opened: usize,
    log: Vec<Appended>,
    live: LiveClaims,
    nodes: Vec<SimulatedNode>,
    incarnations: u64,
    granted: usize,
    refused: usize,
    evicted: usize,
    closed: usize,
    lost: usize,
    rejoined: usize,
}

/// The claims of the log that are not withdrawn.
#[derive(Default)]
struct LiveClaims {
    gone: HashSet<NodeIncarnation>,
    seen: HashSet<PlaceId>,
    claims: HashSet<PlaceId>,
}

impl LiveClaims {
    fn apply(&mut self, record: &SessionRecord) {
        match record {
            SessionRecord::Lease { .. }
            | SessionRecord::EvictionRequested { .. }
            | SessionRecord::EvictionEnded { .. } => {}
            SessionRecord::Expired { node, .. } | SessionRecord::Left { node } => {
                self.gone.insert(*node);
                self.claims.retain(|claim| claim.node != *node);
            }
            SessionRecord::Place { id, .. } => {
                if !self.gone.contains(&id.node) && self.seen.insert(*id) {
                    self.claims.insert(*id);
                }
            }
            SessionRecord::Refused { id } | SessionRecord::Released { id } => {
                self.claims.remove(id);
            }
        }
    }
}

impl SessionSimulation {
    fn new(seed: u64) -> Self {
        let now = Instant::now();
        let mut simulation = Self {
            random: Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            begun: now,
            now,
            opened: 0,
            log: Vec::new(),
            live: LiveClaims::default(),
            nodes: Vec::new(),
            incarnations: 0,
            granted: 0,
            refused: 0,
            evicted: 0,
            closed: 0,
            lost: 0,
            rejoined: 0,
        };
        for n in 0..NODES {
            let node = simulation.new_node(n);
            simulation.nodes.push(node);
            simulation.load(n);
        }
        simulation
    }

    fn new_node(&mut self, n: usize) -> SimulatedNode {
        self.incarnations += 1;
        let settings = NodeSettings {
            server_id: format!("node-{n}").into(),
            lease_duration: LEASE,
            retention: Duration::from_secs(600),
        };
        SimulatedNode {
            node: SessionNode::new(settings, self.incarnations * 1_000_003, self.now),
            runs: true,
            cut_off_until: self.now,
            outbox: VecDeque::new(),
            sent: VecDeque::new(),
            sockets: BTreeMap::new(),
            probed: Vec::new(),
            closing: Vec::new(),
        }
    }

    /// Reads the whole log.
    fn load(&mut self, n: usize) {
        // What was sent may arrive all the same.
        let lost: Vec<_> = {
            let node = &mut self.nodes[n];
            node.sent.clear();
            node.outbox.drain(..).take(1).collect()
        };
        if self.random.one_in(2) {
            lost.into_iter().for_each(|record| {
                self.append(record);
            });
        }
        self.nodes[n].node.begin_load(0);
        self.read(n, usize::MAX);
        let now = self.now;
        self.nodes[n].node.loaded(now);
        self.carry_out(n);
    }

    fn append(&mut self, record: SessionRecord) -> i64 {
        self.live.apply(&record);
        self.log.push(Appended {
            record,
            at: self.now,
            compacted: false,
        });
        self.log.len() as i64 - 1
    }

    fn read(&mut self, n: usize, records: usize) {
        for _ in 0..records {
            let node = &mut self.nodes[n].node;
            let offset = node.next_offset;
            let Some(next) = self.log.get(offset as usize) else {
                break;
            };
            match next.compacted {
                true => node.read_up_to(offset + 1),
                false => node.read(offset, Some(next.record.clone()), self.now),
            }
            self.carry_out(n);
        }
    }

    fn carry_out(&mut self, n: usize) {
        for effect in self.nodes[n].node.take_effects() {
            let node = &mut self.nodes[n];
            match effect {
                NodeEffect::Write(record) => node.outbox.push_back(record),
                NodeEffect::Decided { number, outcome } => {
                    if outcome != ClaimOutcome::Granted {
                        self.refused += 1;
                        node.sockets.remove(&number);
                        continue;
                    }
                    self.granted += 1;
                    let socket = node.sockets.get_mut(&number).expect("it was claimed");
                    socket.is_open = true;
                }
                NodeEffect::Probe(number) => node.probed.push(number),
                NodeEffect::Evict(number) => {
                    let socket = node.sockets.remove(&number).expect("it is there");
                    assert!(!socket.answers || node.probed.contains(&number));
                    self.evicted += 1;
                }
                // It closes as any other does, and may take its time.
                NodeEffect::Close(number) => {
                    self.closed += 1;
                    assert!(node.sockets.contains_key(&number));
                    node.closing.push(number);
                }
                NodeEffect::Lost { number, .. } => {
                    self.lost += 1;
                    node.sockets.remove(&number).expect("it is there");
                }
                NodeEffect::PlaceFreed => {}
                NodeEffect::DuplicateServerId => panic!("every server id is used once"),
                NodeEffect::Rejoined => self.rejoined += 1,
            }
        }
    }

    fn step(&mut self) {
        self.now += self.random.millis(150);
        let n = self.random.below(NODES as u64) as usize;
        if !self.nodes[n].runs {
            if self.random.one_in(10) {
                self.nodes[n] = self.new_node(n);
                self.load(n);
            }
            return;
        }
        match self.random.below(100) {
            0..10 => self.open(n),
            10..17 => self.open_producer(n),
            17..22 => self.close(n),
            22..45 => self.send(n),
            45..65 => self.acknowledge(n),
            65..85 if self.reaches_log(n) => {
                let records = 1 + self.random.below(20) as usize;
                self.read(n, records);
            }
            85..90 => self.answer_probe(n),
            90 => self.close_asked(n),
            91 => self.ask_to_close(n),
            92 if self.random.one_in(8) => self.kill(n),
            93 if self.random.one_in(2) => {
                let longest = if self.random.one_in(2) { 60_000 } else { 4_000 };
                self.nodes[n].cut_off_until = self.now + self.random.millis(longest);
            }
            94 if self.random.one_in(6) && self.reaches_log(n) => self.load(n),
            95 => self.compact(),
            96 => self.now += self.random.millis(4_000),
            97 => {
                let socket = self.some_socket(n);
                if let Some(socket) = socket.and_then(|s| self.nodes[n].sockets.get_mut(&s)) {
                    socket.answers = false;
                }
            }
            _ => {}
        }
        for n in 0..NODES {
            self.tick(n);
        }
        self.check_places();
    }

    /// The live claims that their nodes have granted.
    fn granted_places(&self) -> BTreeMap<(Arc<str>, Arc<str>), Vec<PlaceId>> {
        let mut places = BTreeMap::<_, Vec<_>>::new();
        for node in self.nodes.iter().filter(|node| node.runs) {
            for (number, socket) in &node.sockets {
                let id = node.node.own_id(*number);
                if let SocketKind::Counted(group, key) = &socket.kind
                    && node.node.is_granted(*number)
                    && self.live.claims.contains(&id)
                {
                    let key = (Arc::clone(group), Arc::clone(key));
                    places.entry(key).or_default().push(id);
                }
            }
        }
        places
    }

    fn check_places(&self) {
        let granted = self.granted_places();
        for (client, places) in &granted {
            assert_eq!(places.len(), 1, "{client:?} has {places:?}");
        }
        let groups = GROUPS.iter().enumerate();
        let groups = groups.map(|(group, places)| (format!("g{group}"), *places));
        for (name, places) in groups.chain([("limited".to_owned(), PRODUCERS_MAX as usize)]) {
            let held = granted.keys().filter(|(g, _)| **g == *name).count();
            assert!(held <= places, "{held} sockets in {name}");
        }
    }

    fn reaches_log(&self, n: usize) -> bool {
        self.nodes[n].runs && self.now >= self.nodes[n].cut_off_until
    }

    fn tick(&mut self, n: usize) {
        if self.nodes[n].runs {
            let now = self.now;
            self.nodes[n].node.tick(now);
            self.carry_out(n);
        }
    }

    fn open(&mut self, n: usize) {
        let group = self.random.below(GROUPS.len() as u64) as usize;
        let (group, places) = (format!("g{group}"), GROUPS[group]);
        let client: Arc<str> = format!("c{}", self.random.below(CLIENTS)).into();
        let role = SocketRole::Member {
            group_id: group.as_str().into(),
            client_id: Arc::clone(&client),
        };
        let claim = PlaceClaim::new(role, None, &[("t".into(), places)], 0);
        self.claim(n, claim, SocketKind::Counted(group.as_str().into(), client));
    }

    fn claim(&mut self, n: usize, claim: PlaceClaim, kind: SocketKind) {
        let node = &mut self.nodes[n];
        if let Ok(number) = node.node.claim(claim.into(), self.now) {
            let answers = !self.random.one_in(3);
            let socket = Socket {
                kind,
                is_open: false,
                answers,
            };
            self.nodes[n].sockets.insert(number, socket);
        }
        self.carry_out(n);
    }

    fn open_producer(&mut self, n: usize) {
        let instance: Arc<str> = format!("i{}", self.random.below(INSTANCES)).into();
        let claim = |client: &str, sharing, max_connections| {
            let role = SocketRole::Producer {
                client_id: Some(client.into()),
                instance_id: Some(Arc::clone(&instance)),
                sharing,
            };
            PlaceClaim::new(role, None, &[("t".into(), 1)], max_connections)
        };
        let (number, kind) = match self.random.below(5) {
            0 => {
                self.opened += 1;
                let key = format!("{}", self.opened).into();
                let kind = SocketKind::Counted("limited".into(), key);
                let claim = claim("limited", InstanceSharing::Any, PRODUCERS_MAX);
                return self.claim(n, claim, kind);
            }
            1 => {
                let kind = SocketKind::Counted("exclusive".into(), Arc::clone(&instance));
                return self.claim(n, claim("exclusive", InstanceSharing::Exclusive, 0), kind);
            }
            2 | 3 => {
                let mut claim = claim("fencing", InstanceSharing::Fencing, 0);
                // By clocks that differ.
                let skew = self.random.millis(200);
                claim.since = (self.now + skew - self.begun).as_millis() as u64;
                let claimed = self.nodes[n].node.claim_fencing(claim.into(), self.now);
                (claimed.0, SocketKind::Fencing(instance))
            }
            _ => {
                let claim = claim("listed", InstanceSharing::Any, 0);
                let number = self.nodes[n].node.list(claim.into(), self.now);
                (number, SocketKind::Listed)
            }
        };
        let socket = Socket {
            kind,
            is_open: true,
            answers: true,
        };
        self.nodes[n].sockets.insert(number, socket);
        self.carry_out(n);
    }

    /// An administrator has a socket closed, on whatever node.
    fn ask_to_close(&mut self, n: usize) {
        let node = &mut self.nodes[n].node;
        let ids: Vec<_> = node.sockets().map(|(_, id, _)| id).collect();
        let index = self.random.below(ids.len().max(1) as u64) as usize;
        if let Some(id) = ids.get(index) {
            // It may be in trouble.
            let _ = node.evict(*id, self.now);
            if self.random.one_in(2) {
                node.end_eviction(*id, self.now);
            }
            self.carry_out(n);
        }
    }

    fn close_asked(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        for number in std::mem::take(&mut node.closing) {
            if node.sockets.remove(&number).is_some() {
                node.node.release(number, self.now);
            }
        }
        self.carry_out(n);
    }

    fn some_socket(&mut self, n: usize) -> Option<u64> {
        let sockets = self.nodes[n].sockets.len() as u64;
        let index = self.random.below(sockets.max(1)) as usize;
        self.nodes[n].sockets.keys().nth(index).copied()
    }

    /// Also one whose claim is not decided: its client has gone.
    fn close(&mut self, n: usize) {
        if let Some(number) = self.some_socket(n) {
            let node = &mut self.nodes[n];
            node.sockets.remove(&number);
            node.node.release(number, self.now);
            self.carry_out(n);
        }
    }

    /// Sends the next record, or all.
    fn send(&mut self, n: usize) {
        let all = self.random.one_in(2);
        while self.reaches_log(n)
            && let Some(record) = self.nodes[n].outbox.pop_front()
        {
            let sent = match self.random.below(40) {
                0 => None,
                // Its outcome is not learnt.
                1 => {
                    self.append(record.clone());
                    None
                }
                _ => Some(self.append(record.clone())),
            };
            self.nodes[n].sent.push_back((record, sent));
            if !all {
                break;
            }
        }
    }

    fn acknowledge(&mut self, n: usize) {
        let all = self.random.one_in(2);
        while self.reaches_log(n)
            && let Some((record, offset)) = self.nodes[n].sent.pop_front()
        {
            let (node, now) = (&mut self.nodes[n].node, self.now);
            match offset {
                Some(offset) => node.acked(record, offset, now),
                None => node.failed(record, "lost", now),
            }
            self.carry_out(n);
            if !all {
                break;
            }
        }
    }

    fn answer_probe(&mut self, n: usize) {
        let probed = std::mem::take(&mut self.nodes[n].probed);
        for number in probed {
            let node = &mut self.nodes[n];
            if node.sockets.get(&number).is_some_and(|s| s.answers) {
                node.node.client_answered(number, self.now);
                self.carry_out(n);
            }
        }
    }

    fn kill(&mut self, n: usize) {
        self.nodes[n].runs = false;
        // What was on its way may arrive.
        let next = self.nodes[n].outbox.pop_front();
        if let Some(record) = next.filter(|_| self.random.one_in(2)) {
            self.append(record);
        }
        self.nodes[n].sockets.clear();
        self.nodes[n].closing.clear();
    }

    /// Drops what a later record of the same key replaces.
    fn compact(&mut self) {
        let mut newer = HashSet::new();
        for appended in self.log.iter_mut().rev() {
            let (key, value) = appended.record.encode();
            let is_old = self.now >= appended.at + COMPACTION_LAG;
            let is_replaced = !newer.insert(key);
            let is_old_tombstone = value.is_none() && self.now >= appended.at + TOMBSTONES_KEPT;
            appended.compacted |= is_old && (is_replaced || is_old_tombstone);
        }
    }

    /// All goes well for so long.
    fn calm(&mut self, duration: Duration) {
        let until = self.now + duration;
        while self.now < until {
            self.now += Duration::from_millis(250);
            for n in 0..NODES {
                self.nodes[n].cut_off_until = self.now;
                if !self.nodes[n].runs {
                    self.nodes[n] = self.new_node(n);
                    self.load(n);
                }
                self.tick(n);
                while let Some(record) = self.nodes[n].outbox.pop_front() {
                    let offset = self.append(record.clone());
                    self.nodes[n].sent.push_back((record, Some(offset)));
                }
                while let Some((record, offset)) = self.nodes[n].sent.pop_front() {
                    let (node, now) = (&mut self.nodes[n].node, self.now);
                    match offset {
                        Some(offset) => node.acked(record, offset, now),
                        None => node.failed(record, "lost", now),
                    }
                    self.carry_out(n);
                }
                self.read(n, usize::MAX);
                self.answer_probe(n);
                self.close_asked(n);
            }
        }
    }

    /// What is open has its place, and every claim has ended; all nodes list the same.
    fn check_calm(&self) {
        let (mut open, mut counted) = (0, 0);
        let mut fencing = HashSet::new();
        for node in &self.nodes {
            for (number, socket) in &node.sockets {
                open += 1;
                match &socket.kind {
                    SocketKind::Listed => {}
                    SocketKind::Fencing(instance) => {
                        let is_alone = fencing.insert(Arc::clone(instance));
                        assert!(is_alone, "nobody has fenced {number}");
                    }
                    SocketKind::Counted(..) => {
                        counted += 1;
                        let is_granted = node.node.is_granted(*number);
                        assert!(is_granted, "a claim is undecided: {number}");
                    }
                }
            }
            assert!(node.node.is_member());
            assert_eq!(node.node.trouble(self.now), None);
        }
        self.check_places();
        assert_eq!(
            self.granted_places().len(),
            counted,
            "a socket without a place"
        );
        for node in &self.nodes {
            let listed: HashSet<_> = node.node.sockets().map(|(_, id, _)| id).collect();
            assert_eq!(listed, self.live.claims);
        }
        assert_eq!(self.live.claims.len(), open, "a place without a socket");
    }
}

#[test]
fn no_interleaving_gives_a_place_twice_or_loses_one() {
    let seeds = match std::env::var("SESSION_SEED") {
        Ok(seed) => seed.parse().unwrap()..=seed.parse().unwrap(),
        Err(_) => 1..=SEEDS,
    };
    let mut counts = [0; 6];
    for seed in seeds {
        let _seed = SeedOnPanic(seed);
        let mut simulation = SessionSimulation::new(seed);
        for _ in 0..STEPS {
            simulation.step();
        }
        simulation.calm(LEASE * 3);
        simulation.check_calm();
        for n in 0..NODES {
            let numbers: Vec<_> = simulation.nodes[n].sockets.keys().copied().collect();
            for number in numbers {
                simulation.nodes[n].sockets.remove(&number);
                let now = simulation.now;
                simulation.nodes[n].node.release(number, now);
                simulation.carry_out(n);
            }
        }
        simulation.calm(Duration::from_secs(5));
        simulation.check_calm();
        for node in &simulation.nodes {
            let state = &node.node.state;
            assert!(state.has_no_places(), "{state:#?}");
        }
        let run = [
            simulation.granted,
            simulation.refused,
            simulation.evicted,
            simulation.closed,
            simulation.lost,
            simulation.rejoined,
        ];
        counts.iter_mut().zip(run).for_each(|(sum, n)| *sum += n);
    }
    println!("granted, refused, evicted, closed, lost, rejoined: {counts:?}");
    assert!(counts.iter().all(|n| *n > 0), "{counts:?}");
}
