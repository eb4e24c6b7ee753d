//! What is wrong with a log.

/// Why it cannot be read or written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogTrouble {
    pub(crate) what: &'static str,
    /// For operators: may name brokers.
    pub(crate) detail: String,
}

impl LogTrouble {
    pub(crate) fn new(what: &'static str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { what, detail }
    }
}
