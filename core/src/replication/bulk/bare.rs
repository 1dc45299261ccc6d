//! Bare ops: pulled without the changes that are here already.

use super::super::api::{Effect, Lane, Peer, Ticket};
use super::super::engine::{Cx, Engine};
use super::super::frame::Answer;
use super::super::limits as bounds;
use super::super::serve::Question;

impl Engine {
    pub(in super::super) fn bare_range(
        &mut self,
        cx: &mut Cx<'_>,
        peer: Peer,
        bytes: usize,
        request: u32,
        ops: Vec<bytes::Bytes>,
    ) {
        if self.pulls.get(&request).is_none_or(|pull| pull.peer != peer) {
            return self.idle(cx, peer, Lane::Repair, bytes, 0);
        }
        let ticket = self.ticket();
        self.questions.insert(ticket, Question::Complete { peer, request, bytes });
        cx.effects.push(Effect::CompleteOps { ticket, ops });
    }

    /// Goes on with a bare range as with a whole one. If a change is not here as named, the stream is pulled whole.
    pub(in super::super) fn ops_completed(&mut self, cx: &mut Cx<'_>, ticket: Ticket, ops: Vec<bytes::Bytes>) {
        let Some(Question::Complete { peer, request, bytes }) = self.answered(ticket) else { return };
        if ops.is_empty() {
            self.counters.bare_incomplete += 1;
            self.release(cx, peer, Lane::Repair, bytes);
            if let Some(pull) = self.end_pull(request)
                && self.whole.len() < bounds::WHOLE_MAX
            {
                self.whole.insert(pull.at);
            }
            return;
        }
        let ops = ops.into_iter().map(|op| serde_bytes::ByteBuf::from(op.to_vec())).collect();
        self.range(cx, peer, bytes, &Answer { request, ops });
    }
}
