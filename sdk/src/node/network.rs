//! Between the network and the replica: events in, members and links out, addresses told around.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use folkmoot_core::audit::witness::Message as AuditMessage;
use folkmoot_core::audit::{AuditAction, AuditDecision, Event};
use folkmoot_core::id::AuthorKey;
use folkmoot_core::keys::{PublicKey, Signature};
use folkmoot_core::op::{Act, codec};
use folkmoot_core::replication::{DisconnectReason as ReplicaReason, Input as NetInput, Lane, Misbehaviour};
use folkmoot_net::limits::BEACON_BYTES_MAX;
use folkmoot_net::{DisconnectReason, DownReason, JoinDoor, Multiaddr, NetEvent, NetEvents, NetHandle};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::Inner;
use super::core_thread::{Command, Cut, Notice, wall_ms};
use super::directory::KnownPeer;

/// How often a node tells where it is.
const BEACON_INTERVAL: Duration = Duration::from_secs(15);
/// Beacons older or newer than this are not believed: their addresses may be long gone.
const BEACON_AGE_MAX_MS: u64 = 300_000;
/// Addresses in a beacon.
const BEACON_ADDRESSES_MAX: usize = 8;
/// What precedes the signed content of a beacon.
const BEACON_CONTEXT: &[u8] = b"folkmoot/1/beacon";

/// Where a node is, signed by it.
#[derive(Serialize, Deserialize)]
struct Beacon {
    key: AuthorKey,
    #[serde(with = "serde_bytes")]
    content: Vec<u8>,
    #[serde(with = "serde_bytes")]
    signature: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct BeaconContent {
    cluster: folkmoot_core::id::ClusterId,
    time_ms: u64,
    addresses: Vec<String>,
}

impl Inner {
    /// Carries events of the network to the replica until the network ends.
    pub(super) async fn pump_events(self: Arc<Self>, net: NetHandle, mut events: NetEvents) {
        while let Some(event) = events.recv().await {
            let input = match event {
                NetEvent::PeerUp { peer, address, .. } => {
                    tracing::info!(%peer, %address, "connected");
                    NetInput::PeerUp { peer }
                }
                NetEvent::PeerDown { peer, reason } => {
                    tracing::info!(%peer, ?reason, "disconnected");
                    self.outbox.forget(peer);
                    if reason == DownReason::ProtocolViolation {
                        let accused = NetInput::Accused { peer, what: Misbehaviour::BrokenLane };
                        if self.core.send(Command::Net(accused)).await.is_err() {
                            return;
                        }
                    }
                    NetInput::PeerDown { peer }
                }
                NetEvent::Frame { peer, lane: Lane::Control, bytes } if AuditMessage::is_in(&bytes) => {
                    self.audit.frame(peer, bytes);
                    continue;
                }
                NetEvent::Frame { peer, lane, bytes } => NetInput::Frame { peer, lane, bytes },
                NetEvent::Writable { peer, lane } => {
                    self.outbox.writable(peer, lane);
                    continue;
                }
                NetEvent::Beacon { bytes, .. } => {
                    self.read_beacon(&net, &bytes);
                    continue;
                }
                NetEvent::Join(request) => {
                    tokio::spawn(self.clone().answer_join(request));
                    continue;
                }
                NetEvent::Listening(address) => {
                    tracing::debug!(%address, "listening for peers");
                    self.tell_where(&net);
                    continue;
                }
                NetEvent::Restarted => {
                    tracing::error!("the network was restarted after a panic");
                    continue;
                }
                _ => continue,
            };
            let came_up = matches!(input, NetInput::PeerUp { .. });
            if self.core.send(Command::Net(input)).await.is_err() {
                return;
            }
            if came_up {
                self.tell_where(&net);
            }
        }
    }

    /// Carries what the replica says about peers to the network, and tells where this node is from time to time.
    pub(super) async fn pump_notices(self: Arc<Self>, net: NetHandle, mut notices: mpsc::UnboundedReceiver<Notice>) {
        let mut beacon = tokio::time::interval(BEACON_INTERVAL);
        let mut remembered = false;
        loop {
            tokio::select! {
                notice = notices.recv() => match notice {
                    None => return,
                    Some(Notice::Members(members)) => {
                        *super::lock(&self.member_keys) = members.clone();
                        net.set_members(members);
                        self.control_changed.store(true, std::sync::atomic::Ordering::SeqCst);
                        // Only now is it known whose addresses matter.
                        if !std::mem::replace(&mut remembered, true) {
                            self.remember_addresses(&net);
                        }
                        self.follow_rotations(&net).await;
                    }
                    Some(Notice::Erased(acts)) => self.note_erased(acts).await,
                    Some(Notice::Evidence(act, streams)) => self.note_evidence(act, streams),
                    Some(Notice::Disconnect(peer, reason)) => {
                        let reason = match reason {
                            Cut::Replica(ReplicaReason::Banned(what, time)) => {
                                tracing::warn!(%peer, %what, seconds = time.as_secs(), "banned a member");
                                let why = format!("{what}, for {} s", time.as_secs());
                                let banned = Event::new(AuditAction::BanPeer, AuditDecision::Denied);
                                self.note(banned.about(peer.to_string()).because(why));
                                net.ban(peer, time);
                                continue;
                            }
                            Cut::Replica(ReplicaReason::NotMember) => DisconnectReason::NotMember,
                            Cut::Replica(ReplicaReason::TooManyPeers) => DisconnectReason::TooManyPeers,
                            Cut::Replica(ReplicaReason::ForeignVersion) => DisconnectReason::OtherVersion,
                            Cut::QueueFull => DisconnectReason::QueueFull,
                        };
                        tracing::warn!(%peer, ?reason, "disconnecting");
                        let refused = Event::new(AuditAction::RefusePeer, AuditDecision::Denied);
                        self.note(refused.about(peer.to_string()).because(format!("{reason:?}")));
                        // A network that is busy or gone cuts the session anyway.
                        let _ = net.disconnect(peer, reason);
                    }
                },
                _ = beacon.tick() => self.tell_where(&net),
            }
        }
    }

    fn tell_where(&self, net: &NetHandle) {
        let addresses: Vec<String> = self
            .config
            .p2p_external
            .iter()
            .cloned()
            .chain(net.listen_addrs())
            .map(|address| address.to_string())
            .take(BEACON_ADDRESSES_MAX)
            .collect();
        if addresses.is_empty() {
            return;
        }
        let content = BeaconContent { cluster: self.record.cluster, time_ms: wall_ms(), addresses };
        let content = codec::encode(&content);
        let signature = self.node_key.sign(BEACON_CONTEXT, &content);
        let beacon = Beacon { key: self.node_key.author(), content, signature: signature.as_bytes().to_vec() };
        // Best effort: the next one comes soon.
        let _ = net.publish_beacon(Bytes::from(codec::encode(&beacon)));
    }

    /// Learns where a member is. A beacon of somebody else than its signer, or of no member, is nothing.
    fn read_beacon(&self, net: &NetHandle, bytes: &[u8]) {
        let Ok(beacon) = codec::decode::<Beacon>(bytes, BEACON_BYTES_MAX) else { return };
        let Ok(signature) = <[u8; 64]>::try_from(&*beacon.signature) else { return };
        let Some(key) = PublicKey::new(&beacon.key) else { return };
        if beacon.key == self.node_key.author()
            || !self.members().contains(&beacon.key)
            || !key.verify(BEACON_CONTEXT, &beacon.content, &Signature::new(signature))
        {
            return;
        }
        let Ok(content) = codec::decode::<BeaconContent>(&beacon.content, BEACON_BYTES_MAX) else { return };
        if content.cluster != self.record.cluster || content.time_ms.abs_diff(wall_ms()) > BEACON_AGE_MAX_MS {
            return;
        }
        let told: Vec<Multiaddr> =
            content.addresses.iter().take(BEACON_ADDRESSES_MAX).filter_map(|address| address.parse().ok()).collect();
        // The one told first is to be tried first, which is the one learnt last.
        for address in told.iter().rev() {
            net.learn_address(beacon.key, address);
        }
        super::lock(&self.whereabouts).note(beacon.key, told.iter().map(Multiaddr::to_string).collect());
    }

    /// Gives the network the addresses that members had when this node ran last.
    fn remember_addresses(&self, net: &NetHandle) {
        let known = match self.directory.peers() {
            Ok(known) => known,
            Err(error) => {
                // Other ways to find peers are left, and the next beacons mend the file.
                tracing::warn!(error = crate::api::error_chain(&error), "cannot read where peers were");
                return;
            }
        };
        let members = self.members();
        let mut whereabouts = super::lock(&self.whereabouts);
        // Whose key is no member's any more may be a member under another one: see `follow_rotations`.
        for KnownPeer { key, address } in known.into_iter().rev() {
            let Ok(parsed) = address.parse::<Multiaddr>() else { continue };
            if members.contains(&key) {
                net.learn_address(key, &parsed);
            }
            whereabouts.restore(key, address);
        }
    }

    /// Looks for members with another key than before at the addresses that they had.
    async fn follow_rotations(&self, net: &NetHandle) {
        let nodes = self.authority(|authority| {
            let all = authority.statements(super::access::now()).filter_map(|statement| match statement.act {
                Act::Member(member) => Some((member.key, member.principal)),
                _ => None,
            });
            all.collect()
        });
        let Ok(nodes) = nodes.await else { return };
        let mut members = self.members();
        members.remove(&self.node_key.author());
        let moved = super::lock(&self.whereabouts).moved(&members, &nodes, &self.record.peers);
        for (key, addresses) in moved {
            for address in addresses.iter().rev().filter_map(|address| address.parse::<Multiaddr>().ok()) {
                net.learn_address(key, &address);
            }
        }
    }

    /// Writes down where peers are, if that has changed.
    fn keep_addresses(&self) {
        let Some(known) = super::lock(&self.whereabouts).changed(&self.members()) else { return };
        if let Err(error) = self.directory.write_peers(&known) {
            tracing::warn!(error = crate::api::error_chain(&error), "cannot write down where peers are");
        }
    }

    /// Keeps a copy of the control log beside the store, if it has changed.
    async fn keep_control(self: &Arc<Self>) {
        if !self.control_changed.swap(false, std::sync::atomic::Ordering::SeqCst) {
            return;
        }
        let inner = self.clone();
        let kept = tokio::task::spawn_blocking(move || {
            let ops = super::join::control_log(&inner.reader, inner.record.cluster)?;
            inner.directory.write_control(&ops).map_err(|error| crate::api::error_chain(&error))
        });
        if let Ok(Err(error)) = kept.await {
            tracing::warn!(error, "cannot keep a copy of the control log");
        }
    }

    /// Opens the door to strangers while an invitation is good, and closes it after.
    pub(super) fn refresh_door(&self) {
        let joining = self.joins.load(std::sync::atomic::Ordering::SeqCst) > 0;
        let open = joining || super::lock(&self.invites).is_any_good(wall_ms());
        if let Some(net) = self.net.get() {
            net.set_join_door(if open { JoinDoor::Open } else { JoinDoor::Closed });
        }
    }

    /// Closes the door when the last invitation has expired, and writes down where peers are.
    pub(super) async fn watch_door(self: Arc<Self>) {
        let mut tick = tokio::time::interval(Duration::from_secs(5));
        loop {
            tick.tick().await;
            self.refresh_door();
            self.keep_addresses();
            self.keep_control().await;
        }
    }

    /// Returns the members as last told by the replica.
    pub(super) fn members(&self) -> BTreeSet<AuthorKey> {
        super::lock(&self.member_keys).clone()
    }
}
