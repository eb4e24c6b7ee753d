//! A file and the files that it includes, as one syntax tree.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use hocon::parser::{self, AstField, AstNode, Pos};
use hocon::{ParseError, ScalarValue};

use super::class_path;
use super::file_reference;
use super::source_map::SourceMap;
use crate::config::error::ConfigError;
use crate::config::java_properties;

/// No file is larger: it is read whole.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// How deep files may include each other.
const INCLUDES_MAX: usize = 16;

/// How many files are read in all.
const FILES_MAX: usize = 256;

/// The tree, whose line numbers are those of `sources`.
pub(super) struct Document {
    pub(super) root: AstNode,
    pub(super) sources: SourceMap,
    /// The lines of includes from the class path.
    pub(super) class_path_includes: Vec<usize>,
}

/// Reads a file and all that it includes.
pub(super) fn read(path: &Path) -> Result<Document, ConfigError> {
    let text = read_text(path)
        .map_err(|error| ConfigError::File(format!("{}: cannot read: {error}", path.display())))?;
    let mut reader = DocumentReader::default();
    let root = reader.parse(path, &text, &[])?;
    Ok(Document {
        root,
        sources: reader.sources,
        class_path_includes: reader.class_path_includes,
    })
}

/// A text file of reasonable size.
pub(in crate::config) fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?
        .take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)?;
    match read as u64 > FILE_BYTES_MAX {
        true => Err(io::Error::other("it is larger than 1 MiB")),
        false => Ok(text),
    }
}

#[derive(Default)]
struct DocumentReader {
    sources: SourceMap,
    files: usize,
    /// The files that are being read, each included by the one before it.
    stack: Vec<PathBuf>,
    class_path_includes: Vec<usize>,
}

impl DocumentReader {
    /// The tree of a text, which is an object, with its includes in their places.
    fn parse(
        &mut self,
        path: &Path,
        text: &str,
        included_in: &[String],
    ) -> Result<AstNode, ConfigError> {
        let lines_before = self.sources.add(path, text, included_in);
        self.files += 1;
        let has_extension = |extension: &str| path.extension().is_some_and(|e| e == extension);
        let mut root = match has_extension("properties") {
            true => properties_tree(text),
            false => {
                let mut class_path_includes = Vec::new();
                let root = parse_hocon(text, &mut class_path_includes).map_err(|error| {
                    let (path, fault) = (path.display(), without_values(&error.message));
                    ConfigError::File(format!("{path}:{}: {fault}", error.line))
                })?;
                let lines = class_path_includes.iter().map(|line| line + lines_before);
                self.class_path_includes.extend(lines);
                root
            }
        };
        if !matches!(root, AstNode::Object { .. }) {
            let fault = "the file must hold an object, not a list";
            return Err(ConfigError::File(format!("{}:1: {fault}", path.display())));
        }
        shift(&mut root, lines_before);
        self.stack.push(path.to_owned());
        self.put_includes(&mut root, &mut included_in.to_vec())?;
        self.stack.pop();
        Ok(root)
    }

    /// Replaces each include by the fields that it stands for.
    fn put_includes(
        &mut self,
        node: &mut AstNode,
        path: &mut Vec<String>,
    ) -> Result<(), ConfigError> {
        match node {
            AstNode::Object { fields, .. } => {
                for mut field in std::mem::take(fields) {
                    match &field.value {
                        AstNode::Include { .. } => {
                            fields.extend(self.included_fields(&field.value, path)?);
                        }
                        _ => {
                            let depth = path.len();
                            path.extend(field.key.iter().cloned());
                            self.put_includes(&mut field.value, path)?;
                            path.truncate(depth);
                            fields.push(field);
                        }
                    }
                }
                Ok(())
            }
            AstNode::Array { items: nodes, .. } | AstNode::Concat { nodes, .. } => nodes
                .iter_mut()
                .try_for_each(|node| self.put_includes(node, path)),
            _ => Ok(()),
        }
    }

    /// The fields of the files that an include names. Those that are absent are left out unless
    /// they are required. Without an extension there may be three, as HOCON has it.
    fn included_fields(
        &mut self,
        include: &AstNode,
        path: &[String],
    ) -> Result<Vec<AstField>, ConfigError> {
        let AstNode::Include {
            path: named,
            required,
            is_file,
            pos,
        } = include
        else {
            return Ok(Vec::new());
        };
        let place = self.sources.place(pos.line);
        let fault = |what: String| Err(ConfigError::File(format!("{place}: {what}")));
        if self.stack.len() > INCLUDES_MAX || self.files > FILES_MAX {
            return fault("the includes do not end".to_owned());
        }
        let directory = place.path.parent().unwrap_or(Path::new(""));
        let named = match is_file {
            true => PathBuf::from(named),
            false => directory.join(named),
        };
        let candidates = match named.extension() {
            Some(_) => vec![named.clone()],
            None => ["properties", "json", "conf"]
                .map(|extension| named.with_extension(extension))
                .to_vec(),
        };
        let mut fields = Vec::new();
        let mut found = false;
        for candidate in candidates {
            match read_text(&candidate) {
                Ok(text) => {
                    found = true;
                    let root = self.parse(&candidate, &text, path)?;
                    if let AstNode::Object { fields: more, .. } = root {
                        fields.extend(more);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    return fault(format!("cannot read {}: {error}", candidate.display()));
                }
            }
        }
        match *required && !found {
            true => fault(format!("there is no {}", named.display())),
            false => Ok(fields),
        }
    }
}

/// The tree of a text, without its includes from the class path, whose lines are added.
fn parse_hocon(text: &str, class_path_includes: &mut Vec<usize>) -> Result<AstNode, ParseError> {
    // A byte order mark, as some editors write it.
    let text = text.trim_start_matches('\u{feff}');
    let mut tokens = hocon::tokenize(&file_reference::quote(text))?;
    *class_path_includes = class_path::drop_includes(&mut tokens);
    parser::parse_tokens(&tokens)
}

/// What is wrong, without the texts that the parser repeats: they may be parts of a secret.
pub(super) fn without_values(message: &str) -> String {
    let mut parts = message.split('"');
    let mut shown = parts.next().unwrap_or_default().to_owned();
    while let Some(_hidden) = parts.next() {
        shown.push('…');
        shown.push_str(parts.next().unwrap_or_default());
    }
    shown
}

/// A Java properties file, whose names are paths.
fn properties_tree(text: &str) -> AstNode {
    let fields = java_properties::parse(text).into_iter().map(|property| {
        let pos = Pos {
            line: property.line,
            col: 1,
        };
        AstField {
            key: property.name.split('.').map(str::to_owned).collect(),
            value: AstNode::Scalar {
                value: ScalarValue::string(property.value),
                pos: pos.clone(),
                separator: false,
            },
            append: false,
            pos,
        }
    });
    AstNode::Object {
        fields: fields.collect(),
        pos: Pos { line: 1, col: 1 },
    }
}

/// Adds to all line numbers of a tree.
fn shift(node: &mut AstNode, lines: usize) {
    match node {
        AstNode::Object { fields, pos } => {
            pos.line += lines;
            for field in fields {
                field.pos.line += lines;
                shift(&mut field.value, lines);
            }
        }
        AstNode::Array { items: nodes, pos } | AstNode::Concat { nodes, pos } => {
            pos.line += lines;
            nodes.iter_mut().for_each(|node| shift(node, lines));
        }
        AstNode::Substitution { segments, pos, .. } => {
            pos.line += lines;
            segments
                .iter_mut()
                .for_each(|segment| segment.line += lines);
        }
        AstNode::Scalar { pos, .. } | AstNode::Include { pos, .. } => pos.line += lines,
    }
}
