//! The HTTP face over a database in memory: requests without sockets, and the shell over real ones.

mod client;
mod requests;
mod sockets;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use folkmoot::{Error, ErrorCode};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use tokio::sync::watch;

use super::entrance::Entered;
use super::memory::Shared;
use super::{Context, Entrance, Front, Limits, Metrics, Origins, OwnerToken, RateLimits, Rates};

const TOKEN: &str = "owner-token";

fn limits() -> Limits {
    let short = Duration::from_millis(300);
    let long = Duration::from_secs(20);
    Limits {
        connections_max: 100,
        first_byte_timeout: short,
        header_timeout: short,
        body_idle_timeout: short,
        body_timeout: long,
        answer_timeout: long,
        write_timeout: long,
        shutdown_timeout: short,
    }
}

/// Nobody but the owner comes in: who else does is tested with real nodes.
struct OwnerOnly;

fn nobody() -> Result<Entered, Error> {
    Err(Error::new(ErrorCode::Unauthenticated, "the token is not valid"))
}

#[async_trait::async_trait]
impl Entrance for OwnerOnly {
    async fn by_token(&self, _: &str) -> Result<Entered, Error> {
        nobody()
    }

    async fn by_password(&self, _: &str, _: &str, _: Option<IpAddr>) -> Result<Entered, Error> {
        nobody()
    }

    fn by_certificate(&self, _: &[u8]) -> Result<Entered, Error> {
        nobody()
    }
}

struct World {
    front: Front,
    database: Shared,
    down: watch::Sender<bool>,
}

fn world_with(limits: Limits) -> World {
    world_for(limits, &[])
}

fn world_for(limits: Limits, origins: &[&str]) -> World {
    let origins: Vec<String> = origins.iter().map(|origin| (*origin).to_owned()).collect();
    let origins = Origins::parse(&origins).unwrap();
    let (down, shutdown) = watch::channel(false);
    let database = Shared::default();
    let entrance = Box::new(OwnerOnly);
    let rates = Rates::new(RateLimits { requests: 0, bytes: 0, streams: 10, connections: 100 });
    let (metrics, whole) = (Metrics::detached(), Arc::new(database.clone()));
    let context =
        Context { database: whole, entrance, limits, rates, metrics, origins, live: super::live_places(), shutdown };
    World { front: Front::new(context, OwnerToken::new(TOKEN)), database, down }
}

fn world() -> World {
    world_with(limits())
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {:?}", self.body))
    }

    fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|v| v.to_str().unwrap()).unwrap_or_default()
    }
}

impl World {
    /// Sends `METHOD PATH`, with headers as `name: value`.
    async fn send(&self, line: &str, headers: &[&str], body: impl Into<Bytes>) -> Answer {
        let auth = format!("authorization: Bearer {TOKEN}");
        let headers: Vec<&str> = headers.iter().copied().chain([auth.as_str()]).collect();
        self.send_bare(line, &headers, body).await
    }

    async fn send_bare(&self, line: &str, headers: &[&str], body: impl Into<Bytes>) -> Answer {
        let (method, path) = line.split_once(' ').unwrap();
        let mut request = Request::builder().method(method).uri(path);
        for header in headers {
            let (name, value) = header.split_once(": ").unwrap();
            request = request.header(name, value);
        }
        let response = self.front.answer(request.body(Full::new(body.into())).unwrap()).await;
        let (head, body) = response.into_parts();
        let route = head.extensions.get::<super::routes::Route>().map(|route| route.0);
        let answer = Answer {
            status: head.status,
            headers: head.headers.clone(),
            body: body.collect().await.unwrap().to_bytes(),
        };
        self.assert_described(line, route, &head, &answer);
        answer
    }

    /// No answer is other than the description says; but of methods that there are not, and of what this database alone says.
    fn assert_described(&self, line: &str, route: Option<&'static str>, head: &http::response::Parts, answer: &Answer) {
        let is_made_up = self.database.0.broken.lock().unwrap().is_some();
        let Some(route) = route.filter(|_| !is_made_up) else { return };
        let is_problem = answer.header("content-type") == folkmoot::wire::PROBLEM_JSON;
        let code = if is_problem { answer.code() } else { String::new() };
        let elsewhere = [ErrorCode::MethodNotAllowed, ErrorCode::NotSupported];
        if elsewhere.iter().any(|elsewhere| code == elsewhere.as_str()) {
            return;
        }
        let method = line.split(' ').next().unwrap().parse().unwrap();
        let undescribed = super::openapi::undescribed(&method, route, head, &code);
        assert_eq!(undescribed, None, "{line} ({route})");
    }
}
