//! Acks: what a client is sent about a record that was produced.
//!
//! ```text
//! {"topic":"t","partition":0,"offset":7,"timestamp":1554402266846,"messageId":"a"}
//! ```
//!
//! Written piece by piece into the caller's buffer: nothing is allocated per ack.

use bytes::{BufMut, BytesMut};

use super::format::write_integer;
use super::json;
use super::socket_error::{EchoedId, write_echoed_id};

/// Writes the ack of a produced record. `offset` is -1 when the brokers no longer know it.
pub(crate) fn write_ack(
    out: &mut BytesMut,
    topic: &str,
    partition: i32,
    offset: i64,
    timestamp: i64,
    id: EchoedId<'_>,
) {
    out.put_slice(b"{\"topic\":");
    json::write_string(out, topic.as_bytes());
    out.put_slice(b",\"partition\":");
    write_integer(out, partition);
    out.put_slice(b",\"offset\":");
    write_integer(out, offset);
    out.put_slice(b",\"timestamp\":");
    write_integer(out, timestamp);
    write_echoed_id(out, id);
    out.put_u8(b'}');
}

#[cfg(test)]
mod tests {
    use super::super::socket_error::tests::written;
    use super::*;

    #[test]
    fn an_ack_has_partition_offset_and_timestamp() {
        assert_eq!(
            written(|out| write_ack(out, "foo", 2, 4, 1554896731782, EchoedId::None)),
            r#"{"topic":"foo","partition":2,"offset":4,"timestamp":1554896731782}"#
        );
        assert_eq!(
            written(|out| write_ack(
                out,
                "t",
                0,
                -1,
                -1,
                EchoedId::message_id(Some(br#""\u00e9""#))
            )),
            r#"{"topic":"t","partition":0,"offset":-1,"timestamp":-1,"messageId":"\u00e9"}"#
        );
    }
}
