//! `/socket/in`: messages to records, and their acks to messages; commands, answered in their place
//! among the acks. One task per socket.
//!
//! ```text
//! client ─▶ message ─▶ codec::inbound ─▶ Producer::try_send ─▶ PendingAcks (in order)
//!   ▲  └── paused while acks, or the producer's memory, are full ┘      │
//!   └─────────── one write for all acks that are ready ◀──────────────┘
//! ```
//!
//! # Invariants
//! - Records are parsed where they were read, and copied once: into their batch.
//! - Whatever has to wait (for the producer's memory, for pending acks, for a client that
//!   does not read its acks, for metadata that knows a partition) pauses the reading of this
//!   socket, and nothing else.
//! - A long record waits for the long ones that other sockets have read before, one of each, and
//!   for nothing else; no short one waits for it, but those behind it on its socket.
//! - No record is refused for its partition by metadata that is older than the record.
//! - Every record that was taken is acked before our close frame, within five seconds after
//!   a client's close, within the grace when the server stops. The end of the stream without
//!   a close frame (a FIN) is such a close.
//! - Of a transactional socket each message is written in one transaction, or not at all.
//! - A client that takes no acks any more (its end is closed altogether) is read to the end of
//!   what it sent before.

mod avro_messages;
mod pending_acks;
mod transactions;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::future::OptionFuture;
use tokio::time::{Duration, Instant, sleep_until, timeout};

use super::close::CloseReason;
use super::commands;
use super::session::{self, DataMessage, SocketSession, set_timer};
use super::socket_log::SocketLog;
use super::stream::WebSocketStream;
use super::turn::{self, BYTES_PER_TURN, STEPS_PER_TURN, TaskTurn};
use crate::codec::RecordFormats;
use crate::codec::avro::framing::AvroFraming;
use crate::codec::command::{self, CommandMessage};
use crate::codec::inbound::{InboundRecord, LONG_RECORD_BYTES, ProduceMessage, RecordRejection};
use crate::config::Config;
use crate::quotas::{RecordQuota, ReservedRecords};
use crate::session::PlacePermit;
use crate::session::registry::ConnectionPermit;
pub(super) use avro_messages::AvroMessages;
use avro_messages::MessageRead;
use kafka_client::metadata::TopicMetadata;
use kafka_client::producer::{DeliveryFuture, ProduceError, Producer};
use kafka_client::record::NewRecord;
use pending_acks::{AckState, MessagePosition, PendingAcks, error_code};
use runtime::long_work::LongWork;
use transactions::NOT_WHOLE;
pub(super) use transactions::SocketTransactions;
use websocket::frame::Utf8Bytes;

/// How long the acks still due may take after a client's close.
const LAST_ACKS_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of records whose acks are pending, in send buffers.
const PENDING_BUFFERS: usize = 16;

/// Bytes of an array that are checked at once when it is long.
const CHECKED_AT_ONCE: usize = 1 << 20;

/// Reading long records, of all sockets.
static LONG_RECORDS: LongWork = LongWork::from_bytes(LONG_RECORD_BYTES);

/// A record of a message, or why it is none.
type ParsedRecord<'m> = Result<InboundRecord<'m>, RecordRejection<'m>>;
/// What came of trying to send it, if that was done. Boxed: the task of an open socket has no room
/// for what it seldom needs.
type SendTried = Option<Box<Result<Option<DeliveryFuture>, ProduceError>>>;

/// What the messages of a producing socket are.
#[derive(Debug)]
pub(super) enum MessageFormat {
    /// JSON, with keys and values in these formats.
    Json(RecordFormats),
    /// Avro.
    Avro(AvroMessages),
}

/// One producing client.
pub(super) struct ProducingSocket {
    session: SocketSession,
    producer: Producer,
    topic: Arc<TopicMetadata>,
    format: MessageFormat,
    acks: PendingAcks,
    /// With `transactional=true`.
    transactions: Option<Box<SocketTransactions>>,
    /// How many records the client may write.
    quota: Option<Box<RecordQuota>>,
    scratch: Vec<u8>,
    turn: TaskTurn,
    /// Records that were taken.
    records: u64,
    log: SocketLog,
    /// How long the acks still due may take when the server stops.
    shutdown_grace: Duration,
    place_permit: PlacePermit,
    /// Released when the socket ends.
    _connection_permit: ConnectionPermit,
}

impl ProducingSocket {
    pub(super) fn new(
        config: &Config,
        (producer, transactions): (Producer, Option<SocketTransactions>),
        stream: WebSocketStream,
        format: MessageFormat,
        topic: Arc<TopicMetadata>,
        (connection_permit, place_permit, quota): (
            ConnectionPermit,
            PlacePermit,
            Option<RecordQuota>,
        ),
        log: SocketLog,
    ) -> Self {
        let write_buffer_max = config.server.websocket.send_buffer;
        let handle = Arc::clone(connection_permit.handle());
        Self {
            acks: PendingAcks::new(
                topic.name.clone(),
                Arc::clone(log.metrics()),
                match &format {
                    MessageFormat::Json(_) => AvroFraming::Plain,
                    MessageFormat::Avro(messages) => messages.framing,
                },
                write_buffer_max.saturating_mul(PENDING_BUFFERS),
            ),
            producer,
            transactions: transactions.map(Box::new),
            quota: quota.map(Box::new),
            // The buffer of a busy socket is kept, until its timer fires.
            session: SocketSession::new(stream, handle, config, usize::MAX),
            topic,
            format,
            scratch: Vec::new(),
            turn: TaskTurn::default(),
            records: 0,
            log,
            shutdown_grace: config.server.shutdown_grace,
            place_permit,
            _connection_permit: connection_permit,
        }
    }

    /// Serves the socket to its end.
    pub(super) async fn run(mut self) {
        let reason = match self.serve().await {
            Ok(reason) | Err(reason) => reason,
        };
        let last_acks_max = match &reason {
            CloseReason::PeerClosed(_)
            | CloseReason::HalfClosed
            | CloseReason::AuthenticationExpired
            | CloseReason::Fail(_) => LAST_ACKS_TIMEOUT,
            // The server cuts what is left when the grace is over.
            CloseReason::ServerStopping { .. } => self.shutdown_grace,
            CloseReason::ConnectionLost
            | CloseReason::PingTimeout
            | CloseReason::FrameLost
            | CloseReason::SlowClient => Duration::ZERO,
        };
        let transactions = self.transactions.take();
        self.acks.end_aborted(NOT_WHOLE);
        if !last_acks_max.is_zero() {
            // Boxed: the task of an open socket has no room for what only its end needs.
            let ended = transactions.map(|transactions| Box::pin(transactions.end(&reason)));
            let acked = async {
                let acked = tokio::join!(self.send_all_acks(), OptionFuture::from(ended));
                acked.0
            };
            if let Ok(Err(lost)) = timeout(last_acks_max, acked).await {
                return self.log.close(&lost, self.records);
            }
        }
        self.place_permit.release();
        // Boxed: the task of an open socket has no room for what only its end needs.
        Box::pin(self.session.close(&reason)).await;
        self.log.close(&reason, self.records);
    }

    async fn serve(&mut self) -> Result<CloseReason, CloseReason> {
        let handle = Arc::clone(self.session.handle());
        let timer = sleep_until(self.session.next_check_at());
        tokio::pin!(timer);
        loop {
            self.session.handle_signals()?;
            let all_taken = self.handle_messages().await?;
            self.send_ready_acks().await?;
            let reading = self.may_read();
            if reading && !all_taken {
                continue;
            }
            let acking = self.session.has_room() && !self.acks.is_empty();
            let writing = self.session.has_unsent();
            set_timer(timer.as_mut(), self.session.next_check_at());
            tokio::select! {
                biased;
                // A signal: the next round finds it.
                () = handle.wake.notified() => {}
                () = self.acks.ready(), if acking => {}
                ready = self.session.writable(), if writing => ready?,
                reason = failed(&self.transactions) => return Ok(reason),
                ready = self.session.readable(), if reading => {
                    ready?;
                    let steps = self.session.read_available()?;
                    self.turn.spend(steps).await;
                }
                () = &mut timer => self.on_timer(reading)?,
            }
        }
    }

    /// Whether a record that comes now could be acked.
    fn may_read(&self) -> bool {
        self.acks.has_room() && self.session.has_room()
    }

    /// Takes the messages that have been read, while there is room; whether those were all.
    async fn handle_messages(&mut self) -> Result<bool, CloseReason> {
        while self.may_read() {
            if self.take_message().await? {
                self.turn.spend(1).await;
                continue;
            }
            let control_frames = self.session.take_control_frames();
            self.turn.spend(control_frames).await;
            if control_frames < STEPS_PER_TURN && self.session.has_room() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes the next message; whether there was one.
    async fn take_message(&mut self) -> Result<bool, CloseReason> {
        match self.format {
            MessageFormat::Json(formats) => match self.session.next_text().await? {
                None => return Ok(false),
                Some(text) => self.produce(formats, text.as_bytes()).await?,
            },
            MessageFormat::Avro(_) => match self.session.next_data().await? {
                None => return Ok(false),
                Some(DataMessage::Binary(message)) => self.produce_binary(&message).await?,
                // Boxed: the task of an open socket has no room for what it seldom needs.
                Some(DataMessage::Text(text)) => Box::pin(self.take_text(text)).await?,
            },
        }
        Ok(true)
    }

    /// Answers a message beside those in Avro, which must be a command.
    async fn take_text(&mut self, text: Utf8Bytes) -> Result<(), CloseReason> {
        let text = text.as_bytes();
        let read = LONG_RECORDS.run(text.len(), || command::parse(text)).await;
        let command = read.filter(|command| !command.has("value"));
        let command = command.ok_or_else(session::text_is_no_command)?;
        self.answer(&command, text.len()).await;
        Ok(())
    }

    /// Answers a command, which stands in a message of so many bytes.
    async fn answer(&mut self, command: &CommandMessage<'_>, message_bytes: usize) {
        let begun = LONG_RECORDS.run(message_bytes, || commands::begin(command));
        let answer = begun.await.finish(command, &mut self.session).await;
        self.acks.push_answer(answer);
    }

    /// Produces the records of one message, or answers the command that it is.
    async fn produce(&mut self, formats: RecordFormats, payload: &[u8]) -> Result<(), CloseReason> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut message = ProduceMessage::begin(formats, payload, &mut scratch);
        if LONG_RECORDS.is_long(payload.len()) && !message.is_checked() {
            // Boxed: the task of an open socket has no room for what it seldom needs.
            Box::pin(check_long(&mut message, payload.len())).await;
        }
        while !message.check_some(STEPS_PER_TURN as usize, BYTES_PER_TURN) {
            self.turn.spend(STEPS_PER_TURN).await;
        }
        if message.is_array() && message.is_empty() {
            // Acked in order: after the records before it.
            self.send_all_acks().await?;
            self.session
                .out
                .append_text(|payload| payload.extend_from_slice(b"[]"));
        }
        self.await_quota(message.len()).await?;
        let now = timestamp();
        let (len, is_array) = (message.len(), message.is_array());
        let (mut index, mut position_before) = (0_usize, 0);
        loop {
            let (record, tried) = if message.next_is_long() {
                let (socket, message) = (&*self, &mut message);
                let read = LONG_RECORDS.run(payload.len(), move || {
                    let record = message.next_record(&socket.topic.name)?;
                    Some(socket.try_send_read(record, now))
                });
                match Box::pin(read).await {
                    Some(read) => read,
                    None => break,
                }
            } else {
                match message.next_record(&self.topic.name) {
                    Some(record) => (record, None),
                    None => break,
                }
            };
            let position = match is_array {
                false => MessagePosition::Single,
                true => MessagePosition::ArrayElement {
                    first: index == 0,
                    last: index + 1 == len,
                },
            };
            index += 1;
            self.take(record, tried, position, now).await?;
            if index.is_multiple_of(STEPS_PER_TURN as usize) {
                self.send_ready_acks().await?;
            }
            // What is written as a whole is answered as a whole.
            while self.transactions.is_none() && !self.may_read() {
                self.send_some_acks().await?;
            }
            let before = std::mem::replace(&mut position_before, message.position());
            let steps = turn::steps_of_record(position_before - before);
            self.turn.spend(steps).await;
        }
        self.end_message();
        if let Some(command) = message.command() {
            if let Some(quota) = &self.quota {
                quota.give_back(1);
            }
            // Boxed: the task of an open socket has no room for what it seldom needs.
            Box::pin(self.answer(&command, payload.len())).await;
        }
        self.scratch = scratch;
        Ok(())
    }

    /// Produces the record of one message in Avro.
    async fn produce_binary(&mut self, message: &[u8]) -> Result<(), CloseReason> {
        self.await_quota(1).await?;
        let now = timestamp();
        let (record, tried) = loop {
            let MessageFormat::Avro(messages) = &self.format else {
                return Ok(());
            };
            let read = if LONG_RECORDS.is_long(message.len()) {
                let read = || match messages.read(message) {
                    MessageRead::Record(record) => Ok(self.try_send_read(record, now)),
                    MessageRead::UnknownSchema(id) => Err(id),
                };
                Box::pin(LONG_RECORDS.run(message.len(), read)).await
            } else {
                match messages.read(message) {
                    MessageRead::Record(record) => Ok((record, None)),
                    MessageRead::UnknownSchema(id) => Err(id),
                }
            };
            match read {
                Ok(read) => break read,
                Err(unknown_schema) => {
                    // Boxed: the task of an open socket has no room for what it seldom needs.
                    let learnt = Box::pin(self.learn_schema(unknown_schema)).await?;
                    if let Err(rejection) = learnt {
                        break (Err(rejection), None);
                    }
                }
            }
        };
        self.take(record, tried, MessagePosition::Datum, now)
            .await?;
        self.end_message();
        Ok(())
    }

    /// Waits until the client's quota has so many records, which counts them. Acks go on being
    /// sent meanwhile; a record that still waits when the socket closes was not taken.
    async fn await_quota(&mut self, records: usize) -> Result<(), CloseReason> {
        let Some(quota) = self.quota.take_if(|quota| quota.is_limited()) else {
            return Ok(());
        };
        let mut reserved = quota.reserve(records);
        let waited = loop {
            if reserved.at() <= Instant::now() {
                break Ok(());
            }
            // Boxed: the task of an open socket has no room for what it seldom needs.
            if let Err(reason) = Box::pin(self.send_acks_before(&reserved)).await {
                break Err(reason);
            }
            if reserved.is_void() {
                reserved = quota.reserve(records);
            }
        };
        match waited {
            Ok(()) => reserved.take(),
            Err(_) => drop(reserved),
        }
        self.quota = Some(quota);
        waited
    }

    /// Sends acks until the turn of these records comes, or is void, or the socket is to close:
    /// nothing is read meanwhile.
    async fn send_acks_before(
        &mut self,
        reserved: &ReservedRecords<'_>,
    ) -> Result<(), CloseReason> {
        let (handle, at) = (Arc::clone(self.session.handle()), reserved.at());
        while Instant::now() < at && !reserved.is_void() {
            self.session.handle_signals()?;
            self.on_timer(false)?;
            let pending = !self.acks.is_empty() || self.session.has_unsent();
            tokio::select! {
                () = sleep_until(at.min(self.session.next_check_at())) => {}
                () = handle.wake.notified() => {}
                acked = self.send_some_acks(), if pending => acked?,
            }
        }
        Ok(())
    }

    /// Tries to send a long record as soon as it is read: that takes long, too.
    fn try_send_read<'m>(
        &self,
        record: ParsedRecord<'m>,
        now: i64,
    ) -> (ParsedRecord<'m>, SendTried) {
        let record_to_send = record.as_ref().ok();
        let tried = record_to_send.filter(|_| self.transactions.is_none());
        let tried = tried.map(|record| {
            let new = new_record(record, now);
            Box::new(self.producer.try_send(&self.topic, record.partition, &new))
        });
        (record, tried)
    }

    /// Looks up the schema with that id. Acks go on being sent meanwhile.
    async fn learn_schema(
        &mut self,
        id: u32,
    ) -> Result<Result<(), RecordRejection<'static>>, CloseReason> {
        let MessageFormat::Avro(messages) = &self.format else {
            return Ok(Ok(()));
        };
        let schemas = messages.schemas.clone();
        let schema = self.send_acks_during(schemas.producer_record(id)).await?;
        match &mut self.format {
            MessageFormat::Avro(messages) => Ok(messages.learn(id, schema)),
            MessageFormat::Json(_) => Ok(Ok(())),
        }
    }

    /// Produces a record, unless that was tried already, and notes that its ack is pending.
    async fn take(
        &mut self,
        record: ParsedRecord<'_>,
        tried: SendTried,
        position: MessagePosition,
        now: i64,
    ) -> Result<(), CloseReason> {
        self.records += 1;
        let record = match record {
            Ok(record) => record,
            Err(rejection) => {
                let error = (rejection.code, rejection.message.into_owned());
                let state = AckState::Rejected(Box::new(error));
                self.push(state, position, rejection.message_id, 0);
                return Ok(());
            }
        };
        let size = size(&record);
        let state = match &mut self.transactions {
            Some(transactions) => {
                let new = new_record(&record, now);
                transactions.add(&self.topic, record.partition, &new);
                AckState::Unsent
            }
            None => self.send(&record, tried, now).await?,
        };
        self.push(state, position, record.message_id, size);
        Ok(())
    }

    /// Notes that the ack of a record is pending, of `size` bytes.
    fn push(
        &mut self,
        state: AckState,
        position: MessagePosition,
        message_id: Option<&[u8]>,
        size: usize,
    ) {
        let Some(transactions) = &mut self.transactions else {
            return self.acks.push(state, position, message_id, size);
        };
        if matches!(state, AckState::Rejected(_)) {
            transactions.add_fault();
        }
        self.acks.push_unsent(state, position, message_id, size);
    }

    /// The message is read: in a transaction, its records are written, or none of them.
    fn end_message(&mut self) {
        if let Some(transactions) = &mut self.transactions {
            transactions.end_message(&mut self.acks);
        }
    }

    /// Sends a record by the producer. While that waits for memory, or to learn whether there
    /// is such a partition, acks go on being sent.
    async fn send(
        &mut self,
        record: &InboundRecord<'_>,
        tried: SendTried,
        now: i64,
    ) -> Result<AckState, CloseReason> {
        let new = new_record(record, now);
        let tried = match tried {
            Some(tried) => *tried,
            None => self.producer.try_send(&self.topic, record.partition, &new),
        };
        let sent = match tried {
            Ok(Some(delivery)) => return Ok(AckState::Sent(delivery)),
            // Boxed: the task of an open socket has no room for what it seldom needs.
            Ok(None) => Box::pin(self.send_when_possible(record.partition, &new)).await?,
            Err(ProduceError::InvalidPartition { partition, .. }) if partition >= 0 => {
                Box::pin(self.send_if_added(partition, &new)).await?
            }
            Err(error) => Err(error),
        };
        Ok(match sent {
            Ok(delivery) => AckState::Sent(delivery),
            Err(error) => AckState::Rejected(Box::new((error_code(&error), error.to_string()))),
        })
    }

    /// Sends a record when the producer has memory.
    async fn send_when_possible(
        &mut self,
        partition: Option<i32>,
        record: &NewRecord<'_>,
    ) -> Result<Result<DeliveryFuture, ProduceError>, CloseReason> {
        let (producer, topic) = (self.producer.clone(), self.topic.clone());
        self.send_acks_during(producer.send(&topic, partition, record))
            .await
    }

    /// Sends a record to a partition that was not known when the record was read, if there is
    /// one by now.
    async fn send_if_added(
        &mut self,
        partition: i32,
        record: &NewRecord<'_>,
    ) -> Result<Result<DeliveryFuture, ProduceError>, CloseReason> {
        let (producer, topic) = (self.producer.clone(), self.topic.clone());
        let read_at = self.session.read_at();
        let confirmed = producer.confirm_partition(&topic, partition, read_at);
        if let Err(error) = self.send_acks_during(confirmed).await? {
            return Ok(Err(error));
        }
        self.send_when_possible(Some(partition), record).await
    }

    /// Waits for `work`; sends acks meanwhile.
    async fn send_acks_during<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> Result<T, CloseReason> {
        tokio::pin!(work);
        loop {
            let pending = !self.acks.is_empty() || self.session.has_unsent();
            tokio::select! {
                done = &mut work => return Ok(done),
                acked = self.send_some_acks(), if pending => acked?,
            }
        }
    }

    /// Waits until an ack is ready, or the client takes some; sends them.
    async fn send_some_acks(&mut self) -> Result<(), CloseReason> {
        let acking = self.session.has_room() && !self.acks.is_empty();
        tokio::select! {
            () = self.acks.ready(), if acking => {}
            ready = self.session.writable_by_deadline() => ready?,
        }
        self.send_ready_acks().await
    }

    /// Waits until all acks are sent.
    async fn send_all_acks(&mut self) -> Result<(), CloseReason> {
        self.send_ready_acks().await?;
        while !self.acks.is_empty() || self.session.has_unsent() {
            self.send_some_acks().await?;
        }
        Ok(())
    }

    /// Sends the acks that are ready, as far as the client takes them.
    async fn send_ready_acks(&mut self) -> Result<(), CloseReason> {
        loop {
            let out_max = self.session.out_max();
            let out = &mut self.session.out;
            let deflate = out.deflate();
            out.append(|frames| self.acks.write_ready(frames, out_max, deflate));
            let had_room = self.session.has_room();
            let all = self.session.flush_or_drop();
            if !all || had_room {
                return Ok(());
            }
            // A write buffer is full of them.
            self.turn.spend(STEPS_PER_TURN).await;
        }
    }

    /// Closes a client that takes nothing, pings an idle one, frees memory.
    fn on_timer(&mut self, reading: bool) -> Result<(), CloseReason> {
        self.session.check(Instant::now(), reading)?;
        self.acks.shrink();
        if self.session.out.is_empty() {
            self.scratch = Vec::new();
        }
        Ok(())
    }
}

/// Until the transactions of a socket that has some have failed. Cancel-safe.
async fn failed(transactions: &Option<Box<SocketTransactions>>) -> CloseReason {
    match transactions {
        Some(transactions) => transactions.failed().await,
        None => std::future::pending().await,
    }
}

/// Checks an array that is long, a part of it at a time.
async fn check_long(message: &mut ProduceMessage<'_>, bytes: usize) {
    let mut is_checked = false;
    while !is_checked {
        let check = || message.check_some(usize::MAX, CHECKED_AT_ONCE);
        is_checked = LONG_RECORDS.run(bytes, check).await;
    }
}

fn new_record<'a>(record: &'a InboundRecord<'_>, now: i64) -> NewRecord<'a> {
    NewRecord {
        key: record.key,
        value: record.value,
        headers: &record.headers,
        timestamp: record.timestamp.unwrap_or(now),
    }
}

fn size(record: &InboundRecord<'_>) -> usize {
    record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len)
}

fn timestamp() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as i64)
}

#[cfg(test)]
mod tests;
