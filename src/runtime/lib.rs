//! What tasks of every layer share: waking one task, and what a panic ends.

pub mod bell;
pub mod guard;
