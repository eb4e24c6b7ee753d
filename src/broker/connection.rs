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
//!   lengths before it is decoded: a client that sends anything else loses its
//!   connection, and no other client is affected.
//! - A parked request does not keep its frame alive.

#[cfg(any(test, feature = "faults"))]
mod faulty;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{ApiKey, RequestKind, ResponseKind};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use kafka_client::net;

use super::api;
use super::connection_end::ConnectionEnd;
use super::context::{ClusterContext, RequestContext};
use super::request_reader::RequestReader;
use super::wire::owned;

/// Serves a connection until it ends.
pub(super) async fn serve(
    shared: Arc<ClusterContext>,
    node: i32,
    mut stream: TcpStream,
    host: SocketAddr,
) -> ConnectionEnd {
    #[cfg(any(test, feature = "faults"))]
    let counted = Arc::clone(&shared);
    #[cfg(any(test, feature = "faults"))]
    let _counted = counted.counters.connected();
    let context = RequestContext {
        shared,
        node,
        client_id: Default::default(),
        host,
    };
    match run(context, &mut stream).await {
        Ok(never) => match never {},
        Err(closed) => closed,
    }
}

async fn run(
    mut context: RequestContext,
    stream: &mut TcpStream,
) -> Result<std::convert::Infallible, ConnectionEnd> {
    stream.set_nodelay(true)?;
    let shared = Arc::clone(&context.shared);
    let mut requests = RequestReader::new(shared.config.request_max_bytes);
    loop {
        let (frame, memory) = requests.next(stream, &shared.request_memory).await?;
        let prefix = RequestPrefix::parse(&frame)?;
        // Requests that may be parked copy what they need of the frame.
        let may_wait = matches!(
            prefix.api,
            ApiKey::Fetch | ApiKey::JoinGroup | ApiKey::SyncGroup
        );
        let memory = memory.filter(|_| !may_wait);
        #[cfg(any(test, feature = "faults"))]
        {
            shared.counters.request(prefix.api);
            if let Some(action) = shared.faults.take(context.node, prefix.api) {
                faulty::answer(&mut context, stream, &prefix, frame, action).await?;
                continue;
            }
        }
        let answer = match decode(&mut context, &prefix, frame)? {
            DecodedRequest::UnsupportedVersion(answer) => Some(answer),
            DecodedRequest::Request(request) => api::answer(&context, prefix.version, *request)
                .await
                .map(|response| encode(&prefix, prefix.version, &response))
                .transpose()?,
        };
        drop(memory);
        if let Some(answer) = answer {
            let _taken = shared.response_memory.take(answer.len());
            stream.write_all(&answer).await?;
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
        let prefix = Self {
            api: ApiKey::try_from(api)
                .map_err(|()| ConnectionEnd::Protocol(format!("unknown API key {api}")))?,
            version: frame.get_i16(),
            correlation_id: frame.get_i32(),
        };
        Ok(prefix)
    }
}

/// A request, or the answer to one whose version is not served.
enum DecodedRequest {
    Request(Box<RequestKind>),
    /// ApiVersions is answered in version 0, which every client can read.
    UnsupportedVersion(BytesMut),
}

fn decode(
    context: &mut RequestContext,
    prefix: &RequestPrefix,
    mut frame: Bytes,
) -> Result<DecodedRequest, ConnectionEnd> {
    let RequestPrefix { api, version, .. } = *prefix;
    let config = &context.shared.config;
    if !config.versions.serves(api, version) {
        if api != ApiKey::ApiVersions {
            return Err(ConnectionEnd::Protocol(format!(
                "{api:?} of version {version}"
            )));
        }
        let error = ResponseError::UnsupportedVersion.code();
        let response = api::versions(config, 0, error);
        return encode(prefix, 0, &response.into()).map(DecodedRequest::UnsupportedVersion);
    }
    let (header, request) = net::decode_request(api, version, &mut frame)
        .map_err(|what| ConnectionEnd::Protocol(format!("{api:?} v{version}: {what}")))?;
    context.client_id = owned(header.client_id.as_deref().unwrap_or_default());
    Ok(DecodedRequest::Request(Box::new(request)))
}

/// The whole frame of an answer.
fn encode(
    prefix: &RequestPrefix,
    version: i16,
    response: &ResponseKind,
) -> Result<BytesMut, ConnectionEnd> {
    let mut out = BytesMut::with_capacity(256);
    out.put_i32(0);
    out.put_i32(prefix.correlation_id);
    if prefix.api.response_header_version(prefix.version) > 0 && prefix.api != ApiKey::ApiVersions {
        out.put_u8(0);
    }
    response.encode(&mut out, version).map_err(|what| {
        tracing::error!(api = ?prefix.api, version, error = %what, "an answer could not be encoded");
        ConnectionEnd::Protocol(format!("{:?} v{version}: {what:#}", prefix.api))
    })?;
    let length = (out.len() - 4) as u32;
    out[..4].copy_from_slice(&length.to_be_bytes());
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_without_a_whole_header_is_refused() {
        assert!(RequestPrefix::parse(&[0, 3, 0, 1, 0, 0, 0]).is_err());
        assert!(RequestPrefix::parse(&[0, 127, 0, 1, 0, 0, 0, 0]).is_err());
        let prefix = RequestPrefix::parse(&[0, 3, 0, 1, 0, 0, 0, 9]).unwrap();
        assert_eq!((prefix.version, prefix.correlation_id), (1, 9));
        assert_eq!(prefix.api, ApiKey::Metadata);
    }
}
