//! The limits of clients: those of the settings, and the dynamic entries, which are changed here.

use http::StatusCode;
use serde::Serialize;
use warp::Reply;
use warp::reply::Response;

use super::limit_entry::{self, LimitEntry};
use crate::app::App;
use crate::config::{ClientLimit, ClientLimitsConfig, LimitedClients};
use crate::dynamic_limits::{DynamicLimits, DynamicLimitsError, EntryChange};
use crate::http_error::{HttpError, json_response};
use crate::quotas::LimitedId;

/// What the defaults are called among the entries of the settings.
const DEFAULT_ID: &str = "__DEFAULT__";

#[derive(Serialize)]
struct ListedLimits<'a> {
    consumers: LimitsOfClients<'a>,
    producers: LimitsOfClients<'a>,
}

#[derive(Serialize)]
struct LimitsOfClients<'a> {
    #[serde(rename = "static")]
    fixed: Vec<LimitEntry<'a>>,
    dynamic: Vec<LimitEntry<'a>>,
}

/// All of them.
pub(super) async fn list(app: &App) -> Result<Response, HttpError> {
    let dynamic = match &app.dynamic_limits {
        Some(limits) => limits.all().await?,
        None => Default::default(),
    };
    let of = |clients| {
        let settings = settings(app, clients);
        let entries = settings.specific.iter();
        let entries = entries.map(|(id, limit)| (id.as_str(), *limit));
        let fixed = [(DEFAULT_ID, defaults(settings))]
            .into_iter()
            .chain(entries);
        let dynamic = dynamic.iter().filter(|(id, _)| id.clients == clients);
        LimitsOfClients {
            fixed: fixed
                .map(|(id, limit)| LimitEntry::new(clients, id, limit))
                .collect(),
            dynamic: dynamic
                .map(|(id, limit)| LimitEntry::new(clients, &id.id, *limit))
                .collect(),
        }
    };
    let listed = ListedLimits {
        consumers: of(LimitedClients::Groups),
        producers: of(LimitedClients::Producers),
    };
    Ok(json_response(StatusCode::OK, &listed).into_response())
}

/// Forgets all dynamic entries.
pub(super) async fn clear(app: &App) -> Result<Response, HttpError> {
    dynamic(app)?.clear().await?;
    tracing::info!("an administrator has deleted all dynamic limits");
    list(app).await
}

/// The dynamic entry of a client, or that of the settings.
pub(super) async fn entry(app: &App, id: &LimitedId) -> Result<Response, HttpError> {
    let dynamic = match &app.dynamic_limits {
        Some(limits) => limits.entry(id).await?,
        None => None,
    };
    let settings = settings(app, id.clients);
    let fixed = || match &*id.id {
        DEFAULT_ID => Some(defaults(settings)),
        id => settings.specific.get(id).copied(),
    };
    match dynamic.or_else(fixed) {
        Some(limit) => Ok(respond(id, limit)),
        None => {
            let message = format!("there is no entry for {} {:?}", id.clients.id(), id.id);
            Err(HttpError::new(StatusCode::NOT_FOUND, message))
        }
    }
}

/// Creates a dynamic entry.
pub(super) async fn create(app: &App, id: &LimitedId, body: &[u8]) -> Result<Response, HttpError> {
    let limits = changeable(app, id)?;
    let limit = limit_entry::parse(body, id)?;
    limits
        .change(id.clone(), EntryChange::Create(limit))
        .await?;
    log(id, "an administrator has set a dynamic limit");
    Ok(respond(id, limit))
}

/// Changes a dynamic entry.
pub(super) async fn replace(app: &App, id: &LimitedId, body: &[u8]) -> Result<Response, HttpError> {
    let limits = changeable(app, id)?;
    let limit = limit_entry::parse(body, id)?;
    limits
        .change(id.clone(), EntryChange::Replace(limit))
        .await?;
    log(id, "an administrator has changed a dynamic limit");
    Ok(respond(id, limit))
}

/// Deletes a dynamic entry; answers what it was.
pub(super) async fn delete(app: &App, id: &LimitedId) -> Result<Response, HttpError> {
    let limits = changeable(app, id)?;
    let limit = limits.entry(id).await?.ok_or(DynamicLimitsError::Missing)?;
    limits.change(id.clone(), EntryChange::Delete).await?;
    log(id, "an administrator has deleted a dynamic limit");
    Ok(respond(id, limit))
}

fn respond(id: &LimitedId, limit: ClientLimit) -> Response {
    let entry = LimitEntry::new(id.clients, &id.id, limit);
    json_response(StatusCode::OK, &entry).into_response()
}

fn log(id: &LimitedId, what: &str) {
    let LimitedId { clients, id } = id;
    match clients {
        LimitedClients::Producers => tracing::info!(client = ?id, "{what}"),
        LimitedClients::Groups => tracing::info!(group = ?id, "{what}"),
    }
}

/// What can be changed: the defaults are not.
fn changeable<'a>(app: &'a App, id: &LimitedId) -> Result<&'a DynamicLimits, HttpError> {
    let limits = dynamic(app)?;
    if &*id.id == DEFAULT_ID {
        let message = format!("{DEFAULT_ID} are the defaults, which only the settings change");
        return Err(HttpError::bad_request(message));
    }
    Ok(limits)
}

fn dynamic(app: &App) -> Result<&DynamicLimits, HttpError> {
    app.dynamic_limits.as_ref().ok_or_else(|| {
        let message = "limits do not change while the proxy runs (dynamic-config-handler.enabled)";
        HttpError::new(StatusCode::PRECONDITION_FAILED, message)
    })
}

fn settings(app: &App, clients: LimitedClients) -> &ClientLimitsConfig {
    match clients {
        LimitedClients::Producers => &app.config.producer_limits,
        LimitedClients::Groups => &app.config.consumer_limits,
    }
}

fn defaults(settings: &ClientLimitsConfig) -> ClientLimit {
    ClientLimit {
        messages_per_second: Some(settings.default_messages_per_second),
        max_connections: Some(settings.default_max_connections),
        batch_size: Some(settings.default_batch_size),
    }
}

impl From<DynamicLimitsError> for HttpError {
    fn from(error: DynamicLimitsError) -> Self {
        let message = error.to_string();
        match error {
            DynamicLimitsError::Exists | DynamicLimitsError::TooMany => {
                Self::new(StatusCode::CONFLICT, message)
            }
            DynamicLimitsError::Missing => Self::new(StatusCode::NOT_FOUND, message),
            DynamicLimitsError::IllegalId => Self::bad_request(message),
            DynamicLimitsError::Unavailable { detail, .. } => {
                Self::brokers_unavailable(message, detail)
            }
        }
    }
}
