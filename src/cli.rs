//! The command line. Every key of the configuration has a flag, made from the table of keys.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::config::keys::{KEYS, Key, flag_of};
use crate::config::later::LATER;
use crate::config::{Fault, Given};

/// What is to be told instead of a start.
#[derive(Debug)]
pub enum Told {
    /// Help or version, as asked for.
    Page(clap::Error),
    /// What is wrong with the arguments.
    Faults(Vec<Fault>),
}

/// Reads the arguments, with the environment beside them.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Given, Told> {
    let arguments = texts(arguments).map_err(Told::Faults)?;
    let matches = command()
        .try_get_matches_from(joined(arguments))
        .map_err(told)?;
    // What a file would have said is not known: the keys are not worth a look.
    let beyond = beyond_keys(&matches);
    if !beyond.is_empty() {
        return Err(Told::Faults(beyond));
    }
    let flags = names()
        .filter_map(|name| {
            let value = matches.get_one::<String>(name)?;
            let flag = format!("--{}", flag_of(name));
            Some((name.to_owned(), flag, value.clone()))
        })
        .collect();
    let (variables, faults) = readable(variables);
    Ok(Given {
        dev: matches.get_flag("dev"),
        flags,
        defines: strings(&matches, "define").cloned().collect(),
        variables,
        faults,
    })
}

/// What was asked for that no key stands for.
fn beyond_keys(matches: &ArgMatches) -> Vec<Fault> {
    let later = |word: &str| Fault::NotYetAsked(word.to_owned());
    let words = strings(matches, "command").map(|word| match word.as_str() {
        "check-config" | "healthcheck" => later(word),
        _ => Fault::Misuse(format!("unexpected argument '{}'", word.escape_debug())),
    });
    let config = matches.contains_id("config").then(|| later("--config"));
    config.into_iter().chain(words).collect()
}

/// The arguments as texts, or which of them are none.
fn texts(arguments: impl IntoIterator<Item = OsString>) -> Result<Vec<String>, Vec<Fault>> {
    let mut texts: Vec<String> = Vec::new();
    let mut faults = Vec::new();
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
            faults.push(Fault::NotText(format!("argument {number}{owner}")));
        }
        texts.push(text);
    }
    match faults.is_empty() {
        true => Ok(texts),
        false => Err(faults),
    }
}

/// The variables as texts; those of ours that are none are faults.
fn readable(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> (Vec<(String, String)>, Vec<Fault>) {
    let (mut texts, mut faults) = (Vec::new(), Vec::new());
    for (name, value) in variables {
        let name = name.to_string_lossy().into_owned();
        match value.into_string() {
            Ok(value) => texts.push((name, value)),
            Err(_) if name.starts_with("WSPROXY_") => {
                faults.push(Fault::NotText(format!("variable {name}")));
            }
            Err(_) => {}
        }
    }
    (texts, faults)
}

/// Ties a negative number to the flag before it: that flag's key tells what it accepts,
/// better than anyone who takes `-5s` for a flag of its own.
fn joined(arguments: Vec<String>) -> Vec<String> {
    let mut joined: Vec<String> = Vec::new();
    for argument in arguments {
        let negative = argument
            .strip_prefix('-')
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit() || c == '.'));
        let takes_value = |flag: &&mut String| {
            let flag = flag.strip_prefix("--");
            flag.is_some_and(|flag| names().any(|name| flag_of(name) == flag))
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

/// clap's page, or its first line: the others are what `--help` says.
fn told(error: clap::Error) -> Told {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        return Told::Page(error);
    }
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    let line = line.strip_prefix("error: ").unwrap_or(line);
    let meant = match error.get(ContextKind::SuggestedArg) {
        Some(ContextValue::String(flag)) => format!(" (did you mean {flag}?)"),
        _ => String::new(),
    };
    Told::Faults(vec![Fault::Misuse(format!("{line}{meant}"))])
}

/// Every key that has a flag, those of later versions too.
fn names() -> impl Iterator<Item = &'static str> {
    let later = LATER.iter().map(|later| later.name);
    KEYS.iter().map(|key| key.name).chain(later)
}

fn strings<'a>(matches: &'a ArgMatches, id: &str) -> impl Iterator<Item = &'a String> {
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
    Command::new("kafka-websocket-proxy")
        .version(env!("CARGO_PKG_VERSION"))
        .about(env!("CARGO_PKG_DESCRIPTION"))
        .after_help("A flag wins over its environment variable, and that over the default.")
        .arg(dev)
        .args(KEYS.iter().map(argument))
        .arg(define)
        .args(LATER.iter().map(|later| not_yet(later.name)))
        .arg(Arg::new("config").long("config").num_args(0..=1).hide(true))
        .arg(Arg::new("command").num_args(0..).hide(true))
}

fn argument(key: &'static Key) -> Arg {
    let default = key
        .default
        .map_or_else(String::new, |default| format!(" [default: {default}]"));
    let variable = key.variables[0];
    Arg::new(key.name)
        .long(flag_of(key.name))
        .value_name(key.placeholder)
        .help(format!("{} [env: {variable}]{default}", key.doc))
}

/// Known, so that it can be refused by name.
fn not_yet(name: &'static str) -> Arg {
    let arg = Arg::new(name).long(flag_of(name)).hide(true);
    arg.num_args(0..=1).default_missing_value("")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Given, Told> {
        let arguments = std::iter::once("kafka-websocket-proxy").chain(line.split_whitespace());
        parse(arguments.map(OsString::from), [])
    }

    fn misuse(line: &str) -> String {
        match read(line) {
            Err(Told::Faults(faults)) => {
                let lines: Vec<_> = faults.iter().map(ToString::to_string).collect();
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
        let port = (
            "server.port".to_owned(),
            "--port".to_owned(),
            "0".to_owned(),
        );
        assert!(given.flags.contains(&port));
        assert_eq!(given.flags.len(), 2);
    }

    #[test]
    fn a_flag_nobody_knows_is_refused_in_one_line_with_the_nearest_one() {
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
        let values: Vec<_> = given.flags.iter().map(|flag| &*flag.2).collect();
        assert_eq!(values, ["-1", "-5s"]);
        assert!(misuse("--dev -5s").contains("-5"));
    }

    #[test]
    fn flags_of_later_versions_are_read_with_and_without_a_value() {
        let given = read("--ssl-port 1 --ssl-ssl-only --basic-auth-enabled=true").unwrap();
        let names: Vec<_> = given.flags.iter().map(|flag| &*flag.0).collect();
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
            assert!(matches!(read(line), Err(Told::Page(_))), "{line}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn an_argument_that_is_no_text_is_named_and_its_value_is_not_shown() {
        use std::os::unix::ffi::OsStringExt;

        let arguments: [&[u8]; 5] = [b"p", b"--server-id", b"\xff", b"-D", b"a.b=hunter2\xff"];
        let arguments = arguments.map(|bytes| OsString::from_vec(bytes.to_vec()));
        let Err(Told::Faults(faults)) = parse(arguments, []) else {
            panic!("accepted");
        };
        let lines: Vec<_> = faults.iter().map(ToString::to_string).collect();
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
