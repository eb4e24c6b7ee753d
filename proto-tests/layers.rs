//! What may use what, where Cargo does not already see to it: the order of the proxy's own
//! modules, read from the sources, and what the manifests of its crates may name.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::kafka::root;

/// The proxy's modules, top to bottom: one may use only modules of rows below its own.
const LAYERS: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["server"],
    &["cors"],
    &["routes", "socket"],
    &["app"],
    &["config"],
    &["codec"],
    &["http_error", "http_keep_alive", "secret"],
];

/// A crate, and the only modules of the proxy that may name it.
const CONFINED: &[(&str, &[&str])] = &[("warp", &["server", "routes", "socket"])];

/// The folder of each crate below the proxy, and which of our crates it may depend on.
const CRATES: &[(&str, &[&str])] = &[
    ("broker", &["kafka-client", "runtime"]),
    ("kafka", &["runtime"]),
    ("websocket", &[]),
    ("runtime", &[]),
    ("alloc", &[]),
];

/// A crate of others, and the only folders whose crates may depend on it; `""` is the proxy.
const DEPENDENTS: &[(&str, &[&str])] = &[
    ("kafka-protocol", &["kafka", "broker"]),
    ("warp", &[""]),
    ("serde_json", &[""]),
];

#[test]
fn modules_use_only_the_layers_below_them() {
    let mut faults = Vec::new();
    for source in sources() {
        for (line, used) in source.modules_used() {
            let (from, to) = (layer(&source.module), layer(&used));
            if source.module == "lib" || used == source.module || !is_module(&used) {
                continue;
            }
            if to.is_none() || to <= from {
                let Source { path, module, .. } = &source;
                faults.push(format!("{path}:{line}: {module} must not use {used}"));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn crates_stay_in_the_modules_they_are_confined_to() {
    let mut faults = Vec::new();
    for Source { path, module, code } in sources() {
        for (name, allowed) in CONFINED {
            for (at, _) in code.match_indices(&format!("{name}::")) {
                let part_of_a_name =
                    code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
                if !part_of_a_name && !allowed.contains(&module.as_str()) {
                    let line = line_of(&code, at);
                    faults.push(format!("{path}:{line}: {name} in {module}"));
                }
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn consuming_sockets_see_nothing_of_the_kafka_client_but_its_consumer() {
    const CRATE: &str = "kafka_client::";
    let mut seen = 0;
    let mut faults = Vec::new();
    for Source { path, code, .. } in sources() {
        if !path.starts_with("src/socket/consume") {
            continue;
        }
        for (at, _) in code.match_indices(CRATE) {
            seen += 1;
            let named = &code[at + CRATE.len()..];
            if !named.starts_with("consumer::") && !named.starts_with("TopicPartition;") {
                let line = line_of(&code, at);
                let named = named.lines().next().unwrap_or_default();
                faults.push(format!("{path}:{line}: {CRATE}{named}"));
            }
        }
    }
    assert!(seen > 0, "the path has changed");
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn the_tables_name_every_module_and_crate_and_nothing_else() {
    let named: BTreeSet<String> = LAYERS.concat().into_iter().map(str::to_owned).collect();
    assert_eq!(named.len(), LAYERS.concat().len(), "a module stands twice");
    let mut there: BTreeSet<String> = sources().into_iter().map(|s| s.module).collect();
    there.remove("lib");
    assert_eq!(named, there, "modules of the proxy");
    for (name, modules) in CONFINED {
        let known = modules.iter().all(|module| named.contains(*module));
        assert!(known, "{name}: {modules:?}");
    }

    let named: BTreeSet<&str> = CRATES.iter().map(|(folder, _)| *folder).collect();
    let there: Vec<String> = crate_folders();
    let there: BTreeSet<&str> = there.iter().map(String::as_str).collect();
    assert_eq!(named, there, "crates in src/");
    for (name, folders) in DEPENDENTS {
        for folder in *folders {
            let has = dependencies(folder).contains(*name);
            assert!(has, "{name} is no dependency of src/{folder}");
        }
    }
}

#[test]
fn crates_depend_only_on_what_is_below_them() {
    let ours: BTreeSet<String> = CRATES.iter().map(|(folder, _)| package(folder)).collect();
    for (folder, allowed) in CRATES {
        for dependency in dependencies(folder) {
            let fault = ours.contains(&dependency) && !allowed.contains(&dependency.as_str());
            assert!(!fault, "src/{folder} must not depend on {dependency}");
        }
    }
    for (name, allowed) in DEPENDENTS {
        for folder in CRATES.iter().map(|(folder, _)| *folder).chain([""]) {
            let fault = dependencies(folder).contains(*name) && !allowed.contains(&folder);
            assert!(!fault, "src/{folder} must not depend on {name}");
        }
    }
}

/// `forbid` cannot be taken back by an attribute in the sources.
#[test]
fn unsafe_code_is_forbidden_in_all_crates_but_the_allocator() {
    let workspace = section(&manifest(""), "[workspace.lints.rust]");
    let forbids = |line: &String| line.starts_with("unsafe_code = \"forbid\"");
    assert!(workspace.iter().any(forbids), "{workspace:?}");
    for folder in CRATES.iter().map(|(folder, _)| *folder).chain([""]) {
        let lints = section(&manifest(folder), "[lints]");
        let inherits = lints.contains(&"workspace = true".to_owned());
        assert_eq!(inherits, folder != "alloc", "src/{folder}: {lints:?}");
    }
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

/// Whether the proxy has a module of that name, in the tables or not.
fn is_module(name: &str) -> bool {
    let file = root().join("src").join(format!("{name}.rs"));
    file.exists() && name != "lib"
}

/// A source file of the proxy, with its unit tests.
struct Source {
    path: String,
    /// Its top-level module.
    module: String,
    /// Its text, with neither comments nor what stands in quotes. Lines stay where they are.
    code: String,
}

impl Source {
    /// The top-level modules that are named in paths from the crate's root, and in which lines.
    fn modules_used(&self) -> Vec<(usize, String)> {
        let mut used = Vec::new();
        for (at, prefix) in self.code.match_indices("crate::") {
            let rest = &self.code[at + prefix.len()..];
            let line = line_of(&self.code, at);
            used.extend(first_names(rest).into_iter().map(|name| (line, name)));
        }
        // From src/a/b.rs, `super::super::` is the root, too.
        let to_root = "super::".repeat(self.path.split('/').count() - 1);
        for (at, prefix) in self.code.match_indices(&to_root) {
            let rest = self.code[at + prefix.len()..].trim_start_matches("super::");
            let line = line_of(&self.code, at);
            used.extend(first_names(rest).into_iter().map(|name| (line, name)));
        }
        used
    }
}

/// The first name of each path in `a::b` or in `{a::b, c::{d, e}}`.
fn first_names(rest: &str) -> Vec<String> {
    let name = |text: &str| {
        let ends = |c: char| !(c.is_alphanumeric() || c == '_');
        text.split(ends).next().unwrap_or_default().to_owned()
    };
    if !rest.starts_with('{') {
        return vec![name(rest)];
    }
    let (mut names, mut depth, mut begin) = (Vec::new(), 0, 1);
    for (at, c) in rest.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 || depth == 1 && c == ',' {
            names.push(name(rest[begin..at].trim_start()));
            begin = at + 1;
        }
        if depth == 0 {
            break;
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Every source file of the proxy itself.
fn sources() -> Vec<Source> {
    let src = root().join("src");
    let mut files = Vec::new();
    walk(&src, &mut files);
    let sources = files.into_iter().map(|file| {
        let relative = file.strip_prefix(&src).unwrap();
        let first = relative.iter().next().unwrap().to_str().unwrap();
        Source {
            path: format!("src/{}", relative.display()),
            module: first.strip_suffix(".rs").unwrap_or(first).to_owned(),
            code: code_of(&fs::read_to_string(&file).unwrap()),
        }
    });
    sources.collect()
}

/// The Rust files in a folder and below, without those of other crates.
fn walk(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.join("Cargo.toml").exists() {
            walk(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

/// Rust without its line comments and without what stands in quotes, as far as a line tells.
fn code_of(text: &str) -> String {
    let line = |line: &str| {
        let unquoted = line.replace("\\\"", "");
        let unquoted: Vec<&str> = unquoted.split('"').step_by(2).collect();
        let code = unquoted.join("\"\"");
        code.split("//").next().unwrap_or_default().to_owned()
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// The folders in src/ that hold a crate.
fn crate_folders() -> Vec<String> {
    let entries = fs::read_dir(root().join("src")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let crates = paths.filter(|path| path.join("Cargo.toml").exists());
    let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    crates.map(name).collect()
}

/// The manifest of the crate in src/`folder`, or of the proxy.
fn manifest(folder: &str) -> String {
    let dir = if folder.is_empty() {
        root().to_owned()
    } else {
        root().join("src").join(folder)
    };
    fs::read_to_string(dir.join("Cargo.toml")).unwrap()
}

/// The lines of a manifest's section.
fn section(manifest: &str, heading: &str) -> Vec<String> {
    let lines = manifest.lines().skip_while(|line| line.trim() != heading);
    let lines = lines.skip(1).take_while(|line| !line.starts_with('['));
    lines.map(|line| line.trim().to_owned()).collect()
}

fn package(folder: &str) -> String {
    let package = section(&manifest(folder), "[package]");
    let name = package.iter().find_map(|line| line.strip_prefix("name = "));
    name.unwrap().trim_matches('"').to_owned()
}

/// What a crate depends on, but for its tests.
fn dependencies(folder: &str) -> BTreeSet<String> {
    let manifest = manifest(folder);
    let headings = manifest.lines().filter(|line| {
        let heading = line.starts_with('[') && line.ends_with("dependencies]");
        heading && !line.contains("dev-") && !line.contains("workspace.")
    });
    let lines = headings.flat_map(|heading| section(&manifest, heading));
    let name = |line: String| {
        let name = line.split(['.', ' ', '=']).next()?.to_owned();
        (!name.is_empty() && !name.starts_with('#')).then_some(name)
    };
    lines.filter_map(name).collect()
}
