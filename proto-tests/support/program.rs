//! The real program, as a user starts it.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use tokio::time::timeout;

use super::ws_client::{UpgradeRefused, WsClient};
use super::{PATIENCE, secrets, tls, until};

/// What a program has logged so far.
#[derive(Clone, Debug)]
pub(crate) struct LogLines(Arc<Mutex<Vec<String>>>);

impl LogLines {
    /// The lines of what somebody prints.
    pub(crate) fn following(printed: impl Read + Send + 'static) -> Self {
        let lines = LogLines(Arc::default());
        let following = lines.clone();
        std::thread::spawn(move || follow(BufReader::new(printed), |line| following.push(line)));
        lines
    }

    fn push(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }

    /// The lines so far that contain `part`.
    pub(crate) fn with(&self, part: &str) -> Vec<String> {
        let lines = self.0.lock().unwrap();
        let found = lines.iter().filter(|line| line.contains(part));
        found.cloned().collect()
    }

    /// Where the program's admin server is, without TLS.
    pub(crate) async fn admin_address(&self) -> String {
        let line = self.first_with("admin=").await;
        let (_, after) = line.split_once("admin=").unwrap();
        let (_, after) = after.split_once("http://").expect("an address");
        let end = |c: char| !(c.is_ascii_digit() || matches!(c, '.' | ':'));
        after.split(end).next().unwrap().to_owned()
    }

    /// Waits for a line that contains `part`.
    pub(crate) async fn first_with(&self, part: &str) -> String {
        until(part, || !self.with(part).is_empty()).await;
        self.with(part).remove(0)
    }
}

/// Prints lines and hands them on, to their end; gives those that tell a secret.
fn follow(log: impl BufRead, mut take: impl FnMut(String)) -> Vec<String> {
    let mut telling = Vec::new();
    for line in log.lines().map_while(Result::ok) {
        eprintln!("{line}");
        if secrets::found_in(&line).is_some() {
            telling.push(line.clone());
        }
        take(line);
    }
    telling
}

/// The running program. It ends with its owner, and with it what it was given in secret must not
/// have been told.
pub(crate) struct Program {
    child: Child,
    port: u16,
    has_secrets: bool,
    /// Reads its log to the end.
    follower: Option<JoinHandle<Vec<String>>>,
    /// What its sockets are opened with, where it speaks nothing but TLS.
    tls: Option<Arc<ClientConfig>>,
}

impl Program {
    /// Starts it on a free loopback port and waits until it listens.
    pub(crate) fn start(args: &[&str]) -> Program {
        let (program, before, log) = Self::listening(args, &[]);
        // Whatever else it logs must not block it.
        program.followed(before, log, |_| {})
    }

    /// As [`Program::start`], but its log's reader goes away.
    pub(crate) fn start_unread(args: &[&str]) -> Program {
        Self::listening(args, &[]).0
    }

    /// As [`Program::start`], but its log's reader is there and reads nothing more.
    pub(crate) fn start_with_stuck_reader(args: &[&str]) -> (Program, BufReader<ChildStderr>) {
        let (program, _, log) = Self::listening(args, &[]);
        (program, log)
    }

    /// As [`Program::start`], with variables, and with the lines of its log.
    pub(crate) fn start_logged(args: &[&str], variables: &[(&str, &str)]) -> (Program, LogLines) {
        let (program, before, log) = Self::listening(args, variables);
        let lines = LogLines(Arc::new(Mutex::new(before.clone())));
        let following = lines.clone();
        let program = program.followed(before, log, move |line| following.push(line));
        (program, lines)
    }

    fn followed(
        mut self,
        before: Vec<String>,
        log: BufReader<ChildStderr>,
        take: impl FnMut(String) + Send + 'static,
    ) -> Self {
        let follow = move || {
            let mut telling = follow(log, take);
            telling.extend(
                before
                    .into_iter()
                    .filter(|l| secrets::found_in(l).is_some()),
            );
            telling
        };
        self.follower = Some(std::thread::spawn(follow));
        self
    }

    /// As [`Program::start`], with so many descriptors at most.
    pub(crate) fn start_with_descriptors(limit: usize, args: &[&str]) -> Program {
        let mut command = Command::new("sh");
        let set = format!("ulimit -n {limit} && exec \"$@\"");
        command.args([
            "-c",
            &set,
            "sh",
            env!("CARGO_BIN_EXE_kafka-websocket-proxy"),
        ]);
        let (program, before, log) = Self::listening_by(command, args, &[]);
        program.followed(before, log, |_| {})
    }

    /// How many descriptors it has open.
    pub(crate) fn descriptors(&self) -> usize {
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.pid()));
        open.unwrap().count()
    }

    /// Starts it; gives the lines of its log up to the one that says that it listens, and the rest.
    fn listening(
        args: &[&str],
        variables: &[(&str, &str)],
    ) -> (Program, Vec<String>, BufReader<ChildStderr>) {
        let command = Command::new(env!("CARGO_BIN_EXE_kafka-websocket-proxy"));
        Self::listening_by(command, args, variables)
    }

    fn listening_by(
        mut command: Command,
        args: &[&str],
        variables: &[(&str, &str)],
    ) -> (Program, Vec<String>, BufReader<ChildStderr>) {
        let has_secrets = secrets::are_given(args, variables);
        if has_secrets {
            // Unless the test says otherwise.
            command.env("WSPROXY_LOG_LEVEL", "trace");
        }
        let mut child = command
            .args(["--port", "0", "--bind-interface", "127.0.0.1"])
            .args(["--dev-broker-port", "0"])
            .args(args)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut lines = Vec::new();
        let port = loop {
            let mut line = String::new();
            if log.read_line(&mut line).unwrap() == 0 {
                panic!("the program ended: {}", child.wait().unwrap());
            }
            eprint!("{line}");
            lines.push(line.trim_end().to_owned());
            if let Some(port) = listening_port(&line) {
                break port;
            }
        };
        let tls = args.contains(&"--ssl-ssl-only").then(|| tls::client(None));
        let program = Program {
            child,
            port,
            has_secrets,
            follower: None,
            tls,
        };
        (program, lines, log)
    }

    /// Against a real or an in-memory cluster.
    pub(crate) fn for_cluster(bootstrap: &str, args: &[&str]) -> Program {
        Self::start(&[&["--bootstrap-hosts", bootstrap], args].concat())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A socket that must be accepted.
    pub(crate) async fn connect(&self, path: &str) -> WsClient {
        let address = self.address();
        let opened = match &self.tls {
            None => WsClient::connect(&address, path).await,
            Some(config) => WsClient::connect_tls(&address, path, config).await,
        };
        match opened {
            Ok(client) => client,
            Err(refused) => panic!("{path}: {refused:?}"),
        }
    }

    /// A socket that must be refused.
    pub(crate) async fn refused(&self, path: &str) -> UpgradeRefused {
        match WsClient::connect(&self.address(), path).await {
            Ok(_) => panic!("{path} was accepted"),
            Err(refused) => refused,
        }
    }

    /// Status and body of `GET path`.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", self.port))
            .await
            .unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer))
            .await
            .expect("no answer")
            .unwrap();
        secrets::assert_none_in(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }

    /// What `/metrics` answers, if it is asked without TLS and answers.
    fn metrics(&self) -> std::io::Result<String> {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Waits until `/ready` says so.
    pub(crate) async fn ready(&self) {
        let wait = async {
            while self.get("/ready").await.0 != 200 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(PATIENCE, wait).await.expect("never ready");
    }

    /// Resident memory in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
        line.unwrap()
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .unwrap()
    }

    /// Whether all of its threads wait for something.
    pub(crate) fn is_asleep(&self) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        let mut states = threads.map(|thread| {
            // A thread may have ended meanwhile.
            let status = std::fs::read_to_string(thread.unwrap().path().join("status"));
            status.is_ok_and(|status| status.contains("State:\tS"))
        });
        states.all(|is_asleep| is_asleep)
    }

    /// Sends a signal, as `kill -NAME` does.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args(["-s", name, &self.pid().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Waits until it has ended, and says how.
    pub(crate) fn ended(mut self) -> ExitStatus {
        exit_status(&mut self.child)
    }
}

/// Waits until a process has ended, and says how.
pub(crate) fn exit_status(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < deadline, "it does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let is_asked = self.has_secrets && self.tls.is_none() && !std::thread::panicking();
        let metrics = if is_asked { self.metrics().ok() } else { None };
        let _ = self.child.kill();
        let _ = self.child.wait();
        let followed = self.follower.take().map(JoinHandle::join);
        if std::thread::panicking() {
            return;
        }
        secrets::assert_none_in(&metrics.unwrap_or_default());
        let telling = followed.map_or_else(Vec::new, |followed| followed.unwrap_or_default());
        assert!(telling.is_empty(), "secrets are logged: {telling:?}");
    }
}

/// The port in the log line that says where it listens.
fn listening_port(line: &str) -> Option<u16> {
    let (_, address) = line.split_once("127.0.0.1:")?;
    if !line.contains("listening") {
        return None;
    }
    address
        .split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}
