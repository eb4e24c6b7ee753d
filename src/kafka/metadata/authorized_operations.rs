//! What a principal may do with a topic, as the brokers say (KIP-430).

/// An operation that ACLs are about, by Kafka's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AclOperation {
    /// READ
    Read = 3,
    /// WRITE
    Write = 4,
}

/// A bit for each operation; nothing is known where the brokers were not asked, or are older than
/// 2.3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuthorizedOperations(Option<i32>);

impl AuthorizedOperations {
    /// As a response has them; [`i32::MIN`] in one that says nothing.
    pub(crate) fn new(bits: i32) -> Self {
        Self((bits != i32::MIN).then_some(bits))
    }

    /// Whether an operation may be done, as far as is known: where nothing is, doing it will show.
    pub fn may(self, operation: AclOperation) -> bool {
        self.0
            .is_none_or(|bits| bits & (1 << operation as i32) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_allowed_by_its_bit_or_when_nothing_is_known() {
        let of = AuthorizedOperations::new;
        // READ and DESCRIBE.
        let reader = of((1 << 3) | (1 << 8));
        assert!(reader.may(AclOperation::Read) && !reader.may(AclOperation::Write));
        assert!(!of(0).may(AclOperation::Read));
        assert!(of(i32::MIN).may(AclOperation::Write));
        assert_eq!(of(i32::MIN), AuthorizedOperations::default());
    }
}
