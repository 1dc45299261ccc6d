//! Changes of owners.

use super::scenarios::{is_cut, pin, verdict};
use super::store::Node;
use super::world::{World, id_of, key, recovery_key, target};
use crate::authority::Verdict;
use crate::authority::reference::judge_all;
use crate::id::OpId;
use crate::op::{
    Act, Approve, BuiltInRole, Control, Grant, Header, Payload, Pin, Rank, Readmit, RevokeTarget, Role, Rules,
};

const ALLOWED: Verdict = Verdict::Allowed;
const NOT_ALLOWED: Verdict = Verdict::NotAllowed;

pub(super) const ALL: &[(&str, fn())] = &[
    ("new_owners_rule_and_a_thief_of_the_old_keys_does_not", new_owners_rule_and_a_thief_of_the_old_keys_does_not),
    ("only_enough_of_the_recovery_keys_change_owners", only_enough_of_the_recovery_keys_change_owners),
    ("recovery_keys_do_nothing_else", recovery_keys_do_nothing_else),
    ("of_two_changes_one_counts_and_what_rests_on_it", of_two_changes_one_counts_and_what_rests_on_it),
    ("a_fork_by_a_recovery_key_is_two_changes", a_fork_by_a_recovery_key_is_two_changes),
    ("new_owners_have_their_own_threshold", new_owners_have_their_own_threshold),
    ("only_owners_of_the_same_set_consent", only_owners_of_the_same_set_consent),
    ("who_was_replaced_consents_to_nothing_any_more", who_was_replaced_consents_to_nothing_any_more),
    ("nobody_undoes_a_change_of_owners", nobody_undoes_a_change_of_owners),
    ("the_pins_of_a_change_decide_a_fork_of_an_owner", the_pins_of_a_change_decide_a_fork_of_an_owner),
    ("who_has_no_recovery_keys_keeps_its_owners", who_has_no_recovery_keys_keeps_its_owners),
];

/// One owner, an admin.
fn owned() -> World {
    let mut world = World::new(&["o0"], 1);
    world.enrol("o0", "a0", (10, 10), Some((BuiltInRole::Admin, "*")));
    world.sync_all();
    world
}

/// A change of owners with what a thief of the old key does, a change that comes too late, and acts of the new owners.
pub(super) fn exercised() -> World {
    let mut w = owned();
    let genesis = w.genesis();
    w.act("o0", rules(1));
    w.sync_all();
    w.act("o0", rules(2));
    w.fresh_session("o0");
    w.enrol("o0", "thief", (10, 10), Some((BuiltInRole::Admin, "*")));
    w.write("thief", "x");
    let change = w.succeed("a0", genesis, &["n0", "n1"], 2);
    let too_few = w.draft_succession("a0", genesis, &[recovery_key(0, 2)], (&["o0"], 1), vec![]);
    w.put(too_few);
    let signers = [recovery_key(0, 1), recovery_key(0, 2)];
    // Of two changes that with the smaller id counts.
    let mut later = || w.draft_succession("a0", genesis, &signers, (&["m0"], 1), vec![]);
    let second = std::iter::repeat_with(&mut later).find(|second| id_of(second) > change).unwrap();
    w.put(second);
    let agreed = w.act("n0", rules(1));
    w.sync("n0", "n1");
    w.approve("n1", agreed);
    w.act("n0", rules(2));
    w.sync("o0", "n0");
    w.act("o0", rules(3));
    w.write("a0", "x");
    w.succeed("n0", change, &["n2"], 1);
    w.act("n2", rules(1));
    w
}

fn rules(version: u32) -> Act {
    Act::Rules(Rules { version })
}

#[test]
fn new_owners_rule_and_a_thief_of_the_old_keys_does_not() {
    let mut w = owned();
    let (genesis, before) = (w.genesis(), w.peer("a0").certificate);
    let seen = w.act("o0", rules(1));
    w.sync_all();
    // The thief has the key, and acts where nobody sees it: on in the stream, and in one of its own.
    let unseen = w.act("o0", rules(2));
    w.fresh_session("o0");
    w.enrol("o0", "thief", (10, 10), Some((BuiltInRole::Admin, "*")));
    let (door, written) = (w.peer("thief").certificate, w.write("thief", "x"));
    let change = w.succeed("a0", genesis, &["n0"], 1);
    for kept in [before, seen, change] {
        assert_eq!(verdict(&w, kept), ALLOWED);
    }
    for cut in [unseen, door, written] {
        assert!(is_cut(verdict(&w, cut), change));
    }
    // Later, knowing of the change or not, and with what it had.
    w.sync("o0", "n0");
    let later = w.act("o0", rules(3));
    let undo = w.revoke_with("o0", RevokeTarget::Statement(change), vec![], true);
    assert!(is_cut(verdict(&w, later), change) && !verdict(&w, undo).is_allowed());
    // The new owner is the old principal.
    let set = w.act("n0", rules(1));
    let principal = w.peer("o0").principal;
    let act = Grant {
        principal,
        role: Role::BuiltIn(BuiltInRole::Editor),
        target: target("x"),
        rank: Rank(1),
        not_after: None,
    };
    let granted = w.act("n0", Act::Grant(act));
    let write = w.write("n0", "x");
    for id in [set, granted, write] {
        assert_eq!(verdict(&w, id), ALLOWED);
    }
    w.sync("o0", "n0");
    let by_thief = w.write("o0", "x");
    assert!(is_cut(verdict(&w, by_thief), change), "the right is the principal's, the key is not any more");
    let node = Node::with(w.cluster, &w.ops);
    let owners = node.authority.owners().unwrap();
    assert_eq!((owners.certificate, owners.owners, owners.threshold), (change, vec![key("n0")], 1));
    assert_eq!(node.authority.owner_certificate(&key("n0")), Some(change));
    assert_eq!(node.authority.owner_certificate(&key("o0")), None);
    // And again, by the next recovery keys.
    let next = w.succeed("n0", change, &["n1"], 1);
    let late = w.act("n0", rules(1));
    assert_eq!(verdict(&w, next), ALLOWED);
    assert_eq!(verdict(&w, set), ALLOWED);
    assert!(is_cut(verdict(&w, late), next));
}

#[test]
fn only_enough_of_the_recovery_keys_change_owners() {
    let w = owned();
    let genesis = w.genesis();
    let (first, second, stranger) = (recovery_key(0, 0), recovery_key(0, 1), key("stranger"));
    for (signers, expected) in [
        (vec![first], NOT_ALLOWED),
        (vec![second, first], ALLOWED),
        (vec![first, second, recovery_key(0, 2)], ALLOWED),
        (vec![first, stranger], NOT_ALLOWED),
        (vec![first, stranger, second], ALLOWED),
        (vec![stranger, first, second], NOT_ALLOWED),
        (vec![recovery_key(1, 0), recovery_key(1, 1)], NOT_ALLOWED),
        (vec![key("o0"), first], NOT_ALLOWED),
        (vec![key("o0"), key("a0")], NOT_ALLOWED),
    ] {
        let mut w = w.clone();
        let header = w.draft_succession("a0", genesis, &signers, (&["n0"], 1), vec![]);
        let lacks = Node::with(w.cluster, &w.ops).authority.succession_lacks(&header);
        let id = w.put(header);
        assert_eq!(verdict(&w, id), expected, "{signers:?}");
        assert_eq!(lacks.is_none(), expected == ALLOWED, "{signers:?}");
    }
    // Of what its author does not know, and after what makes no owners.
    let mut w = w;
    let change = w.succeed("a0", genesis, &["n0"], 1);
    let signers = [recovery_key(1, 0), recovery_key(1, 1)];
    let mut blind = w.draft_succession("a0", change, &signers, (&["n1"], 1), vec![]);
    blind.control_heads = vec![genesis];
    let blind = w.put(blind);
    let admin = w.peer("a0").certificate;
    let odd = w.draft_succession("a0", admin, &[first, second], (&["n1"], 1), vec![]);
    let odd = w.put(odd);
    for id in [blind, odd] {
        assert_eq!(verdict(&w, id), NOT_ALLOWED);
    }
}

#[test]
fn recovery_keys_do_nothing_else() {
    let mut w = owned();
    let genesis = w.genesis();
    w.add_peer("r", recovery_key(0, 0), genesis.into(), genesis);
    let acts = [w.act("r", rules(1)), w.certify("r", "thief", None, 10), w.write("r", "x")];
    let revoke = w.revoke("r", "a0");
    for id in acts.into_iter().chain([revoke]) {
        assert_eq!(verdict(&w, id), NOT_ALLOWED);
    }
}

/// Two changes after the genesis, of which neither knows the other; the one that counts first.
fn competing(w: &mut World) -> [(OpId, &'static str); 2] {
    let genesis = w.genesis();
    let mut apart = w.clone();
    apart.clock += 100;
    let other = apart.succeed("a0", genesis, &["m0"], 1);
    w.put((*apart.ops[&other]).clone());
    w.install("a0", other, &["m0"]);
    let one = w.succeed("a0", genesis, &["n0"], 1);
    w.clock += 200;
    let mut both = [(one, "n0"), (other, "m0")];
    both.sort();
    both
}

#[test]
fn of_two_changes_one_counts_and_what_rests_on_it() {
    let mut w = owned();
    let [(first, winner), (second, loser)] = competing(&mut w);
    let (good, bad) = (w.act(winner, rules(1)), w.act(loser, rules(1)));
    // Another change after the one that does not count.
    let after = w.succeed(loser, second, &["l0"], 1);
    let by_after = w.act("l0", rules(1));
    for id in [first, good] {
        assert_eq!(verdict(&w, id), ALLOWED);
    }
    for id in [second, bad, after, by_after] {
        assert!(is_cut(verdict(&w, id), first));
    }
    assert_eq!(Node::with(w.cluster, &w.ops).authority.owners().unwrap().certificate, first);
    // Who has not heard of the first takes the second, until it does.
    let mut without = w.clone();
    without.ops.retain(|id, _| ![first, good].contains(id));
    for id in [second, bad, after, by_after] {
        assert_eq!(verdict(&without, id), ALLOWED);
    }
}

#[test]
fn a_fork_by_a_recovery_key_is_two_changes() {
    let mut w = owned();
    let genesis = w.genesis();
    let change = w.succeed("a0", genesis, &["n0"], 1);
    let mut sibling = (*w.ops[&change]).clone();
    let Payload::Control(control) = &mut sibling.payload else { unreachable!() };
    let Control { act: Act::Succeed(act), .. } = &mut **control else { unreachable!() };
    act.owners = vec![key("m0")];
    let sibling = w.put(sibling);
    let first = change.min(sibling);
    assert_eq!(verdict(&w, first), ALLOWED);
    assert!(is_cut(verdict(&w, change.max(sibling)), first));
}

#[test]
fn new_owners_have_their_own_threshold() {
    let mut w = owned();
    let genesis = w.genesis();
    w.succeed("a0", genesis, &["n0", "n1"], 2);
    let act = w.act("n0", rules(1));
    assert!(matches!(verdict(&w, act), Verdict::Deferred(_)));
    w.sync("n0", "n1");
    w.approve("n1", act);
    assert_eq!(verdict(&w, act), ALLOWED);
}

/// Two owners who agree, an admin that they have made, and an act to which only one has consented so far.
fn agreed() -> (World, OpId) {
    let mut w = World::new(&["o0", "o1"], 2);
    w.enrol("o0", "a0", (10, 10), Some((BuiltInRole::Admin, "*")));
    w.sync_all();
    for act in w.peer("a0").proof.clone() {
        w.approve("o1", act);
    }
    let open = w.act("o0", rules(1));
    w.sync_all();
    (w, open)
}

#[test]
fn only_owners_of_the_same_set_consent() {
    let (mut w, open) = agreed();
    let genesis = w.genesis();
    let change = w.succeed("a0", genesis, &["n0", "n1"], 2);
    w.approve("n0", open);
    w.approve("n1", open);
    assert!(matches!(verdict(&w, open), Verdict::Deferred(_)), "an act of the owners before");
    let new = w.act("n0", rules(1));
    w.sync("n0", "o1");
    w.approve("o1", new);
    assert!(matches!(verdict(&w, new), Verdict::Deferred(_)), "{change} made others the owners");
}

#[test]
fn who_was_replaced_consents_to_nothing_any_more() {
    let (mut w, open) = agreed();
    let genesis = w.genesis();
    let mut before = w.clone();
    before.approve("o1", open);
    assert_eq!(verdict(&before, open), ALLOWED);
    w.succeed("a0", genesis, &["n0"], 1);
    w.approve("o1", open);
    assert!(matches!(verdict(&w, open), Verdict::Deferred(_)), "made in time, consented to by a thief");
    // With the consent seen, the change lets it stand.
    before.sync("a0", "o1");
    before.succeed("a0", genesis, &["n0"], 1);
    assert_eq!(verdict(&before, open), ALLOWED);
}

#[test]
fn nobody_undoes_a_change_of_owners() {
    let mut w = owned();
    let genesis = w.genesis();
    let seen = w.act("o0", rules(1));
    let change = w.succeed("a0", genesis, &["n0"], 1);
    w.sync("n0", "o0");
    w.sync("n0", "a0");
    assert!(is_cut(verdict(&w, seen), change));
    for by in ["o0", "n0", "a0"] {
        let pins = vec![pin(&w, seen)];
        let readmitted = w.act(by, Act::Readmit(Readmit { revocation: change, pins }));
        assert!(!verdict(&w, readmitted).is_allowed());
        let revoked = w.revoke_with(by, RevokeTarget::Statement(change), vec![], false);
        assert!(!verdict(&w, revoked).is_allowed());
        let revoked = w.revoke_with(by, RevokeTarget::Statement(genesis), vec![], false);
        assert!(!verdict(&w, revoked).is_allowed());
        let principal = w.peer("o0").principal;
        w.revoke_with(by, RevokeTarget::Principal(principal), vec![], true);
        let approved = w.act(by, Act::Approve(Approve { act: seen }));
        assert_eq!(verdict(&w, approved).is_allowed(), by == "n0");
    }
    assert!(is_cut(verdict(&w, seen), change));
    let still = w.act("n0", rules(1));
    assert_eq!(verdict(&w, still), ALLOWED);
}

#[test]
fn the_pins_of_a_change_decide_a_fork_of_an_owner() {
    let mut w = owned();
    let genesis = w.genesis();
    let acts = [w.act("o0", rules(1)), w.act("o0", rules(1)), w.act("o0", rules(1))];
    w.sync_all();
    let other = w.sibling(acts[1]);
    let other = w.put(other);
    for id in &acts[1..] {
        assert!(matches!(verdict(&w, *id), Verdict::Forked { .. }));
    }
    let pins: Vec<Pin> = vec![pin(&w, acts[1])];
    let signers = [recovery_key(0, 0), recovery_key(0, 1)];
    let change = w.draft_succession("a0", genesis, &signers, (&["n0"], 1), pins);
    let change = w.put(change);
    for id in &acts[..2] {
        assert_eq!(verdict(&w, *id), ALLOWED);
    }
    assert!(is_cut(verdict(&w, other), change) && is_cut(verdict(&w, acts[2]), change));
}

#[test]
fn who_has_no_recovery_keys_keeps_its_owners() {
    let w = owned();
    let genesis = w.genesis();
    let mut header: Header = (*w.ops[&genesis]).clone();
    let Payload::Control(control) = &mut header.payload else { unreachable!() };
    let Act::Genesis(act) = &mut control.act else { unreachable!() };
    (act.recovery, act.recovery_threshold) = (Vec::new(), 0);
    let mut w = World::founded(header);
    let genesis = w.genesis();
    w.add_peer("o0", key("o0"), genesis.into(), genesis);
    for signers in [vec![key("o0")], vec![recovery_key(0, 0), recovery_key(0, 1)]] {
        let change = w.draft_succession("o0", genesis, &signers, (&["n0"], 1), vec![]);
        let change = w.put(change);
        assert_eq!(verdict(&w, change), NOT_ALLOWED);
    }
    let owners = Node::with(w.cluster, &w.ops).authority.owners().unwrap();
    assert_eq!((owners.certificate, owners.recovery_threshold), (genesis, 0));
}

#[test]
fn who_lost_its_key_gets_another_one_and_keeps_its_rights() {
    let mut w = super::scenarios::small();
    let before = w.write("u", "x");
    w.sync_all();
    let lost = w.peer("u").certificate;
    let principal = w.peer("u").principal;
    let certificate = w.certify("a0", "u-new", Some(principal), 30);
    let pins = w.pins_of("a0", "u");
    let revocation = w.revoke_with("a0", RevokeTarget::Statement(lost), pins, false);
    w.add_peer("u-new", key("u-new"), principal, certificate);
    let after = w.write("u-new", "x");
    let by_finder = w.write("u", "x");
    assert_eq!(verdict(&w, before), ALLOWED);
    assert_eq!(verdict(&w, after), ALLOWED, "the grants are the principal's");
    assert!(is_cut(verdict(&w, by_finder), revocation));
}

#[test]
fn streams_of_acts_are_not_closed_by_what_they_say() {
    let mut w = owned();
    let genesis = w.genesis();
    w.act("o0", rules(1));
    w.sync_all();
    let [(first, _), (second, _)] = competing(&mut w);
    let node = Node::with(w.cluster, &w.ops);
    for change in [first, second] {
        assert_eq!(node.authority.closed_at(w.streams[&change], genesis), None);
        assert_eq!(node.authority.is_certified(genesis, w.ops[&change].author), Some(true));
    }
    let owners = w.pins_of_owners("a0", genesis);
    // Nor are those of the owners before: somebody may have named what they signed.
    assert_eq!(node.authority.closed_at(owners[0].stream, genesis), None);
    let needed = node.authority.pins_needed_for(&RevokeTarget::Statement(genesis), crate::authority::Reach::Target);
    assert_eq!(needed, owners.iter().map(|pin| pin.stream).collect::<Vec<_>>());
    assert_eq!(judge_all(w.cluster, &w.ops).control[&first], ALLOWED);
}
