//! The plain HTTP endpoints, and those of the admin server.

pub(crate) mod admin;
mod cluster;
mod console;
mod health;
mod metrics;
mod rejection;
mod schemas;

use http::Response;
use warp::filters::BoxedFilter;
use warp::{Filter, Reply};

pub(crate) use rejection::AnsweredPaths;

use crate::app::App;

/// The routes of plain HTTP requests.
pub(crate) fn http_routes(app: App) -> BoxedFilter<(warp::reply::Response,)> {
    let console = app.config.server.console_enabled;
    let console = console.then(|| console::routes(app.clone()));
    let app = warp::any().map(move || app.clone());

    let healthcheck = warp::path!("healthcheck")
        .and(warp::get())
        .map(health::healthcheck);
    let ready = warp::path!("ready")
        .and(warp::get())
        .and(app.clone())
        .map(health::ready);
    let cluster_info = warp::path!("kafka" / "cluster" / "info")
        .and(warp::get())
        .and(app.clone())
        .then(cluster::cluster_info);
    let metrics = warp::path!("metrics")
        .and(warp::get())
        .and(app)
        .and(warp::header::optional::<String>("accept"))
        .then(metrics::metrics);

    let routes = healthcheck.or(ready).unify();
    let routes = routes.or(cluster_info).unify();
    let routes = routes.or(metrics).unify();
    let routes = routes.or(schemas::routes()).unify();
    let routes = routes.map(Response::<String>::into_response).boxed();
    match console {
        Some(console) => routes.or(console).unify().boxed(),
        None => routes,
    }
}
