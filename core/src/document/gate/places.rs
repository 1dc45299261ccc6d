//! Where in a document the operations of a change lie.
//!
//! The place of an operation is the path of its object and the key that it writes, with [`ANY`] for a position in a list or a
//! text. The path of an object is fixed by the operations that made it and those around it: nothing moves, so the path can be told
//! from the ancestors of a change alone, whatever others have deleted or put in conflict with it since.

use std::borrow::Cow;
use std::collections::BTreeMap;

#[cfg(doc)]
use crate::op::ANY;

/// An operation, as far as it tells where it lies. `K` names operations.
pub(in crate::document) struct Located<'a, K> {
    /// Its object; none is the root.
    pub(in crate::document) object: Option<K>,
    /// The key that it writes, or [`ANY`].
    pub(in crate::document) step: &'a str,
    /// Its own name, if it makes an object.
    pub(in crate::document) makes: Option<K>,
}

/// Tells the places of the operations of a change, in their order, once where neighbours share one. `outside` returns the path of
/// an object that the change does not make. Returns whether all places are known and `visit` was content with each.
pub(in crate::document) fn all_places<'a, K: Ord>(
    operations: impl Iterator<Item = Located<'a, K>>,
    mut outside: impl FnMut(&K) -> Option<Vec<String>>,
    mut visit: impl FnMut(&[Cow<'a, str>]) -> bool,
) -> bool {
    let mut paths: BTreeMap<K, Vec<Cow<'a, str>>> = BTreeMap::new();
    // The object before, and the place there; it is told again only if it is another.
    let mut last: Option<(Option<K>, Vec<Cow<'a, str>>)> = None;
    for Located { object, step, makes } in operations {
        let is_same_object = last.as_ref().is_some_and(|(before, _)| *before == object);
        let is_same = is_same_object && last.as_ref().and_then(|(_, place)| place.last()).is_some_and(|s| s == step);
        if !is_same {
            let mut place = match (&object, last.take()) {
                (_, Some((_, mut place))) if is_same_object => {
                    place.pop();
                    place
                }
                (None, _) => Vec::new(),
                (Some(id), _) => match paths.get(id) {
                    Some(path) => path.clone(),
                    None => {
                        let Some(path) = outside(id) else { return false };
                        path.into_iter().map(Cow::Owned).collect()
                    }
                },
            };
            place.push(Cow::Borrowed(step));
            if !visit(&place) {
                return false;
            }
            last = Some((object, place));
        }
        if let (Some(made), Some((_, place))) = (makes, &last) {
            paths.insert(made, place.clone());
        }
    }
    true
}
