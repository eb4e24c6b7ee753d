//! `AvroProducerResult`: what a client of `/socket/in` is answered.

use bytes::{BufMut, BytesMut};

use super::framing::{AvroFraming, CONFLUENT_HEADER_LEN};
use super::wire::{NULL_BRANCH, SOME_BRANCH, put_bytes, put_long};

/// Writes the ack of a produced record, whose `messageId` is given as it came encoded. `offset` is
/// -1 when the brokers no longer know it.
pub(crate) fn write_ack(
    out: &mut BytesMut,
    framing: AvroFraming,
    topic: &str,
    (partition, offset, timestamp): (i32, i64, i64),
    message_id: Option<&[u8]>,
) {
    out.put_slice(framing.header(&mut [0; CONFLUENT_HEADER_LEN]));
    put_bytes(out, topic.as_bytes());
    put_long(out, partition.into());
    put_long(out, offset);
    put_long(out, timestamp);
    match message_id {
        Some(encoded) => {
            out.put_u8(SOME_BRANCH);
            out.put_slice(encoded);
        }
        None => out.put_u8(NULL_BRANCH),
    }
}
