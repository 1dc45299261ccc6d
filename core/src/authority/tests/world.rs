//! A world of peers that sign acts and writes, each with its own view of what exists. Keys are names: the rule never
//! looks at signatures.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::authority::reference::Ops;
use crate::hash::{Domain, hash};
use crate::hlc::Hlc;
use crate::id::{
    AuthorKey, ClusterId, CollectionName, Commitment, OpId, PrincipalId, Salt, SessionId, ShardId, StreamId,
};
use crate::keys::Signature;
use crate::limits;
use crate::op::{
    Act, Approve, BuiltInRole, Certify, ChangeRef, Control, Duty, DutyGrant, Evidence, FieldPaths, Genesis, Grant,
    Header, Member, Payload, Pin, Rank, Readmit, RecoverySignature, Revoke, RevokeTarget, Role, SessionEnd, Succeed,
    Target, Transaction, WriteAction, codec, recovery_hash,
};
use crate::random::SplitMix64;

/// A small deterministic generator.
#[derive(Clone)]
pub(super) struct Random(SplitMix64);

impl Random {
    pub(super) const fn new(seed: u64) -> Self {
        Self(SplitMix64::new(seed))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0.next()
    }

    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// True in `percent` of cases.
    pub(super) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(super) fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    pub(super) fn shuffle<T>(&mut self, list: &mut [T]) {
        for i in (1..list.len()).rev() {
            list.swap(i, self.below(i + 1));
        }
    }
}

/// A key holder with its view.
#[derive(Clone)]
pub(super) struct Peer {
    pub(super) key: AuthorKey,
    pub(super) principal: PrincipalId,
    pub(super) certificate: OpId,
    /// Certificate and grants, as given.
    pub(super) proof: Vec<OpId>,
    pub(super) view: BTreeSet<OpId>,
    session: u64,
    /// Last own op by shard.
    tips: BTreeMap<ShardId, (u64, OpId)>,
    /// Where the session before ended, by shard.
    ended: BTreeMap<ShardId, SessionEnd>,
}

/// Ops made so far, and who makes them.
#[derive(Clone)]
pub(super) struct World {
    pub(super) cluster: ClusterId,
    pub(super) ops: Ops,
    pub(super) streams: BTreeMap<OpId, StreamId>,
    pub(super) peers: BTreeMap<&'static str, Peer>,
    pub(super) clock: u64,
    /// What histories make besides: roles, and groups and other principals without keys.
    pub(super) roles: Vec<OpId>,
    pub(super) groups: Vec<PrincipalId>,
    pub(super) served: Vec<PrincipalId>,
    pub(super) memberships: BTreeMap<&'static str, OpId>,
    /// Changes of owners so far.
    pub(super) successions: Vec<OpId>,
    pub(super) witnesses: Vec<&'static str>,
}

pub(super) fn key(name: &str) -> AuthorKey {
    AuthorKey::new(hash(Domain::Network, &[name.as_bytes()]))
}

/// The recovery keys of the owners after so many changes: any two of these three.
pub(super) fn recovery_key(generation: usize, n: usize) -> AuthorKey {
    key(&format!("recovery {generation} {n}"))
}

fn recovery(generation: usize) -> Vec<[u8; 32]> {
    let mut hashes: Vec<_> = (0..3).map(|n| recovery_hash(&recovery_key(generation, n))).collect();
    hashes.sort_unstable();
    hashes
}

pub(super) fn id_of(header: &Header) -> OpId {
    OpId::new(hash(Domain::OpHeader, &[&codec::encode(header)]))
}

pub(super) fn collection(name: &str) -> CollectionName {
    name.parse().unwrap()
}

pub(super) fn role(role: BuiltInRole) -> Role {
    Role::BuiltIn(role)
}

pub(super) fn target(text: &str) -> Target {
    Target::collections(text)
}

pub(super) fn write_of(principal: PrincipalId, doc: u64, action: WriteAction) -> Transaction {
    write_to(principal, &format!("d{doc}"), action)
}

pub(super) fn write_to(principal: PrincipalId, doc: &str, action: WriteAction) -> Transaction {
    let commitment = Commitment::new(hash(Domain::Commitment, &[doc.as_bytes()]));
    let change = ChangeRef { doc: doc.parse().unwrap(), action, commitment, body_bytes: 10, fields: None };
    Transaction { principal, request: None, changes: vec![change] }
}

pub(super) fn paths(texts: &[&str]) -> FieldPaths {
    FieldPaths::of(texts.iter().map(|text| text.parse().unwrap()))
}

/// Declares the same fields for all changes of a data op that are no deletes.
pub(super) fn declare(header: &mut Header, fields: &FieldPaths) {
    if let Payload::Data(transactions) = &mut header.payload {
        let changes = transactions.iter_mut().flat_map(|transaction| &mut transaction.changes);
        for change in changes.filter(|change| change.action != WriteAction::Delete) {
            change.fields = Some(fields.clone());
        }
    }
}

impl World {
    /// A cluster with these owner keys, each a peer.
    pub(super) fn new(owners: &[&'static str], threshold: u8) -> Self {
        let mut keys: Vec<_> = owners.iter().map(|name| key(name)).collect();
        keys.sort();
        let genesis = Genesis {
            name: "test".into(),
            owners: keys,
            threshold,
            recovery: recovery(0),
            recovery_threshold: 2,
            rules: 1,
            nonce: Salt::ZERO,
        };
        let header = Header {
            version: limits::OP_VERSION,
            cluster: ClusterId::ZERO,
            shard: ShardId::control(),
            author: key(owners[0]),
            certificate: OpId::ZERO,
            session: SessionId::ZERO,
            seq: 1,
            prev: OpId::ZERO,
            earlier: Vec::new(),
            hlc: Hlc::new(1, 0),
            control_heads: vec![],
            payload: Payload::from(Control { proof: vec![], act: Act::Genesis(genesis), for_whom: None }),
        };
        let mut world = Self::founded(header);
        let id = world.genesis();
        for name in owners {
            world.add_peer(name, key(name), id.into(), id);
        }
        world
    }

    /// A cluster with this genesis, and nobody yet.
    pub(super) fn founded(genesis: Header) -> Self {
        let mut world = Self {
            cluster: id_of(&genesis).into(),
            ops: BTreeMap::new(),
            streams: BTreeMap::new(),
            peers: BTreeMap::new(),
            clock: 1,
            roles: Vec::new(),
            groups: Vec::new(),
            served: Vec::new(),
            memberships: BTreeMap::new(),
            successions: Vec::new(),
            witnesses: Vec::new(),
        };
        world.put(genesis);
        world
    }

    pub(super) fn genesis(&self) -> OpId {
        self.cluster.genesis()
    }

    pub(super) fn add_peer(&mut self, name: &'static str, key: AuthorKey, principal: PrincipalId, certificate: OpId) {
        let peer = Peer {
            key,
            principal,
            certificate,
            proof: vec![certificate],
            view: self.ops.keys().copied().collect(),
            session: 0,
            tips: BTreeMap::new(),
            ended: BTreeMap::new(),
        };
        self.peers.insert(name, peer);
    }

    pub(super) fn put(&mut self, header: Header) -> OpId {
        let id = id_of(&header);
        self.streams.insert(id, header.stream_key().id());
        self.ops.insert(id, Arc::new(header));
        id
    }

    pub(super) fn peer(&self, name: &str) -> &Peer {
        &self.peers[name]
    }

    pub(super) fn peer_mut(&mut self, name: &str) -> &mut Peer {
        self.peers.get_mut(name).unwrap()
    }

    /// The maximal acts of a view.
    pub(super) fn heads(&self, name: &str) -> Vec<OpId> {
        let acts: Vec<_> = self.peer(name).view.iter().filter(|id| self.ops[id].control().is_some()).collect();
        let used: BTreeSet<OpId> =
            acts.iter().flat_map(|id| self.ops[id].control_heads.iter().copied().chain([self.ops[id].prev])).collect();
        acts.into_iter().filter(|id| !used.contains(id)).copied().collect()
    }

    /// The header of a peer's next op.
    pub(super) fn draft(&mut self, name: &str, shard: ShardId, payload: Payload) -> Header {
        self.clock += 1;
        let peer = self.peer(name);
        let (seq, prev) = peer.tips.get(&shard).map_or((1, OpId::ZERO), |(seq, id)| (seq + 1, *id));
        let mut session = [0; SessionId::LEN];
        session.copy_from_slice(&peer.session.to_le_bytes());
        let names = seq == 1 && !shard.is_control();
        let earlier = peer.ended.get(&shard).filter(|_| names).into_iter().copied().collect();
        Header {
            version: limits::OP_VERSION,
            cluster: self.cluster,
            shard,
            author: peer.key,
            certificate: peer.certificate,
            session: SessionId::new(session),
            seq,
            prev,
            earlier,
            hlc: Hlc::new(self.clock, 0),
            control_heads: self.heads(name),
            payload,
        }
    }

    /// Makes a drafted op the peer's own latest.
    pub(super) fn sign(&mut self, name: &str, header: Header) -> OpId {
        let (shard, seq) = (header.shard.clone(), header.seq);
        let id = self.put(header);
        let peer = self.peer_mut(name);
        peer.tips.insert(shard, (seq, id));
        peer.view.insert(id);
        id
    }

    pub(super) fn draft_act(&mut self, name: &str, act: Act) -> Header {
        let mut proof = self.peer(name).proof.clone();
        proof.sort();
        proof.truncate(limits::PROOF_MAX);
        self.draft(name, ShardId::control(), Payload::from(Control { proof, act, for_whom: None }))
    }

    pub(super) fn act(&mut self, name: &str, act: Act) -> OpId {
        let header = self.draft_act(name, act);
        self.sign(name, header)
    }

    pub(super) fn draft_write(&mut self, name: &str, collection: &str) -> Header {
        let transaction = write_of(self.peer(name).principal, self.clock, WriteAction::Create);
        let shard = ShardId { collection: collection.parse().unwrap(), index: 0, of: 1 };
        self.draft(name, shard, Payload::Data(vec![transaction]))
    }

    /// A write that a peer makes for a principal, its own or another.
    pub(super) fn draft_write_for(
        &mut self,
        name: &str,
        whom: PrincipalId,
        collection: &str,
        doc: &str,
        action: WriteAction,
    ) -> Header {
        let shard = ShardId { collection: collection.parse().unwrap(), index: 0, of: 1 };
        self.draft(name, shard, Payload::Data(vec![write_to(whom, doc, action)]))
    }

    pub(super) fn write(&mut self, name: &str, collection: &str) -> OpId {
        let header = self.draft_write(name, collection);
        self.sign(name, header)
    }

    /// A sibling of an op: same place in the stream, other content. Nobody's view has it.
    pub(super) fn sibling(&mut self, of: OpId) -> Header {
        let mut header = (*self.ops[&of]).clone();
        self.clock += 1;
        let doc = self.clock;
        match &mut header.payload {
            Payload::Data(transactions) => {
                transactions[0] = write_of(transactions[0].principal, doc, WriteAction::Create);
            }
            Payload::Control(_) => header.hlc = Hlc::new(self.clock, 0),
        }
        header
    }

    // ---- acts in short ----

    pub(super) fn certify(&mut self, by: &str, name: &str, principal: Option<PrincipalId>, rank: i16) -> OpId {
        let act = Certify { principal, key: key(name), rank: Rank(rank), not_after: None, name: name.to_owned() };
        self.act(by, Act::Certify(act))
    }

    pub(super) fn grant(&mut self, by: &str, to: &str, what: BuiltInRole, on: &str, rank: i16) -> OpId {
        let principal = self.peer(to).principal;
        let act = Grant { principal, role: role(what), target: target(on), rank: Rank(rank), not_after: None };
        self.act(by, Act::Grant(act))
    }

    pub(super) fn member(&mut self, by: &str, name: &str, rank: i16) -> OpId {
        let peer = self.peer(name);
        let labels = vec![("region".to_owned(), "eu".to_owned())];
        let (principal, key) = (peer.principal, peer.key);
        self.act(by, Act::Member(Member { principal, key, rank: Rank(rank), not_after: None, labels }))
    }

    /// A new peer with a certificate and perhaps a grant, both known to the peer.
    pub(super) fn enrol(
        &mut self,
        by: &str,
        name: &'static str,
        ranks: (i16, i16),
        grant: Option<(BuiltInRole, &str)>,
    ) {
        let certificate = self.certify(by, name, None, ranks.0);
        self.add_peer(name, key(name), certificate.into(), certificate);
        if let Some((what, on)) = grant {
            let grant = self.grant(by, name, what, on, ranks.1);
            self.peer_mut(name).proof.push(grant);
        }
        let view = self.peer(by).view.clone();
        self.peer_mut(name).view = view;
    }

    /// Enrols a user and returns its first write.
    pub(super) fn enrol_given(&mut self, by: &str, name: &'static str) -> OpId {
        self.enrol(by, name, (30, 31), Some((BuiltInRole::Editor, "*")));
        self.write(name, "x")
    }

    pub(super) fn sync_all(&mut self) {
        let all: BTreeSet<OpId> = self.peers.values().flat_map(|peer| peer.view.iter().copied()).collect();
        for peer in self.peers.values_mut() {
            peer.view = all.clone();
        }
    }

    pub(super) fn sync(&mut self, a: &str, b: &str) {
        let both: BTreeSet<OpId> = self.peer(a).view.union(&self.peer(b).view).copied().collect();
        self.peer_mut(a).view = both.clone();
        self.peer_mut(b).view = both;
    }

    /// The furthest ops of the streams under these certificates, as a peer sees them.
    pub(super) fn pins(&self, by: &str, fits: impl Fn(&Header) -> bool) -> Vec<Pin> {
        let mut furthest: BTreeMap<StreamId, Pin> = BTreeMap::new();
        for id in &self.peer(by).view {
            let header = &self.ops[id];
            if fits(header) {
                let stream = self.streams[id];
                let pin = Pin { stream, seq: header.seq, head: *id };
                let entry = furthest.entry(stream).or_insert(pin);
                if entry.seq < pin.seq {
                    *entry = pin;
                }
            }
        }
        furthest.into_values().collect()
    }

    pub(super) fn pins_of(&self, by: &str, victim: &str) -> Vec<Pin> {
        self.pins_of_principal(by, self.peer(victim).principal)
    }

    /// Of the streams of a principal, and of those in which others write for it.
    pub(super) fn pins_of_principal(&self, by: &str, principal: PrincipalId) -> Vec<Pin> {
        let concerns = |header: &Header| {
            self.principal_of(header) == Some(principal)
                || header.transactions().iter().any(|transaction| transaction.principal == principal)
        };
        let streams: BTreeSet<StreamId> =
            self.peer(by).view.iter().filter(|id| concerns(&self.ops[*id])).map(|id| self.streams[id]).collect();
        self.pins(by, |header| streams.contains(&header.stream_key().id()))
    }

    pub(super) fn principal_of(&self, header: &Header) -> Option<PrincipalId> {
        let certificate = header.certificate;
        self.ops.get(&certificate)?.control()?.act.statement(certificate).map(|statement| statement.to)
    }

    pub(super) fn revoke_with(&mut self, by: &str, target: RevokeTarget, pins: Vec<Pin>, cascade: bool) -> OpId {
        self.act(by, Act::Revoke(Revoke { target, pins, cascade, why: String::new() }))
    }

    /// Leaves out the pins that follow from others.
    pub(super) fn without_derived(&self, pins: Vec<Pin>) -> Vec<Pin> {
        let firsts = self.ops.values().filter(|header| pins.iter().any(|pin| pin.stream == header.stream_key().id()));
        let named: BTreeSet<Pin> = firsts.flat_map(|header| header.earlier_ends()).collect();
        pins.into_iter().filter(|pin| !named.contains(pin)).collect()
    }

    /// Revokes all of a principal, with pins at what the revoker has seen.
    pub(super) fn revoke(&mut self, by: &str, victim: &str) -> OpId {
        let pins = self.pins_of(by, victim);
        let principal = self.peer(victim).principal;
        self.revoke_with(by, RevokeTarget::Principal(principal), pins, false)
    }

    pub(super) fn readmit(&mut self, by: &str, revocation: OpId, victim: &str) -> OpId {
        let pins = self.pins_of(by, victim);
        self.act(by, Act::Readmit(Readmit { revocation, pins }))
    }

    pub(super) fn approve(&mut self, by: &str, act: OpId) -> OpId {
        self.act(by, Act::Approve(Approve { act }))
    }

    /// How many changes of owners lie before an act that makes owners.
    pub(super) fn generation(&self, owners: OpId) -> usize {
        match self.ops[&owners].control().map(|control| &control.act) {
            Some(Act::Succeed(succeed)) => 1 + self.generation(succeed.after),
            _ => 0,
        }
    }

    /// The pins of the owners' streams, as a peer sees them.
    pub(super) fn pins_of_owners(&self, by: &str, owners: OpId) -> Vec<Pin> {
        let signs = |header: &Header| {
            header.certificate == owners && !matches!(header.control().map(|c| &c.act), Some(Act::Succeed(_)))
        };
        self.pins(by, signs)
    }

    /// A change of owners that these recovery keys sign, of what a peer knows. (The rule asks who signed; that the signatures
    /// hold is checked where ops are decoded.)
    pub(super) fn draft_succession(
        &mut self,
        by: &str,
        after: OpId,
        signers: &[AuthorKey],
        owners: (&[&str], u8),
        pins: Vec<Pin>,
    ) -> Header {
        self.clock += 1;
        let mut keys: Vec<_> = owners.0.iter().map(|name| key(name)).collect();
        keys.sort();
        let mut others: Vec<_> = signers[1..].to_vec();
        others.sort();
        let signatures =
            others.into_iter().map(|key| RecoverySignature { key, signature: Signature::new([0; 64]) }).collect();
        let act = Act::Succeed(Succeed {
            after,
            principal: self.genesis().into(),
            owners: keys,
            threshold: owners.1,
            recovery: recovery(self.generation(after) + 1),
            recovery_threshold: 2,
            pins,
            signatures,
        });
        Header {
            version: limits::OP_VERSION,
            cluster: self.cluster,
            shard: ShardId::control(),
            author: signers[0],
            certificate: after,
            session: SessionId::new(self.clock.to_le_bytes()),
            seq: 1,
            prev: OpId::ZERO,
            earlier: Vec::new(),
            hlc: Hlc::new(self.clock, 0),
            control_heads: self.heads(by),
            payload: Payload::from(Control { proof: vec![after], act, for_whom: None }),
        }
    }

    /// Other keys become the owners, by two recovery keys, with pins at what a peer has seen. They are peers from now on, and
    /// see what it does.
    pub(super) fn succeed(&mut self, by: &str, after: OpId, owners: &[&'static str], threshold: u8) -> OpId {
        let pins = self.pins_of_owners(by, after);
        let generation = self.generation(after);
        let signers = [recovery_key(generation, 0), recovery_key(generation, 1)];
        let header = self.draft_succession(by, after, &signers, (owners, threshold), pins);
        let id = self.put(header);
        self.peer_mut(by).view.insert(id);
        self.install(by, id, owners);
        id
    }

    /// Makes peers of new owners.
    pub(super) fn install(&mut self, by: &str, succession: OpId, owners: &[&'static str]) {
        let view = self.peer(by).view.clone();
        for name in owners {
            self.add_peer(name, key(name), self.genesis().into(), succession);
            self.peer_mut(name).view = view.clone();
            self.peer_mut(name).view.insert(succession);
        }
        self.successions.push(succession);
    }

    /// Makes the holder of a key a witness, under a certificate of its own.
    pub(super) fn appoint(&mut self, by: &str, name: &'static str, holder: &str, rank: i16, quorum: u8) -> OpId {
        let named =
            Certify { principal: None, key: key(holder), rank: Rank(rank), not_after: None, name: name.to_owned() };
        let certificate = self.act(by, Act::Certify(named));
        let duty =
            DutyGrant { principal: certificate.into(), duty: Duty::Witness(quorum), rank: Rank(rank), not_after: None };
        let duty = self.act(by, Act::Duty(duty));
        self.add_peer(name, key(holder), certificate.into(), certificate);
        let view = self.peer(by).view.clone();
        let peer = self.peer_mut(name);
        peer.proof.push(duty);
        peer.view = view;
        self.witnesses.push(name);
        duty
    }

    /// Says which ops a witness saw last of their streams.
    pub(super) fn testify(&mut self, name: &str, saw: &[OpId]) -> OpId {
        let pin = |id: &OpId| Pin { stream: self.streams[id], seq: self.ops[id].seq, head: *id };
        let pins: BTreeMap<StreamId, Pin> = saw.iter().map(pin).map(|pin| (pin.stream, pin)).collect();
        self.act(name, Act::Evidence(Evidence { pins: pins.into_values().collect() }))
    }

    /// Goes on from an op in another way than its author did first; nobody's view has it.
    pub(super) fn branch(&mut self, of: OpId, count: usize) -> Vec<OpId> {
        let mut ops = Vec::new();
        let mut next = self.sibling(of);
        for _ in 0..count {
            let id = self.put(next);
            ops.push(id);
            next = self.sibling(id);
            next.seq += 1;
            next.prev = id;
        }
        ops
    }

    pub(super) fn fresh_session(&mut self, name: &str) {
        let peer = self.peer_mut(name);
        let mut session = [0; SessionId::LEN];
        session.copy_from_slice(&peer.session.to_le_bytes());
        for (shard, (seq, head)) in std::mem::take(&mut peer.tips) {
            peer.ended.insert(shard, SessionEnd { session: SessionId::new(session), seq, head });
        }
        peer.session += 1;
    }
}
