//! When a token is renewed: Java's `ExpiringCredentialRefreshingLogin`.

use std::time::Duration;

/// `sasl.login.refresh.*`
#[derive(Clone, Debug, PartialEq)]
pub struct RefreshWindow {
    /// `window.factor`: the part of its life after which a token is renewed, 0.5 to 1.
    pub factor: f64,
    /// `window.jitter`: the part of its life that this is later at random, 0 to 0.25.
    pub jitter: f64,
    /// `min.period.seconds`: how long a token is kept at least.
    pub min_period: Duration,
    /// `buffer.seconds`: how long before its end it is renewed at the latest.
    pub buffer: Duration,
}

impl Default for RefreshWindow {
    fn default() -> Self {
        Self {
            factor: 0.8,
            jitter: 0.05,
            min_period: Duration::from_secs(60),
            buffer: Duration::from_secs(300),
        }
    }
}

/// A file, or a provider that keeps tokens, may give the same one again and again, with less left.
const PERIOD_MIN: Duration = Duration::from_secs(1);

impl RefreshWindow {
    /// How long after a token was given it is to be renewed; `unit` is the random part, in
    /// `0.0..1.0`. As in Java, a token that lives too short for the buffer and the least period has
    /// neither.
    pub(crate) fn refresh_after(&self, lifetime: Duration, unit: f64) -> Duration {
        let proposed = lifetime.mul_f64(self.factor + self.jitter * unit);
        let after = match self.min_period + self.buffer > lifetime {
            true => proposed,
            false => proposed.clamp(self.min_period, lifetime - self.buffer),
        };
        after.max(PERIOD_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_late_in_its_life_but_before_its_end() {
        let window = RefreshWindow::default();
        let after = |seconds, unit| {
            let lifetime = Duration::from_secs(seconds);
            window.refresh_after(lifetime, unit).as_secs_f64()
        };
        assert_eq!(after(3600, 0.0), 2880.0);
        assert_eq!(after(3600, 1.0), 3060.0);
        // The buffer.
        assert_eq!(after(1000, 0.0), 700.0);
        // Shorter than the buffer and the least period together.
        assert_eq!(after(300, 0.0), 240.0);
        assert_eq!(after(5, 0.0), 4.0);
        assert_eq!(after(0, 0.0), 1.0);
        let hurried = RefreshWindow {
            factor: 0.5,
            min_period: Duration::from_secs(900),
            buffer: Duration::ZERO,
            ..RefreshWindow::default()
        };
        let after = hurried.refresh_after(Duration::from_secs(1000), 0.0);
        assert_eq!(after, Duration::from_secs(900));
    }
}
