//! The task beside the lanes: time, leaders, the producer id, topics that vanish.

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::InitProducerIdRequest;
use tokio::time::{Instant, sleep, sleep_until};

use super::Shared;
use super::error::ProduceError;
use super::identity::Identity;
use crate::backoff::ExponentialBackoff;
use crate::cluster::Cluster;
use crate::error::RequestError;
use crate::metadata::{Metadata, MetadataError};

/// Runs until the cluster is stopped; then settles everything that is left.
pub(super) async fn run(shared: Arc<Shared>) {
    let cluster = &shared.cluster;
    let stop = cluster.stop().clone();
    let mut snapshots = cluster.metadata().subscribe();
    // What was known before is news to us.
    snapshots.mark_changed();
    let mut identifying: Option<Pin<Box<dyn Future<Output = Identified> + Send>>> = None;
    let mut backoff = ExponentialBackoff::new(
        cluster.config().retry_backoff,
        cluster.config().retry_backoff_max,
    );
    // Topics that are asked for, to learn whether they are gone.
    let mut asking = HashSet::new();
    let mut answers = FuturesUnordered::new();
    loop {
        let now = Instant::now();
        let (next, lacks_identity, missing) = shared.with(|batches, effects| {
            let next = batches.tick(now, effects);
            (next, batches.lacks_identity(), batches.take_missing())
        });
        for topic in missing {
            if asking.insert(topic.clone()) {
                answers.push(is_gone(cluster.metadata().clone(), topic));
            }
        }
        if lacks_identity && identifying.is_none() {
            let cluster = cluster.clone();
            let wait = match backoff.failures() {
                0 => Duration::ZERO,
                _ => cluster.config().retry_backoff,
            };
            identifying = Some(Box::pin(async move {
                sleep(wait).await;
                identify(&cluster).await
            }));
        }
        let identified = async {
            match &mut identifying {
                Some(identifying) => identifying.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => break,
            () = sleep_until(next.unwrap_or(now + FAR)) => {}
            () = shared.direct.notified() => {}
            identified = identified => {
                identifying = None;
                let now = Instant::now();
                match identified {
                    Ok(identity) => {
                        backoff.succeeded();
                        tracing::debug!(%identity, "have a producer id");
                        shared.with(|batches, effects| batches.identify(identity, now, effects));
                    }
                    Err(Refusal::Final(error)) => {
                        backoff.after_failure();
                        tracing::warn!(%error, "no producer id");
                        shared.with(|batches, effects| batches.fail_unidentified(&error, effects));
                    }
                    Err(Refusal::ForNow(reason)) => {
                        let wait = backoff.after_failure();
                        tracing::warn!(reason, "no producer id yet");
                        let cluster = cluster.clone();
                        identifying = Some(Box::pin(async move {
                            sleep(wait).await;
                            identify(&cluster).await
                        }));
                    }
                }
            }
            changed = snapshots.changed() => {
                if changed.is_err() {
                    break; // the metadata is gone, and so is the cluster
                }
                let snapshot = Arc::clone(&snapshots.borrow_and_update());
                let now = Instant::now();
                shared.with(|batches, effects| batches.follow(&snapshot, now, effects));
            }
            Some((topic, verdict)) = answers.next(), if !answers.is_empty() => {
                asking.remove(&topic);
                if let Some(error) = verdict {
                    tracing::warn!(%topic, %error, "records cannot be written");
                    let now = Instant::now();
                    shared.with(|batches, effects| {
                        batches.fail_topic(&topic, &error, now, effects);
                    });
                }
            }
        }
    }
    shared.with(|batches, effects| batches.stop(effects));
    shared.budget.close();
}

/// Longer than anybody waits.
const FAR: Duration = Duration::from_secs(3600);

type Identified = Result<Identity, Refusal>;

enum Refusal {
    /// Asking again would not help.
    Final(ProduceError),
    ForNow(String),
}

/// Asks for a producer id. Whatever the version, a producer without transactions gets a
/// new one: epochs it counts by itself.
async fn identify(cluster: &Cluster) -> Identified {
    use ResponseError as E;

    let build = |_version| {
        InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(i32::MAX)
    };
    let timeout = cluster.config().request_timeout;
    let response = match cluster.call_any(build, timeout).await {
        Ok((_version, response)) => response,
        Err(error @ RequestError::Unsupported { .. }) => {
            return Err(Refusal::Final(ProduceError::Rejected {
                code: E::UnsupportedVersion.code(),
                message: error.to_string().into(),
            }));
        }
        Err(error) => return Err(Refusal::ForNow(error.to_string())),
    };
    match E::try_from_code(response.error_code) {
        None if response.error_code == 0 => Ok(Identity {
            id: response.producer_id.0,
            epoch: response.producer_epoch,
        }),
        Some(E::ClusterAuthorizationFailed | E::TransactionalIdAuthorizationFailed) => {
            Err(Refusal::Final(ProduceError::NotAuthorized {
                what: "the cluster".into(),
            }))
        }
        Some(error) => Err(Refusal::ForNow(error.to_string())),
        None => Err(Refusal::ForNow(format!("error {}", response.error_code))),
    }
}

/// Asks until there is an answer. `None`: the topic is there.
async fn is_gone(metadata: Metadata, topic: Arc<str>) -> (Arc<str>, Option<ProduceError>) {
    let verdict = loop {
        match metadata.topic(&topic).await {
            Ok(_) => break None,
            Err(MetadataError::UnknownTopic { topic } | MetadataError::Invalid { topic }) => {
                break Some(ProduceError::UnknownTopic { topic });
            }
            Err(MetadataError::NotAuthorized { topic }) => {
                let what = format!("topic {topic}").into();
                break Some(ProduceError::NotAuthorized { what });
            }
            // It has waited for as long as a request may take.
            Err(MetadataError::Unavailable { .. }) => {}
        }
    };
    (topic, verdict)
}
