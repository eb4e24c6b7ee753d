//! What a group committed.

use kafka_protocol::protocol::StrBytes;

/// The position of a group in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::broker) struct Committed {
    pub(in crate::broker) offset: i64,
    pub(in crate::broker) leader_epoch: i32,
    pub(in crate::broker) metadata: StrBytes,
}
