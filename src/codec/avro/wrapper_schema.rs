//! The schemas of the wrapper messages, as `/schemas/avro/…` serves them.
//!
//! # Decisions
//! - Names, namespace, docs and the order of fields are those that clients of the Scala original
//!   were built with. What was added to them stands at the end, with a default.

/// One of the wrapper messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum WrapperSchema {
    /// What a client of `/socket/in` sends.
    ProducerRecord,
    /// What it is answered.
    ProducerResult,
    /// What a client of `/socket/out` is sent.
    ConsumerRecord,
    /// What it sends to commit.
    Commit,
}

impl WrapperSchema {
    /// The whole name of its record.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            WrapperSchema::ProducerRecord => {
                "net.scalytica.kafka.wsproxy.avro.SchemaTypes.AvroProducerRecord"
            }
            WrapperSchema::ProducerResult => {
                "net.scalytica.kafka.wsproxy.avro.SchemaTypes.AvroProducerResult"
            }
            WrapperSchema::ConsumerRecord => {
                "net.scalytica.kafka.wsproxy.avro.SchemaTypes.AvroConsumerRecord"
            }
            WrapperSchema::Commit => "net.scalytica.kafka.wsproxy.avro.SchemaTypes.AvroCommit",
        }
    }

    /// The schema, in JSON.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            WrapperSchema::ProducerRecord => include_str!("AvroProducerRecord.avsc"),
            WrapperSchema::ProducerResult => include_str!("AvroProducerResult.avsc"),
            WrapperSchema::ConsumerRecord => include_str!("AvroConsumerRecord.avsc"),
            WrapperSchema::Commit => include_str!("AvroCommit.avsc"),
        }
    }
}
