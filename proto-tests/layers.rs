//! What may use what, where Cargo does not already see to it: the order of the proxy's own
//! modules, read from the sources, and what each crate may depend on.

mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use crate::support::kafka::root;
use source::{SourceFile, SourcePath};

/// The proxy's modules, top to bottom: one may use only modules of rows below its own.
const LAYERS: &[&[&str]] = &[
    &["main"],
    &["cli", "first_steps"],
    &["server"],
    &["cors", "metrics_reporter"],
    &["routes", "socket"],
    &["app", "broker_resolution"],
    &["dynamic_limits"],
    &[
        "auth",
        "avro_schemas",
        "healthcheck",
        "log",
        "quotas",
        "session",
        "topic_access",
    ],
    &["state_log"],
    &["config", "metrics"],
    &["codec"],
    &[
        "descriptors",
        "http_error",
        "http_keep_alive",
        "http_stream",
        "near_miss",
        "user_token",
    ],
];

/// A crate, and the only modules of the proxy that may name it.
const CONFINED: &[(&str, &[&str])] = &[
    ("apache_avro", &["codec"]),
    ("clap", &["cli"]),
    ("hocon", &["config"]),
    ("hyper", &["server", "cors", "http_keep_alive", "socket"]),
    ("hyper_util", &["server", "http_keep_alive", "socket"]),
    ("kerberos", &["config"]),
    ("memory_broker", &["main"]),
    ("oauth", &["config"]),
    (
        "openid",
        &["app", "auth", "config", "session", "user_token"],
    ),
    ("prometheus_client", &["metrics"]),
    ("prost", &["metrics"]),
    ("schema_registry", &["avro_schemas", "config"]),
    ("warp", &["server", "routes", "socket"]),
    ("websocket", &["socket"]),
];

/// Each crate, with its folder and all that it depends on. Its tests may depend on more.
const CRATES: &[(&str, &str, &[&str])] = &[
    (
        "kafka-websocket-proxy",
        "",
        &[
            "apache-avro",
            "base64",
            "bytes",
            "clap",
            "flate2",
            "form_urlencoded",
            "futures-util",
            "hocon-parser",
            "http",
            "hyper",
            "hyper-util",
            "ipnet",
            "itoa",
            "kafka-client",
            "kerberos",
            "memory-broker",
            "oauth",
            "openid",
            "percent-encoding",
            "prometheus-client",
            "prost",
            "runtime",
            "rustix",
            "rustls",
            "schema-registry",
            "secret",
            "serde",
            "serde_json",
            "sd-notify",
            "sha1",
            "strsim",
            "thiserror",
            "thread-cached-alloc",
            "tls",
            "tokio",
            "tokio-rustls",
            "tokio-util",
            "tracing",
            "tracing-subscriber",
            "warp",
            "websocket",
        ],
    ),
    (
        "memory-broker",
        "src/broker",
        &[
            "bytes",
            "crc32c",
            "kafka-client",
            "kafka-protocol",
            "runtime",
            "thiserror",
            "tokio",
            "tokio-util",
            "tracing",
            "uuid",
        ],
    ),
    (
        "kafka-client",
        "src/kafka",
        &[
            "base64",
            "bytes",
            "crc32c",
            "flate2",
            "futures-util",
            "getrandom",
            "hmac",
            "kafka-protocol",
            "lz4_flex",
            "pbkdf2",
            "runtime",
            "rustls",
            "secret",
            "sha2",
            "snap",
            "structured-zstd",
            "subtle",
            "thiserror",
            "tokio",
            "tokio-rustls",
            "tokio-util",
            "tracing",
            "uuid",
            "zeroize",
        ],
    ),
    (
        "websocket",
        "src/websocket",
        &["base64", "bytes", "flate2", "headers", "http", "thiserror"],
    ),
    (
        "schema-registry",
        "src/registry",
        &[
            "base64",
            "bytes",
            "futures-util",
            "http",
            "https-client",
            "percent-encoding",
            "runtime",
            "serde",
            "serde_json",
            "thiserror",
            "tls",
            "tokio",
            "tokio-util",
            "tracing",
        ],
    ),
    (
        "kerberos",
        "src/kerberos",
        &[
            "aes",
            "cts",
            "der",
            "futures-util",
            "getrandom",
            "hmac",
            "kafka-client",
            "runtime",
            "secret",
            "sha1",
            "sha2",
            "subtle",
            "tokio",
            "tracing",
            "zeroize",
        ],
    ),
    (
        "oauth",
        "src/oauth",
        &[
            "base64",
            "bytes",
            "form_urlencoded",
            "futures-util",
            "http",
            "https-client",
            "kafka-client",
            "percent-encoding",
            "runtime",
            "rustls",
            "secret",
            "serde",
            "serde_json",
            "tokio",
            "tokio-util",
            "tracing",
        ],
    ),
    (
        "openid",
        "src/openid",
        &[
            "base64",
            "bytes",
            "graviola",
            "http",
            "https-client",
            "runtime",
            "rustls",
            "secret",
            "serde",
            "serde_json",
            "thiserror",
            "tokio",
            "tokio-util",
            "tracing",
        ],
    ),
    (
        "https-client",
        "src/https",
        &[
            "bytes",
            "http",
            "http-body-util",
            "hyper",
            "hyper-rustls",
            "hyper-util",
            "rustls",
            "tokio",
            "tokio-util",
        ],
    ),
    (
        "tls",
        "src/tls",
        &[
            "base64",
            "p12-keystore",
            "pkcs8",
            "rustls",
            "rustls-graviola",
            "rustls-native-certs",
            "secret",
            "sha1",
            "thiserror",
            "webpki-roots",
            "x509-parser",
            "zeroize",
        ],
    ),
    ("secret", "src/secret", &["subtle", "zeroize"]),
    ("fuzzing", "proto-tests/fuzz", &["allocation-counter"]),
    (
        "runtime",
        "src/runtime",
        &["futures-util", "tokio", "tracing"],
    ),
    ("thread-cached-alloc", "src/alloc", &[]),
];

/// What the crate `websocket`, which does no I/O, must not name.
const IO: &[&str] = &["fs", "io", "net", "process", "thread", "time"];

#[test]
fn modules_use_only_the_layers_below_them() {
    assert_none(proxy_sources().iter().flat_map(layer_faults));
}

#[test]
fn crates_stay_in_the_modules_they_are_confined_to() {
    let sources = proxy_sources();
    let product = sources.iter().filter(|source| !is_test(source));
    assert_none(product.flat_map(confinement_faults));
}

#[test]
fn consuming_sockets_see_nothing_of_the_kafka_client_but_its_consumer() {
    let sources = proxy_sources();
    let consuming =
        |source: &&SourceFile| source.path.starts_with("src/socket/consume") && !is_test(source);
    assert!(
        sources.iter().any(|s| consuming(&s)),
        "the path has changed"
    );
    assert_none(sources.iter().filter(consuming).flat_map(consumer_faults));
}

#[test]
fn websocket_frames_and_handshakes_do_no_io() {
    assert_none(sources_in("src/websocket").iter().flat_map(io_faults));
}

#[test]
fn what_crosses_a_wall_is_seen_however_it_is_written() {
    let faults_of = |path: &str, text: &str| {
        let source = SourceFile::parse(path, text);
        let faults = layer_faults(&source).into_iter();
        let faults = faults.chain(confinement_faults(&source));
        let of_consumer = path.starts_with("src/socket/consume");
        let faults = faults.chain(consumer_faults(&source).into_iter().filter(|_| of_consumer));
        let of_websocket = path.starts_with("src/websocket/");
        let io = io_faults(&source).into_iter().filter(|_| of_websocket);
        faults.chain(io).collect::<Vec<_>>()
    };
    for (path, text) in [
        ("src/app.rs", "use crate::server::run;"),
        (
            "src/app.rs",
            "use crate::{config::Config, server::{self, run}};",
        ),
        ("src/app.rs", "fn f() { crate::server::run() }"),
        ("src/app.rs", "use super::server;"),
        ("src/app/mod.rs", "use super::server;"),
        ("src/app/mod.rs", "use crate::server;"),
        ("src/app/registry.rs", "use super::super::server;"),
        ("src/app.rs", "mod tests { use super::super::server::run; }"),
        ("src/app.rs", "use crate::{self as c};"),
        ("src/app.rs", "use crate as c;"),
        ("src/app.rs", "use crate::*;"),
        ("src/app.rs", "use kafka_websocket_proxy::server;"),
        ("src/app.rs", "use super::{self as up};"),
        ("src/app.rs", "const A: char = '\"'; use crate::server;"),
        ("src/app.rs", "const A: u8 = b'\"'; use crate::server;"),
        (
            "src/app.rs",
            "const A: &str = \"// \\\" \"; use crate::server;",
        ),
        (
            "src/app.rs",
            "const A: &str = r#\"\"\"#; use crate::server;",
        ),
        ("src/app.rs", "fn f<'a>(a: &'a str) {} use crate::server;"),
        ("src/app.rs", "/* /* */ */ use crate::server;"),
        ("src/codec.rs", "use warp as w;"),
        ("src/codec.rs", "use warp;"),
        ("src/codec.rs", "use {bytes::Bytes, warp::Filter};"),
        ("src/codec.rs", "fn f(a: impl ::warp::Filter) {}"),
        ("src/codec.rs", "extern crate warp;"),
        ("src/codec.rs", "use hyper::Request;"),
        ("src/config.rs", "use clap::Arg;"),
        ("src/server.rs", "use memory_broker::MemoryBroker;"),
        ("src/server.rs", "fn f() { websocket::handshake::accept() }"),
        ("src/socket/consume.rs", "use kafka_client as k;"),
        ("src/socket/consume.rs", "use kafka_client::{self};"),
        ("src/socket/consume.rs", "use kafka_client::*;"),
        (
            "src/socket/consume.rs",
            "use kafka_client::{consumer::Chunk, Cluster};",
        ),
        (
            "src/socket/consume/chunk.rs",
            "use kafka_client::producer::Producer;",
        ),
        ("src/websocket/frame.rs", "use std::net::TcpStream;"),
        (
            "src/websocket/frame.rs",
            "use std::{fmt, io::{self, Read}};",
        ),
        ("src/websocket/frame.rs", "use std as s;"),
        ("src/websocket/frame.rs", "fn f() { std::thread::sleep(d) }"),
    ] {
        assert!(!faults_of(path, text).is_empty(), "{path}: {text}");
    }
    for (path, text) in [
        ("src/app.rs", "use crate::config::Config; use super::codec;"),
        ("src/app.rs", "use self::registry::SocketRegistry;"),
        (
            "src/app.rs",
            "// use crate::server;\n/* use warp::Filter; */",
        ),
        ("src/app.rs", "const A: &str = \"crate::server\";"),
        (
            "src/app/registry.rs",
            "use super::App; mod tests { use super::super::App; }",
        ),
        (
            "src/config.rs",
            "struct A { websocket: u8 } fn f(a: A) { a.websocket }",
        ),
        (
            "src/socket/consume.rs",
            "use kafka_client::consumer::{self, Chunk};",
        ),
        ("src/websocket/frame.rs", "use std::{fmt, mem};"),
    ] {
        assert!(faults_of(path, text).is_empty(), "{path}: {text}");
    }
}

#[test]
fn the_tables_name_every_module_and_crate_and_nothing_else() {
    let named: BTreeSet<String> = LAYERS.concat().into_iter().map(str::to_owned).collect();
    assert_eq!(named.len(), LAYERS.concat().len(), "a module stands twice");
    let sources = proxy_sources();
    let modules = sources.iter().map(|source| source.top_module().to_owned());
    let there: BTreeSet<String> = modules.filter(|module| module != "lib").collect();
    assert_eq!(named, there, "modules of the proxy");
    for (name, modules) in CONFINED {
        for module in *modules {
            let is_it = |source: &&SourceFile| source.top_module() == *module;
            let mut paths = sources.iter().filter(is_it).flat_map(|s| &s.paths);
            let names = paths.any(|path| path.segments[0] == *name);
            assert!(names, "{module} does not name {name}");
        }
    }
}

#[test]
fn each_crate_depends_on_what_the_table_says_and_on_nothing_else() {
    let packages = Package::all();
    let there: BTreeSet<_> = packages.keys().map(String::as_str).collect();
    let named: BTreeSet<_> = CRATES.iter().map(|(name, ..)| *name).collect();
    assert_eq!(named, there, "crates of the workspace");
    for (name, folder, allowed) in CRATES {
        let package = &packages[*name];
        let manifest = root().join(folder).join("Cargo.toml");
        assert_eq!(package.manifest, manifest, "{name}");
        let allowed: BTreeSet<_> = allowed.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(package.dependencies, allowed, "dependencies of {name}");
    }
}

/// `forbid` cannot be taken back by an attribute in the sources.
#[test]
fn unsafe_code_is_forbidden_in_all_crates_but_the_allocator() {
    let manifest = |folder: &str| {
        let path = root().join(folder).join("Cargo.toml");
        fs::read_to_string(path).unwrap()
    };
    let workspace = section(&manifest(""), "[workspace.lints.rust]");
    let forbids = |line: &String| line.starts_with("unsafe_code = \"forbid\"");
    assert!(workspace.iter().any(forbids), "{workspace:?}");
    for (name, folder, _) in CRATES {
        let lints = section(&manifest(folder), "[lints]");
        let inherits = lints.contains(&"workspace = true".to_owned());
        assert_eq!(
            inherits,
            *name != "thread-cached-alloc",
            "{name}: {lints:?}"
        );
    }
}

/// Fails with one line for each fault.
fn assert_none(faults: impl IntoIterator<Item = String>) {
    let faults: Vec<_> = faults.into_iter().collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// Uses of modules that are not below the source's own, and what could hide one.
fn layer_faults(source: &SourceFile) -> Vec<String> {
    let module = source.top_module();
    let mut faults = Vec::new();
    for path in source.paths.iter().filter(|_| module != "lib") {
        let used = match path.absolute.as_deref() {
            None => continue,
            Some([]) => "the whole crate",
            Some([used, ..]) if used == module => continue,
            Some([used, ..]) => used.as_str(),
        };
        let (from, to) = (layer(module), layer(used));
        if to.is_none() || to <= from {
            faults.push(source.fault(path, &format!("{module} must not use {used}")));
        }
    }
    faults
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

/// Crates that are named outside of the modules that they are confined to.
fn confinement_faults(source: &SourceFile) -> Vec<String> {
    let module = source.top_module();
    let mut faults = Vec::new();
    for path in &source.paths {
        let confined = CONFINED.iter().find(|(name, _)| path.segments[0] == *name);
        if let Some((name, allowed)) = confined
            && !allowed.contains(&module)
        {
            faults.push(source.fault(path, &format!("{name} in {module}")));
        }
    }
    faults
}

/// What a consuming socket names of the Kafka client that is not of its consumer.
fn consumer_faults(source: &SourceFile) -> Vec<String> {
    let is_other = |path: &&SourcePath| {
        let [first, rest @ ..] = &path.segments[..] else {
            return false;
        };
        first == "kafka_client" && rest.first().is_none_or(|second| second != "consumer")
    };
    let others = source.paths.iter().filter(is_other);
    others
        .map(|path| source.fault(path, &path.segments.join("::")))
        .collect()
}

/// What does I/O, waits or reads a clock.
fn io_faults(source: &SourceFile) -> Vec<String> {
    let does_io = |path: &&SourcePath| {
        let [first, rest @ ..] = &path.segments[..] else {
            return false;
        };
        let second = rest.first().map(String::as_str);
        first == "std" && second.is_none_or(|second| second == "*" || IO.contains(&second))
    };
    let io = source.paths.iter().filter(does_io);
    io.map(|path| source.fault(path, &path.segments.join("::")))
        .collect()
}

/// A file of unit tests, which may use what makes the things that they test.
fn is_test(source: &SourceFile) -> bool {
    source.path.ends_with("/tests.rs")
}

/// Every source file of the proxy itself, with its unit tests.
fn proxy_sources() -> Vec<SourceFile> {
    sources_in("src")
}

/// The sources in a folder and below, without those of other crates.
fn sources_in(folder: &str) -> Vec<SourceFile> {
    let mut sources = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.join("Cargo.toml").exists() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(root()).unwrap().display().to_string();
                sources.push(SourceFile::parse(&name, &fs::read_to_string(path).unwrap()));
            }
        }
    }
    sources
}

/// A package of the workspace, as Cargo knows it.
struct Package {
    manifest: std::path::PathBuf,
    /// All but those of its tests, under their own names.
    dependencies: BTreeSet<String>,
}

impl Package {
    fn all() -> BTreeMap<String, Package> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let out = Command::new(cargo)
            .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
            .current_dir(root())
            .output()
            .unwrap();
        assert!(out.status.success(), "cargo metadata: {out:?}");
        let metadata: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        let packages = metadata["packages"].as_array().unwrap().iter();
        let package = |package: &serde_json::Value| {
            let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
            let dependencies = package["dependencies"].as_array().unwrap().iter();
            let dependencies = dependencies.filter(|dependency| dependency["kind"] != "dev");
            let read = Package {
                manifest: text(&package["manifest_path"]).into(),
                dependencies: dependencies.map(|d| text(&d["name"])).collect(),
            };
            (text(&package["name"]), read)
        };
        packages.map(package).collect()
    }
}

/// The lines of a manifest's section.
fn section(manifest: &str, heading: &str) -> Vec<String> {
    let lines = manifest.lines().skip_while(|line| line.trim() != heading);
    let lines = lines.skip(1).take_while(|line| !line.starts_with('['));
    lines.map(|line| line.trim().to_owned()).collect()
}
