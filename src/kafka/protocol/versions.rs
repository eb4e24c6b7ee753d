//! The APIs we speak, in which versions, and how a version is agreed on.
//!
//! Versions are a fact of a connection, not of a cluster: in a rolling upgrade two
//! brokers differ. Both ends name a range per API; the newest common version is spoken.

use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::{self, ApiVersionsResponse};
use kafka_protocol::protocol::Request;

use super::schema::{self, Shape};

/// A request that we speak, pinned to the versions that were tested.
pub trait Api: Request<Response: Debug + Send + 'static> + Debug + Send + Sync + 'static {
    /// The oldest version that is sent, whatever a broker advertises: Kafka 4.0 lists
    /// Produce 0–2 and refuses them.
    const MIN: i16;
    /// The newest version that is sent.
    const MAX: i16;
    /// What log lines and errors call it.
    const NAME: &'static str;

    /// How its responses are laid out.
    #[doc(hidden)]
    const SHAPE: &'static Shape;

    /// How long the broker wants the connection silent after this response (KIP-219).
    fn throttle(response: &Self::Response) -> Duration;
}

/// Who speaks what: request, name, oldest and newest version, shape of the response, and
/// whether that has a `throttle_time_ms`.
macro_rules! apis {
    ($($request:ident $name:literal $min:literal..=$max:literal $shape:ident $throttle:ident;)*) => {$(
        impl Api for messages::$request {
            const MIN: i16 = $min;
            const MAX: i16 = $max;
            const NAME: &'static str = $name;
            const SHAPE: &'static Shape = &schema::responses::$shape;

            fn throttle(response: &Self::Response) -> Duration {
                apis!($throttle response)
            }
        }
    )*};
    (throttled $response:ident) => { millis($response.throttle_time_ms) };
    (free $response:ident) => {{
        let _ = $response;
        Duration::ZERO
    }};
}

apis! {
    ProduceRequest "Produce" 3..=13 PRODUCE throttled;
    FetchRequest "Fetch" 4..=18 FETCH throttled;
    MetadataRequest "Metadata" 4..=13 METADATA throttled;
    ListOffsetsRequest "ListOffsets" 1..=10 LIST_OFFSETS throttled;
    OffsetCommitRequest "OffsetCommit" 2..=9 OFFSET_COMMIT throttled;
    OffsetFetchRequest "OffsetFetch" 1..=9 OFFSET_FETCH throttled;
    FindCoordinatorRequest "FindCoordinator" 0..=4 FIND_COORDINATOR throttled;
    JoinGroupRequest "JoinGroup" 2..=9 JOIN_GROUP throttled;
    SyncGroupRequest "SyncGroup" 0..=5 SYNC_GROUP throttled;
    HeartbeatRequest "Heartbeat" 0..=4 HEARTBEAT throttled;
    LeaveGroupRequest "LeaveGroup" 0..=5 LEAVE_GROUP throttled;
    DescribeGroupsRequest "DescribeGroups" 0..=6 DESCRIBE_GROUPS throttled;
    ConsumerGroupHeartbeatRequest "ConsumerGroupHeartbeat" 1..=1 CONSUMER_GROUP_HEARTBEAT throttled;
    InitProducerIdRequest "InitProducerId" 0..=5 INIT_PRODUCER_ID throttled;
    AddPartitionsToTxnRequest "AddPartitionsToTxn" 0..=3 ADD_PARTITIONS_TO_TXN throttled;
    EndTxnRequest "EndTxn" 0..=5 END_TXN throttled;
    TxnOffsetCommitRequest "TxnOffsetCommit" 0..=5 TXN_OFFSET_COMMIT throttled;
    OffsetForLeaderEpochRequest "OffsetForLeaderEpoch" 2..=4 OFFSET_FOR_LEADER_EPOCH throttled;
    CreateTopicsRequest "CreateTopics" 2..=7 CREATE_TOPICS throttled;
    DeleteTopicsRequest "DeleteTopics" 1..=6 DELETE_TOPICS throttled;
    SaslHandshakeRequest "SaslHandshake" 1..=1 SASL_HANDSHAKE free;
    SaslAuthenticateRequest "SaslAuthenticate" 0..=2 SASL_AUTHENTICATE free;
    ApiVersionsRequest "ApiVersions" 0..=3 API_VERSIONS throttled;
}

fn millis(ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

/// What one broker said, on one connection, that it supports.
#[derive(Clone, Debug, Default)]
pub struct Versions {
    /// `(api key, oldest, newest)`, by key.
    ranges: Arc<[(i16, i16, i16)]>,
}

impl Versions {
    /// As a broker's answer lists them.
    pub fn of(response: &ApiVersionsResponse) -> Self {
        let mut ranges: Vec<_> = response
            .api_keys
            .iter()
            .map(|api| (api.api_key, api.min_version, api.max_version))
            .collect();
        ranges.sort_unstable();
        Self {
            ranges: ranges.into(),
        }
    }

    /// The newest version of `A` that both ends speak.
    pub fn newest_common<A: Api>(&self) -> Option<i16> {
        self.common::<A>().map(|versions| *versions.end())
    }

    /// All versions of `A` that both ends speak.
    pub fn common<A: Api>(&self) -> Option<RangeInclusive<i16>> {
        let at = self
            .ranges
            .binary_search_by_key(&A::KEY, |&(key, ..)| key)
            .ok()?;
        let (_, oldest, newest) = self.ranges[at];
        let common = oldest.max(A::MIN)..=newest.min(A::MAX);
        (!common.is_empty()).then_some(common)
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::api_versions_response::ApiVersion;
    use kafka_protocol::messages::{FetchRequest, MetadataRequest, ProduceRequest};

    use super::*;

    fn versions(ranges: &[(i16, i16, i16)]) -> Versions {
        let keys = ranges.iter().map(|&(key, min, max)| {
            ApiVersion::default()
                .with_api_key(key)
                .with_min_version(min)
                .with_max_version(max)
        });
        Versions::of(&ApiVersionsResponse::default().with_api_keys(keys.collect()))
    }

    #[test]
    fn the_newest_common_version_is_spoken() {
        let broker = versions(&[(3, 0, 9), (1, 4, 99)]);
        assert_eq!(broker.newest_common::<MetadataRequest>(), Some(9));
        assert_eq!(broker.newest_common::<FetchRequest>(), Some(18));
    }

    #[test]
    fn an_api_that_is_not_listed_is_not_spoken() {
        assert_eq!(versions(&[(3, 0, 9)]).newest_common::<FetchRequest>(), None);
        assert_eq!(versions(&[]).newest_common::<FetchRequest>(), None);
    }

    #[test]
    fn ranges_that_do_not_meet_have_no_version() {
        // Older than our floor; and newer than our newest.
        let broker = versions(&[(0, 0, 2), (1, 19, 20)]);
        assert_eq!(broker.newest_common::<ProduceRequest>(), None);
        assert_eq!(broker.newest_common::<FetchRequest>(), None);
    }
}
