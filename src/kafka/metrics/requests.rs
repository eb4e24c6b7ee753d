//! Requests that were answered, and the error codes in the answers.

use kafka_protocol::error::ResponseError;
use runtime::counters::Counter;

use crate::error::RequestError;
use crate::protocol::error_codes::ErrorCodes as _;
use crate::protocol::versions::{APIS, Api};

/// Kafka's error codes that are counted apart: from UNKNOWN_SERVER_ERROR, -1, on. Those beyond the
/// newest that is known count as that one.
const CODES: usize = 160;

/// What brokers were asked, and what they answered.
#[derive(Debug)]
pub struct RequestMetrics {
    /// In the order of [`APIS`].
    by_api: Box<[ApiMetrics]>,
}

#[derive(Debug)]
struct ApiMetrics {
    name: &'static str,
    responses: Counter,
    /// By code.
    errors: Box<[Counter]>,
}

impl Default for RequestMetrics {
    fn default() -> Self {
        let by_api = APIS.iter().map(|api| ApiMetrics {
            name: api.name,
            responses: Counter::default(),
            errors: std::iter::repeat_with(Counter::default)
                .take(CODES)
                .collect(),
        });
        Self {
            by_api: by_api.collect(),
        }
    }
}

impl RequestMetrics {
    /// Each API, with how many requests of it were answered.
    pub fn responses(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let each = self.by_api.iter();
        each.map(|counted| (counted.name, counted.responses.get()))
    }

    /// Each error that was met, by API and Kafka's name of it, and how often.
    pub fn errors(&self) -> impl Iterator<Item = (&'static str, String, u64)> + '_ {
        self.by_api.iter().flat_map(|counted| {
            let codes = (-1..).zip(&counted.errors);
            let met = codes.filter(|(_, errors)| errors.get() > 0);
            met.map(|(code, errors)| (counted.name, error_name(code), errors.get()))
        })
    }

    /// A request was answered.
    pub(crate) fn answered<A: Api>(&self, response: &A::Response) {
        let counted = self.of::<A>();
        counted.responses.increment();
        response.for_each_error(&mut |code| counted.count_error(code));
    }

    /// A request was not answered.
    pub(crate) fn failed<A: Api>(&self, error: &RequestError) {
        // As Java's client has it, which takes a lost connection for a code, too.
        let code = match error {
            RequestError::Stopped => return,
            RequestError::TimedOut { .. } => ResponseError::RequestTimedOut,
            RequestError::Disconnected { .. } => ResponseError::NetworkException,
            _ => ResponseError::UnknownServerError,
        };
        self.of::<A>().count_error(code.code());
    }

    fn of<A: Api>(&self) -> &ApiMetrics {
        let index = APIS.iter().position(|api| api.key == A::KEY);
        &self.by_api[index.unwrap_or(0)]
    }
}

impl ApiMetrics {
    fn count_error(&self, code: i16) {
        let index = usize::try_from(i32::from(code) + 1).unwrap_or(0);
        self.errors[index.min(CODES - 1)].increment();
    }
}

/// Kafka's own name of a code, such as NOT_LEADER_OR_FOLLOWER.
fn error_name(code: i16) -> String {
    let error = match ResponseError::try_from_code(code) {
        None | Some(ResponseError::Unknown(_)) => return code.to_string(),
        Some(error) => error,
    };
    let mut name = String::new();
    for letter in format!("{error:?}").chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
    use kafka_protocol::messages::{FetchRequest, FetchResponse, HeartbeatRequest};
    use kafka_protocol::messages::{HeartbeatResponse, MetadataRequest};

    use super::*;

    #[test]
    fn errors_count_by_api_and_by_the_name_that_kafka_has_for_them_wherever_they_stand() {
        let metrics = RequestMetrics::default();
        let partition = |code| PartitionData::default().with_error_code(code);
        let topic = FetchableTopicResponse::default().with_partitions(vec![
            partition(6),
            partition(0),
            partition(6),
        ]);
        let response = FetchResponse::default().with_responses(vec![topic]);
        metrics.answered::<FetchRequest>(&response);
        let rebalancing = HeartbeatResponse::default().with_error_code(27);
        metrics.answered::<HeartbeatRequest>(&rebalancing);
        let strange = HeartbeatResponse::default().with_error_code(i16::MAX);
        metrics.answered::<HeartbeatRequest>(&strange);
        metrics.failed::<MetadataRequest>(&RequestError::Stopped);
        let errors: Vec<_> = metrics.errors().collect();
        let expected = [
            ("Fetch", "NOT_LEADER_OR_FOLLOWER", 2),
            ("Heartbeat", "REBALANCE_IN_PROGRESS", 1),
            ("Heartbeat", "158", 1),
        ];
        assert_eq!(
            errors,
            expected.map(|(api, name, count)| (api, name.to_owned(), count))
        );
        let answered = metrics.responses().filter(|(_, count)| *count > 0);
        assert_eq!(
            answered.collect::<Vec<_>>(),
            [("Fetch", 1), ("Heartbeat", 2)]
        );
    }
}
