//! Every bound of the network shell, with its reason.

use std::time::Duration;

/// One frame of a lane: what the replication engine sends at most.
pub const FRAME_BYTES_MAX: usize = folkmoot_core::replication::limits::FRAME_BYTES_MAX;
/// What a queued frame costs beside its bytes, so that many tiny frames are bounded too.
pub const FRAME_COST_BYTES: usize = 1 << 10;
/// A frame that has begun must be complete after this long (36 KiB/s for the largest), or the peer is cut off.
pub const FRAME_TIME_MAX: Duration = Duration::from_secs(120);
/// Received frames of one lane (of all peers) that wait for the application. The lanes do not share it, so that a
/// snapshot never holds up control.
pub const INBOUND_LANE_BYTES_MAX: usize = 16 << 20;
/// Events that wait for the application.
pub const EVENT_QUEUE_MAX: usize = 1_024;
/// Events of the network task itself that wait for room in the event queue; more (beacons only) are dropped.
pub const OUTBOX_MAX: usize = 256;
/// Commands of handles that wait for the network task.
pub const COMMAND_QUEUE_MAX: usize = 1_024;

/// Connections whose handshake is not done yet, inbound.
pub const PENDING_INCOMING_MAX: u32 = 128;
/// The same, outbound: the dials that run at once.
pub const PENDING_OUTGOING_MAX: u32 = 64;
/// Established connections, both directions, unless configured otherwise.
pub const ESTABLISHED_MAX: u32 = 1_024;
/// Two, because both sides may dial at once; the leader then closes one.
pub const ESTABLISHED_PER_PEER_MAX: u32 = 2;
/// Streams of one connection: 4 lanes, join, identify, push, ping, gossipsub, each in both directions, and slack.
pub const STREAMS_PER_CONNECTION_MAX: usize = 64;
/// Handshakes that one address (IPv4, or IPv6 /64) may begin at once. Generous: a site may stand behind one address.
pub const HANDSHAKES_PER_ADDRESS_BURST: u32 = 128;
/// Handshakes per second that one address may begin in the long run (each costs about 2 ms of CPU).
pub const HANDSHAKES_PER_ADDRESS_RATE: f64 = 16.0;
/// Addresses whose rate is remembered.
pub const RATED_ADDRESSES_MAX: usize = 4_096;

/// Dialling one peer, handshake included.
pub const DIAL_TIME_MAX: Duration = Duration::from_secs(10);
/// From an established connection to all lanes open.
pub const ASSEMBLE_TIME_MAX: Duration = Duration::from_secs(10);
/// How often a live connection is pinged.
pub const PING_INTERVAL: Duration = Duration::from_secs(5);
/// A ping unanswered for this long ends the connection.
pub const PING_TIME_MAX: Duration = Duration::from_secs(10);
/// Delay before the first repeated dial; doubles with each failure.
pub const REDIAL_DELAY_MIN: Duration = Duration::from_millis(100);
/// Delay that the doubling ends at. Jitter takes up to half of it off.
pub const REDIAL_DELAY_MAX: Duration = Duration::from_secs(30);
/// A session that lasted this long clears the failures before it.
pub const STABLE_SESSION: Duration = Duration::from_secs(10);
/// How often due dials and deadlines are looked at.
pub const TICK: Duration = Duration::from_millis(50);
/// Peers with remembered addresses.
pub const ADDRESS_PEERS_MAX: usize = 4_096;
/// Configured addresses of one peer; also bootstrap addresses without a key, and the addresses of a ticket.
pub const PINNED_ADDRESSES_MAX: usize = 16;
/// Addresses of one peer that were learnt from it or from mDNS; the least recently confirmed goes first.
pub const LEARNT_ADDRESSES_MAX: usize = 8;
/// Bytes of one address.
pub const ADDRESS_BYTES_MAX: usize = 256;
/// Bans remembered at once.
pub const BANS_MAX: usize = 4_096;

/// One beacon.
pub const BEACON_BYTES_MAX: usize = 4 << 10;
/// What gossipsub puts around a beacon (topic, framing).
pub const BEACON_ENVELOPE_BYTES_MAX: usize = 1 << 10;
/// Beacons that one neighbour may forward at once; a node sends at most one a second.
pub const BEACONS_PER_PEER_BURST: u32 = 256;
/// Beacons per second that one neighbour may forward in the long run.
pub const BEACONS_PER_PEER_RATE: f64 = 128.0;

/// Guests (strangers let in to join) connected at once.
pub const GUESTS_MAX: usize = 8;
/// Guests from one address at once.
pub const GUESTS_PER_ADDRESS_BURST: u32 = 8;
/// Guests per second from one address in the long run.
pub const GUESTS_PER_ADDRESS_RATE: f64 = 0.5;
/// A request to join: a key, a proof of the ticket's secret, a name, addresses.
pub const JOIN_REQUEST_BYTES_MAX: usize = 16 << 10;
/// The answer: certificates and what else a new member needs to begin.
pub const JOIN_RESPONSE_BYTES_MAX: usize = 1 << 20;
/// A guest's whole visit, including the time that the application takes to answer.
pub const JOIN_TIME_MAX: Duration = Duration::from_secs(30);

/// Text of a ticket: 16 addresses of 128 bytes take 3,500 characters.
pub const TICKET_CHARS_MAX: usize = 8 << 10;
