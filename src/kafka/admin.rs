//! Administration of a cluster: its topics, and its consumer groups as Java's `Admin` has them.
//!
//! ```text
//! topics ────────────▶ controller, or any broker       the proxy's own topics, those a user may see
//! groups ─┬▶ listing ────▶ every broker                ListGroups
//!         ├▶ description ▶ coordinators, in batches    DescribeGroups, ConsumerGroupDescribe
//!         ├▶ offsets ────▶ the coordinator             OffsetFetch, OffsetCommit, OffsetDelete
//!         └▶ log_ends ───▶ leaders                     ListOffsets
//! ```

pub mod groups;
mod topics;

pub use topics::{
    AdminError, TopicListing, create_topic, create_topic_with, list_topics, topic_setting,
};
