//! The shapes of the responses we accept, in the versions we speak.
//!
//! After the schemas of Apache Kafka (`clients/src/main/resources/common/message`), without
//! names: neighbouring numbers are one `Skip`. The tests of [`super`] hold each against
//! the decoder, in every version.

use super::Kind::{Blob, Group, List, Maybe, Skip, Text};
use super::{ALL, NEVER, Shape, since, until};

pub(crate) static PRODUCE: Shape = Shape {
    flexible_since: 9,
    body: Group(&[
        (ALL, List(&Group(&[
            (until(12), Text),
            (since(13), Skip(16)),
            (ALL, List(&Group(&[
                (ALL, Skip(22)),
                (since(5), Skip(8)),
                (since(8), List(&Group(&[(ALL, Skip(4)), (ALL, Text)], &[]))),
                (since(8), Text),
            ], &[
                (0, Group(&[(ALL, Skip(8))], &[])),
            ]))),
        ], &[]))),
        (ALL, Skip(4)),
    ], &[
        (0, List(&Group(&[(ALL, Skip(4)), (ALL, Text), (ALL, Skip(4)), (ALL, Text)], &[]))),
    ]),
};

pub(crate) static FETCH: Shape = Shape {
    flexible_since: 12,
    body: Group(&[
        (ALL, Skip(4)),
        (since(7), Skip(6)),
        (ALL, List(&Group(&[
            (until(12), Text),
            (since(13), Skip(16)),
            (ALL, List(&Group(&[
                (ALL, Skip(22)),
                (since(5), Skip(8)),
                (ALL, List(&Group(&[(ALL, Skip(16))], &[]))),
                (since(11), Skip(4)),
                (ALL, Blob),
            ], &[
                (0, Group(&[(ALL, Skip(12))], &[])),
                (1, Group(&[(ALL, Skip(8))], &[])),
                (2, Group(&[(ALL, Skip(12))], &[])),
            ]))),
        ], &[]))),
    ], &[
        (0, List(&Group(&[(ALL, Skip(4)), (ALL, Text), (ALL, Skip(4)), (ALL, Text)], &[]))),
    ]),
};

pub(crate) static METADATA: Shape = Shape {
    flexible_since: 9,
    body: Group(&[
        (ALL, Skip(4)),
        (ALL, List(&Group(&[(ALL, Skip(4)), (ALL, Text), (ALL, Skip(4)), (ALL, Text)], &[]))),
        (ALL, Text),
        (ALL, Skip(4)),
        (ALL, List(&Group(&[
            (ALL, Skip(2)),
            (ALL, Text),
            (since(10), Skip(16)),
            (ALL, Skip(1)),
            (ALL, List(&Group(&[
                (ALL, Skip(10)),
                (since(7), Skip(4)),
                (ALL, List(&Skip(4))),
                (ALL, List(&Skip(4))),
                (since(5), List(&Skip(4))),
            ], &[]))),
            (since(8), Skip(4)),
        ], &[]))),
        ((8, 10), Skip(4)),
        (since(13), Skip(2)),
    ], &[]),
};

pub(crate) static LIST_OFFSETS: Shape = Shape {
    flexible_since: 6,
    body: Group(&[
        (since(2), Skip(4)),
        (ALL, List(&Group(&[
            (ALL, Text),
            (ALL, List(&Group(&[(ALL, Skip(22)), (since(4), Skip(4))], &[]))),
        ], &[]))),
    ], &[]),
};

pub(crate) static OFFSET_COMMIT: Shape = Shape {
    flexible_since: 8,
    body: Group(&[
        (since(3), Skip(4)),
        (ALL, List(&Group(&[(ALL, Text), (ALL, List(&Group(&[(ALL, Skip(6))], &[])))], &[]))),
    ], &[]),
};

pub(crate) static OFFSET_FETCH: Shape = Shape {
    flexible_since: 6,
    body: Group(&[
        (since(3), Skip(4)),
        (until(7), List(&Group(&[
            (ALL, Text),
            (ALL, List(&Group(&[(ALL, Skip(12)), (since(5), Skip(4)), (ALL, Text), (ALL, Skip(2))], &[]))),
        ], &[]))),
        ((2, 7), Skip(2)),
        (since(8), List(&Group(&[
            (ALL, Text),
            (ALL, List(&Group(&[
                (ALL, Text),
                (ALL, List(&Group(&[(ALL, Skip(16)), (ALL, Text), (ALL, Skip(2))], &[]))),
            ], &[]))),
            (ALL, Skip(2)),
        ], &[]))),
    ], &[]),
};

pub(crate) static FIND_COORDINATOR: Shape = Shape {
    flexible_since: 3,
    body: Group(&[
        (since(1), Skip(4)),
        (until(3), Skip(2)),
        ((1, 3), Text),
        (until(3), Skip(4)),
        (until(3), Text),
        (until(3), Skip(4)),
        (since(4), List(&Group(&[(ALL, Text), (ALL, Skip(4)), (ALL, Text), (ALL, Skip(6)), (ALL, Text)], &[]))),
    ], &[]),
};

pub(crate) static JOIN_GROUP: Shape = Shape {
    flexible_since: 6,
    body: Group(&[
        (ALL, Skip(10)),
        (since(7), Text),
        (ALL, Text),
        (ALL, Text),
        (since(9), Skip(1)),
        (ALL, Text),
        (ALL, List(&Group(&[(ALL, Text), (since(5), Text), (ALL, Blob)], &[]))),
    ], &[]),
};

pub(crate) static SYNC_GROUP: Shape = Shape {
    flexible_since: 4,
    body: Group(&[
        (since(1), Skip(4)),
        (ALL, Skip(2)),
        (since(5), Text),
        (since(5), Text),
        (ALL, Blob),
    ], &[]),
};

pub(crate) static HEARTBEAT: Shape = Shape {
    flexible_since: 4,
    body: Group(&[(since(1), Skip(4)), (ALL, Skip(2))], &[]),
};

pub(crate) static LEAVE_GROUP: Shape = Shape {
    flexible_since: 4,
    body: Group(&[
        (since(1), Skip(4)),
        (ALL, Skip(2)),
        (since(3), List(&Group(&[(ALL, Text), (ALL, Text), (ALL, Skip(2))], &[]))),
    ], &[]),
};

pub(crate) static DESCRIBE_GROUPS: Shape = Shape {
    flexible_since: 5,
    body: Group(&[
        (since(1), Skip(4)),
        (ALL, List(&Group(&[
            (ALL, Skip(2)),
            (since(6), Text),
            (ALL, Text),
            (ALL, Text),
            (ALL, Text),
            (ALL, Text),
            (ALL, List(&Group(&[
                (ALL, Text),
                (since(4), Text),
                (ALL, Text),
                (ALL, Text),
                (ALL, Blob),
                (ALL, Blob),
            ], &[]))),
            (since(3), Skip(4)),
        ], &[]))),
    ], &[]),
};

pub(crate) static CONSUMER_GROUP_HEARTBEAT: Shape = Shape {
    flexible_since: 0,
    body: Group(&[
        (ALL, Skip(6)),
        (ALL, Text),
        (ALL, Text),
        (ALL, Skip(8)),
        (ALL, Maybe(&Group(&[(ALL, List(&Group(&[(ALL, Skip(16)), (ALL, List(&Skip(4)))], &[])))], &[]))),
    ], &[]),
};

pub(crate) static INIT_PRODUCER_ID: Shape = Shape {
    flexible_since: 2,
    body: Group(&[(ALL, Skip(16))], &[]),
};

pub(crate) static ADD_PARTITIONS_TO_TXN: Shape = Shape {
    flexible_since: 3,
    body: Group(&[
        (ALL, Skip(4)),
        (ALL, List(&Group(&[(ALL, Text), (ALL, List(&Group(&[(ALL, Skip(6))], &[])))], &[]))),
    ], &[]),
};

pub(crate) static END_TXN: Shape = Shape {
    flexible_since: 3,
    body: Group(&[(ALL, Skip(6)), (since(5), Skip(10))], &[]),
};

pub(crate) static TXN_OFFSET_COMMIT: Shape = Shape {
    flexible_since: 3,
    body: Group(&[
        (ALL, Skip(4)),
        (ALL, List(&Group(&[(ALL, Text), (ALL, List(&Group(&[(ALL, Skip(6))], &[])))], &[]))),
    ], &[]),
};

pub(crate) static OFFSET_FOR_LEADER_EPOCH: Shape = Shape {
    flexible_since: 4,
    body: Group(&[
        (ALL, Skip(4)),
        (ALL, List(&Group(&[(ALL, Text), (ALL, List(&Group(&[(ALL, Skip(18))], &[])))], &[]))),
    ], &[]),
};

pub(crate) static CREATE_TOPICS: Shape = Shape {
    flexible_since: 5,
    body: Group(&[
        (ALL, Skip(4)),
        (ALL, List(&Group(&[
            (ALL, Text),
            (since(7), Skip(16)),
            (ALL, Skip(2)),
            (ALL, Text),
            (since(5), Skip(6)),
            (since(5), List(&Group(&[(ALL, Text), (ALL, Text), (ALL, Skip(3))], &[]))),
        ], &[
            (0, Skip(2)),
        ]))),
    ], &[]),
};

pub(crate) static DELETE_TOPICS: Shape = Shape {
    flexible_since: 4,
    body: Group(&[
        (ALL, Skip(4)),
        (ALL, List(&Group(&[(ALL, Text), (since(6), Skip(16)), (ALL, Skip(2)), (since(5), Text)], &[]))),
    ], &[]),
};

pub(crate) static SASL_HANDSHAKE: Shape = Shape {
    flexible_since: NEVER,
    body: Group(&[(ALL, Skip(2)), (ALL, List(&Text))], &[]),
};

pub(crate) static SASL_AUTHENTICATE: Shape = Shape {
    flexible_since: 2,
    body: Group(&[(ALL, Skip(2)), (ALL, Text), (ALL, Blob), (since(1), Skip(8))], &[]),
};

pub(crate) static API_VERSIONS: Shape = Shape {
    flexible_since: 3,
    body: Group(&[
        (ALL, Skip(2)),
        (ALL, List(&Group(&[(ALL, Skip(6))], &[]))),
        (since(1), Skip(4)),
    ], &[
        (0, List(&Group(&[(ALL, Text), (ALL, Skip(4))], &[]))),
        (1, Skip(8)),
        (2, List(&Group(&[(ALL, Text), (ALL, Skip(4))], &[]))),
        (3, Skip(1)),
    ]),
};
