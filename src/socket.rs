//! WebSocket connections: from the request for one to its last frame.
//!
//! ```text
//! GET /socket/… ─▶ handshake, limits, parameters, topic, seat ─▶ 101 ─▶ a task of its own
//!                       └─▶ refusal: JSON with a status, or (errors=close) 101 and a close
//! ```

pub(crate) mod keepalive;
pub(crate) mod params;
pub(crate) mod rate;
pub(crate) mod ws;

mod answers;
mod close;
mod commits;
mod delivery;
mod encoded;
mod inbound;
mod ledger;
mod open;
mod outbound;
mod outgoing;

use std::net::SocketAddr;

use http::{HeaderMap, Response};
use hyper::upgrade::OnUpgrade;
use warp::filters::BoxedFilter;
use warp::{Filter, Rejection, Reply};

use crate::app::App;
use open::{Endpoint, Opening};
use params::Query;

/// The address a request came from, as an extension of the request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// Says, as an extension of a request, that it comes from a page that may not use us.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ForeignOrigin;

/// Whether the refusal of this request is to be a close frame (`errors=close`).
pub(crate) fn closes_with_errors<B>(request: &http::Request<B>) -> bool {
    let uri = request.uri();
    let query = uri.query().unwrap_or_default();
    ["/socket/in", "/socket/out"].contains(&uri.path()) && Query::parse(query).errors_close()
}

/// The WebSocket routes.
pub(crate) fn routes(app: App) -> BoxedFilter<(warp::reply::Response,)> {
    let app = warp::any().map(move || app.clone());
    let produce = warp::path!("socket" / "in")
        .and(opening(Endpoint::In))
        .and(app.clone())
        .then(open::open);
    let consume = warp::path!("socket" / "out")
        .and(opening(Endpoint::Out))
        .and(app)
        .then(open::open);
    let routes = produce.or(consume).unify();
    routes.map(Response::<String>::into_response).boxed()
}

/// A GET request that asks for a WebSocket.
fn opening(
    endpoint: Endpoint,
) -> impl Filter<Extract = (Opening,), Error = Rejection> + Clone + Send + Sync + 'static {
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    warp::get()
        .and(warp::header::headers_cloned())
        .and(query)
        .and(warp::ext::optional::<OnUpgrade>())
        .and(warp::ext::optional::<Peer>())
        .and(warp::ext::optional::<ForeignOrigin>())
        .map(
            move |headers: HeaderMap, query: String, upgrade, peer: Option<Peer>, foreign| {
                Opening {
                    endpoint,
                    headers,
                    query,
                    upgrade,
                    peer: peer.map(|Peer(address)| address),
                    foreign,
                }
            },
        )
}
