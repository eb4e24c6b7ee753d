//! FaultRules that tests script: what is to go wrong, where, and how often.
//!
//! Rules are tried in the order they were added; the first that fits a request applies
//! to it and is used up by one.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

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
    action: FaultAction,
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
    /// Handled, and answered once the token is cancelled.
    Hold(CancellationToken),
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
            action,
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

    /// Not for the first so many requests that fit.
    #[must_use]
    pub fn after(mut self, skip: usize) -> Self {
        self.skip = skip;
        self
    }

    fn fits(&self, node: i32, api: ApiKey) -> bool {
        self.node.is_none_or(|at| at == node) && self.api.is_none_or(|on| on == api)
    }
}

impl FaultRules {
    /// Adds a rule after those that are there.
    pub fn add(&self, rule: FaultRule) {
        self.lock().push(rule);
    }

    /// Removes all rules.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// How often the rules that are there will still apply.
    pub fn left(&self) -> usize {
        let left = |sum: usize, rule: &FaultRule| sum.saturating_add(rule.times);
        self.lock().iter().fold(0, left)
    }

    /// The fault of a request, if a rule matches.
    pub(super) fn take(&self, node: i32, api: ApiKey) -> Option<FaultAction> {
        let mut rules = self.lock();
        for at in 0..rules.len() {
            let rule = &mut rules[at];
            if !rule.fits(node, api) {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            let action = rule.action.clone();
            if rule.times != usize::MAX {
                rule.times = rule.times.saturating_sub(1);
            }
            if rule.times == 0 {
                rules.remove(at);
            }
            return Some(action);
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, Vec<FaultRule>> {
        lock(&self.rules)
    }
}

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
}
