//! Faults that tests script: what is to go wrong, where, and how often.
//!
//! Rules are tried in the order they were added; the first that fits a request applies
//! to it and is used up by one.

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::ApiKey;
use runtime::mutex::lock;
use tokio_util::sync::CancellationToken;

/// The rules of one cluster.
#[derive(Debug, Default)]
pub struct FaultRules {
    rules: Mutex<Vec<FaultRule>>,
}

/// One rule: which requests, and what happens to them.
#[derive(Clone, Debug)]
pub struct FaultRule {
    node: Option<i32>,
    api: Option<ApiKey>,
    skip: usize,
    times: usize,
    until: Option<Instant>,
    action: FaultAction,
    /// Of [`FaultAction::DelayBetween`]: how far between its two times the last delay was.
    part: f64,
}

/// What happens to a request.
#[derive(Clone, Debug)]
pub enum FaultAction {
    /// Answered with that code in every place for one, without being handled.
    Error(i16),
    /// Handled, and answered with that code all the same.
    ErrorAfter(i16),
    /// The connection is closed without the request being handled.
    CloseBefore,
    /// The request is handled, then the connection is closed instead of an answer.
    CloseAfter,
    /// Neither handled nor answered; the connection stays open and is read no more.
    Silence,
    /// Handled but never answered; the connection stays open and is read no more.
    SilenceAfter,
    /// Handled and answered that much later.
    Delay(Duration),
    /// Handled and answered later, by a time between those two that differs from request to
    /// request.
    DelayBetween(Duration, Duration),
    /// Handled, and answered once the token is cancelled.
    Hold(CancellationToken),
    /// Handled once the token is cancelled, and answered then: what becomes of a request at
    /// a process that is stopped (SIGSTOP) and goes on later.
    HoldBefore(CancellationToken),
    /// Those bytes are sent instead of an answer, as they are; then the connection is
    /// served on.
    Garbage(Bytes),
    /// Handled, but the answer carries another correlation id.
    WrongCorrelationId,
    /// Handled; only that many bytes of the answer's frame are sent, then the connection is
    /// closed.
    Truncated(usize),
    /// Handled; the answer asks the client to wait that many milliseconds.
    Throttle(i32),
}

impl FaultRule {
    /// Applies to every request of `api`, once.
    pub fn on(api: ApiKey, action: FaultAction) -> Self {
        Self {
            api: Some(api),
            ..Self::any(action)
        }
    }

    /// Applies to every request, once.
    pub fn any(action: FaultAction) -> Self {
        Self {
            node: None,
            api: None,
            skip: 0,
            times: 1,
            until: None,
            action,
            part: 0.0,
        }
    }

    /// Only on that node.
    #[must_use]
    pub fn at(mut self, node: i32) -> Self {
        self.node = Some(node);
        self
    }

    /// For so many requests instead of one.
    #[must_use]
    pub fn times(mut self, times: usize) -> Self {
        self.times = times;
        self
    }

    /// Until the rules are cleared.
    #[must_use]
    pub fn always(self) -> Self {
        self.times(usize::MAX)
    }

    /// Not for requests that arrive then or later.
    #[must_use]
    pub fn until(mut self, end: Instant) -> Self {
        self.until = Some(end);
        self
    }

    /// Not for the first so many requests that fit.
    #[must_use]
    pub fn after(mut self, skip: usize) -> Self {
        self.skip = skip;
        self
    }

    fn fits(&self, node: i32, api: ApiKey) -> bool {
        self.node.is_none_or(|at| at == node) && self.api.is_none_or(|on| on == api)
    }

    /// What happens to the request that it applies to now.
    fn next_action(&mut self) -> FaultAction {
        let FaultAction::DelayBetween(shortest, longest) = self.action else {
            return self.action.clone();
        };
        // Multiples of the golden ratio spread evenly over [0, 1).
        self.part = (self.part + GOLDEN_RATIO).fract();
        let spread = longest.saturating_sub(shortest);
        FaultAction::Delay(shortest + spread.mul_f64(self.part))
    }

    fn is_over(&self, now: Instant) -> bool {
        self.times == 0 || self.until.is_some_and(|end| end <= now)
    }
}

impl FaultRules {
    /// Adds a rule after those that are there.
    pub fn add(&self, rule: FaultRule) {
        self.lock().push(rule);
    }

    /// Adds a rule before those that are there.
    pub fn add_first(&self, rule: FaultRule) {
        self.lock().insert(0, rule);
    }

    /// Removes all rules.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// How often the rules that are there will still apply.
    pub fn left(&self) -> usize {
        let now = Instant::now();
        let rules = self.lock();
        let rules = rules.iter().filter(|rule| !rule.is_over(now));
        rules.fold(0, |sum, rule| sum.saturating_add(rule.times))
    }

    /// The fault of a request, if a rule matches.
    pub(super) fn take(&self, node: i32, api: ApiKey) -> Option<FaultAction> {
        let now = Instant::now();
        let mut rules = self.lock();
        rules.retain(|rule| !rule.is_over(now));
        for rule in rules.iter_mut().filter(|rule| rule.fits(node, api)) {
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            if rule.times != usize::MAX {
                rule.times -= 1;
            }
            return Some(rule.next_action());
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, Vec<FaultRule>> {
        lock(&self.rules)
    }
}

const GOLDEN_RATIO: f64 = 0.618_033_988_749_895;

#[cfg(test)]
mod tests {
    use super::*;

    fn error(faults: &FaultRules, node: i32, api: ApiKey) -> i16 {
        match faults.take(node, api) {
            Some(FaultAction::Error(code)) => code,
            _ => 0,
        }
    }

    #[test]
    fn the_first_rule_that_fits_is_used_up() {
        let faults = FaultRules::default();
        faults.add(FaultRule::on(ApiKey::Fetch, FaultAction::Error(1)).at(2));
        faults.add(
            FaultRule::on(ApiKey::Produce, FaultAction::Error(2))
                .times(2)
                .after(1),
        );
        faults.add(FaultRule::any(FaultAction::Error(3)).after(1));
        assert_eq!(faults.left(), 4);
        assert_eq!(error(&faults, 1, ApiKey::Fetch), 0);
        assert_eq!(error(&faults, 2, ApiKey::Fetch), 1);
        assert_eq!(error(&faults, 1, ApiKey::Produce), 3);
        assert_eq!(error(&faults, 1, ApiKey::Produce), 2);
        assert_eq!(error(&faults, 1, ApiKey::Produce), 2);
        assert_eq!(error(&faults, 1, ApiKey::Produce), 0);
        assert_eq!(faults.left(), 0);
        faults.add(FaultRule::any(FaultAction::Silence).always());
        assert!(faults.take(1, ApiKey::Fetch).is_some());
        faults.clear();
        assert!(faults.take(1, ApiKey::Fetch).is_none());
    }

    #[test]
    fn a_rule_ends_with_its_time_and_one_put_first_goes_before_it() {
        let now = Instant::now();
        let faults = FaultRules::default();
        let api = ApiKey::Fetch;
        faults.add(FaultRule::on(api, FaultAction::Error(1)).always());
        faults.add_first(FaultRule::on(api, FaultAction::Error(2)).until(now));
        let later = now + Duration::from_secs(3600);
        faults.add_first(FaultRule::on(api, FaultAction::Error(3)).until(later));
        assert_eq!(error(&faults, 1, api), 3);
        assert_eq!(error(&faults, 1, api), 1);
    }

    #[test]
    fn delays_between_two_times_differ_and_stay_between_them() {
        let faults = FaultRules::default();
        let (shortest, longest) = (Duration::from_millis(5), Duration::from_millis(10));
        let delay = FaultAction::DelayBetween(shortest, longest);
        faults.add(FaultRule::any(delay).always());
        let mut delays: Vec<_> = (0..10)
            .map(|_| match faults.take(1, ApiKey::OffsetCommit) {
                Some(FaultAction::Delay(delay)) => delay,
                other => panic!("{other:?}"),
            })
            .collect();
        assert!(delays.iter().all(|d| (shortest..=longest).contains(d)));
        delays.sort();
        delays.dedup();
        assert_eq!(delays.len(), 10);
    }
}
