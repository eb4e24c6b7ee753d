//! The places of a node's sockets, from the claim to the release.

use std::sync::Arc;

use tokio::time::Instant;

use super::effect::{ClaimOutcome, ClaimRefusal, NodeEffect, PlaceLoss};
use super::own_places::OwnPlace;
use super::writes::{CLAIM_TIMEOUT, PROBE_TIMEOUT};
use super::{NodePhase, SessionNode};
use crate::session::place_claim::{PlaceClaim, PlaceMember};
use crate::session::place_id::PlaceId;
use crate::session::record::SessionRecord;

impl SessionNode {
    /// Begins a claim: [`NodeEffect::Decided`] tells what becomes of it, unless it is released
    /// before. `Ok` is its number.
    pub(in crate::session) fn claim(
        &mut self,
        claim: Arc<PlaceClaim>,
        now: Instant,
    ) -> Result<u64, ClaimRefusal> {
        let holder = self.own_holder(&claim);
        if let Some(holder) = holder.filter(|_| !claim.is_fencing()) {
            return Err(ClaimRefusal::HeldHere(holder));
        }
        if self.phase != NodePhase::Member {
            return Err(ClaimRefusal::NotLoaded);
        }
        if let Some(trouble) = self.trouble(now) {
            return Err(ClaimRefusal::Trouble(trouble));
        }
        self.check_room(&claim)?;
        let number = self.places.insert(OwnPlace {
            claim,
            decide_by: Some(now + CLAIM_TIMEOUT),
            waiting: false,
            #[cfg(test)]
            granted: false,
            probed_until: None,
            written_at: now,
        });
        self.write_place(number, now);
        // Behind the claim, so that nobody else gets the place between them.
        if let Some(holder) = holder {
            self.fence(holder, now);
        }
        Ok(number)
    }

    /// Which socket of this node is of the same member, if there may be one of it only.
    pub(super) fn own_holder(&self, claim: &PlaceClaim) -> Option<u64> {
        let member = claim.sole_member()?;
        self.places.holder(&member)
    }

    /// Whether the group is full of others, as far as the log was read: who is told so at once
    /// costs the log nothing.
    fn check_room(&self, claim: &PlaceClaim) -> Result<(), ClaimRefusal> {
        let member = claim.member(self.own_id(0));
        let Some(PlaceMember { group: name, key }) = member else {
            return Ok(());
        };
        let Some(group) = self.state.group(&name) else {
            return Ok(());
        };
        if group.holder(&key).is_some() {
            return Ok(());
        }
        match group.full_for(claim) {
            Some(full) if self.places.releasing_in(&name) == 0 => Err(ClaimRefusal::Full {
                full,
                may_be_freed: self.state.nodes().any(|(node, _)| node != self.incarnation),
            }),
            _ => Ok(()),
        }
    }

    /// Releases a place, or gives a claim up.
    pub(in crate::session) fn release(&mut self, number: u64, now: Instant) {
        let Some(place) = self.places.remove(number) else {
            return;
        };
        // What nobody has read is not to be released.
        let is_written = !self.places.unwritten.remove(&number);
        // Of a former incarnation nothing is left to release.
        if is_written && matches!(self.phase, NodePhase::Joining | NodePhase::Member) {
            let id = self.own_id(number);
            if let Some(PlaceMember { group, .. }) = place.claim.member(id) {
                self.places.releasing.insert(number, group);
            }
            self.write(SessionRecord::Released { id }, now);
        }
    }

    /// The client of a socket that was probed has answered.
    pub(in crate::session) fn client_answered(&mut self, number: u64, now: Instant) {
        let Some(place) = self.places.by_number.get_mut(&number) else {
            return;
        };
        if place.probed_until.take().is_none() {
            return;
        }
        if place.decide_by.is_none() {
            self.places.unsettled.remove(&number);
        }
        let Some(PlaceMember { group, key }) = place.claim.sole_member() else {
            return;
        };
        let group = self.state.group(&group);
        let behind = group.into_iter().flat_map(|group| group.behind(&key));
        let behind: Vec<_> = behind.collect();
        for id in behind {
            match self.own(id) {
                Some(_) => self.reject(id, ClaimOutcome::Duplicate, PlaceLoss::Superseded, now),
                None => self.write(SessionRecord::Refused { id }, now),
            }
        }
    }

    /// The state has admitted the claim.
    pub(super) fn admitted(&mut self, number: u64, now: Instant) {
        let id = self.own_id(number);
        let Some(place) = self.places.by_number.get_mut(&number) else {
            return;
        };
        // What is counted with no others is there, whatever the log says.
        let Some(PlaceMember { group, key }) = place.claim.member(id) else {
            return;
        };
        place.waiting = false;
        let group = self.state.group(&group);
        if !group.is_some_and(|group| group.is_safe(&place.claim)) {
            self.places.uncertain.insert(number);
            return;
        }
        self.places.uncertain.remove(&number);
        #[cfg(test)]
        {
            place.granted = true;
        }
        // A socket that fences may be waited for a moment, and is there in any case.
        if place.decide_by.take().is_some() || place.claim.is_fencing() {
            self.effects.push(NodeEffect::Decided {
                number,
                outcome: ClaimOutcome::Granted,
            });
        }
        if place.probed_until.is_none() {
            self.places.unsettled.remove(&number);
        }
        if group.is_some_and(|group| group.behind(&key).next().is_some()) {
            self.challenge(number, now);
        }
    }

    /// Looks again at what was not safe.
    pub(super) fn settle_uncertain(&mut self, now: Instant) {
        if self.places.uncertain.is_empty() {
            return;
        }
        let mut uncertain: Vec<_> = self.places.uncertain.iter().copied().collect();
        uncertain.sort_unstable();
        for number in uncertain {
            self.admitted(number, now);
        }
    }

    /// Another claim waits for the place: its client is pinged, once for all that wait.
    pub(super) fn challenge(&mut self, number: u64, now: Instant) {
        let Some(place) = self.places.by_number.get_mut(&number) else {
            return;
        };
        if place.probed_until.is_none() {
            place.probed_until = Some(now + PROBE_TIMEOUT);
            self.places.unsettled.insert(number);
            self.effects.push(NodeEffect::Probe(number));
        }
    }

    /// The claim has no place, and never will; if its socket is open, that is lost.
    pub(super) fn reject(
        &mut self,
        place: PlaceId,
        outcome: ClaimOutcome,
        loss: PlaceLoss,
        now: Instant,
    ) {
        let Some(number) = self.own(place) else {
            return;
        };
        let Some(own) = self.places.by_number.get(&number) else {
            return;
        };
        self.effects.push(match own.decide_by {
            Some(_) => NodeEffect::Decided { number, outcome },
            None => NodeEffect::Lost { number, loss },
        });
        self.release(number, now);
    }

    /// Claims all places for this incarnation.
    pub(super) fn claim_all(&mut self, now: Instant) {
        self.places.uncertain.clear();
        self.places.unwritten.clear();
        #[cfg(test)]
        self.places
            .by_number
            .values_mut()
            .for_each(|place| place.granted = false);
        for number in self.places.numbers() {
            self.write_place(number, now);
        }
    }

    /// What is to be written again of a claim that could not be written: that of an open socket.
    pub(super) fn claim_failed(&mut self, number: u64, now: Instant) -> Option<SessionRecord> {
        let place = self.places.by_number.get(&number)?;
        if place.decide_by.is_some() {
            self.give_up(number, ClaimOutcome::Undecided, now);
            return None;
        }
        let (id, claim) = (self.own_id(number), Arc::clone(&place.claim));
        Some(SessionRecord::Place { id, claim })
    }

    /// Writes the places again that retention would drop.
    pub(super) fn rewrite_old_places(&mut self, now: Instant) {
        let age_max = self.settings.retention * 3 / 8;
        for number in self.places.numbers() {
            let place = &self.places.by_number[&number];
            if now >= place.written_at + age_max {
                self.write_place(number, now);
            }
        }
    }

    /// Ends what has taken too long.
    pub(super) fn tick_claims(&mut self, now: Instant) {
        let is_over = |until: Option<Instant>| until.is_some_and(|until| now >= until);
        let mut unsettled: Vec<_> = self.places.unsettled.iter().copied().collect();
        unsettled.sort_unstable();
        for number in unsettled {
            let Some(place) = self.places.by_number.get(&number) else {
                continue;
            };
            if is_over(place.probed_until) {
                self.effects.push(NodeEffect::Evict(number));
                self.release(number, now);
            } else if is_over(place.decide_by) {
                let outcome = match place.waiting {
                    true => ClaimOutcome::HolderSilent,
                    false => ClaimOutcome::Undecided,
                };
                self.give_up(number, outcome, now);
            }
        }
    }

    /// Ends all claims that are not decided, without a word to the log.
    pub(super) fn give_up_claims(&mut self) {
        for number in self.places.numbers() {
            let place = self.places.remove(number);
            if place.is_some_and(|place| place.decide_by.is_some()) {
                let outcome = ClaimOutcome::Undecided;
                self.effects.push(NodeEffect::Decided { number, outcome });
            }
        }
    }

    fn give_up(&mut self, number: u64, outcome: ClaimOutcome, now: Instant) {
        self.effects.push(NodeEffect::Decided { number, outcome });
        self.release(number, now);
    }

    pub(super) fn write_place(&mut self, number: u64, now: Instant) {
        let id = self.own_id(number);
        let Some(place) = self.places.by_number.get_mut(&number) else {
            return;
        };
        place.written_at = now;
        let claim = Arc::clone(&place.claim);
        // It fences by its turn in the log once only: whatever is written of it later may come
        // behind a younger socket.
        place.set_late();
        self.write(SessionRecord::Place { id, claim }, now);
    }

    /// Whether the place was granted to this incarnation.
    #[cfg(test)]
    pub(super) fn is_granted(&self, number: u64) -> bool {
        self.places
            .by_number
            .get(&number)
            .is_some_and(|p| p.granted)
    }

    pub(super) fn own_id(&self, number: u64) -> PlaceId {
        PlaceId {
            node: self.incarnation,
            number,
        }
    }
}
