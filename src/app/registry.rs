//! The sockets of this process: the consuming ones by group and client id, and the count of all.
//!
//! ```text
//! acquire_group_permit(group, client id)
//!   ├─ the id is free ─▶ fewer sockets than partitions? ─▶ GroupPermit, until it is released
//!   └─ the id is taken: the socket that holds it is probed
//!        ├─ its client answers within 2 s ─▶ refused
//!        ├─ it releases its permit ──────────▶ the id is free
//!        └─ silence ──▶ it is evicted ─────▶ the id is free
//! ```
//!
//! # Invariants
//! - A client id stands at most once in a group, a group has at most as many sockets as its
//!   topics have partitions, and both are decided under one lock.
//! - A socket that is closing ([`GroupPermit::release`]) counts no longer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use runtime::mutex::lock;
use tokio::sync::Notify;
use tokio::time::sleep;

use runtime::wake::WakeSignal;

/// How long a socket may take to show that it lives when its client id comes again.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// All sockets of this process.
#[derive(Clone, Debug, Default)]
pub(crate) struct SocketRegistry(Arc<Mutex<RegistryState>>);

#[derive(Debug, Default)]
struct RegistryState {
    /// Open sockets, producing and consuming, by a number of each.
    sockets: HashMap<u64, Arc<SocketHandle>>,
    /// How many there ever were.
    opened: u64,
    stopping: bool,
    groups: HashMap<String, SocketGroup>,
}

/// The sockets of a consumer group.
#[derive(Debug, Default)]
struct SocketGroup {
    /// By client id.
    sockets: HashMap<String, GroupSocket>,
    /// The topics of all of them.
    topics: HashMap<Arc<str>, GroupTopic>,
    /// The partitions of these topics together.
    partitions: usize,
}

/// A topic that sockets of a group read.
#[derive(Debug)]
struct GroupTopic {
    /// As far as any socket knew when it came.
    partitions: usize,
    sockets: usize,
}

/// A consuming socket that holds a permit of its group.
#[derive(Debug)]
struct GroupSocket {
    handle: Arc<SocketHandle>,
    topics: Vec<Arc<str>>,
}

impl SocketGroup {
    /// The partitions of the group's topics and of these, each topic once: in the time that these
    /// take, however many the group has.
    fn partitions_with(&self, topics: &[(Arc<str>, usize)]) -> usize {
        let more = topics.iter().map(|(topic, partitions)| {
            let known = self.topics.get(topic).map_or(0, |known| known.partitions);
            partitions.saturating_sub(known)
        });
        self.partitions + more.sum::<usize>()
    }

    fn insert(&mut self, client_id: &str, socket: GroupSocket, topics: &[(Arc<str>, usize)]) {
        self.partitions = self.partitions_with(topics);
        for (topic, partitions) in topics {
            let known = self.topics.entry(Arc::clone(topic)).or_insert(GroupTopic {
                partitions: 0,
                sockets: 0,
            });
            known.partitions = known.partitions.max(*partitions);
            known.sockets += 1;
        }
        self.sockets.insert(client_id.to_owned(), socket);
    }

    fn remove(&mut self, client_id: &str) {
        let Some(socket) = self.sockets.remove(client_id) else {
            return;
        };
        for topic in socket.topics {
            let Some(known) = self.topics.get_mut(&topic) else {
                continue;
            };
            known.sockets -= 1;
            if known.sockets == 0 {
                self.partitions -= known.partitions;
                self.topics.remove(&topic);
            }
        }
    }
}

/// What the registry and a socket's task reach each other by.
#[derive(Debug, Default)]
pub(crate) struct SocketHandle {
    /// Wakes the task: for a signal, and for whatever else concerns it.
    pub(crate) wake: Arc<WakeSignal>,
    /// Notified by the task when a probed client has answered.
    pub(crate) client_alive: Notify,
    /// Notified when the socket has released its permit.
    released: Notify,
    /// Signals that were not taken yet, as bits.
    signals: AtomicU8,
}

/// What a socket's task is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SocketSignal {
    /// Close, since the server stops.
    Stop = 1,
    /// Close, since the client did not answer a probe.
    Evict = 2,
    /// Send a ping, to learn whether the client is alive.
    Probe = 4,
}

impl SocketHandle {
    /// Takes the most urgent signal that was not taken yet.
    pub(crate) fn take_signal(&self) -> Option<SocketSignal> {
        let signals = self.signals.load(Ordering::Relaxed);
        let signal = [SocketSignal::Stop, SocketSignal::Evict, SocketSignal::Probe]
            .into_iter()
            .find(|signal| signals & *signal as u8 != 0)?;
        self.signals.fetch_and(!(signal as u8), Ordering::AcqRel);
        Some(signal)
    }

    fn send_signal(&self, signal: SocketSignal) {
        self.signals.fetch_or(signal as u8, Ordering::AcqRel);
        self.wake.notify();
    }
}

/// One of the open sockets that the process may have; released when dropped.
#[derive(Debug)]
pub(crate) struct ConnectionPermit {
    registry: SocketRegistry,
    number: u64,
    handle: Arc<SocketHandle>,
}

impl ConnectionPermit {
    /// What the socket's task receives signals by.
    pub(crate) fn handle(&self) -> &Arc<SocketHandle> {
        &self.handle
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.registry.lock().sockets.remove(&self.number);
    }
}

/// One of the sockets that a group may have; released when dropped.
#[derive(Debug)]
pub(crate) struct GroupPermit {
    registry: SocketRegistry,
    group: String,
    client_id: String,
    handle: Arc<SocketHandle>,
}

/// Why a group has no permit for a client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AdmissionError {
    /// The client id is taken, by a socket that answers.
    #[error("parameter clientId: {client_id:?} is already connected in group {group:?}")]
    DuplicateClientId {
        /// The client id.
        client_id: String,
        /// The group.
        group: String,
    },
    /// The group has a socket for each partition.
    #[error(
        "parameter groupId: group {group:?} has {sockets} sockets for {partitions} partitions; \
         allowed: at most one socket per partition"
    )]
    GroupFull {
        /// The group.
        group: String,
        /// How many sockets it has.
        sockets: usize,
        /// How many it may have.
        partitions: usize,
    },
}

impl SocketRegistry {
    /// Counts one more socket; `None` when `max` are open (0: no limit).
    pub(crate) fn try_acquire_connection_permit(&self, max: usize) -> Option<ConnectionPermit> {
        let mut state = self.lock();
        if max != 0 && state.sockets.len() >= max {
            return None;
        }
        let handle = Arc::new(SocketHandle::default());
        if state.stopping {
            handle.send_signal(SocketSignal::Stop);
        }
        let number = state.opened;
        state.opened += 1;
        state.sockets.insert(number, Arc::clone(&handle));
        Some(ConnectionPermit {
            registry: self.clone(),
            number,
            handle,
        })
    }

    /// Signals every socket to stop, and those to come.
    pub(crate) fn stop_sockets(&self) {
        let mut state = self.lock();
        state.stopping = true;
        let handles = state.sockets.values();
        handles.for_each(|handle| handle.send_signal(SocketSignal::Stop));
    }

    /// How many sockets there are.
    pub(crate) fn open_sockets(&self) -> usize {
        self.lock().sockets.len()
    }

    /// How many of them count for a group.
    pub(crate) fn group_sockets(&self) -> usize {
        let state = self.lock();
        let groups = state.groups.values();
        groups.map(|group| group.sockets.len()).sum()
    }

    /// Takes a permit of `group` for the socket of `handle`. `topics` are the client's, with
    /// their partition counts.
    ///
    /// Waits up to two seconds when the client id is taken, to learn whether the client of
    /// that socket is alive.
    pub(crate) async fn acquire_group_permit(
        &self,
        group: &str,
        client_id: &str,
        topics: &[(Arc<str>, usize)],
        handle: &Arc<SocketHandle>,
    ) -> Result<GroupPermit, AdmissionError> {
        loop {
            let attempt = self.try_acquire_group_permit(group, client_id, topics, handle)?;
            let holder = match attempt {
                GroupPermitAttempt::Acquired(permit) => return Ok(permit),
                GroupPermitAttempt::HeldBy(holder) => holder,
            };
            let (alive, released) = (holder.client_alive.notified(), holder.released.notified());
            tokio::pin!(alive, released);
            alive.as_mut().enable();
            released.as_mut().enable();
            // It may have been released before we listened.
            if !self.is_held_by(group, client_id, &holder) {
                continue;
            }
            holder.send_signal(SocketSignal::Probe);
            tokio::select! {
                biased;
                () = released => {}
                () = alive => {
                    return Err(AdmissionError::DuplicateClientId {
                        client_id: client_id.to_owned(),
                        group: group.to_owned(),
                    });
                }
                () = sleep(PROBE_TIMEOUT) => {
                    holder.send_signal(SocketSignal::Evict);
                    self.remove(group, client_id, &holder);
                }
            }
        }
    }

    fn try_acquire_group_permit(
        &self,
        group: &str,
        client_id: &str,
        topics: &[(Arc<str>, usize)],
        handle: &Arc<SocketHandle>,
    ) -> Result<GroupPermitAttempt, AdmissionError> {
        let mut state = self.lock();
        let known = state.groups.get(group);
        if let Some(holder) = known.and_then(|known| known.sockets.get(client_id)) {
            return Ok(GroupPermitAttempt::HeldBy(holder.handle.clone()));
        }
        let empty = SocketGroup::default();
        let partitions = known.unwrap_or(&empty).partitions_with(topics);
        let sockets = known.map_or(0, |known| known.sockets.len());
        if sockets >= partitions {
            return Err(AdmissionError::GroupFull {
                group: group.to_owned(),
                sockets,
                partitions,
            });
        }
        let socket = GroupSocket {
            handle: Arc::clone(handle),
            topics: topics.iter().map(|(topic, _)| Arc::clone(topic)).collect(),
        };
        let known = state.groups.entry(group.to_owned()).or_default();
        known.insert(client_id, socket, topics);
        Ok(GroupPermitAttempt::Acquired(GroupPermit {
            registry: self.clone(),
            group: group.to_owned(),
            client_id: client_id.to_owned(),
            handle: Arc::clone(handle),
        }))
    }

    /// Whether the client's permit is still held by the socket of `handle`.
    fn is_held_by(&self, group: &str, client_id: &str, handle: &Arc<SocketHandle>) -> bool {
        let state = self.lock();
        let known = state.groups.get(group);
        let socket = known.and_then(|known| known.sockets.get(client_id));
        socket.is_some_and(|socket| Arc::ptr_eq(&socket.handle, handle))
    }

    /// Frees the client's permit if it is still held by the socket of `handle`.
    fn remove(&self, group: &str, client_id: &str, handle: &Arc<SocketHandle>) {
        let mut state = self.lock();
        let Some(known) = state.groups.get_mut(group) else {
            return;
        };
        let holder = known.sockets.get(client_id);
        if holder.is_some_and(|socket| Arc::ptr_eq(&socket.handle, handle)) {
            known.remove(client_id);
            handle.released.notify_waiters();
        }
        if known.sockets.is_empty() {
            state.groups.remove(group);
        }
    }

    fn lock(&self) -> MutexGuard<'_, RegistryState> {
        lock(&self.0)
    }
}

enum GroupPermitAttempt {
    Acquired(GroupPermit),
    /// The client id is taken by that socket.
    HeldBy(Arc<SocketHandle>),
}

impl GroupPermit {
    /// Frees the permit before the socket has ended: its client may connect again, and another
    /// may take the permit.
    pub(crate) fn release(&self) {
        self.registry
            .remove(&self.group, &self.client_id, &self.handle);
    }
}

impl Drop for GroupPermit {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Vec<(Arc<str>, usize)> {
        vec![("t".into(), 2)]
    }

    async fn acquire(
        registry: &SocketRegistry,
        group: &str,
        client_id: &str,
        topics: &[(Arc<str>, usize)],
    ) -> Result<GroupPermit, AdmissionError> {
        let handle = Arc::default();
        registry
            .acquire_group_permit(group, client_id, topics, &handle)
            .await
    }

    #[tokio::test]
    async fn a_group_has_at_most_a_socket_per_partition() {
        let registry = SocketRegistry::default();
        let a = acquire(&registry, "g", "a", &two()).await.unwrap();
        let _b = acquire(&registry, "g", "b", &two()).await.unwrap();
        let full = acquire(&registry, "g", "c", &two()).await.unwrap_err();
        assert!(matches!(
            full,
            AdmissionError::GroupFull {
                sockets: 2,
                partitions: 2,
                ..
            }
        ));
        assert!(acquire(&registry, "other", "c", &two()).await.is_ok());
        a.release();
        assert!(acquire(&registry, "g", "c", &two()).await.is_ok());
        drop(a);
    }

    #[tokio::test]
    async fn topics_of_all_sockets_of_a_group_count_together() {
        let registry = SocketRegistry::default();
        let topic = |name: &str| vec![(name.into(), 1)];
        let _a = acquire(&registry, "g", "a", &topic("t")).await.unwrap();
        assert!(acquire(&registry, "g", "b", &topic("t")).await.is_err());
        assert!(acquire(&registry, "g", "b", &topic("u")).await.is_ok());
    }

    #[tokio::test]
    async fn a_topic_counts_as_long_as_a_socket_reads_it_and_with_the_partitions_it_has_now() {
        let registry = SocketRegistry::default();
        let of = |name: &str, partitions| vec![(Arc::from(name), partitions)];
        let a = acquire(&registry, "g", "a", &of("t", 1)).await.unwrap();
        let b = acquire(&registry, "g", "b", &of("u", 2)).await.unwrap();
        let c = acquire(&registry, "g", "c", &of("u", 2)).await.unwrap();
        assert!(acquire(&registry, "g", "d", &of("u", 2)).await.is_err());
        // A partition was added.
        let d = acquire(&registry, "g", "d", &of("u", 3)).await.unwrap();
        assert_eq!(registry.lock().groups["g"].partitions, 4);
        drop(b);
        assert_eq!(registry.lock().groups["g"].partitions, 4, "others read it");
        for gone in [c, d] {
            drop(gone);
        }
        assert_eq!(registry.lock().groups["g"].partitions, 1);
        assert!(acquire(&registry, "g", "e", &of("t", 1)).await.is_err());
        drop(a);
        assert!(registry.lock().groups.is_empty());
    }

    /// Counted anew, a socket of a group of many topics would cost what all of them do.
    #[tokio::test]
    async fn the_partitions_of_a_group_are_kept_and_not_counted_for_each_socket() {
        let registry = SocketRegistry::default();
        let of = |name: &str| vec![(Arc::from(name), 1)];
        let _a = acquire(&registry, "g", "a", &of("t")).await.unwrap();
        registry.lock().groups.get_mut("g").unwrap().partitions = 7;
        let _b = acquire(&registry, "g", "b", &of("u")).await.unwrap();
        assert_eq!(registry.lock().groups["g"].partitions, 8);
    }

    #[tokio::test(start_paused = true)]
    async fn a_duplicate_client_id_is_refused_while_the_first_client_answers() {
        let registry = SocketRegistry::default();
        let first = acquire(&registry, "g", "a", &two()).await.unwrap();
        let handle = first.handle.clone();
        let answering = tokio::spawn(async move {
            handle.wake.notified().await;
            assert_eq!(handle.take_signal(), Some(SocketSignal::Probe));
            handle.client_alive.notify_waiters();
        });
        let second = acquire(&registry, "g", "a", &two()).await;
        assert!(matches!(
            second,
            Err(AdmissionError::DuplicateClientId { .. })
        ));
        answering.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_socket_is_evicted_and_its_client_id_is_free() {
        let registry = SocketRegistry::default();
        let first = acquire(&registry, "g", "a", &two()).await.unwrap();
        let second = acquire(&registry, "g", "a", &two()).await.unwrap();
        assert_eq!(first.handle.take_signal(), Some(SocketSignal::Evict));
        drop(first);
        assert_eq!(second.handle.take_signal(), None);
        let known = registry.lock().groups["g"].sockets.contains_key("a");
        assert!(known, "the old permit must not take the new one with it");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_id_is_free_as_soon_as_its_permit_is_released() {
        let registry = SocketRegistry::default();
        let first = acquire(&registry, "g", "a", &two()).await.unwrap();
        let begun = tokio::time::Instant::now();
        let coming = tokio::spawn({
            let registry = registry.clone();
            async move { acquire(&registry, "g", "a", &two()).await }
        });
        first.handle.wake.notified().await;
        first.release();
        assert!(coming.await.unwrap().is_ok());
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[tokio::test]
    async fn every_socket_is_signalled_to_stop_once_and_so_are_those_that_come_later() {
        let registry = SocketRegistry::default();
        let early = registry.try_acquire_connection_permit(0).unwrap();
        registry.stop_sockets();
        let late = registry.try_acquire_connection_permit(0).unwrap();
        for permit in [early, late] {
            permit.handle.wake.notified().await;
            assert_eq!(permit.handle.take_signal(), Some(SocketSignal::Stop));
            assert_eq!(permit.handle.take_signal(), None);
        }
    }

    #[tokio::test]
    async fn a_group_that_is_refused_its_first_socket_leaves_nothing() {
        let registry = SocketRegistry::default();
        let topics = [("t".into(), 0)];
        let refused = acquire(&registry, "g", "a", &topics).await;
        assert!(matches!(refused, Err(AdmissionError::GroupFull { .. })));
        assert!(registry.lock().groups.is_empty());
    }

    #[test]
    fn connection_permits_are_counted_and_released() {
        let registry = SocketRegistry::default();
        let permit = registry.try_acquire_connection_permit(1).unwrap();
        assert!(registry.try_acquire_connection_permit(1).is_none());
        drop(permit);
        assert!(registry.try_acquire_connection_permit(1).is_some());
        assert!(registry.lock().sockets.is_empty());
    }
}
