//! GSSAPI: a keytab at MIT's KDC, and what is said when it, or the KDC, is not as it should be.

use super::*;

/// Who logs in, with which of the KDC's files, as which service's client.
struct Login<'a> {
    kafka: &'a Kafka,
    keytab: &'static str,
    principal: &'static str,
    service: &'static str,
    /// The path of a krb5.conf that is not the KDC's own.
    conf: Option<String>,
}

impl<'a> Login<'a> {
    /// As alice.
    fn by(kafka: &'a Kafka, keytab: &'static str) -> Self {
        Self {
            kafka,
            keytab,
            principal: "alice",
            service: "kafka",
            conf: None,
        }
    }

    fn over(&self, connecting: ProxyProperties) -> ProxyProperties {
        let conf = self.kafka.kerberos_file("krb5.conf");
        let jaas = format!(
            "com.sun.security.auth.module.Krb5LoginModule required useKeyTab=true storeKey=true \
             keyTab=\"{}\" principal=\"{}@TEST.LOCAL\";",
            self.kafka.kerberos_file(self.keytab),
            self.principal
        );
        connecting
            .and("sasl.mechanism", "GSSAPI")
            .and("sasl.kerberos.service.name", self.service)
            .and("sasl.jaas.config", &jaas)
            .with_variable("KRB5_CONFIG", self.conf.as_ref().unwrap_or(&conf))
    }
}

fn cluster() -> (Arc<Kafka>, SecureListeners) {
    let kafka = block_in_place(Kafka::shared_with_kdc);
    let at = kafka.secure().clone();
    (kafka, at)
}

#[tokio::test(flavor = "multi_thread")]
async fn records_go_both_ways_by_keys_of_every_type_over_both_protocols() {
    let (kafka, at) = cluster();
    let topic = unique("kerberos");
    block_in_place(|| kafka.create_topic(&topic, 1, 1));
    // Then the keys of sessions are of RFC 8009, too.
    let newer = "[libdefaults]\n    permitted_enctypes = aes256-sha2 aes128-sha2";
    let newer = kafka.krb5_conf(|text| text.replace("[libdefaults]", newer));
    let secure = || trusting(sasl_ssl(&at), &at, "ca.pem");
    for connecting in [
        Login::by(&kafka, "alice.keytab").over(sasl_plaintext(&at)),
        Login::by(&kafka, "sha2.keytab").over(secure()),
        Login {
            conf: Some(newer),
            ..Login::by(&kafka, "alice.keytab")
        }
        .over(secure()),
    ] {
        produces_and_consumes(&connecting, &topic).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_a_ticket_away_is_said_with_what_to_look_at() {
    let (kafka, at) = cluster();
    let nobody = |text: &str| {
        let lines = text.lines();
        let is_kdc = |line: &&str| line.trim().starts_with("kdc =");
        let kdc = lines.clone().find(is_kdc).unwrap();
        text.replace(kdc, "kdc = 127.0.0.1:1")
    };
    for (login, said, place) in [
        (
            Login::by(&kafka, "old.keytab"),
            "is not the one that the KDC has",
            "sasl.jaas.config",
        ),
        (
            Login {
                principal: "mallory",
                ..Login::by(&kafka, "strange.keytab")
            },
            "the KDC does not know mallory@TEST.LOCAL",
            "sasl.jaas.config",
        ),
        (
            Login {
                service: "other",
                ..Login::by(&kafka, "alice.keytab")
            },
            "does not know other/127.0.0.1@TEST.LOCAL",
            "sasl.kerberos.service.name",
        ),
        (
            Login {
                conf: Some(kafka.krb5_conf(nobody)),
                ..Login::by(&kafka, "alice.keytab")
            },
            "no KDC of TEST.LOCAL can be reached: 127.0.0.1:1: Connection refused",
            "krb5.conf",
        ),
    ] {
        let (proxy, log) = login.over(sasl_plaintext(&at)).start();
        let line = log.first_with(said).await;
        assert!(line.contains(&format!("({place})")), "{line}");
        until_asked(said, async || {
            let (status, reasons) = proxy.get("/ready").await;
            let reason = format!("there is no Kerberos ticket for the brokers ({place})");
            status == 503 && reasons.contains(&reason)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_kdc_is_away_those_with_tickets_go_on_and_others_wait_for_it() {
    let kafka = block_in_place(Kafka::start_with_kdc);
    let at = kafka.secure().clone();
    let topic = unique("kdc-away");
    block_in_place(|| kafka.create_topic(&topic, 1, 1));
    let connecting = Login::by(&kafka, "alice.keytab").over(sasl_plaintext(&at));
    let (before, log) = connecting.start_with(&["--log-level", "info,kafka_client::net=debug"]);
    before.ready().await;
    block_in_place(|| kafka.stop_kdc());
    let (during, during_log) = connecting.start();
    during_log.first_with("can be reached").await;
    // New connections, and sessions that are renewed, take the tickets that there are.
    let mut producer = before.connect(&format!("/socket/in?topic={topic}")).await;
    let record = json!({"value": {"value": "v", "format": "string"}}).to_string();
    let renewed = log.with("authenticated again").len();
    while log.with("authenticated again").len() == renewed {
        let ack = producer.ask(record.clone()).await;
        assert!(ack["offset"].is_u64(), "{ack}");
    }
    assert_eq!(before.get("/ready").await.0, 200);
    assert_eq!(during.get("/ready").await.0, 503);
    block_in_place(|| kafka.start_kdc());
    during.ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn short_tickets_are_renewed_under_load_without_a_record_lost_or_repeated() {
    let (kafka, at) = cluster();
    let login = Login {
        principal: "alice/short",
        ..Login::by(&kafka, "short.keytab")
    };
    let topic = unique("short");
    block_in_place(|| kafka.create_topic(&topic, 1, 1));
    let (proxy, log) = login.over(sasl_plaintext(&at)).start();
    proxy.ready().await;
    let path = format!(
        "/socket/out?topic={topic}&valType=long&clientId={}",
        unique("c")
    );
    let mut consumer = proxy.connect(&path).await;
    let mut producer = proxy.connect(&format!("/socket/in?topic={topic}")).await;
    let mut sent = 0_u64;
    // Tickets are renewed after five seconds, and sessions after three.
    while kafka.logins_of("alice/short") < 3 {
        let record = |n| json!({"value": {"value": n, "format": "long"}});
        let batch: Vec<_> = (sent..sent + 100).map(record).collect();
        let acks = producer.ask(Value::Array(batch).to_string()).await;
        for ack in acks.as_array().unwrap() {
            assert_eq!(ack["offset"], sent, "{acks}");
            sent += 1;
        }
    }
    for n in 0..sent {
        let record = consumer.next().await;
        assert_eq!(
            (&record["offset"], &record["value"]["value"]),
            (&json!(n), &json!(n))
        );
    }
    for lost in ["was lost", "not authenticated any more"] {
        assert_eq!(log.with(lost), Vec::<String>::new());
    }
}

/// At trace level, while a session of each kind begins and is renewed.
#[tokio::test(flavor = "multi_thread")]
async fn no_key_is_ever_logged() {
    let (kafka, at) = cluster();
    let login = Login::by(&kafka, "alice.keytab").over(sasl_plaintext(&at));
    let (proxy, log) = login.start_with(&["--log-level", "trace"]);
    proxy.ready().await;
    log.first_with("authenticated again").await;
    let keytab = std::fs::read(kafka.kerberos_file("alice.keytab")).unwrap();
    // Its last bytes: a key, and the version again.
    let key = &keytab[keytab.len() - 20..keytab.len() - 4];
    let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let listed = format!("{key:?}");
    for shown in [&hex, &hex.to_uppercase(), listed.trim_matches(['[', ']'])] {
        assert_eq!(log.with(shown), Vec::<String>::new());
    }
    assert!(!log.with("logged in to Kerberos").is_empty());
}
