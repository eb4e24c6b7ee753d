use proptest::prelude::*;

use super::*;
use crate::config::LimitedClients;

fn id(id: &str) -> LimitedId {
    LimitedId {
        clients: LimitedClients::Producers,
        id: id.into(),
    }
}

fn limit(messages_per_second: u32) -> ClientLimit {
    ClientLimit {
        messages_per_second: Some(messages_per_second),
        ..ClientLimit::default()
    }
}

/// Nodes in front of one log.
struct LimitNodes {
    nodes: Vec<LimitEntries>,
    /// How far each has read.
    read: Vec<usize>,
    log: Vec<LimitRecord>,
    asked: Vec<(EntryChange, oneshot::Receiver<ChangeResult>)>,
    /// By node and number of the change.
    numbers: HashMap<(u64, u64), usize>,
}

impl LimitNodes {
    fn new(nodes: usize) -> Self {
        let node = |n| {
            let mut node = LimitEntries::new(n as u64);
            node.begin_load();
            node.loaded();
            node
        };
        Self {
            nodes: (0..nodes).map(node).collect(),
            read: vec![0; nodes],
            log: Vec::new(),
            asked: Vec::new(),
            numbers: HashMap::new(),
        }
    }

    /// Whether the change was begun.
    fn ask(&mut self, node: usize, change: EntryChange) -> bool {
        let number = self.nodes[node].asked;
        let begun = self.nodes[node].begin(id("a"), change);
        let is_begun = begun.is_ok();
        if is_begun {
            self.numbers.insert((node as u64, number), self.asked.len());
        }
        self.asked.extend(begun.map(|decided| (change, decided)));
        is_begun
    }

    /// Writes one record; whether there was one.
    fn write(&mut self, node: usize) -> bool {
        let record = self.nodes[node].take_write();
        let is_written = record.is_some();
        self.log.extend(record);
        is_written
    }

    /// Reads one record; whether there was one.
    fn read(&mut self, node: usize) -> bool {
        let Some(record) = self.log.get(self.read[node]) else {
            return false;
        };
        self.nodes[node].read(record.clone());
        self.read[node] += 1;
        for (asked, result) in self.nodes[node].take_decided() {
            let _ = asked.send(result);
        }
        true
    }

    /// Until there is nothing more to do.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            let mut is_busy = false;
            for node in 0..self.nodes.len() {
                is_busy |= self.write(node);
                is_busy |= self.read(node);
            }
            if !is_busy {
                return;
            }
        }
        panic!("it goes on for ever");
    }

    fn results(&mut self) -> Vec<ChangeResult> {
        let asked = self.asked.iter_mut();
        asked
            .map(|(_, decided)| decided.try_recv().unwrap())
            .collect()
    }

    /// The change that a record is of, if it was asked for.
    fn asked_by(&self, record: &LimitRecord) -> Option<usize> {
        let change = record.change?;
        self.numbers.get(&(change.node, change.number)).copied()
    }

    /// A node that starts now, of a log whose first `compacted` records were compacted.
    fn started(&self, compacted: usize) -> LimitEntries {
        let mut node = LimitEntries::new(u64::MAX);
        node.begin_load();
        let (compacted, rest) = self.log.split_at(compacted);
        let last: BTreeMap<_, _> = compacted.iter().map(|r| (r.id.clone(), r)).collect();
        for record in last.into_values().chain(rest) {
            node.read(record.clone());
        }
        node.loaded();
        node
    }

    /// All nodes, and those that start now.
    fn all_nodes(&self) -> Vec<LimitEntries> {
        let started = [0, self.log.len()].map(|compacted| self.started(compacted));
        self.nodes
            .iter()
            .map(LimitEntries::known)
            .chain(started)
            .collect()
    }
}

impl LimitEntries {
    /// What it knows.
    fn known(&self) -> Self {
        let mut known = Self::new(self.node);
        known.entries = self.entries.clone();
        known.asserted = self.asserted.clone();
        known.is_loaded = self.is_loaded;
        known
    }
}

#[test]
fn of_two_nodes_that_create_the_same_entry_at_once_the_first_in_the_log_has_created_it() {
    let mut nodes = LimitNodes::new(2);
    assert!(nodes.ask(0, EntryChange::Create(limit(1))));
    assert!(nodes.ask(1, EntryChange::Create(limit(2))));
    nodes.write(1);
    nodes.settle();
    assert_eq!(nodes.results(), [Err(ChangeRefusal::Exists), Ok(())]);
    let expected = BTreeMap::from([(id("a"), limit(2))]);
    for node in nodes.all_nodes() {
        assert_eq!(node.in_force(), Some(&expected));
    }
}

#[test]
fn what_is_known_to_be_refused_is_not_written() {
    let mut nodes = LimitNodes::new(1);
    assert!(!nodes.ask(0, EntryChange::Delete));
    assert!(!nodes.ask(0, EntryChange::Replace(limit(1))));
    assert!(nodes.ask(0, EntryChange::Create(limit(1))));
    nodes.settle();
    assert!(!nodes.ask(0, EntryChange::Create(limit(1))));
    assert!(nodes.ask(0, EntryChange::Replace(limit(2))));
    assert!(nodes.ask(0, EntryChange::Delete));
    nodes.settle();
    assert_eq!(nodes.results(), [const { Ok(()) }; 3]);
    assert!(
        nodes.ask(0, EntryChange::Forget),
        "whether there is one or not"
    );
    nodes.settle();
    assert_eq!(nodes.log.len(), 4);
}

#[test]
fn what_changes_is_said_once_and_after_a_second_load_only_what_differs() {
    let mut node = LimitEntries::new(0);
    let record = |name: &str, entry| LimitRecord {
        id: id(name),
        entry,
        change: None,
    };
    node.begin_load();
    assert_eq!(node.in_force(), None);
    node.read(record("a", Some(limit(1))));
    node.read(record("b", Some(limit(1))));
    assert_eq!(node.take_changed(), []);
    node.loaded();
    let one = Some(limit(1));
    assert_eq!(node.take_changed(), [(id("a"), one), (id("b"), one)]);
    node.read(record("a", None));
    assert_eq!(node.take_changed(), [(id("a"), None)]);
    assert_eq!(node.take_changed(), []);
    // The log is lost, and another one is there.
    for _ in 0..2 {
        node.begin_load();
        assert_eq!(
            node.in_force().map(BTreeMap::len),
            Some(1),
            "the former holds"
        );
    }
    node.read(record("c", Some(limit(2))));
    node.loaded();
    let changed = [(id("b"), None), (id("c"), Some(limit(2)))];
    assert_eq!(node.take_changed(), changed);
}

#[test]
fn a_write_that_fails_is_told_and_one_that_the_log_was_lost_with_ends() {
    let mut node = LimitEntries::new(0);
    node.begin_load();
    node.loaded();
    let mut failing = node.begin(id("a"), EntryChange::Create(limit(1))).unwrap();
    let record = node.take_write().unwrap();
    node.failed(&record, "no broker");
    for (asked, result) in node.take_decided() {
        asked.send(result).unwrap();
    }
    let not_written = ChangeRefusal::NotWritten("no broker".to_owned());
    assert_eq!(failing.try_recv(), Ok(Err(not_written)));
    let mut lost = node.begin(id("a"), EntryChange::Create(limit(1))).unwrap();
    node.begin_load();
    assert_eq!(lost.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    assert!(!node.has_writes());
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Ask(usize, EntryChange),
    Write(usize),
    Read(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let change = prop_oneof![
        (1..1_000_u32).prop_map(|n| EntryChange::Create(limit(n))),
        (1..1_000_u32).prop_map(|n| EntryChange::Replace(limit(n))),
        Just(EntryChange::Delete),
    ];
    let step = prop_oneof![
        (0..3_usize, change).prop_map(|(node, change)| Step::Ask(node, change)),
        (0..3_usize).prop_map(Step::Write),
        (0..3_usize).prop_map(Step::Read),
    ];
    prop::collection::vec(step, 0..100)
}

proptest! {
    #[test]
    fn all_nodes_come_to_know_the_same_and_so_do_those_that_start_later(steps in steps()) {
        let mut nodes = LimitNodes::new(3);
        for step in steps {
            match step {
                Step::Ask(node, change) => {
                    nodes.ask(node, change);
                }
                Step::Write(node) => {
                    nodes.write(node);
                }
                Step::Read(node) => {
                    nodes.read(node);
                }
            }
        }
        nodes.settle();
        let results = nodes.results();
        let mut expected = None;
        for number in nodes.log.iter().filter_map(|record| nodes.asked_by(record)) {
            let (change, _) = &nodes.asked[number];
            if results[number].is_ok() {
                expected = change.entry();
            }
        }
        for node in nodes.all_nodes() {
            prop_assert_eq!(node.asserted.len(), 0, "nothing else is in force");
            let entry = node.asserted(&id("a"));
            prop_assert_eq!(entry, expected, "what was not refused, in the order of the log");
        }
    }
}
