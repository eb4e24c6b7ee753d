//! What tasks of every layer share: waking one task, what a panic ends, locks, work that takes
//! long, and what they count.

pub mod counters;
pub mod long_work;
pub mod mutex;
pub mod panic_policy;
pub mod wake;
