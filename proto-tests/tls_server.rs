//! TLS towards clients: what they are presented with, which of them get in, and what those that do
//! not speak it cost.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::block_in_place;
use tokio::time::{Instant, timeout};

use crate::support::program::Program;
use crate::support::proxy::Proxy;
use crate::support::tls::{self, client, golden, server_tls, tls_flags};
use crate::support::{PATIENCE, secrets, until_asked};

/// Longer than a test may take.
const NEVER: Duration = Duration::from_secs(3_600);
const REQUEST: &[u8] = b"GET /healthcheck HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// What `/healthcheck` answers by TLS.
async fn health(address: &str, config: &Arc<ClientConfig>) -> std::io::Result<String> {
    let mut stream = tls::connect(address, config).await?;
    stream.write_all(REQUEST).await?;
    let mut answer = String::new();
    let read = timeout(PATIENCE, stream.read_to_string(&mut answer)).await;
    read.expect("no answer")?;
    Ok(answer)
}

async fn is_healthy(address: &str, config: &Arc<ClientConfig>) -> bool {
    let answer = health(address, config).await;
    answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// The certificate that the server presents.
async fn presented(address: &str) -> Vec<u8> {
    let stream = tls::connect(address, &client(None)).await.unwrap();
    let (_, connection) = stream.get_ref();
    connection.peer_certificates().unwrap()[0].to_vec()
}

fn certificate(name: &str) -> Vec<u8> {
    CertificateDer::from_pem_file(golden(name))
        .unwrap()
        .to_vec()
}

fn start(flags: &[String], more: &[&str]) -> Program {
    Program::start(&with_dev(flags, more))
}

fn with_dev<'a>(flags: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    let flags = flags.iter().map(String::as_str);
    flags.chain(["--dev"]).chain(more.iter().copied()).collect()
}

async fn silent(address: &str) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

/// What comes before the end of a connection, which may be a reset.
async fn to_the_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut rest))
        .await
        .expect("the connection stays open");
    rest
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_store_is_read_in_each_of_its_formats() {
    let password = ["--ssl-keystore-password", "storepass"];
    for (store, more) in [
        ("server.pem", &[][..]),
        ("server.p12", &password),
        ("server.jks", &password),
    ] {
        let program = start(&tls_flags(store), more);
        let shown = presented(&program.address()).await;
        assert_eq!(shown, certificate("server.pem"), "{store}");
        assert!(
            is_healthy(&program.address(), &client(None)).await,
            "{store}"
        );
    }
}

/// Asks `/healthcheck` by `openssl s_client`; what it prints, and whether it was content.
fn s_client(address: &str, more: &[&str]) -> (String, bool) {
    let mut child = Command::new("openssl")
        .args(["s_client", "-quiet", "-ign_eof", "-verify_return_error"])
        .args(["-verify_hostname", "localhost", "-connect", address])
        .arg("-CAfile")
        .arg(golden("ca.pem"))
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl is needed");
    let mut input = child.stdin.take().unwrap();
    // It may have ended already.
    let _ = std::io::Write::write_all(&mut input, REQUEST);
    drop(input);
    let out = child.wait_with_output().unwrap();
    let said = [out.stdout, out.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    (said, out.status.success())
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_is_served_by_tls_1_2_and_1_3_and_by_nothing_older() {
    let program = start(&tls_flags("server.pem"), &[]);
    for version in ["-tls1_2", "-tls1_3"] {
        let (said, good) = block_in_place(|| s_client(&program.address(), &[version]));
        assert!(good && said.contains("I'm healthy"), "{version}: {said}");
    }
    let old = ["-tls1_1", "-cipher", "ALL@SECLEVEL=0"];
    let (said, good) = block_in_place(|| s_client(&program.address(), &old));
    assert!(!good && !said.contains("healthy"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_certificates_are_demanded_only_those_of_the_authorities_get_in() {
    let flags = tls_flags("server.pem");
    let authorities = golden("ca.pem").to_str().unwrap().to_owned();
    let demanding = ["--ssl-client-ca-location", &authorities];
    let (program, log) = Program::start_logged(&with_dev(&flags, &demanding), &[]);
    let address = program.address();
    let versions = [
        &[&rustls::version::TLS12][..],
        &[&rustls::version::TLS13][..],
    ];
    for version in versions {
        let with = |certificate| tls::client_of(version, certificate);
        assert!(is_healthy(&address, &with(Some("client.pem"))).await);
        for refused in [None, Some("client-expired.pem"), Some("client-strange.pem")] {
            let answer = health(&address, &with(refused)).await;
            assert!(answer.is_err(), "{refused:?}: {answer:?}");
        }
    }
    let pem = golden("client.pem").to_str().unwrap().to_owned();
    let own = ["-cert", &pem, "-key", &pem];
    let (said, good) = block_in_place(|| s_client(&address, &own));
    assert!(good && said.contains("I'm healthy"), "{said}");
    for why in [
        "a client without a certificate is refused",
        "it has expired",
        "none of the authorities vouches for it",
    ] {
        let line = log.first_with(why).await;
        assert!(line.contains("server.ssl.client-ca-location"), "{line}");
        assert!(line.contains("peer="), "{line}");
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_served_and_a_bad_file_keeps_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("server.pem");
    fs::copy(golden("server.pem"), &store).unwrap();
    let mut flags = tls_flags("server.pem");
    flags[7] = store.to_str().unwrap().to_owned();
    let (program, log) = Program::start_logged(&with_dev(&flags, &[]), &[]);
    let address = program.address();
    // A connection of before is not touched.
    let mut socket = program.connect("/socket/in?topic=t").await;
    assert_eq!(presented(&address).await, certificate("server.pem"));

    fs::write(&store, "no certificate").unwrap();
    program.signal("HUP");
    let line = log.first_with("TLS files of before").await;
    let named = "kafka.ws.proxy.server.ssl.keystore-location: ";
    assert!(line.contains(named) && line.contains("WARN"), "{line}");
    assert!(line.contains("neither PEM nor PKCS12 nor JKS"), "{line}");
    assert_eq!(presented(&address).await, certificate("server.pem"));

    fs::copy(golden("renewed.pem"), &store).unwrap();
    program.signal("HUP");
    log.first_with("the new TLS files").await;
    assert_eq!(presented(&address).await, certificate("renewed.pem"));
    let answer = socket.ask(r#"{"value":{"value":"x"}}"#).await;
    assert_eq!(answer["offset"], 0);
}

#[tokio::test]
async fn a_changed_file_is_noticed_within_half_a_minute() {
    let folder = tempfile::tempdir().unwrap();
    let location = folder.path().join("server.pem");
    fs::copy(golden("server.pem"), &location).unwrap();
    let settings = ::tls::ServerTlsConfig {
        key_store: ::tls::StoreFile {
            location: location.clone(),
            password: None,
        },
        client_ca: None,
    };
    let server = Arc::new(::tls::ServerTls::new(settings).unwrap());
    let proxy = Proxy::with(|config| config.server.tls = Some(Arc::clone(&server))).await;
    let before = server.config();
    fs::copy(golden("renewed.pem"), &location).unwrap();
    // A clock that only timers move, and not while the files are read by a thread.
    tokio::time::pause();
    let begin = Instant::now();
    while Arc::ptr_eq(&before, &server.config()) {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(begin.elapsed() <= Duration::from_secs(120));
    }
    assert!(begin.elapsed() >= Duration::from_secs(30));
    tokio::time::resume();
    let shown = presented(&proxy.tls_address).await;
    assert_eq!(shown, certificate("renewed.pem"));
    proxy.stopped().await;
}

#[tokio::test]
async fn a_handshake_that_dawdles_is_ended_in_its_time_and_holds_up_nobody() {
    let proxy = Proxy::with(|config| config.server.tls = Some(server_tls(false))).await;
    let mut nothing = silent(&proxy.tls_address).await;
    let mut half = silent(&proxy.tls_address).await;
    // A handshake record, of which most does not come.
    half.write_all(&[0x16, 3, 1, 2, 0, 1]).await.unwrap();
    assert!(is_healthy(&proxy.tls_address, &client(None)).await);
    tokio::time::pause();
    let begin = Instant::now();
    to_the_end(&mut nothing).await;
    to_the_end(&mut half).await;
    let took = begin.elapsed();
    let (least, most) = (Duration::from_secs(9), Duration::from_secs(11));
    assert!(took >= least && took < most, "{took:?}");
    tokio::time::resume();
    proxy.stopped().await;
}

#[tokio::test]
async fn connections_before_their_handshake_count_and_make_room_the_oldest_first() {
    let proxy = Proxy::with(|config| {
        config.server.limits.connections_max = 20;
        config.server.limits.handshake_timeout = NEVER;
        config.server.tls = Some(server_tls(false));
    })
    .await;
    let mut waiting = Vec::new();
    for number in 0..60 {
        let mut stream = silent(&proxy.tls_address).await;
        if number % 2 == 0 {
            stream.write_all(&[0x16, 3, 1, 2, 0, 1]).await.unwrap();
        }
        waiting.push(stream);
    }
    assert!(is_healthy(&proxy.tls_address, &client(None)).await);
    for oldest in &mut waiting[..40] {
        assert_eq!(to_the_end(oldest).await, b"");
    }
    // And they do not hold up the stop.
    proxy.stopped().await;
}

#[tokio::test]
async fn a_client_that_speaks_plain_text_to_the_tls_port_is_told_so() {
    let (program, log) = Program::start_logged(&with_dev(&tls_flags("server.pem"), &[]), &[]);
    let mut plain = silent(&program.address()).await;
    plain.write_all(REQUEST).await.unwrap();
    let answer = String::from_utf8(to_the_end(&mut plain).await).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 400 Bad Request\r\n"),
        "{answer}"
    );
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let said = r#"{"message":"this port speaks TLS: https:// and wss:// reach it"}"#;
    assert_eq!(body, said);
    log.first_with("plain text to the TLS port").await;
}

#[tokio::test]
async fn what_is_no_tls_after_its_first_byte_ends_the_connection_alone() {
    let proxy = Proxy::with(|config| config.server.tls = Some(server_tls(false))).await;
    for hostile in [
        &[0x16, 3, 1, 0, 4, 1, 0, 0, 0][..],
        &[0x16, 0xff, 0xff, 0xff, 0xff, 1],
        &[0x16; 70_000],
    ] {
        let mut stream = silent(&proxy.tls_address).await;
        // It may be closed before it has taken all.
        let _ = stream.write_all(hostile).await;
        let _ = stream.shutdown().await;
        to_the_end(&mut stream).await;
        assert!(is_healthy(&proxy.tls_address, &client(None)).await);
    }
    proxy.stopped().await;
}

/// The exit code of `healthcheck`, and what it says.
fn healthcheck(arguments: &[&str]) -> (Option<i32>, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_kafka-websocket-proxy"))
        .arg("healthcheck")
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    secrets::assert_none_in(&said);
    (out.status.code(), said)
}

#[tokio::test(flavor = "multi_thread")]
async fn healthcheck_speaks_tls_where_nothing_else_is_served() {
    let authorities = golden("ca.pem").to_str().unwrap().to_owned();
    let pem = golden("client.pem").to_str().unwrap().to_owned();
    let strange = golden("client-strange.pem").to_str().unwrap().to_owned();
    let flags = tls_flags("server.pem");
    let open = start(&flags, &[]);
    let demanding = ["--ssl-client-ca-location", &authorities];
    let demanded = start(&flags, &demanding);
    let port_of = |program: &Program| {
        let address = program.address();
        address.rsplit_once(':').unwrap().1.to_owned()
    };
    let (open_port, demanded_port) = (port_of(&open), port_of(&demanded));
    let ask = |port: &str, more: &[&str]| {
        let only = ["--ssl-ssl-only", "true", "--ssl-port", port];
        block_in_place(|| healthcheck(&[&only[..], more].concat()))
    };
    assert_eq!(ask(&open_port, &[]), (Some(0), String::new()));
    let with = |pem| ["--healthcheck-cert", pem, demanding[0], demanding[1]];
    assert_eq!(ask(&demanded_port, &with(&pem)), (Some(0), String::new()));

    let (code, said) = ask(&demanded_port, &demanding);
    assert_eq!(code, Some(1));
    assert!(said.contains("--healthcheck-cert"), "{said}");
    assert!(said.contains("server.ssl.client-ca-location"), "{said}");
    for wrong in [&*strange, "/no/such/file", &authorities] {
        let (code, said) = ask(&demanded_port, &with(wrong));
        assert_eq!(code, Some(1), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    // The plain port beside it needs no certificate.
    let port = open_port.as_str();
    let (code, said) = block_in_place(|| healthcheck(&["--port", port]));
    assert_eq!(code, Some(1), "{said}");
}

#[tokio::test]
async fn the_stop_ends_a_tls_connection_with_its_alert() {
    let proxy = Proxy::with(|config| config.server.tls = Some(server_tls(false))).await;
    let mut idle = tls::connect(&proxy.tls_address, &client(None))
        .await
        .unwrap();
    idle.write_all(b"GET /healthcheck HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let mut answer = [0; 12];
    idle.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    let handshaking = silent(&proxy.tls_address).await;
    proxy.stop();
    // rustls has an end without the alert for an error.
    let mut rest = Vec::new();
    timeout(PATIENCE, idle.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
    drop(handshaking);
    proxy.stopped().await;
}

#[tokio::test]
async fn origins_are_those_of_https_pages_too() {
    use kafka_websocket_proxy::config::AllowedOrigins;

    let proxy = Proxy::with(|config| {
        config.server.tls = Some(server_tls(false));
        let allowed = AllowedOrigins::parse("https://good.example").unwrap();
        config.server.websocket.origins = allowed;
    })
    .await;
    let status = async |origin: &str| {
        let mut stream = tls::connect(&proxy.tls_address, &client(None))
            .await
            .unwrap();
        let head = "GET /healthcheck HTTP/1.1\r\nHost: a\r\nConnection: close\r\n";
        let request = format!("{head}Origin: {origin}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!(status("https://good.example").await, "200");
    assert_eq!(status("https://good.example:443").await, "200");
    assert_eq!(status("http://good.example").await, "403");
    proxy.stopped().await;
}

#[tokio::test]
async fn browsers_are_told_to_come_by_tls_alone_where_that_is_all() {
    const HEADER: &str = "\r\nstrict-transport-security: max-age=31536000\r\n";
    for only in [false, true] {
        let proxy = Proxy::with(|config| {
            config.server.tls = Some(server_tls(false));
            config.server.ssl.only = only;
        })
        .await;
        let answer = health(&proxy.tls_address, &client(None)).await.unwrap();
        assert_eq!(answer.contains(HEADER), only, "{answer}");
        proxy.stopped().await;
    }
}

#[tokio::test]
async fn the_plain_port_stays_open_beside_tls_unless_that_is_all() {
    let both = ["--ssl-port", "0", "--ssl-bind-interface", "127.0.0.1"];
    let store = golden("server.pem").to_str().unwrap().to_owned();
    let key_store = ["--ssl-keystore-location", store.as_str()];
    let arguments = [&["--dev"][..], &both, &key_store].concat();
    let (program, log) = Program::start_logged(&arguments, &[]);
    assert_eq!(program.get("/healthcheck").await.0, 200);
    let line = log.first_with("listening").await;
    let (_, by_tls) = line.split_once("tls=https://").expect("its URL");
    let by_tls = by_tls.split_whitespace().next().unwrap().trim_matches('"');
    until_asked("TLS is served", async || {
        is_healthy(by_tls, &client(None)).await
    })
    .await;
    assert!(
        line.contains(&format!("address={}", program.address())),
        "{line}"
    );

    let (_program, log) = Program::start_logged(&with_dev(&tls_flags("server.pem"), &[]), &[]);
    let line = log.first_with("listening").await;
    assert!(!line.contains(" address="), "{line}");
}
