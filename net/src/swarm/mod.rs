//! The libp2p swarm: transports, behaviours, their settings.

pub(crate) mod gate;
mod members_only;
pub(crate) mod streams;

use std::collections::HashSet;
use std::future::Future;
use std::num::NonZeroU8;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use folkmoot_core::id::ClusterId;
use futures_util::FutureExt as _;
use libp2p::identity::Keypair;
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{Swarm, SwarmBuilder, gossipsub, identify, mdns, noise, ping, tcp, yamux};
use libp2p_connection_limits as connection_limits;
use tokio::sync::Notify;

use crate::config::{Discovery, NetworkConfig};
use crate::door::Door;
use crate::identity;
use crate::limits::{
    BEACON_BYTES_MAX, BEACON_ENVELOPE_BYTES_MAX, DIAL_TIME_MAX, ESTABLISHED_PER_PEER_MAX, PENDING_INCOMING_MAX,
    PENDING_OUTGOING_MAX, PING_INTERVAL, PING_TIME_MAX, STREAMS_PER_CONNECTION_MAX,
};
use crate::metrics::NetMetrics;
use members_only::MembersOnly;

/// Name of the whole protocol family, told by identify.
const PROTOCOL: &str = "/folkmoot/1";

pub(crate) type Beacons = gossipsub::Behaviour<gossipsub::IdentityTransform, gossipsub::WhitelistSubscriptionFilter>;

/// Behaviours are asked in this order; the first two refuse before the others make state for a connection.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    pub(crate) gate: gate::Gate,
    pub(crate) limits: connection_limits::Behaviour,
    pub(crate) streams: streams::Behaviour,
    pub(crate) identify: MembersOnly<identify::Behaviour>,
    pub(crate) ping: MembersOnly<ping::Behaviour>,
    pub(crate) beacons: MembersOnly<Beacons>,
    pub(crate) mdns: Toggle<mdns::tokio::Behaviour>,
}

/// Why the network cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Noise refused the key.
    #[error("set up the encryption of connections")]
    Noise(#[source] noise::Error),
    /// The DNS configuration of the system cannot be read.
    #[error("read the DNS configuration of the system")]
    Dns(#[source] std::io::Error),
    /// Gossipsub refused its settings.
    #[error("set up the beacon topic: {0}")]
    Beacons(String),
    /// The system does not give an address to this process; most often because another one has it.
    #[error("listen on {address}")]
    Taken {
        /// The address.
        address: libp2p::Multiaddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// An address cannot be listened on.
    #[error("listen on {address}")]
    Listen {
        /// The address.
        address: libp2p::Multiaddr,
        /// What the transport said.
        source: libp2p::TransportError<std::io::Error>,
    },
}

/// Returns the topic of a cluster's beacons.
pub(crate) fn beacon_topic(cluster: &ClusterId) -> gossipsub::IdentTopic {
    gossipsub::IdentTopic::new(format!("folkmoot/1/beacons/{cluster}"))
}

fn yamux_config() -> yamux::Config {
    let mut config = yamux::Config::default();
    config.set_max_num_streams(STREAMS_PER_CONNECTION_MAX);
    config
}

/// Runs the tasks of connections; a panic in one is told instead of leaving a connection that never closes.
fn executor(panicked: Arc<Notify>) -> impl Fn(Pin<Box<dyn Future<Output = ()> + Send>>) + Send + 'static {
    move |task| {
        let panicked = Arc::clone(&panicked);
        tokio::spawn(async move {
            if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                panicked.notify_one();
            }
        });
    }
}

/// Builds a swarm around a behaviour.
pub(crate) fn build<B: NetworkBehaviour>(
    keypair: Keypair,
    behaviour: B,
    panicked: Arc<Notify>,
) -> Result<Swarm<B>, StartError> {
    let builder = SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux_config)
        .map_err(StartError::Noise)?;
    #[cfg(feature = "quic")]
    let builder = builder.with_quic();
    let builder = builder.with_dns().map_err(StartError::Dns)?;
    let Ok(builder) = builder.with_behaviour(|_| behaviour);
    Ok(builder
        .with_swarm_config(|_| {
            libp2p::swarm::Config::with_executor(executor(panicked))
                // Handlers keep connections alive until the network task closes them; this is the rest.
                .with_idle_connection_timeout(Duration::from_secs(30))
                .with_max_negotiating_inbound_streams(STREAMS_PER_CONNECTION_MAX)
                .with_dial_concurrency_factor(NonZeroU8::MIN.saturating_add(3))
        })
        .with_connection_timeout(DIAL_TIME_MAX)
        .build())
}

fn beacons(cluster: &ClusterId) -> Result<Beacons, StartError> {
    let topic = beacon_topic(cluster);
    let config = gossipsub::ConfigBuilder::default()
        // Beacons carry their author's signature themselves.
        .validation_mode(gossipsub::ValidationMode::Anonymous)
        .validate_messages()
        // Without source and sequence number the default id would be the same for all.
        .message_id_fn(|message| {
            let hash = blake3::hash(&message.data);
            gossipsub::MessageId::new(hash.as_bytes().first_chunk::<16>().map_or(&[][..], |id| id))
        })
        .max_transmit_size(BEACON_BYTES_MAX + BEACON_ENVELOPE_BYTES_MAX)
        // The duplicate cache is rate times this time.
        .duplicate_cache_time(Duration::from_secs(30))
        .heartbeat_initial_delay(Duration::from_millis(500))
        .connection_handler_queue_len(256)
        .build()
        .map_err(|error| StartError::Beacons(error.to_string()))?;
    // One topic: a peer cannot make us remember others.
    let filter = gossipsub::WhitelistSubscriptionFilter(HashSet::from([topic.hash()]));
    let authenticity = gossipsub::MessageAuthenticity::Anonymous;
    let mut beacons = gossipsub::Behaviour::new_with_subscription_filter(authenticity, config, filter)
        .map_err(|error| StartError::Beacons(error.to_owned()))?;
    beacons.subscribe(&topic).map_err(|error| StartError::Beacons(error.to_string()))?;
    Ok(beacons)
}

/// Builds the swarm of a member.
pub(crate) fn build_member(
    config: &NetworkConfig,
    door: &Arc<Door>,
    metrics: &NetMetrics,
    panicked: Arc<Notify>,
) -> Result<Swarm<Behaviour>, StartError> {
    let keypair = identity::keypair(&config.secret);
    let public = keypair.public();
    let limits = connection_limits::ConnectionLimits::default()
        .with_max_pending_incoming(Some(PENDING_INCOMING_MAX))
        .with_max_pending_outgoing(Some(PENDING_OUTGOING_MAX))
        .with_max_established(Some(config.connections_max))
        .with_max_established_per_peer(Some(ESTABLISHED_PER_PEER_MAX));
    let identify = identify::Config::new(PROTOCOL.to_owned(), public.clone())
        .with_agent_version(concat!("folkmoot/", env!("CARGO_PKG_VERSION")).to_owned())
        .with_push_listen_addr_updates(true)
        // The address book keeps what is worth keeping.
        .with_cache_size(0);
    let mdns = match config.discovery {
        Discovery::Off => None,
        // A machine without multicast still serves its other peers.
        Discovery::Mdns => mdns::tokio::Behaviour::new(mdns::Config::default(), public.to_peer_id())
            .inspect_err(|error| tracing::warn!(%error, "mdns is not available"))
            .ok(),
    };
    let behaviour = Behaviour {
        gate: gate::Gate::new(Arc::clone(door), metrics.clone()),
        limits: connection_limits::Behaviour::new(limits),
        streams: streams::Behaviour::new(streams::Offer::By(Arc::clone(door))),
        identify: MembersOnly::new(identify::Behaviour::new(identify), Arc::clone(door)),
        ping: MembersOnly::new(
            ping::Behaviour::new(ping::Config::new().with_interval(PING_INTERVAL).with_timeout(PING_TIME_MAX)),
            Arc::clone(door),
        ),
        beacons: MembersOnly::new(beacons(&config.cluster)?, Arc::clone(door)),
        mdns: mdns.into(),
    };
    let mut swarm = build(keypair, behaviour, panicked)?;
    for address in &config.external {
        swarm.add_external_address(address.clone());
    }
    Ok(swarm)
}
