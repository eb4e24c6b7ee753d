//! Which topics the members of a group subscribe to, as consumers write it in their metadata.

use super::ClassicGroup;

impl ClassicGroup {
    /// Whether a member of this generation subscribes to the topic; all are taken to while none is
    /// chosen, and a member whose metadata are not those of a consumer.
    pub(crate) fn is_subscribed_to(&self, topic: &str) -> bool {
        let protocol = self.protocol();
        self.members().iter().any(|member| {
            let metadata = member.metadata(&protocol);
            let topics = metadata.as_deref().and_then(topics);
            topics.is_none_or(|topics| topics.contains(&topic.as_bytes()))
        })
    }
}

/// The topics of a subscription: a version, a count, and so many names.
fn topics(mut metadata: &[u8]) -> Option<Vec<&[u8]>> {
    take(&mut metadata, 2)?;
    let count = u32::from_be_bytes(take(&mut metadata, 4)?.try_into().ok()?);
    let mut topics = Vec::new();
    for _ in 0..count {
        let length = u16::from_be_bytes(take(&mut metadata, 2)?.try_into().ok()?);
        topics.push(take(&mut metadata, length.into())?);
    }
    Some(topics)
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topics_of_a_subscription_are_read_and_what_is_none_is_told_from_it() {
        let subscription = b"\0\x03\0\0\0\x02\0\x01a\0\x02bc\xff\xff\xff\xff";
        let found = topics(subscription).unwrap();
        assert_eq!(found, [b"a".as_slice(), b"bc"]);
        assert_eq!(topics(&subscription[..8]), None);
        assert_eq!(topics(b"\0\0\xff\xff\xff\xff"), None);
    }
}
