//! The client: ids of schemas, and schemas of ids.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use http::Method;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cache::LookupCache;
use crate::config::SchemaRegistryConfig;
use crate::error::SchemaRegistryError;
use crate::requests::{RegistryAnswer, RegistryRequests};

/// How many ids and how many schemas are kept.
const KEPT_MAX: usize = 1000;

/// The client. Cloning is cheap, and clones share what they know.
#[derive(Clone, Debug)]
pub struct SchemaRegistryClient(Arc<ClientState>);

#[derive(Debug)]
struct ClientState {
    requests: Arc<RegistryRequests>,
    ids: LookupCache<SchemaUse, u32>,
    schemas: LookupCache<u32, Arc<str>>,
}

/// A schema under a subject.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct SchemaUse {
    subject: String,
    schema: Arc<str>,
    registers: bool,
}

#[derive(Serialize)]
struct SchemaBody<'a> {
    schema: &'a str,
}

#[derive(Deserialize)]
struct IdAnswer {
    id: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SchemaAnswer {
    schema: String,
    /// Avro, unless said.
    schema_type: Option<String>,
}

impl SchemaRegistryClient {
    /// Connects when it is first asked. The tasks of connections belong to `tasks`, and end with
    /// `stop`. To be called inside a runtime.
    pub fn new(config: SchemaRegistryConfig, tasks: TaskTracker, stop: CancellationToken) -> Self {
        Self(Arc::new(ClientState {
            requests: Arc::new(RegistryRequests::new(config, tasks, stop)),
            ids: LookupCache::new(KEPT_MAX),
            schemas: LookupCache::new(KEPT_MAX),
        }))
    }

    /// The id of an Avro schema, in JSON, which is registered under `subject` if it is not there.
    ///
    /// # Errors
    /// No registry answers, or it refuses: for incompatibility with what the subject has, say.
    pub async fn register(
        &self,
        subject: &str,
        schema: Arc<str>,
    ) -> Result<u32, SchemaRegistryError> {
        self.id_of(subject, schema, true).await
    }

    /// The id of an Avro schema, in JSON, that is registered under `subject`.
    ///
    /// # Errors
    /// It is not there, no registry answers, or it refuses.
    pub async fn look_up(
        &self,
        subject: &str,
        schema: Arc<str>,
    ) -> Result<u32, SchemaRegistryError> {
        self.id_of(subject, schema, false).await
    }

    /// The Avro schema with that id, in JSON.
    ///
    /// # Errors
    /// There is none, it is of another kind, no registry answers, or it refuses.
    pub async fn schema(&self, id: u32) -> Result<Arc<str>, SchemaRegistryError> {
        // Registries have ids as Java's int: they would call such a request malformed.
        if i32::try_from(id).is_err() {
            return Err(SchemaRegistryError::UnknownId { id });
        }
        let requests = &self.0.requests;
        let fetch = || {
            let requests = Arc::clone(requests);
            async move {
                let path = format!("/schemas/ids/{id}");
                let answer = requests.send(Method::GET, &path, Bytes::new()).await?;
                match answer {
                    RegistryAnswer::NotFound => Err(SchemaRegistryError::UnknownId { id }),
                    RegistryAnswer::Done(SchemaAnswer {
                        schema_type: Some(schema_type),
                        ..
                    }) if schema_type != AVRO => {
                        Err(SchemaRegistryError::NotAvro { id, schema_type })
                    }
                    RegistryAnswer::Done(SchemaAnswer { schema, .. }) => Ok(schema.into()),
                }
            }
            .boxed()
        };
        self.0.schemas.get(id, fetch).await
    }

    async fn id_of(
        &self,
        subject: &str,
        schema: Arc<str>,
        registers: bool,
    ) -> Result<u32, SchemaRegistryError> {
        let key = SchemaUse {
            subject: subject.to_owned(),
            schema,
            registers,
        };
        let requests = &self.0.requests;
        let fetch = || {
            let (requests, key) = (Arc::clone(requests), key.clone());
            async move { key.id(&requests).await }.boxed()
        };
        self.0.ids.get(key.clone(), fetch).await
    }
}

impl SchemaUse {
    async fn id(&self, requests: &RegistryRequests) -> Result<u32, SchemaRegistryError> {
        let subject = utf8_percent_encode(&self.subject, ESCAPED_IN_PATHS);
        let path = match self.registers {
            true => format!("/subjects/{subject}/versions"),
            false => format!("/subjects/{subject}"),
        };
        let body = SchemaBody {
            schema: &self.schema,
        };
        let body = serde_json::to_vec(&body).expect("texts always serialize");
        let answer = requests.send(Method::POST, &path, body.into()).await?;
        match answer {
            RegistryAnswer::Done(IdAnswer { id }) => Ok(id),
            RegistryAnswer::NotFound => Err(SchemaRegistryError::NotRegistered {
                subject: self.subject.clone(),
            }),
        }
    }
}

const AVRO: &str = "AVRO";
/// What would not be itself in a path.
const ESCAPED_IN_PATHS: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
