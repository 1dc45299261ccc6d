//! How far pins reach: the chain of a stream goes on, before its first op, with the ends of earlier sessions that this op names.
//!
//! What is found is a fact of hashes that no later op changes: the first op of the chain that ends in a pin is one op, whatever
//! else is signed for its place. So it is only ever added to.

use std::collections::{BTreeMap, BTreeSet};

use super::Chains;
use super::log::{ActIx, Log};
use crate::authority::mutant::{Mutant, Site, planted};
use crate::id::StreamId;
use crate::op::Pin;

/// Pins that follow from pins.
#[derive(Default)]
pub(super) struct Reach {
    /// By stream: the act, and where it lets the stream stand.
    derived: BTreeMap<StreamId, BTreeSet<(ActIx, Pin)>>,
    /// Pins whose chain is not known to be here, by stream.
    open: BTreeMap<StreamId, BTreeSet<(ActIx, Pin)>>,
    /// Streams of these for which that may be otherwise now.
    due: BTreeSet<StreamId>,
}

impl Reach {
    /// Notes a pin whose chain has still to be followed.
    pub(super) fn open(&mut self, act: ActIx, pin: Pin) {
        if pin.seq > 0 {
            self.open.entry(pin.stream).or_default().insert((act, pin));
            self.due.insert(pin.stream);
        }
    }

    /// An op of the stream is here that may complete a chain.
    pub(super) fn op_came(&mut self, stream: StreamId, seq: u64) {
        if self.open.get(&stream).is_some_and(|pins| pins.iter().any(|(_, pin)| pin.seq >= seq)) {
            self.due.insert(stream);
        }
    }

    /// Returns the pins whose chain is not known to be here.
    pub(super) fn open_pins(&self) -> impl Iterator<Item = Pin> + '_ {
        self.open.values().flatten().map(|(_, pin)| *pin)
    }

    /// Returns the streams in which pins follow from those of an act.
    pub(super) fn streams_of(&self, act: ActIx) -> impl Iterator<Item = StreamId> + '_ {
        self.derived.iter().filter(move |(_, pins)| pins.iter().any(|(by, _)| *by == act)).map(|(stream, _)| *stream)
    }

    /// Returns the derived pins in a stream.
    pub(super) fn of(&self, stream: StreamId) -> impl Iterator<Item = (ActIx, Pin)> + '_ {
        self.derived.get(&stream).into_iter().flatten().copied()
    }
}

impl Log {
    /// Follows the chains that are here now; returns the streams in which that gave new pins.
    pub(super) fn follow_chains(&mut self, chains: &dyn Chains) -> BTreeSet<StreamId> {
        let mut reached = BTreeSet::new();
        while let Some(stream) = self.reach.due.pop_first() {
            for (act, pin) in self.reach.open.get(&stream).cloned().unwrap_or_default() {
                let Some(ends) = chains.earlier_ends(&pin) else { continue };
                if let Some(open) = self.reach.open.get_mut(&stream) {
                    open.remove(&(act, pin));
                    if open.is_empty() {
                        self.reach.open.remove(&stream);
                    }
                }
                for end in ends {
                    let has_own = self.own_pin(act, end.stream).is_some();
                    if planted(Site::Engine, Mutant::PinEndsAtSession)
                        || (has_own && !planted(Site::Engine, Mutant::EarlierPinIgnored))
                    {
                        continue;
                    }
                    if self.reach.derived.entry(end.stream).or_default().insert((act, end)) {
                        self.reach.open(act, end);
                        reached.insert(end.stream);
                    }
                }
            }
        }
        reached
    }

    /// Returns the pin that an act itself sets in a stream.
    fn own_pin(&self, act: ActIx, stream: StreamId) -> Option<Pin> {
        let pins = self.act(act).pins();
        pins.binary_search_by_key(&stream, |pin| pin.stream).ok().and_then(|at| pins.get(at)).copied()
    }

    /// Returns the ends up to which an act lets a stream stand: its own pin, or those that follow from its pins in later
    /// sessions.
    pub(super) fn pins_in(&self, act: ActIx, stream: StreamId) -> impl Iterator<Item = Pin> + '_ {
        let derived = self.reach.of(stream).filter(move |(by, _)| *by == act).map(|(_, pin)| pin);
        self.own_pin(act, stream).into_iter().chain(derived)
    }

    /// Returns all ends that acts set in a stream, by (strength, id) of the act, of one act the furthest first.
    pub(super) fn all_pins_in(&self, stream: StreamId) -> Vec<(ActIx, Pin)> {
        let own = self.pinners.get(&stream).into_iter().flatten().copied();
        let mut pins: Vec<(ActIx, Pin)> = own.chain(self.reach.of(stream)).collect();
        pins.sort_by_key(|(act, pin)| {
            let record = self.act(*act);
            (record.strength(), record.id, std::cmp::Reverse((pin.seq, pin.head)))
        });
        pins
    }
}
