//! WebSocket connections: from the request for one to its last frame.
//!
//! ```text
//! GET /socket/… ─▶ handshake, limits, parameters, topic, group permit ─▶ 101 ─▶ a task of its own
//!                       └─▶ error: a status and JSON, or (errors=close) 101 and a close frame
//! ```
//!
//! `upgrade` answers the request, and `compression` the offer of compressed messages. `session` is what both kinds of sockets own: connection, write
//! buffer, signals, keepalive, closing handshake. `produce` and `consume` are the two kinds.

mod close;
mod commands;
mod compression;
mod consume;
#[cfg(feature = "echo")]
mod echo;
mod keepalive;
mod params;
mod peer;
mod produce;
mod refusal;
mod refused_socket;
mod session;
mod socket_log;
mod stream;
mod transactional_id;
mod transport;
mod turn;
mod upgrade;
mod write_buffer;

use http::{HeaderMap, Method, Response};
use hyper::upgrade::OnUpgrade;
use warp::filters::BoxedFilter;
use warp::{Filter, Rejection, Reply};

use crate::app::App;
use crate::auth::ClientIdentity;
use crate::http_error::HttpError;
pub(crate) use peer::PeerAddress;
pub(crate) use refused_socket::HttpConnectionHold;
use upgrade::{SocketEndpoint, UpgradeRequest};

/// Marks, as an extension of a request, that its client, or the page it comes from, may not use this
/// server.
#[derive(Clone, Debug)]
pub(crate) struct RequestRefused(pub(crate) HttpError);

/// Whether this request is answered by [`routes`], which also refuse what may not be served.
pub(crate) fn is_socket_request<B>(request: &http::Request<B>) -> bool {
    request.method() == Method::GET && ["/socket/in", "/socket/out"].contains(&request.uri().path())
}

/// The WebSocket routes.
pub(crate) fn routes(app: App) -> BoxedFilter<(warp::reply::Response,)> {
    #[cfg(feature = "echo")]
    let echo = echo::route(app.clone());
    let app = warp::any().map(move || app.clone());
    let produce = warp::path!("socket" / "in")
        .and(upgrade_request(SocketEndpoint::Produce))
        .and(app.clone())
        .then(upgrade::answer_upgrade);
    let consume = warp::path!("socket" / "out")
        .and(upgrade_request(SocketEndpoint::Consume))
        .and(app)
        .then(upgrade::answer_upgrade);
    let routes = produce.or(consume).unify();
    #[cfg(feature = "echo")]
    let routes = routes.or(echo).unify();
    routes.map(Response::<String>::into_response).boxed()
}

/// A GET request that asks for a WebSocket.
fn upgrade_request(
    endpoint: SocketEndpoint,
) -> impl Filter<Extract = (UpgradeRequest,), Error = Rejection> + Clone + Send + Sync + 'static {
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    warp::get()
        .and(warp::header::headers_cloned())
        .and(query)
        .and(warp::ext::optional::<OnUpgrade>())
        .and(warp::ext::optional::<PeerAddress>())
        .and(warp::ext::optional::<ClientIdentity>())
        .and(warp::ext::optional::<RequestRefused>())
        .and(warp::ext::optional::<HttpConnectionHold>())
        .map(
            move |headers: HeaderMap,
                  query: String,
                  upgrade,
                  peer,
                  identity,
                  refused,
                  connection| {
                UpgradeRequest {
                    endpoint,
                    headers,
                    query,
                    upgrade,
                    peer,
                    identity,
                    refused,
                    connection,
                }
            },
        )
}
