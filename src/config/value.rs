//! Texts to values: durations and sizes in HOCON's spelling, numbers in a range, lists.
//!
//! Every reader answers with the accepted values when it refuses, so that the one line an
//! operator sees names what to write instead.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use kafka_client::config::{AssignorName, CompressionType};

/// A value, or what would have been accepted.
pub(super) type ParsedValue<T> = Result<T, String>;

/// The longest duration that is accepted: far beyond it, `Instant` could not hold the deadline.
const DURATION_MAX: Duration = Duration::from_secs(365 * 86_400);

/// `20 seconds`, `500ms`, `30 days`; a bare number is milliseconds. A year at most.
pub(super) fn duration(text: &str) -> ParsedValue<Duration> {
    let accepted = || "a duration such as 500ms, 20s, 20 seconds, 10 minutes or 30 days".to_owned();
    let (number, unit) = split_unit(text);
    let nanos = match unit {
        "ns" | "nano" | "nanos" | "nanosecond" | "nanoseconds" => 1.0,
        "us" | "µs" | "micro" | "micros" | "microsecond" | "microseconds" => 1e3,
        "" | "ms" | "milli" | "millis" | "millisecond" | "milliseconds" => 1e6,
        "s" | "second" | "seconds" => 1e9,
        "m" | "minute" | "minutes" => 60e9,
        "h" | "hour" | "hours" => 3600e9,
        "d" | "day" | "days" => 86_400e9,
        _ => return Err(accepted()),
    };
    let number: f64 = number.parse().map_err(|_| accepted())?;
    match Duration::try_from_secs_f64(number * nanos / 1e9) {
        Ok(duration) if duration <= DURATION_MAX => Ok(duration),
        _ => Err("a duration of at most 365 days".to_owned()),
    }
}

/// A duration of at least a millisecond, for what would spin at zero.
pub(super) fn positive_duration(text: &str) -> ParsedValue<Duration> {
    match duration(text)? {
        d if d >= Duration::from_millis(1) => Ok(d),
        _ => Err("a duration of at least 1ms".to_owned()),
    }
}

/// A count of milliseconds, as Java properties that end in `.ms` have it.
pub(super) fn millis(text: &str) -> ParsedValue<Duration> {
    number(text, 0..=i64::from(i32::MAX)).map(Duration::from_millis)
}

/// A count of milliseconds, at least one.
pub(super) fn positive_millis(text: &str) -> ParsedValue<Duration> {
    number(text, 1..=i64::from(i32::MAX)).map(Duration::from_millis)
}

/// `1 MiB`, `256k`, `1048576`; a bare number is bytes.
pub(super) fn size(text: &str) -> ParsedValue<usize> {
    let accepted = || "a size such as 65536, 256 KiB or 1 MiB".to_owned();
    let (number, unit) = split_unit(text);
    let factor: u64 = match unit {
        "" | "B" | "b" | "byte" | "bytes" => 1,
        "K" | "k" | "Ki" | "KiB" | "kibibyte" | "kibibytes" => 1 << 10,
        "M" | "m" | "Mi" | "MiB" | "mebibyte" | "mebibytes" => 1 << 20,
        "G" | "g" | "Gi" | "GiB" | "gibibyte" | "gibibytes" => 1 << 30,
        "kB" | "kilobyte" | "kilobytes" => 1_000,
        "MB" | "megabyte" | "megabytes" => 1_000_000,
        "GB" | "gigabyte" | "gigabytes" => 1_000_000_000,
        _ => return Err(accepted()),
    };
    let number: u64 = number.parse().map_err(|_| accepted())?;
    number
        .checked_mul(factor)
        .and_then(|bytes| usize::try_from(bytes).ok())
        .ok_or_else(accepted)
}

/// A size within `range`, in bytes.
pub(super) fn size_within(text: &str, range: RangeInclusive<usize>) -> ParsedValue<usize> {
    let bytes = size(text)?;
    if range.contains(&bytes) {
        return Ok(bytes);
    }
    Err(format!(
        "a size of {} to {} bytes",
        range.start(),
        range.end()
    ))
}

/// A whole number within `range`.
pub(super) fn number<T: TryFrom<i64>>(text: &str, range: RangeInclusive<i64>) -> ParsedValue<T> {
    let number = text.trim().parse().ok().filter(|n| range.contains(n));
    number
        .and_then(|n| T::try_from(n).ok())
        .ok_or_else(|| format!("a whole number, {} to {}", range.start(), range.end()))
}

/// A name that is not empty.
pub(super) fn non_empty(text: &str) -> ParsedValue<String> {
    match text.trim() {
        "" => Err("a name that is not empty".to_owned()),
        name => Ok(name.to_owned()),
    }
}

/// True or false.
pub(super) fn boolean(text: &str) -> ParsedValue<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("true or false".to_owned()),
    }
}

/// One of the texts that are supported.
pub(super) fn one_of(text: &str, accepted: &[&str]) -> ParsedValue<()> {
    match accepted.contains(&text.trim()) {
        true => Ok(()),
        false => Err(format!(
            "{}; nothing else is supported",
            accepted.join(" or ")
        )),
    }
}

/// A codec's name.
pub(super) fn compression(text: &str) -> ParsedValue<CompressionType> {
    Ok(match text.to_ascii_lowercase().as_str() {
        "none" => CompressionType::None,
        "gzip" => CompressionType::Gzip,
        "snappy" => CompressionType::Snappy,
        "lz4" => CompressionType::Lz4,
        "zstd" => CompressionType::Zstd,
        _ => return Err("none, gzip, snappy, lz4 or zstd".to_owned()),
    })
}

/// A comma list of assignors, by their names or by their Java classes.
pub(super) fn assignors(text: &str) -> ParsedValue<Vec<AssignorName>> {
    let accepted = "range, cooperative-sticky, or the names of their Java classes";
    let assignor = |name: String| match name.rsplit('.').next() {
        Some("range" | "RangeAssignor") => Ok(AssignorName::Range),
        Some("cooperative-sticky" | "CooperativeStickyAssignor") => {
            Ok(AssignorName::CooperativeSticky)
        }
        _ => Err(accepted.to_owned()),
    };
    let names: Vec<_> = list(text)
        .into_iter()
        .map(assignor)
        .collect::<ParsedValue<_>>()?;
    match names.is_empty() {
        true => Err(accepted.to_owned()),
        false => Ok(names),
    }
}

/// The address of a network interface.
pub(super) fn interface(text: &str) -> ParsedValue<IpAddr> {
    match text.trim() {
        "localhost" => Ok(IpAddr::from([127, 0, 0, 1])),
        other => other
            .parse()
            .map_err(|_| "an IP address of this host, such as 0.0.0.0, 127.0.0.1 or ::".to_owned()),
    }
}

/// The parts of a comma list, trimmed, without empty ones.
pub(super) fn list(text: &str) -> Vec<String> {
    let text = text.trim();
    // An array, as a HOCON file writes it.
    let text = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    text.split(',')
        .map(|part| part.trim().trim_matches('"').to_owned())
        .filter(|part| !part.is_empty())
        .collect()
}

/// `host:port` parts of a comma list, at least one.
pub(super) fn hosts(text: &str) -> ParsedValue<Vec<String>> {
    let accepted = "a comma list of host:port, such as kafka-1:9092,kafka-2:9092";
    let hosts = list(text);
    let sound = |host: &String| {
        host.rsplit_once(':').is_some_and(|(name, port)| {
            !name.is_empty()
                && !name.contains(|c: char| c.is_whitespace() || c == '/')
                && port.parse::<u16>().is_ok_and(|port| port != 0)
        })
    };
    if hosts.is_empty() || !hosts.iter().all(sound) {
        return Err(accepted.to_owned());
    }
    Ok(hosts)
}

fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    (&text[..end], text[end..].trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_in_hocon_spelling() {
        for (text, millis) in [
            ("20 seconds", 20_000),
            ("500ms", 500),
            ("1 second", 1_000),
            ("1.5s", 1_500),
            ("10 m", 600_000),
            ("30 days", 2_592_000_000),
            ("250", 250),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "-1s", "1 fortnight", "1.2.3s", "1e400"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(positive_duration("0s").is_err());
    }

    #[test]
    fn a_duration_is_a_year_at_most() {
        assert_eq!(duration("365 days"), Ok(DURATION_MAX));
        let long = ["366 days", "213503982334600 days", "99999999999999999999d"];
        for text in long {
            let accepted = Err("a duration of at most 365 days".to_owned());
            assert_eq!(duration(text), accepted, "{text}");
            assert_eq!(positive_duration(text), accepted, "{text}");
        }
    }

    #[test]
    fn sizes_are_read_in_hocon_spelling() {
        for (text, bytes) in [
            ("1048576", 1 << 20),
            ("1 MiB", 1 << 20),
            ("256k", 256 << 10),
            ("2kB", 2_000),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "-5", "1 stone", "99999999999 GiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn assignors_are_named_shortly_or_by_java_class() {
        let both = "org.apache.kafka.clients.consumer.RangeAssignor, cooperative-sticky";
        assert_eq!(
            assignors(both),
            Ok(vec![AssignorName::Range, AssignorName::CooperativeSticky])
        );
        assert!(assignors("round-robin").is_err());
        assert!(assignors("").is_err());
    }

    #[test]
    fn hosts_need_a_port_each() {
        assert_eq!(
            hosts(" a:1 , [::1]:9092"),
            Ok(vec!["a:1".to_owned(), "[::1]:9092".to_owned()])
        );
        for text in ["", "a", "a:", "a:0", "a:1,b", "http://a:1", "a:70000"] {
            assert!(hosts(text).is_err(), "{text}");
        }
    }
}
