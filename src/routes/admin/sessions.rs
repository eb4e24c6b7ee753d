//! The open sockets of all nodes: listed, and closed.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};
use serde::Serialize;
use warp::Reply;
use warp::reply::Response;

use crate::app::App;
use crate::http_error::HttpError;
use crate::session::{EvictionError, OpenSocket, SocketSelector};

/// Sockets that are written at once.
const SOCKETS_PER_PART: usize = 256;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ListedSocket<'a> {
    node: &'a str,
    endpoint: &'static str,
    /// Null for a producing socket without one.
    client_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance_id: Option<&'a str>,
    topics: Vec<&'a str>,
    since: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    principal: Option<&'a str>,
}

impl<'a> ListedSocket<'a> {
    fn of(socket: &'a OpenSocket) -> Self {
        Self {
            node: &socket.node,
            endpoint: socket.endpoint(),
            client_id: socket.client_id(),
            group_id: socket.group_id(),
            instance_id: socket.instance_id(),
            topics: socket.topics().collect(),
            since: socket.since(),
            principal: socket.principal(),
        }
    }
}

/// All sockets, node by node, in the order in which they were opened.
pub(super) fn list(app: &App) -> Result<Response, HttpError> {
    Ok(response(app.sessions.open_sockets()?))
}

/// Closes the sockets that are meant, on whatever node; answers which those were.
pub(super) async fn evict(app: &App, selector: &SocketSelector) -> Result<Response, HttpError> {
    let closed = app.sessions.evict(selector).await?;
    let sockets = closed.len();
    tracing::info!(?selector, sockets, "an administrator has closed sockets");
    Ok(response(closed))
}

/// The sockets are made JSON as the client reads them.
fn response(mut sockets: Vec<OpenSocket>) -> Response {
    sockets.sort_by(|a, b| (&a.node, a.since()).cmp(&(&b.node, b.since())));
    let parts = stream::iter(parts_of_list(sockets).map(Ok::<_, Infallible>));
    let mut response = warp::reply::stream(parts).into_response();
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// A JSON array in parts.
fn parts_of_list(sockets: Vec<OpenSocket>) -> impl Iterator<Item = Bytes> {
    let mut sockets = sockets.into_iter().peekable();
    let mut is_ended = false;
    let mut separator = b'[';
    std::iter::from_fn(move || {
        if is_ended {
            return None;
        }
        let mut json = Vec::new();
        for socket in sockets.by_ref().take(SOCKETS_PER_PART) {
            json.push(std::mem::replace(&mut separator, b','));
            let listed = ListedSocket::of(&socket);
            serde_json::to_writer(&mut json, &listed).expect("texts always serialize");
        }
        is_ended = sockets.peek().is_none();
        if is_ended {
            match separator {
                b'[' => json.extend(b"[]"),
                _ => json.push(b']'),
            }
        }
        Some(json.into())
    })
}

impl From<EvictionError> for HttpError {
    fn from(error: EvictionError) -> Self {
        let message = error.to_string();
        match error {
            EvictionError::NotFound => Self::new(StatusCode::NOT_FOUND, message),
            EvictionError::Unanswered { .. } => Self::unavailable(message),
            EvictionError::Unavailable { detail, .. } => {
                let detail = format!("{message}: {detail}");
                Self::brokers_unavailable(message, detail)
            }
        }
    }
}
