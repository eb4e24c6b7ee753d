//! The table of keys: what each is called, which variables set it, and what becomes of it.
//!
//! ```text
//! PROXY_KEYS         named whole: server.port, log.level, … each with a flag
//! CLIENT_PROPERTIES  named as in Java: linger.ms, … below one of four sections
//!
//! handling   Setting      sets something of the proxy, listed by --help
//!            Property     sets something of the Kafka clients
//!            Checked      has one value here; any other is refused
//!            Unsupported  refused where it asks for anything: a later version will have it
//!            Ignored      reported with the reason, and without effect
//! ```
//!
//! Flags, `-D`, environment variables and the help text all come from here, so that a key
//! cannot exist in one of them and be missing in another.
//!
//! # Invariants
//! - A key that is in no row is refused, with the nearest known one.
//! - What would weaken security or acknowledgements if it had no effect is never `Ignored`.

mod properties;
mod proxy;

pub(super) use properties::CLIENT_PROPERTIES;
pub(crate) use proxy::PROXY_KEYS;

use kafka_client::config::RequestOverrides;

use super::Config;
use super::value::{self, ParsedValue};
use secret::Secret;

/// The key that turns the metrics reporter on.
pub(super) const REPORTER_SWITCH: &str = "kafka-client.metrics-enabled";
/// What its other keys begin with.
pub(super) const REPORTER_SECTION: &str = "kafka-client.confluent-metrics.";

/// What every key begins with; it may be left out.
pub(super) const KEY_PREFIX: &str = "kafka.ws.proxy.";

/// One row of the table.
#[derive(Debug)]
pub(crate) struct ConfigKey {
    /// The key, dotted, without `kafka.ws.proxy.`; of a Kafka client property its Java name.
    /// One that ends in `.*` stands for a whole section, and has no flag.
    pub(crate) name: &'static str,
    /// Other names of the key, without `kafka.ws.proxy.` too.
    pub(super) aliases: &'static [&'static str],
    /// Environment variables that set it; the first one is listed by `--help`.
    pub(crate) variables: &'static [&'static str],
    /// What becomes of it.
    pub(crate) handling: KeyHandling,
    /// Whether its value may never be shown.
    pub(super) secret: bool,
    /// Whether `--dev` has a value of its own for it; without `--dev` it must be given.
    pub(super) replaced_by_dev: bool,
    /// The default with `--dev`, where that is another one.
    pub(super) dev_default: Option<&'static str>,
}

/// What becomes of a key.
#[derive(Debug)]
pub(crate) enum KeyHandling {
    /// Sets something of the proxy.
    Setting(Setting),
    /// Sets something of the Kafka clients.
    Property(PropertySetting),
    /// Checks that the value is the only one supported.
    Checked(fn(&str) -> ParsedValue<()>),
    /// Refused where it asks for anything: a later version will have it.
    Unsupported(LaterKey),
    /// Without effect, for this reason.
    Ignored(&'static str),
}

/// A property of the Kafka clients.
#[derive(Debug)]
pub(crate) struct PropertySetting {
    /// Which clients it is for; `AllClients`: what they share.
    clients: ClientSection,
    /// Sets it for one kind of client alone; without it they cannot differ.
    of_one_client: Option<SetOverride>,
    /// The default, as text.
    default: &'static str,
    /// One line for people.
    help: &'static str,
    /// The proxy's own key for the same thing.
    own_key: Option<&'static str>,
    /// Parses a text into its field.
    set: SetValue,
}

/// A key of a later version.
#[derive(Debug)]
pub(crate) struct LaterKey {
    /// What it is by default, which is what happens anyway; `None`: unset.
    pub(crate) default: Option<&'static str>,
    /// As in [`Setting`].
    pub(crate) placeholder: &'static str,
    /// As in [`Setting`].
    pub(crate) help: &'static str,
}

impl LaterKey {
    /// One of which no more than the name is said.
    const UNDESCRIBED: LaterKey = LaterKey {
        default: None,
        placeholder: "",
        help: "",
    };

    /// Whether a value asks for nothing but what happens anyway.
    pub(super) fn is_inert(&self, text: &str) -> bool {
        text.trim().is_empty()
            || self
                .default
                .is_some_and(|default| self.is_same(default, text))
    }

    /// Whether two values mean the same.
    fn is_same(&self, a: &str, b: &str) -> bool {
        match self.placeholder {
            "DURATION" => value::duration(a) == value::duration(b),
            "BOOLEAN" => value::boolean(a) == value::boolean(b),
            _ => a.trim().eq_ignore_ascii_case(b.trim()),
        }
    }
}

/// Parses a text into its field.
pub(super) type SetValue = fn(&mut Config, &str) -> ParsedValue<()>;

/// Parses a text into what one kind of client has of its own.
pub(super) type SetOverride = fn(&mut RequestOverrides, &str) -> ParsedValue<()>;

/// How a setting of the proxy is presented, and what it sets.
#[derive(Debug)]
pub(crate) struct Setting {
    /// The default, as text; `None` when unset by default.
    pub(crate) default: Option<&'static str>,
    /// What the value looks like in help texts.
    pub(crate) placeholder: &'static str,
    /// One line for people.
    pub(crate) help: &'static str,
    /// Parses a text into its field.
    pub(super) set: SetValue,
}

impl Setting {
    /// Whether its value is a duration with a unit.
    pub(super) fn is_duration(&self) -> bool {
        self.placeholder == "DURATION"
    }
}

impl ConfigKey {
    const fn new(
        name: &'static str,
        variables: &'static [&'static str],
        handling: KeyHandling,
    ) -> Self {
        Self {
            name,
            aliases: &[],
            variables,
            handling,
            secret: false,
            replaced_by_dev: false,
            dev_default: None,
        }
    }

    const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    const fn by_default_in_dev(mut self, default: &'static str) -> Self {
        self.dev_default = Some(default);
        self
    }

    /// Other names of the key.
    const fn also(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    /// Each kind of client may have its own.
    const fn or_of_one_client(mut self, set: SetOverride) -> Self {
        if let KeyHandling::Property(property) = &mut self.handling {
            property.of_one_client = Some(set);
        }
        self
    }

    /// The proxy has a key of its own for the same thing.
    const fn same_as(mut self, key: &'static str) -> Self {
        if let KeyHandling::Property(property) = &mut self.handling {
            property.own_key = Some(key);
        }
        self
    }

    const fn replaced_by_dev(mut self) -> Self {
        self.replaced_by_dev = true;
        self
    }

    /// A value as error messages show it: in quotes, or `***`. What has an `@` may be a URL with a
    /// password.
    pub(super) fn shown(&self, value: &Secret, is_from_file: bool) -> String {
        match self.secret || is_from_file || value.reveal().contains('@') {
            true => "***".to_owned(),
            false => format!("{:?}", value.reveal()),
        }
    }

    /// Whether this row is about `name`.
    pub(super) fn matches(&self, name: &str) -> bool {
        match self.name.strip_suffix(".*") {
            None => self.name == name || self.aliases.contains(&name),
            Some(section) => is_or_is_below(name, section),
        }
    }

    /// The setting of the proxy that the key is, if it is one.
    pub(crate) fn setting(&self) -> Option<&Setting> {
        match &self.handling {
            KeyHandling::Setting(setting) => Some(setting),
            _ => None,
        }
    }

    /// The proxy's own key for what the property sets.
    pub(super) fn own_key(&self) -> Option<&'static str> {
        match &self.handling {
            KeyHandling::Property(property) => property.own_key,
            _ => None,
        }
    }

    /// The clients, the default and the line about a property of the Kafka clients, if it is one.
    pub(super) fn property(&self) -> Option<(ClientSection, &'static str, &'static str)> {
        match &self.handling {
            KeyHandling::Property(property) => {
                Some((property.clients, property.default, property.help))
            }
            _ => None,
        }
    }

    /// The key of a later version that it is, if it is one.
    pub(crate) fn later(&self) -> Option<&LaterKey> {
        match &self.handling {
            KeyHandling::Unsupported(later) => Some(later),
            _ => None,
        }
    }

    /// The flag that sets the key, without its dashes: the key in kebab-case, a leading
    /// `server.` or `kafka-client.` left out. Whole sections have none.
    pub(crate) fn flag(&self) -> Option<String> {
        if self.is_section() {
            return None;
        }
        let short = self
            .name
            .strip_prefix("server.")
            .or_else(|| self.name.strip_prefix("kafka-client."))
            .unwrap_or(self.name);
        Some(short.replace('.', "-"))
    }

    /// Whether the row is about a whole section.
    pub(super) fn is_section(&self) -> bool {
        self.name.ends_with(".*")
    }
}

/// The section that a Kafka client property stands in: which clients it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ClientSection {
    /// All of them.
    AllClients,
    /// The producer.
    Producer,
    /// Consumers.
    Consumer,
    /// The admin client.
    AdminClient,
    /// The metrics reporter, which has connections of its own.
    MetricsReporter,
}

impl ClientSection {
    /// What the clients of this section have of their own; `None`: it is for all.
    pub(super) fn overrides(self, config: &mut Config) -> Option<&mut RequestOverrides> {
        match self {
            ClientSection::AllClients | ClientSection::MetricsReporter => None,
            ClientSection::Producer => Some(&mut config.producer.requests),
            ClientSection::Consumer => Some(&mut config.consumer.requests),
            ClientSection::AdminClient => Some(&mut config.admin),
        }
    }

    /// All sections; a later one overrides an earlier one.
    pub(super) const ALL: [ClientSection; 5] = [
        ClientSection::AllClients,
        ClientSection::Producer,
        ClientSection::Consumer,
        ClientSection::AdminClient,
        ClientSection::MetricsReporter,
    ];

    /// The key in front of the property, with its dot.
    pub(super) fn prefix(self) -> &'static str {
        match self {
            ClientSection::AllClients => "kafka-client.properties.",
            ClientSection::Producer => "producer.kafka-client-properties.",
            ClientSection::Consumer => "consumer.kafka-client-properties.",
            ClientSection::AdminClient => "admin-client.kafka-client-properties.",
            ClientSection::MetricsReporter => "kafka-client.confluent-metrics.properties.",
        }
    }

    /// The key of a property in this section.
    pub(super) fn key_of(self, property: &str) -> String {
        format!("{}{property}", self.prefix())
    }

    /// The section and the property that a key names.
    pub(super) fn split(key: &str) -> Option<(Self, &str)> {
        Self::ALL
            .into_iter()
            .find_map(|section| Some((section, key.strip_prefix(section.prefix())?)))
    }

    /// What a property does that is handled so and was given in this section.
    pub(super) fn effect_of(self, handling: &KeyHandling) -> PropertyEffect {
        match handling {
            KeyHandling::Property(property) => match property.clients {
                clients if self == ClientSection::AllClients || self == clients => {
                    PropertyEffect::Set(property.set)
                }
                ClientSection::AllClients | ClientSection::Producer
                    if self == ClientSection::MetricsReporter =>
                {
                    PropertyEffect::SetOfReporter(property.set)
                }
                ClientSection::AllClients => match property.of_one_client {
                    Some(set) => PropertyEffect::Override(set),
                    None => PropertyEffect::MustNotDiffer(property.set),
                },
                _ => PropertyEffect::None("this client has no such property"),
            },
            KeyHandling::Setting(setting) => PropertyEffect::Set(setting.set),
            KeyHandling::Checked(check) => PropertyEffect::Check(*check),
            KeyHandling::Unsupported(_) => PropertyEffect::Refuse,
            KeyHandling::Ignored(reason) => PropertyEffect::None(reason),
        }
    }
}

/// What a property does in the section that it was given in.
pub(super) enum PropertyEffect {
    /// Sets something.
    Set(SetValue),
    /// Sets it for the metrics reporter alone.
    SetOfReporter(SetValue),
    /// Sets it for the clients of the section alone.
    Override(SetOverride),
    /// Must be what it is for all clients, which share it.
    MustNotDiffer(SetValue),
    /// Must have the one value that is supported.
    Check(fn(&str) -> ParsedValue<()>),
    /// Ends the start.
    Refuse,
    /// Nothing, for this reason.
    None(&'static str),
}

/// The row of a Kafka client property; `None` when Java has none of that name.
pub(super) fn find_property(name: &str) -> Option<&'static ConfigKey> {
    CLIENT_PROPERTIES.iter().find(|row| row.matches(name))
}

/// The row of a key of the proxy that a later version will have.
pub(super) fn find_later(key: &str) -> Option<&'static LaterKey> {
    // A row of the key itself stands before that of its section.
    let row = PROXY_KEYS.iter().find(|row| row.matches(key));
    row.and_then(ConfigKey::later)
}

/// Whether `key` is `name`, or continues it after a dot.
fn is_or_is_below(key: &str, name: &str) -> bool {
    key.strip_prefix(name)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The key that `key` is another name for, or `key`.
pub(super) fn without_alias(key: &str) -> String {
    if let Some(rest) = key.strip_prefix(OLD_REPORTER_SECTION) {
        return without_alias(&format!("{REPORTER_SECTION}{rest}"));
    }
    if let Some((section, property)) = ClientSection::split(key) {
        let row = CLIENT_PROPERTIES
            .iter()
            .find(|row| row.aliases.contains(&property));
        return section.key_of(row.map_or(property, |row| row.name));
    }
    let row = PROXY_KEYS.iter().find(|row| row.aliases.contains(&key));
    row.map_or(key, |row| row.name).to_owned()
}

/// The older name of the section of the metrics reporter.
const OLD_REPORTER_SECTION: &str = "kafka-client.confluent-monitoring.";

/// The key that an environment variable sets.
pub(super) fn key_of_variable(variable: &str) -> Option<String> {
    let in_row = |row: &&ConfigKey| row.variables.contains(&variable);
    if let Some(row) = PROXY_KEYS.iter().find(in_row) {
        return Some(row.name.to_owned());
    }
    if let Some(row) = CLIENT_PROPERTIES.iter().find(in_row) {
        return Some(section_of_variable(variable).key_of(row.name));
    }
    // Each variable that is for all clients has a twin for the metrics reporter.
    let end = ["WSPROXY_KAFKA_METRICS_", "WSPROXY_KAFKA_MONITORING_"]
        .into_iter()
        .find_map(|prefix| variable.strip_prefix(prefix))?;
    let twin = format!("WSPROXY_KAFKA_{end}");
    let row = CLIENT_PROPERTIES
        .iter()
        .find(|row| row.variables.contains(&&*twin))?;
    (section_of_variable(&twin) == ClientSection::AllClients)
        .then(|| ClientSection::MetricsReporter.key_of(row.name))
}

/// The clients that the variable of a Kafka client property is for.
fn section_of_variable(variable: &str) -> ClientSection {
    if variable.starts_with("WSPROXY_KAFKA_PRODUCER_") {
        ClientSection::Producer
    } else if variable.starts_with("WSPROXY_KAFKA_CONSUMER_") {
        ClientSection::Consumer
    } else {
        ClientSection::AllClients
    }
}

/// The known key that an unknown one most likely means.
pub(super) fn nearest_key(key: &str) -> Option<String> {
    nearest_key_within(key, edits_max)
}

/// The known key that one of a section without rows of its own is only a slip away from.
pub(super) fn slip_in_section(key: &str) -> Option<String> {
    let row = find(key).filter(|row| row.is_section());
    row.and_then(|_| nearest_key_within(key, |_| EDITS_OF_A_SLIP))
}

fn nearest_key_within(key: &str, edits_max: fn(&str) -> usize) -> Option<String> {
    match ClientSection::split(key) {
        Some((section, property)) => {
            let known = CLIENT_PROPERTIES.iter().filter(|row| !row.is_section());
            let known = known.map(|row| row.name);
            nearest(property, known, edits_max(property)).map(|name| section.key_of(name))
        }
        None => {
            let known = PROXY_KEYS.iter().filter(|row| !row.is_section());
            let known = known.flat_map(|row| row.aliases.iter().copied().chain([row.name]));
            nearest(key, known, edits_max(key)).map(str::to_owned)
        }
    }
}

/// The row of a key, in whatever section.
pub(super) fn find(key: &str) -> Option<&'static ConfigKey> {
    let property = ClientSection::split(key).and_then(|(_, property)| find_property(property));
    property.or_else(|| PROXY_KEYS.iter().find(|row| row.matches(key)))
}

/// Whether that key is in a table, in whatever section.
pub(super) fn is_known(key: &str) -> bool {
    let property = ClientSection::split(key).map_or(key, |(_, property)| property);
    let is_row = |row: &ConfigKey| !row.is_section() && row.name == key;
    PROXY_KEYS.iter().any(is_row) || find_property(property).is_some_and(|row| !row.is_section())
}

/// The known variable that an unknown one most likely means.
pub(super) fn nearest_variable(variable: &str) -> Option<&'static str> {
    let rows = PROXY_KEYS.iter().chain(CLIENT_PROPERTIES);
    let known = rows.flat_map(|row| row.variables);
    nearest(variable, known.copied(), edits_max(variable))
}

/// So many edits may be a typo in a name that is unknown.
fn edits_max(name: &str) -> usize {
    (name.len() / 3).max(2)
}

/// So many are one in a name that could be right.
const EDITS_OF_A_SLIP: usize = 2;

/// The candidate with the fewest edits to `name`, if they are few enough.
fn nearest<'a>(
    name: &str,
    candidates: impl Iterator<Item = &'a str>,
    edits_max: usize,
) -> Option<&'a str> {
    candidates
        .map(|candidate| (strsim::levenshtein(name, candidate), candidate))
        .filter(|(edits, _)| *edits <= edits_max)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Stores a parsed value.
fn assign<T>(field: &mut T, parsed: ParsedValue<T>) -> ParsedValue<()> {
    *field = parsed?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_finds_the_nearest_key_and_an_unlike_word_finds_none() {
        let known = ["server.port", "server.server-id"];
        assert_eq!(
            nearest("server.prot", known.into_iter(), 3),
            Some("server.port")
        );
        assert_eq!(nearest("zzz", known.into_iter(), 3), None);
        let alias = "kafka-client.schema-registry-urls";
        let named = nearest_key(alias).unwrap();
        assert_eq!(named, "kafka-client.schema-registry-url");
    }

    #[test]
    fn a_slip_in_a_section_finds_its_key_and_what_java_has_there_is_none() {
        for (key, meant) in [
            (
                "kafka-client.schema-registry.auto-register-schema",
                "kafka-client.schema-registry.auto-register-schemas",
            ),
            (
                "kafka-client.schema-registry.properties.schema.registry.basic.auth.userinfo",
                "kafka-client.schema-registry.properties.schema.registry.basic.auth.user.info",
            ),
            (
                "consumer.kafka-client-properties.sasl.jaas.confg",
                "consumer.kafka-client-properties.sasl.jaas.config",
            ),
        ] {
            assert_eq!(slip_in_section(key).as_deref(), Some(meant), "{key}");
        }
        let java = include_str!("keys/properties-of-java.txt").lines();
        for name in java {
            let key = ClientSection::AllClients.key_of(name);
            assert_eq!(slip_in_section(&key), None, "{name}");
        }
        let registry = "kafka-client.schema-registry.properties.";
        for name in ["ssl.truststore.location", "basic.auth.user.info", "x"] {
            assert_eq!(
                slip_in_section(&format!("{registry}{name}")),
                None,
                "{name}"
            );
        }
    }

    #[test]
    fn every_default_that_help_shows_is_the_one_without_a_setting() {
        let without = format!("{:?}", Config::default());
        for row in CLIENT_PROPERTIES {
            let KeyHandling::Property(property) = &row.handling else {
                continue;
            };
            let mut config = Config::default();
            let set = (property.set)(&mut config, property.default);
            assert_eq!(set, Ok(()), "{}", row.name);
            assert_eq!(format!("{config:?}"), without, "{}", row.name);
        }
        let mut dev = Config {
            dev: true,
            ..Config::default()
        };
        for row in PROXY_KEYS {
            if let (Some(setting), Some(default)) = (row.setting(), row.dev_default) {
                assert_eq!((setting.set)(&mut dev, default), Ok(()), "{}", row.name);
            }
        }
        assert_eq!(format!("{dev:?}"), format!("{:?}", Config::dev()));
        for row in PROXY_KEYS {
            let Some(setting) = row.setting() else {
                continue;
            };
            if let Some(default) = setting.default {
                let mut config = Config::default();
                assert_eq!((setting.set)(&mut config, default), Ok(()), "{}", row.name);
                assert_eq!(format!("{config:?}"), without, "{}", row.name);
            }
        }
    }

    #[test]
    fn no_value_of_a_secret_is_shown() {
        let text = Secret::new("hunter2");
        let is_shown = |name: &str| {
            let mut rows = PROXY_KEYS.iter().chain(CLIENT_PROPERTIES);
            let row = find(name).or_else(|| rows.find(|row| row.matches(name)));
            row.unwrap().shown(&text, false).contains("hunter2")
        };
        for name in [
            "sasl.jaas.config",
            "sasl.oauthbearer.client.credentials.client.secret",
            "ssl.key.password",
            "ssl.keystore.key",
            "server.basic-auth.password",
            "server.ssl.keystore-password",
            "kafka-client.schema-registry.properties.schema.registry.basic.auth.user.info",
            "kafka-client.schema-registry.properties.basic.auth.user.info",
            "kafka-client.confluent-metrics.properties.sasl.jaas.config",
            "config.providers.vault.param.token",
        ] {
            assert!(!is_shown(name), "{name}");
        }
        assert!(is_shown("server.port") && is_shown("linger.ms"));
    }

    #[test]
    fn every_row_whose_name_speaks_of_a_secret_is_marked_as_one() {
        const WORDS: &[&str] = &[
            "password",
            "passphrase",
            "secret",
            "jaas",
            "user.info",
            "username",
            "keystore.key",
        ];
        // Names the claim of a token that holds the password, not the password.
        const CLAIMS: &str = "server.openid-connect.custom-jwt.";
        for row in PROXY_KEYS.iter().chain(CLIENT_PROPERTIES) {
            let says = WORDS.iter().any(|word| row.name.contains(word));
            let whole = says && !row.name.starts_with(CLAIMS);
            assert!(row.secret || !whole, "{}", row.name);
        }
        let java = include_str!("keys/properties-of-java.txt").lines();
        for name in java.filter(|name| WORDS.iter().any(|word| name.contains(word))) {
            let row = find_property(name);
            assert!(row.is_some_and(|row| row.secret), "{name}");
        }
    }

    #[test]
    fn flags_leave_out_a_leading_server_or_kafka_client() {
        let flags: Vec<_> = PROXY_KEYS.iter().filter_map(ConfigKey::flag).collect();
        for flag in [
            "port",
            "bootstrap-hosts",
            "commit-handler-max-stack-size",
            "websocket-ping-interval",
            "log-level",
            "ssl-port",
        ] {
            assert!(flags.contains(&flag.to_owned()), "{flag}");
        }
    }

    #[test]
    fn keys_of_later_versions_are_known_by_name_and_by_section() {
        let is_later = |key| find_later(key).is_some();
        assert!(is_later("kafka-client.schema-registry.x"));
        assert!(!is_later("kafka-client.schema-registryx"));
        assert!(!is_later("server.port"));
    }

    #[test]
    fn no_name_flag_or_variable_stands_in_two_rows() {
        let rows = || PROXY_KEYS.iter().chain(CLIENT_PROPERTIES);
        let flags = PROXY_KEYS.iter().filter_map(ConfigKey::flag);
        let variables = rows().flat_map(|row| row.variables);
        for mut column in [
            rows()
                .flat_map(|row| row.aliases.iter().chain([&row.name]))
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>(),
            flags.collect(),
            variables.map(|name| (*name).to_owned()).collect(),
        ] {
            let count = column.len();
            column.sort();
            column.dedup();
            assert_eq!(column.len(), count);
        }
        for row in PROXY_KEYS.iter().filter(|row| row.setting().is_some()) {
            assert!(find_later(row.name).is_none(), "{}", row.name);
        }
    }

    #[test]
    fn every_property_of_the_java_clients_is_known() {
        let listed = include_str!("keys/properties-of-java.txt").lines();
        let names: Vec<_> = listed.filter(|line| !line.starts_with('#')).collect();
        assert!(names.len() > 140, "{}", names.len());
        for name in names {
            assert!(find_property(name).is_some(), "{name}");
        }
    }
}
