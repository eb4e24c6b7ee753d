//! Whether a member knows its group's coordinator, and when it looks it up.

use tokio::time::Instant;

use crate::BrokerId;
use crate::backoff::ExponentialBackoff;

/// What a member knows of its coordinator.
#[derive(Debug)]
pub(super) struct CoordinatorState {
    lookup: LookupProgress,
    /// The last coordinator, while it is looked up for an error that says nothing of heartbeats.
    suspected: Option<BrokerId>,
    backoff: ExponentialBackoff,
}

#[derive(Clone, Copy, Debug)]
enum LookupProgress {
    /// FindCoordinator is due at that time.
    Unknown {
        lookup_at: Instant,
    },
    /// FindCoordinator is in flight.
    LookingUp,
    Known(BrokerId),
}

impl CoordinatorState {
    /// Unknown, and to be looked up at once.
    pub(super) fn new(backoff: ExponentialBackoff, now: Instant) -> Self {
        Self {
            lookup: LookupProgress::Unknown { lookup_at: now },
            suspected: None,
            backoff,
        }
    }

    pub(super) fn broker(&self) -> Option<BrokerId> {
        match self.lookup {
            LookupProgress::Known(broker) => Some(broker),
            _ => None,
        }
    }

    /// Where heartbeats go: also to a coordinator that is only suspected to be another by now.
    pub(super) fn heartbeat_broker(&self) -> Option<BrokerId> {
        self.broker().or(self.suspected)
    }

    /// When the next lookup is due, if one is.
    pub(super) fn lookup_at(&self) -> Option<Instant> {
        match self.lookup {
            LookupProgress::Unknown { lookup_at } => Some(lookup_at),
            _ => None,
        }
    }

    /// Whether FindCoordinator is to be sent now; it then is in flight.
    pub(super) fn start_lookup(&mut self, now: Instant) -> bool {
        let due = self.lookup_at().is_some_and(|at| at <= now);
        if due {
            self.lookup = LookupProgress::LookingUp;
        }
        due
    }

    pub(super) fn found(&mut self, broker: BrokerId) {
        self.backoff.succeeded();
        self.suspected = None;
        self.lookup = LookupProgress::Known(broker);
    }

    /// The next lookup is due after the backoff.
    pub(super) fn lookup_failed(&mut self, now: Instant) {
        let lookup_at = now + self.backoff.after_failure();
        self.lookup = LookupProgress::Unknown { lookup_at };
    }

    /// A known coordinator may be another broker by now: it is to be looked up at once.
    /// Heartbeats still go to it, for one of them may be answered before the lookup is.
    pub(super) fn mark_unknown(&mut self, now: Instant) {
        if let Some(broker) = self.broker() {
            self.suspected = Some(broker);
            self.lookup = LookupProgress::Unknown { lookup_at: now };
        }
    }

    /// A heartbeat has failed: the next one goes to the coordinator that is looked up.
    pub(super) fn heartbeat_failed(&mut self, now: Instant) {
        self.mark_unknown(now);
        self.suspected = None;
    }
}
