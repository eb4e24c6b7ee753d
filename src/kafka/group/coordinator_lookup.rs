//! Which broker coordinates a group.
//!
//! ```text
//! find(group) ─▶ known? ──▶ broker
//!                  │ no
//!                  ▼
//!                queue ─▶ one FindCoordinator at a time, for all queued groups
//! ```
//!
//! # Invariants
//! - One request is in flight at a time, and it asks for every group that is queued when it starts.
//! - What one cluster said of its brokers is forgotten when another takes its place.
//! - The queue empties itself: the caller that finds no task running starts one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kafka_protocol::messages::{FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;
use runtime::mutex::lock;
use tokio::sync::oneshot;

use super::error::GroupError;
use super::requests::text;
use crate::error::RequestError;
use crate::{BrokerId, Cluster};

/// Groups that one request may ask for.
const BATCH: usize = 500;
/// FindCoordinator is answered at once: a broker that takes longer hangs, and another is asked.
pub(super) const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) type CoordinatorResult = Result<BrokerId, GroupError>;
type QueuedLookups = HashMap<Arc<str>, Vec<oneshot::Sender<CoordinatorResult>>>;

/// Finds and remembers the coordinators of all groups of one principal.
#[derive(Debug, Default)]
pub(crate) struct CoordinatorLookup {
    state: Mutex<LookupState>,
}

#[derive(Debug, Default)]
struct LookupState {
    known: HashMap<Arc<str>, BrokerId>,
    /// The cluster whose brokers are known.
    cluster_id: Option<Arc<str>>,
    queue: QueuedLookups,
    /// Whether a task works on the queue.
    running: bool,
}

impl LookupState {
    /// Forgets what another cluster said.
    fn follow(&mut self, cluster: &Cluster) {
        let snapshot = cluster.metadata().snapshot();
        if self.cluster_id != snapshot.cluster_id {
            self.cluster_id.clone_from(&snapshot.cluster_id);
            self.known.clear();
        }
    }
}

impl CoordinatorLookup {
    /// The coordinator of a group, asked for if it is not known. Cancel-safe.
    pub(crate) async fn find(
        self: &Arc<Self>,
        cluster: &Cluster,
        group_id: &Arc<str>,
    ) -> CoordinatorResult {
        let found = {
            let mut state = lock(&self.state);
            state.follow(cluster);
            if let Some(broker) = state.known.get(group_id) {
                return Ok(*broker);
            }
            let (sender, found) = oneshot::channel();
            let queued = state.queue.entry(Arc::clone(group_id)).or_default();
            queued.push(sender);
            if !std::mem::replace(&mut state.running, true) {
                let task = Arc::clone(self).run(cluster.clone());
                cluster.tasks().spawn(task);
            }
            found
        };
        let stopped = || Err(GroupError::Request(RequestError::Stopped));
        found.await.unwrap_or_else(|_| stopped())
    }

    /// `broker` does not coordinate the group any more, or cannot be reached.
    pub(crate) fn mark_unknown(&self, group_id: &str, broker: BrokerId) {
        let mut state = lock(&self.state);
        if state.known.get(group_id) == Some(&broker) {
            state.known.remove(group_id);
        }
    }

    /// The group has no members in this process any more.
    pub(crate) fn drop_group(&self, group_id: &str) {
        lock(&self.state).known.remove(group_id);
    }

    async fn run(self: Arc<Self>, cluster: Cluster) {
        let mut guard = ClearQueueOnDrop(&self, true);
        while let Some(batch) = self.next_batch() {
            let groups: Vec<&Arc<str>> = batch.keys().collect();
            let cluster_id = cluster.metadata().snapshot().cluster_id.clone();
            let results = tokio::select! {
                results = find_coordinators(&cluster, &groups) => results,
                () = cluster.stop().cancelled() => return,
            };
            let mut state = lock(&self.state);
            state.follow(&cluster);
            let is_current = state.cluster_id == cluster_id;
            for (group, result) in groups.iter().zip(&results) {
                if let Ok(broker) = result
                    && is_current
                {
                    state.known.insert(Arc::clone(group), *broker);
                }
            }
            drop(state);
            for (callers, result) in batch.into_values().zip(results) {
                for caller in callers {
                    let _ = caller.send(result.clone());
                }
            }
        }
        guard.1 = false;
    }

    /// Takes the queued groups; ends the task when there are none.
    fn next_batch(&self) -> Option<QueuedLookups> {
        let mut state = lock(&self.state);
        if state.queue.is_empty() {
            state.running = false;
            return None;
        }
        if state.queue.len() <= BATCH {
            return Some(std::mem::take(&mut state.queue));
        }
        let some: Vec<_> = state.queue.keys().take(BATCH).cloned().collect();
        let take = |group| state.queue.remove_entry(&group);
        Some(some.into_iter().filter_map(take).collect())
    }
}

/// A task that ends early (stopped, panicked) drops the queue: no caller waits for ever.
struct ClearQueueOnDrop<'a>(&'a CoordinatorLookup, bool);

impl Drop for ClearQueueOnDrop<'_> {
    fn drop(&mut self) {
        if self.1 {
            let mut state = lock(&self.0.state);
            state.running = false;
            state.queue.clear();
        }
    }
}

/// Asks for the coordinators of those groups, in their order, and remembers nothing. In one request,
/// but for brokers before 3.0.
pub(crate) async fn find_coordinators(
    cluster: &Cluster,
    groups: &[&Arc<str>],
) -> Vec<CoordinatorResult> {
    let timeout = cluster.config().request_timeout.min(LOOKUP_TIMEOUT);
    let result = cluster
        .call_any(|version| request(version, groups), timeout)
        .await;
    match result {
        Ok((version, response)) if version >= 4 => groups
            .iter()
            .map(|group| coordinator_of(&response, group))
            .collect(),
        // Before version 4 a request has one key: the first is answered, the others in turn.
        Ok((_, response)) => {
            let mut results = vec![single_coordinator(&response)];
            for group in &groups[1..] {
                let one = [*group];
                let result = cluster
                    .call_any(|version| request(version, &one), timeout)
                    .await;
                results.push(match result {
                    Ok((version, response)) if version >= 4 => coordinator_of(&response, group),
                    Ok((_, response)) => single_coordinator(&response),
                    Err(error) => Err(GroupError::Request(error)),
                });
            }
            results
        }
        Err(error) => vec![Err(GroupError::Request(error)); groups.len()],
    }
}

fn request(version: i16, groups: &[&Arc<str>]) -> FindCoordinatorRequest {
    if version >= 4 {
        let keys: Vec<StrBytes> = groups.iter().map(|group| text(group)).collect();
        FindCoordinatorRequest::default().with_coordinator_keys(keys)
    } else {
        FindCoordinatorRequest::default().with_key(text(groups[0]))
    }
}

/// The response before version 4, which answers for one key.
fn single_coordinator(response: &FindCoordinatorResponse) -> CoordinatorResult {
    match GroupError::from_code(response.error_code) {
        None => Ok(BrokerId(response.node_id.0)),
        Some(error) => Err(error),
    }
}

fn coordinator_of(response: &FindCoordinatorResponse, group_id: &str) -> CoordinatorResult {
    let mut coordinators = response.coordinators.iter();
    let coordinator = coordinators.find(|c| *c.key == *group_id);
    let coordinator = coordinator.ok_or(GroupError::MalformedResponse)?;
    match GroupError::from_code(coordinator.error_code) {
        None => Ok(BrokerId(coordinator.node_id.0)),
        Some(error) => Err(error),
    }
}
