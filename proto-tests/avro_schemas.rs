//! `/schemas/avro/…`: what generic Avro libraries are given to read and write our frames with.

use std::fs;

use serde_json::{Value, json};

use crate::support::avro::get;
use crate::support::kafka::root;
use crate::support::proxy::Proxy;

/// The endpoints, the original's schema that is served there, and what was added to its fields.
const ENDPOINTS: &[(&str, &str, &[&str])] = &[
    (
        "producer/record",
        "AvroProducerRecord",
        &["headers", "messageId", "tombstone"],
    ),
    ("producer/result", "AvroProducerResult", &["messageId"]),
    (
        "consumer/record",
        "AvroConsumerRecord",
        &["headers", "tombstone"],
    ),
    ("consumer/commit", "AvroCommit", &[]),
    ("producer/commit", "AvroCommit", &[]),
];

#[tokio::test]
async fn schemas_are_the_originals_to_the_byte_with_fields_added_at_the_end() {
    let proxy = Proxy::start().await;
    for (path, name, added) in ENDPOINTS {
        let (head, schema) = get(&proxy.address, &format!("/schemas/avro/{path}")).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.contains("content-type: application/json"), "{head}");
        let file = root().join(format!("proto-tests/golden/schemas/{name}.avsc"));
        let original = fs::read_to_string(file).unwrap();
        let (fields, rest) = original.split_once("\n  ],\n  \"name\"").unwrap();
        assert!(schema.starts_with(fields), "{path}: {schema}");
        assert!(schema.ends_with(rest), "{path}: {schema}");
        let count = |schema: &str| {
            let schema: Value = serde_json::from_str(schema).unwrap();
            schema["fields"].as_array().unwrap().len()
        };
        let schema_fields = serde_json::from_str::<Value>(&schema).unwrap()["fields"].clone();
        let new = &schema_fields.as_array().unwrap()[count(&original)..];
        let names: Vec<_> = new.iter().map(|f| f["name"].as_str().unwrap()).collect();
        assert_eq!(names, *added, "{path}");
        for field in new {
            let is_boolean = field["type"] == "boolean";
            let default = if is_boolean {
                json!(false)
            } else {
                json!(null)
            };
            assert_eq!(field.get("default"), Some(&default), "{path}: {field}");
            assert!(is_boolean || field["type"][0] == "null", "{path}: {field}");
        }
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn a_path_near_those_of_the_schemas_is_not_found_and_the_answer_lists_them() {
    let proxy = Proxy::start().await;
    for path in ["producer", "consumer/result", "producer/record/x", ""] {
        let (head, body) = get(&proxy.address, &format!("/schemas/avro/{path}")).await;
        assert!(head.starts_with("HTTP/1.1 404"), "{path}: {head}");
        for (known, ..) in ENDPOINTS {
            assert!(body.contains(&format!("/schemas/avro/{known}")), "{body}");
        }
    }
    proxy.stopped().await;
}
