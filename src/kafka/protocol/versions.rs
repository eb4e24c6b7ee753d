//! The APIs that the client sends, in which versions, and how a version is agreed on.
//!
//! Versions are a fact of a connection, not of a cluster: in a rolling upgrade two
//! brokers differ. Both ends name a range per API; the newest version in both is used.

use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::{self, ApiVersionsResponse};
use kafka_protocol::protocol::Request;

use super::error_codes::ErrorCodes;
use super::schema::{MessageSchema, VersionRange, responses};
use super::topics_by_id::{encode_offset_commit, encode_offset_fetch};

/// A request that we send, pinned to the versions that were tested.
pub trait Api:
    Request<Response: Debug + ErrorCodes + Send + 'static> + Debug + Send + Sync + 'static
{
    /// The oldest version that is sent, whatever a broker advertises: Kafka 4.0 lists
    /// Produce 0–2 and refuses them.
    const OLDEST_VERSION: i16;
    /// The newest version that is sent.
    const LATEST_VERSION: i16;
    /// What log lines and errors call it.
    const NAME: &'static str;
    /// The schema of its responses.
    const RESPONSE_SCHEMA: &'static MessageSchema;

    /// The body in a version that kafka-protocol cannot encode; `None` in all others.
    fn encode_by_hand(&self, _version: i16) -> Option<Result<Bytes, String>> {
        None
    }

    /// How long the broker wants the connection silent after this response (KIP-219).
    fn throttle_time(response: &Self::Response) -> Duration;
}

/// What [`Api`] says of one request, as a value.
#[derive(Debug)]
pub struct ApiSpec {
    /// The API key.
    pub key: i16,
    /// As [`Api::NAME`].
    pub name: &'static str,
    /// The versions that are sent.
    pub versions: VersionRange,
    /// The schema of its responses.
    pub response_schema: &'static MessageSchema,
}

/// What a response says of the throttle, unless it says nothing of it.
macro_rules! throttle_time {
    ($response:ident) => {
        Duration::from_millis(u64::try_from($response.throttle_time_ms).unwrap_or(0))
    };
    ($response:ident $throttle:expr) => {{
        let _ = $response;
        $throttle
    }};
}

/// The APIs: request, name, oldest and latest version, schema of the response, and how what
/// kafka-protocol cannot is encoded.
macro_rules! apis {
    ($(
        $request:ident $name:literal $oldest:literal..=$latest:literal $schema:ident
        $(, $encode:path)? $(=> $throttle:expr)?;
    )*) => {
        $(impl Api for messages::$request {
            const OLDEST_VERSION: i16 = $oldest;
            const LATEST_VERSION: i16 = $latest;
            const NAME: &'static str = $name;
            const RESPONSE_SCHEMA: &'static MessageSchema = &responses::$schema;

            $(fn encode_by_hand(&self, version: i16) -> Option<Result<Bytes, String>> {
                $encode(self, version)
            })?

            fn throttle_time(response: &Self::Response) -> Duration {
                throttle_time!(response $($throttle)?)
            }
        })*

        /// Every [`Api`].
        pub static APIS: &[ApiSpec] = &[$(ApiSpec {
            key: <messages::$request as Request>::KEY,
            name: $name,
            versions: VersionRange { lowest: $oldest, highest: $latest },
            response_schema: &responses::$schema,
        }),*];
    };
}

apis! {
    ProduceRequest "Produce" 3..=13 PRODUCE;
    FetchRequest "Fetch" 4..=18 FETCH;
    MetadataRequest "Metadata" 4..=13 METADATA;
    ListOffsetsRequest "ListOffsets" 1..=10 LIST_OFFSETS;
    OffsetCommitRequest "OffsetCommit" 2..=10 OFFSET_COMMIT, encode_offset_commit;
    OffsetFetchRequest "OffsetFetch" 1..=10 OFFSET_FETCH, encode_offset_fetch;
    FindCoordinatorRequest "FindCoordinator" 0..=4 FIND_COORDINATOR;
    JoinGroupRequest "JoinGroup" 2..=9 JOIN_GROUP;
    SyncGroupRequest "SyncGroup" 0..=5 SYNC_GROUP;
    HeartbeatRequest "Heartbeat" 0..=4 HEARTBEAT;
    LeaveGroupRequest "LeaveGroup" 0..=5 LEAVE_GROUP;
    ListGroupsRequest "ListGroups" 0..=5 LIST_GROUPS;
    DescribeGroupsRequest "DescribeGroups" 0..=6 DESCRIBE_GROUPS;
    ConsumerGroupDescribeRequest "ConsumerGroupDescribe" 0..=1 CONSUMER_GROUP_DESCRIBE;
    OffsetDeleteRequest "OffsetDelete" 0..=0 OFFSET_DELETE;
    InitProducerIdRequest "InitProducerId" 0..=5 INIT_PRODUCER_ID;
    AddPartitionsToTxnRequest "AddPartitionsToTxn" 0..=3 ADD_PARTITIONS_TO_TXN;
    EndTxnRequest "EndTxn" 0..=5 END_TXN;
    OffsetForLeaderEpochRequest "OffsetForLeaderEpoch" 2..=4 OFFSET_FOR_LEADER_EPOCH;
    CreateTopicsRequest "CreateTopics" 2..=7 CREATE_TOPICS;
    DescribeConfigsRequest "DescribeConfigs" 1..=4 DESCRIBE_CONFIGS;
    DescribeClusterRequest "DescribeCluster" 0..=1 DESCRIBE_CLUSTER;
    ApiVersionsRequest "ApiVersions" 0..=3 API_VERSIONS;
    SaslHandshakeRequest "SaslHandshake" 1..=1 SASL_HANDSHAKE => Duration::ZERO;
    SaslAuthenticateRequest "SaslAuthenticate" 0..=2 SASL_AUTHENTICATE => Duration::ZERO;
}

/// What one broker said, on one connection, that it supports.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeApiVersions {
    /// By API key.
    supported: Arc<[(i16, VersionRange)]>,
    /// The finalized level of `transaction.version`; 0 where the broker names none.
    transaction_version: i16,
}

impl NodeApiVersions {
    /// As a broker's response lists them.
    pub(crate) fn new(response: &ApiVersionsResponse) -> Self {
        let mut supported: Vec<_> = response
            .api_keys
            .iter()
            .map(|api| {
                let (lowest, highest) = (api.min_version, api.max_version);
                (api.api_key, VersionRange { lowest, highest })
            })
            .collect();
        supported.sort_unstable_by_key(|&(key, _)| key);
        let features = response.finalized_features.iter();
        let transactions = features.filter(|feature| &*feature.name == TRANSACTION_VERSION);
        Self {
            supported: supported.into(),
            transaction_version: transactions.map(|t| t.max_version_level).max().unwrap_or(0),
        }
    }

    /// The level of the feature `transaction.version` that the cluster has finalized (KIP-584): from 2
    /// on transactions are those of KIP-890. 0 if it knows no such feature.
    pub(crate) fn transaction_version(&self) -> i16 {
        self.transaction_version
    }

    /// The newest version of `A` that both ends support.
    pub(crate) fn latest_usable_version<A: Api>(&self) -> Option<i16> {
        self.usable_versions::<A>().map(|versions| *versions.end())
    }

    /// All versions of `A` that both ends support.
    pub(crate) fn usable_versions<A: Api>(&self) -> Option<RangeInclusive<i16>> {
        let at = self
            .supported
            .binary_search_by_key(&A::KEY, |&(key, _)| key)
            .ok()?;
        let (_, node) = self.supported[at];
        let usable = node.lowest.max(A::OLDEST_VERSION)..=node.highest.min(A::LATEST_VERSION);
        (!usable.is_empty()).then_some(usable)
    }
}

/// The feature that says which transactions a cluster has.
const TRANSACTION_VERSION: &str = "transaction.version";

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::api_versions_response::{ApiVersion, FinalizedFeatureKey};
    use kafka_protocol::messages::{FetchRequest, MetadataRequest, ProduceRequest};
    use kafka_protocol::protocol::StrBytes;

    use super::*;

    fn versions(ranges: &[(i16, i16, i16)]) -> NodeApiVersions {
        let keys = ranges.iter().map(|&(key, min, max)| {
            ApiVersion::default()
                .with_api_key(key)
                .with_min_version(min)
                .with_max_version(max)
        });
        NodeApiVersions::new(&ApiVersionsResponse::default().with_api_keys(keys.collect()))
    }

    #[test]
    fn the_newest_version_that_both_ends_support_is_used() {
        let broker = versions(&[(3, 0, 9), (1, 4, 99)]);
        assert_eq!(broker.latest_usable_version::<MetadataRequest>(), Some(9));
        assert_eq!(broker.latest_usable_version::<FetchRequest>(), Some(18));
    }

    #[test]
    fn an_api_that_the_broker_does_not_list_is_not_used() {
        assert_eq!(
            versions(&[(3, 0, 9)]).latest_usable_version::<FetchRequest>(),
            None
        );
        assert_eq!(versions(&[]).latest_usable_version::<FetchRequest>(), None);
    }

    #[test]
    fn the_level_of_transactions_is_the_one_that_is_finalized() {
        let feature = |name: &'static str, level| {
            FinalizedFeatureKey::default()
                .with_name(StrBytes::from_static_str(name))
                .with_max_version_level(level)
        };
        let level = |features| {
            let response = ApiVersionsResponse::default().with_finalized_features(features);
            NodeApiVersions::new(&response).transaction_version()
        };
        assert_eq!(level(vec![]), 0);
        assert_eq!(level(vec![feature("metadata.version", 29)]), 0);
        let both = vec![
            feature("metadata.version", 29),
            feature("transaction.version", 2),
        ];
        assert_eq!(level(both), 2);
    }

    #[test]
    fn ranges_that_do_not_meet_have_no_version() {
        // Older than our floor; and newer than our newest.
        let broker = versions(&[(0, 0, 2), (1, 19, 20)]);
        assert_eq!(broker.latest_usable_version::<ProduceRequest>(), None);
        assert_eq!(broker.latest_usable_version::<FetchRequest>(), None);
    }
}
