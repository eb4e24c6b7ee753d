//! The command line. Every key of the configuration has a flag, made from the table of keys.

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::config::Given;
use crate::config::keys::KEYS;

/// Reads the arguments, with the environment beside them.
///
/// Help, version and misuse end here with clap's own error, ready to be printed.
pub fn parse(
    arguments: impl IntoIterator<Item = String>,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Given, clap::Error> {
    let matches = command().try_get_matches_from(arguments)?;
    let flags = KEYS
        .iter()
        .filter_map(|key| {
            let value = matches.get_one::<String>(key.name)?;
            Some((
                key.name.to_owned(),
                format!("--{}", key.flag()),
                value.clone(),
            ))
        })
        .collect();
    Ok(Given {
        dev: matches.get_flag("dev"),
        flags,
        defines: defines(&matches),
        variables: variables.into_iter().collect(),
    })
}

fn defines(matches: &ArgMatches) -> Vec<String> {
    let given = matches.get_many::<String>("define");
    given.into_iter().flatten().cloned().collect()
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
}

fn argument(key: &'static crate::config::keys::Key) -> Arg {
    let default = key
        .default
        .map_or_else(String::new, |default| format!(" [default: {default}]"));
    let variable = key.variables[0];
    Arg::new(key.name)
        .long(key.flag())
        .value_name(key.placeholder)
        .help(format!("{} [env: {variable}]{default}", key.doc))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Given, clap::Error> {
        let arguments = std::iter::once("kafka-websocket-proxy").chain(line.split_whitespace());
        parse(arguments.map(str::to_owned), [])
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
    fn a_flag_nobody_knows_is_refused() {
        assert!(read("--prot 1").is_err());
    }

    #[test]
    fn the_command_is_sound() {
        command().debug_assert();
    }
}
