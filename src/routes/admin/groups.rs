//! Groups: all of them, and one with its members.

use bytes::Bytes;
use futures_util::stream::poll_fn;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};
use kafka_client::admin::groups::{
    ConsumerGroupDescription, DescriptionDetail, GroupAdmin, GroupAdminError, GroupListing,
    MemberDescription,
};
use serde::Serialize;
use tokio::sync::mpsc;
use warp::Reply;
use warp::reply::Response;

use crate::app::App;
use crate::http_error::{HttpError, json_response};
use crate::near_miss;

/// The parameters of the list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ListQuery {
    /// Without groups that have no members.
    active_only: bool,
    /// With groups whose names begin with two underscores.
    include_internals: bool,
}

/// How names begin that are not meant for people.
const INTERNAL_PREFIX: &str = "__";

impl ListQuery {
    /// Reads them; what is not known, and nearly no known name, is left to others.
    pub(super) fn parse(query: &str) -> Result<Self, HttpError> {
        let (mut active_only, mut include_internals) = (None, None);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let is_repeated = match &*name {
                "activeOnly" => active_only.replace(boolean(&name, &value)?).is_some(),
                "includeInternals" => {
                    let value = boolean(&name, &value)?;
                    include_internals.replace(value).is_some()
                }
                name => {
                    let known = ["activeOnly", "includeInternals"];
                    if let Some(meant) = near_miss::find(name.as_bytes(), &known) {
                        let message = format!("parameter {name:?}: it is called {meant}");
                        return Err(HttpError::bad_request(message));
                    }
                    false
                }
            };
            if is_repeated {
                let message = format!("parameter {name} is given twice; allowed: once");
                return Err(HttpError::bad_request(message));
            }
        }
        Ok(Self {
            active_only: active_only.unwrap_or_default(),
            include_internals: include_internals.unwrap_or_default(),
        })
    }

    fn admits(self, group_id: &str) -> bool {
        self.include_internals || !group_id.starts_with(INTERNAL_PREFIX)
    }
}

fn boolean(name: &str, value: &str) -> Result<bool, HttpError> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => {
            let message =
                format!("parameter {name}: {value:?} is not allowed; allowed: true, false");
            Err(HttpError::bad_request(message))
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ListedGroup<'a> {
    group_id: &'a str,
    is_simple: bool,
    state: &'static str,
    members: Vec<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DescribedGroup<'a> {
    group_id: &'a str,
    is_simple: bool,
    state: &'static str,
    partition_assignor: &'a str,
    members: Vec<DescribedMember<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DescribedMember<'a> {
    client_id: &'a str,
    host: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance_id: Option<&'a str>,
    partitions: Vec<AssignedPartition<'a>>,
}

#[derive(Serialize)]
struct AssignedPartition<'a> {
    topic: &'a str,
    partition: i32,
}

/// One group, with what its members read.
pub(super) async fn describe(app: &App, group: &str) -> Result<Response, HttpError> {
    let group = app.group_admin.describe_group(&group.into()).await?;
    let members = group.members.iter().map(DescribedMember::of);
    let described = DescribedGroup {
        group_id: &group.group_id,
        is_simple: group.is_simple,
        state: group.state.name(),
        partition_assignor: &group.partition_assignor,
        members: members.collect(),
    };
    Ok(json_response(StatusCode::OK, &described).into_response())
}

impl<'a> DescribedMember<'a> {
    fn of(member: &'a MemberDescription) -> Self {
        let partitions = member.partitions.iter().map(|tp| AssignedPartition {
            topic: &tp.topic,
            partition: tp.partition,
        });
        Self {
            client_id: &member.client_id,
            host: &member.host,
            instance_id: member.instance_id.as_deref(),
            partitions: partitions.collect(),
        }
    }
}

/// All groups, written as they are described: so many wait in memory as two batches have, however
/// many there are and however slowly the client reads.
pub(super) async fn list(app: &App, query: ListQuery) -> Result<Response, HttpError> {
    let mut listed = app.group_admin.list_groups(query.active_only).await?;
    listed.retain(|group| query.admits(&group.group_id));
    let mut list = GroupList {
        groups: app.group_admin.clone(),
        batches: GroupAdmin::batches(listed).into_iter(),
        query,
        is_first: true,
    };
    // What is wrong with the brokers most probably shows before the answer has begun.
    let first = list.next_part().await?;
    let (sender, mut parts) = mpsc::channel(1);
    let (tasks, stop) = (app.cluster().tasks(), app.cluster().stop());
    let writing = list.write(first, sender);
    tasks.spawn(stop.clone().run_until_cancelled_owned(writing));
    let body = warp::reply::stream(poll_fn(move |context| parts.poll_recv(context)));
    let mut response = body.into_response();
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    Ok(response)
}

/// The list that is being written.
struct GroupList {
    groups: GroupAdmin,
    batches: std::vec::IntoIter<Vec<GroupListing>>,
    query: ListQuery,
    is_first: bool,
}

/// A part of the answer; an error ends it before its end, so that no client takes it for whole.
type ListPart = Result<Bytes, GroupAdminError>;

impl GroupList {
    /// Sends all parts, for as long as the client is there.
    async fn write(mut self, first: Option<Bytes>, parts: mpsc::Sender<ListPart>) {
        let mut next = Ok(first);
        loop {
            let (part, is_last) = match next {
                Ok(Some(part)) => (Ok(part), false),
                Ok(None) => (Ok(self.end()), true),
                Err(error) => {
                    tracing::warn!(%error, "a list of groups is cut off");
                    (Err(error), true)
                }
            };
            if parts.send(part).await.is_err() || is_last {
                return;
            }
            next = self.next_part().await;
        }
    }

    /// The groups of the next batch; `None` when there are no more.
    async fn next_part(&mut self) -> Result<Option<Bytes>, GroupAdminError> {
        for batch in self.batches.by_ref() {
            let described = self
                .groups
                .describe_groups(&batch, DescriptionDetail::Members)
                .await?;
            let part = self.query.json_of(&described, &mut self.is_first);
            if !part.is_empty() {
                return Ok(Some(part.into()));
            }
        }
        Ok(None)
    }

    fn end(&self) -> Bytes {
        Bytes::from_static(match self.is_first {
            true => b"[]",
            false => b"]",
        })
    }
}

impl ListQuery {
    /// The groups as elements of a JSON array; begins with its bracket if they are the first.
    fn json_of(self, groups: &[ConsumerGroupDescription], is_first: &mut bool) -> Vec<u8> {
        let mut json = Vec::new();
        // Brokers before 2.6 list groups in any state.
        let listed =
            |group: &&ConsumerGroupDescription| !self.active_only || group.state.is_active();
        for group in groups.iter().filter(listed) {
            json.push(match std::mem::replace(is_first, false) {
                true => b'[',
                false => b',',
            });
            let members = group.members.iter().map(|member| &*member.client_id);
            let listed = ListedGroup {
                group_id: &group.group_id,
                is_simple: group.is_simple,
                state: group.state.name(),
                members: members.collect(),
            };
            serde_json::to_writer(&mut json, &listed).expect("texts always serialize");
        }
        json
    }
}

#[cfg(test)]
mod tests {
    use kafka_client::admin::groups::GroupState;
    use serde_json::{Value, json};

    use super::*;

    fn group(id: &str, state: GroupState) -> ConsumerGroupDescription {
        ConsumerGroupDescription {
            group_id: id.into(),
            is_simple: false,
            state,
            partition_assignor: "range".into(),
            members: Vec::new(),
        }
    }

    #[test]
    fn the_parameters_of_the_list_are_booleans_and_near_misses_are_named() {
        let both = ListQuery {
            active_only: true,
            include_internals: true,
        };
        let parsed = ListQuery::parse("activeOnly=true&includeInternals=true&x=1");
        assert_eq!(parsed.unwrap(), both);
        assert_eq!(ListQuery::parse("").unwrap(), ListQuery::default());
        for (query, named) in [
            ("activeOnly=yes", "true, false"),
            ("activeonly=true", "activeOnly"),
            ("activeOnly=true&activeOnly=true", "twice"),
        ] {
            let error = ListQuery::parse(query).unwrap_err();
            assert_eq!(error.status, 400);
            assert!(error.message.contains(named), "{}", error.message);
        }
    }

    #[test]
    fn parts_of_a_list_are_one_array_whatever_they_leave_out() {
        let query = ListQuery {
            active_only: true,
            include_internals: false,
        };
        let mut is_first = true;
        let mut whole = Vec::new();
        for batch in [
            vec![group("empty", GroupState::Empty)],
            vec![group("a", GroupState::Stable)],
            vec![
                group("dead", GroupState::Dead),
                group("b", GroupState::Assigning),
            ],
        ] {
            whole.extend(query.json_of(&batch, &mut is_first));
        }
        whole.push(b']');
        let whole: Value = serde_json::from_slice(&whole).unwrap();
        let expected =
            |id, state| json!({"groupId": id, "isSimple": false, "state": state, "members": []});
        assert_eq!(
            whole,
            json!([expected("a", "STABLE"), expected("b", "ASSIGNING")])
        );
        assert!(!query.admits("__internal") && query.admits("_mine"));
    }
}
