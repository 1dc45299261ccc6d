//! A campaign of inputs against the gate: round after round, each a function of the seed and its number.
//!
//! A round takes one of many documents and offers it changes one after the other: bytes at random, valid changes with
//! damage to their bytes, columns or operations, and a few valid ones. What is admitted stays, so that later inputs meet a document
//! that hostile hands have shaped.

use automerge::transaction::Transactable;
use automerge::{ObjType, ROOT, ReadDoc};

use super::dice::Dice;
use super::mutate::{self, Known};
use super::{assert_sound, library};
use crate::document::gate::prescan;
use crate::document::{Admission, Candidate, Document};
use crate::id::ActorId;
use crate::op::WriteAction;

/// Inputs of one round.
pub const INPUTS_PER_ROUND: u64 = 64;
/// Of so many admitted changes, one is followed by the long check of the document; all are followed by the short one.
const LONG_CHECK_EVERY: u64 = 16;

/// What the gate said to an input.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Answer {
    /// It is in the document.
    Admitted,
    /// It was there before.
    Known,
    /// It waits for another change.
    Missing,
    /// It breaks a rule.
    Bad,
    /// Automerge did not take it.
    Held,
}

/// The documents of a campaign.
pub struct Campaign {
    documents: Vec<Document>,
}

impl Default for Campaign {
    fn default() -> Self {
        Self::new()
    }
}

impl Campaign {
    /// Makes the documents.
    #[must_use]
    pub fn new() -> Self {
        Self { documents: library::documents() }
    }

    /// Returns how many documents there are.
    #[must_use]
    pub const fn documents(&self) -> usize {
        self.documents.len()
    }

    /// Begins a round.
    #[must_use]
    pub fn round(&self, seed: u64, number: u64) -> Round {
        let mut dice = Dice::new(seed, number);
        let document = dice.pick(&self.documents).cloned().unwrap_or_default();
        let known = known(&document);
        Round { dice, document, known, valid: Vec::new(), admitted: 0 }
    }
}

/// A document and what is offered to it.
pub struct Round {
    dice: Dice,
    document: Document,
    known: Known,
    /// Valid changes, some of them to the document as it was.
    valid: Vec<Vec<u8>>,
    admitted: u64,
}

impl Round {
    /// Makes the next input.
    #[must_use]
    pub fn next_input(&mut self) -> Vec<u8> {
        let is_new = self.valid.len() < 4 || self.dice.chance(8);
        if is_new && let Some(bytes) = self.make_valid() {
            self.valid.push(bytes);
        }
        let valid = match self.dice.chance(70) {
            true => self.valid.last(),
            false => self.dice.pick(&self.valid),
        };
        let valid = valid.cloned().unwrap_or_default();
        let other = self.dice.pick(&self.valid).cloned().unwrap_or_default();
        match self.dice.below(20) {
            _ if valid.is_empty() => self.dice.bytes(60),
            0 => valid,
            1..=7 => mutate::bytes(&mut self.dice, &valid, &other),
            8..=12 => mutate::columns(&mut self.dice, &valid, &other),
            _ => mutate::operations(&mut self.dice, &valid, &self.known),
        }
    }

    /// Offers an input to the gate and checks the document.
    ///
    /// # Panics
    /// If the document came to harm: a refused change left something behind, an admitted one is not given back as it was, or
    /// the document does not save, load and take further changes.
    pub fn offer(&mut self, bytes: &[u8]) -> Answer {
        // Whoever is said to have written it may have: what matters here comes after that check.
        let (actor, action) = prescan(bytes).map_or((ActorId::ZERO, WriteAction::Update), |scan| {
            (scan.actor, if scan.deps.is_empty() { WriteAction::Create } else { WriteAction::Update })
        });
        let before = self.document.heads().to_vec();
        let answers = self.document.admit(&[Candidate { bytes, actor, action, fields: None }]);
        let answer = match answers.as_slice() {
            [Admission::Admitted(hash)] => {
                assert_eq!(self.document.change_bytes(hash).as_deref(), Some(bytes), "other bytes came back");
                self.admitted += 1;
                if self.admitted % LONG_CHECK_EVERY == 1 {
                    assert_sound(&self.document);
                } else {
                    self.document.snapshot().expect("the document can be saved and loaded");
                }
                self.known = known(&self.document);
                return Answer::Admitted;
            }
            [Admission::Known(_)] => Answer::Known,
            [Admission::MissingDeps(_)] => Answer::Missing,
            [Admission::Bad(_)] => Answer::Bad,
            [Admission::Held(_)] => Answer::Held,
            _ => unreachable!("one candidate, one answer"),
        };
        assert_eq!(self.document.heads(), before, "a refused change left something behind");
        answer
    }

    /// Checks the document as it is at the end of a round.
    ///
    /// # Panics
    /// If it came to harm.
    pub fn end(&self) {
        assert_sound(&self.document);
    }

    /// Makes an edit as an honest author would, without taking it in.
    fn make_valid(&mut self) -> Option<Vec<u8>> {
        let mut copy = self.document.clone();
        let by = 100 + self.dice.byte() % 4;
        let (what, n) = (self.dice.below(10), self.dice.bits());
        let edit = copy.local_edit(&ActorId::new([by; 16]), |tx| {
            let n = n.cast_signed() >> 40;
            let keys: Vec<String> = tx.keys(ROOT).collect();
            let nth = usize::try_from(n.unsigned_abs()).unwrap_or(0).checked_rem(keys.len()).unwrap_or(0);
            let key = keys.get(nth).map_or("k", String::as_str);
            let object = tx.get(ROOT, key)?.map(|(value, id)| (value.to_objtype(), id));
            match (what, object) {
                (0, _) => {
                    let list = tx.put_object(ROOT, "new", ObjType::List)?;
                    (0..5).try_for_each(|i| tx.insert(&list, i, n + i64::try_from(i).unwrap_or(0)))
                }
                (1, _) => {
                    let text = tx.put_object(ROOT, "text", ObjType::Text)?;
                    tx.splice_text(&text, 0, 0, "some text")
                }
                (2, _) => tx.delete(ROOT, key),
                (3..=6, Some((Some(ObjType::Text), text))) => tx.splice_text(&text, 0, 0, "more"),
                (3..=6, Some((Some(ObjType::List), list))) => tx.insert(&list, 0, n),
                (3..=6, Some((Some(ObjType::Map), map))) => tx.put(&map, "inner", n),
                _ => tx.put(ROOT, key, n),
            }
        });
        Some(edit.ok()?.0?.bytes.to_vec())
    }
}

fn known(document: &Document) -> Known {
    let metas = document.full().get_changes_meta(&[]);
    Known {
        heads: document.full().get_heads(),
        top: metas.iter().map(|meta| meta.max_op).max().unwrap_or(0),
        changes: metas.iter().map(|m| (m.actor.clone().into_owned(), m.seq, m.start_op, m.max_op)).collect(),
    }
}
