//! The server, in this process, in front of an in-memory broker.

use std::sync::Arc;
use std::time::Duration;

use kafka_websocket_proxy::app::App;
use kafka_websocket_proxy::config::Config;
use kafka_websocket_proxy::server::{self, Listeners, TlsListener};
use memory_broker::{BrokerConfig, MemoryBroker};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::secrets::{self, SecretsGuard};
use super::tls;
use super::ws_client::{UpgradeRefused, WsClient};
use super::{PATIENCE, until_asked};

/// Another server of the same deployment.
pub(crate) struct SecondNode {
    pub(crate) address: String,
    /// Where it speaks TLS, if it does.
    tls_address: String,
    /// Where its admin server is, if it has one.
    pub(crate) admin_address: String,
    app: App,
    stop: CancellationToken,
    running: JoinHandle<()>,
    secrets: SecretsGuard,
}

impl SecondNode {
    async fn start(broker: &MemoryBroker, change: impl FnOnce(&mut Config)) -> Self {
        let secrets = secrets::watch_this_process();
        let mut config = Config::default();
        config.client.bootstrap_servers =
            broker.bootstrap().split(',').map(str::to_owned).collect();
        config.server.shutdown_grace = Duration::from_secs(10);
        change(&mut config);
        let grace = config.server.shutdown_grace;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut listeners = Listeners::from(listener);
        let mut tls_address = String::new();
        if let Some(tls) = config.server.tls.clone() {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            tls_address = listener.local_addr().unwrap().to_string();
            let reload = Arc::default();
            listeners.tls = Some(TlsListener {
                listener,
                tls,
                reload,
            });
        }
        let mut admin_address = String::new();
        if config.server.admin.enabled {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            admin_address = listener.local_addr().unwrap().to_string();
            listeners.admin = Some(listener);
        }
        let stop = CancellationToken::new();
        let app = App::new(config);
        let serving = server::run(listeners, app.clone(), stop.clone(), grace);
        Self {
            address,
            tls_address,
            admin_address,
            app,
            stop,
            running: tokio::spawn(serving),
            secrets,
        }
    }

    pub(crate) async fn open(&self, path: &str) -> Result<WsClient, UpgradeRefused> {
        WsClient::connect(&self.address, path).await
    }

    /// A socket that must be accepted.
    pub(crate) async fn connect(&self, path: &str) -> WsClient {
        match self.open(path).await {
            Ok(client) => client,
            Err(refused) => panic!("{path}: {refused:?}"),
        }
    }

    pub(crate) async fn stopped(self) {
        self.stop.cancel();
        let stopped = timeout(PATIENCE, self.running).await;
        stopped.expect("the server did not stop").unwrap();
    }
}

/// A running server and its broker.
pub(crate) struct Proxy {
    pub(crate) broker: MemoryBroker,
    pub(crate) address: String,
    /// Where it speaks TLS, if it does.
    pub(crate) tls_address: String,
    /// Where its admin server is, if it has one.
    pub(crate) admin_address: String,
    pub(crate) app: App,
    stop: CancellationToken,
    running: JoinHandle<()>,
    _secrets: SecretsGuard,
}

impl Proxy {
    /// With the default settings.
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// With settings changed by `change`.
    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::with_broker(BrokerConfig::default(), change).await
    }

    pub(crate) async fn with_broker(
        broker: BrokerConfig,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let broker = MemoryBroker::start(broker).await.unwrap();
        let SecondNode {
            address,
            tls_address,
            admin_address,
            app,
            stop,
            running,
            secrets,
        } = SecondNode::start(&broker, change).await;
        Self {
            broker,
            address,
            tls_address,
            admin_address,
            app,
            stop,
            running,
            _secrets: secrets,
        }
    }

    /// Another server on the same broker, `node-2` unless `change` says otherwise.
    pub(crate) async fn second(&self, change: impl FnOnce(&mut Config)) -> SecondNode {
        SecondNode::start(&self.broker, |config| {
            config.server.server_id = "node-2".to_owned();
            change(config);
        })
        .await
    }

    /// A topic with that many partitions.
    pub(crate) fn topic(&self, name: &str, partitions: i32) {
        assert!(self.broker.create_topic(name, partitions));
    }

    pub(crate) async fn open(&self, path: &str) -> Result<WsClient, UpgradeRefused> {
        WsClient::connect(&self.address, path).await
    }

    /// With one more header.
    pub(crate) async fn open_with(
        &self,
        path: &str,
        header: (&'static str, &str),
    ) -> Result<WsClient, UpgradeRefused> {
        WsClient::connect_with(&self.address, path, Some(header)).await
    }

    /// A socket that must be accepted.
    pub(crate) async fn connect(&self, path: &str) -> WsClient {
        match self.open(path).await {
            Ok(client) => client,
            Err(refused) => panic!("{path}: {refused:?}"),
        }
    }

    /// A socket by TLS that must be accepted.
    pub(crate) async fn connect_tls(&self, path: &str) -> WsClient {
        let config = tls::client(None);
        match WsClient::connect_tls(&self.tls_address, path, &config).await {
            Ok(client) => client,
            Err(refused) => panic!("{path}: {refused:?}"),
        }
    }

    /// Produces so many records to each partition of `t`.
    pub(crate) async fn produce(&self, partitions: i32, count: usize) {
        let mut producer = self.connect("/socket/in?topic=t").await;
        for partition in 0..partitions {
            let record = json!({"value": {"value": "x"}, "partition": partition});
            producer.ask(json!(vec![record; count]).to_string()).await;
        }
        producer.close().await;
    }

    /// Waits until `/ready` says so: the sessions are loaded, and what follows is not theirs.
    pub(crate) async fn ready(&self) {
        until_asked("ready", async || readiness(&self.address).await.0 == 200).await;
    }

    /// Asks for the stop; `stopped` waits for it.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    pub(crate) async fn stopped(self) {
        self.stop.cancel();
        let stopped = timeout(PATIENCE, self.running).await;
        stopped.expect("the server did not stop").unwrap();
    }
}

/// Status and text of `/ready`.
pub(crate) async fn readiness(address: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = "GET /ready HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer)
}
