//! What is asked of KDCs to get a ticket: which of them, in which order, and how often.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use kafka_client::sasl::TicketFault;
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use crate::crypto::{EncryptionType, KerberosKey};
use crate::fault::{self, JAAS_CONFIG, KRB5_CONF, code, ticket_fault};
use crate::kdc::{self, KdcFault};
use crate::kdc_client::KdcClient;
use crate::keytab::Keytab;
use crate::krb5_conf::Krb5Conf;
use crate::principal::KerberosPrincipal;
use crate::random::random_number;
use crate::ticket::{IssuedTicket, NewTicket, TicketRequest};

/// Realms on the way to that of a service.
const REALMS_MAX: usize = 8;
/// Of a keytab, no more is read.
const KEYTAB_BYTES_MAX: u64 = 4 << 20;

/// Who asks, and whom.
#[derive(Debug)]
pub(crate) struct KdcExchanges {
    client: KerberosPrincipal,
    /// Read again at each login.
    keytab: PathBuf,
    conf: Krb5Conf,
    kdcs: KdcClient,
}

/// Why there is no ticket for a service.
#[derive(Debug)]
pub(crate) enum ServiceFault {
    /// There would be none for any.
    Any(TicketFault),
    /// The KDC refuses this one.
    Service(TicketFault),
    /// The KDC does not take the TGT any more.
    Tgt(TicketFault),
}

impl KdcExchanges {
    /// Checks what can be checked without asking anybody.
    ///
    /// # Errors
    /// That the keytab has no key to use, or the realm no KDC.
    pub(crate) fn new(
        client: KerberosPrincipal,
        keytab: PathBuf,
        conf: Krb5Conf,
    ) -> Result<Self, TicketFault> {
        conf.kdcs(&client.realm).map_err(of_conf)?;
        conf.permitted(FOR_SERVICES).map_err(of_conf)?;
        let exchanges = Self {
            client,
            keytab,
            conf,
            kdcs: KdcClient::default(),
        };
        exchanges.permitted(read_keys(&exchanges.keytab, &exchanges.client)?)?;
        Ok(exchanges)
    }

    pub(crate) fn client(&self) -> &KerberosPrincipal {
        &self.client
    }

    /// The realm that a host's services are in.
    pub(crate) fn realm_of(&self, host: &str) -> &str {
        self.conf.realm_of(host).unwrap_or(&self.client.realm)
    }

    /// A TGT, by the keytab.
    pub(crate) async fn log_in(&self) -> Result<NewTicket, TicketFault> {
        let keys = self.permitted(self.keys().await?)?;
        let realm = &self.client.realm;
        let server = KerberosPrincipal::of_ticket_granting(realm, realm);
        let kinds: Vec<_> = keys.iter().map(KerberosKey::kind).collect();
        let mut proof = None;
        loop {
            let request = TicketRequest {
                server: &server,
                kinds: &kinds,
                nonce: random_number(),
            };
            let now = SystemTime::now();
            let proved = proof.map(|key| (key, now));
            let message = kdc::as_request(&self.client, &request, proved).map_err(unencodable)?;
            let reply = self.ask(realm, &message).await?;
            let now = SystemTime::now();
            match kdc::read_as_reply(&reply, &self.client, &request, &keys) {
                Ok(ticket) => return self.timed(ticket, now),
                Err(KdcFault::Refused(error))
                    if error.code == code::PREAUTHENTICATION_REQUIRED && proof.is_none() =>
                {
                    proof = Some(preferred(&keys, &error.kinds));
                }
                Err(refused) => {
                    return Err(fault::of_login(refused, &self.client, &self.keytab, now));
                }
            }
        }
    }

    /// A ticket for a service, by a TGT: from realm to realm, if it must be.
    pub(crate) async fn service_ticket(
        &self,
        tgt: &IssuedTicket,
        server: &KerberosPrincipal,
    ) -> Result<NewTicket, ServiceFault> {
        let kinds = self.conf.permitted(FOR_SERVICES).map_err(of_conf);
        let kinds = kinds.map_err(ServiceFault::Any)?;
        let (mut server, mut tgt) = (server.clone(), tgt.clone());
        for _ in 0..REALMS_MAX {
            let realm = tgt
                .server
                .grants_tickets_of()
                .unwrap_or(&tgt.server.realm)
                .to_owned();
            let nearer = match server.realm == realm {
                true => server.clone(),
                false => KerberosPrincipal::of_ticket_granting(&server.realm, &realm),
            };
            let given = self.ask_for(&tgt, &nearer, &kinds, &realm).await?;
            if given.server.components == server.components {
                let timed = self.timed(given, SystemTime::now());
                return timed.map_err(ServiceFault::Any);
            }
            // The realm that was asked for it knows that it is elsewhere.
            let next = given.server.grants_tickets_of().unwrap_or_default();
            if nearer == server {
                server.realm = next.to_owned();
            }
            tgt = given;
        }
        let message = format!("KDCs send us from realm to realm for {server}");
        Err(ServiceFault::Service(ticket_fault(KRB5_CONF, message)))
    }

    /// One question to the KDCs of a realm.
    async fn ask_for(
        &self,
        tgt: &IssuedTicket,
        server: &KerberosPrincipal,
        kinds: &[EncryptionType],
        realm: &str,
    ) -> Result<IssuedTicket, ServiceFault> {
        let request = TicketRequest {
            server,
            kinds,
            nonce: random_number(),
        };
        let message = kdc::tgs_request(tgt, &request, SystemTime::now());
        let message = message.map_err(|error| ServiceFault::Service(unencodable(error)))?;
        let reply = self.ask(realm, &message).await.map_err(ServiceFault::Any)?;
        kdc::read_tgs_reply(&reply, tgt, &request).map_err(|refused| {
            let is_of_tgt = matches!(&refused, KdcFault::Refused(error) if is_of_tgt(error.code));
            let fault = fault::of_service(refused, server, realm, SystemTime::now());
            match is_of_tgt {
                true => ServiceFault::Tgt(fault),
                false => ServiceFault::Service(fault),
            }
        })
    }

    async fn ask(&self, realm: &str, message: &[u8]) -> Result<Vec<u8>, TicketFault> {
        let kdcs = self.conf.kdcs(realm).map_err(of_conf)?;
        let asked = self.kdcs.ask(&kdcs, message, self.conf.kdc_timeout()).await;
        asked.map_err(|reasons| of_conf(format!("no KDC of {realm} can be reached: {reasons}")))
    }

    async fn keys(&self) -> Result<Vec<KerberosKey>, TicketFault> {
        let (keytab, client) = (self.keytab.clone(), self.client.clone());
        let reading = spawn_blocking(move || read_keys(&keytab, &client));
        reading
            .await
            .unwrap_or_else(|error| Err(ticket_fault(JAAS_CONFIG, error.to_string())))
    }

    /// Those keys whose types `krb5.conf` permits.
    fn permitted(&self, mut keys: Vec<KerberosKey>) -> Result<Vec<KerberosKey>, TicketFault> {
        let permitted = self.conf.permitted(FOR_TGT).map_err(of_conf)?;
        keys.retain(|key| permitted.contains(&key.kind()));
        match keys.is_empty() {
            true => Err(of_conf(format!(
                "permitted_enctypes and {FOR_TGT} leave none of the keys in {}",
                self.keytab.display()
            ))),
            false => Ok(keys),
        }
    }

    fn timed(&self, ticket: IssuedTicket, now: SystemTime) -> Result<NewTicket, TicketFault> {
        let new = NewTicket::new(ticket, now);
        match new.lifetime.is_zero() {
            true => Err(fault::of_expired(&new.ticket.server)),
            false => Ok(new),
        }
    }
}

/// What `krb5.conf` has for the types of TGTs, and of other tickets.
const FOR_TGT: &str = "default_tkt_enctypes";
const FOR_SERVICES: &str = "default_tgs_enctypes";

/// The key that the KDC has, too; it says so in its order.
fn preferred<'a>(keys: &'a [KerberosKey], known: &[EncryptionType]) -> &'a KerberosKey {
    let of_kind = |kind: &EncryptionType| keys.iter().find(|key| key.kind() == *kind);
    known.iter().find_map(of_kind).unwrap_or(&keys[0])
}

/// The codes of a TGT that has expired, or whose KDC has another key since.
fn is_of_tgt(code: i32) -> bool {
    [
        code::TGT_REVOKED,
        code::BAD_INTEGRITY,
        code::TICKET_EXPIRED,
        code::BAD_KEY_VERSION,
    ]
    .contains(&code)
}

fn of_conf(reason: String) -> TicketFault {
    ticket_fault(KRB5_CONF, reason)
}

/// Names that are longer than a message can be.
fn unencodable(error: der::Error) -> TicketFault {
    ticket_fault(
        JAAS_CONFIG,
        format!("no request can be made of it: {error}"),
    )
}

fn read_keys(path: &Path, principal: &KerberosPrincipal) -> Result<Vec<KerberosKey>, TicketFault> {
    let of_keytab = |reason: String| {
        ticket_fault(
            JAAS_CONFIG,
            format!("the keytab {} {reason}", path.display()),
        )
    };
    let content = read(path).map_err(|error| of_keytab(format!("cannot be read: {error}")))?;
    let keytab = Keytab::parse(&content).map_err(of_keytab)?;
    keytab.keys_of(principal).map_err(of_keytab)
}

fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut content = Zeroizing::new(Vec::new());
    let mut file = File::open(path)?.take(KEYTAB_BYTES_MAX);
    file.read_to_end(&mut content)?;
    Ok(content)
}

#[cfg(test)]
pub(crate) mod tests;
