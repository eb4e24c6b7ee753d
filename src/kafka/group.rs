//! Consumer groups: who reads which partitions, and how far they have read.

// Nothing outside uses these yet.
#![allow(dead_code)]

pub(crate) mod assign;
mod assign_range;
mod assign_sticky;
mod java;
pub(crate) mod protocol;
