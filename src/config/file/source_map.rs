//! Numbers the lines of all files through, so that one number names a file and a line of it.

use std::fmt;
use std::path::{Path, PathBuf};

/// A line of a config file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePlace {
    /// The file, as it was named.
    pub path: PathBuf,
    /// From 1 on.
    pub line: usize,
}

impl fmt::Display for FilePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.line)
    }
}

/// Every file that was read; one that is included twice stands here twice.
#[derive(Debug, Default)]
pub(super) struct SourceMap(Vec<MappedFile>);

#[derive(Debug)]
struct MappedFile {
    path: PathBuf,
    /// How many lines there are in the files before it.
    lines_before: usize,
    lines: usize,
    /// The path of the object that the file is included in.
    included_in: Vec<String>,
}

impl SourceMap {
    /// Adds a file; the result is what its own line numbers lack.
    pub(super) fn add(&mut self, path: &Path, text: &str, included_in: &[String]) -> usize {
        let last = self.0.last();
        let lines_before = last.map_or(0, |file| file.lines_before + file.lines);
        self.0.push(MappedFile {
            path: path.to_owned(),
            lines_before,
            // One more: the parser's place of what ends too early.
            lines: text.lines().count() + 2,
            included_in: included_in.to_vec(),
        });
        lines_before
    }

    /// The file and the line in it.
    pub(super) fn place(&self, line: usize) -> FilePlace {
        let file = self.file(line);
        FilePlace {
            path: file.map_or_else(PathBuf::new, |file| file.path.clone()),
            line: line - file.map_or(0, |file| file.lines_before).min(line),
        }
    }

    /// The path of the object that the line's file is included in.
    pub(super) fn included_in(&self, line: usize) -> &[String] {
        self.file(line).map_or(&[], |file| &file.included_in)
    }

    fn file(&self, line: usize) -> Option<&MappedFile> {
        let after = self.0.partition_point(|file| file.lines_before < line);
        self.0.get(after.saturating_sub(1))
    }
}
