//! A client that speaks Avro by a generic library, with the schemas that the endpoints serve.

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use std::collections::HashMap;
use std::io::Write;
use std::process::{Command, Stdio};

use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use super::PATIENCE;
use super::kafka::{jars_of, root};
use super::proxy::Proxy;
use super::schema_registry::FakeRegistry;

/// The schemas, as they are served.
pub(crate) struct AvroClient {
    pub(crate) producer_record: Schema,
    pub(crate) producer_result: Schema,
    pub(crate) consumer_record: Schema,
    pub(crate) commit: Schema,
    /// With a registry: the ids of the schemas, by their names.
    ids: HashMap<String, u32>,
}

impl AvroClient {
    /// Without a schema registry.
    pub(crate) async fn plain(proxy: &Proxy) -> Self {
        let schema = async |path: &str| {
            let (_, text) = get(&proxy.address, &format!("/schemas/avro/{path}")).await;
            Schema::parse_str(&text).unwrap()
        };
        Self {
            producer_record: schema("producer/record").await,
            producer_result: schema("producer/result").await,
            consumer_record: schema("consumer/record").await,
            commit: schema("consumer/commit").await,
            ids: HashMap::new(),
        }
    }

    /// With the ids that the schemas have in a registry, once sockets of both kinds were opened.
    pub(crate) async fn registered(proxy: &Proxy, registry: &FakeRegistry) -> Self {
        let mut client = Self::plain(proxy).await;
        let schemas = [
            &client.producer_record,
            &client.producer_result,
            &client.consumer_record,
            &client.commit,
        ];
        let with_id = |schema: &&Schema| {
            let name = name(schema);
            let id = registry.ids(&name).first().copied();
            (name, id.expect("it is registered under its name"))
        };
        client.ids = schemas.iter().map(with_id).collect();
        client
    }

    /// Its id in the registry.
    pub(crate) fn id(&self, schema: &Schema) -> u32 {
        self.ids[&name(schema)]
    }

    /// A binary frame of that value.
    pub(crate) fn message(&self, schema: &Schema, value: Value) -> Message {
        let datum = datum(schema, value);
        match self.ids.get(&name(schema)) {
            Some(id) => framed(*id, &datum),
            None => Message::binary(datum),
        }
    }

    /// A commit.
    pub(crate) fn commit(&self, id: &str) -> Message {
        let id = ("wsProxyMessageId".to_owned(), Value::String(id.to_owned()));
        self.message(&self.commit, Value::Record(vec![id]))
    }

    /// The value of a binary frame, which is all of it.
    pub(crate) fn read(&self, schema: &Schema, message: Option<Message>) -> Value {
        let Some(Message::Binary(datum)) = message else {
            panic!("a binary frame was expected: {message:?}");
        };
        let mut rest = match self.ids.get(&name(schema)) {
            Some(id) => datum.strip_prefix(&header_of(*id)[..]).expect("its id"),
            None => &datum[..],
        };
        let read = value(schema, &mut rest);
        assert!(rest.is_empty(), "{rest:?}");
        read
    }
}

fn name(schema: &Schema) -> String {
    schema.name().expect("a record").fullname(None)
}

fn header_of(id: u32) -> [u8; 5] {
    let mut header = [0; 5];
    header[1..].copy_from_slice(&id.to_be_bytes());
    header
}

/// A datum with the id of its schema in front, as Confluent's serializers have it.
pub(crate) fn framed(id: u32, datum: &[u8]) -> Message {
    Message::binary([&header_of(id)[..], datum].concat())
}

/// A datum with that value.
pub(crate) fn datum(schema: &Schema, value: Value) -> Vec<u8> {
    let writer = GenericDatumWriter::builder(schema).build().unwrap();
    writer.write_value_to_vec(value).unwrap()
}

/// The value of the datum that `bytes` begin with.
pub(crate) fn value(schema: &Schema, bytes: &mut &[u8]) -> Value {
    let reader = GenericDatumReader::builder(schema).build().unwrap();
    reader.read_value(bytes).unwrap()
}

/// An `AvroProducerRecord`; without a value a tombstone.
pub(crate) fn producer_record(
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: Vec<Value>,
    message_id: Option<&str>,
) -> Value {
    let field = |name: &str, value| (name.to_owned(), value);
    let headers = (!headers.is_empty()).then_some(Value::Array(headers));
    let id = message_id.map(|id| Value::String(id.to_owned()));
    Value::Record(vec![
        field("key", optional(key.map(bytes))),
        field("value", bytes(value.unwrap_or_default())),
        field("headers", optional(headers)),
        field("messageId", optional(id)),
        field("tombstone", Value::Boolean(value.is_none())),
    ])
}

pub(crate) fn header(key: &str, value: Option<&[u8]>) -> Value {
    Value::Record(vec![
        ("key".to_owned(), Value::String(key.to_owned())),
        ("value".to_owned(), optional(value.map(bytes))),
    ])
}

pub(crate) fn bytes(bytes: &[u8]) -> Value {
    Value::Bytes(bytes.to_vec())
}

/// Of a union of null and something.
pub(crate) fn optional(value: Option<Value>) -> Value {
    match value {
        Some(value) => Value::Union(1, Box::new(value)),
        None => Value::Union(0, Box::new(Value::Null)),
    }
}

/// A field of a record.
pub(crate) fn field(record: &Value, name: &str) -> Value {
    let Value::Record(fields) = record else {
        panic!("no record: {record:?}");
    };
    let found = fields.iter().find(|(field, _)| field == name);
    found
        .unwrap_or_else(|| panic!("no {name}: {record:?}"))
        .1
        .clone()
}

/// A field of a record that is text.
pub(crate) fn text(record: &Value, name: &str) -> String {
    match field(record, name) {
        Value::String(text) => text,
        other => panic!("{name} is no text: {other:?}"),
    }
}

/// Runs `Avro.java`, by Apache Avro's generic library for Java: what it prints for lines that it
/// is given.
pub(crate) fn java(what: &str, schema: &str, lines: &str) -> Vec<String> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(schema.as_bytes()).unwrap();
    let mut child = Command::new("java")
        .args([
            "-Xmx128m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Dslf4j.internal.verbosity=ERROR",
            "-cp",
        ])
        .arg(format!("{}/*", jars_of("avro").display()))
        .arg(root().join("proto-tests/java/Avro.java"))
        .arg(what)
        .arg(file.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // A few lines fit the pipe.
    child
        .stdin
        .take()
        .unwrap()
        .write_all(lines.as_bytes())
        .unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "Avro.java {what}");
    let out = String::from_utf8(out.stdout).unwrap();
    out.lines().map(str::to_owned).collect()
}

/// Head and body of what is answered to GET.
pub(crate) async fn get(address: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    let read = stream.read_to_string(&mut response);
    timeout(PATIENCE, read).await.unwrap().unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}
