//! What a group committed.

use kafka_protocol::protocol::StrBytes;

/// The position of a group in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OffsetAndMetadata {
    /// Of the commit, in the order in which the group's coordinator has them in its log.
    pub(crate) number: u64,
    pub(crate) offset: i64,
    pub(crate) leader_epoch: i32,
    pub(crate) metadata: StrBytes,
}
