//! Accepts connections, serves HTTP/1.1 on them, and stops in order.
//!
//! ```text
//! accept ─▶ task per connection: (TLS) ─▶ hyper ─▶ head check ─▶ CORS ─▶ authentication ─▶ routes
//!                                           └─ upgrade ─▶ socket task, without hyper
//! accept of the admin server ─▶ the same, with routes of its own
//!
//! stop ─▶ drain delay ─▶ no more accepts ─▶ sockets close ─▶ HTTP closes ─▶ Kafka clients stop
//!                        └───────────────────── all within the grace ─────────────────────┘
//! ```
//!
//! # Invariants
//! - Every task is owned: connections here, sockets by [`App`]. `run` returns when all have
//!   ended, or the grace is over.
//! - `/ready` goes on answering (503) on open connections until the sockets are gone.

mod authentication;
mod certificates;
mod connections;
mod head_check;
mod listeners;
mod tls_handshake;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::{BoxFuture, Either, ready};
use http::header::UPGRADE;
use http::{Method, Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};
use warp::{Filter, Reply};

use crate::app::App;
use crate::auth::Authentication;
use crate::cors::CorsService;
use crate::http_keep_alive::{HeadLimits, keep_alive};
use crate::http_stream::HttpStream;
use crate::metrics_reporter::MetricsReporter;
use crate::routes::{self, AnsweredPaths};
use crate::socket;
use crate::socket::{HttpConnectionHold, PeerAddress, RequestRefused};
use authentication::AuthenticationService;
use connections::{HttpConnection, HttpConnections, http_connections_max};
use listeners::AcceptedStream;
pub use listeners::{Listeners, TlsListener};
use runtime::panic_policy;

/// How long a connection without an active request may take to end when the server stops: the
/// end of its last answer may still be on its way.
const LAST_BYTES_TIMEOUT: Duration = Duration::from_millis(500);
/// How long beyond its deadline a stop may take, so that what is written is not lost on a busy
/// machine.
const BEYOND_GRACE_MAX: Duration = Duration::from_millis(200);
/// The pause after an accept that failed for lack of a resource, such as descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that the admin server serves at once. They are none of the clients': who floods those
/// keeps no operator out.
const ADMIN_CONNECTIONS_MAX: usize = 64;

/// Connections that may wait to be accepted (as far as `net.core.somaxconn` allows): those of a thousand
/// clients that come back at once.
const BACKLOG: u32 = 4096;

/// Listens on that address.
///
/// # Errors
/// Those of the system.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // Connections of the former process may not be over yet.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until `stop` and for the drain delay more, then stops within `grace`.
///
/// Boxed, so that everything below is compiled here once, and not again in each program
/// that calls it.
pub fn run(
    listeners: impl Into<Listeners>,
    app: App,
    stop: CancellationToken,
    grace: Duration,
) -> BoxFuture<'static, ()> {
    Box::pin(serve_until(listeners.into(), app, stop, grace))
}

async fn serve_until(listeners: Listeners, app: App, stop: CancellationToken, grace: Duration) {
    let connections = TaskTracker::new();
    let close_http = CancellationToken::new();
    let service = TowerToHyperService::new(warp::service(all_routes(&app)));
    let admin_service = TowerToHyperService::new(warp::service(admin_routes(&app)));
    let authentication = Authentication::new(&app.config.server, app.openid.clone());
    let authentication = Arc::new(authentication);
    let limits = &app.config.server.limits;
    let acceptor = HttpAcceptor {
        head: HeadLimits {
            bytes_max: limits.header_bytes_max,
            timeout: limits.header_timeout,
            refusal_body: head_check::unreadable,
            refusal_headers: head_check::security_lines,
        },
        tls_only: app.config.server.ssl.only,
        handshake_timeout: limits.handshake_timeout,
        connections: connections.clone(),
        close_http: close_http.clone(),
        drained: CancellationToken::new(),
    };
    let reporter = MetricsReporter::start(&app);
    if let Some(TlsListener { tls, reload, .. }) = &listeners.tls {
        let (tls, reload) = (Arc::clone(tls), Arc::clone(reload));
        connections.spawn(certificates::keep_fresh(tls, reload, close_http.clone()));
    }
    let connections_max =
        || http_connections_max(limits.connections_max, app.registry.open_sockets());
    tokio::join!(
        async {
            drain(&app, &stop).await;
            acceptor.drained.cancel();
        },
        acceptor.accept(
            || listeners.accept(),
            connections_max,
            guarded(service, &app, &authentication)
        ),
        acceptor.accept(
            || listeners.accept_admin(),
            || ADMIN_CONNECTIONS_MAX,
            guarded(admin_service, &app, &authentication)
        ),
    );
    drop(listeners);
    let deadline = Instant::now() + grace;
    stop_in_order(&app, &connections, &close_http, deadline).await;
    if let Some(reporter) = reporter {
        let _ = timeout(BEYOND_GRACE_MAX, reporter.stop()).await;
    }
}

/// A service behind what is asked of every request, at whatever port.
fn guarded<S>(
    service: S,
    app: &App,
    authentication: &Arc<Authentication>,
) -> CorsService<AuthenticationService<S>> {
    let service = AuthenticationService::new(service, Arc::clone(authentication));
    let origins = app.config.server.websocket.origins.clone();
    CorsService::new(service, origins, app.config.allowed_hosts())
}

/// Accepts connections and has them served.
struct HttpAcceptor {
    head: HeadLimits,
    /// Whether no client is served without TLS.
    tls_only: bool,
    handshake_timeout: Duration,
    /// Owns the connections' tasks.
    connections: TaskTracker,
    /// Cancelled when they are to end.
    close_http: CancellationToken,
    /// Cancelled when there are to be no more.
    drained: CancellationToken,
}

impl HttpAcceptor {
    /// Serves what `next` accepts, of which there are so many at once as `connections_max` says.
    async fn accept<S, B, F, A>(
        &self,
        next: impl Fn() -> A,
        connections_max: impl Fn() -> usize,
        service: S,
    ) where
        A: Future<Output = io::Result<AcceptedStream>>,
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future = F>
            + Clone
            + Send
            + 'static,
        F: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
        B: Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>, Data: Send>
            + From<String>
            + Send
            + 'static,
    {
        let http = HttpConnections::default();
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.drained.cancelled() => break,
                accepted = next() => accepted,
            };
            let stream = match accepted {
                Ok(stream) => stream,
                Err(error) => {
                    pause_after_failed_accept(&error, &http).await;
                    continue;
                }
            };
            let max = connections_max();
            let admitted = tokio::select! {
                biased;
                () = self.drained.cancelled() => break,
                admitted = http.admit(max) => admitted,
            };
            let Some(admitted) = admitted else {
                let peer = stream.peer;
                warn!(%peer, connections = max, "a connection is refused: all are in use");
                continue;
            };
            let accepted = AcceptedConnection {
                stream,
                admitted: Arc::new(admitted),
                handshake_timeout: self.handshake_timeout,
                tls_only: self.tls_only,
            };
            let close_http = self.close_http.clone();
            let serving = serve_connection(accepted, self.head, service.clone(), close_http);
            self.connections
                .spawn(panic_policy::contain_panics(serving));
        }
    }
}

/// The routes of all endpoints.
fn all_routes(
    app: &App,
) -> impl Filter<Extract = (warp::reply::Response,), Error = Infallible> + Clone + Send + Sync + 'static
{
    let all = routes::http_routes(app.clone()).or(socket::routes(app.clone()));
    let paths = AnsweredPaths::new(&app.config.server);
    let all = all.unify().or(paths.options_route()).unify();
    let respond = move |rejection| ready(Ok(paths.respond_to_rejection(&rejection)));
    all.recover(respond).unify()
}

/// The routes of the admin server.
fn admin_routes(
    app: &App,
) -> impl Filter<Extract = (warp::reply::Response,), Error = Infallible> + Clone + Send + Sync + 'static
{
    // There is no socket here, to which the refusal would be left.
    let refused = warp::ext::get::<RequestRefused>();
    let refused = refused.map(|RequestRefused(error)| error.into_response().into_response());
    let all = refused.or(routes::admin::routes(app.clone())).unify();
    let respond = |rejection| {
        ready(Ok::<_, Infallible>(routes::admin::respond_to_rejection(
            &rejection,
        )))
    };
    all.recover(respond).unify()
}

async fn pause_after_failed_accept(error: &io::Error, http: &HttpConnections) {
    let concerns_one_connection = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    );
    if !concerns_one_connection {
        warn!(%error, "cannot accept connections");
        http.close_oldest_idle();
        sleep(ACCEPT_PAUSE).await;
    }
}

/// Until the server is to stop. The load balancers that ask `/ready` have the drain delay to send
/// clients elsewhere.
async fn drain(app: &App, stop: &CancellationToken) {
    stop.cancelled().await;
    let delay = app.config.server.drain_delay;
    if !delay.is_zero() {
        info!(
            ?delay,
            "serving until the drain delay is over, with /ready at 503"
        );
        app.begin_drain();
        sleep(delay).await;
    }
}

async fn stop_in_order(
    app: &App,
    connections: &TaskTracker,
    close_http: &CancellationToken,
    deadline: Instant,
) {
    // The last ones have as long to close as the spread takes.
    let spread = app
        .config
        .server
        .drain_spread
        .min((deadline - Instant::now()) / 2);
    info!(sockets = app.socket_tasks.len(), "stopping");
    let ended = timeout_at(deadline, app.stop_sockets(spread)).await;
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

/// A connection that may be served.
struct AcceptedConnection {
    stream: AcceptedStream,
    admitted: Arc<HttpConnection>,
    handshake_timeout: Duration,
    /// Whether no client is served without TLS.
    tls_only: bool,
}

impl AcceptedConnection {
    /// The connection when HTTP can begin; `None`: it has ended, has to make room for another, or
    /// the server stops. It counts as idle until then.
    async fn begin(self, close_http: &CancellationToken) -> Option<HttpStream> {
        let AcceptedStream { tcp, peer, tls } = self.stream;
        if let Err(error) = tcp.set_nodelay(true) {
            debug!(%peer, %error, "connection lost before its first request");
            return None;
        }
        let Some(config) = tls else {
            return Some(HttpStream::Left(tcp));
        };
        tokio::select! {
            stream = tls_handshake::handshake(tcp, peer, config, self.handshake_timeout) => stream,
            () = self.admitted.must_close() => {
                debug!(%peer, "connection closed to make room for another");
                None
            }
            () = close_http.cancelled() => None,
        }
    }
}

async fn serve_connection<S, B, F>(
    accepted: AcceptedConnection,
    head: HeadLimits,
    service: S,
    close_http: CancellationToken,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future = F> + Send,
    F: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
    B: Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>, Data: Send>
        + From<String>
        + Send
        + 'static,
{
    let (peer, admitted) = (accepted.stream.peer, Arc::clone(&accepted.admitted));
    let tls_only = accepted.tls_only;
    let Some(stream) = accepted.begin(&close_http).await else {
        return;
    };
    let active = Arc::new(AtomicUsize::new(0));
    let (counter, serving) = (Arc::clone(&active), Arc::clone(&admitted));
    let (stream, timer, progress) = keep_alive(stream, head);
    let hold = HttpConnectionHold::new(admitted.clone(), admitted.closing());
    let received = Arc::clone(&progress);
    let service = service_fn(move |mut request: Request<Incoming>| {
        let active = ActiveRequest::new(&counter, &serving);
        request.extensions_mut().insert(PeerAddress(peer));
        request.extensions_mut().insert(hold.clone());
        let is_last = head_check::is_last(&request);
        let answer = match head_check::head_error(&request, &progress) {
            Some(error) => {
                let refused = error.into_response().map(B::from);
                Either::Right(ready(Ok::<_, Infallible>((refused, true))))
            }
            None => {
                route_head_as_get(&mut request);
                let answer = service.call(request);
                Either::Left(async move { Ok((answer.await?, is_last)) })
            }
        };
        async move {
            let _active = active;
            let (mut response, is_last) = answer.await?;
            head_check::complete(&mut response, is_last, tls_only);
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(timer)
        .header_read_timeout(head.timeout)
        .max_buf_size(head.bytes_max)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = admitted.must_close() => {
            debug!(%peer, "connection closed to make room for another");
            return;
        }
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
    if received.is_tls() {
        info!(%peer, "a client speaks TLS to this port, which has none: http:// and ws:// reach it");
    } else if let Err(error) = served {
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
struct ActiveRequest {
    counter: Arc<AtomicUsize>,
    connection: Arc<HttpConnection>,
}

impl ActiveRequest {
    fn new(counter: &Arc<AtomicUsize>, connection: &Arc<HttpConnection>) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        connection.begin_request();
        Self {
            counter: Arc::clone(counter),
            connection: Arc::clone(connection),
        }
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.counter.fetch_sub(1, Ordering::Relaxed);
        self.connection.end_request();
    }
}
