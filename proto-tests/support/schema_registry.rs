//! A schema registry, as Confluent's public REST API documents it, with faults.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::http_listener::{self, HttpClientStream, https_config};

/// What it does instead of answering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RegistryFault {
    /// Ends every connection.
    Down,
    /// Answers when the fault is another one.
    Silent,
    /// Answers with that status, and no JSON of the API.
    Status(u16),
    /// Answers 200 with JSON that is none of the API.
    WrongJson,
}

/// A request that it got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RegistryRequest {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) authorization: Option<String>,
}

#[derive(Debug, Default)]
struct FakeRegistryState {
    /// By id, from 1.
    schemas: Vec<String>,
    subjects: HashMap<String, Vec<u32>>,
    fault: Option<RegistryFault>,
    requests: Vec<RegistryRequest>,
    credentials: Option<String>,
    fault_set: Arc<Notify>,
}

/// A registry in this process.
pub(crate) struct FakeRegistry {
    address: String,
    state: Arc<Mutex<FakeRegistryState>>,
    serving: AbortHandle,
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl FakeRegistry {
    /// Over plain TCP.
    pub(crate) async fn start() -> Self {
        Self::start_with(None).await
    }

    /// Over TLS, as [`https_config`] has it.
    pub(crate) async fn start_tls() -> Self {
        Self::start_with(Some(https_config("server"))).await
    }

    async fn start_with(tls: Option<Arc<ServerConfig>>) -> Self {
        let state = Arc::new(Mutex::new(FakeRegistryState::default()));
        let shared = Arc::clone(&state);
        let serve = move |stream| serve(stream, Arc::clone(&shared));
        let (port, serving) = http_listener::listen(tls, serve).await;
        Self {
            address: format!("127.0.0.1:{port}"),
            state,
            serving,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn set_fault(&self, fault: Option<RegistryFault>) {
        let mut state = self.state.lock().unwrap();
        state.fault = fault;
        state.fault_set.notify_waiters();
    }

    /// Only who has them, `Basic …`, is answered.
    pub(crate) fn want_credentials(&self, authorization: &str) {
        self.state.lock().unwrap().credentials = Some(authorization.to_owned());
    }

    pub(crate) fn requests(&self) -> Vec<RegistryRequest> {
        self.state.lock().unwrap().requests.clone()
    }

    /// How often something was asked for that begins so.
    pub(crate) fn asked(&self, path: &str) -> usize {
        let requests = self.requests();
        requests.iter().filter(|r| r.path.starts_with(path)).count()
    }

    /// Registers a schema, as another client would.
    pub(crate) fn register(&self, subject: &str, schema: &str) -> u32 {
        self.state.lock().unwrap().register(subject, schema)
    }

    /// The ids of a subject's schemas.
    pub(crate) fn ids(&self, subject: &str) -> Vec<u32> {
        let state = self.state.lock().unwrap();
        state.subjects.get(subject).cloned().unwrap_or_default()
    }
}

impl FakeRegistryState {
    fn id_of(&self, schema: &str) -> Option<u32> {
        let position = self.schemas.iter().position(|known| known == schema);
        position.map(|index| index as u32 + 1)
    }

    fn register(&mut self, subject: &str, schema: &str) -> u32 {
        let id = self.id_of(schema).unwrap_or_else(|| {
            self.schemas.push(schema.to_owned());
            self.schemas.len() as u32
        });
        let versions = self.subjects.entry(subject.to_owned()).or_default();
        if !versions.contains(&id) {
            versions.push(id);
        }
        id
    }

    fn answer(&mut self, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
        let fault = |code: i32, message: &str| {
            let status = (code / 100) as u16;
            (status, json!({ "error_code": code, "message": message }))
        };
        let parts: Vec<_> = path.trim_start_matches('/').split('/').collect();
        let schema = || {
            let body: Value = serde_json::from_slice(body).unwrap();
            body["schema"].as_str().unwrap().to_owned()
        };
        match (method, parts.as_slice()) {
            ("GET", ["schemas", "ids", id]) => {
                let index = id.parse::<usize>().unwrap().wrapping_sub(1);
                match self.schemas.get(index) {
                    Some(schema) => (200, json!({ "schema": schema })),
                    None => fault(40_403, "Schema not found"),
                }
            }
            ("POST", ["subjects", subject, "versions"]) => {
                (200, json!({ "id": self.register(subject, &schema()) }))
            }
            ("POST", ["subjects", subject]) => match self.subjects.get(*subject) {
                None => fault(40_401, "Subject not found"),
                Some(ids) => match self.id_of(&schema()).filter(|id| ids.contains(id)) {
                    Some(id) => (200, json!({ "subject": subject, "id": id, "version": 1 })),
                    None => fault(40_403, "Schema not found"),
                },
            },
            _ => (404, json!("no such resource")),
        }
    }
}

async fn until_not_silent(state: &Mutex<FakeRegistryState>) {
    loop {
        let set = {
            let state = state.lock().unwrap();
            if state.fault != Some(RegistryFault::Silent) {
                return;
            }
            Arc::clone(&state.fault_set).notified_owned()
        };
        set.await;
    }
}

async fn serve(stream: HttpClientStream, state: Arc<Mutex<FakeRegistryState>>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await.ok().filter(|n| *n > 0)?;
            match line.trim_end() {
                "" => break,
                line => head.push(line.to_owned()),
            }
        }
        let header = |name: &str| {
            let with_name = |line: &String| {
                let (found, value) = line.split_once(':')?;
                found
                    .eq_ignore_ascii_case(name)
                    .then(|| value.trim().to_owned())
            };
            head.iter().find_map(with_name)
        };
        let length = header("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        let mut words = head[0].split(' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let authorization = header("authorization");
        state.lock().unwrap().requests.push(RegistryRequest {
            method: method.to_owned(),
            path: path.to_owned(),
            authorization: authorization.clone(),
        });
        until_not_silent(&state).await;
        let (status, body) = {
            let mut state = state.lock().unwrap();
            let allowed = state.credentials.is_none() || state.credentials == authorization;
            match state.fault {
                Some(RegistryFault::Down) => return None,
                Some(RegistryFault::Silent) => return None,
                Some(RegistryFault::Status(status)) => (status, "<html>".to_owned()),
                Some(RegistryFault::WrongJson) => (200, r#"{"number":1}"#.to_owned()),
                None if !allowed => {
                    let fault = json!({ "error_code": 401, "message": "Unauthorized" });
                    (401, fault.to_string())
                }
                None => {
                    let (status, body) = state.answer(method, path, &body);
                    (status, body.to_string())
                }
            }
        };
        let length = body.len();
        let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(answer.as_bytes()).await.ok()?;
    }
}
