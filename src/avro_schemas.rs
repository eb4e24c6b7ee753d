//! The schemas that Avro messages are written with: none is named in them, or a schema registry
//! has them.
//!
//! ```text
//! a socket opens ─▶ open ─ our schemas, under their names as subjects ─▶ AvroFraming
//! a message with an id ─▶ producer_record, commit ─ schema, from the registry ─▶ resolved to ours
//! ```
//!
//! # Decisions
//! - A subject is the whole name of its record (Confluent's `RecordNameStrategy`): the messages of
//!   all topics are of the same few schemas, and the subject `<topic>-value` is that of the topic's
//!   own values.
//! - What a client is told of a registry that does not answer names no address.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use runtime::mutex::lock;
use schema_registry::{SchemaRegistryClient, SchemaRegistryConfig, SchemaRegistryError};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::codec::avro::framing::AvroFraming;
use crate::codec::avro::wrapper_schema::WrapperSchema;
use crate::codec::avro::writer_schema::{UnfitSchema, WrittenCommit, WrittenProducerRecord};
use crate::codec::socket_error::SocketErrorCode;

/// Schemas that are kept resolved, of records and of commits each.
const RESOLVED_MAX: usize = 100;

/// Our schemas and those of others. Cloning is cheap.
#[derive(Clone, Debug, Default)]
pub(crate) struct AvroSchemas(Option<Arc<RegisteredSchemas>>);

/// With a registry.
#[derive(Debug)]
struct RegisteredSchemas {
    registry: SchemaRegistryClient,
    /// Whether ours are registered.
    registers: bool,
    producer_records: ResolvedSchemas<WrittenProducerRecord>,
    commits: ResolvedSchemas<WrittenCommit>,
}

/// Why a message cannot be read: its schema is not to be had, or not one to read it with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AvroSchemaError {
    /// Plain messages name no schema.
    #[error("no schema registry is configured")]
    NoRegistry,
    /// The registry does not give it.
    #[error("{}", .0.for_clients())]
    Registry(SchemaRegistryError),
    /// It is not of such a message.
    #[error("schema {id} does not fit: {reason}")]
    Unfit {
        /// Of the schema.
        id: u32,
        /// Why it does not.
        reason: UnfitSchema,
    },
}

impl AvroSchemaError {
    /// The code of a record or a commit that is so refused.
    pub(crate) fn code(&self) -> SocketErrorCode {
        match self {
            AvroSchemaError::Registry(error) if error.is_retriable() => SocketErrorCode::TimedOut,
            _ => SocketErrorCode::InvalidRecord,
        }
    }

    /// For operators: what names the registry.
    pub(crate) fn detail(&self) -> String {
        match self {
            AvroSchemaError::Registry(error) => error.to_string(),
            other => other.to_string(),
        }
    }
}

/// What clients are told.
trait ForClients {
    fn for_clients(&self) -> String;
}

impl ForClients for SchemaRegistryError {
    fn for_clients(&self) -> String {
        match self {
            SchemaRegistryError::Unavailable { .. } => "no schema registry answers".to_owned(),
            SchemaRegistryError::Refused { status, .. } => {
                format!("the schema registry refuses to tell the schema ({status})")
            }
            other => other.to_string(),
        }
    }
}

/// What a socket writes, and what it reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MessageSchemas {
    /// Of what we write.
    pub(crate) written: WrapperSchema,
    /// Of what clients may write with.
    pub(crate) read: WrapperSchema,
}

impl AvroSchemas {
    /// Of the registry that is configured, if one is. Its connections belong to `tasks`, and end
    /// with `stop`. To be called inside a runtime.
    pub(crate) fn new(
        config: &SchemaRegistryConfig,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        if config.urls.is_empty() {
            return Self::default();
        }
        Self(Some(Arc::new(RegisteredSchemas {
            registers: config.auto_register_schemas,
            registry: SchemaRegistryClient::new(config.clone(), tasks.clone(), stop.clone()),
            producer_records: ResolvedSchemas::default(),
            commits: ResolvedSchemas::default(),
        })))
    }

    /// How the messages of a socket are framed.
    ///
    /// # Errors
    /// The registry does not give the id of what we write.
    pub(crate) async fn open(
        &self,
        schemas: MessageSchemas,
    ) -> Result<AvroFraming, AvroSchemaError> {
        let Some(registered) = &self.0 else {
            return Ok(AvroFraming::Plain);
        };
        let opened = registered.id_of_written(schemas).await;
        opened
            .map(AvroFraming::Confluent)
            .map_err(AvroSchemaError::Registry)
    }

    /// The schema with that id, of records of `/socket/in`.
    pub(crate) async fn producer_record(
        &self,
        id: u32,
    ) -> Result<Arc<WrittenProducerRecord>, AvroSchemaError> {
        let registered = self.0.as_ref().ok_or(AvroSchemaError::NoRegistry)?;
        let resolved = &registered.producer_records;
        let registry = &registered.registry;
        resolved
            .get(id, registry, WrittenProducerRecord::parse)
            .await
    }

    /// The schema with that id, of commits.
    pub(crate) async fn commit(&self, id: u32) -> Result<Arc<WrittenCommit>, AvroSchemaError> {
        let registered = self.0.as_ref().ok_or(AvroSchemaError::NoRegistry)?;
        let (resolved, registry) = (&registered.commits, &registered.registry);
        resolved.get(id, registry, WrittenCommit::parse).await
    }
}

impl RegisteredSchemas {
    async fn id_of_written(&self, schemas: MessageSchemas) -> Result<u32, SchemaRegistryError> {
        let MessageSchemas { written, read } = schemas;
        if !self.registers {
            let id = self.registry.look_up(written.name(), written.text().into());
            return id.await;
        }
        // Clients find it there.
        let read = self.registry.register(read.name(), read.text().into());
        read.await?;
        let id = self
            .registry
            .register(written.name(), written.text().into());
        id.await
    }
}

/// Schemas by their ids, resolved once, whether they fit or not; the oldest go first.
#[derive(Debug)]
struct ResolvedSchemas<T>(Mutex<ResolvedById<T>>);

#[derive(Debug)]
struct ResolvedById<T> {
    by_id: HashMap<u32, Result<Arc<T>, UnfitSchema>>,
    ids: VecDeque<u32>,
}

impl<T> Default for ResolvedSchemas<T> {
    fn default() -> Self {
        Self(Mutex::new(ResolvedById {
            by_id: HashMap::new(),
            ids: VecDeque::new(),
        }))
    }
}

impl<T> ResolvedSchemas<T> {
    async fn get(
        &self,
        id: u32,
        registry: &SchemaRegistryClient,
        parse: fn(&str) -> Result<T, UnfitSchema>,
    ) -> Result<Arc<T>, AvroSchemaError> {
        let known = lock(&self.0).by_id.get(&id).cloned();
        let resolved = match known {
            Some(resolved) => resolved,
            None => {
                let text = registry.schema(id).await;
                let text = text.map_err(AvroSchemaError::Registry)?;
                let resolved = parse(&text).map(Arc::new);
                lock(&self.0).insert(id, resolved.clone());
                resolved
            }
        };
        resolved.map_err(|reason| AvroSchemaError::Unfit { id, reason })
    }
}

impl<T> ResolvedById<T> {
    fn insert(&mut self, id: u32, resolved: Result<Arc<T>, UnfitSchema>) {
        if self.by_id.insert(id, resolved).is_some() {
            return;
        }
        self.ids.push_back(id);
        if self.ids.len() > RESOLVED_MAX
            && let Some(oldest) = self.ids.pop_front()
        {
            self.by_id.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_schemas_are_kept_resolved() {
        let resolved = ResolvedSchemas::<()>::default();
        for id in 0..200 {
            lock(&resolved.0).insert(id, Ok(Arc::new(())));
            lock(&resolved.0).insert(id, Ok(Arc::new(())));
        }
        let state = lock(&resolved.0);
        assert_eq!(
            (state.by_id.len(), state.ids.len()),
            (RESOLVED_MAX, RESOLVED_MAX)
        );
        assert!(state.by_id.contains_key(&199) && !state.by_id.contains_key(&99));
    }
}
