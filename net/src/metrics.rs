//! The metrics of the network, with their handles held: looking one up costs more than counting.

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

use crate::event::RefusedReason;
use crate::per_lane::PerLane;
use folkmoot_core::replication::Lane;

const PEERS: &str = "folkmoot_net_peers";
const CONNECTIONS: &str = "folkmoot_net_connections";
const BYTES_RECEIVED: &str = "folkmoot_net_received_bytes_total";
const BYTES_SENT: &str = "folkmoot_net_sent_bytes_total";
const FRAMES_RECEIVED: &str = "folkmoot_net_frames_received_total";
const FRAMES_SENT: &str = "folkmoot_net_frames_sent_total";
const SEND_FULL: &str = "folkmoot_net_send_queue_full_total";
const REFUSED: &str = "folkmoot_net_refused_total";
const DIALS: &str = "folkmoot_net_dials_total";
const DIALS_FAILED: &str = "folkmoot_net_dials_failed_total";
const SESSIONS: &str = "folkmoot_net_sessions_total";
const VIOLATIONS: &str = "folkmoot_net_protocol_violations_total";
const BEACONS_RECEIVED: &str = "folkmoot_net_beacons_received_total";
const BEACONS_DROPPED: &str = "folkmoot_net_beacons_dropped_total";
const JOINS: &str = "folkmoot_net_join_requests_total";
const RESTARTS: &str = "folkmoot_net_restarts_total";

/// Counters of one lane.
#[derive(Debug, Clone)]
pub(crate) struct LaneMetrics {
    pub(crate) bytes_received: Counter,
    pub(crate) bytes_sent: Counter,
    pub(crate) frames_received: Counter,
    pub(crate) frames_sent: Counter,
    pub(crate) send_full: Counter,
}

/// Refused connections by reason.
#[derive(Debug, Clone)]
pub(crate) struct RefusedMetrics {
    stranger: Counter,
    blocked: Counter,
    banned: Counter,
    handshake_rate: Counter,
    guest_rate: Counter,
    connection_limit: Counter,
}

/// All of them.
#[derive(Debug, Clone)]
pub(crate) struct NetMetrics {
    pub(crate) peers: Gauge,
    pub(crate) connections: Gauge,
    pub(crate) lanes: PerLane<LaneMetrics>,
    pub(crate) refused: RefusedMetrics,
    pub(crate) dials: Counter,
    pub(crate) dials_failed: Counter,
    pub(crate) sessions: Counter,
    pub(crate) violations: Counter,
    pub(crate) beacons_received: Counter,
    pub(crate) beacons_dropped: Counter,
    pub(crate) joins: Counter,
    pub(crate) restarts: Counter,
}

impl RefusedMetrics {
    pub(crate) fn count(&self, reason: RefusedReason) {
        match reason {
            RefusedReason::Stranger => &self.stranger,
            RefusedReason::Blocked => &self.blocked,
            RefusedReason::Banned => &self.banned,
            RefusedReason::HandshakeRate => &self.handshake_rate,
            RefusedReason::GuestRate => &self.guest_rate,
            RefusedReason::ConnectionLimit => &self.connection_limit,
        }
        .increment(1);
    }
}

const fn lane_label(lane: Lane) -> &'static str {
    match lane {
        Lane::Control => "control",
        Lane::Live => "live",
        Lane::Repair => "repair",
        Lane::Snapshot => "snapshot",
    }
}

impl NetMetrics {
    /// Registers them with the recorder of the process.
    pub(crate) fn register() -> Self {
        describe_gauge!(PEERS, "Members with all lanes open");
        describe_gauge!(CONNECTIONS, "Established connections, guests and duplicates included");
        describe_counter!(BYTES_RECEIVED, "Bytes of received frames");
        describe_counter!(BYTES_SENT, "Bytes of sent frames");
        describe_counter!(FRAMES_RECEIVED, "Frames received");
        describe_counter!(FRAMES_SENT, "Frames sent");
        describe_counter!(SEND_FULL, "Frames that were not queued because the lane's queue was full");
        describe_counter!(REFUSED, "Connections refused");
        describe_counter!(DIALS, "Dials begun, first ones and reconnects");
        describe_counter!(DIALS_FAILED, "Dials that led to no connection");
        describe_counter!(SESSIONS, "Sessions opened; more than peers means reconnects");
        describe_counter!(VIOLATIONS, "Sessions ended because the peer broke the protocol of the lanes");
        describe_counter!(BEACONS_RECEIVED, "Beacons handed to the application");
        describe_counter!(BEACONS_DROPPED, "Beacons dropped: too large, too many, or the application too slow");
        describe_counter!(JOINS, "Requests to join handed to the application");
        describe_counter!(RESTARTS, "Restarts of the network task after a panic");
        let refused = |reason| counter!(REFUSED, "reason" => reason);
        Self {
            peers: gauge!(PEERS),
            connections: gauge!(CONNECTIONS),
            lanes: PerLane::from_fn(|lane| {
                let label = lane_label(lane);
                LaneMetrics {
                    bytes_received: counter!(BYTES_RECEIVED, "lane" => label),
                    bytes_sent: counter!(BYTES_SENT, "lane" => label),
                    frames_received: counter!(FRAMES_RECEIVED, "lane" => label),
                    frames_sent: counter!(FRAMES_SENT, "lane" => label),
                    send_full: counter!(SEND_FULL, "lane" => label),
                }
            }),
            refused: RefusedMetrics {
                stranger: refused("stranger"),
                blocked: refused("blocked"),
                banned: refused("banned"),
                handshake_rate: refused("handshake_rate"),
                guest_rate: refused("guest_rate"),
                connection_limit: refused("connection_limit"),
            },
            dials: counter!(DIALS),
            dials_failed: counter!(DIALS_FAILED),
            sessions: counter!(SESSIONS),
            violations: counter!(VIOLATIONS),
            beacons_received: counter!(BEACONS_RECEIVED),
            beacons_dropped: counter!(BEACONS_DROPPED),
            joins: counter!(JOINS),
            restarts: counter!(RESTARTS),
        }
    }
}
