//! Named attacks and mishaps with rights on fields.

use super::rights::{grant, introduce, join, revision};
use super::scenarios::{is_cut, pin, small, verdict};
use super::world::{World, declare, paths, role, target, write_to};
use crate::authority::Verdict;
use crate::id::{OpId, PrincipalId};
use crate::op::{
    Action, Actions, BuiltInRole, Fields, Payload, PrincipalKind, RevokeTarget, Role, Target, WriteAction,
};

use BuiltInRole::{Admin, Editor, Reader};

const ALLOWED: Verdict = Verdict::Allowed;
const NOT_ALLOWED: Verdict = Verdict::NotAllowed;

pub(super) fn only(on: &str, fields: &[&str]) -> Target {
    Target { fields: Fields::Only(paths(fields)), ..target(on) }
}

pub(super) fn except(on: &str, fields: &[&str]) -> Target {
    Target { fields: Fields::Except(paths(fields)), ..target(on) }
}

/// Somebody changes a document and says what it touches; nothing at all if that is `None`.
fn update(w: &mut World, by: &str, fields: Option<&[&str]>) -> OpId {
    let principal = w.peer(by).principal;
    let mut header = w.draft_write_for(by, principal, "x", "d", WriteAction::Update);
    if let Some(fields) = fields {
        declare(&mut header, &paths(fields));
    }
    w.sign(by, header)
}

/// A cluster in which n may edit what these targets say.
fn limited(targets: &[Target]) -> World {
    let mut w = small();
    let n = w.peer("n").principal;
    for target in targets {
        w.act("a0", grant(n, role(Editor), target.clone(), 31));
    }
    w.sync_all();
    w
}

/// A bit of everything, for the golden vectors.
pub(super) fn exercised() -> World {
    let mut w = limited(&[only("x", &["/a", "/items/*/price"]), except("x*", &["/salary", "/people/*/pay"])]);
    update(&mut w, "n", Some(&["/a/b", "/items/*/price", "/name"]));
    update(&mut w, "n", Some(&["/salary"]));
    update(&mut w, "n", Some(&["/people"]));
    update(&mut w, "n", Some(&[]));
    update(&mut w, "n", None);
    update(&mut w, "u", Some(&["/salary"]));
    update(&mut w, "u", None);
    w.sync_all();
    update(&mut w, "n", Some(&["/a"]));
    w.revoke("a1", "n");
    w
}

#[test]
fn a_declared_field_must_lie_within_the_allowed_ones() {
    let mut w = limited(&[only("x", &["/a", "/items/*/price"])]);
    for (fields, expected) in [
        (Some(&["/a"][..]), ALLOWED),
        (Some(&["/a/b/c"]), ALLOWED),
        (Some(&["/a", "/items/*/price"]), ALLOWED),
        (Some(&["/items/7/price"]), ALLOWED),
        (Some(&[]), ALLOWED),
        (Some(&["/ab"]), NOT_ALLOWED),
        (Some(&["/*"]), NOT_ALLOWED),
        (Some(&["/items"]), NOT_ALLOWED),
        (Some(&["/items/*"]), NOT_ALLOWED),
        (Some(&["/items/*/name"]), NOT_ALLOWED),
        (Some(&["/a", "/b"]), NOT_ALLOWED),
    ] {
        let id = update(&mut w, "n", fields);
        assert_eq!(verdict(&w, id), expected, "{fields:?}");
    }
}

#[test]
fn nobody_writes_at_below_or_above_what_is_withheld() {
    let mut w = limited(&[except("x", &["/salary", "/people/*/pay"])]);
    for (fields, expected) in [
        (&["/name"][..], ALLOWED),
        (&["/people/*/name"], ALLOWED),
        (&["/salary"], NOT_ALLOWED),
        (&["/salary/net"], NOT_ALLOWED),
        (&["/*"], NOT_ALLOWED),
        // Whoever replaces or deletes what is above puts something else in the place of what is withheld.
        (&["/people"], NOT_ALLOWED),
        (&["/people/3"], NOT_ALLOWED),
        (&["/name", "/people/*/pay/net"], NOT_ALLOWED),
    ] {
        let id = update(&mut w, "n", Some(fields));
        assert_eq!(verdict(&w, id), expected, "{fields:?}");
    }
}

#[test]
fn who_declares_nothing_touches_the_whole_document() {
    for limit in [only("x", &["/a"]), except("x", &["/salary"])] {
        let mut w = limited(&[limit]);
        let silent = update(&mut w, "n", None);
        let n = w.peer("n").principal;
        let header = w.draft_write_for("n", n, "x", "d", WriteAction::Delete);
        let delete = w.sign("n", header);
        assert_eq!((verdict(&w, silent), verdict(&w, delete)), (NOT_ALLOWED, NOT_ALLOWED));
        let unlimited = update(&mut w, "u", None);
        assert_eq!(verdict(&w, unlimited), ALLOWED);
    }
}

#[test]
fn each_field_needs_one_right_and_all_rights_count() {
    let mut w = limited(&[only("x", &["/a"]), only("x", &["/b"]), except("x", &["/a", "/b", "/c"])]);
    for (fields, expected) in [
        (&["/a", "/b"][..], ALLOWED),
        (&["/a", "/b", "/d"], ALLOWED),
        (&["/a", "/c"], NOT_ALLOWED),
        (&["/c", "/d"], NOT_ALLOWED),
    ] {
        let id = update(&mut w, "n", Some(fields));
        assert_eq!(verdict(&w, id), expected, "{fields:?}");
    }
    // What one of them gave goes with it, and no more.
    let mut w = limited(&[only("x", &["/b"])]);
    let n = w.peer("n").principal;
    let given = w.act("a0", grant(n, role(Editor), only("x", &["/a"]), 31));
    w.sync_all();
    let ids = [&["/a", "/b"][..], &["/b"], &["/a"]].map(|fields| update(&mut w, "n", Some(fields)));
    let revocation = w.revoke_with("a0", RevokeTarget::Statement(given), vec![pin(&w, ids[0])], false);
    let later = update(&mut w, "n", Some(&["/a", "/b"]));
    let found = [ids[0], ids[1]].map(|id| verdict(&w, id));
    assert_eq!(found, [ALLOWED, ALLOWED]);
    assert!(is_cut(verdict(&w, ids[2]), revocation) && is_cut(verdict(&w, later), revocation));
}

#[test]
fn all_changes_of_a_transaction_are_within_the_fields() {
    let mut w = limited(&[only("x", &["/a"])]);
    let n = w.peer("n").principal;
    for (second, expected) in [("/a/b", ALLOWED), ("/b", NOT_ALLOWED)] {
        let mut header = w.draft_write_for("n", n, "x", "d", WriteAction::Create);
        declare(&mut header, &paths(&["/a"]));
        let Payload::Data(transactions) = &mut header.payload else { unreachable!() };
        let mut more = write_to(n, "e", WriteAction::Update).changes;
        more[0].fields = Some(paths(&[second]));
        transactions[0].changes.extend(more);
        let id = w.sign("n", header);
        assert_eq!(verdict(&w, id), expected, "{second}");
    }
}

#[test]
fn a_group_and_a_role_of_the_cluster_give_fields_too() {
    let mut w = small();
    let n = w.peer("n").principal;
    let group: PrincipalId = w.act("a0", introduce(PrincipalKind::Group, 30)).into();
    w.act("a0", join(n, group, 31));
    let clerk = w.act("a0", revision(&[Action::Update], &[], 20));
    w.act("a0", grant(group, Role::Custom(clerk), only("x", &["/a"]), 31));
    w.act("a0", grant(n, role(Reader), target("x"), 31));
    w.sync_all();
    let ids = [Some(&["/a"][..]), Some(&["/b"]), None].map(|fields| update(&mut w, "n", fields));
    assert_eq!(ids.map(|id| verdict(&w, id)), [ALLOWED, NOT_ALLOWED, NOT_ALLOWED]);
}

#[test]
fn who_administers_some_fields_gives_no_others() {
    let mut w = small();
    w.enrol("o0", "b", (10, 10), None);
    let (b, v) = (w.peer("b").principal, w.peer("v").principal);
    let all: Vec<Action> = Actions::ALL.iter().collect();
    let whole = w.act("o0", revision(&all, &[], 10));
    let given = w.act("o0", grant(b, Role::Custom(whole), except("*", &["/salary"]), 10));
    w.sync_all();
    w.peer_mut("b").proof.extend([whole, given]);
    for (what, on, expected) in [
        (Reader, except("x", &["/salary"]), ALLOWED),
        (Editor, except("x", &["/salary", "/name"]), ALLOWED),
        (Editor, only("x", &["/name"]), ALLOWED),
        (Admin, except("*", &["/salary"]), ALLOWED),
        (Reader, target("x"), NOT_ALLOWED),
        (Reader, except("x", &["/name"]), NOT_ALLOWED),
        (Reader, except("x", &["/salary/net"]), NOT_ALLOWED),
        (Reader, only("x", &["/salary/net"]), NOT_ALLOWED),
        (Reader, only("x", &["/*"]), NOT_ALLOWED),
    ] {
        let id = w.act("b", grant(v, role(what), on.clone(), 40));
        assert_eq!(verdict(&w, id), expected, "{what:?} {on:?}");
    }
    // An admin of some fields is no admin of everything.
    let key = w.certify("b", "k", Some(v), 40);
    assert_eq!(verdict(&w, key), NOT_ALLOWED);
}

pub(super) const ALL: &[(&str, fn())] = &[
    ("a_declared_field_must_lie_within_the_allowed_ones", a_declared_field_must_lie_within_the_allowed_ones),
    ("nobody_writes_at_below_or_above_what_is_withheld", nobody_writes_at_below_or_above_what_is_withheld),
    ("who_declares_nothing_touches_the_whole_document", who_declares_nothing_touches_the_whole_document),
    ("each_field_needs_one_right_and_all_rights_count", each_field_needs_one_right_and_all_rights_count),
    ("all_changes_of_a_transaction_are_within_the_fields", all_changes_of_a_transaction_are_within_the_fields),
    ("a_group_and_a_role_of_the_cluster_give_fields_too", a_group_and_a_role_of_the_cluster_give_fields_too),
    ("who_administers_some_fields_gives_no_others", who_administers_some_fields_gives_no_others),
];
