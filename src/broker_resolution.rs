//! Looking up the names of the bootstrap hosts at start (`server.broker-resolution-*`), so that a
//! misspelt one is named.
//!
//! The clients do not wait for it, and go on trying whatever it finds: brokers may be absent at
//! start, their names too. Without this nobody would notice that one host of several never was
//! there.

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, warn};

use crate::config::BrokerResolutionConfig;

/// Looks up each host until it resolves or the bounds are reached; then says once which do not.
pub async fn report_unresolved(hosts: Vec<String>, config: BrokerResolutionConfig) {
    let mut lookups = JoinSet::new();
    for host in hosts {
        let config = config.clone();
        lookups.spawn(async move {
            let resolved = resolve(&config, || tokio::net::lookup_host(host.clone())).await;
            resolved.err().map(|reason| (host, reason))
        });
    }
    while let Some(ended) = lookups.join_next().await {
        if let Ok(Some((host, reason))) = ended {
            warn!(host, reason, "a bootstrap host does not resolve");
        }
    }
}

/// Tries until it succeeds, with `retries` more tries at most, `retry_interval` apart, within
/// `timeout`.
async fn resolve<T, L>(
    config: &BrokerResolutionConfig,
    mut look_up: impl FnMut() -> L,
) -> Result<T, String>
where
    L: Future<Output = std::io::Result<T>>,
{
    let deadline = Instant::now() + config.timeout;
    let mut reason = "the look-up takes too long".to_owned();
    for tries_left in (0..=config.retries).rev() {
        match timeout_at(deadline, look_up()).await {
            Ok(Ok(resolved)) => return Ok(resolved),
            Ok(Err(error)) => {
                debug!(%error, "a look-up failed");
                reason = error.to_string();
            }
            Err(_) => break,
        }
        if tries_left == 0 || Instant::now() + config.retry_interval >= deadline {
            break;
        }
        sleep(config.retry_interval).await;
    }
    Err(reason)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use super::*;

    /// How often it was tried, how long that took, and what came of it when the try with that
    /// number succeeds.
    async fn tries(config: BrokerResolutionConfig, success: u32) -> (u32, Duration, bool) {
        let mut tries = 0;
        let begin = Instant::now();
        let resolved = resolve(&config, || {
            tries += 1;
            let found = tries == success;
            async move {
                match found {
                    true => Ok(()),
                    false => Err(io::Error::other("no such name")),
                }
            }
        });
        let resolved = resolved.await.is_ok();
        (tries, begin.elapsed(), resolved)
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_looked_up_until_it_resolves_or_a_bound_is_reached() {
        let seconds = Duration::from_secs;
        let config = |retries, timeout| BrokerResolutionConfig {
            timeout: seconds(timeout),
            retries,
            retry_interval: seconds(1),
        };
        assert_eq!(tries(config(25, 30), 1).await, (1, seconds(0), true));
        assert_eq!(tries(config(25, 30), 4).await, (4, seconds(3), true));
        assert_eq!(tries(config(2, 30), 9).await, (3, seconds(2), false));
        assert_eq!(tries(config(25, 5), 9).await, (5, seconds(4), false));
        assert_eq!(tries(config(0, 5), 9).await.0, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_up_that_hangs_ends_with_the_time() {
        let config = BrokerResolutionConfig::default();
        let begin = Instant::now();
        let result = resolve::<(), _>(&config, std::future::pending).await;
        assert!(result.unwrap_err().contains("too long"));
        assert_eq!(begin.elapsed(), config.timeout);
    }
}
