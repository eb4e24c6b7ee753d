//! Our schemas of Kafka's messages against Kafka's own definitions, which the `kafka-clients`
//! jar of each release carries as `common/message/*.json`.
//!
//! Compared is what a version has: its fields in order, each with its name, its type, whether
//! it may be null, and its tag. Every release is asked for every version that it knows.

use std::fs;
use std::io::ErrorKind;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::Command;

use kafka_client::protocol::schema::requests::{REQUEST_HEADER, request_schema};
use kafka_client::protocol::schema::{FieldSchema, FieldType, MessageSchema, VersionRange};
use kafka_client::protocol::versions::{APIS, ApiSpec};
use kafka_protocol::messages::ApiKey;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::kafka::jars_of;

/// Those whose jars `scripts/test` fetches. The newest names the fields.
const RELEASES: [&str; 3] = ["4.4", "3.9", "2.8"];

/// What a field was called before a later release renamed it: message, then, now; with `/` only
/// the field of that path, by the names of now, not another one of the name within a struct.
const RENAMED: [(&str, &str, &str); 11] = [
    ("FetchResponse", "PartitionResponses", "Partitions"),
    ("FetchResponse", "Partition", "PartitionIndex"),
    ("FetchResponse", "RecordSet", "Records"),
    // KIP-848.
    (
        "OffsetCommitRequest",
        "GenerationId",
        "GenerationIdOrMemberEpoch",
    ),
    // KIP-890.
    (
        "AddPartitionsToTxnRequest",
        "/TransactionalId",
        "V3AndBelowTransactionalId",
    ),
    (
        "AddPartitionsToTxnRequest",
        "/ProducerId",
        "V3AndBelowProducerId",
    ),
    (
        "AddPartitionsToTxnRequest",
        "/ProducerEpoch",
        "V3AndBelowProducerEpoch",
    ),
    ("AddPartitionsToTxnRequest", "/Topics", "V3AndBelowTopics"),
    (
        "AddPartitionsToTxnResponse",
        "/Results",
        "ResultsByTopicV3AndBelow",
    ),
    (
        "AddPartitionsToTxnResponse",
        "Results",
        "ResultsByPartition",
    ),
    (
        "AddPartitionsToTxnResponse",
        "/ResultsByTopicV3AndBelow/ResultsByPartition/ErrorCode",
        "PartitionErrorCode",
    ),
];

/// Tagged fields that versions got after they had been released, which KIP-482 allows:
/// message, field, the last of our releases that does not know it.
const TAGGED_LATER: [(&str, &str, &str); 1] = [
    // KIP-866.
    ("ApiVersionsResponse", "ZkMigrationReady", "2.8"),
];

#[test]
fn the_schema_of_every_response_is_kafkas_own() {
    let releases = RELEASES.map(Definitions::of);
    for ApiSpec {
        key,
        name,
        versions,
        response_schema,
    } in APIS
    {
        assert_eq!(response_schema.name, format!("{name}Response"));
        let sent = versions.lowest..=versions.highest;
        agrees_with_every_release(response_schema, *key, sent, &releases);
    }
}

#[test]
fn the_schema_of_every_request_to_the_in_memory_broker_is_kafkas_own() {
    let releases = RELEASES.map(Definitions::of);
    let mut compared = 0;
    for api in (0..128).filter_map(|key| ApiKey::try_from(key).ok()) {
        let Some(schema) = request_schema(api) else {
            continue;
        };
        assert_eq!(schema.name, format!("{api:?}Request"));
        let decoded = api.valid_versions().min..=api.valid_versions().max;
        agrees_with_every_release(schema, api as i16, decoded, &releases);
        compared += 1;
    }
    assert!(compared > 20, "{compared}");
}

#[test]
fn the_header_of_every_request_is_kafkas_own() {
    for definitions in RELEASES.map(Definitions::of) {
        let header = definitions.message("RequestHeader");
        for version in 1..=2 {
            let ours = Fields::of_schema("RequestHeader", REQUEST_HEADER, version);
            let theirs = Fields::of_definition(&header, version);
            let what = format!("version {version} in Kafka {}", definitions.release);
            assert_same(&ours, &theirs, &what);
        }
    }
}

/// Compares each version that a release knows, and sees to it that each of `used` is known
/// to one.
fn agrees_with_every_release(
    schema: &MessageSchema,
    key: i16,
    used: RangeInclusive<i16>,
    releases: &[Definitions],
) {
    let mut unknown: Vec<_> = used.clone().collect();
    for definitions in releases {
        let release = definitions.release;
        let Some(definition) = definitions.find(schema.name) else {
            // What is used of it is to be in another release.
            continue;
        };
        assert_eq!(definition["apiKey"], key, "{} in {release}", schema.name);
        let valid = versions(&definition["validVersions"]);
        for version in valid.lowest.max(*used.start())..=valid.highest {
            let what = format!("{} {version} in Kafka {release}", schema.name);
            let flexible = versions(&definition["flexibleVersions"]).contains(version);
            assert_eq!(
                schema.flexible_versions.contains(version),
                flexible,
                "{what}"
            );
            let mut ours = Fields::of_schema(schema.name, schema.fields, version);
            ours.remove_tagged_after(release);
            let theirs = Fields::of_definition(&definition, version);
            assert_same(&ours, &theirs, &what);
            unknown.retain(|used| *used != version);
        }
    }
    assert!(
        unknown.is_empty(),
        "no release knows {} {unknown:?}",
        schema.name
    );
}

/// Shows the first field in which they differ.
fn assert_same(ours: &Fields, theirs: &Fields, what: &str) {
    for at in 0..ours.fields.len().max(theirs.fields.len()) {
        assert_eq!(ours.fields.get(at), theirs.fields.get(at), "{what}");
    }
}

/// The definitions of one release, a file per message.
struct Definitions {
    release: &'static str,
    unpacked: TempDir,
}

impl Definitions {
    fn of(release: &'static str) -> Self {
        let unpacked = tempfile::tempdir().unwrap();
        let unpack = Command::new("jar")
            .arg("xf")
            .arg(clients_jar(release))
            .arg("common/message")
            .current_dir(&unpacked)
            .status()
            .expect("jar runs: `scripts/kafka need` installs a JDK");
        assert!(unpack.success(), "jar xf: {unpack}");
        Self { release, unpacked }
    }

    fn message(&self, name: &str) -> Value {
        let found = self.find(name);
        found.unwrap_or_else(|| panic!("{} has no {name}", self.release))
    }

    /// `None` if the release does not know the message.
    fn find(&self, name: &str) -> Option<Value> {
        let file = format!("common/message/{name}.json");
        let json = match fs::read_to_string(self.unpacked.path().join(&file)) {
            Ok(json) => json,
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            Err(error) => panic!("{file} of {}: {error}", self.release),
        };
        let parsed = serde_json::from_str(&without_comments(&json));
        Some(parsed.unwrap_or_else(|error| panic!("{file} of {}: {error}", self.release)))
    }
}

fn clients_jar(release: &str) -> PathBuf {
    let dir = jars_of(release);
    let jar = fs::read_dir(&dir)
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        .map(|file| file.unwrap().path())
        .find(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.starts_with("kafka-clients-") && name.ends_with(".jar")
        });
    jar.unwrap_or_else(|| {
        panic!(
            "no kafka-clients jar in {0}: delete {0} and run `scripts/kafka jars {release}`",
            dir.display()
        )
    })
}

/// Kafka's definitions have comments from `//` to the end of a line.
fn without_comments(json: &str) -> String {
    let mut kept = String::new();
    for line in json.lines() {
        let comment = line.match_indices("//").find(|(at, _)| {
            // Not within a string; no string in these files has an escaped quote.
            line[..*at].matches('"').count() % 2 == 0
        });
        kept.push_str(&line[..comment.map_or(line.len(), |(at, _)| at)]);
        kept.push('\n');
    }
    kept
}

/// As a definition writes them.
fn versions(text: &Value) -> VersionRange {
    match text.as_str() {
        None | Some("none") => VersionRange::NONE,
        Some(text) => VersionRange::parse(text),
    }
}

/// What one version of a message has, in order; a struct's fields follow it.
struct Fields<'a> {
    message: &'a str,
    version: i16,
    fields: Vec<FieldInVersion>,
}

#[derive(Debug, PartialEq)]
struct FieldInVersion {
    path: String,
    /// As a definition writes it, but for the names of structs.
    field_type: String,
    nullable: bool,
    tag: Option<u32>,
}

impl<'a> Fields<'a> {
    fn of_schema(message: &'a str, fields: &[FieldSchema], version: i16) -> Self {
        let mut all = Self::none(message, version);
        all.add_from_schema("", fields);
        all
    }

    fn of_definition(definition: &'a Value, version: i16) -> Self {
        let mut all = Self::none(definition["name"].as_str().unwrap(), version);
        all.add_from_definition("", definition, definition);
        all
    }

    fn none(message: &'a str, version: i16) -> Self {
        Self {
            message,
            version,
            fields: Vec::new(),
        }
    }

    fn add_from_schema(&mut self, path: &str, fields: &[FieldSchema]) {
        for field in fields {
            if !field.versions.contains(self.version) {
                continue;
            }
            let path = format!("{path}/{}", field.name);
            self.fields.push(FieldInVersion {
                path: path.clone(),
                field_type: type_name(&field.field_type),
                nullable: field.nullable_versions.contains(self.version),
                tag: field.tag,
            });
            let element = match field.field_type {
                FieldType::Array(element) => *element,
                single => single,
            };
            if let FieldType::Struct(fields) = element {
                self.add_from_schema(&path, fields);
            }
        }
    }

    /// Adds the fields of `of`: of a message, or of one of its structs.
    fn add_from_definition(&mut self, path: &str, of: &Value, message: &Value) {
        for field in of["fields"].as_array().unwrap() {
            if !versions(&field["versions"]).contains(self.version) {
                continue;
            }
            let path = self.path_now(path, field["name"].as_str().unwrap());
            let written = field["type"].as_str().unwrap();
            let element = written.trim_start_matches("[]");
            let is_struct = element.starts_with(char::is_uppercase);
            let field_type = match is_struct {
                true => written.replace(element, "struct"),
                false => written.to_owned(),
            };
            let tagged = versions(&field["taggedVersions"]).contains(self.version);
            self.fields.push(FieldInVersion {
                path: path.clone(),
                field_type,
                nullable: versions(&field["nullableVersions"]).contains(self.version),
                tag: tagged.then(|| field["tag"].as_u64().unwrap() as u32),
            });
            if is_struct {
                let common = || {
                    let mut structs = message["commonStructs"].as_array()?.iter();
                    structs.find(|common| common["name"] == element)
                };
                let fields = field.get("fields").map(|_| field).or_else(common);
                self.add_from_definition(&path, fields.unwrap(), message);
            }
        }
    }

    fn path_now(&self, path: &str, name: &str) -> String {
        let as_then = format!("{path}/{name}");
        let renamed = RENAMED.iter().find(|(message, then, _)| {
            *message == self.message && (*then == name || *then == as_then)
        });
        renamed.map_or(as_then, |(_, _, now)| format!("{path}/{now}"))
    }

    /// Removes what that release does not know yet.
    fn remove_tagged_after(&mut self, release: &str) {
        for (message, name, last_without) in TAGGED_LATER {
            if message == self.message && last_without == release {
                self.fields
                    .retain(|field| field.path != format!("/{name}") || field.tag.is_none());
            }
        }
    }
}

fn type_name(field_type: &FieldType) -> String {
    match field_type {
        FieldType::Array(element) => format!("[]{}", type_name(element)),
        FieldType::Struct(_) => "struct".to_owned(),
        plain => format!("{plain:?}").to_lowercase(),
    }
}
