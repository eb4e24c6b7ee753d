//! The initiator of a GSS-API context (RFC 4121), without I/O:
//!
//! ```text
//! AP-REQ: the ticket, a subkey of ours, the time   ─▶ broker
//! AP-REP: that time, perhaps a subkey of theirs    ◀─
//! then wrapped messages, both ways: checked, not encrypted
//! ```
//!
//! # Invariants
//! - The broker has shown that it has the key of its ticket before anything that it says counts.
//! - A message counts only in the order sent, and not one of our own that comes back.

use std::time::SystemTime;

use der::asn1::{GeneralizedTime, OctetStringRef};
use kafka_client::sasl::GssFault;
use secret::SecretBytes;

use crate::crypto::{IntegrityFault, KerberosKey, KeyUsage};
use crate::kdc::{ap_request, key_of, read_error};
use crate::messages::{
    ApRep, Authenticator, Checksum, EncApRepPart, EncryptionKey, KerberosString, PrincipalName,
    VERSION, from_message, message_type, split_time,
};
use crate::ticket::IssuedTicket;

/// The object identifier 1.2.840.113554.1.2.2, encoded.
const MECHANISM: [u8; 11] = [6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x12, 1, 2, 2];
/// What the tokens of a context begin with, behind the mechanism.
const AP_REQ: [u8; 2] = [1, 0];
const AP_REP: [u8; 2] = [2, 0];
const ERROR: [u8; 2] = [3, 0];
/// What a wrapped message begins with.
const WRAP: [u8; 2] = [5, 4];
/// The flags of a wrapped message.
const SENT_BY_ACCEPTOR: u8 = 1;
const SEALED: u8 = 2;
const ACCEPTOR_SUBKEY: u8 = 4;
const WRAP_HEADER: usize = 16;
/// The option `mutual-required` of an AP-REQ.
const MUTUAL_REQUIRED: [u8; 4] = [0x20, 0, 0, 0];
/// The type of the checksum that has no sum (RFC 4121, section 4.1.1).
const CHECKSUM_OF_GSS: i32 = 0x8003;
/// Mutual authentication, and messages that are checked, in order, and not replayed.
const CONTEXT_FLAGS: u32 = 2 | 4 | 8 | 32;

/// What is random in a context.
#[derive(Clone, Debug)]
pub(crate) struct ContextSeed {
    pub(crate) subkey: KerberosKey,
    pub(crate) sequence: u32,
}

/// A context that waits for the broker's answer.
#[derive(Clone, Debug)]
pub(crate) struct BegunContext {
    session_key: KerberosKey,
    subkey: KerberosKey,
    sequence: u32,
    ctime: GeneralizedTime,
    cusec: u32,
}

/// A context with both sides known to each other.
#[derive(Clone, Debug)]
pub(crate) struct EstablishedContext {
    /// The acceptor's subkey, or else ours.
    key: KerberosKey,
    is_acceptors: bool,
    /// The number of what is sent next.
    sequence: u64,
    /// The number of what comes next.
    acceptors_sequence: u64,
}

impl BegunContext {
    /// Begins with a ticket; returns what is sent, too. `now` must be another one each time:
    /// brokers take the same time twice for a replay.
    pub(crate) fn new(
        ticket: &IssuedTicket,
        seed: ContextSeed,
        now: SystemTime,
    ) -> der::Result<(Self, Vec<u8>)> {
        let (ctime, cusec) = split_time(now)?;
        let ContextSeed { subkey, sequence } = seed;
        let mut checksum = [0; 24];
        // The length of the channel's bindings, which are none.
        checksum[..4].copy_from_slice(&16_u32.to_le_bytes());
        checksum[20..].copy_from_slice(&CONTEXT_FLAGS.to_le_bytes());
        let authenticator = Authenticator {
            authenticator_vno: VERSION,
            crealm: KerberosString(ticket.client.realm.as_bytes()),
            cname: PrincipalName::of_user(&ticket.client),
            cksum: Some(Checksum {
                cksumtype: CHECKSUM_OF_GSS,
                checksum: OctetStringRef::new(&checksum)?,
            }),
            cusec,
            ctime,
            subkey: Some(EncryptionKey {
                keytype: subkey.kind().number(),
                keyvalue: OctetStringRef::new(subkey.reveal())?,
            }),
            seq_number: Some(sequence),
        };
        let usage = KeyUsage::ApReqAuthenticator;
        let request = ap_request(ticket, authenticator, usage, &MUTUAL_REQUIRED)?;
        let token = framed(AP_REQ, &request);
        let context = Self {
            session_key: ticket.session_key.clone(),
            subkey,
            sequence,
            ctime,
            cusec,
        };
        Ok((context, token))
    }

    /// Takes the broker's answer.
    ///
    /// # Errors
    /// That it does not show that the broker has the key of its ticket.
    pub(crate) fn established(self, token: &[u8]) -> Result<EstablishedContext, GssFault> {
        let (kind, message) = unframed(token).ok_or(GssFault::Unexpected("it is no token"))?;
        if kind == ERROR {
            let error = read_error(message);
            return Err(match error {
                Ok(error) => GssFault::Refused(format!(
                    "it refuses with error {} {}",
                    error.code,
                    error.text.unwrap_or_default()
                )),
                Err(_) => GssFault::Refused("it refuses".to_owned()),
            });
        }
        if kind != AP_REP {
            return Err(GssFault::Unexpected("it is no AP-REP"));
        }
        let malformed = |_| GssFault::Unexpected("its AP-REP cannot be read");
        let reply: ApRep<'_> = from_message(message_type::AP_REP, message).map_err(malformed)?;
        let cipher = reply.enc_part.cipher.as_bytes();
        let text = self.session_key.decrypt(KeyUsage::ApRep, cipher);
        let text: SecretBytes = text.map_err(|IntegrityFault| {
            GssFault::Unexpected("its AP-REP is not encrypted with the key of its ticket")
        })?;
        let part: EncApRepPart<'_> =
            from_message(message_type::ENC_AP_REP_PART, text.reveal()).map_err(malformed)?;
        if (part.ctime, part.cusec) != (self.ctime, self.cusec) {
            return Err(GssFault::Unexpected("its AP-REP answers something else"));
        }
        let acceptors = part.subkey.as_ref().map(key_of).transpose();
        let acceptors =
            acceptors.map_err(|_| GssFault::Unexpected("its subkey is not supported"))?;
        // The lower 32 bits of what may be below zero.
        let acceptors_sequence = part.seq_number.unwrap_or(0) & 0xffff_ffff;
        Ok(EstablishedContext {
            is_acceptors: acceptors.is_some(),
            key: acceptors.unwrap_or(self.subkey),
            sequence: self.sequence.into(),
            acceptors_sequence: acceptors_sequence.unsigned_abs(),
        })
    }
}

impl EstablishedContext {
    /// What a message of the broker says.
    ///
    /// # Errors
    /// That it is not the next one of this context.
    pub(crate) fn unwrap(&mut self, token: &[u8]) -> Result<Vec<u8>, GssFault> {
        let malformed = || GssFault::Unexpected("its message is not wrapped");
        let (header, rest) = token
            .split_first_chunk::<WRAP_HEADER>()
            .ok_or_else(malformed)?;
        let [id0, id1, flags, filler, ec0, ec1, rrc0, rrc1, sequence @ ..] = *header;
        if [id0, id1] != WRAP || filler != 0xff {
            return Err(malformed());
        }
        if flags & SEALED != 0 {
            return Err(GssFault::Unexpected(
                "its message is encrypted, which was not agreed on",
            ));
        }
        let expected = SENT_BY_ACCEPTOR | self.subkey_flag();
        if flags != expected {
            return Err(GssFault::Unexpected(
                "its message is not of this side of the context",
            ));
        }
        if sequence != self.acceptors_sequence.to_be_bytes() {
            return Err(GssFault::Unexpected("its message is out of order"));
        }
        let checksum_len = usize::from(u16::from_be_bytes([ec0, ec1]));
        let rotation = usize::from(u16::from_be_bytes([rrc0, rrc1]));
        let mut data = rest.to_vec();
        if !data.is_empty() {
            let len = data.len();
            data.rotate_left(rotation % len);
        }
        let len = data.len().checked_sub(checksum_len).ok_or_else(malformed)?;
        let (text, checksum) = data.split_at(len);
        let checked = wrap_header(flags, 0, self.acceptors_sequence);
        let verified =
            self.key
                .verify_checksum(KeyUsage::AcceptorWrap, &[text, &checked], checksum);
        verified.map_err(|IntegrityFault| GssFault::Unexpected("its message was changed"))?;
        self.acceptors_sequence += 1;
        data.truncate(len);
        Ok(data)
    }

    /// A message to the broker.
    pub(crate) fn wrap(&mut self, text: &[u8]) -> Vec<u8> {
        let flags = self.subkey_flag();
        let checked = wrap_header(flags, 0, self.sequence);
        let checksum = self
            .key
            .checksum(KeyUsage::InitiatorWrap, &[text, &checked]);
        let checksum_len = u16::try_from(checksum.len()).expect("a checksum is short");
        let mut token = wrap_header(flags, checksum_len, self.sequence).to_vec();
        token.extend_from_slice(text);
        token.extend_from_slice(&checksum);
        self.sequence += 1;
        token
    }

    fn subkey_flag(&self) -> u8 {
        match self.is_acceptors {
            true => ACCEPTOR_SUBKEY,
            false => 0,
        }
    }
}

fn wrap_header(flags: u8, checksum_len: u16, sequence: u64) -> [u8; WRAP_HEADER] {
    let mut header = [0; WRAP_HEADER];
    header[..2].copy_from_slice(&WRAP);
    header[2..4].copy_from_slice(&[flags, 0xff]);
    header[4..6].copy_from_slice(&checksum_len.to_be_bytes());
    header[8..].copy_from_slice(&sequence.to_be_bytes());
    header
}

/// RFC 2743, section 3.1.
fn framed(kind: [u8; 2], message: &[u8]) -> Vec<u8> {
    let content = MECHANISM.len() + kind.len() + message.len();
    let mut token = vec![0x60];
    let bytes = content.to_be_bytes();
    match content {
        0..0x80 => token.push(bytes[bytes.len() - 1]),
        _ => {
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            token.push(0x80 | (bytes.len() - zeros) as u8);
            token.extend_from_slice(&bytes[zeros..]);
        }
    }
    token.extend_from_slice(&MECHANISM);
    token.extend_from_slice(&kind);
    token.extend_from_slice(message);
    token
}

fn unframed(token: &[u8]) -> Option<([u8; 2], &[u8])> {
    let (first, rest) = token.split_first()?;
    let (len, rest) = rest.split_first()?;
    let (len, rest) = match len {
        0..0x80 => (usize::from(*len), rest),
        _ => {
            let (bytes, rest) = rest.split_at_checked(usize::from(len & 0x7f))?;
            let bytes = (bytes.len() <= 4).then_some(bytes)?;
            let len = bytes
                .iter()
                .fold(0, |len, byte| len << 8 | usize::from(*byte));
            (len, rest)
        }
    };
    let rest = (*first == 0x60 && rest.len() == len).then_some(rest)?;
    let (kind, message) = rest.strip_prefix(&MECHANISM)?.split_first_chunk::<2>()?;
    Some((*kind, message))
}

#[cfg(test)]
mod tests;
