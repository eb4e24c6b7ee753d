//! File descriptors: as many as the system gives, and how many of them are for clients.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Kept for brokers, health checks and files: an eighth of all, within these bounds.
const RESERVE_MIN: u64 = 64;
const RESERVE_MAX: u64 = 1024;

/// Raises the limit as far as the process may (`RLIMIT_NOFILE`), since the usual soft limit of
/// 1,024 is one for programs that use `select`; what it is then.
pub fn raise_limit() -> u64 {
    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: before.maximum,
        maximum: before.maximum,
    };
    let limit = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => before.maximum,
        Err(_) => before.current,
    };
    limit.unwrap_or(u64::MAX)
}

/// How many connections of clients that limit allows.
pub fn connections_within(limit: u64) -> usize {
    let reserve = (limit / 8).clamp(RESERVE_MIN, RESERVE_MAX).min(limit / 2);
    usize::try_from(limit - reserve).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_descriptors_are_kept_for_brokers_and_health_checks() {
        assert_eq!(connections_within(64), 32);
        assert_eq!(connections_within(256), 192);
        assert_eq!(connections_within(1024), 896);
        assert_eq!(connections_within(1 << 20), (1 << 20) - 1024);
    }

    #[test]
    fn the_limit_is_raised_to_the_hard_one() {
        let hard = getrlimit(Resource::Nofile).maximum;
        assert_eq!(raise_limit(), hard.unwrap_or(u64::MAX));
        assert_eq!(getrlimit(Resource::Nofile).current, hard);
    }
}
