use std::path::Path;
use std::time::Duration;

use super::*;
use crate::config::FlagValue;
use kafka_client::config::RequestOverrides;

fn flag(key: &str, value: &str) -> FlagValue {
    let row = PROXY_KEYS.iter().find(|row| row.name == key).unwrap();
    FlagValue {
        key: key.to_owned(),
        flag: format!("--{}", row.flag().unwrap()),
        value: value.to_owned(),
    }
}

fn variable(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

fn dev() -> ConfigSources {
    ConfigSources {
        dev: true,
        ..ConfigSources::default()
    }
}

fn errors(sources: &ConfigSources) -> Vec<String> {
    let errors = load(sources).map(|_| ()).unwrap_err().errors;
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn a_flag_wins_over_a_variable_and_a_variable_over_the_default() {
    let mut sources = dev();
    assert_eq!(load(&sources).unwrap().config.server.port, 8078);
    sources.variables.push(variable("WSPROXY_PORT", "1"));
    assert_eq!(load(&sources).unwrap().config.server.port, 1);
    sources.flags.push(flag("server.port", "2"));
    assert_eq!(load(&sources).unwrap().config.server.port, 2);
}

#[test]
fn a_define_sets_any_key_with_or_without_the_prefix() {
    let mut sources = dev();
    sources.defines = vec![
        "server.port=81".to_owned(),
        "kafka.ws.proxy.server.server-id = b".to_owned(),
        "consumer.kafka-client-properties.max.poll.interval.ms=20000".to_owned(),
        "kafka-client.properties.linger.ms=7".to_owned(),
        "producer.kafka-client-properties.linger.ms=9".to_owned(),
    ];
    let config = load(&sources).unwrap().config;
    assert_eq!(config.server.port, 81);
    assert_eq!(config.server.server_id, "b");
    assert_eq!(config.consumer.max_poll_interval, Duration::from_secs(20));
    assert_eq!(config.producer.linger, Duration::from_millis(9));
}

#[test]
fn without_brokers_the_one_line_names_both_flags() {
    let lines = errors(&ConfigSources::default());
    assert_eq!(lines.len(), 1);
    assert!(lines[0].contains("--dev") && lines[0].contains("--bootstrap-hosts"));
}

#[test]
fn every_error_is_reported_with_its_key_its_source_and_what_is_accepted() {
    let mut sources = dev();
    sources.variables.push(variable("WSPROXY_PORT", "http"));
    sources.flags.push(flag("server.shutdown-grace", "soon"));
    sources.defines.push("servr.port=1".to_owned());
    sources.defines.push("no-equals-sign".to_owned());
    sources
        .defines
        .push("kafka-client.properties.lingr.ms=1".to_owned());
    let lines = errors(&sources);
    assert_eq!(lines.len(), 5, "{lines:?}");
    let line = |part: &str| lines.iter().find(|l| l.contains(part)).unwrap();
    assert!(line("server.port (from variable WSPROXY_PORT)").contains("0 to 65535"));
    assert!(line("--shutdown-grace").contains("20 seconds"));
    assert!(line("servr.port").contains("did you mean kafka.ws.proxy.server.port?"));
    assert!(line("lingr").contains("linger.ms"));
    assert!(line("-D has no").contains("accepted: -D key=value"));
}

/// A cluster, and these properties of all clients.
fn with_properties(properties: &[&str]) -> ConfigSources {
    let mut sources = ConfigSources::default();
    sources
        .flags
        .push(flag("kafka-client.bootstrap-hosts", "a:1"));
    let defines = properties.iter();
    let defines = defines.map(|property| format!("kafka-client.properties.{property}"));
    sources.defines.extend(defines);
    sources
}

const PLAIN_MODULE: &str = "sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule \
                            required username=u password=hunter2;";

#[test]
fn secrets_of_security_settings_are_never_shown() {
    let mut sources = with_properties(&[
        "security.protocol=SASL_SSL",
        "sasl.jaas.config=M required password=\"hunter2",
        "ssl.truststore.location=/no/such/store",
        "ssl.truststore.password=hunter2",
    ]);
    for define in [
        "server.ssl.port=0",
        "server.ssl.keystore-location=proto-tests/golden/tls-server/server.p12",
        "server.ssl.keystore-password=hunter2",
    ] {
        sources.defines.push(define.to_owned());
    }
    let text = errors(&sources).join("\n");
    for part in [
        "sasl.jaas.config (from -D kafka-client.properties.sasl.jaas.config): *** is not accepted; \
         accepted: a line as Java's clients have it: a quote is not closed",
        "server.ssl.keystore-location (from -D server.ssl.keystore-location): \
         proto-tests/golden/tls-server/server.p12: its password is wrong",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn a_setting_of_tls_towards_clients_that_cannot_be_followed_is_named_with_the_way_out() {
    const STORES: &str = "proto-tests/golden/tls-server";
    for (settings, expected) in [
        (
            "enabled = true",
            "server.ssl.port (from its default): it is needed, since TLS is enabled",
        ),
        (
            "port = 8443",
            "server.ssl.keystore-location (from its default): it is needed for TLS: a file with",
        ),
        (
            "ssl-only = true",
            "server.ssl.ssl-only (from FILE:1): kafka.ws.proxy.server.ssl.port is not set, so",
        ),
        (
            "ssl-only = true, enabled = false, port = 8443",
            "server.ssl.ssl-only (from FILE:1): kafka.ws.proxy.server.ssl.enabled is false",
        ),
        (
            "client-ca-location = STORES/ca.pem",
            "server.ssl.client-ca-location (from FILE:1): kafka.ws.proxy.server.ssl.port is not",
        ),
        (
            "client-ca-location = \"\", port = 1",
            "server.ssl.client-ca-location (from FILE:1): \"\" is not accepted; accepted: the path",
        ),
        (
            "port = 8078, keystore-location = STORES/server.pem",
            "server.ssl.port (from FILE:1): 8078 is kafka.ws.proxy.server.port too",
        ),
        (
            "port = 1, keystore-location = /no/such/store",
            "server.ssl.keystore-location (from FILE:1): /no/such/store: No such file",
        ),
        (
            "port = 1, keystore-location = STORES/make",
            "server.ssl.keystore-location (from FILE:1): STORES/make: it is neither PEM nor",
        ),
        (
            "port = 1, keystore-location = STORES/server.p12",
            "server.ssl.keystore-location (from FILE:1): STORES/server.p12: it has a password",
        ),
        (
            "port = 1, keystore-location = STORES/ca.pem",
            "server.ssl.keystore-location (from FILE:1): STORES/ca.pem: it has no private key",
        ),
        (
            "port = 1, keystore-location = STORES/server.pem, client-ca-location = STORES/make",
            "server.ssl.client-ca-location (from FILE:1): STORES/make: it is neither PEM nor",
        ),
    ] {
        let settings = settings.replace("STORES", STORES);
        let (mut sources, directory) =
            with_file(&format!("kafka.ws.proxy.server.ssl {{{settings}}}"));
        sources.dev = true;
        let [error] = &errors(&sources)[..] else {
            panic!("{settings}: {:?}", errors(&sources));
        };
        let file = directory.path().to_str().unwrap();
        let expected = expected.replace("STORES", STORES);
        let (before, after) = expected.split_once("FILE").unwrap_or((&expected, ""));
        assert!(
            error.starts_with(&format!("{KEY_PREFIX}{before}")),
            "{error}"
        );
        assert!(error.contains(after), "{error} ({file})");
    }
}

#[test]
fn tls_is_on_where_it_has_a_port_and_off_where_that_is_said() {
    let load_with = |settings: &str| {
        let stores = "proto-tests/golden/tls-server";
        let text = format!(
            "kafka.ws.proxy.server.ssl {{ keystore-location = {stores}/server.pem, {settings} }}"
        );
        let (mut sources, _directory) = with_file(&text);
        sources.dev = true;
        load(&sources).unwrap()
    };
    let loaded = load_with("port = 8443");
    assert!(loaded.config.server.tls.is_some());
    assert!(
        loaded.config.server.ssl.bind_interface.is_loopback(),
        "--dev"
    );
    assert!(
        load_with("enabled = yes, port = 0")
            .config
            .server
            .tls
            .is_some()
    );
    // On another interface the number is free.
    let interfaces = "bind-interface = 127.0.0.2, port = 8078";
    assert!(load_with(interfaces).config.server.tls.is_some());
    let off = load_with("enabled = no, port = 8443");
    assert!(off.config.server.tls.is_none());
    assert_eq!(off.notices.len(), 1, "{:?}", off.notices);
    assert!(off.notices[0].contains("server.ssl.enabled is not true"));
}

#[test]
fn a_certificate_of_another_key_is_refused() {
    let stores = Path::new("proto-tests/golden/tls-server");
    let read = |name: &str| std::fs::read_to_string(stores.join(name)).unwrap();
    let (server, renewed) = (read("server.pem"), read("renewed.pem"));
    let certificate = &renewed[renewed.find("-----BEGIN CERTIFICATE").unwrap()..];
    let key = &server[..server.find("-----BEGIN CERTIFICATE").unwrap()];
    let store = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(store.path(), format!("{key}{certificate}")).unwrap();
    let mut sources = dev();
    let location = store.path().display();
    for define in [
        "server.ssl.port=0".to_owned(),
        format!("server.ssl.keystore-location={location}"),
    ] {
        sources.defines.push(define);
    }
    let error = errors(&sources).join("\n");
    let expected = "none of its certificates belongs to its key";
    assert!(error.contains(expected), "{error}");
    assert!(error.contains("server.ssl.keystore-location"), "{error}");
}

#[test]
fn a_security_setting_that_cannot_be_followed_is_named_with_the_way_out() {
    for (properties, property, fault) in [
        (
            &[
                "security.protocol=SSL",
                "ssl.truststore.location=/no/such/store",
            ][..],
            "ssl.truststore.location",
            "/no/such/store: No such file or directory",
        ),
        (
            &[
                "security.protocol=SSL",
                "ssl.truststore.location=/a",
                "ssl.truststore.certificates=b",
            ],
            "ssl.truststore.certificates",
            "ssl.truststore.location is set as well; one of them is enough",
        ),
        (
            &["security.protocol=SSL", "ssl.truststore.certificates=b"],
            "ssl.truststore.certificates",
            "the PEM text: it has no certificate",
        ),
        (
            &["security.protocol=SSL", "ssl.keystore.location=Cargo.toml"],
            "ssl.keystore.location",
            "Cargo.toml: it is neither PEM nor PKCS12 nor JKS",
        ),
        (
            &["security.protocol=SSL", "ssl.keystore.key=b"],
            "ssl.keystore.key",
            "ssl.keystore.certificate.chain is needed beside it",
        ),
        (
            &[
                "security.protocol=SSL",
                "ssl.enabled.protocols=TLSv1.2",
                "ssl.cipher.suites=TLS_AES_128_GCM_SHA256",
            ],
            "ssl.cipher.suites",
            "none of the cipher suites is of an enabled version of TLS",
        ),
        (
            &["security.protocol=SASL_PLAINTEXT"],
            "sasl.jaas.config",
            "GSSAPI, which sasl.mechanism is unless it says otherwise, needs com.sun.security.auth.module.Krb5LoginModule required",
        ),
        (
            &["security.protocol=SASL_PLAINTEXT", "sasl.mechanism=PLAIN"],
            "sasl.jaas.config",
            "it is needed: org.apache.kafka.common.security.plain.PlainLoginModule required",
        ),
        (
            &[
                "security.protocol=SASL_PLAINTEXT",
                "sasl.mechanism=SCRAM-SHA-256",
                PLAIN_MODULE,
            ],
            "sasl.jaas.config",
            "it is needed: org.apache.kafka.common.security.scram.ScramLoginModule required",
        ),
    ] {
        let lines = errors(&with_properties(properties));
        let [line] = &lines[..] else {
            panic!("{properties:?}: {lines:?}");
        };
        let key = format!("{KEY_PREFIX}kafka-client.properties.{property} (from ");
        assert!(
            line.starts_with(&key) && line.contains(fault),
            "{fault}: {line}"
        );
    }
}

#[test]
fn what_the_protocol_has_no_use_for_is_reported_once() {
    let properties = [
        "security.protocol=PLAINTEXT",
        PLAIN_MODULE,
        "sasl.login.refresh.window.factor=0.9",
        "ssl.key.password=hunter2",
    ];
    let loaded = load(&with_properties(&properties)).unwrap();
    let notices = loaded.notices.join("\n");
    assert!(
        notices.contains("is ignored: security.protocol is without SASL"),
        "{notices}"
    );
    assert!(
        notices.contains("is ignored: security.protocol is without SSL"),
        "{notices}"
    );
    assert!(
        notices.contains("sasl.login.refresh.window.factor"),
        "{notices}"
    );
    assert!(!notices.contains("hunter2"), "{notices}");
    assert!(loaded.config.client.security.sasl.is_none());
}

#[test]
fn sockets_to_brokers_begin_as_the_security_settings_say() {
    for (properties, tls, mechanism) in [
        (&["security.protocol=ssl"][..], true, None),
        (
            &[
                "security.protocol=SASL_SSL",
                "sasl.mechanism=PLAIN",
                PLAIN_MODULE,
            ],
            true,
            Some("PLAIN"),
        ),
        (&[], false, None),
    ] {
        let security = load(&with_properties(properties))
            .unwrap()
            .config
            .client
            .security;
        assert_eq!(security.tls.is_some(), tls);
        assert_eq!(security.sasl.map(|sasl| sasl.mechanism()), mechanism);
    }
}

#[test]
fn one_kind_of_client_has_no_security_of_its_own() {
    let common = [
        "security.protocol=SASL_PLAINTEXT",
        "sasl.mechanism=PLAIN",
        PLAIN_MODULE,
    ];
    let other = PLAIN_MODULE.replace("hunter2", "hunter3");
    for (own, is_the_same) in [(PLAIN_MODULE, true), (&other, false)] {
        let mut sources = with_properties(&common);
        sources
            .defines
            .push(format!("producer.kafka-client-properties.{own}"));
        assert_eq!(load(&sources).is_ok(), is_the_same);
    }
}

#[test]
fn security_is_no_matter_of_the_embedded_broker() {
    let mut sources = dev();
    sources
        .defines
        .push("kafka-client.properties.security.protocol=SSL".to_owned());
    let loaded = load(&sources).unwrap();
    assert_eq!(
        loaded.notices,
        ["security.protocol is ignored: --dev brings its own broker"]
    );
    assert!(loaded.config.client.security.tls.is_none());
}

#[test]
fn each_key_of_a_later_version_is_refused_in_each_source_where_it_asks_for_something() {
    let directory = tempfile::tempdir().unwrap();
    for row in PROXY_KEYS {
        let Some(later) = row.later() else {
            continue;
        };
        let asks = match (row.name, later.default) {
            (name, Some("false")) if name.ends_with("enabled") => "true",
            _ => "4321",
        };
        let name = row.name.replace(".*", ".x");
        for (text, is_refused) in [(asks, true), (later.default.unwrap_or(""), false)] {
            for (sources, from) in in_each_source(directory.path(), row, &name, text) {
                let lines = load(&sources).map_or_else(
                    |failure| failure.errors.iter().map(ToString::to_string).collect(),
                    |_| Vec::new(),
                );
                let expected = format!("{KEY_PREFIX}{name} (from {from}): not supported yet");
                let refused = lines.iter().any(|line| line.starts_with(&expected));
                assert_eq!(refused, is_refused, "{expected}: {lines:?}");
            }
        }
    }
}

/// The sources that set a key in the ways that there are, what turns it on being on, and how each
/// is named.
fn in_each_source(
    directory: &Path,
    row: &ConfigKey,
    key: &str,
    text: &str,
) -> Vec<(ConfigSources, String)> {
    const SWITCHES: [&str; 2] = [
        "kafka-client.metrics-enabled",
        "dynamic-config-handler.enabled",
    ];
    let switched_on = SWITCHES.iter().filter(|switch| **switch != key);
    let base = ConfigSources {
        defines: switched_on.map(|switch| format!("{switch}=true")).collect(),
        ..dev()
    };
    let mut all = Vec::new();
    for name in row.variables {
        let mut sources = base.clone();
        sources.variables.push(variable(name, text));
        all.push((sources, format!("variable {name}")));
    }
    if let Some(name) = row.flag() {
        let mut sources = base.clone();
        sources.flags.push(flag(row.name, text));
        all.push((sources, format!("--{name}")));
    }
    let mut sources = base.clone();
    sources.defines.push(format!("{key}={text}"));
    all.push((sources, format!("-D {key}")));
    let path = directory.join(format!("{key}-{}.conf", text.len()));
    std::fs::write(&path, format!("{KEY_PREFIX}{key} = \"{text}\"\n")).unwrap();
    let from = format!("{}:1", path.display());
    all.push((
        ConfigSources {
            file: Some(path),
            ..base
        },
        from,
    ));
    all
}

#[test]
fn dynamic_limits_need_a_topic_of_their_own() {
    let mut sources = dev();
    let same = "dynamic-config-handler.topic-name=_wsproxy.session.state";
    sources.defines = ["dynamic-config-handler.enabled=true", same]
        .map(str::to_owned)
        .into();
    let errors = errors(&sources);
    let [error] = &errors[..] else {
        panic!("{errors:?}");
    };
    assert!(
        error.contains("dynamic-config-handler.topic-name (from -D"),
        "{error}"
    );
    assert!(error.contains("each needs one of its own"), "{error}");
}

#[test]
fn what_a_switch_turns_off_is_reported_once_as_ignored() {
    for (text, keys) in [
        (
            "kafka.ws.proxy.server.basic-auth { enabled = false, username = u, password = hunter2 }",
            2,
        ),
        ("kafka.ws.proxy.server.admin.port = 1", 1),
        (
            "kafka.ws.proxy.dynamic-config-handler { enabled = false, topic-name = t\n\
             topic-retention = 1 day }",
            2,
        ),
        (
            "kafka.ws.proxy.kafka-client.confluent-metrics { bootstrap-hosts = \"a:1\"\n\
             properties { security.protocol = SSL, sasl.jaas.config = hunter2 } }",
            3,
        ),
        (
            "kafka.ws.proxy.kafka-client.properties { security.protocol = PLAINTEXT\n\
             sasl.jaas.config = hunter2 }",
            1,
        ),
    ] {
        let (sources, _directory) = with_file(text);
        let notices = load(&sources).unwrap().notices;
        let [notice] = &notices[..] else {
            panic!("{notices:?}");
        };
        assert_eq!(
            notice.matches(KEY_PREFIX).count() - notice.matches("is not true").count(),
            keys
        );
        assert!(!notice.contains("hunter2"), "{notice}");
    }
    for text in ["basic-auth.password = x", "openid-connect.audience = x"] {
        let (sources, _directory) = with_file(&format!("kafka.ws.proxy.server.{text}"));
        assert_eq!(errors(&sources).len(), 1);
    }
}

#[test]
fn what_is_off_may_be_so_in_any_word() {
    let text = "kafka.ws.proxy.server {\n openid-connect { enabled = off, realm = x }\n\
        basic-auth { enabled = no, password = hunter2 } }\n\
        kafka.ws.proxy.commit-handler.auto-commit-enabled = on\n";
    let (sources, _directory) = with_file(text);
    let loaded = load(&sources).unwrap();
    assert!(loaded.config.commits.auto_commit_enabled);
    assert_eq!(loaded.notices.len(), 2, "{:?}", loaded.notices);
}

#[test]
fn an_ignored_java_property_is_reported_once_with_all_sources_that_set_it() {
    let mut sources = dev();
    for define in [
        "kafka-client.properties.retries=3",
        "producer.kafka-client-properties.transactional.id=t",
        "consumer.kafka-client-properties.linger.ms=1",
    ] {
        sources.defines.push(define.to_owned());
    }
    let retries = variable("WSPROXY_KAFKA_PRODUCER_NUM_RETRIES", "7");
    sources.variables.push(retries);
    let notices = load(&sources).unwrap().notices;
    assert_eq!(notices.len(), 3, "{notices:?}");
    let line = |part: &str| notices.iter().find(|n| n.contains(part)).unwrap();
    assert!(line(".retries").contains("-D kafka-client.properties.retries"));
    assert!(line(".retries").contains("WSPROXY_KAFKA_PRODUCER_NUM_RETRIES"));
    assert!(line("linger.ms").contains("this client has no such property"));
    assert!(line("transactional.id").contains("server.transactional-id-prefix"));
}

#[test]
fn no_property_of_the_java_clients_is_unknown_in_any_section() {
    let names = include_str!("../keys/properties-of-java.txt").lines();
    for name in names.filter(|line| !line.starts_with('#')) {
        for section in ClientSection::ALL {
            let mut sources = dev();
            sources
                .defines
                .push(format!("{}{name}=1", section.prefix()));
            let Err(failure) = load(&sources) else {
                continue;
            };
            let errors = failure.errors;
            let unknown = |f: &ConfigError| matches!(f, ConfigError::UnknownKey { .. });
            assert!(!errors.iter().any(unknown), "{errors:?}");
        }
    }
}

#[test]
fn the_rack_is_a_property_of_consumers() {
    let rack = |section: &str| {
        let mut sources = dev();
        sources.defines.push(format!("{section}.client.rack=x"));
        let loaded = load(&sources).unwrap();
        (loaded.config.client.rack, loaded.notices.len())
    };
    assert_eq!(rack("kafka-client.properties"), ("x".to_owned(), 0));
    assert_eq!(
        rack("consumer.kafka-client-properties"),
        ("x".to_owned(), 0)
    );
    assert_eq!(rack("producer.kafka-client-properties"), (String::new(), 1));
}

#[test]
fn credentials_without_a_protocol_that_has_them_are_refused_in_every_section() {
    for section in ClientSection::ALL {
        for property in ["sasl.mechanism=PLAIN", PLAIN_MODULE] {
            let mut sources = dev();
            let define = format!("{}{property}", section.prefix());
            let enabled = "kafka-client.metrics-enabled=true".to_owned();
            sources.defines.extend([enabled, define]);
            assert!(
                errors(&sources)[0].contains("security.protocol is not set"),
                "{property}"
            );
        }
    }
}

#[test]
fn the_metrics_reporter_has_the_properties_of_all_clients_but_for_its_own() {
    let (sources, _directory) = with_file(
        "kafka.ws.proxy.kafka-client { bootstrap-hosts = \"a:1\", monitoring-enabled = yes\n\
         properties { client.rack = x, request.timeout.ms = 1234 }\n\
         confluent-monitoring { bootstrap-hosts = \"b:2,c:3\"\n\
         properties { interceptor.topic = m, request.timeout.ms = 777, batch.size = 99\n\
         security.protocol = SASL_PLAINTEXT, sasl.mechanism = PLAIN\n\
         sasl.jaas.config = \"\"\"org.apache.kafka.common.security.plain.PlainLoginModule \
         required username=u password=p;\"\"\" } } }",
    );
    let sources = ConfigSources {
        dev: false,
        ..sources
    };
    let loaded = load(&sources).unwrap();
    assert_eq!(loaded.notices, [""; 0]);
    let Config {
        metrics_reporter,
        client,
        producer,
        ..
    } = loaded.config;
    assert!(metrics_reporter.enabled);
    assert_eq!(metrics_reporter.topic, "m");
    let hosts = ["b:2".to_owned(), "c:3".to_owned()];
    assert_eq!(metrics_reporter.bootstrap_servers, Some(hosts.into()));
    let of_reporter = &metrics_reporter.client;
    assert_eq!(of_reporter.request_timeout, Duration::from_millis(777));
    assert_eq!(of_reporter.rack, "x");
    assert!(of_reporter.security.sasl.is_some());
    assert_eq!(metrics_reporter.producer.batch_size, 99);
    assert_eq!(client.request_timeout, Duration::from_millis(1234));
    assert!(client.security.sasl.is_none());
    assert_ne!(producer.batch_size, 99);
}

#[test]
fn a_define_without_a_key_says_so() {
    for define in ["=x", " = x", "kafka.ws.proxy.=x"] {
        let mut sources = dev();
        sources.defines.push(define.to_owned());
        let lines = errors(&sources);
        assert_eq!(lines, ["-D =… names no key: accepted: -D key=value"]);
    }
}

#[test]
fn timeouts_that_contradict_each_other_are_refused_with_their_sources() {
    let mut sources = dev();
    sources
        .defines
        .push("kafka-client.properties.session.timeout.ms=1000".to_owned());
    sources
        .variables
        .push(variable("WSPROXY_KAFKA_CLIENT_REQUEST_TIMEOUT_MS", "40"));
    sources
        .flags
        .push(flag("producer.delivery-timeout-ms", "10"));
    let heartbeat = "kafka.ws.proxy.kafka-client.properties.heartbeat.interval.ms \
        (from its default), 3000, must be less than \
        kafka.ws.proxy.kafka-client.properties.session.timeout.ms \
        (from -D kafka-client.properties.session.timeout.ms), 1000";
    let delivery = "kafka.ws.proxy.producer.delivery-timeout-ms \
        (from --producer-delivery-timeout-ms), 10, must be at least \
        kafka.ws.proxy.kafka-client.properties.request.timeout.ms \
        (from variable WSPROXY_KAFKA_CLIENT_REQUEST_TIMEOUT_MS), 40, plus \
        kafka.ws.proxy.kafka-client.properties.linger.ms (from its default), 0";
    assert_eq!(errors(&sources), [heartbeat, delivery]);
}

#[test]
fn a_default_delivery_timeout_is_raised_as_in_java() {
    let mut sources = dev();
    sources
        .defines
        .push("kafka-client.properties.request.timeout.ms=180000".to_owned());
    let loaded = load(&sources).unwrap();
    let timeout = loaded.config.producer.delivery_timeout;
    assert_eq!(timeout, Duration::from_secs(180));
    assert_eq!(loaded.notices.len(), 1, "{:?}", loaded.notices);
}

#[test]
fn of_a_define_without_an_equals_sign_nothing_but_a_known_key_is_shown() {
    for (define, shown) in [
        ("hunter2", "-D has no \"=\": accepted: -D key=value"),
        (
            "no-such.key:hunter2",
            "-D has no \"=\": accepted: -D key=value",
        ),
        (
            "kafka.ws.proxy.server.port",
            "-D server.port has no \"=\": accepted: -D key=value",
        ),
        (
            "kafka-client.properties.sasl.jaas.config: hunter2",
            "-D kafka-client.properties.sasl.jaas.config has no \"=\": accepted: -D key=value",
        ),
        (
            "kafka-client.properties.ssl.key.password: hunter2",
            "-D kafka-client.properties.ssl.key.password has no \"=\": accepted: -D key=value",
        ),
    ] {
        let mut sources = dev();
        sources.defines.push(define.to_owned());
        assert_eq!(errors(&sources), [shown]);
    }
}

#[test]
fn a_duration_without_unit_is_refused_in_a_flag_and_warned_about_elsewhere_when_it_is_short() {
    let mut sources = dev();
    sources.flags.push(flag("server.shutdown-grace", "20"));
    let lines = errors(&sources);
    assert_eq!(lines.len(), 1);
    assert!(lines[0].contains("such as 20s or 20ms"), "{lines:?}");

    let grace = |variables: &[(&str, &str)], defines: &[&str]| {
        let mut sources = dev();
        let variables = variables.iter().map(|(name, value)| variable(name, value));
        sources.variables.extend(variables);
        let defines = defines.iter().map(|define| (*define).to_owned());
        sources.defines.extend(defines);
        let loaded = load(&sources).unwrap();
        (loaded.config.server.shutdown_grace, loaded.notices)
    };
    let millis = Duration::from_millis;
    let (twenty, notices) = grace(&[("WSPROXY_SHUTDOWN_GRACE", "20")], &[]);
    assert_eq!((twenty, notices.len()), (millis(20), 1));
    for part in [
        "(from variable WSPROXY_SHUTDOWN_GRACE)",
        "\"20\"",
        "milliseconds",
    ] {
        assert!(notices[0].contains(part), "{notices:?}");
    }
    let (_, notices) = grace(&[], &["server.shutdown-grace=20"]);
    assert_eq!(notices.len(), 1);
    for sound in ["5000", "20ms", "0"] {
        let (_, notices) = grace(&[("WSPROXY_SHUTDOWN_GRACE", sound)], &[]);
        assert_eq!(notices, [""; 0], "{sound}");
    }
    let mut sources = dev();
    sources.flags.push(flag("server.shutdown-grace", "0"));
    assert!(load(&sources).is_ok());
}

#[test]
fn brokers_with_a_password_are_refused_without_showing_it() {
    for hosts in ["user:hunter2@kafka:9092", "kafka://user:hunter2@kafka:9092"] {
        let mut sources = ConfigSources::default();
        sources
            .flags
            .push(flag("kafka-client.bootstrap-hosts", hosts));
        let lines = errors(&sources);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains("***"), "{lines:?}");
        assert!(lines[0].contains("without user and password"), "{lines:?}");
        assert!(!lines[0].contains("hunter2"), "{lines:?}");
    }
}

#[test]
fn a_misspelt_variable_is_named_beside_the_errors_it_led_to() {
    let mut sources = ConfigSources::default();
    for name in ["WSPROXY_BOOTSTRAP_HOSTS", "WSPROXY_KAFKA_SASL_MECHANIZM"] {
        sources.variables.push(variable(name, "kafka:9092"));
    }
    let failure = load(&sources).map(|_| ()).unwrap_err();
    assert_eq!(failure.errors, [ConfigError::NoBrokers]);
    for (notice, meant) in failure.notices.iter().zip([
        "did you mean WSPROXY_KAFKA_BOOTSTRAP_HOSTS?",
        "did you mean WSPROXY_KAFKA_SASL_MECHANISM?",
    ]) {
        assert!(notice.contains(meant), "{notice}");
    }
    assert_eq!(failure.notices.len(), 2);
}

#[test]
fn dev_is_for_this_host_only_unless_it_is_said_otherwise() {
    use crate::config::AllowedHosts;

    let allows = |config: &Config, origin| config.server.websocket.origins.contains(origin);
    let config = load(&dev()).unwrap().config;
    assert!(config.server.bind_interface.is_loopback());
    assert!(allows(&config, "http://localhost:3000"));
    assert!(!allows(&config, "https://a.example"));
    assert_eq!(config.allowed_hosts(), AllowedHosts::Loopback);

    let mut sources = dev();
    sources.flags.push(flag("server.bind-interface", "0.0.0.0"));
    let config = load(&sources).unwrap().config;
    assert!(config.server.bind_interface.is_unspecified());
    assert!(!allows(&config, "https://a.example"));
    assert_eq!(config.allowed_hosts(), AllowedHosts::Any);

    let mut sources = dev();
    let any = flag("server.websocket.allowed-origins", "*");
    sources.flags.push(any);
    let config = load(&sources).unwrap().config;
    assert!(allows(&config, "https://a.example"));
    assert_eq!(config.allowed_hosts(), AllowedHosts::Any);

    assert_eq!(Config::default().allowed_hosts(), AllowedHosts::Any);
}

/// Sources with a config file, which lives as long as the directory.
fn with_file(text: &str) -> (ConfigSources, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("application.conf");
    std::fs::write(&path, text).unwrap();
    let sources = ConfigSources {
        dev: true,
        file: Some(path),
        ..ConfigSources::default()
    };
    (sources, directory)
}

#[test]
fn a_variable_wins_over_the_file_and_the_file_over_the_default() {
    let (mut sources, _directory) = with_file("kafka.ws.proxy.server { port = 1, server-id = f }");
    let config = load(&sources).unwrap().config;
    assert_eq!((config.server.port, &*config.server.server_id), (1, "f"));
    sources.variables.push(variable("WSPROXY_PORT", "2"));
    let config = load(&sources).unwrap().config;
    assert_eq!((config.server.port, &*config.server.server_id), (2, "f"));
}

#[test]
fn the_file_is_named_by_the_flag_else_by_the_variable_else_it_is_the_default_one() {
    let port = |sources: &ConfigSources| load(sources).unwrap().config.server.port;
    let (mut sources, _by_flag) = with_file("kafka.ws.proxy.server.port = 1");
    let (other, _by_variable) = with_file("kafka.ws.proxy.server.port = 2");
    let (default, _default) = with_file("kafka.ws.proxy.server.port = 3");
    sources.default_file = default.file;
    let named = other.file.unwrap().display().to_string();
    sources.variables.push(variable("WSPROXY_CONFIG", &named));
    assert_eq!(port(&sources), 1);
    sources.file = None;
    assert_eq!(port(&sources), 2);
    assert_eq!(load(&sources).unwrap().notices, [""; 0]);
    sources.variables.clear();
    assert_eq!(port(&sources), 3);
}

#[test]
fn faults_of_a_file_are_named_with_its_line_beside_those_of_other_sources() {
    let (mut sources, directory) = with_file(
        "kafka.ws.proxy {\n server.port = http\n servr.port = 1\n kafka-client.properties {\n\
         lingr.ms = 1\n  \"security.protocol\" = TLS\n }\n}\nkafka.ws.server.port = 1\n",
    );
    sources.variables.push(variable("WSPROXY_LOG_FORMAT", ""));
    let shown = format!("{}/", directory.path().display());
    let lines = errors(&sources).join("\n").replace(&shown, "");
    for part in [
        "server.port (from application.conf:2): \"http\" is not accepted",
        "servr.port (from application.conf:3): no such key; did you mean",
        "lingr.ms (from application.conf:5): no such key; did you mean",
        "security.protocol (from application.conf:6): \"TLS\"",
        "kafka.ws.server.port (from application.conf:9): no such key",
        "log.format (from variable WSPROXY_LOG_FORMAT): \"\" is not accepted",
    ] {
        assert!(lines.contains(part), "{part} is not in {lines}");
    }
    assert_eq!(lines.lines().count(), 6, "{lines}");
}

#[test]
fn a_file_that_cannot_be_read_is_the_fault_and_not_what_it_would_have_said() {
    let sources = ConfigSources {
        file: Some("/no/such.conf".into()),
        ..ConfigSources::default()
    };
    let lines = errors(&sources);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(
        lines[0].starts_with("/no/such.conf: cannot read: "),
        "{lines:?}"
    );
}

#[test]
fn sections_of_others_are_reported_once() {
    let text = "akka { loglevel = INFO, http.server.x = 1 }\nlogback.x = 1\n";
    let (sources, _directory) = with_file(text);
    let notices = load(&sources).unwrap().notices;
    let [notice] = &notices[..] else {
        panic!("{notices:?}");
    };
    assert!(
        notice.ends_with(
            "application.conf: akka, logback are ignored: only kafka.ws.proxy is read here"
        ),
        "{notice}"
    );
}

#[test]
fn an_include_from_a_class_path_is_reported_as_ignored() {
    let text = "include classpath(\"application\")\nkafka.ws.proxy.server.server-id = a\n";
    let (sources, _directory) = with_file(text);
    let loaded = load(&sources).unwrap();
    assert_eq!(loaded.config.server.server_id, "a");
    let [notice] = &loaded.notices[..] else {
        panic!("{:?}", loaded.notices);
    };
    let expected = "application.conf:1: this include is ignored: there is no class path here";
    assert!(notice.ends_with(expected), "{notice}");
}

#[test]
fn a_slip_in_a_section_of_a_later_version_names_the_key_that_was_meant() {
    for (slip, meant) in [
        (
            "kafka-client.schema-registry.auto-register-schema",
            "kafka-client.schema-registry.auto-register-schemas",
        ),
        (
            "kafka-client.properties.sasl.jaas.confg",
            "kafka-client.properties.sasl.jaas.config",
        ),
    ] {
        let mut sources = dev();
        sources.defines.push(format!("{slip}=hunter2"));
        let expected = format!(
            "{KEY_PREFIX}{slip} (from -D {slip}): no such key; did you mean {KEY_PREFIX}{meant}?"
        );
        assert_eq!(errors(&sources), [expected]);
    }
}

#[test]
fn a_lease_lasts_ten_minutes_at_most() {
    let lease = |value: &str| {
        let mut sources = dev();
        let key = "session-handler.lease-duration";
        sources.defines.push(format!("{key}={value}"));
        load(&sources).map(|loaded| loaded.config.sessions.lease_duration)
    };
    assert_eq!(lease("10 minutes").unwrap(), Duration::from_secs(600));
    let refused = lease("1 hour").unwrap_err().errors[0].to_string();
    assert!(
        refused.ends_with("accepted: a duration of 1 s to 600 s"),
        "{refused}"
    );
}

#[test]
fn brokers_of_the_file_may_be_there_beside_dev() {
    let (sources, _directory) = with_file("kafka.ws.proxy.kafka-client.bootstrap-hosts = \"a:1\"");
    let notices = load(&sources).unwrap().notices;
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert!(notices[0].ends_with("is ignored: --dev brings its own broker"));
}

#[test]
fn a_define_takes_lists_and_objects() {
    let defines = [
        "kafka.ws.proxy.kafka-client.bootstrap-hosts=[\"a:1\", \"[::1]:2\"]",
        "server={ port = 5, websocket.ping-interval = 3 seconds }",
    ];
    let sources = ConfigSources {
        defines: defines.map(str::to_owned).to_vec(),
        ..ConfigSources::default()
    };
    let config = load(&sources).unwrap().config;
    assert_eq!(config.client.bootstrap_servers, ["a:1", "[::1]:2"]);
    assert_eq!(config.server.port, 5);
    let interval = config.server.websocket.ping_interval;
    assert_eq!(interval, Duration::from_secs(3));
}

#[test]
fn values_are_taken_from_files_in_every_source_and_never_shown() {
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret");
    std::fs::write(&secret, "hunter2\n").unwrap();
    let secret = secret.display();
    let key = "server.server-id";
    let (of_file, _directory) = with_file(&format!("kafka.ws.proxy.{key} = a-${{file:{secret}}}"));
    let mut of_variable = dev();
    let reference = format!("a-${{file:{secret}}}");
    of_variable
        .variables
        .push(variable("WSPROXY_SERVER_ID", &reference));
    let mut of_flag = dev();
    of_flag.flags.push(flag(key, &reference));
    let mut of_define = dev();
    of_define.defines.push(format!("{key}={reference}"));
    for sources in [of_file, of_variable, of_flag, of_define] {
        assert_eq!(load(&sources).unwrap().config.server.server_id, "a-hunter2");
    }
    let mut short = dev();
    short.flags.push(flag(key, &format!("@{secret}")));
    assert_eq!(load(&short).unwrap().config.server.server_id, "hunter2");

    let mut wrong = dev();
    wrong.flags.push(flag("server.port", &format!("@{secret}")));
    wrong.flags.push(flag("server.bind-interface", "@/no/such"));
    let lines = errors(&wrong).join("\n");
    assert!(
        lines.contains("(from --port): *** is not accepted"),
        "{lines}"
    );
    let absent = "(from --bind-interface): cannot read /no/such: ";
    assert!(lines.contains(absent), "{lines}");
    assert!(!lines.contains("hunter2"), "{lines}");
}

#[test]
fn a_secret_in_clear_in_an_argument_is_warned_about() {
    let key = "kafka-client.properties.ssl.key.password";
    let notices = |value: &str| {
        let mut sources = dev();
        sources.defines.push(format!("{key}={value}"));
        let notices = load(&sources).unwrap().notices.into_iter();
        let warned: Vec<_> = notices
            .filter(|n| n.contains("lists of processes"))
            .collect();
        assert!(!warned.join("").contains("hunter2"));
        warned.len()
    };
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret");
    std::fs::write(&secret, "hunter2\n").unwrap();
    assert_eq!(notices("hunter2"), 1);
    assert_eq!(notices(&format!("@{}", secret.display())), 0);
    assert_eq!(notices(&format!("${{file:{}}}", secret.display())), 0);
    let key = "kafka-client.schema-registry.url";
    let mut sources = dev();
    sources
        .defines
        .push(format!("{key}=http://u:hunter2@r:8081"));
    let [notice] = &load(&sources).unwrap().notices[..] else {
        panic!("a password in a URL is not warned about");
    };
    assert!(notice.contains("lists of processes"), "{notice}");
    assert!(!notice.contains("hunter2"), "{notice}");
    let mut sources = dev();
    let name = "WSPROXY_KAFKA_SSL_KEY_PASS";
    sources.variables.push(variable(name, "hunter2"));
    assert_eq!(load(&sources).unwrap().notices.len(), 1);
}

#[test]
fn of_two_names_of_one_thing_the_stronger_source_counts() {
    let text = "kafka.ws.proxy.kafka-client.properties.delivery.timeout.ms = 50000";
    let (mut sources, _directory) = with_file(text);
    let timeout = |sources: &ConfigSources| {
        let config = load(sources).unwrap().config;
        config.producer.delivery_timeout.as_secs()
    };
    assert_eq!(timeout(&sources), 50);
    let own = "producer.delivery-timeout-ms";
    sources.flags.push(flag(own, "60000"));
    assert_eq!(timeout(&sources), 60);
    sources
        .defines
        .push("producer.kafka-client-properties.delivery.timeout.ms=70000".to_owned());
    assert_eq!(timeout(&sources), 70);

    let (mut sources, _directory) = with_file(text);
    sources.flags.push(flag(own, "10"));
    let lines = errors(&sources);
    assert!(
        lines[0].contains("(from --producer-delivery-timeout-ms), 10, must be"),
        "{lines:?}"
    );
}

/// A value that no setting has by default, for each kind that there is.
fn other_value(row: &ConfigKey) -> &'static str {
    let setting = row.setting().unwrap();
    match (row.name, setting.placeholder) {
        (_, "HOST:PORT,…") => "a:1,b:2",
        ("producer.compression-type", _) => "lz4",
        ("log.level", _) => "warn",
        ("log.format", _) => "json",
        ("producer.limits.client-specific-limits", _) => "[{producer-id=a,messages-per-second=5}]",
        ("consumer.limits.client-specific-limits", _) => "[{group-id=a,batch-size=5}]",
        (_, "SOURCE") => "URL",
        (_, "USER:PASSWORD") => "user:password",
        (_, "BOOLEAN") if row.dev_default.or(setting.default) == Some("true") => "false",
        (_, "BOOLEAN") => "true",
        (_, "PORT" | "COUNT") => "4321",
        (_, "ADDRESS") => "127.0.0.9",
        (_, "ADDRESS,…") => "10.0.0.0/8",
        (_, "ORIGIN,…") => "https://a.example",
        (_, "DURATION") => "7 seconds",
        (_, "MILLISECONDS") => "77000",
        (_, "SIZE") => "100 KiB",
        (_, "URL" | "URL,…") => "http://a.example:8081",
        _ => "other",
    }
}

#[test]
fn each_setting_acts_in_each_of_the_ways_to_set_it() {
    let directory = tempfile::tempdir().unwrap();
    let is_of_reporter = |row: &ConfigKey| row.name.starts_with(keys::REPORTER_SECTION);
    let base = |row: &ConfigKey| ConfigSources {
        dev: !row.replaced_by_dev,
        // These do nothing alone, and what starts nothing does not mind.
        brokerless: [
            "server.ssl.",
            "server.basic-auth.",
            "server.openid-connect.",
        ]
        .iter()
        .any(|section| row.name.starts_with(section)),
        variables: match is_of_reporter(row) {
            true => vec![variable("WSPROXY_CONFLUENT_METRICS_ENABLED", "true")],
            false => Vec::new(),
        },
        ..ConfigSources::default()
    };
    for row in PROXY_KEYS.iter().filter(|row| row.setting().is_some()) {
        let (name, text) = (row.name, other_value(row));
        let mut ways = Vec::new();
        for known in row.aliases.iter().chain([&row.name]) {
            let path = directory.path().join(format!("{known}.conf"));
            std::fs::write(&path, format!("{KEY_PREFIX}{known} = \"{text}\"")).unwrap();
            let of_file = |file| ConfigSources { file, ..base(row) };
            ways.push((of_file(Some(path)), format!("{known}.conf:1")));
            let mut sources = base(row);
            sources.defines.push(format!("{known}={text}"));
            ways.push((sources, format!("-D {known}")));
        }
        let is_list = row.setting().unwrap().placeholder == "LIST";
        assert!(!row.variables.is_empty() || is_list, "{name}");
        for known in row.variables {
            let mut sources = base(row);
            sources.variables.push(variable(known, text));
            ways.push((sources, format!("variable {known}")));
        }
        let mut sources = base(row);
        sources.flags.push(flag(name, text));
        ways.push((sources, format!("--{}", row.flag().unwrap())));

        let mut without = match base(row).dev {
            true => Config::dev(),
            false => Config::default(),
        };
        without.metrics_reporter.enabled = is_of_reporter(row);
        let without = format!("{without:?}");
        let mut configs = Vec::new();
        for (sources, from) in ways {
            let loaded = load(&sources).unwrap_or_else(|failure| panic!("{from}: {failure:?}"));
            let provenance = loaded.provenance.of_key(name).from.unwrap().to_string();
            assert!(provenance.ends_with(&from), "{provenance}: {from}");
            configs.push(format!("{:?}", loaded.config));
        }
        assert_ne!(configs[0], without, "{name}");
        configs.dedup();
        assert_eq!(configs.len(), 1, "{name}");
    }
}

#[test]
fn each_property_acts_or_is_reported_in_each_section_and_way() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("application.conf");
    for row in super::super::keys::CLIENT_PROPERTIES {
        if row.is_section() {
            continue;
        }
        let value = match row.name {
            "acks" | "group.protocol" | "enable.idempotence" | "security.protocol" => "other",
            "compression.type" => "lz4",
            "partition.assignment.strategy" => "range",
            "max.in.flight.requests.per.connection" => "3",
            "fetch.max.bytes" | "buffer.memory" | "connections.max.idle.ms" => "7654321",
            "delivery.timeout.ms" => "230000",
            "heartbeat.interval.ms" => "4321",
            _ => "54321",
        };
        for section in ClientSection::ALL {
            let key = section.key_of(row.name);
            let mut ways = vec![dev(), dev()];
            ways[0].defines.push(format!("{key}={value}"));
            std::fs::write(&path, format!("{KEY_PREFIX}{key} = {value}")).unwrap();
            ways[1].file = Some(path.clone());
            for name in row.variables {
                let mut sources = dev();
                sources.variables.push(variable(name, value));
                ways.push(sources);
            }
            for sources in ways {
                let says = |line: &String| line.contains(&format!(".{} (from ", row.name));
                let is_seen = match load(&sources) {
                    Ok(loaded) => {
                        let acts = format!("{:?}", loaded.config) != format!("{:?}", Config::dev());
                        acts || loaded.notices.iter().any(says)
                    }
                    Err(failure) => failure
                        .errors
                        .iter()
                        .map(ToString::to_string)
                        .any(|e| says(&e)),
                };
                assert!(is_seen, "{sources:?}");
            }
        }
    }
}

#[test]
fn a_block_overrides_the_common_one_for_its_own_clients_only() {
    let text = "kafka.ws.proxy {\n\
        kafka-client.properties { request.timeout.ms = 1000, retry.backoff.ms = 10 }\n\
        producer.kafka-client-properties { request.timeout.ms = 2000 }\n\
        consumer.kafka-client-properties { retry.backoff.max.ms = 30 }\n\
        admin-client.kafka-client-properties { \"request.timeout.ms\" = 4000 }\n}";
    let (mut sources, _directory) = with_file(text);
    let of_consumers = variable("WSPROXY_KAFKA_CONSUMER_RETRY_BACKOFF_MS", "20");
    sources.variables.push(of_consumers);
    let config = load(&sources).unwrap().config;
    let millis = Duration::from_millis;
    let common = (config.client.request_timeout, config.client.retry_backoff);
    assert_eq!(common, (millis(1000), millis(10)));
    let of_producer = RequestOverrides {
        request_timeout: Some(millis(2000)),
        ..RequestOverrides::default()
    };
    assert_eq!(config.producer.requests, of_producer);
    let of_consumers = RequestOverrides {
        retry_backoff: Some(millis(20)),
        retry_backoff_max: Some(millis(30)),
        ..RequestOverrides::default()
    };
    assert_eq!(config.consumer.requests, of_consumers);
    assert_eq!(config.admin.request_timeout, Some(millis(4000)));
}

#[test]
fn what_clients_share_is_refused_where_one_of_them_shall_have_another_value() {
    for (of_one, is_accepted) in [("x", true), ("y", false)] {
        let mut sources = dev();
        for (section, id) in [
            ("kafka-client.properties", "x"),
            ("producer.kafka-client-properties", of_one),
        ] {
            sources.defines.push(format!("{section}.client.id={id}"));
        }
        match load(&sources) {
            Ok(loaded) => assert!(is_accepted && loaded.notices.is_empty()),
            Err(failure) => {
                assert!(!is_accepted && failure.errors.len() == 1, "{failure:?}");
                let line = failure.errors[0].to_string();
                let accepted = "the value of kafka.ws.proxy.kafka-client.properties.client.id";
                assert!(line.contains(accepted), "{line}");
            }
        }
    }
}

#[test]
fn what_is_wrong_with_another_store_does_not_hide_what_is_wrong_with_one_of_the_clients() {
    let mut sources = with_properties(&[
        "security.protocol=SSL",
        "ssl.truststore.location=/no/such/store",
    ]);
    for other in [
        "server.ssl.keystore-password=${file:/no/such/file}",
        "kafka-client.metrics-enabled=true",
        "kafka-client.confluent-metrics.properties.ssl.truststore.location=/no/such/other",
    ] {
        sources.defines.push(other.to_owned());
    }
    let text = errors(&sources).join("\n");
    for part in [
        "server.ssl.keystore-password",
        "/no/such/store: No such file",
        "/no/such/other: No such file",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}
