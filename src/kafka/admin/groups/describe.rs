//! Asks for the descriptions of many groups: one request for all of one type at one coordinator.
//!
//! ```text
//! pending ─▶ by coordinator and type ─▶ request ─┬▶ described
//!    ▲                                           ├▶ too large: two halves
//!    └── coordinator looked up again ◀───────────┴▶ none of that type: the other one
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka_protocol::messages::{ConsumerGroupDescribeRequest, DescribeGroupsRequest};
use tokio::time::{Instant, sleep, timeout_at};

use super::description::{self, ConsumerGroupDescription, DescribedGroups, DescriptionDetail};
use super::error::{GroupAdminError, GroupAttemptError, lookup_error};
use super::listing::{GroupListing, GroupType};
use super::{ANY_VERSION, GroupAdmin};
use crate::group::find_coordinators;
use crate::{BrokerId, RequestError};

/// Groups that one request describes.
const BATCH_MAX: usize = 100;
/// Groups whose coordinators one request asks for.
const LOOKUPS_MAX: usize = 500;

/// A group that is to be described.
#[derive(Clone, Debug)]
struct PendingDescription {
    group: Arc<str>,
    group_type: GroupType,
    /// As far as it is known.
    coordinator: Option<BrokerId>,
}

/// Groups that one request asks for.
type DescribeBatch = (BrokerId, GroupType, Vec<Arc<str>>);

impl GroupAdmin {
    /// Cuts a list into batches that [`GroupAdmin::describe_groups`] asks for in one request each.
    pub fn batches(listed: Vec<GroupListing>) -> Vec<Vec<GroupListing>> {
        let mut by_request: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for group in listed {
            let of_request = (group.coordinator, group.group_type);
            by_request.entry(of_request).or_default().push(group);
        }
        let mut batches = Vec::new();
        for mut groups in by_request.into_values() {
            while groups.len() > BATCH_MAX {
                batches.push(groups.split_off(groups.len() - BATCH_MAX));
            }
            batches.push(groups);
        }
        batches
    }

    /// Describes groups, in any order, without those that are gone.
    ///
    /// # Errors
    /// [`GroupAdminError::NotAuthorized`] and [`GroupAdminError::Unavailable`].
    pub async fn describe_groups(
        &self,
        groups: &[GroupListing],
        detail: DescriptionDetail,
    ) -> Result<Vec<ConsumerGroupDescription>, GroupAdminError> {
        let pending = groups.iter().map(|listed| PendingDescription {
            group: Arc::clone(&listed.group_id),
            group_type: listed.group_type,
            coordinator: Some(listed.coordinator),
        });
        self.describe(pending.collect(), detail).await
    }

    /// Describes one group.
    ///
    /// # Errors
    /// [`GroupAdminError::NotFound`], [`GroupAdminError::NotAuthorized`] and
    /// [`GroupAdminError::Unavailable`].
    pub async fn describe_group(
        &self,
        group: &Arc<str>,
    ) -> Result<ConsumerGroupDescription, GroupAdminError> {
        let pending = PendingDescription {
            group: Arc::clone(group),
            // As Java asks: a broker that knows the type at all answers at once.
            group_type: GroupType::Consumer,
            coordinator: None,
        };
        let described = self.describe(vec![pending], DescriptionDetail::Partitions);
        let described = described.await?.into_iter().next();
        described.ok_or_else(|| GroupAdminError::NotFound {
            group: Arc::clone(group),
        })
    }

    async fn describe(
        &self,
        mut pending: Vec<PendingDescription>,
        detail: DescriptionDetail,
    ) -> Result<Vec<ConsumerGroupDescription>, GroupAdminError> {
        let deadline = self.deadline();
        let mut backoff = self.backoff();
        let mut described = Vec::with_capacity(pending.len());
        loop {
            let asked = self.describe_once(&mut pending, detail, &mut described);
            let asked = timeout_at(deadline, asked).await;
            let reason = match asked {
                Ok(Ok(())) => return Ok(described),
                Ok(Err(GroupAttemptError::Final(error))) => return Err(error),
                Ok(Err(GroupAttemptError::Retriable(reason))) => reason,
                Err(_) => "no answer in time".into(),
            };
            if Instant::now() >= deadline {
                return Err(GroupAdminError::Unavailable { reason });
            }
            sleep(backoff.after_failure()).await;
        }
    }

    /// Describes what is pending, as far as the brokers answer. An error leaves the rest pending.
    async fn describe_once(
        &self,
        pending: &mut Vec<PendingDescription>,
        detail: DescriptionDetail,
        described: &mut Vec<ConsumerGroupDescription>,
    ) -> Result<(), GroupAttemptError> {
        let mut trouble = None;
        let mut batches = self.describe_batches(pending).await?;
        while let Some((coordinator, group_type, mut groups)) = batches.pop() {
            let answered = self
                .describe_at(coordinator, group_type, &groups, detail)
                .await;
            let answered = match answered {
                Ok(answered) => answered,
                Err(RequestError::ResponseTooLarge { .. }) if groups.len() > 1 => {
                    let half = groups.split_off(groups.len() / 2);
                    batches.push((coordinator, group_type, groups));
                    batches.push((coordinator, group_type, half));
                    continue;
                }
                // It knows no groups of that type.
                Err(RequestError::UnsupportedVersion { .. })
                    if group_type == GroupType::Consumer =>
                {
                    batches.push((coordinator, GroupType::Classic, groups));
                    continue;
                }
                Err(error) => {
                    let error = GroupAttemptError::from(error);
                    forget_coordinators(pending, &groups);
                    trouble = Some(error);
                    continue;
                }
            };
            let mut others = Vec::new();
            if answered.len() < groups.len() {
                trouble = Some(GroupAttemptError::Retriable("a group is left out".into()));
            }
            for (group, result) in answered {
                match result {
                    Ok(description) => described.push(description),
                    Err(GroupAttemptError::Final(GroupAdminError::NotFound { .. })) => {
                        if group_type == GroupType::Consumer {
                            others.push(group);
                            continue;
                        }
                    }
                    Err(error) => {
                        forget_coordinators(pending, &[group]);
                        trouble = Some(error);
                        continue;
                    }
                }
                pending.retain(|pending| pending.group != group);
            }
            if !others.is_empty() {
                batches.push((coordinator, GroupType::Classic, others));
            }
        }
        trouble.map_or(Ok(()), Err)
    }

    /// What is to be asked of whom; coordinators that are not known are asked for first.
    async fn describe_batches(
        &self,
        pending: &mut [PendingDescription],
    ) -> Result<Vec<DescribeBatch>, GroupAttemptError> {
        let mut unknown: Vec<_> = pending
            .iter_mut()
            .filter(|pending| pending.coordinator.is_none())
            .collect();
        for unknown in unknown.chunks_mut(LOOKUPS_MAX) {
            let groups: Vec<_> = unknown.iter().map(|p| Arc::clone(&p.group)).collect();
            let groups: Vec<_> = groups.iter().collect();
            let found = find_coordinators(&self.cluster, &groups).await;
            for (pending, found) in unknown.iter_mut().zip(found) {
                let found = found.map_err(|error| lookup_error(error, &pending.group));
                pending.coordinator = match found {
                    Err(GroupAttemptError::Final(GroupAdminError::NotFound { .. })) => None,
                    found => Some(found?),
                };
            }
        }
        let mut batches: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for pending in pending.iter() {
            if let Some(coordinator) = pending.coordinator {
                let of_request = (coordinator, pending.group_type);
                let groups = batches.entry(of_request).or_default();
                groups.push(Arc::clone(&pending.group));
            }
        }
        let batches = batches.into_iter();
        Ok(batches
            .map(|((at, kind), groups)| (at, kind, groups))
            .collect())
    }

    async fn describe_at(
        &self,
        coordinator: BrokerId,
        group_type: GroupType,
        groups: &[Arc<str>],
        detail: DescriptionDetail,
    ) -> Result<DescribedGroups, RequestError> {
        match group_type {
            GroupType::Classic => {
                let build = |_version| description::classic_request(groups);
                let called = self.call::<DescribeGroupsRequest>(coordinator, ANY_VERSION, build);
                Ok(description::classic_groups(called.await?.1, detail))
            }
            GroupType::Consumer => {
                let build = |_version| description::consumer_request(groups);
                let called =
                    self.call::<ConsumerGroupDescribeRequest>(coordinator, ANY_VERSION, build);
                Ok(description::consumer_groups(called.await?.1, detail))
            }
        }
    }
}

/// Has the coordinators of these groups looked up again.
fn forget_coordinators(pending: &mut [PendingDescription], groups: &[Arc<str>]) {
    for pending in pending {
        if groups.contains(&pending.group) {
            pending.coordinator = None;
        }
    }
}
