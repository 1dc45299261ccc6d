//! What a header must have in common with the one before it in its stream.

use crate::id::OpId;
use crate::op::Header;

/// Why a header does not continue its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// The two ops belong to different streams.
    #[error("op and the one before it are of different streams")]
    OtherStream,
    /// The sequence number does not follow.
    #[error("op {seq} follows op {previous} of its stream")]
    Sequence {
        /// Number of the op.
        seq: u64,
        /// Number of the one before.
        previous: u64,
    },
    /// The header names another op as the one before.
    #[error("op does not name the one before it")]
    Previous,
    /// The op is older than the one before it.
    #[error("op is older than the one before it")]
    TimeWentBack,
}

/// Checks that `header` is the next in the stream after `previous`, whose op id is `previous_id`.
///
/// # Errors
/// [`ChainError`], by what does not fit. Such an op is refused at the door: no verdict, no place in the store.
pub fn check_against_previous(header: &Header, previous: &Header, previous_id: OpId) -> Result<(), ChainError> {
    check_link(header, previous, previous_id)?;
    if header.hlc < previous.hlc {
        return Err(ChainError::TimeWentBack);
    }
    Ok(())
}

/// The part of [`check_against_previous`] that makes a chain: same stream, next number, right hash.
pub(super) fn check_link(header: &Header, previous: &Header, previous_id: OpId) -> Result<(), ChainError> {
    let same = header.author == previous.author
        && header.certificate == previous.certificate
        && header.session == previous.session
        && header.shard == previous.shard
        && header.cluster == previous.cluster;
    if !same {
        return Err(ChainError::OtherStream);
    }
    if previous.seq.checked_add(1) != Some(header.seq) {
        return Err(ChainError::Sequence { seq: header.seq, previous: previous.seq });
    }
    if header.prev != previous_id {
        return Err(ChainError::Previous);
    }
    Ok(())
}
