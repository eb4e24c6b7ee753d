//! The paths that a Rust source names, resolved as far as walls between modules need it.
//!
//! ```text
//! text ─▶ tokens without comments and literals ─▶ `use` trees and paths ─▶ from the crate's root
//! ```

/// A source file.
pub(super) struct SourceFile {
    /// From the repository's root, as `src/a/b.rs`.
    pub(super) path: String,
    /// Every path of two segments and more, and every leaf of a `use`.
    pub(super) paths: Vec<SourcePath>,
}

/// A path in a source.
#[derive(Debug)]
pub(super) struct SourcePath {
    pub(super) line: usize,
    /// As it is written, but for `use` trees, which are taken apart; `*` for all of a module.
    pub(super) segments: Vec<String>,
    /// From the root of the file's crate on, where it begins at `crate`, `self` or `super`.
    pub(super) absolute: Option<Vec<String>>,
}

/// What may stand before a path that begins with `::`, and is not a part of it.
const KEYWORDS_BEFORE_PATHS: &[&str] = &[
    "as", "break", "const", "dyn", "else", "for", "if", "impl", "in", "let", "match", "move",
    "mut", "ref", "return", "static", "where", "while", "yield",
];

/// The proxy's library, as its binary names it.
const OWN_NAME: &str = "kafka_websocket_proxy";

impl SourceFile {
    /// Reads a source; `path` says which module it is.
    pub(super) fn parse(path: &str, text: &str) -> Self {
        let tokens = tokenize(text);
        let mut reader = PathReader {
            tokens: &tokens,
            at: 0,
            module: module_of(path),
            inline: Vec::new(),
            depth: 0,
            paths: Vec::new(),
        };
        reader.read_all();
        Self {
            path: path.to_owned(),
            paths: reader.paths,
        }
    }

    /// The module of the crate's root that the file is, or is below.
    pub(super) fn top_module(&self) -> &str {
        let path = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let first = path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// A line about a path in this file.
    pub(super) fn fault(&self, path: &SourcePath, text: &str) -> String {
        format!("{}:{}: {text}", self.path, path.line)
    }
}

/// The module that a file is: `src/a/b.rs` and `src/a/b/mod.rs` are `a::b`.
fn module_of(path: &str) -> Vec<String> {
    let path = path.strip_prefix("src/").unwrap_or(path);
    let path = path.strip_suffix(".rs").unwrap_or(path);
    let mut module: Vec<_> = path.split('/').map(str::to_owned).collect();
    if ["mod", "lib", "main"].contains(&module[module.len() - 1].as_str()) {
        module.pop();
    }
    module
}

struct SourceToken<'a> {
    line: usize,
    text: &'a str,
}

/// Names, `::` and single marks; neither comments nor literals.
fn tokenize(text: &str) -> Vec<SourceToken<'_>> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let length = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            _ => literal(rest).unwrap_or_else(|| {
                let length = name(rest).max(if rest.starts_with("::") { 2 } else { 0 });
                let length = length.max(first.len_utf8());
                if !first.is_whitespace() {
                    let line = text[..at].matches('\n').count() + 1;
                    let text = &rest[..length];
                    tokens.push(SourceToken { line, text });
                }
                length
            }),
        };
        at += length;
    }
    tokens
}

/// The length of the name or number that a text begins with.
fn name(text: &str) -> usize {
    let ends = |c: char| !(c.is_alphanumeric() || c == '_');
    text.find(ends).unwrap_or(text.len())
}

/// The length of a block comment, in which others may be.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        match &text.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// The length of the string, character or lifetime that a text begins with, if it does.
fn literal(text: &str) -> Option<usize> {
    let prefix = ["br", "cr", "r", "b", "c", ""]
        .into_iter()
        .find(|prefix| text.starts_with(prefix) && is_quote(&text[prefix.len()..], prefix))?;
    let body = &text[prefix.len()..];
    let length = if prefix.ends_with('r') {
        let hashes = body.find('"')?;
        let end = format!("\"{}", "#".repeat(hashes));
        let from = hashes + 1;
        from + body[from..]
            .find(&end)
            .map_or(body.len() - from, |at| at + end.len())
    } else if body.starts_with('"') {
        quoted(body, b'"')
    } else {
        // `'a` is a lifetime unless a quote follows the one character.
        let second = body[1..].chars().next()?;
        let after = 1 + second.len_utf8();
        match second == '\\' || body[after..].starts_with('\'') {
            true => quoted(body, b'\''),
            false => 1 + name(&body[1..]),
        }
    };
    Some(prefix.len() + length)
}

fn is_quote(body: &str, prefix: &str) -> bool {
    match prefix.ends_with('r') {
        true => body.trim_start_matches('#').starts_with('"'),
        false => body.starts_with('"') || prefix != "c" && body.starts_with('\''),
    }
}

/// The length of what stands between two of these quotes, with them.
fn quoted(text: &str, quote: u8) -> usize {
    let mut at = 1;
    while at < text.len() {
        match text.as_bytes()[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

struct PathReader<'a> {
    tokens: &'a [SourceToken<'a>],
    at: usize,
    /// The module of what is read now.
    module: Vec<String>,
    /// The depths in braces of the inline modules that are open.
    inline: Vec<usize>,
    depth: usize,
    paths: Vec<SourcePath>,
}

impl PathReader<'_> {
    fn text(&self, ahead: usize) -> &str {
        self.tokens.get(self.at + ahead).map_or("", |t| t.text)
    }

    fn read_all(&mut self) {
        while self.at < self.tokens.len() {
            match (self.text(0), self.text(2)) {
                ("mod", "{") => {
                    let name = self.text(1).to_owned();
                    self.module.push(name);
                    self.depth += 1;
                    self.inline.push(self.depth);
                    self.at += 3;
                }
                ("{", _) => {
                    self.depth += 1;
                    self.at += 1;
                }
                ("}", _) => {
                    if self.inline.last() == Some(&self.depth) {
                        self.inline.pop();
                        self.module.pop();
                    }
                    self.depth = self.depth.saturating_sub(1);
                    self.at += 1;
                }
                // Not the `use<'a>` of a type.
                ("use", _) if self.text(1) != "<" => {
                    self.at += 1;
                    self.use_tree(Vec::new());
                }
                ("extern", _) if self.text(1) == "crate" => {
                    self.at += 2;
                    self.use_tree(Vec::new());
                }
                _ => self.path_in_code(),
            }
        }
    }

    /// Reads one tree, or a branch of one, up to what ends it.
    fn use_tree(&mut self, mut path: Vec<String>) {
        let line = self.tokens.get(self.at).map_or(0, |t| t.line);
        loop {
            match self.text(0) {
                "{" => {
                    self.at += 1;
                    while self.at < self.tokens.len() && self.text(0) != "}" {
                        self.use_tree(path.clone());
                        self.at += usize::from(self.text(0) == ",");
                    }
                    self.at += 1;
                    return;
                }
                "::" => self.at += 1,
                "as" => self.at += 2,
                "" | "," | "}" | ";" => break,
                segment => {
                    path.push(segment.to_owned());
                    self.at += 1;
                }
            }
        }
        // `a::{self}` is `a`.
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        self.push(line, path);
    }

    fn path_in_code(&mut self) {
        let line = self.tokens[self.at].line;
        let is_field = self.at > 0 && self.tokens[self.at - 1].text == ".";
        let mut path = Vec::new();
        while name(self.text(0)) > 0 {
            path.push(self.text(0).to_owned());
            self.at += 1;
            let keyword = KEYWORDS_BEFORE_PATHS.contains(&path[0].as_str());
            if keyword || self.text(0) != "::" || name(self.text(1)) == 0 {
                break;
            }
            self.at += 1;
        }
        match path.len() {
            0 => self.at += 1,
            1 => {}
            _ if is_field => {}
            _ => self.push(line, path),
        }
    }

    fn push(&mut self, line: usize, segments: Vec<String>) {
        if !segments.is_empty() {
            let absolute = self.resolve(&segments);
            self.paths.push(SourcePath {
                line,
                segments,
                absolute,
            });
        }
    }

    /// From the crate's root on; `*` there is the root itself.
    fn resolve(&self, segments: &[String]) -> Option<Vec<String>> {
        let (mut at, mut rest) = match segments[0].as_str() {
            "crate" | OWN_NAME => (Vec::new(), &segments[1..]),
            "self" => (self.module.clone(), &segments[1..]),
            "super" => (self.module.clone(), segments),
            _ => return None,
        };
        while let [first, others @ ..] = rest
            && first == "super"
        {
            at.pop();
            rest = others;
        }
        at.extend(rest.iter().cloned());
        if at.first().is_some_and(|first| first == "*") {
            at.clear();
        }
        Some(at)
    }
}
