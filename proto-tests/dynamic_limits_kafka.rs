//! Limits that change, over several nodes: real processes in front of three real brokers.

use kafka_client::config::ClientConfig;
use kafka_client::{Cluster, Principal, admin};
use serde_json::{Value, json};
use tokio::task::block_in_place;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::support::http::{ask, send};
use crate::support::kafka::{Kafka, unique};
use crate::support::program::Program;
use crate::support::until_asked;

const PRODUCER: &str = "/admin/client/config/producer/c";

/// A node of a deployment, and where its admin server is.
async fn node(kafka: &Kafka, name: &str, server_id: &str) -> (Program, String) {
    let (sessions, limits) = (format!("_{name}.state"), format!("_{name}.limits"));
    let arguments = [
        "--bootstrap-hosts",
        kafka.bootstrap(),
        "--server-id",
        server_id,
        "--admin-enabled",
        "--admin-port=0",
        "--session-handler-session-state-topic-name",
        &sessions,
        "--dynamic-config-handler-enabled",
        "--dynamic-config-handler-topic-name",
        &limits,
    ];
    let (program, log) = Program::start_logged(&arguments, &[]);
    program.ready().await;
    let admin = log.admin_address().await;
    (program, admin)
}

async fn until_limited(admin: &str, expected: &Value) {
    until_asked("the limit is known", async || {
        let answer = ask(admin, "GET", PRODUCER, &[]).await;
        answer.status == 200 && serde_json::from_str::<Value>(&answer.body).unwrap() == *expected
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_holds_at_another_node_and_after_all_were_killed() {
    let kafka = block_in_place(|| Kafka::shared("4.4", 3));
    let name = unique("limits");
    block_in_place(|| kafka.create_topic(&name, 1, 3));
    let (first, first_admin) = node(&kafka, &name, "one").await;
    let (second, second_admin) = node(&kafka, &name, "two").await;
    let record = json!({"value": {"value": "v"}});
    let path = |client: &str| format!("/socket/in?topic={name}&clientId={client}");
    let mut limited = second.connect(&path("c")).await;
    limited.ask(record.to_string()).await;

    let slow = json!({"producer-id": "c", "messages-per-second": 1});
    let made = send(&first_admin, "POST", PRODUCER, &[], &slow.to_string()).await;
    assert_eq!(made.status, 200, "{}", made.body);
    until_limited(&second_admin, &slow).await;
    // The next turn is in a quarter of an hour.
    limited.ask(json!(vec![&record; 1_000]).to_string()).await;
    limited.send(record.to_string()).await;
    let mut other = second.connect(&path("d")).await;
    assert_eq!(other.ask(record.to_string()).await["offset"], 1_001);
    let again = send(&second_admin, "POST", PRODUCER, &[], "{}").await;
    assert_eq!(again.status, 409, "{}", again.body);
    let gone = ask(&second_admin, "DELETE", PRODUCER, &[]).await;
    assert_eq!(gone.status, 200, "{}", gone.body);
    assert_eq!(limited.next().await["offset"], 1_002);

    let made = send(&second_admin, "POST", PRODUCER, &[], &slow.to_string()).await;
    assert_eq!(made.status, 200, "{}", made.body);
    for program in [first, second] {
        program.signal("KILL");
        program.ended();
    }
    let (_third, admin) = node(&kafka, &name, "one").await;
    until_limited(&admin, &slow).await;
    let config = ClientConfig {
        bootstrap_servers: kafka.bootstrap().split(',').map(str::to_owned).collect(),
        ..ClientConfig::default()
    };
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let cluster = Cluster::new(config, Principal::Proxy, tasks, stop);
    let topic = format!("_{name}.limits");
    let policy = admin::topic_setting(&cluster, &topic, "cleanup.policy").await;
    assert_eq!(policy.unwrap().as_deref(), Some("compact"), "for ever");
}
