//! What tasks of every layer share: waking one task, and what a panic ends.

pub mod panic_policy;
pub mod wake;
