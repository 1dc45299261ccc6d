//! What follows from the conduct of peers: credit is withheld, misdeeds are told, peers banned.

use super::api::{DisconnectReason, Effect, Lane, Peer, Timestamp};
use super::conduct::{Ban, Sentence};
use super::engine::{Cx, Engine};
use super::misdeed::Misbehaviour;

impl Engine {
    /// Notes a misdeed of a member, connected or not, and bans it if it was one too many.
    pub(super) fn misbehaved(&mut self, cx: &mut Cx<'_>, peer: Peer, what: Misbehaviour) {
        if peer == self.config.me || !cx.policy.is_member(&peer) {
            return;
        }
        self.counters.misbehaviours += 1;
        cx.effects.push(Effect::Misbehaved { peer, what });
        match self.conduct.accuse(peer, what, cx.now) {
            Sentence::Noted => {}
            Sentence::Banned(time) => {
                self.counters.bans += 1;
                self.held.forget_peer(&peer);
                self.disconnect(cx, peer, DisconnectReason::Banned(what, time));
            }
        }
    }

    /// Takes up the bans of an earlier life; call before anything else.
    pub fn restore_bans(&mut self, bans: impl IntoIterator<Item = Ban>, now: Timestamp) {
        for ban in bans {
            self.conduct.restore(&ban, now);
        }
    }

    /// Deals with a frame that brought nothing: it counts `cost` bytes of the peer's allowance, and without that its credit
    /// is not given back yet.
    pub(super) fn idle(&mut self, cx: &mut Cx<'_>, peer: Peer, lane: Lane, bytes: usize, cost: usize) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        self.conduct.idle(peer, cost.max(bytes), cx.now);
        if self.conduct.is_idle(&peer, cx.now) {
            *state.withheld.entry(lane).or_default() += bytes;
        } else {
            self.release(cx, peer, lane, bytes);
        }
    }

    /// Gives withheld credit back to whom has an allowance again, and charges who has not.
    pub(super) fn sweep_conduct(&mut self, cx: &mut Cx<'_>) {
        let peers: Vec<Peer> = self.peers.keys().copied().collect();
        for peer in peers {
            if self.peers.get_mut(&peer).is_some_and(|state| state.breaks_promise(cx.now)) {
                self.misbehaved(cx, peer, Misbehaviour::BrokenPromise);
            }
            if !self.burdens.contains(&peer) && self.conduct.is_flooding(&peer, cx.now) {
                self.misbehaved(cx, peer, Misbehaviour::Flood);
            } else if !self.conduct.is_idle(&peer, cx.now)
                && let Some(state) = self.peers.get_mut(&peer)
            {
                for (lane, bytes) in std::mem::take(&mut state.withheld) {
                    self.release(cx, peer, lane, bytes);
                }
            }
        }
        let connected = &self.peers;
        self.conduct.sweep(cx.now, |peer| connected.contains_key(peer));
    }
}
