//! Processor time and memory of processes, as the kernel accounts them in `/proc`.

use std::fs;
use std::ops::Sub;

/// Processor time used so far, in microseconds (the kernel counts in ticks of 10 ms).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cpu {
    pub(crate) user_us: f64,
    pub(crate) system_us: f64,
}

impl Cpu {
    /// Of a running process, all its threads.
    pub(crate) fn of(pid: u32) -> Cpu {
        Self::read(&format!("/proc/{pid}/stat"), 13)
    }

    /// Of this process.
    pub(crate) fn own() -> Cpu {
        Self::of(std::process::id())
    }

    /// Of this process's children that have ended and been waited for.
    pub(crate) fn ended_children() -> Cpu {
        Self::read("/proc/self/stat", 15)
    }

    /// Of the calling thread.
    pub(crate) fn thread() -> Cpu {
        Self::read("/proc/thread-self/stat", 13)
    }

    pub(crate) fn total_us(self) -> f64 {
        self.user_us + self.system_us
    }

    /// Field numbers as in proc(5), from 0.
    fn read(path: &str, field: usize) -> Cpu {
        let stat = fs::read_to_string(path).expect("the process runs");
        // The name, in parentheses, may hold spaces.
        let after_name = stat.rsplit_once(')').expect("proc(5)").1;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        let us = |i: usize| fields[i - 2].parse::<f64>().expect("proc(5)") * 10_000.0;
        Cpu {
            user_us: us(field),
            system_us: us(field + 1),
        }
    }
}

impl Sub for Cpu {
    type Output = Cpu;
    fn sub(self, earlier: Cpu) -> Cpu {
        Cpu {
            user_us: self.user_us - earlier.user_us,
            system_us: self.system_us - earlier.system_us,
        }
    }
}

/// Resident memory of a process, in KiB.
pub(crate) fn resident_kib(pid: u32) -> f64 {
    status_kib(pid, "VmRSS:")
}

/// The part of it that is no file's, such as the program's own.
pub(crate) fn anonymous_kib(pid: u32) -> f64 {
    status_kib(pid, "RssAnon:")
}

fn status_kib(pid: u32, field: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find_map(|l| l.strip_prefix(field));
    let kib = line.expect("proc(5)").trim().trim_end_matches(" kB");
    kib.parse().expect("proc(5)")
}
