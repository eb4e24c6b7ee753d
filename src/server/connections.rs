//! The connections that speak HTTP: how many there may be, and which of them makes room.
//!
//! ```text
//! accept ─▶ admit ─┬ fewer than the limit ─▶ HttpConnection
//!                  ├ one is idle ─▶ the oldest of them closes ─▶ HttpConnection
//!                  └ all have a request ─▶ refused
//! ```
//!
//! A client that opens connections and sends nothing so closes its own, and whoever asks for
//! `/healthcheck` is answered.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use runtime::mutex::lock;
use tokio::sync::Notify;

/// So many there may be when sockets take everything else.
const HTTP_CONNECTIONS_MIN: usize = 16;

/// How many connections may speak HTTP beside so many sockets; `connections_max` is for both, and
/// 0 for no limit.
pub(super) fn http_connections_max(connections_max: usize, sockets: usize) -> usize {
    match connections_max {
        0 => usize::MAX,
        max => max.saturating_sub(sockets).max(HTTP_CONNECTIONS_MIN),
    }
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub(super) struct HttpConnections(Arc<ConnectionsShared>);

#[derive(Debug, Default)]
struct ConnectionsShared {
    open: Mutex<OpenConnections>,
    /// Notified when one has ended.
    freed: Notify,
}

#[derive(Debug, Default)]
struct OpenConnections {
    count: usize,
    /// Those without a request, by when they had the last one, or were accepted.
    idle: BTreeMap<u64, Arc<Notify>>,
    /// Counts what has become idle.
    turns: u64,
}

impl HttpConnections {
    /// Takes one more in, as soon as there are fewer than `max`. `None`: there are not, and all of
    /// them have a request.
    pub(super) async fn admit(&self, max: usize) -> Option<HttpConnection> {
        loop {
            let admitted = {
                let mut open = lock(&self.0.open);
                let has_room = open.count < max;
                if has_room {
                    open.count += 1;
                } else {
                    let (_, oldest) = open.idle.pop_first()?;
                    oldest.notify_one();
                }
                has_room
            };
            if admitted {
                return Some(HttpConnection::new(self.clone()));
            }
            self.0.freed.notified().await;
        }
    }

    /// Closes the one that has been idle for longest, for its descriptor.
    pub(super) fn close_oldest_idle(&self) {
        if let Some((_, oldest)) = lock(&self.0.open).idle.pop_first() {
            oldest.notify_one();
        }
    }
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct HttpConnection {
    connections: HttpConnections,
    closing: Arc<Notify>,
    /// Where it stands among those that are idle; 0 while it has a request.
    turn: AtomicU64,
}

impl HttpConnection {
    fn new(connections: HttpConnections) -> Self {
        let connection = Self {
            connections,
            closing: Arc::default(),
            turn: AtomicU64::new(0),
        };
        connection.end_request();
        connection
    }

    /// Completes when it must make room for another.
    pub(super) async fn must_close(&self) {
        self.closing.notified().await;
    }

    /// Notified when it must.
    pub(super) fn closing(&self) -> Arc<Notify> {
        Arc::clone(&self.closing)
    }

    /// It is not idle any more.
    pub(super) fn begin_request(&self) {
        let turn = self.turn.swap(0, Ordering::Relaxed);
        lock(&self.connections.0.open).idle.remove(&turn);
    }

    /// It is idle from now on.
    pub(super) fn end_request(&self) {
        let mut open = lock(&self.connections.0.open);
        open.turns += 1;
        let turn = open.turns;
        open.idle.insert(turn, Arc::clone(&self.closing));
        self.turn.store(turn, Ordering::Relaxed);
    }
}

impl Drop for HttpConnection {
    fn drop(&mut self) {
        self.begin_request();
        lock(&self.connections.0.open).count -= 1;
        self.connections.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn admitted(connections: &HttpConnections) -> HttpConnection {
        let admitted = connections.admit(2).now_or_never();
        admitted.expect("at once").expect("there is room")
    }

    fn must_close(connection: &HttpConnection) -> bool {
        connection.must_close().now_or_never().is_some()
    }

    #[test]
    fn the_connection_that_was_idle_for_longest_makes_room_for_the_next() {
        let connections = HttpConnections::default();
        let (first, second) = (admitted(&connections), admitted(&connections));
        first.begin_request();
        first.end_request();
        let mut next = Box::pin(connections.admit(2));
        assert!(next.as_mut().now_or_never().is_none());
        assert!(must_close(&second) && !must_close(&first));
        drop(second);
        assert!(next.now_or_never().expect("there is room now").is_some());
    }

    #[test]
    fn a_connection_with_a_request_is_not_closed_and_the_newest_is_refused() {
        let connections = HttpConnections::default();
        let (first, second) = (admitted(&connections), admitted(&connections));
        first.begin_request();
        second.begin_request();
        assert!(
            connections
                .admit(2)
                .now_or_never()
                .expect("at once")
                .is_none()
        );
        assert!(!must_close(&first) && !must_close(&second));
    }

    #[test]
    fn a_few_may_speak_http_however_many_sockets_there_are() {
        assert_eq!(http_connections_max(0, 9), usize::MAX);
        assert_eq!(http_connections_max(100, 60), 40);
        assert_eq!(http_connections_max(100, 100), HTTP_CONNECTIONS_MIN);
    }
}
