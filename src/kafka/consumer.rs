//! What one socket reads with: a member of a group, and a cursor per partition it owns.
//!
//! ```text
//! group ─▶ ConsumerCoordinator (task) ──notices──▶ Consumer ──events──▶ socket
//!                 ▲                          │ cursors, in turn
//!                 └── offsets, released ─────┘
//! ```
//!
//! # Invariants
//! - Only what was stored is ever committed, and only while its partition is owned;
//!   besides, the place where the reset policy has the group begin, see `group::offsets`.
//! - Once a revocation is told, nothing more of its partitions is delivered; the group
//!   gets them when [`Consumer::release`] is called and what was stored is committed, or
//!   when its patience ends, which is told as [`ConsumerEvent::Lost`].
//! - Partitions take turns: one that is busy holds up no other.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

pub use super::fetcher::{Chunk, ConsumerRecords, FetchError, FetchPosition};
pub use super::group::{CommitError, ConsumerError, OffsetResetStrategy};
pub use super::{IsolationLevel, TopicPartition};

use super::client::Client;
use super::fetcher::{Cursor, Fetcher};
use super::group::{
    BackgroundEvent, ConsumerCoordinator, GroupRebalanceConfig, MemberChannel, Membership,
};
use runtime::wake::WakeSignal;

/// What a consumer wants.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// `group.id`
    pub group: Arc<str>,
    /// The topics to share with the group's other members.
    pub topics: Vec<Arc<str>>,
    /// Who reads, for the log.
    pub client_id: Arc<str>,
    /// `group.instance.id`: a member that comes back under it takes its own place.
    pub instance_id: Option<Arc<str>>,
    /// `auto.offset.reset`
    pub reset: OffsetResetStrategy,
    /// `isolation.level`
    pub isolation: IsolationLevel,
}

/// What a consumer has to tell.
#[derive(Debug)]
pub enum ConsumerEvent {
    /// These partitions are read from now on.
    Assigned(Vec<TopicPartition>),
    /// The next records of one partition.
    Records(ConsumerRecords),
    /// The group wants partitions back. Nothing more of them comes; finish what you hold,
    /// [`Consumer::store_offset`] it, then [`Consumer::release`] them, soon.
    Revoked(PartitionRevocation),
    /// The group has taken partitions away. What was not committed of them will be
    /// delivered to others.
    Lost(Vec<TopicPartition>),
    /// The end; nothing else comes.
    Closed(ConsumerError),
}

/// Partitions that the group wants back.
#[derive(Debug)]
#[must_use = "the group waits until it is released"]
pub struct PartitionRevocation {
    number: u64,
    partitions: Vec<TopicPartition>,
}

impl PartitionRevocation {
    /// The partitions.
    pub fn partitions(&self) -> &[TopicPartition] {
        &self.partitions
    }
}

/// How long a socket may take to let go of partitions.
const DRAIN: Duration = Duration::from_secs(5);
/// How long [`Consumer::close`] takes at most: the last commit, and leaving.
const CLOSE: Duration = Duration::from_secs(11);

/// See the module. Dropping it leaves the group in the background.
#[derive(Debug)]
pub struct Consumer {
    channel: Arc<MemberChannel>,
    fetcher: Fetcher,
    isolation: IsolationLevel,
    commit_timeout: Duration,
    places: Vec<Place>,
    /// Whose turn it is.
    turn: usize,
    closed: Option<ConsumerError>,
}

/// One partition that is owned.
#[derive(Debug)]
struct Place {
    tp: TopicPartition,
    /// None while it is being given back, or its position is looked up anew.
    cursor: Option<Cursor>,
    /// Nothing below was delivered under this ownership.
    begun: i64,
    revoked: bool,
    /// Dealt with up to there, and not handed over for commit.
    stored: Option<FetchPosition>,
}

impl Consumer {
    /// Returns at once; the member joins its group in the background. `wake` is notified when
    /// there is something to ask for.
    pub fn join(client: &Client, subscription: Subscription, wake: Arc<WakeSignal>) -> Self {
        let config = client.consumer_config();
        let config = GroupRebalanceConfig {
            group_id: Arc::clone(&subscription.group),
            group_instance_id: subscription.instance_id,
            topics: subscription.topics,
            rack: Some(client.cluster().config().rack.clone()).filter(|rack| !rack.is_empty()),
            assignors: config.assignors.clone(),
            session_timeout: config.session_timeout,
            rebalance_timeout: config.max_poll_interval,
            heartbeat_interval: config.heartbeat_interval,
            revocation_timeout: DRAIN.min(config.max_poll_interval),
            retry_backoff: client.cluster().config().retry_backoff,
            retry_backoff_max: client.cluster().config().retry_backoff_max,
        };
        let channel = Arc::new(MemberChannel::new(wake));
        let member = Membership::new(config, Instant::now());
        let handle = client.coordinator_handle(&subscription.group);
        let mut coordinator = ConsumerCoordinator::new(
            handle,
            member,
            subscription.reset,
            subscription.isolation,
            Arc::clone(&channel),
        );
        let task = async move { coordinator.run().await };
        client.cluster().tasks().spawn(task);
        Self {
            channel,
            fetcher: client.fetcher().clone(),
            isolation: subscription.isolation,
            commit_timeout: client.cluster().config().request_timeout,
            places: Vec::new(),
            turn: 0,
            closed: None,
        }
    }

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
        let read = self.places.iter().filter(|place| !place.revoked);
        read.map(|place| &place.tp)
    }

    /// Everything of `tp` before `next` is dealt with: it may be committed. Nothing comes
    /// of what was delivered before the partition was lost and taken again: it would undo
    /// what others have committed meanwhile.
    pub fn store_offset(&mut self, tp: &TopicPartition, next: FetchPosition) {
        if let Some(place) = self.place(tp).filter(|place| place.begun <= next.offset) {
            place.stored = Some(next);
        }
    }

    /// Commits what was stored, together with what comes while another commit of the
    /// group is under way. When dropped, the commit goes on.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub async fn commit(&mut self) -> Result<(), CommitError> {
        self.hand_over(|_| true);
        let told = {
            let mut state = self.channel.state();
            if state.closed {
                return Err(CommitError::Closed);
            }
            state.commits.completion()
        };
        let Some(told) = told else { return Ok(()) };
        self.channel.coordinator_wake.notify_one();
        match timeout(self.commit_timeout, told).await {
            Ok(told) => told.unwrap_or(Err(CommitError::Closed)),
            Err(_) => Err(CommitError::TimedOut),
        }
    }

    /// Commits what was stored, in the background. Failures are retried and logged there.
    pub fn request_commit(&mut self) {
        if self.hand_over(|_| true) {
            self.channel.coordinator_wake.notify_one();
        }
    }

    /// Goes back to a position that was read past, to read on from there later.
    pub fn seek(&mut self, tp: &TopicPartition, position: FetchPosition) {
        if let Some(cursor) = self.place(tp).and_then(|place| place.cursor.as_mut()) {
            cursor.seek(position);
        }
    }

    /// Gives revoked partitions to the group, after what was stored of them is committed.
    pub fn release(&mut self, revocation: PartitionRevocation) {
        let named = |tp: &TopicPartition| revocation.partitions.contains(tp);
        self.hand_over(named);
        self.places
            .retain(|place| !(place.revoked && named(&place.tp)));
        let released = (revocation.number, revocation.partitions);
        self.channel.state().released_revocation = Some(released);
        self.channel.coordinator_wake.notify_one();
    }

    /// Commits what was stored and leaves the group. Takes a few seconds at most.
    pub async fn close(self) {
        let channel = Arc::clone(&self.channel);
        drop(self);
        let ended = async {
            while !channel.state().closed {
                channel.consumer_wake.notified().await;
            }
        };
        if timeout(CLOSE, ended).await.is_err() {
            tracing::debug!("a consumer took too long to leave its group");
        }
    }

    fn place(&mut self, tp: &TopicPartition) -> Option<&mut Place> {
        // Mostly it is the one that was read last.
        let last = self.turn.wrapping_sub(1);
        let at = match self.places.get(last) {
            Some(place) if place.tp == *tp => last,
            _ => self.places.iter().position(|place| place.tp == *tp)?,
        };
        self.places.get_mut(at)
    }

    /// Hands what was stored over to be committed; false if there is nothing. Not what was
    /// lost: the partition may be ours again and further on, which is not heeded yet either.
    fn hand_over(&mut self, which: impl Fn(&TopicPartition) -> bool) -> bool {
        let mut state = None;
        for place in self.places.iter_mut().filter(|place| which(&place.tp)) {
            if let Some(next) = place.stored.take() {
                let state = state.get_or_insert_with(|| self.channel.state());
                if !state.has_unread_loss_of(&place.tp) {
                    state.commits.add(place.tp.clone(), next);
                }
            }
        }
        state.is_some()
    }

    /// What comes next other than records, if it is here: for a socket that can take none
    /// now.
    pub fn try_next_except_records(&mut self) -> Option<ConsumerEvent> {
        if let Some(error) = &self.closed {
            return Some(ConsumerEvent::Closed(error.clone()));
        }
        loop {
            let notice = self.channel.try_recv()?;
            if let Some(event) = self.heed(notice) {
                return Some(event);
            }
        }
    }

    fn heed(&mut self, notice: BackgroundEvent) -> Option<ConsumerEvent> {
        match notice {
            BackgroundEvent::Assigned(positions) => {
                let names = positions.iter().map(|(tp, _)| tp.clone()).collect();
                for (tp, position) in positions {
                    let cursor = self.cursor(tp.clone(), position);
                    self.places.retain(|place| place.tp != tp);
                    self.places.push(Place {
                        // The name that its records carry: comparing is quick then.
                        tp: cursor.tp().clone(),
                        begun: position.offset,
                        cursor: Some(cursor),
                        revoked: false,
                        stored: None,
                    });
                }
                Some(ConsumerEvent::Assigned(names))
            }
            BackgroundEvent::PositionReset(tp, position) => {
                self.moved(&tp, position);
                None
            }
            BackgroundEvent::Revoke(number, partitions) => {
                for tp in &partitions {
                    if let Some(place) = self.place(tp) {
                        place.cursor = None;
                        place.revoked = true;
                    }
                }
                Some(ConsumerEvent::Revoked(PartitionRevocation {
                    number,
                    partitions,
                }))
            }
            BackgroundEvent::Lost(mut partitions) => {
                // What was released in the meantime is no news.
                partitions.retain(|tp| self.places.iter().any(|place| place.tp == *tp));
                self.places.retain(|place| !partitions.contains(&place.tp));
                (!partitions.is_empty()).then_some(ConsumerEvent::Lost(partitions))
            }
            BackgroundEvent::Closed(error) => Some(self.end(error)),
        }
    }

    /// Goes on where the reset policy says, unless the partition was given back and taken
    /// again since. The group is told at once and whatever the policy: the log may grow
    /// past the offset that was no more, and others would skip to it.
    fn moved(&mut self, tp: &TopicPartition, position: FetchPosition) {
        let waits = |place: &&mut Place| place.cursor.is_none() && !place.revoked;
        if self.place(tp).filter(waits).is_none() {
            return;
        }
        let cursor = self.cursor(tp.clone(), position);
        if let Some(place) = self.place(tp) {
            place.cursor = Some(cursor);
            place.begun = position.offset;
            place.stored = Some(position);
        }
        self.request_commit();
    }

    fn cursor(&self, tp: TopicPartition, position: FetchPosition) -> Cursor {
        let wake = Arc::clone(&self.channel.consumer_wake);
        self.fetcher.cursor(tp, position, self.isolation, wake)
    }

    fn try_records(&mut self) -> Option<ConsumerEvent> {
        let places = self.places.len();
        for step in 0..places {
            let at = (self.turn + step) % places;
            let Some(cursor) = &mut self.places[at].cursor else {
                continue;
            };
            match cursor.try_next() {
                Ok(None) => {}
                Ok(Some(slice)) => {
                    self.turn = at + 1;
                    return Some(ConsumerEvent::Records(slice));
                }
                Err(error) => {
                    if let Some(end) = self.misread(at, error) {
                        return Some(self.end(end));
                    }
                }
            }
        }
        None
    }

    /// A position that is no more is replaced; anything else is the end.
    fn misread(&mut self, at: usize, error: FetchError) -> Option<ConsumerError> {
        let place = &mut self.places[at];
        match error {
            FetchError::OutOfRange { .. } => {
                tracing::warn!(%error, "starting again by the reset policy");
                place.cursor = None;
                place.begun = i64::MAX;
                place.stored = None;
                self.channel.state().reset_partitions.push(place.tp.clone());
                self.channel.coordinator_wake.notify_one();
                None
            }
            FetchError::Truncated { to, .. } => {
                tracing::warn!(%error, "going on from where the log was cut");
                place.stored = place.stored.filter(|stored| stored.offset <= to.offset);
                place.begun = place.begun.min(to.offset);
                if let Some(cursor) = &mut place.cursor {
                    cursor.seek(to);
                }
                // It has something to wait for only after it was asked.
                self.channel.consumer_wake.notify();
                None
            }
            error => Some(error.into()),
        }
    }

    fn end(&mut self, error: ConsumerError) -> ConsumerEvent {
        for place in &mut self.places {
            place.cursor = None;
        }
        self.closed = Some(error.clone());
        ConsumerEvent::Closed(error)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.hand_over(|_| true);
        self.channel.state().leave_requested = true;
        self.channel.coordinator_wake.notify_one();
    }
}
