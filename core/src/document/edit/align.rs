//! Which element of a list became which: equal elements stay, similar ones are edited in place, the rest comes and goes.

use std::collections::BTreeMap;

use super::sequence::{self, Hunk};
use crate::document::json::Value;

/// Most comparisons of elements in one hunk. Above it nobody changed a list by hand, and elements are paired in order.
const COMPARISONS_MAX: usize = 10_000;
/// Similarity from which an object, array or mergeable text counts as the same element with another content.
const SIMILAR: u32 = 25;
const SAME: u32 = 100;

/// What becomes of the elements, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::document) enum Pair {
    Keep { base: usize },
    Edit { base: usize, given: usize },
    Remove { base: usize },
    Add { given: usize },
}

/// How an element of the base merges.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::document) enum Element {
    Plain,
    Text,
}

/// Aligns two lists. `element` tells how an element of `base` merges, which the value does not show.
pub(in crate::document) fn align(base: &[Value], given: &[Value], element: impl Fn(usize) -> Element) -> Vec<Pair> {
    let (base_symbols, given_symbols) = symbols(base, given);
    let hunks = sequence::diff(&base_symbols, &given_symbols);
    let mut pairs = Vec::with_capacity(base.len().max(given.len()));
    let mut kept = 0;
    for hunk in hunks {
        pairs.extend((kept..hunk.base.start).map(|base| Pair::Keep { base }));
        kept = hunk.base.end;
        replace(base, given, &hunk, &element, &mut pairs);
    }
    pairs.extend((kept..base.len()).map(|base| Pair::Keep { base }));
    pairs
}

/// Gives equal values equal numbers.
fn symbols(base: &[Value], given: &[Value]) -> (Vec<u32>, Vec<u32>) {
    let mut known: BTreeMap<&Value, u32> = BTreeMap::new();
    let mut number = |value| {
        let next = u32::try_from(known.len()).unwrap_or(u32::MAX);
        *known.entry(value).or_insert(next)
    };
    let base = base.iter().map(&mut number).collect();
    (base, given.iter().map(number).collect())
}

fn replace(base: &[Value], given: &[Value], hunk: &Hunk, element: &impl Fn(usize) -> Element, pairs: &mut Vec<Pair>) {
    let (rows, columns) = (hunk.base.len(), hunk.given.len());
    let score = |row: usize, column: usize| {
        let (at, to) = (hunk.base.start + row, hunk.given.start + column);
        let score = similarity(&base[at], &given[to], element(at), rows == columns && row == column);
        if score >= SIMILAR { score } else { 0 }
    };
    let mut matched = vec![None; rows];
    if rows * columns > COMPARISONS_MAX {
        for (row, to) in matched.iter_mut().enumerate().take(columns) {
            *to = (score(row, row) > 0).then_some(row);
        }
    } else if rows > 0 && columns > 0 {
        best_matches(rows, columns, score, &mut matched);
    }
    let mut next = 0;
    for (row, to) in matched.iter().enumerate() {
        let base = hunk.base.start + row;
        match to {
            Some(column) => {
                pairs.extend((next..*column).map(|column| Pair::Add { given: hunk.given.start + column }));
                pairs.push(Pair::Edit { base, given: hunk.given.start + column });
                next = column + 1;
            }
            None => pairs.push(Pair::Remove { base }),
        }
    }
    pairs.extend((next..columns).map(|column| Pair::Add { given: hunk.given.start + column }));
}

/// Finds the order-keeping matches with the greatest sum of scores (Needleman and Wunsch, without a price for gaps).
fn best_matches(rows: usize, columns: usize, score: impl Fn(usize, usize) -> u32, matched: &mut [Option<usize>]) {
    let width = columns + 1;
    let mut scores = vec![0_u32; rows * columns];
    let mut best = vec![0_u32; (rows + 1) * width];
    for row in (0..rows).rev() {
        for column in (0..columns).rev() {
            let here = score(row, column);
            scores[row * columns + column] = here;
            let taken = if here > 0 { here + best[(row + 1) * width + column + 1] } else { 0 };
            best[row * width + column] =
                taken.max(best[(row + 1) * width + column]).max(best[row * width + column + 1]);
        }
    }
    let (mut row, mut column) = (0, 0);
    while row < rows && column < columns {
        let here = scores[row * columns + column];
        let total = best[row * width + column];
        if here > 0 && total == here + best[(row + 1) * width + column + 1] {
            matched[row] = Some(column);
            row += 1;
            column += 1;
        } else if total == best[(row + 1) * width + column] {
            row += 1;
        } else {
            column += 1;
        }
    }
}

/// How much an element looks like another, 0 to [`SAME`].
///
/// A number, boolean or null is a slot (a coordinate, a flag): in a replacement of equally many it keeps its place. A
/// plain string is an item (a tag, a name): two writers who replace it by different ones both keep theirs.
fn similarity(base: &Value, given: &Value, element: Element, same_place: bool) -> u32 {
    match (base, given) {
        (Value::Map(a), Value::Map(b)) => {
            for id in ["id", "_id", "key"] {
                if let (Some(a), Some(b)) = (a.get(id), b.get(id)) {
                    return if a == b { SAME } else { 0 };
                }
            }
            let shared = a.keys().filter(|key| b.contains_key(*key)).count();
            let equal = a.iter().filter(|(key, value)| b.get(*key) == Some(*value)).count();
            let all = a.len() + b.len() - shared;
            ratio(2 * equal + shared, 3 * all)
        }
        (Value::List(a), Value::List(b)) => {
            let equal = a.iter().zip(b).filter(|(a, b)| a == b).count();
            if same_place { SAME } else { ratio(equal, a.len().max(b.len())) }
        }
        (Value::String(a), Value::String(b)) if element == Element::Text => {
            let prefix = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
            let suffix = a.bytes().skip(prefix).rev().zip(b.bytes().skip(prefix).rev()).take_while(|(a, b)| a == b);
            if same_place { SAME } else { ratio(prefix + suffix.count(), a.len().max(b.len())) }
        }
        (
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::Float(_),
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::Float(_),
        ) if same_place => SIMILAR,
        _ => 0,
    }
}

fn ratio(part: usize, of: usize) -> u32 {
    u32::try_from(part.saturating_mul(SAME as usize).checked_div(of).unwrap_or(SAME as usize)).unwrap_or(SAME)
}
