//! What a node has written to the log and not seen in it, and what it has yet to write again.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::session::record::SessionRecord;
use crate::state_log::LogTrouble;

/// How long a claim may take to be decided.
pub(in crate::session) const CLAIM_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a socket may take to show that it lives when its client id comes again.
pub(in crate::session) const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// From when on an answer of the log is overdue, so that no claim is begun.
pub(super) const OVERDUE_AFTER: Duration = Duration::from_secs(2);
/// The writes of one node that are under way.
#[derive(Debug, Default)]
pub(super) struct LogWrites {
    /// When each write began that has no answer, oldest first.
    unanswered: VecDeque<Instant>,
    /// What must be written and could not be, in order.
    again: Vec<SessionRecord>,
    again_at: Option<Instant>,
    /// Why the last write that was answered failed, if it did.
    last_failure: Option<String>,
    /// An offset that was acknowledged and is not read, and since when.
    unread: Option<(i64, Instant)>,
}

impl LogWrites {
    pub(super) fn begun(&mut self, now: Instant) {
        self.unanswered.push_back(now);
    }

    pub(super) fn acked(&mut self, offset: i64, next_offset: i64, now: Instant) {
        self.unanswered.pop_front();
        self.last_failure = None;
        if offset >= next_offset {
            let since = self.unread.map_or(now, |(_, since)| since);
            self.unread = Some((offset, since));
        }
    }

    pub(super) fn failed(&mut self, reason: &str) {
        self.unanswered.pop_front();
        self.last_failure = Some(reason.to_owned());
    }

    pub(super) fn read_up_to(&mut self, next_offset: i64) {
        if self.unread.is_some_and(|(offset, _)| offset < next_offset) {
            self.unread = None;
        }
    }

    /// Has the record written again, not before `at`.
    pub(super) fn retry(&mut self, record: SessionRecord, at: Instant) {
        self.again.push(record);
        self.again_at.get_or_insert(at);
    }

    /// What is to be written again by now.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<SessionRecord> {
        match self.again_at {
            Some(at) if now >= at => self.take_all(),
            _ => Vec::new(),
        }
    }

    pub(super) fn take_all(&mut self) -> Vec<SessionRecord> {
        self.again_at = None;
        std::mem::take(&mut self.again)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.unanswered.is_empty()
    }

    /// Why what is written now would not be seen in time.
    pub(super) fn trouble(&self, now: Instant) -> Option<LogTrouble> {
        let overdue = |since: Instant| now >= since + OVERDUE_AFTER;
        if let Some(reason) = &self.last_failure {
            return Some(LogTrouble::new("it cannot be written", reason));
        }
        if self.unanswered.front().copied().is_some_and(overdue) {
            let detail = "no broker has acknowledged in time";
            return Some(LogTrouble::new("it cannot be written", detail));
        }
        let (_, since) = self.unread?;
        let detail = "what was written does not come back";
        overdue(since).then(|| LogTrouble::new("it cannot be read", detail))
    }
}
