//! The entries, as the log says, and the changes that this node has asked for.
//!
//! ```text
//! begin ─▶ record to be written ─▶ log ─▶ read: did its condition hold at its place?
//!                                          ├ yes ─▶ whoever asked is told so
//!                                          └ no ──▶ whoever asked is told so, and what was before
//!                                                   is written again
//! ```
//!
//! Without I/O. Two nodes that create the same entry at once: the first one in the log has created
//! it; the other one is refused, and puts it back.
//!
//! # Invariants
//! - The last record of a key is what is in force, whatever its condition: all nodes agree on it,
//!   and so do those that start when everything before was compacted.
//! - What is asserted of an entry, that records whose conditions held have made it, is what is in
//!   force once every node has read what it wrote: a record that has another one in force is
//!   followed by what is asserted, from the node that wrote it. Should that node die before, what
//!   is in force stays, and nobody was told that it is so.
//! - While the log is read again, what was known before is in force.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use tokio::sync::oneshot;

use super::record::{ChangeId, ChangeKind, LimitRecord};
use crate::config::ClientLimit;
use crate::quotas::LimitedId;

/// Entries that may be created.
pub(super) const ENTRIES_MAX: usize = 10_000;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryChange {
    /// A new entry.
    Create(ClientLimit),
    /// Another one in the place of the one that there is.
    Replace(ClientLimit),
    /// No entry any more.
    Delete,
    /// No entry, whether there was one or not.
    Forget,
}

impl EntryChange {
    fn entry(self) -> Option<ClientLimit> {
        match self {
            Self::Create(entry) | Self::Replace(entry) => Some(entry),
            Self::Delete | Self::Forget => None,
        }
    }

    fn kind(self) -> ChangeKind {
        match self {
            Self::Create(_) => ChangeKind::Create,
            Self::Replace(_) | Self::Delete => ChangeKind::Change,
            Self::Forget => ChangeKind::Set,
        }
    }
}

/// Why an entry is not changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ChangeRefusal {
    /// There is one.
    Exists,
    /// There is none.
    Missing,
    /// There are [`ENTRIES_MAX`].
    TooMany,
    /// It could not be written.
    NotWritten(String),
}

pub(super) type ChangeResult = Result<(), ChangeRefusal>;

/// The entries, and the changes under way.
#[derive(Debug)]
pub(super) struct LimitEntries {
    /// A random number of this process.
    node: u64,
    entries: BTreeMap<LimitedId, ClientLimit>,
    /// What is asserted of entries of which something else is in force.
    asserted: HashMap<LimitedId, Option<ClientLimit>>,
    /// Whose entries were deleted in what is read so far, until the log is loaded.
    deleted: HashSet<LimitedId>,
    /// What was known before the log was read again, until that is done.
    former: Option<BTreeMap<LimitedId, ClientLimit>>,
    is_loaded: bool,
    /// Whose entries have changed since that was asked for.
    changed: BTreeSet<LimitedId>,
    outbox: VecDeque<LimitRecord>,
    /// Changes that were asked for so far.
    asked: u64,
    /// Who waits for each that is under way.
    waiting: HashMap<u64, oneshot::Sender<ChangeResult>>,
    decided: Vec<(oneshot::Sender<ChangeResult>, ChangeResult)>,
}

impl LimitEntries {
    /// Those of a node that has read nothing. `node` is random.
    pub(super) fn new(node: u64) -> Self {
        Self {
            node,
            entries: BTreeMap::new(),
            asserted: HashMap::new(),
            deleted: HashSet::new(),
            former: None,
            is_loaded: false,
            changed: BTreeSet::new(),
            outbox: VecDeque::new(),
            asked: 0,
            waiting: HashMap::new(),
            decided: Vec::new(),
        }
    }

    /// The entries that hold; `None` before the log was read for the first time.
    pub(super) fn in_force(&self) -> Option<&BTreeMap<LimitedId, ClientLimit>> {
        match self.is_loaded {
            true => Some(&self.entries),
            false => self.former.as_ref(),
        }
    }

    /// Has a change written, unless it is known to be refused. The log must be loaded.
    pub(super) fn begin(
        &mut self,
        id: LimitedId,
        change: EntryChange,
    ) -> Result<oneshot::Receiver<ChangeResult>, ChangeRefusal> {
        let has_entry = self.asserted(&id).is_some();
        if let Some(refusal) = refusal(change.kind(), has_entry) {
            return Err(refusal);
        }
        let is_new = matches!(change, EntryChange::Create(_));
        if is_new && self.entries.len() >= ENTRIES_MAX {
            return Err(ChangeRefusal::TooMany);
        }
        let (sender, decided) = oneshot::channel();
        let number = self.write(id, change.entry(), change.kind());
        self.waiting.insert(number, sender);
        Ok(decided)
    }

    /// The log is read again: what is under way is not waited for any more.
    pub(super) fn begin_load(&mut self) {
        let entries = std::mem::take(&mut self.entries);
        if std::mem::take(&mut self.is_loaded) {
            self.former = Some(entries);
        }
        self.asserted.clear();
        self.deleted.clear();
        self.outbox.clear();
        self.waiting.clear();
    }

    /// The log was read to its end.
    pub(super) fn loaded(&mut self) {
        self.is_loaded = true;
        self.deleted = HashSet::new();
        let former = self.former.take().unwrap_or_default();
        let ids = former.keys().chain(self.entries.keys());
        let changed = ids.filter(|id| former.get(id) != self.entries.get(id));
        self.changed = changed.cloned().collect();
    }

    /// The next record.
    pub(super) fn read(&mut self, record: LimitRecord) {
        let LimitRecord { id, entry, change } = record;
        let kind = change.map_or(ChangeKind::Set, |change| change.kind);
        let before = self.asserted(&id);
        // Of the first record of a key that is loaded, those before may have been compacted: its
        // condition held.
        let is_known = self.is_loaded
            || self.entries.contains_key(&id)
            || self.asserted.contains_key(&id)
            || self.deleted.contains(&id);
        let refusal = refusal(kind, before.is_some()).filter(|_| is_known);
        let asserted = match refusal.is_some() || (kind == ChangeKind::Restore && is_known) {
            true => before,
            false => entry,
        };
        match entry {
            Some(entry) => self.entries.insert(id.clone(), entry),
            None => self.entries.remove(&id),
        };
        self.changed.insert(id.clone());
        if !self.is_loaded && entry.is_none() {
            self.deleted.insert(id.clone());
        }
        let own = change.filter(|change| change.node == self.node && self.is_loaded);
        if let Some(waiting) = own.and_then(|change| self.waiting.remove(&change.number)) {
            self.decided.push((waiting, refusal.map_or(Ok(()), Err)));
        }
        if asserted == entry {
            self.asserted.remove(&id);
            return;
        }
        self.asserted.insert(id.clone(), asserted);
        if own.is_some() {
            self.write(id, asserted, ChangeKind::Restore);
        }
    }

    /// Takes the next record that is to be written.
    pub(super) fn take_write(&mut self) -> Option<LimitRecord> {
        self.outbox.pop_front()
    }

    /// It could not be written yet.
    pub(super) fn put_back(&mut self, record: LimitRecord) {
        self.outbox.push_front(record);
    }

    /// It was not written, or nobody says so. Should it be in the log, it is read.
    pub(super) fn failed(&mut self, record: &LimitRecord, reason: &str) {
        let waiting = record
            .change
            .and_then(|change| self.waiting.remove(&change.number));
        if let Some(waiting) = waiting {
            let refusal = ChangeRefusal::NotWritten(reason.to_owned());
            self.decided.push((waiting, Err(refusal)));
        }
    }

    pub(super) fn has_writes(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Whose entries have changed since the last call, once the log is loaded, with what they are.
    pub(super) fn take_changed(&mut self) -> Vec<(LimitedId, Option<ClientLimit>)> {
        if !self.is_loaded {
            return Vec::new();
        }
        let changed = std::mem::take(&mut self.changed).into_iter();
        let changed = changed.map(|id| {
            let entry = self.entries.get(&id).copied();
            (id, entry)
        });
        changed.collect()
    }

    /// Who is to be told what became of their change.
    pub(super) fn take_decided(&mut self) -> Vec<(oneshot::Sender<ChangeResult>, ChangeResult)> {
        std::mem::take(&mut self.decided)
    }

    fn asserted(&self, id: &LimitedId) -> Option<ClientLimit> {
        let in_force = || self.entries.get(id).copied();
        self.asserted.get(id).copied().unwrap_or_else(in_force)
    }

    fn write(&mut self, id: LimitedId, entry: Option<ClientLimit>, kind: ChangeKind) -> u64 {
        let number = self.asked;
        self.asked += 1;
        let change = Some(ChangeId {
            kind,
            node: self.node,
            number,
        });
        self.outbox.push_back(LimitRecord { id, entry, change });
        number
    }
}

/// Why the condition of a record of that kind does not hold.
fn refusal(kind: ChangeKind, has_entry: bool) -> Option<ChangeRefusal> {
    match (kind, has_entry) {
        (ChangeKind::Create, true) => Some(ChangeRefusal::Exists),
        (ChangeKind::Change, false) => Some(ChangeRefusal::Missing),
        (ChangeKind::Create, false)
        | (ChangeKind::Change, true)
        | (ChangeKind::Set | ChangeKind::Restore, _) => None,
    }
}

#[cfg(test)]
mod tests;
