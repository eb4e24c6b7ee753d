//! Consumer groups: which member reads which partitions, and the offsets that it commits.
//!
//! ```text
//! Consumer ⇄ MemberChannel ⇄ ConsumerCoordinator ─decides──▶ Membership (pure)
//!                              │ as the leader ────────────▶ assignor (pure): range, cooperative-sticky
//!                              │ commits ──────────────────▶ PendingCommits (pure)
//!                              └─▶ CoordinatorHandle ─┬────▶ CoordinatorLookup   one request for many groups
//!                                                     └────▶ Cluster
//! ```
//!
//! This is the classic protocol (JoinGroup, SyncGroup, Heartbeat): our consumers share groups
//! with Java's and librdkafka's, and any of them may be the leader.

mod assignment_snapshot;
pub(crate) mod assignor;
mod consumer_coordinator;
mod consumer_protocol;
mod coordinator_handle;
mod coordinator_lookup;
mod error;
mod group_access;
mod group_start;
mod last_group_start;
mod member_channel;
mod membership;
mod partition_assignment;
mod partition_set;
mod pending_commits;
mod positions;
mod requests;
mod topic_identity;

pub(crate) use self::consumer_coordinator::ConsumerCoordinator;
pub(crate) use self::consumer_protocol::{PROTOCOL_TYPE, decode_assignment};
pub(crate) use self::coordinator_handle::ConsumerGroups;
pub(crate) use self::coordinator_lookup::find_coordinators;
pub(crate) use self::error::GroupError;
pub use self::error::{CommitError, ConsumerError};
pub(crate) use self::group_access::check as check_group_access;
pub use self::group_start::GroupStart;
pub(crate) use self::member_channel::{BackgroundEvent, InitialPosition, MemberChannel};
pub(crate) use self::membership::{GroupRebalanceConfig, Membership};
pub(crate) use self::partition_assignment::PartitionAssignment;
pub use self::positions::OffsetResetStrategy;
