//! Which tickets there are, and what is to be done about them. Pure: time is passed in.
//!
//! ```text
//! TGT        nothing ─ login ─▶ good ── renew_at ─▶ good, a login is due ── expires_at ─▶ nothing
//! tickets    nothing ─ asked for ─▶ good ── renew_at ─▶ good, is asked for again if it was used
//! failure    until a growing wait is over, nothing is asked of KDCs
//! ```

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kafka_client::backoff::ExponentialBackoff;
use kafka_client::sasl::TicketFault;
use tokio::time::Instant;

use crate::principal::KerberosPrincipal;
use crate::ticket::{IssuedTicket, NewTicket};

/// When tickets are renewed: Java's `KerberosLogin`.
#[derive(Clone, Debug, PartialEq)]
pub struct TicketRenewal {
    /// `sasl.kerberos.ticket.renew.window.factor`: the part of its life after which a ticket is
    /// renewed.
    pub factor: f64,
    /// `sasl.kerberos.ticket.renew.jitter`: the part of its life that this is later at random.
    pub jitter: f64,
    /// `sasl.kerberos.min.time.before.relogin`: how long a TGT is kept at least.
    pub min_period: Duration,
}

impl Default for TicketRenewal {
    fn default() -> Self {
        Self {
            factor: 0.8,
            jitter: 0.05,
            min_period: Duration::from_secs(60),
        }
    }
}

/// A ticket that lives too short for the least period has none; but not a login on a login.
const PERIOD_MIN: Duration = Duration::from_secs(1);
/// How long after a KDC refuses to renew a service's ticket it is asked again.
const REFUSED_RENEWAL_WAIT: Duration = Duration::from_secs(60);
/// More brokers than a cluster has.
const SERVICES_MAX: usize = 4096;

impl TicketRenewal {
    /// `unit` is the random part, in `0.0..1.0`.
    fn after(&self, lifetime: Duration, min_period: Duration, unit: f64) -> Duration {
        let proposed = lifetime.mul_f64((self.factor + self.jitter * unit).clamp(0.0, 1.0));
        let after = match min_period < lifetime {
            true => proposed.max(min_period),
            false => proposed,
        };
        after.max(PERIOD_MIN)
    }
}

/// What whoever needs a ticket has to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TicketStep {
    Use(Arc<IssuedTicket>),
    Ask,
    /// It is too early for another attempt.
    Fail(TicketFault),
}

/// What is to be renewed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum DueRenewal {
    Login,
    Ticket(KerberosPrincipal),
}

#[derive(Debug)]
pub(crate) struct TicketState {
    renewal: TicketRenewal,
    tgt: Option<HeldTicket>,
    services: HashMap<KerberosPrincipal, HeldTicket>,
    /// The last one's, if it failed.
    failure: Option<KdcFailure>,
    backoff: ExponentialBackoff,
}

#[derive(Debug)]
struct HeldTicket {
    ticket: Arc<IssuedTicket>,
    renew_at: Instant,
    expires_at: Instant,
    /// Since it was given.
    is_used: bool,
}

impl HeldTicket {
    fn new(new: NewTicket, now: Instant, renew_after: Duration) -> Self {
        Self {
            ticket: new.ticket,
            renew_at: now + renew_after,
            expires_at: now + new.lifetime,
            is_used: false,
        }
    }
}

#[derive(Debug)]
struct KdcFailure {
    fault: TicketFault,
    not_before: Instant,
}

impl TicketState {
    pub(crate) fn new(renewal: TicketRenewal, backoff: ExponentialBackoff) -> Self {
        Self {
            renewal,
            tgt: None,
            services: HashMap::new(),
            failure: None,
            backoff,
        }
    }

    /// What is to be done by someone who needs a ticket for that service now.
    pub(crate) fn step(&mut self, server: &KerberosPrincipal, now: Instant) -> TicketStep {
        if let Some(held) = self.services.get_mut(server)
            && now < held.expires_at
        {
            held.is_used = true;
            return TicketStep::Use(Arc::clone(&held.ticket));
        }
        match &self.failure {
            Some(failure) if now < failure.not_before => TicketStep::Fail(failure.fault.clone()),
            _ => TicketStep::Ask,
        }
    }

    /// The TGT, if it is good.
    pub(crate) fn tgt(&self, now: Instant) -> Option<Arc<IssuedTicket>> {
        let held = self.tgt.as_ref().filter(|held| now < held.expires_at)?;
        Some(Arc::clone(&held.ticket))
    }

    /// Notes a TGT; `unit` is random, in `0.0..1.0`.
    pub(crate) fn logged_in(&mut self, new: NewTicket, now: Instant, unit: f64) {
        self.succeeded();
        let min_period = self.renewal.min_period;
        let renew_after = self.renewal.after(new.lifetime, min_period, unit);
        self.tgt = Some(HeldTicket::new(new, now, renew_after));
    }

    /// Notes a ticket for a service, which somebody needs now unless it was renewed; `unit` as for
    /// [`logged_in`](Self::logged_in).
    pub(crate) fn issued(
        &mut self,
        server: KerberosPrincipal,
        new: NewTicket,
        is_renewed: bool,
        (now, unit): (Instant, f64),
    ) {
        self.succeeded();
        if self.services.len() >= SERVICES_MAX {
            self.services.clear();
        }
        let renew_after = self.renewal.after(new.lifetime, Duration::ZERO, unit);
        let mut held = HeldTicket::new(new, now, renew_after);
        held.is_used = !is_renewed;
        self.services.insert(server, held);
    }

    fn succeeded(&mut self) {
        self.failure = None;
        self.backoff.succeeded();
    }

    /// Notes that nothing came of asking the KDCs; returns whether it is another fault than before.
    pub(crate) fn failed(&mut self, fault: TicketFault, now: Instant) -> bool {
        let is_new = self
            .failure
            .as_ref()
            .is_none_or(|before| before.fault != fault);
        self.failure = Some(KdcFailure {
            not_before: now + self.backoff.after_failure(),
            fault,
        });
        is_new
    }

    /// Notes that the KDC gives no new ticket for that service.
    pub(crate) fn renewal_refused(&mut self, server: &KerberosPrincipal, now: Instant) {
        if let Some(held) = self.services.get_mut(server) {
            held.renew_at = now + REFUSED_RENEWAL_WAIT;
        }
    }

    /// When something is to be renewed; `None` while there is nothing: then whoever needs a ticket
    /// asks for it.
    pub(crate) fn next_renewal(&self) -> Option<Instant> {
        let held = self.tgt.iter().chain(self.services.values());
        let due = held.map(|held| held.renew_at).min()?;
        let not_before = self.failure.as_ref().map(|failure| failure.not_before);
        Some(not_before.map_or(due, |not_before| due.max(not_before)))
    }

    /// What is to be renewed now, the TGT first. Tickets that nobody uses are let go.
    pub(crate) fn due(&mut self, now: Instant) -> Option<DueRenewal> {
        if self.next_renewal()? > now {
            return None;
        }
        if self.tgt.as_ref().is_some_and(|tgt| tgt.renew_at <= now) {
            return Some(DueRenewal::Login);
        }
        self.services
            .retain(|_, held| held.is_used || now < held.renew_at);
        let mut services = self.services.iter();
        let (server, _) = services.find(|(_, held)| held.renew_at <= now)?;
        Some(DueRenewal::Ticket(server.clone()))
    }

    /// How long what is to be renewed is still good.
    pub(crate) fn left(&self, due: &DueRenewal, now: Instant) -> Option<Duration> {
        let held = match due {
            DueRenewal::Login => self.tgt.as_ref(),
            DueRenewal::Ticket(server) => self.services.get(server),
        };
        held?.expires_at.checked_duration_since(now)
    }

    /// Forgets a TGT that a KDC does not take any more.
    pub(crate) fn forget_tgt(&mut self) {
        self.tgt = None;
    }

    /// Forgets a ticket that a broker has refused.
    pub(crate) fn refused(&mut self, server: &KerberosPrincipal, ticket: &Arc<IssuedTicket>) {
        let is_held = self
            .services
            .get(server)
            .is_some_and(|held| Arc::ptr_eq(&held.ticket, ticket));
        if is_held {
            self.services.remove(server);
        }
    }
}

#[cfg(test)]
mod tests;
