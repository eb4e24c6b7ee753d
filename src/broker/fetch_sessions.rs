//! Incremental fetch sessions of one node (KIP-227).
//!
//! ```text
//! id 0, epoch 0 ─▶ full fetch, makes a session ──▶ answered with its id
//! id, epoch 1.. ─▶ only what changed is sent, in both directions
//! id, epoch -1  ─▶ full fetch, ends the session
//! ```
//!
//! A session remembers the wanted partitions and what was last said about each. Those that
//! had records go to the end of the line, so that none starves under the byte limit.
//!
//! # Invariants
//! - There are no more sessions than slots. A new one takes the place of the one unused
//!   for longest, if that is idle for long enough; else the client gets id 0 and goes on
//!   with full fetches.
//! - All sessions together want no more partitions than the limit. One that would want
//!   more is not made, or ends.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::cluster_state::NAME_MAX;

/// One partition that a fetch asks for. Before version 13 the topic is a name, from then
/// on an id.
#[derive(Clone, Debug)]
pub(super) struct FetchPartitionRequest {
    pub(super) topic: StrBytes,
    pub(super) topic_id: Uuid,
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) leader_epoch: i32,
    pub(super) last_epoch: i32,
    pub(super) max_bytes: i32,
}

impl FetchPartitionRequest {
    fn same_partition(&self, other: &Self) -> bool {
        self.partition == other.partition
            && self.topic_id == other.topic_id
            && self.topic == other.topic
    }
}

/// What a fetch request says about its session.
#[derive(Debug)]
pub(super) struct FetchSessionRequest {
    pub(super) session_id: i32,
    pub(super) epoch: i32,
    pub(super) with_ids: bool,
    pub(super) wanted: Vec<FetchPartitionRequest>,
    /// Only topic, id and partition count.
    pub(super) forgotten: Vec<FetchPartitionRequest>,
}

/// What a fetch is to read, and what becomes of its session.
#[derive(Debug)]
pub(super) struct FetchContext {
    pub(super) wanted: Vec<FetchPartitionRequest>,
    kind: FetchContextKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FetchContextKind {
    Sessionless,
    New { with_ids: bool },
    Incremental { id: i32 },
}

/// The sessions of one node.
#[derive(Debug)]
pub(super) struct FetchSessionCache {
    by_id: HashMap<i32, CachedFetchSession>,
    slots: usize,
    partitions_max: usize,
    min_idle: Duration,
    last_id: i32,
}

#[derive(Debug)]
struct CachedFetchSession {
    epoch: i32,
    with_ids: bool,
    last_used: Instant,
    partitions: Vec<CachedPartition>,
}

#[derive(Debug)]
struct CachedPartition {
    wanted: FetchPartitionRequest,
    high_watermark: i64,
    start: i64,
}

impl FetchSessionCache {
    /// No sessions yet. `seed` keeps ids of one life of a node from being valid in the next.
    pub(super) fn new(slots: usize, partitions_max: usize, min_idle: Duration, seed: u32) -> Self {
        Self {
            by_id: HashMap::new(),
            slots,
            partitions_max,
            min_idle,
            last_id: (seed & 0x3fff_ffff) as i32,
        }
    }

    /// Begins a fetch.
    pub(super) fn open(
        &mut self,
        session_request: FetchSessionRequest,
        now: Instant,
    ) -> Result<FetchContext, ResponseError> {
        if session_request.epoch == FINAL || session_request.epoch == INITIAL {
            self.by_id.remove(&session_request.session_id);
            let kind = if session_request.epoch == FINAL {
                FetchContextKind::Sessionless
            } else {
                FetchContextKind::New {
                    with_ids: session_request.with_ids,
                }
            };
            return Ok(FetchContext {
                wanted: session_request.wanted,
                kind,
            });
        }
        let id = session_request.session_id;
        if !self.has_room(&session_request.wanted) {
            // The client makes a full fetch instead.
            self.by_id.remove(&id);
        }
        let session = self.by_id.get_mut(&id);
        let session = session.ok_or(ResponseError::FetchSessionIdNotFound)?;
        if session.epoch != session_request.epoch {
            return Err(ResponseError::InvalidFetchSessionEpoch);
        }
        if session.with_ids != session_request.with_ids {
            return Err(ResponseError::FetchSessionTopicIdError);
        }
        session.forget(&session_request.forgotten);
        session.update(session_request.wanted);
        session.epoch = next_epoch(session.epoch);
        session.last_used = now;
        let wanted: Vec<_> = session
            .partitions
            .iter()
            .map(|c| c.wanted.clone())
            .collect();
        if wanted.is_empty() {
            self.by_id.remove(&id);
            return Ok(FetchContext {
                wanted,
                kind: FetchContextKind::Sessionless,
            });
        }
        Ok(FetchContext {
            wanted,
            kind: FetchContextKind::Incremental { id },
        })
    }

    /// Ends a fetch: the session's id for the answer, and of the results those that changed.
    pub(super) fn close(
        &mut self,
        fetch_context: FetchContext,
        results: Vec<PartitionData>,
        now: Instant,
    ) -> (i32, Vec<(FetchPartitionRequest, PartitionData)>) {
        match fetch_context.kind {
            FetchContextKind::Sessionless => {
                (0, fetch_context.wanted.into_iter().zip(results).collect())
            }
            FetchContextKind::New { with_ids } => {
                let id = self.create(&fetch_context.wanted, &results, with_ids, now);
                (id, fetch_context.wanted.into_iter().zip(results).collect())
            }
            FetchContextKind::Incremental { id } => {
                let mut changes = fetch_context.wanted.into_iter().zip(results).collect();
                if let Some(session) = self.by_id.get_mut(&id) {
                    session.retain_changes(&mut changes);
                }
                (id, changes)
            }
        }
    }

    fn create(
        &mut self,
        wanted: &[FetchPartitionRequest],
        results: &[PartitionData],
        with_ids: bool,
        now: Instant,
    ) -> i32 {
        if wanted.is_empty() || !self.has_room(wanted) || !self.make_room(now) {
            return 0;
        }
        let mut id = self.last_id;
        loop {
            id = next_epoch(id);
            if !self.by_id.contains_key(&id) {
                break;
            }
        }
        self.last_id = id;
        let partitions = wanted
            .iter()
            .zip(results)
            .map(|(wanted, result)| CachedPartition {
                wanted: wanted.clone(),
                high_watermark: result.high_watermark,
                start: result.log_start_offset,
            });
        let session = CachedFetchSession {
            epoch: 1,
            with_ids,
            last_used: now,
            partitions: partitions.collect(),
        };
        self.by_id.insert(id, session);
        id
    }

    /// Whether those partitions may be cached; names of no possible topic are not.
    fn has_room(&self, wanted: &[FetchPartitionRequest]) -> bool {
        let kept: usize = self.by_id.values().map(|s| s.partitions.len()).sum();
        wanted.is_empty()
            || kept + wanted.len() <= self.partitions_max
                && wanted.iter().all(|w| w.topic.len() <= NAME_MAX)
    }

    fn make_room(&mut self, now: Instant) -> bool {
        if self.by_id.len() < self.slots {
            return true;
        }
        let least_recently_used = self.by_id.iter().min_by_key(|(_, s)| s.last_used);
        let Some((&id, session)) = least_recently_used else {
            return false;
        };
        let idle = now.saturating_duration_since(session.last_used) >= self.min_idle;
        if idle {
            self.by_id.remove(&id);
        }
        idle
    }
}

// What tests do and see.
#[cfg(any(test, feature = "faults"))]
impl FetchSessionCache {
    /// How many sessions there are.
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Ends them all.
    pub(super) fn clear(&mut self) {
        self.by_id.clear();
    }
}

impl CachedFetchSession {
    fn forget(&mut self, forgotten: &[FetchPartitionRequest]) {
        if !forgotten.is_empty() {
            self.partitions.retain(|cached| {
                !forgotten
                    .iter()
                    .any(|gone| cached.wanted.same_partition(gone))
            });
        }
    }

    fn update(&mut self, wanted: Vec<FetchPartitionRequest>) {
        for wanted in wanted {
            match self
                .partitions
                .iter_mut()
                .find(|c| c.wanted.same_partition(&wanted))
            {
                Some(cached) => cached.wanted = wanted,
                None => self.partitions.push(CachedPartition {
                    wanted,
                    high_watermark: -1,
                    start: -1,
                }),
            }
        }
    }

    /// Keeps what the client does not know yet.
    fn retain_changes(&mut self, changes: &mut Vec<(FetchPartitionRequest, PartitionData)>) {
        let mut served = Vec::new();
        changes.retain(|(wanted, result)| {
            let Some(at) = self
                .partitions
                .iter()
                .position(|c| c.wanted.same_partition(wanted))
            else {
                return true;
            };
            let cached = &mut self.partitions[at];
            let has_records = result.records.as_ref().is_some_and(|r| !r.is_empty());
            let changed = has_records
                || result.error_code != 0
                || result.diverging_epoch.end_offset >= 0
                || result.high_watermark != cached.high_watermark
                || result.log_start_offset != cached.start;
            // After an error everything is said again, whatever was known.
            let failed = result.error_code != 0;
            cached.high_watermark = if failed { -1 } else { result.high_watermark };
            cached.start = if failed { -1 } else { result.log_start_offset };
            if has_records {
                served.push(at);
            }
            changed
        });
        served.sort_unstable();
        let mut moved: Vec<_> = served
            .iter()
            .rev()
            .map(|&at| self.partitions.remove(at))
            .collect();
        moved.reverse();
        self.partitions.append(&mut moved);
    }
}

fn next_epoch(id: i32) -> i32 {
    if id == i32::MAX { 1 } else { id + 1 }
}

const INITIAL: i32 = 0;
const FINAL: i32 = -1;
