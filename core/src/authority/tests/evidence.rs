//! Forks that witnesses decide.

use super::scenarios::{pin, principal, small, verdict};
use super::store::Node;
use super::world::{World, key};
use crate::authority::{Missing, Position, Verdict};
use crate::id::OpId;
use crate::op::{Act, BuiltInRole, Certify, Evidence, Header, Pin, Rank, RevokeTarget};

const ALLOWED: Verdict = Verdict::Allowed;

pub(super) const ALL: &[(&str, fn())] = &[
    ("witnesses_keep_what_enough_of_them_saw", witnesses_keep_what_enough_of_them_saw),
    ("one_witness_alone_decides_nothing", one_witness_alone_decides_nothing),
    ("who_saw_both_branches_saw_what_they_share", who_saw_both_branches_saw_what_they_share),
    ("what_was_seen_by_all_is_not_lost_by_a_late_fork", what_was_seen_by_all_is_not_lost_by_a_late_fork),
    ("a_chain_that_is_not_here_is_waited_for_if_that_matters", a_chain_that_is_not_here_is_waited_for_if_that_matters),
    ("nobody_is_a_witness_of_its_own_forks", nobody_is_a_witness_of_its_own_forks),
    ("evidence_needs_the_duty_and_strength", evidence_needs_the_duty_and_strength),
    (
        "evidence_of_who_was_removed_counts_as_far_as_it_is_pinned",
        evidence_of_who_was_removed_counts_as_far_as_it_is_pinned,
    ),
    ("pins_go_before_witnesses", pins_go_before_witnesses),
    ("of_equal_branches_that_with_the_smaller_hash_is_kept", of_equal_branches_that_with_the_smaller_hash_is_kept),
    (
        "forks_of_admins_are_decided_with_all_that_rests_on_them",
        forks_of_admins_are_decided_with_all_that_rests_on_them,
    ),
    ("nobody_touches_a_stream_that_does_not_fork", nobody_touches_a_stream_that_does_not_fork),
];

/// Like [`small`], with three witnesses of which two must agree.
fn watched() -> World {
    let mut w = small();
    for name in ["w0", "w1", "w2"] {
        w.appoint("o0", name, name, 5, 2);
    }
    w.sync_all();
    w
}

/// What a user wrote before it forked its stream, and the two ways in which it went on.
fn forked(w: &mut World) -> (OpId, Vec<OpId>, Vec<OpId>) {
    let before = w.write("u", "x");
    let one: Vec<OpId> = (0..3).map(|_| w.write("u", "x")).collect();
    let other = w.branch(one[0], 3);
    (before, one, other)
}

fn is_forked(w: &World, id: OpId) -> bool {
    matches!(verdict(w, id), Verdict::Forked { .. })
}

fn waits(w: &World, id: OpId, end: Pin) -> bool {
    verdict(w, id) == Verdict::Deferred(Missing::Pinned(end))
}

/// Requires that of the first ops so many count, and of the others none.
fn assert_kept(w: &World, kept: &[OpId], count: usize, lost: &[OpId]) {
    for (at, id) in kept.iter().enumerate() {
        assert_eq!(verdict(w, *id).is_allowed(), at < count, "{at} of {count}");
    }
    assert!(lost.iter().all(|id| !verdict(w, *id).is_allowed()));
}

#[test]
fn witnesses_keep_what_enough_of_them_saw() {
    let mut w = watched();
    let (before, one, other) = forked(&mut w);
    assert_kept(&w, &one, 0, &other);
    w.testify("w0", &[one[2]]);
    assert_kept(&w, &one, 0, &other);
    w.testify("w1", &[one[1]]);
    assert_kept(&w, &one, 2, &other);
    assert!(is_forked(&w, one[2]) && is_forked(&w, other[0]));
    assert_eq!(verdict(&w, before), ALLOWED);
    w.testify("w2", &[one[2]]);
    assert_kept(&w, &one, 3, &other);
    // What goes on from there was seen by nobody.
    let later = w.write("u", "x");
    assert!(is_forked(&w, later));
}

#[test]
fn one_witness_alone_decides_nothing() {
    let mut w = watched();
    let (_, one, other) = forked(&mut w);
    w.testify("w0", &[other[2]]);
    w.testify("w0", &[other[1]]);
    assert_kept(&w, &one, 0, &other);
    // Nor against others.
    w.testify("w1", &[one[2]]);
    assert_kept(&w, &one, 0, &other);
    w.testify("w2", &[one[2]]);
    assert_kept(&w, &one, 3, &other);
    // One whose word counts alone goes after two that agree, and before nobody.
    w.appoint("o0", "w3", "w3", 5, 1);
    w.fresh_session("u");
    let (_, one, other) = forked(&mut w);
    w.testify("w3", &[other[1]]);
    assert_kept(&w, &other, 2, &one);
    w.testify("w1", &[one[2]]);
    assert_kept(&w, &other, 2, &one);
    w.testify("w2", &[one[2]]);
    assert_kept(&w, &one, 3, &other);
    // With one of the others it is as good as those.
    w.testify("w0", &[other[1]]);
    let (kept, lost) = if one[0] < other[0] { (&one[..], &other) } else { (&other[..2], &one) };
    assert_kept(&w, kept, kept.len(), lost);
}

#[test]
fn who_saw_both_branches_saw_what_they_share() {
    let mut w = watched();
    let (_, one, other) = forked(&mut w);
    w.testify("w0", &[one[1]]);
    w.testify("w1", &[one[2]]);
    w.testify("w1", &[other[0]]);
    assert_kept(&w, &one, 0, &other);
    w.testify("w2", &[one[0]]);
    assert_kept(&w, &one, 1, &other);
    // What the two ways share counts, where it lies beyond another fork.
    let mut w = watched();
    let (_, one, other) = forked(&mut w);
    let third = w.branch(one[2], 1);
    w.testify("w0", &[one[2]]);
    w.testify("w1", &[one[2]]);
    w.testify("w1", &third);
    assert_kept(&w, &one, 2, &[&other[..], &third].concat());
}

#[test]
fn what_was_seen_by_all_is_not_lost_by_a_late_fork() {
    let mut w = watched();
    let trunk: Vec<OpId> = (0..4).map(|_| w.write("u", "x")).collect();
    // Each was shown another end.
    let mut ends = vec![w.write("u", "x")];
    for _ in 0..2 {
        ends.extend(w.branch(ends[0], 1));
    }
    let late = w.branch(trunk[0], 6);
    assert_kept(&w, &trunk, 0, &late);
    for (name, end) in ["w0", "w1", "w2"].into_iter().zip(&ends) {
        w.testify(name, &[*end]);
    }
    assert_kept(&w, &trunk, 4, &[late, ends].concat());
}

#[test]
fn a_chain_that_is_not_here_is_waited_for_if_that_matters() {
    let mut w = watched();
    let (before, one, other) = forked(&mut w);
    w.testify("w0", &[one[2]]);
    let end = pin(&w, other[2]);
    w.testify("w1", &[other[2]]);
    let missing = w.ops.remove(&other[2]).unwrap();
    // It may be the same branch.
    for id in [one[0], one[2], other[0]] {
        assert!(waits(&w, id, end), "{:?}", verdict(&w, id));
    }
    assert_eq!(verdict(&w, before), ALLOWED);
    // Two that agree need no third, but that may take one of them further than the other.
    w.testify("w2", &[one[1]]);
    assert_kept(&w, &one, 2, &other[..2]);
    assert!(is_forked(&w, other[0]) && waits(&w, one[2], end));
    w.ops.insert(other[2], missing);
    assert_kept(&w, &one, 2, &other);
    assert!(is_forked(&w, one[2]));
    // What is no chain of the stream is as if it had not been said.
    let mut w = watched();
    let (_, one, other) = forked(&mut w);
    let false_end = Pin { seq: 2, ..pin(&w, other[2]) };
    w.act("w1", Act::Evidence(Evidence { pins: vec![false_end] }));
    w.testify("w0", &[one[2]]);
    assert!(is_forked(&w, one[0]));
    // Whoever counts alone is waited for before another who does.
    let mut w = watched();
    w.appoint("o0", "w3", "w3", 5, 1);
    w.appoint("o0", "w4", "w4", 5, 1);
    let (_, one, other) = forked(&mut w);
    w.testify("w3", &[one[2]]);
    let end = pin(&w, other[2]);
    w.testify("w4", &[other[2]]);
    w.ops.remove(&other[2]);
    assert!(one.iter().all(|id| waits(&w, *id, end)));
}

#[test]
fn nobody_is_a_witness_of_its_own_forks() {
    let mut w = watched();
    w.appoint("o0", "wu", "u", 5, 1);
    let (_, one, other) = forked(&mut w);
    w.testify("wu", &[one[2]]);
    assert_kept(&w, &one, 0, &other);
    // Nor by another key of the same principal.
    let mut w = watched();
    let (user, rank) = (w.peer("u").principal, Rank(5));
    let own = Certify { principal: Some(user), key: key("w3"), rank, not_after: None, name: String::new() };
    let own = w.act("o0", Act::Certify(own));
    let duty = w.act("o0", super::rights::duty(user, crate::op::Duty::Witness(1), 5));
    w.add_peer("w3", key("w3"), user, own);
    w.peer_mut("w3").proof.push(duty);
    let (_, one, other) = forked(&mut w);
    let said = w.testify("w3", &[one[2]]);
    assert_eq!(verdict(&w, said), ALLOWED);
    assert_kept(&w, &one, 0, &other);
    w.write("v", "x");
    let theirs = w.write("v", "x");
    let fork = w.branch(theirs, 1);
    w.testify("w3", &[theirs]);
    assert_kept(&w, &[theirs], 1, &fork);
}

#[test]
fn evidence_needs_the_duty_and_strength() {
    let mut w = watched();
    let (_, one, other) = forked(&mut w);
    // An owner has no duty either.
    for name in ["a0", "v", "o0"] {
        let said = w.testify(name, &[one[2]]);
        assert_eq!(verdict(&w, said), Verdict::NotAllowed, "{name}");
    }
    assert_kept(&w, &one, 0, &other);
    // As strong as the stream, by the certificate or by the duty.
    let mut w = watched();
    w.appoint("o0", "w3", "w3", 30, 1);
    let (_, one, other) = forked(&mut w);
    let said = w.testify("w3", &[one[2]]);
    assert_eq!(verdict(&w, said), ALLOWED);
    assert_kept(&w, &one, 0, &other);
    w.appoint("o0", "w4", "w4", 29, 1);
    w.testify("w4", &[one[2]]);
    assert_kept(&w, &one, 3, &other);
    // A witness makes no other.
    let named = Certify { principal: None, key: key("x"), rank: Rank(6), not_after: None, name: String::new() };
    let named = w.act("w0", Act::Certify(named));
    let given = w.act("w0", super::rights::duty(w.peer("w0").principal, crate::op::Duty::Witness(1), 6));
    for id in [named, given] {
        assert_eq!(verdict(&w, id), Verdict::NotAllowed);
    }
}

#[test]
fn evidence_of_who_was_removed_counts_as_far_as_it_is_pinned() {
    let mut w = watched();
    let (_, one, other) = forked(&mut w);
    w.testify("w0", &[one[2]]);
    w.testify("w1", &[one[2]]);
    assert_kept(&w, &one, 3, &other);
    w.sync_all();
    let base = w.clone();
    let target = principal(&w, "w1");
    w.revoke_with("o0", target.clone(), vec![], false);
    assert_kept(&w, &one, 0, &other);
    // Others are heard in its place.
    w.testify("w2", &[one[1]]);
    assert_kept(&w, &one, 2, &other);
    let mut w = base;
    let pins = w.pins_of("o0", "w1");
    w.revoke_with("o0", target, pins, false);
    assert_kept(&w, &one, 3, &other);
    w.fresh_session("u");
    let (_, again, lost) = forked(&mut w);
    w.testify("w0", &[again[2]]);
    w.testify("w1", &[again[2]]);
    assert_kept(&w, &again, 0, &lost);
    w.testify("w2", &[again[2]]);
    assert_kept(&w, &again, 3, &lost);
}

#[test]
fn pins_go_before_witnesses() {
    let mut w = watched();
    let (_, one, other) = forked(&mut w);
    w.testify("w0", &[one[2]]);
    w.testify("w1", &[one[2]]);
    let target = principal(&w, "u");
    let pins = vec![pin(&w, other[1])];
    w.revoke_with("a0", target, pins, false);
    assert_kept(&w, &other, 2, &one);
}

#[test]
fn of_equal_branches_that_with_the_smaller_hash_is_kept() {
    let mut w = watched();
    for name in ["w3", "w4"] {
        w.appoint("o0", name, name, 5, 1);
    }
    for _ in 0..6 {
        let (_, one, other) = forked(&mut w);
        w.testify("w3", &[one[2]]);
        assert_kept(&w, &one, 3, &other);
        w.testify("w4", &[other[1]]);
        if one[0] < other[0] {
            assert_kept(&w, &one, 3, &other);
        } else {
            assert_kept(&w, &other, 2, &one);
        }
        w.fresh_session("u");
    }
}

#[test]
fn forks_of_admins_are_decided_with_all_that_rests_on_them() {
    let mut w = watched();
    w.write("a1", "x");
    w.sync_all();
    let mut two = w.clone();
    let mine = w.enrol_given("a1", "m");
    let theirs = two.enrol_given("a1", "t");
    let (kept, lost) = (w.peer("m").certificate, two.peer("t").certificate);
    let granted = w.peer("m").proof[1];
    w.ops.extend(two.ops.clone());
    w.streams.extend(two.streams.clone());
    assert!(is_forked(&w, kept) && is_forked(&w, lost));
    // Too weak for an admin's stream.
    w.appoint("o0", "w3", "w3", 12, 1);
    w.testify("w3", &[granted]);
    assert!(is_forked(&w, kept));
    w.testify("w0", &[granted]);
    w.testify("w1", &[granted]);
    for id in [kept, granted, mine] {
        assert_eq!(verdict(&w, id), ALLOWED);
    }
    assert!(is_forked(&w, lost) && is_forked(&w, theirs));
    // Strong ones are heard about each other.
    let first = w.testify("w2", &[granted]);
    let mut again: Header = (*w.ops[&first]).clone();
    again.hlc = crate::hlc::Hlc::new(w.clock + 1, 0);
    let again = w.put(again);
    assert!(is_forked(&w, first) && is_forked(&w, again));
    w.appoint("o0", "w5", "w5", 4, 1);
    w.testify("w5", &[first]);
    assert_eq!(verdict(&w, first), ALLOWED);
    assert!(is_forked(&w, again));
}

#[test]
fn nobody_touches_a_stream_that_does_not_fork() {
    let mut w = watched();
    let written: Vec<OpId> = (0..3).map(|_| w.write("u", "x")).collect();
    let never = Pin { head: OpId::new([9; 32]), ..pin(&w, written[1]) };
    for name in ["w0", "w1", "w2"] {
        w.act(name, Act::Evidence(Evidence { pins: vec![never] }));
    }
    assert_kept(&w, &written, 3, &[]);
    // The forks of owners, to whom nobody is stronger, stay theirs.
    let act = w.act("o0", Act::Approve(crate::op::Approve { act: written[0] }));
    let other = w.branch(act, 1);
    for name in ["w0", "w1", "w2"] {
        w.testify(name, &[act]);
    }
    assert!(is_forked(&w, act) && is_forked(&w, other[0]));
}

#[test]
fn says_who_decides() {
    let mut w = watched();
    let (before, one, other) = forked(&mut w);
    let said = [w.testify("w0", &[one[1]]), w.testify("w1", &[one[2]])];
    w.testify("w2", &[other[2]]);
    let told = |w: &World, id: OpId| {
        let node = Node::with(w.cluster, &w.ops);
        let header = &w.ops[&id];
        let at = Position { stream: w.streams[&id], seq: header.seq, op: id };
        node.authority.why(&at, header, 0, &node.received).fork
    };
    assert_eq!(told(&w, before), None);
    let fork = told(&w, one[2]).unwrap();
    assert_eq!((fork.at, fork.kept, fork.by), (2, Some(pin(&w, one[1])), None));
    assert_eq!(fork.evidence.len(), 3);
    let of = |act| fork.evidence.iter().find(|said| said.act == act).unwrap();
    assert_eq!((of(said[0]).witness, of(said[0]).quorum), (w.peer("w0").principal, 2));
    assert_eq!((of(said[1]).pin, of(said[1]).verdict), (pin(&w, one[2]), ALLOWED));
    let target = principal(&w, "u");
    let pins = vec![pin(&w, other[0])];
    let by = w.revoke_with("a0", target, pins, false);
    let fork = told(&w, one[2]).unwrap();
    assert_eq!((fork.kept, fork.by), (Some(pin(&w, other[0])), Some(by)));
}

#[test]
fn knows_its_witnesses() {
    let mut w = watched();
    let duty = w.peer("w1").proof[1];
    w.sync_all();
    w.revoke_with("o0", RevokeTarget::Statement(duty), vec![], false);
    let (_, one, _) = forked(&mut w);
    w.testify("w0", &[one[0]]);
    let node = Node::with(w.cluster, &w.ops);
    let now = crate::hlc::Hlc::new(w.clock, 0);
    let witnesses = node.authority.witnesses(now);
    assert_eq!(witnesses.len(), 2);
    let first = witnesses.iter().find(|witness| witness.principal == w.peer("w0").principal).unwrap();
    assert_eq!((first.quorum, first.rank, first.evidence), (2, Rank(5), 1));
    let own = w.peer("w0").certificate;
    assert_eq!(first.signs, Some((key("w0"), own)));
    assert_eq!(node.authority.witness_certificates(key("w0"), now), vec![(Rank(5), own)]);
    assert_eq!(node.authority.witness_certificates(key("w1"), now), vec![]);
    // Once for each stream.
    let (stream, certificate) = (w.streams[&one[0]], w.peer("u").certificate);
    let wants = |name: &str| {
        let peer = w.peer(name);
        node.authority.wants_evidence((peer.key, peer.certificate, Rank(5)), stream, certificate)
    };
    assert!(!wants("w0") && wants("w2"));
}

/// For the golden vectors.
pub(super) fn exercised() -> World {
    let mut w = watched();
    let (_, one, other) = forked(&mut w);
    w.testify("w0", &[one[2]]);
    w.testify("w1", &[one[1]]);
    w.testify("w2", &[other[2]]);
    w.enrol("a0", "z", (30, 31), Some((BuiltInRole::Editor, "*")));
    w.write("z", "x");
    let two = w.write("z", "x");
    w.branch(two, 2);
    w.testify("w0", &[two]);
    let missing = Pin { seq: 4, head: OpId::new([7; 32]), ..pin(&w, two) };
    w.act("w1", Act::Evidence(Evidence { pins: vec![missing] }));
    let certificate = w.certify("a1", "m", None, 30);
    let lost = w.branch(certificate, 1);
    w.testify("w1", &[certificate]);
    w.testify("w0", &[certificate]);
    w.testify("v", &lost);
    w.sync("o0", "w2");
    let target = principal(&w, "w2");
    w.revoke_with("o0", target, vec![], false);
    w
}
