//! A consumer whose events a test observes.

use std::collections::{BTreeMap, BTreeSet};

use kafka_client::client::Client;
use kafka_client::config::{ClientConfig, ConsumerConfig, ProducerConfig};
use kafka_client::consumer::{Consumer, ConsumerEvent, Subscription};
use kafka_client::fetcher::FetchPosition;
use kafka_client::group::{ConsumerError, OffsetResetStrategy};
use kafka_client::{Cluster, IsolationLevel, Principal, TopicPartition};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::PATIENCE;
use super::secrets::{self, SecretsGuard};

/// The client of one cluster, as one process of ours has it.
pub(crate) struct Process {
    pub(crate) client: Client,
    stop: CancellationToken,
    _secrets: SecretsGuard,
}

impl Process {
    pub(crate) fn new(bootstrap: &str, consumer: ConsumerConfig) -> Self {
        Self::with(bootstrap, ClientConfig::default(), consumer)
    }

    pub(crate) fn with(bootstrap: &str, client: ClientConfig, consumer: ConsumerConfig) -> Self {
        let config = ClientConfig {
            bootstrap_servers: bootstrap.split(',').map(str::to_owned).collect(),
            ..client
        };
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let cluster = Cluster::new(config, Principal::Proxy, tasks, stop.clone());
        Self {
            client: Client::new(cluster, ProducerConfig::default(), consumer),
            stop,
            _secrets: secrets::watch_this_process(),
        }
    }

    pub(crate) fn consumer(&self, subscription: Subscription) -> Consumer {
        let wake = std::sync::Arc::default();
        self.client.consumers().join(subscription, wake)
    }

    pub(crate) fn reader(&self, subscription: Subscription) -> Reader {
        Reader::start(self.consumer(subscription))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub(crate) fn subscription(group: &str, topics: &[&str]) -> Subscription {
    Subscription {
        group: group.into(),
        topics: topics.iter().map(|topic| (*topic).into()).collect(),
        client_id: "reader".into(),
        instance_id: None,
        reset: OffsetResetStrategy::Earliest,
        isolation: IsolationLevel::ReadUncommitted,
        start: None,
    }
}

/// What a reader has received so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) owned: BTreeSet<TopicPartition>,
    /// Values, in the order of delivery.
    pub(crate) values: BTreeMap<TopicPartition, Vec<(i64, String)>>,
    pub(crate) revoked: usize,
    pub(crate) lost: usize,
    pub(crate) assigned: usize,
    pub(crate) closed: Option<ConsumerError>,
}

impl Seen {
    pub(crate) fn count(&self) -> usize {
        self.values.values().map(Vec::len).sum()
    }
}

/// Reads and commits everything until it is closed.
pub(crate) struct Reader {
    pub(crate) seen: watch::Receiver<Seen>,
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

impl Reader {
    pub(crate) fn start(consumer: Consumer) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (progress, seen) = watch::channel(Seen {
            owned: consumer.assignment().cloned().collect(),
            ..Seen::default()
        });
        let task = tokio::spawn(read(consumer, progress, stopped));
        Self {
            seen,
            stop: Some(stop),
            task,
        }
    }

    /// Waits until what it has received is `enough`.
    pub(crate) async fn until(&mut self, what: &str, enough: impl FnMut(&Seen) -> bool) -> Seen {
        let waited = tokio::time::timeout(PATIENCE, self.seen.wait_for(enough)).await;
        let enough = matches!(&waited, Ok(Ok(_)));
        drop(waited);
        let seen = self.seen.borrow().clone();
        assert!(enough, "{what}: {seen:?}");
        seen
    }

    pub(crate) fn owned(&self) -> BTreeSet<TopicPartition> {
        self.seen.borrow().owned.clone()
    }

    /// Commits and leaves.
    pub(crate) async fn close(mut self) -> Seen {
        let _ = self.stop.take().unwrap().send(());
        tokio::time::timeout(PATIENCE, self.task)
            .await
            .unwrap()
            .unwrap();
        self.seen.borrow().clone()
    }
}

async fn read(
    mut consumer: Consumer,
    progress: watch::Sender<Seen>,
    mut stop: oneshot::Receiver<()>,
) {
    loop {
        let event = tokio::select! {
            _ = &mut stop => break,
            event = consumer.next() => event,
        };
        match event {
            ConsumerEvent::Assigned(partitions) => progress.send_modify(|seen| {
                seen.assigned += 1;
                seen.owned.extend(partitions);
            }),
            ConsumerEvent::Records(slice) => {
                let tp = slice.chunk.tp.clone();
                let mut next = slice.from_offset;
                progress.send_modify(|seen| {
                    let values = seen.values.entry(tp.clone()).or_default();
                    for record in slice.records() {
                        let value = String::from_utf8_lossy(record.value.unwrap_or_default());
                        values.push((record.offset, value.into_owned()));
                        next = record.offset + 1;
                    }
                });
                let leader_epoch = slice.chunk.leader_epoch_before(next);
                consumer.store_offset(
                    &tp,
                    FetchPosition {
                        offset: next,
                        leader_epoch,
                    },
                );
                consumer.request_commit();
            }
            ConsumerEvent::Revoked(revocation) => {
                progress.send_modify(|seen| {
                    seen.revoked += 1;
                    seen.owned
                        .retain(|tp| !revocation.partitions().contains(tp));
                });
                consumer.release(revocation);
            }
            ConsumerEvent::Lost(partitions) => progress.send_modify(|seen| {
                seen.lost += 1;
                seen.owned.retain(|tp| !partitions.contains(tp));
            }),
            ConsumerEvent::Closed(error) => {
                progress.send_modify(|seen| {
                    seen.owned.clear();
                    seen.closed = Some(error);
                });
                let _ = stop.await;
                break;
            }
        }
    }
    consumer.close().await;
}

/// Waits until the readers own `count` partitions together, none of them twice.
pub(crate) async fn until_assigned(
    what: &str,
    readers: &mut [&mut Reader],
    count: usize,
    each: usize,
) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let owned: Vec<_> = readers.iter().map(|reader| reader.owned()).collect();
        let all: BTreeSet<_> = owned.iter().flatten().collect();
        let sum: usize = owned.iter().map(BTreeSet::len).sum();
        if sum == count && all.len() == count && owned.iter().all(|own| own.len() >= each) {
            return;
        }
        let changes = readers
            .iter_mut()
            .map(|reader| Box::pin(reader.seen.changed()));
        let any = futures_util::future::select_all(changes);
        let any = tokio::time::timeout_at(deadline, any).await;
        assert!(any.is_ok(), "{what}: {owned:?}");
    }
}
