//! RFC 6455 on the server side: the opening handshake and the frames, and RFC 7692: messages that
//! are compressed. Without any I/O.

pub mod deflate;
pub mod frame;
pub mod handshake;
