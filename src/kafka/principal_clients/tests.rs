//! Against a scripted broker with PLAIN and OAUTHBEARER.

use futures_util::future::join_all;
use kafka_protocol::messages::{
    ApiKey, MetadataRequest, SaslAuthenticateRequest, SaslAuthenticateResponse,
    SaslHandshakeRequest, SaslHandshakeResponse,
};
use kafka_protocol::protocol::Decodable;
use secret::Secret;
use tokio::time::timeout;

use super::*;
use crate::error::RequestError;
use crate::fake::{self, FakeBroker, FakeResponse, ReceivedRequest};
use crate::sasl::{Credentials, SaslConfig, TokenIdentity};
use crate::security::SecurityConfig;

/// Beyond what anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
const REFUSED: i16 = 58;

fn password_of(username: &str, password: &str) -> Credentials {
    Credentials {
        username: username.to_owned(),
        password: Secret::new(password),
    }
}

fn credentials(username: &str, password: &str) -> UserCredentials {
    UserCredentials::Password(password_of(username, password))
}

/// Alice's, good for so many seconds, and of that identity.
fn token_of(identity: u8, text: &str, seconds: u64) -> UserToken {
    UserToken {
        user: "alice".into(),
        identity: TokenIdentity([identity; 32]),
        token: Secret::new(text),
        expires_at: SystemTime::now() + Duration::from_secs(seconds),
    }
}

fn by_token(identity: u8, text: &str, seconds: u64) -> UserCredentials {
    UserCredentials::Token(token_of(identity, text, seconds))
}

/// A broker that knows the proxy, whoever says its name with `-secret` behind it, and tokens that
/// do not begin with `bad`, until it refuses all.
struct SecureBroker {
    broker: FakeBroker,
    refuses_all: Arc<AtomicBool>,
    /// The names of those who authenticated, or tried to, and tokens.
    names: Arc<Mutex<Vec<String>>>,
}

impl SecureBroker {
    async fn start() -> Self {
        Self::with_lifetime(0).await
    }

    /// Sessions last for so many milliseconds, for good if that is 0.
    async fn with_lifetime(lifetime_ms: i64) -> Self {
        let refuses_all = Arc::new(AtomicBool::new(false));
        let names: Arc<Mutex<Vec<String>>> = Arc::default();
        let (refuses, hears) = (Arc::clone(&refuses_all), Arc::clone(&names));
        let broker = FakeBroker::start(move |request| match ApiKey::try_from(request.key) {
            Ok(ApiKey::SaslHandshake) => {
                let response = SaslHandshakeResponse::default();
                fake::response::<SaslHandshakeRequest>(request, &response)
            }
            Ok(ApiKey::SaslAuthenticate) => {
                let said = said(request);
                let (name, is_known) = match said.strip_prefix("n,,\x01auth=Bearer ") {
                    Some(token) => (token.trim_end_matches('\x01'), !token.starts_with("bad")),
                    None => {
                        let (name, password) = said.split_once('\0').unwrap();
                        (name, password == format!("{name}-secret"))
                    }
                };
                lock(&hears).push(name.to_owned());
                let code = match is_known && !refuses.load(Ordering::Relaxed) {
                    true => 0,
                    false => REFUSED,
                };
                let response = SaslAuthenticateResponse::default()
                    .with_error_code(code)
                    .with_session_lifetime_ms(lifetime_ms);
                fake::response::<SaslAuthenticateRequest>(request, &response)
            }
            Ok(ApiKey::Metadata) => {
                let none = fake::metadata_response(&[], Vec::new());
                fake::response::<MetadataRequest>(request, &none)
            }
            _ => FakeResponse::Close,
        })
        .await;
        Self {
            broker,
            refuses_all,
            names,
        }
    }

    fn clients(&self, limits: PrincipalLimits) -> PrincipalClients {
        self.clients_telling(limits, |_| {})
    }

    fn clients_telling(
        &self,
        limits: PrincipalLimits,
        on_refused: impl Fn(ClientNumber) + Send + Sync + 'static,
    ) -> PrincipalClients {
        let own = SaslConfig::Plain(password_of("proxy", "proxy-secret"));
        let client = ClientConfig {
            bootstrap_servers: vec![self.broker.address.to_string()],
            security: SecurityConfig {
                tls: None,
                sasl: Some(Arc::new(own)),
            },
            ..ClientConfig::default()
        };
        clients(client, limits, on_refused)
    }

    fn attempts_of(&self, name: &str) -> usize {
        let names = lock(&self.names);
        names.iter().filter(|other| *other == name).count()
    }
}

fn said(request: &ReceivedRequest) -> String {
    let mut body = request.body.clone();
    // Of a flexible version: the tagged fields of its header.
    if request.version >= 2 {
        bytes::Buf::advance(&mut body, 1);
    }
    let request = SaslAuthenticateRequest::decode(&mut body, request.version).unwrap();
    let said = String::from_utf8(request.auth_bytes.to_vec()).unwrap();
    said.trim_start_matches('\0').to_owned()
}

fn clients(
    client: ClientConfig,
    limits: PrincipalLimits,
    on_refused: impl Fn(ClientNumber) + Send + Sync + 'static,
) -> PrincipalClients {
    let settings = ClientSettings {
        client,
        admin: RequestOverrides::default(),
        producer: ProducerConfig::default(),
        consumer: ConsumerConfig::default(),
    };
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    PrincipalClients::new(settings, limits, on_refused, tasks, stop)
}

const LIMITS: PrincipalLimits = PrincipalLimits {
    clients_max: 10,
    authentications_max: 10,
};

#[tokio::test]
async fn those_who_come_with_the_same_credentials_share_a_client_and_one_authentication() {
    let broker = SecureBroker::start().await;
    let clients = broker.clients(LIMITS);
    let alice = credentials("alice", "alice-secret");
    let leases = join_all((0..5).map(|_| clients.lease(&alice))).await;
    let numbers: Vec<_> = leases
        .iter()
        .map(|l| l.as_ref().unwrap().number())
        .collect();
    assert_eq!(numbers, [Some(1); 5]);
    assert_eq!(broker.attempts_of("alice"), 1);
    let bob = clients
        .lease(&credentials("bob", "bob-secret"))
        .await
        .unwrap();
    assert_eq!(bob.number(), Some(2));
    assert_eq!(bob.cluster().principal(), &Principal::User("bob".into()));
    assert_eq!(clients.lease_own().number(), None);
}

#[tokio::test]
async fn a_wrong_guess_leaves_nothing_behind_and_keeps_nobody_waiting() {
    let broker = SecureBroker::start().await;
    let clients = broker.clients(LIMITS);
    for _ in 0..3 {
        let guess = clients.lease(&credentials("alice", "guess")).await;
        assert_eq!(guess.unwrap_err(), PrincipalError::Refused);
    }
    assert_eq!(clients.users(), 0);
    assert!(lock(&clients.shared.state).authenticating.is_empty());
    // No wait after a refusal: each of them was tried, and the right one is at once.
    assert_eq!(broker.attempts_of("alice"), 3);
    clients
        .lease(&credentials("alice", "alice-secret"))
        .await
        .unwrap();
    assert_eq!(broker.attempts_of("alice"), 4);
}

#[tokio::test(start_paused = true)]
async fn a_client_stops_five_minutes_after_its_last_lease() {
    let broker = SecureBroker::start().await;
    let clients = broker.clients(LIMITS);
    let alice = credentials("alice", "alice-secret");
    let lease = clients.lease(&alice).await.unwrap();
    let stop = lease.cluster().stop().clone();
    sleep(IDLE_MAX * 2).await;
    assert_eq!(clients.users(), 1);
    let until = Instant::now() + IDLE_MAX;
    drop(lease);
    timeout(PATIENCE * 10, stop.cancelled())
        .await
        .expect("in time");
    assert!(Instant::now() >= until);
    assert_eq!(clients.users(), 0);
}

#[tokio::test]
async fn a_user_beyond_the_limit_gets_a_client_only_when_another_needs_none() {
    let broker = SecureBroker::start().await;
    let clients = broker.clients(PrincipalLimits {
        clients_max: 1,
        ..LIMITS
    });
    let alice = clients.lease(&credentials("alice", "alice-secret")).await;
    let bob = credentials("bob", "bob-secret");
    let refused = clients.lease(&bob).await.unwrap_err();
    assert_eq!(refused, PrincipalError::TooManyClients { max: 1 });
    assert_eq!(broker.attempts_of("bob"), 0);
    let stop = alice.as_ref().unwrap().cluster().stop().clone();
    drop(alice);
    clients.lease(&bob).await.unwrap();
    assert!(stop.is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn who_finds_no_turn_to_authenticate_in_time_is_told_so() {
    let broker = SecureBroker::start().await;
    let clients = broker.clients(PrincipalLimits {
        authentications_max: 1,
        ..LIMITS
    });
    let turn = clients.shared.authentication_permit(Instant::now()).await;
    let alice = credentials("alice", "alice-secret");
    let refused = clients.lease(&alice).await.unwrap_err();
    assert_eq!(refused, PrincipalError::TooManyAuthentications { max: 1 });
    drop(turn);
    clients.lease(&alice).await.unwrap();
}

#[tokio::test]
async fn a_client_whose_credentials_are_refused_later_is_not_leased_any_more() {
    let broker = SecureBroker::with_lifetime(1_000).await;
    let (refused, mut refusals) = watch::channel(0);
    let clients = broker.clients_telling(LIMITS, move |number| {
        refused.send_replace(number);
    });
    let alice = credentials("alice", "alice-secret");
    let lease = clients.lease(&alice).await.unwrap();
    broker.refuses_all.store(true, Ordering::Relaxed);
    let refused = refusals.wait_for(|number| Some(*number) == lease.number());
    timeout(PATIENCE, refused).await.expect("in time").unwrap();
    assert!(lease.is_refused());
    let refused = clients.lease(&alice).await.unwrap_err();
    assert_eq!(refused, PrincipalError::Refused);
    let stop = lease.cluster().stop().clone();
    assert!(!stop.is_cancelled(), "those who have it close first");
    drop(lease);
    assert!(stop.is_cancelled());
}

#[tokio::test]
async fn without_a_mechanism_for_passwords_no_user_gets_a_connection() {
    let broker = SecureBroker::start().await;
    let client = ClientConfig {
        bootstrap_servers: vec![broker.broker.address.to_string()],
        ..ClientConfig::default()
    };
    let clients = clients(client, LIMITS, |_| {});
    let alice = clients.lease(&credentials("alice", "alice-secret")).await;
    let unsupported = PrincipalError::Unsupported(UsersUnsupported::WithoutSasl);
    assert_eq!(alice.unwrap_err(), unsupported);
    assert_eq!(broker.attempts_of("alice"), 0);
}

#[tokio::test]
async fn tokens_of_one_identity_share_a_client_once_the_brokers_have_accepted_each() {
    let broker = SecureBroker::start().await;
    let clients = broker.clients(LIMITS);
    let first = by_token(1, "first", 100);
    let leases = join_all((0..3).map(|_| clients.lease(&first))).await;
    assert!(
        leases
            .iter()
            .all(|l| l.as_ref().unwrap().number() == Some(1))
    );
    assert_eq!(broker.attempts_of("first"), 1);
    // The one that is good for longer is what it goes on with; each is shown to the brokers.
    for (text, seconds) in [("longer", 200), ("shorter", 50), ("longer", 200)] {
        let lease = clients.lease(&by_token(1, text, seconds)).await.unwrap();
        assert_eq!(lease.number(), Some(1));
        assert_eq!(broker.attempts_of(text), 1);
    }
    let refused = clients.lease(&by_token(1, "bad", 300)).await.unwrap_err();
    assert_eq!(refused, PrincipalError::Refused);
    assert!(!leases[0].as_ref().unwrap().is_refused());
    // Whatever else a token says may be worth less, or more, to the brokers.
    let other = clients.lease(&by_token(2, "other", 100)).await.unwrap();
    assert_eq!(other.number(), Some(2));
    assert_eq!(
        other.cluster().principal(),
        &Principal::User("alice".into())
    );
    assert_eq!(clients.users(), 2);
}

#[tokio::test]
async fn tokens_that_come_together_for_a_user_without_a_client_get_one() {
    let broker = SecureBroker::start().await;
    let clients = broker.clients(LIMITS);
    let tokens: Vec<_> = (0..5)
        .map(|n| by_token(1, &format!("t{n}"), 100 + n))
        .collect();
    let leases = join_all(tokens.iter().map(|token| clients.lease(token))).await;
    let numbers: Vec<_> = leases
        .iter()
        .map(|l| l.as_ref().unwrap().number())
        .collect();
    assert!(
        numbers.iter().all(|number| *number == numbers[0]),
        "{numbers:?}"
    );
    assert_eq!(clients.users(), 1);
}

#[tokio::test]
async fn a_renewed_token_is_what_a_client_goes_on_with() {
    let broker = SecureBroker::with_lifetime(1_000).await;
    let clients = broker.clients(LIMITS);
    let lease = clients.lease(&by_token(1, "first", 100)).await.unwrap();
    assert!(lease.is_by_token());
    let refused = lease.renew(&token_of(1, "bad", 200)).await.unwrap_err();
    assert_eq!(refused, PrincipalError::Refused);
    let expired = lease.renew(&token_of(1, "expired", 0)).await.unwrap_err();
    assert_eq!(expired, PrincipalError::Expired);
    lease.renew(&token_of(1, "second", 200)).await.unwrap();
    assert_eq!(broker.attempts_of("second"), 1);
    let before = broker.attempts_of("first");
    // Again by what the next session begins with.
    let ask = async {
        while broker.attempts_of("second") < 2 {
            let build = |_| MetadataRequest::default();
            lease.cluster().call_any(build, PATIENCE).await.unwrap();
        }
    };
    timeout(PATIENCE, ask).await.expect("in time");
    assert_eq!(broker.attempts_of("first"), before);
    assert_eq!(broker.attempts_of("expired"), 0);
    assert!(!lease.is_refused());
}

#[tokio::test]
async fn a_client_with_a_token_of_another_identity_is_nobodys_who_comes_with_the_former_one() {
    let broker = SecureBroker::start().await;
    let clients = broker.clients(LIMITS);
    let lease = clients.lease(&by_token(1, "first", 100)).await.unwrap();
    lease.renew(&token_of(2, "second", 200)).await.unwrap();
    let former = clients.lease(&by_token(1, "first", 100)).await.unwrap();
    assert_eq!(former.number(), Some(2));
    let same = clients.lease(&by_token(2, "second", 200)).await.unwrap();
    assert_eq!(same.number(), Some(1));
}

#[tokio::test]
async fn a_client_whose_token_has_expired_connects_no_more_and_is_not_kept() {
    let broker = SecureBroker::start().await;
    let clients = broker.clients(LIMITS);
    let expired = clients.lease(&by_token(1, "expired", 0)).await.unwrap_err();
    assert_eq!(expired, PrincipalError::Expired);
    assert_eq!(broker.attempts_of("expired"), 0);
    let lease = clients.lease(&by_token(1, "short", 2)).await.unwrap();
    let ask = async || {
        let build = |_| MetadataRequest::default();
        lease.cluster().call_any(build, PATIENCE).await
    };
    let ended = async { while ask().await.is_ok() {} };
    timeout(PATIENCE, ended).await.expect("in time");
    // Whoever tried to connect would find nobody.
    drop(broker);
    match ask().await.unwrap_err() {
        RequestError::AuthenticationFailed { fault, .. } => {
            assert!(matches!(fault, AuthenticationFault::NoToken(_)), "{fault}");
        }
        error => panic!("{error}"),
    }
    assert!(!lease.is_refused());
    let stop = lease.cluster().stop().clone();
    drop(lease);
    timeout(PATIENCE, stop.cancelled()).await.expect("in time");
    assert_eq!(clients.users(), 0);
}

#[test]
fn nothing_prints_a_password() {
    for credentials in [credentials("alice", "hunter2"), by_token(1, "hunter2", 9)] {
        let shown = format!("{credentials:?}");
        assert!(
            shown.contains("alice") && !shown.contains("hunter2"),
            "{shown}"
        );
    }
}
