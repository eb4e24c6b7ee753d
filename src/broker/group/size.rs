//! What a group takes of the memory that all groups share.

use kafka_protocol::protocol::StrBytes;

use super::{ClassicGroup, JoinRequest, OffsetAndMetadata, SyncRequest};

impl ClassicGroup {
    /// Bytes that it takes, about.
    pub(crate) fn bytes(&self) -> usize {
        let members = self.members.iter().map(|m| m.size + m.assignment.len());
        let pending = self.pending.keys().map(|id| id.len() + OVERHEAD);
        size_of::<Self>() + members.sum::<usize>() + pending.sum::<usize>() + self.committed
    }

    /// Remembers the group's position in a partition.
    pub(crate) fn commit(&mut self, key: (StrBytes, i32), committed: OffsetAndMetadata) {
        // One that came later may be replicated, and stored, earlier here.
        let stored = self.offsets.get(&key);
        if stored.is_some_and(|stored| stored.number > committed.number) {
            return;
        }
        let name = key.0.len();
        self.committed += size_of_offset(name, &committed);
        if let Some(before) = self.offsets.insert(key, committed) {
            self.committed -= size_of_offset(name, &before);
        }
    }

    /// The number of a commit that is in the log from now on.
    pub(crate) fn append_commit(&mut self) -> u64 {
        self.commits += 1;
        self.commits
    }

    /// Forgets its position in a partition.
    pub(crate) fn forget_offset(&mut self, topic: &str, partition: i32) {
        let key = (StrBytes::from_string(topic.to_owned()), partition);
        if let Some(offset) = self.offsets.remove(&key) {
            self.committed -= size_of_offset(topic.len(), &offset);
        }
    }

    /// Forgets its positions in a topic.
    pub(crate) fn forget_topic(&mut self, topic: &str) {
        let Self {
            offsets, committed, ..
        } = self;
        offsets.retain(|(name, _), offset| {
            let keep = &**name != topic;
            if !keep {
                *committed -= size_of_offset(name.len(), offset);
            }
            keep
        });
    }
}

impl JoinRequest {
    /// Bytes that the member will take.
    pub(crate) fn bytes(&self) -> usize {
        let protocols = self.protocols.iter();
        let protocols = protocols.map(|(name, metadata)| name.len() + metadata.len() + OVERHEAD);
        let instance = self.instance_id.as_ref().map_or(0, |id| id.len());
        // An id is made of another name.
        let id = self.member_id.len().max(self.client_id.len()).max(instance);
        let texts = id + instance + self.client_id.len() + self.protocol_type.len();
        MEMBER + texts + protocols.sum::<usize>()
    }
}

impl SyncRequest {
    /// Bytes that the assignments will take.
    pub(crate) fn bytes(&self) -> usize {
        let assignments = self.assignments.iter();
        assignments.map(|(_, assignment)| assignment.len()).sum()
    }
}

/// Bytes that a position takes.
pub(crate) fn size_of_offset(name: usize, committed: &OffsetAndMetadata) -> usize {
    name + committed.metadata.len() + OVERHEAD
}

/// Of an entry of any collection.
const OVERHEAD: usize = 128;
/// Of a member, with the entries that it has in several.
const MEMBER: usize = 512;
