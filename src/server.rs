//! Accepts connections, serves HTTP/1.1 on them, and stops in order.
//!
//! ```text
//! accept ─▶ task per connection: hyper ─▶ CORS ─▶ routes (warp)
//!                                  └─ upgrade ─▶ socket task, without hyper
//!
//! stop ─▶ no more accepts ─▶ sockets close ─▶ HTTP closes ─▶ Kafka clients stop
//!         └───────────────────── all within the grace ─────────────────────┘
//! ```
//!
//! # Invariants
//! - Every task is owned: connections here, sockets by [`App`]. `run` returns when all have
//!   ended, or the grace is over.
//! - `/ready` goes on answering (503) on open connections until the sockets are gone.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::header::UPGRADE;
use http::{Method, Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};
use warp::Filter;

use crate::app::App;
use crate::cors::CorsService;
use crate::http_keep_alive::{HEAD_TIMEOUT, keep_alive};
use crate::socket::PeerAddress;
use crate::{routes, socket};
use runtime::panic_policy;

/// How long a connection without an active request may take to end when the server stops: the
/// end of its last answer may still be on its way.
const LAST_BYTES_TIMEOUT: Duration = Duration::from_millis(500);
/// How long beyond its deadline a stop may take, so that what is written is not lost on a busy
/// machine.
const BEYOND_GRACE_MAX: Duration = Duration::from_millis(200);
/// The pause after an accept that failed for lack of a resource, such as descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop`, then stops within `grace`.
///
/// Boxed, so that everything below is compiled here once, and not again in each program
/// that calls it.
pub fn run(
    listener: TcpListener,
    app: App,
    stop: CancellationToken,
    grace: Duration,
) -> BoxFuture<'static, ()> {
    Box::pin(serve_until(listener, app, stop, grace))
}

async fn serve_until(listener: TcpListener, app: App, stop: CancellationToken, grace: Duration) {
    let connections = TaskTracker::new();
    let close_http = CancellationToken::new();
    let service = TowerToHyperService::new(warp::service(all_routes(&app)));
    let origins = app.config.server.websocket.origins.clone();
    let service = CorsService::new(service, origins);
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let service = service.clone();
                let serving = serve_connection(stream, peer, service, close_http.clone());
                connections.spawn(panic_policy::contain_panics(serving));
            }
            Err(error) => pause_after_failed_accept(&error).await,
        }
    }
    drop(listener);
    let deadline = Instant::now() + grace;
    stop_in_order(&app, &connections, &close_http, deadline).await;
}

/// The routes of all endpoints.
fn all_routes(
    app: &App,
) -> impl Filter<Extract = (warp::reply::Response,), Error = Infallible> + Clone + Send + Sync + 'static
{
    let all = routes::http_routes(app.clone()).or(socket::routes(app.clone()));
    all.unify().recover(routes::respond_to_rejection).unify()
}

async fn pause_after_failed_accept(error: &io::Error) {
    let concerns_one_connection = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    );
    if !concerns_one_connection {
        warn!(%error, "cannot accept connections");
        sleep(ACCEPT_PAUSE).await;
    }
}

async fn stop_in_order(
    app: &App,
    connections: &TaskTracker,
    close_http: &CancellationToken,
    deadline: Instant,
) {
    info!(sockets = app.socket_tasks.len(), "stopping");
    app.begin_stop();
    let ended = timeout_at(deadline, app.socket_tasks.wait()).await;
    if ended.is_err() {
        let sockets = app.socket_tasks.len();
        warn!(sockets, "the grace is over, sockets are cut");
    }
    close_http.cancel();
    connections.close();
    let last = deadline.max(Instant::now() + BEYOND_GRACE_MAX);
    let _ = timeout_at(last, connections.wait()).await;
    let _ = timeout_at(last, app.stop_kafka_clients()).await;
    info!("stopped");
}

async fn serve_connection<S, B, F>(
    stream: TcpStream,
    peer: SocketAddr,
    service: S,
    close_http: CancellationToken,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future = F> + Send,
    F: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
    B: Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>, Data: Send> + Send + 'static,
{
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%peer, %error, "connection lost before its first request");
        return;
    }
    let active = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&active);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(PeerAddress(peer));
        route_head_as_get(&mut request);
        let active = ActiveRequest::new(&counter);
        let answer = service.call(request);
        async move {
            let _active = active;
            answer.await
        }
    });
    let (stream, timer) = keep_alive(stream);
    let connection = http1::Builder::new()
        .timer(timer)
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = close_http.cancelled() => {
            connection.as_mut().graceful_shutdown();
            if active.load(Ordering::Relaxed) == 0 {
                // No answer is due, and half a request is not waited for.
                timeout(LAST_BYTES_TIMEOUT, connection).await.unwrap_or(Ok(()))
            } else {
                connection.await
            }
        }
    };
    if let Err(error) = served {
        debug!(%peer, %error, "connection ended");
    }
}

/// HEAD is answered wherever GET is: the routes see a GET, and hyper, which has seen the HEAD,
/// leaves the body out. An upgrade needs a GET (RFC 6455, section 4.1).
fn route_head_as_get<B>(request: &mut Request<B>) {
    if request.method() == Method::HEAD {
        *request.method_mut() = Method::GET;
        request.headers_mut().remove(UPGRADE);
    }
}

/// A request that is being answered.
struct ActiveRequest(Arc<AtomicUsize>);

impl ActiveRequest {
    fn new(counter: &Arc<AtomicUsize>) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counter))
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
