//! The commands and programs of README.md, run as they are written there.

mod examples;

use std::path::Path;
use std::process::Command;

use kafka_websocket_proxy::first_steps::FirstSteps;
use serde_json::{Value, json};

use crate::support::clients;
use crate::support::kafka::root;
use crate::support::program::Program;
use crate::support::secrets;
use crate::support::until;

const README: &str = include_str!("../README.md");

/// Commands that are not run from here, and where they are.
const ELSEWHERE: [(&str, &str); 1] = [("scripts/test", "runs this test")];

/// Where the proxy of the README listens.
const ADDRESS: &str = "127.0.0.1:8078";
/// Where its admin server does.
const ADMIN_ADDRESS: &str = "127.0.0.1:9078";

/// The bodies of the fenced blocks in that language, of this part of the text.
pub(crate) fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let begin = format!("```{language}\n");
    let blocks = text.split(&begin).skip(1);
    blocks
        .map(|rest| rest.split("```").next().unwrap())
        .collect()
}

/// The commands of the shell blocks.
fn commands(text: &str) -> Vec<String> {
    let shells = ["bash", "sh", "console", "shell"];
    let blocks = shells.iter().flat_map(|shell| blocks(text, shell));
    let lines = blocks.flat_map(|block| {
        let whole = block.replace("\\\n", " ");
        whole.lines().map(str::to_owned).collect::<Vec<_>>()
    });
    lines.filter(|line| !line.trim().is_empty()).collect()
}

/// The arguments for our program, if that is what the command starts.
fn ours(command: &str) -> Option<Vec<&str>> {
    let programs = ["kafka-websocket-proxy ", "cargo run --release -- "];
    let arguments = programs.iter().find_map(|p| command.strip_prefix(p))?;
    let words = arguments.split_whitespace();
    Some(words.map(|word| word.trim_matches('\'')).collect())
}

/// What our program prints that ends by itself.
fn program_output(arguments: &[&str]) -> String {
    program_output_with(arguments, &[])
}

/// As [`program_output`], with variables.
fn program_output_with(arguments: &[&str], variables: &[(&str, &Path)]) -> String {
    let mut program = Command::new(env!("CARGO_BIN_EXE_kafka-websocket-proxy"));
    program.args(arguments).envs(variables.iter().copied());
    let output = program.output().unwrap();
    assert!(output.status.success(), "{arguments:?}");
    let printed = String::from_utf8(output.stdout).unwrap();
    secrets::assert_none_in(&printed);
    printed
}

/// The text between a heading and the next one.
fn section(heading: &str) -> &'static str {
    let (_, rest) = README.split_once(heading).expect(heading);
    rest.split("\n## ").next().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_does_something_or_is_run_elsewhere() {
    let all = commands(README);
    assert!(all.len() >= 7, "{all:?}");
    let dev = Program::start(&["--dev"]);
    for command in all {
        if let Some(arguments) = ours(&command) {
            if arguments[0] == "check-config" {
                let checked = program_output(&arguments);
                assert!(checked.contains("localhost:9092"), "{checked}");
                continue;
            }
            let program = Program::start(&arguments);
            program.signal("TERM");
            assert_eq!(program.ended().code(), Some(0), "{command}");
        } else if command.contains(ADMIN_ADDRESS) {
            // Runs below, where there is a group.
        } else if !ELSEWHERE.iter().any(|(known, _)| command == *known) {
            assert!(command.contains(ADDRESS), "nothing runs this: {command}");
            let output = clients::output(&command.replace(ADDRESS, &dev.address()));
            let printed = String::from_utf8(output.stdout).unwrap();
            assert!(output.status.success(), "{command}: {printed}");
            let answers: Vec<Value> = printed
                .lines()
                .map(|line| serde_json::from_str(line).expect(line))
                .collect();
            let wrong = answers.iter().any(|answer| {
                ["error", "message"]
                    .iter()
                    .any(|it| answer.get(it).is_some())
            });
            assert!(!answers.is_empty() && !wrong, "{command}: {printed}");
        }
    }
    let mut numbers = dev
        .connect("/socket/out?topic=numbers&clientId=a&valType=long")
        .await;
    for (n, record) in numbers.records(3).await.iter().enumerate() {
        assert_eq!(record["value"]["value"], n + 1, "a frame a line, in order");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_admin_server_answer_what_they_are_said_to() {
    let (dev, log) = Program::start_logged(&["--dev", "--admin-enabled", "--admin-port=0"], &[]);
    let admin = log.admin_address().await;
    let record = json!({"value": {"value": "tea"}}).to_string();
    let mut producer = dev.connect("/socket/in?topic=orders").await;
    producer.ask(record).await;
    let path = "/socket/out?topic=orders&groupId=shipping&clientId=warehouse-1&autoCommit=false";
    let mut reader = dev.connect(path).await;
    let id = reader.records(1).await[0]["wsProxyMessageId"].clone();
    reader
        .send(json!({"wsProxyMessageId": id}).to_string())
        .await;
    let answer = |command: &str| -> Value {
        let output = clients::output(&command.replace(ADMIN_ADDRESS, &admin));
        serde_json::from_slice(&output.stdout).expect(command)
    };
    let all = commands(section("## The admin server"));
    let [list, describe, offsets, alter, delete, sockets, close, ..] = &all[..] else {
        panic!("{all:?}");
    };
    assert_eq!(answer(list)[0]["groupId"], "shipping");
    assert_eq!(answer(describe)["members"][0]["instanceId"], "warehouse-1");
    until("it is committed", || answer(offsets)[0]["offset"] == 1).await;
    assert_eq!(answer(sockets)[0]["endpoint"], "in");
    assert_eq!(answer(close)[0]["clientId"], "warehouse-1");
    assert_eq!(reader.closed().await.0, 1008);
    until("it has left", || answer(describe)["state"] == "EMPTY").await;
    assert_eq!(answer(alter)[0]["lag"], 1);
    assert_eq!(answer(delete), json!([]));
    assert_eq!(answer(offsets), json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_that_change_limits_answer_what_they_are_said_to() {
    let switches = ["--admin-enabled", "--dynamic-config-handler-enabled"];
    let arguments = [&["--dev", "--admin-port=0"], &switches[..]].concat();
    let (_dev, log) = Program::start_logged(&arguments, &[]);
    let admin = log.admin_address().await;
    let answer = |command: &str| -> Value {
        let output = clients::output(&command.replace(ADMIN_ADDRESS, &admin));
        serde_json::from_slice(&output.stdout).expect(command)
    };
    let all = commands(section("### Limits while it runs"));
    let [make, change, list, forget] = &all[..] else {
        panic!("{all:?}");
    };
    let of = |limit: u32| json!({"producer-id": "sensors", "messages-per-second": limit});
    assert_eq!(answer(make), of(5_000));
    assert_eq!(answer(change), of(50));
    assert_eq!(answer(list)["producers"]["dynamic"], json!([of(50)]));
    assert_eq!(answer(forget), of(50));
    assert_eq!(answer(list)["producers"]["dynamic"], json!([]));
}

#[test]
fn the_settings_of_secured_clusters_are_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let stores = root().join("proto-tests/golden/stores");
    let file = |name: &str| directory.path().join(name);
    std::fs::copy(stores.join("ca.pem"), file("ca.pem")).unwrap();
    std::fs::copy(stores.join("key.p12"), file("user.p12")).unwrap();
    std::fs::write(file("store-password"), "storepass").unwrap();
    std::fs::write(file("secret"), "hunter2").unwrap();
    let settings = blocks(section("## Secured clusters"), "hocon");
    assert_eq!(settings.len(), 4);
    let keytab = root().join("proto-tests/golden/kerberos/alice.keytab");
    std::fs::copy(keytab, file("proxy.keytab")).unwrap();
    let realm = "[realms]\nTEST.LOCAL = {\nkdc = kdc.example.com\n}\n";
    std::fs::write(file("krb5.conf"), realm).unwrap();
    for block in settings {
        let here = format!("{}/", directory.path().display());
        let config = file("application.conf");
        let block = block.replace("/etc/kafka/", &here);
        let block = block.replace("proxy@EXAMPLE.COM", "alice@TEST.LOCAL");
        std::fs::write(&config, block).unwrap();
        let arguments = ["check-config", "--config", config.to_str().unwrap()];
        let variables: [(&str, &Path); 1] = [("KRB5_CONFIG", &file("krb5.conf"))];
        let checked = program_output_with(&arguments, &variables);
        assert!(checked.contains("security.protocol"), "{checked}");
        assert!(!checked.contains("hunter2"), "{checked}");
    }
}

#[test]
fn the_settings_of_who_may_use_what_are_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let here = format!("{}/", directory.path().display());
    std::fs::write(directory.path().join("password"), "hunter2").unwrap();
    let settings = blocks(section("## In production"), "hocon");
    let config = directory.path().join("application.conf");
    let text = settings
        .join("")
        .replace("/etc/kafka-websocket-proxy/", &here);
    std::fs::write(&config, text).unwrap();
    let config = config.to_str().unwrap();
    let checked = program_output(&["check-config", "--dev", "--config", config]);
    for set in [
        "server.basic-auth.password",
        "server.openid-connect.audience",
        "server.topics.consume-allowed",
    ] {
        assert!(checked.contains(set), "{set} is not in {checked}");
    }
    assert!(!checked.contains("hunter2"), "{checked}");
}

#[tokio::test]
async fn the_first_steps_give_what_is_shown() {
    let steps = section("## Try it");
    let printed = FirstSteps {
        plain: Some("127.0.0.1:8078".parse().unwrap()),
        tls: None,
        console: true,
        broker: "127.0.0.1:19092".to_owned(),
        memory: 256 << 20,
    };
    let [shown] = blocks(steps, "text")[..] else {
        panic!("what is printed is due");
    };
    assert!(printed.to_string().contains(shown), "{printed}");

    let commands = commands(steps);
    let mut programs = commands.iter().filter_map(|command| ours(command));
    let program = Program::start(&programs.next().unwrap());
    let mut producer = program.connect("/socket/in?topic=t").await;
    let record = shown.lines().find_map(|line| line.strip_prefix("  {"));
    let mut answer = producer.ask(format!("{{{}", record.unwrap())).await;
    let [answer_shown] = blocks(steps, "json")[..] else {
        panic!("an answer is due");
    };
    let answer_shown: Value = serde_json::from_str(answer_shown).unwrap();
    assert!(answer["timestamp"].is_i64(), "{answer}");
    answer["timestamp"] = answer_shown["timestamp"].clone();
    assert_eq!(answer, answer_shown);
}

#[test]
fn the_flags_in_its_text_exist_and_so_do_the_scripts() {
    let help = program_output(&["--help"]);
    let prose: String = README.split("```").step_by(2).collect();
    let mut seen = 0;
    for code in prose.split('`').skip(1).step_by(2) {
        let word = code.split_whitespace().next().unwrap_or_default();
        if word.starts_with("--") {
            assert!(
                help.contains(&format!("{word} ")) || help.contains(&format!("{word}\n")),
                "{word}"
            );
            seen += 1;
        }
        if ["scripts/", "src/", "config/"]
            .iter()
            .any(|f| word.starts_with(f))
        {
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(word);
            assert!(file.is_file(), "{word}");
            seen += 1;
        }
    }
    assert!(seen >= 8, "{seen}");
    assert!(help.contains("-D <KEY=VALUE>") && help.contains("[default: 8078]"));
}
