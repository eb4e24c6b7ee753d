//! The Kubernetes manifest in `config/`, held against the API's schemas and against the program.

use std::process::Command;
use std::time::Duration;

use kafka_websocket_proxy::config::Config;
use memory_broker::{BrokerConfig, MemoryBroker};
use serde_json::{Value, json};

use crate::support::clients;
use crate::support::kafka::root;
use crate::support::program::{LogLines, Program};

const MANIFEST: &str = "config/kubernetes.yaml";

/// The file that the program reads when it is told of no other.
const CONFIG_FILE: &str = "/etc/kafka-websocket-proxy/application.conf";

/// The parts of the manifest, by their kind.
struct Manifest(Vec<Value>);

impl Manifest {
    fn read() -> Self {
        let to_json =
            "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(sys.stdin))))";
        let line = format!(
            "python3 -c '{to_json}' <{}",
            root().join(MANIFEST).display()
        );
        let output = clients::output(&line);
        assert!(output.status.success(), "{MANIFEST} is no YAML");
        Self(serde_json::from_slice(&output.stdout).unwrap())
    }

    fn kind(&self, kind: &str) -> &Value {
        let mut found = self.0.iter().filter(|part| part["kind"] == kind);
        let part = found.next().unwrap_or_else(|| panic!("{kind} is missing"));
        assert!(found.next().is_none(), "{kind} stands twice");
        part
    }

    fn pod(&self) -> &Value {
        &self.kind("StatefulSet")["spec"]["template"]["spec"]
    }

    fn container(&self) -> &Value {
        let containers = self.pod()["containers"].as_array().unwrap();
        assert_eq!(containers.len(), 1);
        &containers[0]
    }

    fn config(&self) -> &str {
        let file = CONFIG_FILE.rsplit('/').next().unwrap();
        self.kind("ConfigMap")["data"][file].as_str().unwrap()
    }

    /// The program as pod `name` runs it, but for its brokers; `/tmp` holds its file meanwhile.
    fn start(&self, name: &str, brokers: &str) -> (Program, LogLines) {
        let (before, rest) = self.config().split_once("bootstrap-hosts = \"").unwrap();
        let (_, after) = rest.split_once('"').unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("application.conf");
        std::fs::write(
            &file,
            format!("{before}bootstrap-hosts = \"{brokers}\"{after}"),
        )
        .unwrap();
        let variables = self.container()["env"].as_array().unwrap();
        let variables: Vec<(&str, &str)> = variables
            .iter()
            .map(|variable| {
                let field = &variable["valueFrom"]["fieldRef"]["fieldPath"];
                assert_eq!(field, "metadata.name", "{variable}");
                (variable["name"].as_str().unwrap(), name)
            })
            .collect();
        let arguments = ["--config", file.to_str().unwrap()];
        assert_eq!(self.container()["args"], Value::Null);
        Program::start_logged(&arguments, &variables)
    }
}

#[test]
fn it_is_what_the_api_takes() {
    let manifest = root().join(MANIFEST);
    let line = format!("kubernetes-validate --strict {} 2>&1", manifest.display());
    let output = clients::output(&line);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
}

#[tokio::test]
async fn each_pod_runs_a_node_of_its_own_name_and_is_probed_where_the_program_answers() {
    let manifest = Manifest::read();
    let broker = MemoryBroker::start(BrokerConfig::default()).await.unwrap();
    let (program, log) = manifest.start("kafka-websocket-proxy-0", &broker.bootstrap());
    let first = log.first_with("listening").await;
    let first: Value = serde_json::from_str(&first).expect(&first);
    assert!(
        first
            .to_string()
            .contains(r#""server_id":"kafka-websocket-proxy-0""#),
        "{first}"
    );
    program.ready().await;
    let container = manifest.container();
    let ports = container["ports"].as_array().unwrap();
    assert_eq!(ports.len(), 1);
    assert_eq!(ports[0]["containerPort"], Config::default().server.port);
    for probe in ["livenessProbe", "readinessProbe"] {
        let get = &container[probe]["httpGet"];
        assert_eq!(get["port"], ports[0]["name"], "{probe}");
        let path = get["path"].as_str().unwrap();
        assert_eq!(program.get(path).await.0, 200, "{probe}");
    }
    let service = &manifest.kind("Service")["spec"]["ports"][0];
    assert_eq!(service["targetPort"], ports[0]["name"]);
    assert_eq!(service["port"], ports[0]["containerPort"]);
}

/// Docker runs it in the container, with the settings that the program was started with.
#[tokio::test]
async fn the_images_health_check_asks_the_program() {
    let containerfile = std::fs::read_to_string(root().join("Containerfile")).unwrap();
    let check = containerfile
        .lines()
        .find_map(|l| l.strip_prefix("HEALTHCHECK CMD "));
    let check: Vec<String> = serde_json::from_str(check.unwrap()).unwrap();
    let entry = containerfile
        .lines()
        .find_map(|l| l.strip_prefix("ENTRYPOINT "));
    let entry: Vec<String> = serde_json::from_str(entry.unwrap()).unwrap();
    assert_eq!(check[0], entry[0]);
    let program = Program::start(&["--dev"]);
    let address = program.address();
    let (_, port) = address.rsplit_once(':').unwrap();
    let ask = |port: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kafka-websocket-proxy"));
        let asked = command.args(&check[1..]).env("WSPROXY_PORT", port).status();
        asked.unwrap().code()
    };
    assert_eq!(ask(port), Some(0));
    assert_eq!(ask("1"), Some(1));
}

#[tokio::test]
async fn a_pod_without_brokers_gets_no_new_sockets_and_is_left_alive() {
    let manifest = Manifest::read();
    let (program, _log) = manifest.start("kafka-websocket-proxy-0", "127.0.0.1:1");
    let container = manifest.container();
    for (probe, status) in [("livenessProbe", 200), ("readinessProbe", 503)] {
        let path = container[probe]["httpGet"]["path"].as_str().unwrap();
        assert_eq!(program.get(path).await.0, status, "{probe}");
    }
}

#[test]
fn a_pod_has_the_time_that_a_stop_takes() {
    let manifest = Manifest::read();
    let seconds = |value: &Value| Duration::from_secs(value.as_u64().unwrap());
    let config = manifest.config();
    let delay = config.split("server.drain-delay = ").nth(1).unwrap();
    let (delay, _) = delay.split_once(" seconds").unwrap();
    let before = Duration::from_secs(delay.parse().unwrap());
    let given = seconds(&manifest.pod()["terminationGracePeriodSeconds"]);
    let grace = Config::default().server.shutdown_grace;
    assert!(
        given > before + grace,
        "{given:?} for {before:?} and {grace:?}"
    );
    assert!(!config.contains("shutdown-grace"));
}

/// As in `Containerfile`: an image with nothing in it but the program, which nobody owns.
#[test]
fn a_pod_may_do_nothing_but_serve() {
    let manifest = Manifest::read();
    let (pod, container) = (manifest.pod(), manifest.container());
    let containerfile = std::fs::read_to_string(root().join("Containerfile")).unwrap();
    let user = containerfile.lines().find_map(|l| l.strip_prefix("USER "));
    let of_pod = &pod["securityContext"];
    let ids = format!("{}:{}", of_pod["runAsUser"], of_pod["runAsGroup"]);
    assert_eq!(user, Some(&*ids));
    assert_eq!(of_pod["runAsNonRoot"], true);
    assert_eq!(of_pod["seccompProfile"]["type"], "RuntimeDefault");
    let of_container = &container["securityContext"];
    assert_eq!(of_container["readOnlyRootFilesystem"], true);
    assert_eq!(of_container["allowPrivilegeEscalation"], false);
    assert_eq!(of_container["capabilities"], json!({"drop": ["ALL"]}));
    assert_eq!(pod["automountServiceAccountToken"], false);
    // A Service that is called wsproxy would set WSPROXY_PORT.
    assert_eq!(pod["enableServiceLinks"], false);
    let image = container["image"].as_str().unwrap();
    assert!(
        image.ends_with(concat!(":", env!("CARGO_PKG_VERSION"))),
        "{image}"
    );
}

#[test]
fn its_parts_find_each_other_and_the_program_its_file() {
    let manifest = Manifest::read();
    let help = Command::new(env!("CARGO_BIN_EXE_kafka-websocket-proxy"))
        .arg("--help")
        .output();
    let help = String::from_utf8(help.unwrap().stdout).unwrap();
    assert!(help.contains(CONFIG_FILE), "{help}");
    let set = &manifest.kind("StatefulSet")["spec"];
    let labels = &set["template"]["metadata"]["labels"];
    assert!(labels.is_object());
    let budget = &manifest.kind("PodDisruptionBudget")["spec"];
    let spread = &manifest.pod()["topologySpreadConstraints"][0];
    assert_eq!(&set["selector"]["matchLabels"], labels);
    assert_eq!(&manifest.kind("Service")["spec"]["selector"], labels);
    assert_eq!(&budget["selector"]["matchLabels"], labels);
    assert_eq!(&spread["labelSelector"]["matchLabels"], labels);
    assert_eq!(
        set["serviceName"],
        manifest.kind("Service")["metadata"]["name"]
    );
    let (replicas, away) = (&set["replicas"], &budget["maxUnavailable"]);
    assert!(0 < away.as_u64().unwrap() && away.as_u64() < replicas.as_u64());
    let map = &manifest.pod()["volumes"][0]["configMap"]["name"];
    assert_eq!(map, &manifest.kind("ConfigMap")["metadata"]["name"]);
    let mount = &manifest.container()["volumeMounts"][0];
    let (folder, _) = CONFIG_FILE.rsplit_once('/').unwrap();
    assert_eq!(
        (&mount["mountPath"], &mount["readOnly"]),
        (&json!(folder), &json!(true))
    );
    assert_eq!(mount["name"], manifest.pod()["volumes"][0]["name"]);
}
