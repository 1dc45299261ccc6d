//! Our own protocols: hands every negotiated stream of a lane, or of the join protocol, to the network task.
//!
//! `libp2p-stream` is not used because it drops a stream that arrives before the last one was taken. Here nothing
//! is dropped, and the queue is bounded because a connection offers each protocol once.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::swarm::handler::{ConnectionEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
    NotifyHandler, Stream, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};

use crate::door::{Admission, Door, JoinDoor};
use crate::event::Direction;
use crate::identity;
use folkmoot_core::replication::Lane;

/// A protocol of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Lane(Lane),
    Join,
}

impl Protocol {
    const ALL: [Self; 5] = [
        Self::Lane(Lane::Control),
        Self::Lane(Lane::Live),
        Self::Lane(Lane::Repair),
        Self::Lane(Lane::Snapshot),
        Self::Join,
    ];

    /// Its name on the wire.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Lane(Lane::Control) => "/folkmoot/control/1",
            Self::Lane(Lane::Live) => "/folkmoot/live/1",
            Self::Lane(Lane::Repair) => "/folkmoot/repair/1",
            Self::Lane(Lane::Snapshot) => "/folkmoot/snapshot/1",
            Self::Join => "/folkmoot/join/1",
        }
    }
}

impl AsRef<str> for Protocol {
    fn as_ref(&self) -> &str {
        self.name()
    }
}

/// Protocols to choose from; the outcome is the chosen one and its stream.
#[derive(Debug, Clone)]
pub(crate) struct Choice(Vec<Protocol>);

impl UpgradeInfo for Choice {
    type Info = Protocol;
    type InfoIter = std::vec::IntoIter<Protocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl InboundUpgrade<Stream> for Choice {
    type Output = (Protocol, Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Self::Error>>;

    fn upgrade_inbound(self, stream: Stream, chosen: Protocol) -> Self::Future {
        ready(Ok((chosen, stream)))
    }
}

impl OutboundUpgrade<Stream> for Choice {
    type Output = (Protocol, Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Self::Error>>;

    fn upgrade_outbound(self, stream: Stream, chosen: Protocol) -> Self::Future {
        ready(Ok((chosen, stream)))
    }
}

/// What a handler tells.
#[derive(Debug)]
pub(crate) enum HandlerEvent {
    Opened(Protocol, Direction, Stream),
    Failed(Protocol),
}

/// The side of one connection.
pub(crate) struct Handler {
    /// Offered and not taken yet.
    offered: Vec<Protocol>,
    to_open: VecDeque<Protocol>,
    events: VecDeque<HandlerEvent>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Protocol;
    type ToBehaviour = HandlerEvent;
    type InboundProtocol = Choice;
    type OutboundProtocol = Choice;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Protocol;

    fn listen_protocol(&self) -> SubstreamProtocol<Choice> {
        SubstreamProtocol::new(Choice(self.offered.clone()), ())
    }

    fn connection_keep_alive(&self) -> bool {
        // The network task gives every connection a deadline or a session, and closes it itself.
        true
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Choice, Protocol, HandlerEvent>> {
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(event));
        }
        if let Some(protocol) = self.to_open.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: SubstreamProtocol::new(Choice(vec![protocol]), protocol),
            });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, protocol: Protocol) {
        self.to_open.push_back(protocol);
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Choice, Choice, (), Protocol>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (protocol, stream), ..
            }) => {
                // Two streams may negotiate the same protocol at once; only the first gets it.
                if let Some(index) = self.offered.iter().position(|offered| *offered == protocol) {
                    self.offered.swap_remove(index);
                    self.events.push_back(HandlerEvent::Opened(protocol, Direction::Inbound, stream));
                }
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: (protocol, stream), ..
            }) => self.events.push_back(HandlerEvent::Opened(protocol, Direction::Outbound, stream)),
            ConnectionEvent::DialUpgradeError(error) => self.events.push_back(HandlerEvent::Failed(error.info)),
            _ => {}
        }
    }
}

/// What a peer may open.
pub(crate) enum Offer {
    /// Nothing: this side only opens.
    Nothing,
    /// Lanes and join to members; join to anybody while that door is open.
    By(Arc<Door>),
}

/// A stream was opened, or could not be.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) connection: ConnectionId,
    pub(crate) event: HandlerEvent,
}

/// See the module.
pub(crate) struct Behaviour {
    offer: Offer,
    queue: VecDeque<ToSwarm<Event, Protocol>>,
}

impl Behaviour {
    pub(crate) const fn new(offer: Offer) -> Self {
        Self { offer, queue: VecDeque::new() }
    }

    /// Opens a stream on a connection. To be called by the task that polls the swarm, before it polls it again.
    pub(crate) fn open(&mut self, peer: PeerId, connection: ConnectionId, protocol: Protocol) {
        let handler = NotifyHandler::One(connection);
        self.queue.push_back(ToSwarm::NotifyHandler { peer_id: peer, handler, event: protocol });
    }

    fn handler(&self, peer: &PeerId) -> Handler {
        let offered = match &self.offer {
            Offer::Nothing => Vec::new(),
            Offer::By(door) => {
                let member = door.admission(peer, Instant::now()) == Admission::Member;
                // The leader opens the lanes; nobody opens them towards it.
                let follows = identity::author_key(peer).is_some_and(|peer| door.own() > peer);
                let is_offered = |protocol: &Protocol| match protocol {
                    Protocol::Lane(_) => member && follows,
                    // A member whose answer was lost asks again, also when nobody else may.
                    Protocol::Join => member || door.join() == JoinDoor::Open,
                };
                Protocol::ALL.into_iter().filter(is_offered).collect()
            }
        };
        Handler { offered, to_open: VecDeque::new(), events: VecDeque::new() }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        _connection: ConnectionId,
        peer: PeerId,
        _local: &Multiaddr,
        _remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(&peer))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _connection: ConnectionId,
        peer: PeerId,
        _address: &Multiaddr,
        _role: Endpoint,
        _port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(&peer))
    }

    fn on_swarm_event(&mut self, _event: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        self.queue.push_back(ToSwarm::GenerateEvent(Event { connection, event }));
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.queue.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

#[cfg(test)]
mod tests {
    use libp2p::StreamProtocol;

    use super::*;

    #[test]
    fn names_are_valid_and_distinct() {
        let mut names: Vec<_> = Protocol::ALL.iter().map(|p| StreamProtocol::new(p.name())).collect();
        names.dedup();
        assert_eq!(names.len(), 5);
    }
}
