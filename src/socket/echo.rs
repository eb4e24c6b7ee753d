//! `/socket/echo`: sends every message back as it came. Only tests have it: what the sockets of
//! the product share (upgrade, stream, session, write buffer, closing handshake) is here without
//! Kafka, as a test of RFC 6455 needs it.

use std::convert::Infallible;
use std::sync::Arc;

use http::{HeaderMap, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};
use warp::Filter;
use warp::filters::BoxedFilter;

use super::close::CloseReason;
use super::compression;
use super::session::{DataMessage, SocketSession, set_timer};
use super::turn::STEPS_PER_TURN;
use super::upgrade::{handshake_error, switching_protocols, take_over};
use crate::app::App;
use crate::http_error::HttpError;
use crate::session::registry::ConnectionPermit;
use runtime::panic_policy;
use websocket::frame::Opcode;
use websocket::handshake::{self, HandshakeError};

/// The route.
pub(super) fn route(app: App) -> BoxedFilter<(Response<String>,)> {
    warp::path!("socket" / "echo")
        .and(warp::get())
        .and(warp::header::headers_cloned())
        .and(warp::ext::optional::<OnUpgrade>())
        .map(move |headers: HeaderMap, upgrade| answer(&app, &headers, upgrade))
        .boxed()
}

/// 101 and a task for the socket, or an error.
fn answer(app: &App, headers: &HeaderMap, upgrade: Option<OnUpgrade>) -> Response<String> {
    let accepted = match (handshake::accept(headers), upgrade) {
        (Ok(headers), Some(upgrade)) => Ok((headers, upgrade)),
        (Ok(_), None) => Err(HandshakeError::NotAnUpgrade),
        (Err(error), _) => Err(error),
    };
    let (mut response, upgrade) = match accepted {
        Ok(accepted) => accepted,
        Err(error) => return handshake_error(error).into_response(),
    };
    let settings = &app.config.server.websocket;
    let max = settings.max_connections;
    let Some(permit) = app.registry.try_acquire_connection_permit(max) else {
        let message = "no connection is left for an echo";
        return HttpError::new(StatusCode::TOO_MANY_REQUESTS, message).into_response();
    };
    let serving = app.clone();
    let limits = compression::negotiate(settings, headers, &mut response);
    let echoing = async move {
        if let Some(stream) = take_over(upgrade, limits).await {
            let handle = Arc::clone(permit.handle());
            let session = SocketSession::new(stream, handle, &serving.config, usize::MAX);
            EchoSocket { session, permit }.run().await;
        }
    };
    app.socket_tasks
        .spawn(panic_policy::contain_panics(echoing));
    switching_protocols(response)
}

/// One client.
struct EchoSocket {
    session: SocketSession,
    /// Released when the socket ends.
    permit: ConnectionPermit,
}

impl EchoSocket {
    /// Serves the socket to its end.
    async fn run(mut self) {
        let reason = match self.serve().await {
            Ok(never) => match never {},
            Err(reason) => reason,
        };
        self.session.close(&reason).await;
    }

    async fn serve(&mut self) -> Result<Infallible, CloseReason> {
        let handle = Arc::clone(self.permit.handle());
        let timer = sleep_until(self.session.next_check_at());
        tokio::pin!(timer);
        loop {
            self.session.handle_signals()?;
            loop {
                match self.session.next_data().await? {
                    Some(message) => self.send_back(&message),
                    None if self.session.take_control_frames() < STEPS_PER_TURN => break,
                    None => yield_now().await,
                }
            }
            let had_room = self.session.has_room();
            self.session.flush()?;
            if !had_room && self.session.has_room() {
                continue;
            }
            let (reading, writing) = (self.session.has_room(), self.session.has_unsent());
            set_timer(timer.as_mut(), self.session.next_check_at());
            tokio::select! {
                () = handle.wake.notified() => {}
                ready = self.session.writable(), if writing => ready?,
                ready = self.session.readable(), if reading => {
                    ready?;
                    self.session.read_available()?;
                }
                () = &mut timer => self.session.check(Instant::now(), reading)?,
            }
        }
    }

    fn send_back(&mut self, message: &DataMessage) {
        let (opcode, payload) = match message {
            DataMessage::Text(text) => (Opcode::Text, text.as_bytes()),
            DataMessage::Binary(bytes) => (Opcode::Binary, &bytes[..]),
        };
        self.session.out.append_message(opcode, payload);
    }
}
