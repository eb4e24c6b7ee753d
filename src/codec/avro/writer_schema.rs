//! Messages that were written with another schema than ours, as clients of the original write
//! them: what of theirs is what of ours.
//!
//! ```text
//! schema, from the registry ─ parse ─▶ apache_avro::Schema ─ resolve ─▶ WriterRecord, once per id
//! datum ─ read ─▶ ours: slices of the datum; what is not ours is skipped
//! ```
//!
//! The rules are those of Avro's schema resolution: fields are found by name, a union that was
//! written gives what its branch gives, text is as good as bytes where it is bytes that we have,
//! and a field of ours that is missing has its default or is an error.
//!
//! # Invariants
//! - Reading takes time in proportion to the datum's length, whatever the schema is: what has no
//!   bytes is not read, and no schema is recursive.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::schema::{InnerDecimalSchema, RecordSchema, UuidSchema};

use super::commit;
use super::inbound::{ProducerRecordDatum, reserve};
use super::wire::{DatumReader, DatumResult};
use crate::codec::commit::{CommitMessage, CommitRejection};
use crate::codec::inbound::{InboundRecord, RecordRejection};
use kafka_client::record::NewHeader;

/// Why a schema is none that our messages can be read with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UnfitSchema(String);

/// The schema of records of `/socket/in`.
#[derive(Debug)]
pub(crate) struct WrittenProducerRecord(Vec<RecordPart>);

/// The schema of commits.
#[derive(Debug)]
pub(crate) struct WrittenCommit(Vec<CommitPart>);

#[derive(Debug)]
enum RecordPart {
    Key(Alternatives<BytesType>),
    Value(Alternatives<BytesType>),
    Headers(Alternatives<HeadersType>),
    MessageId(Alternatives<BytesType>),
    Tombstone(Alternatives<BooleanType>),
    Skipped(Vec<SkippedType>),
}

#[derive(Debug)]
enum CommitPart {
    Id(Alternatives<BytesType>),
    Skipped(Vec<SkippedType>),
}

/// What was written, or the branches of a union, of which those are `None` that do not fit.
#[derive(Debug)]
enum Alternatives<T> {
    One(T),
    Union(Vec<Option<T>>),
}

#[derive(Clone, Copy, Debug)]
enum BytesType {
    Null,
    /// `bytes` or `string`.
    Bytes,
}

#[derive(Clone, Copy, Debug)]
struct BooleanType;

#[derive(Debug)]
enum HeadersType {
    Null,
    Array(Vec<HeaderPart>),
}

#[derive(Debug)]
enum HeaderPart {
    Key(Alternatives<BytesType>),
    Value(Alternatives<BytesType>),
    Skipped(Vec<SkippedType>),
}

/// What is not ours, in the order of its bytes: records are taken apart, and what has no bytes is
/// left out.
#[derive(Debug)]
enum SkippedType {
    Boolean,
    Number,
    Fixed(usize),
    Bytes,
    Array(Vec<SkippedType>),
    Map(Vec<SkippedType>),
    Union(Vec<Vec<SkippedType>>),
}

impl WrittenProducerRecord {
    /// Resolves a schema, in JSON.
    pub(crate) fn parse(text: &str) -> Result<Self, UnfitSchema> {
        let schema = parse(text)?;
        let mut resolver = SchemaResolver::default();
        let record = resolver.record_named(&schema, "AvroProducerRecord")?;
        let mut parts = Vec::new();
        for field in &record.fields {
            let (name, schema) = (field.name.as_str(), &field.schema);
            parts.push(match name {
                "key" => RecordPart::Key(resolver.bytes(name, schema)?),
                "value" => RecordPart::Value(resolver.bytes(name, schema)?),
                "headers" => RecordPart::Headers(resolver.headers(schema)?),
                "messageId" => RecordPart::MessageId(resolver.bytes(name, schema)?),
                "tombstone" => RecordPart::Tombstone(resolver.boolean(name, schema)?),
                _ => RecordPart::Skipped(resolver.skipped(schema)?),
            });
        }
        let has = |is: fn(&RecordPart) -> bool| parts.iter().any(is);
        if !has(|part| matches!(part, RecordPart::Key(_))) {
            return Err(missing_field("key"));
        }
        if !has(|part| matches!(part, RecordPart::Value(_))) {
            return Err(missing_field("value"));
        }
        Ok(Self(parts))
    }

    /// Reads a datum, which is whole.
    pub(crate) fn read<'a>(
        &self,
        datum: &'a [u8],
    ) -> Result<InboundRecord<'a>, RecordRejection<'a>> {
        ProducerRecordDatum::default().finish(datum, |record, reader| {
            for part in &self.0 {
                match part {
                    RecordPart::Key(key) => record.key = key.read(reader)?.read(reader)?,
                    RecordPart::Value(value) => {
                        let value = value.read(reader)?.read(reader)?;
                        record.value = value.ok_or_else(|| {
                            reader.fault("the value is null: a tombstone is \"tombstone\": true")
                        })?;
                    }
                    RecordPart::Headers(headers) => {
                        headers.read(reader)?.read(reader, &mut record.headers)?;
                    }
                    RecordPart::MessageId(id) => {
                        let id = id.read(reader)?;
                        let start = reader.at();
                        if let Some(text) = id.read_text(reader)? {
                            debug_assert!(reader.since(start).ends_with(text.as_bytes()));
                            record.message_id = Some(reader.since(start));
                        }
                    }
                    RecordPart::Tombstone(tombstone) => {
                        tombstone.read(reader)?;
                        record.tombstone = reader.boolean()?;
                    }
                    RecordPart::Skipped(types) => skip(types, reader)?,
                }
            }
            Ok(())
        })
    }
}

impl WrittenCommit {
    /// Resolves a schema, in JSON.
    pub(crate) fn parse(text: &str) -> Result<Self, UnfitSchema> {
        let schema = parse(text)?;
        let mut resolver = SchemaResolver::default();
        let record = resolver.record_named(&schema, "AvroCommit")?;
        let mut parts = Vec::new();
        for field in &record.fields {
            parts.push(match field.name.as_str() {
                name @ "wsProxyMessageId" => CommitPart::Id(resolver.bytes(name, &field.schema)?),
                _ => CommitPart::Skipped(resolver.skipped(&field.schema)?),
            });
        }
        match parts.iter().any(|part| matches!(part, CommitPart::Id(_))) {
            true => Ok(Self(parts)),
            false => Err(missing_field("wsProxyMessageId")),
        }
    }

    /// Reads a datum, which is whole.
    pub(crate) fn read<'a>(
        &self,
        datum: &'a [u8],
    ) -> Result<CommitMessage<'a>, CommitRejection<'a>> {
        commit::finish(datum, |reader| {
            let mut id = None;
            for part in &self.0 {
                match part {
                    CommitPart::Id(text) => id = text.read(reader)?.read_text(reader)?,
                    CommitPart::Skipped(types) => skip(types, reader)?,
                }
            }
            id.ok_or_else(|| reader.fault("the id is null"))
        })
    }
}

impl<T> Alternatives<T> {
    /// The type of what follows.
    fn read(&self, reader: &mut DatumReader<'_>) -> DatumResult<&T> {
        match self {
            Alternatives::One(one) => Ok(one),
            Alternatives::Union(branches) => {
                let branch = reader.branch(branches.len())?;
                let fits = branches[branch].as_ref();
                fits.ok_or_else(|| reader.fault("a union has a branch that does not fit"))
            }
        }
    }
}

impl BytesType {
    fn read<'a>(self, reader: &mut DatumReader<'a>) -> DatumResult<Option<&'a [u8]>> {
        match self {
            BytesType::Null => Ok(None),
            BytesType::Bytes => reader.bytes().map(Some),
        }
    }

    fn read_text<'a>(self, reader: &mut DatumReader<'a>) -> DatumResult<Option<&'a str>> {
        match self {
            BytesType::Null => Ok(None),
            BytesType::Bytes => reader.string().map(Some),
        }
    }
}

impl HeadersType {
    fn read<'a>(
        &self,
        reader: &mut DatumReader<'a>,
        headers: &mut Vec<NewHeader<'a>>,
    ) -> DatumResult<()> {
        let HeadersType::Array(parts) = self else {
            return Ok(());
        };
        loop {
            let count = match reader.block()? {
                0 => return Ok(()),
                count => count,
            };
            reserve(headers, count, reader);
            for _ in 0..count {
                let (mut key, mut value) = (None, None);
                for part in parts {
                    match part {
                        HeaderPart::Key(name) => key = name.read(reader)?.read_text(reader)?,
                        HeaderPart::Value(bytes) => value = bytes.read(reader)?.read(reader)?,
                        HeaderPart::Skipped(types) => skip(types, reader)?,
                    }
                }
                let key = key.ok_or_else(|| reader.fault("a header's key is null"))?;
                headers.push(NewHeader { key, value });
            }
        }
    }
}

fn skip(types: &[SkippedType], reader: &mut DatumReader<'_>) -> DatumResult<()> {
    for skipped in types {
        match skipped {
            SkippedType::Boolean => drop(reader.boolean()?),
            SkippedType::Number => drop(reader.long()?),
            SkippedType::Fixed(size) => drop(reader.skip(*size)?),
            SkippedType::Bytes => drop(reader.bytes()?),
            SkippedType::Array(items) => skip_blocks(reader, |reader| skip(items, reader), items)?,
            SkippedType::Map(values) => {
                let entry = |reader: &mut DatumReader<'_>| {
                    reader.bytes()?;
                    skip(values, reader)
                };
                skip_blocks(reader, entry, &[SkippedType::Bytes])?;
            }
            SkippedType::Union(branches) => {
                let branch = reader.branch(branches.len())?;
                skip(&branches[branch], reader)?;
            }
        }
    }
    Ok(())
}

/// Skips an array or a map; `has_bytes` is empty when its items have none.
fn skip_blocks(
    reader: &mut DatumReader<'_>,
    mut item: impl FnMut(&mut DatumReader<'_>) -> DatumResult<()>,
    has_bytes: &[SkippedType],
) -> DatumResult<()> {
    loop {
        let count = match reader.block()? {
            0 => return Ok(()),
            _ if has_bytes.is_empty() => continue,
            count => count,
        };
        for _ in 0..count {
            item(reader)?;
        }
    }
}

fn parse(text: &str) -> Result<Schema, UnfitSchema> {
    Schema::parse_str(text).map_err(|error| UnfitSchema(format!("it is no Avro schema: {error}")))
}

#[cold]
fn missing_field(name: &str) -> UnfitSchema {
    UnfitSchema(format!("it has no field \"{name}\""))
}

/// Schemas that one schema may have in it.
const NODES_MAX: usize = 1000;

/// Walks a schema; names are known from where they are defined on.
#[derive(Default)]
struct SchemaResolver<'s> {
    named: HashMap<String, &'s Schema>,
    /// Those that the schema under way stands in.
    enclosing: Vec<String>,
    nodes: usize,
}

impl<'s> SchemaResolver<'s> {
    fn record_named(
        &mut self,
        schema: &'s Schema,
        name: &str,
    ) -> Result<&'s RecordSchema, UnfitSchema> {
        match schema {
            Schema::Record(record) if record.name.name() == name => {
                self.enclosing.push(record.name.fullname(None));
                Ok(record)
            }
            Schema::Record(record) => Err(UnfitSchema(format!(
                "it is of {}, not of {name}",
                record.name.name()
            ))),
            _ => Err(UnfitSchema(format!("it is not of a record {name}"))),
        }
    }

    fn bytes(
        &mut self,
        name: &str,
        schema: &'s Schema,
    ) -> Result<Alternatives<BytesType>, UnfitSchema> {
        self.alternatives(name, schema, |_, schema| {
            Ok(match schema {
                Schema::Null => Some(BytesType::Null),
                Schema::Bytes | Schema::String => Some(BytesType::Bytes),
                _ => None,
            })
        })
    }

    fn boolean(
        &mut self,
        name: &str,
        schema: &'s Schema,
    ) -> Result<Alternatives<BooleanType>, UnfitSchema> {
        self.alternatives(name, schema, |_, schema| {
            Ok(matches!(schema, Schema::Boolean).then_some(BooleanType))
        })
    }

    fn headers(&mut self, schema: &'s Schema) -> Result<Alternatives<HeadersType>, UnfitSchema> {
        self.alternatives("headers", schema, |resolver, schema| {
            Ok(match schema {
                Schema::Null => Some(HeadersType::Null),
                Schema::Array(array) => {
                    let items = resolver.resolved(&array.items)?;
                    let Schema::Record(header) = items else {
                        return Ok(None);
                    };
                    Some(HeadersType::Array(resolver.header_parts(header)?))
                }
                _ => None,
            })
        })
    }

    fn header_parts(&mut self, header: &'s RecordSchema) -> Result<Vec<HeaderPart>, UnfitSchema> {
        let mut parts = Vec::new();
        let (mut keys, mut values) = (0, 0);
        for field in &header.fields {
            parts.push(match field.name.as_str() {
                "key" => {
                    keys += 1;
                    HeaderPart::Key(self.bytes("headers", &field.schema)?)
                }
                "value" => {
                    values += 1;
                    HeaderPart::Value(self.bytes("headers", &field.schema)?)
                }
                _ => HeaderPart::Skipped(self.skipped(&field.schema)?),
            });
        }
        match (keys, values) {
            (1, 1) => Ok(parts),
            _ => Err(UnfitSchema("its headers lack \"key\" or \"value\"".into())),
        }
    }

    /// What of a field fits ours, of which `fitting` finds the type.
    fn alternatives<T>(
        &mut self,
        name: &str,
        schema: &'s Schema,
        mut fitting: impl FnMut(&mut Self, &'s Schema) -> Result<Option<T>, UnfitSchema>,
    ) -> Result<Alternatives<T>, UnfitSchema> {
        let unfit = || UnfitSchema(format!("its field \"{name}\" has another type than ours"));
        match self.resolved(schema)? {
            Schema::Union(union) => {
                let mut branches = Vec::new();
                for branch in union.variants() {
                    let branch = self.resolved(branch)?;
                    branches.push(fitting(self, branch)?);
                }
                match branches.iter().any(Option::is_some) {
                    true => Ok(Alternatives::Union(branches)),
                    false => Err(unfit()),
                }
            }
            schema => fitting(self, schema)?
                .map(Alternatives::One)
                .ok_or_else(unfit),
        }
    }

    /// The types to skip a value by.
    fn skipped(&mut self, schema: &'s Schema) -> Result<Vec<SkippedType>, UnfitSchema> {
        let one = |skipped| Ok(vec![skipped]);
        match self.resolved(schema)? {
            Schema::Null => Ok(Vec::new()),
            Schema::Boolean => one(SkippedType::Boolean),
            Schema::Float => one(SkippedType::Fixed(4)),
            Schema::Double => one(SkippedType::Fixed(8)),
            Schema::Int
            | Schema::Long
            | Schema::Enum(_)
            | Schema::Date
            | Schema::TimeMillis
            | Schema::TimeMicros
            | Schema::TimestampMillis
            | Schema::TimestampMicros
            | Schema::TimestampNanos
            | Schema::LocalTimestampMillis
            | Schema::LocalTimestampMicros
            | Schema::LocalTimestampNanos => one(SkippedType::Number),
            Schema::Bytes | Schema::String | Schema::BigDecimal => one(SkippedType::Bytes),
            Schema::Uuid(UuidSchema::Bytes | UuidSchema::String) => one(SkippedType::Bytes),
            Schema::Uuid(UuidSchema::Fixed(fixed))
            | Schema::Fixed(fixed)
            | Schema::Duration(fixed) => Ok(fixed_type(fixed.size)),
            Schema::Decimal(decimal) => match &decimal.inner {
                InnerDecimalSchema::Bytes => one(SkippedType::Bytes),
                InnerDecimalSchema::Fixed(fixed) => Ok(fixed_type(fixed.size)),
            },
            Schema::Array(array) => one(SkippedType::Array(self.skipped(&array.items)?)),
            Schema::Map(map) => one(SkippedType::Map(self.skipped(&map.types)?)),
            Schema::Union(union) => {
                let branches = union.variants().iter().map(|branch| self.skipped(branch));
                one(SkippedType::Union(branches.collect::<Result<_, _>>()?))
            }
            Schema::Record(record) => {
                self.enclosing.push(record.name.fullname(None));
                let mut types = Vec::new();
                for field in &record.fields {
                    types.extend(self.skipped(&field.schema)?);
                }
                self.enclosing.pop();
                Ok(types)
            }
            Schema::Ref { .. } => Err(UnfitSchema("it names what it does not define".into())),
        }
    }

    /// The schema itself, or the one that it refers to.
    fn resolved(&mut self, schema: &'s Schema) -> Result<&'s Schema, UnfitSchema> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(UnfitSchema(format!("it has more than {NODES_MAX} parts")));
        }
        if let Schema::Ref { name } = schema {
            let name = name.fullname(None);
            if self.enclosing.contains(&name) {
                return Err(UnfitSchema(format!("{name} is recursive")));
            }
            let found = self.named.get(&name).copied();
            return found.ok_or_else(|| UnfitSchema(format!("{name} is not defined")));
        }
        if let Some(name) = schema.name() {
            self.named.insert(name.fullname(None), schema);
        }
        Ok(schema)
    }
}

/// So many bytes, if there are any.
fn fixed_type(size: usize) -> Vec<SkippedType> {
    match size {
        0 => Vec::new(),
        size => vec![SkippedType::Fixed(size)],
    }
}

#[cfg(test)]
mod tests {
    use apache_avro::reader::datum::GenericDatumReader;
    use apache_avro::types::Value;

    use super::super::inbound::string_content;
    use super::super::tests::{schema, written};
    use super::super::wrapper_schema::WrapperSchema;
    use super::*;

    /// A schema of that name with these fields, in JSON.
    fn record(name: &str, fields: &str) -> String {
        format!(r#"{{"type":"record","name":"{name}","namespace":"n","fields":[{fields}]}}"#)
    }

    const KEY_AND_VALUE: &str =
        r#"{"name":"key","type":["null","bytes"]},{"name":"value","type":"bytes"}"#;

    /// Fields of all types, which are none of ours.
    const OTHERS: &str = r#"
        {"name":"a","type":"null"},{"name":"b","type":"boolean"},{"name":"c","type":"int"},
        {"name":"d","type":"long"},{"name":"e","type":"float"},{"name":"f","type":"double"},
        {"name":"g","type":"string"},{"name":"h","type":{"type":"array","items":["null","int"]}},
        {"name":"i","type":{"type":"map","values":"bytes"}},
        {"name":"j","type":{"type":"fixed","name":"F","size":3}},
        {"name":"k","type":{"type":"enum","name":"E","symbols":["X","Y"]}},
        {"name":"l","type":{"type":"record","name":"R","fields":[{"name":"x","type":"F"}]}},
        {"name":"m","type":["null","R"]},{"name":"n","type":{"type":"array","items":"null"}},
        {"name":"o","type":{"type":"long","logicalType":"timestamp-millis"}},
        {"name":"p","type":{"type":"bytes","logicalType":"decimal","precision":4}}"#;

    fn others() -> Vec<(String, Value)> {
        let fixed = Value::Fixed(3, vec![1, 2, 3]);
        let nested = Value::Record(vec![("x".to_owned(), fixed.clone())]);
        let some = |value| Value::Union(1, Box::new(value));
        let entry = ("k".to_owned(), Value::Bytes(vec![7; 40]));
        let values = [
            Value::Null,
            Value::Boolean(true),
            Value::Int(-7),
            Value::Long(i64::MIN),
            Value::Float(1.5),
            Value::Double(-1.5),
            Value::String("text".to_owned()),
            Value::Array(vec![
                Value::Union(0, Box::new(Value::Null)),
                some(Value::Int(300)),
            ]),
            Value::Map([entry].into()),
            fixed,
            Value::Enum(1, "Y".to_owned()),
            nested.clone(),
            some(nested),
            Value::Array(vec![Value::Null; 3]),
            Value::TimestampMillis(1),
            Value::Decimal(vec![1, 2].into()),
        ];
        let names = ('a'..='p').map(String::from);
        names.zip(values).collect()
    }

    /// Reads as apache-avro resolves it to our schema.
    fn check(writer: &str, fields: Vec<(String, Value)>) {
        let theirs = Schema::parse_str(writer).expect("a schema");
        let ours = schema(WrapperSchema::ProducerRecord);
        let datum = written(&theirs, Value::Record(fields));
        let reader = GenericDatumReader::builder(&theirs)
            .reader_schema(&ours)
            .build();
        let resolved = reader.and_then(|reader| reader.read_value(&mut &datum[..]));
        let Value::Record(resolved) = resolved.expect("it resolves to ours") else {
            panic!("no record");
        };
        let schema = WrittenProducerRecord::parse(writer).expect("fit");
        let read = schema.read(&datum).expect("a record");
        let bytes = |index: usize| match &resolved[index].1 {
            Value::Union(1, value) => Some((**value).clone()),
            Value::Union(..) => None,
            value => Some(value.clone()),
        };
        assert_eq!(read.key.map(|key| Value::Bytes(key.to_vec())), bytes(0));
        assert_eq!(
            read.value.map(|value| Value::Bytes(value.to_vec())),
            bytes(1)
        );
        let id = read
            .message_id
            .map(|id| Value::String(string_content(id).to_owned()));
        assert_eq!(id, bytes(3));
        let headers = match bytes(2) {
            Some(Value::Array(headers)) => headers.len(),
            _ => 0,
        };
        assert_eq!(read.headers.len(), headers);
        // Nothing of it can be missing, and nothing may follow.
        for end in 0..datum.len() {
            assert!(
                schema.read(&datum[..end]).is_err(),
                "{end} of {}",
                datum.len()
            );
        }
        assert!(schema.read(&[&datum[..], b"x"].concat()).is_err());
    }

    fn field(name: &str, value: Value) -> (String, Value) {
        (name.to_owned(), value)
    }

    #[test]
    fn fields_are_found_by_name_among_others_of_all_types() {
        let some = |value| Value::Union(1, Box::new(value));
        let (key, value) = (Value::Bytes(b"k".to_vec()), Value::Bytes(b"v".to_vec()));
        let name = "AvroProducerRecord";
        let both = vec![
            field("key", some(key.clone())),
            field("value", value.clone()),
        ];
        check(&record(name, KEY_AND_VALUE), both.clone());
        check(
            &record(name, &format!("{OTHERS},{KEY_AND_VALUE}")),
            others().into_iter().chain(both.clone()).collect(),
        );
        check(
            &record(name, &format!("{KEY_AND_VALUE},{OTHERS}")),
            both.into_iter().chain(others()).collect(),
        );
        let text = |text: &str| Value::String(text.to_owned());
        let header = Value::Record(vec![field("key", text("h")), field("value", value.clone())]);
        check(
            &record(
                name,
                r#"{"name":"messageId","type":["string","null"]},{"name":"value","type":"string"},
                   {"name":"headers","type":{"type":"array","items":{"type":"record",
                     "name":"KafkaMessageHeader","fields":[{"name":"key","type":"string"},
                     {"name":"value","type":"bytes"}]}}},{"name":"key","type":"string"}"#,
            ),
            vec![
                field("messageId", Value::Union(0, Box::new(text("m")))),
                field("value", text("v")),
                field("headers", Value::Array(vec![header])),
                field("key", text("k")),
            ],
        );
    }

    #[test]
    fn a_schema_that_is_not_of_such_a_message_is_unfit() {
        let name = "AvroProducerRecord";
        let recursive = r#"{"name":"next","type":["null","n.AvroProducerRecord"]}"#;
        for (schema, reason) in [
            ("{".to_owned(), "it is no Avro schema"),
            (
                r#""bytes""#.to_owned(),
                "not of a record AvroProducerRecord",
            ),
            (record("User", KEY_AND_VALUE), "it is of User"),
            (
                record(name, r#"{"name":"key","type":"null"}"#),
                "no field \"value\"",
            ),
            (
                record(name, r#"{"name":"value","type":"bytes"}"#),
                "no field \"key\"",
            ),
            (
                record(
                    name,
                    r#"{"name":"key","type":"null"},{"name":"value","type":"int"}"#,
                ),
                "\"value\" has another type",
            ),
            (
                record(
                    name,
                    &format!(r#"{KEY_AND_VALUE},{{"name":"tombstone","type":"int"}}"#),
                ),
                "\"tombstone\" has another type",
            ),
            (
                record(name, &format!("{KEY_AND_VALUE},{recursive}")),
                "is recursive",
            ),
            (
                record(name, &format!("{KEY_AND_VALUE},{}", doubling(20))),
                "more than 1000 parts",
            ),
        ] {
            let unfit = WrittenProducerRecord::parse(&schema)
                .expect_err(&schema)
                .to_string();
            assert!(unfit.contains(reason), "{unfit}");
        }
        assert!(WrittenCommit::parse(&record(name, KEY_AND_VALUE)).is_err());
        assert!(WrittenCommit::parse(&record("AvroCommit", KEY_AND_VALUE)).is_err());
    }

    /// Records that have the one before twice.
    fn doubling(count: usize) -> String {
        let first = r#"{"name":"f0","type":{"type":"record","name":"R0","fields":[]}}"#.to_owned();
        let further = (1..count).map(|n| {
            let of = n - 1;
            format!(
                r#"{{"name":"f{n}","type":{{"type":"record","name":"R{n}","fields":[
                    {{"name":"x","type":"R{of}"}},{{"name":"y","type":"R{of}"}}]}}}}"#
            )
        });
        [first]
            .into_iter()
            .chain(further)
            .collect::<Vec<_>>()
            .join(",")
    }

    #[test]
    fn what_has_no_bytes_takes_no_time_however_often_it_is_there() {
        let nulls = r#"{"name":"n","type":{"type":"array","items":{"type":"record","name":"R","fields":[
            {"name":"x","type":"null"}]}}}"#;
        let schema = record("AvroProducerRecord", &format!("{nulls},{KEY_AND_VALUE}"));
        let schema = WrittenProducerRecord::parse(&schema).expect("fit");
        // 2^62 of them, many times.
        let block = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1];
        let datum = [&block.repeat(1000)[..], &[0, 0, 2, b'v']].concat();
        assert_eq!(
            schema.read(&datum).expect("a record").value,
            Some(&b"v"[..])
        );
    }

    #[test]
    fn a_commit_is_found_among_other_fields() {
        let id = r#"{"name":"wsProxyMessageId","type":["null","string"]}"#;
        let schema = record(
            "AvroCommit",
            &format!(r#"{{"name":"a","type":"long"}},{id}"#),
        );
        let schema = WrittenCommit::parse(&schema).expect("fit");
        let read = schema.read(b"\x02\x02\x0et-0-5-7").expect("a commit");
        assert_eq!(read.id.offset, 5);
        assert!(schema.read(b"\x02\x00").is_err(), "the id is null");
        assert!(schema.read(b"\x02\x02\x0et-0-5-7x").is_err());
    }
}
