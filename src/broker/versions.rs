//! Which APIs a node advertises, in which versions.
//!
//! The tables are what `ApiVersions` of those Kafka releases answers, for the APIs that
//! this broker serves. A release may advertise more than is served: Kafka 4 lists Produce
//! 0–2 and refuses them (KIP-896), and releases before 4 list message formats that are
//! not served here, which no client of the last ten years chooses.

use std::collections::BTreeMap;

use kafka_client::protocol::topics_by_id::BY_ID_VERSION;
use kafka_protocol::messages::ApiKey;

/// A Kafka release whose version ranges can be advertised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KafkaRelease {
    /// 2.1: before static membership, flexible versions and fetch by topic id.
    V2_1,
    /// 2.8: before topic ids in Fetch and several groups in one request.
    V2_8,
    /// 3.9: the last with ZooKeeper.
    V3_9,
    /// 4.1 and later.
    V4,
}

impl KafkaRelease {
    /// What that release advertises.
    pub fn versions(self) -> AdvertisedVersions {
        let column = match self {
            Self::V2_1 => 0,
            Self::V2_8 => 1,
            Self::V3_9 => 2,
            Self::V4 => 3,
        };
        AdvertisedVersions(
            TABLE
                .iter()
                .filter_map(|(api, ranges)| Some((*api as i16, ranges[column]?)))
                .collect(),
        )
    }
}

/// The advertised range of each API, by its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdvertisedVersions(BTreeMap<i16, (i16, i16)>);

impl AdvertisedVersions {
    /// The same, with another range for `api`.
    #[must_use]
    pub fn with(mut self, api: ApiKey, min: i16, max: i16) -> Self {
        self.0.insert(api as i16, (min, max));
        self
    }

    /// The same, without `api`.
    #[must_use]
    pub fn without(mut self, api: ApiKey) -> Self {
        self.0.remove(&(api as i16));
        self
    }

    /// The range that is advertised for `api`.
    pub fn range(&self, api: ApiKey) -> Option<(i16, i16)> {
        self.0.get(&(api as i16)).copied()
    }

    /// Every API's key, lowest and highest version.
    pub fn iter(&self) -> impl Iterator<Item = (i16, i16, i16)> {
        self.0.iter().map(|(&key, &(min, max))| (key, min, max))
    }

    /// Whether a request of that version is answered: advertised, and known to the codec.
    pub(super) fn serves(&self, api: ApiKey, version: i16) -> bool {
        let known = api.valid_versions();
        let is_decoded = known.min <= version && version <= known.max
            || matches!(api, ApiKey::OffsetCommit | ApiKey::OffsetFetch)
                && version == BY_ID_VERSION;
        let range = self.range(api);
        is_decoded && range.is_some_and(|(min, max)| min <= version && version <= max)
    }
}

type ReleaseRange = Option<(i16, i16)>;

/// By release: 2.1, 2.8, 3.9, 4.
const TABLE: [(ApiKey, [ReleaseRange; 4]); 28] = {
    const fn upto(a: i16, b: i16, c: i16, d: i16) -> [ReleaseRange; 4] {
        [Some((0, a)), Some((0, b)), Some((0, c)), Some((0, d))]
    }
    const fn raised(a: i16, b: i16, c: i16, d: (i16, i16)) -> [ReleaseRange; 4] {
        [Some((0, a)), Some((0, b)), Some((0, c)), Some(d)]
    }
    const fn since_3(max: i16) -> [ReleaseRange; 4] {
        [None, None, Some((0, max)), Some((0, max))]
    }
    [
        (ApiKey::Produce, upto(7, 9, 11, 13)),
        (ApiKey::Fetch, raised(10, 12, 17, (4, 18))),
        (ApiKey::ListOffsets, raised(4, 6, 9, (1, 10))),
        (ApiKey::Metadata, upto(7, 11, 12, 13)),
        (ApiKey::OffsetCommit, raised(6, 8, 9, (2, 10))),
        (ApiKey::OffsetFetch, raised(5, 7, 9, (1, 10))),
        (ApiKey::FindCoordinator, upto(2, 3, 6, 6)),
        (ApiKey::JoinGroup, upto(3, 7, 9, 9)),
        (ApiKey::Heartbeat, upto(2, 4, 4, 4)),
        (ApiKey::LeaveGroup, upto(2, 4, 5, 5)),
        (ApiKey::SyncGroup, upto(2, 5, 5, 5)),
        (ApiKey::DescribeGroups, upto(2, 5, 5, 6)),
        (ApiKey::ListGroups, upto(2, 4, 5, 5)),
        (ApiKey::ApiVersions, upto(2, 3, 4, 4)),
        (ApiKey::CreateTopics, raised(3, 7, 7, (2, 7))),
        (ApiKey::DeleteTopics, raised(3, 6, 6, (1, 6))),
        (ApiKey::DeleteRecords, upto(1, 2, 2, 2)),
        (ApiKey::InitProducerId, upto(1, 4, 5, 5)),
        (ApiKey::AddPartitionsToTxn, upto(1, 3, 5, 5)),
        (ApiKey::EndTxn, upto(1, 3, 4, 5)),
        (ApiKey::DescribeTransactions, since_3(0)),
        // Version 2 brings a pattern, which is not served.
        (ApiKey::ListTransactions, since_3(1)),
        (ApiKey::OffsetForLeaderEpoch, raised(2, 4, 4, (2, 4))),
        (ApiKey::DescribeConfigs, raised(2, 4, 4, (1, 4))),
        (ApiKey::CreatePartitions, upto(1, 3, 3, 3)),
        (ApiKey::DeleteGroups, upto(1, 2, 2, 2)),
        (
            ApiKey::OffsetDelete,
            [None, Some((0, 0)), Some((0, 0)), Some((0, 0))],
        ),
        (
            ApiKey::DescribeCluster,
            [None, Some((0, 0)), Some((0, 1)), Some((0, 2))],
        ),
    ]
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_served_only_where_the_codec_can_speak_it() {
        let old = KafkaRelease::V2_1.versions();
        assert_eq!(old.range(ApiKey::Fetch), Some((0, 10)));
        assert!(old.serves(ApiKey::Fetch, 4) && !old.serves(ApiKey::Fetch, 3));
        assert!(!old.serves(ApiKey::Fetch, 11));
        assert_eq!(old.range(ApiKey::DescribeCluster), None);
        let new = KafkaRelease::V4.versions();
        assert_eq!(new.range(ApiKey::Produce), Some((0, 13)));
        assert!(new.serves(ApiKey::Produce, 13) && !new.serves(ApiKey::Produce, 2));
    }

    #[test]
    fn a_single_range_can_be_changed() {
        let versions = KafkaRelease::V4
            .versions()
            .with(ApiKey::Fetch, 4, 12)
            .without(ApiKey::ListGroups);
        assert_eq!(versions.range(ApiKey::Fetch), Some((4, 12)));
        assert_eq!(versions.range(ApiKey::ListGroups), None);
    }
}
