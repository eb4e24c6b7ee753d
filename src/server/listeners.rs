//! Where clients come in: in the clear, by TLS, or both.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ServerConfig;
use tls::ServerTls;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// The ports of one server.
#[derive(Debug)]
pub struct Listeners {
    /// `server.port`; `None` with `server.ssl.ssl-only`.
    pub plain: Option<TcpListener>,
    /// `server.ssl.port`
    pub tls: Option<TlsListener>,
    /// `server.admin.port`: the admin server's, which speaks TLS if there is [`Listeners::tls`].
    pub admin: Option<TcpListener>,
}

/// A port that speaks TLS.
#[derive(Debug)]
pub struct TlsListener {
    /// The port.
    pub listener: TcpListener,
    /// What it presents.
    pub tls: Arc<ServerTls>,
    /// Notified when the files of `tls` are to be read again.
    pub reload: Arc<Notify>,
}

impl From<TcpListener> for Listeners {
    fn from(plain: TcpListener) -> Self {
        Self {
            plain: Some(plain),
            tls: None,
            admin: None,
        }
    }
}

/// A connection on which nothing has been read.
pub(super) struct AcceptedStream {
    pub(super) tcp: TcpStream,
    pub(super) peer: SocketAddr,
    /// What it is served with, if by TLS.
    pub(super) tls: Option<Arc<ServerConfig>>,
}

impl Listeners {
    /// The next connection of the admin server's port. Cancel-safe.
    pub(super) async fn accept_admin(&self) -> io::Result<AcceptedStream> {
        let Some(listener) = &self.admin else {
            return pending().await;
        };
        let (tcp, peer) = listener.accept().await?;
        let tls = self.tls.as_ref().map(|tls| tls.tls.config());
        Ok(AcceptedStream { tcp, peer, tls })
    }

    /// The next connection of a client's ports. Cancel-safe.
    pub(super) async fn accept(&self) -> io::Result<AcceptedStream> {
        let plain = async {
            match &self.plain {
                Some(listener) => listener.accept().await,
                None => pending().await,
            }
        };
        let by_tls = async {
            match &self.tls {
                Some(tls) => tls.listener.accept().await.map(|accepted| (accepted, tls)),
                None => pending().await,
            }
        };
        tokio::select! {
            accepted = plain => {
                let (tcp, peer) = accepted?;
                Ok(AcceptedStream { tcp, peer, tls: None })
            }
            accepted = by_tls => {
                let ((tcp, peer), tls) = accepted?;
                let tls = Some(tls.tls.config());
                Ok(AcceptedStream { tcp, peer, tls })
            }
        }
    }
}
