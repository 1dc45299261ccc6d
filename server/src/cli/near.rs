//! What was meant by a name that nothing has.

use std::time::Duration;

use folkmoot::api::Database as _;
use folkmoot::{Client, CollectionName, Error, ErrorCode};

/// How long the node is asked for other names: the answer to the command is there already.
const ASK_TIME_MAX: Duration = Duration::from_millis(1_000);

/// Adds the name of the collection that was probably meant to an error that says that something is not there. The node names
/// only those that the caller may see.
pub(super) async fn collection(client: &Client, error: Error, named: Option<CollectionName>) -> Error {
    let is_missing = matches!(error.code(), ErrorCode::CollectionNotFound | ErrorCode::DocumentNotFound);
    let Some(named) = named.filter(|_| is_missing) else { return error };
    let Ok(Ok(all)) = tokio::time::timeout(ASK_TIME_MAX, client.collections()).await else { return error };
    // It is there, and so it was the document that is not.
    if all.iter().any(|info| info.name == named) {
        return error;
    }
    match nearest(named.as_str(), all.iter().map(|info| info.name.as_str())) {
        Some(name) => error.hint(format!("there is no collection {named}; did you mean {name}?")),
        None => error,
    }
}

/// Returns the name that is nearest to one, if it is near enough: a slip in every third letter, at the most.
fn nearest<'a>(name: &str, others: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let far = name.chars().count().div_ceil(3);
    let distances = others.map(|other| (strsim::damerau_levenshtein(name, other), other));
    distances.filter(|(distance, _)| *distance <= far).min().map(|(_, other)| other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_near_is_meant() {
        let names = ["cities", "people", "notes"];
        let of = |name| nearest(name, names.into_iter());
        assert_eq!(of("citeis"), Some("cities"));
        assert_eq!(of("city"), None);
        assert_eq!(of("citys"), Some("cities"));
        assert_eq!(of("note"), Some("notes"));
        assert_eq!(of("x"), None);
        assert_eq!(of("peolpe"), Some("people"));
    }
}
