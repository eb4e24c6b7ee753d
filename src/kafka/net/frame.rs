//! Requests and responses as frames: a length, a header, a body.
//!
//! ```text
//! request   ┌ length i32 ┬ key i16 ┬ version i16 ┬ correlation id i32 ┬ client id … ┬ body ┐
//! response  ┌ length i32 ┬ correlation id i32 ┬ (tagged fields) ┬ body ┐
//! ```
//!
//! # Invariants
//! - A length is checked against the limit before it sizes anything; beyond
//!   [`PREALLOCATED_MAX`] bytes the buffer grows only as bytes arrive.
//! - Reading is cancel-safe: what was read stays in the [`FrameReader`].

#[cfg(test)]
mod fuzz;

use std::error::Error;
use std::io;

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader, RequestKind};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::error::RequestError;
use crate::protocol::schema;
use crate::protocol::topics_by_id;
use crate::protocol::versions::Api;

/// The largest request that is sent, in bytes: brokers refuse more
/// (`socket.request.max.bytes`).
pub(crate) const REQUEST_SIZE_MAX: usize = 100 << 20;

/// Where the correlation id stands in an encoded request.
const CORRELATION_ID_AT: usize = 8;

/// Encodes a whole request, with its length and a correlation id of 0, into one buffer
/// that is allocated once.
pub(crate) fn encode<A: Api>(
    client_id: &StrBytes,
    version: i16,
    request: &A,
) -> Result<BytesMut, RequestError> {
    let unencodable = |error: &dyn std::fmt::Display| RequestError::Unencodable {
        api: A::NAME,
        version,
        reason: error.to_string().into(),
    };
    let header_version = A::header_version(version);
    let header = RequestHeader::default()
        .with_request_api_key(A::KEY)
        .with_request_api_version(version)
        .with_client_id(Some(client_id.clone()));
    let by_hand = request.encode_by_hand(version).transpose();
    let by_hand = by_hand.map_err(|error| unencodable(&error))?;
    let body_size = || match &by_hand {
        Some(body) => Ok(body.len()),
        None => request.compute_size(version),
    };
    let size = header
        .compute_size(header_version)
        .and_then(|header| Ok(header + body_size()?))
        .map_err(|error| unencodable(&error))?;
    if size > REQUEST_SIZE_MAX {
        return Err(RequestError::TooLarge {
            api: A::NAME,
            size,
            limit: REQUEST_SIZE_MAX,
        });
    }
    let mut frame = BytesMut::with_capacity(4 + size);
    frame.extend_from_slice(&[0; 4]);
    header
        .encode(&mut frame, header_version)
        .and_then(|()| match &by_hand {
            Some(body) => {
                frame.extend_from_slice(body);
                Ok(())
            }
            None => request.encode(&mut frame, version),
        })
        .map_err(|error| unencodable(&error))?;
    let length = i32::try_from(frame.len() - 4).expect("bounded by REQUEST_SIZE_MAX");
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Ok(frame)
}

/// Writes the correlation id into an encoded request.
pub(crate) fn set_correlation_id(frame: &mut BytesMut, id: i32) {
    frame[CORRELATION_ID_AT..CORRELATION_ID_AT + 4].copy_from_slice(&id.to_be_bytes());
}

/// The correlation id of a response.
pub(crate) fn correlation_id(frame: &[u8]) -> Option<i32> {
    frame.first_chunk::<4>().map(|id| i32::from_be_bytes(*id))
}

/// Decodes a whole response frame, once it has been seen to be all there.
pub(crate) fn decode<A: Api>(frame: &mut Bytes, version: i16) -> Result<A::Response, String> {
    skip_response_header::<A>(frame, version)?;
    schema::validate_response(A::RESPONSE_SCHEMA, version, frame)
        .map_err(|error| error.to_string())?;
    A::Response::decode(frame, version).map_err(|error| error.to_string())
}

/// Leaves the body of a response, or what there is of it.
pub(crate) fn skip_response_header<A: Api>(frame: &mut Bytes, version: i16) -> Result<(), String> {
    frame
        .try_get_i32()
        .map_err(|_| "it has no correlation id".to_owned())?;
    if A::Response::header_version(version) > 0 {
        schema::skip_tagged_fields(frame).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Decodes a whole request frame, for our own broker, once it has been seen to be all
/// there.
pub fn decode_request(
    api: ApiKey,
    version: i16,
    frame: &mut Bytes,
) -> Result<(RequestHeader, RequestKind), String> {
    schema::validate_request(api, version, frame).map_err(|error| error.to_string())?;
    let header = RequestHeader::decode(frame, api.request_header_version(version))
        .map_err(|error| format!("{error:#}"))?;
    let request = topics_by_id::decode_request(api, version, frame).unwrap_or_else(|| {
        RequestKind::decode(api, frame, version).map_err(|error| format!("{error:#}"))
    });
    Ok((header, request?))
}

/// Up to this length a buffer is allocated by what the length field claims.
const PREALLOCATED_MAX: usize = 1 << 20;
/// Frames up to this length are copied out: whoever keeps a string of a response must
/// not keep the whole read buffer alive.
const COPIED_MAX: usize = 4 << 10;
/// What is asked of the socket at least.
const READ_AHEAD: usize = 8 << 10;
/// A response is at least its correlation id.
const RESPONSE_SIZE_MIN: usize = 4;

/// A frame is longer than the limit: the error within the [`io::Error`] of [`FrameReader::next`].
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a frame of {size} bytes is over the limit of {limit}")]
pub(crate) struct FrameTooLarge {
    pub(crate) size: usize,
    pub(crate) limit: usize,
}

/// Cuts a byte stream into frames.
#[derive(Debug)]
pub(crate) struct FrameReader<R> {
    source: R,
    buffer: BytesMut,
    limit: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads frames of up to `limit` bytes from `source`.
    pub(crate) fn new(source: R, limit: usize) -> Self {
        Self {
            source,
            buffer: BytesMut::new(),
            limit,
        }
    }

    /// The next frame without its length; `None` at the end of the stream between two
    /// frames. Cancel-safe.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let wanted = match self.buffer.first_chunk::<4>() {
                Some(length) => {
                    let length = self.check_length(i32::from_be_bytes(*length))?;
                    if self.buffer.len() >= 4 + length {
                        return Ok(Some(self.take(length)));
                    }
                    4 + length - self.buffer.len()
                }
                None => READ_AHEAD,
            };
            // Beyond that it at most doubles what has arrived.
            self.buffer
                .reserve(wanted.min(self.buffer.len().max(PREALLOCATED_MAX)));
            if self.source.read_buf(&mut self.buffer).await? == 0 {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(self.ended_early()),
                };
            }
        }
    }

    /// The first `length` bytes of a frame that [`next`](Self::next) found to be too large.
    /// Cancel-safe.
    pub(crate) async fn head(&mut self, length: usize) -> io::Result<Bytes> {
        while self.buffer.len() < 4 + length {
            self.buffer.reserve(4 + length - self.buffer.len());
            if self.source.read_buf(&mut self.buffer).await? == 0 {
                return Err(self.ended_early());
            }
        }
        Ok(Bytes::copy_from_slice(&self.buffer[4..4 + length]))
    }

    fn ended_early(&self) -> io::Error {
        io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("the stream ended {} bytes into a frame", self.buffer.len()),
        )
    }

    fn check_length(&self, length: i32) -> io::Result<usize> {
        let limit = self.limit;
        let size = usize::try_from(length).ok();
        if let Some(size) = size.filter(|size| (RESPONSE_SIZE_MIN..=limit).contains(size)) {
            return Ok(size);
        }
        let error: Box<dyn Error + Send + Sync> = match (foreign_protocol(length), size) {
            (Some(protocol), _) => protocol.into(),
            (None, Some(size)) if size > limit => FrameTooLarge { size, limit }.into(),
            _ => {
                let range = format!("{RESPONSE_SIZE_MIN} to {limit}");
                format!("a frame of {length} bytes is not within {range}").into()
            }
        };
        Err(io::Error::new(io::ErrorKind::InvalidData, error))
    }

    fn take(&mut self, length: usize) -> Bytes {
        if length <= COPIED_MAX {
            let frame = Bytes::copy_from_slice(&self.buffer[4..4 + length]);
            self.buffer.advance(4 + length);
            frame
        } else {
            self.buffer.advance(4);
            self.buffer.split_to(length).freeze()
        }
    }
}

/// What stands in the place of a length when the port is no broker's, or speaks TLS.
fn foreign_protocol(length: i32) -> Option<&'static str> {
    Some(match &length.to_be_bytes() {
        // A record (RFC 8446, section 5.1): alert or handshake, then the version.
        [0x15 | 0x16, 3, 0..=4, _] => "this port speaks TLS; set security.protocol",
        b"HTTP" => "this port speaks HTTP, and is no broker's",
        b"SSH-" => "this port speaks SSH, and is no broker's",
        text if text.iter().all(|byte| matches!(byte, b' '..=b'~')) => {
            "this port answers in text, and is no broker's"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;
    use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestTopic;
    use kafka_protocol::messages::offset_fetch_request::{
        OffsetFetchRequestGroup, OffsetFetchRequestTopics,
    };
    use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
    use kafka_protocol::messages::{
        HeartbeatRequest, OffsetCommitRequest, OffsetFetchRequest, ProduceRequest, RequestHeader,
    };
    use tokio::io::AsyncWriteExt;
    use uuid::Uuid;

    use super::*;

    const LIMIT: usize = 100 << 20;

    fn stream(lengths: &[usize]) -> Vec<u8> {
        let mut stream = Vec::new();
        for (i, &length) in (0..).zip(lengths) {
            stream.put_i32(i32::try_from(length).unwrap());
            stream.put_bytes(i, length);
        }
        stream
    }

    async fn read_all(stream: &[u8]) -> Vec<Bytes> {
        let mut reader = FrameReader::new(stream, LIMIT);
        let mut frames = Vec::new();
        while let Some(frame) = reader.next().await.unwrap() {
            frames.push(frame);
        }
        frames
    }

    #[tokio::test]
    async fn frames_of_any_size_are_cut_where_they_end() {
        let lengths = [4, 5, 4096, 4097, 1 << 20, 3 << 20, 17];
        let frames = read_all(&stream(&lengths)).await;
        assert_eq!(frames.len(), lengths.len());
        for (i, (frame, length)) in (0..).zip(frames.iter().zip(lengths)) {
            assert_eq!(frame.len(), length);
            assert!(frame.iter().all(|byte| *byte == i));
        }
    }

    #[tokio::test]
    async fn bytes_may_come_one_by_one_and_reading_may_be_given_up_in_between() {
        let (mut ours, theirs) = tokio::io::duplex(1);
        let bytes = stream(&[9, 4, 300]);
        let send = async move {
            for byte in bytes {
                ours.write_all(&[byte]).await.unwrap();
            }
        };
        let read = async {
            let mut reader = FrameReader::new(theirs, LIMIT);
            let mut frames = Vec::new();
            loop {
                tokio::select! {
                    biased;
                    frame = reader.next() => match frame.unwrap() {
                        Some(frame) => frames.push(frame.len()),
                        None => return frames,
                    },
                    () = tokio::task::yield_now() => {}
                }
            }
        };
        let ((), lengths) = tokio::join!(send, read);
        assert_eq!(lengths, [9, 4, 300]);
    }

    #[tokio::test]
    async fn a_length_that_is_only_claimed_allocates_little() {
        let mut claim = BytesMut::new();
        claim.put_i32(i32::try_from(LIMIT).unwrap());
        claim.put_slice(b"and no more");
        let mut reader = FrameReader::new(&claim[..], LIMIT);
        let error = reader.next().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(reader.buffer.capacity() <= 2 * PREALLOCATED_MAX);
    }

    #[tokio::test]
    async fn a_length_beyond_the_limit_is_an_error() {
        for length in [-1, 0, 3, i32::MAX, i32::try_from(LIMIT).unwrap() + 1] {
            let bytes = length.to_be_bytes();
            let mut reader = FrameReader::new(&bytes[..], LIMIT);
            let error = reader.next().await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }

    #[tokio::test]
    async fn what_another_protocol_says_in_the_place_of_a_length_is_called_by_its_name() {
        for (bytes, name) in [
            (&b"\x15\x03\x03\x00\x02\x02\x0a"[..], "TLS"),
            (b"\x15\x03\x01\x00\x02\x02\x46", "TLS"),
            (b"HTTP/1.1 400 Bad Request\r\n", "HTTP"),
            (b"SSH-2.0-x\r\n", "SSH"),
            (b"-ERR unknown command\r\n", "in text"),
            (b"\x7f\xff\xff\xff", "a frame of 2147483647 bytes"),
        ] {
            let mut reader = FrameReader::new(bytes, LIMIT);
            let error = reader.next().await.unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn a_request_is_its_length_its_header_and_its_body() {
        let client_id = StrBytes::from_static_str("me");
        let request = HeartbeatRequest::default();
        for version in HeartbeatRequest::OLDEST_VERSION..=HeartbeatRequest::LATEST_VERSION {
            let mut frame = encode(&client_id, version, &request).unwrap();
            set_correlation_id(&mut frame, 42);
            let mut bytes = frame.freeze();
            assert_eq!(bytes.get_i32() as usize, bytes.len());
            let header_version = HeartbeatRequest::header_version(version);
            let header = RequestHeader::decode(&mut bytes, header_version).unwrap();
            assert_eq!(header.request_api_key, 12);
            assert_eq!(header.request_api_version, version);
            assert_eq!(header.correlation_id, 42);
            assert_eq!(header.client_id.as_deref(), Some("me"));
            HeartbeatRequest::decode(&mut bytes, version).unwrap();
            assert!(bytes.is_empty());
        }
    }

    #[test]
    fn a_request_that_names_topics_by_id_has_kafkas_schema_and_reads_back() {
        let (client_id, id) = (StrBytes::from_static_str("me"), Uuid::from_u128(5));
        let topic = OffsetCommitRequestTopic::default()
            .with_topic_id(id)
            .with_partitions(vec![Default::default(); 2]);
        let commit = OffsetCommitRequest::default().with_topics(vec![topic]);
        let frame = encode(&client_id, 10, &commit).unwrap();
        let mut body = frame.freeze().slice(4..);
        let (header, decoded) = decode_request(ApiKey::OffsetCommit, 10, &mut body).unwrap();
        assert_eq!((decoded, header.request_api_version), (commit.into(), 10));
        assert!(body.is_empty());

        let topic = OffsetFetchRequestTopics::default()
            .with_topic_id(id)
            .with_partition_indexes(vec![3, 4]);
        let group = OffsetFetchRequestGroup::default().with_topics(Some(vec![topic]));
        let fetch = OffsetFetchRequest::default().with_groups(vec![group]);
        let frame = encode(&client_id, 10, &fetch).unwrap();
        let mut body = frame.freeze().slice(4..);
        let (_, decoded) = decode_request(ApiKey::OffsetFetch, 10, &mut body).unwrap();
        assert_eq!(decoded, fetch.into());
        assert!(body.is_empty());
    }

    #[test]
    fn a_request_beyond_the_limit_is_not_even_encoded() {
        let records = Bytes::from(vec![0; REQUEST_SIZE_MAX]);
        let partition = PartitionProduceData::default().with_records(Some(records));
        let topic = TopicProduceData::default().with_partition_data(vec![partition]);
        let request = ProduceRequest::default().with_topic_data(vec![topic]);
        let error = encode(&StrBytes::default(), 9, &request).unwrap_err();
        assert!(matches!(
            error,
            RequestError::TooLarge { api: "Produce", .. }
        ));
        assert!(!error.maybe_sent());
    }
}
