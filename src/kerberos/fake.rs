//! A KDC of the tests, whose tickets are readable: they have their session keys in them.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use der::asn1::{AnyRef, OctetStringRef};
use der::{Decode, Encode};
use runtime::mutex::lock;
use secret::SecretBytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use crate::crypto::{EncryptionType, KerberosKey, KeyUsage};
use crate::fault::code;
use crate::messages::{
    ApReq, Authenticator, EncKdcRepPart, EncryptedData, EncryptionKey, ErrorMessage,
    EtypeInfo2Entry, KdcRep, KdcReq, KdcReqBody, KerberosString, PaData, PaTimestamp,
    PrincipalName, VERSION, from_message, message_number, message_type, split_time, to_message,
};
use crate::principal::KerberosPrincipal;
use crate::ticket::IssuedTicket;

pub(crate) const KIND: EncryptionType = EncryptionType::Aes256Sha1;

/// What a KDC knows, and what it does wrong.
#[derive(Clone, Debug)]
pub(crate) struct FakeKdc {
    pub(crate) realm: &'static str,
    pub(crate) clients: Vec<(KerberosPrincipal, KerberosKey)>,
    /// Services that it gives tickets for, or the realm that it sends to for them.
    pub(crate) services: Vec<(KerberosPrincipal, Option<&'static str>)>,
    pub(crate) lifetime: Duration,
    /// Whether a timestamp must come with an AS-REQ.
    pub(crate) needs_proof: bool,
    /// Answered instead of a TGS-REP.
    pub(crate) refuses_tgt: bool,
    pub(crate) nonce_offset: u32,
    /// What it has answered, by the numbers of messages.
    pub(crate) answered: Vec<u8>,
}

pub(crate) fn name(text: &str) -> KerberosPrincipal {
    KerberosPrincipal::parse(text, Some("TEST")).expect(text)
}

impl FakeKdc {
    pub(crate) fn new(client_key: &KerberosKey) -> Self {
        Self {
            realm: "TEST",
            clients: vec![(name("alice"), client_key.clone())],
            services: vec![(name("kafka/b-1"), None)],
            lifetime: Duration::from_secs(3600),
            needs_proof: true,
            refuses_tgt: false,
            nonce_offset: 0,
            answered: Vec::new(),
        }
    }

    pub(crate) fn answer(&mut self, request: &[u8]) -> Vec<u8> {
        let answer = match message_number(request) {
            Some(message_type::AS_REQ) => self.answer_as(request),
            Some(message_type::TGS_REQ) => self.answer_tgs(request),
            _ => self.error(60),
        };
        self.answered.extend(message_number(&answer));
        answer
    }

    fn answer_as(&self, request: &[u8]) -> Vec<u8> {
        let request: KdcReq<'_> = from_message(message_type::AS_REQ, request).expect("AS-REQ");
        let body: KdcReqBody<'_> = request.req_body.decode_as().expect("a body");
        let client = body.cname.as_ref().expect("a client").in_realm(body.realm);
        let known = self.clients.iter().find(|(name, _)| *name == client);
        let Some((_, key)) = known else {
            return self.error(code::CLIENT_UNKNOWN);
        };
        match &request.padata {
            None if self.needs_proof => return self.error(code::PREAUTHENTICATION_REQUIRED),
            None => {}
            Some(padata) => {
                let proof = EncryptedData::from_der(padata[0].padata_value.as_bytes());
                let proof = proof.expect("a proof").cipher;
                let Ok(time) = key.decrypt(KeyUsage::AsReqTimestamp, proof.as_bytes()) else {
                    return self.error(code::PREAUTHENTICATION_FAILED);
                };
                PaTimestamp::from_der(time.reveal()).expect("a timestamp");
            }
        }
        let server = body.sname.in_realm(body.realm);
        let types = (message_type::AS_REP, message_type::ENC_AS_REP_PART);
        self.reply(
            types,
            (&client, &server),
            body.nonce,
            (key, KeyUsage::AsRep),
        )
    }

    fn answer_tgs(&self, request: &[u8]) -> Vec<u8> {
        if self.refuses_tgt {
            return self.error(code::TICKET_EXPIRED);
        }
        let request: KdcReq<'_> = from_message(message_type::TGS_REQ, request).expect("TGS-REQ");
        let header = request.padata.expect("a header")[0].padata_value;
        let (key, client) = accept(
            header.as_bytes(),
            KeyUsage::TgsReqAuthenticator,
            |part, key| {
                let checksum = part.cksum.as_ref().expect("a checksum");
                let checksum = checksum.checksum.as_bytes();
                let text = request.req_body.to_der().expect("a body");
                key.verify_checksum(KeyUsage::TgsReqChecksum, &[&text], checksum)
                    .expect("its checksum");
                part.cname.in_realm(part.crealm)
            },
        );
        let body: KdcReqBody<'_> = request.req_body.decode_as().expect("a body");
        let server = body.sname.in_realm(body.realm);
        let known = self.services.iter().find(|(name, _)| *name == server);
        let server = match known {
            None => return self.error(code::SERVER_UNKNOWN),
            Some((_, Some(realm))) => KerberosPrincipal::of_ticket_granting(realm, self.realm),
            Some((_, None)) => server,
        };
        let types = (message_type::TGS_REP, message_type::ENC_TGS_REP_PART);
        self.reply(
            types,
            (&client, &server),
            body.nonce,
            (&key, KeyUsage::TgsRep),
        )
    }

    fn reply(
        &self,
        (msg_type, part_type): (u8, u8),
        (client, server): (&KerberosPrincipal, &KerberosPrincipal),
        nonce: u32,
        (key, usage): (&KerberosKey, KeyUsage),
    ) -> Vec<u8> {
        let ticket = issued(client, server, SystemTime::now() + self.lifetime);
        let (endtime, _) = split_time(ticket.ends_at).expect("a time");
        let part = EncKdcRepPart {
            key: key_message(&ticket.session_key),
            last_req: AnyRef::new(der::Tag::Sequence, b"").expect("short"),
            nonce: nonce + self.nonce_offset,
            key_expiration: None,
            flags: AnyRef::new(der::Tag::BitString, &[0; 5]).expect("short"),
            authtime: endtime,
            starttime: None,
            endtime,
            renew_till: None,
            srealm: KerberosString(server.realm.as_bytes()),
            sname: PrincipalName::of_server(server),
            caddr: None,
            encrypted_pa_data: None,
        };
        let part = to_message(part_type, part).expect("it can be encoded");
        let cipher = key.encrypt(usage, &part);
        let reply = KdcRep {
            pvno: VERSION,
            msg_type,
            padata: None,
            crealm: KerberosString(client.realm.as_bytes()),
            cname: PrincipalName::of_user(client),
            ticket: AnyRef::from_der(ticket.encoded.reveal()).expect("a ticket"),
            enc_part: EncryptedData {
                etype: key.kind().number(),
                kvno: Some(2),
                cipher: OctetStringRef::new(&cipher).expect("short"),
            },
        };
        to_message(msg_type, reply).expect("it can be encoded")
    }

    fn error(&self, error_code: i32) -> Vec<u8> {
        let entry = |(_, key): &(_, KerberosKey)| EtypeInfo2Entry {
            etype: key.kind().number(),
            salt: None,
            s2kparams: None,
        };
        let entries: Vec<_> = self.clients.iter().map(entry).collect();
        let entries = entries.to_der().expect("it can be encoded");
        let hints = vec![PaData {
            padata_type: 19,
            padata_value: OctetStringRef::new(&entries).expect("short"),
        }];
        let hints = hints.to_der().expect("it can be encoded");
        error(error_code, SystemTime::now(), Some(&hints))
    }
}

/// A `KRB-ERROR`.
pub(crate) fn error(error_code: i32, time: SystemTime, data: Option<&[u8]>) -> Vec<u8> {
    let (stime, susec) = split_time(time).expect("a time");
    let server = name("krbtgt/TEST");
    let message = ErrorMessage {
        pvno: VERSION,
        msg_type: message_type::ERROR,
        ctime: None,
        cusec: None,
        stime,
        susec,
        error_code,
        crealm: None,
        cname: None,
        realm: KerberosString(b"TEST"),
        sname: PrincipalName::of_server(&server),
        e_text: Some(KerberosString(b"WORDS\n")),
        e_data: data.map(|data| OctetStringRef::new(data).expect("short")),
    };
    to_message(message_type::ERROR, message).expect("it can be encoded")
}

/// A ticket that has its session key in it.
pub(crate) fn issued(
    client: &KerberosPrincipal,
    server: &KerberosPrincipal,
    ends_at: SystemTime,
) -> IssuedTicket {
    let session_key = KerberosKey::random(KIND);
    let content = OctetStringRef::new(session_key.reveal()).expect("short");
    IssuedTicket {
        client: client.clone(),
        server: server.clone(),
        encoded: SecretBytes::new(to_message(1, content).expect("it can be encoded")),
        session_key,
        ends_at,
    }
}

/// What an AP-REQ says to whoever can read its ticket.
pub(crate) fn accept<T>(
    request: &[u8],
    usage: KeyUsage,
    read: impl FnOnce(&Authenticator<'_>, &KerberosKey) -> T,
) -> (KerberosKey, T) {
    let request: ApReq<'_> = from_message(message_type::AP_REQ, request).expect("AP-REQ");
    let ticket = request.ticket.to_der().expect("a ticket");
    let key: &OctetStringRef = from_message(1, &ticket).expect("a ticket of ours");
    let key = KerberosKey::new(KIND, SecretBytes::new(key.as_bytes())).expect("a key");
    let part = key.decrypt(usage, request.authenticator.cipher.as_bytes());
    let part = part.expect("it is encrypted with the session key");
    let part: Authenticator<'_> =
        from_message(message_type::AUTHENTICATOR, part.reveal()).expect("an authenticator");
    let said = read(&part, &key);
    (key, said)
}

pub(crate) fn key_message(key: &KerberosKey) -> EncryptionKey<'_> {
    EncryptionKey {
        keytype: key.kind().number(),
        keyvalue: OctetStringRef::new(key.reveal()).expect("short"),
    }
}

/// A KDC that is reached by TCP.
pub(crate) struct ListeningKdc {
    pub(crate) port: u16,
    pub(crate) kdc: Arc<Mutex<FakeKdc>>,
    serving: AbortHandle,
}

impl ListeningKdc {
    pub(crate) async fn start(kdc: FakeKdc) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let kdc = Arc::new(Mutex::new(kdc));
        let shared = Arc::clone(&kdc);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // Whoever asks may be gone.
                let _ = serve(stream, &shared).await;
            }
        });
        Self {
            port,
            kdc,
            serving: serving.abort_handle(),
        }
    }

    /// What it has answered since the last call.
    pub(crate) fn answered(&self) -> Vec<u8> {
        std::mem::take(&mut lock(&self.kdc).answered)
    }

    pub(crate) fn stop(&self) {
        self.serving.abort();
    }
}

impl Drop for ListeningKdc {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn serve(mut stream: TcpStream, kdc: &Mutex<FakeKdc>) -> std::io::Result<()> {
    let len = stream.read_u32().await?;
    let mut request = vec![0; len as usize];
    stream.read_exact(&mut request).await?;
    let answer = lock(kdc).answer(&request);
    stream.write_u32(answer.len() as u32).await?;
    stream.write_all(&answer).await
}
