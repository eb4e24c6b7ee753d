//! Small requests over HTTP/1.1, in clear or by TLS: what clients of schema registries and of
//! token endpoints have in common.
//!
//! # Invariants
//! - Every exchange ends in time, and an answer is read up to a limit.
//! - Redirects are not followed: credentials would go along.
//! - Each connection is a task of the tracker that was given, and ends with its token.

mod error;

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioTimer;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::error::HttpsError;

/// How long a connection is kept that is not in use.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// The client, and its connections. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct HttpsClient {
    http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl HttpsClient {
    /// Connects when it is asked to, within `connect_timeout`; keeps at most `idle_max` connections
    /// to a host that are not in use. The tasks of connections belong to `tasks`, and end with
    /// `stop`.
    pub fn new(
        tls: &rustls::ClientConfig,
        connect_timeout: Duration,
        idle_max: usize,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(connect_timeout));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls.clone())
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let http = Client::builder(OwnedTasks { tasks, stop })
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(idle_max)
            .build(connector);
        Self { http }
    }

    /// Sends a request and reads its answer, of at most `body_bytes_max` bytes, within `time`.
    ///
    /// # Errors
    /// There is none, or it is too long.
    pub async fn exchange(
        &self,
        request: Request<Bytes>,
        body_bytes_max: usize,
        time: Duration,
    ) -> Result<Response<Bytes>, HttpsError> {
        let exchange = async {
            let response = self.http.request(request.map(Full::new)).await;
            let (head, body) = response.map_err(HttpsError::new)?.into_parts();
            let body = Limited::new(body, body_bytes_max).collect().await;
            let body = body.map_err(HttpsError::Failed)?.to_bytes();
            Ok(Response::from_parts(head, body))
        };
        let timed = timeout(time, exchange).await;
        timed.unwrap_or(Err(HttpsError::TimedOut(time)))
    }
}

/// Where the tasks of connections run.
#[derive(Clone, Debug)]
struct OwnedTasks {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl<F> hyper::rt::Executor<F> for OwnedTasks
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, task: F) {
        let stop = self.stop.clone();
        self.tasks
            .spawn(async move { stop.run_until_cancelled(task).await.map(|_| ()) });
    }
}
