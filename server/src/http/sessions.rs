//! Causal sessions: every answer tells in `Folkmoot-Session` what was seen, and comes from a state at least as new as the request's.

use folkmoot::api::{SessionToken, Touched};
use folkmoot::wire::{self, SessionAnswer};
use folkmoot::{Database, Result};
use http::{HeaderMap, HeaderValue, StatusCode};
use warp::reply::Response;

use super::problem;
use super::reply::json_answer;
use super::request::{Request, collection_name, document_id};

/// Returns what a path touches; names that are none touch nothing, and are refused by the handler.
pub(super) fn touched(collection: Option<&str>, id: Option<&str>) -> Touched {
    let collection = collection.and_then(|text| collection_name(text).ok());
    let id = collection.as_ref().and(id).and_then(|text| document_id(text).ok());
    Touched { collection, id }
}

fn tell(session: &SessionToken, headers: &mut HeaderMap) {
    if let Ok(value) = HeaderValue::from_str(session.as_str()) {
        headers.insert(wire::SESSION, value);
    }
}

/// Has a handler answer from a state at least as new as the session's, and puts what was seen beside the answer.
///
/// # Errors
/// Those of the handler; that the node did not get so far in time.
pub(super) async fn in_session<F>(
    request: Request,
    touched: Touched,
    handler: impl FnOnce(Request) -> F + Send,
) -> Result<Response>
where
    F: Future<Output = Result<Response>> + Send,
{
    let options = request.read_options()?;
    let database = request.database.clone();
    if let Some(session) = &options.session {
        database.catch_up(&touched, session, options.timeout).await?;
    }
    told(&*database, &touched, options.session.as_ref(), handler(request).await).await
}

/// Puts what was seen beside an answer that does not tell it.
pub(super) async fn told(
    database: &dyn Database,
    touched: &Touched,
    seen: Option<&SessionToken>,
    answer: Result<Response>,
) -> Result<Response> {
    let mut response = match answer {
        Ok(response) => response,
        // That something is not there, or is not as it was thought to be, is an answer about the state.
        Err(error) => {
            let response = problem::answer(&error);
            let states =
                [StatusCode::NOT_FOUND, StatusCode::CONFLICT, StatusCode::GONE, StatusCode::PRECONDITION_FAILED];
            if !states.contains(&response.status()) {
                return Err(error);
            }
            response
        }
    };
    if !response.headers().contains_key(wire::SESSION)
        && let Ok(session) = database.session(touched, seen).await
    {
        tell(&session, response.headers_mut());
    }
    Ok(response)
}

/// Waits until this node has what a session has seen, and tells what there is to be seen now.
#[utoipa::path(get, path = "/v1/session", tag = "sessions",
    params(
        ("collection" = Option<String>, Query, description = "Of documents of this collection; of who may do what if not given"),
        ("id" = Option<String>, Query, description = "Of this document only"),
        ("Folkmoot-Session" = Option<String>, Header, description = "What must be here first"),
        ("Folkmoot-Timeout" = Option<String>, Header, description = "How long to wait for it, as in 5s"),
    ),
    responses(
        (status = 200, description = "The token, which is in the header Folkmoot-Session too", body = SessionAnswer),
        (status = 400, description = "invalid_session, invalid_collection, invalid_id", body = wire::Problem, content_type = "application/problem+json"),
        (status = 503, description = "session_not_reached", body = wire::Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn session(mut request: Request) -> Result<Response> {
    if let Some(refused) = request.only_get() {
        return Ok(refused);
    }
    let collection = request.query.take("collection").map(|name| name.parse()).transpose()?;
    let id = request.query.take("id").map(|id| id.parse()).transpose()?;
    let options = request.read_options()?;
    request.query.finish("collection, id")?;
    let touched = Touched { collection, id };
    if let Some(session) = &options.session {
        request.database.catch_up(&touched, session, options.timeout).await?;
    }
    let session = request.database.session(&touched, options.session.as_ref()).await?;
    let mut response = json_answer(&SessionAnswer { session: session.clone() })?;
    tell(&session, response.headers_mut());
    Ok(response)
}
