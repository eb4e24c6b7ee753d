//! Which pages may use this server: the check of `Origin` and the headers of CORS.
//!
//! ```text
//! request ─▶ Origin ─┬─ absent or allowed ─▶ service ─▶ response, with Access-Control-…
//!                    └─ not allowed ─┬─▶ 403
//!                                    └─ errors=close on a socket path ─▶ service, marked with
//!                                       DisallowedOrigin, which refuses it by a close frame
//! ```

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt};
use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue, ORIGIN, VARY};
use http::{HeaderMap, Request, Response};
use hyper::service::Service;

use crate::config::AllowedOrigins;
use crate::http_error::HttpError;
use crate::socket::{self, DisallowedOrigin};

/// A service behind the check of `Origin`.
#[derive(Clone, Debug)]
pub(crate) struct CorsService<S> {
    inner: S,
    allowed: Arc<AllowedOrigins>,
}

impl<S> CorsService<S> {
    pub(crate) fn new(inner: S, allowed: AllowedOrigins) -> Self {
        let allowed = Arc::new(allowed);
        Self { inner, allowed }
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
        let Some(origin) = request.headers().get(ORIGIN).cloned() else {
            return self.inner.call(request).boxed();
        };
        if is_allowed(&self.allowed, &origin) {
            let grant = match *self.allowed {
                AllowedOrigins::Any => Grant::ToAll,
                AllowedOrigins::Only(_) => Grant::To(origin),
            };
            let answer = self.inner.call(request);
            return async move {
                let mut response = answer.await?;
                grant.write(response.headers_mut());
                Ok(response)
            }
            .boxed();
        }
        if socket::closes_with_errors(&request) {
            request.extensions_mut().insert(DisallowedOrigin);
            return self.inner.call(request).boxed();
        }
        let refused = HttpError::disallowed_origin().into_response().map(B::from);
        std::future::ready(Ok(refused)).boxed()
    }
}

fn is_allowed(allowed: &AllowedOrigins, origin: &HeaderValue) -> bool {
    match origin.to_str() {
        Ok(origin) => allowed.contains(origin),
        Err(_) => *allowed == AllowedOrigins::Any,
    }
}

/// The pages that may read a response.
enum Grant {
    ToAll,
    To(HeaderValue),
}

impl Grant {
    fn write(self, headers: &mut HeaderMap) {
        match self {
            Grant::ToAll => {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            }
            Grant::To(origin) => {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
                // A cache must not give it to another page.
                headers.append(VARY, HeaderValue::from_static("origin"));
            }
        }
    }
}
