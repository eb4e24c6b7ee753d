//! The OpenID provider of `server.openid-connect`, and the sockets whose tokens it has signed.

use std::sync::Arc;

use openid::{OpenIdConfig, OpenIdProvider};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::OpenIdConnectConfig;
use crate::session::registry::SocketRegistry;

/// Begins to fetch its keys, if clients are asked for a token. Sockets of keys that are withdrawn are
/// signalled.
pub(super) fn start(
    config: &OpenIdConnectConfig,
    sockets: &SocketRegistry,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Option<OpenIdProvider> {
    if !config.is_enabled() {
        return None;
    }
    let provider = OpenIdConfig {
        well_known_url: config.well_known_url.clone()?,
        audience: config.audience.clone()?,
        revalidation_interval: config.revalidation_interval,
        revalidation_errors_limit: config.revalidation_errors_limit,
        claims: config.custom_jwt.claims().map_or_else(Vec::new, Vec::from),
        tls: Arc::clone(config.tls.as_ref()?),
    };
    let sockets = sockets.clone();
    let on_withdrawal = move || sockets.expire_withdrawn();
    Some(OpenIdProvider::start(
        provider,
        on_withdrawal,
        tasks,
        stop.clone(),
    ))
}
