//! What stands in front of a datum: nothing, or Confluent's header.
//!
//! ```text
//! plain       datum
//! Confluent   0x00, id of the schema (4 bytes, big-endian), datum
//! ```

/// How datums are framed, and with which schema those are that we write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum AvroFraming {
    /// Nothing but the datum.
    Plain,
    /// The id of our schema in front of it.
    Confluent(u32),
}

/// Length of Confluent's header.
pub(super) const CONFLUENT_HEADER_LEN: usize = 5;
/// Its first byte.
const MAGIC: u8 = 0;

impl AvroFraming {
    /// What stands in front of each datum, as far as `header` has it.
    pub(super) fn header(self, header: &mut [u8; CONFLUENT_HEADER_LEN]) -> &[u8] {
        match self {
            AvroFraming::Plain => &[],
            AvroFraming::Confluent(id) => {
                header[0] = MAGIC;
                header[1..].copy_from_slice(&id.to_be_bytes());
                header
            }
        }
    }
}

/// For clients that do not know of the registry.
pub(crate) const NO_HEADER: &str =
    "it does not begin with 0x00 and the id of its schema (4 bytes): there is a schema registry";

/// The writer's schema and the datum of a frame with Confluent's header; `None` when it has none.
pub(crate) fn split_confluent(frame: &[u8]) -> Option<(u32, &[u8])> {
    let (header, datum) = frame.split_first_chunk::<CONFLUENT_HEADER_LEN>()?;
    let [MAGIC, id @ ..] = *header else {
        return None;
    };
    Some((u32::from_be_bytes(id), datum))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_is_written_and_its_lack_is_seen() {
        let mut buffer = [0; CONFLUENT_HEADER_LEN];
        let header = AvroFraming::Confluent(258).header(&mut buffer);
        assert_eq!(header, [0, 0, 0, 1, 2]);
        assert_eq!(
            split_confluent(&[header, b"x"].concat()),
            Some((258, &b"x"[..]))
        );
        assert_eq!(split_confluent(header), Some((258, &b""[..])));
        for frame in [&b""[..], b"\0\0\0\0", b"\x02\0\0\0\x01x"] {
            assert_eq!(split_confluent(frame), None);
        }
        assert_eq!(AvroFraming::Plain.header(&mut buffer), b"");
    }
}
