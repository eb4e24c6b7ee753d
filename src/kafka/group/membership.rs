//! One member's life in a group, decided purely: events in, actions out.
//!
//! ```text
//!            ┌─────────────── lost, refused, backoff ───────────────┐
//!            ▼                                                      │
//!  Idle ─▶ Joining ─▶ Syncing ─▶ Stable ──rebalance──▶ (Revoking) ──┤
//!            ▲                     │ gives partitions up            │
//!            └─────────────────────┴──────▶ Revoking ───────────────┘
//!                                  any ─▶ Leaving ─▶ Closed
//! ```
//!
//! Beside it runs the search for the coordinator, and heartbeats whenever the broker
//! counts us in, also while offsets are looked up or a socket finishes.
//!
//! # Invariants
//! - Under the eager protocol nothing is owned while a JoinGroup is under way; under the
//!   cooperative one only what the last assignment named.
//! - A partition is given away only after its reader has let go of it or its time is up;
//!   what the group took from us is reported lost at once.
//! - An answer about an older generation changes nothing.
//! - Every wait has an end: see [`Membership::deadline`].

mod leaving;
mod owning;
mod words;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

pub(crate) use self::words::{Action, Event, GroupRebalanceConfig, Joined, Lead};
use super::error::{ConsumerError, Failure, Verdict};
use super::partitions::PartitionSet;
use super::protocol::MemberSubscription;
use crate::backoff::ExponentialBackoff;
use crate::config::AssignorName;
use crate::{BrokerId, TopicPartition};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// Not asking yet.
    Idle {
        until: Instant,
    },
    Joining,
    Syncing,
    Stable,
    /// The reader is letting go; JoinGroup follows.
    Revoking {
        until: Instant,
        partitions: Vec<TopicPartition>,
    },
    Leaving {
        /// Whether JoinGroup or SyncGroup has an answer to come.
        asked: bool,
        /// An unknown member is no surprise once: LeaveGroup may overtake the JoinGroup
        /// before it, which went over another connection.
        early: bool,
        sent: bool,
        until: Instant,
        /// LeaveGroup is sent again then.
        again: Option<Instant>,
    },
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coordinator {
    Unknown { until: Instant },
    Asked,
    Known(BrokerId),
}

/// After this long the broker knows of what another member in this process did.
const STIRRED: Duration = Duration::from_millis(30);
/// See the module.
#[derive(Debug)]
pub(crate) struct Membership {
    config: GroupRebalanceConfig,
    phase: Phase,
    coordinator: Coordinator,
    id: String,
    generation: i32,
    /// The assignor of the last generation.
    assignor: Option<AssignorName>,
    lead: Option<Lead>,
    /// What the group last gave us.
    owned: PartitionSet,
    /// What the reader was told of and has not let go of.
    delivered: PartitionSet,
    /// Positions of these are being looked up.
    positioning: PartitionSet,
    /// Counts losses, so that what was looked up before one is not believed after it.
    ownership: u64,
    /// Counts revocations.
    revocation: u64,
    rejoin: bool,
    beat_at: Instant,
    beating: bool,
    backoff: ExponentialBackoff,
    search_backoff: ExponentialBackoff,
    actions: Vec<Action>,
}

impl Membership {
    pub(crate) fn new(config: GroupRebalanceConfig, now: Instant) -> Self {
        let backoff = ExponentialBackoff::new(config.retry_backoff, config.retry_backoff_max);
        Self {
            config,
            phase: Phase::Idle { until: now },
            coordinator: Coordinator::Unknown { until: now },
            id: String::new(),
            generation: -1,
            assignor: None,
            lead: None,
            owned: PartitionSet::default(),
            delivered: PartitionSet::default(),
            positioning: PartitionSet::default(),
            ownership: 0,
            revocation: 0,
            rejoin: false,
            beat_at: now,
            beating: false,
            search_backoff: backoff.clone(),
            backoff,
            actions: Vec::new(),
        }
    }

    pub(crate) fn config(&self) -> &GroupRebalanceConfig {
        &self.config
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn generation(&self) -> i32 {
        self.generation
    }

    pub(crate) fn assignor(&self) -> Option<AssignorName> {
        self.assignor
    }

    pub(crate) fn coordinator(&self) -> Option<BrokerId> {
        match self.coordinator {
            Coordinator::Known(broker) => Some(broker),
            _ => None,
        }
    }

    /// What this member has to assign as the leader of the generation; taken once.
    pub(crate) fn take_lead(&mut self) -> Option<Lead> {
        self.lead.take()
    }

    /// Whether a commit may be sent now: the broker counts us in, and no new generation
    /// is being dealt out.
    pub(crate) fn may_commit(&self) -> bool {
        let member = self.generation >= 0 && self.coordinator().is_some();
        match self.phase {
            Phase::Stable | Phase::Revoking { .. } => member,
            Phase::Joining => member && !self.delivered.is_empty(),
            _ => false,
        }
    }

    /// Whether offsets of `tp` are still this member's to commit.
    pub(crate) fn may_commit_of(&self, tp: &TopicPartition) -> bool {
        self.delivered.contains(tp)
    }

    /// Counts losses of everything.
    pub(crate) fn ownership(&self) -> u64 {
        self.ownership
    }

    /// Whether the position of `tp`, looked up under that ownership, is waited for.
    pub(crate) fn awaits(&self, ownership: u64, tp: &TopicPartition) -> bool {
        ownership == self.ownership && self.positioning.contains(tp) && self.owned.contains(tp)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    pub(crate) fn is_leaving(&self) -> bool {
        matches!(self.phase, Phase::Leaving { .. } | Phase::Closed)
    }

    /// What to offer in JoinGroup.
    pub(crate) fn subscription(&self, assignor: AssignorName) -> MemberSubscription {
        MemberSubscription {
            topics: self.config.topics.clone(),
            user_data: assignor
                .is_cooperative()
                .then(|| self.generation.to_be_bytes().to_vec()),
            owned: self.owned.to_vec(),
            generation: self.generation,
            rack: self.config.rack.clone(),
        }
    }

    /// When [`Membership::advance`] is due if nothing happens before.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let phase = match &self.phase {
            Phase::Idle { until } => self.coordinator().map(|_| *until),
            Phase::Revoking { until, .. } => Some(*until),
            Phase::Leaving { until, again, .. } => Some(again.map_or(*until, |at| at.min(*until))),
            Phase::Joining | Phase::Syncing | Phase::Stable | Phase::Closed => None,
        };
        let search = match self.coordinator {
            Coordinator::Unknown { until } if !self.is_closed() => Some(until),
            _ => None,
        };
        let beat = self.beats().then_some(self.beat_at);
        [phase, search, beat].into_iter().flatten().min()
    }

    /// Takes an event in, and says what follows.
    pub(crate) fn on(&mut self, event: Event, now: Instant) -> Vec<Action> {
        if !self.is_closed() {
            self.take(event, now);
        }
        self.advance(now)
    }

    /// Says what is due.
    pub(crate) fn advance(&mut self, now: Instant) -> Vec<Action> {
        if self.is_closed() {
            return std::mem::take(&mut self.actions);
        }
        if matches!(self.coordinator, Coordinator::Unknown { until } if until <= now) {
            self.coordinator = Coordinator::Asked;
            self.actions.push(Action::FindCoordinator);
        }
        match &self.phase {
            Phase::Stable if self.rejoin => self.prepare_join(now),
            Phase::Revoking { until, .. } if *until <= now => self.revocation_overdue(now),
            Phase::Leaving { .. } => self.advance_leave(now),
            _ => {}
        }
        if self.coordinator().is_some()
            && matches!(self.phase, Phase::Idle { until } if until <= now)
        {
            self.phase = Phase::Joining;
            self.rejoin = false;
            self.actions.push(Action::Join);
        }
        if self.beats() && self.beat_at <= now {
            self.beating = true;
            self.actions.push(Action::Heartbeat);
        }
        std::mem::take(&mut self.actions)
    }

    /// A parked JoinGroup keeps a member alive by itself.
    fn beats(&self) -> bool {
        let counted_in = !matches!(self.phase, Phase::Joining | Phase::Closed)
            && !self.is_leaving()
            && self.generation >= 0;
        counted_in && !self.beating && self.coordinator().is_some()
    }

    fn take(&mut self, event: Event, now: Instant) {
        match event {
            Event::Coordinator(Ok(broker)) => {
                self.search_backoff.succeeded();
                self.coordinator = Coordinator::Known(broker);
            }
            Event::Coordinator(Err(failure)) => match failure.verdict() {
                Verdict::NotAuthorized | Verdict::Refused | Verdict::Stopped | Verdict::Fenced => {
                    self.fail(&failure, now);
                }
                _ => {
                    let wait = self.search_backoff.after_failure();
                    self.coordinator = Coordinator::Unknown { until: now + wait };
                }
            },
            Event::Joined(result) => self.joined(result, now),
            Event::Synced(result) => self.synced(result, now),
            Event::Heard(generation, result) => {
                self.beating = false;
                self.beat_at = now + self.config.heartbeat_interval;
                if let Err(failure) = result {
                    self.disturbed(generation, &failure, now);
                }
            }
            Event::CommitRefused(generation, failure) => self.disturbed(generation, &failure, now),
            Event::Positioned(ownership, result) => self.positioned(ownership, result, now),
            Event::Released(revocation) => self.released(revocation, now),
            Event::Stirred => {
                if self.phase == Phase::Stable {
                    self.beat_at = self.beat_at.min(now + STIRRED);
                }
            }
            Event::TopicsChanged => self.rejoin |= self.generation >= 0,
            Event::Leave => self.leave(now),
            Event::Left(result) => self.left(result, now),
        }
    }

    fn joined(&mut self, result: Result<Joined, Failure>, now: Instant) {
        if let Phase::Leaving { asked, .. } = &mut self.phase {
            *asked = false;
            if let Ok(Joined::IdRequired(id) | Joined::Member { id, .. }) = result {
                self.id = id;
            }
            return;
        }
        if self.phase != Phase::Joining {
            return;
        }
        match result {
            Ok(Joined::IdRequired(id)) => {
                self.id = id;
                self.phase = Phase::Idle { until: now };
            }
            Ok(Joined::Member {
                id,
                generation,
                protocol,
                lead,
            }) => {
                let offered = &self.config.assignors;
                let Some(chosen) = offered.iter().find(|a| a.as_str() == protocol) else {
                    let reason =
                        format!("it chose the protocol {protocol:?}, which was not offered");
                    self.close(Some(self.refused(reason.into())));
                    return;
                };
                self.assignor = Some(*chosen);
                self.id = id;
                self.generation = generation;
                self.lead = lead;
                self.beat_at = now + self.config.heartbeat_interval;
                self.phase = Phase::Syncing;
                self.actions.push(Action::Sync);
            }
            Err(failure) => self.fail(&failure, now),
        }
    }

    fn synced(&mut self, result: Result<Vec<TopicPartition>, Failure>, now: Instant) {
        if let Phase::Leaving { asked, .. } = &mut self.phase {
            *asked = false;
            return;
        }
        if self.phase != Phase::Syncing {
            return;
        }
        let assigned = match result {
            Ok(assigned) => assigned,
            Err(failure) => return self.fail(&failure, now),
        };
        self.backoff.succeeded();
        self.phase = Phase::Stable;
        let topics = &self.config.topics;
        let ours = |tp: &TopicPartition| topics.contains(&tp.topic);
        let before = std::mem::take(&mut self.owned);
        self.owned = assigned.into_iter().filter(ours).collect();
        self.positioning.retain(|tp| self.owned.contains(tp));
        let taken = !before.without(&self.owned).is_empty();
        let held = self.delivered.without(&self.owned);
        if self.is_cooperative() {
            self.rejoin |= taken;
            if !held.is_empty() {
                self.revoke(held, now);
            }
        } else if !held.is_empty() {
            // The group went from cooperative to eager: others may be reading them already.
            self.lose(held);
        }
        self.position_rest();
    }

    /// What a heartbeat or a commit learned.
    fn disturbed(&mut self, generation: i32, failure: &Failure, now: Instant) {
        match failure.verdict() {
            Verdict::FindCoordinator => self.find_coordinator(now),
            _ if generation != self.generation || self.is_leaving() => {}
            Verdict::Rejoin if self.phase == Phase::Stable => self.rejoin = true,
            // Joining tells more.
            _ if matches!(self.phase, Phase::Joining) => {}
            Verdict::Rejoin | Verdict::Retry => {}
            _ => self.fail(failure, now),
        }
    }

    fn ready_to_join(&mut self, now: Instant) {
        self.phase = Phase::Idle { until: now };
    }

    fn is_cooperative(&self) -> bool {
        self.assignor.is_some_and(AssignorName::is_cooperative)
    }

    /// A failure that concerns the membership itself.
    fn fail(&mut self, failure: &Failure, now: Instant) {
        tracing::debug!(group = %self.config.group_id, member = %self.id, ?failure, "membership");
        match failure.verdict() {
            Verdict::Retry => self.retry(now),
            Verdict::FindCoordinator => {
                self.find_coordinator(now);
                self.retry(now);
            }
            Verdict::Rejoin if self.is_cooperative() => self.retry(now),
            Verdict::Rejoin => {
                self.lose_all();
                self.retry(now);
            }
            Verdict::UnknownMember => {
                self.id.clear();
                self.start_over(now);
            }
            Verdict::OldGeneration => self.start_over(now),
            Verdict::Fenced => {
                let instance = self
                    .config
                    .group_instance_id
                    .clone()
                    .unwrap_or_else(|| "".into());
                let group = Arc::clone(&self.config.group_id);
                self.close(Some(ConsumerError::Fenced { group, instance }));
            }
            Verdict::NotAuthorized => {
                let group = Arc::clone(&self.config.group_id);
                self.close(Some(ConsumerError::GroupNotAuthorized { group }));
            }
            Verdict::Refused => self.close(Some(self.refused(failure.text()))),
            Verdict::Stopped => self.close(Some(ConsumerError::Stopped)),
        }
    }

    fn refused(&self, reason: Arc<str>) -> ConsumerError {
        let group = Arc::clone(&self.config.group_id);
        ConsumerError::Refused { group, reason }
    }

    fn start_over(&mut self, now: Instant) {
        self.generation = -1;
        self.lose_all();
        self.retry(now);
    }

    /// JoinGroup again; the first time at once, then slower.
    fn retry(&mut self, now: Instant) {
        let first = self.backoff.failures() == 0;
        let wait = self.backoff.after_failure();
        let until = if first { now } else { now + wait };
        self.phase = Phase::Idle { until };
    }

    fn find_coordinator(&mut self, now: Instant) {
        if self.coordinator().is_some() {
            self.coordinator = Coordinator::Unknown { until: now };
        }
    }

    fn close(&mut self, error: Option<ConsumerError>) {
        if matches!(
            self.phase,
            Phase::Joining | Phase::Syncing | Phase::Leaving { .. }
        ) {
            self.actions.push(Action::Abandon);
        }
        self.disown();
        self.delivered.clear();
        self.phase = Phase::Closed;
        self.actions.push(Action::Close(error));
    }
}

#[cfg(test)]
mod tests;
