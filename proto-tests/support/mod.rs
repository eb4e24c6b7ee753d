//! What the behaviour tests stand on.

use std::time::Duration;

use tokio::time::Instant;

pub(crate) mod avro;
pub(crate) mod chromium;
pub(crate) mod clients;
pub(crate) mod deflate_client;
pub(crate) mod http;
pub(crate) mod http_listener;
pub(crate) mod kafka;
mod kerberos;
pub(crate) mod oauth2_server;
pub(crate) mod openid_provider;
pub(crate) mod program;
pub(crate) mod proxy;
pub(crate) mod random;
pub(crate) mod raw_client;
pub(crate) mod reader;
pub(crate) mod relay;
pub(crate) mod schema_registry;
pub(crate) mod secrets;
pub(crate) mod tls;
pub(crate) mod token_endpoint;
pub(crate) mod ws_client;

/// How long a test waits for what must happen.
///
/// It only ends a test that hangs, so it is far beyond what anything takes on a busy machine.
/// How fast something is belongs to `scripts/bench`, and no test asserts it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Waits for what nobody signals: for the state of the broker, or of another process.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// As [`until`], where asking takes time.
pub(crate) async fn until_asked(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
