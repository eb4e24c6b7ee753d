//! A connection against a scripted broker.

use std::sync::atomic::AtomicBool;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::future::join_all;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, FetchRequest, HeartbeatRequest,
    HeartbeatResponse, MetadataRequest, MetadataResponse,
};
use runtime::mutex::lock;

use super::*;
use crate::config::ClientConfig;
use crate::fake::{self, FakeBroker, FakeResponse, ReceivedRequest};
use crate::net::pool::{ConnectionPurpose, Pool};
use crate::topic::BrokerId;

/// Beyond what anything takes on a busy machine.
const LONG: Duration = Duration::from_secs(120);

fn pool(config: ClientConfig) -> Pool {
    Pool::new(
        Arc::new(config),
        TaskTracker::new(),
        CancellationToken::new(),
    )
}

fn endpoint(broker: &FakeBroker) -> BrokerAddress {
    BrokerAddress {
        id: BrokerId(1),
        address: broker.address.to_string().into(),
    }
}

async fn connect(broker: &FakeBroker) -> Connection {
    let pool = pool(ClientConfig::default());
    let endpoint = endpoint(broker);
    pool.connection(&endpoint, ConnectionPurpose::Control)
        .await
        .unwrap()
}

async fn heartbeat(connection: &Connection, timeout: Duration) -> ResponseFuture<HeartbeatRequest> {
    let request = HeartbeatRequest::default();
    connection.send(4, &request, timeout).await.unwrap()
}

/// Waits until the broker has read so many requests of that API.
async fn read(broker: &FakeBroker, api: ApiKey, count: usize) {
    while broker.received_of(api).len() < count {
        tokio::task::yield_now().await;
    }
}

/// An answer that tells by its error code which request it belongs to.
fn numbered(request: &ReceivedRequest) -> Bytes {
    let code = i16::try_from(request.correlation_id).unwrap();
    let response = HeartbeatResponse::default().with_error_code(code);
    fake::response_frame::<HeartbeatRequest>(request, &response)
}

fn framed(frames: &[Bytes]) -> Bytes {
    let mut bytes = BytesMut::new();
    for frame in frames {
        bytes.put_i32(i32::try_from(frame.len()).unwrap());
        bytes.put_slice(frame);
    }
    bytes.freeze()
}

/// Answers nothing until `count` requests have come, then all of them at once.
async fn answers_in_bulk(count: usize) -> FakeBroker {
    let waiting = std::sync::Mutex::new(Vec::new());
    FakeBroker::start(move |request| {
        let mut waiting = lock(&waiting);
        waiting.push(numbered(request));
        if waiting.len() < count {
            return FakeResponse::Silence;
        }
        FakeResponse::Raw(framed(&std::mem::take(&mut *waiting)))
    })
    .await
}

#[tokio::test]
async fn requests_are_pipelined_and_responses_go_to_their_callers_in_order() {
    let broker = answers_in_bulk(3).await;
    let connection = connect(&broker).await;
    let mut replies = Vec::new();
    for _ in 0..3 {
        replies.push(heartbeat(&connection, LONG).await);
    }
    let codes = join_all(replies).await;
    let codes: Vec<i16> = codes.into_iter().map(|r| r.unwrap().error_code).collect();
    assert_eq!(codes, [1, 2, 3]);
    assert_eq!(connection.in_flight(), 0);
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_shift_the_responses_of_others() {
    let broker = answers_in_bulk(3).await;
    let connection = connect(&broker).await;
    let first = heartbeat(&connection, LONG).await;
    drop(heartbeat(&connection, LONG).await);
    let third = heartbeat(&connection, LONG).await;
    drop(first);
    assert_eq!(third.await.unwrap().error_code, 3);
    assert_eq!(connection.in_flight(), 0);
    assert!(!connection.is_closed());
}

#[tokio::test]
async fn a_request_whose_time_is_up_ends_the_connection() {
    let broker = FakeBroker::start(|_| FakeResponse::Silence).await;
    let connection = connect(&broker).await;
    let patient = heartbeat(&connection, LONG).await;
    let hasty = heartbeat(&connection, LONG / 2).await;
    read(&broker, ApiKey::Heartbeat, 2).await;
    // From here on only timers move anything.
    tokio::time::pause();
    let error = hasty.await.unwrap_err();
    assert!(
        matches!(
            error,
            RequestError::TimedOut {
                sent: true,
                api: "Heartbeat",
                ..
            }
        ),
        "{error}"
    );
    let error = patient.await.unwrap_err();
    assert!(matches!(
        error,
        RequestError::Disconnected { sent: true, .. }
    ));
    assert!(
        error.to_string().contains("Heartbeat got no answer"),
        "{error}"
    );
    assert!(connection.is_closed());
    let refused = connection.send(4, &HeartbeatRequest::default(), LONG).await;
    assert!(!refused.unwrap_err().maybe_sent());
}

/// Sends one request to a broker that answers it with those bytes and goes on, or not.
async fn error_of(answer: fn(&ReceivedRequest) -> FakeResponse) -> (RequestError, Connection) {
    let broker = FakeBroker::start(answer).await;
    let connection = connect(&broker).await;
    let error = heartbeat(&connection, LONG).await.await.unwrap_err();
    connection.closed().await;
    (error, connection)
}

#[tokio::test]
async fn a_connection_that_is_cut_within_a_frame_says_so() {
    let (error, _) =
        error_of(|request| FakeResponse::RawThenClose(framed(&[numbered(request)]).slice(..7)))
            .await;
    assert!(matches!(
        error,
        RequestError::Disconnected { sent: true, .. }
    ));
    assert!(
        error.to_string().contains("7 bytes into a frame"),
        "{error}"
    );
}

#[tokio::test]
async fn a_connection_that_is_closed_between_frames_says_so() {
    let (error, _) = error_of(|_| FakeResponse::Close).await;
    assert!(matches!(
        error,
        RequestError::Disconnected { sent: true, .. }
    ));
    assert!(
        error.to_string().contains("the broker closed it"),
        "{error}"
    );
}

#[tokio::test]
async fn an_absurd_length_ends_the_connection() {
    for (absurd, reason) in [
        (&b"\x7f\xff\xff\xff"[..], "over the limit of 104857600"),
        (b"\xff\xff\xff\xff", "is not within 4 to"),
        (b"\0\0\0\x03", "is not within 4 to"),
    ] {
        let broker = FakeBroker::start(move |_| FakeResponse::Raw(absurd.into())).await;
        let connection = connect(&broker).await;
        let error = heartbeat(&connection, LONG).await.await.unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
        assert!(connection.is_closed());
    }
}

#[tokio::test]
async fn a_response_over_the_limit_is_the_error_of_its_request_alone() {
    let broker = FakeBroker::start(|request| match request.correlation_id {
        1 => FakeResponse::Raw(b"\x7f\xff\xff\xff".as_slice().into()),
        _ => FakeResponse::Silence,
    })
    .await;
    let connection = connect(&broker).await;
    let first = heartbeat(&connection, LONG).await;
    let second = heartbeat(&connection, LONG).await;
    assert!(matches!(
        first.await.unwrap_err(),
        RequestError::ResponseTooLarge {
            api: "Heartbeat",
            ..
        }
    ));
    assert!(matches!(
        second.await.unwrap_err(),
        RequestError::Disconnected { .. }
    ));
    assert!(connection.is_closed());
}

#[tokio::test]
async fn a_fetch_response_over_the_limit_is_known_by_its_beginning() {
    let beginning = |request: &ReceivedRequest| {
        let mut response = BytesMut::new();
        response.put_i32(i32::MAX);
        response.put_i32(request.correlation_id);
        response.put_bytes(7, 1 << 20);
        response
    };
    // Nothing more of it is waited for.
    let broker = FakeBroker::start(move |request| {
        let response = beginning(request);
        FakeResponse::Raw(response.freeze().slice(..4 + (1 << 20)))
    })
    .await;
    let connection = connect(&broker).await;
    let request = FetchRequest::default();
    let response = connection.send(4, &request, LONG).await.unwrap();
    match response.await.unwrap_err() {
        RequestError::ResponseTooLarge { head, .. } => {
            assert_eq!(head.0.len(), 1 << 20);
            assert_eq!(head.0[4..], [7; (1 << 20) - 4]);
        }
        error => panic!("{error}"),
    }
    assert!(connection.is_closed());
    // A connection that is lost within it says nothing about its size.
    let broker = FakeBroker::start(move |request| {
        FakeResponse::RawThenClose(beginning(request).freeze().slice(..1000))
    })
    .await;
    let connection = connect(&broker).await;
    let response = connection.send(4, &request, LONG).await.unwrap();
    assert!(matches!(
        response.await.unwrap_err(),
        RequestError::Disconnected { .. }
    ));
}

#[tokio::test]
async fn a_wrong_correlation_id_ends_the_connection() {
    let (error, _) = error_of(|request| {
        let other = ReceivedRequest {
            correlation_id: 77,
            ..request.clone()
        };
        FakeResponse::Frame(numbered(&other))
    })
    .await;
    assert!(
        error.to_string().contains("id 77 where 1 was due"),
        "{error}"
    );
}

#[tokio::test]
async fn a_response_to_no_request_ends_the_connection() {
    let broker = FakeBroker::start(|request| {
        FakeResponse::Raw(framed(&[numbered(request), numbered(request)]))
    })
    .await;
    let connection = connect(&broker).await;
    heartbeat(&connection, LONG).await.await.unwrap();
    connection.closed().await;
}

#[tokio::test]
async fn a_malformed_response_fails_its_request_and_ends_the_connection() {
    let (error, _) = error_of(|request| FakeResponse::Frame(numbered(request).slice(..6))).await;
    assert!(matches!(
        error,
        RequestError::Malformed {
            api: "Heartbeat",
            ..
        }
    ));
    assert!(error.maybe_sent());
}

#[tokio::test]
async fn nothing_is_written_before_a_throttle_is_over() {
    const PAUSE: Duration = Duration::from_secs(60);
    let first = AtomicBool::new(true);
    let broker = FakeBroker::start(move |request| {
        let mut response = HeartbeatResponse::default();
        if first.swap(false, Ordering::SeqCst) {
            response.throttle_time_ms = PAUSE.as_millis() as i32;
        }
        fake::response::<HeartbeatRequest>(request, &response)
    })
    .await;
    let connection = connect(&broker).await;
    heartbeat(&connection, LONG).await.await.unwrap();
    // Until the throttle is over only timers move anything.
    tokio::time::pause();
    let throttled = Instant::now();
    // One whose time is up before it may be written was surely not written.
    let hasty = heartbeat(&connection, PAUSE / 20).await;
    let patient = heartbeat(&connection, LONG).await;
    let error = hasty.await.unwrap_err();
    assert!(
        matches!(error, RequestError::TimedOut { sent: false, .. }),
        "{error}"
    );
    assert!(throttled.elapsed() < PAUSE);
    assert!(!connection.is_closed());
    tokio::time::sleep_until(throttled + PAUSE * 9 / 10).await;
    // What is written would be read while everything else has many turns.
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(broker.received_of(ApiKey::Heartbeat).len(), 1);
    tokio::time::sleep_until(throttled + PAUSE).await;
    tokio::time::resume();
    patient.await.unwrap();
    assert_eq!(broker.received_of(ApiKey::Heartbeat).len(), 2);
}

#[tokio::test]
async fn the_queue_is_bounded_and_what_did_not_fit_was_surely_not_sent() {
    let broker = FakeBroker::start(|_| FakeResponse::Silence).await;
    let connection = connect(&broker).await;
    let callers = (0..1000).map(|_| async {
        connection
            .send(4, &HeartbeatRequest::default(), Duration::from_millis(300))
            .await
    });
    let results = join_all(callers).await;
    let queued = results.iter().filter(|result| result.is_ok()).count();
    assert!(
        (QUEUED_MAX..=2 * (QUEUED_MAX + IN_FLIGHT_MAX) + 2).contains(&queued),
        "{queued}"
    );
    for result in results {
        match result {
            Err(error) => assert!(!error.maybe_sent()),
            Ok(reply) => assert!(reply.await.is_err()),
        }
    }
}

#[tokio::test]
async fn a_connection_without_handles_closes_after_its_last_response() {
    let broker = answers_in_bulk(1).await;
    let pool = pool(ClientConfig::default());
    let connection = pool
        .connection(&endpoint(&broker), ConnectionPurpose::Control)
        .await;
    let connection = connection.unwrap();
    let reply = heartbeat(&connection, LONG).await;
    let state = Arc::clone(&connection.state);
    pool.release(BrokerId(1), ConnectionPurpose::Control);
    drop(connection);
    assert_eq!(reply.await.unwrap().error_code, 1);
    state.closed.cancelled().await;
}

#[tokio::test]
async fn an_idle_connection_closes_and_a_busy_one_does_not() {
    const IDLE: Duration = Duration::from_secs(60);
    let broker = FakeBroker::start(|_| FakeResponse::Silence).await;
    let config = ClientConfig {
        connections_max_idle: IDLE,
        ..ClientConfig::default()
    };
    let pool = pool(config);
    let endpoint = endpoint(&broker);
    let idle = pool
        .connection(&endpoint, ConnectionPurpose::Control)
        .await
        .unwrap();
    let busy = pool
        .connection(&endpoint, ConnectionPurpose::Produce)
        .await
        .unwrap();
    assert_eq!(pool.open_connections(), 2);
    let _reply = heartbeat(&busy, 10 * IDLE).await;
    read(&broker, ApiKey::Heartbeat, 1).await;
    // Only timers move anything.
    tokio::time::pause();
    idle.closed().await;
    let still = tokio::time::timeout(2 * IDLE, busy.closed()).await;
    assert!(still.is_err());
    tokio::time::resume();
    // Another is opened when it is needed.
    let again = pool
        .connection(&endpoint, ConnectionPurpose::Control)
        .await
        .unwrap();
    assert!(!again.is_closed());
}

#[tokio::test]
async fn a_connection_is_idle_from_its_last_response_on_however_long_that_might_have_taken() {
    const IDLE: Duration = Duration::from_secs(60);
    let broker = answers_in_bulk(2).await;
    let pool = pool(ClientConfig {
        connections_max_idle: IDLE,
        ..ClientConfig::default()
    });
    let connection = pool
        .connection(&endpoint(&broker), ConnectionPurpose::Control)
        .await
        .unwrap();
    let slow = heartbeat(&connection, 100 * IDLE).await;
    read(&broker, ApiKey::Heartbeat, 1).await;
    // Only timers move anything.
    tokio::time::pause();
    tokio::time::sleep(IDLE + IDLE / 2).await;
    tokio::time::resume();
    let quick = heartbeat(&connection, 100 * IDLE).await;
    assert!(slow.await.is_ok() && quick.await.is_ok());
    tokio::time::pause();
    let closed = tokio::time::timeout(3 * IDLE, connection.closed()).await;
    assert!(closed.is_ok());
}

#[tokio::test]
async fn stopping_ends_every_connection_and_says_so() {
    let broker = FakeBroker::start(|_| FakeResponse::Silence).await;
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let config = Arc::new(ClientConfig::default());
    let pool = Pool::new(config, tasks.clone(), stop.clone());
    let endpoint = endpoint(&broker);
    let connection = pool
        .connection(&endpoint, ConnectionPurpose::Control)
        .await
        .unwrap();
    let reply = heartbeat(&connection, LONG).await;
    stop.cancel();
    assert!(reply.await.is_err());
    tasks.close();
    tasks.wait().await;
    assert_eq!(pool.open_connections(), 0);
    let error = pool
        .connection(&endpoint, ConnectionPurpose::Control)
        .await
        .unwrap_err();
    assert_eq!(error, RequestError::Stopped);
}

#[tokio::test]
async fn versions_are_agreed_on_with_a_broker_that_does_not_know_the_newest_api_versions_request() {
    let broker = FakeBroker::start_raw(|request| match (request.key, request.version) {
        (18, 3) => {
            // Version 0 of the answer, whatever was asked: error 35 and an empty table.
            let mut frame = BytesMut::new();
            frame.put_i32(request.correlation_id);
            frame.put_i16(35);
            frame.put_i32(0);
            FakeResponse::Frame(frame.freeze())
        }
        (18, 0) => {
            let key = |key: i16, newest: i16| {
                kafka_protocol::messages::api_versions_response::ApiVersion::default()
                    .with_api_key(key)
                    .with_max_version(newest)
            };
            let response =
                ApiVersionsResponse::default().with_api_keys(vec![key(3, 8), key(12, 2)]);
            fake::response::<ApiVersionsRequest>(request, &response)
        }
        (3, 8) => fake::response::<MetadataRequest>(request, &MetadataResponse::default()),
        _ => FakeResponse::Close,
    })
    .await;
    let connection = connect(&broker).await;
    let ask = connection.call(|_| MetadataRequest::default(), LONG);
    assert_eq!(ask.await.unwrap().0, 8);
    assert_eq!(connection.version::<HeartbeatRequest>().unwrap(), 2);
    let error = connection.version::<FetchRequest>().unwrap_err();
    assert!(matches!(
        error,
        RequestError::UnsupportedVersion {
            min: 4,
            max: 18,
            ..
        }
    ));
}

#[tokio::test]
async fn a_broker_that_is_silent_or_gone_is_unreachable() {
    let silent = FakeBroker::start_raw(|_| FakeResponse::Silence).await;
    let pool = pool(ClientConfig::default());
    let silent_endpoint = endpoint(&silent);
    let asked = async {
        read(&silent, ApiKey::ApiVersions, 1).await;
        // From here on only timers move anything.
        tokio::time::pause();
    };
    let connecting = pool.connection(&silent_endpoint, ConnectionPurpose::Control);
    let (error, ()) = tokio::join!(connecting, asked);
    tokio::time::resume();
    let error = error.unwrap_err();
    assert!(matches!(error, RequestError::Unreachable { .. }));
    assert!(error.to_string().contains("said nothing"), "{error}");

    let gone = BrokerAddress {
        id: BrokerId(2),
        address: silent_endpoint.address,
    };
    drop(silent);
    let error = pool
        .connection(&gone, ConnectionPurpose::Control)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
    assert!(!error.maybe_sent());
}

#[tokio::test]
async fn concurrent_callers_share_one_attempt_to_connect() {
    let broker = answers_in_bulk(1).await;
    let pool = pool(ClientConfig::default());
    let endpoint = endpoint(&broker);
    let all =
        join_all((0..50).map(|_| pool.connection(&endpoint, ConnectionPurpose::Control))).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(broker.connections.load(Ordering::SeqCst), 1);
    assert_eq!(pool.open_connections(), 1);
}

#[tokio::test]
async fn failed_attempts_are_spaced_by_the_backoff() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = BrokerAddress {
        id: BrokerId(1),
        address: listener.local_addr().unwrap().to_string().into(),
    };
    drop(listener);
    let pool = pool(ClientConfig::default());
    let begin = Instant::now();
    for _ in 0..4 {
        let result = pool.connection(&endpoint, ConnectionPurpose::Control).await;
        assert!(result.is_err());
    }
    // 0, 50, 100 and 200 ms, each a fifth less at most.
    assert!(
        begin.elapsed() >= Duration::from_millis(280),
        "{:?}",
        begin.elapsed()
    );
}

#[tokio::test]
async fn a_broker_that_moved_is_reached_at_its_new_address() {
    let old = answers_in_bulk(1).await;
    let new = answers_in_bulk(1).await;
    let pool = pool(ClientConfig::default());
    let before = pool
        .connection(&endpoint(&old), ConnectionPurpose::Control)
        .await;
    let after = pool
        .connection(&endpoint(&new), ConnectionPurpose::Control)
        .await
        .unwrap();
    assert_ne!(before.unwrap().broker().address, after.broker().address);
    assert_eq!(new.connections.load(Ordering::SeqCst), 1);
}
