//! Contexts with a broker that has a subkey of its own, and with one that has none, as Java's.

use std::time::{Duration, UNIX_EPOCH};

use der::asn1::GeneralizedTime;
use fuzzing::fuzz;

use super::*;
use crate::crypto::EncryptionType;
use crate::fake::{KIND, accept, error, issued, key_message, name};
use crate::kdc::key_of;
use crate::messages::{EncryptedData, to_message};

/// Where a wrapped message says how far it is turned, which nothing checks.
const ROTATION: std::ops::Range<usize> = 6..8;
const SEQUENCE: u32 = 0x0102_0304;
const ACCEPTORS: u32 = 0x3fff_fffe;

/// The broker's side of a context.
struct Acceptor {
    session_key: KerberosKey,
    initiators: KerberosKey,
    own: Option<KerberosKey>,
    time: (GeneralizedTime, u32),
    sequence: u64,
}

impl Acceptor {
    /// Takes the first token.
    fn new(token: &[u8], own: Option<KerberosKey>) -> Self {
        let (kind, request) = unframed(token).expect("a token");
        assert_eq!(kind, AP_REQ);
        let (session_key, (initiators, time)) =
            accept(request, KeyUsage::ApReqAuthenticator, |part, _| {
                let checksum = part.cksum.as_ref().expect("a checksum");
                assert_eq!(checksum.cksumtype, 0x8003);
                let expected = [&[16, 0, 0, 0][..], &[0; 16], &[0x2e, 0, 0, 0]].concat();
                assert_eq!(checksum.checksum.as_bytes(), expected);
                assert_eq!(part.seq_number, Some(SEQUENCE));
                assert_eq!(part.cname.in_realm(part.crealm), name("alice"));
                let subkey = part.subkey.as_ref().expect("a subkey");
                (key_of(subkey).expect("a key"), (part.ctime, part.cusec))
            });
        Self {
            session_key,
            initiators,
            own,
            time,
            sequence: ACCEPTORS.into(),
        }
    }

    fn reply(&self) -> Vec<u8> {
        let part = EncApRepPart {
            ctime: self.time.0,
            cusec: self.time.1,
            subkey: self.own.as_ref().map(key_message),
            seq_number: Some(ACCEPTORS.into()),
        };
        let part = to_message(message_type::ENC_AP_REP_PART, part).expect("it can be encoded");
        let cipher = self.session_key.encrypt(KeyUsage::ApRep, &part);
        let reply = ApRep {
            pvno: VERSION,
            msg_type: message_type::AP_REP,
            enc_part: EncryptedData {
                etype: self.session_key.kind().number(),
                kvno: None,
                cipher: OctetStringRef::new(&cipher).expect("short"),
            },
        };
        let reply = to_message(message_type::AP_REP, reply).expect("it can be encoded");
        framed(AP_REP, &reply)
    }

    fn key(&self) -> &KerberosKey {
        self.own.as_ref().unwrap_or(&self.initiators)
    }

    fn flags(&self) -> u8 {
        SENT_BY_ACCEPTOR
            | if self.own.is_some() {
                ACCEPTOR_SUBKEY
            } else {
                0
            }
    }

    /// Wraps a message, turned right by so many bytes.
    fn wrap(&mut self, text: &[u8], rotation: u16) -> Vec<u8> {
        let checked = wrap_header(self.flags(), 0, self.sequence);
        let checksum = self
            .key()
            .checksum(KeyUsage::AcceptorWrap, &[text, &checked]);
        let len = checksum.len() as u16;
        let mut header = wrap_header(self.flags(), len, self.sequence);
        header[6..8].copy_from_slice(&rotation.to_be_bytes());
        let mut data = [text, &checksum].concat();
        let by = usize::from(rotation) % data.len();
        data.rotate_right(by);
        self.sequence += 1;
        [&header[..], &data].concat()
    }

    fn unwrap(&self, token: &[u8], sequence: u64) -> Vec<u8> {
        let flags = self.flags() & !SENT_BY_ACCEPTOR;
        let checked = wrap_header(flags, 0, sequence);
        let (header, data) = token.split_at(WRAP_HEADER);
        let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let (text, checksum) = data.split_at(data.len() - len);
        assert_eq!(header[..4], checked[..4]);
        assert_eq!(header[8..], checked[8..]);
        self.key()
            .verify_checksum(KeyUsage::InitiatorWrap, &[text, &checked], checksum)
            .expect("its checksum");
        text.to_vec()
    }
}

fn begun() -> (BegunContext, Vec<u8>) {
    let ticket = issued(&name("alice"), &name("kafka/b-1"), SystemTime::now());
    let seed = ContextSeed {
        subkey: KerberosKey::random(KIND),
        sequence: SEQUENCE,
    };
    let now = UNIX_EPOCH + Duration::from_micros(1_795_884_590_123_456);
    BegunContext::new(&ticket, seed, now).expect("a context")
}

fn subkeys() -> [Option<KerberosKey>; 3] {
    [
        None,
        Some(KerberosKey::random(KIND)),
        Some(KerberosKey::random(EncryptionType::Aes256Sha384)),
    ]
}

#[test]
fn messages_go_both_ways_with_a_subkey_of_the_broker_and_without() {
    for own in subkeys() {
        let (context, token) = begun();
        let mut acceptor = Acceptor::new(&token, own);
        let mut context = context.established(&acceptor.reply()).expect("a context");
        for (n, rotation) in [0, 12, 28, 5000].into_iter().enumerate() {
            let message = acceptor.wrap(b"\x01\0\0\0", rotation);
            assert_eq!(context.unwrap(&message), Ok(b"\x01\0\0\0".to_vec()));
            let message = context.wrap(b"none");
            let sequence = u64::from(SEQUENCE) + n as u64;
            assert_eq!(acceptor.unwrap(&message, sequence), b"none");
        }
        let message = acceptor.wrap(b"", 0);
        assert_eq!(context.unwrap(&message), Ok(Vec::new()));
    }
}

#[test]
fn a_broker_without_the_key_of_its_ticket_has_no_context() {
    let fault = |token: &[u8]| begun().0.established(token).expect_err("no context");
    let (context, token) = begun();
    // Of another context: with its own key.
    let other = Acceptor::new(&begun().1, None).reply();
    let unexpected = |words| GssFault::Unexpected(words);
    assert_eq!(
        fault(&other),
        unexpected("its AP-REP is not encrypted with the key of its ticket")
    );
    let mut acceptor = Acceptor::new(&token, None);
    acceptor.time.1 += 1;
    assert_eq!(
        context
            .established(&acceptor.reply())
            .expect_err("another time"),
        unexpected("its AP-REP answers something else")
    );
    assert_eq!(fault(&token), unexpected("it is no AP-REP"));
    assert_eq!(fault(b""), unexpected("it is no token"));
    assert_eq!(fault(&token[1..]), unexpected("it is no token"));
    assert_eq!(
        fault(&framed(AP_REP, b"x")),
        unexpected("its AP-REP cannot be read")
    );
    let refusal = framed(ERROR, &error(41, UNIX_EPOCH, None));
    let words = "it refuses with error 41 WORDS".to_owned();
    assert_eq!(fault(&refusal), GssFault::Refused(words));
}

#[test]
fn a_message_that_was_changed_or_is_not_the_next_one_does_not_count() {
    for own in subkeys() {
        let (context, token) = begun();
        let mut acceptor = Acceptor::new(&token, own);
        let context = context.established(&acceptor.reply()).expect("a context");
        let message = acceptor.wrap(b"\x01\0\0\0", 0);
        let unwrapped = |message: &[u8]| context.clone().unwrap(message);
        assert!(unwrapped(&message).is_ok());
        for at in 0..message.len() {
            let mut changed = message.clone();
            // A rotation by a multiple of the length is none.
            changed[at] ^= if at == ROTATION.start { 0 } else { 2 };
            assert_eq!(unwrapped(&changed).is_ok(), at == ROTATION.start, "{at}");
            assert!(unwrapped(&message[..at]).is_err(), "{at}");
        }
        let next = acceptor.wrap(b"\x01\0\0\0", 0);
        let fault = GssFault::Unexpected("its message is out of order");
        assert_eq!(unwrapped(&next), Err(fault));
        // Our own, which comes back.
        let own = context.clone().wrap(b"\x01\0\0\0");
        let fault = GssFault::Unexpected("its message is not of this side of the context");
        assert_eq!(unwrapped(&own), Err(fault));
    }
}

#[test]
fn lengths_of_tokens_are_those_of_der() {
    for len in [0, 100, 114, 115, 200, 300, 70_000] {
        let message = vec![7; len];
        let token = framed(AP_REP, &message);
        assert_eq!(unframed(&token), Some((AP_REP, &message[..])));
        assert_eq!(unframed(&token[..token.len() - 1]), None);
    }
    assert_eq!(framed(AP_REP, &[7; 200])[..4], [0x60, 0x81, 213, 6]);
}

#[test]
fn fuzz_gss_tokens() {
    let (context, token) = begun();
    let mut acceptor = Acceptor::new(&token, None);
    let reply = acceptor.reply();
    let established = context.clone().established(&reply).expect("a context");
    let message = acceptor.wrap(b"\x01\0\0\0", 0);
    fuzz("gss_tokens", |input| {
        let mut bytes = input.pick(&[&reply, &message]).to_vec();
        input.damage(&mut bytes);
        // Nothing panics, and nothing that was changed counts.
        let _ = context.clone().established(&bytes);
        if established.clone().unwrap(&bytes).is_ok() {
            let mut expected = message.clone();
            expected[ROTATION].copy_from_slice(&bytes[ROTATION]);
            assert_eq!(bytes, expected);
        }
    });
}
