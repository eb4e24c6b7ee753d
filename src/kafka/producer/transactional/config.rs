//! The settings that transactional producers have.

use std::sync::Arc;
use std::time::Duration;

/// What a transactional producer has beside the settings of every producer.
#[derive(Clone, Debug)]
pub struct TransactionalConfig {
    /// `transactional.id`
    pub transactional_id: Arc<str>,
    /// `transaction.timeout.ms`: how long the coordinator leaves a transaction open whose producer
    /// is gone. Until then readers of committed data get nothing that follows it.
    pub transaction_timeout: Duration,
}
