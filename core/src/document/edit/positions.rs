//! Where the elements of a list or text that a writer had seen are now.

use std::collections::BTreeMap;

use automerge::{ChangeHash, ObjId, ReadDoc};

use super::error::EditError;

/// Current places of the elements of a sequence as it was at the base, by their index there.
pub(super) enum Positions {
    /// The base is the current version.
    Same,
    /// `None` for an element that is gone. Elements keep their order, so the places ascend.
    Moved(Vec<Option<usize>>),
}

impl Positions {
    /// Returns where the element is now.
    pub(super) fn now(&self, index: usize) -> Option<usize> {
        match self {
            Self::Same => Some(index),
            Self::Moved(places) => places.get(index).copied().flatten(),
        }
    }

    /// Returns where to insert what comes before the base element `index`: behind the nearest one before it that is
    /// still there.
    pub(super) fn gap_before(&self, index: usize) -> usize {
        match self {
            Self::Same => index,
            Self::Moved(places) => {
                places.get(..index).unwrap_or(places).iter().rev().find_map(|place| *place).map_or(0, |place| place + 1)
            }
        }
    }
}

/// Returns the current places of the elements (code points of a text) that the sequence had at `base`.
pub(super) fn places<D: ReadDoc>(
    doc: &D,
    sequence: &ObjId,
    base: &[ChangeHash],
) -> Result<Vec<Option<usize>>, EditError> {
    let (length, length_now) = (doc.length_at(sequence, base), doc.length(sequence));
    let before: Vec<ObjId> = doc.list_range_at(sequence, .., base).map(|item| item.id()).collect();
    let now: Vec<ObjId> = doc.list_range(sequence, ..).map(|item| item.id()).collect();
    // A text of another program may have elements of several code points; then only the cursors tell.
    let by_ids = before.len() == length && now.len() == length_now;
    let mut places = vec![None; length];
    let mut unmatched_now: Vec<usize> = Vec::new();
    if by_ids {
        let known: BTreeMap<&ObjId, usize> = before.iter().enumerate().map(|(index, id)| (id, index)).collect();
        for (place, id) in now.iter().enumerate() {
            match known.get(id).and_then(|index| places.get_mut(*index)) {
                Some(slot) => *slot = Some(place),
                None => unmatched_now.push(place),
            }
        }
    } else {
        unmatched_now.extend(0..length_now);
    }
    // An element that was overwritten since has another id, but still its cursor. Cursors of elements that are gone
    // are never looked up: the place that Automerge tells for them is not dependable at the end of a sequence.
    let mut cursors = BTreeMap::new();
    for place in unmatched_now {
        cursors.insert(doc.get_cursor(sequence, place, None)?.to_bytes(), place);
    }
    if !cursors.is_empty() {
        for (index, place) in places.iter_mut().enumerate().filter(|(_, place)| place.is_none()) {
            *place = cursors.get(&doc.get_cursor(sequence, index, Some(base))?.to_bytes()).copied();
        }
    }
    Ok(places)
}
