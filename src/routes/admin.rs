//! The admin server: what operators ask about groups, sockets and the limits of clients, and change
//! of them.
//!
//! ```text
//! path ─▶ AdminPath ─▶ method ─┬▶ groups, offsets ─▶ GroupAdmin ─▶ brokers
//!                              ├▶ sessions ─▶ Sessions ─▶ other nodes
//!                              ├▶ limits ─▶ DynamicLimits ─▶ other nodes
//!                              └▶ cluster
//! ```
//!
//! It has a port of its own, on which there is nothing else, and no other port has any of this.
//! Answers that grow with the number of groups, or of sockets, are written batch by batch, as the
//! client reads them.

mod alteration;
mod body;
mod groups;
mod limit_entry;
mod limits;
mod offsets;
mod path;
mod sessions;

use bytes::Buf;
use futures_util::Stream;
use http::header::{ALLOW, HeaderValue, ORIGIN};
use http::{HeaderMap, Method, StatusCode};
use kafka_client::admin::groups::GroupAdminError;
use warp::filters::BoxedFilter;
use warp::path::FullPath;
use warp::reply::Response;
use warp::{Filter, Rejection, Reply};

use self::groups::ListQuery;
use self::path::AdminPath;
use super::cluster;
use crate::app::App;
use crate::http_error::HttpError;

/// The routes of the admin server: every request is answered.
pub(crate) fn routes(app: App) -> BoxedFilter<(Response,)> {
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    warp::path::full()
        .and(warp::method())
        .and(query)
        .and(warp::header::headers_cloned())
        .and(warp::body::stream())
        .then(
            move |path: FullPath, method, query: String, headers, body| {
                let app = app.clone();
                async move {
                    let answered = match refuse_pages(&method, &headers) {
                        Ok(()) => answer(&app, path.as_str(), &method, &query, body).await,
                        Err(error) => Err(error),
                    };
                    answered.unwrap_or_else(|error| {
                    let reason = error.reason();
                    tracing::debug!(%method, path = path.as_str(), reason, "not answered as asked");
                    // Whoever gets here operates the brokers, too.
                    let error = error.exposing_brokers(true);
                    error.into_response().into_response()
                })
                }
            },
        )
        .boxed()
}

/// What is rejected before the routes are.
pub(crate) fn respond_to_rejection(rejection: &Rejection) -> Response {
    tracing::debug!(?rejection, "request rejected");
    let error = HttpError::bad_request("the request could not be understood");
    error.into_response().into_response()
}

/// Pages change nothing, whatever their origin may read: a browser has the rights of whoever is in
/// front of it, and sends some requests without asking first (CORS).
fn refuse_pages(method: &Method, headers: &HeaderMap) -> Result<(), HttpError> {
    if !headers.contains_key(ORIGIN) || method.is_safe() {
        return Ok(());
    }
    Err(HttpError::forbidden(
        "pages may read here, and change nothing: a request with an Origin comes from one",
    ))
}

async fn answer<B: Buf>(
    app: &App,
    path: &str,
    method: &Method,
    query: &str,
    body: impl Stream<Item = Result<B, warp::Error>> + Send,
) -> Result<Response, HttpError> {
    let path = AdminPath::parse(path)?;
    if method == Method::OPTIONS {
        let response = warp::reply::with_status(warp::reply(), StatusCode::NO_CONTENT);
        let allow = HeaderValue::from_static(path.allowed());
        return Ok(warp::reply::with_header(response, ALLOW, allow).into_response());
    }
    match (&path, method) {
        (AdminPath::KafkaInfo, &Method::GET) => {
            Ok(cluster::cluster_info(app.clone()).await.into_response())
        }
        (AdminPath::ClientConfig, &Method::GET) => limits::list(app).await,
        (AdminPath::ClientConfig, &Method::DELETE) => limits::clear(app).await,
        (AdminPath::ClientLimit(id), &Method::GET) => limits::entry(app, id).await,
        (AdminPath::ClientLimit(id), &Method::POST) => {
            limits::create(app, id, &body::read(body).await?).await
        }
        (AdminPath::ClientLimit(id), &Method::PUT) => {
            limits::replace(app, id, &body::read(body).await?).await
        }
        (AdminPath::ClientLimit(id), &Method::DELETE) => limits::delete(app, id).await,
        (AdminPath::Groups, &Method::GET) => groups::list(app, ListQuery::parse(query)?).await,
        (AdminPath::Describe(group), &Method::GET) => groups::describe(app, group).await,
        (AdminPath::Offsets(group), &Method::GET) => offsets::list(app, group).await,
        (AdminPath::Offsets(group), &Method::DELETE) => offsets::delete(app, group).await,
        (AdminPath::Alter { group, topic }, &Method::PUT) => {
            let body = body::read(body).await?;
            offsets::alter(app, group, topic, &body).await
        }
        (AdminPath::Sessions, &Method::GET) => sessions::list(app),
        (AdminPath::Session(selector), &Method::DELETE) => sessions::evict(app, selector).await,
        _ => {
            let allowed = path.allowed();
            let message = format!("this path answers {allowed} requests only");
            Err(HttpError::new(StatusCode::METHOD_NOT_ALLOWED, message)
                .with_header(ALLOW, HeaderValue::from_static(allowed)))
        }
    }
}

impl From<GroupAdminError> for HttpError {
    fn from(error: GroupAdminError) -> Self {
        let message = error.to_string();
        match error {
            GroupAdminError::NotFound { .. } => Self::new(StatusCode::NOT_FOUND, message),
            GroupAdminError::NotEmpty { .. } => {
                let advice = "its offsets can be changed when they have left";
                let message = format!("{message}: {advice}");
                Self::new(StatusCode::PRECONDITION_FAILED, message)
            }
            GroupAdminError::NotAuthorized { .. } => Self::forbidden(message),
            GroupAdminError::OffsetRefused { .. } | GroupAdminError::Rejected { .. } => {
                Self::bad_request(message)
            }
            GroupAdminError::Unavailable { .. } => {
                Self::brokers_unavailable("the brokers do not answer", message)
            }
        }
    }
}
