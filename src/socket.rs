//! WebSocket connections: the wire format and the opening handshake.

pub mod frame;
pub mod handshake;
