//! The one table of keys: name, variables, default and meaning of every setting.
//!
//! Flags, `-D`, environment variables and the help text all come from here, so that a key
//! cannot exist in one of them and be missing in another. Names are given without
//! `kafka.ws.proxy.` in front.

use super::value::{self, Checked};
use super::{Config, LogFormat, Origins};

/// One setting.
pub struct Key {
    /// The key, dotted, without `kafka.ws.proxy.`.
    pub name: &'static str,
    /// Environment variables that set it; the first one found counts.
    pub variables: &'static [&'static str],
    /// The default, as text; `None` when unset by default.
    pub default: Option<&'static str>,
    /// What the value looks like in help texts.
    pub placeholder: &'static str,
    /// One line for people.
    pub doc: &'static str,
    /// Reads a text into its place.
    pub set: fn(&mut Config, &str) -> Checked<()>,
}

/// The flag of a key, without its dashes: the key in kebab-case, a leading `server.` or
/// `kafka-client.` left out.
pub fn flag_of(name: &str) -> String {
    let short = name
        .strip_prefix("server.")
        .or_else(|| name.strip_prefix("kafka-client."))
        .unwrap_or(name);
    short.replace('.', "-")
}

/// Every key, in the order of the help text.
pub const KEYS: &[Key] = &[
    Key {
        name: "kafka-client.bootstrap-hosts",
        variables: &[
            "WSPROXY_KAFKA_BOOTSTRAP_HOSTS",
            "WSPROXY_KAFKA_BOOTSTRAP_URLS",
        ],
        default: None,
        placeholder: "HOST:PORT,…",
        doc: "Brokers to ask first; required unless --dev is given",
        set: |config, text| put(value::hosts(text), &mut config.client.bootstrap),
    },
    Key {
        name: "server.port",
        variables: &["WSPROXY_PORT"],
        default: Some("8078"),
        placeholder: "PORT",
        doc: "TCP port to listen on; 0 takes a free one and logs it",
        set: |config, text| {
            let port = value::number(text, 0..=65_535)?;
            config.server.port = port as u16;
            Ok(())
        },
    },
    Key {
        name: "server.bind-interface",
        variables: &["WSPROXY_BIND_INTERFACE"],
        default: Some("0.0.0.0"),
        placeholder: "ADDRESS",
        doc: "Address to listen on",
        set: |config, text| put(value::interface(text), &mut config.server.bind_interface),
    },
    Key {
        name: "server.server-id",
        variables: &["WSPROXY_SERVER_ID"],
        default: Some("node-1"),
        placeholder: "NAME",
        doc: "Name of this node, different for each node of a deployment",
        set: |config, text| put(non_empty(text), &mut config.server.server_id),
    },
    Key {
        name: "server.shutdown-grace",
        variables: &["WSPROXY_SHUTDOWN_GRACE"],
        default: Some("20 seconds"),
        placeholder: "DURATION",
        doc: "How long a stop may take to answer, commit and close",
        set: |config, text| put(value::duration(text), &mut config.server.shutdown_grace),
    },
    Key {
        name: "server.websocket.ping-interval",
        variables: &["WSPROXY_WS_PING_INTERVAL"],
        default: Some("20 seconds"),
        placeholder: "DURATION",
        doc: "Idle sockets are pinged this often, and dropped after two silent intervals",
        set: |config, text| {
            put(
                value::positive_duration(text),
                &mut config.server.websocket.ping_interval,
            )
        },
    },
    Key {
        name: "server.websocket.max-message-size",
        variables: &["WSPROXY_WS_MAX_MESSAGE_SIZE"],
        default: Some("1 MiB"),
        placeholder: "SIZE",
        doc: "Largest message a client may send",
        set: |config, text| {
            let size = value::size_within(text, 125..=1 << 30)?;
            config.server.websocket.max_message_size = size;
            Ok(())
        },
    },
    Key {
        name: "server.websocket.send-buffer",
        variables: &["WSPROXY_WS_SEND_BUFFER"],
        default: Some("256 KiB"),
        placeholder: "SIZE",
        doc: "Bytes of answers that may wait for one client that does not read",
        set: |config, text| {
            let size = value::size_within(text, 4096..=1 << 30)?;
            config.server.websocket.send_buffer = size;
            Ok(())
        },
    },
    Key {
        name: "server.websocket.max-connections",
        variables: &["WSPROXY_WS_MAX_CONNECTIONS"],
        default: Some("0"),
        placeholder: "COUNT",
        doc: "Open WebSockets on this node; 0 sets no limit",
        set: |config, text| {
            let count = value::number(text, 0..=i64::from(u32::MAX))?;
            config.server.websocket.max_connections = count as usize;
            Ok(())
        },
    },
    Key {
        name: "server.websocket.allowed-origins",
        variables: &["WSPROXY_WS_ALLOWED_ORIGINS"],
        default: Some("*"),
        placeholder: "ORIGIN,…",
        doc: "Origins whose pages may use this server, such as https://app.example.org; * is any",
        set: |config, text| put(Origins::parse(text), &mut config.server.websocket.origins),
    },
    Key {
        name: "commit-handler.max-stack-size",
        variables: &["WSPROXY_CH_MAX_STACK_SIZE"],
        default: Some("100"),
        placeholder: "COUNT",
        doc: "Uncommitted records remembered per partition of a socket with autoCommit=false",
        set: |config, text| {
            let count = value::number(text, 1..=1_000_000)?;
            config.commits.max_stack_size = count as usize;
            Ok(())
        },
    },
    Key {
        name: "producer.delivery-timeout-ms",
        variables: &["WSPROXY_KAFKA_PRODUCER_DELIVER_TIMEOUT_MS"],
        default: Some("120000"),
        placeholder: "MILLISECONDS",
        doc: "How long a record may take to be acknowledged",
        set: |config, text| put(value::millis(text), &mut config.producer.delivery_timeout),
    },
    Key {
        name: "producer.compression-type",
        variables: &["WSPROXY_KAFKA_PRODUCER_COMPRESSION_TYPE"],
        default: Some("none"),
        placeholder: "CODEC",
        doc: "none, gzip, snappy, lz4 or zstd",
        set: |config, text| {
            put(
                super::properties::compression(text),
                &mut config.producer.compression,
            )
        },
    },
    Key {
        name: "log.level",
        variables: &["WSPROXY_LOG_LEVEL"],
        default: Some("info"),
        placeholder: "LEVEL",
        doc: "error, warn, info, debug, trace, off, or filters such as info,kafka_client=debug",
        set: |config, text| {
            config.log.level = level_filter(text)?;
            Ok(())
        },
    },
    Key {
        name: "log.format",
        variables: &["WSPROXY_LOG_FORMAT"],
        default: Some("text"),
        placeholder: "FORMAT",
        doc: "text or json",
        set: |config, text| {
            config.log.format = match text.to_ascii_lowercase().as_str() {
                "text" => LogFormat::Text,
                "json" => LogFormat::Json,
                _ => return Err("text or json".to_owned()),
            };
            Ok(())
        },
    },
];

/// A level, or a comma list of levels and `target=level`.
///
/// A bare word that is no level would be taken for a target, and leave nothing else in the log.
fn level_filter(text: &str) -> Checked<String> {
    const LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace", "off"];
    let is_level = |word: &str| LEVELS.contains(&word);
    let is_target = |word: &str| {
        !word.is_empty()
            && word
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_:-".contains(&b))
    };
    let part = |part: &str| {
        let (target, level) = match part.split_once('=') {
            Some((target, level)) => (Some(target.trim()), level),
            None => (None, part),
        };
        let level = level.trim().to_ascii_lowercase();
        match target {
            _ if !is_level(&level) => None,
            None => Some(level),
            Some(target) if is_target(target) => Some(format!("{target}={level}")),
            Some(_) => None,
        }
    };
    let parts: Option<Vec<_>> = text.split(',').map(part).collect();
    let accepted = || {
        format!(
            "{}, or a comma list of these and of module=level, such as \
             info,kafka_client=debug",
            LEVELS.join(", ")
        )
    };
    parts.map(|parts| parts.join(",")).ok_or_else(accepted)
}

fn put<T>(read: Checked<T>, place: &mut T) -> Checked<()> {
    *place = read?;
    Ok(())
}

fn non_empty(text: &str) -> Checked<String> {
    match text.trim() {
        "" => Err("a name that is not empty".to_owned()),
        name => Ok(name.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_accepted_by_its_own_key() {
        for key in KEYS {
            if let Some(default) = key.default {
                let mut config = Config::default();
                assert_eq!((key.set)(&mut config, default), Ok(()), "{}", key.name);
            }
        }
    }

    #[test]
    fn flags_leave_out_a_leading_server_or_kafka_client() {
        let flags: Vec<_> = KEYS.iter().map(|key| flag_of(key.name)).collect();
        for flag in [
            "port",
            "bootstrap-hosts",
            "commit-handler-max-stack-size",
            "websocket-ping-interval",
            "log-level",
        ] {
            assert!(flags.contains(&flag.to_owned()), "{flag}");
        }
    }

    #[test]
    fn a_log_level_is_a_level_or_a_list_of_modules_with_levels() {
        for (text, filter) in [
            ("debug", "debug"),
            (" WARN ", "warn"),
            ("off", "off"),
            ("warn, kafka_client=Debug", "warn,kafka_client=debug"),
            ("tokio=info", "tokio=info"),
        ] {
            assert_eq!(level_filter(text).as_deref(), Ok(filter));
            filter.parse::<tracing_subscriber::EnvFilter>().unwrap();
        }
        for text in [
            "",
            " ",
            "verbose",
            "infos",
            "=info",
            "a=",
            "a=loud",
            "info,",
            "info,tokio",
            "a b=info",
            "3",
        ] {
            let accepted = level_filter(text).expect_err(text);
            assert!(
                accepted.contains("error, warn, info, debug, trace, off"),
                "{accepted}"
            );
        }
    }
}
