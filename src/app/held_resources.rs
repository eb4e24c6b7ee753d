//! What sockets hold, counted: nothing of it may be left when they are gone.

use super::App;

/// What is held for sockets now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeldResources {
    /// Open sockets.
    pub sockets: usize,
    /// Those that have a place among the sessions, or claim one.
    pub placed_sockets: usize,
    /// Tasks of sockets, also of those that are closing or were refused by a close frame.
    pub socket_tasks: usize,
    /// Positions from which partitions are read.
    pub cursors: usize,
    /// Partitions that are read, or were in the last ten seconds.
    pub read_partitions: usize,
    /// Bytes of fetched records, and of frames made of them.
    pub fetch_memory: usize,
    /// Bytes of records that wait to be acknowledged.
    pub producer_memory: usize,
}

impl App {
    /// What is held for sockets now. For tests.
    pub fn held_resources(&self) -> HeldResources {
        let fetcher = self.client.fetcher();
        let (read_partitions, cursors) = fetcher.read_partitions();
        let producer = self.client.producer();
        HeldResources {
            sockets: self.registry.open_sockets(),
            placed_sockets: self.sessions.placed_sockets(),
            socket_tasks: self.socket_tasks.len(),
            cursors,
            read_partitions,
            fetch_memory: fetcher.budget().used(),
            producer_memory: self.config.producer.buffer_memory - producer.memory_available(),
        }
    }
}
