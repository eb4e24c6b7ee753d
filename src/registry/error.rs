//! Why the registry gives no schema, or no id.

/// Why a schema, or the id of one, is not to be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaRegistryError {
    /// No schema has that id.
    #[error("the schema registry has no schema {id}")]
    UnknownId {
        /// The id.
        id: u32,
    },
    /// The schema is not registered, and is not to be.
    #[error("the schema is not registered under the subject {subject}")]
    NotRegistered {
        /// The subject.
        subject: String,
    },
    /// The schema is not an Avro schema.
    #[error("schema {id} is of type {schema_type}, not AVRO")]
    NotAvro {
        /// The id.
        id: u32,
        /// What it is instead.
        schema_type: String,
    },
    /// The registry answers, and does not do what it was asked for.
    #[error("the schema registry at {url} refuses ({status}): {message}")]
    Refused {
        /// Of the registry, without credentials.
        url: String,
        /// Its HTTP status.
        status: u16,
        /// What it says, cut.
        message: String,
    },
    /// No registry answers as one.
    #[error("no schema registry answers: {reason}")]
    Unavailable {
        /// Of the URL that was tried last.
        reason: String,
    },
}

impl SchemaRegistryError {
    /// Whether it may be otherwise soon, without anything being changed in the request.
    pub fn is_retriable(&self) -> bool {
        match self {
            SchemaRegistryError::Unavailable { .. } | SchemaRegistryError::Refused { .. } => true,
            SchemaRegistryError::UnknownId { .. }
            | SchemaRegistryError::NotRegistered { .. }
            | SchemaRegistryError::NotAvro { .. } => false,
        }
    }
}
