//! What the system says of this process. Linux only; elsewhere there is less.

use std::fs;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// CPU time that the process has used, in seconds.
pub(crate) fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Memory that is resident, in bytes.
pub(crate) fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes << 10)
}

/// File descriptors that are open.
pub(crate) fn open_descriptors() -> Option<u64> {
    // Since Linux 6.2 its size says how many there are.
    let folder = fs::metadata("/proc/self/fd").ok()?;
    if folder.len() > 0 {
        return Some(folder.len());
    }
    // One of them is open to list them.
    let listed = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    Some(listed.saturating_sub(1))
}

/// File descriptors that may be open; `None`: any number.
pub(crate) fn descriptors_max() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_has_used_time_memory_and_descriptors() {
        assert!(cpu_seconds() > 0.0);
        assert!(resident_bytes().is_some_and(|bytes| bytes > 1 << 20));
        let (open, max) = (open_descriptors(), descriptors_max());
        let held: Vec<_> = (0..50)
            .map(|_| fs::File::open("/dev/null").unwrap())
            .collect();
        let more = open_descriptors();
        assert!(
            open.zip(more)
                .is_some_and(|(open, more)| more >= open.min(3) + 50),
            "{open:?} {more:?}"
        );
        assert!(max.is_none_or(|max| more.is_some_and(|more| more <= max)));
        drop(held);
    }
}
