//! From an established connection to a session, and its end.

use super::*;

impl Task {
    /// Closes a connection, and ends its session with `reason`.
    pub(super) fn close(&mut self, id: ConnectionId, reason: DownReason) {
        if let Some(connection) = self.connections.get_mut(&id) {
            end_session(&mut connection.stage, reason);
            let since = match connection.stage {
                Stage::Live { since, .. } => Some(since),
                Stage::Closing { since } => since,
                Stage::Guest | Stage::Assembling(_) | Stage::Handshaking => None,
            };
            tracing::debug!(peer = ?connection.peer, ?reason, "closing a connection");
            connection.stage = Stage::Closing { since };
            self.swarm.close_connection(id);
        }
    }

    pub(super) fn close_peer(&mut self, peer: &AuthorKey, reason: DownReason) {
        for id in self.connections_of(peer) {
            self.close(id, reason);
        }
    }

    pub(super) fn connections_of(&self, peer: &AuthorKey) -> Vec<ConnectionId> {
        self.connections.iter().filter(|(_, connection)| connection.peer == *peer).map(|(id, _)| *id).collect()
    }

    pub(super) fn on_established(&mut self, peer_id: PeerId, id: ConnectionId, endpoint: &ConnectedPoint) {
        self.shared.context.metrics.connections.increment(1.0);
        let dial = self.dials.remove(&id);
        let now = Instant::now();
        // The gate lets nobody pass without one.
        let Some(peer) = identity::author_key(&peer_id) else {
            self.swarm.close_connection(id);
            return;
        };
        let direction = if endpoint.is_dialer() { Direction::Outbound } else { Direction::Inbound };
        let address = split_peer(endpoint.get_remote_address()).1;
        if let Some(Dial::Whoever(address)) = dial {
            self.shared.with_book(|book| book.resolved(&address, peer, now));
        }
        let is_member = self.shared.door.exclusion(&peer, now).is_none();
        let stage = if is_member { Stage::Assembling(Box::default()) } else { Stage::Guest };
        let connection = Connection { peer, peer_id, address, direction, established: now, stage };
        if !is_member {
            self.connections.insert(id, connection);
            if self.shared.door.join() == JoinDoor::Closed {
                self.close(id, DownReason::Removed);
            }
            return;
        }
        let leads = self.own < peer;
        let older = self.connections.iter().find(|(_, c)| {
            c.peer == peer && matches!(c.stage, Stage::Assembling(_) | Stage::Handshaking | Stage::Live { .. })
        });
        let older = older.map(|(id, connection)| (*id, connection.established));
        self.connections.insert(id, connection);
        if !leads {
            return;
        }
        if let Some((older, established)) = older {
            if now.duration_since(established) < DIAL_TIME_MAX {
                // Both dialled at once.
                return self.close(id, DownReason::Replaced);
            }
            // Nobody dials a peer that it is connected to: the older connection is dead on the other side.
            self.close(older, DownReason::Replaced);
        }
        for lane in Lane::ALL {
            self.swarm.behaviour_mut().streams.open(peer_id, id, Protocol::Lane(lane));
        }
    }

    pub(super) fn on_closed(&mut self, id: ConnectionId) {
        self.shared.context.metrics.connections.decrement(1.0);
        let Some(mut connection) = self.connections.remove(&id) else { return };
        end_session(&mut connection.stage, DownReason::ConnectionLost);
        let since = match connection.stage {
            Stage::Live { since, .. } | Stage::Closing { since: Some(since) } => since,
            Stage::Guest | Stage::Assembling(_) | Stage::Handshaking | Stage::Closing { since: None } => return,
        };
        let stability = if since.elapsed() >= STABLE_SESSION { Stability::Stable } else { Stability::Short };
        self.shared.with_book(|book| book.lost(&connection.peer, stability, Instant::now(), jitter()));
    }

    pub(super) fn on_stream(&mut self, id: ConnectionId, event: HandlerEvent) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        match event {
            HandlerEvent::Opened(Protocol::Lane(lane), _, stream) => {
                let Stage::Assembling(lanes) = &mut connection.stage else { return };
                *lanes.get_mut(lane) = Some(stream);
                if let Some(streams) = lanes.take_full() {
                    connection.stage = Stage::Handshaking;
                    self.shake_hands(id, streams);
                }
            }
            HandlerEvent::Opened(Protocol::Join, Direction::Inbound, stream) => self.serve_guest(id, stream),
            HandlerEvent::Opened(Protocol::Join, Direction::Outbound, _) => {}
            // The peer may be no real member node but one that asks to join again: the deadline decides.
            HandlerEvent::Failed(protocol) => tracing::debug!(?protocol, "the peer does not open a stream"),
        }
    }

    pub(super) fn serve_guest(&mut self, id: ConnectionId, stream: Stream) {
        let Some(connection) = self.connections.get(&id) else { return };
        self.shared.context.metrics.joins.increment(1);
        let served =
            join::serve(stream, connection.peer, connection.address.clone(), self.shared.context.events.clone());
        let internal = self.internal.clone();
        tokio::spawn(async move {
            match tokio::time::timeout(JOIN_TIME_MAX, served).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "a guest was not served"),
                Err(_) => tracing::debug!("a guest took too long"),
            }
            // An error means that the swarm is gone, and the guest's connection with it.
            let _ = internal.send(Internal::GuestServed(id)).await;
        });
    }

    pub(super) fn shake_hands(&mut self, id: ConnectionId, streams: PerLane<Stream>) {
        let Some(connection) = self.connections.get(&id) else { return };
        let (peer, address, direction) = (connection.peer, connection.address.clone(), connection.direction);
        let cluster = self.shared.config.cluster;
        let leads = self.own < peer;
        let nonce: session::SessionNonce = rand::random();
        let internal = self.internal.clone();
        tokio::spawn(async move {
            let lanes = streams.into_each().map(|(lane, mut stream)| async move {
                let (nonce, rtt) = if leads {
                    (nonce, session::lead(&mut stream, cluster, nonce).await?)
                } else {
                    session::follow(&mut stream, cluster).await?
                };
                Ok::<_, HandshakeError>((lane, stream, nonce, rtt))
            });
            let opened = futures_util::future::try_join_all(lanes).await.and_then(|lanes| {
                let mut streams = PerLane::from_fn(|_| None);
                let mut nonces = BTreeSet::new();
                let mut rtt = Duration::MAX;
                for (lane, stream, nonce, lane_rtt) in lanes {
                    *streams.get_mut(lane) = Some(stream);
                    nonces.insert(nonce);
                    rtt = rtt.min(lane_rtt);
                }
                match (nonces.len(), nonces.first(), streams.take_full()) {
                    (1, Some(nonce), Some(streams)) => {
                        Ok(Box::new(Opened { peer, nonce: *nonce, connection: id, address, direction, rtt, streams }))
                    }
                    _ => Err(HandshakeError::WrongAnswer),
                }
            });
            // An error means that the swarm is gone.
            let _ = internal.send(Internal::Handshake(id, opened)).await;
        });
    }

    pub(super) fn on_internal(&mut self, internal: Internal) {
        match internal {
            Internal::Handshake(id, Ok(opened)) => self.begin_session(id, *opened),
            Internal::Handshake(id, Err(error)) => {
                tracing::debug!(%error, "lanes not opened");
                self.close(id, DownReason::ProtocolViolation);
            }
            Internal::SessionEnded(id) | Internal::GuestServed(id) => self.close(id, DownReason::ConnectionLost),
        }
    }

    pub(super) fn begin_session(&mut self, id: ConnectionId, opened: Opened<Stream>) {
        let peer = opened.peer;
        let is_ready = self.connections.get(&id).is_some_and(|c| matches!(c.stage, Stage::Handshaking));
        // What was closed meanwhile stays closed.
        if !is_ready {
            return;
        }
        if let Some(reason) = self.shared.door.exclusion(&peer, Instant::now()) {
            return self.close(id, reason);
        }
        // The leader opens a second session only if the first is dead.
        for other in self.connections_of(&peer) {
            let is_live = |c: &Connection| matches!(c.stage, Stage::Live { .. });
            if other != id && self.connections.get(&other).is_some_and(is_live) {
                self.close(other, DownReason::Replaced);
            }
        }
        let (end, ends) = oneshot::channel();
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.stage = Stage::Live { since: Instant::now(), end: Some(end) };
        }
        let internal = self.internal.clone();
        let alive = self.alive.clone();
        let context = self.shared.context.clone();
        tokio::spawn(async move {
            // An error means that the swarm is gone, and the connection with it.
            let ended = async move || drop(internal.send(Internal::SessionEnded(id)).await);
            opened.run(context, ends, ended).await;
            drop(alive);
        });
    }
}
