//! What the behaviour tests stand on.

pub(crate) mod kafka;
