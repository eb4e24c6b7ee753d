//! Puts the sources on top of each other and reads the result into [`Config`].

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::time::Duration;

use super::admin_server;
use super::conflicts;
use super::effective::{self, EffectiveValue};
use super::error::ConfigError;
use super::given::{ConfigSources, GivenValue, GivenValues};
use super::ignored_keys::IgnoredKeys;
use super::keys::{
    self, ClientSection, ConfigKey, KEY_PREFIX, PROXY_KEYS, PropertyEffect, SetValue, Setting,
};
use super::openid_connect::{KAFKA_OAUTHBEARER, OpenIdFault};
use super::provenance::{Provenance, ValueSource};
use super::security::{self, SecurityProperties, SecurityProtocol, SecurityRole};
use super::security_fault::SecurityFault;
use super::server_ssl::SslFault;
use super::state_topic;
use super::value::{self, ParsedValue};
use super::{Config, LogConfig};

/// A sound configuration, and what an operator should know about it.
#[derive(Clone, Debug)]
pub struct LoadedConfig {
    /// The configuration.
    pub config: Config,
    /// Settings that have no effect, one line each.
    pub notices: Vec<String>,
    /// Where every value came from.
    pub provenance: Provenance,
    /// The values that hold.
    pub effective: Vec<EffectiveValue>,
}

/// What is wrong with the sources, and what else there is to say about them.
#[derive(Clone, Debug)]
pub struct ConfigFailure {
    /// Everything that is wrong, not only what was found first.
    pub errors: Vec<ConfigError>,
    /// As in [`LoadedConfig`].
    pub notices: Vec<String>,
    /// How to log it, as far as that is sound.
    pub log: LogConfig,
    /// The values that were given or hold by default, the wrong ones among them.
    pub effective: Vec<EffectiveValue>,
}

/// Reads everything.
///
/// # Errors
/// [`ConfigFailure`]: everything that is wrong with the sources.
pub fn load(sources: &ConfigSources) -> Result<LoadedConfig, Box<ConfigFailure>> {
    let mut loader = Loader::new(sources, GivenValues::of(sources));
    let provenance = loader.provenance();
    loader.ignore_reporter_unless_enabled();
    loader.read_settings();
    loader.read_later_keys();
    loader.read_properties(&provenance);
    loader.refuse_unread();
    loader.check_conflicts(&provenance);
    loader.finish(provenance)
}

/// What there is to say when the arguments are wrong: which keys the flags would have set is not
/// known, so no key is looked at but those of the log.
pub fn failure(sources: &ConfigSources) -> Box<ConfigFailure> {
    let mut loader = Loader::new(sources, GivenValues::without_file(sources));
    loader.unread.retain(|key, _| key.starts_with("log."));
    let log = loader.read_log_config();
    Box::new(ConfigFailure {
        errors: loader.errors,
        notices: loader.notices,
        log,
        effective: Vec::new(),
    })
}

/// The values that were given, and what has come of them so far.
struct Loader {
    config: Config,
    /// The strongest value of each key that was given and not read yet.
    unread: BTreeMap<String, GivenValue>,
    /// Whether it is a fault that none are given; they may be in a file that could not be read.
    needs_brokers: bool,
    /// Whether a running instance is asked, and none is started.
    is_healthcheck: bool,
    effective: Vec<EffectiveValue>,
    errors: Vec<ConfigError>,
    notices: Vec<String>,
}

impl Loader {
    fn new(sources: &ConfigSources, given: GivenValues) -> Self {
        let ConfigSources {
            dev, brokerless, ..
        } = *sources;
        Self {
            effective: effective::values(&given, dev),
            config: match dev {
                true => Config::dev(),
                false => Config::default(),
            },
            unread: given.values,
            needs_brokers: !(dev || brokerless || given.is_incomplete),
            is_healthcheck: brokerless,
            errors: given.errors,
            notices: given.notices,
        }
    }

    fn provenance(&self) -> Provenance {
        let sources = self.unread.iter();
        Provenance::new(sources.map(|(key, value)| (key.clone(), value.source.clone())))
    }

    /// How to log, as far as it is sound.
    fn read_log_config(&mut self) -> LogConfig {
        for row in PROXY_KEYS {
            if let (Some(setting), Some(value)) = (row.setting(), self.unread.remove(row.name)) {
                let _ = (setting.set)(&mut self.config, value.text.reveal());
            }
        }
        self.config.log.clone()
    }

    /// Without the metrics reporter nothing that is said of it has an effect.
    fn ignore_reporter_unless_enabled(&mut self) {
        let switch = self.unread.get(keys::REPORTER_SWITCH);
        if switch.is_some_and(|value| value::boolean(value.text.reveal()) == Ok(true)) {
            return;
        }
        let reason = format!("{KEY_PREFIX}{} is not true", keys::REPORTER_SWITCH);
        let mut ignored = IgnoredKeys::default();
        self.unread.retain(|key, value| {
            let is_of_reporter = key.starts_with(keys::REPORTER_SECTION);
            let setting = keys::find(key).and_then(ConfigKey::setting);
            let default = setting.and_then(|setting| setting.default);
            if is_of_reporter && default != Some(value.text.reveal().trim()) {
                ignored.add("", &reason, key, &value.source);
            }
            !is_of_reporter
        });
        self.notices.extend(ignored.into_notices());
    }

    /// Reads the settings of the proxy.
    fn read_settings(&mut self) {
        for row in PROXY_KEYS {
            let Some(setting) = row.setting() else {
                continue;
            };
            match self.unread.remove(row.name) {
                Some(value) if row.replaced_by_dev && self.config.dev => {
                    self.refuse_brokers_beside_dev(value.source);
                }
                Some(value) => {
                    let parsed = self.check_unit(setting, &value, row);
                    let parsed =
                        parsed.and_then(|()| (setting.set)(&mut self.config, value.text.reveal()));
                    self.check(row, row.name.to_owned(), parsed, value);
                }
                None if row.replaced_by_dev && self.needs_brokers => {
                    self.errors.push(ConfigError::NoBrokers);
                }
                None => {}
            }
        }
    }

    /// `--shutdown-grace 20` is hardly meant as 20 ms; elsewhere a bare number is that, as in a
    /// HOCON file.
    fn check_unit(
        &mut self,
        setting: &Setting,
        value: &GivenValue,
        row: &ConfigKey,
    ) -> ParsedValue<()> {
        let text = value.text.reveal();
        if !setting.is_duration() || !value::is_duration_without_unit(text) {
            return Ok(());
        }
        if matches!(value.source, ValueSource::Flag(_)) && !value.is_from_file {
            let number = text.trim();
            return Err(format!(
                "a duration with its unit, such as {number}s or {number}ms"
            ));
        }
        let second = Duration::from_secs(1);
        let is_long = |text| value::duration(text).is_ok_and(|duration| duration >= second);
        if setting.default.is_some_and(is_long) && !is_long(text) {
            self.notices.push(format!(
                "{KEY_PREFIX}{} (from {}): {} is in milliseconds; write a unit, such as 20s",
                row.name,
                value.source,
                row.shown(&value.text, value.is_from_file)
            ));
        }
        Ok(())
    }

    /// A flag beside `--dev` is a contradiction; a file or a variable may be there for other runs.
    fn refuse_brokers_beside_dev(&mut self, source: ValueSource) {
        match source {
            ValueSource::Flag(_) | ValueSource::Define(_) => {
                self.errors.push(ConfigError::BrokersBesideDev(source));
            }
            ValueSource::File(_) | ValueSource::Variable(_) => self
                .notices
                .push(format!("{source} is ignored: --dev brings its own broker")),
        }
    }

    /// Looks at the keys of later versions: those that ask for nothing but what happens anyway may
    /// be there.
    fn read_later_keys(&mut self) {
        for (key, value) in std::mem::take(&mut self.unread) {
            match keys::find_later(&key) {
                None => {
                    self.unread.insert(key, value);
                }
                Some(later) if later.is_inert(value.text.reveal()) => {}
                Some(_) => self.refuse(&key, &value),
            }
        }
    }

    /// Reads the Kafka client properties, section by section; unknown ones stay unread.
    fn read_properties(&mut self, provenance: &Provenance) {
        let mut ignored = IgnoredKeys::default();
        let protocols = ClientSection::ALL.map(|section| self.security_protocol(section));
        for (section, protocol) in ClientSection::ALL.into_iter().zip(protocols) {
            if section == ClientSection::MetricsReporter {
                begin_reporter(&mut self.config);
            }
            let given: Vec<String> = self
                .unread
                .keys()
                .filter(|key| key.starts_with(section.prefix()))
                .cloned()
                .collect();
            for key in given {
                let name = &key[section.prefix().len()..];
                let Some(row) = keys::find_property(name) else {
                    continue;
                };
                let value = self.unread.remove(&key).expect("just listed");
                let text = value.text.reveal().trim();
                match security::role_of(name, protocol) {
                    SecurityRole::Acts => {}
                    // As it is by default, it asks for nothing.
                    _ if row
                        .property()
                        .is_some_and(|(_, default, _)| default == text) =>
                    {
                        continue;
                    }
                    SecurityRole::Ignored(reason) => {
                        ignored.add(name, reason, &key, &value.source);
                        continue;
                    }
                    // Perhaps a slip, which is named.
                    SecurityRole::Missed if row.is_section() => {}
                    SecurityRole::Missed if text.is_empty() => continue,
                    SecurityRole::Missed => {
                        let key = format!("{KEY_PREFIX}{key} (from {})", value.source);
                        self.errors
                            .push(ConfigError::Conflict(format!("{key}: {WITHOUT_PROTOCOL}")));
                        continue;
                    }
                }
                let own_key = row.own_key().map(|key| provenance.of_key(key));
                let parsed = match section.effect_of(&row.handling) {
                    // Two names of one thing: the stronger source, whichever it gives.
                    PropertyEffect::Set(set)
                        if own_key.is_some_and(|own| own.outranks(&value.source)) =>
                    {
                        set(&mut Config::default(), text)
                    }
                    PropertyEffect::Set(set) => set(&mut self.config, text),
                    PropertyEffect::SetOfReporter(set) => {
                        set_of_reporter(&mut self.config, set, text)
                    }
                    PropertyEffect::Override(set) => section
                        .overrides(&mut self.config)
                        .map_or(Ok(()), |requests| set(requests, text)),
                    PropertyEffect::MustNotDiffer(set) => self.check_same(name, set, text),
                    PropertyEffect::Check(check) => check(text),
                    PropertyEffect::Refuse if text.is_empty() => continue,
                    PropertyEffect::Refuse => {
                        self.refuse(&key, &value);
                        continue;
                    }
                    PropertyEffect::None(reason) => {
                        ignored.add(name, reason, &key, &value.source);
                        continue;
                    }
                };
                self.check(row, key, parsed, value);
            }
        }
        self.notices.extend(ignored.into_notices());
    }

    /// What all clients share has one value.
    fn check_same(&self, name: &str, set: SetValue, text: &str) -> ParsedValue<()> {
        let mut other = self.config.clone();
        set(&mut other, text)?;
        let is_same = format!("{other:?}") == format!("{:?}", self.config);
        // Secrets all look alike.
        match is_same && other.security == self.config.security {
            true => Ok(()),
            false => Err(format!(
                "the value of {KEY_PREFIX}{}, since all clients share their connections",
                ClientSection::AllClients.key_of(name)
            )),
        }
    }

    /// What the section says of it, or all clients; unset, or not to be read, is `None`.
    fn security_protocol(&self, section: ClientSection) -> Option<SecurityProtocol> {
        let given = [section, ClientSection::AllClients]
            .into_iter()
            .find_map(|section| self.unread.get(&section.key_of(security::PROTOCOL)));
        SecurityProtocol::parse(given?.text.reveal().trim()).ok()
    }

    /// Refuses a key of a later version, or what was meant as one of this.
    fn refuse(&mut self, key: &str, value: &GivenValue) {
        let (meant, key) = (keys::slip_in_section(key), key.to_owned());
        let from = value.source.clone();
        self.errors.push(match meant {
            Some(known) => ConfigError::UnknownKey {
                key,
                from,
                hint: did_you_mean(&known),
            },
            None => ConfigError::UnsupportedKey { key, from },
        });
    }

    /// Reports a value that its key does not accept.
    fn check(&mut self, row: &ConfigKey, key: String, parsed: ParsedValue<()>, value: GivenValue) {
        if let Err(accepted) = parsed {
            self.errors.push(ConfigError::InvalidValue {
                key,
                from: value.source,
                shown: row.shown(&value.text, value.is_from_file),
                accepted,
            });
        }
    }

    /// Refuses what no row of the table has read.
    fn refuse_unread(&mut self) {
        for (key, GivenValue { source: from, .. }) in std::mem::take(&mut self.unread) {
            let hint =
                keys::nearest_key(&key).map_or_else(String::new, |known| did_you_mean(&known));
            self.errors
                .push(ConfigError::UnknownKey { key, from, hint });
        }
    }

    fn check_conflicts(&mut self, provenance: &Provenance) {
        let heartbeat = conflicts::heartbeat_conflict(&self.config, provenance);
        self.errors.extend(heartbeat.map(ConfigError::Conflict));
        match conflicts::raise_delivery_timeout(&mut self.config, provenance) {
            Ok(notice) => self.notices.extend(notice),
            Err(conflict) => self.errors.push(ConfigError::Conflict(conflict)),
        }
        self.check_basic_auth(provenance);
        self.resolve_openid_connect(provenance);
        self.resolve_security(provenance);
        self.check_kafka_oauthbearer(provenance);
        self.resolve_ssl(provenance);
        self.check_admin(provenance);
        self.check_dynamic_limits(provenance);
        self.resolve_reporter_security(provenance);
    }

    fn check_basic_auth(&mut self, provenance: &Provenance) {
        if self.is_healthcheck || self.has_unread(|key| key.starts_with("server.basic-auth.")) {
            return;
        }
        let ignored = self.config.server.basic_auth.ignored();
        self.report_turned_off(ignored, "server.basic-auth.enabled", provenance);
        if let Some((key, fault)) = self.config.server.basic_auth.fault() {
            self.add_conflict(&provenance.of_key(key), fault);
        }
    }

    /// Reads the trust store. A `healthcheck` has no use for it.
    fn resolve_openid_connect(&mut self, provenance: &Provenance) {
        let is_unread = |key: &str| key.starts_with("server.openid-connect.");
        if self.is_healthcheck || self.has_unread(is_unread) {
            return;
        }
        let ignored = self.config.server.openid_connect.ignored();
        self.report_turned_off(ignored, "server.openid-connect.enabled", provenance);
        let openid_connect = &mut self.config.server.openid_connect;
        if let Some(warning) = openid_connect.warning() {
            let key = provenance.of_key("server.openid-connect.well-known-url");
            self.notices.push(format!("{key}: {warning}"));
        }
        if let Err(OpenIdFault { key, fault }) = openid_connect.resolve() {
            self.add_conflict(&provenance.of_key(key), &fault);
        }
    }

    /// Clients' tokens are presented by SASL.
    fn check_kafka_oauthbearer(&mut self, provenance: &Provenance) {
        let is_security = |key: &str| is_security_of(ClientSection::AllClients, key);
        let is_known = !self.is_healthcheck && !self.has_unread(is_security);
        if is_known && self.config.server.openid_connect.presents_tokens() {
            let security = &self.config.security;
            if self.config.dev || !security.protocol.has_sasl() {
                let protocol =
                    provenance.of_property(ClientSection::AllClients, security::PROTOCOL, None);
                let without = match self.config.dev {
                    true => "--dev brings its own broker, which has no SASL".to_owned(),
                    false => format!("{protocol} is without SASL"),
                };
                self.add_conflict(&provenance.of_key(KAFKA_OAUTHBEARER), &without);
            }
        }
    }

    /// Reports keys that have no effect, since that switch is off.
    fn report_turned_off(
        &mut self,
        keys: Vec<&'static str>,
        switch: &str,
        provenance: &Provenance,
    ) {
        let mut ignored = IgnoredKeys::default();
        for key in keys {
            if let Some(from) = &provenance.of_key(key).from {
                let reason = format!("{KEY_PREFIX}{switch} is not true");
                ignored.add("", &reason, key, from);
            }
        }
        self.notices.extend(ignored.into_notices());
    }

    /// Reads the stores of TLS towards clients, as [`resolve_security`](Self::resolve_security). A
    /// `healthcheck` has no use for them: what they were at the start counts.
    fn resolve_ssl(&mut self, provenance: &Provenance) {
        if self.is_healthcheck || self.has_unread(|key| key.starts_with("server.ssl.")) {
            return;
        }
        let ignored = self.config.server.ssl.ignored();
        self.report_turned_off(ignored, "server.ssl.enabled", provenance);
        let server = &self.config.server;
        let plain = SocketAddr::new(server.bind_interface, server.port);
        match server.ssl.resolve(plain) {
            Ok(tls) => self.config.server.tls = tls,
            Err(SslFault { key, fault }) => self.add_conflict(&provenance.of_key(key), &fault),
        }
    }

    fn check_admin(&mut self, provenance: &Provenance) {
        if self.is_healthcheck || self.has_unread(|key| key.starts_with("server.admin.")) {
            return;
        }
        if let Some(fault) = conflicts::admin_port_fault(&self.config.server) {
            self.add_conflict(&provenance.of_key(admin_server::PORT), &fault);
        }
        if !self.config.server.admin.enabled {
            let ignored = vec![admin_server::BIND_INTERFACE, admin_server::PORT];
            self.report_turned_off(ignored, "server.admin.enabled", provenance);
        }
    }

    fn check_dynamic_limits(&mut self, provenance: &Provenance) {
        if self.is_healthcheck
            || self.has_unread(|key| key.starts_with(state_topic::DYNAMIC_PREFIX))
        {
            return;
        }
        if !self.config.dynamic_limits.enabled {
            let ignored = state_topic::DYNAMIC_TOPIC_KEYS.to_vec();
            self.report_turned_off(ignored, state_topic::DYNAMIC_SWITCH, provenance);
        } else if let Some(fault) = conflicts::state_topic_fault(&self.config) {
            let key = provenance.of_key(state_topic::DYNAMIC_TOPIC_KEYS[0]);
            self.add_conflict(&key, &fault);
        }
    }

    /// Reads the stores, unless something is wrong with what says where they are.
    fn resolve_security(&mut self, provenance: &Provenance) {
        if self.has_unread(|key| is_security_of(ClientSection::AllClients, key)) {
            return;
        }
        if self.config.dev {
            if self.config.security != SecurityProperties::default() {
                let notice = "security.protocol is ignored: --dev brings its own broker";
                self.notices.push(notice.to_owned());
            }
            return;
        }
        match self.config.security.resolve() {
            Ok(security) => self.config.client.security = security,
            Err(SecurityFault { property, fault }) => {
                let key = provenance.of_property(ClientSection::AllClients, property, None);
                self.add_conflict(&key, &fault);
            }
        }
    }

    /// As [`resolve_security`](Self::resolve_security), for the connections of the metrics reporter.
    fn resolve_reporter_security(&mut self, provenance: &Provenance) {
        let sections = [ClientSection::AllClients, ClientSection::MetricsReporter];
        if self.has_unread(|key| sections.iter().any(|section| is_security_of(*section, key))) {
            return;
        }
        let Config {
            dev,
            security,
            client,
            metrics_reporter: reporter,
            ..
        } = &mut self.config;
        let is_beside_dev = *dev && reporter.bootstrap_servers.is_none();
        if !reporter.enabled || is_beside_dev {
            return;
        }
        if !*dev && reporter.security == *security {
            reporter.client.security = client.security.clone();
            return;
        }
        match reporter.security.resolve() {
            Ok(security) => reporter.client.security = security,
            Err(SecurityFault { property, fault }) => {
                let section = ClientSection::MetricsReporter;
                let key = provenance.of_property(section, property, None);
                self.add_conflict(&key, &fault);
            }
        }
    }

    /// Whether the value of such a key could not be read.
    fn has_unread(&self, is_such: impl Fn(&str) -> bool) -> bool {
        self.errors.iter().any(|error| match error {
            ConfigError::InvalidValue { key, .. } | ConfigError::NoValueInFile { key, .. } => {
                is_such(key)
            }
            _ => false,
        })
    }

    fn add_conflict(&mut self, key: &dyn Display, fault: &str) {
        let conflict = format!("{key}: {fault}");
        self.errors.push(ConfigError::Conflict(conflict));
    }

    fn finish(self, provenance: Provenance) -> Result<LoadedConfig, Box<ConfigFailure>> {
        if !self.errors.is_empty() {
            return Err(Box::new(ConfigFailure {
                errors: self.errors,
                notices: self.notices,
                log: self.config.log,
                effective: self.effective,
            }));
        }
        Ok(LoadedConfig {
            config: self.config,
            notices: self.notices,
            provenance,
            effective: self.effective,
        })
    }
}

/// Whether it is the key of a property of security in that section.
fn is_security_of(section: ClientSection, key: &str) -> bool {
    let is_of_security = |property: &str| {
        let mut prefixes = security::PREFIXES.iter();
        prefixes.any(|prefix| property.starts_with(prefix))
    };
    matches!(ClientSection::split(key), Some((of, property)) if of == section && is_of_security(property))
}

/// What is said of all clients holds for the metrics reporter as well, until it is said otherwise.
fn begin_reporter(config: &mut Config) {
    config.metrics_reporter.client = config.client.clone();
    config.metrics_reporter.security = config.security.clone();
    config.metrics_reporter.producer = config.producer.clone();
}

/// Sets a property of the metrics reporter by what sets it for the other clients.
fn set_of_reporter(config: &mut Config, set: SetValue, text: &str) -> ParsedValue<()> {
    swap_reporter(config);
    let parsed = set(config, text);
    swap_reporter(config);
    parsed
}

fn swap_reporter(config: &mut Config) {
    let Config {
        client,
        security,
        producer,
        metrics_reporter,
        ..
    } = config;
    metrics_reporter.swap(client, security, producer);
}

fn did_you_mean(known: &str) -> String {
    format!("; did you mean {KEY_PREFIX}{known}?")
}

/// Whoever gives credentials does not mean to connect without them.
const WITHOUT_PROTOCOL: &str = "security.protocol is not set, so it would have no effect; \
                                set SASL_SSL, SASL_PLAINTEXT, SSL or PLAINTEXT";

#[cfg(test)]
mod tests;
