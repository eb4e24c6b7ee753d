//! Where in a document each path gets its value.

use hocon::Segment;
use hocon::parser::AstNode;

use super::source_map::SourceMap;

/// All definitions of a document, in the order in which they override each other.
pub(super) struct KeyDefinitions(Vec<KeyDefinition>);

struct KeyDefinition {
    path: Vec<String>,
    line: usize,
    /// The path of `${?…}`, if that is the whole value: it defines nothing while that is unset.
    optional: Option<Vec<String>>,
}

impl KeyDefinitions {
    pub(super) fn of(root: &AstNode) -> Self {
        let mut definitions = Self(Vec::new());
        definitions.collect(root, &mut Vec::new());
        definitions
    }

    /// The fields of an object, and of the objects in it.
    fn collect(&mut self, node: &AstNode, path: &mut Vec<String>) {
        match node {
            AstNode::Object { fields, .. } => {
                for field in fields {
                    let depth = path.len();
                    path.extend(field.key.iter().cloned());
                    if !matches!(field.value, AstNode::Object { .. }) {
                        self.0.push(KeyDefinition {
                            path: path.clone(),
                            line: field.pos.line,
                            optional: optional_path(&field.value),
                        });
                    }
                    self.collect(&field.value, path);
                    path.truncate(depth);
                }
            }
            AstNode::Concat { nodes, .. } => {
                nodes.iter().for_each(|node| self.collect(node, path));
            }
            _ => {}
        }
    }

    /// The line that a value came from: the last that set the path itself, else an object
    /// around it.
    pub(super) fn line_of(&self, path: &[String], is_set: impl Fn(&[String]) -> bool) -> usize {
        let defines = |definition: &&KeyDefinition| match &definition.optional {
            Some(optional) => is_set(optional),
            None => true,
        };
        let defining = self.0.iter().rev().filter(|d| path.starts_with(&d.path));
        let defining: Vec<_> = defining.filter(defines).collect();
        let itself = defining.iter().find(|d| d.path.len() == path.len());
        itself.or(defining.first()).map_or(1, |d| d.line)
    }

    /// Whether the path, or something below it, is defined anywhere.
    fn contains(&self, path: &[String]) -> bool {
        self.0.iter().any(|d| d.path.starts_with(path))
    }

    /// The tree with the substitutions of files that are included in an object completed: they
    /// are looked up in that object first, then as they are.
    pub(super) fn with_included_paths(&self, mut root: AstNode, sources: &SourceMap) -> AstNode {
        self.complete(&mut root, sources);
        root
    }

    fn complete(&self, node: &mut AstNode, sources: &SourceMap) {
        match node {
            AstNode::Object { fields, .. } => fields
                .iter_mut()
                .for_each(|field| self.complete(&mut field.value, sources)),
            AstNode::Array { items: nodes, .. } | AstNode::Concat { nodes, .. } => nodes
                .iter_mut()
                .for_each(|node| self.complete(node, sources)),
            AstNode::Substitution { segments, pos, .. } => {
                let object = sources.included_in(pos.line);
                let whole = [object, &texts(segments)].concat();
                if !object.is_empty() && self.contains(&whole) {
                    let (line, col) = (pos.line, pos.col);
                    let segment = |text| Segment { text, line, col };
                    *segments = whole.into_iter().map(segment).collect();
                }
            }
            _ => {}
        }
    }
}

fn optional_path(value: &AstNode) -> Option<Vec<String>> {
    match value {
        AstNode::Substitution {
            segments,
            optional: true,
            ..
        } => Some(texts(segments)),
        _ => None,
    }
}

fn texts(segments: &[Segment]) -> Vec<String> {
    segments.iter().map(|s| s.text.clone()).collect()
}
