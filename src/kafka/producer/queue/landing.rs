//! What an answer, or its absence, does to a batch.

use std::sync::Arc;

use tokio::time::Instant;

use super::super::delivery::Placed;
use super::super::error::ProduceError;
use super::{Gap, Payload, Pending, Queue, Settled, State, unknown};

/// How an attempt to write a batch ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Landing {
    /// It is in the log, from this attempt or an earlier one.
    Appended(Placed),
    /// Not appended by this attempt, because what should precede it is not there: the
    /// sequence is out of order, or the producer unknown.
    Absent,
    /// Not appended, because the broker saw a newer epoch of our producer id.
    Fenced,
    /// Worth another attempt. `unsure`: this one may have been appended.
    Retry {
        /// May have been appended.
        unsure: bool,
    },
    /// Not appended, damaged on its way or not to the broker's taste: old brokers do not
    /// say which.
    Corrupt {
        /// Kafka's code.
        code: i16,
        /// The broker's words.
        message: Arc<str>,
    },
    /// The broker failed in a way that says nothing.
    Unclear {
        /// The broker's words.
        message: Arc<str>,
    },
    /// Not appended, the batch is over the broker's limit.
    TooLarge,
    /// Not appended, because some records are unacceptable.
    BadRecords {
        /// Which, by position, and why; empty if the broker does not say.
        named: Vec<(u32, Arc<str>)>,
        /// Kafka's code.
        code: i16,
        /// The broker's words on all of it.
        message: Arc<str>,
    },
    /// Not appended, and another attempt would not be either.
    Refused(ProduceError),
}

/// A damaged batch is sent this often before its records are suspected.
const CORRUPT_ATTEMPTS: u32 = 2;
/// A broker that fails without a reason is asked this often.
const UNCLEAR_ATTEMPTS: u32 = 4;

impl<P: Payload> Queue<P> {
    /// Takes a batch back from a request, with what became of it. `by_id`: the request
    /// named the topic by its id.
    pub(in super::super) fn landed(
        &mut self,
        id: u64,
        payload: P,
        landing: Landing,
        by_id: bool,
        now: Instant,
        settled: &mut Vec<Settled>,
    ) {
        let Some(at) = self
            .batches
            .iter()
            .position(|b| b.id == id && matches!(b.state, State::Out))
        else {
            return; // the producer was stopped meanwhile
        };
        self.out -= 1;
        let batch = &mut self.batches[at];
        batch.state = State::Waiting;
        batch.payload = Some(payload);
        batch.attempts += 1;
        batch.by_name |= !by_id;
        if !matches!(landing, Landing::Appended(_)) {
            self.confirmed = None;
        }
        self.decide(at, landing, now);
        let batch = &mut self.batches[at];
        if std::mem::take(&mut batch.outlived) && matches!(batch.state, State::Waiting) {
            batch.forsake(&self.partition);
        }
        batch.by_name &= batch.unsure;
        self.settle(settled);
    }

    fn decide(&mut self, at: usize, landing: Landing, now: Instant) {
        let head = at == 0;
        let batch = &mut self.batches[at];
        match landing {
            Landing::Appended(placed) => {
                batch.state = State::Done(Ok(placed));
                batch.payload = None;
                if self
                    .leader
                    .is_some_and(|leader| leader.broker == self.out_to)
                {
                    self.confirmed = Some(now);
                }
                self.backoff.succeeded();
                self.retry_at = None;
            }
            Landing::Absent => {
                if batch.attempts > 1 {
                    self.hold(now);
                }
                let batch = &mut self.batches[at];
                if batch.is_overdue() {
                    let gap = if batch.unsure {
                        Gap::Unknown
                    } else {
                        Gap::Sure
                    };
                    batch.give_up(overdue(), gap);
                } else if head && batch.unsure && self.gap != Gap::Sure {
                    // Lost; or there, from an earlier attempt, and forgotten: a broker
                    // that was restarted remembers the last batch only.
                    let reason = "sent again, it was out of order";
                    batch.give_up(unknown(&self.partition, reason), Gap::Unknown);
                } else if head {
                    self.gap = Gap::Sure;
                }
                // Behind an undecided batch this only says that it must wait for that.
            }
            Landing::Fenced if !head && !batch.is_overdue() => self.hold(now),
            Landing::Fenced => {
                let reason = "the broker knows a newer epoch of the producer";
                if batch.unsure {
                    batch.give_up(unknown(&self.partition, reason), Gap::Unknown);
                } else if batch.is_overdue() {
                    batch.give_up(overdue(), Gap::Sure);
                } else {
                    tracing::warn!(partition = %self.partition, reason, "taking a new producer id");
                    self.burnt = self.identity.take().map(|old| old.id).or(self.burnt);
                    self.gap = Gap::Sure;
                    self.hold(now);
                }
            }
            Landing::Retry { unsure } => {
                batch.unsure |= unsure;
                if batch.is_overdue() {
                    let gap = if batch.unsure {
                        Gap::Unknown
                    } else {
                        Gap::Sure
                    };
                    batch.give_up(overdue(), gap);
                } else {
                    self.hold(now);
                }
            }
            Landing::Corrupt { .. } if batch.attempts < CORRUPT_ATTEMPTS => {
                self.decide(at, Landing::Retry { unsure: false }, now);
            }
            Landing::Unclear { .. } if batch.attempts < UNCLEAR_ATTEMPTS => {
                self.decide(at, Landing::Retry { unsure: true }, now);
            }
            Landing::Unclear { message } => {
                batch.give_up(unknown(&self.partition, &message), Gap::Unknown);
            }
            // From here on the verdict is final for the whole batch as it is; but it says
            // nothing of an earlier attempt that may have been taken under other rules.
            Landing::Refused(error) if batch.unsure => {
                batch.give_up(unknown(&self.partition, &error.to_string()), Gap::Unknown);
            }
            Landing::TooLarge | Landing::Corrupt { .. } | Landing::BadRecords { .. }
                if batch.unsure =>
            {
                let reason = "refused after an attempt that was not answered";
                batch.give_up(unknown(&self.partition, reason), Gap::Unknown);
            }
            Landing::Refused(error) => batch.give_up(error, Gap::Sure),
            Landing::TooLarge => {
                let size = batch.payload.as_ref().map_or(0, Payload::size);
                self.halve(at, ProduceError::TooLarge { size, limit: None });
            }
            Landing::Corrupt { code, message } => {
                self.halve(at, ProduceError::Rejected { code, message });
            }
            Landing::BadRecords {
                named,
                code,
                message,
            } => self.sort_out(at, named, code, message),
        }
    }

    /// Waits before the next attempt. Several failures of one moment count once.
    fn hold(&mut self, now: Instant) {
        if self.retry_at.is_none_or(|at| at <= now) {
            self.retry_at = Some(now + self.backoff.after_failure());
        }
    }

    /// Puts two halves in a batch's place; a single record fails with `error`.
    fn halve(&mut self, at: usize, error: ProduceError) {
        let batch = &mut self.batches[at];
        let count = batch.payload.as_ref().map_or(0, Payload::count);
        if count < 2 || batch.is_overdue() {
            batch.give_up(error, Gap::Sure);
            return;
        }
        self.divide(at, &|position| position < count / 2, Err(error), true);
    }

    /// Fails the records that the broker named, one by one, and keeps the others.
    fn sort_out(&mut self, at: usize, named: Vec<(u32, Arc<str>)>, code: i16, message: Arc<str>) {
        let rejected = |message: Arc<str>| ProduceError::Rejected { code, message };
        let batch = &mut self.batches[at];
        let count = batch.payload.as_ref().map_or(0, Payload::count);
        let mut named: Vec<_> = named.into_iter().filter(|(i, _)| *i < count).collect();
        named.sort_by_key(|(i, _)| *i);
        named.dedup_by_key(|(i, _)| *i);
        if named.is_empty() || count < 2 || batch.is_overdue() {
            let why = named.pop().map_or(message, |(_, why)| why);
            return self.halve(at, rejected(why));
        }
        // Tell each its own reason.
        let bad = |position: u32| named.binary_search_by_key(&position, |(i, _)| *i).is_ok();
        if let Some(owner) = batch.owner.take() {
            let (owner, mut others) = owner.divide(count, |position| !bad(position));
            for (left, (_, why)) in (1..=named.len() as u32).rev().zip(&named) {
                let (one, rest) = others.divide(left, |position| position == 0);
                one.settle(Err(rejected(why.clone())));
                others = rest;
            }
            batch.owner = Some(owner);
        }
        self.divide(
            at,
            &|position| !bad(position),
            Err(rejected(message)),
            false,
        );
    }

    /// Puts the records for which `first` holds in the batch's place; behind them, if
    /// `both`, the others. If that fails, all fail with `error`.
    fn divide(
        &mut self,
        at: usize,
        first: &dyn Fn(u32) -> bool,
        error: Result<Placed, ProduceError>,
        both: bool,
    ) {
        let batch = &mut self.batches[at];
        let whole = batch.payload.take();
        let one = whole.as_ref().and_then(|whole| whole.keep(first));
        let other = match both {
            true => whole
                .as_ref()
                .and_then(|whole| whole.keep(&|position| !first(position))),
            false => None,
        };
        let (Some(whole), Some(one)) = (whole, one) else {
            batch.state = State::Done(error);
            batch.gap = Gap::Sure;
            return;
        };
        batch.payload = Some(one);
        batch.sequence = None;
        batch.attempts = 0;
        // What follows has sequences that count these records.
        batch.gap = Gap::Sure;
        let Some(other) = other else {
            return;
        };
        let Some(owner) = batch.owner.take() else {
            return; // overdue batches are not divided
        };
        let (owner, others) = owner.divide(whole.count(), first);
        batch.owner = Some(owner);
        let half = batch.cost / 2;
        batch.cost -= half;
        self.last_id += 1;
        let behind = Pending {
            id: self.last_id,
            payload: Some(other),
            owner: Some(others),
            state: State::Waiting,
            sequence: None,
            unsure: false,
            by_name: false,
            outlived: false,
            closed: true,
            ripe: true,
            attempts: 0,
            created: batch.created,
            cost: half,
            gap: Gap::None,
        };
        self.batches.insert(at + 1, behind);
    }
}

impl<P> Pending<P> {
    /// The callers were told that the outcome is unknown; there is no next attempt.
    fn is_overdue(&self) -> bool {
        self.owner.is_none()
    }
}

/// Nobody hears this error: the callers were told before.
fn overdue() -> ProduceError {
    ProduceError::Stopped
}
