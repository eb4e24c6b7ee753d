//! `AvroCommit`: what a client of `/socket/out` sends to commit.

use super::wire::{DatumReader, DatumResult};
use crate::codec::commit::{CommitMessage, CommitRejection};
use crate::codec::socket_error::{EchoedId, SocketErrorCode};

/// Reads a commit, which is all of the datum.
pub(crate) fn read(datum: &[u8]) -> Result<CommitMessage<'_>, CommitRejection<'_>> {
    finish(datum, |reader| reader.string())
}

/// The commit whose id `read` finds.
pub(super) fn finish<'a>(
    datum: &'a [u8],
    read: impl FnOnce(&mut DatumReader<'a>) -> DatumResult<&'a str>,
) -> Result<CommitMessage<'a>, CommitRejection<'a>> {
    let mut reader = DatumReader::new(datum);
    let id = read(&mut reader).and_then(|id| reader.expect_end().map(|()| id));
    let id = id.map_err(|error| CommitRejection {
        code: SocketErrorCode::InvalidRecord,
        message: format!("no AvroCommit: {error}").into(),
        echoed_id: EchoedId::None,
    })?;
    CommitMessage::of_text(id)
}
