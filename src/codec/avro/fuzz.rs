//! Datums, whole and damaged, as another implementation of Avro reads them.

use apache_avro::types::Value;
use fuzzing::{FuzzInput, fuzz, within};

use super::commit;
use super::inbound;
use super::tests::{self, OwnedRecord, schema};
use super::wrapper_schema::WrapperSchema;
use super::writer_schema::{WrittenCommit, WrittenProducerRecord};

#[test]
fn fuzz_avro() {
    let schema = schema(WrapperSchema::ProducerRecord);
    fuzz("avro", |input| {
        let record = any_record(input);
        let mut datum = tests::written(&schema, Value::Record(record.fields()));
        record.assert_is(&inbound::read(&datum).expect("a record"));
        input.damage(&mut datum);
        let _ = commit::read(&datum);
        let bytes_max = 32 * datum.len() + 4096;
        within(bytes_max, "a datum", || {
            let _ = inbound::read(&datum);
        });
        let Ok(read) = inbound::read(&datum) else {
            return;
        };
        let mut rest = &datum[..];
        // A plain datum may end early, which theirs may not.
        let Ok(theirs) = tests::read(&schema, &mut rest) else {
            return;
        };
        assert!(rest.is_empty());
        let Value::Record(fields) = theirs else {
            panic!("no record");
        };
        if fields[4].1 == Value::Null {
            // That implementation takes the end of a datum for a boolean, as null.
            return;
        }
        let bytes = |index: usize| match &fields[index].1 {
            Value::Union(1, value) => match &**value {
                Value::Bytes(bytes) => Some(bytes.clone()),
                other => panic!("{other:?}"),
            },
            Value::Bytes(bytes) => Some(bytes.clone()),
            _ => None,
        };
        assert_eq!(read.key.map(<[u8]>::to_vec), bytes(0));
        assert_eq!(read.value.unwrap_or_default(), bytes(1).expect("a value"));
        let headers = match &fields[2].1 {
            Value::Union(1, headers) => match &**headers {
                Value::Array(headers) => headers.len(),
                other => panic!("{other:?}"),
            },
            _ => 0,
        };
        assert_eq!(read.headers.len(), headers);
        assert_eq!(fields[4].1, Value::Boolean(read.value.is_none()));
    });
}

#[test]
fn fuzz_avro_schemas() {
    let seeds = [
        WrapperSchema::ProducerRecord.text(),
        WrapperSchema::Commit.text(),
        OTHER_TYPES,
    ];
    fuzz("avro_schemas", |input| {
        let mut text = input.pick::<&str>(&seeds).as_bytes().to_vec();
        if !input.one_in(3) {
            input.damage(&mut text);
        }
        let len = input.up_to_bits(9);
        let mut datum = input.bytes(len);
        input.damage(&mut datum);
        let text = String::from_utf8_lossy(&text);
        if let Ok(schema) = WrittenProducerRecord::parse(&text) {
            within(64 * datum.len() + 8192, "a datum", || {
                let _ = schema.read(&datum);
            });
        }
        if let Ok(schema) = WrittenCommit::parse(&text) {
            let _ = schema.read(&datum);
        }
    });
}

/// Fields that are not ours.
const OTHER_TYPES: &str = r#"{"type":"record","name":"AvroProducerRecord","fields":[
    {"name":"a","type":{"type":"array","items":["null","long",{"type":"map","values":"bytes"}]}},
    {"name":"key","type":["null","string","int"]},
    {"name":"b","type":{"type":"record","name":"R","fields":[{"name":"x","type":"double"}]}},
    {"name":"c","type":{"type":"array","items":"R"}},
    {"name":"value","type":"string"}]}"#;

fn any_record(input: &mut FuzzInput) -> OwnedRecord {
    let bytes = |input: &mut FuzzInput| {
        let len = input.up_to_bits(8);
        (!input.one_in(4)).then(|| input.bytes(len))
    };
    let headers = (!input.one_in(3)).then(|| {
        let count = input.below(4);
        (0..count).map(|_| (input.text(6), bytes(input))).collect()
    });
    OwnedRecord {
        key: bytes(input),
        value: bytes(input),
        headers,
        message_id: (!input.one_in(2)).then(|| input.text(8)),
    }
}
