//! `/socket/out`: records to frames, commits to the group. One task per socket.
//!
//! ```text
//! group ─▶ Consumer ─▶ PartitionRecords ─▶ OutgoingChunk ─▶ kernel ─▶ client
//!             ▲                                │ taken by the kernel
//!             ├─── store_offset ◀──────────────┘ autoCommit=true, committed once a second
//!             └─── commit_offset ◀── UncommittedRecords ◀── {"wsProxyMessageId"} ◀── client
//!                                       client ◀── answer ◀── {"command"} ◀── client
//! ```
//!
//! # Invariants
//! - With `autoCommit=true`, stored is the offset of what the kernel has taken whole;
//!   otherwise of what the client has committed, or `commit-handler.auto-commit-*` for it.
//! - Records are taken from the consumer only when those before them are with the kernel:
//!   a slow client holds back its own reading and nothing else.
//! - A client that takes nothing for half a second holds no chunk, and one that takes little at
//!   a time, or has a `rate`, holds none for longer than ten, or while others wait for its memory;
//!   one that takes nothing for `max.poll.interval.ms` is closed.
//! - A frame that was begun is finished, whatever happens to its partition.

mod arrays;
mod avro_commits;
mod chunk;
mod counted_topics;
mod delivery;
mod delivery_listener;
mod encoded_frames;
mod frame_encoding;
mod frame_place;
mod offset_tracker;
mod rate;
mod segment_buffer;
mod segment_cache;
mod single_frames;
mod sink;
mod uncommitted;

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::yield_now;
use tokio::time::{Duration, Instant, sleep_until, timeout};
use tracing::debug;

use super::close::CloseReason;
use super::commands;
use super::params::{ConsumeParams, group_instance_id};
use super::session::{self, CLOSE_SEND_TIMEOUT, DataMessage, SocketSession, set_timer};
use super::socket_log::SocketLog;
use super::stream::WebSocketStream;
use super::turn::{STEPS_PER_TURN, TaskTurn};
use crate::codec::FrameFormat;
use crate::codec::command::{self, CommandMessage};
use crate::codec::commit::{self, CommitMessage, CommitOrCommand, CommitRejection};
use crate::codec::socket_error;
use crate::config::Config;
use crate::quotas::DeliveryQuota;
use crate::session::PlacePermit;
use crate::session::registry::ConnectionPermit;
pub(super) use avro_commits::AvroCommits;
use avro_commits::{CommitRead, SchemaLookUp};
use chunk::OutgoingChunk;
use counted_topics::CountedTopics;
use delivery::SendProgress;
use frame_encoding::FrameEncoding;
use kafka_client::consumer::{
    CommitError, Consumer, ConsumerEvent, ConsumerFactory, GroupStart, Subscription,
};
use offset_tracker::OffsetTracker;
use rate::DeliveryRate;
use runtime::long_work::LongWork;
use sink::RecordSink;
use websocket::frame::{Opcode, Utf8Bytes};

/// How long the last commit may delay the close frame.
const LAST_COMMIT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client may take nothing before its chunk is released.
const RELEASE_CHUNK_AFTER: Duration = Duration::from_millis(500);
/// How long a client may take for one chunk.
const CHUNK_HELD_MAX: Duration = Duration::from_secs(10);
/// Chunks sent, and events handled, before the client's messages, the timer and other tasks
/// get a turn.
const CHUNKS_PER_TURN: usize = 4;
/// Commits that are longer than any that is one: only reading them takes long.
static LONG_COMMITS: LongWork = LongWork::from_bytes(64 << 10);
/// What an empty write buffer keeps of its memory.
const WRITE_BUFFER_KEEP_MAX: usize = 4 << 10;

/// One consuming client.
pub(super) struct ConsumingSocket {
    session: SocketSession,
    consumer: Consumer,
    format: FrameFormat,
    avro_commits: AvroCommits,
    chunk: Option<OutgoingChunk>,
    sink: RecordSink,
    rate: DeliveryRate,
    offsets: OffsetTracker,
    turn: TaskTurn,
    topics: CountedTopics,
    log: SocketLog,
    place_permit: PlacePermit,
    /// Released when the socket ends.
    _connection_permit: ConnectionPermit,
}

impl ConsumingSocket {
    /// Joins the group.
    pub(super) fn new(
        config: &Config,
        consumers: &ConsumerFactory,
        stream: WebSocketStream,
        (params, format, avro_commits): (ConsumeParams, FrameFormat, AvroCommits),
        start: Option<GroupStart>,
        (connection_permit, place_permit, quota): (
            ConnectionPermit,
            PlacePermit,
            Option<DeliveryQuota>,
        ),
        log: SocketLog,
    ) -> Self {
        let now = Instant::now();
        let user = consumers.principal().user();
        let instance_id = group_instance_id(user.map(|user| &**user), &params.client_id);
        let subscription = Subscription {
            group: params.group_id.as_str().into(),
            topics: params.topics.iter().map(|t| t.as_str().into()).collect(),
            instance_id: Some(instance_id.into()),
            client_id: params.client_id.as_str().into(),
            reset: params.offset_reset_strategy,
            isolation: params.isolation_level,
            start,
        };
        let bytes_max = config.server.websocket.send_buffer;
        let handle = Arc::clone(connection_permit.handle());
        Self {
            topics: CountedTopics::new(&subscription.topics, log.metrics()),
            consumer: consumers.join(subscription, Arc::clone(&handle.wake)),
            session: SocketSession::new(stream, handle, config, WRITE_BUFFER_KEEP_MAX),
            format,
            avro_commits,
            chunk: None,
            sink: RecordSink::new(params.batch_size.filter(|n| *n > 0), bytes_max, now),
            rate: DeliveryRate::new(params.rate, quota, now),
            offsets: OffsetTracker::new(params.auto_commit, &config.commits),
            turn: TaskTurn::default(),
            log,
            place_permit,
            _connection_permit: connection_permit,
        }
    }

    /// Serves the socket to its end.
    pub(super) async fn run(mut self) {
        let reason = match self.serve().await {
            Ok(reason) | Err(reason) => reason,
        };
        // Committed before the close frame: the client may be back at once, under the same
        // id.
        let committed = timeout(LAST_COMMIT_TIMEOUT, self.commit_last());
        if !matches!(Box::pin(committed).await, Ok(Ok(()))) {
            debug!("the last commit failed; its records are delivered again");
        }
        self.place_permit.release();
        let reason = match self.complete_frame(&reason).await {
            Ok(()) => reason,
            Err(lost) => lost,
        };
        drop(self.chunk);
        let (consumer, session) = (self.consumer, self.session);
        let records = self.offsets.records_delivered();
        // The group gets the partitions back while the client is closed. Boxed: the task of
        // an open socket has no room for what only its end needs.
        let closing = async { tokio::join!(consumer.close(), session.close(&reason)) };
        Box::pin(closing).await;
        self.log.close(&reason, records);
    }

    /// Puts the rest of a frame that is partly sent before the close frame.
    async fn complete_frame(&mut self, reason: &CloseReason) -> Result<(), CloseReason> {
        let Some(chunk) = &mut self.chunk else {
            return Ok(());
        };
        if chunk.awaits_reread() && reason.close_frame().is_some() {
            let (session, consumer) = (&self.session, &self.consumer);
            let wake = &session.handle().wake;
            let reread = async {
                session.writable().await?;
                while !chunk.reread_frame(consumer, wake)? {
                    wake.notified().await;
                }
                Ok::<_, CloseReason>(())
            };
            match Box::pin(timeout(CLOSE_SEND_TIMEOUT, reread)).await {
                Ok(reread) => reread?,
                Err(_) => return Err(CloseReason::FrameLost),
            }
        }
        self.session.out.prepend(chunk.rest_of_frame());
        Ok(())
    }

    async fn serve(&mut self) -> Result<CloseReason, CloseReason> {
        let handle = Arc::clone(self.session.handle());
        let timer = sleep_until(self.session.next_check_at());
        tokio::pin!(timer);
        loop {
            self.session.handle_signals()?;
            let all_taken = self.handle_messages().await?;
            let progress = self.take_turn()?;
            if !all_taken && self.session.has_room() {
                handle.wake.notify();
            }
            if progress == SendProgress::Blocked {
                self.release_blocked_chunk(Instant::now());
            }
            set_timer(timer.as_mut(), self.next_due_at(progress));
            if progress == SendProgress::TurnOver {
                // Other tasks get a turn, and so do the client's messages and the timer:
                // select! picks at random among what is ready.
                handle.wake.notify();
                yield_now().await;
            }
            tokio::select! {
                // Records, events of the group, signals: the next round finds them.
                () = handle.wake.notified() => {}
                ready = self.session.writable(), if progress == SendProgress::Blocked => ready?,
                ready = self.session.readable(), if self.may_read() => {
                    ready?;
                    let steps = self.session.read_available()?;
                    self.turn.spend(steps).await;
                }
                look_up = self.avro_commits.looked_up(), if self.avro_commits.is_waiting() => {
                    self.take_waiting(look_up);
                }
                () = &mut timer => self.on_timer()?,
            }
        }
    }

    /// Whether a message that comes now could be taken.
    fn may_read(&self) -> bool {
        self.session.has_room() && self.avro_commits.has_room()
    }

    /// Takes the messages that have been read, while there is room; whether those were all.
    async fn handle_messages(&mut self) -> Result<bool, CloseReason> {
        loop {
            if self.take_message().await? {
                self.turn.spend(1).await;
                continue;
            }
            let control_frames = self.session.take_control_frames();
            self.turn.spend(control_frames).await;
            if control_frames < STEPS_PER_TURN || !self.session.has_room() {
                return Ok(self.session.has_room());
            }
        }
    }

    /// Handles the next message of what has been read, which is to be a commit or a command; whether
    /// there is one.
    async fn take_message(&mut self) -> Result<bool, CloseReason> {
        match self.format {
            FrameFormat::Json(_) => {
                let Some(text) = self.session.next_text().await? else {
                    return Ok(false);
                };
                let message = text.as_bytes();
                let read = match LONG_COMMITS.is_long(message.len()) {
                    // Boxed: the task of an open socket has no room for what it seldom needs.
                    true => {
                        Box::pin(LONG_COMMITS.run(message.len(), || commit::parse(message))).await
                    }
                    false => commit::parse(message),
                };
                match read {
                    // Boxed, as above.
                    Ok(CommitOrCommand::Command(command)) => {
                        Box::pin(self.answer(&command, message.len())).await;
                    }
                    Ok(CommitOrCommand::Commit(commit)) => self.commit(Ok(commit)),
                    Err(rejection) => self.commit(Err(rejection)),
                }
            }
            FrameFormat::Avro(_) => {
                if !self.avro_commits.has_room() {
                    return Ok(false);
                }
                match self.session.next_data().await? {
                    None => return Ok(false),
                    Some(DataMessage::Binary(message)) => self.take_avro(message),
                    // Boxed: the task of an open socket has no room for what it seldom needs.
                    Some(DataMessage::Text(text)) => Box::pin(self.take_text(text)).await?,
                }
            }
        }
        Ok(true)
    }

    /// Answers a message beside those in Avro, which must be a command.
    async fn take_text(&mut self, text: Utf8Bytes) -> Result<(), CloseReason> {
        let text = text.as_bytes();
        let read = LONG_COMMITS.run(text.len(), || command::parse(text)).await;
        let command = read.ok_or_else(session::text_is_no_command)?;
        self.answer(&command, text.len()).await;
        Ok(())
    }

    /// Answers a command, which stands in a message of so many bytes: between two records.
    async fn answer(&mut self, command: &CommandMessage<'_>, message_bytes: usize) {
        let begun = LONG_COMMITS.run(message_bytes, || commands::begin(command));
        let answer = begun.await.finish(command, &mut self.session).await;
        self.session.out.append_message(Opcode::Text, answer.text());
    }

    /// Handles a message in Avro, or has it wait for its schema.
    fn take_avro(&mut self, message: Bytes) {
        let Some(message) = self.avro_commits.wait(message) else {
            return;
        };
        match self.avro_commits.read(&message) {
            CommitRead::Commit(commit) => self.commit(commit),
            CommitRead::UnknownSchema(id) => self.avro_commits.look_up(id, message),
        }
    }

    /// Handles what has waited for a schema.
    fn take_waiting(&mut self, look_up: SchemaLookUp) {
        let mut messages = look_up.messages.into_iter();
        if let Some(rejection) = look_up.rejection {
            messages.next();
            self.commit(Err(rejection));
        }
        messages.for_each(|message| self.take_avro(message));
    }

    /// Handles all commits that were sent, then commits.
    async fn commit_last(&mut self) -> Result<(), CommitError> {
        while self.avro_commits.is_waiting() {
            let look_up = self.avro_commits.looked_up().await;
            self.take_waiting(look_up);
        }
        self.consumer.commit().await
    }

    /// Handles a client's commit.
    fn commit(&mut self, commit: Result<CommitMessage<'_>, CommitRejection<'_>>) {
        let Err(rejection) = self.offsets.handle_commit(&mut self.consumer, commit) else {
            return;
        };
        let CommitRejection {
            code,
            message,
            echoed_id,
        } = rejection;
        self.session.out.append_text(|payload| {
            socket_error::write_error(payload, code, message, echoed_id);
        });
    }

    /// Sends what is here, and takes more while there is more, for one turn. Unless it
    /// returns [`SendProgress::TurnOver`], the wake signal is notified when there is more.
    fn take_turn(&mut self) -> Result<SendProgress, CloseReason> {
        let mut turn_bytes = 0;
        for _ in 0..CHUNKS_PER_TURN {
            let now = Instant::now();
            let progress = self.deliver(now, &mut turn_bytes)?;
            let event = match progress {
                SendProgress::AllSent => self.consumer.try_next(),
                // Records could not be taken.
                SendProgress::TurnOver
                | SendProgress::Blocked
                | SendProgress::AwaitingFrames
                | SendProgress::RateLimited(_) => self.consumer.try_next_except_records(),
            };
            match event {
                None => return Ok(progress),
                Some(event) => self.handle_event(event, now)?,
            }
        }
        Ok(SendProgress::TurnOver)
    }

    /// How records become frames. Those that go into arrays are compressed with their array.
    fn encoding(&self) -> FrameEncoding {
        FrameEncoding {
            format: self.format,
            deflate: match self.sink {
                RecordSink::SingleFrames(_) => self.session.out.deflate(),
                RecordSink::Arrays(_) => None,
            },
        }
    }

    fn handle_event(&mut self, event: ConsumerEvent, now: Instant) -> Result<(), CloseReason> {
        match event {
            ConsumerEvent::Records(records) => {
                self.chunk = Some(OutgoingChunk::new(records, self.encoding(), now));
            }
            ConsumerEvent::Assigned(partitions) => debug!(?partitions, "assigned"),
            ConsumerEvent::Revoked(revocation) => {
                self.revoke_partitions(revocation.partitions(), now)?;
                self.consumer.release(revocation);
            }
            ConsumerEvent::Lost(partitions) => {
                self.log.partitions_lost(&partitions);
                self.revoke_partitions(&partitions, now)?;
            }
            ConsumerEvent::Closed(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Commits, closes a client that takes nothing, pings an idle one, frees a buffer.
    fn on_timer(&mut self) -> Result<(), CloseReason> {
        let now = Instant::now();
        self.offsets.commit_if_due(&mut self.consumer, now);
        self.session.check(now, self.avro_commits.has_room())?;
        if self.chunk.is_none() {
            self.sink.shrink();
        }
        Ok(())
    }

    /// The kernel takes nothing more: releases the chunk under way if that has lasted, or others
    /// need its memory.
    fn release_blocked_chunk(&mut self, now: Instant) {
        let held = self.chunk.as_ref().filter(|chunk| chunk.is_held());
        let Some((chunk, blocked_since)) = held.zip(self.session.blocked_since()) else {
            return;
        };
        let blocked = BlockedChunk {
            since: chunk.since,
            blocked_since,
            memory_awaited_since: self.memory_awaited_since(),
        };
        if blocked.must_be_released(now) {
            self.release_chunk(0);
        }
    }

    /// When [`on_timer`](Self::on_timer) or [`deliver`](Self::deliver) has something to do.
    fn next_due_at(&self, progress: SendProgress) -> Instant {
        let holds_chunk = self.chunk.as_ref().is_some_and(OutgoingChunk::is_held);
        let also_due_at = match progress {
            SendProgress::AllSent | SendProgress::AwaitingFrames | SendProgress::TurnOver => {
                self.sink.due_at()
            }
            SendProgress::RateLimited(until) => {
                // Whether others need its memory is looked at then.
                let look_at = holds_chunk.then(|| Instant::now() + RELEASE_CHUNK_AFTER);
                let due = [self.sink.due_at(), look_at].into_iter().flatten();
                Some(due.fold(until, Instant::min))
            }
            // An array that is due is sent when the kernel takes bytes again.
            SendProgress::Blocked => {
                let since = self.session.blocked_since().filter(|_| holds_chunk);
                since.map(|since| since + RELEASE_CHUNK_AFTER)
            }
        };
        [self.offsets.next_commit_at(), also_due_at]
            .into_iter()
            .flatten()
            .fold(self.session.next_check_at(), Instant::min)
    }
}

/// A chunk that is held while the kernel takes nothing more of it.
struct BlockedChunk {
    since: Instant,
    blocked_since: Instant,
    memory_awaited_since: Option<Instant>,
}

impl BlockedChunk {
    /// A client that takes little at a time is not blocked for long, and may keep a chunk that
    /// nobody else needs the memory of.
    fn must_be_released(&self, now: Instant) -> bool {
        let has_passed = |since: Instant| now >= since + RELEASE_CHUNK_AFTER;
        let is_needed = self.memory_awaited_since.is_some_and(has_passed);
        has_passed(self.blocked_since)
            || (is_needed && has_passed(self.since))
            || now >= self.since + CHUNK_HELD_MAX
    }
}

#[cfg(test)]
mod tests;
