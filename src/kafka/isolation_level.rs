//! How much of transactions a fetch returns.

/// `isolation.level`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IsolationLevel {
    /// Everything up to the high watermark.
    #[default]
    ReadUncommitted,
    /// Everything up to the last stable offset, without aborted transactions.
    ReadCommitted,
}
