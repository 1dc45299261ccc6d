//! The properties T1 to T7 of `docs/authority.md`, on the reference.

use std::collections::BTreeSet;

use super::attack::attack;
use super::histories::{SUBADMINS, USERS, peers};
use super::world::{Random, World, id_of};
use crate::authority::Verdict;
use crate::authority::reference::{Ops, Verdicts, judge_all};
use crate::id::OpId;
use crate::op::{Act, Rank, RevokeTarget};

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

/// Whether the peer's key was an owner's only, and of no owners that count now.
fn is_replaced(world: &World, verdicts: &Verdicts, name: &str) -> bool {
    let key = world.peer(name).key;
    let counts = |id: &OpId| verdicts.control.get(id).is_some_and(Verdict::is_allowed);
    let changed: BTreeSet<OpId> = effective_acts(world, verdicts)
        .into_iter()
        .filter_map(|(_, act)| if let Act::Succeed(succeed) = act { Some(succeed.after) } else { None })
        .collect();
    let certificates: Vec<(&OpId, &Act)> = world
        .ops
        .iter()
        .filter_map(|(id, header)| Some((id, &header.control()?.act)))
        .filter(|(_, act)| act.certifies(key))
        .collect();
    !certificates.is_empty()
        && certificates.iter().all(|(id, act)| act.owner_set().is_some() && (!counts(id) || changed.contains(id)))
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
    pub(super) replaced: usize,
}

/// T1 to T7, on the reference.
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
    let attacker = match random.below(10) {
        0..3 if !world.successions.is_empty() => "o0",
        0..6 => victim,
        _ => random.pick(&names),
    };
    let count = 1 + random.below(12);
    let attacked = attack(random, world, attacker, count);
    let after = judge_all(world.cluster, &attacked.ops);
    one_per_position(&attacked, &after)?;
    // T1 and T7.
    let (removed, replaced) = (is_removed(world, &base, attacker), is_replaced(world, &base, attacker));
    tried.replaced += usize::from(replaced);
    if removed || replaced {
        tried.removed += usize::from(removed);
        if let Some(id) = accepted(&after).iter().find(|id| !world.ops.contains_key(id)) {
            return Err(format!("T1, T7: {attacker} has no key any more, but {id:?} counts"));
        }
        if let Some(id) = accepted(&base).symmetric_difference(&accepted(&after)).next() {
            let header = &world.ops[id];
            return Err(format!("T1, T7: {attacker} has no key any more, but changed the fate of {id:?}: {header:?}"));
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
                // It has what others have, or writes for them.
                Act::Join(join) => join.principal == peer.principal,
                Act::Duty(duty) => duty.principal == peer.principal,
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
