//! What an assignor is given: the members with their subscriptions, and the partitions.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::rack_info::RackSet;
use crate::group::consumer_protocol::MemberSubscription;

/// For each partition of each known topic, the racks that hold its replicas.
pub(crate) type PartitionsPerTopic = BTreeMap<Arc<str>, Vec<RackSet>>;

/// A member as the leader sees it in the JoinGroup response.
#[derive(Clone, Debug)]
pub(crate) struct GroupMember {
    pub(crate) member_id: String,
    pub(crate) group_instance_id: Option<String>,
    pub(crate) subscription: MemberSubscription,
}

impl GroupMember {
    /// This member's own copy of the name of a topic that it subscribes to.
    pub(super) fn topic(&self, name: &str) -> Arc<str> {
        let topics = &self.subscription.topics;
        let own = topics.iter().find(|topic| &***topic == name);
        own.map_or_else(|| Arc::from(name), Arc::clone)
    }
}
