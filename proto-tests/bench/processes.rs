//! The processes that are measured, and the broker behind them. They end with their owner.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A real broker on the same cores as the load.
pub(crate) struct KafkaProcess {
    dir: PathBuf,
    bootstrap: String,
    ssl: Option<SslListener>,
}

/// Where brokers speak TLS, and the stores of keys and authorities for it.
struct SslListener {
    bootstrap: String,
    stores: PathBuf,
}

impl KafkaProcess {
    /// With lines of `server.properties` beside those of `scripts/kafka`.
    pub(crate) fn start(settings: &[&str]) -> Self {
        Self::start_cluster(1, settings)
    }

    /// As [`start`](Self::start), with so many brokers, numbered from 1.
    pub(crate) fn start_cluster(brokers: u8, settings: &[&str]) -> Self {
        Self::start_with(&[], brokers, settings)
    }

    /// One broker that listens for TLS, too, and lets the client with a certificate of its stores
    /// do everything.
    pub(crate) fn start_secure(settings: &[&str]) -> Self {
        let users = "super.users=User:ANONYMOUS;User:CN=client";
        Self::start_with(&["--secure"], 1, &[&[users], settings].concat())
    }

    fn start_with(options: &[&str], brokers: u8, settings: &[&str]) -> Self {
        let mut command = Command::new(root().join("scripts/kafka"));
        command
            .args(["start", "--heap", "1g", "--brokers", &brokers.to_string()])
            .args(options)
            .args(["--owner", &std::process::id().to_string()]);
        for setting in settings {
            command.args(["--set", setting]);
        }
        let out = command.stderr(Stdio::inherit()).output();
        let out = out.expect("scripts/kafka runs");
        assert!(out.status.success(), "scripts/kafka start failed");
        let out = String::from_utf8(out.stdout).expect("text");
        let find = |name: &str| out.lines().find_map(|l| l.strip_prefix(name));
        let field = |name: &str| {
            let field = find(name);
            field.expect("scripts/kafka start prints it").to_owned()
        };
        Self {
            dir: field("dir=").into(),
            bootstrap: field("bootstrap="),
            ssl: find("ssl=").map(|bootstrap| SslListener {
                bootstrap: bootstrap.to_owned(),
                stores: field("stores=").into(),
            }),
        }
    }

    /// The flags of a proxy that reaches the brokers by TLS, with a certificate of its own.
    pub(crate) fn ssl_flags(&self) -> Vec<String> {
        let ssl = self.ssl.as_ref().expect("they listen for TLS");
        let store = |name: &str| ssl.stores.join(name).display().to_string();
        let properties = [
            ("security.protocol", "SSL".to_owned()),
            ("ssl.truststore.location", store("trust.p12")),
            ("ssl.truststore.password", "storepass".to_owned()),
            ("ssl.keystore.location", store("client.p12")),
            ("ssl.keystore.password", "storepass".to_owned()),
        ];
        let define = |(name, value)| {
            let define = format!("kafka-client.properties.{name}={value}");
            ["-D".to_owned(), define]
        };
        properties.into_iter().flat_map(define).collect()
    }

    /// Where the brokers speak TLS.
    pub(crate) fn ssl_bootstrap(&self) -> &str {
        &self.ssl.as_ref().expect("they listen for TLS").bootstrap
    }

    pub(crate) fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Creates a topic of one partition with so many replicas.
    pub(crate) fn create_topic(&self, name: &str, replicas: u8) {
        let jars = run(Command::new(root().join("scripts/kafka")).arg("jars"));
        let jars = format!("{}/*", jars.trim());
        let program = root().join("proto-tests/java/Topics.java");
        let mut java = Command::new("java");
        java.args(["-XX:TieredStopAtLevel=1", "-cp", &jars])
            .arg(program)
            .args([&self.bootstrap, "create", name, "1", &replicas.to_string()]);
        run(&mut java);
    }

    /// Which broker leads the topic's only partition.
    pub(crate) fn leader(&self, topic: &str) -> u8 {
        let listed = run(Command::new("kcat").args(["-b", &self.bootstrap, "-L", "-t", topic]));
        let leader = listed.split("leader ").nth(1);
        let leader = leader.and_then(|rest| rest.split(',').next()?.parse().ok());
        leader.unwrap_or_else(|| panic!("no leader of {topic}: {listed}"))
    }

    /// Lets a broker hang: it keeps its connections and answers nothing.
    pub(crate) fn pause(&self, broker: u8) {
        self.control("pause", broker);
    }

    /// Lets it go on.
    pub(crate) fn resume(&self, broker: u8) {
        self.control("resume", broker);
    }

    /// How many group members the other brokers have removed because their session expired.
    /// (To a broker that hung, all sessions have expired; it is no coordinator any more.)
    pub(crate) fn expired_members(&self, but: u8) -> usize {
        let folders = fs::read_dir(&self.dir).expect("the cluster's folder");
        let folders = folders.map(|folder| folder.expect("readable").path());
        let folders = folders.filter(|folder| !folder.ends_with(format!("broker-{but}")));
        let logs = folders.filter_map(|folder| fs::read_to_string(folder.join("log")).ok());
        let count = |log: String| log.matches("removing it from the group").count();
        logs.map(count).sum()
    }

    fn control(&self, command: &str, broker: u8) {
        let mut script = Command::new(root().join("scripts/kafka"));
        run(script.arg(command).arg(&self.dir).arg(broker.to_string()));
    }
}

/// Runs a command to its end; what it printed.
fn run(command: &mut Command) -> String {
    let out = command.stderr(Stdio::inherit()).output().expect("it runs");
    assert!(out.status.success(), "{command:?}: {}", out.status);
    String::from_utf8(out.stdout).expect("text")
}

impl Drop for KafkaProcess {
    fn drop(&mut self) {
        let _ = Command::new(root().join("scripts/kafka"))
            .arg("stop")
            .arg(&self.dir)
            .status();
    }
}

/// The program, serving on a port of its own.
pub(crate) struct ProxyProcess {
    child: Child,
    bootstrap: String,
    port: u16,
}

impl ProxyProcess {
    pub(crate) fn start(binary: &Path, bootstrap: &str) -> Self {
        Self::start_with(binary, bootstrap, &[])
    }

    /// With more flags.
    pub(crate) fn start_with(binary: &Path, bootstrap: &str, flags: &[String]) -> Self {
        let mut command = Command::new(binary);
        command.args(["--bootstrap-hosts", bootstrap]).args(flags);
        Self::listening(command, bootstrap)
    }

    /// With its embedded broker, and more flags.
    pub(crate) fn start_dev(binary: &Path, flags: &[String]) -> Self {
        let mut command = Command::new(binary);
        command
            .args(["--dev", "--dev-broker-port", "0"])
            .args(flags);
        command.stdout(Stdio::null());
        Self::listening(command, "")
    }

    fn listening(mut command: Command, bootstrap: &str) -> Self {
        let mut child = command
            .args(["--port", "0", "--bind-interface", "127.0.0.1"])
            .stderr(Stdio::piped())
            .spawn()
            .expect("the proxy starts");
        let mut log = BufReader::new(child.stderr.take().expect("piped"));
        let port = loop {
            let mut line = String::new();
            let read = log.read_line(&mut line).expect("text");
            assert!(read > 0, "the proxy ended");
            eprint!("{line}");
            // Of the plain port, or of TLS alone.
            let listening = line.split_once("listening ");
            if let Some((_, rest)) = listening.and_then(|(_, rest)| rest.split_once("127.0.0.1:")) {
                let digits = rest.split(' ').next().unwrap_or_default();
                break digits.trim().parse().expect("a port");
            }
        };
        // Whatever else it logs must not block it.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::stderr()));
        Self {
            child,
            bootstrap: bootstrap.to_owned(),
            port,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its established connections to the brokers' ports of `bootstrap.servers`.
    pub(crate) fn broker_connections(&self) -> usize {
        let addresses = self.bootstrap.split(',');
        let ports = addresses.filter_map(|address| address.rsplit_once(':')?.1.parse().ok());
        let remotes: Vec<String> = ports.map(|port: u16| format!(":{port:04X}")).collect();
        let table = fs::read_to_string(format!("/proc/{}/net/tcp", self.pid()));
        let table = table.expect("the process runs");
        // Local and remote address, state (01 is ESTABLISHED), …, the inode: proc(5).
        let connections = table.lines().skip(1).filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let to_broker = remotes.iter().any(|port| fields[2].ends_with(port));
            (to_broker && fields[3] == "01").then(|| format!("socket:[{}]", fields[9]))
        });
        let connections: std::collections::HashSet<String> = connections.collect();
        // The table is the network namespace's: count what is this process's.
        let open = fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("the process runs");
        let targets = open.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
        let is_connection =
            |target: &PathBuf| target.to_str().is_some_and(|t| connections.contains(t));
        targets.filter(is_connection).count()
    }
}

impl Drop for ProxyProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The folder that holds Cargo.toml.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
