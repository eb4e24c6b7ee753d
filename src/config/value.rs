//! Texts to values: durations and sizes in HOCON's spelling, numbers in a range, lists.
//!
//! Every reader answers with the accepted values when it refuses, so that the one line an
//! operator sees names what to write instead.

use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use kafka_client::config::{AssignorName, CompressionType};
use openid::WellKnownUrl;
use schema_registry::{CredentialsSource, RegistryUrl, UserInfo};

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
        "s" | "sec" | "secs" | "second" | "seconds" => 1e9,
        "m" | "min" | "mins" | "minute" | "minutes" => 60e9,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3600e9,
        "d" | "day" | "days" => 86_400e9,
        _ => return Err(accepted()),
    };
    let number: f64 = number.parse().map_err(|_| accepted())?;
    match Duration::try_from_secs_f64(number * nanos / 1e9) {
        Ok(duration) if duration <= DURATION_MAX => Ok(duration),
        _ => Err("a duration of at most 365 days".to_owned()),
    }
}

/// Whether a duration lacks its unit, which is milliseconds then; zero is zero in every unit.
pub(super) fn is_duration_without_unit(text: &str) -> bool {
    let (number, unit) = split_unit(text);
    unit.is_empty() && number.parse::<f64>().is_ok_and(|number| number != 0.0)
}

/// A duration of at least a millisecond, for what would spin at zero.
pub(super) fn positive_duration(text: &str) -> ParsedValue<Duration> {
    match duration(text)? {
        d if d >= Duration::from_millis(1) => Ok(d),
        _ => Err("a duration of at least 1ms".to_owned()),
    }
}

/// A duration that is no shorter than `min`.
pub(super) fn duration_from(text: &str, min: Duration) -> ParsedValue<Duration> {
    match duration(text)? {
        d if d >= min => Ok(d),
        _ => Err(format!("a duration of at least {} s", min.as_secs())),
    }
}

/// A duration within `range`, whose ends are whole seconds.
pub(super) fn duration_within(
    text: &str,
    range: RangeInclusive<Duration>,
) -> ParsedValue<Duration> {
    let (min, max) = (range.start().as_secs(), range.end().as_secs());
    let within = duration(text)?;
    match range.contains(&within) {
        true => Ok(within),
        false => Err(format!("a duration of {min} s to {max} s")),
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
    let bytes = match number.parse::<u64>() {
        Ok(number) => number.checked_mul(factor),
        Err(_) => fraction_of(number, factor),
    };
    bytes
        .and_then(|bytes| usize::try_from(bytes).ok())
        .ok_or_else(accepted)
}

/// `0.5` of something, whole bytes of it; `None` where that cannot be told exactly.
fn fraction_of(number: &str, factor: u64) -> Option<u64> {
    let bytes = number.parse::<f64>().ok()? * factor as f64;
    (bytes < (1_u64 << 53) as f64).then_some(bytes as u64)
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

/// A text that an HTTP header can hold as a quoted string (RFC 9110, section 5.6.4).
pub(super) fn header_text(text: &str) -> ParsedValue<String> {
    let is_legal = |c: char| c == ' ' || c.is_ascii_graphic();
    match text.chars().all(is_legal) {
        true => Ok(text.to_owned()),
        false => Err("a text of printable ASCII characters".to_owned()),
    }
}

/// A number with a fraction.
pub(super) fn fraction(text: &str, range: RangeInclusive<f64>) -> ParsedValue<f64> {
    let number = text.trim().parse().ok();
    let within = number.filter(|number| range.contains(number));
    within.ok_or_else(|| format!("{} to {}", range.start(), range.end()))
}

/// A whole number of seconds, which has no unit.
pub(super) fn seconds(text: &str, range: RangeInclusive<i64>) -> ParsedValue<Duration> {
    number(text, range).map(Duration::from_secs)
}

/// A path that is not empty.
pub(super) fn file(text: &str) -> ParsedValue<PathBuf> {
    match text {
        "" => Err("the path of a file".to_owned()),
        path => Ok(path.into()),
    }
}

/// True or false, in all words that HOCON has for that.
pub(super) fn boolean(text: &str) -> ParsedValue<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" => Ok(true),
        "false" | "no" | "off" => Ok(false),
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
    let array = in_brackets(text)
        .filter(|inner| !closes_a_bracket_that_is_not_open(inner) && !is_ipv6(inner));
    let text = array.unwrap_or(text);
    text.split(',')
        .map(|part| part.trim().trim_matches('"').to_owned())
        .filter(|part| !part.is_empty())
        .collect()
}

/// As in `[::1]:1,[::2]`, where the first bracket and the last are not a pair.
fn closes_a_bracket_that_is_not_open(text: &str) -> bool {
    let mut open = 0;
    text.chars().any(|c| {
        open += match c {
            '[' => 1,
            ']' => -1,
            _ => 0,
        };
        open < 0
    })
}

fn is_ipv6(text: &str) -> bool {
    text.parse::<Ipv6Addr>().is_ok()
}

/// The host and the port of `host[:port]`; the colons of an IPv6 address stand in brackets.
pub(super) fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

/// What stands in brackets, as an IPv6 address does in front of a port.
pub(super) fn in_brackets(text: &str) -> Option<&str> {
    text.strip_prefix('[')?.strip_suffix(']')
}

/// `host:port` parts of a comma list, at least one.
pub(super) fn hosts(text: &str) -> ParsedValue<Vec<String>> {
    let hosts = list(text);
    if hosts.is_empty() {
        return Err(HOSTS.to_owned());
    }
    // Before the list is taken apart: a password may hold a comma.
    if text.contains('@') {
        return Err(format!("{HOSTS}, without user and password"));
    }
    match hosts.iter().find_map(|host| fault_of_host(host)) {
        Some(fault) => Err(format!("{HOSTS}; {fault}")),
        None => Ok(hosts),
    }
}

const HOSTS: &str = "a comma list of host:port, such as kafka-1:9092,kafka-2:9092";

/// What is wrong with one entry of the list.
fn fault_of_host(entry: &str) -> Option<String> {
    if let Some((scheme, host)) = entry.split_once("://") {
        return Some(format!("leave {scheme}:// out, as in {host}"));
    }
    if entry.contains([';', '|']) || entry.contains(char::is_whitespace) {
        return Some(format!("{entry:?} is not one host: commas separate them"));
    }
    if entry.contains('/') {
        return Some(format!("{entry:?} has a path"));
    }
    if is_ipv6(entry) {
        return Some(format!(
            "an IPv6 address stands in brackets, as in [{entry}]:9092"
        ));
    }
    let (name, Some(port)) = split_port(entry) else {
        return Some(format!("{entry} has no port, as in {entry}:9092"));
    };
    let is_name = match in_brackets(name) {
        Some(address) => is_ipv6(address),
        None => !name.is_empty() && !name.contains([':', '[', ']']),
    };
    if !is_name {
        return Some(format!(
            "{entry:?} has no such host: a name or an address, one of IPv6 in brackets"
        ));
    }
    let is_port = port.parse::<u16>().is_ok_and(|port| port != 0);
    (!is_port).then(|| format!("the port of {entry:?} is not within 1 to 65535"))
}

/// URLs of schema registries, at least one. What is refused may have a password: it is not shown.
pub(super) fn registry_urls(text: &str) -> ParsedValue<Vec<RegistryUrl>> {
    let accepted = |fault| {
        format!(
            "a comma list of URLs, such as http://registry-1:8081,http://registry-2:8081; {fault}"
        )
    };
    let urls = list(text)
        .iter()
        .map(|url| RegistryUrl::parse(url).map_err(accepted))
        .collect::<ParsedValue<Vec<_>>>()?;
    match urls.is_empty() {
        true => Err(accepted("there is none")),
        false => Ok(urls),
    }
}

/// Where an OpenID provider describes itself.
pub(super) fn well_known_url(text: &str) -> ParsedValue<WellKnownUrl> {
    WellKnownUrl::parse(text.trim()).map_err(|fault| {
        format!("a URL, such as https://idp.example/.well-known/openid-configuration; {fault}")
    })
}

/// A count from 1 on; −1: no limit.
pub(super) fn limit(text: &str) -> ParsedValue<Option<u32>> {
    match text.trim() {
        "-1" => Ok(None),
        text => number(text, 1..=i64::from(u32::MAX))
            .map(Some)
            .map_err(|accepted| format!("-1 for no limit, or {accepted}")),
    }
}

/// Where the credentials for a schema registry come from.
pub(super) fn credentials_source(text: &str) -> ParsedValue<CredentialsSource> {
    match text.trim() {
        "USER_INFO" => Ok(CredentialsSource::UserInfo),
        "URL" => Ok(CredentialsSource::Url),
        _ => Err("USER_INFO or URL".to_owned()),
    }
}

/// `user:password`
pub(super) fn user_info(text: &str) -> ParsedValue<UserInfo> {
    UserInfo::parse(text.trim()).ok_or_else(|| "user:password".to_owned())
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
    fn urls_of_registries_are_a_list_and_their_passwords_are_never_shown() {
        let urls = registry_urls("http://u:hunter2@a:1, https://b/x/").expect("URLs");
        assert_eq!(format!("{urls:?}"), "[http://a:1, https://b/x]");
        for text in ["", "a:1", "http://a,ftp://u:hunter2@b", "http://hunter2@a"] {
            let accepted = registry_urls(text).expect_err(text);
            assert!(accepted.starts_with("a comma list of URLs"), "{accepted}");
            assert!(!accepted.contains("hunter2"), "{accepted}");
        }
        assert_eq!(credentials_source("URL"), Ok(CredentialsSource::Url));
        assert!(credentials_source("SASL_INHERIT").is_err());
        assert_eq!(user_info("hunter2"), Err("user:password".to_owned()));
    }

    #[test]
    fn durations_are_read_in_hocon_spelling() {
        for (text, millis) in [
            ("20 seconds", 20_000),
            ("500ms", 500),
            ("1 second", 1_000),
            ("1.5s", 1_500),
            ("10 m", 600_000),
            ("3 min", 180_000),
            ("2 hrs", 7_200_000),
            ("5sec", 5_000),
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
    fn booleans_are_read_in_hocon_spelling() {
        for (yes, no) in [
            ("true", "false"),
            ("yes", "no"),
            ("on", "off"),
            ("TRUE", "Off"),
        ] {
            assert_eq!((boolean(yes), boolean(no)), (Ok(true), Ok(false)));
        }
        for text in ["", "1", "0", "y", "truth"] {
            assert_eq!(boolean(text), Err("true or false".to_owned()), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_in_hocon_spelling() {
        for (text, bytes) in [
            ("1048576", 1 << 20),
            ("1 MiB", 1 << 20),
            ("256k", 256 << 10),
            ("2kB", 2_000),
            ("0.5 MiB", 1 << 19),
            ("1.5k", 1_536),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "MiB",
            "-5",
            "1 stone",
            "99999999999 GiB",
            "99999999.5 GiB",
            "1.2.3k",
        ] {
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

    fn owned(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn hosts_are_names_and_addresses_with_a_port_each() {
        for (text, expected) in [
            (" a:1 , [::1]:9092", &["a:1", "[::1]:9092"][..]),
            ("[::1]:1,[fe80::2]:2", &["[::1]:1", "[fe80::2]:2"]),
            ("[a:1, b:2]", &["a:1", "b:2"]),
            ("[\"a:1\", \"[::1]:2\"]", &["a:1", "[::1]:2"]),
            ("10.0.0.1:9092,", &["10.0.0.1:9092"]),
        ] {
            assert_eq!(hosts(text).as_deref(), Ok(&owned(expected)[..]), "{text}");
        }
        for text in ["", " , ", "[]"] {
            assert_eq!(hosts(text), Err(HOSTS.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_host_is_named() {
        for (text, fault) in [
            ("a", "a has no port, as in a:9092"),
            ("a:1,b", "b has no port, as in b:9092"),
            ("[::1]", "[::1] has no port, as in [::1]:9092"),
            ("[::1]:1,[::2]", "[::2] has no port"),
            (
                "::1",
                "an IPv6 address stands in brackets, as in [::1]:9092",
            ),
            ("::1:9092:x", "in brackets"),
            ("[a]:1", "in brackets"),
            (":9092", "has no such host"),
            ("a:", "the port of \"a:\" is not within 1 to 65535"),
            ("a:0", "within 1 to 65535"),
            ("a:70000", "within 1 to 65535"),
            (
                "a:1;b:2",
                "\"a:1;b:2\" is not one host: commas separate them",
            ),
            ("a:1 b:2", "commas separate them"),
            ("kafka://a:1", "leave kafka:// out, as in a:1"),
            ("PLAINTEXT://a:1", "leave PLAINTEXT:// out, as in a:1"),
            ("http://a:1", "leave http:// out, as in a:1"),
            ("a:1/path", "has a path"),
        ] {
            let accepted = hosts(text).expect_err(text);
            assert!(accepted.starts_with(HOSTS), "{text}: {accepted}");
            assert!(accepted.contains(fault), "{text}: {accepted}");
        }
    }

    #[test]
    fn user_and_password_before_a_host_are_refused_and_not_repeated() {
        for text in ["u:hunter2@a:1", "u:hunter2,x@a:1", "kafka://u:hunter2@a:1"] {
            let accepted = hosts(text).expect_err(text);
            assert!(
                accepted.ends_with("without user and password"),
                "{accepted}"
            );
        }
    }

    #[test]
    fn a_duration_without_unit_is_a_bare_number() {
        for text in ["20", " 1.5 ", "0.1", "5000"] {
            assert!(is_duration_without_unit(text), "{text}");
        }
        for text in ["20s", "0", "0.0", "", "s", "1.2.3", "five"] {
            assert!(!is_duration_without_unit(text), "{text}");
        }
    }
}
