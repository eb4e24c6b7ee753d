//! Has the files of the TLS server read again: every now and then, and when somebody asks.

use std::sync::Arc;
use std::time::Duration;

use tls::{ServerTls, ServerTlsError};
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config;

/// How often the files are looked at.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(30);

/// Reads the files again until `stop`: those that have changed at intervals, and all when `asked`
/// is notified. Bad ones are told, and change nothing.
pub(super) async fn keep_fresh(tls: Arc<ServerTls>, asked: Arc<Notify>, stop: CancellationToken) {
    loop {
        let is_asked = tokio::select! {
            () = stop.cancelled() => return,
            asked = timeout(LOOK_AGAIN_AFTER, asked.notified()) => asked.is_ok(),
        };
        let reading = Arc::clone(&tls);
        let read = spawn_blocking(move || match is_asked {
            true => reading.reload_anyway(),
            false => reading.reload(),
        });
        match read.await {
            Ok(Ok(true)) => info!("connections that begin now are served with the new TLS files"),
            Ok(Ok(false)) if is_asked => info!("the TLS files are as they were"),
            Ok(Ok(false)) => {}
            Ok(Err(error)) => warn_of(&error),
            // It panicked, which the hook has told.
            Err(_) => {}
        }
    }
}

fn warn_of(error: &ServerTlsError) {
    let key = config::key_of_tls_fault(error);
    warn!("{key}: {error}; connections go on being served with the TLS files of before");
}
