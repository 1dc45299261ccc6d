//! Frames on their way to the network: what its queues have no room for waits here, bounded.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use folkmoot_core::id::AuthorKey;
use folkmoot_net::{Lane, NetHandle, SendError};

/// Frames that wait for one lane of one peer. The replication engine sends no more than a peer granted in bytes; this
/// bounds the number of small ones.
const WAITING_FRAMES_MAX: usize = 16_384;

/// See the module.
#[derive(Default)]
pub(super) struct Outbox {
    net: std::sync::OnceLock<NetHandle>,
    waiting: Mutex<BTreeMap<(AuthorKey, Lane), VecDeque<Bytes>>>,
}

impl Outbox {
    /// Says where frames go; before, they are dropped, since nobody is connected.
    pub(super) fn connect(&self, net: NetHandle) {
        // Called once, when the network starts.
        let _ = self.net.set(net);
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, BTreeMap<(AuthorKey, Lane), VecDeque<Bytes>>> {
        // What is inside is whole between any two statements, so a panic elsewhere does not damage it.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a frame, in order. Returns false if it cannot be kept: then the session must end.
    pub(super) fn send(&self, peer: AuthorKey, lane: Lane, bytes: Bytes) -> bool {
        let Some(net) = self.net.get() else { return true };
        let mut waiting = self.waiting();
        if let Some(queue) = waiting.get_mut(&(peer, lane)) {
            if queue.len() >= WAITING_FRAMES_MAX {
                return false;
            }
            queue.push_back(bytes);
            return true;
        }
        match net.send(&peer, lane, bytes.clone()) {
            // Its end of session is on its way to the engine.
            Ok(()) | Err(SendError::NotConnected) => true,
            Err(SendError::Full) => {
                waiting.entry((peer, lane)).or_default().push_back(bytes);
                true
            }
            Err(_) => false,
        }
    }

    /// The network has room again on a lane.
    pub(super) fn writable(&self, peer: AuthorKey, lane: Lane) {
        let Some(net) = self.net.get() else { return };
        let mut waiting = self.waiting();
        let Some(queue) = waiting.get_mut(&(peer, lane)) else { return };
        while let Some(bytes) = queue.front() {
            match net.send(&peer, lane, bytes.clone()) {
                Err(SendError::Full) => return,
                Ok(()) | Err(_) => drop(queue.pop_front()),
            }
        }
        waiting.remove(&(peer, lane));
    }

    /// The session with a peer is over.
    pub(super) fn forget(&self, peer: AuthorKey) {
        self.waiting().retain(|(waiting, _), _| *waiting != peer);
    }
}
