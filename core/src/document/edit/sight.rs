//! The indices of a writer who had seen an older version, in the current one.
//!
//! A list of operations speaks of sequences as the writer sees them: as they were at the base, with the writer's own
//! operations applied, and nobody else's. Each sequence that is touched gets a view, one slot an element.

use std::collections::BTreeMap;

use automerge::transaction::{Transactable, Transaction};
use automerge::{ChangeHash, ObjId, ObjType, Prop, ReadDoc, ValueRef, hydrate};

use super::error::{EditError, EditErrorKind};
use super::live::{Container, child};
use super::patch::index_of;
use super::plan::{Item, element, entry};
use super::positions::places;

/// Most slots that one edit may touch, about 0.1 s. Each operation looks at those of its whole sequence.
const SLOTS_MAX: usize = 50_000_000;

pub(super) struct Sight<'a> {
    base: Option<&'a [ChangeHash]>,
    views: BTreeMap<ObjId, Vec<Slot>>,
    touched: usize,
}

/// An element as the writer sees it.
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Its index at the base; none if an operation of this edit made it.
    base: Option<usize>,
    /// Its index now; none if somebody else deleted it.
    now: Option<usize>,
}

impl<'a> Sight<'a> {
    /// `base` is `None` if the writer had seen the current version.
    pub(super) fn new(base: Option<&'a [ChangeHash]>) -> Self {
        Self { base, views: BTreeMap::new(), touched: 0 }
    }

    /// Returns what a step of a pointer leads to.
    pub(super) fn find<'t>(
        &mut self,
        tx: &'t Transaction<'_>,
        container: &Container,
        step: &str,
    ) -> Result<Option<(Prop, Item<'t>)>, EditError> {
        if !container.is_list() || !self.is_behind(container) {
            return Ok(child(tx, container, step));
        }
        let Some(index) = index_of(step) else { return Ok(None) };
        let Some(place) = self.place(tx, container, index)? else { return Ok(None) };
        Ok(element(tx, &container.object, place, None).map(|item| (Prop::Seq(place), item)))
    }

    /// Returns the object that a step leads to, if it is one.
    pub(super) fn below(
        &mut self,
        tx: &Transaction<'_>,
        container: &Container,
        step: &str,
    ) -> Result<Option<Container>, EditError> {
        let Some((_, item)) = self.find(tx, container, step)? else { return Ok(None) };
        let ValueRef::Object(kind) = item.value() else { return Ok(None) };
        let object = item.id();
        let seen = container.seen && self.was_at_base(tx, container, step, &object)?;
        Ok(Some(Container { object, kind: *kind, seen }))
    }

    fn was_at_base(
        &mut self,
        tx: &Transaction<'_>,
        container: &Container,
        step: &str,
        object: &ObjId,
    ) -> Result<bool, EditError> {
        let Some(base) = self.base else { return Ok(true) };
        let before = if container.is_list() {
            let index = match index_of(step) {
                Some(index) => self.view(tx, container)?.get(index).and_then(|slot| slot.base),
                None => None,
            };
            index.and_then(|index| element(tx, &container.object, index, Some(base)))
        } else {
            entry(tx, &container.object, step, Some(base))
        };
        Ok(before.is_some_and(|before| before.id() == *object))
    }

    /// Returns how long the writer sees the sequence.
    pub(super) fn length(&mut self, tx: &Transaction<'_>, sequence: &Container) -> Result<usize, EditError> {
        if self.is_behind(sequence) { Ok(self.view(tx, sequence)?.len()) } else { Ok(tx.length(&sequence.object)) }
    }

    /// Inserts into a list.
    pub(super) fn insert(
        &mut self,
        tx: &mut Transaction<'_>,
        list: &Container,
        index: usize,
        values: Vec<hydrate::Value>,
    ) -> Result<(), EditError> {
        let count = values.len();
        let place = self.gap(tx, list, index)?;
        tx.splice(&list.object, place, 0, values)?;
        self.inserted(tx, list, index, place, count)
    }

    /// Inserts into a text.
    pub(super) fn insert_text(
        &mut self,
        tx: &mut Transaction<'_>,
        text: &Container,
        index: usize,
        insert: &str,
    ) -> Result<(), EditError> {
        let place = self.gap(tx, text, index)?;
        tx.splice_text(&text.object, place, 0, insert)?;
        self.inserted(tx, text, index, place, insert.chars().count())
    }

    /// Removes elements or code points. What others removed already is gone.
    pub(super) fn remove(
        &mut self,
        tx: &mut Transaction<'_>,
        sequence: &Container,
        index: usize,
        count: usize,
    ) -> Result<(), EditError> {
        if !self.is_behind(sequence) {
            return remove_run(tx, sequence, index, count);
        }
        let view = self.view(tx, sequence)?;
        let end = view.len().min(index.saturating_add(count));
        let removed: Vec<Slot> = view.drain(index.min(end)..end).collect();
        let mut gone = 0;
        for place in removed.iter().filter_map(|slot| slot.now) {
            remove_run(tx, sequence, place - gone, 1)?;
            gone += 1;
        }
        for slot in view.iter_mut().skip(index) {
            slot.now = slot.now.map(|place| place - gone);
        }
        Ok(())
    }

    /// The writer's indices are not the current ones.
    fn is_behind(&self, sequence: &Container) -> bool {
        self.base.is_some() && sequence.seen
    }

    fn view(&mut self, tx: &Transaction<'_>, sequence: &Container) -> Result<&mut Vec<Slot>, EditError> {
        let base = self.base.unwrap_or_default();
        if !self.views.contains_key(&sequence.object) {
            let places = places(tx, &sequence.object, base)?;
            let slots = places.into_iter().enumerate().map(|(index, now)| Slot { base: Some(index), now });
            self.views.insert(sequence.object.clone(), slots.collect());
        }
        let view = self.views.entry(sequence.object.clone()).or_default();
        self.touched += view.len();
        if self.touched > SLOTS_MAX {
            let reason = "the edit has too many operations on long sequences of an older version";
            return Err(EditError::new(EditErrorKind::TooLarge, "", reason)
                .hint("read the document again and make the edit anew"));
        }
        Ok(view)
    }

    /// Returns where the element is now; `None` if it was deleted.
    fn place(&mut self, tx: &Transaction<'_>, sequence: &Container, index: usize) -> Result<Option<usize>, EditError> {
        Ok(self.view(tx, sequence)?.get(index).and_then(|slot| slot.now))
    }

    /// Returns where to insert in front of the element: behind the nearest one before it that is still there.
    fn gap(&mut self, tx: &Transaction<'_>, sequence: &Container, index: usize) -> Result<usize, EditError> {
        if !self.is_behind(sequence) {
            return Ok(index);
        }
        let view = self.view(tx, sequence)?;
        let before = view.iter().take(index).rev().find_map(|slot| slot.now);
        Ok(before.map_or(0, |place| place + 1))
    }

    /// Notes `count` own elements that were inserted at a current place.
    fn inserted(
        &mut self,
        tx: &Transaction<'_>,
        sequence: &Container,
        index: usize,
        place: usize,
        count: usize,
    ) -> Result<(), EditError> {
        if self.is_behind(sequence) {
            let view = self.view(tx, sequence)?;
            for slot in view.iter_mut().skip(index) {
                slot.now = slot.now.map(|now| now + count);
            }
            let at = index.min(view.len());
            view.splice(at..at, (place..place + count).map(|now| Slot { base: None, now: Some(now) }));
        }
        Ok(())
    }
}

fn remove_run(tx: &mut Transaction<'_>, sequence: &Container, index: usize, count: usize) -> Result<(), EditError> {
    if sequence.kind == ObjType::Text {
        tx.splice_text(&sequence.object, index, count.cast_signed(), "")?;
    } else {
        tx.splice(&sequence.object, index, count.cast_signed(), Vec::<hydrate::Value>::new())?;
    }
    Ok(())
}
