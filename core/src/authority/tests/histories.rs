//! Random histories of honest and hostile peers. The engine, fed in random order, with duplicates and with judging in
//! between, must agree with the reference; and the reference must have the properties T0 to T6 of `docs/authority.md`.
//!
//! `FOLKMOOT_HISTORIES=1000000 cargo test --profile checked -p folkmoot-core --lib histories` runs longer;
//! `FOLKMOOT_SEED=n` begins at another seed. A failure names its seed.

use std::collections::{BTreeMap, BTreeSet};

use super::store::Node;
use super::world::{Random, World, id_of, key, role, target, write_of};
use crate::authority::reference::{Ops, Verdicts, judge_all};
use crate::authority::{Missing, Verdict};
use crate::hlc::Hlc;
use crate::id::{OpId, SessionId, ShardId};
use crate::op::{
    Act, Approve, BuiltInRole, Certify, Collection, Control, Grant, Header, Payload, Pin, Rank, Readmit, Revoke,
    RevokeTarget, Rules, SessionEnd, WriteAction,
};

const ADMINS: [&str; 3] = ["a0", "a1", "a2"];
const SUBADMINS: [&str; 2] = ["s0", "s1"];
const USERS: [&str; 4] = ["u0", "u1", "u2", "u3"];
/// Mostly one, so that streams grow long.
const COLLECTIONS: [&str; 7] = ["x", "x", "x", "x", "x", "xa", "y"];
const TARGETS: [&str; 4] = ["*", "x*", "x", "y"];

/// How a test over histories is scaled.
pub(super) fn histories(usual: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("FOLKMOOT_SEED").unwrap_or(0);
    first..first + number("FOLKMOOT_HISTORIES").unwrap_or(usual)
}

fn peers(world: &World) -> Vec<&'static str> {
    world.peers.keys().copied().collect()
}

/// A cluster with owners, admins, admins of a part, users, and a time of honest work with some mischief.
pub(super) fn build(random: &mut Random, steps: usize) -> World {
    let (owners, threshold): (&[&'static str], u8) =
        random.pick(&[(&["o0"][..], 1), (&["o0", "o1"][..], 2), (&["o0", "o1", "o2"][..], 2)]);
    let mut world = World::new(owners, threshold);
    let agree = |world: &mut World, from: OpId| {
        if threshold > 1 {
            world.sync("o0", "o1");
            let acts: Vec<_> =
                world.ops.iter().filter(|(id, h)| h.author == key("o0") && **id >= from).map(|(id, _)| *id).collect();
            for act in acts {
                if act != world.genesis() {
                    world.approve("o1", act);
                }
            }
            world.sync("o0", "o1");
        }
    };
    let admins = 1 + random.below(ADMINS.len());
    for name in &ADMINS[..admins] {
        world.enrol("o0", name, (10, 10), Some((BuiltInRole::Admin, "*")));
    }
    agree(&mut world, OpId::ZERO);
    world.sync_all();
    for name in SUBADMINS {
        let by = ADMINS[random.below(admins)];
        let on = random.pick(&["x*", "x*", "*"]);
        world.enrol(by, name, (20, 20), Some((BuiltInRole::Admin, on)));
    }
    for name in USERS {
        let by = ADMINS[random.below(admins)];
        let what = random.pick(&[BuiltInRole::Editor, BuiltInRole::Editor, BuiltInRole::Editor, BuiltInRole::Reader]);
        let on = random.pick(&TARGETS);
        world.enrol(by, name, (30, 31), Some((what, on)));
    }
    world.sync_all();
    for _ in 0..steps {
        step(random, &mut world);
    }
    if random.chance(30) {
        removed_after_restarts(random, &mut world);
    }
    world
}

/// Somebody begins again and again, and is removed with pins of the last session, or of one before.
fn removed_after_restarts(random: &mut Random, world: &mut World) {
    let name = random.pick(&["u0", "u1", "s0"]);
    for _ in 0..2 + random.below(3) {
        restart(world, name);
        if random.chance(30) {
            fork(random, world, &[name]);
        }
    }
    world.sync(name, "a0");
    revoke(random, world, "a0", name);
    if random.chance(50) {
        restart(world, name);
    }
}

fn step(random: &mut Random, world: &mut World) {
    let names = peers(world);
    let name = random.pick(&names);
    let other = random.pick(&names);
    match random.below(100) {
        0..22 => world.sync(name, other),
        22..60 => {
            let collection = random.pick(&COLLECTIONS);
            let name = if random.chance(60) { random.pick(&["u0", "u1", "s0"]) } else { name };
            world.write(name, collection);
        }
        60..63 => {
            // Without new heads: what the stream knew before still holds.
            let collection = random.pick(&COLLECTIONS);
            let mut header = world.draft_write(name, collection);
            if header.seq > 1 {
                header.control_heads.clear();
            }
            world.sign(name, header);
        }
        63..73 => {
            let by = if random.chance(50) { random.pick(&["a0", "o0"]) } else { random.pick(&names) };
            revoke(random, world, by, other);
        }
        73..78 => {
            let what = random.pick(&[BuiltInRole::Editor, BuiltInRole::Admin, BuiltInRole::Reader]);
            let on = random.pick(&TARGETS);
            let rank = random.pick(&[11, 21, 33, 35]);
            let id = world.grant(name, other, what, on, rank);
            if random.chance(70) {
                let peer = world.peer_mut(other);
                peer.view.insert(id);
                peer.proof.push(id);
            }
        }
        78..83 => re_certify(random, world, name, other),
        83..86 => readmit(random, world, name),
        86..88 => {
            // The co-owner consents to something.
            let acts: Vec<_> = world.ops.iter().filter(|(_, h)| h.author == key("o0")).map(|(id, _)| *id).collect();
            if names.contains(&"o1") {
                let act = random.pick(&acts);
                let by = random.pick(&["o0", "o1"]);
                world.approve(by, act);
            }
        }
        88..90 => (0..1 + random.below(3)).for_each(|_| restart(world, name)),
        90..92 => expiring(random, world, name, other),
        92..97 => fork(random, world, &names),
        97..98 => {
            let on = random.pick(&COLLECTIONS).parse().unwrap();
            let config = Collection { name: on, shards: 1, types: vec![], dropped: false };
            world.act(name, Act::Collection(config));
        }
        _ => {
            // Names something that never comes.
            let mut header = world.draft_write(name, "x");
            header.control_heads.push(OpId::new([random.below(256) as u8; 32]));
            header.control_heads.sort();
            world.sign(name, header);
            world.fresh_session(name);
        }
    }
}

fn revoke(random: &mut Random, world: &mut World, by: &str, victim: &'static str) {
    let mut pins = world.pins_of(by, victim);
    if random.chance(70) {
        pins = world.without_derived(pins);
    }
    if random.chance(20) && !pins.is_empty() {
        let at = random.below(pins.len());
        if random.chance(50) {
            pins.remove(at);
        } else {
            (pins[at].seq, pins[at].head) = (0, OpId::ZERO);
        }
    }
    let peer = world.peer(victim);
    let target = if random.chance(60) {
        RevokeTarget::Principal(peer.principal)
    } else {
        let proof = peer.proof.clone();
        RevokeTarget::Statement(random.pick(&proof))
    };
    let cascade = random.chance(35);
    world.revoke_with(by, target, pins, cascade);
}

/// Begins a new session of somebody who writes, and writes.
fn restart(world: &mut World, name: &'static str) {
    world.fresh_session(name);
    world.write(name, "x");
}

/// A new certificate for the same key, under which a new stream begins; or a device of one's own.
fn re_certify(random: &mut Random, world: &mut World, by: &'static str, to: &'static str) {
    let principal = if random.chance(70) { Some(world.peer(to).principal) } else { None };
    let rank = random.pick(&[11, 22, 32, 40, 41]);
    let id = world.certify(by, to, principal, rank);
    if principal.is_some() && random.chance(60) {
        let peer = world.peer_mut(to);
        peer.proof.retain(|part| *part != peer.certificate);
        peer.proof.push(id);
        peer.certificate = id;
        peer.view.insert(id);
        world.fresh_session(to);
        if random.chance(50) {
            let id = world.grant(by, to, BuiltInRole::Editor, "*", 36);
            world.peer_mut(to).view.insert(id);
        }
    }
}

fn readmit(random: &mut Random, world: &mut World, by: &str) {
    let revocations: Vec<(OpId, RevokeTarget)> = world
        .peer(by)
        .view
        .iter()
        .filter_map(|id| match &world.ops[id].control()?.act {
            Act::Revoke(revoke) => Some((*id, revoke.target.clone())),
            _ => None,
        })
        .collect();
    if revocations.is_empty() {
        return;
    }
    let (revocation, target) = random.pick(&revocations);
    let principal = match target {
        RevokeTarget::Principal(principal) => Some(principal),
        RevokeTarget::Statement(id) => world.ops.get(&id).and_then(|h| h.control()?.act.statement(id)).map(|s| s.to),
    };
    let mut pins = world.pins(by, |header| world.principal_of(header) == principal);
    if random.chance(50) {
        pins = world.without_derived(pins);
    }
    world.act(by, Act::Readmit(Readmit { revocation, pins }));
}

fn expiring(random: &mut Random, world: &mut World, by: &str, to: &'static str) {
    let end = world.clock.saturating_add(random.below(25) as u64);
    let grant = Grant {
        principal: world.peer(to).principal,
        role: role(BuiltInRole::Editor),
        target: target("y"),
        rank: Rank(34),
        not_after: Some(Hlc::new(end, 0)),
    };
    let id = world.act(by, Act::Grant(grant));
    world.peer_mut(to).view.insert(id);
}

/// Somebody signs another op at a place of its own stream, and somebody else gets to see it.
fn fork(random: &mut Random, world: &mut World, names: &[&'static str]) {
    let own = random.pick(names);
    let author = world.peer(own).key;
    let ops: Vec<_> =
        world.ops.iter().filter(|(_, h)| h.author == author && !h.is_genesis()).map(|(id, _)| *id).collect();
    if ops.is_empty() {
        return;
    }
    let of = random.pick(&ops);
    let mut header = world.sibling(of);
    if random.chance(50) {
        header.earlier.clear();
    }
    let mut id = world.put(header);
    let mut chain = vec![id];
    for _ in 0..random.below(3) {
        let mut next = world.sibling(id);
        next.seq += 1;
        next.prev = id;
        id = world.put(next);
        chain.push(id);
    }
    let to = random.pick(names);
    if random.chance(60) {
        world.peer_mut(to).view.extend(chain);
    }
}

/// Anything that a peer's keys can sign: forks, old heads, wrong proofs, other principals, acts of every kind.
pub(super) fn attack(random: &mut Random, world: &World, name: &'static str, count: usize) -> World {
    let mut world = world.clone();
    let mut made: Vec<OpId> = vec![];
    let names = peers(&world);
    let acts: Vec<OpId> = world.ops.iter().filter(|(_, h)| h.control().is_some()).map(|(id, _)| *id).collect();
    let all: Vec<OpId> = world.ops.keys().copied().collect();
    for _ in 0..count {
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
            let principal = world.peer(victim).principal;
            let action = random.pick(&[WriteAction::Create, WriteAction::Update, WriteAction::Delete]);
            Payload::Data(vec![write_of(principal, random.below(5) as u64, action)])
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
            Payload::Control(Control { proof, act, for_whom: None })
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

fn hostile_act(
    random: &mut Random,
    world: &World,
    own: &'static str,
    victim: &'static str,
    statements: &[OpId],
    pins: Vec<Pin>,
) -> Act {
    let principal = world.peer(victim).principal;
    let rank = Rank(random.pick(&[1, 9, 10, 11, 20, 21, 30, 31, 32, 40, 60]));
    let not_after = None;
    match random.below(16) {
        0..5 => {
            let what = random.pick(&[BuiltInRole::Admin, BuiltInRole::Admin, BuiltInRole::Editor]);
            let on = random.pick(&TARGETS);
            Act::Grant(Grant { principal, role: role(what), target: target(on), rank, not_after })
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
        _ => Act::Rules(Rules { version: 2 }),
    }
}

/// T0: the engine in any order, against the reference, also half way.
pub(super) fn engine_agrees(random: &mut Random, world: &World) -> Result<(), String> {
    let mut ops: Vec<(OpId, std::sync::Arc<Header>)> = world.ops.iter().map(|(id, h)| (*id, h.clone())).collect();
    if random.chance(40) {
        // Some pinned ops never arrive.
        let pins = world.ops.values().filter_map(|header| header.control()).flat_map(|control| control.act.pins());
        let pinned: Vec<OpId> =
            pins.map(|pin| pin.head).filter(|id| world.ops.get(id).is_some_and(|op| op.control().is_none())).collect();
        if !pinned.is_empty() {
            let withheld: BTreeSet<OpId> = (0..3).map(|_| random.pick(&pinned)).collect();
            ops.retain(|(id, _)| !withheld.contains(id));
        }
    }
    // Duplicates.
    for _ in 0..ops.len() / 10 {
        let again = random.pick(&ops);
        ops.push(again);
    }
    if random.chance(70) {
        random.shuffle(&mut ops);
    } else {
        // Nearly in order, as between well connected nodes.
        ops.sort_by_key(|(id, header)| (header.hlc, *id));
        for _ in 0..ops.len() / 4 {
            let at = random.below(ops.len() - 1);
            ops.swap(at, at + 1);
        }
    }
    let mut node = Node::new(world.cluster);
    let half = random.below(ops.len());
    let eager = random.chance(50);
    for (count, (id, header)) in ops.iter().enumerate() {
        node.receive(*id, header);
        if eager || random.chance(10) {
            node.catch_up();
        }
        if count == half {
            node.catch_up();
            node.check()?;
        }
    }
    node.catch_up();
    node.check()
}

fn accepted(verdicts: &Verdicts) -> BTreeSet<OpId> {
    let control = verdicts.control.iter().filter(|(_, v)| v.is_allowed()).map(|(id, _)| *id);
    let data = verdicts.data.iter().filter(|(_, v)| v.is_allowed()).map(|((id, _), _)| *id);
    control.chain(data).collect()
}

fn effective_acts<'a>(world: &'a World, verdicts: &Verdicts) -> Vec<(OpId, &'a Act)> {
    let acts = verdicts.control.iter().filter(|(_, v)| v.is_allowed());
    acts.map(|(id, _)| (*id, &world.ops[id].control().unwrap().act)).collect()
}

/// Whether an effective revocation that nobody readmitted cuts all that was ever given to the peer, whose key nobody
/// else has.
fn is_removed(world: &World, verdicts: &Verdicts, name: &str) -> bool {
    let peer = world.peer(name);
    let acts = effective_acts(world, verdicts);
    let key_elsewhere = world.ops.iter().any(|(id, header)| {
        matches!(header.control().map(|c| &c.act), Some(Act::Certify(c)) if c.key == peer.key
            && c.principal.unwrap_or((*id).into()) != peer.principal)
    });
    let other_keys = world.ops.iter().any(|(id, header)| {
        matches!(header.control().map(|c| &c.act), Some(Act::Certify(c)) if c.key != peer.key
            && c.principal.unwrap_or((*id).into()) == peer.principal)
    });
    !key_elsewhere
        && !other_keys
        && acts.iter().any(|(id, act)| {
            let Act::Revoke(revoke) = act else { return false };
            let readmitted = world
                .ops
                .values()
                .any(|header| matches!(header.control().map(|c| &c.act), Some(Act::Readmit(r)) if r.revocation == *id));
            let past = ancestors(&world.ops, *id);
            let strength = strength(world, *id);
            revoke.target == RevokeTarget::Principal(peer.principal)
                && !readmitted
                && world.ops.iter().all(|(statement, header)| {
                    let Some(made) = header.control().and_then(|c| c.act.statement(*statement)) else { return true };
                    made.to != peer.principal || (past.contains(statement) && strength < made.rank)
                })
        })
}

fn strength(world: &World, act: OpId) -> Rank {
    let proof = &world.ops[&act].control().unwrap().proof;
    let ranks = proof.iter().filter_map(|id| world.ops.get(id)?.control()?.act.statement(*id)).map(|s| s.rank);
    ranks.max().unwrap_or(Rank::RECOVERY)
}

fn ancestors(ops: &Ops, id: OpId) -> BTreeSet<OpId> {
    let mut seen = BTreeSet::new();
    let mut open = vec![id];
    while let Some(id) = open.pop() {
        if let Some(header) = ops.get(&id).filter(|_| seen.insert(id)) {
            open.extend(header.control_heads.iter().copied().chain([header.prev]));
        }
    }
    seen
}

/// How often the properties were really put to the test.
#[derive(Default, Debug)]
pub(super) struct Tried {
    pub(super) removed: usize,
    pub(super) stronger: usize,
    pub(super) final_ones: usize,
    pub(super) forged: usize,
    pub(super) confined: usize,
}

/// T1 to T6, on the reference.
pub(super) fn properties(random: &mut Random, world: &World, tried: &mut Tried) -> Result<(), String> {
    let mut world = world.clone();
    let victim = random.pick(&[&SUBADMINS[..], &USERS[..]].concat());
    if random.chance(60) {
        // Somebody is removed by an admin that has seen all there is.
        let all: BTreeSet<OpId> = world.ops.keys().copied().collect();
        world.peer_mut("a0").view = all;
        world.fresh_session("a0");
        world.revoke("a0", victim);
    }
    let world = &world;
    let base = judge_all(world.cluster, &world.ops);
    one_per_position(world, &base)?;
    nothing_on_forged_chains(random, world, &base, tried)?;
    let names = peers(world);
    let attacker = if random.chance(60) { victim } else { random.pick(&names) };
    let count = 1 + random.below(12);
    let attacked = attack(random, world, attacker, count);
    let after = judge_all(world.cluster, &attacked.ops);
    one_per_position(&attacked, &after)?;
    // T1.
    if is_removed(world, &base, attacker) {
        tried.removed += 1;
        if let Some(id) = accepted(&after).iter().find(|id| !world.ops.contains_key(id)) {
            return Err(format!("T1: {attacker} is removed, but {id:?} counts"));
        }
        if accepted(&base) != accepted(&after) {
            return Err(format!("T1: {attacker} is removed, but changed the fate of others"));
        }
    }
    // T2: weaker ones never change what stronger or equal ones did, their own streams aside.
    let strongest = world.ops.iter().filter_map(|(id, header)| {
        let control = header.control()?;
        let statement = control.act.statement(*id)?;
        let theirs = statement.to == world.peer(attacker).principal
            || matches!(&control.act, Act::Certify(c) if c.key == world.peer(attacker).key);
        theirs.then_some(statement.rank)
    });
    let strongest = strongest.min().unwrap_or(Rank::RECOVERY);
    if strongest > Rank::OWNER {
        for (id, verdict) in &base.control {
            let header = &world.ops[id];
            if header.author != world.peer(attacker).key && strength(world, *id) <= strongest {
                tried.stronger += 1;
                if verdict.is_allowed() != after.control[id].is_allowed() {
                    return Err(format!("T2: {attacker} of rank {strongest:?} changed the fate of {id:?}"));
                }
            }
        }
    }
    // T3: final verdicts are final.
    let before = base.control.iter().map(|(id, v)| ((*id, 0), v)).chain(base.data.iter().map(|(k, v)| (*k, v)));
    for ((id, index), verdict) in before {
        if matches!(verdict, Verdict::NotAllowed | Verdict::Refused) {
            tried.final_ones += 1;
            let now = after.data.get(&(id, index)).or_else(|| after.control.get(&id));
            if now != Some(verdict) {
                return Err(format!("T3: {id:?} was {verdict:?}, is {now:?}"));
            }
        }
    }
    confined(random, world, tried)
}

/// T4.
fn one_per_position(world: &World, verdicts: &Verdicts) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for id in accepted(verdicts) {
        if !seen.insert((world.streams[&id], world.ops[&id].seq)) {
            return Err(format!("T4: a second op counts at the place of {id:?}"));
        }
    }
    Ok(())
}

/// T5: a replica that has a forged branch, but not the pinned one.
fn nothing_on_forged_chains(
    random: &mut Random,
    world: &World,
    base: &Verdicts,
    tried: &mut Tried,
) -> Result<(), String> {
    for (revocation, act) in effective_acts(world, base) {
        let Act::Revoke(revoke) = act else { continue };
        let RevokeTarget::Principal(principal) = revoke.target else { continue };
        for pin in &revoke.pins {
            let Some(end) = world.ops.get(&pin.head).filter(|end| end.control().is_none()) else { continue };
            // Only where the revocation cuts the certificate, and nobody pins or readmits besides.
            let certificate = world.ops[&end.certificate].control().unwrap().act.statement(end.certificate).unwrap();
            let cut = certificate.to == principal
                && certificate.rank > strength(world, revocation)
                && ancestors(&world.ops, revocation).contains(&end.certificate);
            let readmitted = world
                .ops
                .values()
                .any(|h| matches!(h.control().map(|c| &c.act), Some(Act::Readmit(r)) if r.revocation == revocation));
            if !cut || readmitted || !random.chance(40) {
                continue;
            }
            let on_stream: Vec<OpId> =
                world.streams.iter().filter(|(_, stream)| **stream == pin.stream).map(|(id, _)| *id).collect();
            let at = random.pick(&on_stream);
            let seq = world.ops[&at].seq;
            let mut without = world.clone();
            let forged = without.sibling(at);
            without.ops.retain(|id, h| world.streams[id] != pin.stream || h.seq < seq);
            let forged_id = id_of(&forged);
            without.put(forged);
            tried.forged += 1;
            let verdict = judge_all(world.cluster, &without.ops).data.get(&(forged_id, 0)).copied();
            if verdict.is_some_and(|verdict| verdict.is_allowed()) {
                return Err(format!("T5: forged {forged_id:?} counts beside a pin of {revocation:?}"));
            }
        }
    }
    Ok(())
}

/// T6: an admin of a part never gets anything else written.
fn confined(random: &mut Random, world: &World, tried: &mut Tried) -> Result<(), String> {
    for name in SUBADMINS {
        let peer = world.peer(name);
        let beyond = world.ops.iter().any(|(id, header)| {
            let Some(act) = header.control().map(|control| &control.act) else { return false };
            match act {
                Act::Grant(grant) => grant.principal == peer.principal && grant.target.collections != "x*",
                // Its key already speaks for somebody else.
                Act::Certify(c) => c.key == peer.key && act.statement(*id).unwrap().to != peer.principal,
                _ => false,
            }
        });
        if beyond {
            continue;
        }
        tried.confined += 1;
        let attacked = attack(random, world, name, 12);
        let after = judge_all(world.cluster, &attacked.ops);
        for id in accepted(&after).iter().filter(|id| !world.ops.contains_key(id)) {
            let header = &attacked.ops[id];
            if header.control().is_none() && !header.collection().as_str().starts_with('x') {
                return Err(format!("T6: {name} may administer x* only, but {id:?} writes {}", header.collection()));
            }
        }
    }
    Ok(())
}

#[test]
fn the_engine_agrees_with_the_reference() {
    for seed in histories(600) {
        let mut random = Random::new(seed);
        let steps = 20 + random.below(60);
        let mut world = build(&mut random, steps);
        if random.chance(60) {
            let names = peers(&world);
            let attacker = random.pick(&names);
            world = attack(&mut random, &world, attacker, 10);
        }
        if let Err(what) = engine_agrees(&mut random, &world) {
            panic!("seed {seed}: {what}");
        }
    }
}

#[test]
fn the_rule_has_its_properties() {
    let mut tried = Tried::default();
    let seeds = histories(150);
    for seed in seeds.clone() {
        let mut random = Random::new(seed ^ 0x5eed);
        let world = build(&mut random, 60);
        if let Err(what) = properties(&mut random, &world, &mut tried) {
            panic!("seed {seed}: {what}");
        }
    }
    // A property that is never tried proves nothing.
    let enough = (seeds.end - seeds.start) as usize / 40;
    assert!(
        [tried.removed, tried.stronger, tried.final_ones, tried.forged, tried.confined].iter().all(|n| *n > enough),
        "{tried:?}"
    );
}

#[test]
fn histories_reach_every_verdict() {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for seed in 0..100 {
        let mut random = Random::new(seed);
        let world = build(&mut random, 60);
        let verdicts = judge_all(world.cluster, &world.ops);
        for verdict in verdicts.control.values().chain(verdicts.data.values()) {
            let kind = match verdict {
                Verdict::Deferred(Missing::Consent(_)) => "deferred: consent".to_owned(),
                Verdict::Deferred(Missing::Pinned(_)) => "deferred: pin".to_owned(),
                other => other.kind().to_owned(),
            };
            *seen.entry(kind).or_default() += 1;
        }
    }
    for kind in ["allowed", "deferred", "deferred: consent", "not_allowed", "after_revocation", "forked"] {
        assert!(seen.get(kind).is_some_and(|n| *n > 20), "{kind}: {seen:?}");
    }
}
