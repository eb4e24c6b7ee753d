//! Answers of a KDC, honest and hostile.

use std::time::UNIX_EPOCH;

use fuzzing::fuzz;

use super::*;
use crate::fake::{FakeKdc, KIND, error, issued, name};
use crate::fault::code;

const NONCE: u32 = 7;
const KINDS: [EncryptionType; 1] = [KIND];

fn request(server: &KerberosPrincipal) -> TicketRequest<'_> {
    TicketRequest {
        server,
        kinds: &KINDS,
        nonce: NONCE,
    }
}

/// Asks for a TGT for alice, with that key.
fn log_in(kdc: &mut FakeKdc, key: &KerberosKey) -> Result<IssuedTicket, KdcFault> {
    let (client, server) = (name("alice"), name("krbtgt/TEST"));
    let proof = Some((key, SystemTime::now()));
    let message = as_request(&client, &request(&server), proof).expect("a request");
    let reply = kdc.answer(&message);
    read_as_reply(
        &reply,
        &client,
        &request(&server),
        std::slice::from_ref(key),
    )
}

fn ask(kdc: &mut FakeKdc, tgt: &IssuedTicket, server: &str) -> Result<IssuedTicket, KdcFault> {
    let server = name(server);
    let message = tgs_request(tgt, &request(&server), SystemTime::now()).expect("a request");
    let reply = kdc.answer(&message);
    read_tgs_reply(&reply, tgt, &request(&server))
}

fn refused(code: i32) -> impl Fn(KdcFault) -> bool {
    move |fault| matches!(fault, KdcFault::Refused(error) if error.code == code)
}

#[test]
fn a_tgt_is_given_for_the_key_and_a_ticket_for_the_tgt() {
    let key = KerberosKey::random(KIND);
    let mut kdc = FakeKdc::new(&key);
    let tgt = log_in(&mut kdc, &key).expect("a TGT");
    assert_eq!(tgt.server, name("krbtgt/TEST"));
    let ticket = ask(&mut kdc, &tgt, "kafka/b-1").expect("a ticket");
    assert_eq!(
        (&ticket.client, &ticket.server),
        (&name("alice"), &name("kafka/b-1"))
    );
    assert_ne!(ticket.session_key, tgt.session_key);
    let left = ticket.ends_at.duration_since(SystemTime::now());
    assert!(left.expect("it is good").as_secs() > 3000);
}

#[test]
fn what_a_kdc_refuses_is_known_by_its_code() {
    let (key, other) = (KerberosKey::random(KIND), KerberosKey::random(KIND));
    let mut kdc = FakeKdc::new(&key);
    let fault = log_in(&mut kdc, &other).expect_err("another key");
    assert!(refused(code::PREAUTHENTICATION_FAILED)(fault));
    let tgt = log_in(&mut kdc, &key).expect("a TGT");
    let fault = ask(&mut kdc, &tgt, "kafka/b-2").expect_err("no such service");
    assert!(refused(code::SERVER_UNKNOWN)(fault));
    // Without a timestamp, it says which keys it has.
    let (client, server) = (name("alice"), name("krbtgt/TEST"));
    let message = as_request(&client, &request(&server), None).expect("a request");
    let error = read_error(&kdc.answer(&message)).expect("a refusal");
    assert_eq!(error.code, code::PREAUTHENTICATION_REQUIRED);
    assert_eq!(error.kinds, [KIND]);
    assert_eq!(error.text.as_deref(), Some("WORDS"));
}

#[test]
fn an_answer_to_something_else_is_of_no_use() {
    let key = KerberosKey::random(KIND);
    let mut kdc = FakeKdc::new(&key);
    let tgt = log_in(&mut kdc, &key).expect("a TGT");
    kdc.nonce_offset = 1;
    let nonce = KdcFault::Mismatch("its nonce is another one");
    assert_eq!(log_in(&mut kdc, &key), Err(nonce.clone()));
    assert_eq!(ask(&mut kdc, &tgt, "kafka/b-1"), Err(nonce));
    kdc.nonce_offset = 0;
    let (other, server) = (name("kafka/b-2"), name("kafka/b-1"));
    let message = tgs_request(&tgt, &request(&server), SystemTime::now()).expect("a request");
    let reply = kdc.answer(&message);
    let read = |tgt: &IssuedTicket, server| read_tgs_reply(&reply, tgt, &request(server));
    assert_eq!(read(&tgt, &other), Err(OTHER_SERVICE));
    let mut stolen = tgt.clone();
    stolen.client = name("bob");
    let fault = KdcFault::Mismatch("it is for another client");
    assert_eq!(read(&stolen, &server), Err(fault));
    stolen.session_key = KerberosKey::random(KIND);
    assert_eq!(read(&stolen, &server), Err(KdcFault::WrongKey));
    assert!(read(&tgt, &server).is_ok());
    // Of the other kind.
    let as_reply = read_as_reply(&reply, &tgt.client, &request(&server), &[key]);
    assert_eq!(as_reply, Err(KdcFault::Malformed));
}

#[test]
fn garbage_is_malformed() {
    let key = KerberosKey::random(KIND);
    let (client, server) = (name("alice"), name("krbtgt/TEST"));
    for reply in [
        &b""[..],
        b"HTTP/1.1 400",
        &[0x6b, 0x84, 0xff, 0xff, 0xff, 0xff],
        &[0x7e, 0],
    ] {
        let read = read_as_reply(
            reply,
            &client,
            &request(&server),
            std::slice::from_ref(&key),
        );
        assert_eq!(read, Err(KdcFault::Malformed), "{reply:?}");
    }
}

#[test]
fn fuzz_kdc_replies() {
    let key = KerberosKey::random(KIND);
    let (client, server) = (name("alice"), name("krbtgt/TEST"));
    let proof = Some((&key, SystemTime::now()));
    let message = as_request(&client, &request(&server), proof).expect("a request");
    let reply = FakeKdc::new(&key).answer(&message);
    let refusal = error(code::SKEW, UNIX_EPOCH, Some(b"0\0"));
    let tgt = issued(&client, &server, SystemTime::now());
    let keys = [key];
    fuzz("kdc_replies", |input| {
        let mut bytes = input.pick(&[&reply, &refusal]).to_vec();
        input.damage(&mut bytes);
        // It is read or refused, and nothing panics.
        let _ = read_as_reply(&bytes, &client, &request(&server), &keys);
        let _ = read_tgs_reply(&bytes, &tgt, &request(&server));
    });
}
