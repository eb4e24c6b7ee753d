//! RFC 6455 on the server side: the opening handshake and the frames, without any I/O.

pub mod frame;
pub mod handshake;
