//! What the behaviour tests stand on.

pub(crate) mod bare;
pub(crate) mod kafka;
pub(crate) mod program;
pub(crate) mod proxy;
pub(crate) mod reader;
pub(crate) mod relay;
pub(crate) mod ws_client;
