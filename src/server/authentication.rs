//! Serves those who may connect, and nobody else.
//!
//! ```text
//! request ─┬─ may be served ─▶ service, with the ClientIdentity
//!          └─ 401 ─┬─▶ the answer
//!                  └─ on a socket path ─▶ service, marked with RequestRefused, which logs and refuses
//!                                         it, by a close frame if that is asked for
//! ```

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt};
use http::{Request, Response};
use hyper::service::Service;

use crate::auth::Authentication;
use crate::socket::{self, RequestRefused};

/// A service for those who may connect.
#[derive(Clone, Debug)]
pub(crate) struct AuthenticationService<S> {
    inner: S,
    authentication: Arc<Authentication>,
}

impl<S> AuthenticationService<S> {
    pub(crate) fn new(inner: S, authentication: Arc<Authentication>) -> Self {
        Self {
            inner,
            authentication,
        }
    }
}

impl<S, R, B, F> Service<Request<R>> for AuthenticationService<S>
where
    S: Service<Request<R>, Response = Response<B>, Error = Infallible, Future = F>,
    S: Clone + Send + 'static,
    R: Send + 'static,
    F: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
    B: From<String> + Send + 'static,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<B>, Infallible>>;

    fn call(&self, mut request: Request<R>) -> Self::Future {
        let Self {
            inner,
            authentication,
        } = self.clone();
        async move {
            let (method, path) = (request.method(), request.uri().path());
            let headers = request.headers();
            match authentication.authenticate(method, path, headers).await {
                Ok(identity) => {
                    request.extensions_mut().insert(identity);
                }
                Err(error) if !socket::is_socket_request(&request) => {
                    return Ok(error.into_response().map(B::from));
                }
                Err(error) => {
                    // A page that may not use this server is refused as such: it comes first.
                    let extensions = request.extensions_mut();
                    if extensions.get::<RequestRefused>().is_none() {
                        extensions.insert(RequestRefused(error));
                    }
                }
            }
            inner.call(request).await
        }
        .boxed()
    }
}
