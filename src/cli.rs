//! The command line. Every key of the configuration has a flag, made from the table of keys.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::config::file::{DEFAULT_FILE, FILE_VARIABLE};
use crate::config::keys::{ConfigKey, PROXY_KEYS, Setting};
use crate::config::{self, ConfigError, ConfigFailure, ConfigSources, FlagValue};

/// Why the arguments lead to no start.
#[derive(Debug)]
pub enum EarlyExit {
    /// Help or version was asked for.
    Page(clap::Error),
    /// What is wrong with the arguments, and what is known of the settings in spite of it.
    Failure(Box<ConfigFailure>),
}

/// What the program was started for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProgramTask {
    /// To serve.
    #[default]
    Serve,
    /// `check-config`: to say what the settings come to.
    CheckConfig,
    /// `healthcheck`: to ask an instance that serves.
    AskHealth,
    /// `reference-config`: to print all keys with their defaults.
    PrintReference,
}

impl ProgramTask {
    fn named(word: &str) -> Option<Self> {
        Some(match word {
            "check-config" => ProgramTask::CheckConfig,
            "healthcheck" => ProgramTask::AskHealth,
            // Not in the help: for whoever changes the table of keys.
            "reference-config" => ProgramTask::PrintReference,
            _ => return None,
        })
    }
}

/// What the program was started for, and everything that it was given.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// What to do.
    pub task: ProgramTask,
    /// With which settings.
    pub sources: ConfigSources,
}

/// Reads the arguments, with the environment beside them.
///
/// # Errors
/// [`EarlyExit`] when there is nothing to start: a page was asked for, or arguments are wrong.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Invocation, EarlyExit> {
    let (variables, errors) = utf8_variables(variables);
    let (arguments, not_utf8) = utf8_arguments(arguments);
    let matches = match not_utf8.is_empty() {
        true => match_arguments(&arguments),
        false => Err(Misuse::Errors(not_utf8)),
    };
    let matches = match matches {
        Ok(matches) => matches,
        Err(Misuse::Page(page)) => return Err(EarlyExit::Page(page)),
        Err(Misuse::Errors(misuse)) => {
            return Err(EarlyExit::Failure(config::failure(&ConfigSources {
                flags: log_flags(&arguments),
                variables,
                errors: [misuse, errors].concat(),
                ..ConfigSources::default()
            })));
        }
    };
    let flags = flags()
        .filter_map(|(row, flag)| {
            let value = matches.get_one::<String>(row.name)?;
            Some(FlagValue {
                key: row.name.to_owned(),
                flag: format!("--{flag}"),
                value: value.clone(),
            })
        })
        .collect();
    let task = values_of(&matches, "command").find_map(|word| ProgramTask::named(word));
    let task = task.unwrap_or_default();
    let sources = ConfigSources {
        dev: matches.get_flag("dev"),
        file: matches.get_one::<PathBuf>("config").cloned(),
        default_file: config::file::default_file(),
        flags,
        defines: values_of(&matches, "define").cloned().collect(),
        variables,
        errors,
        brokerless: task == ProgramTask::AskHealth,
    };
    Ok(Invocation { task, sources })
}

/// Why the arguments set nothing.
enum Misuse {
    Page(clap::Error),
    Errors(Vec<ConfigError>),
}

fn match_arguments(arguments: &[String]) -> Result<ArgMatches, Misuse> {
    let joined = join_negative_values(arguments);
    let matches = command().try_get_matches_from(joined).map_err(misuse)?;
    let errors = unexpected_words(&matches, arguments);
    match errors.is_empty() {
        true => Ok(matches),
        false => Err(Misuse::Errors(errors)),
    }
}

/// The flags of the log, which say how to report that something is wrong with others; clap gives
/// none then.
fn log_flags(arguments: &[String]) -> Vec<FlagValue> {
    let of_log = flags().filter(|(row, _)| row.name.starts_with("log."));
    let given = of_log.filter_map(|(row, flag)| {
        let flag = format!("--{flag}");
        let value = arguments.iter().enumerate().find_map(|(n, argument)| {
            match argument.strip_prefix(&*flag)? {
                "" => arguments.get(n + 1).cloned(),
                rest => rest.strip_prefix('=').map(str::to_owned),
            }
        })?;
        let key = row.name.to_owned();
        Some(FlagValue { key, flag, value })
    });
    given.collect()
}

/// The words that are no flags, but for the first one that says what to do.
fn unexpected_words(matches: &ArgMatches, arguments: &[String]) -> Vec<ConfigError> {
    let mut words: Vec<_> = values_of(matches, "command").collect();
    if let Some(task) = words
        .iter()
        .position(|word| ProgramTask::named(word).is_some())
    {
        words.remove(task);
    }
    let unexpected = words
        .into_iter()
        .map(|word| ConfigError::Usage(format!("unexpected argument {}", shown(word, arguments))));
    unexpected.collect()
}

/// A word that is no flag and no flag's value, in quotes where it cannot be the rest of one: after
/// other arguments it may be a secret that was cut off by a space.
fn shown(word: &str, arguments: &[String]) -> String {
    let place = arguments.iter().position(|argument| argument == word);
    match place {
        Some(n) if n == 1 || arguments[n - 1] == "--dev" => format!("'{}'", word.escape_debug()),
        Some(n) => format!("{n} (not shown)"),
        None => "(not shown)".to_owned(),
    }
}

/// The arguments as UTF-8, and which of them are not.
fn utf8_arguments(
    arguments: impl IntoIterator<Item = OsString>,
) -> (Vec<String>, Vec<ConfigError>) {
    let mut texts: Vec<String> = Vec::new();
    let mut errors = Vec::new();
    for (number, argument) in arguments.into_iter().enumerate() {
        let text = argument.to_string_lossy().into_owned();
        if argument.to_str().is_none() && number > 0 {
            // Its value is not shown: it may be a secret.
            let owner = match text.split_once('=') {
                Some((name, _)) => format!(" ({name}=…)"),
                None if text.starts_with('-') => format!(" ({text})"),
                None => texts
                    .last()
                    .filter(|before| before.starts_with('-') && !before.contains('='))
                    .map_or_else(String::new, |flag| format!(" (after {flag})")),
            };
            let owner = owner.escape_debug();
            errors.push(ConfigError::NotUtf8(format!("argument {number}{owner}")));
        }
        texts.push(text);
    }
    (texts, errors)
}

/// The variables as UTF-8; those of the proxy that are not are errors.
fn utf8_variables(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> (Vec<(String, String)>, Vec<ConfigError>) {
    let (mut texts, mut errors) = (Vec::new(), Vec::new());
    for (name, value) in variables {
        let name = name.to_string_lossy().into_owned();
        match value.into_string() {
            Ok(value) => texts.push((name, value)),
            Err(_) if name.starts_with("WSPROXY_") => {
                errors.push(ConfigError::NotUtf8(format!("variable {name}")));
            }
            Err(_) => {}
        }
    }
    (texts, errors)
}

/// Joins a negative number to the flag before it: the error of that flag's key names what is
/// accepted, and clap would take `-5s` for a flag of its own.
fn join_negative_values(arguments: &[String]) -> Vec<String> {
    let mut joined: Vec<String> = Vec::new();
    for argument in arguments {
        let negative = argument
            .strip_prefix('-')
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit() || c == '.'));
        let takes_value = |argument: &&mut String| {
            let name = argument.strip_prefix("--");
            name.is_some_and(|name| flags().any(|(_, flag)| flag == name))
        };
        match joined.last_mut().filter(takes_value) {
            Some(flag) if negative => {
                flag.push('=');
                flag.push_str(argument);
            }
            _ => joined.push(argument.clone()),
        }
    }
    joined
}

/// clap's page, or the first line of its error: the others repeat `--help`.
fn misuse(error: clap::Error) -> Misuse {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        return Misuse::Page(error);
    }
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    let line = line.strip_prefix("error: ").unwrap_or(line);
    let suggestion = match error.get(ContextKind::SuggestedArg) {
        Some(ContextValue::String(flag)) => format!(" (did you mean {flag}?)"),
        _ => String::new(),
    };
    Misuse::Errors(vec![ConfigError::Usage(format!("{line}{suggestion}"))])
}

/// Every key that has a flag, with it; those of later versions too.
fn flags() -> impl Iterator<Item = (&'static ConfigKey, String)> {
    PROXY_KEYS.iter().filter_map(|row| Some((row, row.flag()?)))
}

fn values_of<'a>(matches: &'a ArgMatches, id: &str) -> impl Iterator<Item = &'a String> {
    matches.get_many::<String>(id).into_iter().flatten()
}

fn command() -> Command {
    let dev = Arg::new("dev").long("dev").action(ArgAction::SetTrue).help(
        "Serve with a built-in in-memory broker: nothing else to install, data is gone on exit",
    );
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(clap::value_parser!(PathBuf))
        .help(format!(
            "Config file, in HOCON [env: {FILE_VARIABLE}] [default: {DEFAULT_FILE}, if it exists]"
        ));
    let define = Arg::new("define")
        .short('D')
        .value_name("KEY=VALUE")
        .action(ArgAction::Append)
        .help(
            "Set any key, with or without kafka.ws.proxy. in front, such as \
             kafka-client.properties.linger.ms=5; lists and objects are written as in HOCON",
        );
    let (settings, unsupported): (Vec<_>, Vec<_>) =
        flags().partition(|(row, _)| row.setting().is_some());
    Command::new("kafka-websocket-proxy")
        .version(env!("CARGO_PKG_VERSION"))
        .about(env!("CARGO_PKG_DESCRIPTION"))
        .after_help(
            "A flag wins over its environment variable, that over the config file, and that over \
             the default.",
        )
        .arg(dev)
        .arg(config)
        .args(settings.into_iter().filter_map(|(row, flag)| {
            let setting = row.setting()?;
            Some(setting_argument(row, flag, setting))
        }))
        .arg(define)
        .args(
            unsupported
                .into_iter()
                .map(|(row, flag)| unsupported_argument(row, flag)),
        )
        .arg(
            Arg::new("command")
                .num_args(0..)
                .value_name("COMMAND")
                .help(
                    "check-config: report every fault of the settings, and print the values that \
                     hold with their sources; healthcheck: ask the instance that these settings \
                     start whether it lives (exit code 0 or 1); none: serve",
                ),
        )
}

fn setting_argument(row: &'static ConfigKey, flag: String, setting: &Setting) -> Arg {
    let default = setting
        .default
        .map_or_else(String::new, |default| format!(" [default: {default}]"));
    let variable = row.variables.first();
    let variable = variable.map_or_else(String::new, |name| format!(" [env: {name}]"));
    let arg = Arg::new(row.name)
        .long(flag)
        .value_name(setting.placeholder)
        .help(format!("{}{variable}{default}", setting.help));
    true_when_alone(arg, setting.placeholder)
}

/// A flag for a boolean may stand alone, and means true then.
fn true_when_alone(arg: Arg, placeholder: &str) -> Arg {
    match placeholder {
        "BOOLEAN" => arg.num_args(0..=1).default_missing_value("true"),
        _ => arg,
    }
}

/// Known, so that it can be refused by name.
fn unsupported_argument(row: &'static ConfigKey, flag: String) -> Arg {
    let arg = Arg::new(row.name).long(flag).hide(true);
    match row.later() {
        Some(later) => true_when_alone(arg, later.placeholder),
        None => arg,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LogFormat;

    fn read(line: &str) -> Result<ConfigSources, EarlyExit> {
        let arguments = std::iter::once("kafka-websocket-proxy").chain(line.split_whitespace());
        parse(arguments.map(OsString::from), []).map(|invocation| invocation.sources)
    }

    fn misuse_of(line: &str) -> String {
        match read(line) {
            Err(EarlyExit::Failure(failure)) => {
                let lines: Vec<_> = failure.errors.iter().map(ToString::to_string).collect();
                lines.join("\n")
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_come_from_the_table_of_keys() {
        let given = read("--dev --port 0 --websocket-ping-interval=5s -D a=b -Dc=d").unwrap();
        assert!(given.dev);
        assert_eq!(given.defines, ["a=b", "c=d"]);
        let port = FlagValue {
            key: "server.port".to_owned(),
            flag: "--port".to_owned(),
            value: "0".to_owned(),
        };
        assert!(given.flags.contains(&port));
        assert_eq!(given.flags.len(), 2);
    }

    #[test]
    fn an_unknown_flag_is_refused_in_one_line_with_the_nearest_one() {
        let line = misuse_of("--prot 1");
        assert_eq!(line.lines().count(), 1, "{line}");
        assert!(
            line.contains("(did you mean --port?); see --help"),
            "{line}"
        );
    }

    #[test]
    fn a_negative_number_is_the_value_of_the_flag_before_it() {
        let given = read("--dev --shutdown-grace -5s --port -1").unwrap();
        let values: Vec<_> = given.flags.iter().map(|flag| &*flag.value).collect();
        assert_eq!(values, ["-1", "-5s"]);
        assert!(misuse_of("--dev -5s").contains("-5"));
    }

    #[test]
    fn a_flag_for_a_boolean_that_stands_alone_means_true() {
        let given = read("--metrics-enabled --ssl-enabled --ssl-ssl-only false --dev").unwrap();
        let values: Vec<_> = given
            .flags
            .iter()
            .map(|flag| (&*flag.key, &*flag.value))
            .collect();
        for expected in [
            ("kafka-client.metrics-enabled", "true"),
            ("server.ssl.enabled", "true"),
            ("server.ssl.ssl-only", "false"),
        ] {
            assert!(values.contains(&expected), "{values:?}");
        }
    }

    #[test]
    fn flags_of_later_versions_are_read_with_and_without_a_value() {
        let given = read("--admin-port 1 --admin-enabled --openid-connect-enabled=true").unwrap();
        let names: Vec<_> = given.flags.iter().map(|flag| &*flag.key).collect();
        let expected = [
            "server.openid-connect.enabled",
            "server.admin.enabled",
            "server.admin.port",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn help_and_version_are_pages() {
        for line in ["--help", "-h", "--version"] {
            assert!(matches!(read(line), Err(EarlyExit::Page(_))), "{line}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn an_argument_that_is_not_utf_8_is_named_and_its_value_is_not_shown() {
        use std::os::unix::ffi::OsStringExt;

        let arguments: [&[u8]; 5] = [b"p", b"--server-id", b"\xff", b"-D", b"a.b=hunter2\xff"];
        let arguments = arguments.map(|bytes| OsString::from_vec(bytes.to_vec()));
        let Err(EarlyExit::Failure(failure)) = parse(arguments, []) else {
            panic!("accepted");
        };
        let lines: Vec<_> = failure.errors.iter().map(ToString::to_string).collect();
        let expected = [
            "argument 2 (after --server-id) is not UTF-8 text",
            "argument 4 (a.b=…) is not UTF-8 text",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_word_that_may_be_a_secret_is_not_shown() {
        for (line, shown) in [
            ("serve --dev", "unexpected argument 'serve'"),
            ("--dev serve", "unexpected argument 'serve'"),
            (
                "--dev -D sasl.jaas.config hunter2",
                "unexpected argument 4 (not shown)",
            ),
            (
                "--basic-auth-password a hunter2",
                "unexpected argument 3 (not shown)",
            ),
            ("--ssl-keystore-pasword=hunter2", "--ssl-keystore-pasword"),
            ("--ssl-keystore-pasword hunter2", "--ssl-keystore-pasword"),
        ] {
            let text = misuse_of(line);
            assert!(
                text.contains(shown) && !text.contains("hunter2"),
                "{line}: {text}"
            );
        }
    }

    #[test]
    fn wrong_flags_hide_neither_a_misspelt_variable_nor_how_to_log() {
        let variables = [
            ("WSPROXY_BOOTSTRAP_HOSTS", "kafka:9092"),
            ("WSPROXY_LOG_FORMAT", "json"),
        ];
        let variables = variables.map(|(name, value)| (name.into(), value.into()));
        for (line, format) in [
            ("p --prot 1", LogFormat::Json),
            ("p --prot 1 --log-format text", LogFormat::Text),
            ("p --log-format=text serve", LogFormat::Text),
        ] {
            let arguments = line.split(' ').map(OsString::from);
            let Err(EarlyExit::Failure(failure)) = parse(arguments, variables.clone()) else {
                panic!("accepted");
            };
            assert_eq!(failure.errors.len(), 1, "{failure:?}");
            assert_eq!(failure.log.format, format, "{line}");
            let [notice] = &failure.notices[..] else {
                panic!("{failure:?}");
            };
            let meant = "did you mean WSPROXY_KAFKA_BOOTSTRAP_HOSTS?";
            assert!(notice.contains(meant), "{notice}");
        }
    }

    #[test]
    fn the_command_is_sound() {
        command().debug_assert();
    }
}
