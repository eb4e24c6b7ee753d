//! A consumer: a member of a group, and a cursor per partition that it owns.
//!
//! ```text
//! group ─▶ ConsumerCoordinator (task) ──BackgroundEvent──▶ Consumer ──ConsumerEvent──▶ caller
//!                 ▲                                          │ cursors, in turn
//!                 └─────── offsets, released revocation ─────┘
//! ```
//!
//! # Invariants
//! - Only stored offsets are ever committed, and only while their partition is owned;
//!   besides, the position where the reset policy has the group begin, see `group::positions`.
//! - After [`ConsumerEvent::Revoked`] nothing more of its partitions is delivered; the group
//!   gets them when [`Consumer::release`] is called and the stored offsets are committed, or
//!   when the revocation times out, which is [`ConsumerEvent::Lost`].
//! - Positions and stored offsets belong to the topic of one id: records of a topic that was
//!   deleted and created again are not read from a position in the former one, and end the
//!   consumer.
//! - Partitions take turns: a busy one holds up no other.

mod subscription_state;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

pub use super::fetcher::{
    Chunk, Cursor, DerivedPermit, FetchError, FetchPosition, PartitionRecords,
};
pub use super::group::{CommitError, ConsumerError, GroupStart, OffsetResetStrategy};
pub use super::record::{Records, RecordsMark};
pub use super::{IsolationLevel, TopicPartition};

use self::subscription_state::{FetchingState, SubscriptionState};
use super::config::ConsumerConfig;
use super::fetcher::Fetcher;
use super::group::{
    BackgroundEvent, ConsumerCoordinator, ConsumerGroups, GroupRebalanceConfig, MemberChannel,
    Membership, PartitionAssignment, check_group_access,
};
use super::metadata::TopicMetadata;
use super::{Cluster, Principal};
use runtime::wake::WakeSignal;

/// What a consumer subscribes to, and how.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// `group.id`
    pub group: Arc<str>,
    /// The topics to share with the group's other members.
    pub topics: Vec<Arc<str>>,
    /// Who reads, for the log.
    pub client_id: Arc<str>,
    /// `group.instance.id`: a static member that comes back keeps its assignment (KIP-345).
    pub instance_id: Option<Arc<str>>,
    /// `auto.offset.reset`
    pub reset: OffsetResetStrategy,
    /// `isolation.level`
    pub isolation: IsolationLevel,
    /// With `auto.offset.reset=latest`: where the group begins, if that was
    /// [decided](ConsumerFactory::decide_start). Else the end of each log counts when the
    /// partition is assigned.
    pub start: Option<GroupStart>,
}

/// What a consumer returns from [`Consumer::next`].
#[derive(Debug)]
pub enum ConsumerEvent {
    /// Partitions that are read from now on.
    Assigned(Vec<TopicPartition>),
    /// The next records of one partition.
    Records(PartitionRecords),
    /// The group wants partitions back. Nothing more of them comes; finish the records at
    /// hand, [`Consumer::store_offset`] them, then [`Consumer::release`] the partitions, soon.
    Revoked(PartitionRevocation),
    /// The group has taken partitions away. Records of them that were not committed will be
    /// delivered to other members.
    Lost(Vec<TopicPartition>),
    /// The end; nothing else comes.
    Closed(ConsumerError),
}

/// Partitions that the group wants back.
#[derive(Debug)]
#[must_use = "the group waits until it is released"]
pub struct PartitionRevocation {
    number: u64,
    assignments: Vec<PartitionAssignment>,
    partitions: Vec<TopicPartition>,
}

impl PartitionRevocation {
    /// The partitions to be released.
    pub fn partitions(&self) -> &[TopicPartition] {
        &self.partitions
    }
}

/// A member of a group that reads what it is assigned. Dropping it leaves the group in the
/// background.
#[derive(Debug)]
pub struct Consumer {
    channel: Arc<MemberChannel>,
    fetcher: Fetcher,
    isolation: IsolationLevel,
    commit_timeout: Duration,
    subscriptions: SubscriptionState,
    closed: Option<ConsumerError>,
}

/// Makes the consumers of one principal on one cluster, which share what they fetch and the
/// connections to their groups' coordinators.
#[derive(Debug)]
pub struct ConsumerFactory {
    cluster: Cluster,
    fetcher: Fetcher,
    groups: Arc<ConsumerGroups>,
    config: ConsumerConfig,
}

impl ConsumerFactory {
    pub(crate) fn new(cluster: Cluster, fetcher: Fetcher, config: ConsumerConfig) -> Self {
        Self {
            cluster: cluster.with_requests(&config.requests),
            fetcher,
            groups: Arc::default(),
            config,
        }
    }

    /// What all its consumers fetch with.
    pub(crate) fn fetcher(&self) -> &Fetcher {
        &self.fetcher
    }

    /// Who its consumers are.
    pub fn principal(&self) -> &Principal {
        self.cluster.principal()
    }

    /// Asks whether the principal may be a member of the group, until there is an answer.
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`ConsumerError`], as it would end the consumer.
    pub async fn check_group_access(&self, group: &Arc<str>) -> Result<(), ConsumerError> {
        let handle = self
            .groups
            .coordinator_handle(&self.cluster, &self.fetcher, group);
        check_group_access(handle).await
    }

    /// Decides where a group at `latest` begins: what is written to these topics once this
    /// has returned is read by the group. Asks until there is an answer. Cancel-safe.
    ///
    /// # Errors
    /// [`ConsumerError`], as it would end the consumer.
    pub async fn decide_start(
        &self,
        group: &Arc<str>,
        topics: &[Arc<TopicMetadata>],
        isolation: IsolationLevel,
    ) -> Result<GroupStart, ConsumerError> {
        let handle = self
            .groups
            .coordinator_handle(&self.cluster, &self.fetcher, group);
        GroupStart::decide(handle, topics, isolation).await
    }

    /// A consumer that joins its group in the background. `wake` is notified when there is
    /// something to ask for.
    pub fn join(&self, subscription: Subscription, wake: Arc<WakeSignal>) -> Consumer {
        let (config, client_config) = (&self.config, self.cluster.config());
        let config = GroupRebalanceConfig {
            group_id: Arc::clone(&subscription.group),
            group_instance_id: subscription.instance_id,
            topics: subscription.topics,
            rack: Some(client_config.rack.clone()).filter(|rack| !rack.is_empty()),
            assignors: config.assignors.clone(),
            session_timeout: config.session_timeout,
            rebalance_timeout: config.max_poll_interval,
            heartbeat_interval: config.heartbeat_interval,
            revocation_timeout: REVOCATION_TIMEOUT_MAX.min(config.max_poll_interval),
            retry_backoff: client_config.retry_backoff,
            retry_backoff_max: client_config.retry_backoff_max,
        };
        let channel = Arc::new(MemberChannel::new(wake));
        let membership = Membership::new(config, Instant::now());
        let handle =
            self.groups
                .coordinator_handle(&self.cluster, &self.fetcher, &subscription.group);
        let mut coordinator = ConsumerCoordinator::new(
            handle,
            membership,
            subscription.reset,
            subscription.isolation,
            subscription.start.map(GroupStart::into_decided),
            Arc::clone(&channel),
        );
        let task = async move { coordinator.run().await };
        self.cluster.tasks().spawn(task);
        Consumer {
            channel,
            fetcher: self.fetcher.clone(),
            isolation: subscription.isolation,
            commit_timeout: client_config.request_timeout,
            subscriptions: SubscriptionState::default(),
            closed: None,
        }
    }
}

impl Consumer {
    /// What comes next. Cancel-safe.
    pub async fn next(&mut self) -> ConsumerEvent {
        loop {
            if let Some(event) = self
                .try_next_except_records()
                .or_else(|| self.try_records())
            {
                return event;
            }
            self.channel.consumer_wake.notified().await;
        }
    }

    /// What comes next, if it is here.
    pub fn try_next(&mut self) -> Option<ConsumerEvent> {
        self.try_next_except_records()
            .or_else(|| self.try_records())
    }

    /// The partitions that are read.
    pub fn assignment(&self) -> impl Iterator<Item = &TopicPartition> {
        self.subscriptions.assignment()
    }

    /// Every record of `tp` before `next` is processed: that offset may be committed. Ignored
    /// for records that were delivered before the partition was lost and assigned again: it
    /// would undo what others have committed meanwhile. Ignored, too, beyond what was delivered
    /// since the log was truncated or the position reset: it would skip the records that are
    /// written in place of those that are gone.
    pub fn store_offset(&mut self, tp: &TopicPartition, next: FetchPosition) {
        if let Some(state) = self.subscriptions.get_mut(tp)
            && state.may_store(next.offset)
        {
            state.stored = Some(next);
        }
    }

    /// As [`store_offset`](Self::store_offset) and [`request_commit`](Self::request_commit), for
    /// one partition. `false`: it would be ignored, or the partition is not owned any more, which
    /// the caller may not have been told yet.
    pub fn commit_offset(&mut self, tp: &TopicPartition, next: FetchPosition) -> bool {
        let state = self.subscriptions.get_mut(tp);
        let Some(state) = state.filter(|state| state.may_store(next.offset)) else {
            return false;
        };
        let mut channel = self.channel.state();
        if channel.has_unread_loss_of(&state.assignment) {
            return false;
        }
        state.stored = None;
        channel.commits.add(state.assignment.clone(), next);
        drop(channel);
        self.channel.coordinator_wake.notify_one();
        true
    }

    /// Commits the stored offsets, together with those that come while another commit of the
    /// group is in flight. When dropped, the commit goes on.
    ///
    /// # Errors
    /// Any [`CommitError`]. After [`TimedOut`](CommitError::TimedOut), which comes after
    /// `request.timeout.ms`, the commit is still being tried.
    pub async fn commit(&mut self) -> Result<(), CommitError> {
        self.queue_commits(|_| true);
        let completion = {
            let mut state = self.channel.state();
            if state.closed {
                return Err(CommitError::Closed);
            }
            state.commits.completion()
        };
        let Some(completion) = completion else {
            return Ok(());
        };
        self.channel.coordinator_wake.notify_one();
        match timeout(self.commit_timeout, completion).await {
            Ok(result) => result.unwrap_or(Err(CommitError::Closed)),
            Err(_) => Err(CommitError::TimedOut),
        }
    }

    /// Commits the stored offsets in the background. Unlike Java's `commitAsync`, it retries what
    /// fails and logs what is not retriable.
    pub fn request_commit(&mut self) {
        if self.queue_commits(|_| true) {
            self.channel.coordinator_wake.notify_one();
        }
    }

    /// Goes back to a position that was read past, to read on from there later.
    pub fn seek(&mut self, tp: &TopicPartition, position: FetchPosition) {
        let state = self.subscriptions.get_mut(tp);
        if let Some(cursor) = state.and_then(|state| state.cursor_mut()) {
            cursor.seek(position);
        }
    }

    /// Since when others wait for memory that this consumer's records take.
    pub fn memory_awaited_since(&self) -> Option<Instant> {
        self.fetcher.budget().awaited_since()
    }

    /// Gives revoked partitions to the group, after their stored offsets are committed.
    pub fn release(&mut self, revocation: PartitionRevocation) {
        let named = |assignment: &PartitionAssignment| revocation.assignments.contains(assignment);
        self.queue_commits(named);
        self.subscriptions
            .remove(|state| state.is_revoked() && named(&state.assignment));
        let released = (revocation.number, revocation.assignments);
        self.channel.state().released_revocation = Some(released);
        self.channel.coordinator_wake.notify_one();
    }

    /// Commits the stored offsets and leaves the group. Takes `CLOSE_TIMEOUT`, 11 seconds, at most.
    pub async fn close(self) {
        let channel = Arc::clone(&self.channel);
        drop(self);
        let ended = async {
            while !channel.state().closed {
                channel.consumer_wake.notified().await;
            }
        };
        if timeout(CLOSE_TIMEOUT, ended).await.is_err() {
            tracing::debug!("a consumer took too long to leave its group");
        }
    }

    /// Queues the stored offsets of these partitions for commit; false if there are none. Not
    /// those of a partition whose loss is not processed yet: it may be owned again since, and
    /// its committed offset further on.
    fn queue_commits(&mut self, which: impl Fn(&PartitionAssignment) -> bool) -> bool {
        let mut channel = None;
        for state in self
            .subscriptions
            .iter_mut()
            .filter(|state| which(&state.assignment))
        {
            if let Some(next) = state.stored.take() {
                let channel = channel.get_or_insert_with(|| self.channel.state());
                if !channel.has_unread_loss_of(&state.assignment) {
                    channel.commits.add(state.assignment.clone(), next);
                }
            }
        }
        channel.is_some()
    }

    /// The next event other than records, if it is here: for a caller that can take no records
    /// now.
    pub fn try_next_except_records(&mut self) -> Option<ConsumerEvent> {
        if let Some(error) = &self.closed {
            return Some(ConsumerEvent::Closed(error.clone()));
        }
        loop {
            let event = self.channel.try_recv()?;
            if let Some(event) = self.apply(event) {
                return Some(event);
            }
        }
    }

    fn apply(&mut self, event: BackgroundEvent) -> Option<ConsumerEvent> {
        match event {
            BackgroundEvent::Assigned(changes, positions) => {
                let mut assigned = Vec::with_capacity(positions.len());
                for initial in positions {
                    let tp = initial.assignment.tp.clone();
                    assigned.push(tp.clone());
                    let cursor = self.cursor_since(changes, tp, initial.position);
                    self.subscriptions.assign(initial, cursor);
                }
                Some(ConsumerEvent::Assigned(assigned))
            }
            BackgroundEvent::PositionReset(changes, assignment, position) => {
                self.complete_reset(changes, &assignment, position);
                None
            }
            BackgroundEvent::Revoke(number, assignments) => {
                for assignment in &assignments {
                    if let Some(state) = self.subscriptions.get_assigned(assignment) {
                        state.fetching = FetchingState::Revoked;
                    }
                }
                Some(ConsumerEvent::Revoked(PartitionRevocation {
                    number,
                    partitions: partitions_of(&assignments),
                    assignments,
                }))
            }
            BackgroundEvent::Lost(mut assignments) => {
                // Those that were released in the meantime are not lost.
                assignments.retain(|of| self.subscriptions.get_assigned(of).is_some());
                self.subscriptions
                    .remove(|state| assignments.contains(&state.assignment));
                let lost = partitions_of(&assignments);
                (!lost.is_empty()).then_some(ConsumerEvent::Lost(lost))
            }
            BackgroundEvent::Closed(error) => Some(self.end(error)),
        }
    }

    /// Reads on where the reset policy says, unless the partition was given back and assigned
    /// again since. The position is committed at once and whatever the policy: the log may
    /// grow past the offset that was out of range, and the next owner would skip to it.
    fn complete_reset(
        &mut self,
        cluster_changes: u64,
        assignment: &PartitionAssignment,
        position: FetchPosition,
    ) {
        let awaits_reset = self
            .subscriptions
            .get_assigned(assignment)
            .is_some_and(|state| state.awaits_reset());
        if !awaits_reset {
            return;
        }
        let cursor = self.cursor_since(cluster_changes, assignment.tp.clone(), position);
        if let Some(state) = self.subscriptions.get_assigned(assignment) {
            state.complete_reset(position, cursor);
        }
        self.request_commit();
    }

    /// Reads a partition once more from `position` on, apart from what the consumer returns and
    /// whether it is assigned the partition; the consumer's signal is notified.
    pub fn cursor(&self, tp: TopicPartition, position: FetchPosition) -> Cursor {
        let wake = Arc::clone(&self.channel.consumer_wake);
        self.fetcher.cursor(tp, position, self.isolation, wake)
    }

    /// A cursor at a position of the consumer's own, which may be of a former cluster.
    fn cursor_since(&self, changes: u64, tp: TopicPartition, position: FetchPosition) -> Cursor {
        let wake = Arc::clone(&self.channel.consumer_wake);
        let (fetcher, isolation) = (&self.fetcher, self.isolation);
        fetcher.cursor_since(Some(changes), tp, position, isolation, wake)
    }

    fn try_records(&mut self) -> Option<ConsumerEvent> {
        for step in 0..self.subscriptions.len() {
            let (index, state) = self.subscriptions.in_turn(step);
            let Some(cursor) = state.cursor_mut() else {
                continue;
            };
            match cursor.try_next() {
                Ok(None) => {}
                Ok(Some(_)) if state.is_of_another_topic() => {
                    let topic = Arc::clone(&state.assignment.tp.topic);
                    return Some(self.end(ConsumerError::UnknownTopic { topic }));
                }
                Ok(Some(records)) => {
                    state.delivered(records.chunk.next_offset);
                    self.subscriptions.took_turn(index);
                    return Some(ConsumerEvent::Records(records));
                }
                Err(error) => {
                    if let Some(end) = self.fetch_failed(step, error) {
                        return Some(self.end(end));
                    }
                }
            }
        }
        None
    }

    /// A position that is not valid any more is replaced; any other error ends the consumer.
    fn fetch_failed(&mut self, step: usize, error: FetchError) -> Option<ConsumerError> {
        let (_, state) = self.subscriptions.in_turn(step);
        match error {
            FetchError::OutOfRange { .. } => {
                tracing::warn!(%error, "starting again by the reset policy");
                state.await_reset();
                let assignment = state.assignment.clone();
                self.channel.state().reset_partitions.push(assignment);
                self.channel.coordinator_wake.notify_one();
                None
            }
            FetchError::Truncated { to, .. } => {
                tracing::warn!(%error, "going on from where the log was truncated");
                state.truncate_to(to);
                // The cursor notifies only after it was asked again.
                self.channel.consumer_wake.notify();
                None
            }
            FetchError::ClusterReplaced { .. } => {
                // Its member learns of it as well: the partition is lost, and assigned anew.
                tracing::debug!(%error, "waiting for the new cluster's assignment");
                state.stored = None;
                state.close();
                None
            }
            error => Some(error.into()),
        }
    }

    fn end(&mut self, error: ConsumerError) -> ConsumerEvent {
        for state in self.subscriptions.iter_mut() {
            state.close();
        }
        self.closed = Some(error.clone());
        ConsumerEvent::Closed(error)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.queue_commits(|_| true);
        self.channel.state().leave_requested = true;
        self.channel.coordinator_wake.notify_one();
    }
}

fn partitions_of(assignments: &[PartitionAssignment]) -> Vec<TopicPartition> {
    assignments.iter().map(|of| of.tp.clone()).collect()
}

/// How long a caller may take to release revoked partitions.
const REVOCATION_TIMEOUT_MAX: Duration = Duration::from_secs(5);
/// How long [`Consumer::close`] takes at most: the last commit, and leaving.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(11);
