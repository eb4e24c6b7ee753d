//! The programs of README.md, saved and run as their first line says, while the proxy goes away
//! and comes back.

use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use kafka_client::TopicPartition;
use memory_broker::{BrokerConfig, MemoryBroker};
use tempfile::TempDir;

use super::{ADDRESS, README, blocks};
use crate::support::clients::{self, Terminal};
use crate::support::kafka::root;
use crate::support::program::Program;
use crate::support::relay::{Mode, Relay};
use crate::support::until;

/// A program of the README.
#[derive(Clone, Debug)]
struct Example {
    /// The file that it is saved in.
    file: &'static str,
    /// What starts it.
    command: &'static str,
    /// What its user has to install.
    installs: Vec<&'static str>,
    text: &'static str,
}

/// All of them.
fn examples() -> Vec<Example> {
    let languages = ["js", "python"];
    let texts = languages.iter().flat_map(|l| blocks(README, l));
    texts.map(example).collect()
}

/// Its first line ends with `install PACKAGE…; COMMAND FILE`, or only with `COMMAND FILE` behind a
/// colon.
fn example(text: &'static str) -> Example {
    let first = text.lines().next().unwrap();
    let (before, command) = first.rsplit_once([':', ';']).expect(first);
    let (_, file) = command.rsplit_once(' ').expect(first);
    let packages = before
        .split_once(" install ")
        .map_or("", |(_, names)| names);
    let installs = packages.split_whitespace().collect();
    let command = command.trim();
    Example {
        file,
        command,
        installs,
        text,
    }
}

fn named(file: &str) -> Example {
    let all = examples();
    let found = all.into_iter().find(|example| example.file == file);
    found.unwrap_or_else(|| panic!("README has no {file}"))
}

/// A topic, a proxy that comes and goes, and an address for it that stays.
struct Stage {
    broker: MemoryBroker,
    relay: Relay,
    folder: TempDir,
    proxy: Option<Program>,
}

impl Stage {
    /// Without a proxy yet.
    async fn new() -> Self {
        let broker = MemoryBroker::start(BrokerConfig::default()).await.unwrap();
        assert!(broker.create_topic("orders", 1) && broker.create_topic("sensors", 1));
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
        let relay = Relay::start(nowhere).await;
        relay.set(Mode::Refuse);
        let folder = tempfile::tempdir().unwrap();
        let stage = Self {
            broker,
            relay,
            folder,
            proxy: None,
        };
        let packages = clients::folder().join("node_modules");
        symlink(packages, stage.path("node_modules")).unwrap();
        stage
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    async fn start_proxy(&mut self) {
        let proxy = Program::for_cluster(&self.broker.bootstrap(), &[]);
        proxy.ready().await;
        self.relay.lead_to(proxy.address().parse().unwrap());
        self.relay.set(Mode::Pass);
        self.proxy = Some(proxy);
    }

    /// Stops it in order.
    fn stop_proxy(&mut self) {
        let proxy = self.proxy.take().unwrap();
        proxy.signal("TERM");
        assert_eq!(proxy.ended().code(), Some(0));
        self.relay.set(Mode::Refuse);
    }

    /// Ends it with SIGKILL.
    fn kill_proxy(&mut self) {
        self.proxy = None;
        self.relay.set(Mode::Refuse);
    }

    /// Saves and starts an example, with variables set.
    fn run(&self, file: &str, variables: &str) -> Terminal {
        let example = named(file);
        let address = self.relay.address().to_string();
        assert!(example.text.contains(ADDRESS), "{file}");
        std::fs::write(self.path(file), example.text.replace(ADDRESS, &address)).unwrap();
        let command = format!("{variables} {}", example.command);
        Terminal::start(&command, self.folder.path())
    }

    async fn produce(&self, value: &str) {
        let proxy = self.proxy.as_ref().unwrap();
        let mut producer = proxy.connect("/socket/in?topic=orders&valType=json").await;
        let answer = producer
            .ask(format!(r#"{{"value":{{"value":{value}}}}}"#))
            .await;
        assert!(answer["offset"].is_i64(), "{answer}");
    }

    async fn committed(&self, group: &str, offset: i64) {
        self.committed_of("orders", group, offset).await;
    }

    async fn committed_of(&self, topic: &str, group: &str, offset: i64) {
        let tp = TopicPartition {
            topic: topic.into(),
            partition: 0,
        };
        let what = format!("{group} commits {offset}");
        until(&what, || self.broker.committed(group, &tp) == Some(offset)).await;
    }

    /// A proxy that does not know the topic refuses for good.
    async fn start_proxy_without_the_topic(&mut self) {
        assert!(self.broker.delete_topic("orders"));
        self.start_proxy().await;
    }
}

#[test]
fn each_says_what_to_install_and_that_is_what_is_run_here() {
    let pinned = std::fs::read_to_string(root().join("scripts/clients")).unwrap();
    let pinned: Vec<&str> = pinned.split_whitespace().collect();
    let all = examples();
    assert_eq!(all.len(), 5, "a new example needs a test here: {all:?}");
    for package in all.iter().flat_map(|example| &example.installs) {
        let is_pinned = |word: &&str| {
            let rest = word.strip_prefix(package);
            rest.is_some_and(|rest| rest.starts_with('@') || rest.starts_with("=="))
        };
        assert!(pinned.iter().any(is_pinned), "{package}");
    }
}

/// Consumes one record per proxy, each of which goes away in another way.
async fn survives_the_proxy(file: &str, group: &str) {
    let mut stage = Stage::new().await;
    stage.start_proxy().await;
    let worker = stage.run(file, "");
    for offset in 0..3 {
        stage.produce(&format!(r#"{{"n":{offset}}}"#)).await;
        worker.shows(&format!("done {offset} ")).await;
        stage.committed(group, offset + 1).await;
        match offset {
            0 => stage.stop_proxy(),
            1 => stage.kill_proxy(),
            _ => break,
        }
        stage.start_proxy().await;
    }
    for offset in 0..3 {
        assert_eq!(worker.shown(&format!("done {offset} ")), 1, "committed");
    }
    stage.stop_proxy();
    stage.start_proxy_without_the_topic().await;
    worker.shows("orders").await;
    assert!(!worker.ended().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worker_in_node_commits_what_is_done_and_gives_up_only_what_no_try_mends() {
    survives_the_proxy("worker.mjs", "node-workers").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worker_in_python_commits_what_is_done_and_gives_up_only_what_no_try_mends() {
    survives_the_proxy("worker.py", "python-workers").await;
}

/// Node runs a page's script, with the WebSocket that Node 22 and newer have from the start.
#[tokio::test(flavor = "multi_thread")]
async fn the_page_produces_what_waited_for_the_proxy_and_consumes_it() {
    let mut stage = Stage::new().await;
    let undici = clients::folder().join("node_modules/undici/index.js");
    let global =
        format!("import {{ WebSocket }} from {undici:?};\nglobalThis.WebSocket ??= WebSocket;\n");
    std::fs::write(stage.path("global.mjs"), global).unwrap();
    let page = stage.run("orders.mjs", "NODE_OPTIONS=--import=./global.mjs");
    // Nobody is there, and it tries again.
    stage.start_proxy().await;
    page.shows("produced m-1 0").await;
    page.shows(r#"consumed 0 {"item":"tea","count":2}"#).await;
    stage.committed("page-group", 1).await;
    stage.stop_proxy();
    stage.start_proxy().await;
    stage.produce(r#"{"n":1}"#).await;
    page.shows(r#"consumed 1 {"n":1}"#).await;
    stage.stop_proxy();
    stage.start_proxy_without_the_topic().await;
    page.shows("closed for good: 4400").await;
    assert_eq!(page.shown("consumed 0 "), 1, "committed");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_producer_in_python_prints_where_each_record_is() {
    let mut stage = Stage::new().await;
    stage.start_proxy().await;
    let producer = stage.run("produce.py", "");
    for n in 0..3 {
        producer
            .shows(&format!("'count': {}}} is at 0 {n}", n + 1))
            .await;
    }
    assert!(producer.ended().success());
}

/// With the schemas that the proxy serves, and an Avro library that shares no code with it.
#[tokio::test(flavor = "multi_thread")]
async fn the_sensor_in_python_speaks_avro_both_ways() {
    let mut stage = Stage::new().await;
    stage.start_proxy().await;
    let sensor = stage.run("sensors.py", "");
    sensor.shows("produced m-1 0").await;
    sensor.shows(r"consumed 0 b'sensor-1' b'\x01\x02'").await;
    assert!(sensor.ended().success());
    stage.committed_of("sensors", "python-group", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pasted_into_wscat_commits() {
    let texts = blocks(README, "text");
    let line = texts.iter().find(|text| text.starts_with("wscat"));
    let mut stage = Stage::new().await;
    stage.start_proxy().await;
    let proxy = stage.proxy.as_ref().unwrap().address();
    let line = line.unwrap().trim().replace(ADDRESS, &proxy);
    let mut wscat = Terminal::start(&line, stage.folder.path());
    stage.produce(r#"{"n":0}"#).await;
    stage.produce(r#"{"n":1}"#).await;
    wscat.shows(r#""offset":1,"#).await;
    let shown = wscat.shows(r#""offset":0,"#).await;
    let (_, id) = shown.split_once(r#"{"wsProxyMessageId":""#).unwrap();
    let (id, _) = id.split_once('"').unwrap();
    wscat.enter(&format!(r#"{{"wsProxyMessageId":"{id}"}}"#));
    stage.committed("me-group", 1).await;
}
