//! An entry of a client's limits, as JSON, and what may be wrong with one.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::config::{BATCH_SIZE_MAX, ClientLimit, LimitedClients};
use crate::http_error::HttpError;
use crate::near_miss;
use crate::quotas::LimitedId;

const MAX_CONNECTIONS: &str = "max-connections";
const MESSAGES_PER_SECOND: &str = "messages-per-second";
const BATCH_SIZE: &str = "batch-size";

/// An entry; what it lacks is as for all.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct LimitEntry<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    group_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    producer_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_connections: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages_per_second: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    batch_size: Option<u32>,
}

impl<'a> LimitEntry<'a> {
    pub(super) fn new(clients: LimitedClients, id: &'a str, limit: ClientLimit) -> Self {
        let is_group = clients == LimitedClients::Groups;
        Self {
            group_id: is_group.then_some(id),
            producer_id: (!is_group).then_some(id),
            max_connections: limit.max_connections,
            messages_per_second: limit.messages_per_second,
            batch_size: limit.batch_size.filter(|_| is_group),
        }
    }
}

/// Reads the entry for a client; the id may be left out, since the path has it.
///
/// # Errors
/// 400, with the first field that is wrong.
pub(super) fn parse(body: &[u8], of: &LimitedId) -> Result<ClientLimit, HttpError> {
    let fields: Map<String, Value> = serde_json::from_slice(body).map_err(|error| {
        HttpError::bad_request(format!("the body must be a JSON object: {error}"))
    })?;
    let id_name = of.clients.id();
    let mut known = vec![id_name, MAX_CONNECTIONS, MESSAGES_PER_SECOND];
    known.extend((of.clients == LimitedClients::Groups).then_some(BATCH_SIZE));
    let mut limit = ClientLimit::default();
    for (name, value) in &fields {
        match name.as_str() {
            id if id == id_name => check_id(id, value, &of.id)?,
            name if !known.contains(&name) => return Err(unknown(name, &known)),
            MAX_CONNECTIONS => limit.max_connections = Some(number(name, value, u32::MAX)?),
            MESSAGES_PER_SECOND => limit.messages_per_second = Some(number(name, value, u32::MAX)?),
            _ => limit.batch_size = Some(number(name, value, BATCH_SIZE_MAX)?),
        }
    }
    Ok(limit)
}

fn check_id(name: &str, value: &Value, id: &str) -> Result<(), HttpError> {
    match value.as_str() {
        Some(given) if given == id => Ok(()),
        _ => Err(HttpError::bad_request(format!(
            "field {name}: {value} is not that of the path, {id:?}"
        ))),
    }
}

fn unknown(name: &str, known: &[&str]) -> HttpError {
    HttpError::bad_request(match near_miss::find_field(name.as_bytes(), known) {
        Some(meant) => format!("field {name:?}: it is called {meant}"),
        None => format!(
            "field {name:?} is not known; there are {}",
            known.join(", ")
        ),
    })
}

fn number(name: &str, value: &Value, max: u32) -> Result<u32, HttpError> {
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
    number.filter(|number| *number <= max).ok_or_else(|| {
        HttpError::bad_request(format!(
            "field {name}: {value} is not allowed; allowed: a whole number, 0 (no limit) to {max}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(clients: LimitedClients, body: &str) -> Result<ClientLimit, String> {
        let id = LimitedId {
            clients,
            id: "a".into(),
        };
        parse(body.as_bytes(), &id).map_err(|error| error.message)
    }

    #[test]
    fn what_is_read_is_written_again_and_what_it_lacks_is_left_out() {
        let body = r#"{"group-id":"a","max-connections":4294967295,"messages-per-second":0,"batch-size":100}"#;
        let limit = read(LimitedClients::Groups, body).unwrap();
        let entry = LimitEntry::new(LimitedClients::Groups, "a", limit);
        assert_eq!(serde_json::to_string(&entry).unwrap(), body);
        let limit = read(LimitedClients::Producers, "{}").unwrap();
        let entry = LimitEntry::new(LimitedClients::Producers, "a", limit);
        assert_eq!(
            serde_json::to_string(&entry).unwrap(),
            r#"{"producer-id":"a"}"#
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_what_is_allowed() {
        use LimitedClients::{Groups, Producers};
        for (clients, body, fault) in [
            (Groups, "", "the body must be a JSON object"),
            (Groups, "[]", "the body must be a JSON object"),
            (
                Groups,
                r#"{"group-id":"b"}"#,
                r#"field group-id: "b" is not that of the path, "a""#,
            ),
            (Groups, r#"{"group-id":1}"#, "field group-id: 1 is not"),
            (
                Groups,
                r#"{"producer-id":"a"}"#,
                r#"field "producer-id" is not known; there are group-id, "#,
            ),
            (
                Producers,
                r#"{"batch-size":1}"#,
                r#"field "batch-size" is not known"#,
            ),
            (
                Groups,
                r#"{"max-connection":1}"#,
                "it is called max-connections",
            ),
            (
                Groups,
                r#"{"max-connections":"1"}"#,
                r#"field max-connections: "1" is not allowed; allowed: a whole number, 0 (no limit) to 4294967295"#,
            ),
            (
                Groups,
                r#"{"max-connections":null}"#,
                "field max-connections: null is not",
            ),
            (
                Groups,
                r#"{"messages-per-second":-1}"#,
                "field messages-per-second: -1 is not",
            ),
            (
                Groups,
                r#"{"messages-per-second":1.5}"#,
                "field messages-per-second: 1.5 is not",
            ),
            (
                Groups,
                r#"{"messages-per-second":4294967296}"#,
                "to 4294967295",
            ),
            (Groups, r#"{"batch-size":1000001}"#, "to 1000000"),
        ] {
            let error = read(clients, body).unwrap_err();
            assert!(error.contains(fault), "{body}: {error}");
        }
    }
}
