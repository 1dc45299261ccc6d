//! Reads request bodies, bounded in bytes and in time, and makes streamed answers.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use folkmoot::{Error, ErrorCode, Result};
use futures_util::stream::{BoxStream, StreamExt as _};
use tokio::sync::mpsc;
use warp::Reply as _;
use warp::reply::Response;

use super::Limits;
use super::rates::Meter;

/// A request's body.
pub(crate) struct Body {
    chunks: BoxStream<'static, std::result::Result<Bytes, warp::Error>>,
    idle: Duration,
    whole: Duration,
    meter: Option<Meter>,
}

impl Body {
    pub(crate) fn new<B: Buf>(
        chunks: impl warp::Stream<Item = std::result::Result<B, warp::Error>> + Send + 'static,
        limits: &Limits,
        meter: Option<Meter>,
    ) -> Self {
        let chunks = chunks.map(|chunk| chunk.map(|mut buf| buf.copy_to_bytes(buf.remaining()))).boxed();
        Self { chunks, idle: limits.body_idle_timeout, whole: limits.body_timeout, meter }
    }

    /// Returns a body without bytes.
    pub(crate) fn empty() -> Self {
        let chunks = futures_util::stream::empty().boxed();
        Self { chunks, idle: Duration::ZERO, whole: Duration::ZERO, meter: None }
    }

    /// Returns the next bytes; none at the end.
    async fn chunk(&mut self) -> Result<Option<Bytes>> {
        match tokio::time::timeout(self.idle, self.chunks.next()).await {
            Err(_) => Err(Error::new(
                ErrorCode::RequestTimeout,
                format!("the body paused for more than {}", humantime::format_duration(self.idle)),
            )),
            Ok(None) => Ok(None),
            Ok(Some(Ok(chunk))) => {
                if let Some(meter) = &self.meter {
                    meter.count(chunk.len());
                }
                Ok(Some(chunk))
            }
            Ok(Some(Err(error))) => {
                Err(Error::new(ErrorCode::InvalidRequest, "the body broke off or is malformed").with_source(error))
            }
        }
    }

    /// Reads the whole body.
    ///
    /// # Errors
    /// [`ErrorCode::BodyTooLarge`] beyond `bytes_max`, [`ErrorCode::RequestTimeout`] if it takes too long.
    pub(crate) async fn whole(mut self, bytes_max: usize) -> Result<Bytes> {
        let whole = self.whole;
        let read = async {
            let mut first = Bytes::new();
            let mut all = BytesMut::new();
            while let Some(chunk) = self.chunk().await? {
                if first.len() + all.len() + chunk.len() > bytes_max {
                    return Err(too_large(bytes_max));
                }
                // Nearly every body is one chunk: that one is not copied.
                if first.is_empty() && all.is_empty() {
                    first = chunk;
                } else {
                    if all.is_empty() {
                        all.extend_from_slice(&std::mem::take(&mut first));
                    }
                    all.extend_from_slice(&chunk);
                }
            }
            Ok(if all.is_empty() { first } else { all.freeze() })
        };
        tokio::time::timeout(whole, read).await.unwrap_or_else(|_| {
            let after = humantime::format_duration(whole);
            Err(Error::new(ErrorCode::RequestTimeout, format!("the body took more than {after}")))
        })
    }

    /// Reads the body line by line.
    pub(crate) fn lines(self, line_bytes_max: usize) -> Lines {
        Lines { body: self, buffer: BytesMut::new(), scanned: 0, line_bytes_max, ended: false, number: 0 }
    }
}

fn too_large(bytes_max: usize) -> Error {
    Error::new(ErrorCode::BodyTooLarge, format!("the body has more than {bytes_max} bytes"))
        .hint("keep large data outside the document, or send many documents through bulk")
}

/// The lines of a body.
pub(crate) struct Lines {
    body: Body,
    buffer: BytesMut,
    /// Bytes of the buffer known to hold no line break.
    scanned: usize,
    line_bytes_max: usize,
    ended: bool,
    number: u64,
}

/// A line and its number, from 1.
pub(crate) struct Line {
    pub(crate) number: u64,
    pub(crate) text: Bytes,
}

impl Lines {
    /// Returns the number of the last line returned.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Returns the next line that is not blank; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Line>> {
        loop {
            let found = self.buffer.iter().skip(self.scanned).position(|b| *b == b'\n').map(|at| at + self.scanned);
            let text = match found {
                Some(end) => {
                    let line = self.buffer.split_to(end);
                    self.buffer.advance(1);
                    line.freeze()
                }
                None if self.ended && self.buffer.is_empty() => return Ok(None),
                None if self.ended => self.buffer.split().freeze(),
                None => {
                    self.scanned = self.buffer.len();
                    if self.scanned > self.line_bytes_max {
                        return Err(self.line_too_long());
                    }
                    match self.body.chunk().await? {
                        Some(chunk) => self.buffer.extend_from_slice(&chunk),
                        None => self.ended = true,
                    }
                    continue;
                }
            };
            self.scanned = 0;
            self.number += 1;
            if text.len() > self.line_bytes_max {
                return Err(self.line_too_long());
            }
            let text = text.strip_suffix(b"\r").map_or_else(|| text.clone(), |cut| text.slice_ref(cut));
            if !text.trim_ascii().is_empty() {
                return Ok(Some(Line { number: self.number, text }));
            }
        }
    }

    fn line_too_long(&self) -> Error {
        Error::new(ErrorCode::BodyTooLarge, format!("a line has more than {} bytes", self.line_bytes_max))
    }
}

/// Where a streamed answer is written.
pub(crate) struct Writer(mpsc::Sender<Bytes>);

/// Chunks that wait for a slow reader.
const CHUNKS_WAITING_MAX: usize = 8;

impl Writer {
    /// Sends a chunk; waits while the reader is slow.
    ///
    /// # Errors
    /// The reader is gone: stop.
    pub(crate) async fn send(&self, chunk: impl Into<Bytes>) -> std::result::Result<(), Gone> {
        self.0.send(chunk.into()).await.map_err(|_| Gone)
    }
}

/// The reader of a streamed answer is gone.
#[derive(Debug)]
pub(crate) struct Gone;

/// Returns an answer whose body is whatever is sent to the writer until it is dropped.
pub(crate) fn streamed() -> (Writer, Response) {
    let (sender, mut receiver) = mpsc::channel(CHUNKS_WAITING_MAX);
    let chunks = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx)).map(Ok::<_, std::convert::Infallible>);
    (Writer(sender), warp::reply::stream(chunks).into_response())
}
