//! Differences between two sequences of symbols, with bounded cost.
//!
//! Source: E. Myers, "An O(ND) difference algorithm and its variations", 1986. Where that would cost too much, the
//! symbols that occur once on both sides are the fixed points (Bram Cohen's "patience diff").

use std::collections::BTreeMap;
use std::ops::Range;

/// Most differences that Myers' algorithm looks for; its trace takes the square of it in words of 4 bytes.
const DIFFERENCES_MAX: usize = 1_000;
/// Most comparisons of symbols, about 20 ms. Long runs of one symbol come to (length × differences).
const COMPARISONS_MAX: usize = 20_000_000;

/// A place where the sequences differ: `base` is replaced by `given`; one of them may be empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::document) struct Hunk {
    pub(in crate::document) base: Range<usize>,
    pub(in crate::document) given: Range<usize>,
}

/// Returns where the sequences differ, in order; never hunks that touch each other on both sides.
pub(in crate::document) fn diff(base: &[u32], given: &[u32]) -> Vec<Hunk> {
    exact(base, given).unwrap_or_else(|| by_anchors(base, given))
}

/// Returns the smallest difference; `None` if to find it would cost too much.
pub(super) fn exact(base: &[u32], given: &[u32]) -> Option<Vec<Hunk>> {
    let (prefix, suffix) = ends(base, given);
    let matches = myers(&base[prefix..base.len() - suffix], &given[prefix..given.len() - suffix])?;
    let mut hunks = Hunks::default();
    hunks.matched(0, 0, prefix);
    for (in_base, in_given, length) in matches {
        hunks.matched(in_base + prefix, in_given + prefix, length);
    }
    Some(hunks.finish(base.len(), given.len(), suffix))
}

/// Lengths of the common beginning and of the common end of the rest.
pub(super) fn ends(base: &[u32], given: &[u32]) -> (usize, usize) {
    let prefix = base.iter().zip(given).take_while(|(a, b)| a == b).count();
    let rest = base[prefix..].iter().rev().zip(given[prefix..].iter().rev());
    (prefix, rest.take_while(|(a, b)| a == b).count())
}

/// Collects what is equal, in order, and turns it into what is not.
#[derive(Default)]
struct Hunks {
    hunks: Vec<Hunk>,
    base: usize,
    given: usize,
}

impl Hunks {
    fn matched(&mut self, base: usize, given: usize, length: usize) {
        if length == 0 {
            return;
        }
        self.gap(base, given);
        (self.base, self.given) = (base + length, given + length);
    }

    fn gap(&mut self, base: usize, given: usize) {
        if base > self.base || given > self.given {
            self.hunks.push(Hunk { base: self.base..base, given: self.given..given });
        }
    }

    fn finish(mut self, base: usize, given: usize, suffix: usize) -> Vec<Hunk> {
        self.gap(base - suffix, given - suffix);
        self.hunks
    }
}

/// Returns the runs that match, as (index in base, index in given, length) in order.
fn myers(base: &[u32], given: &[u32]) -> Option<Vec<(usize, usize, usize)>> {
    let (n, m) = (base.len(), given.len());
    if n == 0 || m == 0 {
        return Some(Vec::new());
    }
    let differences_max = (n + m).min(DIFFERENCES_MAX);
    // `furthest[k + offset]` is how far in `base` the best path on diagonal k (base − given) has come.
    let offset = differences_max + 1;
    let mut furthest = vec![0_usize; 2 * offset + 1];
    let mut trace: Vec<Vec<u32>> = Vec::new();
    let mut comparisons = 0;
    for d in 0..=differences_max {
        for step in 0..=d {
            // Diagonal k = 2·step − d, kept as an index that cannot be negative.
            let k = offset + 2 * step - d;
            let mut x = if step == 0 || (step != d && furthest[k - 1] < furthest[k + 1]) {
                furthest[k + 1]
            } else {
                furthest[k - 1] + 1
            };
            // y = x − k; a path that left the square on one side is kept, and matches nothing.
            let Some(mut y) = (x + offset).checked_sub(k) else { continue };
            while x < n && y < m && base[x] == given[y] {
                x += 1;
                y += 1;
                comparisons += 1;
            }
            furthest[k] = x;
            if x >= n && y >= m {
                trace.push(snapshot(&furthest, offset, d));
                return Some(backtrack(&trace, n, m));
            }
        }
        comparisons += d;
        if comparisons > COMPARISONS_MAX {
            return None;
        }
        trace.push(snapshot(&furthest, offset, d));
    }
    None
}

#[expect(clippy::cast_possible_truncation, reason = "texts and lists are far below 2³² elements")]
fn snapshot(furthest: &[usize], offset: usize, d: usize) -> Vec<u32> {
    furthest[offset - d..=offset + d].iter().map(|x| *x as u32).collect()
}

/// Follows the trace back from the end; `trace[d][k + d]` is how far diagonal k had come with d differences.
fn backtrack(trace: &[Vec<u32>], n: usize, m: usize) -> Vec<(usize, usize, usize)> {
    let mut matches = Vec::new();
    let (mut x, mut y) = (n, m);
    for d in (1..trace.len()).rev() {
        let k = x.cast_signed() - y.cast_signed();
        let (before, signed_d) = (d - 1, d.cast_signed());
        let down = k == -signed_d || (k != signed_d && reached(trace, before, k - 1) < reached(trace, before, k + 1));
        let from_k = if down { k + 1 } else { k - 1 };
        let from_x = reached(trace, before, from_k);
        let from_y = (from_x.cast_signed() - from_k).cast_unsigned();
        let (start_x, start_y) = if down { (from_x, from_y + 1) } else { (from_x + 1, from_y) };
        matches.push((start_x, start_y, x - start_x));
        (x, y) = (from_x, from_y);
    }
    matches.push((0, 0, x));
    matches.reverse();
    matches
}

/// How far a diagonal had come; 0 for one that was not reached yet, as in the search forwards.
fn reached(trace: &[Vec<u32>], d: usize, k: isize) -> usize {
    let index = k + d.cast_signed();
    usize::try_from(index).ok().and_then(|index| trace[d].get(index)).map_or(0, |x| *x as usize)
}

/// A difference that costs O(n log n): symbols that occur once on both sides and keep their order stay.
pub(super) fn by_anchors(base: &[u32], given: &[u32]) -> Vec<Hunk> {
    let unique = |symbols: &[u32]| {
        let mut places: BTreeMap<u32, Option<usize>> = BTreeMap::new();
        for (place, symbol) in symbols.iter().enumerate() {
            places.entry(*symbol).and_modify(|seen| *seen = None).or_insert(Some(place));
        }
        places
    };
    let in_given = unique(given);
    let mut common: Vec<(usize, usize)> =
        unique(base).into_iter().filter_map(|(symbol, place)| Some((place?, (*in_given.get(&symbol)?)?))).collect();
    common.sort_unstable();
    let (prefix, suffix) = ends(base, given);
    let mut hunks = Hunks::default();
    hunks.matched(0, 0, prefix);
    let (base_end, given_end) = (base.len() - suffix, given.len() - suffix);
    for (in_base, in_given) in longest_ascending(&common) {
        if in_base < hunks.base || in_given < hunks.given || in_base >= base_end || in_given >= given_end {
            continue;
        }
        // Let the match grow to both sides, over symbols that are not unique.
        let before = base[hunks.base..in_base].iter().rev().zip(given[hunks.given..in_given].iter().rev());
        let before = before.take_while(|(a, b)| a == b).count();
        let after = base[in_base..base_end].iter().zip(&given[in_given..given_end]).take_while(|(a, b)| a == b).count();
        hunks.matched(in_base - before, in_given - before, before + after);
    }
    hunks.finish(base.len(), given.len(), suffix)
}

/// The longest subsequence whose second parts ascend too; the first parts ascend already.
fn longest_ascending(pairs: &[(usize, usize)]) -> Vec<(usize, usize)> {
    // `ends[l]` is the pair that ends the best run of length l + 1; `before[i]` the one before pair i in its run.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(pairs.len());
    for (at, (_, given)) in pairs.iter().enumerate() {
        let length = ends.partition_point(|end| pairs[*end].1 < *given);
        before.push(length.checked_sub(1).map(|last| ends[last]));
        if length == ends.len() {
            ends.push(at);
        } else {
            ends[length] = at;
        }
    }
    let mut run = Vec::with_capacity(ends.len());
    let mut next = ends.last().copied();
    while let Some(at) = next {
        run.push(pairs[at]);
        next = before[at];
    }
    run.reverse();
    run
}
