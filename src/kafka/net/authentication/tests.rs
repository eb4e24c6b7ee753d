//! Against a scripted broker.

use std::future::{pending, ready};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use kafka_protocol::messages::{
    ApiKey, HeartbeatRequest, HeartbeatResponse, SaslAuthenticateResponse, SaslHandshakeResponse,
};
use kafka_protocol::protocol::Decodable;
use secret::Secret;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::config::ClientConfig;
use crate::error::BrokerAddress;
use crate::fake::{self, FakeBroker, FakeResponse, ReceivedRequest};
use crate::net::pool::{ConnectionPurpose, Pool};
use crate::sasl::{Credentials, GssContext, GssContextProvider, TicketFault};
use crate::security::SecurityConfig;
use crate::topic::BrokerId;

/// Beyond what anything takes on a busy machine.
const LONG: Duration = Duration::from_secs(120);

fn plain() -> SaslConfig {
    SaslConfig::Plain(Credentials {
        username: "alice".to_owned(),
        password: Secret::new("hunter2"),
    })
}

fn pool(sasl: SaslConfig) -> Pool {
    let config = ClientConfig {
        security: SecurityConfig {
            tls: None,
            sasl: Some(Arc::new(sasl)),
        },
        ..ClientConfig::default()
    };
    let stop = CancellationToken::new();
    Pool::new(Arc::new(config), TaskTracker::new(), stop)
}

fn address(broker: &FakeBroker) -> BrokerAddress {
    BrokerAddress {
        id: BrokerId(-1),
        address: broker.address.to_string().into(),
    }
}

/// What a broker says to SaslHandshake and SaslAuthenticate.
struct Sasl {
    handshake: i16,
    authenticate: i16,
    message: &'static str,
    lifetime_ms: i64,
}

const ACCEPTS: Sasl = Sasl {
    handshake: 0,
    authenticate: 0,
    message: "",
    lifetime_ms: 0,
};

/// A broker that answers heartbeats with their correlation ids.
async fn broker(sasl: Sasl) -> FakeBroker {
    FakeBroker::start(move |request| answer(&sasl, request)).await
}

fn answer(sasl: &Sasl, request: &ReceivedRequest) -> FakeResponse {
    match ApiKey::try_from(request.key).expect("a known API") {
        ApiKey::SaslHandshake => {
            let mechanisms = ["SCRAM-SHA-256", "GSSAPI"].map(StrBytes::from_static_str);
            let response = SaslHandshakeResponse::default()
                .with_error_code(sasl.handshake)
                .with_mechanisms(mechanisms.to_vec());
            fake::response::<SaslHandshakeRequest>(request, &response)
        }
        ApiKey::SaslAuthenticate => {
            let message = (!sasl.message.is_empty()).then_some(sasl.message);
            let response = SaslAuthenticateResponse::default()
                .with_error_code(sasl.authenticate)
                .with_error_message(message.map(StrBytes::from_static_str))
                .with_session_lifetime_ms(sasl.lifetime_ms);
            fake::response::<SaslAuthenticateRequest>(request, &response)
        }
        ApiKey::Heartbeat => {
            let response = HeartbeatResponse::default().with_throttle_time_ms(0);
            let code = i16::try_from(request.correlation_id % 1000).expect("small");
            fake::response::<HeartbeatRequest>(request, &response.with_error_code(code))
        }
        other => panic!("{other:?}"),
    }
}

async fn fault(sasl: Sasl, config: SaslConfig) -> AuthenticationFault {
    let broker = broker(sasl).await;
    let pool = pool(config);
    let address = address(&broker);
    match pool.connection(&address, ConnectionPurpose::Control).await {
        Err(RequestError::AuthenticationFailed { fault, .. }) => fault,
        other => panic!("{other:?}"),
    }
}

fn keys(broker: &FakeBroker) -> Vec<i16> {
    let received = lock(&broker.received);
    received.iter().map(|request| request.key).collect()
}

#[tokio::test]
async fn nothing_is_sent_before_the_connection_is_authenticated() {
    let broker = broker(ACCEPTS).await;
    let pool = pool(plain());
    let connection = pool
        .connection(&address(&broker), ConnectionPurpose::Control)
        .await
        .expect("it is authenticated");
    let build = |_version| HeartbeatRequest::default();
    connection.call(build, LONG).await.expect("an answer");
    let expected = [
        ApiKey::ApiVersions,
        ApiKey::SaslHandshake,
        ApiKey::SaslAuthenticate,
        ApiKey::Heartbeat,
    ];
    assert_eq!(keys(&broker), expected.map(|key| key as i16));
    let mut said = broker.received_of(ApiKey::SaslAuthenticate)[0].body.clone();
    // The tagged fields of the header.
    bytes::Buf::advance(&mut said, 1);
    let said = SaslAuthenticateRequest::decode(&mut said, 2).expect("it can be read");
    assert_eq!(said.auth_bytes, &b"\0alice\0hunter2"[..]);
}

/// Has no ticket for anybody, and says for whom it was asked.
#[derive(Debug)]
struct NoTickets;

impl GssContextProvider for NoTickets {
    fn begin<'a>(
        &'a self,
        host: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn GssContext>, TicketFault>> {
        let fault = TicketFault {
            message: format!("none for {host}").into(),
            place: "krb5.conf",
        };
        ready(Err(fault)).boxed()
    }

    fn keep_fresh(&self) -> BoxFuture<'_, ()> {
        pending().boxed()
    }
}

#[tokio::test]
async fn without_a_ticket_for_the_brokers_host_nothing_is_said_to_it() {
    let fault = fault(ACCEPTS, SaslConfig::Gssapi(Arc::new(NoTickets))).await;
    let expected = "there is no Kerberos ticket for it: none for 127.0.0.1 (krb5.conf)";
    assert_eq!(fault.to_string(), expected);
}

#[tokio::test]
async fn a_refusal_is_reported_in_the_brokers_words_and_shows_no_secret() {
    let refused = Sasl {
        authenticate: AUTHENTICATION_FAILED,
        message: "Authentication failed: Invalid username or password",
        ..ACCEPTS
    };
    let refusal = fault(refused, plain()).await;
    let expected = "the credentials for PLAIN are refused: \
                    Authentication failed: Invalid username or password";
    assert_eq!(refusal.to_string(), expected);
    assert!(!format!("{refusal:?}").contains("hunter2"));
}

#[tokio::test]
async fn a_mechanism_that_is_not_enabled_is_answered_with_those_that_are() {
    let refusal = fault(
        Sasl {
            handshake: UNSUPPORTED_MECHANISM,
            ..ACCEPTS
        },
        plain(),
    )
    .await;
    assert_eq!(
        refusal.to_string(),
        "it has PLAIN not enabled, but SCRAM-SHA-256, GSSAPI (sasl.mechanism)"
    );
}

#[tokio::test]
async fn a_listener_without_sasl_is_called_that() {
    let refusal = fault(
        Sasl {
            handshake: ILLEGAL_STATE,
            ..ACCEPTS
        },
        plain(),
    )
    .await;
    assert_eq!(refusal, AuthenticationFault::SaslNotEnabled);
}

#[tokio::test]
async fn refused_credentials_are_tried_on_one_connection_at_a_time() {
    let broker = broker(Sasl {
        authenticate: AUTHENTICATION_FAILED,
        ..ACCEPTS
    })
    .await;
    let pool = pool(plain());
    let mut faults = pool.authentication_fault();
    let address = address(&broker);
    assert!(
        pool.connection(&address, ConnectionPurpose::Control)
            .await
            .is_err()
    );
    assert!(faults.borrow_and_update().is_some());
    // All purposes at once: each waits for its turn, and the waits grow.
    let purposes = [
        ConnectionPurpose::Produce,
        ConnectionPurpose::Heartbeat,
        ConnectionPurpose::Coordinator,
        ConnectionPurpose::LeaveGroup,
    ];
    let before = Instant::now();
    let attempts = purposes.map(|purpose| pool.connection(&address, purpose));
    for attempt in join_all(attempts).await {
        assert!(matches!(
            attempt,
            Err(RequestError::AuthenticationFailed { .. })
        ));
    }
    // 50, 100, 200 and 400 ms, each shorter by a fifth at most.
    assert!(before.elapsed() >= Duration::from_millis(600));
}

/// Sends heartbeats until the connection was authenticated so often; each has its own answer.
async fn beat_until_renewed(broker: &FakeBroker, pool: &Pool, times: usize) {
    let connection = pool
        .connection(&address(broker), ConnectionPurpose::Control)
        .await
        .expect("it is authenticated");
    while broker.received_of(ApiKey::SaslHandshake).len() < times {
        let beats = (0..10).map(|_| connection.call(|_| HeartbeatRequest::default(), LONG));
        let mut answers: Vec<_> = join_all(beats)
            .await
            .into_iter()
            .map(|answer| answer.expect("an answer").1.error_code)
            .collect();
        answers.sort_unstable();
        answers.dedup();
        assert_eq!(answers.len(), 10);
    }
}

#[tokio::test]
async fn a_session_is_renewed_without_a_request_in_between() {
    let broker = broker(Sasl {
        lifetime_ms: 1,
        ..ACCEPTS
    })
    .await;
    let pool = pool(plain());
    beat_until_renewed(&broker, &pool, 5).await;
    let keys = keys(&broker);
    let handshake = ApiKey::SaslHandshake as i16;
    for (at, _) in keys
        .iter()
        .enumerate()
        .filter(|(_, key)| **key == handshake)
    {
        if let Some(next) = keys.get(at + 1) {
            assert_eq!(*next, ApiKey::SaslAuthenticate as i16);
        }
    }
    assert_eq!(
        lock(&broker.received).iter().map(|r| r.connection).max(),
        Some(0)
    );
}

#[tokio::test]
async fn a_session_that_nobody_uses_is_not_renewed() {
    let broker = broker(Sasl {
        lifetime_ms: 1,
        ..ACCEPTS
    })
    .await;
    let pool = pool(plain());
    beat_until_renewed(&broker, &pool, 2).await;
    let before = broker.received_of(ApiKey::SaslHandshake).len();
    // Other sessions come and go meanwhile.
    let other = self::pool(plain());
    beat_until_renewed(&broker, &other, before + 5).await;
    let all = broker.received_of(ApiKey::SaslHandshake);
    let of_first = all.iter().filter(|request| request.connection == 0);
    assert_eq!(of_first.count(), before);
}

#[tokio::test]
async fn a_renewal_that_comes_too_soon_is_not_taken_for_a_listener_without_sasl() {
    let handshakes = std::sync::atomic::AtomicUsize::new(0);
    let broker = FakeBroker::start(move |request| {
        let is_again = request.key == ApiKey::SaslHandshake as i16
            && handshakes.fetch_add(1, std::sync::atomic::Ordering::Relaxed) > 0;
        let sasl = Sasl {
            handshake: if is_again { ILLEGAL_STATE } else { 0 },
            lifetime_ms: 1,
            ..ACCEPTS
        };
        answer(&sasl, request)
    })
    .await;
    let pool = pool(plain());
    let address = address(&broker);
    let connecting = pool.connection(&address, ConnectionPurpose::Control);
    let connection = connecting.await.expect("it is authenticated");
    let error = loop {
        let build = |_version| HeartbeatRequest::default();
        if let Err(error) = connection.call(build, LONG).await {
            break error;
        }
    };
    let said = "PLAIN: the session cannot be renewed within a second";
    assert!(error.to_string().contains(said), "{error}");
}

#[tokio::test]
async fn a_renewal_that_is_refused_ends_the_connection_and_is_published() {
    let accepted = std::sync::atomic::AtomicUsize::new(0);
    let broker = FakeBroker::start(move |request| {
        let is_first = request.key != ApiKey::SaslAuthenticate as i16
            || accepted.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
        let sasl = Sasl {
            authenticate: if is_first { 0 } else { AUTHENTICATION_FAILED },
            lifetime_ms: 1,
            ..ACCEPTS
        };
        answer(&sasl, request)
    })
    .await;
    let pool = pool(plain());
    let connection = pool
        .connection(&address(&broker), ConnectionPurpose::Control)
        .await
        .expect("it is authenticated");
    let mut faults = pool.authentication_fault();
    let error = loop {
        let build = |_version| HeartbeatRequest::default();
        if let Err(error) = connection.call(build, LONG).await {
            break error;
        }
    };
    assert!(error.to_string().contains("are refused"), "{error}");
    faults
        .wait_for(Option::is_some)
        .await
        .expect("it is published");
    assert!(connection.is_closed());
}
