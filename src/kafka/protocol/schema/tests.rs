//! Each schema held against the codec: here of the responses, in [`requests`] of the
//! requests.

mod requests;

use std::collections::BTreeSet;
use std::sync::Mutex;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{self, FetchRequest, MetadataRequest};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion};

use super::validator::{SchemaError, after_body};
use super::*;
use crate::net::frame;
use crate::protocol::versions::{APIS, Api};

/// Calls a function for every API in every version that is sent.
macro_rules! each_api_version {
    ($function:ident: $($api:ident)*) => {$(
        for version in messages::$api::OLDEST_VERSION..=messages::$api::LATEST_VERSION {
            $function::<messages::$api>(version);
        }
    )*};
    ($function:ident) => {
        each_api_version! {
            $function: ProduceRequest FetchRequest MetadataRequest ListOffsetsRequest
            OffsetCommitRequest OffsetFetchRequest FindCoordinatorRequest JoinGroupRequest
            SyncGroupRequest HeartbeatRequest LeaveGroupRequest InitProducerIdRequest
            OffsetForLeaderEpochRequest CreateTopicsRequest DescribeConfigsRequest
            DescribeClusterRequest ApiVersionsRequest SaslHandshakeRequest
            SaslAuthenticateRequest ListGroupsRequest DescribeGroupsRequest
            ConsumerGroupDescribeRequest OffsetDeleteRequest AddPartitionsToTxnRequest
            EndTxnRequest
        }
    };
}

/// After the macro that it uses.
mod fuzz;

/// A body of that schema: two elements in each array, every byte of every number 1, and
/// all tagged fields that the version has, and an unknown one.
struct SampleBody {
    version: i16,
    flexible: bool,
    body: BytesMut,
}

impl SampleBody {
    fn of(schema: &MessageSchema, version: i16) -> Bytes {
        let mut sample = Self {
            version,
            flexible: schema.flexible_versions.contains(version),
            body: BytesMut::new(),
        };
        sample.fields(schema.fields);
        sample.body.freeze()
    }

    fn fields(&mut self, fields: &[FieldSchema]) {
        let known = fields
            .iter()
            .filter(|field| field.versions.contains(self.version));
        let (tagged, untagged): (Vec<_>, Vec<_>) = known.partition(|field| field.tag.is_some());
        for field in untagged {
            self.value(&field.field_type);
        }
        if self.flexible {
            self.tagged_fields(tagged);
        }
    }

    fn value(&mut self, field_type: &FieldType) {
        match field_type {
            FieldType::String if self.flexible => self.body.put_slice(b"\x03ab"),
            FieldType::String => self.body.put_slice(b"\0\x02ab"),
            FieldType::Bytes | FieldType::Records => {
                self.length(3);
                self.body.put_slice(b"\0\0\0");
            }
            FieldType::Array(element) => {
                self.length(2);
                self.value(element);
                self.value(element);
            }
            FieldType::Struct(fields) => self.fields(fields),
            number => {
                let size = usize::from(number.fixed_size());
                assert!(size > 0, "{number:?}");
                self.body.put_bytes(1, size);
            }
        }
    }

    fn tagged_fields(&mut self, mut fields: Vec<&FieldSchema>) {
        fields.sort_by_key(|field| field.tag);
        self.body.put_u8(1 + fields.len() as u8);
        for field in fields {
            let before = std::mem::take(&mut self.body);
            self.value(&field.field_type);
            let value = std::mem::replace(&mut self.body, before);
            self.body
                .put_slice(&[field.tag.unwrap() as u8, value.len() as u8]);
            self.body.extend_from_slice(&value);
        }
        self.body.put_slice(b"\x63\x02ab");
    }

    fn length(&mut self, length: u8) {
        if self.flexible {
            self.body.put_u8(length + 1);
        } else {
            self.body.put_i32(i32::from(length));
        }
    }
}

fn sample<A: Api>(version: i16) -> Bytes {
    SampleBody::of(A::RESPONSE_SCHEMA, version)
}

#[test]
fn every_version_of_every_api_is_held_against_the_decoder() {
    static HELD: Mutex<BTreeSet<(i16, i16)>> = Mutex::new(BTreeSet::new());
    fn hold<A: Api>(version: i16) {
        HELD.lock().unwrap().insert((A::KEY, version));
    }
    each_api_version!(hold);
    let sent = APIS.iter().flat_map(|api| {
        let versions = api.versions.lowest..=api.versions.highest;
        versions.map(|version| (api.key, version))
    });
    assert_eq!(*HELD.lock().unwrap(), sent.collect());
}

#[test]
fn every_response_has_the_schema_that_the_decoder_reads() {
    fn agrees<A: Api>(version: i16) {
        let body = sample::<A>(version);
        let what = format!("{} {version}", A::NAME);
        assert_eq!(
            after_body(A::RESPONSE_SCHEMA, version, &body),
            Ok(&[][..]),
            "{what}"
        );
        let mut rest = body.clone();
        let response = A::Response::decode(&mut rest, version)
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(rest.is_empty(), "{what}");
        let mut again = BytesMut::new();
        response.encode(&mut again, version).unwrap();
        assert_eq!(again, body, "{what}");
    }
    each_api_version!(agrees);
}

#[test]
fn a_response_that_is_cut_anywhere_is_refused() {
    fn refused<A: Api>(version: i16) {
        let body = sample::<A>(version);
        for length in 0..body.len() {
            assert!(validate_response(A::RESPONSE_SCHEMA, version, &body[..length]).is_err());
        }
    }
    each_api_version!(refused);
}

/// Unchecked, the first of these ends the process.
#[test]
fn absurd_counts_and_noise_in_any_place_of_any_response_cost_nothing() {
    fn survives<A: Api>(version: i16) {
        let frame = frame_of::<A>(version, &sample::<A>(version));
        let from = frame.len() - sample::<A>(version).len();
        for noise in noise(&frame, from) {
            let _ = frame::decode::<A>(&mut noise.freeze(), version);
        }
    }
    fn frame_of<A: Api>(version: i16, body: &[u8]) -> BytesMut {
        let mut frame = BytesMut::from(&[0; 4][..]);
        if A::Response::header_version(version) > 0 {
            frame.put_u8(0);
        }
        frame.extend_from_slice(body);
        frame
    }
    let before = peak_of_address_space();
    each_api_version!(survives);
    let grown = peak_of_address_space() - before;
    assert!(grown < 1 << 20, "grew by {grown} KiB");
}

/// That frame with something absurd in every place from there on, and with many small
/// faults.
fn noise(frame: &[u8], from: usize) -> impl Iterator<Item = BytesMut> {
    const ABSURD: [&[u8]; 8] = [
        b"\x7f\xff\xff\xff",
        b"\x00\xff\xff\xff",
        b"\xff\xff\xff\xfe",
        b"\xff\xff\xff\xff\x07",
        b"\xff\xff\xff\xff\xff",
        b"\xff\xff\x7f",
        b"\x00",
        b"\xff",
    ];
    let mut dice = 0x9e37_79b9_u32;
    (from..frame.len()).flat_map(move |at| {
        let mut all = Vec::new();
        for absurd in ABSURD {
            // In place of what is there, and pushed in between.
            for kept in [at, (at + absurd.len()).min(frame.len())] {
                all.push([&frame[..at], absurd, &frame[kept..]].concat());
            }
        }
        let mut faulty = frame.to_vec();
        for _ in 0..8 {
            // xorshift
            dice ^= dice << 13;
            dice ^= dice >> 17;
            dice ^= dice << 5;
            faulty[from + dice as usize % (frame.len() - from)] = (dice >> 24) as u8;
        }
        all.push(faulty);
        all.into_iter().map(|noise| BytesMut::from(&noise[..]))
    })
}

/// In KiB. What is reserved and never touched shows here, and only here.
fn peak_of_address_space() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmPeak:"));
    let peak = peak.unwrap().split_whitespace().nth(1);
    peak.unwrap().parse().unwrap()
}

#[test]
fn counts_that_the_frame_could_hold_are_still_bounded() {
    // A million topics of few bytes each: far less than they would take decoded.
    let mut body = BytesMut::new();
    body.put_bytes(0, 4);
    body.put_i32(1 << 20);
    body.put_bytes(0, 30 << 20);
    let error = validate_response(FetchRequest::RESPONSE_SCHEMA, 4, &body);
    assert_eq!(error, Err(SchemaError::TooManyItems));
    // Tagged fields too.
    let mut header = BytesMut::from(&b"\xff\xff\xff\x0f"[..]);
    header.put_bytes(0, 30 << 20);
    let error = skip_tagged_fields(&mut header.freeze());
    assert_eq!(error, Err(SchemaError::TooManyItems));
}

#[test]
fn what_follows_a_body_is_ignored() {
    let mut body = BytesMut::from(&sample::<MetadataRequest>(12)[..]);
    body.put_bytes(0xff, 100);
    assert_eq!(
        validate_response(MetadataRequest::RESPONSE_SCHEMA, 12, &body),
        Ok(())
    );
}

#[test]
fn a_known_tagged_field_must_be_as_long_as_it_says() {
    let body = sample::<messages::ApiVersionsRequest>(3);
    let schema = messages::ApiVersionsRequest::RESPONSE_SCHEMA;
    // The finalized epoch, which is a number of 8 bytes, claims to have 9.
    let at = body.windows(2).position(|w| w == [1, 8]).unwrap();
    let mut long = BytesMut::from(&body[..]);
    long[at + 1] = 9;
    let error = validate_response(schema, 3, &long);
    assert!(matches!(
        error,
        Err(SchemaError::TaggedFieldSize { tag: 1, .. })
    ));
}
