//! Changes that were made elsewhere, or before the document was loaded.

use super::decode::{Decoder, Written};
use super::encode::{Head, Place, Ref, action};
use super::nested::Application;
use super::tree::{Id, Op, ROOT, Tree, Where};
use crate::document::gate::{Located, Scan, all_places};
use crate::limits;
use crate::op::{ANY, FieldPaths};

/// A change that was read and is not yet in a tree.
pub(super) struct Incoming<'a> {
    scan: &'a Scan,
    bytes: &'a [u8],
    decoder: Decoder<'a>,
    operations: Vec<Written<'a>>,
}

/// What came of offering a change to a tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Taken {
    /// The tree holds it.
    Yes,
    /// It is not for this tree, which is as before.
    No,
    /// It is not for this tree, which is of no use any more.
    Spoilt,
}

impl<'a> Incoming<'a> {
    /// Reads a change; none if it has what no tree holds.
    pub(super) fn read(scan: &'a Scan, bytes: &'a [u8]) -> Option<Self> {
        if scan.ops == 0 || scan.ops > limits::CHANGE_OPS_MAX {
            return None;
        }
        let mut decoder = Decoder::new(scan, bytes)?;
        let mut operations = Vec::with_capacity(usize::try_from(scan.ops).ok()?.min(64));
        for _ in 0..scan.ops {
            let written = decoder.next()?;
            let is_new = |object: Ref| object.actor == 0 && object.counter >= decoder.start_op;
            // Lists and texts that were there before are not edited here.
            if matches!(written.place, Place::Behind(_)) && !written.object.is_some_and(is_new) {
                return None;
            }
            operations.push(written);
        }
        Some(Self { scan, bytes, decoder, operations })
    }

    /// Returns whether it comes right after all that a tree holds.
    fn follows(&self, tree: &Tree, own: u32) -> bool {
        let start_op = self.decoder.start_op;
        tree.writers.get(own as usize).is_some_and(|writer| writer.seq.checked_add(1) == Some(self.scan.seq))
            && start_op == tree.top.saturating_add(1)
            && tree.next_deps(own) == self.scan.deps
    }

    /// Puts the change into a tree, if it is one that the gate admits, if need be within the fields that it declares, and that
    /// leaves nothing but what a tree holds.
    pub(super) fn put_into(&self, tree: &mut Tree, fields: Option<&FieldPaths>) -> Taken {
        let Some(own) = tree.enter(&self.scan.actor) else { return Taken::No };
        if !self.follows(tree, own) {
            return Taken::No;
        }
        let Some(operations) = self.translated(tree, own) else { return Taken::No };
        let Some((columns, others)) = tree.columns(own, &operations) else { return Taken::No };
        let start_op = self.decoder.start_op;
        if fields.is_some_and(|fields| !lie_within(tree, own, start_op, &operations, fields)) {
            return Taken::No;
        }
        let head =
            Head { deps: &self.scan.deps, actor: &self.scan.actor, seq: self.scan.seq, start_op, others: &others };
        // The first eight bytes are the magic and the checksum, which the scan has compared.
        if columns.unhashed(&head).get(8..) != self.bytes.get(8..) {
            return Taken::No;
        }
        let mut application = Application::new(own, start_op);
        for operation in &operations {
            if application.carry_out(tree, operation).is_none() {
                return Taken::Spoilt;
            }
        }
        application.finish(tree);
        tree.follow(own, self.scan.hash, start_op + (operations.len() as u64 - 1));
        Taken::Yes
    }

    /// Names operations as the tree does.
    fn translated(&self, tree: &Tree, own: u32) -> Option<Vec<Op<'_>>> {
        let writers = self.decoder.others.iter().map(|actor| tree.writer_of(actor)).collect::<Option<Vec<_>>>()?;
        let id = |reference: Ref| {
            let writer = match reference.actor.checked_sub(1) {
                None => own,
                Some(other) => *writers.get(usize::try_from(other).ok()?)?,
            };
            (reference.counter > 0).then_some(Id { counter: reference.counter, writer })
        };
        let operations = self.operations.iter().map(|written| {
            let place = match written.place {
                Place::Key(key) => Where::Key(key.into()),
                Place::Behind(None) => Where::Behind(None),
                Place::Behind(Some(element)) => Where::Behind(Some(id(element)?)),
            };
            let object = match written.object {
                None => ROOT,
                Some(object) => id(object)?,
            };
            let predecessor = match written.predecessor {
                None => None,
                Some(predecessor) => Some(id(predecessor)?),
            };
            Some(Op { object, place, action: written.action, value: written.value.clone(), predecessor })
        });
        operations.collect()
    }
}

/// Returns whether all operations of a change write at or below some fields.
fn lie_within(tree: &Tree, own: u32, start_op: u64, operations: &[Op<'_>], fields: &FieldPaths) -> bool {
    let places = (start_op..).zip(operations).map(|(counter, op)| Located {
        object: (op.object != ROOT).then_some(op.object),
        step: match &op.place {
            Where::Key(key) => key,
            Where::Behind(_) => ANY,
        },
        makes: matches!(op.action, action::MAP | action::LIST | action::TEXT).then_some(Id { counter, writer: own }),
    });
    all_places(places, |object| tree.path_of(*object), |place| fields.lead_to(place))
}
