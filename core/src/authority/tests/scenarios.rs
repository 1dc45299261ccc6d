//! Named attacks and mishaps, each with what must come of it. Every one is judged by the reference and by the engine.

use super::store::Node;
use super::world::{World, key};
use crate::authority::reference::judge_all;
use crate::authority::{Missing, Verdict};
use crate::hlc::Hlc;
use crate::id::OpId;
use crate::op::{
    Act, Approve, BuiltInRole, Certify, Collection, Control, Grant, Header, Member, Payload, Pin, Rank, Readmit,
    RevokeTarget, Rules,
};

use BuiltInRole::{Admin, Editor, Reader};

/// One owner, two admins, users u and v who may write, n who may not yet.
pub(super) fn small() -> World {
    let mut world = World::new(&["o0"], 1);
    for name in ["a0", "a1"] {
        world.enrol("o0", name, (10, 10), Some((Admin, "*")));
    }
    world.sync_all();
    for name in ["u", "v"] {
        world.enrol("a0", name, (30, 31), Some((Editor, "*")));
    }
    world.enrol("a0", "n", (30, 31), None);
    world.sync_all();
    world
}

/// The verdict on an op's first transaction or its act, on which engine and reference agree.
pub(super) fn verdict(world: &World, id: OpId) -> Verdict {
    let node = Node::with(world.cluster, &world.ops);
    node.check().unwrap();
    let all = judge_all(world.cluster, &world.ops);
    let expected = all.control.get(&id).or_else(|| all.data.get(&(id, 0))).copied().unwrap();
    let found = node.verdict(id);
    // An op on a branch that the store does not hold is not judged at all.
    let held = found.agrees_with(&expected) || (!expected.is_allowed() && !found.is_allowed());
    assert!(held, "engine {found:?}, reference {expected:?}");
    expected
}

pub(super) fn pin(world: &World, id: OpId) -> Pin {
    Pin { stream: world.streams[&id], seq: world.ops[&id].seq, head: id }
}

pub(super) fn principal(world: &World, name: &str) -> RevokeTarget {
    RevokeTarget::Principal(world.peer(name).principal)
}

pub(super) fn is_cut(verdict: Verdict, revocation: OpId) -> bool {
    verdict == Verdict::AfterRevocation { by: revocation }
}

#[test]
fn what_the_revoker_had_seen_stands_and_the_rest_waits_for_a_readmission() {
    let mut w = small();
    let seen = w.write("u", "x");
    w.sync_all();
    let unseen = w.write("u", "x");
    let revocation = w.revoke("a0", "u");
    assert_eq!(verdict(&w, seen), Verdict::Allowed);
    assert!(is_cut(verdict(&w, unseen), revocation));
    w.sync("a1", "u");
    w.sync("a1", "a0");
    w.readmit("a1", revocation, "u");
    assert_eq!(verdict(&w, unseen), Verdict::Allowed);
    let later = w.write("u", "x");
    assert!(is_cut(verdict(&w, later), revocation));
}

/// Three sessions of u, each of two writes, all seen by the admin.
fn three_sessions(w: &mut World) -> Vec<OpId> {
    let mut writes = Vec::new();
    for _ in 0..3 {
        writes.extend([w.write("u", "x"), w.write("u", "x")]);
        w.fresh_session("u");
    }
    w.sync_all();
    writes
}

#[test]
fn a_pin_lets_the_sessions_before_stand_as_far_as_they_are_named() {
    let mut w = small();
    let writes = three_sessions(&mut w);
    // Never seen by anybody: the first session goes on beyond what the second names.
    let lost = Header { seq: 3, prev: writes[1], earlier: Vec::new(), ..(*w.ops[&writes[1]]).clone() };
    let lost = w.put(lost);
    let pins = vec![pin(&w, writes[4])];
    let target = principal(&w, "u");
    let revocation = w.revoke_with("a0", target, pins, false);
    for id in &writes[..5] {
        assert_eq!(verdict(&w, *id), Verdict::Allowed);
    }
    assert!(is_cut(verdict(&w, writes[5]), revocation), "beyond the pin itself");
    assert!(is_cut(verdict(&w, lost), revocation), "beyond what the next session names");
    // A session that the admin has not seen names the same ones, and more: that brings nothing back.
    let later = w.write("u", "x");
    assert!(is_cut(verdict(&w, later), revocation));
    assert!(is_cut(verdict(&w, writes[5]), revocation));
    // What leads from the pin to the first session is not here: unknown, so it does not count.
    let mut without = w.clone();
    without.ops.remove(&writes[2]);
    assert!(is_cut(verdict(&without, writes[0]), revocation));
}

#[test]
fn a_pin_of_its_own_goes_before_what_a_later_session_names() {
    let mut w = small();
    let writes = three_sessions(&mut w);
    let nothing = Pin { seq: 0, head: OpId::ZERO, ..pin(&w, writes[3]) };
    let mut pins = vec![pin(&w, writes[5]), nothing];
    pins.sort();
    let target = principal(&w, "u");
    let revocation = w.revoke_with("a0", target, pins, false);
    assert_eq!(verdict(&w, writes[5]), Verdict::Allowed);
    for id in &writes[..4] {
        assert!(is_cut(verdict(&w, *id), revocation), "nothing of the second, so nothing that it names");
    }
}

#[test]
fn what_a_forged_first_op_names_does_not_count() {
    let mut w = small();
    let writes = three_sessions(&mut w);
    // Another first op of the last session names more of the session before than the true one.
    let more = Header { seq: 3, prev: writes[3], earlier: Vec::new(), ..(*w.ops[&writes[3]]).clone() };
    let more = w.put(more);
    let mut forged = w.sibling(writes[4]);
    (forged.earlier[0].seq, forged.earlier[0].head) = (3, more);
    let forged = w.put(forged);
    let pins = vec![pin(&w, writes[5])];
    let target = principal(&w, "u");
    let revocation = w.revoke_with("a0", target, pins, false);
    assert!(is_cut(verdict(&w, more), revocation));
    assert_eq!(verdict(&w, writes[3]), Verdict::Allowed);
    let mut without = w.clone();
    without.ops.retain(|id, _| ![writes[4], writes[5]].contains(id));
    assert!(!verdict(&without, more).is_allowed() && !verdict(&without, forged).is_allowed());
    assert!(is_cut(verdict(&without, writes[3]), revocation), "the true chain is not here");
}

#[test]
fn a_backdated_write_is_cut_however_little_it_says_to_know() {
    let mut w = small();
    let old = w.heads("u");
    let revocation = w.revoke("a0", "u");
    w.sync_all();
    w.fresh_session("u");
    let mut header = w.draft_write("u", "x");
    header.control_heads = old;
    header.hlc = Hlc::new(2, 0);
    let time = header.control_heads.iter().map(|id| w.ops[id].hlc).max().unwrap();
    header.hlc = header.hlc.max(time);
    let backdated = w.sign("u", header);
    assert!(is_cut(verdict(&w, backdated), revocation));
}

#[test]
fn who_is_taken_back_begins_a_new_stream_with_statements_that_know_the_revocation() {
    let mut w = small();
    w.write("u", "x");
    w.sync_all();
    let revocation = w.revoke("a0", "u");
    let held = w.write("u", "x");
    w.sync_all();
    w.grant("a0", "u", Editor, "*", 33);
    w.sync_all();
    let same_stream = w.write("u", "x");
    assert!(is_cut(verdict(&w, same_stream), revocation), "a new grant does not open a closed stream");
    let principal = w.peer("u").principal;
    let certificate = w.certify("a0", "u", Some(principal), 32);
    w.sync_all();
    w.peer_mut("u").certificate = certificate;
    w.fresh_session("u");
    let new_stream = w.write("u", "x");
    assert_eq!(verdict(&w, new_stream), Verdict::Allowed);
    assert!(is_cut(verdict(&w, held), revocation), "what was held back stays so");
}

#[test]
fn a_concurrent_grant_does_not_undo_a_revocation() {
    let mut w = small();
    let target = principal(&w, "u");
    let revocation = w.revoke_with("a0", target, vec![], false);
    w.grant("a1", "u", Editor, "*", 33);
    w.sync("u", "a1");
    let write = w.write("u", "x");
    assert!(is_cut(verdict(&w, write), revocation));
}

#[test]
fn nor_do_a_concurrent_certificate_and_grant_together() {
    let mut w = small();
    let (target, user) = (principal(&w, "u"), w.peer("u").principal);
    let revocation = w.revoke_with("a0", target, vec![], false);
    let certificate = w.certify("a1", "u2", Some(user), 32);
    w.grant("a1", "u", Editor, "*", 33);
    w.add_peer("u2", key("u2"), user, certificate);
    let view = w.peer("a1").view.clone();
    w.peer_mut("u2").view = view;
    let write = w.write("u2", "x");
    assert!(is_cut(verdict(&w, write), revocation));
}

#[test]
fn a_write_before_its_grant_never_counts() {
    let mut w = small();
    let write = w.write("n", "x");
    w.grant("a0", "n", Editor, "*", 33);
    assert_eq!(verdict(&w, write), Verdict::NotAllowed);
    w.sync_all();
    let after = w.write("n", "x");
    assert_eq!(verdict(&w, after), Verdict::Allowed);
}

#[test]
fn readers_and_other_collections_are_not_allowed() {
    let mut w = small();
    w.enrol("a0", "r", (30, 31), Some((Reader, "*")));
    w.enrol("a0", "p", (30, 31), Some((Editor, "x*")));
    let reader = w.write("r", "x");
    let inside = w.write("p", "xa");
    let outside = w.write("p", "y");
    assert_eq!(verdict(&w, reader), Verdict::NotAllowed);
    assert_eq!(verdict(&w, inside), Verdict::Allowed);
    assert_eq!(verdict(&w, outside), Verdict::NotAllowed);
}

#[test]
fn nobody_writes_for_somebody_else() {
    let mut w = small();
    let mut header = w.draft_write("u", "x");
    let v = w.peer("v").principal;
    if let Payload::Data(transactions) = &mut header.payload {
        transactions[0].principal = v;
    }
    let forged = w.sign("u", header);
    assert_eq!(verdict(&w, forged), Verdict::NotAllowed);
}

#[test]
fn of_a_fork_nothing_counts_until_a_pin_says_which_branch() {
    let mut w = small();
    let before = w.write("u", "x");
    let a = w.write("u", "x");
    let header = w.sibling(a);
    let b = w.put(header);
    let stream = w.streams[&a];
    assert_eq!(verdict(&w, before), Verdict::Allowed);
    for op in [a, b] {
        assert_eq!(verdict(&w, op), Verdict::Forked { stream, at: 2 });
    }
    // An admin has seen one branch.
    let view = w.peer("u").view.clone();
    w.peer_mut("a0").view = view;
    let after = w.write("u", "x");
    w.revoke("a0", "u");
    assert_eq!(verdict(&w, a), Verdict::Allowed);
    assert!(!verdict(&w, b).is_allowed());
    assert!(!verdict(&w, after).is_allowed());
}

#[test]
fn of_two_pins_on_a_fork_the_stronger_counts() {
    let mut w = small();
    let a = w.write("u", "x");
    let header = w.sibling(a);
    let b = w.put(header);
    let pins = vec![pin(&w, b)];
    let target = principal(&w, "v");
    w.revoke_with("a0", target.clone(), pins, false);
    assert_eq!(verdict(&w, b), Verdict::Allowed);
    let pins = vec![pin(&w, a)];
    w.revoke_with("o0", target, pins, false);
    assert_eq!(verdict(&w, a), Verdict::Allowed);
    assert!(!verdict(&w, b).is_allowed());
}

#[test]
fn a_replica_without_the_pinned_branch_accepts_nothing_of_a_forged_one() {
    let mut w = small();
    let first = w.write("u", "x");
    let second = w.write("u", "x");
    w.sync_all();
    w.revoke("a0", "u");
    let header = w.sibling(first);
    let mut here = w.clone();
    here.ops.remove(&first);
    here.ops.remove(&second);
    let forged = here.put(header);
    assert!(matches!(verdict(&here, forged), Verdict::Deferred(Missing::Pinned(_))));
}

#[test]
fn equals_cannot_revoke_equals_and_the_owner_settles_it() {
    let mut w = small();
    let (t0, t1) = (principal(&w, "a0"), principal(&w, "a1"));
    w.revoke_with("a0", t1.clone(), vec![], true);
    w.revoke_with("a1", t0, vec![], true);
    let g0 = w.grant("a0", "n", Editor, "*", 33);
    let g1 = w.grant("a1", "n", Editor, "*", 33);
    assert_eq!((verdict(&w, g0), verdict(&w, g1)), (Verdict::Allowed, Verdict::Allowed));
    let old = w.heads("a1");
    w.sync("o0", "a1");
    let settled = w.revoke("o0", "a1");
    let target = principal(&w, "u");
    let mut header =
        w.draft_act("a1", Act::Revoke(crate::op::Revoke { target, pins: vec![], cascade: true, why: String::new() }));
    header.control_heads = old;
    let late = w.sign("a1", header);
    assert!(is_cut(verdict(&w, late), settled), "the loser's backdated act");
    assert_eq!(verdict(&w, g1), Verdict::Allowed, "what the owner had seen");
}

#[test]
fn admins_who_revoke_each_others_devices_do_not_go_round_in_circles() {
    // Strength by the grant alone would let each device's certificate be cut by the other's act.
    let mut w = small();
    let mut made = vec![];
    for (name, device) in [("a0", "d0"), ("a1", "d1")] {
        let owner = w.peer(name).principal;
        let certificate = w.certify(name, device, Some(owner), 15);
        let grant = w.peer(name).proof[1];
        w.add_peer(if name == "a0" { "d0" } else { "d1" }, key(device), owner, certificate);
        w.peer_mut(device).proof.push(grant);
        made.push(certificate);
    }
    w.sync_all();
    let r0 = w.revoke_with("d0", RevokeTarget::Statement(made[1]), vec![], false);
    let r1 = w.revoke_with("d1", RevokeTarget::Statement(made[0]), vec![], false);
    assert_eq!((verdict(&w, r0), verdict(&w, r1)), (Verdict::NotAllowed, Verdict::NotAllowed));
}

#[test]
fn a_stolen_device_is_cut_by_its_owner() {
    let mut w = small();
    let user = w.peer("u").principal;
    let certificate = w.certify("u", "device", Some(user), 40);
    w.add_peer("device", key("device"), user, certificate);
    let seen = w.write("device", "x");
    w.sync("u", "device");
    let pins = w.pins("u", |header| header.certificate == certificate);
    w.peer_mut("u").proof.truncate(1);
    let revocation = w.revoke_with("u", RevokeTarget::Statement(certificate), pins, false);
    let thief = w.write("device", "x");
    assert_eq!(verdict(&w, seen), Verdict::Allowed);
    assert!(is_cut(verdict(&w, thief), revocation));
    // And not the other way round.
    w.sync_all();
    let back = w.revoke_with("device", principal(&w, "u"), vec![], true);
    assert!(is_cut(verdict(&w, back), revocation));
    let own = w.write("u", "x");
    assert_eq!(verdict(&w, own), Verdict::Allowed);
}

#[test]
fn a_key_with_two_certificates_gets_one_branch_of_a_fork() {
    let mut w = small();
    let user = w.peer("u").principal;
    let weak = w.certify("a0", "u", Some(user), 40);
    w.enrol("a0", "h", (35, 35), Some((Admin, "*")));
    w.sync_all();
    let a = w.write("u", "x");
    let header = w.sibling(a);
    let b = w.put(header);
    // h is strong enough for the weak certificate only, and the stream is bound to the other one.
    let pins = vec![pin(&w, b)];
    w.revoke_with("h", RevokeTarget::Statement(weak), pins, false);
    assert!(!verdict(&w, a).is_allowed() && !verdict(&w, b).is_allowed());
    let pins = vec![pin(&w, a)];
    let target = principal(&w, "v");
    w.revoke_with("a1", target, pins, false);
    assert!(verdict(&w, a).is_allowed() && !verdict(&w, b).is_allowed());
}

#[test]
fn what_was_granted_before_the_pin_stays_unless_the_revocation_cascades() {
    for cascade in [false, true] {
        let mut w = small();
        w.enrol("a0", "s", (20, 20), Some((Admin, "*")));
        w.sync_all();
        w.enrol("s", "w", (30, 31), Some((Editor, "*")));
        w.sync_all();
        let write = w.write("w", "x");
        let pins = w.pins_of("a0", "s");
        let target = principal(&w, "s");
        let revocation = w.revoke_with("a0", target, pins, cascade);
        assert_eq!(verdict(&w, write).is_allowed(), !cascade);
        assert_eq!(is_cut(verdict(&w, write), revocation), cascade);
    }
}

#[test]
fn a_grant_gives_no_more_than_its_maker_has() {
    let mut w = small();
    w.enrol("a0", "s", (20, 20), Some((Admin, "x*")));
    w.enrol("a0", "e", (30, 31), Some((Editor, "*")));
    w.sync_all();
    let inside = w.grant("s", "n", Editor, "xa", 33);
    let outside = w.grant("s", "n", Editor, "*", 33);
    let too_strong = w.grant("s", "n", Editor, "x", 20);
    let no_admin = w.grant("e", "n", Editor, "x", 40);
    assert_eq!(verdict(&w, inside), Verdict::Allowed);
    for act in [outside, too_strong, no_admin] {
        assert_eq!(verdict(&w, act), Verdict::NotAllowed);
    }
    let foreign = Collection {
        name: "y".parse().unwrap(),
        shards: 1,
        types: vec![],
        dropped: false,
        audit_reads: false,
        indexes: vec![],
        schema: None,
        expires: None,
        unique: vec![],
    };
    let own = Collection { name: "xyz".parse().unwrap(), ..foreign.clone() };
    let (foreign, own) = (w.act("s", Act::Collection(foreign)), w.act("s", Act::Collection(own)));
    assert_eq!((verdict(&w, foreign), verdict(&w, own)), (Verdict::NotAllowed, Verdict::Allowed));
}

#[test]
fn nobody_certifies_a_key_for_somebody_stronger_or_wider() {
    let mut w = small();
    w.enrol("a0", "s", (20, 20), Some((Admin, "x*")));
    w.sync_all();
    let (admin, user, owner) = (w.peer("a0").principal, w.peer("u").principal, w.peer("o0").principal);
    // An admin of a part would sign as one of everything, or as a user of everything.
    let as_admin = w.certify("s", "s", Some(admin), 21);
    let as_user = w.certify("s", "s", Some(user), 32);
    // Equals would speak for each other; admins for the owner.
    let as_equal = w.certify("a1", "a1", Some(admin), 11);
    let as_owner = w.certify("a1", "a1", Some(owner), 11);
    let unknown = w.certify("a1", "a1", Some(OpId::new([9; 32]).into()), 11);
    for act in [as_admin, as_user, as_equal, as_owner, unknown] {
        assert_eq!(verdict(&w, act), Verdict::NotAllowed);
    }
    let lost_key = w.certify("a1", "u2", Some(user), 32);
    assert_eq!(verdict(&w, lost_key), Verdict::Allowed);
}

#[test]
fn only_the_right_people_do_what_is_for_all() {
    let mut w = small();
    w.enrol("a0", "s", (20, 20), Some((Admin, "x*")));
    w.sync_all();
    let member =
        Member { principal: w.peer("n").principal, key: key("n"), rank: Rank(30), not_after: None, labels: vec![] };
    let cases = [
        ("s", Act::Member(member.clone()), false),
        ("a0", Act::Member(member), true),
        ("a0", Act::Rules(Rules { version: 2 }), false),
        ("o0", Act::Rules(Rules { version: 1 }), true),
        ("a0", Act::Approve(Approve { act: w.genesis() }), false),
    ];
    for (name, act, allowed) in cases {
        let id = w.act(name, act.clone());
        assert_eq!(verdict(&w, id).is_allowed(), allowed, "{name} {act:?}");
    }
    let other = principal(&w, "v");
    let not_own = w.revoke_with("u", other.clone(), vec![], false);
    let not_part = w.revoke_with("s", other, vec![], false);
    assert_eq!((verdict(&w, not_own), verdict(&w, not_part)), (Verdict::NotAllowed, Verdict::NotAllowed));
}

#[test]
fn an_admin_of_a_part_cuts_and_readmits_within_it() {
    let mut w = small();
    w.enrol("a0", "s", (20, 20), Some((Admin, "x*")));
    w.sync_all();
    let inside = w.grant("a0", "n", Editor, "xa", 33);
    let outside = w.grant("a0", "n", Editor, "*", 33);
    w.sync_all();
    let write = w.write("n", "xa");
    let cut = w.revoke_with("s", RevokeTarget::Statement(inside), vec![], false);
    let not = w.revoke_with("s", RevokeTarget::Statement(outside), vec![], false);
    assert_eq!((verdict(&w, cut), verdict(&w, not)), (Verdict::Allowed, Verdict::NotAllowed));
    assert_eq!(verdict(&w, write), Verdict::Allowed, "by the other grant");
}

#[test]
fn nobody_readmits_itself() {
    let mut w = small();
    let grant = w.peer("u").proof[1];
    let revocation = w.revoke_with("a0", RevokeTarget::Statement(grant), vec![], false);
    w.sync_all();
    let write = w.write("u", "x");
    let pins = w.pins_of("u", "u");
    w.peer_mut("u").proof.truncate(1);
    let readmit = w.act("u", Act::Readmit(Readmit { revocation, pins }));
    assert_eq!(verdict(&w, readmit), Verdict::NotAllowed);
    assert!(is_cut(verdict(&w, write), revocation));
}

#[test]
fn an_owners_act_waits_for_the_others() {
    let mut w = World::new(&["o0", "o1", "o2"], 2);
    w.enrol("o0", "a", (10, 10), Some((Admin, "*")));
    let (certificate, grant) = (w.peer("a").proof[0], w.peer("a").proof[1]);
    w.sync_all();
    w.enrol("a", "u", (30, 31), Some((Editor, "*")));
    w.sync_all();
    let write = w.write("u", "x");
    assert!(matches!(verdict(&w, write), Verdict::Deferred(Missing::Consent(_))));
    // The same owner twice, or a key that is no owner's, is not a second one.
    w.approve("o0", certificate);
    w.fresh_session("o0");
    w.approve("o0", certificate);
    w.approve("a", certificate);
    assert_eq!(verdict(&w, certificate), Verdict::Deferred(Missing::Consent(certificate)));
    w.approve("o1", certificate);
    assert_eq!(verdict(&w, certificate), Verdict::Allowed);
    assert_eq!(verdict(&w, write), Verdict::Deferred(Missing::Consent(grant)));
    let consent = w.approve("o2", grant);
    assert_eq!(verdict(&w, write), Verdict::Allowed);
    // An owner who forks its stream takes back what it consented to from the fork on.
    let header = w.sibling(consent);
    w.put(header);
    assert_eq!(verdict(&w, write), Verdict::Deferred(Missing::Consent(grant)));
}

#[test]
fn one_owner_of_several_has_no_weaker_authority_of_its_own() {
    let mut w = World::new(&["o0", "o1"], 2);
    let owner = w.peer("o0").principal;
    let grant = Grant {
        principal: owner,
        role: super::world::role(Admin),
        target: super::world::target("*"),
        rank: Rank(5),
        not_after: None,
    };
    let grant = w.act("o0", Act::Grant(grant));
    w.sync_all();
    w.approve("o1", grant);
    w.sync_all();
    w.peer_mut("o0").proof.push(grant);
    let alone = w.certify("o0", "x", None, 30);
    assert_eq!(verdict(&w, alone), Verdict::Deferred(Missing::Consent(alone)));
}

#[test]
fn a_right_ends_with_its_time_and_only_then() {
    let mut w = small();
    let end = Hlc::new(w.clock + 3, 0);
    let principal = w.peer("n").principal;
    let grant = Grant {
        principal,
        role: super::world::role(Editor),
        target: super::world::target("*"),
        rank: Rank(33),
        not_after: Some(end),
    };
    w.act("a0", Act::Grant(grant));
    w.sync_all();
    let mut last = w.draft_write("n", "x");
    last.hlc = end;
    let last = w.sign("n", last);
    let mut late = w.draft_write("n", "x");
    late.hlc = end.next();
    let late = w.sign("n", late);
    assert_eq!((verdict(&w, last), verdict(&w, late)), (Verdict::Allowed, Verdict::NotAllowed));
    // So does a certificate, for acts too.
    let user = w.peer("u").principal;
    let act =
        Certify { principal: Some(user), key: key("t"), rank: Rank(32), not_after: Some(end), name: String::new() };
    let certificate = w.act("u", Act::Certify(act));
    w.add_peer("t", key("t"), user, certificate);
    w.clock = end.millis() + 1;
    let write = w.write("t", "x");
    let act = w.certify("t", "t2", Some(user), 50);
    assert_eq!((verdict(&w, write), verdict(&w, act)), (Verdict::NotAllowed, Verdict::NotAllowed));
}

#[test]
fn time_does_not_run_back_past_what_an_op_names() {
    let mut w = small();
    let mut header = w.draft_write("u", "x");
    header.hlc = Hlc::new(1, 0);
    let write = w.sign("u", header);
    let after = w.write("u", "x");
    assert_eq!((verdict(&w, write), verdict(&w, after)), (Verdict::Refused, Verdict::Refused));
    let mut header = w.draft_act("a0", Act::Approve(Approve { act: w.genesis() }));
    header.hlc = Hlc::new(1, 0);
    let act = w.sign("a0", header);
    assert_eq!(verdict(&w, act), Verdict::Refused);
}

#[test]
fn what_an_op_names_must_be_here() {
    let mut w = small();
    let grant = w.grant("a0", "n", Editor, "*", 33);
    w.sync_all();
    let write = w.write("n", "x");
    let mut later = w.draft_write("n", "x");
    later.control_heads.clear();
    let later = w.sign("n", later);
    assert_eq!(verdict(&w, later), Verdict::Allowed, "a stream remembers what it knew");
    let mut here = w.clone();
    here.ops.remove(&grant);
    for op in [write, later] {
        let found = verdict(&here, op);
        assert!(matches!(found, Verdict::Deferred(Missing::Control(_) | Missing::Chain)), "{found:?}");
    }
}

#[test]
fn another_genesis_founds_nothing_here() {
    let mut w = small();
    let other = World::new(&["a1"], 1);
    let (id, header) = other.ops.iter().next().map(|(id, h)| (*id, h.clone())).unwrap();
    w.ops.insert(id, header.clone());
    w.streams.insert(id, header.stream_key().id());
    let act: Header = Header { certificate: id, ..w.draft_act("a1", Act::Rules(Rules { version: 1 })) };
    let inner = act.control().unwrap().act.clone();
    let mut act = Header { payload: Payload::from(Control { proof: vec![id], act: inner, for_whom: None }), ..act };
    act.seq = 1;
    act.prev = OpId::ZERO;
    act.control_heads = vec![w.genesis()];
    let act = w.put(act);
    assert_eq!((verdict(&w, id), verdict(&w, act)), (Verdict::Refused, Verdict::NotAllowed));
}

/// All of them, for the planted bugs.
pub(super) const ALL: &[(&str, fn())] = &[
    (
        "what_the_revoker_had_seen_stands_and_the_rest_waits_for_a_readmission",
        what_the_revoker_had_seen_stands_and_the_rest_waits_for_a_readmission,
    ),
    (
        "a_backdated_write_is_cut_however_little_it_says_to_know",
        a_backdated_write_is_cut_however_little_it_says_to_know,
    ),
    (
        "who_is_taken_back_begins_a_new_stream_with_statements_that_know_the_revocation",
        who_is_taken_back_begins_a_new_stream_with_statements_that_know_the_revocation,
    ),
    (
        "a_pin_lets_the_sessions_before_stand_as_far_as_they_are_named",
        a_pin_lets_the_sessions_before_stand_as_far_as_they_are_named,
    ),
    (
        "a_pin_of_its_own_goes_before_what_a_later_session_names",
        a_pin_of_its_own_goes_before_what_a_later_session_names,
    ),
    ("what_a_forged_first_op_names_does_not_count", what_a_forged_first_op_names_does_not_count),
    ("a_concurrent_grant_does_not_undo_a_revocation", a_concurrent_grant_does_not_undo_a_revocation),
    ("nor_do_a_concurrent_certificate_and_grant_together", nor_do_a_concurrent_certificate_and_grant_together),
    ("a_write_before_its_grant_never_counts", a_write_before_its_grant_never_counts),
    ("readers_and_other_collections_are_not_allowed", readers_and_other_collections_are_not_allowed),
    ("nobody_writes_for_somebody_else", nobody_writes_for_somebody_else),
    ("of_a_fork_nothing_counts_until_a_pin_says_which_branch", of_a_fork_nothing_counts_until_a_pin_says_which_branch),
    ("of_two_pins_on_a_fork_the_stronger_counts", of_two_pins_on_a_fork_the_stronger_counts),
    (
        "a_replica_without_the_pinned_branch_accepts_nothing_of_a_forged_one",
        a_replica_without_the_pinned_branch_accepts_nothing_of_a_forged_one,
    ),
    ("equals_cannot_revoke_equals_and_the_owner_settles_it", equals_cannot_revoke_equals_and_the_owner_settles_it),
    (
        "admins_who_revoke_each_others_devices_do_not_go_round_in_circles",
        admins_who_revoke_each_others_devices_do_not_go_round_in_circles,
    ),
    ("a_stolen_device_is_cut_by_its_owner", a_stolen_device_is_cut_by_its_owner),
    ("a_key_with_two_certificates_gets_one_branch_of_a_fork", a_key_with_two_certificates_gets_one_branch_of_a_fork),
    (
        "what_was_granted_before_the_pin_stays_unless_the_revocation_cascades",
        what_was_granted_before_the_pin_stays_unless_the_revocation_cascades,
    ),
    ("a_grant_gives_no_more_than_its_maker_has", a_grant_gives_no_more_than_its_maker_has),
    ("nobody_certifies_a_key_for_somebody_stronger_or_wider", nobody_certifies_a_key_for_somebody_stronger_or_wider),
    ("only_the_right_people_do_what_is_for_all", only_the_right_people_do_what_is_for_all),
    ("an_admin_of_a_part_cuts_and_readmits_within_it", an_admin_of_a_part_cuts_and_readmits_within_it),
    ("nobody_readmits_itself", nobody_readmits_itself),
    ("an_owners_act_waits_for_the_others", an_owners_act_waits_for_the_others),
    (
        "one_owner_of_several_has_no_weaker_authority_of_its_own",
        one_owner_of_several_has_no_weaker_authority_of_its_own,
    ),
    ("a_right_ends_with_its_time_and_only_then", a_right_ends_with_its_time_and_only_then),
    ("time_does_not_run_back_past_what_an_op_names", time_does_not_run_back_past_what_an_op_names),
    ("what_an_op_names_must_be_here", what_an_op_names_must_be_here),
    ("another_genesis_founds_nothing_here", another_genesis_founds_nothing_here),
];
