//! A Kafka client with nothing between a test and the bytes.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_client::BrokerId;
use kafka_protocol::messages::{ApiVersionsRequest, RequestHeader};
use kafka_protocol::protocol::{
    Decodable, HeaderVersion, Request, encode_request_header_into_buffer,
};
use memory_broker::MemoryBroker;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::PATIENCE;

/// One connection that sends what it is given and shows what comes back.
pub(crate) struct RawClient {
    stream: TcpStream,
    /// Of the last request.
    pub(crate) correlation_id: i32,
    buffer: BytesMut,
}

/// What the broker sent.
#[derive(Debug, PartialEq)]
pub(crate) enum BrokerReply {
    /// A response: its correlation id and the rest of the frame.
    Response(i32, Bytes),
    /// The end of the connection, after so many bytes that are no whole frame.
    Closed(usize),
}

impl RawClient {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self {
            stream: TcpStream::connect(address).await.unwrap(),
            correlation_id: 0,
            buffer: BytesMut::new(),
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

    /// Sends bytes as they are.
    pub(crate) async fn send_raw(&mut self, bytes: &[u8]) {
        // The broker may have closed the connection after the first of them.
        let _ = self.stream.write_all(bytes).await;
    }

    /// The next response, or the end of the connection.
    pub(crate) async fn receive(&mut self) -> BrokerReply {
        let received = timeout(PATIENCE, self.next_frame()).await;
        received.expect("the broker neither answers nor closes")
    }

    /// What has come so far, if it is a whole response or the end of the connection. Together
    /// with [`barrier`] it shows that something does not come.
    pub(crate) async fn received_so_far(&mut self) -> Option<BrokerReply> {
        timeout(Duration::ZERO, self.next_frame()).await.ok()
    }

    async fn next_frame(&mut self) -> BrokerReply {
        let Self { stream, buffer, .. } = self;
        loop {
            if buffer.len() >= 4 {
                let length = (&buffer[..4]).get_u32() as usize;
                if buffer.len() >= 4 + length {
                    let mut frame = buffer.split_to(4 + length).freeze();
                    frame.advance(4);
                    return BrokerReply::Response(frame.get_i32(), frame);
                }
            }
            if matches!(stream.read_buf(buffer).await, Ok(0) | Err(_)) {
                return BrokerReply::Closed(buffer.len());
            }
        }
    }

    pub(crate) async fn response<R: Request>(&mut self, version: i16) -> R::Response {
        let BrokerReply::Response(correlation_id, mut body) = self.receive().await else {
            panic!("the broker closed the connection");
        };
        assert_eq!(correlation_id, self.correlation_id);
        if R::Response::header_version(version) > 0 {
            assert_eq!(body.get_u8(), 0);
        }
        R::Response::decode(&mut body, version).unwrap()
    }

    pub(crate) async fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.send(version, request).await;
        self.response::<R>(version).await
    }
}

/// Ends when whatever the broker can do without waiting for anything has been done.
///
/// A test and its broker share one thread: while the broker answers so many requests on a
/// connection of its own, one after the other, every other task has had its turn many times.
pub(crate) async fn barrier(broker: &MemoryBroker) {
    let mut client = RawClient::to(broker, 1).await;
    for _ in 0..50 {
        client.call(0, &ApiVersionsRequest::default()).await;
    }
}
