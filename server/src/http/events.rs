//! Server-sent events: the change feed and the tail of the audit.
//!
//! What is sent is pulled, never gathered: a slow reader holds up its own stream only, and one that takes nothing for long is cut.
//! Whoever comes again says which event it saw last.

use std::sync::Arc;
use std::time::Duration;

use folkmoot::wire::Problem;
use folkmoot::{PrincipalId, Result};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use warp::reply::Response;

use super::Context;
use super::body::{Gone, Writer, streamed};
use super::rates::InUse;

/// Between two signs of life on a quiet stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// For so long a reader may take nothing while there is something for it.
const STALLED_MAX: Duration = Duration::from_secs(30);

/// One event.
pub(super) struct Event {
    /// Its type.
    pub(super) name: &'static str,
    /// Where to go on behind it.
    pub(super) id: String,
    /// A line of JSON.
    pub(super) data: Vec<u8>,
}

/// Returns an answer that lasts as long as the events do, or an error ends them. `stream` is held meanwhile.
pub(super) fn answer(
    context: &Arc<Context>,
    greeting: &'static str,
    events: BoxStream<'static, Result<Event>>,
    stream: Option<InUse<PrincipalId>>,
) -> Response {
    let (writer, mut response) = streamed();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    let context = context.clone();
    tokio::spawn(async move {
        let _stream = stream;
        tokio::select! {
            // The reader is gone, or cut, or has all: in each case there is nothing more to do.
            _ = write(&writer, greeting, events) => {}
            () = context.shut_down() => {}
        }
    });
    response
}

/// Writes events until there are no more.
///
/// # Errors
/// [`Gone`] if the reader is gone or takes nothing.
async fn write(
    writer: &Writer,
    greeting: &'static str,
    mut events: BoxStream<'static, Result<Event>>,
) -> std::result::Result<(), Gone> {
    let send = async |chunk: Vec<u8>| match tokio::time::timeout(STALLED_MAX, writer.send(chunk)).await {
        Ok(sent) => sent,
        Err(_) => {
            metrics::counter!("folkmoot_http_stalled_total").increment(1);
            Err(Gone)
        }
    };
    // Tells the client and every proxy between that the stream has begun.
    send(format!(": {greeting}\n\n").into_bytes()).await?;
    loop {
        let item = match tokio::time::timeout(KEEP_ALIVE, events.next()).await {
            Ok(item) => item,
            Err(_) => {
                send(b": alive\n\n".to_vec()).await?;
                continue;
            }
        };
        match item {
            None => return Ok(()),
            Some(Ok(Event { name, id, data })) => send(text(name, Some(&id), &data)).await?,
            Some(Err(error)) => {
                let problem = serde_json::to_vec(&Problem::from(&error)).unwrap_or_default();
                return send(text("problem", None, &problem)).await;
            }
        }
    }
}

fn text(name: &str, id: Option<&str>, data: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(data.len() + 64);
    if let Some(id) = id {
        text.extend_from_slice(b"id: ");
        text.extend_from_slice(id.as_bytes());
        text.push(b'\n');
    }
    text.extend_from_slice(b"event: ");
    text.extend_from_slice(name.as_bytes());
    text.extend_from_slice(b"\ndata: ");
    text.extend_from_slice(data);
    text.extend_from_slice(b"\n\n");
    text
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    fn endless() -> BoxStream<'static, Result<Event>> {
        let event = |n: u64| Ok(Event { name: "entry", id: n.to_string(), data: b"{}".to_vec() });
        futures_util::stream::iter((0u64..).map(event)).boxed()
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_cut_and_nothing_gathers() {
        let (writer, response) = streamed();
        let begun = tokio::time::Instant::now();
        let written = tokio::time::timeout(STALLED_MAX * 3, write(&writer, "test", endless())).await;
        assert!(matches!(written, Ok(Err(Gone))), "{written:?}");
        assert!(begun.elapsed() >= STALLED_MAX && begun.elapsed() < STALLED_MAX * 2, "{:?}", begun.elapsed());
        drop(response);
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_stream_shows_that_it_lives() {
        let (writer, response) = streamed();
        let writing =
            tokio::spawn(async move { write(&writer, "test", futures_util::stream::pending().boxed()).await });
        let mut body = response.into_body();
        let mut told = Vec::new();
        for _ in 0..3 {
            let frame = tokio::time::timeout(KEEP_ALIVE * 2, body.frame()).await.unwrap().unwrap().unwrap();
            told.push(frame.into_data().unwrap());
        }
        assert_eq!(told, [": test\n\n", ": alive\n\n", ": alive\n\n"]);
        assert!(!writing.is_finished());
    }
}
