//! A Kafka client that sends what it is told to.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_client::BrokerId;
use kafka_protocol::messages::RequestHeader;
use kafka_protocol::protocol::{
    Decodable, HeaderVersion, Request, encode_request_header_into_buffer,
};
use memory_broker::MemoryBroker;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Of every answer.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// A client with nothing between it and the bytes.
pub(crate) struct Bare {
    stream: TcpStream,
    /// Of the last request.
    pub(crate) correlation_id: i32,
    got: BytesMut,
}

/// What came from the broker: of an answer the correlation id and the rest.
#[derive(Debug, PartialEq)]
pub(crate) enum Heard {
    Answer(i32, Bytes),
    Closed(usize),
    Nothing,
}

impl Bare {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self {
            stream: TcpStream::connect(address).await.unwrap(),
            correlation_id: 0,
            got: BytesMut::new(),
        }
    }

    pub(crate) async fn to(broker: &MemoryBroker, node: i32) -> Self {
        Self::connect(broker.address(BrokerId(node)).unwrap()).await
    }

    pub(crate) async fn send<R: Request>(&mut self, version: i16, request: &R) {
        self.correlation_id += 1;
        let mut frame = BytesMut::new();
        frame.put_i32(0);
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation_id);
        encode_request_header_into_buffer(&mut frame, &header).unwrap();
        request.encode(&mut frame, version).unwrap();
        let length = frame.len() as u32 - 4;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        self.stream.write_all(&frame).await.unwrap();
    }

    /// Bytes, whatever they are.
    pub(crate) async fn send_raw(&mut self, bytes: &[u8]) {
        // The broker may have had enough of them already.
        let _ = self.stream.write_all(bytes).await;
    }

    /// The next frame, or what came instead within the time.
    pub(crate) async fn hear(&mut self, within: Duration) -> Heard {
        let Self { stream, got, .. } = self;
        let heard = timeout(within, async {
            loop {
                if got.len() >= 4 {
                    let length = (&got[..4]).get_u32() as usize;
                    if got.len() >= 4 + length {
                        let mut frame = got.split_to(4 + length).freeze();
                        frame.advance(4);
                        return Heard::Answer(frame.get_i32(), frame);
                    }
                }
                if matches!(stream.read_buf(got).await, Ok(0) | Err(_)) {
                    return Heard::Closed(got.len());
                }
            }
        });
        heard.await.unwrap_or(Heard::Nothing)
    }

    pub(crate) async fn answer<R: Request>(&mut self, version: i16) -> R::Response {
        let Heard::Answer(correlation_id, mut body) = self.hear(DEADLINE).await else {
            panic!("no answer");
        };
        assert_eq!(correlation_id, self.correlation_id);
        if R::Response::header_version(version) > 0 {
            assert_eq!(body.get_u8(), 0);
        }
        R::Response::decode(&mut body, version).unwrap()
    }

    pub(crate) async fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.send(version, request).await;
        self.answer::<R>(version).await
    }
}
