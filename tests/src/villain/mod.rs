//! A member that means harm: it has a key, a certificate and the rights of an editor, speaks the protocol, and carries out
//! one attack. It does no I/O; the simulator and the tests with real processes carry its frames.
//!
//! It keeps to the credit that it is given, unless the attack is not to: whoever does not is gone at once.

mod live;
mod material;

use std::collections::BTreeMap;

use bytes::Bytes;
use folkmoot_core::id::{AuthorKey, Salt, ShardId, StoreEpoch, StreamId};
use folkmoot_core::replication::frames::{
    Answer, ByteBuf, Credit, DocumentsAsk, Frame, Hello, Position, Pull, Reach, RollUp, Run, ShardSummary,
};
use folkmoot_core::replication::{Lane, Misbehaviour, Part, limits};

pub use live::LiveVillain;
pub use material::Material;

/// What a villain does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Attack {
    /// Ops whose signatures are not their author's.
    WrongSignatures,
    /// Runs that are no chain.
    BrokenChains,
    /// Ops under somebody else's certificate.
    WrongCertificates,
    /// Two ops at one place, again and again.
    Forks,
    /// One good op over and over.
    Replay,
    /// Digests, acknowledgements and announcements without end.
    Flood,
    /// Ops behind gaps that it never fills.
    Gaps,
    /// More bytes than it may send.
    CreditOverrun,
    /// Grants of what was never sent.
    FalseGrants,
    /// Bytes that are no frames, and frames beyond their bounds.
    Garbage,
    /// Frames on lanes that are not theirs.
    WrongLanes,
    /// Signed ops with changes made to hurt Automerge.
    CraftedChanges,
    /// Transactions on behalf of somebody else.
    NotAllowed,
    /// Transactions that wait for what does not exist.
    Deferrals,
    /// Digests that are none, of heads that it does not show.
    FalseDigests,
    /// Everything asked for, over and over.
    Pulls,
}

impl Attack {
    /// Every one.
    pub const ALL: [Self; 16] = [
        Self::WrongSignatures,
        Self::BrokenChains,
        Self::WrongCertificates,
        Self::Forks,
        Self::Replay,
        Self::Flood,
        Self::Gaps,
        Self::CreditOverrun,
        Self::FalseGrants,
        Self::Garbage,
        Self::WrongLanes,
        Self::CraftedChanges,
        Self::NotAllowed,
        Self::Deferrals,
        Self::FalseDigests,
        Self::Pulls,
    ];

    /// Returns what it is banned for, whichever comes first.
    #[must_use]
    pub const fn misdeeds(self) -> &'static [Misbehaviour] {
        use Misbehaviour as M;
        match self {
            Self::WrongSignatures => &[M::BadSignature],
            Self::BrokenChains => &[M::BrokenChain],
            Self::WrongCertificates => &[M::WrongCertificate],
            Self::Forks => &[M::Forked],
            Self::Replay => &[M::Flood, M::BrokenPromise],
            Self::Flood => &[M::Flood, M::BrokenPromise, M::FalseDigest],
            Self::Gaps => &[M::BrokenPromise, M::Flood],
            Self::CreditOverrun => &[M::CreditOverrun],
            Self::FalseGrants => &[M::FalseGrant],
            Self::Garbage => &[M::Malformed, M::UnknownFrame],
            Self::WrongLanes => &[M::WrongLane],
            Self::CraftedChanges => &[M::BadChange, M::HeldChange],
            Self::NotAllowed => &[M::NotAllowed],
            Self::Deferrals => &[M::Deferral, M::BrokenPromise],
            Self::FalseDigests => &[M::FalseDigest, M::BrokenPromise],
            Self::Pulls => &[M::Flood, M::BrokenPromise],
        }
    }

    /// Returns its name, for command lines.
    #[must_use]
    pub fn name(self) -> String {
        let mut name = String::new();
        for letter in format!("{self:?}").chars() {
            if letter.is_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.push(letter.to_ascii_lowercase());
        }
        name
    }
}

/// What it knows of one peer: how much it may send.
#[derive(Debug)]
struct Peer {
    sent: BTreeMap<Lane, u64>,
    limits: BTreeMap<Lane, u64>,
    received: BTreeMap<Lane, u64>,
    granted: BTreeMap<Lane, u64>,
    greeted: bool,
    strikes: u64,
}

const fn window(lane: Lane) -> u64 {
    match lane {
        Lane::Control => limits::CONTROL_WINDOW,
        Lane::Live => limits::LIVE_WINDOW,
        Lane::Repair => limits::REPAIR_WINDOW,
        Lane::Snapshot => limits::SNAPSHOT_WINDOW,
    }
}

impl Peer {
    fn new() -> Self {
        let windows = || Lane::ALL.into_iter().map(|lane| (lane, window(lane))).collect();
        let nothing = || Lane::ALL.into_iter().map(|lane| (lane, 0)).collect();
        Self { sent: nothing(), limits: windows(), received: nothing(), granted: windows(), greeted: false, strikes: 0 }
    }
}

/// The villain.
pub struct Villain {
    attack: Attack,
    material: Material,
    peers: BTreeMap<AuthorKey, Peer>,
    round: u64,
}

impl Villain {
    /// Makes a villain.
    #[must_use]
    pub const fn new(attack: Attack, material: Material) -> Self {
        Self { attack, material, peers: BTreeMap::new(), round: 0 }
    }

    /// A connection to a member stands.
    pub fn connected(&mut self, peer: AuthorKey) {
        self.peers.insert(peer, Peer::new());
    }

    /// A connection is gone.
    pub fn disconnected(&mut self, peer: &AuthorKey) {
        self.peers.remove(peer);
    }

    /// A frame came. It takes notice of credit and gives some, and answers nothing.
    pub fn received(&mut self, peer: AuthorKey, lane: Lane, bytes: &[u8]) -> Vec<(Lane, Bytes)> {
        let Some(known) = self.peers.get_mut(&peer) else { return Vec::new() };
        let frame = Frame::decode(bytes).ok().flatten();
        if let Some(Frame::Credit(Credit { lane, bytes })) = frame {
            known.limits.insert(lane, bytes);
            return Vec::new();
        }
        let echo = match frame {
            // It says to have just what the other has.
            Some(Frame::Digest(roll_up)) if self.attack == Attack::Deferrals => {
                Some((Lane::Control, Frame::Digest(roll_up).encode()))
            }
            _ => None,
        };
        let received = known.received.entry(lane).or_default();
        *received += bytes.len() as u64;
        let limit = *received + window(lane);
        let granted = known.granted.entry(lane).or_default();
        if limit < *granted + window(lane) / 4 {
            return echo.into_iter().collect();
        }
        *granted = limit;
        echo.into_iter().chain([(Lane::Control, Frame::Credit(Credit { lane, bytes: limit }).encode())]).collect()
    }

    /// Returns what it sends to a peer now; call it many times a second.
    pub fn strike(&mut self, peer: AuthorKey, now_ms: u64) -> Vec<(Lane, Bytes)> {
        self.round += 1;
        let Some(known) = self.peers.get_mut(&peer) else { return Vec::new() };
        let mut frames = Vec::new();
        if !std::mem::replace(&mut known.greeted, true) {
            frames.push((Lane::Control, self.material.hello()));
        }
        known.strikes += 1;
        let strikes = known.strikes;
        let side = self.peers.keys().position(|known| *known == peer).unwrap_or(0) % 2;
        frames.extend(self.attack_with(strikes, side, now_ms));
        let Some(known) = self.peers.get_mut(&peer) else { return Vec::new() };
        let obeys = self.attack != Attack::CreditOverrun;
        frames.retain(|(lane, bytes)| {
            // The tag of a grant: decoding each frame would be most of the work.
            let is_free = *lane == Lane::Control && bytes.starts_with(&[0x92, 1]);
            let sent = known.sent.entry(*lane).or_default();
            let fits = is_free || *sent + bytes.len() as u64 <= known.limits.get(lane).copied().unwrap_or(0);
            if fits || !obeys {
                *sent += if is_free { 0 } else { bytes.len() as u64 };
            }
            fits || !obeys
        });
        frames
    }

    /// Makes the frames of one strike: the how manieth it is for its peer, and on which of two sides that is.
    fn attack_with(&mut self, strikes: u64, side: usize, now_ms: u64) -> Vec<(Lane, Bytes)> {
        let round = self.round;
        let material = &mut self.material;
        let push = |ops: &[Vec<u8>]| (Lane::Live, push(ops));
        match self.attack {
            Attack::WrongSignatures => vec![push(&[material.spoilt_signature(now_ms)])],
            Attack::BrokenChains => {
                let ops = material.chain(3, now_ms);
                vec![push(&[ops[0].clone(), ops[2].clone()])]
            }
            Attack::WrongCertificates => vec![push(&[material.under_another_certificate(now_ms)])],
            Attack::Forks => vec![push(&material.fork(strikes, side, now_ms))],
            Attack::Replay => {
                let op = material.first_op(now_ms);
                (0..60).map(|_| push(std::slice::from_ref(&op))).collect()
            }
            Attack::Flood => (0..20).flat_map(|n| material.noise(round * 20 + n)).collect(),
            Attack::Gaps => {
                let ops = material.chain(4, now_ms);
                vec![push(&ops[3..4]), (Lane::Live, material.announcement(round))]
            }
            Attack::CreditOverrun => {
                let large = material.large_op(now_ms);
                (0..8).map(|_| push(std::slice::from_ref(&large))).collect()
            }
            Attack::FalseGrants => {
                vec![(Lane::Control, Frame::Credit(Credit { lane: Lane::Repair, bytes: u64::MAX - round }).encode())]
            }
            Attack::Garbage => material.garbage(round, now_ms),
            Attack::WrongLanes => vec![(Lane::Live, Frame::Digest(RollUp { digest: Salt::ZERO }).encode())],
            Attack::CraftedChanges => {
                material.crafted(now_ms).iter().map(|op| push(std::slice::from_ref(op))).collect()
            }
            Attack::NotAllowed => vec![push(&[material.for_somebody_else(now_ms)])],
            Attack::Deferrals => vec![push(&[material.deferred(now_ms)])],
            Attack::FalseDigests => material.false_digests(round),
            Attack::Pulls => material.questions(round),
        }
    }
}

fn push(ops: &[Vec<u8>]) -> Bytes {
    Frame::Push(Run { ops: ops.iter().map(|op| ByteBuf::from(op.clone())).collect() }).encode()
}

/// Frames that need no op.
impl Material {
    fn hello(&self) -> Bytes {
        let hello = Hello {
            version: limits::PROTOCOL_VERSION,
            cluster: self.cluster,
            node: self.key.author(),
            epoch: StoreEpoch::new([0xee; 8]),
            collections: None,
        };
        Frame::Hello(hello).encode()
    }

    fn salt(&self, n: u64) -> Salt {
        let mut salt = [0x5a; 16];
        salt[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        Salt::new(salt)
    }

    fn any_stream(&self, n: u64) -> StreamId {
        let mut id = [0xab; 32];
        id[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        StreamId::new(id)
    }

    fn positions(&self, n: u64) -> Vec<Position> {
        let at = |i: u64| Position { shard: self.shard.clone(), stream: self.any_stream(n * 64 + i), seq: 1_000 + i };
        (0..64).map(at).collect()
    }

    fn announcement(&self, n: u64) -> Bytes {
        Frame::Announce(self.positions(n)).encode()
    }

    fn noise(&self, n: u64) -> Vec<(Lane, Bytes)> {
        vec![
            (Lane::Control, Frame::Digest(RollUp { digest: self.salt(n) }).encode()),
            (Lane::Control, Frame::Ack(self.positions(n)).encode()),
            (Lane::Live, self.announcement(n)),
            (Lane::Repair, Frame::Range(Answer { request: 4_000_000, ops: Vec::new() }).encode()),
        ]
    }

    fn false_digests(&self, round: u64) -> Vec<(Lane, Bytes)> {
        // As often as an honest node tells its own; and it answers no question.
        if !round.is_multiple_of(20) {
            return Vec::new();
        }
        let summary = ShardSummary { shard: self.shard.clone(), digest: self.salt(round), count: 7 };
        vec![
            (Lane::Control, Frame::Digest(RollUp { digest: self.salt(round) }).encode()),
            (Lane::Control, Frame::ShardDigests(vec![summary]).encode()),
        ]
    }

    fn questions(&self, round: u64) -> Vec<(Lane, Bytes)> {
        let control = ShardId::control();
        (0..64)
            .flat_map(|n| {
                let request = u32::try_from(round * 128 + n * 2).unwrap_or(1).max(1);
                let (shard, stream) = (control.clone(), self.control_stream);
                let pull = Pull { request, shard, stream, from: 1, to: 1_000, reach: Reach::Beyond(()) };
                let (shard, part) = (self.shard.clone(), Part::WHOLE);
                let page = DocumentsAsk { request: request + 1, shard, after: None, part, since: None };
                [(Lane::Control, Frame::Pull(pull).encode()), (Lane::Control, Frame::DocumentsAsk(page).encode())]
            })
            .collect()
    }

    fn garbage(&mut self, round: u64, now_ms: u64) -> Vec<(Lane, Bytes)> {
        let frame = match round % 3 {
            0 => Bytes::from(vec![0xc1; 200]),
            1 => push(&[vec![0x93; 300]]),
            _ => {
                // More than a run may have, of ops that are fine.
                let large = self.large_op(now_ms);
                let count = limits::RUN_BYTES_MAX / large.len() + 2;
                let ops = vec![ByteBuf::from(large); count];
                return vec![(Lane::Repair, Frame::Range(Answer { request: 9, ops }).encode())];
            }
        };
        vec![(Lane::Live, frame)]
    }
}
