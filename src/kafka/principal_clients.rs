//! The clients of all principals: the proxy's own, and one for each user who has sockets open.
//!
//! ```text
//! credentials ─▶ lease ─┬─ known ──────────────────────────▶ ClientLease ─▶ Client
//!                       └─ new ─▶ authenticate, once for all ─┬─▶ client of its own
//!                                 who come with the same       ├─▶ another token for that client
//!                                                              └─▶ refused: nothing is kept
//! ```
//!
//! # Invariants
//! - Principals share no connection, metadata, producer, fetched record or coordinator; they share
//!   the memory for fetched records.
//! - A client is one of a user name *and* a password: who guesses wrong gets none, and keeps the one
//!   who knows it waiting for nothing, since backoff after a refusal is the client's.
//! - A client is one of what all tokens of an identity say. Each token has been accepted by the
//!   brokers before it is served: they may look at more than whoever has verified it here. Two tokens
//!   of one subject that differ in more than their times, as in their scope, have two clients.
//! - A client outlives its last lease by five minutes, unless another user needs the room; one whose
//!   credentials the brokers refuse later is not leased any more, and its users are told.

mod client_table;
mod user_tokens;

use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use runtime::mutex::lock;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::client_table::{ClientKey, ClientTable, ClientUse};
use self::user_tokens::UserTokens;
use super::client::Client;
use super::config::{ClientConfig, ConsumerConfig, ProducerConfig, RequestOverrides};
use super::error::AuthenticationFault;
use super::fetcher::FetchBudget;
use super::sasl::{TokenProvider, UserCredentials, UserSasl, UserToken};
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
    /// The token has expired: the brokers would end a session with it at once.
    #[error("the token has expired")]
    Expired,
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
    authenticating: HashMap<UserCredentials, watch::Receiver<AuthenticationResult>>,
}

/// `None` while it is under way.
type AuthenticationResult = Option<Result<(), PrincipalError>>;

/// A user's client; it stops when it is dropped.
struct UserClient {
    client: Client,
    /// What it authenticates with, if that is renewed.
    tokens: Option<Arc<UserTokens>>,
    number: ClientNumber,
    is_refused: Arc<AtomicBool>,
    /// Notified when nobody uses it any more, or its token is another one.
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

    /// Whether it goes on for as long as it is [renewed](Self::renew).
    pub fn is_by_token(&self) -> bool {
        match &self.0 {
            LeasedClient::Own(_) => false,
            LeasedClient::User(_, user) => user.tokens.is_some(),
        }
    }

    /// Goes on with another token of the same user, which the brokers accept: whoever uses this
    /// client does, if that token is good for longer. Nothing changes for a client that is not by
    /// token. Cancel-safe.
    ///
    /// # Errors
    /// Any [`PrincipalError`] but `TooManyClients`, after ten seconds at the latest. Then the client
    /// is as it was.
    pub async fn renew(&self, token: &UserToken) -> Result<(), PrincipalError> {
        let LeasedClient::User(shared, user) = &self.0 else {
            return Ok(());
        };
        let Some(tokens) = &user.tokens else {
            return Ok(());
        };
        if tokens.has(token) {
            return Ok(());
        }
        let permit = shared.authentication_permit(Instant::now() + AUTHENTICATION_TIMEOUT);
        let _permit = permit.await?;
        let stop = shared.stop.child_token();
        let _stop_on_drop = stop.clone().drop_guard();
        let credentials = UserCredentials::Token(token.clone());
        shared.verify(&credentials, &stop).await?;
        if tokens.replace(token) {
            // What the token says of the user may be something else than before.
            let key = ClientKey::from(&credentials);
            lock(&shared.state).table.change_key(user.number, key);
            user.idle.notify_one();
        }
        Ok(())
    }
}

/// Another use of it.
impl Clone for ClientLease {
    fn clone(&self) -> Self {
        Self(match &self.0 {
            LeasedClient::Own(client) => LeasedClient::Own(Arc::clone(client)),
            LeasedClient::User(shared, user) => {
                let table = &mut lock(&shared.state).table;
                table.add_lease(user.number);
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
            if table.release(user.number, Instant::now()) {
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

    /// The use of a user's client. One who has none, or comes with a token that it does not have, is
    /// authenticated first, in one attempt that all share who come with the same credentials
    /// meanwhile. Cancel-safe.
    ///
    /// # Errors
    /// Any [`PrincipalError`], after five seconds at the latest.
    pub async fn lease(
        &self,
        credentials: &UserCredentials,
    ) -> Result<ClientLease, PrincipalError> {
        let deadline = Instant::now() + AUTHENTICATION_TIMEOUT;
        loop {
            let mut result = match self.find(credentials) {
                FoundClient::Open(lease) => return Ok(lease),
                FoundClient::Authenticating(result) => result,
                FoundClient::None => {
                    let permit = self.shared.authentication_permit(deadline).await?;
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
            // Whichever token it goes on with: this one is accepted, too.
            if let Some(lease) = self.lease_known(&credentials.into()) {
                return Ok(lease);
            }
        }
    }

    fn find(&self, credentials: &UserCredentials) -> FoundClient {
        let state = lock(&self.shared.state);
        let key = credentials.into();
        if let Some(user) = state.table.get(&key)
            && user.is_accepted_with(credentials)
        {
            drop(state);
            return match self.lease_known(&key) {
                Some(lease) => FoundClient::Open(lease),
                None => FoundClient::None,
            };
        }
        match state.authenticating.get(credentials) {
            Some(result) => FoundClient::Authenticating(result.clone()),
            None => FoundClient::None,
        }
    }

    fn lease_known(&self, key: &ClientKey) -> Option<ClientLease> {
        let user = lock(&self.shared.state).table.lease(key)?;
        let shared = Arc::clone(&self.shared);
        Some(ClientLease(LeasedClient::User(shared, user)))
    }

    /// Begins to authenticate, unless somebody else has meanwhile.
    fn begin(
        &self,
        credentials: &UserCredentials,
        permit: OwnedSemaphorePermit,
    ) -> Result<watch::Receiver<AuthenticationResult>, PrincipalError> {
        let shared = &self.shared;
        let mut state = lock(&shared.state);
        if let Some(result) = state.authenticating.get(credentials) {
            return Ok(result.clone());
        }
        if state.table.get(&credentials.into()).is_none() && !state.table.has_room() {
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

impl UserClient {
    /// Whether the brokers are known to accept these credentials, which are of its key.
    fn is_accepted_with(&self, credentials: &UserCredentials) -> bool {
        match (credentials, &self.tokens) {
            (UserCredentials::Token(token), Some(tokens)) => tokens.has(token),
            _ => true,
        }
    }

    /// Goes on with that token if it is one that is good for longer.
    fn take_token(&self, credentials: &UserCredentials) {
        if let (UserCredentials::Token(token), Some(tokens)) = (credentials, &self.tokens)
            && tokens.replace(token)
        {
            self.idle.notify_one();
        }
    }
}

impl ClientsShared {
    /// Waits for a turn to authenticate: who guesses in bulk keeps the brokers no busier than that.
    async fn authentication_permit(
        &self,
        deadline: Instant,
    ) -> Result<OwnedSemaphorePermit, PrincipalError> {
        let permit = Arc::clone(&self.authentications).acquire_owned();
        match timeout_at(deadline, permit).await {
            Ok(permit) => permit.map_err(|_closed| PrincipalError::Stopped),
            Err(_) => Err(PrincipalError::TooManyAuthentications {
                max: self.limits.authentications_max,
            }),
        }
    }

    /// Authenticates a user, tells those who wait for it, and looks after the client from then on.
    async fn authenticate(
        self: Arc<Self>,
        credentials: UserCredentials,
        result: watch::Sender<AuthenticationResult>,
        permit: OwnedSemaphorePermit,
    ) {
        let stop = self.stop.child_token();
        // Whatever becomes of it, nothing goes on that nobody knows of.
        let stop_on_drop = stop.clone().drop_guard();
        let verified = self.verify(&credentials, &stop).await;
        drop(permit);
        let inserted = verified.and_then(|user| self.insert(&credentials, user, &stop));
        let (outcome, supervision) = match inserted {
            Ok(supervision) => (Ok(()), supervision),
            Err(error) => (Err(error), None),
        };
        lock(&self.state).authenticating.remove(&credentials);
        result.send_replace(Some(outcome));
        if let Some(supervision) = supervision {
            stop_on_drop.disarm();
            self.supervise(credentials.user(), supervision).await;
        }
    }

    /// The cluster as the user sees it, once the brokers have accepted the credentials.
    async fn verify(
        &self,
        credentials: &UserCredentials,
        stop: &CancellationToken,
    ) -> Result<VerifiedUser, PrincipalError> {
        let own = self.own.cluster();
        let (sasl, tokens) = match credentials {
            UserCredentials::Password(credentials) => {
                (UserSasl::Password(credentials.clone()), None)
            }
            UserCredentials::Token(token) if token.has_expired() => {
                return Err(PrincipalError::Expired);
            }
            UserCredentials::Token(token) => {
                let own = own.config().security.sasl.as_ref();
                let extensions = own.map(|sasl| sasl.extensions()).unwrap_or_default();
                let tokens = Arc::new(UserTokens::new(token.clone(), extensions));
                let provider = Arc::clone(&tokens) as Arc<dyn TokenProvider>;
                (UserSasl::Tokens(provider), Some(tokens))
            }
        };
        let cluster = own.for_user(credentials.user(), sasl, stop.clone())?;
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
        Ok(VerifiedUser { cluster, tokens })
    }

    /// A client for the user, unless there is one, which has the token then.
    fn insert(
        &self,
        credentials: &UserCredentials,
        VerifiedUser { cluster, tokens }: VerifiedUser,
        stop: &CancellationToken,
    ) -> Result<Option<ClientSupervision>, PrincipalError> {
        let key = ClientKey::from(credentials);
        let mut state = lock(&self.state);
        if let Some(user) = state.table.get(&key) {
            user.take_token(credentials);
            return Ok(None);
        }
        let number = self.last_number.fetch_add(1, Ordering::Relaxed) + 1;
        let supervision = ClientSupervision {
            number,
            fault: cluster.authentication_fault(),
            tokens: tokens.clone(),
            is_refused: Arc::default(),
            idle: Arc::default(),
            stop: stop.clone(),
        };
        let settings = &self.settings;
        let (producer, consumer) = (settings.producer.clone(), settings.consumer.clone());
        let budget: FetchBudget = self.own.fetcher().budget().clone();
        let cluster = cluster.with_requests(&settings.admin);
        let user = Arc::new(UserClient {
            client: Client::with_budget(cluster, producer, consumer, budget),
            tokens,
            number,
            is_refused: Arc::clone(&supervision.is_refused),
            idle: Arc::clone(&supervision.idle),
            stop: stop.clone(),
        });
        match state.table.insert(key, user, number, Instant::now()) {
            true => Ok(Some(supervision)),
            false => Err(self.too_many_clients()),
        }
    }

    /// Until the client has stopped: it has been idle for long enough, another took its place, or
    /// the brokers refuse its credentials.
    async fn supervise(&self, user: &str, mut supervision: ClientSupervision) {
        let number = supervision.number;
        loop {
            let client_use = lock(&self.state).table.client_use(number);
            let idle_until = match client_use {
                ClientUse::IdleUntil(at) => Some(at.min(supervision.token_end())),
                ClientUse::InUse | ClientUse::Removed => None,
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
                fault = refusal(&mut supervision.fault, supervision.tokens.as_deref()) => {
                    tracing::info!(user, %fault, "a user's sockets are closed");
                    supervision.is_refused.store(true, Ordering::Release);
                    lock(&self.state).table.remove(number);
                    (self.on_refused)(number);
                    return;
                }
                () = idle_over => {
                    let has_expired = supervision.tokens.as_ref().is_some_and(|t| t.has_expired());
                    let table = &mut lock(&self.state).table;
                    match has_expired {
                        true => table.remove_unused(number),
                        false => table.remove_idle(number, Instant::now()),
                    }
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
    tokens: Option<Arc<UserTokens>>,
    is_refused: Arc<AtomicBool>,
    idle: Arc<Notify>,
    stop: CancellationToken,
}

impl ClientSupervision {
    /// When the brokers take it for nobody any more, unless there is another token by then: no
    /// client is kept for that.
    fn token_end(&self) -> Instant {
        let end = self.tokens.as_ref().map(|tokens| tokens.expires_at());
        let left = end.map(|end| end.duration_since(SystemTime::now()).unwrap_or_default());
        // Longer than a client is kept that nobody uses.
        Instant::now() + left.map_or(IDLE_MAX * 2, |left| left.min(IDLE_MAX * 2))
    }
}

/// A user whom the brokers accept.
struct VerifiedUser {
    cluster: Cluster,
    tokens: Option<Arc<UserTokens>>,
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

/// That the credentials themselves are refused, as soon as they are; of tokens the one that is the
/// user's now.
async fn refusal(
    fault: &mut watch::Receiver<Option<AuthenticationFault>>,
    tokens: Option<&UserTokens>,
) -> AuthenticationFault {
    loop {
        let last = fault.borrow_and_update().clone();
        if let Some(refused @ AuthenticationFault::CredentialsRefused { .. }) = last
            && tokens.is_none_or(UserTokens::is_refused)
        {
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
