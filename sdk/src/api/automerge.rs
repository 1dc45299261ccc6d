//! Files of Automerge.

use bytes::Bytes;
use folkmoot_core::document::foreign::{FileError, read};
use folkmoot_core::document::gate::STACK_BYTES;
use tokio::sync::Semaphore;

use super::error::{Error, ErrorCode, Result};

/// Files that are read at once: each may take some hundred megabytes of memory, within its bounds.
static READERS: Semaphore = Semaphore::const_new(1);

/// Returns what a file shows as JSON text, on a thread with the stack that documents need.
pub(crate) async fn content(file: Bytes) -> Result<Bytes> {
    let failed = |what: String| Error::new(ErrorCode::Internal, format!("read an Automerge file: {what}"));
    // It is never closed.
    let permit = READERS.acquire().await.map_err(|error| failed(error.to_string()))?;
    let (reply, answer) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("folkmoot-file".into())
        .stack_size(STACK_BYTES)
        .spawn(move || {
            // Whoever waited may have gone: the next one begins when this one has ended.
            let text = read(&file);
            drop(permit);
            drop(reply.send(text));
        })
        .map_err(|error| failed(error.to_string()))?;
    let text = answer.await.map_err(|_| failed("the reading thread ended".to_owned()))?;
    text.map(Bytes::from).map_err(|error| {
        let code = match error {
            FileError::Limit(_) => ErrorCode::DocumentTooLarge,
            FileError::Form(_) | FileError::NoDocument | FileError::Unloadable(_) => ErrorCode::InvalidDocument,
        };
        Error::new(code, format!("the file: {error}"))
    })
}
