//! The body of a request, bounded in length and in time.

use std::pin::pin;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use http::StatusCode;
use tokio::time::timeout;

use crate::http_error::HttpError;

/// The longest body that is read: a list of tens of thousands of partitions.
const BODY_BYTES_MAX: usize = 4 << 20;
/// How long a client may take to send it.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Reads a whole body.
///
/// # Errors
/// 413 for one that is too long, 408 for one that does not come, 400 for one that ends early.
pub(super) async fn read<B: Buf, E>(
    body: impl Stream<Item = Result<B, E>>,
) -> Result<Bytes, HttpError> {
    let reading = async {
        let mut body = pin!(body);
        let mut whole = BytesMut::new();
        while let Some(part) = body.next().await {
            let part = part.map_err(|_| HttpError::bad_request("the body ends early"))?;
            if whole.len() + part.remaining() > BODY_BYTES_MAX {
                let message = format!("the body is longer than {BODY_BYTES_MAX} bytes");
                return Err(HttpError::new(StatusCode::PAYLOAD_TOO_LARGE, message));
            }
            whole.put(part);
        }
        Ok(whole.freeze())
    };
    let read = timeout(BODY_TIMEOUT, reading).await;
    read.unwrap_or_else(|_| {
        let message = "the body did not come in time";
        Err(HttpError::new(StatusCode::REQUEST_TIMEOUT, message))
    })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream::{self, pending};

    use super::*;

    async fn status(body: impl Stream<Item = Result<Bytes, Infallible>>) -> u16 {
        read(body).await.unwrap_err().status.as_u16()
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_bounded_in_length_and_in_time() {
        let parts = |count| {
            let part = Bytes::from(vec![0; BODY_BYTES_MAX / 4]);
            stream::iter(vec![Ok::<_, Infallible>(part); count])
        };
        assert_eq!(read(parts(4)).await.unwrap().len(), BODY_BYTES_MAX);
        assert_eq!(status(parts(5)).await, 413);
        assert_eq!(status(pending()).await, 408);
    }
}
