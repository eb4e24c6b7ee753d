//! A member of a group, its requests and their results.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::protocol::StrBytes;

use super::{JoinResponder, SyncResponder};

/// A JoinGroup request.
#[derive(Debug)]
pub(crate) struct JoinRequest {
    /// Empty: it has none yet.
    pub(crate) member_id: StrBytes,
    pub(crate) instance_id: Option<StrBytes>,
    pub(crate) client_id: StrBytes,
    pub(crate) host: String,
    pub(crate) session: Duration,
    pub(crate) rebalance: Duration,
    pub(crate) protocol_type: StrBytes,
    /// Name and metadata, the preferred one first.
    pub(crate) protocols: Vec<(StrBytes, Bytes)>,
    /// The client joins in two steps (KIP-394, version 4 and later).
    pub(crate) requires_member_id: bool,
    /// The client knows of `skip_assignment` (version 9 and later).
    pub(crate) can_skip_assignment: bool,
    /// Makes member ids unique.
    pub(crate) nonce: u64,
    pub(crate) reply: JoinResponder,
}

impl JoinRequest {
    pub(super) fn fail(self, error: ResponseError) {
        let _ = self.reply.send(JoinResult::failed(error, self.member_id));
    }

    pub(super) fn require_id(self, id: StrBytes) {
        let error = ResponseError::MemberIdRequired;
        let _ = self.reply.send(JoinResult::failed(error, id));
    }
}

/// The answer to a join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JoinResult {
    pub(crate) error: Option<ResponseError>,
    pub(crate) generation: i32,
    pub(crate) protocol_type: Option<StrBytes>,
    pub(crate) protocol: Option<StrBytes>,
    pub(crate) leader: StrBytes,
    pub(crate) member_id: StrBytes,
    pub(crate) skip_assignment: bool,
    /// Everyone, for the leader only.
    pub(crate) members: Vec<JoinResultMember>,
}

impl JoinResult {
    pub(crate) fn failed(error: ResponseError, member_id: StrBytes) -> Self {
        Self {
            error: Some(error),
            generation: -1,
            protocol_type: None,
            protocol: None,
            leader: StrBytes::new(),
            member_id,
            skip_assignment: false,
            members: Vec::new(),
        }
    }
}

/// What the leader learns of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JoinResultMember {
    pub(crate) id: StrBytes,
    pub(crate) instance_id: Option<StrBytes>,
    pub(crate) metadata: Bytes,
}

/// A SyncGroup request.
#[derive(Debug)]
pub(crate) struct SyncRequest {
    pub(crate) member_id: StrBytes,
    pub(crate) instance_id: Option<StrBytes>,
    pub(crate) generation: i32,
    pub(crate) protocol_type: Option<StrBytes>,
    pub(crate) protocol: Option<StrBytes>,
    pub(crate) assignments: Vec<(StrBytes, Bytes)>,
    pub(crate) reply: SyncResponder,
}

impl SyncRequest {
    pub(super) fn fail(self, error: ResponseError) {
        let _ = self.reply.send(Err(error));
    }
}

/// The answer to a sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SyncResult {
    pub(crate) protocol_type: Option<StrBytes>,
    pub(crate) protocol: Option<StrBytes>,
    pub(crate) assignment: Bytes,
}

/// A member.
#[derive(Debug)]
pub(crate) struct ClassicGroupMember {
    pub(crate) id: StrBytes,
    pub(crate) instance_id: Option<StrBytes>,
    pub(crate) client_id: StrBytes,
    pub(crate) host: String,
    pub(crate) assignment: Bytes,
    pub(super) rebalance: Duration,
    pub(super) protocols: Vec<(StrBytes, Bytes)>,
    /// Bytes of all but the assignment.
    pub(super) size: usize,
    session: Duration,
    expires: Instant,
    joining: Option<JoinResponder>,
    syncing: Option<SyncResponder>,
}

impl ClassicGroupMember {
    /// A member whose join is parked.
    pub(super) fn new(id: StrBytes, join: JoinRequest, now: Instant) -> Self {
        Self {
            size: join.bytes(),
            id,
            instance_id: join.instance_id,
            client_id: join.client_id,
            host: join.host,
            assignment: Bytes::new(),
            rebalance: join.rebalance,
            protocols: join.protocols,
            session: join.session,
            expires: now + join.session,
            joining: Some(join.reply),
            syncing: None,
        }
    }

    /// What it said for that protocol.
    pub(crate) fn metadata(&self, protocol: &StrBytes) -> Option<Bytes> {
        let mut protocols = self.protocols.iter();
        let found = protocols.find(|(name, _)| name == protocol);
        found.map(|(_, metadata)| metadata.clone())
    }

    pub(super) fn is_joining(&self) -> bool {
        self.joining.is_some()
    }

    /// It joins again, perhaps with other protocols or time-outs.
    pub(super) fn rejoin(&mut self, join: JoinRequest, now: Instant) {
        self.size = join.bytes();
        self.protocols = join.protocols;
        self.session = join.session;
        self.rebalance = join.rebalance;
        self.client_id = join.client_id;
        self.host = join.host;
        self.reset_session(now);
        if let Some(earlier) = self.joining.replace(join.reply) {
            let error = ResponseError::RebalanceInProgress;
            let _ = earlier.send(JoinResult::failed(error, self.id.clone()));
        }
    }

    pub(super) fn answer_join(&mut self, joined: JoinResult) {
        if let Some(reply) = self.joining.take() {
            let _ = reply.send(joined);
        }
    }

    pub(super) fn park_sync(&mut self, reply: SyncResponder) {
        if let Some(earlier) = self.syncing.replace(reply) {
            let _ = earlier.send(Err(ResponseError::RebalanceInProgress));
        }
    }

    pub(super) fn take_sync(&mut self) -> Option<SyncResponder> {
        self.syncing.take()
    }

    /// Another instance took its name; returns the id that it had.
    pub(super) fn into_fenced(mut self) -> StrBytes {
        self.fail_parked(ResponseError::FencedInstanceId);
        self.id
    }

    /// Answers whatever is parked.
    pub(super) fn fail_parked(&mut self, error: ResponseError) {
        let id = self.id.clone();
        self.answer_join(JoinResult::failed(error, id));
        if let Some(reply) = self.take_sync() {
            let _ = reply.send(Err(error));
        }
    }

    /// Its session starts anew.
    pub(super) fn reset_session(&mut self, now: Instant) {
        self.expires = now + self.session;
    }

    /// When its session expires; never while a request of it is parked.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let parked = self.joining.is_some() || self.syncing.is_some();
        (!parked).then_some(self.expires)
    }

    pub(super) fn expired(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= now)
    }
}
