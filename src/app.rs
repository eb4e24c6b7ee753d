//! What every request and every socket shares: settings, Kafka clients, the open sockets, the
//! sessions, and whether the server is stopping.

mod held_resources;
mod metrics_snapshot;
mod openid_provider;
mod user_clients;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::avro_schemas::AvroSchemas;
use crate::config::Config;
use crate::dynamic_limits::DynamicLimits;
use crate::metrics::sockets::SocketMetrics;
use crate::quotas::ClientQuotas;
use crate::session::Sessions;
use crate::session::registry::SocketRegistry;
pub use held_resources::HeldResources;
use kafka_client::admin::groups::GroupAdmin;
use kafka_client::client::Client;
use kafka_client::principal_clients::{ClientSettings, PrincipalClients, PrincipalLimits};
use kafka_client::{AuthenticationFault, Cluster};
use openid::OpenIdProvider;
pub(crate) use user_clients::no_broker;

/// The shared handles. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct App(Arc<AppState>);

/// What every [`App`] handle shares.
#[derive(Debug)]
pub struct AppState {
    /// The settings.
    pub config: Config,
    /// Reads from, writes to and talks to the cluster, as the proxy itself.
    pub(crate) client: Arc<Client>,
    /// Asks about groups and changes them, as the proxy itself.
    pub(crate) group_admin: GroupAdmin,
    /// The same as others.
    pub(crate) principals: PrincipalClients,
    /// Who says which tokens are good, with `server.openid-connect`.
    pub(crate) openid: Option<OpenIdProvider>,
    /// The schemas of Avro messages.
    pub(crate) avro_schemas: AvroSchemas,
    /// Owns the sockets' tasks.
    pub(crate) socket_tasks: TaskTracker,
    /// The open sockets.
    pub(crate) registry: SocketRegistry,
    /// How many records clients may write and read.
    pub(crate) quotas: ClientQuotas,
    /// Their limits that change, with `dynamic-config-handler.enabled`.
    pub(crate) dynamic_limits: Option<DynamicLimits>,
    /// The places of consumer groups, over all nodes.
    pub(crate) sessions: Sessions,
    /// Set when the process was asked to stop: new work should go elsewhere, and is still done.
    draining: CancellationToken,
    /// Set when the stop begins: no new sockets, and those that are open come to an end.
    pub(crate) stopping: CancellationToken,
    /// What is counted of the sockets.
    pub(crate) metrics: Arc<SocketMetrics>,
    /// Held while all metrics are read, so that those who ask for them take turns.
    metrics_turn: Mutex<()>,
    started_at: SystemTime,
    kafka_tasks: TaskTracker,
    kafka_stop: CancellationToken,
}

impl std::ops::Deref for App {
    type Target = AppState;

    fn deref(&self) -> &AppState {
        &self.0
    }
}

impl App {
    /// Starts the Kafka clients, which connect in the background. To be called inside a
    /// runtime.
    pub fn new(config: Config) -> Self {
        let kafka_tasks = TaskTracker::new();
        let kafka_stop = CancellationToken::new();
        let registry = SocketRegistry::default();
        let settings = ClientSettings {
            client: config.client.clone(),
            admin: config.admin.clone(),
            producer: config.producer.clone(),
            consumer: config.consumer.clone(),
        };
        let limits = PrincipalLimits {
            clients_max: config.server.limits.principals_max,
            authentications_max: config.server.limits.authentications_max,
        };
        let sockets = registry.clone();
        let principals = PrincipalClients::new(
            settings,
            limits,
            move |client| sockets.refuse_credentials(client),
            kafka_tasks.clone(),
            kafka_stop.clone(),
        );
        let avro_schemas = AvroSchemas::new(&config.schema_registry, &kafka_tasks, &kafka_stop);
        let openid_connect = &config.server.openid_connect;
        let openid = openid_provider::start(openid_connect, &registry, &kafka_tasks, &kafka_stop);
        let quotas = ClientQuotas::new(&config);
        Self(Arc::new(AppState {
            openid,
            metrics: Arc::new(SocketMetrics::new(config.server.limits.metrics_topics_max)),
            metrics_turn: Mutex::default(),
            started_at: SystemTime::now(),
            sessions: Sessions::start(&config),
            dynamic_limits: DynamicLimits::start(&config, &quotas),
            quotas,
            config,
            group_admin: GroupAdmin::new(principals.own().cluster().clone()),
            client: Arc::clone(principals.own()),
            principals,
            avro_schemas,
            socket_tasks: TaskTracker::new(),
            registry,
            draining: CancellationToken::new(),
            stopping: CancellationToken::new(),
            kafka_tasks,
            kafka_stop,
        }))
    }

    /// The cluster, as the proxy itself.
    pub(crate) fn cluster(&self) -> &Cluster {
        self.client.cluster()
    }

    /// Whether clients may be told which brokers there are.
    pub(crate) fn exposes_brokers(&self) -> bool {
        let server = &self.config.server;
        server.expose_broker_addresses.unwrap_or(self.config.dev)
    }

    /// Why new work should go elsewhere; empty when all is well.
    pub(crate) fn reasons_not_ready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.stopping.is_cancelled() {
            reasons.push("the server is stopping".to_owned());
        } else if self.draining.is_cancelled() {
            reasons.push("the server is about to stop".to_owned());
        }
        let fault = self.cluster().authentication_fault().borrow().clone();
        let reason = self.cluster().metadata().last_update_error();
        if fault.is_some() || reason.is_some() {
            let what = match fault {
                Some(AuthenticationFault::NoToken(fault)) => {
                    format!("there is no token for the brokers ({})", fault.property)
                }
                Some(AuthenticationFault::NoTicket(fault)) => {
                    format!(
                        "there is no Kerberos ticket for the brokers ({})",
                        fault.place
                    )
                }
                Some(_) => "the brokers do not accept the proxy's credentials".to_owned(),
                None => "no broker can be reached".to_owned(),
            };
            reasons.push(match reason {
                Some(reason) if self.exposes_brokers() => format!("{what}: {reason}"),
                _ => what,
            });
        }
        let detailed = self.exposes_brokers();
        reasons.extend(self.sessions.reasons_not_ready(detailed));
        reasons
    }

    /// Says in `/ready` that a stop is near.
    pub(crate) fn begin_drain(&self) {
        self.draining.cancel();
    }

    /// Since when its counters count.
    pub(crate) fn started_at(&self) -> SystemTime {
        self.started_at
    }

    /// Stops the sockets, evenly over `spread`, and waits until all have ended.
    pub(crate) async fn stop_sockets(&self, spread: Duration) {
        self.stopping.cancel();
        let open = self.registry.begin_stop();
        self.socket_tasks.close();
        tokio::select! {
            () = self.socket_tasks.wait() => {}
            () = open.stop_over(spread) => self.socket_tasks.wait().await,
        }
    }

    /// Stops the Kafka clients and waits for them, after the other nodes were told that this one
    /// has no sockets any more.
    pub(crate) async fn stop_kafka_clients(&self) {
        self.sessions.leave().await;
        if let Some(limits) = &self.dynamic_limits {
            limits.stop().await;
        }
        self.kafka_stop.cancel();
        self.kafka_tasks.close();
        self.kafka_tasks.wait().await;
    }
}
