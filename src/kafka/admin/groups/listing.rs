//! ListGroups: the groups of consumers that each broker coordinates.

use std::sync::Arc;

use kafka_protocol::messages::{ListGroupsRequest, ListGroupsResponse};
use kafka_protocol::protocol::StrBytes;

use super::state::GroupState;
use crate::BrokerId;
use crate::group::PROTOCOL_TYPE;

/// Which protocol the members of a group speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GroupType {
    /// JoinGroup and SyncGroup; also groups without members that only commit.
    Classic,
    /// ConsumerGroupHeartbeat (KIP-848).
    Consumer,
}

/// A group as ListGroups has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupListing {
    /// The group's id.
    pub group_id: Arc<str>,
    /// The broker that coordinates it.
    pub coordinator: BrokerId,
    /// Which protocol its members speak.
    pub group_type: GroupType,
}

/// ListGroups. Brokers before 2.6 know no filter of states, those before 3.8 none of types:
/// what they list too many is left out by whoever reads it.
pub(super) fn request(version: i16, active_only: bool) -> ListGroupsRequest {
    let mut request = ListGroupsRequest::default();
    if version >= 4 && active_only {
        let active = GroupState::ALL.iter().filter(|state| state.is_active());
        let names = active.map(|state| StrBytes::from_static_str(state.kafka_name()));
        request.states_filter = names.collect();
    }
    if version >= 5 {
        let types = [CLASSIC, CONSUMER].map(StrBytes::from_static_str);
        request.types_filter = types.to_vec();
    }
    request
}

/// The groups of consumers that a broker lists: no share and no streams groups, and none of other
/// programs that use the classic protocol (Kafka Connect).
pub(super) fn parse(response: ListGroupsResponse, coordinator: BrokerId) -> Vec<GroupListing> {
    let groups = response.groups.into_iter().filter_map(|group| {
        let of_consumers = matches!(&*group.protocol_type, PROTOCOL_TYPE | "");
        let group_type = match &*group.group_type {
            name if name.is_empty() || name.eq_ignore_ascii_case(CLASSIC) => GroupType::Classic,
            name if name.eq_ignore_ascii_case(CONSUMER) => GroupType::Consumer,
            _ => return None,
        };
        of_consumers.then(|| GroupListing {
            group_id: group.group_id.as_str().into(),
            coordinator,
            group_type,
        })
    });
    groups.collect()
}

/// Each group once, in the order of the ids. A group that moves may be listed by two brokers.
pub(super) fn merge(listed: impl IntoIterator<Item = Vec<GroupListing>>) -> Vec<GroupListing> {
    let mut all: Vec<_> = listed.into_iter().flatten().collect();
    all.sort_unstable_by(|a, b| a.group_id.cmp(&b.group_id));
    all.dedup_by(|later, first| later.group_id == first.group_id);
    all
}

const CLASSIC: &str = "Classic";
const CONSUMER: &str = "Consumer";

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::list_groups_response::ListedGroup;
    use kafka_protocol::protocol::Encodable;

    use super::*;

    fn listed(id: &'static str, protocol: &'static str, kind: &'static str) -> ListedGroup {
        ListedGroup::default()
            .with_group_id(StrBytes::from_static_str(id).into())
            .with_protocol_type(StrBytes::from_static_str(protocol))
            .with_group_type(StrBytes::from_static_str(kind))
    }

    #[test]
    fn share_and_streams_groups_and_those_of_other_programs_are_left_out() {
        let response = ListGroupsResponse::default().with_groups(vec![
            listed("old-broker", "consumer", ""),
            listed("classic", "consumer", "Classic"),
            listed("simple", "", "Classic"),
            listed("kip-848", "consumer", "Consumer"),
            listed("connect", "connect", "Classic"),
            listed("share", "share", "Share"),
            listed("streams", "streams", "Streams"),
        ]);
        let parsed = parse(response, BrokerId(3));
        let found: Vec<_> = parsed
            .iter()
            .map(|group| (&*group.group_id, group.group_type))
            .collect();
        let classic = |id| (id, GroupType::Classic);
        assert_eq!(
            found,
            [
                classic("old-broker"),
                classic("classic"),
                classic("simple"),
                ("kip-848", GroupType::Consumer)
            ]
        );
    }

    #[test]
    fn a_group_that_two_brokers_list_is_one() {
        let at = |broker| {
            let response =
                ListGroupsResponse::default().with_groups(vec![listed("g", "consumer", "")]);
            parse(response, BrokerId(broker))
        };
        assert_eq!(merge([at(1), at(2)]).len(), 1);
    }

    #[test]
    fn every_version_can_carry_the_filters_that_it_knows() {
        for version in 0..=5 {
            let request = request(version, true);
            assert_eq!(request.states_filter.is_empty(), version < 4);
            assert_eq!(request.types_filter.is_empty(), version < 5);
            let mut bytes = bytes::BytesMut::new();
            request.encode(&mut bytes, version).unwrap();
        }
    }
}
