//! Asks a provider who it is and which keys it has (OpenID Connect Discovery 1.0, section 4).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderValue, Request, StatusCode};
use https_client::{HttpsClient, HttpsError};
use rustls::CertificateError;
use serde::Deserialize;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::json_web_key::{JsonWebKey, read_key_set};
use crate::well_known_url::WellKnownUrl;

/// How long both answers may take together.
pub(crate) const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Of an answer, at most so much is read.
const ANSWER_BYTES_MAX: usize = 512 << 10;

/// What a provider says.
#[derive(Debug)]
pub(crate) struct ProviderMetadata {
    pub(crate) issuer: String,
    pub(crate) keys: Vec<JsonWebKey>,
}

/// Where it is asked.
#[derive(Debug)]
pub(crate) struct Discovery {
    url: WellKnownUrl,
    http: HttpsClient,
}

#[derive(Deserialize)]
struct ConfigurationDocument {
    issuer: String,
    jwks_uri: String,
}

impl Discovery {
    /// Connects when it is asked to. The tasks of connections belong to `tasks`, and end with
    /// `stop`.
    pub(crate) fn new(
        url: WellKnownUrl,
        tls: &rustls::ClientConfig,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        // Keys are rarely asked for: no connection is kept.
        let http = HttpsClient::new(tls, FETCH_TIMEOUT, 0, tasks, stop);
        Self { url, http }
    }

    /// Asks, once. An error says why there is nothing, for operators.
    pub(crate) async fn fetch(&self) -> Result<ProviderMetadata, Arc<str>> {
        let late = || format!("{} does not answer within {FETCH_TIMEOUT:?}", self.url).into();
        let fetched = timeout(FETCH_TIMEOUT, self.fetch_both()).await;
        fetched.unwrap_or_else(|_| Err(late()))
    }

    async fn fetch_both(&self) -> Result<ProviderMetadata, Arc<str>> {
        let document = self.get(&self.url).await?;
        let fault = |fault: &str| -> Arc<str> { format!("{} {fault}", self.url).into() };
        let document: ConfigurationDocument = serde_json::from_slice(&document)
            .map_err(|_| fault("answers with no JSON object that has an issuer and a jwks_uri"))?;
        let keys_url = WellKnownUrl::parse(&document.jwks_uri);
        let keys_url = keys_url.map_err(|_| fault("says a jwks_uri that is no URL"))?;
        // Whoever can change the keys on their way decides who may connect.
        if self.url.is_https() && !keys_url.is_https() {
            return Err(fault("says a jwks_uri without https"));
        }
        let keys = self.get(&keys_url).await?;
        let keys = read_key_set(&keys);
        Ok(ProviderMetadata {
            issuer: document.issuer,
            keys: keys.map_err(|fault| Arc::from(format!("{keys_url} answers with {fault}")))?,
        })
    }

    async fn get(&self, url: &WellKnownUrl) -> Result<Bytes, Arc<str>> {
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = url.uri().clone();
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(ACCEPT, json);
        let exchange = self.http.exchange(request, ANSWER_BYTES_MAX, FETCH_TIMEOUT);
        let answer = exchange
            .await
            .map_err(|error| Arc::from(format!("{url} cannot be reached: {}", reason(&error))))?;
        match answer.status() {
            StatusCode::OK => Ok(answer.into_body()),
            status => Err(format!("{url} answers {status}").into()),
        }
    }
}

/// Names the key that helps where it is a matter of trust.
fn reason(error: &HttpsError) -> String {
    match error.tls() {
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "its certificate is signed by nobody that is trusted \
             (server.openid-connect.truststore-location)"
                .to_owned()
        }
        Some(error) => format!("TLS: {error}"),
        None => error.to_string(),
    }
}
