//! A page in a headless Chromium, driven by the DevTools protocol over a WebSocket.
//!
//! ```text
//! Chromium (a process) ◀─ one WebSocket ─▶ ChromiumPage, ChromiumPage, …
//!                          commands, by id       a tab each, by its session
//! ```
//!
//! It is Debian's (`scripts/clients need`), or the program that the variable CHROMIUM names.

use std::collections::HashMap;
use std::ops::Deref;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::PATIENCE;

/// Between two looks at what a page must come to.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

const FLAGS: &[&str] = &[
    "--headless=new",
    "--no-sandbox", // it refuses root otherwise
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-background-timer-throttling",
    "--disable-renderer-backgrounding",
    "--remote-debugging-port=0",
];

/// A running browser with a profile of its own. It ends with its owner.
pub(crate) struct Chromium {
    child: Child,
    connection: DevToolsConnection,
    _profile: TempDir,
}

impl Chromium {
    /// Starts it, with flags beside those that every test needs.
    pub(crate) async fn start(flags: &[&str]) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let program = std::env::var("CHROMIUM").unwrap_or_else(|_| "chromium".to_owned());
        let spawned = Command::new(&program)
            .args(FLAGS)
            .args(flags)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = spawned
            .unwrap_or_else(|error| panic!("{program}: {error}; scripts/clients need installs it"));
        let mut child = EndedChild(Some(child));
        let url = devtools_url(child.0.as_mut().unwrap(), profile.path()).await;
        let (stream, _) = connect_async(url).await.unwrap();
        Self {
            child: child.0.take().unwrap(),
            connection: DevToolsConnection::over(stream),
            _profile: profile,
        }
    }

    /// A new tab that shows the URL, as soon as it has loaded.
    pub(crate) async fn open(&self, url: &str) -> ChromiumPage {
        let page = self.blank().await;
        page.navigate(url).await;
        page
    }

    /// A new tab that shows nothing yet.
    pub(crate) async fn blank(&self) -> ChromiumPage {
        let parameters = json!({"url": "about:blank", "newWindow": true});
        let created = self
            .connection
            .call(None, "Target.createTarget", parameters)
            .await;
        let parameters = json!({"targetId": created["targetId"], "flatten": true});
        let attached = self
            .connection
            .call(None, "Target.attachToTarget", parameters)
            .await;
        let session = attached["sessionId"]
            .as_str()
            .expect("a session")
            .to_owned();
        let page = ChromiumPage {
            connection: self.connection.clone(),
            session,
        };
        for domain in ["Page", "Runtime", "Log"] {
            page.call(&format!("{domain}.enable"), json!({})).await;
        }
        page
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Ends a browser that did not get as far as having an owner.
struct EndedChild(Option<Child>);

impl Drop for EndedChild {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            end(child);
        }
    }
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// Where it listens for DevTools: it writes that to its profile.
async fn devtools_url(child: &mut Child, profile: &Path) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let written = std::fs::read_to_string(profile.join("DevToolsActivePort"));
        if let Ok(written) = written
            && let Some((port, path)) = written.split_once('\n')
            && !path.is_empty()
        {
            return format!("ws://127.0.0.1:{port}{}", path.trim());
        }
        if let Some(status) = child.try_wait().unwrap() {
            panic!("the browser ended: {status}");
        }
        assert!(Instant::now() < deadline, "the browser does not start");
        sleep(POLL_INTERVAL).await;
    }
}

/// A tab.
pub(crate) struct ChromiumPage {
    connection: DevToolsConnection,
    session: String,
}

impl ChromiumPage {
    async fn call(&self, method: &str, parameters: Value) -> Value {
        self.connection
            .call(Some(&self.session), method, parameters)
            .await
    }

    /// Goes to a URL, and waits until its scripts have run.
    pub(crate) async fn navigate(&self, url: &str) {
        self.evaluate("window.isOfTheLastPage = true").await;
        let navigated = self.call("Page.navigate", json!({"url": url})).await;
        let error = navigated["errorText"].as_str();
        assert_eq!(error, None, "{url}");
        let is_there = "!window.isOfTheLastPage && document.readyState === 'complete'";
        self.until(is_there).await;
    }

    /// The value of an expression, awaited if it is a promise.
    ///
    /// # Panics
    /// If it throws.
    pub(crate) async fn evaluate(&self, expression: &str) -> Value {
        self.try_evaluate(expression)
            .await
            .unwrap_or_else(|error| panic!("{expression}: {error}"))
    }

    async fn try_evaluate(&self, expression: &str) -> Result<Value, String> {
        let parameters = json!({
            "expression": expression,
            "awaitPromise": true,
            "returnByValue": true,
            "userGesture": true,
        });
        let answer = self
            .connection
            .try_call(Some(&self.session), "Runtime.evaluate", parameters);
        let mut answer = answer.await?;
        match answer.get("exceptionDetails") {
            Some(thrown) => Err(thrown["exception"]["description"].to_string()),
            None => Ok(answer["result"]["value"].take()),
        }
    }

    /// Waits until an expression is true of the page.
    pub(crate) async fn until(&self, expression: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // While it navigates there is no page to ask.
            let found = self.try_evaluate(&format!("Boolean({expression})")).await;
            if found == Ok(Value::Bool(true)) {
                return;
            }
            if Instant::now() >= deadline {
                let text = self.try_evaluate("document.body.innerText").await;
                panic!("waited in vain: {expression}: {found:?}\n{text:?}");
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Waits until the text of an element contains `part`, and gives it.
    pub(crate) async fn shows(&self, selector: &str, part: &str) -> String {
        let (selector, part) = (json!(selector), json!(part));
        let text = format!("document.querySelector({selector})?.textContent");
        self.until(&format!("({text} ?? '').includes({part})"))
            .await;
        let text = self.evaluate(&text).await;
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Clicks on the middle of an element, as a mouse does.
    pub(crate) async fn click(&self, selector: &str) {
        let place = self
            .evaluate(&format!(
                "(() => {{ const found = document.querySelector({}); \
                   found.scrollIntoView({{ block: 'center', behavior: 'instant' }}); \
                   const {{ x, y, width, height }} = found.getBoundingClientRect(); \
                   return {{ x: x + width / 2, y: y + height / 2 }}; }})()",
                json!(selector)
            ))
            .await;
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({
                "type": kind, "x": place["x"], "y": place["y"], "button": "left", "clickCount": 1,
            });
            self.call("Input.dispatchMouseEvent", event).await;
        }
    }

    /// Puts a text in the place of what a field has.
    pub(crate) async fn fill(&self, selector: &str, text: &str) {
        let selector = json!(selector);
        let chosen = format!(
            "{{ const found = document.querySelector({selector}); found.focus(); found.select(); }}"
        );
        self.evaluate(&chosen).await;
        match text {
            "" => self.press("Delete").await,
            text => {
                self.call("Input.insertText", json!({"text": text})).await;
            }
        }
    }

    /// Chooses an option of a list.
    pub(crate) async fn choose(&self, selector: &str, value: &str) {
        let (selector, value) = (json!(selector), json!(value));
        self.evaluate(&format!(
            "{{ const found = document.querySelector({selector}); found.value = {value}; \
               found.dispatchEvent(new Event('input', {{ bubbles: true }})); \
               found.dispatchEvent(new Event('change', {{ bubbles: true }})); }}"
        ))
        .await;
    }

    /// Chooses a file for a field.
    pub(crate) async fn choose_file(&self, selector: &str, file: &Path) {
        let document = self.call("DOM.getDocument", json!({})).await;
        let parameters = json!({"nodeId": document["root"]["nodeId"], "selector": selector});
        let found = self.call("DOM.querySelector", parameters).await;
        let parameters = json!({"nodeId": found["nodeId"], "files": [file]});
        self.call("DOM.setFileInputFiles", parameters).await;
    }

    /// Presses and releases a key, such as `Tab`, `ArrowDown`, `Control+Enter` or `p`.
    pub(crate) async fn press(&self, key: &str) {
        let (modifiers, key) = match key.split_once('+') {
            Some(("Control", key)) => (2, key),
            Some(("Shift", key)) => (8, key),
            _ => (0, key),
        };
        let text = match key {
            "Enter" => Some("\r"),
            " " => Some(" "),
            key if key.chars().count() == 1 => Some(key),
            _ => None,
        };
        let code = match key {
            "Enter" => 13,
            "Tab" => 9,
            "Escape" => 27,
            "Delete" => 46,
            "End" => 35,
            "Home" => 36,
            "ArrowLeft" => 37,
            "ArrowUp" => 38,
            "ArrowRight" => 39,
            "ArrowDown" => 40,
            key => key
                .bytes()
                .next()
                .map_or(0, |byte| byte.to_ascii_uppercase()),
        };
        let mut event = json!({
            "type": if text.is_some() { "keyDown" } else { "rawKeyDown" },
            "key": key,
            "modifiers": modifiers,
            "windowsVirtualKeyCode": code,
        });
        if let Some(text) = text.filter(|_| modifiers != 2) {
            event["text"] = json!(text);
        }
        self.call("Input.dispatchKeyEvent", event.clone()).await;
        event["type"] = json!("keyUp");
        self.call("Input.dispatchKeyEvent", event).await;
    }

    /// What was copied last.
    pub(crate) async fn clipboard(&self) -> String {
        let allowed = json!({"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]});
        let browser = &self.connection;
        browser
            .call(None, "Browser.grantPermissions", allowed)
            .await;
        let text = self.evaluate("navigator.clipboard.readText()").await;
        text.as_str().unwrap_or_default().to_owned()
    }

    /// How large the window is, and whether the system is dark.
    pub(crate) async fn show_as(&self, (width, height): (u32, u32), is_dark: bool) {
        let size = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false,
        });
        self.call("Emulation.setDeviceMetricsOverride", size).await;
        let scheme = if is_dark { "dark" } else { "light" };
        let feature = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": feature}))
            .await;
    }

    /// What is in the window, as PNG.
    pub(crate) async fn screenshot(&self) -> Vec<u8> {
        let parameters = json!({"format": "png"});
        let taken = self.call("Page.captureScreenshot", parameters).await;
        STANDARD.decode(taken["data"].as_str().unwrap()).unwrap()
    }

    /// Bytes of the page's objects, after a collection of those that nobody holds.
    pub(crate) async fn heap_bytes(&self) -> u64 {
        self.call("HeapProfiler.collectGarbage", json!({})).await;
        let usage = self.call("Runtime.getHeapUsage", json!({})).await;
        usage["usedSize"].as_f64().expect("a number") as u64
    }

    /// Begins to note what keeps the page's main thread from everything else for more than 50 ms.
    pub(crate) async fn observe_long_tasks(&self) {
        self.evaluate(
            "window.longestTask = 0; new PerformanceObserver((list) => { \
               for (const { duration } of list.getEntries()) { \
                 window.longestTask = Math.max(window.longestTask, duration); \
               } \
             }).observe({ type: 'longtask' })",
        )
        .await;
    }

    /// The longest of them so far, in milliseconds; 0: none was longer than 50 ms.
    pub(crate) async fn longest_task_ms(&self) -> f64 {
        let longest = self.evaluate("window.longestTask").await;
        longest.as_f64().expect("a number")
    }

    /// What the browser has complained of since the tab was opened: exceptions, what the
    /// Content-Security-Policy forbids, answers that are errors.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let events = self.connection.events.lock().unwrap();
        let of_this = events
            .iter()
            .filter(|event| event["sessionId"] == *self.session);
        let complaint = |event: &Value| match event["method"].as_str()? {
            "Runtime.exceptionThrown" => Some(event["params"]["exceptionDetails"].to_string()),
            "Log.entryAdded" => {
                let entry = &event["params"]["entry"];
                let is_grave = ["warning", "error"].contains(&entry["level"].as_str()?);
                is_grave.then(|| entry.to_string())
            }
            _ => None,
        };
        of_this.filter_map(complaint).collect()
    }
}

/// The WebSocket, which all pages share. Cloning is cheap.
#[derive(Clone)]
struct DevToolsConnection(Arc<DevToolsShared>);

struct DevToolsShared {
    commands: mpsc::Sender<(Value, oneshot::Sender<Value>)>,
    events: Arc<Mutex<Vec<Value>>>,
    task: JoinHandle<()>,
}

impl Deref for DevToolsConnection {
    type Target = DevToolsShared;

    fn deref(&self) -> &DevToolsShared {
        &self.0
    }
}

impl Drop for DevToolsShared {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl DevToolsConnection {
    fn over(stream: WebSocketStream<MaybeTlsStream<TcpStream>>) -> Self {
        let (commands, received) = mpsc::channel(16);
        let events = Arc::default();
        let task = tokio::spawn(exchange(stream, received, Arc::clone(&events)));
        Self(Arc::new(DevToolsShared {
            commands,
            events,
            task,
        }))
    }

    async fn call(&self, session: Option<&str>, method: &str, parameters: Value) -> Value {
        self.try_call(session, method, parameters)
            .await
            .unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    async fn try_call(
        &self,
        session: Option<&str>,
        method: &str,
        parameters: Value,
    ) -> Result<Value, String> {
        let mut command = json!({"method": method, "params": parameters});
        if let Some(session) = session {
            command["sessionId"] = json!(session);
        }
        let (sender, answer) = oneshot::channel();
        let gone = "the browser is gone";
        self.commands.send((command, sender)).await.expect(gone);
        let answered = timeout(PATIENCE, answer).await;
        let mut answer = answered.expect("no answer").expect(gone);
        match answer.get("error") {
            Some(error) => Err(error.to_string()),
            None => Ok(answer["result"].take()),
        }
    }
}

/// Sends commands, numbered, and gives answers to who waits for them.
async fn exchange(
    mut stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    mut commands: mpsc::Receiver<(Value, oneshot::Sender<Value>)>,
    events: Arc<Mutex<Vec<Value>>>,
) {
    let mut waiting = HashMap::new();
    let mut last_id = 0_u64;
    loop {
        tokio::select! {
            command = commands.recv() => {
                let Some((mut command, answer)) = command else { return };
                last_id += 1;
                command["id"] = json!(last_id);
                waiting.insert(last_id, answer);
                if stream.send(Message::text(command.to_string())).await.is_err() {
                    return;
                }
            }
            message = stream.next() => {
                let Some(Ok(message)) = message else { return };
                let Message::Text(text) = message else { continue };
                let message: Value = serde_json::from_str(&text).expect("JSON");
                match message["id"].as_u64() {
                    Some(id) => {
                        let answer = waiting.remove(&id).expect("a command");
                        // Nobody waits any more where a test has failed.
                        let _ = answer.send(message);
                    }
                    None => events.lock().unwrap().push(message),
                }
            }
        }
    }
}
