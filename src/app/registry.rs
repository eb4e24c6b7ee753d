//! Who is connected in this process: client ids per group, and the count of all sockets.
//!
//! ```text
//! admit(group, client) ─ known? ─ no ──▶ seats left? ──▶ Seat (in the map until dropped)
//!                          │
//!                          └─ yes: probe the old socket
//!                                ├─ heard within 2 s ──▶ refused
//!                                ├─ ends ──────────────▶ its place is free
//!                                └─ silent ──▶ evicted, its place is free
//! ```
//!
//! # Invariants
//! - A client id stands at most once in a group, a group has at most as many sockets as its
//!   topics have partitions, and both are decided under one lock.
//! - A socket that is on its way out ([`Seat::leaving`]) holds no place.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use runtime::wake::WakeSignal;

/// How long a socket may take to show that it lives when its client id comes again.
const PROBE_MAX: Duration = Duration::from_secs(2);

/// All sockets of this process.
#[derive(Clone, Debug, Default)]
pub struct Registry(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    sockets: usize,
    stopping: bool,
    groups: HashMap<String, HashMap<String, Member>>,
}

#[derive(Debug)]
struct Member {
    call: Arc<Call>,
    topics: BTreeMap<String, usize>,
}

/// How the registry reaches a socket's task, and hears of it.
#[derive(Debug, Default)]
pub struct Call {
    /// Wakes the task, whoever has word for it.
    pub wake: Arc<WakeSignal>,
    /// "It does": the task has heard from its client.
    pub alive: Notify,
    /// The socket has given up its seat.
    left: Notify,
    orders: AtomicU8,
}

/// What a socket's task is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// End, since the server stops.
    Stop = 1,
    /// End, since the client is taken to be gone.
    Leave = 2,
    /// Show that the client lives: send a ping.
    Probe = 4,
}

impl Call {
    /// The most urgent order that was not taken yet.
    pub fn order(&self) -> Option<Order> {
        let orders = self.orders.load(Ordering::Relaxed);
        let order = [Order::Stop, Order::Leave, Order::Probe]
            .into_iter()
            .find(|order| orders & *order as u8 != 0)?;
        self.orders.fetch_and(!(order as u8), Ordering::AcqRel);
        Some(order)
    }

    fn tell(&self, order: Order) {
        self.orders.fetch_or(order as u8, Ordering::AcqRel);
        self.wake.notify();
    }
}

/// A place in the process; given back when dropped.
#[derive(Debug)]
pub struct Place(Registry);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.lock().sockets -= 1;
    }
}

/// A place in a group; given back when dropped.
#[derive(Debug)]
pub struct Seat {
    registry: Registry,
    group: String,
    client: String,
    call: Arc<Call>,
}

/// Why there is no seat.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The client id is taken, by a socket that answers.
    #[error("parameter clientId: {client:?} is already connected in group {group:?}")]
    Duplicate {
        /// Whose.
        client: String,
        /// Where.
        group: String,
    },
    /// More sockets than partitions.
    #[error(
        "parameter groupId: group {group:?} has {sockets} sockets for {partitions} partitions; \
         allowed: at most one socket per partition"
    )]
    Partitions {
        /// Which group.
        group: String,
        /// How many it has.
        sockets: usize,
        /// How many it may have.
        partitions: usize,
    },
}

impl Registry {
    /// Takes a place for a socket; `None` when `max` are open (0: no limit).
    pub fn place(&self, max: usize) -> Option<Place> {
        let mut state = self.lock();
        if max != 0 && state.sockets >= max {
            return None;
        }
        state.sockets += 1;
        Some(Place(self.clone()))
    }

    /// How many sockets are open.
    pub fn sockets(&self) -> usize {
        self.lock().sockets
    }

    /// Tells every socket with a seat to end, and those to come.
    pub fn stop(&self) {
        let mut state = self.lock();
        state.stopping = true;
        let members = state.groups.values().flat_map(HashMap::values);
        members.for_each(|member| member.call.tell(Order::Stop));
    }

    /// Takes a seat in `group`. `topics` are the client's, with their partition counts.
    ///
    /// Waits up to two seconds when the client id is taken, to learn whether that socket
    /// still lives.
    pub async fn admit(
        &self,
        group: &str,
        client: &str,
        topics: &[(String, usize)],
    ) -> Result<Seat, Full> {
        loop {
            let known = match self.try_admit(group, client, topics)? {
                Ok(seat) => return Ok(seat),
                Err(known) => known,
            };
            let (alive, left) = (known.alive.notified(), known.left.notified());
            tokio::pin!(alive, left);
            alive.as_mut().enable();
            left.as_mut().enable();
            if !self.is_seated(group, client, &known) {
                continue;
            }
            known.tell(Order::Probe);
            tokio::select! {
                biased;
                () = left => {}
                () = alive => {
                    return Err(Full::Duplicate {
                        client: client.to_owned(),
                        group: group.to_owned(),
                    });
                }
                () = sleep(PROBE_MAX) => {
                    known.tell(Order::Leave);
                    self.remove(group, client, &known);
                }
            }
        }
    }

    fn try_admit(
        &self,
        group: &str,
        client: &str,
        topics: &[(String, usize)],
    ) -> Result<Result<Seat, Arc<Call>>, Full> {
        let mut state = self.lock();
        let stopping = state.stopping;
        let members = state.groups.entry(group.to_owned()).or_default();
        if let Some(known) = members.get(client) {
            return Ok(Err(known.call.clone()));
        }
        let mut all: BTreeMap<&str, usize> = BTreeMap::new();
        all.extend(topics.iter().map(|(topic, count)| (topic.as_str(), *count)));
        for member in members.values() {
            for (topic, count) in &member.topics {
                let known = all.entry(topic).or_default();
                *known = (*known).max(*count);
            }
        }
        let partitions = all.values().sum();
        let sockets = members.len();
        if sockets >= partitions {
            return Err(Full::Partitions {
                group: group.to_owned(),
                sockets,
                partitions,
            });
        }
        let call = Arc::new(Call::default());
        if stopping {
            call.tell(Order::Stop);
        }
        let member = Member {
            call: call.clone(),
            topics: topics.iter().cloned().collect(),
        };
        members.insert(client.to_owned(), member);
        Ok(Ok(Seat {
            registry: self.clone(),
            group: group.to_owned(),
            client: client.to_owned(),
            call,
        }))
    }

    /// Whether the client's member is still the one that `call` reaches.
    fn is_seated(&self, group: &str, client: &str, call: &Arc<Call>) -> bool {
        let state = self.lock();
        let member = state.groups.get(group).and_then(|g| g.get(client));
        member.is_some_and(|member| Arc::ptr_eq(&member.call, call))
    }

    /// Removes the client's member if it is still the one that `call` reaches.
    fn remove(&self, group: &str, client: &str, call: &Arc<Call>) {
        let mut state = self.lock();
        let Some(members) = state.groups.get_mut(group) else {
            return;
        };
        if members
            .get(client)
            .is_some_and(|m| Arc::ptr_eq(&m.call, call))
        {
            members.remove(client);
            call.left.notify_waiters();
        }
        if members.is_empty() {
            state.groups.remove(group);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// What the socket's task listens to and answers by.
    pub fn call(&self) -> &Arc<Call> {
        &self.call
    }

    /// The socket is closing: its client may come back, and another may take its place.
    pub fn leaving(&self) {
        self.registry.remove(&self.group, &self.client, &self.call);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.leaving();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Vec<(String, usize)> {
        vec![("t".to_owned(), 2)]
    }

    #[tokio::test]
    async fn a_group_has_at_most_a_socket_per_partition() {
        let registry = Registry::default();
        let a = registry.admit("g", "a", &two()).await.unwrap();
        let _b = registry.admit("g", "b", &two()).await.unwrap();
        let full = registry.admit("g", "c", &two()).await.unwrap_err();
        assert!(matches!(
            full,
            Full::Partitions {
                sockets: 2,
                partitions: 2,
                ..
            }
        ));
        assert!(registry.admit("other", "c", &two()).await.is_ok());
        a.leaving();
        assert!(registry.admit("g", "c", &two()).await.is_ok());
        drop(a);
    }

    #[tokio::test]
    async fn topics_of_all_members_count_together() {
        let registry = Registry::default();
        let topic = |name: &str| vec![(name.to_owned(), 1)];
        let _a = registry.admit("g", "a", &topic("t")).await.unwrap();
        assert!(registry.admit("g", "b", &topic("t")).await.is_err());
        assert!(registry.admit("g", "b", &topic("u")).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_duplicate_is_refused_while_the_first_socket_lives() {
        let registry = Registry::default();
        let first = registry.admit("g", "a", &two()).await.unwrap();
        let call = first.call().clone();
        let answering = tokio::spawn(async move {
            call.wake.notified().await;
            assert_eq!(call.order(), Some(Order::Probe));
            call.alive.notify_waiters();
        });
        let second = registry.admit("g", "a", &two()).await;
        assert!(matches!(second, Err(Full::Duplicate { .. })));
        answering.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_socket_is_evicted_and_its_client_gets_back_in() {
        let registry = Registry::default();
        let first = registry.admit("g", "a", &two()).await.unwrap();
        let second = registry.admit("g", "a", &two()).await.unwrap();
        assert_eq!(first.call().order(), Some(Order::Leave));
        drop(first);
        assert_eq!(second.call().order(), None);
        let known = registry.lock().groups["g"].contains_key("a");
        assert!(known, "the old seat must not take the new one with it");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_has_just_left_gets_back_in_at_once() {
        let registry = Registry::default();
        let first = registry.admit("g", "a", &two()).await.unwrap();
        let begun = tokio::time::Instant::now();
        let coming = tokio::spawn({
            let registry = registry.clone();
            async move { registry.admit("g", "a", &two()).await }
        });
        first.call().wake.notified().await;
        first.leaving();
        assert!(coming.await.unwrap().is_ok());
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[tokio::test]
    async fn all_are_told_to_stop_once_and_those_that_come_late_too() {
        let registry = Registry::default();
        let early = registry.admit("g", "a", &two()).await.unwrap();
        registry.stop();
        let late = registry.admit("g", "b", &two()).await.unwrap();
        for seat in [early, late] {
            seat.call().wake.notified().await;
            assert_eq!(seat.call().order(), Some(Order::Stop));
            assert_eq!(seat.call().order(), None);
        }
    }

    #[test]
    fn places_are_counted_and_given_back() {
        let registry = Registry::default();
        let place = registry.place(1).unwrap();
        assert!(registry.place(1).is_none());
        drop(place);
        assert!(registry.place(1).is_some());
        assert_eq!(registry.sockets(), 0);
    }
}
