//! The description of the API, generated from the handlers and their types.

use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::{
    access, audit, authors, bulk, changes, collections, documents, erasure, history, live, queries, sessions, state,
    witness,
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

/// Returns the description.
pub(super) fn document() -> utoipa::openapi::OpenApi {
    Description::openapi()
}
