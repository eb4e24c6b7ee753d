//! Transactional sockets: a new one takes the place of the one that came before it, on whatever
//! node, and waits for no answer of it.
//!
//! The order of the log says which one is the new one. What could not be written in time, or is
//! written again, says so, and then counts by when its socket was opened: otherwise a node that was
//! cut off would fence, when it is back, those that have come since. Either way Kafka's own fencing
//! keeps the data right; here the socket that has lost is closed, also when it is idle.

use std::sync::Arc;

use tokio::time::Instant;

use super::effect::{NodeEffect, PlaceLoss};
use super::own_places::OwnPlace;
use super::{NodePhase, SessionNode};
use crate::session::place_claim::PlaceClaim;

impl SessionNode {
    /// A transactional socket is opened, whatever the log does. Its number, and whether the log is
    /// about to say that it has its place: [`NodeEffect::Decided`], or that it is fenced.
    pub(in crate::session) fn claim_fencing(
        &mut self,
        claim: Arc<PlaceClaim>,
        now: Instant,
    ) -> (u64, bool) {
        let holder = self.own_holder(&claim);
        let number = self.places.insert(OwnPlace {
            claim,
            decide_by: None,
            waiting: false,
            #[cfg(test)]
            granted: false,
            probed_until: None,
            written_at: now,
        });
        let is_member = self.phase == NodePhase::Member;
        let is_written = is_member && self.trouble(now).is_none();
        if is_written {
            self.places.unwritten.remove(&number);
            self.write_place(number, now);
        } else if let Some(place) = self.places.by_number.get_mut(&number) {
            place.set_late();
        }
        if let Some(holder) = holder {
            self.fence(holder, now);
        }
        (number, is_written)
    }

    /// A younger socket has the place.
    pub(super) fn fence(&mut self, number: u64, now: Instant) {
        if self.places.contains(number) {
            let loss = PlaceLoss::Fenced;
            self.effects.push(NodeEffect::Lost { number, loss });
            self.release(number, now);
        }
    }
}
