//! What happens to every request: it gets an id and a span, the token is checked, the answer is counted.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use folkmoot::node::Origin;
use folkmoot::{Error, wire};
use http::header::{AUTHORIZATION, ORIGIN};
use http::{HeaderMap, HeaderValue};
use tower_service::Service as _;
use tracing::Instrument as _;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::auth::Credential;
use super::entrance::{Arrival, Entered};
use super::metrics::{Counted, answered};
use super::routes::{self, Route};
use super::{Context, OwnerToken, auth, docs, live, problem};

/// The database behind a door.
#[derive(Clone)]
pub(crate) struct Front {
    context: Arc<Context>,
    token: OwnerToken,
    routes: BoxedFilter<(Response,)>,
    ids: Arc<Ids>,
}

/// Who asks, and the database as it may be seen.
#[derive(Clone)]
pub(super) struct Door(pub(super) Entered);

/// Makes request ids: a part that differs with every start, and a number.
struct Ids {
    start: u32,
    next: AtomicU64,
}

impl Front {
    pub(crate) fn new(context: Context, token: OwnerToken) -> Self {
        let context = Arc::new(context);
        let routes = routes::all(&context);
        // Only to tell starts apart in a log: without randomness they just look alike.
        let start = getrandom::u32().unwrap_or_default();
        Self { context, token, routes, ids: Arc::new(Ids { start, next: AtomicU64::new(1) }) }
    }

    pub(crate) fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Answers a request.
    pub(crate) async fn answer<B>(&self, request: http::Request<B>) -> Response
    where
        B: http_body::Body + Send + Sync + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let id = format!("{:08x}-{}", self.ids.start, self.ids.next.fetch_add(1, Ordering::Relaxed));
        // At the usual level there is no span, which would cost more than looking the document up: a failure is logged with
        // its request all the same.
        let span = tracing::debug_span!("request", id, method = %request.method(), path = request.uri().path());
        let source = request.extensions().get::<Arrival>().map(|arrival| arrival.source);
        // Pinned here, so that it is not moved into either of the futures below.
        let answered = std::pin::pin!(self.answer_as(request, id.clone()).instrument(span));
        match source {
            // What is recorded of the request tells where it came from.
            Some(source) => Origin { source, request: id }.scope(answered).await,
            None => answered.await,
        }
    }

    async fn answer_as<B>(&self, request: http::Request<B>, id: String) -> Response
    where
        B: http_body::Body + Send + Sync + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let _counted = Counted::request();
        let (begun, method, uri) = (Instant::now(), request.method().clone(), request.uri().clone());
        let origins = &self.context.origins;
        if let Some(response) = origins.preflight(&method, request.headers()) {
            return response;
        }
        let asked = request.headers().get(ORIGIN).cloned();
        // Whether it lives and is ready may be asked by a balancer that has no token; the description is no secret.
        let is_root = uri.path() == "/";
        let open = uri.path().starts_with("/health/") || uri.path() == "/docs" || is_root;
        let arrival = request.extensions().get::<Arrival>().cloned();
        let is_live = uri.path() == routes::LIVE;
        // A browser cannot send the header with a WebSocket: it says who it is in its first message.
        let says_later = is_live
            && !request.headers().contains_key(AUTHORIZATION)
            && arrival.as_ref().is_none_or(|arrival| arrival.certificate.is_none());
        let entered =
            if open || says_later { Ok(self.whole()) } else { self.enter(request.headers(), arrival.as_ref()).await };
        let mut response = match entered {
            Ok(entered) if is_live => {
                let entered = (!says_later).then_some(entered);
                let mut response =
                    live::upgrade(self, request, entered, &id).unwrap_or_else(|error| problem::answer(&error));
                response.extensions_mut().insert(Route(routes::LIVE));
                response
            }
            // Who opens the node's address in a browser is shown what can be done there.
            Ok(_) if is_root => docs::way(),
            Ok(entered) => self.route(request, Door(entered)).await,
            Err(error) if auth::shows_token(request.headers()) => problem::invalid_token(&error),
            Err(error) => problem::answer(&error),
        };
        let route = response.extensions().get::<Route>().map_or("none", |route| route.0);
        let took = begun.elapsed();
        answered(route, &method, response.status(), took);
        tracing::debug!(status = response.status().as_u16(), took_us = took.as_micros() as u64, "answered");
        response = problem::finish(response, &method, uri.path(), &id);
        if let Ok(value) = HeaderValue::from_str(&id) {
            response.headers_mut().insert(wire::REQUEST_ID, value);
        }
        self.context.origins.expose(asked.as_ref(), response.headers_mut());
        response
    }

    fn whole(&self) -> Entered {
        Entered { database: self.context.database.clone(), principal: None }
    }

    /// Returns the database as whoever sent these headers may see it.
    async fn enter(&self, headers: &HeaderMap, arrival: Option<&Arrival>) -> Result<Entered, Error> {
        let entrance = &self.context.entrance;
        let entered = match auth::credential(headers)? {
            Some(Credential::Token(token)) if self.token.is(token) => return Ok(self.whole()),
            Some(Credential::Token(token)) => entrance.by_token(token).await?,
            Some(Credential::Password { name, password }) => {
                entrance.by_password(&name, &password, arrival.map(|arrival| arrival.source)).await?
            }
            None => match arrival.and_then(|arrival| arrival.certificate.as_deref()) {
                Some(certificate) => entrance.by_certificate(certificate)?,
                None => return Err(auth::nothing_shown()),
            },
        };
        self.context.rates.admit(entered.principal)?;
        Ok(entered)
    }

    /// Returns the database as the holder of a token may see it, who says so over a connection that is open already.
    pub(super) async fn enter_by_token(&self, token: &str, arrival: Option<&Arrival>) -> Result<Entered, Error> {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::try_from(format!("Bearer {}", token.trim())).map_err(|_| auth::nothing_shown())?;
        headers.insert(AUTHORIZATION, value);
        self.enter(&headers, arrival).await
    }

    async fn route<B>(&self, mut request: http::Request<B>, door: Door) -> Response
    where
        B: http_body::Body + Send + Sync + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        request.extensions_mut().insert(door);
        match routes::read_of_document(&self.context, request) {
            ControlFlow::Break(read) => read.await,
            ControlFlow::Continue(request) => match warp::service(self.routes.clone()).call(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            },
        }
    }
}
