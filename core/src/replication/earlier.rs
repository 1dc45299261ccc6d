//! Earlier sessions: the first op of a stream says where those of the same author end.
//!
//! A stream that ends where a later one says adds nothing to digests and lists of heads: whoever has the later one has it too,
//! or says by an entry of its own that it lacks it. So heads do not grow with restarts. What a stream adds is a function of the
//! ops and pins that are here, never of the order in which they came.

use super::api::{Peer, Ticket};
use super::digest::Tip;
use super::engine::{Cx, Engine};
use super::frame::{Earlier, EarlierAsk, Frame, Reach};
use super::heads::StreamAt;
use super::limits as bounds;
use super::mutant::{Mutant, planted};
use super::serve::Question;
use crate::id::{ShardId, StreamId};
use crate::op::Op;

/// Returns where the earlier sessions end that the first op of a stream names.
#[must_use]
pub fn earlier_ends(op: &Op) -> Vec<(StreamId, Tip)> {
    op.header().earlier_ends().map(|end| (end.stream, Tip { seq: end.seq, id: end.head })).collect()
}

impl Engine {
    /// Notes what the first op of a stream names, and goes after what of it is not here.
    pub(super) fn first_came(&mut self, cx: &mut Cx<'_>, at: &StreamAt, first: &Op, from: Option<Peer>) {
        let ends = earlier_ends(first);
        if ends.is_empty() {
            return;
        }
        let pinned = ends.iter().map(|(stream, tip)| (*stream, *tip, cx.policy.closed_at(stream))).collect();
        self.heads.name_earlier(at.shard(), at.stream, pinned);
        let Some(from) = from else { return };
        for (stream, _) in ends {
            let before = StreamAt::new(at.shard(), stream);
            let is_news = !self.wants.contains_key(&before);
            if self.want_lacking(&before, from) && is_news {
                // There may be a long row of them, and one question for each would take as many round trips.
                let ask = EarlierAsk { shard: at.shard().clone(), stream };
                self.send(cx, from, &Frame::EarlierAsk(ask));
            }
        }
    }

    /// Has a stream pulled from a peer as far as later sessions name it; returns whether it is.
    fn want_lacking(&mut self, at: &StreamAt, peer: Peer) -> bool {
        if planted(Mutant::LackingForgotten) {
            return false;
        }
        let lack = self.heads.shard(at.shard()).and_then(|shard| shard.lacking.get(&at.stream)).copied();
        lack.is_some_and(|to| self.want(at, peer, to, Reach::Pin(())))
    }

    /// A peer has other heads of a shard: it may have what is lacking here, and does not list it.
    pub(super) fn ask_for_lacking(&mut self, peer: Peer, shard: &ShardId) {
        let Some(held) = self.heads.shard(shard) else { return };
        // Somebody may have named what there is not: each time others come first.
        let mut start = [0; StreamId::LEN];
        if let Some(first) = start.first_chunk_mut() {
            *first = self.random.next().to_be_bytes();
        }
        let start = StreamId::new(start);
        let later = held.lacking.range(start..).chain(held.lacking.range(..start));
        let streams: Vec<StreamId> = later.take(bounds::LACKING_ASKED_MAX).map(|(stream, _)| *stream).collect();
        for stream in streams {
            self.want_lacking(&StreamAt::new(shard, stream), peer);
        }
    }

    pub(super) fn earlier_read(&mut self, cx: &mut Cx<'_>, ticket: Ticket, mut ends: Vec<(StreamId, u64)>) {
        let Some(Question::Earlier { asker, shard }) = self.answered(ticket) else { return };
        ends.truncate(bounds::EARLIER_MAX);
        if !ends.is_empty() {
            self.send(cx, asker, &Frame::Earlier(Earlier { shard, ends }));
        }
        self.pump(cx, asker);
    }

    /// A peer tells which sessions came before one that is lacking. Claims, as announcements are.
    pub(super) fn earlier_told(&mut self, cx: &Cx<'_>, peer: Peer, told: Earlier) {
        if !self.shares(cx, &peer, &told.shard.collection) {
            return;
        }
        for (stream, seq) in told.ends {
            self.want(&StreamAt::new(&told.shard, stream), peer, seq, Reach::Pin(()));
        }
    }
}
