//! The states of groups, as brokers and Java's `Admin` name them.

/// The state of a group of consumers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupState {
    /// Its members join.
    PreparingRebalance,
    /// They wait for what the leader assigns.
    CompletingRebalance,
    /// The coordinator assigns (KIP-848).
    Assigning,
    /// Its members take over what was assigned (KIP-848).
    Reconciling,
    /// Its members read.
    Stable,
    /// It has none, and perhaps offsets.
    Empty,
    /// It is about to be forgotten.
    Dead,
}

impl GroupState {
    /// Every state.
    pub(super) const ALL: [Self; 7] = [
        Self::PreparingRebalance,
        Self::CompletingRebalance,
        Self::Assigning,
        Self::Reconciling,
        Self::Stable,
        Self::Empty,
        Self::Dead,
    ];

    /// The state that a broker calls so.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let states = Self::ALL.into_iter();
        let is_named = |state: &Self| state.kafka_name().eq_ignore_ascii_case(name);
        states.into_iter().find(is_named)
    }

    /// As brokers call it.
    pub(super) const fn kafka_name(self) -> &'static str {
        match self {
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Assigning => "Assigning",
            Self::Reconciling => "Reconciling",
            Self::Stable => "Stable",
            Self::Empty => "Empty",
            Self::Dead => "Dead",
        }
    }

    /// As Java's `GroupState` calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PreparingRebalance => "PREPARING_REBALANCE",
            Self::CompletingRebalance => "COMPLETING_REBALANCE",
            Self::Assigning => "ASSIGNING",
            Self::Reconciling => "RECONCILING",
            Self::Stable => "STABLE",
            Self::Empty => "EMPTY",
            Self::Dead => "DEAD",
        }
    }

    /// Whether it has members.
    pub const fn is_active(self) -> bool {
        !matches!(self, Self::Empty | Self::Dead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_brokers_and_java_call_a_state_is_the_same_word() {
        for state in GroupState::ALL {
            let word = state.name().replace('_', "");
            assert!(state.kafka_name().eq_ignore_ascii_case(&word));
            assert_eq!(GroupState::parse(state.kafka_name()), Some(state));
        }
        assert_eq!(GroupState::parse("Paused"), None);
    }
}
