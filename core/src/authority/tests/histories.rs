//! Random histories of honest and hostile peers. The engine, fed in random order, with duplicates and with judging in
//! between, must agree with the reference; and the reference must have the properties T0 to T7 of `docs/authority.md`.
//!
//! `FOLKMOOT_HISTORIES=1000000 cargo test --profile checked -p folkmoot-core --lib histories` runs longer;
//! `FOLKMOOT_SEED=n` begins at another seed. A failure names its seed.

use std::collections::{BTreeMap, BTreeSet};

use super::attack::attack;
use super::peppers::shares;
use super::properties::{Tried, properties};
use super::rights::{duty, grant, introduce, join, revision};
use super::store::Node;
use super::world::{Random, World, declare, key, paths, recovery_key, role, target, write_to};
use crate::authority::reference::judge_all;
use crate::authority::{Missing, Verdict};
use crate::hlc::Hlc;
use crate::id::{DocId, OpId, PrincipalId, StreamId};
use crate::op::{
    Act, Action, Actions, BuiltInRole, Collection, Documents, Duty, Erase, Erased, Evidence, FieldPaths, Fields, Grant,
    Header, Payload, Pin, PrincipalKind, Rank, Readmit, RevokeTarget, Role, Target, Withdraw, WriteAction,
};

/// Owners of whom others consent to what they do: at the beginning, and after a change.
const OWNERS: [&str; 4] = ["o0", "o1", "p0", "p1"];
const ADMINS: [&str; 3] = ["a0", "a1", "a2"];
pub(super) const SUBADMINS: [&str; 2] = ["s0", "s1"];
pub(super) const USERS: [&str; 4] = ["u0", "u1", "u2", "u3"];
/// Mostly one, so that streams grow long.
pub(super) const COLLECTIONS: [&str; 7] = ["x", "x", "x", "x", "x", "xa", "y"];
pub(super) const TARGETS: [&str; 4] = ["*", "x*", "x", "y"];

/// How a test over histories is scaled.
pub(super) fn histories(usual: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("FOLKMOOT_SEED").unwrap_or(0);
    first..first + number("FOLKMOOT_HISTORIES").unwrap_or(usual)
}

pub(super) fn peers(world: &World) -> Vec<&'static str> {
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
    if random.chance(50) {
        watch(random, &mut world);
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
        if random.chance(75) {
            world.enrol(by, name, (30, 31), Some((what, on)));
            continue;
        }
        world.enrol(by, name, (30, 31), None);
        let principal = world.peer(name).principal;
        for _ in 0..1 + random.below(2) {
            let on = Target { fields: some_limit(random), ..target(random.pick(&TARGETS)) };
            let given = world.act(by, grant(principal, role(BuiltInRole::Editor), on, 31));
            world.peer_mut(name).proof.push(given);
        }
    }
    for name in ["s0", "u0"] {
        let membership = world.member("a0", name, 32);
        world.memberships.insert(name, membership);
    }
    world.sync_all();
    if random.chance(60) {
        share(random, &mut world);
    }
    for _ in 0..steps {
        if !world.witnesses.is_empty() && random.chance(12) {
            give_evidence(random, &mut world);
        } else if random.chance(3) {
            change_owners(random, &mut world);
        } else if !world.served.is_empty() && random.chance(35) {
            shared_step(random, &mut world);
        } else {
            step(random, &mut world);
        }
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

/// Witnesses of forks: mostly strong ones, one perhaps with the key of a user.
fn watch(random: &mut Random, world: &mut World) {
    for name in ["w0", "w1", "w2"] {
        let (rank, quorum) = (random.pick(&[5, 5, 5, 5, 20, 30]), random.pick(&[1, 1, 2, 2, 2, 3]));
        let holder = if name == "w2" && random.chance(40) { "u0" } else { name };
        world.appoint("o0", name, holder, rank, quorum);
    }
}

/// A user writes, and goes on in two ways or more.
fn forked_user(random: &mut Random, world: &mut World) -> StreamId {
    let name = random.pick(&USERS);
    if random.chance(70) {
        world.fresh_session(name);
    }
    let first = world.write(name, "x");
    let mut trunk: Vec<OpId> = (0..1 + random.below(3)).map(|_| world.write(name, "x")).collect();
    trunk.push(first);
    for _ in 0..1 + random.below(2) {
        let of = random.pick(&trunk);
        let count = 1 + random.below(4);
        world.branch(of, count);
    }
    world.streams[&first]
}

/// Witnesses say what they saw of a forked stream: mostly the same branch, some of them something else, or what nobody has.
fn give_evidence(random: &mut Random, world: &mut World) {
    let mut places: BTreeMap<(StreamId, u64), usize> = BTreeMap::new();
    for (id, header) in &world.ops {
        *places.entry((world.streams[id], header.seq)).or_default() += 1;
    }
    let forked: BTreeSet<StreamId> =
        places.iter().filter(|(_, count)| **count > 1).map(|((stream, _), _)| *stream).collect();
    if forked.is_empty() {
        let names = peers(world);
        return fork(random, world, &names);
    }
    let stream = if random.chance(60) {
        forked_user(random, world)
    } else {
        random.pick(&forked.into_iter().collect::<Vec<_>>())
    };
    let ops: Vec<OpId> = world.streams.iter().filter(|(_, of)| **of == stream).map(|(id, _)| *id).collect();
    let furthest = ops.iter().map(|id| world.ops[id].seq).max().unwrap_or(0);
    let ends: Vec<OpId> = ops.iter().copied().filter(|id| world.ops[id].seq + 1 >= furthest).collect();
    let favourite = random.pick(&ends);
    for name in world.witnesses.clone() {
        if !random.chance(80) {
            continue;
        }
        let saw = if random.chance(70) { favourite } else { random.pick(&ops) };
        let mut pin = Pin { stream, seq: world.ops[&saw].seq, head: saw };
        if random.chance(18) {
            pin.head = OpId::new([random.below(256) as u8; 32]);
        }
        let act = Act::Evidence(Evidence { pins: vec![pin] });
        if random.chance(85) {
            world.act(name, act);
        } else {
            let by = random.pick(&["u1", "a0", name]);
            sign_under_some(random, world, by, act);
        }
        if random.chance(20) {
            // Again, or of another branch.
            let saw = if random.chance(50) { saw } else { random.pick(&ends) };
            world.testify(name, &[saw]);
        }
    }
    if random.chance(15) {
        // One of them is removed, by who has seen all it said or nothing of it.
        let name = random.pick(&world.witnesses);
        if random.chance(50) {
            world.sync("o0", name);
        }
        revoke(random, world, "o0", name);
    }
    if random.chance(25) {
        // An admin decides, perhaps otherwise.
        let end = if random.chance(50) { random.pick(&ends) } else { random.pick(&ops) };
        let pin = Pin { stream, seq: world.ops[&end].seq, head: end };
        let author = world.ops[&end].certificate;
        world.peer_mut("a0").view.insert(author);
        let target = match world.principal_of(&world.ops[&end]).filter(|_| random.chance(60)) {
            Some(principal) => RevokeTarget::Principal(principal),
            None => RevokeTarget::Statement(author),
        };
        world.revoke_with("a0", target, vec![pin], false);
    }
}

/// Roles, groups, duties, and principals for which others write.
fn share(random: &mut Random, world: &mut World) {
    let all: Vec<Action> = Actions::ALL.iter().collect();
    let roles = [
        revision(&[Action::Read, Action::Create], &[Action::Delete], 20),
        revision(&[Action::Administer, Action::Read, Action::Create], &[], 20),
        revision(&all, &[], 22),
    ];
    world.roles = roles.into_iter().map(|role| world.act("a0", role)).collect();
    world.groups = (0..2).map(|_| world.act("a0", introduce(PrincipalKind::Group, 30)).into()).collect();
    world.served = (0..2).map(|_| world.act("a0", introduce(PrincipalKind::User, 30)).into()).collect();
    for (name, extra) in [("s0", Duty::Warden(())), ("s1", Duty::Registrar(target("x*")))] {
        let principal = world.peer(name).principal;
        let on = random.pick(&["*", "x*", "x"]);
        world.act("a0", duty(principal, Duty::ActFor(target(on)), 20));
        let extra = world.act("a0", duty(principal, extra, 20));
        let peer = world.peer_mut(name);
        peer.proof.push(extra);
    }
    for holder in [world.groups.clone(), world.served.clone()].concat() {
        let (role, target) = (some_role(random, world), some_target(random));
        world.act("a0", grant(holder, role, target, 31));
    }
    for name in ["u1", "s1"] {
        let principal = world.peer(name).principal;
        let joined = world.act("a0", join(principal, world.groups[0], 31));
        let role = Role::Custom(random.pick(&world.roles));
        let given = world.act("a0", grant(world.groups[0], role.clone(), target(random.pick(&["*", "x*"])), 31));
        let fields = if random.chance(40) { some_limit(random) } else { Fields::All };
        let on = Target { fields, ..target(random.pick(&["*", "x*"])) };
        let direct = world.act("a0", grant(principal, role, on, 31));
        let roles = world.roles.clone();
        world.peer_mut(name).proof.extend([joined, given, direct]);
        world.peer_mut(name).proof.extend(roles);
    }
    world.sync_all();
}

pub(super) fn some_role(random: &mut Random, world: &World) -> Role {
    if !world.roles.is_empty() && random.chance(40) {
        return Role::Custom(random.pick(&world.roles));
    }
    role(random.pick(&[BuiltInRole::Editor, BuiltInRole::Editor, BuiltInRole::Contributor, BuiltInRole::Admin]))
}

fn some_target(random: &mut Random) -> Target {
    let whole = target(random.pick(&TARGETS));
    let documents = if random.chance(20) { Documents::Prefix("2026/".into()) } else { Documents::All };
    let fields = if random.chance(25) { some_limit(random) } else { Fields::All };
    Target { documents, fields, ..whole }
}

fn some_paths(random: &mut Random) -> FieldPaths {
    let all = ["/a", "/a/b", "/a/c", "/b", "/b/*", "/*/b", "/c"];
    let some: Vec<&str> = (0..1 + random.below(3)).map(|_| random.pick(&all)).collect();
    paths(&some)
}

fn some_limit(random: &mut Random) -> Fields {
    let some = some_paths(random);
    if random.chance(50) { Fields::Only(some) } else { Fields::Except(some) }
}

/// Says of some writes which fields they touch.
fn declare_some(random: &mut Random, header: &mut Header) {
    match random.below(10) {
        0..5 => {}
        5 => declare(header, &FieldPaths::default()),
        _ => declare(header, &some_paths(random)),
    }
}

pub(super) fn some_doc(random: &mut Random, principal: PrincipalId) -> String {
    let n = random.below(5);
    match random.below(4) {
        0 => format!("{}{n}", principal.own_prefix()),
        1 => format!("2026/{n}"),
        _ => format!("d{n}"),
    }
}

/// Somebody with recovery keys, or with too few of them, makes other keys the owners, mostly after the present ones, with what
/// some peer has seen. Those before go on.
pub(super) fn change_owners(random: &mut Random, world: &mut World) {
    let all: Vec<OpId> = std::iter::once(world.genesis()).chain(world.successions.iter().copied()).collect();
    let after = if random.chance(70) { all[all.len() - 1] } else { random.pick(&all) };
    let generation = world.generation(after);
    let own = |n| recovery_key(generation, n);
    if random.chance(10) {
        // A recovery key that does something else.
        world.add_peer("r", own(0), world.genesis().into(), after);
        sign_under_some(random, world, "r", introduce(PrincipalKind::User, 33));
        return;
    }
    let signers = match random.below(12) {
        0 => vec![own(0)],
        1 => vec![own(0), key("stranger")],
        2 => vec![key("stranger"), own(0), own(1)],
        3 => vec![key("o0"), own(1)],
        4 => vec![own(2), own(1), own(0)],
        5 => vec![own(2), key("stranger"), own(0)],
        _ => vec![own(0), own(1)],
    };
    let names = peers(world);
    let by = random.pick(&names);
    if random.chance(90) {
        world.peer_mut(by).view.insert(after);
    }
    let mut pins = world.pins_of_owners(by, after);
    if random.chance(15) && !pins.is_empty() {
        let at = random.below(pins.len());
        if random.chance(50) {
            pins.remove(at);
        } else {
            (pins[at].seq, pins[at].head) = (0, OpId::ZERO);
        }
    }
    let sets: [(&[&'static str], u8); 4] = [(&["p0"], 1), (&["p0", "p1"], 2), (&["p0", "p1"], 1), (&["o0", "p1"], 2)];
    let (owners, threshold) = random.pick(&sets);
    let header = world.draft_succession(by, after, &signers, (owners, threshold), pins);
    let id = world.put(header);
    if random.chance(80) {
        world.peer_mut(by).view.insert(id);
        world.install(by, id, owners);
    }
    if random.chance(15) {
        let fork = world.sibling(id);
        let fork = world.put(fork);
        world.peer_mut(random.pick(&names)).view.insert(fork);
    }
}

/// Honest and not so honest use of what `share` has set up.
fn shared_step(random: &mut Random, world: &mut World) {
    let names = peers(world);
    let other = random.pick(&names);
    let whom = random.pick(&world.served);
    let by = random.pick(&["a0", "a0", "a0", "o0", "s1", "u1"]);
    match random.below(100) {
        0..45 => {
            let name = if random.chance(85) { random.pick(&["s0", "s1"]) } else { other };
            let own = world.peer(name).principal;
            let whom = if random.chance(80) { whom } else { random.pick(&[own, world.groups[0]]) };
            let action = random.pick(&[WriteAction::Create, WriteAction::Create, WriteAction::Delete]);
            let doc = some_doc(random, whom);
            let mut header = world.draft_write_for(name, whom, random.pick(&COLLECTIONS), &doc, action);
            if random.chance(30)
                && let Payload::Data(transactions) = &mut header.payload
            {
                // What one request changes, and what another principal does in the same op.
                let more = write_to(whom, &format!("{doc}more"), WriteAction::Create);
                transactions[0].changes.extend(more.changes);
                transactions.push(write_to(random.pick(&[own, whom]), "e", WriteAction::Create));
            }
            declare_some(random, &mut header);
            world.sign(name, header);
        }
        45..58 => cut_shared(random, world, by),
        58..66 => {
            let holder = random.pick(&[whom, world.groups[0], world.groups[1]]);
            let (role, on) = (some_role(random, world), some_target(random));
            let not_after = random.chance(40).then(|| Hlc::new(world.clock + random.below(40) as u64, 0));
            // Who registers others may make no admins.
            let role = if by == "s1" && random.chance(40) { Role::BuiltIn(BuiltInRole::Admin) } else { role };
            let act = Grant { principal: holder, role, target: on, rank: Rank(33), not_after };
            sign_under_some(random, world, by, Act::Grant(act));
        }
        66..72 => {
            let group = random.pick(&world.groups);
            let member = random.pick(&[world.peer(other).principal, whom, world.groups[1]]);
            if member != group {
                sign_under_some(random, world, by, join(member, group, 33));
            }
        }
        72..76 => {
            let to = world.peer(random.pick(&["s0", "s1", "u1"])).principal;
            let on = target(random.pick(&TARGETS));
            let what = random.pick(&[Duty::ActFor(on.clone()), Duty::ActFor(on.clone()), Duty::Registrar(on)]);
            sign_under_some(random, world, by, duty(to, what, 33));
        }
        76..79 => {
            let kind = random.pick(&PrincipalKind::ALL);
            let id = sign_under_some(random, world, by, introduce(kind, 33));
            if random.chance(30) {
                world.served.push(id.into());
            }
        }
        79 => share_pepper(random, world, other),
        80..82 => {
            let principal = random.pick(&[whom, world.groups[0]]);
            world.certify(by, other, Some(principal), 40);
        }
        82..90 => {
            // A warden, early or late.
            let ends = |id: &OpId| {
                let made = world.ops[id].control().and_then(|control| control.act.statement(*id));
                made.is_some_and(|made| made.not_after.is_some())
            };
            let ending: Vec<OpId> = world.ops.keys().filter(|id| ends(id)).copied().collect();
            if !ending.is_empty() {
                let statement = random.pick(&ending);
                world.peer_mut("s0").view.insert(statement);
                let cascade = random.chance(10);
                world.revoke_with("s0", RevokeTarget::Statement(statement), vec![], cascade);
            }
        }
        _ => {
            // What a member does, with all or a part of what it rests on.
            let principal = random.pick(&[world.peer(other).principal, whom]);
            let (role, on) = (some_role(random, world), some_target(random));
            let member = random.pick(&["u1", "s1"]);
            sign_under_some(random, world, member, grant(principal, role, on, 34));
        }
    }
}

/// Signs an act under a part of the statements that a peer has.
fn sign_under_some(random: &mut Random, world: &mut World, by: &'static str, act: Act) -> OpId {
    let mut header = world.draft_act(by, act);
    let peer = world.peer(by).clone();
    if let Payload::Control(control) = &mut header.payload
        && random.chance(60)
    {
        control.proof =
            peer.proof.iter().filter(|part| **part == peer.certificate || random.chance(60)).copied().collect();
        control.proof.sort();
    }
    world.sign(by, header)
}

/// Shares a pepper, with or without a duty that is the signer's in the proof.
fn share_pepper(random: &mut Random, world: &mut World, other: &'static str) {
    let by = if random.chance(80) { random.pick(&["s0", "s1"]) } else { other };
    let (certificate, principal) = (world.peer(by).certificate, world.peer(by).principal);
    let is_duty = |id: &OpId| match world.ops[id].control().map(|control| &control.act) {
        Some(Act::Duty(given)) => given.principal == principal || random_duty(*id),
        _ => false,
    };
    let duties: Vec<OpId> = world.peer(by).view.iter().copied().filter(is_duty).collect();
    let mut header = world.draft_act(by, shares(1, 1, &[key("s0"), key("s1")]));
    if let Payload::Control(control) = &mut header.payload {
        let duty = (random.chance(75) && !duties.is_empty()).then(|| random.pick(&duties));
        control.proof = duty.into_iter().chain([certificate]).collect::<BTreeSet<_>>().into_iter().collect();
    }
    world.sign(by, header);
}

/// Now and then somebody else's.
fn random_duty(id: OpId) -> bool {
    id.as_bytes()[0] < 64
}

/// Revokes a principal without a key, a role, a membership, a duty, or an introduction.
fn cut_shared(random: &mut Random, world: &mut World, by: &str) {
    let whom = random.pick(&world.served);
    let statements: Vec<OpId> = world
        .peer(by)
        .view
        .iter()
        .copied()
        .filter(|id| {
            matches!(
                world.ops[id].control().map(|control| &control.act),
                Some(Act::Role(_) | Act::Join(_) | Act::Duty(_) | Act::Principal(_) | Act::Grant(_))
            )
        })
        .collect();
    let mut pins = match random.below(3) {
        0 => world.pins_of_principal(by, whom),
        1 => world.pins(by, |header| header.control().is_none()),
        _ => world.pins_of(by, random.pick(&["s0", "s1", "u1"])),
    };
    if random.chance(50) {
        pins = world.without_derived(pins);
    }
    let target = if random.chance(30) || statements.is_empty() {
        RevokeTarget::Principal(random.pick(&[whom, whom, world.groups[0]]))
    } else {
        RevokeTarget::Statement(random.pick(&statements))
    };
    world.revoke_with(by, target, pins, random.chance(15));
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
            let mut header = world.draft_write(name, collection);
            declare_some(random, &mut header);
            world.sign(name, header);
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
            let owners: Vec<_> = OWNERS.into_iter().filter(|name| names.contains(name)).collect();
            let by_owners = |header: &Header| owners.iter().any(|name| header.author == key(name));
            let acts: Vec<_> = world.ops.iter().filter(|(_, h)| by_owners(h)).map(|(id, _)| *id).collect();
            if owners.len() > 1 {
                let act = random.pick(&acts);
                let by = random.pick(&owners);
                if random.chance(80) {
                    world.approve(by, act);
                } else {
                    world.act(by, Act::Withdraw(Withdraw { acts: vec![act] }));
                }
            }
        }
        88..90 => (0..1 + random.below(3)).for_each(|_| restart(world, name)),
        90..92 => expiring(random, world, name, other),
        92..97 => fork(random, world, &names),
        97..98 if random.chance(60) => erase_some(random, world, name),
        97..98 => {
            let on = random.pick(&COLLECTIONS).parse().unwrap();
            let config = Collection {
                name: on,
                shards: 1,
                types: vec![],
                dropped: false,
                audit_reads: false,
                indexes: vec![],
                schema: None,
                expires: None,
                unique: vec![],
            };
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

/// Erases documents, or says that it was carried out: rightly or not.
fn erase_some(random: &mut Random, world: &mut World, name: &'static str) {
    if random.chance(40) {
        return erase_under_a_narrow_grant(random, world);
    }
    let by = if random.chance(60) { random.pick(&["a0", "s0", "o0"]) } else { name };
    if random.chance(60) {
        let principal = world.peer(by).principal;
        let docs: BTreeSet<DocId> =
            (0..1 + random.below(3)).map(|_| some_doc(random, principal).parse().unwrap()).collect();
        let collection = random.pick(&COLLECTIONS).parse().unwrap();
        let act = Erase { collection, documents: docs.into_iter().collect(), why: String::new() };
        sign_under_some(random, world, by, Act::Erase(act));
        return;
    }
    let acts: Vec<OpId> = world.peer(by).view.iter().copied().filter(|id| world.ops[id].control().is_some()).collect();
    let is_erase = |id: &OpId| matches!(world.ops[id].control().map(|c| &c.act), Some(Act::Erase(_)));
    let erasures: Vec<OpId> = acts.iter().copied().filter(is_erase).collect();
    let of = if random.chance(80) && !erasures.is_empty() { erasures } else { acts };
    let act = Act::Erased(Erased { acts: vec![random.pick(&of)] });
    let mut header = world.draft_act(by, act);
    let certificate = world.peer(by).certificate;
    if let Payload::Control(control) = &mut header.payload {
        let membership = world.memberships.get(by).copied().filter(|_| random.chance(80));
        let proof: BTreeSet<OpId> = membership.into_iter().chain([certificate]).collect();
        control.proof = proof.into_iter().collect();
    }
    world.sign(by, header);
}

/// Erases documents of which some may be outside of what was granted, or granted in part.
fn erase_under_a_narrow_grant(random: &mut Random, world: &mut World) {
    let by = random.pick(&["s0", "u0", "u1"]);
    let (principal, certificate) = (world.peer(by).principal, world.peer(by).certificate);
    let (documents, fields) = match random.chance(50) {
        true => (Documents::Prefix("2026/".into()), Fields::All),
        false => (Documents::All, some_limit(random)),
    };
    let on = Target { documents, fields, ..target("x*") };
    let given = world.act("a0", grant(principal, role(BuiltInRole::Admin), on, 31));
    world.sync("a0", by);
    let other = random.pick(&["2026/2", "d1"]).parse().unwrap();
    let documents = vec!["2026/1".parse().unwrap(), other];
    let act = Erase { collection: "x".parse().unwrap(), documents, why: String::new() };
    let mut header = world.draft_act(by, Act::Erase(act));
    if let Payload::Control(control) = &mut header.payload {
        control.proof = BTreeSet::from([certificate, given]).into_iter().collect();
    }
    world.sign(by, header);
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
    let mut pins = principal.map_or_else(Vec::new, |principal| world.pins_of_principal(by, principal));
    if random.chance(20) {
        pins = world.pins(by, |header| header.control().is_none());
    }
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

/// T0: the engine in any order, against the reference, also half way.
pub(super) fn engine_agrees(random: &mut Random, world: &World) -> Result<(), String> {
    let mut ops: Vec<(OpId, std::sync::Arc<Header>)> = world.ops.iter().map(|(id, h)| (*id, h.clone())).collect();
    if random.chance(40) {
        // Some pinned ops never arrive.
        let pins = world
            .ops
            .values()
            .filter_map(|header| header.control())
            .flat_map(|control| control.act.pins().iter().chain(control.act.evidence()));
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
        [tried.removed, tried.stronger, tried.final_ones, tried.forged, tried.confined, tried.replaced]
            .iter()
            .all(|n| *n > enough),
        "{tried:?}"
    );
}

#[test]
fn histories_share_rights_that_count() {
    let (mut for_others, mut cut) = (0, 0);
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let world = build(&mut random, 60);
        for ((id, at), verdict) in judge_all(world.cluster, &world.ops).data {
            let header = &world.ops[&id];
            if Some(header.transactions()[at].principal) != world.principal_of(header) {
                for_others += usize::from(verdict.is_allowed());
                cut += usize::from(matches!(verdict, Verdict::AfterRevocation { .. }));
            }
        }
    }
    assert!(for_others > 80 && cut > 40, "{for_others} count, {cut} are cut");
}

#[test]
fn histories_change_owners() {
    let (mut counts, mut competing, mut void, mut cut) = (0, 0, 0, 0);
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let world = build(&mut random, 60);
        for (id, verdict) in judge_all(world.cluster, &world.ops).control {
            match (&world.ops[&id].control().unwrap().act, verdict) {
                (Act::Succeed(_), Verdict::Allowed) => counts += 1,
                (Act::Succeed(_), Verdict::AfterRevocation { .. }) => competing += 1,
                (Act::Succeed(_), Verdict::NotAllowed) => void += 1,
                (_, Verdict::AfterRevocation { by }) => {
                    cut += usize::from(matches!(world.ops[&by].control().unwrap().act, Act::Succeed(_)));
                }
                _ => {}
            }
        }
    }
    assert!(counts > 60 && competing > 20 && void > 20 && cut > 60, "{counts} {competing} {void} {cut}");
}

#[test]
fn histories_are_decided_by_witnesses() {
    let (mut kept, mut waits, mut lost) = (0, 0, 0);
    for seed in 0..100 {
        let mut random = Random::new(seed);
        let world = build(&mut random, 60);
        let verdicts = judge_all(world.cluster, &world.ops);
        let mut silent = world.clone();
        silent.ops.retain(|_, header| !matches!(header.control().map(|c| &c.act), Some(Act::Evidence(_))));
        let without = judge_all(world.cluster, &silent.ops);
        for (key, verdict) in &verdicts.data {
            match (without.data.get(key), verdict) {
                (Some(Verdict::Forked { .. }), Verdict::Allowed) => kept += 1,
                (Some(Verdict::Forked { .. }), Verdict::Deferred(Missing::Pinned(_))) => waits += 1,
                (Some(Verdict::Forked { .. }), Verdict::Forked { .. }) => lost += 1,
                _ => {}
            }
        }
    }
    assert!(kept > 40 && waits > 4 && lost > 100, "{kept} {waits} {lost}");
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
