//! For simulators: what a hostile peer may make of the frames that it sends.

use bytes::Bytes;
use serde_bytes::ByteBuf;

use super::api::BulkDocument;
use super::frame::{Answer, Frame, Run};

/// Gives the encoded ops of a push or a range to `edit` and returns the frame with what that made of them; `None` for
/// other frames, and if `edit` leaves the ops alone.
pub fn forge_run(frame: &Bytes, edit: impl FnOnce(Vec<Vec<u8>>) -> Option<Vec<Vec<u8>>>) -> Option<Bytes> {
    let edited = |ops: Vec<ByteBuf>| -> Option<Vec<ByteBuf>> {
        let ops = edit(ops.into_iter().map(ByteBuf::into_vec).collect())?;
        Some(ops.into_iter().map(ByteBuf::from).collect())
    };
    let forged = match Frame::decode(frame).ok()?? {
        Frame::Push(run) => Frame::Push(Run { ops: edited(run.ops)? }),
        Frame::Range(answer) => Frame::Range(Answer { request: answer.request, ops: edited(answer.ops)? }),
        _ => return None,
    };
    Some(forged.encode())
}

/// Gives a page of documents to `edit` and returns the frame with what that made of it; `None` for other frames, and if `edit`
/// leaves the documents alone.
pub fn forge_documents(
    frame: &Bytes,
    edit: impl FnOnce(Vec<BulkDocument>) -> Option<Vec<BulkDocument>>,
) -> Option<Bytes> {
    let Frame::Documents(mut page) = Frame::decode(frame).ok()?? else { return None };
    page.documents = edit(page.documents)?;
    Some(Frame::Documents(page).encode())
}
