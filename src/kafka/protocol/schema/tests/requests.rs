//! The schemas of the requests held against the codec, in every version that it knows.

use kafka_protocol::messages::{ApiKey, RequestHeader, RequestKind};
use kafka_protocol::protocol::StrBytes;

use super::super::requests::request_schema;
use super::super::validator::REQUEST_ITEMS_MAX;
use super::*;

/// Every API that has a schema, in every version that is decoded. (Some that the codec
/// lists are not.)
pub(super) fn every_request_version() -> impl Iterator<Item = (ApiKey, i16)> {
    let apis = (0..128).filter_map(|key| ApiKey::try_from(key).ok());
    let known = apis.filter(|api| request_schema(*api).is_some());
    let listed = known.flat_map(|api| {
        let versions = api.valid_versions();
        (versions.min..=versions.max).map(move |version| (api, version))
    });
    listed.filter(|(api, version)| {
        let nothing = RequestKind::decode(*api, &mut Bytes::new(), *version);
        let error = nothing.map_or_else(|error| format!("{error:#}"), |_| String::new());
        !error.contains("specified version not supported")
    })
}

fn sample_request(api: ApiKey, version: i16) -> Bytes {
    SampleBody::of(request_schema(api).unwrap(), version)
}

/// With a header; how long that is.
pub(super) fn frame_of(api: ApiKey, version: i16, body: &[u8]) -> (BytesMut, usize) {
    let header = RequestHeader::default()
        .with_request_api_key(api as i16)
        .with_request_api_version(version)
        .with_client_id(Some(StrBytes::from_static_str("me")));
    let mut frame = BytesMut::new();
    header
        .encode(&mut frame, api.request_header_version(version))
        .unwrap();
    let length = frame.len();
    frame.extend_from_slice(body);
    (frame, length)
}

fn error_of(api: ApiKey, version: i16, body: &[u8]) -> SchemaError {
    let (frame, _) = frame_of(api, version, body);
    validate_request(api, version, &frame).unwrap_err()
}

#[test]
fn every_request_has_the_schema_that_the_codec_reads_and_writes() {
    let mut seen = 0;
    for (api, version) in every_request_version() {
        let what = format!("{api:?} {version}");
        let body = sample_request(api, version);
        let schema = request_schema(api).unwrap();
        assert_eq!(after_body(schema, version, &body), Ok(&[][..]), "{what}");
        let (frame, _) = frame_of(api, version, &body);
        assert_eq!(validate_request(api, version, &frame), Ok(()), "{what}");
        let mut frame = frame.freeze();
        let (header, request) = frame::decode_request(api, version, &mut frame).unwrap();
        assert!(frame.is_empty(), "{what}");
        assert_eq!(header.client_id.as_deref(), Some("me"), "{what}");
        let mut again = BytesMut::new();
        request.encode(&mut again, version).unwrap();
        assert_eq!(again, body, "{what}");
        seen += 1;
    }
    assert!(seen > 100, "{seen}");
}

/// The codec's own idea of a request, with nothing in it: null where that can be.
#[test]
fn what_the_codec_writes_of_an_empty_request_passes() {
    for (api, version) in every_request_version() {
        let mut body = Bytes::from(vec![0; 1 << 10]);
        let Ok(request) = RequestKind::decode(api, &mut body, version) else {
            // A string that cannot be null.
            continue;
        };
        let mut body = BytesMut::new();
        request.encode(&mut body, version).unwrap();
        let schema = request_schema(api).unwrap();
        assert_eq!(
            after_body(schema, version, &body),
            Ok(&[][..]),
            "{api:?} {version}"
        );
    }
}

#[test]
fn a_request_that_is_cut_anywhere_is_refused() {
    for (api, version) in every_request_version() {
        let (frame, _) = frame_of(api, version, &sample_request(api, version));
        for length in 0..frame.len() {
            let cut = validate_request(api, version, &frame[..length]);
            assert!(cut.is_err(), "{api:?} {version} of {length} bytes");
        }
    }
}

/// Unchecked, the first of these ends the process.
#[test]
fn absurd_counts_and_noise_in_any_place_of_any_request_cost_nothing() {
    let before = peak_of_address_space();
    for (api, version) in every_request_version() {
        let (frame, _) = frame_of(api, version, &sample_request(api, version));
        // From the client id on.
        for noise in noise(&frame, 8) {
            let _ = frame::decode_request(api, version, &mut noise.freeze());
        }
    }
    let grown = peak_of_address_space() - before;
    assert!(grown < 1 << 20, "grew by {grown} KiB");
}

#[test]
fn an_absurd_count_is_refused_in_the_place_of_every_count() {
    for (api, version) in every_request_version() {
        let schema = request_schema(api).unwrap();
        let body = sample_request(api, version);
        let (two, absurd): (&[u8], &[u8]) = if schema.flexible_versions.contains(version) {
            (b"\x03", b"\xff\xff\xff\xff\x0f")
        } else {
            (b"\0\0\0\x02", b"\x7f\xff\xff\xff")
        };
        let places = body.windows(two.len()).enumerate();
        for (at, _) in places.filter(|(_, found)| *found == two) {
            let after = &body[at + two.len()..];
            error_of(api, version, &[&body[..at], absurd, after].concat());
        }
    }
}

#[test]
fn counts_that_a_request_could_hold_are_still_bounded() {
    // Names of topics, each a null of two bytes, and numbers of partitions.
    for (api, version, before, size) in [
        (ApiKey::DeleteTopics, 1, &b""[..], 2),
        (ApiKey::OffsetFetch, 1, b"\0\x01g\0\0\0\x01\0\x01t", 4),
    ] {
        let body = |count: usize| {
            let mut body = BytesMut::from(before);
            body.put_i32(count as i32);
            body.put_bytes(0, count * size + 100);
            body
        };
        let (frame, _) = frame_of(api, version, &body(REQUEST_ITEMS_MAX - 2));
        assert_eq!(validate_request(api, version, &frame), Ok(()));
        let error = error_of(api, version, &body(REQUEST_ITEMS_MAX + 1));
        assert_eq!(error, SchemaError::TooManyItems);
    }
    // Tagged fields of the header, too.
    let (mut frame, header) = frame_of(ApiKey::ApiVersions, 3, b"");
    frame.truncate(header - 1);
    frame.put_slice(b"\xff\xff\xff\x0f");
    frame.put_bytes(0, 30 << 20);
    let error = validate_request(ApiKey::ApiVersions, 3, &frame);
    assert_eq!(error, Err(SchemaError::TooManyItems));
}

#[test]
fn a_request_whose_schema_is_not_known_is_refused() {
    let (frame, _) = frame_of(ApiKey::ElectLeaders, 0, &[0; 100]);
    let error = validate_request(ApiKey::ElectLeaders, 0, &frame);
    assert_eq!(error, Err(SchemaError::UnknownApi));
}
