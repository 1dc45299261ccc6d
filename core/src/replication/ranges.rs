//! Range-based set reconciliation over the heads of a shard: where two replicas differ, found in a few rounds for a few
//! hundred bytes a difference, however many streams are equal.
//!
//! The asker names ranges of stream ids and what it has in each: a fingerprint, or, of few items, one short hash each. The
//! other side answers for each range that it is equal, with fingerprints of parts of it, or with the lines that the asker
//! lacks. It keeps nothing between two answers, so a session costs it no memory and may move or end at any time.
//!
//! All hashes are salted by the asker, freshly for each session: who crafts streams whose plain digests collide knows no salt.
//!
//! Source: Meyer, "Range-Based Set Reconciliation", SRDS 2023 (arXiv:2212.13567); the fingerprints follow negentropy.

use std::ops::Bound;

use super::digest::{HeadState, ShardDigest};
use super::frame::{HeadLine, HeadLines, ItemHashes, RangeHas, RangePart, RangeSays, RangeWanted, RangesAsk, Sum};
use super::heads::Shard;
use super::limits as bounds;
use super::mutant::{Mutant, planted};
use crate::hash::{Domain, hash};
use crate::id::{Salt, StreamId};

/// Where a range of stream ids ends: before an id, or nowhere.
pub(super) type End = Option<StreamId>;

/// Heads in the order of their streams.
pub(super) trait Items {
    /// Returns the heads from `lower` on, before `upper`.
    fn between(&self, lower: StreamId, upper: End) -> impl Iterator<Item = (StreamId, HeadState)>;
}

impl Items for Shard {
    fn between(&self, lower: StreamId, upper: End) -> impl Iterator<Item = (StreamId, HeadState)> {
        let upper = upper.map(|upper| upper.max(lower));
        self.streams
            .range((Bound::Included(lower), upper.map_or(Bound::Unbounded, Bound::Excluded)))
            .filter_map(|(stream, held)| Some((*stream, held.state()?)))
    }
}

/// Returns the hash of an item under a salt.
fn salted(salt: &Salt, stream: &StreamId, state: &HeadState) -> [u8; 32] {
    hash(Domain::HeadDigest, &[b"salted", salt.as_bytes(), &state.entry(stream)])
}

fn first_8(bytes: &[u8; 32]) -> u64 {
    u64::from_le_bytes(*bytes.first_chunk().unwrap_or(&[0; 8]))
}

/// Returns the fingerprint of a sum.
fn fingerprint(salt: &Salt, sum: &ShardDigest) -> Sum {
    let parts: [&[u8]; 4] = [b"range", salt.as_bytes(), &sum.to_bytes(), &sum.count().to_le_bytes()];
    Sum { fingerprint: first_8(&hash(Domain::HeadDigest, &parts)), count: sum.count() }
}

/// Returns the shortest edge that lies after `before` and not after `next`: the ids are hashes, so a few bytes are enough.
fn edge(before: &StreamId, next: &StreamId) -> StreamId {
    let shared = before.as_bytes().iter().zip(next.as_bytes()).take_while(|(a, b)| a == b).count();
    let mut bytes = [0; StreamId::LEN];
    for (to, from) in bytes.iter_mut().zip(next.as_bytes()).take(shared + 1) {
        *to = *from;
    }
    StreamId::new(bytes)
}

/// A part of a range, with what is in it.
struct Part {
    upper: End,
    sum: Sum,
}

/// Cuts a range that holds `count` items into at most `parts` parts of equal size.
fn split(items: &impl Items, salt: &Salt, range: (StreamId, End), count: u64, parts: u64) -> Vec<Part> {
    let size = count.div_ceil(parts.max(1)).max(1);
    let mut out = Vec::new();
    let mut sum = ShardDigest::default();
    let mut before = range.0;
    for (stream, state) in items.between(range.0, range.1) {
        if sum.count() == size {
            out.push(Part { upper: Some(edge(&before, &stream)), sum: fingerprint(salt, &sum) });
            sum = ShardDigest::default();
        }
        sum.add(&salted(salt, &stream, &state));
        before = stream;
    }
    out.push(Part { upper: range.1, sum: fingerprint(salt, &sum) });
    out
}

fn sum_of(items: &impl Items, salt: &Salt, range: (StreamId, End)) -> Sum {
    let mut sum = ShardDigest::default();
    items.between(range.0, range.1).for_each(|(stream, state)| sum.add(&salted(salt, &stream, &state)));
    fingerprint(salt, &sum)
}

// ---- answering ----

/// What an answer cost.
pub(super) struct Answered {
    pub(super) parts: Vec<RangePart>,
    /// Items that were hashed.
    pub(super) hashed: u64,
}

/// Answers a question. The parts lie in the order of the ranges and cover each from its beginning on; what no part covers
/// did not fit, and is asked for again.
pub(super) fn answer(items: &impl Items, ask: &RangesAsk) -> Answered {
    let mut out = Answered { parts: Vec::new(), hashed: 0 };
    let mut lines = 0;
    for wanted in &ask.ranges {
        if lines >= bounds::HEADS_PAGE_MAX || out.parts.len() + bounds::RANGE_SPLIT > bounds::RANGE_PARTS_MAX {
            break;
        }
        let range = (wanted.lower.0, wanted.upper.end());
        match &wanted.has {
            RangeHas::Sum(theirs) => {
                let ours = sum_of(items, &ask.salt, range);
                out.hashed += ours.count;
                if ours == *theirs {
                    out.push(range.1, RangeSays::Equal(()));
                } else if ours.count <= bounds::RANGE_LINES {
                    lines += out.list(items, range, usize::MAX, |_, _| true);
                } else {
                    out.hashed += ours.count;
                    for part in split(items, &ask.salt, range, ours.count, bounds::RANGE_SPLIT as u64) {
                        out.push(part.upper, RangeSays::Sum(part.sum));
                    }
                }
            }
            RangeHas::Items(theirs) => {
                let mut hashed = 0;
                lines += out.list(items, range, bounds::HEADS_PAGE_MAX - lines, |stream, state| {
                    hashed += 1;
                    theirs.0.is_empty() || !theirs.0.contains(&first_8(&salted(&ask.salt, stream, state)))
                });
                out.hashed += hashed;
            }
        }
    }
    out
}

impl Answered {
    fn push(&mut self, upper: End, says: RangeSays) {
        self.parts.push(RangePart { upper: upper.into(), says });
    }

    /// Lists the items of a range that are wanted, as far as `room` goes; returns how many lines that made.
    fn list(
        &mut self,
        items: &impl Items,
        range: (StreamId, End),
        room: usize,
        mut is_wanted: impl FnMut(&StreamId, &HeadState) -> bool,
    ) -> usize {
        let mut lines: Vec<HeadLine> = Vec::new();
        let mut before = range.0;
        for (stream, state) in items.between(range.0, range.1) {
            if lines.len() >= room {
                let count = lines.len();
                self.push(Some(edge(&before, &stream)), RangeSays::Lines(HeadLines(lines)));
                return count;
            }
            if is_wanted(&stream, &state) {
                lines.push(HeadLine::new(stream, &state));
            }
            before = stream;
        }
        let count = lines.len();
        self.push(range.1, RangeSays::Lines(HeadLines(lines)));
        count
    }
}

// ---- asking ----

/// A range to be asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Todo {
    lower: StreamId,
    upper: End,
    /// Answers that led to it.
    depth: u8,
}

/// A session, on the side that asks.
#[derive(Debug)]
pub(super) struct Session {
    salt: Salt,
    /// What is left, the next at the end: deepest first, so that little is left open at any time.
    todo: Vec<Todo>,
    /// What was asked.
    asked: Vec<Todo>,
    questions: u32,
}

/// An answer that no correct peer gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct NoAnswer;

impl Session {
    /// Begins a session over a whole shard.
    pub(super) fn new(items: &impl Items, salt: Salt) -> Self {
        let mut session = Self { salt, todo: Vec::new(), asked: Vec::new(), questions: 0 };
        let whole = Todo { lower: StreamId::ZERO, upper: None, depth: 0 };
        let count = items.between(StreamId::ZERO, None).count() as u64;
        session.push_parts(items, &whole, count, bounds::RANGES_ASK_MAX as u64);
        session
    }

    /// Returns whether nothing is left to ask.
    pub(super) const fn is_done(&self) -> bool {
        self.todo.is_empty() && self.asked.is_empty()
    }

    /// Returns how many ranges are left to ask.
    pub(super) const fn open(&self) -> usize {
        self.todo.len() + self.asked.len()
    }

    /// Pushes a range in parts whose items can be named one by one, or in `parts` parts if that does not do.
    fn push_parts(&mut self, items: &impl Items, range: &Todo, count: u64, parts: u64) {
        let parts = count.div_ceil(bounds::RANGE_ITEMS_MAX as u64).clamp(1, parts);
        let mut lower = range.lower;
        let mut edges = Vec::new();
        let size = count.div_ceil(parts).max(1);
        let mut before = range.lower;
        for (index, (stream, _)) in (0_u64..).zip(items.between(range.lower, range.upper)) {
            if index > 0 && index.checked_rem(size) == Some(0) {
                edges.push(Some(edge(&before, &stream)));
            }
            before = stream;
        }
        edges.push(range.upper);
        let from = self.todo.len();
        for upper in edges {
            self.todo.push(Todo { lower, upper, depth: range.depth });
            lower = upper.unwrap_or(lower);
        }
        if let Some(added) = self.todo.get_mut(from..) {
            added.reverse();
        }
    }

    /// Returns the ranges of the next question; `None` if nothing is left, or the session has gone on for too long.
    pub(super) fn next(&mut self, items: &impl Items) -> Option<(Salt, Vec<RangeWanted>)> {
        if self.todo.is_empty() || !self.asked.is_empty() || self.questions >= bounds::RANGE_QUESTIONS_MAX {
            return None;
        }
        self.questions += 1;
        let from = self.todo.len().saturating_sub(bounds::RANGES_ASK_MAX);
        self.asked = self.todo.split_off(from);
        self.asked.reverse();
        // At first most ranges are equal, so that naming their items would be a waste.
        let is_whole = self.asked.len() == 1;
        let ranges = self.asked.iter().map(|todo| {
            let named_max = if is_whole || todo.depth > 0 { bounds::RANGE_ITEMS_MAX } else { 0 };
            let has = self.has(items, (todo.lower, todo.upper), named_max);
            RangeWanted { lower: todo.lower.into(), upper: todo.upper.into(), has }
        });
        Some((self.salt, ranges.collect()))
    }

    /// Says what is in a range: item by item, if there are at most `named_max`.
    fn has(&self, items: &impl Items, range: (StreamId, End), named_max: usize) -> RangeHas {
        let mut few: Vec<u64> = Vec::new();
        let mut sum = ShardDigest::default();
        for (stream, state) in items.between(range.0, range.1) {
            let hash = salted(&self.salt, &stream, &state);
            if few.len() <= named_max {
                few.push(first_8(&hash));
            }
            sum.add(&hash);
        }
        if few.len() <= named_max {
            RangeHas::Items(ItemHashes(few))
        } else {
            RangeHas::Sum(fingerprint(&self.salt, &sum))
        }
    }

    /// Takes an answer; returns the lines in it. An answer without parts ends the session.
    ///
    /// # Errors
    /// [`NoAnswer`] if it does not fit the question.
    pub(super) fn take(&mut self, items: &impl Items, parts: &[RangePart]) -> Result<Vec<HeadLine>, NoAnswer> {
        let asked = std::mem::take(&mut self.asked);
        if parts.is_empty() {
            self.todo.clear();
            return Ok(Vec::new());
        }
        let mut lines: Vec<HeadLine> = Vec::new();
        let mut differ: Vec<(Todo, u64)> = Vec::new();
        let mut rest: Vec<Todo> = Vec::new();
        let mut parts = parts.iter();
        for mut todo in asked {
            let mut is_covered = false;
            while !is_covered && let Some(part) = parts.next() {
                let upper = part.upper.end();
                let is_within = upper.is_none_or(|upper| upper > todo.lower)
                    && todo.upper.is_none_or(|end| upper.is_some_and(|upper| upper <= end));
                if !is_within {
                    return Err(NoAnswer);
                }
                match &part.says {
                    RangeSays::Equal(()) => {}
                    RangeSays::Sum(theirs) => {
                        if todo.depth >= bounds::RANGE_DEPTH_MAX {
                            return Err(NoAnswer);
                        }
                        let ours = sum_of(items, &self.salt, (todo.lower, upper));
                        if ours != *theirs {
                            differ.push((Todo { lower: todo.lower, upper, depth: todo.depth + 1 }, ours.count));
                        }
                    }
                    RangeSays::Lines(HeadLines(listed)) => {
                        let is_sound = listed.is_sorted_by(|a, b| a.stream < b.stream)
                            && listed.first().is_none_or(|first| first.stream >= todo.lower)
                            && listed.last().is_none_or(|last| upper.is_none_or(|upper| last.stream < upper));
                        if !is_sound {
                            return Err(NoAnswer);
                        }
                        if !planted(Mutant::LinesForgotten) {
                            lines.extend(listed);
                        }
                    }
                }
                is_covered = upper == todo.upper;
                todo.lower = upper.unwrap_or(todo.lower);
            }
            if !is_covered {
                rest.push(todo);
            }
        }
        if parts.next().is_some() {
            return Err(NoAnswer);
        }
        self.todo.extend(rest.into_iter().rev());
        // Cut further at once, unless that would leave too much open.
        let parts = if differ.len() * bounds::RANGE_SPLIT <= bounds::RANGE_PARTS_MAX { bounds::RANGE_SPLIT } else { 1 };
        for (todo, count) in differ.into_iter().rev() {
            self.push_parts(items, &todo, count, parts as u64);
        }
        Ok(lines)
    }
}
