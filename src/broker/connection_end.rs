//! Why a connection ends.

use std::io;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionEnd {
    /// The client, or the network.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The client did not speak the protocol.
    #[error("{0}")]
    Protocol(String),
    /// A scripted fault.
    #[cfg(any(test, feature = "faults"))]
    #[error("closed by a scripted fault")]
    Fault,
}
