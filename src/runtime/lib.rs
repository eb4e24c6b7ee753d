//! What tasks of every layer share: waking one task, and what a panic ends, and locks.

pub mod mutex;
pub mod panic_policy;
pub mod wake;
