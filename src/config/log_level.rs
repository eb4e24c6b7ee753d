//! `log.level`: a level, or filters per module.

use tracing_subscriber::filter::Targets;

use super::value::ParsedValue;

const LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace", "off"];

/// Reads a level, or a comma list of levels and `target=level`.
///
/// A bare word that is no level would be taken for a target, and leave nothing else in the log.
pub(super) fn parse(text: &str) -> ParsedValue<Targets> {
    let directives: Option<Vec<_>> = text.split(',').map(parse_directive).collect();
    let targets = directives.and_then(|directives| directives.join(",").parse().ok());
    targets.ok_or_else(|| {
        format!(
            "{}, or a comma list of these and of module=level, such as info,kafka_client=debug",
            LEVELS.join(", ")
        )
    })
}

/// Reads `level` or `target=level`, into the spelling that [`Targets`] reads.
fn parse_directive(text: &str) -> Option<String> {
    let (target, level) = match text.split_once('=') {
        Some((target, level)) => (Some(target.trim()), level),
        None => (None, text),
    };
    let level = level.trim().to_ascii_lowercase();
    match target {
        _ if !LEVELS.contains(&&*level) => None,
        None => Some(level),
        Some(target) if is_target(target) => Some(format!("{target}={level}")),
        Some(_) => None,
    }
}

fn is_target(word: &str) -> bool {
    !word.is_empty()
        && word
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_:-".contains(&b))
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn a_log_level_is_a_level_or_a_list_of_modules_with_levels() {
        for (text, of_proxy, of_client) in [
            ("debug", Some(Level::DEBUG), Some(Level::DEBUG)),
            (" WARN ", Some(Level::WARN), Some(Level::WARN)),
            ("off", None, None),
            (
                "warn, kafka_client=Debug",
                Some(Level::WARN),
                Some(Level::DEBUG),
            ),
            (
                "kafka_client::net=debug,info",
                Some(Level::INFO),
                Some(Level::DEBUG),
            ),
            ("kafka_client=off,trace", Some(Level::TRACE), None),
            ("kafka_client=info", None, Some(Level::INFO)),
        ] {
            let targets = parse(text).unwrap();
            let most_verbose = |target| {
                let levels = [
                    Level::TRACE,
                    Level::DEBUG,
                    Level::INFO,
                    Level::WARN,
                    Level::ERROR,
                ];
                levels
                    .into_iter()
                    .find(|level| targets.would_enable(target, level))
            };
            assert_eq!(
                most_verbose("kafka_websocket_proxy::server"),
                of_proxy,
                "{text}"
            );
            assert_eq!(most_verbose("kafka_client::net::pool"), of_client, "{text}");
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
            let accepted = parse(text).expect_err(text);
            assert!(
                accepted.contains("error, warn, info, debug, trace, off"),
                "{accepted}"
            );
        }
    }
}
