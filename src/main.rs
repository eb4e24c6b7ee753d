//! The `kafka-websocket-proxy` program.

use std::fmt::Display;
use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use kafka_websocket_proxy::app::App;
use kafka_websocket_proxy::broker_resolution;
use kafka_websocket_proxy::cli::{self, EarlyExit, Invocation, ProgramTask};
use kafka_websocket_proxy::config::{
    self, BindError, Config, ConfigFailure, LoadedConfig, LogFormat, Provenance, ServerConfig,
};
use kafka_websocket_proxy::descriptors;
use kafka_websocket_proxy::first_steps::{FirstSteps, console_url};
use kafka_websocket_proxy::healthcheck::{self, HealthPort};
use kafka_websocket_proxy::log::{Log, Repeats};
use kafka_websocket_proxy::server::{self, Listeners, TlsListener};
use memory_broker::{BrokerConfig, MemoryBroker};
use runtime::panic_policy;
use sd_notify::NotifyState;
use tls::{ServerTls, StoreFile};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

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

/// How long the end of the process may wait for the service manager to learn of it.
const NOTIFY_TIMEOUT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let log = Log::start();
    let code = run(&log);
    log.flush();
    code
}

fn run(log: &Log) -> ExitCode {
    let Invocation { task, sources } = match cli::parse(std::env::args_os(), std::env::vars_os()) {
        Ok(invocation) => invocation,
        Err(EarlyExit::Page(page)) => {
            let _ = page.print();
            return ExitCode::SUCCESS;
        }
        Err(EarlyExit::Failure(failure)) => return report_config_errors(log, &failure),
    };
    if task == ProgramTask::PrintReference {
        print(&config::reference_conf());
        return ExitCode::SUCCESS;
    }
    let loaded = config::load(&sources);
    match task {
        ProgramTask::CheckConfig => return check_config(log, &loaded),
        ProgramTask::AskHealth => return ask_health(log, &loaded),
        ProgramTask::Serve | ProgramTask::PrintReference => {}
    }
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(failure) => return report_config_errors(log, &failure),
    };

    // From here on there is a log of events.
    let repeats = match loaded.config.dev {
        true => Repeats::All,
        false => Repeats::Limited,
    };
    log.install(&loaded.config.log, repeats);
    let last_lines = log.clone();
    panic_policy::install_hook(move || last_lines.flush());

    let format = loaded.config.log.format;
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            report_error(log, format, &format_args!("cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let code = match runtime.block_on(serve(loaded, log.clone())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(line) => {
            report_error(log, format, &line);
            ExitCode::from(EX_UNAVAILABLE)
        }
    };
    runtime.shutdown_background();
    code
}

/// Prints what holds, and before it what is wrong with it.
fn check_config(log: &Log, loaded: &Result<LoadedConfig, Box<ConfigFailure>>) -> ExitCode {
    let (effective, code) = match loaded {
        Ok(loaded) => {
            for notice in &loaded.notices {
                log.print(&format!("warning: {notice}"));
            }
            (&loaded.effective, ExitCode::SUCCESS)
        }
        Err(failure) => (&failure.effective, report_config_errors(log, failure)),
    };
    let lines = effective.iter().map(|value| format!("{value}\n"));
    print(&lines.collect::<String>());
    code
}

/// Asks the instance that these settings start. 1 whatever is wrong, as container engines have it.
fn ask_health(log: &Log, loaded: &Result<LoadedConfig, Box<ConfigFailure>>) -> ExitCode {
    let fault = match loaded {
        Ok(loaded) => {
            let server = &loaded.config.server;
            health_port(server)
                .map(|port| port.authorized_by(server))
                .and_then(|port| healthcheck::ask(&port))
                .err()
        }
        Err(failure) => {
            report_config_errors(log, failure);
            return ExitCode::FAILURE;
        }
    };
    match fault {
        None => ExitCode::SUCCESS,
        Some(fault) => {
            log.print(&fault);
            ExitCode::FAILURE
        }
    }
}

/// Where to ask: by TLS only where nothing else is spoken.
fn health_port(server: &ServerConfig) -> Result<HealthPort, String> {
    let (ssl, store) = (&server.ssl, &server.healthcheck_cert);
    if !ssl.only {
        return Ok(HealthPort::plain(server.bind_interface, server.port));
    }
    let port = ssl.port.unwrap_or_default();
    let key_store = store.clone().map(|location| StoreFile {
        location,
        password: None,
    });
    if ssl.client_ca.is_some() && key_store.is_none() {
        return Err(
            "clients must present a certificate (server.ssl.client-ca-location): give one with \
             --healthcheck-cert, or have a plain port on loopback (--bind-interface 127.0.0.1, \
             without server.ssl.ssl-only)"
                .to_owned(),
        );
    }
    HealthPort::tls(ssl.bind_interface, port, key_store)
        .map_err(|error| format!("--healthcheck-cert: {error}"))
}

/// Writes to standard output, whose reader may be gone.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Says what is wrong with the settings, when there is no log of events yet.
fn report_config_errors(log: &Log, failure: &ConfigFailure) -> ExitCode {
    let ConfigFailure {
        errors,
        notices,
        log: config,
        ..
    } = failure;
    match config.format {
        LogFormat::Text => notices.iter().for_each(|notice| {
            log.print(&format!("warning: {notice}"));
        }),
        LogFormat::Json => {
            log.install(config, Repeats::All);
            warn_of(notices);
        }
    }
    for error in errors {
        report_error(log, config.format, error);
    }
    ExitCode::from(EX_CONFIG)
}

/// Says why there is no start, in one line.
fn report_error(log: &Log, format: LogFormat, line: &dyn Display) {
    match format {
        LogFormat::Text => log.print(&line.to_string()),
        LogFormat::Json => error!("{line}"),
    }
}

/// Settings that do not do what may be expected of them.
fn warn_of(notices: &[String]) {
    for notice in notices {
        warn!("{notice}");
    }
}

/// Listens, serves, and stops on a signal. An error is one line about what the system does not
/// give.
async fn serve(loaded: LoadedConfig, log: Log) -> Result<(), String> {
    // Whoever reads that it listens may send a signal.
    let mut config = loaded.config;
    let reload = config.server.tls.is_some().then(Arc::<Notify>::default);
    let stop = cancel_on_signals(log, reload.clone())
        .map_err(|error| format!("cannot wait for signals: {error}"))?;
    let descriptors = descriptors::raise_limit();
    if config.server.limits.connections_max == 0 {
        config.server.limits.connections_max = descriptors::connections_within(descriptors);
    }
    let listening = listen(&mut config, &loaded.provenance, reload).await;
    let (listeners, addresses, broker) = match listening {
        Ok(listening) => listening,
        Err(error) => {
            warn_of(&loaded.notices);
            return Err(error);
        }
    };
    log_start(&config, addresses, descriptors);
    warn_of(&loaded.notices);
    let grace = config.server.shutdown_grace;
    let console = config.server.console_enabled;
    let resolution = tokio::spawn(broker_resolution::report_unresolved(
        config.client.bootstrap_servers.clone(),
        config.server.broker_resolution.clone(),
    ));
    let app = App::new(config);
    if let Some(broker) = &broker {
        let steps = FirstSteps {
            plain: addresses.plain,
            tls: addresses.tls,
            console,
            broker: broker.bootstrap(),
            memory: BrokerConfig::default().memory,
        };
        print(&steps.to_string());
    }
    notify_service_manager(NotifyState::Ready);
    let stopping = stop.clone();
    let notifying = tokio::spawn(async move {
        stopping.cancelled().await;
        let _ = notify_service_manager(NotifyState::Stopping).await;
    });
    server::run(listeners, app, stop, grace).await;
    resolution.abort();
    let _ = timeout(NOTIFY_TIMEOUT, notifying).await;
    if let Some(broker) = broker {
        broker.stop().await;
    }
    Ok(())
}

/// Where the server listens.
#[derive(Clone, Copy)]
struct ListenAddresses {
    plain: Option<SocketAddr>,
    tls: Option<SocketAddr>,
    admin: Option<SocketAddr>,
}

/// Listens, and starts the in-memory broker of `--dev`.
async fn listen(
    config: &mut Config,
    provenance: &Provenance,
    reload: Option<Arc<Notify>>,
) -> Result<(Listeners, ListenAddresses, Option<MemoryBroker>), String> {
    let server = &config.server;
    let plain = match server.ssl.only {
        true => None,
        false => Some(listen_on(
            SocketAddr::new(server.bind_interface, server.port),
            |address, error| BindError::new(provenance, address, error),
        )?),
    };
    let by_tls = match &server.tls {
        None => None,
        Some(_) => Some(listen_on(
            SocketAddr::new(
                server.ssl.bind_interface,
                server.ssl.port.unwrap_or_default(),
            ),
            |address, error| BindError::of_tls(provenance, address, error),
        )?),
    };
    let admin = server.admin_address().map(|address| {
        let bind_error = |address, error: &_| BindError::of_admin(provenance, address, error);
        listen_on(address, bind_error)
    });
    let admin = admin.transpose()?;
    let addresses = ListenAddresses {
        plain: plain.as_ref().map(|(_, address)| *address),
        tls: by_tls.as_ref().map(|(_, address)| *address),
        admin: admin.as_ref().map(|(_, address)| *address),
    };
    let tls = by_tls.zip(server.tls.clone());
    let listeners = Listeners {
        plain: plain.map(|(listener, _)| listener),
        tls: tls.map(|((listener, _), tls)| TlsListener {
            listener,
            tls,
            reload: reload.unwrap_or_default(),
        }),
        admin: admin.map(|(listener, _)| listener),
    };
    let broker = match config.dev {
        true => Some(start_dev_broker(config, provenance).await?),
        false => None,
    };
    Ok((listeners, addresses, broker))
}

fn listen_on(
    address: SocketAddr,
    bind_error: impl Fn(SocketAddr, &std::io::Error) -> BindError,
) -> Result<(TcpListener, SocketAddr), String> {
    let listener =
        server::listen(address).map_err(|error| bind_error(address, &error).to_string())?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    Ok((listener, address))
}

/// The first line of the log: what runs here, for whom, and within which limits.
fn log_start(config: &Config, addresses: ListenAddresses, descriptors: u64) {
    let (limits, sockets) = (&config.server.limits, &config.server.websocket);
    let demands_certificates = |tls: &Arc<ServerTls>| tls.demands_certificates();
    let certified = config.server.tls.as_ref().is_some_and(demands_certificates);
    let asks = config.server.asks_for_credentials();
    let clients = match (asks, addresses.plain, certified) {
        (false, None, true) => "those with a certificate",
        (false, Some(_), true) => "anybody, and by TLS those with a certificate",
        (false, _, false) => "anybody",
        (true, None, true) => "those with credentials and a certificate",
        (true, Some(_), true) => "those with credentials, and by TLS a certificate beside them",
        (true, _, false) => "those with credentials",
    };
    let by_tls = addresses.tls.map(|address| format!("https://{address}"));
    let console = console_url(addresses.plain, addresses.tls);
    let console = console.filter(|_| config.server.console_enabled);
    let scheme = if addresses.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let admin = addresses
        .admin
        .map(|address| format!("{scheme}://{address}"));
    info!(
        address = addresses.plain.map(tracing::field::display),
        tls = by_tls.map(tracing::field::display),
        console,
        admin,
        version = env!("CARGO_PKG_VERSION"),
        server_id = config.server.server_id,
        brokers = config.client.bootstrap_servers.join(","),
        embedded_broker = config.dev,
        descriptors,
        connections_max = limits.connections_max,
        sockets_max = sockets.max_connections,
        message_bytes_max = sockets.max_message_size,
        clients,
        "listening"
    );
    let open = addresses.plain.into_iter();
    let open = open.chain(addresses.tls.filter(|_| !certified));
    let open = open.filter(|address| !address.ip().is_loopback() && !asks);
    let open: Vec<_> = open.map(|address| address.to_string()).collect();
    if !open.is_empty() {
        let address = open.join(",");
        warn!(
            address,
            "anybody who reaches this address may produce and consume: clients are not authenticated \
             (server.basic-auth.enabled would ask for user and password, \
             server.openid-connect.enabled for a token)"
        );
    }
    let open_admin = addresses.admin.filter(|_| !certified && !asks);
    if let Some(address) = open_admin.filter(|address| !address.ip().is_loopback()) {
        warn!(
            %address,
            "anybody who reaches this address may see consumer groups and change their offsets: \
             server.admin.bind-interface=127.0.0.1 keeps others out"
        );
    }
}

/// Tells systemd, if that started the program (`Type=notify`). It may be slow to listen.
fn notify_service_manager(state: NotifyState<'static>) -> JoinHandle<()> {
    tokio::task::spawn_blocking(move || {
        if let Err(error) = sd_notify::notify(&[state]) {
            warn!(%error, "the service manager cannot be notified (NOTIFY_SOCKET)");
        }
    })
}

/// Starts the in-memory broker, and points the clients at it.
async fn start_dev_broker(
    config: &mut Config,
    provenance: &Provenance,
) -> Result<MemoryBroker, String> {
    let port = config.dev_broker.port;
    let broker_config = BrokerConfig {
        port,
        // The first record comes at once.
        initial_rebalance_delay: Duration::ZERO,
        ..BrokerConfig::default()
    };
    let broker = MemoryBroker::start(broker_config)
        .await
        .map_err(|error| BindError::of_dev_broker(provenance, port, &error).to_string())?;
    config.client.bootstrap_servers = vec![broker.bootstrap()];
    Ok(broker)
}

/// The first SIGTERM or SIGINT asks for a stop, the second one ends the process at once. SIGHUP,
/// which a closed terminal sends too, has the files of TLS read again, by way of `reload`.
fn cancel_on_signals(log: Log, reload: Option<Arc<Notify>>) -> std::io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let stop = CancellationToken::new();
    let asked = stop.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hangup.recv() => {
                    match &reload {
                        Some(reload) => reload.notify_one(),
                        None => info!("SIGHUP: there is nothing to read again"),
                    }
                    continue;
                }
            }
            if asked.is_cancelled() {
                log.flush();
                std::process::exit(1);
            }
            asked.cancel();
        }
    });
    Ok(stop)
}
