//! One question to the KDCs of a realm, by TCP (RFC 4120, section 7.2.2): four bytes of length, and
//! the message.
//!
//! # Invariants
//! - A KDC has so much time, and may answer so much.
//! - Those that did not answer are asked last.

use std::collections::HashSet;
use std::io;
use std::sync::Mutex;
use std::time::Duration;

use runtime::mutex::lock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::krb5_conf::KdcAddress;

/// Tickets of Active Directory have tens of kilobytes; a broker takes half a megabyte.
const ANSWER_BYTES_MAX: usize = 256 << 10;

/// Asks KDCs.
#[derive(Debug, Default)]
pub(crate) struct KdcClient {
    /// Those that did not answer last.
    silent: Mutex<HashSet<KdcAddress>>,
}

impl KdcClient {
    /// The answer of the first KDC that gives one within `time`.
    ///
    /// # Errors
    /// What each of them said, in the order asked.
    pub(crate) async fn ask(
        &self,
        kdcs: &[KdcAddress],
        request: &[u8],
        time: Duration,
    ) -> Result<Vec<u8>, String> {
        let mut faults = Vec::new();
        for kdc in self.in_order(kdcs) {
            let (host, port) = (&kdc.host, kdc.port);
            let reason = match timeout(time, exchange(kdc, request)).await {
                Ok(Ok(answer)) => {
                    lock(&self.silent).remove(kdc);
                    return Ok(answer);
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within {} s", time.as_secs_f64()),
            };
            lock(&self.silent).insert(kdc.clone());
            faults.push(format!("{host}:{port}: {reason}"));
        }
        Err(faults.join("; "))
    }

    fn in_order<'a>(&self, kdcs: &'a [KdcAddress]) -> Vec<&'a KdcAddress> {
        let silent = lock(&self.silent);
        let mut kdcs: Vec<_> = kdcs.iter().collect();
        kdcs.sort_by_key(|kdc| silent.contains(*kdc));
        kdcs
    }
}

async fn exchange(kdc: &KdcAddress, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect((kdc.host.as_str(), kdc.port)).await?;
    let len = u32::try_from(request.len()).map_err(io::Error::other)?;
    let message = [&len.to_be_bytes(), request].concat();
    stream.write_all(&message).await?;
    let len = stream.read_u32().await?;
    let len = usize::try_from(len).map_err(io::Error::other)?;
    if len > ANSWER_BYTES_MAX {
        let fault = format!("an answer of {len} bytes is over the limit of {ANSWER_BYTES_MAX}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, fault));
    }
    let mut answer = vec![0; len];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// Beyond what anything takes on a busy machine.
    const LONG: Duration = Duration::from_secs(120);

    /// A KDC that says this to every request.
    async fn kdc(answer: &'static [u8]) -> KdcAddress {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let len = stream.read_u32().await.expect("a length");
                let mut request = vec![0; len as usize];
                stream.read_exact(&mut request).await.expect("a request");
                assert_eq!(request, b"a question");
                stream.write_all(answer).await.expect("it is read");
                match answer {
                    // Says nothing, and stays.
                    b"" => std::future::pending().await,
                    _ => drop(stream),
                }
            }
        });
        KdcAddress {
            host: "127.0.0.1".to_owned(),
            port,
        }
    }

    const GOOD: &[u8] = b"\0\0\0\x06answer";

    #[tokio::test]
    async fn the_first_kdc_that_answers_is_heard_and_asked_first_from_then_on() {
        let (bad, good) = (kdc(b"\0").await, kdc(GOOD).await);
        let kdcs = [bad.clone(), good];
        let client = KdcClient::default();
        for _ in 0..2 {
            let answer = client.ask(&kdcs, b"a question", LONG).await;
            assert_eq!(answer, Ok(b"answer".to_vec()));
            assert_eq!(client.in_order(&kdcs)[1], &bad);
        }
    }

    #[tokio::test]
    async fn what_each_kdc_did_wrong_is_said() {
        let nobody = KdcAddress {
            host: "127.0.0.1".to_owned(),
            port: 1,
        };
        let huge = kdc(b"\x7f\0\0\0").await;
        let cut = kdc(b"\0\0\0\x07answer").await;
        let kdcs = [nobody, huge, cut];
        let fault = KdcClient::default().ask(&kdcs, b"a question", LONG).await;
        let fault = fault.expect_err("none answers");
        let parts: Vec<_> = fault.split("; ").collect();
        assert!(
            parts[0].starts_with("127.0.0.1:1: Connection refused"),
            "{fault}"
        );
        assert!(parts[1].ends_with("is over the limit of 262144"), "{fault}");
        assert!(parts[2].contains("early eof"), "{fault}");
        let silent = [kdc(b"").await];
        let time = Duration::from_millis(20);
        let fault = KdcClient::default().ask(&silent, b"a question", time).await;
        let fault = fault.expect_err("it is silent");
        assert!(fault.ends_with(": no answer within 0.02 s"), "{fault}");
    }
}
