//! The first ops of a cluster.

use super::act::act_for_all;
use crate::entropy::Entropy;
use crate::hlc::HlcClock;
use crate::id::{ClusterId, OpId, PrincipalId, SessionId, ShardId};
use crate::keys::SecretKey;
use crate::limits;
use crate::op::{
    Act, BuiltInRole, Certify, Control, Genesis, Grant, Header, Member, Op, OpError, Payload, Rank, Role, Target,
};

/// A new cluster with its first node.
#[derive(Clone, Debug)]
pub struct Founded {
    /// The cluster.
    pub cluster: ClusterId,
    /// The statement that certifies the first node's key.
    pub certificate: OpId,
    /// The node's principal.
    pub principal: PrincipalId,
    /// The ops that say so, in order.
    pub ops: Vec<Op>,
}

/// What a cluster is founded with.
#[derive(Clone, Debug)]
pub struct Founding<'a> {
    /// Name of the cluster, for people.
    pub name: &'a str,
    /// Name of its first node.
    pub node_name: &'a str,
    /// Labels of that node, by name.
    pub labels: Vec<(String, String)>,
    /// The owner's key.
    pub owner: &'a SecretKey,
    /// The first node's key.
    pub node: &'a SecretKey,
    /// Hashes of the recovery keys, ascending.
    pub recovery: Vec<[u8; 32]>,
}

/// Founds a cluster: the owner's genesis, and the first node as an admin that writes for others too. `seed` is 32 fresh random bytes.
///
/// # Errors
/// [`OpError`] if a name is too long.
pub fn found_cluster(founding: Founding<'_>, wall_ms: u64, seed: &[u8; 32]) -> Result<Founded, OpError> {
    let Founding { name, node_name, labels, owner, node, recovery } = founding;
    let mut entropy = Entropy::new(seed);
    let mut clock = HlcClock::default();
    let mut stream = OwnerStream {
        owner,
        session: entropy.session(),
        cluster: ClusterId::ZERO,
        certificate: OpId::ZERO,
        seq: 0,
        prev: OpId::ZERO,
    };
    let genesis = Genesis {
        name: name.to_owned(),
        owners: vec![owner.author()],
        threshold: 1,
        recovery_threshold: u8::from(!recovery.is_empty()),
        recovery,
        rules: limits::RULES_VERSION,
        nonce: entropy.salt(),
    };
    let genesis = stream.sign(clock.tick(wall_ms), Vec::new(), Vec::new(), Act::Genesis(genesis))?;
    // The genesis stands alone in its stream; what the owner does from now on is bound to it as its certificate.
    stream.cluster = ClusterId::from(genesis.id());
    stream.certificate = genesis.id();
    stream.seq = 0;
    stream.prev = OpId::ZERO;
    let proof = vec![genesis.id()];
    let certify =
        Certify { principal: None, key: node.author(), rank: Rank::ADMIN, not_after: None, name: node_name.to_owned() };
    let certify = stream.sign(clock.tick(wall_ms), vec![genesis.id()], proof.clone(), Act::Certify(certify))?;
    let principal = PrincipalId::from(certify.id());
    let member = Member { principal, key: node.author(), rank: Rank::ADMIN, not_after: None, labels };
    let member = stream.sign(clock.tick(wall_ms), Vec::new(), proof.clone(), Act::Member(member))?;
    let grant = Grant {
        principal,
        role: Role::BuiltIn(BuiltInRole::Admin),
        target: Target::everything(),
        rank: Rank::ADMIN,
        not_after: None,
    };
    let grant = stream.sign(clock.tick(wall_ms), Vec::new(), proof.clone(), Act::Grant(grant))?;
    let duty = stream.sign(clock.tick(wall_ms), Vec::new(), proof, act_for_all(principal, Rank::ADMIN))?;
    Ok(Founded {
        cluster: stream.cluster,
        certificate: certify.id(),
        principal,
        ops: vec![genesis, certify, member, grant, duty],
    })
}

struct OwnerStream<'a> {
    owner: &'a SecretKey,
    session: SessionId,
    cluster: ClusterId,
    certificate: OpId,
    seq: u64,
    prev: OpId,
}

impl OwnerStream<'_> {
    fn sign(
        &mut self,
        hlc: crate::hlc::Hlc,
        control_heads: Vec<OpId>,
        proof: Vec<OpId>,
        act: Act,
    ) -> Result<Op, OpError> {
        self.seq += 1;
        let header = Header {
            version: limits::OP_VERSION,
            cluster: self.cluster,
            shard: ShardId::control(),
            author: self.owner.author(),
            certificate: self.certificate,
            session: self.session,
            seq: self.seq,
            prev: self.prev,
            earlier: Vec::new(),
            hlc,
            control_heads,
            payload: Payload::from(Control { proof, act, for_whom: None }),
        };
        let op = Op::sign(header, Vec::new(), self.owner)?;
        self.prev = op.id();
        Ok(op)
    }
}
