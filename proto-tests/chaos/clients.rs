//! The clients: sockets that produce or consume, part on command, and come back.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::history::{RecordId, SendResult};
use super::recorder::Recorder;
use super::scene::{ClientScene, GroupScene, partitions};
use super::schedule::Parting;
use crate::support::PATIENCE;
use crate::support::random::XorShift;

/// How long a client waits before it tries again to connect.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
/// Pauses between the records of one producing client.
const RECORD_PAUSE: (Duration, Duration) = (Duration::from_millis(30), Duration::from_millis(200));
/// Records that a producing client has under way.
const UNANSWERED_MAX: usize = 64;
/// A client that commits itself does so after this many records, or this long after the last.
const COMMIT_EVERY: usize = 4;
const COMMIT_AFTER: Duration = Duration::from_millis(300);

/// What a client is to do. When nobody is left to send commands, it finishes.
#[derive(Clone, Copy, Debug)]
pub(super) enum ClientCommand {
    Connect,
    Disconnect(Parting),
    /// Read nothing for so long.
    Stall(Duration),
}

type ClientStream = WebSocketStream<TcpStream>;

/// A consuming client. It begins disconnected.
pub(super) struct ConsumingClient {
    pub(super) scene: ClientScene,
    pub(super) group: GroupScene,
    pub(super) address: String,
    pub(super) recorder: Arc<Recorder>,
    pub(super) commands: mpsc::Receiver<ClientCommand>,
}

impl ConsumingClient {
    pub(super) async fn run(mut self) {
        while let Some(command) = self.commands.recv().await {
            if matches!(command, ClientCommand::Connect) {
                self.stay_connected().await;
            }
        }
    }

    /// Until another command comes.
    async fn stay_connected(&mut self) {
        let GroupScene {
            name,
            topics,
            auto_commit,
        } = &self.group;
        let path = format!(
            "/socket/out?topic={}&clientId={}&groupId={name}&autoCommit={auto_commit}",
            topics.join(","),
            self.scene.name,
        );
        loop {
            // Not given up half-way: the server may be sending records already.
            let stream = open(&self.address, &path, &self.recorder).await;
            match self.consume(stream).await {
                Ok(()) => return,
                Err(reason) => self.recorder.closed_by_server(&self.scene.name, reason),
            }
        }
    }

    /// Reads until it is to part; an error says how the server ended the connection.
    async fn consume(&mut self, mut stream: ClientStream) -> Result<(), String> {
        let mut uncommitted = NewestUncommitted::default();
        loop {
            let idle = sleep(COMMIT_AFTER);
            tokio::select! {
                message = stream.next() => {
                    let record = text_of(message)?;
                    self.take(record, &mut uncommitted);
                    if uncommitted.count >= COMMIT_EVERY {
                        uncommitted.commit(&mut stream).await;
                    }
                }
                () = idle, if uncommitted.count > 0 => uncommitted.commit(&mut stream).await,
                command = self.commands.recv() => match command {
                    Some(ClientCommand::Connect) => {}
                    Some(ClientCommand::Stall(pause)) => sleep(pause).await,
                    Some(ClientCommand::Disconnect(parting)) => {
                        return self.part(stream, parting).await;
                    }
                    None => return self.part(stream, Parting::Close).await,
                },
            }
        }
    }

    /// Ends the connection. With `autoCommit` whatever has reached the kernel is committed: of
    /// such a client the oracle could not tell what it lost by vanishing from what was
    /// skipped, so it always closes.
    async fn part(&mut self, mut stream: ClientStream, parting: Parting) -> Result<(), String> {
        if parting == Parting::Vanish && !self.group.auto_commit {
            return Ok(());
        }
        // An error shows in what is read.
        let _ = stream.close(None).await;
        let reading = async {
            while let Ok(record) = text_of(stream.next().await) {
                self.take(record, &mut NewestUncommitted::default());
            }
        };
        let ended = timeout(PATIENCE, reading).await;
        ended.map_err(|_| "the connection stays open after a close frame".to_owned())
    }

    fn take(&self, record: Option<Value>, uncommitted: &mut NewestUncommitted) {
        // A commit that came too late is answered by an error.
        if let Some(record) = record.filter(|record| record["error"].is_null()) {
            self.recorder
                .received(&self.group.name, &self.scene.name, &record);
            if !self.group.auto_commit {
                uncommitted.add(&record);
            }
        }
    }
}

/// The newest record of each partition that a client has not committed yet.
#[derive(Default)]
struct NewestUncommitted {
    newest: HashMap<(String, i64), String>,
    count: usize,
}

impl NewestUncommitted {
    fn add(&mut self, record: &Value) {
        let topic = record["topic"].as_str().unwrap().to_owned();
        let partition = record["partition"].as_i64().unwrap();
        let id = record["wsProxyMessageId"].as_str().unwrap().to_owned();
        self.newest.insert((topic, partition), id);
        self.count += 1;
    }

    async fn commit(&mut self, stream: &mut ClientStream) {
        self.count = 0;
        for (_, id) in self.newest.drain() {
            let commit = json!({ "wsProxyMessageId": id }).to_string();
            // An error shows in what is read.
            let _ = stream.send(Message::text(commit)).await;
        }
    }
}

/// A producing client. It connects at once.
pub(super) struct ProducingClient {
    pub(super) name: String,
    pub(super) topic: &'static str,
    pub(super) address: String,
    pub(super) recorder: Arc<Recorder>,
    pub(super) random: XorShift,
    pub(super) commands: mpsc::Receiver<ClientCommand>,
}

/// One connection of a producing client.
struct ProducingConnection {
    stream: ClientStream,
    number: u32,
    sequence: u32,
    /// Places of the records that were not answered yet, the oldest first.
    unanswered: VecDeque<usize>,
}

impl ProducingClient {
    /// When it is to finish it writes one more record to each partition, and waits for
    /// every answer.
    pub(super) async fn run(mut self) {
        let path = format!("/socket/in?topic={}&keyType=string", self.topic);
        loop {
            let mut connection = ProducingConnection {
                stream: open(&self.address, &path, &self.recorder).await,
                number: self.recorder.next_connection(),
                sequence: 0,
                unanswered: VecDeque::new(),
            };
            let ended = self.produce(&mut connection).await;
            for place in connection.unanswered {
                self.recorder.answered(place, SendResult::Unknown);
            }
            match ended {
                Ok(true) => return,
                Ok(false) => {}
                Err(reason) => self.recorder.closed_by_server(&self.name, reason),
            }
        }
    }

    /// Writes records until it is to part, or (then `true`) to finish.
    async fn produce(&mut self, connection: &mut ProducingConnection) -> Result<bool, String> {
        let mut next = Instant::now();
        loop {
            let may_send = connection.unanswered.len() < UNANSWERED_MAX;
            tokio::select! {
                message = connection.stream.next() => self.take(text_of(message)?, connection),
                () = sleep_until(next), if may_send => {
                    let record = self.next_record(connection.sequence);
                    self.send(connection, record).await;
                    next = Instant::now() + self.random.between(RECORD_PAUSE.0, RECORD_PAUSE.1);
                }
                command = self.commands.recv() => match command {
                    Some(ClientCommand::Disconnect(Parting::Vanish)) => return Ok(false),
                    Some(ClientCommand::Disconnect(Parting::Close)) => {
                        self.close(connection).await?;
                        return Ok(false);
                    }
                    Some(_) => {}
                    None => break,
                },
            }
        }
        for partition in 0..partitions(self.topic) {
            self.send(connection, json!({ "partition": partition }))
                .await;
        }
        while !connection.unanswered.is_empty() {
            let message = connection.stream.next().await;
            self.take(text_of(message)?, connection);
        }
        self.close(connection).await?;
        Ok(true)
    }

    /// By partition, by key, or by neither.
    fn next_record(&mut self, sequence: u32) -> Value {
        match sequence % 3 {
            0 => {
                let partitions = partitions(self.topic) as usize;
                json!({ "partition": self.random.below(partitions) })
            }
            1 => json!({ "key": { "value": format!("k{}", self.random.below(10)) } }),
            _ => json!({}),
        }
    }

    async fn send(&self, connection: &mut ProducingConnection, mut record: Value) {
        let id = RecordId {
            connection: connection.number,
            sequence: connection.sequence,
        };
        let (value, place) = self.recorder.sending(id, self.topic);
        connection.sequence += 1;
        connection.unanswered.push_back(place);
        record["value"] = json!({ "value": value });
        record["messageId"] = json!(id.sequence.to_string());
        // An error shows in what is read.
        let message = Message::text(record.to_string());
        let _ = connection.stream.send(message).await;
    }

    /// Answers come in the order in which the records were sent.
    fn take(&self, answer: Option<Value>, connection: &mut ProducingConnection) {
        let Some(answer) = answer else { return };
        let sequence = answer["messageId"].as_str().unwrap();
        let due = connection.sequence - connection.unanswered.len() as u32;
        assert_eq!(
            sequence,
            due.to_string(),
            "an answer out of order: {answer}"
        );
        let place = connection.unanswered.pop_front().unwrap();
        let result = match answer["error"]["code"].as_str() {
            Some("unknown_outcome") => SendResult::Unknown,
            Some(_) => SendResult::Failed(answer["error"].to_string()),
            None => SendResult::Acknowledged {
                partition: answer["partition"].as_i64().unwrap() as i32,
                offset: answer["offset"].as_i64().unwrap(),
            },
        };
        self.recorder.answered(place, result);
    }

    async fn close(&self, connection: &mut ProducingConnection) -> Result<(), String> {
        let _ = connection.stream.close(None).await;
        let reading = async {
            while let Ok(answer) = text_of(connection.stream.next().await) {
                self.take(answer, connection);
            }
        };
        let ended = timeout(PATIENCE, reading).await;
        ended.map_err(|_| "the connection stays open after a close frame".to_owned())
    }
}

/// Connects, as often as it takes: a server may refuse while its brokers are away.
async fn open(address: &str, path: &str, recorder: &Recorder) -> ClientStream {
    loop {
        let request = format!("ws://{address}{path}").into_client_request();
        let stream = TcpStream::connect(address).await.unwrap();
        let error = match client_async(request.unwrap(), stream).await {
            Ok((stream, _)) => return stream,
            Err(Error::Http(response)) => {
                let body = response.body().as_deref().unwrap_or_default();
                let body: Value = serde_json::from_slice(body).unwrap();
                format!("{} {}", response.status(), body["message"])
            }
            Err(error) => error.to_string(),
        };
        recorder.refused(error);
        sleep(RECONNECT_PAUSE).await;
    }
}

/// The JSON of a text message, `None` of others; an error is the connection's end.
fn text_of(message: Option<Result<Message, Error>>) -> Result<Option<Value>, String> {
    match message {
        Some(Ok(Message::Text(text))) => Ok(Some(serde_json::from_str(&text).unwrap())),
        Some(Ok(Message::Close(Some(frame)))) => Err(format!("{} {}", frame.code, frame.reason)),
        Some(Ok(Message::Close(None))) => Err("a close frame without a code".to_owned()),
        Some(Ok(_)) => Ok(None),
        Some(Err(error)) => Err(error.to_string()),
        None => Err("the connection ended".to_owned()),
    }
}
