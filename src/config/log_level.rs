//! `log.level`: a level, or filters per module.

use super::value::ParsedValue;

const LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace", "off"];

/// Reads a level, or a comma list of levels and `target=level`.
///
/// A bare word that is no level would be taken for a target, and leave nothing else in the log.
pub(super) fn parse(text: &str) -> ParsedValue<String> {
    let directives: Option<Vec<_>> = text.split(',').map(parse_directive).collect();
    let accepted = || {
        format!(
            "{}, or a comma list of these and of module=level, such as \
             info,kafka_client=debug",
            LEVELS.join(", ")
        )
    };
    directives
        .map(|directives| directives.join(","))
        .ok_or_else(accepted)
}

/// Reads `level` or `target=level`.
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
    use super::*;

    #[test]
    fn a_log_level_is_a_level_or_a_list_of_modules_with_levels() {
        for (text, filter) in [
            ("debug", "debug"),
            (" WARN ", "warn"),
            ("off", "off"),
            ("warn, kafka_client=Debug", "warn,kafka_client=debug"),
            ("tokio=info", "tokio=info"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(filter));
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
            let accepted = parse(text).expect_err(text);
            assert!(
                accepted.contains("error, warn, info, debug, trace, off"),
                "{accepted}"
            );
        }
    }
}
