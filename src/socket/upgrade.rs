//! Answers the request for a WebSocket: by a running socket, or by an error.
//!
//! Everything that can be refused is refused before the upgrade, with an HTTP status; what is
//! found later can only close the socket.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{OptionFuture, join_all};
use http::header::{
    CONNECTION, HeaderValue, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout};
use tracing::{Instrument, Span, debug, debug_span, info};

use super::RequestRefused;
use super::compression;
use super::consume::{AvroCommits, ConsumingSocket};
use super::params::{ConsumeParams, ProduceParams, QueryParams, SocketPayload};
use super::peer::{ClientAddress, PeerAddress};
use super::produce::{AvroMessages, MessageFormat, ProducingSocket, SocketTransactions};
use super::refused_socket::{self, HttpConnectionHold};
use super::socket_log::{SocketIdentity, SocketLog};
use super::stream::{MessageLimits, WebSocketStream};
use super::transactional_id::{ClientOwner, transactional_id};
use crate::app::App;
use crate::auth::{self, ClientIdentity, KafkaCredentials};
use crate::avro_schemas::MessageSchemas;
use crate::codec::FrameFormat;
use crate::codec::avro::wrapper_schema::WrapperSchema;
use crate::config::ServerConfig;
use crate::http_error::HttpError;
use crate::http_keep_alive::KeepAliveStream;
use crate::http_stream::HttpStream;
use crate::session::registry::{ConnectionPermit, SocketHandle};
use crate::session::socket_authentication::SocketAuthentication;
use crate::session::{AdmissionError, InstanceSharing, PlacePermit, ProducerIdentity};
use crate::topic_access::{self, ReservedTopic};
use kafka_client::admin;
use kafka_client::consumer::{ConsumerError, GroupStart, OffsetResetStrategy};
use kafka_client::metadata::{AclOperation, MetadataError, TopicMetadata};
use kafka_client::principal_clients::ClientLease;
use kafka_client::producer::{TransactionalConfig, TransactionalProducer};
use runtime::panic_policy;
use websocket::frame::{CloseCode, CloseFrame};
use websocket::handshake::{self, HandshakeError};

/// How long the metadata of all topics of a request may take before the client is answered 503.
const TOPICS_TIMEOUT: Duration = Duration::from_secs(5);
/// How long deciding where a group begins may take before the client is answered 503.
const GROUP_START_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a coordinator may take to say who may use a group before the client is answered 503.
const GROUP_ACCESS_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the brokers may take to fence a client's former producer, and to abort what it has left
/// open, before the client is answered 503.
const TRANSACTIONAL_PRODUCER_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the connection may take to be handed over after the 101.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);
/// Partitions of a topic that is created on first use.
const DEV_PARTITIONS: i32 = 1;

/// The endpoint that was requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SocketEndpoint {
    /// `/socket/in`
    Produce,
    /// `/socket/out`
    Consume,
}

impl SocketEndpoint {
    /// The path that it answers on.
    fn path(self) -> &'static str {
        match self {
            Self::Produce => "/socket/in",
            Self::Consume => "/socket/out",
        }
    }
}

/// A request for a WebSocket.
pub(super) struct UpgradeRequest {
    pub(super) endpoint: SocketEndpoint,
    pub(super) headers: HeaderMap,
    pub(super) query: String,
    pub(super) upgrade: Option<OnUpgrade>,
    pub(super) peer: Option<PeerAddress>,
    /// Who the client has shown to be.
    pub(super) identity: Option<ClientIdentity>,
    pub(super) refused: Option<RequestRefused>,
    pub(super) connection: Option<HttpConnectionHold>,
}

/// What a consuming socket is opened with.
type JoinedGroup = (
    Vec<Arc<TopicMetadata>>,
    (FrameFormat, AvroCommits),
    PlacePermit,
);

/// Admits and starts the socket of one request.
struct SocketOpener {
    app: App,
    /// With which the socket works: the proxy's own, or that of the user whom the request names.
    client: ClientLease,
    /// By what the client may be here, if that ends.
    authentication: Option<SocketAuthentication>,
}

/// A request that will be served, with what its socket needs.
enum AdmittedSocket {
    Producing {
        params: ProduceParams,
        format: MessageFormat,
        topic: Arc<TopicMetadata>,
        /// With `transactional=true`.
        transactions: Option<SocketTransactions>,
        connection_permit: ConnectionPermit,
        place_permit: PlacePermit,
    },
    Consuming {
        params: ConsumeParams,
        formats: (FrameFormat, AvroCommits),
        /// With `offsetResetStrategy=latest`.
        start: Option<GroupStart>,
        connection_permit: ConnectionPermit,
        group_permit: PlacePermit,
    },
}

impl AdmittedSocket {
    /// The `clientId`, for the log.
    fn client_id(&self) -> Option<&str> {
        match self {
            Self::Producing { params, .. } => params.client_id.as_deref(),
            Self::Consuming { params, .. } => Some(&params.client_id),
        }
    }
}

/// Answers the request: 101 and a task for the socket, or an error.
pub(super) async fn answer_upgrade(mut request: UpgradeRequest, app: App) -> Response<String> {
    let client = app.principals.lease_own();
    let token = request.identity.as_ref().and_then(ClientIdentity::token);
    let provider = app.openid.clone();
    let authentication = provider
        .zip(token)
        .map(|(provider, token)| SocketAuthentication::new(provider, token));
    let mut opener = SocketOpener {
        app,
        client,
        authentication,
    };
    let trusted = &opener.app.config.server.trusted_proxies;
    let peer = request
        .peer
        .map(|PeerAddress(peer)| ClientAddress::new(peer, &request.headers, trusted));
    let query = QueryParams::parse(&request.query);
    if let Some(RequestRefused(error)) = &request.refused
        && !query.errors_close()
    {
        opener.count_refusal(request.endpoint, peer, error);
        return error.clone().into_response();
    }
    let upgrade = request.upgrade.take();
    let accepted = handshake::accept(&request.headers)
        .and_then(|headers| Ok((headers, upgrade.ok_or(HandshakeError::NotAnUpgrade)?)));
    let (mut accepted, upgrade) = match accepted {
        Ok(accepted) => accepted,
        Err(error) => {
            let error = handshake_error(error);
            opener.count_refusal(request.endpoint, peer, &error);
            return error.into_response();
        }
    };
    if auth::offers_sub_protocol(&request.headers) {
        let spoken = HeaderValue::from_static(auth::SUB_PROTOCOL);
        accepted.insert(SEC_WEBSOCKET_PROTOCOL, spoken);
    }
    let admitted = match checked_headers(&request, &opener.app.config.server) {
        Err(error) => Err(error),
        Ok(user) => opener.admit(request.endpoint, &query, user).await,
    };
    let settings = &opener.app.config.server.websocket;
    let limits = compression::negotiate(settings, &request.headers, &mut accepted);
    let span = debug_span!(
        "socket",
        peer = peer.map(tracing::field::display),
        identity = request.identity.as_ref().map(tracing::field::display),
        client = tracing::field::Empty
    );
    match admitted {
        Ok(admitted) => {
            span.record("client", admitted.client_id());
            let tracker = opener.app.socket_tasks.clone();
            let identity = opener.identity(request.endpoint, &admitted, peer);
            let socket = async move {
                if let Some(socket) = take_over(upgrade, limits).await {
                    let log = SocketLog::open(identity, Arc::clone(&opener.app.metrics));
                    opener.start(admitted, socket, log, span);
                }
            };
            tracker.spawn(panic_policy::contain_panics(socket));
        }
        Err(error) => {
            opener.count_refusal(request.endpoint, peer, &error);
            let error = error.exposing_brokers(opener.app.exposes_brokers());
            if !query.errors_close() {
                return error.into_response();
            }
            let code = CloseCode(4000 + error.status.as_u16());
            let close = CloseFrame::new(code, &error.message);
            let closing = async move {
                if let Some(socket) = take_over(upgrade, limits).await {
                    refused_socket::close(socket, &close, request.connection).await;
                }
            };
            opener
                .app
                .socket_tasks
                .spawn(panic_policy::contain_panics(closing));
        }
    }
    switching_protocols(accepted)
}

/// Which Kafka user the request names, if its headers do not rule it out.
fn checked_headers(
    request: &UpgradeRequest,
    config: &ServerConfig,
) -> Result<Option<KafkaCredentials>, HttpError> {
    if let Some(RequestRefused(error)) = &request.refused {
        return Err(error.clone());
    }
    let identity = request.identity.as_ref();
    Ok(auth::kafka_credentials(&request.headers, identity, config)?)
}

impl SocketOpener {
    /// Logs a refusal, too: a client that is refused often does not show why. Browsers, wscat and
    /// Node hide the body.
    fn count_refusal(
        &self,
        endpoint: SocketEndpoint,
        peer: Option<ClientAddress>,
        error: &HttpError,
    ) {
        let (endpoint, status) = (endpoint.path(), error.status.as_u16());
        self.app.metrics.endpoint(endpoint).socket_refused(status);
        info!(
            endpoint,
            peer = peer.map(tracing::field::display),
            status,
            reason = error.reason(),
            "socket refused"
        );
    }

    async fn admit(
        &mut self,
        endpoint: SocketEndpoint,
        query: &QueryParams,
        user: Option<KafkaCredentials>,
    ) -> Result<AdmittedSocket, HttpError> {
        if self.app.stopping.is_cancelled() {
            return Err(HttpError::unavailable("the server is stopping"));
        }
        match endpoint {
            SocketEndpoint::Produce => {
                let params = query.produce_params()?;
                self.check_transactional(&params)?;
                if self.app.config.producer_sessions {
                    params.check_names_instance()?;
                }
                self.check_access([params.topic.as_str()], AclOperation::Write)?;
                let connection_permit = self.connection_permit(user).await?;
                let names = [params.topic.as_str().into()];
                let topic = self.topics_or_create(&names, AclOperation::Write).await?;
                let topic = Arc::clone(&topic[0]);
                let format = self.message_format(&params).await?;
                let handle = connection_permit.handle();
                // Last: both fence the client's former socket, by Kafka and in the session log.
                let transactions = self.open_transactions(&params, handle).await?;
                let place_permit = self.producer_permit(&params, &topic, handle).await?;
                Ok(AdmittedSocket::Producing {
                    params,
                    format,
                    topic,
                    transactions,
                    connection_permit,
                    place_permit,
                })
            }
            SocketEndpoint::Consume => {
                let mut params = query.consume_params()?;
                if params.payload == SocketPayload::Json && params.batch_size.is_none() {
                    params.batch_size = self.app.quotas.batch_size(&params.group_id);
                }
                let topics = params.topics.iter().map(String::as_str);
                self.check_access(topics, AclOperation::Read)?;
                let connection_permit = self.connection_permit(user).await?;
                let handle = connection_permit.handle();
                let (topics, formats, group_permit) = self.join_group(&params, handle).await?;
                let start = match params.offset_reset_strategy {
                    OffsetResetStrategy::Latest => Some(self.decide_start(&params, &topics).await?),
                    OffsetResetStrategy::Earliest | OffsetResetStrategy::None => None,
                };
                Ok(AdmittedSocket::Consuming {
                    params,
                    formats,
                    start,
                    connection_permit,
                    group_permit,
                })
            }
        }
    }

    /// A place for a producing socket, once it is known to be served. Who has a limit waits for it.
    async fn producer_permit(
        &self,
        params: &ProduceParams,
        topic: &Arc<TopicMetadata>,
        handle: &Arc<SocketHandle>,
    ) -> Result<PlacePermit, AdmissionError> {
        let client_id = params.client_id.as_deref();
        // As in its transactional id: the same client id of another subject is another client.
        let principal = match self.client.cluster().principal().user() {
            Some(user) => Some(Arc::clone(user)),
            None => handle.authentication().and_then(|by| {
                let subject = by.subject()?.escape_debug();
                Some(format!("sub:{subject}").into())
            }),
        };
        let producer = ProducerIdentity {
            client_id,
            instance_id: params.instance_id.as_deref(),
            principal: principal.as_ref(),
            sharing: match self.app.config.producer_sessions {
                _ if params.transactional => InstanceSharing::Fencing,
                true => InstanceSharing::Exclusive,
                false => InstanceSharing::Any,
            },
            max_connections: self.app.quotas.max_connections_of_client(client_id),
        };
        let sessions = &self.app.sessions;
        sessions
            .acquire_producer_permit(producer, partition_count(topic), handle)
            .await
    }

    /// The topics, what frames are, and a permit of the group. For topics that are known the
    /// permit is acquired meanwhile: mostly they are still as they were, and then nobody waits
    /// for two round trips. What is wrong with the topics is told whatever becomes of the permit.
    ///
    /// A user is asked for rights first: who may not be a member learns nothing of the group, and
    /// takes no place of those who may.
    async fn join_group(
        &self,
        params: &ConsumeParams,
        handle: &Arc<SocketHandle>,
    ) -> Result<JoinedGroup, HttpError> {
        let names: Vec<_> = params.topics.iter().map(|t| t.as_str().into()).collect();
        let is_own = self.client.number().is_none();
        let known = self.known_partition_counts(&names).filter(|_| is_own);
        let asked = async {
            let topics = self.topics_or_create(&names, AclOperation::Read);
            let (topics, group_access) = tokio::join!(topics, self.check_group_access(params));
            let topics = topics?;
            group_access?;
            let formats = self.frame_format(params).await?;
            Ok::<_, HttpError>((topics, formats))
        };
        let early = async {
            let counts = known.as_ref();
            let permit = counts.map(|counts| self.group_permit(params, counts, handle));
            Ok::<_, HttpError>(OptionFuture::from(permit).await)
        };
        let ((topics, formats), early) = tokio::try_join!(asked, early)?;
        let counts: Vec<_> = topics.iter().map(partition_count).collect();
        // A permit for other counts is released before the next one is acquired.
        let permit = match early.filter(|_| known.as_ref() == Some(&counts)) {
            Some(permit) => permit?,
            None => self.group_permit(params, &counts, handle).await?,
        };
        Ok((topics, formats, permit))
    }

    /// How many partitions the topics had when they were last asked about, if all are known.
    fn known_partition_counts(&self, names: &[Arc<str>]) -> Option<Vec<(Arc<str>, usize)>> {
        let snapshot = self.client.cluster().metadata().snapshot();
        let count = |name: &Arc<str>| snapshot.topic(name).map(partition_count);
        names.iter().map(count).collect()
    }

    async fn group_permit(
        &self,
        params: &ConsumeParams,
        topics: &[(Arc<str>, usize)],
        handle: &Arc<SocketHandle>,
    ) -> Result<PlacePermit, AdmissionError> {
        let group = &params.group_id;
        let user = self.client.cluster().principal().user();
        let client = (user, params.client_id.as_str());
        let max_connections = self.app.quotas.max_connections_of_group(group);
        let sessions = &self.app.sessions;
        sessions
            .acquire_group_permit(group, client, (topics, max_connections), handle)
            .await
    }

    /// Whether a user may be a member of the group. The proxy itself may, or finds out when it joins.
    async fn check_group_access(&self, params: &ConsumeParams) -> Result<(), HttpError> {
        if self.client.number().is_none() {
            return Ok(());
        }
        let group = params.group_id.as_str().into();
        let asked = self.client.consumers().check_group_access(&group);
        let asked = timeout(GROUP_ACCESS_TIMEOUT, asked);
        match self.app.unless_outage(asked).await? {
            Ok(Err(ConsumerError::GroupNotAuthorized { group })) => Err(HttpError::forbidden(
                format!("parameter groupId: not authorized to read as group {group}"),
            )),
            Ok(asked) => asked.map_err(|error| {
                let message = "the brokers cannot say who may use the group";
                HttpError::brokers_unavailable(message, error.to_string())
            }),
            Err(_) => Err(HttpError::unavailable(format!(
                "the brokers did not say in time who may use group {group}"
            ))),
        }
    }

    fn check_transactional(&self, params: &ProduceParams) -> Result<(), HttpError> {
        match params.transactional && !self.app.config.transactions.enabled {
            true => Err(HttpError::bad_request(
                "parameter transactional: this server has no transactions \
                 (producer.exactly-once-enabled)",
            )),
            false => Ok(()),
        }
    }

    /// The transactional producer of the client, whose former one is fenced from then on.
    async fn open_transactions(
        &self,
        params: &ProduceParams,
        handle: &SocketHandle,
    ) -> Result<Option<SocketTransactions>, HttpError> {
        let client_id = params.client_id.as_deref();
        let Some(client_id) = client_id.filter(|_| params.transactional) else {
            return Ok(None);
        };
        let config = &self.app.config;
        let cluster = self.client.cluster();
        let authentication = handle.authentication();
        let subject = authentication.as_ref().and_then(|by| by.subject());
        let owner = match (cluster.principal().user(), subject) {
            (Some(user), _) => ClientOwner::User(user),
            (None, Some(subject)) => ClientOwner::Subject(subject),
            (None, None) => ClientOwner::None,
        };
        let prefix = &config.transactions.id_prefix;
        let instance_id = params.instance_id.as_deref();
        let settings = TransactionalConfig {
            transactional_id: transactional_id(prefix, owner, client_id, instance_id).into(),
            transaction_timeout: config.transactions.timeout,
        };
        let opened = TransactionalProducer::open(cluster.clone(), &config.producer, settings);
        let opened = timeout(TRANSACTIONAL_PRODUCER_TIMEOUT, opened);
        match self.app.unless_outage(opened).await? {
            Ok(opened) => Ok(Some(SocketTransactions::new(opened?))),
            Err(_) => Err(HttpError::unavailable(format!(
                "parameter clientId: the brokers did not begin the transactions of {client_id:?} \
                 in time"
            ))),
        }
    }

    fn check_access<'a>(
        &self,
        topics: impl IntoIterator<Item = &'a str>,
        operation: AclOperation,
    ) -> Result<(), ReservedTopic> {
        let config = &self.app.config;
        let allowed = &config.server.topics;
        topic_access::check_topics(topics, operation, allowed, &config.state_topics())
    }

    /// Decides where a group at `latest` begins: the client may write once it has the 101.
    async fn decide_start(
        &self,
        params: &ConsumeParams,
        topics: &[Arc<TopicMetadata>],
    ) -> Result<GroupStart, HttpError> {
        let group = params.group_id.as_str().into();
        let consumers = self.client.consumers();
        let decided = consumers.decide_start(&group, topics, params.isolation_level);
        let decided = timeout(GROUP_START_TIMEOUT, decided);
        match self.app.unless_outage(decided).await? {
            Ok(decided) => decided.map_err(HttpError::from),
            Err(_) => Err(HttpError::unavailable(format!(
                "the brokers did not say in time where group {group} begins \
                 (offsetResetStrategy=latest)"
            ))),
        }
    }

    /// What the messages of a producing socket are.
    async fn message_format(&self, params: &ProduceParams) -> Result<MessageFormat, HttpError> {
        if params.payload == SocketPayload::Json {
            return Ok(MessageFormat::Json(params.formats));
        }
        let schemas = &self.app.avro_schemas;
        let framing = schemas.open(MessageSchemas {
            written: WrapperSchema::ProducerResult,
            read: WrapperSchema::ProducerRecord,
        });
        let messages = AvroMessages::new(framing.await?, schemas.clone());
        Ok(MessageFormat::Avro(messages))
    }

    /// What the frames of a consuming socket are, and what reads its commits.
    async fn frame_format(
        &self,
        params: &ConsumeParams,
    ) -> Result<(FrameFormat, AvroCommits), HttpError> {
        if params.payload == SocketPayload::Json {
            return Ok((FrameFormat::Json(params.formats), AvroCommits::default()));
        }
        let schemas = &self.app.avro_schemas;
        let framing = schemas.open(MessageSchemas {
            written: WrapperSchema::ConsumerRecord,
            read: WrapperSchema::Commit,
        });
        let framing = framing.await?;
        let commits = AvroCommits::new(framing, schemas.clone());
        Ok((FrameFormat::Avro(framing), commits))
    }

    /// A permit for a socket, which keeps the client that it works with. A user's credentials are
    /// verified once there is room for the socket.
    async fn connection_permit(
        &mut self,
        user: Option<KafkaCredentials>,
    ) -> Result<ConnectionPermit, HttpError> {
        let mut permit = self.try_connection_permit()?;
        if let Some(authentication) = self.authentication.take() {
            permit.handle().authenticate(authentication);
        }
        if let Some(user) = user {
            self.client = self.app.client_of(&user).await?;
            permit.keep(self.client.clone());
        }
        Ok(permit)
    }

    fn try_connection_permit(&self) -> Result<ConnectionPermit, HttpError> {
        let (max, key) = self.app.config.server.sockets_max().unwrap_or_default();
        self.app
            .registry
            .try_acquire_connection_permit(max)
            .ok_or_else(|| {
                let message =
                    format!("this node has {max} open sockets, which is its limit ({key})");
                HttpError::new(StatusCode::TOO_MANY_REQUESTS, message).with_retry_after()
            })
    }

    /// The topics, as they are now, not as they were before the client asked. All must exist, and
    /// the operation be allowed on them; with `--dev` they are created on first use. One deadline
    /// holds for all of them.
    async fn topics_or_create(
        &self,
        names: &[Arc<str>],
        operation: AclOperation,
    ) -> Result<Vec<Arc<TopicMetadata>>, HttpError> {
        let metadata = self.client.cluster().metadata();
        let find = async {
            let mut found = metadata.topics_refreshed_after(names, Instant::now()).await;
            if self.app.config.dev && self.create_missing(&found).await? {
                found = metadata.topics_refreshed_after(names, Instant::now()).await;
            }
            let found: Result<Vec<_>, _> = found.into_iter().collect();
            let found = found.map_err(HttpError::from)?;
            check_operation(&found, operation)?;
            Ok(found)
        };
        let found = timeout(TOPICS_TIMEOUT, find);
        match self.app.unless_outage(found).await? {
            Ok(found) => found,
            Err(_) => Err(HttpError::from(MetadataError::Unavailable {
                reason: metadata
                    .last_update_error()
                    .unwrap_or_else(|| "no answer in time".into()),
            })),
        }
    }

    /// Creates the topics that do not exist; whether there were any.
    async fn create_missing(
        &self,
        found: &[Result<Arc<TopicMetadata>, MetadataError>],
    ) -> Result<bool, HttpError> {
        let missing = found.iter().filter_map(|found| match found {
            Err(MetadataError::UnknownTopic { topic }) => Some(topic),
            _ => None,
        });
        let create = async |topic: &Arc<str>| {
            let created = admin::create_topic(self.app.cluster(), topic, DEV_PARTITIONS, 1).await;
            match created {
                Err(error) if !error.already_exists() => {
                    let message = format!("topic {topic} cannot be created now");
                    let detail = format!("topic {topic}: {error}");
                    Err(HttpError::brokers_unavailable(message, detail))
                }
                _ => Ok(()),
            }
        };
        let created = join_all(missing.map(create)).await;
        let any = !created.is_empty();
        created.into_iter().collect::<Result<(), _>>()?;
        Ok(any)
    }

    /// Who the socket is for.
    fn identity(
        &self,
        endpoint: SocketEndpoint,
        admitted: &AdmittedSocket,
        peer: Option<ClientAddress>,
    ) -> SocketIdentity {
        let group = match admitted {
            AdmittedSocket::Producing { .. } => None,
            AdmittedSocket::Consuming { params, .. } => Some(params.group_id.as_str().into()),
        };
        SocketIdentity {
            endpoint: endpoint.path(),
            client_id: admitted.client_id().map(Arc::from),
            group,
            peer,
            principal: self.client.cluster().principal().clone(),
        }
    }

    /// Spawns the socket's task, which holds nothing of how it was opened.
    fn start(self, admitted: AdmittedSocket, socket: WebSocketStream, log: SocketLog, span: Span) {
        let tasks = self.app.socket_tasks.clone();
        let user = self.client.cluster().principal().user().cloned();
        match admitted {
            AdmittedSocket::Producing {
                params,
                format,
                topic,
                transactions,
                connection_permit,
                place_permit,
            } => {
                let config = &self.app.config;
                let producers = (self.client.producer().clone(), transactions);
                let client_id = params.client_id.as_deref();
                let wake = &connection_permit.handle().wake;
                let quota = self.app.quotas.of_client(user.as_ref(), client_id, wake);
                let permits = (connection_permit, place_permit, quota);
                let socket =
                    ProducingSocket::new(config, producers, socket, format, topic, permits, log);
                tasks.spawn(panic_policy::contain_panics(socket.run().instrument(span)));
            }
            AdmittedSocket::Consuming {
                params,
                formats,
                start,
                connection_permit,
                group_permit,
            } => {
                let (quotas, wake) = (&self.app.quotas, &connection_permit.handle().wake);
                let quota = quotas.of_group(user.as_ref(), &params.group_id, wake);
                let permits = (connection_permit, group_permit, quota);
                let (config, consumers) = (&self.app.config, self.client.consumers());
                let params = (params, formats.0, formats.1);
                let socket =
                    ConsumingSocket::new(config, consumers, socket, params, start, permits, log);
                tasks.spawn(panic_policy::contain_panics(socket.run().instrument(span)));
            }
        }
    }
}

/// Takes the connection over from hyper, of which nothing remains.
pub(super) async fn take_over(
    upgrade: OnUpgrade,
    limits: MessageLimits,
) -> Option<WebSocketStream> {
    let upgraded = match timeout(UPGRADE_TIMEOUT, upgrade).await {
        Ok(Ok(upgraded)) => upgraded,
        Ok(Err(error)) => {
            debug!(%error, "connection lost before the upgrade");
            return None;
        }
        Err(_) => return None,
    };
    let parts = upgraded
        .downcast::<TokioIo<KeepAliveStream<HttpStream>>>()
        .expect("the server hands hyper nothing but streams of clients");
    let stream = parts.io.into_inner().into_inner();
    Some(WebSocketStream::new(stream, parts.read_buf, limits))
}

pub(super) fn switching_protocols(headers: HeaderMap) -> Response<String> {
    let mut response = Response::new(String::new());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = headers;
    response
}

pub(super) fn handshake_error(error: HandshakeError) -> HttpError {
    let status = match error {
        HandshakeError::NotAnUpgrade | HandshakeError::UnsupportedVersion => {
            StatusCode::UPGRADE_REQUIRED
        }
        HandshakeError::InvalidKey => StatusCode::BAD_REQUEST,
    };
    let error = HttpError::new(status, error.to_string());
    if status != StatusCode::UPGRADE_REQUIRED {
        return error;
    }
    error
        .with_header(UPGRADE, HeaderValue::from_static("websocket"))
        .with_header(CONNECTION, HeaderValue::from_static("Upgrade"))
        .with_header(
            SEC_WEBSOCKET_VERSION,
            HeaderValue::from_static(handshake::VERSION),
        )
}

/// Whether the principal may do that with all of the topics.
fn check_operation(
    topics: &[Arc<TopicMetadata>],
    operation: AclOperation,
) -> Result<(), HttpError> {
    let verb = match operation {
        AclOperation::Read => "read",
        AclOperation::Write => "write to",
    };
    let refused = topics
        .iter()
        .find(|topic| !topic.authorized_operations.may(operation));
    match refused {
        None => Ok(()),
        Some(topic) => Err(HttpError::forbidden(format!(
            "parameter topic: not authorized to {verb} topic {}",
            topic.name
        ))),
    }
}

fn partition_count(topic: &Arc<TopicMetadata>) -> (Arc<str>, usize) {
    (Arc::clone(&topic.name), topic.partitions.len())
}
