//! Which transaction a sequence number of an actor belongs to while no document says so.
//!
//! An actor numbers its changes to a document, and no Automerge document holds two with one number. An author that gives
//! a number twice in one stream gets the earlier of the two in, wherever the documents stand: the later one waits as long
//! as the earlier is not refused. (On two branches of a fork at most one counts at all.) What is in a document's history
//! holds its number there; these are the claims of transactions that wait outside.

use std::collections::{BTreeMap, BTreeSet};

use super::records::TxRef;
use crate::document::gate;
use crate::id::ActorId;
use crate::op::{Op, WriteAction};
use crate::store::keys::DocKey;

/// An actor's sequence number in a document.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Number {
    pub(super) doc: DocKey,
    pub(super) actor: ActorId,
    pub(super) seq: u64,
}

/// Numbers that transactions outside of the documents claim.
#[derive(Debug, Default)]
pub(super) struct Claims {
    holders: BTreeMap<Number, BTreeSet<TxRef>>,
    numbers: BTreeMap<TxRef, Vec<Number>>,
}

impl Claims {
    /// Notes that a transaction waits.
    pub(super) fn add(&mut self, tx: TxRef, op: &Op) {
        if self.numbers.contains_key(&tx) {
            return;
        }
        let numbers = numbers(op, tx);
        for number in &numbers {
            self.holders.entry(number.clone()).or_default().insert(tx);
        }
        self.numbers.insert(tx, numbers);
    }

    /// Notes that a transaction waits no longer.
    pub(super) fn release(&mut self, tx: TxRef) {
        for number in self.numbers.remove(&tx).unwrap_or_default() {
            if let Some(holders) = self.holders.get_mut(&number) {
                holders.remove(&tx);
                if holders.is_empty() {
                    self.holders.remove(&number);
                }
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.holders.is_empty()
    }

    /// Returns an earlier transaction that claims a number.
    pub(super) fn earlier(&self, number: &Number, tx: TxRef) -> Option<TxRef> {
        if self.holders.is_empty() {
            return None;
        }
        self.holders.get(number)?.first().copied().filter(|first| *first < tx)
    }
}

/// Returns the numbers of a transaction's changes, as far as they are its author's to give.
fn numbers(op: &Op, tx: TxRef) -> Vec<Number> {
    let header = op.header();
    let Some((transaction, bodies)) = op.transactions().nth(usize::from(tx.tx)) else { return Vec::new() };
    let key = header.stream_key();
    let mut numbers = Vec::new();
    for (change, body) in transaction.changes.iter().zip(bodies) {
        let actor = key.actor(&transaction.principal, &change.doc);
        let doc = DocKey { collection: header.collection().clone(), doc: change.doc.clone() };
        let scan = body.as_ref().filter(|_| change.action != WriteAction::Delete);
        let scan = scan.and_then(|body| gate::prescan(&body.bytes).ok()).filter(|scan| scan.actor == actor);
        numbers.extend(scan.map(|scan| Number { doc, actor, seq: scan.seq }));
    }
    numbers
}
