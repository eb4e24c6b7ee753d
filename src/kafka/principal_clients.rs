//! The clients of all principals: the proxy's own, and one for each user who has sockets open.
//!
//! ```text
//! credentials ─▶ lease ─┬─ known ──────────────────────────▶ ClientLease ─▶ Client
//!                       └─ new ─▶ authenticate, once for all ─┬─▶ client of its own
//!                                 who come with the same       └─▶ refused: nothing is kept
//! ```
//!
//! # Invariants
//! - Principals share no connection, metadata, producer, fetched record or coordinator; they share
//!   the memory for fetched records.
//! - A client is one of a user name *and* a password: who guesses wrong gets none, and keeps the one
//!   who knows it waiting for nothing, since backoff after a refusal is the client's.
//! - A client outlives its last lease by five minutes, unless another user needs the room; one whose
//!   credentials the brokers refuse later is not leased any more, and its users are told.

mod client_table;

use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use runtime::mutex::lock;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::client_table::{ClientTable, ClientUse};
use super::client::Client;
use super::config::{ClientConfig, ConsumerConfig, ProducerConfig, RequestOverrides};
use super::error::AuthenticationFault;
use super::fetcher::FetchBudget;
use super::sasl::Credentials;
use super::security::UsersUnsupported;
use super::{Cluster, Principal};

/// How long a client that nobody uses is kept.
const IDLE_MAX: Duration = Duration::from_secs(5 * 60);
/// How long authenticating may take, with the wait for others to have done it.
const AUTHENTICATION_TIMEOUT: Duration = Duration::from_secs(5);

/// What all clients are made of.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// Connections, with the proxy's own credentials.
    pub client: ClientConfig,
    /// What administrative requests have of their own.
    pub admin: RequestOverrides,
    /// Producing.
    pub producer: ProducerConfig,
    /// Consuming.
    pub consumer: ConsumerConfig,
}

/// How many users there may be.
#[derive(Clone, Copy, Debug)]
pub struct PrincipalLimits {
    /// Clients of users.
    pub clients_max: usize,
    /// Authentications of users who have no client yet that are under way at once.
    pub authentications_max: usize,
}

/// Tells the clients of users apart. None is 0.
pub type ClientNumber = u64;

/// Why a user gets no client. Shows no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrincipalError {
    /// The brokers do not accept the credentials.
    #[error("the brokers refuse the credentials")]
    Refused,
    /// The proxy's own settings leave no way to authenticate a user.
    #[error(transparent)]
    Unsupported(#[from] UsersUnsupported),
    /// So many authenticate that the turn did not come in time.
    #[error("{max} authentications are under way")]
    TooManyAuthentications {
        /// How many may be.
        max: usize,
    },
    /// Every client that there may be has users.
    #[error("{max} users have sockets open")]
    TooManyClients {
        /// How many may have.
        max: usize,
    },
    /// The brokers said neither yes nor no.
    #[error("the credentials could not be verified: {reason}")]
    Unavailable {
        /// What they said, for operators.
        reason: Arc<str>,
    },
    /// The client layer is stopping.
    #[error("the Kafka client is stopping")]
    Stopped,
}

/// The clients. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct PrincipalClients {
    shared: Arc<ClientsShared>,
}

struct ClientsShared {
    own: Arc<Client>,
    settings: ClientSettings,
    limits: PrincipalLimits,
    authentications: Arc<Semaphore>,
    state: Mutex<ClientsState>,
    last_number: AtomicU64,
    /// Called when the brokers do not accept the credentials of a client any more.
    on_refused: Box<dyn Fn(ClientNumber) + Send + Sync>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl fmt::Debug for ClientsShared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientsShared")
            .field("clients", &lock(&self.state).table.len())
            .finish_non_exhaustive()
    }
}

struct ClientsState {
    table: ClientTable<Arc<UserClient>>,
    /// The authentications under way, as those see them who wait for one.
    authenticating: HashMap<Credentials, watch::Receiver<AuthenticationResult>>,
}

/// `None` while it is under way.
type AuthenticationResult = Option<Result<(), PrincipalError>>;

/// A user's client; it stops when it is dropped.
struct UserClient {
    client: Client,
    credentials: Credentials,
    number: ClientNumber,
    is_refused: Arc<AtomicBool>,
    /// Notified when nobody uses it any more.
    idle: Arc<Notify>,
    stop: CancellationToken,
}

impl Drop for UserClient {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The use of a client.
pub struct ClientLease(LeasedClient);

enum LeasedClient {
    Own(Arc<Client>),
    User(Arc<ClientsShared>, Arc<UserClient>),
}

impl ClientLease {
    /// Which user's client it is; none if it is the proxy's own.
    pub fn number(&self) -> Option<ClientNumber> {
        match &self.0 {
            LeasedClient::Own(_) => None,
            LeasedClient::User(_, user) => Some(user.number),
        }
    }

    /// Whether the brokers do not accept the user's credentials any more.
    pub fn is_refused(&self) -> bool {
        match &self.0 {
            LeasedClient::Own(_) => false,
            LeasedClient::User(_, user) => user.is_refused.load(Ordering::Acquire),
        }
    }
}

/// Another use of it.
impl Clone for ClientLease {
    fn clone(&self) -> Self {
        Self(match &self.0 {
            LeasedClient::Own(client) => LeasedClient::Own(Arc::clone(client)),
            LeasedClient::User(shared, user) => {
                let table = &mut lock(&shared.state).table;
                table.add_lease(&user.credentials, user.number);
                LeasedClient::User(Arc::clone(shared), Arc::clone(user))
            }
        })
    }
}

impl Deref for ClientLease {
    type Target = Client;

    fn deref(&self) -> &Client {
        match &self.0 {
            LeasedClient::Own(client) => client,
            LeasedClient::User(_, user) => &user.client,
        }
    }
}

impl fmt::Debug for ClientLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client of {}", self.cluster().principal())
    }
}

impl Drop for ClientLease {
    fn drop(&mut self) {
        if let LeasedClient::User(shared, user) = &self.0 {
            let table = &mut lock(&shared.state).table;
            if table.release(&user.credentials, user.number, Instant::now()) {
                user.idle.notify_one();
            }
        }
    }
}

impl PrincipalClients {
    /// Starts the proxy's own client, which connects in the background. `on_refused` is called with
    /// the number of a client that is not leased any more, since the brokers refuse its credentials.
    pub fn new(
        settings: ClientSettings,
        limits: PrincipalLimits,
        on_refused: impl Fn(ClientNumber) + Send + Sync + 'static,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let config = settings.client.clone();
        let cluster = Cluster::new(config, Principal::Proxy, tasks.clone(), stop.clone());
        let own = Client::new(
            cluster.with_requests(&settings.admin),
            settings.producer.clone(),
            settings.consumer.clone(),
        );
        let state = ClientsState {
            table: ClientTable::new(limits.clients_max, IDLE_MAX),
            authenticating: HashMap::new(),
        };
        Self {
            shared: Arc::new(ClientsShared {
                own: Arc::new(own),
                settings,
                limits,
                authentications: Arc::new(Semaphore::new(limits.authentications_max)),
                state: Mutex::new(state),
                last_number: AtomicU64::new(0),
                on_refused: Box::new(on_refused),
                tasks,
                stop,
            }),
        }
    }

    /// The proxy's own client.
    pub fn own(&self) -> &Arc<Client> {
        &self.shared.own
    }

    /// The use of the proxy's own client, which costs nothing.
    pub fn lease_own(&self) -> ClientLease {
        ClientLease(LeasedClient::Own(Arc::clone(&self.shared.own)))
    }

    /// Looks at each client, the proxy's own and those of users.
    pub fn for_each(&self, mut look: impl FnMut(&Client)) {
        let users: Vec<_> = {
            let state = lock(&self.shared.state);
            state.table.all().cloned().collect()
        };
        look(&self.shared.own);
        users.iter().for_each(|user| look(&user.client));
    }

    /// How many users have a client.
    #[cfg(test)]
    fn users(&self) -> usize {
        lock(&self.shared.state).table.len()
    }

    /// The use of a user's client. One who has none is authenticated first, in one attempt that all
    /// share who come with the same credentials meanwhile. Cancel-safe.
    ///
    /// # Errors
    /// Any [`PrincipalError`], after five seconds at the latest.
    pub async fn lease(&self, credentials: &Credentials) -> Result<ClientLease, PrincipalError> {
        let deadline = Instant::now() + AUTHENTICATION_TIMEOUT;
        loop {
            let mut result = match self.find(credentials) {
                FoundClient::Open(lease) => return Ok(lease),
                FoundClient::Authenticating(result) => result,
                FoundClient::None => {
                    let permit = self.authentication_permit(deadline).await?;
                    self.begin(credentials, permit)?
                }
            };
            let ended = timeout_at(deadline, result.wait_for(Option::is_some)).await;
            match ended {
                Ok(Ok(result)) => result.clone().unwrap_or(Ok(()))?,
                Ok(Err(_)) => return Err(PrincipalError::Stopped),
                Err(_) => {
                    let reason = "no broker answers in time".into();
                    return Err(PrincipalError::Unavailable { reason });
                }
            }
        }
    }

    fn find(&self, credentials: &Credentials) -> FoundClient {
        let mut state = lock(&self.shared.state);
        if let Some(user) = state.table.lease(credentials) {
            let shared = Arc::clone(&self.shared);
            return FoundClient::Open(ClientLease(LeasedClient::User(shared, user)));
        }
        match state.authenticating.get(credentials) {
            Some(result) => FoundClient::Authenticating(result.clone()),
            None => FoundClient::None,
        }
    }

    /// Waits for a turn to authenticate: who guesses in bulk keeps the brokers no busier than that.
    async fn authentication_permit(
        &self,
        deadline: Instant,
    ) -> Result<OwnedSemaphorePermit, PrincipalError> {
        let permit = Arc::clone(&self.shared.authentications).acquire_owned();
        match timeout_at(deadline, permit).await {
            Ok(permit) => permit.map_err(|_closed| PrincipalError::Stopped),
            Err(_) => Err(PrincipalError::TooManyAuthentications {
                max: self.shared.limits.authentications_max,
            }),
        }
    }

    /// Begins to authenticate, unless somebody else has meanwhile.
    fn begin(
        &self,
        credentials: &Credentials,
        permit: OwnedSemaphorePermit,
    ) -> Result<watch::Receiver<AuthenticationResult>, PrincipalError> {
        let shared = &self.shared;
        let mut state = lock(&shared.state);
        if let Some(result) = state.authenticating.get(credentials) {
            return Ok(result.clone());
        }
        if !state.table.has_room() {
            return Err(shared.too_many_clients());
        }
        let (sender, result) = watch::channel(None);
        let known = (credentials.clone(), result.clone());
        state.authenticating.insert(known.0, known.1);
        drop(state);
        let authenticated = Arc::clone(shared).authenticate(credentials.clone(), sender, permit);
        shared.tasks.spawn(authenticated);
        Ok(result)
    }
}

enum FoundClient {
    Open(ClientLease),
    Authenticating(watch::Receiver<AuthenticationResult>),
    None,
}

impl ClientsShared {
    /// Authenticates a user, tells those who wait for it, and looks after the client from then on.
    async fn authenticate(
        self: Arc<Self>,
        credentials: Credentials,
        result: watch::Sender<AuthenticationResult>,
        permit: OwnedSemaphorePermit,
    ) {
        let stop = self.stop.child_token();
        // Whatever becomes of it, nothing goes on that nobody knows of.
        let stop_on_drop = stop.clone().drop_guard();
        let opened = self.open(&credentials, &stop).await;
        drop(permit);
        let inserted = opened.and_then(|client| {
            stop_on_drop.disarm();
            self.insert(&credentials, client, stop.clone())
        });
        let (outcome, supervision) = match inserted {
            Ok(supervision) => (Ok(()), Some(supervision)),
            Err(error) => (Err(error), None),
        };
        lock(&self.state).authenticating.remove(&credentials);
        result.send_replace(Some(outcome));
        if let Some(supervision) = supervision {
            self.supervise(credentials, supervision).await;
        }
    }

    /// A client of these credentials, once the brokers have accepted them.
    async fn open(
        &self,
        credentials: &Credentials,
        stop: &CancellationToken,
    ) -> Result<Client, PrincipalError> {
        let settings = &self.settings;
        let cluster = self.own.cluster().for_user(credentials, stop.clone())?;
        let mut fault = cluster.authentication_fault();
        tokio::select! {
            biased;
            () = stop.cancelled() => return Err(PrincipalError::Stopped),
            fault = any_fault(&mut fault) => return Err(error_of(fault)),
            () = cluster.metadata().answered() => {}
            () = sleep(AUTHENTICATION_TIMEOUT) => {
                let reason = cluster.metadata().last_update_error();
                let reason = reason.unwrap_or_else(|| "no answer in time".into());
                return Err(PrincipalError::Unavailable { reason });
            }
        }
        let (producer, consumer) = (settings.producer.clone(), settings.consumer.clone());
        let budget: FetchBudget = self.own.fetcher().budget().clone();
        let cluster = cluster.with_requests(&settings.admin);
        Ok(Client::with_budget(cluster, producer, consumer, budget))
    }

    fn insert(
        &self,
        credentials: &Credentials,
        client: Client,
        stop: CancellationToken,
    ) -> Result<ClientSupervision, PrincipalError> {
        let number = self.last_number.fetch_add(1, Ordering::Relaxed) + 1;
        let supervision = ClientSupervision {
            number,
            fault: client.cluster().authentication_fault(),
            is_refused: Arc::default(),
            idle: Arc::default(),
            stop: stop.clone(),
        };
        let user = Arc::new(UserClient {
            client,
            credentials: credentials.clone(),
            number,
            is_refused: Arc::clone(&supervision.is_refused),
            idle: Arc::clone(&supervision.idle),
            stop,
        });
        let now = Instant::now();
        let mut state = lock(&self.state);
        match state.table.insert(credentials.clone(), user, number, now) {
            true => Ok(supervision),
            false => Err(self.too_many_clients()),
        }
    }

    /// Until the client is not leased any more: it has been idle for long enough, another took its
    /// place, or the brokers refuse its credentials.
    async fn supervise(&self, credentials: Credentials, mut supervision: ClientSupervision) {
        let number = supervision.number;
        loop {
            let client_use = lock(&self.state).table.client_use(&credentials, number);
            let idle_until = match client_use {
                ClientUse::InUse => None,
                ClientUse::IdleUntil(at) => Some(at),
                ClientUse::Removed => return,
            };
            let idle_over = async {
                match idle_until {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = supervision.stop.cancelled() => return,
                fault = refusal(&mut supervision.fault) => {
                    let user = &credentials.username;
                    tracing::info!(user, %fault, "a user's sockets are closed");
                    supervision.is_refused.store(true, Ordering::Release);
                    lock(&self.state).table.remove(&credentials, number);
                    (self.on_refused)(number);
                    return;
                }
                () = idle_over => {
                    let now = Instant::now();
                    lock(&self.state).table.remove_idle(&credentials, number, now);
                }
                () = supervision.idle.notified() => {}
            }
        }
    }

    fn too_many_clients(&self) -> PrincipalError {
        let max = self.limits.clients_max;
        PrincipalError::TooManyClients { max }
    }
}

/// What is looked after of a user's client.
struct ClientSupervision {
    number: ClientNumber,
    fault: watch::Receiver<Option<AuthenticationFault>>,
    is_refused: Arc<AtomicBool>,
    idle: Arc<Notify>,
    stop: CancellationToken,
}

/// Why an authentication failed, as soon as one has.
async fn any_fault(
    fault: &mut watch::Receiver<Option<AuthenticationFault>>,
) -> AuthenticationFault {
    loop {
        if let Some(fault) = fault.borrow_and_update().clone() {
            return fault;
        }
        if fault.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// That the credentials themselves are refused, as soon as they are.
async fn refusal(fault: &mut watch::Receiver<Option<AuthenticationFault>>) -> AuthenticationFault {
    loop {
        let last = fault.borrow_and_update().clone();
        if let Some(refused @ AuthenticationFault::CredentialsRefused { .. }) = last {
            return refused;
        }
        if fault.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// A mechanism that the brokers lack, or a listener without SASL, is the proxy's own trouble.
fn error_of(fault: AuthenticationFault) -> PrincipalError {
    match fault {
        AuthenticationFault::CredentialsRefused { .. } => PrincipalError::Refused,
        other => PrincipalError::Unavailable {
            reason: other.to_string().into(),
        },
    }
}

#[cfg(test)]
mod tests;
