//! A TCP relay between a client and a broker, on a port that stays the same, which does to
//! the bytes what networks do.
//!
//! ```text
//! client ──▶ relay ──▶ broker       up:   client to broker
//!        ◀──       ◀──              down: broker to client
//! ```
//!
//! What is set applies to connections that are open and to those that come, until
//! something else is set. Tests that put it before a broker have the broker advertise
//! [`Relay::address`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Up,
    Down,
}

/// What happens to connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Every byte passes.
    Pass,
    /// Nothing passes either way; connections are accepted and stay open.
    Silent,
    /// At most so many bytes per second each way.
    Slow(usize),
    /// Connections are refused: accepted and closed at once. Open ones are cut.
    Refuse,
}

/// The relay. Dropping it cuts every connection and frees the port.
#[derive(Debug)]
pub(crate) struct Relay {
    address: SocketAddr,
    shared: Arc<RelayState>,
    _accept: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct RelayState {
    target: std::sync::Mutex<SocketAddr>,
    mode: watch::Sender<Mode>,
    /// Rises to cut what is open.
    cuts: watch::Sender<u64>,
    /// The next connection's direction that is cut after so many bytes.
    cut_after: std::sync::Mutex<Option<(Direction, usize)>>,
    /// Rises to end one direction of what is open.
    half_closes: [watch::Sender<u64>; 2],
    passed: [AtomicU64; 2],
}

impl Relay {
    /// Relays to `target` from a free port.
    pub(crate) async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(RelayState {
            target: std::sync::Mutex::new(target),
            mode: watch::Sender::new(Mode::Pass),
            cuts: watch::Sender::new(0),
            cut_after: std::sync::Mutex::new(None),
            half_closes: [watch::Sender::new(0), watch::Sender::new(0)],
            passed: [AtomicU64::new(0), AtomicU64::new(0)],
        });
        let accept = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self {
            address,
            shared,
            _accept: AbortOnDropHandle::new(accept),
        }
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leads the connections that come from now on to another address.
    pub(crate) fn lead_to(&self, target: SocketAddr) {
        *self.shared.target.lock().unwrap() = target;
    }

    /// Changes what happens to connections.
    pub(crate) fn set(&self, mode: Mode) {
        self.shared.mode.send_replace(mode);
        if mode == Mode::Refuse {
            self.cut();
        }
    }

    /// Cuts the connections that are open (by RST where there is unread data).
    pub(crate) fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Cuts the next connection that passes so many bytes in that direction, right after
    /// them, be it within a frame. Counts from now on, for whichever is first.
    pub(crate) fn cut_after(&self, direction: Direction, bytes: usize) {
        *self.shared.cut_after.lock().unwrap() = Some((direction, bytes));
    }

    /// Ends one direction of the connections that are open; the other goes on.
    pub(crate) fn half_close(&self, direction: Direction) {
        self.shared.half_closes[direction as usize].send_modify(|closes| *closes += 1);
    }

    /// Bytes that passed in a direction since the start.
    pub(crate) fn passed(&self, direction: Direction) -> u64 {
        self.shared.passed[direction as usize].load(Ordering::SeqCst)
    }
}

async fn accept(listener: TcpListener, shared: Arc<RelayState>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        if *shared.mode.borrow() != Mode::Refuse {
            connections.spawn(relay(client, Arc::clone(&shared)));
        }
    }
}

async fn relay(client: TcpStream, shared: Arc<RelayState>) {
    let mut cuts = shared.cuts.subscribe();
    let target = *shared.target.lock().unwrap();
    let Ok(broker) = TcpStream::connect(target).await else {
        return;
    };
    let _ = (client.set_nodelay(true), broker.set_nodelay(true));
    let (client_in, client_out) = client.into_split();
    let (broker_in, broker_out) = broker.into_split();
    let both = async {
        let up = pump(client_in, broker_out, Direction::Up, &shared);
        let down = pump(broker_in, client_out, Direction::Down, &shared);
        let _ = tokio::try_join!(up, down);
    };
    tokio::select! {
        () = both => {}
        _ = cuts.changed() => {}
    }
}

/// Why a direction stopped for both.
#[derive(Debug)]
struct Cut;

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    direction: Direction,
    shared: &RelayState,
) -> Result<(), Cut> {
    let mut half_close = shared.half_closes[direction as usize].subscribe();
    let mut mode = shared.mode.subscribe();
    let mut buffer = [0; 16 << 10];
    loop {
        let rate = match *mode.borrow_and_update() {
            Mode::Silent => None,
            Mode::Slow(rate) => Some(rate.max(1)),
            Mode::Pass | Mode::Refuse => Some(usize::MAX),
        };
        let Some(rate) = rate else {
            let _ = mode.changed().await;
            continue;
        };
        // A slow line passes ten times a second what fits.
        let most = buffer.len().min(rate.div_ceil(10));
        let read = tokio::select! {
            biased;
            _ = mode.changed() => continue,
            _ = half_close.changed() => {
                let _ = to.shutdown().await;
                return Ok(());
            }
            read = from.read(&mut buffer[..most]) => read.unwrap_or(0),
        };
        let cut_at = shared.count(direction, read);
        let passing = cut_at.unwrap_or(read);
        if read == 0 || to.write_all(&buffer[..passing]).await.is_err() {
            let _ = to.shutdown().await;
            return Ok(());
        }
        shared.passed[direction as usize].fetch_add(passing as u64, Ordering::SeqCst);
        if cut_at.is_some() {
            return Err(Cut);
        }
        if rate != usize::MAX {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl RelayState {
    /// How many of `read` bytes may pass if the connection is to be cut within them.
    fn count(&self, direction: Direction, read: usize) -> Option<usize> {
        let mut cut_after = self.cut_after.lock().unwrap();
        let (wanted, left) = (*cut_after)?;
        if wanted != direction {
            return None;
        }
        if left > read {
            *cut_after = Some((wanted, left - read));
            return None;
        }
        *cut_after = None;
        Some(left)
    }
}
