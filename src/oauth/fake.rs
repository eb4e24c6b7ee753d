//! A token endpoint of the tests.

use std::sync::{Arc, Mutex};

use http::Uri;
use runtime::mutex::lock;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// Answers every request with the same until that is changed.
pub(crate) struct FakeTokenEndpoint {
    pub(crate) url: Uri,
    shared: Arc<Mutex<FakeAnswers>>,
    serving: AbortHandle,
}

struct FakeAnswers {
    status: u16,
    body: String,
    /// The head and the body of each.
    requests: Vec<String>,
}

impl FakeTokenEndpoint {
    pub(crate) async fn start(status: u16, body: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Mutex::new(FakeAnswers {
            status,
            body: body.to_owned(),
            requests: Vec::new(),
        }));
        let answers = Arc::clone(&shared);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&answers)));
            }
        });
        Self {
            url: format!("http://{address}/token?a=b")
                .parse()
                .expect("a URL"),
            shared,
            serving: serving.abort_handle(),
        }
    }

    pub(crate) fn answer_with(&self, status: u16, body: &str) {
        let mut shared = lock(&self.shared);
        (shared.status, shared.body) = (status, body.to_owned());
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        lock(&self.shared).requests.clone()
    }
}

impl Drop for FakeTokenEndpoint {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(stream: TcpStream, answers: Arc<Mutex<FakeAnswers>>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let mut request = String::new();
    while !request.ends_with("\r\n\r\n") {
        stream.read_line(&mut request).await.ok()?;
    }
    let head = request.to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|l| l.strip_prefix("content-length: "));
    let mut body = vec![0; length?.parse().ok()?];
    stream.read_exact(&mut body).await.ok()?;
    request += &String::from_utf8_lossy(&body);
    let answer = {
        let mut answers = lock(&answers);
        answers.requests.push(request);
        let (status, body) = (answers.status, &answers.body);
        let length = body.len();
        format!("HTTP/1.1 {status} x\r\nContent-Length: {length}\r\n\r\n{body}")
    };
    stream.write_all(answer.as_bytes()).await.ok()?;
    stream.read_line(&mut String::new()).await.ok().map(|_| ())
}
