//! `config/reference.conf` and the README's table of keys, made from the table.

use std::fmt::Write;

use super::effective::in_hocon;
use super::keys::{
    CLIENT_PROPERTIES, ClientSection, ConfigKey, KEY_PREFIX, KeyHandling, PROXY_KEYS,
};

/// Every key with its default, as a file.
pub fn reference_conf() -> String {
    let mut text = format!(
        "# Every key of kafka-websocket-proxy with its default. Written by\n\
         #   kafka-websocket-proxy reference-config > config/reference.conf\n\
         # A key that is commented out has no default, or is not supported yet.\n\n{} {{\n",
        KEY_PREFIX.trim_end_matches('.')
    );
    for row in PROXY_KEYS.iter().filter(|row| !row.is_section()) {
        let (help, placeholder, default) = match &row.handling {
            KeyHandling::Setting(setting) => (
                setting.help.to_owned(),
                setting.placeholder,
                setting.default,
            ),
            KeyHandling::Unsupported(later) if !later.help.is_empty() => {
                let help = format!("{}. Not supported yet", later.help);
                (help, later.placeholder, later.default)
            }
            _ => continue,
        };
        comment(&mut text, row, &help);
        let acts = row.setting().is_some();
        let line = match default {
            Some(default) if acts => format!("{} = {}", row.name, in_hocon(default)),
            Some(default) => format!("# {} = {}", row.name, in_hocon(default)),
            None => format!("# {} = {placeholder}", row.name),
        };
        let _ = writeln!(text, "  {line}\n");
    }
    text.push_str(PROPERTIES_COMMENT);
    for row in CLIENT_PROPERTIES {
        let Some((section, default, help)) = row.property() else {
            continue;
        };
        comment(&mut text, row, &property_help(section, help));
        let key = ClientSection::AllClients.key_of(row.name);
        let hidden = if row.own_key().is_some() { "# " } else { "" };
        let _ = writeln!(text, "  {hidden}{key} = {}\n", in_hocon(default));
    }
    text.truncate(text.trim_end().len());
    text.push_str("\n}\n");
    text
}

const PROPERTIES_COMMENT: &str = "  \
  # Properties of the Kafka clients, under their names in Java, for all clients. Those under\n  \
  # producer.kafka-client-properties, consumer.kafka-client-properties and\n  \
  # admin-client.kafka-client-properties override them, each for its own client. Java's other\n  \
  # properties are accepted, and reported as ignored.\n\n";

fn comment(text: &mut String, row: &ConfigKey, help: &str) {
    let mut sources: Vec<String> = row
        .flag()
        .filter(|_| row.property().is_none())
        .map(|flag| format!("--{flag}"))
        .into_iter()
        .collect();
    sources.extend(row.variables.iter().map(|name| (*name).to_owned()));
    let _ = writeln!(text, "  # {help}.");
    if !sources.is_empty() {
        let _ = writeln!(text, "  # {}", sources.join(", "));
    }
}

fn property_help(section: ClientSection, help: &str) -> String {
    match section {
        ClientSection::AllClients => help.to_owned(),
        ClientSection::Producer => format!("{help} (producer)"),
        ClientSection::Consumer => format!("{help} (consumers)"),
        ClientSection::AdminClient => format!("{help} (admin client)"),
        ClientSection::MetricsReporter => format!("{help} (metrics reporter)"),
    }
}

/// The keys that act, as a table in Markdown.
#[cfg(test)]
fn markdown_table() -> String {
    let mut text = "| key | variable | default | |\n|---|---|---|---|\n".to_owned();
    for row in PROXY_KEYS {
        let Some(setting) = row.setting() else {
            continue;
        };
        let default = setting.default.unwrap_or("–");
        markdown_row(&mut text, row.name, row, default, setting.help);
    }
    for row in CLIENT_PROPERTIES {
        if let Some((section, default, help)) = row.property() {
            let key = ClientSection::AllClients.key_of(row.name);
            markdown_row(&mut text, &key, row, default, &property_help(section, help));
        }
    }
    text
}

#[cfg(test)]
fn markdown_row(text: &mut String, key: &str, row: &ConfigKey, default: &str, help: &str) {
    let variable = row
        .variables
        .first()
        .map_or(String::new(), |name| format!("`{name}`"));
    let default = match default {
        "–" => default.to_owned(),
        "" => "empty".to_owned(),
        text => format!("`{text}`"),
    };
    let help = help.replace('|', "\\|").replace('*', "\\*");
    let _ = writeln!(text, "| `{key}` | {variable} | {default} | {help} |");
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::config::{Config, ConfigSources, load};

    const HOW: &str = "it is not what the table of keys says; \
        `WRITE=1 cargo test --lib config::reference` writes it";

    fn root_file(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
    }

    /// Compares a file, or writes it.
    fn must_be(name: &str, expected: &str) {
        let path = root_file(name);
        if std::env::var_os("WRITE").is_some() {
            std::fs::write(&path, expected).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == expected, "{name}: {HOW}");
    }

    #[test]
    fn the_reference_is_made_from_the_table_and_says_the_defaults() {
        must_be("config/reference.conf", &reference_conf());
        let sources = ConfigSources {
            file: Some(root_file("config/reference.conf")),
            brokerless: true,
            ..ConfigSources::default()
        };
        let loaded = load(&sources).unwrap();
        assert_eq!(loaded.notices, [""; 0]);
        let expected = format!("{:?}", Config::default());
        assert_eq!(format!("{:?}", loaded.config), expected);
        let given = loaded.effective.iter().map(ToString::to_string);
        let missing: Vec<_> = given.filter(|line| line.ends_with("# default")).collect();
        let twice = CLIENT_PROPERTIES
            .iter()
            .filter(|row| row.own_key().is_some());
        assert_eq!(missing.len(), twice.count(), "{missing:?}");
    }

    #[test]
    fn every_key_is_in_the_reference() {
        let text = reference_conf();
        for row in PROXY_KEYS.iter().filter(|row| !row.is_section()) {
            let is_described = row.later().is_none_or(|later| !later.help.is_empty());
            let line = format!("{} = ", row.name);
            assert!(!is_described || text.contains(&line), "{}", row.name);
        }
    }

    #[test]
    fn the_file_to_begin_with_loads() {
        let sources = ConfigSources {
            file: Some(root_file("config/application.conf")),
            ..ConfigSources::default()
        };
        let loaded = load(&sources).unwrap();
        assert_eq!(loaded.notices, [""; 0]);
        assert!(!loaded.config.client.bootstrap_servers.is_empty());
    }

    #[test]
    fn the_readme_has_the_table() {
        let readme = std::fs::read_to_string(root_file("README.md")).unwrap();
        let (before, rest) = readme
            .split_once("<!-- keys -->\n")
            .expect("no place for it");
        let (_, after) = rest
            .split_once("<!-- end of keys -->")
            .expect("no end of it");
        let table = markdown_table();
        let expected = format!("{before}<!-- keys -->\n{table}<!-- end of keys -->{after}");
        must_be("README.md", &expected);
    }
}
