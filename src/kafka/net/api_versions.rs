//! The ApiVersions exchange before the first request: which versions both ends speak.
//!
//! Authentication will follow here, on the same bytes, before anybody else may write.

use std::io;

use bytes::{Buf, Bytes};
use kafka_protocol::messages::{ApiVersionsRequest, MetadataRequest};
use kafka_protocol::protocol::StrBytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::frame::{self, FrameReader};
use crate::protocol::versions::{Api, NodeApiVersions};

/// `UNSUPPORTED_VERSION`, which comes with a body of version 0.
const UNSUPPORTED_VERSION: i16 = 35;

/// Asks which versions the broker speaks.
pub(crate) async fn negotiate<R, W>(
    responses: &mut FrameReader<R>,
    requests: &mut W,
    client_id: &StrBytes,
) -> io::Result<NodeApiVersions>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut version = ApiVersionsRequest::LATEST_VERSION;
    loop {
        let request = api_versions_request(version);
        let frame = frame::encode(client_id, version, &request).map_err(invalid)?;
        requests.write_all(&frame).await?;
        requests.flush().await?;
        let frame = responses.next().await?.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "it closed the connection before its first answer (does it expect TLS?)",
            )
        })?;
        match interpret_response(frame, version)? {
            Negotiation::Agreed(versions) => return Ok(versions),
            Negotiation::RetryWith(older) => version = older,
        }
    }
}

fn api_versions_request(version: i16) -> ApiVersionsRequest {
    let request = ApiVersionsRequest::default();
    if version < 3 {
        return request;
    }
    request
        .with_client_software_name(StrBytes::from_static_str("kafka-websocket-proxy"))
        .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")))
}

/// What a response to ApiVersions leads to.
#[derive(Debug)]
enum Negotiation {
    Agreed(NodeApiVersions),
    /// The broker does not know the version of the request.
    RetryWith(i16),
}

/// Reads the response to a request of `version`.
fn interpret_response(mut frame: Bytes, version: i16) -> io::Result<Negotiation> {
    let id = frame::correlation_id(&frame);
    if id != Some(0) {
        return Err(invalid(format!(
            "the first answer has correlation id {id:?} where 0 was due"
        )));
    }
    let code = frame.slice(4..).try_get_i16().map_err(invalid)?;
    let body_version = if code == UNSUPPORTED_VERSION {
        0
    } else {
        version
    };
    let response =
        frame::decode::<ApiVersionsRequest>(&mut frame, body_version).map_err(invalid)?;
    let versions = NodeApiVersions::new(&response);
    match code {
        0 => Ok(Negotiation::Agreed(versions)),
        // Some brokers list everything even here; newer ones only the API itself.
        UNSUPPORTED_VERSION
            if versions
                .latest_usable_version::<MetadataRequest>()
                .is_some() =>
        {
            Ok(Negotiation::Agreed(versions))
        }
        UNSUPPORTED_VERSION if version > 0 => {
            let listed = versions
                .latest_usable_version::<ApiVersionsRequest>()
                .unwrap_or(0);
            Ok(Negotiation::RetryWith(listed.min(version - 1)))
        }
        code => Err(invalid(format!(
            "{} was refused with error {code}",
            ApiVersionsRequest::NAME
        ))),
    }
}

fn invalid(error: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::messages::ApiVersionsResponse;
    use kafka_protocol::messages::api_versions_response::ApiVersion;
    use kafka_protocol::protocol::Encodable;

    use super::*;

    fn answer(code: i16, keys: &[(i16, i16, i16)], version: i16) -> Bytes {
        let keys = keys.iter().map(|&(key, min, max)| {
            ApiVersion::default()
                .with_api_key(key)
                .with_min_version(min)
                .with_max_version(max)
        });
        let mut bytes = BytesMut::from(&[0u8; 4][..]);
        ApiVersionsResponse::default()
            .with_error_code(code)
            .with_api_keys(keys.collect())
            .encode(&mut bytes, version)
            .unwrap();
        bytes.freeze()
    }

    #[test]
    fn a_response_of_the_requested_version_is_taken() {
        let Negotiation::Agreed(versions) =
            interpret_response(answer(0, &[(3, 0, 13)], 3), 3).unwrap()
        else {
            panic!("asked again");
        };
        assert_eq!(
            versions.latest_usable_version::<MetadataRequest>(),
            Some(13)
        );
    }

    #[test]
    fn an_old_broker_is_asked_again_in_its_own_version() {
        for (table, then) in [(&[(18, 0, 2)][..], 2), (&[(18, 0, 0)], 0), (&[], 0)] {
            let answer = answer(UNSUPPORTED_VERSION, table, 0);
            assert!(matches!(
                interpret_response(answer, 3).unwrap(),
                Negotiation::RetryWith(version) if version == then
            ));
        }
    }

    #[test]
    fn all_versions_in_an_unsupported_version_error_are_taken() {
        let answer = answer(UNSUPPORTED_VERSION, &[(3, 0, 8), (18, 0, 2)], 0);
        assert!(matches!(
            interpret_response(answer, 3).unwrap(),
            Negotiation::Agreed(_)
        ));
    }

    #[test]
    fn a_broker_that_refuses_every_version_is_an_error() {
        assert!(interpret_response(answer(UNSUPPORTED_VERSION, &[], 0), 0).is_err());
        assert!(interpret_response(answer(42, &[], 3), 3).is_err());
    }

    #[test]
    fn malformed_bytes_are_an_error() {
        for noise in [&b""[..], b"\0\0", b"\0\0\0\0", b"\0\0\0\x07\0\0\0\0\0\0"] {
            assert!(interpret_response(Bytes::copy_from_slice(noise), 3).is_err());
        }
    }
}
