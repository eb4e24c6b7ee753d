//! The paths of the admin server.
//!
//! Ids and a topic's name are percent-decoded, segment by segment: an id may hold any characters, a
//! slash too. The fixed words of a path are written as they are, so that the group `producer` is
//! `%70roducer`.

use http::StatusCode;
use percent_encoding::percent_decode_str;

use crate::config::LimitedClients;
use crate::http_error::HttpError;
use crate::quotas::LimitedId;
use crate::session::SocketSelector;

/// What a path is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AdminPath {
    /// The brokers.
    KafkaInfo,
    /// The limits of all clients.
    ClientConfig,
    /// Those of one.
    ClientLimit(LimitedId),
    /// All groups.
    Groups,
    /// One group.
    Describe(String),
    /// What a group has committed.
    Offsets(String),
    /// What it has committed for a topic.
    Alter { group: String, topic: String },
    /// The open sockets of all nodes.
    Sessions,
    /// Some of them.
    Session(SocketSelector),
}

/// Every path, as people write it.
const PATHS: &[&str] = &[
    "/admin/kafka/info",
    "/admin/client/config",
    "/admin/client/config/consumer/<groupId>",
    "/admin/client/config/producer/<clientId>",
    "/admin/consumer-group/all",
    "/admin/consumer-group/<id>/describe",
    "/admin/consumer-group/<id>/offsets",
    "/admin/consumer-group/<id>/offsets/alter/<topic>",
    "/admin/sessions",
    "/admin/sessions/<groupId>/<clientId>",
    "/admin/sessions/producer/<clientId>",
    "/admin/sessions/producer/<clientId>/<instanceId>",
];

impl AdminPath {
    /// Reads a path, with or without a slash at its end.
    ///
    /// # Errors
    /// 404 for a path that there is not, 400 for an id that is not UTF-8.
    pub(super) fn parse(path: &str) -> Result<Self, HttpError> {
        let path = path.strip_suffix('/').unwrap_or(path);
        let segments: Vec<_> = path.split('/').skip(1).collect();
        if segments.iter().any(|segment| segment.is_empty()) {
            return Err(no_such_path());
        }
        Ok(match segments[..] {
            ["admin", "kafka", "info"] => Self::KafkaInfo,
            ["admin", "client", "config"] => Self::ClientConfig,
            ["admin", "client", "config", "consumer", id] => {
                Self::ClientLimit(limited(LimitedClients::Groups, id)?)
            }
            ["admin", "client", "config", "producer", id] => {
                Self::ClientLimit(limited(LimitedClients::Producers, id)?)
            }
            ["admin", "consumer-group", "all"] => Self::Groups,
            ["admin", "consumer-group", id, "describe"] => Self::Describe(decoded(id)?),
            ["admin", "consumer-group", id, "offsets"] => Self::Offsets(decoded(id)?),
            ["admin", "consumer-group", id, "offsets", "alter", topic] => Self::Alter {
                group: decoded(id)?,
                topic: decoded(topic)?,
            },
            ["admin", "sessions"] => Self::Sessions,
            ["admin", "sessions", "producer", client] => Self::Session(SocketSelector::Producer {
                client_id: decoded(client)?,
                instance_id: None,
            }),
            ["admin", "sessions", "producer", client, instance] => {
                Self::Session(SocketSelector::Producer {
                    client_id: decoded(client)?,
                    instance_id: Some(decoded(instance)?),
                })
            }
            ["admin", "sessions", group, client] => Self::Session(SocketSelector::Member {
                group_id: decoded(group)?,
                client_id: decoded(client)?,
            }),
            _ => return Err(no_such_path()),
        })
    }

    /// The methods that it answers, as `Allow` lists them.
    pub(super) fn allowed(&self) -> &'static str {
        match self {
            Self::KafkaInfo | Self::Groups | Self::Describe(_) | Self::Sessions => {
                "GET, HEAD, OPTIONS"
            }
            Self::ClientConfig | Self::Offsets(_) => "GET, HEAD, DELETE, OPTIONS",
            Self::ClientLimit(_) => "GET, HEAD, POST, PUT, DELETE, OPTIONS",
            Self::Alter { .. } => "PUT, OPTIONS",
            Self::Session(_) => "DELETE, OPTIONS",
        }
    }
}

fn limited(clients: LimitedClients, id: &str) -> Result<LimitedId, HttpError> {
    let id = decoded(id)?.into();
    Ok(LimitedId { clients, id })
}

fn no_such_path() -> HttpError {
    let paths = PATHS.join(", ");
    let message = format!("there is nothing at this path; there are {paths}");
    HttpError::new(StatusCode::NOT_FOUND, message)
}

fn decoded(segment: &str) -> Result<String, HttpError> {
    let decoded = percent_decode_str(segment).decode_utf8();
    let decoded = decoded.map_err(|_| {
        HttpError::bad_request(format!("{segment:?} in the path is not UTF-8 when decoded"))
    });
    Ok(decoded?.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(path: &str) -> u16 {
        AdminPath::parse(path).unwrap_err().status.as_u16()
    }

    #[test]
    fn ids_are_decoded_and_may_hold_any_characters() {
        assert_eq!(
            AdminPath::parse("/admin/consumer-group/a%2Fb%20%C3%BC%25/describe").unwrap(),
            AdminPath::Describe("a/b ü%".to_owned())
        );
        assert_eq!(
            AdminPath::parse("/admin/consumer-group/offsets/offsets/alter/all/").unwrap(),
            AdminPath::Alter {
                group: "offsets".to_owned(),
                topic: "all".to_owned()
            }
        );
        assert_eq!(
            AdminPath::parse("/admin/consumer-group/all/offsets").unwrap(),
            AdminPath::Offsets("all".to_owned())
        );
        let member = |group: &str, client: &str| {
            AdminPath::Session(SocketSelector::Member {
                group_id: group.to_owned(),
                client_id: client.to_owned(),
            })
        };
        let producer = |client: &str, instance: Option<&str>| {
            AdminPath::Session(SocketSelector::Producer {
                client_id: client.to_owned(),
                instance_id: instance.map(str::to_owned),
            })
        };
        for (path, expected) in [
            ("/admin/sessions/a%2Fb/%C3%BC", member("a/b", "ü")),
            ("/admin/sessions/%70roducer/c", member("producer", "c")),
            ("/admin/sessions/producer/c%2Fd", producer("c/d", None)),
            ("/admin/sessions/producer/c/1%25", producer("c", Some("1%"))),
        ] {
            assert_eq!(AdminPath::parse(path).unwrap(), expected, "{path}");
        }
        let of = |clients, id: &str| {
            let id = id.into();
            AdminPath::ClientLimit(LimitedId { clients, id })
        };
        assert_eq!(
            AdminPath::parse("/admin/client/config/consumer/a%2Fb").unwrap(),
            of(LimitedClients::Groups, "a/b")
        );
        assert_eq!(
            AdminPath::parse("/admin/client/config/producer/consumer/").unwrap(),
            of(LimitedClients::Producers, "consumer")
        );
        // Not a form: a plus is a plus.
        assert_eq!(
            AdminPath::parse("/admin/consumer-group/a+b/offsets").unwrap(),
            AdminPath::Offsets("a+b".to_owned())
        );
    }

    #[test]
    fn what_is_no_path_of_it_is_not_found_and_what_is_no_text_is_refused() {
        for path in [
            "/",
            "*",
            "/admin",
            "/socket/in",
            "/admin/consumer-group//describe",
            "/admin/consumer-group/a/b/describe",
            "/admin/consumer%2Dgroup/all",
            "/Admin/consumer-group/all",
            "/admin/sessions/a",
            "/admin/sessions/a/b/c",
            "/admin/client/config/consumer",
            "/admin/client/config/group/a",
        ] {
            assert_eq!(status(path), 404, "{path}");
        }
        assert_eq!(status("/admin/consumer-group/%ff/describe"), 400);
    }
}
