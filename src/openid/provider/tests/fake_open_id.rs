//! A provider of the tests.

use std::sync::{Arc, Mutex};

use runtime::mutex::lock;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use crate::well_known_url::WellKnownUrl;

/// Serves a document and keys, which can be changed.
pub(super) struct FakeOpenId {
    base: String,
    said: Arc<Mutex<FakeSaid>>,
    serving: AbortHandle,
}

struct FakeSaid {
    status: u16,
    holds: bool,
    document: String,
    keys: String,
    /// How often the document was asked for.
    asked: usize,
}

impl FakeOpenId {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let said = Arc::new(Mutex::new(FakeSaid {
            status: 200,
            holds: false,
            document: format!(r#"{{"issuer":"{base}","jwks_uri":"{base}/keys"}}"#),
            keys: String::new(),
            asked: 0,
        }));
        let serves = Arc::clone(&said);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&serves)));
            }
        });
        Self {
            base,
            said,
            serving: serving.abort_handle(),
        }
    }

    pub(super) fn url(&self) -> WellKnownUrl {
        let url = format!("{}/.well-known/openid-configuration", self.base);
        WellKnownUrl::parse(&url).expect("a URL")
    }

    pub(super) fn issuer(&self) -> &str {
        &self.base
    }

    pub(super) fn publish(&self, keys: &[String]) {
        lock(&self.said).keys = format!(r#"{{"keys":[{}]}}"#, keys.join(","));
    }

    pub(super) fn answer_with(&self, status: u16) {
        lock(&self.said).status = status;
    }

    /// Answers nothing from now on.
    pub(super) fn hold(&self) {
        lock(&self.said).holds = true;
    }

    /// Other texts; an empty one leaves what is said now.
    pub(super) fn say(&self, document: &str, keys: &str) {
        let mut said = lock(&self.said);
        if !document.is_empty() {
            said.document = document.to_owned();
        }
        if !keys.is_empty() {
            said.keys = keys.to_owned();
        }
    }

    pub(super) fn asked(&self) -> usize {
        lock(&self.said).asked
    }
}

impl Drop for FakeOpenId {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(stream: TcpStream, said: Arc<Mutex<FakeSaid>>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let mut request = String::new();
    while !request.ends_with("\r\n\r\n") {
        if stream.read_line(&mut request).await.ok()? == 0 {
            return None;
        }
    }
    let answer = {
        let mut said = lock(&said);
        let asks_for_keys = request.starts_with("GET /keys ");
        said.asked += usize::from(!asks_for_keys);
        let body = match asks_for_keys {
            true => &said.keys,
            false => &said.document,
        };
        let (status, length) = (said.status, body.len());
        let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: {length}\r\n\r\n{body}");
        (!said.holds).then_some(answer)
    };
    match answer {
        Some(answer) => stream.write_all(answer.as_bytes()).await.ok()?,
        None => std::future::pending().await,
    }
    stream.read_line(&mut String::new()).await.ok().map(|_| ())
}
