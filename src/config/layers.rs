//! Puts the sources on top of each other and reads the result into [`Config`].

use std::collections::BTreeMap;

use super::fault::{Fault, ROOT, Source};
use super::keys::{KEYS, Key};
use super::later::{self, LATER};
use super::nearest::nearest;
use super::origin::{self, Origin};
use super::properties::{self, Effect, PROPERTIES, Section};
use super::{Config, value::Checked};
use crate::secret::Secret;

/// What the caller was given, not yet looked at.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// `--dev`
    pub dev: bool,
    /// Key name, flag as written, value.
    pub flags: Vec<(String, String, String)>,
    /// `-D` arguments, `key=value`.
    pub defines: Vec<String>,
    /// The environment.
    pub variables: Vec<(String, String)>,
    /// What could not even be read.
    pub faults: Vec<Fault>,
}

/// A sound configuration, and what an operator should hear about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Settings that have no effect, one line each.
    pub notices: Vec<String>,
    /// Who set what.
    pub origin: Origin,
}

struct Layered {
    value: Secret,
    source: Source,
}

/// Reads everything, or reports every fault.
pub fn load(given: &Given) -> Result<Loaded, Vec<Fault>> {
    let mut faults = given.faults.clone();
    let mut notices = Vec::new();
    let mut layers = BTreeMap::new();

    environment(given, &mut layers, &mut notices);
    // The config file's place is here: above the defaults, below the environment.
    defines(given, &mut layers, &mut faults);
    for (key, flag, value) in &given.flags {
        put(&mut layers, key, value, Source::Flag(flag.clone()));
    }

    let mut config = Config {
        dev: given.dev,
        ..Config::default()
    };
    let origin = Origin::of(layers.iter().map(|(key, layered)| (key, &layered.source)));
    read_keys(&mut config, &mut layers, &mut faults, &mut notices);
    read_properties(&mut config, &mut layers, &mut faults, &mut notices);
    for (key, layered) in layers {
        faults.push(unknown(key, layered.source));
    }
    origin::conflicts(&mut config, &origin, &mut faults, &mut notices);

    match faults.is_empty() {
        true => Ok(Loaded {
            config,
            notices,
            origin,
        }),
        false => Err(faults),
    }
}

fn put(layers: &mut BTreeMap<String, Layered>, key: &str, value: &str, source: Source) {
    let stronger = layers
        .get(key)
        .is_none_or(|known| known.source.rank() <= source.rank());
    if stronger {
        let value = Secret::new(value);
        layers.insert(key.to_owned(), Layered { value, source });
    }
}

fn environment(given: &Given, layers: &mut BTreeMap<String, Layered>, notices: &mut Vec<String>) {
    for (variable, value) in &given.variables {
        if !variable.starts_with("WSPROXY_") || value.is_empty() {
            continue;
        }
        let key = key_of_variable(variable);
        match key {
            Some(key) => put(layers, &key, value, Source::Variable(variable.clone())),
            None => {
                let known = KEYS.iter().map(|key| key.variables);
                let known = known.chain(LATER.iter().map(|later| later.variables));
                let meant = nearest(variable, known.flatten().copied());
                let hint = meant.map_or_else(String::new, |m| format!("; did you mean {m}?"));
                notices.push(format!("variable {variable} is not known here{hint}"));
            }
        }
    }
}

fn key_of_variable(variable: &str) -> Option<String> {
    if let Some(key) = KEYS.iter().find(|key| key.variables.contains(&variable)) {
        return Some(key.name.to_owned());
    }
    if let Some(name) = later::key_of_variable(variable) {
        return Some(name.to_owned());
    }
    let end = variable.strip_prefix("WSPROXY_KAFKA_")?;
    if let Some(name) = property_of_variable(end) {
        return Some(format!("{}{name}", Section::All.prefix()));
    }
    let metrics = ["METRICS_", "MONITORING_"];
    if let Some(end) = metrics.iter().find_map(|metrics| end.strip_prefix(metrics)) {
        let name = property_of_variable(end)?;
        return Some(format!("kafka-client.confluent-metrics.properties.{name}"));
    }
    let (section, _, name) = properties::SECTION_VARIABLES
        .iter()
        .find(|(_, variable, _)| *variable == end)?;
    Some(format!("{}{name}", section.prefix()))
}

fn property_of_variable(end: &str) -> Option<&'static str> {
    let property = PROPERTIES.iter().find(|p| p.variables.contains(&end));
    property.map(|property| property.name)
}

fn defines(given: &Given, layers: &mut BTreeMap<String, Layered>, faults: &mut Vec<Fault>) {
    for define in &given.defines {
        let Some((key, value)) = define.split_once('=') else {
            faults.push(Fault::Define(define.clone()));
            continue;
        };
        let key = key.trim();
        let key = key.strip_prefix(ROOT).unwrap_or(key).replace('"', "");
        if key.is_empty() {
            faults.push(Fault::Define("=… names no key".to_owned()));
            continue;
        }
        put(
            layers,
            &key,
            value.trim(),
            Source::Flag(format!("-D {key}")),
        );
    }
}

fn read_keys(
    config: &mut Config,
    layers: &mut BTreeMap<String, Layered>,
    faults: &mut Vec<Fault>,
    notices: &mut Vec<String>,
) {
    for key in KEYS {
        if let Some(default) = key.default {
            (key.set)(config, default).expect("a default is accepted by its own key, see the test");
        }
        let Some(layered) = layers.remove(key.name) else {
            continue;
        };
        if key.name == "kafka-client.bootstrap-hosts" && config.dev {
            match layered.source {
                Source::Flag(_) => faults.push(Fault::TwoBrokers(layered.source)),
                Source::Variable(_) => notices.push(format!(
                    "{} is ignored: --dev brings its own broker",
                    layered.source
                )),
            }
            continue;
        }
        let read = (key.set)(config, layered.value.reveal());
        check(read, key.name, layered, false, faults);
    }
    let without_brokers = !config.dev && config.client.bootstrap.is_empty();
    let told = |fault: &Fault| matches!(fault, Fault::Value { key, .. } if key.ends_with("bootstrap-hosts"));
    if without_brokers && !faults.iter().any(told) {
        faults.push(Fault::NoBrokers);
    }
}

fn read_properties(
    config: &mut Config,
    layers: &mut BTreeMap<String, Layered>,
    faults: &mut Vec<Fault>,
    notices: &mut Vec<String>,
) {
    // One line for each property and reason, however often it was given.
    let mut ignored: BTreeMap<(String, &str), Vec<String>> = BTreeMap::new();
    for section in Section::EACH {
        let names: Vec<String> = layers
            .keys()
            .filter(|key| key.starts_with(section.prefix()))
            .cloned()
            .collect();
        for key in names {
            let name = &key[section.prefix().len()..];
            let Some(effect) = properties::find(name) else {
                // Left where it is: reported as unknown, unless it is a security setting.
                if properties::is_security(name) {
                    let source = layers.remove(&key).expect("just listed").source;
                    faults.push(Fault::NotYet { key, from: source });
                }
                continue;
            };
            let layered = layers.remove(&key).expect("just listed");
            if let Some(why) = section.pointless(&effect) {
                let told = format!("{ROOT}{key} (from {})", layered.source);
                ignored
                    .entry((name.to_owned(), why))
                    .or_default()
                    .push(told);
                continue;
            }
            let text = layered.value.reveal().trim().to_owned();
            let secret = name.contains("password") || name.contains("jaas");
            let read = match effect {
                Effect::Client(set) | Effect::Consumers(set) => set(&mut config.client, &text),
                Effect::Producer(set) => set(&mut config.producer, &text),
                Effect::Consumer(set) => set(&mut config.consumer, &text),
                Effect::Only(accept) => accept(&text),
                Effect::Ignored(_) => Ok(()),
                Effect::NotYet => {
                    let from = layered.source;
                    faults.push(Fault::NotYet { key, from });
                    continue;
                }
            };
            check(read, &key, layered, secret, faults);
        }
    }
    for ((_, why), told) in ignored {
        let verb = if told.len() == 1 { "is" } else { "are" };
        notices.push(format!("{} {verb} ignored: {why}", told.join(", ")));
    }
}

fn check(read: Checked<()>, key: &str, layered: Layered, secret: bool, faults: &mut Vec<Fault>) {
    let Err(accepted) = read else { return };
    let shown = match secret {
        true => "***".to_owned(),
        false => format!("{:?}", layered.value.reveal()),
    };
    faults.push(Fault::Value {
        key: key.to_owned(),
        from: layered.source,
        shown,
        accepted,
    });
}

fn unknown(key: String, from: Source) -> Fault {
    if later::is_later(&key) {
        return Fault::NotYet { key, from };
    }
    let section = Section::EACH
        .into_iter()
        .find(|section| key.starts_with(section.prefix()));
    let meant = match section {
        Some(section) => nearest(&key[section.prefix().len()..], properties::names())
            .map(|name| format!("{}{name}", section.prefix())),
        None => nearest(&key, KEYS.iter().map(|k: &Key| k.name)).map(str::to_owned),
    };
    let hint = meant.map_or_else(String::new, |m| format!("; did you mean {ROOT}{m}?"));
    Fault::UnknownKey { key, from, hint }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::keys::flag_of;

    fn flag(key: &str, value: &str) -> (String, String, String) {
        let flag = flag_of(key);
        (key.to_owned(), format!("--{flag}"), value.to_owned())
    }

    fn variable(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    fn dev() -> Given {
        Given {
            dev: true,
            ..Given::default()
        }
    }

    fn faults(given: &Given) -> Vec<String> {
        let faults = load(given).map(|_| ()).unwrap_err();
        faults.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_flag_wins_over_a_variable_and_a_variable_over_the_default() {
        let mut given = dev();
        assert_eq!(load(&given).unwrap().config.server.port, 8078);
        given.variables.push(variable("WSPROXY_PORT", "1"));
        assert_eq!(load(&given).unwrap().config.server.port, 1);
        given.flags.push(flag("server.port", "2"));
        assert_eq!(load(&given).unwrap().config.server.port, 2);
    }

    #[test]
    fn a_define_sets_any_key_with_or_without_the_root() {
        let mut given = dev();
        given.defines = vec![
            "server.port=81".to_owned(),
            "kafka.ws.proxy.server.server-id = b".to_owned(),
            "consumer.kafka-client-properties.max.poll.interval.ms=20000".to_owned(),
            "kafka-client.properties.linger.ms=7".to_owned(),
            "producer.kafka-client-properties.linger.ms=9".to_owned(),
        ];
        let config = load(&given).unwrap().config;
        assert_eq!(config.server.port, 81);
        assert_eq!(config.server.server_id, "b");
        assert_eq!(config.consumer.max_poll_interval, Duration::from_secs(20));
        assert_eq!(config.producer.linger, Duration::from_millis(9));
    }

    #[test]
    fn without_brokers_the_one_line_names_both_flags() {
        let lines = faults(&Given::default());
        assert_eq!(lines.len(), 1);
        assert!(lines[0].contains("--dev") && lines[0].contains("--bootstrap-hosts"));
    }

    #[test]
    fn every_fault_is_reported_with_its_key_its_source_and_what_is_accepted() {
        let mut given = dev();
        given.variables.push(variable("WSPROXY_PORT", "http"));
        given.flags.push(flag("server.shutdown-grace", "soon"));
        given.defines.push("servr.port=1".to_owned());
        given.defines.push("nonsense".to_owned());
        given
            .defines
            .push("kafka-client.properties.lingr.ms=1".to_owned());
        let lines = faults(&given);
        assert_eq!(lines.len(), 5, "{lines:?}");
        let line = |part: &str| lines.iter().find(|l| l.contains(part)).unwrap();
        assert!(line("server.port (from variable WSPROXY_PORT)").contains("0 to 65535"));
        assert!(line("--shutdown-grace").contains("20 seconds"));
        assert!(line("servr.port").contains("did you mean kafka.ws.proxy.server.port?"));
        assert!(line("lingr").contains("linger.ms"));
        assert!(line("nonsense").contains("key=value"));
    }

    #[test]
    fn security_settings_are_refused_by_name_and_never_shown() {
        let mut given = dev();
        let jaas = r#"PlainLoginModule required username="u" password="hunter2";"#;
        given
            .variables
            .push(variable("WSPROXY_KAFKA_SASL_JAAS_CFG", jaas));
        given
            .defines
            .push("kafka-client.properties.security.protocol=SASL_SSL".to_owned());
        given.defines.push("server.ssl.port=8443".to_owned());
        let text = faults(&given).join("\n");
        assert!(text.contains("sasl.jaas.config"), "{text}");
        assert!(text.contains("security.protocol"), "{text}");
        assert!(text.contains("server.ssl.port"), "{text}");
        assert_eq!(text.matches("not supported yet").count(), 3, "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[test]
    fn each_variable_of_a_later_version_is_refused_with_its_key() {
        for later in LATER {
            for name in later.variables {
                let mut given = dev();
                given.variables.push(variable(name, "x"));
                let told = format!("{ROOT}{} (from variable {name}): not supp", later.name);
                let lines = faults(&given);
                assert_eq!(lines.len(), 1, "{lines:?}");
                assert!(lines[0].starts_with(&told), "{lines:?}");
            }
        }
        let mut given = dev();
        let name = "WSPROXY_KAFKA_METRICS_SECURITY_PROTOCOL";
        given.variables.push(variable(name, "SSL"));
        assert!(faults(&given)[0].contains("confluent-metrics.properties.security.protocol"));
    }

    #[test]
    fn a_java_property_without_a_meaning_is_reported_once_with_all_who_set_it() {
        let mut given = dev();
        for define in [
            "kafka-client.properties.retries=3",
            "producer.kafka-client-properties.transactional.id=t",
            "consumer.kafka-client-properties.request.timeout.ms=1",
            "producer.kafka-client-properties.request.timeout.ms=1",
        ] {
            given.defines.push(define.to_owned());
        }
        let retries = variable("WSPROXY_KAFKA_PRODUCER_NUM_RETRIES", "7");
        given.variables.push(retries);
        let notices = load(&given).unwrap().notices;
        assert_eq!(notices.len(), 3, "{notices:?}");
        let line = |part: &str| notices.iter().find(|n| n.contains(part)).unwrap();
        assert!(line(".retries").contains("-D kafka-client.properties.retries"));
        assert!(line(".retries").contains("WSPROXY_KAFKA_PRODUCER_NUM_RETRIES"));
        assert!(line("consumer.kafka-client-properties.request").contains("share their conn"));
        assert!(line("transactional.id").contains("without transactions"));
    }

    #[test]
    fn no_property_of_the_java_clients_is_unknown_in_any_section() {
        let names = include_str!("properties-of-java.txt").lines();
        for name in names.filter(|line| !line.starts_with('#')) {
            for section in Section::EACH {
                let mut given = dev();
                given.defines.push(format!("{}{name}=1", section.prefix()));
                let Err(faults) = load(&given) else { continue };
                let unknown = |f: &Fault| matches!(f, Fault::UnknownKey { .. });
                assert!(!faults.iter().any(unknown), "{faults:?}");
            }
        }
    }

    #[test]
    fn the_rack_is_a_property_of_consumers() {
        let rack = |section: &str| {
            let mut given = dev();
            given.defines.push(format!("{section}.client.rack=x"));
            let loaded = load(&given).unwrap();
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
    fn what_needs_security_is_refused_in_every_section() {
        for section in Section::EACH {
            for property in [
                "security.protocol=SSL",
                "sasl.login.class=x",
                "sasl.mechanism=PLAIN",
            ] {
                let mut given = dev();
                given
                    .defines
                    .push(format!("{}{property}", section.prefix()));
                assert!(
                    faults(&given)[0].contains("not supported yet"),
                    "{property}"
                );
            }
        }
    }

    #[test]
    fn a_define_without_a_key_says_so() {
        for define in ["=x", " = x", "kafka.ws.proxy.=x"] {
            let mut given = dev();
            given.defines.push(define.to_owned());
            let lines = faults(&given);
            assert_eq!(lines, ["-D =… names no key: accepted: -D key=value"]);
        }
    }

    #[test]
    fn time_outs_that_contradict_each_other_are_refused_with_who_set_them() {
        let mut given = dev();
        given
            .defines
            .push("kafka-client.properties.session.timeout.ms=1000".to_owned());
        given
            .variables
            .push(variable("WSPROXY_KAFKA_CLIENT_REQUEST_TIMEOUT_MS", "40"));
        given.flags.push(flag("producer.delivery-timeout-ms", "10"));
        let heartbeat = "kafka.ws.proxy.kafka-client.properties.heartbeat.interval.ms \
            (from its default), 3000, must be less than \
            kafka.ws.proxy.kafka-client.properties.session.timeout.ms \
            (from -D kafka-client.properties.session.timeout.ms), 1000";
        let delivery = "kafka.ws.proxy.producer.delivery-timeout-ms \
            (from --producer-delivery-timeout-ms), 10, must be at least \
            kafka.ws.proxy.kafka-client.properties.request.timeout.ms \
            (from variable WSPROXY_KAFKA_CLIENT_REQUEST_TIMEOUT_MS), 40, plus \
            kafka.ws.proxy.kafka-client.properties.linger.ms (from its default), 0";
        assert_eq!(faults(&given), [heartbeat, delivery]);
    }

    #[test]
    fn a_delivery_time_out_that_nobody_set_gives_way_as_in_java() {
        let mut given = dev();
        given
            .defines
            .push("kafka-client.properties.request.timeout.ms=180000".to_owned());
        let loaded = load(&given).unwrap();
        let timeout = loaded.config.producer.delivery_timeout;
        assert_eq!(timeout, Duration::from_secs(180));
        assert_eq!(loaded.notices.len(), 1, "{:?}", loaded.notices);
    }
}
