//! The command line. Every key of the configuration has a flag, made from the table of keys.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::config::keys::{ConfigKey, PROXY_KEYS, Setting};
use crate::config::{ConfigError, ConfigSources, FlagValue};

/// Why the arguments lead to no start.
#[derive(Debug)]
pub enum EarlyExit {
    /// Help or version was asked for.
    Page(clap::Error),
    /// What is wrong with the arguments.
    Errors(Vec<ConfigError>),
}

/// Reads the arguments, with the environment beside them.
///
/// # Errors
/// [`EarlyExit`] when there is nothing to start: a page was asked for, or arguments are wrong.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<ConfigSources, EarlyExit> {
    let arguments = utf8_arguments(arguments).map_err(EarlyExit::Errors)?;
    let matches = command()
        .try_get_matches_from(join_negative_values(arguments))
        .map_err(early_exit)?;
    // What a file would have set is not known, so the keys are not looked at.
    let errors = unsupported_arguments(&matches);
    if !errors.is_empty() {
        return Err(EarlyExit::Errors(errors));
    }
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
    let (variables, errors) = utf8_variables(variables);
    Ok(ConfigSources {
        dev: matches.get_flag("dev"),
        flags,
        defines: values_of(&matches, "define").cloned().collect(),
        variables,
        errors,
    })
}

/// The arguments that set no key and that this version does not have.
fn unsupported_arguments(matches: &ArgMatches) -> Vec<ConfigError> {
    let unsupported = |word: &str| ConfigError::UnsupportedArgument(word.to_owned());
    let words = values_of(matches, "command").map(|word| match word.as_str() {
        "check-config" | "healthcheck" => unsupported(word),
        _ => ConfigError::Usage(format!("unexpected argument '{}'", word.escape_debug())),
    });
    let config = matches
        .contains_id("config")
        .then(|| unsupported("--config"));
    config.into_iter().chain(words).collect()
}

/// The arguments as UTF-8, or which of them are not.
fn utf8_arguments(
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Vec<String>, Vec<ConfigError>> {
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
    match errors.is_empty() {
        true => Ok(texts),
        false => Err(errors),
    }
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
fn join_negative_values(arguments: Vec<String>) -> Vec<String> {
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
                flag.push_str(&argument);
            }
            _ => joined.push(argument),
        }
    }
    joined
}

/// clap's page, or the first line of its error: the others repeat `--help`.
fn early_exit(error: clap::Error) -> EarlyExit {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        return EarlyExit::Page(error);
    }
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    let line = line.strip_prefix("error: ").unwrap_or(line);
    let suggestion = match error.get(ContextKind::SuggestedArg) {
        Some(ContextValue::String(flag)) => format!(" (did you mean {flag}?)"),
        _ => String::new(),
    };
    EarlyExit::Errors(vec![ConfigError::Usage(format!("{line}{suggestion}"))])
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
    let define = Arg::new("define")
        .short('D')
        .value_name("KEY=VALUE")
        .action(ArgAction::Append)
        .help(
            "Set any key, with or without kafka.ws.proxy. in front, such as \
             kafka-client.properties.linger.ms=5",
        );
    let (settings, unsupported): (Vec<_>, Vec<_>) =
        flags().partition(|(row, _)| row.setting().is_some());
    Command::new("kafka-websocket-proxy")
        .version(env!("CARGO_PKG_VERSION"))
        .about(env!("CARGO_PKG_DESCRIPTION"))
        .after_help("A flag wins over its environment variable, and that over the default.")
        .arg(dev)
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
        .arg(Arg::new("config").long("config").num_args(0..=1).hide(true))
        .arg(Arg::new("command").num_args(0..).hide(true))
}

fn setting_argument(row: &'static ConfigKey, flag: String, setting: &Setting) -> Arg {
    let default = setting
        .default
        .map_or_else(String::new, |default| format!(" [default: {default}]"));
    let variable = row.variables[0];
    Arg::new(row.name)
        .long(flag)
        .value_name(setting.placeholder)
        .help(format!("{} [env: {variable}]{default}", setting.help))
}

/// Known, so that it can be refused by name.
fn unsupported_argument(row: &'static ConfigKey, flag: String) -> Arg {
    let arg = Arg::new(row.name).long(flag).hide(true);
    arg.num_args(0..=1).default_missing_value("")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<ConfigSources, EarlyExit> {
        let arguments = std::iter::once("kafka-websocket-proxy").chain(line.split_whitespace());
        parse(arguments.map(OsString::from), [])
    }

    fn misuse(line: &str) -> String {
        match read(line) {
            Err(EarlyExit::Errors(errors)) => {
                let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
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
        let line = misuse("--prot 1");
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
        assert!(misuse("--dev -5s").contains("-5"));
    }

    #[test]
    fn flags_of_later_versions_are_read_with_and_without_a_value() {
        let given = read("--ssl-port 1 --ssl-ssl-only --basic-auth-enabled=true").unwrap();
        let names: Vec<_> = given.flags.iter().map(|flag| &*flag.key).collect();
        let expected = [
            "server.ssl.ssl-only",
            "server.ssl.port",
            "server.basic-auth.enabled",
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
        let Err(EarlyExit::Errors(errors)) = parse(arguments, []) else {
            panic!("accepted");
        };
        let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
        let expected = [
            "argument 2 (after --server-id) is not UTF-8 text",
            "argument 4 (a.b=…) is not UTF-8 text",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn the_command_is_sound() {
        command().debug_assert();
    }
}
