//! Which node, and which of its places.

use std::fmt;

/// One life of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct NodeIncarnation(pub(super) u64);

impl fmt::Display for NodeIncarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl NodeIncarnation {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let number = u64::from_str_radix(text, 16).ok()?;
        (text.len() == 16).then_some(Self(number))
    }
}

/// One socket's place, of all that there ever were.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct PlaceId {
    /// The node that has the socket.
    pub(super) node: NodeIncarnation,
    /// Which one of that node's process.
    pub(super) number: u64,
}
