//! Requests to which a scripted fault applies.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::ApiKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::connection_end::ConnectionEnd;
use super::super::context::RequestContext;
use super::super::faults::FaultAction;
use super::super::{api, error_responses};
use super::{DecodedRequest, RequestPrefix, decode, encode};

/// How a fault changes an answer.
#[derive(Clone, Copy, Debug)]
enum AnswerFault {
    Error(i16),
    ErrorAfter(i16),
    Throttle(i32),
}

/// Handles and answers a request as far as `action` lets it.
pub(super) async fn answer(
    context: &mut RequestContext,
    stream: &mut TcpStream,
    prefix: &RequestPrefix,
    frame: Bytes,
    action: FaultAction,
) -> Result<(), ConnectionEnd> {
    let fault = match action {
        FaultAction::Error(code) => Some(AnswerFault::Error(code)),
        FaultAction::ErrorAfter(code) => Some(AnswerFault::ErrorAfter(code)),
        FaultAction::Throttle(ms) => Some(AnswerFault::Throttle(ms)),
        FaultAction::CloseBefore => return Err(ConnectionEnd::Fault),
        FaultAction::Silence => return Err(discard_until_closed(stream).await),
        FaultAction::HoldBefore(ref until) => {
            until.cancelled().await;
            None
        }
        FaultAction::Garbage(bytes) => {
            stream.write_all(&bytes).await?;
            return Ok(());
        }
        _ => None,
    };
    let mut prefix = *prefix;
    if matches!(action, FaultAction::WrongCorrelationId) {
        prefix.correlation_id = prefix.correlation_id.wrapping_add(1_000_000);
    }
    let answer = respond(context, &prefix, frame, fault).await?;
    match &action {
        FaultAction::CloseAfter => return Err(ConnectionEnd::Fault),
        FaultAction::SilenceAfter => return Err(discard_until_closed(stream).await),
        FaultAction::Delay(delay) => tokio::time::sleep(*delay).await,
        FaultAction::Hold(until) => until.cancelled().await,
        _ => {}
    }
    let Some(answer) = answer else {
        return Ok(());
    };
    if let FaultAction::Truncated(length) = action {
        stream
            .write_all(&answer[..length.min(answer.len())])
            .await?;
        stream.shutdown().await?;
        return Err(ConnectionEnd::Fault);
    }
    stream.write_all(&answer).await?;
    Ok(())
}

/// The frame that answers a request, changed by `fault`; None if no answer is due.
async fn respond(
    context: &mut RequestContext,
    prefix: &RequestPrefix,
    frame: Bytes,
    fault: Option<AnswerFault>,
) -> Result<Option<BytesMut>, ConnectionEnd> {
    let RequestPrefix { api, version, .. } = *prefix;
    let request = match decode(context, prefix, frame)? {
        DecodedRequest::UnsupportedVersion(answer) => return Ok(Some(answer)),
        DecodedRequest::Request(request) => *request,
    };
    let response = match fault {
        Some(AnswerFault::Error(code)) => api::error_response(context, version, request, code),
        // A fetch changes nothing but its session, which must not be used twice.
        Some(AnswerFault::ErrorAfter(code)) if api == ApiKey::Fetch => {
            api::error_response(context, version, request, code)
        }
        Some(AnswerFault::ErrorAfter(code)) => {
            let asked = request.clone();
            let answered = api::answer(context, version, request).await.is_some();
            answered
                .then(|| api::error_response(context, version, asked, code))
                .flatten()
        }
        None => api::answer(context, version, request).await,
        Some(AnswerFault::Throttle(ms)) => {
            let mut response = api::answer(context, version, request).await;
            if let Some(response) = &mut response {
                error_responses::throttle(response, ms);
            }
            response
        }
    };
    response
        .map(|response| encode(prefix, version, &response))
        .transpose()
}

/// Reads what the client sends and answers nothing until the client closes.
async fn discard_until_closed(stream: &mut TcpStream) -> ConnectionEnd {
    let mut ignored = [0; 4096];
    loop {
        match stream.read(&mut ignored).await {
            Ok(0) => return ConnectionEnd::Fault,
            Ok(_) => {}
            Err(error) => return error.into(),
        }
    }
}
