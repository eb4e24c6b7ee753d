//! The console as people use it: in a headless Chromium, by mouse and keyboard.

use std::io::Write;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kafka_client::{BrokerId, TopicPartition};
use kafka_websocket_proxy::app::App;
use kafka_websocket_proxy::config::Config;
use kafka_websocket_proxy::server;
use memory_broker::{BrokerConfig, MemoryBroker};
use secret::Secret;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, block_in_place};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::secure_kafka::{cluster, sasl_plaintext};
use crate::support::chromium::{Chromium, ChromiumPage};
use crate::support::clients::{self, Terminal};
use crate::support::http;
use crate::support::kafka::{root, unique};
use crate::support::proxy::Proxy;
use crate::support::ws_client::WsClient;
use crate::support::{until, until_asked};

/// A proxy with a topic `t` of one partition, and the console in a browser.
struct ConsoleScene {
    proxy: Proxy,
    _browser: Chromium,
    page: ChromiumPage,
}

impl ConsoleScene {
    async fn start() -> Self {
        let proxy = Proxy::with(|config| {
            config.server.console_enabled = true;
        })
        .await;
        proxy.ready().await;
        proxy.topic("t", 1);
        let browser = Chromium::start(&[]).await;
        let page = browser.open(&format!("http://{}/", proxy.address)).await;
        Self {
            proxy,
            _browser: browser,
            page,
        }
    }

    /// Reads a topic from its beginning.
    async fn read(&self, topic: &str) {
        let page = &self.page;
        page.fill("#topic", topic).await;
        page.choose("#offset-reset-strategy", "earliest").await;
        page.click("#read").await;
    }

    async fn reading(&self, topic: &str) {
        self.read(topic).await;
        self.page.until(&state_is("open")).await;
    }

    /// Produces a value by the form, and waits for the answer.
    async fn produce(&self, value: &str, answer: &str) {
        let page = &self.page;
        page.click("#tab-produce").await;
        page.fill("#produce-value", value).await;
        page.click("#produce").await;
        page.shows("#answers li:first-child", answer).await;
    }

    /// Waits until the page counts so many records.
    async fn counts(&self, what: &str, count: u64) {
        let counted = format!("document.querySelector('#counts').dataset.{what} === '{count}'");
        self.page.until(&counted).await;
    }

    async fn end(self) {
        assert_eq!(self.page.complaints(), Vec::<String>::new());
        self.proxy.stopped().await;
    }
}

/// Whether the socket that reads is in that state.
fn state_is(state: &str) -> String {
    format!("document.querySelector('#read-state').dataset.state === '{state}'")
}

/// A row whose text contains that.
fn row_with(text: &str) -> String {
    let text = json!(text);
    format!(
        "[...document.querySelectorAll('#records .row:not([hidden])')]\
         .find((row) => row.textContent.includes({text}))"
    )
}

#[tokio::test]
async fn what_is_produced_is_seen_live_found_by_a_search_and_shown_in_full() {
    let scene = ConsoleScene::start().await;
    let page = &scene.page;
    scene.reading("t").await;
    scene.produce("hello <b>you</b>", "t-0 @ 0").await;
    page.until(&row_with("hello <b>you</b>")).await;

    let mut other = scene.proxy.connect("/socket/in?topic=t").await;
    let record = json!({
        "key": {"value": "k1"},
        "value": {"value": {"n": 12345678901234567890_u64}, "format": "json"},
        "headers": [{"key": "trace", "value": "4711"}],
    });
    other.ask(record.to_string()).await;
    page.until(&row_with("12345678901234567890")).await;
    scene.counts("received", 2).await;

    page.fill("#search", "12345").await;
    scene.counts("matching", 1).await;
    page.until(&format!("!{}", row_with("hello"))).await;
    page.click("#records .row:not([hidden])").await;
    let shown = page.shows("#panel-record", "t-0 @ 1").await;
    for part in ["k1", "trace", "4711", "12345678901234567890"] {
        assert!(shown.contains(part), "{part} is not in: {shown}");
    }
    page.clipboard().await; // so that it may be written
    page.click("#copy-record").await;
    until_asked("it is copied", async || {
        let copied = page.clipboard().await;
        copied.starts_with("{") && copied.contains(r#""offset":1"#) && copied.contains("4711")
    })
    .await;
    page.fill("#search", "").await;
    scene.counts("matching", 2).await;
    // JSON is shown over several lines when it is asked for.
    page.choose("#val-type", "json").await;
    page.shows("#panel-record", "{\n").await;
    scene.end().await;
}

#[tokio::test]
async fn a_group_is_committed_when_the_button_is_pressed_and_not_before() {
    let scene = ConsoleScene::start().await;
    let (page, broker) = (&scene.page, &scene.proxy.broker);
    let committed = || broker.committed("g", &TopicPartition::new("t", 0));
    page.fill("#produce-topic", "t").await;
    for n in 0..3 {
        scene.produce(&format!("v{n}"), &format!("t-0 @ {n}")).await;
    }
    page.evaluate("document.querySelector('#more').open = true")
        .await;
    page.fill("#group-id", "g").await;
    scene.reading("t").await;
    page.until(&row_with("v2")).await;
    // Newest first: the second row is the second record.
    page.evaluate("document.querySelector('#records').focus()")
        .await;
    page.press("Home").await;
    page.press("ArrowDown").await;
    page.shows("#panel-record", "t-0 @ 1").await;
    assert_eq!(committed(), None);
    page.click("#commit-record").await;
    until("the chosen record is committed", || committed() == Some(2)).await;
    page.click("#commit").await;
    until("all are committed", || committed() == Some(3)).await;
    scene.end().await;
}

#[tokio::test]
async fn a_file_is_produced_line_by_line() {
    let scene = ConsoleScene::start().await;
    let page = &scene.page;
    scene.reading("t").await;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    for n in 0..250 {
        writeln!(file, "line {n}").unwrap();
    }
    page.click("#tab-produce").await;
    page.fill("#produce-topic", "t").await;
    page.choose_file("#produce-file", file.path()).await;
    page.shows("#answers-summary", "250 answers, 0 errors")
        .await;
    scene.counts("received", 250).await;
    page.until(&row_with("line 249")).await;
    // A record of JSON a line, one of which does not fit.
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, r#"{{"value":{{"value":"fits"}}}}"#).unwrap();
    writeln!(file, r#"{{"value":{{"value":"70000","format":"short"}}}}"#).unwrap();
    page.choose("#produce-lines", "records").await;
    page.choose_file("#produce-file", file.path()).await;
    page.shows("#answers-summary", "252 answers, 1 error").await;
    page.shows("#answers", "invalid_format").await;
    page.until(&row_with("fits")).await;
    scene.end().await;
}

#[tokio::test]
async fn errors_are_shown_as_they_came() {
    let scene = ConsoleScene::start().await;
    let page = &scene.page;
    for (topic, expected) in [
        ("nothing", ["400", "topic nothing does not exist"]),
        ("__consumer_offsets", ["403", "is an internal topic"]),
        ("a b", ["400", "parameter topic"]),
    ] {
        scene.read(topic).await;
        for part in expected {
            page.shows("#notice", part).await;
        }
        page.until(&state_is("closed")).await;
    }
    page.fill("#produce-topic", "nothing").await;
    scene.produce("x", "topic nothing does not exist").await;
    page.fill("#produce-topic", "t").await;
    page.choose("#produce-val-type", "short").await;
    page.fill("#produce-value", "70000").await;
    page.click("#produce").await;
    page.until("document.querySelector('#answers .error')")
        .await;
    page.choose("#produce-val-type", "string").await;
    scene.produce("fits", "t-0 @ 0").await;
    scene.reading("t").await;
    page.shows("#notice", "").await;
    page.until(&row_with("fits")).await;

    // The cluster has no SASL, so that nobody can be another user.
    page.click("#credentials").await;
    page.fill("[name=kafkaUser]", "bob").await;
    page.fill("[name=kafkaPassword]", "secret").await;
    page.click("#credentials-form [value=use]").await;
    page.shows("#notice", "sub-protocol kafka-auth").await;
    let stored = "location.href + JSON.stringify(localStorage) + JSON.stringify(sessionStorage)";
    let stored = page.evaluate(stored).await;
    assert!(!stored.as_str().unwrap().contains("secret"), "{stored}");
    scene.proxy.stopped().await;
}

#[tokio::test]
async fn brokers_that_are_away_are_said_and_reading_goes_on_when_they_are_back() {
    let scene = ConsoleScene::start().await;
    let page = &scene.page;
    let ready = |ready: &str| {
        format!("document.querySelector('#server-ready').dataset.ready === '{ready}'")
    };
    page.until(&ready("true")).await;
    scene.reading("t").await;
    assert!(scene.proxy.broker.stop_node(BrokerId(1)).await);
    page.until(&ready("false")).await;
    page.shows("#server-ready", "no broker can be reached")
        .await;
    scene.read("t").await;
    page.until(&state_is("waiting")).await;
    page.shows("#read-state", "503").await;
    scene.proxy.broker.start_node(BrokerId(1)).await.unwrap();
    page.until(&state_is("open")).await;
    page.until(&ready("true")).await;
    scene.produce("again", "t-0 @ 0").await;
    page.until(&row_with("again")).await;
    scene.proxy.stopped().await;
}

/// A server of the console before that broker, until it is stopped.
fn serve(listener: TcpListener, broker: &MemoryBroker) -> (CancellationToken, JoinHandle<()>) {
    let mut config = Config::default();
    config.client.bootstrap_servers = vec![broker.bootstrap()];
    config.server.console_enabled = true;
    let (stop, grace) = (CancellationToken::new(), config.server.shutdown_grace);
    let serving = server::run(listener, App::new(config), stop.clone(), grace);
    (stop, tokio::spawn(serving))
}

#[tokio::test]
async fn after_a_restart_of_the_proxy_reading_goes_on_and_nothing_is_shown_twice() {
    let broker = MemoryBroker::start(BrokerConfig::default()).await.unwrap();
    assert!(broker.create_topic("t", 1));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, running) = serve(listener, &broker);
    let browser = Chromium::start(&[]).await;
    let link = format!("http://{address}/#topic=t&offsetResetStrategy=earliest");
    let page = browser.open(&link).await;
    page.until(&state_is("open")).await;
    let record = |text: &str| json!({"value": {"value": text}}).to_string();
    let open = async || {
        let opened = WsClient::connect(&address.to_string(), "/socket/in?topic=t").await;
        opened.expect("it is let in")
    };
    open().await.ask(record("before")).await;
    page.until(&row_with("before")).await;

    stop.cancel();
    running.await.unwrap();
    page.until(&state_is("waiting")).await;
    page.shows("#read-state", "Again in").await;
    page.until("document.querySelector('#server-ready').dataset.ready === 'unknown'")
        .await;
    let (stop, running) = serve(server::listen(address).unwrap(), &broker);
    page.until(&state_is("open")).await;
    open().await.ask(record("after")).await;
    page.until(&row_with("after")).await;
    let twice = "[...document.querySelectorAll('#records .row:not([hidden])')]\
                 .filter((row) => row.textContent.includes('before')).length";
    assert_eq!(page.evaluate(twice).await, 1);
    page.until("document.querySelector('#server-ready').dataset.ready === 'true'")
        .await;
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn everything_can_be_done_by_the_keyboard() {
    let scene = ConsoleScene::start().await;
    let page = &scene.page;
    let focused = |id: &str| format!("document.activeElement?.id === '{id}'");
    page.evaluate("document.activeElement?.blur()").await;
    page.press("w").await;
    page.until(&focused("produce-value")).await;
    page.fill("#produce-topic", "t").await;
    page.fill("#produce-value", "first").await;
    page.press("Control+Enter").await;
    page.shows("#answers li:first-child", "t-0 @ 0").await;

    page.fill("#topic", "t").await;
    page.choose("#offset-reset-strategy", "earliest").await;
    page.press("Enter").await;
    page.until(&state_is("open")).await;
    page.until(&row_with("first")).await;
    let mut other = scene.proxy.connect("/socket/in?topic=t").await;
    other
        .ask(json!({"value": {"value": "second"}}).to_string())
        .await;
    page.until(&row_with("second")).await;

    // From the field of the topic to the list, by Tab alone.
    until_focused(page, "records").await;
    page.press("End").await;
    page.shows("#panel-record", "t-0 @ 0").await;
    page.press("ArrowUp").await;
    page.shows("#panel-record", "t-0 @ 1").await;
    let active = "document.getElementById(\
                  document.activeElement.getAttribute('aria-activedescendant'))?.textContent ?? ''";
    page.until(&format!("({active}).includes('second')")).await;
    page.press("p").await;
    page.until("document.querySelector('#pause').ariaPressed === 'true'")
        .await;
    other
        .ask(json!({"value": {"value": "third"}}).to_string())
        .await;
    scene.counts("waiting", 1).await;
    page.until(&format!("!{}", row_with("third"))).await;
    page.press("p").await;
    page.until(&row_with("third")).await;
    page.press("/").await;
    page.until(&focused("search")).await;
    // In a field a letter is a letter.
    page.press("p").await;
    page.until("document.querySelector('#search').value === 'p'")
        .await;
    page.until("document.querySelector('#pause').ariaPressed === 'false'")
        .await;
    page.fill("#search", "").await;
    page.evaluate("document.querySelector('#records').focus()")
        .await;
    page.press("?").await;
    page.until("document.querySelector('#shortcuts-dialog').open")
        .await;
    page.press("Escape").await;
    page.until("!document.querySelector('#shortcuts-dialog').open")
        .await;
    until_focused(page, "tab-produce").await;
    page.press("ArrowRight").await;
    let chosen = "document.activeElement.getAttribute('role') === 'tab' \
                  && document.activeElement.id !== 'tab-produce' \
                  && document.activeElement.ariaSelected === 'true'";
    page.until(chosen).await;
    scene.end().await;
}

/// Presses Tab until that element has the focus.
async fn until_focused(page: &ChromiumPage, id: &str) {
    for _ in 0..60 {
        page.press("Tab").await;
        let focused = page.evaluate("document.activeElement?.id").await;
        if focused == id {
            return;
        }
        // What is a tab of a list is reached by the one that is chosen.
        let role = page.evaluate("document.activeElement?.role").await;
        if role == "tab" && id.starts_with("tab-") {
            page.evaluate(&format!("document.getElementById({}).focus()", json!(id)))
                .await;
            page.press("Enter").await;
            return;
        }
    }
    panic!("Tab does not lead to {id}");
}

/// Enters a Kafka user in the dialog.
async fn become_user(page: &ChromiumPage, user: &str, password: &str) {
    page.click("#credentials").await;
    page.fill("[name=kafkaUser]", user).await;
    page.fill("[name=kafkaPassword]", password).await;
    page.click("#credentials-form [value=use]").await;
    page.until("!document.querySelector('#credentials-dialog').open")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kafka_user_is_entered_for_the_tab_and_sees_what_it_may_and_no_more() {
    let (kafka, at) = cluster();
    let stem = unique("console");
    let [mine, hidden] = ["mine", "hidden"].map(|end| format!("{stem}-{end}"));
    block_in_place(|| {
        for topic in [&mine, &hidden] {
            kafka.create_topic(topic, 1, 1);
        }
        let rights = [["topic", &*mine, "all"], ["group", "console-*", "read"]];
        kafka.java(
            "Acls.java",
            &[&["allow", "User:bob"][..], rights.as_flattened()].concat(),
        );
    });
    let connecting = sasl_plaintext(&at).authenticated_by("PLAIN", "alice-secret");
    let (proxy, log) = connecting.start_with(&["--console-enabled", "--log-level", "debug"]);
    proxy.ready().await;
    let browser = Chromium::start(&[]).await;
    let page = browser.open(&format!("http://{}/", proxy.address())).await;
    let read = async |topic: &str| {
        page.fill("#topic", topic).await;
        page.press("Enter").await;
    };
    become_user(&page, "bob", "wrong-secret").await;
    read(&mine).await;
    page.shows("#notice", "401").await;
    become_user(&page, "bob", "bob-secret").await;
    let bob = format!("X-Kafka-Auth: {}", STANDARD.encode("bob:bob-secret"));
    let topics = format!("/console/topics?contains={mine}");
    until_asked("the brokers know what bob may do", async || {
        let answer = http::ask(&proxy.address(), "GET", &topics, &[&bob]).await;
        answer.body.contains(&mine)
    })
    .await;
    read(&mine).await;
    page.until(&state_is("open")).await;
    page.fill("#topic", &stem).await;
    let listed = "[...document.querySelectorAll('#topic-names option')].map(({ value }) => value)";
    page.until(&format!("({listed}).length === 1")).await;
    assert_eq!(page.evaluate(listed).await, json!([mine]));
    read(&hidden).await;
    page.shows("#notice", "403").await;
    let kept = "location.href + document.cookie + JSON.stringify([localStorage, sessionStorage])";
    let kept = page.evaluate(kept).await.to_string();
    assert!(!kept.contains("secret"), "{kept}");
    assert!(log.with("-secret").is_empty());
}

#[tokio::test]
async fn who_has_logged_in_to_the_browser_reads_and_writes_on_the_page() {
    let proxy = Proxy::with(|config| {
        config.server.console_enabled = true;
        let basic_auth = &mut config.server.basic_auth;
        basic_auth.enabled = Some(true);
        basic_auth.username = Some(Secret::new("edge"));
        basic_auth.password = Some(Secret::new("s3cret"));
    })
    .await;
    proxy.topic("t", 1);
    let browser = Chromium::start(&[]).await;
    // As if it was entered in the browser's own dialog, which 401 opens.
    let page = browser.blank().await;
    let log_in = format!(
        "http://edge:s3cret@{}/schemas/avro/producer/record",
        proxy.address
    );
    page.navigate(&log_in).await;
    page.navigate(&format!("http://{}/", proxy.address)).await;
    let listed = "document.querySelector('#topic-names option')?.value === 't'";
    page.fill("#topic", "t").await;
    page.until(listed).await;
    page.press("Enter").await;
    page.until(&state_is("open")).await;
    page.click("#tab-produce").await;
    page.fill("#produce-value", "hello").await;
    page.click("#produce").await;
    page.shows("#answers li:first-child", "t-0 @ 0").await;
    page.until(&row_with("hello")).await;
    assert_eq!(page.complaints(), Vec::<String>::new());
    proxy.stopped().await;
}

/// Resolves when what changed is drawn, and nothing moves or changes its colour any more.
const DRAWN: &str = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))\
    .then(() => Promise.allSettled(document.getAnimations().map(({ finished }) => finished)))\
    .then(() => true)";

const WINDOWS: [(u32, u32); 2] = [(1280, 800), (360, 740)];

#[tokio::test]
async fn it_is_accessible_and_fits_wide_and_narrow_windows_in_both_schemes() {
    let scene = ConsoleScene::start().await;
    let page = &scene.page;
    scene.proxy.topic("orders", 1);
    page.show_as(WINDOWS[0], false).await;
    scene.reading("orders").await;
    fill_with_examples(&scene).await;
    let axe = clients::folder().join("node_modules/axe-core/axe.min.js");
    page.evaluate(&format!("{};0", std::fs::read_to_string(axe).unwrap()))
        .await;
    let pictures = root().join("target/console");
    std::fs::create_dir_all(&pictures).unwrap();
    let mut faults = Vec::new();
    for (width, height) in WINDOWS {
        for (scheme, is_dark) in [("light", false), ("dark", true)] {
            page.show_as((width, height), is_dark).await;
            for panel in ["produce", "record", "connect", "server"] {
                page.evaluate(&format!("document.querySelector('#tab-{panel}').click()"))
                    .await;
                page.evaluate(DRAWN).await;
                let name = format!("{width}-{scheme}-{panel}");
                let across = page.evaluate("document.scrollingElement.scrollWidth").await;
                if across.as_u64() > Some(u64::from(width)) {
                    faults.push(format!("{name}: {across} px wide"));
                }
                let found = serious_violations(page).await;
                faults.extend(found.into_iter().map(|fault| format!("{name}: {fault}")));
                let picture = page.screenshot().await;
                std::fs::write(pictures.join(format!("{name}.png")), picture).unwrap();
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    for dialog in ["shortcuts", "credentials"] {
        page.evaluate(&format!("document.querySelector('#{dialog}').click()"))
            .await;
        assert_eq!(serious_violations(page).await, Vec::<String>::new());
        let across = page.evaluate("document.scrollingElement.scrollWidth").await;
        assert!(across.as_u64() <= Some(360), "{dialog}: {across}");
        page.press("Escape").await;
    }
    write_picture(&scene).await;
    scene.end().await;
}

/// Orders, a long one and one with headers among them, which is chosen.
async fn fill_with_examples(scene: &ConsoleScene) {
    let mut other = scene.proxy.connect("/socket/in?topic=orders").await;
    let items = ["tea", "coffee", "cocoa", "water", "milk"];
    let order = |n: usize| {
        let (item, count) = (items[n % items.len()], n % 7 + 1);
        format!(
            r#"{{"order":{},"item":"{item}","count":{count}}}"#,
            4711 + n
        )
    };
    for n in 0..40 {
        let (key, value, trace) = (n % 9, order(n), n * 2_654_435);
        let record = format!(
            r#"{{"key":{{"value":"customer-{key}"}},"value":{{"value":{value},"format":"json"}},
               "headers":[{{"key":"trace","value":"{trace:08x}"}}]}}"#
        );
        other.ask(record).await;
    }
    let long = json!({"value": {"value": "long ".repeat(2_000), "format": "json"}});
    other.ask(long.to_string()).await;
    let page = &scene.page;
    page.choose("#val-type", "json").await;
    page.until(&state_is("open")).await;
    page.until(&row_with("long long")).await;
    page.fill("#produce-topic", "orders").await;
    page.fill("#produce-key", "customer-3").await;
    page.choose("#produce-val-type", "json").await;
    scene.produce(&order(40), "orders-").await;
    page.until(&row_with("4751")).await;
    page.evaluate("document.querySelector('#records').focus()")
        .await;
    page.press("Home").await;
    for _ in 0..3 {
        page.press("ArrowDown").await;
    }
    page.shows("#panel-record", "4749").await;
}

/// What axe-core calls serious or critical.
async fn serious_violations(page: &ChromiumPage) -> Vec<String> {
    let found = page
        .evaluate(
            "axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) => violations\
             .filter(({ impact }) => ['serious', 'critical'].includes(impact))\
             .map(({ id, nodes }) => id + ': ' + nodes\
             .map(({ html, failureSummary }) => html + ' ' + failureSummary).join('; ')))",
        )
        .await;
    serde_json::from_value(found).unwrap()
}

/// Writes the README's picture when it is asked for, by `WRITE=1`.
async fn write_picture(scene: &ConsoleScene) {
    if std::env::var_os("WRITE").is_none() {
        return;
    }
    let page = &scene.page;
    page.show_as((960, 520), false).await;
    page.evaluate("document.querySelector('#tab-record').click()")
        .await;
    page.evaluate(DRAWN).await;
    let picture = page.screenshot().await;
    std::fs::write(root().join("src/routes/console/console.png"), picture).unwrap();
}

/// How fast records come, for how long: `scripts/bench console` has more of them.
const RECORDS: u64 = 20_000;

#[tokio::test]
async fn ten_thousand_records_a_second_are_kept_or_counted_and_the_page_goes_on_answering() {
    let scene = ConsoleScene::start().await;
    let page = &scene.page;
    scene.reading("t").await;
    page.observe_long_tasks().await;
    let mut producer = scene.proxy.connect("/socket/in?topic=t").await;
    let record = json!({"value": {"value": "x".repeat(100)}});
    let frame = Value::Array(vec![record; 1_000]).to_string();
    let mut pace = interval(Duration::from_millis(100));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let load = async {
        for _ in 0..RECORDS / 1_000 {
            pace.tick().await;
            producer.ask(frame.clone()).await;
        }
    };
    let clicks = async {
        for pressed in ["true", "false"] {
            page.click("#pause").await;
            page.until(&format!(
                "document.querySelector('#pause').ariaPressed === '{pressed}'"
            ))
            .await;
        }
    };
    tokio::join!(load, clicks);
    let all = format!(
        "(({{ received, leftOut, waiting }}) => Number(received) + Number(leftOut) === {RECORDS} \
         && waiting === '0')(document.querySelector('#counts').dataset)"
    );
    page.until(&all).await;
    scene.counts("kept", 10_000).await;
    let rows = "document.querySelectorAll('#records .row').length";
    let rows = page.evaluate(rows).await.as_u64().unwrap();
    assert!((1..200).contains(&rows), "{rows} elements");
    let longest = page.longest_task_ms().await;
    let heap = page.heap_bytes().await >> 20;
    println!("the main thread's longest block: {longest} ms; {heap} MiB of objects");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_snippets_run_as_they_are() {
    let scene = ConsoleScene::start().await;
    let page = &scene.page;
    scene.reading("t").await;
    page.fill("#produce-key", "it's").await;
    page.fill("#produce-value", "a \"quoted\" $value").await;
    page.click("#tab-connect").await;
    let folder = tempfile::tempdir().unwrap();
    let undici = clients::folder().join("node_modules/undici/index.js");
    let global =
        format!("import {{ WebSocket }} from {undici:?};\nglobalThis.WebSocket ??= WebSocket;\n");
    std::fs::write(folder.path().join("global.mjs"), global).unwrap();
    let mut terminals = Vec::new();
    for endpoint in ["consume", "produce"] {
        page.choose("#snippet-endpoint", endpoint).await;
        for (tool, file, command) in [
            ("wscat", "snippet.sh", "bash"),
            ("websocat", "snippet.sh", "bash"),
            (
                "JavaScript",
                "snippet.mjs",
                "NODE_OPTIONS=--import=./global.mjs node",
            ),
            ("Python", "snippet.py", "python3 -u"),
        ] {
            page.choose("#snippet-tool", tool).await;
            let snippet = page
                .evaluate("document.querySelector('#snippet').textContent")
                .await;
            let file = format!("{endpoint}-{tool}-{file}");
            std::fs::write(folder.path().join(&file), snippet.as_str().unwrap()).unwrap();
            let terminal = Terminal::start(&format!("{command} {file}"), folder.path());
            match endpoint {
                "consume" => terminals.push((tool, terminal)),
                _ => {
                    terminal.shows(r#""offset":"#).await;
                }
            }
        }
    }
    for (tool, terminal) in &terminals {
        until(tool, || terminal.shown(r#"a \"quoted\" $value"#) == 4).await;
    }
    let written = format!(
        "[...document.querySelectorAll('#records .row:not([hidden])')].length === {}",
        4
    );
    page.until(&written).await;
    page.until(&row_with("it's")).await;
    scene.proxy.stopped().await;
}
