//! The baseline of a read: a warp handler that answers every request with the same bytes, in a process of its own.

use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;
use folkmoot::{Error, ErrorCode};
use http::{HeaderName, HeaderValue};
use warp::Filter as _;
use warp::reply::Response;

use super::args::BenchBare;
use super::connection::Connection;
use super::requests::Site;
use crate::cli::process::Process;
use crate::http::Metrics;
use crate::serve::{ENDPOINTS_FILE, Endpoints};

/// Headers that HTTP itself adds.
const OF_HTTP: [&str; 3] = ["content-length", "date", "connection"];
/// Headers of an answer.
const HEADERS_MAX: usize = 64;

fn failed(what: &str) -> impl Fn(std::io::Error) -> Error + '_ {
    move |source| Error::new(ErrorCode::Internal, format!("{what}: {source}")).with_source(source)
}

/// Serves an answer until the process is killed.
pub(super) async fn serve(data: &Path, args: &BenchBare) -> Result<(), Error> {
    let recorded = std::fs::read(&args.answer).map_err(failed("read the answer"))?;
    let (headers, body) = parse(&recorded)?;
    let metrics = Metrics::install().map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))?;
    let document = warp::path!("v1" / "collections" / String / "docs" / String).and(warp::get()).map(
        move |_collection: String, _id: String| {
            let mut response = Response::new(body.clone().into());
            for (name, value) in &headers {
                response.headers_mut().insert(name, value.clone());
            }
            response
        },
    );
    let metrics = warp::path!("metrics").map(move || Response::new(metrics.render().into()));
    let listener =
        tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.map_err(failed("listen"))?;
    let address = listener.local_addr().map_err(failed("listen"))?;
    let endpoints = Endpoints { http: format!("http://{address}"), p2p: Vec::new(), certificate: None };
    let text = serde_json::to_vec(&endpoints).map_err(|error| failed("tell the address")(error.into()))?;
    std::fs::create_dir_all(data).map_err(failed("make the folder"))?;
    std::fs::write(data.join(ENDPOINTS_FILE), text).map_err(failed("tell the address"))?;
    warp::serve(document.or(metrics)).incoming(listener).run().await;
    Ok(())
}

fn parse(recorded: &[u8]) -> Result<(Vec<(HeaderName, HeaderValue)>, Bytes), Error> {
    let malformed = || Error::new(ErrorCode::InvalidAnswer, "the recorded answer is malformed");
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut answer = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = answer.parse(recorded).map_err(|_| malformed())? else {
        return Err(malformed());
    };
    let headers = answer.headers.iter().filter(|header| !OF_HTTP.iter().any(|of| header.name.eq_ignore_ascii_case(of)));
    let headers = headers.map(|header| {
        let name = HeaderName::try_from(header.name).map_err(|_| malformed())?;
        Ok((name, HeaderValue::from_bytes(header.value).map_err(|_| malformed())?))
    });
    let body = Bytes::copy_from_slice(recorded.get(head..).unwrap_or_default());
    Ok((headers.collect::<Result<_, Error>>()?, body))
}

/// Starts it with the answer that a node gives to a read; returns where it is and what keeps it running.
pub(super) async fn start(site: &Site, folder: &Path) -> Result<(String, Process), Error> {
    let unreachable = |error| super::load::unreachable(&site.authority, error);
    let mut connection = Connection::open(&site.authority).await.map_err(unreachable)?;
    let mut request = Vec::new();
    site.read(&mut request, 0);
    let answer = connection.exchange(&request).await.map_err(unreachable)?;
    let file = folder.join("answer");
    std::fs::write(&file, [answer.head, answer.body].concat()).map_err(failed("write the answer down"))?;
    let data = folder.join("bare");
    let path = file.to_string_lossy();
    let mut process = Process::start("bare", folder, &data, &["bench-bare", "--answer", &path])?;
    let endpoints = process.endpoints(&data).await?;
    Ok((endpoints.http, process))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_answer_is_given_again() {
        let (headers, body) =
            parse(b"HTTP/1.1 200 OK\r\nETag: \"x\"\r\nContent-Length: 2\r\nDate: d\r\n\r\n{}").unwrap();
        assert_eq!(headers, [(http::header::ETAG, HeaderValue::from_static("\"x\""))]);
        assert_eq!(body, "{}");
        assert!(parse(b"HTTP/1.1 200 OK\r\nETag").is_err());
    }
}
