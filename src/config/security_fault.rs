//! A property of security that cannot be followed.

/// A property that keeps the rest from working, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SecurityFault {
    /// The Java name of the property.
    pub(super) property: &'static str,
    pub(super) fault: String,
}

impl SecurityFault {
    pub(super) fn new(property: &'static str, fault: impl ToString) -> Self {
        Self {
            property,
            fault: fault.to_string(),
        }
    }
}
