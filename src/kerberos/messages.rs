//! The messages of Kerberos (RFC 4120, section 5), as far as a client needs them.
//!
//! What is decoded borrows from the bytes: keys stay where they are wiped.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use der::asn1::{AnyRef, Application, BitStringRef, GeneralizedTime, OctetStringRef};
use der::{
    Decode, DecodeValue, Encode, EncodeValue, FixedTag, Header, Length, Reader, Sequence, Tag,
    TagMode, TagNumber, Tagged, Writer,
};

use crate::principal::KerberosPrincipal;

/// `pvno`, and the version of everything else that has one.
pub(crate) const VERSION: u8 = 5;

/// The numbers of messages: of their tags, and of `msg-type`.
pub(crate) mod message_type {
    pub(crate) const AUTHENTICATOR: u8 = 2;
    pub(crate) const AS_REQ: u8 = 10;
    pub(crate) const AS_REP: u8 = 11;
    pub(crate) const TGS_REQ: u8 = 12;
    pub(crate) const TGS_REP: u8 = 13;
    pub(crate) const AP_REQ: u8 = 14;
    pub(crate) const AP_REP: u8 = 15;
    pub(crate) const ENC_AS_REP_PART: u8 = 25;
    pub(crate) const ENC_TGS_REP_PART: u8 = 26;
    pub(crate) const ENC_AP_REP_PART: u8 = 27;
    pub(crate) const ERROR: u8 = 30;
}

/// A text without a character set that anybody keeps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KerberosString<'a>(pub(crate) &'a [u8]);

impl KerberosString<'_> {
    pub(crate) fn to_text(self) -> String {
        String::from_utf8_lossy(self.0).into_owned()
    }
}

impl FixedTag for KerberosString<'_> {
    const TAG: Tag = Tag::GeneralString;
}

impl<'a> DecodeValue<'a> for KerberosString<'a> {
    type Error = der::Error;

    fn decode_value<R: Reader<'a>>(reader: &mut R, header: Header) -> der::Result<Self> {
        reader.read_slice(header.length()).map(Self)
    }
}

impl EncodeValue for KerberosString<'_> {
    fn value_len(&self) -> der::Result<Length> {
        Length::try_from(self.0.len())
    }

    fn encode_value(&self, writer: &mut impl Writer) -> der::Result<()> {
        writer.write(self.0)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub(crate) struct PrincipalName<'a> {
    #[asn1(context_specific = "0")]
    pub(crate) name_type: i32,
    #[asn1(context_specific = "1")]
    pub(crate) name_string: Vec<KerberosString<'a>>,
}

/// `NT-PRINCIPAL`
const NAME_OF_USER: i32 = 1;
/// `NT-SRV-INST`
const NAME_OF_TICKET_GRANTING: i32 = 2;
/// `NT-SRV-HST`
const NAME_OF_SERVICE: i32 = 3;

impl<'a> PrincipalName<'a> {
    pub(crate) fn of_user(principal: &'a KerberosPrincipal) -> Self {
        Self::of(principal, NAME_OF_USER)
    }

    pub(crate) fn of_server(principal: &'a KerberosPrincipal) -> Self {
        match principal.grants_tickets_of() {
            Some(_) => Self::of(principal, NAME_OF_TICKET_GRANTING),
            None => Self::of(principal, NAME_OF_SERVICE),
        }
    }

    fn of(principal: &'a KerberosPrincipal, name_type: i32) -> Self {
        let components = principal.components.iter();
        Self {
            name_type,
            name_string: components.map(|c| KerberosString(c.as_bytes())).collect(),
        }
    }

    pub(crate) fn in_realm(&self, realm: KerberosString<'_>) -> KerberosPrincipal {
        let components = self.name_string.iter();
        KerberosPrincipal {
            components: components.map(|c| c.to_text()).collect(),
            realm: realm.to_text(),
        }
    }
}

#[derive(Clone, Debug, Sequence)]
pub(crate) struct EncryptedData<'a> {
    #[asn1(context_specific = "0")]
    pub(crate) etype: i32,
    #[asn1(context_specific = "1", optional = "true")]
    pub(crate) kvno: Option<i64>,
    #[asn1(context_specific = "2")]
    pub(crate) cipher: &'a OctetStringRef,
}

/// Not for `Debug`: it has the key.
#[derive(Clone, Sequence)]
pub(crate) struct EncryptionKey<'a> {
    #[asn1(context_specific = "0")]
    pub(crate) keytype: i32,
    #[asn1(context_specific = "1")]
    pub(crate) keyvalue: &'a OctetStringRef,
}

#[derive(Clone, Debug, Sequence)]
pub(crate) struct Checksum<'a> {
    #[asn1(context_specific = "0")]
    pub(crate) cksumtype: i32,
    #[asn1(context_specific = "1")]
    pub(crate) checksum: &'a OctetStringRef,
}

#[derive(Clone, Debug, Sequence)]
pub(crate) struct PaData<'a> {
    #[asn1(context_specific = "1")]
    pub(crate) padata_type: i32,
    #[asn1(context_specific = "2")]
    pub(crate) padata_value: &'a OctetStringRef,
}

/// `PA-ENC-TS-ENC`
#[derive(Clone, Debug, Sequence)]
pub(crate) struct PaTimestamp {
    #[asn1(context_specific = "0")]
    pub(crate) patimestamp: GeneralizedTime,
    #[asn1(context_specific = "1")]
    pub(crate) pausec: u32,
}

#[derive(Clone, Debug, Sequence)]
pub(crate) struct EtypeInfo2Entry<'a> {
    #[asn1(context_specific = "0")]
    pub(crate) etype: i32,
    #[asn1(context_specific = "1", optional = "true")]
    pub(crate) salt: Option<AnyRef<'a>>,
    #[asn1(context_specific = "2", optional = "true")]
    pub(crate) s2kparams: Option<AnyRef<'a>>,
}

#[derive(Clone, Debug, Sequence)]
pub(crate) struct KdcReqBody<'a> {
    #[asn1(context_specific = "0")]
    pub(crate) kdc_options: BitStringRef<'a>,
    #[asn1(context_specific = "1", optional = "true")]
    pub(crate) cname: Option<PrincipalName<'a>>,
    #[asn1(context_specific = "2")]
    pub(crate) realm: KerberosString<'a>,
    #[asn1(context_specific = "3")]
    pub(crate) sname: PrincipalName<'a>,
    #[asn1(context_specific = "5")]
    pub(crate) till: GeneralizedTime,
    #[asn1(context_specific = "7")]
    pub(crate) nonce: u32,
    #[asn1(context_specific = "8")]
    pub(crate) etype: Vec<i32>,
}

/// `AS-REQ` and `TGS-REQ`.
#[derive(Clone, Debug, Sequence)]
pub(crate) struct KdcReq<'a> {
    #[asn1(context_specific = "1")]
    pub(crate) pvno: u8,
    #[asn1(context_specific = "2")]
    pub(crate) msg_type: u8,
    #[asn1(context_specific = "3", optional = "true")]
    pub(crate) padata: Option<Vec<PaData<'a>>>,
    /// A [`KdcReqBody`], as the checksum has it.
    #[asn1(context_specific = "4")]
    pub(crate) req_body: AnyRef<'a>,
}

/// `AS-REP` and `TGS-REP`.
#[derive(Clone, Debug, Sequence)]
pub(crate) struct KdcRep<'a> {
    #[asn1(context_specific = "0")]
    pub(crate) pvno: u8,
    #[asn1(context_specific = "1")]
    pub(crate) msg_type: u8,
    #[asn1(context_specific = "2", optional = "true")]
    pub(crate) padata: Option<AnyRef<'a>>,
    #[asn1(context_specific = "3")]
    pub(crate) crealm: KerberosString<'a>,
    #[asn1(context_specific = "4")]
    pub(crate) cname: PrincipalName<'a>,
    #[asn1(context_specific = "5")]
    pub(crate) ticket: AnyRef<'a>,
    #[asn1(context_specific = "6")]
    pub(crate) enc_part: EncryptedData<'a>,
}

/// `EncKDCRepPart`. Not for `Debug`: it has the session key.
#[derive(Clone, Sequence)]
pub(crate) struct EncKdcRepPart<'a> {
    #[asn1(context_specific = "0")]
    pub(crate) key: EncryptionKey<'a>,
    #[asn1(context_specific = "1")]
    pub(crate) last_req: AnyRef<'a>,
    #[asn1(context_specific = "2")]
    pub(crate) nonce: u32,
    #[asn1(context_specific = "3", optional = "true")]
    pub(crate) key_expiration: Option<GeneralizedTime>,
    #[asn1(context_specific = "4")]
    pub(crate) flags: AnyRef<'a>,
    #[asn1(context_specific = "5")]
    pub(crate) authtime: GeneralizedTime,
    #[asn1(context_specific = "6", optional = "true")]
    pub(crate) starttime: Option<GeneralizedTime>,
    #[asn1(context_specific = "7")]
    pub(crate) endtime: GeneralizedTime,
    #[asn1(context_specific = "8", optional = "true")]
    pub(crate) renew_till: Option<GeneralizedTime>,
    #[asn1(context_specific = "9")]
    pub(crate) srealm: KerberosString<'a>,
    #[asn1(context_specific = "10")]
    pub(crate) sname: PrincipalName<'a>,
    #[asn1(context_specific = "11", optional = "true")]
    pub(crate) caddr: Option<AnyRef<'a>>,
    #[asn1(context_specific = "12", optional = "true")]
    pub(crate) encrypted_pa_data: Option<AnyRef<'a>>,
}

#[derive(Clone, Debug, Sequence)]
pub(crate) struct ApReq<'a> {
    #[asn1(context_specific = "0")]
    pub(crate) pvno: u8,
    #[asn1(context_specific = "1")]
    pub(crate) msg_type: u8,
    #[asn1(context_specific = "2")]
    pub(crate) ap_options: BitStringRef<'a>,
    #[asn1(context_specific = "3")]
    pub(crate) ticket: AnyRef<'a>,
    #[asn1(context_specific = "4")]
    pub(crate) authenticator: EncryptedData<'a>,
}

/// Not for `Debug`: it has a key.
#[derive(Clone, Sequence)]
pub(crate) struct Authenticator<'a> {
    #[asn1(context_specific = "0")]
    pub(crate) authenticator_vno: u8,
    #[asn1(context_specific = "1")]
    pub(crate) crealm: KerberosString<'a>,
    #[asn1(context_specific = "2")]
    pub(crate) cname: PrincipalName<'a>,
    #[asn1(context_specific = "3", optional = "true")]
    pub(crate) cksum: Option<Checksum<'a>>,
    #[asn1(context_specific = "4")]
    pub(crate) cusec: u32,
    #[asn1(context_specific = "5")]
    pub(crate) ctime: GeneralizedTime,
    #[asn1(context_specific = "6", optional = "true")]
    pub(crate) subkey: Option<EncryptionKey<'a>>,
    #[asn1(context_specific = "7", optional = "true")]
    pub(crate) seq_number: Option<u32>,
}

#[derive(Clone, Debug, Sequence)]
pub(crate) struct ApRep<'a> {
    #[asn1(context_specific = "0")]
    pub(crate) pvno: u8,
    #[asn1(context_specific = "1")]
    pub(crate) msg_type: u8,
    #[asn1(context_specific = "2")]
    pub(crate) enc_part: EncryptedData<'a>,
}

/// `EncAPRepPart`. Not for `Debug`: it may have a key.
#[derive(Clone, Sequence)]
pub(crate) struct EncApRepPart<'a> {
    #[asn1(context_specific = "0")]
    pub(crate) ctime: GeneralizedTime,
    #[asn1(context_specific = "1")]
    pub(crate) cusec: u32,
    #[asn1(context_specific = "2", optional = "true")]
    pub(crate) subkey: Option<EncryptionKey<'a>>,
    /// Of 32 bits; some have the upper half below zero.
    #[asn1(context_specific = "3", optional = "true")]
    pub(crate) seq_number: Option<i64>,
}

/// `KRB-ERROR`
#[derive(Clone, Debug, Sequence)]
pub(crate) struct ErrorMessage<'a> {
    #[asn1(context_specific = "0")]
    pub(crate) pvno: u8,
    #[asn1(context_specific = "1")]
    pub(crate) msg_type: u8,
    #[asn1(context_specific = "2", optional = "true")]
    pub(crate) ctime: Option<GeneralizedTime>,
    #[asn1(context_specific = "3", optional = "true")]
    pub(crate) cusec: Option<u32>,
    #[asn1(context_specific = "4")]
    pub(crate) stime: GeneralizedTime,
    #[asn1(context_specific = "5")]
    pub(crate) susec: u32,
    #[asn1(context_specific = "6")]
    pub(crate) error_code: i32,
    #[asn1(context_specific = "7", optional = "true")]
    pub(crate) crealm: Option<KerberosString<'a>>,
    #[asn1(context_specific = "8", optional = "true")]
    pub(crate) cname: Option<PrincipalName<'a>>,
    #[asn1(context_specific = "9")]
    pub(crate) realm: KerberosString<'a>,
    #[asn1(context_specific = "10")]
    pub(crate) sname: PrincipalName<'a>,
    #[asn1(context_specific = "11", optional = "true")]
    pub(crate) e_text: Option<KerberosString<'a>>,
    #[asn1(context_specific = "12", optional = "true")]
    pub(crate) e_data: Option<&'a OctetStringRef>,
}

/// Encodes a message under its application tag.
pub(crate) fn to_message<T>(number: u8, value: T) -> der::Result<Vec<u8>>
where
    T: EncodeValue + Tagged,
{
    Application {
        tag_number: TagNumber(number.into()),
        tag_mode: TagMode::Explicit,
        value,
    }
    .to_der()
}

/// Decodes what has that application tag.
pub(crate) fn from_message<'a, T>(number: u8, bytes: &'a [u8]) -> der::Result<T>
where
    T: Decode<'a, Error = der::Error>,
{
    match message_number(bytes) {
        Some(found) if found == number => Ok(Application::<T>::from_der(bytes)?.value),
        _ => Err(der::ErrorKind::Failed.into()),
    }
}

/// The number of an application tag.
pub(crate) fn message_number(bytes: &[u8]) -> Option<u8> {
    let first = bytes.first()?;
    (first & 0xe0 == 0x60).then_some(first & 0x1f)
}

/// A time as messages have it: seconds, and microseconds apart.
pub(crate) fn split_time(time: SystemTime) -> der::Result<(GeneralizedTime, u32)> {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = GeneralizedTime::from_unix_duration(Duration::from_secs(since.as_secs()))?;
    Ok((seconds, since.subsec_micros()))
}
