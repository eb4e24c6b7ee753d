//! The `kafka-websocket-proxy` program.

fn main() {}
