//! Whether a response is what it says, before anything is allocated for it.
//!
//! The decoder takes an array's count at its word and reserves that many elements: a
//! count of 2³¹ in a frame of 20 bytes ends the process. So a response is first walked,
//! field by field, without keeping anything; only one that is all there is decoded.
//!
//! ```text
//! frame ─▶ walk (counts, lengths against the bytes that are there) ─▶ decode
//! ```
//!
//! # Invariants
//! - What passes makes the decoder reserve no more elements than there are, and at most
//!   [`ITEMS_MAX`] of them.
//! - Bytes after the body are not our business: newer brokers may know more.

#[rustfmt::skip]
pub(crate) mod responses;

use bytes::{Buf, Bytes};

use self::Kind::{Blob, Group, List, Maybe, Skip, Text};

/// Elements and tagged fields in one response, all arrays together. A cluster has at most
/// some hundred thousand partitions.
const ITEMS_MAX: usize = 1 << 19;

/// How one message is laid out.
#[derive(Debug)]
pub struct Shape {
    /// The first version with compact lengths and tagged fields (KIP-482).
    pub(crate) flexible_since: i16,
    pub(crate) body: Kind,
}

/// One value.
#[derive(Debug)]
pub(crate) enum Kind {
    /// So many bytes.
    Skip(usize),
    /// A string, which may be null.
    Text,
    /// Bytes, which may be null.
    Blob,
    /// An array, which may be null.
    List(&'static Kind),
    /// Fields in order, and those that carry a tag.
    Group(&'static [(Range, Kind)], &'static [(u32, Kind)]),
    /// A group after a byte that says whether it is there.
    Maybe(&'static Kind),
}

/// The versions that have a field: from, to.
type Range = (i16, i16);

/// Every version.
const ALL: Range = (0, i16::MAX);
/// Of [`Shape::flexible_since`].
const NEVER: i16 = i16::MAX;

const fn since(version: i16) -> Range {
    (version, i16::MAX)
}

const fn until(version: i16) -> Range {
    (0, version)
}

/// What is wrong with a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ShapeError {
    #[error("it ends {missing} bytes early")]
    Short { missing: usize },
    #[error("a length of {0}")]
    Length(i64),
    #[error("more than {ITEMS_MAX} items")]
    Items,
    #[error("tagged field {tag} of {size} bytes has {read}")]
    Tag { tag: u32, size: usize, read: usize },
}

/// Checks the body of a response.
pub(crate) fn check(shape: &Shape, version: i16, body: &[u8]) -> Result<(), ShapeError> {
    walk(shape, version, body).map(|_| ())
}

/// Steps over the tagged fields of a response header of version 1, which nobody defines.
pub(crate) fn skip_tagged_fields(frame: &mut Bytes) -> Result<(), ShapeError> {
    let mut walk = Walk::new(0, true, frame);
    walk.tagged(&[])?;
    let read = frame.len() - walk.rest.len();
    frame.advance(read);
    Ok(())
}

/// Returns what follows the body.
fn walk<'a>(shape: &Shape, version: i16, body: &'a [u8]) -> Result<&'a [u8], ShapeError> {
    let mut walk = Walk::new(version, version >= shape.flexible_since, body);
    walk.value(&shape.body)?;
    Ok(walk.rest)
}

struct Walk<'a> {
    version: i16,
    flexible: bool,
    rest: &'a [u8],
    /// That may still come.
    items: usize,
}

impl<'a> Walk<'a> {
    fn new(version: i16, flexible: bool, rest: &'a [u8]) -> Self {
        Self {
            version,
            flexible,
            rest,
            items: ITEMS_MAX,
        }
    }

    fn value(&mut self, kind: &Kind) -> Result<(), ShapeError> {
        match kind {
            Skip(bytes) => self.take(*bytes).map(|_| ()),
            Text => {
                let length = if self.flexible {
                    self.compact_length()?
                } else {
                    length(i64::from(i16::from_be_bytes(self.array()?)))?
                };
                self.take(length.unwrap_or(0)).map(|_| ())
            }
            Blob => {
                let length = self.length()?;
                self.take(length.unwrap_or(0)).map(|_| ())
            }
            List(element) => {
                let count = self.length()?.unwrap_or(0);
                self.list(element, count)
            }
            Group(fields, tags) => {
                for ((from, to), kind) in *fields {
                    if (*from..=*to).contains(&self.version) {
                        self.value(kind)?;
                    }
                }
                if self.flexible {
                    self.tagged(tags)
                } else {
                    Ok(())
                }
            }
            Maybe(group) => match self.array()? {
                [1] => self.value(group),
                [_] => Ok(()),
            },
        }
    }

    fn list(&mut self, element: &Kind, count: usize) -> Result<(), ShapeError> {
        if let Skip(size) = element {
            // As large on the wire as in memory.
            return self.take(count.saturating_mul(*size)).map(|_| ());
        }
        self.spend(count)?;
        for _ in 0..count {
            self.value(element)?;
        }
        Ok(())
    }

    fn tagged(&mut self, tags: &[(u32, Kind)]) -> Result<(), ShapeError> {
        let count = self.varint()? as usize;
        self.spend(count)?;
        for _ in 0..count {
            let tag = self.varint()?;
            let size = self.varint()? as usize;
            let before = self.rest;
            let field = self.take(size)?;
            let Some((_, kind)) = tags.iter().find(|(known, _)| *known == tag) else {
                continue;
            };
            // The decoder reads a field it knows without looking at its size.
            self.rest = field;
            self.value(kind)?;
            let read = size - self.rest.len();
            if read != size {
                return Err(ShapeError::Tag { tag, size, read });
            }
            self.rest = &before[size..];
        }
        Ok(())
    }

    fn spend(&mut self, items: usize) -> Result<(), ShapeError> {
        self.items = self.items.checked_sub(items).ok_or(ShapeError::Items)?;
        Ok(())
    }

    fn length(&mut self) -> Result<Option<usize>, ShapeError> {
        if self.flexible {
            self.compact_length()
        } else {
            length(i64::from(i32::from_be_bytes(self.array()?)))
        }
    }

    /// One more than it means; 0 means null.
    fn compact_length(&mut self) -> Result<Option<usize>, ShapeError> {
        length(i64::from(self.varint()?) - 1)
    }

    /// As the decoder reads it: five bytes at most, whatever the fifth says.
    fn varint(&mut self) -> Result<u32, ShapeError> {
        let mut value = 0;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        Ok(value)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ShapeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8], ShapeError> {
        match self.rest.split_at_checked(bytes) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(ShapeError::Short {
                missing: bytes - self.rest.len(),
            }),
        }
    }
}

/// -1 means null.
fn length(length: i64) -> Result<Option<usize>, ShapeError> {
    match length {
        -1 => Ok(None),
        length => usize::try_from(length)
            .map(Some)
            .map_err(|_| ShapeError::Length(length)),
    }
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, BytesMut};
    use kafka_protocol::messages::{self, FetchRequest, MetadataRequest};
    use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion};

    use super::*;
    use crate::kafka::frame;
    use crate::kafka::versions::Api;

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
        with_known_tags: bool,
        body: BytesMut,
    }

    impl Sample {
        fn of<A: Api>(version: i16, with_known_tags: bool) -> BytesMut {
            let mut sample = Self {
                version,
                flexible: version >= A::SHAPE.flexible_since,
                with_known_tags,
                body: BytesMut::new(),
            };
            sample.value(&A::SHAPE.body);
            sample.body
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
                    for ((from, to), kind) in *fields {
                        if (*from..=*to).contains(&self.version) {
                            self.value(kind);
                        }
                    }
                    if self.flexible {
                        self.tags(tags);
                    }
                }
            }
        }

        fn tags(&mut self, tags: &[(u32, Kind)]) {
            let tags = if self.with_known_tags { tags } else { &[] };
            self.body.put_u8(1 + tags.len() as u8);
            for (tag, kind) in tags {
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
        let full = Sample::of::<A>(version, true).freeze();
        match A::Response::decode(&mut full.clone(), version) {
            Err(error) if error.to_string().contains("is not valid for version") => {
                Sample::of::<A>(version, false).freeze()
            }
            _ => full,
        }
    }

    #[test]
    fn every_shape_is_what_the_decoder_reads() {
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
            let body = sample::<A>(version);
            let mut dice = 0x9e37_79b9_u32;
            for at in 0..body.len() {
                for absurd in [
                    &b"\x7f\xff\xff\xff"[..],
                    b"\x00\xff\xff\xff",
                    b"\xff\xff\xff\xfe",
                    b"\xff\xff\xff\xff\x07",
                    b"\xff\xff\xff\xff\xff",
                    b"\xff\xff\x7f",
                    b"\x00",
                    b"\xff",
                ] {
                    // In place of what is there, and pushed in between.
                    for kept in [at, (at + absurd.len()).min(body.len())] {
                        let mut noise = frame_of::<A>(version, &body[..at]);
                        noise.extend_from_slice(absurd);
                        noise.extend_from_slice(&body[kept..]);
                        let _ = frame::decode::<A>(&mut noise.freeze(), version);
                    }
                }
                let mut noise = frame_of::<A>(version, &body);
                for _ in 0..8 {
                    // xorshift
                    dice ^= dice << 13;
                    dice ^= dice >> 17;
                    dice ^= dice << 5;
                    let at = 5 + dice as usize % (noise.len() - 5);
                    noise[at] = (dice >> 24) as u8;
                }
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
}
