//! Sessions that are over: a new one names where those before it end, so that they need not be told, pinned or compared any
//! more ([decision 12](../../../docs/decisions/0012-sessions-name-the-ones-before.md)).

use std::collections::BTreeSet;

use super::Replica;
use super::records::HeadRecord;
use super::rejudge::closed_tip;
use crate::authority::Reach;
use crate::id::{OpId, StreamId};
use crate::limits;
use crate::op::{Pin, RevokeTarget, SessionEnd, StreamKey};
use crate::replication::Tip;

impl Replica {
    /// Returns what the first op of a stream is to name: the ends of the author's earlier sessions that no later one names.
    /// Those that do not fit are named by the next session.
    pub(super) fn earlier_sessions(&self, key: &StreamKey) -> Vec<SessionEnd> {
        let same = |head: &&HeadRecord| {
            head.key.author == key.author && head.key.certificate == key.certificate && head.key.shard == key.shard
        };
        let sessions: Vec<&HeadRecord> = self.heads.values().filter(same).collect();
        let named: BTreeSet<SessionEnd> =
            sessions.iter().filter(|head| head.fork != Some(1)).flat_map(|head| head.earlier.iter().copied()).collect();
        let ends = sessions
            .iter()
            .filter(|head| head.fork.is_none() && head.key.session != key.session)
            .map(|head| SessionEnd { session: head.key.session, seq: head.seq, head: head.head });
        let mut ends: Vec<SessionEnd> = ends.filter(|end| !named.contains(end)).collect();
        ends.sort();
        ends.truncate(limits::EARLIER_SESSIONS_MAX);
        ends
    }

    /// Notes the streams that the first op of another one names and that are not here, so that it is known where they are
    /// closed when the replication engine asks.
    pub(super) fn note_sessions(&mut self, stream: StreamId, head: &HeadRecord) {
        self.named.remove(&stream);
        for (key, _) in head.earlier_ends() {
            let named = key.id();
            if self.heads.contains_key(&named) {
                continue;
            }
            if let Some(tip) = closed_tip(&self.authority, named, key.certificate) {
                self.closed.insert(named, tip);
            }
            self.named.insert(named, key);
        }
    }

    /// Asks for chains that pins name where another op is at the place of the pin: digests tell the pin, whatever lies there, and
    /// what the chain names of earlier sessions is not known without it.
    pub(super) fn need_open_pins(&mut self) {
        let open: Vec<Pin> = self.authority.open_pins().collect();
        for pin in open {
            let head = self.heads.get(&pin.stream).filter(|head| head.seq >= pin.seq && !head.key.shard.is_control());
            if let Some(shard) = head.map(|head| head.key.shard.clone()) {
                self.need_pin(&shard, pin);
            }
        }
    }

    /// Returns the sessions that came before a stream, the latest first: what its first op names, what their first ops name, and
    /// so on.
    pub(super) fn read_earlier(&self, stream: StreamId, ends_max: usize) -> Vec<(StreamId, u64)> {
        let mut ends: Vec<(StreamId, u64)> = Vec::new();
        let mut seen = BTreeSet::from([stream]);
        let mut next = 0;
        let mut at = Some(stream);
        while let Some(stream) = at.filter(|_| ends.len() < ends_max) {
            for (key, tip) in self.heads.get(&stream).into_iter().flat_map(HeadRecord::earlier_ends) {
                let stream = key.id();
                if seen.insert(stream) {
                    ends.push((stream, tip.seq));
                }
            }
            at = ends.get(next).map(|(stream, _)| *stream);
            next += 1;
        }
        ends.truncate(ends_max);
        ends
    }

    /// Returns the pins that a revocation of `target` should set, for what is here: the ends of the streams in question, but of
    /// a session that ends where a pinned one says none. A stream of which a pinned one names more than is here gets a pin all
    /// the same: what nobody here has seen is not to stand.
    #[must_use]
    pub fn pins_for(&self, target: &RevokeTarget, reach: Reach) -> Vec<Pin> {
        let streams: BTreeSet<StreamId> = self.authority.pins_needed_for(target, reach).into_iter().collect();
        let heads = || streams.iter().filter_map(|stream| Some((*stream, self.heads.get(stream)?)));
        let told: BTreeSet<(StreamId, Tip)> =
            heads().flat_map(|(_, head)| head.earlier_ends()).map(|(key, tip)| (key.id(), tip)).collect();
        let mut pins: Vec<Pin> = heads()
            .map(|(stream, head)| Pin { stream, seq: head.seq, head: head.head })
            .filter(|pin| !told.contains(&(pin.stream, Tip { seq: pin.seq, id: pin.head })))
            .collect();
        let lacking = told.iter().map(|(stream, _)| *stream).filter(|stream| !self.heads.contains_key(stream));
        pins.extend(lacking.map(|stream| Pin { stream, seq: 0, head: OpId::ZERO }));
        pins.sort();
        pins.dedup_by_key(|pin| pin.stream);
        pins
    }
}
