//! `server.topics.*`: which topics clients may use.

use super::value::ParsedValue;

/// What Kafka's own topics begin with: `__consumer_offsets`, `__transaction_state`, ….
pub(crate) const INTERNAL_PREFIX: &str = "__";

/// Globs of topic names: `*` is any text, `?` any character, and the whole name must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicGlobs(Vec<String>);

impl TopicGlobs {
    /// Reads globs between commas.
    pub(super) fn parse(text: &str) -> ParsedValue<Self> {
        let globs = text
            .split(',')
            .map(str::trim)
            .filter(|glob| !glob.is_empty());
        let globs: Vec<_> = globs.map(str::to_owned).collect();
        let is_legal = |c: char| c.is_ascii_alphanumeric() || "._-*?".contains(c);
        match globs.iter().all(|glob| glob.chars().all(is_legal)) {
            true => Ok(Self(globs)),
            false => Err(
                "globs of topic names, such as orders.*: a-z, A-Z, 0-9, dots, _ and -, with * for any \
                 text and ? for one character"
                    .to_owned(),
            ),
        }
    }

    /// Whether a topic of that name may be used. Without a glob every one may that is not Kafka's own,
    /// and one of those is allowed by no glob but one that begins as they do.
    pub(crate) fn allow(&self, topic: &str) -> bool {
        let is_internal = topic.starts_with(INTERNAL_PREFIX);
        if self.0.is_empty() {
            return !is_internal;
        }
        let mut globs = self.0.iter();
        globs.any(|glob| {
            (!is_internal || glob.starts_with(INTERNAL_PREFIX))
                && fits(glob.as_bytes(), topic.as_bytes())
        })
    }
}

/// Whether the whole name fits the glob. A `*` takes as little as it can, and the last one more when
/// the rest does not fit, which takes no longer than the product of both lengths.
fn fits(glob: &[u8], name: &[u8]) -> bool {
    let (mut at, mut in_name) = (0, 0);
    // Behind the last `*`, and where in the name what it took ends.
    let mut star = None;
    while in_name < name.len() {
        match glob.get(at) {
            Some(b'*') => {
                at += 1;
                star = Some((at, in_name));
            }
            Some(byte) if *byte == b'?' || *byte == name[in_name] => {
                at += 1;
                in_name += 1;
            }
            _ => {
                let Some((behind, taken)) = star else {
                    return false;
                };
                star = Some((behind, taken + 1));
                (at, in_name) = (behind, taken + 1);
            }
        }
    }
    glob[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(globs: &str, topic: &str) -> bool {
        TopicGlobs::parse(globs).unwrap().allow(topic)
    }

    #[test]
    fn a_glob_is_anchored_and_case_sensitive() {
        for (globs, topic) in [
            ("orders", "orders"),
            ("orders.*", "orders.eu"),
            ("orders.*", "orders."),
            ("*", "a"),
            ("*.eu", "orders.eu.eu"),
            ("a*b*c", "a-b-b-c"),
            ("a?c", "abc"),
            ("x, a?c", "a.c"),
            ("**a", "ba"),
        ] {
            assert!(allows(globs, topic), "{globs} {topic}");
        }
        for (globs, topic) in [
            ("orders", "orders2"),
            ("orders", "my-orders"),
            ("orders.*", "orders"),
            ("Orders", "orders"),
            ("a?c", "ac"),
            ("a*b*c", "a-b-b"),
            ("*a", "ab"),
            // A dot is a dot.
            ("a.c", "abc"),
        ] {
            assert!(!allows(globs, topic), "{globs} {topic}");
        }
    }

    #[test]
    fn topics_of_kafka_itself_are_reached_only_by_a_glob_that_begins_as_they_do() {
        for (globs, allowed) in [
            ("", false),
            ("*", false),
            ("_*", false),
            ("?_consumer_offsets", false),
            ("__*", true),
            ("__consumer_offsets", true),
        ] {
            assert_eq!(allows(globs, "__consumer_offsets"), allowed, "{globs}");
        }
        assert!(allows("", "_schemas") && allows("_*", "_schemas"));
    }

    #[test]
    fn many_stars_take_no_longer_than_a_few() {
        let glob = "*a".repeat(100);
        assert!(!allows(&glob, &"a".repeat(99)) && allows(&glob, &"a".repeat(100)));
        assert!(!allows(&format!("{glob}b"), &"a".repeat(249)));
    }

    #[test]
    fn what_is_in_no_topic_name_is_in_no_glob() {
        assert!(TopicGlobs::parse("orders/*").is_err());
        assert!(TopicGlobs::parse("[ab]").is_err());
        assert_eq!(TopicGlobs::parse(" , "), Ok(TopicGlobs::default()));
    }
}
