//! Tokens as texts.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use secret::Secret;
use tokio::task::spawn_blocking;

/// A token, and how long it is good.
pub(crate) struct TokenAnswer {
    pub(crate) token: Secret,
    pub(crate) lifetime: Duration,
}

/// The file's text without white space around it.
pub(crate) async fn read_text(path: &Path) -> io::Result<Secret> {
    const BYTES_MAX: u64 = 1 << 16;
    let path = path.to_owned();
    let reading = spawn_blocking(move || {
        let mut text = String::new();
        let mut file = File::open(path)?.take(BYTES_MAX);
        file.read_to_string(&mut text)?;
        Ok(Secret::new(text.trim()))
    });
    reading.await.unwrap_or_else(|error| Err(error.into()))
}

/// Whether it can be sent: no separator of the mechanism is in it.
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}
