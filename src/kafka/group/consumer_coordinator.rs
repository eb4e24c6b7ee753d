//! The task that lives one member's life: it carries out what [`Membership`] decides.
//!
//! ```text
//! MemberChannel ─▶ ┌──────────────────┐ ─▶ JoinGroup, SyncGroup   exclusive connection
//!            │ ConsumerCoordinator::run  │ ─▶ everything else        coordinator lane
//! MemberChannel ◀─ └──────────────────┘ ◀─ timers, metadata
//! ```
//!
//! # Invariants
//! - Heartbeats depend on nothing that the reader does.
//! - At most one commit of a member is in flight, and a few of a group in this process.
//! - Whatever ends the task, the reader is told.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::FuturesUnordered;
use kafka_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, OffsetCommitRequest, SyncGroupRequest,
};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;

use super::CoordinatorHandle;
use super::assign_settling::assign_settling;
use super::error::{Failure, Verdict};
use super::led::Led;
use super::member_channel::{BackgroundEvent, MemberChannel};
use super::membership::{Action, Event, Joined, Lead, Membership};
use super::offsets::{self, Hopeless, OffsetResetStrategy, Start};
use super::requests::{self, Identity};
use crate::backoff::ExponentialBackoff;
use crate::config::AssignorName;
use crate::fetcher::FetchPosition;
use crate::metadata::ClusterSnapshot;
use crate::net::pool::JoinConnection;
use crate::{BrokerId, IsolationLevel, TopicPartition};

/// How long the last commit may hold up leaving.
const LAST_COMMIT: Duration = Duration::from_secs(5);
/// JoinGroup is answered this much after the rebalance timeout at the latest.
const JOIN_GRACE: Duration = Duration::from_secs(5);

/// The connection that JoinGroup went over, for SyncGroup.
type Line = (BrokerId, JoinConnection);

/// What came of a JoinGroup or SyncGroup, at which broker.
enum Settled {
    Joined(BrokerId, Result<Joined, Failure>, Option<JoinConnection>),
    Synced(BrokerId, Result<Vec<TopicPartition>, Failure>, Option<Led>),
}

/// What came of anything else.
enum Done {
    Coordinator(Result<BrokerId, Failure>),
    Heartbeat(i32, Result<(), Failure>),
    Positions(u64, Result<Vec<Start>, Hopeless>),
    Moved(u64, Result<Vec<(TopicPartition, FetchPosition)>, Hopeless>),
    CommitTurn(OwnedSemaphorePermit),
    Committed(i32, Result<Vec<(TopicPartition, i16)>, Failure>),
    Left(Result<(), Failure>),
}

/// See the module.
pub(crate) struct ConsumerCoordinator {
    handle: CoordinatorHandle,
    reset: OffsetResetStrategy,
    isolation: IsolationLevel,
    member: Membership,
    channel: Arc<MemberChannel>,
    joining: Option<BoxFuture<'static, Settled>>,
    work: FuturesUnordered<BoxFuture<'static, Done>>,
    line: Option<Line>,
    led: Option<(Led, watch::Receiver<Arc<ClusterSnapshot>>)>,
    /// How often the group was stirred, as far as this member knows.
    stirred: usize,
    committing: bool,
    commit_backoff: ExponentialBackoff,
    commit_after: Instant,
    leave_by: Option<Instant>,
}

impl ConsumerCoordinator {
    pub(crate) fn new(
        handle: CoordinatorHandle,
        member: Membership,
        reset: OffsetResetStrategy,
        isolation: IsolationLevel,
        channel: Arc<MemberChannel>,
    ) -> Self {
        let config = handle.cluster.config();
        let commit_backoff =
            ExponentialBackoff::new(config.retry_backoff, config.retry_backoff_max);
        let stirred = handle.gate.stirred();
        Self {
            handle,
            reset,
            isolation,
            member,
            channel,
            joining: None,
            work: FuturesUnordered::new(),
            line: None,
            led: None,
            stirred,
            committing: false,
            commit_backoff,
            commit_after: Instant::now(),
            leave_by: None,
        }
    }

    /// Until the member has left, was refused, or the client stops.
    pub(crate) async fn run(&mut self) {
        let ended = Ended(Arc::clone(&self.channel));
        let stop = self.handle.cluster.stop().clone();
        let channel = Arc::clone(&self.channel);
        let actions = self.member.advance(Instant::now());
        self.carry_out(actions);
        while !self.member.is_closed() {
            let deadline = self.deadline();
            let actions = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                settled = next_of(&mut self.joining) => self.settled(settled),
                Some(done) = self.work.next() => self.done(done),
                () = channel.coordinator_wake.notified() => Vec::new(),
                stirred = self.handle.gate.stirred_since(self.stirred) => {
                    self.stirred = stirred;
                    self.member.on(Event::Stirred, Instant::now())
                }
                () = changed(&mut self.led) => self.topics_changed(),
                () = until(deadline) => self.member.advance(Instant::now()),
            };
            self.carry_out(actions);
            self.read_mail();
        }
        drop(ended);
    }

    fn deadline(&self) -> Option<Instant> {
        let commit =
            (!self.committing && self.member.may_commit() && self.channel.state().commits.is_due())
                .then_some(self.commit_after);
        let leave = self.leave_by.filter(|_| !self.member.is_leaving());
        [self.member.deadline(), commit, leave]
            .into_iter()
            .flatten()
            .min()
    }

    fn on(&mut self, event: Event) {
        let actions = self.member.on(event, Instant::now());
        self.carry_out(actions);
    }

    /// What the reader has left word of, and what can be done about its commits now.
    fn read_mail(&mut self) {
        let now = Instant::now();
        let channel = Arc::clone(&self.channel);
        let mut guard = channel.state();
        let state = &mut *guard;
        let reset = std::mem::take(&mut state.reset_partitions);
        let idle = state.commits.is_idle();
        // Commits of what stays may go on for ever.
        let commits = &state.commits;
        let settled = |(_, gone): &mut (_, Vec<_>)| commits.is_settled(gone);
        let released = state.released_revocation.take_if(settled);
        if state.leave_requested && self.leave_by.is_none() {
            self.leave_by = Some(now + LAST_COMMIT);
        }
        let due = state.commits.is_due();
        drop(guard);

        if !reset.is_empty() && !self.member.is_leaving() {
            let handle = self.handle.clone();
            let ownership = self.member.ownership();
            let look_up = offsets::by_policy(handle, reset, self.reset, self.isolation);
            self.work.push(
                look_up
                    .map(move |found| Done::Moved(ownership, found))
                    .boxed(),
            );
        }
        if let Some((revocation, _)) = released {
            self.on(Event::Released(revocation));
        }
        // The last commit comes before leaving, if it can be made.
        if self
            .leave_by
            .is_some_and(|by| idle || by <= now || self.member.generation() < 0)
        {
            self.on(Event::Leave);
        }
        if due && !self.committing && self.commit_after <= now && self.member.may_commit() {
            self.committing = true;
            let gate = self.handle.turn();
            let turn = async move {
                let permit = gate.acquire_owned().await.expect("a gate is never closed");
                Done::CommitTurn(permit)
            };
            self.work.push(turn.boxed());
        }
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            tracing::trace!(group = %self.handle.group, member = %self.member.id(), ?action);
            match action {
                Action::FindCoordinator => self.find_coordinator(),
                Action::Join => self.join(),
                Action::Sync => self.sync(),
                Action::Heartbeat => self.heartbeat(),
                Action::Abandon => {
                    self.joining = None;
                    self.line = None;
                }
                Action::Position(ownership, partitions) => {
                    let handle = self.handle.clone();
                    let look_up = offsets::start(handle, partitions, self.reset, self.isolation);
                    let done = look_up.map(move |found| Done::Positions(ownership, found));
                    self.work.push(done.boxed());
                }
                Action::Revoke(number, partitions) => {
                    self.channel
                        .send(BackgroundEvent::Revoke(number, partitions));
                }
                Action::Lose(partitions) => {
                    tracing::debug!(group = %self.handle.group, ?partitions, "partitions were lost");
                    // From the notice on the reader hands over nothing of these.
                    self.channel.send(BackgroundEvent::Lost(partitions));
                    self.drop_commits();
                }
                Action::Leave => self.leave(),
                Action::Close(None) => {}
                Action::Close(Some(error)) => {
                    tracing::debug!(group = %self.handle.group, %error, "the consumer ends");
                    self.channel.send(BackgroundEvent::Closed(error));
                }
            }
        }
    }

    /// Lets the group's other members in this process know.
    fn stir(&mut self) {
        self.stirred = self.handle.gate.stir();
    }

    fn find_coordinator(&mut self) {
        let handle = self.handle.clone();
        self.work
            .push(async move { Done::Coordinator(handle.coordinator().await) }.boxed());
    }

    fn join(&mut self) {
        let Some(broker) = self.member.coordinator() else {
            return;
        };
        self.led = None;
        if !self.member.id().is_empty() || self.member.config().group_instance_id.is_some() {
            self.stir();
        }
        let request = requests::join(&self.member);
        let line = self
            .line
            .take()
            .filter(|(id, line)| *id == broker && !line.is_closed())
            .map(|(_, line)| line);
        let timeout = self.member.config().rebalance_timeout + JOIN_GRACE;
        self.joining = Some(join(self.handle.clone(), broker, line, request, timeout).boxed());
    }

    /// Goes to the broker that JoinGroup went to: another may be sought by now, for what
    /// the coordinator lane has met, but only this one has the answer to wait for.
    fn sync(&mut self) {
        let (broker, line) = self.line.take().expect("a joined member has a connection");
        let assignor = self
            .member
            .assignor()
            .expect("a joined member has an assignor");
        let lead = self.member.take_lead();
        let identity = Identity::of(&self.member);
        let sync = sync(self.handle.clone(), broker, line, identity, assignor, lead);
        self.joining = Some(sync.boxed());
    }

    fn heartbeat(&mut self) {
        let Some(broker) = self.member.coordinator() else {
            return;
        };
        if let Some((led, _)) = &self.led {
            // A leader stays interested in topics that it does not read itself.
            for topic in led.names() {
                let tp = TopicPartition::new(Arc::clone(topic), 0);
                self.handle.cluster.metadata().current_leader(&tp);
            }
        }
        let (handle, identity) = (self.handle.clone(), Identity::of(&self.member));
        let timeout = self.member.config().session_timeout * 2 / 3;
        let beat = async move {
            let build = |version| requests::heartbeat(version, &identity);
            let result = handle
                .call::<HeartbeatRequest>(broker, build, timeout)
                .await;
            let result =
                result.and_then(|answer| Failure::of(answer.error_code).map_or(Ok(()), Err));
            if let Err(failure) = &result {
                handle.heed(broker, failure);
            }
            Done::Heartbeat(identity.generation, result)
        };
        self.work.push(beat.boxed());
    }

    fn leave(&mut self) {
        let Some(broker) = self.member.coordinator() else {
            return;
        };
        let (handle, identity) = (self.handle.clone(), Identity::of(&self.member));
        let timeout = handle.cluster.config().request_timeout;
        let leave = async move {
            let build = |version| requests::leave(version, &identity);
            let result = handle
                .call::<LeaveGroupRequest>(broker, build, timeout)
                .await;
            let result = result.and_then(|answer| requests::left(&answer));
            if let Err(failure) = &result {
                handle.heed(broker, failure);
            }
            Done::Left(result)
        };
        self.work.push(leave.boxed());
    }

    fn settled(&mut self, settled: Settled) -> Vec<Action> {
        self.joining = None;
        let event = match settled {
            Settled::Joined(broker, result, line) => {
                match &result {
                    Ok(_) => self.line = line.map(|line| (broker, line)),
                    Err(failure) => self.handle.heed(broker, failure),
                }
                Event::Joined(result)
            }
            Settled::Synced(broker, result, led) => {
                if let Err(failure) = &result {
                    self.handle.heed(broker, failure);
                }
                self.led = led
                    .filter(|_| result.is_ok())
                    .map(|led| (led, self.handle.cluster.metadata().subscribe()));
                Event::Synced(result)
            }
        };
        let mut actions = self.member.on(event, Instant::now());
        // What changed between the assignment and the subscription to changes.
        actions.extend(self.topics_changed());
        actions
    }

    fn done(&mut self, done: Done) -> Vec<Action> {
        let now = Instant::now();
        match done {
            Done::Coordinator(result) => self.member.on(Event::Coordinator(result), now),
            Done::Heartbeat(generation, result) => {
                self.member.on(Event::Heard(generation, result), now)
            }
            Done::Positions(ownership, Ok(found)) => self.positioned(ownership, found),
            Done::Moved(ownership, Ok(found)) => {
                if ownership == self.member.ownership() {
                    for (tp, position) in found {
                        self.channel
                            .send(BackgroundEvent::PositionReset(tp, position));
                    }
                }
                Vec::new()
            }
            Done::Positions(ownership, Err(why)) | Done::Moved(ownership, Err(why)) => {
                self.member.on(Event::Positioned(ownership, Err(why)), now)
            }
            Done::CommitTurn(permit) => {
                self.commit(permit);
                Vec::new()
            }
            Done::Committed(generation, result) => self.committed(generation, result),
            Done::Left(result) => {
                if result.is_ok() {
                    self.stir();
                }
                self.member.on(Event::Left(result), now)
            }
        }
    }

    fn positioned(&mut self, ownership: u64, mut found: Vec<Start>) -> Vec<Action> {
        let member = &self.member;
        found.retain(|start| member.awaits(ownership, &start.tp));
        let names = found.iter().map(|start| start.tp.clone()).collect();
        let event = Event::Positioned(ownership, Ok(names));
        let actions = self.member.on(event, Instant::now());
        if !found.is_empty() {
            // Before the reader knows: whatever it stores is newer.
            let mut state = self.channel.state();
            for start in found.iter().filter(|start| start.commit) {
                state.commits.add(start.tp.clone(), start.position);
            }
            drop(state);
            let starts = found.into_iter().map(|start| (start.tp, start.position));
            self.channel
                .send(BackgroundEvent::Assigned(starts.collect()));
        }
        actions
    }

    /// It is this member's turn in the group: sends what has gathered until now.
    fn commit(&mut self, permit: OwnedSemaphorePermit) {
        let member = &self.member;
        let offsets = match member.coordinator() {
            Some(broker) if member.may_commit() => {
                let mut state = self.channel.state();
                Some((broker, state.commits.begin(|tp| member.may_commit_of(tp))))
            }
            _ => None,
        };
        let Some((broker, offsets)) = offsets.filter(|(_, offsets)| !offsets.is_empty()) else {
            self.committing = false;
            return;
        };
        let (handle, identity) = (self.handle.clone(), Identity::of(&self.member));
        let timeout = handle.cluster.config().request_timeout;
        let commit = async move {
            let build = |version| requests::commit(version, &identity, &offsets);
            let result = handle
                .call::<OffsetCommitRequest>(broker, build, timeout)
                .await;
            drop(permit);
            let result = result.map(|answer| requests::committed(&answer, &offsets));
            if let Err(failure) = &result {
                handle.heed(broker, failure);
            }
            Done::Committed(identity.generation, result)
        };
        self.work.push(commit.boxed());
    }

    fn committed(
        &mut self,
        generation: i32,
        result: Result<Vec<(TopicPartition, i16)>, Failure>,
    ) -> Vec<Action> {
        self.committing = false;
        let now = Instant::now();
        let outcome = self.channel.state().commits.finished(result);
        if outcome.retry {
            self.commit_after = now + self.commit_backoff.after_failure();
        } else {
            self.commit_backoff.succeeded();
        }
        let Some(failure) = outcome.failure else {
            return Vec::new();
        };
        tracing::debug!(group = %self.handle.group, ?failure, "a commit failed");
        if failure.verdict() == Verdict::FindCoordinator
            && let Some(broker) = self.member.coordinator()
        {
            self.handle.heed(broker, &failure);
        }
        self.member
            .on(Event::CommitRefused(generation, failure), now)
    }

    /// Offsets of what the group took away are nobody's to commit.
    fn drop_commits(&self) {
        let member = &self.member;
        let mut state = self.channel.state();
        state.commits.retain(|tp| member.may_commit_of(tp));
    }

    fn topics_changed(&mut self) -> Vec<Action> {
        let Some((led, changes)) = &mut self.led else {
            return Vec::new();
        };
        let snapshot = Arc::clone(&changes.borrow_and_update());
        if !led.is_outdated(&snapshot) {
            return Vec::new();
        }
        self.led = None;
        tracing::debug!(group = %self.handle.group, "the group's topics have changed");
        self.member.on(Event::TopicsChanged, Instant::now())
    }
}

/// Tells the reader that nobody is there any more, even after a panic.
struct Ended(Arc<MemberChannel>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.close();
    }
}

async fn join(
    handle: CoordinatorHandle,
    broker: BrokerId,
    line: Option<JoinConnection>,
    mut request: JoinGroupRequest,
    timeout: Duration,
) -> Settled {
    let line = match line {
        Some(line) => Ok(line),
        None => handle.cluster.join_connection(broker, &handle.group).await,
    };
    let line = match line {
        Ok(line) => line,
        Err(error) => return Settled::Joined(broker, Err(Failure::Request(error)), None),
    };
    let build = |version| {
        if version < 5 {
            request.group_instance_id = None;
        }
        request
    };
    let result = line.call::<JoinGroupRequest>(build, timeout).await;
    let result = result.map_err(Failure::Request);
    let result = result.and_then(|(_, answer)| requests::joined(answer));
    Settled::Joined(broker, result, Some(line))
}

async fn sync(
    handle: CoordinatorHandle,
    broker: BrokerId,
    line: JoinConnection,
    identity: Identity,
    assignor: AssignorName,
    lead: Option<Lead>,
) -> Settled {
    let mut led = None;
    let mut assignments = Vec::new();
    if let Some(lead) = lead {
        let seen = match Led::look(&handle, &lead).await {
            Ok(seen) => seen,
            Err(failure) => return Settled::Synced(broker, Err(failure), None),
        };
        if !lead.skip {
            let dealt = assign_settling(assignor, &lead.members, &seen.partitions());
            assignments = lead.members.into_iter().map(|m| m.id).zip(dealt).collect();
        }
        led = Some(seen);
    }
    let line = if line.is_closed() {
        handle.cluster.join_connection(broker, &handle.group).await
    } else {
        Ok(line)
    };
    let line = match line {
        Ok(line) => line,
        Err(error) => return Settled::Synced(broker, Err(Failure::Request(error)), None),
    };
    let build = |version| requests::sync(version, &identity, assignor.as_str(), &assignments);
    let timeout = handle.cluster.config().request_timeout;
    let result = line.call::<SyncGroupRequest>(build, timeout).await;
    let result = result.map_err(Failure::Request);
    let result = result.and_then(|(_, answer)| requests::synced(&answer));
    Settled::Synced(broker, result, led)
}

async fn next_of<T>(slot: &mut Option<BoxFuture<'static, T>>) -> T {
    match slot {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn changed(led: &mut Option<(Led, watch::Receiver<Arc<ClusterSnapshot>>)>) {
    let news = match led {
        Some((_, changes)) => changes.changed().await.is_ok(),
        None => false,
    };
    if !news {
        std::future::pending::<()>().await;
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
