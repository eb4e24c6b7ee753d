//! The task that sends to one broker.
//!
//! ```text
//! ready batches ─▶ seal, stamp ─▶ connection (one, ordered) ─▶ broker
//!                                     └─ replies, oldest first ─▶ landings
//! ```
//!
//! # Invariants
//! - Requests are sent, and answers taken, in one order.
//! - Nothing goes over a new connection before every request of the old one has ended.
//! - Between two failed attempts to connect there is a wait: the cluster's.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::{ProduceRequest, ProduceResponse};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Shared;
use super::accumulator::{Landed, Outgoing};
use super::answer::{self, Addressed, Hints};
use super::body::Body;
use super::queue::Landing;
use crate::error::RequestError;
use crate::net::connection::{Connection, ResponseFuture};
use crate::net::pool;
use crate::topic::BrokerId;

/// We wait for an answer that much longer than the broker may wait for its followers: or
/// else it could never say that they took too long, and the connection would be lost, with
/// all that is out on it. Not longer than twice the time, however.
const MARGIN: Duration = Duration::from_secs(5);

/// Sends what is ready for `broker`, whenever `wake` says that there is something.
pub(super) async fn run(shared: Arc<Shared>, broker: BrokerId, wake: Arc<Notify>) {
    let stop = shared.cluster.stop().clone();
    let mut lane = Lane {
        shared,
        broker,
        connection: None,
        dialing: None,
        flights: VecDeque::new(),
    };
    loop {
        lane.send().await;
        lane.dial();
        let Lane {
            flights, dialing, ..
        } = &mut lane;
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            answer = first(flights) => lane.answered(answer),
            dialed = connected(dialing) => lane.dialed(dialed),
            () = wake.notified() => {}
        }
    }
}

struct Lane {
    shared: Arc<Shared>,
    broker: BrokerId,
    connection: Option<Connection>,
    dialing: Option<Dialing>,
    flights: VecDeque<Flight>,
}

type Dialing = Pin<Box<dyn Future<Output = Result<Connection, RequestError>> + Send>>;
type Answer = Result<ProduceResponse, RequestError>;

/// A request that is out.
struct Flight {
    reply: ResponseFuture<ProduceRequest>,
    version: i16,
    batches: Vec<Addressed>,
    /// Where each belongs: line and id.
    homes: Vec<(usize, u64)>,
}

impl Lane {
    /// Sends as many requests as may be out.
    async fn send(&mut self) {
        while self.flights.len() < self.shared.config.max_in_flight.max(1) {
            let Some(connection) = self.connection.clone().filter(|c| !c.is_closed()) else {
                self.connection = None;
                return;
            };
            let now = Instant::now();
            let ready = self
                .shared
                .with(|batches, effects| batches.drain(self.broker, now, effects));
            if ready.is_empty() {
                return;
            }
            self.post(&connection, ready).await;
        }
    }

    async fn post(&mut self, connection: &Connection, ready: Vec<Outgoing>) {
        let mut homes = Vec::with_capacity(ready.len());
        let mut batches = Vec::with_capacity(ready.len());
        for outgoing in ready {
            let sent = outgoing.sent;
            homes.push((outgoing.line, sent.id));
            let mut batch = sent.payload.sealed(self.shared.config.compression);
            batch.set_producer_state(sent.identity.id, sent.identity.epoch, sent.sequence);
            batches.push(Addressed {
                partition: outgoing.partition,
                topic_id: outgoing.topic_id,
                batch,
                again: sent.again,
            });
        }
        let timeout = self.shared.cluster.config().request_timeout;
        let version = match connection.version::<ProduceRequest>() {
            Ok(newest) => answer::version_for(&batches, newest),
            Err(error) => return self.failed(batches, &homes, 0, &error),
        };
        let request = answer::request(&batches, version, timeout);
        let patience = timeout + MARGIN.min(timeout);
        match connection.send(version, &request, patience).await {
            Ok(reply) => self.flights.push_back(Flight {
                reply,
                version,
                batches,
                homes,
            }),
            Err(error) => self.failed(batches, &homes, version, &error),
        }
    }

    /// Opens a connection if one is missed; not while requests of the last one are out.
    fn dial(&mut self) {
        let idle = self.connection.is_none() && self.flights.is_empty();
        if !idle || !self.shared.has_ready(self.broker) {
            self.dialing = None;
        } else if self.dialing.is_none() {
            let cluster = self.shared.cluster.clone();
            let broker = self.broker;
            self.dialing = Some(Box::pin(async move {
                cluster
                    .connection(broker, pool::ConnectionPurpose::Produce)
                    .await
            }));
        }
    }

    fn dialed(&mut self, dialed: Result<Connection, RequestError>) {
        self.dialing = None;
        match dialed {
            Ok(connection) => self.connection = Some(connection),
            // The cluster has been asked for news, and lets the next attempt wait.
            Err(error) => {
                tracing::debug!(broker = %self.broker, %error, "cannot produce");
            }
        }
    }

    fn answered(&mut self, answer: Answer) {
        let Some(flight) = self.flights.pop_front() else {
            return;
        };
        let response = match answer {
            Ok(response) => response,
            Err(error) => {
                if let Some(connection) = self.connection.take() {
                    // What it still says is of no use, and the next one may be better.
                    connection.close("a produce request failed");
                }
                return self.failed(flight.batches, &flight.homes, flight.version, &error);
            }
        };
        let landings = answer::landings(&flight.batches, flight.version, &response);
        let metadata = self.shared.cluster.metadata();
        let mut landed = Vec::with_capacity(landings.len());
        let mut stale: Vec<Arc<str>> = Vec::new();
        let homes = flight.homes.iter().zip(flight.batches);
        for ((&(line, id), batch), (landing, hints)) in homes.zip(landings) {
            let Hints {
                stale: is_stale,
                leader,
            } = hints;
            let partition = batch.partition;
            if !matches!(landing, Landing::Appended(_)) {
                tracing::debug!(%partition, broker = %self.broker, ?landing, "batch not taken");
            }
            if let Some((leader, endpoint)) = leader {
                metadata.update_partition_leadership(&partition, leader, endpoint);
            }
            if is_stale && !stale.contains(&partition.topic) {
                stale.push(partition.topic);
            }
            landed.push(Landed {
                line,
                id,
                body: Body::Sealed(batch.batch),
                landing,
                by_id: answer::is_by_id(flight.version),
            });
        }
        self.land(landed);
        for topic in stale {
            metadata.request_update_for_topic(&topic);
        }
    }

    /// A request failed as a whole.
    fn failed(
        &mut self,
        batches: Vec<Addressed>,
        homes: &[(usize, u64)],
        version: i16,
        error: &RequestError,
    ) {
        tracing::debug!(broker = %self.broker, %error, "produce request failed");
        let unsure = error.maybe_sent();
        // The broker may be down, and others lead its partitions by now.
        let metadata = self.shared.cluster.metadata();
        if let Some(first) = batches.first() {
            metadata.request_update_for_topic(&first.partition.topic);
        }
        let landed = homes.iter().zip(batches);
        let landed = landed.map(|(&(line, id), batch)| Landed {
            line,
            id,
            body: Body::Sealed(batch.batch),
            landing: Landing::Retry { unsure },
            by_id: answer::is_by_id(version),
        });
        self.land(landed.collect());
    }

    fn land(&self, landed: Vec<Landed>) {
        let now = Instant::now();
        self.shared
            .with(|batches, effects| batches.land(landed, now, effects));
    }
}

/// The oldest request's answer; cancel-safe.
async fn first(flights: &mut VecDeque<Flight>) -> Answer {
    match flights.front_mut() {
        Some(flight) => (&mut flight.reply).await,
        None => std::future::pending().await,
    }
}

async fn connected(dialing: &mut Option<Dialing>) -> Result<Connection, RequestError> {
    match dialing {
        Some(dialing) => dialing.await,
        None => std::future::pending().await,
    }
}
