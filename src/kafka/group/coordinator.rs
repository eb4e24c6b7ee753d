//! Which broker coordinates a group.
//!
//! ```text
//! find(group) ─▶ known? ──▶ broker
//!                  │ no
//!                  ▼
//!                line ─▶ one FindCoordinator at a time, for all groups in line
//! ```
//!
//! # Invariants
//! - One request is under way at a time, and everybody in line when it starts is in it.
//! - The line empties itself: whoever starts it leaves a task that works it off.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use kafka_protocol::messages::{FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;
use runtime::mutex::lock;
use tokio::sync::oneshot;

use super::error::Failure;
use super::requests::text;
use crate::error::RequestError;
use crate::{BrokerId, Cluster};

/// ConsumerGroups that one request may ask for.
const BATCH: usize = 500;

type Answer = Result<BrokerId, Failure>;

/// Where the coordinators are, for all groups of one principal.
#[derive(Debug, Default)]
pub(crate) struct Coordinators {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    known: HashMap<Arc<str>, BrokerId>,
    line: HashMap<Arc<str>, Vec<oneshot::Sender<Answer>>>,
    working: bool,
}

impl Coordinators {
    /// The coordinator of a group, asked for if it is not known. Cancel-safe.
    pub(crate) async fn find(self: &Arc<Self>, cluster: &Cluster, group: &Arc<str>) -> Answer {
        let told = {
            let mut state = lock(&self.state);
            if let Some(broker) = state.known.get(group) {
                return Ok(*broker);
            }
            let (tell, told) = oneshot::channel();
            state.line.entry(Arc::clone(group)).or_default().push(tell);
            if !std::mem::replace(&mut state.working, true) {
                let work = Arc::clone(self).work(cluster.clone());
                cluster.tasks().spawn(work);
            }
            told
        };
        let stopped = || Err(Failure::Request(RequestError::Stopped));
        told.await.unwrap_or_else(|_| stopped())
    }

    /// `broker` turned out not to coordinate the group, or is away.
    pub(crate) fn forget(&self, group: &str, broker: BrokerId) {
        let mut state = lock(&self.state);
        if state.known.get(group) == Some(&broker) {
            state.known.remove(group);
        }
    }

    /// Nobody in this process is in the group any more.
    pub(crate) fn drop_group(&self, group: &str) {
        lock(&self.state).known.remove(group);
    }

    async fn work(self: Arc<Self>, cluster: Cluster) {
        let mut guard = Working(&self, true);
        while let Some(batch) = self.next_batch() {
            let groups: Vec<&Arc<str>> = batch.keys().collect();
            let answers = tokio::select! {
                answers = ask(&cluster, &groups) => answers,
                () = cluster.stop().cancelled() => return,
            };
            let mut state = lock(&self.state);
            for (group, answer) in groups.iter().zip(&answers) {
                if let Ok(broker) = answer {
                    state.known.insert(Arc::clone(group), *broker);
                }
            }
            drop(state);
            for (waiting, answer) in batch.into_values().zip(answers) {
                for tell in waiting {
                    let _ = tell.send(answer.clone());
                }
            }
        }
        guard.1 = false;
    }

    /// Takes the groups in line out of it; ends the work when there are none.
    fn next_batch(&self) -> Option<HashMap<Arc<str>, Vec<oneshot::Sender<Answer>>>> {
        let mut state = lock(&self.state);
        if state.line.is_empty() {
            state.working = false;
            return None;
        }
        if state.line.len() <= BATCH {
            return Some(std::mem::take(&mut state.line));
        }
        let some: Vec<_> = state.line.keys().take(BATCH).cloned().collect();
        let take = |group| state.line.remove_entry(&group);
        Some(some.into_iter().filter_map(take).collect())
    }
}

/// Work that ends early (stopped, panicked) lets everybody in line go.
struct Working<'a>(&'a Coordinators, bool);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        if self.1 {
            let mut state = lock(&self.0.state);
            state.working = false;
            state.line.clear();
        }
    }
}

async fn ask(cluster: &Cluster, groups: &[&Arc<str>]) -> Vec<Answer> {
    let timeout = cluster.config().request_timeout;
    let result = cluster
        .call_any(|version| request(version, groups), timeout)
        .await;
    match result {
        Ok((version, answer)) if version >= 4 => {
            groups.iter().map(|group| batched(&answer, group)).collect()
        }
        // Before version 4 a request has one key: the first is answered, the others in turn.
        Ok((_, answer)) => {
            let mut answers = vec![single(&answer)];
            for group in &groups[1..] {
                let one = [*group];
                let result = cluster
                    .call_any(|version| request(version, &one), timeout)
                    .await;
                answers.push(match result {
                    Ok((version, answer)) if version >= 4 => batched(&answer, group),
                    Ok((_, answer)) => single(&answer),
                    Err(error) => Err(Failure::Request(error)),
                });
            }
            answers
        }
        Err(error) => vec![Err(Failure::Request(error)); groups.len()],
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

fn single(answer: &FindCoordinatorResponse) -> Answer {
    match Failure::of(answer.error_code) {
        None => Ok(BrokerId(answer.node_id.0)),
        Some(failure) => Err(failure),
    }
}

fn batched(answer: &FindCoordinatorResponse, group: &str) -> Answer {
    let told = answer.coordinators.iter().find(|c| *c.key == *group);
    let told = told.ok_or(Failure::Malformed)?;
    match Failure::of(told.error_code) {
        None => Ok(BrokerId(told.node_id.0)),
        Some(failure) => Err(failure),
    }
}
