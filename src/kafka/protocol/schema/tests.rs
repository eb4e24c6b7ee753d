//! Each shape held against the codec: here of the responses, in [`requests`] of the
//! requests.

mod requests;

use bytes::{BufMut, BytesMut};
use kafka_protocol::messages::{self, FetchRequest, MetadataRequest};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion};

use super::*;
use crate::net::frame;
use crate::protocol::versions::Api;

/// Calls a function for every API and version that we speak.
macro_rules! everything {
    ($function:ident: $($api:ident)*) => {$(
        for version in messages::$api::MIN..=messages::$api::MAX {
            $function::<messages::$api>(version);
        }
    )*};
    ($function:ident) => {
        everything! {
            $function: ProduceRequest FetchRequest MetadataRequest ListOffsetsRequest
            OffsetCommitRequest OffsetFetchRequest FindCoordinatorRequest JoinGroupRequest
            SyncGroupRequest HeartbeatRequest LeaveGroupRequest DescribeGroupsRequest
            ConsumerGroupHeartbeatRequest InitProducerIdRequest AddPartitionsToTxnRequest
            EndTxnRequest TxnOffsetCommitRequest OffsetForLeaderEpochRequest
            CreateTopicsRequest DeleteTopicsRequest SaslHandshakeRequest
            SaslAuthenticateRequest ApiVersionsRequest
        }
    };
}

/// A body of that shape: two elements in each list, every byte of every number 1.
struct Sample {
    version: i16,
    flexible: bool,
    /// The tagged fields below these numbers are there: of the body, and deeper in it.
    tags_below: [u32; 2],
    depth: usize,
    body: BytesMut,
}

impl Sample {
    fn of(shape: &Shape, version: i16, tags_below: [u32; 2]) -> Bytes {
        let mut sample = Self {
            version,
            flexible: version >= shape.flexible_since,
            tags_below,
            depth: 0,
            body: BytesMut::new(),
        };
        sample.value(&shape.body);
        sample.body.freeze()
    }

    /// The one with all tagged fields that the decoder knows in this version.
    fn accepted(
        shape: &Shape,
        version: i16,
        decode: impl Fn(&mut Bytes) -> anyhow::Result<()>,
    ) -> Bytes {
        for outer in (0..=4).rev() {
            for inner in (0..=4).rev() {
                let sample = Self::of(shape, version, [outer, inner]);
                match decode(&mut sample.clone()) {
                    Ok(()) => return sample,
                    Err(error) if format!("{error:#}").contains("not valid for version") => {}
                    Err(error) => panic!("version {version}: {error:#}"),
                }
            }
        }
        panic!("version {version}: no tagged field is known");
    }

    fn value(&mut self, kind: &Kind) {
        match kind {
            Skip(bytes) => self.body.put_bytes(1, *bytes),
            Text if self.flexible => self.body.put_slice(b"\x03ab"),
            Text => self.body.put_slice(b"\0\x02ab"),
            Blob => {
                self.length(3);
                self.body.put_slice(b"\0\0\0");
            }
            List(element) => {
                self.length(2);
                self.value(element);
                self.value(element);
            }
            Maybe(group) => {
                self.body.put_i8(1);
                self.value(group);
            }
            Group(fields, tags) => {
                self.depth += 1;
                for ((from, to), kind) in *fields {
                    if (*from..=*to).contains(&self.version) {
                        self.value(kind);
                    }
                }
                if self.flexible {
                    self.tags(tags);
                }
                self.depth -= 1;
            }
        }
    }

    fn tags(&mut self, tags: &[(u32, Kind)]) {
        let below = self.tags_below[usize::from(self.depth > 1)];
        let tags = || tags.iter().filter(|(tag, _)| *tag < below);
        self.body.put_u8(1 + tags().count() as u8);
        for (tag, kind) in tags() {
            let before = std::mem::take(&mut self.body);
            self.value(kind);
            let field = std::mem::replace(&mut self.body, before);
            self.body.put_slice(&[*tag as u8, field.len() as u8]);
            self.body.extend_from_slice(&field);
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

/// A sample that the decoder accepts, with all tagged fields that it knows in this
/// version.
fn sample<A: Api>(version: i16) -> Bytes {
    Sample::accepted(A::SHAPE, version, |body| {
        A::Response::decode(body, version).map(|_| ())
    })
}

#[test]
fn every_response_has_the_shape_that_the_decoder_reads() {
    fn agrees<A: Api>(version: i16) {
        let body = sample::<A>(version);
        let what = format!("{} {version}", A::NAME);
        assert_eq!(walk(A::SHAPE, version, &body), Ok(&[][..]), "{what}");
        let mut rest = body.clone();
        let response = A::Response::decode(&mut rest, version)
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(rest.is_empty(), "{what}");
        let mut again = BytesMut::new();
        response.encode(&mut again, version).unwrap();
        assert_eq!(again, body, "{what}");
    }
    everything!(agrees);
}

#[test]
fn a_response_that_is_cut_anywhere_is_refused() {
    fn refused<A: Api>(version: i16) {
        let body = sample::<A>(version);
        for length in 0..body.len() {
            assert!(check(A::SHAPE, version, &body[..length]).is_err());
        }
    }
    everything!(refused);
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
    everything!(survives);
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
    let error = check(FetchRequest::SHAPE, 4, &body);
    assert_eq!(error, Err(ShapeError::Items));
    // Tagged fields too.
    let mut header = BytesMut::from(&b"\xff\xff\xff\x0f"[..]);
    header.put_bytes(0, 30 << 20);
    let error = skip_tagged_fields(&mut header.freeze());
    assert_eq!(error, Err(ShapeError::Items));
}

#[test]
fn what_follows_a_body_is_not_looked_at() {
    let mut body = BytesMut::from(&sample::<MetadataRequest>(12)[..]);
    body.put_bytes(0xff, 100);
    assert_eq!(check(MetadataRequest::SHAPE, 12, &body), Ok(()));
}

#[test]
fn a_known_tagged_field_must_be_as_long_as_it_says() {
    let body = sample::<messages::ApiVersionsRequest>(3);
    let shape = messages::ApiVersionsRequest::SHAPE;
    // The finalized epoch, which is a number of 8 bytes, claims to have 9.
    let at = body.windows(2).position(|w| w == [1, 8]).unwrap();
    let mut long = BytesMut::from(&body[..]);
    long[at + 1] = 9;
    let error = check(shape, 3, &long);
    assert!(matches!(error, Err(ShapeError::Tag { tag: 1, .. })));
}
