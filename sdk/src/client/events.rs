//! The change feed as server-sent events, resumed where it broke off.

use std::time::Duration;

use futures_util::stream::{BoxStream, StreamExt as _};
use http::Method;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::calls::{Feed, feed_path};
use super::transport::Call;
use super::{Client, backoff};
use crate::api::{Change, ChangesQuery, Error, ErrorCode, Result, Since};
use crate::wire;

/// A node sends at least a comment every 15 s; after this long without anything the connection is dead.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// One line: a document of the largest size with its metadata.
const LINE_BYTES_MAX: usize = 8 << 20;
/// Failures in a row, each after all attempts of a call, before the stream ends with the error.
const FAILURES_MAX: u32 = 5;

struct Feeder {
    client: Client,
    query: ChangesQuery,
    body: Option<Incoming>,
    lines: Lines,
    event: Event,
    failures: u32,
    ended: bool,
}

/// The event that is being received.
#[derive(Default)]
struct Event {
    name: String,
    data: String,
}

pub(super) fn subscribe(client: Client, query: ChangesQuery) -> BoxStream<'static, Result<Change>> {
    let feeder = Feeder {
        client,
        query,
        body: None,
        lines: Lines::default(),
        event: Event::default(),
        failures: 0,
        ended: false,
    };
    futures_util::stream::unfold(feeder, |mut feeder| async move {
        if feeder.ended {
            return None;
        }
        let item = feeder.next().await;
        feeder.ended = item.is_err();
        Some((item, feeder))
    })
    .boxed()
}

impl Feeder {
    async fn next(&mut self) -> Result<Change> {
        loop {
            match self.advance().await {
                Ok(Some(change)) => {
                    self.failures = 0;
                    self.query.since = Since::After(change.token.clone());
                    return Ok(change);
                }
                Ok(None) => {}
                Err(error) => {
                    self.body = None;
                    self.failures += 1;
                    if !error.code().is_transient() || self.failures >= FAILURES_MAX {
                        return Err(error);
                    }
                    tokio::time::sleep(backoff::pause(self.failures, error.retry_delay())).await;
                }
            }
        }
    }

    /// Takes one line, or receives more of them.
    async fn advance(&mut self) -> Result<Option<Change>> {
        let Some(body) = &mut self.body else {
            let call = Call::new(Method::GET, feed_path(&self.query, Feed::Events));
            self.body = Some(self.client.transport.open(&call).await?.into_body());
            self.lines = Lines::default();
            self.event = Event::default();
            return Ok(None);
        };
        if let Some(line) = self.lines.take()? {
            return self.event.line(&line);
        }
        let broken = |why: &str| Error::new(ErrorCode::Unreachable, format!("the change feed broke off: {why}"));
        match tokio::time::timeout(SILENCE_MAX, body.frame()).await {
            Err(_) => Err(broken("nothing came for too long")),
            Ok(None) => Err(broken("the node closed it")),
            Ok(Some(Err(error))) => Err(broken("the connection failed").with_source(error)),
            Ok(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.lines.push(data);
                }
                Ok(None)
            }
        }
    }
}

impl Event {
    /// Takes a line of the event stream (WHATWG HTML, 9.2.6); returns a change when the line completes one.
    fn line(&mut self, line: &str) -> Result<Option<Change>> {
        if line.is_empty() {
            let Self { name, data } = std::mem::take(self);
            if data.is_empty() {
                return Ok(None);
            }
            let malformed =
                |e| Error::new(ErrorCode::InvalidAnswer, format!("an event of the change feed is malformed: {e}"));
            return match name.as_str() {
                "problem" => Err(serde_json::from_str::<wire::Problem>(&data).map_err(malformed)?.into()),
                "change" => Ok(Some(serde_json::from_str::<wire::ListedChange>(&data).map_err(malformed)?.into())),
                // A later version may send more.
                _ => Ok(None),
            };
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                if self.data.len() + value.len() > LINE_BYTES_MAX {
                    return Err(Error::new(ErrorCode::InvalidAnswer, "an event of the change feed is too large"));
                }
                self.data.push_str(value);
            }
            _ => {}
        }
        Ok(None)
    }
}

/// Cuts what is received into lines.
#[derive(Default)]
struct Lines {
    buffer: Vec<u8>,
    /// Bytes of the buffer that were taken already.
    taken: usize,
    /// Bytes of the buffer known to hold no line break behind `taken`.
    scanned: usize,
}

impl Lines {
    fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.taken);
        self.scanned = self.scanned.saturating_sub(self.taken);
        self.taken = 0;
        self.buffer.extend_from_slice(bytes);
    }

    fn take(&mut self) -> Result<Option<String>> {
        let from = self.scanned.max(self.taken);
        let Some(end) = self.buffer.iter().skip(from).position(|b| *b == b'\n').map(|at| at + from) else {
            self.scanned = self.buffer.len();
            if self.buffer.len() - self.taken > LINE_BYTES_MAX {
                return Err(Error::new(ErrorCode::InvalidAnswer, "a line of the change feed is too large"));
            }
            return Ok(None);
        };
        let line = self.buffer.get(self.taken..end).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let text = std::str::from_utf8(line)
            .map_err(|_| Error::new(ErrorCode::InvalidAnswer, "the change feed is not UTF-8"))?
            .to_owned();
        self.taken = end + 1;
        self.scanned = self.taken;
        Ok(Some(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_wherever_the_bytes_break() {
        let text = "a\r\n\nlonger line\nrest";
        for step in 1..text.len() {
            let mut lines = Lines::default();
            let mut got = Vec::new();
            for chunk in text.as_bytes().chunks(step) {
                lines.push(chunk);
                while let Some(line) = lines.take().unwrap() {
                    got.push(line);
                }
            }
            assert_eq!(got, ["a", "", "longer line"], "{step}");
        }
    }

    #[test]
    fn events_are_put_together() {
        let mut event = Event::default();
        let change =
            r#"{"token":"t1","collection":"c","id":"a","kind":"changed","heads":"","modified":"1970-01-01T00:00:00Z"}"#;
        for line in [": keep-alive", "", "id: t1", "event: change", &format!("data: {change}")] {
            assert!(event.line(line).unwrap().is_none(), "{line}");
        }
        assert_eq!(event.line("").unwrap().unwrap().token.as_str(), "t1");
        assert!(event.line("event: problem").unwrap().is_none());
        let problem = wire::Problem::from(&Error::new(ErrorCode::NotAllowed, "no"));
        assert!(event.line(&format!("data:{}", serde_json::to_string(&problem).unwrap())).unwrap().is_none());
        assert_eq!(event.line("").unwrap_err().code(), ErrorCode::NotAllowed);
    }
}
