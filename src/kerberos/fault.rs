//! Why there is no ticket, in words that say what to mend.

use std::path::Path;
use std::time::{Duration, SystemTime};

use kafka_client::sasl::TicketFault;

use crate::kdc::{KdcError, KdcFault};
use crate::principal::KerberosPrincipal;

/// The property that has the keytab and the principal.
pub(crate) const JAAS_CONFIG: &str = "sasl.jaas.config";
/// The property that has the first part of the brokers' names.
pub(crate) const SERVICE_NAME: &str = "sasl.kerberos.service.name";
/// The file that has the KDCs.
pub(crate) const KRB5_CONF: &str = "krb5.conf";
/// What tickets are timed by.
const CLOCK: &str = "the clock of this machine";

/// Codes of `KRB-ERROR` (RFC 4120, section 7.5.9).
pub(crate) mod code {
    pub(crate) const CLIENT_EXPIRED: i32 = 1;
    pub(crate) const CLIENT_UNKNOWN: i32 = 6;
    pub(crate) const SERVER_UNKNOWN: i32 = 7;
    pub(crate) const NO_SUPPORTED_TYPE: i32 = 14;
    pub(crate) const CLIENT_REVOKED: i32 = 18;
    pub(crate) const TGT_REVOKED: i32 = 20;
    pub(crate) const KEY_EXPIRED: i32 = 23;
    pub(crate) const PREAUTHENTICATION_FAILED: i32 = 24;
    pub(crate) const PREAUTHENTICATION_REQUIRED: i32 = 25;
    pub(crate) const SERVER_NO_MATCH: i32 = 26;
    pub(crate) const BAD_INTEGRITY: i32 = 31;
    pub(crate) const TICKET_EXPIRED: i32 = 32;
    pub(crate) const SKEW: i32 = 37;
    pub(crate) const BAD_KEY_VERSION: i32 = 44;
    pub(crate) const WRONG_REALM: i32 = 68;
}

pub(crate) fn ticket_fault(place: &'static str, message: String) -> TicketFault {
    TicketFault {
        message: message.into(),
        place,
    }
}

/// Why the KDC gives no TGT.
pub(crate) fn of_login(
    fault: KdcFault,
    client: &KerberosPrincipal,
    keytab: &Path,
    now: SystemTime,
) -> TicketFault {
    let keytab = keytab.display();
    let of_key = || {
        format!(
            "the key of {client} in {keytab} is not the one that the KDC has, since a new password \
             or ktadd, for example; write the keytab anew"
        )
    };
    let error = match fault {
        KdcFault::Refused(error) => error,
        KdcFault::WrongKey => return ticket_fault(JAAS_CONFIG, of_key()),
        KdcFault::UnsupportedKey(kind) => {
            return ticket_fault(
                JAAS_CONFIG,
                format!(
                    "{keytab} has no key of {client} of the encryption type {kind}, which the KDC uses"
                ),
            );
        }
        other => return of_answer(&other, &client.realm),
    };
    match error.code {
        code::PREAUTHENTICATION_FAILED | code::BAD_INTEGRITY => ticket_fault(JAAS_CONFIG, of_key()),
        code::CLIENT_UNKNOWN => {
            ticket_fault(JAAS_CONFIG, format!("the KDC does not know {client}"))
        }
        code::WRONG_REALM => ticket_fault(
            JAAS_CONFIG,
            format!(
                "the KDC of {} sends {client} to another realm",
                client.realm
            ),
        ),
        code::CLIENT_EXPIRED | code::CLIENT_REVOKED | code::KEY_EXPIRED => ticket_fault(
            JAAS_CONFIG,
            format!(
                "the KDC has {client} locked, disabled or expired: {}",
                words(&error)
            ),
        ),
        code::NO_SUPPORTED_TYPE => ticket_fault(
            JAAS_CONFIG,
            format!("the KDC has no key of {client} of the encryption types in {keytab}"),
        ),
        code::PREAUTHENTICATION_REQUIRED => ticket_fault(
            JAAS_CONFIG,
            format!("the KDC wants more of {client} than a key, which is not supported"),
        ),
        _ => of_error(&error, &client.realm, now),
    }
}

/// Why the KDC gives no ticket for a service.
pub(crate) fn of_service(
    fault: KdcFault,
    server: &KerberosPrincipal,
    realm: &str,
    now: SystemTime,
) -> TicketFault {
    let error = match fault {
        KdcFault::Refused(error) => error,
        other => return of_answer(&other, realm),
    };
    match (error.code, server.grants_tickets_of()) {
        (code::SERVER_UNKNOWN | code::SERVER_NO_MATCH, Some(other)) => ticket_fault(
            KRB5_CONF,
            format!(
                "the KDC of {realm} knows no way to the realm {other}, which [domain_realm] or \
                 default_realm has for the broker's host"
            ),
        ),
        (code::SERVER_UNKNOWN | code::SERVER_NO_MATCH, None) => ticket_fault(
            SERVICE_NAME,
            format!(
                "the KDC of {realm} does not know {server}: the name is the service's, the host \
                 that the broker advertises, and the realm of [domain_realm] or default_realm"
            ),
        ),
        (code::NO_SUPPORTED_TYPE, _) => ticket_fault(
            KRB5_CONF,
            format!(
                "the KDC of {realm} has no key of {server} of an encryption type that we have, which are those of AES"
            ),
        ),
        _ => of_error(&error, realm, now),
    }
}

fn of_error(error: &KdcError, realm: &str, now: SystemTime) -> TicketFault {
    match error.code {
        code::SKEW => {
            let apart = apart(error.time, now).as_secs();
            let fault_text = format!("it is {apart} s apart from that of the KDC of {realm}");
            ticket_fault(CLOCK, fault_text)
        }
        _ => ticket_fault(
            KRB5_CONF,
            format!("the KDC of {realm} refuses: {}", words(error)),
        ),
    }
}

/// A ticket that has ended before it came.
pub(crate) fn of_expired(server: &KerberosPrincipal) -> TicketFault {
    ticket_fault(
        CLOCK,
        format!("by it, a new ticket for {server} has expired already"),
    )
}

/// An answer that is none.
fn of_answer(fault: &KdcFault, realm: &str) -> TicketFault {
    let reason = match fault {
        KdcFault::Refused(error) => words(error),
        KdcFault::Malformed => "it cannot be read".to_owned(),
        KdcFault::WrongKey => "it is not encrypted with the key of the session".to_owned(),
        KdcFault::Mismatch(reason) => (*reason).to_owned(),
        KdcFault::UnsupportedKey(kind) => {
            format!("it has a key of the encryption type {kind}, which is not supported")
        }
    };
    ticket_fault(
        KRB5_CONF,
        format!("what the KDC of {realm} answers is of no use: {reason}"),
    )
}

/// In the KDC's words, where it has any.
fn words(error: &KdcError) -> String {
    match &error.text {
        Some(text) if !text.is_empty() => format!("error {}, {text}", error.code),
        _ => format!("error {}", error.code),
    }
}

fn apart(a: SystemTime, b: SystemTime) -> Duration {
    a.duration_since(b).unwrap_or_else(|error| error.duration())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::name;

    fn refusal(code: i32) -> KdcFault {
        KdcFault::Refused(KdcError {
            code,
            text: Some("WORDS".to_owned()),
            time: SystemTime::UNIX_EPOCH + Duration::from_secs(1000),
            kinds: Vec::new(),
        })
    }

    #[test]
    fn every_refusal_says_what_to_look_at() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1400);
        let of_login = |fault| of_login(fault, &name("alice"), Path::new("/k"), now).to_string();
        let of_service =
            |server: &str, fault| of_service(fault, &name(server), "TEST", now).to_string();
        for (fault, parts) in [
            (
                of_login(refusal(37)),
                ["400 s apart", "(the clock of this machine)"],
            ),
            (
                of_login(refusal(18)),
                ["locked, disabled or expired: error 18, WORDS", JAAS_CONFIG],
            ),
            (
                of_login(refusal(14)),
                [
                    "no key of alice@TEST of the encryption types in /k",
                    JAAS_CONFIG,
                ],
            ),
            (
                of_login(refusal(25)),
                ["wants more of alice@TEST than a key", JAAS_CONFIG],
            ),
            (
                of_login(refusal(68)),
                ["sends alice@TEST to another realm", JAAS_CONFIG],
            ),
            (
                of_login(refusal(60)),
                ["refuses: error 60, WORDS", "(krb5.conf)"],
            ),
            (
                of_login(KdcFault::WrongKey),
                ["the key of alice@TEST in /k is not", JAAS_CONFIG],
            ),
            (
                of_login(KdcFault::UnsupportedKey(23)),
                ["encryption type 23", JAAS_CONFIG],
            ),
            (
                of_login(KdcFault::Malformed),
                ["it cannot be read", "(krb5.conf)"],
            ),
            (of_service("kafka/b", refusal(37)), ["400 s apart", "clock"]),
            (
                of_service("kafka/b", refusal(7)),
                ["does not know kafka/b@TEST", SERVICE_NAME],
            ),
            (
                of_service("kafka/b", refusal(14)),
                ["no key of kafka/b@TEST", "(krb5.conf)"],
            ),
            (
                of_service("kafka/b", refusal(60)),
                ["refuses: error 60, WORDS", "(krb5.conf)"],
            ),
            (
                of_service("krbtgt/FAR", refusal(7)),
                ["no way to the realm FAR", "(krb5.conf)"],
            ),
            (
                of_service("kafka/b", KdcFault::Mismatch("x")),
                ["of no use: x", "(krb5.conf)"],
            ),
            (
                of_expired(&name("kafka/b")).to_string(),
                ["has expired already", "clock"],
            ),
        ] {
            assert!(parts.iter().all(|part| fault.contains(part)), "{fault}");
        }
    }
}
