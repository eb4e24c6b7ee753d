//! The idempotent producer.

#![allow(dead_code, unused_imports)] // the sender, which uses all of it, follows

mod error;
mod identity;
pub mod partitioner;
mod queue;
mod ticket;

pub use error::ProduceError;
pub use ticket::{Ack, Ticket};
