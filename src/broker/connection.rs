//! One client's connection to one node.
//!
//! ```text
//! read a request ─▶ fault? ─▶ handle, however long it takes ─▶ write the answer ─┐
//!       ▲                                                                        │
//!       └────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! # Invariants
//! - One request at a time, as in Kafka's `SocketServer`: nothing behind a parked join or a
//!   long poll is read before that is answered.
//! - A frame's length is checked before anything is allocated for it, and its counts and
//!   lengths before it is decoded: who sends nonsense loses the connection, and no other
//!   client notices.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{ApiKey, ResponseKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use kafka_client::net;

use super::api;
use super::faults::FaultAction;
use super::refusal;
use super::requests::RequestReader;
use super::shared::{ClusterContext, RequestContext, kept};

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionEnd {
    /// The client, or the network.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The client did not speak the protocol.
    #[error("{0}")]
    Protocol(String),
    /// A scripted fault.
    #[error("closed on purpose")]
    Fault,
}

/// Serves a connection until it ends.
pub(super) async fn serve(
    shared: Arc<ClusterContext>,
    node: i32,
    mut stream: TcpStream,
    host: SocketAddr,
) -> ConnectionEnd {
    let counters = Arc::clone(&shared);
    let _counted = counters.counters.connected();
    let caller = RequestContext {
        shared,
        node,
        client_id: Default::default(),
        host,
    };
    match run(caller, &mut stream).await {
        Ok(never) => match never {},
        Err(closed) => closed,
    }
}

async fn run(
    mut caller: RequestContext,
    stream: &mut TcpStream,
) -> Result<std::convert::Infallible, ConnectionEnd> {
    stream.set_nodelay(true)?;
    let shared = Arc::clone(&caller.shared);
    let mut requests = RequestReader::new(shared.config.request_max_bytes);
    loop {
        let (frame, room) = requests.next(stream, &shared.room).await?;
        let head = RequestPrefix::parse(&frame)?;
        // Of these nothing but copies is left when they wait.
        let may_wait = matches!(
            head.api,
            ApiKey::Fetch | ApiKey::JoinGroup | ApiKey::SyncGroup
        );
        let room = room.filter(|_| !may_wait);
        shared.counters.request(head.api);
        match shared.faults.take(caller.node, head.api) {
            None => {
                let answer = respond(&mut caller, &head, frame, None).await?;
                drop(room);
                if let Some(answer) = answer {
                    let _counted = shared.counters.answering(answer.len());
                    stream.write_all(&answer).await?;
                }
            }
            Some(action) => misbehave(&mut caller, stream, &head, frame, action).await?,
        }
    }
}

/// The start of every request, whatever its version.
#[derive(Clone, Copy, Debug)]
struct RequestPrefix {
    api: ApiKey,
    version: i16,
    correlation_id: i32,
}

impl RequestPrefix {
    fn parse(mut frame: &[u8]) -> Result<Self, ConnectionEnd> {
        if frame.len() < 8 {
            return Err(ConnectionEnd::Protocol(
                "a request shorter than its header".into(),
            ));
        }
        let api = frame.get_i16();
        let head = Self {
            api: ApiKey::try_from(api)
                .map_err(|()| ConnectionEnd::Protocol(format!("unknown API key {api}")))?,
            version: frame.get_i16(),
            correlation_id: frame.get_i32(),
        };
        Ok(head)
    }
}

/// The whole frame that answers a request; None if no answer is due. With `error`, the
/// answer says that instead of the truth.
async fn respond(
    caller: &mut RequestContext,
    head: &RequestPrefix,
    mut frame: Bytes,
    twist: Option<AnswerFault>,
) -> Result<Option<BytesMut>, ConnectionEnd> {
    let RequestPrefix { api, version, .. } = *head;
    let versions = &caller.shared.config.versions;
    if !versions.serves(api, version) {
        if api != ApiKey::ApiVersions {
            return Err(ConnectionEnd::Protocol(format!(
                "{api:?} of version {version}"
            )));
        }
        // Said in version 0, which every client can read.
        let error = ResponseError::UnsupportedVersion.code();
        let response = api::versions(versions, error);
        return encode(head, 0, &response.into()).map(Some);
    }
    let (header, request) = net::decode_request(api, version, &mut frame)
        .map_err(|what| ConnectionEnd::Protocol(format!("{api:?} v{version}: {what}")))?;
    caller.client_id = kept(header.client_id.as_deref().unwrap_or_default());
    // Whoever waits must not keep the bytes.
    drop((header, frame));
    let response = match twist {
        Some(AnswerFault::Refuse(code)) => api::refuse(caller, version, request, code),
        // A fetch changes nothing but its session, which must not be used twice.
        Some(AnswerFault::Deny(code)) if api == ApiKey::Fetch => {
            api::refuse(caller, version, request, code)
        }
        Some(AnswerFault::Deny(code)) => {
            let asked = request.clone();
            let answered = api::answer(caller, version, request).await.is_some();
            answered
                .then(|| api::refuse(caller, version, asked, code))
                .flatten()
        }
        None => api::answer(caller, version, request).await,
        Some(AnswerFault::Throttle(ms)) => {
            let mut response = api::answer(caller, version, request).await;
            if let Some(response) = &mut response {
                refusal::throttle(response, ms);
            }
            response
        }
    };
    response
        .map(|response| encode(head, version, &response))
        .transpose()
}

/// How an answer differs from the truth.
#[derive(Clone, Copy, Debug)]
enum AnswerFault {
    Refuse(i16),
    Deny(i16),
    Throttle(i32),
}

fn encode(
    head: &RequestPrefix,
    version: i16,
    response: &ResponseKind,
) -> Result<BytesMut, ConnectionEnd> {
    let mut out = BytesMut::with_capacity(256);
    out.put_i32(0);
    out.put_i32(head.correlation_id);
    if head.api.response_header_version(head.version) > 0 && head.api != ApiKey::ApiVersions {
        out.put_u8(0);
    }
    response.encode(&mut out, version).map_err(|what| {
        tracing::error!(api = ?head.api, version, error = %what, "an answer could not be encoded");
        ConnectionEnd::Protocol(format!("{:?} v{version}: {what:#}", head.api))
    })?;
    let length = (out.len() - 4) as u32;
    out[..4].copy_from_slice(&length.to_be_bytes());
    Ok(out)
}

/// Applies a scripted fault to a request.
async fn misbehave(
    caller: &mut RequestContext,
    stream: &mut TcpStream,
    head: &RequestPrefix,
    frame: Bytes,
    action: FaultAction,
) -> Result<(), ConnectionEnd> {
    let twist = match action {
        FaultAction::Error(code) => Some(AnswerFault::Refuse(code)),
        FaultAction::ErrorAfter(code) => Some(AnswerFault::Deny(code)),
        FaultAction::Throttle(ms) => Some(AnswerFault::Throttle(ms)),
        FaultAction::CloseBefore => return Err(ConnectionEnd::Fault),
        FaultAction::Silence => return Err(silence(stream).await),
        FaultAction::Garbage(bytes) => {
            stream.write_all(&bytes).await?;
            return Ok(());
        }
        _ => None,
    };
    let mut head = *head;
    if matches!(action, FaultAction::WrongCorrelationId) {
        head.correlation_id = head.correlation_id.wrapping_add(1_000_000);
    }
    let answer = respond(caller, &head, frame, twist).await?;
    match action {
        FaultAction::CloseAfter => return Err(ConnectionEnd::Fault),
        FaultAction::SilenceAfter => return Err(silence(stream).await),
        FaultAction::Delay(delay) => wait(delay).await,
        _ => {}
    }
    let Some(answer) = answer else {
        return Ok(());
    };
    if let FaultAction::Truncated(length) = action {
        stream
            .write_all(&answer[..length.min(answer.len())])
            .await?;
        stream.shutdown().await?;
        return Err(ConnectionEnd::Fault);
    }
    stream.write_all(&answer).await?;
    Ok(())
}

async fn wait(delay: Duration) {
    tokio::time::sleep(delay).await;
}

/// Takes what the client sends and says nothing until it gives up.
async fn silence(stream: &mut TcpStream) -> ConnectionEnd {
    let mut ignored = [0; 4096];
    loop {
        match stream.read(&mut ignored).await {
            Ok(0) => return ConnectionEnd::Fault,
            Ok(_) => {}
            Err(error) => return error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_without_a_whole_header_is_refused() {
        assert!(RequestPrefix::parse(&[0, 3, 0, 1, 0, 0, 0]).is_err());
        assert!(RequestPrefix::parse(&[0, 127, 0, 1, 0, 0, 0, 0]).is_err());
        let head = RequestPrefix::parse(&[0, 3, 0, 1, 0, 0, 0, 9]).unwrap();
        assert_eq!((head.version, head.correlation_id), (1, 9));
        assert_eq!(head.api, ApiKey::Metadata);
    }
}
