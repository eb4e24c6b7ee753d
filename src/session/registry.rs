//! The sockets of this process, and how they are signalled.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use kafka_client::principal_clients::{ClientLease, ClientNumber};
use runtime::mutex::lock;
use runtime::wake::WakeSignal;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::socket_authentication::SocketAuthentication;

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
}

/// What the registry and a socket's task reach each other by.
#[derive(Debug, Default)]
pub(crate) struct SocketHandle {
    /// Wakes the task: for a signal, and for whatever else concerns it.
    pub(crate) wake: Arc<WakeSignal>,
    /// Notified by the task when a probed client has answered.
    pub(crate) client_alive: Notify,
    /// Notified when the socket has released its permit.
    pub(super) released: Notify,
    /// Signals that were not taken yet, as bits.
    signals: AtomicU16,
    /// After how many milliseconds the client of a socket that is to stop shall connect again.
    reconnect_after_ms: AtomicU32,
    /// Which user's Kafka client it uses; 0: the proxy's own.
    client: AtomicU64,
    /// By what its client may be here, if that ends.
    authentication: Mutex<Option<SocketAuthentication>>,
}

/// What a socket's task is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SocketSignal {
    /// Close, since the server stops.
    Stop = 1,
    /// Close, since the client did not answer a probe.
    Evict = 2,
    /// Close, since the client is connected at another node, and answers there.
    Supersede = 4,
    /// Close, since others have the places of its group.
    LosePlace = 8,
    /// Send a ping, to learn whether the client is alive.
    Probe = 16,
    /// Close, since the brokers do not accept the socket's credentials any more.
    RefuseCredentials = 32,
    /// Close, since the client's token is not good any more.
    ExpireAuthentication = 64,
    /// Close, since an administrator wants it.
    CloseByAdmin = 128,
    /// Close, since a younger transactional socket of the same instance is open.
    Fence = 256,
}

impl SocketSignal {
    const BY_URGENCY: [Self; 9] = [
        Self::Stop,
        Self::CloseByAdmin,
        Self::Fence,
        Self::ExpireAuthentication,
        Self::RefuseCredentials,
        Self::Evict,
        Self::Supersede,
        Self::LosePlace,
        Self::Probe,
    ];
}

impl SocketHandle {
    /// Takes the most urgent signal that was not taken yet.
    pub(crate) fn take_signal(&self) -> Option<SocketSignal> {
        let signals = self.signals.load(Ordering::Relaxed);
        let signal = SocketSignal::BY_URGENCY
            .into_iter()
            .find(|signal| signals & *signal as u16 != 0)?;
        self.signals.fetch_and(!(signal as u16), Ordering::AcqRel);
        Some(signal)
    }

    /// After what time the client shall connect again, once [`SocketSignal::Stop`] has come.
    pub(crate) fn reconnect_after(&self) -> Duration {
        Duration::from_millis(self.reconnect_after_ms.load(Ordering::Relaxed).into())
    }

    /// From now on its client is here by that token.
    pub(crate) fn authenticate(&self, authentication: SocketAuthentication) {
        let key = Arc::clone(&authentication.key);
        *lock(&self.authentication) = Some(authentication);
        // The others may have been signalled before.
        if key.is_withdrawn() {
            self.send_signal(SocketSignal::ExpireAuthentication);
        }
    }

    /// By what its client is here, if that ends.
    pub(crate) fn authentication(&self) -> Option<SocketAuthentication> {
        lock(&self.authentication).clone()
    }

    fn is_withdrawn(&self) -> bool {
        let authentication = lock(&self.authentication);
        authentication
            .as_ref()
            .is_some_and(|by| by.key.is_withdrawn())
    }

    /// Signals [`SocketSignal::Stop`].
    fn stop(&self, reconnect_after: Duration) {
        let millis = u32::try_from(reconnect_after.as_millis()).unwrap_or(u32::MAX);
        self.reconnect_after_ms.store(millis, Ordering::Relaxed);
        self.send_signal(SocketSignal::Stop);
    }

    pub(super) fn send_signal(&self, signal: SocketSignal) {
        self.signals.fetch_or(signal as u16, Ordering::AcqRel);
        self.wake.notify();
    }
}

/// One of the open sockets that the process may have; released when dropped.
#[derive(Debug)]
pub(crate) struct ConnectionPermit {
    registry: SocketRegistry,
    number: u64,
    handle: Arc<SocketHandle>,
    /// The Kafka client that the socket works with.
    lease: Option<ClientLease>,
}

impl ConnectionPermit {
    /// Keeps the Kafka client for as long as the socket is open, which from now on is signalled
    /// when the brokers do not accept the client's credentials any more.
    pub(crate) fn keep(&mut self, lease: ClientLease) {
        let number = lease.number().unwrap_or(0);
        self.handle.client.store(number, Ordering::Release);
        if let Some(authentication) = &mut *lock(&self.handle.authentication) {
            authentication.keep(&lease);
        }
        // The others may have been signalled before.
        if lease.is_refused() {
            self.handle.send_signal(SocketSignal::RefuseCredentials);
        }
        self.lease = Some(lease);
    }

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
            lease: None,
        })
    }

    /// Signals the sockets that use a client whose credentials the brokers refuse.
    pub(crate) fn refuse_credentials(&self, client: ClientNumber) {
        let state = self.lock();
        let uses_it = |handle: &&Arc<SocketHandle>| handle.client.load(Ordering::Acquire) == client;
        let handles = state.sockets.values().filter(uses_it);
        handles.for_each(|handle| handle.send_signal(SocketSignal::RefuseCredentials));
    }

    /// Signals the sockets whose tokens were signed with keys that are withdrawn.
    pub(crate) fn expire_withdrawn(&self) {
        let state = self.lock();
        let handles = state.sockets.values();
        let withdrawn = handles.filter(|handle| handle.is_withdrawn());
        withdrawn.for_each(|handle| handle.send_signal(SocketSignal::ExpireAuthentication));
    }

    /// Signals every socket to come to stop at once, and gives those that are open, to be
    /// signalled.
    pub(crate) fn begin_stop(&self) -> OpenSockets {
        let mut state = self.lock();
        state.stopping = true;
        OpenSockets(state.sockets.values().cloned().collect())
    }

    /// How many sockets there are.
    pub(crate) fn open_sockets(&self) -> usize {
        self.lock().sockets.len()
    }

    fn lock(&self) -> MutexGuard<'_, RegistryState> {
        lock(&self.0)
    }
}

/// The sockets that were open when the stop began.
#[derive(Debug)]
pub(crate) struct OpenSockets(Vec<Arc<SocketHandle>>);

impl OpenSockets {
    /// Signals them to stop, evenly over that time, and their clients to connect again after times
    /// that are spread over as much.
    pub(crate) async fn stop_over(self, spread: Duration) {
        let count = self.0.len();
        let begin = Instant::now();
        for (index, socket) in self.0.into_iter().enumerate() {
            sleep_until(begin + spread.mul_f64(index as f64 / count as f64)).await;
            socket.stop(reconnect_after(index, spread));
        }
    }
}

/// When the client of the socket that is stopped as the `index`th is to connect again: any number of
/// successive ones is spread evenly (multiples of the golden ratio, modulo 1), so that the order in
/// which sockets stop is not that in which they come back.
fn reconnect_after(index: usize, spread: Duration) -> Duration {
    const GOLDEN_RATIO: f64 = 1.618_033_988_749_895;
    spread.mul_f64((index as f64 * GOLDEN_RATIO).fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn sockets_stop_evenly_over_the_spread_and_come_back_evenly_over_as_much() {
        let registry = SocketRegistry::default();
        let permits = [(); 100].map(|()| registry.try_acquire_connection_permit(0).unwrap());
        let stopping = tokio::spawn(registry.begin_stop().stop_over(Duration::from_secs(2)));
        let mut back = [0; 4];
        for quarter in 0..4 {
            sleep_until(Instant::now() + Duration::from_millis(499)).await;
            let mut stopped = 0;
            for permit in &permits {
                if permit.handle.take_signal() == Some(SocketSignal::Stop) {
                    stopped += 1;
                    back[permit.handle.reconnect_after().as_millis() as usize / 500] += 1;
                }
            }
            assert!(
                (24..=26).contains(&stopped),
                "{stopped} in quarter {quarter}"
            );
        }
        assert!(stopping.is_finished());
        assert!(
            back.iter().all(|count| (23..=27).contains(count)),
            "{back:?}"
        );
    }

    #[tokio::test]
    async fn every_socket_is_signalled_to_stop_once_and_so_are_those_that_come_later() {
        let registry = SocketRegistry::default();
        let early = registry.try_acquire_connection_permit(0).unwrap();
        registry.begin_stop().stop_over(Duration::ZERO).await;
        let late = registry.try_acquire_connection_permit(0).unwrap();
        for permit in [early, late] {
            permit.handle.wake.notified().await;
            assert_eq!(permit.handle.take_signal(), Some(SocketSignal::Stop));
            assert_eq!(permit.handle.take_signal(), None);
        }
    }

    #[test]
    fn the_sockets_of_one_user_are_signalled_and_no_others() {
        let registry = SocketRegistry::default();
        let permits = [0, 1, 2, 1].map(|client| {
            let permit = registry.try_acquire_connection_permit(0).unwrap();
            permit.handle.client.store(client, Ordering::Release);
            permit
        });
        registry.refuse_credentials(1);
        let signals = permits.each_ref().map(|permit| permit.handle.take_signal());
        let refused = Some(SocketSignal::RefuseCredentials);
        assert_eq!(signals, [None, refused, None, refused]);
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
