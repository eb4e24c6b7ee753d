//! What a KDC is asked, and what it answers (RFC 4120, sections 3.1 and 3.3), without I/O.
//!
//! ```text
//! AS-REQ   who we are                         ─▶ AS-REP, or that a timestamp is needed
//! AS-REQ   and a timestamp, with our key      ─▶ AS-REP: the TGT, and a session key for it
//! TGS-REQ  the TGT, an authenticator          ─▶ TGS-REP: a ticket for a service, or the TGT of
//!                                                a realm that is nearer to it
//! ```
//!
//! # Invariants
//! - Nothing is believed that is not encrypted with a key of ours, and has the request's nonce.

use std::time::{Duration, SystemTime};

use der::asn1::{AnyRef, BitStringRef, GeneralizedTime, OctetStringRef};
use der::{Decode, Encode};
use secret::SecretBytes;

use crate::crypto::{EncryptionType, IntegrityFault, KerberosKey, KeyUsage};
use crate::messages::{
    ApReq, Authenticator, Checksum, EncKdcRepPart, EncryptedData, EncryptionKey, ErrorMessage,
    EtypeInfo2Entry, KdcRep, KdcReq, KdcReqBody, KerberosString, PaData, PaTimestamp,
    PrincipalName, VERSION, from_message, message_number, message_type, split_time, to_message,
};
use crate::principal::KerberosPrincipal;
use crate::ticket::{IssuedTicket, TicketRequest};

/// `PA-TGS-REQ`
const PA_TGS_REQ: i32 = 1;
/// `PA-ENC-TIMESTAMP`
const PA_ENC_TIMESTAMP: i32 = 2;
/// `PA-ETYPE-INFO2`
const PA_ETYPE_INFO2: i32 = 19;
/// The option `canonicalize` of a TGS-REQ: referrals may be answered (RFC 6806).
const CANONICALIZE: [u8; 4] = [0, 1, 0, 0];

/// Why an answer is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KdcFault {
    /// The KDC refuses.
    Refused(KdcError),
    /// The answer cannot be read.
    Malformed,
    /// It is encrypted with another key than that of the keytab, or the session.
    WrongKey,
    /// It is the answer to something else.
    Mismatch(&'static str),
    /// It has a session key of this type.
    UnsupportedKey(i32),
}

/// `KRB-ERROR`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KdcError {
    pub(crate) code: i32,
    /// `e-text`
    pub(crate) text: Option<String>,
    /// The KDC's time.
    pub(crate) time: SystemTime,
    /// The types of encryption that it has keys of us for, as it prefers them; empty where it says
    /// nothing of them.
    pub(crate) kinds: Vec<EncryptionType>,
}

impl From<der::Error> for KdcFault {
    fn from(_: der::Error) -> Self {
        Self::Malformed
    }
}

/// An AS-REQ; with `proof`, that key and the time, if the KDC needs them.
pub(crate) fn as_request(
    client: &KerberosPrincipal,
    request: &TicketRequest<'_>,
    proof: Option<(&KerberosKey, SystemTime)>,
) -> der::Result<Vec<u8>> {
    let timestamp = proof.map(|(key, now)| {
        let (patimestamp, pausec) = split_time(now)?;
        let timestamp = PaTimestamp {
            patimestamp,
            pausec,
        };
        let cipher = key.encrypt(KeyUsage::AsReqTimestamp, &timestamp.to_der()?);
        encrypted(key, &cipher)?.to_der()
    });
    let timestamp = timestamp.transpose()?;
    let padata = timestamp
        .as_deref()
        .map(|value| pa_data(PA_ENC_TIMESTAMP, value));
    let body = request_body(Some(client), request, &[0; 4])?;
    kdc_request(message_type::AS_REQ, padata.transpose()?, &body)
}

/// A TGS-REQ with that TGT, asked of its realm.
pub(crate) fn tgs_request(
    tgt: &IssuedTicket,
    request: &TicketRequest<'_>,
    now: SystemTime,
) -> der::Result<Vec<u8>> {
    let body = request_body(None, request, &CANONICALIZE)?;
    let key = &tgt.session_key;
    let checksum = key.checksum(KeyUsage::TgsReqChecksum, &[&body]);
    let (ctime, cusec) = split_time(now)?;
    let authenticator = Authenticator {
        authenticator_vno: VERSION,
        crealm: KerberosString(tgt.client.realm.as_bytes()),
        cname: PrincipalName::of_user(&tgt.client),
        cksum: Some(Checksum {
            cksumtype: key.kind().checksum_type(),
            checksum: OctetStringRef::new(&checksum)?,
        }),
        cusec,
        ctime,
        subkey: None,
        seq_number: None,
    };
    let usage = KeyUsage::TgsReqAuthenticator;
    let header = ap_request(tgt, authenticator, usage, &[0; 4])?;
    let padata = pa_data(PA_TGS_REQ, &header)?;
    kdc_request(message_type::TGS_REQ, Some(padata), &body)
}

/// An AP-REQ with that ticket.
pub(crate) fn ap_request(
    ticket: &IssuedTicket,
    authenticator: Authenticator<'_>,
    usage: KeyUsage,
    options: &[u8; 4],
) -> der::Result<Vec<u8>> {
    let authenticator = to_message(message_type::AUTHENTICATOR, authenticator)?;
    // It may have a key.
    let authenticator = SecretBytes::new(authenticator);
    let key = &ticket.session_key;
    let cipher = key.encrypt(usage, authenticator.reveal());
    let request = ApReq {
        pvno: VERSION,
        msg_type: message_type::AP_REQ,
        ap_options: BitStringRef::from_bytes(options)?,
        ticket: AnyRef::from_der(ticket.encoded.reveal())?,
        authenticator: encrypted(key, &cipher)?,
    };
    to_message(message_type::AP_REQ, request)
}

fn request_body(
    client: Option<&KerberosPrincipal>,
    request: &TicketRequest<'_>,
    options: &[u8; 4],
) -> der::Result<Vec<u8>> {
    let body = KdcReqBody {
        kdc_options: BitStringRef::from_bytes(options)?,
        cname: client.map(PrincipalName::of_user),
        realm: KerberosString(request.server.realm.as_bytes()),
        sname: PrincipalName::of_server(request.server),
        // As long as the KDC permits.
        till: GeneralizedTime::from_unix_duration(Duration::ZERO)?,
        nonce: request.nonce,
        etype: request.kinds.iter().map(|kind| kind.number()).collect(),
    };
    body.to_der()
}

fn kdc_request(msg_type: u8, padata: Option<PaData<'_>>, body: &[u8]) -> der::Result<Vec<u8>> {
    let request = KdcReq {
        pvno: VERSION,
        msg_type,
        padata: padata.map(|padata| vec![padata]),
        req_body: AnyRef::from_der(body)?,
    };
    to_message(msg_type, request)
}

fn pa_data(padata_type: i32, value: &[u8]) -> der::Result<PaData<'_>> {
    Ok(PaData {
        padata_type,
        padata_value: OctetStringRef::new(value)?,
    })
}

fn encrypted<'a>(key: &KerberosKey, cipher: &'a [u8]) -> der::Result<EncryptedData<'a>> {
    Ok(EncryptedData {
        etype: key.kind().number(),
        kvno: None,
        cipher: OctetStringRef::new(cipher)?,
    })
}

/// Reads the answer to an AS-REQ; `keys` are those of the keytab.
pub(crate) fn read_as_reply(
    reply: &[u8],
    client: &KerberosPrincipal,
    request: &TicketRequest<'_>,
    keys: &[KerberosKey],
) -> Result<IssuedTicket, KdcFault> {
    refusal(reply)?;
    let reply: KdcRep<'_> = from_message(message_type::AS_REP, reply)?;
    let part = &reply.enc_part;
    let key = keys.iter().find(|key| key.kind().number() == part.etype);
    let key = key.ok_or(KdcFault::UnsupportedKey(part.etype))?;
    let text = key.decrypt(KeyUsage::AsRep, part.cipher.as_bytes());
    let text = text.map_err(|IntegrityFault| KdcFault::WrongKey)?;
    let ticket = read_reply(&reply, text.reveal(), client, request)?;
    match ticket.server == *request.server {
        true => Ok(ticket),
        false => Err(OTHER_SERVICE),
    }
}

const OTHER_SERVICE: KdcFault = KdcFault::Mismatch("it is for another service");

/// Reads the answer to a TGS-REQ: a ticket for that service, or a TGT of another realm.
pub(crate) fn read_tgs_reply(
    reply: &[u8],
    tgt: &IssuedTicket,
    request: &TicketRequest<'_>,
) -> Result<IssuedTicket, KdcFault> {
    refusal(reply)?;
    let reply: KdcRep<'_> = from_message(message_type::TGS_REP, reply)?;
    let text = tgt
        .session_key
        .decrypt(KeyUsage::TgsRep, reply.enc_part.cipher.as_bytes());
    let text = text.map_err(|IntegrityFault| KdcFault::WrongKey)?;
    let ticket = read_reply(&reply, text.reveal(), &tgt.client, request)?;
    let is_asked_for = ticket.server.components == request.server.components;
    match is_asked_for || ticket.server.grants_tickets_of().is_some() {
        true => Ok(ticket),
        false => Err(OTHER_SERVICE),
    }
}

fn read_reply(
    reply: &KdcRep<'_>,
    text: &[u8],
    client: &KerberosPrincipal,
    request: &TicketRequest<'_>,
) -> Result<IssuedTicket, KdcFault> {
    // Some give an AS-REP the tag of the other.
    let number = match message_number(text) {
        Some(message_type::ENC_AS_REP_PART) => message_type::ENC_AS_REP_PART,
        _ => message_type::ENC_TGS_REP_PART,
    };
    let part: EncKdcRepPart<'_> = from_message(number, text)?;
    if part.nonce != request.nonce {
        return Err(KdcFault::Mismatch("its nonce is another one"));
    }
    if reply.cname.in_realm(reply.crealm) != *client {
        return Err(KdcFault::Mismatch("it is for another client"));
    }
    Ok(IssuedTicket {
        client: client.clone(),
        server: part.sname.in_realm(part.srealm),
        encoded: SecretBytes::new(reply.ticket.to_der()?),
        session_key: key_of(&part.key)?,
        ends_at: part.endtime.to_system_time(),
    })
}

/// The key of a message.
pub(crate) fn key_of(key: &EncryptionKey<'_>) -> Result<KerberosKey, KdcFault> {
    let kind = EncryptionType::of_number(key.keytype);
    let kind = kind.ok_or(KdcFault::UnsupportedKey(key.keytype))?;
    let bytes = SecretBytes::new(key.keyvalue.as_bytes());
    KerberosKey::new(kind, bytes).ok_or(KdcFault::Malformed)
}

fn refusal(reply: &[u8]) -> Result<(), KdcFault> {
    match message_number(reply) {
        Some(message_type::ERROR) => Err(KdcFault::Refused(read_error(reply)?)),
        _ => Ok(()),
    }
}

/// Reads a `KRB-ERROR`.
pub(crate) fn read_error(message: &[u8]) -> der::Result<KdcError> {
    let error: ErrorMessage<'_> = from_message(message_type::ERROR, message)?;
    let data = error.e_data.map(|data| data.as_bytes());
    Ok(KdcError {
        code: error.error_code,
        text: error.e_text.map(shown),
        time: error.stime.to_system_time(),
        kinds: data.map(known_kinds).unwrap_or_default(),
    })
}

/// What a KDC says, cut.
fn shown(text: KerberosString<'_>) -> String {
    const CHARS_MAX: usize = 200;
    let text = text.to_text();
    let visible = text.chars().filter(|c| !c.is_control());
    visible.take(CHARS_MAX).collect()
}

/// The types of `PA-ETYPE-INFO2` in the data of an error that are among ours.
fn known_kinds(data: &[u8]) -> Vec<EncryptionType> {
    let hints = Vec::<PaData<'_>>::from_der(data).unwrap_or_default();
    let hint = hints.iter().find(|hint| hint.padata_type == PA_ETYPE_INFO2);
    let entries =
        hint.map(|hint| Vec::<EtypeInfo2Entry<'_>>::from_der(hint.padata_value.as_bytes()));
    let entries = entries.and_then(Result::ok).unwrap_or_default();
    let kinds = entries.iter();
    kinds
        .filter_map(|entry| EncryptionType::of_number(entry.etype))
        .collect()
}

#[cfg(test)]
mod tests;
