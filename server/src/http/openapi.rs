//! The description of the API, generated from the handlers and their types, and completed with what all of them share.

mod answers;
mod examples;
mod parameters;

#[cfg(test)]
mod tests;

use std::sync::LazyLock;

use serde_json::Value;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::{
    access, audit, authors, bulk, changes, collections, documents, erasure, files, history, live, queries, sessions,
    state, witness,
};

#[derive(OpenApi)]
#[openapi(
    info(title = "Folkmoot", description = "A multi-master CRDT document database", license(name = "Apache-2.0")),
    paths(
        collections::all,
        collections::get,
        collections::put,
        collections::patch,
        collections::drop_one,
        collections::invalid,
        collections::duplicates,
        documents::list,
        documents::create,
        documents::get,
        documents::put,
        documents::patch,
        documents::delete,
        documents::conflicts,
        documents::export_all,
        bulk::bulk,
        history::history,
        history::diff,
        history::restore,
        files::get,
        files::put,
        queries::find,
        queries::aggregate,
        queries::explain,
        queries::indexes,
        changes::all,
        changes::of_collection,
        live::upgrade,
        erasure::erase,
        erasure::all,
        erasure::one,
        sessions::session,
        state::status,
        state::peers,
        state::link,
        state::digests,
        state::quarantine,
        state::verify,
        state::keys,
        state::rotate_keys,
        state::invites,
        access::caller,
        access::list,
        access::add,
        access::one,
        access::remove,
        access::grants,
        access::members,
        access::tokens,
        access::password,
        access::certificates,
        access::identities,
        access::list_roles,
        access::add_role,
        access::statement,
        access::can,
        access::release,
        authors::list,
        authors::approvals,
        authors::approve,
        authors::withdraw,
        authors::rotate,
        authors::replacement,
        authors::author,
        authors::basis,
        authors::succeed,
        witness::list,
        witness::appoint,
        witness::witness,
        audit::entries,
        audit::tail,
        audit::status,
        audit::verify,
        audit::proof,
        audit::why,
        state::live,
        state::ready,
        state::metrics,
        state::openapi,
        state::docs,
    ),
    tags(
        (name = "documents", description = "Reading and writing documents"),
        (name = "collections", description = "What documents are to look like, and how they merge"),
        (name = "queries", description = "Finding documents by what is in them"),
        (name = "history", description = "What documents were"),
        (name = "changes", description = "Following what is committed"),
        (name = "sessions", description = "Seeing on one node what was seen on another"),
        (name = "access", description = "Who may do what, and the keys that sign it"),
        (name = "audit", description = "Who did what, and what was denied"),
        (name = "erasures", description = "Removing what documents said from every disk"),
        (name = "state", description = "The node, its peers and its data"),
        (name = "health", description = "For balancers, without a token"),
    ),
    security(("bearer" = [])),
    modifiers(&Bearer),
)]
struct Description;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
        openapi.components.get_or_insert_default().add_security_scheme("bearer", scheme);
    }
}

/// An operation of the description.
struct Operation<'a> {
    /// In lower case, as the description has it.
    method: &'a str,
    /// The template.
    path: &'a str,
    value: &'a mut Value,
}

/// The description. It is the same for all, so it is made once.
static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let mut document = serde_json::to_value(Description::openapi()).unwrap_or_default();
    answers::components(&mut document["components"]);
    for (_, parameter) in document["components"]["parameters"].as_object_mut().into_iter().flatten() {
        parameters::one("", parameter);
    }
    for (path, methods) in document["paths"].as_object_mut().into_iter().flatten() {
        for (method, value) in methods.as_object_mut().into_iter().flatten() {
            let mut operation = Operation { method, path, value };
            sentences(operation.value);
            // Of the names of functions some are the same.
            operation.value["operationId"] = name(method, path).into();
            answers::complete(&mut operation);
            parameters::complete(&mut operation);
            examples::complete(&mut operation);
        }
    }
    document
});

/// Returns the name of an operation, by which programs that are made of the description call it.
fn name(method: &str, path: &str) -> String {
    let words = path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty() && *word != "v1");
    std::iter::once(method).chain(words).collect::<Vec<_>>().join("_")
}

/// Makes the first sentence the summary and the others the description: the comments that they come from are broken into lines anywhere.
fn sentences(operation: &mut Value) {
    let text = |name: &str| operation[name].as_str().unwrap_or_default().replace('\n', " ");
    let whole = format!("{} {}", text("summary"), text("description"));
    let (first, rest) = whole.trim().split_once(". ").unwrap_or((whole.trim(), ""));
    let (first, rest) = (format!("{}.", first.trim_end_matches('.')), rest.trim().to_owned());
    operation["summary"] = first.into();
    if rest.is_empty() {
        operation.as_object_mut().map(|operation| operation.remove("description"));
    } else {
        operation["description"] = rest.into();
    }
}

/// Returns the description.
pub(super) fn document() -> &'static Value {
    &DOCUMENT
}

/// Says what of an answer the description does not have.
#[cfg(test)]
pub(super) fn undescribed(
    method: &http::Method,
    route: &str,
    answer: &http::response::Parts,
    code: &str,
) -> Option<String> {
    use http::Method;
    use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, CONTENT_TYPE, VARY};

    let method = if *method == Method::HEAD { "get".to_owned() } else { method.as_str().to_lowercase() };
    let response = &DOCUMENT["paths"][route][method]["responses"][answer.status.as_str()];
    if response.is_null() {
        return Some(format!("{} is not described", answer.status));
    }
    // Of pages of other origins, and of every answer with a body.
    let of_all = [CONTENT_TYPE, VARY, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS];
    let described = |name: &http::HeaderName| {
        let names = response["headers"].as_object().into_iter().flatten();
        of_all.contains(name) || names.into_iter().any(|(known, _)| known.eq_ignore_ascii_case(name.as_str()))
    };
    if let Some(name) = answer.headers.keys().find(|name| !described(name)) {
        return Some(format!("{}: the header {name} is not described", answer.status));
    }
    let content_type = answer.headers.get(CONTENT_TYPE)?;
    let content_type = content_type.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    let content = &response["content"][content_type];
    if content.is_null() {
        return Some(format!("{}: {content_type} is not described", answer.status));
    }
    let codes = content["schema"]["properties"]["code"]["enum"].as_array();
    codes
        .filter(|codes| !codes.iter().any(|known| known == code))
        .map(|_| format!("{}: the code {code} is not described", answer.status))
}
