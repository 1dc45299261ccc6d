//! Transactions that wait outside of the documents: for a change, for an earlier one, for an act, for another program.
//!
//! *Claims.* An actor numbers its changes to a document, and no Automerge document holds two with one number. An author that
//! gives a number twice in one stream gets the earlier of the two in, wherever the documents stand: the later one waits as long
//! as the earlier is not refused. (On two branches of a fork at most one counts at all.) What is in a document's history
//! holds its number there; what waits outside claims it here.
//!
//! *Bounds.* Of what waits this keeps names only: the changes that it waits for and the numbers that it claims, some 300 bytes of
//! memory each. Of one author and in all there is room for so many; what finds none waits on the disk ([`super::spill`]).

use std::collections::{BTreeMap, BTreeSet};

use super::records::TxRef;
use crate::document::gate;
use crate::id::{ActorId, AuthorKey, ChangeHash};
use crate::op::{Op, WriteAction};
use crate::store::keys::DocKey;

/// Names that the waiting transactions of one author may have in memory, unless it is configured otherwise.
pub const WAITING_OF_AUTHOR_MAX: usize = 10_000;
/// For how many authors that is kept at once; beyond, all that waits anew does so on the disk.
const FULL_AUTHORS_MAX: usize = 10;
/// Changes that one transaction waits for at a time: when one of them is here, the others are looked for again.
pub(super) const AWAITED_CHANGES_MAX: usize = 64;

/// An actor's sequence number in a document.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Number {
    pub(super) doc: DocKey,
    pub(super) actor: ActorId,
    pub(super) seq: u64,
}

/// For what a transaction waits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Awaited {
    /// Changes, at most [`AWAITED_CHANGES_MAX`].
    Changes(Vec<ChangeHash>),
    /// An earlier transaction of its stream.
    Earlier(TxRef),
    /// A control act, or the chain that a pin names.
    Act,
    /// A body, or a program that can apply it.
    Other,
}

impl Awaited {
    /// Returns the changes.
    pub(super) fn into_changes(self) -> Vec<ChangeHash> {
        match self {
            Self::Changes(changes) => changes,
            Self::Earlier(_) | Self::Act | Self::Other => Vec::new(),
        }
    }

    pub(super) fn changes(&self) -> &[ChangeHash] {
        match self {
            Self::Changes(changes) => changes,
            Self::Earlier(_) | Self::Act | Self::Other => &[],
        }
    }
}

/// A transaction that waits, or is about to be looked at while it claims its numbers.
#[derive(Debug)]
struct Wait {
    numbers: Vec<Number>,
    awaited: Option<(AuthorKey, Awaited)>,
}

impl Wait {
    /// Returns how many names are kept of it. What only claims is part of the slice being worked on, and not counted.
    fn names(&self) -> usize {
        self.awaited.as_ref().map_or(0, |(_, awaited)| names(self.numbers.len(), awaited))
    }
}

fn names(numbers: usize, awaited: &Awaited) -> usize {
    1 + numbers + awaited.changes().len()
}

/// See the module.
#[derive(Debug)]
pub(super) struct Waits {
    of_author_max: usize,
    transactions: BTreeMap<TxRef, Wait>,
    holders: BTreeSet<(Number, TxRef)>,
    for_changes: BTreeSet<(ChangeHash, TxRef)>,
    behind: BTreeSet<(TxRef, TxRef)>,
    deferred: BTreeSet<TxRef>,
    names: BTreeMap<AuthorKey, usize>,
    names_in_all: usize,
}

impl Waits {
    pub(super) const fn new(of_author_max: usize) -> Self {
        Self {
            of_author_max,
            transactions: BTreeMap::new(),
            holders: BTreeSet::new(),
            for_changes: BTreeSet::new(),
            behind: BTreeSet::new(),
            deferred: BTreeSet::new(),
            names: BTreeMap::new(),
            names_in_all: 0,
        }
    }

    // ---- what waits ----

    /// Has a transaction claim its numbers while it is being looked at.
    pub(super) fn claim(&mut self, tx: TxRef, op: &Op) {
        if self.transactions.contains_key(&tx) {
            return;
        }
        let numbers = numbers(op, tx);
        self.holders.extend(numbers.iter().map(|number| (number.clone(), tx)));
        self.transactions.insert(tx, Wait { numbers, awaited: None });
    }

    /// Notes that a transaction waits, and for what from now on. Returns the changes that nobody waits for any more.
    pub(super) fn put(&mut self, tx: TxRef, op: &Op, awaited: Awaited) -> Vec<ChangeHash> {
        self.claim(tx, op);
        let mut free = self.unlink(tx);
        self.for_changes.extend(awaited.changes().iter().map(|hash| (*hash, tx)));
        match awaited {
            Awaited::Changes(_) | Awaited::Other => {}
            Awaited::Earlier(earlier) => drop(self.behind.insert((earlier, tx))),
            Awaited::Act => drop(self.deferred.insert(tx)),
        }
        free.retain(|hash| !self.is_awaited(hash));
        if let Some(wait) = self.transactions.get_mut(&tx) {
            let author = op.header().author;
            wait.awaited = Some((author, awaited));
            *self.names.entry(author).or_default() += wait.names();
            self.names_in_all += wait.names();
        }
        free
    }

    /// Notes that a transaction waits no longer; returns the changes that nobody waits for any more.
    pub(super) fn release(&mut self, tx: TxRef) -> Vec<ChangeHash> {
        let mut free = self.unlink(tx);
        if let Some(wait) = self.transactions.remove(&tx) {
            for number in wait.numbers {
                self.holders.remove(&(number, tx));
            }
        }
        free.retain(|hash| !self.is_awaited(hash));
        free
    }

    /// Forgets what a transaction waits for.
    fn unlink(&mut self, tx: TxRef) -> Vec<ChangeHash> {
        let Some(wait) = self.transactions.get_mut(&tx) else { return Vec::new() };
        let names = wait.names();
        let Some((author, awaited)) = wait.awaited.take() else { return Vec::new() };
        self.names_in_all -= names;
        if let Some(of_author) = self.names.get_mut(&author) {
            *of_author -= names;
            if *of_author == 0 {
                self.names.remove(&author);
            }
        }
        match awaited {
            Awaited::Changes(changes) => {
                for hash in &changes {
                    self.for_changes.remove(&(*hash, tx));
                }
                return changes;
            }
            Awaited::Earlier(earlier) => drop(self.behind.remove(&(earlier, tx))),
            Awaited::Act => drop(self.deferred.remove(&tx)),
            Awaited::Other => {}
        }
        Vec::new()
    }

    // ---- what comes ----

    /// Returns the transactions that wait for a change.
    pub(super) fn for_change(&self, hash: &ChangeHash) -> impl Iterator<Item = TxRef> + '_ {
        let hash = *hash;
        self.for_changes.range((hash, TxRef::FIRST)..).take_while(move |(of, _)| *of == hash).map(|(_, tx)| *tx)
    }

    /// Returns the transactions that wait for an earlier one.
    pub(super) fn behind(&self, earlier: &TxRef) -> impl Iterator<Item = TxRef> + '_ {
        let earlier = *earlier;
        self.behind.range((earlier, TxRef::FIRST)..).take_while(move |(of, _)| *of == earlier).map(|(_, tx)| *tx)
    }

    /// Returns the transactions whose verdict waits for something.
    pub(super) const fn deferred(&self) -> &BTreeSet<TxRef> {
        &self.deferred
    }

    /// Whether a transaction waits here.
    pub(super) fn is_kept(&self, tx: &TxRef) -> bool {
        self.transactions.get(tx).is_some_and(|wait| wait.awaited.is_some())
    }

    fn is_awaited(&self, hash: &ChangeHash) -> bool {
        self.for_change(hash).next().is_some()
    }

    /// Whether no transaction waits for a change, an act, or another one.
    pub(super) fn is_nothing_awaited(&self) -> bool {
        self.for_changes.is_empty() && self.behind.is_empty() && self.deferred.is_empty()
    }

    // ---- claims ----

    /// Whether no number is claimed.
    pub(super) fn is_nothing_claimed(&self) -> bool {
        self.holders.is_empty()
    }

    /// Returns an earlier transaction that claims a number.
    pub(super) fn earlier(&self, number: &Number, tx: TxRef) -> Option<TxRef> {
        if self.holders.is_empty() {
            return None;
        }
        let (of, first) = self.holders.range((number.clone(), TxRef::FIRST)..).next()?;
        (of == number && *first < tx).then_some(*first)
    }

    // ---- how much that is ----

    /// Returns how many names are kept of an author.
    pub(super) fn names_of(&self, author: &AuthorKey) -> usize {
        self.names.get(author).copied().unwrap_or(0)
    }

    /// Returns how many names are kept of each author of whom something waits.
    pub(super) const fn names(&self) -> &BTreeMap<AuthorKey, usize> {
        &self.names
    }

    pub(super) const fn names_in_all(&self) -> usize {
        self.names_in_all
    }

    pub(super) const fn of_author_max(&self) -> usize {
        self.of_author_max
    }

    pub(super) const fn in_all_max(&self) -> usize {
        self.of_author_max * FULL_AUTHORS_MAX
    }

    /// Whether a transaction may wait here, in place of itself if it does.
    pub(super) fn has_room_for(&self, tx: TxRef, op: &Op, awaited: &Awaited) -> bool {
        let known = self.transactions.get(&tx);
        let before = known.map_or(0, Wait::names);
        let names = names(known.map_or_else(|| numbers(op, tx).len(), |wait| wait.numbers.len()), awaited);
        self.names_of(&op.header().author) - before + names <= self.of_author_max
            && self.names_in_all - before + names <= self.in_all_max()
    }
}

/// Returns the numbers of a transaction's changes, as far as they are its author's to give.
pub(super) fn numbers(op: &Op, tx: TxRef) -> Vec<Number> {
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
