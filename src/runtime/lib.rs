//! What tasks of every layer share: waking one task, what a panic ends, locks, and work that takes
//! long.

pub mod long_work;
pub mod mutex;
pub mod panic_policy;
pub mod wake;
