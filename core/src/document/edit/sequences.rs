//! Lists and texts of a plan.

use std::collections::BTreeMap;

use automerge::{ObjId, ObjType, Prop, ReadDoc, ValueRef, hydrate};

use super::align::{Element, Pair, align};
use super::error::EditError;
use super::path::Path;
use super::plan::{Intent, Item, Planner, Register, Seen, element};
use super::positions::{Positions, places};
use super::sequence::{self, Hunk};
use super::step::{Step, TextSplice};
use super::typed;
use super::types::Place;
use crate::document::json::Value;

/// What a plan does at one place of a list.
enum ListStep {
    Splice { index: usize, delete: usize, insert: Vec<hydrate::Value> },
    Edit { base: usize, given: usize, index: usize },
}

/// Elements that go and come between two that stay.
#[derive(Default)]
struct Gap {
    removed: Vec<usize>,
    added: Vec<hydrate::Value>,
}

impl Gap {
    /// Adds the steps of the gap in ascending order of their places. What is added goes to `index`, which is not
    /// behind anything that is removed.
    fn flush(&mut self, index: usize, steps: &mut Vec<ListStep>) {
        let added = std::mem::take(&mut self.added);
        let mut removed = std::mem::take(&mut self.removed).into_iter().peekable();
        let mut run = |from: usize| {
            let mut length = 0;
            while removed.next_if_eq(&(from + length)).is_some() {
                length += 1;
            }
            (length, removed.peek().copied())
        };
        let (delete, mut next) = run(index);
        if delete > 0 || !added.is_empty() {
            steps.push(ListStep::Splice { index, delete, insert: added });
        }
        while let Some(index) = next {
            let (delete, after) = run(index);
            steps.push(ListStep::Splice { index, delete, insert: Vec::new() });
            next = after;
        }
    }
}

impl<'a, D: ReadDoc> Planner<'a, D> {
    pub(super) fn put_list(
        &mut self,
        list: &ObjId,
        seen: &Seen,
        given: &[Value],
        place: &Place<'_>,
        path: Path<'_>,
    ) -> Result<(), EditError> {
        // Of a list that the writer had not seen, the current elements are what is replaced.
        let base = if *seen == Seen::AtBase { self.base } else { None };
        let items: Vec<Item<'a>> = match base {
            None => self.doc.list_range(list, ..).map(Item::Element).collect(),
            Some(base) => self.doc.list_range_at(list, .., base).map(Item::Element).collect(),
        };
        let start = items.iter().zip(given).take_while(|(item, given)| self.reads(item, base, given)).count();
        if start == items.len() && start == given.len() {
            return Ok(());
        }
        let values: Vec<Value> = items[start..].iter().map(|item| self.value(item, base)).collect();
        let pairs = align(&values, &given[start..], |at| match items[start + at].value() {
            ValueRef::Object(ObjType::Text) => Element::Text,
            ValueRef::Object(ObjType::Map | ObjType::Table | ObjType::List) | ValueRef::Scalar(_) => Element::Plain,
        });
        let positions = match base {
            None => Positions::Same,
            Some(base) => Positions::Moved(places(self.doc, list, base)?),
        };
        let steps = self.list_steps(list, &pairs, start, &items, &positions, given, place, path)?;
        for step in steps.into_iter().rev() {
            match step {
                ListStep::Splice { index, delete, insert } => {
                    self.budget.operations(delete, path)?;
                    self.steps.push(Step::SpliceList { list: list.clone(), index, delete, insert });
                }
                ListStep::Edit { base: at, given: to, index } => {
                    let Some(item) = element(self.doc, list, index, None) else { continue };
                    let seen = match base {
                        None => Seen::Current,
                        Some(_) if items[at].id() == item.id() => Seen::AtBase,
                        Some(_) => Seen::Nothing,
                    };
                    let register = Register { object: list, prop: Prop::Seq(index), item: &item, seen };
                    self.put_value(&register, &given[to], &place.index(to), Path::Index(&path, to), Intent::Restate)?;
                }
            }
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "the inner part of put_list, with its state")]
    fn list_steps(
        &mut self,
        list: &ObjId,
        pairs: &[Pair],
        start: usize,
        items: &[Item<'a>],
        positions: &Positions,
        given: &[Value],
        place: &Place<'_>,
        path: Path<'_>,
    ) -> Result<Vec<ListStep>, EditError> {
        let mut steps = Vec::new();
        let mut gap = Gap::default();
        // The gap lies behind the element before this one.
        let mut next = start;
        for pair in pairs {
            match *pair {
                Pair::Keep { base } => {
                    gap.flush(positions.gap_before(next), &mut steps);
                    next = start + base + 1;
                }
                Pair::Edit { base, given: to } => {
                    let (base, to) = (start + base, start + to);
                    match positions.now(base) {
                        Some(index) => {
                            gap.flush(positions.gap_before(next), &mut steps);
                            next = base + 1;
                            steps.push(ListStep::Edit { base, given: to, index });
                        }
                        // Somebody deleted what this writer changed: the change is kept as a new element.
                        None => gap.added.push(self.element(&given[to], to, place, path)?),
                    }
                }
                Pair::Remove { base } => {
                    let base = start + base;
                    if let Some(index) = positions.now(base) {
                        if self.is_as_seen(list, index, &items[base], positions) {
                            gap.removed.push(index);
                        } else {
                            gap.flush(positions.gap_before(next), &mut steps);
                            next = base + 1;
                        }
                    }
                }
                Pair::Add { given: to } => {
                    let to = start + to;
                    gap.added.push(self.element(&given[to], to, place, path)?);
                }
            }
        }
        gap.flush(positions.gap_before(next), &mut steps);
        Ok(steps)
    }

    fn element(
        &mut self,
        value: &Value,
        index: usize,
        place: &Place<'_>,
        path: Path<'_>,
    ) -> Result<hydrate::Value, EditError> {
        typed::stored(value, &place.index(index), Path::Index(&path, index), self.budget)
    }

    /// Returns whether an element still has the value that the writer had seen: an overwritten one is not deleted.
    fn is_as_seen(&self, list: &ObjId, index: usize, seen: &Item<'_>, positions: &Positions) -> bool {
        match positions {
            Positions::Same => true,
            Positions::Moved(_) => element(self.doc, list, index, None).is_some_and(|item| item.id() == seen.id()),
        }
    }

    pub(super) fn put_text(&mut self, text: &ObjId, seen: &Seen, given: &str, path: Path<'_>) -> Result<(), EditError> {
        let base = if *seen == Seen::AtBase { self.base } else { None };
        let before = match base {
            None => self.doc.text(text)?,
            Some(base) => self.doc.text_at(text, base)?,
        };
        if before == given {
            return Ok(());
        }
        let (before_points, given_points) = (code_points(&before), code_points(given));
        let hunks = text_diff(&before, given, &before_points, &given_points);
        let positions = match base {
            None => Positions::Same,
            Some(base) => Positions::Moved(places(self.doc, text, base)?),
        };
        let mut splices = Vec::new();
        for hunk in hunks.iter().rev() {
            let insert: String = given_points[hunk.given.clone()].iter().filter_map(|c| char::from_u32(*c)).collect();
            self.budget.bytes(insert.len(), path)?;
            self.budget.operations(hunk.base.len() + hunk.given.len(), path)?;
            // From the end: what is still there of the replaced, in runs, then what is inserted in front of it.
            let index = positions.gap_before(hunk.base.start);
            let mut pending = TextSplice { index, delete: 0, insert };
            for place in hunk.base.clone().rev().filter_map(|at| positions.now(at)) {
                match splices.last_mut() {
                    Some(TextSplice { index, delete, insert }) if *index == place + 1 && insert.is_empty() => {
                        *index = place;
                        *delete += 1;
                    }
                    Some(_) | None => splices.push(TextSplice { index: place, delete: 1, insert: String::new() }),
                }
            }
            if splices.last().is_some_and(|last| last.index == index && last.insert.is_empty()) {
                pending.delete = splices.pop().map_or(0, |last| last.delete);
            }
            splices.push(pending);
        }
        let expected = base.is_none().then(|| given.to_owned());
        self.steps.push(Step::SpliceText { text: text.clone(), splices, expected });
        Ok(())
    }
}

fn code_points(text: &str) -> Vec<u32> {
    text.chars().map(u32::from).collect()
}

/// Differences in code points; where there are very many, in whole lines with common ends.
fn text_diff(base: &str, given: &str, base_points: &[u32], given_points: &[u32]) -> Vec<Hunk> {
    if let Some(hunks) = sequence::exact(base_points, given_points) {
        return hunks;
    }
    let mut known: BTreeMap<&str, u32> = BTreeMap::new();
    let mut lines = |text| -> (Vec<u32>, Vec<usize>) {
        let (mut symbols, mut starts, mut at) = (Vec::new(), vec![0], 0);
        for line in str::split_inclusive(text, '\n') {
            let next = u32::try_from(known.len()).unwrap_or(u32::MAX);
            symbols.push(*known.entry(line).or_insert(next));
            at += line.chars().count();
            starts.push(at);
        }
        (symbols, starts)
    };
    let ((base_lines, base_starts), (given_lines, given_starts)) = (lines(base), lines(given));
    let hunks = sequence::diff(&base_lines, &given_lines).into_iter().map(|hunk| {
        let base = base_starts[hunk.base.start]..base_starts[hunk.base.end];
        let given = given_starts[hunk.given.start]..given_starts[hunk.given.end];
        let (prefix, suffix) = sequence::ends(&base_points[base.clone()], &given_points[given.clone()]);
        Hunk { base: base.start + prefix..base.end - suffix, given: given.start + prefix..given.end - suffix }
    });
    hunks.collect()
}
