//! Messages made at random by their schemas, and what damage makes of them.

use std::sync::LazyLock;

use fuzzing::{FuzzInput, fuzz, within};
use kafka_protocol::messages::ApiKey;

use super::super::requests::request_schema;
use super::requests::{every_request_version, frame_of};
use super::*;

/// How many times its size a message may take decoded: an element of a few bytes is a struct.
const DECODED: usize = 400;

/// A message of a schema with all in it that it may have.
struct RandomBody<'a> {
    version: i16,
    flexible: bool,
    body: BytesMut,
    input: &'a mut FuzzInput,
}

impl<'a> RandomBody<'a> {
    fn of(schema: &MessageSchema, version: i16, input: &'a mut FuzzInput) -> Bytes {
        let mut random = Self {
            version,
            flexible: schema.flexible_versions.contains(version),
            body: BytesMut::new(),
            input,
        };
        random.fields(schema.fields);
        random.body.freeze()
    }

    fn fields(&mut self, fields: &[FieldSchema]) {
        let version = self.version;
        let known = fields
            .iter()
            .filter(|field| field.versions.contains(version));
        let (tagged, untagged): (Vec<_>, Vec<_>) = known.partition(|field| field.tag.is_some());
        for field in untagged {
            self.field(field);
        }
        if self.flexible {
            self.tagged_fields(tagged);
        }
    }

    fn field(&mut self, field: &FieldSchema) {
        if field.nullable_versions.contains(self.version) && self.input.one_in(3) {
            return match field.field_type {
                FieldType::String if !self.flexible => self.body.put_i16(-1),
                _ => self.length(-1),
            };
        }
        self.value(&field.field_type);
    }

    fn value(&mut self, field_type: &FieldType) {
        match field_type {
            FieldType::String => {
                let text = self.input.text(6);
                match self.flexible {
                    true => self.length(text.len() as i32),
                    false => self.body.put_i16(text.len() as i16),
                }
                self.body.put_slice(text.as_bytes());
            }
            FieldType::Bytes | FieldType::Records => {
                let len = self.input.up_to_bits(6);
                let bytes = self.input.bytes(len);
                self.length(len as i32);
                self.body.put_slice(&bytes);
            }
            FieldType::Array(element) => {
                let count = self.input.below(4);
                self.length(count as i32);
                for _ in 0..count {
                    self.value(element);
                }
            }
            FieldType::Struct(fields) => self.fields(fields),
            FieldType::Bool => self.body.put_u8(self.input.below(2) as u8),
            number => {
                let size = usize::from(number.fixed_size());
                let value = self.input.integer().to_be_bytes();
                let bytes = [value, value].concat();
                self.body.put_slice(&bytes[16 - size..]);
            }
        }
    }

    fn tagged_fields(&mut self, mut fields: Vec<&FieldSchema>) {
        fields.sort_by_key(|field| field.tag);
        fields.retain(|_| self.input.one_in(2));
        let unknown = self.input.one_in(4);
        self.body.put_u8(u8::from(unknown) + fields.len() as u8);
        for field in fields {
            let before = std::mem::take(&mut self.body);
            self.field(field);
            let value = std::mem::replace(&mut self.body, before);
            self.body.put_u8(field.tag.unwrap() as u8);
            self.unsigned(value.len() as u32);
            self.body.extend_from_slice(&value);
        }
        if unknown {
            self.body.put_slice(b"\x63\x02ab");
        }
    }

    /// -1 is null.
    fn length(&mut self, length: i32) {
        match self.flexible {
            true => self.unsigned((length + 1) as u32),
            false => self.body.put_i32(length),
        }
    }

    fn unsigned(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.body.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.body.put_u8(value as u8);
    }
}

type ResponseTarget = fn(&mut FuzzInput, i16);

#[test]
fn fuzz_responses() {
    static TARGETS: Mutex<Vec<(ResponseTarget, i16)>> = Mutex::new(Vec::new());
    fn target<A: Api>(version: i16) {
        TARGETS.lock().unwrap().push((fuzz_response::<A>, version));
    }
    each_api_version!(target);
    let targets = std::mem::take(&mut *TARGETS.lock().unwrap());
    fuzz("responses", |input| {
        let (target, version) = *input.pick(&targets);
        target(input, version);
    });
}

/// It is decoded, and what it is encoded to is the same to the decoder; damaged, it is refused or
/// decoded.
fn fuzz_response<A: Api>(input: &mut FuzzInput, version: i16) {
    let body = RandomBody::of(A::RESPONSE_SCHEMA, version, input);
    let what = format!("{} {version}", A::NAME);
    let bytes_max = |body: &[u8]| DECODED * body.len() + (16 << 10);
    let decode = |body: &[u8]| {
        let mut frame = BytesMut::from(&[0; 4][..]);
        if A::Response::header_version(version) > 0 {
            frame.put_u8(0);
        }
        frame.extend_from_slice(body);
        let mut frame = frame.freeze();
        within(bytes_max(body), &what, || {
            frame::decode::<A>(&mut frame, version)
        })
    };
    let encoded = |response: &A::Response| {
        let mut out = BytesMut::new();
        response
            .encode(&mut out, version)
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        out
    };
    let response = decode(&body).unwrap_or_else(|error| panic!("{what}: {error}: {body:?}"));
    let once = encoded(&response);
    assert_eq!(encoded(&decode(&once).unwrap()), once, "{what}");
    let mut damaged = body.to_vec();
    input.damage(&mut damaged);
    let _ = decode(&damaged);
}

/// Every API that the in-memory broker may be asked, in every version that can be decoded.
static REQUESTS: LazyLock<Vec<(ApiKey, i16)>> = LazyLock::new(|| every_request_version().collect());

#[test]
fn fuzz_requests() {
    fuzz("requests", |input| {
        let (api, version) = *input.pick(&REQUESTS);
        let what = format!("{api:?} {version}");
        let body = RandomBody::of(request_schema(api).unwrap(), version, input);
        let decode = |frame: &[u8]| {
            let bytes_max = DECODED * frame.len() + (16 << 10);
            let mut frame = Bytes::copy_from_slice(frame);
            within(bytes_max, &what, || {
                frame::decode_request(api, version, &mut frame)
            })
        };
        let (frame, header) = frame_of(api, version, &body);
        let (_, request) =
            decode(&frame).unwrap_or_else(|error| panic!("{what}: {error}: {body:?}"));
        let mut once = BytesMut::from(&frame[..header]);
        request.encode(&mut once, version).unwrap();
        let mut again = BytesMut::from(&frame[..header]);
        decode(&once)
            .unwrap()
            .1
            .encode(&mut again, version)
            .unwrap();
        assert_eq!(again, once, "{what}");
        let mut damaged = frame.to_vec();
        input.damage(&mut damaged);
        let _ = decode(&damaged);
    });
}
