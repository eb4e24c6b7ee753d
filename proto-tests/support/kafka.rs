//! Real Apache Kafka, through `scripts/kafka`, and the independent clients that check us.
//!
//! Clusters that many tests may use together are started once and shared; each test brings
//! topics and groups of its own. They end with this test process.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex, OnceLock};

/// A running cluster. An unshared one ends when it is dropped.
pub(crate) struct Kafka {
    dir: PathBuf,
    bootstrap: String,
    secure: Option<SecureListeners>,
    /// Where the KDC's files are.
    kerberos: Option<PathBuf>,
    owned: bool,
}

/// Where brokers with TLS and SASL listen, and the stores for them: see `scripts/kafka`.
#[derive(Clone)]
pub(crate) struct SecureListeners {
    pub(crate) ssl: String,
    pub(crate) sasl_ssl: String,
    pub(crate) sasl_plaintext: String,
    stores: PathBuf,
}

impl SecureListeners {
    /// The path of a store.
    pub(crate) fn store(&self, name: &str) -> String {
        self.stores.join(name).display().to_string()
    }
}

type SharedClusters = Mutex<HashMap<(String, u8), Arc<OnceLock<Arc<Kafka>>>>>;

impl Kafka {
    /// The cluster of this version and size that tests share.
    pub(crate) fn shared(version: &str, brokers: u8) -> Arc<Kafka> {
        static SHARED: OnceLock<SharedClusters> = OnceLock::new();
        let slot = {
            let mut shared = SHARED.get_or_init(Default::default).lock().unwrap();
            Arc::clone(shared.entry((version.to_owned(), brokers)).or_default())
        };
        Arc::clone(slot.get_or_init(|| Arc::new(Self::launch(version, brokers, &[], false))))
    }

    /// A cluster of the test's own, to be killed and restarted at will.
    pub(crate) fn start(version: &str, brokers: u8, settings: &[&str]) -> Kafka {
        Self::launch(version, brokers, settings, true)
    }

    /// The cluster with secure listeners that tests share, on which alice and `CN=client` may do
    /// everything, and bob nothing.
    pub(crate) fn shared_secure() -> Arc<Kafka> {
        static SECURE: OnceLock<Arc<Kafka>> = OnceLock::new();
        Arc::clone(SECURE.get_or_init(|| Arc::new(Self::start_secure(&[], false))))
    }

    /// As [`shared_secure`](Self::shared_secure), with settings, and of the test's own if it is
    /// owned.
    pub(crate) fn start_secure(settings: &[&str], owned: bool) -> Kafka {
        Self::launch_secure(&["--secure"], settings, owned)
    }

    /// As [`start_secure`](Self::start_secure), with a KDC.
    pub(super) fn launch_with_kdc(settings: &[&str], owned: bool) -> Kafka {
        Self::launch_secure(&["--secure", "--kerberos"], settings, owned)
    }

    fn launch_secure(options: &[&str], settings: &[&str], owned: bool) -> Kafka {
        let kafka = Self::launch_with(options, "4.4", 1, settings, owned);
        for principal in ["User:alice", "User:CN=client"] {
            let everything = [
                "topic",
                "*",
                "all",
                "group",
                "*",
                "all",
                "cluster",
                "kafka-cluster",
                "all",
            ];
            let args = [&["allow", principal][..], &everything].concat();
            kafka.java("Acls.java", &args);
        }
        kafka
    }

    /// Of a cluster that was started with them.
    pub(crate) fn secure(&self) -> &SecureListeners {
        self.secure
            .as_ref()
            .expect("the cluster has secure listeners")
    }

    fn launch(version: &str, brokers: u8, settings: &[&str], owned: bool) -> Kafka {
        Self::launch_with(&[], version, brokers, settings, owned)
    }

    fn launch_with(
        options: &[&str],
        version: &str,
        brokers: u8,
        settings: &[&str],
        owned: bool,
    ) -> Kafka {
        let mut command = script();
        command
            .args(["start", "--fast", "--version", version])
            .args(options)
            .args(["--brokers", &brokers.to_string()])
            .args(["--owner", &std::process::id().to_string()]);
        for setting in settings {
            command.args(["--set", setting]);
        }
        let out = run(command);
        let find = |name: &str| {
            let lines = out.lines();
            lines
                .into_iter()
                .find_map(|l| l.strip_prefix(name)?.strip_prefix('='))
        };
        let field = |name: &str| {
            find(name).unwrap_or_else(|| panic!("scripts/kafka start printed no {name}: {out}"))
        };
        Kafka {
            dir: field("dir").into(),
            bootstrap: field("bootstrap").to_owned(),
            secure: find("ssl").map(|ssl| SecureListeners {
                ssl: ssl.to_owned(),
                sasl_ssl: field("sasl_ssl").to_owned(),
                sasl_plaintext: field("sasl_plaintext").to_owned(),
                stores: field("stores").into(),
            }),
            kerberos: find("kerberos").map(PathBuf::from),
            owned,
        }
    }

    /// `host:port` of every broker, separated by commas.
    pub(crate) fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Ends a broker (from 1) with SIGKILL.
    pub(crate) fn kill(&self, broker: u8) {
        self.control("kill", broker);
    }

    /// Ends a broker in order.
    pub(crate) fn stop_broker(&self, broker: u8) {
        self.control("stop-broker", broker);
    }

    /// Starts an ended broker again, on the same port and data.
    pub(crate) fn start_broker(&self, broker: u8) {
        self.control("start-broker", broker);
    }

    /// Ends the KDC.
    pub(crate) fn stop_kdc(&self) {
        self.control_kdc("stop-kdc");
    }

    /// Starts it again, on the same port.
    pub(crate) fn start_kdc(&self) {
        self.control_kdc("start-kdc");
    }

    fn control_kdc(&self, what: &str) {
        let mut command = script();
        command.arg(what).arg(&self.dir);
        run(command);
    }

    /// Of a cluster that was started with a KDC.
    pub(super) fn kerberos_folder(&self) -> &Path {
        self.kerberos.as_deref().expect("the cluster has a KDC")
    }

    fn control(&self, what: &str, broker: u8) {
        let mut command = script();
        command.arg(what).arg(&self.dir).arg(broker.to_string());
        run(command);
    }

    /// Creates a topic, by the Java admin client, and waits until every broker knows it.
    pub(crate) fn create_topic(&self, name: &str, partitions: i32, replication: i16) {
        self.java(
            "Topics.java",
            &[
                "create",
                name,
                &partitions.to_string(),
                &replication.to_string(),
            ],
        );
    }

    /// Runs one of `proto-tests/java/` with Kafka's own client and returns what it printed.
    /// Its first argument is the bootstrap address.
    pub(crate) fn java(&self, program: &str, args: &[&str]) -> String {
        run(self.java_command(program, args))
    }

    /// As [`java`](Self::java), for a program that the test talks to while it runs.
    pub(crate) fn java_command(&self, program: &str, args: &[&str]) -> Command {
        java_command(&self.bootstrap, program, args)
    }

    /// Runs kcat (librdkafka) against this cluster with `input` on its standard input.
    pub(crate) fn kcat(&self, args: &[&str], input: &[u8]) -> Vec<u8> {
        kcat(&self.bootstrap, args, input)
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        if self.owned {
            let mut command = script();
            command.arg("stop").arg(&self.dir);
            run(command);
        }
    }
}

/// Runs one of `proto-tests/java/` against `bootstrap` and returns what it printed.
pub(crate) fn java(bootstrap: &str, program: &str, args: &[&str]) -> String {
    run(java_command(bootstrap, program, args))
}

/// Runs one of `proto-tests/java/` that talks to no broker, with `input` on its standard input.
pub(crate) fn java_fed(program: &str, input: &str) -> String {
    let out = fed(&mut java_command("none", program, &[]), input.as_bytes());
    check(program, &out);
    String::from_utf8(out.stdout).unwrap()
}

fn java_command(bootstrap: &str, program: &str, args: &[&str]) -> Command {
    let mut command = Command::new("java");
    command
        .args([
            "-Xmx256m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-cp",
        ])
        .arg(format!("{}/*", jars().display()))
        .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=error")
        .arg(root().join("proto-tests/java").join(program))
        .arg(bootstrap)
        .args(args);
    command
}

/// Runs kcat (librdkafka) against `bootstrap` and returns its standard output.
pub(crate) fn kcat(bootstrap: &str, args: &[&str], input: &[u8]) -> Vec<u8> {
    let mut command = Command::new("kcat");
    command.args(["-q", "-b", bootstrap]).args(args);
    let out = fed(&mut command, input);
    check(&format!("kcat {args:?}"), &out);
    out.stdout
}

/// Runs a command with `input` on its standard input.
fn fed(command: &mut Command, input: &[u8]) -> Output {
    use std::io::Write;
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}, which scripts/test installs: {e}"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || {
        let _ = stdin.write_all(&input);
    });
    let out = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    out
}

/// The folder of the newest Kafka's jars, which clients of every version here use.
pub(crate) fn jars() -> &'static Path {
    static JARS: OnceLock<PathBuf> = OnceLock::new();
    JARS.get_or_init(|| jars_of("4.4"))
}

/// The folder of a release's jars, which are downloaded when they are missing.
pub(crate) fn jars_of(version: &str) -> PathBuf {
    let mut command = script();
    command.args(["jars", version]);
    run(command).trim().into()
}

/// The folder that holds Cargo.toml.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A name that no other test uses.
pub(crate) fn unique(stem: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{stem}-{}-{n}", std::process::id())
}

fn script() -> Command {
    Command::new(root().join("scripts/kafka"))
}

fn run(mut command: Command) -> String {
    let out = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    check(&format!("{command:?}"), &out);
    String::from_utf8(out.stdout).unwrap()
}

fn check(what: &str, out: &Output) {
    assert!(
        out.status.success(),
        "{what}: {}\n{}\n{}",
        out.status,
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
}
