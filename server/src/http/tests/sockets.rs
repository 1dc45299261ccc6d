//! The shell over real sockets: slow, greedy and too many clients, and its shutdown.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::super::{Exposure, Listener, ShellError};
use super::*;

struct Running {
    address: std::net::SocketAddr,
    world: World,
    task: JoinHandle<()>,
}

async fn run(limits: Limits) -> Running {
    let world = world_with(limits);
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), Exposure::LoopbackOnly, None).await.unwrap();
    let address = listener.address();
    let task = tokio::spawn(listener.serve(world.front.clone()));
    Running { address, world, task }
}

impl Running {
    async fn connect(&self, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }
}

/// Reads until the server closes; far longer than any time-out of these tests.
async fn read_all(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    // A reset counts as closing: what came before it was read.
    let _ = timeout(Duration::from_secs(10), stream.read_to_end(&mut all)).await.expect("the server never closed");
    String::from_utf8_lossy(&all).into_owned()
}

/// Reads until what has come contains `text`.
async fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&all).contains(text) {
        let n = timeout(Duration::from_secs(10), stream.read(&mut buffer)).await.expect("nothing came").unwrap();
        assert!(n > 0, "closed after {:?}", String::from_utf8_lossy(&all));
        all.extend_from_slice(&buffer[..n]);
    }
    String::from_utf8_lossy(&all).into_owned()
}

fn head(line: &str, more: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n{more}")
}

#[tokio::test]
async fn silent_and_slow_clients_are_cut_off() {
    let running = run(limits()).await;
    // Nothing, one byte, half an HTTP/2 preface, half a head, and idling after a request.
    for text in ["", "P", "PRI * HTTP/2.0\r\n", "GET /health/live HTTP/1.1\r\nHost: x\r\nX-a: "] {
        let mut stream = running.connect(text).await;
        let begun = Instant::now();
        read_all(&mut stream).await;
        assert!(begun.elapsed() < Duration::from_secs(5), "{text:?} was held for {:?}", begun.elapsed());
    }
    let mut stream = running.connect("GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(read_all(&mut stream).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn slow_and_oversize_bodies_are_refused() {
    let running = run(limits()).await;
    let mut slow = running.connect(&head("PUT /v1/collections/c/docs/a", "Content-Length: 10\r\n\r\n{")).await;
    let answer = read_until(&mut slow, "}").await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("request_timeout"), "{answer}");
    let mut chunked =
        running.connect(&head("PUT /v1/collections/c/docs/a", "Transfer-Encoding: chunked\r\n\r\n")).await;
    let chunk = format!("100000\r\n{}\r\n", " ".repeat(1 << 20));
    for _ in 0..6 {
        if chunked.write_all(chunk.as_bytes()).await.is_err() {
            break;
        }
    }
    let answer = read_until(&mut chunked, "}").await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("body_too_large"), "{answer}");
}

#[tokio::test]
async fn connections_beyond_the_cap_wait() {
    let long = Duration::from_secs(20);
    let running = run(Limits { connections_max: 1, first_byte_timeout: long, header_timeout: long, ..limits() }).await;
    let mut first = running.connect("GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n").await;
    read_until(&mut first, "true}").await;
    let mut second = running.connect("GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut byte = [0; 1];
    assert!(timeout(Duration::from_millis(200), second.read(&mut byte)).await.is_err(), "served beyond the cap");
    drop(first);
    read_until(&mut second, "true}").await;
}

#[tokio::test]
async fn a_client_that_never_reads_is_cut_off() {
    let running = run(Limits { connections_max: 1, write_timeout: Duration::from_millis(300), ..limits() }).await;
    let large = format!("{{\"x\":\"{}\"}}", "x".repeat(4 << 20));
    running.world.send("PUT /v1/collections/c/docs/a", &[], large).await;
    let request = head("GET /v1/collections/c/docs/a", "\r\n");
    let greedy = running.connect(&request.repeat(8)).await;
    // The only slot is free again although the client still holds its end open.
    let mut next = running.connect("GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n").await;
    read_until(&mut next, "true}").await;
    drop(greedy);
}

#[tokio::test]
async fn shutdown_lets_requests_end_and_then_cuts_them_off() {
    let running = run(limits()).await;
    let mut waiting = running.connect(&head("GET /v1/changes?feed=longpoll&wait=60s", "\r\n")).await;
    running.world.database.0.waiting.notified().await;
    let mut events = running.connect(&head("GET /v1/changes?feed=sse", "\r\n")).await;
    read_until(&mut events, "folkmoot change feed").await;
    // A body that never ends, sent steadily enough.
    let mut endless = running.connect(&head("POST /v1/collections/c/bulk", "Transfer-Encoding: chunked\r\n\r\n")).await;
    read_until(&mut endless, "HTTP/1.1 200").await;
    let feeder = tokio::spawn(async move {
        while endless.write_all(b"1\r\n \r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let begun = Instant::now();
    running.world.down.send(true).unwrap();
    timeout(Duration::from_secs(5), running.task).await.expect("shutdown has no end").unwrap();
    assert!(begun.elapsed() >= limits().shutdown_timeout, "the endless request should have used up the deadline");
    let answer = read_all(&mut waiting).await;
    assert!(answer.contains("\"items\":[]"), "{answer:?}");
    assert!(TcpStream::connect(running.address).await.is_err(), "still listening");
    feeder.abort();
}

#[tokio::test]
async fn other_machines_need_leave() {
    let refused = Listener::bind("0.0.0.0:0".parse().unwrap(), Exposure::LoopbackOnly, None).await;
    assert!(matches!(refused, Err(ShellError::Exposed(_))));
    assert!(Listener::bind("0.0.0.0:0".parse().unwrap(), Exposure::Anywhere, None).await.is_ok());
}

#[tokio::test]
async fn http2_with_prior_knowledge_is_spoken() {
    let running = run(limits()).await;
    let mut stream = running.connect("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    // An empty SETTINGS frame; the server answers with its own.
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    let mut frame = [0; 9];
    timeout(Duration::from_secs(5), stream.read_exact(&mut frame)).await.unwrap().unwrap();
    assert_eq!(frame[3], 4, "no SETTINGS frame");
}
