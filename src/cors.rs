//! Which pages may use this server: the checks of `Origin` and `Host`, and the headers of CORS.
//!
//! ```text
//! request ─▶ Origin, ─┬─ absent or allowed ─▶ service ─▶ response, with Access-Control-…
//!            Host     │           └ preflight ─▶ 204, with Access-Control-Allow-Methods, -Headers
//!                     └─ not allowed, or given twice
//!                         ├─▶ 403
//!                         └─ on a socket path ─▶ service, marked with RequestRefused, which logs
//!                            and refuses it, by a close frame if that is asked for
//! ```
//!
//! # Invariants
//! - A response that depends on `Origin` says so in `Vary`, whatever the request's was.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use futures_util::future::{BoxFuture, Either, FutureExt, ready};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HOST, HeaderValue, ORIGIN, VARY,
};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::service::Service;

use crate::config::{AllowedHosts, AllowedOrigins};
use crate::http_error::{ALLOWED_METHODS, HttpError};
use crate::socket::{self, RequestRefused};

/// A service behind the checks of `Origin` and `Host`.
#[derive(Clone, Debug)]
pub(crate) struct CorsService<S> {
    inner: S,
    allowed: Arc<AllowedOrigins>,
    hosts: AllowedHosts,
}

impl<S> CorsService<S> {
    pub(crate) fn new(inner: S, allowed: AllowedOrigins, hosts: AllowedHosts) -> Self {
        let allowed = Arc::new(allowed);
        Self {
            inner,
            allowed,
            hosts,
        }
    }
}

impl<S, R, B, F> Service<Request<R>> for CorsService<S>
where
    S: Service<Request<R>, Response = Response<B>, Error = Infallible, Future = F>,
    F: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
    B: From<String> + Send + 'static,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<B>, Infallible>>;

    fn call(&self, mut request: Request<R>) -> Self::Future {
        let origin = RequestOrigin::of(request.headers(), &self.allowed);
        let refused = if origin == RequestOrigin::Disallowed {
            Some(HttpError::disallowed_origin())
        } else if !is_for(self.hosts, &request) {
            Some(HttpError::disallowed_host())
        } else {
            None
        };
        let answer = match refused {
            Some(error) if !socket::is_socket_request(&request) => {
                Either::Right(ready(Ok(error.into_response().map(B::from))))
            }
            None if is_preflight(&request) => {
                Either::Right(ready(Ok(preflight_response().map(B::from))))
            }
            refused => {
                let extensions = request.extensions_mut();
                refused.map(|error| extensions.insert(RequestRefused(error)));
                Either::Left(self.inner.call(request))
            }
        };
        let varies = *self.allowed != AllowedOrigins::Any;
        async move {
            let mut response = answer.await?;
            if let RequestOrigin::Allowed(grant) = origin {
                let headers = response.headers_mut();
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, grant);
            }
            if varies {
                // A cache must not give the response to another page.
                let headers = response.headers_mut();
                headers.append(VARY, HeaderValue::from_static("origin"));
            }
            Ok(response)
        }
        .boxed()
    }
}

/// Whether a browser asks what a page may send, before it sends it (Fetch, section 3.3.2), whatever
/// is at the path: the page is to read the answer to its request also where that is an error.
fn is_preflight<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    request.method() == Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// A page may send what any client may. `*` does not stand for `Authorization`.
fn preflight_response() -> Response<String> {
    let mut response = Response::new(String::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    for (name, value) in [
        (ACCESS_CONTROL_ALLOW_METHODS, ALLOWED_METHODS),
        (ACCESS_CONTROL_ALLOW_HEADERS, "*, Authorization"),
        (ACCESS_CONTROL_MAX_AGE, "600"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Whether a request is for one of those hosts, or does not say for which it is.
fn is_for<B>(hosts: AllowedHosts, request: &Request<B>) -> bool {
    let named = request.headers().get_all(HOST).iter();
    let authority = request.uri().authority();
    named
        .map(HeaderValue::as_bytes)
        .all(|host| std::str::from_utf8(host).is_ok_and(|host| hosts.contains(host)))
        && authority.is_none_or(|authority| hosts.contains(authority.as_str()))
}

/// What the `Origin` of a request says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum RequestOrigin {
    /// It comes from no page.
    Absent,
    /// Its page may use this server; with the value of `Access-Control-Allow-Origin`.
    Allowed(HeaderValue),
    /// Its page may not, or there are several (RFC 6454, section 7.3: at most one is sent).
    Disallowed,
}

impl RequestOrigin {
    fn of(headers: &HeaderMap, allowed: &AllowedOrigins) -> Self {
        let mut origins = headers.get_all(ORIGIN).iter();
        let origin = match (origins.next(), origins.next()) {
            (None, _) => return RequestOrigin::Absent,
            (Some(origin), None) => origin,
            (Some(_), Some(_)) => return RequestOrigin::Disallowed,
        };
        if *allowed == AllowedOrigins::Any {
            return RequestOrigin::Allowed(HeaderValue::from_static("*"));
        }
        match origin.to_str() {
            Ok(text) if allowed.contains(text) => RequestOrigin::Allowed(origin.clone()),
            _ => RequestOrigin::Disallowed,
        }
    }
}
