//! The values that the sources give to keys, put on top of each other but not yet read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::error::ConfigError;
use super::file::{self, FileContent};
use super::file_values;
use super::keys::{self, KEY_PREFIX};
use super::provenance::ValueSource;
use secret::Secret;

/// Everything that was given to the program, not yet read.
#[derive(Clone, Debug, Default)]
pub struct ConfigSources {
    /// `--dev`
    pub dev: bool,
    /// `--config`
    pub file: Option<PathBuf>,
    /// The file that is read when neither `--config` nor `WSPROXY_CONFIG` names one.
    pub default_file: Option<PathBuf>,
    /// The flags that set keys.
    pub flags: Vec<FlagValue>,
    /// `-D` arguments, `key=value`.
    pub defines: Vec<String>,
    /// The environment: names and values.
    pub variables: Vec<(String, String)>,
    /// What could not even be read.
    pub errors: Vec<ConfigError>,
    /// Whether brokers need not be named: nothing is asked of them.
    pub brokerless: bool,
}

impl ConfigSources {
    /// The config file, if there is one.
    fn config_file(&self) -> Option<&Path> {
        let by_variable = || {
            let variables = self.variables.iter();
            let mut named = variables.filter(|(name, _)| name == file::FILE_VARIABLE);
            named.next().map(|(_, path)| Path::new(path))
        };
        let named = self.file.as_deref().or_else(by_variable);
        named.or(self.default_file.as_deref())
    }
}

/// A flag with the key that it sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlagValue {
    /// The key, without `kafka.ws.proxy.`.
    pub key: String,
    /// The flag, with its dashes.
    pub flag: String,
    /// The value, as it was written.
    pub value: String,
}

/// The strongest value of each key that was given.
#[derive(Debug, Default)]
pub(super) struct GivenValues {
    pub(super) values: BTreeMap<String, GivenValue>,
    /// Whether a source could not be read.
    pub(super) is_incomplete: bool,
    pub(super) errors: Vec<ConfigError>,
    pub(super) notices: Vec<String>,
}

/// A value and where it came from.
#[derive(Clone, Debug)]
pub(super) struct GivenValue {
    pub(super) text: Secret,
    pub(super) source: ValueSource,
    /// Whether some of it came from a file of its own, as secrets do.
    pub(super) is_from_file: bool,
}

impl GivenValues {
    /// What all sources give.
    pub(super) fn of(sources: &ConfigSources) -> Self {
        let mut given = Self {
            errors: sources.errors.clone(),
            ..Self::default()
        };
        if let Some(path) = sources.config_file() {
            match file::read(path, &sources.variables) {
                Ok(content) => given.take_file(path, content),
                Err(error) => {
                    given.is_incomplete = true;
                    given.errors.push(error);
                }
            }
        }
        given.take_environment(&sources.variables);
        given.take_defines(&sources.defines);
        given.take_flags(&sources.flags);
        given.resolve_files();
        given
    }

    /// What variables and flags give.
    pub(super) fn without_file(sources: &ConfigSources) -> Self {
        let mut given = Self {
            errors: sources.errors.clone(),
            ..Self::default()
        };
        given.take_environment(&sources.variables);
        given.take_flags(&sources.flags);
        given
    }

    fn take_file(&mut self, path: &Path, content: FileContent) {
        for value in content.values {
            self.take(&value.key, &value.text, ValueSource::File(value.place));
        }
        for stray in content.strays {
            let (key, from) = (stray.key, ValueSource::File(stray.place));
            self.errors.push(ConfigError::OutsidePrefix { key, from });
        }
        for place in content.class_path_includes {
            self.notices.push(format!(
                "{place}: this include is ignored: there is no class path here"
            ));
        }
        if !content.sections.is_empty() {
            self.notices.push(format!(
                "{}: {} ignored: only {} is read here",
                path.display(),
                match &content.sections[..] {
                    [section] => format!("{section} is"),
                    sections => format!("{} are", sections.join(", ")),
                },
                KEY_PREFIX.trim_end_matches('.')
            ));
        }
    }

    fn take_environment(&mut self, variables: &[(String, String)]) {
        for (variable, value) in variables {
            if !variable.starts_with("WSPROXY_") || variable == file::FILE_VARIABLE {
                continue;
            }
            match keys::key_of_variable(variable) {
                Some(key) => self.take(&key, value, ValueSource::Variable(variable.clone())),
                None => {
                    let hint = keys::nearest_variable(variable)
                        .map_or_else(String::new, |known| format!("; did you mean {known}?"));
                    self.notices
                        .push(format!("variable {variable} is not known here{hint}"));
                }
            }
        }
    }

    fn take_defines(&mut self, defines: &[String]) {
        for define in defines {
            let Some((key, value)) = define.split_once('=') else {
                let shown = without_equals_sign(define);
                self.errors.push(ConfigError::MalformedDefine(shown));
                continue;
            };
            let key = key.trim();
            let key = key.strip_prefix(KEY_PREFIX).unwrap_or(key).replace('"', "");
            if key.is_empty() {
                let nameless = "=… names no key".to_owned();
                self.errors.push(ConfigError::MalformedDefine(nameless));
                continue;
            }
            let value = value.trim();
            match file::parse_define(&key, value) {
                Some(values) => values.into_iter().for_each(|(key, value)| {
                    self.take(&key, &value, ValueSource::Define(key.clone()));
                }),
                None => self.take(&key, value, ValueSource::Define(key.clone())),
            }
        }
    }

    fn take_flags(&mut self, flags: &[FlagValue]) {
        for FlagValue { key, flag, value } in flags {
            self.take(key, value, ValueSource::Flag(flag.clone()));
        }
    }

    /// Keeps the value unless a stronger source has given one.
    fn take(&mut self, key: &str, value: &str, source: ValueSource) {
        let key = keys::without_alias(key);
        let overridden = self
            .values
            .get(&key)
            .is_some_and(|known| known.source.rank() > source.rank());
        if !overridden {
            let value = GivenValue {
                text: Secret::new(value),
                source,
                is_from_file: false,
            };
            self.values.insert(key, value);
        }
    }

    /// Puts in what values name files for; `@/path` in a flag is short for that.
    fn resolve_files(&mut self) {
        for (key, mut value) in std::mem::take(&mut self.values) {
            let text = value.text.reveal();
            let is_argument = value.source.is_argument();
            // What has an `@` may be a URL with a password.
            let is_secret = keys::find(&key).is_some_and(|row| row.secret) || text.contains('@');
            let resolved = match text.strip_prefix('@').filter(|path| path.starts_with('/')) {
                Some(path) if is_argument => file_values::content_of(path).map(Some),
                _ => file_values::resolve(text),
            };
            match resolved {
                Ok(Some(text)) => {
                    value.text = Secret::new(text);
                    value.is_from_file = true;
                }
                Ok(None) if is_argument && !text.is_empty() && is_secret => {
                    self.notices.push(format!(
                        "{KEY_PREFIX}{key} (from {}): lists of processes show it; name a file that \
                         holds it, as in @/path/of/file",
                        value.source
                    ));
                }
                Ok(None) => {}
                Err(fault) => {
                    self.is_incomplete = true;
                    let from = value.source;
                    self.errors
                        .push(ConfigError::NoValueInFile { key, from, fault });
                    continue;
                }
            }
            self.values.insert(key, value);
        }
    }
}

/// What is shown of a `-D` argument that has no `=`: nothing but a known key, since all of it may
/// be a secret that was cut off its key.
fn without_equals_sign(define: &str) -> String {
    let define = define.trim();
    let define = define.strip_prefix(KEY_PREFIX).unwrap_or(define);
    let is_of_key = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    let end = define.find(|c| !is_of_key(c)).unwrap_or(define.len());
    match &define[..end] {
        key if keys::is_known(key) => format!("{key} has no \"=\""),
        _ => "has no \"=\"".to_owned(),
    }
}
