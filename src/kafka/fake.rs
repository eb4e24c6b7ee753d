//! A broker for the tests of this layer: a listener whose every response is scripted.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, MetadataRequest, MetadataResponse, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, Request as _, StrBytes};
use runtime::mutex::lock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// One request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct ReceivedRequest {
    /// The number of the connection, from 0.
    pub(crate) connection: usize,
    pub(crate) key: i16,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
    pub(crate) body: Bytes,
}

/// What the broker does after a request.
pub(crate) enum FakeResponse {
    /// A whole frame without its length: correlation id and body.
    Frame(Bytes),
    /// Exactly these bytes.
    Raw(Bytes),
    /// Exactly these bytes, then the end of the stream.
    RawThenClose(Bytes),
    /// Nothing, for this request.
    Silence,
    Close,
}

type BrokerScript = dyn Fn(&ReceivedRequest) -> FakeResponse + Send + Sync;

/// Stops when dropped.
pub(crate) struct FakeBroker {
    pub(crate) address: SocketAddr,
    pub(crate) received: Arc<Mutex<Vec<ReceivedRequest>>>,
    pub(crate) connections: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl FakeBroker {
    /// Answers the handshake by itself and everything else by `script`.
    pub(crate) async fn start(
        script: impl Fn(&ReceivedRequest) -> FakeResponse + Send + Sync + 'static,
    ) -> Self {
        Self::start_raw(move |request| {
            if request.key == ApiKey::ApiVersions as i16 {
                api_versions(request)
            } else {
                script(request)
            }
        })
        .await
    }

    /// Answers everything by `script`.
    pub(crate) async fn start_raw(
        script: impl Fn(&ReceivedRequest) -> FakeResponse + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::serve(listener, script)
    }

    pub(crate) fn serve(
        listener: TcpListener,
        script: impl Fn(&ReceivedRequest) -> FakeResponse + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let received = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(AtomicUsize::new(0));
        let script: Arc<BrokerScript> = Arc::new(script);
        let mut tasks = JoinSet::new();
        let (all, count) = (Arc::clone(&received), Arc::clone(&connections));
        tasks.spawn(async move {
            let mut connected = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let number = count.fetch_add(1, Ordering::SeqCst);
                connected.spawn(serve_connection(
                    stream,
                    number,
                    Arc::clone(&script),
                    Arc::clone(&all),
                ));
            }
        });
        Self {
            address,
            received,
            connections,
            _tasks: tasks,
        }
    }

    /// The requests of one API so far.
    pub(crate) fn received_of(&self, key: ApiKey) -> Vec<ReceivedRequest> {
        let received = lock(&self.received);
        received
            .iter()
            .filter(|r| r.key == key as i16)
            .cloned()
            .collect()
    }
}

async fn serve_connection(
    mut stream: TcpStream,
    connection: usize,
    script: Arc<BrokerScript>,
    all: Arc<Mutex<Vec<ReceivedRequest>>>,
) {
    while let Ok(length) = stream.read_i32().await {
        let mut frame = vec![0; usize::try_from(length).unwrap()];
        if stream.read_exact(&mut frame).await.is_err() {
            return;
        }
        let mut body = Bytes::from(frame);
        let received = ReceivedRequest {
            connection,
            key: body.get_i16(),
            version: body.get_i16(),
            correlation_id: body.get_i32(),
            body: {
                let client_id = usize::try_from(body.get_i16()).unwrap();
                body.advance(client_id);
                body
            },
        };
        lock(&all).push(received.clone());
        let (bytes, end) = match script(&received) {
            FakeResponse::Frame(frame) => {
                let mut bytes = BytesMut::new();
                bytes.put_i32(i32::try_from(frame.len()).unwrap());
                bytes.extend_from_slice(&frame);
                (bytes.freeze(), false)
            }
            FakeResponse::Raw(bytes) => (bytes, false),
            FakeResponse::RawThenClose(bytes) => (bytes, true),
            FakeResponse::Silence => (Bytes::new(), false),
            FakeResponse::Close => return,
        };
        if stream.write_all(&bytes).await.is_err() || end {
            return;
        }
    }
}

/// A response's frame.
pub(crate) fn response<A: crate::protocol::versions::Api>(
    request: &ReceivedRequest,
    response: &A::Response,
) -> FakeResponse {
    FakeResponse::Frame(response_frame::<A>(request, response))
}

pub(crate) fn response_frame<A: crate::protocol::versions::Api>(
    request: &ReceivedRequest,
    response: &A::Response,
) -> Bytes {
    use kafka_protocol::protocol::HeaderVersion;
    let mut frame = BytesMut::new();
    frame.put_i32(request.correlation_id);
    if A::Response::header_version(request.version) > 0 {
        frame.put_u8(0);
    }
    response.encode(&mut frame, request.version).unwrap();
    frame.freeze()
}

/// Everything we speak, in every version.
pub(crate) fn api_versions(request: &ReceivedRequest) -> FakeResponse {
    let keys = (0..=80)
        .filter(|key| ApiKey::try_from(*key).is_ok())
        .map(|key| {
            ApiVersion::default()
                .with_api_key(key)
                .with_min_version(0)
                .with_max_version(99)
        });
    let table = ApiVersionsResponse::default().with_api_keys(keys.collect());
    response::<ApiVersionsRequest>(request, &table)
}

/// The names that a metadata request asks for.
pub(crate) fn requested_topics(request: &ReceivedRequest) -> Vec<String> {
    assert_eq!(request.key, MetadataRequest::KEY);
    let mut body = request.body.clone();
    if request.version >= 9 {
        body.advance(1);
    }
    let metadata = MetadataRequest::decode(&mut body, request.version).unwrap();
    assert!(!metadata.allow_auto_topic_creation);
    let topics = metadata.topics.unwrap();
    topics
        .into_iter()
        .map(|t| t.name.unwrap().to_string())
        .collect()
}

/// A cluster whose brokers all listen at one address.
pub(crate) fn metadata_response(
    brokers: &[(i32, SocketAddr)],
    topics: Vec<MetadataResponseTopic>,
) -> MetadataResponse {
    let brokers = brokers.iter().map(|(id, address)| {
        MetadataResponseBroker::default()
            .with_node_id((*id).into())
            .with_host(StrBytes::from_string(address.ip().to_string()))
            .with_port(i32::from(address.port()))
    });
    MetadataResponse::default()
        .with_brokers(brokers.collect())
        .with_controller_id(0.into())
        .with_topics(topics)
}

/// A topic with `(leader, epoch)` by partition.
pub(crate) fn topic_metadata(
    name: &str,
    id: u128,
    partitions: &[(i32, i32)],
) -> MetadataResponseTopic {
    let partitions = (0..).zip(partitions).map(|(index, &(leader, epoch))| {
        MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(leader.into())
            .with_leader_epoch(epoch)
    });
    topic_error(name, 0)
        .with_topic_id(uuid::Uuid::from_u128(id))
        .with_partitions(partitions.collect())
}

pub(crate) fn topic_error(name: &str, code: i16) -> MetadataResponseTopic {
    MetadataResponseTopic::default()
        .with_error_code(code)
        .with_name(Some(TopicName(StrBytes::from_string(name.to_owned()))))
}

/// The messages that are logged as WARN in this thread while it lives.
pub(crate) struct Warnings {
    messages: Arc<Mutex<Vec<String>>>,
    _subscriber: tracing::subscriber::DefaultGuard,
}

impl Warnings {
    pub(crate) fn collect() -> Self {
        let messages = Arc::default();
        let subscriber = WarningSubscriber(Arc::clone(&messages));
        Self {
            messages,
            _subscriber: tracing::subscriber::set_default(subscriber),
        }
    }

    /// Those that contain the text.
    pub(crate) fn count_of(&self, text: &str) -> usize {
        let messages = lock(&self.messages);
        messages.iter().filter(|m| m.contains(text)).count()
    }
}

struct WarningSubscriber(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for WarningSubscriber {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Message(String);
        impl tracing::field::Visit for Message {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                use std::fmt::Write;
                let _ = write!(self.0, "{}={value:?} ", field.name());
            }
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        lock(&self.0).push(message.0);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}
