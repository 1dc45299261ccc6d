//! An HTTP/1.1 connection for load: requests are bytes made beforehand, of an answer only what is needed is looked at.
//!
//! The client shares the machine with what it measures, so it does as little as it can: no headers as values, no body that
//! is not asked for, no task beside the caller's.

use std::io;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Headers of an answer; a node sends about ten.
const HEADERS_MAX: usize = 64;
/// An answer, head and body: the largest is that of `/metrics`.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// How long one answer may take.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);

pub(super) struct Connection {
    stream: TcpStream,
    received: BytesMut,
    /// How much of `received` is the answer returned last.
    answered: usize,
}

/// An answer, as long as no other is asked for.
pub(super) struct Answer<'a> {
    pub(super) status: u16,
    pub(super) head: &'a [u8],
    pub(super) body: &'a [u8],
}

/// What the head of an answer tells.
struct Head {
    status: u16,
    bytes: usize,
    body_bytes: usize,
}

fn malformed(what: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the answer is not as expected: {what}"))
}

impl Connection {
    /// Connects to `host:port`.
    pub(super) async fn open(authority: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(authority).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, received: BytesMut::with_capacity(4 << 10), answered: 0 })
    }

    /// Sends a request and waits for its answer.
    pub(super) async fn exchange(&mut self, request: &[u8]) -> io::Result<Answer<'_>> {
        let head = tokio::time::timeout(ANSWER_TIME_MAX, self.answer(request))
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer came in time"))??;
        let (start, rest) = self.received.split_at_checked(head.bytes).unwrap_or_default();
        let body = rest.get(..head.body_bytes).unwrap_or_default();
        Ok(Answer { status: head.status, head: start, body })
    }

    async fn answer(&mut self, request: &[u8]) -> io::Result<Head> {
        self.received.advance(std::mem::take(&mut self.answered).min(self.received.len()));
        self.stream.write_all(request).await?;
        let mut head = None;
        loop {
            if head.is_none() {
                head = parse(&self.received)?;
            }
            if let Some(head) = head.take_if(|head| self.received.len() >= head.bytes + head.body_bytes) {
                self.answered = head.bytes + head.body_bytes;
                return Ok(head);
            }
            if self.received.len() > ANSWER_BYTES_MAX {
                return Err(malformed("it is too long"));
            }
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the node closed the connection"));
            }
        }
    }
}

/// Reads the head of an answer; none if it has not all come.
fn parse(received: &[u8]) -> io::Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut answer = httparse::Response::new(&mut headers);
    let bytes = match answer.parse(received).map_err(malformed)? {
        httparse::Status::Complete(bytes) => bytes,
        httparse::Status::Partial => return Ok(None),
    };
    let status = answer.code.unwrap_or_default();
    let length = answer.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let body_bytes = match length {
        Some(length) => std::str::from_utf8(length.value)
            .ok()
            .and_then(|text| text.parse().ok())
            .filter(|length| *length <= ANSWER_BYTES_MAX)
            .ok_or_else(|| malformed("its length"))?,
        None if matches!(status, 204 | 304) => 0,
        None => return Err(malformed("it does not tell its length")),
    };
    Ok(Some(Head { status, bytes, body_bytes }))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn heads_are_read_when_they_are_whole() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nx: y\r\n\r\nhello";
        let head = parse(text).unwrap().unwrap();
        assert_eq!((head.status, head.bytes, head.body_bytes), (200, text.len() - 5, 5));
        assert!(parse(&text[..20]).unwrap().is_none());
        for bad in
            ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n", "SSH-2.0-x\r\n\r\n"]
        {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn answers_in_parts_are_put_together_and_follow_each_other() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 3];
            for part in ["HTTP/1.1 201 Cr", "eated\r\ncontent-length: 4\r\n\r\nab", "cd"] {
                if part.starts_with("HTTP") {
                    stream.read_exact(&mut asked).await.unwrap();
                }
                stream.write_all(part.as_bytes()).await.unwrap();
                tokio::task::yield_now().await;
            }
            stream.read_exact(&mut asked).await.unwrap();
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        };
        let client = async {
            let mut connection = Connection::open(&address).await.unwrap();
            let answer = connection.exchange(b"one").await.unwrap();
            assert_eq!((answer.status, answer.body), (201, &b"abcd"[..]));
            assert_eq!(connection.exchange(b"two").await.unwrap().status, 204);
            assert!(connection.exchange(b"end").await.is_err());
        };
        tokio::join!(server, client);
    }
}
