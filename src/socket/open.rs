//! From a request to a running socket, or to a refusal.
//!
//! Everything that can be refused is refused before the upgrade, as HTTP; what is decided
//! afterwards can only close.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::header::{
    AUTHORIZATION, CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::{Instrument, Span, debug, debug_span};

use super::ForeignOrigin;
use super::inbound::Inbound;
use super::outbound::Outbound;
use super::params::{InParams, OutParams, ParamError, Query};
use super::ws::WebSocket;
use crate::app::App;
use crate::app::registry::{Full, Place, Seat};
use crate::http_keep_alive::KeepAliveStream;
use crate::refusal::Refusal;
use kafka_client::admin;
use kafka_client::metadata::{MetadataError, TopicMetadata};
use runtime::guard;
use websocket::frame::{CloseCode, CloseFrame};
use websocket::handshake::{self, HandshakeError};

/// How long brokers may take to tell of a topic before the client is sent away.
const TOPIC_MAX: Duration = Duration::from_secs(5);
/// How long the connection may take to become ours after the 101.
const UPGRADE_MAX: Duration = Duration::from_secs(10);
/// How long a refusal's close frame may take to get out.
const REFUSAL_MAX: Duration = Duration::from_secs(5);
/// Partitions of a topic made on first use.
const DEV_PARTITIONS: i32 = 1;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// `/socket/in`
    In,
    /// `/socket/out`
    Out,
}

/// A request for a WebSocket.
pub(super) struct Opening {
    pub(super) endpoint: Endpoint,
    pub(super) headers: HeaderMap,
    pub(super) query: String,
    pub(super) upgrade: Option<OnUpgrade>,
    pub(super) peer: Option<SocketAddr>,
    pub(super) foreign: Option<ForeignOrigin>,
}

/// Lets sockets in.
struct Sockets {
    app: App,
}

/// A request that is going to be served.
enum Admitted {
    In {
        params: InParams,
        topic: Arc<TopicMetadata>,
        place: Place,
    },
    Out {
        params: OutParams,
        place: Place,
        seat: Seat,
    },
}

impl Admitted {
    /// The name that the client has given itself, for the log.
    fn client(&self) -> Option<&str> {
        match self {
            Self::In { params, .. } => params.client_id.as_deref(),
            Self::Out { params, .. } => Some(&params.client_id),
        }
    }
}

/// Answers the request: 101 and a task for the socket, or why not.
pub(super) async fn open(mut opening: Opening, app: App) -> Response<String> {
    let sockets = Sockets { app };
    let accept = match handshake::accept(&opening.headers) {
        Ok(accept) => accept,
        Err(error) => return unfit(error).into_response(),
    };
    let Some(upgrade) = opening.upgrade.take() else {
        return unfit(HandshakeError::NoUpgrade).into_response();
    };
    let query = Query::parse(&opening.query);
    let admitted = match refused_by_head(&opening) {
        Some(refusal) => Err(refusal),
        None => sockets.admit(opening.endpoint, &query).await,
    };
    let message_max = sockets.app.config.server.websocket.max_message_size;
    let span = debug_span!(
        "socket",
        peer = opening.peer.map(tracing::field::display),
        client = tracing::field::Empty
    );
    match admitted {
        Ok(admitted) => {
            span.record("client", admitted.client());
            let tracker = sockets.app.sockets.clone();
            let socket = async move {
                if let Some(socket) = upgraded(upgrade, message_max).await {
                    sockets.start(admitted, socket, span);
                }
            };
            tracker.spawn(guard::contained(socket));
        }
        Err(refusal) if query.errors_close() => {
            let code = CloseCode(4000 + refusal.status.as_u16());
            let close = CloseFrame::new(code, &refusal.message);
            let goodbye = async move {
                if let Some(socket) = upgraded(upgrade, message_max).await {
                    socket.close(BytesMut::new(), &close, REFUSAL_MAX).await;
                }
            };
            sockets.app.sockets.spawn(guard::contained(goodbye));
        }
        Err(refusal) => {
            debug!(parent: &span, %refusal, "refused");
            return refusal.into_response();
        }
    }
    switching(&accept)
}

/// What the request's head alone rules out.
fn refused_by_head(opening: &Opening) -> Option<Refusal> {
    if opening.foreign.is_some() {
        return Some(Refusal::foreign_origin());
    }
    // Without these the socket would run as the proxy itself: more, maybe, than it may.
    let basic = |value: &HeaderValue| {
        let scheme = value.as_bytes().split(|byte| *byte == b' ').next();
        scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"basic"))
    };
    let header = if opening.headers.contains_key("x-kafka-auth") {
        "X-Kafka-Auth"
    } else if opening.headers.get_all(AUTHORIZATION).iter().any(basic) {
        "Authorization: Basic"
    } else {
        return None;
    };
    let message = format!(
        "header {header}: credentials of a client's own are not supported yet; \
         leave the header out to use the proxy's"
    );
    Some(Refusal::new(StatusCode::NOT_IMPLEMENTED, message))
}

impl Sockets {
    async fn admit(&self, endpoint: Endpoint, query: &Query) -> Result<Admitted, Refusal> {
        if self.app.draining.is_cancelled() {
            return Err(Refusal::unavailable("the server is stopping"));
        }
        match endpoint {
            Endpoint::In => {
                let params = query.inbound()?;
                let place = self.place()?;
                let topic = self.topic(&params.topic).await?;
                Ok(Admitted::In {
                    params,
                    topic,
                    place,
                })
            }
            Endpoint::Out => {
                let params = query.outbound()?;
                let place = self.place()?;
                let mut topics = Vec::new();
                for name in &params.topics {
                    let topic = self.topic(name).await?;
                    topics.push((name.clone(), topic.partitions.len()));
                }
                let seat = self
                    .app
                    .registry
                    .admit(&params.group_id, &params.client_id, &topics)
                    .await?;
                Ok(Admitted::Out {
                    params,
                    place,
                    seat,
                })
            }
        }
    }

    fn place(&self) -> Result<Place, Refusal> {
        let max = self.app.config.server.websocket.max_connections;
        self.app.registry.place(max).ok_or_else(|| {
            let message = format!(
                "this node has {max} open connections, which is its limit \
                 (server.websocket.max-connections)"
            );
            Refusal::new(StatusCode::TOO_MANY_REQUESTS, message).retry_after()
        })
    }

    /// The topic, which must exist; with `--dev` it is made on first use.
    async fn topic(&self, name: &str) -> Result<Arc<TopicMetadata>, Refusal> {
        match self.known_topic(name).await {
            Err(MetadataError::UnknownTopic { .. }) if self.app.config.dev => {}
            other => return other.map_err(Refusal::from),
        }
        let made = admin::create_topic(self.app.cluster(), name, DEV_PARTITIONS, 1).await;
        match made {
            Err(error) if !error.already_exists() => {
                Err(Refusal::unavailable(format!("topic {name}: {error}")))
            }
            _ => self.known_topic(name).await.map_err(Refusal::from),
        }
    }

    async fn known_topic(&self, name: &str) -> Result<Arc<TopicMetadata>, MetadataError> {
        let metadata = self.app.cluster().metadata();
        match timeout(TOPIC_MAX, metadata.topic(name)).await {
            Ok(known) => known,
            Err(_) => Err(MetadataError::Unavailable {
                reason: match metadata.ready() {
                    Ok(()) => "no answer in time".into(),
                    Err(reason) => reason.into(),
                },
            }),
        }
    }

    /// Gives the socket a task of its own, which holds nothing of how it was opened.
    fn start(self, admitted: Admitted, socket: WebSocket, span: Span) {
        let tasks = self.app.sockets.clone();
        match admitted {
            Admitted::In {
                params,
                topic,
                place,
            } => {
                let inbound = Inbound::new(self.app, socket, params.types, topic, place);
                tasks.spawn(guard::contained(inbound.run().instrument(span)));
            }
            Admitted::Out {
                params,
                place,
                seat,
            } => {
                let outbound = Outbound::new(self.app, socket, params, (place, seat));
                tasks.spawn(guard::contained(outbound.run().instrument(span)));
            }
        }
    }
}

/// Takes the connection over from hyper, of which nothing stays.
async fn upgraded(upgrade: OnUpgrade, message_bytes_max: usize) -> Option<WebSocket> {
    let upgraded = match timeout(UPGRADE_MAX, upgrade).await {
        Ok(Ok(upgraded)) => upgraded,
        Ok(Err(error)) => {
            debug!(%error, "lost before the upgrade");
            return None;
        }
        Err(_) => return None,
    };
    let parts = upgraded
        .downcast::<TokioIo<KeepAliveStream<TcpStream>>>()
        .expect("the server hands hyper nothing but TCP streams");
    let stream = parts.io.into_inner().into_inner();
    Some(WebSocket::new(stream, parts.read_buf, message_bytes_max))
}

fn switching(accept: &str) -> Response<String> {
    let mut response = Response::new(String::new());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    let accept = HeaderValue::from_str(accept).expect("base64 is a sound header value");
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    response
}

fn unfit(error: HandshakeError) -> Refusal {
    let status = match error {
        HandshakeError::NoUpgrade | HandshakeError::Version => StatusCode::UPGRADE_REQUIRED,
        HandshakeError::Key => StatusCode::BAD_REQUEST,
    };
    let refusal = Refusal::new(status, error.to_string());
    if status != StatusCode::UPGRADE_REQUIRED {
        return refusal;
    }
    refusal
        .with(UPGRADE, HeaderValue::from_static("websocket"))
        .with(CONNECTION, HeaderValue::from_static("Upgrade"))
        .with(
            SEC_WEBSOCKET_VERSION,
            HeaderValue::from_static(handshake::VERSION),
        )
}

impl From<ParamError> for Refusal {
    fn from(error: ParamError) -> Self {
        Refusal::bad_request(error.to_string())
    }
}

impl From<Full> for Refusal {
    fn from(full: Full) -> Self {
        Refusal::bad_request(full.to_string())
    }
}

impl From<MetadataError> for Refusal {
    fn from(error: MetadataError) -> Self {
        let message = format!("parameter topic: {error}");
        match error {
            MetadataError::UnknownTopic { .. } | MetadataError::Invalid { .. } => {
                Refusal::bad_request(message)
            }
            MetadataError::NotAuthorized { .. } => Refusal::forbidden(message),
            MetadataError::Unavailable { .. } => Refusal::unavailable(error.to_string()),
        }
    }
}
