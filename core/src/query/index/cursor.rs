//! Reading an index in order.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};

use super::definition::Definition;
use super::delta::Delta;
use super::run::{Entry, Run};
use crate::replica::ReadError;
use crate::store::{Read, Span};

/// Entries taken from the newest changes at once, while they are held fast.
const DELTA_PIECE: usize = 256;

/// A part of an index: the entries from `from` on and before `before`; to the end if there is none.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(in crate::query) struct Interval {
    pub(in crate::query) from: Vec<u8>,
    pub(in crate::query) before: Option<Vec<u8>>,
}

/// Returns the first bytes behind all that begin with these.
pub(in crate::query) fn behind_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    Span::prefix(prefix).into_end()
}

impl Interval {
    /// All entries whose key begins so.
    pub(in crate::query) fn prefix(prefix: Vec<u8>) -> Self {
        let before = behind_prefix(&prefix);
        Self { from: prefix, before }
    }

    pub(in crate::query) fn contains(&self, full: &[u8]) -> bool {
        *full >= *self.from && self.before.as_deref().is_none_or(|before| full < before)
    }
}

/// Blocks by their runs, with their numbers.
pub(super) type Blocks = RefCell<BTreeMap<u64, (usize, Arc<[Entry]>)>>;

/// An index at the moment of a snapshot.
pub(in crate::query) struct IndexView {
    pub(in crate::query) definition: Arc<Definition>,
    pub(super) runs: Vec<Arc<Run>>,
    pub(super) delta: Arc<RwLock<Delta>>,
    /// Whether some document has several entries.
    pub(in crate::query) is_multiple: bool,
    /// Whether some document is to be looked at always.
    pub(in crate::query) has_always: bool,
    /// The last block that was read of each run.
    pub(super) blocks: Blocks,
}

impl IndexView {
    fn block(&self, store: &dyn Read, run: &Run, number: usize) -> Result<Arc<[Entry]>, ReadError> {
        if let Some((at, block)) = self.blocks.borrow().get(&run.record.id)
            && *at == number
        {
            return Ok(block.clone());
        }
        let block: Arc<[Entry]> = run.block(store, number)?.into();
        self.blocks.borrow_mut().insert(run.record.id, (number, block.clone()));
        Ok(block)
    }

    /// Returns how many entries lie in these parts: about, if they are many.
    pub(in crate::query) fn estimate(&self, store: &dyn Read, intervals: &[Interval]) -> Result<u64, ReadError> {
        const COUNTED_MAX: usize = 4_096;
        // What is read for that is read again by the query.
        const BLOCKS_COUNTED_MAX: usize = 2;
        const INTERVALS_COUNTED_MAX: usize = 4;
        let delta = self.delta.read().unwrap_or_else(PoisonError::into_inner);
        let mut entries = 0;
        for interval in intervals {
            let (from, before) = (&*interval.from, interval.before.as_deref());
            entries += delta.count(from, before, COUNTED_MAX);
            for run in &self.runs {
                let blocks = run.blocks(from, before);
                if blocks.len() > BLOCKS_COUNTED_MAX || intervals.len() > INTERVALS_COUNTED_MAX {
                    entries += run.estimate(blocks.len());
                    continue;
                }
                for number in blocks {
                    let block = self.block(store, run, number)?;
                    entries += block.iter().filter(|entry| interval.contains(&entry.full)).count() as u64;
                }
            }
        }
        Ok(entries)
    }

    /// Returns the entries of a part in order. Some of them may be of an earlier moment: a document has an entry still if it stands in the
    /// feed where the entry says.
    pub(in crate::query) fn entries<'a>(&'a self, store: &'a dyn Read, interval: &Interval) -> Entries<'a> {
        let mut sources: Vec<Source<'a>> = Vec::with_capacity(self.runs.len() + 1);
        for run in &self.runs {
            let next_block = run.block_at(&interval.from);
            sources.push(Source { of: Of::Run { view: self, run, next_block }, ready: VecDeque::new() });
        }
        let from = Bound::Included((interval.from.clone(), 0));
        sources.push(Source { of: Of::Delta { delta: &self.delta, from, is_over: false }, ready: VecDeque::new() });
        Entries { store, interval: interval.clone(), sources }
    }

    /// Returns the last entry of a part.
    pub(in crate::query) fn last(&self, store: &dyn Read, interval: &Interval) -> Result<Option<Entry>, ReadError> {
        let before = interval.before.as_deref();
        let mut last = {
            let delta = self.delta.read().unwrap_or_else(PoisonError::into_inner);
            delta.last(&interval.from, before)
        };
        for run in &self.runs {
            let Some(number) = run.blocks(&interval.from, before).end.checked_sub(1) else { continue };
            // What is first in it is before the end, so something is.
            let block = self.block(store, run, number)?;
            let of_run = block.iter().rev().find(|entry| interval.contains(&entry.full));
            if of_run > last.as_ref() {
                last = of_run.cloned();
            }
        }
        Ok(last)
    }
}

/// Entries of a part of an index, in order.
pub(in crate::query) struct Entries<'a> {
    store: &'a dyn Read,
    interval: Interval,
    sources: Vec<Source<'a>>,
}

struct Source<'a> {
    of: Of<'a>,
    ready: VecDeque<Entry>,
}

enum Of<'a> {
    Run { view: &'a IndexView, run: &'a Run, next_block: usize },
    Delta { delta: &'a RwLock<Delta>, from: Bound<(Vec<u8>, u64)>, is_over: bool },
}

impl Source<'_> {
    /// Reads on, until something is ready or all is read.
    fn fill(&mut self, store: &dyn Read, interval: &Interval) -> Result<(), ReadError> {
        while self.ready.is_empty() {
            match &mut self.of {
                Of::Run { view, run, next_block } => {
                    let is_over = match (run.fences.get(*next_block), &interval.before) {
                        (None, _) => true,
                        (Some(fence), Some(before)) => **fence >= **before,
                        (Some(_), None) => false,
                    };
                    if is_over {
                        return Ok(());
                    }
                    let block = view.block(store, run, *next_block)?;
                    *next_block += 1;
                    self.ready.extend(block.iter().filter(|entry| interval.contains(&entry.full)).cloned());
                }
                Of::Delta { is_over: true, .. } => return Ok(()),
                Of::Delta { delta, from, is_over } => {
                    let delta = delta.read().unwrap_or_else(PoisonError::into_inner);
                    let piece = delta.some(from, interval.before.as_deref(), DELTA_PIECE);
                    *is_over = piece.len() < DELTA_PIECE;
                    if let Some(last) = piece.last() {
                        *from = Bound::Excluded((last.full.clone(), last.feed));
                    }
                    self.ready.extend(piece);
                }
            }
        }
        Ok(())
    }
}

impl Entries<'_> {
    fn read(&mut self) -> Result<Option<Entry>, ReadError> {
        let mut least: Option<(usize, &Entry)> = None;
        for source in &mut self.sources {
            source.fill(self.store, &self.interval)?;
        }
        for (n, source) in self.sources.iter().enumerate() {
            let Some(entry) = source.ready.front() else { continue };
            if least.is_none_or(|(_, least)| entry < least) {
                least = Some((n, entry));
            }
        }
        let Some(n) = least.map(|(n, _)| n) else { return Ok(None) };
        Ok(self.sources.get_mut(n).and_then(|source| source.ready.pop_front()))
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}
