//! Administration of a cluster.
//!
//! ```text
//! topics ────────────▶ controller, or any broker       the proxy's own topics, those a user may see
//! ```

mod topics;

pub use topics::{
    AdminError, TopicListing, create_topic, create_topic_with, list_topics, topic_setting,
};
