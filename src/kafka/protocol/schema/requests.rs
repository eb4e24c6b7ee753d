//! The shapes of the requests that our own broker accepts, in all versions that the codec
//! knows, and their check.
//!
//! After the same schemas as [`responses`](super::responses), and held against the codec
//! in the same way. Of a request all elements count, plain numbers too: the answer to a
//! number of four bytes may take a hundred.

use kafka_protocol::messages::ApiKey;

use super::Kind::{Blob, Group, List, Skip, Text};
use super::{ALL, ShapeError, Shape, Walk, since, until};

/// Elements and tagged fields in one request, all arrays together: some times the
/// partitions that the broker has.
pub(super) const ITEMS_MAX: usize = 1 << 16;

/// Checks a whole request, without its length but with its header.
pub(crate) fn check(api: ApiKey, version: i16, frame: &[u8]) -> Result<(), ShapeError> {
    let shape = of(api).ok_or(ShapeError::Unknown)?;
    let mut walk = Walk::new(version, false, frame);
    walk.items = ITEMS_MAX;
    walk.numbers_count = true;
    // Key, version and correlation id, then the client id, which is never compact.
    walk.value(&Skip(8))?;
    walk.value(&Text)?;
    walk.flexible = version >= shape.flexible_since;
    if api.request_header_version(version) > 1 {
        walk.tagged(&[])?;
    }
    walk.value(&shape.body)
}

/// How the requests of an API are laid out.
pub(super) fn of(api: ApiKey) -> Option<&'static Shape> {
    Some(match api {
        ApiKey::Produce => &PRODUCE,
        ApiKey::Fetch => &FETCH,
        ApiKey::ListOffsets => &LIST_OFFSETS,
        ApiKey::Metadata => &METADATA,
        ApiKey::OffsetCommit => &OFFSET_COMMIT,
        ApiKey::OffsetFetch => &OFFSET_FETCH,
        ApiKey::FindCoordinator => &FIND_COORDINATOR,
        ApiKey::JoinGroup => &JOIN_GROUP,
        ApiKey::Heartbeat => &HEARTBEAT,
        ApiKey::LeaveGroup => &LEAVE_GROUP,
        ApiKey::SyncGroup => &SYNC_GROUP,
        ApiKey::DescribeGroups => &DESCRIBE_GROUPS,
        ApiKey::ListGroups => &LIST_GROUPS,
        ApiKey::ApiVersions => &API_VERSIONS,
        ApiKey::CreateTopics => &CREATE_TOPICS,
        ApiKey::DeleteTopics => &DELETE_TOPICS,
        ApiKey::DeleteRecords => &DELETE_RECORDS,
        ApiKey::InitProducerId => &INIT_PRODUCER_ID,
        ApiKey::OffsetForLeaderEpoch => &OFFSET_FOR_LEADER_EPOCH,
        ApiKey::DescribeConfigs => &DESCRIBE_CONFIGS,
        ApiKey::CreatePartitions => &CREATE_PARTITIONS,
        ApiKey::DeleteGroups => &DELETE_GROUPS,
        ApiKey::DescribeCluster => &DESCRIBE_CLUSTER,
        _ => return None,
    })
}

static PRODUCE: Shape = Shape {
    flexible_since: 9,
    body: Group(&[
        (ALL, Text),
        (ALL, Skip(6)),
        (ALL, List(&Group(&[
            (until(12), Text),
            (since(13), Skip(16)),
            (ALL, List(&Group(&[(ALL, Skip(4)), (ALL, Blob)], &[]))),
        ], &[]))),
    ], &[]),
};

static FETCH: Shape = Shape {
    flexible_since: 12,
    body: Group(&[
        (until(14), Skip(4)),
        (ALL, Skip(13)),
        (since(7), Skip(8)),
        (ALL, List(&Group(&[
            (until(12), Text),
            (since(13), Skip(16)),
            (ALL, List(&Group(&[
                (ALL, Skip(4)),
                (since(9), Skip(4)),
                (ALL, Skip(8)),
                (since(12), Skip(4)),
                (since(5), Skip(8)),
                (ALL, Skip(4)),
            ], &[
                (0, Skip(16)),
                (1, Skip(8)),
            ]))),
        ], &[]))),
        (since(7), List(&Group(&[
            (until(12), Text),
            (since(13), Skip(16)),
            (ALL, List(&Skip(4))),
        ], &[]))),
        (since(11), Text),
    ], &[
        (0, Text),
        (1, Group(&[(ALL, Skip(12))], &[])),
    ]),
};

static LIST_OFFSETS: Shape = Shape {
    flexible_since: 6,
    body: Group(&[
        (ALL, Skip(4)),
        (since(2), Skip(1)),
        (ALL, List(&Group(&[
            (ALL, Text),
            (ALL, List(&Group(&[(ALL, Skip(4)), (since(4), Skip(4)), (ALL, Skip(8))], &[]))),
        ], &[]))),
        (since(10), Skip(4)),
    ], &[]),
};

static METADATA: Shape = Shape {
    flexible_since: 9,
    body: Group(&[
        (ALL, List(&Group(&[(since(10), Skip(16)), (ALL, Text)], &[]))),
        (since(4), Skip(1)),
        ((8, 10), Skip(1)),
        (since(8), Skip(1)),
    ], &[]),
};

static OFFSET_COMMIT: Shape = Shape {
    flexible_since: 8,
    body: Group(&[
        (ALL, Text),
        (ALL, Skip(4)),
        (ALL, Text),
        (since(7), Text),
        (until(4), Skip(8)),
        (ALL, List(&Group(&[
            (ALL, Text),
            (ALL, List(&Group(&[(ALL, Skip(12)), (since(6), Skip(4)), (ALL, Text)], &[]))),
        ], &[]))),
    ], &[]),
};

static OFFSET_FETCH: Shape = Shape {
    flexible_since: 6,
    body: Group(&[
        (until(7), Text),
        (until(7), List(&Group(&[(ALL, Text), (ALL, List(&Skip(4)))], &[]))),
        (since(8), List(&Group(&[
            (ALL, Text),
            (since(9), Text),
            (since(9), Skip(4)),
            (ALL, List(&Group(&[(ALL, Text), (ALL, List(&Skip(4)))], &[]))),
        ], &[]))),
        (since(7), Skip(1)),
    ], &[]),
};

static FIND_COORDINATOR: Shape = Shape {
    flexible_since: 3,
    body: Group(&[(until(3), Text), (since(1), Skip(1)), (since(4), List(&Text))], &[]),
};

static JOIN_GROUP: Shape = Shape {
    flexible_since: 6,
    body: Group(&[
        (ALL, Text),
        (ALL, Skip(4)),
        (since(1), Skip(4)),
        (ALL, Text),
        (since(5), Text),
        (ALL, Text),
        (ALL, List(&Group(&[(ALL, Text), (ALL, Blob)], &[]))),
        (since(8), Text),
    ], &[]),
};

static HEARTBEAT: Shape = Shape {
    flexible_since: 4,
    body: Group(&[(ALL, Text), (ALL, Skip(4)), (ALL, Text), (since(3), Text)], &[]),
};

static LEAVE_GROUP: Shape = Shape {
    flexible_since: 4,
    body: Group(&[
        (ALL, Text),
        (until(2), Text),
        (since(3), List(&Group(&[(ALL, Text), (ALL, Text), (since(5), Text)], &[]))),
    ], &[]),
};

static SYNC_GROUP: Shape = Shape {
    flexible_since: 4,
    body: Group(&[
        (ALL, Text),
        (ALL, Skip(4)),
        (ALL, Text),
        (since(3), Text),
        (since(5), Text),
        (since(5), Text),
        (ALL, List(&Group(&[(ALL, Text), (ALL, Blob)], &[]))),
    ], &[]),
};

static DESCRIBE_GROUPS: Shape = Shape {
    flexible_since: 5,
    body: Group(&[(ALL, List(&Text)), (since(3), Skip(1))], &[]),
};

static LIST_GROUPS: Shape = Shape {
    flexible_since: 3,
    body: Group(&[(since(4), List(&Text)), (since(5), List(&Text))], &[]),
};

static API_VERSIONS: Shape = Shape {
    flexible_since: 3,
    body: Group(&[(since(3), Text), (since(3), Text)], &[]),
};

static CREATE_TOPICS: Shape = Shape {
    flexible_since: 5,
    body: Group(&[
        (ALL, List(&Group(&[
            (ALL, Text),
            (ALL, Skip(6)),
            (ALL, List(&Group(&[(ALL, Skip(4)), (ALL, List(&Skip(4)))], &[]))),
            (ALL, List(&Group(&[(ALL, Text), (ALL, Text)], &[]))),
        ], &[]))),
        (ALL, Skip(5)),
    ], &[]),
};

static DELETE_TOPICS: Shape = Shape {
    flexible_since: 4,
    body: Group(&[
        (since(6), List(&Group(&[(ALL, Text), (ALL, Skip(16))], &[]))),
        (until(5), List(&Text)),
        (ALL, Skip(4)),
    ], &[]),
};

static DELETE_RECORDS: Shape = Shape {
    flexible_since: 2,
    body: Group(&[
        (ALL, List(&Group(&[(ALL, Text), (ALL, List(&Group(&[(ALL, Skip(12))], &[])))], &[]))),
        (ALL, Skip(4)),
    ], &[]),
};

static INIT_PRODUCER_ID: Shape = Shape {
    flexible_since: 2,
    body: Group(&[(ALL, Text), (ALL, Skip(4)), (since(3), Skip(10))], &[]),
};

static OFFSET_FOR_LEADER_EPOCH: Shape = Shape {
    flexible_since: 4,
    body: Group(&[
        (since(3), Skip(4)),
        (ALL, List(&Group(&[(ALL, Text), (ALL, List(&Group(&[(ALL, Skip(12))], &[])))], &[]))),
    ], &[]),
};

static DESCRIBE_CONFIGS: Shape = Shape {
    flexible_since: 4,
    body: Group(&[
        (ALL, List(&Group(&[(ALL, Skip(1)), (ALL, Text), (ALL, List(&Text))], &[]))),
        (ALL, Skip(1)),
        (since(3), Skip(1)),
    ], &[]),
};

static CREATE_PARTITIONS: Shape = Shape {
    flexible_since: 2,
    body: Group(&[
        (ALL, List(&Group(&[
            (ALL, Text),
            (ALL, Skip(4)),
            (ALL, List(&Group(&[(ALL, List(&Skip(4)))], &[]))),
        ], &[]))),
        (ALL, Skip(5)),
    ], &[]),
};

static DELETE_GROUPS: Shape = Shape {
    flexible_since: 2,
    body: Group(&[(ALL, List(&Text))], &[]),
};

static DESCRIBE_CLUSTER: Shape = Shape {
    flexible_since: 0,
    body: Group(&[(ALL, Skip(1)), (since(1), Skip(1)), (since(2), Skip(1))], &[]),
};
