//! The config file, in HOCON: from its text to the values of keys, each with its place.
//!
//! ```text
//! text ─▶ file references quoted ─▶ AST, files that it includes put in their places ─▶ values
//!                                    └─▶ definitions: which line a key got its value from ◀─┘
//! ```
//!
//! `hocon-parser` reads and resolves; its values have no places. Its syntax tree has, so the
//! includes are put into the tree here and each key's place is looked up there.

mod class_path;
mod definitions;
mod document;
mod file_reference;
mod source_map;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use hocon::HoconValue;
use hocon::resolver::{self, InternalResolveOptions};

use super::error::ConfigError;
use definitions::KeyDefinitions;
pub(super) use document::read_text;
use document::without_values;
pub use source_map::FilePlace;

/// Where the file is looked for when neither `--config` nor [`FILE_VARIABLE`] names one.
pub(crate) const DEFAULT_FILE: &str = "/etc/kafka-websocket-proxy/application.conf";

/// Names the file.
pub(crate) const FILE_VARIABLE: &str = "WSPROXY_CONFIG";

/// The object that holds all keys of the proxy.
const PROXY_PATH: [&str; 3] = ["kafka", "ws", "proxy"];

/// What a file says.
#[derive(Debug, Default)]
pub(super) struct FileContent {
    /// The values of keys, named without `kafka.ws.proxy.`.
    pub(super) values: Vec<FileValue>,
    /// Keys below `kafka` that are not the proxy's, by their whole names.
    pub(super) strays: Vec<FileValue>,
    /// Sections of others, such as `akka`.
    pub(super) sections: Vec<String>,
    /// Includes of what is on a class path.
    pub(super) class_path_includes: Vec<FilePlace>,
}

/// A key, its value and its place.
#[derive(Debug)]
pub(super) struct FileValue {
    pub(super) key: String,
    pub(super) text: String,
    pub(super) place: FilePlace,
}

/// Reads a file, with the variables that its substitutions may name.
///
/// # Errors
/// [`ConfigError::File`] when it cannot be read, does not parse, or does not resolve.
pub(super) fn read(
    path: &Path,
    variables: &[(String, String)],
) -> Result<FileContent, ConfigError> {
    let document = document::read(path)?;
    let definitions = KeyDefinitions::of(&document.root);
    let root = definitions.with_included_paths(document.root, &document.sources);

    let variables: HashMap<_, _> = variables.iter().cloned().collect();
    let options = InternalResolveOptions::new(variables.clone());
    let resolved = resolver::resolve(root, &options).map_err(|error| {
        let place = document.sources.place(error.line);
        let fault = without_values(&error.message);
        let object = match error.path.is_empty() {
            true => String::new(),
            false => format!(" (${{{}}})", error.path),
        };
        ConfigError::File(format!("{place}: {fault}{object}"))
    })?;

    let class_path_includes = document.class_path_includes.iter();
    let class_path_includes = class_path_includes.map(|line| document.sources.place(*line));
    let class_path_includes = class_path_includes.collect();
    let mut leaves = Leaves::default();
    leaves.collect(&mut Vec::new(), &resolved);
    let is_set = |path: &[String]| {
        variables.contains_key(&path.join(".")) || value_at(&resolved, path).is_some()
    };
    let mut values = BTreeMap::new();
    let (mut strays, mut sections) = (Vec::new(), Vec::new());
    for (path, text) in leaves.0 {
        if path[0] != PROXY_PATH[0] {
            if !sections.contains(&path[0]) {
                sections.push(path[0].clone());
            }
            continue;
        }
        let line = definitions.line_of(&path, is_set);
        let place = document.sources.place(line);
        match path.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [a, b, c, ref rest @ ..] if [a, b, c] == PROXY_PATH && !rest.is_empty() => {
                let key = rest.join(".");
                // A name with dots in quotes, and the same as nested objects: the later one.
                let replaces = values.get(&key).is_none_or(|(before, _)| *before <= line);
                if replaces {
                    values.insert(key.clone(), (line, FileValue { key, text, place }));
                }
            }
            ref whole => {
                let key = whole.join(".");
                strays.push(FileValue { key, text, place });
            }
        }
    }
    Ok(FileContent {
        values: values.into_values().map(|(_, value)| value).collect(),
        strays,
        sections,
        class_path_includes,
    })
}

/// A value as a flag has it, from HOCON: a list, an object with keys below `key`, or a string in
/// quotes. `None`: the text is none of these, and stands for itself.
pub(super) fn parse_define(key: &str, text: &str) -> Option<Vec<(String, String)>> {
    if !text.starts_with(['[', '{', '"']) {
        return None;
    }
    let text = file_reference::quote(&format!("value = {text}\n"));
    let tree = hocon::parser::parse_tokens(&hocon::tokenize(&text).ok()?).ok()?;
    let resolved = resolver::resolve(tree, &InternalResolveOptions::new(HashMap::new())).ok()?;
    let HoconValue::Object(fields) = &resolved else {
        return None;
    };
    // More than one: a comma in the text ended the value.
    let [(_, value)] = fields.iter().collect::<Vec<_>>()[..] else {
        return None;
    };
    let mut leaves = Leaves::default();
    leaves.collect(&mut vec![key.to_owned()], value);
    let values = leaves.0.into_iter();
    Some(values.map(|(path, text)| (path.join("."), text)).collect())
}

/// Paths of values that are no objects, with the values as texts.
#[derive(Default)]
struct Leaves(Vec<(Vec<String>, String)>);

impl Leaves {
    fn collect(&mut self, path: &mut Vec<String>, value: &HoconValue) {
        match value {
            HoconValue::Object(fields) => {
                for (name, value) in fields {
                    path.push(name.clone());
                    self.collect(path, value);
                    path.pop();
                }
            }
            other => self
                .0
                .extend(text_of(other).map(|text| (path.clone(), text))),
        }
    }
}

/// A value as a flag would have it; `None` for null, which unsets a key.
fn text_of(value: &HoconValue) -> Option<String> {
    match value {
        HoconValue::Scalar(scalar) => (!value.is_null()).then(|| scalar.raw.clone()),
        HoconValue::Array(items) if items.iter().any(|item| item.as_object().is_some()) => {
            Some(json_of(value).to_string())
        }
        HoconValue::Array(items) => {
            let items: Vec<_> = items.iter().filter_map(text_of).collect();
            Some(items.join(","))
        }
        HoconValue::Object(fields) => {
            let fields = fields.iter().filter_map(|(name, value)| {
                let text = text_of(value)?;
                Some(format!("{name}={text}"))
            });
            Some(format!("{{{}}}", fields.collect::<Vec<_>>().join(",")))
        }
        _ => None,
    }
}

/// A list of objects, whose texts may have commas, as JSON: its scalars are texts.
fn json_of(value: &HoconValue) -> serde_json::Value {
    match value {
        HoconValue::Array(items) => items.iter().map(json_of).collect(),
        HoconValue::Object(fields) => {
            let fields = fields.iter().filter(|(_, value)| !value.is_null());
            fields
                .map(|(name, value)| (name.clone(), json_of(value)))
                .collect()
        }
        other => text_of(other).into(),
    }
}

fn value_at<'a>(root: &'a HoconValue, path: &[String]) -> Option<&'a HoconValue> {
    path.iter()
        .try_fold(root, |value, name| value.as_object()?.get(name))
}

/// [`DEFAULT_FILE`], if it exists.
pub(crate) fn default_file() -> Option<PathBuf> {
    let path = PathBuf::from(DEFAULT_FILE);
    path.exists().then_some(path)
}

#[cfg(test)]
mod tests;
