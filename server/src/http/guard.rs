//! A connection with the two time-outs that hyper lacks: until the first bytes come, and while the client takes nothing.
//!
//! hyper-util's `auto` builder reads up to 24 bytes to tell HTTP/1 from HTTP/2 before any of its timers run: a client that
//! sends nothing, or part of the HTTP/2 preface, would be held for ever. And hyper has no time-out for writing at all.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Bytes of the HTTP/2 preface: with so many the version is known, and hyper's own timer runs.
const PREFACE_BYTES: usize = 24;

pub(super) struct Guarded<S> {
    io: S,
    /// Runs until the preface's length has come, or something is answered (a request can be shorter).
    first_bytes: Option<Pin<Box<Sleep>>>,
    received: usize,
    /// Runs while a write waits for the client.
    stalled: Option<Pin<Box<Sleep>>>,
    write_timeout: Duration,
}

impl<S> Guarded<S> {
    pub(super) fn new(io: S, first_byte_timeout: Duration, write_timeout: Duration) -> Self {
        let first_bytes = Some(Box::pin(sleep(first_byte_timeout)));
        Self { io, first_bytes, received: 0, stalled: None, write_timeout }
    }

    fn watch<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let timeout = self.write_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(timeout)));
        match stalled.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(late("the client takes nothing of its answer"))),
            Poll::Pending => Poll::Pending,
        }
    }
}

fn late(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        let this = &mut *self;
        if let Some(first_bytes) = &mut this.first_bytes {
            this.received += buf.filled().len().saturating_sub(before);
            if this.received >= PREFACE_BYTES {
                this.first_bytes = None;
            } else if read.is_pending() && first_bytes.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(late("no request came over a new connection")));
            }
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.first_bytes = None;
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.watch(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.watch(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.io).poll_shutdown(cx);
        self.watch(cx, closed)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.first_bytes = None;
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
