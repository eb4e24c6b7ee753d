//! Places that nobody waits for: of sockets that are not counted, so that every node can list
//! them; and sockets that an administrator has closed, on whatever node.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::effect::NodeEffect;
use super::own_places::OwnPlace;
use super::{NodePhase, SessionNode};
use crate::session::place_claim::PlaceClaim;
use crate::session::place_id::PlaceId;
use crate::session::record::SessionRecord;
use crate::state_log::LogTrouble;

/// How long a socket is open before the log reads of it: one that comes and goes costs the log
/// nothing.
pub(super) const LIST_AFTER: Duration = Duration::from_millis(500);

impl SessionNode {
    /// A socket is open that is not counted. It is written some time later, when the log can be
    /// written; its number.
    pub(in crate::session) fn list(&mut self, claim: Arc<PlaceClaim>, now: Instant) -> u64 {
        self.places.insert(OwnPlace {
            claim,
            decide_by: None,
            waiting: false,
            #[cfg(test)]
            granted: false,
            probed_until: None,
            written_at: now,
        })
    }

    /// Writes what has been open for a while. As long as the log does not take it, it waits here:
    /// what comes and goes meanwhile leaves nothing.
    pub(super) fn write_listed(&mut self, now: Instant) {
        if self.places.unwritten.is_empty() || self.trouble(now).is_some() {
            return;
        }
        while let Some(&number) = self.places.unwritten.first() {
            let place = self.places.by_number.get(&number);
            if place.is_some_and(|place| now < place.written_at + LIST_AFTER) {
                return;
            }
            self.places.unwritten.remove(&number);
            self.write_place(number, now);
        }
    }

    /// The sockets of all nodes that are known, each with its node's server id.
    pub(in crate::session) fn sockets(
        &self,
    ) -> impl Iterator<Item = (Arc<str>, PlaceId, &Arc<PlaceClaim>)> {
        let own = self.places.by_number.iter();
        let own = own.filter(|(_, place)| place.decide_by.is_none());
        let own = own.map(|(&number, place)| {
            let server_id = Arc::clone(&self.settings.server_id);
            (server_id, self.own_id(number), &place.claim)
        });
        let others = self.state.nodes();
        let others = others.filter(|(node, _)| *node != self.incarnation);
        own.chain(others.flat_map(|(node, entry)| {
            let server_id = entry.server_id(node);
            let places = self.state.places_of(node);
            places.map(move |(id, claim)| (Arc::clone(&server_id), id, claim))
        }))
    }

    /// Whether that is a socket of this node.
    pub(in crate::session) fn is_own(&self, id: PlaceId) -> bool {
        id.node == self.incarnation
    }

    /// Whether the place is there, as far as is known.
    pub(in crate::session) fn is_had(&self, id: PlaceId) -> bool {
        match self.own(id) {
            Some(number) => self.places.contains(number),
            None => self.state.contains(id),
        }
    }

    /// Has the socket of a place closed: at once if it is of this node, else by its node.
    ///
    /// # Errors
    /// The other node cannot be asked.
    pub(in crate::session) fn evict(
        &mut self,
        id: PlaceId,
        now: Instant,
    ) -> Result<(), LogTrouble> {
        if let Some(number) = self.own(id) {
            self.effects.push(NodeEffect::Close(number));
            return Ok(());
        }
        if self.phase != NodePhase::Member {
            return Err(LogTrouble::new(
                "it is being read",
                "this node is no member yet",
            ));
        }
        match self.trouble(now) {
            Some(trouble) => Err(trouble),
            None => {
                self.write(SessionRecord::EvictionRequested { id }, now);
                Ok(())
            }
        }
    }

    /// Nobody waits any more for what [`evict`](Self::evict) has begun.
    pub(in crate::session) fn end_eviction(&mut self, id: PlaceId, now: Instant) {
        let may_write = matches!(self.phase, NodePhase::Joining | NodePhase::Member);
        if may_write && !self.is_own(id) {
            self.write(SessionRecord::EvictionEnded { id }, now);
        }
    }

    /// A node has asked for a socket to be closed. Numbers are those of the process: a socket keeps
    /// its own while the node takes a new incarnation.
    pub(super) fn eviction_requested(&mut self, PlaceId { node, number }: PlaceId) {
        let is_ours = node == self.incarnation || self.former.contains(&node);
        if is_ours && self.places.contains(number) {
            self.effects.push(NodeEffect::Close(number));
        }
    }
}
