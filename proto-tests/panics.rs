//! What a panic ends, seen from outside: exit codes and the log.
//!
//! The program has no switch that makes it panic. So a test starts its own binary once
//! more, as a process that does what `main` does and whose task then panics:
//!
//! ```text
//! test ─ starts itself, with VARIABLE ─▶ the same test: panic_policy::install_hook, serve, panic
//!      ◀──────── exit code, log ───────
//! ```

use std::future::pending;
use std::process::{Command, Output, Stdio};

use kafka_websocket_proxy::config::{LogConfig, LogFormat};
use kafka_websocket_proxy::log::{Log, Repeats};
use runtime::panic_policy;
use serde_json::Value;
use tokio::time::timeout;

use crate::support::PATIENCE;
use crate::support::program::Program;
use crate::support::proxy::Proxy;

/// Set in the process that is to panic.
const VARIABLE: &str = "PANICS_IN_THIS_PROCESS";
const PANIC: &str = "a fault of ours";

#[test]
fn a_panic_of_a_core_task_ends_the_process_with_70_and_a_line_in_the_log() {
    let Some((code, log)) = in_a_process(async |_| {
        tokio::spawn(async { panic!("{PANIC}") });
        // The panic ends what would go on for ever.
        let _ = timeout(PATIENCE, pending::<()>()).await;
    }) else {
        return;
    };
    assert_eq!(code, Some(70), "{log}");
    assert!(log.contains(PANIC), "{log}");
    assert!(
        log.contains("ERROR runtime::panic_policy: a task of the core panicked; the process ends")
    );
}

#[test]
fn a_panic_is_one_line_of_the_log_in_its_format() {
    let Some((code, log)) = in_a_process_that_logs(LogFormat::Json, async |_| {
        tokio::spawn(async { panic!("{PANIC}") });
        let _ = timeout(PATIENCE, pending::<()>()).await;
    }) else {
        return;
    };
    assert_eq!(code, Some(70), "{log}");
    let lines = log.lines().filter(|line| line.contains(PANIC));
    let lines: Vec<Value> = lines
        .map(|line| serde_json::from_str(line).expect(line))
        .collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert_eq!(lines[0]["fields"]["said"], PANIC);
    assert!(
        lines[0]["fields"]["at"]
            .as_str()
            .unwrap()
            .starts_with("proto-tests/panics.rs:")
    );
}

#[test]
fn a_core_task_that_a_connection_started_is_still_of_the_core() {
    let Some((code, log)) = in_a_process(async |_| {
        let connection = panic_policy::contain_panics(async {
            tokio::spawn(async { panic!("{PANIC}") });
        });
        tokio::spawn(connection).await.unwrap();
        let _ = timeout(PATIENCE, pending::<()>()).await;
    }) else {
        return;
    };
    assert_eq!(code, Some(70), "{log}");
}

#[test]
fn a_panic_of_a_connections_task_is_logged_and_ends_nothing_else() {
    let Some((code, log)) = in_a_process(async |proxy| {
        let mut before = proxy.connect("/socket/in?topic=t").await;
        let connection = tokio::spawn(panic_policy::contain_panics(async { panic!("{PANIC}") }));
        assert!(connection.await.unwrap_err().is_panic());
        let mut after = proxy.connect("/socket/in?topic=t").await;
        for (offset, socket) in [&mut before, &mut after].into_iter().enumerate() {
            let answer = socket.ask(r#"{"value":{"value":"x"}}"#).await;
            assert_eq!(answer["offset"], offset);
        }
    }) else {
        return;
    };
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains(PANIC), "{log}");
    assert!(
        log.contains("a connection's task panicked; the connection is closed"),
        "{log}"
    );
}

#[test]
fn a_panic_of_a_computation_that_is_caught_is_logged_and_ends_nothing() {
    let Some((code, log)) = in_a_process(async |_| {
        let core = tokio::spawn(async { panic_policy::catch_panic(|| panic!("{PANIC}")) });
        assert_eq!(core.await.unwrap(), Err::<(), _>(PANIC.to_owned()));
    }) else {
        return;
    };
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("what it worked on is given up"), "{log}");
}

#[test]
fn main_installs_the_panic_hook_before_it_starts_a_task() {
    let main = include_str!("../src/main.rs");
    let at = |part: &str| main.find(part).expect(part);
    assert!(at("panic_policy::install_hook(") < at("runtime::Builder"));
    assert!(at("runtime::Builder") < at("tokio::spawn"));
}

#[test]
fn a_log_whose_reader_is_gone_causes_no_panic() {
    let program = Program::start_unread(&["--dev"]);
    // It logs that it stops.
    program.signal("TERM");
    assert_eq!(program.ended().code(), Some(0));
}

/// Starts the test again as a process of its own that runs `body` beside a server, and gives
/// its exit code and log; `None` in that process, when `body` has ended.
fn in_a_process<B: AsyncFnOnce(&Proxy)>(body: B) -> Option<(Option<i32>, String)> {
    in_a_process_that_logs(LogFormat::Text, body)
}

fn in_a_process_that_logs<B: AsyncFnOnce(&Proxy)>(
    format: LogFormat,
    body: B,
) -> Option<(Option<i32>, String)> {
    if std::env::var_os(VARIABLE).is_none() {
        // crate::module::test::{{closure}}
        let parts: Vec<&str> = std::any::type_name::<B>().split("::").collect();
        let test = parts[1..3].join("::");
        let Output { status, stderr, .. } = Command::new(std::env::current_exe().unwrap())
            .args([&test, "--exact", "--nocapture"])
            .env(VARIABLE, "1")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        return Some((status.code(), String::from_utf8(stderr).unwrap()));
    }
    let log = Log::start();
    let config = LogConfig {
        format,
        ..LogConfig::default()
    };
    log.install(&config, Repeats::Limited);
    let flushed = log.clone();
    panic_policy::install_hook(move || flushed.flush());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(async {
        let proxy = Proxy::start().await;
        proxy.topic("t", 1);
        body(&proxy).await;
    });
    log.flush();
    None
}
