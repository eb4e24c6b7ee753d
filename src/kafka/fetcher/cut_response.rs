//! A Fetch response that is too large to be received, as far as it was received.
//!
//! ```text
//! received:   header │ topic, partition, … │ length of the records │ first batch: header, reco
//! completed:         │ topic, partition, … │ of what is here       │ first batch: header, reco │ 0 0 0
//! ```
//!
//! Brokers cut the last batch where a response is full, but send the first one whole, however
//! large it is (KIP-74). Here that is cut too: what its header says is enough to read on behind
//! it.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{FetchRequest, FetchResponse};
use kafka_protocol::protocol::Decodable;

use crate::RequestError;
use crate::net::frame;
use crate::protocol::schema::{self, RecordsPlace};
use crate::protocol::versions::Api;

/// A response whose records are not all there.
#[derive(Debug)]
pub(super) struct CutResponse {
    pub(super) response: FetchResponse,
    /// Bytes of the largest batch that could have been received in it.
    pub(super) batch_bytes_max: usize,
}

impl CutResponse {
    /// The response to a request about one partition; `None` if it failed for another reason, or
    /// too little of it was received.
    pub(super) fn of(error: &RequestError, version: i16) -> Option<Self> {
        let RequestError::ResponseTooLarge { head, limit, .. } = error else {
            return None;
        };
        let mut body = head.0.clone();
        frame::skip_response_header::<FetchRequest>(&mut body, version).ok()?;
        let place = schema::cut_records(FetchRequest::RESPONSE_SCHEMA, version, &body)?;
        let mut completed = complete(&body, place, version);
        schema::validate_response(FetchRequest::RESPONSE_SCHEMA, version, &completed).ok()?;
        let before_records = head.0.len() - body.len() + place.records_at;
        Some(Self {
            response: FetchResponse::decode(&mut completed, version).ok()?,
            batch_bytes_max: limit.saturating_sub(before_records),
        })
    }
}

/// Ends the partition, the topic and the response after the records that are there.
fn complete(body: &Bytes, place: RecordsPlace, version: i16) -> Bytes {
    let records = &body[place.records_at..];
    let mut completed = BytesMut::with_capacity(body.len() + 8);
    completed.extend_from_slice(&body[..place.length_at]);
    let is_flexible = FetchRequest::RESPONSE_SCHEMA
        .flexible_versions
        .contains(version);
    if is_flexible {
        put_unsigned_varint(&mut completed, records.len() + 1);
        completed.extend_from_slice(records);
        // No tagged fields.
        completed.put_bytes(0, 3);
    } else {
        completed.put_i32(super::request::clamp_to_i32(records.len()));
        completed.extend_from_slice(records);
    }
    completed.freeze()
}

fn put_unsigned_varint(out: &mut BytesMut, mut value: usize) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::fetch_response::{
        AbortedTransaction, FetchableTopicResponse, PartitionData,
    };
    use kafka_protocol::protocol::{Encodable, HeaderVersion};
    use uuid::Uuid;

    use super::*;
    use crate::error::{BrokerAddress, ResponseHead};
    use crate::topic::BrokerId;

    const LIMIT: usize = 300;

    fn response(records: &[u8], version: i16) -> FetchResponse {
        let mut partition = PartitionData::default()
            .with_partition_index(3)
            .with_high_watermark(7)
            .with_aborted_transactions(Some(vec![AbortedTransaction::default(); 2]))
            .with_records(Some(Bytes::copy_from_slice(records)));
        if version >= 12 {
            partition.current_leader.leader_epoch = -1;
        }
        let topic = FetchableTopicResponse::default().with_partitions(vec![partition]);
        let topic = match version {
            13.. => topic.with_topic_id(Uuid::from_u128(5)),
            _ => topic.with_topic(kafka_protocol::messages::TopicName("t".to_owned().into())),
        };
        FetchResponse::default().with_responses(vec![topic])
    }

    fn frame(response: &FetchResponse, version: i16) -> Vec<u8> {
        let mut frame = BytesMut::new();
        frame.put_i32(9);
        if FetchResponse::header_version(version) > 0 {
            frame.put_u8(0);
        }
        response.encode(&mut frame, version).unwrap();
        frame.to_vec()
    }

    fn too_large(frame: &[u8], received: usize) -> RequestError {
        RequestError::ResponseTooLarge {
            broker: BrokerAddress {
                id: BrokerId(1),
                address: "b:1".into(),
            },
            api: FetchRequest::NAME,
            size: frame.len(),
            limit: LIMIT,
            head: ResponseHead(Bytes::copy_from_slice(&frame[..received])),
        }
    }

    #[test]
    fn a_response_is_what_was_received_of_it_in_every_version() {
        let records: Vec<u8> = (0..1000).map(|byte| byte as u8).collect();
        for version in FetchRequest::OLDEST_VERSION..=FetchRequest::LATEST_VERSION {
            let whole = frame(&response(&records, version), version);
            let records_at = whole
                .windows(1000)
                .position(|part| part == records)
                .unwrap();
            for received in [records_at + 1, records_at + 200, records_at + 999] {
                let cut = CutResponse::of(&too_large(&whole, received), version).unwrap();
                let expected = response(&records[..received - records_at], version);
                assert_eq!(cut.response, expected, "version {version}, {received}");
                assert_eq!(cut.batch_bytes_max, LIMIT - records_at);
            }
            for received in 0..records_at {
                assert!(CutResponse::of(&too_large(&whole, received), version).is_none());
            }
        }
    }

    #[test]
    fn a_response_about_several_partitions_is_not_completed() {
        for version in [11, 12, 17] {
            let mut response = response(&[7; 1000], version);
            let partition = response.responses[0].partitions[0].clone();
            response.responses[0].partitions.push(partition);
            let whole = frame(&response, version);
            assert!(CutResponse::of(&too_large(&whole, 400), version).is_none());
        }
    }
}
