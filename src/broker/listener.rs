//! A node's listener: accepts connections until it is stopped, then cuts them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use runtime::panic_policy;

use super::connection;
use super::connection_end::ConnectionEnd;
use super::context::ClusterContext;

/// One running node.
#[derive(Debug)]
pub(super) struct NodeListener {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl NodeListener {
    /// Serves `listener` as node `id`.
    pub(super) fn start(shared: Arc<ClusterContext>, id: i32, listener: TcpListener) -> Self {
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let accept = accept(shared, id, listener, stop.clone(), tasks.clone());
        tasks.spawn(stop.clone().run_until_cancelled_owned(accept));
        Self { stop, tasks }
    }

    /// Closes the listener and every connection, and waits until they are gone.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for NodeListener {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Listens on `address`, also if connections of an earlier listener linger there.
pub(super) async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

async fn accept(
    shared: Arc<ClusterContext>,
    id: i32,
    listener: TcpListener,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: others may be closed meanwhile.
                tracing::warn!(node = id, %error, "a connection could not be accepted");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        let serve = connection::serve(Arc::clone(&shared), id, stream, peer);
        let serve = stop.clone().run_until_cancelled_owned(serve);
        tasks.spawn(panic_policy::contain_panics(async move {
            match serve.await {
                Some(reason @ ConnectionEnd::Protocol(_)) => {
                    tracing::warn!(node = id, %peer, %reason, "connection closed: not Kafka's protocol");
                }
                Some(reason) => tracing::debug!(node = id, %peer, %reason, "connection closed"),
                None => {}
            }
        }));
    }
}
