//! What somebody with keys and bad intent may sign.

use std::collections::{BTreeMap, BTreeSet};

use super::histories::{COLLECTIONS, TARGETS, peers, some_doc, some_role};
use super::rights::{duty, introduce, join, revision};
use super::world::{Random, World, key, recovery_key, target, write_to};
use crate::hlc::Hlc;
use crate::id::{OpId, PrincipalId, SessionId, ShardId};
use crate::op::{
    Act, Action, Approve, Certify, Control, Duty, Evidence, Grant, Payload, Pin, PrincipalKind, Rank, Readmit, Revoke,
    RevokeTarget, Rules, SessionEnd, WriteAction,
};

/// Anything that a peer's keys can sign: forks, old heads, wrong proofs, other principals, acts of every kind.
pub(super) fn attack(random: &mut Random, world: &World, name: &'static str, count: usize) -> World {
    let mut world = world.clone();
    let mut made: Vec<OpId> = vec![];
    let names = peers(&world);
    let acts: Vec<OpId> = world.ops.iter().filter(|(_, h)| h.control().is_some()).map(|(id, _)| *id).collect();
    let all: Vec<OpId> = world.ops.keys().copied().collect();
    for _ in 0..count {
        if random.chance(4) {
            // One recovery key is stolen too, and owners' keys pass for others.
            let after = random.pick(&[&[world.genesis()][..], &world.successions].concat());
            let own = world.peer(name).key;
            let stolen = recovery_key(world.generation(after), 0);
            let signers = random.pick(&[vec![own, stolen], vec![stolen, own], vec![stolen]]);
            let pins = world.pins_of_owners(name, after);
            let header = world.draft_succession(name, after, &signers, (&[name], 1), pins);
            made.push(world.put(header));
            continue;
        }
        let peer = world.peer(name).clone();
        let statements: Vec<OpId> = acts.iter().chain(&made).copied().collect();
        let own: Vec<OpId> =
            world.ops.iter().filter(|(_, h)| h.author == peer.key && !h.is_genesis()).map(|(id, _)| *id).collect();
        let victim = if random.chance(50) { name } else { random.pick(&names) };
        let pins: Vec<Pin> = (0..random.below(6))
            .map(|_| random.pick(&all))
            .map(|id| (world.streams[&id], Pin { stream: world.streams[&id], seq: world.ops[&id].seq, head: id }))
            .collect::<BTreeMap<_, _>>()
            .into_values()
            .collect();
        let certificates: Vec<OpId> = statements
            .iter()
            .filter(|id| matches!(&world.ops[*id].control().unwrap().act, Act::Certify(c) if c.key == peer.key))
            .copied()
            .chain([peer.certificate])
            .collect();
        let certificate = random.pick(&certificates);
        let payload = if random.chance(40) {
            let principal = somebody(random, &world, victim);
            let action = random.pick(&[WriteAction::Create, WriteAction::Update, WriteAction::Delete]);
            let doc = some_doc(random, principal);
            Payload::Data(vec![write_to(principal, &doc, action)])
        } else {
            let mut proof: Vec<OpId> = if random.chance(65) { peer.proof.clone() } else { vec![] };
            proof.extend((0..random.below(3)).map(|_| random.pick(&statements)));
            proof.push(certificate);
            proof.extend(made.last());
            let proof: BTreeSet<OpId> = proof.into_iter().collect();
            let mut proof: Vec<OpId> = proof.into_iter().collect();
            if random.chance(40) {
                proof = vec![certificate];
            }
            let act = hostile_act(random, &world, name, victim, &statements, pins);
            let for_whom = random.chance(20).then(|| world.peer(victim).principal);
            Payload::from(Control { proof, act, for_whom })
        };
        let shard = match &payload {
            Payload::Data(_) => ShardId { collection: random.pick(&COLLECTIONS).parse().unwrap(), index: 0, of: 1 },
            Payload::Control(_) => ShardId::control(),
        };
        let mut header = world.draft(name, shard.clone(), payload);
        header.certificate = certificate;
        header.session = SessionId::new([100 + random.below(3) as u8; 8]);
        header.seq = 1;
        header.prev = OpId::ZERO;
        let same: Vec<OpId> = own.into_iter().filter(|id| world.ops[id].shard == shard).collect();
        if !same.is_empty() && random.chance(75) {
            let base = random.pick(&same);
            let old = world.ops[&base].clone();
            header.session = old.session;
            if random.chance(85) {
                header.certificate = old.certificate;
            }
            (header.seq, header.prev) = if random.chance(55) { (old.seq + 1, base) } else { (old.seq, old.prev) };
            if let Payload::Control(control) = &mut header.payload
                && !control.proof.contains(&header.certificate)
            {
                control.proof.push(header.certificate);
                control.proof.sort();
            }
        }
        if random.chance(60) {
            let mut heads: BTreeSet<OpId> = (0..1 + random.below(3)).map(|_| random.pick(&statements)).collect();
            heads.extend(made.last().filter(|_| random.chance(60)));
            header.control_heads = heads.into_iter().collect();
        }
        let is_first = header.seq == 1 && header.control().is_none();
        header.earlier.clear();
        if is_first && random.chance(60) {
            // Its own ends, true and false ones.
            let end = |id: OpId| SessionEnd { session: world.ops[&id].session, seq: world.ops[&id].seq, head: id };
            let ends =
                (0..1 + random.below(3)).map(|_| end(random.pick(&same_or(&same, &all)))).map(|end| (end.session, end));
            header.earlier = ends.collect::<BTreeMap<_, _>>().into_values().collect();
        }
        if random.chance(5) {
            header.hlc = Hlc::new(random.below(world.clock as usize) as u64, 0);
        }
        let id = world.put(header);
        if world.ops[&id].control().is_some() {
            made.push(id);
        }
        world.peer_mut(name).view.insert(id);
    }
    world
}

fn same_or(same: &[OpId], all: &[OpId]) -> Vec<OpId> {
    if same.is_empty() { all.to_vec() } else { same.to_vec() }
}

/// The principal of a peer, or one that has no key.
fn somebody(random: &mut Random, world: &World, peer: &str) -> PrincipalId {
    let keyless = [&world.served[..], &world.groups[..]].concat();
    if !keyless.is_empty() && random.chance(40) { random.pick(&keyless) } else { world.peer(peer).principal }
}

fn hostile_act(
    random: &mut Random,
    world: &World,
    own: &'static str,
    victim: &'static str,
    statements: &[OpId],
    pins: Vec<Pin>,
) -> Act {
    let principal = somebody(random, world, victim);
    let rank = Rank(random.pick(&[1, 9, 10, 11, 20, 21, 30, 31, 32, 40, 60]));
    let not_after = None;
    match random.below(24) {
        0..5 => {
            let role = some_role(random, world);
            let target = target(random.pick(&TARGETS));
            let not_after = random.chance(20).then(|| Hlc::new(world.clock + 50, 0));
            Act::Grant(Grant { principal, role, target, rank, not_after })
        }
        5..8 => {
            let principal = if random.chance(80) { Some(principal) } else { None };
            Act::Certify(Certify { principal, key: key(own), rank, not_after, name: String::new() })
        }
        8..10 => {
            let target = RevokeTarget::Principal(principal);
            Act::Revoke(Revoke { target, pins, cascade: random.chance(50), why: String::new() })
        }
        10..12 => {
            let target = RevokeTarget::Statement(random.pick(statements));
            Act::Revoke(Revoke { target, pins, cascade: random.chance(50), why: String::new() })
        }
        12..14 => {
            let is_revocation = |id: &&OpId| matches!(world.ops[*id].control().unwrap().act, Act::Revoke(_));
            let revocations: Vec<OpId> = statements.iter().filter(is_revocation).copied().collect();
            let revocation = if revocations.is_empty() { statements[0] } else { random.pick(&revocations) };
            let pins = if random.chance(50) { world.pins_of(own, own) } else { pins };
            Act::Readmit(Readmit { revocation, pins })
        }
        14 => Act::Approve(Approve { act: random.pick(statements) }),
        15 => Act::Rules(Rules { version: 2 }),
        16 | 17 => {
            let on = target(random.pick(&TARGETS));
            let what = random.pick(&[
                Duty::ActFor(on.clone()),
                Duty::ActFor(on.clone()),
                Duty::Registrar(on),
                Duty::Warden(()),
                Duty::Witness(1),
            ]);
            duty(world.peer(own).principal, what, rank.0)
        }
        18 | 19 if !world.groups.is_empty() => join(principal, random.pick(&world.groups), rank.0),
        22 | 23 if !pins.is_empty() => Act::Evidence(Evidence { pins }),
        20 => introduce(random.pick(&PrincipalKind::ALL), rank.0),
        _ => revision(&[Action::Read, Action::Create, Action::Administer], &[Action::Update], rank.0),
    }
}
