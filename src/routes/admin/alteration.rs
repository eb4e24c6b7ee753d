//! The offsets that an administrator sets, as JSON, and what may be wrong with them.
//!
//! They are those of the list of offsets: whoever has asked for it changes a number and sends it
//! back. What else stands in an entry does not count.

use std::collections::HashSet;
use std::sync::Arc;

use kafka_client::TopicPartition;
use kafka_client::admin::groups::{GroupOffset, LogEndOffset, LogEndOffsets};
use serde::Deserialize;
use serde_json::Value;

use crate::http_error::HttpError;
use crate::near_miss;

#[derive(Deserialize)]
struct OffsetEntry {
    topic: String,
    partition: i32,
    offset: i64,
    #[serde(default)]
    metadata: Option<String>,
}

/// What an entry may have.
const FIELDS: &[&str] = &[
    "topic",
    "partition",
    "offset",
    "metadata",
    "logEndOffset",
    "lag",
];

/// Reads the offsets for a topic.
///
/// # Errors
/// 400, with the first entry that is wrong.
pub(super) fn parse(body: &[u8], topic: &Arc<str>) -> Result<Vec<GroupOffset>, HttpError> {
    let entries: Vec<Value> = serde_json::from_slice(body).map_err(|error| {
        HttpError::bad_request(format!("the body must be a JSON array of offsets: {error}"))
    })?;
    let mut partitions = HashSet::new();
    let mut offsets = Vec::with_capacity(entries.len());
    for (number, entry) in (1..).zip(entries) {
        let offset = parse_entry(entry, topic);
        let offset = offset.and_then(|offset| match partitions.insert(offset.tp.partition) {
            true => Ok(offset),
            false => Err(format!("partition {} occurs twice", offset.tp.partition)),
        });
        offsets.push(offset.map_err(|fault| wrong(number, &fault))?);
    }
    Ok(offsets)
}

fn parse_entry(entry: Value, topic: &Arc<str>) -> Result<GroupOffset, String> {
    let fields = entry.as_object().ok_or("it is no JSON object")?;
    let unknown = fields
        .keys()
        .filter(|name| !FIELDS.contains(&name.as_str()));
    for name in unknown {
        if let Some(meant) = near_miss::find_field(name.as_bytes(), FIELDS) {
            return Err(format!("field {name:?}: it is called {meant}"));
        }
    }
    let entry: OffsetEntry = serde_json::from_value(entry).map_err(|error| error.to_string())?;
    if entry.topic != **topic {
        return Err(format!(
            "topic {:?} is not that of the path, {topic:?}",
            entry.topic
        ));
    }
    if entry.offset < 0 {
        return Err(format!("offset {} is negative", entry.offset));
    }
    Ok(GroupOffset {
        tp: TopicPartition::new(Arc::clone(topic), entry.partition),
        offset: entry.offset,
        metadata: entry.metadata.unwrap_or_default().into(),
    })
}

/// Whether the logs have these offsets, or begin with them next.
///
/// # Errors
/// 400 with the first entry that is beyond its log, or of no partition; 503 when nobody says where
/// a log ends.
pub(super) fn check(new: &[GroupOffset], ends: &LogEndOffsets) -> Result<(), HttpError> {
    for (number, GroupOffset { tp, offset, .. }) in (1..).zip(new) {
        let fault = match ends.get(tp) {
            LogEndOffset::At(end) if *offset <= end => continue,
            LogEndOffset::At(end) => {
                format!("{tp}: offset {offset} is beyond the end of its log, {end}")
            }
            LogEndOffset::NoPartition => format!("{tp} does not exist"),
            LogEndOffset::Unknown => {
                let message = format!("no broker says where the log of {tp} ends");
                return Err(HttpError::unavailable(message));
            }
        };
        return Err(wrong(number, &fault));
    }
    Ok(())
}

fn wrong(number: usize, fault: &str) -> HttpError {
    HttpError::bad_request(format!("entry {number}: {fault}; nothing is changed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(body: &str) -> Result<Vec<GroupOffset>, String> {
        parse(body.as_bytes(), &"t".into()).map_err(|error| {
            assert_eq!(error.status, 400);
            error.message
        })
    }

    #[test]
    fn what_the_list_says_can_be_sent_back() {
        let body = r#"[{"topic":"t","partition":2,"offset":7,"metadata":"m","logEndOffset":9,"lag":2},
                       {"topic":"t","partition":0,"offset":0}]"#;
        let offset = |partition, offset, metadata: &str| GroupOffset {
            tp: TopicPartition::new("t", partition),
            offset,
            metadata: metadata.into(),
        };
        assert_eq!(parsed(body), Ok(vec![offset(2, 7, "m"), offset(0, 0, "")]));
        assert_eq!(parsed("[]"), Ok(vec![]));
    }

    #[test]
    fn the_entry_that_is_wrong_is_named() {
        let good = r#"{"topic":"t","partition":0,"offset":1}"#;
        for (entry, said) in [
            (r#"{"topic":"u","partition":1,"offset":1}"#, "of the path"),
            (r#"{"topic":"t","partition":1,"offset":-1}"#, "negative"),
            (r#"{"topic":"t","partition":0,"offset":2}"#, "twice"),
            (r#"{"topic":"t","partition":1}"#, "`offset`"),
            (r#"{"topic":"t","partition":1,"ofset":1}"#, "called offset"),
            (r#"{"topic":"t","partition":1,"offset":1.5}"#, "1.5"),
            ("7", "no JSON object"),
        ] {
            let message = parsed(&format!("[{good},{entry}]")).unwrap_err();
            let named = message.starts_with("entry 2: ") && message.contains(said);
            assert!(named, "{message}");
        }
        assert!(parsed("{}").unwrap_err().contains("JSON array"));
    }
}
