//! A reader of both text formats that takes nothing but what their grammars allow:
//! <https://prometheus.io/docs/instrumenting/exposition_formats/> and OpenMetrics 1.0.

use std::collections::{BTreeMap, BTreeSet};

/// Everything in one text.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    /// By name, as `TYPE` says.
    families: BTreeMap<String, Family>,
    /// By name and labels, as they are written.
    series: BTreeMap<String, f64>,
    label_values: BTreeSet<String>,
    is_open_metrics: bool,
}

#[derive(Debug, Default)]
struct Family {
    kind: String,
    has_help: bool,
    /// The bounds and counts of a histogram's buckets, in order.
    buckets: Vec<(f64, f64)>,
}

impl Exposition {
    pub(super) fn parse_prometheus(text: &str) -> Self {
        Self::parse(text, false)
    }

    pub(super) fn parse_open_metrics(text: &str) -> Self {
        let text = text.strip_suffix("# EOF\n").expect("it ends with EOF");
        Self::parse(text, true)
    }

    /// Of the series that is written so.
    pub(super) fn value(&self, series: &str) -> Option<f64> {
        self.series.get(series).copied()
    }

    pub(super) fn has_label_value(&self, value: &str) -> bool {
        self.label_values.contains(value)
    }

    /// The series, but for those of that metric.
    pub(super) fn names_except(&self, name: &str) -> Vec<&str> {
        let names = self.series.keys().map(String::as_str);
        names.filter(|series| !series.starts_with(name)).collect()
    }

    fn parse(text: &str, is_open_metrics: bool) -> Self {
        assert!(text.ends_with('\n') && !text.contains("\n\n"), "{text}");
        let mut read = Self {
            is_open_metrics,
            ..Self::default()
        };
        let mut current = String::new();
        for line in text.lines() {
            match line.strip_prefix("# ") {
                Some(comment) => read.comment(comment, &mut current),
                None => read.sample(line, &current),
            }
        }
        read.check_histograms();
        read
    }

    fn comment(&mut self, comment: &str, current: &mut String) {
        let (keyword, rest) = comment.split_once(' ').expect("a keyword");
        let (name, text) = rest.split_once(' ').expect("a name");
        assert!(is_metric_name(name), "{name}");
        if name != current {
            assert!(!self.families.contains_key(name), "{name} comes twice");
            name.clone_into(current);
        }
        let family = self.families.entry(name.to_owned()).or_default();
        match keyword {
            "HELP" => {
                assert!(!family.has_help && !text.contains('\\'), "{comment}");
                family.has_help = true;
            }
            "TYPE" => {
                assert!(["counter", "gauge", "histogram"].contains(&text), "{text}");
                assert!(family.kind.is_empty(), "{comment}");
                text.clone_into(&mut family.kind);
            }
            "UNIT" => {
                assert!(self.is_open_metrics, "{comment}");
                assert!(name.ends_with(&format!("_{text}")), "{comment}");
            }
            other => panic!("{other} in {comment}"),
        }
    }

    fn sample(&mut self, line: &str, current: &str) {
        let (series, value) = line.rsplit_once(' ').expect("a value");
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
        let (name, labels) = match series.split_once('{') {
            Some((name, rest)) => (name, rest.strip_suffix('}').expect(line)),
            None => (series, ""),
        };
        let labels = read_labels(labels);
        self.label_values.extend(labels.values().cloned());
        let family = self.families.get_mut(current).expect(line);
        let suffix = name.strip_prefix(current).expect(line);
        match (&*family.kind, suffix) {
            ("counter", "_total") if self.is_open_metrics => {}
            ("counter", "") if !self.is_open_metrics && name.ends_with("_total") => {}
            ("gauge", "") | ("histogram", "_sum" | "_count") => {}
            ("histogram", "_bucket") => {
                let bound = &labels["le"];
                let bound = if bound == "+Inf" { "inf" } else { bound };
                family.buckets.push((bound.parse().expect(line), value));
            }
            (kind, suffix) => panic!("{suffix} of a {kind}: {line}"),
        }
        assert!(value >= 0.0, "{line}");
        // OpenMetrics has a bound of 1 as 1.0.
        let series = series.replace(".0\"", "\"");
        let before = self.series.insert(series.clone(), value);
        assert_eq!(before, None, "{series} comes twice");
    }

    fn check_histograms(&self) {
        for (name, family) in &self.families {
            assert!(family.has_help && !family.kind.is_empty(), "{name}");
            if family.kind != "histogram" {
                continue;
            }
            let pairs = family.buckets.windows(2);
            for pair in pairs {
                assert!(pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1, "{name}");
            }
            let last = family.buckets.last().copied();
            let count = self.value(&format!("{name}_count")).expect("a count");
            assert_eq!(last, Some((f64::INFINITY, count)), "{name}");
            assert!(self.value(&format!("{name}_sum")).is_some(), "{name}");
        }
    }
}

/// Labels as they stand between braces, without their escapes.
fn read_labels(text: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (name, after) = rest.split_once("=\"").expect(text);
        assert!(is_label_name(name), "{name}");
        let mut value = String::new();
        let mut characters = after.char_indices();
        let end = loop {
            match characters.next().expect("a closing quote") {
                (at, '"') => break at,
                (_, '\\') => value.push(match characters.next().expect("an escape").1 {
                    'n' => '\n',
                    c @ ('\\' | '"') => c,
                    other => panic!("\\{other} in {text}"),
                }),
                (_, c) => value.push(c),
            }
        };
        assert!(labels.insert(name.to_owned(), value).is_none(), "{text}");
        rest = &after[end + 1..];
        rest = match rest.strip_prefix(',') {
            Some(next) => next,
            None => {
                assert!(rest.is_empty(), "{text}");
                rest
            }
        };
    }
    labels
}

fn is_metric_name(name: &str) -> bool {
    let first = name.chars().next();
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    first.is_some_and(|c| !c.is_ascii_digit()) && name.chars().all(is_part)
}

fn is_label_name(name: &str) -> bool {
    is_metric_name(name) && !name.contains(':')
}
