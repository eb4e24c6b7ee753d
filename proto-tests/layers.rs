//! The direction in which modules may depend on one another, read from the sources.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::kafka::root;

/// Top to bottom: a module may use only modules of rows below its own.
const LAYERS: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["server"],
    &["cors"],
    &["http", "socket"],
    &["app"],
    &["config"],
    &["auth", "session"],
    &["codec"],
    &["broker"],
    &["kafka"],
    &[
        "alloc",
        "http_keep_alive",
        "metrics",
        "refusal",
        "runtime",
        "secret",
        "websocket",
    ],
];

/// A crate, and the only modules that may name it.
const CONFINED: &[(&str, &[&str])] = &[
    ("warp", &["server", "http", "socket"]),
    ("kafka_protocol", &["kafka", "broker"]),
];

#[test]
fn modules_use_only_the_layers_below_them() {
    let mut faults = Vec::new();
    for (path, module, source) in sources() {
        for (number, line) in code_lines(&source) {
            for used in names_after(line, "crate::") {
                let (Some(from), Some(to)) = (layer(&module), layer(used)) else {
                    if used != module && is_module(used) {
                        faults.push(format!("{path}:{number}: `{used}` has no layer"));
                    }
                    continue;
                };
                if used != module && to <= from {
                    faults.push(format!("{path}:{number}: {module} must not use {used}"));
                }
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn crates_stay_in_the_modules_they_are_confined_to() {
    let mut faults = Vec::new();
    for (path, module, source) in sources() {
        for (number, line) in code_lines(&source) {
            for (name, allowed) in CONFINED {
                let named = line.contains(&format!("{name}::"));
                if named && !allowed.contains(&module.as_str()) {
                    faults.push(format!("{path}:{number}: {name} in {module}"));
                }
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn every_module_has_a_layer() {
    let without: Vec<_> = sources()
        .into_iter()
        .filter(|(_, module, _)| module != "lib" && layer(module).is_none())
        .map(|(path, ..)| path)
        .collect();
    assert!(
        without.is_empty(),
        "give these a row in LAYERS: {without:?}"
    );
}

#[test]
fn only_the_allocator_has_unsafe_code() {
    let mut faults = Vec::new();
    for (path, module, source) in sources() {
        // Unit tests, too; not only what `code_lines` gives.
        for (number, line) in source.lines().enumerate() {
            let code = without_strings(line);
            let code = code.split("//").next().unwrap();
            let mut words = code.split(|c: char| !(c.is_alphanumeric() || c == '_'));
            if module != "alloc" && words.any(|word| ["unsafe", "unsafe_code"].contains(&word)) {
                faults.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// A line without what stands in quotes, as far as one line tells.
fn without_strings(line: &str) -> String {
    line.replace("\\\"", "")
        .split('"')
        .step_by(2)
        .collect::<Vec<_>>()
        .join("\"\"")
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

fn is_module(name: &str) -> bool {
    root().join("src").join(format!("{name}.rs")).exists()
}

/// Every source file: its path, its top-level module, its text.
fn sources() -> Vec<(String, String, String)> {
    let src = root().join("src");
    let mut files = Vec::new();
    walk(&src, &mut files);
    assert!(!files.is_empty());
    files
        .into_iter()
        .map(|file| {
            let relative = file.strip_prefix(&src).unwrap();
            let first = relative.iter().next().unwrap().to_str().unwrap();
            let module = first.strip_suffix(".rs").unwrap_or(first).to_owned();
            let text = fs::read_to_string(&file).unwrap();
            (format!("src/{}", relative.display()), module, text)
        })
        .collect()
}

fn walk(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

/// Lines without comments. Unit tests stand last in a file and may reach wherever they need.
fn code_lines(source: &str) -> impl Iterator<Item = (usize, &str)> {
    source
        .lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]"))
        .enumerate()
        .map(|(i, line)| (i + 1, line.trim()))
        .filter(|(_, line)| !line.starts_with("//"))
}

/// The identifiers that follow `prefix`, also in `crate::{a, b::c}`.
fn names_after<'a>(line: &'a str, prefix: &str) -> Vec<&'a str> {
    let identifier = |s: &'a str| {
        let end = s
            .find(|c: char| !(c.is_alphanumeric() || c == '_'))
            .unwrap_or(s.len());
        &s[..end]
    };
    let mut names = Vec::new();
    for (at, _) in line.match_indices(prefix) {
        let rest = &line[at + prefix.len()..];
        match rest.strip_prefix('{') {
            Some(list) => names.extend(list.split(',').map(|item| identifier(item.trim()))),
            None => names.push(identifier(rest)),
        }
    }
    names
}
