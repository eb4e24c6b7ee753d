//! Logins and tickets at KDCs that are reached by TCP.

use std::fs;
use std::time::Duration;

use runtime::mutex::lock;
use tempfile::TempDir;

use super::*;
use crate::fake::{FakeKdc, KIND, ListeningKdc, name};
use crate::krb5_files::read_krb5_conf;
use crate::messages::message_type::{AS_REP, ERROR, TGS_REP};

/// A keytab file with one key.
pub(crate) fn keytab_of(principal: &KerberosPrincipal, key: &KerberosKey) -> Vec<u8> {
    let sized = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes(), bytes].concat();
    let mut entry = (principal.components.len() as u16).to_be_bytes().to_vec();
    entry.extend(sized(principal.realm.as_bytes()));
    for component in &principal.components {
        entry.extend(sized(component.as_bytes()));
    }
    entry.extend([0, 0, 0, 1, 0, 0, 0, 0, 2]);
    entry.extend((key.kind().number() as u16).to_be_bytes());
    entry.extend(sized(key.reveal()));
    [&[5, 2][..], &(entry.len() as i32).to_be_bytes(), &entry].concat()
}

/// A keytab of alice and a krb5.conf with those KDCs.
pub(crate) struct LoginFiles {
    folder: TempDir,
    pub(crate) key: KerberosKey,
}

impl LoginFiles {
    pub(crate) fn new() -> Self {
        let files = Self {
            folder: tempfile::tempdir().expect("a folder"),
            key: KerberosKey::random(KIND),
        };
        files.write_keytab(&keytab_of(&name("alice"), &files.key));
        files
    }

    pub(crate) fn keytab(&self) -> PathBuf {
        self.folder.path().join("alice.keytab")
    }

    pub(crate) fn write_keytab(&self, content: &[u8]) {
        fs::write(self.keytab(), content).expect("it can be written");
    }

    pub(crate) fn conf(&self, ports: &[(&str, u16)], more: &str) -> Krb5Conf {
        let path = self.folder.path().join("krb5.conf");
        let realm =
            |(realm, port): &(&str, u16)| format!("{realm} = {{\nkdc = 127.0.0.1:{port}\n}}\n");
        let realms: String = ports.iter().map(realm).collect();
        let text = format!("[libdefaults]\ndefault_realm = TEST\n{more}\n[realms]\n{realms}");
        fs::write(&path, text).expect("it can be written");
        read_krb5_conf(path.to_str()).expect("it can be read")
    }

    fn exchanges(&self, ports: &[(&str, u16)], more: &str) -> Result<KdcExchanges, TicketFault> {
        KdcExchanges::new(name("alice"), self.keytab(), self.conf(ports, more))
    }
}

fn words<T>(result: Result<T, TicketFault>) -> String {
    result.err().expect("a fault").to_string()
}

fn service_words<T>(result: Result<T, ServiceFault>) -> String {
    match result.err().expect("a fault") {
        ServiceFault::Any(fault) | ServiceFault::Service(fault) | ServiceFault::Tgt(fault) => {
            fault.to_string()
        }
    }
}

#[tokio::test]
async fn a_login_is_a_question_a_proof_and_a_ticket() {
    let files = LoginFiles::new();
    let kdc = ListeningKdc::start(FakeKdc::new(&files.key)).await;
    let exchanges = files
        .exchanges(&[("TEST", kdc.port)], "")
        .expect("they can be made");
    let tgt = exchanges.log_in().await.expect("a TGT");
    assert!(tgt.lifetime > Duration::from_secs(3000));
    let ticket = exchanges
        .service_ticket(&tgt.ticket, &name("kafka/b-1"))
        .await;
    assert_eq!(ticket.expect("a ticket").ticket.server, name("kafka/b-1"));
    assert_eq!(kdc.answered(), [ERROR, AS_REP, TGS_REP]);
    // Of whom it needs none.
    lock(&kdc.kdc).needs_proof = false;
    exchanges.log_in().await.expect("a TGT");
    assert_eq!(kdc.answered(), [AS_REP]);
}

#[tokio::test]
async fn what_keeps_a_login_away_is_said_with_what_to_look_at() {
    let files = LoginFiles::new();
    let kdc = ListeningKdc::start(FakeKdc::new(&files.key)).await;
    let exchanges = files
        .exchanges(&[("TEST", kdc.port)], "")
        .expect("they can be made");
    let login = async || words(exchanges.log_in().await);
    let other = KerberosKey::random(KIND);
    files.write_keytab(&keytab_of(&name("alice"), &other));
    let fault = login().await;
    assert!(fault.contains("is not the one that the KDC has"), "{fault}");
    assert!(fault.ends_with("(sasl.jaas.config)"), "{fault}");
    files.write_keytab(b"nothing");
    assert!(login().await.contains("is no keytab (sasl.jaas.config)"));
    fs::remove_file(files.keytab()).expect("it is there");
    assert!(login().await.contains("cannot be read: No such file"));

    files.write_keytab(&keytab_of(&name("alice"), &files.key));
    let change = |change: fn(&mut FakeKdc)| change(&mut lock(&kdc.kdc));
    change(|kdc| kdc.lifetime = Duration::ZERO);
    assert!(
        login()
            .await
            .ends_with("has expired already (the clock of this machine)")
    );
    change(|kdc| kdc.clients.clear());
    assert_eq!(
        login().await,
        "the KDC does not know alice@TEST (sasl.jaas.config)"
    );
    kdc.stop();
    let fault = login().await;
    assert!(
        fault.starts_with("no KDC of TEST can be reached: 127.0.0.1:"),
        "{fault}"
    );
    assert!(fault.ends_with("(krb5.conf)"), "{fault}");
}

#[tokio::test]
async fn what_keeps_a_ticket_away_is_said_with_what_to_look_at() {
    let files = LoginFiles::new();
    let kdc = ListeningKdc::start(FakeKdc::new(&files.key)).await;
    let exchanges = files
        .exchanges(&[("TEST", kdc.port)], "")
        .expect("they can be made");
    let tgt = exchanges.log_in().await.expect("a TGT").ticket;
    let fault = service_words(exchanges.service_ticket(&tgt, &name("kafka/b-2")).await);
    assert!(fault.contains("does not know kafka/b-2@TEST"), "{fault}");
    assert!(fault.ends_with("(sasl.kerberos.service.name)"), "{fault}");
    let elsewhere = name("kafka/b-2@ELSEWHERE");
    let fault = service_words(exchanges.service_ticket(&tgt, &elsewhere).await);
    assert!(
        fault.contains("knows no way to the realm ELSEWHERE"),
        "{fault}"
    );
    lock(&kdc.kdc).refuses_tgt = true;
    let fault = exchanges.service_ticket(&tgt, &name("kafka/b-1")).await;
    assert!(matches!(fault, Err(ServiceFault::Tgt(_))), "{fault:?}");
}

#[tokio::test]
async fn a_ticket_of_another_realm_is_asked_for_there() {
    let files = LoginFiles::new();
    let mut near = FakeKdc::new(&files.key);
    near.services = vec![
        // By krb5.conf, and by the KDC's own knowledge.
        (name("krbtgt/FAR@TEST"), Some("FAR")),
        (name("kafka/b-3"), Some("FAR")),
        // To itself, without end.
        (name("kafka/b-4"), Some("TEST")),
    ];
    let mut far = FakeKdc::new(&files.key);
    far.realm = "FAR";
    far.services = vec![(name("kafka/b-2@FAR"), None), (name("kafka/b-3@FAR"), None)];
    let (near, far) = (
        ListeningKdc::start(near).await,
        ListeningKdc::start(far).await,
    );
    let ports = [("TEST", near.port), ("FAR", far.port)];
    let exchanges = files.exchanges(&ports, "").expect("they can be made");
    let tgt = exchanges.log_in().await.expect("a TGT").ticket;
    for asked in ["kafka/b-2@FAR", "kafka/b-3"] {
        let ticket = exchanges.service_ticket(&tgt, &name(asked)).await;
        let server = ticket.expect("a ticket").ticket.server.clone();
        assert_eq!(server.realm, "FAR");
    }
    assert_eq!(far.answered(), [TGS_REP, TGS_REP]);
    let fault = service_words(exchanges.service_ticket(&tgt, &name("kafka/b-4")).await);
    assert!(fault.contains("from realm to realm"), "{fault}");
}

#[test]
fn settings_that_cannot_work_are_refused_before_anybody_is_asked() {
    let files = LoginFiles::new();
    let near = [("TEST", 88)];
    assert!(words(files.exchanges(&[], "")).contains("has no kdc of TEST"));
    let fault = words(files.exchanges(&near, "permitted_enctypes = rc4"));
    assert!(fault.ends_with("(krb5.conf)"), "{fault}");
    let fault = words(files.exchanges(&near, "default_tkt_enctypes = aes128-cts"));
    assert!(fault.contains("leave none of the keys in"), "{fault}");
    files.write_keytab(&keytab_of(&name("bob"), &files.key));
    let fault = words(files.exchanges(&near, ""));
    assert!(fault.ends_with("has no key of alice@TEST, but of bob@TEST (sasl.jaas.config)"));
    assert!(files.exchanges(&near, "").is_err());
}
