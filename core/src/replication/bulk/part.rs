//! Parts of a shard: what one peer is asked for while others are asked for the rest.

use serde::{Deserialize, Serialize};

use super::super::limits as bounds;
use crate::hash::{Domain, hash};
use crate::id::DocId;

/// Documents whose id hashes to `index` modulo `of`, a power of two.
///
/// By hashes rather than by ranges of ids, since nobody knows where the middle of a range of ids is without a look at all of
/// them; hashes halve any set of ids.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Part {
    index: u8,
    of: u8,
}

impl Part {
    /// All documents.
    pub const WHOLE: Self = Self { index: 0, of: 1 };

    /// Returns whether the numbers are in bounds.
    #[must_use]
    pub const fn is_valid(self) -> bool {
        self.of.is_power_of_two() && self.of <= bounds::BULK_PARTS_MAX && self.index < self.of
    }

    /// Returns whether a document belongs to it.
    #[must_use]
    pub fn holds(self, doc: &DocId) -> bool {
        let [first, ..] = hash(Domain::Placement, &[b"part", doc.as_str().as_bytes()]);
        self.of == 1 || first % self.of == self.index
    }

    /// Returns its halves, which have nothing in common; none if it is as small as parts get.
    pub(super) const fn halves(self) -> Option<[Self; 2]> {
        let of = self.of.saturating_mul(2);
        let second = Self { index: self.index.saturating_add(self.of), of };
        if second.is_valid() { Some([Self { index: self.index, of }, second]) } else { None }
    }

    /// Returns into how many such parts the documents fall.
    pub(super) const fn of(self) -> u8 {
        self.of
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_have_all_of_a_part_and_nothing_in_common() {
        let mut parts = vec![Part::WHOLE];
        while let Some(halves) = parts[0].halves() {
            parts.remove(0);
            parts.extend(halves);
        }
        assert_eq!(parts.len(), usize::from(bounds::BULK_PARTS_MAX));
        let mut counts = vec![0; parts.len()];
        for number in 0..4_000 {
            let doc = format!("d{number}").parse().unwrap();
            let holders: Vec<usize> = (0..parts.len()).filter(|at| parts[*at].holds(&doc)).collect();
            assert_eq!(holders.len(), 1, "{doc}");
            counts[holders[0]] += 1;
        }
        assert!(counts.iter().all(|count| (150..350).contains(count)), "{counts:?}");
    }

    #[test]
    fn only_powers_of_two_are_valid() {
        let valid = |index, of| Part { index, of }.is_valid();
        assert!(valid(0, 1) && valid(15, 16) && valid(1, 2));
        assert!(!valid(0, 0) && !valid(1, 1) && !valid(0, 3) && !valid(0, 32) && !valid(16, 16));
    }
}
