//! Requests to the registry, by the URL that answered last, or the next one that does.
//!
//! # Decisions
//! - A registry that is not reached, is late, has an error of its own (5xx, 429) or answers what is
//!   no JSON of the API is not asked further: another one may be better. What it refuses (4xx), the
//!   others would refuse as well.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, StatusCode};
use https_client::HttpsClient;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tls::ClientTlsConfig;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::config::{RegistryUrl, SchemaRegistryConfig};
use crate::error::SchemaRegistryError;

/// Of an answer, at most so much is read.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Of what a registry says about an error, at most so many characters are kept.
const MESSAGE_CHARS_MAX: usize = 200;
/// Connections that are kept while they are not in use.
const IDLE_CONNECTIONS_MAX: usize = 2;

/// The registry's URLs, and connections to them.
#[derive(Debug)]
pub(crate) struct RegistryRequests {
    config: SchemaRegistryConfig,
    /// Why there is none, if there is none.
    http: Result<HttpsClient, String>,
    /// The URL to try first.
    preferred: AtomicUsize,
}

/// What a registry says that does not do what it was asked for.
#[derive(Debug, Deserialize)]
struct FaultAnswer {
    /// 40401 for an unknown subject, say.
    error_code: i32,
    #[serde(default)]
    message: String,
}

/// How a request ended that reached a registry.
pub(crate) enum RegistryAnswer<T> {
    /// As it should.
    Done(T),
    /// With 404 and the API's code for what is not there.
    NotFound,
}

/// How one URL has answered.
enum UrlAnswer<T> {
    Answered(RegistryAnswer<T>),
    /// Another one would not do otherwise.
    Refused(StatusCode, String),
    /// Another one may do better.
    Failed(String),
}

impl RegistryRequests {
    /// Connects when it is asked to. The tasks of connections belong to `tasks`, and end with
    /// `stop`.
    pub(crate) fn new(
        config: SchemaRegistryConfig,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        // Without `https` nothing is trusted, and nothing loaded.
        let tls = match config.urls.iter().any(RegistryUrl::is_https) {
            true => ClientTlsConfig::default().load(),
            false => Ok(tls::trusting_nobody()),
        };
        let tls = tls.map_err(|error| error.to_string());
        if let Err(reason) = &tls {
            warn!(reason, "the schema registry cannot be reached");
        }
        let timeout = config.request_timeout;
        let http =
            tls.map(|tls| HttpsClient::new(&tls, timeout, IDLE_CONNECTIONS_MAX, tasks, stop));
        Self {
            config,
            http,
            preferred: AtomicUsize::new(0),
        }
    }

    /// The answer of the first registry that gives one.
    pub(crate) async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<RegistryAnswer<T>, SchemaRegistryError> {
        let http = self.http.as_ref().map_err(|reason| unavailable(reason))?;
        let urls = &self.config.urls;
        let first = self.preferred.load(Ordering::Relaxed);
        let mut reason = "there is none".to_owned();
        for offset in 0..urls.len() {
            let index = (first + offset) % urls.len();
            let url = &urls[index];
            match self.send_to(http, url, &method, path, body.clone()).await {
                UrlAnswer::Answered(answer) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return Ok(answer);
                }
                UrlAnswer::Refused(status, message) => {
                    warn!(%url, %status, reason = message, "a schema registry refuses a request");
                    self.preferred.store(index, Ordering::Relaxed);
                    return Err(SchemaRegistryError::Refused {
                        url: url.to_string(),
                        status: status.as_u16(),
                        message,
                    });
                }
                UrlAnswer::Failed(failure) => {
                    reason = format!("{url}: {failure}");
                    warn!(%url, reason = failure, "a schema registry does not answer as one");
                    self.preferred
                        .store((index + 1) % urls.len(), Ordering::Relaxed);
                }
            }
        }
        Err(unavailable(&reason))
    }

    /// How that one answers, in time.
    async fn send_to<T: DeserializeOwned>(
        &self,
        http: &HttpsClient,
        url: &RegistryUrl,
        method: &Method,
        path: &str,
        body: Bytes,
    ) -> UrlAnswer<T> {
        let mut request = Request::new(body);
        *request.method_mut() = method.clone();
        *request.uri_mut() = url.join(path);
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static(ACCEPTED));
        if method != Method::GET {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(API_JSON));
        }
        if let Some(authorization) = self.config.authorization(url) {
            headers.insert(AUTHORIZATION, authorization);
        }
        let timeout = self.config.request_timeout;
        match http.exchange(request, ANSWER_BYTES_MAX, timeout).await {
            Ok(answer) => read_answer(answer.status(), answer.body()),
            Err(error) => UrlAnswer::Failed(error.to_string()),
        }
    }
}

fn read_answer<T: DeserializeOwned>(status: StatusCode, body: &[u8]) -> UrlAnswer<T> {
    if status.is_success() {
        return match serde_json::from_slice(body) {
            Ok(answer) => UrlAnswer::Answered(RegistryAnswer::Done(answer)),
            Err(error) => UrlAnswer::Failed(format!("its answer is none of the API: {error}")),
        };
    }
    let fault = serde_json::from_slice::<FaultAnswer>(body).ok();
    match fault {
        // A 404 without it comes from something that is no registry.
        Some(fault) if status == StatusCode::NOT_FOUND && NOT_FOUND.contains(&fault.error_code) => {
            UrlAnswer::Answered(RegistryAnswer::NotFound)
        }
        _ if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
            UrlAnswer::Failed(format!("{status}"))
        }
        Some(fault) => {
            let message = fault.message.chars().take(MESSAGE_CHARS_MAX).collect();
            UrlAnswer::Refused(status, message)
        }
        None if status == StatusCode::NOT_FOUND => {
            UrlAnswer::Failed("there is no schema registry at this path (404)".to_owned())
        }
        None => UrlAnswer::Refused(status, reason_of(status).to_owned()),
    }
}

fn reason_of(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "it wants other credentials",
        _ => status.canonical_reason().unwrap_or("no reason given"),
    }
}

#[cold]
fn unavailable(reason: &str) -> SchemaRegistryError {
    SchemaRegistryError::Unavailable {
        reason: reason.to_owned(),
    }
}

/// Codes of the API for a subject, a version or a schema that is not there.
const NOT_FOUND: &[i32] = &[40_401, 40_402, 40_403];
/// The media type of the API.
const API_JSON: &str = "application/vnd.schemaregistry.v1+json";
/// What it may answer in.
const ACCEPTED: &str = "application/vnd.schemaregistry.v1+json, application/json";
