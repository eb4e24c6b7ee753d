//! The `kafka-websocket-proxy` program.

use std::fmt::Display;
use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use kafka_websocket_proxy::app::App;
use kafka_websocket_proxy::cli::{self, EarlyExit};
use kafka_websocket_proxy::config::{
    self, BindError, Config, ConfigError, LoadedConfig, LogConfig, LogFormat,
};
use kafka_websocket_proxy::server;
use memory_broker::{BrokerConfig, MemoryBroker};
use runtime::panic_policy;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// musl's own is slow, the more so with several threads.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: thread_cached_alloc::ThreadCachingAllocator =
    thread_cached_alloc::ThreadCachingAllocator;

/// sysexits(3): something must be set differently, so that a restart does not help.
const EX_CONFIG: u8 = 78;
/// sysexits(3): the system does not give what was asked for, such as a port in use; a restart
/// may help.
const EX_UNAVAILABLE: u8 = 69;

fn main() -> ExitCode {
    let sources = match cli::parse(std::env::args_os(), std::env::vars_os()) {
        Ok(sources) => sources,
        Err(EarlyExit::Page(page)) => {
            let _ = page.print();
            return ExitCode::SUCCESS;
        }
        Err(EarlyExit::Errors(errors)) => return report_config_errors(&errors),
    };
    let loaded = match config::load(&sources) {
        Ok(loaded) => loaded,
        Err(errors) => return report_config_errors(&errors),
    };

    // From here on there is a log.
    init_log(&loaded.config.log);
    panic_policy::install_hook();
    for notice in &loaded.notices {
        warn!("{notice}");
    }

    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            print_error(&format!("cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let code = match runtime.block_on(serve(loaded)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(line) => {
            print_error(&line);
            ExitCode::from(EX_UNAVAILABLE)
        }
    };
    runtime.shutdown_background();
    code
}

/// Prints what is wrong with the settings.
fn report_config_errors(errors: &[ConfigError]) -> ExitCode {
    for error in errors {
        print_error(error);
    }
    ExitCode::from(EX_CONFIG)
}

/// Writes a line to standard error, which may be closed.
fn print_error(line: &dyn Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Listens, serves, and stops on a signal. An error is one line about what the system does not
/// give.
async fn serve(loaded: LoadedConfig) -> Result<(), String> {
    let mut config = loaded.config;
    let address = SocketAddr::new(config.server.bind_interface, config.server.port);
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| BindError::new(&loaded.provenance, address, &error).to_string())?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;

    let broker = match config.dev {
        true => Some(start_dev_broker(&mut config).await?),
        false => None,
    };
    let stop = cancel_on_signals().map_err(|error| format!("cannot wait for signals: {error}"))?;
    let grace = config.server.shutdown_grace;
    let app = App::new(config);
    info!(%address, server_id = app.config.server.server_id, "listening");
    if let Some(broker) = &broker {
        print_first_steps(address, broker);
    }
    server::run(listener, app, stop, grace).await;
    if let Some(broker) = broker {
        broker.stop().await;
    }
    Ok(())
}

/// Starts the in-memory broker, and points the clients at it.
async fn start_dev_broker(config: &mut Config) -> Result<MemoryBroker, String> {
    let broker_config = BrokerConfig {
        // The first record comes at once.
        initial_rebalance_delay: Duration::ZERO,
        ..BrokerConfig::default()
    };
    let broker = MemoryBroker::start(broker_config)
        .await
        .map_err(|error| format!("--dev: cannot start the built-in broker: {error}"))?;
    config.client.bootstrap_servers = vec![broker.bootstrap()];
    Ok(broker)
}

/// Prints the addresses to try, on standard output.
fn print_first_steps(address: SocketAddr, broker: &MemoryBroker) {
    let host = match address.ip() {
        ip if ip.is_unspecified() => "localhost".to_owned(),
        ip if ip.is_ipv6() => format!("[{ip}]"),
        ip => ip.to_string(),
    };
    let port = address.port();
    let memory = BrokerConfig::default().memory >> 20;
    // Standard output may be closed.
    let _ = writeln!(
        std::io::stdout(),
        "produce   ws://{host}:{port}/socket/in?topic=t\n\
         consume   ws://{host}:{port}/socket/out?topic=t&clientId=a\n\
         status    http://{host}:{port}/ready\n\
         broker    {} (in memory, {memory} MiB at most, then the oldest records go)\n\
         All data is gone when this process ends. Topics are made on first use.",
        broker.bootstrap()
    );
}

/// The first SIGTERM or SIGINT asks for a stop, the second one ends the process at once.
fn cancel_on_signals() -> std::io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = CancellationToken::new();
    let asked = stop.clone();
    tokio::spawn(async move {
        for code in [None, Some(1)] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            match code {
                None => asked.cancel(),
                Some(code) => std::process::exit(code),
            }
        }
    });
    Ok(stop)
}

fn init_log(config: &LogConfig) {
    let subscriber = tracing_subscriber::registry().with(config.level.clone());
    let lines = tracing_subscriber::fmt::layer()
        // An error while writing the log would otherwise be printed, which panics in whatever
        // task logs when the reader of standard error is gone.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    match config.format {
        LogFormat::Text => subscriber.with(lines.with_ansi(false)).init(),
        LogFormat::Json => subscriber.with(lines.json()).init(),
    }
}
