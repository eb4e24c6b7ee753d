//! `socketPayload=avro` with a schema registry: ids in front of messages, other writers' schemas,
//! and registries that fail.

use std::time::Duration;

use apache_avro::Schema;
use apache_avro::types::Value;
use kafka_websocket_proxy::config::Config;
use schema_registry::{CredentialsSource, RegistryUrl, UserInfo};
use tokio_tungstenite::tungstenite::Message;

use crate::support::avro::{
    AvroClient, bytes, datum, field, framed, optional, producer_record, text,
};
use crate::support::kafka::root;
use crate::support::program::Program;
use crate::support::proxy::Proxy;
use crate::support::schema_registry::{FakeRegistry, RegistryFault};
use crate::support::{until, until_asked};

const IN: &str = "/socket/in?topic=t&socketPayload=avro";
const OUT: &str = "/socket/out?topic=t&clientId=c&socketPayload=avro";

/// A proxy with these registries.
async fn proxy(registries: &[&FakeRegistry], change: impl FnOnce(&mut Config)) -> Proxy {
    let proxy = Proxy::with(|config| {
        config.schema_registry.urls = registries.iter().map(|r| url(&r.url())).collect();
        change(config);
    })
    .await;
    proxy.topic("t", 1);
    proxy
}

/// For a registry that never answers.
fn wait_little(config: &mut Config, fault: RegistryFault) {
    if fault == RegistryFault::Silent {
        config.schema_registry.request_timeout = Duration::from_secs(1);
    }
}

fn url(text: &str) -> RegistryUrl {
    RegistryUrl::parse(text).unwrap()
}

/// The original's schema of that name.
fn original(name: &str) -> String {
    let file = root().join(format!("proto-tests/golden/schemas/{name}.avsc"));
    std::fs::read_to_string(file).unwrap()
}

/// A record of the original's schema.
fn original_datum() -> Vec<u8> {
    let record = Value::Record(vec![
        ("key".to_owned(), optional(Some(bytes(b"k")))),
        ("value".to_owned(), bytes(b"v")),
    ]);
    let schema = Schema::parse_str(&original("AvroProducerRecord")).unwrap();
    datum(&schema, record)
}

#[tokio::test]
async fn messages_have_the_ids_that_their_schemas_are_registered_under_once() {
    let registry = FakeRegistry::start().await;
    let proxy = proxy(&[&registry], |_| {}).await;
    let mut into = proxy.connect(IN).await;
    let mut from = proxy.connect(&format!("{OUT}&autoCommit=false")).await;
    let mut again = proxy.connect(IN).await;
    assert_eq!(registry.asked("/subjects/"), 4, "{:?}", registry.requests());
    let avro = AvroClient::registered(&proxy, &registry).await;
    for socket in [&mut into, &mut again] {
        let record = producer_record(None, Some(b"v"), Vec::new(), Some("m"));
        socket
            .send_message(avro.message(&avro.producer_record, record))
            .await;
        let result = avro.read(&avro.producer_result, socket.next_message().await);
        let id = optional(Some(Value::String("m".to_owned())));
        assert_eq!(field(&result, "messageId"), id);
        let read = avro.read(&avro.consumer_record, from.next_message().await);
        assert_eq!(field(&read, "value"), bytes(b"v"));
        from.send_message(avro.commit(&text(&read, "wsProxyMessageId")))
            .await;
    }
    from.send_message(avro.commit("t-0-0-0")).await;
    assert_eq!(from.next().await["error"]["code"], "unknown_message_id");
    let id = avro.id(&avro.producer_record);
    assert_eq!(registry.asked(&format!("/schemas/ids/{id}")), 1);
    proxy.stopped().await;
}

#[tokio::test]
async fn records_of_another_schema_are_resolved_and_it_is_asked_for_once() {
    let registry = FakeRegistry::start().await;
    let proxy = proxy(&[&registry], |_| {}).await;
    let mut from = proxy.connect(OUT).await;
    let id = registry.register("theirs", &original("AvroProducerRecord"));
    let commit = registry.register("theirs-too", &original("AvroCommit"));
    let mut sockets = Vec::new();
    for _ in 0..10 {
        sockets.push(proxy.connect(IN).await);
    }
    let avro = AvroClient::registered(&proxy, &registry).await;
    for socket in &mut sockets {
        socket.send_message(framed(id, &original_datum())).await;
        socket.send_message(framed(id, &original_datum())).await;
    }
    for socket in &mut sockets {
        for _ in 0..2 {
            avro.read(&avro.producer_result, socket.next_message().await);
        }
    }
    let read = avro.read(&avro.consumer_record, from.next_message().await);
    assert_eq!(field(&read, "key"), optional(Some(bytes(b"k"))));
    assert_eq!(field(&read, "value"), bytes(b"v"));
    assert_eq!(registry.asked(&format!("/schemas/ids/{id}")), 1);
    let theirs = datum(
        &avro.commit,
        Value::Record(vec![(
            "wsProxyMessageId".to_owned(),
            Value::String("t-0-0-0".to_owned()),
        )]),
    );
    from.send_message(framed(commit, &theirs)).await;
    loop {
        if let Some(Message::Text(text)) = from.next_message().await {
            assert!(text.contains("auto_commit_enabled"), "{text}");
            break;
        }
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn what_has_no_schema_of_ours_is_answered_by_text_in_its_place() {
    let registry = FakeRegistry::start().await;
    let proxy = proxy(&[&registry], |_| {}).await;
    let mut into = proxy.connect(IN).await;
    let _from = proxy.connect(OUT).await;
    let avro = AvroClient::registered(&proxy, &registry).await;
    let wrong = registry.register("wrong", &original("AvroCommit"));
    let record = producer_record(None, Some(b"v"), Vec::new(), None);
    let good = avro.message(&avro.producer_record, record);
    let cases = [
        (Message::binary(original_datum()), "0x00"),
        (framed(999, &original_datum()), "no schema 999"),
        (framed(u32::MAX, &original_datum()), "no schema 4294967295"),
        (
            framed(wrong, &original_datum()),
            "not of AvroProducerRecord",
        ),
        (
            framed(avro.id(&avro.producer_record), b"x"),
            "no AvroProducerRecord",
        ),
    ];
    into.send_message(good.clone()).await;
    for (message, _) in &cases {
        into.send_message(message.clone()).await;
    }
    into.send_message(good).await;
    avro.read(&avro.producer_result, into.next_message().await);
    for (_, part) in cases {
        let answer = into.next().await;
        assert_eq!(answer["error"]["code"], "invalid_record", "{answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains(part), "{message}");
    }
    let last = avro.read(&avro.producer_result, into.next_message().await);
    assert_eq!(field(&last, "offset"), Value::Long(1));
    // No registry has such an id.
    assert_eq!(registry.asked("/schemas/ids/4294967295"), 0);
    proxy.stopped().await;
}

#[tokio::test]
async fn without_a_registry_that_answers_avro_is_refused_with_503_and_json_does_not_notice() {
    for fault in [
        RegistryFault::Down,
        RegistryFault::Silent,
        RegistryFault::Status(500),
        RegistryFault::Status(401),
        RegistryFault::Status(404),
        RegistryFault::WrongJson,
    ] {
        let registry = FakeRegistry::start().await;
        registry.set_fault(Some(fault));
        let proxy = proxy(&[&registry], |config| wait_little(config, fault)).await;
        for path in [IN, OUT] {
            let refused = proxy.open(path).await.err().unwrap();
            assert_eq!(refused.status, 503, "{fault:?} {refused:?}");
            assert!(refused.headers.contains_key("retry-after"), "{refused:?}");
            let message = refused.message();
            assert!(message.contains("registry"), "{message}");
            assert!(!message.contains(registry.address()), "{message}");
        }
        let mut json = proxy.connect("/socket/in?topic=t").await;
        assert_eq!(json.ask(r#"{"value":{"value":"x"}}"#).await["offset"], 0);
        registry.set_fault(None);
        // A failure stands for a second.
        let opened = async {
            while proxy.open(IN).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(crate::support::PATIENCE, opened)
            .await
            .unwrap();
        proxy.stopped().await;
    }
}

#[tokio::test]
async fn another_registry_is_asked_when_one_does_not_answer() {
    for fault in [
        RegistryFault::Down,
        RegistryFault::Silent,
        RegistryFault::Status(500),
        RegistryFault::WrongJson,
    ] {
        let (first, second) = (FakeRegistry::start().await, FakeRegistry::start().await);
        first.set_fault(Some(fault));
        let proxy = proxy(&[&first, &second], |config| wait_little(config, fault)).await;
        let _into = proxy.connect(IN).await;
        let _from = proxy.connect(OUT).await;
        assert_eq!(second.asked("/subjects/"), 4, "{fault:?}");
        assert_eq!(
            first.asked("/"),
            1,
            "the one that answered is asked further"
        );
        proxy.stopped().await;
    }
}

#[tokio::test]
async fn while_the_registry_is_away_known_schemas_do_and_others_are_told_record_by_record() {
    let registry = FakeRegistry::start().await;
    let proxy = proxy(&[&registry], |_| {}).await;
    let mut into = proxy.connect(IN).await;
    let _from = proxy.connect(OUT).await;
    let avro = AvroClient::registered(&proxy, &registry).await;
    let record = || producer_record(None, Some(b"v"), Vec::new(), None);
    let ours = avro.message(&avro.producer_record, record());
    into.send_message(ours.clone()).await;
    avro.read(&avro.producer_result, into.next_message().await);
    let id = registry.register("theirs", &original("AvroProducerRecord"));
    registry.set_fault(Some(RegistryFault::Down));
    into.send_message(framed(id, &original_datum())).await;
    into.send_message(ours).await;
    let answer = into.next().await;
    assert_eq!(answer["error"]["code"], "timed_out", "{answer}");
    avro.read(&avro.producer_result, into.next_message().await);
    let _also = proxy.connect(IN).await;
    registry.set_fault(None);
    let read = async {
        loop {
            into.send_message(framed(id, &original_datum())).await;
            match into.next_message().await {
                Some(Message::Binary(_)) => break,
                // A failure stands for a second.
                other => assert!(matches!(other, Some(Message::Text(_))), "{other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(crate::support::PATIENCE, read)
        .await
        .unwrap();
    proxy.stopped().await;
}

#[tokio::test]
async fn a_commit_waits_for_its_schema_alone() {
    let registry = FakeRegistry::start().await;
    let proxy = proxy(&[&registry], |config| {
        config.schema_registry.request_timeout = Duration::from_secs(600);
    })
    .await;
    let mut into = proxy.connect("/socket/in?topic=t").await;
    let out = format!("{OUT}&autoCommit=false");
    let mut from = proxy.connect(&out).await;
    drop(proxy.connect(IN).await);
    let avro = AvroClient::registered(&proxy, &registry).await;
    let record = r#"{"value":{"value":"v"}}"#;
    let mut ids = Vec::new();
    for _ in 0..2 {
        into.ask(record).await;
        let read = avro.read(&avro.consumer_record, from.next_message().await);
        ids.push(text(&read, "wsProxyMessageId"));
    }
    registry.set_fault(Some(RegistryFault::Silent));
    for id in &ids {
        from.send_message(avro.commit(id)).await;
    }
    let schema = format!("/schemas/ids/{}", avro.id(&avro.commit));
    until("the schema is asked for", || registry.asked(&schema) == 1).await;
    // Records and pongs do not wait.
    into.ask(record).await;
    avro.read(&avro.consumer_record, from.next_message().await);
    let reading = tokio::spawn(async move {
        from.next_message().await;
        from
    });
    let refused = proxy.open(&out).await.err().unwrap().message();
    assert!(refused.contains("already connected"), "{refused}");
    into.ask(record).await;
    let from = reading.await.unwrap();
    // What a client commits before it goes counts.
    let closing = tokio::spawn(from.close());
    for _ in 0..2 {
        into.ask(record).await;
    }
    registry.set_fault(None);
    closing.await.unwrap();
    assert_eq!(registry.asked(&schema), 1);
    let mut from = proxy.connect(&out).await;
    let read = avro.read(&avro.consumer_record, from.next_message().await);
    assert_eq!(field(&read, "offset"), Value::Long(2));
    proxy.stopped().await;
}

#[tokio::test]
async fn without_auto_register_what_we_write_has_to_be_there() {
    let registry = FakeRegistry::start().await;
    let proxy = proxy(&[&registry], |config| {
        config.schema_registry.auto_register_schemas = false;
    })
    .await;
    let refused = proxy.open(IN).await.err().unwrap();
    assert_eq!(refused.status, 503);
    let subject = "net.scalytica.kafka.wsproxy.avro.SchemaTypes.AvroConsumerRecord";
    let (_, served) =
        crate::support::avro::get(&proxy.address, "/schemas/avro/consumer/record").await;
    registry.register(subject, &served);
    let _from = proxy.connect(OUT).await;
    assert_eq!(registry.ids(subject), [1]);
    let requests = registry.requests();
    assert!(
        !requests.iter().any(|r| r.path.ends_with("/versions")),
        "{requests:?}"
    );
    proxy.stopped().await;
}

#[tokio::test]
async fn credentials_come_from_the_setting_or_the_url() {
    // user:hunter2
    const BASIC: &str = "Basic dXNlcjpodW50ZXIy";
    let registry = FakeRegistry::start().await;
    registry.want_credentials(BASIC);
    let with_user = registry.url().replace("http://", "http://user:hunter2@");
    for (source, user_info, address) in [
        (
            CredentialsSource::UserInfo,
            Some("user:hunter2"),
            registry.url(),
        ),
        (CredentialsSource::UserInfo, None, with_user.clone()),
        (CredentialsSource::Url, Some("other:secret"), with_user),
    ] {
        let proxy = proxy(&[], |config| {
            let registry = &mut config.schema_registry;
            registry.urls = vec![url(&address)];
            registry.credentials_source = source;
            registry.user_info = user_info.and_then(UserInfo::parse);
        })
        .await;
        let _into = proxy.connect(IN).await;
        proxy.stopped().await;
    }
    let refusing = proxy(&[&registry], |_| {}).await;
    let refused = refusing.open(IN).await.err().unwrap();
    assert!(refused.message().contains("401"), "{refused:?}");
    refusing.stopped().await;
}

#[tokio::test]
async fn the_program_takes_its_settings_and_shows_no_secret() {
    let registry = FakeRegistry::start().await;
    registry.set_fault(Some(RegistryFault::Status(500)));
    let with_user = registry.url().replace("http://", "http://user:hunter2@");
    let (program, log) = Program::start_logged(
        &["--dev", "--schema-registry-url", &with_user],
        &[
            ("WSPROXY_SCHEMA_BASIC_AUTH_USER_INFO", "me:hunter3"),
            ("WSPROXY_SCHEMA_BASIC_AUTH_CREDS_SRC", "URL"),
        ],
    );
    let refused = program.refused(IN).await;
    assert_eq!(refused.status, 503);
    assert_eq!(
        registry.requests()[0].authorization.as_deref(),
        Some("Basic dXNlcjpodW50ZXIy")
    );
    log.first_with("does not answer as one").await;
    registry.set_fault(Some(RegistryFault::Status(401)));
    // A failure stands for a second.
    let asked_again = async || {
        program.refused(IN).await;
        registry.requests().len() > 1
    };
    until_asked("it is asked again", asked_again).await;
    log.first_with("a schema registry refuses a request").await;
    drop(program);
}

#[tokio::test]
async fn https_is_spoken_with_a_registry_that_the_system_trusts_and_with_no_other() {
    let registry = FakeRegistry::start_tls().await;
    let url = registry
        .url()
        .replace("http://127.0.0.1", "https://localhost");
    let args = ["--dev", "--schema-registry-url", &url];
    let authority = root().join("proto-tests/golden/tls/ca.pem");
    let authority = authority.to_str().unwrap();
    let (trusting, _) = Program::start_logged(&args, &[("SSL_CERT_FILE", authority)]);
    trusting.connect(IN).await;
    assert_eq!(registry.asked("/subjects/"), 2);
    // With no authority of the system's, those of browsers are trusted.
    let nothing = [("SSL_CERT_FILE", "/dev/null"), ("SSL_CERT_DIR", "/nowhere")];
    let (browser, log) = Program::start_logged(&args, &nothing);
    assert_eq!(browser.refused(IN).await.status, 503);
    log.first_with("UnknownIssuer").await;
    assert_eq!(registry.asked("/subjects/"), 2);
}
