//! What plain HTTP requests are answered.

mod cluster;
mod health;
mod reject;

use http::Response;
use warp::filters::BoxedFilter;
use warp::{Filter, Reply};

pub use reject::recover;

use crate::app::App;

/// The plain routes.
pub fn routes(app: App) -> BoxedFilter<(warp::reply::Response,)> {
    let shared = warp::any().map(move || app.clone());

    let healthcheck = warp::path!("healthcheck")
        .and(warp::get())
        .map(health::healthcheck);
    let ready = warp::path!("ready")
        .and(warp::get())
        .and(shared.clone())
        .map(health::ready);
    let cluster_info = warp::path!("kafka" / "cluster" / "info")
        .and(warp::get())
        .and(shared)
        .then(cluster::info);

    let routes = healthcheck.or(ready).unify();
    let routes = routes.or(cluster_info).unify();
    routes.map(Response::<String>::into_response).boxed()
}
