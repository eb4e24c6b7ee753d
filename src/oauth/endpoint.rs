//! Requests to the token endpoint of an OAuth 2.0 provider (RFC 6749, RFC 7521, RFC 7523).

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use form_urlencoded::{Serializer, byte_serialize};
use http::header::{ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Uri};
use https_client::{HttpsClient, HttpsError};
use kafka_client::sasl::TokenFault;
use kafka_client::security::tls_fault;
use secret::Secret;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::answer::{EndpointRefusal, FaultySetting, read_answer};
use crate::token::{TokenAnswer, is_token, read_text};
use crate::{ASSERTION_FILE, ENDPOINT_URL, lifetime};

/// Of an answer, at most so much is read.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// What a token is asked for with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    /// Client credentials with a secret (RFC 6749, section 4.4).
    ClientSecret {
        /// Who we are.
        id: String,
        /// The proof.
        secret: Secret,
        /// `sasl.oauthbearer.header.urlencode`: both are encoded, as RFC 6749 has it and many
        /// providers do not.
        urlencode: bool,
    },
    /// Client credentials with an assertion (RFC 7523, section 2.2), which is in a file.
    ClientAssertion {
        /// The file.
        file: PathBuf,
        /// Who we are, where the assertion does not say enough.
        id: Option<String>,
    },
    /// An assertion as a grant (RFC 7523, section 2.1), which is in a file.
    JwtBearer {
        /// The file.
        file: PathBuf,
    },
}

/// A token endpoint, and what it is asked for.
pub struct TokenEndpoint {
    url: Uri,
    grant: Grant,
    scope: Option<String>,
    /// The properties that the grant and the scope come from.
    properties: GrantProperties,
    http: HttpsClient,
    timeout: Duration,
    _stop: DropGuard,
}

/// The properties to look at when something is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrantProperties {
    /// Of the client's credentials, or the assertion.
    pub credentials: &'static str,
    /// Of the scope.
    pub scope: &'static str,
}

impl TokenEndpoint {
    /// Connects when it is asked to. Each answer has to come within both time-outs together.
    pub fn new(
        url: Uri,
        (grant, scope): (Grant, Option<String>),
        properties: GrantProperties,
        tls: &rustls::ClientConfig,
        (connect_timeout, read_timeout): (Duration, Duration),
    ) -> Self {
        let stop = CancellationToken::new();
        // Tokens are rarely asked for: no connection is kept, so that none outlives its request.
        let tasks = TaskTracker::new();
        let http = HttpsClient::new(tls, connect_timeout, 0, tasks, stop.clone());
        Self {
            url,
            grant,
            scope,
            properties,
            http,
            timeout: connect_timeout + read_timeout,
            _stop: stop.drop_guard(),
        }
    }

    /// One request.
    pub(crate) async fn fetch(&self) -> Result<TokenAnswer, TokenFault> {
        let request = self.request().await?;
        let exchange = self.http.exchange(request, ANSWER_BYTES_MAX, self.timeout);
        let answer = exchange.await.map_err(|error| self.unreachable(&error))?;
        let token = read_answer(answer.status(), answer.body());
        let token = token.map_err(|fault| self.refused(fault))?;
        Ok(TokenAnswer {
            lifetime: lifetime::of_answer(token.text.reveal(), token.expires_in, SystemTime::now()),
            token: token.text,
        })
    }

    async fn request(&self) -> Result<Request<Bytes>, TokenFault> {
        let assertion = match &self.grant {
            Grant::ClientSecret { .. } => Secret::default(),
            Grant::ClientAssertion { file, .. } | Grant::JwtBearer { file } => {
                self.assertion(file).await?
            }
        };
        let mut request = Request::new(self.form(&assertion));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.url.clone();
        let headers = request.headers_mut();
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(CONTENT_TYPE, form);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        if let Grant::ClientSecret {
            id,
            secret,
            urlencode,
        } = &self.grant
        {
            headers.insert(AUTHORIZATION, basic(id, secret, *urlencode));
        }
        Ok(request)
    }

    fn form(&self, assertion: &Secret) -> Bytes {
        let mut form = Serializer::new(String::new());
        match &self.grant {
            Grant::ClientSecret { .. } => {
                form.append_pair("grant_type", "client_credentials");
            }
            Grant::ClientAssertion { id, .. } => {
                let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
                form.append_pair("grant_type", "client_credentials");
                form.append_pair("client_assertion_type", kind);
                form.append_pair("client_assertion", assertion.reveal());
                form.extend_pairs(id.iter().map(|id| ("client_id", id)));
            }
            Grant::JwtBearer { .. } => {
                let kind = "urn:ietf:params:oauth:grant-type:jwt-bearer";
                form.append_pair("grant_type", kind);
                form.append_pair("assertion", assertion.reveal());
            }
        }
        form.extend_pairs(self.scope.iter().map(|scope| ("scope", scope)));
        form.finish().into()
    }

    async fn assertion(&self, file: &Path) -> Result<Secret, TokenFault> {
        let fault = |what: String| TokenFault {
            message: format!("{} {what}", file.display()).into(),
            property: ASSERTION_FILE,
        };
        let text = read_text(file).await;
        let text = text.map_err(|error| fault(format!("cannot be read: {error}")))?;
        match is_token(text.reveal()) {
            true => Ok(text),
            false => Err(fault("has no assertion".to_owned())),
        }
    }

    fn unreachable(&self, error: &HttpsError) -> TokenFault {
        let reason = error.tls().map_or_else(|| error.to_string(), tls_fault);
        TokenFault {
            message: format!(
                "the token endpoint {} cannot be reached: {reason}",
                self.url
            )
            .into(),
            property: ENDPOINT_URL,
        }
    }

    fn refused(&self, fault: EndpointRefusal) -> TokenFault {
        let property = match fault.setting {
            FaultySetting::Url => ENDPOINT_URL,
            FaultySetting::Credentials => self.properties.credentials,
            FaultySetting::Scope => self.properties.scope,
        };
        let mut said = fault.said;
        if let Grant::ClientSecret { secret, .. } = &self.grant
            && !secret.reveal().is_empty()
        {
            said = said.replace(secret.reveal(), "***");
        }
        TokenFault {
            message: format!("the token endpoint {} {said}", self.url).into(),
            property,
        }
    }
}

impl fmt::Debug for TokenEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenEndpoint")
            .field("url", &self.url)
            .field("grant", &self.grant)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

fn basic(id: &str, secret: &Secret, urlencode: bool) -> HeaderValue {
    let encoded = |text: &str| match urlencode {
        true => byte_serialize(text.as_bytes()).collect(),
        false => text.to_owned(),
    };
    let credentials = Secret::new(format!("{}:{}", encoded(id), encoded(secret.reveal())));
    let text = Secret::new(format!("Basic {}", STANDARD.encode(credentials.reveal())));
    let mut value = HeaderValue::try_from(text.reveal()).expect("base64 is ASCII");
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests;
