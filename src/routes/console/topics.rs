//! `GET /console/topics?contains=<text>&limit=<n>`: which topics the user of the request may read.

use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, Response, StatusCode};
use serde::Serialize;

use super::readable_topics::{ReadableTopic, ReadableTopics};
use crate::app::{App, no_broker};
use crate::auth::{self, ClientIdentity};
use crate::http_error::{HttpError, json_response};
use crate::near_miss;

/// How many topics an answer has, unless `limit` says otherwise.
const LIMIT: usize = 200;
/// How many it may have.
const LIMIT_MAX: usize = 1_000;

/// The parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
struct TopicsQuery {
    /// What a name must contain, whatever the case of its letters.
    contains: String,
    limit: usize,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct TopicsResponse<'a> {
    topics: Vec<TopicResponse<'a>>,
    /// Whether there are more than that.
    more: bool,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct TopicResponse<'a> {
    name: &'a str,
    partitions: usize,
}

/// `{"topics":[{"name","partitions"}],"more"}`, sorted by name.
pub(super) async fn topics(
    (headers, identity): (HeaderMap, Option<ClientIdentity>),
    query: String,
    (app, readable): (App, ReadableTopics),
) -> Response<String> {
    let answer = async {
        let query = TopicsQuery::parse(&query)?;
        let (identity, config) = (identity.as_ref(), &app.config.server);
        let client = match auth::kafka_credentials(&headers, identity, config)? {
            Some(user) => app.client_of(&user).await?,
            None => app.principals.lease_own(),
        };
        let topics = app.unless_outage(readable.of(client)).await?;
        let topics = topics.map_err(|reason| no_broker(&reason))?;
        Ok(json_response(StatusCode::OK, &query.answer(&topics)))
    };
    answer.await.unwrap_or_else(|error: HttpError| {
        tracing::debug!(reason = error.reason(), "the topics are not listed");
        let error = error.exposing_brokers(app.exposes_brokers());
        let mut response = error.into_response();
        // A browser would ask its user by itself, and the page does that.
        response.headers_mut().remove(WWW_AUTHENTICATE);
        response
    })
}

impl TopicsQuery {
    /// Reads them; what is not known, and nearly no known name, is left to others.
    fn parse(query: &str) -> Result<Self, HttpError> {
        let (mut contains, mut limit) = (None, None);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let is_repeated = match &*name {
                "contains" => contains.replace(value.into_owned()).is_some(),
                "limit" => limit.replace(parse_limit(&value)?).is_some(),
                name => match near_miss::find(name.as_bytes(), &["contains", "limit"]) {
                    Some(meant) => {
                        let message = format!("parameter {name}: it is called {meant}");
                        return Err(HttpError::bad_request(message));
                    }
                    None => false,
                },
            };
            if is_repeated {
                let message = format!("parameter {name}: it may be given once");
                return Err(HttpError::bad_request(message));
            }
        }
        Ok(Self {
            contains: contains.unwrap_or_default(),
            limit: limit.unwrap_or(LIMIT),
        })
    }

    fn answer<'a>(&self, topics: &'a [ReadableTopic]) -> TopicsResponse<'a> {
        let text = self.contains.as_bytes();
        let matches = |topic: &&ReadableTopic| {
            let mut parts = topic.name.as_bytes().windows(text.len().max(1));
            text.is_empty() || parts.any(|part| part.eq_ignore_ascii_case(text))
        };
        let mut found = topics.iter().filter(matches);
        let topics = found.by_ref().take(self.limit).map(|topic| TopicResponse {
            name: &topic.name,
            partitions: topic.partitions,
        });
        TopicsResponse {
            topics: topics.collect(),
            more: found.next().is_some(),
        }
    }
}

fn parse_limit(text: &str) -> Result<usize, HttpError> {
    let limit = text.parse().ok();
    let limit = limit.filter(|limit| (1..=LIMIT_MAX).contains(limit));
    limit.ok_or_else(|| {
        HttpError::bad_request(format!(
            "parameter limit: it must be a number from 1 to {LIMIT_MAX}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Result<(String, usize), String> {
        let query = TopicsQuery::parse(text).map_err(|error| error.message)?;
        Ok((query.contains, query.limit))
    }

    #[test]
    fn parameters_are_read_or_refused_by_name() {
        let of = |contains: &str, limit| Ok((contains.to_owned(), limit));
        assert_eq!(query(""), of("", 200));
        assert_eq!(query("limit=1000&contains=Or%20d&x=y"), of("Or d", 1000));
        for (text, parameter) in [
            ("limit=0", "limit"),
            ("limit=1001", "limit"),
            ("limit=", "limit"),
            ("limit=-1", "limit"),
            ("limit=1&limit=2", "limit"),
            ("contains=a&contains=b", "contains"),
            ("limits=3", "limits"),
            ("Contains=a", "Contains"),
        ] {
            let refused = query(text).unwrap_err();
            let expected = format!("parameter {parameter}: ");
            assert!(refused.starts_with(&expected), "{text}: {refused}");
        }
    }

    #[test]
    fn an_answer_has_what_matches_up_to_its_limit_and_says_whether_there_is_more() {
        let topics = ["Orders", "logs", "orders.eu", "reorders"].map(|name| ReadableTopic {
            name: name.into(),
            partitions: 3,
        });
        let names = |text: &str| {
            let answer = TopicsQuery::parse(text).unwrap().answer(&topics);
            let names = answer.topics.iter().map(|topic| topic.name);
            (names.collect::<Vec<_>>(), answer.more)
        };
        assert_eq!(
            names("limit=4"),
            (vec!["Orders", "logs", "orders.eu", "reorders"], false)
        );
        assert_eq!(
            names("limit=3"),
            (vec!["Orders", "logs", "orders.eu"], true)
        );
        assert_eq!(
            names("contains=ORDER&limit=2"),
            (vec!["Orders", "orders.eu"], true)
        );
        assert!(!names("contains=order&limit=3").1);
        assert_eq!(names("contains=nothing"), (vec![], false));
    }
}
