//! What a node wants done, and what it answers to claims.

use crate::session::record::SessionRecord;
use crate::session::state::FullGroup;
use crate::state_log::LogTrouble;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::session) enum NodeEffect {
    /// Write the record, after those before it.
    Write(SessionRecord),
    /// Tell the caller what became of its claim.
    Decided { number: u64, outcome: ClaimOutcome },
    /// Ping the socket's client, and say when it has answered.
    Probe(u64),
    /// Close the socket: its client did not answer.
    Evict(u64),
    /// Close the socket: an administrator wants it.
    Close(u64),
    /// Close the socket: its place is lost.
    Lost { number: u64, loss: PlaceLoss },
    /// Tell those who were refused that a place was freed.
    PlaceFreed,
    /// Say that another node has the same server id.
    DuplicateServerId,
    /// Say that the places are claimed again, since others had found this node dead.
    Rejoined,
}

/// Why an open socket has no place any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::session) enum PlaceLoss {
    /// Its client is connected at another node, and answers there.
    Superseded,
    /// The group has no place left.
    Full,
    /// A younger socket of the same instance has its place.
    Fenced,
}

/// What became of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::session) enum ClaimOutcome {
    /// The socket has its place.
    Granted,
    /// The client is connected, and answers.
    Duplicate,
    /// The group has as many sockets as it may.
    Full(FullGroup),
    /// The client is connected at a node that did not say in time whether it answers.
    HolderSilent,
    /// The log did not answer in time.
    Undecided,
}

/// Why a claim is not even written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::session) enum ClaimRefusal {
    /// The sessions are not known yet.
    NotLoaded,
    /// That socket of this node has the client's place.
    HeldHere(u64),
    /// The group has as many sockets as it may, as far as the log was read.
    Full {
        full: FullGroup,
        /// Whether other nodes may have freed a place of which nothing was read yet.
        may_be_freed: bool,
    },
    /// The log is known not to answer.
    Trouble(LogTrouble),
}
