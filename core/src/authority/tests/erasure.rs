//! Who erases, what that does, and who says that it is done.

use std::collections::BTreeSet;

use super::rights::{documents, grant, revision};
use super::scenarios::{is_cut, pin, principal, small, verdict};
use super::store::Node;
use super::world::{World, collection, paths, target};
use crate::authority::Verdict;
use crate::authority::reference::judge_all;
use crate::hlc::Hlc;
use crate::id::{DocId, OpId};
use crate::op::{Act, Action, Actions, BuiltInRole, Control, Erase, Erased, Fields, Payload, Pin, Role, Target};

const ALLOWED: Verdict = Verdict::Allowed;
const NOT_ALLOWED: Verdict = Verdict::NotAllowed;

pub(super) fn erase(on: &str, docs: &[&str]) -> Act {
    let documents: BTreeSet<DocId> = docs.iter().map(|doc| doc.parse().unwrap()).collect();
    Act::Erase(Erase { collection: collection(on), documents: documents.into_iter().collect(), why: "gone".into() })
}

/// Whether a document is erased, on which engine and reference agree.
fn is_erased(w: &World, on: &str, doc: &str) -> bool {
    let node = Node::with(w.cluster, &w.ops);
    node.check().unwrap();
    let found = node.authority.is_erased(&collection(on), &doc.parse().unwrap());
    assert_eq!(found, judge_all(w.cluster, &w.ops).erased.contains(&(collection(on), doc.parse().unwrap())));
    found
}

/// Gives a peer a role of its own making on a target; returns the grant.
fn eraser(w: &mut World, name: &str, on: Target) -> OpId {
    let made = w.act("o0", revision(&[Action::Erase], &[], 30));
    let principal = w.peer(name).principal;
    let given = w.act("o0", grant(principal, Role::Custom(made), on, 31));
    w.sync_all();
    let certificate = w.peer(name).certificate;
    w.peer_mut(name).proof = vec![certificate, made, given];
    given
}

#[test]
fn who_may_erase_each_document_erases_them() {
    let mut w = small();
    let by_editor = w.act("u", erase("x", &["a"]));
    assert_eq!(verdict(&w, by_editor), NOT_ALLOWED, "an editor has no right to it");
    let by_admin = w.act("a0", erase("x", &["a", "b"]));
    let by_owner = w.act("o0", erase("y", &["a"]));
    assert_eq!((verdict(&w, by_admin), verdict(&w, by_owner)), (ALLOWED, ALLOWED));
    for (on, doc, expected) in
        [("x", "a", true), ("x", "b", true), ("x", "c", false), ("y", "a", true), ("y", "b", false)]
    {
        assert_eq!(is_erased(&w, on, doc), expected, "{on}/{doc}");
    }
    eraser(&mut w, "n", documents("z", "p/"));
    for (docs, expected) in [(&["p/1"][..], ALLOWED), (&["p/1", "q"], NOT_ALLOWED), (&["p/2", "p/3"], ALLOWED)] {
        let id = w.act("n", erase("z", docs));
        assert_eq!(verdict(&w, id), expected, "{docs:?}");
    }
    let elsewhere = w.act("n", erase("x", &["p/1"]));
    assert_eq!(verdict(&w, elsewhere), NOT_ALLOWED);
    assert!(is_erased(&w, "z", "p/2") && !is_erased(&w, "z", "q") && !is_erased(&w, "x", "p/1"));
}

#[test]
fn a_right_to_some_fields_erases_nothing() {
    let mut w = small();
    let some = |fields| Target { fields, ..target("x") };
    for limits in [Fields::Only(paths(&["/a"])), Fields::Except(paths(&["/b"]))] {
        eraser(&mut w, "n", some(limits));
        let id = w.act("n", erase("x", &["a"]));
        assert_eq!(verdict(&w, id), NOT_ALLOWED);
    }
    assert!(!is_erased(&w, "x", "a"));
    let all: Vec<Action> = Actions::ALL.iter().collect();
    let made = w.act("o0", revision(&all, &[], 30));
    let principal = w.peer("n").principal;
    let given = w.act("o0", grant(principal, Role::Custom(made), target("x"), 31));
    w.sync_all();
    let certificate = w.peer("n").certificate;
    w.peer_mut("n").proof = vec![certificate, made, given];
    let id = w.act("n", erase("x", &["a"]));
    assert_eq!((verdict(&w, id), is_erased(&w, "x", "a")), (ALLOWED, true));
}

/// The pin of somebody's acts.
fn acts_until(w: &World, id: OpId) -> Vec<Pin> {
    vec![pin(w, id)]
}

#[test]
fn who_was_removed_erases_nothing_by_a_backdated_act() {
    let mut w = small();
    let before = w.act("a1", erase("x", &["a"]));
    w.sync_all();
    let target = principal(&w, "a1");
    let pins = acts_until(&w, before);
    let revocation = w.revoke_with("o0", target, pins, false);
    // It has seen nothing of that, and says to have been earlier than it.
    let mut header = w.draft_act("a1", erase("x", &["b"]));
    header.hlc = Hlc::new(w.ops[&before].hlc.millis(), 1);
    let after = w.sign("a1", header);
    assert!(is_cut(verdict(&w, after), revocation));
    assert!(is_erased(&w, "x", "a") && !is_erased(&w, "x", "b"));
    // A readmission lets it stand.
    let pins = acts_until(&w, after);
    w.act("o0", Act::Readmit(crate::op::Readmit { revocation, pins }));
    assert!(is_erased(&w, "x", "b"));
}

#[test]
fn an_erasure_that_counts_no_more_erases_nothing_unless_another_does() {
    let mut w = small();
    let one = w.act("a1", erase("x", &["a", "b"]));
    let mut node = Node::with(w.cluster, &w.ops);
    let docs = |docs: &[&str]| -> BTreeSet<_> { docs.iter().map(|d| (collection("x"), d.parse().unwrap())).collect() };
    assert_eq!(node.authority.take_erasure_news(), docs(&["a", "b"]));
    assert!(node.authority.take_erasure_news().is_empty());
    let other = w.act("a0", erase("x", &["b"]));
    node.receive(other, &w.ops[&other].clone());
    assert_eq!(node.authority.take_erasure_news(), docs(&["b"]));
    // With a pin before the act: the account was stolen by then.
    let target = principal(&w, "a1");
    let revocation = w.revoke_with("o0", target, Vec::new(), false);
    assert!(is_cut(verdict(&w, one), revocation));
    assert!(!is_erased(&w, "x", "a") && is_erased(&w, "x", "b"));
    node.receive(revocation, &w.ops[&revocation].clone());
    assert_eq!(node.authority.take_erasure_news(), docs(&["a", "b"]));
    assert_eq!(node.authority.erased_documents(), docs(&["b"]));
    assert_eq!(node.authority.erasures().count(), 2);
}

#[test]
fn members_tell_what_they_have_carried_out_and_nobody_else() {
    let mut w = small();
    w.enrol("a0", "m", (20, 20), None);
    let membership = w.member("a0", "m", 20);
    let other = w.member("a0", "v", 21);
    let act = w.act("a0", erase("x", &["a"]));
    let grant = w.grant("a0", "n", BuiltInRole::Reader, "x", 31);
    w.sync_all();
    let tell = |w: &mut World, name: &str, with: &[OpId], acts: Vec<OpId>| {
        let mut proof: Vec<OpId> = with.iter().copied().chain([w.peer(name).certificate]).collect();
        proof.sort();
        let mut header = w.draft_act(name, Act::Erased(Erased { acts: acts.clone() }));
        header.payload = Payload::from(Control { proof, act: Act::Erased(Erased { acts }), for_whom: None });
        w.sign(name, header)
    };
    let mut unknown = vec![act, OpId::new([7; 32])];
    unknown.sort();
    for (name, with, acts, expected) in [
        ("m", vec![membership], vec![act], ALLOWED),
        ("m", vec![], vec![act], NOT_ALLOWED),
        ("n", vec![membership], vec![act], NOT_ALLOWED),
        ("v", vec![other], vec![act], ALLOWED),
        ("m", vec![membership], vec![grant], NOT_ALLOWED),
        ("m", vec![membership], unknown, NOT_ALLOWED),
    ] {
        let id = tell(&mut w, name, &with, acts);
        assert_eq!(verdict(&w, id), expected, "{name} with {} statements", with.len());
    }
    let node = Node::with(w.cluster, &w.ops);
    let info = node.authority.erasure(act).unwrap();
    let told: Vec<_> = info.receipts.keys().copied().collect();
    let expected: BTreeSet<_> = [w.peer("m").key, w.peer("v").key].into();
    assert_eq!(told, expected.into_iter().collect::<Vec<_>>());
    let untold = |key| node.authority.untold_erasures(key).map(|(id, _)| id).collect::<Vec<_>>();
    assert_eq!((untold(w.peer("m").key), untold(w.peer("n").key)), (vec![], vec![act]));
    // Of one who is removed nothing is believed any more that lies beyond the pins.
    let target = principal(&w, "v");
    w.revoke_with("a0", target, Vec::new(), false);
    let node = Node::with(w.cluster, &w.ops);
    assert_eq!(node.authority.erasure(act).unwrap().receipts.len(), 1);
}

/// A bit of everything, for the golden vectors.
pub(super) fn exercised() -> World {
    let mut w = small();
    w.enrol("a0", "m", (20, 20), None);
    let membership = w.member("a0", "m", 20);
    w.sync_all();
    let act = w.act("a0", erase("x", &["a", "b"]));
    w.act("u", erase("x", &["c"]));
    let cut = w.act("a1", erase("x", &["d"]));
    w.sync_all();
    w.peer_mut("m").proof.push(membership);
    w.act("m", Act::Erased(Erased { acts: BTreeSet::from([act, cut]).into_iter().collect() }));
    w.act("u", Act::Erased(Erased { acts: vec![act] }));
    let target = principal(&w, "a1");
    w.revoke_with("o0", target, Vec::new(), false);
    w.sync_all();
    w.write("u", "x");
    w
}

pub(super) const ALL: &[(&str, fn())] = &[
    ("who_may_erase_each_document_erases_them", who_may_erase_each_document_erases_them),
    ("a_right_to_some_fields_erases_nothing", a_right_to_some_fields_erases_nothing),
    ("who_was_removed_erases_nothing_by_a_backdated_act", who_was_removed_erases_nothing_by_a_backdated_act),
    (
        "an_erasure_that_counts_no_more_erases_nothing_unless_another_does",
        an_erasure_that_counts_no_more_erases_nothing_unless_another_does,
    ),
    (
        "members_tell_what_they_have_carried_out_and_nobody_else",
        members_tell_what_they_have_carried_out_and_nobody_else,
    ),
];
