//! Who takes part: topics, groups with their clients, producing clients. The same in every
//! run; what happens to them is the schedule's.

/// Names and partitions of the topics.
pub(super) const TOPICS: &[(&str, i32)] = &[("one", 1), ("three", 3), ("four", 4), ("six", 6)];
/// Nodes of the cluster; their ids are 1 to this.
pub(super) const NODES: usize = 3;
/// Producing clients; the n-th writes to topic n modulo their number.
pub(super) const PRODUCERS: usize = 12;

/// Groups of one client.
const SOLO_GROUPS: usize = 14;
/// Topics of each group of several clients, how many clients it has, and how many of them are
/// connected from the start.
const TEAMS: &[(&[&str], usize, usize)] = &[
    (&["three"], 3, 2),
    (&["four"], 4, 2),
    (&["six"], 5, 3),
    (&["six"], 3, 3),
    (&["three", "four"], 5, 4),
];

/// A consumer group.
#[derive(Clone, Debug)]
pub(super) struct GroupScene {
    pub(super) name: String,
    pub(super) topics: &'static [&'static str],
    /// `autoCommit`; otherwise its clients commit.
    pub(super) auto_commit: bool,
}

/// A consuming client, whether it is connected or not.
#[derive(Clone, Debug)]
pub(super) struct ClientScene {
    /// Its `clientId`, which no other group has either.
    pub(super) name: String,
    /// Index of its group.
    pub(super) group: usize,
    /// Whether it is connected at the start and at the end.
    pub(super) is_regular: bool,
    /// Whether it is its group's only one.
    pub(super) is_alone: bool,
}

/// The consumer groups and their clients.
#[derive(Clone, Debug)]
pub(super) struct ChaosScene {
    pub(super) groups: Vec<GroupScene>,
    pub(super) clients: Vec<ClientScene>,
}

impl ChaosScene {
    pub(super) fn new() -> Self {
        let mut scene = Self {
            groups: Vec::new(),
            clients: Vec::new(),
        };
        const SOLO_TOPICS: &[&[&str]] = &[&["one"], &["three"], &["four"], &["six", "one"]];
        for n in 0..SOLO_GROUPS {
            let topics = SOLO_TOPICS[n % SOLO_TOPICS.len()];
            scene.add_group(format!("solo-{n}"), topics, 1, 1);
        }
        for (n, (topics, clients, regular)) in TEAMS.iter().enumerate() {
            scene.add_group(format!("team-{n}"), topics, *clients, *regular);
        }
        scene
    }

    fn add_group(
        &mut self,
        name: String,
        topics: &'static [&'static str],
        clients: usize,
        regular: usize,
    ) {
        for n in 0..clients {
            self.clients.push(ClientScene {
                name: format!("{name}-{n}"),
                group: self.groups.len(),
                is_regular: n < regular,
                is_alone: clients == 1,
            });
        }
        self.groups.push(GroupScene {
            auto_commit: self.groups.len() % 2 == 1,
            name,
            topics,
        });
    }
}

/// How many partitions a topic has.
pub(super) fn partitions(topic: &str) -> i32 {
    let found = TOPICS.iter().find(|(name, _)| *name == topic);
    found.map_or(0, |(_, partitions)| *partitions)
}
